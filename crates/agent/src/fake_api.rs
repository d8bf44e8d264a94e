//! An API server small enough for tests: pods with a watch, everything else taken and noted.
//!
//! A tower service, so that a `kube::Client` talks to it without a socket. Notes are lines that tests wait for.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, Mutex},
    time::Duration,
};

use api::Pod;
use bytes::Bytes;
use futures::{StreamExt, stream};
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::body::Frame;
use k8s_openapi::api::core::v1::PodStatus;
use kube::Client;
use serde_json::{Value, json};
use tokio::sync::{broadcast, watch};

type Body = BoxBody<Bytes, Infallible>;

/// The server; clones are the same.
#[derive(Clone)]
pub struct FakeApi {
    state: Arc<Mutex<State>>,
    changes: broadcast::Sender<Bytes>,
    notes: watch::Sender<Vec<String>>,
}

#[derive(Default)]
struct State {
    revision: u64,
    pods: BTreeMap<String, Value>,
    /// Answers of this code instead of doing what is asked, for requests that contain the text.
    refusals: Vec<(String, u16)>,
}

impl FakeApi {
    pub fn new() -> FakeApi {
        FakeApi { state: Arc::default(), changes: broadcast::channel(100_000).0, notes: watch::Sender::new(Vec::new()) }
    }

    pub fn client(&self) -> Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let api = api.clone();
            async move { Ok::<_, Infallible>(api.serve(request).await) }
        });
        Client::new(service, "default")
    }

    /// Refuses the next request whose method and path contain `text`.
    pub fn refuse(&self, text: &str, code: u16) {
        self.state.lock().unwrap().refusals.push((text.into(), code));
    }

    /// Makes or changes a pod.
    pub fn put(&self, pod: Value) {
        let name = pod["metadata"]["name"].as_str().unwrap().to_owned();
        let mut state = self.state.lock().unwrap();
        let kind = if state.pods.contains_key(&name) { "MODIFIED" } else { "ADDED" };
        self.store(&mut state, name, pod, kind);
    }

    /// Changes a pod that is there.
    pub fn edit(&self, name: &str, edit: impl FnOnce(&mut Value)) {
        let mut state = self.state.lock().unwrap();
        let mut pod = state.pods[name].clone();
        edit(&mut pod);
        self.store(&mut state, name.into(), pod, "MODIFIED");
    }

    /// Asks for a pod's end, as a DELETE with a grace period does.
    pub fn ask_to_go(&self, name: &str, grace: u64) {
        self.edit(name, |pod| {
            pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            pod["metadata"]["deletionGracePeriodSeconds"] = json!(grace);
        });
    }

    pub fn pod(&self, name: &str) -> Option<Pod> {
        let state = self.state.lock().unwrap();
        state.pods.get(name).map(|pod| serde_json::from_value(pod.clone()).unwrap())
    }

    fn store(&self, state: &mut State, name: String, mut pod: Value, kind: &str) {
        state.revision += 1;
        pod["metadata"]["resourceVersion"] = json!(state.revision.to_string());
        pod["metadata"]["namespace"] = json!("ns");
        pod["apiVersion"] = json!("v1");
        pod["kind"] = json!("Pod");
        state.pods.insert(name, pod.clone());
        self.tell(kind, &pod);
    }

    /// Removes a pod without grace.
    pub fn forget(&self, name: &str) {
        let mut state = self.state.lock().unwrap();
        if let Some(pod) = state.pods.remove(name) {
            self.tell("DELETED", &pod);
        }
    }

    /// The type comes first, as every server writes it.
    fn tell(&self, kind: &str, pod: &Value) {
        let line = format!("{{\"type\":\"{kind}\",\"object\":{pod}}}\n");
        // Nobody watches: nobody needs it.
        let _ = self.changes.send(line.into());
    }

    fn note(&self, line: String) {
        self.notes.send_modify(|notes| notes.push(line));
    }

    /// What was noted so far that begins with `start`.
    pub fn noted(&self, start: &str) -> Vec<String> {
        self.notes.borrow().iter().filter(|line| line.starts_with(start)).cloned().collect()
    }

    /// Waits until `enough` is true of the notes.
    pub async fn until(&self, enough: impl Fn(&[String]) -> bool) {
        let mut notes = self.notes.subscribe();
        let waited = tokio::time::timeout(Duration::from_secs(20), notes.wait_for(|notes| enough(notes)));
        if waited.await.is_err() {
            panic!("what was waited for did not happen; noted: {:#?}", self.notes.borrow());
        }
    }

    /// Waits for a note.
    pub async fn until_noted(&self, line: &str) {
        self.until(|notes| notes.iter().any(|note| note.contains(line))).await;
    }

    async fn serve(&self, request: Request<kube::client::Body>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let path = parts.uri.path().to_owned();
        let body = body.collect().await.unwrap().to_bytes();
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let asked = format!("{} {path}", parts.method);
        let refusal = {
            let mut state = self.state.lock().unwrap();
            let found = state.refusals.iter().position(|(text, _)| asked.contains(text.as_str()));
            found.map(|index| state.refusals.remove(index).1)
        };
        if let Some(code) = refusal {
            self.note(format!("refused {code} {asked}"));
            return failure(code, "refused by the test");
        }
        let resource = path.rsplit('/').find(|part| RESOURCES.contains(part)).unwrap_or_default();
        let query = parts.uri.query().unwrap_or_default();
        match (parts.method, resource) {
            (Method::GET, "pods") if query.contains("watch=true") => self.watch(),
            (Method::GET, "pods") => self.list(),
            (Method::GET, "endpointslices" | "leases" | "services" | "nodes") if query.contains("watch=true") => {
                answer(200, streamed(stream::pending().boxed()))
            }
            (Method::GET, kind) if path.ends_with(kind) => {
                ok(json!({"metadata": {"resourceVersion": "1"}, "items": []}))
            }
            (Method::PATCH, "pods") => self.patch_status(&path, &body),
            (Method::DELETE, "pods") => self.delete(&path, &body),
            (Method::POST, "events") => self.event(&body),
            (Method::PATCH, "events") => {
                self.note(format!("event again {}", body["count"]));
                ok(body)
            }
            (Method::POST, kind) => {
                self.note(format!("made {kind} {}", body["metadata"]["name"].as_str().unwrap_or_default()));
                ok(body)
            }
            _ => failure(404, "not found"),
        }
    }

    fn list(&self) -> Response<Body> {
        let state = self.state.lock().unwrap();
        let items: Vec<_> = state.pods.values().collect();
        ok(json!({"metadata": {"resourceVersion": state.revision.to_string()}, "items": items}))
    }

    fn watch(&self) -> Response<Body> {
        let changes = self.changes.subscribe();
        let events = stream::unfold(changes, |mut changes| async move { Some((changes.recv().await.ok()?, changes)) });
        answer(200, streamed(events.boxed()))
    }

    fn patch_status(&self, path: &str, body: &Value) -> Response<Body> {
        let name = path.trim_end_matches("/status").rsplit('/').next().unwrap_or_default();
        let known = self.state.lock().unwrap().pods.get(name).cloned();
        match known {
            Some(pod) if pod["metadata"]["uid"] == body["metadata"]["uid"] => {}
            _ => return failure(404, "not found"),
        }
        self.note(format!("status {name}: {}", in_words(&body["status"])));
        self.edit(name, |pod| {
            let others = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
            pod["status"] = body["status"].clone();
            let mut conditions = pod["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let foreign = |other: &Value| !conditions.iter().any(|one| one["type"] == other["type"]);
            let foreign: Vec<_> = others.into_iter().filter(foreign).collect();
            conditions.extend(foreign);
            pod["status"]["conditions"] = json!(conditions);
        });
        ok(json!({}))
    }

    fn delete(&self, path: &str, body: &Value) -> Response<Body> {
        let name = path.rsplit('/').next().unwrap_or_default();
        let uid = body["preconditions"]["uid"].as_str().unwrap_or_default();
        self.note(format!("delete {name} uid {uid} grace {}", body["gracePeriodSeconds"]));
        self.forget(name);
        ok(json!({}))
    }

    fn event(&self, body: &Value) -> Response<Body> {
        let text = |field: &str| body[field].as_str().unwrap_or_default().to_owned();
        self.note(format!("event {} {}: {}", text("type"), text("reason"), text("message")));
        ok(body.clone())
    }
}

const RESOURCES: &[&str] = &["pods", "events", "nodes", "leases", "endpointslices", "services"];

fn streamed(stream: stream::BoxStream<'static, Bytes>) -> Body {
    let frames = stream.map(|bytes| Ok::<_, Infallible>(Frame::data(bytes)));
    // A boxed stream is not Sync; a body has to be.
    BodyExt::boxed(StreamBody::new(sync_wrapper::SyncStream::new(frames)))
}

mod sync_wrapper {
    //! Makes a stream `Sync` by never sharing it.
    use std::{
        pin::Pin,
        sync::Mutex,
        task::{Context, Poll},
    };

    pub struct SyncStream<S>(Mutex<S>);

    impl<S> SyncStream<S> {
        pub fn new(stream: S) -> SyncStream<S> {
            SyncStream(Mutex::new(stream))
        }
    }

    impl<S: futures::Stream + Unpin> futures::Stream for SyncStream<S> {
        type Item = S::Item;

        fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<S::Item>> {
            Pin::new(self.0.get_mut().unwrap()).poll_next(context)
        }
    }
}

fn answer(code: u16, body: Body) -> Response<Body> {
    Response::builder().status(code).header("content-type", "application/json").body(body).unwrap()
}

fn ok(value: Value) -> Response<Body> {
    answer(200, BodyExt::boxed(Full::new(Bytes::from(value.to_string()))))
}

fn failure(code: u16, message: &str) -> Response<Body> {
    let reason = match code {
        404 => "NotFound",
        409 => "Conflict",
        _ => "InternalError",
    };
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": message});
    answer(code, BodyExt::boxed(Full::new(Bytes::from(status.to_string()))))
}

/// `Running, Ready True, c running`, as the tests read it.
fn in_words(status: &Value) -> String {
    let status: PodStatus = serde_json::from_value(status.clone()).unwrap();
    let ready = status.conditions.iter().flatten().find(|condition| condition.type_ == "Ready");
    let mut text = format!(
        "{}, Ready {}",
        status.phase.as_deref().unwrap_or_default(),
        ready.map(|ready| ready.status.as_str()).unwrap_or_default()
    );
    for one in status.container_statuses.iter().flatten() {
        let state = one.state.clone().unwrap_or_default();
        let what = match (state.running, state.terminated, state.waiting) {
            (Some(_), _, _) => "running".to_owned(),
            (_, Some(ended), _) => format!("ended {}", ended.exit_code),
            (_, _, Some(waiting)) => waiting.reason.unwrap_or_default(),
            _ => String::new(),
        };
        text.push_str(&format!(", {} {what} x{} {}", one.name, one.restart_count, one.image));
    }
    text
}
