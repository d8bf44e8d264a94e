//! API servers that extend this one: a small metrics adapter that the test runs, and autoscalers that follow it.
//!
//! Endpoints may not be loopback addresses, so the test plays in a network namespace of its own, with an address of the
//! documentation's range.

use std::convert::Infallible;
use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, stream};
use http::{Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{Api, ListParams};
use kube::{Client, ResourceExt};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig, crypto};

use crate::cluster::{Cluster, Kubectl, Setup, client, skipped};
use crate::raw::Raw;
use crate::{containers, transcript};

/// An address that is nobody's (RFC 5737).
const ADDRESS: &str = "192.0.2.10";
/// Requests a second that come in, whoever answers them.
const WORK: i64 = 40;

/// Every type of metric scales a Deployment, and people and their rights reach the adapter.
#[test]
fn a_metrics_adapter() {
    if !containers::staged("extensions::a_metrics_adapter") {
        return;
    }
    let Some(kubectl) = Kubectl::current() else { return };
    if !with_address() {
        return;
    }
    let cluster = Setup::simulated(1).start();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let adapter = runtime.block_on(Adapter::start(&cluster));
    fs::write(cluster.folder().join("apis.json"), adapter.apis().to_string()).unwrap();
    fs::write(cluster.folder().join("adapter.json"), adapter.service().to_string()).unwrap();
    fs::write(cluster.folder().join("autoscalers.json"), autoscalers().to_string()).unwrap();
    transcript::play("metrics-adapter.txt", &cluster, &kubectl);
    runtime.block_on(streams(&cluster, &adapter));
}

/// What an adapter streams goes through as it comes; and that it may not send clients elsewhere is told.
async fn streams(cluster: &Cluster, adapter: &Adapter) {
    let raw = Raw::connect(cluster).await;
    let mut events = raw.watch("/apis/custom.metrics.k8s.io/v1beta2/stream?watch=true").await;
    assert_eq!(events.next().await, Some(json!({ "event": 1 })));
    adapter.go_on.notify_one();
    assert_eq!(events.next().await, Some(json!({ "event": 2 })));
    assert_eq!(events.next().await, None);
    let told = raw.get("/apis/custom.metrics.k8s.io/v1beta2/elsewhere").await;
    let why = "the backend attempted to redirect this request, which is not permitted\n";
    assert_eq!(told, (502, Value::String(why.into())));
}

/// Gives the namespace the adapter's address; false if the tool for that is missing.
fn with_address() -> bool {
    let run = |arguments: &[&str]| Command::new("ip").args(arguments).status().is_ok_and(|status| status.success());
    let address = format!("{ADDRESS}/32");
    let done = run(&["link", "set", "lo", "up"]) && run(&["address", "add", &address, "dev", "lo"]);
    if !done {
        skipped("an address for the adapter needs iproute2");
    }
    done
}

/// Three Deployments, each scaled by another type of metric.
fn autoscalers() -> Value {
    let autoscaler = |name: &str, most: i32, metric: Value| {
        json!({ "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": { "name": name }, "spec": {
            "scaleTargetRef": { "apiVersion": "apps/v1", "kind": "Deployment", "name": name },
            "minReplicas": 2, "maxReplicas": most, "metrics": [metric],
        } })
    };
    let (average, whole) =
        (json!({ "type": "AverageValue", "averageValue": "10" }), json!({ "type": "Value", "value": "10" }));
    let requests = json!({ "name": "requests" });
    let service = json!({ "apiVersion": "v1", "kind": "Service", "name": "web" });
    let queue = json!({ "name": "queue", "selector": { "matchLabels": { "topic": "orders" } } });
    let items = [
        autoscaler("pods", 5, json!({ "type": "Pods", "pods": { "metric": requests, "target": average } })),
        autoscaler(
            "object",
            5,
            json!({ "type": "Object", "object": { "metric": requests, "describedObject": service, "target": average } }),
        ),
        autoscaler("external", 3, json!({ "type": "External", "external": { "metric": queue, "target": whole } })),
    ];
    json!({ "apiVersion": "v1", "kind": "List", "items": items })
}

/// A server of `custom.metrics.k8s.io` and `external.metrics.k8s.io`.
struct Adapter {
    address: SocketAddr,
    authority_pem: String,
    /// Lets a stream go on.
    go_on: Arc<Notify>,
}

impl Adapter {
    /// Listens, and trusts who the cluster says that it speaks through.
    async fn start(cluster: &Cluster) -> Adapter {
        let client = client(cluster).await;
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "kube-system");
        let map = maps.get("extension-apiserver-authentication").await.unwrap().data.unwrap();
        assert_eq!(map["requestheader-allowed-names"], r#"["front-proxy-client"]"#);
        let (authority_pem, acceptor) = tls(&map["requestheader-client-ca-file"]);
        let listener = TcpListener::bind((ADDRESS, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let go_on = Arc::new(Notify::new());
        let released = go_on.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, client, released) = (acceptor.clone(), client.clone(), released.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let service = service_fn(move |request| serve(client.clone(), released.clone(), request));
                    drop(
                        hyper::server::conn::http1::Builder::new()
                            .serve_connection(TokioIo::new(stream), service)
                            .await,
                    );
                });
            }
        });
        Adapter { address, authority_pem, go_on }
    }

    fn apis(&self) -> Value {
        let api = |group: &str, version: &str| {
            json!({ "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
                "metadata": { "name": format!("{version}.{group}") },
                "spec": { "group": group, "version": version, "groupPriorityMinimum": 100, "versionPriority": 100,
                    "caBundle": ByteString(self.authority_pem.clone().into()),
                    "service": { "namespace": "default", "name": "adapter" } } })
        };
        let items = [api("custom.metrics.k8s.io", "v1beta2"), api("external.metrics.k8s.io", "v1beta1")];
        json!({ "apiVersion": "v1", "kind": "List", "items": items })
    }

    /// A Service without a selector, and its endpoints.
    fn service(&self) -> Value {
        let service = json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "adapter" },
            "spec": { "ports": [{ "name": "https", "port": 443 }] } });
        let slice = json!({ "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": { "name": "adapter", "labels": { "kubernetes.io/service-name": "adapter" } }, "addressType": "IPv4",
            "ports": [{ "name": "https", "port": self.address.port() }], "endpoints": [{ "addresses": [ADDRESS] }] });
        json!({ "apiVersion": "v1", "kind": "List", "items": [service, slice] })
    }
}

/// An authority of the adapter's own, and TLS that lets only the front proxy in.
fn tls(front_proxy_authority: &str) -> (String, TlsAcceptor) {
    let mut parameters = CertificateParams::new(Vec::new()).unwrap();
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let authority_pem = parameters.self_signed(&key).unwrap().pem();
    let issuer = Issuer::from_ca_cert_pem(&authority_pem, key).unwrap();
    let own_key = KeyPair::generate().unwrap();
    let own = CertificateParams::new(vec!["adapter.default.svc".to_owned()]).unwrap();
    let chain = vec![own.signed_by(&own_key, &issuer).unwrap().der().clone()];
    let provider = Arc::new(crypto::ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(front_proxy_authority.as_bytes()).unwrap()).unwrap();
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build().unwrap();
    let key = PrivateKeyDer::from_pem_slice(own_key.serialize_pem().as_bytes()).unwrap();
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .unwrap();
    (authority_pem, TlsAcceptor::from(Arc::new(config)))
}

type Answer = Response<BoxBody<Bytes, Infallible>>;

fn told(code: u16, value: &Value) -> Answer {
    let body = Full::new(Bytes::from(value.to_string())).boxed();
    Response::builder().status(code).header("content-type", "application/json").body(body).unwrap()
}

async fn serve(client: Client, go_on: Arc<Notify>, request: Request<Incoming>) -> Result<Answer, Infallible> {
    let parts: Vec<&str> = request.uri().path().split('/').skip(2).collect();
    let query = request.uri().query().unwrap_or("");
    let header = |name: &str| {
        request.headers().get_all(name).iter().map(|value| value.to_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let resource = |name: &str, kind: &str| json!({ "name": name, "singularName": "", "namespaced": true, "kind": kind, "verbs": ["get"] });
    let list = |resources: Value| json!({ "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": parts[..2].join("/"), "resources": resources });
    Ok(match parts.as_slice() {
        ["custom.metrics.k8s.io", _] => told(
            200,
            &list(json!([
                resource("pods/requests", "MetricValueList"),
                resource("services/requests", "MetricValueList")
            ])),
        ),
        ["external.metrics.k8s.io", _] => told(200, &list(json!([resource("queue", "ExternalMetricValueList")]))),
        [.., "whoami"] => told(
            200,
            &json!({ "user": header("x-remote-user"), "groups": header("x-remote-group"), "token": header("authorization") }),
        ),
        [.., "elsewhere"] => {
            let moved = Response::builder().status(302).header("location", "https://example.com/");
            moved.body(Full::new(Bytes::new()).boxed()).unwrap()
        }
        [.., "stream"] => {
            let second = stream::once(async move {
                go_on.notified().await;
                Bytes::from_static(b"{\"event\":2}\n")
            });
            let both = stream::once(async { Bytes::from_static(b"{\"event\":1}\n") }).chain(second);
            let body = StreamBody::new(both.map(|chunk| Ok(Frame::data(chunk))));
            Response::new(BodyExt::boxed(body))
        }
        [_, _, "namespaces", namespace, "pods", "*", "requests"] => {
            let all = pods(&client, namespace, query).await;
            let share = WORK * 1000 / i64::try_from(all.len().max(1)).unwrap();
            let items: Vec<Value> = all.iter().map(|pod| value("Pod", &pod.name_any(), share)).collect();
            told(
                200,
                &json!({ "kind": "MetricValueList", "apiVersion": "custom.metrics.k8s.io/v1beta2", "metadata": {}, "items": items }),
            )
        }
        [_, _, "namespaces", _, "services", name, "requests"] => told(
            200,
            &json!({ "kind": "MetricValueList", "apiVersion": "custom.metrics.k8s.io/v1beta2", "metadata": {},
                "items": [value("Service", name, WORK * 1000)] }),
        ),
        ["external.metrics.k8s.io", _, "namespaces", _, "queue"] if query == "labelSelector=topic%3Dorders" => {
            let item = |topic: &str, value: &str| json!({ "metricName": "queue", "metricLabels": { "topic": topic }, "timestamp": "2026-01-01T00:00:00Z", "value": value });
            told(
                200,
                &json!({ "kind": "ExternalMetricValueList", "apiVersion": "external.metrics.k8s.io/v1beta1", "metadata": {},
                "items": [item("orders", "9500m"), item("orders", "2500m")] }),
            )
        }
        _ => told(
            404,
            &json!({ "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 404, "reason": "NotFound",
            "message": format!("the adapter knows nothing of {}", parts.join("/")) }),
        ),
    })
}

fn value(kind: &str, name: &str, milli: i64) -> Value {
    json!({ "describedObject": { "kind": kind, "namespace": "default", "name": name, "apiVersion": "v1" },
        "metric": { "name": "requests" }, "timestamp": "2026-01-01T00:00:00Z", "value": format!("{milli}m") })
}

/// The pods that a label selector of one label selects.
async fn pods(client: &Client, namespace: &str, query: &str) -> Vec<Pod> {
    let selector = query.strip_prefix("labelSelector=").unwrap().replace("%3D", "=");
    let all: Api<Pod> = Api::namespaced(client.clone(), namespace);
    all.list(&ListParams::default().labels(&selector)).await.unwrap().items
}
