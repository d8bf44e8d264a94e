//! One binary: wiring only. What it can do is in the rooms (`crates/*`); here they are put together.

mod args;
mod demo;
mod image;
mod join;
mod memory;
mod node;
mod serve;
mod streams;

use clap::{CommandFactory, Parser};

use args::{Args, Command};

fn main() -> std::process::ExitCode {
    // The shim must be alone in its process: it is dispatched before any thread exists.
    let argv: Vec<String> = std::env::args().collect();
    if argv.get(1).is_some_and(|first| first == "shim") {
        return exit_code(agent::shim::main(&argv[2..]));
    }
    match voice(&argv) {
        Voice::Ours => {}
        Voice::Verb => return cli::run(&argv, own_commands(&argv), cli::Io::process()),
        Voice::Help => {
            println!("{}", Args::command().subcommands(cli::grammar::command().get_subcommands()).render_help());
            return std::process::ExitCode::SUCCESS;
        }
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

/// Whose command it is.
enum Voice {
    Ours,
    /// kubectl's grammar: the room `cli`.
    Verb,
    /// The one help that lists all.
    Help,
}

fn is_called_kubectl(argv: &[String]) -> bool {
    argv.first().is_some_and(|path| path.rsplit('/').next() == Some("kubectl"))
}

/// What this program can do besides the verbs: nothing when it is called kubectl.
fn own_commands(argv: &[String]) -> clap::Command {
    if is_called_kubectl(argv) { clap::Command::new("kubectl") } else { Args::command() }
}

fn voice(argv: &[String]) -> Voice {
    let called_kubectl = is_called_kubectl(argv);
    let is_ours = |word: &str| !called_kubectl && Args::command().find_subcommand(word).is_some();
    let word = |index: usize| argv.get(index).map(String::as_str);
    match (word(1), word(2)) {
        (None | Some("-h" | "--help"), _) | (Some("help"), None) if !called_kubectl => Voice::Help,
        (Some("--version" | "-V"), _) => Voice::Ours,
        (Some("help"), Some(about)) if is_ours(about) => Voice::Ours,
        (Some(command), _) if is_ours(command) => Voice::Ours,
        _ => Voice::Verb,
    }
}

fn exit_code(code: i32) -> std::process::ExitCode {
    u8::try_from(code).map_or(std::process::ExitCode::FAILURE, std::process::ExitCode::from)
}
