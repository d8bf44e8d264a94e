//! The dream: a whole cluster on one thread from one seed.
//!
//! The turn and the door of `server`, the decisions of `controllers` and `scheduler`, and the planning of `agent` run as
//! they do in production, over the real `store` in a folder that lies in memory; the network, containers, people and time
//! are simulated, and what a crash does to the folder. A seed is a run: it opens no socket and reads no clock.
//!
//! - [`cluster`]: events, time, crashes; [`disk`]: the store, torn and damaged files; [`node`]: agents; [`people`]: what is asked for; [`faults`]: what breaks.
//! - [`behind`]: decisions on what was some seconds ago.
//! - [`exhaustive`]: every interleaving of small rollouts.
//! - [`refusing`]: pods that are not let in.
//! - [`volumes`]: what people and agents do about claims and volumes.
//! - [`scenario`]: commands and what they print.
//! - [`zoo`]: known bugs put back, to see that the invariants bite.
//! - [`invariants`]: what must hold after every change; [`healing`]: what must be so once faults have stopped.

pub mod behind;
pub mod cluster;
pub mod disk;
pub mod exhaustive;
pub mod facts;
pub mod faults;
pub mod healing;
pub mod invariants;
pub mod letters;
pub mod node;
pub mod people;
pub mod refusing;
pub mod scenario;
pub mod trace;
pub mod volumes;
pub mod zoo;

use std::sync::Arc;

use k8s_openapi::api::core::v1::PodTemplateSpec;

use behind::Behind;
pub use cluster::{Ending, Settings, run};

/// Runs a seed as things are.
pub fn dream(seed: u64, trace: bool) -> Ending {
    run(Settings::of(seed, trace))
}

/// Runs a seed with controllers that are some seconds behind.
pub fn dream_behind(seed: u64, trace: bool) -> Ending {
    run(Settings { minds: Arc::new(Behind::new(seed, true)), behind: true, ..Settings::of(seed, trace) })
}

/// The template of an old set as `rollout undo` gives it back.
pub fn without_hash(mut template: PodTemplateSpec) -> PodTemplateSpec {
    if let Some(labels) = template.metadata.as_mut().and_then(|meta| meta.labels.as_mut()) {
        labels.remove(facts::HASH);
    }
    template
}
