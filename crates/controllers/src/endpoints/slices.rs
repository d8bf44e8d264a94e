//! The EndpointSlices of a Service, changed with as few writes as possible.
//!
//! Mirrors upstream's staging module `k8s.io/endpointslice` (reconciler.go, utils.go): a slice holds endpoints of one
//! address family that have the same ports. An endpoint stays in the slice it is in; new ones fill slices that are
//! written anyhow, then the fullest slice that has room for all of them, then new slices.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasherDefault, Hasher};
use std::net::IpAddr;

use api::object::controller_of;
use api::{Body, Key, Kind, Pod, Propagation, Snapshot, Typed, Write};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{
    Candidate, HEADLESS, SERVICE_NAME, by_ports, hostname, is_headless, pod_reference, protocol, publishes_not_ready,
    refers_to, service_ports, target_port, zone,
};
use crate::{claim, pods};

const MANAGED_BY: (&str, &str) = ("endpointslice.kubernetes.io/managed-by", "endpointslice-controller.k8s.io");
/// Endpoints in one slice (upstream: `--max-endpoints-per-slice`).
const ENDPOINTS: usize = 100;

/// The Service of a slice that this controller keeps.
pub fn service_name(meta: &ObjectMeta) -> Option<&str> {
    let labels = meta.labels.as_ref()?;
    labels.get(MANAGED_BY.0).filter(|by| *by == MANAGED_BY.1)?;
    labels.get(SERVICE_NAME).map(String::as_str)
}

/// The writes that bring the slices up to date.
pub fn reconcile(key: &Key, service: &Service, candidates: &[Candidate], world: &Snapshot) -> Vec<Write> {
    let labels = labels(key, service);
    let existing: Vec<&EndpointSlice> = world
        .list::<EndpointSlice>(Some(&key.namespace))
        .filter(|slice| service_name(&slice.metadata) == Some(&key.name))
        .filter(|slice| slice.metadata.deletion_timestamp.is_none())
        .collect();
    let mut groups = wanted(service, candidates);
    let mut writes = Vec::new();
    let families = families(service);
    // Slices of another owner or of a group that is no longer wanted cannot be changed into what is wanted.
    let mut by_group: BTreeMap<Group, Vec<&EndpointSlice>> = BTreeMap::new();
    for slice in existing {
        let group = Group::of(slice);
        let ours =
            controller_of(&slice.metadata).is_some_and(|owner| Some(&owner.uid) == service.metadata.uid.as_ref());
        if ours && families.contains(&group.family) {
            by_group.entry(group).or_default().push(slice);
        } else {
            writes.push(delete(slice));
        }
    }
    for family in families {
        if !groups.keys().any(|group| group.family == family) {
            // Without endpoints one empty slice remains, so that clients see that the Service was looked at.
            groups.insert(Group { family, ports: Vec::new() }, Vec::new());
        }
    }
    for (group, slices) in &by_group {
        if !groups.contains_key(group) {
            writes.extend(slices.iter().map(|slice| delete(slice)));
        }
    }
    for (group, pods) in groups {
        let slices = by_group.remove(&group).unwrap_or_default();
        writes.extend(fill(&group, &pods, &slices, service, &labels, world));
    }
    writes
}

/// What all endpoints of a slice have in common.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Group {
    family: &'static str,
    ports: Vec<(String, i32, String, Option<String>)>,
}

impl Group {
    fn of(slice: &EndpointSlice) -> Group {
        let mut ports: Vec<_> = slice
            .ports
            .iter()
            .flatten()
            .map(|port| {
                let name = port.name.clone().unwrap_or_default();
                let protocol = port.protocol.clone().unwrap_or_default();
                (name, port.port.unwrap_or(0), protocol, port.app_protocol.clone())
            })
            .collect();
        ports.sort_unstable();
        let family = if slice.address_type == "IPv6" { "IPv6" } else { "IPv4" };
        Group { family, ports }
    }

    fn ports(&self) -> Option<Vec<EndpointPort>> {
        let port = |(name, number, protocol, application): &(String, i32, String, Option<String>)| EndpointPort {
            name: Some(name.clone()),
            port: Some(*number),
            protocol: Some(protocol.clone()),
            app_protocol: application.clone(),
        };
        Some(self.ports.iter().map(port).collect()).filter(|ports: &Vec<_>| !ports.is_empty())
    }
}

fn families(service: &Service) -> Vec<&'static str> {
    let families = service.spec.as_ref().and_then(|spec| spec.ip_families.as_deref()).unwrap_or_default();
    let mut known: Vec<&'static str> =
        ["IPv4", "IPv6"].into_iter().filter(|it| families.iter().any(|f| f == it)).collect();
    if known.is_empty() {
        known.push("IPv4");
    }
    known
}

/// The pods that are endpoints, by what their endpoints have in common.
fn wanted<'a>(service: &Service, candidates: &[Candidate<'a>]) -> BTreeMap<Group, Vec<Candidate<'a>>> {
    let mut groups = BTreeMap::new();
    for family in families(service) {
        let there = candidates.iter().filter(|candidate| addresses(candidate, family).next().is_some());
        groups.extend(by_ports(service, there.copied(), |pod| Group { family, ports: ports(service, pod) }));
    }
    groups
}

fn ports(service: &Service, pod: &Pod) -> Vec<(String, i32, String, Option<String>)> {
    let mut ports: Vec<_> = service_ports(service)
        .iter()
        .filter_map(|port| {
            let number = target_port(pod, port)?;
            let name = port.name.clone().unwrap_or_default();
            Some((name, number, protocol(port).to_owned(), port.app_protocol.clone()))
        })
        .collect();
    ports.sort_unstable();
    ports
}

/// The pod's addresses of one family.
fn addresses<'a>(candidate: &Candidate<'a>, family: &str) -> impl Iterator<Item = &'a str> {
    let wants_v6 = family == "IPv6";
    let list = candidate.pod.status.as_ref().and_then(|status| status.pod_ips.as_deref()).unwrap_or_default();
    let only = Some(candidate.address).filter(|_| list.is_empty());
    let all = list.iter().map(|address| address.ip.as_str()).chain(only);
    all.filter(move |text| text.parse::<IpAddr>().is_ok_and(|address| address.is_ipv6() == wants_v6))
}

/// What turns a pod into an endpoint.
struct Teller<'a> {
    service: &'a Service,
    world: &'a Snapshot,
    family: &'static str,
    /// Zones of nodes that were asked for: many pods share a node.
    zones: HashMap<&'a str, Option<&'a str>>,
}

impl<'a> Teller<'a> {
    fn zone(&mut self, pod: &'a Pod) -> Option<&'a str> {
        let world = self.world;
        *self.zones.entry(pods::node(pod)).or_insert_with(|| zone(pod, world))
    }

    fn conditions(&self, candidate: &Candidate) -> EndpointConditions {
        let (serving, terminating) = (candidate.ready, candidate.deleted);
        EndpointConditions {
            ready: Some(publishes_not_ready(self.service) || (serving && !terminating)),
            serving: Some(serving),
            terminating: Some(terminating),
        }
    }

    /// The endpoint that tells of a pod.
    fn endpoint(&mut self, candidate: &Candidate<'a>) -> Endpoint {
        let pod = candidate.pod;
        Endpoint {
            addresses: addresses(candidate, self.family).map(str::to_owned).collect(),
            conditions: Some(self.conditions(candidate)),
            hostname: hostname(pod, self.service).map(str::to_owned),
            node_name: Some(pods::node(pod).to_owned()).filter(|node| !node.is_empty()),
            target_ref: Some(pod_reference(pod)),
            zone: self.zone(pod).map(str::to_owned),
            ..Default::default()
        }
    }

    /// True if `endpoint` is what [`Teller::endpoint`] would make. Most are, so nothing is made to find out.
    fn is_told_by(&mut self, candidate: &Candidate<'a>, endpoint: &Endpoint) -> bool {
        let pod = candidate.pod;
        let node = Some(pods::node(pod)).filter(|node| !node.is_empty());
        endpoint.conditions.as_ref() == Some(&self.conditions(candidate))
            && addresses(candidate, self.family).eq(endpoint.addresses.iter().map(String::as_str))
            && endpoint.hostname.as_deref() == hostname(pod, self.service)
            && endpoint.node_name.as_deref() == node
            && endpoint.target_ref.as_ref().is_some_and(|target| refers_to(target, pod))
            && endpoint.zone.as_deref() == self.zone(pod)
            && endpoint.deprecated_topology.is_none()
            && endpoint.hints.is_none()
    }
}

fn labels(key: &Key, service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.remove(HEADLESS);
    if is_headless(service) {
        labels.insert(HEADLESS.into(), String::new());
    }
    labels.insert(SERVICE_NAME.into(), key.name.clone());
    labels.insert(MANAGED_BY.0.into(), MANAGED_BY.1.into());
    labels
}

/// A slice being worked on.
struct Draft<'a> {
    slice: &'a EndpointSlice,
    endpoints: Vec<Told<'a>>,
    changed: bool,
}

/// An endpoint of a slice being worked on.
enum Told<'a> {
    /// As it is told already.
    Already(&'a Endpoint),
    /// Of this pod, to be told anew.
    Anew(Candidate<'a>),
}

/// Pods by their uids that were found in no slice yet.
type Left<'c, 'a> = HashMap<&'c str, &'c Candidate<'a>, BuildHasherDefault<UidHasher>>;

/// Uids are made by the server: nobody chooses them so that they collide, and thousands are looked for in a decision.
#[derive(Default)]
struct UidHasher(u64);

impl Hasher for UidHasher {
    fn write(&mut self, bytes: &[u8]) {
        for eight in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..eight.len()].copy_from_slice(eight);
            self.0 = (self.0.rotate_left(5) ^ u64::from_le_bytes(word)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        }
    }

    fn finish(&self) -> u64 {
        self.0.rotate_left(26)
    }
}

/// The writes that make `slices`, which are of one group, hold exactly the endpoints of `pods`.
fn fill(
    group: &Group,
    pods: &[Candidate],
    slices: &[&EndpointSlice],
    service: &Service,
    labels: &BTreeMap<String, String>,
    world: &Snapshot,
) -> Vec<Write> {
    let mut teller = Teller { service, world, family: group.family, zones: HashMap::new() };
    let mut left: Left = pods.iter().map(|pod| (pod.uid, pod)).collect();
    let mut drafts: Vec<Draft> = slices.iter().map(|slice| keep(slice, &mut left, labels, &mut teller)).collect();
    // In the order of the pods, so that the outcome does not depend on the map.
    let mut new: Vec<Candidate> = pods.iter().filter(|pod| left.contains_key(pod.uid)).copied().collect();
    for draft in drafts.iter_mut().filter(|draft| draft.changed) {
        add(draft, &mut new);
    }
    let fits = |draft: &&mut Draft| !new.is_empty() && draft.endpoints.len() + new.len() <= ENDPOINTS;
    if let Some(draft) = drafts.iter_mut().filter(fits).max_by_key(|draft| draft.endpoints.len()) {
        add(draft, &mut new);
    }
    let mut writes = Vec::new();
    let mut hold_one = pods.is_empty();
    for draft in drafts {
        // One slice remains even if there is nothing to tell.
        if draft.endpoints.is_empty() && !std::mem::take(&mut hold_one) {
            writes.push(delete(draft.slice));
        } else if draft.changed {
            let endpoints = draft.endpoints.into_iter().map(|told| match told {
                Told::Already(endpoint) => endpoint.clone(),
                Told::Anew(pod) => teller.endpoint(&pod),
            });
            writes.push(Write::Update(body(without_endpoints(draft.slice), endpoints.collect(), labels)));
        }
    }
    let mut rest = new.into_iter().peekable();
    while hold_one || rest.peek().is_some() {
        hold_one = false;
        let chunk: Vec<Endpoint> = rest.by_ref().take(ENDPOINTS).map(|pod| teller.endpoint(&pod)).collect();
        writes.push(Write::Create(body(new_slice(group, service), chunk, labels)));
    }
    writes
}

/// Keeps in a slice the pods that are still wanted, as they are now; what is found is taken from `left`.
fn keep<'a>(
    slice: &'a EndpointSlice,
    left: &mut Left<'_, 'a>,
    labels: &BTreeMap<String, String>,
    teller: &mut Teller<'a>,
) -> Draft<'a> {
    let before = slice.endpoints.as_deref().unwrap_or_default();
    let mut changed = slice.metadata.labels.as_ref() != Some(labels);
    let mut endpoints = Vec::with_capacity(before.len());
    for endpoint in before {
        let uid = endpoint.target_ref.as_ref().and_then(|target| target.uid.as_deref()).unwrap_or("");
        let told = match left.remove(uid) {
            Some(pod) if teller.is_told_by(pod, endpoint) => Some(Told::Already(endpoint)),
            Some(pod) => Some(Told::Anew(*pod)),
            None => None,
        };
        changed |= !matches!(told, Some(Told::Already(_)));
        endpoints.extend(told);
    }
    Draft { slice, endpoints, changed }
}

fn add<'a>(draft: &mut Draft<'a>, new: &mut Vec<Candidate<'a>>) {
    let room = ENDPOINTS.saturating_sub(draft.endpoints.len()).min(new.len());
    draft.changed |= room > 0;
    draft.endpoints.extend(new.drain(..room).map(Told::Anew));
}

/// The rest of a slice: its endpoints are told anew, and a copy of them is most of the cost of a write.
fn without_endpoints(slice: &EndpointSlice) -> EndpointSlice {
    EndpointSlice {
        address_type: slice.address_type.clone(),
        endpoints: None,
        metadata: slice.metadata.clone(),
        ports: slice.ports.clone(),
    }
}

fn body(mut slice: EndpointSlice, endpoints: Vec<Endpoint>, labels: &BTreeMap<String, String>) -> Body {
    slice.metadata.labels = Some(labels.clone());
    slice.endpoints = Some(endpoints);
    slice.into_body()
}

fn new_slice(group: &Group, service: &Service) -> EndpointSlice {
    EndpointSlice {
        address_type: group.family.to_owned(),
        metadata: ObjectMeta {
            generate_name: service.metadata.name.as_ref().map(|name| format!("{name}-")),
            namespace: service.metadata.namespace.clone(),
            owner_references: Some(vec![claim::controller_reference(Kind::Service, &service.metadata)]),
            ..Default::default()
        },
        ports: group.ports(),
        ..Default::default()
    }
}

fn delete(slice: &EndpointSlice) -> Write {
    let meta = &slice.metadata;
    Write::Delete {
        key: Key::new(
            Kind::EndpointSlice,
            meta.namespace.clone().unwrap_or_default(),
            meta.name.clone().unwrap_or_default(),
        ),
        uid: meta.uid.clone().unwrap_or_default(),
        propagation: Propagation::Background,
    }
}
