//! The ReplicaSets of a Deployment while a decision works on them: as they are, as they are to be, and what is true of
//! their pods at this moment.

use std::borrow::Cow;
use std::cell::OnceCell;

use api::selector::Selector;
use api::{Member, Snapshot, Typed, Write};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, ReplicaSetSpec, ReplicaSetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::terms::Terms;
use crate::kin::Kin;
use crate::specs;

/// Replicas of the Deployment when the set was last sized: tells scaling from rolling.
pub const DESIRED_REPLICAS: &str = "deployment.kubernetes.io/desired-replicas";
/// `replicas + maxSurge` when the set was last sized: the base of proportions.
pub const MAX_REPLICAS: &str = "deployment.kubernetes.io/max-replicas";

/// A ReplicaSet being worked on.
pub struct Set<'a> {
    /// As it is stored; `None` if it is to be made.
    before: Option<&'a ReplicaSet>,
    /// As it is to be.
    after: Cow<'a, ReplicaSet>,
    world: &'a Snapshot,
    now: Timestamp,
    census: OnceCell<Census>,
}

/// The pods of a set, counted.
#[derive(Clone, Copy, Debug, Default)]
struct Census {
    /// Those that count as replicas.
    active: i32,
    /// Those of them that are available.
    available: i32,
    /// Those that may still run, terminating ones included.
    alive: i32,
}

/// The sets that the Deployment manages, oldest first.
pub fn owned<'a>(deployment: &Deployment, selector: &Selector, world: &'a Snapshot, now: Timestamp) -> Vec<Set<'a>> {
    let uid = deployment.metadata.uid.as_deref().unwrap_or("");
    let mut sets: Vec<Set> = world
        .controlled_by::<ReplicaSet>(uid)
        .filter(|set| set.metadata.namespace == deployment.metadata.namespace)
        .filter(|set| selector.matches(set.metadata.labels.as_ref()))
        .map(|set| Set::stored(set, world, now))
        .collect();
    sets.sort_by(|one, other| one.age_order().cmp(&other.age_order()));
    sets
}

impl<'a> Set<'a> {
    fn stored(set: &'a ReplicaSet, world: &'a Snapshot, now: Timestamp) -> Set<'a> {
        Set { before: Some(set), after: Cow::Borrowed(set), world, now, census: OnceCell::new() }
    }

    /// A set that is to be made.
    pub fn planned(set: ReplicaSet, world: &'a Snapshot, now: Timestamp) -> Set<'a> {
        Set { before: None, after: Cow::Owned(set), world, now, census: OnceCell::from(Census::default()) }
    }

    /// True if the set is still to be made.
    pub fn is_planned(&self) -> bool {
        self.before.is_none()
    }

    /// The set as it is to be.
    pub fn body(&self) -> &ReplicaSet {
        &self.after
    }

    /// The spec as it is to be, to be changed. Call only to make a change: it copies the stored set.
    pub fn spec_mut(&mut self) -> &mut ReplicaSetSpec {
        self.after.to_mut().spec.get_or_insert_default()
    }

    /// Name of the set.
    pub fn name(&self) -> &str {
        self.after.metadata.name.as_deref().unwrap_or("")
    }

    /// Orders sets from old to young.
    pub fn age_order(&self) -> (Option<&Time>, &str) {
        (self.after.metadata.creation_timestamp.as_ref(), self.name())
    }

    /// What the ReplicaSet controller last reported.
    pub fn status(&self) -> ReplicaSetStatus {
        self.after.status.clone().unwrap_or_default()
    }

    /// True once the ReplicaSet controller has seen the stored set, and this decision does not change it.
    pub fn is_observed(&self) -> bool {
        let observed = self.after.status.as_ref().and_then(|status| status.observed_generation);
        matches!(self.after, Cow::Borrowed(_)) && observed >= self.after.metadata.generation
    }

    /// Pods it is to have.
    pub fn replicas(&self) -> i32 {
        specs::of_set(&self.after).replicas.unwrap_or(1)
    }

    /// True if it has, or ought to have, pods.
    pub fn is_active(&self) -> bool {
        self.replicas() > 0
    }

    /// Available pods that are left once it has no more than [`Set::replicas`]: others are ended first.
    pub fn available(&self) -> i32 {
        self.available_pods().min(self.replicas())
    }

    /// Its available pods.
    pub fn available_pods(&self) -> i32 {
        self.census().available
    }

    /// True while a set that stays tells of available pods that it has no more.
    pub fn tells_too_much(&self) -> bool {
        let told = self.status().available_replicas.unwrap_or(0);
        self.after.metadata.deletion_timestamp.is_none() && self.available_pods() < told
    }

    /// Pods that are there or may be made any moment, those that are terminating aside.
    pub fn occupied(&self) -> i32 {
        self.census().active.max(self.replicas())
    }

    /// Pods whose containers may still run.
    pub fn alive(&self) -> i32 {
        self.census().alive
    }

    /// Its pods.
    pub fn members(&self) -> impl Iterator<Item = Member<'a>> + use<'a> {
        let uid = self.before.and_then(|set| set.metadata.uid.as_deref()).unwrap_or("");
        let known = !uid.is_empty();
        self.world.members(uid).filter(move |_| known)
    }

    fn census(&self) -> &Census {
        self.census.get_or_init(|| {
            let wait = specs::of_set(&self.after).min_ready_seconds.unwrap_or(0);
            let mut census = Census::default();
            // Nobody may count on a set that is being deleted, nor on a pod that was taken out of it by its labels.
            let selector = Selector::from_label_selector(Some(&specs::of_set(&self.after).selector));
            let selector = selector.unwrap_or_else(|_| Selector::nothing());
            let stays = self.after.metadata.deletion_timestamp.is_none();
            let mut counts = Kin::of(&selector, self.after.metadata.namespace.as_deref());
            for member in self.members().filter(|member| !member.has_ended()) {
                census.alive += 1;
                if member.is_active() {
                    census.active += 1;
                    let available = stays && member.is_available(wait, self.now) && counts.fits(&member);
                    census.available += i32::from(available);
                }
            }
            census
        })
    }

    /// An annotation that holds a number which is not negative.
    pub fn number(&self, annotation: &str) -> Option<i32> {
        self.annotation(annotation)?.parse().ok().filter(|number| *number >= 0)
    }

    /// An annotation.
    pub fn annotation(&self, name: &str) -> Option<&str> {
        self.after.metadata.annotations.as_ref()?.get(name).map(String::as_str)
    }

    /// Sets an annotation; true if that changed something.
    pub fn annotate(&mut self, name: &str, value: impl Into<String>) -> bool {
        let value = value.into();
        let differs = self.annotation(name) != Some(&value);
        if differs {
            self.after.to_mut().metadata.annotations.get_or_insert_default().insert(name.to_owned(), value);
        }
        differs
    }

    /// Takes an annotation away.
    pub fn forget(&mut self, name: &str) {
        if self.annotation(name).is_some() {
            self.after.to_mut().metadata.annotations.get_or_insert_default().remove(name);
        }
    }

    /// Gives it a size, if that is another one.
    pub fn resize(&mut self, replicas: i32, terms: &Terms) {
        if self.replicas() != replicas {
            self.spec_mut().replicas = Some(replicas);
            self.stamp(terms);
        }
    }

    /// Notes for what size of the Deployment it was sized.
    pub fn stamp(&mut self, terms: &Terms) {
        self.annotate(DESIRED_REPLICAS, terms.replicas.to_string());
        self.annotate(MAX_REPLICAS, terms.max_pods().to_string());
    }

    /// True if it is to get smaller.
    pub fn shrinks(&self) -> bool {
        self.replicas() < self.replicas_before()
    }

    /// The write that brings it about, if anything is to change.
    pub fn write(&self) -> Option<Write> {
        match (self.before, &self.after) {
            (_, Cow::Borrowed(_)) => None,
            (None, Cow::Owned(set)) => Some(Write::Create(set.clone().into_body())),
            (Some(before), Cow::Owned(set)) => (before != set).then(|| Write::Update(set.clone().into_body())),
        }
    }

    /// The sentence about its change of size, if its size changes. Worded as upstream did before 1.29 and as the
    /// documents show it, without the size it had.
    pub fn scaled(&self) -> Option<String> {
        let (before, after) = (self.replicas_before(), self.replicas());
        let direction = if before < after { "up" } else { "down" };
        (before != after).then(|| format!("Scaled {direction} replica set {} to {after}", self.name()))
    }

    fn replicas_before(&self) -> i32 {
        self.before.map_or(0, |set| specs::of_set(set).replicas.unwrap_or(1))
    }
}
