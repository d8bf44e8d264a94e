//! `scale`. Mirrors kubectl `pkg/cmd/scale/scale.go` and `pkg/scale/scale.go`.

use std::time::Duration;

use serde_json::json;

use crate::change::{self, DryRun, DryRunFlag, Record};
use crate::errors::{Error, Result};
use crate::json::Json;
use crate::objects::{self, Ask, Files, Labels};
use crate::print::{self, Output};
use crate::session::Session;

/// Set a new size for a deployment, replica set, replication controller or stateful set.
#[derive(clap::Args)]
pub struct Options {
    /// TYPE NAME... or TYPE/NAME...
    words: Vec<String>,
    #[command(flatten)]
    files: Files,
    #[command(flatten)]
    labels: Labels,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    dry_run: DryRunFlag,
    #[command(flatten)]
    record: Record,
    /// The new size.
    #[arg(long, required = true, allow_hyphen_values = true)]
    replicas: i64,
    /// Only if this is the current size.
    #[arg(long, default_value_t = -1, allow_hyphen_values = true)]
    current_replicas: i64,
    /// Only if this is the current version.
    #[arg(long)]
    resource_version: Option<String>,
    /// Wait for the size to be reached; 0 does not wait.
    #[arg(long, default_value = "0s", value_parser = crate::time::flag, value_name = "DURATION")]
    timeout: Duration,
}

/// Scales every object.
pub async fn run(session: &mut Session, options: Options) -> Result<()> {
    options.record.warn(session)?;
    let dry_run = options.dry_run.strategy(session)?;
    if options.replicas < 0 {
        return Err(Error::told("The --replicas=COUNT flag is required, and COUNT must be greater than or equal to 0"));
    }
    let timeout = options.timeout;
    let ask = Ask {
        words: options.words.clone(),
        files: options.files.clone(),
        selector: options.labels.selector.clone(),
        all: options.labels.all,
        live: true,
        ..Ask::default()
    };
    let (found, errors) = objects::find(session, &ask).await?;
    if found.is_empty() {
        let why: Vec<String> = errors.iter().map(Error::inner_message).collect();
        let hints: Vec<String> = errors.iter().flat_map(Error::hints).collect();
        let error = Error::told(format!("no objects passed to scale {}", why.join(", ")).trim_end().to_owned());
        return Err(hints.into_iter().fold(error, Error::hinted));
    }
    if options.resource_version.is_some() && found.len() > 1 {
        return Err(Error::told("cannot use --resource-version with multiple resources"));
    }
    // As with kubectl, the first that cannot be scaled ends it.
    for item in found {
        let client = session.client()?;
        if options.current_replicas >= 0 && item.object.number("spec.replicas") != options.current_replicas {
            let (wanted, is) = (options.current_replicas, item.object.number("spec.replicas"));
            return Err(Error::told(format!("Expected replicas to be {wanted}, was {is}")));
        }
        let version = item.object.text("metadata.resourceVersion");
        if let Some(wanted) = options.resource_version.as_ref().filter(|wanted| *wanted != version) {
            return Err(Error::told(format!("Expected resource version to be {wanted}, was {version}")));
        }
        let mut scaled = item.object.clone();
        scaled["spec"]["replicas"] = options.replicas.into();
        if dry_run != DryRun::Client {
            let path = format!("{}/scale", item.path());
            let patch = json!({"spec": {"replicas": options.replicas}});
            let query: Vec<_> = dry_run.query("kubectl-scale");
            let has_scale = item.resource.subresources.iter().any(|sub| sub == "scale");
            let explained = |error: Error| match has_scale {
                true => error,
                false => error.hinted(format!("{} cannot be scaled", item.resource.plural)),
            };
            client.patch(&path, &query, change::MERGE, &patch).await.map_err(explained)?;
        }
        if options.record.record && dry_run == DryRun::No {
            let cause = options.record.cause(session);
            let patch = json!({"metadata": {"annotations": {change::CHANGE_CAUSE: cause}}});
            client.patch(&item.path(), &dry_run.query("kubectl-scale"), change::MERGE, &patch).await?;
        }
        if !timeout.is_zero() && dry_run == DryRun::No {
            await_size(session, &item, options.replicas, timeout).await?;
        }
        print::done(session, &options.output, &scaled, &format!("scaled{}", dry_run.suffix()))?;
    }
    Error::several(errors)
}

async fn await_size(session: &mut Session, item: &objects::Found, size: i64, timeout: Duration) -> Result<()> {
    let client = session.client()?;
    let reached = super::wait::until(&client, item, |object| {
        object.number("status.replicas") == size
            && object.number("status.observedGeneration") >= object.number("metadata.generation")
    });
    let late = || Error::told(format!("timed out waiting for {:?} to be synced", item.name));
    tokio::time::timeout(timeout, reached).await.map_err(|_| late())?
}
