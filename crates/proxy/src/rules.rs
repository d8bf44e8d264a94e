//! What a node has to do with a packet to a service: a pure function from Services and EndpointSlices to a [`RuleSet`].
//!
//! It never talks to the kernel and knows nothing of how rules are written there. It decides as upstream's kube-proxy does:
//! which endpoints of a port may be used (`pkg/proxy/topology.go`, `CategorizeEndpoints`; KEP-1669: when none is ready,
//! those that still serve while they terminate), which services have no address of their own (headless, ExternalName),
//! and that a service without endpoints is refused at once rather than left to time out.
//!
//! What cannot be programmed is not dropped in silence: it is listed in [`RuleSet::refused`].

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    net::{Ipv4Addr, SocketAddrV4},
};

use k8s_openapi::api::{
    core::v1::{Service, ServicePort, ServiceSpec},
    discovery::v1::{Endpoint, EndpointSlice},
};

/// The label by which an EndpointSlice names its Service.
const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";
/// How long a client keeps its backend when the Service does not say (three hours, upstream's default).
const DEFAULT_AFFINITY_SECONDS: u32 = 10_800;

/// A transport protocol of a service port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP
    Tcp,
    /// UDP
    Udp,
    /// SCTP
    Sctp,
}

impl Protocol {
    /// Kubernetes leaves the protocol out for TCP.
    fn parse(name: Option<&str>) -> Option<Protocol> {
        match name {
            None | Some("" | "TCP") => Some(Protocol::Tcp),
            Some("UDP") => Some(Protocol::Udp),
            Some("SCTP") => Some(Protocol::Sctp),
            Some(_) => None,
        }
    }

    /// The protocol's number in an IP header.
    pub fn number(self) -> u8 {
        match self {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
            Protocol::Sctp => 132,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        })
    }
}

/// Where clients send to: a service address and port, or a port on every address of the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Frontend {
    /// The service's address; `None` for a node port.
    pub address: Option<Ipv4Addr>,
    /// The protocol.
    pub protocol: Protocol,
    /// The port that clients use.
    pub port: u16,
}

impl Frontend {
    /// A port of the node as a pod asks for it; `0.0.0.0` stands for every address. `None` for what is no such port.
    pub fn of_node(protocol: &str, address: &str, port: i32) -> Option<Frontend> {
        let address: Ipv4Addr = address.parse().ok()?;
        let address = (!address.is_unspecified()).then_some(address);
        Some(Frontend { address, protocol: Protocol::parse(Some(protocol))?, port: port_number(port).ok()? })
    }
}

impl fmt::Display for Frontend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            Some(address) => write!(f, "{} {address}:{}", self.protocol, self.port),
            None => write!(f, "{} node:{}", self.protocol, self.port),
        }
    }
}

/// Where a frontend leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Road {
    /// `namespace/name` or `namespace/name:port` of the Service, for messages.
    pub service: String,
    /// The pods' addresses, in order of their slots. No backend: connections are refused.
    pub backends: Vec<SocketAddrV4>,
    /// `sessionAffinity: ClientIP`: for how many seconds after its last connection a client stays with its backend.
    pub affinity: Option<u32>,
    /// Whether the client's address is replaced by the node's, because the answer must come back through this node.
    pub masquerade: bool,
}

/// Everything a node has to do for services. Two sets compare equal when packets go the same way.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RuleSet {
    /// All roads.
    pub roads: BTreeMap<Frontend, Road>,
    /// `namespace/name` of what is not programmed, and why.
    pub refused: BTreeSet<(String, String)>,
}

impl fmt::Display for RuleSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (frontend, road) in &self.roads {
            write!(f, "{frontend} {} ->", road.service)?;
            if road.backends.is_empty() {
                write!(f, " refuse")?;
            }
            for backend in &road.backends {
                write!(f, " {backend}")?;
            }
            if let Some(seconds) = road.affinity {
                write!(f, " affinity {seconds}s")?;
            }
            if road.masquerade {
                write!(f, " masquerade")?;
            }
            writeln!(f)?;
        }
        for (what, why) in &self.refused {
            writeln!(f, "not programmed: {what}: {why}")?;
        }
        Ok(())
    }
}

impl RuleSet {
    /// Lets ports of the node lead to pods on it that took them.
    pub fn lead(&mut self, ports: &BTreeMap<Frontend, SocketAddrV4>) {
        for (frontend, pod) in ports {
            let service = format!("hostPort of {pod}");
            // The pod is on this node, and so is the way back.
            let road = Road { service: service.clone(), backends: vec![*pod], affinity: None, masquerade: false };
            if let Err(why) = add_road(self, *frontend, road) {
                self.refused.insert((service, why));
            }
        }
    }

    /// Lets the node answer these frontends itself where no pod does: also before their Service is known, and after it was
    /// deleted. So a node has its own name server, and a cluster can have another one by giving its Service pods.
    pub fn answer_here(&mut self, here: &BTreeMap<Frontend, SocketAddrV4>) {
        for (frontend, backend) in here {
            let own = || Road { service: "this node".into(), backends: Vec::new(), affinity: None, masquerade: false };
            let road = self.roads.entry(*frontend).or_insert_with(own);
            if road.backends.is_empty() {
                road.backends.push(*backend);
            }
        }
    }
}

/// The rules of the node `node_name` for these services. The order of the arguments does not matter.
///
/// `trafficDistribution` and topology hints only express a preference and are not followed: any usable endpoint is taken.
pub fn rules(services: &[&Service], slices: &[&EndpointSlice], node_name: &str) -> RuleSet {
    let mut slices_of: HashMap<(&str, &str), Vec<&EndpointSlice>> = HashMap::new();
    for slice in slices.iter().copied().filter(|slice| slice.address_type == "IPv4") {
        if let Some(service) = service_of(slice) {
            slices_of.entry(service).or_default().push(slice);
        }
    }
    let mut ordered: Vec<&Service> = services.to_vec();
    ordered.sort_by_key(|service| name_of(service));
    let mut set = RuleSet::default();
    for service in ordered {
        let slices = slices_of.get(&name_of(service)).map_or(&[][..], Vec::as_slice);
        if let Some(spec) = &service.spec {
            add_service(&mut set, service, spec, slices, node_name);
        }
    }
    set
}

pub(crate) fn name_of(service: &Service) -> (&str, &str) {
    let meta = &service.metadata;
    (meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default())
}

pub(crate) fn service_of(slice: &EndpointSlice) -> Option<(&str, &str)> {
    let service = slice.metadata.labels.as_ref()?.get(SERVICE_NAME_LABEL)?;
    Some((slice.metadata.namespace.as_deref().unwrap_or_default(), service))
}

fn add_service(set: &mut RuleSet, service: &Service, spec: &ServiceSpec, slices: &[&EndpointSlice], node_name: &str) {
    let (namespace, name) = name_of(service);
    let full_name = format!("{namespace}/{name}");
    if spec.type_.as_deref() == Some("ExternalName") {
        return;
    }
    let address = match cluster_address(spec) {
        Ok(Some(address)) => address,
        Ok(None) => return,
        Err(why) => {
            set.refused.insert((full_name, why));
            return;
        }
    };
    report_what_is_left_out(set, &full_name, spec);
    for port in spec.ports.iter().flatten() {
        let label = match port.name.as_deref() {
            Some(port_name) if !port_name.is_empty() => format!("{full_name}:{port_name}"),
            _ => full_name.clone(),
        };
        if let Err(why) = add_port(set, &label, spec, address, port, slices, node_name) {
            set.refused.insert((label, why));
        }
    }
}

/// The service's IPv4 address; `None` when it has none on purpose (headless) or not yet.
fn cluster_address(spec: &ServiceSpec) -> Result<Option<Ipv4Addr>, String> {
    let mut addresses: Vec<&str> = spec.cluster_ips.iter().flatten().map(String::as_str).collect();
    if addresses.is_empty() {
        addresses.extend(spec.cluster_ip.as_deref());
    }
    addresses.retain(|address| !address.is_empty() && *address != "None");
    match addresses.iter().find_map(|address| address.parse().ok()) {
        Some(address) => Ok(Some(address)),
        None if addresses.is_empty() => Ok(None),
        None => Err(format!("cluster address {} is not an IPv4 address", addresses.join(", "))),
    }
}

fn report_what_is_left_out(set: &mut RuleSet, full_name: &str, spec: &ServiceSpec) {
    let mut report = |why: &str| {
        set.refused.insert((full_name.to_owned(), why.to_owned()));
    };
    if spec.external_ips.as_ref().is_some_and(|addresses| !addresses.is_empty()) {
        report("spec.externalIPs are not routed by this proxy; use the cluster address or a node port");
    }
    if spec.load_balancer_source_ranges.as_ref().is_some_and(|ranges| !ranges.is_empty()) {
        report("spec.loadBalancerSourceRanges is not enforced by this proxy");
    }
}

fn add_port(
    set: &mut RuleSet,
    label: &str,
    spec: &ServiceSpec,
    address: Ipv4Addr,
    port: &ServicePort,
    slices: &[&EndpointSlice],
    node_name: &str,
) -> Result<(), String> {
    let protocol = Protocol::parse(port.protocol.as_deref())
        .ok_or_else(|| format!("protocol {} is not known", port.protocol.as_deref().unwrap_or_default()))?;
    let number = port_number(port.port)?;
    let affinity = affinity(spec);
    let usable = |policy: &Option<String>| {
        let only_node = (policy.as_deref() == Some("Local")).then_some(node_name);
        usable_backends(port, protocol, slices, only_node)
    };

    let (backends, strange) = usable(&spec.internal_traffic_policy);
    for backend in strange {
        let why = format!("endpoint {backend} cannot be reached from other pods and is left out");
        set.refused.insert((label.to_owned(), why));
    }
    let road = Road { service: label.to_owned(), backends, affinity, masquerade: false };
    add_road(set, Frontend { address: Some(address), protocol, port: number }, road)?;

    let Some(node_port) = port.node_port.filter(|port| *port != 0) else { return Ok(()) };
    let keeps_client_address = spec.external_traffic_policy.as_deref() == Some("Local");
    let (backends, _) = usable(&spec.external_traffic_policy);
    let road = Road { service: label.to_owned(), backends, affinity, masquerade: !keeps_client_address };
    add_road(set, Frontend { address: None, protocol, port: port_number(node_port)? }, road)
}

fn port_number(port: i32) -> Result<u16, String> {
    u16::try_from(port).ok().filter(|port| *port != 0).ok_or_else(|| format!("{port} is not a port number"))
}

fn affinity(spec: &ServiceSpec) -> Option<u32> {
    if spec.session_affinity.as_deref() != Some("ClientIP") {
        return None;
    }
    let configured =
        spec.session_affinity_config.as_ref().and_then(|config| config.client_ip.as_ref()?.timeout_seconds);
    Some(
        configured
            .and_then(|seconds| u32::try_from(seconds).ok())
            .filter(|s| *s != 0)
            .unwrap_or(DEFAULT_AFFINITY_SECONDS),
    )
}

fn add_road(set: &mut RuleSet, frontend: Frontend, road: Road) -> Result<(), String> {
    match set.roads.get(&frontend) {
        Some(other) => Err(format!("{frontend} is already taken by {}", other.service)),
        None => {
            set.roads.insert(frontend, road);
            Ok(())
        }
    }
}

/// The addresses that new connections may go to, sorted, and those that are in the slices but lead nowhere.
fn usable_backends(
    port: &ServicePort,
    protocol: Protocol,
    slices: &[&EndpointSlice],
    only_node: Option<&str>,
) -> (Vec<SocketAddrV4>, BTreeSet<SocketAddrV4>) {
    let (mut ready, mut draining, mut strange) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for slice in slices {
        let Some(number) = target_port(slice, port, protocol) else { continue };
        for endpoint in slice.endpoints.iter().flatten() {
            if only_node.is_some_and(|node| endpoint.node_name.as_deref() != Some(node)) {
                continue;
            }
            // Upstream uses the first address only; the others are for consumers that know better.
            let Some(address) = endpoint.addresses.first().and_then(|address| address.parse().ok()) else { continue };
            let backend = SocketAddrV4::new(address, number);
            match state(endpoint) {
                State::Unusable => {}
                _ if address.is_loopback() || address.is_unspecified() || address.is_multicast() => {
                    strange.insert(backend);
                }
                State::Ready => {
                    ready.insert(backend);
                }
                State::Draining => {
                    draining.insert(backend);
                }
            }
        }
    }
    let chosen = if ready.is_empty() { draining } else { ready };
    (chosen.into_iter().collect(), strange)
}

/// The port number of a slice for a service port: matched by name, which is empty for a service with a single port.
fn target_port(slice: &EndpointSlice, port: &ServicePort, protocol: Protocol) -> Option<u16> {
    let wanted = port.name.as_deref().unwrap_or_default();
    let found = slice.ports.iter().flatten().find(|candidate| {
        candidate.name.as_deref().unwrap_or_default() == wanted
            && Protocol::parse(candidate.protocol.as_deref()) == Some(protocol)
    })?;
    port_number(found.port?).ok()
}

pub(crate) enum State {
    Ready,
    Draining,
    Unusable,
}

/// An absent `ready` means ready, and an absent `serving` means the same as `ready`.
pub(crate) fn state(endpoint: &Endpoint) -> State {
    let Some(conditions) = &endpoint.conditions else { return State::Ready };
    let ready = conditions.ready.unwrap_or(true);
    let serving = conditions.serving.unwrap_or(ready);
    match (ready, serving && conditions.terminating.unwrap_or(false)) {
        (true, _) => State::Ready,
        (false, true) => State::Draining,
        (false, false) => State::Unusable,
    }
}

#[cfg(test)]
mod tests;
