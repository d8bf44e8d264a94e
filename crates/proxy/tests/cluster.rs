//! The loop against an API server: what is acknowledged, and when.
#![allow(clippy::unwrap_used, reason = "these are tests, in functions of their own")]

mod node;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use api::acknowledgement;
use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{Path, State},
    http::{StatusCode, Uri},
    response::{IntoResponse, Response},
    routing::{get, patch},
};
use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use node::{Layout, Node, call, service, slices};
use proxy::follow;
use serde_json::{Value, json};
use tokio::sync::{broadcast, watch};

/// As much of an API server as the proxy talks to.
#[derive(Clone)]
struct Cluster(Arc<Inner>);

struct Inner {
    state: Mutex<Objects>,
    events: broadcast::Sender<(&'static str, Value)>,
    lease: watch::Sender<Option<Value>>,
}

#[derive(Default)]
struct Objects {
    revision: u64,
    services: Vec<Value>,
    slices: Vec<Value>,
    lists: usize,
}

const SERVICES: &str = "services";
const SLICES: &str = "endpointslices";

impl Cluster {
    fn new() -> Cluster {
        let state = Mutex::new(Objects { revision: 100, ..Objects::default() });
        Cluster(Arc::new(Inner { state, events: broadcast::Sender::new(1024), lease: watch::Sender::new(None) }))
    }

    fn client(&self) -> kube::Client {
        let router = Router::new()
            .route("/api/v1/services", get(|state, uri| read(SERVICES, state, uri)))
            .route("/apis/discovery.k8s.io/v1/endpointslices", get(|state, uri| read(SLICES, state, uri)))
            .route("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases", axum::routing::post(create_lease))
            .route("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{name}", patch(patch_lease))
            .with_state(self.clone());
        kube::Client::new(router, "default")
    }

    fn put_service(&self, service: &Service) -> u64 {
        self.put(SERVICES, "ADDED", serde_json::to_value(service).unwrap())
    }

    fn put_slice(&self, slice: &EndpointSlice) -> u64 {
        self.put(SLICES, "ADDED", serde_json::to_value(slice).unwrap())
    }

    fn delete_slice(&self, slice: &EndpointSlice) -> u64 {
        self.put(SLICES, "DELETED", serde_json::to_value(slice).unwrap())
    }

    fn put(&self, kind: &'static str, what: &str, mut object: Value) -> u64 {
        let mut state = self.0.state.lock().unwrap();
        state.revision += 1;
        let revision = state.revision;
        object["metadata"]["resourceVersion"] = json!(revision.to_string());
        let list = if kind == SERVICES { &mut state.services } else { &mut state.slices };
        list.retain(|other| other["metadata"]["name"] != object["metadata"]["name"]);
        if what != "DELETED" {
            list.push(object.clone());
        }
        let _ = self.0.events.send((kind, json!({"type": what, "object": object})));
        revision
    }

    /// Tells the watchers that they are too late.
    fn expire_watches(&self) {
        let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 410, "reason": "Expired", "message": "too old"});
        let _ = self.0.events.send((SLICES, json!({"type": "ERROR", "object": status})));
    }

    /// Waits until a revision is acknowledged.
    async fn acknowledged(&self, revision: u64) -> Value {
        let mut lease = self.0.lease.subscribe();
        let there = lease.wait_for(|lease| {
            let annotation =
                lease.as_ref().and_then(|l| l["metadata"]["annotations"][acknowledgement::APPLIED_REVISION].as_str());
            annotation.and_then(|text| text.parse::<u64>().ok()).is_some_and(|applied| applied >= revision)
        });
        let found = tokio::time::timeout(Duration::from_secs(20), there).await.expect("acknowledged in time").unwrap();
        found.clone().unwrap()
    }
}

async fn read(kind: &'static str, State(cluster): State<Cluster>, uri: Uri) -> Response {
    let query: HashMap<&str, &str> =
        uri.query().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('=')).collect();
    let events = cluster.0.events.subscribe();
    let mut state = cluster.0.state.lock().unwrap();
    let (api_version, list_kind) =
        if kind == SERVICES { ("v1", "ServiceList") } else { ("discovery.k8s.io/v1", "EndpointSliceList") };
    let items = if kind == SERVICES { state.services.clone() } else { state.slices.clone() };
    if !query.contains_key("watch") {
        state.lists += 1;
        let metadata = json!({"resourceVersion": state.revision.to_string()});
        return Json(json!({"apiVersion": api_version, "kind": list_kind, "metadata": metadata, "items": items}))
            .into_response();
    }
    let seen: u64 = query["resourceVersion"].parse().unwrap();
    let newer = items
        .into_iter()
        .filter(move |item| item["metadata"]["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap() > seen);
    let first: Vec<Value> = newer.map(|object| json!({"type": "MODIFIED", "object": object})).collect();
    let line = |event: &Value| Ok::<_, std::io::Error>(Bytes::from(format!("{event}\n")));
    let live = futures::stream::unfold(events, move |mut events| async move {
        loop {
            let (of, event) = events.recv().await.ok()?;
            if of == kind {
                return Some((line(&event), events));
            }
        }
    });
    let first: Vec<_> = first.iter().map(line).collect();
    Body::from_stream(futures::StreamExt::chain(futures::stream::iter(first), live)).into_response()
}

async fn create_lease(State(cluster): State<Cluster>, Json(lease): Json<Value>) -> Response {
    cluster.0.lease.send_replace(Some(lease.clone()));
    (StatusCode::CREATED, Json(lease)).into_response()
}

async fn patch_lease(State(cluster): State<Cluster>, Path(name): Path<String>, body: Bytes) -> Response {
    assert_eq!(name, "kapstan-proxy-here");
    if cluster.0.lease.borrow().is_none() {
        let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 404, "reason": "NotFound", "message": "no lease"});
        return (StatusCode::NOT_FOUND, Json(status)).into_response();
    }
    let lease: Value = serde_json::from_slice(&body).unwrap();
    cluster.0.lease.send_replace(Some(lease.clone()));
    Json(lease).into_response()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_acknowledged_is_in_the_kernel() {
    let Some(node) = tokio::task::spawn_blocking(|| Node::new(Layout::Routed)).await.unwrap() else { return };
    let (pods, client) = tokio::task::block_in_place(|| ([node.pod(2), node.pod(3)], node.pod(5)));
    let servers = [pods[0].serve(8080, b'a'), pods[1].serve(8080, b'b')];
    let [first, second] = servers.each_ref().map(|server| slices("web", "TCP", &[server.address]).remove(0));
    let ask = || {
        let answer = client.space.run(|| call("10.96.0.10:80".parse().unwrap()));
        answer.map(|(_, name)| name).map_err(|error| error.kind())
    };

    let cluster = Cluster::new();
    cluster.put_service(&service("web", [10, 96, 0, 10], "TCP", 80));
    let listed = cluster.put_slice(&first);
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let proxy = tokio::task::block_in_place(|| node.proxy());
    let led = watch::channel(std::collections::BTreeMap::new()).1;
    let running = tokio::spawn({
        let client = cluster.client();
        async move {
            let shutdown = async { drop(stopped.await) };
            follow::run(client, proxy, led, shutdown, |_, _| {}).await
        }
    });

    let lease = cluster.acknowledged(listed).await;
    assert_eq!(lease["spec"]["holderIdentity"], "here");
    assert!(lease["spec"]["renewTime"].is_string());
    assert_eq!(ask(), Ok(b'a'));

    let mut times = Vec::new();
    for _ in 0..20 {
        let start = Instant::now();
        cluster.put_slice(&second);
        // The slice's deletion is acknowledged by its own revision.
        cluster.acknowledged(cluster.delete_slice(&first)).await;
        times.push(start.elapsed());
        assert_eq!(ask(), Ok(b'b'));
        cluster.put_slice(&first);
        cluster.acknowledged(cluster.delete_slice(&second)).await;
        assert_eq!(ask(), Ok(b'a'));
    }
    times.sort();
    eprintln!("event to acknowledgement: p50 {:?}, longest {:?}", times[10], times[19]);

    // A change of a Service says nothing about slices: it is applied and the old revision stays.
    let before = cluster.acknowledged(0).await["metadata"]["annotations"][acknowledgement::APPLIED_REVISION].clone();
    cluster.put_service(&service("other", [10, 96, 0, 11], "TCP", 80));
    let after = cluster.acknowledged(0).await["metadata"]["annotations"][acknowledgement::APPLIED_REVISION].clone();
    assert_eq!(before, after);

    // A deletion that fell between two watches is found by listing again, and acknowledged by the list's revision.
    cluster.expire_watches();
    let gone = cluster.delete_slice(&first);
    cluster.acknowledged(gone).await;
    assert_eq!(ask(), Err(std::io::ErrorKind::ConnectionRefused));
    assert!(cluster.0.state.lock().unwrap().lists >= 3);

    stop.send(()).unwrap();
    running.await.unwrap().unwrap();
    assert_eq!(ask(), Err(std::io::ErrorKind::ConnectionRefused), "rules stay when the proxy stops");
}
