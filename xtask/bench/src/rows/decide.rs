//! The time of one decision at several sizes, on a snapshot and without a server: it must grow no faster than the pods.

use std::collections::BTreeSet;
use std::hint::black_box;
use std::time::Instant;

use api::node_fit::only_node;
use api::usage::{ContainerUsage, NodeUsage, PodUsage, Report, Used};
use api::{Body, Context, Heard, Key, Kind, Object, PodSpecs, Snapshot, Usage, Write};
use controllers::{Controller, reconcile};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::Settings;
use crate::figures::{Figure, Unit, percentile};

/// Pods of the set that is decided about.
const SIZES: [usize; 3] = [10, 1_000, 10_000];
/// Decisions for each figure of a run.
const DECISIONS: usize = 50;
/// Decisions after which a world is at rest at the latest: so many pods are made at once.
const ROUNDS: usize = 100;
/// What is decided, by whom, about what. Each story has a namespace of its own, so that none counts the pods of another.
const DECIDED: [(&str, Controller, Kind, &str, &str); 8] = [
    ("Deployment", Controller::Deployment, Kind::Deployment, "web", "web"),
    ("ReplicaSet", Controller::ReplicaSet, Kind::ReplicaSet, "web", "web-h"),
    ("EndpointSlices", Controller::Endpoints, Kind::Service, "web", "web"),
    ("PodDisruptionBudget", Controller::Disruption, Kind::PodDisruptionBudget, "web", "web"),
    ("HorizontalPodAutoscaler", Controller::HorizontalPodAutoscaler, Kind::HorizontalPodAutoscaler, "web", "web"),
    ("StatefulSet", Controller::StatefulSet, Kind::StatefulSet, "db", "db"),
    ("DaemonSet", Controller::DaemonSet, Kind::DaemonSet, "log", "log"),
    ("Job", Controller::Job, Kind::Job, "sum", "sum"),
];

pub fn measure(settings: &Settings) -> Vec<Figure> {
    SIZES.iter().flat_map(|pods| of_size(*pods, settings.runs)).collect()
}

fn of_size(pods: usize, runs: usize) -> Vec<Figure> {
    let world = world(pods);
    let (now, usage, heard) = (Timestamp::UNIX_EPOCH, used(&world), Heard::default());
    let context = Context { now, refused: None, usage: &usage, heard: &heard };
    let world = with_one_change(at_rest(world, &context));
    let one = |(what, who, kind, namespace, name): (&str, Controller, Kind, &str, &str)| {
        let key = Key::new(kind, namespace, name);
        let times: Vec<f64> = (0..DECISIONS * runs)
            .map(|_| {
                let begun = Instant::now();
                black_box(reconcile(who, black_box(&key), black_box(&world), &context));
                begun.elapsed().as_secs_f64()
            })
            .collect();
        Figure::new(&format!("{what}, {pods} pods"), percentile(&times, 50.0), Unit::Seconds)
    };
    DECIDED.map(one).into()
}

/// What the pods of the world use: half of what they request.
fn used(world: &Snapshot) -> Usage {
    let mut usage = Usage::default();
    for node in world.objects(Kind::Node, None) {
        let pods = world.pod_objects_on(node.name(), None).map(|pod| {
            let used = Used { cpu_nano: 50_000_000, memory_bytes: 0 };
            PodUsage {
                uid: pod.uid().to_owned(),
                window_ms: None,
                containers: vec![ContainerUsage { name: "web".into(), used }],
            }
        });
        let (at_ms, window_ms, pods) = (0, 15_000, pods.collect());
        usage.take(Report {
            node: node.name().to_owned(),
            usage: NodeUsage { at_ms, window_ms, used: Used::default(), pods },
        });
    }
    usage
}

/// The world once all that is decided is written, and every pod that was made is ready on its node.
fn at_rest(mut world: Snapshot, context: &Context) -> Snapshot {
    let mut specs = PodSpecs::default();
    for (_, who, kind, namespace, name) in DECIDED {
        let key = Key::new(kind, namespace, name);
        for _ in 0..ROUNDS {
            let before = world.revision();
            for write in reconcile(who, &key, &world, context).writes {
                let number = world.revision() + 1;
                let body = match write {
                    Write::Create(body) => made(body, namespace, number),
                    Write::Update(body) | Write::Status(body) => body,
                    _ => continue,
                };
                let mut body = body;
                specs.share(&mut body);
                world.put(Object::written(body, number));
            }
            if world.revision() == before {
                break;
            }
        }
    }
    world
}

/// What a decision made, as it is once the door and a node have seen it.
fn made(mut body: Body, namespace: &str, number: u64) -> Body {
    let meta = body.meta_mut();
    if let (None, Some(prefix)) = (&meta.name, &meta.generate_name) {
        meta.name = Some(format!("{prefix}{number}"));
    }
    meta.namespace = Some(namespace.to_owned());
    meta.uid = Some(format!("uid-{number}"));
    meta.creation_timestamp = serde_json::from_value(json!(Timestamp::UNIX_EPOCH)).ok();
    let Body::Pod(pod) = &mut body else { return body };
    let spec = pod.spec.get_or_insert_default();
    let affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let required = affinity.and_then(|it| it.required_during_scheduling_ignored_during_execution.as_ref());
    let node = required.and_then(only_node).map_or_else(|| format!("node-{}", number % 100), str::to_owned);
    spec.node_name = Some(node);
    pod.status = serde_json::from_value(running(number)).ok();
    body
}

fn running(number: u64) -> Value {
    // Long ago: what a pod uses while it starts says nothing to an autoscaler.
    let began = Timestamp::UNIX_EPOCH - SignedDuration::from_hours(1);
    let ready = json!({ "type": "Ready", "status": "True", "lastTransitionTime": began });
    json!({ "phase": "Running", "startTime": began, "podIP": format!("10.244.{}.{}", number / 250, number % 250 + 1), "conditions": [ready] })
}

/// The world after one pod of each story stopped being ready: what is decided is what has to be written about that.
fn with_one_change(mut world: Snapshot) -> Snapshot {
    for namespace in BTreeSet::from(DECIDED.map(|(.., namespace, _)| namespace)) {
        let pod = world.objects(Kind::Pod, Some(namespace)).next().expect("there is at least one pod");
        let mut body = pod.body.clone();
        let Body::Pod(pod) = &mut body else { unreachable!("it was found among pods") };
        let conditions = pod.status.iter_mut().flat_map(|status| status.conditions.iter_mut().flatten());
        conditions.for_each(|condition| condition.status = "False".into());
        world.put(Object::written(body, world.revision() + 1));
    }
    world
}

/// All that is decided about; each story is to have so many pods.
fn world(pods: usize) -> Snapshot {
    let mut world = Snapshot::default();
    let mut specs = PodSpecs::default();
    let mut put = |kind: Kind, value: Value| {
        let mut body = kind.decode(value).expect("written here as the kind has it");
        specs.share(&mut body);
        world.put(Object::written(body, world.revision() + 1));
    };
    web(pods, &mut put);
    others(pods, &mut put);
    world
}

fn meta(namespace: &str, name: &str, labels: &Value, owner: Value) -> Value {
    json!({ "name": name, "namespace": namespace, "uid": format!("uid-{name}"), "generation": 1, "labels": labels,
            "creationTimestamp": Timestamp::UNIX_EPOCH, "ownerReferences": owner })
}

/// A StatefulSet, an indexed Job, and a DaemonSet with as many nodes. They make their pods themselves.
fn others(pods: usize, put: &mut dyn FnMut(Kind, Value)) {
    let spec = |name: &str, rest: Value| {
        let labels = json!({ "app": name });
        let containers = json!([{ "name": "c", "image": format!("{name}:v1") }]);
        let mut spec = json!({ "selector": { "matchLabels": labels },
            "template": { "metadata": { "labels": labels }, "spec": { "containers": containers, "restartPolicy": "Always" } } });
        spec.as_object_mut().expect("it is one").extend(rest.as_object().cloned().unwrap_or_default());
        json!({ "metadata": meta(name, name, &labels, json!([])), "spec": spec })
    };
    put(
        Kind::StatefulSet,
        spec(
            "db",
            json!({ "replicas": pods, "serviceName": "db", "podManagementPolicy": "Parallel",
            "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": { "partition": 0 } } }),
        ),
    );
    let rolling = json!({ "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": 1, "maxSurge": 0 } });
    put(Kind::DaemonSet, spec("log", json!({ "updateStrategy": rolling })));
    put(
        Kind::Job,
        spec(
            "sum",
            json!({ "completions": pods, "parallelism": pods, "completionMode": "Indexed", "backoffLimit": 6, "suspend": false }),
        ),
    );
    for number in 0..pods {
        let name = format!("node-{number}");
        put(
            Kind::Node,
            json!({ "metadata": { "name": name, "uid": name, "labels": { "kubernetes.io/hostname": name } },
                "status": { "conditions": [{ "type": "Ready", "status": "True" }] } }),
        );
    }
}

/// A Deployment, its ReplicaSet, so many ready pods, a Service, a budget and an autoscaler.
fn web(pods: usize, put: &mut dyn FnMut(Kind, Value)) {
    let labels = json!({ "app": "web", "pod-template-hash": "h" });
    let meta = |name: &str, owner: Value| meta("web", name, &labels, owner);
    let owner = |kind: &str, name: &str| json!([{ "apiVersion": "apps/v1", "kind": kind, "name": name, "uid": format!("uid-{name}"), "controller": true }]);
    let resources = json!({ "requests": { "cpu": "100m" } });
    let containers =
        json!([{ "name": "web", "image": "web:v1", "ports": [{ "containerPort": 80 }], "resources": resources }]);
    let template = json!({ "metadata": { "labels": labels }, "spec": { "containers": containers } });
    let selector = json!({ "matchLabels": labels });
    put(
        Kind::Deployment,
        json!({ "metadata": meta("web", json!([])), "spec": {
            "replicas": pods, "selector": { "matchLabels": { "app": "web" } }, "template": template,
            "strategy": { "type": "RollingUpdate", "rollingUpdate": { "maxSurge": "25%", "maxUnavailable": "25%" } },
        }}),
    );
    put(
        Kind::ReplicaSet,
        json!({ "metadata": meta("web-h", owner("Deployment", "web")),
        "spec": { "replicas": pods, "selector": selector, "template": template },
        "status": { "replicas": pods, "readyReplicas": pods, "availableReplicas": pods, "observedGeneration": 1 } }),
    );
    put(
        Kind::Service,
        json!({ "metadata": meta("web", json!([])), "spec": { "selector": { "app": "web" },
        "clusterIP": "10.96.0.10", "ports": [{ "port": 80, "protocol": "TCP", "targetPort": 80 }] } }),
    );
    let selected = json!({ "selector": { "matchLabels": { "app": "web" } }, "maxUnavailable": 1 });
    put(Kind::PodDisruptionBudget, json!({ "metadata": meta("web", json!([])), "spec": selected }));
    let half = json!({ "type": "Resource", "resource": { "name": "cpu",
        "target": { "type": "Utilization", "averageUtilization": 50 } } });
    put(
        Kind::HorizontalPodAutoscaler,
        json!({ "metadata": meta("web", json!([])), "spec": { "minReplicas": 1, "maxReplicas": 2 * pods, "metrics": [half],
            "scaleTargetRef": { "apiVersion": "apps/v1", "kind": "Deployment", "name": "web" } } }),
    );
    for number in 0..pods {
        put(
            Kind::Pod,
            json!({ "metadata": meta(&format!("web-h-{number}"), owner("ReplicaSet", "web-h")),
            "spec": { "nodeName": format!("node-{}", number % 100), "containers": containers },
            "status": running(number as u64) }),
        );
    }
}
