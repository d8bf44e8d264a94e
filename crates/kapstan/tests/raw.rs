//! Requests as they go over the wire, for what no client library would send or show.

use std::pin::Pin;
use std::time::Duration;

use futures::{Stream, StreamExt, TryStreamExt};
use http::{Method, Request};
use http_body_util::BodyExt;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};

use crate::cluster::{Cluster, PATIENCE, client};

/// A connection with the administrator's rights.
pub struct Raw {
    client: Client,
}

/// A code and the JSON that came with it.
pub type Answer = (u16, Value);

impl Raw {
    /// Connects to a cluster.
    pub async fn connect(cluster: &Cluster) -> Raw {
        Raw { client: client(cluster).await }
    }

    /// Wraps a client with other rights.
    pub fn of(client: Client) -> Raw {
        Raw { client }
    }

    /// GET.
    pub async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, &[], Vec::new()).await
    }

    /// GET in another form.
    pub async fn get_as(&self, path: &str, accept: &str) -> Answer {
        self.send(Method::GET, path, &[("accept", accept)], Vec::new()).await
    }

    /// POST of JSON.
    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.send(Method::POST, path, &[("content-type", "application/json")], body.to_string().into()).await
    }

    /// PUT of JSON.
    pub async fn put(&self, path: &str, body: Value) -> Answer {
        self.send(Method::PUT, path, &[("content-type", "application/json")], body.to_string().into()).await
    }

    /// PATCH, as a JSON merge patch.
    pub async fn merge(&self, path: &str, body: Value) -> Answer {
        let media = ("content-type", "application/merge-patch+json");
        self.send(Method::PATCH, path, &[media], body.to_string().into()).await
    }

    /// DELETE with options; `null` for none.
    pub async fn delete(&self, path: &str, options: Value) -> Answer {
        let body = if options.is_null() { Vec::new() } else { options.to_string().into() };
        self.send(Method::DELETE, path, &[("content-type", "application/json")], body).await
    }

    /// Any request.
    pub async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self.client.send(request.body(Body::from(body)).unwrap()).await.unwrap();
        let code = response.status().as_u16();
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        let text = || Value::String(String::from_utf8_lossy(&bytes).into_owned());
        (code, serde_json::from_slice(&bytes).unwrap_or_else(|_| text()))
    }

    /// A watch that was granted.
    pub async fn watch(&self, path: &str) -> Events {
        self.watch_as(path, "application/json").await
    }

    /// A watch in another form.
    pub async fn watch_as(&self, path: &str, accept: &str) -> Events {
        let request = Request::builder().uri(path).header("accept", accept).body(Body::empty()).unwrap();
        let response = self.client.send(request).await.unwrap();
        assert_eq!(response.status(), 200, "{path}");
        let chunks = response.into_body().into_data_stream().map_err(std::io::Error::other);
        let reader = tokio_util::io::StreamReader::new(chunks);
        let lines = tokio_util::codec::FramedRead::new(reader, tokio_util::codec::LinesCodec::new());
        Events { lines: lines.map(Result::unwrap).boxed() }
    }

    /// Asks until the answer is as wanted.
    pub async fn until(&self, path: &str, wanted: impl Fn(&Answer) -> bool) -> Value {
        let asking = async {
            loop {
                let answer = self.get(path).await;
                if wanted(&answer) {
                    return answer.1;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        match tokio::time::timeout(PATIENCE, asking).await {
            Ok(value) => value,
            Err(_) => panic!("{path} stays {:?}", self.get(path).await),
        }
    }
}

/// The events of a watch.
pub struct Events {
    lines: Pin<Box<dyn Stream<Item = String> + Send>>,
}

impl Events {
    /// The next event; nothing when the watch is over.
    pub async fn next(&mut self) -> Option<Value> {
        let line = tokio::time::timeout(PATIENCE, self.lines.next()).await.expect("no event came");
        line.map(|line| serde_json::from_str(&line).unwrap())
    }

    /// The next event as `TYPE NAME`.
    pub async fn told(&mut self) -> String {
        let event = self.next().await.expect("the watch is over");
        format!("{} {}", event["type"].as_str().unwrap(), event["object"]["metadata"]["name"].as_str().unwrap_or(""))
    }
}

/// Path of the ConfigMaps in namespace `default`.
pub const MAPS: &str = "/api/v1/namespaces/default/configmaps";
/// Path of the pods in namespace `default`.
pub const PODS: &str = "/api/v1/namespaces/default/pods";
/// Path of the Deployments in namespace `default`.
pub const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
/// Path of the ReplicaSets in namespace `default`.
pub const SETS: &str = "/apis/apps/v1/namespaces/default/replicasets";

/// A ConfigMap with a label.
pub fn map(name: &str, app: &str) -> Value {
    json!({ "metadata": { "name": name, "labels": { "app": app } }, "data": { "a": "b" } })
}

/// A pod of one container.
pub fn pod(name: &str) -> Value {
    json!({ "metadata": { "name": name, "labels": { "app": name } }, "spec": { "containers": [{ "name": "c", "image": "web:v1" }] } })
}

/// A Deployment of web servers.
pub fn deployment(name: &str, replicas: u32) -> Value {
    let labels = json!({ "app": name });
    json!({
        "metadata": { "name": name },
        "spec": {
            "replicas": replicas, "selector": { "matchLabels": labels },
            "template": { "metadata": { "labels": labels }, "spec": { "containers": [{ "name": "c", "image": "web:v1" }] } },
        },
    })
}

/// Names of a list's objects, without the ConfigMap that every namespace has.
pub fn names(list: &Value) -> Vec<&str> {
    let names = list["items"].as_array().unwrap().iter().map(|item| item["metadata"]["name"].as_str().unwrap());
    names.filter(|name| *name != "kube-root-ca.crt").collect()
}

/// `CODE REASON: MESSAGE` of a refusal.
pub fn refusal((code, status): &Answer) -> String {
    format!("{code} {}: {}", status["reason"].as_str().unwrap_or(""), status["message"].as_str().unwrap_or(""))
}
