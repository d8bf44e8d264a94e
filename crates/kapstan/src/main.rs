//! One binary: wiring only. What it can do is in the rooms (`crates/*`); here they are put together.

mod args;
mod demo;
mod image;
mod join;
mod node;
mod serve;

use clap::Parser;

use args::{Args, Command};

fn main() -> std::process::ExitCode {
    // The shim must be alone in its process: it is dispatched before any thread exists.
    let argv: Vec<String> = std::env::args().collect();
    if argv.get(1).is_some_and(|first| first == "shim") {
        return exit_code(agent::shim::main(&argv[2..]));
    }
    let outcome = match Args::parse().command {
        Command::Server(options) => serve::run(options),
        Command::Agent(options) => join::run(options),
        Command::Demo(options) => match demo::run(&options) {
            Ok(code) => return code,
            Err(message) => Err(message),
        },
        Command::Image(command) => image::run(command),
        Command::Web { version_name } => demo::web::run(&version_name),
    };
    match outcome {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("error: {message}");
            std::process::ExitCode::FAILURE
        }
    }
}

fn exit_code(code: i32) -> std::process::ExitCode {
    u8::try_from(code).map_or(std::process::ExitCode::FAILURE, std::process::ExitCode::from)
}
