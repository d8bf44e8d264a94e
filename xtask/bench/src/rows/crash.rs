//! `kill -9` of the server in the middle of a rolling update, started again at once; the nodes are another process.

use std::time::Instant;

use super::{Settings, roll};
use crate::checker::Checker;
use crate::deployment::{self, DEPLOYMENTS};
use crate::figures::{Figure, Unit, medians};
use crate::process::{Cluster, Nodes};

const REPLICAS: usize = 1_000;
/// Pods updated when the server is killed.
const KILLED_AT: usize = 400;

pub async fn measure(settings: &Settings) -> Result<Vec<Figure>, String> {
    let mut cluster = Cluster::start(&settings.binary, Nodes::Outside(100)).await?;
    let client = cluster.connect().await?;
    let checker = Checker::start(cluster.access()?);
    let path = format!("{DEPLOYMENTS}/web");
    let made = client.create(DEPLOYMENTS, &deployment::manifest("web", REPLICAS)).await?;
    deployment::complete(&client, "web", deployment::generation(&made), roll::WITHIN).await?;
    checker.wait(|seen| seen.available == REPLICAS, roll::WITHIN).await?;
    let (most, least) = deployment::bounds(REPLICAS);
    checker.set_bounds(most, least);
    let mut runs = Vec::new();
    for number in 0..settings.runs {
        let client = cluster.connect().await?;
        let begun = Instant::now();
        let generation = deployment::generation(&client.patch(&path, &deployment::set_image(2 + number)).await?);
        deployment::updated(&client, "web", generation, KILLED_AT, roll::WITHIN).await?;
        let back = cluster.kill_and_restart(&path).await?;
        let client = cluster.connect().await?;
        deployment::complete(&client, "web", generation, roll::WITHIN).await?;
        let whole = begun.elapsed();
        checker.wait(|seen| seen.pods == REPLICAS && seen.available == REPLICAS, roll::WITHIN).await?;
        checker.verdict()?;
        eprintln!("    API back {back:?}, roll {whole:?}");
        runs.push(vec![
            Figure::new("API back", back.as_secs_f64(), Unit::Seconds),
            Figure::new("whole rolling update", whole.as_secs_f64(), Unit::Seconds),
        ]);
    }
    Ok(medians(runs))
}
