//! `describe` of claims, volumes and their classes. Mirrors `describePersistentVolumeClaim`, `describePersistentVolume`
//! and `describeStorageClass` (kubectl `pkg/describe/describe.go`).

use serde_json::Value;

use super::page::Page;
use crate::client::Client;
use crate::errors::Result;
use crate::json::{Json, scalar};
use crate::time;

const BETA_CLASS: &str = "volume.beta.kubernetes.io/storage-class";

pub(super) async fn claim(client: &Client, page: &mut Page, object: &Value) -> Result<()> {
    let (meta, spec, status) = (object.at("metadata"), object.at("spec"), object.at("status"));
    page.field("Name", meta.text("name"));
    page.field("Namespace", meta.text("namespace"));
    page.field("StorageClass", class(object));
    phase(page, object);
    page.field("Volume", spec.text("volumeName"));
    page.pairs("Labels", meta.at("labels"));
    page.annotations("Annotations", meta.at("annotations"));
    finalizers(page, meta);
    let bound = !spec.text("volumeName").is_empty();
    page.field("Capacity", if bound { storage(status.map("capacity").get("storage")) } else { String::new() });
    page.field("Access Modes", if bound { short(status.list("accessModes")) } else { String::new() });
    if spec.has("volumeMode") {
        page.field("VolumeMode", spec.text("volumeMode"));
    }
    page.lines("Used By", &users(client, meta).await?);
    Ok(())
}

/// Names of the pods that use a claim.
async fn users(client: &Client, claim: &Value) -> Result<Vec<String>> {
    let discovery = client.discovery().await?;
    let mut list = client.list(discovery.resource("pods")?, Some(claim.text("namespace")), &[]).await?;
    let uses = |pod: &Value| {
        let mut volumes = pod.list("spec.volumes").iter();
        volumes.any(|volume| volume.text("persistentVolumeClaim.claimName") == claim.text("name"))
    };
    let using = crate::objects::items(&mut list).into_iter().filter(uses);
    Ok(using.map(|pod| pod.text("metadata.name").to_owned()).collect())
}

pub(super) fn volume(page: &mut Page, object: &Value) {
    let (meta, spec, status) = (object.at("metadata"), object.at("spec"), object.at("status"));
    page.field("Name", meta.text("name"));
    page.pairs("Labels", meta.at("labels"));
    page.annotations("Annotations", meta.at("annotations"));
    finalizers(page, meta);
    page.field("StorageClass", class(object));
    phase(page, object);
    let claim = spec.at("claimRef");
    let named = !claim.text("name").is_empty();
    page.field(
        "Claim",
        if named { format!("{}/{}", claim.text("namespace"), claim.text("name")) } else { String::new() },
    );
    page.field("Reclaim Policy", spec.text("persistentVolumeReclaimPolicy"));
    page.field("Access Modes", short(spec.list("accessModes")));
    if spec.has("volumeMode") {
        page.field("VolumeMode", spec.text("volumeMode"));
    }
    page.field("Capacity", storage(spec.map("capacity").get("storage")));
    node_affinity(page, spec.list("nodeAffinity.required.nodeSelectorTerms"));
    page.field("Message", status.text("message"));
    page.line(0, "Source:");
    source(page, spec);
}

fn node_affinity(page: &mut Page, terms: &[Value]) {
    if terms.is_empty() {
        return page.field("Node Affinity", "<none>");
    }
    page.line(0, "Node Affinity:\t");
    page.line(1, "Required Terms:\t");
    for (index, term) in terms.iter().enumerate() {
        let demand = |demand: &Value| {
            let values: Vec<String> = demand.list("values").iter().map(scalar).collect();
            let shown = format!("{} {}", demand.text("key"), demand.text("operator").to_lowercase());
            if values.is_empty() { shown } else { format!("{shown} [{}]", values.join(", ")) }
        };
        let demands: Vec<String> = term.list("matchExpressions").iter().map(demand).collect();
        let Some((first, rest)) = demands.split_first() else {
            page.line(2, format!("Term {index}:\t<none>"));
            continue;
        };
        page.line(2, format!("Term {index}:\t{first}"));
        rest.iter().for_each(|demand| page.line(2, format!("\t{demand}")));
    }
}

fn source(page: &mut Page, spec: &Value) {
    if let Some(path) = spec.get("hostPath") {
        page.line(2, "Type:\tHostPath (bare host directory volume)");
        page.line(2, format!("Path:\t{}", path.text("path")));
        page.line(2, format!("HostPathType:\t{}", path.text("type")));
    } else if let Some(local) = spec.get("local") {
        page.line(2, "Type:\tLocalVolume (a persistent volume backed by local storage on a node)");
        page.line(2, format!("Path:\t{}", local.text("path")));
    } else if let Some(csi) = spec.get("csi") {
        page.line(2, "Type:\tCSI (a Container Storage Interface (CSI) volume source)");
        page.line(2, format!("Driver:\t{}", csi.text("driver")));
        page.line(2, format!("FSType:\t{}", csi.text("fsType")));
        page.line(2, format!("VolumeHandle:\t{}", csi.text("volumeHandle")));
        page.line(2, format!("ReadOnly:\t{}", csi.flag("readOnly")));
        let attributes = csi.map("volumeAttributes").iter().map(|(key, value)| format!("{key}={}", scalar(value)));
        match attributes.collect::<Vec<_>>().split_first() {
            None => page.line(2, "VolumeAttributes:\t<none>"),
            Some((first, rest)) => {
                page.line(2, format!("VolumeAttributes:\t{first}"));
                rest.iter().for_each(|one| page.line(2, format!("\t{one}")));
            }
        }
    } else {
        page.line(1, "<unknown>");
    }
}

pub(super) fn class_page(page: &mut Page, object: &Value) {
    let meta = object.at("metadata");
    page.field("Name", meta.text("name"));
    let is_default = |key: &str| meta.map("annotations").get(key).is_some_and(|value| scalar(value) == "true");
    let default = is_default("storageclass.kubernetes.io/is-default-class")
        || is_default("storageclass.beta.kubernetes.io/is-default-class");
    page.field("IsDefaultClass", if default { "Yes" } else { "No" });
    page.field("Annotations", in_a_row(meta.at("annotations")));
    page.field("Provisioner", object.text("provisioner"));
    page.field("Parameters", in_a_row(object.at("parameters")));
    let expands = match (object.has("allowVolumeExpansion"), object.flag("allowVolumeExpansion")) {
        (false, _) => "<unset>",
        (_, true) => "True",
        (_, false) => "False",
    };
    page.field("AllowVolumeExpansion", expands);
    if object.list("mountOptions").is_empty() {
        page.field("MountOptions", "<none>");
    } else {
        page.line(0, "MountOptions:");
        object.list("mountOptions").iter().for_each(|option| page.line(1, scalar(option)));
    }
    page.field("ReclaimPolicy", object.text("reclaimPolicy"));
    page.field("VolumeBindingMode", object.text("volumeBindingMode"));
    if !object.list("allowedTopologies").is_empty() {
        page.line(0, "AllowedTopologies:\t");
        for (index, term) in object.list("allowedTopologies").iter().enumerate() {
            for (number, demand) in term.list("matchLabelExpressions").iter().enumerate() {
                let values: Vec<String> = demand.list("values").iter().map(scalar).collect();
                let title = if number == 0 { format!("Term {index}:") } else { String::new() };
                page.line(1, format!("{title}\t{} in [{}]", demand.text("key"), values.join(", ")));
            }
        }
    }
}

fn class(object: &Value) -> String {
    let old = object.map("metadata.annotations").get(BETA_CLASS).map(scalar);
    old.unwrap_or_else(|| object.text("spec.storageClassName").to_owned())
}

fn phase(page: &mut Page, object: &Value) {
    let deleted = object.text("metadata.deletionTimestamp");
    match deleted {
        "" => page.field("Status", object.text("status.phase")),
        time => page.field("Status", format!("Terminating (lasts {})", time::age(time))),
    }
}

fn finalizers(page: &mut Page, meta: &Value) {
    let all: Vec<String> = meta.list("finalizers").iter().map(scalar).collect();
    page.field("Finalizers", format!("[{}]", all.join(" ")));
}

fn storage(amount: Option<&Value>) -> String {
    amount.map_or_else(|| "0".to_owned(), scalar)
}

fn in_a_row(map: &Value) -> String {
    let pairs: Vec<String> = map.map("").iter().map(|(key, value)| format!("{key}={}", scalar(value))).collect();
    if pairs.is_empty() { "<none>".to_owned() } else { pairs.join(",") }
}

/// `RWO,RWX`.
fn short(modes: &[Value]) -> String {
    let known =
        [("ReadWriteOnce", "RWO"), ("ReadOnlyMany", "ROX"), ("ReadWriteMany", "RWX"), ("ReadWriteOncePod", "RWOP")];
    let has = |mode: &str| modes.iter().any(|given| scalar(given) == mode);
    known.iter().filter(|(mode, _)| has(mode)).map(|(_, short)| *short).collect::<Vec<_>>().join(",")
}
