//! `autoscale`. Mirrors kubectl `pkg/cmd/autoscale/autoscale.go`.

use serde_json::json;

use crate::change::{DryRun, Record};
use crate::discovery::Resource;
use crate::errors::{Error, Result};
use crate::json::Json;
use crate::objects::{self, Ask, Files};
use crate::print;
use crate::session::Session;
use crate::verbs::create::{self, Making};

/// Make an autoscaler for a deployment, replica set, stateful set or replication controller.
#[derive(clap::Args)]
pub struct Options {
    /// TYPE NAME or TYPE/NAME.
    words: Vec<String>,
    #[command(flatten)]
    files: Files,
    #[command(flatten)]
    making: Making,
    #[command(flatten)]
    record: Record,
    /// The most pods.
    #[arg(long, default_value_t = -1, allow_hyphen_values = true)]
    max: i64,
    /// The fewest pods.
    #[arg(long, default_value_t = -1, allow_hyphen_values = true)]
    min: i64,
    /// Wanted average of CPU, in percent of what is requested.
    #[arg(long, default_value_t = -1, allow_hyphen_values = true)]
    cpu_percent: i64,
    /// Name of the autoscaler; without it, that of the object.
    #[arg(long)]
    name: Option<String>,
}

/// Makes the autoscaler.
pub async fn run(session: &mut Session, options: Options) -> Result<()> {
    options.record.warn(session)?;
    let dry_run = options.making.dry_run.strategy(session)?;
    if options.max < 1 {
        return Err(Error::told(format!("--max=MAXPODS is required and must be at least 1, max: {}", options.max)));
    }
    if options.max < options.min {
        return Err(Error::told(format!(
            "--max=MAXPODS must be larger or equal to --min=MINPODS, max: {}, min: {}",
            options.max, options.min
        )));
    }
    let ask = Ask { words: options.words.clone(), files: options.files.clone(), live: true, ..Ask::default() };
    for item in objects::find_all(session, &ask).await? {
        if !item.resource.subresources.iter().any(|sub| sub == "scale") {
            let Resource { group, version, plural, kind, .. } = &item.resource;
            return Err(Error::told(format!(
                "cannot autoscale a {kind}: could not find scale subresource for {group}/{version}, Resource={plural} in discovery information"
            )));
        }
        let name = options.name.clone().unwrap_or_else(|| item.name.clone());
        let mut object = json!({
            "apiVersion": "autoscaling/v1",
            "kind": "HorizontalPodAutoscaler",
            "metadata": {"creationTimestamp": null, "name": name},
            "spec": {
                "maxReplicas": options.max,
                "scaleTargetRef": {
                    "apiVersion": item.resource.api_version(), "kind": item.resource.kind, "name": item.object.text("metadata.name"),
                },
            },
            "status": {"currentReplicas": 0, "desiredReplicas": 0},
        });
        if options.min > 0 {
            object["spec"]["minReplicas"] = options.min.into();
        }
        if options.cpu_percent >= 0 {
            object["spec"]["targetCPUUtilizationPercentage"] = options.cpu_percent.into();
        }
        options.record.annotate(session, &mut object);
        let making = Making { field_manager: "kubectl-autoscale".into(), ..options.making.clone() };
        let done = if dry_run == DryRun::Client { "created" } else { "autoscaled" };
        let made = create::post(session, &making, dry_run, &object).await?;
        print::made(session, &making.output, &made, &format!("{done}{}", dry_run.suffix()))?;
    }
    Ok(())
}
