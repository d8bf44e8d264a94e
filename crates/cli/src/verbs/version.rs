//! `version`. Mirrors kubectl `pkg/cmd/version/version.go`.

use serde_json::json;

use crate::client::VERSION;
use crate::errors::{Error, Result};
use crate::json::Json;
use crate::print::{json_text, yaml};
use crate::session::Session;

/// Print the client's and the server's version.
#[derive(clap::Args)]
pub struct Options {
    /// Only the client's; no server is asked.
    #[arg(long)]
    client: bool,
    /// json or yaml.
    #[arg(long, short)]
    output: Option<String>,
}

/// Asks and prints.
pub async fn run(session: &mut Session, options: Options) -> Result<()> {
    let ours = VERSION;
    let (major, minor) = (env!("CARGO_PKG_VERSION_MAJOR"), env!("CARGO_PKG_VERSION_MINOR"));
    let platform = format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH);
    let mut shown =
        json!({"clientVersion": {"gitVersion": ours, "major": major, "minor": minor, "platform": platform}});
    let server = match options.client {
        true => None,
        false => Some(session.client()?.get("/version", &[]).await),
    };
    let failed = match server {
        Some(Ok(version)) => {
            shown["serverVersion"] = version;
            None
        }
        Some(Err(error)) => Some(error),
        None => None,
    };
    match options.output.as_deref() {
        None => {
            session.say(format!("Client Version: {ours}"))?;
            if shown.has("serverVersion") {
                session.say(format!("Server Version: {}", shown.text("serverVersion.gitVersion")))?;
            }
        }
        Some("json") => session.say(indented(&json_text(&shown)))?,
        Some("yaml") => session.print(yaml::text(&shown))?,
        Some(_) => return Err(Error::told("--output must be 'yaml' or 'json'")),
    }
    failed.map_or(Ok(()), Err)
}

/// This verb's JSON has two spaces where others have four.
fn indented(text: &str) -> String {
    let halved = |line: &str| {
        let spaces = line.len() - line.trim_start().len();
        format!("{}{}", " ".repeat(spaces / 2), line.trim_start())
    };
    text.lines().map(halved).collect::<Vec<_>>().join("\n")
}
