//! Defaults of Jobs and CronJobs.
//!
//! Mirrors `pkg/apis/batch/v1/defaults.go`.

use k8s_openapi::api::batch::v1::{CronJob, Job, JobSpec};

use super::{fill, pod};

/// Failed pods after which a Job has failed.
const BACKOFF_LIMIT: i32 = 6;

/// A Job.
pub fn job(job: &mut Job) {
    let spec = job.spec.get_or_insert_default();
    job_spec(spec);
    let labels = spec.template.metadata.as_ref().and_then(|meta| meta.labels.clone());
    if let Some(labels) = labels.filter(|_| job.metadata.labels.as_ref().is_none_or(|labels| labels.is_empty())) {
        job.metadata.labels = Some(labels);
    }
    if spec.completions.is_none() && spec.parallelism.is_none() {
        spec.completions = Some(1);
    }
    spec.parallelism.get_or_insert(1);
    spec.backoff_limit.get_or_insert(if spec.backoff_limit_per_index.is_some() { i32::MAX } else { BACKOFF_LIMIT });
    fill(&mut spec.completion_mode, "NonIndexed");
    spec.suspend.get_or_insert(false);
    let replacement = if spec.pod_failure_policy.is_some() { "Failed" } else { "TerminatingOrFailed" };
    fill(&mut spec.pod_replacement_policy, replacement);
    spec.manual_selector.get_or_insert(false);
}

/// What also holds for the Job template of a CronJob.
fn job_spec(spec: &mut JobSpec) {
    pod::pod_template(&mut spec.template);
    let rules = spec.pod_failure_policy.iter_mut().flat_map(|policy| policy.rules.iter_mut());
    for condition in rules.flat_map(|rule| rule.on_pod_conditions.iter_mut().flatten()) {
        fill(&mut condition.status, "True");
    }
}

/// A CronJob.
pub fn cron_job(cron_job: &mut CronJob) {
    let spec = &mut cron_job.spec;
    fill(&mut spec.concurrency_policy, "Allow");
    spec.suspend.get_or_insert(false);
    spec.successful_jobs_history_limit.get_or_insert(3);
    spec.failed_jobs_history_limit.get_or_insert(1);
    job_spec(spec.job_template.spec.get_or_insert_default());
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use serde_json::{Value, json};

    fn shown(spec: Value) -> String {
        let mut made: Job = serde_json::from_value(json!({ "spec": spec })).unwrap();
        job(&mut made);
        let once = made.clone();
        job(&mut made);
        assert_eq!(once, made, "defaulting twice changes nothing");
        let mut value = serde_json::to_value(made).unwrap();
        value["spec"].as_object_mut().unwrap().remove("template");
        format!("{} {}\n", value["metadata"], value["spec"])
    }

    #[test]
    fn jobs_are_written_out() {
        let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": []}});
        let table = [
            json!({"template": template}),
            json!({"template": template, "parallelism": 3}),
            json!({"template": template, "completions": 3, "backoffLimitPerIndex": 1}),
            json!({"template": template, "podFailurePolicy": {"rules": [{"action": "Ignore", "onPodConditions": [{"type": "X"}]}]}}),
        ]
        .map(shown)
        .concat();
        expect![[r#"
            {"labels":{"a":"b"}} {"backoffLimit":6,"completionMode":"NonIndexed","completions":1,"manualSelector":false,"parallelism":1,"podReplacementPolicy":"TerminatingOrFailed","suspend":false}
            {"labels":{"a":"b"}} {"backoffLimit":6,"completionMode":"NonIndexed","manualSelector":false,"parallelism":3,"podReplacementPolicy":"TerminatingOrFailed","suspend":false}
            {"labels":{"a":"b"}} {"backoffLimit":2147483647,"backoffLimitPerIndex":1,"completionMode":"NonIndexed","completions":3,"manualSelector":false,"parallelism":1,"podReplacementPolicy":"TerminatingOrFailed","suspend":false}
            {"labels":{"a":"b"}} {"backoffLimit":6,"completionMode":"NonIndexed","completions":1,"manualSelector":false,"parallelism":1,"podFailurePolicy":{"rules":[{"action":"Ignore","onPodConditions":[{"status":"True","type":"X"}]}]},"podReplacementPolicy":"Failed","suspend":false}
        "#]].assert_eq(&table);
    }
}
