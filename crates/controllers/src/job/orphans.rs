//! Lets go of a pod that was held back for a Job which is no longer there.
//!
//! Mirrors syncOrphanPod of upstream's `pkg/controller/job/job_controller.go`. Never touches a pod that another kind of
//! workload has taken over.

use api::object::controller_of;
use api::{Key, Kind, Object, Plan, Pod, Snapshot, Typed, Write};
use k8s_openapi::api::batch::v1::Job;

use super::terms;

/// Decides about one pod.
pub fn reconcile(key: &Key, world: &Snapshot) -> Plan {
    let pod = world.get::<Pod>(&key.namespace, &key.name).filter(|pod| terms::is_tracked(pod));
    let Some(pod) = pod.filter(|pod| is_orphan(pod, world)) else { return Plan::nothing() };
    Plan { writes: vec![Write::Update(terms::untracked(pod).into_body())], ..Plan::nothing() }
}

/// True for a pod that this decision is about.
pub fn is_held_in_vain(object: &Object, world: &Snapshot) -> bool {
    object.get::<Pod>().is_some_and(|pod| terms::is_tracked(pod) && is_orphan(pod, world))
}

fn is_orphan(pod: &Pod, world: &Snapshot) -> bool {
    let Some(owner) = controller_of(&pod.metadata) else { return true };
    if Kind::by_name(&owner.api_version, &owner.kind) != Some(Kind::Job) {
        return false;
    }
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("");
    world.get::<Job>(namespace, &owner.name).is_none_or(|job| job.metadata.uid.as_ref() != Some(&owner.uid))
}
