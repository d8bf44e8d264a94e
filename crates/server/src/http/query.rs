//! Query parameters, parsed once.

use std::time::Duration;

use api::{Refusal, limits};

/// The parameters of a request.
#[derive(Debug, Default)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Parses the part behind `?`.
    pub fn parse(text: Option<&str>) -> Query {
        let pairs = text.unwrap_or("").split('&').filter(|pair| !pair.is_empty());
        Query(
            pairs.map(|pair| pair.split_once('=').unwrap_or((pair, ""))).map(|(k, v)| (decode(k), decode(v))).collect(),
        )
    }

    /// The value of `name`, empty if it is not given; the last of several.
    pub fn text(&self, name: &str) -> &str {
        self.0.iter().rfind(|(given, _)| given == name).map_or("", |(_, value)| value)
    }

    /// Every value of `name`, in the order in which they are given.
    pub fn all(&self, name: &str) -> Vec<String> {
        self.0.iter().filter(|(given, _)| given == name).map(|(_, value)| value.clone()).collect()
    }

    /// True for `true` and `1`.
    pub fn flag(&self, name: &str) -> bool {
        matches!(self.text(name), "true" | "1" | "True")
    }

    /// A whole number, if given.
    pub fn number(&self, name: &str) -> Result<Option<i64>, Refusal> {
        match self.text(name) {
            "" => Ok(None),
            text => text
                .parse()
                .map(Some)
                .map_err(|_| Refusal::bad_request(format!("query parameter {name}: \"{text}\" is not a whole number"))),
        }
    }

    /// How long a watch lasts: `timeoutSeconds` up to the bound, or the bound.
    pub fn watch_time(&self) -> Result<Duration, Refusal> {
        let asked = self.number("timeoutSeconds")?.and_then(|seconds| u64::try_from(seconds).ok());
        let seconds = asked.filter(|seconds| *seconds > 0).unwrap_or(limits::WATCH_SECONDS);
        Ok(Duration::from_secs(seconds.min(limits::WATCH_SECONDS)))
    }

    /// `dryRun=All`; anything else given is refused.
    pub fn dry_run(&self) -> Result<bool, Refusal> {
        match self.text("dryRun") {
            "" => Ok(false),
            "All" => Ok(true),
            other => Err(Refusal::new(
                422,
                "Invalid",
                format!("dryRun: Unsupported value: \"{other}\": supported values: \"All\""),
            )),
        }
    }
}

/// Percent-decoding, `+` for a space.
fn decode(text: &str) -> String {
    decoded(text, true)
}

/// Percent-decoding of a path, where `+` is itself.
pub fn decode_path(text: &str) -> String {
    decoded(text, false)
}

/// Percent-encodes everything that means something in a path or a query.
pub fn percent_encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~*:".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

fn decoded(text: &str, plus_is_space: bool) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = bytes.get(at + 1..at + 3).and_then(|pair| std::str::from_utf8(pair).ok());
        match (bytes[at], hex.and_then(|pair| u8::from_str_radix(pair, 16).ok())) {
            (b'%', Some(byte)) => {
                out.push(byte);
                at += 3;
            }
            (b'+', _) if plus_is_space => {
                out.push(b' ');
                at += 1;
            }
            (byte, _) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::Query;

    #[test]
    fn decoded() {
        let query = Query::parse(Some("labelSelector=app%3Dweb%2Ctier+in+%28a%29&limit=5&bad=%zz&watch"));
        assert_eq!(query.text("labelSelector"), "app=web,tier in (a)");
        assert_eq!(query.number("limit"), Ok(Some(5)));
        assert_eq!(query.text("bad"), "%zz");
        assert_eq!(query.text("watch"), "");
        assert!(query.number("bad").is_err());
        let times = ["", "timeoutSeconds=7", "timeoutSeconds=0", "timeoutSeconds=9223372036854775807"];
        let seconds = times.map(|text| Query::parse(Some(text)).watch_time().unwrap().as_secs());
        assert_eq!(seconds, [2_700, 7, 2_700, 2_700]);
        let query = Query::parse(Some("command=sh&command=-c&command=a%26b"));
        assert_eq!(query.all("command"), ["sh", "-c", "a&b"]);
        assert_eq!(query.text("command"), "a&b");
    }
}
