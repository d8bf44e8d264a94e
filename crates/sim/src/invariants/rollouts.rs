//! What a rollout costs: pods made for it, and writes.
//!
//! A rollout is what happens to the set of the wanted template from one change of its Deployment to the next.

use api::{Kind, Pod};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};

use super::{Moment, Verdict};
use crate::facts;

/// Which rollout: the uid of the set, the uid of its Deployment, and the generation of that.
pub type Of = (String, String, i64);

/// What is remembered of a rollout.
#[derive(Clone, Copy, Default)]
pub struct Rollout {
    /// Pods that decisions made.
    pub made: i32,
    /// Pods that were lost: ended by people, faults, nodes or budgets, given or taken away.
    pub lost: i32,
    /// The most pods that the set was to have.
    pub largest: i32,
}

/// What is remembered of what was written for a Deployment, its sets and their pods.
#[derive(Clone, Copy, Default)]
pub struct Effort {
    /// Writes of decisions.
    pub writes: i64,
    /// Pods that decisions made.
    pub made: i64,
    /// Changes that people, nodes and faults asked for.
    pub asked: i64,
    /// Other things that were asked of the Deployment, by people or an autoscaler.
    pub edits: i64,
}

/// Something that counts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A decision made a pod.
    Made,
    /// A pod was lost.
    Lost,
}

fn of(set: &ReplicaSet, deployment: &Deployment) -> Of {
    let generation = deployment.metadata.generation.unwrap_or(0);
    (facts::uid(&set.metadata).to_owned(), facts::uid(&deployment.metadata).to_owned(), generation)
}

/// The set of a pod and its Deployment, if that wants the set's template.
fn family<'a>(pod: &Pod, moment: &'a Moment) -> Option<(&'a ReplicaSet, &'a Deployment)> {
    let set = facts::set_of(&pod.metadata, moment.before)?;
    let deployment = facts::deployment_of(&set.metadata, moment.before)?;
    facts::same_template(&facts::template(set), &facts::wanted(deployment)).then_some((set, deployment))
}

/// What a change means to a rollout, and how many pods its set was to have.
pub fn noted(moment: &Moment) -> Option<(Of, Step, i32)> {
    let (before, after) = moment.pod();
    if let (None, Some(made)) = (before, after) {
        let (set, deployment) = family(made, moment).filter(|_| !moment.asked)?;
        return Some((of(set, deployment), Step::Made, facts::size(set)));
    }
    // A removal shows the pod's last state; what it was before is in the snapshot.
    let there = moment.was.and_then(|object| object.get::<Pod>()).filter(|pod| facts::is_active(pod))?;
    let owner = |pod: &Pod| facts::set_of(&pod.metadata, moment.before).map(|set| set.metadata.uid.clone());
    if after.is_some_and(|after| facts::is_active(after) && owner(after) == owner(there)) {
        return None;
    }
    let (set, deployment) = family(there, moment)?;
    let is_surplus = !moment.asked && facts::active(set, moment.before) > facts::size(set);
    (!is_surplus).then(|| (of(set, deployment), Step::Lost, facts::size(set)))
}

/// I9: for one rollout no more pods are made than there are to be, surge included, and than were lost.
pub fn makes_no_more_than_needed(moment: &Moment) -> Verdict {
    let Some((of, Step::Made, size)) = noted(moment) else { return Ok(()) };
    let Some(pod) = moment.change.object().get::<Pod>() else { return Ok(()) };
    let Some((_, deployment)) = family(pod, moment) else { return Ok(()) };
    let Rollout { made, lost, largest } = moment.tally.rollout(&of);
    let needed = facts::most(deployment).max(size).max(largest);
    if made < needed + lost {
        return Ok(());
    }
    Err(format!("is pod number {} that is made for one rollout of {needed}, in which {lost} were lost", made + 1))
}

/// Decisions write so often for each pod that they make, at most: made and bound, ended and let go, counted on the way.
const WRITES_A_POD: i64 = 6;
/// ... and for each change that somebody else asked for: it is counted by the set and by the Deployment, which may then
/// give a new and an old set other sizes.
const WRITES_A_CHANGE: i64 = 3;
/// ... and for each edit of the Deployment: a set is made, another one forgotten, pods are refused to both and are not any
/// more, the deadline passes.
const WRITES_AN_EDIT: i64 = 12;
/// ... and at first.
const WRITES_AT_FIRST: i64 = 20;

/// The uid of the Deployment that an object is of.
fn deployment_of(moment: &Moment) -> Option<String> {
    let object = moment.was.unwrap_or(moment.change.object());
    let of_set = |set: &ReplicaSet| {
        let owner = api::object::controller_of(&set.metadata).filter(|owner| owner.kind == "Deployment")?;
        Some(owner.uid.clone())
    };
    match object.kind() {
        Kind::Deployment => Some(object.uid().to_owned()),
        Kind::ReplicaSet => of_set(object.get()?),
        Kind::Pod => of_set(facts::set_of(&object.get::<Pod>()?.metadata, moment.before)?),
        _ => None,
    }
}

/// What a change adds to the effort for a Deployment, named by its uid.
pub fn effort(moment: &Moment) -> Option<(String, Effort)> {
    let made = !moment.asked && moment.change.before.is_none() && moment.change.kind() == Kind::Pod;
    // Autoscalers change no more than the number of replicas.
    let edited = match moment.deployment() {
        (Some(before), Some(after)) if moment.asked => before.metadata.generation != after.metadata.generation,
        (Some(before), Some(after)) => facts::replicas(before) != facts::replicas(after),
        (None, made) => made.is_some(),
        (Some(_), None) => false,
    };
    let [made, asked, edits] = [made, moment.asked, edited].map(i64::from);
    Some((deployment_of(moment)?, Effort { writes: 1 - asked, made, asked, edits }))
}

/// I28: what decisions write for a Deployment is bounded by the pods they make and by what others do.
pub fn writes_are_bounded(moment: &Moment) -> Verdict {
    let Some((of, _)) = effort(moment).filter(|_| !moment.asked) else { return Ok(()) };
    let Effort { writes, made, asked, edits } = moment.tally.effort(&of);
    let most = WRITES_A_POD * made + WRITES_A_CHANGE * asked + WRITES_AN_EDIT * edits + WRITES_AT_FIRST;
    if writes <= most {
        return Ok(());
    }
    Err(format!(
        "is write number {writes} for a Deployment, for {made} pods, {edits} edits and {asked} changes by others"
    ))
}
