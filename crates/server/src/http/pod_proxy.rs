//! `pods/NAME/proxy/…`: a request is passed on to a port of a pod, and what the pod answers back.
//!
//! Mirrors `pkg/registry/core/pod/rest/subresources.go: ProxyREST`, `pkg/registry/core/pod/strategy.go: ResourceLocation` and
//! apimachinery `pkg/util/proxy/upgradeaware.go`. The port is reached as port-forward reaches it: from within the pod. Links in answers
//! are left as they are; `https:` and connections that change their protocol are refused.

use api::{Kind, Pod, Refusal, limits};
use axum::body::Body;
use axum::extract::Request as HttpRequest;
use axum::response::Response;
use http::header::{LOCATION, UPGRADE};
use http::{HeaderValue, Method, StatusCode, Uri};

use super::route::Target;
use super::streams::Place;
use super::{Gate, extension, query};
use crate::aggregate::exchange;
use crate::authorize::{Attributes, User, authorize};

/// The subresource.
const PROXY: &str = "proxy";
/// Segments of a path before what is the pod's: `/api/v1/namespaces/NAMESPACE/pods/NAME/proxy`.
const OURS: usize = 8;

/// A pod's name in a path, with what may stand around it.
#[derive(Debug, PartialEq, Eq)]
struct Id<'a> {
    name: &'a str,
    port: Option<u16>,
}

impl<'a> Id<'a> {
    /// `[http:]NAME[:PORT]` (upstream: apimachinery `util/net: SplitSchemeNamePort`).
    fn parse(text: &'a str) -> Result<Id<'a>, Refusal> {
        let invalid = || Refusal::bad_request(format!("invalid pod request \"{text}\""));
        let parts: Vec<&str> = text.split(':').collect();
        let (scheme, name, port) = match parts.as_slice() {
            [name] => ("", *name, ""),
            [name, port] => ("", *name, *port),
            [scheme, name, port] => (*scheme, *name, *port),
            _ => return Err(invalid()),
        };
        match scheme {
            "" | "http" if !name.is_empty() => {}
            "https" => return Err(Refusal::bad_request("pods are asked over http only: leave \"https:\" out")),
            _ => return Err(invalid()),
        }
        let number = match port {
            "" => None,
            port => Some(port.parse().ok().filter(|port| *port != 0).ok_or_else(invalid)?),
        };
        Ok(Id { name, port: number })
    }
}

/// Passes a request on. `id` is the pod as the path names it.
pub async fn serve(
    gate: &Gate,
    user: &User,
    namespace: &str,
    id: &str,
    request: HttpRequest,
) -> Result<Response, Refusal> {
    let id = query::decode_path(id);
    let verb = match *request.method() {
        Method::GET | Method::HEAD => "get",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => return Err(Refusal::method_not_allowed()),
    };
    let asked = Attributes { verb, info: Kind::Pod.info(), subresource: PROXY, namespace, name: &id };
    authorize(&gate.snapshot(), user, &asked)?;
    let id = Id::parse(&id)?;
    if request.headers().contains_key(UPGRADE) {
        return Err(Refusal::bad_request(
            "connections that change their protocol are not passed on to pods; use port-forward",
        ));
    }
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let Some(rest) = behind(path) else { return Ok(moved(request.uri())) };
    let rest: Uri = rest.parse().map_err(|_| Refusal::bad_request("the path behind \"proxy\" cannot be read"))?;
    let busy = |_| Refusal::too_many_requests("too many streams into pods are open; try again", 1);
    let permit = gate.streams.clone().try_acquire_owned().map_err(busy)?;
    let target =
        Target { kind: Kind::Pod, namespace: namespace.into(), name: id.name.into(), subresource: PROXY.into() };
    let place = Place::find(gate, &target)?;
    let port = id.port.or_else(|| first_port(&place.pod)).unwrap_or(80);
    let failed = |why: &dyn std::fmt::Display| Refusal::unavailable(format!("error trying to reach service: {why}"));
    let stream = place.connect(port).await?.map_err(|why| failed(&why))?;
    let host = format!("{}:{port}", address(&place.pod));
    let (mut parts, body) = extension::without_us(request).into_parts();
    parts.uri = rest;
    let body = Body::new(http_body_util::Limited::new(body, limits::REQUEST_BODY_BYTES));
    let answer = exchange(stream, &host, HttpRequest::from_parts(parts, body)).await.map_err(|error| failed(&error))?;
    Ok(extension::passed_back(gate, answer, permit, None))
}

/// What of a path (and query) is the pod's; `None` if not even a slash stands behind `proxy`.
fn behind(path: &str) -> Option<&str> {
    let (start, _) = path.match_indices('/').nth(OURS - 1)?;
    // A slash in the query is no part of the path.
    (!path[..start].contains('?')).then_some(&path[start..])
}

/// Links on a page are understood beside the page, so the page's own address needs its slash.
fn moved(from: &Uri) -> Response {
    let query = from.query().map(|query| format!("?{query}")).unwrap_or_default();
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    if let Ok(to) = HeaderValue::from_str(&format!("{}/{query}", from.path())) {
        response.headers_mut().insert(LOCATION, to);
    }
    response
}

fn first_port(pod: &Pod) -> Option<u16> {
    let containers = &pod.spec.as_deref()?.containers;
    let port = containers.iter().find_map(|container| container.ports.as_ref()?.first())?;
    u16::try_from(port.container_port).ok()
}

fn address(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.pod_ip.as_deref()).unwrap_or("localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_in_paths() {
        let id = |text: &str| match Id::parse(text) {
            Ok(id) => format!("{} {:?}", id.name, id.port),
            Err(refusal) => refusal.message,
        };
        assert_eq!(id("web"), "web None");
        assert_eq!(id("web:8080"), "web Some(8080)");
        assert_eq!(id("http:web:"), "web None");
        assert_eq!(id("http:web:80"), "web Some(80)");
        assert_eq!(id("https:web:443"), "pods are asked over http only: leave \"https:\" out");
        for bad in ["", ":80", "web:none", "web:0", "web:70000", "ftp:web:80", "a:b:c:d"] {
            assert_eq!(id(bad), format!("invalid pod request \"{bad}\""));
        }
    }

    #[test]
    fn the_path_of_the_pod() {
        let proxy = "/api/v1/namespaces/n/pods/p/proxy";
        let of = |rest: &str| behind(&format!("{proxy}{rest}")).map(str::to_owned);
        assert_eq!(of(""), None);
        assert_eq!(of("?a=/b"), None);
        assert_eq!(of("/").as_deref(), Some("/"));
        assert_eq!(of("/a//b/?c=/d").as_deref(), Some("/a//b/?c=/d"));
        let to = moved(&format!("{proxy}?a=b").parse().unwrap()).headers()[LOCATION].clone();
        assert_eq!(to, format!("{proxy}/?a=b"));
    }
}
