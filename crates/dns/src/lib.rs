//! The names: of services and their pods.
//!
//! [`Records`](records::Records) is what is known of Services and EndpointSlices, and [`answer`](answer::answer) what the
//! DNS says of a name by it (both pure). [`follow`](follow::follow) keeps the records true to a cluster, and
//! [`Server`](server::Server) answers the pods of its own node over UDP and TCP. Names that are not the cluster's are asked
//! of the node's own name servers.
//!
//! Which names there are is upstream's "Kubernetes DNS-Based Service Discovery" (`kubernetes/dns`,
//! `docs/specification.md`), version 1.1.0; where it leaves something open, this does as CoreDNS (`plugin/kubernetes`).

pub mod answer;
pub mod follow;
pub mod records;
pub mod server;

mod elsewhere;
mod message;
