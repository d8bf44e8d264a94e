//! Everything that writes: reads the body, decodes it beside the writer, and hands the action over.

use std::sync::Arc;

use api::patch::PatchType;
use api::schema::Mode;
use api::schema::protobuf::MEDIA_TYPE as PROTOBUF;
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
use k8s_openapi::apimachinery::pkg::apis::meta;
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
    let dry_run = query.dry_run()?;
    let mode = decode::field_validation(query.text("fieldValidation"))?;
    let media = media_type(&headers);
    let body = read_body(request.into_body()).await?;
    let wanted = if verb == "patch" {
        Wanted::of(patch(target, body, &media, mode)?)
    } else {
        wanted(gate, target, verb, &selection, query, &json_body(body, &media)?, mode)?
    };
    let answer = submit(gate, wanted.action, requester(user, &headers), dry_run || wanted.dry_run).await?;
    let mut response = respond(target, answer, &headers)?;
    reply::warn(&mut response, &wanted.warnings);
    Ok(response)
}

/// What a request asks for.
struct Wanted {
    action: Action,
    /// The body asks for a dry run.
    dry_run: bool,
    /// What its sender is to be told beside the answer.
    warnings: Vec<String>,
}

impl Wanted {
    fn of(action: Action) -> Wanted {
        Wanted { action, dry_run: false, warnings: Vec::new() }
    }
}

/// Hands an action over. A collection is deleted in several turns if it is too much for one: upstream deletes object by object, too.
async fn submit(gate: &Gate, action: Action, requester: Requester, dry_run: bool) -> Result<Answer, Refusal> {
    let Action::DeleteAll(keys, options) = action else { return gate.submit(action, requester, dry_run).await };
    let mut deleted = Vec::new();
    for keys in keys.chunks(limits::TURN_WRITES) {
        let action = Action::DeleteAll(keys.to_vec(), options.clone());
        if let Answer::Deleted(objects) = gate.submit(action, requester.clone(), dry_run).await? {
            deleted.extend(objects);
        }
    }
    Ok(Answer::Deleted(deleted))
}

/// Who sends a request, as revisions remember it.
pub(super) fn requester(user: &User, headers: &HeaderMap) -> Requester {
    let agent = headers.get(USER_AGENT).and_then(|value| value.to_str().ok());
    Requester::new(&user.name, agent.unwrap_or(""))
}

/// What a request other than a patch asks for.
fn wanted(
    gate: &Gate,
    target: &Target,
    verb: &str,
    selection: &Selection,
    query: &Query,
    body: &[u8],
    mode: Mode,
) -> Result<Wanted, Refusal> {
    match verb {
        "create" if target.subresource == "binding" => Ok(Wanted::of(binding(target, body)?)),
        "create" if target.subresource == "eviction" => eviction(target, body, query),
        "create" => {
            let mut decoded = decode::object(target.kind, body, mode)?;
            decoded.warnings.extend(deprecated(&decoded.body));
            let action = Action::Create(target.namespace.clone(), decoded.body);
            Ok(Wanted { warnings: decoded.warnings, ..Wanted::of(action) })
        }
        "update" => update(target, body, mode),
        "delete" => {
            let (options, dry_run) = delete_options(deletion(body)?, query)?;
            Ok(Wanted { dry_run, ..Wanted::of(Action::Delete(key(target), options)) })
        }
        _ => {
            let (options, dry_run) = delete_options(deletion(body)?, query)?;
            Ok(Wanted { dry_run, ..Wanted::of(Action::DeleteAll(selected(gate, target, selection), options)) })
        }
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

fn update(target: &Target, body: &[u8], mode: Mode) -> Result<Wanted, Refusal> {
    let part = part(target)?;
    if part == Part::Scale {
        return Ok(Wanted::of(Action::Scale(key(target), decode::document(body)?)));
    }
    let decoded = decode::object(target.kind, body, mode)?;
    let mut object = decoded.body;
    // An object without a namespace means the one of the path.
    let meta = object.meta_mut();
    if target.kind.namespaced() && meta.namespace.as_deref().unwrap_or("").is_empty() {
        meta.namespace = Some(target.namespace.clone());
    }
    Ok(Wanted { warnings: decoded.warnings, ..Wanted::of(Action::Update(key(target), part, object)) })
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

fn eviction(target: &Target, body: &[u8], query: &Query) -> Result<Wanted, Refusal> {
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
    let (options, dry_run) = delete_options(typed.delete_options.unwrap_or_default(), query)?;
    Ok(Wanted { dry_run, ..Wanted::of(Action::Evict(key(target), options)) })
}

fn selected(gate: &Gate, target: &Target, selection: &Selection) -> Vec<Key> {
    let snapshot = gate.snapshot();
    let all = snapshot.objects(target.kind, selection.namespace.as_deref());
    all.filter(|object| selection.matches(object)).map(|object| object.key()).collect()
}

/// The body of a deletion, which may be empty.
fn deletion(body: &[u8]) -> Result<meta::v1::DeleteOptions, Refusal> {
    if body.is_empty() {
        return Ok(meta::v1::DeleteOptions::default());
    }
    let document = decode::document(body)?;
    serde_json::from_value(document)
        .map_err(|error| Refusal::bad_request(format!("the body is not a DeleteOptions: {error}")))
}

/// What a deletion asks for, and whether it is a dry run; what is not given in the body may be given in the query.
fn delete_options(body: meta::v1::DeleteOptions, query: &Query) -> Result<(DeleteOptions, bool), Refusal> {
    let in_query = || Some(query.text("propagationPolicy").to_owned()).filter(|policy| !policy.is_empty());
    let policy = body.propagation_policy.filter(|policy| !policy.is_empty()).or_else(in_query);
    let dry_run = body.dry_run.unwrap_or_default();
    if let Some(other) = dry_run.iter().find(|value| *value != "All") {
        return Err(invalid_option(format!("dryRun: Unsupported value: \"{other}\": supported values: \"All\"")));
    }
    let preconditions = body.preconditions.unwrap_or_default();
    let options = DeleteOptions {
        grace_period_seconds: body.grace_period_seconds.or(query.number("gracePeriodSeconds")?),
        uid: preconditions.uid,
        resource_version: preconditions.resource_version,
        propagation: propagation(policy.as_deref(), body.orphan_dependents)?,
    };
    Ok((options, !dry_run.is_empty()))
}

/// Upstream: ValidateDeleteOptions of `apimachinery/pkg/apis/meta/v1/validation`.
fn propagation(policy: Option<&str>, orphan: Option<bool>) -> Result<Option<Propagation>, Refusal> {
    match (policy, orphan) {
        (None, None) => Ok(None),
        (None, Some(true)) => Ok(Some(Propagation::Orphan)),
        (None, Some(false)) => Ok(Some(Propagation::Background)),
        (Some(policy), Some(_)) => Err(invalid_option(format!(
            "propagationPolicy: Invalid value: \"{policy}\": orphanDependents and deletionPropagation cannot be both set"
        ))),
        (Some("Background"), None) => Ok(Some(Propagation::Background)),
        (Some("Foreground"), None) => Ok(Some(Propagation::Foreground)),
        (Some("Orphan"), None) => Ok(Some(Propagation::Orphan)),
        (Some(other), None) => Err(invalid_option(format!(
            "propagationPolicy: Unsupported value: \"{other}\": supported values: \"Foreground\", \"Background\", \
             \"Orphan\", \"nil\""
        ))),
    }
}

fn invalid_option(why: String) -> Refusal {
    Refusal::new(422, "Invalid", format!("DeleteOptions.meta.k8s.io \"\" is invalid: {why}"))
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What a body and a query ask for, in words.
    fn asked(body: &str, query: &str) -> String {
        let options = deletion(body.as_bytes()).and_then(|body| delete_options(body, &Query::parse(Some(query))));
        match options {
            Ok((DeleteOptions { grace_period_seconds, uid, resource_version, propagation }, dry_run)) => {
                format!("{grace_period_seconds:?} {uid:?} {resource_version:?} {propagation:?} {dry_run}")
            }
            Err(refusal) => format!("{} {}", refusal.code, refusal.message),
        }
    }

    #[test]
    fn deletions() {
        let cases = [
            ("", "", "None None None None false"),
            ("", "gracePeriodSeconds=5&propagationPolicy=Foreground", "Some(5) None None Some(Foreground) false"),
            (
                r#"{"kind":"DeleteOptions","apiVersion":"v1","gracePeriodSeconds":0,"preconditions":{"uid":"u"},"dryRun":["All"]}"#,
                "gracePeriodSeconds=5",
                "Some(0) Some(\"u\") None None true",
            ),
            (r#"{"orphanDependents":true}"#, "", "None None None Some(Orphan) false"),
            (r#"{"orphanDependents":false,"propagationPolicy":null}"#, "", "None None None Some(Background) false"),
            (
                r#"{"orphanDependents":false,"propagationPolicy":"Orphan"}"#,
                "",
                "422 DeleteOptions.meta.k8s.io \"\" is invalid: propagationPolicy: Invalid value: \"Orphan\": \
                 orphanDependents and deletionPropagation cannot be both set",
            ),
            (
                r#"{"propagationPolicy":"Sideways"}"#,
                "",
                "422 DeleteOptions.meta.k8s.io \"\" is invalid: propagationPolicy: Unsupported value: \"Sideways\": \
                 supported values: \"Foreground\", \"Background\", \"Orphan\", \"nil\"",
            ),
            (
                r#"{"dryRun":["all"]}"#,
                "",
                "422 DeleteOptions.meta.k8s.io \"\" is invalid: dryRun: Unsupported value: \"all\": supported values: \"All\"",
            ),
            (
                r#"{"gracePeriodSeconds":"5"}"#,
                "",
                "400 the body is not a DeleteOptions: invalid type: string \"5\", expected i64",
            ),
        ];
        for (body, query, expected) in cases {
            assert_eq!(asked(body, query), expected, "{body} {query}");
        }
    }
}
