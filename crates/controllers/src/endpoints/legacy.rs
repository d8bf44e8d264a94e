//! The Endpoints object of a Service: the older form, which clients still read.
//!
//! Mirrors upstream's `pkg/controller/endpoint/endpoints_controller.go` and RepackSubsets (`pkg/api/v1/endpoints`).
//! Never removes Endpoints that somebody else wrote.

use std::collections::BTreeMap;

use api::snapshot::Member;
use api::{Key, Kind, Pod, Propagation, Snapshot, Typed, Write};
use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{
    HEADLESS, by_ports, hostname, is_headless, pod_reference, protocol, publishes_not_ready, refers_to, service_ports,
    target_port,
};
use crate::pods;

const MANAGED_BY: (&str, &str) = ("endpoints.kubernetes.io/managed-by", "endpoint-controller");
/// Tells that not all addresses are listed.
const OVER_CAPACITY: (&str, &str) = ("endpoints.kubernetes.io/over-capacity", "truncated");
/// Addresses in one object (upstream: maxCapacity).
const ADDRESSES: usize = 1000;

/// The write that brings the Endpoints up to date, if they are not.
pub fn reconcile(key: &Key, service: &Service, candidates: &[Member], world: &Snapshot) -> Option<Write> {
    let mut subsets = subsets(service, candidates);
    let truncated = truncate(&mut subsets);
    let current = world.get::<Endpoints>(&key.namespace, &key.name);
    let labels = labels(service);
    if current.is_some_and(|current| is_told(current, &subsets, service, &labels, truncated)) {
        return None;
    }
    let new =
        || ObjectMeta { name: Some(key.name.clone()), namespace: Some(key.namespace.clone()), ..Default::default() };
    let metadata = current.map_or_else(new, |current| current.metadata.clone());
    let mut wanted = Endpoints { metadata, subsets: None };
    let told = subsets.iter().map(|subset| subset.told(service)).collect();
    wanted.subsets = Some(told).filter(|subsets: &Vec<_>| !subsets.is_empty());
    wanted.metadata.labels = Some(labels);
    let mut annotations = wanted.metadata.annotations.take().unwrap_or_default();
    annotations.remove(OVER_CAPACITY.0);
    if truncated {
        annotations.insert(OVER_CAPACITY.0.into(), OVER_CAPACITY.1.into());
    }
    wanted.metadata.annotations = Some(annotations).filter(|annotations| !annotations.is_empty());
    Some(if current.is_some() { Write::Update(wanted.into_body()) } else { Write::Create(wanted.into_body()) })
}

/// True if nothing has to be written. Most often nothing has, so nothing is made to find out.
fn is_told(
    current: &Endpoints,
    subsets: &[Subset],
    service: &Service,
    labels: &BTreeMap<String, String>,
    truncated: bool,
) -> bool {
    let told = current.subsets.as_deref().unwrap_or_default();
    let over = current.metadata.annotations.as_ref().and_then(|all| all.get(OVER_CAPACITY.0)).map(String::as_str);
    current.metadata.labels.as_ref() == Some(labels)
        && over == truncated.then_some(OVER_CAPACITY.1)
        && told.len() == subsets.len()
        && told.iter().zip(subsets).all(|(told, subset)| subset.is_told_by(told, service))
}

/// Takes out the Endpoints of a Service that is gone.
pub fn remove(key: &Key, world: &Snapshot) -> Option<Write> {
    let endpoints = world.get::<Endpoints>(&key.namespace, &key.name)?;
    let meta = &endpoints.metadata;
    (is_own(meta) && meta.deletion_timestamp.is_none()).then(|| Write::Delete {
        key: Key::new(Kind::Endpoints, key.namespace.clone(), key.name.clone()),
        uid: meta.uid.clone().unwrap_or_default(),
        propagation: Propagation::Background,
    })
}

/// True for Endpoints that this controller wrote.
pub fn is_own(meta: &ObjectMeta) -> bool {
    meta.labels.as_ref().and_then(|labels| labels.get(MANAGED_BY.0)).is_some_and(|by| by == MANAGED_BY.1)
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

/// Pods that have the same ports.
struct Subset<'a> {
    ports: Vec<Port<'a>>,
    ready: Vec<Member<'a>>,
    not_ready: Vec<Member<'a>>,
}

impl Subset<'_> {
    fn told(&self, service: &Service) -> EndpointSubset {
        let addresses = |pods: &[Member]| {
            let list = pods.iter().map(|pod| address(pod.pod(), service)).collect();
            Some(list).filter(|list: &Vec<_>| !list.is_empty())
        };
        EndpointSubset {
            addresses: addresses(&self.ready),
            not_ready_addresses: addresses(&self.not_ready),
            ports: self.told_ports(),
        }
    }

    fn told_ports(&self) -> Option<Vec<EndpointPort>> {
        let port = |(name, port, protocol, application): &Port| EndpointPort {
            name: name.map(str::to_owned),
            port: *port,
            protocol: Some((*protocol).to_owned()),
            app_protocol: application.map(str::to_owned),
        };
        Some(self.ports.iter().map(port).collect()).filter(|ports: &Vec<_>| !ports.is_empty())
    }

    /// True if `told` is what [`Subset::told`] would make.
    fn is_told_by(&self, told: &EndpointSubset, service: &Service) -> bool {
        let same = |list: &Option<Vec<EndpointAddress>>, pods: &[Member]| {
            let list = list.as_deref().unwrap_or_default();
            list.len() == pods.len()
                && list.iter().zip(pods).all(|(address, pod)| is_address(address, pod.pod(), service))
        };
        same(&told.addresses, &self.ready)
            && same(&told.not_ready_addresses, &self.not_ready)
            && told.ports == self.told_ports()
    }
}

fn subsets<'a>(service: &'a Service, candidates: &[Member<'a>]) -> Vec<Subset<'a>> {
    let not_ready_too = publishes_not_ready(service);
    let there = candidates.iter().filter(|pod| not_ready_too || !pod.is_deleted());
    let without_ports = service_ports(service).is_empty() && is_headless(service);
    let subset = |(ports, pods): (Vec<Port<'a>>, Vec<Member<'a>>)| {
        let (ready, not_ready) = pods.into_iter().partition(|pod| not_ready_too || pod.is_ready());
        Subset { ports, ready, not_ready }
    };
    by_ports(service, there.copied(), |pod| ports(service, pod))
        .into_iter()
        .filter(|(ports, _)| without_ports || !ports.is_empty())
        .map(subset)
        .collect()
}

fn ports<'a>(service: &'a Service, pod: &Pod) -> Vec<Port<'a>> {
    let found = service_ports(service).iter().filter_map(|port| {
        let number = target_port(pod, port)?;
        Some((port.name.as_deref(), number, protocol(port), port.app_protocol.as_deref()))
    });
    let mut ports: Vec<Port> = found.collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}

fn address(pod: &Pod, service: &Service) -> EndpointAddress {
    EndpointAddress {
        ip: pods::address(pod).to_owned(),
        hostname: hostname(pod, service).map(str::to_owned),
        node_name: Some(pods::node(pod).to_owned()).filter(|node| !node.is_empty()),
        target_ref: Some(pod_reference(pod)),
    }
}

/// True if `address` is what [`address`] makes of the pod.
fn is_address(address: &EndpointAddress, pod: &Pod, service: &Service) -> bool {
    address.ip == pods::address(pod)
        && address.hostname.as_deref() == hostname(pod, service)
        && address.node_name.as_deref().unwrap_or("") == pods::node(pod)
        && address.target_ref.as_ref().is_some_and(|target| refers_to(target, pod))
}

/// Cuts the pods to what one object may list, those that are not ready first, and sorts them by address; true if some
/// were cut.
fn truncate(subsets: &mut [Subset]) -> bool {
    let mut room = ADDRESSES;
    let mut cut = false;
    let mut keep = |pods: &mut Vec<Member>| {
        cut |= room < pods.len();
        pods.truncate(room);
        // Pods in the node's network share its address.
        pods.sort_by_cached_key(|pod| {
            let address = pods::address(pod.pod());
            (start(address), address, pods::name(pod.pod()))
        });
        room -= pods.len();
    };
    subsets.iter_mut().for_each(|subset| keep(&mut subset.ready));
    subsets.iter_mut().for_each(|subset| keep(&mut subset.not_ready));
    cut
}

/// The first letters of a text as a number, which orders most texts without a look at them.
fn start(text: &str) -> u128 {
    let mut letters = [0; 16];
    letters.iter_mut().zip(text.bytes()).for_each(|(letter, byte)| *letter = byte);
    u128::from_be_bytes(letters)
}
