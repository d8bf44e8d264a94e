//! `rollout pause` and `rollout resume`. Mirrors kubectl `pkg/cmd/rollout/rollout_{pause,resume}.go`.

use serde_json::Value;

use super::Which;
use crate::change::{self, DryRun};
use crate::errors::{Error, Result};
use crate::json::Json;
use crate::objects::Found;
use crate::print::{self, Output};
use crate::session::Session;

/// Hold the rollout of a deployment: changes of its template wait until it is resumed.
#[derive(clap::Args)]
pub struct PauseOptions {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    output: Output,
    /// Name under which the change is kept in managed fields.
    #[arg(long, default_value = "kubectl-rollout", hide_short_help = true)]
    field_manager: String,
}

/// Let the rollout of a paused deployment go on.
#[derive(clap::Args)]
pub struct ResumeOptions {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    output: Output,
    /// Name under which the change is kept in managed fields.
    #[arg(long, default_value = "kubectl-rollout", hide_short_help = true)]
    field_manager: String,
}

/// Pauses.
pub async fn pause(session: &mut Session, options: PauseOptions) -> Result<()> {
    let change = |object: &mut Value| match (object.text("kind"), object.flag("spec.paused")) {
        ("Deployment", false) => {
            object["spec"]["paused"] = true.into();
            Ok(())
        }
        ("Deployment", true) => Err("is already paused"),
        _ => Err("pausing is not supported"),
    };
    steer(session, &options.which, &options.output, &options.field_manager, "paused", change).await
}

/// Resumes.
pub async fn resume(session: &mut Session, options: ResumeOptions) -> Result<()> {
    let change = |object: &mut Value| match (object.text("kind"), object.flag("spec.paused")) {
        ("Deployment", true) => {
            object["spec"]["paused"] = false.into();
            Ok(())
        }
        ("Deployment", false) => Err("is not paused"),
        _ => Err("resuming is not supported"),
    };
    steer(session, &options.which, &options.output, &options.field_manager, "resumed", change).await
}

/// Changes each of the workloads; those that cannot be changed are told of at the end.
pub async fn steer(
    session: &mut Session,
    which: &Which,
    output: &Output,
    manager: &str,
    done: &str,
    change: impl Fn(&mut Value) -> Result<(), &'static str>,
) -> Result<()> {
    output.format()?;
    let (found, mut errors) = which.find(session).await?;
    super::say_if_none(session, &found, &errors)?;
    for item in &found {
        if let Err(error) = steer_one(session, item, output, manager, done, &change).await {
            errors.push(error);
        }
    }
    Error::several(errors)
}

async fn steer_one(
    session: &mut Session,
    item: &Found,
    output: &Output,
    manager: &str,
    done: &str,
    change: &impl Fn(&mut Value) -> Result<(), &'static str>,
) -> Result<()> {
    let mut after = item.object.clone();
    change(&mut after).map_err(|why| Error::told(format!("{} {:?} {why}", item.resource.qualified(), item.name)))?;
    if after == item.object {
        // Only a restart within the second of the last one leaves no trace.
        return Err(Error::told(format!(
            "failed to create patch for {}: if restart has already been triggered within the past second, please wait before attempting to trigger another",
            item.name
        )));
    }
    let changed = change::patch_two_way(session, item, &after, DryRun::No, manager).await;
    let changed = changed.map_err(|error| Error::told(format!("failed to patch: {}", error.inner_message())))?;
    print::made_apart(session, output, &changed, done)
}
