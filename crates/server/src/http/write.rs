//! Everything that writes: reads the body, decodes it beside the writer, and hands the action over.

use std::sync::Arc;

use api::patch::PatchType;
use api::schema::Mode;
use api::validate::networking::CLASS_ANNOTATION;
use api::{Key, Object, Propagation, Refusal, limits};
use axum::body::Body;
use axum::extract::Request as HttpRequest;
use axum::response::Response;
use bytes::Bytes;
use http::header::{CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt;
use k8s_openapi::api::policy::v1::Eviction;
use serde_json::Value;

use super::negotiate::Form;
use super::query::Query;
use super::route::Target;
use super::select::Selection;
use super::{Gate, read, reply, table};
use crate::authorize::User;
use crate::decode;
use crate::door::{DeleteOptions, Part, Patch, Requester};
use crate::turn::{Action, Answer};

/// Carries out a request that writes.
pub async fn write(
    gate: &Gate,
    user: &User,
    target: &Target,
    verb: &str,
    selection: Selection,
    query: &Query,
    request: HttpRequest,
) -> Result<Response, Refusal> {
    let headers = request.headers().clone();
    let mut dry_run = query.dry_run()?;
    let mode = decode::field_validation(query.text("fieldValidation"))?;
    let media = media_type(&headers);
    let body = read_body(request.into_body()).await?;
    let (action, warnings) = if verb == "patch" {
        (patch(target, body, &media, mode)?, Vec::new())
    } else {
        let body = json_body(body, &media)?;
        dry_run |= verb.starts_with("delete") && dry_run_in(&body);
        dry_run |= target.subresource == "eviction" && dry_run_in(&deletion_of(&body));
        action(gate, target, verb, &selection, query, &body, mode)?
    };
    let answer = gate.submit(action, requester(user, &headers), dry_run).await?;
    let mut response = respond(target, answer, &headers)?;
    reply::warn(&mut response, &warnings);
    Ok(response)
}

/// Who sends a request, as revisions remember it.
pub(super) fn requester(user: &User, headers: &HeaderMap) -> Requester {
    let agent = headers.get(USER_AGENT).and_then(|value| value.to_str().ok());
    Requester::new(&user.name, agent.unwrap_or(""))
}

/// What a request other than a patch asks for, and what to warn of.
fn action(
    gate: &Gate,
    target: &Target,
    verb: &str,
    selection: &Selection,
    query: &Query,
    body: &[u8],
    mode: Mode,
) -> Result<(Action, Vec<String>), Refusal> {
    match verb {
        "create" if target.subresource == "binding" => Ok((binding(target, body)?, Vec::new())),
        "create" if target.subresource == "eviction" => Ok((eviction(target, body, query)?, Vec::new())),
        "create" => {
            let mut decoded = decode::object(target.kind, body, mode)?;
            decoded.warnings.extend(deprecated(&decoded.body));
            Ok((Action::Create(target.namespace.clone(), decoded.body), decoded.warnings))
        }
        "update" => update(target, body, mode),
        "delete" => Ok((Action::Delete(key(target), delete_options(body, query)?), Vec::new())),
        _ => Ok((Action::DeleteAll(selected(gate, target, selection), delete_options(body, query)?), Vec::new())),
    }
}

/// What an object still says in the old way (upstream: WarningsOnCreate of `registry/networking/ingress/strategy.go`).
fn deprecated(body: &api::Body) -> Option<String> {
    let api::Body::Ingress(ingress) = body else { return None };
    let annotated = ingress.metadata.annotations.as_ref().is_some_and(|all| all.contains_key(CLASS_ANNOTATION));
    let named = ingress.spec.as_ref().is_some_and(|spec| spec.ingress_class_name.is_some());
    let text = format!("annotation {CLASS_ANNOTATION:?} is deprecated, please use 'spec.ingressClassName' instead");
    (annotated && !named).then_some(text)
}

const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

fn key(target: &Target) -> Key {
    Key::new(target.kind, target.namespace.clone(), target.name.clone())
}

/// Which part of the object a path is about.
pub fn part(target: &Target) -> Result<Part, Refusal> {
    match target.subresource.as_str() {
        "" => Ok(Part::Main),
        "status" => Ok(Part::Status),
        "finalize" => Ok(Part::Finalize),
        "scale" => Ok(Part::Scale),
        _ => Err(Refusal::method_not_allowed()),
    }
}

fn update(target: &Target, body: &[u8], mode: Mode) -> Result<(Action, Vec<String>), Refusal> {
    let part = part(target)?;
    if part == Part::Scale {
        return Ok((Action::Scale(key(target), decode::document(body)?), Vec::new()));
    }
    let decoded = decode::object(target.kind, body, mode)?;
    let mut object = decoded.body;
    // An object without a namespace means the one of the path.
    let meta = object.meta_mut();
    if target.kind.namespaced() && meta.namespace.as_deref().unwrap_or("").is_empty() {
        meta.namespace = Some(target.namespace.clone());
    }
    Ok((Action::Update(key(target), part, object), decoded.warnings))
}

fn patch(target: &Target, document: Bytes, media: &str, mode: Mode) -> Result<Action, Refusal> {
    let kind = patch_type(media)?;
    Ok(Action::Patch(key(target), part(target)?, Box::new(Patch { kind, document, mode })))
}

/// The type of a patch by its media type.
pub fn patch_type(media: &str) -> Result<PatchType, Refusal> {
    if media.starts_with("application/apply-patch+") {
        return Err(Refusal::unsupported_media_type(
            "server-side apply is not served here: use client-side apply (kubectl apply without --server-side)",
        ));
    }
    PatchType::from_media_type(media).ok_or_else(|| {
        let known: Vec<&str> = PatchType::ALL.iter().map(|kind| kind.media_type()).collect();
        Refusal::unsupported_media_type(format!(
            "the body of the request was in an unknown format - accepted media types include: {}",
            known.join(", ")
        ))
    })
}

fn binding(target: &Target, body: &[u8]) -> Result<Action, Refusal> {
    let value = decode::document(body)?;
    let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str).unwrap_or("").to_owned();
    let node = text("/target/name");
    if node.is_empty() {
        return Err(Refusal::bad_request("target.name of a Binding must name a node"));
    }
    Ok(Action::Bind(key(target), text("/metadata/uid"), node))
}

/// Upstream takes both versions of the body still.
const EVICTIONS: [&str; 2] = ["policy/v1", "policy/v1beta1"];

fn eviction(target: &Target, body: &[u8], query: &Query) -> Result<Action, Refusal> {
    let mut value = decode::document(body)?;
    let text = |value: &Value, pointer: &str| value.pointer(pointer).and_then(Value::as_str).unwrap_or("").to_owned();
    let (version, kind) = (text(&value, "/apiVersion"), text(&value, "/kind"));
    if !EVICTIONS.contains(&&*version) || kind != "Eviction" {
        return Err(Refusal::bad_request(format!(
            "the body of an eviction is an Eviction of policy/v1, not {kind:?} of {version:?}"
        )));
    }
    value["apiVersion"] = EVICTIONS[0].into();
    let typed: Eviction = serde_json::from_value(value).map_err(|error| Refusal::bad_request(error.to_string()))?;
    if typed.metadata.name.as_deref() != Some(&target.name) {
        return Err(Refusal::bad_request("name in URL does not match name in Eviction object"));
    }
    Ok(Action::Evict(key(target), delete_options(&deletion_of(body), query)?))
}

/// The `deleteOptions` of an eviction, as a body of its own.
fn deletion_of(body: &[u8]) -> Vec<u8> {
    let value: Value = serde_json::from_slice(body).unwrap_or_default();
    value.get("deleteOptions").filter(|options| !options.is_null()).map(Value::to_string).unwrap_or_default().into()
}

fn selected(gate: &Gate, target: &Target, selection: &Selection) -> Vec<Key> {
    let snapshot = gate.snapshot();
    let all = snapshot.objects(target.kind, selection.namespace.as_deref());
    all.filter(|object| selection.matches(object)).map(|object| object.key()).collect()
}

fn delete_options(body: &[u8], query: &Query) -> Result<DeleteOptions, Refusal> {
    let value = if body.is_empty() { Value::Null } else { decode::document(body)? };
    let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    let policy = text("/propagationPolicy").or_else(|| Some(query.text("propagationPolicy").to_owned()));
    let orphan = value.get("orphanDependents").and_then(Value::as_bool);
    let propagation = match (policy.as_deref().unwrap_or(""), orphan) {
        ("", Some(true)) => Some(Propagation::Orphan),
        ("", Some(false)) => Some(Propagation::Background),
        ("", None) => None,
        ("Background", _) => Some(Propagation::Background),
        ("Foreground", _) => Some(Propagation::Foreground),
        ("Orphan", _) => Some(Propagation::Orphan),
        (other, _) => {
            return Err(Refusal::new(
                422,
                "Invalid",
                format!(
                    "DeleteOptions.meta.k8s.io \"\" is invalid: propagationPolicy: Unsupported value: \"{other}\": \
                     supported values: \"Foreground\", \"Background\", \"Orphan\", \"nil\""
                ),
            ));
        }
    };
    let grace = value.get("gracePeriodSeconds").and_then(Value::as_i64);
    Ok(DeleteOptions {
        grace_period_seconds: grace.or(query.number("gracePeriodSeconds")?),
        uid: text("/preconditions/uid"),
        resource_version: text("/preconditions/resourceVersion"),
        propagation,
    })
}

fn dry_run_in(body: &[u8]) -> bool {
    let value: Value = serde_json::from_slice(body).unwrap_or_default();
    value.pointer("/dryRun/0").and_then(Value::as_str) == Some("All")
}

/// The answer of a write in the form that is asked for.
pub fn respond(target: &Target, answer: Answer, headers: &HeaderMap) -> Result<Response, Refusal> {
    match answer {
        Answer::Done(status) => {
            let made = matches!(&*target.subresource, "binding" | "eviction");
            let code = if made { StatusCode::CREATED } else { StatusCode::OK };
            Ok(reply::bytes(code, Bytes::from(status.to_string())))
        }
        Answer::Object { object, created, warnings } => {
            let code = if created { StatusCode::CREATED } else { StatusCode::OK };
            let mut response = show(target, &object, code, headers)?;
            reply::warn(&mut response, &warnings);
            Ok(response)
        }
        Answer::Deleted(objects) => {
            let info = target.kind.info();
            let items: Vec<Value> = objects.iter().map(|object| object.body.to_value()).collect();
            Ok(reply::json(&serde_json::json!({
                "kind": format!("{}List", info.kind), "apiVersion": info.api_version(),
                "metadata": {}, "items": items,
            })))
        }
    }
}

/// The object in the form that is asked for.
fn show(target: &Target, object: &Arc<Object>, code: StatusCode, headers: &HeaderMap) -> Result<Response, Refusal> {
    if target.subresource == "scale" {
        let scale = crate::door::scale_of(&object.body).ok_or_else(Refusal::no_such_path)?;
        return Ok(reply::bytes(code, Bytes::from(scale.to_string())));
    }
    if let Form::Table(version) = read::form(headers)? {
        let table = table::Table::new(target.kind, version, "").render(
            std::slice::from_ref(object),
            object.revision,
            None,
            None,
        );
        return Ok(reply::bytes(code, Bytes::from(table.to_string())));
    }
    Ok(reply::bytes(code, object.json.clone()))
}

/// The media type of the body, without parameters.
pub fn media_type(headers: &HeaderMap) -> String {
    let text = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    text.split(';').next().unwrap_or("").trim().to_owned()
}

/// The body as JSON, whatever form it came in.
pub fn json_body(body: Bytes, media: &str) -> Result<Bytes, Refusal> {
    match media {
        "" | "application/json" | "text/json" => Ok(body),
        "application/yaml" | "text/yaml" | "application/x-yaml" => decode::yaml_to_json(&body),
        PROTOBUF => {
            let value =
                api::schema::protobuf_to_json(&body).map_err(|error| Refusal::bad_request(error.to_string()))?;
            Ok(value.to_string().into())
        }
        other => Err(Refusal::unsupported_media_type(format!(
            "the body of the request was in an unknown format - accepted media types include: application/json, \
             application/yaml, {PROTOBUF} (got \"{other}\")"
        ))),
    }
}

/// The whole body, or 413.
pub async fn read_body(mut body: Body) -> Result<Bytes, Refusal> {
    match http_body_util::Limited::new(&mut body, limits::REQUEST_BODY_BYTES).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.downcast_ref::<http_body_util::LengthLimitError>().is_some() => {
            discard(body).await;
            Err(Refusal::too_large(limits::REQUEST_BODY_BYTES))
        }
        Err(error) => Err(Refusal::bad_request(format!("the request body could not be read: {error}"))),
    }
}

/// Reads on, into nothing: a client that is still sending would take an early answer for a broken connection.
async fn discard(mut body: Body) {
    let mut left = limits::DISCARDED_BODY_BYTES;
    while let Some(Ok(frame)) = body.frame().await {
        let length = frame.data_ref().map_or(0, Bytes::len);
        if left < length {
            return;
        }
        left -= length;
    }
}
