//! [`Proxy`]: the rules of one node, in force in the kernel.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{Ipv4Addr, SocketAddrV4},
    time::{Duration, Instant},
};

use ipnet::Ipv4Net;
use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use netlink_sys::protocols::NETLINK_NETFILTER;

use crate::{
    conntrack,
    delta::{Delta, diff},
    error::ProxyError,
    netlink::Netlink,
    nftables::{self, Ranges},
    route,
    rules::{Frontend, Protocol, RuleSet, rules},
};

/// What a proxy has to know of its node.
#[derive(Debug, Clone)]
pub struct Options {
    /// The node's name, for traffic policies that keep to the node.
    pub node_name: String,
    /// All pods' addresses, such as 10.244.0.0/16.
    pub pod_cidr: Ipv4Net,
    /// All services' addresses, such as 10.96.0.0/16.
    pub service_cidr: Ipv4Net,
    /// Frontends that this node answers itself, at these addresses of its own, unless pods do.
    pub answered_here: BTreeMap<Frontend, SocketAddrV4>,
}

/// What one call put in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// How many frontends (service ports, node ports) changed.
    pub changed: usize,
    /// How many UDP flows to former backends were forgotten.
    pub forgotten_flows: usize,
    /// How long it took, deciding included.
    pub took: Duration,
}

/// The service rules of one node. Opened in a network namespace, it stays with it whichever thread calls.
pub struct Proxy {
    options: Options,
    netfilter: Netlink,
    routes: Netlink,
    /// What the kernel holds; `None` when that is not known: at the start, and after an error.
    kernel: Option<RuleSet>,
    reported: BTreeSet<(String, String)>,
    /// Addresses of all endpoints, usable or not.
    named: BTreeSet<Ipv4Addr>,
    /// Ports of the node that pods on it took.
    led: BTreeMap<Frontend, SocketAddrV4>,
}

impl Proxy {
    /// Opens the sockets in the calling thread's network namespace and makes the node's own route to services.
    /// Rules that an older run left stay in force until the first [`apply`](Proxy::apply).
    pub fn open(options: Options) -> Result<Proxy, ProxyError> {
        if options.pod_cidr.contains(&options.service_cidr) || options.service_cidr.contains(&options.pod_cidr) {
            let (pods, services) = (options.pod_cidr, options.service_cidr);
            return Err(ProxyError::Options(format!("pod addresses {pods} and service addresses {services} overlap")));
        }
        let netfilter = Netlink::open(NETLINK_NETFILTER).map_err(|source| ProxyError::Socket {
            protocol: "NETLINK_NETFILTER",
            option: "CONFIG_NETFILTER_NETLINK and CONFIG_NF_TABLES",
            source,
        })?;
        let mut routes = route::open()?;
        route::add(&mut routes, options.service_cidr)?;
        let (reported, named, led) = (BTreeSet::new(), BTreeSet::new(), BTreeMap::new());
        Ok(Proxy { options, netfilter, routes, kernel: None, reported, named, led })
    }

    /// The node this proxy works for.
    pub fn node_name(&self) -> &str {
        &self.options.node_name
    }

    /// Ports of the node that lead to pods on it, from the next [`apply`](Proxy::apply) on.
    pub fn lead(&mut self, ports: BTreeMap<Frontend, SocketAddrV4>) {
        self.led = ports;
    }

    /// Puts the rules for these services in force. When it returns, no new connection reaches an endpoint that is not usable
    /// in `slices`, not even one whose handshake had begun before; connections that exist go on.
    pub fn apply(&mut self, services: &[&Service], slices: &[&EndpointSlice]) -> Result<Applied, ProxyError> {
        let start = Instant::now();
        let mut wanted = rules(services, slices, &self.options.node_name);
        wanted.answer_here(&self.options.answered_here);
        wanted.lead(&self.led);
        self.report(&wanted);
        let delta = self.put_in_force(&wanted)?;
        let forgotten_flows = match self.see_off(&delta) {
            Ok(forgotten) => forgotten,
            Err(error) => {
                // Doing it all again is the way to repeat only this.
                self.kernel = None;
                return Err(error);
            }
        };
        Ok(Applied { changed: delta.changed.len(), forgotten_flows, took: start.elapsed() })
    }

    /// Forgets what is left of connections to endpoints that no slice names any more, as their pods are gone. Nobody has to
    /// wait for this; it looks at every flow of the node. Returns how many were forgotten.
    pub fn bury(&mut self, slices: &[&EndpointSlice]) -> Result<usize, ProxyError> {
        let endpoints = slices.iter().flat_map(|slice| slice.endpoints.iter().flatten());
        let addresses = endpoints.flat_map(|endpoint| &endpoint.addresses);
        let named: BTreeSet<Ipv4Addr> = addresses.filter_map(|address| address.parse().ok()).collect();
        let gone = &self.named - &named;
        let buried = conntrack::bury(&mut self.netfilter, &gone)?;
        self.named = named;
        Ok(buried)
    }

    /// Whether the table is still there. Other programs flush all rules (a firewall's restart does); the next
    /// [`apply`](Proxy::apply) then writes everything anew.
    pub fn verify(&mut self) -> Result<bool, ProxyError> {
        if self.kernel.is_none() {
            return Ok(false);
        }
        let there = nftables::exists(&mut self.netfilter)?;
        if !there {
            self.kernel = None;
        }
        Ok(there)
    }

    /// Bounds batches below what the socket allows, to see in a test what happens where that is little.
    #[doc(hidden)]
    pub fn limit_batches(&mut self, bytes: usize) {
        self.netfilter.lower_limit(bytes);
    }

    /// Removes table and route: for a throw-away cluster. A proxy that stops normally leaves both, so that services go on.
    pub fn remove(mut self) -> Result<(), ProxyError> {
        nftables::remove(&mut self.netfilter)?;
        route::remove(&mut self.routes, self.options.service_cidr)
    }

    /// Sends the difference to what the kernel holds, or everything where that is not known or no longer true.
    fn put_in_force(&mut self, wanted: &RuleSet) -> Result<Delta, ProxyError> {
        if let Some(held) = self.kernel.take() {
            let delta = diff(&held, wanted);
            if delta.is_empty() {
                self.kernel = Some(held);
                return Ok(delta);
            }
            match nftables::change(&mut self.netfilter, &delta) {
                Ok(()) => {
                    self.kernel = Some(delta.next.clone());
                    return Ok(delta);
                }
                Err(error) => tracing::warn!(%error, "the table of services is not as it was left; writing all of it"),
            }
        }
        let mut all = diff(&RuleSet::default(), wanted);
        // Nobody knows what was there before.
        all.left.clone_from(&all.changed);
        let ranges = Ranges { pods: self.options.pod_cidr, services: self.options.service_cidr };
        nftables::replace(&mut self.netfilter, ranges, &all)?;
        self.kernel = Some(all.next.clone());
        Ok(all)
    }

    /// Takes care of flows to backends that left. Returns how many UDP flows were forgotten.
    fn see_off(&mut self, delta: &Delta) -> Result<usize, ProxyError> {
        let forgotten = conntrack::forget(&mut self.netfilter, &delta.present(Protocol::Udp))?;
        let unanswered = conntrack::settle(&mut self.netfilter, &delta.present(Protocol::Tcp))?;
        if unanswered > 0 {
            tracing::debug!(unanswered, "connections to former backends got no answer");
        }
        Ok(forgotten)
    }

    fn report(&mut self, wanted: &RuleSet) {
        for (what, why) in wanted.refused.difference(&self.reported) {
            tracing::warn!(service = %what, reason = %why, "not programmed");
        }
        self.reported.clone_from(&wanted.refused);
    }
}
