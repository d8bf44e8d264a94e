//! What nodes and pods use: the last samples that agents reported, how a report is worded, and what metrics APIs told last.
//!
//! Held in memory only and never stored: a sample is outdated before a restart is over. Kept by node, because that is
//! how it comes in: a report replaces all that was known of its node, so nothing of a pod that has gone stays behind.
//! Plays the part of metrics-server's `pkg/storage`; what it serves is `metrics.k8s.io`.

use std::sync::Arc;

use imbl::OrdMap;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::metric::{Query, Reading};

/// Seconds after which a sample says nothing any more: its node has stopped reporting.
const OUTDATED_SECONDS: i64 = 90;

/// An amount used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Used {
    /// Billionths of a core, as an average over the sample's window.
    pub cpu_nano: u64,
    /// Bytes of memory that cannot be given back at once (the working set).
    pub memory_bytes: u64,
}

/// What one container uses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerUsage {
    /// Name within the pod.
    pub name: String,
    /// How much.
    pub used: Used,
}

/// What the running containers of one pod use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodUsage {
    /// Uid of the pod.
    pub uid: String,
    /// Length of the pod's own window in milliseconds, where it has not been measured for as long as its node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window_ms: Option<u32>,
    /// In the order of their names.
    pub containers: Vec<ContainerUsage>,
}

/// What one node and its pods use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeUsage {
    /// End of the window, in milliseconds since the epoch.
    pub at_ms: i64,
    /// Length of the window that cpu is averaged over, in milliseconds.
    pub window_ms: u32,
    /// The whole node.
    pub used: Used,
    /// Its pods.
    pub pods: Vec<PodUsage>,
}

impl NodeUsage {
    /// End of the window.
    pub fn at(&self) -> Timestamp {
        Timestamp::from_millisecond(self.at_ms).unwrap_or(Timestamp::UNIX_EPOCH)
    }

    /// Length of the window.
    pub fn window(&self) -> SignedDuration {
        SignedDuration::from_millis(self.window_ms.into())
    }

    /// Length of the window that the cpu of a pod of this node is averaged over.
    pub fn window_of(&self, pod: &PodUsage) -> SignedDuration {
        SignedDuration::from_millis(pod.window_ms.unwrap_or(self.window_ms).into())
    }

    fn is_outdated(&self, now: Timestamp) -> bool {
        now.duration_since(self.at()).as_secs() > OUTDATED_SECONDS
    }
}

/// What an agent tells of one of its nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Name of the node.
    pub node: String,
    /// What is used there.
    pub usage: NodeUsage,
}

/// Path that reports are sent to, as a JSON list of [`Report`].
pub const REPORT_PATH: &str = "/kapstan/v1/usage";

/// The last report of every node, and the last answer to every question to a metrics API. A clone costs a few pointers.
#[derive(Clone, Debug, Default)]
pub struct Usage {
    nodes: OrdMap<Arc<str>, Arc<NodeUsage>>,
    readings: OrdMap<Query, Arc<Reading>>,
}

impl Usage {
    /// Takes a report in, unless a later one is there.
    pub fn take(&mut self, report: Report) {
        let Report { node, mut usage } = report;
        if self.nodes.get(node.as_str()).is_some_and(|known| usage.at_ms < known.at_ms) {
            return;
        }
        usage.pods.sort_by(|one, other| one.uid.cmp(&other.uid));
        self.nodes.insert(node.into(), Arc::new(usage));
    }

    /// Number of nodes that have reported.
    pub fn nodes(&self) -> usize {
        self.nodes.len()
    }

    /// Forgets nodes that `exists` does not know.
    pub fn retain(&mut self, exists: impl Fn(&str) -> bool) {
        let gone: Vec<Arc<str>> = self.nodes.keys().filter(|node| !exists(node)).cloned().collect();
        gone.iter().for_each(|node| drop(self.nodes.remove(node)));
    }

    /// What a node uses; `None` when nothing recent is known.
    pub fn of_node(&self, node: &str, now: Timestamp) -> Option<&NodeUsage> {
        self.nodes.get(node).map(|usage| &**usage).filter(|usage| !usage.is_outdated(now))
    }

    /// What the pod of this uid on that node uses, and the sample it is part of.
    pub fn of_pod(&self, node: &str, uid: &str, now: Timestamp) -> Option<(&NodeUsage, &PodUsage)> {
        let usage = self.of_node(node, now)?;
        let index = usage.pods.binary_search_by(|pod| pod.uid.as_str().cmp(uid)).ok()?;
        Some((usage, &usage.pods[index]))
    }

    /// Takes an answer in.
    pub fn read(&mut self, query: Query, reading: Reading) {
        self.readings.insert(query, Arc::new(reading));
    }

    /// Forgets answers that `asked` does not know.
    pub fn retain_readings(&mut self, asked: impl Fn(&Query) -> bool) {
        let gone: Vec<Query> = self.readings.keys().filter(|query| !asked(query)).cloned().collect();
        gone.iter().for_each(|query| drop(self.readings.remove(query)));
    }

    /// The last answer; `None` when there is no recent one.
    pub fn reading(&self, query: &Query, now: Timestamp) -> Option<&Reading> {
        let outdated = |reading: &&Reading| now.duration_since(reading.at).as_secs() > OUTDATED_SECONDS;
        self.readings.get(query).map(|reading| &**reading).filter(|reading| !outdated(reading))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(at_ms: i64, cpu_nano: u64, uids: &[&str]) -> Report {
        let used = Used { cpu_nano, memory_bytes: 1 };
        let pods = uids.iter().map(|uid| PodUsage {
            uid: (*uid).to_owned(),
            window_ms: None,
            containers: vec![ContainerUsage { name: "c".into(), used }],
        });
        Report { node: "n1".into(), usage: NodeUsage { at_ms, window_ms: 15_000, used, pods: pods.collect() } }
    }

    #[test]
    fn the_last_report_of_a_node_counts_until_it_is_outdated() {
        let at = |seconds: i64| Timestamp::from_second(seconds).unwrap();
        let mut usage = Usage::default();
        usage.take(report(10_000, 5, &["b", "a"]));
        usage.take(report(9_000, 7, &["c"]));
        assert_eq!(usage.of_node("n1", at(11)).map(|node| node.used.cpu_nano), Some(5));
        assert!(usage.of_pod("n1", "a", at(11)).is_some() && usage.of_pod("n1", "b", at(11)).is_some());
        assert!(usage.of_pod("n1", "c", at(11)).is_none() && usage.of_pod("n2", "a", at(11)).is_none());
        assert!(usage.of_pod("n1", "a", at(10 + OUTDATED_SECONDS + 1)).is_none());
        usage.take(report(20_000, 6, &["b"]));
        assert!(usage.of_pod("n1", "a", at(20)).is_none());
        usage.retain(|_| false);
        assert!(usage.of_node("n1", at(20)).is_none());
    }
}
