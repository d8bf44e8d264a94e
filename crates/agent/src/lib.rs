//! The hands: runs pods on a node.

pub mod images;
pub mod network;
pub mod runtime;
pub mod shim;
