//! The conditions of a Job.
//!
//! Mirrors upstream's `pkg/controller/job/job_controller.go` (ensureJobConditionStatus) and `utils.go`. A Job that ends
//! is first marked (`SuccessCriteriaMet`, `FailureTarget`), then its last pods are counted, and only then it is
//! `Complete` or `Failed`.

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{Job, JobCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// Every pod was counted and the Job has done what it should.
pub const COMPLETE: &str = "Complete";
/// Every pod was counted and the Job has failed.
pub const FAILED: &str = "Failed";
/// The Job will be complete.
pub const SUCCESS_CRITERIA_MET: &str = "SuccessCriteriaMet";
/// The Job will have failed.
pub const FAILURE_TARGET: &str = "FailureTarget";
/// The Job is suspended.
pub const SUSPENDED: &str = "Suspended";

/// The condition of this type, if it is true.
pub fn told<'a>(job: &'a Job, type_: &str) -> Option<&'a JobCondition> {
    let mut conditions = job.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.find(|condition| condition.type_ == type_ && condition.status == "True")
}

/// The condition that says that the Job is over, and how.
pub fn finished(job: &Job) -> Option<&JobCondition> {
    told(job, COMPLETE).or_else(|| told(job, FAILED))
}

/// Makes a condition true or false; true if that changed it. One that is not there is not told to be false.
pub fn set(
    list: &mut Option<Vec<JobCondition>>,
    type_: &str,
    status: bool,
    (reason, message): (&str, &str),
    now: Timestamp,
) -> bool {
    let new = JobCondition {
        type_: type_.to_owned(),
        status: if status { "True" } else { "False" }.to_owned(),
        reason: Some(reason.to_owned()).filter(|text| !text.is_empty()),
        message: Some(message.to_owned()).filter(|text| !text.is_empty()),
        last_probe_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    };
    let conditions = list.get_or_insert_default();
    let changed = match conditions.iter_mut().find(|condition| condition.type_ == type_) {
        Some(old) if old.status == new.status && old.reason == new.reason && old.message == new.message => false,
        Some(old) => {
            *old = new;
            true
        }
        None if status => {
            conditions.push(new);
            true
        }
        None => false,
    };
    if conditions.is_empty() {
        *list = None;
    }
    changed
}
