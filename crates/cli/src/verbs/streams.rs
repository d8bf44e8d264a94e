//! `exec`, `attach`, `cp`, `port-forward`: refused with a clear error as long as no stream goes into pods.

use crate::errors::{Error, Result};
use crate::session::Session;

/// Needs a stream into the pod, which this program does not open yet: use kubectl against a server that serves it.
#[derive(clap::Args)]
pub struct Options {
    /// Everything that kubectl would take.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<String>,
}

/// Refuses.
pub async fn run(session: &mut Session, options: Options) -> Result<()> {
    let verb = session.argv.iter().find(|word| !word.starts_with('-')).cloned().unwrap_or_default();
    let error = Error::told(format!("{verb} is not supported: this program opens no streams into pods"));
    Err(error.hinted(format!(
        "`kubectl {verb} {}` works where the server serves it; `logs` shows what containers write",
        options.words.join(" ")
    )))
}
