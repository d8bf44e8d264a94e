//! What a Job asks for, and the labels, annotations and finalizer that its pods carry.

use std::sync::LazyLock;

use api::{Member, Pod};
use k8s_openapi::api::batch::v1::{Job, JobSpec};

pub use api::pod_facts::{COMPLETION_INDEX, JOB_TRACKING_FINALIZER as TRACKING_FINALIZER, is_tracked};

/// How often an index failed before this pod.
pub const INDEX_FAILURES: &str = "batch.kubernetes.io/job-index-failure-count";
/// How often an index failed before this pod in a way that does not count.
pub const INDEX_IGNORED_FAILURES: &str = "batch.kubernetes.io/job-index-ignored-failure-count";
/// The value of `spec.managedBy` that means this controller.
const THIS_CONTROLLER: &str = "kubernetes.io/job-controller";

/// The spec. The door lets no Job in without one; what got in anyway asks for nothing.
pub fn spec(job: &Job) -> &JobSpec {
    static NONE: LazyLock<JobSpec> = LazyLock::new(JobSpec::default);
    job.spec.as_ref().unwrap_or(&NONE)
}

/// True if somebody else takes care of the Job.
pub fn is_managed_elsewhere(job: &Job) -> bool {
    spec(job).managed_by.as_deref().is_some_and(|manager| manager != THIS_CONTROLLER)
}

/// `completionMode: Indexed`.
pub fn is_indexed(job: &Job) -> bool {
    spec(job).completion_mode.as_deref() == Some("Indexed")
}

/// `suspend: true`.
pub fn is_suspended(job: &Job) -> bool {
    spec(job).suspend == Some(true)
}

/// True if a pod is only made again once its predecessor has really ended.
pub fn replaces_only_failed(job: &Job) -> bool {
    spec(job).pod_replacement_policy.as_deref() == Some("Failed")
}

/// Pods at the same time.
pub fn parallelism(job: &Job) -> i32 {
    spec(job).parallelism.unwrap_or(1)
}

/// Indexes go from zero to below this.
pub fn index_end(job: &Job) -> i32 {
    spec(job).completions.unwrap_or(0)
}

/// The index of a pod of this Job.
pub fn index_of(pod: &Member, job: &Job) -> Option<i32> {
    pod.completion_index().filter(|index| *index < index_end(job))
}

/// A number in an annotation.
pub fn annotated(pod: &Pod, key: &str) -> Option<i32> {
    pod.metadata.annotations.as_ref()?.get(key)?.parse().ok()
}

/// The pod, no longer held back.
pub fn untracked(pod: &Pod) -> Pod {
    let mut pod = pod.clone();
    if let Some(list) = &mut pod.metadata.finalizers {
        list.retain(|finalizer| finalizer != TRACKING_FINALIZER);
    }
    pod.metadata.finalizers = pod.metadata.finalizers.filter(|list| !list.is_empty());
    pod
}
