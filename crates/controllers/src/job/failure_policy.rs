//! What the failure of a pod means: `spec.podFailurePolicy`.
//!
//! Mirrors upstream's `pkg/controller/job/pod_failure_policy.go`. The first rule that fits decides.

use api::Pod;
use k8s_openapi::api::batch::v1::{Job, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyRule};
use k8s_openapi::api::core::v1::ContainerStatus;

use super::terms;
use crate::pods;

/// What a failed pod means to its Job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// It counts towards the back-off limits.
    Counts,
    /// It does not.
    Ignored,
    /// Its index has failed.
    FailsIndex,
    /// The Job has failed, for this reason.
    FailsJob(String),
}

/// Judges a pod that has failed.
pub fn judge(job: &Job, pod: &Pod) -> Meaning {
    let rules = terms::spec(job).pod_failure_policy.iter().flat_map(|policy| &policy.rules);
    for (at, rule) in rules.enumerate() {
        let Some(cause) = cause(rule, pod) else { continue };
        return match rule.action.as_str() {
            "Ignore" => Meaning::Ignored,
            "FailIndex" => Meaning::FailsIndex,
            "FailJob" => Meaning::FailsJob(format!("{cause} matching FailJob rule at index {at}")),
            _ => Meaning::Counts,
        };
    }
    Meaning::Counts
}

/// Why the rule fits, if it does.
fn cause(rule: &PodFailurePolicyRule, pod: &Pod) -> Option<String> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("");
    let place = format!("{namespace}/{}", pods::name(pod));
    if let Some(wanted) = &rule.on_exit_codes {
        let status = pod.status.as_ref()?;
        let lists = [&status.container_statuses, &status.init_container_statuses];
        let mut containers = lists.into_iter().flat_map(|list| list.iter().flatten());
        let (name, code) = containers.find_map(|container| {
            let code = exit_code(container).filter(|code| fits(wanted, &container.name, *code))?;
            Some((&container.name, code))
        })?;
        return Some(format!("Container {name} for pod {place} failed with exit code {code}"));
    }
    let patterns = rule.on_pod_conditions.iter().flatten();
    let mut found = patterns.filter(|pattern| {
        let status = pods::condition(pod, &pattern.type_).map(|condition| condition.status.as_str());
        status.is_some_and(|status| status == pattern.status.as_deref().unwrap_or("True"))
    });
    found.next().map(|pattern| format!("Pod {place} has condition {}", pattern.type_))
}

/// With what the container ended; `None` if it did not, or if it ended well.
fn exit_code(container: &ContainerStatus) -> Option<i32> {
    container.state.as_ref()?.terminated.as_ref().map(|ended| ended.exit_code).filter(|code| *code != 0)
}

fn fits(wanted: &PodFailurePolicyOnExitCodesRequirement, container: &str, code: i32) -> bool {
    wanted.container_name.as_deref().is_none_or(|name| name == container)
        && wanted.values.contains(&code) == (wanted.operator == "In")
}
