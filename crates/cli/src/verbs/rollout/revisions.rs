//! The revisions of a workload: ReplicaSets of a Deployment, ControllerRevisions of a DaemonSet or a StatefulSet.
//!
//! Mirrors kubectl `pkg/polymorphichelpers/{history,rollback}.go` and deployment/util `GetAllReplicaSets`.

use serde_json::Value;

use crate::change;
use crate::client::Client;
use crate::errors::{Error, Result};
use crate::json::Json;
use crate::objects::{self, Found};

/// Where Deployments and their ReplicaSets carry the revision.
pub const REVISION: &str = "deployment.kubernetes.io/revision";
/// The label that tells a Deployment's ReplicaSets apart.
pub const HASH: &str = "pod-template-hash";

/// One revision.
#[derive(Clone, Debug)]
pub struct Revision {
    /// Its number.
    pub number: i64,
    /// The ReplicaSet or ControllerRevision.
    pub object: Value,
    /// The pod template.
    pub template: Value,
}

/// The revision that an object carries.
pub fn number(object: &Value) -> Option<i64> {
    annotation(object, REVISION)?.parse().ok()
}

/// An annotation of an object.
pub fn annotation<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    object.map("metadata.annotations").get(key)?.as_str()
}

/// Whether `object` is controlled by the owner with this uid.
pub fn is_controlled_by(object: &Value, uid: &str) -> bool {
    object.list("metadata.ownerReferences").iter().any(|owner| owner.flag("controller") && owner.text("uid") == uid)
}

/// The objects of a type that `owner` controls, in its namespace.
pub async fn controlled(client: &Client, word: &str, owner: &Found, selector: &str) -> Result<Vec<Value>> {
    let discovery = client.discovery().await?;
    let resource = discovery.resource(word)?;
    let query = [("labelSelector", selector.to_owned())];
    let mut list = client.list(resource, owner.namespace.as_deref(), &query).await?;
    let uid = owner.object.text("metadata.uid");
    Ok(objects::items(&mut list).into_iter().filter(|object| is_controlled_by(object, uid)).collect())
}

/// `a=b,c in (d,e)`: a LabelSelector as a query takes it.
pub fn selector(selector: &Value) -> String {
    let mut parts: Vec<String> =
        selector.labels("matchLabels").iter().map(|(key, value)| format!("{key}={value}")).collect();
    for expression in selector.list("matchExpressions") {
        let key = expression.text("key");
        let values: Vec<&str> = expression.list("values").iter().filter_map(Value::as_str).collect();
        parts.push(match expression.text("operator") {
            "In" => format!("{key} in ({})", values.join(",")),
            "NotIn" => format!("{key} notin ({})", values.join(",")),
            "Exists" => key.to_owned(),
            _ => format!("!{key}"),
        });
    }
    parts.join(",")
}

/// The revisions, the oldest first.
pub async fn of(client: &Client, found: &Found) -> Result<Vec<Revision>> {
    let selector = selector(found.object.at("spec.selector"));
    let mut revisions: Vec<Revision> = if found.resource.kind == "Deployment" {
        let sets = controlled(client, "replicasets.apps", found, &selector).await?;
        sets.into_iter()
            .filter_map(|object| {
                Some(Revision { number: number(&object)?, template: object.at("spec.template").clone(), object })
            })
            .collect()
    } else {
        let kept = controlled(client, "controllerrevisions.apps", found, &selector).await?;
        kept.into_iter()
            .map(|object| {
                let template = restored(&found.object, &object)?.at("spec.template").clone();
                Ok(Revision { number: object.number("revision"), template, object })
            })
            .collect::<Result<_>>()?
    };
    revisions.sort_by_key(|revision| revision.number);
    Ok(revisions)
}

/// A workload with the template that a ControllerRevision keeps.
pub fn restored(workload: &Value, revision: &Value) -> Result<Value> {
    let failed = || Error::told(format!("unable to parse history {}", revision.text("metadata.name")));
    let id = change::type_id(workload).ok_or_else(failed)?;
    api::patch::strategic(id, workload.clone(), revision.at("data").clone()).map_err(|_| failed())
}

/// A workload with the template of one of its revisions.
pub fn gone_back(found: &Found, revision: &Revision) -> Result<Value> {
    if found.resource.kind != "Deployment" {
        return restored(&found.object, &revision.object);
    }
    let mut workload = found.object.clone();
    workload["spec"]["template"] = plain_template(&revision.template);
    Ok(workload)
}

/// Whether two pod templates are the same but for the label that names their ReplicaSet.
pub fn same_template(one: &Value, other: &Value) -> bool {
    plain_template(one) == plain_template(other)
}

/// A template without the label that names its ReplicaSet.
pub fn plain_template(template: &Value) -> Value {
    let mut template = template.clone();
    if let Some(labels) = template["metadata"]["labels"].as_object_mut() {
        labels.remove(HASH);
    }
    // Some servers write it, some leave it out; it means nothing.
    if let Some(metadata) = template["metadata"].as_object_mut() {
        metadata.retain(|key, value| !(key == "creationTimestamp" && value.is_null()));
    }
    template
}

/// The images of a template's containers: `nginx:1.25, busybox`.
pub fn images(template: &Value) -> String {
    let images: Vec<&str> = template.list("spec.containers").iter().map(|container| container.text("image")).collect();
    images.join(",")
}

/// The revision that `undo` means: the one named, or the one before the last.
pub fn target<'a>(revisions: &'a [Revision], wanted: i64, found: &Found) -> Result<&'a Revision> {
    let missing = || Error::told(format!("unable to find specified revision {wanted} in history"));
    if wanted != 0 {
        return revisions.iter().find(|revision| revision.number == wanted).ok_or_else(missing);
    }
    let before = revisions.len().checked_sub(2).and_then(|index| revisions.get(index));
    before.ok_or_else(|| match found.resource.kind.as_str() {
        "Deployment" => Error::told(format!("no rollout history found for deployment {:?}", found.name)),
        _ => Error::told("no last revision to roll back to"),
    })
}
