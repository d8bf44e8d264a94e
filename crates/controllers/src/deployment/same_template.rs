//! Whether two pod templates ask for the same pods.
//!
//! Mirrors EqualIgnoreHash (`pkg/controller/deployment/util/deployment_util.go`): the label with the hash does not count,
//! an empty list is as good as none, and quantities are compared by value, so that writing `0.5` for `500m` starts no
//! rollout.

use api::quantity::Amount;
use api::template_hash::POD_TEMPLATE_HASH_LABEL;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;

/// Fields that hold quantities by the name of a resource.
const QUANTITIES: [&str; 3] = ["requests", "limits", "overhead"];

/// True if two templates ask for the same pods.
pub fn same_template(one: &PodTemplateSpec, other: &PodTemplateSpec) -> bool {
    // Most templates of a Deployment differ in an image, and then nothing else needs to be looked at; those that are the
    // same are mostly the same to the letter.
    images(one).eq(images(other))
        && ((one.spec == other.spec && meta(one) == meta(other)) || normal(one) == normal(other))
}

fn images(template: &PodTemplateSpec) -> impl Iterator<Item = Option<&String>> {
    template.spec.iter().flat_map(|spec| &spec.containers).map(|container| container.image.as_ref())
}

/// The metadata of a template but for its hash.
fn meta(template: &PodTemplateSpec) -> ObjectMeta {
    let mut meta = template.metadata.clone().unwrap_or_default();
    if let Some(labels) = &mut meta.labels {
        labels.remove(POD_TEMPLATE_HASH_LABEL);
    }
    meta
}

fn normal(template: &PodTemplateSpec) -> Value {
    let mut value = serde_json::to_value(template).expect("a pod template is always representable as JSON");
    if let Some(labels) = value.pointer_mut("/metadata/labels").and_then(Value::as_object_mut) {
        labels.remove(POD_TEMPLATE_HASH_LABEL);
    }
    normalise(&mut value);
    value
}

/// Drops what says nothing and writes quantities in one way.
fn normalise(value: &mut Value) {
    match value {
        Value::Array(list) => list.iter_mut().for_each(normalise),
        Value::Object(fields) => {
            for (name, field) in fields.iter_mut() {
                if QUANTITIES.contains(&name.as_str()) {
                    normalise_quantities(field);
                }
                normalise(field);
            }
            fields.retain(|_, field| !says_nothing(field));
        }
        _ => {}
    }
}

fn normalise_quantities(list: &mut Value) {
    for quantity in list.as_object_mut().into_iter().flat_map(|list| list.values_mut()) {
        let amount = quantity.as_str().and_then(|text| Amount::parse(text).ok());
        if let Some(amount) = amount {
            *quantity = amount.to_string().into();
        }
    }
}

fn says_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_counts() {
        let template = |spec: Value, labels: Value| -> PodTemplateSpec {
            serde_json::from_value(json!({ "metadata": { "labels": labels }, "spec": spec })).unwrap()
        };
        let spec = |resources: Value, env: Value| json!({ "containers": [{ "name": "c", "image": "i", "resources": resources, "env": env }] });
        let label = json!({ "app": "web" });
        let base = template(spec(json!({ "limits": { "cpu": "500m", "memory": "1Gi" } }), json!(null)), label.clone());
        let hashed = json!({ "app": "web", "pod-template-hash": "x" });
        let same = [
            template(spec(json!({ "limits": { "cpu": "0.5", "memory": "1024Mi" } }), json!([])), hashed),
            template(
                spec(json!({ "limits": { "cpu": "500m", "memory": "1Gi" }, "requests": {} }), json!(null)),
                label.clone(),
            ),
        ];
        let other = [
            template(spec(json!({ "limits": { "cpu": "501m", "memory": "1Gi" } }), json!(null)), label),
            template(spec(json!({ "limits": { "cpu": "500m", "memory": "1Gi" } }), json!(null)), json!({ "app": "x" })),
        ];
        assert!(same.iter().all(|template| same_template(&base, template)));
        assert!(!other.iter().any(|template| same_template(&base, template)));
    }
}
