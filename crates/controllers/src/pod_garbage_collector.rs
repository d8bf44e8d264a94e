//! Takes out pods whose node is gone: nobody is left to run or to stop them.
//!
//! Mirrors gcOrphaned of upstream's `pkg/controller/podgc/gc_controller.go`. Never touches a pod whose node is there,
//! however long it may have been silent.

use api::{Context, Key, Plan, Snapshot, Write};
use jiff::SignedDuration;
use k8s_openapi::api::core::v1::{Node, Pod};

use crate::pods;

/// Seconds a pod may name a node that has not joined yet (upstream: quarantineTime).
const YOUNG_SECONDS: i64 = 40;

/// Decides about one pod.
pub fn reconcile(key: &Key, world: &Snapshot, context: &Context) -> Plan {
    let Some(pod) = world.get::<Pod>(&key.namespace, &key.name) else { return Plan::nothing() };
    let node = pods::node(pod);
    if node.is_empty() || world.get::<Node>("", node).is_some() {
        return Plan::nothing();
    }
    let created = pod.metadata.creation_timestamp.as_ref();
    let grown = created.and_then(|time| time.0.checked_add(SignedDuration::from_secs(YOUNG_SECONDS)).ok());
    if let Some(grown) = grown.filter(|time| *time > context.now) {
        return Plan { wake_at: Some(grown), ..Plan::nothing() };
    }
    let uid = pod.metadata.uid.clone().unwrap_or_default();
    Plan {
        writes: vec![Write::Remove { key: key.clone(), uid }],
        why: vec![format!("its node {node} no longer exists")],
        ..Plan::nothing()
    }
}
