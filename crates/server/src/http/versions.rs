//! Versions of a kind beside the one that is stored: converted on the way in and on the way out, and served by the very
//! same code otherwise.

use api::schema::{self, Mode, type_of_row};
use api::versions::Version;
use api::{Key, Refusal};
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

/// Answers a request for a resource in the other version.
pub async fn serve(
    gate: &Gate,
    user: &User,
    version: &'static Version,
    target: &Target,
    request: HttpRequest,
) -> Result<Response, Refusal> {
    let plain = matches!(read::form(request.headers())?, Form::Json);
    let query = Query::parse(request.uri().query());
    let (mut parts, body) = request.into_parts();
    let (mut body, mut warnings) = (body, Vec::new());
    if [Method::POST, Method::PUT, Method::PATCH].contains(&parts.method) {
        // What is there is not compared with what somebody sends who may not write it.
        let (info, subresource) = (target.info, &*target.subresource);
        let (namespace, name) = (&*target.namespace, &*target.name);
        let verb = super::verb(&parts.method, target, &query)?;
        authorize(&gate.snapshot(), user, &Attributes { verb, info, subresource, namespace, name })?;
    }
    if parts.method == Method::PATCH {
        return patch(gate, user, version, target, &query, &parts, body).await;
    }
    if parts.method == Method::POST || parts.method == Method::PUT {
        let json = write::json_body(write::read_body(body).await?, &write::media_type(&parts.headers))?;
        let mode = decode::field_validation(query.text("fieldValidation"))?;
        let (value, told) = schema::read_as(&version.info, &json, mode)?;
        warnings = told;
        body = Body::from(stored(gate, version, target, value)?.to_value().to_string());
        parts.headers.insert(CONTENT_TYPE, reply::JSON);
    }
    let watching = parts.method == Method::GET && query.flag("watch");
    let mut response = super::resource(gate, user, target, HttpRequest::from_parts(parts, body)).await?;
    reply::warn(&mut response, &warnings);
    if !plain || !response.status().is_success() {
        return Ok(response);
    }
    if watching { Ok(response.map(|body| events(version, body))) } else { whole(version, response).await }
}

/// A written object as it is to be stored.
fn stored(gate: &Gate, version: &Version, target: &Target, value: Value) -> Result<api::Body, Refusal> {
    let (given, expected) = (value["apiVersion"].as_str().unwrap_or(""), version.info.api_version());
    if !given.is_empty() && given != expected {
        return Err(Refusal::bad_request(format!(
            "the API version in the data ({given}) does not match the expected API version ({expected})"
        )));
    }
    let new = decode::object(version.kind, (version.stored)(value).to_string().as_bytes(), Mode::Ignore)?.body;
    let snapshot = gate.snapshot();
    let old = snapshot.at(&key(target)).map(|object| &object.body);
    (version.judge)(old, &new).refuse(&new)?;
    Ok(new)
}

fn key(target: &Target) -> Key {
    Key::new(target.kind, target.namespace.clone(), target.name.clone())
}

/// Patches the object as this version shows it.
async fn patch(
    gate: &Gate,
    user: &User,
    version: &'static Version,
    target: &Target,
    query: &Query,
    parts: &Parts,
    body: Body,
) -> Result<Response, Refusal> {
    let (mode, dry_run) = (decode::field_validation(query.text("fieldValidation"))?, query.dry_run()?);
    let kind = write::patch_type(&write::media_type(&parts.headers))?;
    let document = write::read_body(body).await?;
    let key = key(target);
    let mut attempts = 1..=PATCH_ATTEMPTS;
    loop {
        let snapshot = gate.snapshot();
        let object = snapshot.at(&key).ok_or_else(|| Refusal::not_found(key.kind, &key.name))?;
        let current = || Ok((version.shown)(serde_json::from_slice(&object.json).map_err(Refusal::internal)?));
        let (patched, warnings) = api::patch::apply_as(type_of_row(target.info), kind, &current, &document, mode)?;
        let own_version = patched["metadata"]["resourceVersion"].as_str() != object.meta().resource_version.as_deref();
        let body = stored(gate, version, target, patched)?;
        let requester = write::requester(user, &parts.headers);
        match gate.submit(Action::Update(key.clone(), write::part(target)?, body), requester, dry_run).await {
            Err(refusal) if refusal.code == 409 && !own_version && attempts.next().is_some() => {}
            Err(refusal) => return Err(refusal),
            Ok(answer) => {
                let mut response = write::respond(target, answer, &parts.headers)?;
                reply::warn(&mut response, &warnings);
                let plain = matches!(read::form(&parts.headers)?, Form::Json);
                return if plain { whole(version, response).await } else { Ok(response) };
            }
        }
    }
}

/// An object, a list or a `Status`, converted where it is of the kind.
async fn whole(version: &Version, response: Response) -> Result<Response, Refusal> {
    let (mut parts, body) = response.into_parts();
    let bytes = axum::body::to_bytes(body, usize::MAX).await.map_err(Refusal::internal)?;
    let value: Value = serde_json::from_slice(&bytes).map_err(Refusal::internal)?;
    parts.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(Response::from_parts(parts, Body::from(shown(version, value).to_string())))
}

fn shown(version: &Version, mut value: Value) -> Value {
    let kind = version.info.kind;
    match value["kind"].as_str() {
        Some(given) if given == kind => (version.shown)(value),
        Some(given) if given.strip_suffix("List") == Some(kind) => {
            value["apiVersion"] = version.info.api_version().into();
            value["items"].as_array_mut().into_iter().flatten().for_each(|item| *item = (version.shown)(item.take()));
            value
        }
        _ => value,
    }
}

/// The events of a watch: a chunk holds whole lines.
fn events(version: &'static Version, body: Body) -> Body {
    Body::from_stream(body.into_data_stream().map(move |chunk| {
        let chunk = chunk?;
        let mut text = String::with_capacity(2 * chunk.len());
        for line in chunk.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let mut event: Value = serde_json::from_slice(line).map_err(axum::Error::new)?;
            let object = event["object"].take();
            event["object"] = match event["type"].as_str() {
                Some("BOOKMARK") => bookmark(version, object),
                _ => shown(version, object),
            };
            text += &event.to_string();
            text.push('\n');
        }
        Ok::<Bytes, axum::Error>(Bytes::from(text))
    }))
}

/// Nothing but a revision.
fn bookmark(version: &Version, mut object: Value) -> Value {
    object["apiVersion"] = version.info.api_version().into();
    object
}
