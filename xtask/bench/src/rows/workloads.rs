//! Many workloads at once and the other kinds: from the first request until the status of every object says it is done.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::{Value, json};

use super::Settings;
use crate::client::Client;
use crate::deployment::{self, DEPLOYMENTS};
use crate::figures::{Figure, Unit};
use crate::process::{Cluster, Counters, Nodes};

/// Longest course of one step.
const WITHIN: Duration = Duration::from_secs(180);

/// What is run.
#[derive(Clone, Copy)]
pub enum Workload {
    /// So many Deployments of so many replicas each, all rolled at once.
    Deployments(usize, usize),
    /// A DaemonSet, updated a tenth of the nodes at a time.
    DaemonSet,
    /// A StatefulSet of so many pods, `Parallel`, updated a tenth at a time.
    StatefulSet(usize),
    /// So many Jobs of one pod each.
    Jobs(usize),
}

impl Workload {
    /// For a reader.
    pub fn title(self) -> String {
        match self {
            Workload::Deployments(count, replicas) => format!("{count} Deployments of {replicas} rolled at once"),
            Workload::DaemonSet => "DaemonSet, a tenth of the nodes at a time".into(),
            Workload::StatefulSet(replicas) => format!("StatefulSet of {replicas}, Parallel, a tenth at a time"),
            Workload::Jobs(count) => format!("{count} Jobs to completion"),
        }
    }

    fn folder(self) -> &'static str {
        match self {
            Workload::Deployments(..) => DEPLOYMENTS,
            Workload::DaemonSet => "/apis/apps/v1/namespaces/default/daemonsets",
            Workload::StatefulSet(_) => "/apis/apps/v1/namespaces/default/statefulsets",
            Workload::Jobs(_) => "/apis/batch/v1/namespaces/default/jobs",
        }
    }

    fn names(self) -> Vec<String> {
        let count = match self {
            Workload::Deployments(count, _) | Workload::Jobs(count) => count,
            Workload::DaemonSet | Workload::StatefulSet(_) => 1,
        };
        (0..count).map(|number| format!("web-{number}")).collect()
    }

    fn manifest(self, name: &str) -> Value {
        let deployment = |replicas| deployment::manifest(name, replicas);
        let a_tenth = json!({ "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": "10%" } });
        match self {
            Workload::Deployments(_, replicas) => deployment(replicas),
            Workload::DaemonSet => {
                let mut body = deployment(0);
                body["kind"] = json!("DaemonSet");
                let spec = body["spec"].as_object_mut().map(std::mem::take).unwrap_or_default();
                body["spec"] = json!({
                    "selector": spec["selector"], "template": spec["template"], "updateStrategy": a_tenth,
                });
                body
            }
            Workload::StatefulSet(replicas) => {
                let mut body = deployment(replicas);
                body["kind"] = json!("StatefulSet");
                let spec = body["spec"].as_object_mut().map(std::mem::take).unwrap_or_default();
                body["spec"] = json!({
                    "replicas": replicas, "selector": spec["selector"], "template": spec["template"],
                    "serviceName": name, "podManagementPolicy": "Parallel", "updateStrategy": a_tenth,
                });
                body
            }
            Workload::Jobs(_) => json!({
                "apiVersion": "batch/v1", "kind": "Job", "metadata": { "name": name },
                "spec": { "template": { "spec": {
                    "restartPolicy": "Never", "containers": [{ "name": "web", "image": "web:v1" }],
                }}},
            }),
        }
    }

    /// A Job has one course only.
    fn is_updated(self) -> bool {
        !matches!(self, Workload::Jobs(_))
    }
}

/// Makes the workload, then gives it another image, where it has an update.
pub async fn measure(settings: &Settings, workload: Workload, nodes: Nodes) -> Result<Vec<Figure>, String> {
    let cluster = Cluster::start(&settings.binary, nodes).await?;
    let client = cluster.connect().await?;
    let mut figures = course(&cluster, &client, workload, Step::Create).await?;
    if workload.is_updated() {
        figures = figures.into_iter().map(|figure| figure.renamed(|name| format!("create: {name}"))).collect();
        figures.splice(0..0, course(&cluster, &client, workload, Step::Update).await?);
    }
    figures.push(Figure::new("peak memory of the server", cluster.usage()?.peak_bytes as f64, Unit::Bytes));
    Ok(figures)
}

#[derive(Clone, Copy, PartialEq)]
enum Step {
    Create,
    Update,
}

async fn course(cluster: &Cluster, client: &Client, workload: Workload, step: Step) -> Result<Vec<Figure>, String> {
    let (before, counters, begun) = (cluster.usage()?, Counters::read(client).await?, Instant::now());
    let generation = if step == Step::Create { 1 } else { 2 };
    let done = tokio::time::timeout(WITHIN, all_done(client, workload, generation));
    let (asked, done) = tokio::join!(ask(client, workload, step), done);
    asked?;
    done.map_err(|_| format!("not done within {WITHIN:?}"))??;
    let wall = begun.elapsed().as_secs_f64();
    let (after, now) = (cluster.usage()?, Counters::read(client).await?);
    let server = after.cpu_seconds - before.cpu_seconds;
    eprintln!("    {wall:.2} s, server {server:.2} CPU-s");
    Ok(vec![
        Figure::new("time", wall, Unit::Seconds),
        Figure::new("processor time of the server", server, Unit::Seconds),
        Figure::new("objects written", now.records - counters.records, Unit::Count),
        Figure::new("disk syncs", now.syncs - counters.syncs, Unit::Count),
    ])
}

/// Sends all requests at once, over one connection.
async fn ask(client: &Client, workload: Workload, step: Step) -> Result<(), String> {
    let mut requests = tokio::task::JoinSet::new();
    for name in workload.names() {
        let client = client.clone();
        requests.spawn(async move {
            let folder = workload.folder();
            match step {
                Step::Create => client.create(folder, &workload.manifest(&name)).await,
                Step::Update => client.patch(&format!("{folder}/{name}"), &deployment::set_image(2)).await,
            }
        });
    }
    while let Some(answer) = requests.join_next().await {
        answer.map_err(|error| error.to_string())??;
    }
    Ok(())
}

/// Watches until every object is done with `generation`.
async fn all_done(client: &Client, workload: Workload, generation: i64) -> Result<(), String> {
    let mut missing: HashSet<String> = workload.names().into_iter().collect();
    let mut watch = client.watch(&format!("{}?watch=true", workload.folder())).await?;
    while let Some(event) = watch.next::<Object>().await {
        let object = event?.object;
        if object.is_done(workload, generation) {
            missing.remove(&object.metadata.name);
        }
        if missing.is_empty() {
            return Ok(());
        }
    }
    Err(format!("the watch ended with {} objects not done", missing.len()))
}

#[derive(Deserialize)]
struct Object {
    metadata: Meta,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Deserialize)]
struct Meta {
    #[serde(default)]
    name: String,
    #[serde(default)]
    generation: i64,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Spec {
    replicas: i64,
}

/// The counts that `kubectl rollout status` and `kubectl wait` look at.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    observed_generation: i64,
    replicas: i64,
    updated_replicas: i64,
    available_replicas: i64,
    desired_number_scheduled: i64,
    updated_number_scheduled: i64,
    number_available: i64,
    succeeded: i64,
    completion_time: Option<String>,
}

impl Object {
    fn is_done(&self, workload: Workload, generation: i64) -> bool {
        let (wanted, status) = (self.spec.replicas, &self.status);
        let seen = self.metadata.generation >= generation && status.observed_generation >= generation;
        match workload {
            Workload::Deployments(..) | Workload::StatefulSet(_) => {
                seen && [status.replicas, status.updated_replicas, status.available_replicas] == [wanted; 3]
            }
            Workload::DaemonSet => {
                let wanted = status.desired_number_scheduled;
                seen && wanted > 0 && [status.updated_number_scheduled, status.number_available] == [wanted; 2]
            }
            Workload::Jobs(_) => status.succeeded == 1 && status.completion_time.is_some(),
        }
    }
}
