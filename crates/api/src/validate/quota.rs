//! ResourceQuotas and LimitRanges.
//!
//! Mirrors ValidateResourceQuota and ValidateLimitRange (`pkg/apis/core/validation/validation.go`).

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{LimitRange, LimitRangeItem, ResourceQuota, ResourceQuotaSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::field::{Errors, Path};
use super::meta;
use super::pod::resources::is_quota_resource;
use crate::names;
use crate::quantity::Amount;

const SPEC: Path<'static> = Path::root("spec");
const SCOPES: [&str; 6] =
    ["BestEffort", "CrossNamespacePodAffinity", "NotBestEffort", "NotTerminating", "PriorityClass", "Terminating"];
/// Scopes that no pod can be in at once.
const OPPOSITES: [(&str, &str); 2] = [("BestEffort", "NotBestEffort"), ("Terminating", "NotTerminating")];

type Quantities = Option<BTreeMap<String, Quantity>>;

/// A new or changed ResourceQuota; `old` is none for a new one.
pub fn resource_quota(quota: &ResourceQuota, old: Option<&ResourceQuota>) -> Errors {
    let mut errors = Errors::default();
    match old {
        None => meta::create(&mut errors, &quota.metadata, true, names::dns_subdomain),
        Some(old) => meta::update(&mut errors, &quota.metadata, &old.metadata),
    }
    let (none, spec) = (ResourceQuotaSpec::default(), quota.spec.clone().unwrap_or_default());
    for (name, quantity) in spec.hard.iter().flatten() {
        let (list, mut found) = (SPEC.child("hard"), Errors::default());
        let path = list.key(name);
        resource_name(&mut found, &path, name);
        amount(&mut found, &path, name, quantity);
        errors.0.extend(found.0);
    }
    scopes(&mut errors, &spec);
    if let Some(old) = old {
        let old = old.spec.as_ref().unwrap_or(&none);
        let set = |spec: &ResourceQuotaSpec| spec.scopes.iter().flatten().cloned().collect::<BTreeSet<String>>();
        if set(&spec) != set(old) {
            errors.invalid_object(&SPEC.child("scopes"), &spec.scopes, "field is immutable");
        }
    }
    errors
}

fn resource_name(errors: &mut Errors, path: &Path<'_>, name: &str) {
    let problems = names::qualified_name(name);
    if !problems.is_empty() {
        errors.each(path, name, problems);
    } else if !name.contains('/') && !is_quota_resource(name) && !is_standard(name) {
        errors.invalid(path, name, "must be a standard resource for quota");
    }
}

fn is_standard(name: &str) -> bool {
    matches!(name, "cpu" | "memory" | "ephemeral-storage") || name.starts_with("hugepages-")
}

fn amount(errors: &mut Errors, path: &Path<'_>, name: &str, quantity: &Quantity) {
    let Ok(amount) = Amount::parse(&quantity.0) else {
        return errors.invalid(path, quantity.0.as_str(), "must be a quantity such as 2, 500m or 1Gi");
    };
    if amount.is_negative() {
        errors.invalid(path, amount.to_string(), "must be greater than or equal to 0");
    }
    let of_pods =
        name.ends_with("cpu") || name.ends_with("memory") || name.ends_with("storage") || name.contains("hugepages-");
    if !of_pods && !amount.is_whole() {
        errors.invalid(path, amount.to_string(), "must be an integer");
    }
}

fn scopes(errors: &mut Errors, spec: &ResourceQuotaSpec) {
    let given: Vec<&str> = spec.scopes.iter().flatten().map(String::as_str).collect();
    let path = SPEC.child("scopes");
    for scope in &given {
        if !SCOPES.contains(scope) {
            errors.invalid_object(&path, &given, "unsupported scope");
        }
        if spec.hard.iter().flatten().any(|(name, _)| !is_of_pods(scope, name)) {
            errors.invalid_object(&path, &given, "unsupported scope applied to resource");
        }
    }
    if OPPOSITES.iter().any(|(one, other)| given.contains(one) && given.contains(other)) {
        errors.invalid_object(&path, &given, "conflicting scopes");
    }
    let selector = SPEC.child("scopeSelector");
    let list = selector.child("matchExpressions");
    for (index, one) in spec.scope_selector.iter().flat_map(|it| it.match_expressions.iter().flatten()).enumerate() {
        let path = list.index(index);
        if !SCOPES.contains(&one.scope_name.as_str()) {
            errors.invalid(&path.child("scopeName"), one.scope_name.as_str(), "unsupported scope");
        }
        let has_values = one.values.as_ref().is_some_and(|values| !values.is_empty());
        match one.operator.as_str() {
            "In" | "NotIn" if !has_values => errors.required(
                &path.child("values"),
                "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector",
            ),
            "Exists" | "DoesNotExist" if has_values => errors.invalid_object(
                &path.child("values"),
                &one.values,
                "must be no value when `operator` is 'Exists' or 'DoesNotExist' for scope selector",
            ),
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => errors.invalid(&path.child("operator"), other, "not a valid selector operator"),
        }
        if one.scope_name != "PriorityClass" && one.operator != "Exists" {
            errors.invalid(
                &path.child("operator"),
                one.operator.as_str(),
                "must be 'Exist' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity",
            );
        }
    }
}

/// Whether quotas of this scope may bound the resource (upstream: IsResourceQuotaScopeValidForResource).
fn is_of_pods(scope: &str, name: &str) -> bool {
    if scope == "BestEffort" {
        return name == "pods";
    }
    let computed = name.strip_prefix("requests.").or_else(|| name.strip_prefix("limits.")).unwrap_or(name);
    name == "pods"
        || is_standard(computed)
        || name == "count/pods"
        || computed.contains('/') && !name.starts_with("count/")
}

/// A new or changed LimitRange; `old` is none for a new one.
pub fn limit_range(range: &LimitRange, old: Option<&LimitRange>) -> Errors {
    let mut errors = Errors::default();
    match old {
        None => meta::create(&mut errors, &range.metadata, true, names::dns_subdomain),
        Some(old) => meta::update(&mut errors, &range.metadata, &old.metadata),
    }
    let limits = SPEC.child("limits");
    let mut types: BTreeSet<&str> = BTreeSet::new();
    for (index, item) in range.spec.iter().flat_map(|spec| &spec.limits).enumerate() {
        let path = limits.index(index);
        if !types.insert(item.type_.as_str()) {
            errors.duplicate(&path.child("type"), item.type_.as_str());
        }
        errors.one_of(&path.child("type"), Some(item.type_.as_str()), &["Container", "PersistentVolumeClaim", "Pod"]);
        limit_range_item(&mut errors, &path, item);
    }
    errors
}

fn limit_range_item(errors: &mut Errors, path: &Path<'_>, item: &LimitRangeItem) {
    let lists = [
        ("max", &item.max),
        ("min", &item.min),
        ("default", &item.default),
        ("defaultRequest", &item.default_request),
        ("maxLimitRequestRatio", &item.max_limit_request_ratio),
    ];
    for (field, list) in lists {
        for (name, quantity) in list.iter().flatten() {
            let list = path.child(field);
            let at = list.key(name);
            errors.each(&at, name, names::qualified_name(name));
            if Amount::parse(&quantity.0).map_or(true, Amount::is_negative) {
                errors.invalid(&at, quantity.0.as_str(), "must be a quantity that is not negative");
            }
        }
    }
    if item.type_ == "Pod" {
        for (field, list) in [("default", &item.default), ("defaultRequest", &item.default_request)] {
            if list.as_ref().is_some_and(|list| !list.is_empty()) {
                errors.forbidden(&path.child(field), "may not be specified when `type` is 'Pod'");
            }
        }
    }
    if item.type_ == "PersistentVolumeClaim"
        && ![&item.min, &item.max].iter().any(|list| list.as_ref().is_some_and(|list| list.contains_key("storage")))
    {
        errors.required(path, "either minimum or maximum storage value is required, but neither was provided");
    }
    let names: BTreeSet<&String> =
        lists.iter().flat_map(|(_, list)| list.iter().flatten()).map(|(name, _)| name).collect();
    for name in names {
        in_order(errors, path, item, name);
    }
}

/// min ≤ defaultRequest ≤ default ≤ max, as far as they are given.
fn in_order(errors: &mut Errors, path: &Path<'_>, item: &LimitRangeItem, name: &str) {
    let of = |list: &Quantities| list.as_ref().and_then(|list| list.get(name)).map(Amount::of);
    let (min, max) = (of(&item.min), of(&item.max));
    let (request, default) = (of(&item.default_request), of(&item.default));
    let mut judge = |field: &str, low: (&str, Option<Amount>), high: (&str, Option<Amount>)| {
        if let ((low_name, Some(low)), (high_name, Some(high))) = (low, high)
            && low > high
        {
            let detail = format!("{low_name} value {low} is greater than {high_name} value {high}");
            let list = path.child(field);
            errors.invalid(&list.key(name), low.to_string(), detail);
        }
    };
    judge("min", ("min", min), ("max", max));
    judge("defaultRequest", ("min", min), ("default request", request));
    judge("defaultRequest", ("default request", request), ("max", max));
    judge("defaultRequest", ("default request", request), ("default limit", default));
    judge("default", ("min", min), ("default", default));
    judge("default", ("default", default), ("max", max));
    if let Some(ratio) = of(&item.max_limit_request_ratio) {
        let list = path.child("maxLimitRequestRatio");
        let at = list.key(name);
        if ratio < Amount::whole(1) {
            errors.invalid(&at, ratio.to_string(), format!("ratio {ratio} is less than 1"));
        }
        if let (Some(min), Some(max)) = (min, max) {
            let most = max.milli() as f64 / min.milli().max(1) as f64;
            if (ratio.milli() as f64) / 1000.0 > most {
                errors.invalid(&at, ratio.to_string(), format!("ratio {ratio} is greater than max/min = {most:.6}"));
            }
        }
    }
}
