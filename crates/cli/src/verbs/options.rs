//! `options`: the flags that every verb takes. Mirrors kubectl `pkg/cmd/options`.

use std::fmt::Write as _;

use clap::ArgAction;

use crate::errors::{Error, Result};
use crate::grammar;
use crate::session::Session;

/// List the flags that every command takes.
#[derive(clap::Args)]
pub struct Options {}

/// Lists them.
pub async fn run(session: &mut Session, _: Options) -> Result<()> {
    session.print(text()?)
}

fn text() -> Result<String> {
    let mut text = "The following options can be passed to any command:\n".to_owned();
    let command = grammar::command();
    let mut flags: Vec<&clap::Arg> =
        command.get_arguments().filter(|arg| arg.is_global_set() && !arg.is_hide_set()).collect();
    flags.sort_by_key(|arg| arg.get_long());
    for arg in flags {
        let Some(long) = arg.get_long() else { continue };
        let short = arg.get_short().map_or_else(|| "    ".to_owned(), |letter| format!("-{letter}, "));
        let default = arg.get_default_values().first().map(|value| value.to_string_lossy().into_owned());
        let default = match arg.get_action() {
            ArgAction::SetTrue => "false".to_owned(),
            ArgAction::Append => "[]".to_owned(),
            _ => default.unwrap_or_else(|| "''".to_owned()),
        };
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        write!(text, "\n{short}--{long}={default}:\n\t{help}\n").map_err(|error| Error::told(error.to_string()))?;
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_with_their_defaults() {
        let text = text().unwrap();
        assert!(text.contains("\n-n, --namespace='':\n\tNamespace of this request\n"), "{text}");
        assert!(text.contains("\n    --request-timeout=0:\n"), "{text}");
        assert!(!text.contains("--cache-dir"), "{text}");
    }
}
