//! Ages and durations in Go's words.
//!
//! Mirrors apimachinery `pkg/util/duration/duration.go` (`HumanDuration`) and Go's `time.ParseDuration` and `time.Parse`.

use std::time::Duration;

use jiff::Timestamp;

/// `5m3s` between a timestamp and now; `<unknown>` without one.
pub fn age(timestamp: &str) -> String {
    match timestamp.parse::<Timestamp>() {
        Ok(then) => human(Timestamp::now().as_second() - then.as_second()),
        Err(_) => "<unknown>".into(),
    }
}

/// Seconds since a timestamp; nothing without one.
pub fn since(timestamp: &str) -> Option<i64> {
    timestamp.parse::<Timestamp>().ok().map(|then| Timestamp::now().as_second() - then.as_second())
}

/// A number of seconds as kubectl shows ages.
pub fn human(seconds: i64) -> String {
    if seconds < -1 {
        return "<invalid>".into();
    }
    let seconds = seconds.max(0);
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let pair = |large: i64, unit: &str, small: i64, small_unit: &str| match small {
        0 => format!("{large}{unit}"),
        _ => format!("{large}{unit}{small}{small_unit}"),
    };
    match seconds {
        ..120 => format!("{seconds}s"),
        120..600 => pair(minutes, "m", seconds % 60, "s"),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => pair(hours, "h", minutes % 60, "m"),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => pair(days, "d", hours % 24, "h"),
        691_200..63_072_000 => format!("{days}d"),
        63_072_000..252_288_000 => pair(days / 365, "y", days % 365, "d"),
        _ => format!("{}y", days / 365),
    }
}

/// `90`, `90s`, `1m30s`, `1h`: a duration; nothing if it cannot be understood.
pub fn parse_duration(text: &str) -> Option<Duration> {
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let mut total = 0.0;
    let mut rest = text;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|letter: char| letter != '.' && !letter.is_ascii_digit())?;
        let number: f64 = rest[..end].parse().ok()?;
        let unit_end = rest[end..]
            .find(|letter: char| letter == '.' || letter.is_ascii_digit())
            .map_or(rest.len(), |length| end + length);
        let unit = match &rest[end..unit_end] {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        total += number * unit;
        rest = &rest[unit_end..];
    }
    Duration::try_from_secs_f64(total).ok()
}

/// The value of a flag such as `--timeout`; what is wrong with it is told in Go's words.
pub fn flag(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| {
        let of_numbers = |letter: char| letter == '.' || letter.is_ascii_digit();
        let mut rest = text;
        loop {
            let after = rest.trim_start_matches(of_numbers);
            let (unit, next) = after.split_at(after.find(of_numbers).unwrap_or(after.len()));
            match unit {
                _ if after.len() == rest.len() => return format!("time: invalid duration {text:?}"),
                "" => return format!("time: missing unit in duration {text:?}"),
                "ns" | "us" | "µs" | "ms" | "s" | "m" | "h" => rest = next,
                unit => return format!("time: unknown unit {unit:?} in duration {text:?}"),
            }
        }
    })
}

/// A duration as Go prints it: `1h0m5s`.
pub fn in_go(duration: Duration) -> String {
    let minutes = duration.as_secs() / 60;
    let seconds = (duration - Duration::from_secs(60 * minutes)).as_secs_f64();
    match (minutes / 60, minutes % 60) {
        (0, 0) => format!("{seconds}s"),
        (0, minutes) => format!("{minutes}m{seconds}s"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
    }
}

/// Reads a time in RFC 3339; what is wrong with it is told in Go's words.
pub fn rfc_3339(text: &str) -> Result<Timestamp, String> {
    const LAYOUT: &str = "2006-01-02T15:04:05Z07:00";
    // The parts of the layout in their order; what a number may not exceed, and how it is then called.
    const PARTS: [(&str, Option<(u32, &str)>); 11] = [
        ("2006", Some((9999, "year"))),
        ("-", None),
        ("01", Some((12, "month"))),
        ("-", None),
        ("02", Some((99, "day"))),
        ("T", None),
        ("15", Some((23, "hour"))),
        (":", None),
        ("04", Some((59, "minute"))),
        (":", None),
        ("05", Some((59, "second"))),
    ];
    let mismatch =
        |rest: &str, part: &str| format!("parsing time {text:?} as {LAYOUT:?}: cannot parse {rest:?} as {part:?}");
    let wrong = |why: &str| format!("parsing time {text:?}: {why}");
    let mut rest = text;
    for (part, bound) in PARTS {
        let Some((most, name)) = bound else {
            rest = rest.strip_prefix(part).ok_or_else(|| mismatch(rest, part))?;
            continue;
        };
        let digits = rest.get(..part.len()).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
        let number: u32 = digits.and_then(|digits| digits.parse().ok()).ok_or_else(|| mismatch(rest, part))?;
        if number > most || name == "month" && number == 0 {
            return Err(wrong(&format!("{name} out of range")));
        }
        rest = &rest[part.len()..];
    }
    let fraction = rest.strip_prefix(['.', ',']).map(|rest| rest.trim_start_matches(|it: char| it.is_ascii_digit()));
    let zone = fraction.filter(|left| left.len() + 1 < rest.len()).unwrap_or(rest);
    let offset = zone.get(..6).filter(|offset| {
        let shape = b"+00:00".iter().zip(offset.bytes());
        shape.enumerate().all(|(at, (wanted, found))| match at {
            0 => matches!(found, b'+' | b'-'),
            3 => found == *wanted,
            _ => found.is_ascii_digit(),
        })
    });
    let after =
        zone.strip_prefix('Z').or_else(|| offset.map(|_| &zone[6..])).ok_or_else(|| mismatch(zone, "Z07:00"))?;
    if !after.is_empty() {
        return Err(wrong(&format!("extra text: {after:?}")));
    }
    text.parse().map_err(|_| wrong("day out of range"))
}

/// A timestamp as `describe` prints it: `Mon, 02 Jan 2006 15:04:05 +0000`.
pub fn long(timestamp: &str) -> String {
    match timestamp.parse::<Timestamp>() {
        Ok(then) => then.to_zoned(jiff::tz::TimeZone::UTC).strftime("%a, %d %b %Y %H:%M:%S %z").to_string(),
        Err(_) => "<unset>".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_time_is_told_in_words_of_go() {
        let texts = [
            "2020-01-01T00:00:00+01:00",
            "2020-01-01T00:00:00.5Z",
            "2020-01-01T00:00:00,25Z",
            "junk",
            "2020-01-01",
            "2020-1-1T00:00:00Z",
            "20200101T000000Z",
            "2020-01-01 00:00:00Z",
            "2020-01-01T00:00:00",
            "2020-13-01T00:00:00Z",
            "2020-02-30T00:00:00Z",
            "2020-01-01T25:00:00Z",
            "2020-01-01T00:00:60Z",
            "2020-01-01T00:00:00Zx",
        ];
        let told = |text: &&str| rfc_3339(text).map_or_else(|why| why, |time| time.to_string()) + "\n";
        expect_test::expect![[r#"
            2019-12-31T23:00:00Z
            2020-01-01T00:00:00.5Z
            2020-01-01T00:00:00.25Z
            parsing time "junk" as "2006-01-02T15:04:05Z07:00": cannot parse "junk" as "2006"
            parsing time "2020-01-01" as "2006-01-02T15:04:05Z07:00": cannot parse "" as "T"
            parsing time "2020-1-1T00:00:00Z" as "2006-01-02T15:04:05Z07:00": cannot parse "1-1T00:00:00Z" as "01"
            parsing time "20200101T000000Z" as "2006-01-02T15:04:05Z07:00": cannot parse "0101T000000Z" as "-"
            parsing time "2020-01-01 00:00:00Z" as "2006-01-02T15:04:05Z07:00": cannot parse " 00:00:00Z" as "T"
            parsing time "2020-01-01T00:00:00" as "2006-01-02T15:04:05Z07:00": cannot parse "" as "Z07:00"
            parsing time "2020-13-01T00:00:00Z": month out of range
            parsing time "2020-02-30T00:00:00Z": day out of range
            parsing time "2020-01-01T25:00:00Z": hour out of range
            parsing time "2020-01-01T00:00:60Z": second out of range
            parsing time "2020-01-01T00:00:00Zx": extra text: "x"
        "#]]
        .assert_eq(&texts.iter().map(told).collect::<String>());
    }

    #[test]
    fn what_is_no_duration_is_told_in_words_of_go() {
        let told = |text: &str| flag(text).map_or_else(|why| why, in_go) + "\n";
        let texts = ["90s", "1h5s", "1.5m", "5", "", "x", "-1s", "1.5", "5x", "1h5", "1h5x", "1h.s"];
        expect_test::expect![[r#"
            1m30s
            1h0m5s
            1m30s
            5s
            time: invalid duration ""
            time: invalid duration "x"
            time: invalid duration "-1s"
            time: missing unit in duration "1.5"
            time: unknown unit "x" in duration "5x"
            time: missing unit in duration "1h5"
            time: unknown unit "x" in duration "1h5x"
            time: invalid duration "1h.s"
        "#]]
        .assert_eq(&texts.map(told).concat());
    }
}
