//! Where other pods are, as far as a pod minds them: (anti-)affinity between pods and even spreading.
//!
//! Mirrors upstream's plugins InterPodAffinity and PodTopologySpread. The other pods are counted once for each pod to
//! be placed, and only if it minds them; pods that keep others away are found by their index. A wish with
//! `matchLabelKeys` also looks at those labels of the pod itself.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use api::Pod;
use api::Snapshot;
use api::selector::Selector;
use k8s_openapi::api::core::v1::{Namespace, Node, PodAffinityTerm, TopologySpreadConstraint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use crate::ask::Ask;
use crate::{filter, has_ended, name_of};

type Labels = BTreeMap<String, String>;

/// What other pods mean for the place of one pod.
pub struct Topology<'a> {
    near: Vec<Near<'a>>,
    apart: Vec<Domain<'a>>,
    kept_away: BTreeSet<(String, String)>,
    even: Vec<Even<'a>>,
    preferred: Vec<(i64, Domain<'a>)>,
}

/// Matching pods in each domain of a topology.
struct Domain<'a> {
    key: &'a str,
    counts: HashMap<&'a str, i32>,
}

/// Required affinity.
struct Near<'a> {
    domain: Domain<'a>,
    /// True if no such pod is anywhere and the pod itself is one: the first of a group may go anywhere.
    first: bool,
}

/// A constraint on how even the spread is.
struct Even<'a> {
    domain: Domain<'a>,
    max_skew: i32,
    least: i32,
    itself: i32,
    /// Only a wish.
    soft: bool,
}

impl<'a> Topology<'a> {
    /// Counts the pods that `pod` minds.
    pub fn survey(pod: &'a Pod, ask: &Ask<'a>, nodes: &[&'a Node], world: &'a Snapshot) -> Topology<'a> {
        let nodes_by_name: HashMap<&str, &Node> =
            if ask.minds_other_pods() || world.pods_keeping_away().next().is_some() {
                nodes.iter().map(|node| (name_of(node), *node)).collect()
            } else {
                HashMap::new()
            };
        let survey = Survey { pod, ask, nodes: nodes_by_name, world };
        Topology {
            near: ask.required_near().iter().map(|term| survey.near(term)).collect(),
            apart: ask.required_apart().iter().map(|term| survey.term(term)).collect(),
            kept_away: survey.kept_away(),
            even: ask.spread().iter().map(|constraint| survey.even(constraint)).collect(),
            preferred: survey.preferred(),
        }
    }

    /// Says whether other pods allow this node; if not, why.
    pub fn check(&self, node: &Node) -> Result<(), Vec<String>> {
        let refuse = |why: &str| Err(vec![why.to_owned()]);
        for even in self.even.iter().filter(|even| !even.soft) {
            let Some(count) = even.domain.count(node) else {
                return refuse("node(s) didn't match pod topology spread constraints (missing required label)");
            };
            if count + even.itself - even.least > even.max_skew {
                return refuse("node(s) didn't match pod topology spread constraints");
            }
        }
        if !self.near.iter().all(|near| near.domain.count(node).is_some_and(|count| count > 0 || near.first)) {
            return refuse("node(s) didn't match pod affinity rules");
        }
        if self.apart.iter().any(|apart| apart.count(node).is_some_and(|count| count > 0)) {
            return refuse("node(s) didn't match pod anti-affinity rules");
        }
        let labels = node.metadata.labels.iter().flatten();
        let mut domains = labels.map(|(key, value)| (key.clone(), value.clone()));
        if !self.kept_away.is_empty() && domains.any(|domain| self.kept_away.contains(&domain)) {
            return refuse("node(s) didn't satisfy existing pods anti-affinity rules");
        }
        Ok(())
    }

    /// How well other pods like this node: more is better.
    pub fn score(&self, node: &Node) -> i64 {
        let liked: i64 =
            self.preferred.iter().map(|(weight, domain)| weight * i64::from(domain.count(node).unwrap_or(0))).sum();
        let soft = self.even.iter().filter(|even| even.soft);
        let crowded: i64 = soft.map(|even| 100 * i64::from(even.domain.count(node).unwrap_or(i32::MAX / 1000))).sum();
        liked - crowded
    }

    /// True if [`Topology::score`] says anything.
    pub fn has_wishes(&self) -> bool {
        !self.preferred.is_empty() || self.even.iter().any(|even| even.soft)
    }
}

impl Domain<'_> {
    /// Matching pods in the domain of a node; `None` if the node is in no domain.
    fn count(&self, node: &Node) -> Option<i32> {
        let value = label(node, self.key)?;
        Some(self.counts.get(value).copied().unwrap_or(0))
    }
}

/// The counting of one pod's neighbours.
struct Survey<'a, 'b> {
    pod: &'a Pod,
    ask: &'b Ask<'a>,
    nodes: HashMap<&'a str, &'a Node>,
    world: &'a Snapshot,
}

impl<'a> Survey<'a, '_> {
    fn near(&self, term: &'a PodAffinityTerm) -> Near<'a> {
        let domain = self.term(term);
        let selector = selector(term.label_selector.as_ref());
        let itself = is_meant(&selector, term, self.pod, self.pod)
            && namespaces(term, self.pod, self.world).contains(self.pod.metadata.namespace.as_deref().unwrap_or(""));
        Near { first: itself && domain.counts.values().all(|count| *count == 0), domain }
    }

    fn term(&self, term: &'a PodAffinityTerm) -> Domain<'a> {
        let selector = selector(term.label_selector.as_ref());
        let mut counts = HashMap::new();
        for namespace in namespaces(term, self.pod, self.world) {
            for other in self.placed(&namespace).filter(|other| is_meant(&selector, term, self.pod, other)) {
                if let Some(value) = self.node_of(other).and_then(|node| label(node, &term.topology_key)) {
                    *counts.entry(value).or_insert(0) += 1;
                }
            }
        }
        Domain { key: &term.topology_key, counts }
    }

    /// Domains from which pods that are there keep this one away.
    fn kept_away(&self) -> BTreeSet<(String, String)> {
        let mut domains = BTreeSet::new();
        let own_namespace = self.pod.metadata.namespace.as_deref().unwrap_or("");
        for other in self.world.pods_keeping_away().filter(|other| !has_ended(other)) {
            let Some(node) = self.node_of(other) else { continue };
            let ask = Ask::of(other);
            for term in ask.required_apart() {
                let selector = selector(term.label_selector.as_ref());
                let means_this = is_meant(&selector, term, other, self.pod)
                    && namespaces(term, other, self.world).contains(own_namespace);
                if let (true, Some(value)) = (means_this, label(node, &term.topology_key)) {
                    domains.insert((term.topology_key.clone(), value.to_owned()));
                }
            }
        }
        domains
    }

    fn even(&self, constraint: &'a TopologySpreadConstraint) -> Even<'a> {
        let key = constraint.topology_key.as_str();
        let selector = selector(constraint.label_selector.as_ref());
        let same = |other: &Pod| {
            let keys = constraint.match_label_keys.as_deref().unwrap_or_default();
            selector.matches(other.metadata.labels.as_ref()) && keys.iter().all(|key| same_label(key, self.pod, other))
        };
        let mut counts: HashMap<&str, i32> = HashMap::new();
        for node in self.nodes.values().filter(|node| self.counts_for(constraint, node)) {
            if let Some(value) = label(node, key) {
                counts.entry(value).or_insert(0);
            }
        }
        let namespace = self.pod.metadata.namespace.as_deref().unwrap_or("");
        let placed = self.placed(namespace).filter(|other| other.metadata.deletion_timestamp.is_none());
        for other in placed.filter(|other| same(other)) {
            let node = self.node_of(other).filter(|node| self.counts_for(constraint, node));
            if let Some(count) = node.and_then(|node| counts.get_mut(label(node, key)?)) {
                *count += 1;
            }
        }
        let enough = constraint.min_domains.is_none_or(|least| counts.len() >= usize::try_from(least).unwrap_or(0));
        Even {
            max_skew: constraint.max_skew,
            least: if enough { counts.values().copied().min().unwrap_or(0) } else { 0 },
            itself: i32::from(same(self.pod)),
            soft: constraint.when_unsatisfiable == "ScheduleAnyway",
            domain: Domain { key, counts },
        }
    }

    /// True if the pods of a node count for a constraint.
    fn counts_for(&self, constraint: &TopologySpreadConstraint, node: &Node) -> bool {
        let minds_affinity = constraint.node_affinity_policy.as_deref() != Some("Ignore");
        let minds_taints = constraint.node_taints_policy.as_deref() == Some("Honor");
        let hard = self.ask.spread().iter().filter(|other| other.when_unsatisfiable != "ScheduleAnyway");
        let mut keys = hard.map(|other| other.topology_key.as_str()).chain([constraint.topology_key.as_str()]);
        keys.all(|key| label(node, key).is_some())
            && (!minds_affinity || filter::is_wanted(self.ask, node))
            && (!minds_taints || filter::untolerated(self.ask, node, &["NoSchedule", "NoExecute"]).next().is_none())
    }

    fn preferred(&self) -> Vec<(i64, Domain<'a>)> {
        let near = self.ask.preferred_near().iter().map(|wish| (i64::from(wish.weight), &wish.pod_affinity_term));
        let apart = self.ask.preferred_apart().iter().map(|wish| (-i64::from(wish.weight), &wish.pod_affinity_term));
        near.chain(apart).map(|(weight, term)| (weight, self.term(term))).collect()
    }

    /// Pods of a namespace that have a node.
    fn placed(&self, namespace: &str) -> impl Iterator<Item = &'a Pod> {
        let pods: Vec<&Pod> = self.world.list::<Pod>(Some(namespace)).collect();
        pods.into_iter().filter(|pod| !has_ended(pod) && self.nodes.contains_key(node_name(pod)))
    }

    fn node_of(&self, pod: &Pod) -> Option<&'a Node> {
        self.nodes.get(node_name(pod)).copied()
    }
}

fn node_name(pod: &Pod) -> &str {
    pod.spec.as_deref().and_then(|spec| spec.node_name.as_deref()).unwrap_or("")
}

fn label<'n>(node: &'n Node, key: &str) -> Option<&'n str> {
    node.metadata.labels.as_ref()?.get(key).map(String::as_str)
}

/// The selector of a wish; the door lets none in that cannot be understood.
fn selector(selector: Option<&LabelSelector>) -> Selector {
    Selector::from_label_selector(selector).unwrap_or_else(|_| Selector::nothing())
}

/// True if a wish of `owner` is about `other`, namespaces aside.
fn is_meant(selector: &Selector, term: &PodAffinityTerm, owner: &Pod, other: &Pod) -> bool {
    let same = term.match_label_keys.as_deref().unwrap_or_default();
    let different = term.mismatch_label_keys.as_deref().unwrap_or_default();
    selector.matches(other.metadata.labels.as_ref())
        && same.iter().all(|key| same_label(key, owner, other))
        && !different.iter().any(|key| has_label(key, owner) && same_label(key, owner, other))
}

fn has_label(key: &str, pod: &Pod) -> bool {
    pod.metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(key))
}

/// True if the other pod has the pod's value of this label; a label the pod has not demands nothing.
fn same_label(key: &str, pod: &Pod, other: &Pod) -> bool {
    let of = |labels: Option<&Labels>| labels.and_then(|labels| labels.get(key)).cloned();
    let own = of(pod.metadata.labels.as_ref());
    own.is_none() || own == of(other.metadata.labels.as_ref())
}

/// The namespaces that a wish of `owner` looks into.
fn namespaces(term: &PodAffinityTerm, owner: &Pod, world: &Snapshot) -> BTreeSet<String> {
    let mut names: BTreeSet<String> = term.namespaces.iter().flatten().cloned().collect();
    if let Some(selected) = &term.namespace_selector {
        let selector = selector(Some(selected));
        let fitting = world.list::<Namespace>(None).filter(|it| selector.matches(it.metadata.labels.as_ref()));
        names.extend(fitting.filter_map(|namespace| namespace.metadata.name.clone()));
    } else if names.is_empty() {
        names.insert(owner.metadata.namespace.clone().unwrap_or_default());
    }
    names
}
