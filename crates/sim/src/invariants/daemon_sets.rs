//! DaemonSets: one pod on every node, never two but while surging, and never too few by our own act.

use std::sync::Arc;

use api::pod_resources::requests;
use api::quantity::Amount;
use api::{Kind, Object, Pod, Snapshot};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{Moment, Rest, Verdict};
use crate::facts;

/// The label by which a pod names its revision.
const REVISION: &str = "controller-revision-hash";

/// Names of the nodes on which a pod of a DaemonSet is to run; here all are alike. Daemon pods put up with cordons, so a
/// cordoned node is wanted as any other.
fn wanted_nodes(world: &Snapshot) -> Vec<&str> {
    let serves = |node: &&Node| {
        let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
        let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
        let mut conditions = conditions.filter(|it| it.type_ == "Ready" && it.status == "True");
        conditions.next().is_some() && taints.into_iter().all(|it| it.key == "node.kubernetes.io/unschedulable")
    };
    world.list::<Node>(None).filter(serves).map(|node| facts::name(&node.metadata)).collect()
}

/// Pods on a node; one that somebody took out by its labels counts no longer, though it may not be let go of yet: that it
/// is let go of before the turn is over is asked for itself.
fn pods_at<'a>(set: &DaemonSet, node: &str, world: &'a Snapshot) -> Vec<&'a Pod> {
    let selector = set.spec.as_ref().map(|spec| spec.selector.clone()).unwrap_or_default();
    let pods = world.controlled_by::<Pod>(facts::uid(&set.metadata));
    let own = pods.filter(|pod| facts::matches(&selector, pod.metadata.labels.as_ref()));
    own.filter(|pod| facts::place(pod).as_deref() == Some(node)).collect()
}

fn wait(set: &DaemonSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or(0)
}

/// Number of nodes that are to have a pod and have an available one.
fn available(set: &DaemonSet, world: &Snapshot, now: Timestamp) -> i32 {
    let served = |node: &&&str| pods_at(set, node, world).iter().any(|pod| facts::is_available(pod, wait(set), now));
    wanted_nodes(world).iter().filter(served).count() as i32
}

/// `maxSurge` and `maxUnavailable` in nodes; `None` under OnDelete.
fn bounds(set: &DaemonSet, nodes: i32) -> Option<(i32, i32)> {
    let strategy = set.spec.as_ref()?.update_strategy.clone().unwrap_or_default();
    if strategy.type_.as_deref() == Some("OnDelete") {
        return None;
    }
    let rolling = strategy.rolling_update.unwrap_or_default();
    let surge = rolling.max_surge.map_or(0, |value| facts::share(Some(&value), nodes, true));
    let unavailable = rolling.max_unavailable.map_or(1, |value| facts::share(Some(&value), nodes, true));
    Some((surge, if surge > 0 { 0 } else { unavailable.max(1) }))
}

/// The DaemonSet of a pod, if it stays and so does its namespace.
fn set_of<'a>(pod: &Pod, moment: &'a Moment) -> Option<&'a DaemonSet> {
    let set = facts::keeper::<DaemonSet>(&pod.metadata, moment.before)?;
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("");
    (!facts::is_deleted(&set.metadata) && facts::namespace_stays(namespace, moment.before)).then_some(set)
}

/// I4: a node gets no second pod of a set while one is there, but for the new one of an update that surges.
pub fn one_pod_a_node(moment: &Moment) -> Verdict {
    let (None, Some(pod)) = moment.pod() else { return Ok(()) };
    let Some(set) = set_of(pod, moment).filter(|_| !moment.asked) else { return Ok(()) };
    let node = facts::place(pod).ok_or("was made for no node")?;
    let there = pods_at(set, &node, moment.before);
    let alive: Vec<&&Pod> = there.iter().filter(|pod| !facts::has_ended(pod)).collect();
    if alive.is_empty() {
        return Ok(());
    }
    let surges = bounds(set, wanted_nodes(moment.before).len() as i32).is_some_and(|(surge, _)| surge > 0);
    let template = set.spec.as_ref().map(|spec| spec.template.clone()).unwrap_or_default();
    let active: Vec<&&&Pod> = alive.iter().filter(|pod| facts::is_active(pod)).collect();
    match active.as_slice() {
        [old] if surges && !facts::is_of(old, &template) => Ok(()),
        _ => Err(format!("was made on {node} where {} pods of its set are", alive.len())),
    }
}

/// I8: a daemon pod is made as its set's template says.
pub fn pods_are_as_their_template(moment: &Moment) -> Verdict {
    let (None, Some(pod)) = moment.pod() else { return Ok(()) };
    let Some(set) = set_of(pod, moment).filter(|_| !moment.asked) else { return Ok(()) };
    let same = set.spec.as_ref().is_some_and(|spec| facts::is_of(pod, &spec.template));
    if same { Ok(()) } else { Err("is not as the template of its DaemonSet says".into()) }
}

/// A pod that a decision ends while it counts, and its set. A pod that its node's taints evict is not ended by us.
fn ended<'a>(moment: &'a Moment) -> Option<(&'a Pod, &'a DaemonSet)> {
    let (Some(before), after) = moment.pod() else { return None };
    let ends = after.is_none_or(|after| facts::is_deleted(&after.metadata));
    if !ends || moment.asked || !facts::is_active(before) || facts::is_evicted(before, moment.before) {
        return None;
    }
    Some((before, set_of(before, moment)?))
}

/// I1: no decision takes an available pod off a node if too few nodes are served then.
pub fn availability_is_kept(moment: &Moment) -> Verdict {
    let Some((pod, set)) = ended(moment) else { return Ok(()) };
    let node = facts::place(pod).unwrap_or_default();
    let nodes = wanted_nodes(moment.after);
    if !nodes.contains(&node.as_str()) || !facts::is_available(pod, wait(set), moment.now) {
        return Ok(());
    }
    let served = pods_at(set, &node, moment.after).iter().any(|it| facts::is_available(it, wait(set), moment.now));
    let Some((_, unavailable)) = bounds(set, nodes.len() as i32).filter(|_| !served) else { return Ok(()) };
    let (left, fewest) = (available(set, moment.after, moment.now), nodes.len() as i32 - unavailable);
    if left >= fewest { Ok(()) } else { Err(format!("was ended, which leaves {left} nodes of {fewest} served")) }
}

/// True if the pod names the revision that the set wants. One that somebody made by hand may name none, or another.
fn names_wanted_revision(pod: &Pod, set: &DaemonSet, world: &Snapshot) -> bool {
    let name = |meta: &ObjectMeta| meta.labels.as_ref().and_then(|labels| labels.get(REVISION).cloned());
    let revisions = world.controlled_by::<ControllerRevision>(facts::uid(&set.metadata));
    let newest = revisions.max_by_key(|revision| revision.revision);
    name(&pod.metadata).is_some_and(|named| newest.and_then(|newest| name(&newest.metadata)) == Some(named))
}

/// I5, I11: the only pod of a node ends only for the next template, and not under OnDelete.
pub fn ends_only_what_is_too_much(moment: &Moment) -> Verdict {
    let Some((pod, set)) = ended(moment) else { return Ok(()) };
    let node = facts::place(pod).unwrap_or_default();
    let nodes = wanted_nodes(moment.before);
    let alone = pods_at(set, &node, moment.before).iter().filter(|pod| facts::is_active(pod)).count() == 1;
    if !alone || !nodes.contains(&node.as_str()) {
        return Ok(());
    }
    if bounds(set, nodes.len() as i32).is_none() {
        return Err("was ended under OnDelete".into());
    }
    let wanted = names_wanted_revision(pod, set, moment.before)
        && set.spec.as_ref().is_some_and(|spec| facts::is_of(pod, &spec.template));
    if wanted { Err(format!("was ended though it is the wanted one of {node}")) } else { Ok(()) }
}

fn daemon_set(object: Option<&Arc<Object>>) -> Option<&DaemonSet> {
    object.and_then(|object| object.get())
}

/// I12: what the status tells is so, above all that an update is done.
pub fn status_is_true(moment: &Moment) -> Verdict {
    let (before, after) = (moment.change.before.as_ref(), moment.change.after.as_ref());
    let (Some(before), Some(set)) = (daemon_set(before), daemon_set(after)) else { return Ok(()) };
    let Some(status) = set.status.as_ref().filter(|_| before.status != set.status && !moment.asked) else {
        return Ok(());
    };
    if status.observed_generation > set.metadata.generation {
        return Err("has observed a generation that is not there yet".into());
    }
    let nodes = wanted_nodes(moment.before);
    let there = available(set, moment.before, moment.now);
    let told = status.number_available.unwrap_or(0);
    if status.observed_generation == set.metadata.generation && told > there {
        return Err(format!("tells of {told} available pods where {there} are"));
    }
    let done = status.observed_generation == set.metadata.generation
        && status.updated_number_scheduled.unwrap_or(0) == status.desired_number_scheduled
        && told == status.desired_number_scheduled
        && told > 0;
    match nodes.iter().find(|node| !is_updated(set, node, moment.before)).filter(|_| done) {
        Some(node) => Err(format!("says it is done, but {node} has not one pod of the wanted template")),
        None => Ok(()),
    }
}

/// True if the one pod of a node is of the wanted template.
pub fn is_updated(set: &DaemonSet, node: &str, world: &Snapshot) -> bool {
    let pods = pods_at(set, node, world);
    let active: Vec<&&Pod> = pods.iter().filter(|pod| facts::is_active(pod)).collect();
    let template = set.spec.as_ref().map(|spec| spec.template.clone()).unwrap_or_default();
    active.len() == 1 && facts::is_of(active[0], &template)
}

/// True if the set's pod for a node waits because others fill the node; here pods have no priorities.
fn waits_for_room(set: &DaemonSet, node: &str, world: &Snapshot) -> bool {
    let of = |pod: &Pod| pod.spec.as_ref().map_or(0, |spec| requests(spec).cpu_milli);
    let taken: i64 = world.pods_on(node).filter(|pod| !facts::has_ended(pod)).map(of).sum();
    let room = world.get::<Node>("", node).and_then(|node| node.status.as_ref()?.allocatable.as_ref()?.get("cpu"));
    let room = room.map_or(Amount::ZERO, Amount::of).milli();
    pods_at(set, node, world).iter().any(|pod| facts::node(pod).is_empty() && taken + of(pod) > room)
}

/// When nothing is left to decide, every node has a pod, one that has joined just now, too; unless pods are refused.
pub fn every_node_has_one(world: &Snapshot, rest: &Rest) -> Verdict {
    let bounded = |namespace: &str| world.objects(Kind::ResourceQuota, Some(namespace)).next().is_some();
    for set in world.list::<DaemonSet>(None).filter(|set| !facts::is_deleted(&set.metadata) && !rest.pauses) {
        let namespace = set.metadata.namespace.as_deref().unwrap_or("");
        if bounded(namespace) || !facts::namespace_stays(namespace, world) {
            continue;
        }
        if let Some(node) = wanted_nodes(world).iter().find(|node| pods_at(set, node, world).is_empty()) {
            return Err(format!("DaemonSet {} has no pod on {node}", facts::name(&set.metadata)));
        }
    }
    Ok(())
}

/// When all is healed: one ready pod of the wanted template on every node that has room for it, and the status says so.
pub fn arrive(world: &Snapshot) -> Verdict {
    for set in world.list::<DaemonSet>(None) {
        let name = facts::name(&set.metadata);
        let nodes = wanted_nodes(world);
        if let Some(node) = nodes.iter().find(|node| !is_updated(set, node, world)) {
            return Err(format!("DaemonSet {name} has not one pod of the wanted template on {node}"));
        }
        let status = set.status.clone().unwrap_or_default();
        let (all, waiting) = (nodes.len(), nodes.iter().filter(|node| waits_for_room(set, node, world)).count());
        let counts = [
            (status.desired_number_scheduled, all),
            (status.current_number_scheduled, all),
            (status.number_ready, all - waiting),
            (status.updated_number_scheduled.unwrap_or(0), all),
            (status.number_available.unwrap_or(0), all - waiting),
        ];
        if counts.iter().any(|(told, really)| *told != *really as i32) {
            return Err(format!("DaemonSet {name} of {all} nodes, {waiting} of them full, tells and has {counts:?}"));
        }
    }
    Ok(())
}
