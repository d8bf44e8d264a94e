//! Versions of a kind beside the one that is stored: converted on the way in and on the way out, and served by the very
//! same code otherwise. There is one: autoscaling/v1 of HorizontalPodAutoscaler.

use api::autoscaling_v1::{API_VERSION, to_v1, to_v2};
use api::kinds::{KindInfo, Scope};
use api::schema::TypeId;
use api::{Key, Kind, Refusal, schema};
use axum::body::Body;
use axum::extract::Request as HttpRequest;
use axum::response::Response;
use bytes::Bytes;
use futures::StreamExt;
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderValue, Method};
use serde_json::Value;

use super::negotiate::Form;
use super::query::Query;
use super::route::Target;
use super::{Gate, read, reply, write};
use crate::authorize::{Attributes, User, authorize};
use crate::decode;
use crate::turn::Action;

/// Tries at a patch while others write the object.
const PATCH_ATTEMPTS: usize = 5;

/// The rows of these versions, as discovery lists them.
pub static RESOURCES: [KindInfo; 1] = [KindInfo {
    group: "autoscaling",
    version: "v1",
    kind: "HorizontalPodAutoscaler",
    plural: "horizontalpodautoscalers",
    singular: "horizontalpodautoscaler",
    short_names: &["hpa"],
    scope: Scope::Namespaced,
    subresources: &["status"],
    categories: &["all"],
}];

fn type_id() -> TypeId {
    schema::table().kind(API_VERSION, "HorizontalPodAutoscaler").expect("the table has the version")
}

/// Answers a request for a resource in the other version.
pub async fn serve(gate: &Gate, user: &User, target: &Target, request: HttpRequest) -> Result<Response, Refusal> {
    let plain = matches!(read::form(request.headers())?, Form::Json);
    let query = Query::parse(request.uri().query());
    let (mut parts, body) = request.into_parts();
    let (mut body, mut warnings) = (body, Vec::new());
    if parts.method == Method::PATCH {
        return patch(gate, user, target, &query, &parts, body).await;
    }
    if parts.method == Method::POST || parts.method == Method::PUT {
        let json = write::json_body(write::read_body(body).await?, &write::media_type(&parts.headers))?;
        let mode = decode::field_validation(query.text("fieldValidation"))?;
        let (value, told) = schema::read_as(type_id(), Kind::HorizontalPodAutoscaler.info().kind, "v1", &json, mode)?;
        check_version(&value)?;
        warnings = told;
        body = Body::from(to_v2(value).to_string());
        parts.headers.insert(CONTENT_TYPE, reply::JSON);
    }
    let watching = parts.method == Method::GET && query.flag("watch");
    let mut response = super::resource(gate, user, target, HttpRequest::from_parts(parts, body)).await?;
    reply::warn(&mut response, &warnings);
    if !plain || !response.status().is_success() {
        return Ok(response);
    }
    if watching { Ok(response.map(events)) } else { whole(response).await }
}

fn check_version(value: &Value) -> Result<(), Refusal> {
    match value["apiVersion"].as_str() {
        None | Some("" | API_VERSION) => Ok(()),
        Some(other) => Err(Refusal::bad_request(format!(
            "the API version in the data ({other}) does not match the expected API version ({API_VERSION})"
        ))),
    }
}

/// Patches the object as this version shows it.
async fn patch(
    gate: &Gate,
    user: &User,
    target: &Target,
    query: &Query,
    parts: &Parts,
    body: Body,
) -> Result<Response, Refusal> {
    let (info, subresource) = (target.kind.info(), &*target.subresource);
    let (namespace, name) = (&*target.namespace, &*target.name);
    authorize(&gate.snapshot(), user, &Attributes { verb: "patch", info, subresource, namespace, name })?;
    let (mode, dry_run) = (decode::field_validation(query.text("fieldValidation"))?, query.dry_run()?);
    let kind = write::patch_type(&write::media_type(&parts.headers))?;
    let document = write::read_body(body).await?;
    let key = Key::new(target.kind, namespace, name);
    let mut attempts = 1..=PATCH_ATTEMPTS;
    loop {
        let snapshot = gate.snapshot();
        let object = snapshot.at(&key).ok_or_else(|| Refusal::not_found(key.kind, &key.name))?;
        let current = || Ok(to_v1(serde_json::from_slice(&object.json).map_err(Refusal::internal)?));
        let (patched, warnings) = api::patch::apply_as(type_id(), kind, &current, &document, mode)?;
        check_version(&patched)?;
        let own_version = patched["metadata"]["resourceVersion"].as_str() != object.meta().resource_version.as_deref();
        let body = decode::typed(target.kind, to_v2(patched))?;
        let requester = write::requester(user, &parts.headers);
        match gate.submit(Action::Update(key.clone(), write::part(target)?, body), requester, dry_run).await {
            Err(refusal) if refusal.code == 409 && !own_version && attempts.next().is_some() => {}
            Err(refusal) => return Err(refusal),
            Ok(answer) => {
                let mut response = write::respond(target, answer, &parts.headers)?;
                reply::warn(&mut response, &warnings);
                return if matches!(read::form(&parts.headers)?, Form::Json) {
                    whole(response).await
                } else {
                    Ok(response)
                };
            }
        }
    }
}

/// An object, a list or a `Status`, converted where it is of the kind.
async fn whole(response: Response) -> Result<Response, Refusal> {
    let (mut parts, body) = response.into_parts();
    let bytes = axum::body::to_bytes(body, usize::MAX).await.map_err(Refusal::internal)?;
    let value: Value = serde_json::from_slice(&bytes).map_err(Refusal::internal)?;
    parts.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(Response::from_parts(parts, Body::from(shown(value).to_string())))
}

fn shown(mut value: Value) -> Value {
    match value["kind"].as_str() {
        Some("HorizontalPodAutoscaler") => to_v1(value),
        Some("HorizontalPodAutoscalerList") => {
            value["apiVersion"] = API_VERSION.into();
            value["items"].as_array_mut().into_iter().flatten().for_each(|item| *item = to_v1(item.take()));
            value
        }
        _ => value,
    }
}

/// The events of a watch: a chunk holds whole lines.
fn events(body: Body) -> Body {
    Body::from_stream(body.into_data_stream().map(|chunk| {
        let chunk = chunk?;
        let mut text = String::with_capacity(2 * chunk.len());
        for line in chunk.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let mut event: Value = serde_json::from_slice(line).map_err(axum::Error::new)?;
            let mut object = shown(event["object"].take());
            if event["type"] == "BOOKMARK" {
                object["apiVersion"] = API_VERSION.into();
            }
            event["object"] = object;
            text += &event.to_string();
            text.push('\n');
        }
        Ok::<Bytes, axum::Error>(Bytes::from(text))
    }))
}
