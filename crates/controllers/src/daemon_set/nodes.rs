//! Which nodes a DaemonSet's pods belong on, and which node a pod is meant for.
//!
//! Mirrors upstream's NodeShouldRunDaemonPod (`pkg/controller/daemon/daemon_controller.go`) and
//! `pkg/controller/daemon/util/daemonset_util.go`. A node that is not ready counts as tainted, as the scheduler has it.
//! Never looks at room: a pod for which there is none waits for it on its node.

use api::Object;
use api::Pod;
use api::node_fit::{NAME_FIELD, any_term_fits, is_ready, only_node, tolerates};
use api::pod_facts::HOSTNAME_LABEL;
use k8s_openapi::api::core::v1::{
    Affinity, Node, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PodSpec, Taint, Toleration,
};

use crate::pods;

/// What a DaemonSet wants of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// A pod is to run there.
    Run,
    /// No pod is started there, but one that runs may stay until an update replaces it: the node minds the template.
    RunOut,
    /// No pod is started there, and one that runs is left alone: the node is not ready.
    Stay,
    /// No pod may be there.
    Leave,
}

/// A template as far as nodes mind it.
pub struct Wants<'a> {
    spec: &'a PodSpec,
    tolerations: Vec<Toleration>,
}

impl<'a> Wants<'a> {
    /// Reads a template.
    pub fn of(spec: &'a PodSpec) -> Wants<'a> {
        let mut tolerations = spec.tolerations.clone().unwrap_or_default();
        tolerate(&mut tolerations, spec.host_network == Some(true));
        Wants { spec, tolerations }
    }

    /// What is to be on this node.
    pub fn judge(&self, node: &Node) -> Fit {
        if !self.is_wanted(node) {
            return Fit::Leave;
        }
        if self.minds(node, &["NoExecute"]) {
            return Fit::Leave;
        }
        let not_ready = || tolerates(&self.tolerations, &taint("node.kubernetes.io/not-ready", "NoSchedule"));
        let starts = !self.minds(node, &["NoSchedule"]) && (is_ready(node) || not_ready());
        match is_ready(node) {
            _ if starts => Fit::Run,
            true => Fit::RunOut,
            false => Fit::Stay,
        }
    }

    /// True if it asks for more of a node than nodes of one [kin](api::pod_facts::Facts::kin) have in common.
    pub fn tells_kin_apart(&self) -> bool {
        let affinity = self.spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
        let required = affinity.and_then(|it| it.required_during_scheduling_ignored_during_execution.as_ref());
        let mut terms = required.iter().flat_map(|selector| &selector.node_selector_terms);
        let names = |term: &NodeSelectorTerm| {
            term.match_fields.as_ref().is_some_and(|fields| !fields.is_empty())
                || term.match_expressions.iter().flatten().any(|demand| demand.key == HOSTNAME_LABEL)
        };
        self.spec.node_name.as_deref().is_some_and(|name| !name.is_empty())
            || self.spec.node_selector.iter().flatten().any(|(key, _)| key == HOSTNAME_LABEL)
            || terms.any(names)
    }

    fn is_wanted(&self, node: &Node) -> bool {
        let labels = node.metadata.labels.as_ref();
        let named = self.spec.node_name.as_deref().filter(|name| !name.is_empty());
        let affinity = self.spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
        let required = affinity.and_then(|it| it.required_during_scheduling_ignored_during_execution.as_ref());
        named.is_none_or(|name| node.metadata.name.as_deref() == Some(name))
            && self
                .spec
                .node_selector
                .iter()
                .flatten()
                .all(|(key, value)| labels.is_some_and(|labels| labels.get(key) == Some(value)))
            && required.is_none_or(|selector| any_term_fits(selector, node))
    }

    /// True if the node has a taint of one of these effects that is not put up with.
    fn minds(&self, node: &Node, effects: &[&str]) -> bool {
        let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
        let mut minded = taints.iter().filter(|taint| effects.contains(&taint.effect.as_str()));
        minded.any(|taint| !tolerates(&self.tolerations, taint))
    }
}

/// The node that a pod is on or meant for.
pub fn target(pod: &Pod) -> Option<&str> {
    let bound = pods::node(pod);
    if !bound.is_empty() {
        return Some(bound);
    }
    let affinity = pod.spec.as_deref()?.affinity.as_ref()?.node_affinity.as_ref()?;
    only_node(affinity.required_during_scheduling_ignored_during_execution.as_ref()?)
}

/// Pins a pod to a node. What the template demanded of nodes was asked before.
pub fn pin(spec: &mut PodSpec, node: &str) {
    let name =
        NodeSelectorRequirement { key: NAME_FIELD.into(), operator: "In".into(), values: Some(vec![node.to_owned()]) };
    let term = NodeSelectorTerm { match_fields: Some(vec![name]), match_expressions: None };
    let affinity: &mut Affinity = spec.affinity.get_or_insert_default();
    let nodes: &mut NodeAffinity = affinity.node_affinity.get_or_insert_default();
    nodes.required_during_scheduling_ignored_during_execution = Some(NodeSelector { node_selector_terms: vec![term] });
}

/// What every daemon pod puts up with (upstream: AddOrUpdateDaemonPodTolerations).
pub fn tolerate(tolerations: &mut Vec<Toleration>, host_network: bool) {
    const ALWAYS: [(&str, &str); 6] = [
        ("node.kubernetes.io/not-ready", "NoExecute"),
        ("node.kubernetes.io/unreachable", "NoExecute"),
        ("node.kubernetes.io/disk-pressure", "NoSchedule"),
        ("node.kubernetes.io/memory-pressure", "NoSchedule"),
        ("node.kubernetes.io/pid-pressure", "NoSchedule"),
        ("node.kubernetes.io/unschedulable", "NoSchedule"),
    ];
    let network = host_network.then_some(("node.kubernetes.io/network-unavailable", "NoSchedule"));
    for (key, effect) in ALWAYS.into_iter().chain(network) {
        let wanted = Toleration {
            key: Some(key.into()),
            operator: Some("Exists".into()),
            effect: Some(effect.into()),
            ..Default::default()
        };
        let same =
            |it: &&mut Toleration| it.key == wanted.key && it.effect == wanted.effect && it.value == wanted.value;
        match tolerations.iter_mut().find(same) {
            Some(known) => *known = wanted,
            None => tolerations.push(wanted),
        }
    }
}

fn taint(key: &str, effect: &str) -> Taint {
    Taint { key: key.to_owned(), effect: effect.to_owned(), ..Default::default() }
}

/// All of a node that decides whether daemon pods belong on it.
pub fn digest(object: Option<&Object>) -> Option<impl PartialEq + '_> {
    let node = object?.get::<Node>()?;
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_ref());
    Some((node.metadata.labels.as_ref(), taints, is_ready(node)))
}
