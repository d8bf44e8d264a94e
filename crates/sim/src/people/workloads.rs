//! The workloads that are no Deployments, and what people do with them.
//!
//! A run has a random part of the kinds, one object of each, under a name of its own.

use api::patch::PatchType;
use api::{Key, Kind, Object, Pod, Propagation, Snapshot};
use bytes::Bytes;
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{PodTemplateSpec, ReplicationController};
use rand::Rng;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use server::door::Part;

use super::{NAMESPACE, create, delete, image_tag, patch_letter, pick, service};
use crate::facts;
use crate::faults::Faults;
use crate::letters::{Ask, Letter};
use crate::volumes;

/// The kinds and the name of the one object that a run has of each.
const KINDS: [(Kind, &str); 5] = [
    (Kind::DaemonSet, "log"),
    (Kind::StatefulSet, "db"),
    (Kind::Job, "sum"),
    (Kind::CronJob, "tick"),
    (Kind::ReplicationController, "old"),
];
/// Most pods of one of them.
const MOST_REPLICAS: i32 = 4;

/// All that people know of them.
#[derive(Default)]
pub struct Workloads {
    kinds: Vec<(Kind, &'static str)>,
    edits: u32,
}

impl Workloads {
    /// A random part of the kinds.
    pub fn some(random: &mut StdRng) -> Workloads {
        let kinds = KINDS.into_iter().filter(|_| random.random_ratio(1, 4)).collect();
        Workloads { kinds, edits: 0 }
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.kinds.is_empty()
    }

    /// True if something is to happen every minute.
    pub fn has_schedule(&self) -> bool {
        self.kinds.iter().any(|(kind, _)| *kind == Kind::CronJob)
    }

    /// What is made first.
    pub fn first(&self, random: &mut StdRng) -> Vec<Letter> {
        let mut letters = Vec::new();
        for (kind, name) in &self.kinds {
            if *kind == Kind::StatefulSet {
                letters.push(service(NAMESPACE, name));
            }
            letters.push(make(*kind, NAMESPACE, name, random));
        }
        letters
    }

    /// What people do next with one of them.
    pub fn act(&mut self, world: &Snapshot, faults: &Faults, random: &mut StdRng) -> Vec<Letter> {
        let Some((kind, name)) = pick(&self.kinds, random) else { return Vec::new() };
        let Some(object) = world.object(kind, NAMESPACE, name) else {
            return vec![make(kind, NAMESPACE, name, random)];
        };
        let how = pick(&[None, None, Some(Propagation::Orphan), Some(Propagation::Foreground)], random).flatten();
        match random.random_range(0..12) {
            0 if faults.deletes && kind == Kind::StatefulSet && random.random_bool(0.5) => {
                volumes::delete_a_claim(world, random).into_iter().collect()
            }
            0 if faults.deletes => vec![delete(object.key(), how)],
            1 if faults.deletes => vec![delete(object.key(), how), make(kind, NAMESPACE, name, random)],
            2 | 3 if faults.terms => terms(object, random).into_iter().collect(),
            4 => undo(object, world, random).into_iter().collect(),
            5..=8 => self.edit(object, faults, random).into_iter().collect(),
            _ => scale(object, random).into_iter().collect(),
        }
    }

    fn edit(&mut self, object: &Object, faults: &Faults, random: &mut StdRng) -> Option<Letter> {
        self.edits += 1;
        let tag = image_tag(self.edits, faults, random);
        if object.kind() == Kind::CronJob {
            return Some(reschedule(object, random));
        }
        set_image(object, &format!("{}:{tag}", object.name()))
    }
}

/// A new object of a kind.
pub fn make(kind: Kind, namespace: &str, name: &str, random: &mut StdRng) -> Letter {
    let spec = match kind {
        Kind::DaemonSet => daemon_set(name, random),
        Kind::StatefulSet => stateful_set(name, random),
        Kind::Job => job(name, random),
        Kind::CronJob => cron_job(name, random),
        _ => json!({
            "replicas": random.random_range(0..=MOST_REPLICAS), "selector": { "app": name },
            "template": template(name, "g0", random),
        }),
    };
    create(namespace, kind, json!({ "metadata": { "name": name }, "spec": spec }), "makes")
}

/// The template of something that serves.
fn template(name: &str, tag: &str, random: &mut StdRng) -> Value {
    json!({
        "metadata": { "labels": { "app": name } },
        "spec": {
            // Never 0: a pod without grace is gone from the API before it is from its node, and its name may run twice.
            "terminationGracePeriodSeconds": pick(&[1, 3, 20], random),
            "containers": [{
                "name": "c", "image": format!("{name}:{tag}"), "resources": { "requests": { "cpu": "10m" } },
                "readinessProbe": { "tcpSocket": { "port": 80 }, "failureThreshold": 1, "periodSeconds": 5 },
            }],
        },
    })
}

/// The template of something that ends: well (`d`), badly (`c`), either way (`f`) or after long (`l`).
fn task(name: &str, tags: &[&str], random: &mut StdRng) -> Value {
    json!({
        "metadata": { "labels": { "app": name } },
        "spec": {
            "terminationGracePeriodSeconds": pick(&[0, 3], random), "restartPolicy": "Never",
            "containers": [{
                "name": "c", "image": format!("{name}:{}", pick(tags, random).unwrap_or("d")),
                "resources": { "requests": { "cpu": "10m" } },
            }],
        },
    })
}

fn daemon_set(name: &str, random: &mut StdRng) -> Value {
    json!({
        "selector": { "matchLabels": { "app": name } }, "template": template(name, "g0", random),
        "minReadySeconds": pick(&[0, 0, 5], random), "revisionHistoryLimit": pick(&[0, 1, 10], random),
        "updateStrategy": daemon_strategy(random),
    })
}

fn daemon_strategy(random: &mut StdRng) -> Value {
    let rolling = match random.random_range(0..6) {
        0 => return json!({ "type": "OnDelete", "rollingUpdate": null }),
        1 => json!({ "maxUnavailable": 2, "maxSurge": 0 }),
        2 => json!({ "maxUnavailable": "50%", "maxSurge": 0 }),
        3 => json!({ "maxUnavailable": 0, "maxSurge": 1 }),
        4 => json!({ "maxUnavailable": 0, "maxSurge": "50%" }),
        _ => json!({ "maxUnavailable": 1, "maxSurge": 0 }),
    };
    json!({ "type": "RollingUpdate", "rollingUpdate": rolling })
}

fn stateful_set(name: &str, random: &mut StdRng) -> Value {
    let mut spec = json!({
        "serviceName": name, "replicas": random.random_range(0..=MOST_REPLICAS),
        "podManagementPolicy": pick(&["OrderedReady", "OrderedReady", "Parallel"], random),
        "ordinals": { "start": pick(&[0, 0, 3], random) },
        "selector": { "matchLabels": { "app": name } }, "template": template(name, "g0", random),
        "minReadySeconds": pick(&[0, 0, 5], random), "revisionHistoryLimit": pick(&[0, 1, 10], random),
        "updateStrategy": stateful_strategy(random),
    });
    volumes::add_claims(&mut spec, random);
    spec
}

fn stateful_strategy(random: &mut StdRng) -> Value {
    if random.random_ratio(1, 6) {
        return json!({ "type": "OnDelete", "rollingUpdate": null });
    }
    let rolling = json!({
        "partition": pick(&[0, 0, 0, 1, 2], random), "maxUnavailable": pick(&[1, 1, 2], random),
    });
    json!({ "type": "RollingUpdate", "rollingUpdate": rolling })
}

fn job(name: &str, random: &mut StdRng) -> Value {
    let mut spec = json!({
        "parallelism": random.random_range(1..=3), "completions": random.random_range(1..=5),
        "backoffLimit": pick(&[0, 2, 6], random),
        "suspend": random.random_ratio(1, 8), "template": task(name, &["d", "d", "f", "f", "c", "p"], random),
    });
    let mut set = |field: &str, value: Value| spec[field] = value;
    match random.random_range(0..6) {
        0 | 1 => set("completionMode", json!("Indexed")),
        2 => {
            set("completionMode", json!("Indexed"));
            set("backoffLimitPerIndex", json!(1));
            set("maxFailedIndexes", json!(pick(&[None, Some(0), Some(1)], random).flatten()));
        }
        3 => set("completions", Value::Null),
        _ => {}
    }
    if random.random_ratio(1, 3) {
        set("podReplacementPolicy", json!("Failed"));
    }
    if random.random_ratio(1, 3) {
        set("podFailurePolicy", json!({ "rules": failure_rules(random) }));
    }
    // A container is started again, and not its pod made again; what pods that fail mean can not be said then.
    if spec["podFailurePolicy"].is_null() && spec["backoffLimitPerIndex"].is_null() && random.random_ratio(1, 4) {
        spec["template"]["spec"]["restartPolicy"] = json!("OnFailure");
    }
    let fails_index = !spec["podFailurePolicy"].is_null() && !spec["backoffLimitPerIndex"].is_null();
    if fails_index && random.random_bool(0.5) {
        spec["podFailurePolicy"]["rules"] = json!([coded("FailIndex", 1)]);
    }
    let mut set = |field: &str, value: Value| spec[field] = value;
    if random.random_ratio(1, 4) {
        set("ttlSecondsAfterFinished", json!(30));
    }
    if random.random_ratio(1, 4) {
        set("activeDeadlineSeconds", json!(40));
    }
    if spec["completionMode"] == "Indexed" && random.random_ratio(1, 3) {
        let by_count = random.random_bool(0.5);
        let rule = if by_count { json!({ "succeededCount": 1 }) } else { json!({ "succeededIndexes": "0" }) };
        spec["successPolicy"] = json!({ "rules": [rule] });
    }
    spec
}

fn coded(action: &str, code: i32) -> Value {
    json!({ "action": action, "onExitCodes": { "operator": "In", "values": [code] } })
}

/// What failures mean: the first rule that fits a pod counts.
fn failure_rules(random: &mut StdRng) -> Value {
    let evicted = json!({ "action": "Ignore", "onPodConditions": [{ "type": "DisruptionTarget", "status": "True" }] });
    match random.random_range(0..4) {
        0 => json!([evicted]),
        1 => json!([evicted, coded("FailJob", 1)]),
        2 => json!([coded("FailJob", 137)]),
        _ => json!([coded("Count", 143), coded("FailJob", 1)]),
    }
}

fn cron_job(name: &str, random: &mut StdRng) -> Value {
    let mut spec = json!({
        "concurrencyPolicy": pick(&["Allow", "Forbid", "Forbid", "Replace"], random),
        "successfulJobsHistoryLimit": pick(&[0, 1, 3], random), "failedJobsHistoryLimit": pick(&[0, 1], random),
        "jobTemplate": { "spec": {
            "parallelism": random.random_range(1..=2), "completions": random.random_range(1..=2),
            "backoffLimit": pick(&[0, 2], random), "template": task(name, &["d", "f", "l", "l"], random),
        } },
    });
    for (field, value) in times(random) {
        spec[field] = value;
    }
    spec
}

/// When a CronJob is due, and how late it may be. The zones are off by half an hour: minutes are minutes in all of them.
fn times(random: &mut StdRng) -> [(&'static str, Value); 3] {
    let schedules = ["* * * * *", "* * * * *", "*/2 * * * *", "@every 61s", "@every 75s", "@every 90s"];
    let schedule = pick(&schedules, random).unwrap_or(schedules[0]);
    // Counted from the last run, nothing is ever due within less than a period (as upstream's).
    let deadlines = if schedule.starts_with('@') { [None, None, Some(120)] } else { [None, Some(20), Some(90)] };
    let zone = pick(&[None, None, Some("Asia/Kolkata")], random).flatten();
    [
        ("schedule", json!(schedule)),
        ("startingDeadlineSeconds", json!(pick(&deadlines, random).flatten())),
        ("timeZone", json!(zone)),
    ]
}

fn scale(object: &Object, random: &mut StdRng) -> Option<Letter> {
    let (spec, words) = match object.kind() {
        Kind::StatefulSet | Kind::ReplicationController => {
            let replicas = random.random_range(0..=MOST_REPLICAS);
            (json!({ "replicas": replicas }), format!("scales to {replicas}"))
        }
        // More or fewer indexes; both numbers change together.
        Kind::Job if is_indexed(object) && random.random_ratio(1, 3) => {
            let indexes = random.random_range(1..=5);
            (json!({ "parallelism": indexes, "completions": indexes }), format!("gives {indexes} indexes"))
        }
        // What its pods are labelled with may change before it goes on.
        Kind::Job if is_suspended(object) && random.random_bool(0.5) => {
            let tier = pick(&["front", "back"], random).unwrap_or_default();
            let labels = json!({ "template": { "metadata": { "labels": { "tier": tier } } } });
            (labels, format!("labels pods tier={tier}"))
        }
        Kind::Job if random.random_bool(0.5) => {
            let parallelism = random.random_range(0..=3);
            (json!({ "parallelism": parallelism }), format!("sets parallelism {parallelism}"))
        }
        Kind::Job | Kind::CronJob => {
            let suspend = !is_suspended(object);
            (json!({ "suspend": suspend }), if suspend { "suspends" } else { "resumes" }.to_owned())
        }
        _ => return None,
    };
    Some(merge(object, json!({ "spec": spec }), &words))
}

fn is_indexed(object: &Object) -> bool {
    let mode = object.get::<Job>().and_then(|job| job.spec.as_ref()?.completion_mode.as_deref());
    mode == Some("Indexed")
}

fn is_suspended(object: &Object) -> bool {
    match object.kind() {
        Kind::Job => object.get::<Job>().and_then(|job| job.spec.as_ref()?.suspend) == Some(true),
        _ => object.get::<CronJob>().is_some_and(|cron_job| cron_job.spec.suspend == Some(true)),
    }
}

fn reschedule(object: &Object, random: &mut StdRng) -> Letter {
    let times = times(random);
    let words = format!("sets schedule {}", times[0].1);
    let spec: serde_json::Map<String, Value> =
        times.into_iter().map(|(field, value)| (field.to_owned(), value)).collect();
    merge(object, json!({ "spec": spec }), &words)
}

fn terms(object: &Object, random: &mut StdRng) -> Option<Letter> {
    let spec = match object.kind() {
        Kind::DaemonSet => json!({ "updateStrategy": daemon_strategy(random) }),
        Kind::StatefulSet => json!({ "updateStrategy": stateful_strategy(random) }),
        Kind::CronJob => json!({
            "concurrencyPolicy": pick(&["Allow", "Forbid", "Replace"], random),
            "successfulJobsHistoryLimit": pick(&[0, 1], random),
        }),
        _ => return None,
    };
    Some(merge(object, json!({ "spec": spec }), "changes the terms"))
}

/// `kubectl rollout undo`: sends back the patch that a revision recorded.
fn undo(object: &Object, world: &Snapshot, random: &mut StdRng) -> Option<Letter> {
    let revisions: Vec<&ControllerRevision> = world.controlled_by::<ControllerRevision>(object.uid()).collect();
    let revision = pick(&revisions, random)?;
    let data = revision.data.as_ref()?.0.clone();
    let mut template = data.get("spec")?.get("template")?.clone();
    template.as_object_mut()?.remove("$patch");
    let expects = serde_json::from_value::<PodTemplateSpec>(template).ok();
    let words = format!("undoes {} to revision {}", object.key(), revision.revision);
    let ask = Ask::Patch(object.key(), Part::Main, PatchType::Strategic, Bytes::from(data.to_string()));
    Some(Letter { expects, ..Letter::of_person(ask, words) })
}

fn set_image(object: &Object, image: &str) -> Option<Letter> {
    if !matches!(object.kind(), Kind::DaemonSet | Kind::StatefulSet | Kind::ReplicationController) {
        return None;
    }
    let patch = json!([{ "op": "replace", "path": "/spec/template/spec/containers/0/image", "value": image }]);
    let ask = Ask::Patch(object.key(), Part::Main, PatchType::Json, Bytes::from(patch.to_string()));
    Some(Letter::of_person(ask, format!("sets image of {} to {image}", object.key())))
}

fn merge(object: &Object, patch: Value, words: &str) -> Letter {
    patch_letter(object.key(), patch, format!("{words}: {}", object.key()))
}

/// What is put right when the faults stop: good images, updates that roll, schedules and Jobs that come to an end.
pub fn put_right(world: &Snapshot) -> Vec<Letter> {
    let mut letters = Vec::new();
    for (kind, _) in KINDS {
        for object in world.objects(kind, None).filter(|object| !facts::is_deleted(object.meta())) {
            letters.extend(put_one_right(object, world));
        }
    }
    letters
}

fn put_one_right(object: &Object, world: &Snapshot) -> Vec<Letter> {
    let rolls = |rolling: Value| {
        let strategy = json!({ "spec": { "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": rolling } } });
        merge(object, strategy, "lets roll")
    };
    let mut letters = Vec::new();
    // First of all: pods that are deleted below are made again by the template that is there then.
    if image(object).is_some_and(|image| !serves(&image)) {
        letters.extend(set_image(object, &format!("{}:g9", object.name())));
    }
    match object.kind() {
        Kind::DaemonSet => letters.push(rolls(json!({ "maxUnavailable": 1, "maxSurge": 0 }))),
        Kind::StatefulSet => letters.push(rolls(json!({ "partition": 0 }))),
        Kind::CronJob => letters.push(merge(object, json!({ "spec": { "suspend": true } }), "suspends")),
        Kind::Job if image(object).is_some_and(|image| image.contains(":p")) => {
            letters.push(delete(object.key(), None))
        }
        Kind::Job if object.get::<Job>().is_some_and(facts::is_finished) => {}
        Kind::Job => letters.push(merge(object, json!({ "spec": { "suspend": false, "parallelism": 2 } }), "resumes")),
        // Its pods keep their template for good.
        _ => letters.extend(bad_pods(object, world).map(|pod| delete(pod, None))),
    }
    letters
}

fn bad_pods(object: &Object, world: &Snapshot) -> impl Iterator<Item = Key> {
    let bad = world.controlled_by::<Pod>(object.uid()).filter(|pod| {
        let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
        containers.filter_map(|container| container.image.as_deref()).any(|image| !serves(image))
    });
    bad.map(|pod| Key::new(Kind::Pod, NAMESPACE, facts::name(&pod.metadata)))
}

/// True for images that become ready and stay.
pub fn serves(image: &str) -> bool {
    [":g", ":t", ":s"].iter().any(|tag| image.contains(tag))
}

fn image(object: &Object) -> Option<String> {
    let template = match object.kind() {
        Kind::DaemonSet => Some(object.get::<DaemonSet>()?.spec.as_ref()?.template.clone()),
        Kind::StatefulSet => Some(object.get::<StatefulSet>()?.spec.as_ref()?.template.clone()),
        Kind::ReplicationController => object.get::<ReplicationController>()?.spec.as_ref()?.template.clone(),
        Kind::Job => Some(object.get::<Job>()?.spec.as_ref()?.template.clone()),
        _ => None,
    };
    template?.spec?.containers.first()?.image.clone()
}
