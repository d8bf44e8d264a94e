//! `logs`. Mirrors kubectl `pkg/cmd/logs/logs.go` and `pkg/polymorphichelpers/logsforobject.go`.

use std::time::Duration;

use futures::StreamExt;
use serde_json::Value;

use crate::errors::{Error, Result};
use crate::json::Json;
use crate::objects::{self, Ask, Found};
use crate::session::Session;
use crate::time::{flag, rfc_3339};
use crate::verbs::exec;

/// The annotation that names the container to choose.
pub(super) const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

/// Print what containers wrote.
#[derive(clap::Args)]
pub struct Options {
    /// POD [CONTAINER] or TYPE/NAME [CONTAINER].
    words: Vec<String>,
    /// Go on printing.
    #[arg(long, short)]
    follow: bool,
    /// The container.
    #[arg(long, short)]
    container: Option<String>,
    /// Every container.
    #[arg(long)]
    all_containers: bool,
    /// Every pod of the object.
    #[arg(long)]
    all_pods: bool,
    /// Of the container that ran before.
    #[arg(long, short)]
    previous: bool,
    /// Only newer than this, such as 5s or 3h.
    #[arg(long, default_value = "0s", value_parser = flag, value_name = "DURATION")]
    since: Duration,
    /// Only newer than this time (RFC 3339).
    #[arg(long)]
    since_time: Option<String>,
    /// Times before lines.
    #[arg(long)]
    timestamps: bool,
    /// Only so many of the last lines; -1 is all, and 10 with a selector.
    #[arg(long, allow_hyphen_values = true)]
    tail: Option<i64>,
    /// Only so many bytes.
    #[arg(long)]
    limit_bytes: Option<u64>,
    /// The pod and the container before lines.
    #[arg(long)]
    prefix: bool,
    /// Of the pods with these labels.
    #[arg(long, short = 'l', allow_hyphen_values = true)]
    selector: Option<String>,
    /// Go on with other containers when one fails.
    #[arg(long)]
    ignore_errors: bool,
    /// At most so many logs are followed at once.
    #[arg(long, default_value_t = 5)]
    max_log_requests: usize,
    /// How long to wait until an object has a pod.
    #[arg(long, default_value = "20s", value_parser = flag, value_name = "DURATION")]
    pod_running_timeout: Duration,
    /// The server need not check the certificate of the node that has the log.
    #[arg(long)]
    insecure_skip_tls_verify_backend: bool,
}

/// One container's log.
struct Source {
    pod: String,
    container: String,
    path: String,
}

/// Prints the logs.
pub async fn run(session: &mut Session, options: Options) -> Result<()> {
    let query = query(&options)?;
    let sources = sources(session, &options).await?;
    if options.follow && sources.len() > options.max_log_requests {
        return Err(Error::told(format!(
            "you are attempting to follow {} log streams, but maximum allowed concurrency is {}, use --max-log-requests to increase the limit",
            sources.len(),
            options.max_log_requests
        )));
    }
    let client = session.client()?;
    if !options.follow {
        for source in &sources {
            let mut query = query.clone();
            query.push(("container", source.container.clone()));
            match client.text(&source.path, &query).await {
                Ok(text) => {
                    let text = if options.prefix {
                        text.lines().map(|line| format!("{}{line}\n", prefix(source))).collect()
                    } else {
                        text
                    };
                    session.print(text)?;
                }
                Err(error) if options.ignore_errors => session.report(&error)?,
                Err(error) => return Err(error),
            }
        }
        return Ok(());
    }
    let mut streams = futures::stream::SelectAll::new();
    for source in sources {
        let mut query = query.clone();
        query.push(("container", source.container.clone()));
        let start = if options.prefix { prefix(&source) } else { String::new() };
        let lines = client.lines(&source.path, &query, "*/*").await?;
        streams.push(lines.map(move |line| line.map(|line| format!("{start}{line}"))).boxed_local());
    }
    while let Some(line) = streams.next().await {
        let line = line?;
        session.print(line + "\n")?;
    }
    Ok(())
}

fn prefix(source: &Source) -> String {
    format!("[pod/{}/{}] ", source.pod, source.container)
}

fn query(options: &Options) -> Result<Vec<(&'static str, String)>> {
    let mut query = Vec::new();
    if options.follow {
        query.push(("follow", "true".into()));
    }
    if options.previous {
        query.push(("previous", "true".into()));
    }
    if options.insecure_skip_tls_verify_backend {
        query.push(("insecureSkipTLSVerifyBackend", "true".into()));
    }
    if options.timestamps {
        query.push(("timestamps", "true".into()));
    }
    let since = options.since;
    if !since.is_zero() && options.since_time.is_some() {
        return Err(Error::told("at most one of `sinceTime` or `sinceSeconds` may be specified"));
    }
    if !since.is_zero() {
        query.push(("sinceSeconds", since.as_secs().max(1).to_string()));
    }
    if let Some(time) = options.since_time.as_deref().filter(|time| !time.is_empty()) {
        let time = rfc_3339(time).map_err(Error::told)?;
        query.push(("sinceTime", time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()));
    }
    /// What is shown of each pod when there may be many.
    const TAIL_OF_MANY: i64 = 10;
    let tail = options.tail.or(options.selector.as_ref().filter(|_| !options.follow).map(|_| TAIL_OF_MANY));
    match tail {
        Some(lines) if lines < -1 => return Err(Error::told("--tail must be greater than or equal to -1")),
        Some(lines) if lines >= 0 => query.push(("tailLines", lines.to_string())),
        _ => {}
    }
    if let Some(bytes) = options.limit_bytes {
        query.push(("limitBytes", bytes.to_string()));
    }
    Ok(query)
}

async fn sources(session: &mut Session, options: &Options) -> Result<Vec<Source>> {
    let mut container = options.container.clone();
    if options.selector.is_some() {
        if !options.words.is_empty() {
            return Err(Error::told("only a selector (-l) or a POD name is allowed"));
        }
        let ask = Ask { words: vec!["pods".into()], selector: options.selector.clone(), ..Ask::default() };
        let pods = objects::find_all(session, &ask).await?;
        if pods.is_empty() {
            let nothing = format!("No resources found in {} namespace.", session.namespace()?);
            session.warn(nothing)?;
        }
        let mut sources = Vec::new();
        for pod in pods {
            sources.extend(of_pod(session, options, container.as_deref(), &pod.object)?);
        }
        return Ok(sources);
    }
    let word = match options.words.as_slice() {
        [] => return Err(session.usage("logs", "expected 'logs [-f] [-p] (POD | TYPE/NAME) [-c CONTAINER]'.\nPOD or TYPE/NAME is a required argument for the logs command")),
        [word] => word,
        [word, name] => {
            if container.is_some() {
                return Err(Error::told("only one of -c or an inline [CONTAINER] arg is allowed"));
            }
            container = Some(name.clone());
            word
        }
        _ => return Err(session.usage("logs", "expected 'logs [-f] [-p] (POD | TYPE/NAME) [-c CONTAINER]'.\nPOD or TYPE/NAME is a required argument for the logs command")),
    };
    let patience = exec::patience(session, "logs", options.pod_running_timeout)?;
    let word = if word.contains('/') { word.clone() } else { format!("pods/{word}") };
    let found = objects::find_all(session, &Ask { words: vec![word], live: true, ..Ask::default() }).await;
    let found = match found {
        Err(error) if error.is_not_found() => {
            let (message, hints) = (error.inner_message(), error.hints());
            let error =
                Error::told(format!("error from server (NotFound): {message} in namespace {:?}", session.namespace()?));
            return Err(hints.into_iter().fold(error, Error::hinted));
        }
        found => found?,
    };
    let mut sources = Vec::new();
    for item in found {
        let pods = exec::pods(session, &item, "get the logs from", patience).await?;
        let chosen = if options.all_pods { pods.len() } else { 1 };
        if pods.len() > 1 && !options.all_pods {
            session.warn(format!("Found {} pods, using pod/{}", pods.len(), pods[0].text("metadata.name")))?;
        }
        for pod in pods.iter().take(chosen) {
            sources.extend(of_pod(session, options, container.as_deref(), pod)?);
        }
    }
    Ok(sources)
}

/// The pods of an object, those first that have something to say; `doing` is what they are wanted for.
pub(super) async fn pods_of(session: &mut Session, item: &Found, doing: &str) -> Result<Vec<Value>> {
    let spec = item.object.at("spec");
    let selector = match item.resource.kind.as_str() {
        "Pod" => return Ok(vec![item.object.clone()]),
        "ReplicationController" | "Service" => crate::print::table::label_text(spec.at("selector")),
        "Deployment" | "ReplicaSet" | "StatefulSet" | "DaemonSet" | "Job" => {
            let parsed: k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector =
                serde_json::from_value(spec.at("selector").clone())?;
            api::selector::Selector::from_label_selector(Some(&parsed))
                .map_err(|error| Error::told(error.to_string()))?
                .to_string()
        }
        kind => {
            let kind = format!("*{}.{kind}", item.resource.version);
            let error = Error::told(format!("cannot {doing} {kind}: selector for {kind} not implemented"));
            return Err(error.hinted("name a pod, or something that makes pods"));
        }
    };
    let namespace = item.namespace.clone().unwrap_or_default();
    let list =
        session.client()?.get(&format!("/api/v1/namespaces/{namespace}/pods"), &[("labelSelector", selector)]).await?;
    let mut pods = list.list("items").to_vec();
    if pods.is_empty() {
        return Err(
            Error::told("timed out waiting for the condition").hinted(format!("{} has no pods", item.printed()))
        );
    }
    let unready = |pod: &Value| {
        !pod.list("status.conditions").iter().any(|one| one.text("type") == "Ready" && one.text("status") == "True")
    };
    pods.sort_by_key(|pod| {
        (
            pod.text("spec.nodeName").is_empty(),
            pod.text("status.phase") != "Running",
            unready(pod),
            pod.text("metadata.creationTimestamp").to_owned(),
        )
    });
    Ok(pods)
}

fn of_pod(session: &mut Session, options: &Options, container: Option<&str>, pod: &Value) -> Result<Vec<Source>> {
    let (name, namespace) = (pod.text("metadata.name"), pod.text("metadata.namespace"));
    let path = format!("/api/v1/namespaces/{namespace}/pods/{name}/log");
    let source = |container: &str| Source { pod: name.into(), container: container.into(), path: path.clone() };
    let names: Vec<&str> = pod.list("spec.containers").iter().map(|one| one.text("name")).collect();
    let early: Vec<&str> = pod.list("spec.initContainers").iter().map(|one| one.text("name")).collect();
    if options.all_containers {
        return Ok(early.iter().chain(&names).map(|name| source(name)).collect());
    }
    if let Some(container) = container {
        return match names.contains(&container) || early.contains(&container) {
            true => Ok(vec![source(container)]),
            false => Err(Error::told(format!("container {container} is not valid for pod {name}"))
                .hinted(format!("it has: {}", [early, names].concat().join(", ")))),
        };
    }
    let annotated = pod.map("metadata.annotations").get(DEFAULT_CONTAINER).and_then(Value::as_str);
    if let Some(annotated) = annotated.filter(|annotated| names.contains(annotated)) {
        return Ok(vec![source(annotated)]);
    }
    let Some(first) = names.first() else { return Ok(Vec::new()) };
    if names.len() + early.len() > 1 {
        let mut all: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        all.extend(early.iter().map(|name| format!("{name} (init)")));
        session.warn(format!("Defaulted container {first:?} out of: {}", all.join(", ")))?;
    }
    Ok(vec![source(first)])
}
