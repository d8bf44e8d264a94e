//! `man`: manual pages, made from the grammar itself like help and completions. Ours.

use std::path::PathBuf;

use crate::errors::{Error, Result};
use crate::grammar;
use crate::session::Session;

/// Write the manual pages into a folder: kapstan.1 and one for each command.
///
/// Examples:
///   kapstan man /usr/local/share/man/man1
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Options {
    /// The folder; it is made if it is not there.
    folder: PathBuf,
}

/// Writes them.
pub async fn run(session: &mut Session, options: Options) -> Result<()> {
    let folder = &options.folder;
    let failed = |error: std::io::Error| Error::told(format!("{}: {error}", folder.display()));
    std::fs::create_dir_all(folder).map_err(failed)?;
    clap_mangen::generate_to(grammar::whole(&session.own, &session.program), folder).map_err(failed)?;
    let count = std::fs::read_dir(folder).map_err(failed)?.count();
    session.say(format!("{count} pages are in {}", folder.display()))
}
