//! Conditions of a Deployment: finding and setting them, with the two times upstream keeps.
//!
//! Mirrors SetDeploymentCondition (`pkg/controller/deployment/util/deployment_util.go`).

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::DeploymentCondition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// Whether enough pods are available.
pub const AVAILABLE: &str = "Available";
/// Whether the rollout gets on.
pub const PROGRESSING: &str = "Progressing";
/// Whether pods cannot be made or ended.
pub const REPLICA_FAILURE: &str = "ReplicaFailure";

/// A condition without times; [`set`] fills them in.
pub fn new(type_: &str, status: &str, reason: &str, message: impl Into<String>) -> DeploymentCondition {
    DeploymentCondition {
        type_: type_.into(),
        status: status.into(),
        reason: Some(reason.into()),
        message: Some(message.into()),
        last_transition_time: None,
        last_update_time: None,
    }
}

/// A rollout that gets on.
pub fn progressing(reason: &str, message: impl Into<String>) -> DeploymentCondition {
    new(PROGRESSING, "True", reason, message)
}

/// The condition of this type.
pub fn find<'a>(list: &'a [DeploymentCondition], type_: &str) -> Option<&'a DeploymentCondition> {
    list.iter().find(|condition| condition.type_ == type_)
}

/// True if the condition of this type is there for this reason.
pub fn has_reason(list: &[DeploymentCondition], type_: &str, reason: &str) -> bool {
    find(list, type_).is_some_and(|condition| condition.reason.as_deref() == Some(reason))
}

/// Sets a condition, unless it is there with the same status and reason.
pub fn set(list: &mut Vec<DeploymentCondition>, condition: DeploymentCondition, now: Timestamp) {
    let same = |old: &DeploymentCondition| old.status == condition.status && old.reason == condition.reason;
    if !find(list, &condition.type_).is_some_and(same) {
        renew(list, condition, now);
    }
}

/// Sets a condition in any case: its time of update is now.
pub fn renew(list: &mut Vec<DeploymentCondition>, mut condition: DeploymentCondition, now: Timestamp) {
    let old = find(list, &condition.type_).filter(|old| old.status == condition.status);
    let since = old.and_then(|old| old.last_transition_time.clone()).unwrap_or(Time(now));
    condition.last_transition_time.get_or_insert(since);
    condition.last_update_time.get_or_insert(Time(now));
    remove(list, &condition.type_.clone());
    list.push(condition);
}

/// Takes a condition away.
pub fn remove(list: &mut Vec<DeploymentCondition>, type_: &str) {
    list.retain(|condition| condition.type_ != type_);
}
