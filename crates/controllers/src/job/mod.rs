//! Runs pods until enough of them have ended well, and counts each of them once.
//!
//! Mirrors upstream's `pkg/controller/job/job_controller.go`. A pod carries a finalizer from its first moment. When it has
//! ended, its uid (or its index) is written into the Job's status; then the finalizer is taken off; then, in a later
//! decision, the uid becomes part of the count. Whatever happens between two of these writes, no pod is counted twice
//! and none is missed. Differences: the status always tells of the pods as they are and not as they are about to be;
//! the back-off is read off the pods (`back_off`). Never makes a pod for a Job that has ended, is suspended or is going.

mod back_off;
mod conditions;
mod failure_policy;
mod indexed;
mod indexes;
mod manage;
mod orphans;
mod terms;
mod time_to_live;
mod tracking;
mod verdict;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use api::limits::BURST_REPLICAS;
use api::selector::Selector;
use api::{Body, Context, EventNote, EventType, Key, Kind, Member, Object, Plan, Pod, Refusal, Snapshot, Typed, Write};
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Namespace;

use crate::claim;
use crate::pods;
use crate::refusals::{is_outdated, namespace_is_ending};
use failure_policy::Meaning;
use indexes::Indexes;

pub use conditions::{COMPLETE, finished};
pub use orphans::is_held_in_vain;

/// Decides about one Job, or about one pod whose Job is gone.
pub fn reconcile(key: &Key, world: &Snapshot, context: &Context) -> Plan {
    if key.kind == Kind::Pod {
        return orphans::reconcile(key, world);
    }
    let Some(job) = world.get::<Job>(&key.namespace, &key.name) else { return Plan::nothing() };
    let managed_here = !terms::is_managed_elsewhere(job);
    let end = conditions::finished(job).map(|end| end.last_transition_time.as_ref().map(|time| time.0));
    match end {
        Some(end) if managed_here => return finish(key, job, end, world, context),
        Some(end) => return time_to_live::reconcile(key, job, end, context.now),
        None if managed_here => {}
        None => return Plan::nothing(),
    }
    let selector =
        Selector::from_label_selector(terms::spec(job).selector.as_ref()).unwrap_or_else(|_| Selector::nothing());
    let claimed = claim::members(Kind::Job, &job.metadata, &selector, world, |_| true);
    if !claimed.writes.is_empty() {
        let writes = claimed.writes.into_iter().map(|write| tracked_if_owned(write, job)).collect();
        return Plan { writes, ..Plan::nothing() };
    }
    let namespace = world.get::<Namespace>("", &key.namespace);
    let leaves = job.metadata.deletion_timestamp.is_some()
        || namespace.is_some_and(|namespace| namespace.metadata.deletion_timestamp.is_some());
    decide(&State::new(job, claimed.own, leaves, context.now), key, context)
}

/// A pod that is adopted is counted from now on, one that is let go no longer.
fn tracked_if_owned(write: Write, job: &Job) -> Write {
    let Write::Update(Body::Pod(pod)) = write else { return write };
    let mut new = terms::untracked(&pod);
    if api::object::controller_of(&pod.metadata).is_some_and(|owner| Some(&owner.uid) == job.metadata.uid.as_ref()) {
        new.metadata.finalizers.get_or_insert_default().push(terms::TRACKING_FINALIZER.to_owned());
    }
    Write::Update(new.into_body())
}

/// After the end: pods that are still held back are let go, and the Job itself goes in its time.
fn finish(key: &Key, job: &Job, ended: Option<Timestamp>, world: &Snapshot, context: &Context) -> Plan {
    let own = world.members(job.metadata.uid.as_deref().unwrap_or(""));
    let held = own.filter(|pod| pod.is_tracked()).take(BURST_REPLICAS);
    let writes: Vec<Write> = held.map(|pod| Write::Update(terms::untracked(pod.pod()).into_body())).collect();
    if !writes.is_empty() {
        return Plan { writes, ..Plan::nothing() };
    }
    time_to_live::reconcile(key, job, ended, context.now)
}

fn decide(state: &State, key: &Key, context: &Context) -> Plan {
    let mut plan = Plan::nothing();
    let verdict = verdict::of(state);
    let stopped = context.refused.is_some_and(namespace_is_ending);
    let actions = match &verdict {
        Some(verdict) => {
            plan.why.push(format!("{}: {}; its pods are ended and counted", verdict.reason, verdict.message));
            manage::end_all(state, key)
        }
        None if !state.leaves && !stopped => manage::manage(state, key, &mut plan),
        None => Vec::new(),
    };
    let tracking = tracking::track(state, verdict.as_ref());
    // What is written about pods brings the Job back here, so mere counts wait until there is nothing else to do.
    if tracking.changed && (tracking.urgent || actions.is_empty() || context.refused.is_some()) {
        let renewed = Job { status: Some(tracking.status), ..state.job.clone() };
        plan.writes.push(Write::Status(renewed.into_body()));
        plan.writes.extend(
            tracking
                .told
                .into_iter()
                .map(|(kind, reason, message)| Write::Event(event(key, state.job, kind, reason, message))),
        );
    }
    plan.writes.extend(tracking.counted.iter().map(|pod| Write::Update(terms::untracked(pod.pod()).into_body())));
    plan.writes.extend(actions);
    if let Some(refusal) = context.refused.filter(|refusal| !is_outdated(refusal) && !namespace_is_ending(refusal)) {
        tell_refusal(&mut plan, key, state.job, refusal);
    }
    if let Some(deadline) = verdict::deadline(state).filter(|time| verdict.is_none() && *time > state.now) {
        plan.wake_by(deadline);
    }
    plan
}

fn tell_refusal(plan: &mut Plan, key: &Key, job: &Job, refusal: &Refusal) {
    plan.why.push(format!("making pods of {} is refused: {}", key.name, refusal.message));
    let message = format!("Error creating: {}", refusal.message);
    plan.events.push(event(key, job, EventType::Warning, "FailedCreate", message));
}

fn event(key: &Key, job: &Job, kind: EventType, reason: &'static str, message: String) -> EventNote {
    let uid = job.metadata.uid.clone().unwrap_or_default();
    EventNote { regarding: key.clone(), uid, kind, reason, message, source: "job-controller" }
}

/// All that a decision about a Job is based on.
struct State<'a> {
    job: &'a Job,
    now: Timestamp,
    /// True if the Job or its namespace is being deleted: nothing is made any more, and no pod is held back.
    leaves: bool,
    /// Its pods, those of an indexed Job by index.
    pods: Vec<Member<'a>>,
    /// Those that run or are to run.
    active: Vec<Member<'a>>,
    /// How many were asked to end and have not yet.
    terminating: i32,
    /// Since when it is at work; now, if it begins.
    started: Option<Timestamp>,
    /// Uids in the status whose pods are not counted yet.
    uncounted: BTreeSet<&'a str>,
    /// Pods that ended well, counted or not; of an indexed Job the indexes.
    succeeded: i32,
    /// Pods that failed in a way that counts, counted or not.
    failed: i32,
    /// Indexes whose pod ended well, counted or not.
    succeeded_indexes: Indexes,
    /// Indexes that have failed for good, where there is a limit for each.
    failed_indexes: Option<Indexes>,
    /// The last failed pod of each index that waits for another: it is kept, because it holds the count of failures.
    last_failed: BTreeMap<i32, Member<'a>>,
}

impl<'a> State<'a> {
    fn new(job: &'a Job, mut own: Vec<Member<'a>>, leaves: bool, now: Timestamp) -> State<'a> {
        if terms::is_indexed(job) {
            let made = |pod: &Member<'a>| pod.pod().metadata.creation_timestamp.as_ref();
            own.sort_by(|one, other| {
                let by_index = terms::index_of(one, job).cmp(&terms::index_of(other, job));
                by_index.then_with(|| made(one).cmp(&made(other)))
            });
        }
        let status = job.status.as_ref();
        let listed = status.and_then(|status| status.uncounted_terminated_pods.as_ref());
        let succeeded = listed.and_then(|listed| listed.succeeded.as_deref()).unwrap_or_default();
        let failed = listed.and_then(|listed| listed.failed.as_deref()).unwrap_or_default();
        let started = status.and_then(|status| status.start_time.as_ref()).map(|time| time.0);
        let mut state = State {
            job,
            now,
            leaves,
            active: own.iter().copied().filter(|pod| pod.is_active()).collect(),
            terminating: count(own.iter().filter(|pod| is_terminating(pod)).count()),
            pods: own,
            started: started.or((!terms::is_suspended(job)).then_some(now)),
            uncounted: succeeded.iter().chain(failed).map(String::as_str).collect(),
            succeeded: status.and_then(|status| status.succeeded).unwrap_or(0) + count(succeeded.len()),
            failed: status.and_then(|status| status.failed).unwrap_or(0) + count(failed.len()),
            succeeded_indexes: Indexes::default(),
            failed_indexes: None,
            last_failed: BTreeMap::new(),
        };
        let new = |state: &State, judge: &dyn Fn(&Member) -> bool| {
            count(state.uncounted_pods().filter(|pod| judge(pod)).count())
        };
        state.succeeded += new(&state, &|pod| pod.has_succeeded());
        state.failed +=
            new(&state, &|pod| state.has_failed(pod) && failure_policy::judge(job, pod.pod()) != Meaning::Ignored);
        if terms::is_indexed(job) {
            indexed::complete(&mut state);
        }
        state
    }

    /// Pods that are neither counted nor noted down to be.
    fn uncounted_pods(&self) -> impl Iterator<Item = Member<'a>> {
        let noted = |pod: &Member| !self.uncounted.is_empty() && self.uncounted.contains(uid(pod.pod()));
        let new = move |pod: &Member| pod.is_tracked() && !noted(pod);
        self.pods.iter().copied().filter(new)
    }

    /// True for a pod that has failed. One that was asked to end counts at once, unless its Job waits for real ends.
    fn has_failed(&self, pod: &Member) -> bool {
        pod.has_failed() || (!terms::replaces_only_failed(self.job) && is_terminating(pod))
    }
}

fn is_terminating(pod: &Member) -> bool {
    pod.is_deleted() && !pod.has_ended()
}

fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or("")
}

fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

/// All of a pod that its Job looks at.
pub fn pod_digest(object: Option<&Object>) -> Option<impl PartialEq + use<'_>> {
    let pod = object?.get::<Pod>()?;
    let owner = api::object::controller_of(&pod.metadata).map(|owner| owner.uid.as_str());
    let what = (pods::phase(pod), pods::is_deleted(pod), pods::is_ready(pod), verdict::restarts(pod));
    Some((&pod.metadata.labels, owner, &pod.metadata.finalizers, what))
}

/// All of a Job's status that a CronJob, or the Job itself, looks at.
pub fn status_digest(object: Option<&Object>) -> Option<impl PartialEq + use<'_>> {
    let status = object?.get::<Job>()?.status.as_ref()?;
    Some((&status.conditions, &status.completion_time))
}
