//! Who answers for a Service: its EndpointSlices, which the proxies read, and the older Endpoints object.
//!
//! Mirrors upstream's `pkg/controller/endpointslice`, the staging module `k8s.io/endpointslice` and
//! `pkg/controller/endpoint`. A pod that is being deleted is never told as ready: that is what takes it out of the
//! proxies' rules before it is stopped. A Service without a selector is left to whoever writes its endpoints; where that
//! are Endpoints, slices repeat them.

mod legacy;
mod mirror;
mod slices;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use api::selector::Selector;
use api::snapshot::Member;
use api::{Key, Kind, Object, Plan, Pod, Snapshot, Write};
use k8s_openapi::api::core::v1::{Node, ObjectReference, Service, ServicePort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::pods;

/// Label that names the Service of a slice.
const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Label that marks what belongs to a Service without an address of its own.
const HEADLESS: &str = "service.kubernetes.io/headless";

/// Decides about the endpoints of one Service.
pub fn reconcile(key: &Key, world: &Snapshot) -> Plan {
    let writes = match world.get::<Service>(&key.namespace, &key.name) {
        // Slices that are owned by a Service that is gone are the garbage collector's.
        None => legacy::remove(key, world).into_iter().chain(mirror::remove(key, world)).collect(),
        Some(service) if service.metadata.deletion_timestamp.is_some() => Vec::new(),
        Some(service) if is_told(service) => bring_up_to_date(key, service, world),
        Some(service) => mirror::reconcile(key, service, world),
    };
    Plan { writes, ..Plan::nothing() }
}

fn bring_up_to_date(key: &Key, service: &Service, world: &Snapshot) -> Vec<Write> {
    let asked = service.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    let selector = asked.map_or_else(Selector::nothing, Selector::from_labels);
    let candidates: Vec<Member> =
        world.labelled(&key.namespace, &selector).filter(|pod| pod.has_address() && !pod.has_ended()).collect();
    let mut writes = slices::reconcile(key, service, &candidates, world);
    writes.extend(legacy::reconcile(key, service, &candidates, world));
    writes
}

/// True if this controller tells the endpoints of a Service.
fn is_told(service: &Service) -> bool {
    let external = service.spec.as_ref().and_then(|spec| spec.type_.as_deref()) == Some("ExternalName");
    !external && has_selector(service)
}

fn has_selector(service: &Service) -> bool {
    let selector = service.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    selector.is_some_and(|selector| !selector.is_empty())
}

/// True if the Service sends requests to this pod's labels.
pub fn selects(service: &Service, pod: &Object) -> bool {
    pod.get::<Pod>().is_some_and(|pod| is_told(service) && labels_fit(service, pods::labels(pod)))
}

fn labels_fit(service: &Service, labels: Option<&BTreeMap<String, String>>) -> bool {
    let selector = service.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    selector.is_some_and(|selector| {
        selector.iter().all(|(name, value)| labels.is_some_and(|labels| labels.get(name) == Some(value)))
    })
}

/// The Service whose endpoints an object tells, if it is such an object.
pub fn service_of(object: &Object) -> Option<Key> {
    let name = match object.kind() {
        Kind::Endpoints => object.name(),
        Kind::EndpointSlice => slices::service_name(object.meta())?,
        _ => return None,
    };
    Some(Key::new(Kind::Service, object.namespace(), name))
}

/// All that endpoints tell of a pod; `None` for a pod that cannot be an endpoint.
pub fn digest(object: Option<&Object>) -> Option<impl PartialEq + use<'_>> {
    let pod = object?.get::<Pod>()?;
    let status = pod.status.as_ref()?;
    if pods::address(pod).is_empty() || pods::has_ended(pod) {
        return None;
    }
    let spec = pod.spec.as_deref();
    Some((
        (&pod.metadata.uid, &pod.metadata.labels),
        (&status.pod_ip, &status.pod_ips, pods::node(pod)),
        (pods::is_ready(pod), pods::is_deleted(pod)),
        spec.map(|spec| (&spec.hostname, &spec.subdomain)),
    ))
}

/// True if a Service has no address of its own.
fn is_headless(service: &Service) -> bool {
    let address = service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref());
    matches!(address, None | Some("" | "None"))
}

/// True if also pods that are not ready are to get requests.
fn publishes_not_ready(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.publish_not_ready_addresses).unwrap_or(false)
}

fn service_ports(service: &Service) -> &[ServicePort] {
    service.spec.as_ref().and_then(|spec| spec.ports.as_deref()).unwrap_or_default()
}

fn protocol(port: &ServicePort) -> &str {
    port.protocol.as_deref().unwrap_or("TCP")
}

/// The port of this pod that a Service's port leads to (upstream: FindPort); `None` if the pod has no port of that name.
fn target_port(pod: &Pod, port: &ServicePort) -> Option<i32> {
    let name = match port.target_port.as_ref() {
        None | Some(IntOrString::Int(0)) => return Some(port.port),
        Some(IntOrString::Int(number)) => return Some(*number),
        Some(IntOrString::String(name)) => name,
    };
    let spec = pod.spec.as_deref()?;
    let sidecars = spec.init_containers.iter().flatten().filter(|it| it.restart_policy.as_deref() == Some("Always"));
    let ports = spec.containers.iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten());
    ports
        .filter(|it| it.name.as_ref() == Some(name))
        .find(|it| it.protocol.as_deref().unwrap_or("TCP") == protocol(port))
        .map(|it| it.container_port)
}

/// The pods by their ports, as `ports` tells them. Only ports that are found by name differ from pod to pod.
fn by_ports<'a, P: Ord>(
    service: &Service,
    pods: impl Iterator<Item = Member<'a>>,
    ports: impl Fn(&Pod) -> P,
) -> BTreeMap<P, Vec<Member<'a>>> {
    let mut groups: BTreeMap<P, Vec<Member>> = BTreeMap::new();
    let mut pods = pods.peekable();
    let named = |port: &ServicePort| matches!(port.target_port, Some(IntOrString::String(_)));
    if service_ports(service).iter().any(named) {
        pods.for_each(|pod| groups.entry(ports(pod.pod())).or_default().push(pod));
    } else if let Some(first) = pods.peek() {
        groups.insert(ports(first.pod()), pods.collect());
    }
    groups
}

/// The pod's host name, when the Service is the one that gives its pods names.
fn hostname<'a>(pod: &'a Pod, service: &Service) -> Option<&'a str> {
    let spec = pod.spec.as_deref()?;
    let named = spec.subdomain.is_some() && spec.subdomain == service.metadata.name;
    spec.hostname.as_deref().filter(|name| named && !name.is_empty())
}

fn pod_reference(pod: &Pod) -> ObjectReference {
    ObjectReference {
        kind: Some("Pod".into()),
        namespace: pod.metadata.namespace.clone(),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        ..Default::default()
    }
}

/// True if `reference` is what [`pod_reference`] makes of the pod.
fn refers_to(reference: &ObjectReference, pod: &Pod) -> bool {
    let meta = &pod.metadata;
    reference.kind.as_deref() == Some("Pod")
        && (&reference.namespace, &reference.name, &reference.uid) == (&meta.namespace, &meta.name, &meta.uid)
        && reference.api_version.is_none()
        && reference.field_path.is_none()
        && reference.resource_version.is_none()
}

fn zone<'a>(pod: &Pod, world: &'a Snapshot) -> Option<&'a str> {
    let node = world.get::<Node>("", pods::node(pod))?;
    node.metadata.labels.as_ref()?.get("topology.kubernetes.io/zone").map(String::as_str)
}
