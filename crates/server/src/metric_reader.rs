//! Asks the metrics APIs what autoscalers want to know, outside of the turns that decide.
//!
//! Every quarter of a minute, and at once when an autoscaler wants to know something new. The questions go the way of any
//! client's, through authorisation and to the server of the API, in the name of upstream's controller, whose rights
//! adapters' manifests speak of; the answers are kept in memory ([`crate::measured`]). Mirrors `k8s.io/metrics`
//! `pkg/client/{custom_metrics,external_metrics}`, whose words the errors have.

use std::collections::BTreeSet;
use std::time::Duration;

use api::Kind;
use api::metric::{About, Query, Reading, Value};
use api::quantity::Amount;
use futures::StreamExt;
use http::StatusCode;
use jiff::Timestamp;
use serde_json::Value as Json;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::aggregate::Extension;
use crate::authorize::User;
use crate::http::{Gate, ask, percent_encoded};

const CUSTOM: &str = "custom.metrics.k8s.io";
const EXTERNAL: &str = "external.metrics.k8s.io";
/// Versions of the API of custom metrics that are understood.
const CUSTOM_VERSIONS: [&str; 2] = ["v1beta2", "v1beta1"];
const EXTERNAL_VERSION: &str = "v1beta1";
/// How often everything is asked: as often as autoscalers decide.
const PERIOD: Duration = Duration::from_secs(15);
/// Longest time an answer may take.
const ANSWER: Duration = Duration::from_secs(10);
/// Questions on their way at once.
const AT_ONCE: usize = 16;

/// In whose name is asked.
fn autoscaler() -> User {
    let groups = ["system:serviceaccounts", "system:serviceaccounts:kube-system", "system:authenticated"];
    User {
        name: "system:serviceaccount:kube-system:horizontal-pod-autoscaler".into(),
        groups: groups.map(str::to_owned).to_vec(),
        ..User::default()
    }
}

/// Asks until the server stops.
pub async fn keep_asking(gate: Gate, mut stopping: watch::Receiver<bool>) {
    let mut autoscalers = gate.published.follow(Kind::HorizontalPodAutoscaler);
    let mut asked: BTreeSet<Query> = BTreeSet::new();
    let mut due = Instant::now();
    loop {
        autoscalers.borrow_and_update();
        let wanted = controllers::metric_queries(&gate.published.snapshot());
        let all = due <= Instant::now();
        if all {
            due = Instant::now() + PERIOD;
        }
        let now: Vec<Query> = wanted.iter().filter(|query| all || !asked.contains(*query)).cloned().collect();
        asked = wanted;
        gate.measured.retain_readings(&asked);
        let questions: Vec<_> = now.into_iter().map(|query| read_one(gate.clone(), query)).collect();
        futures::stream::iter(questions).buffer_unordered(AT_ONCE).collect::<()>().await;
        let ended = tokio::select! {
            changed = autoscalers.changed() => changed.is_err(),
            () = tokio::time::sleep_until(due), if !asked.is_empty() => false,
            _ = stopping.wait_for(|stopping| *stopping) => true,
        };
        if ended {
            return;
        }
    }
}

async fn read_one(gate: Gate, query: Query) {
    let reading = read(&gate, &query).await;
    gate.measured.read(query, reading);
}

async fn read(gate: &Gate, query: &Query) -> Reading {
    let at = Timestamp::now();
    let api = if query.about == About::External { "external" } else { "custom" };
    let values = match Question::of(query, &gate.extensions()) {
        Err(error) => Err(error),
        Ok(question) => match tokio::time::timeout(ANSWER, ask(gate, autoscaler(), &question.path)).await {
            Err(_) => Err("the server was unable to return a response in the time allotted".into()),
            Ok(Err(error)) => Err(error),
            Ok(Ok((code, body))) => question.answered(code, &body),
        },
    };
    Reading { at, values: values.map_err(|error| format!("unable to fetch metrics from {api} metrics API: {error}")) }
}

/// A question as a request.
#[derive(Debug, PartialEq, Eq)]
struct Question {
    path: String,
    /// What errors name: resource with group, and name.
    about: String,
}

impl Question {
    fn of(query: &Query, extensions: &[Extension]) -> Result<Question, String> {
        let Query { namespace, metric, selector, about } = query;
        let [space, of] = [namespace, metric].map(|text| percent_encoded(text));
        let (group, version) = match about {
            About::External => (EXTERNAL, EXTERNAL_VERSION),
            _ => (CUSTOM, custom_version(extensions)?),
        };
        let base = format!("/apis/{group}/{version}/namespaces/{space}");
        let (path, resource, name) = match about {
            About::Pods(pods) => {
                let path = format!("{base}/pods/*/{of}");
                (parameters(path, &[("labelSelector", pods), ("metricLabelSelector", selector)]), "pods".into(), "*")
            }
            About::Object { group, kind, .. } if group.is_empty() && kind == "Namespace" => {
                let path = format!("{base}/metrics/{of}");
                (parameters(path, &[("metricLabelSelector", selector)]), "metrics".into(), metric.as_str())
            }
            About::Object { group, kind, name } => {
                let resource = resource(group, kind, extensions)?;
                let path = format!("{base}/{resource}/{}/{of}", percent_encoded(name));
                (parameters(path, &[("metricLabelSelector", selector)]), resource, name.as_str())
            }
            About::External => (parameters(format!("{base}/{of}"), &[("labelSelector", selector)]), metric.clone(), ""),
        };
        let space = if name.is_empty() { "" } else { " " };
        Ok(Question { path, about: format!("{resource}.{group}{space}{name}") })
    }

    /// The values in an answer, or why there are none (upstream: `api/errors: NewGenericServerResponse`).
    fn answered(&self, code: StatusCode, body: &[u8]) -> Result<Vec<Value>, String> {
        let document: Json = serde_json::from_slice(body).unwrap_or_default();
        if code.is_success() {
            let items = document["items"].as_array().ok_or("the answer is not a list of values")?;
            return items.iter().map(value).collect();
        }
        if document["kind"] == "Status"
            && let Some(message) = document["message"].as_str().filter(|message| !message.is_empty())
        {
            return Err(message.to_owned());
        }
        let text = String::from_utf8_lossy(body);
        let told = match code {
            StatusCode::NOT_FOUND => "the server could not find the requested resource".to_owned(),
            StatusCode::SERVICE_UNAVAILABLE => "the server is currently unable to handle the request".to_owned(),
            StatusCode::TOO_MANY_REQUESTS => {
                "the server has received too many requests and has asked us to try again later".to_owned()
            }
            StatusCode::UNAUTHORIZED => "the server has asked for the client to provide credentials".to_owned(),
            StatusCode::FORBIDDEN => text.trim().to_owned(),
            StatusCode::GATEWAY_TIMEOUT => {
                "the server was unable to return a response in the time allotted, but may still be processing the request"
                    .to_owned()
            }
            code if code.is_server_error() => {
                format!("an error on the server ({:?}) has prevented the request from succeeding", text.trim())
            }
            code => format!("the server responded with the status code {} but did not return more information", code.as_u16()),
        };
        Err(format!("{told} (get {})", self.about))
    }
}

/// Upstream's preferred version: the group's first that is understood.
fn custom_version(extensions: &[Extension]) -> Result<&'static str, String> {
    let mut served = extensions.iter().filter(|extension| extension.group == CUSTOM).peekable();
    if served.peek().is_none() {
        return Err(format!("no custom metrics API ({CUSTOM}) registered"));
    }
    let known = served.find_map(|extension| CUSTOM_VERSIONS.into_iter().find(|version| *version == extension.version));
    known.ok_or_else(|| "no known available metric versions found".into())
}

/// The resource that objects of a kind are, with its group: `deployments.apps`.
fn resource(group: &str, kind: &str, extensions: &[Extension]) -> Result<String, String> {
    let own = Kind::ALL.iter().map(|own| own.info()).find(|info| info.group == group && info.kind == kind);
    if let Some(info) = own {
        return Ok(info.resource());
    }
    let of_group = extensions.iter().filter(|extension| extension.group == group);
    let mut resources = of_group.flat_map(|extension| &extension.discovered.resources);
    let found = resources.find_map(|it| it["name"].as_str().filter(|name| it["kind"] == kind && !name.contains('/')));
    found.map(|plural| format!("{plural}.{group}")).ok_or_else(|| {
        let called = if group.is_empty() { kind.to_owned() } else { format!("{kind}.{group}") };
        format!("unable to map kind {called} to resource: no matches for kind {kind:?} in group {group:?}")
    })
}

fn parameters(path: String, given: &[(&str, &String)]) -> String {
    let given = given.iter().filter(|(_, value)| !value.is_empty());
    let list: Vec<String> = given.map(|(name, value)| format!("{name}={}", percent_encoded(value))).collect();
    if list.is_empty() { path } else { format!("{path}?{}", list.join("&")) }
}

fn value(item: &Json) -> Result<Value, String> {
    let text = match &item["value"] {
        Json::String(text) => text.clone(),
        other => other.to_string(),
    };
    let amount = Amount::parse(&text).map_err(|error| format!("the value {text:?} is not a quantity: {error}"))?;
    let object = item["describedObject"]["name"].as_str().unwrap_or("").to_owned();
    Ok(Value { object, milli: amount.milli() })
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use serde_json::json;

    use super::*;

    fn extension(group: &str, version: &str) -> Extension {
        Extension { group: group.into(), version: version.into(), discovered: Default::default() }
    }

    fn query(metric: &str, selector: &str, about: About) -> Query {
        Query { namespace: "d".into(), metric: metric.into(), selector: selector.into(), about }
    }

    fn object(group: &str, kind: &str) -> About {
        About::Object { group: group.into(), kind: kind.into(), name: "main".into() }
    }

    #[test]
    fn where_is_asked() {
        let both = [extension(CUSTOM, "v1beta2"), extension(CUSTOM, "v1beta1")];
        let mut others = extension("example.com", "v1");
        others.discovered.resources = vec![json!({ "name": "queues", "kind": "Queue" })];
        let with_others = [extension(CUSTOM, "v1beta1"), others];
        let cases: [(Query, &[Extension]); 10] = [
            (query("requests", "", About::Pods("app=web,tier in (a,b)".into())), &both),
            (query("requests", "verb=GET", About::Pods("app=web".into())), &both[1..]),
            (query("requests", "verb=GET", object("apps", "Deployment")), &both),
            (query("requests", "", object("", "Service")), &both),
            (query("requests", "", object("", "Namespace")), &both),
            (query("length", "", object("example.com", "Queue")), &with_others),
            (query("length", "", object("example.com", "Topic")), &both),
            (query("queue|length", "queue=a", About::External), &[]),
            (query("requests", "", object("", "Service")), &[]),
            (query("requests", "", object("", "Service")), &[extension(CUSTOM, "v9")]),
        ];
        let shown: String = cases
            .iter()
            .map(|(query, extensions)| match Question::of(query, extensions) {
                Ok(question) => format!("{} (get {})\n", question.path, question.about),
                Err(error) => format!("{error}\n"),
            })
            .collect();
        expect![[r#"
            /apis/custom.metrics.k8s.io/v1beta2/namespaces/d/pods/*/requests?labelSelector=app%3Dweb%2Ctier%20in%20%28a%2Cb%29 (get pods.custom.metrics.k8s.io *)
            /apis/custom.metrics.k8s.io/v1beta1/namespaces/d/pods/*/requests?labelSelector=app%3Dweb&metricLabelSelector=verb%3DGET (get pods.custom.metrics.k8s.io *)
            /apis/custom.metrics.k8s.io/v1beta2/namespaces/d/deployments.apps/main/requests?metricLabelSelector=verb%3DGET (get deployments.apps.custom.metrics.k8s.io main)
            /apis/custom.metrics.k8s.io/v1beta2/namespaces/d/services/main/requests (get services.custom.metrics.k8s.io main)
            /apis/custom.metrics.k8s.io/v1beta2/namespaces/d/metrics/requests (get metrics.custom.metrics.k8s.io requests)
            /apis/custom.metrics.k8s.io/v1beta1/namespaces/d/queues.example.com/main/length (get queues.example.com.custom.metrics.k8s.io main)
            unable to map kind Topic.example.com to resource: no matches for kind "Topic" in group "example.com"
            /apis/external.metrics.k8s.io/v1beta1/namespaces/d/queue%7Clength?labelSelector=queue%3Da (get queue|length.external.metrics.k8s.io)
            no custom metrics API (custom.metrics.k8s.io) registered
            no known available metric versions found
        "#]].assert_eq(&shown);
    }

    #[test]
    fn what_is_answered() {
        let question = Question { path: String::new(), about: "pods.custom.metrics.k8s.io *".into() };
        let list = json!({ "items": [
            { "describedObject": { "name": "a" }, "metricName": "requests", "value": "1500m" },
            { "describedObject": { "name": "b" }, "metric": { "name": "requests" }, "value": "2k" },
            { "metricName": "length", "value": 7 },
        ] });
        let status = json!({ "kind": "Status", "message": "the server could not find the metric requests for pods" });
        let cases: [(u16, String); 8] = [
            (200, list.to_string()),
            (200, json!({ "items": [{ "value": "many" }] }).to_string()),
            (200, "hello".into()),
            (404, status.to_string()),
            (404, "404 page not found".into()),
            (503, "service unavailable\n".into()),
            (500, "boom".into()),
            (418, String::new()),
        ];
        let shown: String = cases
            .iter()
            .map(|(code, body)| match question.answered(StatusCode::from_u16(*code).unwrap(), body.as_bytes()) {
                Ok(values) => {
                    values.iter().map(|it| format!("{}={}m ", it.object, it.milli)).collect::<String>() + "\n"
                }
                Err(error) => format!("{error}\n"),
            })
            .collect();
        expect![[r#"
            a=1500m b=2000000m =7000m 
            the value "many" is not a quantity: quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'
            the answer is not a list of values
            the server could not find the metric requests for pods
            the server could not find the requested resource (get pods.custom.metrics.k8s.io *)
            the server is currently unable to handle the request (get pods.custom.metrics.k8s.io *)
            an error on the server ("boom") has prevented the request from succeeding (get pods.custom.metrics.k8s.io *)
            the server responded with the status code 418 but did not return more information (get pods.custom.metrics.k8s.io *)
        "#]].assert_eq(&shown);
    }
}
