//! PodDisruptionBudgets and HorizontalPodAutoscalers.
//!
//! Mirrors `pkg/apis/policy/validation/validation.go` and the bounds of `pkg/apis/autoscaling/validation/validation.go`.

use k8s_openapi::api::autoscaling::{v1, v2};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::apps::{at_most_all, number_or_percent};
use super::autoscaling::{self, Reference};
use super::field::{Errors, Path};
use super::meta;
use crate::names;

const SPEC: Path<'static> = Path::root("spec");

/// A new or changed PodDisruptionBudget; `old` is none for a new one.
pub fn pod_disruption_budget(budget: &PodDisruptionBudget, old: Option<&PodDisruptionBudget>) -> Errors {
    let mut errors = start(&budget.metadata, old.map(|old| &old.metadata));
    let Some(spec) = budget.spec.as_ref() else { return errors };
    if spec.min_available.is_some() && spec.max_unavailable.is_some() {
        errors.invalid_object(&SPEC, spec, "minAvailable and maxUnavailable cannot be both set");
    }
    for (field, bound) in [("minAvailable", &spec.min_available), ("maxUnavailable", &spec.max_unavailable)] {
        let Some(bound) = bound.as_ref() else { continue };
        number_or_percent(&mut errors, &SPEC.child(field), bound);
        at_most_all(&mut errors, &SPEC.child(field), bound);
    }
    if let Some(selector) = spec.selector.as_ref() {
        meta::label_selector(&mut errors, &SPEC.child("selector"), selector);
    }
    let policies = ["AlwaysAllow", "IfHealthyBudget"];
    let policy = spec.unhealthy_pod_eviction_policy.as_deref();
    errors.optional_one_of(&SPEC.child("unhealthyPodEvictionPolicy"), policy, &policies);
    errors
}

/// A PodDisruptionBudget with a changed status.
pub fn update_budget_status(new: &PodDisruptionBudget, old: &PodDisruptionBudget) -> Errors {
    let mut errors = start(&new.metadata, Some(&old.metadata));
    let Some(status) = new.status.as_ref() else { return errors };
    let path = Path::root("status");
    meta::conditions(&mut errors, &path.child("conditions"), status.conditions.as_deref().unwrap_or_default());
    for (field, count) in [
        ("disruptionsAllowed", status.disruptions_allowed),
        ("currentHealthy", status.current_healthy),
        ("desiredHealthy", status.desired_healthy),
        ("expectedPods", status.expected_pods),
    ] {
        errors.not_negative(&path.child(field), count.unwrap_or(0));
    }
    errors
}

/// A new or changed HorizontalPodAutoscaler of autoscaling/v1; `old` is none for a new one.
pub fn horizontal_pod_autoscaler_v1(
    autoscaler: &v1::HorizontalPodAutoscaler,
    old: Option<&v1::HorizontalPodAutoscaler>,
) -> Errors {
    let mut errors = start(&autoscaler.metadata, old.map(|old| &old.metadata));
    let spec = &autoscaler.spec;
    replicas(&mut errors, spec.min_replicas, spec.max_replicas);
    scale_target(&mut errors, v1_target(autoscaler), old.map(v1_target));
    if let Some(percent) = spec.target_cpu_utilization_percentage.filter(|percent| *percent < 1) {
        errors.invalid(&SPEC.child("targetCPUUtilizationPercentage"), percent, "must be greater than 0");
    }
    errors
}

/// A new or changed HorizontalPodAutoscaler of autoscaling/v2; `old` is none for a new one.
pub fn horizontal_pod_autoscaler_v2(
    autoscaler: &v2::HorizontalPodAutoscaler,
    old: Option<&v2::HorizontalPodAutoscaler>,
) -> Errors {
    let mut errors = start(&autoscaler.metadata, old.map(|old| &old.metadata));
    let spec = &autoscaler.spec;
    replicas(&mut errors, spec.min_replicas, spec.max_replicas);
    scale_target(&mut errors, v2_target(autoscaler), old.map(v2_target));
    let metrics = |spec: &'_ v2::HorizontalPodAutoscalerSpec| spec.metrics.clone().unwrap_or_default();
    autoscaling::metrics(&mut errors, &SPEC.child("metrics"), &metrics(spec), old.map(|old| metrics(&old.spec)));
    if let Some(behavior) = &spec.behavior {
        autoscaling::behavior(&mut errors, &SPEC.child("behavior"), behavior);
    }
    errors
}

fn start(new: &ObjectMeta, old: Option<&ObjectMeta>) -> Errors {
    let mut errors = Errors::default();
    match old {
        None => meta::create(&mut errors, new, true, names::dns_subdomain),
        Some(old) => meta::update(&mut errors, new, old),
    }
    errors
}

fn replicas(errors: &mut Errors, least: Option<i32>, most: i32) {
    if let Some(least) = least.filter(|least| *least < 1) {
        errors.invalid(&SPEC.child("minReplicas"), least, "must be greater than or equal to 1");
    }
    if most == 0 {
        errors.required(&SPEC.child("maxReplicas"), "must be set and greater than 0");
    } else if most < 0 {
        errors.invalid(&SPEC.child("maxReplicas"), most, "must be greater than or equal to 1");
    }
    if least.is_some_and(|least| most < least) {
        errors.invalid(&SPEC.child("maxReplicas"), most, "must be greater than or equal to `minReplicas`");
    }
}

fn v1_target(autoscaler: &v1::HorizontalPodAutoscaler) -> Reference<'_> {
    let target = &autoscaler.spec.scale_target_ref;
    Reference { kind: &target.kind, name: &target.name, version: target.api_version.as_deref().unwrap_or("") }
}

fn v2_target(autoscaler: &v2::HorizontalPodAutoscaler) -> Reference<'_> {
    autoscaling::reference(&autoscaler.spec.scale_target_ref)
}

/// Of what was there before, the version is not judged again.
fn scale_target(errors: &mut Errors, target: Reference<'_>, old: Option<Reference<'_>>) {
    let path = SPEC.child("scaleTargetRef");
    target.judge(errors, &path);
    if old.is_none_or(|old| (old.kind, old.version) != (target.kind, target.version)) {
        target.judge_version(errors, &path, target.kind == "ReplicationController");
    }
}
