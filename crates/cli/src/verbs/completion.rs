//! `completion`: scripts for shells, made from the grammar itself.

use clap_complete::{Shell, generate};

use crate::errors::Result;
use crate::session::Session;

/// Print the completion script of a shell: `source <(kapstan completion bash)`.
#[derive(clap::Args)]
pub struct Options {
    /// bash, zsh, fish, elvish or powershell.
    #[arg(value_name = "SHELL")]
    shells: Vec<String>,
}

/// Prints the script.
pub async fn run(session: &mut Session, options: Options) -> Result<()> {
    let [name] = options.shells.as_slice() else {
        let why = match options.shells.is_empty() {
            true => "Shell not specified.",
            false => "Too many arguments. Expected only the shell type.",
        };
        return Err(session.usage("completion", why));
    };
    let unknown = |_| session.usage("completion", &format!("Unsupported shell type {name:?}."));
    let shell: Shell = name.parse().map_err(unknown)?;
    let program = session.program.clone();
    let mut script = Vec::new();
    generate(shell, &mut crate::grammar::command(), program, &mut script);
    session.print(String::from_utf8_lossy(&script))
}
