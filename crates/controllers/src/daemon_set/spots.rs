//! What is on each node: the pods of a DaemonSet, sorted by how they fare.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::ops::Deref;

use api::pod_facts::number_of;
use api::{Kind, Member, Object, Snapshot};
use jiff::Timestamp;

use super::nodes::{self, Fit, Wants};

/// A node and the pods that are on it or meant for it.
pub struct Spot<'a> {
    /// The node.
    pub node: &'a Object,
    /// What is to be there.
    pub fit: Fit,
    /// Pods that run or are to run, the one to be kept first.
    pub alive: Vec<Resident<'a>>,
    /// Pods that ended by themselves.
    pub ended: Vec<Member<'a>>,
    /// Number of pods that are being ended.
    pub going: usize,
}

/// A pod on its node.
#[derive(Clone, Copy)]
pub struct Resident<'a> {
    member: Member<'a>,
    /// True if it has the wanted template.
    pub updated: bool,
    /// True if it is ready.
    pub ready: bool,
    /// True if it is ready for long enough.
    pub available: bool,
}

impl<'a> Deref for Resident<'a> {
    type Target = Member<'a>;

    fn deref(&self) -> &Member<'a> {
        &self.member
    }
}

/// How pods are judged.
#[derive(Clone, Copy)]
pub struct Eye {
    /// Of the wanted template: [`number_of`] its hash.
    pub revision: u64,
    /// `spec.minReadySeconds`.
    pub min_ready_seconds: i32,
    /// Now.
    pub now: Timestamp,
}

/// All nodes with their pods, and the pods meant for nodes that are not there (any more).
pub fn survey<'a>(
    own: Vec<Member<'a>>,
    wants: &Wants,
    eye: Eye,
    world: &'a Snapshot,
) -> (Vec<Spot<'a>>, Vec<Member<'a>>) {
    let mut by_node: HashMap<u64, Vec<Member>> = HashMap::with_capacity(own.len());
    for member in own {
        by_node.entry(target(&member)).or_default().push(member);
    }
    let mut fits = BTreeMap::new();
    let mut fit = |object: &Object| {
        let Some(node) = object.get() else { return Fit::Leave };
        match wants.tells_kin_apart() {
            true => wants.judge(node),
            false => *fits.entry(object.facts().kin()).or_insert_with(|| wants.judge(node)),
        }
    };
    let spots = world.objects(Kind::Node, None).map(|node| {
        let there = by_node.remove(&node.facts().node()).unwrap_or_default();
        Spot::of(node, fit(node), there, eye)
    });
    let spots = spots.collect();
    (spots, by_node.into_values().flatten().collect())
}

/// [`number_of`] the node that a pod is on or meant for; zero if there is none.
fn target(member: &Member) -> u64 {
    match member.node() {
        0 => nodes::target(member.pod()).map_or(0, number_of),
        bound => bound,
    }
}

impl<'a> Spot<'a> {
    fn of(node: &'a Object, fit: Fit, pods: Vec<Member<'a>>, eye: Eye) -> Spot<'a> {
        let mut spot = Spot { node, fit, alive: Vec::new(), ended: Vec::new(), going: 0 };
        for pod in pods {
            match (pod.is_deleted(), pod.has_ended()) {
                (true, true) => {}
                (true, false) => spot.going += 1,
                (false, true) => spot.ended.push(pod),
                (false, false) => spot.alive.push(resident(pod, eye)),
            }
        }
        spot.alive.sort_by_key(|it| {
            let meta = &it.pod().metadata;
            (Reverse((it.available, it.ready, it.node() != 0)), meta.creation_timestamp.as_ref(), meta.name.as_deref())
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

fn resident<'a>(member: Member<'a>, eye: Eye) -> Resident<'a> {
    Resident {
        updated: member.revision() == eye.revision,
        ready: member.is_ready(),
        available: member.is_available(eye.min_ready_seconds, eye.now),
        member,
    }
}
