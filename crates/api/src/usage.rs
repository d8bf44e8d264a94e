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
use crate::pod_facts::{Facts, number_of};

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

impl Used {
    /// Thousandths of a core, rounded up.
    pub fn cpu_milli(&self) -> u64 {
        self.cpu_nano.div_ceil(1_000_000)
    }
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

/// The last report of a node.
#[derive(Debug)]
struct Reported {
    node: String,
    usage: NodeUsage,
    /// [`number_of`] the uids of its pods, which are in this order: who asks for thousands of them looks at little else.
    uids: Vec<u64>,
    /// Of the same pods.
    wholes: Vec<Whole>,
}

impl Reported {
    fn new(node: String, mut usage: NodeUsage) -> Reported {
        usage.pods.sort_by_cached_key(|pod| number_of(&pod.uid));
        let uids = usage.pods.iter().map(|pod| number_of(&pod.uid)).collect();
        let wholes = usage.pods.iter().map(|pod| Whole::of(pod, &usage)).collect();
        Reported { node, usage, uids, wholes }
    }

    fn position(&self, uid: u64) -> Option<usize> {
        self.uids.binary_search(&uid).ok()
    }
}

/// What all containers of a pod use together.
#[derive(Debug)]
struct Whole {
    /// Begin of the window that its cpu is averaged over.
    since: Timestamp,
    /// Each container's rounded up, as upstream adds them.
    cpu_milli: u64,
    memory_bytes: u64,
    containers: usize,
}

impl Whole {
    fn of(pod: &PodUsage, node: &NodeUsage) -> Whole {
        let since = node.at().saturating_sub(node.window_of(pod)).unwrap_or(Timestamp::MIN);
        let all = pod.containers.iter().map(|container| container.used);
        let cpu_milli = all.clone().map(|used| used.cpu_milli()).fold(0, u64::saturating_add);
        let memory_bytes = all.map(|used| used.memory_bytes).fold(0, u64::saturating_add);
        Whole { since, cpu_milli, memory_bytes, containers: pod.containers.len() }
    }
}

/// A pod's part of the last report of its node.
#[derive(Clone, Copy, Debug)]
pub struct Measured<'a> {
    node: &'a Reported,
    position: usize,
}

impl<'a> Measured<'a> {
    /// Begin of the window that its cpu is averaged over.
    pub fn since(&self) -> Timestamp {
        self.node.wholes[self.position].since
    }

    /// All of it.
    pub fn pod(&self) -> &'a PodUsage {
        &self.node.usage.pods[self.position]
    }

    /// Thousandths of a core that its containers use together; `None` if none of them runs.
    pub fn cpu_milli(&self) -> Option<u64> {
        self.whole().map(|whole| whole.cpu_milli)
    }

    /// Bytes of memory that its containers use together; `None` if none of them runs.
    pub fn memory_bytes(&self) -> Option<u64> {
        self.whole().map(|whole| whole.memory_bytes)
    }

    fn whole(&self) -> Option<&'a Whole> {
        Some(&self.node.wholes[self.position]).filter(|whole| whole.containers > 0)
    }
}

/// The last report of every node, and the last answer to every question to a metrics API. A clone costs a few pointers.
#[derive(Clone, Debug, Default)]
pub struct Usage {
    /// By [`number_of`] the node's name.
    nodes: OrdMap<u64, Arc<Reported>>,
    readings: OrdMap<Query, Arc<Reading>>,
}

impl Usage {
    /// Takes a report in, unless a later one is there.
    pub fn take(&mut self, report: Report) {
        let Report { node, usage } = report;
        let number = number_of(&node);
        if self.nodes.get(&number).is_some_and(|known| usage.at_ms < known.usage.at_ms) {
            return;
        }
        self.nodes.insert(number, Arc::new(Reported::new(node, usage)));
    }

    /// Number of nodes that have reported.
    pub fn nodes(&self) -> usize {
        self.nodes.len()
    }

    /// Forgets nodes that `exists` does not know.
    pub fn retain(&mut self, exists: impl Fn(&str) -> bool) {
        let gone: Vec<u64> =
            self.nodes.iter().filter(|(_, known)| !exists(&known.node)).map(|(number, _)| *number).collect();
        gone.iter().for_each(|number| drop(self.nodes.remove(number)));
    }

    /// What a node uses; `None` when nothing recent is known.
    pub fn of_node(&self, node: &str, now: Timestamp) -> Option<&NodeUsage> {
        self.reported(number_of(node), now).map(|reported| &reported.usage)
    }

    /// What the pod of this uid on that node uses, and the sample it is part of.
    pub fn of_pod(&self, node: &str, uid: &str, now: Timestamp) -> Option<(&NodeUsage, &PodUsage)> {
        let reported = self.reported(number_of(node), now)?;
        let position = reported.position(number_of(uid))?;
        Some((&reported.usage, &reported.usage.pods[position]))
    }

    /// What the pod of these facts uses; `None` when nothing recent is known.
    pub fn of_facts(&self, pod: &Facts, now: Timestamp) -> Option<Measured<'_>> {
        let node = self.reported(pod.node(), now)?;
        Some(Measured { node, position: node.position(pod.uid())? })
    }

    fn reported(&self, node: u64, now: Timestamp) -> Option<&Reported> {
        self.nodes.get(&node).map(|reported| &**reported).filter(|reported| !reported.usage.is_outdated(now))
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
    use serde_json::json;

    use super::*;
    use crate::Body;

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

    #[test]
    fn a_pod_is_found_by_its_facts_with_what_its_containers_use_together() {
        let container = |cpu_nano: u64, memory_bytes: u64| ContainerUsage {
            name: "c".into(),
            used: Used { cpu_nano, memory_bytes },
        };
        let mut told = report(20_000, 0, &["idle", "two", "late"]);
        told.usage.pods[0].containers.clear();
        told.usage.pods[1].containers = vec![container(1, 7), container(2_000_001, 8)];
        told.usage.pods[2].window_ms = Some(5_000);
        let mut usage = Usage::default();
        usage.take(told);
        let found = |node: &str, uid: &str| {
            let pod =
                json!({ "metadata": { "name": "p", "uid": uid }, "spec": { "nodeName": node, "containers": [] } });
            let facts = Facts::of_body(&Body::Pod(Box::new(serde_json::from_value(pod).unwrap())));
            let measured = usage.of_facts(&facts, Timestamp::from_second(21).unwrap())?;
            assert_eq!(measured.pod().uid, uid);
            Some((measured.since().as_second(), measured.cpu_milli(), measured.memory_bytes()))
        };
        // Each container's cpu is rounded up before it is added.
        assert_eq!(found("n1", "two"), Some((5, Some(4), Some(15))));
        assert_eq!(found("n1", "late"), Some((15, Some(0), Some(1))));
        assert_eq!(found("n1", "idle"), Some((5, None, None)));
        assert_eq!((found("n1", "none"), found("n2", "two"), found("", "two")), (None, None, None));
    }
}
