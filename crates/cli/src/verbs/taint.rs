//! `taint`.

pub use super::node::{TaintOptions as Options, taint as run};
