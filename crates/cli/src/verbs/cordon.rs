//! `cordon`.

pub use super::node::{CordonOptions as Options, cordon as run};
