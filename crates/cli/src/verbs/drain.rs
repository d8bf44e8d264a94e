//! `drain`.

pub use super::node::{DrainOptions as Options, drain as run};
