//! `rollout undo`. Mirrors kubectl `pkg/cmd/rollout/rollout_undo.go` and `pkg/polymorphichelpers/rollback.go`.

use serde_json::{Value, json};

use super::revisions::{self, Revision, same_template};
use super::{Which, unsupported, words};
use crate::change::{DryRun, DryRunFlag, JSON_PATCH, STRATEGIC};
use crate::errors::{Error, Result};
use crate::json::Json;
use crate::objects::Found;
use crate::print::{self, Output};
use crate::session::Session;

/// Annotations that stay the Deployment's own.
const KEPT: [&str; 8] = [
    api::account::REQUESTED,
    api::account::ENDED,
    "kubectl.kubernetes.io/last-applied-configuration",
    "deployment.kubernetes.io/revision",
    "deployment.kubernetes.io/revision-history",
    "deployment.kubernetes.io/desired-replicas",
    "deployment.kubernetes.io/max-replicas",
    "deprecated.deployment.rollback.to",
];

/// Go back to an earlier revision.
///
/// Examples:
///   kapstan rollout undo deployment/web
///   kapstan rollout undo deployment/web --to-revision=3
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Options {
    #[command(flatten)]
    which: Which,
    /// The revision to go back to; 0 is the one before the current.
    #[arg(long, default_value_t = 0, allow_negative_numbers = true, value_name = "NUMBER")]
    to_revision: i64,
    #[command(flatten)]
    dry_run: DryRunFlag,
    #[command(flatten)]
    output: Output,
}

/// Goes back.
pub async fn run(session: &mut Session, options: Options) -> Result<()> {
    let dry_run = options.dry_run.strategy(session)?;
    options.output.format()?;
    let (found, mut errors) = options.which.find(session).await?;
    for item in &found {
        let outcome = undo(session, item, options.to_revision, dry_run).await;
        let printed = outcome.and_then(|told| {
            let told = format!("{told}{}", dry_run.suffix());
            print::made_apart(session, &options.output, &item.object, &told)
        });
        errors.extend(printed.err());
    }
    Error::several(errors)
}

async fn undo(session: &mut Session, item: &Found, wanted: i64, dry_run: DryRun) -> Result<String> {
    if !words::has(&item.resource.kind) {
        return Err(unsupported(item, "rollbacker", "rollbacker"));
    }
    let client = session.client()?;
    let known = if wanted < 0 { Vec::new() } else { revisions::of(&client, item).await? };
    let target = revisions::target(&known, wanted, item)?;
    if dry_run == DryRun::Client {
        let template = super::history::template_text(&target.template);
        return Ok(match item.resource.kind.as_str() {
            "Deployment" => template,
            _ => format!("will roll back to {template}"),
        });
    }
    if item.object.flag("spec.paused") {
        return Err(Error::told(
            "you cannot rollback a paused deployment; resume it first with 'kubectl rollout resume' and try again",
        ));
    }
    if same_template(&target.template, item.object.at("spec.template")) {
        return Ok(format!("skipped rollback (current template already matches revision {wanted})"));
    }
    let (media_type, patch) = patch(item, target);
    let sent = client.patch(&item.path(), &dry_run.query("kubectl-rollout"), media_type, &patch).await;
    sent.map_err(|error| Error::told(format!("failed restoring revision {wanted}: {}", error.inner_message())))?;
    Ok("rolled back".into())
}

/// What is sent: the template of the revision, and for a Deployment its annotations.
fn patch(item: &Found, target: &Revision) -> (&'static str, Value) {
    if item.resource.kind != "Deployment" {
        return (STRATEGIC, target.object.at("data").clone());
    }
    let kept = item.object.map("metadata.annotations").iter().filter(|(key, _)| KEPT.contains(&key.as_str()));
    let brought = target.object.map("metadata.annotations").iter().filter(|(key, _)| !KEPT.contains(&key.as_str()));
    let annotations: serde_json::Map<String, Value> =
        kept.chain(brought).map(|(key, value)| (key.clone(), value.clone())).collect();
    let template = revisions::plain_template(&target.template);
    let patch = json!([
        {"op": "replace", "path": "/spec/template", "value": template},
        // `add` replaces too, and works where there are no annotations yet.
        {"op": "add", "path": "/metadata/annotations", "value": annotations},
    ]);
    (JSON_PATCH, patch)
}
