//! `create deployment|job|cronjob`. Mirrors kubectl `create_deployment.go`, `create_job.go`, `create_cronjob.go`.

use serde_json::{Value, json};

use super::{Making, make, metadata};
use crate::errors::{Error, Result};
use crate::json::Json;
use crate::session::Session;

/// Create a deployment.
#[derive(clap::Args)]
pub struct DeploymentOptions {
    /// Its name.
    name: String,
    /// Image to run; may be repeated.
    #[arg(long, required = true, value_delimiter = ',')]
    image: Vec<String>,
    /// Number of pods.
    #[arg(long, short, default_value_t = 1, allow_hyphen_values = true)]
    replicas: i64,
    /// Port of the container.
    #[arg(long)]
    port: Option<i64>,
    /// Command of the container, after --.
    #[arg(last = true)]
    command: Vec<String>,
    #[command(flatten)]
    making: Making,
}

/// Create a job.
#[derive(clap::Args)]
pub struct JobOptions {
    /// Its name.
    name: String,
    /// Image to run.
    #[arg(long)]
    image: Option<String>,
    /// Take the template of a cron job: cronjob/NAME.
    #[arg(long)]
    from: Option<String>,
    /// Command of the container, after --.
    #[arg(last = true)]
    command: Vec<String>,
    #[command(flatten)]
    making: Making,
}

/// Create a cron job.
#[derive(clap::Args)]
pub struct CronJobOptions {
    /// Its name.
    name: String,
    /// Image to run.
    #[arg(long, required = true)]
    image: String,
    /// When to run, in Cron's words.
    #[arg(long, required = true)]
    schedule: String,
    /// Restart policy: OnFailure or Never.
    #[arg(long, default_value = "OnFailure")]
    restart: String,
    /// Command of the container, after --.
    #[arg(last = true)]
    command: Vec<String>,
    #[command(flatten)]
    making: Making,
}

/// The name a container gets from its image: its last part, without tag and digest.
pub fn container_name(image: &str) -> String {
    let last = image.rsplit('/').next().unwrap_or(image);
    let bare = last.split(['@', ':']).next().unwrap_or(last);
    let dashed: String =
        bare.to_lowercase().chars().map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '-' }).collect();
    dashed.trim_matches('-').to_owned()
}

/// A container with a name, an image and nothing else.
pub fn container(name: &str, image: &str, command: &[String]) -> Value {
    let mut container = json!({"image": image, "name": name, "resources": {}});
    if !command.is_empty() {
        container["command"] = command.into();
    }
    container
}

pub(super) async fn deployment(session: &mut Session, options: DeploymentOptions) -> Result<()> {
    if options.image.len() > 1 && !options.command.is_empty() {
        return Err(Error::told("cannot specify multiple --image options and command"));
    }
    if options.replicas < 0 {
        return Err(Error::told(format!("replicas must be greater than or equal to 0, not {}", options.replicas)));
    }
    let mut containers: Vec<Value> =
        options.image.iter().map(|image| container(&container_name(image), image, &options.command)).collect();
    if let (Some(port), Some(first)) = (options.port, containers.first_mut()) {
        first["ports"] = json!([{"containerPort": port}]);
    }
    let labels = json!({"app": options.name});
    let mut meta = metadata(&options.name);
    meta["labels"] = labels.clone();
    let object = json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": meta,
        "spec": {
            "replicas": options.replicas,
            "selector": {"matchLabels": labels},
            "strategy": {},
            "template": {
                "metadata": {"creationTimestamp": null, "labels": labels},
                "spec": {"containers": containers},
            },
        },
        "status": {},
    });
    make(session, &options.making, object, true).await
}

pub(super) async fn job(session: &mut Session, options: JobOptions) -> Result<()> {
    let object = match (&options.image, &options.from) {
        (None, None) | (Some(_), Some(_)) => {
            return Err(Error::told("either --image or --from must be specified"));
        }
        (Some(image), None) => json!({
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": metadata(&options.name),
            "spec": {"template": {
                "metadata": {"creationTimestamp": null},
                "spec": {"containers": [container(&options.name, image, &options.command)], "restartPolicy": "Never"},
            }},
            "status": {},
        }),
        (None, Some(_)) if !options.command.is_empty() => {
            return Err(Error::told("cannot specify --from and command"));
        }
        (None, Some(from)) => from_cron_job(session, &options.name, from).await?,
    };
    make(session, &options.making, object, true).await
}

async fn from_cron_job(session: &mut Session, name: &str, from: &str) -> Result<Value> {
    let (kind, cron_job) =
        from.split_once('/').ok_or_else(|| Error::told(format!("from must be an existing cronjob: {from}")))?;
    let client = session.client()?;
    let discovery = client.discovery().await?;
    let resource = discovery.resource(kind)?;
    if resource.kind != "CronJob" {
        return Err(Error::told(format!("from must be an existing cronjob: {from}")));
    }
    let owner = client.get(&resource.path(Some(&session.namespace()?), Some(cron_job)), &[]).await?;
    let template = owner.at("spec.jobTemplate");
    let mut meta = metadata(name);
    meta["annotations"] = json!({"cronjob.kubernetes.io/instantiate": "manual"});
    for (key, value) in template.map("metadata.annotations") {
        meta["annotations"][key] = value.clone();
    }
    if template.has("metadata.labels") {
        meta["labels"] = template.at("metadata.labels").clone();
    }
    meta["ownerReferences"] = json!([{
        "apiVersion": "batch/v1", "kind": "CronJob", "name": cron_job, "uid": owner.text("metadata.uid"), "controller": true,
    }]);
    Ok(json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": meta, "spec": template["spec"], "status": {}}))
}

pub(super) async fn cron_job(session: &mut Session, options: CronJobOptions) -> Result<()> {
    let object = json!({
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": metadata(&options.name),
        "spec": {
            "jobTemplate": {
                "metadata": metadata(&options.name),
                "spec": {"template": {
                    "metadata": {"creationTimestamp": null},
                    "spec": {
                        "containers": [container(&options.name, &options.image, &options.command)],
                        "restartPolicy": options.restart,
                    },
                }},
            },
            "schedule": options.schedule,
        },
        "status": {},
    });
    make(session, &options.making, object, true).await
}
