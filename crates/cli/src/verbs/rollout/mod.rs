//! `rollout`: look at rollouts and steer them. Mirrors kubectl `pkg/cmd/rollout`; `plan`, `why`, `history --details` and the live view are ours.

use clap::{Args, Subcommand};

use crate::client::Client;
use crate::errors::{Error, Result};
use crate::objects::{self, Ask, Files, Found};
use crate::session::Session;

pub mod details;
pub mod history;
pub mod live;
pub mod pause;
pub mod plan;
pub mod restart;
pub mod revisions;
pub mod status;
pub mod undo;
pub mod why;
pub mod words;

/// Manage the rollout of one or many resources: deployments, daemon sets, stateful sets.
#[derive(Args)]
pub struct Options {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    History(history::Options),
    Pause(pause::PauseOptions),
    Plan(plan::Options),
    Restart(restart::Options),
    Resume(pause::ResumeOptions),
    Status(status::Options),
    Undo(undo::Options),
    Why(why::Options),
}

/// Does it.
pub async fn run(session: &mut Session, options: Options) -> Result<()> {
    match options.action {
        Action::History(options) => history::run(session, options).await,
        Action::Pause(options) => pause::pause(session, options).await,
        Action::Plan(options) => plan::run(session, options).await,
        Action::Restart(options) => restart::run(session, options).await,
        Action::Resume(options) => pause::resume(session, options).await,
        Action::Status(options) => status::run(session, options).await,
        Action::Undo(options) => undo::run(session, options).await,
        Action::Why(options) => why::run(session, options).await,
    }
}

/// The workloads that a line names.
#[derive(Args, Clone, Debug, Default)]
pub struct Which {
    /// TYPE NAME, TYPE/NAME, or TYPE for every one.
    words: Vec<String>,
    #[command(flatten)]
    files: Files,
    /// Label selector: supports '=', '==', '!=', 'in', 'notin', such as -l key1=value1,key2=value2.
    #[arg(long, short = 'l', value_name = "SELECTOR", allow_hyphen_values = true)]
    selector: Option<String>,
}

impl Which {
    /// Finds them; failures about single ones are given back beside.
    pub async fn find(&self, session: &mut Session) -> Result<(Vec<Found>, Vec<Error>)> {
        if self.words.is_empty() && self.files.is_empty() {
            return Err(Error::told("required resource not specified"));
        }
        let ask = Ask {
            words: self.words.clone(),
            files: self.files.clone(),
            selector: self.selector.clone(),
            all: true,
            live: true,
            ..Ask::default()
        };
        objects::find(session, &ask).await
    }
}

/// Says that nothing was found, if that is so.
pub fn say_if_none(session: &mut Session, found: &[Found], errors: &[Error]) -> Result<()> {
    if !found.is_empty() || !errors.is_empty() {
        return Ok(());
    }
    let namespace = session.namespace()?;
    session.warn(format!("No resources found in {namespace} namespace."))
}

/// What is said beside a refusal of our own verbs.
pub const OF_WHAT: &str = "rollouts are of deployments, daemon sets and stateful sets";

/// `ReplicaSet.apps`, `Pod`: how kubectl names a kind in its refusals.
pub fn group_kind(found: &Found) -> String {
    let (kind, group) = (&found.resource.kind, &found.resource.group);
    if group.is_empty() { kind.clone() } else { format!("{kind}.{group}") }
}

/// What kubectl says of a kind that has no `what` (`history viewer`, `rollbacker`).
pub fn unsupported(found: &Found, what: &str, doing: &str) -> Error {
    /// Kinds that kubectl knows and does not support.
    const KNOWN: [&str; 5] = ["Job", "Pod", "ReplicaSet", "ReplicationController", "CronJob"];
    let name = group_kind(found);
    match KNOWN.contains(&found.resource.kind.as_str()) {
        true => Error::told(format!("no {what} has been implemented for {name:?}")),
        false => Error::told(format!(
            "error retrieving {doing} for {name:?}, no visitor method exists for {{{} {}}}",
            found.resource.group, found.resource.kind
        )),
    }
}

/// What a workload waits for, in the words of who decides; an error on other clusters than kapstan's.
pub async fn reasons(client: &Client, found: &Found) -> Result<Vec<String>> {
    use crate::client::escape;
    use crate::json::Json;
    let namespace = found.namespace.as_deref().unwrap_or_default();
    let path = format!("/kapstan/v1/why/{}/{}/{}", found.resource.plural, escape(namespace), escape(&found.name));
    let answer = client.get(&path, &[]).await?;
    Ok(answer.list("why").iter().filter_map(|sentence| Some(sentence.as_str()?.to_owned())).collect())
}
