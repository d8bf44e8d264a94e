//! Metadata of every object, and label selectors.
//!
//! Mirrors apimachinery `pkg/api/validation/objectmeta.go` and `pkg/apis/meta/v1/validation`.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{
    Condition, LabelSelector, LabelSelectorRequirement, ObjectMeta, OwnerReference,
};

use super::field::{Errors, Path, quote};
use crate::schema::ZERO_TIME;
use crate::{limits, names};

/// A check of a name: the problems with it.
pub type NameCheck = fn(&str) -> Vec<String>;

const METADATA: Path<'static> = Path::root("metadata");
/// Finalizers without a domain that are Kubernetes' own.
const STANDARD_FINALIZERS: [&str; 3] = ["kubernetes", "orphan", "foregroundDeletion"];

/// The metadata of a new object.
pub fn create(errors: &mut Errors, meta: &ObjectMeta, namespaced: bool, name_check: NameCheck) {
    if let Some(base) = meta.generate_name.as_deref().filter(|base| !base.is_empty()) {
        errors.each(&METADATA.child("generateName"), base, name_check(&names::mask_trailing_dash(base)));
    }
    match meta.name.as_deref() {
        None | Some("") => errors.required(&METADATA.child("name"), "name or generateName is required"),
        Some(name) => errors.each(&METADATA.child("name"), name, name_check(name)),
    }
    namespace(errors, meta, namespaced);
    common(errors, meta);
}

/// The metadata of a changed object. What the server keeps (uid, creation time) was put back before.
pub fn update(errors: &mut Errors, new: &ObjectMeta, old: &ObjectMeta) {
    if old.deletion_timestamp.is_some() {
        no_new_finalizers(errors, new, old);
    }
    let generation = |meta: &ObjectMeta| meta.generation.unwrap_or(0);
    if generation(new) < generation(old) {
        errors.invalid(&METADATA.child("generation"), generation(new), "must not be decremented");
    }
    errors.immutable(&METADATA.child("name"), &new.name, &old.name);
    errors.immutable(&METADATA.child("namespace"), &new.namespace, &old.namespace);
    errors.immutable(&METADATA.child("uid"), &new.uid, &old.uid);
    errors.immutable(&METADATA.child("creationTimestamp"), &new.creation_timestamp, &old.creation_timestamp);
    errors.immutable(&METADATA.child("deletionTimestamp"), &new.deletion_timestamp, &old.deletion_timestamp);
    errors.immutable(
        &METADATA.child("deletionGracePeriodSeconds"),
        &new.deletion_grace_period_seconds,
        &old.deletion_grace_period_seconds,
    );
    common(errors, new);
}

/// Conditions that upstream checks (`ValidateConditions`), but for their lengths and the letters of reasons.
pub fn conditions(errors: &mut Errors, path: &Path<'_>, conditions: &[Condition]) {
    for (i, condition) in conditions.iter().enumerate() {
        let path = path.index(i);
        if conditions[..i].iter().any(|other| other.type_ == condition.type_) {
            errors.duplicate(&path.child("type"), condition.type_.as_str());
        }
        errors.each(&path.child("type"), &condition.type_, names::qualified_name(&condition.type_));
        if !["False", "True", "Unknown"].contains(&&*condition.status) {
            errors.not_supported(&path.child("status"), condition.status.as_str(), &["False", "True", "Unknown"]);
        }
        if condition.last_transition_time.0.to_string() == ZERO_TIME {
            errors.required(&path.child("lastTransitionTime"), "");
        }
        if condition.reason.is_empty() {
            errors.required(&path.child("reason"), "");
        }
    }
}

fn namespace(errors: &mut Errors, meta: &ObjectMeta, namespaced: bool) {
    let path = METADATA.child("namespace");
    match meta.namespace.as_deref().filter(|namespace| !namespace.is_empty()) {
        Some(namespace) if namespaced => errors.each(&path, namespace, names::dns_label(namespace)),
        Some(_) => errors.forbidden(&path, "not allowed on this type"),
        None if namespaced => errors.required(&path, ""),
        None => {}
    }
}

fn common(errors: &mut Errors, meta: &ObjectMeta) {
    errors.not_negative(&METADATA.child("generation"), meta.generation.unwrap_or(0));
    labels(errors, &METADATA.child("labels"), meta.labels.as_ref());
    annotations(errors, &METADATA.child("annotations"), meta.annotations.as_ref());
    owner_references(errors, meta.owner_references.as_deref().unwrap_or_default());
    finalizers(errors, meta.finalizers.as_deref().unwrap_or_default());
}

/// Labels: keys and values.
pub fn labels(errors: &mut Errors, path: &Path<'_>, labels: Option<&BTreeMap<String, String>>) {
    for (key, value) in labels.into_iter().flatten() {
        errors.each(path, key, names::qualified_name(key));
        errors.each(path, value, names::label_value(value));
    }
}

/// Annotations: keys, and the size of all of them.
pub fn annotations(errors: &mut Errors, path: &Path<'_>, annotations: Option<&BTreeMap<String, String>>) {
    let mut size = 0;
    for (key, value) in annotations.into_iter().flatten() {
        errors.each(path, key, names::qualified_name(&key.to_lowercase()));
        size += key.len() + value.len();
    }
    if size > limits::ANNOTATIONS_BYTES {
        errors.too_long(path, limits::ANNOTATIONS_BYTES);
    }
}

fn owner_references(errors: &mut Errors, references: &[OwnerReference]) {
    let path = METADATA.child("ownerReferences");
    let mut controller: Option<String> = None;
    for reference in references {
        let version = reference.api_version.rsplit('/').next().unwrap_or_default();
        if version.is_empty() {
            errors.invalid(&path.child("apiVersion"), reference.api_version.as_str(), "version must not be empty");
        }
        for (field, value) in [("kind", &reference.kind), ("name", &reference.name), ("uid", &reference.uid)] {
            if value.is_empty() {
                errors.invalid(&path.child(field), "", "must not be empty");
            }
        }
        if reference.api_version == "v1" && reference.kind == "Event" {
            errors.invalid_object(&path, reference, "/v1, Kind=Event is disallowed from being an owner");
        }
        if reference.controller == Some(true) {
            let this = format!("{}/{}", reference.kind, reference.name);
            match &controller {
                Some(first) => errors.invalid_object(
                    &path,
                    &references,
                    format!("Only one reference can have Controller set to true. Found \"true\" in references for {first} and {this}"),
                ),
                None => controller = Some(this),
            }
        }
    }
}

fn finalizers(errors: &mut Errors, finalizers: &[String]) {
    let path = METADATA.child("finalizers");
    for (i, finalizer) in finalizers.iter().enumerate() {
        errors.each(&path, finalizer, names::qualified_name(finalizer));
        standard_finalizer(errors, &path.index(i), finalizer);
    }
    let has = |name: &str| finalizers.iter().any(|finalizer| finalizer == name);
    if has("orphan") && has("foregroundDeletion") {
        errors.invalid_object(&path, &finalizers, "finalizer orphan and foregroundDeletion cannot be both set");
    }
}

/// A finalizer without a domain has to be one of Kubernetes' own.
pub fn standard_finalizer(errors: &mut Errors, path: &Path<'_>, name: &str) {
    if !name.contains('/') && !STANDARD_FINALIZERS.contains(&name) {
        errors.invalid(path, name, "name is neither a standard finalizer name nor is it fully qualified");
    }
}

fn no_new_finalizers(errors: &mut Errors, new: &ObjectMeta, old: &ObjectMeta) {
    let old: Vec<&String> = old.finalizers.iter().flatten().collect();
    let mut added: Vec<String> =
        new.finalizers.iter().flatten().filter(|name| !old.contains(name)).map(|name| quote(name)).collect();
    if !added.is_empty() {
        added.sort();
        let list = added.join(", ");
        let detail = format!(
            "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{list}}}"
        );
        errors.forbidden(&METADATA.child("finalizers"), detail);
    }
}

/// A label selector: keys, operators, values.
pub fn label_selector(errors: &mut Errors, path: &Path<'_>, selector: &LabelSelector) {
    labels(errors, &path.child("matchLabels"), selector.match_labels.as_ref());
    let expressions = path.child("matchExpressions");
    for (i, requirement) in selector.match_expressions.iter().flatten().enumerate() {
        selector_requirement(errors, &expressions.index(i), requirement);
    }
}

fn selector_requirement(errors: &mut Errors, path: &Path<'_>, requirement: &LabelSelectorRequirement) {
    let values = requirement.values.as_deref().unwrap_or_default();
    match requirement.operator.as_str() {
        "In" | "NotIn" if values.is_empty() => {
            errors.required(&path.child("values"), "must be specified when `operator` is 'In' or 'NotIn'");
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            errors
                .forbidden(&path.child("values"), "may not be specified when `operator` is 'Exists' or 'DoesNotExist'");
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
        other => errors.invalid(&path.child("operator"), other, "not a valid selector operator"),
    }
    errors.each(&path.child("key"), &requirement.key, names::qualified_name(&requirement.key));
    let values_path = path.child("values");
    for (i, value) in values.iter().enumerate() {
        errors.each(&values_path.index(i), value, names::label_value(value));
    }
}
