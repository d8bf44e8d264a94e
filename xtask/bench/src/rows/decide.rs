//! The time of one decision at several sizes, on a snapshot and without a server: it must grow no faster than the pods.

use std::hint::black_box;
use std::time::Instant;

use api::{Body, Context, Heard, Key, Kind, Object, PodSpecs, Snapshot, Usage, Write};
use controllers::{Controller, reconcile};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::Settings;
use crate::figures::{Figure, Unit, percentile};

/// Pods of the set that is decided about.
const SIZES: [usize; 3] = [10, 1_000, 10_000];
/// Decisions for each figure of a run.
const DECISIONS: usize = 50;
/// What is decided, by whom, about what.
const DECIDED: [(&str, Controller, Kind, &str); 3] = [
    ("Deployment", Controller::Deployment, Kind::Deployment, "web"),
    ("ReplicaSet", Controller::ReplicaSet, Kind::ReplicaSet, "web-h"),
    ("EndpointSlices", Controller::Endpoints, Kind::Service, "web"),
];

pub fn measure(settings: &Settings) -> Vec<Figure> {
    SIZES.iter().flat_map(|pods| of_size(*pods, settings.runs)).collect()
}

fn of_size(pods: usize, runs: usize) -> Vec<Figure> {
    let (now, usage, heard) = (Timestamp::UNIX_EPOCH, Usage::default(), Heard::default());
    let context = Context { now, refused: None, usage: &usage, heard: &heard };
    let world = with_one_change(at_rest(world(pods), &context));
    let one = |(what, who, kind, name): (&str, Controller, Kind, &str)| {
        let key = Key::new(kind, "default", name);
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

/// The world once all that is decided is written.
fn at_rest(mut world: Snapshot, context: &Context) -> Snapshot {
    for (_, who, kind, name) in DECIDED {
        let key = Key::new(kind, "default", name);
        for (number, write) in reconcile(who, &key, &world, context).writes.into_iter().enumerate() {
            let (Write::Create(mut body) | Write::Update(mut body) | Write::Status(mut body)) = write else { continue };
            let meta = body.meta_mut();
            if let (None, Some(prefix)) = (&meta.name, &meta.generate_name) {
                meta.name = Some(format!("{prefix}{number}"));
            }
            world.put(Object::written(body, world.revision() + 1));
        }
    }
    world
}

/// The world after one pod stopped being ready: what is decided is what has to be written about that.
fn with_one_change(mut world: Snapshot) -> Snapshot {
    let pod = world.object(Kind::Pod, "default", "web-h-0").expect("there is at least one pod");
    let mut body = pod.body.clone();
    let Body::Pod(pod) = &mut body else { unreachable!("it was found among pods") };
    let conditions = pod.status.iter_mut().flat_map(|status| status.conditions.iter_mut().flatten());
    conditions.for_each(|condition| condition.status = "False".into());
    world.put(Object::written(body, world.revision() + 1));
    world
}

/// A Deployment, its ReplicaSet, so many ready pods and a Service.
fn world(pods: usize) -> Snapshot {
    let mut world = Snapshot::default();
    let labels = json!({ "app": "web", "pod-template-hash": "h" });
    let meta = |name: &str, owner: Value| {
        json!({ "name": name, "namespace": "default", "uid": format!("uid-{name}"), "generation": 1, "labels": labels,
                "creationTimestamp": Timestamp::UNIX_EPOCH, "ownerReferences": owner })
    };
    let owner = |kind: &str, name: &str| json!([{ "apiVersion": "apps/v1", "kind": kind, "name": name, "uid": format!("uid-{name}"), "controller": true }]);
    let containers = json!([{ "name": "web", "image": "web:v1", "ports": [{ "containerPort": 80 }] }]);
    let template = json!({ "metadata": { "labels": labels }, "spec": { "containers": containers } });
    let selector = json!({ "matchLabels": labels });
    let mut specs = PodSpecs::default();
    let mut put = |kind: Kind, value: Value| {
        let mut body = kind.decode(value).expect("written here as the kind has it");
        specs.share(&mut body);
        world.put(Object::written(body, world.revision() + 1));
    };
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
    for number in 0..pods {
        let ready = json!({ "type": "Ready", "status": "True", "lastTransitionTime": Timestamp::UNIX_EPOCH });
        put(
            Kind::Pod,
            json!({ "metadata": meta(&format!("web-h-{number}"), owner("ReplicaSet", "web-h")),
            "spec": { "nodeName": format!("node-{}", number % 100), "containers": containers },
            "status": { "phase": "Running", "podIP": format!("10.244.{}.{}", number / 250, number % 250 + 1),
                "conditions": [ready] } }),
        );
    }
    world
}
