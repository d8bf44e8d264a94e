//! `describe` of services and their endpoints.

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
