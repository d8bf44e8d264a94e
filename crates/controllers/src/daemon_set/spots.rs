//! What is on each node: the pods of a DaemonSet, sorted by how they fare.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use api::Pod;
use api::Snapshot;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;

use super::nodes::{self, Fit, Wants};
use crate::history::REVISION_LABEL;
use crate::pods;

/// A node and the pods that are on it or meant for it.
pub struct Spot<'a> {
    /// The node's name.
    pub node: &'a str,
    /// What is to be there.
    pub fit: Fit,
    /// Pods that run or are to run, the one to be kept first.
    pub alive: Vec<Resident<'a>>,
    /// Pods that ended by themselves.
    pub ended: Vec<&'a Pod>,
    /// Number of pods that are being ended.
    pub going: usize,
}

/// A pod on its node.
#[derive(Clone, Copy)]
pub struct Resident<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// True if it has the wanted template.
    pub updated: bool,
    /// True if it is ready.
    pub ready: bool,
    /// True if it is ready for long enough.
    pub available: bool,
}

/// How pods are judged.
#[derive(Clone, Copy)]
pub struct Eye<'a> {
    /// Hash of the wanted template.
    pub hash: &'a str,
    /// `spec.minReadySeconds`.
    pub min_ready_seconds: i32,
    /// Now.
    pub now: Timestamp,
}

/// All nodes with their pods, and the pods meant for nodes that are not there (any more).
pub fn survey<'a>(own: Vec<&'a Pod>, wants: &Wants, eye: Eye, world: &'a Snapshot) -> (Vec<Spot<'a>>, Vec<&'a Pod>) {
    let mut by_node: BTreeMap<&str, Vec<&Pod>> = BTreeMap::new();
    for pod in own {
        by_node.entry(nodes::target(pod).unwrap_or("")).or_default().push(pod);
    }
    let spots = world.list::<Node>(None).map(|node| {
        let name = node.metadata.name.as_deref().unwrap_or("");
        Spot::of(name, wants.judge(node), by_node.remove(name).unwrap_or_default(), eye)
    });
    let spots = spots.collect();
    (spots, by_node.into_values().flatten().collect())
}

impl<'a> Spot<'a> {
    fn of(node: &'a str, fit: Fit, pods: Vec<&'a Pod>, eye: Eye) -> Spot<'a> {
        let mut spot = Spot { node, fit, alive: Vec::new(), ended: Vec::new(), going: 0 };
        for pod in pods {
            match (pods::is_deleted(pod), pods::has_ended(pod)) {
                (true, true) => {}
                (true, false) => spot.going += 1,
                (false, true) => spot.ended.push(pod),
                (false, false) => spot.alive.push(resident(pod, eye)),
            }
        }
        spot.alive.sort_by_key(|it| {
            let meta = &it.pod.metadata;
            let bound = !pods::node(it.pod).is_empty();
            (Reverse((it.available, it.ready, bound)), meta.creation_timestamp.as_ref(), meta.name.as_deref())
        });
        spot
    }

    /// True if a pod is there or on its way in or out.
    pub fn is_taken(&self) -> bool {
        !self.alive.is_empty() || self.going > 0
    }

    /// True if a pod there is available.
    pub fn is_available(&self) -> bool {
        self.alive.iter().any(|it| it.available)
    }

    /// The best pod with the wanted template.
    pub fn new_pod(&self) -> Option<Resident<'a>> {
        self.alive.iter().copied().find(|it| it.updated)
    }

    /// The best pod with another template.
    pub fn old_pod(&self) -> Option<Resident<'a>> {
        self.alive.iter().copied().find(|it| !it.updated)
    }
}

fn resident<'a>(pod: &'a Pod, eye: Eye) -> Resident<'a> {
    let hash = pods::labels(pod).and_then(|labels| labels.get(REVISION_LABEL));
    Resident {
        pod,
        updated: hash.is_some_and(|hash| hash == eye.hash),
        ready: pods::is_ready(pod),
        available: pods::is_available(pod, eye.min_ready_seconds, eye.now),
    }
}
