//! `kapstan demo`: the main job in a minute, on a throw-away cluster.
//!
//! With containers where the machine allows it (root, or user namespaces), on simulated nodes elsewhere. It exits 1 if
//! one request failed or a rollout broke its bounds.

mod board;
mod bounds;
mod images;
mod stage;
mod story;
mod traffic;
pub mod web;

use std::process::ExitCode;

use crate::args::DemoOptions;

/// Plays the demo, or the part of it that this process has.
pub fn run(options: &DemoOptions) -> Result<ExitCode, String> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match std::env::var(stage::ROLE).as_deref() {
        Ok("init") => stage::init(&arguments),
        Ok("story") => story::play(true, &stage::folder()),
        _ if options.simulated => simulated("as asked"),
        _ => match stage::play(&arguments) {
            Ok(code) => Ok(code),
            Err(stage::NoStage(why)) => simulated(&why),
        },
    }
}

fn simulated(why: &str) -> Result<ExitCode, String> {
    println!("No containers here ({why}): the same story on simulated nodes, without requests.\n");
    let folder = tempfile::Builder::new().prefix("kapstan-demo-").tempdir().map_err(|error| error.to_string())?;
    story::play(false, folder.path())
}
