//! `exec`. Mirrors kubectl `pkg/cmd/exec/exec.go`.

use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use crate::errors::{Error, Result};
use crate::json::Json;
use crate::objects::{self, Found};
use crate::remote::{self, Ask};
use crate::session::Session;
use crate::terminal;
use crate::time::flag;
use crate::verbs::logs::{DEFAULT_CONTAINER, pods_of};

/// How long what makes pods may take to make one, unless the user says.
pub(super) const POD_RUNNING_TIMEOUT: &str = "1m0s";

/// Run a command in a container.
#[derive(clap::Args)]
pub struct Options {
    /// POD or TYPE/NAME.
    words: Vec<String>,
    /// The container.
    #[arg(long, short)]
    container: Option<String>,
    /// Pass standard input on.
    #[arg(long, short = 'i')]
    stdin: bool,
    /// Give the command a terminal.
    #[arg(long, short)]
    tty: bool,
    /// Print only what the command prints.
    #[arg(long, short)]
    quiet: bool,
    /// The pod of this file.
    #[arg(long, short, value_name = "FILE")]
    filename: Vec<String>,
    /// How long to wait until there is a pod.
    #[arg(long, default_value = POD_RUNNING_TIMEOUT, value_parser = flag, value_name = "DURATION")]
    pod_running_timeout: Duration,
    /// The command and its arguments, after --.
    #[arg(last = true)]
    command: Vec<String>,
}

/// Runs it.
pub async fn run(session: &mut Session, options: Options) -> Result<()> {
    let in_file = !options.filename.is_empty();
    if options.command.is_empty() {
        return Err(match options.words.len() {
            0 if !in_file => Error::told("pod, type/name or --filename must be specified"),
            0 | 1 => Error::told("you must specify at least one command for the container"),
            _ => session
                .usage("exec", "exec [POD] [COMMAND] is not supported anymore. Use exec [POD] -- [COMMAND] instead"),
        });
    }
    if options.words.len() != usize::from(!in_file) {
        return Err(Error::told("pod, type/name or --filename must be specified"));
    }
    let files = objects::Files { filename: options.filename.clone(), ..objects::Files::default() };
    let patience = patience(session, "exec", options.pod_running_timeout)?;
    let (_, pod) = pod(session, options.words.first(), files, patience).await?;
    running(&pod, "exec into")?;
    let container = match options.container {
        // The server knows whether there is one.
        Some(named) if !named.is_empty() => named,
        _ => container(session, &pod, None, options.quiet)?.text("name").to_owned(),
    };
    let ask = Ask {
        path: path(&pod, "exec"),
        container,
        command: options.command,
        stdin: options.stdin,
        tty: with_terminal(session, options.tty, options.stdin, options.quiet)?,
    };
    remote::interact(session, &ask).await
}

/// `--pod-running-timeout`.
pub(super) fn patience(session: &Session, verb: &str, limit: Duration) -> Result<Duration> {
    let is_none = || session.usage(verb, "--pod-running-timeout must be higher than zero");
    Some(limit).filter(|limit| !limit.is_zero()).ok_or_else(is_none)
}

/// What a word means, and its pod: itself, or the first of what makes pods, which may take a while to make one.
pub(super) async fn pod(
    session: &mut Session,
    word: Option<&String>,
    files: objects::Files,
    patience: Duration,
) -> Result<(Found, Value)> {
    let words = word.map(|word| if word.contains('/') { word.clone() } else { format!("pods/{word}") });
    let ask = objects::Ask { words: words.into_iter().collect(), files, live: true, ..objects::Ask::default() };
    let found = objects::find_all(session, &ask).await?;
    let [item] = found.as_slice() else { return Err(Error::told("one pod is to be named")) };
    let pods = pods(session, item, "attach to", patience).await?;
    let first = pods.into_iter().next().ok_or_else(|| Error::told(format!("{} has no pods", item.printed())))?;
    Ok((item.clone(), first))
}

/// The pods of an object, which may take a while to make one; `doing` is what they are wanted for.
pub(super) async fn pods(session: &mut Session, item: &Found, doing: &str, patience: Duration) -> Result<Vec<Value>> {
    /// Between two looks.
    const PAUSE: Duration = Duration::from_millis(200);
    let until = Instant::now() + patience;
    loop {
        match pods_of(session, item, doing).await {
            // Without pods it says that the time is over, which it is not yet.
            Err(error)
                if error.reason().is_empty()
                    && error.inner_message().starts_with("timed out")
                    && Instant::now() < until => {}
            outcome => return outcome,
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Path of a subresource of a pod.
pub(super) fn path(pod: &Value, subresource: &str) -> String {
    format!("/api/v1/namespaces/{}/pods/{}/{subresource}", pod.text("metadata.namespace"), pod.text("metadata.name"))
}

/// A pod that has ended has nothing to join.
pub(super) fn running(pod: &Value, doing: &str) -> Result<()> {
    match pod.text("status.phase") {
        phase @ ("Succeeded" | "Failed") => {
            Err(Error::told(format!("cannot {doing} a container in a completed pod; current phase is {phase}")))
        }
        _ => Ok(()),
    }
}

/// The container that is meant (kubectl: `pkg/cmd/util/podcmd/podcmd.go`).
pub(super) fn container(session: &mut Session, pod: &Value, asked: Option<&str>, quiet: bool) -> Result<Value> {
    let main = pod.list("spec.containers");
    let early = pod.list("spec.initContainers");
    let name = pod.text("metadata.name");
    if let Some(asked) = asked.filter(|asked| !asked.is_empty()) {
        let found = main.iter().chain(early).find(|one| one.text("name") == asked);
        let names: Vec<&str> = main.iter().chain(early).map(|one| one.text("name")).collect();
        return found.cloned().ok_or_else(|| {
            Error::told(format!("container {asked} not found in pod {name}"))
                .hinted(format!("it has: {}", names.join(", ")))
        });
    }
    let annotated = pod.map("metadata.annotations").get(DEFAULT_CONTAINER).and_then(Value::as_str);
    if let Some(found) = main.iter().find(|one| Some(one.text("name")) == annotated) {
        return Ok(found.clone());
    }
    let first = main.first().ok_or_else(|| Error::told(format!("pod {name} has no containers")))?;
    if main.len() + early.len() > 1 && !quiet {
        let mut all: Vec<String> = main.iter().map(|one| one.text("name").to_owned()).collect();
        all.extend(early.iter().map(|one| format!("{} (init)", one.text("name"))));
        session.warn(format!("Defaulted container {:?} out of: {}", first.text("name"), all.join(", ")))?;
    }
    Ok(first.clone())
}

/// A terminal needs one here too (kubectl: `StreamOptions.SetupTTY`).
pub(super) fn with_terminal(session: &mut Session, tty: bool, stdin: bool, quiet: bool) -> Result<bool> {
    if !tty || !stdin {
        return Ok(false);
    }
    let present = terminal::present();
    if !present && !quiet {
        session.warn("Unable to use a TTY - input is not a terminal or the right kind of file")?;
    }
    Ok(present)
}
