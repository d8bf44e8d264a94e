//! Rolling updates of one Deployment, from the patch until its status says what `kubectl rollout status` waits for.
//!
//! The processor time and the counters go on until the last old pod is gone. A run that breaks a bound has no time.

use std::time::{Duration, Instant};

use super::Settings;
use crate::checker::Checker;
use crate::client::Client;
use crate::deployment::{self, DEPLOYMENTS};
use crate::figures::{Figure, Unit, medians};
use crate::process::{Cluster, Counters, Nodes, busy_seconds};

/// Longest rollout.
pub const WITHIN: Duration = Duration::from_secs(180);
/// Wait for the last writes before counters are read.
const SETTLE: Duration = Duration::from_millis(300);

pub async fn measure(settings: &Settings, replicas: usize, nodes: Nodes) -> Result<Vec<Figure>, String> {
    let cluster = Cluster::start(&settings.binary, nodes).await?;
    let client = cluster.connect().await?;
    let checker = Checker::start(cluster.access()?);
    let mut create = run(&cluster, &client, &checker, replicas, Step::Create).await?;
    let (most, least) = deployment::bounds(replicas);
    checker.set_bounds(most, least);
    let mut rolls = vec![run(&cluster, &client, &checker, replicas, Step::Roll(2)).await?];
    let peak = cluster.usage()?.peak_bytes;
    for number in 1..settings.runs {
        rolls.push(run(&cluster, &client, &checker, replicas, Step::Roll(2 + number)).await?);
    }
    let seen = checker.verdict()?;
    let mut figures = medians(rolls);
    figures.push(Figure::new("peak memory of the server", peak as f64, Unit::Bytes));
    // What is kept of earlier rolls: events, up to their bound, and history.
    let peak = cluster.usage()?.peak_bytes;
    figures.push(Figure::new("peak memory after all runs", peak as f64, Unit::Bytes));
    figures.push(Figure::new("most pods", seen.most_active as f64, Unit::Count));
    figures.push(Figure::new("fewest available", seen.least_available as f64, Unit::Count));
    create.truncate(2);
    figures.extend(create.into_iter().map(|figure| figure.renamed(|name| format!("create: {name}"))));
    Ok(figures)
}

enum Step {
    Create,
    Roll(usize),
}

/// Makes or rolls the Deployment, and says what it took.
async fn run(
    cluster: &Cluster,
    client: &Client,
    checker: &Checker,
    replicas: usize,
    step: Step,
) -> Result<Vec<Figure>, String> {
    let (before, agent_before, counters) = (cluster.usage()?, cluster.agent_usage()?, Counters::read(client).await?);
    let (busy, begun) = (busy_seconds(), Instant::now());
    let answer = match step {
        Step::Create => client.create(DEPLOYMENTS, &deployment::manifest("web", replicas)).await?,
        Step::Roll(version) => client.patch(&format!("{DEPLOYMENTS}/web"), &deployment::set_image(version)).await?,
    };
    deployment::complete(client, "web", deployment::generation(&answer), WITHIN).await?;
    let wall = begun.elapsed().as_secs_f64();
    checker.wait(|seen| seen.pods == replicas && seen.available == replicas, WITHIN).await?;
    let gone = begun.elapsed().as_secs_f64();
    tokio::time::sleep(SETTLE).await;
    let (after, agent_after, now) = (cluster.usage()?, cluster.agent_usage()?, Counters::read(client).await?);
    checker.verdict()?;
    let (server, agent) = (after.cpu_seconds - before.cpu_seconds, agent_after.cpu_seconds - agent_before.cpu_seconds);
    let own = processor_seconds_of_this_process();
    let others = busy_seconds() - busy - server - agent;
    eprintln!(
        "    {wall:.2} s, old pods gone {gone:.2} s, server {server:.2} CPU-s, nodes {agent:.2} CPU-s, others {others:.2} CPU-s (this client so far {own:.2})"
    );
    Ok(vec![
        Figure::new("time", wall, Unit::Seconds),
        Figure::new("processor time of the server", server, Unit::Seconds),
        Figure::new("until the last old pod is gone", gone, Unit::Seconds),
        Figure::new("processor time of the nodes' process", agent, Unit::Seconds),
        Figure::new("processor time of everything else", others, Unit::Seconds),
        Figure::new("API requests", now.requests - counters.requests, Unit::Count),
        Figure::new("turns committed", now.turns - counters.turns, Unit::Count),
        Figure::new("objects written", now.records - counters.records, Unit::Count),
        Figure::new("disk syncs", now.syncs - counters.syncs, Unit::Count),
        Figure::new("bytes written", (after.disk_bytes - before.disk_bytes) as f64, Unit::Bytes),
    ])
}

fn processor_seconds_of_this_process() -> f64 {
    crate::process::Usage::of(std::process::id()).map_or(0.0, |usage| usage.cpu_seconds)
}
