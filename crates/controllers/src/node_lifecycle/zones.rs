//! All nodes at once: which of those that are lost may lose their pods, one after the other in each zone.
//!
//! Mirrors handleDisruption, ComputeZoneState, setLimiterInZone and doNoExecuteTaintingPass of upstream's
//! `pkg/controller/nodelifecycle/node_lifecycle_controller.go`. A zone gives a node to eviction every ten seconds; one
//! where most nodes are lost more slowly or, if it is small, not at all; and where every node of every zone is lost the
//! fault is likelier ours: then none is. The rate is read off the taints that are there: one that a node's return took
//! off is not counted any more.

use std::collections::BTreeMap;

use api::{Context, Plan, Snapshot, Typed, Write};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Node;

use super::{GRACE, condition, is_ready, taints};

/// Between two nodes of a zone (upstream: `--node-eviction-rate`, 0.1 a second).
const PAUSE: SignedDuration = SignedDuration::from_secs(10);
/// The same where most nodes are lost (upstream: `--secondary-node-eviction-rate`, 0.01 a second).
const LONG_PAUSE: SignedDuration = SignedDuration::from_secs(100);
/// A zone of this size or smaller evicts nothing when most nodes are lost (upstream: `--large-cluster-size-threshold`).
const SMALL_ZONE: usize = 50;
/// Most nodes: more than this many hundredths (upstream: `--unhealthy-zone-threshold`, 0.55).
const MOST_PERCENT: usize = 55;
/// With so few lost nodes a zone is not disturbed.
const FEW: usize = 2;
/// A node with this label says nothing about the state of its zone.
const EXCLUDED: &str = "node.kubernetes.io/exclude-disruption";

/// How many nodes of a zone are lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Normal,
    Partial,
    Full,
}

/// Decides who is next.
pub fn reconcile(world: &Snapshot, context: &Context) -> Plan {
    let mut zones: BTreeMap<String, Vec<&Node>> = BTreeMap::new();
    for node in world.list::<Node>(None) {
        zones.entry(zone(node)).or_default().push(node);
    }
    let states: BTreeMap<&String, State> = zones.iter().map(|(zone, nodes)| (zone, state(nodes))).collect();
    let mut plan = Plan::nothing();
    if states.values().all(|state| *state == State::Full) {
        let spared = zones.values().flatten().filter_map(|node| taints::spare(node));
        plan.writes = spared.map(|node| Write::Update(node.into_body())).collect();
        return plan;
    }
    let recovered = zones.values().flatten().filter_map(|node| ready_since(node)).min();
    for (zone, nodes) in &zones {
        let Some(pause) = pause(states[zone], nodes.len()) else { continue };
        let last = nodes.iter().filter_map(|node| taints::evicting_since(node)).max();
        let free = last.and_then(|last| last.checked_add(pause).ok()).unwrap_or(Timestamp::MIN);
        let mut waiting: Vec<(Timestamp, &Node)> = nodes
            .iter()
            .filter(|node| taints::evicting_since(node).is_none())
            .filter_map(|node| Some((due(node, recovered)?, *node)))
            .collect();
        waiting.sort_by_key(|(due, node)| (*due, node.metadata.name.clone()));
        let mut waiting = waiting.into_iter();
        let Some((due, first)) = waiting.next() else { continue };
        if due.max(free) > context.now {
            plan.wake_by(due.max(free));
            continue;
        }
        plan.writes.extend(taints::evict(first, context.now).map(|node| Write::Update(node.into_body())));
        if let Some((due, _)) = waiting.next() {
            plan.wake_by(due.max(context.now.checked_add(pause).unwrap_or(context.now)));
        }
    }
    plan
}

/// Region and zone of a node (upstream: GetZoneKey of component-helpers).
pub fn zone(node: &Node) -> String {
    let label = |names: [&str; 2]| {
        let labels = node.metadata.labels.as_ref();
        names.iter().find_map(|name| labels?.get(*name)).cloned().unwrap_or_default()
    };
    let region = label(["topology.kubernetes.io/region", "failure-domain.beta.kubernetes.io/region"]);
    let zone = label(["topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone"]);
    format!("{region}:{zone}")
}

fn state(nodes: &[&Node]) -> State {
    let counted = || nodes.iter().filter(|node| !node.metadata.labels.iter().flatten().any(|(key, _)| key == EXCLUDED));
    let (all, lost) = (counted().count(), counted().filter(|node| !is_ready(node)).count());
    match lost {
        0 => State::Normal,
        lost if lost == all => State::Full,
        lost if lost > FEW && lost * 100 >= all * MOST_PERCENT => State::Partial,
        _ => State::Normal,
    }
}

fn pause(state: State, size: usize) -> Option<SignedDuration> {
    match state {
        State::Normal | State::Full => Some(PAUSE),
        State::Partial if size > SMALL_ZONE => Some(LONG_PAUSE),
        State::Partial => None,
    }
}

fn ready_since(node: &Node) -> Option<Timestamp> {
    let ready = condition(node, "Ready").filter(|ready| ready.status == "True")?;
    ready.last_transition_time.as_ref().map(|time| time.0)
}

/// From when a lost node's pods may be evicted. One that was lost before the first of all nodes that are well came back
/// was lost when all were: it has another grace to come back, too.
fn due(node: &Node, recovered: Option<Timestamp>) -> Option<Timestamp> {
    let ready = condition(node, "Ready").filter(|ready| ready.status != "True")?;
    let lost = ready.last_transition_time.as_ref().map_or(Timestamp::MIN, |time| time.0);
    match recovered.filter(|recovered| lost < *recovered) {
        Some(recovered) => recovered.checked_add(GRACE).ok(),
        None => Some(lost),
    }
}
