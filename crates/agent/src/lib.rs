//! The hands: runs pods on a node.

pub mod claims;
pub mod clock;
pub mod drained;
pub mod environment;
pub mod events;
#[cfg(test)]
mod fake_api;
pub mod folders;
pub mod images;
pub mod lazy_pod;
pub mod logs;
pub mod network;
pub mod node;
pub mod plan;
pub mod pod_on_node;
pub mod pod_worker;
pub mod probe_io;
pub mod probes;
pub mod registration;
pub mod report;
pub mod resolv_conf;
pub mod resources;
pub mod runtime;
pub mod shim;
pub mod simulated_nodes;
pub mod sockets;
pub mod specs;
pub mod status;
#[cfg(test)]
mod story;
pub mod usage;
pub mod volumes;
pub mod written;
