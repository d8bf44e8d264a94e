//! `uncordon`.

pub use super::node::{CordonOptions as Options, uncordon as run};
