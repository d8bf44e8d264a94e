//! `completion`: scripts for shells, made from the grammar itself.

use clap_complete::{Shell, generate};

use crate::errors::Result;
use crate::session::Session;

/// Print the completion script of a shell: `source <(kapstan completion bash)`.
#[derive(clap::Args)]
pub struct Options {
    /// bash, zsh or fish.
    shell: Shell,
}

/// Prints the script.
pub async fn run(session: &mut Session, options: Options) -> Result<()> {
    let program = session.program.clone();
    let mut script = Vec::new();
    generate(options.shell, &mut crate::grammar::command(), program, &mut script);
    session.print(String::from_utf8_lossy(&script))
}
