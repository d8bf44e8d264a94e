//! Deployments, ReplicaSets, DaemonSets, StatefulSets and ReplicationControllers.
//!
//! Mirrors `pkg/apis/apps/validation/validation.go`, and for ReplicationControllers the core group's.

use k8s_openapi::api::apps::v1::{
    ControllerRevision, DaemonSet, DaemonSetSpec, Deployment, DeploymentSpec, DeploymentStrategy, ReplicaSet,
    ReplicaSetSpec, RollingUpdateDaemonSet, RollingUpdateDeployment, StatefulSet, StatefulSetSpec,
};
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaimVolumeSource, PodTemplateSpec, ReplicationController, ReplicationControllerSpec, Volume,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::field::{Errors, Path};
use super::{meta, pod};
use crate::selector::Selector;
use crate::{int_or_string, names};

const SPEC: Path<'static> = Path::root("spec");
const STATUS: Path<'static> = Path::root("status");
const NO_MORE_THAN_ALL: &str = "cannot be greater than status.replicas";

/// A new Deployment.
pub fn create_deployment(deployment: &Deployment) -> Errors {
    let mut errors = Errors::default();
    meta::create(&mut errors, &deployment.metadata, true, names::dns_subdomain);
    deployment_spec(&mut errors, deployment.spec.as_ref());
    errors
}

/// A changed Deployment.
pub fn update_deployment(new: &Deployment, old: &Deployment) -> Errors {
    let mut errors = Errors::default();
    meta::update(&mut errors, &new.metadata, &old.metadata);
    deployment_spec(&mut errors, new.spec.as_ref());
    let selector = |deployment: &Deployment| deployment.spec.as_ref().map(|spec| spec.selector.clone());
    errors.immutable(&SPEC.child("selector"), &selector(new), &selector(old));
    errors
}

/// A changed status of a Deployment.
pub fn update_deployment_status(new: &Deployment, old: &Deployment) -> Errors {
    let mut errors = Errors::default();
    meta::update(&mut errors, &new.metadata, &old.metadata);
    let status = new.status.clone().unwrap_or_default();
    let all = status.replicas.unwrap_or(0);
    let numbers = [
        ("updatedReplicas", status.updated_replicas),
        ("readyReplicas", status.ready_replicas),
        ("availableReplicas", status.available_replicas),
    ];
    replica_counts(&mut errors, all, &numbers);
    available_within_ready(&mut errors, status.available_replicas, status.ready_replicas);
    for (field, number) in [
        ("unavailableReplicas", status.unavailable_replicas),
        ("terminatingReplicas", status.terminating_replicas),
        ("collisionCount", status.collision_count),
    ] {
        errors.not_negative(&STATUS.child(field), number.unwrap_or(0));
    }
    errors.not_negative(&STATUS.child("observedGeneration"), status.observed_generation.unwrap_or(0));
    let collisions = |deployment: &Deployment| deployment.status.as_ref().and_then(|status| status.collision_count);
    not_decremented(&mut errors, collisions(new), collisions(old));
    errors
}

/// A new ReplicaSet.
pub fn create_replica_set(replica_set: &ReplicaSet) -> Errors {
    let mut errors = Errors::default();
    meta::create(&mut errors, &replica_set.metadata, true, names::dns_subdomain);
    replica_set_spec(&mut errors, replica_set.spec.as_ref());
    errors
}

/// A changed ReplicaSet.
pub fn update_replica_set(new: &ReplicaSet, old: &ReplicaSet) -> Errors {
    let mut errors = Errors::default();
    meta::update(&mut errors, &new.metadata, &old.metadata);
    replica_set_spec(&mut errors, new.spec.as_ref());
    let selector = |replica_set: &ReplicaSet| replica_set.spec.as_ref().map(|spec| spec.selector.clone());
    errors.immutable(&SPEC.child("selector"), &selector(new), &selector(old));
    errors
}

/// A changed status of a ReplicaSet.
pub fn update_replica_set_status(new: &ReplicaSet, old: &ReplicaSet) -> Errors {
    let mut errors = Errors::default();
    meta::update(&mut errors, &new.metadata, &old.metadata);
    let status = new.status.clone().unwrap_or_default();
    let numbers = [
        ("fullyLabeledReplicas", status.fully_labeled_replicas),
        ("readyReplicas", status.ready_replicas),
        ("availableReplicas", status.available_replicas),
    ];
    replica_counts(&mut errors, status.replicas, &numbers);
    available_within_ready(&mut errors, status.available_replicas, status.ready_replicas);
    errors.not_negative(&STATUS.child("terminatingReplicas"), status.terminating_replicas.unwrap_or(0));
    errors.not_negative(&STATUS.child("observedGeneration"), status.observed_generation.unwrap_or(0));
    errors
}

/// A new ReplicationController.
pub fn create_replication_controller(controller: &ReplicationController) -> Errors {
    let mut errors = Errors::default();
    meta::create(&mut errors, &controller.metadata, true, names::dns_subdomain);
    replication_controller_spec(&mut errors, controller.spec.as_ref());
    errors
}

/// A changed ReplicationController.
pub fn update_replication_controller(new: &ReplicationController, old: &ReplicationController) -> Errors {
    let mut errors = Errors::default();
    meta::update(&mut errors, &new.metadata, &old.metadata);
    replication_controller_spec(&mut errors, new.spec.as_ref());
    errors
}

/// A changed status of a ReplicationController.
pub fn update_replication_controller_status(new: &ReplicationController, old: &ReplicationController) -> Errors {
    let mut errors = Errors::default();
    meta::update(&mut errors, &new.metadata, &old.metadata);
    let status = new.status.clone().unwrap_or_default();
    let numbers = [
        ("fullyLabeledReplicas", status.fully_labeled_replicas),
        ("readyReplicas", status.ready_replicas),
        ("availableReplicas", status.available_replicas),
    ];
    replica_counts(&mut errors, status.replicas, &numbers);
    available_within_ready(&mut errors, status.available_replicas, status.ready_replicas);
    errors.not_negative(&STATUS.child("observedGeneration"), status.observed_generation.unwrap_or(0));
    errors
}

/// A new DaemonSet.
pub fn create_daemon_set(daemon_set: &DaemonSet) -> Errors {
    let mut errors = Errors::default();
    meta::create(&mut errors, &daemon_set.metadata, true, names::dns_subdomain);
    daemon_set_spec(&mut errors, daemon_set.spec.as_ref());
    errors
}

/// A changed DaemonSet.
pub fn update_daemon_set(new: &DaemonSet, old: &DaemonSet) -> Errors {
    let mut errors = Errors::default();
    meta::update(&mut errors, &new.metadata, &old.metadata);
    let selector = |daemon_set: &DaemonSet| daemon_set.spec.as_ref().map(|spec| spec.selector.clone());
    errors.immutable(&SPEC.child("selector"), &selector(new), &selector(old));
    daemon_set_spec(&mut errors, new.spec.as_ref());
    errors
}

/// A changed status of a DaemonSet.
pub fn update_daemon_set_status(new: &DaemonSet, old: &DaemonSet) -> Errors {
    let mut errors = Errors::default();
    meta::update(&mut errors, &new.metadata, &old.metadata);
    let status = new.status.clone().unwrap_or_default();
    for (field, number) in [
        ("currentNumberScheduled", status.current_number_scheduled),
        ("numberMisscheduled", status.number_misscheduled),
        ("desiredNumberScheduled", status.desired_number_scheduled),
        ("numberReady", status.number_ready),
        ("updatedNumberScheduled", status.updated_number_scheduled.unwrap_or(0)),
        ("numberAvailable", status.number_available.unwrap_or(0)),
        ("numberUnavailable", status.number_unavailable.unwrap_or(0)),
        ("collisionCount", status.collision_count.unwrap_or(0)),
    ] {
        errors.not_negative(&STATUS.child(field), number);
    }
    errors.not_negative(&STATUS.child("observedGeneration"), status.observed_generation.unwrap_or(0));
    let collisions = |set: &DaemonSet| set.status.as_ref().and_then(|status| status.collision_count);
    not_decremented(&mut errors, collisions(new), collisions(old));
    errors
}

/// A new StatefulSet.
pub fn create_stateful_set(stateful_set: &StatefulSet) -> Errors {
    let mut errors = Errors::default();
    meta::create(&mut errors, &stateful_set.metadata, true, names::dns_label);
    stateful_set_spec(&mut errors, stateful_set.spec.as_ref());
    if let Some(service) = stateful_set.spec.as_ref().and_then(|spec| spec.service_name.as_deref())
        && !service.is_empty()
    {
        errors.each(&SPEC.child("serviceName"), service, names::dns_label(service));
    }
    errors
}

/// A changed StatefulSet: few fields of it may change.
pub fn update_stateful_set(new: &StatefulSet, old: &StatefulSet) -> Errors {
    let mut errors = Errors::default();
    meta::update(&mut errors, &new.metadata, &old.metadata);
    stateful_set_spec(&mut errors, new.spec.as_ref());
    if let (Some(new), Some(old)) = (new.spec.as_ref(), old.spec.as_ref()) {
        let changeable = StatefulSetSpec {
            replicas: old.replicas,
            template: old.template.clone(),
            update_strategy: old.update_strategy.clone(),
            min_ready_seconds: old.min_ready_seconds,
            ordinals: old.ordinals.clone(),
            revision_history_limit: old.revision_history_limit,
            persistent_volume_claim_retention_policy: old.persistent_volume_claim_retention_policy.clone(),
            ..new.clone()
        };
        if changeable != *old {
            errors.forbidden(
                &SPEC,
                "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', \
                 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden",
            );
        }
    }
    errors
}

/// A changed status of a StatefulSet.
pub fn update_stateful_set_status(new: &StatefulSet, old: &StatefulSet) -> Errors {
    let mut errors = Errors::default();
    meta::update(&mut errors, &new.metadata, &old.metadata);
    let status = new.status.clone().unwrap_or_default();
    let numbers = [
        ("readyReplicas", status.ready_replicas),
        ("currentReplicas", status.current_replicas),
        ("updatedReplicas", status.updated_replicas),
        ("availableReplicas", status.available_replicas),
    ];
    replica_counts(&mut errors, status.replicas, &numbers);
    available_within_ready(&mut errors, status.available_replicas, status.ready_replicas);
    errors.not_negative(&STATUS.child("observedGeneration"), status.observed_generation.unwrap_or(0));
    let collisions = |set: &StatefulSet| set.status.as_ref().and_then(|status| status.collision_count);
    not_decremented(&mut errors, collisions(new), collisions(old));
    errors
}

/// A new ControllerRevision.
pub fn create_controller_revision(revision: &ControllerRevision) -> Errors {
    let mut errors = Errors::default();
    meta::create(&mut errors, &revision.metadata, true, names::dns_subdomain);
    errors.not_negative(&Path::root("revision"), revision.revision);
    let data = Path::root("data");
    match revision.data.as_ref().map(|data| &data.0) {
        None | Some(serde_json::Value::Null) => errors.required(&data, "data is mandatory"),
        Some(value) if !value.is_object() => errors.required(&data, "data must be a valid JSON object"),
        Some(_) => {}
    }
    errors
}

/// A changed ControllerRevision: what it recorded stays.
pub fn update_controller_revision(new: &ControllerRevision, old: &ControllerRevision) -> Errors {
    let mut errors = Errors::default();
    meta::update(&mut errors, &new.metadata, &old.metadata);
    errors.not_negative(&Path::root("revision"), new.revision);
    errors.immutable(&Path::root("data"), &new.data, &old.data);
    errors
}

fn deployment_spec(errors: &mut Errors, spec: Option<&DeploymentSpec>) {
    let Some(spec) = spec else { return errors.required(&SPEC.child("selector"), "") };
    errors.not_negative(&SPEC.child("replicas"), spec.replicas.unwrap_or(0));
    required_selector(errors, &spec.selector, "deployment");
    replica_template(errors, Some(&spec.selector), Some(&spec.template), "ReplicaSet");
    strategy(errors, spec.strategy.as_ref());
    let ready = spec.min_ready_seconds.unwrap_or(0);
    errors.not_negative(&SPEC.child("minReadySeconds"), ready);
    errors.not_negative(&SPEC.child("revisionHistoryLimit"), spec.revision_history_limit.unwrap_or(0));
    if let Some(deadline) = spec.progress_deadline_seconds {
        let path = SPEC.child("progressDeadlineSeconds");
        errors.not_negative(&path, deadline);
        if deadline <= ready {
            errors.invalid(&path, deadline, "must be greater than minReadySeconds");
        }
    }
}

fn replica_set_spec(errors: &mut Errors, spec: Option<&ReplicaSetSpec>) {
    let Some(spec) = spec else { return errors.required(&SPEC.child("selector"), "") };
    errors.not_negative(&SPEC.child("replicas"), spec.replicas.unwrap_or(0));
    errors.not_negative(&SPEC.child("minReadySeconds"), spec.min_ready_seconds.unwrap_or(0));
    // Upstream says "deployment" here, too.
    required_selector(errors, &spec.selector, "deployment");
    replica_template(errors, Some(&spec.selector), spec.template.as_ref(), "ReplicaSet");
}

fn replication_controller_spec(errors: &mut Errors, spec: Option<&ReplicationControllerSpec>) {
    let Some(spec) = spec else { return errors.required(&SPEC.child("selector"), "") };
    errors.not_negative(&SPEC.child("minReadySeconds"), spec.min_ready_seconds.unwrap_or(0));
    let labels = spec.selector.clone().filter(|labels| !labels.is_empty());
    if labels.is_none() {
        errors.required(&SPEC.child("selector"), "");
    }
    errors.not_negative(&SPEC.child("replicas"), spec.replicas.unwrap_or(0));
    let selector = labels.map(|labels| LabelSelector { match_labels: Some(labels), match_expressions: None });
    replica_template(errors, selector.as_ref(), spec.template.as_ref(), "ReplicationController");
}

fn daemon_set_spec(errors: &mut Errors, spec: Option<&DaemonSetSpec>) {
    let Some(spec) = spec else { return errors.required(&SPEC.child("selector"), "") };
    // Upstream does not ask for a selector here, but one that is missing finds no pod.
    if !is_missing(&spec.selector) {
        required_selector(errors, &spec.selector, "daemonset");
    }
    replica_template(errors, Some(&spec.selector), Some(&spec.template), "DaemonSet");
    errors.not_negative(&SPEC.child("minReadySeconds"), spec.min_ready_seconds.unwrap_or(0));
    errors.not_negative(&SPEC.child("revisionHistoryLimit"), spec.revision_history_limit.unwrap_or(0));
    let path = SPEC.child("updateStrategy");
    let strategy = spec.update_strategy.clone().unwrap_or_default();
    match (strategy.type_.as_deref(), strategy.rolling_update.as_ref()) {
        (Some("OnDelete"), _) => {}
        (Some("RollingUpdate"), Some(rolling)) => rolling_daemon_set(errors, &path.child("rollingUpdate"), rolling),
        (Some("RollingUpdate"), None) => errors.required(&path.child("rollingUpdate"), ""),
        _ => {
            let shown = serde_json::to_value(&strategy).unwrap_or_default();
            errors.not_supported(&path, shown, &["RollingUpdate", "OnDelete"]);
        }
    }
}

fn rolling_daemon_set(errors: &mut Errors, path: &Path<'_>, rolling: &RollingUpdateDaemonSet) {
    let (unavailable, surge) = (bound(&rolling.max_unavailable), bound(&rolling.max_surge));
    for (field, value) in [("maxUnavailable", &unavailable), ("maxSurge", &surge)] {
        number_or_percent(errors, &path.child(field), value);
        at_most_all(errors, &path.child(field), value);
    }
    match (amount(&unavailable) != 0, amount(&surge) != 0) {
        (true, true) => {
            errors.invalid_object(&path.child("maxSurge"), &surge, "may not be set when maxUnavailable is non-zero");
        }
        (false, false) => errors.required(&path.child("maxUnavailable"), "cannot be 0 when maxSurge is 0"),
        _ => {}
    }
}

fn stateful_set_spec(errors: &mut Errors, spec: Option<&StatefulSetSpec>) {
    let Some(spec) = spec else { return errors.required(&SPEC.child("selector"), "") };
    match spec.pod_management_policy.as_deref() {
        None | Some("") => errors.required(&SPEC.child("podManagementPolicy"), ""),
        Some("OrderedReady" | "Parallel") => {}
        Some(other) => {
            errors.invalid(&SPEC.child("podManagementPolicy"), other, "must be 'OrderedReady' or 'Parallel'");
        }
    }
    stateful_strategy(errors, spec);
    if let Some(policy) = spec.persistent_volume_claim_retention_policy.as_ref() {
        let path = SPEC.child("persistentVolumeClaimRetentionPolicy");
        for (field, value) in [("whenDeleted", &policy.when_deleted), ("whenScaled", &policy.when_scaled)] {
            errors.optional_one_of(&path.child(field), value.as_deref(), &["Retain", "Delete"]);
        }
    }
    errors.not_negative(&SPEC.child("replicas"), spec.replicas.unwrap_or(0));
    errors.not_negative(&SPEC.child("minReadySeconds"), spec.min_ready_seconds.unwrap_or(0));
    let start = spec.ordinals.as_ref().and_then(|ordinals| ordinals.start).unwrap_or(0);
    errors.not_negative(&SPEC.child("ordinals.start"), start);
    required_selector(errors, &spec.selector, "statefulset");
    let template = stateful_template(spec);
    replica_template(errors, Some(&spec.selector), Some(&template), "StatefulSet");
}

fn stateful_strategy(errors: &mut Errors, spec: &StatefulSetSpec) {
    let path = SPEC.child("updateStrategy");
    let strategy = spec.update_strategy.clone().unwrap_or_default();
    match (strategy.type_.as_deref(), strategy.rolling_update.as_ref()) {
        (None | Some(""), _) => errors.required(&path, ""),
        (Some("OnDelete"), Some(rolling)) => {
            let detail = "only allowed for updateStrategy 'RollingUpdate'";
            errors.invalid_object(&path.child("rollingUpdate"), rolling, detail);
        }
        (Some("OnDelete"), None) | (Some("RollingUpdate"), None) => {}
        (Some("RollingUpdate"), Some(rolling)) => {
            let path = path.child("rollingUpdate");
            errors.not_negative(&path.child("partition"), rolling.partition.unwrap_or(0));
            let Some(unavailable) = rolling.max_unavailable.as_ref() else { return };
            let path = path.child("maxUnavailable");
            number_or_percent(errors, &path, unavailable);
            if amount(unavailable) == 0 {
                errors.invalid_object(&path, unavailable, "cannot be 0");
            }
            at_most_all(errors, &path, unavailable);
        }
        (Some(_), _) => errors.invalid_object(&path, &strategy, "must be 'RollingUpdate' or 'OnDelete'"),
    }
}

/// The template with the volumes that the claims will be, and without the names that the controller sets.
fn stateful_template(spec: &StatefulSetSpec) -> PodTemplateSpec {
    let mut template = spec.template.clone();
    let Some(pod) = template.spec.as_mut() else { return template };
    pod.subdomain = None;
    pod.hostname = None;
    let claims: Vec<String> =
        spec.volume_claim_templates.iter().flatten().filter_map(|claim| claim.metadata.name.clone()).collect();
    if claims.is_empty() {
        return template;
    }
    let others = pod.volumes.take().unwrap_or_default().into_iter().filter(|volume| !claims.contains(&volume.name));
    let of_claims = claims.iter().map(|name| Volume {
        name: name.clone(),
        persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource { claim_name: name.clone(), read_only: None }),
        ..Volume::default()
    });
    let volumes = of_claims.chain(others).collect();
    pod.volumes = Some(volumes);
    template
}

fn is_empty(selector: &LabelSelector) -> bool {
    selector.match_labels.as_ref().is_none_or(|labels| labels.is_empty())
        && selector.match_expressions.as_ref().is_none_or(Vec::is_empty)
}

/// A selector that was not given at all reads as one with nothing in it.
fn is_missing(selector: &LabelSelector) -> bool {
    *selector == LabelSelector::default()
}

fn required_selector(errors: &mut Errors, selector: &LabelSelector, kind: &str) {
    let path = SPEC.child("selector");
    if is_missing(selector) {
        return errors.required(&path, "");
    }
    meta::label_selector(errors, &path, selector);
    if is_empty(selector) {
        errors.invalid_object(&path, selector, format!("empty selector is invalid for {kind}"));
    }
}

/// The template of pods that are kept running: the selector has to find them, and they always restart.
fn replica_template(
    errors: &mut Errors,
    selector: Option<&LabelSelector>,
    template: Option<&PodTemplateSpec>,
    kind: &str,
) {
    let path = SPEC.child("template");
    let Some(template) = template else { return errors.required(&path, "") };
    let labels = template.metadata.as_ref().and_then(|meta| meta.labels.as_ref());
    let given = selector;
    let selector = given.map(|selector| Selector::from_label_selector((!is_missing(selector)).then_some(selector)));
    match selector {
        Some(Ok(selector)) if !selector.is_everything() && !selector.matches(labels) => {
            let detail = "`selector` does not match template `labels`";
            errors.invalid_object(&path.child("metadata.labels"), &labels, detail);
        }
        Some(Err(_)) => return errors.invalid_object(&SPEC.child("selector"), &given, "invalid label selector"),
        _ => {}
    }
    pod::template(errors, &path, template);
    let Some(pod) = template.spec.as_ref() else { return };
    let path = path.child("spec");
    if pod.restart_policy.as_deref() != Some("Always") {
        let given = pod.restart_policy.as_deref().unwrap_or_default();
        errors.not_supported(&path.child("restartPolicy"), given, &["Always"]);
    }
    if pod.active_deadline_seconds.is_some() {
        let detail = format!("activeDeadlineSeconds in {kind} is not Supported");
        errors.forbidden(&path.child("activeDeadlineSeconds"), detail);
    }
}

fn strategy(errors: &mut Errors, strategy: Option<&DeploymentStrategy>) {
    let path = SPEC.child("strategy");
    let strategy = strategy.cloned().unwrap_or_default();
    match (strategy.type_.as_deref(), strategy.rolling_update.as_ref()) {
        (Some("Recreate"), Some(_)) => {
            let detail = "may not be specified when strategy `type` is 'Recreate'";
            errors.forbidden(&path.child("rollingUpdate"), detail);
        }
        (Some("Recreate"), None) => {}
        (Some("RollingUpdate"), Some(rolling)) => rolling_deployment(errors, &path.child("rollingUpdate"), rolling),
        (Some("RollingUpdate"), None) => {
            errors.required(&path.child("rollingUpdate"), "this should be defaulted and never be nil");
        }
        _ => {
            let shown = serde_json::to_value(&strategy).unwrap_or_default();
            errors.not_supported(&path, shown, &["Recreate", "RollingUpdate"]);
        }
    }
}

fn rolling_deployment(errors: &mut Errors, path: &Path<'_>, rolling: &RollingUpdateDeployment) {
    let (unavailable, surge) = (bound(&rolling.max_unavailable), bound(&rolling.max_surge));
    number_or_percent(errors, &path.child("maxUnavailable"), &unavailable);
    number_or_percent(errors, &path.child("maxSurge"), &surge);
    if amount(&unavailable) == 0 && amount(&surge) == 0 {
        let detail = "may not be 0 when `maxSurge` is 0";
        errors.invalid_object(&path.child("maxUnavailable"), &unavailable, detail);
    }
    at_most_all(errors, &path.child("maxUnavailable"), &unavailable);
}

fn bound(value: &Option<IntOrString>) -> IntOrString {
    value.clone().unwrap_or(IntOrString::Int(0))
}

/// A number that is not negative, or a percentage.
pub(super) fn number_or_percent(errors: &mut Errors, path: &Path<'_>, value: &IntOrString) {
    match value {
        IntOrString::Int(number) => errors.not_negative(path, *number),
        IntOrString::String(text) => errors.each(path, text, names::percent(text)),
    }
}

/// Not more than 100%.
pub(super) fn at_most_all(errors: &mut Errors, path: &Path<'_>, value: &IntOrString) {
    if int_or_string::percentage(value).is_some_and(|percent| percent > 100) {
        errors.invalid_object(path, value, "must not be greater than 100%");
    }
}

fn amount(value: &IntOrString) -> i32 {
    match value {
        IntOrString::Int(number) => *number,
        IntOrString::String(text) => int_or_string::percentage(value).or_else(|| text.parse().ok()).unwrap_or(0),
    }
}

fn replica_counts(errors: &mut Errors, all: i32, numbers: &[(&str, Option<i32>)]) {
    errors.not_negative(&STATUS.child("replicas"), all);
    for (field, number) in numbers {
        let number = number.unwrap_or(0);
        errors.not_negative(&STATUS.child(field), number);
        if number > all {
            errors.invalid(&STATUS.child(field), number, NO_MORE_THAN_ALL);
        }
    }
}

fn available_within_ready(errors: &mut Errors, available: Option<i32>, ready: Option<i32>) {
    let available = available.unwrap_or(0);
    if available > ready.unwrap_or(0) {
        errors.invalid(&STATUS.child("availableReplicas"), available, "cannot be greater than readyReplicas");
    }
}

fn not_decremented(errors: &mut Errors, new: Option<i32>, old: Option<i32>) {
    if new.unwrap_or(0) < old.unwrap_or(0) {
        errors.invalid(&STATUS.child("collisionCount"), new.unwrap_or(0), "cannot be decremented");
    }
}
