//! Deployments, their ReplicaSets and pods.

use std::collections::BTreeMap;

use api::Pod;
use api::Snapshot;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, ReplicaSet};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{Moment, Rest, Verdict};
use crate::behind::MOST_BEHIND;
use crate::facts;

/// The set and the Deployment of a pod, if both are there and stay.
fn family<'a>(pod: &Pod, moment: &'a Moment) -> Option<(&'a ReplicaSet, &'a Deployment)> {
    let set = facts::set_of(&pod.metadata, moment.before)?;
    let deployment = facts::deployment_of(&set.metadata, moment.before)?;
    let stay = !facts::is_deleted(&set.metadata) && !facts::is_deleted(&deployment.metadata);
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("");
    (stay && facts::namespace_stays(namespace, moment.before)).then_some((set, deployment))
}

/// I1: no decision ends an available pod if fewer than `replicas - maxUnavailable` are left then.
pub fn availability_is_kept(moment: &Moment) -> Verdict {
    let (Some(before), after) = moment.pod() else { return Ok(()) };
    let ends = after.is_none_or(|after| facts::is_deleted(&after.metadata));
    if !ends || moment.asked {
        return Ok(());
    }
    let node = facts::node(before);
    // What is on a machine that is gone is gone already, and a taint that evicts is nobody's rollout.
    let is_gone = !node.is_empty() && moment.before.get::<Node>("", node).is_none();
    if is_gone || facts::is_evicted(before, moment.before) {
        return Ok(());
    }
    let Some((set, deployment)) = family(before, moment) else { return Ok(()) };
    if facts::recreates(deployment) || !facts::is_available(before, facts::wait(set), moment.now) {
        return Ok(());
    }
    // A pod that a set has taken on in this turn was none of the Deployment's when it began: nobody counted on it.
    if was_put_in(before, moment) {
        return Ok(());
    }
    let sets = facts::sets(deployment, moment.after);
    let left: i32 = sets.iter().map(|set| facts::available(set, moment.after, moment.now)).sum();
    let fewest = facts::fewest(deployment);
    if left >= fewest || lost_a_set(deployment, moment) || sets.iter().any(|set| has_one_back(set, moment)) {
        return Ok(());
    }
    Err(format!("was ended, which leaves {left} available pods where {fewest} have to be"))
}

/// True if a set was given to somebody else in this turn: its pods were counted on until then, and go with it perhaps.
fn lost_a_set(deployment: &Deployment, moment: &Moment) -> bool {
    let given = |set: &ReplicaSet, world: &Snapshot| {
        let namespace = set.metadata.namespace.as_deref().unwrap_or("");
        let then = world.get::<ReplicaSet>(namespace, facts::name(&set.metadata));
        let then = then.filter(|then| then.metadata.uid == set.metadata.uid);
        then.is_some_and(|then| facts::deployment_of(&then.metadata, world).is_none())
    };
    let sets = facts::sets(deployment, moment.start);
    sets.into_iter().any(|set| moment.worlds.iter().any(|world| given(set, world)))
}

/// True if a pod of the set was given to somebody else in this turn, and the set took it back.
fn has_one_back(set: &ReplicaSet, moment: &Moment) -> bool {
    // It may be the one that is ended.
    let mut pods = moment.before.controlled_by::<Pod>(facts::uid(&set.metadata));
    pods.any(|pod| was_away(pod, moment))
}

/// True for a pod that had no set for a while in this turn: what was decided then did not count on it.
fn was_away(pod: &Pod, moment: &Moment) -> bool {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("");
    let away = |world: &Snapshot| {
        let then = world.get::<Pod>(namespace, facts::name(&pod.metadata));
        let then = then.filter(|then| then.metadata.uid == pod.metadata.uid);
        then.is_some_and(|then| facts::set_of(&then.metadata, world).is_none())
    };
    moment.worlds.iter().any(away)
}

/// The size of a set when the turn began; none if it is of this turn.
fn earlier_size(set: &ReplicaSet, moment: &Moment) -> i32 {
    let namespace = set.metadata.namespace.as_deref().unwrap_or("");
    let earlier = moment.start.get::<ReplicaSet>(namespace, facts::name(&set.metadata));
    earlier.filter(|earlier| earlier.metadata.uid == set.metadata.uid).map_or(0, facts::size)
}

/// I2: no pod is made beyond `replicas + maxSurge`, terminating ones apart.
pub fn surge_is_kept(moment: &Moment) -> Verdict {
    let (None, Some(pod)) = moment.pod() else { return Ok(()) };
    let Some((_, deployment)) = family(pod, moment).filter(|_| !moment.asked) else { return Ok(()) };
    // Under Recreate sets are full or empty: that they do not overlap is asked for itself.
    if facts::recreates(deployment) {
        return Ok(());
    }
    // Adopted sets: what people put in counts from the next turn on; it was not made beyond anything.
    let made = |set: &ReplicaSet| {
        let pods = facts::pods(set, moment.after).into_iter();
        pods.filter(|pod| facts::is_active(pod) && !was_put_in(pod, moment)).count() as i32
    };
    let there: i32 = facts::sets(deployment, moment.after).into_iter().map(made).sum();
    // Lowered surge, or a set adopted beyond it: sets shrink as fast as I1 lets them, and until then make up for lost
    // pods; one that was shrunk in this turn may still have the pods that it is to end. What was grown in this turn is no
    // excuse.
    let kept = |set: &ReplicaSet| {
        let left = facts::size(set).max(facts::active(set, moment.before));
        left.min(earlier_size(set, moment))
    };
    let kept: i32 = facts::sets(deployment, moment.before).into_iter().map(kept).sum();
    let most = facts::most(deployment).max(kept);
    if there <= most { Ok(()) } else { Err(format!("is pod number {there} where {most} may be")) }
}

/// True for a pod that no set made: it had no set when the turn began, or came in this turn with a name of its own, which
/// sets leave to the door.
fn was_put_in(pod: &Pod, moment: &Moment) -> bool {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("");
    let earlier = moment.start.get::<Pod>(namespace, facts::name(&pod.metadata));
    match earlier.filter(|earlier| earlier.metadata.uid == pod.metadata.uid) {
        Some(earlier) => facts::set_of(&earlier.metadata, moment.start).is_none(),
        None => pod.metadata.generate_name.is_none(),
    }
}

/// True for a set that had no owner, or another, when the turn began.
fn is_adopted_now(set: &ReplicaSet, moment: &Moment) -> bool {
    let owner = |set: &ReplicaSet| api::object::controller_of(&set.metadata).map(|owner| owner.uid.clone());
    let namespace = set.metadata.namespace.as_deref().unwrap_or("");
    let earlier = moment.start.get::<ReplicaSet>(namespace, facts::name(&set.metadata));
    earlier.is_some_and(|earlier| owner(earlier) != owner(set))
}

/// I2: under Recreate no pod is made while one of another template may still run.
pub fn recreate_never_overlaps(moment: &Moment) -> Verdict {
    let (None, Some(pod)) = moment.pod() else { return Ok(()) };
    let Some((set, deployment)) = family(pod, moment).filter(|_| !moment.asked) else { return Ok(()) };
    if !facts::recreates(deployment) {
        return Ok(());
    }
    // It was rolling, or paused in the middle, before it was to recreate: what was there already makes up for lost pods.
    // A set that is not wanted any more does so only under a pause or before it is adopted, since it is emptied at once
    // else.
    let is_wanted = facts::same_template(&facts::template(set), &facts::wanted(deployment));
    let stays = is_wanted || facts::is_paused(deployment) || is_adopted_now(set, moment);
    if earlier_size(set, moment) >= facts::size(set) && stays {
        return Ok(());
    }
    let others = facts::sets(deployment, moment.before);
    let others = others.into_iter().filter(|other| other.metadata.uid != set.metadata.uid);
    let alive: usize = others
        .map(|other| {
            // What somebody put into an empty set in this very turn is ended by it, and never started.
            let counts = |pod: &Pod| !was_put_in(pod, moment) && !was_away(pod, moment);
            let runs = |pod: &&Pod| !facts::has_ended(pod) && counts(pod);
            facts::pods(other, moment.before).into_iter().filter(runs).count()
        })
        .sum();
    if alive == 0 { Ok(()) } else { Err(format!("was made while {alive} pods of another template are there")) }
}

/// I9: a set never makes more pods than it is to have.
pub fn no_pod_too_many(moment: &Moment) -> Verdict {
    let (None, Some(pod)) = moment.pod() else { return Ok(()) };
    let Some(set) = facts::set_of(&pod.metadata, moment.before).filter(|_| !moment.asked) else { return Ok(()) };
    let (there, wanted) = (facts::active(set, moment.after), facts::size(set));
    if there <= wanted { Ok(()) } else { Err(format!("is pod number {there} of a set of {wanted}")) }
}

/// I9: while nobody asks for another number of replicas, a rollout goes one way: no set of an old template grows, and the
/// new one gets no smaller than it is to be. So no pod is made only to be ended again.
pub fn rolls_one_way(moment: &Moment) -> Verdict {
    let (Some(before), Some(after)) = moment.set() else { return Ok(()) };
    let (from, to) = (facts::size(before), facts::size(after));
    let deployment = facts::deployment_of(&after.metadata, moment.before).filter(|_| from != to && !moment.asked);
    let Some(deployment) = deployment.filter(|it| !facts::is_paused(it)) else { return Ok(()) };
    let replicas = facts::replicas(deployment);
    // What follows a change of replicas does so set by set, within a turn or over several.
    let is_behind = |set: &ReplicaSet| {
        facts::size(set) > 0 && facts::number(&set.metadata, facts::DESIRED) != Some(i64::from(replicas))
    };
    if moment.worlds.iter().any(|world| facts::sets(deployment, world).into_iter().any(is_behind)) {
        return Ok(());
    }
    let sets = facts::sets(deployment, moment.before);
    let is_new = |set: &ReplicaSet| facts::same_template(&facts::template(set), &facts::wanted(deployment));
    // Of two sets of the wanted template one is old: somebody gave it to the Deployment.
    let alone = sets.iter().filter(|set| is_new(set)).count() == 1;
    match is_new(after) {
        true if to < from.min(replicas) && alone => {
            Err(format!("goes from {from} to {to}, though {replicas} pods of its template are wanted"))
        }
        false if to > from => Err(format!("goes from {from} to {to}, though its template is not wanted any more")),
        _ => Ok(()),
    }
}

/// I9, for controllers that are behind: never more pods than the set was to have not long ago.
pub fn no_pod_too_many_from_behind(moment: &Moment) -> Verdict {
    let (None, Some(pod)) = moment.pod() else { return Ok(()) };
    let Some(set) = facts::set_of(&pod.metadata, moment.before).filter(|_| !moment.asked) else { return Ok(()) };
    let long_ago = moment.now - SignedDuration::from_secs(2 * MOST_BEHIND);
    let largest = moment.tally.largest(facts::uid(&set.metadata), long_ago);
    let (there, wanted) = (facts::active(set, moment.after), facts::size(set).max(largest));
    if there <= wanted { Ok(()) } else { Err(format!("is pod number {there} of a set of {wanted} at most")) }
}

/// I7: a template has one set, which is as the Deployment wants it.
pub fn one_set_per_template(moment: &Moment) -> Verdict {
    let (None, Some(set)) = moment.set() else { return Ok(()) };
    let Some(deployment) = facts::deployment_of(&set.metadata, moment.before) else { return Ok(()) };
    if moment.asked {
        return Ok(());
    }
    let template = facts::template(set);
    if !facts::same_template(&template, &facts::wanted(deployment)) {
        return Err("has not the template that its Deployment wants".into());
    }
    let twin = facts::sets(deployment, moment.before)
        .into_iter()
        .find(|other| facts::same_template(&facts::template(other), &template));
    match twin {
        Some(twin) => Err(format!("has the template of {}", facts::name(&twin.metadata))),
        None => Ok(()),
    }
}

/// I8: a pod is made as its set's template says, and its containers stay so.
pub fn pods_are_as_their_template(moment: &Moment) -> Verdict {
    let (before, Some(after)) = moment.pod() else { return Ok(()) };
    if moment.asked {
        return Ok(());
    }
    let containers = |pod: &Pod| pod.spec.as_deref().map(|spec| spec.containers.clone()).unwrap_or_default();
    if let Some(before) = before {
        let same = containers(before) == containers(after);
        return if same { Ok(()) } else { Err("has other containers than before".into()) };
    }
    let Some(set) = facts::set_of(&after.metadata, moment.before) else { return Ok(()) };
    let template = facts::template(set);
    let wanted = template.spec.map(|spec| spec.containers).unwrap_or_default();
    let labels: BTreeMap<String, String> = template.metadata.and_then(|meta| meta.labels).unwrap_or_default();
    let has = after.metadata.labels.clone().unwrap_or_default();
    if facts::without_token(containers(after)) != wanted
        || !labels.iter().all(|(name, value)| has.get(name) == Some(value))
    {
        return Err(format!("is not as the template of {} says", facts::name(&set.metadata)));
    }
    Ok(())
}

/// I10: the number of a revision only grows, beyond all others of its Deployment.
pub fn revisions_grow(moment: &Moment) -> Verdict {
    let (before, Some(after)) = moment.set() else { return Ok(()) };
    let Some(deployment) = facts::deployment_of(&after.metadata, moment.after).filter(|_| !moment.asked) else {
        return Ok(());
    };
    let (old, new) = (before.map_or(0, facts::revision), facts::revision(after));
    if new < old {
        return Err(format!("revision goes back from {old} to {new}"));
    }
    if new == old || new == 0 {
        return Ok(());
    }
    let others = facts::sets(deployment, moment.before);
    let others = others.into_iter().filter(|other| other.metadata.uid != after.metadata.uid);
    let highest = others.map(facts::revision).max().unwrap_or(0);
    if new > highest { Ok(()) } else { Err(format!("gets revision {new}, but there is {highest} already")) }
}

/// I10: the history limit takes only old, empty sets, and no more than it says.
pub fn history_is_kept(moment: &Moment) -> Verdict {
    let (Some(_), after) = moment.set() else { return Ok(()) };
    let Some(set) = moment.was.and_then(|object| object.get::<ReplicaSet>()) else { return Ok(()) };
    let ends = after.is_none_or(|after| facts::is_deleted(&after.metadata));
    if !ends || facts::is_deleted(&set.metadata) || moment.asked {
        return Ok(());
    }
    let Some(deployment) = facts::deployment_of(&set.metadata, moment.before) else { return Ok(()) };
    let namespace = set.metadata.namespace.as_deref().unwrap_or("");
    if facts::is_deleted(&deployment.metadata) || !facts::namespace_stays(namespace, moment.before) {
        return Ok(());
    }
    let wanted = facts::wanted(deployment);
    if facts::same_template(&facts::template(set), &wanted) && is_oldest_of_its_template(set, deployment, moment) {
        return Err("was forgotten though its template is the wanted one".into());
    }
    if facts::active(set, moment.before) > 0 {
        return Err("was forgotten though it has pods".into());
    }
    let sets = facts::sets(deployment, moment.before);
    let kept = sets.iter().filter(|set| !facts::same_template(&facts::template(set), &wanted)).count() as i32;
    let limit = deployment.spec.as_ref().and_then(|spec| spec.revision_history_limit).unwrap_or(10);
    if kept > limit { Ok(()) } else { Err(format!("was forgotten though only {kept} old sets of {limit} are kept")) }
}

fn is_oldest_of_its_template(set: &ReplicaSet, deployment: &Deployment, moment: &Moment) -> bool {
    let age = |set: &ReplicaSet| (set.metadata.creation_timestamp.clone(), set.metadata.name.clone());
    let twins = facts::sets(deployment, moment.before);
    let mut twins =
        twins.into_iter().filter(|other| facts::same_template(&facts::template(other), &facts::template(set)));
    twins.all(|other| age(set) <= age(other))
}

/// I11: while a Deployment is paused no set is made, and none changes its size but to follow a change of replicas.
pub fn paused_means_paused(moment: &Moment) -> Verdict {
    let (before, Some(after)) = moment.set() else { return Ok(()) };
    let Some(deployment) = facts::deployment_of(&after.metadata, moment.before).filter(|_| !moment.asked) else {
        return Ok(());
    };
    if !facts::is_paused(deployment) {
        return Ok(());
    }
    let Some(before) = before else { return Err("was made though its Deployment is paused".into()) };
    if facts::size(before) == facts::size(after) {
        return Ok(());
    }
    // A change of `replicas` that the sets have not followed yet is followed; and where only one set has any pods, that one
    // is the Deployment's size.
    let desired = i64::from(facts::replicas(deployment));
    let sets = facts::sets(deployment, moment.before).into_iter().filter(|set| facts::size(set) > 0);
    let (followed, behind): (Vec<&ReplicaSet>, Vec<&ReplicaSet>) =
        sets.partition(|set| facts::number(&set.metadata, facts::DESIRED) == Some(desired));
    if followed.len() < 2 || !behind.is_empty() {
        return Ok(());
    }
    // A rollout that has all its new pods is over but for what is left of the old ones, which may go (upstream:
    // IsSaturated); by what sets tell within the turn.
    let over = |world: &Snapshot| {
        let wanted = facts::wanted(deployment);
        let sets = facts::sets(deployment, world).into_iter();
        let mut new = sets.filter(|set| facts::same_template(&facts::template(set), &wanted));
        new.any(|set| {
            facts::size(set) == facts::replicas(deployment)
                && facts::available(set, world, moment.now) >= facts::replicas(deployment)
        })
    };
    if facts::size(after) == 0 && moment.worlds.iter().any(over) {
        return Ok(());
    }
    let (old, new) = (facts::size(before), facts::size(after));
    Err(format!("goes from {old} to {new} though its Deployment is paused"))
}

/// I12: what a set reports is so at the moment it is reported.
pub fn set_status_is_true(moment: &Moment) -> Verdict {
    let (Some(before), Some(after)) = moment.set() else { return Ok(()) };
    let Some(status) = after.status.as_ref().filter(|_| before.status != after.status) else { return Ok(()) };
    if moment.asked {
        return Ok(());
    }
    if status.observed_generation > after.metadata.generation {
        return Err("has observed a generation that is not there yet".into());
    }
    let real = counts(after, moment.before, moment.now);
    let told = told_by(after);
    if told == real {
        return Ok(());
    }
    Err(format!("tells (pods, ready, available) {told:?} where {real:?} are"))
}

/// Pods of a set that it selects: all that count, those that are ready, those that are available.
fn counts(set: &ReplicaSet, world: &Snapshot, now: Timestamp) -> (i32, i32, i32) {
    let selector = set.spec.as_ref().map(|spec| spec.selector.clone()).unwrap_or_default();
    let pods = facts::pods(set, world).into_iter();
    facts::counts(pods.filter(|pod| facts::matches(&selector, pod.metadata.labels.as_ref())), facts::wait(set), now)
}

/// What a set tells of the same.
fn told_by(set: &ReplicaSet) -> (i32, i32, i32) {
    let status = set.status.clone().unwrap_or_default();
    (status.replicas, status.ready_replicas.unwrap_or(0), status.available_replicas.unwrap_or(0))
}

/// I12, when nothing is left to decide: sets tell how many pods they have, and Deployments are told to be available if
/// and only if enough pods are. What was available once may be told to be so though the server's clock steps back: it
/// has been `latest`.
pub fn statuses_are_true(world: &Snapshot, rest: &Rest) -> Verdict {
    let (now, latest) = (rest.now, rest.latest);
    for set in world.list::<ReplicaSet>(None).filter(|it| stays(&it.metadata, world)) {
        let (told, least, most) = (told_by(set), counts(set, world, now), counts(set, world, latest));
        if (told.0, told.1) != (least.0, least.1) || !(least.2..=most.2).contains(&told.2) {
            let name = facts::name(&set.metadata);
            return Err(format!("ReplicaSet {name} tells (pods, ready, available) {told:?} where {least:?} are"));
        }
    }
    for deployment in world.list::<Deployment>(None).filter(|it| stays(&it.metadata, world)) {
        let name = facts::name(&deployment.metadata);
        let sets = facts::sets(deployment, world);
        let there = |now: Timestamp| sets.iter().map(|set| facts::available(set, world, now)).sum::<i32>();
        // Under Recreate none may be missing once a rollout is over (upstream: MaxUnavailable).
        let fewest = if facts::recreates(deployment) { facts::replicas(deployment) } else { facts::fewest(deployment) };
        let (least, most) = (there(now), there(latest));
        match condition(deployment, "Available").map(|told| told.status.as_str()) {
            Some("True") if most < fewest => {
                return Err(format!("Deployment {name} is told to be available with {most} pods of {fewest}"));
            }
            Some("False") if least >= fewest => {
                return Err(format!("Deployment {name} is told not to be available with {least} pods of {fewest}"));
            }
            Some(_) => {}
            None => return Err(format!("of Deployment {name} it is not told whether it is available")),
        }
    }
    Ok(())
}

fn stays(meta: &ObjectMeta, world: &Snapshot) -> bool {
    let namespace = meta.namespace.as_deref().unwrap_or("");
    !facts::is_deleted(meta) && facts::namespace_stays(namespace, world)
}

fn condition<'a>(deployment: &'a Deployment, type_: &str) -> Option<&'a DeploymentCondition> {
    deployment.status.as_ref()?.conditions.as_ref()?.iter().find(|condition| condition.type_ == type_)
}

/// I12: what `rollout status` takes for done is done: all wanted pods are new and available, and no other is there.
pub fn done_is_true(moment: &Moment) -> Verdict {
    let (Some(before), Some(after)) = moment.deployment() else { return Ok(()) };
    let Some(status) = after.status.as_ref().filter(|_| before.status != after.status) else { return Ok(()) };
    if moment.asked {
        return Ok(());
    }
    if status.observed_generation > after.metadata.generation {
        return Err("has observed a generation that is not there yet".into());
    }
    let wanted = facts::replicas(after);
    let counts = [status.replicas, status.updated_replicas, status.available_replicas];
    let done = status.observed_generation == after.metadata.generation
        && counts.iter().all(|count| count.unwrap_or(0) == wanted)
        && !facts::is_paused(after)
        && !facts::is_deleted(&after.metadata);
    if !done {
        return Ok(());
    }
    let seen = |world: &Snapshot| {
        let sets = facts::sets(after, world);
        let (new, old): (Vec<&ReplicaSet>, Vec<&ReplicaSet>) =
            sets.into_iter().partition(|set| facts::same_template(&facts::template(set), &facts::wanted(after)));
        // What was available once is so though the server's clock steps back.
        let now = moment.tally.latest().max(moment.now);
        let available: i32 = new.iter().map(|set| facts::available(set, world, now)).sum();
        (available, old.iter().map(|set| facts::active(set, world)).sum::<i32>())
    };
    let (available, others) = seen(moment.before);
    // Within a turn a Deployment counts by what its sets tell, and they may tell of a change after it: it has to have been
    // so at some revision of this very turn, for what is wanted now.
    let namespace = after.metadata.namespace.as_deref().unwrap_or("");
    let asked_for_the_same = |world: &&Snapshot| {
        world.get::<Deployment>(namespace, facts::name(&after.metadata)).is_some_and(|old| {
            facts::replicas(old) == wanted && facts::same_template(&facts::wanted(old), &facts::wanted(after))
        })
    };
    let mut earlier = moment.worlds.iter().filter(asked_for_the_same);
    if (available, others) == (wanted, 0) || earlier.any(|world| seen(world) == (wanted, 0)) {
        return Ok(());
    }
    Err(format!("says it is done, with {available} new pods of {wanted} available and {others} old ones"))
}

/// I12: a rollout is told to be late only when its deadline has passed without progress.
pub fn deadline_has_passed(moment: &Moment) -> Verdict {
    const LATE: &str = "ProgressDeadlineExceeded";
    let (Some(before), Some(after)) = moment.deployment() else { return Ok(()) };
    let reason = |deployment: &Deployment| {
        condition(deployment, "Progressing").and_then(|told| told.reason.clone()).unwrap_or_default()
    };
    if reason(after) != LATE || reason(before) == LATE || moment.asked {
        return Ok(());
    }
    let Some(told) = condition(before, "Progressing").and_then(|told| told.last_update_time.as_ref()) else {
        return Err("is late though it never began".into());
    };
    let deadline = after.spec.as_ref().and_then(|spec| spec.progress_deadline_seconds).unwrap_or(600);
    let due = told.0 + SignedDuration::from_secs(deadline.into());
    if due <= moment.now {
        Ok(())
    } else {
        Err(format!("is told to be late {}s too early", due.duration_since(moment.now).as_secs()))
    }
}
