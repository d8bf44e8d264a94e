//! The placement: which node a pod goes to, and why not.
