//! Ingresses and IngressClasses.
//!
//! Mirrors `pkg/apis/networking/validation/validation.go`.

use std::net::IpAddr;

use k8s_openapi::api::networking::v1::{
    HTTPIngressPath, Ingress, IngressBackend, IngressClass, IngressClassParametersReference, IngressRule,
    IngressServiceBackend, IngressSpec, IngressTLS,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::field::{Errors, Path};
use super::meta;
use crate::names;

/// The annotation that named the class before `spec.ingressClassName`.
pub const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";

const SPEC: Path<'static> = Path::root("spec");
const CONTROLLER_CHARACTERS: usize = 250;
const PATH_TYPES: [&str; 3] = ["Exact", "ImplementationSpecific", "Prefix"];
const BAD_IN_PATH: [&str; 5] = ["//", "/./", "/../", "%2f", "%2F"];
const BAD_AT_END: [&str; 2] = ["/..", "/."];

/// A new or changed Ingress; `old` is none for a new one.
pub fn ingress(ingress: &Ingress, old: Option<&Ingress>) -> Errors {
    let mut errors = start(&ingress.metadata, old.map(|old| &old.metadata), true);
    let none = IngressSpec::default();
    let given = ingress.spec.as_ref().unwrap_or(&none);
    spec(&mut errors, given, &Tolerated::of(old));
    let annotated = ingress.metadata.annotations.as_ref().and_then(|all| all.get(CLASS_ANNOTATION));
    let differs = annotated.filter(|class| given.ingress_class_name.as_ref().is_some_and(|named| named != *class));
    if let (Some(class), None) = (differs, old) {
        let path = Path::root("annotations");
        let detail = "must match `ingressClassName` when both are specified";
        errors.invalid(&path.child(CLASS_ANNOTATION), class.as_str(), detail);
    }
    errors
}

/// A changed status of an Ingress.
pub fn update_ingress_status(new: &Ingress, old: &Ingress) -> Errors {
    let mut errors = start(&new.metadata, Some(&old.metadata), true);
    let balancer = new.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let path = Path::root("status.loadBalancer.ingress");
    for (i, place) in balancer.iter().flat_map(|it| it.ingress.iter().flatten()).enumerate() {
        let at = path.index(i);
        if let Some(address) = place.ip.as_deref().filter(|address| !address.is_empty()) {
            errors.each(&at.child("ip"), address, names::ip_address(address));
        }
        if let Some(host) = place.hostname.as_deref().filter(|host| !host.is_empty()) {
            errors.each(&at.child("hostname"), host, names::dns_subdomain(host));
            no_address(&mut errors, &at.child("hostname"), host);
        }
    }
    errors
}

/// A new or changed IngressClass; `old` is none for a new one.
pub fn ingress_class(class: &IngressClass, old: Option<&IngressClass>) -> Errors {
    let mut errors = start(&class.metadata, old.map(|old| &old.metadata), false);
    let spec = class.spec.clone().unwrap_or_default();
    let given = spec.controller.as_deref().unwrap_or_default();
    if let Some(old) = old {
        let before = old.spec.as_ref().and_then(|spec| spec.controller.as_deref()).unwrap_or_default();
        errors.immutable(&SPEC.child("controller"), &given, &before);
    }
    if given.len() > CONTROLLER_CHARACTERS {
        errors.too_long(&SPEC.child("controller"), CONTROLLER_CHARACTERS);
    }
    controller(&mut errors, &SPEC.child("controller"), given);
    if let Some(given) = spec.parameters.as_ref() {
        parameters(&mut errors, &SPEC.child("parameters"), given);
    }
    errors
}

fn start(new: &ObjectMeta, old: Option<&ObjectMeta>, namespaced: bool) -> Errors {
    let mut errors = Errors::default();
    match old {
        None => meta::create(&mut errors, new, namespaced, names::dns_subdomain),
        Some(old) => meta::update(&mut errors, new, old),
    }
    errors
}

/// Faults that an object had before they were looked for, and may keep.
struct Tolerated {
    secret_names: bool,
    wildcard_rules: bool,
}

impl Tolerated {
    fn of(old: Option<&Ingress>) -> Tolerated {
        let spec = old.and_then(|old| old.spec.as_ref());
        let mut tls = spec.into_iter().flat_map(|spec| spec.tls.iter().flatten());
        let mut rules = spec.into_iter().flat_map(|spec| spec.rules.iter().flatten());
        let is_bad = |rule: &IngressRule| {
            let mut errors = Errors::default();
            paths(&mut errors, &SPEC, rule);
            is_wildcard(rule) && !errors.0.is_empty()
        };
        Tolerated { secret_names: tls.any(|tls| !secret_name(tls).is_empty()), wildcard_rules: rules.any(is_bad) }
    }
}

fn spec(errors: &mut Errors, spec: &IngressSpec, tolerated: &Tolerated) {
    let rules = spec.rules.as_deref().unwrap_or_default();
    if rules.is_empty() && spec.default_backend.is_none() {
        errors.invalid_object(&SPEC, &spec.rules, "either `defaultBackend` or `rules` must be specified");
    }
    if let Some(given) = spec.default_backend.as_ref() {
        backend(errors, &SPEC.child("defaultBackend"), given);
    }
    for (i, given) in rules.iter().enumerate() {
        let path = SPEC.child("rules");
        rule(errors, &path.index(i), given, tolerated);
    }
    for (i, given) in spec.tls.iter().flatten().enumerate() {
        let path = SPEC.child("tls");
        tls(errors, &path.index(i), given, tolerated);
    }
    if let Some(class) = spec.ingress_class_name.as_deref() {
        errors.each(&SPEC.child("ingressClassName"), class, names::dns_subdomain(class));
    }
}

fn tls(errors: &mut Errors, path: &Path<'_>, tls: &IngressTLS, tolerated: &Tolerated) {
    let hosts = path.child("hosts");
    for (i, given) in tls.hosts.iter().flatten().enumerate() {
        host(errors, &hosts.index(i), given);
    }
    if !tolerated.secret_names {
        let given = tls.secret_name.as_deref().unwrap_or_default();
        errors.each(&path.child("secretName"), given, secret_name(tls));
    }
}

fn secret_name(tls: &IngressTLS) -> Vec<String> {
    let name = tls.secret_name.as_deref().filter(|name| !name.is_empty());
    name.map(names::dns_subdomain).unwrap_or_default()
}

fn rule(errors: &mut Errors, path: &Path<'_>, rule: &IngressRule, tolerated: &Tolerated) {
    if let Some(given) = rule.host.as_deref().filter(|given| !given.is_empty()) {
        no_address(errors, &path.child("host"), given);
        host(errors, &path.child("host"), given);
    }
    if !(is_wildcard(rule) && tolerated.wildcard_rules) {
        paths(errors, path, rule);
    }
}

fn is_wildcard(rule: &IngressRule) -> bool {
    rule.host.as_deref().is_some_and(|host| host.contains('*'))
}

fn host(errors: &mut Errors, path: &Path<'_>, host: &str) {
    let check = if host.contains('*') { names::wildcard_subdomain } else { names::dns_subdomain };
    errors.each(path, host, check(host));
}

fn no_address(errors: &mut Errors, path: &Path<'_>, host: &str) {
    if host.parse::<IpAddr>().is_ok() {
        errors.invalid(path, host, "must be a DNS name, not an IP address");
    }
}

fn paths(errors: &mut Errors, path: &Path<'_>, rule: &IngressRule) {
    let Some(http) = rule.http.as_ref() else { return };
    let list = path.child("http.paths");
    if http.paths.is_empty() {
        errors.required(&list, "");
    }
    for (i, given) in http.paths.iter().enumerate() {
        one_path(errors, &list.index(i), given);
    }
}

fn one_path(errors: &mut Errors, at: &Path<'_>, given: &HTTPIngressPath) {
    let path = given.path.as_deref().unwrap_or_default();
    let field = at.child("path");
    match given.path_type.as_str() {
        "" => return errors.required(&at.child("pathType"), "pathType must be specified"),
        "Exact" | "Prefix" => {
            absolute(errors, &field, path);
            for part in BAD_IN_PATH.into_iter().filter(|part| path.contains(part)) {
                errors.invalid(&field, path, format!("must not contain '{part}'"));
            }
            for end in BAD_AT_END.into_iter().filter(|end| path.ends_with(end)) {
                errors.invalid(&field, path, format!("cannot end with '{end}'"));
            }
        }
        "ImplementationSpecific" if path.is_empty() => {}
        "ImplementationSpecific" => absolute(errors, &field, path),
        other => errors.not_supported(&at.child("pathType"), other, &PATH_TYPES),
    }
    backend(errors, &at.child("backend"), &given.backend);
}

fn absolute(errors: &mut Errors, field: &Path<'_>, path: &str) {
    if !path.starts_with('/') {
        errors.invalid(field, path, "must be an absolute path");
    }
}

fn backend(errors: &mut Errors, path: &Path<'_>, backend: &IngressBackend) {
    match (backend.resource.as_ref(), backend.service.as_ref()) {
        (Some(_), Some(_)) => errors.invalid(path, "", "cannot set both resource and service backends"),
        (Some(resource), None) => {
            let (group, kind, name) = (resource.api_group.as_deref(), &resource.kind, &resource.name);
            reference(errors, &path.child("resource"), group, kind, name);
        }
        (None, Some(service)) => service_backend(errors, path, service),
        (None, None) => errors.invalid(path, "", "resource or service backend is required"),
    }
}

fn service_backend(errors: &mut Errors, path: &Path<'_>, service: &IngressServiceBackend) {
    let field = path.child("service");
    if service.name.is_empty() {
        errors.required(&field.child("name"), "");
    } else {
        errors.each(&field.child("name"), &service.name, names::dns_label(&service.name));
    }
    let port = service.port.clone().unwrap_or_default();
    match (port.name.as_deref().unwrap_or_default(), port.number.unwrap_or(0)) {
        ("", 0) => errors.required(path, "port name or number is required"),
        ("", number) => {
            errors.each_number(&field.child("port.number"), i64::from(number), names::port_number(number));
        }
        (name, 0) => errors.each(&field.child("port.name"), name, names::port_name(name)),
        _ => errors.invalid(path, "", "cannot set both port name & port number"),
    }
}

fn reference(errors: &mut Errors, path: &Path<'_>, group: Option<&str>, kind: &str, name: &str) {
    if let Some(group) = group {
        errors.each(&path.child("apiGroup"), group, names::dns_subdomain(group));
    }
    for (field, value) in [("kind", kind), ("name", name)] {
        if value.is_empty() {
            errors.required(&path.child(field), "");
        } else {
            errors.each(&path.child(field), value, names::path_segment(value));
        }
    }
}

fn parameters(errors: &mut Errors, path: &Path<'_>, given: &IngressClassParametersReference) {
    reference(errors, path, given.api_group.as_deref(), &given.kind, &given.name);
    let namespace = path.child("namespace");
    match (given.scope.as_deref().unwrap_or_default(), given.namespace.as_deref()) {
        ("Namespace", None) => errors.required(&namespace, "`parameters.scope` is set to 'Namespace'"),
        ("Namespace", Some(name)) => errors.each(&namespace, name, names::dns_label(name)),
        ("Cluster", Some(_)) => errors.forbidden(&namespace, "`parameters.scope` is set to 'Cluster'"),
        ("Cluster", None) => {}
        (other, _) => errors.not_supported(&path.child("scope"), other, &["Cluster", "Namespace"]),
    }
}

/// `acme.io/foo` (upstream: IsDomainPrefixedPath).
fn controller(errors: &mut Errors, path: &Path<'_>, value: &str) {
    if value.is_empty() {
        return errors.required(path, "");
    }
    let Some((domain, rest)) = value.split_once('/').filter(|(domain, rest)| !domain.is_empty() && !rest.is_empty())
    else {
        return errors.invalid(path, value, "must be a domain-prefixed path (such as \"acme.io/foo\")");
    };
    errors.each(path, domain, names::dns_subdomain(domain));
    let fits = |letter: char| letter.is_ascii_alphanumeric() || "/-._~%!$&'()*+,;=:".contains(letter);
    if !rest.chars().all(fits) {
        let pattern = "[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+";
        errors.invalid(path, rest, format!("Invalid path (regex used for validation is '{pattern}')"));
    }
}
