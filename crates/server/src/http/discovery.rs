//! Discovery: what the API serves, in the legacy form and the aggregated one. Derived from the kinds table, and from what
//! other servers told of the groups that they serve.

use std::collections::BTreeSet;

use api::Refusal;
use api::kinds::{KindInfo, Scope};
use axum::body::Body;
use axum::response::Response;
use http::{HeaderValue, StatusCode};
use serde_json::{Value, json};

use super::negotiate::Form;
use super::{measured, reply, reviews};
use crate::aggregate::Extension;

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

/// Paths that are no group's.
const PATHS: [&str; 12] = [
    "/.well-known/openid-configuration",
    "/api",
    "/api/v1",
    "/apis",
    "/healthz",
    "/livez",
    "/metrics",
    "/openapi/v2",
    "/openapi/v3",
    "/openid/v1/jwks",
    "/readyz",
    "/version",
];

/// `/`: where there is something to see (upstream: `apiserver/pkg/server/routes/index.go`).
pub fn paths(extensions: &[Extension]) -> Response {
    reply::json(&json!({ "paths": listed(extensions) }))
}

fn listed(extensions: &[Extension]) -> BTreeSet<String> {
    let mut paths: BTreeSet<String> = PATHS.into_iter().map(str::to_owned).collect();
    let own = all().map(|info| (info.group, info.version)).filter(|(group, _)| !group.is_empty());
    for (group, version) in own.chain(extensions.iter().map(|it| (it.group.as_str(), it.version.as_str()))) {
        paths.insert(format!("/apis/{group}"));
        paths.insert(format!("/apis/{group}/{version}"));
    }
    paths
}

/// `/api`.
pub fn core_versions(accept: &[Form]) -> Response {
    if let Some(version) = aggregated_wanted(accept) {
        return aggregated(version, &[""], &[]);
    }
    reply::json(&json!({
        "kind": "APIVersions", "versions": ["v1"],
        "serverAddressByClientCIDRs": [{ "clientCIDR": "0.0.0.0/0", "serverAddress": "127.0.0.1:6443" }],
    }))
}

/// `/apis`.
pub fn groups(accept: &[Form], extensions: &[Extension]) -> Response {
    let names: Vec<&str> = group_names(extensions).into_iter().filter(|group| !group.is_empty()).collect();
    if let Some(version) = aggregated_wanted(accept) {
        return aggregated(version, &names, extensions);
    }
    let groups: Vec<Value> = names.iter().map(|group| group_value(group, extensions)).collect();
    reply::json(&json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": groups }))
}

/// `/apis/GROUP`.
pub fn group(group: &str, extensions: &[Extension]) -> Result<Response, Refusal> {
    if group.is_empty() || !group_names(extensions).contains(&group) {
        return Err(Refusal::no_such_path());
    }
    let mut value = group_value(group, extensions);
    value["kind"] = "APIGroup".into();
    value["apiVersion"] = "v1".into();
    Ok(reply::json(&value))
}

/// True for a group and version of this server's own.
pub fn serves(group: &str, version: &str) -> bool {
    all().any(|info| info.group == group && info.version == version)
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
    api::versions::rows().chain(measured::RESOURCES.iter()).chain(reviews::RESOURCES.iter())
}

fn served(filter: impl Fn(&KindInfo) -> bool) -> Vec<&'static KindInfo> {
    all().filter(|info| filter(info)).collect()
}

/// Our own groups, then those of others.
fn group_names(extensions: &[Extension]) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for group in all().map(|info| info.group).chain(extensions.iter().map(|it| it.group.as_str())) {
        if !names.contains(&group) {
            names.push(group);
        }
    }
    names
}

fn versions(group: &str) -> Vec<&'static str> {
    let mut versions: Vec<&str> = served(|info| info.group == group).iter().map(|info| info.version).collect();
    versions.dedup();
    versions
}

/// Versions of a group that others serve.
fn extended<'a>(group: &str, extensions: &'a [Extension]) -> impl Iterator<Item = &'a Extension> {
    extensions.iter().filter(move |it| it.group == group && !serves(&it.group, &it.version))
}

fn group_value(group: &str, extensions: &[Extension]) -> Value {
    let version = |version: &str| json!({ "groupVersion": format!("{group}/{version}"), "version": version });
    let others = extended(group, extensions).map(|it| version(&it.version));
    let versions: Vec<Value> = versions(group).into_iter().map(version).chain(others).collect();
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
        "proxy" => (json!(["create", "delete", "get", "patch", "update"]), "", "v1", "PodProxyOptions"),
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

fn aggregated(version: &str, groups: &[&str], extensions: &[Extension]) -> Response {
    let items: Vec<Value> = groups.iter().map(|group| aggregated_group(group, extensions)).collect();
    let body = json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": format!("apidiscovery.k8s.io/{version}"), "metadata": {}, "items": items,
    });
    let media = format!("application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList");
    let media = HeaderValue::from_str(&media).unwrap_or(reply::JSON);
    reply::with_type(StatusCode::OK, media, Body::from(body.to_string()))
}

fn aggregated_group(group: &str, extensions: &[Extension]) -> Value {
    let own = versions(group).into_iter().map(|version| {
        let resources: Vec<Value> = served(|info| info.group == group && info.version == version)
            .into_iter()
            .map(aggregated_resource)
            .collect();
        json!({ "version": version, "freshness": "Current", "resources": resources })
    });
    let others = extended(group, extensions).map(|it| {
        let freshness = if it.discovered.fresh { "Current" } else { "Stale" };
        let resources = of_another(it);
        json!({ "version": it.version, "freshness": freshness, "resources": resources })
    });
    let versions: Vec<Value> = own.chain(others).collect();
    let metadata = if group.is_empty() {
        json!({ "creationTimestamp": null })
    } else {
        json!({ "name": group, "creationTimestamp": null })
    };
    json!({ "metadata": metadata, "versions": versions })
}

/// The resources that another server lists in the legacy form. Metrics are listed as subresources of resources that are
/// not (upstream: `apiserver/pkg/endpoints: ConvertGroupVersionIntoToDiscovery`).
fn of_another(extension: &Extension) -> Vec<Value> {
    let mut found: Vec<Value> = Vec::new();
    for listed in &extension.discovered.resources {
        let Some(name) = listed["name"].as_str() else { continue };
        let (resource, subresource) = name.split_once('/').map_or((name, None), |(name, sub)| (name, Some(sub)));
        let text = |field: &str, otherwise: &str| listed[field].as_str().unwrap_or(otherwise).to_owned();
        let kind = json!({
            "group": text("group", &extension.group), "version": text("version", &extension.version), "kind": text("kind", ""),
        });
        let scope = if listed["namespaced"] == true { "Namespaced" } else { "Cluster" };
        let known = found.iter().position(|it| it["resource"] == resource);
        let at = known.unwrap_or_else(|| {
            found.push(json!({ "resource": resource, "responseKind": {}, "scope": scope, "singularResource": "", "verbs": [] }));
            found.len() - 1
        });
        let entry = &mut found[at];
        if let Some(subresource) = subresource {
            let value = json!({ "subresource": subresource, "responseKind": kind, "verbs": listed["verbs"] });
            entry.as_object_mut().into_iter().for_each(|entry| {
                let list = entry.entry("subresources").or_insert_with(|| json!([]));
                list.as_array_mut().into_iter().for_each(|list| list.push(value.clone()));
            });
            continue;
        }
        entry["responseKind"] = kind;
        entry["scope"] = scope.into();
        entry["singularResource"] = text("singularName", "").into();
        entry["verbs"] = listed["verbs"].clone();
        for field in ["shortNames", "categories"] {
            if listed[field].is_array() {
                entry[field] = listed[field].clone();
            }
        }
    }
    found
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

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::aggregate::Discovered;

    #[test]
    fn what_others_serve() {
        let resources = vec![
            json!({ "name": "pods/requests", "namespaced": true, "kind": "MetricValueList", "verbs": ["get"] }),
            json!({ "name": "queues", "singularName": "queue", "namespaced": true, "kind": "Queue", "verbs": ["get", "list"], "shortNames": ["q"] }),
            json!({ "name": "queues/status", "namespaced": true, "kind": "Queue", "verbs": ["get"] }),
        ];
        let extension = |group: &str, version: &str, discovered: Discovered| Extension {
            group: group.into(),
            version: version.into(),
            discovered,
        };
        let extensions = [
            extension("example.com", "v1", Discovered { resources, fresh: true }),
            extension("example.com", "v1beta1", Discovered::default()),
            extension("apps", "v9", Discovered::default()),
            extension("apps", "v1", Discovered::default()),
        ];
        let shown = ["example.com", "apps"].map(|group| {
            let versions = &aggregated_group(group, &extensions)["versions"];
            let versions = versions.as_array().unwrap().iter();
            let others: String =
                versions.filter(|it| it["version"] != "v1" || group != "apps").map(|it| format!("{it}\n")).collect();
            format!("{}\n{others}", group_value(group, &extensions))
        });
        expect![[r#"
            {"name":"example.com","preferredVersion":{"groupVersion":"example.com/v1","version":"v1"},"versions":[{"groupVersion":"example.com/v1","version":"v1"},{"groupVersion":"example.com/v1beta1","version":"v1beta1"}]}
            {"freshness":"Current","resources":[{"resource":"pods","responseKind":{},"scope":"Namespaced","singularResource":"","subresources":[{"responseKind":{"group":"example.com","kind":"MetricValueList","version":"v1"},"subresource":"requests","verbs":["get"]}],"verbs":[]},{"resource":"queues","responseKind":{"group":"example.com","kind":"Queue","version":"v1"},"scope":"Namespaced","shortNames":["q"],"singularResource":"queue","subresources":[{"responseKind":{"group":"example.com","kind":"Queue","version":"v1"},"subresource":"status","verbs":["get"]}],"verbs":["get","list"]}],"version":"v1"}
            {"freshness":"Stale","resources":[],"version":"v1beta1"}
            {"name":"apps","preferredVersion":{"groupVersion":"apps/v1","version":"v1"},"versions":[{"groupVersion":"apps/v1","version":"v1"},{"groupVersion":"apps/v9","version":"v9"}]}
            {"freshness":"Stale","resources":[],"version":"v9"}
        "#]].assert_eq(&shown.concat());
        assert!(group("nothing.com", &extensions).is_err() && group("example.com", &extensions).is_ok());
        let paths = listed(&extensions);
        let named =
            ["/api/v1", "/apis/apps", "/apis/apps/v1", "/apis/apps/v9", "/apis/example.com/v1beta1", "/version"];
        assert!(named.iter().all(|path| paths.contains(*path)), "{paths:?}");
    }
}
