//! Where a pod may run: node selectors, affinities, tolerations, spread constraints.
//!
//! Mirrors validateAffinity, ValidateNodeSelector, ValidateTolerations, validateTopologySpreadConstraints.

use k8s_openapi::api::core::v1::{
    Affinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PodAffinityTerm, Toleration,
    TopologySpreadConstraint, WeightedPodAffinityTerm,
};

use crate::names;
use crate::validate::field::{Errors, Path};
use crate::validate::meta;

/// The affinities of a pod.
pub(super) fn affinity(errors: &mut Errors, path: &Path<'_>, affinity: Option<&Affinity>) {
    const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
    const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
    let Some(affinity) = affinity else { return };
    if let Some(nodes) = affinity.node_affinity.as_ref() {
        let path = path.child("nodeAffinity");
        if let Some(selector) = nodes.required_during_scheduling_ignored_during_execution.as_ref() {
            node_selector(errors, &path.child(REQUIRED), selector);
        }
        let path = path.child(PREFERRED);
        for (i, term) in nodes.preferred_during_scheduling_ignored_during_execution.iter().flatten().enumerate() {
            let at = path.index(i);
            weight(errors, &at.child("weight"), term.weight);
            node_selector_term(errors, &at.child("preference"), &term.preference, false);
        }
    }
    if let Some(pods) = affinity.pod_affinity.as_ref() {
        let path = path.child("podAffinity");
        terms(errors, &path.child(REQUIRED), pods.required_during_scheduling_ignored_during_execution.as_deref());
        weighted(errors, &path.child(PREFERRED), pods.preferred_during_scheduling_ignored_during_execution.as_deref());
    }
    if let Some(pods) = affinity.pod_anti_affinity.as_ref() {
        let path = path.child("podAntiAffinity");
        terms(errors, &path.child(REQUIRED), pods.required_during_scheduling_ignored_during_execution.as_deref());
        weighted(errors, &path.child(PREFERRED), pods.preferred_during_scheduling_ignored_during_execution.as_deref());
    }
}

fn terms(errors: &mut Errors, path: &Path<'_>, terms: Option<&[PodAffinityTerm]>) {
    for (i, given) in terms.unwrap_or_default().iter().enumerate() {
        term(errors, &path.index(i), given);
    }
}

fn weighted(errors: &mut Errors, path: &Path<'_>, terms: Option<&[WeightedPodAffinityTerm]>) {
    for (i, given) in terms.unwrap_or_default().iter().enumerate() {
        let at = path.index(i);
        weight(errors, &at.child("weight"), given.weight);
        term(errors, &at.child("podAffinityTerm"), &given.pod_affinity_term);
    }
}

fn term(errors: &mut Errors, path: &Path<'_>, term: &PodAffinityTerm) {
    if let Some(selector) = term.label_selector.as_ref() {
        meta::label_selector(errors, &path.child("labelSelector"), selector);
    }
    if let Some(selector) = term.namespace_selector.as_ref() {
        meta::label_selector(errors, &path.child("namespaceSelector"), selector);
    }
    for name in term.namespaces.iter().flatten() {
        errors.each(&path.child("namespace"), name, names::dns_label(name));
    }
    if term.topology_key.is_empty() {
        errors.required(&path.child("topologyKey"), "can not be empty");
    }
    errors.each(&path.child("topologyKey"), &term.topology_key, names::qualified_name(&term.topology_key));
}

fn weight(errors: &mut Errors, path: &Path<'_>, weight: i32) {
    if !(1..=100).contains(&weight) {
        errors.invalid(path, weight, "must be in the range 1-100");
    }
}

/// Terms of which one has to match a node.
pub(in crate::validate) fn node_selector(errors: &mut Errors, path: &Path<'_>, selector: &NodeSelector) {
    let path = path.child("nodeSelectorTerms");
    if selector.node_selector_terms.is_empty() {
        errors.required(&path, "must have at least one node selector term");
    }
    for (i, term) in selector.node_selector_terms.iter().enumerate() {
        node_selector_term(errors, &path.index(i), term, true);
    }
}

/// A preference may name values that no label can have: upstream lets them pass.
fn node_selector_term(errors: &mut Errors, path: &Path<'_>, term: &NodeSelectorTerm, check_values: bool) {
    let expressions = path.child("matchExpressions");
    for (i, requirement) in term.match_expressions.iter().flatten().enumerate() {
        node_label(errors, &expressions.index(i), requirement, check_values);
    }
    let fields = path.child("matchFields");
    for (i, requirement) in term.match_fields.iter().flatten().enumerate() {
        node_field(errors, &fields.index(i), requirement);
    }
}

fn node_label(errors: &mut Errors, path: &Path<'_>, requirement: &NodeSelectorRequirement, check_values: bool) {
    let values = requirement.values.as_deref().unwrap_or_default();
    let at = path.child("values");
    match requirement.operator.as_str() {
        "In" | "NotIn" if values.is_empty() => {
            errors.required(&at, "must be specified when `operator` is 'In' or 'NotIn'");
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            errors.forbidden(&at, "may not be specified when `operator` is 'Exists' or 'DoesNotExist'");
        }
        "Gt" | "Lt" if values.len() != 1 => {
            errors.required(&at, "must be specified single value when `operator` is 'Lt' or 'Gt'");
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
        other => errors.invalid(&path.child("operator"), other, "not a valid selector operator"),
    }
    errors.each(&path.child("key"), &requirement.key, names::qualified_name(&requirement.key));
    for (i, value) in values.iter().enumerate().filter(|_| check_values) {
        errors.each(&at.index(i), value, names::label_value(value));
    }
}

fn node_field(errors: &mut Errors, path: &Path<'_>, requirement: &NodeSelectorRequirement) {
    let values = requirement.values.as_deref().unwrap_or_default();
    let at = path.child("values");
    match requirement.operator.as_str() {
        "In" | "NotIn" if values.len() == 1 => {}
        "In" | "NotIn" => {
            errors.required(&at, "must be only one value when `operator` is 'In' or 'NotIn' for node field selector");
        }
        other => errors.invalid(&path.child("operator"), other, "not a valid selector operator"),
    }
    if requirement.key != "metadata.name" {
        return errors.invalid(&path.child("key"), requirement.key.as_str(), "not a valid field selector key");
    }
    for (i, value) in values.iter().enumerate() {
        errors.each(&at.index(i), value, names::dns_subdomain(value));
    }
}

/// What taints a pod puts up with.
pub(super) fn tolerations(errors: &mut Errors, path: &Path<'_>, tolerations: &[Toleration]) {
    for (i, given) in tolerations.iter().enumerate() {
        toleration(errors, &path.index(i), given);
    }
}

fn toleration(errors: &mut Errors, path: &Path<'_>, toleration: &Toleration) {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    let (key, operator) = (text(&toleration.key), text(&toleration.operator));
    let (value, effect) = (text(&toleration.value), text(&toleration.effect));
    let at = path.child("operator");
    if key.is_empty() && operator != "Exists" {
        let detail = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
        errors.invalid(&at, operator.as_str(), detail);
    } else if !key.is_empty() {
        errors.each(&path.child("key"), &key, names::qualified_name(&key));
    }
    if toleration.toleration_seconds.is_some() && effect != "NoExecute" {
        let detail = "effect must be 'NoExecute' when `tolerationSeconds` is set";
        errors.invalid(&path.child("effect"), effect.as_str(), detail);
    }
    match operator.as_str() {
        "" | "Equal" => {
            let problems = names::label_value(&value);
            if !problems.is_empty() {
                errors.invalid(&at, value, problems.join(";"));
            }
        }
        "Exists" if !value.is_empty() => errors.invalid(&at, value, "value must be empty when `operator` is 'Exists'"),
        "Exists" => {}
        // Upstream names them though it only takes them with a feature gate.
        "Lt" | "Gt" => errors.not_supported(&at, operator, &["Equal", "Exists", "Lt", "Gt"]),
        other => errors.not_supported(&at, other, &["Equal", "Exists"]),
    }
    if !effect.is_empty() {
        let known = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
        errors.optional_one_of(&path.child("effect"), Some(&effect), &known);
    }
}

/// How a pod and its siblings spread.
pub(super) fn spread(errors: &mut Errors, path: &Path<'_>, constraints: &[TopologySpreadConstraint]) {
    for (i, constraint) in constraints.iter().enumerate() {
        let path = path.index(i);
        errors.positive(&path.child("maxSkew"), constraint.max_skew);
        if constraint.topology_key.is_empty() {
            errors.required(&path.child("topologyKey"), "can not be empty");
        }
        let action = constraint.when_unsatisfiable.as_str();
        let actions = ["DoNotSchedule", "ScheduleAnyway"];
        errors.optional_one_of(&path.child("whenUnsatisfiable"), Some(action), &actions);
        let same = |other: &TopologySpreadConstraint| {
            other.topology_key == constraint.topology_key && other.when_unsatisfiable == action
        };
        if constraints[i + 1..].iter().any(same) {
            let pair = format!("{{{}, {action}}}", constraint.topology_key);
            errors.duplicate(&path.child("{topologyKey, whenUnsatisfiable}"), pair);
        }
        if let Some(domains) = constraint.min_domains {
            errors.positive(&path.child("minDomains"), domains);
            if action != "DoNotSchedule" {
                let detail = format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}");
                errors.invalid(&path.child("minDomains"), domains, detail);
            }
        }
        let policies = [
            ("nodeAffinityPolicy", &constraint.node_affinity_policy),
            ("nodeTaintsPolicy", &constraint.node_taints_policy),
        ];
        for (field, policy) in policies {
            errors.optional_one_of(&path.child(field), policy.as_deref(), &["Honor", "Ignore"]);
        }
        if let Some(selector) = constraint.label_selector.as_ref() {
            meta::label_selector(errors, &path.child("labelSelector"), selector);
        }
    }
}
