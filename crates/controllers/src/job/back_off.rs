//! How long a Job waits before it makes a pod again: ten seconds after the first failure, twice as long after each
//! further one, ten minutes at most.
//!
//! Mirrors upstream's `pkg/controller/job/backoff_utils.go`. Upstream remembers failures; here they are read off the
//! pods that are there, so that a restart changes nothing. Failures since the last success count.

use api::{Member, Pod, pod_resources};
use jiff::{SignedDuration, Timestamp};

use super::State;
use super::terms::{self, INDEX_FAILURES, INDEX_IGNORED_FAILURES};
use crate::pods;

const FIRST_SECONDS: i64 = 10;
const LONGEST_SECONDS: i64 = 600;

/// When the Job as a whole may make pods; `None` if it may at once.
pub fn until(state: &State) -> Option<Timestamp> {
    let succeeded = state.pods.iter().filter(|pod| pod.has_succeeded());
    let last_success = succeeded.map(|pod| finished_at(pod.pod())).max();
    let failures = state.pods.iter().filter(|pod| has_failed_by_itself(state, pod));
    let failures = failures.map(|pod| finished_at(pod.pod()));
    let failures: Vec<Timestamp> = failures.filter(|time| last_success.is_none_or(|success| success < *time)).collect();
    let pause = pause(i32::try_from(failures.len()).unwrap_or(i32::MAX))?;
    failures.iter().max()?.checked_add(pause).ok().filter(|time| *time > state.now)
}

/// When the index whose last pod this is may have another one; `None` if it may at once.
pub fn index_until(last: &Pod, now: Timestamp) -> Option<Timestamp> {
    let pause = pause(index_failures(last).saturating_add(1))?;
    finished_at(last).checked_add(pause).ok().filter(|time| *time > now)
}

/// How often the index of a pod had failed before, in any way.
pub fn index_failures(pod: &Pod) -> i32 {
    let number = |key: &str| terms::annotated(pod, key).unwrap_or(0);
    number(INDEX_FAILURES).saturating_add(number(INDEX_IGNORED_FAILURES))
}

/// A pod that was ended because the Job wanted fewer has not failed.
fn has_failed_by_itself(state: &State, pod: &Member) -> bool {
    if pod.is_tracked() { state.has_failed(pod) } else { pod.has_failed() && !pod.is_deleted() }
}

fn pause(failures: i32) -> Option<SignedDuration> {
    let doublings = u32::try_from(failures.checked_sub(1)?).ok()?;
    let seconds = FIRST_SECONDS.checked_shl(doublings.min(16)).unwrap_or(LONGEST_SECONDS);
    Some(SignedDuration::from_secs(seconds.min(LONGEST_SECONDS)))
}

/// When a pod ended, as well as one can tell.
pub fn finished_at(pod: &Pod) -> Timestamp {
    let status = pod.status.as_ref();
    let containers = status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    // A sidecar ends after the others.
    let first = status.iter().flat_map(|status| status.init_container_statuses.iter().flatten());
    let is_sidecar = |name: &str| {
        let mut starting = pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten());
        starting.any(|container| container.name == name && pod_resources::is_sidecar(container))
    };
    let sidecars = first.filter(|container| is_sidecar(&container.name));
    let ends: Option<Vec<Timestamp>> = containers
        .chain(sidecars)
        .map(|container| container.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref().map(|time| time.0))
        .collect();
    let last_end = ends.and_then(|ends| ends.into_iter().max());
    let unready = || {
        let ready = pods::condition(pod, "Ready").filter(|ready| ready.status == "False")?;
        ready.last_transition_time.as_ref().map(|time| time.0)
    };
    let deleted = || {
        let grace = SignedDuration::from_secs(pod.metadata.deletion_grace_period_seconds.unwrap_or(0));
        pod.metadata.deletion_timestamp.as_ref()?.0.checked_sub(grace).ok()
    };
    let created = || pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
    last_end.or_else(unready).or_else(deleted).or_else(created).unwrap_or(Timestamp::MIN)
}

#[cfg(test)]
mod tests {
    #[test]
    fn pauses() {
        let seconds = |failures: i32| super::pause(failures).map(|pause| pause.as_secs());
        let first = [0, 1, 2, 3, 6, 7, 100].map(seconds);
        assert_eq!(first, [None, Some(10), Some(20), Some(40), Some(320), Some(600), Some(600)]);
    }
}
