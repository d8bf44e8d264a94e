//! The nodes: their addresses, how they come into the API and stay alive there.

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Duration,
};

use api::Pod;
use api::pod_resources::{HostPort, host_ports, ports_clash};
use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::Node;
use kube::{Api, Client, api::ListParams, runtime::watcher};

use super::IN_FLIGHT;
use crate::{
    clock::Clock,
    pod_on_node::Failure,
    registration::{self, Capacity, LEASE_SECONDS, Machine, Registration},
    runtime::simulated::Addresses,
};

/// How often the nodes show that they live: all at once, so that the server is woken once.
const HEARTBEAT: Duration = Duration::from_secs(20);
/// The pods' network: 10.244.0.0/16.
pub(super) const POD_NETWORK: u32 = u32::from_be_bytes([10, 244, 0, 0]);
/// The nodes' own addresses: 100.64.0.0/10, which is used for nothing else.
const NODE_NETWORK: u32 = u32::from_be_bytes([100, 64, 0, 0]);
/// What each node has, beside room for pods.
const CAPACITY: Capacity = Capacity { cpu_milli: 32_000, memory_bytes: 256 << 30, storage_bytes: 1 << 40, pods: 110 };

/// A node, as far as it is pretended.
pub(super) struct SimulatedNode {
    pub(super) name: Arc<str>,
    pub(super) ip: Ipv4Addr,
    pub(super) addresses: Addresses,
    /// Images pulled before: the next start does not wait for them.
    pub(super) images: HashSet<String>,
    /// Ports of the node itself, each with the uid of the pod that took it.
    pub(super) ports: Vec<(HostPort, Arc<str>)>,
}

impl SimulatedNode {
    /// Takes the ports of the node that a pod asks for: all, or none because one is taken.
    pub(super) fn take_ports(&mut self, uid: &Arc<str>, pod: &Pod) -> Result<(), Failure> {
        let wanted = pod.spec.as_deref().map(host_ports).unwrap_or_default();
        if wanted.iter().any(|port| self.ports.iter().any(|(taken, _)| ports_clash(port, taken))) {
            return Err(Failure::ports_taken());
        }
        self.ports.extend(wanted.into_iter().map(|port| (port, uid.clone())));
        Ok(())
    }
}

/// The nodes with their blocks of addresses: those they had before, or ones that no other node has.
pub(super) async fn blocks(client: &Client, count: usize, name_prefix: &str) -> Vec<SimulatedNode> {
    let api: Api<Node> = Api::all(client.clone());
    let all = ListParams::default();
    let listed = registration::until_done("listing nodes", || api.list(&all)).await;
    let cidr = |node: &Node| node.spec.as_ref().and_then(|spec| parse_cidr(spec.pod_cidr.as_deref()?));
    let had: HashMap<String, (u32, u8)> =
        listed.iter().filter_map(|node| Some((node.metadata.name.clone()?, cidr(node)?))).collect();
    let names: Vec<String> = (0..count).map(|number| format!("{name_prefix}-{number}")).collect();
    let taken: Vec<(u32, u8)> = had.values().copied().collect();
    let missing = names.iter().filter(|name| !had.contains_key(*name)).count();
    let mut free = free_blocks(missing, &taken).into_iter();
    let node = |(number, name): (usize, String)| {
        let (base, prefix) = had.get(&name).copied().or_else(|| free.next()).unwrap_or((POD_NETWORK, 30));
        SimulatedNode {
            name: name.into(),
            ip: Ipv4Addr::from_bits(NODE_NETWORK + 1 + u32::try_from(number).unwrap_or(0)),
            addresses: Addresses::new(Ipv4Addr::from_bits(base), prefix),
            images: HashSet::new(),
            ports: Vec::new(),
        }
    };
    names.into_iter().enumerate().map(node).collect()
}

fn parse_cidr(text: &str) -> Option<(u32, u8)> {
    let (base, prefix) = text.split_once('/')?;
    Some((base.parse::<Ipv4Addr>().ok()?.to_bits(), prefix.parse().ok()?))
}

/// As many nodes as the pod network has blocks for.
pub const MOST_NODES: usize = (65_536 - 256) / 8;

/// Blocks of the pod network that overlap none of `taken`: as large as `count` of them can be, /24 at most. The first
/// /24 is left to a real node on this machine.
pub(super) fn free_blocks(count: usize, taken: &[(u32, u8)]) -> Vec<(u32, u8)> {
    let overlaps = |base: u32, size: u32| {
        taken.iter().any(|(other, prefix)| {
            let other_size = 1_u64 << (32 - u32::from(*prefix).min(32));
            u64::from(base) < u64::from(*other) + other_size && u64::from(*other) < u64::from(base) + u64::from(size)
        })
    };
    for prefix in 24_u8..=29 {
        let size = 1_u32 << (32 - prefix);
        let bases = (POD_NETWORK + 256..POD_NETWORK + 65_536).step_by(size as usize);
        let free: Vec<_> = bases.filter(|base| !overlaps(*base, size)).map(|base| (base, prefix)).take(count).collect();
        if free.len() == count {
            return free;
        }
    }
    tracing::error!("10.244.0.0/16 has no room for {count} more nodes: some get no addresses for pods");
    Vec::new()
}

/// Registers them; returns their names and uids.
pub(super) async fn register(client: &Client, nodes: &[SimulatedNode]) -> Vec<(Arc<str>, String)> {
    let machine = &Machine::this();
    let now = Clock::start().now();
    let one = |node: &SimulatedNode| {
        let registration = Registration {
            name: node.name.to_string(),
            labels: [("type".to_owned(), "simulated".to_owned())].into(),
            taints: Vec::new(),
            addresses: vec![IpAddr::V4(node.ip)],
            pod_cidr: node.addresses.cidr(),
            capacity: Capacity { pods: CAPACITY.pods.min(node.addresses.pods().into()), ..CAPACITY },
            simulated: true,
        };
        let object = registration::node(&registration, machine, now);
        let name = node.name.clone();
        async move {
            let what = format!("registering node {name}");
            let uid = registration::until_done(&what, || registration::register(client, &object)).await;
            (name, uid)
        }
    };
    let futures: Vec<_> = nodes.iter().map(one).collect();
    stream::iter(futures).buffer_unordered(IN_FLIGHT).collect().await
}

/// Shows that they live.
pub(super) async fn heartbeat(client: Client, nodes: Vec<(Arc<str>, String)>) {
    let mut beat = tokio::time::interval(HEARTBEAT);
    let clock = Clock::start();
    let ours: HashSet<&str> = nodes.iter().map(|(name, _)| &**name).collect();
    let mut given_up = registration::given_up(&client, watcher::Config::default().labels("type=simulated"));
    loop {
        let lost = tokio::select! {
            _ = beat.tick() => None,
            Some(name) = given_up.next() => Some(name),
        };
        let client = &client;
        if let Some(name) = lost {
            if ours.contains(name.as_str())
                && let Err(error) = registration::revive(client, &name, clock.now()).await
            {
                tracing::warn!("node {name} was given up and could not say that it lives: {error}");
            }
            continue;
        }
        let renewals = nodes.iter().map(|(name, uid)| async move {
            if let Err(error) = registration::renew(client, name, uid, LEASE_SECONDS).await {
                tracing::warn!("the Lease of node {name} could not be renewed: {error}");
            }
        });
        let renewals: Vec<_> = renewals.collect();
        stream::iter(renewals).buffer_unordered(IN_FLIGHT).collect::<()>().await;
    }
}
