//! What is particular to Jobs whose pods each have an index.
//!
//! Mirrors upstream's `pkg/controller/job/indexed_job_utils.go`.

use std::collections::BTreeMap;

use api::Member;

use super::failure_policy::{self, Meaning};
use super::indexes::Indexes;
use super::{State, back_off, terms};

/// Fills in the part of the state that is about indexes.
pub fn complete(state: &mut State) {
    let status = state.job.status.as_ref();
    let told = |text: Option<&String>| Indexes::parse(text.map_or("", String::as_str), terms::index_end(state.job));
    let before = told(status.and_then(|status| status.completed_indexes.as_ref()));
    state.succeeded_indexes = before.with(&newly(state, |pod| pod.has_succeeded()));
    state.succeeded = state.succeeded_indexes.total();
    if terms::spec(state.job).backoff_limit_per_index.is_some() {
        let before = told(status.and_then(|status| status.failed_indexes.as_ref()));
        state.failed_indexes = Some(before.with(&newly(state, |pod| fails_index(state, pod))));
        state.last_failed = last_failed(state);
    }
}

/// Indexes of the pods that still count and fit.
fn newly(state: &State, fits: impl Fn(&Member) -> bool) -> Indexes {
    let tracked = state.pods.iter().filter(|pod| pod.is_tracked() && fits(pod));
    Indexes::of(tracked.filter_map(|pod| terms::index_of(pod, state.job)))
}

/// True if no other pod of its index follows this one.
fn fails_index(state: &State, pod: &Member) -> bool {
    if !state.has_failed(pod) {
        return false;
    }
    let pod = pod.pod();
    let failures = terms::annotated(pod, terms::INDEX_FAILURES).unwrap_or(0);
    match failure_policy::judge(state.job, pod) {
        Meaning::FailsIndex => true,
        Meaning::Ignored => false,
        Meaning::Counts | Meaning::FailsJob(_) => {
            failures >= terms::spec(state.job).backoff_limit_per_index.unwrap_or(i32::MAX)
        }
    }
}

fn last_failed<'a>(state: &State<'a>) -> BTreeMap<i32, Member<'a>> {
    let settled =
        state.succeeded_indexes.with(&active(state)).with(state.failed_indexes.as_ref().unwrap_or(&Indexes::default()));
    let mut last: BTreeMap<i32, Member> = BTreeMap::new();
    let order = |pod: &Member| (back_off::index_failures(pod.pod()), back_off::finished_at(pod.pod()));
    for pod in state.uncounted_pods().filter(|pod| state.has_failed(pod)) {
        let Some(index) = terms::index_of(&pod, state.job).filter(|index| !settled.has(*index)) else { continue };
        let kept = last.entry(index).or_insert(pod);
        if order(kept) <= order(&pod) {
            *kept = pod;
        }
    }
    last
}

/// Indexes that have a pod.
pub fn active(state: &State) -> Indexes {
    Indexes::of(state.active.iter().filter_map(|pod| terms::index_of(pod, state.job)))
}

/// The lowest indexes that have no pod and need one.
pub fn to_start(state: &State, count: usize) -> Vec<i32> {
    let mut taken = state.succeeded_indexes.with(&active(state));
    if terms::replaces_only_failed(state.job) {
        let terminating = state.pods.iter().filter(|pod| super::is_terminating(pod));
        taken = taken.with(&Indexes::of(terminating.filter_map(|pod| terms::index_of(pod, state.job))));
    }
    if let Some(failed) = &state.failed_indexes {
        taken = taken.with(failed);
    }
    taken.missing(count, terms::index_end(state.job))
}

/// True if every active pod has an index that counts, and none the same as another.
pub fn is_one_an_index(state: &State) -> bool {
    usize::try_from(active(state).total()).is_ok_and(|indexes| indexes == state.active.len())
}

/// Active pods whose index another active pod has, or that have none that counts. `worst_first` is their order.
pub fn superfluous<'a>(state: &State<'a>, worst_first: &[Member<'a>]) -> Vec<Member<'a>> {
    let mut kept = std::collections::BTreeSet::new();
    let mut going = Vec::new();
    for pod in worst_first.iter().rev() {
        match terms::index_of(pod, state.job) {
            Some(index) if kept.insert(index) => {}
            _ => going.push(*pod),
        }
    }
    going.reverse();
    going
}

/// Failures, counted and ignored, that the next pod of an index carries on.
pub fn failures_before(state: &State, index: i32) -> (i32, i32) {
    let Some(last) = state.last_failed.get(&index) else { return (0, 0) };
    let last = last.pod();
    let number = |key: &str| terms::annotated(last, key).unwrap_or(0);
    let (failures, ignored) = (number(terms::INDEX_FAILURES), number(terms::INDEX_IGNORED_FAILURES));
    match failure_policy::judge(state.job, last) {
        Meaning::Ignored => (failures, ignored.saturating_add(1)),
        _ => (failures.saturating_add(1), ignored),
    }
}
