//! Takes out pods whose node is gone: nobody is left to run or to stop them.
//!
//! Mirrors gcOrphaned of upstream's `pkg/controller/podgc/gc_controller.go`. Never touches a pod whose node is there,
//! however long it may have been silent.

use api::{Key, Plan, Snapshot, Write};
use k8s_openapi::api::core::v1::{Node, Pod};

use crate::pods;

/// Decides about one pod.
pub fn reconcile(key: &Key, world: &Snapshot) -> Plan {
    let Some(pod) = world.get::<Pod>(&key.namespace, &key.name) else { return Plan::nothing() };
    let node = pods::node(pod);
    if node.is_empty() || world.get::<Node>("", node).is_some() {
        return Plan::nothing();
    }
    let uid = pod.metadata.uid.clone().unwrap_or_default();
    Plan {
        writes: vec![Write::Remove { key: key.clone(), uid }],
        why: vec![format!("its node {node} no longer exists")],
        ..Plan::nothing()
    }
}
