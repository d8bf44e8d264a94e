//! GET and LIST: the stored bytes of the last committed snapshot, as they are or as a table.

use std::sync::Arc;

use api::{Kind, Object, Refusal, Snapshot};
use axum::body::Body;
use axum::response::Response;
use base64::Engine;
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};

use super::negotiate::{Form, accept, not_acceptable};
use super::query::Query;
use super::route::Target;
use super::select::Selection;
use super::{Gate, reply, table};
use crate::door;
use crate::writer::clock;

/// One object.
pub fn get(gate: &Gate, target: &Target, query: &Query, headers: &HeaderMap) -> Result<Response, Refusal> {
    let object = find(&gate.snapshot(), target)?;
    match form(headers)? {
        Form::Table(version) => {
            let rows = table::Table::new(target.kind, version, query.text("includeObject"));
            let table = rows.render(std::slice::from_ref(&object), object.revision, None, None);
            Ok(reply::json(&table))
        }
        Form::Metadata(version) => Ok(reply::json(&metadata_only(&object, version))),
        _ => Ok(reply::bytes(StatusCode::OK, object.json.clone())),
    }
}

/// The `Scale` of one object.
pub fn scale(gate: &Gate, target: &Target) -> Result<Response, Refusal> {
    let object = find(&gate.snapshot(), target)?;
    door::scale_of(&object.body).map(|scale| reply::json(&scale)).ok_or_else(Refusal::no_such_path)
}

/// What the controllers say about one object.
pub fn why(gate: &Gate, kind: Kind, namespace: &str, name: &str) -> Result<Response, Refusal> {
    let key = api::Key::new(kind, namespace, name);
    let snapshot = gate.snapshot();
    let object = snapshot.at(&key).ok_or_else(|| Refusal::not_found(kind, name))?;
    let reasons = gate.why.about(&key, &snapshot, &gate.measured.usage(), clock());
    Ok(reply::json(&json!({ "kind": "Why", "name": name, "revision": object.revision, "why": reasons })))
}

/// A list, whole or a page of it.
pub fn list(
    gate: &Gate,
    kind: Kind,
    selection: &Selection,
    query: &Query,
    headers: &HeaderMap,
) -> Result<Response, Refusal> {
    let form = form(headers)?;
    let snapshot = gate.snapshot();
    check_version(query, &snapshot)?;
    let page = page(gate, snapshot, kind, selection, query)?;
    match form {
        Form::Table(version) => {
            let rows = table::Table::new(kind, version, query.text("includeObject"));
            Ok(reply::json(&rows.render(&page.objects, page.revision, page.next, page.remaining)))
        }
        Form::Metadata(version) => {
            let items: Vec<Value> = page.objects.iter().map(|object| metadata_only(object, version)).collect();
            Ok(reply::json(&json!({
                "kind": "PartialObjectMetadataList", "apiVersion": format!("meta.k8s.io/{version}"),
                "metadata": list_metadata(&page), "items": items,
            })))
        }
        _ => Ok(plain_list(kind, &page)),
    }
}

/// Objects of one page.
struct Page {
    revision: u64,
    objects: Vec<Arc<Object>>,
    next: Option<String>,
    remaining: Option<usize>,
}

/// Where the next page begins, and at which revision the first was read.
struct Continue {
    revision: u64,
    after: String,
}

fn page(
    gate: &Gate,
    snapshot: Arc<Snapshot>,
    kind: Kind,
    selection: &Selection,
    query: &Query,
) -> Result<Page, Refusal> {
    let limit = query.number("limit")?.filter(|limit| *limit > 0).map_or(usize::MAX, |limit| limit as usize);
    let start = match query.text("continue") {
        "" => None,
        token => Some(Continue::decode(token)?),
    };
    let snapshot = match &start {
        Some(start) if start.revision != 0 => gate.pages.find(start.revision).ok_or_else(|| start.expired())?,
        _ => snapshot,
    };
    let after = start.as_ref().map(|start| start.after.as_str());
    let mut matching = candidates(&snapshot, kind, selection, after).filter(|object| selection.matches(object));
    let objects: Vec<Arc<Object>> = matching.by_ref().take(limit).cloned().collect();
    let more = matching.next().is_some();
    let revision = snapshot.revision();
    let next = objects.last().filter(|_| more).map(|last| Continue { revision, after: last.key().path() }.encode());
    let remaining = (more && selection.is_everything()).then(|| 1 + matching.count());
    if next.is_some() {
        gate.pages.keep(snapshot.clone());
    }
    Ok(Page { revision, objects, next, remaining })
}

/// The least set of objects that holds all matches.
fn candidates<'a>(
    snapshot: &'a Snapshot,
    kind: Kind,
    selection: &Selection,
    after: Option<&str>,
) -> Box<dyn Iterator<Item = &'a Arc<Object>> + 'a> {
    if let (Some(name), Some(namespace), None) = (selection.exact_name(), &selection.namespace, after) {
        return Box::new(snapshot.object(kind, namespace, name).into_iter());
    }
    if let (Some(node), Kind::Pod) = (selection.exact_node(), kind) {
        return Box::new(snapshot.pod_objects_on(node, after));
    }
    snapshot.objects_after(kind, selection.namespace.as_deref(), after)
}

impl Continue {
    fn encode(&self) -> String {
        let text = json!({ "v": "meta.k8s.io/v1", "rv": self.revision, "start": self.after }).to_string();
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text)
    }

    fn decode(token: &str) -> Result<Continue, Refusal> {
        let invalid = || Refusal::bad_request("continue key is not valid");
        let text = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(token).map_err(|_| invalid())?;
        let value: Value = serde_json::from_slice(&text).map_err(|_| invalid())?;
        let revision = value["rv"].as_u64().ok_or_else(invalid)?;
        Ok(Continue { revision, after: value["start"].as_str().ok_or_else(invalid)?.to_owned() })
    }

    fn expired(&self) -> Refusal {
        let mut refusal = Refusal::expired(
            "The provided continue parameter is too old to display a consistent list result. You can start a new list \
             without the continue parameter, or use the continue token in this response to retrieve the remainder of \
             the results. Continuing with the provided token results in an inconsistent list - objects that were \
             created, modified, or deleted between the time the first chunk was returned and now may show up in the list.",
        );
        refusal.continue_token = Some(Continue { revision: 0, after: self.after.clone() }.encode());
        refusal
    }
}

fn check_version(query: &Query, snapshot: &Snapshot) -> Result<(), Refusal> {
    let (version, matching) = (query.text("resourceVersion"), query.text("resourceVersionMatch"));
    if query.flag("sendInitialEvents") {
        return Err(forbidden_option("sendInitialEvents", "sendInitialEvents is forbidden for list"));
    }
    if version.is_empty() && !matching.is_empty() {
        return Err(forbidden_option(
            "resourceVersionMatch",
            "resourceVersionMatch is forbidden unless resourceVersion is provided",
        ));
    }
    if !matching.is_empty() && !query.text("continue").is_empty() {
        return Err(forbidden_option(
            "resourceVersionMatch",
            "resourceVersionMatch is forbidden when continue is provided",
        ));
    }
    if version.is_empty() {
        return Ok(());
    }
    let asked: u64 = version.parse().map_err(|_| {
        Refusal::bad_request(format!(
            "invalid resource version \"{version}\": it must be a number from an earlier answer"
        ))
    })?;
    if matching == "Exact" && asked != snapshot.revision() && asked != 0 {
        return Err(Refusal::expired("The resourceVersion for the provided list is too old."));
    }
    if snapshot.revision() < asked {
        return Err(too_new(asked, snapshot.revision()));
    }
    Ok(())
}

/// 504 with the cause client-go looks for.
pub fn too_new(asked: u64, current: u64) -> Refusal {
    let mut refusal = Refusal::new(504, "Timeout", format!("Too large resource version: {asked}, current: {current}"));
    refusal.retry_after_seconds = Some(1);
    refusal.causes = vec![api::Cause {
        reason: "ResourceVersionTooLarge".into(),
        message: "Too large resource version".into(),
        field: String::new(),
    }];
    refusal
}

/// 422 about an option of a list or watch.
pub fn forbidden_option(field: &str, message: &str) -> Refusal {
    let mut refusal =
        Refusal::new(422, "Invalid", format!("ListOptions.meta.k8s.io \"\" is invalid: {field}: Forbidden: {message}"));
    refusal.causes = vec![api::Cause {
        reason: "FieldValueForbidden".into(),
        message: format!("Forbidden: {message}"),
        field: field.into(),
    }];
    refusal
}

fn find(snapshot: &Snapshot, target: &Target) -> Result<Arc<Object>, Refusal> {
    let found = snapshot.object(target.kind, &target.namespace, &target.name);
    found.cloned().ok_or_else(|| Refusal::not_found(target.kind, &target.name))
}

/// The form to answer in, or 406.
pub fn form(headers: &HeaderMap) -> Result<Form, Refusal> {
    let forms = accept(headers);
    forms
        .into_iter()
        .find(|form| !matches!(form, Form::AggregatedDiscovery(_)))
        .ok_or_else(|| not_acceptable("application/json, application/json;as=Table;g=meta.k8s.io;v=v1"))
}

fn list_metadata(page: &Page) -> Value {
    let mut metadata = json!({ "resourceVersion": page.revision.to_string() });
    if let Some(next) = &page.next {
        metadata["continue"] = next.as_str().into();
    }
    if let Some(remaining) = page.remaining {
        metadata["remainingItemCount"] = remaining.into();
    }
    metadata
}

/// A list made of the stored bytes, none of them copied.
fn plain_list(kind: Kind, page: &Page) -> Response {
    let info = kind.info();
    let head = format!(
        "{{\"kind\":\"{}List\",\"apiVersion\":\"{}\",\"metadata\":{},\"items\":[",
        info.kind,
        info.api_version(),
        list_metadata(page)
    );
    let mut chunks = Vec::with_capacity(2 * page.objects.len() + 2);
    chunks.push(Bytes::from(head));
    for (index, object) in page.objects.iter().enumerate() {
        if index > 0 {
            chunks.push(Bytes::from_static(b","));
        }
        chunks.push(object.json.clone());
    }
    chunks.push(Bytes::from_static(b"]}\n"));
    let stream = futures::stream::iter(chunks.into_iter().map(Ok::<_, std::convert::Infallible>));
    reply::with_type(StatusCode::OK, reply::JSON, Body::from_stream(stream))
}

/// `PartialObjectMetadata` of an object.
pub fn metadata_only(object: &Object, version: &str) -> Value {
    json!({
        "kind": "PartialObjectMetadata", "apiVersion": format!("meta.k8s.io/{version}"), "metadata": object.meta(),
    })
}
