//! What clients look for in the documents.

use serde_json::{Value, json};

use super::*;

fn document(api_version: &str) -> Value {
    serde_json::from_slice(&openapi_v3(api_version).unwrap().plain()).unwrap()
}

#[test]
fn index_names_every_group_version() {
    let index = openapi_v3_index();
    let hash = &openapi_v3("apps/v1").unwrap().hash;
    assert_eq!(
        index["paths"]["apis/apps/v1"]["serverRelativeURL"],
        json!(format!("/openapi/v3/apis/apps/v1?hash={hash}"))
    );
    assert!(index["paths"]["api/v1"]["serverRelativeURL"].as_str().unwrap().starts_with("/openapi/v3/api/v1?hash="));
    assert!(openapi_v3("nothing/v1").is_none());
}

#[test]
fn every_reference_leads_somewhere() {
    fn walk(value: &Value, schemas: &Value) {
        match value {
            Value::Object(fields) => {
                if let Some(Value::String(reference)) = fields.get("$ref") {
                    let name = reference.strip_prefix("#/components/schemas/").unwrap();
                    assert!(schemas.get(name).is_some(), "{name}");
                }
                fields.values().for_each(|value| walk(value, schemas));
            }
            Value::Array(items) => items.iter().for_each(|value| walk(value, schemas)),
            _ => {}
        }
    }
    for api_version in DOCUMENTS.keys() {
        let document = document(api_version);
        walk(&document, &document["components"]["schemas"]);
    }
}

#[test]
fn deployment_is_described() {
    let document = document("apps/v1");
    let schemas = &document["components"]["schemas"];
    let deployment = &schemas["io.k8s.api.apps.v1.Deployment"];
    assert_eq!(
        deployment["x-kubernetes-group-version-kind"],
        json!([{"group": "apps", "kind": "Deployment", "version": "v1"}])
    );
    let spec = &schemas["io.k8s.api.apps.v1.DeploymentSpec"];
    assert_eq!(spec["required"], json!(["selector", "template"]));
    assert_eq!(spec["properties"]["replicas"]["format"], "int32");
    assert!(spec["properties"]["replicas"]["description"].as_str().unwrap().starts_with("Number of desired pods."));
    assert_eq!(spec["properties"]["strategy"]["x-kubernetes-patch-strategy"], "retainKeys");
    let pod = &schemas["io.k8s.api.core.v1.PodSpec"]["properties"];
    assert_eq!(pod["volumes"]["x-kubernetes-patch-strategy"], "merge,retainKeys");
    assert_eq!(pod["containers"]["x-kubernetes-patch-merge-key"], "name");
    assert_eq!(pod["containers"]["x-kubernetes-list-map-keys"], json!(["name"]));
    assert_eq!(pod["restartPolicy"]["enum"], json!(["Always", "Never", "OnFailure"]));
    assert_eq!(schemas["io.k8s.api.core.v1.ContainerPort"]["properties"]["protocol"]["default"], "TCP");
}

#[test]
fn patch_says_what_it_takes() {
    let document = document("apps/v1");
    let patch = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
    assert_eq!(
        patch["x-kubernetes-group-version-kind"],
        json!({"group": "apps", "kind": "Deployment", "version": "v1"})
    );
    assert_eq!(patch["operationId"], "patchAppsV1NamespacedDeployment");
    let names: Vec<&Value> =
        patch["parameters"].as_array().unwrap().iter().map(|parameter| &parameter["name"]).collect();
    assert_eq!(json!(names), json!(["dryRun", "fieldManager", "fieldValidation", "force"]));
    assert!(patch["requestBody"]["content"]["application/strategic-merge-patch+json"].is_object());
    let scale = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}/scale"]["put"];
    assert_eq!(scale["x-kubernetes-group-version-kind"]["kind"], "Scale");
    assert_eq!(
        document["paths"]["/apis/apps/v1/deployments"]["get"]["operationId"],
        "listAppsV1DeploymentForAllNamespaces"
    );
}

#[test]
fn version_two_is_protobuf() {
    let bytes = openapi_v2_protobuf().plain();
    assert_eq!(&bytes[..5], b"\x0a\x032.0");
    let json: Value = serde_json::from_slice(&openapi_v2_json().plain()).unwrap();
    assert_eq!(
        json["definitions"]["io.k8s.api.apps.v1.DeploymentSpec"]["properties"]["template"]["$ref"],
        "#/definitions/io.k8s.api.core.v1.PodTemplateSpec"
    );
}
