//! What must hold, one function each, named after the list of promises (I1, I2, …) they come from.
//!
//! [`Witness`] follows the committed changes one by one on a snapshot of its own and asks every function after every
//! single change, not only at the end of a turn: counts are over objects at that revision, never over what a controller
//! last saw. What a user or a fault did is told by [`Moment::asked`] and is nobody's breach.
//!
//! Places for kinds to come: DaemonSet (I4), StatefulSet (I3), Job and CronJob, PodDisruptionBudget (I13): add a
//! function below and its row in `AFTER_EVERY_CHANGE`.

mod deployments;
mod endpoints;
mod owners;
mod placement;
mod revisions;

use std::collections::BTreeSet;

use api::{Change, Key, Snapshot};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Pod;

/// One change among all that was and is.
pub struct Moment<'a> {
    /// The world before the turn.
    pub start: &'a Snapshot,
    /// The world before the change.
    pub before: &'a Snapshot,
    /// The world after it.
    pub after: &'a Snapshot,
    /// The change.
    pub change: &'a Change,
    /// The time of the turn.
    pub now: Timestamp,
    /// Objects that clients wrote in this turn.
    pub asked: &'a BTreeSet<Key>,
}

impl Moment<'_> {
    /// True if a client, not a decision, may have made the change.
    pub fn is_asked(&self) -> bool {
        self.asked.contains(&self.change.object().key())
    }

    /// Both sides as pods.
    pub fn pod(&self) -> (Option<&Pod>, Option<&Pod>) {
        (self.change.before.as_ref().and_then(|it| it.get()), self.change.after.as_ref().and_then(|it| it.get()))
    }

    /// Both sides as ReplicaSets.
    pub fn set(&self) -> (Option<&ReplicaSet>, Option<&ReplicaSet>) {
        (self.change.before.as_ref().and_then(|it| it.get()), self.change.after.as_ref().and_then(|it| it.get()))
    }

    /// Both sides as Deployments.
    pub fn deployment(&self) -> (Option<&Deployment>, Option<&Deployment>) {
        (self.change.before.as_ref().and_then(|it| it.get()), self.change.after.as_ref().and_then(|it| it.get()))
    }
}

/// What is told of a breach.
pub type Verdict = Result<(), String>;

pub use endpoints::told_ready;

type Check = fn(&Moment) -> Verdict;
/// Judges a world as it is.
pub type WorldCheck = fn(&Snapshot) -> Verdict;

/// Every invariant that is asked after every change.
const AFTER_EVERY_CHANGE: &[(&str, Check)] = &[
    ("I1 availability", deployments::availability_is_kept),
    ("I2 surge", deployments::surge_is_kept),
    ("I2 recreate", deployments::recreate_never_overlaps),
    ("I5 one controller", owners::one_controller),
    ("I5 adoption", owners::adopts_only_what_fits),
    ("I5 needless end", owners::ends_only_what_is_too_much),
    ("I6 garbage", owners::collects_only_garbage),
    ("I6 orphans", owners::lets_orphans_go),
    ("I6 foreground", owners::waits_for_dependents),
    ("I7 one set per template", deployments::one_set_per_template),
    ("I8 as the template says", deployments::pods_are_as_their_template),
    ("I9 no pod too many", deployments::no_pod_too_many),
    ("I10 revision grows", deployments::revisions_grow),
    ("I10 history", deployments::history_is_kept),
    ("I11 paused", deployments::paused_means_paused),
    ("I12 set status", deployments::set_status_is_true),
    ("I12 done", deployments::done_is_true),
    ("I12 deadline", deployments::deadline_has_passed),
    ("I14 placement", placement::fits_where_it_is_put),
    ("I14 bind is final", placement::bind_is_final),
    ("I16 revisions", revisions::grow_by_one),
    ("I17 order", revisions::follow_each_other),
    ("I24 no empty write", revisions::change_something),
];

/// Every invariant that is asked when a turn has nothing left to decide.
const AT_REST: &[(&str, WorldCheck)] = &[("I20 endpoints", endpoints::are_true)];

/// A broken invariant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Breach {
    /// Which one.
    pub invariant: String,
    /// What was seen.
    pub message: String,
}

impl std::fmt::Display for Breach {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.invariant, self.message)
    }
}

impl Breach {
    /// A breach of `invariant`.
    pub fn new(invariant: &str, message: impl Into<String>) -> Breach {
        Breach { invariant: invariant.to_owned(), message: message.into() }
    }
}

/// Follows what is committed.
#[derive(Clone)]
pub struct Witness {
    world: Snapshot,
}

impl Witness {
    /// Begins at `world`.
    pub fn new(world: Snapshot) -> Witness {
        Witness { world }
    }

    /// Judges a committed turn. `rests` is true if nothing is left to decide.
    pub fn see(
        &mut self,
        changes: &[Change],
        now: Timestamp,
        asked: &BTreeSet<Key>,
        rests: bool,
    ) -> Result<(), Breach> {
        let start = self.world.clone();
        for change in changes {
            let before = self.world.clone();
            match &change.after {
                Some(object) => drop(self.world.put(object.clone())),
                None => drop(self.world.remove(&change.object().key(), change.revision)),
            }
            let moment = Moment { start: &start, before: &before, after: &self.world, change, now, asked };
            for (name, check) in AFTER_EVERY_CHANGE {
                check(&moment).map_err(|message| {
                    let about = format!("r{} {}: {message}", change.revision, change.object().key());
                    Breach::new(name, about)
                })?;
            }
        }
        if rests && !changes.is_empty() {
            for (name, check) in AT_REST {
                check(&self.world).map_err(|message| Breach::new(name, message))?;
            }
        }
        Ok(())
    }

    /// The world as it follows from the changes alone.
    pub fn world(&self) -> &Snapshot {
        &self.world
    }
}
