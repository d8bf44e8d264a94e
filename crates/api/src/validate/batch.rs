//! Jobs and CronJobs.
//!
//! Mirrors `pkg/apis/batch/validation/validation.go`.

use std::collections::BTreeMap;

use k8s_openapi::api::batch::v1::{
    CronJob, Job, JobSpec, JobStatus, PodFailurePolicyOnExitCodesRequirement, PodFailurePolicyRule, SuccessPolicyRule,
};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::field::{Errors, Path};
use super::{meta, pod};
use crate::names;
use crate::prepare::{CONTROLLER_UID_LABEL, JOB_NAME_LABEL};
use crate::schedule::{self, Schedule};
use crate::selector::Selector;

const SPEC: Path<'static> = Path::root("spec");
const INDEXED_PARALLELISM: i32 = 100_000;
const INDEXED_FAILURES: i32 = 100_000;
const FAILURE_RULES: usize = 20;
const SUCCESS_RULES: usize = 20;
const EXIT_CODES: usize = 255;
const CONDITIONS: usize = 20;
const CRON_JOB_NAME: usize = 52;

/// A new Job, after its selector was made.
pub fn create_job(job: &Job) -> Errors {
    let mut errors = Errors::default();
    meta::create(&mut errors, &job.metadata, true, names::dns_subdomain);
    let Some(spec) = job.spec.as_ref() else {
        errors.required(&SPEC.child("template"), "");
        return errors;
    };
    if spec.manual_selector != Some(true) {
        own_labels(&mut errors, &job.metadata, spec);
    }
    job_with_selector(&mut errors, spec);
    let completions = spec.completions.unwrap_or(0);
    if spec.completion_mode.as_deref() == Some("Indexed") && completions > 0 {
        let name = job.metadata.name.as_deref().unwrap_or_default();
        let host = format!("{name}-{}", completions - 1);
        if !names::dns_label(&host).is_empty() {
            let detail = format!("will not able to create pod with invalid DNS label: {host}");
            errors.invalid(&Path::root("metadata.name"), name, detail);
        }
    }
    errors
}

/// A changed Job: what its pods are made from stays.
pub fn update_job(new: &Job, old: &Job) -> Errors {
    let mut errors = Errors::default();
    meta::update(&mut errors, &new.metadata, &old.metadata);
    let rests = is_at_rest(old.status.as_ref());
    let (Some(new), Some(old)) = (new.spec.as_ref(), old.spec.as_ref()) else { return errors };
    job_with_selector(&mut errors, new);
    let path = SPEC.child("completions");
    if new.completion_mode.as_deref() != Some("Indexed") {
        errors.immutable(&path, &new.completions, &old.completions);
    } else if new.completions != old.completions && new.completions.is_some() && new.completions != new.parallelism {
        errors.invalid_object(&path, &new.completions, "can only be modified in tandem with spec.parallelism");
    }
    errors.immutable(&SPEC.child("selector"), &new.selector, &old.selector);
    let mut allowed = old.template.clone();
    if old.suspend == Some(true) && rests {
        scheduling_of(&mut allowed, &new.template);
        resources_of(&mut allowed, &new.template);
    }
    errors.immutable(&SPEC.child("template"), &new.template, &allowed);
    errors.immutable(&SPEC.child("completionMode"), &new.completion_mode, &old.completion_mode);
    errors.immutable(&SPEC.child("podFailurePolicy"), &new.pod_failure_policy, &old.pod_failure_policy);
    errors.immutable(&SPEC.child("backoffLimitPerIndex"), &new.backoff_limit_per_index, &old.backoff_limit_per_index);
    errors.immutable(&SPEC.child("managedBy"), &new.managed_by, &old.managed_by);
    errors.immutable(&SPEC.child("successPolicy"), &new.success_policy, &old.success_policy);
    errors
}

/// True if no pod is at work of a Job that is told to be suspended (upstream: validationOptionsForJob of
/// `registry/batch/job/strategy.go`).
fn is_at_rest(status: Option<&JobStatus>) -> bool {
    let suspended = |status: &JobStatus| {
        status.conditions.iter().flatten().any(|condition| condition.type_ == "Suspended" && condition.status == "True")
    };
    status.is_some_and(|status| suspended(status) && status.active.unwrap_or(0) == 0)
}

/// While a Job is suspended, what its pods ask for may still change (upstream: validatePodResourceUpdatesOnly).
fn resources_of(template: &mut PodTemplateSpec, new: &PodTemplateSpec) {
    let (Some(pod), Some(new)) = (template.spec.as_mut(), new.spec.as_ref()) else { return };
    let lists = [
        (pod.containers.iter_mut().collect::<Vec<_>>(), new.containers.iter().collect::<Vec<_>>()),
        (pod.init_containers.iter_mut().flatten().collect(), new.init_containers.iter().flatten().collect()),
    ];
    for (old, new) in lists.into_iter().filter(|(old, new)| old.len() == new.len()) {
        for (old, new) in old.into_iter().zip(new).filter(|(old, new)| old.name == new.name) {
            old.resources.clone_from(&new.resources);
        }
    }
}

/// While a Job is suspended, where its pods run may still change.
fn scheduling_of(template: &mut PodTemplateSpec, new: &PodTemplateSpec) {
    if let (Some(meta), Some(new)) = (template.metadata.as_mut(), new.metadata.as_ref()) {
        meta.labels.clone_from(&new.labels);
        meta.annotations.clone_from(&new.annotations);
    }
    if let (Some(pod), Some(new)) = (template.spec.as_mut(), new.spec.as_ref()) {
        pod.node_selector.clone_from(&new.node_selector);
        pod.tolerations.clone_from(&new.tolerations);
        pod.scheduling_gates.clone_from(&new.scheduling_gates);
        let node_affinity = new.affinity.as_ref().and_then(|affinity| affinity.node_affinity.clone());
        if pod.affinity.is_some() || new.affinity.is_some() {
            pod.affinity.get_or_insert_default().node_affinity = node_affinity;
        }
    }
}

/// A new CronJob.
pub fn create_cron_job(cron_job: &CronJob) -> Errors {
    let mut errors = Errors::default();
    meta::create(&mut errors, &cron_job.metadata, true, names::dns_subdomain);
    let name = cron_job.metadata.name.as_deref().unwrap_or_default();
    cron_job_spec(&mut errors, cron_job);
    if name.len() > CRON_JOB_NAME {
        let detail = format!("must be no more than {CRON_JOB_NAME} characters");
        errors.invalid(&Path::root("metadata.name"), name, detail);
    }
    errors
}

/// A changed CronJob.
pub fn update_cron_job(new: &CronJob, old: &CronJob) -> Errors {
    let mut errors = Errors::default();
    meta::update(&mut errors, &new.metadata, &old.metadata);
    cron_job_spec(&mut errors, new);
    errors
}

fn cron_job_spec(errors: &mut Errors, cron_job: &CronJob) {
    let spec = &cron_job.spec;
    let path = SPEC.child("schedule");
    let schedule = spec.schedule.as_str();
    if schedule.is_empty() {
        errors.required(&path, "");
    } else if schedule.contains("TZ") {
        errors.invalid(&path, schedule, "cannot use TZ or CRON_TZ in schedule, use timeZone field instead");
    } else if let Err(error) = Schedule::parse(schedule, None) {
        errors.invalid(&path, schedule, error.to_string());
    }
    if let Some(zone) = spec.time_zone.as_deref() {
        time_zone(errors, zone);
    }
    errors.not_negative(&SPEC.child("startingDeadlineSeconds"), spec.starting_deadline_seconds.unwrap_or(0));
    let policies = ["Allow", "Forbid", "Replace"];
    errors.one_of(&SPEC.child("concurrencyPolicy"), spec.concurrency_policy.as_deref(), &policies);
    let limits = [
        ("successfulJobsHistoryLimit", spec.successful_jobs_history_limit),
        ("failedJobsHistoryLimit", spec.failed_jobs_history_limit),
    ];
    for (field, limit) in limits {
        errors.not_negative(&SPEC.child(field), limit.unwrap_or(0));
    }
    let template = SPEC.child("jobTemplate.spec");
    let Some(job) = spec.job_template.spec.as_ref() else { return errors.required(&template, "") };
    job_spec(errors, &template, job);
    if job.selector.is_some() {
        errors.invalid_object(&template.child("selector"), &job.selector, "`selector` will be auto-generated");
    }
    if job.manual_selector == Some(true) {
        errors.not_supported(&template.child("manualSelector"), true, &["nil", "false"]);
    }
}

fn time_zone(errors: &mut Errors, zone: &str) {
    let path = SPEC.child("timeZone");
    if zone.is_empty() {
        return errors.invalid(&path, zone, "timeZone must be nil or non-empty string");
    }
    if zone.eq_ignore_ascii_case("local") {
        let detail = "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones";
        errors.invalid(&path, zone, detail);
    } else if schedule::time_zone(zone).is_none() {
        errors.invalid(&path, zone, format!("unknown time zone {zone}"));
    }
}

/// The labels that tell a Job's pods from others' have to be the Job's own.
fn own_labels(errors: &mut Errors, meta: &ObjectMeta, spec: &JobSpec) {
    let uid = meta.uid.as_deref().unwrap_or_default();
    let name = meta.name.as_deref().unwrap_or_default();
    if uid.is_empty() {
        errors.required(&Path::root("metadata.uid"), "");
    }
    let path = SPEC.child("template.metadata.labels");
    let labels = spec.template.metadata.as_ref().and_then(|meta| meta.labels.as_ref());
    let wanted = [("controller-uid", uid), ("job-name", name), (CONTROLLER_UID_LABEL, uid), (JOB_NAME_LABEL, name)];
    for (key, value) in wanted {
        match labels.and_then(|labels| labels.get(key)) {
            None => errors.required(&path.key(key), format!("must be '{value}'")),
            Some(found) if found != value => {
                errors.invalid_object(&path.key(key), &labels, format!("must be '{value}'"));
            }
            Some(_) => {}
        }
    }
    let own: BTreeMap<String, String> = wanted.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    if Selector::from_label_selector(spec.selector.as_ref()).is_ok_and(|selector| !selector.matches(&own)) {
        errors.invalid_object(&SPEC.child("selector"), &spec.selector, "`selector` not auto-generated");
    }
}

fn job_with_selector(errors: &mut Errors, spec: &JobSpec) {
    job_spec(errors, &SPEC, spec);
    match spec.selector.as_ref() {
        None => errors.required(&SPEC.child("selector"), ""),
        Some(selector) => meta::label_selector(errors, &SPEC.child("selector"), selector),
    }
    let labels = spec.template.metadata.as_ref().and_then(|meta| meta.labels.as_ref());
    if Selector::from_label_selector(spec.selector.as_ref()).is_ok_and(|selector| !selector.matches(labels)) {
        let detail = "`selector` does not match template `labels`";
        errors.invalid_object(&SPEC.child("template.metadata.labels"), &labels, detail);
    }
}

fn job_spec(errors: &mut Errors, path: &Path<'_>, spec: &JobSpec) {
    let numbers = [
        ("parallelism", spec.parallelism),
        ("completions", spec.completions),
        ("backoffLimit", spec.backoff_limit),
        ("ttlSecondsAfterFinished", spec.ttl_seconds_after_finished),
        ("backoffLimitPerIndex", spec.backoff_limit_per_index),
        ("maxFailedIndexes", spec.max_failed_indexes),
    ];
    for (field, number) in numbers {
        errors.not_negative(&path.child(field), number.unwrap_or(0));
    }
    errors.not_negative(&path.child("activeDeadlineSeconds"), spec.active_deadline_seconds.unwrap_or(0));
    if spec.max_failed_indexes.is_some() && spec.backoff_limit_per_index.is_none() {
        errors.required(&path.child("backoffLimitPerIndex"), "when maxFailedIndexes is specified");
    }
    let modes = ["NonIndexed", "Indexed"];
    errors.optional_one_of(&path.child("completionMode"), spec.completion_mode.as_deref(), &modes);
    if spec.completion_mode.as_deref() == Some("Indexed") {
        indexed(errors, path, spec);
    } else {
        not_indexed(errors, path, spec);
    }
    failure_policy(errors, &path.child("podFailurePolicy.rules"), spec);
    success_policy(errors, path, spec);
    let replacement = spec.pod_replacement_policy.as_deref();
    let replacements: &[&str] =
        if spec.pod_failure_policy.is_some() { &["Failed"] } else { &["Failed", "TerminatingOrFailed"] };
    errors.optional_one_of(&path.child("podReplacementPolicy"), replacement, replacements);
    pod::template(errors, &path.child("template"), &spec.template);
    restart_policy(errors, &path.child("template.spec.restartPolicy"), spec);
}

fn indexed(errors: &mut Errors, path: &Path<'_>, spec: &JobSpec) {
    if spec.completions.is_none() {
        errors.required(&path.child("completions"), "when completion mode is Indexed");
    }
    if let Some(parallelism) = spec.parallelism.filter(|number| *number > INDEXED_PARALLELISM) {
        let detail = format!("must be less than or equal to {INDEXED_PARALLELISM} when completion mode is Indexed");
        errors.invalid(&path.child("parallelism"), parallelism, detail);
    }
    let Some(failures) = spec.max_failed_indexes else { return };
    if spec.completions.is_some_and(|completions| failures > completions) {
        errors.invalid(&path.child("maxFailedIndexes"), failures, "must be less than or equal to completions");
    }
    if failures > INDEXED_FAILURES {
        let detail = format!("must be less than or equal to {INDEXED_FAILURES}");
        errors.invalid(&path.child("maxFailedIndexes"), failures, detail);
    }
}

fn not_indexed(errors: &mut Errors, path: &Path<'_>, spec: &JobSpec) {
    let given = [("backoffLimitPerIndex", spec.backoff_limit_per_index), ("maxFailedIndexes", spec.max_failed_indexes)];
    for (field, number) in given {
        if let Some(number) = number {
            errors.invalid(&path.child(field), number, "requires indexed completion mode");
        }
    }
    if let Some(policy) = spec.success_policy.as_ref() {
        errors.invalid_object(&path.child("successPolicy"), policy, "requires indexed completion mode");
    }
}

fn restart_policy(errors: &mut Errors, path: &Path<'_>, spec: &JobSpec) {
    let policy = spec.template.spec.as_ref().and_then(|pod| pod.restart_policy.as_deref());
    match policy {
        None | Some("" | "Always") => errors.required(path, "valid values: \"OnFailure\", \"Never\""),
        Some("Never") => {}
        Some("OnFailure") if spec.pod_failure_policy.is_some() => {
            errors.invalid(path, "OnFailure", "only \"Never\" is supported when podFailurePolicy is specified");
        }
        Some("OnFailure") => {}
        Some(other) => errors.not_supported(path, other, &["OnFailure", "Never"]),
    }
}

fn failure_policy(errors: &mut Errors, path: &Path<'_>, spec: &JobSpec) {
    let Some(policy) = spec.pod_failure_policy.as_ref() else { return };
    if policy.rules.len() > FAILURE_RULES {
        errors.too_many(path, policy.rules.len(), FAILURE_RULES);
    }
    for (i, rule) in policy.rules.iter().enumerate() {
        failure_rule(errors, &path.index(i), rule, spec);
    }
}

fn failure_rule(errors: &mut Errors, path: &Path<'_>, rule: &PodFailurePolicyRule, spec: &JobSpec) {
    let actions = ["Count", "FailIndex", "FailJob", "Ignore"];
    let at = path.child("action");
    match rule.action.as_str() {
        "" => errors.required(&at, "valid values: [\"Count\" \"FailIndex\" \"FailJob\" \"Ignore\"]"),
        "FailIndex" if spec.backoff_limit_per_index.is_none() => {
            errors.invalid(&at, "FailIndex", "requires the backoffLimitPerIndex to be set");
        }
        action => errors.optional_one_of(&at, Some(action), &actions),
    }
    if let Some(codes) = rule.on_exit_codes.as_ref() {
        exit_codes(errors, &path.child("onExitCodes"), codes, spec);
    }
    let conditions = rule.on_pod_conditions.as_deref().unwrap_or_default();
    let at = path.child("onPodConditions");
    if conditions.len() > CONDITIONS {
        errors.too_many(&at, conditions.len(), CONDITIONS);
    }
    for (i, condition) in conditions.iter().enumerate() {
        let at = at.index(i);
        errors.each(&at.child("type"), &condition.type_, names::qualified_name(&condition.type_));
        errors.one_of(&at.child("status"), condition.status.as_deref(), &["False", "True", "Unknown"]);
    }
    match (rule.on_exit_codes.is_some(), conditions.is_empty()) {
        (true, false) => errors.invalid_rule(path, "specifying both OnExitCodes and OnPodConditions is not supported"),
        (false, true) => errors.invalid_rule(path, "specifying one of OnExitCodes and OnPodConditions is required"),
        _ => {}
    }
}

fn exit_codes(errors: &mut Errors, path: &Path<'_>, codes: &PodFailurePolicyOnExitCodesRequirement, spec: &JobSpec) {
    errors.one_of(&path.child("operator"), Some(codes.operator.as_str()), &["In", "NotIn"]);
    let pod = spec.template.spec.as_ref();
    let containers = pod.iter().flat_map(|pod| pod.containers.iter().chain(pod.init_containers.iter().flatten()));
    if let Some(name) = codes.container_name.as_deref()
        && !containers.into_iter().any(|container| container.name == name)
    {
        let detail = "must be one of the container or initContainer names in the pod template";
        errors.invalid(&path.child("containerName"), name, detail);
    }
    let at = path.child("values");
    if codes.values.is_empty() {
        errors.invalid_object(&at, &codes.values, "at least one value is required");
    } else if codes.values.len() > EXIT_CODES {
        errors.too_many(&at, codes.values.len(), EXIT_CODES);
    }
    for (i, code) in codes.values.iter().enumerate() {
        if codes.operator == "In" && *code == 0 {
            errors.invalid(&at.index(i), 0, "must not be 0 for the In operator");
        }
        if codes.values[..i].contains(code) {
            errors.duplicate(&at.index(i), *code);
        }
    }
    if !codes.values.is_sorted() {
        errors.invalid_object(&at, &codes.values, "must be ordered");
    }
}

fn success_policy(errors: &mut Errors, path: &Path<'_>, spec: &JobSpec) {
    let Some(policy) = spec.success_policy.as_ref().filter(|_| spec.completion_mode.as_deref() == Some("Indexed"))
    else {
        return;
    };
    let path = path.child("successPolicy.rules");
    if policy.rules.is_empty() {
        errors.required(&path, "at least one rules must be specified when the successPolicy is specified");
    }
    if policy.rules.len() > SUCCESS_RULES {
        errors.too_many(&path, policy.rules.len(), SUCCESS_RULES);
    }
    for (i, rule) in policy.rules.iter().enumerate() {
        success_rule(errors, &path.index(i), rule, spec.completions.unwrap_or(0));
    }
}

fn success_rule(errors: &mut Errors, path: &Path<'_>, rule: &SuccessPolicyRule, completions: i32) {
    if rule.succeeded_count.is_none() && rule.succeeded_indexes.is_none() {
        errors.required(path, "at least one of succeededCount or succeededIndexes must be specified");
    }
    let Some(count) = rule.succeeded_count else { return };
    let path = path.child("succeededCount");
    errors.not_negative(&path, count);
    if count > completions {
        let detail = format!("must be less than or equal to {completions} (the number of specified completions)");
        errors.invalid(&path, count, detail);
    }
}
