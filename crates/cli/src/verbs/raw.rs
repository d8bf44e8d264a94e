//! `--raw` of `create`, `replace` and `delete`: a request to any path, with a body from a file. Mirrors kubectl `pkg/rawhttp`.

use std::fs;
use std::io::Read;

use http::Method;

use crate::client::{self, JSON};
use crate::errors::{Error, Result};
use crate::objects::Files;
use crate::session::Session;
use crate::web;

/// Sends the file that is named, and prints the answer as it is. Only DELETE may go without a file.
pub async fn send(session: &mut Session, method: Method, path: &str, files: &Files) -> Result<()> {
    if files.recursive {
        return Err(Error::told("--raw and --recursive are mutually exclusive"));
    }
    let body = match files.filename.as_slice() {
        [] if method == Method::DELETE => Vec::new(),
        [name] if web::is_url(name) => {
            return Err(Error::told("--raw cannot read from a url"));
        }
        [name] if name == "-" => {
            let mut bytes = Vec::new();
            session.io.stdin.read_to_end(&mut bytes)?;
            bytes
        }
        [name] => fs::read(name).map_err(|error| Error::told(format!("open {name}: {error}")))?,
        _ => return Err(Error::told("--raw can only use a single local file or stdin")),
    };
    if !path.starts_with('/') {
        return Err(Error::told(format!("--raw must be a valid URL path: parse {path:?}: invalid URI for request")));
    }
    let body = (!body.is_empty()).then_some((JSON, body));
    let answer = session.client()?.send(method, path, &[], "*/*", body).await?;
    let text = client::read(answer).await?;
    session.print(String::from_utf8_lossy(&text))
}
