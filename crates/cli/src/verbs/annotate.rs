//! `annotate`. Mirrors kubectl `pkg/cmd/annotate/annotate.go`.

use super::label::{self, Changing, Pairs};
use crate::change::DryRun;
use crate::errors::{Error, Result};
use crate::json::Json;
use crate::objects::{self, Found};
use crate::print;
use crate::session::Session;

/// Set annotations (key=value) and remove them (key-).
#[derive(clap::Args)]
pub struct Options {
    /// TYPE NAME... or TYPE/NAME..., then KEY=VALUE... and KEY-...
    words: Vec<String>,
    #[command(flatten)]
    changing: Changing,
    /// Print the annotations.
    #[arg(long)]
    list: bool,
}

/// Sets and removes.
pub async fn run(session: &mut Session, options: Options) -> Result<()> {
    let (words, pairs) = label::split(&options.words, "annotation")?;
    let changing = &options.changing;
    if words.is_empty() && changing.files.is_empty() {
        return Err(Error::told("one or more resources must be specified as <resource> <name> or <resource>/<name>"));
    }
    if pairs.set.is_empty() && pairs.removed.is_empty() && !options.list {
        return Err(Error::told("at least one annotation update is required"));
    }
    let dry_run = changing.check(session, &words)?;
    let (found, mut errors) = objects::find(session, &label::ask(changing, words)).await?;
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

fn list(session: &mut Session, item: &Found, alone: bool) -> Result<()> {
    if !alone {
        let (kind, group) = (&item.resource.kind, &item.resource.group);
        let dot = if group.is_empty() { "" } else { "." };
        session.say(format!("Listing annotations for {kind}{dot}{group}/{}:", item.name))?;
    }
    let indent = if alone { "" } else { " " };
    let pairs = item.object.labels("metadata.annotations");
    pairs.iter().try_for_each(|(key, value)| session.say(format!("{indent}{key}={value}")))
}

async fn one(session: &mut Session, changing: &Changing, pairs: &Pairs, dry_run: DryRun, item: &Found) -> Result<()> {
    let there = item.object.labels("metadata.annotations");
    let taken: Vec<String> = pairs
        .set
        .iter()
        .filter(|(key, value)| !changing.overwrite && there.get(key).is_some_and(|current| current != value))
        .map(|(key, _)| format!("'{key}' already has a value ({})", there[key]))
        .collect();
    if !taken.is_empty() {
        return Err(Error::told(format!(
            "--overwrite is false but found the following declared annotation(s): {}",
            taken.join("; ")
        )));
    }
    let mut after = item.object.clone();
    label::set(&mut after, "annotations", pairs);
    changing.record.annotate(session, &mut after);
    let after = label::send(session, changing, dry_run, item, after, "kubectl-annotate").await?;
    print::done(session, &changing.output, &after, &format!("annotated{}", dry_run.suffix()))
}
