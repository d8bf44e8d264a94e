//! The paths of an OpenAPI document: which operations each kind has, with the query parameters clients look for.
//!
//! Mirrors apiserver `pkg/endpoints/installer.go` (`registerResourceHandlers`). Built from the kinds table, as the routes are.

use serde_json::{Map, Value, json};

use super::definitions::{PATCH, group_version_kind, list_of, subresource_type};
use crate::kinds::{KindInfo, Scope};
use crate::patch::PatchType;
use crate::schema::table::{TypeId, table};
use crate::schema::type_of_row;

const WRITE: &[&str] = &["dryRun", "fieldManager", "fieldValidation"];
const PATCH_PARAMETERS: &[&str] = &["dryRun", "fieldManager", "fieldValidation", "force"];
const DELETE: &[&str] = &["dryRun", "gracePeriodSeconds", "orphanDependents", "propagationPolicy"];
const LIST: &[&str] = &[
    "allowWatchBookmarks",
    "continue",
    "fieldSelector",
    "labelSelector",
    "limit",
    "resourceVersion",
    "resourceVersionMatch",
    "sendInitialEvents",
    "timeoutSeconds",
    "watch",
];
const LOG: &[&str] = &["container", "follow", "limitBytes", "previous", "sinceSeconds", "tailLines", "timestamps"];

/// One operation of one path.
struct Operation {
    method: &'static str,
    action: &'static str,
    id: String,
    about: Value,
    query: &'static [&'static str],
    body: Option<String>,
    answer: String,
}

/// Paths with their operations.
type Operations = Vec<(String, Vec<Operation>)>;

/// Paths of a version 3 document.
pub(super) fn v3(rows: &[&'static KindInfo]) -> Value {
    render(
        rows,
        v3_operation,
        |name, typed| json!({ "name": name, "in": "path", "required": true, "schema": { "type": typed, "uniqueItems": true } }),
    )
}

/// Paths of the version 2 document.
pub(super) fn v2(rows: &[&'static KindInfo]) -> Value {
    render(
        rows,
        v2_operation,
        |name, typed| json!({ "name": name, "in": "path", "required": true, "type": typed, "uniqueItems": true }),
    )
}

fn render(rows: &[&'static KindInfo], operation: fn(&Operation) -> Value, parameter: fn(&str, &str) -> Value) -> Value {
    let mut paths = Map::new();
    for (path, operations) in rows.iter().flat_map(|info| operations_of(info)) {
        let mut item: Map<String, Value> =
            operations.iter().map(|each| (each.method.to_owned(), operation(each))).collect();
        let in_path: Vec<Value> = ["namespace", "name"]
            .into_iter()
            .filter(|name| path.contains(&format!("{{{name}}}")))
            .map(|name| parameter(name, "string"))
            .collect();
        if !in_path.is_empty() {
            item.insert("parameters".into(), in_path.into());
        }
        paths.insert(path, item.into());
    }
    paths.into()
}

fn operations_of(info: &'static KindInfo) -> Operations {
    let namespaced = info.scope == Scope::Namespaced;
    let prefix = if info.group.is_empty() { "/api/" } else { "/apis/" };
    let root = format!("{prefix}{}", info.api_version());
    let (collection, scope) = if namespaced {
        (format!("{root}/namespaces/{{namespace}}/{}", info.plural), "Namespaced")
    } else {
        (format!("{root}/{}", info.plural), "")
    };
    let of = Maker { info, scope, id: type_of_row(info) };
    let list = list_of(info).map_or_else(|| of.name(), |id| table().definition_name(id));
    let mut paths = vec![
        (
            collection.clone(),
            vec![
                of.operation("get", "list", "list", LIST, None, &list),
                of.operation("post", "post", "create", WRITE, Some(of.name()), &of.name()),
                of.operation("delete", "deletecollection", "deleteCollection", LIST, Some(delete_options()), &status()),
            ],
        ),
        (
            format!("{collection}/{{name}}"),
            vec![
                of.operation("get", "get", "read", &[], None, &of.name()),
                of.operation("put", "put", "replace", WRITE, Some(of.name()), &of.name()),
                of.operation("patch", "patch", "patch", PATCH_PARAMETERS, Some(PATCH.into()), &of.name()),
                of.operation("delete", "delete", "delete", DELETE, Some(delete_options()), &status()),
            ],
        ),
    ];
    if namespaced {
        let mut everywhere = of.operation("get", "list", "list", LIST, None, &list);
        everywhere.id = format!("list{}{}ForAllNamespaces", group_in_id(info), info.kind);
        paths.push((format!("{root}/{}", info.plural), vec![everywhere]));
    }
    for subresource in info.subresources {
        paths.push((format!("{collection}/{{name}}/{subresource}"), of.subresource(subresource)));
    }
    paths
}

fn delete_options() -> String {
    "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions".into()
}

fn status() -> String {
    "io.k8s.apimachinery.pkg.apis.meta.v1.Status".into()
}

/// What the operations of one kind have in common.
struct Maker {
    info: &'static KindInfo,
    scope: &'static str,
    id: TypeId,
}

impl Maker {
    fn name(&self) -> String {
        table().definition_name(self.id)
    }

    fn operation(
        &self,
        method: &'static str,
        action: &'static str,
        verb: &str,
        query: &'static [&'static str],
        body: Option<String>,
        answer: &str,
    ) -> Operation {
        let id = format!("{verb}{}{}{}", group_in_id(self.info), self.scope, self.info.kind);
        Operation { method, action, id, about: group_version_kind(self.id), query, body, answer: answer.to_owned() }
    }

    fn subresource(&self, name: &str) -> Vec<Operation> {
        let id = subresource_type(name).unwrap_or(self.id);
        let typed = table().definition_name(id);
        let of = Maker { id, ..*self };
        let mut operations = match name {
            "log" => vec![of.operation("get", "get", "read", LOG, None, "string")],
            "binding" | "eviction" | "token" => {
                vec![of.operation("post", "post", "create", WRITE, Some(typed.clone()), &typed)]
            }
            "finalize" => vec![of.operation("put", "put", "replace", WRITE, Some(typed.clone()), &typed)],
            "exec" | "attach" | "portforward" => vec![
                of.operation("get", "connect", "connectGet", &[], None, "string"),
                of.operation("post", "connect", "connectPost", &[], None, "string"),
            ],
            "proxy" => vec![
                of.operation("get", "connect", "connectGet", &[], None, "string"),
                of.operation("post", "connect", "connectPost", &[], None, "string"),
                of.operation("put", "connect", "connectPut", &[], None, "string"),
                of.operation("patch", "connect", "connectPatch", &[], None, "string"),
                of.operation("delete", "connect", "connectDelete", &[], None, "string"),
            ],
            _ => vec![
                of.operation("get", "get", "read", &[], None, &typed),
                of.operation("put", "put", "replace", WRITE, Some(typed.clone()), &typed),
                of.operation("patch", "patch", "patch", PATCH_PARAMETERS, Some(PATCH.into()), &typed),
            ],
        };
        operations.iter_mut().for_each(|operation| operation.id.push_str(&capitalized(name)));
        operations
    }
}

/// `AppsV1`, `CoreV1`, `RbacAuthorizationV1`.
fn group_in_id(info: &KindInfo) -> String {
    let group = if info.group.is_empty() { "core" } else { info.group.trim_end_matches(".k8s.io") };
    let group: String = group.split('.').map(capitalized).collect();
    group + &capitalized(info.version)
}

fn capitalized(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(letters).collect()
}

fn query_type(name: &str) -> &'static str {
    match name {
        "allowWatchBookmarks"
        | "force"
        | "follow"
        | "orphanDependents"
        | "previous"
        | "sendInitialEvents"
        | "timestamps"
        | "watch" => "boolean",
        "gracePeriodSeconds" | "limit" | "limitBytes" | "sinceSeconds" | "tailLines" | "timeoutSeconds" => "integer",
        _ => "string",
    }
}

fn media_types(operation: &Operation) -> Vec<&'static str> {
    match operation.method {
        "patch" => PatchType::ALL.iter().map(|patch| patch.media_type()).collect(),
        _ => vec!["*/*"],
    }
}

fn v3_operation(operation: &Operation) -> Value {
    let schema = |name: &str| match name {
        "string" => json!({ "type": "string" }),
        name => json!({ "$ref": format!("#/components/schemas/{name}") }),
    };
    let query: Vec<Value> = operation
        .query
        .iter()
        .map(|name| json!({ "name": name, "in": "query", "schema": { "type": query_type(name), "uniqueItems": true } }))
        .collect();
    let mut rendered = json!({
        "operationId": operation.id,
        "parameters": query,
        "responses": { "200": { "description": "OK", "content": { "application/json": { "schema": schema(&operation.answer) } } } },
        "x-kubernetes-action": operation.action,
        "x-kubernetes-group-version-kind": operation.about,
    });
    if let Some(body) = &operation.body {
        let content: Map<String, Value> = media_types(operation)
            .into_iter()
            .map(|media_type| (media_type.to_owned(), json!({ "schema": schema(body) })))
            .collect();
        let required = operation.method != "delete";
        rendered["requestBody"] = json!({ "content": content, "required": required });
    }
    rendered
}

fn v2_operation(operation: &Operation) -> Value {
    let schema = |name: &str| match name {
        "string" => json!({ "type": "string" }),
        name => json!({ "$ref": format!("#/definitions/{name}") }),
    };
    let mut parameters: Vec<Value> = operation
        .query
        .iter()
        .map(|name| json!({ "name": name, "in": "query", "type": query_type(name), "uniqueItems": true }))
        .collect();
    if let Some(body) = &operation.body {
        let required = operation.method != "delete";
        parameters.insert(0, json!({ "name": "body", "in": "body", "required": required, "schema": schema(body) }));
    }
    json!({
        "operationId": operation.id,
        "consumes": media_types(operation),
        "produces": ["application/json"],
        "parameters": parameters,
        "responses": { "200": { "description": "OK", "schema": schema(&operation.answer) } },
        "x-kubernetes-action": operation.action,
        "x-kubernetes-group-version-kind": operation.about,
    })
}
