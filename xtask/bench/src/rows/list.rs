//! A list of many pods, from the request to the last byte.

use std::time::Instant;

use super::{Settings, roll};
use crate::deployment::{self, DEPLOYMENTS};
use crate::figures::{Figure, Unit, percentile};
use crate::process::{Cluster, Nodes};

/// Pods in the list.
pub const PODS: usize = 10_000;
const LISTS: usize = 10;

pub async fn measure(settings: &Settings) -> Result<Vec<Figure>, String> {
    let mut cluster = Cluster::start(&settings.binary, Nodes::Inside(100)).await?;
    let client = cluster.connect().await?;
    let made = client.create(DEPLOYMENTS, &deployment::manifest("web", PODS)).await?;
    deployment::complete(&client, "web", deployment::generation(&made), roll::WITHIN).await?;
    let created = cluster.usage()?;
    let (mut newest, mut cached, mut bytes) = (Vec::new(), Vec::new(), 0);
    for _ in 0..LISTS {
        for (query, times) in [("", &mut newest), ("?resourceVersion=0", &mut cached)] {
            let begun = Instant::now();
            bytes = client.get_bytes(&format!("/api/v1/pods{query}")).await?.len();
            times.push(begun.elapsed().as_secs_f64());
        }
    }
    let listed = cluster.usage()?;
    let back = cluster.kill_and_restart("/apis/apps/v1/namespaces/default/deployments/web").await?;
    Ok(vec![
        Figure::new("time, newest", percentile(&newest, 50.0), Unit::Seconds),
        Figure::new("time, resourceVersion=0", percentile(&cached, 50.0), Unit::Seconds),
        Figure::new(
            "processor time a list",
            (listed.cpu_seconds - created.cpu_seconds) / (2 * LISTS) as f64,
            Unit::Seconds,
        ),
        Figure::new("bytes", bytes as f64, Unit::Bytes),
        Figure::new("memory with the pods", created.resident_bytes as f64, Unit::Bytes),
        Figure::new("peak memory more by listing", (listed.peak_bytes - created.peak_bytes) as f64, Unit::Bytes),
        Figure::new("kill -9 to API with the pods", back.as_secs_f64(), Unit::Seconds),
    ])
}
