//! `describe`: an object and what belongs to it, for reading. Mirrors kubectl `pkg/describe/describe.go`.

pub mod access;
mod bounds;
mod cluster;
mod generic;
mod network;
mod page;
mod pods;
mod storage;
mod volumes;
mod workloads;

use serde_json::Value;

pub use page::Page;

use crate::client::Client;
use crate::errors::{Error, Result};
use crate::json::Json;
use crate::objects::{self, Ask, Files, Found};
use crate::session::Session;

/// Show an object with everything that belongs to it, and its events.
#[derive(clap::Args)]
pub struct Options {
    /// TYPE [NAME_PREFIX...], TYPE/NAME...
    words: Vec<String>,
    #[command(flatten)]
    files: Files,
    /// Label selector: supports '=', '==', '!=', 'in', 'notin', such as -l key1=value1,key2=value2.
    #[arg(long, short = 'l', value_name = "SELECTOR", allow_hyphen_values = true)]
    selector: Option<String>,
    /// In every namespace.
    #[arg(long, short = 'A')]
    all_namespaces: bool,
    /// With events.
    #[arg(long, default_value_t = true, default_missing_value = "true", num_args = 0..=1, require_equals = true, action = clap::ArgAction::Set, value_name = "BOOL")]
    show_events: bool,
    /// Objects asked for at once; 0 is all.
    #[arg(long, default_value_t = 500, value_name = "NUMBER")]
    chunk_size: usize,
}

/// Describes every object, with two empty lines between them.
pub async fn run(session: &mut Session, options: Options) -> Result<()> {
    if options.words.is_empty() && options.files.is_empty() {
        return Err(Error::told(format!(
            "You must specify the type of resource to describe. Use \"{} api-resources\" for a complete list of supported resources.\n",
            session.program
        )));
    }
    let ask = Ask {
        words: options.words.clone(),
        files: options.files.clone(),
        selector: options.selector.clone(),
        page: Some(options.chunk_size),
        all: true,
        all_namespaces: options.all_namespaces,
        live: true,
        ..Ask::default()
    };
    let (mut found, mut errors) = objects::find(session, &ask).await?;
    if found.is_empty() && options.files.is_empty() {
        let similar = by_prefix(session, &ask, &mut errors).await?;
        found.extend(similar);
    }
    if found.is_empty() && errors.is_empty() {
        let nothing = match options.all_namespaces {
            true => "No resources found".to_owned(),
            false => format!("No resources found in {} namespace.", session.namespace()?),
        };
        return session.warn(nothing);
    }
    let client = session.client()?;
    for (index, item) in found.iter().enumerate() {
        let text = text(&client, item, options.show_events).await?;
        session.print(if index == 0 { text } else { format!("\n\n{text}") })?;
    }
    Error::several(errors)
}

/// `describe pod web` shows every pod whose name starts with `web` when none is called so.
async fn by_prefix(session: &mut Session, ask: &Ask, errors: &mut Vec<Error>) -> Result<Vec<Found>> {
    let mut similar = Vec::new();
    for target in objects::targets(session, ask).await? {
        let Some(prefix) = &target.name else { continue };
        let list = session.client()?.list(&target.resource, target.namespace.as_deref(), &[]).await;
        let Ok(mut list) = list else { continue };
        let items = objects::items(&mut list).into_iter();
        similar.extend(
            items
                .filter(|object| object.text("metadata.name").starts_with(prefix.as_str()))
                .map(|object| objects::of(&target.resource, object)),
        );
    }
    if !similar.is_empty() {
        errors.clear();
    }
    Ok(similar)
}

async fn text(client: &Client, item: &Found, with_events: bool) -> Result<String> {
    let object = &item.object;
    let events = if with_events { events(client, object).await? } else { Vec::new() };
    let shown = with_events.then_some(events.as_slice());
    let mut page = Page::default();
    match (item.resource.group.as_str(), item.resource.kind.as_str()) {
        ("", "Pod") => pods::pod(&mut page, object),
        ("apps", "Deployment") => workloads::deployment(client, &mut page, object).await?,
        ("apps", "ReplicaSet") => workloads::replica_set(client, &mut page, object).await?,
        ("", "ReplicationController") => workloads::replication_controller(client, &mut page, object).await?,
        ("apps", "DaemonSet") => workloads::daemon_set(client, &mut page, object).await?,
        ("apps", "StatefulSet") => workloads::stateful_set(client, &mut page, object).await?,
        ("batch", "Job") => workloads::job(&mut page, object),
        ("batch", "CronJob") => workloads::cron_job(&mut page, object),
        ("autoscaling", "HorizontalPodAutoscaler") => workloads::autoscaler(&mut page, object),
        ("policy", "PodDisruptionBudget") => workloads::budget(&mut page, object),
        ("", "ResourceQuota") => {
            bounds::quota(&mut page, object);
            return Ok(page.finish());
        }
        ("", "LimitRange") => {
            bounds::limit_range(&mut page, object);
            return Ok(page.finish());
        }
        ("", "Service") => network::service(client, &mut page, object).await?,
        ("", "Endpoints") => network::endpoints(&mut page, object),
        ("discovery.k8s.io", "EndpointSlice") => network::endpoint_slice(&mut page, object),
        ("rbac.authorization.k8s.io", "Role" | "ClusterRole") => {
            access::role(&mut page, object);
            return Ok(page.finish());
        }
        ("rbac.authorization.k8s.io", "RoleBinding" | "ClusterRoleBinding") => {
            access::binding(&mut page, object);
            return Ok(page.finish());
        }
        ("networking.k8s.io", "Ingress") => network::ingress(client, &mut page, object).await,
        ("networking.k8s.io", "IngressClass") => network::ingress_class(&mut page, object),
        ("", "Node") => cluster::node(client, &mut page, object).await?,
        ("", "Namespace") => {
            cluster::namespace(client, &mut page, object).await?;
            return Ok(page.finish());
        }
        ("", "PersistentVolumeClaim") => volumes::claim(client, &mut page, object).await?,
        ("", "PersistentVolume") => volumes::volume(&mut page, object),
        ("storage.k8s.io", "StorageClass") => volumes::class_page(&mut page, object),
        ("", "ConfigMap") => storage::config_map(&mut page, object),
        ("", "Secret") => {
            storage::secret(&mut page, object);
            return Ok(page.finish());
        }
        ("", "ServiceAccount") => storage::service_account(&mut page, object),
        _ => generic::any(&mut page, object),
    }
    if let Some(events) = shown {
        page.events(events);
    }
    Ok(page.finish())
}

/// The events about an object, oldest first.
async fn events(client: &Client, object: &Value) -> Result<Vec<Value>> {
    let meta = object.at("metadata");
    let kind = object.text("kind");
    // Events about nodes name them by name where uids stand elsewhere.
    let uid = if kind == "Node" { meta.text("name") } else { meta.text("uid") };
    let mut selector = format!("involvedObject.name={}", meta.text("name"));
    if meta.has("namespace") {
        selector += &format!(",involvedObject.namespace={}", meta.text("namespace"));
    }
    selector += &format!(",involvedObject.kind={kind}");
    if kind != "Node" {
        selector += &format!(",involvedObject.uid={uid}");
    }
    let discovery = client.discovery().await?;
    let Ok(resource) = discovery.resource("events") else { return Ok(Vec::new()) };
    let namespace = if meta.has("namespace") { meta.text("namespace") } else { "" };
    let mut list = client.list(resource, Some(namespace), &[("fieldSelector", selector)]).await?;
    let mut events = objects::items(&mut list);
    let when = |event: &Value| {
        let last = event.text("lastTimestamp");
        if last.is_empty() { event.text("eventTime").to_owned() } else { last.to_owned() }
    };
    events.sort_by_key(when);
    Ok(events)
}

/// Pods of a selector that a controller owns: how many run, wait, succeeded and failed.
async fn pod_counts(client: &Client, object: &Value, selector: &str) -> Result<String> {
    let namespace = object.text("metadata.namespace");
    let path = format!("/api/v1/namespaces/{namespace}/pods");
    let list = client.get(&path, &[("labelSelector", selector.to_owned())]).await?;
    let uid = object.text("metadata.uid");
    let (mut running, mut waiting, mut succeeded, mut failed) = (0, 0, 0, 0);
    for pod in list.list("items") {
        let owned = pod
            .list("metadata.ownerReferences")
            .iter()
            .any(|owner| owner.flag("controller") && owner.text("uid") == uid);
        match (owned, pod.text("status.phase")) {
            (false, _) => {}
            (_, "Running") => running += 1,
            (_, "Pending") => waiting += 1,
            (_, "Succeeded") => succeeded += 1,
            (_, "Failed") => failed += 1,
            _ => {}
        }
    }
    Ok(format!("{running} Running / {waiting} Waiting / {succeeded} Succeeded / {failed} Failed"))
}
