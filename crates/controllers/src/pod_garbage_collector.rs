//! Takes out pods that nobody is left to run or to stop: their node is gone, or somebody said that it is out of service. One
//! that a finalizer holds back is told to have failed, and so is one that was deleted before a node had it: whoever holds
//! it waits for its end. Of pods that have ended so many are kept, and no more.
//!
//! Mirrors gcOrphaned, gcTerminating, gcUnscheduledTerminating and gcTerminated of upstream's
//! `pkg/controller/podgc/gc_controller.go`. Otherwise never touches a pod whose node is there, however long it may have
//! been silent. Upstream walks all pods every 20 seconds; here a pod or a node that changes wakes what it concerns, and
//! ended pods are counted by the snapshot.

use api::{Change, Context, Key, Kind, Object, Plan, Pod, Snapshot, Typed, Write};
use jiff::SignedDuration;
use k8s_openapi::api::core::v1::Node;

use crate::{node_lifecycle, pods};

/// Seconds a node is missed before what is bound to it counts as lost (upstream: quarantineTime): it may yet join, or be
/// registered anew while its pods run on.
const MISSED_SECONDS: i64 = 40;
/// Ended pods that are kept (upstream: `--terminated-pod-gc-threshold`).
const ENDED_KEPT: usize = 12_500;
/// Ended pods that one decision takes out. Each of them that goes wakes the next.
const ENDED_AT_ONCE: usize = 500;
/// Who says so: the machine is off and nothing of it runs.
const OUT_OF_SERVICE: &str = "node.kubernetes.io/out-of-service";

/// Key of the decision about all pods that have ended.
pub fn all_ended() -> Key {
    Key::new(Kind::Pod, "", "")
}

/// Decides about one pod, or about all that have ended where the key has no name.
pub fn reconcile(key: &Key, world: &Snapshot, context: &Context) -> Plan {
    if key.name.is_empty() {
        return Plan { writes: too_many_ended(world, ENDED_KEPT), ..Plan::nothing() };
    }
    let Some(pod) = world.get::<Pod>(&key.namespace, &key.name) else { return Plan::nothing() };
    let name = pods::node(pod);
    if name.is_empty() {
        return if pods::is_deleted(pod) { end_unscheduled(pod) } else { Plan::nothing() };
    }
    match world.get::<Node>("", name) {
        None => lost_with_node(pod, name, context),
        Some(node) if pods::is_deleted(pod) && is_out_of_service(node) => {
            take_out(pod, |pod| pod, format!("its node {name} is out of service"))
        }
        Some(_) => Plan::nothing(),
    }
}

/// True if a change may be followed by ended pods that are too many.
pub fn too_many_end(change: &Change, world: &Snapshot) -> bool {
    world.ended_pods() > ENDED_KEPT && change.sides().any(|pod| pod.facts().has_ended())
}

/// True if there may be something to decide about this pod by itself.
pub fn concerns(pod: &Object, world: &Snapshot) -> bool {
    let Some(pod) = pod.get::<Pod>() else { return false };
    match (pods::node(pod), pods::is_deleted(pod)) {
        ("", deleted) => deleted,
        (name, deleted) => world.get::<Node>("", name).is_none_or(|node| deleted && is_out_of_service(node)),
    }
}

/// True if nobody is on the node who could stop a pod (upstream: gcTerminating).
pub fn is_out_of_service(node: &Node) -> bool {
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    taints.iter().any(|taint| taint.key == OUT_OF_SERVICE) && !node_lifecycle::is_ready(node)
}

fn lost_with_node(pod: &Pod, node: &str, context: &Context) -> Plan {
    let created = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
    let missed = created.max(context.heard.missing_since(node));
    let lost = missed.and_then(|time| time.checked_add(SignedDuration::from_secs(MISSED_SECONDS)).ok());
    if let Some(lost) = lost.filter(|time| *time > context.now) {
        return Plan { wake_at: Some(lost), ..Plan::nothing() };
    }
    let disrupted = |pod: Pod| pods::disrupted(&pod, "DeletionByPodGC", "PodGC: node no longer exists", context.now);
    take_out(pod, disrupted, format!("its node {node} no longer exists"))
}

/// Removes the pod; who holds it back is told first that it failed, and by `told` why.
fn take_out(pod: &Pod, told: impl FnOnce(Pod) -> Pod, why: String) -> Plan {
    let failed = (!pods::has_ended(pod) && is_held(pod)).then(|| Write::Status(failed(told(pod.clone())).into_body()));
    Plan { writes: failed.into_iter().chain([remove(pod)]).collect(), why: vec![why], ..Plan::nothing() }
}

fn remove(pod: &Pod) -> Write {
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    let uid = pod.metadata.uid.clone().unwrap_or_default();
    Write::Remove { key: Key::new(Kind::Pod, namespace, pods::name(pod)), uid }
}

fn is_held(pod: &Pod) -> bool {
    pod.metadata.finalizers.as_ref().is_some_and(|finalizers| !finalizers.is_empty())
}

/// A pod that never ran is over as soon as it was asked to end.
fn end_unscheduled(pod: &Pod) -> Plan {
    if pods::has_ended(pod) {
        return Plan::nothing();
    }
    Plan { writes: vec![Write::Status(failed(pod.clone()).into_body())], ..Plan::nothing() }
}

fn failed(mut pod: Pod) -> Pod {
    pod.status.get_or_insert_default().phase = Some("Failed".to_owned());
    pod
}

/// The ended pods beyond `kept`: evicted ones first, then the oldest (upstream: gcTerminated,
/// byEvictionAndCreationTimestamp). Those that are leaving already are not counted.
fn too_many_ended(world: &Snapshot, kept: usize) -> Vec<Write> {
    let surplus = world.ended_pods().saturating_sub(kept).min(ENDED_AT_ONCE);
    world.ended_pods_first_to_go().take(surplus).map(remove).collect()
}

#[cfg(test)]
mod tests;
