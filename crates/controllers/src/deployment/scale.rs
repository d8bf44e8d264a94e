//! A change of `replicas` while several sets have pods, or while the Deployment is paused: the change is spread over the
//! sets in proportion to their sizes, so that it does not hasten the rollout.
//!
//! Mirrors scale and isScalingEvent (`pkg/controller/deployment/sync.go`) and GetReplicaSetProportion
//! (`util/deployment_util.go`). Two differences. A share that would end available pods which are still needed is moved
//! to a set whose pods are not available. And a plan never both grows and shrinks sets: it shrinks first, so that the
//! sum of pods stays within bounds at every moment.

use std::cmp::Reverse;

use super::Rollout;
use super::sets::{DESIRED_REPLICAS, MAX_REPLICAS, Set};
use super::terms::{Strategy, Terms};

impl<'a> Rollout<'a> {
    /// True if a set with pods was sized for another number of replicas than is wanted now.
    pub(super) fn was_scaled(&self) -> bool {
        let stale = |set: &Set| set.number(DESIRED_REPLICAS).is_some_and(|desired| desired != self.terms.replicas);
        self.terms.strategy == Strategy::RollingUpdate && self.sets().any(|set| set.is_active() && stale(set))
    }

    /// Gives every set its share of the replicas that are wanted now.
    pub(super) fn scale(&mut self) {
        let active = self.sets().filter(|set| set.is_active()).count();
        if active <= 1 {
            self.scale_only_set();
        } else if self.new_is_saturated() {
            let terms = self.terms;
            self.old.iter_mut().filter(|set| set.is_active()).for_each(|set| set.resize(0, &terms));
        } else if self.was_scaled() {
            // Upstream grows the sets up to the surge here although nobody asked for other replicas.
            self.scale_in_proportion();
        }
    }

    /// The only set with pods (or, if none has, the new or else the youngest one) gets all replicas.
    fn scale_only_set(&mut self) {
        let terms = self.terms;
        let others_of =
            |sets: &Self, name: &str| sets.sets().filter(|set| set.name() != name).map(Set::occupied).sum::<i32>();
        let active = self.sets().find(|set| set.is_active()).map(|set| set.name().to_owned());
        let latest = || self.new.as_ref().or(self.old.last()).map(|set| set.name().to_owned());
        let Some(name) = active.or_else(latest) else { return };
        // Under Recreate none may start while one of another template may still run.
        let overlaps =
            terms.strategy == Strategy::Recreate && self.sets().any(|set| set.name() != name && set.alive() > 0);
        let room = if overlaps { 0 } else { terms.max_pods() - others_of(self, &name) };
        let Some(set) = self.sets_mut().find(|set| set.name() == name) else { return };
        if set.replicas() >= terms.replicas {
            set.resize(terms.replicas, &terms);
        } else {
            let size = terms.replicas.min(room.max(set.replicas()));
            set.resize(size, &terms);
            if size < terms.replicas {
                // Pods of another set are still there. What it was sized for stays untold, so that this goes on.
                set.annotate(DESIRED_REPLICAS, size.to_string());
                return;
            }
        }
        if set.number(DESIRED_REPLICAS).is_some_and(|desired| desired != terms.replicas) {
            set.stamp(&terms);
        }
    }

    /// True if the new set can do without the others (upstream: IsSaturated).
    fn new_is_saturated(&self) -> bool {
        let wanted = self.terms.replicas;
        self.new.as_ref().is_some_and(|new| {
            new.replicas() == wanted && new.number(DESIRED_REPLICAS) == Some(wanted) && new.available() == wanted
        })
    }

    fn scale_in_proportion(&mut self) {
        let terms = self.terms;
        let total = self.deployment.status.as_ref().and_then(|status| status.replicas).unwrap_or(0);
        let mut sets: Vec<&mut Set> = self.new.iter_mut().chain(&mut self.old).filter(|set| set.is_active()).collect();
        let allowed = if terms.replicas > 0 { terms.max_pods() } else { 0 };
        let to_add = allowed - sets.iter().map(|set| set.replicas()).sum::<i32>();
        // Among sets of one size, younger ones grow first and older ones shrink first.
        sets.sort_by(|one, other| {
            let by_size = Reverse(one.replicas()).cmp(&Reverse(other.replicas()));
            let by_age = one.age_order().cmp(&other.age_order());
            by_size.then(if to_add > 0 { by_age.reverse() } else { by_age })
        });
        let mut sizes = shares(&sets, &terms, total, to_add);
        keep_available(&sets, &mut sizes, &terms);
        let shrinks = sets.iter().zip(&sizes).any(|(set, size)| *size < set.replicas());
        let there: i32 = sets.iter().map(|set| set.occupied()).sum();
        let mut room = (terms.max_pods() - there).max(0);
        for (set, size) in sets.iter_mut().zip(sizes) {
            let more = size - set.replicas();
            if more > 0 && (shrinks || more > room) {
                // Not yet: the pods that make room are still there.
                continue;
            }
            room -= more.max(0);
            set.resize(size, &terms);
            set.stamp(&terms);
        }
    }
}

/// The sizes that spread `to_add` replicas over the sets, which stand in order of precedence.
fn shares(sets: &[&mut Set], terms: &Terms, total: i32, to_add: i32) -> Vec<i32> {
    let mut left = to_add;
    let mut sizes: Vec<i32> = Vec::with_capacity(sets.len());
    for set in sets {
        let share = fraction(set, terms, total);
        let share = match to_add {
            1.. => share.min(left),
            ..=-1 => share.max(left),
            0 => 0,
        };
        left -= share;
        sizes.push(set.replicas() + share);
    }
    if let Some(largest) = sizes.first_mut() {
        *largest = (*largest + left).max(0);
    }
    sizes
}

/// How much a set would change if all sets changed in proportion (upstream: getReplicaSetFraction).
fn fraction(set: &Set, terms: &Terms, total: i32) -> i32 {
    if terms.replicas == 0 {
        return -set.replicas();
    }
    let before = set.number(MAX_REPLICAS).filter(|max| *max > 0).unwrap_or(total);
    if before == 0 {
        return 0;
    }
    let (size, before) = (i64::from(set.replicas()) * i64::from(terms.max_pods()), i64::from(before));
    // Rounded half up, in whole numbers.
    let size = (2 * size + before).div_euclid(2 * before);
    i32::try_from(size).unwrap_or(i32::MAX) - set.replicas()
}

/// Moves replicas to sets whose available pods are needed, from sets that would keep pods which are not available.
fn keep_available(sets: &[&mut Set], sizes: &mut [i32], terms: &Terms) {
    let available: Vec<i32> = sets.iter().map(|set| set.available()).collect();
    let needed = terms.min_available().min(available.iter().sum());
    let left: i32 = sizes.iter().zip(&available).map(|(size, available)| *size.min(available)).sum();
    let mut lacking = (needed - left).max(0);
    for receiver in 0..sizes.len() {
        for giver in 0..sizes.len() {
            let moved = (available[receiver] - sizes[receiver]).min(sizes[giver] - available[giver]).min(lacking);
            if moved > 0 {
                sizes[receiver] += moved;
                sizes[giver] -= moved;
                lacking -= moved;
            }
        }
    }
}
