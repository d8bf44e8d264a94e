//! The taints that follow from a node's conditions.
//!
//! Mirrors nodeConditionToTaintKeyStatusMap, doNoScheduleTaintingPass and processTaintBaseEviction of upstream's
//! `pkg/controller/nodelifecycle/node_lifecycle_controller.go`. Taints of other keys are never touched, and no NoExecute
//! taint is put here: it is only taken off, or exchanged when a node turns from silent to unwell.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{condition, is_ready};

/// Taint of a node that says to be unwell.
const NOT_READY: &str = "node.kubernetes.io/not-ready";
/// Taint of a node of which nothing is heard.
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
/// Taint of a cordoned node.
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
/// Which condition in which state calls for which taint.
const BY_CONDITION: [(&str, &str, &str); 6] = [
    ("Ready", "False", NOT_READY),
    ("Ready", "Unknown", UNREACHABLE),
    ("MemoryPressure", "True", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "True", "node.kubernetes.io/disk-pressure"),
    ("NetworkUnavailable", "True", "node.kubernetes.io/network-unavailable"),
    ("PIDPressure", "True", "node.kubernetes.io/pid-pressure"),
];

/// The node with the taints its conditions call for; `None` if it has them.
pub fn as_conditions_say(node: &Node, now: Timestamp) -> Option<Node> {
    let old = of(node);
    let wanted = wanted(node);
    let evicting = if is_ready(node) { None } else { evicting_key(node) };
    let mut taints: Vec<Taint> = old
        .iter()
        .filter(|taint| !is_ours(taint, "NoSchedule") || wanted.contains(&taint.key.as_str()))
        .filter(|taint| !is_evicting(taint) || evicting.is_some())
        .cloned()
        .collect();
    for key in &wanted {
        if !taints.iter().any(|taint| taint.key == *key && taint.effect == "NoSchedule") {
            taints.push(new(key, "NoSchedule", now));
        }
    }
    // Exchanged at once, and the clock of those who are to be evicted runs on.
    for taint in taints.iter_mut().filter(|taint| is_evicting(taint)) {
        taint.key = evicting.unwrap_or(UNREACHABLE).to_owned();
    }
    (taints != old).then(|| with(node, taints))
}

/// The node with the taint that evicts, as it is lost or unwell.
pub fn evict(node: &Node, now: Timestamp) -> Option<Node> {
    let key = evicting_key(node)?;
    let mut taints = of(node).to_vec();
    taints.push(new(key, "NoExecute", now));
    Some(with(node, taints))
}

/// The node without the taint that evicts; `None` if it has none.
pub fn spare(node: &Node) -> Option<Node> {
    let taints: Vec<Taint> = of(node).iter().filter(|taint| !is_evicting(taint)).cloned().collect();
    (taints.len() != of(node).len()).then(|| with(node, taints))
}

/// When the node got the taint that evicts; `None` if it has none.
pub fn evicting_since(node: &Node) -> Option<Timestamp> {
    let taint = of(node).iter().find(|taint| is_evicting(taint))?;
    Some(taint.time_added.as_ref().map_or(Timestamp::MIN, |time| time.0))
}

fn of(node: &Node) -> &[Taint] {
    node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default()
}

fn with(node: &Node, taints: Vec<Taint>) -> Node {
    let mut node = node.clone();
    node.spec.get_or_insert_default().taints = Some(taints).filter(|taints| !taints.is_empty());
    node
}

fn new(key: &str, effect: &str, now: Timestamp) -> Taint {
    Taint { key: key.to_owned(), effect: effect.to_owned(), time_added: Some(Time(now)), value: None }
}

fn wanted(node: &Node) -> Vec<&'static str> {
    let is = |type_: &str, status: &str| condition(node, type_).is_some_and(|condition| condition.status == status);
    let by_condition = BY_CONDITION.iter().filter(|(type_, status, _)| is(type_, status)).map(|(_, _, key)| *key);
    let cordoned = node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true);
    by_condition.chain(cordoned.then_some(UNSCHEDULABLE)).collect()
}

fn evicting_key(node: &Node) -> Option<&'static str> {
    match condition(node, "Ready")?.status.as_str() {
        "False" => Some(NOT_READY),
        "Unknown" => Some(UNREACHABLE),
        _ => None,
    }
}

fn is_ours(taint: &Taint, effect: &str) -> bool {
    let known = BY_CONDITION.iter().any(|(_, _, key)| taint.key == *key) || taint.key == UNSCHEDULABLE;
    known && taint.effect == effect
}

fn is_evicting(taint: &Taint) -> bool {
    (taint.key == NOT_READY || taint.key == UNREACHABLE) && taint.effect == "NoExecute"
}
