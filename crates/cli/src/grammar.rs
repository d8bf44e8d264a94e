//! The command line's grammar: clap's, with the habits of kubectl's (`--flag=true`, its words for mistakes).
//!
//! Mirrors spf13/pflag (booleans take `=true`) and cobra's wording of unknown commands and flags.

use std::process::ExitCode;

use clap::error::{ContextKind, ErrorKind};
use clap::{Arg, ArgAction, Command, CommandFactory, FromArgMatches, Parser};

use crate::discovery::closest;
use crate::session::{Global, Io};
use crate::verbs::Verb;

/// Rolling upgrades of applications, in kubectl's grammar.
#[derive(Parser)]
#[command(name = "kapstan", max_term_width = 100, disable_version_flag = true, args_override_self = true)]
pub struct Line {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    verb: Verb,
}

/// What a command line says.
pub struct Parsed {
    /// Flags that every verb takes.
    pub global: Global,
    /// The verb and its options.
    pub verb: Verb,
}

/// Commands of kubectl 1.32 that are not here.
const ONLY_KUBECTL: [&str; 6] = ["alpha", "certificate", "debug", "kustomize", "plugin", "proxy"];

/// Why nothing is to be run: help was asked for, or the line is wrong.
pub struct Stop {
    text: String,
    failed: bool,
}

impl Stop {
    /// Prints it.
    pub fn tell(self, mut io: Io) -> ExitCode {
        let stream = if self.failed { &mut io.stderr } else { &mut io.stdout };
        let written = writeln!(stream, "{}", self.text.trim_end());
        if self.failed || written.is_err() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    }
}

/// The grammar of the verbs.
pub fn command() -> Command {
    Line::command()
}

/// The grammar of the whole program, for completions and manual pages: the verbs, and the commands of `own`, which know none of the
/// flags that every verb takes.
pub fn whole(own: &Command, program: &str) -> Command {
    let name = name_of(program);
    let built = |command: Command| {
        let mut command = command.name(name).disable_help_subcommand(true);
        command.build();
        command
    };
    let (verbs, own) = (built(command()), built(own.clone()));
    let everywhere = verbs.get_arguments().filter(|arg| arg.get_id() != "help").map(|arg| arg.clone().global(false));
    let mut whole = Command::new(name).disable_version_flag(true).args(everywhere);
    if let Some(about) = own.get_about().or(verbs.get_about()) {
        whole = whole.about(about.clone());
    }
    whole.subcommands(verbs.get_subcommands().chain(own.get_subcommands()).cloned())
}

fn name_of(program: &str) -> &'static str {
    if program == "kubectl" { "kubectl" } else { "kapstan" }
}

/// Understands a command line. The commands of `own` are none of the verbs; who mistypes one of them is told so.
pub fn parse(program: &str, words: &[String], own: &Command) -> Result<Parsed, Stop> {
    let command = command().name(name_of(program)).bin_name(program.to_owned());
    let line = plain_booleans(&command, words);
    let argv = std::iter::once(program.to_owned()).chain(line);
    let wrong = |error: clap::Error| wrong(program, (&command, own), &error, words);
    let matches = command.clone().try_get_matches_from(argv).map_err(wrong)?;
    let parsed = Line::from_arg_matches(&matches).map_err(wrong)?;
    Ok(Parsed { global: parsed.global, verb: parsed.verb })
}

/// A word of a command line.
#[derive(Debug, PartialEq, Eq)]
pub enum Word {
    /// A command or an argument.
    Plain(String),
    /// A flag and its value.
    Flag {
        /// Its long name.
        name: String,
        /// Its value; booleans have `true` or `false`.
        value: String,
        /// Whether it is a boolean.
        boolean: bool,
    },
    /// Everything after `--`.
    Rest(Vec<String>),
}

/// Splits a line into flags and other words, by the grammar of the verb it names.
pub fn split(words: &[String]) -> Vec<Word> {
    split_by(&command(), words)
}

/// As [`split`], by a grammar that is at hand.
pub fn split_by(top: &Command, words: &[String]) -> Vec<Word> {
    let mut here = top;
    let mut found = Vec::new();
    let mut index = 0;
    while let Some(word) = words.get(index) {
        index += 1;
        if word == "--" {
            found.push(Word::Rest(words[index..].to_vec()));
            break;
        }
        let Some(flag) = flag_of(top, here, word) else {
            here = here.find_subcommand(word).unwrap_or(here);
            found.push(Word::Plain(word.clone()));
            continue;
        };
        let value = match (flag.value, flag.boolean, flag.optional) {
            (Some(value), _, _) => value,
            (None, true, _) => "true".into(),
            (None, false, true) => flag.missing.unwrap_or_default(),
            (None, false, false) => {
                index += 1;
                words.get(index - 1).cloned().unwrap_or_default()
            }
        };
        found.push(Word::Flag { name: flag.name, value, boolean: flag.boolean });
    }
    found
}

struct Flag {
    name: String,
    value: Option<String>,
    boolean: bool,
    optional: bool,
    missing: Option<String>,
}

fn flag_of(top: &Command, here: &Command, word: &str) -> Option<Flag> {
    let (arg, value) = if let Some(long) = word.strip_prefix("--") {
        let (name, value) = long.split_once('=').map_or((long, None), |(name, value)| (name, Some(value.to_owned())));
        (find(top, here, |arg| arg.get_long() == Some(name))?, value)
    } else {
        let mut letters = word.strip_prefix('-')?.chars();
        let letter = letters.next()?;
        let rest = letters.as_str();
        let value = (!rest.is_empty()).then(|| rest.strip_prefix('=').unwrap_or(rest).to_owned());
        (find(top, here, |arg| arg.get_short() == Some(letter))?, value)
    };
    let boolean = matches!(arg.get_action(), ArgAction::SetTrue | ArgAction::Count);
    let optional = arg.get_num_args().is_some_and(|range| range.min_values() == 0);
    let missing = arg.get_default_values().first().map(|value| value.to_string_lossy().into_owned());
    let name = arg.get_long().map_or_else(|| arg.get_id().to_string(), str::to_owned);
    Some(Flag { name, value, boolean, optional, missing })
}

fn find<'a>(top: &'a Command, here: &'a Command, fits: impl Fn(&Arg) -> bool) -> Option<&'a Arg> {
    here.get_arguments().chain(top.get_arguments()).find(|arg| fits(arg))
}

/// `--flag=true` becomes `--flag`, `--flag=false` goes: clap's switches take no value.
fn plain_booleans(top: &Command, words: &[String]) -> Vec<String> {
    let mut here = top;
    let mut kept = Vec::new();
    for (index, word) in words.iter().enumerate() {
        if word == "--" {
            kept.extend_from_slice(&words[index..]);
            break;
        }
        match flag_of(top, here, word) {
            Some(flag) if flag.boolean && word.starts_with("--") => match flag.value.as_deref() {
                Some("true" | "True" | "TRUE" | "t" | "1") => kept.push(format!("--{}", flag.name)),
                Some("false" | "False" | "FALSE" | "f" | "0") => {}
                _ => kept.push(word.clone()),
            },
            Some(_) => kept.push(word.clone()),
            None => {
                here = here.find_subcommand(word).unwrap_or(here);
                kept.push(word.clone());
            }
        }
    }
    kept
}

fn wrong(program: &str, (command, own): (&Command, &Command), error: &clap::Error, words: &[String]) -> Stop {
    let said = |kind: ContextKind| error.get(kind).map(ToString::to_string).unwrap_or_default();
    let path = path_of(command, words);
    let see = format!("See '{program}{path} --help' for usage.");
    let text = match error.kind() {
        ErrorKind::DisplayHelp => return Stop { text: error.to_string(), failed: false },
        // `kubectl rollout` by itself shows its help and fails; `kubectl` by itself does not fail.
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            return Stop { text: error.to_string(), failed: !path.is_empty() };
        }
        ErrorKind::InvalidSubcommand if path == " create" => {
            let more = arguments(words, &path);
            format!("error: Unexpected args: [{}]\nSee '{program}{path} -h' for help and examples", more.join(" "))
        }
        ErrorKind::InvalidSubcommand if !path.is_empty() => {
            let word = said(ContextKind::InvalidSubcommand);
            let line = arguments(words, &path).join(" ");
            let names = command_at(command, &path).get_subcommands().map(Command::get_name).collect::<Vec<_>>();
            let hint = did_you_mean(&word, names.into_iter(), "");
            format!("error: unknown command {line:?}\nSee '{program}{path} -h' for help and examples{hint}")
        }
        ErrorKind::InvalidSubcommand => {
            let word = said(ContextKind::InvalidSubcommand);
            let all = command.get_subcommands().chain(own.get_subcommands().filter(|command| !command.is_hide_set()));
            match closest(&word, all.map(Command::get_name)) {
                _ if ONLY_KUBECTL.contains(&word.as_str()) => {
                    format!(
                        "Error: unknown command {word:?} for {program:?}\nhint: kapstan has no such command; kubectl has it"
                    )
                }
                Some(near) => {
                    format!("Error: unknown command {word:?} for {program:?}\n\nDid you mean this?\n\t{near}\n")
                }
                None => format!("Error: unknown command {word:?} for {program:?}"),
            }
        }
        ErrorKind::UnknownArgument => {
            let flag = said(ContextKind::InvalidArg);
            let flag = flag.split(['=', ' ']).next().unwrap_or_default();
            match flag.strip_prefix("--") {
                Some(name) => {
                    let here = command_at(command, &path);
                    let names = here.get_arguments().chain(command.get_arguments()).filter_map(Arg::get_long);
                    let hint = did_you_mean(name, names, "--");
                    format!("Error: unknown flag: {flag}\n{see}{hint}")
                }
                None if flag.starts_with('-') => {
                    let letter = flag.trim_start_matches('-').chars().next().unwrap_or(' ');
                    format!("Error: unknown shorthand flag: '{letter}' in {flag}\n{see}")
                }
                None if path.starts_with(" create ") => {
                    let count = arguments(words, &path).len();
                    format!(
                        "error: exactly one NAME is required, got {count}\nSee '{program}{path} -h' for help and examples"
                    )
                }
                None => format!("error: unexpected argument {flag:?}\n{see}"),
            }
        }
        ErrorKind::InvalidValue | ErrorKind::NoEquals if said(ContextKind::InvalidValue).is_empty() => {
            let arg = said(ContextKind::InvalidArg);
            let flag = arg.split([' ', '=']).next().unwrap_or_default();
            format!("Error: flag needs an argument: {flag}\n{see}")
        }
        // A switch was given a value that is none.
        ErrorKind::TooManyValues => {
            let arg = said(ContextKind::InvalidArg);
            let flag = arg.split([' ', '=', '[']).next().unwrap_or_default();
            let value = said(ContextKind::InvalidValue);
            format!(
                "Error: invalid argument {value:?} for {flag:?} flag: strconv.ParseBool: parsing {value:?}: invalid syntax\n{see}"
            )
        }
        ErrorKind::InvalidValue | ErrorKind::ValueValidation => {
            let arg = said(ContextKind::InvalidArg);
            let flag = arg.split([' ', '=', '[']).next().unwrap_or_default();
            let value = said(ContextKind::InvalidValue);
            let why = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
            format!("Error: invalid argument {value:?} for {flag:?} flag: {why}\n{see}")
        }
        ErrorKind::MissingRequiredArgument => {
            let missing = said(ContextKind::InvalidArg);
            let names: Vec<String> = missing
                .split(['\n', ','])
                .filter_map(|part| part.trim().strip_prefix("--"))
                .filter_map(|part| part.split([' ', '=']).next())
                .map(|name| format!("{name:?}"))
                .collect();
            let help = format!("See '{program}{path} -h' for help and examples");
            match names.is_empty() {
                true if path == " run" => format!("error: NAME is required for run\n{help}"),
                true if path.starts_with(" create ") => format!("error: exactly one NAME is required, got 0\n{help}"),
                true => format!("error: required arguments are missing: {}\n{see}", missing.replace('\n', ", ")),
                false => format!("error: required flag(s) {} not set", names.join(", ")),
            }
        }
        _ => error.to_string(),
    };
    Stop { text, failed: true }
}

/// A hint of its own line, if a name is near.
fn did_you_mean<'a>(word: &str, names: impl Iterator<Item = &'a str>, dashes: &str) -> String {
    closest(word, names).map(|near| format!("\nhint: did you mean \"{dashes}{near}\"?")).unwrap_or_default()
}

/// The command that a path such as ` rollout status` names.
fn command_at<'a>(top: &'a Command, path: &str) -> &'a Command {
    path.split_whitespace().fold(top, |here, name| here.find_subcommand(name).unwrap_or(here))
}

/// The words of a line behind its path that are no flags.
fn arguments(words: &[String], path: &str) -> Vec<String> {
    let plain = split(words).into_iter().filter_map(|word| match word {
        Word::Plain(word) => Some(word),
        _ => None,
    });
    plain.skip(path.split_whitespace().count()).collect()
}

fn path_of(top: &Command, words: &[String]) -> String {
    let mut here = top;
    let mut path = String::new();
    let plain =
        split(words).into_iter().filter_map(|word| if let Word::Plain(word) = word { Some(word) } else { None });
    for word in plain {
        let Some(next) = here.find_subcommand(&word) else { break };
        path.push(' ');
        path.push_str(next.get_name());
        here = next;
    }
    path
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn commands_that_are_none() {
        let own = Command::new("kapstan").subcommand(Command::new("server")).subcommand(Command::new("web").hide(true));
        let told = |word: &str| match parse("kapstan", &[word.to_owned()], &own) {
            Ok(_) => "understood".to_owned(),
            Err(stop) => stop.text,
        };
        expect![[r#"
            Error: unknown command "servr" for "kapstan"

            Did you mean this?
            	server

            ---
            Error: unknown command "aply" for "kapstan"

            Did you mean this?
            	apply

            ---
            Error: unknown command "roll" for "kapstan"

            Did you mean this?
            	rolling-update

            ---
            Error: unknown command "wep" for "kapstan"
            ---
            Error: unknown command "debug" for "kapstan"
            hint: kapstan has no such command; kubectl has it
            ---
            Error: unknown command "nothing" for "kapstan"
            ---
        "#]]
        .assert_eq(&["servr", "aply", "roll", "wep", "debug", "nothing"].map(|word| told(word) + "\n---\n").concat());
    }
}
