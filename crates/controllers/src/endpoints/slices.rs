//! The EndpointSlices of a Service, changed with as few writes as possible.
//!
//! Mirrors upstream's staging module `k8s.io/endpointslice` (reconciler.go, utils.go): a slice holds endpoints of one
//! address family that have the same ports. An endpoint stays in the slice it is in; new ones fill slices that are
//! written anyhow, then the fullest slice that has room for all of them, then new slices.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use api::endpoint_fingerprint::{self, Near};
use api::object::controller_of;
use api::snapshot::Member;
use api::{Body, Key, Kind, Object, Pod, Propagation, Snapshot, Typed, Write};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{
    HEADLESS, SERVICE_NAME, by_ports, hostname, is_headless, mirror, pod_reference, protocol, publishes_not_ready,
    service_ports, target_port, zone,
};
use crate::{claim, pods};

/// Label that names who keeps a slice.
pub const MANAGER: &str = "endpointslice.kubernetes.io/managed-by";
const MANAGED_BY: &str = "endpointslice-controller.k8s.io";
/// Annotations that ask for hints by the sizes of zones; the first one that is there counts (upstream: hintsEnabled).
const TOPOLOGY_MODES: [&str; 2] = ["service.kubernetes.io/topology-aware-hints", "service.kubernetes.io/topology-mode"];
/// Endpoints in one slice (upstream: `--max-endpoints-per-slice`).
const ENDPOINTS: usize = 100;

/// Who keeps a slice.
pub fn manager(meta: &ObjectMeta) -> Option<&str> {
    meta.labels.as_ref()?.get(MANAGER).map(String::as_str)
}

/// The Service of a slice that is kept here or repeats Endpoints.
pub fn service_name(meta: &ObjectMeta) -> Option<&str> {
    manager(meta).filter(|by| [MANAGED_BY, mirror::MANAGED_BY].contains(by))?;
    meta.labels.as_ref()?.get(SERVICE_NAME).map(String::as_str)
}

/// The writes that bring the slices up to date.
pub fn reconcile(key: &Key, service: &Service, candidates: &[Member], world: &Snapshot) -> Vec<Write> {
    let labels = labels(key, service);
    let existing: Vec<Existing> = world
        .objects(Kind::EndpointSlice, Some(&key.namespace))
        .filter(|slice| service_name(slice.meta()) == Some(&key.name))
        .filter(|slice| slice.meta().deletion_timestamp.is_none())
        .filter_map(Existing::of)
        .collect();
    let mut groups = wanted(service, candidates, world);
    let mut writes = Vec::new();
    let families = families(service);
    // Slices of another owner or of a group that is no longer wanted cannot be changed into what is wanted.
    let mut by_group: BTreeMap<Group, Vec<Existing>> = BTreeMap::new();
    for existing in existing {
        let group = Group::of(existing.slice);
        let owner = controller_of(&existing.slice.metadata);
        let ours = owner.is_some_and(|owner| Some(&owner.uid) == service.metadata.uid.as_ref());
        if ours && families.contains(&group.family) {
            by_group.entry(group).or_default().push(existing);
        } else {
            writes.push(delete(existing.slice));
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
            writes.extend(slices.iter().map(|existing| delete(existing.slice)));
        }
    }
    for (group, pods) in groups {
        let slices = by_group.remove(&group).unwrap_or_default();
        writes.extend(fill(&group, &pods, &slices, service, &labels, world));
    }
    writes
}

/// A slice that is there.
#[derive(Clone, Copy)]
struct Existing<'a> {
    slice: &'a EndpointSlice,
    /// The numbers of its endpoints, in their order.
    numbers: &'a [u64],
}

impl<'a> Existing<'a> {
    fn of(object: &'a Arc<Object>) -> Option<Existing<'a>> {
        Some(Existing { slice: object.get()?, numbers: object.endpoints() })
    }
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

/// The pods that are endpoints, by what their endpoints have in common. What is on a node that was deleted is told by nobody
/// as it is any more: it gets no requests, unless also pods that are not ready do.
fn wanted<'a>(service: &Service, candidates: &[Member<'a>], world: &Snapshot) -> BTreeMap<Group, Vec<Member<'a>>> {
    let mut groups = BTreeMap::new();
    let mut nodes: HashMap<u64, bool> = HashMap::new();
    let mut has_node = |pod: &Member| {
        let is_there = || world.object(Kind::Node, "", pods::node(pod.pod())).is_some();
        pod.node() == 0 || *nodes.entry(pod.node()).or_insert_with(is_there) || publishes_not_ready(service)
    };
    let candidates: Vec<&Member> = candidates.iter().filter(|pod| has_node(pod)).collect();
    for family in families(service) {
        let there = candidates.iter().copied().filter(|pod| is_in(pod, family));
        groups.extend(by_ports(service, there.copied(), |pod| Group { family, ports: ports(service, pod) }));
    }
    groups
}

/// True if the pod has an address of this family.
fn is_in(pod: &Member, family: &str) -> bool {
    match pod.endpoint() {
        Some(_) => pod.is_ipv6() == (family == "IPv6"),
        None => addresses(pod.pod(), family).next().is_some(),
    }
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
fn addresses<'a>(pod: &'a Pod, family: &str) -> impl Iterator<Item = &'a str> {
    let wants_v6 = family == "IPv6";
    let list = pod.status.as_ref().and_then(|status| status.pod_ips.as_deref()).unwrap_or_default();
    let only = Some(pods::address(pod)).filter(|_| list.is_empty());
    let all = list.iter().map(|address| address.ip.as_str()).chain(only);
    all.filter(move |text| text.parse::<IpAddr>().is_ok_and(|address| address.is_ipv6() == wants_v6))
}

/// What turns a pod into an endpoint.
struct Teller<'a> {
    service: &'a Service,
    world: &'a Snapshot,
    family: &'static str,
    /// Who is to prefer an endpoint that is ready.
    near: Near,
    /// The zones of nodes with their numbers, by the nodes' own: many pods share a node.
    zones: HashMap<u64, (u64, bool)>,
}

impl<'a> Teller<'a> {
    fn of(service: &'a Service, family: &'static str, world: &'a Snapshot) -> Teller<'a> {
        Teller { service, world, family, near: near(service), zones: HashMap::new() }
    }

    fn conditions(&self, pod: &Member) -> EndpointConditions {
        let (serving, terminating) = (pod.is_ready(), pod.is_deleted());
        EndpointConditions {
            ready: Some(publishes_not_ready(self.service) || (serving && !terminating)),
            serving: Some(serving),
            terminating: Some(terminating),
        }
    }

    /// The number of what [`Teller::endpoint`] makes; `None` if that has to be looked at.
    fn number(&mut self, pod: &Member<'a>) -> Option<u64> {
        let world = self.world;
        let of_node = || {
            let zone = zone(pod.pod(), world);
            (endpoint_fingerprint::zone(zone), zone.is_some())
        };
        let (zone, has_zone) = *self.zones.entry(pod.node()).or_insert_with(of_node);
        let conditions = self.conditions(pod);
        let near = match self.near {
            _ if conditions.ready != Some(true) => Near::Nowhere,
            Near::Node if pod.node() != 0 => Near::Node,
            Near::Node | Near::Zone if has_zone => Near::Zone,
            _ => Near::Nowhere,
        };
        Some(endpoint_fingerprint::told(pod.endpoint()?, &conditions, zone, near))
    }

    /// The endpoint that tells of a pod.
    fn endpoint(&self, member: &Member<'a>) -> Endpoint {
        let (pod, conditions) = (member.pod(), self.conditions(member));
        let (node, zone) = (Some(pods::node(pod)).filter(|node| !node.is_empty()), zone(pod, self.world));
        let near = if conditions.ready == Some(true) { self.near } else { Near::Nowhere };
        Endpoint {
            addresses: addresses(pod, self.family).map(str::to_owned).collect(),
            conditions: Some(conditions),
            deprecated_topology: None,
            hints: endpoint_fingerprint::hints(near, zone, node),
            hostname: hostname(pod, self.service).map(str::to_owned),
            node_name: node.map(str::to_owned),
            target_ref: Some(pod_reference(pod)),
            zone: zone.map(str::to_owned),
        }
    }
}

/// Who is to prefer the endpoints of a Service (upstream: ReconcileHints of `trafficdist/trafficdist.go`). Where annotations
/// ask for hints by the sizes of zones, which are not made here, they go before it, as there.
fn near(service: &Service) -> Near {
    let annotation = |name: &str| service.metadata.annotations.as_ref()?.get(name).map(String::as_str);
    let by_size = TOPOLOGY_MODES.iter().find_map(|name| annotation(name));
    match service.spec.as_ref().and_then(|spec| spec.traffic_distribution.as_deref()) {
        _ if matches!(by_size, Some("Auto" | "auto")) => Near::Nowhere,
        Some("PreferClose" | "PreferSameZone") => Near::Zone,
        Some("PreferSameNode") => Near::Node,
        _ => Near::Nowhere,
    }
}

fn labels(key: &Key, service: &Service) -> BTreeMap<String, String> {
    let mut labels = service.metadata.labels.clone().unwrap_or_default();
    labels.remove(HEADLESS);
    if is_headless(service) {
        labels.insert(HEADLESS.into(), String::new());
    }
    labels.insert(SERVICE_NAME.into(), key.name.clone());
    labels.insert(MANAGER.into(), MANAGED_BY.into());
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
    Anew(Member<'a>),
}

/// The writes that make `slices`, which are of one group, hold exactly the endpoints of `pods`.
fn fill(
    group: &Group,
    pods: &[Member],
    slices: &[Existing],
    service: &Service,
    labels: &BTreeMap<String, String>,
    world: &Snapshot,
) -> Vec<Write> {
    let mut teller = Teller::of(service, group.family, world);
    let (mut drafts, mut new) = settle(pods, slices, labels, &mut teller);
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

/// The slices with what is told already and what has to be told anew in its place, and the pods that no slice tells of, by
/// their names.
fn settle<'a>(
    pods: &[Member<'a>],
    slices: &[Existing<'a>],
    labels: &BTreeMap<String, String>,
    teller: &mut Teller<'a>,
) -> (Vec<Draft<'a>>, Vec<Member<'a>>) {
    let (mut by_number, mut left) = (HashMap::with_capacity(pods.len()), Vec::new());
    for pod in pods {
        match teller.number(pod) {
            Some(number) => drop(by_number.insert(number, *pod)),
            None => left.push(*pod),
        }
    }
    // Most are told already, and their numbers say so.
    let mut found = |number| by_number.remove(number).is_some();
    let kept: Vec<Vec<bool>> = slices.iter().map(|slice| slice.numbers.iter().map(&mut found).collect()).collect();
    left.extend(by_number.into_values());
    left.sort_by_cached_key(|pod| pods::name(pod.pod()));
    let mut by_uid: HashMap<&str, Member> = left.iter().map(|pod| (uid(pod.pod()), *pod)).collect();
    let slices = slices.iter().zip(&kept);
    let drafts = slices.map(|(existing, kept)| draft(existing.slice, kept, &mut by_uid, labels, teller)).collect();
    left.retain(|pod| by_uid.contains_key(uid(pod.pod())));
    (drafts, left)
}

fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or("")
}

/// Keeps in a slice the pods that are still wanted, as they are now: those of the endpoints that are `kept`, and those found in
/// `left`, from which they are taken.
fn draft<'a>(
    slice: &'a EndpointSlice,
    kept: &[bool],
    left: &mut HashMap<&str, Member<'a>>,
    labels: &BTreeMap<String, String>,
    teller: &Teller<'a>,
) -> Draft<'a> {
    let before = slice.endpoints.as_deref().unwrap_or_default();
    let mut changed = slice.metadata.labels.as_ref() != Some(labels);
    let mut endpoints = Vec::with_capacity(before.len());
    for (endpoint, kept) in before.iter().zip(kept) {
        let uid = || endpoint.target_ref.as_ref().and_then(|target| target.uid.as_deref()).unwrap_or("");
        let told = match kept {
            true => Some(Told::Already(endpoint)),
            false => left.remove(uid()).map(|pod| match teller.endpoint(&pod) == *endpoint {
                true => Told::Already(endpoint),
                false => Told::Anew(pod),
            }),
        };
        changed |= !matches!(told, Some(Told::Already(_)));
        endpoints.extend(told);
    }
    Draft { slice, endpoints, changed }
}

fn add<'a>(draft: &mut Draft<'a>, new: &mut Vec<Member<'a>>) {
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

/// The write that takes a slice out.
pub fn delete(slice: &EndpointSlice) -> Write {
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
