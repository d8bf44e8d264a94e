//! Keeps the number of pods of a ReplicaSet or a ReplicationController: makes what is missing, ends what is too much, and reports.
//!
//! Mirrors upstream's `pkg/controller/replicaset/replica_set.go`, which upstream's ReplicationController shares, too. Differences: no expectations, because a decision sees
//! its own last write; no slow start, because the first refused write already ends a plan, so that a quota that is
//! full costs one refused request and not a wave of them. Never counts pods that ended, and never touches a pod that
//! another controller manages.

mod rank;
mod replication_controller;
mod status;

#[cfg(test)]
mod tests;

use std::borrow::Cow;

use api::limits::BURST_REPLICAS;
use api::plan::CREATED;
use api::selector::Selector;
use api::{Context, EventNote, EventType, Key, Kind, Member, Plan, Propagation, Refusal, Snapshot, Typed, Write};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::ReplicationController;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::claim;
use crate::kin::Kin;
use crate::refusals::{is_outdated, namespace_is_ending};
use crate::{pods, specs, template};

/// Decides about one ReplicaSet or ReplicationController: the key says which. Costs a walk over its own pods, and over those of its siblings when pods are ended.
pub fn reconcile(key: &Key, world: &Snapshot, context: &Context) -> Plan {
    let Some(set) = find(key, world).filter(|set| set.spec.is_some()) else { return Plan::nothing() };
    let set = &*set;
    // The door lets no selector in that cannot be understood; one that got in anyway selects nothing.
    let selector =
        Selector::from_label_selector(Some(&specs::of_set(set).selector)).unwrap_or_else(|_| Selector::nothing());
    let members = Members::gather(key.kind, set, &selector, world);
    let mut plan = Plan::nothing();
    if !members.claims.is_empty() {
        plan.writes = members.claims;
        return plan;
    }
    let missing = desired(set) - i32::try_from(members.active.len()).unwrap_or(i32::MAX);
    let counts = |refusal: &&Refusal| missing != 0 && !is_outdated(refusal) && !namespace_is_ending(refusal);
    let failure = context.refused.filter(counts);
    let stopped = context.refused.is_some_and(namespace_is_ending);
    if set.metadata.deletion_timestamp.is_none() && !stopped {
        match missing {
            1.. => create(&mut plan, key, set, missing.unsigned_abs() as usize),
            ..=-1 => delete(&mut plan, key, set, &members.active, missing.unsigned_abs() as usize, world, context),
            0 => {}
        }
    }
    if let Some(refusal) = failure {
        tell_failure(&mut plan, key, set, missing, refusal);
    }
    // What is written about pods brings the set back here, so the count waits until there is nothing left to do. Only
    // a refusal is told at once, since it may last.
    if plan.writes.is_empty() || failure.is_some() {
        let failed = failure.map(|refusal| (missing, refusal.message.as_str()));
        if let Some(write) = report(key, world, set, &members, failed, context.now) {
            plan.writes.insert(0, write);
        }
    }
    if let Some(time) = status::next_available(set, &members.active, context.now) {
        plan.wake_by(time);
    }
    plan
}

/// What is stored at the key, as a ReplicaSet.
fn find<'a>(key: &Key, world: &'a Snapshot) -> Option<Cow<'a, ReplicaSet>> {
    match key.kind {
        Kind::ReplicationController => {
            world.get(&key.namespace, &key.name).map(|it| Cow::Owned(replication_controller::as_set(it)))
        }
        _ => world.get(&key.namespace, &key.name).map(Cow::Borrowed),
    }
}

/// The write that brings the status up to date, if it is not.
fn report(
    key: &Key,
    world: &Snapshot,
    set: &ReplicaSet,
    members: &Members,
    failed: Option<(i32, &str)>,
    now: Timestamp,
) -> Option<Write> {
    let stored = world.get::<ReplicationController>(&key.namespace, &key.name);
    match stored.filter(|_| key.kind == Kind::ReplicationController) {
        Some(controller) => {
            let status = status::renewed(set, &members.active, None, failed, now)?;
            Some(replication_controller::write_status(controller, &status))
        }
        None => {
            let status = status::renewed(set, &members.active, Some(members.terminating), failed, now)?;
            Some(Write::Status(ReplicaSet { status: Some(status), ..set.clone() }.into_body()))
        }
    }
}

/// `spec.replicas`; one if it is not said.
fn desired(set: &ReplicaSet) -> i32 {
    specs::of_set(set).replicas.unwrap_or(1)
}

fn uid(meta: &ObjectMeta) -> &str {
    meta.uid.as_deref().unwrap_or("")
}

/// The pods of a set.
struct Members<'a> {
    /// Those that count as replicas.
    active: Vec<Member<'a>>,
    /// Number of those that are going.
    terminating: i32,
    /// Pods to adopt or release first.
    claims: Vec<Write>,
}

impl<'a> Members<'a> {
    fn gather(kind: Kind, set: &ReplicaSet, selector: &Selector, world: &'a Snapshot) -> Members<'a> {
        let mut members = Members { active: Vec::new(), terminating: 0, claims: Vec::new() };
        let namespace = set.metadata.namespace.as_deref().unwrap_or("");
        let mut kin = Kin::of(selector, set.metadata.namespace.as_deref());
        let own = set.metadata.uid.iter().flat_map(|uid| world.members(uid)).map(|member| (true, member));
        let orphans = world.orphan_members(namespace).map(|member| (false, member));
        for (own, member) in own.chain(orphans).filter(|(_, member)| !member.has_ended()) {
            match (own, kin.fits(&member)) {
                (true, true) if member.is_deleted() => members.terminating += 1,
                (true, true) => members.active.push(member),
                (false, false) => {}
                (_, fits) if members.claims.len() < BURST_REPLICAS => {
                    members.claims.extend(claim::settle(member.pod(), kind, &set.metadata, fits));
                }
                _ => {}
            }
        }
        members
    }
}

fn create(plan: &mut Plan, key: &Key, set: &ReplicaSet, missing: usize) {
    let pod = template::pod(key.kind, &set.metadata, specs::of_set(set).template.clone().unwrap_or_default());
    for _ in 0..missing.min(BURST_REPLICAS) {
        plan.writes.push(Write::Create(pod.clone().into_body()));
        plan.writes.push(note(key, set, EventType::Normal, "SuccessfulCreate", format!("Created pod: {CREATED}")));
    }
}

fn delete(
    plan: &mut Plan,
    key: &Key,
    set: &ReplicaSet,
    active: &[Member],
    surplus: usize,
    world: &Snapshot,
    context: &Context,
) {
    let siblings = rank::pods_by_node(set, world);
    for pod in rank::first_to_go(active, surplus.min(BURST_REPLICAS), &siblings, set, context.now) {
        let name = pods::name(pod);
        plan.writes.push(Write::Delete {
            key: Key::new(Kind::Pod, key.namespace.clone(), name),
            uid: uid(&pod.metadata).to_owned(),
            propagation: Propagation::Background,
        });
        plan.writes.push(note(key, set, EventType::Normal, "SuccessfulDelete", format!("Deleted pod: {name}")));
    }
}

fn tell_failure(plan: &mut Plan, key: &Key, set: &ReplicaSet, missing: i32, refusal: &Refusal) {
    let (reason, verb) = if missing > 0 { ("FailedCreate", "creating") } else { ("FailedDelete", "deleting") };
    let message = format!("Error {verb}: {}", refusal.message);
    plan.why.push(format!("{verb} pods of {} is refused: {}", key.name, refusal.message));
    plan.events.push(event(key, set, EventType::Warning, reason, message));
}

fn note(key: &Key, set: &ReplicaSet, kind: EventType, reason: &'static str, message: String) -> Write {
    Write::Event(event(key, set, kind, reason, message))
}

fn event(key: &Key, set: &ReplicaSet, kind: EventType, reason: &'static str, message: String) -> EventNote {
    let uid = uid(&set.metadata).to_owned();
    let source =
        if key.kind == Kind::ReplicationController { "replication-controller" } else { "replicaset-controller" };
    EventNote { regarding: key.clone(), uid, kind, reason, message, source }
}
