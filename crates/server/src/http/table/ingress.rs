//! The cells of Ingresses and IngressClasses.

use std::collections::BTreeSet;

use k8s_openapi::api::networking::v1::{Ingress, IngressClass, IngressRule};
use serde_json::{Value, json};

use crate::door::DEFAULT_CLASS;

/// Hosts that are named; of more only the number is told.
const HOSTS_SHOWN: usize = 3;

pub(super) fn ingress(ingress: &Ingress, name: Value, age: Value) -> Vec<Value> {
    let spec = ingress.spec.clone().unwrap_or_default();
    let balancer = ingress.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let places = balancer.into_iter().flat_map(|balancer| balancer.ingress.iter().flatten());
    let of = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let addresses: BTreeSet<String> =
        places.filter_map(|place| of(&place.ip).or_else(|| of(&place.hostname))).collect();
    let ports = if spec.tls.is_some_and(|tls| !tls.is_empty()) { "80, 443" } else { "80" };
    vec![
        name,
        json!(spec.ingress_class_name.unwrap_or_else(|| "<none>".into())),
        json!(hosts(spec.rules.as_deref().unwrap_or_default())),
        json!(addresses.into_iter().collect::<Vec<_>>().join(",")),
        json!(ports),
        age,
    ]
}

/// Mirrors formatHosts: more are counted only once one too many is met.
fn hosts(rules: &[IngressRule]) -> String {
    let mut named: Vec<&str> = Vec::new();
    let mut more = false;
    for rule in rules {
        more |= named.len() == HOSTS_SHOWN;
        named.extend(rule.host.as_deref().filter(|host| !more && !host.is_empty()));
    }
    match (named.is_empty(), more) {
        (true, _) => "*".into(),
        (false, false) => named.join(","),
        (false, true) => format!("{} + {} more...", named.join(","), rules.len() - HOSTS_SHOWN),
    }
}

pub(super) fn class(class: &IngressClass, age: Value) -> Vec<Value> {
    let spec = class.spec.clone().unwrap_or_default();
    let annotations = class.metadata.annotations.as_ref();
    let is_default = annotations.and_then(|all| all.get(DEFAULT_CLASS)).is_some_and(|value| value == "true");
    let name = class.metadata.name.clone().unwrap_or_default();
    let parameters = spec.parameters.map_or_else(
        || "<none>".to_owned(),
        |it| format!("{}{}/{}", it.kind, it.api_group.map(|group| format!(".{group}")).unwrap_or_default(), it.name),
    );
    vec![
        json!(if is_default { format!("{name} (default)") } else { name }),
        json!(spec.controller.unwrap_or_default()),
        json!(parameters),
        age,
    ]
}
