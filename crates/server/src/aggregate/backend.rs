//! Where the server behind an APIService is. Pure.
//!
//! Mirrors the checks of `kube-aggregator/pkg/controllers/status/remote` and `apiserver/pkg/util/proxy: ResolveEndpoint`:
//! requests go to an endpoint, not to the Service's address.

use std::net::{IpAddr, SocketAddr};

use api::Snapshot;
use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::{APIService, ServiceReference};

/// The label that names a slice's Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// The port where a reference names none.
const PORT: i32 = 443;

/// A server that can be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Where it listens; at least one.
    pub addresses: Vec<SocketAddr>,
    /// The name that its certificate has to have.
    pub server_name: String,
    /// PEM of the authorities that its certificate is checked with; without it nothing is checked.
    pub authorities: Option<Vec<u8>>,
}

/// Why there is none: reason and message of the condition `Available`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unavailable {
    /// CamelCase reason.
    pub reason: &'static str,
    /// The sentence.
    pub message: String,
}

fn unavailable<T>(reason: &'static str, message: String) -> Result<T, Unavailable> {
    Err(Unavailable { reason, message })
}

/// The server behind an APIService that names a Service.
pub fn backend(service: &APIService, world: &Snapshot) -> Result<Backend, Unavailable> {
    let spec = service.spec.clone().unwrap_or_default();
    let reference = spec.service.unwrap_or_default();
    let (namespace, name) = (reference.namespace.as_deref().unwrap_or(""), reference.name.as_deref().unwrap_or(""));
    let Some(target) = world.get::<Service>(namespace, name) else {
        return unavailable("ServiceNotFound", format!("service/{name} in {namespace:?} is not present"));
    };
    let addresses = addresses(&reference, target, world)?;
    let insecure = spec.insecure_skip_tls_verify == Some(true);
    let authorities = (!insecure).then(|| spec.ca_bundle.unwrap_or_default().0);
    if authorities.as_ref().is_some_and(Vec::is_empty) {
        let why = "the APIService has neither a caBundle nor insecureSkipTLSVerify, and the authorities of the machine are not asked";
        return unavailable("FailedDiscoveryCheck", why.into());
    }
    Ok(Backend { addresses, server_name: format!("{name}.{namespace}.svc"), authorities })
}

fn addresses(reference: &ServiceReference, target: &Service, world: &Snapshot) -> Result<Vec<SocketAddr>, Unavailable> {
    let (namespace, name) = (reference.namespace.as_deref().unwrap_or(""), reference.name.as_deref().unwrap_or(""));
    let spec = target.spec.as_ref();
    let kind = spec.and_then(|spec| spec.type_.as_deref()).unwrap_or("ClusterIP");
    if !matches!(kind, "ClusterIP" | "NodePort" | "LoadBalancer") {
        return unavailable("FailedDiscoveryCheck", format!("unsupported service type {kind:?}"));
    }
    let number = reference.port.unwrap_or(PORT);
    let mut ports = spec.into_iter().flat_map(|spec| spec.ports.iter().flatten());
    let Some(port) = ports.find(|port| port.port == number) else {
        let message = format!("service/{name} in {namespace:?} is not listening on port {number}");
        return unavailable("ServicePortError", message);
    };
    let slices = world.list::<EndpointSlice>(Some(namespace)).filter(|slice| {
        slice.metadata.labels.as_ref().and_then(|labels| labels.get(SERVICE_NAME)).is_some_and(|of| of == name)
    });
    let slices: Vec<&EndpointSlice> = slices.collect();
    if slices.is_empty() {
        let message = format!("cannot find endpointslices for service/{name} in {namespace:?}");
        return unavailable("EndpointsNotFound", message);
    }
    let found: Vec<SocketAddr> = slices.iter().flat_map(|slice| ready(slice, port)).collect();
    if found.is_empty() {
        let called = port.name.as_deref().unwrap_or("");
        let message =
            format!("endpointslices for service/{name} in {namespace:?} have no addresses with port name {called:?}");
        return unavailable("MissingEndpoints", message);
    }
    Ok(found)
}

fn ready(slice: &EndpointSlice, port: &ServicePort) -> Vec<SocketAddr> {
    let wanted = port.name.as_deref().unwrap_or("");
    let mut ports = slice.ports.iter().flatten().filter(|it| it.name.as_deref().unwrap_or("") == wanted);
    let number = ports.find_map(|it| it.port).and_then(|number| u16::try_from(number).ok());
    let Some(number) = number else { return Vec::new() };
    let endpoints = slice
        .endpoints
        .iter()
        .flatten()
        .filter(|it| it.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true));
    let address = |text: &String| text.parse::<IpAddr>().ok().map(|address| SocketAddr::new(address, number));
    endpoints.filter_map(|endpoint| endpoint.addresses.first().and_then(address)).collect()
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use api::{Kind, Object};
    use expect_test::expect;
    use serde_json::{Value, json};

    use super::*;

    fn world(objects: &[(Kind, Value)]) -> Snapshot {
        let mut world = Snapshot::default();
        for (kind, value) in objects {
            world.put(Object::written(kind.decode(value.clone()).unwrap(), world.revision() + 1));
        }
        world
    }

    #[test]
    fn where_a_server_is() {
        let spec = json!({ "group": "example", "version": "v1", "groupPriorityMinimum": 1, "versionPriority": 1,
            "insecureSkipTLSVerify": true, "service": { "namespace": "d", "name": "adapter", "port": 443 } });
        let service = |kind: &str, port: i32| {
            let ports = json!([{ "name": "https", "port": port, "protocol": "TCP" }]);
            (
                Kind::Service,
                json!({ "metadata": { "name": "adapter", "namespace": "d" }, "spec": { "type": kind, "ports": ports } }),
            )
        };
        let slice = |name: &str, port: &str, ready: Value| {
            let endpoints = json!([{ "addresses": ["10.0.0.1"], "conditions": { "ready": ready } }, { "addresses": ["10.0.0.2"], "conditions": { "ready": false } }]);
            (
                Kind::EndpointSlice,
                json!({ "metadata": { "name": name, "namespace": "d", "labels": { SERVICE_NAME: "adapter" } },
                "addressType": "IPv4", "ports": [{ "name": port, "port": 6443 }], "endpoints": endpoints }),
            )
        };
        let mut table = String::new();
        let mut case = |name: &str, change: &dyn Fn(&mut Value), objects: &[(Kind, Value)]| {
            let mut spec = spec.clone();
            change(&mut spec);
            let service = json!({ "metadata": { "name": "v1.example" }, "spec": spec });
            let service: APIService = serde_json::from_value(service).unwrap();
            let found = match backend(&service, &world(objects)) {
                Ok(found) => {
                    format!("{:?} {} checked {}", found.addresses, found.server_name, found.authorities.is_some())
                }
                Err(Unavailable { reason, message }) => format!("{reason}: {message}"),
            };
            writeln!(table, "{name}: {found}").unwrap();
        };
        let as_it_is = |_: &mut Value| {};
        let all = [service("ClusterIP", 443), slice("a", "https", json!(true)), slice("b", "https", Value::Null)];
        case("fine", &as_it_is, &all);
        case("no Service", &as_it_is, &all[1..]);
        case("another port", &as_it_is, &[service("ClusterIP", 80), all[1].clone()]);
        case("no slices", &as_it_is, &all[..1]);
        case("nothing ready", &as_it_is, &[service("ClusterIP", 443), slice("a", "https", json!(false))]);
        case("a port of another name", &as_it_is, &[service("ClusterIP", 443), slice("a", "http", json!(true))]);
        case("a name elsewhere", &as_it_is, &[service("ExternalName", 443)]);
        case(
            "a bundle",
            &|spec| {
                spec["insecureSkipTLSVerify"] = json!(false);
                spec["caBundle"] = json!("YWJj");
            },
            &all,
        );
        case("no bundle", &|spec| spec["insecureSkipTLSVerify"] = json!(false), &all);
        expect![[r#"
            fine: [10.0.0.1:6443, 10.0.0.1:6443] adapter.d.svc checked false
            no Service: ServiceNotFound: service/adapter in "d" is not present
            another port: ServicePortError: service/adapter in "d" is not listening on port 443
            no slices: EndpointsNotFound: cannot find endpointslices for service/adapter in "d"
            nothing ready: MissingEndpoints: endpointslices for service/adapter in "d" have no addresses with port name "https"
            a port of another name: MissingEndpoints: endpointslices for service/adapter in "d" have no addresses with port name "https"
            a name elsewhere: FailedDiscoveryCheck: unsupported service type "ExternalName"
            a bundle: [10.0.0.1:6443, 10.0.0.1:6443] adapter.d.svc checked true
            no bundle: FailedDiscoveryCheck: the APIService has neither a caBundle nor insecureSkipTLSVerify, and the authorities of the machine are not asked
        "#]].assert_eq(&table);
    }
}
