//! Metrics and behaviour of HorizontalPodAutoscalers.
//!
//! Mirrors `pkg/apis/autoscaling/validation/validation.go` (validateMetrics, validateBehavior, ValidateAPIVersion).

use k8s_openapi::api::autoscaling::v2::{
    CrossVersionObjectReference, HPAScalingRules, HorizontalPodAutoscalerBehavior, MetricIdentifier, MetricSpec,
    MetricTarget,
};

use super::field::{Errors, Path};
use super::pod::resources;
use crate::names;
use crate::quantity::Amount;

/// Longest time that recommendations are looked back on.
const WINDOW_SECONDS: i32 = 3600;
/// Longest period of a scaling policy.
const PERIOD_SECONDS: i32 = 1800;

const TYPES: [(&str, &str); 5] = [
    ("ContainerResource", "containerResource"),
    ("External", "external"),
    ("Object", "object"),
    ("Pods", "pods"),
    ("Resource", "resource"),
];

/// An object that is referred to, as either version of the API has it.
#[derive(Clone, Copy, Debug)]
pub struct Reference<'a> {
    /// Its kind.
    pub kind: &'a str,
    /// Its name.
    pub name: &'a str,
    /// Group and version, `v1` in the core group.
    pub version: &'a str,
}

/// A reference of autoscaling/v2.
pub fn reference(it: &CrossVersionObjectReference) -> Reference<'_> {
    Reference { kind: &it.kind, name: &it.name, version: it.api_version.as_deref().unwrap_or("") }
}

impl Reference<'_> {
    /// Judges kind and name.
    pub fn judge(self, errors: &mut Errors, path: &Path<'_>) {
        for (field, value) in [("kind", self.kind), ("name", self.name)] {
            if value.is_empty() {
                errors.required(&path.child(field), "");
            } else {
                errors.each(&path.child(field), value, names::path_segment(value));
            }
        }
    }

    /// Judges group and version; the core group is one without a name.
    pub fn judge_version(self, errors: &mut Errors, path: &Path<'_>, core: bool) {
        if let Some(problem) = self.version_problem(core) {
            errors.invalid(&path.child("apiVersion"), self.version, problem);
        }
    }

    fn version_problem(self, core: bool) -> Option<String> {
        match self.version.split('/').collect::<Vec<_>>()[..] {
            [_] | ["", _] if !core => Some("apiVersion must specify API group".into()),
            [_] | [_, _] => None,
            _ => Some(format!("unexpected GroupVersion string: {}", self.version)),
        }
    }
}

/// Judges the metrics. Where versions of described objects were malformed before, they may stay so.
pub fn metrics(errors: &mut Errors, path: &Path<'_>, metrics: &[MetricSpec], old: Option<Vec<MetricSpec>>) {
    let described = |metric: &MetricSpec| metric.object.clone().map(|object| object.described_object);
    let malformed =
        |metric: &MetricSpec| described(metric).is_some_and(|it| reference(&it).version_problem(true).is_some());
    let lenient = old.iter().flatten().any(malformed);
    for (index, metric) in metrics.iter().enumerate() {
        metric_spec(errors, &path.index(index), metric);
        if let Some(object) = described(metric).filter(|_| !lenient) {
            let path = path.index(index);
            let path = path.child("object");
            reference(&object).judge_version(errors, &path.child("describedObject"), true);
        }
    }
}

fn metric_spec(errors: &mut Errors, path: &Path<'_>, metric: &MetricSpec) {
    let kind = path.child("type");
    if metric.type_.is_empty() {
        errors.required(&kind, "must specify a metric source type");
    }
    errors.optional_one_of(&kind, Some(metric.type_.as_str()), &TYPES.map(|(name, _)| name));
    let given: Vec<&str> = [
        ("object", metric.object.is_some()),
        ("external", metric.external.is_some()),
        ("pods", metric.pods.is_some()),
        ("resource", metric.resource.is_some()),
        ("containerResource", metric.container_resource.is_some()),
    ]
    .into_iter()
    .filter_map(|(name, given)| given.then_some(name))
    .collect();
    if let Some(first) = given.first() {
        source(errors, &path.child(first), metric, first);
    }
    let Some((_, expected)) = TYPES.iter().find(|(name, _)| *name == metric.type_) else { return };
    if !given.contains(expected) {
        errors.required(&path.child(expected), "must populate information for the given metric source");
    }
    for other in given.iter().filter(|name| *name != expected) {
        errors.forbidden(&path.child(other), "must populate the given metric source only");
    }
}

fn source(errors: &mut Errors, path: &Path<'_>, metric: &MetricSpec, field: &str) {
    let target_path = path.child("target");
    if let Some(object) = metric.object.as_ref().filter(|_| field == "object") {
        reference(&object.described_object).judge(errors, &path.child("describedObject"));
        identifier(errors, &path.child("metric"), &object.metric);
        target(errors, &target_path, &object.target);
        if object.target.value.is_none() && object.target.average_value.is_none() {
            errors.required(&target_path.child("averageValue"), "must set either a target value or averageValue");
        }
    } else if let Some(external) = metric.external.as_ref().filter(|_| field == "external") {
        identifier(errors, &path.child("metric"), &external.metric);
        target(errors, &target_path, &external.target);
        match (&external.target.value, &external.target.average_value) {
            (None, None) => errors.required(
                &target_path.child("averageValue"),
                "must set either a target value for metric or a per-pod target",
            ),
            (Some(_), Some(_)) => errors.forbidden(
                &target_path.child("value"),
                "may not set both a target value for metric and a per-pod target",
            ),
            _ => {}
        }
    } else if let Some(pods) = metric.pods.as_ref().filter(|_| field == "pods") {
        identifier(errors, &path.child("metric"), &pods.metric);
        target(errors, &target_path, &pods.target);
        if pods.target.average_value.is_none() {
            errors.required(&target_path.child("averageValue"), "must specify a positive target averageValue");
        }
    } else if let Some(resource) = metric.resource.as_ref().filter(|_| field == "resource") {
        resource_target(errors, path, &resource.name, &resource.target);
    } else if let Some(resource) = metric.container_resource.as_ref() {
        if !resource.name.is_empty() {
            resources::container_name(errors, &path.child("name"), &resource.name);
        }
        let container = path.child("container");
        if resource.container.is_empty() {
            errors.required(&container, "must specify a container");
        } else {
            errors.each(&container, &resource.container, names::dns_label(&resource.container));
        }
        resource_target(errors, path, &resource.name, &resource.target);
    }
}

fn resource_target(errors: &mut Errors, path: &Path<'_>, name: &str, aim: &MetricTarget) {
    if name.is_empty() {
        errors.required(&path.child("name"), "must specify a resource name");
    }
    let target_path = path.child("target");
    target(errors, &target_path, aim);
    match (aim.average_utilization, &aim.average_value) {
        (None, None) => errors.required(
            &target_path.child("averageUtilization"),
            "must set either a target raw value or a target utilization",
        ),
        (Some(_), Some(_)) => errors.forbidden(
            &target_path.child("averageValue"),
            "may not set both a target raw value and a target utilization",
        ),
        _ => {}
    }
}

fn identifier(errors: &mut Errors, path: &Path<'_>, metric: &MetricIdentifier) {
    if metric.name.is_empty() {
        errors.required(&path.child("name"), "must specify a metric name");
    } else {
        errors.each(&path.child("name"), &metric.name, names::path_segment(&metric.name));
    }
}

fn target(errors: &mut Errors, path: &Path<'_>, target: &MetricTarget) {
    let kind = path.child("type");
    match target.type_.as_str() {
        "" => errors.required(&kind, "must specify a metric target type"),
        "Utilization" | "Value" | "AverageValue" => {}
        other => errors.invalid(&kind, other, "must be either Utilization, Value, or AverageValue"),
    }
    for (field, value) in [("value", &target.value), ("averageValue", &target.average_value)] {
        if let Some(value) = value.as_ref().filter(|value| Amount::of(value) <= Amount::ZERO) {
            errors.invalid(&path.child(field), value.0.as_str(), "must be positive");
        }
    }
    if let Some(percent) = target.average_utilization.filter(|percent| *percent < 1) {
        errors.invalid(&path.child("averageUtilization"), percent, "must be greater than 0");
    }
}

/// Judges the rules of scaling.
pub fn behavior(errors: &mut Errors, path: &Path<'_>, behavior: &HorizontalPodAutoscalerBehavior) {
    for (field, rules) in [("scaleUp", &behavior.scale_up), ("scaleDown", &behavior.scale_down)] {
        if let Some(rules) = rules {
            scaling_rules(errors, &path.child(field), rules);
        }
    }
}

fn scaling_rules(errors: &mut Errors, path: &Path<'_>, rules: &HPAScalingRules) {
    let window = path.child("stabilizationWindowSeconds");
    match rules.stabilization_window_seconds {
        Some(seconds) if seconds < 0 => errors.invalid(&window, seconds, "must be greater than or equal to zero"),
        Some(seconds) if seconds > WINDOW_SECONDS => {
            errors.invalid(&window, seconds, format!("must be less than or equal to {WINDOW_SECONDS}"));
        }
        _ => {}
    }
    errors.optional_one_of(&path.child("selectPolicy"), rules.select_policy.as_deref(), &["Disabled", "Max", "Min"]);
    let policies = rules.policies.as_deref().unwrap_or_default();
    if policies.is_empty() {
        errors.required(&path.child("policies"), "must specify at least one Policy");
    }
    for (index, policy) in policies.iter().enumerate() {
        let list = path.child("policies");
        let at = list.index(index);
        errors.one_of(&at.child("type"), Some(policy.type_.as_str()), &["Percent", "Pods"]);
        if policy.value <= 0 {
            errors.invalid(&at.child("value"), policy.value, "must be greater than zero");
        }
        let period = at.child("periodSeconds");
        if policy.period_seconds <= 0 {
            errors.invalid(&period, policy.period_seconds, "must be greater than zero");
        } else if policy.period_seconds > PERIOD_SECONDS {
            errors.invalid(&period, policy.period_seconds, format!("must be less than or equal to {PERIOD_SECONDS}"));
        }
    }
    if let Some(tolerance) = rules.tolerance.as_ref().filter(|tolerance| Amount::of(tolerance).is_negative()) {
        errors.invalid(&path.child("tolerance"), tolerance.0.as_str(), "must be greater or equal to zero");
    }
}
