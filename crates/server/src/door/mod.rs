//! The door: every write, a client's or a decision's, passes here and becomes the object that is to be stored.
//!
//! Nothing in this folder stores, waits or asks the network: a call gets the working snapshot and gives back what the
//! turn has to do. The order of steps is upstream's (`registry/generic/registry/store.go`): identity and preconditions,
//! preparation, defaults, admission, validation.

mod admission;
mod create;
mod delete;
mod evict;
mod limit_range;
mod patch;
mod quota;
mod requested;
mod scale;
mod service;
mod service_account;
mod storage;
mod update;

use api::{Body, Key, Refusal, Snapshot};
use jiff::Timestamp;
use rand::Rng;

use crate::minds::Minds;
pub use admission::DEFAULT_CLASS;

pub use delete::{DeleteOptions, delete};
pub use evict::evict;
pub use patch::Patch;
pub use quota::check as within_quota;
pub use requested::Requester;
pub use scale::scale_of;

/// What a call at the door may know.
pub struct Call<'a> {
    /// The state the write is made on.
    pub world: &'a Snapshot,
    /// Time of the turn, whole seconds.
    pub now: Timestamp,
    /// Source of uids and name suffixes.
    pub ids: &'a mut Ids,
    /// Who asks; nobody when a decision writes.
    pub requester: Option<&'a Requester>,
    /// Whom quotas are asked of.
    pub minds: &'a dyn Minds,
}

/// Which part of an object a write may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Everything but the status.
    Main,
    /// The status only.
    Status,
    /// `spec.replicas`, shown as a `Scale`.
    Scale,
    /// The finalizers of a namespace.
    Finalize,
}

/// What the turn has to do.
#[derive(Debug)]
pub enum Outcome {
    /// Store this.
    Write(Body),
    /// Take the object out; the body is its last state.
    Remove(Body),
    /// It is as asked already: store nothing.
    Unchanged,
}

/// Uids and random name suffixes.
#[derive(Clone)]
pub struct Ids {
    random: rand::rngs::StdRng,
}

/// Letters of generated names: no vowels, so no words (upstream: `apimachinery/pkg/util/rand`).
const SUFFIX_LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
/// Letters in a generated suffix.
const SUFFIX_LENGTH: usize = 5;
/// Longest name that `generateName` may produce, before the suffix (upstream: `names.maxGeneratedNameLength`).
const GENERATED_BASE_LENGTH: usize = 63 - SUFFIX_LENGTH;

impl Ids {
    /// The same ids in the same order for the same seed.
    pub fn from_seed(seed: u64) -> Ids {
        Ids { random: <rand::rngs::StdRng as rand::SeedableRng>::seed_from_u64(seed) }
    }

    /// Seeded from the operating system.
    pub fn from_os() -> Ids {
        Ids { random: <rand::rngs::StdRng as rand::SeedableRng>::from_os_rng() }
    }

    /// A random (version 4) uid.
    pub fn uid(&mut self) -> String {
        let mut bytes: [u8; 16] = self.random.random();
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        let hex = hex::encode(bytes);
        format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
    }

    /// `base` with a random suffix.
    pub fn generated_name(&mut self, base: &str) -> String {
        let mut name: String = base.chars().take(GENERATED_BASE_LENGTH).collect();
        for _ in 0..SUFFIX_LENGTH {
            name.push(SUFFIX_LETTERS[self.random.random_range(0..SUFFIX_LETTERS.len())] as char);
        }
        name
    }
}

impl Call<'_> {
    /// Makes an object of `draft` in `namespace` (empty for cluster-wide kinds).
    pub fn create(&mut self, namespace: &str, draft: Body) -> Result<Body, Refusal> {
        create::create(self, namespace, draft)
    }

    /// Replaces `part` of the object at `key` by what `new` says.
    pub fn update(&mut self, key: &Key, part: Part, new: Body) -> Result<Outcome, Refusal> {
        let current = self.world.at(key).ok_or_else(|| Refusal::not_found(key.kind, &key.name))?;
        update::update(self, &current.body, part, new)
    }

    /// Sets `spec.replicas` as a `Scale` body asks.
    pub fn update_scale(&mut self, key: &Key, scale: &serde_json::Value) -> Result<Outcome, Refusal> {
        scale::update(self, key, scale)
    }

    /// Applies a patch to `part` of the object at `key`; gives also what its sender should be warned of.
    pub fn patch(&mut self, key: &Key, part: Part, patch: &Patch) -> Result<(Outcome, Vec<String>), Refusal> {
        patch::patch(self, key, part, patch)
    }

    /// Puts the pod at `key` on a node.
    pub fn bind(&mut self, key: &Key, uid: &str, node: &str) -> Result<Outcome, Refusal> {
        update::bind(self, key, uid, node)
    }
}
