//! One node: lost when nothing is heard of it, tainted as its conditions say, its pods not ready once it is lost.
//!
//! Mirrors tryUpdateNodeHealth, doNoScheduleTaintingPass and markNodeAsReachable of upstream's
//! `pkg/controller/nodelifecycle/node_lifecycle_controller.go` and MarkPodsNotReady of
//! `pkg/controller/util/node/controller_utils.go`. When a node was last heard of is told by [`api::Heard`]: a renewed
//! Lease wakes nothing, the clock does. Which lost nodes may have their pods evicted is decided for the whole cluster
//! in [`zones`]; who is evicted, in [`crate::taint_eviction`].

mod taints;
#[cfg(test)]
mod tests;
pub mod zones;

use api::{Context, EventNote, EventType, Key, Kind, Object, Plan, Pod, Snapshot, Typed, Write};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Node, NodeCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::pods;

/// A node that is silent for so long is lost (upstream: `--node-monitor-grace-period`, which was this long until 1.32 and is 50 seconds since, to
/// outlast the health checks of HTTP/2; agents here make a new connection when a renewal of their Lease is not answered).
const GRACE: SignedDuration = SignedDuration::from_secs(40);
/// The same for one that never told how it is (upstream: `--node-startup-grace-period`).
const STARTUP_GRACE: SignedDuration = SignedDuration::from_secs(60);
/// What nobody knows of a lost node.
const VITAL: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];
const SOURCE: &str = "node-controller";

/// Key of the decision about all nodes at once.
pub fn all_nodes() -> Key {
    Key::new(Kind::Node, "", "")
}

/// Decides about one node, or about all where the key has no name.
pub fn reconcile(key: &Key, world: &Snapshot, context: &Context) -> Plan {
    if key.name.is_empty() {
        return zones::reconcile(world, context);
    }
    let Some(node) = world.get::<Node>("", &key.name) else { return Plan::nothing() };
    let mut plan = Plan::nothing();
    if let Some(heard) = context.heard.last(&key.name) {
        let grace = if condition(node, "Ready").is_some() { GRACE } else { STARTUP_GRACE };
        let lost_at = heard.checked_add(grace).unwrap_or(Timestamp::MAX);
        if lost_at > context.now {
            plan.wake_by(lost_at);
        } else if let Some(lost) = lost(node, context.now) {
            // The write brings this decision back for the taints. Pods are marked this once: an agent that lives after
            // all and says that its pods are ready is not contradicted.
            plan.writes.push(Write::Status(lost.into_body()));
            if is_ready(node) {
                plan.writes.push(Write::Event(not_ready_event(node)));
                plan.writes.extend(marks(world.pods_on(&key.name).filter(|pod| pods::is_ready(pod)), context.now));
            }
            return plan;
        }
    }
    plan.writes.extend(taints::as_conditions_say(node, context.now).map(|node| Write::Update(node.into_body())));
    plan.writes.extend(marks(world.pods_on(&key.name).filter(|pod| is_outdated(pod, node)), context.now));
    plan
}

fn marks<'a>(pods: impl Iterator<Item = &'a Pod>, now: Timestamp) -> impl Iterator<Item = Write> {
    pods.flat_map(move |pod| [Write::Status(not_ready(pod, now).into_body()), Write::Event(pod_event(pod))])
}

/// All of a node that this decision looks at, heartbeats apart.
pub fn digest(object: Option<&Object>) -> Option<impl PartialEq + '_> {
    let node = object?.get::<Node>()?;
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let conditions: Vec<_> = conditions.map(|it| (it.type_.as_str(), it.status.as_str())).collect();
    let spec = node.spec.as_ref();
    let spec = spec.map(|spec| (spec.taints.as_ref(), spec.unschedulable));
    Some((conditions, spec, node.metadata.labels.as_ref()))
}

/// The condition of this type.
fn condition<'a>(node: &'a Node, type_: &str) -> Option<&'a NodeCondition> {
    node.status.as_ref()?.conditions.iter().flatten().find(|condition| condition.type_ == type_)
}

/// True while the node says that it is ready.
pub fn is_ready(node: &Node) -> bool {
    condition(node, "Ready").is_some_and(|ready| ready.status == "True")
}

/// The node, of which nothing is known any more; `None` if it says so already.
fn lost(node: &Node, now: Timestamp) -> Option<Node> {
    let mut lost = node.clone();
    let conditions = lost.status.get_or_insert_default().conditions.get_or_insert_default();
    for vital in VITAL {
        match conditions.iter_mut().find(|condition| condition.type_ == vital) {
            Some(condition) if condition.status == "Unknown" => {}
            Some(condition) => {
                condition.status = "Unknown".into();
                condition.reason = Some("NodeStatusUnknown".into());
                condition.message = Some("Kubelet stopped posting node status.".into());
                condition.last_transition_time = Some(Time(now));
            }
            None => conditions.push(NodeCondition {
                type_: vital.into(),
                status: "Unknown".into(),
                reason: Some("NodeStatusNeverUpdated".into()),
                message: Some("Kubelet never posted node status.".into()),
                last_heartbeat_time: node.metadata.creation_timestamp.clone(),
                last_transition_time: Some(Time(now)),
            }),
        }
    }
    (lost != *node).then_some(lost)
}

/// True if a pod said that it is ready before its agent said that the node is not.
fn is_outdated(pod: &Pod, node: &Node) -> bool {
    let unwell = condition(node, "Ready").filter(|ready| ready.status == "False" && pods::is_ready(pod));
    unwell.is_some_and(|ready| pods::ready_since(pod) <= ready.last_transition_time.as_ref().map(|time| time.0))
}

fn not_ready(pod: &Pod, now: Timestamp) -> Pod {
    let mut pod = pod.clone();
    let generation = pod.metadata.generation;
    let conditions = pod.status.get_or_insert_default().conditions.get_or_insert_default();
    for ready in conditions.iter_mut().filter(|condition| condition.type_ == "Ready") {
        ready.status = "False".into();
        ready.last_transition_time = Some(Time(now));
        ready.observed_generation = generation;
    }
    pod
}

fn not_ready_event(node: &Node) -> EventNote {
    let name = node.metadata.name.clone().unwrap_or_default();
    EventNote {
        message: format!("Node {name} status is now: NodeNotReady"),
        regarding: Key::new(Kind::Node, "", name),
        uid: node.metadata.uid.clone().unwrap_or_default(),
        kind: EventType::Normal,
        reason: "NodeNotReady",
        source: SOURCE,
    }
}

fn pod_event(pod: &Pod) -> EventNote {
    EventNote {
        regarding: Key::new(Kind::Pod, pod.metadata.namespace.clone().unwrap_or_default(), pods::name(pod)),
        uid: pod.metadata.uid.clone().unwrap_or_default(),
        kind: EventType::Warning,
        reason: "NodeNotReady",
        message: "Node is not ready".into(),
        source: SOURCE,
    }
}
