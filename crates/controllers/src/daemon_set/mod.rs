//! Keeps one pod of a DaemonSet on every node that fits.
//!
//! `nodes` says which nodes those are, `spots` what is on them, `rolling` how one template follows the other, `status` what is reported. Mirrors upstream's `pkg/controller/daemon/`. A
//! decision walks all nodes once. Never binds a pod: its pods demand their node by name, and the scheduler puts them
//! there. Never has two pods on a node but while surging.

mod nodes;
mod rolling;
mod spots;
mod status;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use api::limits::BURST_REPLICAS;
use api::plan::CREATED;
use api::pod_facts::number_of;
use api::prepare::TEMPLATE_GENERATION;
use api::selector::Selector;
use api::{Context, EventNote, EventType, Key, Kind, Member, Plan, Pod, Propagation, Refusal, Snapshot, Typed, Write};
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet};
use k8s_openapi::api::core::v1::PodSpec;

use crate::ending::{self, Course};
use crate::history::{self, History, Owner, REVISION_LABEL, Wanted};
use crate::refusals::{is_outdated, namespace_is_ending};
use crate::{claim, failed, obstacle, pods, specs, template};
use nodes::{Fit, Wants};
use rolling::Pace;
use spots::{Eye, Resident, Spot};

pub use nodes::digest as node_digest;
#[cfg(test)]
pub use nodes::target as target_node;

/// The label that held the number of a template before there were revisions; old clients still look at it.
const TEMPLATE_GENERATION_LABEL: &str = "pod-template-generation";

/// Decides about one DaemonSet.
pub fn reconcile(key: &Key, world: &Snapshot, context: &Context) -> Plan {
    let stored = world.get::<DaemonSet>(&key.namespace, &key.name).filter(|set| set.spec.is_some());
    let Some(set) = stored.filter(|set| set.metadata.deletion_timestamp.is_none()) else { return Plan::nothing() };
    let spec = specs::of_daemon_set(set);
    // The door lets no selector in that cannot be understood; one that got in anyway selects nothing.
    let selector = Selector::from_label_selector(Some(&spec.selector)).unwrap_or_else(|_| Selector::nothing());
    if selector.is_everything() {
        return refuse_to_select_all(key, set);
    }
    let claimed = claim::members(key.kind, &set.metadata, &selector, world, |_| true);
    if !claimed.writes.is_empty() {
        return Plan { writes: claimed.writes, ..Plan::nothing() };
    }
    let owner = Owner {
        kind: key.kind,
        meta: &set.metadata,
        selector: &selector,
        template: &spec.template,
        hash_label: REVISION_LABEL,
        collision_count: set.status.as_ref().and_then(|status| status.collision_count),
    };
    let history = match History::gather(&owner, world) {
        Ok(history) => history,
        Err(writes) => return Plan { writes, ..Plan::nothing() },
    };
    let current = match history.wanted(&owner, world, context.now) {
        Wanted::Recorded(current) => current,
        Wanted::Unrecorded { writes, collision_count } => return record(set, writes, collision_count, context),
    };
    let eye = Eye {
        revision: number_of(hash_of(current)),
        min_ready_seconds: spec.min_ready_seconds.unwrap_or(0),
        now: context.now,
    };
    let none = PodSpec::default();
    let wants = Wants::of(spec.template.spec.as_ref().unwrap_or(&none));
    let mut made: BTreeSet<u64> = claimed.own.iter().map(|pod| pod.revision()).collect();
    made.insert(eye.revision);
    let (spots, strays) = spots::survey(claimed.own, &wants, eye, world);
    let desired = spots.iter().filter(|spot| spot.fit == Fit::Run).count();
    let mut round = Round {
        key,
        set,
        current,
        eye,
        pace: Pace::of(spec, desired),
        spots,
        refused: context.refused.filter(|refusal| !is_outdated(refusal)),
        deletions: Vec::new(),
        creations: Vec::new(),
        plan: Plan::nothing(),
    };
    round.decide(&strays);
    let lives = |revision: &&&ControllerRevision| made.contains(&number_of(hash_of(revision)));
    let live = history.revisions().iter().filter(lives).map(|revision| history::name(revision)).collect();
    round.finish(history.clean_up(spec.revision_history_limit, &live).collect())
}

/// The hash of a revision, by which its pods are known.
fn hash_of(revision: &ControllerRevision) -> &str {
    let labels = revision.metadata.labels.as_ref();
    labels.and_then(|labels| labels.get(REVISION_LABEL)).map_or("", String::as_str)
}

/// One decision: what is there, and the plan so far.
struct Round<'a> {
    key: &'a Key,
    set: &'a DaemonSet,
    /// The revision of the wanted template.
    current: &'a ControllerRevision,
    eye: Eye,
    pace: Pace,
    spots: Vec<Spot<'a>>,
    refused: Option<&'a Refusal>,
    deletions: Vec<Write>,
    creations: Vec<Write>,
    plan: Plan,
}

impl<'a> Round<'a> {
    fn decide(&mut self, strays: &[Member]) {
        // A bound pod whose node is gone is nobody's to stop: the pod garbage collector takes it away.
        let unbound = strays.iter().filter(|pod| pod.node() == 0 && !pod.is_deleted());
        unbound.for_each(|pod| self.delete(pod.pod()));
        for at in 0..self.spots.len() {
            self.settle(at);
        }
        let steps = rolling::steps(&self.spots, self.pace);
        for at in steps.end_old {
            let Some(old) = self.spots[at].old_pod() else { continue };
            self.delete(old.pod());
        }
        for at in steps.surge {
            self.create(at, 0);
        }
        self.tell(steps.waiting);
    }

    /// Gives a node the pod it is to have, and takes away what it is not to have (upstream: podsShouldBeOnNode).
    fn settle(&mut self, at: usize) {
        let spot = &mut self.spots[at];
        let fit = spot.fit;
        let ended = std::mem::take(&mut spot.ended);
        let surplus = if fit == Fit::Leave { std::mem::take(&mut spot.alive) } else { surplus(spot, self.pace) };
        surplus.iter().for_each(|it| self.delete(it.pod()));
        let (mut failures, mut waits) = (0, false);
        for member in &ended {
            let (pod, updated) = (member.pod(), member.revision() == self.eye.revision);
            let time = failed::replaced_at(pod);
            if fit == Fit::Run && time > self.eye.now && updated {
                self.plan.wake_by(time);
                waits = true;
                continue;
            }
            if updated {
                failures = failures.max(failed::failures_with(pod));
            }
            self.tell_ended(pod);
            self.delete(pod);
        }
        self.spots[at].ended = ended;
        if fit == Fit::Run && !self.spots[at].is_taken() && !waits {
            self.create(at, failures);
        }
    }

    fn delete(&mut self, pod: &Pod) {
        let name = pods::name(pod);
        if self.deletions.len() >= 2 * BURST_REPLICAS {
            return;
        }
        self.deletions.push(Write::Delete {
            key: Key::new(Kind::Pod, self.key.namespace.clone(), name),
            uid: pod.metadata.uid.clone().unwrap_or_default(),
            propagation: Propagation::Background,
        });
        let message = format!("Deleted pod: {name}");
        self.deletions.push(Write::Event(note(self.key, self.set, EventType::Normal, "SuccessfulDelete", message)));
    }

    fn create(&mut self, at: usize, failures: u32) {
        if self.refused.is_some_and(namespace_is_ending) || self.creations.len() >= 2 * BURST_REPLICAS {
            return;
        }
        let pod = daemon_pod(self.set, hash_of(self.current), self.spots[at].node.name(), failures);
        self.creations.push(Write::Create(pod.into_body()));
        let message = format!("Created pod: {CREATED}");
        self.creations.push(Write::Event(note(self.key, self.set, EventType::Normal, "SuccessfulCreate", message)));
    }

    fn tell_ended(&mut self, pod: &Pod) {
        let name = format!("{}/{}", self.key.namespace, pods::name(pod));
        let node = pods::node(pod);
        let (kind, reason, verb) = match pods::phase(pod) {
            "Succeeded" => (EventType::Normal, "SucceededDaemonPod", "delete"),
            _ => (EventType::Warning, "FailedDaemonPod", "kill"),
        };
        let state = pods::phase(pod).to_lowercase();
        let message = format!("Found {state} daemon pod {name} on node {node}, will try to {verb} it");
        self.deletions.push(Write::Event(note(self.key, self.set, kind, reason, message)));
    }

    fn tell(&mut self, waiting: usize) {
        let new = self.spots.iter().filter(|spot| spot.fit == Fit::Run).filter_map(Spot::new_pod);
        let blocked: Vec<Resident> = new.filter(|it| !it.available).collect();
        if !blocked.is_empty() {
            let pods = blocked.iter().map(|it| it.pod());
            let why = obstacle::list(pods, self.eye.min_ready_seconds, self.eye.now);
            self.plan.why.push(format!("waits for {} new pods to become available: {why}", blocked.len()));
        }
        if waiting > 0 {
            let most = match self.pace {
                Pace::Unavailable(most) => format!("at most {most} may be unavailable"),
                Pace::Surge(most) => format!("at most {most} may have two pods"),
                Pace::OnDelete => return,
            };
            self.plan.why.push(format!("{waiting} nodes with an old pod wait for their turn: {most}"));
        }
    }

    fn finish(mut self, forgotten: Vec<Write>) -> Plan {
        let failure = self.refused.filter(|refusal| !self.creations.is_empty() && !namespace_is_ending(refusal));
        if let Some(refusal) = failure {
            let message = format!("Error creating: {}", refusal.message);
            self.plan.why.push(format!("creating pods of {} is refused: {}", self.key.name, refusal.message));
            self.plan.events.push(note(self.key, self.set, EventType::Warning, "FailedCreate", message));
        }
        let collisions = self.set.status.as_ref().and_then(|status| status.collision_count);
        // What is written about pods brings the set back here, so the count waits until there is nothing left to do.
        // Only a refusal is told at once, since it may last.
        if (self.deletions.is_empty() && self.creations.is_empty()) || failure.is_some() {
            self.plan.writes.extend(status::report(self.set, &self.spots, collisions));
            self.plan.writes.extend(forgotten);
            let end = ending::note(self.current, self.course(), self.eye.now);
            self.plan.writes.extend(end.write);
            end.wake_at.into_iter().for_each(|time| self.plan.wake_by(time));
        }
        self.plan.writes.append(&mut self.deletions);
        self.plan.writes.append(&mut self.creations);
        self.wake_when_available();
        self.plan
    }

    /// How far the rollout is.
    fn course(&self) -> Course {
        let running = || self.spots.iter().filter(|spot| spot.fit == Fit::Run);
        let old = self.spots.iter().any(|spot| spot.fit != Fit::Stay && spot.old_pod().is_some());
        if !old && running().all(|spot| spot.new_pod().is_some_and(|it| it.available)) {
            return Course::Complete;
        }
        if old && self.pace == Pace::OnDelete {
            return Course::Held;
        }
        let available = running().filter_map(Spot::new_pod).filter(|it| it.available);
        Course::Moving(available.filter_map(|it| it.available_since(self.eye.min_ready_seconds)).max())
    }

    fn wake_when_available(&mut self) {
        let wait = self.eye.min_ready_seconds;
        if wait <= 0 {
            return;
        }
        let alive = self.spots.iter().flat_map(|spot| &spot.alive).filter(|it| it.ready && !it.available);
        let next = alive.filter_map(|it| it.available_at(wait)).min();
        next.into_iter().for_each(|time| self.plan.wake_by(time));
    }
}

/// Takes out of a spot the pods that are one too many. Without surge one stays; while surging the old one stays beside
/// the new one for as long as it is ready and the new one is not available.
fn surplus<'a>(spot: &mut Spot<'a>, pace: Pace) -> Vec<Resident<'a>> {
    if spot.alive.len() <= 1 {
        return Vec::new();
    }
    let mut kept = Vec::new();
    if pace.surges() {
        let (old, new) = (spot.old_pod(), spot.new_pod());
        kept.extend(new);
        kept.extend(old.filter(|old| new.is_none_or(|new| old.ready && !new.available)));
    } else {
        kept.extend(spot.alive.first().copied());
    }
    let is_kept = |it: &Resident| kept.iter().any(|kept| std::ptr::eq(kept.pod(), it.pod()));
    let (stay, go) = spot.alive.iter().copied().partition(is_kept);
    spot.alive = stay;
    go
}

/// A pod for a node.
fn daemon_pod(set: &DaemonSet, hash: &str, node: &str, failures: u32) -> Pod {
    let mut pod = template::pod(Kind::DaemonSet, &set.metadata, specs::of_daemon_set(set).template.clone());
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(REVISION_LABEL.into(), hash.into());
    let generation = set.metadata.annotations.as_ref().and_then(|annotations| annotations.get(TEMPLATE_GENERATION));
    if let Some(generation) = generation {
        labels.insert(TEMPLATE_GENERATION_LABEL.into(), generation.clone());
    }
    failed::carry(&mut pod, failures);
    let spec: &mut PodSpec = pod.spec.get_or_insert_default();
    nodes::pin(spec, node);
    nodes::tolerate(spec.tolerations.get_or_insert_default(), spec.host_network == Some(true));
    pod
}

/// Records the wanted template; all else follows in the next decision, which this write calls for.
fn record(set: &DaemonSet, writes: Vec<Write>, collision_count: Option<i32>, context: &Context) -> Plan {
    let mut plan = Plan::nothing();
    if context.refused.is_some_and(namespace_is_ending) {
        return plan;
    }
    plan.writes.extend(writes);
    let mut status = set.status.clone().unwrap_or_default();
    if status.collision_count != collision_count {
        status.collision_count = collision_count;
        plan.writes.push(Write::Status(DaemonSet { status: Some(status), ..set.clone() }.into_body()));
    }
    plan
}

/// An empty selector would take every pod of the namespace: nothing is done, and the user is told.
fn refuse_to_select_all(key: &Key, set: &DaemonSet) -> Plan {
    let message = "This daemon set is selecting all pods. A non-empty selector is required.";
    let mut plan = Plan::nothing();
    plan.events.push(note(key, set, EventType::Warning, "SelectingAll", message.into()));
    plan.why.push(message.into());
    plan
}

fn note(key: &Key, set: &DaemonSet, kind: EventType, reason: &'static str, message: String) -> EventNote {
    let uid = set.metadata.uid.clone().unwrap_or_default();
    EventNote { regarding: key.clone(), uid, kind, reason, message, source: "daemonset-controller" }
}
