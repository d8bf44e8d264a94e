//! The controllers of a rolling update as objects: the new one made from the old, what is written on them, and what is wrong with
//! them. Pure. The names on both sides are those that kubectl before 1.18 used, so that either can go on with the other's update.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::errors::{Error, Result};
use crate::json::Json;

/// On the new controller: `NAME:UID` of the one it replaces.
pub const SOURCE: &str = "kubectl.kubernetes.io/update-source-id";
/// On the new controller: its size in the end.
pub const DESIRED: &str = "kubectl.kubernetes.io/desired-replicas";
/// On the old controller: the size it had.
pub const ORIGINAL: &str = "kubectl.kubernetes.io/original-replicas";
/// On the old controller: the name of the new one.
pub const NEXT: &str = "kubectl.kubernetes.io/next-controller-id";
/// Hexadecimal digits of a hash in names and labels.
const HASH_DIGITS: usize = 32;

/// Text of an annotation.
pub fn annotation<'a>(controller: &'a Value, key: &str) -> Option<&'a str> {
    controller.map("metadata.annotations").get(key)?.as_str()
}

/// A number in an annotation.
pub fn count(controller: &Value, key: &str) -> Option<i64> {
    annotation(controller, key)?.parse().ok()
}

/// `NAME:UID`.
pub fn source_id(controller: &Value) -> String {
    format!("{}:{}", controller.text("metadata.name"), controller.text("metadata.uid"))
}

/// A hash of the whole object; it differs with every version of it.
pub fn hash(controller: &Value) -> String {
    let mut text = hex::encode(Sha256::digest(controller.to_string().as_bytes()));
    text.truncate(HASH_DIGITS);
    text
}

/// The index of the container that gets the image.
pub fn container_index(controller: &Value, container: Option<&str>) -> Result<usize> {
    let containers = controller.list("spec.template.spec.containers");
    match container {
        Some(name) => containers
            .iter()
            .position(|found| found.text("name") == name)
            .ok_or_else(|| Error::told(format!("container {name} not found in pod"))),
        None if containers.len() > 1 => {
            let names: Vec<&str> = containers.iter().map(|container| container.text("name")).collect();
            let error = Error::told("must specify container to update when updating a multi-container pod");
            Err(error.hinted(format!("choose one with --container: {}", names.join(", "))))
        }
        None => Ok(0),
    }
}

/// The image of that container.
pub fn image(controller: &Value, index: usize) -> &str {
    controller.list("spec.template.spec.containers").get(index).map_or("", |container| container.text("image"))
}

/// A controller like `old` with another image, told apart by the label `key`.
pub fn with_image(
    old: &Value,
    name: Option<&str>,
    image_wanted: &str,
    container: Option<&str>,
    key: &str,
) -> Result<Value> {
    let index = container_index(old, container)?;
    if image(old, index) == image_wanted {
        let error = Error::told("Specified --image must be distinct from existing container image");
        return Err(error.hinted(format!(
            "the controller has {image_wanted} already; an image that changed under the same tag is not seen: use a tag for each version"
        )));
    }
    let mut new = old.clone();
    new["spec"]["template"]["spec"]["containers"][index]["image"] = image_wanted.into();
    let hash = hash(&new);
    let name = name.map_or_else(|| format!("{}-{hash}", old.text("metadata.name")), str::to_owned);
    new["spec"]["selector"][key] = hash.clone().into();
    new["spec"]["template"]["metadata"]["labels"][key] = hash.into();
    Ok(renamed(&new, &name))
}

/// The same controller to be created under another name: without what a server writes and without what an update writes.
pub fn renamed(controller: &Value, name: &str) -> Value {
    let mut new = controller.clone();
    if let Some(metadata) = new["metadata"].as_object_mut() {
        for key in ["uid", "resourceVersion", "creationTimestamp", "generation", "managedFields", "selfLink"] {
            metadata.remove(key);
        }
        metadata.insert("name".into(), name.into());
        if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
            annotations.retain(|key, _| ![SOURCE, DESIRED, ORIGINAL, NEXT].contains(&key.as_str()));
        }
    }
    if let Some(whole) = new.as_object_mut() {
        whole.remove("status");
    }
    new
}

/// The controller of a file, complete: a selector is its labels if none is given, its size that of the old one.
pub fn from_file(mut new: Value, old: &Value, file: &str) -> Result<Value> {
    if new.text("kind") != "ReplicationController" {
        let kind = new.text("kind");
        let version = new.text("apiVersion");
        return Err(Error::told(format!("{file} contains a {version}, Kind={kind} not a ReplicationController")));
    }
    if new.map("spec.selector").is_empty() {
        new["spec"]["selector"] = new.at("spec.template.metadata.labels").clone();
    }
    if !new.has("spec.replicas") {
        new["spec"]["replicas"] = old.number("spec.replicas").into();
    }
    Ok(new)
}

/// Refuses a new controller that is not told apart from the old one by name and by a label of both selectors.
pub fn check_differs(old: &Value, new: &Value, file: &str) -> Result<()> {
    let name = old.text("metadata.name");
    if name == new.text("metadata.name") {
        return Err(Error::told(format!(
            "{file} cannot have the same name as the existing ReplicationController {name}"
        )));
    }
    let labels = new.labels("spec.template.metadata.labels");
    let strange = new.labels("spec.selector").into_iter().find(|(key, value)| labels.get(key) != Some(value));
    if let Some((key, value)) = strange {
        return Err(Error::told(format!("{file} selects {key}={value}, and the labels of its template do not say so")));
    }
    let selector = new.labels("spec.selector");
    let differs = |(key, value): (&String, &String)| selector.get(key).is_some_and(|other| other != value);
    match old.labels("spec.selector").iter().any(differs) {
        true => Ok(()),
        false => {
            Err(Error::told(format!("{file} must specify a matching key with non-equal value in Selector for {name}")))
        }
    }
}

/// The new controller as it is created: empty, with its source and the size it is to have.
pub fn empty(new: &Value, old: &Value) -> Result<Value> {
    let desired = new.number("spec.replicas");
    if desired <= 0 {
        return Err(Error::told(format!(
            "Invalid controller spec for {}; required: > 0 replicas, actual: {desired}",
            new.text("metadata.name")
        )));
    }
    let mut empty = new.clone();
    empty["spec"]["replicas"] = 0.into();
    crate::change::annotate(&mut empty, DESIRED, &desired.to_string());
    crate::change::annotate(&mut empty, SOURCE, &source_id(old));
    Ok(empty)
}

/// A merge patch that sets annotations, or takes them away.
pub fn annotate_patch(annotations: &[(&str, Option<&str>)]) -> Value {
    let map: serde_json::Map<String, Value> =
        annotations.iter().map(|(key, value)| ((*key).to_owned(), value.map_or(Value::Null, Value::from))).collect();
    json!({"metadata": {"annotations": map}})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn old() -> Value {
        json!({
            "apiVersion": "v1", "kind": "ReplicationController",
            "metadata": {"name": "web", "uid": "1", "resourceVersion": "7", "annotations": {NEXT: "stale", "mine": "kept"}},
            "spec": {"replicas": 3, "selector": {"app": "web"}, "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "nginx", "image": "nginx:1"}]}}},
            "status": {"replicas": 3},
        })
    }

    #[test]
    fn a_new_image_makes_a_new_controller() {
        let new = with_image(&old(), None, "nginx:2", None, "deployment").unwrap();
        let hash = new.text("spec.selector.deployment").to_owned();
        assert_eq!(hash.len(), HASH_DIGITS);
        let shown = serde_json::to_string_pretty(&new).unwrap().replace(&hash, "HASH");
        expect_test::expect![[r#"
            {
              "apiVersion": "v1",
              "kind": "ReplicationController",
              "metadata": {
                "annotations": {
                  "mine": "kept"
                },
                "name": "web-HASH"
              },
              "spec": {
                "replicas": 3,
                "selector": {
                  "app": "web",
                  "deployment": "HASH"
                },
                "template": {
                  "metadata": {
                    "labels": {
                      "app": "web",
                      "deployment": "HASH"
                    }
                  },
                  "spec": {
                    "containers": [
                      {
                        "image": "nginx:2",
                        "name": "nginx"
                      }
                    ]
                  }
                }
              }
            }"#]]
        .assert_eq(&shown);
    }

    #[test]
    fn what_is_refused() {
        let mut two = old();
        two["spec"]["template"]["spec"]["containers"] =
            json!([{"name": "nginx", "image": "nginx:1"}, {"name": "side", "image": "side:1"}]);
        let file = |name: &str, selector: Value, labels: Value| {
            let new = json!({"kind": "ReplicationController", "metadata": {"name": name},
                "spec": {"selector": selector, "template": {"metadata": {"labels": labels}}}});
            let new = from_file(new, &old(), "new.yaml").unwrap();
            check_differs(&old(), &new, "new.yaml").unwrap_err()
        };
        let told: Vec<String> = [
            with_image(&old(), None, "nginx:1", None, "deployment").unwrap_err(),
            with_image(&two, None, "nginx:2", None, "deployment").unwrap_err(),
            with_image(&two, None, "nginx:2", Some("other"), "deployment").unwrap_err(),
            file("web", json!({"app": "other"}), json!({"app": "other"})),
            file("web2", json!({"app": "web"}), json!({"app": "web"})),
            file("web2", json!({"app": "other"}), json!({"app": "web"})),
            file("web2", json!({"track": "new"}), json!({"track": "new"})),
            from_file(json!({"apiVersion": "apps/v1", "kind": "Deployment"}), &old(), "new.yaml").unwrap_err(),
        ]
        .iter()
        .map(Error::message)
        .collect();
        expect_test::expect![[r#"
            error: Specified --image must be distinct from existing container image
            error: must specify container to update when updating a multi-container pod
            error: container other not found in pod
            error: new.yaml cannot have the same name as the existing ReplicationController web
            error: new.yaml must specify a matching key with non-equal value in Selector for web
            error: new.yaml selects app=other, and the labels of its template do not say so
            error: new.yaml must specify a matching key with non-equal value in Selector for web
            error: new.yaml contains a apps/v1, Kind=Deployment not a ReplicationController"#]]
        .assert_eq(&told.join("\n"));
    }
}
