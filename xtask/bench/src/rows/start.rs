//! From the start of the process, on an empty data folder, until a pod is ready; and the same on a folder that is there.

use std::time::{Duration, Instant};

use super::{Settings, apply};
use crate::figures::{Figure, Unit, medians};
use crate::process::{Cluster, Nodes};

pub async fn measure(settings: &Settings) -> Result<Vec<Figure>, String> {
    let mut runs = Vec::new();
    for _ in 0..settings.runs.max(5) {
        let begun = Instant::now();
        let mut cluster = Cluster::start(&settings.binary, Nodes::Inside(1)).await?;
        let serving = begun.elapsed();
        let client = cluster.connect().await?;
        apply::until_ready(&client, "first", Duration::from_secs(20)).await?;
        let ready = begun.elapsed();
        let again = cluster.kill_and_restart("/api/v1/namespaces/default/pods").await?;
        eprintln!("    serving {serving:?}, first pod ready {ready:?}, restarted {again:?}");
        runs.push(vec![
            Figure::new("first pod Ready", ready.as_secs_f64(), Unit::Seconds),
            Figure::new("API and node ready", serving.as_secs_f64(), Unit::Seconds),
            Figure::new("restart after kill -9 to API", again.as_secs_f64(), Unit::Seconds),
        ]);
    }
    Ok(medians(runs))
}
