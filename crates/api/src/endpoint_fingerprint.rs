//! One number for all that an endpoint tells of its pod: equal numbers, and the endpoint need not be compared with the pod.
//!
//! A Service of thousands of pods is decided about whenever one of them changes, and all other endpoints are as they were.
//! To find that out by their names and addresses waits for memory a dozen times a pod; the numbers are kept beside the
//! objects and are compared in the order in which they lie there.

use std::net::IpAddr;

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointHints, EndpointSlice, ForNode, ForZone};

use crate::kinds::{Body, Typed};
use crate::pod::Pod;
use crate::pod_facts::number;

/// Stands for what no number tells: it has to be looked at itself.
const NONE: u64 = 0;

/// Who is to prefer an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Near {
    /// Nobody.
    Nowhere,
    /// Who is in its zone.
    Zone,
    /// Who is on its node, then who is in its zone.
    Node,
}

/// The hints by which an endpoint says who is to prefer it; `None` if there is nothing to say.
pub fn hints(near: Near, zone: Option<&str>, node: Option<&str>) -> Option<EndpointHints> {
    let zone = zone.filter(|_| near != Near::Nowhere).map(|name| vec![ForZone { name: name.to_owned() }]);
    let node = node.filter(|_| near == Near::Node).map(|name| vec![ForNode { name: name.to_owned() }]);
    (zone.is_some() || node.is_some()).then_some(EndpointHints { for_nodes: node, for_zones: zone })
}

/// What an endpoint tells of a pod beside conditions, zone and hints; `None` for a pod that has no address, several, or names of its own.
pub(crate) fn identity(pod: &Pod) -> Option<u64> {
    let meta = &pod.metadata;
    let spec = pod.spec.as_deref();
    let named = spec.is_some_and(|spec| spec.subdomain.is_some());
    let node = spec.and_then(|spec| spec.node_name.as_deref()).unwrap_or("");
    let address = address(pod).filter(|_| !named)?;
    let parts = (meta.namespace.as_deref(), meta.name.as_deref(), meta.uid.as_deref(), address, node);
    Some(number(&parts)).filter(|number| *number != NONE)
}

/// The only address of a pod.
fn address(pod: &Pod) -> Option<&str> {
    let status = pod.status.as_ref()?;
    let all = status.pod_ips.as_deref().unwrap_or_default();
    let first = status.pod_ip.as_deref().filter(|address| !address.is_empty())?;
    let only = all.is_empty() || all.len() == 1 && all[0].ip == first;
    Some(first).filter(|address| only && address.parse::<IpAddr>().is_ok())
}

/// The number of an endpoint that tells of a pod of this identity. `near` is what its [`hints`] say, [`Near::Nowhere`] if it
/// has none.
pub fn told(identity: u64, conditions: &EndpointConditions, zone: u64, near: Near) -> u64 {
    number(&(identity, conditions.ready, conditions.serving, conditions.terminating, zone, near))
}

/// The number of a zone, or of none.
pub fn zone(zone: Option<&str>) -> u64 {
    number(&zone)
}

/// The numbers of the endpoints of an EndpointSlice, in their order; none for what is no slice.
pub(crate) fn of_body(body: &Body) -> Box<[u64]> {
    let slice = EndpointSlice::of(body);
    slice.and_then(|slice| slice.endpoints.as_ref()).into_iter().flatten().map(|it| of(it).unwrap_or(NONE)).collect()
}

/// `None` where an endpoint tells more than of a pod with one address.
fn of(endpoint: &Endpoint) -> Option<u64> {
    let Endpoint { addresses, conditions, deprecated_topology, hints, hostname, node_name, target_ref, zone: place } =
        endpoint;
    let target = target_ref.as_ref()?;
    let [address] = addresses.as_slice() else { return None };
    let plain = deprecated_topology.is_none() && hostname.is_none() && node_name.as_deref() != Some("");
    let says = |near: &Near| *hints == self::hints(*near, place.as_deref(), node_name.as_deref());
    let near = [Near::Nowhere, Near::Zone, Near::Node].into_iter().find(says)?;
    let a_pod = target.kind.as_deref() == Some("Pod")
        && target.api_version.is_none()
        && target.field_path.is_none()
        && target.resource_version.is_none();
    let node = node_name.as_deref().unwrap_or("");
    let parts = (target.namespace.as_deref(), target.name.as_deref(), target.uid.as_deref(), address.as_str(), node);
    let conditions = conditions.as_ref().filter(|_| plain && a_pod)?;
    Some(told(number(&parts), conditions, zone(place.as_deref()), near))
}
