//! Where the pod specification is in an object. Mirrors kubectl `pkg/polymorphichelpers/updatepodspec.go`.

use serde_json::Value;

use crate::json::Json;

/// The pod specification of a workload, or of a pod; nothing for other kinds.
pub fn of(object: &mut Value) -> Option<&mut Value> {
    let path: &[&str] = match object.text("kind") {
        "Pod" => &["spec"],
        "CronJob" => &["spec", "jobTemplate", "spec", "template", "spec"],
        "Deployment" | "ReplicaSet" | "StatefulSet" | "DaemonSet" | "Job" | "ReplicationController" => {
            &["spec", "template", "spec"]
        }
        _ => return None,
    };
    path.iter().try_fold(object, |value, key| value.get_mut(*key))
}

/// kubectl's words for a kind that has none.
pub fn missing(object: &Value) -> String {
    let package = match object.text("apiVersion").split_once('/') {
        Some((group, version)) => format!("{}{version}", group.split('.').next().unwrap_or_default()),
        None => "v1".to_owned(),
    };
    let package = package.strip_prefix("apps").map_or(package.clone(), str::to_owned);
    format!("the object is not a pod or does not have a pod template: *{package}.{}", object.text("kind"))
}

/// The containers whose names fit, the ordinary ones first.
pub fn containers<'a>(spec: &'a mut Value, pattern: &str) -> Vec<&'a mut Value> {
    let mut ordinary = Vec::new();
    let mut init = Vec::new();
    for (key, value) in spec.as_object_mut().into_iter().flatten() {
        let list = match key.as_str() {
            "containers" => &mut ordinary,
            "initContainers" => &mut init,
            _ => continue,
        };
        let named = value.as_array_mut().into_iter().flatten();
        list.extend(named.filter(|container| super::fits(container.text("name"), pattern)));
    }
    ordinary.extend(init);
    ordinary
}
