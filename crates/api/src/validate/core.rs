//! Namespaces, Nodes, ConfigMaps, Secrets, ServiceAccounts, Endpoints and Events.
//!
//! Mirrors `pkg/apis/core/validation/validation.go` and `events.go`.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, Endpoints, Event, Namespace, Node, Secret, Taint};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::field::{Errors, Fault, Path};
use super::{meta, pod};
use crate::{limits, names};

/// A new namespace.
pub fn create_namespace(namespace: &Namespace) -> Errors {
    let mut errors = Errors::default();
    meta::create(&mut errors, &namespace.metadata, false, names::dns_label);
    let finalizers = namespace.spec.as_ref().and_then(|spec| spec.finalizers.as_ref());
    let path = Path::root("spec.finalizers");
    for name in finalizers.into_iter().flatten() {
        errors.each(&path, name, names::qualified_name(name));
        meta::standard_finalizer(&mut errors, &path, name);
    }
    errors
}

/// A changed status of a namespace.
pub fn update_namespace_status(new: &Namespace, old: &Namespace) -> Errors {
    let mut errors = Errors::default();
    meta::update(&mut errors, &new.metadata, &old.metadata);
    let phase = new.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or_default();
    let path = Path::root("status.Phase");
    match (new.metadata.deletion_timestamp.is_some(), phase) {
        (false, "Active") | (true, "Terminating") => {}
        (false, _) => errors.invalid(&path, phase, "may only be 'Active' if `deletionTimestamp` is empty"),
        (true, _) => errors.invalid(&path, phase, "may only be 'Terminating' if `deletionTimestamp` is not empty"),
    }
    errors
}

/// A new node.
pub fn create_node(node: &Node) -> Errors {
    let mut errors = Errors::default();
    meta::create(&mut errors, &node.metadata, false, names::dns_subdomain);
    node_content(&mut errors, node);
    errors
}

/// A changed node, or a changed status of one.
pub fn update_node(new: &Node, old: &Node) -> Errors {
    let mut errors = Errors::default();
    meta::update(&mut errors, &new.metadata, &old.metadata);
    node_content(&mut errors, new);
    let addresses = new.status.as_ref().and_then(|status| status.addresses.clone()).unwrap_or_default();
    let path = Path::root("status.addresses");
    for (i, address) in addresses.iter().enumerate() {
        if addresses[..i].contains(address) {
            errors.duplicate(&path.index(i), serde_json::to_value(address).unwrap_or_default());
        }
    }
    let (new, old) = (new.spec.clone().unwrap_or_default(), old.spec.clone().unwrap_or_default());
    if old.pod_cidrs.as_ref().is_some_and(|ranges| !ranges.is_empty()) && new.pod_cidrs != old.pod_cidrs {
        let detail = "node updates may not change podCIDR except from \"\" to valid";
        errors.forbidden(&Path::root("spec.podCIDRs"), detail);
    }
    if old.provider_id.as_deref().is_some_and(|id| !id.is_empty()) && new.provider_id != old.provider_id {
        let detail = "node updates may not change providerID except from \"\" to valid";
        errors.forbidden(&Path::root("spec.providerID"), detail);
    }
    errors
}

fn node_content(errors: &mut Errors, node: &Node) {
    let spec = node.spec.as_ref();
    let taints = spec.and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    for (i, taint) in taints.iter().enumerate() {
        node_taint(errors, &taints[..i], taint, i);
    }
    let ranges = Path::root("spec.podCIDRs");
    for (i, range) in spec.and_then(|spec| spec.pod_cidrs.as_ref()).into_iter().flatten().enumerate() {
        errors.each(&ranges.index(i), range, names::address_range(range));
    }
    let Some(status) = node.status.as_ref() else { return };
    for (field, list) in [("capacity", &status.capacity), ("allocatable", &status.allocatable)] {
        amounts(errors, &Path::root("status").child(field), list);
    }
}

fn amounts(errors: &mut Errors, path: &Path<'_>, list: &Option<BTreeMap<String, Quantity>>) {
    for (name, quantity) in list.iter().flatten() {
        pod::amount_of(errors, &path.child(name), name, quantity);
    }
}

fn node_taint(errors: &mut Errors, before: &[Taint], taint: &Taint, i: usize) {
    let list = Path::root("metadata.taints");
    let path = list.index(i);
    errors.each(&path.child("key"), &taint.key, names::qualified_name(&taint.key));
    let value = taint.value.as_deref().unwrap_or_default();
    let problems = names::label_value(value);
    if !problems.is_empty() {
        errors.invalid(&path.child("value"), value, problems.join(";"));
    }
    let effects = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
    errors.one_of(&path.child("effect"), Some(taint.effect.as_str()), &effects);
    if before.iter().any(|other| other.key == taint.key && other.effect == taint.effect) {
        let shown = serde_json::to_value(taint).unwrap_or_default();
        errors.add(&path, Fault::Duplicate, shown, "taints must be unique by key and effect pair");
    }
}

/// A new or changed ConfigMap; `old` is none for a new one.
pub fn config_map(config_map: &ConfigMap, old: Option<&ConfigMap>) -> Errors {
    let mut errors = Errors::default();
    match old {
        None => meta::create(&mut errors, &config_map.metadata, true, names::dns_subdomain),
        Some(old) => meta::update(&mut errors, &config_map.metadata, &old.metadata),
    }
    if let Some(old) = old.filter(|old| old.immutable == Some(true)) {
        stays(&mut errors, "immutable", config_map.immutable == Some(true));
        stays(&mut errors, "data", config_map.data == old.data);
        stays(&mut errors, "binaryData", config_map.binary_data == old.binary_data);
    }
    let (data, binary) = (Path::root("data"), Path::root("binaryData"));
    let mut size = 0;
    for (key, value) in config_map.data.iter().flatten() {
        errors.each(&data.key(key), key, names::config_map_key(key));
        if config_map.binary_data.as_ref().is_some_and(|binary| binary.contains_key(key)) {
            errors.invalid(&data.key(key), key.as_str(), "duplicate of key present in binaryData");
        }
        size += value.len();
    }
    for (key, value) in config_map.binary_data.iter().flatten() {
        errors.each(&binary.key(key), key, names::config_map_key(key));
        size += value.0.len();
    }
    if size > limits::CONFIG_BYTES {
        // Upstream prints its empty path so.
        errors.too_long(&Path::root("[]"), limits::CONFIG_BYTES);
    }
    errors
}

/// A new or changed Secret; `old` is none for a new one.
pub fn secret(secret: &Secret, old: Option<&Secret>) -> Errors {
    let mut errors = Errors::default();
    match old {
        None => meta::create(&mut errors, &secret.metadata, true, names::dns_subdomain),
        Some(old) => {
            meta::update(&mut errors, &secret.metadata, &old.metadata);
            errors.immutable(&Path::root("type"), &secret.type_, &old.type_);
        }
    }
    if let Some(old) = old.filter(|old| old.immutable == Some(true)) {
        stays(&mut errors, "immutable", secret.immutable == Some(true));
        stays(&mut errors, "data", secret.data == old.data);
    }
    let data = Path::root("data");
    let mut size = 0;
    for (key, value) in secret.data.iter().flatten() {
        errors.each(&data.key(key), key, names::config_map_key(key));
        size += value.0.len();
    }
    if size > limits::CONFIG_BYTES {
        errors.too_long(&data, limits::CONFIG_BYTES);
    }
    secret_type(&mut errors, secret);
    errors
}

fn stays(errors: &mut Errors, field: &str, same: bool) {
    if !same {
        errors.forbidden(&Path::root(field), "field is immutable when `immutable` is set");
    }
}

/// What the types of Secrets that Kubernetes knows have to hold.
fn secret_type(errors: &mut Errors, secret: &Secret) {
    const ACCOUNT: &str = "kubernetes.io/service-account.name";
    let data = Path::root("data");
    let value = |key: &str| secret.data.as_ref().and_then(|data| data.get(key));
    let mut require = |keys: &[&str]| {
        for key in keys {
            errors.required(&data.key(key), "");
        }
    };
    match secret.type_.as_deref().unwrap_or_default() {
        "kubernetes.io/service-account-token" => {
            let account = secret.metadata.annotations.as_ref().and_then(|annotations| annotations.get(ACCOUNT));
            if account.is_none_or(String::is_empty) {
                errors.required(&Path::root("metadata.annotations").key(ACCOUNT), "");
            }
        }
        "kubernetes.io/dockercfg" => docker_config(errors, secret, ".dockercfg"),
        "kubernetes.io/dockerconfigjson" => docker_config(errors, secret, ".dockerconfigjson"),
        "kubernetes.io/basic-auth" if value("username").is_none() && value("password").is_none() => {
            require(&["username", "password"]);
        }
        "kubernetes.io/ssh-auth" if value("ssh-privatekey").is_none_or(|key| key.0.is_empty()) => {
            require(&["ssh-privatekey"]);
        }
        "kubernetes.io/tls" => {
            let missing: Vec<&str> = ["tls.crt", "tls.key"].into_iter().filter(|key| value(key).is_none()).collect();
            require(&missing);
        }
        _ => {}
    }
}

fn docker_config(errors: &mut Errors, secret: &Secret, key: &str) {
    let data = Path::root("data");
    match secret.data.as_ref().and_then(|data| data.get(key)) {
        None => errors.required(&data.key(key), ""),
        Some(value) => {
            if let Err(error) = serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(&value.0) {
                errors.invalid(&data.key(key), "<secret contents redacted>", error.to_string());
            }
        }
    }
}

/// New or changed Endpoints; `old` is none for new ones.
pub fn endpoints(endpoints: &Endpoints, old: Option<&Endpoints>) -> Errors {
    let mut errors = Errors::default();
    match old {
        None => meta::create(&mut errors, &endpoints.metadata, true, names::dns_subdomain),
        Some(old) => meta::update(&mut errors, &endpoints.metadata, &old.metadata),
    }
    let subsets = Path::root("subsets");
    for (i, subset) in endpoints.subsets.iter().flatten().enumerate() {
        let path = subsets.index(i);
        let ready = subset.addresses.as_deref().unwrap_or_default();
        let waiting = subset.not_ready_addresses.as_deref().unwrap_or_default();
        if ready.is_empty() && waiting.is_empty() {
            errors.required(&path, "must specify `addresses` or `notReadyAddresses`");
        }
        for (field, list) in [("addresses", ready), ("notReadyAddresses", waiting)] {
            let list_path = path.child(field);
            for (j, address) in list.iter().enumerate() {
                let at = list_path.index(j);
                errors.each(&at.child("ip"), &address.ip, names::endpoint_address(&address.ip));
            }
        }
        let ports = path.child("ports");
        let several = subset.ports.as_ref().is_some_and(|ports| ports.len() > 1);
        for (j, port) in subset.ports.iter().flatten().enumerate() {
            let at = ports.index(j);
            match port.name.as_deref().filter(|name| !name.is_empty()) {
                None if several => errors.required(&at.child("name"), ""),
                Some(name) => errors.each(&at.child("name"), name, names::dns_label(name)),
                None => {}
            }
            errors.each_number(&at.child("port"), i64::from(port.port), names::port_number(port.port));
            errors.one_of(&at.child("protocol"), port.protocol.as_deref(), &["SCTP", "TCP", "UDP"]);
        }
    }
    errors
}

/// A new or changed Event (upstream: `legacyValidateEvent`). One of the newer kind, which knows the very moment, says who reports what
/// was done; an older one only lives where its object lives.
pub fn event(event: &Event, old: Option<&Event>) -> Errors {
    let mut errors = Errors::default();
    match old {
        None => meta::create(&mut errors, &event.metadata, true, names::dns_subdomain),
        Some(old) => meta::update(&mut errors, &event.metadata, &old.metadata),
    }
    let namespace = event.metadata.namespace.as_deref().unwrap_or_default();
    let object = event.involved_object.namespace.as_deref().unwrap_or_default();
    let matching = match (&event.event_time, object) {
        (Some(_), "") => matches!(namespace, "default" | "kube-system"),
        (Some(_), _) => true,
        (None, "") => matches!(namespace, "" | "default"),
        (None, object) => object == namespace,
    };
    if !matching {
        errors.invalid(&Path::root("involvedObject.namespace"), object, "does not match event.namespace");
    }
    if event.event_time.is_some() {
        reported(&mut errors, event);
    }
    errors
}

fn reported(errors: &mut Errors, event: &Event) {
    let controller = event.reporting_component.as_deref().unwrap_or_default();
    let at = Path::root("reportingComponent");
    if controller.is_empty() {
        errors.required(&at, "");
    }
    errors.each(&at, controller, names::qualified_name(controller));
    let bounded = [
        ("reportingInstance", &event.reporting_instance, 128),
        ("action", &event.action, 128),
        ("reason", &event.reason, 128),
        ("message", &event.message, 1_024),
    ];
    for (field, text, most) in bounded {
        let length = text.as_deref().map_or(0, str::len);
        if length == 0 && field != "message" {
            errors.required(&Path::root(field), "");
        }
        if length > most {
            errors.invalid(&Path::root(field), "", format!("can have at most {most} characters"));
        }
    }
}
