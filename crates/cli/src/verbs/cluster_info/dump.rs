//! `cluster-info dump`. Mirrors kubectl `pkg/cmd/clusterinfo/clusterinfo_dump.go`: the same lists in the same order, and the logs.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::client::{Client, escape};
use crate::errors::{Error, Result};
use crate::json::Json;
use crate::print::{self, Format, Output};
use crate::session::Session;

/// What is dumped of a namespace: file and path.
const LISTS: [(&str, &str); 7] = [
    ("events", "/api/v1"),
    ("replicationcontrollers", "/api/v1"),
    ("services", "/api/v1"),
    ("daemonsets", "/apis/apps/v1"),
    ("deployments", "/apis/apps/v1"),
    ("replicasets", "/apis/apps/v1"),
    ("pods", "/api/v1"),
];
/// What upstream calls the file of the ReplicationControllers.
const CONTROLLERS: &str = "replication-controllers";

/// Print nodes, events, workloads, pods and their logs, to look for what is wrong.
///
/// Examples:
///   kapstan cluster-info dump
///   kapstan cluster-info dump --namespaces default,kube-system --output-directory=/tmp/state
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Options {
    /// Every namespace.
    #[arg(long, short = 'A')]
    all_namespaces: bool,
    /// These namespaces; by default the current one and kube-system.
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    namespaces: Vec<String>,
    /// Write files into this folder instead of printing.
    #[arg(long, value_name = "DIR")]
    output_directory: Option<String>,
    #[command(flatten)]
    output: Output,
}

/// Dumps.
pub async fn run(session: &mut Session, options: Options) -> Result<()> {
    // A form that cannot be understood is told before anything is asked for.
    form(&options)?;
    let client = session.client()?;
    let nodes = client.get("/api/v1/nodes", &[]).await?;
    put(session, &options, "nodes", &nodes)?;
    for namespace in namespaces(session, &client, &options).await? {
        one(session, &client, &options, &namespace).await?;
    }
    match folder(&options) {
        Some(folder) => session.say(format!("Cluster info dumped to {folder}")),
        None => Ok(()),
    }
}

async fn namespaces(session: &mut Session, client: &Client, options: &Options) -> Result<Vec<String>> {
    if options.all_namespaces {
        let list = client.get("/api/v1/namespaces", &[]).await?;
        return Ok(list.list("items").iter().map(|item| item.text("metadata.name").to_owned()).collect());
    }
    if options.namespaces.is_empty() {
        return Ok(vec!["kube-system".to_owned(), session.namespace()?]);
    }
    Ok(options.namespaces.clone())
}

async fn one(session: &mut Session, client: &Client, options: &Options, namespace: &str) -> Result<()> {
    let mut pods = Value::Null;
    for (plural, group) in LISTS {
        let list = client.get(&format!("{group}/namespaces/{}/{plural}", escape(namespace)), &[]).await?;
        let name = if plural == "replicationcontrollers" { CONTROLLERS } else { plural };
        put(session, options, &format!("{namespace}/{name}"), &list)?;
        if plural == "pods" {
            pods = list;
        }
    }
    for pod in pods.list("items") {
        let logs = logs(client, namespace, pod).await;
        put_log(session, options, &format!("{namespace}/{}/logs.txt", pod.text("metadata.name")), &logs)?;
    }
    Ok(())
}

/// The logs of all containers; why there are none, where that is so.
async fn logs(client: &Client, namespace: &str, pod: &Value) -> String {
    let name = pod.text("metadata.name");
    let mut told = String::new();
    let containers = pod.list("spec.initContainers").iter().chain(pod.list("spec.containers"));
    for container in containers.map(|container| container.text("name")) {
        let path = format!("/api/v1/namespaces/{}/pods/{}/log", escape(namespace), escape(name));
        let log = client.text(&path, &[("container", container.to_owned())]).await;
        let log = log.unwrap_or_else(|error| format!("Request log error: {}\n", error.inner_message()));
        told += &format!("==== START logs for container {container} of pod {namespace}/{name} ====\n{log}");
        told += &format!("==== END logs for container {container} of pod {namespace}/{name} ====\n");
    }
    told
}

/// The form of what is dumped; JSON unless another is asked for.
fn form(options: &Options) -> Result<Format> {
    match options.output.format()? {
        Format::Human { .. } => Ok(Format::Json),
        format => Ok(format),
    }
}

fn folder(options: &Options) -> Option<&str> {
    options.output_directory.as_deref().filter(|folder| !matches!(*folder, "" | "-"))
}

fn put(session: &mut Session, options: &Options, name: &str, list: &Value) -> Result<()> {
    let format = form(options)?;
    let ending = match &format {
        Format::Json => "json",
        Format::Yaml => "yaml",
        _ => "txt",
    };
    let text = print::object(&format, list, options.output.show_managed_fields)?;
    put_log(session, options, &format!("{name}.{ending}"), &text)
}

fn put_log(session: &mut Session, options: &Options, name: &str, text: &str) -> Result<()> {
    let Some(folder) = folder(options) else { return session.print(text) };
    let path = Path::new(folder).join(name);
    let written = path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::write(&path, text));
    written.map_err(|error| Error::told(format!("{}: {error}", path.display())))
}
