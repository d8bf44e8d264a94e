//! Evicts pods from a node whose NoExecute taints they do not put up with, or no longer.
//!
//! Mirrors processPodOnNode, getMinTolerationTime and addConditionAndDeletePod of upstream's
//! `pkg/controller/tainteviction/taint_eviction.go`. The clock of a pod runs from when the taint was added (which the
//! door notes) or from when the pod came, whichever is later: a restart does not wind it up again. Never looks at
//! NoSchedule taints.

use api::node_fit::tolerates;
use api::{Context, EventNote, EventType, Key, Kind, Object, Plan, Pod, Propagation, Snapshot, Typed, Write};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Node, Taint, Toleration};

use crate::pods;

/// Decides about the pods of one node.
pub fn reconcile(key: &Key, world: &Snapshot, context: &Context) -> Plan {
    let Some(node) = world.get::<Node>("", &key.name) else { return Plan::nothing() };
    let taints: Vec<&Taint> = evicting(node).collect();
    let mut plan = Plan::nothing();
    if taints.is_empty() {
        return plan;
    }
    for pod in world.pods_on(&key.name).filter(|pod| !pods::is_deleted(pod)) {
        match ends_at(pod, &taints) {
            Some(time) if time <= context.now => plan.writes.extend(evict(pod, context.now)),
            Some(time) => plan.wake_by(time),
            None => {}
        }
    }
    plan
}

/// True if the node has a taint that evicts.
pub fn evicts(node: &Node) -> bool {
    evicting(node).next().is_some()
}

/// All of a node that this decision looks at.
pub fn digest(object: Option<&Object>) -> Option<impl PartialEq + '_> {
    Some(evicting(object?.get::<Node>()?).collect::<Vec<_>>())
}

fn evicting(node: &Node) -> impl Iterator<Item = &Taint> {
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    taints.iter().filter(|taint| taint.effect == "NoExecute")
}

/// When the pod has to go; `None` if it may stay.
fn ends_at(pod: &Pod, taints: &[&Taint]) -> Option<Timestamp> {
    let tolerations = pod.spec.as_deref().and_then(|spec| spec.tolerations.as_deref()).unwrap_or_default();
    let came = came_at(pod);
    taints.iter().filter_map(|taint| end_by(taint, tolerations, came)).min()
}

fn end_by(taint: &Taint, tolerations: &[Toleration], came: Timestamp) -> Option<Timestamp> {
    let found = tolerations.iter().find(|toleration| tolerates(std::slice::from_ref(*toleration), taint));
    let Some(toleration) = found else { return Some(Timestamp::MIN) };
    let seconds = toleration.toleration_seconds?;
    if seconds <= 0 {
        return Some(Timestamp::MIN);
    }
    let added = taint.time_added.as_ref().map_or(Timestamp::MIN, |time| time.0);
    added.max(came).checked_add(SignedDuration::from_secs(seconds)).ok()
}

fn came_at(pod: &Pod) -> Timestamp {
    let bound = pods::condition(pod, "PodScheduled").and_then(|condition| condition.last_transition_time.as_ref());
    bound.or(pod.metadata.creation_timestamp.as_ref()).map_or(Timestamp::MIN, |time| time.0)
}

fn evict(pod: &Pod, now: Timestamp) -> [Write; 3] {
    let key = Key::new(Kind::Pod, pod.metadata.namespace.clone().unwrap_or_default(), pods::name(pod));
    let uid = pod.metadata.uid.clone().unwrap_or_default();
    let told = EventNote {
        message: format!("Marking for deletion Pod {}", key.path()),
        regarding: key.clone(),
        uid: uid.clone(),
        kind: EventType::Normal,
        reason: "TaintManagerEviction",
        source: "taint-eviction-controller",
    };
    let reason = "Taint manager: deleting due to NoExecute taint";
    let disrupted = pods::disrupted(pod, "DeletionByTaintManager", reason, now);
    [
        Write::Event(told),
        Write::Status(disrupted.into_body()),
        Write::Delete { key, uid, propagation: Propagation::Background },
    ]
}
