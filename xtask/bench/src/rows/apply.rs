//! From the POST of a Deployment of one replica until a watch shows its pod ready, one after the other on a warm server.

use std::time::{Duration, Instant};

use serde::Deserialize;

use super::Settings;
use crate::client::Client;
use crate::deployment::{self, DEPLOYMENTS};
use crate::figures::{Figure, Unit, percentile};
use crate::process::{Cluster, Conditions, Nodes};

/// Deployments made, one after the other.
const DEPLOYMENTS_MADE: usize = 200;
/// The first ones, which are not counted.
const WARM_UP: usize = 20;

pub async fn measure(settings: &Settings, nodes: Nodes) -> Result<Vec<Figure>, String> {
    let cluster = Cluster::start(&settings.binary, nodes).await?;
    let client = cluster.connect().await?;
    let mut times = Vec::new();
    for number in 0..WARM_UP + DEPLOYMENTS_MADE {
        let name = format!("one-{number}");
        let took = until_ready(&client, &name, Duration::from_secs(20)).await?;
        client.delete(&format!("{DEPLOYMENTS}/{name}")).await?;
        times.push(took.as_secs_f64());
    }
    let times = &times[WARM_UP..];
    Ok(vec![
        Figure::new("p50", percentile(times, 50.0), Unit::Seconds),
        Figure::new("p99", percentile(times, 99.0), Unit::Seconds),
    ])
}

#[derive(Deserialize)]
struct Pod {
    #[serde(default)]
    status: Conditions,
}

/// Makes a Deployment of one replica and waits for its pod.
pub async fn until_ready(client: &Client, name: &str, within: Duration) -> Result<Duration, String> {
    let path = format!("/api/v1/namespaces/default/pods?watch=true&labelSelector=app%3D{name}");
    let mut watch = client.watch(&path).await?;
    let begun = Instant::now();
    let wait = async {
        client.create(DEPLOYMENTS, &deployment::manifest(name, 1)).await?;
        while let Some(event) = watch.next::<Pod>().await {
            if event?.object.status.is_ready() {
                return Ok(begun.elapsed());
            }
        }
        Err("the watch of the pod ended".to_owned())
    };
    tokio::time::timeout(within, wait).await.map_err(|_| format!("the pod of {name} is not ready within {within:?}"))?
}
