//! `set image`. Mirrors kubectl `pkg/cmd/set/set_image.go`; `--in-place` is ours (`in_place.rs`).

use std::time::Duration;

use serde_json::Value;

use super::{Change, Common, in_place, pod_spec, split_pairs};
use crate::change::Record;
use crate::errors::{Error, Result};
use crate::session::Session;

/// Set the image of containers.
///
/// With --in-place the Deployment stays as it is and its running pods get the image: same pod, same node, same address, only the
/// container is started anew. Pods change one after the other, never more at once than maxUnavailable allows.
///
/// Examples:
///   kapstan set image deployment/web nginx=nginx:1.25
///   kapstan set image deployments --all '*=nginx:1.25'
///   kapstan set image deployment/web nginx=nginx:1.25 --in-place --replicas 2
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Options {
    /// TYPE NAME or TYPE/NAME, then CONTAINER=IMAGE...; * stands for every container.
    words: Vec<String>,
    /// Label selector: supports '=', '==', '!=', 'in', 'notin', such as -l key1=value1,key2=value2.
    #[arg(long, short = 'l', value_name = "SELECTOR", allow_hyphen_values = true)]
    selector: Option<String>,
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    record: Record,
    /// Give the image to the Deployment's running pods instead of making new ones.
    #[arg(long)]
    in_place: bool,
    /// With --in-place: only so many pods.
    #[arg(long, requires = "in_place", value_name = "COUNT")]
    replicas: Option<usize>,
    /// With --in-place: how long one pod may take; by default the Deployment's progress deadline.
    #[arg(long, requires = "in_place", value_parser = crate::time::flag, value_name = "DURATION")]
    timeout: Option<Duration>,
}

/// Sets it.
pub async fn run(session: &mut Session, options: Options) -> Result<()> {
    options.record.warn(session)?;
    let dry_run = options.common.check(session, options.selector.as_ref())?;
    let (objects, pairs) = split_pairs(&options.words, "image")?;
    let images = images(&pairs)?;
    let found = options.common.find(session, &objects, options.selector.as_ref()).await?;
    if images.is_empty() {
        return Err(Error::told("at least one image update is required"));
    }
    if images.len() > 1 && images.iter().any(|(name, _)| name == "*") {
        return Err(Error::told(
            "all containers are already specified by *, but saw more than one container_name=container_image pairs",
        ));
    }
    if options.in_place {
        refuse_with_in_place(&options)?;
        return in_place::run(session, &found, &images, options.replicas, options.timeout, dry_run).await;
    }
    let change =
        Change { done: "image updated", failed: "failed to patch image update to pod template:", silent_if_same: true };
    let mut errors = Vec::new();
    let edit = |object: &mut Value| {
        let missing = pod_spec::missing(object);
        let spec = pod_spec::of(object).ok_or(missing)?;
        for (name, image) in &images {
            let containers = pod_spec::containers(spec, name);
            if containers.is_empty() {
                errors.push(Error::told(format!("unable to find container named {name:?}")));
            }
            for container in containers {
                container["image"] = image.clone().into();
            }
        }
        Ok(())
    };
    let outcome = options.common.apply(session, &found, &options.record, &change, edit).await;
    errors.extend(outcome.err());
    Error::several(errors)
}

/// Flags that say something about the Deployment itself, which stays as it is.
fn refuse_with_in_place(options: &Options) -> Result<()> {
    let given = [
        ("--output", options.common.output.output.is_some() || options.common.output.template.is_some()),
        ("--local", options.common.local),
        ("--record", options.record.is_given()),
    ];
    match given.iter().find(|(_, given)| *given) {
        Some((flag, _)) => Err(Error::told(format!(
            "{flag} cannot be used with --in-place: pods are changed, the deployment stays as it is"
        ))),
        None => Ok(()),
    }
}

fn images(pairs: &[String]) -> Result<Vec<(String, String)>> {
    let wrong: Vec<&str> = pairs.iter().filter(|pair| !pair.contains('=')).map(String::as_str).collect();
    if !wrong.is_empty() {
        return Err(Error::told(format!("invalid image format: {}", wrong.join(", "))));
    }
    let mut images: Vec<(String, String)> = Vec::new();
    for (name, image) in pairs.iter().filter_map(|pair| pair.split_once('=')) {
        // As in a map, the last one counts.
        images.retain(|(known, _)| known != name);
        images.push((name.to_owned(), image.to_owned()));
    }
    Ok(images)
}
