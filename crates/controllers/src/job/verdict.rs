//! Whether a Job is to end, and how.
//!
//! Mirrors syncJob of upstream's `pkg/controller/job/job_controller.go` and `success_policy.go`: what was decided once
//! stays, and of several reasons the first in upstream's order is told.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{JobCondition, SuccessPolicyRule};

use super::conditions::{self, FAILURE_TARGET, SUCCESS_CRITERIA_MET};
use super::failure_policy::{self, Meaning};
use super::indexes::Indexes;
use super::{State, terms};
use crate::pods;

/// How a Job ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// True if it succeeds.
    pub success: bool,
    /// CamelCase.
    pub reason: String,
    /// A sentence.
    pub message: String,
}

impl Verdict {
    fn failure(reason: &str, message: impl Into<String>) -> Option<Verdict> {
        Some(Verdict { success: false, reason: reason.to_owned(), message: message.into() })
    }

    fn success(reason: &str, message: impl Into<String>) -> Option<Verdict> {
        Some(Verdict { success: true, reason: reason.to_owned(), message: message.into() })
    }

    fn told(condition: &JobCondition, success: bool) -> Verdict {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        Verdict { success, reason: text(&condition.reason), message: text(&condition.message) }
    }
}

/// How the Job ends, if it is to end.
pub fn of(state: &State) -> Option<Verdict> {
    let told = |type_: &str, success: bool| {
        conditions::told(state.job, type_).map(|condition| Verdict::told(condition, success))
    };
    told(SUCCESS_CRITERIA_MET, true)
        .or_else(|| told(FAILURE_TARGET, false))
        .or_else(|| failed_by_policy(state))
        .or_else(|| failed_too_often(state))
        .or_else(|| took_too_long(state))
        .or_else(|| indexes_failed(state))
        .or_else(|| succeeded_by_policy(state))
        .or_else(|| completed(state))
}

/// When `activeDeadlineSeconds` are over.
pub fn deadline(state: &State) -> Option<Timestamp> {
    let seconds = terms::spec(state.job).active_deadline_seconds.filter(|_| !terms::is_suspended(state.job))?;
    state.started?.checked_add(SignedDuration::from_secs(seconds)).ok()
}

/// Unlike upstream a pod that the Job itself ended (suspended, or one too many) is not judged: it was let go before, and
/// how it ends then is no failure of the work.
fn failed_by_policy(state: &State) -> Option<Verdict> {
    let mut failed = state.pods.iter().filter(|pod| pod.is_tracked() && state.has_failed(pod));
    failed.find_map(|pod| match failure_policy::judge(state.job, pod.pod()) {
        Meaning::FailsJob(message) => Verdict::failure("PodFailurePolicy", message),
        _ => None,
    })
}

fn failed_too_often(state: &State) -> Option<Verdict> {
    let limit = terms::spec(state.job).backoff_limit.unwrap_or(i32::MAX);
    let over = state.failed > limit || restarted_too_often(state, limit);
    over.then(|| Verdict::failure("BackoffLimitExceeded", "Job has reached the specified backoff limit"))?
}

/// Where containers are restarted in their pods, the restarts count.
fn restarted_too_often(state: &State, limit: i32) -> bool {
    let template = terms::spec(state.job).template.spec.as_ref();
    if template.and_then(|pod| pod.restart_policy.as_deref()) != Some("OnFailure") {
        return false;
    }
    let going_on = state.pods.iter().map(|pod| pod.pod());
    let going_on = going_on.filter(|pod| matches!(pods::phase(pod), "Running" | "Pending"));
    let restarts = going_on.map(restarts).fold(0, i32::saturating_add);
    if limit == 0 { restarts > 0 } else { restarts >= limit }
}

/// Restarts of all containers of a pod.
pub fn restarts(pod: &api::Pod) -> i32 {
    let Some(status) = pod.status.as_ref() else { return 0 };
    let lists = [&status.init_container_statuses, &status.container_statuses];
    lists.into_iter().flat_map(|list| list.iter().flatten()).map(|one| one.restart_count).fold(0, i32::saturating_add)
}

fn took_too_long(state: &State) -> Option<Verdict> {
    deadline(state).filter(|deadline| *deadline <= state.now)?;
    Verdict::failure("DeadlineExceeded", "Job was active longer than specified deadline")
}

fn indexes_failed(state: &State) -> Option<Verdict> {
    let failed = state.failed_indexes.as_ref()?.total();
    let spec = terms::spec(state.job);
    if spec.max_failed_indexes.is_some_and(|most| failed > most) {
        let message = "Job has exceeded the specified maximal number of failed indexes";
        return Verdict::failure("MaxFailedIndexesExceeded", message);
    }
    let over = failed > 0 && failed + state.succeeded_indexes.total() >= terms::index_end(state.job);
    over.then(|| Verdict::failure("FailedIndexes", "Job has failed indexes"))?
}

fn succeeded_by_policy(state: &State) -> Option<Verdict> {
    let succeeded = &state.succeeded_indexes;
    let rules = terms::spec(state.job).success_policy.iter().flat_map(|policy| &policy.rules);
    let met = |rule: &SuccessPolicyRule| match (&rule.succeeded_indexes, rule.succeeded_count) {
        (Some(wanted), count) => {
            let wanted = Indexes::parse(wanted, terms::index_end(state.job));
            wanted.shared(succeeded) >= count.unwrap_or_else(|| wanted.total())
        }
        (None, Some(count)) => succeeded.total() >= count,
        (None, None) => false,
    };
    let (at, _) = rules.enumerate().find(|(_, rule)| succeeded.total() > 0 && met(rule))?;
    Verdict::success("SuccessPolicy", format!("Matched rules at index {at}"))
}

fn completed(state: &State) -> Option<Verdict> {
    let enough = match terms::spec(state.job).completions {
        // Any pod that ends well can tell that the work is done; the others are left to end.
        None => state.succeeded > 0,
        Some(completions) => state.succeeded >= completions,
    };
    (enough && state.active.is_empty())
        .then(|| Verdict::success("CompletionsReached", "Reached expected number of succeeded pods"))?
}
