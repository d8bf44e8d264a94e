//! StatefulSets: pods in order, each with a name of its own. That a name has one process is asked in `cluster.rs`.

use std::ops::Range;
use std::sync::Arc;

use api::{Object, Pod, Snapshot};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet};

use super::{Moment, Verdict};
use crate::facts;

/// The label by which a pod names its revision.
const REVISION: &str = "controller-revision-hash";

/// The number of a pod.
fn ordinal(pod: &Pod) -> i32 {
    let number = facts::name(&pod.metadata).rsplit('-').next();
    number.and_then(|number| number.parse().ok()).unwrap_or(-1)
}

/// The numbers that are to be there.
fn wanted(set: &StatefulSet) -> Range<i32> {
    let Some(spec) = set.spec.as_ref() else { return 0..0 };
    let start = spec.ordinals.as_ref().and_then(|ordinals| ordinals.start).unwrap_or(0);
    start..start + spec.replicas.unwrap_or(1)
}

fn is_ordered(set: &StatefulSet) -> bool {
    set.spec.as_ref().is_some_and(|spec| spec.pod_management_policy.as_deref() != Some("Parallel"))
}

/// Partition and `maxUnavailable`; `None` under OnDelete.
fn pace(set: &StatefulSet) -> Option<(i32, i32)> {
    let strategy = set.spec.as_ref()?.update_strategy.clone().unwrap_or_default();
    if strategy.type_.as_deref() == Some("OnDelete") {
        return None;
    }
    let rolling = strategy.rolling_update.unwrap_or_default();
    let all = wanted(set).len() as i32;
    let unavailable = rolling.max_unavailable.map_or(1, |value| facts::share(Some(&value), all, false));
    Some((rolling.partition.unwrap_or(0), unavailable.max(1)))
}

fn is_available(pod: &Pod, set: &StatefulSet, now: Timestamp) -> bool {
    let wait = set.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or(0);
    facts::is_available(pod, wait, now)
}

fn is_new(pod: &Pod, set: &StatefulSet) -> bool {
    set.spec.as_ref().is_some_and(|spec| facts::is_of(pod, &spec.template))
}

fn pods<'a>(set: &StatefulSet, world: &'a Snapshot) -> Vec<&'a Pod> {
    world.controlled_by::<Pod>(facts::uid(&set.metadata)).collect()
}

/// Number of available pods among those that are to be there.
fn available(set: &StatefulSet, world: &Snapshot, now: Timestamp) -> i32 {
    let counts = |pod: &&Pod| wanted(set).contains(&ordinal(pod)) && is_available(pod, set, now);
    pods(set, world).into_iter().filter(counts).count() as i32
}

fn set_of<'a>(pod: &Pod, moment: &'a Moment) -> Option<&'a StatefulSet> {
    let set = facts::keeper::<StatefulSet>(&pod.metadata, moment.before)?;
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("");
    (!facts::is_deleted(&set.metadata) && facts::namespace_stays(namespace, moment.before)).then_some(set)
}

/// A pod that a decision made, and its set.
fn made<'a>(moment: &'a Moment) -> Option<(&'a Pod, &'a StatefulSet)> {
    let (None, Some(pod)) = moment.pod() else { return None };
    set_of(pod, moment).filter(|_| !moment.asked).map(|set| (pod, set))
}

/// A pod that a decision ends while it counts, and its set. A pod whose node is gone or evicts it is not ended by us.
fn ended<'a>(moment: &'a Moment) -> Option<(&'a Pod, &'a StatefulSet)> {
    let (Some(before), after) = moment.pod() else { return None };
    let ends = after.is_none_or(|after| facts::is_deleted(&after.metadata));
    let by_its_node = facts::lost_its_node(before, moment.before) || facts::is_evicted(before, moment.before);
    if !ends || moment.asked || !facts::is_active(before) || by_its_node {
        return None;
    }
    Some((before, set_of(before, moment)?))
}

/// I3: in order, a pod is made only when all before it are available; and no number is made that is not wanted.
pub fn made_in_order(moment: &Moment) -> Verdict {
    let Some((pod, set)) = made(moment) else { return Ok(()) };
    let number = ordinal(pod);
    if !wanted(set).contains(&number) {
        return Err(format!("was made though {:?} are wanted", wanted(set)));
    }
    let there = pods(set, moment.before);
    let ready = |number: i32| there.iter().any(|pod| ordinal(pod) == number && is_available(pod, set, moment.now));
    match (wanted(set).start..number).find(|before| !ready(*before)).filter(|_| is_ordered(set)) {
        Some(before) => Err(format!("was made before number {before} was available")),
        None => Ok(()),
    }
}

/// I3: in order, a pod that is too many ends only when all behind it are gone. One that somebody took out by its labels
/// is not the set's any more, though one that ends keeps its owner.
pub fn ended_in_order(moment: &Moment) -> Verdict {
    let Some((pod, set)) = ended(moment).filter(|(_, set)| is_ordered(set)) else { return Ok(()) };
    if wanted(set).contains(&ordinal(pod)) {
        return Ok(());
    }
    let belongs = |other: &Pod| {
        let selector = set.spec.as_ref().map(|spec| &spec.selector);
        selector.is_some_and(|selector| facts::matches(selector, other.metadata.labels.as_ref()))
    };
    let behind = pods(set, moment.before).into_iter().find(|other| {
        let too_many = !wanted(set).contains(&ordinal(other)) && ordinal(other) > ordinal(pod);
        too_many && belongs(other) && !facts::has_ended(other)
    });
    match behind {
        Some(other) => Err(format!("was ended while {} is still there", facts::name(&other.metadata))),
        None => Ok(()),
    }
}

/// I8: a pod beyond the partition is made as the template says.
pub fn pods_are_as_their_template(moment: &Moment) -> Verdict {
    let Some((pod, set)) = made(moment) else { return Ok(()) };
    let partition = pace(set).map_or(0, |(partition, _)| partition);
    if ordinal(pod) - wanted(set).start < partition || is_new(pod, set) {
        return Ok(());
    }
    Err("is not as the template of its StatefulSet says".into())
}

/// I1: no decision ends an available pod if too few are left then.
pub fn availability_is_kept(moment: &Moment) -> Verdict {
    let Some((pod, set)) = ended(moment) else { return Ok(()) };
    if !wanted(set).contains(&ordinal(pod)) || !is_available(pod, set, moment.now) {
        return Ok(());
    }
    let Some((_, unavailable)) = pace(set) else { return Err("was ended under OnDelete".into()) };
    let (left, fewest) = (available(set, moment.after, moment.now), wanted(set).len() as i32 - unavailable);
    if left >= fewest { Ok(()) } else { Err(format!("was ended, which leaves {left} available pods of {fewest}")) }
}

/// I5, I11: a pod that is to be there ends only for the next template, from the last to the partition.
pub fn updates_from_the_last(moment: &Moment) -> Verdict {
    let Some((pod, set)) = ended(moment) else { return Ok(()) };
    let number = ordinal(pod);
    if !wanted(set).contains(&number) || !is_available(pod, set, moment.now) {
        return Ok(());
    }
    let Some((partition, _)) = pace(set) else { return Ok(()) };
    if number - wanted(set).start < partition {
        return Err(format!("was ended though the partition is {partition}"));
    }
    if is_new(pod, set) && names_wanted_revision(pod, set, moment.before) {
        return Err("was ended though it is of the wanted template".into());
    }
    let mut behind = pods(set, moment.before).into_iter().filter(|it| ordinal(it) > number);
    let skipped =
        behind.find(|it| wanted(set).contains(&ordinal(it)) && is_available(it, set, moment.now) && !is_new(it, set));
    match skipped {
        Some(other) => Err(format!("was ended before {}", facts::name(&other.metadata))),
        None => Ok(()),
    }
}

/// True if the pod's label names a revision with the template that the set wants.
fn names_wanted_revision(pod: &Pod, set: &StatefulSet, world: &Snapshot) -> bool {
    let Some(name) = pod.metadata.labels.as_ref().and_then(|labels| labels.get(REVISION)) else { return false };
    let newest = world
        .controlled_by::<ControllerRevision>(facts::uid(&set.metadata))
        .max_by_key(|revision| revision.revision)
        .map(|revision| facts::name(&revision.metadata));
    newest == Some(name)
}

fn stateful_set(object: Option<&Arc<Object>>) -> Option<&StatefulSet> {
    object.and_then(|object| object.get())
}

/// I12: a status that says an update is done is right.
pub fn status_is_true(moment: &Moment) -> Verdict {
    let (before, after) = (moment.change.before.as_ref(), moment.change.after.as_ref());
    let (Some(before), Some(set)) = (stateful_set(before), stateful_set(after)) else { return Ok(()) };
    let Some(status) = set.status.as_ref().filter(|_| before.status != set.status && !moment.asked) else {
        return Ok(());
    };
    if status.observed_generation > set.metadata.generation {
        return Err("has observed a generation that is not there yet".into());
    }
    if status.observed_generation != set.metadata.generation {
        return Ok(());
    }
    let there = pods(set, moment.before);
    let really = there.iter().filter(|pod| is_available(pod, set, moment.now)).count() as i32;
    let told = status.available_replicas.unwrap_or(0);
    if told > really {
        return Err(format!("tells of {told} available pods where {really} are"));
    }
    let all = wanted(set).len() as i32;
    let done = [status.replicas, status.updated_replicas.unwrap_or(0), told].iter().all(|count| *count == all);
    let old = there.iter().find(|pod| facts::is_active(pod) && !is_new(pod, set));
    match old.filter(|_| done) {
        Some(pod) => Err(format!("says it is done, but {} is of another template", facts::name(&pod.metadata))),
        None => Ok(()),
    }
}

/// When all is healed: every number has a ready pod of the wanted template, and the status says so.
pub fn arrive(world: &Snapshot) -> Verdict {
    for set in world.list::<StatefulSet>(None) {
        let name = facts::name(&set.metadata);
        let there = pods(set, world);
        let all = wanted(set).len() as i32;
        let good = |number: i32| {
            there.iter().any(|pod| ordinal(pod) == number && is_new(pod, set) && facts::ready_since(pod).is_some())
        };
        if let Some(number) = wanted(set).find(|number| !good(*number)) {
            return Err(format!("StatefulSet {name} has no ready pod of the wanted template under number {number}"));
        }
        let status = set.status.clone().unwrap_or_default();
        let counts = [
            status.replicas,
            status.ready_replicas.unwrap_or(0),
            status.updated_replicas.unwrap_or(0),
            status.available_replicas.unwrap_or(0),
            there.len() as i32,
        ];
        if counts.iter().any(|count| *count != all) || status.current_revision != status.update_revision {
            return Err(format!("StatefulSet {name} of {all} tells and has {counts:?}"));
        }
    }
    Ok(())
}
