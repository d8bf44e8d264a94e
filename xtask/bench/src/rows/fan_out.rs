//! One object, many watchers: from the moment an update is sent until the first, the usual and the last one has it.
//!
//! The watchers are streams of ten HTTP/2 connections, as client-go would open them.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::sync::mpsc;

use super::Settings;
use crate::figures::{Figure, Unit, percentile};
use crate::process::{Cluster, Nodes};

/// Watchers.
pub const WATCHERS: usize = 1_000;
/// Updates.
pub const UPDATES: usize = 100;
const WATCHERS_PER_CONNECTION: usize = 100;
const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
/// Longest wait for one update.
const WITHIN: Duration = Duration::from_secs(20);

pub async fn measure(settings: &Settings) -> Result<Vec<Figure>, String> {
    let cluster = Cluster::start(&settings.binary, Nodes::None).await?;
    let client = cluster.connect().await?;
    let object = json!({ "metadata": { "name": "watched" }, "data": { "value": "0" } });
    client.create(CONFIG_MAPS, &object).await?;
    let (arrived, mut arrivals) = mpsc::unbounded_channel();
    let mut tasks = tokio::task::JoinSet::new();
    let access = cluster.access()?;
    for _ in 0..WATCHERS / WATCHERS_PER_CONNECTION {
        let connection = access.connect().await?;
        for _ in 0..WATCHERS_PER_CONNECTION {
            let path = format!("{CONFIG_MAPS}?watch=true&fieldSelector=metadata.name%3Dwatched");
            let mut watch = connection.watch(&path).await?;
            let arrived = arrived.clone();
            tasks.spawn(async move {
                while watch.line().await.is_some() {
                    if arrived.send(Instant::now()).is_err() {
                        return;
                    }
                }
            });
        }
    }
    let mut wave = async |since: Instant| {
        let mut times = Vec::with_capacity(WATCHERS);
        while times.len() < WATCHERS {
            let at = tokio::time::timeout(WITHIN, arrivals.recv())
                .await
                .map_err(|_| format!("only {} of {WATCHERS} watchers have the update after {WITHIN:?}", times.len()))?;
            times.push(at.ok_or("the watchers ended")?.saturating_duration_since(since).as_secs_f64());
        }
        Ok::<_, String>(times)
    };
    wave(Instant::now()).await?;
    let before = cluster.usage()?;
    let (mut first, mut middle, mut last) = (Vec::new(), Vec::new(), Vec::new());
    for number in 1..=UPDATES {
        let sent = Instant::now();
        let change = json!({ "data": { "value": number.to_string() } });
        client.patch(&format!("{CONFIG_MAPS}/watched"), &change).await?;
        let times = wave(sent).await?;
        first.push(percentile(&times, 0.0));
        middle.push(percentile(&times, 50.0));
        last.push(percentile(&times, 100.0));
    }
    let used = cluster.usage()?.cpu_seconds - before.cpu_seconds;
    Ok(vec![
        Figure::new("last watcher, p50", percentile(&last, 50.0), Unit::Seconds),
        Figure::new("last watcher, p99", percentile(&last, 99.0), Unit::Seconds),
        Figure::new("first watcher, p50", percentile(&first, 50.0), Unit::Seconds),
        Figure::new("middle watcher, p50", percentile(&middle, 50.0), Unit::Seconds),
        Figure::new("processor time a delivery", used / (WATCHERS * UPDATES) as f64, Unit::Seconds),
        Figure::new("peak memory of the server", cluster.usage()?.peak_bytes as f64, Unit::Bytes),
    ])
}
