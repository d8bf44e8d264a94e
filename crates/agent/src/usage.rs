//! What the node and its containers use: read every few seconds, averaged, and reported to the server.
//!
//! The server keeps the last report in memory and nothing is stored. Averaging is pure: [`Meter`] remembers a few
//! readings and says what was spent between the oldest and the latest. A cluster that takes no such reports (any other
//! Kubernetes) is asked less and less often. Plays the part of the kubelet's `/metrics/resource`, which metrics-server
//! scrapes.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{Duration, Instant};

use api::usage::{ContainerUsage, NodeUsage, PodUsage, REPORT_PATH, Report, Used};
use jiff::Timestamp;
use kube::Client;

use crate::report::{ReportError, send};
use crate::runtime::{ContainerSpent, Runtime};
use crate::shim::cgroup::Spent;

/// How often what was spent is read and reported.
const PERIOD: Duration = Duration::from_secs(5);
/// Readings kept: cpu is averaged over the time from the first to the last of them, a quarter of a minute.
const READINGS: usize = 4;
/// Nodes told of in one request, so that it stays below the server's bound.
const NODES_A_REQUEST: usize = 50;
/// Between two tries at a server that takes no reports.
const UNWANTED_PAUSE: Duration = Duration::from_secs(600);

/// Reads and reports until it is dropped.
pub async fn report_of(client: Client, node: String, runtime: Runtime) {
    let mut meter = Meter::default();
    let mut beat = tokio::time::interval(PERIOD);
    loop {
        beat.tick().await;
        meter.read(Instant::now(), machine(), runtime.spent().await);
        let Some(usage) = meter.usage(Timestamp::now()) else { continue };
        if !send_all(client.clone(), vec![Report { node: node.clone(), usage }]).await {
            tokio::time::sleep(UNWANTED_PAUSE).await;
        }
    }
}

/// Sends reports; false if the server does not take any.
pub async fn send_all(client: Client, reports: Vec<Report>) -> bool {
    for some in reports.chunks(NODES_A_REQUEST) {
        let body = serde_json::to_vec(some).unwrap_or_default();
        let request = http::Request::post(REPORT_PATH).header(http::header::CONTENT_TYPE, "application/json");
        let Ok(request) = request.body(body) else { return true };
        match send(&client, request).await {
            Ok(()) => {}
            Err(ReportError::Again(error)) => tracing::debug!("what is used could not be reported: {error}"),
            Err(ReportError::Gone | ReportError::Refused(_)) => return false,
        }
    }
    true
}

/// What a container or the machine had spent, and when that was read.
type Reading = (Instant, Spent);

/// Remembers readings.
#[derive(Default)]
struct Meter {
    machine: VecDeque<Reading>,
    /// By container id.
    containers: HashMap<String, Metered>,
}

struct Metered {
    pod_uid: String,
    name: String,
    readings: VecDeque<Reading>,
}

impl Meter {
    /// Takes a reading; containers that are not in it have ended.
    fn read(&mut self, at: Instant, machine: Option<Spent>, containers: Vec<ContainerSpent>) {
        if let Some(spent) = machine {
            remember(&mut self.machine, (at, spent));
        }
        let mut before = std::mem::take(&mut self.containers);
        for ContainerSpent { pod_uid, name, id, spent } in containers {
            let mut readings = before.remove(&id).map(|known| known.readings).unwrap_or_default();
            remember(&mut readings, (at, spent));
            self.containers.insert(id, Metered { pod_uid, name, readings });
        }
    }

    /// What is used, once there are two readings to compare.
    fn usage(&self, now: Timestamp) -> Option<NodeUsage> {
        let (used, window) = average(&self.machine)?;
        let milliseconds = |window: Duration| u32::try_from(window.as_millis()).unwrap_or(u32::MAX);
        let mut pods: BTreeMap<&str, (Duration, Vec<ContainerUsage>)> = BTreeMap::new();
        for container in self.containers.values() {
            if let Some((used, own)) = average(&container.readings) {
                let (longest, containers) = pods.entry(&container.pod_uid).or_default();
                *longest = own.max(*longest);
                containers.push(ContainerUsage { name: container.name.clone(), used });
            }
        }
        let pods = pods.into_iter().map(|(uid, (own, mut containers))| {
            containers.sort_by(|one, other| one.name.cmp(&other.name));
            PodUsage { uid: uid.to_owned(), window_ms: (own < window).then(|| milliseconds(own)), containers }
        });
        let window_ms = milliseconds(window);
        Some(NodeUsage { at_ms: now.as_millisecond(), window_ms, used, pods: pods.collect() })
    }
}

fn remember(readings: &mut VecDeque<Reading>, reading: Reading) {
    if readings.len() == READINGS {
        readings.pop_front();
    }
    readings.push_back(reading);
}

fn average(readings: &VecDeque<Reading>) -> Option<(Used, Duration)> {
    let ((since, first), (until, last)) = (readings.front()?, readings.back()?);
    let window = until.duration_since(*since);
    if window.is_zero() {
        return None;
    }
    let spent = last.cpu_nanos.saturating_sub(first.cpu_nanos) as f64;
    Some((Used { cpu_nano: (spent / window.as_secs_f64()) as u64, memory_bytes: last.memory_bytes }, window))
}

/// What this machine has spent, from `/proc`.
fn machine() -> Option<Spent> {
    let stat = std::fs::read_to_string("/proc/stat").ok()?;
    let memory = std::fs::read_to_string("/proc/meminfo").ok()?;
    machine_from(&stat, &memory)
}

/// Ticks of `/proc/stat` are hundredths of a second on every architecture of Linux that is left.
const TICK_NANOS: u64 = 10_000_000;

fn machine_from(stat: &str, memory: &str) -> Option<Spent> {
    let ticks: Vec<u64> =
        stat.lines().next()?.strip_prefix("cpu ")?.split_whitespace().map_while(|it| it.parse().ok()).collect();
    // user, nice, system, idle, iowait, irq, softirq; what guests get is part of user.
    let busy = ticks.iter().take(3).sum::<u64>() + ticks.iter().skip(5).take(2).sum::<u64>();
    let bytes = |name: &str| -> Option<u64> {
        let line = memory.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
    };
    let held = bytes("MemTotal")?.saturating_sub(bytes("MemFree")?);
    let memory_bytes = held.saturating_sub(bytes("Inactive(file)").unwrap_or(0));
    Some(Spent { cpu_nanos: busy * TICK_NANOS, memory_bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spent(cpu_nanos: u64, memory_bytes: u64) -> Spent {
        Spent { cpu_nanos, memory_bytes }
    }

    fn container(id: &str, cpu_nanos: u64) -> ContainerSpent {
        ContainerSpent { pod_uid: "p".into(), name: "c".into(), id: id.into(), spent: spent(cpu_nanos, 7) }
    }

    #[test]
    fn averages_between_the_first_and_the_last_reading_kept() {
        let start = Instant::now();
        let mut meter = Meter::default();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let show = |meter: &Meter| {
            meter.usage(Timestamp::UNIX_EPOCH).map(|usage| {
                let pods =
                    usage.pods.iter().map(|pod| (pod.window_ms, pod.containers[0].used.cpu_nano)).collect::<Vec<_>>();
                (usage.window_ms, usage.used.cpu_nano, pods)
            })
        };
        meter.read(at(0), Some(spent(0, 1)), vec![container("a", 0)]);
        assert_eq!(show(&meter), None);
        meter.read(at(5), Some(spent(10_000, 1)), vec![container("a", 500)]);
        assert_eq!(show(&meter), Some((5_000, 2_000, vec![(None, 100)])));
        // Another instance of the container counts anew.
        meter.read(at(10), Some(spent(20_000, 1)), vec![container("b", 9_000)]);
        assert_eq!(show(&meter), Some((10_000, 2_000, vec![])));
        meter.read(at(15), Some(spent(20_000, 1)), vec![container("b", 9_000)]);
        assert_eq!(show(&meter), Some((15_000, 1_333, vec![(Some(5_000), 0)])));
        for second in [20, 25] {
            meter.read(at(second), Some(spent(20_000, 1)), vec![container("b", 9_000)]);
        }
        assert_eq!(show(&meter), Some((15_000, 0, vec![(None, 0)])));
    }

    #[test]
    fn the_machine() {
        let stat = "cpu  10 1 4 1000 50 2 3 0 5 0\ncpu0 1 1 1 1\n";
        let memory = "MemTotal:  1000 kB\nMemFree:  300 kB\nInactive(file):  100 kB\n";
        assert_eq!(machine_from(stat, memory), Some(spent(20 * TICK_NANOS, 600 * 1024)));
    }
}
