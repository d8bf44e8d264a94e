//! `run`: a pod from an image. Mirrors kubectl `pkg/cmd/run/run.go`.

use std::time::Duration;

use serde_json::{Value, json};

use crate::change::{DryRun, Overrides, Record};
use crate::errors::{Error, Result};
use crate::json::Json;
use crate::objects::{self, Ask, Found};
use crate::print;
use crate::session::Session;
use crate::time::flag;
use crate::verbs::create::{self, Making};
use crate::verbs::delete::Deletion;
use crate::verbs::{attach, exec, set, wait};

/// Run an image in a pod.
#[derive(clap::Args)]
pub struct Options {
    /// Name of the pod.
    name: String,
    /// Arguments of the container; those that look like flags go after --.
    words: Vec<String>,
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
    #[command(flatten)]
    overrides: Overrides,
    #[command(flatten)]
    deletion: Deletion,
    /// Keep the container's standard input open, and attach to it.
    #[arg(long, short = 'i')]
    stdin: bool,
    /// Give the container a terminal.
    #[arg(long, short = 't')]
    tty: bool,
    /// Delete the pod after it was attached to.
    #[arg(long)]
    rm: bool,
    /// Wait until the pod runs and attach to it; -i and -t imply it.
    #[arg(long)]
    attach: bool,
    /// Standard input stays open after the first who attached has left.
    #[arg(long)]
    leave_stdin_open: bool,
    /// How long to wait until the pod runs.
    #[arg(long, default_value = exec::POD_RUNNING_TIMEOUT, value_parser = flag, value_name = "DURATION")]
    pod_running_timeout: Duration,
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
    if !is_reference(image) {
        return Err(Error::told(format!("Invalid image name {image:?}: invalid reference format")));
    }
    let attaches = options.attach || options.stdin || options.tty;
    if options.tty && !options.stdin {
        return Err(session.usage("run", "-i/--stdin is required for containers with -t/--tty=true"));
    }
    if options.rm && !attaches {
        return Err(session.usage("run", "--rm should only be used for attached containers"));
    }
    if options.expose && options.port.is_none() {
        return Err(Error::told("--port must be set when exposing a service"));
    }
    let dry_run = options.making.dry_run.strategy(session)?;
    if attaches && dry_run != DryRun::No {
        return Err(session.usage(
            "run",
            "--dry-run=[server|client] can't be used with attached containers options (--attach, --stdin, or --tty)",
        ));
    }
    if !matches!(options.restart.as_str(), "Always" | "OnFailure" | "Never") {
        return Err(session.usage("run", &format!("invalid restart policy: {}", options.restart)));
    }
    let mut pod = pod(&options, image)?;
    options.record.annotate(session, &mut pod);
    pod = options.overrides.apply(pod)?;
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
        print::made(session, &making.output, &made, &format!("created{}", dry_run.suffix()))?;
    }
    let made = create::post(session, &making, dry_run, &pod).await?;
    if attaches {
        let attached = join(session, &options, &made).await;
        if options.rm {
            delete(session, &options.deletion, &made).await?;
        }
        return attached;
    }
    if options.quiet && making.output.output.is_none() && dry_run == DryRun::No {
        return Ok(());
    }
    print::made(session, &making.output, &made, &format!("created{}", dry_run.suffix()))
}

/// Attaches once the pod runs; the pod's exit code becomes ours.
async fn join(session: &mut Session, options: &Options, made: &Value) -> Result<()> {
    let item = live(session, made).await?;
    let runs_or_ended = |pod: &Value| pod.text("status.phase") == "Running" && is_ready(pod) || has_ended(pod);
    let limit = exec::patience(session, "run", options.pod_running_timeout)?;
    let client = session.client()?;
    let running = tokio::time::timeout(limit, wait::until(&client, &item, runs_or_ended)).await;
    running.map_err(|_| Error::told("timed out waiting for the condition"))??;
    let pod = live(session, made).await?.object;
    let attached = match has_ended(&pod) {
        true => log(session, &pod).await,
        false => {
            let container = pod.list("spec.containers").first().cloned().unwrap_or_default();
            let attached = attach::to(session, &pod, &container, options.stdin, options.tty, options.quiet).await;
            // It may just have ended: then its log has everything.
            match attached {
                Err(_) if has_ended(&live(session, made).await?.object) => log(session, &pod).await,
                attached => attached,
            }
        }
    };
    attached?;
    if options.restart == "Always" {
        return Ok(());
    }
    wait::until(&client, &item, has_ended).await?;
    exit_of(&live(session, made).await?.object)
}

async fn live(session: &mut Session, pod: &Value) -> Result<Found> {
    let words = vec![format!("pods/{}", pod.text("metadata.name"))];
    let found = objects::find_all(session, &Ask { words, live: true, ..Ask::default() }).await?;
    found.into_iter().next().ok_or_else(|| Error::told("the pod is gone"))
}

fn is_ready(pod: &Value) -> bool {
    pod.list("status.conditions").iter().any(|one| one.text("type") == "Ready" && one.text("status") == "True")
}

fn has_ended(pod: &Value) -> bool {
    matches!(pod.text("status.phase"), "Succeeded" | "Failed")
}

async fn log(session: &mut Session, pod: &Value) -> Result<()> {
    let (namespace, name) = (pod.text("metadata.namespace"), pod.text("metadata.name"));
    let text = session.client()?.text(&format!("/api/v1/namespaces/{namespace}/pods/{name}/log"), &[]).await?;
    session.print(text)
}

fn exit_of(pod: &Value) -> Result<()> {
    if pod.text("status.phase") == "Succeeded" {
        return Ok(());
    }
    let (namespace, name) = (pod.text("metadata.namespace"), pod.text("metadata.name"));
    let first = pod.list("status.containerStatuses").first();
    let ended = first.map(|status| status.at("state.terminated")).filter(|ended| !ended.is_null());
    let Some(ended) = ended else {
        return Err(Error::bare(format!("pod {namespace}/{name} failed with unknown exit code")));
    };
    let told = format!("pod {namespace}/{name} terminated ({})\n{}", ended.text("reason"), ended.text("message"));
    let code = u8::try_from(ended.number("exitCode")).ok().filter(|code| *code != 0).unwrap_or(1);
    Err(Error::bare(told.trim_end().to_owned()).exiting(code))
}

async fn delete(session: &mut Session, deletion: &Deletion, pod: &Value) -> Result<()> {
    let words = vec![format!("pods/{}", pod.text("metadata.name"))];
    let found = objects::find_all(session, &Ask { words, live: true, ..Ask::default() }).await;
    let item = match found {
        Ok(found) => found.into_iter().next(),
        Err(error) if error.is_not_found() => None,
        Err(error) => return Err(error),
    };
    let Some(item) = item else { return Ok(()) };
    deletion.delete(session, &item).await?;
    session.say(format!("pod {:?} deleted", item.name))
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
    let arguments = [options.words.as_slice(), &options.arguments].concat();
    if !arguments.is_empty() {
        container[if options.command { "command" } else { "args" }] = arguments.into();
    }
    if let Some(policy) = &options.image_pull_policy {
        container["imagePullPolicy"] = policy.clone().into();
    }
    if let Some(port) = options.port {
        container["ports"] = json!([{"containerPort": port}]);
    }
    if options.stdin {
        container["stdin"] = true.into();
        if !options.leave_stdin_open {
            container["stdinOnce"] = true.into();
        }
    }
    if options.tty {
        container["tty"] = true.into();
    }
    if options.privileged {
        container["securityContext"] = json!({"privileged": true});
    }
    let mut env = Vec::new();
    for text in &options.env {
        let pair = text.split_once('=').filter(|(name, _)| set::env::wrong_name(name).is_none());
        let (name, value) = pair.ok_or_else(|| Error::told(format!("invalid env: {text}")))?;
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
    Ok(json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": meta,
        "spec": {"containers": [container], "dnsPolicy": "ClusterFirst", "restartPolicy": options.restart},
        "status": {},
    }))
}

/// Whether a text is the name of an image. Mirrors distribution/reference `ReferenceRegexp`.
fn is_reference(text: &str) -> bool {
    let (name, digest) = text.split_once('@').map_or((text, None), |(name, digest)| (name, Some(digest)));
    // A colon before a slash belongs to the registry's port.
    let tagged = name.rsplit_once(':').filter(|(_, tag)| !tag.contains('/'));
    let (name, tag) = tagged.map_or((name, None), |(name, tag)| (name, Some(tag)));
    let (first, path) = name.split_once('/').map_or((name, None), |(first, path)| (first, Some(path)));
    let is_named = match path {
        None => is_path(first),
        Some(path) => (is_registry(first) || is_path(first)) && path.split('/').all(is_path),
    };
    is_named && tag.is_none_or(is_tag) && digest.is_none_or(is_digest)
}

/// Lower-case letters and digits in runs, with `.`, `_`, `__` or dashes between them.
fn is_path(text: &str) -> bool {
    let is_run = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit();
    let gaps = text.split(is_run).filter(|gap| !gap.is_empty());
    text.starts_with(is_run)
        && text.ends_with(is_run)
        && gaps.into_iter().all(|gap| matches!(gap, "." | "_" | "__") || gap.bytes().all(|letter| letter == b'-'))
}

fn is_registry(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (text, None),
    };
    let is_label = |label: &str| {
        let is_end = |letter: char| letter.is_ascii_alphanumeric();
        label.starts_with(is_end)
            && label.ends_with(is_end)
            && label.chars().all(|letter| is_end(letter) || letter == '-')
    };
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let is_port = |port: &str| !port.is_empty() && port.bytes().all(|digit| digit.is_ascii_digit());
    match address {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok() && port.is_none_or(is_port),
        None => host.split('.').all(is_label) && port.is_none_or(is_port),
    }
}

fn is_tag(text: &str) -> bool {
    let is_word = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    text.starts_with(is_word)
        && text.len() <= 128
        && text.chars().all(|letter| is_word(letter) || matches!(letter, '.' | '-'))
}

/// An algorithm and at least 32 hexadecimal digits.
fn is_digest(text: &str) -> bool {
    let Some((algorithm, digits)) = text.split_once(':') else { return false };
    let is_part = |part: &str| {
        part.starts_with(|first: char| first.is_ascii_alphabetic())
            && part.bytes().all(|letter| letter.is_ascii_alphanumeric())
    };
    algorithm.split(['-', '_', '+', '.']).all(is_part)
        && digits.len() >= 32
        && digits.bytes().all(|digit| digit.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_images() {
        let digest = format!("nginx@sha256:{}", "0a".repeat(32));
        for good in ["nginx", "nginx:1.25", "a/b/c:x_Y", "h:5000/a", "[::1]:80/a", "EXAMPLE.org/a", "a__b--c", &digest]
        {
            assert!(is_reference(good), "{good}");
        }
        for bad in ["", "a b", "A", "a/B", "nginx:", "a//b", "-a", "a@sha256:12", "a___b", "h:x/a", ":tag"] {
            assert!(!is_reference(bad), "{bad}");
        }
    }
}
