//! What a cluster with ten nodes and nothing to do costs.

use std::time::Duration;

use super::Settings;
use crate::figures::{Figure, Unit};
use crate::process::{Cluster, Nodes};

const SETTLE: Duration = Duration::from_secs(3);
const WATCHED: Duration = Duration::from_secs(40);

pub async fn measure(settings: &Settings) -> Result<Vec<Figure>, String> {
    let cluster = Cluster::start(&settings.binary, Nodes::Inside(10)).await?;
    tokio::time::sleep(SETTLE).await;
    let before = cluster.usage()?;
    tokio::time::sleep(WATCHED).await;
    let after = cluster.usage()?;
    let share = (after.cpu_seconds - before.cpu_seconds) / WATCHED.as_secs_f64();
    Ok(vec![
        Figure::new("memory", after.resident_bytes as f64, Unit::Bytes),
        Figure::new("processor, share of a core", share, Unit::Share),
    ])
}
