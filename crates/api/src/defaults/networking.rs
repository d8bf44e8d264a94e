//! Defaults of NetworkPolicies and IngressClasses; an Ingress has none.
//!
//! Mirrors `pkg/apis/networking/v1/defaults.go`.

use k8s_openapi::api::networking::v1::{IngressClass, NetworkPolicy};

/// A NetworkPolicy: it is about what comes in, and about what goes out if it has rules for that.
pub fn network_policy(policy: &mut NetworkPolicy) {
    let spec = policy.spec.get_or_insert_default();
    if spec.policy_types.as_ref().is_none_or(Vec::is_empty) {
        let mut types = vec!["Ingress".to_owned()];
        if spec.egress.as_ref().is_some_and(|rules| !rules.is_empty()) {
            types.push("Egress".to_owned());
        }
        spec.policy_types = Some(types);
    }
    let incoming = spec.ingress.iter_mut().flatten().flat_map(|rule| rule.ports.iter_mut().flatten());
    let outgoing = spec.egress.iter_mut().flatten().flat_map(|rule| rule.ports.iter_mut().flatten());
    for port in incoming.chain(outgoing) {
        port.protocol.get_or_insert_with(|| "TCP".to_owned());
    }
}

/// An IngressClass: its parameters are cluster-wide.
pub fn ingress_class(class: &mut IngressClass) {
    if let Some(parameters) = class.spec.as_mut().and_then(|spec| spec.parameters.as_mut()) {
        parameters.scope.get_or_insert_with(|| "Cluster".to_owned());
    }
}
