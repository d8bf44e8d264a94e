//! EndpointSlices that repeat the Endpoints which somebody wrote by hand for a Service without a selector: proxies read
//! slices alone.
//!
//! Mirrors upstream's `pkg/controller/endpointslicemirroring` (endpointslicemirroring_controller.go, reconciler.go): the slices
//! belong to the Endpoints, and go with them. Unlike there, slices are compared by their places and not by their contents:
//! Endpoints of this size are written seldom.

use std::collections::BTreeMap;
use std::net::IpAddr;

use api::{Body, Key, Kind, Snapshot, Typed, Write};
use k8s_openapi::api::core::v1::{EndpointAddress, EndpointSubset, Endpoints, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{SERVICE_NAME, has_selector, legacy, slices};
use crate::claim;

/// As the slices name this controller.
pub const MANAGED_BY: &str = "endpointslicemirroring-controller.k8s.io";
/// Whoever has this label writes slices as well.
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
/// Endpoints with this annotation are a lock, as leaders were elected once.
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Addresses of one subset that are repeated (upstream: `--mirroring-max-endpoints-per-subset`).
const ENDPOINTS: usize = 1000;

/// The writes that bring the slices up to date.
pub fn reconcile(key: &Key, service: &Service, world: &Snapshot) -> Vec<Write> {
    let endpoints = world.get::<Endpoints>(&key.namespace, &key.name).filter(|it| is_repeated(it, service));
    let mut there = existing(key, world);
    let mut writes = Vec::new();
    for wanted in endpoints.map(wanted).unwrap_or_default() {
        let alike =
            |slice: &&EndpointSlice| (&slice.address_type, &slice.ports) == (&wanted.address_type, &wanted.ports);
        match there.iter().position(alike) {
            None => writes.push(Write::Create(wanted.into_body())),
            Some(place) => writes.extend(changed(there.remove(place), wanted).map(Write::Update)),
        }
    }
    writes.extend(there.into_iter().map(slices::delete));
    writes
}

/// Takes out the slices of a Service that is gone.
pub fn remove(key: &Key, world: &Snapshot) -> impl Iterator<Item = Write> {
    existing(key, world).into_iter().map(slices::delete)
}

fn existing<'a>(key: &Key, world: &'a Snapshot) -> Vec<&'a EndpointSlice> {
    let all = world.list::<EndpointSlice>(Some(&key.namespace));
    let named = |slice: &&EndpointSlice| slices::service_name(&slice.metadata) == Some(&key.name);
    let ours = |slice: &&EndpointSlice| slices::manager(&slice.metadata) == Some(MANAGED_BY);
    all.filter(named).filter(ours).filter(|slice| slice.metadata.deletion_timestamp.is_none()).collect()
}

fn is_repeated(endpoints: &Endpoints, service: &Service) -> bool {
    let meta = &endpoints.metadata;
    let label = |name: &str| meta.labels.as_ref().and_then(|labels| labels.get(name)).map(String::as_str);
    let is_lock = meta.annotations.as_ref().is_some_and(|annotations| annotations.contains_key(LEADER));
    let leaves = meta.deletion_timestamp.is_some();
    !leaves && !has_selector(service) && !is_lock && label(SKIP) != Some("true") && !legacy::is_own(meta)
}

/// The slices that tell what the Endpoints do: for each subset one of each family.
fn wanted(endpoints: &Endpoints) -> Vec<EndpointSlice> {
    let mut slices = Vec::new();
    for subset in endpoints.subsets.iter().flatten() {
        slices.extend(by_family(subset).into_iter().map(|(family, told)| EndpointSlice {
            address_type: family.to_owned(),
            endpoints: Some(told),
            metadata: metadata(&endpoints.metadata),
            ports: ports(subset),
        }));
    }
    slices
}

fn by_family(subset: &EndpointSubset) -> BTreeMap<&'static str, Vec<Endpoint>> {
    let addresses = |list: &Option<Vec<EndpointAddress>>, ready: bool| {
        list.iter().flatten().map(|address| (address.clone(), ready)).collect::<Vec<_>>()
    };
    let all = [addresses(&subset.addresses, true), addresses(&subset.not_ready_addresses, false)].concat();
    let mut families: BTreeMap<&str, Vec<Endpoint>> = BTreeMap::new();
    for (address, ready) in all.into_iter().take(ENDPOINTS) {
        let Ok(ip) = address.ip.parse::<IpAddr>() else { continue };
        families.entry(if ip.is_ipv6() { "IPv6" } else { "IPv4" }).or_default().push(Endpoint {
            addresses: vec![address.ip],
            conditions: Some(EndpointConditions { ready: Some(ready), ..Default::default() }),
            hostname: address.hostname.filter(|name| !name.is_empty()),
            node_name: address.node_name,
            target_ref: address.target_ref,
            ..Default::default()
        });
    }
    families
}

fn ports(subset: &EndpointSubset) -> Option<Vec<EndpointPort>> {
    let port = |port: &k8s_openapi::api::core::v1::EndpointPort| EndpointPort {
        // A port without a name has an empty one in a slice.
        name: Some(port.name.clone().unwrap_or_default()),
        port: Some(port.port),
        protocol: Some(port.protocol.clone().unwrap_or_else(|| "TCP".into())),
        app_protocol: port.app_protocol.clone(),
    };
    subset.ports.as_ref().map(|ports| ports.iter().map(port).collect())
}

fn metadata(of: &ObjectMeta) -> ObjectMeta {
    let mut labels = of.labels.clone().unwrap_or_default();
    labels.remove(SKIP);
    labels.insert(SERVICE_NAME.into(), of.name.clone().unwrap_or_default());
    labels.insert(slices::MANAGER.into(), MANAGED_BY.into());
    let mut annotations = of.annotations.clone().unwrap_or_default();
    annotations.remove(LAST_APPLIED);
    ObjectMeta {
        generate_name: of.name.as_ref().map(|name| format!("{name}-")),
        namespace: of.namespace.clone(),
        labels: Some(labels),
        annotations: Some(annotations).filter(|annotations| !annotations.is_empty()),
        owner_references: Some(vec![claim::controller_reference(Kind::Endpoints, of)]),
        ..Default::default()
    }
}

/// The slice as it is wanted, if it is not so.
fn changed(slice: &EndpointSlice, wanted: EndpointSlice) -> Option<Body> {
    let (before, meta) = (&slice.metadata, &wanted.metadata);
    let same = slice.endpoints == wanted.endpoints
        && (&before.labels, &before.annotations, &before.owner_references)
            == (&meta.labels, &meta.annotations, &meta.owner_references);
    let ObjectMeta { labels, annotations, owner_references, .. } = wanted.metadata;
    let metadata = ObjectMeta { labels, annotations, owner_references, ..slice.metadata.clone() };
    (!same).then(|| EndpointSlice { metadata, endpoints: wanted.endpoints, ..slice.clone() }.into_body())
}
