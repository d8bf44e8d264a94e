//! `Scale`: the one view through which anything with replicas is scaled.

use api::{Body, Key, Refusal, Snapshot};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde_json::{Value, json};

use super::{Call, Outcome, Part, update};

/// The `autoscaling/v1` `Scale` of an object that has one.
pub fn scale_of(body: &Body) -> Option<Value> {
    let (replicas, current, selector) = match body {
        Body::Deployment(deployment) => {
            let spec = deployment.spec.as_ref()?;
            let current = deployment.status.as_ref().and_then(|status| status.replicas);
            (spec.replicas, current, spec.selector.clone())
        }
        Body::ReplicaSet(set) => {
            let spec = set.spec.as_ref()?;
            (spec.replicas, set.status.as_ref().map(|status| status.replicas), spec.selector.clone())
        }
        Body::StatefulSet(set) => {
            let spec = set.spec.as_ref()?;
            (spec.replicas, set.status.as_ref().map(|status| status.replicas), spec.selector.clone())
        }
        Body::ReplicationController(controller) => {
            let spec = controller.spec.as_ref()?;
            let selector = LabelSelector { match_labels: spec.selector.clone(), match_expressions: None };
            (spec.replicas, controller.status.as_ref().map(|status| status.replicas), selector)
        }
        _ => return None,
    };
    let meta = body.meta();
    let selector = api::selector::Selector::from_label_selector(Some(&selector)).map(|selector| selector.to_string());
    Some(json!({
        "kind": "Scale", "apiVersion": "autoscaling/v1",
        "metadata": {
            "name": meta.name, "namespace": meta.namespace, "uid": meta.uid,
            "resourceVersion": meta.resource_version, "creationTimestamp": meta.creation_timestamp,
        },
        "spec": { "replicas": replicas.unwrap_or(0) },
        "status": { "replicas": current.unwrap_or(0), "selector": selector.unwrap_or_default() },
    }))
}

pub(super) fn update(call: &mut Call, key: &Key, scale: &Value) -> Result<Outcome, Refusal> {
    let current = find(call.world, key)?;
    let mut new = current.clone();
    let replicas = scale.pointer("/spec/replicas").map_or(Some(0), Value::as_i64);
    let replicas = replicas
        .and_then(|number| i32::try_from(number).ok())
        .ok_or_else(|| Refusal::bad_request("spec.replicas of a Scale must be a whole number of at most 2147483647"))?;
    if replicas < 0 {
        let cause = api::Cause {
            reason: "FieldValueInvalid".into(),
            message: format!("Invalid value: {replicas}: must be greater than or equal to 0"),
            field: "spec.replicas".into(),
        };
        return Err(Refusal::invalid(key.kind, &key.name, vec![cause]));
    }
    match &mut new {
        Body::Deployment(deployment) => deployment.spec.get_or_insert_default().replicas = Some(replicas),
        Body::ReplicaSet(set) => set.spec.get_or_insert_default().replicas = Some(replicas),
        Body::StatefulSet(set) => set.spec.get_or_insert_default().replicas = Some(replicas),
        Body::ReplicationController(controller) => controller.spec.get_or_insert_default().replicas = Some(replicas),
        _ => return Err(Refusal::no_such_path()),
    }
    let meta = new.meta_mut();
    meta.resource_version = text(scale, "/metadata/resourceVersion");
    meta.uid = text(scale, "/metadata/uid");
    update::update(call, &current, Part::Scale, new)
}

fn find(world: &Snapshot, key: &Key) -> Result<Body, Refusal> {
    world.at(key).map(|object| object.body.clone()).ok_or_else(|| Refusal::not_found(key.kind, &key.name))
}

fn text(value: &Value, pointer: &str) -> Option<String> {
    value.pointer(pointer).and_then(Value::as_str).map(str::to_owned)
}
