//! Requests to the API server: JSON in, JSON out, `Status` answers as errors, warnings kept for the user.
//!
//! The transport (TLS, authentication, HTTP/2) is `kube`'s. Nothing here knows a kind.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use futures::{AsyncBufReadExt, StreamExt, TryStreamExt};
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use kube::client::Body;
use kube::config::KubeConfigOptions;
use serde_json::Value;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{self, protocol::Role};

use crate::discovery::{Discovery, Resource};
use crate::errors::{Error, Result};
use crate::json::Json;
use crate::kubeconfig::{Place, root_cause};
use crate::session::Global;
use crate::time::parse_duration;

/// This program's version, as `version` prints it.
pub const VERSION: &str = concat!("v", env!("CARGO_PKG_VERSION"));
/// The media type of ordinary answers.
pub const JSON: &str = "application/json";
/// What `get` accepts: tables made by the server.
pub const TABLE: &str =
    "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
/// Between two attempts to reach a server that is away.
const AGAIN: Duration = Duration::from_millis(500);
/// Objects of a list that are asked for at once.
pub const PAGE: usize = 500;

/// A connection to one API server. Clones share it.
#[derive(Clone)]
pub struct Client {
    shared: Rc<Shared>,
}

struct Shared {
    transport: kube::Client,
    server: String,
    namespace: String,
    timeout: Option<Duration>,
    verbosity: u8,
    /// The versions have still to be compared.
    version_unchecked: Cell<bool>,
    warnings: RefCell<Vec<String>>,
    discovery: RefCell<Option<Rc<Discovery>>>,
}

/// A connection on which messages go both ways.
pub type WebSocket = WebSocketStream<TokioIo<Upgraded>>;

/// Query parameters.
pub type Query<'a> = [(&'a str, String)];

impl Client {
    /// Prepares a connection; nothing is sent yet.
    pub fn connect(place: Place, global: &Global) -> Result<Client> {
        let cluster = place.config.clusters.first().and_then(|named| named.cluster.as_ref());
        let server = cluster.and_then(|cluster| cluster.server.clone()).unwrap_or_default();
        let context = place.config.contexts.first().and_then(|named| named.context.as_ref());
        let namespace = context.and_then(|context| context.namespace.clone()).unwrap_or_else(|| "default".into());
        let timeout = parse_duration(&global.request_timeout)
            .ok_or_else(|| Error::told("Invalid timeout value. Timeout must be a single integer in seconds, or an integer followed by a corresponding time unit (e.g. 1s | 2m | 3h)"))?;
        let invalid = |error: kube::config::KubeconfigError| {
            Error::told(format!("the kubeconfig cannot be used: {}", root_cause(&error)))
        };
        let mut config = futures::executor::block_on(kube::Config::from_custom_kubeconfig(
            place.config,
            &KubeConfigOptions::default(),
        ))
        .map_err(invalid)?;
        // A watch may be silent for long; `--request-timeout` is ours to keep.
        config.read_timeout = None;
        // An answer is told as it is; whoever waits says so with `wait`.
        config.default_retry = false;
        let transport = kube::Client::try_from(config)
            .map_err(|error| Error::told(format!("no connection can be made: {}", root_cause(&error))))?;
        Ok(Client {
            shared: Rc::new(Shared {
                transport,
                server,
                namespace,
                timeout: (!timeout.is_zero()).then_some(timeout),
                verbosity: global.verbosity,
                version_unchecked: Cell::new(global.match_server_version),
                warnings: RefCell::default(),
                discovery: RefCell::default(),
            }),
        })
    }

    /// The server's URL.
    pub fn server(&self) -> &str {
        &self.shared.server
    }

    /// The transport, for what needs `kube` itself.
    pub fn transport(&self) -> kube::Client {
        self.shared.transport.clone()
    }

    /// The context's namespace, or `default`.
    pub fn default_namespace(&self) -> &str {
        &self.shared.namespace
    }

    /// Warnings that the server sent since the last call.
    pub fn take_warnings(&self) -> Vec<String> {
        self.shared.warnings.take()
    }

    /// What the server serves; asked for once.
    pub async fn discovery(&self) -> Result<Rc<Discovery>> {
        if let Some(known) = self.shared.discovery.borrow().as_ref() {
            return Ok(known.clone());
        }
        let found = Rc::new(Discovery::read(self).await?);
        *self.shared.discovery.borrow_mut() = Some(found.clone());
        Ok(found)
    }

    /// Sends a request; an answer that is not a success is an error.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        query: &Query<'_>,
        accept: &str,
        body: Option<(&str, Vec<u8>)>,
    ) -> Result<Response<Body>> {
        if self.shared.version_unchecked.take() {
            Box::pin(self.compare_versions()).await?;
        }
        let uri = address(path, query);
        if self.shared.verbosity >= 6 {
            eprintln!("{method} {}{uri}", self.shared.server);
        }
        let mut request = Request::builder().method(method.clone()).uri(&uri).header(http::header::ACCEPT, accept);
        request = request.header(http::header::USER_AGENT, concat!("kapstan/", env!("CARGO_PKG_VERSION")));
        let body = match body {
            Some((media_type, bytes)) => {
                request = request.header(http::header::CONTENT_TYPE, media_type);
                bytes
            }
            None => Vec::new(),
        };
        let request = request.body(Body::from(body)).map_err(|error| Error::told(error.to_string()))?;
        let answer = self.shared.transport.send(request);
        let answer = match self.shared.timeout {
            Some(limit) => tokio::time::timeout(limit, answer).await.map_err(|_| {
                Error::away("Unable to connect to the server: net/http: request canceled (Client.Timeout exceeded while awaiting headers)")
            })?,
            None => answer.await,
        };
        let answer = answer.map_err(|error| self.unreachable(&error))?;
        self.keep_warnings(&answer);
        if answer.status().is_success() {
            return Ok(answer);
        }
        Err(refusal(answer, &method).await)
    }

    /// Opens a WebSocket that speaks one of `protocols`, the best first; which one it speaks comes back with it.
    pub async fn websocket(&self, path: &str, query: &Query<'_>, protocols: &[&str]) -> Result<(WebSocket, String)> {
        let uri = address(path, query);
        if self.shared.verbosity >= 6 {
            eprintln!("GET {uri} as a WebSocket");
        }
        let request = Request::get(uri)
            .header(header::CONNECTION, "Upgrade")
            .header(header::UPGRADE, "websocket")
            .header(header::SEC_WEBSOCKET_VERSION, "13")
            .header(header::SEC_WEBSOCKET_KEY, tungstenite::handshake::client::generate_key())
            .header(header::SEC_WEBSOCKET_PROTOCOL, protocols.join(", "))
            .body(Body::empty())
            .map_err(|error| Error::told(error.to_string()))?;
        let answer = self.shared.transport.send(request).await.map_err(|error| self.unreachable(&error))?;
        if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(not_upgraded(answer).await);
        }
        let chosen = answer.headers().get(header::SEC_WEBSOCKET_PROTOCOL).and_then(|value| value.to_str().ok());
        let chosen = chosen.unwrap_or_default().to_owned();
        if !protocols.contains(&chosen.as_str()) {
            return Err(Error::told(format!("unable to upgrade connection: the server chose the protocol {chosen:?}")));
        }
        let upgraded = hyper::upgrade::on(answer).await;
        let upgraded = upgraded.map_err(|error| Error::told(format!("unable to upgrade connection: {error}")))?;
        let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Client, None).await;
        Ok((socket, chosen))
    }

    /// Refuses a server of another version (client-go `discovery.MatchesServerVersion`).
    async fn compare_versions(&self) -> Result<()> {
        let failed =
            |error: Error| Error::told(format!("couldn't read version from server: {}", error.inner_message()));
        let server = self.get("/version", &[]).await.map_err(failed)?;
        let server = server.text("gitVersion");
        // A kapstan server names the Kubernetes it is like, then itself.
        let same = server == VERSION || server.ends_with(concat!("+kapstan-", env!("CARGO_PKG_VERSION")));
        let why = || Error::told(format!("server version ({server}) differs from client version ({VERSION})"));
        if same { Ok(()) } else { Err(why()) }
    }

    fn keep_warnings(&self, answer: &Response<Body>) {
        for header in answer.headers().get_all(http::header::WARNING) {
            let Some(warning) = warning(&String::from_utf8_lossy(header.as_bytes())) else { continue };
            let mut kept = self.shared.warnings.borrow_mut();
            if !kept.contains(&warning) {
                kept.push(warning);
            }
        }
    }

    fn unreachable(&self, error: &kube::Error) -> Error {
        let cause = root_cause(error);
        let host = self.shared.server.split("://").last().unwrap_or_default().trim_end_matches('/');
        if cause.contains("refused") {
            let text =
                format!("The connection to the server {host} was refused - did you specify the right host or port?");
            return Error::away(text).hinted("is it running? `kapstan server` starts one on this machine");
        }
        Error::away(format!("Unable to connect to the server: {cause}"))
    }

    /// Sends a request and reads the answer as JSON.
    pub async fn json(
        &self,
        method: Method,
        path: &str,
        query: &Query<'_>,
        accept: &str,
        body: Option<(&str, Vec<u8>)>,
    ) -> Result<Value> {
        let text = read(self.send(method, path, query, accept, body).await?).await?;
        serde_json::from_slice(&text).map_err(|error| Error::told(format!("{path} is answered with no JSON: {error}")))
    }

    /// GET.
    pub async fn get(&self, path: &str, query: &Query<'_>) -> Result<Value> {
        self.json(Method::GET, path, query, JSON, None).await
    }

    /// GET of something that is not JSON.
    pub async fn text(&self, path: &str, query: &Query<'_>) -> Result<String> {
        let bytes = read(self.send(Method::GET, path, query, "*/*", None).await?).await?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// POST of an object.
    pub async fn post(&self, path: &str, query: &Query<'_>, object: &Value) -> Result<Value> {
        self.json(Method::POST, path, query, JSON, Some((JSON, object.to_string().into_bytes()))).await
    }

    /// PUT of an object.
    pub async fn put(&self, path: &str, query: &Query<'_>, object: &Value) -> Result<Value> {
        self.json(Method::PUT, path, query, JSON, Some((JSON, object.to_string().into_bytes()))).await
    }

    /// PATCH with a patch of some media type.
    pub async fn patch(&self, path: &str, query: &Query<'_>, media_type: &str, patch: &Value) -> Result<Value> {
        self.json(Method::PATCH, path, query, JSON, Some((media_type, patch.to_string().into_bytes()))).await
    }

    /// DELETE with options.
    pub async fn delete(&self, path: &str, options: &Value) -> Result<Value> {
        self.json(Method::DELETE, path, &[], JSON, Some((JSON, options.to_string().into_bytes()))).await
    }

    /// A whole list, page by page; the items carry kind and apiVersion.
    pub async fn list(&self, resource: &Resource, namespace: Option<&str>, query: &Query<'_>) -> Result<Value> {
        self.list_by(resource, namespace, query, PAGE).await
    }

    /// As [`Client::list`], so many a page; 0 is all on one.
    pub async fn list_by(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        query: &Query<'_>,
        page: usize,
    ) -> Result<Value> {
        let path = resource.path(namespace, None);
        let mut whole: Option<Value> = None;
        let mut token = String::new();
        loop {
            let mut asked = query.to_vec();
            if page > 0 {
                asked.push(("limit", page.to_string()));
            }
            if !token.is_empty() {
                asked.push(("continue", token));
            }
            let mut page = self.get(&path, &asked).await?;
            token = page.text("metadata.continue").to_owned();
            for item in page["items"].as_array_mut().into_iter().flatten() {
                item["kind"] = resource.kind.clone().into();
                item["apiVersion"] = resource.api_version().into();
            }
            match &mut whole {
                None => whole = Some(page),
                Some(first) => {
                    let more = page["items"].take();
                    if let (Some(items), Value::Array(more)) = (first["items"].as_array_mut(), more) {
                        items.extend(more);
                    }
                }
            }
            if token.is_empty() {
                return Ok(whole.unwrap_or_default());
            }
        }
    }

    /// Follows a stream of lines: a watch, or a log. `--request-timeout` ends it.
    pub async fn lines(
        &self,
        path: &str,
        query: &Query<'_>,
        accept: &str,
    ) -> Result<impl futures::Stream<Item = Result<String>> + Unpin + use<>> {
        let answer = self.send(Method::GET, path, query, accept, None).await?;
        let bytes = answer.into_body().into_data_stream().map_err(std::io::Error::other);
        let lines = bytes.into_async_read().lines().map(|line| line.map_err(|_| Error::away("error: unexpected EOF")));
        Ok(match self.shared.timeout {
            Some(limit) => lines.take_until(Box::pin(tokio::time::sleep(limit))).boxed_local(),
            None => lines.boxed_local(),
        })
    }

    /// Follows a watch. One that breaks off has ended: who wants to know more looks again (client-go `StreamWatcher`).
    pub async fn watch(
        &self,
        path: &str,
        query: &Query<'_>,
        accept: &str,
    ) -> Result<impl futures::Stream<Item = Result<Value>> + Unpin + use<>> {
        let lines = self.lines(path, query, accept).await?;
        let whole = lines.take_while(|line| std::future::ready(line.is_ok()));
        Ok(whole.map(|line| Ok(serde_json::from_str(&line?)?)))
    }

    /// Asks again until a server answers: for what follows objects that it has shown before, through restarts of the server
    /// (client-go `RetryWatcher`).
    pub async fn patiently<T>(&self, mut ask: impl AsyncFnMut() -> Result<T>) -> Result<T> {
        let mut is_told = false;
        loop {
            match ask().await {
                Err(error) if error.is_away() => {
                    if !std::mem::replace(&mut is_told, true) {
                        eprintln!("Warning: the server does not answer; trying again");
                    }
                    tokio::time::sleep(AGAIN).await;
                }
                outcome => return outcome,
            }
        }
    }
}

/// The text of `299 - "text"`, in which quotes and backslashes stand behind a backslash (apimachinery `net.ParseWarningHeader`).
fn warning(header: &str) -> Option<String> {
    let mut letters = header.split_once('"')?.1.chars();
    let mut text = String::new();
    loop {
        match letters.next()? {
            '"' => return Some(text),
            '\\' => text.push(letters.next()?),
            letter => text.push(letter),
        }
    }
}

/// Reads an answer's body to its end.
pub async fn read(answer: Response<Body>) -> Result<Vec<u8>> {
    let collected = answer.into_body().collect().await;
    let bytes = collected.map_err(|_| Error::away("Unable to connect to the server: unexpected EOF"))?;
    Ok(bytes.to_bytes().to_vec())
}

/// The server did not open a stream: its `Status`, or what the node said.
async fn not_upgraded(answer: Response<Body>) -> Error {
    let bytes = read(answer).await.unwrap_or_default();
    match serde_json::from_slice::<Value>(&bytes) {
        Ok(status) if status.text("kind") == "Status" => Error::refused(status),
        _ => Error::told(format!("unable to upgrade connection: {}", String::from_utf8_lossy(&bytes).trim())),
    }
}

async fn refusal(answer: Response<Body>, method: &Method) -> Error {
    let code = answer.status();
    let bytes = read(answer).await.unwrap_or_default();
    match serde_json::from_slice::<Value>(&bytes) {
        Ok(status) if status.text("kind") == "Status" => Error::refused(status),
        _ => {
            let verb = method.as_str().to_lowercase();
            let (reason, message) = match code.as_u16() {
                404 => ("NotFound", "the server could not find the requested resource".to_owned()),
                405 => ("MethodNotAllowed", "the server does not allow this method on the requested resource".into()),
                401 => ("Unauthorized", "the server has asked for the client to provide credentials".into()),
                403 => ("Forbidden", String::from_utf8_lossy(&bytes).trim().to_owned()),
                _ => {
                    ("", format!("the server answered {verb} with {code}: {}", String::from_utf8_lossy(&bytes).trim()))
                }
            };
            Error::refused(
                serde_json::json!({"kind": "Status", "code": code.as_u16(), "reason": reason, "message": message}),
            )
        }
    }
}

fn address(path: &str, query: &Query<'_>) -> String {
    let mut uri = path.to_owned();
    for (index, (name, value)) in query.iter().enumerate() {
        uri.push(if index == 0 { '?' } else { '&' });
        uri.push_str(name);
        uri.push('=');
        uri.push_str(&escape(value));
    }
    uri
}

/// Percent-encodes a query value or a path segment.
pub fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => escaped.push(byte.into()),
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_are_unquoted() {
        assert_eq!(
            warning(r#"299 - "unknown field \"spec.replcas\"""#).as_deref(),
            Some(r#"unknown field "spec.replcas""#)
        );
        assert_eq!(warning(r#"299 - "a \\ b" "Sun, 29 Nov 2026 07:00:00 GMT""#).as_deref(), Some(r"a \ b"));
        assert_eq!(warning("299 - broken"), None);
    }
}
