//! Discovery: what the API serves, in the legacy form and the aggregated one. Derived from the kinds table.

use api::kinds::{KindInfo, Scope};
use api::{Kind, Refusal};
use axum::body::Body;
use axum::response::Response;
use http::{HeaderValue, StatusCode};
use serde_json::{Value, json};

use super::negotiate::Form;
use super::{measured, reply, reviews, versions};

/// The Kubernetes version whose API this is.
pub const KUBERNETES_MINOR: u32 = 36;

/// `/version`.
pub fn version() -> Value {
    json!({
        "major": "1", "minor": KUBERNETES_MINOR.to_string(),
        "gitVersion": format!("v1.{KUBERNETES_MINOR}.0+kapstan-{}", env!("CARGO_PKG_VERSION")),
        "gitCommit": "", "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "none", "compiler": "rustc", "platform": "linux/amd64",
    })
}

/// `/api`.
pub fn core_versions(accept: &[Form]) -> Response {
    if let Some(version) = aggregated_wanted(accept) {
        return aggregated(version, |info| info.group.is_empty());
    }
    reply::json(&json!({
        "kind": "APIVersions", "versions": ["v1"],
        "serverAddressByClientCIDRs": [{ "clientCIDR": "0.0.0.0/0", "serverAddress": "127.0.0.1:6443" }],
    }))
}

/// `/apis`.
pub fn groups(accept: &[Form]) -> Response {
    if let Some(version) = aggregated_wanted(accept) {
        return aggregated(version, |info| !info.group.is_empty());
    }
    let groups: Vec<Value> = group_names().into_iter().filter(|group| !group.is_empty()).map(group_value).collect();
    reply::json(&json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": groups }))
}

/// `/apis/GROUP`.
pub fn group(group: &str) -> Result<Response, Refusal> {
    if group.is_empty() || !group_names().contains(&group) {
        return Err(Refusal::no_such_path());
    }
    let mut value = group_value(group);
    value["kind"] = "APIGroup".into();
    value["apiVersion"] = "v1".into();
    Ok(reply::json(&value))
}

/// The list of custom kinds: there are none.
pub fn no_custom_kinds() -> Response {
    reply::json(&json!({
        "kind": "CustomResourceDefinitionList", "apiVersion": "apiextensions.k8s.io/v1", "metadata": {}, "items": [],
    }))
}

/// `/api/v1` and `/apis/GROUP/VERSION`.
pub fn group_version(group: &str, version: &str) -> Result<Response, Refusal> {
    let served = served(|info| info.group == group && info.version == version);
    let Some(first) = served.first() else { return Err(Refusal::no_such_path()) };
    let resources: Vec<Value> = served.iter().flat_map(|info| legacy_resources(info)).collect();
    let api_version = first.api_version();
    Ok(reply::json(&json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": api_version, "resources": resources,
    })))
}

/// All that is served: the stored kinds, what is measured, and what can be asked.
fn all() -> impl Iterator<Item = &'static KindInfo> {
    let stored = Kind::ALL.iter().map(|kind| kind.info()).chain(versions::RESOURCES.iter());
    stored.chain(measured::RESOURCES.iter()).chain(reviews::RESOURCES.iter())
}

fn served(filter: impl Fn(&KindInfo) -> bool) -> Vec<&'static KindInfo> {
    all().filter(|info| filter(info)).collect()
}

fn group_names() -> Vec<&'static str> {
    let mut names: Vec<&str> = Vec::new();
    for info in all() {
        if !names.contains(&info.group) {
            names.push(info.group);
        }
    }
    names
}

fn versions(group: &str) -> Vec<&'static str> {
    let mut versions: Vec<&str> = served(|info| info.group == group).iter().map(|info| info.version).collect();
    versions.dedup();
    versions
}

fn group_value(group: &str) -> Value {
    let version = |version: &&str| json!({ "groupVersion": format!("{group}/{version}"), "version": version });
    let versions: Vec<Value> = versions(group).iter().map(version).collect();
    json!({ "name": group, "versions": versions, "preferredVersion": versions[0] })
}

fn verbs(info: &KindInfo) -> Value {
    if info.group == measured::GROUP {
        return json!(["get", "list"]);
    }
    if reviews::RESOURCES.iter().any(|review| review.group == info.group) {
        return json!(["create"]);
    }
    json!(["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"])
}

/// The verbs of a subresource and the type it speaks: (verbs, group, version, kind).
fn subresource(info: &KindInfo, name: &str) -> (Value, &'static str, &'static str, &'static str) {
    match name {
        "scale" => (json!(["get", "patch", "update"]), "autoscaling", "v1", "Scale"),
        "log" => (json!(["get"]), "", "v1", "Pod"),
        "exec" => (json!(["create", "get"]), "", "v1", "PodExecOptions"),
        "attach" => (json!(["create", "get"]), "", "v1", "PodAttachOptions"),
        "portforward" => (json!(["create", "get"]), "", "v1", "PodPortForwardOptions"),
        "binding" => (json!(["create"]), "", "v1", "Binding"),
        "eviction" => (json!(["create"]), "policy", "v1", "Eviction"),
        "token" => (json!(["create"]), "authentication.k8s.io", "v1", "TokenRequest"),
        "finalize" => (json!(["update"]), "", "v1", "Namespace"),
        _ => (json!(["get", "patch", "update"]), info.group, info.version, info.kind),
    }
}

fn legacy_resources(info: &'static KindInfo) -> Vec<Value> {
    let namespaced = info.scope == Scope::Namespaced;
    let mut main = json!({
        "name": info.plural, "singularName": info.singular, "namespaced": namespaced, "kind": info.kind, "verbs": verbs(info),
    });
    if !info.short_names.is_empty() {
        main["shortNames"] = json!(info.short_names);
    }
    if !info.categories.is_empty() {
        main["categories"] = json!(info.categories);
    }
    let subresources = info.subresources.iter().map(|name| {
        let (verbs, group, version, kind) = subresource(info, name);
        let mut value = json!({
            "name": format!("{}/{name}", info.plural), "singularName": "", "namespaced": namespaced, "kind": kind, "verbs": verbs,
        });
        if (group, version) != (info.group, info.version) {
            value["group"] = group.into();
            value["version"] = version.into();
        }
        value
    });
    std::iter::once(main).chain(subresources).collect()
}

fn aggregated_wanted(accept: &[Form]) -> Option<&'static str> {
    match accept.first() {
        Some(Form::AggregatedDiscovery(version)) => Some(version),
        _ => None,
    }
}

fn aggregated(version: &str, filter: impl Fn(&KindInfo) -> bool) -> Response {
    let groups =
        group_names().into_iter().filter(|group| !served(|info| info.group == *group && filter(info)).is_empty());
    let items: Vec<Value> = groups.map(aggregated_group).collect();
    let body = json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": format!("apidiscovery.k8s.io/{version}"), "metadata": {}, "items": items,
    });
    let media = format!("application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList");
    let media = HeaderValue::from_str(&media).unwrap_or(reply::JSON);
    reply::with_type(StatusCode::OK, media, Body::from(body.to_string()))
}

fn aggregated_group(group: &str) -> Value {
    let versions: Vec<Value> = versions(group)
        .iter()
        .map(|version| {
            let resources: Vec<Value> = served(|info| info.group == group && info.version == *version)
                .into_iter()
                .map(aggregated_resource)
                .collect();
            json!({ "version": version, "freshness": "Current", "resources": resources })
        })
        .collect();
    let metadata = if group.is_empty() {
        json!({ "creationTimestamp": null })
    } else {
        json!({ "name": group, "creationTimestamp": null })
    };
    json!({ "metadata": metadata, "versions": versions })
}

fn aggregated_resource(info: &'static KindInfo) -> Value {
    let subresources: Vec<Value> = info
        .subresources
        .iter()
        .map(|name| {
            let (verbs, group, version, kind) = subresource(info, name);
            json!({ "subresource": name, "verbs": verbs, "responseKind": { "group": group, "version": version, "kind": kind } })
        })
        .collect();
    let mut value = json!({
        "resource": info.plural, "singularResource": info.singular, "verbs": verbs(info),
        "responseKind": { "group": info.group, "version": info.version, "kind": info.kind },
        "scope": if info.scope == Scope::Namespaced { "Namespaced" } else { "Cluster" },
    });
    if !info.short_names.is_empty() {
        value["shortNames"] = json!(info.short_names);
    }
    if !info.categories.is_empty() {
        value["categories"] = json!(info.categories);
    }
    if !subresources.is_empty() {
        value["subresources"] = json!(subresources);
    }
    value
}
