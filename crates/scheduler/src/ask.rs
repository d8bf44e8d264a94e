//! What a pod wants of a node, read once for all nodes.

use api::Pod;
use api::node_load::NodeLoad;
use api::pod_resources::{self, Amounts, HostPort, Requests};
use k8s_openapi::api::core::v1::{
    NodeSelector, PodAffinityTerm, PodSpec, PreferredSchedulingTerm, Toleration, TopologySpreadConstraint,
    WeightedPodAffinityTerm,
};
use std::collections::BTreeMap;

/// The wishes of one pod.
pub struct Ask<'a> {
    /// Cpu and memory.
    pub requests: Requests,
    /// All other resources.
    pub others: Amounts,
    /// Ports of the node.
    pub host_ports: Vec<HostPort>,
    /// Uid of the pod's controller: its siblings are to be spread.
    pub controller: Option<&'a str>,
    spec: Option<&'a PodSpec>,
}

impl<'a> Ask<'a> {
    /// Reads a pod.
    pub fn of(pod: &'a Pod) -> Ask<'a> {
        let spec = pod.spec.as_deref();
        let mut others = spec.map(pod_resources::requested).unwrap_or_default();
        others.retain(|name, amount| name != "cpu" && name != "memory" && !amount.is_zero());
        Ask {
            requests: spec.map(pod_resources::requests).unwrap_or_default(),
            others,
            host_ports: spec.map(pod_resources::host_ports).unwrap_or_default(),
            controller: api::object::controller_of(&pod.metadata).map(|owner| owner.uid.as_str()),
            spec,
        }
    }

    /// Taints it puts up with.
    pub fn tolerations(&self) -> &'a [Toleration] {
        self.spec.and_then(|spec| spec.tolerations.as_deref()).unwrap_or_default()
    }

    /// Labels the node must have.
    pub fn node_selector(&self) -> Option<&'a BTreeMap<String, String>> {
        self.spec?.node_selector.as_ref()
    }

    /// What the node must be like.
    pub fn required_nodes(&self) -> Option<&'a NodeSelector> {
        let affinity = self.spec?.affinity.as_ref()?.node_affinity.as_ref()?;
        affinity.required_during_scheduling_ignored_during_execution.as_ref()
    }

    /// The one node it may go to, if it demands one by name.
    pub fn only_node(&self) -> Option<&'a str> {
        self.required_nodes().and_then(api::node_fit::only_node)
    }

    /// What the node had better be like.
    pub fn preferred_nodes(&self) -> &'a [PreferredSchedulingTerm] {
        let affinity = self.spec.and_then(|spec| spec.affinity.as_ref()?.node_affinity.as_ref());
        let terms = affinity.and_then(|it| it.preferred_during_scheduling_ignored_during_execution.as_deref());
        terms.unwrap_or_default()
    }

    /// Pods that must be near.
    pub fn required_near(&self) -> &'a [PodAffinityTerm] {
        let affinity = self.spec.and_then(|spec| spec.affinity.as_ref()?.pod_affinity.as_ref());
        let terms = affinity.and_then(|it| it.required_during_scheduling_ignored_during_execution.as_deref());
        terms.unwrap_or_default()
    }

    /// Pods that must not be near.
    pub fn required_apart(&self) -> &'a [PodAffinityTerm] {
        let affinity = self.spec.and_then(|spec| spec.affinity.as_ref()?.pod_anti_affinity.as_ref());
        let terms = affinity.and_then(|it| it.required_during_scheduling_ignored_during_execution.as_deref());
        terms.unwrap_or_default()
    }

    /// Pods that had better be near.
    pub fn preferred_near(&self) -> &'a [WeightedPodAffinityTerm] {
        let affinity = self.spec.and_then(|spec| spec.affinity.as_ref()?.pod_affinity.as_ref());
        let terms = affinity.and_then(|it| it.preferred_during_scheduling_ignored_during_execution.as_deref());
        terms.unwrap_or_default()
    }

    /// Pods that had better not be near.
    pub fn preferred_apart(&self) -> &'a [WeightedPodAffinityTerm] {
        let affinity = self.spec.and_then(|spec| spec.affinity.as_ref()?.pod_anti_affinity.as_ref());
        let terms = affinity.and_then(|it| it.preferred_during_scheduling_ignored_during_execution.as_deref());
        terms.unwrap_or_default()
    }

    /// How evenly it and its like are to be spread.
    pub fn spread(&self) -> &'a [TopologySpreadConstraint] {
        self.spec.and_then(|spec| spec.topology_spread_constraints.as_deref()).unwrap_or_default()
    }

    /// True if its place depends on where other pods are.
    pub fn minds_other_pods(&self) -> bool {
        !(self.required_near().is_empty()
            && self.required_apart().is_empty()
            && self.preferred_near().is_empty()
            && self.preferred_apart().is_empty()
            && self.spread().is_empty())
    }

    /// Pods of the same controller on a node with this load.
    pub fn siblings(&self, load: Option<&NodeLoad>) -> u32 {
        let count = load.zip(self.controller).and_then(|(load, uid)| load.siblings.get(uid));
        count.copied().unwrap_or(0)
    }
}
