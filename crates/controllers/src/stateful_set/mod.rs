//! Keeps the pods of a StatefulSet: as many as asked, each with a name and number of its own, in order.
//!
//! `identity` says who a pod is, `claims` what is kept for it, `members` how they fare, `update` which are replaced by the next template, `status`
//! what is reported. Mirrors upstream's `pkg/controller/statefulset/`. Never makes a pod while one of its name is there,
//! be it only in the store: the agent of a lost node may still run it.

mod claims;
mod identity;
mod members;
mod status;
mod update;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use api::limits::BURST_REPLICAS;
use api::pod_facts::number_of;
use api::selector::Selector;
use api::{Context, EventNote, EventType, Key, Kind, Plan, Pod, Propagation, Refusal, Snapshot, Typed, Write};
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;

use crate::ending::{self, Course};
use crate::history::{self, History, Owner, Wanted};
use crate::refusals::{is_outdated, namespace_is_ending};
use crate::{claim, failed, obstacle, pods, specs};
pub use claims::makes as makes_claim;
use members::{Member, Members};
use update::{Pace, Revision, Revisions};

/// The label of a revision that holds its hash.
const HASH_LABEL: &str = "controller.kubernetes.io/hash";

/// Decides about one StatefulSet.
pub fn reconcile(key: &Key, world: &Snapshot, context: &Context) -> Plan {
    let stored = world.get::<StatefulSet>(&key.namespace, &key.name).filter(|set| set.spec.is_some());
    let Some(set) = stored else { return Plan::nothing() };
    let spec = specs::of_stateful_set(set);
    // The door lets no selector in that cannot be understood; one that got in anyway selects nothing.
    let selector = Selector::from_label_selector(Some(&spec.selector)).unwrap_or_else(|_| Selector::nothing());
    let name = number_of(&key.name);
    let is_member = |pod: &api::Member| pod.ordinal_in(name).is_some();
    let claimed = claim::members(key.kind, &set.metadata, &selector, world, is_member);
    if !claimed.writes.is_empty() {
        return Plan { writes: claimed.writes, ..Plan::nothing() };
    }
    let owner = Owner {
        kind: key.kind,
        meta: &set.metadata,
        selector: &selector,
        template: &spec.template,
        hash_label: HASH_LABEL,
        collision_count: set.status.as_ref().and_then(|status| status.collision_count),
    };
    let history = match History::gather(&owner, world) {
        Ok(history) => history,
        Err(writes) => return Plan { writes, ..Plan::nothing() },
    };
    let update = match history.wanted(&owner, world, context.now) {
        Wanted::Recorded(update) => update,
        Wanted::Unrecorded { writes, collision_count } => return record(set, writes, collision_count, context),
    };
    let told = set.status.as_ref().and_then(|status| status.current_revision.as_deref());
    let current = told.and_then(|name| history.named(name)).unwrap_or(update);
    let made: BTreeSet<u64> = claimed.own.iter().map(|pod| pod.revision()).collect();
    let mut live: BTreeSet<&str> = history.revisions().iter().map(|revision| history::name(revision)).collect();
    live.retain(|name| made.contains(&number_of(name)));
    live.extend([history::name(current), history::name(update)]);
    let mut round = Round {
        key,
        set,
        world,
        members: Members::of(set, claimed.own, context.now),
        current,
        update,
        pace: Pace::of(spec),
        in_order: spec.pod_management_policy.as_deref() != Some("Parallel"),
        context,
        refused: context.refused.filter(|refusal| !is_outdated(refusal)),
        plan: Plan::nothing(),
        tried: None,
    };
    if set.metadata.deletion_timestamp.is_none() {
        round.decide();
    }
    round.finish(history.clean_up(spec.revision_history_limit, &live).collect())
}

/// One decision: what is there, and the plan so far.
struct Round<'a> {
    key: &'a Key,
    set: &'a StatefulSet,
    world: &'a Snapshot,
    members: Members<'a>,
    /// What the pods below the partition are made of.
    current: &'a ControllerRevision,
    /// What all others are made of.
    update: &'a ControllerRevision,
    pace: Option<Pace>,
    /// Each pod waits for those before it.
    in_order: bool,
    context: &'a Context<'a>,
    refused: Option<&'a Refusal>,
    plan: Plan,
    /// Name of the first pod that is to be made.
    tried: Option<String>,
}

impl<'a> Round<'a> {
    fn decide(&mut self) {
        self.label_adopted();
        // They come back labelled; nothing is written twice in a plan.
        if !self.plan.writes.is_empty() || self.refused.is_some_and(namespace_is_ending) {
            return;
        }
        self.keep_claims();
        // Who owns a claim is settled before its pod ends; their change brings the set back.
        if !self.plan.writes.is_empty() {
            return;
        }
        // Scaling comes before updating.
        let held = self.fill() || self.condemn();
        let Some(pace) = self.pace else { return };
        let revisions = self.revisions();
        let replaced: Vec<Member> =
            update::replaced(&self.members, revisions, pace, held).into_iter().copied().collect();
        for member in &replaced {
            self.delete(member.pod());
        }
        self.tell_update(&replaced);
    }

    fn revisions(&self) -> Revisions<'a> {
        let of = |revision| Revision::of(history::name(revision));
        Revisions { current: of(self.current), update: of(self.update) }
    }

    /// Gives pods that were adopted the labels with their names and numbers.
    fn label_adopted(&mut self) {
        let unlabelled = |member: &&Member| !member.going && !member.is_named();
        let labelled = self.members.kept().filter(unlabelled).take(BURST_REPLICAS).map(|member| {
            let mut pod = member.pod().clone();
            identity::label(&mut pod, member.ordinal);
            Write::Update(pod.into_body())
        });
        self.plan.writes.extend(labelled);
    }

    /// Gives claims the owners that the policy asks for, and makes those again that a pod still waits for.
    fn keep_claims(&mut self) {
        if !claims::any(self.set) {
            return;
        }
        for member in self.members.all.values().copied().collect::<Vec<_>>() {
            if self.plan.writes.len() >= BURST_REPLICAS {
                return;
            }
            let wanted = self.members.wanted.contains(&member.ordinal);
            for (made, found) in claims::of(self.set, member.ordinal, self.world) {
                match found {
                    Some(claim) => {
                        let owned = claims::owned(claim, self.set, member.pod(), !wanted);
                        self.plan.writes.extend(owned.map(|claim| Write::Update(claim.into_body())));
                    }
                    None if wanted && claims::waits(member.pod()) => {
                        self.create_claim(made, pods::name(member.pod()));
                    }
                    None => {}
                }
            }
        }
    }

    fn create_claim(&mut self, claim: PersistentVolumeClaim, pod: &str) {
        let name = claim.metadata.name.clone().unwrap_or_default();
        let message = format!("create Claim {name} Pod {pod} in StatefulSet {} success", self.key.name);
        self.plan.writes.push(Write::Create(claim.into_body()));
        self.plan.writes.push(Write::Event(self.note(EventType::Normal, "SuccessfulCreate", message)));
        self.tried.get_or_insert_with(|| pod.to_owned());
    }

    /// Makes the claims of a pod that is to be made; false if it has to wait for one.
    fn make_claims(&mut self, ordinal: i32, pod: &str) -> bool {
        let all = claims::of(self.set, ordinal, self.world);
        let obstacles = all.iter().filter_map(|(_, found)| claims::obstacle((*found)?, pod));
        if let Some(why) = obstacles.into_iter().next() {
            self.plan.why.push(format!("{pod} waits: {why}"));
            return false;
        }
        for (made, _) in all.into_iter().filter(|(_, found)| found.is_none()) {
            self.create_claim(made, pod);
        }
        true
    }

    /// Makes the pods that are missing (upstream: processReplica); true if pods have to wait for one before them.
    fn fill(&mut self) -> bool {
        for ordinal in self.members.wanted.clone() {
            if self.plan.writes.len() >= 2 * BURST_REPLICAS {
                return true;
            }
            let Some(member) = self.members.all.get(&ordinal).copied() else {
                self.create(ordinal, 0);
                if self.in_order {
                    return true;
                }
                continue;
            };
            if member.has_ended() && !member.going {
                self.make_again(member);
            }
            if self.in_order && !member.available {
                self.tell_held(&member);
                return true;
            }
        }
        false
    }

    /// Ends the pods that are too many (upstream: processCondemned); true if pods have to wait for one of them.
    fn condemn(&mut self) -> bool {
        let condemned: Vec<Member> = self.members.condemned().copied().collect();
        let first_broken = condemned.iter().rev().find(|member| !member.available).map(|member| member.ordinal);
        for member in condemned {
            if self.in_order && self.may_mend(&member) && first_broken != Some(member.ordinal) {
                let (name, pod) = (pods::name(member.pod()), member.pod());
                let what = obstacle::describe(pod, self.members.min_ready_seconds, self.context.now);
                self.plan.why.push(format!("{name} ends once it is available, or nothing before it is not: {what}"));
                return true;
            }
            if !member.going {
                self.delete(member.pod());
            }
            if self.in_order {
                self.plan.why.push(format!("waits for {} to end", pods::name(member.pod())));
                return true;
            }
        }
        false
    }

    /// Whether a pod that is not available may yet become so. Unlike upstream one that has ended or is of another template than
    /// the wanted one is not waited for: nobody mends a pod that is to go.
    fn may_mend(&self, member: &Member) -> bool {
        !member.available && !member.going && !member.has_ended() && self.revisions().update.made(member)
    }

    fn create(&mut self, ordinal: i32, failures: u32) {
        let wanted = self.revisions().at(ordinal - self.members.wanted.start, self.pace);
        let revision = if wanted.name == history::name(self.update) { self.update } else { self.current };
        let mut pod = identity::pod(self.set, ordinal, revision);
        failed::carry(&mut pod, failures);
        let name = pods::name(&pod).to_owned();
        if !self.make_claims(ordinal, &name) {
            return;
        }
        let message = format!("Create Pod {name} in StatefulSet {} successful", self.key.name);
        self.plan.writes.push(Write::Create(pod.into_body()));
        self.plan.writes.push(Write::Event(self.note(EventType::Normal, "SuccessfulCreate", message)));
        self.tried.get_or_insert(name);
    }

    fn delete(&mut self, pod: &Pod) {
        let name = pods::name(pod);
        let message = format!("Delete Pod {name} in StatefulSet {} successful", self.key.name);
        self.plan.writes.push(Write::Delete {
            key: Key::new(Kind::Pod, self.key.namespace.clone(), name),
            uid: pod.metadata.uid.clone().unwrap_or_default(),
            propagation: Propagation::Background,
        });
        self.plan.writes.push(Write::Event(self.note(EventType::Normal, "SuccessfulDelete", message)));
    }

    /// A pod that ended is made anew, whatever its exit code: a pod that was stopped by force also ends.
    fn make_again(&mut self, member: Member) {
        let wanted = self.revisions().at(member.ordinal - self.members.wanted.start, self.pace);
        let (same, pod) = (wanted.made(&member), member.pod());
        let time = failed::replaced_at(pod);
        if same && time > self.context.now {
            self.plan.wake_by(time);
            return;
        }
        let name = pods::name(pod);
        let (reason, state) = match pods::phase(pod) {
            "Failed" => ("RecreatingFailedPod", "failed"),
            _ => ("RecreatingTerminatedPod", "terminated"),
        };
        let message = format!("StatefulSet {}/{} is recreating {state} Pod {name}", self.key.namespace, self.key.name);
        self.plan.writes.push(Write::Event(self.note(EventType::Warning, reason, message)));
        self.delete(pod);
        // What has ended goes at once, unless somebody holds it.
        if pod.metadata.finalizers.as_ref().is_none_or(Vec::is_empty) {
            self.create(member.ordinal, if same { failed::failures_with(pod) } else { 0 });
        }
    }

    fn tell_held(&mut self, member: &Member) {
        let pod = member.pod();
        let what = if member.going {
            format!("{} is ending", pods::name(pod))
        } else {
            obstacle::describe(pod, self.members.min_ready_seconds, self.context.now)
        };
        self.plan.why.push(format!("each pod waits for those before it, now for this one: {what}"));
    }

    fn tell_update(&mut self, replaced: &[Member]) {
        let update = self.revisions().update;
        let pace = self.pace.map_or(0, |pace| pace.partition);
        let old = self.members.kept().filter(|member| member.ordinal - self.members.wanted.start >= pace);
        let old = old.filter(|member| !member.going && !update.made(member)).count();
        let unavailable = self.members.unavailable();
        if old > replaced.len() && unavailable > 0 {
            self.plan.why.push(format!(
                "{} pods wait for their turn to be updated: {unavailable} of {} pods are unavailable",
                old - replaced.len(),
                self.members.replicas()
            ));
        }
    }

    fn finish(mut self, forgotten: Vec<Write>) -> Plan {
        let tried = self.tried.take();
        let failure = self.refused.zip(tried).filter(|(refusal, _)| !namespace_is_ending(refusal));
        if let Some((refusal, pod)) = &failure {
            let set = &self.key.name;
            let is_claim = matches!(refusal.kind.as_str(), "persistentvolumeclaims" | "PersistentVolumeClaim");
            let message = match is_claim {
                true => {
                    let claim = &refusal.name;
                    format!("Create Claim {claim} for Pod {pod} in StatefulSet {set} failed error: {}", refusal.message)
                }
                false => format!("Create Pod {pod} in StatefulSet {set} failed error: {}", refusal.message),
            };
            self.plan.why.push(message.clone());
            let note = self.note(EventType::Warning, "FailedCreate", message);
            self.plan.events.push(note);
        }
        // What is written about pods brings the set back here, so the count waits until there is nothing left to do.
        // Only a refusal is told at once, since it may last.
        if self.plan.writes.is_empty() || failure.is_some() {
            let collisions = self.set.status.as_ref().and_then(|status| status.collision_count);
            let report = status::report(self.set, &self.members, self.revisions(), collisions);
            let end = ending::note(self.update, self.course(), self.context.now);
            end.wake_at.into_iter().for_each(|time| self.plan.wake_by(time));
            self.plan.writes.splice(0..0, report.into_iter().chain(forgotten).chain(end.write));
        }
        self.members.next_available().into_iter().for_each(|time| self.plan.wake_by(time));
        self.plan
    }

    /// How far the rollout is.
    fn course(&self) -> Course {
        let update = self.revisions().update;
        let is_new = |member: &&Member| !member.going && update.made(member);
        let available = || self.members.kept().filter(is_new).filter(|member| member.available);
        let all = usize::try_from(self.members.replicas()).unwrap_or(usize::MAX);
        if available().count() == all && self.members.condemned().next().is_none() {
            return Course::Complete;
        }
        // Below the partition, and everywhere if pods are replaced only when somebody deletes them, old pods are wanted.
        let bound = self.pace.map_or(i32::MAX, |pace| pace.partition);
        let is_held = |member: &Member| {
            let held = member.ordinal - self.members.wanted.start < bound;
            is_new(&member) || held && !member.going
        };
        if self.members.unavailable() == 0 && self.members.kept().all(is_held) {
            return Course::Held;
        }
        let since = |member: &Member| member.available_since(self.members.min_ready_seconds);
        Course::Moving(available().filter_map(since).max())
    }

    fn note(&self, kind: EventType, reason: &'static str, message: String) -> EventNote {
        let uid = self.set.metadata.uid.clone().unwrap_or_default();
        EventNote { regarding: self.key.clone(), uid, kind, reason, message, source: "statefulset-controller" }
    }
}

/// Records the wanted template; all else follows in the next decision, which this write calls for.
fn record(set: &StatefulSet, writes: Vec<Write>, collision_count: Option<i32>, context: &Context) -> Plan {
    let mut plan = Plan::nothing();
    if context.refused.is_some_and(namespace_is_ending) || set.metadata.deletion_timestamp.is_some() {
        return plan;
    }
    plan.writes.extend(writes);
    let mut status = set.status.clone().unwrap_or_default();
    if status.collision_count != collision_count {
        status.collision_count = collision_count;
        plan.writes.push(Write::Status(StatefulSet { status: Some(status), ..set.clone() }.into_body()));
    }
    plan
}
