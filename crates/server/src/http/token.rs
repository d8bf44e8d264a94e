//! `serviceaccounts/NAME/token`: a token for an account, bound to a pod, a secret or a node if that is asked for.
//!
//! Mirrors upstream's `pkg/registry/core/serviceaccount/storage/token.go` and
//! `pkg/apis/authentication/validation/validation.go: ValidateTokenRequest`. A token is not stored: it is valid for as
//! long as it says and what it is bound to is there.

use api::{Cause, Kind, Object, Pod, Refusal, Snapshot};
use axum::extract::Request as HttpRequest;
use axum::response::Response;
use bytes::Bytes;
use http::StatusCode;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequestSpec, TokenRequestStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::Value;

use super::route::Target;
use super::{Gate, reply, write};
use crate::decode;
use crate::door::Ids;
use crate::tokens::{Bound, Claims, ISSUER, Named};

/// Bounds of a token's life, and what it is if nobody says.
const SHORTEST_SECONDS: i64 = 600;
const LONGEST_SECONDS: i64 = 1 << 32;
const DEFAULT_SECONDS: i64 = 3_600;

/// Makes a token for the account that the path names.
pub async fn create(gate: &Gate, target: &Target, request: HttpRequest) -> Result<Response, Refusal> {
    let media = write::media_type(request.headers());
    let body = write::json_body(write::read_body(request.into_body()).await?, &media)?;
    let mut value = decode::document(&body)?;
    let text = |field: &str| value.get(field).and_then(Value::as_str).unwrap_or("").to_owned();
    if text("kind") != "TokenRequest" && !text("kind").is_empty() {
        return Err(Refusal::bad_request(format!("the body is a TokenRequest, not a {}", text("kind"))));
    }
    let spec = value.get("spec").cloned().unwrap_or_default();
    let mut spec: TokenRequestSpec =
        serde_json::from_value(spec).map_err(|error| Refusal::bad_request(format!("spec: {error}")))?;
    let seconds = *spec.expiration_seconds.get_or_insert(DEFAULT_SECONDS);
    check_seconds(seconds)?;
    let audiences = spec.audiences.get_or_insert_default();
    if audiences.is_empty() {
        audiences.push(ISSUER.to_owned());
    }
    let world = gate.snapshot();
    let account = world.object(Kind::ServiceAccount, &target.namespace, &target.name);
    let account = account.ok_or_else(|| Refusal::not_found(Kind::ServiceAccount, &target.name))?;
    let kubernetes = bound(&world, account, spec.bound_object_ref.as_ref())?;
    let now = Timestamp::now();
    let claims = Claims {
        aud: audiences.clone(),
        exp: now.as_second() + seconds,
        iat: now.as_second(),
        iss: ISSUER.to_owned(),
        jti: Ids::from_os().uid(),
        kubernetes,
        nbf: now.as_second(),
        sub: format!("system:serviceaccount:{}:{}", target.namespace, target.name),
    };
    let until = now.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX);
    let status = TokenRequestStatus {
        token: Some(gate.authenticator.keys.sign(&claims)?),
        expiration_timestamp: Some(Time(whole(until))),
    };
    value["kind"] = "TokenRequest".into();
    value["apiVersion"] = "authentication.k8s.io/v1".into();
    value["metadata"] = serde_json::json!({
        "name": target.name, "namespace": target.namespace, "creationTimestamp": Time(whole(now)),
    });
    value["spec"] = serde_json::to_value(&spec).map_err(Refusal::internal)?;
    value["status"] = serde_json::to_value(&status).map_err(Refusal::internal)?;
    Ok(reply::bytes(StatusCode::CREATED, Bytes::from(value.to_string())))
}

fn whole(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

fn check_seconds(seconds: i64) -> Result<(), Refusal> {
    let why = if seconds < SHORTEST_SECONDS {
        "may not specify a duration less than 10 minutes"
    } else if seconds > LONGEST_SECONDS {
        "may not specify a duration larger than 2^32 seconds"
    } else {
        return Ok(());
    };
    let message = format!("Invalid value: {seconds}: {why}");
    let cause = Cause { reason: "FieldValueInvalid".into(), message, field: "spec.expirationSeconds".into() };
    let told = format!("TokenRequest.authentication.k8s.io \"\" is invalid: {}: {}", cause.field, cause.message);
    let mut refusal = Refusal::new(422, "Invalid", told);
    refusal.causes = vec![cause];
    Err(refusal)
}

/// The account, and what the token is bound to: it has to be there, and of the account.
fn bound(world: &Snapshot, account: &Object, to: Option<&BoundObjectReference>) -> Result<Bound, Refusal> {
    let named = |object: &Object| Named { name: object.name().to_owned(), uid: object.uid().to_owned() };
    let namespace = account.namespace();
    let mut bound =
        Bound { namespace: namespace.to_owned(), node: None, pod: None, secret: None, serviceaccount: named(account) };
    let Some(to) = to else { return Ok(bound) };
    let name = to.name.as_deref().unwrap_or("");
    let kind = match (to.api_version.as_deref().unwrap_or(""), to.kind.as_deref().unwrap_or("")) {
        ("v1", "Pod") => Kind::Pod,
        ("v1", "Secret") => Kind::Secret,
        ("v1", "Node") => Kind::Node,
        (version, kind) => {
            let why =
                format!("cannot bind token to object of type {version}, Kind={kind}: it is a Pod, a Secret or a Node");
            return Err(Refusal::bad_request(why));
        }
    };
    let home = if kind == Kind::Node { "" } else { namespace };
    let object = world.object(kind, home, name).ok_or_else(|| Refusal::not_found(kind, name))?;
    if let Some(uid) = to.uid.as_deref().filter(|uid| !uid.is_empty() && *uid != object.uid()) {
        let why = format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been \
             deleted and then recreated"
        );
        return Err(Refusal::conflict(kind, name, why));
    }
    match kind {
        Kind::Pod => {
            let spec = object.get::<Pod>().and_then(|pod| pod.spec.as_deref());
            if spec.and_then(|spec| spec.service_account_name.as_deref()) != Some(account.name()) {
                let why = format!(
                    "cannot bind token for serviceaccount \"{}\" to pod running with different serviceaccount name.",
                    account.name()
                );
                return Err(Refusal::bad_request(why));
            }
            let node = spec.and_then(|spec| world.object(Kind::Node, "", spec.node_name.as_deref()?));
            bound.node = node.map(|node| named(node));
            bound.pod = Some(named(object));
        }
        Kind::Secret => bound.secret = Some(named(object)),
        _ => bound.node = Some(named(object)),
    }
    Ok(bound)
}
