//! Which pods go first when there are too many.
//!
//! Mirrors upstream's ActivePodsWithRanks (`pkg/controller/controller_utils.go`) and
//! getPodsRankedByRelatedPodsOnSameNode (`pkg/controller/replicaset/replica_set.go`). Two differences. A ready pod that
//! is not yet available goes before an available one, so that a rollout with `minReadySeconds` never loses an available
//! pod it did not count on. And pods whose ages fall into the same power of two are compared by restarts before they
//! are compared by uid, because upstream's rule is not transitive there and could not be sorted by.

use std::cmp::Reverse;
use std::collections::HashMap;

use api::object::controller_of;
use api::{Member, Pod, Snapshot};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ReplicaSet;

use super::status::min_ready_seconds;
use crate::pods;

/// What a user says about a pod's worth: less goes first.
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// The place of a pod among those that may go; the least goes first.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank<'a> {
    bound: bool,
    phase: u8,
    ready: bool,
    available: bool,
    deletion_cost: i32,
    crowd: Reverse<u32>,
    ready_age: Age,
    restarts: Reverse<(i32, i32)>,
    age: Age,
    uid: &'a str,
}

/// How long ago, in powers of two, so that pods of about the same age are alike. Unknown goes first.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Age {
    Unknown,
    Logarithm(i64),
}

/// The `count` pods of `active` that go first. `siblings` is the number of related pods on each node.
pub fn first_to_go<'a>(
    active: &[Member<'a>],
    count: usize,
    siblings: &HashMap<&str, u32>,
    set: &ReplicaSet,
    now: Timestamp,
) -> Vec<&'a Pod> {
    if count >= active.len() {
        return active.iter().map(Member::pod).collect();
    }
    let wait = min_ready_seconds(set);
    let mut ranked: Vec<(Rank, &Pod)> =
        active.iter().map(Member::pod).map(|pod| (rank(pod, siblings, wait, now), pod)).collect();
    ranked.select_nth_unstable_by(count, |one, other| one.0.cmp(&other.0));
    ranked.truncate(count);
    ranked.sort_unstable_by(|one, other| one.0.cmp(&other.0));
    ranked.into_iter().map(|(_, pod)| pod).collect()
}

/// Number of active pods on each node that belong to this set or to a sibling of the same owner.
pub fn pods_by_node<'a>(set: &ReplicaSet, world: &'a Snapshot) -> HashMap<&'a str, u32> {
    let own = set.metadata.uid.clone().unwrap_or_default();
    let uids = match controller_of(&set.metadata) {
        Some(owner) => {
            world.controlled_by::<ReplicaSet>(&owner.uid).filter_map(|sibling| sibling.metadata.uid.clone()).collect()
        }
        None => vec![own],
    };
    let mut counts = HashMap::new();
    for uid in uids {
        for member in world.members(&uid).filter(|member| member.is_active()) {
            *counts.entry(pods::node(member.pod())).or_insert(0) += 1;
        }
    }
    counts
}

fn rank<'a>(pod: &'a Pod, siblings: &HashMap<&str, u32>, min_ready_seconds: i32, now: Timestamp) -> Rank<'a> {
    let ready = pods::is_ready(pod);
    Rank {
        bound: !pods::node(pod).is_empty(),
        phase: match pods::phase(pod) {
            "Unknown" => 1,
            "Running" => 2,
            _ => 0,
        },
        ready,
        available: pods::is_available(pod, min_ready_seconds, now),
        deletion_cost: deletion_cost(pod),
        crowd: Reverse(siblings.get(pods::node(pod)).copied().unwrap_or(0)),
        // Pods that are not ready are all alike in this.
        ready_age: if ready { age(pods::ready_since(pod), now) } else { Age::Unknown },
        restarts: Reverse(restarts(pod)),
        age: age(pod.metadata.creation_timestamp.as_ref().map(|time| time.0), now),
        uid: pod.metadata.uid.as_deref().unwrap_or(""),
    }
}

fn age(since: Option<Timestamp>, now: Timestamp) -> Age {
    let Some(since) = since else { return Age::Unknown };
    let nanoseconds = now.duration_since(since).as_nanos();
    Age::Logarithm(u128::try_from(nanoseconds).ok().and_then(u128::checked_ilog2).map_or(-1, i64::from))
}

/// The annotation's number; zero if there is none or none that is written as upstream demands.
fn deletion_cost(pod: &Pod) -> i32 {
    let text = pod.metadata.annotations.as_ref().and_then(|annotations| annotations.get(DELETION_COST));
    let Some(text) = text else { return 0 };
    let digits = text.strip_prefix('-').unwrap_or(text);
    let well_formed = text == "0" || digits.starts_with(|first: char| ('1'..='9').contains(&first));
    if well_formed { text.parse().unwrap_or(0) } else { 0 }
}

/// Most restarts of a container, and of a sidecar.
fn restarts(pod: &Pod) -> (i32, i32) {
    let Some(status) = &pod.status else { return (0, 0) };
    let most = |counts: &mut dyn Iterator<Item = i32>| counts.max().unwrap_or(0);
    let regular = status.container_statuses.iter().flatten().map(|container| container.restart_count);
    let init = pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten());
    let sidecars: Vec<&str> = init
        .filter(|container| container.restart_policy.as_deref() == Some("Always"))
        .map(|container| container.name.as_str())
        .collect();
    let sidecar_restarts = status
        .init_container_statuses
        .iter()
        .flatten()
        .filter(|container| sidecars.contains(&container.name.as_str()))
        .map(|container| container.restart_count);
    (most(&mut { regular }), most(&mut { sidecar_restarts }))
}
