//! `metrics.k8s.io/v1beta1`: what nodes and pods use, made from the agents' last reports; and the path they report to.
//!
//! Nothing of it is stored. Mirrors metrics-server `pkg/api` (node.go, pod.go, table.go): labels and names are those of
//! the nodes and pods, and one of which nothing recent is known is left out of lists.

use api::kinds::{KindInfo, Scope};
use api::quantity::Amount;
use api::usage::{NodeUsage, PodUsage, Report, Used};
use api::{Kind, Object, Pod, Refusal, Usage};
use axum::extract::Request as HttpRequest;
use axum::response::Response;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::negotiate::Form;
use super::query::Query;
use super::select::Selection;
use super::{Gate, read, reply, write};
use crate::authorize::{Attributes, User, authorize};
use crate::decode;

/// The group.
pub const GROUP: &str = "metrics.k8s.io";
/// Its version.
pub const VERSION: &str = "v1beta1";
/// Nodes in one report.
const REPORTED_NODES: usize = 1_000;

const fn row(kind: &'static str, plural: &'static str, scope: Scope) -> KindInfo {
    KindInfo {
        group: GROUP,
        version: VERSION,
        kind,
        plural,
        singular: "",
        short_names: &[],
        scope,
        subresources: &[],
        categories: &[],
    }
}

/// What is measured, as discovery lists it.
pub static RESOURCES: [KindInfo; 2] =
    [row("NodeMetrics", "nodes", Scope::Cluster), row("PodMetrics", "pods", Scope::Namespaced)];

/// What a path of the group points at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Of nodes or of pods.
    kind: Kind,
    namespace: String,
    /// Empty for a list.
    name: String,
}

impl Target {
    /// Parses what stands behind the version.
    pub fn parse(rest: &[&str]) -> Option<Target> {
        let target = |kind: Kind, namespace: &str, name: &str| {
            Some(Target { kind, namespace: namespace.to_owned(), name: name.to_owned() })
        };
        match *rest {
            ["nodes"] => target(Kind::Node, "", ""),
            ["nodes", name] => target(Kind::Node, "", name),
            ["pods"] => target(Kind::Pod, "", ""),
            ["namespaces", namespace, "pods"] => target(Kind::Pod, namespace, ""),
            ["namespaces", namespace, "pods", name] => target(Kind::Pod, namespace, name),
            _ => None,
        }
    }

    fn info(&self) -> &'static KindInfo {
        &RESOURCES[usize::from(self.kind == Kind::Pod)]
    }
}

/// Answers GET and LIST.
pub fn read(gate: &Gate, user: &User, target: &Target, request: &HttpRequest) -> Result<Response, Refusal> {
    if request.method() != http::Method::GET {
        return Err(Refusal::method_not_allowed());
    }
    let world = gate.snapshot();
    let verb = if target.name.is_empty() { "list" } else { "get" };
    let (info, name, namespace) = (target.info(), &*target.name, &*target.namespace);
    authorize(&world, user, &Attributes { verb, info, subresource: "", namespace, name })?;
    let query = Query::parse(request.uri().query());
    if query.flag("watch") {
        return Err(Refusal::method_not_allowed());
    }
    let form = read::form(request.headers())?;
    let (usage, now) = (gate.measured.usage(), Timestamp::now());
    if name.is_empty() {
        let selection = Selection::parse(target.kind.info(), namespace, &query)?;
        let objects = world.objects(target.kind, selection.namespace.as_deref());
        let samples = objects.filter(|object| selection.matches(object)).filter_map(|it| Sample::of(it, &usage, now));
        let samples: Vec<Sample> = samples.collect();
        return Ok(reply::json(&rendered(target, form, &samples, true)));
    }
    let path = if namespace.is_empty() { name.to_owned() } else { format!("{namespace}/{name}") };
    let object = world.object(target.kind, namespace, name).ok_or_else(|| Refusal::not_found(target.kind, &path))?;
    let sample = Sample::of(object, &usage, now).ok_or_else(|| unmeasured(target, &path))?;
    Ok(reply::json(&rendered(target, form, &[sample], false)))
}

/// Takes in what an agent reports of its nodes, each of which it must be allowed to update the status of.
pub async fn report(gate: &Gate, user: &User, request: HttpRequest) -> Result<Response, Refusal> {
    let body = write::read_body(request.into_body()).await?;
    let reports: Vec<Report> = serde_json::from_value(decode::document(&body)?)
        .map_err(|error| Refusal::bad_request(format!("a report of usage is not readable: {error}")))?;
    if REPORTED_NODES < reports.len() {
        return Err(Refusal::bad_request(format!("a report may tell of {REPORTED_NODES} nodes at most")));
    }
    let world = gate.snapshot();
    for report in &reports {
        let (info, name) = (Kind::Node.info(), &*report.node);
        authorize(&world, user, &Attributes { verb: "update", info, subresource: "status", namespace: "", name })?;
    }
    gate.measured.take(reports, &world);
    Ok(reply::json(&json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success" })))
}

fn unmeasured(target: &Target, path: &str) -> Refusal {
    let resource = target.info().kind.to_lowercase();
    let mut refusal = Refusal::new(404, "NotFound", format!("{resource}.{GROUP} \"{path}\" not found"));
    (refusal.group, refusal.kind, refusal.name) = (GROUP, resource, path.to_owned());
    refusal
}

/// An object with what it uses.
enum Sample<'a> {
    Node(&'a Object, &'a NodeUsage),
    Pod(&'a Object, &'a NodeUsage, &'a PodUsage),
}

impl<'a> Sample<'a> {
    fn of(object: &'a Object, usage: &'a Usage, now: Timestamp) -> Option<Sample<'a>> {
        if object.kind() == Kind::Node {
            return Some(Sample::Node(object, usage.of_node(object.name(), now)?));
        }
        let node = object.get::<Pod>()?.spec.as_ref()?.node_name.as_deref()?;
        let (on, pod) = usage.of_pod(node, object.uid(), now)?;
        Some(Sample::Pod(object, on, pod))
    }

    fn object(&self) -> &Object {
        match self {
            Sample::Node(object, _) | Sample::Pod(object, ..) => object,
        }
    }

    fn taken(&self) -> &NodeUsage {
        match self {
            Sample::Node(_, on) | Sample::Pod(_, on, _) => on,
        }
    }

    fn window(&self) -> SignedDuration {
        match self {
            Sample::Node(_, on) => on.window(),
            Sample::Pod(_, on, pod) => on.window_of(pod),
        }
    }

    fn used(&self) -> Used {
        match self {
            Sample::Node(_, on) => on.used,
            Sample::Pod(_, _, pod) => pod.containers.iter().fold(Used::default(), |sum, container| Used {
                cpu_nano: sum.cpu_nano + container.used.cpu_nano,
                memory_bytes: sum.memory_bytes + container.used.memory_bytes,
            }),
        }
    }

    fn metadata(&self) -> Value {
        let (meta, taken) = (self.object().meta(), self.taken().at());
        let mut metadata = json!({ "name": meta.name, "creationTimestamp": seconds(taken) });
        if let Some(namespace) = meta.namespace.as_deref().filter(|namespace| !namespace.is_empty()) {
            metadata["namespace"] = namespace.into();
        }
        if let Some(labels) = meta.labels.as_ref().filter(|labels| !labels.is_empty()) {
            metadata["labels"] = json!(labels);
        }
        metadata
    }

    /// The object, without `kind` and `apiVersion`, which the items of a list do not have.
    fn value(&self) -> Value {
        let taken = self.taken();
        let mut value = json!({
            "metadata": self.metadata(), "timestamp": seconds(taken.at()), "window": duration(self.window()),
        });
        match self {
            Sample::Node(_, on) => value["usage"] = quantities(on.used),
            Sample::Pod(_, _, pod) => {
                let containers = pod.containers.iter();
                value["containers"] =
                    containers.map(|it| json!({ "name": it.name, "usage": quantities(it.used) })).collect();
            }
        }
        value
    }

    fn row(&self, version: &str) -> Value {
        let used = quantities(self.used());
        let object = json!({
            "kind": "PartialObjectMetadata", "apiVersion": format!("meta.k8s.io/{version}"), "metadata": self.metadata(),
        });
        let cells = json!([self.object().name(), used["cpu"], used["memory"], duration(self.window())]);
        json!({ "cells": cells, "object": object })
    }
}

fn rendered(target: &Target, form: Form, samples: &[Sample], list: bool) -> Value {
    let (kind, api_version) = (target.info().kind, target.info().api_version());
    match form {
        Form::Table(version) => json!({
            "kind": "Table", "apiVersion": format!("meta.k8s.io/{version}"), "metadata": {},
            "columnDefinitions": columns(),
            "rows": samples.iter().map(|sample| sample.row(version)).collect::<Vec<Value>>(),
        }),
        _ if list => json!({
            "kind": format!("{kind}List"), "apiVersion": api_version, "metadata": {},
            "items": samples.iter().map(Sample::value).collect::<Vec<Value>>(),
        }),
        _ => {
            let mut value = samples[0].value();
            value["kind"] = kind.into();
            value["apiVersion"] = api_version.into();
            value
        }
    }
}

fn columns() -> Value {
    let column = |name: &str, format: &str| json!({ "name": name, "type": "string", "format": format, "description": "", "priority": 0 });
    json!([
        column("Name", "name"),
        column("cpu", "quantity"),
        column("memory", "quantity"),
        column("Window", "duration")
    ])
}

fn quantities(used: Used) -> Value {
    let whole = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let cpu = Amount::from_nano(whole(used.cpu_nano)).quantity();
    json!({ "cpu": cpu, "memory": Amount::bytes(whole(used.memory_bytes)).quantity() })
}

fn seconds(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// A length below an hour as Go writes it.
fn duration(length: SignedDuration) -> String {
    let (minutes, rest) = (length.as_secs() / 60, length.as_millis() % 60_000);
    let seconds = format!("{}s", rest as f64 / 1000.0);
    if minutes == 0 { seconds } else { format!("{minutes}m{seconds}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths() {
        let text = |ms: i64| duration(SignedDuration::from_millis(ms));
        assert_eq!([text(15_000), text(10_250), text(61_000)], ["15s", "10.25s", "1m1s"]);
    }

    #[test]
    fn amounts() {
        let text = |cpu_nano, memory_bytes| quantities(Used { cpu_nano, memory_bytes }).to_string();
        assert_eq!(text(1_234_567, 3 << 20), r#"{"cpu":"1234567n","memory":"3Mi"}"#);
        assert_eq!(text(5_000_000, 1025), r#"{"cpu":"5m","memory":"1025"}"#);
    }
}
