//! The Endpoints object of a Service: the older form, which clients still read.
//!
//! Mirrors upstream's `pkg/controller/endpoint/endpoints_controller.go` and RepackSubsets (`pkg/api/v1/endpoints`).
//! Never removes Endpoints that somebody else wrote.

use std::collections::BTreeMap;

use api::{Key, Kind, Pod, Propagation, Snapshot, Typed, Write};
use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{
    HEADLESS, hostname, is_headless, pod_reference, protocol, publishes_not_ready, service_ports, target_port,
};
use crate::pods;

const MANAGED_BY: (&str, &str) = ("endpoints.kubernetes.io/managed-by", "endpoint-controller");
/// Tells that not all addresses are listed.
const OVER_CAPACITY: (&str, &str) = ("endpoints.kubernetes.io/over-capacity", "truncated");
/// Addresses in one object (upstream: maxCapacity).
const ADDRESSES: usize = 1000;

/// The write that brings the Endpoints up to date, if they are not.
pub fn reconcile(key: &Key, service: &Service, candidates: &[&Pod], world: &Snapshot) -> Option<Write> {
    let mut subsets = subsets(service, candidates);
    let truncated = truncate(&mut subsets);
    let current = world.get::<Endpoints>(&key.namespace, &key.name);
    let mut wanted = current.cloned().unwrap_or_else(|| Endpoints {
        metadata: ObjectMeta {
            name: Some(key.name.clone()),
            namespace: Some(key.namespace.clone()),
            ..Default::default()
        },
        subsets: None,
    });
    wanted.subsets = Some(subsets).filter(|subsets| !subsets.is_empty());
    wanted.metadata.labels = Some(labels(service));
    let mut annotations = wanted.metadata.annotations.take().unwrap_or_default();
    annotations.remove(OVER_CAPACITY.0);
    if truncated {
        annotations.insert(OVER_CAPACITY.0.into(), OVER_CAPACITY.1.into());
    }
    wanted.metadata.annotations = Some(annotations).filter(|annotations| !annotations.is_empty());
    match current {
        None => Some(Write::Create(wanted.into_body())),
        Some(current) if *current == wanted => None,
        Some(_) => Some(Write::Update(wanted.into_body())),
    }
}

/// Takes out the Endpoints of a Service that is gone.
pub fn remove(key: &Key, world: &Snapshot) -> Option<Write> {
    let endpoints = world.get::<Endpoints>(&key.namespace, &key.name)?;
    let meta = &endpoints.metadata;
    let ours = meta.labels.as_ref().and_then(|labels| labels.get(MANAGED_BY.0)).is_some_and(|by| by == MANAGED_BY.1);
    (ours && meta.deletion_timestamp.is_none()).then(|| Write::Delete {
        key: Key::new(Kind::Endpoints, key.namespace.clone(), key.name.clone()),
        uid: meta.uid.clone().unwrap_or_default(),
        propagation: Propagation::Background,
    })
}

fn labels(service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.remove(HEADLESS);
    if is_headless(service) {
        labels.insert(HEADLESS.into(), String::new());
    }
    labels.insert(MANAGED_BY.0.into(), MANAGED_BY.1.into());
    labels
}

/// Name, number, protocol and application protocol of a port.
type Port<'a> = (Option<&'a str>, i32, &'a str, Option<&'a str>);

/// Addresses that have the same ports share a subset.
fn subsets(service: &Service, candidates: &[&Pod]) -> Vec<EndpointSubset> {
    let not_ready_too = publishes_not_ready(service);
    let ports = service_ports(service);
    let mut by_ports: BTreeMap<Vec<Port>, (Vec<EndpointAddress>, Vec<EndpointAddress>)> = BTreeMap::new();
    for pod in candidates.iter().filter(|pod| not_ready_too || !pods::is_deleted(pod)) {
        let mut found: Vec<Port> = ports
            .iter()
            .filter_map(|port| {
                let number = target_port(pod, port)?;
                Some((port.name.as_deref(), number, protocol(port), port.app_protocol.as_deref()))
            })
            .collect();
        if found.is_empty() && !(ports.is_empty() && is_headless(service)) {
            continue;
        }
        found.sort_unstable();
        found.dedup();
        let (ready, not_ready) = by_ports.entry(found).or_default();
        let list = if not_ready_too || pods::is_ready(pod) { ready } else { not_ready };
        list.push(address(pod, service));
    }
    by_ports.into_iter().map(|(ports, (ready, not_ready))| subset(&ports, ready, not_ready)).collect()
}

fn subset(ports: &[Port], ready: Vec<EndpointAddress>, not_ready: Vec<EndpointAddress>) -> EndpointSubset {
    let sorted = |mut list: Vec<EndpointAddress>| {
        list.sort_by(|one, other| one.ip.cmp(&other.ip));
        Some(list).filter(|list| !list.is_empty())
    };
    let ports: Vec<EndpointPort> = ports
        .iter()
        .map(|(name, port, protocol, application)| EndpointPort {
            name: name.map(str::to_owned),
            port: *port,
            protocol: Some((*protocol).to_owned()),
            app_protocol: application.map(str::to_owned),
        })
        .collect();
    EndpointSubset {
        addresses: sorted(ready),
        not_ready_addresses: sorted(not_ready),
        ports: Some(ports).filter(|ports| !ports.is_empty()),
    }
}

fn address(pod: &Pod, service: &Service) -> EndpointAddress {
    EndpointAddress {
        ip: pods::address(pod).to_owned(),
        hostname: hostname(pod, service),
        node_name: Some(pods::node(pod).to_owned()).filter(|node| !node.is_empty()),
        target_ref: Some(pod_reference(pod)),
    }
}

/// Cuts the addresses to what one object may list, those of pods that are not ready first; true if some were cut.
fn truncate(subsets: &mut [EndpointSubset]) -> bool {
    let mut room = ADDRESSES;
    let mut cut = false;
    let mut keep = |list: &mut Option<Vec<EndpointAddress>>| {
        let Some(addresses) = list else { return };
        cut |= addresses.len() > room;
        addresses.truncate(room);
        room -= addresses.len();
        *list = list.take().filter(|list| !list.is_empty());
    };
    subsets.iter_mut().for_each(|subset| keep(&mut subset.addresses));
    subsets.iter_mut().for_each(|subset| keep(&mut subset.not_ready_addresses));
    cut
}
