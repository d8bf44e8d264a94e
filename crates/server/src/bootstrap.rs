//! What every cluster has from the first moment: namespaces, roles, and the Service of the API itself.

use api::{Body, Kind, Snapshot};
use serde_json::{Value, json};

use crate::pki::KUBERNETES_SERVICE_ADDRESS;

/// Objects that are missing in `world`, with the namespace each belongs in.
pub fn missing(world: &Snapshot, endpoint: std::net::SocketAddr) -> Vec<(String, Body)> {
    wanted(endpoint)
        .into_iter()
        .filter_map(|(kind, namespace, value)| {
            let name = value.pointer("/metadata/name").and_then(Value::as_str).unwrap_or("");
            let absent = world.object(kind, namespace, name).is_none();
            let body = kind.decode(value.clone()).expect("the built-in objects are well formed");
            absent.then(|| (namespace.to_owned(), body))
        })
        .collect()
}

fn wanted(endpoint: std::net::SocketAddr) -> Vec<(Kind, &'static str, Value)> {
    let namespaces = ["default", "kube-system", "kube-public", "kube-node-lease"];
    let mut all: Vec<(Kind, &'static str, Value)> =
        namespaces.into_iter().map(|name| (Kind::Namespace, "", json!({ "metadata": { "name": name } }))).collect();
    all.extend(roles());
    all.push((
        Kind::Service,
        "default",
        json!({
            "metadata": { "name": "kubernetes", "namespace": "default", "labels": { "component": "apiserver", "provider": "kubernetes" } },
            "spec": {
                "clusterIP": KUBERNETES_SERVICE_ADDRESS,
                "ports": [{ "name": "https", "port": 443, "protocol": "TCP", "targetPort": endpoint.port() }],
            },
        }),
    ));
    all
}

fn roles() -> Vec<(Kind, &'static str, Value)> {
    let everything = json!([{ "apiGroups": ["*"], "resources": ["*"], "verbs": ["*"] }]);
    let workloads = ["", "apps", "autoscaling", "batch", "discovery.k8s.io", "coordination.k8s.io", "policy"];
    let read = json!([{ "apiGroups": workloads, "resources": [
        "configmaps", "endpoints", "events", "pods", "pods/log", "pods/status", "services", "serviceaccounts", "namespaces",
        "deployments", "deployments/scale", "deployments/status", "replicasets", "replicasets/scale", "replicasets/status",
        "replicationcontrollers", "replicationcontrollers/scale", "replicationcontrollers/status", "daemonsets", "daemonsets/status",
        "statefulsets", "statefulsets/scale", "statefulsets/status", "controllerrevisions", "jobs", "jobs/status",
        "cronjobs", "cronjobs/status", "horizontalpodautoscalers", "horizontalpodautoscalers/status", "endpointslices",
        "resourcequotas", "resourcequotas/status", "limitranges", "poddisruptionbudgets", "poddisruptionbudgets/status"
    ], "verbs": ["get", "list", "watch"] }, { "apiGroups": ["metrics.k8s.io"], "resources": ["nodes", "pods"], "verbs": ["get", "list"] }]);
    let write = json!([
        read[0],
        read[1],
        { "apiGroups": workloads, "resources": [
            "configmaps", "secrets", "events", "pods", "services", "serviceaccounts", "deployments", "deployments/scale",
            "replicasets", "replicasets/scale", "replicationcontrollers", "replicationcontrollers/scale", "daemonsets",
            "statefulsets", "statefulsets/scale", "jobs", "cronjobs", "horizontalpodautoscalers", "endpoints", "leases",
            "pods/attach", "pods/exec", "pods/portforward", "pods/eviction", "poddisruptionbudgets"
        ], "verbs": ["*"] }
    ]);
    let node = json!([
        { "apiGroups": [""], "resources": ["nodes", "nodes/status", "pods", "pods/status", "events"], "verbs": ["*"] },
        { "apiGroups": [""], "resources": ["services", "configmaps", "secrets", "namespaces", "endpoints"], "verbs": ["get", "list", "watch"] },
        { "apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["get", "list", "watch"] },
        { "apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["*"] }
    ]);
    let role =
        |name: &str, rules: &Value| (Kind::ClusterRole, "", json!({ "metadata": { "name": name }, "rules": rules }));
    let binding = |name: &str, role: &str, group: &str| {
        let subject = json!({ "kind": "Group", "apiGroup": "rbac.authorization.k8s.io", "name": group });
        let role = json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role });
        (Kind::ClusterRoleBinding, "", json!({ "metadata": { "name": name }, "roleRef": role, "subjects": [subject] }))
    };
    vec![
        role("cluster-admin", &everything),
        role("admin", &write),
        role("edit", &write),
        role("view", &read),
        role("system:node", &node),
        binding("cluster-admin", "cluster-admin", "system:masters"),
        binding("system:node", "system:node", "system:nodes"),
    ]
}
