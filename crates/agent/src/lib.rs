//! The hands: runs pods on a node.
