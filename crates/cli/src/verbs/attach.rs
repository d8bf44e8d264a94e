//! `attach`. Mirrors kubectl `pkg/cmd/attach/attach.go`.

use std::time::Duration;

use serde_json::Value;

use crate::errors::{Error, Result};
use crate::json::Json;
use crate::objects;
use crate::remote::{self, Ask};
use crate::session::Session;
use crate::time::flag;
use crate::verbs::exec;

/// Join what runs in a container already.
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
    /// Use the container's terminal.
    #[arg(long, short)]
    tty: bool,
    /// Print only what the container prints.
    #[arg(long, short)]
    quiet: bool,
    /// How long to wait until there is a pod.
    #[arg(long, default_value = exec::POD_RUNNING_TIMEOUT, value_parser = flag, value_name = "DURATION")]
    pod_running_timeout: Duration,
}

/// Attaches.
pub async fn run(session: &mut Session, options: Options) -> Result<()> {
    let word = match options.words.as_slice() {
        [] => return Err(Error::told("at least 1 argument is required for attach")),
        [word] => word.clone(),
        [kind, name] => format!("{kind}/{name}"),
        more => {
            let (count, more) = (more.len(), more.join(" "));
            let what = "expected POD, TYPE/NAME, or TYPE NAME, (at most 2 arguments)";
            return Err(Error::told(format!("{what} saw {count}: [{more}]")));
        }
    };
    let patience = exec::patience(session, "attach", options.pod_running_timeout)?;
    let (_, pod) = exec::pod(session, Some(&word), objects::Files::default(), patience).await?;
    exec::running(&pod, "attach")?;
    let container = exec::container(session, &pod, options.container.as_deref(), options.quiet)
        .map_err(|error| Error::told(format!("cannot attach to the container: {}", error.inner_message())))?;
    to(session, &pod, &container, options.stdin, options.tty, options.quiet).await
}

/// Attaches to a container of a pod.
pub(super) async fn to(
    session: &mut Session,
    pod: &Value,
    container: &Value,
    stdin: bool,
    tty: bool,
    quiet: bool,
) -> Result<()> {
    let name = container.text("name");
    let has_terminal = container["tty"] == true;
    if tty && !has_terminal && !quiet {
        session.warn(format!("error: Unable to use a TTY - container {name} did not allocate one"))?;
    }
    // A container with a terminal speaks to one, whether that was asked for or not.
    let tty = exec::with_terminal(session, has_terminal, stdin, quiet || !tty)?;
    if !quiet {
        if tty {
            session.warn("All commands and output from this session will be recorded in container logs, including credentials and sensitive information passed through the command prompt.")?;
        }
        session.warn("If you don't see a command prompt, try pressing enter.")?;
    }
    let ask = Ask { path: exec::path(pod, "attach"), container: name.to_owned(), command: Vec::new(), stdin, tty };
    remote::interact(session, &ask).await?;
    if stdin && tty && pod.text("spec.restartPolicy") == "Always" {
        let (program, pod) = (session.program.clone(), pod.text("metadata.name"));
        session.say(format!(
            "Session ended, resume using '{program} attach {pod} -c {name} -i -t' command when the pod is running"
        ))?;
    }
    Ok(())
}
