//! Counts the pods that have ended, each exactly once, and renews the status.
//!
//! Mirrors trackJobStatusAndRemoveFinalizers of upstream's `pkg/controller/job/job_controller.go`.

use std::collections::BTreeSet;

use api::EventType;
use api::Member;
use api::limits::BURST_REPLICAS;
use k8s_openapi::api::batch::v1::{JobStatus, UncountedTerminatedPods};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::conditions::{self, COMPLETE, FAILED, FAILURE_TARGET, SUCCESS_CRITERIA_MET, SUSPENDED};
use super::failure_policy::{self, Meaning};
use super::indexes::Indexes;
use super::verdict::Verdict;
use super::{State, count, terms, uid};

/// The outcome.
pub struct Tracking<'a> {
    /// The status as it should be.
    pub status: JobStatus,
    /// True if that is not what it is.
    pub changed: bool,
    /// True if more than the number of pods at work changed.
    pub urgent: bool,
    /// Pods to let go once the status is written.
    pub counted: Vec<Member<'a>>,
    /// What the user is told with it.
    pub told: Vec<(EventType, &'static str, String)>,
}

/// Works out the status. `verdict`: how the Job ends, if it does.
pub fn track<'a>(state: &State<'a>, verdict: Option<&Verdict>) -> Tracking<'a> {
    let mut old = state.job.status.clone().unwrap_or_default();
    old.uncounted_terminated_pods.get_or_insert_default();
    let mut tracking =
        Tracking { status: old.clone(), changed: false, urgent: false, counted: Vec::new(), told: Vec::new() };
    let tracked = || state.pods.iter().filter(|pod| pod.is_tracked());
    if !state.uncounted.is_empty() {
        take_over(&mut tracking.status, &tracked().map(|pod| uid(pod.pod())).collect());
    }
    note_ended(state, verdict, &mut tracking);
    match verdict {
        Some(verdict) => end(state, verdict, tracked().next().is_none(), &mut tracking),
        None if !state.leaves => suspend_or_resume(state, &mut tracking),
        None => {}
    }
    tracking.urgent = tracking.status != old || !tracking.counted.is_empty();
    let status = &mut tracking.status;
    status.active = some(count(state.active.len()));
    status.ready = Some(count(state.active.iter().filter(|pod| pod.is_ready()).count()));
    status.terminating = Some(state.terminating);
    if status.start_time.is_none() && !terms::is_suspended(state.job) {
        status.start_time = state.started.map(Time);
    }
    tracking.changed = state.job.status.as_ref() != Some(&tracking.status);
    tracking
}

fn some(number: i32) -> Option<i32> {
    Some(number).filter(|number| *number != 0)
}

/// Third step: what was noted down and is no longer held back is counted.
fn take_over(status: &mut JobStatus, tracked: &BTreeSet<&str>) {
    let noted = status.uncounted_terminated_pods.get_or_insert_default();
    let take = |list: &mut Option<Vec<String>>, number: &mut Option<i32>| {
        let Some(uids) = list else { return };
        let before = uids.len();
        uids.retain(|uid| tracked.contains(uid.as_str()));
        *number = some(number.unwrap_or(0) + count(before - uids.len()));
        if uids.is_empty() {
            *list = None;
        }
    };
    take(&mut noted.succeeded, &mut status.succeeded);
    take(&mut noted.failed, &mut status.failed);
}

/// First step: what has ended is noted down. The second, letting it go, comes after the status is written.
fn note_ended<'a>(state: &State<'a>, verdict: Option<&Verdict>, tracking: &mut Tracking<'a>) {
    let end = terms::index_end(state.job);
    let listed = |text: Option<&String>| Indexes::parse(text.map_or("", String::as_str), end);
    let before = listed(tracking.status.completed_indexes.as_ref());
    let mut newly = Vec::new();
    let noted = tracking.status.uncounted_terminated_pods.get_or_insert_default();
    let ended = state.pods.iter().copied().filter(|pod| pod.is_tracked() && may_go(state, verdict, pod));
    for pod in ended.take(BURST_REPLICAS) {
        tracking.counted.push(pod);
        let (index, its_uid) = (terms::index_of(&pod, state.job), uid(pod.pod()));
        let new = !state.uncounted.contains(its_uid);
        match () {
            () if !new => {}
            () if pod.has_succeeded() && terms::is_indexed(state.job) => {
                // The index alone tells that it was counted.
                newly.extend(index.filter(|index| !before.has(*index)));
            }
            () if pod.has_succeeded() => {
                noted.succeeded.get_or_insert_default().push(its_uid.to_owned());
            }
            () if counts_as_failed(state, verdict, &pod) && (index.is_some() || !terms::is_indexed(state.job)) => {
                noted.failed.get_or_insert_default().push(its_uid.to_owned());
            }
            () => {}
        }
    }
    if terms::is_indexed(state.job) {
        let completed = before.with(&Indexes::of(newly));
        tracking.status.succeeded = some(completed.total());
        tracking.status.completed_indexes = Some(completed.to_string()).filter(|text| !text.is_empty());
        tracking.status.failed_indexes = state.failed_indexes.as_ref().map(Indexes::to_string);
    }
}

fn noted_number(noted: &UncountedTerminatedPods) -> usize {
    [&noted.succeeded, &noted.failed].into_iter().map(|list| list.as_ref().map_or(0, Vec::len)).sum()
}

/// True if the pod need not be held back any longer.
fn may_go(state: &State, verdict: Option<&Verdict>, pod: &Member) -> bool {
    if state.leaves || pod.has_succeeded() || verdict.is_some() {
        return true;
    }
    let kept = terms::index_of(pod, state.job).and_then(|index| state.last_failed.get(&index));
    state.has_failed(pod) && kept.is_none_or(|kept| uid(kept.pod()) != uid(pod.pod()))
}

/// With a Job that fails, every pod that has not ended fails.
fn counts_as_failed(state: &State, verdict: Option<&Verdict>, pod: &Member) -> bool {
    let ended_with_job = verdict.is_some_and(|verdict| !verdict.success);
    (state.has_failed(pod) || ended_with_job) && failure_policy::judge(state.job, pod.pod()) != Meaning::Ignored
}

/// Marks the Job; once that is written, nothing is left to count and no pod is left, it is over.
fn end(state: &State, verdict: &Verdict, all_let_go: bool, tracking: &mut Tracking) {
    let why = (verdict.reason.as_str(), verdict.message.as_str());
    let (mark, type_) = if verdict.success { (SUCCESS_CRITERIA_MET, COMPLETE) } else { (FAILURE_TARGET, FAILED) };
    let status = &mut tracking.status;
    if conditions::told(state.job, mark).is_none() {
        conditions::set(&mut status.conditions, mark, true, why, state.now);
        return;
    }
    let noted = status.uncounted_terminated_pods.as_ref().map_or(0, noted_number);
    if !all_let_go || noted > 0 || !state.active.is_empty() || state.terminating > 0 {
        return;
    }
    conditions::set(&mut status.conditions, type_, true, why, state.now);
    if verdict.success {
        status.completion_time = Some(Time(state.now));
        tracking.told.push((EventType::Normal, "Completed", "Job completed".to_owned()));
    } else {
        tracking.told.push((EventType::Warning, known(&verdict.reason), verdict.message.clone()));
    }
}

/// The reason of an event, which is one of few.
fn known(reason: &str) -> &'static str {
    const REASONS: [&str; 5] =
        ["BackoffLimitExceeded", "DeadlineExceeded", "PodFailurePolicy", "MaxFailedIndexesExceeded", "FailedIndexes"];
    REASONS.into_iter().find(|known| *known == reason).unwrap_or("Failed")
}

fn suspend_or_resume(state: &State, tracking: &mut Tracking) {
    let suspended = terms::is_suspended(state.job);
    let (reason, message) = if suspended { ("JobSuspended", "Job suspended") } else { ("JobResumed", "Job resumed") };
    let list = &mut tracking.status.conditions;
    if conditions::set(list, SUSPENDED, suspended, (reason, message), state.now) {
        let told = if suspended { "Suspended" } else { "Resumed" };
        tracking.told.push((EventType::Normal, told, message.to_owned()));
        // Only the time at work counts, for the deadline and for what people are shown.
        tracking.status.start_time = (!suspended).then_some(Time(state.now));
    }
}
