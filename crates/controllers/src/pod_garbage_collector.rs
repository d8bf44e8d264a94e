//! Takes out pods whose node is gone: nobody is left to run or to stop them. One that a finalizer holds back is told to
//! have failed, and so is one that was deleted before a node had it: whoever holds it waits for its end.
//!
//! Mirrors gcOrphaned and gcUnscheduledTerminating of upstream's `pkg/controller/podgc/gc_controller.go`. Never touches a
//! pod whose node is there, however long it may have been silent.

use api::{Context, Key, Plan, Pod, Snapshot, Typed, Write};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Node;

use crate::pods;

/// Seconds a pod may name a node that has not joined yet (upstream: quarantineTime).
const YOUNG_SECONDS: i64 = 40;

/// Decides about one pod.
pub fn reconcile(key: &Key, world: &Snapshot, context: &Context) -> Plan {
    let Some(pod) = world.get::<Pod>(&key.namespace, &key.name) else { return Plan::nothing() };
    let node = pods::node(pod);
    if node.is_empty() {
        return if pods::is_deleted(pod) { end_unscheduled(pod) } else { Plan::nothing() };
    }
    if world.get::<Node>("", node).is_some() {
        return Plan::nothing();
    }
    let created = pod.metadata.creation_timestamp.as_ref();
    let grown = created.and_then(|time| time.0.checked_add(SignedDuration::from_secs(YOUNG_SECONDS)).ok());
    if let Some(grown) = grown.filter(|time| *time > context.now) {
        return Plan { wake_at: Some(grown), ..Plan::nothing() };
    }
    let uid = pod.metadata.uid.clone().unwrap_or_default();
    let told = (!pods::has_ended(pod) && is_held(pod)).then(|| Write::Status(failed(pod, context.now).into_body()));
    Plan {
        writes: told.into_iter().chain([Write::Remove { key: key.clone(), uid }]).collect(),
        why: vec![format!("its node {node} no longer exists")],
        ..Plan::nothing()
    }
}

fn is_held(pod: &Pod) -> bool {
    pod.metadata.finalizers.as_ref().is_some_and(|finalizers| !finalizers.is_empty())
}

/// A pod that never ran is over as soon as it was asked to end.
fn end_unscheduled(pod: &Pod) -> Plan {
    if pods::has_ended(pod) {
        return Plan::nothing();
    }
    let mut pod = pod.clone();
    pod.status.get_or_insert_default().phase = Some("Failed".to_owned());
    Plan { writes: vec![Write::Status(pod.into_body())], ..Plan::nothing() }
}

/// The pod, which failed because its node is gone.
fn failed(pod: &Pod, now: Timestamp) -> Pod {
    let mut pod = pods::disrupted(pod, "DeletionByPodGC", "PodGC: node no longer exists", now);
    pod.status.get_or_insert_default().phase = Some("Failed".to_owned());
    pod
}
