//! Rolls the pods of a Deployment from one template to the next by sizing its ReplicaSets.
//!
//! One file a phase of the work: `sets` (the ReplicaSets and what is true of their pods), `terms` (the Deployment's
//! wishes as numbers), `same_template`, `revision` (finding, making and numbering the new set), `rolling` and `recreate` (the two
//! strategies), `scale` (a change of replicas in the middle of a rollout), `progress` (status and conditions),
//! `cleanup` (history), `account` (how each rollout ended) and `why` (sentences for a person).
//!
//! Mirrors upstream's `pkg/controller/deployment/`. It keeps two promises that upstream keeps only when all caches are
//! fresh: by its acts the number of available pods never falls below `replicas - maxUnavailable`, and there are never
//! more than `replicas + maxSurge` pods that are not terminating, not even between two writes of one turn. For that it
//! counts pods, not what ReplicaSets last reported. It never makes or ends a pod itself.

mod account;
mod cleanup;
mod conditions;
mod progress;
mod recreate;
mod revision;
mod rolling;
mod same_template;
mod scale;
mod sets;
mod terms;
mod why;

#[cfg(test)]
mod tests;

use api::selector::Selector;
use api::{Context, EventNote, EventType, Key, Kind, Plan, Refusal, Snapshot, Typed, Write};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, ReplicaSet};

use crate::claim::{self, Claim};
use crate::refusals::is_outdated;
use crate::specs;
use sets::Set;
use terms::{Strategy, Terms};

/// Decides about one Deployment.
pub fn reconcile(key: &Key, world: &Snapshot, context: &Context) -> Plan {
    let stored = world.get::<Deployment>(&key.namespace, &key.name).filter(|deployment| deployment.spec.is_some());
    let Some(deployment) = stored else { return Plan::nothing() };
    // The door lets no selector in that cannot be understood; one that got in anyway selects nothing.
    let selector = Selector::from_label_selector(Some(&specs::of_deployment(deployment).selector))
        .unwrap_or_else(|_| Selector::nothing());
    if selector.is_everything() {
        return refuse_to_select_all(key, deployment);
    }
    let claims = claims(deployment, &selector, world);
    if !claims.is_empty() {
        return Plan { writes: claims, ..Plan::nothing() };
    }
    Rollout::gather(key, deployment, &selector, world, context).decide()
}

/// A Deployment on its way: what is there, what is wanted, and the plan so far.
struct Rollout<'a> {
    key: &'a Key,
    deployment: &'a Deployment,
    terms: Terms,
    world: &'a Snapshot,
    now: Timestamp,
    refused: Option<&'a Refusal>,
    /// The set with the wanted template.
    new: Option<Set<'a>>,
    /// All others, oldest first.
    old: Vec<Set<'a>>,
    conditions: Vec<DeploymentCondition>,
    collision_count: Option<i32>,
    plan: Plan,
}

/// Whether the last progress is to be judged.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Judge {
    /// A rollout is on (or done): progress and deadline count.
    Progress,
    /// The Deployment is paused, being scaled or being deleted: only the counts are reported.
    CountsOnly,
}

impl<'a> Rollout<'a> {
    fn gather(
        key: &'a Key,
        deployment: &'a Deployment,
        selector: &Selector,
        world: &'a Snapshot,
        context: &Context<'a>,
    ) -> Rollout<'a> {
        let (new, old) = revision::split(deployment, sets::owned(deployment, selector, world, context.now));
        let status = deployment.status.as_ref();
        Rollout {
            key,
            deployment,
            terms: Terms::of(deployment),
            world,
            now: context.now,
            refused: context.refused.filter(|refusal| !is_outdated(refusal)),
            new,
            old,
            conditions: status.and_then(|status| status.conditions.clone()).unwrap_or_default(),
            collision_count: status.and_then(|status| status.collision_count),
            plan: Plan::nothing(),
        }
    }

    fn decide(mut self) -> Plan {
        if self.deployment.metadata.deletion_timestamp.is_some() {
            return self.finish(Judge::CountsOnly);
        }
        self.note_pause();
        self.number_new_set();
        if self.terms.paused {
            self.scale();
            self.clean_up();
            self.tell_paused();
            return self.finish(Judge::CountsOnly);
        }
        if self.was_scaled() {
            self.scale();
            return self.finish(Judge::CountsOnly);
        }
        match self.terms.strategy {
            Strategy::RollingUpdate => self.roll(),
            Strategy::Recreate => self.recreate(),
        }
        if self.is_complete() {
            self.clean_up();
        }
        self.finish(Judge::Progress)
    }

    /// All sets: the new one, then the old ones from old to young.
    fn sets(&self) -> impl Iterator<Item = &Set<'a>> {
        self.new.iter().chain(&self.old)
    }

    fn sets_mut(&mut self) -> impl Iterator<Item = &mut Set<'a>> {
        self.new.iter_mut().chain(&mut self.old)
    }

    /// Turns what became of the sets into writes, and brings revision and status up to date.
    fn finish(mut self, judge: Judge) -> Plan {
        // Where the new set cannot be made nothing is said of progress (upstream's sync ends before syncRolloutStatus).
        let is_refused = self.refused.is_some() && self.new.as_ref().is_some_and(Set::is_planned);
        let judge = if is_refused { Judge::CountsOnly } else { judge };
        let report = self.report(judge);
        if judge == Judge::Progress {
            self.note_end();
        }
        let mut writes: Vec<Write> = Vec::new();
        let (mut growing, mut shrinking) = (Vec::new(), Vec::new());
        for set in self.sets() {
            let list = if set.shrinks() { &mut shrinking } else { &mut growing };
            list.extend(set.write());
            list.extend(set.scaled().map(|message| self.event(EventType::Normal, "ScalingReplicaSet", message)));
        }
        writes.append(&mut growing);
        writes.append(&mut shrinking);
        writes.append(&mut self.plan.writes);
        // After a refusal the report goes first, or it would never be made as long as the refusal lasts.
        let at = if self.refused.is_some() { 0 } else { writes.len() };
        writes.splice(at..at, report);
        self.plan.writes = writes;
        self.plan
    }

    fn event(&self, kind: EventType, reason: &'static str, message: String) -> Write {
        Write::Event(note(self.key, self.deployment, kind, reason, message))
    }
}

fn note(key: &Key, deployment: &Deployment, kind: EventType, reason: &'static str, message: String) -> EventNote {
    let uid = deployment.metadata.uid.clone().unwrap_or_default();
    EventNote { regarding: key.clone(), uid, kind, reason, message, source: "deployment-controller" }
}

/// ReplicaSets to adopt or release first (upstream: getReplicaSetsForDeployment).
fn claims(deployment: &Deployment, selector: &Selector, world: &Snapshot) -> Vec<Write> {
    let namespace = deployment.metadata.namespace.as_deref().unwrap_or("");
    let uid = deployment.metadata.uid.as_deref().unwrap_or("");
    let candidates = world.controlled_by::<ReplicaSet>(uid).chain(world.orphans::<ReplicaSet>(namespace));
    let here = candidates.filter(|set| set.metadata.namespace == deployment.metadata.namespace);
    here.filter_map(|set| {
        let fits = selector.matches(set.metadata.labels.as_ref());
        match claim::judge(&set.metadata, &deployment.metadata, fits) {
            Claim::Adopt => {
                Some(claim::adopt(set, claim::controller_reference(Kind::Deployment, &deployment.metadata)))
            }
            Claim::Release => Some(claim::release(set, uid)),
            Claim::Mine | Claim::Other => None,
        }
    })
    .collect()
}

/// An empty selector would take every pod of the namespace: nothing is done, and the user is told.
fn refuse_to_select_all(key: &Key, deployment: &Deployment) -> Plan {
    let message = "This deployment is selecting all pods. A non-empty selector is required.";
    let mut plan = Plan::nothing();
    plan.events.push(note(key, deployment, EventType::Warning, "SelectingAll", message.into()));
    plan.why.push(message.into());
    let mut status = deployment.status.clone().unwrap_or_default();
    if status.observed_generation < deployment.metadata.generation {
        status.observed_generation = deployment.metadata.generation;
        plan.writes.push(Write::Status(Deployment { status: Some(status), ..deployment.clone() }.into_body()));
    }
    plan
}
