//! The door's outside: HTTP. Parses a request, asks who it is and whether they may, and hands it to a reader or to the
//! writer. Generic over the kinds table; there is no handler per kind.

mod absent;
mod discovery;
mod extension;
mod forecast;
mod impersonate;
mod logs;
mod measured;
mod negotiate;
mod openapi;
mod proxy;
mod query;
mod read;
mod reply;
mod reviews;
mod route;
mod select;
mod streams;
pub mod table;
mod token;
mod versions;
mod watch;
mod write;

use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError};

use api::versions::Version;
use api::{Refusal, Snapshot, limits};
use axum::body::Body;
use axum::extract::{Extension, Request as HttpRequest, State};
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode};
use tokio::sync::oneshot;

use crate::aggregate::{self, Aggregator};
use crate::authenticate::Authenticator;
use crate::authorize::{Attributes, User, authorize, authorize_path};
use crate::door::Requester;
use crate::measured::Measured;
use crate::metrics::Metrics;
use crate::nodes::Nodes;
use crate::pages::Pages;
use crate::published::Published;
use crate::tokens;
use crate::turn::{Action, Answer, Request};
use crate::why::Whys;
use query::Query;
pub use query::percent_encoded;
use route::{Route, Target};

/// Who asks: put beside every request by whoever accepted it.
pub type Identity = Option<User>;

/// What every request can reach.
#[derive(Clone)]
pub struct Gate {
    /// Knows bearer tokens.
    pub authenticator: Arc<Authenticator>,
    /// The readers' side of the state.
    pub published: Arc<Published>,
    /// The writer's mailbox.
    pub writer: SyncSender<Box<Request>>,
    /// Nodes that serve logs and streams into pods.
    pub nodes: Arc<Nodes>,
    /// How many streams into pods may still be opened.
    pub streams: Arc<tokio::sync::Semaphore>,
    /// Snapshots of lists that go on.
    pub pages: Arc<Pages>,
    /// Reasons of decisions.
    pub why: Arc<Whys>,
    /// What nodes and pods use.
    pub measured: Arc<Measured>,
    /// API servers that extend this one.
    pub aggregator: Arc<Aggregator>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Becomes true when the server stops: watches end.
    pub stopping: tokio::sync::watch::Receiver<bool>,
}

/// Asks as a client of the API would; gives status and body. An error is a sentence.
pub async fn ask(gate: &Gate, user: User, path: &str) -> Result<(StatusCode, Bytes), String> {
    let request = HttpRequest::get(path).body(Body::empty()).map_err(|error| error.to_string())?;
    let response = answer(gate, Some(user), request).await.unwrap_or_else(|refusal| reply::refusal(&refusal));
    let (parts, body) = response.into_parts();
    let bytes = axum::body::to_bytes(body, limits::PASSED_ON_ANSWER_BYTES).await.map_err(|error| error.to_string())?;
    Ok((parts.status, bytes))
}

/// The router of the whole API. Requests need an [`Identity`] extension.
pub fn router(gate: Gate) -> axum::Router {
    axum::Router::new().fallback(serve).with_state(gate)
}

async fn serve(State(gate): State<Gate>, Extension(who): Extension<Identity>, request: HttpRequest) -> Response {
    gate.metrics.requested();
    answer(&gate, who, request).await.unwrap_or_else(|refusal| reply::refusal(&refusal))
}

async fn answer(gate: &Gate, who: Identity, request: HttpRequest) -> Result<Response, Refusal> {
    let route = Route::parse(request.uri().path());
    match route {
        Route::Health => return Ok(reply::text("ok")),
        Route::Version => return Ok(reply::json(&discovery::version())),
        _ => {}
    }
    let user = impersonate::acting(who.ok_or_else(Refusal::unauthorized)?, request.headers())?;
    let accept = negotiate::accept(request.headers());
    if matches!(route, Route::Unknown | Route::GroupVersion(..))
        && let Some(claim) = extension::claim(&gate.snapshot(), request.uri().path())?
    {
        return extension::serve(gate, &user, claim, request).await;
    }
    if route.is_path() {
        let verb = request.method().as_str().to_lowercase();
        authorize_path(&gate.snapshot(), &user, &verb, request.uri().path())?;
    }
    match route {
        Route::Resource(target) => match Version::of(target.info) {
            None => resource(gate, &user, &target, request).await,
            Some(version) => versions::serve(gate, &user, version, &target, request).await,
        },
        Route::Proxy(kind, namespace, id) => proxy::serve(gate, &user, (kind, &namespace, &id), request).await,
        Route::Paths => Ok(discovery::paths(&gate.extensions())),
        Route::CoreVersions => Ok(discovery::core_versions(&accept)),
        Route::Groups => Ok(discovery::groups(&accept, &gate.extensions())),
        Route::Group(group) => discovery::group(&group, &gate.extensions()),
        Route::GroupVersion(group, version) => discovery::group_version(&group, &version),
        Route::Absent(kind) if request.method() == Method::GET => kind.look(gate, &Query::parse(request.uri().query())),
        Route::Issuer => Ok(reply::json(&tokens::issuer())),
        Route::IssuerKeys => Ok(reply::with_type(
            StatusCode::OK,
            HeaderValue::from_static("application/jwk-set+json"),
            Body::from(gate.authenticator.keys.public().to_string()),
        )),
        Route::OpenApiV2 => openapi::v2(request.headers()).await,
        Route::OpenApiV3Index => openapi::v3_index().await,
        Route::OpenApiV3(path) => openapi::v3(&path, &Query::parse(request.uri().query()), request.headers()).await,
        Route::Metrics => Ok(reply::text(&gate.metrics.render())),
        Route::Review(target) => reviews::answer(gate, &user, &target, request).await,
        Route::Measured(target) => measured::read(gate, &user, &target, &request),
        Route::Usage if request.method() == Method::POST => measured::report(gate, &user, request).await,
        Route::Usage => Err(Refusal::method_not_allowed()),
        Route::Why(kind, namespace, name) => {
            let asked =
                Attributes { verb: "get", info: kind.info(), subresource: "", namespace: &namespace, name: &name };
            authorize(&gate.snapshot(), &user, &asked)?;
            read::why(gate, kind, &namespace, &name)
        }
        Route::Plan(kind, namespace, name) if request.method() == Method::POST => {
            forecast::answer(gate, &user, kind, &namespace, &name, request).await
        }
        Route::Plan(..) => Err(Refusal::method_not_allowed()),
        Route::Health | Route::Version | Route::Absent(_) | Route::Unknown => Err(Refusal::no_such_path()),
    }
}

async fn resource(gate: &Gate, user: &User, target: &Target, request: HttpRequest) -> Result<Response, Refusal> {
    let query = Query::parse(request.uri().query());
    let verb = verb(request.method(), target, &query)?;
    // A list of one name by field selector may be allowed by a rule that names it.
    let selection = select::Selection::parse(target.info, &target.namespace, &query)?;
    let name = if target.name.is_empty() { selection.exact_name().unwrap_or("") } else { &target.name };
    let namespace = if target.kind == api::Kind::Namespace { &target.name } else { &target.namespace };
    let asked = Attributes { verb, info: target.info, subresource: &target.subresource, namespace, name };
    authorize(&gate.snapshot(), user, &asked)?;
    match (verb, target.subresource.as_str()) {
        ("create", "token") => token::create(gate, target, request).await,
        ("get", "log") => logs::stream(gate, target, &query, request).await,
        (_, streams::EXEC | streams::ATTACH | streams::PORT_FORWARD) => {
            // Looking is not doing: who may only `get` must not get in by way of a WebSocket, which is a GET (upstream:
            // `registry/core/pod/rest/subresources.go: ensureAuthorizedForVerb`).
            authorize(&gate.snapshot(), user, &Attributes { verb: "create", ..asked })?;
            streams::open(gate, target, &query, request).await
        }
        ("get", "") | ("get", "status") => read::get(gate, target, &query, request.headers()),
        ("get", "scale") => read::scale(gate, target),
        ("list", "") => read::list(gate, target.kind, &selection, &query, request.headers()),
        ("watch", "") => watch::watch(gate, target.kind, selection, &query, request.headers()),
        ("create" | "update" | "patch" | "delete" | "deletecollection", _) => {
            write::write(gate, user, target, verb, selection, &query, request).await
        }
        _ => Err(Refusal::method_not_allowed()),
    }
}

/// Subresources that are posted to.
const POSTED: [&str; 6] = ["binding", "eviction", "token", streams::EXEC, streams::ATTACH, streams::PORT_FORWARD];

fn verb(method: &Method, target: &Target, query: &Query) -> Result<&'static str, Refusal> {
    let collection = target.name.is_empty();
    match *method {
        Method::GET if collection && query.flag("watch") => Ok("watch"),
        Method::GET if collection => Ok("list"),
        Method::GET => Ok("get"),
        Method::POST if collection || POSTED.contains(&target.subresource.as_str()) => Ok("create"),
        Method::PUT if !collection => Ok("update"),
        Method::PATCH if !collection => Ok("patch"),
        Method::DELETE if collection => Ok("deletecollection"),
        Method::DELETE if target.subresource.is_empty() => Ok("delete"),
        _ => Err(Refusal::method_not_allowed()),
    }
}

impl Gate {
    fn snapshot(&self) -> Arc<Snapshot> {
        self.published.snapshot()
    }

    /// What other servers serve.
    pub fn extensions(&self) -> Vec<aggregate::Extension> {
        self.aggregator.extensions(&self.snapshot())
    }

    /// Hands a write to the writer and waits until it is durable.
    pub async fn submit(&self, action: Action, requester: Requester, dry_run: bool) -> Result<Answer, Refusal> {
        let (reply, answer) = oneshot::channel();
        self.writer.try_send(Box::new(Request { action, requester, dry_run, reply })).map_err(|error| match error {
            TrySendError::Full(_) => Refusal::too_many_requests("the server has too many writes waiting; try again", 1),
            TrySendError::Disconnected(_) => Refusal::unavailable("the server is stopping"),
        })?;
        answer.await.map_err(|_| Refusal::unavailable("the server stopped before the write was durable"))?
    }
}
