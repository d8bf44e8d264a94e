//! `describe` of services, their endpoints, and ingresses.

use std::collections::BTreeSet;

use serde_json::Value;

use super::page::{Page, protocol};
use crate::client::Client;
use crate::errors::Result;
use crate::json::{Json, scalar};

/// More addresses than these are counted, not named.
const MOST_ENDPOINTS: usize = 3;

fn texts(values: &[Value]) -> String {
    values.iter().map(scalar).collect::<Vec<_>>().join(",")
}

/// A text, or that it is not set.
fn set_or_not(text: &str) -> &str {
    if text.is_empty() { "<unset>" } else { text }
}

pub(super) fn endpoint_slice(page: &mut Page, object: &Value) {
    page.start(object);
    page.field("AddressType", object.text("addressType"));
    if object.list("ports").is_empty() {
        page.line(0, "Ports: <unset>");
    } else {
        page.line(0, "Ports:");
        page.line(1, "Name\tPort\tProtocol");
        page.line(1, "----\t----\t--------");
    }
    for port in object.list("ports") {
        let number = if port.has("port") { port.number("port").to_string() } else { "*".to_owned() };
        page.line(1, format!("{}\t{number}\t{}", set_or_not(port.text("name")), port.text("protocol")));
    }
    page.line(0, if object.list("endpoints").is_empty() { "Endpoints: <none>" } else { "Endpoints:" });
    for endpoint in object.list("endpoints") {
        let addresses = texts(endpoint.list("addresses"));
        page.line(1, format!("- Addresses:\t{}", if addresses.is_empty() { "<none>" } else { &addresses }));
        page.line(2, "Conditions:");
        let ready =
            if endpoint.has("conditions.ready") { scalar(endpoint.at("conditions.ready")) } else { String::new() };
        page.line(3, format!("Ready:\t{}", set_or_not(&ready)));
        page.line(2, format!("Hostname:\t{}", set_or_not(endpoint.text("hostname"))));
        if endpoint.has("targetRef") {
            let target = endpoint.at("targetRef");
            page.line(2, format!("TargetRef:\t{}/{}", target.text("kind"), target.text("name")));
        }
        page.line(2, format!("NodeName:\t{}", set_or_not(endpoint.text("nodeName"))));
        page.line(2, format!("Zone:\t{}", set_or_not(endpoint.text("zone"))));
    }
}

pub(super) async fn service(client: &Client, page: &mut Page, object: &Value) -> Result<()> {
    let spec = object.at("spec");
    page.start(object);
    page.field("Selector", crate::print::table::label_text(spec.at("selector")));
    page.field("Type", spec.text("type"));
    if spec.has("ipFamilyPolicy") {
        page.field("IP Family Policy", spec.text("ipFamilyPolicy"));
    }
    if spec.list("ipFamilies").is_empty() {
        page.field("IP Families", "<none>");
    } else {
        page.field("IP Families", texts(spec.list("ipFamilies")));
    }
    page.field("IP", spec.text("clusterIP"));
    if spec.list("clusterIPs").is_empty() {
        page.field("IPs", "<none>");
    } else {
        page.field("IPs", texts(spec.list("clusterIPs")));
    }
    if !spec.list("externalIPs").is_empty() {
        page.field("External IPs", texts(spec.list("externalIPs")));
    }
    if !spec.text("loadBalancerIP").is_empty() {
        page.field("Desired LoadBalancer IP", spec.text("loadBalancerIP"));
    }
    if !spec.text("externalName").is_empty() {
        page.field("External Name", spec.text("externalName"));
    }
    let ingress = object.list("status.loadBalancer.ingress");
    if !ingress.is_empty() {
        let places: Vec<&str> = ingress
            .iter()
            .map(|place| if place.has("ip") { place.text("ip") } else { place.text("hostname") })
            .collect();
        page.field("LoadBalancer Ingress", places.join(", "));
    }
    let slices = slices(client, object).await?;
    for port in spec.list("ports") {
        let name = if port.text("name").is_empty() { "<unset>" } else { port.text("name") };
        page.line(0, format!("Port:\t{name}\t{}/{}", port.number("port"), protocol(port)));
        page.line(0, format!("TargetPort:\t{}/{}", scalar(port.at("targetPort")), protocol(port)));
        if port.number("nodePort") != 0 {
            page.line(0, format!("NodePort:\t{name}\t{}/{}", port.number("nodePort"), protocol(port)));
        }
        page.field("Endpoints", endpoints_of(&slices, port.text("name")));
    }
    page.field("Session Affinity", spec.text("sessionAffinity"));
    if !spec.text("externalTrafficPolicy").is_empty() {
        page.field("External Traffic Policy", spec.text("externalTrafficPolicy"));
    }
    if spec.has("internalTrafficPolicy") {
        page.field("Internal Traffic Policy", spec.text("internalTrafficPolicy"));
    }
    if spec.number("healthCheckNodePort") != 0 {
        page.field("HealthCheck NodePort", spec.number("healthCheckNodePort").to_string());
    }
    if !spec.list("loadBalancerSourceRanges").is_empty() {
        page.field("LoadBalancer Source Ranges", texts(spec.list("loadBalancerSourceRanges")));
    }
    Ok(())
}

async fn slices(client: &Client, service: &Value) -> Result<Vec<Value>> {
    let path = format!("/apis/discovery.k8s.io/v1/namespaces/{}/endpointslices", service.text("metadata.namespace"));
    let by_service = format!("kubernetes.io/service-name={}", service.text("metadata.name"));
    let list = client.get(&path, &[("labelSelector", by_service)]).await?;
    Ok(list.list("items").to_vec())
}

fn endpoints_of(slices: &[Value], port_name: &str) -> String {
    let mut addresses = Vec::new();
    for slice in slices {
        for port in slice.list("ports").iter().filter(|port| port.text("name") == port_name) {
            for endpoint in slice.list("endpoints") {
                let ready = endpoint.at("conditions.ready").as_bool().unwrap_or(true);
                if ready {
                    let address = |text: &Value| format!("{}:{}", scalar(text), port.number("port"));
                    addresses.extend(endpoint.list("addresses").iter().map(address));
                }
            }
        }
    }
    shown(&addresses)
}

fn shown(addresses: &[String]) -> String {
    match addresses.len() {
        0 => String::new(),
        count if count <= MOST_ENDPOINTS => addresses.join(","),
        count => format!("{} + {} more...", addresses[..MOST_ENDPOINTS].join(","), count - MOST_ENDPOINTS),
    }
}

pub(super) fn endpoints(page: &mut Page, object: &Value) {
    page.start(object);
    page.line(0, "Subsets:");
    for subset in object.list("subsets") {
        for (name, field) in [("Addresses", "addresses"), ("NotReadyAddresses", "notReadyAddresses")] {
            let addresses: Vec<&str> = subset.list(field).iter().map(|address| address.text("ip")).collect();
            let text = if addresses.is_empty() { "<none>".to_owned() } else { addresses.join(",") };
            page.line(1, format!("{name}:\t{text}"));
        }
        if !subset.list("ports").is_empty() {
            page.line(1, "Ports:");
            page.line(2, "Name\tPort\tProtocol");
            page.line(2, "----\t----\t--------");
            for port in subset.list("ports") {
                let name = if port.text("name").is_empty() { "<unset>" } else { port.text("name") };
                page.line(2, format!("{name}\t{}\t{}", port.number("port"), protocol(port)));
            }
        }
        page.line(0, "");
    }
}

pub(super) async fn ingress(client: &Client, page: &mut Page, object: &Value) {
    let spec = object.at("spec");
    page.field("Name", object.text("metadata.name"));
    page.pairs("Labels", object.at("metadata.labels"));
    page.field("Namespace", object.text("metadata.namespace"));
    let places = object.list("status.loadBalancer.ingress").iter();
    let places: BTreeSet<&str> =
        places.map(|place| if place.has("ip") { place.text("ip") } else { place.text("hostname") }).collect();
    page.field("Address", places.into_iter().collect::<Vec<_>>().join(","));
    let class = if spec.has("ingressClassName") { spec.text("ingressClassName") } else { "<none>" };
    page.field("Ingress Class", class);
    let namespace = object.text("metadata.namespace");
    let default = match spec.has("defaultBackend") {
        true => backend(client, namespace, spec.at("defaultBackend")).await,
        false => "<default>".to_owned(),
    };
    page.field("Default backend", &default);
    if !spec.list("tls").is_empty() {
        page.line(0, "TLS:");
    }
    for entry in spec.list("tls") {
        let hosts = texts(entry.list("hosts"));
        match entry.text("secretName") {
            "" => page.line(1, format!("SNI routes {hosts}")),
            secret => page.line(1, format!("{secret} terminates {hosts}")),
        }
    }
    page.line(0, "Rules:\n  Host\tPath\tBackends");
    page.line(1, "----\t----\t--------");
    let rules: Vec<&Value> = spec.list("rules").iter().filter(|rule| rule.has("http")).collect();
    for rule in &rules {
        let host = if rule.text("host").is_empty() { "*" } else { rule.text("host") };
        page.line(1, format!("{host}\t"));
        for path in rule.list("http.paths") {
            let backend = backend(client, namespace, path.at("backend")).await;
            page.line(2, format!("\t{} \t{backend}", path.text("path")));
        }
    }
    if rules.is_empty() {
        page.line(1, format!("*\t*\t{default}"));
    }
    page.annotations("Annotations", object.at("metadata.annotations"));
}

/// `web:80 (10.0.0.1:80)`.
async fn backend(client: &Client, namespace: &str, backend: &Value) -> String {
    if backend.has("resource") {
        let resource = backend.at("resource");
        let group = if resource.has("apiGroup") { resource.text("apiGroup") } else { "<none>" };
        return format!("APIGroup: {group}, Kind: {}, Name: {}", resource.text("kind"), resource.text("name"));
    }
    let (name, port) = (backend.text("service.name"), backend.at("service.port"));
    let shown = match port.number("number") {
        0 => format!("{name}:{}", port.text("name")),
        number => format!("{name}:{number}"),
    };
    match endpoints_behind(client, namespace, name, port).await {
        Ok(addresses) => format!("{shown} ({addresses})"),
        Err(error) => format!("{shown} (<error: {}>)", error.inner_message()),
    }
}

async fn endpoints_behind(client: &Client, namespace: &str, name: &str, port: &Value) -> Result<String> {
    let service = client.get(&format!("/api/v1/namespaces/{namespace}/services/{name}"), &[]).await?;
    let slices = slices(client, &service).await?;
    let is_meant = |it: &&Value| match port.number("number") {
        0 => it.text("name") == port.text("name"),
        number => it.number("port") == number,
    };
    let port_name = service.list("spec.ports").iter().find(is_meant).map_or("", |port| port.text("name"));
    Ok(endpoints_of(&slices, port_name))
}

pub(super) fn ingress_class(page: &mut Page, object: &Value) {
    page.field("Name", object.text("metadata.name"));
    page.pairs("Labels", object.at("metadata.labels"));
    page.annotations("Annotations", object.at("metadata.annotations"));
    page.field("Controller", object.text("spec.controller"));
    let parameters = object.at("spec.parameters");
    if object.has("spec.parameters") {
        page.line(0, "Parameters:");
        if parameters.has("apiGroup") {
            page.line(1, format!("APIGroup:\t{}", parameters.text("apiGroup")));
        }
        page.line(1, format!("Kind:\t{}", parameters.text("kind")));
        page.line(1, format!("Name:\t{}", parameters.text("name")));
    }
}
