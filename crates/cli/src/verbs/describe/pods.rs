//! `describe pod`.

use serde_json::Value;

use super::page::Page;
use crate::json::Json;
use crate::time;

pub(super) fn pod(page: &mut Page, pod: &Value) {
    let (meta, spec, status) = (pod.at("metadata"), pod.at("spec"), pod.at("status"));
    page.field("Name", meta.text("name"));
    page.field("Namespace", meta.text("namespace"));
    if spec.has("priority") {
        page.field("Priority", spec.number("priority").to_string());
    }
    if !spec.text("priorityClassName").is_empty() {
        page.field("Priority Class Name", spec.text("priorityClassName"));
    }
    if spec.has("runtimeClassName") {
        page.field("Runtime Class Name", spec.text("runtimeClassName"));
    }
    page.field("Service Account", spec.text("serviceAccountName"));
    match spec.text("nodeName") {
        "" => page.field("Node", "<none>"),
        node => page.field("Node", format!("{node}/{}", status.text("hostIP"))),
    }
    if status.has("startTime") {
        page.field("Start Time", time::long(status.text("startTime")));
    }
    page.pairs("Labels", meta.at("labels"));
    page.annotations("Annotations", meta.at("annotations"));
    if meta.has("deletionTimestamp") {
        page.field("Status", format!("Terminating (lasts {})", time::age(meta.text("deletionTimestamp"))));
        page.field("Termination Grace Period", format!("{}s", meta.number("deletionGracePeriodSeconds")));
    } else {
        page.field("Status", status.text("phase"));
    }
    for (name, field) in [("Reason", "reason"), ("Message", "message")] {
        if !status.text(field).is_empty() {
            page.field(name, status.text(field));
        }
    }
    page.field("IP", status.text("podIP"));
    if status.list("podIPs").is_empty() {
        page.field("IPs", "<none>");
    } else {
        page.line(0, "IPs:");
        status.list("podIPs").iter().for_each(|address| page.line(1, format!("IP:\t{}", address.text("ip"))));
    }
    page.controlled_by(pod);
    if !spec.list("initContainers").is_empty() {
        page.containers(
            "Init Containers",
            spec.list("initContainers"),
            status.list("initContainerStatuses"),
            "",
            Some(pod),
        );
    }
    page.containers("Containers", spec.list("containers"), status.list("containerStatuses"), "", Some(pod));
    if !spec.list("readinessGates").is_empty() {
        page.line(0, "Readiness Gates:\n  Type\tStatus");
        for gate in spec.list("readinessGates") {
            let kind = gate.text("conditionType");
            let condition = status.list("conditions").iter().find(|condition| condition.text("type") == kind);
            page.line(1, format!("{kind} \t{} ", condition.map_or("<none>", |condition| condition.text("status"))));
        }
    }
    if !status.list("conditions").is_empty() {
        page.line(0, "Conditions:\n  Type\tStatus");
        for condition in status.list("conditions") {
            page.line(1, format!("{} \t{} ", condition.text("type"), condition.text("status")));
        }
    }
    page.volumes(spec.list("volumes"), "");
    page.field("QoS Class", status.text("qosClass"));
    page.pairs("Node-Selectors", spec.at("nodeSelector"));
    page.tolerations("Tolerations", spec.list("tolerations"));
    page.spread(spec.list("topologySpreadConstraints"), "");
}
