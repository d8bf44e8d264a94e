//! The placement: which node a pod goes to, and why not.
//!
//! `ask` reads what a pod wants, `filter` says which nodes can take it, `volumes` what its claims allow, `topology` minds
//! other pods, `score` finds the best of them, and this file turns the outcome into a plan. Mirrors upstream's `pkg/scheduler` with its default
//! plugins. Pure: the same pod in the same world always goes to the same node. Never moves a pod, and never takes one
//! that names another scheduler, has scheduling gates, or is bound already.

mod ask;
mod filter;
mod score;
mod topology;
mod volumes;

#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::BTreeMap;

use api::node_fit::is_ready;
use api::{Body, Change, Context, EventNote, EventType, Key, Kind, Object, Plan, Pod, Snapshot, Typed, Write};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Node, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use ask::Ask;
use topology::Topology;
use volumes::Volumes;

/// Nodes that fit among which the best is chosen. In a larger cluster the search ends there (upstream samples too).
const NODES_COMPARED: usize = 100;
/// Waiting pods that are tried on a node that got room.
const WAITING_TRIED: usize = 1_000;
/// Seconds after which a pod that fits nowhere is tried again though nothing is known to have changed for it.
const RETRY_SECONDS: i64 = 300;
/// The same for a pod that depends on where other pods are.
const RETRY_NEIGHBOURS_SECONDS: i64 = 10;
/// Who says it.
const SOURCE: &str = "default-scheduler";

/// Where a pod is to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Placement {
    /// To this node.
    Node(String),
    /// Nowhere now.
    Unschedulable {
        /// Why, as upstream words it.
        message: String,
    },
    /// Not for this scheduler to say.
    NotMine,
}

/// Wakes the decisions that `change` calls for. A key is a pod's, or that of a node which may have got room for pods
/// that wait: so a thousand pods that end and a thousand that wait meet once a node.
pub fn wakes(change: &Change, world: &Snapshot, wake: &mut dyn FnMut(Key)) {
    match change.kind() {
        Kind::Pod => pod_changed(change, world, wake),
        Kind::Node => node_changed(change, world, wake),
        Kind::PersistentVolumeClaim | Kind::PersistentVolume | Kind::StorageClass => {
            volumes::concerned(change, world).filter(|pod| is_mine(pod)).for_each(|pod| wake(key_of(pod)));
        }
        _ => {}
    }
}

/// Wakes a decision for every pod that waits, as at start.
pub fn wake_all(world: &Snapshot, wake: &mut dyn FnMut(Key)) {
    world.unbound_pods().filter(|pod| is_mine(pod)).for_each(|pod| wake(key_of(pod)));
}

/// Decides about a pod that waits, or about a node that may have room for some.
pub fn decide(key: &Key, world: &Snapshot, context: &Context) -> Plan {
    match key.kind {
        Kind::Pod => decide_pod(key, world, context.now),
        Kind::Node => fill_node(key, world),
        _ => Plan::nothing(),
    }
}

/// Finds the place of a pod.
pub fn place(pod: &Pod, world: &Snapshot) -> Placement {
    if !is_mine(pod) {
        return Placement::NotMine;
    }
    let ask = Ask::of(pod);
    if world.count(Kind::Node) == 0 {
        return Placement::Unschedulable { message: "no nodes available to schedule pods".into() };
    }
    let volumes = match Volumes::of(pod, world) {
        Ok(volumes) => volumes,
        Err(why) => {
            let message = format!("0/{} nodes are available: {why}.", world.count(Kind::Node));
            return Placement::Unschedulable { message };
        }
    };
    let nodes = candidates(&ask, world);
    let topology = Topology::survey(pod, &ask, &nodes, world);
    let start = hash(&[uid(pod)]).checked_rem(nodes.len() as u64).unwrap_or(0) as usize;
    let mut fitting: Vec<&Node> = Vec::new();
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    let passed_over = world.count(Kind::Node) - nodes.len();
    if passed_over > 0 {
        reasons.insert(filter::NOT_WANTED.to_owned(), passed_over);
    }
    for node in nodes[start..].iter().chain(&nodes[..start]) {
        let load = world.load(name_of(node));
        let verdict = filter::check(&ask, node, load, world)
            .and_then(|()| volumes.check(node))
            .and_then(|()| topology.check(node));
        match verdict {
            Ok(()) => fitting.push(node),
            Err(obstacles) => obstacles.into_iter().for_each(|why| *reasons.entry(why).or_insert(0) += 1),
        }
        if fitting.len() >= NODES_COMPARED {
            break;
        }
    }
    match score::best(&ask, uid(pod), &fitting, &topology, world) {
        Some(node) => Placement::Node(name_of(node).to_owned()),
        None => Placement::Unschedulable { message: explain(world.count(Kind::Node), &reasons) },
    }
}

/// Nodes that are looked at: all, or the one that the pod demands by name, as a DaemonSet's pods do. Where pods
/// mind each other all nodes have to be seen.
fn candidates<'a>(ask: &Ask, world: &'a Snapshot) -> Vec<&'a Node> {
    match ask.only_node() {
        Some(name) if !ask.minds_other_pods() && world.pods_keeping_away().next().is_none() => {
            world.get::<Node>("", name).into_iter().collect()
        }
        _ => world.list::<Node>(None).collect(),
    }
}

/// `0/2 nodes are available: 1 Insufficient cpu, 1 node(s) were unschedulable.` (upstream: FitError).
fn explain(nodes: usize, reasons: &BTreeMap<String, usize>) -> String {
    let mut counted: Vec<String> = reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
    counted.sort_unstable();
    format!("0/{nodes} nodes are available: {}.", counted.join(", "))
}

fn decide_pod(key: &Key, world: &Snapshot, now: Timestamp) -> Plan {
    let Some(pod) = world.get::<Pod>(&key.namespace, &key.name) else { return Plan::nothing() };
    let mut plan = Plan::nothing();
    match place(pod, world) {
        Placement::NotMine => {}
        Placement::Node(node) => drop(bind(&mut plan, pod, node, world)),
        Placement::Unschedulable { message } => {
            let neighbours = Ask::of(pod).minds_other_pods();
            let seconds = if neighbours { RETRY_NEIGHBOURS_SECONDS } else { RETRY_SECONDS };
            plan.wake_by(now.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(now));
            plan.why.push(message.clone());
            if let Some(write) = note_unschedulable(pod, &message, now) {
                let note = event(pod, EventType::Warning, "FailedScheduling", message);
                plan.writes.extend([write, Write::Event(note)]);
            }
        }
    }
    plan
}

/// Places pods that wait, most important and oldest first, now that a node may have got room: those that it can take, each
/// on the node that is best for it.
fn fill_node(key: &Key, world: &Snapshot) -> Plan {
    let mut plan = Plan::nothing();
    let Some(node) = world.get::<Node>("", &key.name) else { return plan };
    let mut waiting: Vec<&Pod> = world.unbound_pods().filter(|pod| is_mine(pod) && was_tried(pod)).collect();
    waiting.sort_by_key(|pod| {
        let priority = pod.spec.as_deref().and_then(|spec| spec.priority).unwrap_or(0);
        (Reverse(priority), pod.metadata.creation_timestamp.as_ref())
    });
    waiting.truncate(WAITING_TRIED);
    // The world as it is once the pods bound so far are in it.
    let mut next = world.clone();
    for pod in waiting {
        if filter::check(&Ask::of(pod), node, next.load(&key.name), &next).is_err() {
            continue;
        }
        if let Placement::Node(name) = place(pod, &next) {
            for body in bind(&mut plan, pod, name, &next) {
                next.put(Object::written(body, next.revision() + 1));
            }
        }
    }
    plan
}

/// Settles the pod's claims and puts it on the node, unless it has to wait for a volume that others make. Gives what
/// changes by that.
fn bind(plan: &mut Plan, pod: &Pod, name: String, world: &Snapshot) -> Vec<Body> {
    let node = world.get::<Node>("", &name);
    let settling = Volumes::of(pod, world).ok().zip(node).map(|(volumes, node)| volumes.settle(node));
    let Some(settling) = settling else { return Vec::new() };
    let changed = |write: &Write| if let Write::Update(body) = write { Some(body.clone()) } else { None };
    let mut changes: Vec<Body> = settling.writes.iter().filter_map(changed).collect();
    plan.writes.extend(settling.writes);
    if !settling.is_sure {
        plan.why.push(format!("waits until its volumes are made on node {name}"));
        return changes;
    }
    let mut bound = pod.clone();
    bound.spec.get_or_insert_default().node_name = Some(name.clone());
    changes.push(bound.into_body());
    put_on(plan, pod, name);
    changes
}

fn put_on(plan: &mut Plan, pod: &Pod, node: String) {
    let key = key_of(pod);
    let message = format!("Successfully assigned {}/{} to {node}", key.namespace, key.name);
    plan.writes.push(Write::Bind { pod: key, uid: uid(pod).to_owned(), node });
    plan.writes.push(Write::Event(event(pod, EventType::Normal, "Scheduled", message)));
}

/// The condition that tells why the pod waits; `None` if it tells so already.
fn note_unschedulable(pod: &Pod, message: &str, now: Timestamp) -> Option<Write> {
    let mut body = pod.clone();
    let conditions = body.status.get_or_insert_default().conditions.get_or_insert_default();
    let old = conditions.iter().position(|condition| condition.type_ == "PodScheduled");
    let told = old.map(|at| conditions.remove(at));
    let same = |told: &PodCondition| {
        told.status == "False"
            && told.reason.as_deref() == Some("Unschedulable")
            && told.message.as_deref() == Some(message)
    };
    if told.as_ref().is_some_and(same) {
        return None;
    }
    let since = told.filter(|told| told.status == "False").and_then(|told| told.last_transition_time);
    conditions.push(PodCondition {
        type_: "PodScheduled".into(),
        status: "False".into(),
        reason: Some("Unschedulable".into()),
        message: Some(message.to_owned()),
        last_transition_time: since.or(Some(Time(now))),
        ..Default::default()
    });
    Some(Write::Status(body.into_body()))
}

fn event(pod: &Pod, kind: EventType, reason: &'static str, message: String) -> EventNote {
    EventNote { regarding: key_of(pod), uid: uid(pod).to_owned(), kind, reason, message, source: SOURCE }
}

fn pod_changed(change: &Change, world: &Snapshot, wake: &mut dyn FnMut(Key)) {
    let mine = |object: &Object| object.get::<Pod>().is_some_and(is_mine);
    if let Some(after) = change.after.as_ref().filter(|after| mine(after)) {
        let asked_before = change.before.as_ref().filter(|before| mine(before)).and_then(|before| before.get::<Pod>());
        let asks = after.get::<Pod>();
        let same = asked_before.zip(asks).is_some_and(|(before, after)| {
            before.spec == after.spec && before.metadata.labels == after.metadata.labels
        });
        if !same {
            wake(after.key());
        }
        return;
    }
    let holds = |object: &Object| object.get::<Pod>().map(node_held).unwrap_or_default().to_owned();
    let Some(held) = change.before.as_deref().map(holds).filter(|node| !node.is_empty()) else { return };
    let holds_still = change.after.as_deref().is_some_and(|after| holds(after) == held);
    if !holds_still && anyone_waits(world) {
        wake(Key::new(Kind::Node, "", held));
    }
}

fn node_changed(change: &Change, world: &Snapshot, wake: &mut dyn FnMut(Key)) {
    let Some(after) = change.after.as_ref().and_then(|object| object.get::<Node>()) else { return };
    let before = change.before.as_ref().and_then(|object| object.get::<Node>());
    let same = before.is_some_and(|before| {
        let allocatable = |node: &Node| node.status.as_ref().and_then(|status| status.allocatable.clone());
        before.metadata.labels == after.metadata.labels
            && before.spec == after.spec
            && is_ready(before) == is_ready(after)
            && allocatable(before) == allocatable(after)
    });
    if !same && anyone_waits(world) {
        wake(change.object().key());
    }
}

/// True if there is a pod that fitted nowhere when it was last tried.
fn anyone_waits(world: &Snapshot) -> bool {
    world.unbound_pods().next().is_some()
}

/// True if a pod was found to fit nowhere.
fn was_tried(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|condition| condition.type_ == "PodScheduled" && condition.status == "False")
}

/// True if it is for this scheduler to place the pod.
fn is_mine(pod: &Pod) -> bool {
    let Some(spec) = &pod.spec else { return false };
    let scheduler = spec.scheduler_name.as_deref().unwrap_or("default-scheduler");
    spec.node_name.as_deref().unwrap_or("").is_empty()
        && matches!(scheduler, "" | "default-scheduler")
        && spec.scheduling_gates.as_ref().is_none_or(Vec::is_empty)
        && pod.metadata.deletion_timestamp.is_none()
        && !has_ended(pod)
}

/// The node that a pod takes room on, empty if it takes none.
fn node_held(pod: &Pod) -> &str {
    if has_ended(pod) { "" } else { pod.spec.as_deref().and_then(|spec| spec.node_name.as_deref()).unwrap_or("") }
}

fn has_ended(pod: &Pod) -> bool {
    matches!(pod.status.as_ref().and_then(|status| status.phase.as_deref()), Some("Succeeded" | "Failed"))
}

fn key_of(pod: &Pod) -> Key {
    let meta = &pod.metadata;
    Key::new(Kind::Pod, meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
}

fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or("")
}

fn name_of(node: &Node) -> &str {
    node.metadata.name.as_deref().unwrap_or("")
}

/// A number that depends on nothing but these texts: FNV-1a, mixed so that all bits depend on all of them.
fn hash(texts: &[&str]) -> u64 {
    let bytes = texts.iter().flat_map(|text| text.bytes());
    let sum = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| (sum ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    (sum ^ (sum >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 16
}
