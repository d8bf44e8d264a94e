//! What a shell may put where the user presses the tabulator: commands, flags, and by asking the cluster types, names and namespaces.
//!
//! The scripts that `completion` prints call `PROGRAM __complete WORDS…`, the last word being the one that is completed, as those of
//! kubectl do: a candidate a line, after a tabulator what it is, and last `:` and a sum of numbers for the shell. Mirrors cobra
//! `completions.go` and kubectl `pkg/util/completion`. Failures are no candidates: nobody reads errors in the middle of a line.

use clap::{Arg, ArgAction, Command, Parser};

use crate::client::Client;
use crate::discovery::{Discovery, Resource};
use crate::errors::Result;
use crate::grammar::{self, Word};
use crate::json::Json;
use crate::kubeconfig;
use crate::objects;
use crate::session::{Global, Session};
use crate::verbs::api_resources::preferred;

/// The word that asks, and the one that wants no descriptions.
const ASKS: [&str; 2] = ["__complete", "__completeNoDesc"];
/// For the shell: the candidates are all; they are not, files may be meant; no space after a candidate.
const NO_FILES: u8 = 4;
const FILES: u8 = 0;
const NO_SPACE: u8 = 2;
/// Nobody waits long in the middle of a line.
const PATIENCE: &str = "5s";

/// Workloads as `rollout` and others name them.
const ROLLED: &[&str] = &["deployment", "daemonset", "statefulset"];
const SCALED: &[&str] = &["deployment", "replicaset", "replicationcontroller", "statefulset"];
const TEMPLATED: &[&str] =
    &["daemonsets", "deployments", "pods", "cronjobs", "replicasets", "replicationcontrollers", "statefulsets"];
const EXPOSED: &[&str] = &["pod", "service", "replicationcontroller", "deployment", "replicaset"];
/// What has pods that a command may go into.
const WITH_PODS: &[&str] =
    &["daemonsets", "deployments", "pods", "jobs", "replicasets", "replicationcontrollers", "services", "statefulsets"];

/// What the arguments of a command are.
#[derive(Clone, Copy)]
enum Arguments {
    /// A type that there is, then names; or TYPE/NAME.
    Types,
    /// One of these types, then names; or TYPE/NAME.
    Of(&'static [&'static str]),
    /// A pod, or TYPE/ for one of its pods.
    Pods,
    /// Names of one type.
    Names(&'static str),
    /// What the kubeconfig names.
    Contexts,
    Clusters,
    Users,
    /// These words.
    Words(&'static [&'static str]),
    /// Pods, namespaces and files.
    Copied,
    /// Unknown to us.
    Files,
}

/// What stands where, by the command's path.
fn arguments(path: &str) -> Arguments {
    match path {
        "get"
        | "describe"
        | "delete"
        | "edit"
        | "label"
        | "annotate"
        | "patch"
        | "explain"
        | "wait"
        | "apply view-last-applied"
        | "apply edit-last-applied" => Arguments::Types,
        "rollout pause" | "rollout resume" => Arguments::Of(&ROLLED[..1]),
        "rollout status" | "rollout history" | "rollout undo" | "rollout restart" | "rollout plan" | "rollout why" => {
            Arguments::Of(ROLLED)
        }
        "scale" | "autoscale" => Arguments::Of(SCALED),
        "set env" | "set image" | "set resources" | "set serviceaccount" => Arguments::Of(TEMPLATED),
        "set selector" => Arguments::Of(&EXPOSED[1..2]),
        "set subject" => Arguments::Of(&["rolebinding", "clusterrolebinding"]),
        "expose" => Arguments::Of(EXPOSED),
        "taint" => Arguments::Of(&["node"]),
        "logs" | "exec" | "attach" | "port-forward" => Arguments::Pods,
        "cordon" | "uncordon" | "drain" | "top node" => Arguments::Names("nodes"),
        "top pod" => Arguments::Names("pods"),
        "rolling-update" => Arguments::Names("replicationcontrollers"),
        "config use-context"
        | "config delete-context"
        | "config rename-context"
        | "config get-contexts"
        | "config set-context" => Arguments::Contexts,
        "config delete-cluster" | "config set-cluster" => Arguments::Clusters,
        "config delete-user" | "config set-credentials" => Arguments::Users,
        "completion" => Arguments::Words(&["bash", "zsh", "fish", "elvish", "powershell"]),
        "cp" => Arguments::Copied,
        _ => Arguments::Files,
    }
}

/// True if a line asks for candidates.
pub fn is_asked(words: &[String]) -> bool {
    words.first().is_some_and(|word| ASKS.contains(&word.as_str()))
}

/// Prints the candidates for the last of `words`.
pub async fn run(session: &mut Session, words: &[String]) -> Result<()> {
    let plain = words.first().is_some_and(|word| word == ASKS[1]);
    let (current, before) =
        words.get(1..).unwrap_or_default().split_last().map_or(("", &[][..]), |(last, before)| (last.as_str(), before));
    let whole = grammar::whole(&session.own, &session.program);
    let line = Line::read(&whole, before);
    session.global = line.global.clone();
    if matches!(session.global.request_timeout.as_str(), "" | "0") {
        session.global.request_timeout = PATIENCE.into();
    }
    let (candidates, directive) = candidates(session, &whole, &line, current).await.unwrap_or((Vec::new(), NO_FILES));
    for (word, about) in candidates {
        match about.is_empty() || plain {
            true => session.say(word)?,
            false => session.say(format!("{word}\t{about}"))?,
        }
    }
    session.say(format!(":{directive}"))?;
    let names = [(NO_SPACE, "ShellCompDirectiveNoSpace"), (NO_FILES, "ShellCompDirectiveNoFileComp")];
    let names: Vec<&str> = names.iter().filter(|(bit, _)| directive & bit != 0).map(|(_, name)| *name).collect();
    let names = if names.is_empty() { "ShellCompDirectiveDefault".to_owned() } else { names.join(", ") };
    session.warn(format!("Completion ended with directive: {names}"))
}

/// What is known of a line before the word that is completed.
struct Line<'a> {
    command: &'a Command,
    path: String,
    /// Arguments of the command.
    given: Vec<String>,
    /// The flag whose value is to come.
    flag: Option<&'a Arg>,
    /// All behind `--` is somebody else's.
    rest: bool,
    global: Global,
}

#[derive(Parser)]
struct Globals {
    #[command(flatten)]
    global: Global,
}

impl<'a> Line<'a> {
    fn read(whole: &'a Command, before: &[String]) -> Line<'a> {
        let mut line = Line {
            command: whole,
            path: String::new(),
            given: Vec::new(),
            flag: None,
            rest: false,
            global: Global::default(),
        };
        let mut globals = vec![String::new()];
        let waits = before.last().and_then(|last| flag_that_waits(whole, before, last));
        let told = if waits.is_some() { &before[..before.len() - 1] } else { before };
        for word in grammar::split_by(whole, told) {
            match word {
                Word::Rest(_) => line.rest = true,
                Word::Flag { name, value, boolean } => {
                    if whole.get_arguments().any(|arg| arg.get_long() == Some(&name)) && (!boolean || value == "true") {
                        globals.push(if boolean { format!("--{name}") } else { format!("--{name}={value}") });
                    }
                }
                Word::Plain(word) => match line.command.find_subcommand(&word).filter(|_| line.given.is_empty()) {
                    Some(next) => {
                        let space = if line.path.is_empty() { "" } else { " " };
                        line.path += &format!("{space}{}", next.get_name());
                        line.command = next;
                    }
                    None => line.given.push(word),
                },
            }
        }
        line.flag = waits.and_then(|name| flag(whole, line.command, &name));
        line.global = Globals::try_parse_from(globals).map(|globals| globals.global).unwrap_or_default();
        line
    }
}

/// The flag that the last word of a line is, if its value is the word that comes then.
fn flag_that_waits(whole: &Command, before: &[String], last: &str) -> Option<String> {
    let long = last.strip_prefix("--").filter(|name| !name.is_empty() && !name.contains('='));
    let short = last.strip_prefix('-').filter(|name| name.chars().count() == 1 && *name != "-");
    let name = long.or(short)?;
    let told = grammar::split_by(whole, &before[..before.len() - 1]);
    if told.iter().any(|word| matches!(word, Word::Rest(_))) {
        return None;
    }
    let mut here = whole;
    for word in told {
        if let Word::Plain(word) = word {
            here = here.find_subcommand(word).unwrap_or(here);
        }
    }
    let arg = flag(whole, here, name)?;
    let takes_value = matches!(arg.get_action(), ArgAction::Set | ArgAction::Append);
    let optional = arg.get_num_args().is_some_and(|range| range.min_values() == 0);
    (takes_value && !optional).then(|| name.to_owned())
}

fn flag<'a>(whole: &'a Command, here: &'a Command, name: &str) -> Option<&'a Arg> {
    let fits = |arg: &&Arg| {
        arg.get_long() == Some(name)
            || arg.get_short().is_some_and(|letter| name.len() == 1 && name.starts_with(letter))
    };
    here.get_arguments().find(fits).or_else(|| whole.get_arguments().find(fits))
}

/// Candidates, each with what it is.
type Candidates = (Vec<(String, String)>, u8);

async fn candidates(session: &mut Session, whole: &Command, line: &Line<'_>, current: &str) -> Result<Candidates> {
    if line.rest {
        return Ok((Vec::new(), FILES));
    }
    if let Some(arg) = line.flag {
        return value(session, line, arg, current).await;
    }
    if let Some((name, start)) = current.strip_prefix("--").and_then(|flag| flag.split_once('=')) {
        return match flag(whole, line.command, name) {
            Some(arg) => value(session, line, arg, start).await,
            None => Ok((Vec::new(), NO_FILES)),
        };
    }
    if current.starts_with('-') {
        return Ok((flags(line.command, current), NO_FILES));
    }
    let commands = line.command.get_subcommands().filter(|command| !command.is_hide_set());
    let commands: Vec<(String, String)> = commands
        .filter(|command| line.given.is_empty() && command.get_name().starts_with(current))
        .map(|command| (command.get_name().to_owned(), about(command.get_about())))
        .collect();
    if !commands.is_empty() {
        return Ok((commands, NO_FILES));
    }
    let (words, directive) = positional(session, line, current).await?;
    Ok((beginning(words, current, &line.given), directive))
}

/// The words that begin as the one that is typed, without those that are there.
fn beginning(words: Vec<String>, start: &str, given: &[String]) -> Vec<(String, String)> {
    let fit = words.into_iter().filter(|word| word.starts_with(start) && !given.contains(word));
    fit.map(|word| (word, String::new())).collect()
}

fn flags(here: &Command, start: &str) -> Vec<(String, String)> {
    let shown = here.get_arguments().filter(|arg| !arg.is_hide_set());
    let named = shown.filter_map(|arg| Some((format!("--{}", arg.get_long()?), about(arg.get_help()))));
    named.filter(|(name, _)| name.starts_with(start)).collect()
}

/// The first line of a help.
fn about(help: Option<&clap::builder::StyledStr>) -> String {
    help.map(ToString::to_string).unwrap_or_default().lines().next().unwrap_or_default().to_owned()
}

async fn value(session: &mut Session, line: &Line<'_>, arg: &Arg, start: &str) -> Result<Candidates> {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<String>>();
    let found = match arg.get_long().unwrap_or_default() {
        "namespace" => names(session, &["namespaces"]).await?,
        "context" => configured(session, Arguments::Contexts)?,
        "cluster" => configured(session, Arguments::Clusters)?,
        "user" => configured(session, Arguments::Users)?,
        "container" => containers(session, line.given.first()).await?,
        "dry-run" => words(&["client", "server", "none"]),
        "cascade" => words(&["background", "foreground", "orphan"]),
        "output" if line.path == "get" => words(&crate::print::GET_FORMATS.split(',').collect::<Vec<_>>()),
        "output" => words(&crate::print::PLAIN_FORMATS.split(',').collect::<Vec<_>>()),
        _ => return Ok((Vec::new(), FILES)),
    };
    Ok((beginning(found, start, &[]), NO_FILES))
}

async fn positional(session: &mut Session, line: &Line<'_>, current: &str) -> Result<(Vec<String>, u8)> {
    let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<String>>();
    let wanted = arguments(&line.path);
    let by_slash = |word: &str| word.split_once('/').map(|(kind, _)| kind.to_owned());
    let found = match wanted {
        Arguments::Types | Arguments::Of(_) | Arguments::Pods if current.contains('/') => {
            let Some(kind) = by_slash(current) else { return Ok((Vec::new(), NO_FILES)) };
            names(session, &[&kind]).await?.into_iter().map(|name| format!("{kind}/{name}")).collect()
        }
        Arguments::Types if line.given.is_empty() => types(&*session.client()?.discovery().await?),
        Arguments::Of(kinds) if line.given.is_empty() => owned(kinds),
        Arguments::Types | Arguments::Of(_) if line.given[0].contains('/') => Vec::new(),
        Arguments::Types | Arguments::Of(_) => names(session, &line.given[0].split(',').collect::<Vec<_>>()).await?,
        Arguments::Pods if line.given.is_empty() => {
            let mut found = names(session, &["pods"]).await?;
            // Where only TYPE/ is left, the name follows at once.
            let space = if found.iter().any(|name| name.starts_with(current)) { 0 } else { NO_SPACE };
            found.extend(WITH_PODS.iter().map(|kind| format!("{kind}/")));
            return Ok((found, NO_FILES | space));
        }
        Arguments::Pods if line.path == "logs" => containers(session, line.given.first()).await?,
        Arguments::Pods => Vec::new(),
        Arguments::Names(kind) => names(session, &[kind]).await?,
        Arguments::Contexts | Arguments::Clusters | Arguments::Users => configured(session, wanted)?,
        Arguments::Words(words) => owned(words),
        Arguments::Copied => {
            let mut found = names(session, &["namespaces"]).await?;
            found.iter_mut().for_each(|name| name.push('/'));
            found.extend(names(session, &["pods"]).await?.into_iter().map(|name| format!("{name}:")));
            found.extend(owned(&["./", "/"]));
            return Ok((found, NO_SPACE));
        }
        Arguments::Files => return Ok((Vec::new(), FILES)),
    };
    Ok((found, NO_FILES))
}

/// The types whose objects can be read, as `api-resources -o name` prints them.
fn types(discovery: &Discovery) -> Vec<String> {
    let mut found: Vec<&Resource> = preferred(discovery).into_iter().filter(|resource| resource.can("get")).collect();
    found.sort_by_key(|resource| (&resource.group, &resource.plural));
    found.into_iter().map(Resource::qualified).collect()
}

async fn names(session: &mut Session, kinds: &[&str]) -> Result<Vec<String>> {
    let client: Client = session.client()?;
    let namespace = session.namespace()?;
    let discovery = client.discovery().await?;
    let mut found = Vec::new();
    for resource in kinds.iter().map(|kind| objects::types(&discovery, kind)).collect::<Result<Vec<_>>>()?.concat() {
        let mut list = client.list(&resource, Some(&namespace), &[]).await?;
        let items = objects::items(&mut list);
        found.extend(items.iter().map(|item| item.text("metadata.name").to_owned()));
    }
    Ok(found)
}

/// The containers of a pod.
async fn containers(session: &mut Session, pod: Option<&String>) -> Result<Vec<String>> {
    let Some(pod) = pod.map(|word| word.rsplit('/').next().unwrap_or(word)) else { return Ok(Vec::new()) };
    let client = session.client()?;
    let path = format!("/api/v1/namespaces/{}/pods/{}", session.namespace()?, crate::client::escape(pod));
    let pod = client.get(&path, &[]).await?;
    let all = [pod.list("spec.initContainers"), pod.list("spec.containers")].concat();
    Ok(all.iter().map(|container| container.text("name").to_owned()).collect())
}

fn configured(session: &Session, what: Arguments) -> Result<Vec<String>> {
    let config = kubeconfig::load(&session.global, &session.io.environment)?;
    Ok(match what {
        Arguments::Clusters => config.clusters.into_iter().map(|named| named.name).collect(),
        Arguments::Users => config.auth_infos.into_iter().map(|named| named.name).collect(),
        _ => config.contexts.into_iter().map(|named| named.name).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> String {
        let whole = grammar::whole(&Command::new("kapstan"), "kapstan");
        let words: Vec<String> = text.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect();
        let line = Line::read(&whole, &words);
        let flag = line.flag.and_then(Arg::get_long).unwrap_or("-");
        format!("{}|{}|{flag}|{}|{:?}", line.path, line.given.join(","), line.rest, line.global.namespace)
    }

    #[test]
    fn lines_before_the_word() {
        let lines = [
            "",
            "get pods",
            "-n x get pods -l a=b web",
            "get pods -n",
            "get --namespace=y -o",
            "rollout status deploy",
            "exec web -- get -n",
            "logs web --follow",
            "delete pods --dry-run",
            "get set pods",
        ];
        expect_test::expect![[r#"
            ||-|false|None
            get|pods|-|false|None
            get|pods,web|-|false|Some("x")
            get|pods|namespace|false|None
            get||output|false|Some("y")
            rollout status|deploy|-|false|None
            exec|web|-|true|None
            logs|web|-|false|None
            delete|pods|-|false|None
            get|set,pods|-|false|None"#]]
        .assert_eq(&lines.map(read).join("\n"));
    }

    #[test]
    fn flags_and_commands() {
        let whole = grammar::whole(&Command::new("kapstan").subcommand(Command::new("server")), "kapstan");
        let here = whole.find_subcommand("rollout").and_then(|rollout| rollout.find_subcommand("status")).unwrap();
        let names =
            |found: Vec<(String, String)>| found.into_iter().map(|(name, _)| name).collect::<Vec<_>>().join(" ");
        assert_eq!(names(flags(here, "--t")), "--timeout --token --tls-server-name");
        // The program's own commands know none of the flags of kubectl's.
        let server = whole.find_subcommand("server").unwrap();
        assert_eq!(names(flags(server, "--n")), "");
    }
}
