//! `run`: a pod from an image. Mirrors kubectl `pkg/cmd/run/run.go`.

use serde_json::{Value, json};

use crate::change::{DryRun, Record};
use crate::errors::{Error, Result};
use crate::print;
use crate::session::Session;
use crate::verbs::create::{self, Making};

/// Run an image in a pod.
#[derive(clap::Args)]
pub struct Options {
    /// Name of the pod.
    name: String,
    /// The image.
    #[arg(long)]
    image: Option<String>,
    #[command(flatten)]
    making: Making,
    #[command(flatten)]
    record: Record,
    /// NAME=VALUE; may be repeated.
    #[arg(long)]
    env: Vec<String>,
    /// Port of the container.
    #[arg(long)]
    port: Option<u16>,
    /// Make a service for the port too.
    #[arg(long)]
    expose: bool,
    /// Labels, such as app=web,tier=front.
    #[arg(long, short = 'l')]
    labels: Option<String>,
    /// Annotations; may be repeated.
    #[arg(long)]
    annotations: Vec<String>,
    /// Always, OnFailure or Never.
    #[arg(long, default_value = "Always")]
    restart: String,
    /// Always, IfNotPresent or Never.
    #[arg(long)]
    image_pull_policy: Option<String>,
    /// What is after -- is the command, not its arguments.
    #[arg(long)]
    command: bool,
    /// JSON that is merged into the pod.
    #[arg(long)]
    overrides: Option<String>,
    /// Keep standard input open; needs attach.
    #[arg(long, short = 'i')]
    stdin: bool,
    /// Give a terminal; needs attach.
    #[arg(long, short = 't')]
    tty: bool,
    /// Delete the pod after it was attached to; needs attach.
    #[arg(long)]
    rm: bool,
    /// Attach to the container; refused, see `logs -f`.
    #[arg(long)]
    attach: bool,
    /// Give the container its own privileges.
    #[arg(long)]
    privileged: bool,
    /// Print less.
    #[arg(long, short = 'q')]
    quiet: bool,
    /// Arguments of the container, after --.
    #[arg(last = true)]
    arguments: Vec<String>,
}

/// Creates the pod.
pub async fn run(session: &mut Session, options: Options) -> Result<()> {
    options.record.warn(session)?;
    let image =
        options.image.as_deref().filter(|image| !image.is_empty()).ok_or_else(|| Error::told("--image is required"))?;
    if options.stdin || options.tty || options.rm || options.attach {
        let error = Error::told("-i, -t, --rm and --attach are not supported: this server has no attach");
        return Err(error.hinted(format!(
            "run it and follow it: `{0} run {1} --image={image}`, `{0} logs -f {1}`",
            session.program, options.name
        )));
    }
    if options.expose && options.port.is_none() {
        return Err(Error::told("--port must be set when exposing a service"));
    }
    let dry_run = options.making.dry_run.strategy(session)?;
    let mut pod = pod(&options, image)?;
    options.record.annotate(session, &mut pod);
    if let Some(text) = &options.overrides {
        let patch: Value = serde_json::from_str(text)?;
        pod = api::patch::merge(pod, &patch).map_err(|refusal| Error::refused(refusal.to_value()))?;
    }
    if session.namespace_given() {
        pod["metadata"]["namespace"] = session.namespace()?.into();
    }
    let making = Making { field_manager: "kubectl-run".into(), ..options.making.clone() };
    if let (true, Some(port)) = (options.expose, options.port) {
        let service = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"creationTimestamp": null, "name": options.name},
            "spec": {"ports": [{"port": port, "protocol": "TCP", "targetPort": port}], "selector": pod["metadata"]["labels"]},
            "status": {"loadBalancer": {}},
        });
        let made = create::post(session, &making, dry_run, &service).await?;
        print::done(session, &making.output, &made, &format!("created{}", dry_run.suffix()))?;
    }
    let made = create::post(session, &making, dry_run, &pod).await?;
    if options.quiet && making.output.output.is_none() && dry_run == DryRun::No {
        return Ok(());
    }
    print::done(session, &making.output, &made, &format!("created{}", dry_run.suffix()))
}

fn pod(options: &Options, image: &str) -> Result<Value> {
    let mut labels = json!({});
    match &options.labels {
        Some(text) => {
            for part in text.split(',') {
                let (key, value) = create::pair(part, "label")?;
                labels[key] = value.into();
            }
        }
        None => labels["run"] = options.name.clone().into(),
    }
    let mut container = json!({"image": image, "name": options.name, "resources": {}});
    if !options.arguments.is_empty() {
        container[if options.command { "command" } else { "args" }] = options.arguments.clone().into();
    }
    if let Some(policy) = &options.image_pull_policy {
        container["imagePullPolicy"] = policy.clone().into();
    }
    if let Some(port) = options.port {
        container["ports"] = json!([{"containerPort": port}]);
    }
    if options.privileged {
        container["securityContext"] = json!({"privileged": true});
    }
    let mut env = Vec::new();
    for text in &options.env {
        let (name, value) = text.split_once('=').ok_or_else(|| Error::told(format!("invalid env: {text}")))?;
        env.push(json!({"name": name, "value": value}));
    }
    if !env.is_empty() {
        container["env"] = env.into();
    }
    let mut meta = json!({"creationTimestamp": null, "labels": labels, "name": options.name});
    for text in &options.annotations {
        let (key, value) = create::pair(text, "annotation")?;
        meta["annotations"][key] = value.into();
    }
    if !matches!(options.restart.as_str(), "Always" | "OnFailure" | "Never") {
        return Err(Error::told(format!("invalid restart policy: {}", options.restart)));
    }
    Ok(json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": meta,
        "spec": {"containers": [container], "dnsPolicy": "ClusterFirst", "restartPolicy": options.restart},
        "status": {},
    }))
}
