//! How the proxy of a node acknowledges what it has applied: the word between `proxy`, which gives it, and `agent`, which waits
//! for it before it stops a pod.
//!
//! A Lease of the proxy's own says in [`APPLIED_REVISION`] up to which revision *every* change of EndpointSlices is in the node's
//! kernel. Whoever waits for revision R of a slice (also of a deleted one) compares with `>=`.

use std::time::Duration;

/// The Lease's annotation: the highest revision up to which all changes of EndpointSlices are in the kernel.
pub const APPLIED_REVISION: &str = "kapstan.dev/applied-revision";
/// Namespace of these Leases: that of the nodes' own.
pub const NAMESPACE: &str = crate::heard::NODE_LEASES;
/// For how long a renewed Lease says that its proxy lives; one that was not renewed for as long is dead.
pub const ALIVE: Duration = Duration::from_secs(40);

/// Names of the Leases begin so; the node's name follows.
const PREFIX: &str = "kapstan-proxy-";

/// The name of a node's acknowledging Lease.
pub fn lease_name(node: &str) -> String {
    format!("{PREFIX}{node}")
}

/// The node whose acknowledging Lease has this name; `None` for another Lease.
pub fn node_of(lease: &str) -> Option<&str> {
    lease.strip_prefix(PREFIX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_there_and_back() {
        assert_eq!(node_of(&lease_name("far-0")), Some("far-0"));
        assert_eq!(node_of("far-0"), None);
    }
}
