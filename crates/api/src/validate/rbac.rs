//! Roles and bindings.
//!
//! Mirrors `pkg/apis/rbac/validation/validation.go`.

use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::field::{Errors, Path};
use super::meta;
use crate::names;

const GROUP: &str = "rbac.authorization.k8s.io";

/// A new or changed Role; `old` is none for a new one.
pub fn role(role: &Role, old: Option<&Role>) -> Errors {
    let mut errors = start(&role.metadata, old.map(|old| &old.metadata), true);
    rules(&mut errors, role.rules.as_deref(), true);
    errors
}

/// A new or changed ClusterRole; `old` is none for a new one.
pub fn cluster_role(role: &ClusterRole, old: Option<&ClusterRole>) -> Errors {
    let mut errors = start(&role.metadata, old.map(|old| &old.metadata), false);
    rules(&mut errors, role.rules.as_deref(), false);
    let selectors = Path::root("aggregationRule.clusterRoleSelectors");
    if let Some(aggregation) = role.aggregation_rule.as_ref() {
        let given = aggregation.cluster_role_selectors.as_deref().unwrap_or_default();
        if given.is_empty() {
            errors.required(&selectors, "at least one clusterRoleSelector required if aggregationRule is non-nil");
        }
        for (i, selector) in given.iter().enumerate() {
            meta::label_selector(&mut errors, &selectors.index(i), selector);
        }
    }
    errors
}

/// A new or changed RoleBinding; `old` is none for a new one.
pub fn role_binding(binding: &RoleBinding, old: Option<&RoleBinding>) -> Errors {
    let mut errors = start(&binding.metadata, old.map(|old| &old.metadata), true);
    let kinds = ["Role", "ClusterRole"];
    references(&mut errors, &binding.role_ref, binding.subjects.as_deref(), true, &kinds);
    role_stays(&mut errors, &binding.role_ref, old.map(|old| &old.role_ref));
    errors
}

/// A new or changed ClusterRoleBinding; `old` is none for a new one.
pub fn cluster_role_binding(binding: &ClusterRoleBinding, old: Option<&ClusterRoleBinding>) -> Errors {
    let mut errors = start(&binding.metadata, old.map(|old| &old.metadata), false);
    references(&mut errors, &binding.role_ref, binding.subjects.as_deref(), false, &["ClusterRole"]);
    role_stays(&mut errors, &binding.role_ref, old.map(|old| &old.role_ref));
    errors
}

fn start(new: &ObjectMeta, old: Option<&ObjectMeta>, namespaced: bool) -> Errors {
    let mut errors = Errors::default();
    match old {
        None => meta::create(&mut errors, new, namespaced, names::path_segment),
        Some(old) => meta::update(&mut errors, new, old),
    }
    errors
}

fn rules(errors: &mut Errors, rules: Option<&[PolicyRule]>, namespaced: bool) {
    let path = Path::root("rules");
    for (i, rule) in rules.unwrap_or_default().iter().enumerate() {
        let at = path.index(i);
        let none = |list: &Option<Vec<String>>| list.as_ref().is_none_or(Vec::is_empty);
        if rule.verbs.is_empty() {
            errors.required(&at.child("verbs"), "verbs must contain at least one value");
        }
        if !none(&rule.non_resource_urls) {
            if namespaced {
                let detail = "namespaced rules cannot apply to non-resource URLs";
                errors.invalid_object(&at.child("nonResourceURLs"), &rule.non_resource_urls, detail);
            }
            if !none(&rule.api_groups) || !none(&rule.resources) || !none(&rule.resource_names) {
                let detail = "rules cannot apply to both regular resources and non-resource URLs";
                errors.invalid_object(&at.child("nonResourceURLs"), &rule.non_resource_urls, detail);
            }
            continue;
        }
        if none(&rule.api_groups) {
            errors.required(&at.child("apiGroups"), "resource rules must supply at least one api group");
        }
        if none(&rule.resources) {
            errors.required(&at.child("resources"), "resource rules must supply at least one resource");
        }
    }
}

fn references(errors: &mut Errors, role: &RoleRef, subjects: Option<&[Subject]>, namespaced: bool, kinds: &[&str]) {
    let path = Path::root("roleRef");
    errors.optional_one_of(&path.child("apiGroup"), role.api_group.as_deref(), &[GROUP]);
    errors.optional_one_of(&path.child("kind"), Some(role.kind.as_str()), kinds);
    if role.name.is_empty() {
        errors.required(&path.child("name"), "");
    } else {
        errors.each(&path.child("name"), &role.name, names::path_segment(&role.name));
    }
    let path = Path::root("subjects");
    for (i, given) in subjects.unwrap_or_default().iter().enumerate() {
        subject(errors, &path.index(i), given, namespaced);
    }
}

fn subject(errors: &mut Errors, path: &Path<'_>, subject: &Subject, namespaced: bool) {
    if subject.name.is_empty() {
        errors.required(&path.child("name"), "");
    }
    let group = subject.api_group.as_deref().unwrap_or_default();
    match subject.kind.as_str() {
        "ServiceAccount" => {
            if !subject.name.is_empty() {
                errors.each(&path.child("name"), &subject.name, names::dns_subdomain(&subject.name));
            }
            errors.optional_one_of(&path.child("apiGroup"), Some(group), &[""]);
            if !namespaced && subject.namespace.as_deref().is_none_or(str::is_empty) {
                errors.required(&path.child("namespace"), "");
            }
        }
        "User" | "Group" => errors.optional_one_of(&path.child("apiGroup"), Some(group), &[GROUP]),
        other => errors.not_supported(&path.child("kind"), other, &["ServiceAccount", "User", "Group"]),
    }
}

fn role_stays(errors: &mut Errors, new: &RoleRef, old: Option<&RoleRef>) {
    if let Some(old) = old
        && new != old
    {
        errors.invalid_object(&Path::root("roleRef"), new, "cannot change roleRef");
    }
}
