//! The Deployment that is rolled, and when it is done: what `kubectl rollout status` waits for.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::client::Client;

/// Deployments of the namespace used.
pub const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

/// A Deployment of one small container, with Kubernetes' default bounds of 25 %.
pub fn manifest(name: &str, replicas: usize) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": { "name": name, "labels": { "app": name } },
        "spec": {
            "replicas": replicas,
            "selector": { "matchLabels": { "app": name } },
            "strategy": { "type": "RollingUpdate", "rollingUpdate": { "maxSurge": "25%", "maxUnavailable": "25%" } },
            "template": {
                "metadata": { "labels": { "app": name } },
                "spec": { "containers": [{
                    "name": "web", "image": "web:v1", "ports": [{ "containerPort": 80 }],
                    "resources": { "requests": { "cpu": "10m", "memory": "16Mi" } },
                }]},
            },
        },
    })
}

/// The patch that `kubectl set image` sends.
pub fn set_image(version: usize) -> Value {
    json!({ "spec": { "template": { "spec": { "containers": [{ "name": "web", "image": format!("web:v{version}") }] } } } })
}

/// (most pods, fewest available) of a rolling update with 25 %: surge is rounded up, unavailable down.
pub fn bounds(replicas: usize) -> (usize, usize) {
    (replicas + replicas.div_ceil(4), replicas - replicas / 4)
}

#[derive(Deserialize)]
struct Deployment {
    metadata: Meta,
    spec: Spec,
    #[serde(default)]
    status: Status,
}

#[derive(Deserialize)]
struct Meta {
    #[serde(default)]
    generation: i64,
}

#[derive(Deserialize)]
struct Spec {
    replicas: i64,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    observed_generation: i64,
    updated_replicas: i64,
    replicas: i64,
    available_replicas: i64,
}

impl Deployment {
    fn updated(&self, generation: i64) -> i64 {
        if self.status.observed_generation < generation { 0 } else { self.status.updated_replicas }
    }

    fn is_complete(&self, generation: i64) -> bool {
        let (wanted, status) = (self.spec.replicas, &self.status);
        self.metadata.generation >= generation
            && status.observed_generation >= generation
            && [status.updated_replicas, status.replicas, status.available_replicas]
                .iter()
                .all(|count| *count == wanted)
    }
}

/// Waits until the Deployment's status says that the rollout of `generation` is complete.
pub async fn complete(client: &Client, name: &str, generation: i64, within: Duration) -> Result<(), String> {
    watch(client, name, within, |deployment| deployment.is_complete(generation)).await
}

/// Waits until `pods` pods of `generation` are there.
pub async fn updated(
    client: &Client,
    name: &str,
    generation: i64,
    pods: usize,
    within: Duration,
) -> Result<(), String> {
    watch(client, name, within, |deployment| deployment.updated(generation) >= pods as i64).await
}

async fn watch(
    client: &Client,
    name: &str,
    within: Duration,
    is_wanted: impl Fn(&Deployment) -> bool,
) -> Result<(), String> {
    let path = format!("{DEPLOYMENTS}?watch=true&fieldSelector=metadata.name%3D{name}");
    let wait = async {
        let mut watch = client.watch(&path).await?;
        while let Some(event) = watch.next::<Deployment>().await {
            if is_wanted(&event?.object) {
                return Ok(());
            }
        }
        Err(format!("the watch of Deployment {name} ended"))
    };
    tokio::time::timeout(within, wait).await.map_err(|_| format!("Deployment {name} is not there within {within:?}"))?
}

/// The generation of an object that was answered.
pub fn generation(object: &Value) -> i64 {
    object.pointer("/metadata/generation").and_then(Value::as_i64).unwrap_or(0)
}
