//! Which nodes can take a pod: one check after the other, the first that fails tells why.
//!
//! Mirrors upstream's plugins NodeUnschedulable, TaintToleration, NodeAffinity, NodePorts and NodeResourcesFit
//! (`pkg/scheduler/framework/plugins`), in their order and with their words. A node that is not ready takes no pod; in
//! upstream a taint says so.

use api::Snapshot;
use api::node_fit::{any_term_fits, is_ready, tolerates};
use api::node_load::NodeLoad;
use api::pod_resources::{self, ports_clash};
use api::quantity::Amount;
use k8s_openapi::api::core::v1::{Node, Taint};

use crate::ask::Ask;
use crate::name_of;

/// Why a node is not taken that the pod does not ask for.
pub const NOT_WANTED: &str = "node(s) didn't match Pod's node affinity/selector";

/// Says whether a node can take a pod, other pods' wishes aside; if not, why.
pub fn check(ask: &Ask, node: &Node, load: Option<&NodeLoad>, world: &Snapshot) -> Result<(), Vec<String>> {
    let unless = |good: bool, why: &str| if good { Ok(()) } else { Err(vec![why.to_owned()]) };
    unless(takes_pods(ask, node), "node(s) were unschedulable")?;
    unless(
        is_ready(node) || tolerates(ask.tolerations(), &taint("node.kubernetes.io/not-ready")),
        "node(s) were not ready",
    )?;
    unless(untolerated(ask, node, &["NoSchedule", "NoExecute"]).next().is_none(), "node(s) had untolerated taint(s)")?;
    unless(is_wanted(ask, node), NOT_WANTED)?;
    unless(ports_are_free(ask, load), "node(s) didn't have free ports for the requested pod ports")?;
    let lacking = lacking(ask, node, load, world);
    if lacking.is_empty() { Ok(()) } else { Err(lacking) }
}

/// Taints with one of these effects that the pod does not put up with.
pub fn untolerated<'a>(ask: &'a Ask, node: &'a Node, effects: &'a [&str]) -> impl Iterator<Item = &'a Taint> {
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    taints
        .iter()
        .filter(|taint| effects.contains(&taint.effect.as_str()))
        .filter(|taint| !tolerates(ask.tolerations(), taint))
}

/// True if the node has the labels and fields that the pod demands.
pub fn is_wanted(ask: &Ask, node: &Node) -> bool {
    let labels = node.metadata.labels.as_ref();
    let selected = ask.node_selector().is_none_or(|selector| {
        selector.iter().all(|(name, value)| labels.is_some_and(|labels| labels.get(name) == Some(value)))
    });
    selected && ask.required_nodes().is_none_or(|selector| any_term_fits(selector, node))
}

fn takes_pods(ask: &Ask, node: &Node) -> bool {
    let cordoned = node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or(false);
    !cordoned || tolerates(ask.tolerations(), &taint("node.kubernetes.io/unschedulable"))
}

fn taint(key: &str) -> Taint {
    Taint { key: key.to_owned(), effect: "NoSchedule".into(), ..Default::default() }
}

fn ports_are_free(ask: &Ask, load: Option<&NodeLoad>) -> bool {
    let Some(load) = load else { return true };
    let taken = |port| load.host_ports.keys().any(|other| ports_clash(port, other));
    !ask.host_ports.iter().any(taken)
}

/// What the node has not enough of (upstream: fitsRequest).
fn lacking(ask: &Ask, node: &Node, load: Option<&NodeLoad>, world: &Snapshot) -> Vec<String> {
    let free = Room::of(node).minus(load);
    let mut lacking = Vec::new();
    if free.pods < 1 {
        lacking.push("Too many pods".to_owned());
    }
    if ask.requests.cpu_milli > 0 && ask.requests.cpu_milli > free.cpu_milli {
        lacking.push("Insufficient cpu".to_owned());
    }
    if ask.requests.memory_bytes > 0 && ask.requests.memory_bytes > free.memory_bytes {
        lacking.push("Insufficient memory".to_owned());
    }
    for (name, wanted) in &ask.others {
        // Rare resources are not kept in the load, so they are summed up here.
        let used =
            world.pods_on(name_of(node)).filter(|pod| !crate::has_ended(pod)).fold(Amount::ZERO, |mut sum, pod| {
                let requested = pod.spec.as_deref().map(pod_resources::requested).unwrap_or_default();
                sum += requested.get(name).copied().unwrap_or_default();
                sum
            });
        let mut needed = used;
        needed += *wanted;
        if needed > allocatable(node, name).unwrap_or(Amount::ZERO) {
            lacking.push(format!("Insufficient {name}"));
        }
    }
    lacking
}

/// Room on a node.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// Thousandths of a core.
    pub cpu_milli: i64,
    /// Bytes of memory.
    pub memory_bytes: i64,
    /// Pods.
    pub pods: i64,
}

impl Room {
    /// All room there is for pods. A resource that the node does not tell of is not there.
    pub fn of(node: &Node) -> Room {
        let amount = |name: &str| allocatable(node, name).unwrap_or(Amount::ZERO);
        Room { cpu_milli: amount("cpu").milli(), memory_bytes: amount("memory").value(), pods: amount("pods").value() }
    }

    /// What is left of it beside this load.
    pub fn minus(self, load: Option<&NodeLoad>) -> Room {
        let Some(load) = load else { return self };
        Room {
            cpu_milli: self.cpu_milli - load.cpu_milli,
            memory_bytes: self.memory_bytes - load.memory_bytes,
            pods: self.pods - load.pods,
        }
    }
}

fn allocatable(node: &Node, name: &str) -> Option<Amount> {
    let status = node.status.as_ref()?;
    let list = status.allocatable.as_ref().or(status.capacity.as_ref())?;
    list.get(name).map(Amount::of)
}
