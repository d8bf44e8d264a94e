//! The nouns: kinds, objects, snapshots, plans, and the rules every object obeys.
//!
//! Pure: nothing here does IO, reads a clock or draws a random number. No other room is known here.

pub mod account;
pub mod acknowledgement;
pub mod defaults;
pub mod endpoint_fingerprint;
pub mod heard;
pub mod int_or_string;
pub mod kinds;
pub mod limits;
pub mod metric;
pub mod names;
pub mod node_fit;
pub mod node_load;
pub mod object;
pub mod patch;
pub mod plan;
pub mod pod;
pub mod pod_facts;
pub mod pod_resources;
pub mod prepare;
pub mod quantity;
pub mod quota;
pub mod schedule;
pub mod schema;
pub mod selector;
pub mod snapshot;
pub mod status;
pub mod template_hash;
pub mod usage;
pub mod validate;
pub mod versions;
pub mod volumes;

pub use heard::Heard;
pub use kinds::{Body, Kind, Typed};
pub use object::{Change, Key, Object};
pub use plan::{Context, EventNote, EventType, Plan, Propagation, Write};
pub use pod::{Pod, PodSpecs, SharedSpec};
pub use snapshot::{Member, Snapshot};
pub use status::{Cause, Refusal};
pub use usage::Usage;
