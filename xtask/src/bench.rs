//! `cargo xtask bench`: builds the program and the benchmark for release and runs the benchmark (`xtask/bench`).
//!
//! The benchmark is a package of its own, so that its client is compiled for speed and the other chores stay quick to build.

use std::process::Command;

/// Builds, then measures; the arguments go to the benchmark.
pub fn run(args: &[String]) -> Result<(), String> {
    cargo(&["build", "--release", "--package", "kapstan"], &[])?;
    cargo(&["run", "--release", "--quiet", "--package", "bench", "--"], args)
}

fn cargo(command: &[&str], args: &[String]) -> Result<(), String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo).args(command).args(args).status().map_err(|error| format!("cargo: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("cargo {} failed: {status}", command.join(" "))) }
}
