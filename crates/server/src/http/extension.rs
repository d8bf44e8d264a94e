//! Groups and versions that another API server serves: who may ask is judged here, then the request is passed on.
//!
//! Mirrors `kube-aggregator/pkg/apiserver/handler_proxy.go` and apiserver `pkg/endpoints/request/requestinfo.go`. Answers go
//! through as they come, watches without an end among them; connections that change their protocol are refused.

use std::time::Duration;

use api::{Kind, Refusal, Snapshot, limits};
use axum::body::Body;
use axum::extract::Request as HttpRequest;
use axum::response::Response;
use bytes::Bytes;
use futures::StreamExt;
use http::header::{
    AUTHORIZATION, CONNECTION, HeaderMap, HeaderName, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderValue, Method, StatusCode};
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::query::{self, Query};
use super::{Gate, discovery, reply};
use crate::aggregate::{backend, identify, is_available, is_remote};
use crate::authorize::{Asked, User, authorize_extension, authorize_path};

/// Longest time a request may take that is no watch (upstream: `--request-timeout`), and one for discovery.
const WHOLE: Duration = Duration::from_secs(60);
const DISCOVERY: Duration = Duration::from_secs(5);
/// Headers that are about one connection only.
const HOP_BY_HOP: [HeaderName; 9] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// A request that another server answers.
pub struct Claim {
    service: APIService,
    /// What stands behind the version in the path.
    rest: Vec<String>,
}

/// Who answers a path that this server does not know.
pub fn claim(world: &Snapshot, path: &str) -> Result<Option<Claim>, Refusal> {
    if world.count(Kind::APIService) == 0 {
        return Ok(None);
    }
    let path = query::decode_path(path);
    let mut parts = path.strip_prefix("/apis/").into_iter().flat_map(|rest| rest.split('/'));
    let (Some(group), Some(version)) = (parts.next(), parts.next()) else { return Ok(None) };
    if discovery::serves(group, version) {
        return Ok(None);
    }
    let service = world.get::<APIService>("", &format!("{version}.{group}")).filter(|service| is_remote(service));
    let Some(service) = service else { return Ok(None) };
    let mut rest: Vec<String> = parts.map(str::to_owned).collect();
    if rest.last().is_some_and(String::is_empty) {
        rest.pop();
    }
    // The other server might read such a path as another than the one that rights were asked for.
    if rest.iter().any(|part| matches!(part.as_str(), "" | "." | "..")) {
        return Err(Refusal::no_such_path());
    }
    Ok(Some(Claim { service: service.clone(), rest }))
}

/// What a request asks for, as rules name it.
fn asked<'a>(group: &'a str, method: &Method, rest: &'a [String], watching: bool) -> Asked<'a> {
    let parts: Vec<&str> = rest.iter().map(String::as_str).collect();
    let (namespace, parts) = match parts.as_slice() {
        ["namespaces", namespace, "status" | "finalize", ..] | ["namespaces", namespace] => (*namespace, &parts[..]),
        ["namespaces", namespace, _, ..] => (*namespace, &parts[2..]),
        _ => ("", &parts[..]),
    };
    let part = |index: usize| parts.get(index).copied().unwrap_or("");
    let (resource, name, subresource) = (part(0), part(1), part(2));
    let verb = match (method, name) {
        (&Method::GET | &Method::HEAD, _) if watching => "watch",
        (&Method::GET | &Method::HEAD, "") => "list",
        (&Method::GET | &Method::HEAD, _) => "get",
        (&Method::POST, _) => "create",
        (&Method::PUT, _) => "update",
        (&Method::PATCH, _) => "patch",
        (&Method::DELETE, "") => "deletecollection",
        (&Method::DELETE, _) => "delete",
        _ => "",
    };
    Asked { verb, group, resource, subresource, namespace, name }
}

/// Passes a request on.
pub async fn serve(gate: &Gate, user: &User, claim: Claim, request: HttpRequest) -> Result<Response, Refusal> {
    let watching = request.method() == Method::GET && Query::parse(request.uri().query()).flag("watch");
    let world = gate.snapshot();
    let spec = claim.service.spec.clone().unwrap_or_default();
    if claim.rest.is_empty() {
        authorize_path(&world, user, &request.method().as_str().to_lowercase(), request.uri().path())?;
    } else {
        let group = spec.group.as_deref().unwrap_or("");
        authorize_extension(&world, user, &asked(group, request.method(), &claim.rest, watching))?;
    }
    if request.headers().contains_key(UPGRADE) {
        let why = "connections that change their protocol are not passed on to aggregated API servers";
        return Err(Refusal::bad_request(why));
    }
    let Some(backend) = backend(&claim.service, &world).ok().filter(|_| is_available(&claim.service)) else {
        return Ok(plain(StatusCode::SERVICE_UNAVAILABLE, "service unavailable"));
    };
    let busy = |_| Refusal::too_many_requests("too many requests are passed on to other API servers; try again", 1);
    let permit = gate.aggregator.room.clone().try_acquire_owned().map_err(busy)?;
    let whole = if claim.rest.is_empty() { DISCOVERY } else { WHOLE };
    let deadline = Instant::now() + whole;
    let sent = tokio::time::timeout_at(deadline, gate.aggregator.dialer.send(&backend, outgoing(user, request))).await;
    let answer = match sent {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => {
            return Ok(plain(StatusCode::SERVICE_UNAVAILABLE, &format!("error trying to reach service: {error}")));
        }
        Err(_) => {
            return Ok(plain(StatusCode::GATEWAY_TIMEOUT, "error trying to reach service: it did not answer in time"));
        }
    };
    if answer.status().is_redirection() && answer.status() != StatusCode::NOT_MODIFIED {
        let told = "the backend attempted to redirect this request, which is not permitted";
        return Ok(plain(StatusCode::BAD_GATEWAY, told));
    }
    Ok(passed_back(gate, answer, permit, (!watching).then_some(deadline)))
}

/// The answer as the client gets it, as it comes: until it ends, the time is over or the server stops.
pub fn passed_back(gate: &Gate, answer: Response, permit: OwnedSemaphorePermit, deadline: Option<Instant>) -> Response {
    let stopping = gate.stopping.clone();
    let (mut parts, body) = answer.into_parts();
    strip(&mut parts.headers);
    let stream = futures::stream::try_unfold((body.into_data_stream(), permit), move |(mut stream, permit)| {
        let mut stopping = stopping.clone();
        async move {
            let next = tokio::select! {
                next = stream.next() => next,
                () = tokio::time::sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                    return Err(std::io::Error::from(std::io::ErrorKind::TimedOut));
                }
                _ = stopping.wait_for(|stopping| *stopping) => None,
            };
            let Some(chunk) = next else { return Ok(None) };
            let chunk: Bytes = chunk.map_err(std::io::Error::other)?;
            Ok(Some((chunk, (stream, permit))))
        }
    });
    Response::from_parts(parts, Body::from_stream(stream))
}

/// The request as the other server gets it: for whom it is made is told by the front proxy, not by the client.
fn outgoing(user: &User, request: HttpRequest) -> HttpRequest {
    let (mut parts, body) = without_us(request).into_parts();
    if let Some(path) = parts.uri.path_and_query() {
        parts.uri = path.clone().into();
    }
    identify(&mut parts.headers, user);
    HttpRequest::from_parts(parts, Body::new(http_body_util::Limited::new(body, limits::REQUEST_BODY_BYTES)))
}

/// A request without what is between the client and this server: their connection, who the client is, for whom he acts.
pub fn without_us(request: HttpRequest) -> HttpRequest {
    let (mut parts, body) = request.into_parts();
    strip(&mut parts.headers);
    parts.headers.remove(AUTHORIZATION);
    let acting: Vec<HeaderName> =
        parts.headers.keys().filter(|name| name.as_str().starts_with("impersonate-")).cloned().collect();
    acting.iter().for_each(|name| drop(parts.headers.remove(name)));
    parts.extensions.clear();
    HttpRequest::from_parts(parts, body)
}

/// Takes out what is about one connection only, also what `Connection` names.
fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    named.iter().chain(&HOP_BY_HOP).for_each(|name| drop(headers.remove(name)));
}

/// What goes wrong on the way is told as upstream tells it: as text, which clients put their own words before.
fn plain(code: StatusCode, text: &str) -> Response {
    let media = HeaderValue::from_static("text/plain; charset=utf-8");
    reply::with_type(code, media, Body::from(format!("{text}\n")))
}

#[cfg(test)]
mod tests {
    use api::Object;
    use expect_test::expect;
    use serde_json::json;

    use super::*;

    fn world() -> Snapshot {
        let mut world = Snapshot::default();
        for (name, group, version) in [
            ("v1beta2.custom.metrics.k8s.io", "custom.metrics.k8s.io", "v1beta2"),
            ("v1beta1.metrics.k8s.io", "metrics.k8s.io", "v1beta1"),
        ] {
            let service = json!({ "namespace": "d", "name": "adapter" });
            let spec = json!({ "group": group, "version": version, "groupPriorityMinimum": 1, "versionPriority": 1, "service": service });
            let body = Kind::APIService.decode(json!({ "metadata": { "name": name }, "spec": spec })).unwrap();
            world.put(Object::written(body, world.revision() + 1));
        }
        world
    }

    #[test]
    fn what_is_asked_for() {
        let world = world();
        let lines = [
            "GET /apis/custom.metrics.k8s.io/v1beta2",
            "GET /apis/custom.metrics.k8s.io/v1beta2/",
            "GET /apis/custom.metrics.k8s.io/v1beta2/namespaces/d/pods/*/requests",
            "GET /apis/custom.metrics.k8s.io/v1beta2/namespaces/d/pods/%2A/requests",
            "GET /apis/custom.metrics.k8s.io/v1beta2/namespaces/d/metrics/requests",
            "GET /apis/custom.metrics.k8s.io/v1beta2/nodes?watch=true",
            "GET /apis/custom.metrics.k8s.io/v1beta2/namespaces/d",
            "POST /apis/custom.metrics.k8s.io/v1beta2/namespaces/d/pods",
            "DELETE /apis/custom.metrics.k8s.io/v1beta2/namespaces/d/pods",
            "DELETE /apis/custom.metrics.k8s.io/v1beta2/namespaces/d/pods/p",
            "GET /apis/custom.metrics.k8s.io/v1beta2/namespaces/a/../b/pods",
            "GET /apis/custom.metrics.k8s.io/v1beta2/namespaces/a/%2e%2e/b/pods",
            "GET /apis/custom.metrics.k8s.io/v1beta2/namespaces//pods",
            "GET /apis/custom.metrics.k8s.io/v1beta1/nodes",
            "GET /apis/metrics.k8s.io/v1beta1/nothing",
            "GET /api/v1/nothing",
        ];
        let shown = lines.map(|line| {
            let (method, path) = line.split_once(' ').unwrap();
            let (path, query) = path.split_once('?').unwrap_or((path, ""));
            let told = match claim(&world, path) {
                Ok(Some(claim)) if claim.rest.is_empty() => "the resources".to_owned(),
                Ok(Some(claim)) => {
                    let asked = asked("g", &method.parse().unwrap(), &claim.rest, query == "watch=true");
                    let Asked { verb, resource, subresource, namespace, name, .. } = asked;
                    format!("{verb} resource {resource:?} subresource {subresource:?} in {namespace:?} name {name:?}")
                }
                Ok(None) => "nobody else's".to_owned(),
                Err(refusal) => refusal.message,
            };
            format!("{line}\n    {told}\n")
        });
        expect![[r#"
            GET /apis/custom.metrics.k8s.io/v1beta2
                the resources
            GET /apis/custom.metrics.k8s.io/v1beta2/
                the resources
            GET /apis/custom.metrics.k8s.io/v1beta2/namespaces/d/pods/*/requests
                get resource "pods" subresource "requests" in "d" name "*"
            GET /apis/custom.metrics.k8s.io/v1beta2/namespaces/d/pods/%2A/requests
                get resource "pods" subresource "requests" in "d" name "*"
            GET /apis/custom.metrics.k8s.io/v1beta2/namespaces/d/metrics/requests
                get resource "metrics" subresource "" in "d" name "requests"
            GET /apis/custom.metrics.k8s.io/v1beta2/nodes?watch=true
                watch resource "nodes" subresource "" in "" name ""
            GET /apis/custom.metrics.k8s.io/v1beta2/namespaces/d
                get resource "namespaces" subresource "" in "d" name "d"
            POST /apis/custom.metrics.k8s.io/v1beta2/namespaces/d/pods
                create resource "pods" subresource "" in "d" name ""
            DELETE /apis/custom.metrics.k8s.io/v1beta2/namespaces/d/pods
                deletecollection resource "pods" subresource "" in "d" name ""
            DELETE /apis/custom.metrics.k8s.io/v1beta2/namespaces/d/pods/p
                delete resource "pods" subresource "" in "d" name "p"
            GET /apis/custom.metrics.k8s.io/v1beta2/namespaces/a/../b/pods
                the server could not find the requested resource
            GET /apis/custom.metrics.k8s.io/v1beta2/namespaces/a/%2e%2e/b/pods
                the server could not find the requested resource
            GET /apis/custom.metrics.k8s.io/v1beta2/namespaces//pods
                the server could not find the requested resource
            GET /apis/custom.metrics.k8s.io/v1beta1/nodes
                nobody else's
            GET /apis/metrics.k8s.io/v1beta1/nothing
                nobody else's
            GET /api/v1/nothing
                nobody else's
        "#]]
        .assert_eq(&shown.concat());
    }

    #[test]
    fn what_is_passed_on() {
        let request = http::Request::get("https://here:6443/apis/g/v1/things?limit=5")
            .header("authorization", "Bearer secret")
            .header("connection", "keep-alive, x-own")
            .header("x-own", "1")
            .header("impersonate-user", "jane")
            .header("x-remote-user", "root")
            .header("accept", "application/json");
        let user = User { name: "jane".into(), groups: vec!["dev".into()], ..User::default() };
        let sent = outgoing(&user, request.body(Body::empty()).unwrap());
        let mut headers: Vec<String> =
            sent.headers().iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
        headers.sort();
        assert_eq!(sent.uri(), "/apis/g/v1/things?limit=5");
        assert_eq!(headers, ["accept: application/json", "x-remote-group: dev", "x-remote-user: jane"]);
    }
}
