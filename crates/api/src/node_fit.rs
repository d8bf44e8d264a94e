//! Whether a node is what a pod demands, and whether a pod puts up with a node's taints.
//!
//! Mirrors upstream's `staging/src/k8s.io/component-helpers/scheduling/corev1` (nodeaffinity, helpers.go). Asked by the
//! scheduler, and by all who decide which nodes a pod belongs on. Looks at labels, fields and taints only: never at room.

use k8s_openapi::api::core::v1::{Node, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, Taint, Toleration};

/// The one field of a node that can be selected by.
pub const NAME_FIELD: &str = "metadata.name";

/// True if one term of the selector fits.
pub fn any_term_fits(selector: &NodeSelector, node: &Node) -> bool {
    selector.node_selector_terms.iter().any(|term| term_fits(term, node))
}

/// True if all demands of a term are met. A term without demands fits no node.
pub fn term_fits(term: &NodeSelectorTerm, node: &Node) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    let label = |key: &str| node.metadata.labels.as_ref().and_then(|labels| labels.get(key)).map(String::as_str);
    let name = node.metadata.name.as_deref();
    (!expressions.is_empty() || !fields.is_empty())
        && expressions.iter().all(|demand| is_met(demand, label(&demand.key)))
        && fields.iter().all(|demand| demand.key == NAME_FIELD && is_met(demand, name))
}

/// The one node that a selector can fit, if every term names it and no other.
pub fn only_node(selector: &NodeSelector) -> Option<&str> {
    let mut names = selector.node_selector_terms.iter().map(named);
    let first = names.next()??;
    names.all(|name| name == Some(first)).then_some(first)
}

fn named(term: &NodeSelectorTerm) -> Option<&str> {
    let demands = term.match_fields.iter().flatten();
    let mut named = demands.filter(|demand| demand.key == NAME_FIELD && demand.operator == "In");
    match named.next()?.values.as_deref() {
        Some([name]) => Some(name),
        _ => None,
    }
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

/// True if one of the tolerations puts up with the taint (upstream: ToleratesTaint).
pub fn tolerates(tolerations: &[Toleration], taint: &Taint) -> bool {
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

/// True if the node's agent reports that it works.
pub fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}
