//! ReplicationControllers: as many pods as asked, and none is ended that is not one too many.

use api::Pod;
use api::Snapshot;
use k8s_openapi::api::core::v1::ReplicationController;

use super::{Moment, Verdict};
use crate::facts;

fn size(controller: &ReplicationController) -> i32 {
    controller.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

fn active(controller: &ReplicationController, world: &Snapshot) -> i32 {
    let pods = world.controlled_by::<Pod>(facts::uid(&controller.metadata));
    pods.filter(|pod| facts::is_active(pod)).count() as i32
}

/// I9: never more pods than asked.
pub fn no_pod_too_many(moment: &Moment) -> Verdict {
    let (None, Some(pod)) = moment.pod() else { return Ok(()) };
    let keeper = facts::keeper::<ReplicationController>(&pod.metadata, moment.before);
    let Some(keeper) = keeper.filter(|_| !moment.asked) else { return Ok(()) };
    let (there, wanted) = (active(keeper, moment.after), size(keeper));
    if there <= wanted { Ok(()) } else { Err(format!("is pod number {there} of {wanted}")) }
}

/// I5: a pod ends only if it is one too many.
pub fn ends_only_what_is_too_much(moment: &Moment) -> Verdict {
    let (Some(before), after) = moment.pod() else { return Ok(()) };
    let ends = after.is_none_or(|after| facts::is_deleted(&after.metadata));
    let by_its_node = facts::lost_its_node(before, moment.before) || facts::is_evicted(before, moment.before);
    if !ends || moment.asked || !facts::is_active(before) || by_its_node {
        return Ok(());
    }
    let namespace = before.metadata.namespace.as_deref().unwrap_or("");
    let Some(keeper) = facts::keeper::<ReplicationController>(&before.metadata, moment.before) else { return Ok(()) };
    if facts::is_deleted(&keeper.metadata) || !facts::namespace_stays(namespace, moment.before) {
        return Ok(());
    }
    let (there, wanted) = (active(keeper, moment.before), size(keeper));
    if there > wanted { Ok(()) } else { Err(format!("was ended though there are {there} pods of {wanted}")) }
}

/// When all is healed: as many pods as asked, and the status says so.
pub fn arrive(world: &Snapshot) -> Verdict {
    for keeper in world.list::<ReplicationController>(None) {
        let (there, wanted) = (active(keeper, world), size(keeper));
        let told = keeper.status.as_ref().map_or(0, |status| status.replicas);
        if there != wanted || told != wanted {
            let name = facts::name(&keeper.metadata);
            return Err(format!("ReplicationController {name} of {wanted} has {there} pods and tells {told}"));
        }
    }
    Ok(())
}
