//! The roads: service addresses to pods.
//!
//! [`rules`](rules::rules) decides, from Services and EndpointSlices, where packets go (pure). [`delta`] finds what changed
//! (pure). [`Proxy`] writes that into the kernel's nf_tables in one atomic batch, over netlink, without any other program.
//! [`run`](follow::run) follows a cluster and acknowledges what is in force, so that a pod can be told to stop only when no
//! node sends it new connections any more.
//!
//! Established connections are never touched: the kernel remembers each one's backend. It never proxies a byte in user space.
//!
//! # What a node's network has to be like
//! - A pod's packets to a service must enter the node's own network stack *and so must the answers*: give a pod its address
//!   as a /32 with the node as its gateway for everything. With an on-link subnet the answer of a pod on the same bridge goes
//!   straight to the client, which knows nothing of it; that only works with the module `br_netfilter` and
//!   `bridge-nf-call-iptables=1`.
//! - Ports of the bridge have hairpin mode on, which a pod that reaches itself needs where `br_netfilter` is on.
//! - `net.ipv4.ip_forward=1`.
//!
//! The route by which the node's own processes reach services is made here ([`Proxy::open`]).

pub mod delta;
pub mod follow;
pub mod health;
pub mod rules;

mod conntrack;
mod error;
mod netlink;
mod nftables;
mod proxy;
mod route;

pub use error::ProxyError;
pub use proxy::{Applied, Options, Proxy};
