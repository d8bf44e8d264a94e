//! Requests and limits.
//!
//! Mirrors validateResourceRequirements, validateContainerResourceName and validatePodResourceConsistency.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::names;
use crate::pod_resources;
use crate::quantity::Amount;
use crate::validate::field::{Errors, Path};

type NameCheck = fn(&mut Errors, &Path<'_>, &str);

/// Requests and limits of a container or a pod: names, amounts, and requests within limits.
pub(super) fn requirements(errors: &mut Errors, path: &Path<'_>, given: &ResourceRequirements, check_name: NameCheck) {
    let empty = BTreeMap::new();
    let (limits, requests) = (given.limits.as_ref().unwrap_or(&empty), given.requests.as_ref().unwrap_or(&empty));
    let (limits_path, requests_path) = (path.child("limits"), path.child("requests"));
    for (name, quantity) in limits {
        let path = limits_path.key(name);
        check_name(errors, &path, name);
        if let Some(limit) = amount_of(errors, &path, name, quantity) {
            huge_pages(errors, &path, name, limit);
        }
    }
    for (name, quantity) in requests {
        let path = requests_path.key(name);
        check_name(errors, &path, name);
        let Some(request) = amount_of(errors, &path, name, quantity) else { continue };
        within_limit(errors, (&requests_path, &limits_path), name, request, limits.get(name));
        huge_pages(errors, &path, name, request);
    }
    let names = || limits.keys().chain(requests.keys());
    if names().any(|name| name.starts_with("hugepages-")) && !names().any(|name| name == "cpu" || name == "memory") {
        errors.forbidden(path, "HugePages require cpu or memory");
    }
}

/// A request is no more than its limit, and just that where the resource cannot be promised twice.
fn within_limit(
    errors: &mut Errors,
    (requests, limits): (&Path<'_>, &Path<'_>),
    name: &str,
    request: Amount,
    limit: Option<&Quantity>,
) {
    let Some(limit) = limit else {
        if !can_overcommit(name) {
            errors.required(limits, "Limit must be set for non overcommitable resources");
        }
        return;
    };
    // A limit that cannot be read was told already.
    let Ok(limit) = Amount::parse(&limit.0) else { return };
    if request != limit && !can_overcommit(name) {
        errors.invalid(requests, request.to_string(), format!("must be equal to {name} limit of {limit}"));
    } else if request > limit {
        errors.invalid(requests, request.to_string(), format!("must be less than or equal to {name} limit of {limit}"));
    }
}

/// A plain list of amounts.
pub(super) fn list(errors: &mut Errors, path: &Path<'_>, list: &BTreeMap<String, Quantity>) {
    let limits = path.child("limits");
    for (name, quantity) in list {
        let path = limits.key(name);
        container_name(errors, &path, name);
        if let Some(amount) = amount_of(errors, &path, name, quantity) {
            huge_pages(errors, &path, name, amount);
        }
    }
}

/// Huge pages come whole.
fn huge_pages(errors: &mut Errors, path: &Path<'_>, name: &str, amount: Amount) {
    if let Some(size) = name.strip_prefix("hugepages-").and_then(|size| Amount::parse(size).ok())
        && (size.value() <= 0 || amount.value() % size.value() != 0)
    {
        errors.invalid(path, amount.to_string(), format!("{amount} is not positive integer multiple of {name}"));
    }
}

/// A quantity that can be read, is not negative, and is whole where the resource cannot be split.
pub(in crate::validate) fn amount_of(
    errors: &mut Errors,
    path: &Path<'_>,
    name: &str,
    quantity: &Quantity,
) -> Option<Amount> {
    match Amount::parse(&quantity.0) {
        Ok(amount) => {
            if amount.is_negative() {
                errors.invalid(path, amount.to_string(), "must be greater than or equal to 0");
            }
            if !is_divisible(name) && !amount.is_whole() {
                errors.invalid(path, amount.to_string(), "must be an integer");
            }
            Some(amount)
        }
        Err(error) => {
            errors.invalid(path, quantity.0.as_str(), error.to_string());
            None
        }
    }
}

/// The name of a resource that a container can ask for.
pub fn container_name(errors: &mut Errors, path: &Path<'_>, name: &str) {
    let problems = names::qualified_name(name);
    let malformed = !problems.is_empty();
    errors.each(path, name, problems);
    if !name.contains('/') {
        let standard = matches!(name, "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-");
        if !malformed && !standard && !is_quota_resource(name) {
            errors.invalid(path, name, "must be a standard resource type or fully qualified");
        }
        if !standard {
            errors.invalid(path, name, "must be a standard resource for containers");
        }
    } else if !is_native(name) && !is_extended(name) {
        errors.invalid(path, name, "doesn't follow extended resource name standard");
    }
}

fn pod_level_name(errors: &mut Errors, path: &Path<'_>, name: &str) {
    let problems = names::qualified_name(name);
    if !problems.is_empty() {
        errors.each(path, name, problems);
    } else if !name.contains('/') && !pod_resources::is_pod_level(name) && !is_quota_resource(name) {
        errors.invalid(path, name, "must be a standard resource type or fully qualified");
    } else if !pod_resources::is_pod_level(name) {
        errors.not_supported(path, name, &["cpu", "hugepages-", "memory"]);
    }
}

/// Resources that only a quota counts.
pub fn is_quota_resource(name: &str) -> bool {
    const PLAIN: [&str; 16] = [
        "storage",
        "requests.cpu",
        "requests.memory",
        "requests.storage",
        "requests.ephemeral-storage",
        "limits.cpu",
        "limits.memory",
        "limits.ephemeral-storage",
        "pods",
        "resourcequotas",
        "services",
        "replicationcontrollers",
        "secrets",
        "configmaps",
        "persistentvolumeclaims",
        "services.nodeports",
    ];
    PLAIN.contains(&name) || name == "services.loadbalancers" || name.starts_with("requests.hugepages-")
}

fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

fn is_extended(name: &str) -> bool {
    !is_native(name) && !name.starts_with("requests.") && names::qualified_name(&format!("requests.{name}")).is_empty()
}

/// Resources of which a part can be had.
fn is_divisible(name: &str) -> bool {
    matches!(name, "cpu" | "memory" | "ephemeral-storage" | "storage") || name.starts_with("hugepages-")
}

fn can_overcommit(name: &str) -> bool {
    is_native(name) && !name.starts_with("hugepages-")
}

/// Requests and limits of the pod as a whole, which its containers' have to fit into.
pub(super) fn pod_level(errors: &mut Errors, path: &Path<'_>, spec: &PodSpec) {
    let Some(given) = spec.resources.as_ref() else { return };
    let path = path.child("resources");
    if given.claims.as_ref().is_some_and(|claims| !claims.is_empty()) {
        errors.forbidden(&path.child("claims"), "claims may not be set for Resources at pod-level");
    }
    requirements(errors, &path, given, pod_level_name);
    let containers = PodSpec { resources: None, overhead: None, ..spec.clone() };
    let requests = path.child("requests");
    for (name, used) in pod_resources::requested(&containers) {
        let Some(allowed) = given.requests.as_ref().and_then(|list| list.get(&name)).map(Amount::of) else { continue };
        if used > allowed {
            let detail = format!("must be greater than or equal to aggregate container requests of {used}");
            errors.invalid(&requests.key(&name), allowed.to_string(), detail);
        }
    }
    let containers = path.child("containers");
    for (i, container) in spec.containers.iter().enumerate() {
        let limits = container.resources.as_ref().and_then(|resources| resources.limits.as_ref());
        for (name, limit) in limits.into_iter().flatten() {
            let Some(allowed) = given.limits.as_ref().and_then(|list| list.get(name)).map(Amount::of) else { continue };
            let limit = Amount::of(limit);
            if limit > allowed {
                let (container, detail) =
                    (containers.index(i), format!("must be less than or equal to pod limits of {allowed}"));
                errors.invalid(&container.key(name).child("limits"), limit.to_string(), detail);
            }
        }
    }
}
