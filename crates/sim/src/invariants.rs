//! What must hold, one function each, named after the list of promises (I1, I2, …) they come from.
//!
//! [`Witness`] follows the committed changes one by one on a snapshot of its own and asks every function after every
//! single change, not only at the end of a turn: counts are over objects at that revision, never over what a controller
//! last saw. What a user or a fault did is told by [`Moment::asked`] and is nobody's breach.
//!
//! A kind to come adds its functions and their rows in `AFTER_EVERY_CHANGE`.

pub mod autoscalers;
mod budgets;
pub mod daemon_sets;
mod deployments;
mod endpoints;
pub mod histories;
pub mod jobs;
mod namespaces;
mod owners;
mod placement;
mod quotas;
pub mod replication_controllers;
mod revisions;
mod rollouts;
pub mod stateful_sets;
mod tally;
mod volumes;

use std::collections::BTreeMap;
use std::sync::Arc;

use api::{Change, Kind, Object, Pod, Snapshot, Usage};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use server::commit::Turn;

/// One change among all that was and is.
pub struct Moment<'a> {
    /// The world before the turn.
    pub start: &'a Snapshot,
    /// The world before the change.
    pub before: &'a Snapshot,
    /// The world after it.
    pub after: &'a Snapshot,
    /// The worlds of the turn so far, from its start to before the change.
    pub worlds: &'a [Snapshot],
    /// The change.
    pub change: &'a Change,
    /// The object in `before`. A change that takes an object away shows its last state, not this one.
    pub was: Option<&'a Arc<Object>>,
    /// The time of the turn.
    pub now: Timestamp,
    /// True if a request made it, not a decision.
    pub asked: bool,
    /// What decisions of the turn knew of what pods use.
    pub usage: &'a Usage,
    /// What is remembered of what came before it.
    pub tally: &'a Tally,
}

impl Moment<'_> {
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
use tally::Tally;

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
    ("I7 one revision per template", histories::one_revision_per_template),
    ("I10 numbers grow", histories::numbers_grow),
    ("I10 revisions are kept", histories::history_is_kept),
    ("I9 from behind", deployments::no_pod_too_many_from_behind),
    ("I9 ReplicationController", replication_controllers::no_pod_too_many),
    ("I9 one way", deployments::rolls_one_way),
    ("I28 writes a rollout", rollouts::writes_are_bounded),
    ("I9 pods a rollout", rollouts::makes_no_more_than_needed),
    ("I12 ReplicationController", replication_controllers::status_is_true),
    ("I5 ReplicationController", replication_controllers::ends_only_what_is_too_much),
    ("I4 one daemon pod a node", daemon_sets::one_pod_a_node),
    ("I8 daemon pods", daemon_sets::pods_are_as_their_template),
    ("I1 DaemonSet", daemon_sets::availability_is_kept),
    ("I5 DaemonSet", daemon_sets::ends_only_what_is_too_much),
    ("I12 DaemonSet", daemon_sets::status_is_true),
    ("I3 made in order", stateful_sets::made_in_order),
    ("I3 ended in order", stateful_sets::ended_in_order),
    ("I8 StatefulSet", stateful_sets::pods_are_as_their_template),
    ("I1 StatefulSet", stateful_sets::availability_is_kept),
    ("I11 StatefulSet", stateful_sets::updates_from_the_last),
    ("I12 StatefulSet", stateful_sets::status_is_true),
    ("Job: no more than it may", jobs::runs_no_more_than_it_may),
    ("I8 Job", jobs::pods_are_as_their_template),
    ("Job: counts once", jobs::counts_each_pod_once),
    ("I12 Job", jobs::complete_is_true),
    ("Job: ends one way", jobs::ends_one_way),
    ("CronJob: when due", jobs::starts_when_due),
    ("CronJob: needless end", jobs::ends_only_finished_jobs),
    ("I6 namespace goes empty", namespaces::goes_empty),
    ("I6 pods go first", namespaces::pods_go_first),
    ("I13 eviction", budgets::evictions_keep_budgets),
    ("Quota", quotas::nothing_beyond),
    ("Autoscaler: bounds", autoscalers::bounds_are_kept),
    ("Autoscaler: work", autoscalers::scales_up_for_work_only),
    ("Autoscaler: behaviour", autoscalers::behaviour_is_respected),
    ("I14 placement", placement::fits_where_it_is_put),
    ("I14 bind is final", placement::bind_is_final),
    ("I14 volumes", volumes::pods_are_where_their_volumes_are),
    ("claims: one to one", volumes::one_to_one),
    ("claims: in use", volumes::used_claims_stay),
    ("claims: kept", volumes::kept_claims_stay),
    ("claims: policy", volumes::owners_follow_the_policy),
    ("I16 revisions", revisions::grow_by_one),
    ("I17 order", revisions::follow_each_other),
    ("I24 no empty write", revisions::change_something),
];

/// Every invariant that is asked when a turn has nothing left to decide, with the kinds whose changes it is asked after.
const AT_REST: &[(&str, &[Kind], WorldCheck)] = &[
    ("I20 endpoints", &[Kind::Pod, Kind::Service, Kind::EndpointSlice, Kind::Namespace], endpoints::are_true),
    ("I5 taken out", &[Kind::Pod], owners::taken_out_are_let_go),
    (
        "I13 budget status",
        &[
            Kind::Pod,
            Kind::PodDisruptionBudget,
            Kind::Deployment,
            Kind::ReplicaSet,
            Kind::StatefulSet,
            Kind::ReplicationController,
        ],
        budgets::are_true,
    ),
];

/// When nothing is left to decide.
pub struct Rest {
    /// The server's clock.
    now: Timestamp,
    /// The latest time that it has shown.
    latest: Timestamp,
    /// True if somebody who was refused may still wait before the next attempt.
    pauses: bool,
}

/// Judges a world at rest.
type RestCheck = fn(&Snapshot, &Rest) -> Verdict;

/// Most seconds between two attempts of who is refused (`server::turn`), and some for what is under way.
const LONGEST_PAUSE: i64 = 70;

/// Seconds for which these may be broken: a pod that was lost and is back in the same turn is told of in the next second.
const MOMENT: i64 = 2;

/// Every invariant that is asked of a turn that has come to rest, whatever it changed: time alone changes what is so.
const AS_TIME_GOES_BY: &[(&str, RestCheck)] = &[
    ("I12 at rest", deployments::statuses_are_true),
    ("I12 ReplicationController at rest", replication_controllers::statuses_are_true),
    ("I24 daemon pods", daemon_sets::every_node_has_one),
    ("CronJob: on time", jobs::are_on_time),
    ("Quota: status", |world, rest| quotas::are_true(world, rest.now)),
];

/// Asked when a turn that changed a quota has come to rest, and nothing else is in the way of new pods.
const NOBODY_WAITS: &str = "Quota: nobody waits";

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

/// How a turn was taken.
pub struct Taken {
    /// Its time.
    pub now: Timestamp,
    /// True if nothing is left to decide.
    pub rests: bool,
    /// True while new pods are refused.
    pub refuses: bool,
    /// What its decisions knew of what pods use.
    pub usage: Usage,
}

/// Follows what is committed.
#[derive(Clone)]
pub struct Witness {
    world: Snapshot,
    tally: Tally,
    /// What was seen to be broken by the invariants of `AS_TIME_GOES_BY`, and since when.
    doubts: BTreeMap<&'static str, (String, Timestamp)>,
    /// When new pods were refused last.
    refused: Option<Timestamp>,
    /// Names of the invariants that are asked; all, if none is named.
    only: &'static [&'static str],
}

impl Witness {
    /// Begins at `world`, to ask only the invariants named, or all if none is.
    pub fn new(world: Snapshot, only: &'static [&'static str]) -> Witness {
        Witness { world, tally: Tally::default(), doubts: BTreeMap::new(), refused: None, only }
    }

    /// Judges a committed turn.
    pub fn see(&mut self, turn: &Turn, at: &Taken) -> Result<(), Breach> {
        let Taken { now, rests, .. } = *at;
        let start = self.world.clone();
        let mut worlds = Vec::with_capacity(turn.changes.len());
        for (number, change) in turn.changes.iter().enumerate() {
            worlds.push(self.world.clone());
            let (before, key) = (&worlds[number], change.object().key());
            match &change.after {
                Some(object) => drop(self.world.put(object.clone())),
                None => drop(self.world.remove(&key, change.revision)),
            }
            let moment = Moment {
                worlds: &worlds,
                start: &start,
                before,
                after: &self.world,
                change,
                was: before.at(&key),
                now,
                asked: number < turn.asked,
                usage: &at.usage,
                tally: &self.tally,
            };
            for (name, check) in AFTER_EVERY_CHANGE.iter().filter(|(name, _)| self.asks(name)) {
                check(&moment).map_err(|message| {
                    let about = format!("r{} {}: {message}", change.revision, change.object().key());
                    Breach::new(name, about)
                })?;
            }
            let (scaled, step) = (autoscalers::noted(&moment), rollouts::noted(&moment));
            let effort = rollouts::effort(&moment);
            self.tally.note(change, now, scaled);
            self.tally.note_step(step);
            self.tally.note_effort(effort);
        }
        for (name, kinds, check) in AT_REST.iter().filter(|(name, ..)| rests && self.asks(name)) {
            if turn.changes.iter().any(|change| kinds.contains(&change.kind())) {
                check(&self.world).map_err(|message| Breach::new(name, message))?;
            }
        }
        if at.refuses {
            self.refused = Some(self.tally.latest().max(now));
        }
        if rests {
            self.see_time_go_by(now)?;
        }
        // Room that comes free in the same turn is found at the next attempt, within a minute.
        let frees = turn.changes.iter().any(|change| quotas::is_less(change, now));
        let quotas = turn.changes[..turn.asked].iter().filter(|change| change.kind() == Kind::ResourceQuota);
        for quota in quotas.filter(|_| rests && !frees && !at.refuses && self.asks(NOBODY_WAITS)) {
            quotas::nobody_waits(quota.object().namespace(), &self.world, now)
                .map_err(|message| Breach::new(NOBODY_WAITS, message))?;
        }
        Ok(())
    }

    fn see_time_go_by(&mut self, now: Timestamp) -> Result<(), Breach> {
        let latest = self.tally.latest().max(now);
        let pauses = self.refused.is_some_and(|at| latest.duration_since(at).as_secs() < LONGEST_PAUSE);
        let rest = Rest { now, latest, pauses };
        for (name, check) in AS_TIME_GOES_BY.iter().filter(|(name, _)| self.only.is_empty() || self.only.contains(name))
        {
            let Err(message) = check(&self.world, &rest) else {
                self.doubts.remove(name);
                continue;
            };
            match self.doubts.get(name).filter(|(doubt, _)| *doubt == message) {
                Some((_, since)) if latest.duration_since(*since).as_secs() > MOMENT => {
                    return Err(Breach::new(name, message));
                }
                Some(_) => {}
                None => drop(self.doubts.insert(name, (message, latest))),
            }
        }
        Ok(())
    }

    fn asks(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.contains(&name)
    }

    /// The world as it follows from the changes alone.
    pub fn world(&self) -> &Snapshot {
        &self.world
    }
}
