//! Which nodes can take a pod: one check after the other, the first that fails tells why.
//!
//! Mirrors upstream's plugins NodeUnschedulable, TaintToleration, NodeAffinity, NodePorts and NodeResourcesFit
//! (`pkg/scheduler/framework/plugins`), in their order and with their words. A node that is not ready takes no pod; in
//! upstream a taint says so.

use api::Snapshot;
use api::node_load::NodeLoad;
use api::pod_resources::{self, ports_clash};
use api::quantity::Amount;
use k8s_openapi::api::core::v1::{Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Taint, Toleration};

use crate::ask::Ask;
use crate::name_of;

/// Says whether a node can take a pod, other pods' wishes aside; if not, why.
pub fn check(ask: &Ask, node: &Node, load: Option<&NodeLoad>, world: &Snapshot) -> Result<(), Vec<String>> {
    let unless = |good: bool, why: &str| if good { Ok(()) } else { Err(vec![why.to_owned()]) };
    unless(takes_pods(ask, node), "node(s) were unschedulable")?;
    unless(
        is_ready(node) || tolerates(ask.tolerations(), &taint("node.kubernetes.io/not-ready")),
        "node(s) were not ready",
    )?;
    unless(untolerated(ask, node, &["NoSchedule", "NoExecute"]).next().is_none(), "node(s) had untolerated taint(s)")?;
    unless(is_wanted(ask, node), "node(s) didn't match Pod's node affinity/selector")?;
    unless(ports_are_free(ask, load), "node(s) didn't have free ports for the requested pod ports")?;
    let lacking = lacking(ask, node, load, world);
    if lacking.is_empty() { Ok(()) } else { Err(lacking) }
}

/// True if the node's agent reports that it works.
pub fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
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

/// True if one term of the selector fits.
fn any_term_fits(selector: &NodeSelector, node: &Node) -> bool {
    selector.node_selector_terms.iter().any(|term| term_fits(term, node))
}

/// True if all demands of a term are met. A term without demands fits no node.
pub fn term_fits(term: &NodeSelectorTerm, node: &Node) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    let label = |key: &str| node.metadata.labels.as_ref().and_then(|labels| labels.get(key)).map(String::as_str);
    let field = |key: &str| if key == "metadata.name" { Some(name_of(node)) } else { None };
    (!expressions.is_empty() || !fields.is_empty())
        && expressions.iter().all(|demand| is_met(demand, label(&demand.key)))
        && fields.iter().all(|demand| demand.key == "metadata.name" && is_met(demand, field(&demand.key)))
}

fn is_met(demand: &NodeSelectorRequirement, found: Option<&str>) -> bool {
    let values = demand.values.as_deref().unwrap_or_default();
    let among = || found.is_some_and(|found| values.iter().any(|value| value == found));
    let compare = |holds: fn(i64, i64) -> bool| {
        let limit = values.first().and_then(|value| value.parse::<i64>().ok());
        let number = found.and_then(|found| found.parse::<i64>().ok());
        values.len() == 1 && number.zip(limit).is_some_and(|(number, limit)| holds(number, limit))
    };
    match demand.operator.as_str() {
        "In" => among(),
        "NotIn" => !among(),
        "Exists" => found.is_some(),
        "DoesNotExist" => found.is_none(),
        "Gt" => compare(|number, limit| number > limit),
        "Lt" => compare(|number, limit| number < limit),
        _ => false,
    }
}

fn takes_pods(ask: &Ask, node: &Node) -> bool {
    let cordoned = node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or(false);
    !cordoned || tolerates(ask.tolerations(), &taint("node.kubernetes.io/unschedulable"))
}

fn taint(key: &str) -> Taint {
    Taint { key: key.to_owned(), effect: "NoSchedule".into(), ..Default::default() }
}

/// Upstream: ToleratesTaint.
fn tolerates(tolerations: &[Toleration], taint: &Taint) -> bool {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    tolerations.iter().any(|toleration| {
        let (effect, key) = (text(&toleration.effect), text(&toleration.key));
        let value_fits = match toleration.operator.as_deref() {
            None | Some("" | "Equal") => text(&toleration.value) == text(&taint.value),
            Some("Exists") => true,
            _ => false,
        };
        (effect.is_empty() || effect == taint.effect) && (key.is_empty() || key == taint.key) && value_fits
    })
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
                let requested = pod.spec.as_ref().map(pod_resources::requested).unwrap_or_default();
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
