//! `describe` of nodes and namespaces.

use std::collections::BTreeMap;

use api::quantity::Amount;
use serde_json::Value;

use super::bounds;
use super::page::Page;
use crate::client::Client;
use crate::errors::Result;
use crate::json::{Json, scalar};
use crate::time;

const ROLE: &str = "node-role.kubernetes.io/";

pub(super) async fn node(client: &Client, page: &mut Page, object: &Value) -> Result<()> {
    let (meta, spec, status) = (object.at("metadata"), object.at("spec"), object.at("status"));
    page.field("Name", meta.text("name"));
    let mut roles: Vec<String> =
        meta.map("labels").keys().filter_map(|label| label.strip_prefix(ROLE)).map(str::to_owned).collect();
    roles.sort();
    page.field("Roles", if roles.is_empty() { "<none>".into() } else { roles.join(",") });
    page.pairs("Labels", meta.at("labels"));
    page.annotations("Annotations", meta.at("annotations"));
    page.field("CreationTimestamp", time::long(meta.text("creationTimestamp")));
    let taints: Vec<String> = spec.list("taints").iter().map(taint).collect();
    page.lines("Taints", &taints);
    page.field("Unschedulable", spec.flag("unschedulable").to_string());
    lease(client, page, meta.text("name")).await;
    if !status.list("conditions").is_empty() {
        page.line(0, "Conditions:\n  Type\tStatus\tLastHeartbeatTime\tLastTransitionTime\tReason\tMessage");
        page.line(1, "----\t------\t-----------------\t------------------\t------\t-------");
        for condition in status.list("conditions") {
            let [kind, is, reason, message] =
                ["type", "status", "reason", "message"].map(|field| condition.text(field));
            let [beat, change] =
                ["lastHeartbeatTime", "lastTransitionTime"].map(|field| time::long(condition.text(field)));
            page.line(1, format!("{kind} \t{is} \t{beat} \t{change} \t{reason} \t{message}"));
        }
    }
    page.line(0, "Addresses:");
    for address in status.list("addresses") {
        page.line(1, format!("{}:\t{}", address.text("type"), address.text("address")));
    }
    for (name, field) in [("Capacity", "capacity"), ("Allocatable", "allocatable")] {
        if !status.map(field).is_empty() {
            page.line(0, format!("{name}:"));
            let amounts = status.map(field).iter();
            amounts.for_each(|(resource, amount)| page.line(1, format!("{resource}:\t{}", scalar(amount))));
        }
    }
    let info = status.at("nodeInfo");
    page.line(0, "System Info:");
    for (name, field) in [
        ("Machine ID", "machineID"),
        ("System UUID", "systemUUID"),
        ("Boot ID", "bootID"),
        ("Kernel Version", "kernelVersion"),
        ("OS Image", "osImage"),
        ("Operating System", "operatingSystem"),
        ("Architecture", "architecture"),
        ("Container Runtime Version", "containerRuntimeVersion"),
        ("Kubelet Version", "kubeletVersion"),
        ("Kube-Proxy Version", "kubeProxyVersion"),
    ] {
        page.line(1, format!("{name}:\t{}", info.text(field)));
    }
    for (name, field) in [("PodCIDR", "podCIDR"), ("ProviderID", "providerID")] {
        if !spec.text(field).is_empty() {
            page.field(name, spec.text(field));
        }
    }
    if !spec.list("podCIDRs").is_empty() {
        page.field("PodCIDRs", spec.list("podCIDRs").iter().map(scalar).collect::<Vec<_>>().join(","));
    }
    pods(client, page, object).await
}

fn taint(taint: &Value) -> String {
    let value = taint.text("value");
    let equals = if value.is_empty() { String::new() } else { format!("={value}") };
    format!("{}{equals}:{}", taint.text("key"), taint.text("effect"))
}

async fn lease(client: &Client, page: &mut Page, name: &str) {
    page.line(0, "Lease:");
    let path = format!("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{name}");
    let Ok(lease) = client.get(&path, &[]).await else {
        return page.line(1, "Failed to get lease: leases.coordination.k8s.io \"".to_owned() + name + "\" not found");
    };
    let spec = lease.at("spec");
    let holder = if spec.has("holderIdentity") { spec.text("holderIdentity") } else { "<unset>" };
    page.line(1, format!("HolderIdentity:\t{holder}"));
    page.line(1, format!("AcquireTime:\t{}", time::long(spec.text("acquireTime"))));
    page.line(1, format!("RenewTime:\t{}", time::long(spec.text("renewTime"))));
}

async fn pods(client: &Client, page: &mut Page, node: &Value) -> Result<()> {
    let selector = format!("spec.nodeName={},status.phase!=Succeeded,status.phase!=Failed", node.text("metadata.name"));
    let list = client.get("/api/v1/pods", &[("fieldSelector", selector)]).await?;
    let items = list.list("items");
    let room = node.at("status.allocatable");
    page.line(0, format!("Non-terminated Pods:\t({} in total)", items.len()));
    page.line(1, "Namespace\tName\t\tCPU Requests\tCPU Limits\tMemory Requests\tMemory Limits\tAge");
    page.line(1, "---------\t----\t\t------------\t----------\t---------------\t-------------\t---");
    let mut totals: BTreeMap<(String, &str), Amount> = BTreeMap::new();
    for pod in items {
        let mut own: BTreeMap<(String, &str), Amount> = BTreeMap::new();
        for container in pod.list("spec.containers") {
            for side in ["requests", "limits"] {
                for (resource, amount) in container.map(&format!("resources.{side}")) {
                    add(&mut own, (resource.clone(), side), amount);
                }
            }
        }
        let cell = |resource: &str, side: &'static str| {
            let amount = own.get(&(resource.to_owned(), side)).copied().unwrap_or_else(|| Amount::whole(0));
            format!("{} ({}%)", amount.quantity().0, percent(amount, room.map("").get(resource)))
        };
        page.line(
            1,
            format!(
                "{}\t{}\t\t{}\t{}\t{}\t{}\t{}",
                pod.text("metadata.namespace"),
                pod.text("metadata.name"),
                cell("cpu", "requests"),
                cell("cpu", "limits"),
                cell("memory", "requests"),
                cell("memory", "limits"),
                time::age(pod.text("metadata.creationTimestamp"))
            ),
        );
        for (key, amount) in own {
            let value = Value::String(amount.quantity().0);
            add(&mut totals, key, &value);
        }
    }
    page.line(0, "Allocated resources:\n  (Total limits may be over 100 percent, i.e., overcommitted.)");
    page.line(1, "Resource\tRequests\tLimits");
    page.line(1, "--------\t--------\t------");
    let mut resources: Vec<&str> = vec!["cpu", "memory", "ephemeral-storage"];
    let special = room.map("").keys().filter(|name| name.contains('/') || name.starts_with("hugepages-"));
    resources.extend(special.map(String::as_str));
    for resource in resources {
        let cell = |side: &'static str| {
            let amount = totals.get(&(resource.to_owned(), side)).copied().unwrap_or_else(|| Amount::whole(0));
            match resource.contains('/') {
                true => amount.quantity().0,
                false => format!("{} ({}%)", amount.quantity().0, percent(amount, room.map("").get(resource))),
            }
        };
        page.line(1, format!("{resource}\t{}\t{}", cell("requests"), cell("limits")));
    }
    Ok(())
}

fn add<'a>(totals: &mut BTreeMap<(String, &'a str), Amount>, key: (String, &'a str), amount: &Value) {
    let Ok(amount) = Amount::parse(&scalar(amount)) else { return };
    match totals.get_mut(&key) {
        Some(total) => *total += amount,
        None => {
            totals.insert(key, amount);
        }
    }
}

fn percent(amount: Amount, room: Option<&Value>) -> i64 {
    let room = room.and_then(|room| Amount::parse(&scalar(room)).ok()).map_or(0, Amount::milli);
    if room == 0 { 0 } else { (i128::from(amount.milli()) * 100 / i128::from(room)).try_into().unwrap_or(0) }
}

pub(super) async fn namespace(client: &Client, page: &mut Page, object: &Value) -> Result<()> {
    page.field("Name", object.text("metadata.name"));
    page.pairs("Labels", object.at("metadata.labels"));
    page.annotations("Annotations", object.at("metadata.annotations"));
    page.field("Status", object.text("status.phase"));
    let name = object.text("metadata.name");
    if let Ok(quotas) = client.get(&format!("/api/v1/namespaces/{name}/resourcequotas"), &[]).await {
        self::quotas(page, quotas.list("items"));
    }
    if let Ok(limits) = client.get(&format!("/api/v1/namespaces/{name}/limitranges"), &[]).await {
        bounds::limit_ranges(page, limits.list("items"));
    }
    Ok(())
}

fn quotas(page: &mut Page, quotas: &[Value]) {
    if quotas.is_empty() {
        return page.line(0, "\nNo resource quota.");
    }
    page.line(0, "\nResource Quotas");
    for quota in quotas {
        page.line(1, format!("Name:\t{}", quota.text("metadata.name")));
        bounds::scopes(page, 1, quota);
        page.line(1, "Resource\tUsed\tHard");
        page.line(1, "--------\t---\t---");
        for (resource, hard) in quota.map("status.hard") {
            let used = quota.map("status.used").get(resource).map(scalar).unwrap_or_default();
            page.line(1, format!("{resource}\t{used}\t{}", scalar(hard)));
        }
    }
}
