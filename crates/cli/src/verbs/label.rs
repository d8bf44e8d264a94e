//! `label`. Mirrors kubectl `pkg/cmd/label/label.go`.

use serde_json::{Value, json};

use crate::change::{self, DryRun, DryRunFlag, Record};
use crate::errors::{Error, Result};
use crate::json::Json;
use crate::objects::{self, Ask, Files, Found, Labels};
use crate::print::{self, Output};
use crate::session::Session;

/// Set labels (key=value) and remove them (key-).
#[derive(clap::Args)]
pub struct Options {
    /// TYPE NAME... or TYPE/NAME..., then KEY=VALUE... and KEY-...
    words: Vec<String>,
    #[command(flatten)]
    changing: Changing,
    /// Print the labels.
    #[arg(long)]
    list: bool,
}

/// What `label` and `annotate` share.
#[derive(clap::Args)]
pub struct Changing {
    #[command(flatten)]
    pub(super) files: Files,
    #[command(flatten)]
    pub(super) labels: Labels,
    #[command(flatten)]
    pub(super) output: Output,
    #[command(flatten)]
    pub(super) dry_run: DryRunFlag,
    #[command(flatten)]
    pub(super) record: Record,
    /// Field selector.
    #[arg(long)]
    pub(super) field_selector: Option<String>,
    /// In every namespace.
    #[arg(long, short = 'A')]
    pub(super) all_namespaces: bool,
    /// Change values that are there.
    #[arg(long)]
    pub(super) overwrite: bool,
    /// Only change the files' objects and print them; no server is asked.
    #[arg(long)]
    pub(super) local: bool,
    /// Only if this is the current version; for a single object.
    #[arg(long)]
    pub(super) resource_version: Option<String>,
    /// Name the changes are made under.
    #[arg(long)]
    pub(super) field_manager: Option<String>,
}

impl Changing {
    /// Refuses flags that exclude each other.
    pub(super) fn check(&self, session: &mut Session, words: &[String]) -> Result<DryRun> {
        self.record.warn(session)?;
        let dry_run = self.dry_run.strategy(session)?;
        if self.local && dry_run == DryRun::Server {
            return Err(Error::told("cannot specify --local and --dry-run=server - did you mean --dry-run=client?"));
        }
        if self.local && !words.is_empty() {
            return Err(Error::told(
                "can only use local files by -f pod.yaml or --filename=pod.json when --local=true is set",
            ));
        }
        Ok(dry_run)
    }
}

/// Values to set and keys to remove.
#[derive(Debug, Default)]
pub struct Pairs {
    pub(super) set: Vec<(String, String)>,
    pub(super) removed: Vec<String>,
}

/// Sets and removes.
pub async fn run(session: &mut Session, options: Options) -> Result<()> {
    let (words, pairs) = split(&options.words, "label")?;
    let changing = &options.changing;
    if words.is_empty() && changing.files.is_empty() {
        return Err(Error::told("one or more resources must be specified as <resource> <name> or <resource>/<name>"));
    }
    if pairs.set.is_empty() && pairs.removed.is_empty() && !options.list {
        return Err(Error::told("at least one label update is required"));
    }
    for (key, value) in &pairs.set {
        // What is wrong with a key is for the server to say.
        let problems = api::names::label_value(value);
        if !problems.is_empty() {
            return Err(Error::told(format!(
                "invalid label value: {:?}: {}",
                format!("{key}={value}"),
                problems.join("; ")
            )));
        }
    }
    let dry_run = changing.check(session, &words)?;
    let (found, mut errors) = objects::find(session, &ask(changing, words)).await?;
    let alone = found.len() == 1;
    for item in found {
        let outcome = match options.list {
            true => list(session, &item, alone),
            false => one(session, changing, &pairs, dry_run, &item).await,
        };
        errors.extend(outcome.err());
    }
    Error::several(errors)
}

pub(super) fn ask(changing: &Changing, words: Vec<String>) -> Ask {
    Ask {
        words,
        files: changing.files.clone(),
        selector: changing.labels.selector.clone(),
        field_selector: changing.field_selector.clone(),
        all: changing.labels.all,
        all_namespaces: changing.all_namespaces,
        live: !changing.local,
        local: changing.local,
        ..Ask::default()
    }
}

/// Splits the words into objects and changes: the first `key=value` or `key-` starts the changes.
pub(super) fn split(words: &[String], what: &str) -> Result<(Vec<String>, Pairs)> {
    let is_change = |word: &String| word.contains('=') && !word.starts_with('=') || word.ends_with('-');
    let first = words.iter().position(is_change).unwrap_or(words.len());
    let mut pairs = Pairs::default();
    for word in &words[first..] {
        match word.split_once('=') {
            Some((key, value)) => pairs.set.push((key.to_owned(), value.to_owned())),
            None => match word.strip_suffix('-') {
                Some(key) => pairs.removed.push(key.to_owned()),
                None => {
                    return Err(Error::told(format!("unknown {what} spec: {word}"))
                        .hinted("all objects must be named before the changes"));
                }
            },
        }
    }
    if let Some((key, _)) = pairs.set.iter().find(|(key, _)| pairs.removed.contains(key)) {
        let what = if what == "label" { "a label" } else { "an annotation" };
        return Err(Error::told(format!("can not both modify and remove {what} in the same command"))
            .hinted(format!("it is {key}")));
    }
    Ok((words[..first].to_vec(), pairs))
}

fn list(session: &mut Session, item: &Found, alone: bool) -> Result<()> {
    if !alone {
        let (kind, group) = (&item.resource.kind, &item.resource.group);
        let dot = if group.is_empty() { "" } else { "." };
        session.say(format!("Listing labels for {kind}{dot}{group}/{}:", item.name))?;
    }
    let indent = if alone { "" } else { " " };
    let pairs = item.object.labels("metadata.labels");
    pairs.iter().try_for_each(|(key, value)| session.say(format!("{indent}{key}={value}")))
}

async fn one(session: &mut Session, changing: &Changing, pairs: &Pairs, dry_run: DryRun, item: &Found) -> Result<()> {
    let mut after = item.object.clone();
    let there = item.object.labels("metadata.labels");
    for key in pairs.removed.iter().filter(|key| !there.contains_key(*key)) {
        session.say(format!("label {key:?} not found."))?;
    }
    if !changing.overwrite {
        let taken = |(key, value): &&(String, String)| there.get(key).is_some_and(|current| current != value);
        let errors: Vec<Error> = pairs
            .set
            .iter()
            .filter(taken)
            .map(|(key, _)| {
                Error::told(format!("'{key}' already has a value ({}), and --overwrite is false", there[key]))
            })
            .collect();
        Error::several(errors)?;
    }
    set(&mut after, "labels", pairs);
    changing.record.annotate(session, &mut after);
    let operation =
        match (after == item.object, !changing.overwrite && after.to_string().len() < item.object.to_string().len()) {
            (true, _) => "not labeled",
            (false, true) => "unlabeled",
            (false, false) => "labeled",
        };
    let after = send(session, changing, dry_run, item, after, "kubectl-label").await?;
    print::done_apart(session, &changing.output, &after, &format!("{operation}{}", dry_run.suffix()))
}

/// Sets and removes keys of a map in the metadata.
pub(super) fn set(object: &mut Value, field: &str, pairs: &Pairs) {
    if !object["metadata"][field].is_object() {
        object["metadata"][field] = json!({});
    }
    let Some(map) = object["metadata"][field].as_object_mut() else { return };
    pairs.removed.iter().for_each(|key| drop(map.remove(key)));
    pairs.set.iter().for_each(|(key, value)| drop(map.insert(key.clone(), value.clone().into())));
    if map.is_empty() {
        object["metadata"].as_object_mut().map(|meta| meta.remove(field));
    }
}

/// Sends the difference as a merge patch.
pub(super) async fn send(
    session: &mut Session,
    changing: &Changing,
    dry_run: DryRun,
    item: &Found,
    after: Value,
    manager: &str,
) -> Result<Value> {
    let mut patch = change::merge_difference(&item.object, &after);
    if changing.local || dry_run == DryRun::Client || patch.as_object().is_some_and(serde_json::Map::is_empty) {
        return Ok(after);
    }
    if let Some(version) = &changing.resource_version {
        patch["metadata"]["resourceVersion"] = version.clone().into();
    }
    let manager = changing.field_manager.as_deref().unwrap_or(manager);
    session.client()?.patch(&item.path(), &dry_run.query(manager), change::MERGE, &patch).await
}
