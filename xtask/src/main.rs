//! The chores: `cargo xtask test|bench|images`.

use std::process::ExitCode;

mod images;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let done = match args.split_first() {
        Some((command, rest)) if command == "images" => images::run(rest),
        _ => Err("usage: cargo xtask images [--help]".to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("{problem}");
            ExitCode::FAILURE
        }
    }
}
