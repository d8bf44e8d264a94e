//! The status of a ReplicaSet: how many pods it has, and how good they are.
//!
//! Mirrors upstream's `pkg/controller/replicaset/replica_set_utils.go` (calculateStatus). Writes nothing when nothing
//! changed.

use api::Member;
use api::selector::Selector;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::kin::Kin;
use crate::specs;

/// The condition that tells that pods cannot be made or ended.
const REPLICA_FAILURE: &str = "ReplicaFailure";

/// The status as it should be, if it is not. `terminating` is the number of pods that are going, where it is told;
/// `failed` is the number of missing pods (negative: too many) and why nothing can be done about it.
pub fn renewed(
    set: &ReplicaSet,
    active: &[Member],
    terminating: Option<i32>,
    failed: Option<(i32, &str)>,
    now: Timestamp,
) -> Option<ReplicaSetStatus> {
    let old = set.status.clone().unwrap_or_default();
    let mut new = counts(set, active, now);
    new.terminating_replicas = terminating;
    new.observed_generation = set.metadata.generation;
    new.conditions = conditions(&old, failed, now);
    (set.status.as_ref() != Some(&new)).then_some(new)
}

/// When the next ready pod becomes available only by the passing of time.
pub fn next_available(set: &ReplicaSet, active: &[Member], now: Timestamp) -> Option<Timestamp> {
    let wait = min_ready_seconds(set);
    if wait <= 0 {
        return None;
    }
    active.iter().filter_map(|pod| pod.available_at(wait)).filter(|time| *time > now).min()
}

/// `spec.minReadySeconds`.
pub fn min_ready_seconds(set: &ReplicaSet) -> i32 {
    specs::of_set(set).min_ready_seconds.unwrap_or(0)
}

fn counts(set: &ReplicaSet, active: &[Member], now: Timestamp) -> ReplicaSetStatus {
    let template = specs::of_set(set).template.as_ref().and_then(|template| template.metadata.as_ref());
    let labels = template.and_then(|meta| meta.labels.as_ref());
    let labels = labels.map_or_else(Selector::everything, Selector::from_labels);
    let mut labelled = Kin::of(&labels, set.metadata.namespace.as_deref());
    let wait = min_ready_seconds(set);
    let count = |number: usize| i32::try_from(number).unwrap_or(i32::MAX);
    let some = |number: usize| Some(count(number)).filter(|number| *number > 0);
    ReplicaSetStatus {
        replicas: count(active.len()),
        fully_labeled_replicas: some(active.iter().filter(|pod| labelled.fits(pod)).count()),
        ready_replicas: some(active.iter().filter(|pod| pod.is_ready()).count()),
        available_replicas: some(active.iter().filter(|pod| pod.is_available(wait, now)).count()),
        ..Default::default()
    }
}

fn conditions(old: &ReplicaSetStatus, failed: Option<(i32, &str)>, now: Timestamp) -> Option<Vec<ReplicaSetCondition>> {
    let mut list = old.conditions.clone().unwrap_or_default();
    let told = list.iter().any(|condition| condition.type_ == REPLICA_FAILURE);
    match failed {
        Some((missing, message)) if !told => list.push(ReplicaSetCondition {
            type_: REPLICA_FAILURE.into(),
            status: "True".into(),
            reason: Some(if missing > 0 { "FailedCreate".into() } else { "FailedDelete".into() }),
            message: Some(message.to_owned()),
            last_transition_time: Some(Time(now)),
        }),
        Some(_) => {}
        None => list.retain(|condition| condition.type_ != REPLICA_FAILURE),
    }
    Some(list).filter(|list| !list.is_empty())
}
