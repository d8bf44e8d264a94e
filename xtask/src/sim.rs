//! `cargo xtask sim`: builds the simulator as released and hands it the arguments.

use std::process::Command;

/// Runs the simulator.
pub fn run(args: &[String]) -> Result<(), String> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["run", "--release", "--quiet", "--package", "sim", "--"]).args(args);
    let status = command.status().map_err(|error| format!("cargo could not be started: {error}"))?;
    if status.success() { Ok(()) } else { Err("the simulator found something, or could not run: see above".into()) }
}
