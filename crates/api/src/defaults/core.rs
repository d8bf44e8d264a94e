//! Defaults of the core group, but for pods.
//!
//! Mirrors `pkg/apis/core/v1/defaults.go` and, for Secrets, the conversion that merges `stringData` into `data`.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{
    ClientIPConfig, Endpoints, LimitRange, LimitRangeItem, Namespace, NamespaceSpec, Node, PersistentVolume,
    PersistentVolumeClaim, PersistentVolumeClaimSpec, ReplicationController, Secret, Service, ServicePort, ServiceSpec,
    SessionAffinityConfig,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{fill, pod};
use crate::quantity::Amount;

/// Seconds a client stays with its pod under `sessionAffinity: ClientIP`: three hours.
const AFFINITY_SECONDS: i32 = 10_800;
/// The label that names every namespace.
pub const NAMESPACE_NAME_LABEL: &str = "kubernetes.io/metadata.name";
/// The finalizer that holds a namespace until it is empty.
pub const NAMESPACE_FINALIZER: &str = "kubernetes";

/// A namespace: its name label, its phase and its finalizer.
pub fn namespace(namespace: &mut Namespace) {
    if let Some(name) = namespace.metadata.name.clone().filter(|name| !name.is_empty()) {
        namespace.metadata.labels.get_or_insert_default().insert(NAMESPACE_NAME_LABEL.to_owned(), name);
    }
    namespace.spec.get_or_insert_with(NamespaceSpec::default);
    fill(&mut namespace.status.get_or_insert_default().phase, "Active");
}

/// A node: allocatable is what it has, unless told otherwise; the old and the new field of its pods' addresses agree.
pub fn node(node: &mut Node) {
    let spec = node.spec.get_or_insert_default();
    match (spec.pod_cidr.clone(), spec.pod_cidrs.as_ref().and_then(|ranges| ranges.first().cloned())) {
        (Some(one), first) if !one.is_empty() && first.as_ref() != Some(&one) => spec.pod_cidrs = Some(vec![one]),
        (_, first) => spec.pod_cidr = first,
    }
    let status = node.status.get_or_insert_default();
    resource_list(&mut status.capacity);
    if status.allocatable.is_none() {
        status.allocatable.clone_from(&status.capacity);
    }
    resource_list(&mut status.allocatable);
}

/// A Service.
pub fn service(service: &mut Service) {
    let spec = service.spec.get_or_insert_default();
    fill(&mut spec.type_, "ClusterIP");
    session_affinity(spec);
    spec.ports.iter_mut().flatten().for_each(service_port);
    let kind = spec.type_.as_deref().unwrap_or_default();
    let external = matches!(kind, "NodePort" | "LoadBalancer")
        || (kind == "ClusterIP" && spec.external_ips.as_ref().is_some_and(|ips| !ips.is_empty()));
    if external {
        fill(&mut spec.external_traffic_policy, "Cluster");
    }
    if matches!(kind, "NodePort" | "LoadBalancer" | "ClusterIP") {
        fill(&mut spec.internal_traffic_policy, "Cluster");
    }
    if spec.type_.as_deref() == Some("LoadBalancer") {
        spec.allocate_load_balancer_node_ports.get_or_insert(true);
    }
    service.status.get_or_insert_default().load_balancer.get_or_insert_default();
}

fn session_affinity(spec: &mut ServiceSpec) {
    fill(&mut spec.session_affinity, "None");
    match spec.session_affinity.as_deref() {
        Some("None") => spec.session_affinity_config = None,
        Some("ClientIP") => {
            let config = spec.session_affinity_config.get_or_insert_with(SessionAffinityConfig::default);
            let client_ip = config.client_ip.get_or_insert_with(ClientIPConfig::default);
            client_ip.timeout_seconds.get_or_insert(AFFINITY_SECONDS);
        }
        _ => {}
    }
}

fn service_port(port: &mut ServicePort) {
    fill(&mut port.protocol, "TCP");
    let unset = match &port.target_port {
        None | Some(IntOrString::Int(0)) => true,
        Some(IntOrString::String(name)) => name.is_empty(),
        Some(IntOrString::Int(_)) => false,
    };
    if unset {
        port.target_port = Some(IntOrString::Int(port.port));
    }
}

/// Endpoints.
pub fn endpoints(endpoints: &mut Endpoints) {
    for port in endpoints.subsets.iter_mut().flatten().flat_map(|subset| subset.ports.iter_mut().flatten()) {
        fill(&mut port.protocol, "TCP");
    }
}

/// A Secret: its type, and `stringData` merged into `data`.
pub fn secret(secret: &mut Secret) {
    fill(&mut secret.type_, "Opaque");
    for (key, text) in secret.string_data.take().unwrap_or_default() {
        secret.data.get_or_insert_default().insert(key, ByteString(text.into_bytes()));
    }
}

/// A ReplicationController: its selector and labels follow its template's labels.
pub fn replication_controller(controller: &mut ReplicationController) {
    let spec = controller.spec.get_or_insert_default();
    spec.replicas.get_or_insert(1);
    let Some(template) = spec.template.as_mut() else { return };
    pod::pod_template(template);
    let Some(labels) = template.metadata.as_ref().and_then(|meta| meta.labels.clone()) else { return };
    let empty = |map: &Option<BTreeMap<String, String>>| map.as_ref().is_none_or(BTreeMap::is_empty);
    if empty(&spec.selector) {
        spec.selector = Some(labels.clone());
    }
    if empty(&controller.metadata.labels) {
        controller.metadata.labels = Some(labels);
    }
}

/// A PersistentVolumeClaim.
pub fn persistent_volume_claim(claim: &mut PersistentVolumeClaim) {
    fill(&mut claim.status.get_or_insert_default().phase, "Pending");
    claim_spec(claim.spec.get_or_insert_default());
}

pub(super) fn claim_spec(spec: &mut PersistentVolumeClaimSpec) {
    fill(&mut spec.volume_mode, "Filesystem");
    if let Some(resources) = spec.resources.as_mut() {
        resource_list(&mut resources.limits);
        resource_list(&mut resources.requests);
    }
}

/// A PersistentVolume.
pub fn persistent_volume(volume: &mut PersistentVolume) {
    fill(&mut volume.status.get_or_insert_default().phase, "Pending");
    let spec = volume.spec.get_or_insert_default();
    fill(&mut spec.persistent_volume_reclaim_policy, "Retain");
    fill(&mut spec.volume_mode, "Filesystem");
    resource_list(&mut spec.capacity);
    if let Some(host_path) = spec.host_path.as_mut() {
        host_path.type_.get_or_insert_default();
    }
}

/// A LimitRange: of each container limit the default follows the maximum, the default request the default.
pub fn limit_range(range: &mut LimitRange) {
    for item in range.spec.iter_mut().flat_map(|spec| spec.limits.iter_mut()) {
        for list in [
            &mut item.max,
            &mut item.min,
            &mut item.default,
            &mut item.default_request,
            &mut item.max_limit_request_ratio,
        ] {
            resource_list(list);
        }
        if item.type_ == "Container" {
            limit_range_item(item);
        }
    }
}

fn limit_range_item(item: &mut LimitRangeItem) {
    let follow = |from: &Option<BTreeMap<String, Quantity>>, to: &mut BTreeMap<String, Quantity>| {
        for (name, quantity) in from.iter().flatten() {
            to.entry(name.clone()).or_insert_with(|| quantity.clone());
        }
    };
    let mut default = item.default.take().unwrap_or_default();
    let mut request = item.default_request.take().unwrap_or_default();
    follow(&item.max, &mut default);
    let default = Some(default);
    follow(&default, &mut request);
    follow(&item.min, &mut request);
    item.default = default;
    item.default_request = Some(request);
}

/// Rounds every quantity of a list up to thousandths and prints it canonically (upstream: SetDefaults_ResourceList).
pub(super) fn resource_list(list: &mut Option<BTreeMap<String, Quantity>>) {
    list.iter_mut().flat_map(|list| list.values_mut()).for_each(pod::canonical_rounded);
}

/// Prints a quantity canonically, as decoding does upstream.
pub(super) fn canonical_quantity(quantity: &mut Quantity) {
    if let Ok(amount) = Amount::parse(&quantity.0) {
        *quantity = amount.quantity();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use serde_json::{Value, json};

    fn shown<T>(json: Value, default: fn(&mut T)) -> String
    where
        T: serde::de::DeserializeOwned + serde::Serialize,
    {
        let mut object: T = serde_json::from_value(json).unwrap();
        default(&mut object);
        let once = serde_json::to_string(&object).unwrap();
        default(&mut object);
        assert_eq!(serde_json::to_string(&object).unwrap(), once, "defaulting twice changes nothing");
        once + "\n"
    }

    #[test]
    fn objects_are_written_out() {
        let table = [
            shown(json!({"metadata": {"name": "n"}}), namespace),
            shown(json!({"status": {"capacity": {"cpu": "2000m", "memory": "1024Mi"}}}), node),
            shown(json!({"spec": {"ports": [{"port": 80}, {"port": 443, "targetPort": "https"}]}}), service),
            shown(json!({"spec": {"type": "NodePort", "sessionAffinity": "ClientIP", "ports": [{"port": 80, "targetPort": 0}]}}), service),
            shown(json!({"spec": {"type": "ExternalName", "externalName": "a.b"}}), service),
            shown(json!({"data": {"a": "eA=="}, "stringData": {"a": "y", "b": "z"}}), secret),
            shown(json!({"spec": {"template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": []}}}}), replication_controller),
            shown(json!({"spec": {"resources": {"requests": {"storage": "1024Mi"}}}}), persistent_volume_claim),
            shown(json!({"spec": {"limits": [{"type": "Container", "max": {"cpu": "1000m"}, "min": {"memory": "1Mi"}}]}}), limit_range),
        ]
        .concat();
        expect![[r#"
            {"apiVersion":"v1","kind":"Namespace","metadata":{"labels":{"kubernetes.io/metadata.name":"n"},"name":"n"},"spec":{},"status":{"phase":"Active"}}
            {"apiVersion":"v1","kind":"Node","metadata":{},"spec":{},"status":{"allocatable":{"cpu":"2","memory":"1Gi"},"capacity":{"cpu":"2","memory":"1Gi"}}}
            {"apiVersion":"v1","kind":"Service","metadata":{},"spec":{"internalTrafficPolicy":"Cluster","ports":[{"port":80,"protocol":"TCP","targetPort":80},{"port":443,"protocol":"TCP","targetPort":"https"}],"sessionAffinity":"None","type":"ClusterIP"},"status":{"loadBalancer":{}}}
            {"apiVersion":"v1","kind":"Service","metadata":{},"spec":{"externalTrafficPolicy":"Cluster","internalTrafficPolicy":"Cluster","ports":[{"port":80,"protocol":"TCP","targetPort":80}],"sessionAffinity":"ClientIP","sessionAffinityConfig":{"clientIP":{"timeoutSeconds":10800}},"type":"NodePort"},"status":{"loadBalancer":{}}}
            {"apiVersion":"v1","kind":"Service","metadata":{},"spec":{"externalName":"a.b","sessionAffinity":"None","type":"ExternalName"},"status":{"loadBalancer":{}}}
            {"apiVersion":"v1","kind":"Secret","data":{"a":"eQ==","b":"eg=="},"metadata":{},"type":"Opaque"}
            {"apiVersion":"v1","kind":"ReplicationController","metadata":{"labels":{"a":"b"}},"spec":{"replicas":1,"selector":{"a":"b"},"template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[],"dnsPolicy":"ClusterFirst","restartPolicy":"Always","schedulerName":"default-scheduler","securityContext":{},"terminationGracePeriodSeconds":30}}}}
            {"apiVersion":"v1","kind":"PersistentVolumeClaim","metadata":{},"spec":{"resources":{"requests":{"storage":"1Gi"}},"volumeMode":"Filesystem"},"status":{"phase":"Pending"}}
            {"apiVersion":"v1","kind":"LimitRange","metadata":{},"spec":{"limits":[{"default":{"cpu":"1"},"defaultRequest":{"cpu":"1","memory":"1Mi"},"max":{"cpu":"1"},"min":{"memory":"1Mi"},"type":"Container"}]}}
        "#]].assert_eq(&table);
    }
}
