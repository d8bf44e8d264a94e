//! The chores: `cargo xtask test|sim|bench|images|upstream|conformance`.

mod bench;
mod conformance;
mod images;
mod setup;
mod sim;
mod test;
mod upstream;

use std::path::PathBuf;
use std::process::ExitCode;

const USAGE: &str = "usage: cargo xtask COMMAND
  test [ARGS]   set the machine up and run every check and test; ARGS go to `cargo test` and leave the checks out
  sim ARGS      whole clusters from seeds: --seeds N [--from S] | --seed S [--trace] | --exhaustive | --zoo
  bench [ROW]   measure a release build beside Kubernetes' figures (--help tells more)
  images        build real nginx images from Debian's nginx package (--help tells more)
  upstream      run our commands against Kubernetes' own API server, controllers and scheduler (built once, half an hour)
  conformance   run Kubernetes' own end-to-end tests against kapstan (built once; --help tells more)";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let done = match args.split_first() {
        Some((command, rest)) if command == "test" => test::run(rest),
        Some((command, rest)) if command == "sim" => sim::run(rest),
        Some((command, rest)) if command == "bench" => bench::run(rest),
        Some((command, rest)) if command == "images" => images::run(rest),
        Some((command, rest)) if command == "upstream" => upstream::run(rest),
        Some((command, rest)) if command == "conformance" => conformance::run(rest),
        _ => Err(USAGE.to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("{problem}");
            ExitCode::FAILURE
        }
    }
}

/// The build folder.
fn target_folder() -> PathBuf {
    let workspace = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace.join("target"), PathBuf::from);
    target.canonicalize().unwrap_or(target)
}
