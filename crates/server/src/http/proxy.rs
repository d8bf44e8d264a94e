//! `pods/NAME/proxy/…` and `services/NAME/proxy/…`: a request is passed on to a port of a pod, and what the pod answers back.
//!
//! Mirrors `pkg/registry/core/pod/rest/subresources.go: ProxyREST`, `pkg/registry/core/pod/strategy.go` and
//! `pkg/registry/core/service/storage: ResourceLocation`, and apimachinery `pkg/util/proxy/upgradeaware.go`. The port is reached as
//! port-forward reaches it: from within the pod. Links in answers are left as they are; connections that change their protocol are
//! refused.

use api::{Kind, Pod, Refusal, Snapshot, limits};
use axum::body::Body;
use axum::extract::Request as HttpRequest;
use axum::response::Response;
use http::header::{LOCATION, UPGRADE};
use http::{HeaderValue, Method, StatusCode, Uri};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

use super::route::Target;
use super::streams::Place;
use super::{Gate, extension, query};
use crate::aggregate::{exchange, unchecked_tls};
use crate::authorize::{Attributes, User, authorize};

/// The subresource.
const PROXY: &str = "proxy";
/// Segments of a path before what is the pod's: `/api/v1/namespaces/NAMESPACE/pods/NAME/proxy`.
const OURS: usize = 8;
/// The label that names a slice's Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// A pod or a Service in a path, with what may stand around its name.
#[derive(Debug, PartialEq, Eq)]
struct Id<'a> {
    tls: bool,
    name: &'a str,
    port: &'a str,
}

impl<'a> Id<'a> {
    /// `[http:|https:]NAME[:PORT]` (upstream: apimachinery `util/net: SplitSchemeNamePort`).
    fn parse(kind: Kind, text: &'a str) -> Result<Id<'a>, Refusal> {
        let parts: Vec<&str> = text.split(':').collect();
        let (scheme, name, port) = match parts.as_slice() {
            [name] => ("", *name, ""),
            [name, port] => ("", *name, *port),
            [scheme, name, port] => (*scheme, *name, *port),
            _ => return Err(invalid(kind, text)),
        };
        if name.is_empty() || !matches!(scheme, "" | "http" | "https") {
            return Err(invalid(kind, text));
        }
        Ok(Id { tls: scheme == "https", name, port })
    }
}

fn invalid(kind: Kind, text: &str) -> Refusal {
    Refusal::bad_request(format!("invalid {} request \"{text}\"", kind.info().singular))
}

/// Passes a request on. `id` is the pod or the Service as the path names it.
pub async fn serve(
    gate: &Gate,
    user: &User,
    (kind, namespace, id): (Kind, &str, &str),
    request: HttpRequest,
) -> Result<Response, Refusal> {
    let id = query::decode_path(id);
    let verb = verb(request.method())?;
    let asked = Attributes { verb, info: kind.info(), subresource: PROXY, namespace, name: &id };
    authorize(&gate.snapshot(), user, &asked)?;
    let id = Id::parse(kind, &id)?;
    if request.headers().contains_key(UPGRADE) {
        return Err(Refusal::bad_request(
            "connections that change their protocol are not passed on to pods; use port-forward",
        ));
    }
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let rest = match behind(path) {
        Some(rest) => rest.to_owned(),
        None if verb == "get" => return Ok(moved(request.uri())),
        None => format!("/{}", query_of(request.uri())),
    };
    let rest: Uri = rest.parse().map_err(|_| Refusal::bad_request("the path behind \"proxy\" cannot be read"))?;
    let busy = |_| Refusal::too_many_requests("too many streams into pods are open; try again", 1);
    let permit = gate.streams.clone().try_acquire_owned().map_err(busy)?;
    let (place, port) = find(gate, kind, namespace, &id)?;
    let failed = |why: &dyn std::fmt::Display| Refusal::unavailable(format!("error trying to reach service: {why}"));
    let stream = place.connect(port).await?.map_err(|why| failed(&why))?;
    let host = format!("{}:{port}", address(&place.pod));
    let (mut parts, body) = extension::without_us(request).into_parts();
    parts.uri = rest;
    let body = Body::new(http_body_util::Limited::new(body, limits::REQUEST_BODY_BYTES));
    let request = HttpRequest::from_parts(parts, body);
    let answer = if id.tls {
        let stream = unchecked_tls(stream).await.map_err(|why| failed(&why))?;
        exchange(stream, &host, request).await
    } else {
        exchange(stream, &host, request).await
    };
    Ok(extension::passed_back(gate, answer.map_err(|error| failed(&error))?, permit, None))
}

fn verb(method: &Method) -> Result<&'static str, Refusal> {
    Ok(match *method {
        Method::GET | Method::HEAD => "get",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        // As upstream: who may do everything may do this.
        Method::OPTIONS => "",
        _ => return Err(Refusal::method_not_allowed()),
    })
}

/// The pod that is asked, and its port.
fn find(gate: &Gate, kind: Kind, namespace: &str, id: &Id) -> Result<(Place, u16), Refusal> {
    let (pod, port) = match kind {
        Kind::Service => {
            let mut found = behind_service(&gate.snapshot(), namespace, id)?;
            let (pod, port) = found.swap_remove(rand::random_range(0..found.len()));
            (pod, Some(port))
        }
        _ if id.port.is_empty() => (id.name.to_owned(), None),
        _ => (id.name.to_owned(), Some(number(id.port).ok_or_else(|| invalid(kind, id.name))?)),
    };
    let (kind, info) = (Kind::Pod, Kind::Pod.info());
    let target = Target { kind, info, namespace: namespace.into(), name: pod, subresource: PROXY.into() };
    let place = Place::find(gate, &target)?;
    let port = port.or_else(|| first_port(&place.pod)).unwrap_or(80);
    Ok((place, port))
}

/// The pods that a Service leads to, and their ports; at least one.
fn behind_service(world: &Snapshot, namespace: &str, id: &Id) -> Result<Vec<(String, u16)>, Refusal> {
    let name = id.name;
    let service: &Service = world.get(namespace, name).ok_or_else(|| Refusal::not_found(Kind::Service, name))?;
    let mut ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    let called = match id.port.parse::<i32>() {
        Err(_) => id.port,
        Ok(number) => match ports.find(|port| port.port == number) {
            Some(port) => port.name.as_deref().unwrap_or(""),
            None => {
                let why = format!("no service port {number} found for service \"{name}\"");
                return Err(Refusal::unavailable(why));
            }
        },
    };
    let slices = world.list::<EndpointSlice>(Some(namespace)).filter(|slice| {
        slice.metadata.labels.as_ref().and_then(|labels| labels.get(SERVICE_NAME)).is_some_and(|of| of == name)
    });
    let found: Vec<(String, u16)> = slices.flat_map(|slice| pods(slice, called)).collect();
    match found.is_empty() {
        true => Err(Refusal::unavailable(format!("no endpoints available for service \"{name}\""))),
        false => Ok(found),
    }
}

fn pods<'a>(slice: &'a EndpointSlice, port: &str) -> impl Iterator<Item = (String, u16)> + use<'a> {
    let mut ports = slice.ports.iter().flatten().filter(|it| it.name.as_deref().unwrap_or("") == port);
    let number = ports.find_map(|it| it.port).and_then(|number| u16::try_from(number).ok());
    let ready = |endpoint: &&Endpoint| endpoint.conditions.as_ref().and_then(|is| is.ready).unwrap_or(true);
    let endpoints = slice.endpoints.iter().flatten().filter(ready);
    let pods =
        endpoints.filter_map(|endpoint| endpoint.target_ref.as_ref().filter(|to| to.kind.as_deref() == Some("Pod")));
    pods.filter_map(move |pod| Some((pod.name.clone()?, number?)))
}

fn number(port: &str) -> Option<u16> {
    port.parse().ok().filter(|port| *port != 0)
}

/// What of a path (and query) is the pod's; `None` if not even a slash stands behind `proxy`.
fn behind(path: &str) -> Option<&str> {
    let (start, _) = path.match_indices('/').nth(OURS - 1)?;
    // A slash in the query is no part of the path.
    (!path[..start].contains('?')).then_some(&path[start..])
}

/// Links on a page are understood beside the page, so the page's own address needs its slash.
fn moved(from: &Uri) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
    if let Ok(to) = HeaderValue::from_str(&format!("{}/{}", from.path(), query_of(from))) {
        response.headers_mut().insert(LOCATION, to);
    }
    response
}

fn query_of(uri: &Uri) -> String {
    uri.query().map(|query| format!("?{query}")).unwrap_or_default()
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
    use api::Object;
    use serde_json::json;

    use super::*;

    #[test]
    fn names_in_paths() {
        let id = |text: &str| match Id::parse(Kind::Pod, text) {
            Ok(id) => format!("{} {:?}{}", id.name, id.port, if id.tls { " tls" } else { "" }),
            Err(refusal) => refusal.message,
        };
        assert_eq!(id("web"), "web \"\"");
        assert_eq!(id("web:8080"), "web \"8080\"");
        assert_eq!(id("http:web:"), "web \"\"");
        assert_eq!(id("https:web:443"), "web \"443\" tls");
        for bad in ["", ":80", "ftp:web:80", "a:b:c:d"] {
            assert_eq!(id(bad), format!("invalid pod request \"{bad}\""));
        }
        assert_eq!(["80", "0", "70000", "web"].map(number), [Some(80), None, None, None]);
    }

    #[test]
    fn a_service_leads_to_pods_that_are_ready() {
        let mut world = Snapshot::default();
        let ports = json!([{ "name": "http", "port": 80 }, { "name": "more", "port": 81 }]);
        let service = json!({ "metadata": { "name": "web", "namespace": "n" }, "spec": { "ports": ports } });
        let pod = |name: &str, ready: bool| json!({ "addresses": ["10.0.0.1"], "conditions": { "ready": ready }, "targetRef": { "kind": "Pod", "name": name } });
        let slice = json!({
            "metadata": { "name": "web-1", "namespace": "n", "labels": { SERVICE_NAME: "web" } },
            "addressType": "IPv4",
            "ports": [{ "name": "http", "port": 8080 }],
            "endpoints": [pod("a", true), pod("b", false), { "addresses": ["10.0.0.9"] }, pod("c", true)],
        });
        for (kind, value) in [(Kind::Service, service), (Kind::EndpointSlice, slice)] {
            world.put(Object::written(kind.decode(value).unwrap(), world.revision() + 1));
        }
        let told = |id: &str| match behind_service(&world, "n", &Id::parse(Kind::Service, id).unwrap()) {
            Ok(found) => format!("{found:?}"),
            Err(refusal) => format!("{} {}", refusal.code, refusal.message),
        };
        assert_eq!(told("web:http"), r#"[("a", 8080), ("c", 8080)]"#);
        assert_eq!(told("web:80"), told("web:http"));
        assert_eq!(told("web"), r#"503 no endpoints available for service "web""#);
        assert_eq!(told("web:81"), r#"503 no endpoints available for service "web""#);
        assert_eq!(told("web:82"), r#"503 no service port 82 found for service "web""#);
        assert_eq!(told("other"), r#"404 services "other" not found"#);
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
