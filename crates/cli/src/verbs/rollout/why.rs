//! `rollout why`: what a rollout waits for, in the words of the decisions themselves. Ours; kubectl has nothing like it.

use super::{Which, unsupported};
use crate::errors::{Error, Result};
use crate::session::Session;

/// Kinds whose controllers tell their reasons.
const TOLD: [&str; 9] = [
    "Deployment",
    "DaemonSet",
    "StatefulSet",
    "ReplicaSet",
    "ReplicationController",
    "Job",
    "CronJob",
    "HorizontalPodAutoscaler",
    "Namespace",
];

/// Say what a rollout waits for.
///
/// The controllers of a kapstan server keep the reasons of their decisions; this asks for them. It may be asked about what else has a
/// controller that waits for something, too: a Job, a CronJob, a HorizontalPodAutoscaler, a namespace that ends.
///
/// Examples:
///   kapstan rollout why deployment/web
///   kapstan rollout why cronjob/report
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Options {
    #[command(flatten)]
    which: Which,
}

/// Asks and prints.
pub async fn run(session: &mut Session, options: Options) -> Result<()> {
    let (found, mut errors) = options.which.find(session).await?;
    super::say_if_none(session, &found, &errors)?;
    let client = session.client()?;
    for item in &found {
        if !TOLD.contains(&item.resource.kind.as_str()) {
            errors.push(unsupported(item, "explainer", "reasons").hinted(super::OF_WHAT));
            continue;
        }
        match super::reasons(&client, item).await {
            Ok(sentences) if sentences.is_empty() => {
                session.say(format!("{} waits for nothing", item.printed()))?;
            }
            Ok(sentences) => {
                session.say(item.printed())?;
                for sentence in sentences {
                    session.say(format!("  {sentence}"))?;
                }
            }
            Err(error) if matches!(error.status_code(), 403 | 404) => {
                let told = format!("{} does not keep its reasons: only kapstan's own server does", client.server());
                let look = format!("{} describe {} {}", session.program, item.resource.singular, item.name);
                errors.push(Error::told(told).hinted(format!("`{look}` shows conditions and events")));
            }
            Err(error) => errors.push(error),
        }
    }
    Error::several(errors)
}
