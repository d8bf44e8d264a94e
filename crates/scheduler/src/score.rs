//! The best of the nodes that fit.
//!
//! After upstream's plugins with their weights: NodeResourcesFit (least allocated, 1), PodTopologySpread (2, here: spread
//! of the pods of one controller), NodeAffinity (2), InterPodAffinity (2), TaintToleration (3). Each gives 0 to 100.
//! Among equals the pod's uid decides, so that a choice can be repeated and pods without any wish are spread.

use api::Snapshot;
use api::node_fit::term_fits;
use k8s_openapi::api::core::v1::Node;

use crate::ask::Ask;
use crate::filter::{self, Room};
use crate::topology::Topology;
use crate::{hash, name_of};

/// The best node for a pod.
pub fn best<'a>(ask: &Ask, uid: &str, nodes: &[&'a Node], topology: &Topology, world: &Snapshot) -> Option<&'a Node> {
    if nodes.len() < 2 {
        return nodes.first().copied();
    }
    let loads: Vec<_> = nodes.iter().map(|node| world.load(name_of(node))).collect();
    let mut totals: Vec<i64> = nodes.iter().zip(&loads).map(|(node, load)| emptiness(ask, node, *load)).collect();
    let mut add = |weight: i64, scores: Vec<i64>| {
        for (total, score) in totals.iter_mut().zip(stretched(scores)) {
            *total += weight * score;
        }
    };
    add(2, loads.iter().map(|load| -i64::from(ask.siblings(*load))).collect());
    if !ask.preferred_nodes().is_empty() {
        add(2, nodes.iter().map(|node| liked(ask, node)).collect());
    }
    if topology.has_wishes() {
        add(2, nodes.iter().map(|node| topology.score(node)).collect());
    }
    let avoided = |node: &&Node| -(filter::untolerated(ask, node, &["PreferNoSchedule"]).count() as i64);
    add(3, nodes.iter().map(avoided).collect());
    let ranked = nodes.iter().zip(totals);
    ranked.max_by_key(|(node, total)| (*total, hash(&[uid, name_of(node)]))).map(|(node, _)| *node)
}

/// How much of the node would be free with the pod on it: 0 to 100.
fn emptiness(ask: &Ask, node: &Node, load: Option<&api::node_load::NodeLoad>) -> i64 {
    let room = Room::of(node);
    let free = room.minus(load);
    let share = |free: i64, all: i64| if all > 0 { (free.max(0).saturating_mul(100) / all).min(100) } else { 0 };
    let cpu = share(free.cpu_milli - ask.requests.cpu_milli, room.cpu_milli);
    let memory = share((free.memory_bytes - ask.requests.memory_bytes) / 1024, room.memory_bytes / 1024);
    let pods = share(free.pods - 1, room.pods);
    (cpu + memory + pods) / 3
}

/// Sum of the weights of the pod's wishes that the node meets.
fn liked(ask: &Ask, node: &Node) -> i64 {
    let met = ask.preferred_nodes().iter().filter(|wish| term_fits(&wish.preference, node));
    met.map(|wish| i64::from(wish.weight)).sum()
}

/// Scores brought to 0 to 100; all 0 if they do not differ.
fn stretched(scores: Vec<i64>) -> impl Iterator<Item = i64> {
    let least = scores.iter().copied().min().unwrap_or(0);
    let span = scores.iter().copied().max().unwrap_or(0) - least;
    scores.into_iter().map(move |score| if span == 0 { 0 } else { (score - least) * 100 / span })
}
