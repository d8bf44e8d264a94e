//! Manifests from the web: `-f https://…`. Mirrors cli-runtime `pkg/resource/visitor.go` (`readHttpWithRetries`).
//!
//! The transport is `kube`'s, with the machine's own authorities and without any of the kubeconfig's credentials.

use std::time::Duration;

use base64::Engine;
use http::{Request, Response, Uri, header};
use http_body_util::{BodyExt, Limited};
use kube::client::Body;

use crate::errors::{Error, Result};
use crate::kubeconfig::root_cause;

/// A server that fails is asked so often.
const ATTEMPTS: usize = 3;
/// Between two attempts.
const PAUSE: Duration = Duration::from_secs(1);
/// Answers that point elsewhere are followed so far.
const REDIRECTS: usize = 10;

/// True if a file's name is an address of the web.
pub fn is_url(name: &str) -> bool {
    name.starts_with("http://") || name.starts_with("https://")
}

/// What is at an address, not larger than `most` bytes.
pub async fn read(url: &str, most: usize) -> Result<String> {
    attempts(url, most, PAUSE).await
}

async fn attempts(url: &str, most: usize, pause: Duration) -> Result<String> {
    let mut last = Error::told("no attempt was made");
    for attempt in 0..ATTEMPTS {
        if 0 < attempt {
            tokio::time::sleep(pause).await;
        }
        match once(url, most).await {
            Ok(text) => return Ok(text),
            Err(Failure { error, passes: false }) => return Err(error),
            Err(Failure { error, .. }) => last = error,
        }
    }
    Err(last)
}

/// Why an attempt failed, and whether another one may fare better.
struct Failure {
    error: Error,
    passes: bool,
}

impl Failure {
    fn for_good(message: String) -> Failure {
        Failure { error: Error::told(message), passes: false }
    }
}

async fn once(url: &str, most: usize) -> Result<String, Failure> {
    let mut here = address(url, url)?;
    for _ in 0..=REDIRECTS {
        let answer = ask(&here).await?;
        let status = answer.status();
        if status.is_redirection()
            && let Some(to) = answer.headers().get(header::LOCATION).and_then(|to| to.to_str().ok())
        {
            here = address(&joined(&here, to), url)?;
            continue;
        }
        if !status.is_success() {
            let phrase = answer.extensions().get::<hyper::ext::ReasonPhrase>();
            let phrase = phrase.map(|phrase| String::from_utf8_lossy(phrase.as_bytes()).into_owned());
            let phrase = phrase.unwrap_or_else(|| status.canonical_reason().unwrap_or_default().to_owned());
            let code = status.as_u16();
            let why = format!("unable to read URL {url:?}, server reported {code} {phrase}, status code={code}");
            return Err(Failure { error: Error::told(why), passes: status.is_server_error() });
        }
        let body = Limited::new(answer.into_body(), most).collect().await;
        let broken = |error: Box<dyn std::error::Error + Send + Sync>| Failure {
            error: Error::told(format!("unable to read URL {url:?}: {}", root_cause(&*error))),
            passes: false,
        };
        return Ok(String::from_utf8_lossy(&body.map_err(broken)?.to_bytes()).into_owned());
    }
    Err(Failure::for_good(format!("Get {url:?}: stopped after {REDIRECTS} redirects")))
}

fn address(text: &str, named: &str) -> Result<Uri, Failure> {
    let text = text.split('#').next().unwrap_or_default();
    let wrong = |why: String| Failure::for_good(format!("the URL passed to filename {named:?} is not valid: {why}"));
    let uri: Uri = text.parse().map_err(|error: http::uri::InvalidUri| wrong(error.to_string()))?;
    match (uri.scheme_str(), uri.host()) {
        (Some("http" | "https"), Some(host)) if !host.is_empty() => Ok(uri),
        _ => Err(wrong(format!("{text:?} names no host of the web"))),
    }
}

/// Where an answer points to, which may be said relative to where it came from.
fn joined(here: &Uri, to: &str) -> String {
    let scheme = here.scheme_str().unwrap_or("http");
    let place = here.authority().map_or("", |authority| authority.as_str());
    if is_url(to) {
        to.to_owned()
    } else if to.starts_with("//") {
        format!("{scheme}:{to}")
    } else if to.starts_with('/') {
        format!("{scheme}://{place}{to}")
    } else {
        let folder = here.path().rsplit_once('/').map_or("", |(folder, _)| folder);
        format!("{scheme}://{place}{folder}/{to}")
    }
}

async fn ask(uri: &Uri) -> Result<Response<Body>, Failure> {
    let failed = |why: String| Failure::for_good(format!("Get {:?}: {why}", uri.to_string()));
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    let (who, place) = authority.rsplit_once('@').map_or((None, authority), |(who, place)| (Some(who), place));
    let base = format!("{}://{place}", uri.scheme_str().unwrap_or("http"));
    let mut config = kube::Config::new(base.parse().map_err(|error| failed(format!("{error}")))?);
    config.read_timeout = None;
    config.default_retry = false;
    let transport = kube::Client::try_from(config).map_err(|error| failed(root_cause(&error)))?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let mut request = Request::get(path).header(header::USER_AGENT, concat!("kapstan/", env!("CARGO_PKG_VERSION")));
    if let Some(who) = who {
        let basic = base64::engine::general_purpose::STANDARD.encode(who);
        request = request.header(header::AUTHORIZATION, format!("Basic {basic}"));
    }
    let request = request.body(Body::empty()).map_err(|error| failed(error.to_string()))?;
    transport.send(request).await.map_err(|error| {
        let cause = root_cause(&error);
        match cause.contains("refused") {
            true => Failure {
                error: Error::bare(format!(
                    "The connection to the server {place} was refused - did you specify the right host or port?"
                )),
                passes: true,
            },
            false => Failure { passes: true, ..failed(cause) },
        }
    })
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// A server that gives each request the next answer; what was asked for comes back.
    async fn asked(answers: Vec<&'static str>, path: &str) -> (Result<String>, Vec<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let place = listener.local_addr().unwrap();
        let server = async {
            let mut lines = Vec::new();
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut bytes = Vec::new();
                while !bytes.ends_with(b"\r\n\r\n") {
                    bytes.push(stream.read_u8().await.unwrap());
                }
                stream.write_all(answer.as_bytes()).await.unwrap();
                stream.shutdown().await.unwrap();
                let text = String::from_utf8(bytes).unwrap();
                let basic = text.lines().find(|line| line.starts_with("authorization")).unwrap_or_default();
                lines.push(format!("{}{basic}", text.lines().next().unwrap()));
            }
            lines
        };
        let url = format!("http://{}{place}{path}", if path == "/who" { "me:secret@" } else { "" });
        let (text, lines) = tokio::join!(attempts(&url, 64, Duration::ZERO), server);
        (text, lines)
    }

    fn told(outcome: (Result<String>, Vec<String>)) -> String {
        let text = outcome.0.unwrap_or_else(|error| {
            let message = error.message();
            // The port is another each time.
            message.split_once("/f").map_or(message.clone(), |(_, rest)| format!("… /f{rest}"))
        });
        format!("{text} after {:?}", outcome.1)
    }

    #[tokio::test]
    async fn attempts_and_redirects() {
        const GOOD: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nyaml";
        const AWAY: &str = "HTTP/1.1 302 Found\r\nLocation: there?x=y#z\r\nContent-Length: 0\r\n\r\n";
        const BUSY: &str = "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n";
        const GONE: &str = "HTTP/1.1 404 Never Heard\r\nContent-Length: 0\r\n\r\n";
        let all = [
            told(asked(vec![GOOD], "/f?a=b").await),
            told(asked(vec![AWAY, GOOD], "/a/f").await),
            told(asked(vec![BUSY, BUSY, GOOD], "/f").await),
            told(asked(vec![BUSY, BUSY, BUSY], "/f").await),
            told(asked(vec![GONE], "/f").await),
            told(asked(vec![GOOD], "/who").await),
        ];
        expect_test::expect![[r#"
            yaml after ["GET /f?a=b HTTP/1.1"]
            yaml after ["GET /a/f HTTP/1.1", "GET /a/there?x=y HTTP/1.1"]
            yaml after ["GET /f HTTP/1.1", "GET /f HTTP/1.1", "GET /f HTTP/1.1"]
            … /f", server reported 503 Busy, status code=503 after ["GET /f HTTP/1.1", "GET /f HTTP/1.1", "GET /f HTTP/1.1"]
            … /f", server reported 404 Never Heard, status code=404 after ["GET /f HTTP/1.1"]
            yaml after ["GET /who HTTP/1.1authorization: Basic bWU6c2VjcmV0"]"#]]
        .assert_eq(&all.join("\n"));
        let bad = attempts("http://[::1/f", 64, Duration::ZERO).await.unwrap_err().message();
        assert!(bad.starts_with("error: the URL passed to filename \"http://[::1/f\" is not valid: "), "{bad}");
    }
}
