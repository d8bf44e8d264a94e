//! APIServices.
//!
//! Mirrors `kube-aggregator/pkg/apis/apiregistration/validation/validation.go`.

use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::{APIService, APIServiceSpec, ServiceReference};

use super::field::{Errors, Path};
use super::meta;
use crate::names;

const NAME: Path<'static> = Path::root("metadata.name");
const SPEC: Path<'static> = Path::root("spec");
const CONDITIONS: Path<'static> = Path::root("status.conditions");
/// The highest priority of a group, and of a version within it.
const GROUP_PRIORITY: i32 = 20_000;
const VERSION_PRIORITY: i32 = 1_000;

/// A new or changed APIService; `old` is none for a new one.
pub fn api_service(service: &APIService, old: Option<&APIService>) -> Errors {
    let mut errors = Errors::default();
    match old {
        None => meta::create(&mut errors, &service.metadata, false, names::path_segment),
        Some(old) => meta::update(&mut errors, &service.metadata, &old.metadata),
    }
    let spec = service.spec.clone().unwrap_or_default();
    let (group, version) = (spec.group.as_deref().unwrap_or(""), spec.version.as_deref().unwrap_or(""));
    let (name, required) = (service.metadata.name.as_deref().unwrap_or(""), format!("{version}.{group}"));
    if !name.is_empty() && name != required {
        errors.invalid(&NAME, name, format!("must be `spec.version+\".\"+spec.group`: {required:?}"));
    }
    if group.is_empty() && version != "v1" {
        errors.required(&SPEC.child("group"), "only v1 may have an empty group and it better be legacy kube");
    }
    if !group.is_empty() {
        errors.each(&SPEC.child("group"), group, names::dns_subdomain(group));
    }
    errors.each(&SPEC.child("version"), version, names::dns_1035_label(version));
    if !(1..=GROUP_PRIORITY).contains(&spec.group_priority_minimum) {
        let told = "must be positive and less than 20000";
        errors.invalid(&SPEC.child("groupPriorityMinimum"), spec.group_priority_minimum, told);
    }
    if !(1..=VERSION_PRIORITY).contains(&spec.version_priority) {
        errors.invalid(&SPEC.child("versionPriority"), spec.version_priority, "must be positive and less than 1000");
    }
    match &spec.service {
        None => local(&mut errors, &spec),
        Some(reference) => served_by(&mut errors, reference, &spec),
    }
    errors
}

fn local(errors: &mut Errors, spec: &APIServiceSpec) {
    let bundle = spec.ca_bundle.as_ref().map_or(0, |bundle| bundle.0.len());
    if bundle > 0 {
        errors.invalid(&SPEC.child("caBundle"), format!("{bundle} bytes"), "local APIServices may not have a caBundle");
    }
    if spec.insecure_skip_tls_verify == Some(true) {
        let told = "local APIServices may not have insecureSkipTLSVerify";
        errors.invalid(&SPEC.child("insecureSkipTLSVerify"), true, told);
    }
}

fn served_by(errors: &mut Errors, reference: &ServiceReference, spec: &APIServiceSpec) {
    const SERVICE: Path<'static> = Path::root("spec.service");
    for (field, value) in [("namespace", &reference.namespace), ("name", &reference.name)] {
        if value.as_deref().is_none_or(str::is_empty) {
            errors.required(&SERVICE.child(field), "");
        }
    }
    let port = reference.port.unwrap_or(crate::defaults::apiregistration::SERVICE_PORT);
    let problems = names::port_number(port);
    if !problems.is_empty() {
        errors.invalid(&SERVICE.child("port"), port, format!("port is not valid: {}", problems.join(", ")));
    }
    if spec.insecure_skip_tls_verify == Some(true) && spec.ca_bundle.as_ref().is_some_and(|it| !it.0.is_empty()) {
        errors.invalid(&SPEC.child("insecureSkipTLSVerify"), true, "may not be true if caBundle is present");
    }
}

/// An APIService whose status was changed.
pub fn update_api_service_status(new: &APIService, old: &APIService) -> Errors {
    let mut errors = Errors::default();
    meta::update(&mut errors, &new.metadata, &old.metadata);
    let conditions = new.status.iter().flat_map(|status| status.conditions.iter().flatten());
    for (index, condition) in conditions.enumerate() {
        let at = CONDITIONS.index(index);
        errors.one_of(&at.child("status"), Some(condition.status.as_str()), &["False", "True", "Unknown"]);
    }
    errors
}
