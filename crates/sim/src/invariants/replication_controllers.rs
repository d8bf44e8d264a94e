//! ReplicationControllers: as many pods as asked, and none is ended that is not one too many.

use std::sync::Arc;

use api::{Object, Pod, Snapshot};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ReplicationController;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::{Moment, Rest, Verdict};
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

/// Pods that a controller selects, and what it tells of them: all that count, those that are ready, those that are
/// available.
fn counts(controller: &ReplicationController, world: &Snapshot, now: Timestamp) -> [(i32, i32, i32); 2] {
    let spec = controller.spec.clone().unwrap_or_default();
    let selector = LabelSelector { match_labels: spec.selector, match_expressions: None };
    let pods = world.controlled_by::<Pod>(facts::uid(&controller.metadata));
    let own = pods.filter(|pod| facts::matches(&selector, pod.metadata.labels.as_ref()));
    let real = facts::counts(own, spec.min_ready_seconds.unwrap_or(0), now);
    let status = controller.status.clone().unwrap_or_default();
    [real, (status.replicas, status.ready_replicas.unwrap_or(0), status.available_replicas.unwrap_or(0))]
}

fn controller(object: Option<&Arc<Object>>) -> Option<&ReplicationController> {
    object.and_then(|object| object.get())
}

/// I12: what it reports is so at the moment it is reported.
pub fn status_is_true(moment: &Moment) -> Verdict {
    let (before, after) = (moment.change.before.as_ref(), moment.change.after.as_ref());
    let (Some(before), Some(after)) = (controller(before), controller(after)) else { return Ok(()) };
    if before.status == after.status || moment.asked {
        return Ok(());
    }
    if after.status.as_ref().and_then(|status| status.observed_generation) > after.metadata.generation {
        return Err("has observed a generation that is not there yet".into());
    }
    let [real, told] = counts(after, moment.before, moment.now);
    if told == real { Ok(()) } else { Err(format!("tells (pods, ready, available) {told:?} where {real:?} are")) }
}

/// I12, when nothing is left to decide: what it tells is still so; available by the server's clock now, or at its
/// `latest`.
pub fn statuses_are_true(world: &Snapshot, rest: &Rest) -> Verdict {
    let (now, latest) = (rest.now, rest.latest);
    let judged = |it: &&ReplicationController| !facts::is_deleted(&it.metadata);
    for controller in world.list::<ReplicationController>(None).filter(judged) {
        let ([least, told], [most, _]) = (counts(controller, world, now), counts(controller, world, latest));
        if (told.0, told.1) != (least.0, least.1) || !(least.2..=most.2).contains(&told.2) {
            let name = facts::name(&controller.metadata);
            return Err(format!("ReplicationController {name} tells {told:?} where {least:?} are"));
        }
    }
    Ok(())
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
