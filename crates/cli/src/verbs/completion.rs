//! `completion`: scripts for shells. Those of bash, zsh and fish ask the program itself for what may come next (`complete.rs`); for other
//! shells they are made from the grammar and know no objects.

use clap_complete::{Shell, generate};

use crate::errors::Result;
use crate::grammar;
use crate::session::Session;

/// Print the completion script of a shell: `source <(kapstan completion bash)`.
///
/// With bash, zsh and fish commands, flags, types, names and namespaces are completed, with the others commands and flags.
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
    let asking = |script: &str| script.replace("PROGRAM", &program);
    let script = match shell {
        Shell::Bash => asking(include_str!("completion/bash.sh")),
        Shell::Zsh => asking(include_str!("completion/zsh.zsh")),
        Shell::Fish => asking(include_str!("completion/fish.fish")),
        other => {
            let mut script = Vec::new();
            generate(other, &mut grammar::whole(&session.own, &program), program.clone(), &mut script);
            String::from_utf8_lossy(&script).into_owned()
        }
    };
    session.print(script)
}
