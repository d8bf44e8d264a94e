//! EndpointSlices.
//!
//! Mirrors `pkg/apis/discovery/validation/validation.go`.

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

use super::field::{Errors, Path};
use super::meta;
use crate::names;

const ENDPOINTS: usize = 1000;
const ADDRESSES: usize = 100;
const PORTS: usize = 20_000;
/// Zones, and nodes, that one endpoint may be meant for.
const HINTS: usize = 8;

/// A new or changed EndpointSlice; `old` is none for a new one.
pub fn endpoint_slice(slice: &EndpointSlice, old: Option<&EndpointSlice>) -> Errors {
    let mut errors = Errors::default();
    match old {
        None => meta::create(&mut errors, &slice.metadata, true, names::dns_subdomain),
        Some(old) => {
            meta::update(&mut errors, &slice.metadata, &old.metadata);
            errors.immutable(&Path::root("addressType"), &slice.address_type, &old.address_type);
        }
    }
    let types = ["FQDN", "IPv4", "IPv6"];
    errors.one_of(&Path::root("addressType"), Some(slice.address_type.as_str()), &types);
    ports(&mut errors, slice);
    let path = Path::root("endpoints");
    let endpoints = slice.endpoints.as_deref().unwrap_or_default();
    if endpoints.len() > ENDPOINTS {
        errors.too_many(&path, endpoints.len(), ENDPOINTS);
        return errors;
    }
    if old.is_some_and(|old| old.endpoints == slice.endpoints) {
        return errors;
    }
    for (i, given) in endpoints.iter().enumerate() {
        endpoint(&mut errors, &path.index(i), given, &slice.address_type);
    }
    errors
}

fn ports(errors: &mut Errors, slice: &EndpointSlice) {
    let path = Path::root("ports");
    let ports = slice.ports.as_deref().unwrap_or_default();
    if ports.len() > PORTS {
        return errors.too_many(&path, ports.len(), PORTS);
    }
    for (i, port) in ports.iter().enumerate() {
        let at = path.index(i);
        let name = port.name.as_deref().unwrap_or_default();
        if !name.is_empty() {
            errors.each(&at.child("name"), name, names::dns_label(name));
        }
        if ports[..i].iter().any(|other| other.name.as_deref().unwrap_or_default() == name) {
            errors.duplicate(&at.child("name"), name);
        }
        errors.one_of(&at.child("protocol"), port.protocol.as_deref(), &["SCTP", "TCP", "UDP"]);
        if let Some(protocol) = port.app_protocol.as_deref() {
            errors.each(&at.child("appProtocol"), protocol, names::qualified_name(protocol));
        }
    }
}

fn endpoint(errors: &mut Errors, path: &Path<'_>, endpoint: &Endpoint, address_type: &str) {
    let addresses = path.child("addresses");
    match endpoint.addresses.len() {
        0 => errors.required(&addresses, "must contain at least 1 address"),
        count if count > ADDRESSES => errors.too_many(&addresses, count, ADDRESSES),
        _ => {}
    }
    for (i, address) in endpoint.addresses.iter().enumerate() {
        let at = addresses.index(i);
        match address_type {
            "IPv4" | "IPv6" => {
                let problems = names::ip_address(address);
                if !problems.is_empty() {
                    errors.each(&at, address, problems);
                    continue;
                }
                if address.contains(':') != (address_type == "IPv6") {
                    errors.invalid(&addresses, address.as_str(), format!("must be an {address_type} address"));
                }
                errors.each(&at, address, names::endpoint_address(address));
            }
            "FQDN" => errors.each(&at, address, names::fully_qualified(address)),
            _ => {}
        }
    }
    if let Some(name) = endpoint.node_name.as_deref() {
        errors.each(&path.child("nodeName"), name, names::dns_subdomain(name));
    }
    if let Some(name) = endpoint.hostname.as_deref() {
        errors.each(&path.child("hostname"), name, names::dns_label(name));
    }
    let hints = endpoint.hints.clone().unwrap_or_default();
    let zones = hints.for_zones.into_iter().flatten().map(|zone| zone.name).collect();
    if !hint(errors, &path.child("hints.forZones"), zones, names::label_value) {
        return;
    }
    let nodes = hints.for_nodes.into_iter().flatten().map(|node| node.name).collect();
    hint(errors, &path.child("hints.forNodes"), nodes, names::dns_subdomain);
}

/// Judges the names that a hint gives; false if they are too many to look at.
fn hint(errors: &mut Errors, path: &Path<'_>, given: Vec<String>, problems: fn(&str) -> Vec<String>) -> bool {
    if given.len() > HINTS {
        errors.too_many(path, given.len(), HINTS);
        return false;
    }
    for (i, name) in given.iter().enumerate() {
        let at = path.index(i);
        if given[..i].contains(name) {
            errors.duplicate(&at.child("name"), name.as_str());
        }
        errors.each(&at.child("name"), name, problems(name));
    }
    true
}
