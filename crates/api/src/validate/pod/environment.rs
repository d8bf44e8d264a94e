//! Environment variables and where their values come from; fields and resources of the downward API.
//!
//! Mirrors ValidateEnv, validateEnvVarValueFrom, ValidateEnvFrom, validateObjectFieldSelector and
//! validateContainerResourceFieldSelector.

use k8s_openapi::api::core::v1::{
    Container, EnvFromSource, EnvVar, EnvVarSource, ObjectFieldSelector, ResourceFieldSelector,
};

use crate::names;
use crate::quantity::Amount;
use crate::validate::field::{Errors, Path};

/// Fields that an environment variable can hold.
const ENVIRONMENT_FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
/// Fields that a file can hold.
pub(super) const FILE_FIELDS: &[&str] =
    &["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];
/// Every field of the downward API; others are no field at all.
const DOWNWARD_FIELDS: &[&str] = &[
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.serviceAccountName",
    "spec.schedulerName",
    "status.phase",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
const RESOURCES: &[&str] = &[
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];
const BYTE_DIVISORS: &[&str] = &["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];

/// `env` and `envFrom` of a container.
pub(super) fn variables(errors: &mut Errors, path: &Path<'_>, container: &Container) {
    let variables = path.child("env");
    for (i, variable) in container.env.iter().flatten().enumerate() {
        let at = variables.index(i);
        if variable.name.is_empty() {
            errors.required(&at.child("name"), "");
        } else {
            errors.each(&at.child("name"), &variable.name, names::environment_variable(&variable.name));
        }
        if let Some(source) = variable.value_from.as_ref() {
            value_from(errors, &at.child("valueFrom"), variable, source);
        }
    }
    let sources = path.child("envFrom");
    for (i, source) in container.env_from.iter().flatten().enumerate() {
        from(errors, &sources, i, source);
    }
}

fn value_from(errors: &mut Errors, path: &Path<'_>, variable: &EnvVar, source: &EnvVarSource) {
    let mut sources = 0;
    if let Some(field) = source.field_ref.as_ref() {
        sources += 1;
        field_selector(errors, &path.child("fieldRef"), field, ENVIRONMENT_FIELDS);
    }
    if let Some(resource) = source.resource_field_ref.as_ref() {
        sources += 1;
        resource_selector(errors, &path.child("resourceFieldRef"), resource, false);
    }
    if let Some(reference) = source.config_map_key_ref.as_ref() {
        sources += 1;
        key_selector(errors, &path.child("configMapKeyRef"), &reference.name, &reference.key);
    }
    if let Some(reference) = source.secret_key_ref.as_ref() {
        sources += 1;
        key_selector(errors, &path.child("secretKeyRef"), &reference.name, &reference.key);
    }
    sources += usize::from(source.file_key_ref.is_some());
    let has_value = variable.value.as_deref().is_some_and(|value| !value.is_empty());
    if sources == 0 {
        let detail =
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`";
        errors.invalid(path, "", detail);
    } else if has_value {
        errors.invalid(path, "", "may not be specified when `value` is not empty");
    } else if sources > 1 {
        errors.invalid(path, "", "may not have more than one field specified at a time");
    }
}

fn key_selector(errors: &mut Errors, path: &Path<'_>, name: &str, key: &str) {
    errors.each(&path.child("name"), name, names::dns_subdomain(name));
    if key.is_empty() {
        errors.required(&path.child("key"), "");
    } else {
        errors.each(&path.child("key"), key, names::config_map_key(key));
    }
}

fn from(errors: &mut Errors, path: &Path<'_>, i: usize, source: &EnvFromSource) {
    let at = path.index(i);
    if let Some(prefix) = source.prefix.as_deref().filter(|prefix| !prefix.is_empty()) {
        errors.each(&at.child("prefix"), prefix, names::environment_variable(prefix));
    }
    let config_map = source.config_map_ref.as_ref().map(|reference| ("configMapRef.name", &reference.name));
    let secret = source.secret_ref.as_ref().map(|reference| ("secretRef.name", &reference.name));
    for (field, name) in [config_map, secret].into_iter().flatten() {
        if name.is_empty() {
            errors.required(&at.child(field), "");
        } else {
            errors.each(&at.child(field), name, names::dns_subdomain(&names::mask_trailing_dash(name)));
        }
    }
    match (config_map, secret) {
        (None, None) => errors.invalid(path, "", "must specify one of: `configMapRef` or `secretRef`"),
        (Some(_), Some(_)) => errors.invalid(path, "", "may not have more than one field specified at a time"),
        _ => {}
    }
}

/// A field of the pod.
pub(super) fn field_selector(errors: &mut Errors, path: &Path<'_>, field: &ObjectFieldSelector, known: &[&str]) {
    if field.api_version.as_deref().is_none_or(str::is_empty) {
        return errors.required(&path.child("apiVersion"), "");
    }
    if field.field_path.is_empty() {
        return errors.required(&path.child("fieldPath"), "");
    }
    let at = path.child("fieldPath");
    let text = field.field_path.as_str();
    if let Some(version) = field.api_version.as_deref().filter(|version| *version != "v1") {
        return errors.invalid(&at, text, format!("error converting fieldPath: unsupported pod version: {version}"));
    }
    if let Some((map, key)) = subscript(text) {
        return match map {
            "metadata.annotations" => errors.each(path, key, names::qualified_name(&key.to_lowercase())),
            "metadata.labels" => errors.each(path, key, names::qualified_name(key)),
            _ => errors.invalid(
                &at,
                text,
                format!("error converting fieldPath: field label does not support subscript: {text}"),
            ),
        };
    }
    let name = if text == "spec.host" { "spec.nodeName" } else { text };
    if !DOWNWARD_FIELDS.contains(&name) {
        errors.invalid(&at, text, format!("error converting fieldPath: field label not supported: {text}"));
    } else if !known.contains(&name) {
        errors.not_supported(&at, name, known);
    }
}

/// `metadata.labels['app']` as `metadata.labels` and `app`.
fn subscript(path: &str) -> Option<(&str, &str)> {
    let (map, key) = path.strip_suffix("']")?.split_once("['")?;
    (!map.is_empty()).then_some((map, key))
}

/// A resource of a container.
pub(super) fn resource_selector(
    errors: &mut Errors,
    path: &Path<'_>,
    selector: &ResourceFieldSelector,
    needs_container: bool,
) {
    let resource = selector.resource.as_str();
    let huge_pages = resource.starts_with("requests.hugepages-") || resource.starts_with("limits.hugepages-");
    if needs_container && selector.container_name.as_deref().is_none_or(str::is_empty) {
        errors.required(&path.child("containerName"), "");
    } else if resource.is_empty() {
        errors.required(&path.child("resource"), "");
    } else if !RESOURCES.contains(&resource) && !huge_pages {
        errors.not_supported(&path.child("resource"), resource, RESOURCES);
    }
    let Some(divisor) = selector.divisor.as_ref() else { return };
    let Ok(amount) = Amount::parse(&divisor.0) else {
        return errors.invalid(&path.child("divisor"), divisor.0.as_str(), "must be a valid resource quantity");
    };
    if amount.is_zero() {
        return;
    }
    let text = amount.to_string();
    let what = match resource.split_once('.').map_or("", |(_, name)| name) {
        "cpu" if text != "1" && text != "1m" => {
            let detail = "only divisor's values 1m and 1 are supported with the cpu resource";
            return errors.invalid(&path.child("divisor"), resource, detail);
        }
        "memory" => "memory",
        "ephemeral-storage" => "local ephemeral storage",
        _ if huge_pages => "hugepages",
        _ => return,
    };
    if !BYTE_DIVISORS.contains(&text.as_str()) {
        let list = BYTE_DIVISORS.join(", ");
        let detail = format!("only divisor's values {list} are supported with the {what} resource");
        errors.invalid(&path.child("divisor"), resource, detail);
    }
}
