//! What every cluster has from the first moment: namespaces, roles, and the Service of the API itself.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::OnceLock;

use api::{Body, Kind, Snapshot};
use k8s_openapi::api::core::v1::Service;
use serde_json::{Value, json};

use crate::pki::{FRONT_PROXY, KUBERNETES_SERVICE_ADDRESS};

/// The address at which pods find their node's name server, the tenth of the services as kubeadm has it.
pub const DNS_SERVICE_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);

/// What the objects are made from.
pub struct Furniture {
    /// Where the API listens.
    pub endpoint: SocketAddr,
    /// Where pods reach it, once there is such a place.
    pub endpoint_for_pods: OnceLock<SocketAddrV4>,
    /// PEM of the cluster's authority.
    pub authority: String,
    /// PEM of the authority of the server as a front proxy.
    pub front_proxy_authority: String,
}

/// Objects that are missing in `world`, with the namespace each belongs in.
pub fn missing(world: &Snapshot, furniture: &Furniture) -> Vec<(String, Body)> {
    let wanted = wanted(furniture).into_iter();
    let missing = wanted.filter(|(namespace, body)| world.object(body.kind(), namespace, name(body)).is_none());
    let missing = missing.filter(|(_, body)| !address_is_taken(world, body));
    missing.map(|(namespace, body)| (namespace.to_owned(), body)).collect()
}

/// In a cluster from before the address was kept for it, it may be another Service's: that one stays.
fn address_is_taken(world: &Snapshot, body: &Body) -> bool {
    let address = |service: &Service| service.spec.as_ref().and_then(|spec| spec.cluster_ip.clone());
    let Body::Service(wanted) = body else { return false };
    address(wanted)
        .is_some_and(|wanted| world.list::<Service>(None).any(|other| address(other).as_ref() == Some(&wanted)))
}

/// Objects that are the server's own but say something else: the built-in roles, as a newer kapstan may have changed
/// them, and the certificate of the authority. A role that is annotated not to be kept up to date is left alone.
pub fn outdated(world: &Snapshot, furniture: &Furniture) -> Vec<Body> {
    let wanted = wanted(furniture).into_iter();
    wanted
        .filter_map(|(namespace, body)| put_right(&world.object(body.kind(), namespace, name(&body))?.body, &body))
        .collect()
}

/// Upstream's mark of a role that is to be left alone, if it says `false`.
const AUTO_UPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";

fn put_right(current: &Body, wanted: &Body) -> Option<Body> {
    let mut right = current.clone();
    match (&mut right, wanted) {
        (Body::ClusterRole(role), Body::ClusterRole(wanted)) => {
            let annotation = role.metadata.annotations.as_ref().and_then(|all| all.get(AUTO_UPDATE));
            if annotation.is_none_or(|text| text != "false") {
                role.rules.clone_from(&wanted.rules);
            }
        }
        (Body::Role(role), Body::Role(wanted)) => role.rules.clone_from(&wanted.rules),
        (Body::ConfigMap(map), Body::ConfigMap(wanted)) => map.data.clone_from(&wanted.data),
        (Body::Endpoints(current), Body::Endpoints(wanted)) => current.subsets.clone_from(&wanted.subsets),
        (Body::EndpointSlice(current), Body::EndpointSlice(wanted)) => {
            current.endpoints.clone_from(&wanted.endpoints);
            current.ports.clone_from(&wanted.ports);
        }
        _ => {}
    }
    (right != *current).then_some(right)
}

fn name(body: &Body) -> &str {
    body.meta().name.as_deref().unwrap_or("")
}

fn wanted(furniture: &Furniture) -> Vec<(&'static str, Body)> {
    let namespaces = ["default", "kube-system", "kube-public", "kube-node-lease"];
    let mut all: Vec<(Kind, &'static str, Value)> =
        namespaces.into_iter().map(|name| (Kind::Namespace, "", json!({ "metadata": { "name": name } }))).collect();
    all.extend(roles());
    all.push((
        Kind::StorageClass,
        "",
        json!({
            "metadata": { "name": "local", "annotations": { (api::volumes::IS_DEFAULT_CLASS): "true" } },
            "provisioner": api::volumes::LOCAL_PROVISIONER,
            "volumeBindingMode": "WaitForFirstConsumer",
        }),
    ));
    let authority = json!({ "metadata": { "name": "kube-root-ca.crt" }, "data": { "ca.crt": furniture.authority } });
    all.push((Kind::ConfigMap, "kube-system", authority));
    all.extend(extensions(furniture));
    all.push((
        Kind::Service,
        "default",
        json!({
            "metadata": { "name": "kubernetes", "namespace": "default", "labels": { "component": "apiserver", "provider": "kubernetes" } },
            "spec": {
                "clusterIP": KUBERNETES_SERVICE_ADDRESS,
                "ports": [{ "name": "https", "port": 443, "protocol": "TCP", "targetPort": furniture.endpoint.port() }],
            },
        }),
    ));
    all.push((Kind::Service, "kube-system", name_server()));
    all.extend(furniture.endpoint_for_pods.get().into_iter().flat_map(|address| endpoints(*address)));
    let typed = |(kind, namespace, value): (Kind, &'static str, Value)| {
        (namespace, kind.decode(value).expect("the built-in objects are well formed"))
    };
    all.into_iter().map(typed).collect()
}

/// Where the Service of the API leads (upstream: `controlplane/reconcilers`, `EndpointsAdapter`).
fn endpoints(address: SocketAddrV4) -> [(Kind, &'static str, Value); 2] {
    let (ip, port) = (address.ip().to_string(), json!({ "name": "https", "port": address.port(), "protocol": "TCP" }));
    let meta = |label: &str, value: &str| json!({ "name": "kubernetes", "namespace": "default", "labels": { (label): value } });
    let endpoints = json!({
        "metadata": meta("endpointslice.kubernetes.io/skip-mirror", "true"),
        "subsets": [{ "addresses": [{ "ip": ip }], "ports": [port] }],
    });
    let slice = json!({
        "metadata": meta("kubernetes.io/service-name", "kubernetes"),
        "addressType": "IPv4",
        "endpoints": [{ "addresses": [ip], "conditions": { "ready": true } }],
        "ports": [port],
    });
    [(Kind::Endpoints, "default", endpoints), (Kind::EndpointSlice, "default", slice)]
}

/// The Service of the name servers. It selects no pods: every node answers for its own. The name is the one that tools look for.
fn name_server() -> Value {
    let port = |name: &str, protocol: &str| json!({ "name": name, "port": 53, "protocol": protocol, "targetPort": 53 });
    json!({
        "metadata": { "name": "kube-dns", "namespace": "kube-system", "labels": { "k8s-app": "kube-dns" } },
        "spec": { "clusterIP": DNS_SERVICE_ADDRESS, "ports": [port("dns", "UDP"), port("dns-tcp", "TCP")] },
    })
}

/// What API servers that extend this one read to know whom it speaks for (upstream:
/// `controlplane/controller/clusterauthenticationtrust`), and the right to read it.
fn extensions(furniture: &Furniture) -> [(Kind, &'static str, Value); 2] {
    const NAME: &str = "extension-apiserver-authentication";
    let list = |text: &str| json!([text]).to_string();
    let data = json!({
        "client-ca-file": furniture.authority,
        "requestheader-allowed-names": list(FRONT_PROXY),
        "requestheader-client-ca-file": furniture.front_proxy_authority,
        "requestheader-extra-headers-prefix": list("X-Remote-Extra-"),
        "requestheader-group-headers": list("X-Remote-Group"),
        "requestheader-uid-headers": list("X-Remote-Uid"),
        "requestheader-username-headers": list("X-Remote-User"),
    });
    let rule = json!({ "apiGroups": [""], "resources": ["configmaps"], "resourceNames": [NAME], "verbs": ["get", "list", "watch"] });
    let reader =
        json!({ "metadata": { "name": format!("{NAME}-reader"), "namespace": "kube-system" }, "rules": [rule] });
    let map = json!({ "metadata": { "name": NAME, "namespace": "kube-system" }, "data": data });
    [(Kind::ConfigMap, "kube-system", map), (Kind::Role, "kube-system", reader)]
}

fn roles() -> Vec<(Kind, &'static str, Value)> {
    let everything = json!([
        { "apiGroups": ["*"], "resources": ["*"], "verbs": ["*"] },
        { "nonResourceURLs": ["*"], "verbs": ["*"] }
    ]);
    let discovery = json!([{ "nonResourceURLs": [
        "/api", "/api/*", "/apis", "/apis/*", "/healthz", "/livez", "/openapi", "/openapi/*", "/readyz", "/version", "/version/"
    ], "verbs": ["get"] }]);
    let oneself = json!([
        { "apiGroups": ["authorization.k8s.io"], "resources": ["selfsubjectaccessreviews", "selfsubjectrulesreviews"], "verbs": ["create"] },
        { "apiGroups": ["authentication.k8s.io"], "resources": ["selfsubjectreviews"], "verbs": ["create"] }
    ]);
    let monitoring = json!([{ "nonResourceURLs": [
        "/healthz", "/healthz/*", "/livez", "/livez/*", "/metrics", "/metrics/slis", "/readyz", "/readyz/*"
    ], "verbs": ["get"] }]);
    let issuer = json!([{ "nonResourceURLs": [
        "/.well-known/openid-configuration", "/.well-known/openid-configuration/", "/openid/v1/jwks", "/openid/v1/jwks/"
    ], "verbs": ["get"] }]);
    let delegator = json!([
        { "apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"] },
        { "apiGroups": ["authorization.k8s.io"], "resources": ["subjectaccessreviews"], "verbs": ["create"] }
    ]);
    let metrics = json!([{ "apiGroups": ["custom.metrics.k8s.io", "external.metrics.k8s.io"], "resources": ["*"], "verbs": ["get", "list"] }]);
    let workloads = [
        "",
        "apps",
        "autoscaling",
        "batch",
        "coordination.k8s.io",
        "discovery.k8s.io",
        "events.k8s.io",
        "networking.k8s.io",
        "policy",
    ];
    let read = json!([{ "apiGroups": workloads, "resources": [
        "configmaps", "endpoints", "events", "pods", "pods/log", "pods/status", "services", "serviceaccounts", "namespaces",
        "deployments", "deployments/scale", "deployments/status", "replicasets", "replicasets/scale", "replicasets/status",
        "replicationcontrollers", "replicationcontrollers/scale", "replicationcontrollers/status", "daemonsets", "daemonsets/status",
        "statefulsets", "statefulsets/scale", "statefulsets/status", "controllerrevisions", "jobs", "jobs/status",
        "cronjobs", "cronjobs/status", "horizontalpodautoscalers", "horizontalpodautoscalers/status", "endpointslices",
        "resourcequotas", "resourcequotas/status", "limitranges", "persistentvolumeclaims", "persistentvolumeclaims/status",
        "poddisruptionbudgets", "poddisruptionbudgets/status", "ingresses", "ingresses/status"
    ], "verbs": ["get", "list", "watch"] }, { "apiGroups": ["metrics.k8s.io"], "resources": ["nodes", "pods"], "verbs": ["get", "list"] }]);
    let write = json!([
        read[0],
        read[1],
        { "apiGroups": workloads, "resources": [
            "configmaps", "secrets", "events", "pods", "services", "serviceaccounts", "deployments", "deployments/scale",
            "replicasets", "replicasets/scale", "replicationcontrollers", "replicationcontrollers/scale", "daemonsets",
            "statefulsets", "statefulsets/scale", "jobs", "cronjobs", "horizontalpodautoscalers", "endpoints", "leases",
            "persistentvolumeclaims", "pods/attach", "pods/exec", "pods/portforward", "pods/proxy", "pods/eviction", "services/proxy", "poddisruptionbudgets", "serviceaccounts/token",
            "ingresses"
        ], "verbs": ["*"] }
    ]);
    let node = json!([
        { "apiGroups": [""], "resources": ["nodes", "nodes/status", "pods", "pods/status", "events"], "verbs": ["*"] },
        { "apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["create", "update", "patch"] },
        { "apiGroups": [""], "resources": ["services", "configmaps", "secrets", "namespaces", "endpoints"], "verbs": ["get", "list", "watch"] },
        { "apiGroups": [""], "resources": ["persistentvolumeclaims"], "verbs": ["get", "list", "watch"] },
        { "apiGroups": [""], "resources": ["persistentvolumes"], "verbs": ["get", "list", "watch", "patch", "update"] },
        { "apiGroups": [""], "resources": ["serviceaccounts/token"], "verbs": ["create"] },
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
        role("system:discovery", &discovery),
        role("system:basic-user", &oneself),
        role("system:monitoring", &monitoring),
        role("system:service-account-issuer-discovery", &issuer),
        role("system:auth-delegator", &delegator),
        role("system:controller:horizontal-pod-autoscaler", &metrics),
        binding("cluster-admin", "cluster-admin", "system:masters"),
        binding("system:node", "system:node", "system:nodes"),
        binding("system:discovery", "system:discovery", "system:authenticated"),
        binding("system:basic-user", "system:basic-user", "system:authenticated"),
        binding("system:monitoring", "system:monitoring", "system:monitoring"),
        binding(
            "system:service-account-issuer-discovery",
            "system:service-account-issuer-discovery",
            "system:serviceaccounts",
        ),
        autoscaler_binding(),
    ]
}

/// The right of autoscalers to ask the metrics APIs, by the name of upstream's controller: adapters ask back whether it has it.
fn autoscaler_binding() -> (Kind, &'static str, Value) {
    let name = "system:controller:horizontal-pod-autoscaler";
    let subject = json!({ "kind": "ServiceAccount", "name": "horizontal-pod-autoscaler", "namespace": "kube-system" });
    let role = json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name });
    (Kind::ClusterRoleBinding, "", json!({ "metadata": { "name": name }, "roleRef": role, "subjects": [subject] }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::Object;

    fn furniture() -> Furniture {
        Furniture {
            endpoint: ([127, 0, 0, 1], 6443).into(),
            endpoint_for_pods: OnceLock::new(),
            authority: String::new(),
            front_proxy_authority: String::new(),
        }
    }

    fn missing_services(world: &Snapshot) -> Vec<String> {
        let services = missing(world, &furniture()).into_iter().filter(|(_, body)| body.kind() == Kind::Service);
        services.map(|(namespace, body)| format!("{namespace}/{}", name(&body))).collect()
    }

    #[test]
    fn an_address_that_somebody_has_is_left_to_them() {
        let mut world = Snapshot::default();
        assert_eq!(missing_services(&world), ["default/kubernetes", "kube-system/kube-dns"]);
        let other =
            json!({ "metadata": { "name": "dns", "namespace": "mine" }, "spec": { "clusterIP": "10.96.0.10" } });
        world.put(Object::written(Kind::Service.decode(other).unwrap(), 1));
        assert_eq!(missing_services(&world), ["default/kubernetes"]);
    }

    #[test]
    fn the_endpoints_of_the_api_are_where_pods_reach_it_now() {
        let mut world = Snapshot::default();
        let at = |port: u16| {
            let furniture = furniture();
            furniture.endpoint_for_pods.set(SocketAddrV4::new([10, 244, 0, 1].into(), port)).unwrap();
            furniture
        };
        let told = |body: &Body| match body {
            Body::Endpoints(endpoints) => format!("{:?}", endpoints.subsets),
            Body::EndpointSlice(slice) => format!("{:?} {:?}", slice.endpoints, slice.ports),
            _ => String::new(),
        };
        let is_told = |body: &Body| matches!(body.kind(), Kind::Endpoints | Kind::EndpointSlice);
        for (_, body) in missing(&world, &at(6443)).into_iter().filter(|(_, body)| is_told(body)) {
            world.put(Object::written(body, 1));
        }
        assert!(!missing(&world, &at(6443)).iter().any(|(_, body)| is_told(body)));
        assert!(outdated(&world, &at(6443)).is_empty());
        let moved = outdated(&world, &at(7443));
        assert_eq!(moved.iter().map(Body::kind).collect::<Vec<_>>(), [Kind::Endpoints, Kind::EndpointSlice]);
        assert!(moved.iter().map(told).all(|text| text.contains("7443") && text.contains("10.244.0.1")));
    }
}
