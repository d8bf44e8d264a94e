//! Services.
//!
//! Mirrors validateService and what it calls in `pkg/apis/core/validation/validation.go`.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};

use super::field::{Errors, Path};
use super::{meta, pod};
use crate::names;

const SPEC: Path<'static> = Path::root("spec");
const AFFINITY_SECONDS: i32 = 86_400;

/// A new Service.
pub fn create(service: &Service) -> Errors {
    let mut errors = Errors::default();
    meta::create(&mut errors, &service.metadata, true, names::dns_label);
    content(&mut errors, service);
    errors
}

/// A changed Service.
pub fn update(new: &Service, old: &Service) -> Errors {
    let mut errors = Errors::default();
    meta::update(&mut errors, &new.metadata, &old.metadata);
    if let (Some(new), Some(old)) = (new.spec.as_ref(), old.spec.as_ref()) {
        addresses_stay(&mut errors, new, old);
        if needs_health_check(new)
            && needs_health_check(old)
            && new.health_check_node_port != old.health_check_node_port
        {
            errors.forbidden(&SPEC.child("healthCheckNodePort"), "field is immutable");
        }
    }
    content(&mut errors, new);
    errors
}

fn content(errors: &mut Errors, service: &Service) {
    let Some(spec) = service.spec.as_ref() else { return errors.required(&SPEC.child("ports"), "") };
    let kind = spec.type_.as_deref().unwrap_or_default();
    let ports = spec.ports.as_deref().unwrap_or_default();
    if ports.is_empty() && !is_headless(spec) && kind != "ExternalName" {
        errors.required(&SPEC.child("ports"), "");
    }
    by_type(errors, spec, kind);
    all_ports(errors, kind, ports);
    meta::labels(errors, &SPEC.child("selector"), spec.selector.as_ref());
    affinity(errors, spec);
    if kind != "ExternalName" {
        cluster_addresses(errors, spec);
    }
    let external = SPEC.child("externalIPs");
    for (i, address) in spec.external_ips.iter().flatten().enumerate() {
        errors.each(&external.index(i), address, names::endpoint_address(address));
    }
    let types = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
    errors.one_of(&SPEC.child("type"), spec.type_.as_deref(), &types);
    load_balancer(errors, spec, kind);
    traffic(errors, spec, kind);
}

/// True if balancers have to ask the nodes which of them have pods of the Service.
pub fn needs_health_check(spec: &ServiceSpec) -> bool {
    spec.type_.as_deref() == Some("LoadBalancer") && spec.external_traffic_policy.as_deref() == Some("Local")
}

fn is_headless(spec: &ServiceSpec) -> bool {
    matches!(spec.cluster_ips.as_deref(), Some([only]) if only == "None")
}

fn by_type(errors: &mut Errors, spec: &ServiceSpec, kind: &str) {
    match kind {
        "LoadBalancer" | "NodePort" if is_headless(spec) => {
            let detail = format!("may not be set to 'None' for {kind} services");
            errors.invalid(&SPEC.child("clusterIPs[0]"), "None", detail);
        }
        "ExternalName" => {
            let given = [
                ("clusterIPs", spec.cluster_ips.as_ref().is_some_and(|ips| !ips.is_empty())),
                ("ipFamilies", spec.ip_families.as_ref().is_some_and(|families| !families.is_empty())),
                ("ipFamilyPolicy", spec.ip_family_policy.is_some()),
            ];
            for (field, _) in given.iter().filter(|(_, given)| *given) {
                errors.forbidden(&SPEC.child(field), "may not be set for ExternalName services");
            }
            let name = spec.external_name.as_deref().unwrap_or_default();
            let name = name.strip_suffix('.').unwrap_or(name);
            if name.is_empty() {
                errors.required(&SPEC.child("externalName"), "");
            } else {
                errors.each(&SPEC.child("externalName"), name, names::dns_subdomain(name));
            }
        }
        _ => {}
    }
}

fn all_ports(errors: &mut Errors, kind: &str, ports: &[ServicePort]) {
    let list = SPEC.child("ports");
    let mut seen = BTreeSet::new();
    for (i, given) in ports.iter().enumerate() {
        let path = list.index(i);
        match given.name.as_deref().filter(|name| !name.is_empty()) {
            None if ports.len() > 1 => errors.required(&path.child("name"), ""),
            None => {}
            Some(name) => {
                errors.each(&path.child("name"), name, names::dns_label(name));
                if !seen.insert(name) {
                    errors.duplicate(&path.child("name"), name);
                }
            }
        }
        errors.each_number(&path.child("port"), i64::from(given.port), names::port_number(given.port));
        errors.one_of(&path.child("protocol"), given.protocol.as_deref(), &["SCTP", "TCP", "UDP"]);
        if let Some(target) = given.target_port.as_ref() {
            pod::port(errors, &path.child("targetPort"), target);
        }
        if let Some(protocol) = given.app_protocol.as_deref() {
            errors.each(&path.child("appProtocol"), protocol, names::qualified_name(protocol));
        }
    }
    for (i, given) in ports.iter().enumerate() {
        let path = list.index(i);
        let node_port = given.node_port.unwrap_or(0);
        if kind == "ClusterIP" && node_port != 0 {
            errors.forbidden(&path.child("nodePort"), "may not be used when `type` is 'ClusterIP'");
        }
        let same = |other: &&ServicePort| other.protocol == given.protocol;
        if node_port != 0 && ports[..i].iter().filter(same).any(|other| other.node_port == given.node_port) {
            errors.duplicate(&path.child("nodePort"), node_port);
        }
        if ports[..i].iter().filter(same).any(|other| other.port == given.port) {
            let shown = ServicePort { protocol: given.protocol.clone(), port: given.port, ..ServicePort::default() };
            errors.duplicate(&path, serde_json::to_value(shown).unwrap_or_default());
        }
    }
}

fn affinity(errors: &mut Errors, spec: &ServiceSpec) {
    errors.one_of(&SPEC.child("sessionAffinity"), spec.session_affinity.as_deref(), &["ClientIP", "None"]);
    let path = SPEC.child("sessionAffinityConfig");
    let config = spec.session_affinity_config.as_ref();
    match spec.session_affinity.as_deref() {
        Some("ClientIP") => {
            let detail = "when session affinity type is ClientIP";
            let Some(config) = config else { return errors.required(&path, detail) };
            let Some(client) = config.client_ip.as_ref() else {
                return errors.required(&path.child("clientIP"), detail);
            };
            let path = path.child("clientIP.timeoutSeconds");
            match client.timeout_seconds {
                None => errors.required(&path, detail),
                Some(seconds) if !(1..=AFFINITY_SECONDS).contains(&seconds) => {
                    let detail = format!("must be greater than 0 and less than {AFFINITY_SECONDS}");
                    errors.invalid(&path, seconds, detail);
                }
                Some(_) => {}
            }
        }
        Some("None") if config.is_some() => errors.forbidden(&path, "must not be set when session affinity is None"),
        _ => {}
    }
}

/// The addresses of a Service and their families, as far as they can be judged without knowing the cluster's (upstream:
/// `ValidateServiceClusterIPsRelatedFields`).
pub fn cluster_addresses(errors: &mut Errors, spec: &ServiceSpec) {
    let path = SPEC.child("clusterIPs");
    let all = spec.cluster_ips.as_deref().unwrap_or_default();
    let first = spec.cluster_ip.as_deref().unwrap_or_default();
    match (first, all.first().map(String::as_str)) {
        ("", None) => {}
        ("", Some(_)) => errors.invalid_object(&path, &all, "must be empty when `clusterIP` is not specified"),
        (_, None) => errors.required(&path, ""),
        (first, Some(listed)) if first != listed => {
            errors.invalid_object(&path, &all, "first value must match `clusterIP`");
        }
        _ => {}
    }
    let families = SPEC.child("ipFamilies");
    let given = spec.ip_families.as_deref().unwrap_or_default();
    for (i, family) in given.iter().enumerate() {
        errors.optional_one_of(&families.index(i), Some(family), &["IPv4", "IPv6"]);
        if given[..i].contains(family) {
            errors.duplicate(&families.index(i), family.as_str());
        }
    }
    let policies = ["PreferDualStack", "RequireDualStack", "SingleStack"];
    errors.optional_one_of(&SPEC.child("ipFamilyPolicy"), spec.ip_family_policy.as_deref(), &policies);
    if all.len() > 1 && first == "None" {
        errors.invalid_object(&path, &all, "'None' must be the first and only value");
    }
    let mut readable = all.len() < 2 || first != "None";
    for (i, address) in all.iter().enumerate().filter(|(i, address)| !(*i == 0 && *address == "None")) {
        let problems = names::ip_address(address);
        readable &= problems.is_empty();
        errors.each(&path.index(i), address, problems);
    }
    if all.len() > 2 {
        errors.invalid_object(&path, &all, "may only hold up to 2 values");
    }
    if !readable {
        return;
    }
    let is_v6 = |address: &String| address.contains(':');
    if let [one, other] = all
        && is_v6(one) == is_v6(other)
    {
        errors.invalid_object(&path, &all, "may specify no more than one IP for each IP family");
    }
    for (i, (address, family)) in all.iter().zip(given).enumerate().filter(|_| !is_headless(spec)) {
        if (family == "IPv6") != is_v6(address) {
            let detail = format!("expected an {family} value as indicated by `ipFamilies[{i}]`");
            errors.invalid(&path.index(i), address.as_str(), detail);
        }
    }
}

fn load_balancer(errors: &mut Errors, spec: &ServiceSpec, kind: &str) {
    let only = "may only be used when `type` is 'LoadBalancer'";
    if spec.load_balancer_source_ranges.as_ref().is_some_and(|ranges| !ranges.is_empty()) {
        let path = SPEC.child("LoadBalancerSourceRanges");
        if kind != "LoadBalancer" {
            errors.forbidden(&path, only);
        }
        for (i, range) in spec.load_balancer_source_ranges.iter().flatten().enumerate() {
            errors.each(&path.index(i), range.trim(), names::address_range(range.trim()));
        }
    }
    if spec.allocate_load_balancer_node_ports.is_some() && kind != "LoadBalancer" {
        errors.forbidden(&SPEC.child("allocateLoadBalancerNodePorts"), only);
    }
    if let Some(class) = spec.load_balancer_class.as_deref() {
        if kind != "LoadBalancer" {
            errors.forbidden(&SPEC.child("loadBalancerClass"), "may only be used when `type` is 'LoadBalancer'");
        }
        errors.each(&SPEC.child("loadBalancerClass"), class, names::qualified_name(class));
    }
}

fn traffic(errors: &mut Errors, spec: &ServiceSpec, kind: &str) {
    let external = spec.external_ips.as_ref().is_some_and(|ips| !ips.is_empty());
    let accessible = matches!(kind, "NodePort" | "LoadBalancer") || (kind == "ClusterIP" && external);
    let path = SPEC.child("externalTrafficPolicy");
    let policy = spec.external_traffic_policy.as_deref().filter(|policy| !policy.is_empty());
    match policy {
        Some(policy) if !accessible => {
            errors.invalid(&path, policy, "may only be set for externally-accessible services");
        }
        policy if accessible => errors.one_of(&path, policy, &["Cluster", "Local"]),
        _ => {}
    }
    let checked = needs_health_check(spec);
    let path = SPEC.child("healthCheckNodePort");
    match spec.health_check_node_port.unwrap_or(0) {
        0 if checked => errors.required(&path, ""),
        0 => {}
        port if checked => errors.each_number(&path, i64::from(port), names::port_number(port)),
        port => {
            let detail = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
            errors.invalid(&path, port, detail);
        }
    }
    let path = SPEC.child("internalTrafficPolicy");
    match spec.internal_traffic_policy.as_deref() {
        None if matches!(kind, "NodePort" | "LoadBalancer" | "ClusterIP") => errors.required(&path, ""),
        policy => errors.optional_one_of(&path, policy, &["Cluster", "Local"]),
    }
    let distributions = ["PreferClose", "PreferSameZone", "PreferSameNode"];
    errors.optional_one_of(&SPEC.child("trafficDistribution"), spec.traffic_distribution.as_deref(), &distributions);
}

/// An address that clients know may not change under them.
fn addresses_stay(errors: &mut Errors, new: &ServiceSpec, old: &ServiceSpec) {
    let external = |spec: &ServiceSpec| spec.type_.as_deref() == Some("ExternalName");
    if external(new) || external(old) || (is_headless(new) && is_headless(old)) {
        return;
    }
    let path = SPEC.child("clusterIPs");
    let (now, before) =
        (new.cluster_ips.as_deref().unwrap_or_default(), old.cluster_ips.as_deref().unwrap_or_default());
    for (i, address) in before.iter().enumerate() {
        match now.get(i) {
            None if i == 0 => errors.invalid_object(&path.index(0), &now, "primary clusterIP can not be unset"),
            None if new.ip_family_policy.as_deref() != Some("SingleStack") => {
                let detail = "must be set to 'SingleStack' when releasing the secondary clusterIP";
                errors.invalid_object(&SPEC.child("ipFamilyPolicy"), &new.ip_family_policy, detail);
            }
            Some(other) if other != address => {
                errors.invalid_object(&path.index(i), &now, "may not change once set");
            }
            _ => {}
        }
    }
    let (now, before) =
        (new.ip_families.as_deref().unwrap_or_default(), old.ip_families.as_deref().unwrap_or_default());
    let changed = now.first().zip(before.first()).is_some_and(|(now, before)| now != before);
    if changed && is_headless(new) == is_headless(old) {
        errors.invalid_object(&SPEC.child("ipFamilies[0]"), &now, "may not change once set");
    }
}
