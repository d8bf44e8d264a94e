//! Pods that ended though they were to run for ever: made again, each time after a longer pause.
//!
//! Plays the part of upstream's failedPodsBackoff (`pkg/controller/daemon/daemon_controller.go`), for StatefulSets too,
//! but without a memory of its own: the replacement carries how many before it failed, and the failed pod stays until its pause is over. So
//! a restart of kapstan forgets no pause.

use api::Pod;
use jiff::{SignedDuration, Timestamp};

/// On a pod: how many before it failed in a row.
pub const FAILURES: &str = "kapstan.dev/failures-in-a-row";
/// Longest pause; a pod that lived longer than that begins anew.
const LONGEST: SignedDuration = SignedDuration::from_mins(15);
/// Failures after which the pause grows no longer.
const LONGEST_AFTER: u32 = 10;

/// How many before this pod failed in a row.
pub fn failures(pod: &Pod) -> u32 {
    let text = pod.metadata.annotations.as_ref().and_then(|annotations| annotations.get(FAILURES));
    text.and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// How many failed in a row, this pod included.
pub fn failures_with(pod: &Pod) -> u32 {
    let born = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
    let lived = born.zip(ended_at(pod)).map(|(born, ended)| ended.duration_since(born));
    if lived.is_some_and(|lived| lived > LONGEST) { 1 } else { failures(pod).saturating_add(1) }
}

/// When a pod that ended may be replaced: the first at once, the next after a second, and so on doubled.
pub fn replaced_at(pod: &Pod) -> Timestamp {
    let before = failures_with(pod) - 1;
    let pause = match before {
        0 => SignedDuration::ZERO,
        _ => SignedDuration::from_secs(1 << (before.min(LONGEST_AFTER + 1) - 1)).min(LONGEST),
    };
    ended_at(pod).and_then(|ended| ended.checked_add(pause).ok()).unwrap_or(Timestamp::MIN)
}

/// When the pod ended, as far as its status tells.
fn ended_at(pod: &Pod) -> Option<Timestamp> {
    let status = pod.status.as_ref()?;
    let containers = status.container_statuses.iter().chain(&status.init_container_statuses).flatten();
    let ends = containers.filter_map(|container| container.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref());
    let conditions = status.conditions.iter().flatten();
    let changes = conditions.filter_map(|condition| condition.last_transition_time.as_ref());
    let born = pod.metadata.creation_timestamp.as_ref();
    ends.max().or_else(|| changes.max()).or(status.start_time.as_ref()).or(born).map(|time| time.0)
}

/// Notes on a new pod how many before it failed in a row.
pub fn carry(pod: &mut Pod, failures: u32) {
    if failures > 0 {
        let annotations = pod.metadata.annotations.get_or_insert_default();
        annotations.insert(FAILURES.to_owned(), failures.to_string());
    }
}
