//! Lets go of a pod that was held back for a Job which is no longer there.
//!
//! Mirrors syncOrphanPod of upstream's `pkg/controller/job/job_controller.go`. Never touches a pod that another kind of
//! workload has taken over.

use api::object::controller_of;
use api::{Key, Kind, Plan, Snapshot, Typed, Write};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;

use super::terms;

/// Decides about one pod.
pub fn reconcile(key: &Key, world: &Snapshot) -> Plan {
    let pod = world.get::<Pod>(&key.namespace, &key.name).filter(|pod| terms::is_tracked(pod));
    let Some(pod) = pod.filter(|pod| is_orphan(pod, key, world)) else { return Plan::nothing() };
    Plan { writes: vec![Write::Update(terms::untracked(pod).into_body())], ..Plan::nothing() }
}

fn is_orphan(pod: &Pod, key: &Key, world: &Snapshot) -> bool {
    let Some(owner) = controller_of(&pod.metadata) else { return true };
    if Kind::by_name(&owner.api_version, &owner.kind) != Some(Kind::Job) {
        return false;
    }
    world.get::<Job>(&key.namespace, &owner.name).is_none_or(|job| job.metadata.uid.as_ref() != Some(&owner.uid))
}
