//! Worlds and plans as text, and a small executor that stands for door and turn, for tests.
//!
//! A world is written line by line, oldest object first:
//!
//! ```text
//! deploy web 4 image v2 surge 1 unavailable 1 [recreate] [paused] [min-ready 10] [deadline 60] [history 2]
//! rs web-a 3 image v1 [ready 2] [pods 5] [terminating 1] [revision 1] [desired 4] [max 5] [orphan]
//! ```
//!
//! A set belongs to the Deployment that its name begins with and has `pods` pods (as many as its replicas if not
//! said), the first `ready` of which (all if not said) are ready since long.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;

use api::account::{Ended, Requested};
use api::plan::CREATED;
use api::template_hash::POD_TEMPLATE_HASH_LABEL;
use api::{
    Body, Change, Context, EventNote, Heard, Key, Kind, Object, Plan, Pod, Propagation, Refusal, Snapshot, Typed,
    Usage, Write,
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{ControllerRevision, Deployment, DeploymentStatus, ReplicaSet};
use k8s_openapi::api::batch::v1::JobStatus;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use crate::{Controller, pods, reconcile, wake_all, wakes};

/// Decisions that one settling may take before it counts as endless.
const DECISIONS: usize = 5_000;

/// Looks at a write, with the world before and after it.
pub type Check = fn(&Snapshot, &Snapshot, &Write, Timestamp);

/// A cluster in a test.
pub struct World {
    /// The objects.
    pub snapshot: Snapshot,
    /// The time.
    pub now: Timestamp,
    /// What pods use.
    pub usage: Usage,
    /// Messages of events, in order.
    pub events: Vec<String>,
    /// Refuses writes.
    pub door: fn(&Snapshot, &Write) -> Option<Refusal>,
    /// Looks at each write after it was carried out.
    pub check: Check,
    /// Picks the next decision among so many.
    pub pick: Box<dyn FnMut(usize) -> usize>,
    /// When nodes were last heard of; no time is told to it but by tests.
    pub heard: Heard,
    queue: VecDeque<(Controller, Key)>,
    refusals: BTreeMap<(Controller, Key), Refusal>,
    alarms: BTreeMap<(Controller, Key), Timestamp>,
    serial: u64,
}

impl World {
    /// A cluster with a node and nothing on it.
    pub fn new() -> World {
        let mut world = World {
            snapshot: Snapshot::default(),
            now: "2026-01-01T12:00:00Z".parse().unwrap(),
            usage: Usage::default(),
            events: Vec::new(),
            door: |_, _| None,
            check: |_, _, _, _| {},
            pick: Box::new(|_| 0),
            heard: Heard::default(),
            queue: VecDeque::new(),
            refusals: BTreeMap::new(),
            alarms: BTreeMap::new(),
            serial: 0,
        };
        let node = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "n1", "uid": "uid-n1" } });
        world.store(Kind::Node, node);
        world
    }

    /// A cluster as written. Nothing is woken.
    pub fn read(text: &str) -> World {
        let mut world = World::new();
        for (number, line) in text.lines().map(str::trim).filter(|line| !line.is_empty()).enumerate() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let created = world.now.checked_add(SignedDuration::from_secs(number as i64 - 36_000)).unwrap();
            match words[0] {
                "deploy" => world.read_deployment(&words[1..], created),
                "rs" => world.read_set(&words[1..], created),
                other => panic!("no notation begins with {other}"),
            }
        }
        world.queue.clear();
        world
    }

    fn read_deployment(&mut self, words: &[&str], created: Timestamp) {
        let value = |name: &str| words.iter().position(|word| *word == name).map(|at| words[at + 1]);
        let number = |name: &str| value(name).map(|text| text.parse::<i64>().unwrap());
        let bound = |name: &str| match value(name) {
            Some(text) => text.parse::<i64>().map_or_else(|_| json!(text), |number| json!(number)),
            None => json!("25%"),
        };
        let strategy = if words.contains(&"recreate") {
            json!({ "type": "Recreate" })
        } else {
            let rolling = json!({ "maxSurge": bound("surge"), "maxUnavailable": bound("unavailable") });
            json!({ "type": "RollingUpdate", "rollingUpdate": rolling })
        };
        let body = json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": { "name": words[0], "namespace": "default", "generation": 1, "uid": format!("uid-{}", words[0]),
                "creationTimestamp": Time(created) },
            "spec": {
                "replicas": words[1].parse::<i64>().unwrap(), "strategy": strategy,
                "paused": words.contains(&"paused"), "minReadySeconds": number("min-ready"),
                "progressDeadlineSeconds": number("deadline").unwrap_or(600),
                "revisionHistoryLimit": number("history").unwrap_or(10),
                "selector": { "matchLabels": { "app": words[0] } },
                "template": template(words[0], None, value("image").unwrap_or("v1")),
            },
        });
        self.store(Kind::Deployment, body);
    }

    fn read_set(&mut self, words: &[&str], created: Timestamp) {
        let name = words[0];
        let (app, hash) = name.rsplit_once('-').unwrap();
        let replicas: i64 = words[1].parse().unwrap();
        let value = |name: &str| words.iter().position(|word| *word == name).map(|at| words[at + 1]);
        let number = |name: &str| value(name).map(|text| text.parse::<i64>().unwrap());
        let annotations: BTreeMap<&str, String> = [
            ("deployment.kubernetes.io/revision", number("revision")),
            ("deployment.kubernetes.io/desired-replicas", number("desired")),
            ("deployment.kubernetes.io/max-replicas", number("max")),
        ]
        .into_iter()
        .filter_map(|(key, value)| Some((key, value?.to_string())))
        .collect();
        let owners: Vec<Value> =
            (!words.contains(&"orphan")).then(|| owner("apps/v1", "Deployment", app)).into_iter().collect();
        let (pods, ready) = (number("pods").unwrap_or(replicas), number("ready"));
        let ready = ready.unwrap_or(pods);
        let terminating = number("terminating").unwrap_or(0);
        let some = |count: i64| Some(count).filter(|count| *count > 0);
        let body = json!({
            "apiVersion": "apps/v1", "kind": "ReplicaSet",
            "metadata": { "name": name, "namespace": "default", "generation": 1, "uid": format!("uid-{name}"),
                "labels": { "app": app, "pod-template-hash": hash }, "annotations": annotations,
                "ownerReferences": owners, "creationTimestamp": Time(created) },
            "spec": {
                "replicas": replicas, "selector": { "matchLabels": { "app": app, "pod-template-hash": hash } },
                "minReadySeconds": number("min-ready"),
                "template": template(app, Some(hash), value("image").unwrap_or("v1")),
            },
            "status": { "observedGeneration": 1, "replicas": pods, "readyReplicas": some(ready), "availableReplicas": some(ready),
                "fullyLabeledReplicas": some(pods), "terminatingReplicas": terminating },
        });
        self.store(Kind::ReplicaSet, body);
        for index in 0..pods + terminating {
            self.add_pod(name, index, index < ready, index >= pods);
        }
    }

    fn add_pod(&mut self, set: &str, index: i64, ready: bool, terminating: bool) {
        let (app, hash) = set.rsplit_once('-').unwrap();
        let long_ago = Time(self.now.checked_sub(SignedDuration::from_hours(5)).unwrap());
        let state = if ready { "True" } else { "False" };
        let mut body = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": format!("{set}-{index}"), "namespace": "default", "uid": format!("uid-{set}-{index}"),
                "labels": { "app": app, "pod-template-hash": hash }, "creationTimestamp": long_ago,
                "ownerReferences": [owner("apps/v1", "ReplicaSet", set)] },
            "spec": { "nodeName": "n1", "containers": [{ "name": "c", "image": "v1" }] },
            "status": { "phase": "Running", "podIP": format!("10.0.0.{index}"),
                "conditions": [{ "type": "Ready", "status": state, "lastTransitionTime": long_ago }] },
        });
        if terminating {
            body["metadata"]["deletionTimestamp"] = json!(Time(self.now));
        }
        self.store(Kind::Pod, body);
    }

    /// Stores an object as it is, without telling anybody.
    pub fn store(&mut self, kind: Kind, value: Value) {
        let body = kind.decode(value).unwrap();
        self.snapshot.put(Object::written(body, self.snapshot.revision() + 1));
    }

    /// What a decision would do.
    pub fn plan(&self, who: Controller, kind: Kind, name: &str) -> Plan {
        let key = Key::new(kind, if kind.namespaced() { "default" } else { "" }, name);
        let refused = self.refusals.get(&(who, key.clone()));
        let context = Context { now: self.now, refused, usage: &self.usage, heard: &self.heard };
        reconcile(who, &key, &self.snapshot, &context)
    }

    /// Notes that the last plan of a decision was refused.
    pub fn refuse(&mut self, who: Controller, kind: Kind, name: &str, refusal: Refusal) {
        self.refusals.insert((who, Key::new(kind, "default", name)), refusal);
    }

    /// Wakes everything.
    pub fn wake_all(&mut self) {
        let mut woken = Vec::new();
        wake_all(&self.snapshot, &mut |who, key| woken.push((who, key)));
        woken.into_iter().for_each(|decision| self.wake(decision));
    }

    fn wake(&mut self, decision: (Controller, Key)) {
        if !self.queue.contains(&decision) {
            self.queue.push_back(decision);
        }
    }

    /// Lets time pass and rings what is due.
    pub fn advance(&mut self, seconds: i64) {
        self.now = self.now.checked_add(SignedDuration::from_secs(seconds)).unwrap();
        let due: Vec<_> =
            self.alarms.iter().filter(|(_, time)| **time <= self.now).map(|(decision, _)| decision.clone()).collect();
        for decision in due {
            self.alarms.remove(&decision);
            self.wake(decision);
        }
    }

    /// Runs woken decisions until none is left; the number of writes they made.
    pub fn settle(&mut self) -> usize {
        let mut writes = 0;
        for _ in 0..DECISIONS {
            if self.queue.is_empty() {
                return writes;
            }
            let at = (self.pick)(self.queue.len());
            let decision = self.queue.remove(at).unwrap();
            writes += self.decide(decision);
        }
        panic!("decisions never come to rest; the next would be {:?}", self.queue.front());
    }

    fn decide(&mut self, decision: (Controller, Key)) -> usize {
        let refused = self.refusals.get(&decision).cloned();
        let context = Context { now: self.now, refused: refused.as_ref(), usage: &self.usage, heard: &self.heard };
        let plan = reconcile(decision.0, &decision.1, &self.snapshot, &context);
        self.alarms.remove(&decision);
        if let Some(time) = plan.wake_at {
            self.alarms.insert(decision.clone(), time);
        }
        let mut created = String::new();
        let mut done = 0;
        for note in &plan.events {
            self.note(note, "");
        }
        for write in plan.writes {
            crate::rights::check(decision.0, &write).unwrap();
            let is_event = matches!(write, Write::Event(_));
            if let Err(refusal) = self.carry_out(write, &mut created) {
                // Tried again a second later, but told at once.
                let first = self.refusals.insert(decision.clone(), refusal).is_none();
                self.alarms.insert(decision.clone(), self.now.checked_add(SignedDuration::from_secs(1)).unwrap());
                if first {
                    self.wake(decision);
                }
                return done;
            }
            done += usize::from(!is_event);
        }
        if done > 0 {
            self.refusals.remove(&decision);
        }
        done
    }

    fn note(&mut self, note: &EventNote, created: &str) {
        self.events.push(format!("{} {}", note.reason, note.message.replace(CREATED, created)));
    }

    /// Carries a write out as the door and the turn would.
    pub fn carry_out(&mut self, write: Write, created: &mut String) -> Result<(), Refusal> {
        if let Some(refusal) = (self.door)(&self.snapshot, &write) {
            return Err(refusal);
        }
        let (told, before) = (write.clone(), self.snapshot.clone());
        match write {
            Write::Create(body) => *created = self.create(body)?,
            Write::Update(body) => self.update(body, false)?,
            Write::Status(body) => self.update(body, true)?,
            Write::Finalize(body) => self.update(body, false)?,
            Write::Event(note) => self.note(&note, created),
            Write::Bind { pod, node, .. } => self.change_pod(&pod.name, |pod| {
                pod.spec.get_or_insert_default().node_name = Some(node.clone());
            }),
            Write::Remove { key, .. } => self.remove(&key),
            Write::Delete { key, uid, propagation } => self.delete(&key, &uid, propagation)?,
        }
        (self.check)(&before, &self.snapshot, &told, self.now);
        Ok(())
    }

    fn put(&mut self, body: Body) {
        let change = self.snapshot.put(Object::written(body, self.snapshot.revision() + 1));
        self.changed(&change);
    }

    fn remove(&mut self, key: &Key) {
        let revision = self.snapshot.revision() + 1;
        if let Some(change) = self.snapshot.remove(key, revision) {
            self.changed(&change);
        }
    }

    fn changed(&mut self, change: &Change) {
        self.heard.note(change);
        let mut woken = Vec::new();
        wakes(change, &self.snapshot, &mut |who, key| woken.push((who, key)));
        woken.into_iter().for_each(|decision| self.wake(decision));
    }

    fn create(&mut self, mut body: Body) -> Result<String, Refusal> {
        self.serial += 1;
        let (serial, kind) = (self.serial, body.kind());
        let meta = body.meta_mut();
        if meta.name.is_none() {
            meta.name = Some(format!("{}{serial:05}", meta.generate_name.clone().unwrap()));
        }
        let name = meta.name.clone().unwrap();
        if self.snapshot.object(kind, meta.namespace.as_deref().unwrap_or(""), &name).is_some() {
            return Err(Refusal::already_exists(kind, &name));
        }
        meta.uid = Some(format!("uid-{serial}"));
        meta.generation = Some(1);
        meta.creation_timestamp = Some(Time(self.now));
        if let Body::Pod(pod) = &mut body {
            pod.status.get_or_insert_default().phase = Some("Pending".into());
        }
        if matches!(body, Body::Job(_) | Body::PersistentVolumeClaim(_) | Body::PersistentVolume(_)) {
            api::prepare::create(&mut body);
        }
        self.put(body);
        Ok(name)
    }

    fn update(&mut self, mut body: Body, status: bool) -> Result<(), Refusal> {
        let meta = body.meta().clone();
        let key = Key::new(body.kind(), meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap());
        let old = self.snapshot.at(&key).ok_or_else(|| Refusal::not_found(key.kind, &key.name))?.clone();
        assert_eq!(meta.resource_version, old.meta().resource_version, "{key} was written on an outdated version");
        let (before, mut after) = (old.body.to_value(), body.to_value());
        if status {
            let mut merged = before.clone();
            merged["status"] = after["status"].clone();
            if let Some(annotations) = after.pointer("/metadata/annotations") {
                merged["metadata"]["annotations"] = annotations.clone();
            }
            after = merged;
        } else {
            after["status"] = before["status"].clone();
        }
        if after["status"].is_null() {
            after.as_object_mut().unwrap().remove("status");
        }
        body = key.kind.decode(after.clone()).unwrap();
        if after["spec"] != before["spec"] {
            let generation = &mut body.meta_mut().generation;
            *generation = generation.map(|generation| generation + 1);
        }
        assert_ne!(after, before, "{key} was written though nothing changed");
        if body.meta().deletion_timestamp.is_some() && is_free(&body) {
            self.remove(&key);
        } else {
            self.put(body);
        }
        Ok(())
    }

    fn delete(&mut self, key: &Key, uid: &str, propagation: Propagation) -> Result<(), Refusal> {
        let object = self.snapshot.at(key).ok_or_else(|| Refusal::not_found(key.kind, &key.name))?.clone();
        assert_eq!(object.uid(), uid);
        let mut body = object.body.clone();
        let finalizer = match propagation {
            Propagation::Background => None,
            Propagation::Foreground => Some("foregroundDeletion"),
            Propagation::Orphan => Some("orphan"),
        };
        if let Some(name) = finalizer {
            let list = body.meta_mut().finalizers.get_or_insert_default();
            if !list.iter().any(|finalizer| finalizer == name) {
                list.push(name.into());
            }
        }
        let runs = object.get::<Pod>().is_some_and(|pod| !pods::node(pod).is_empty() && !pods::has_ended(pod));
        if is_free(&body) && !runs {
            self.remove(key);
        } else {
            body.meta_mut().deletion_timestamp.get_or_insert(Time(self.now));
            if body != object.body {
                self.put(body);
            }
        }
        Ok(())
    }

    /// Deletes an object as a user would.
    pub fn user_deletes(&mut self, kind: Kind, name: &str, propagation: Propagation) {
        let key = Key::new(kind, if kind.namespaced() { "default" } else { "" }, name);
        let uid = self.snapshot.at(&key).unwrap().uid().to_owned();
        self.delete(&key, &uid, propagation).unwrap();
    }

    /// Changes a Deployment as a user would.
    pub fn user_changes(&mut self, name: &str, change: impl FnOnce(&mut Deployment)) {
        let mut deployment = self.snapshot.get::<Deployment>("default", name).unwrap().clone();
        let before = deployment.clone();
        change(&mut deployment);
        if deployment != before {
            self.update(deployment.into_body(), false).unwrap();
        }
    }

    /// Makes an object as a user would.
    pub fn user_creates(&mut self, kind: Kind, value: Value) {
        self.create(kind.decode(value).unwrap()).unwrap();
    }

    /// Changes an object in namespace `default` as a user would.
    pub fn user_edits<T: Typed + Clone + PartialEq>(&mut self, name: &str, change: impl FnOnce(&mut T)) {
        let mut object = self.snapshot.get::<T>("default", name).unwrap().clone();
        let before = object.clone();
        change(&mut object);
        if object != before {
            self.update(object.into_body(), false).unwrap();
        }
    }

    /// Changes an object of the cluster as a user would.
    pub fn cluster_edits<T: Typed + Clone>(&mut self, name: &str, change: impl FnOnce(&mut T)) {
        let mut object = self.snapshot.get::<T>("", name).unwrap().clone();
        change(&mut object);
        self.update(object.into_body(), false).unwrap();
    }

    /// Takes an object of the cluster out, whatever holds it.
    pub fn cluster_removes(&mut self, kind: Kind, name: &str) {
        self.remove(&Key::new(kind, "", name));
    }

    /// The note that the door leaves on a workload whose template somebody asked for now.
    pub fn request(&self) -> String {
        Requested { at: Time(self.now), by: "ada".into(), with: "test".into() }.text()
    }

    /// Every revision, with how its rollout ended: `2 v2 {"how":"completed",…}`.
    pub fn ends(&self) -> String {
        let mut revisions: Vec<&ControllerRevision> = self.snapshot.list(None).collect();
        revisions.sort_by_key(|revision| revision.revision);
        let told = revisions.into_iter().map(|revision| {
            let data = &revision.data.as_ref().unwrap().0;
            let image = data.pointer("/spec/template/spec/containers/0/image").and_then(Value::as_str).unwrap();
            let ended = Ended::of(&revision.metadata).map_or("-".into(), |ended| ended.text());
            format!("{} {image} {ended}\n", revision.revision)
        });
        told.collect()
    }

    /// Changes the status of an object in namespace `default` as its writer would.
    pub fn user_edits_status<T: Typed + Clone>(&mut self, name: &str, change: impl FnOnce(&mut T)) {
        let mut object = self.snapshot.get::<T>("default", name).unwrap().clone();
        change(&mut object);
        self.update(object.into_body(), true).unwrap();
    }

    /// Changes a pod as a node's agent would.
    pub fn change_pod(&mut self, name: &str, change: impl FnOnce(&mut Pod)) {
        let mut pod = self.snapshot.get::<Pod>("default", name).unwrap().clone();
        change(&mut pod);
        self.put(pod.into_body());
    }

    /// Changes fields of a node as it would itself.
    pub fn change_node(&mut self, name: &str, fields: Value) {
        let mut value = self.snapshot.object(Kind::Node, "", name).unwrap().body.to_value();
        for (field, new) in fields.as_object().unwrap() {
            value[field] = new.clone();
        }
        self.put(Kind::Node.decode(value).unwrap());
    }

    /// Sets whether a pod is ready, since now.
    pub fn set_ready(&mut self, name: &str, ready: bool) {
        let time = Time(self.now);
        self.change_pod(name, |pod| {
            let status = pod.status.get_or_insert_default();
            status.phase = Some("Running".into());
            let condition = json!([{ "type": "Ready", "status": if ready { "True" } else { "False" }, "lastTransitionTime": time }]);
            status.conditions = serde_json::from_value(condition).unwrap();
        });
    }

    /// Takes away a pod that has ended.
    pub fn pod_gone(&mut self, name: &str) {
        self.remove(&Key::new(Kind::Pod, "default", name));
    }

    /// Names of the pods.
    pub fn pods(&self) -> Vec<String> {
        self.snapshot.list::<Pod>(Some("default")).map(|pod| pods::name(pod).to_owned()).collect()
    }

    /// One step of a node where all is well: pods get a node, become ready, and end when they are deleted.
    pub fn run_nodes(&mut self) {
        for name in self.pods() {
            let pod = self.snapshot.get::<Pod>("default", &name).unwrap();
            let (bound, ready, deleted) = (!pods::node(pod).is_empty(), pods::is_ready(pod), pods::is_deleted(pod));
            match () {
                () if deleted => self.pod_gone(&name),
                () if pods::has_ended(pod) => {}
                () if !bound => self.change_pod(&name, |pod| {
                    let node = crate::daemon_set::target_node(pod).unwrap_or("n1").to_owned();
                    pod.spec.get_or_insert_default().node_name = Some(node);
                }),
                () if !ready => self.set_ready(&name, true),
                () => {}
            }
        }
    }

    /// The sets and what is in them, a line each: `web-x 3: 2 ready, 1 pending`.
    pub fn show(&self) -> String {
        let mut text = String::new();
        for set in self.snapshot.list::<ReplicaSet>(None) {
            let uid = set.metadata.uid.as_deref().unwrap();
            let members: Vec<&Pod> = self.snapshot.controlled_by::<Pod>(uid).collect();
            let active = members.iter().filter(|pod| pods::is_active(pod));
            let ready = active.clone().filter(|pod| pods::is_ready(pod)).count();
            let name = masked(set.metadata.name.as_deref().unwrap());
            let replicas = crate::specs::of_set(set).replicas.unwrap_or(1);
            writeln!(text, "{name} {replicas}: {ready} ready of {} pods", active.count()).unwrap();
        }
        text
    }
}

fn is_free(body: &Body) -> bool {
    let held = match body {
        Body::Namespace(namespace) => {
            namespace.spec.as_ref().and_then(|spec| spec.finalizers.as_ref()).is_some_and(|list| !list.is_empty())
        }
        _ => false,
    };
    !held && body.meta().finalizers.as_ref().is_none_or(Vec::is_empty)
}

fn template(app: &str, hash: Option<&str>, image: &str) -> Value {
    let mut labels = json!({ "app": app });
    if let Some(hash) = hash {
        labels[POD_TEMPLATE_HASH_LABEL] = json!(hash);
    }
    json!({ "metadata": { "labels": labels }, "spec": { "containers": [{ "name": "c", "image": image }] } })
}

fn owner(version: &str, kind: &str, name: &str) -> Value {
    json!({ "apiVersion": version, "kind": kind, "name": name, "uid": format!("uid-{name}"), "controller": true,
        "blockOwnerDeletion": true })
}

/// A made-up hash is long and says nothing: `web-<hash>`.
pub fn masked(name: &str) -> String {
    let hash = |part: &str| part.len() >= 8 && part.bytes().all(|byte| b"bcdfghjklmnpqrstvwxz2456789".contains(&byte));
    name.split('-').map(|part| if hash(part) { "<hash>" } else { part }).collect::<Vec<_>>().join("-")
}

/// A plan, a line each.
pub fn show(plan: &Plan) -> String {
    let mut lines: Vec<String> = plan.writes.iter().map(show_write).collect();
    lines.extend(plan.events.iter().map(|note| format!("event {} {}", note.reason, masked_words(&note.message))));
    lines.extend(plan.why.iter().map(|why| format!("why {}", masked_words(why))));
    lines.extend(plan.wake_at.map(|time| format!("wake at {time}")));
    let mut text = String::new();
    let mut repeated: Vec<(String, usize)> = Vec::new();
    for line in lines {
        match repeated.last_mut() {
            Some((last, count)) if *last == line => *count += 1,
            _ => repeated.push((line, 1)),
        }
    }
    for (line, count) in repeated {
        let times = if count > 1 { format!(" ×{count}") } else { String::new() };
        writeln!(text, "{line}{times}").unwrap();
    }
    text
}

fn masked_words(text: &str) -> String {
    let word = |word: &str| {
        let core = word.trim_matches(|c: char| !c.is_alphanumeric());
        if core.is_empty() { word.to_owned() } else { word.replace(core, &masked(core)) }
    };
    text.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

fn show_write(write: &Write) -> String {
    let name = |body: &Body| {
        let meta = body.meta();
        let generated = || format!("{}?", meta.generate_name.as_deref().unwrap_or(""));
        masked(&meta.name.clone().unwrap_or_else(generated))
    };
    match write {
        Write::Create(body) => format!("create {} {}{}", body.kind(), name(body), details(body)),
        Write::Update(body) => format!("update {} {}{}", body.kind(), name(body), details(body)),
        Write::Finalize(body) => format!("finalize {} {}", body.kind(), name(body)),
        Write::Status(body) => {
            let revision = body.meta().annotations.as_ref().and_then(|it| it.get("deployment.kubernetes.io/revision"));
            let revision = revision.map(|revision| format!(" revision {revision}")).unwrap_or_default();
            format!("status {} {}{revision}{}", body.kind(), name(body), status(body))
        }
        Write::Bind { pod, node, .. } => format!("bind {} to {node}", pod.name),
        Write::Event(note) => format!("event {} {}", note.reason, masked_words(&note.message)),
        Write::Remove { key, .. } => format!("remove {} {}", key.kind, key.name),
        Write::Delete { key, propagation, .. } => {
            let how = if *propagation == Propagation::Background { String::new() } else { format!(" {propagation:?}") };
            format!("delete {} {}{how}", key.kind, masked(&key.name))
        }
    }
}

fn details(body: &Body) -> String {
    let mut text = String::new();
    if let Body::ReplicaSet(set) = body {
        write!(text, " replicas {}", crate::specs::of_set(set).replicas.unwrap_or(1)).unwrap();
    }
    for (key, value) in body.meta().annotations.iter().flatten() {
        write!(text, " {}={value}", key.rsplit('/').next().unwrap()).unwrap();
    }
    if matches!(body, Body::Pod(_) | Body::ReplicaSet(_)) {
        for owner in body.meta().owner_references.iter().flatten() {
            write!(text, " of {}", masked(&owner.name)).unwrap();
        }
    }
    for finalizer in body.meta().finalizers.iter().flatten() {
        write!(text, " held by {finalizer}").unwrap();
    }
    text
}

fn status(body: &Body) -> String {
    match body {
        Body::Deployment(deployment) => deployment_status(&deployment.status.clone().unwrap_or_default()),
        Body::ReplicaSet(set) => {
            let status = set.status.clone().unwrap_or_default();
            let mut text = format!(
                " replicas {} ready {} available {} terminating {}",
                status.replicas,
                status.ready_replicas.unwrap_or(0),
                status.available_replicas.unwrap_or(0),
                status.terminating_replicas.unwrap_or(0)
            );
            for condition in status.conditions.into_iter().flatten() {
                let (reason, message) = (condition.reason.unwrap_or_default(), condition.message.unwrap_or_default());
                write!(text, " {}={} {reason} ({message})", condition.type_, condition.status).unwrap();
            }
            text
        }
        Body::Job(job) => job_status(&job.status.clone().unwrap_or_default()),
        Body::CronJob(cron_job) => {
            let status = cron_job.status.clone().unwrap_or_default();
            let active: Vec<String> = status.active.into_iter().flatten().filter_map(|job| job.name).collect();
            let time = |time: Option<Time>| time.map_or_else(|| "never".to_owned(), |time| time.0.to_string());
            let (last, success) = (time(status.last_schedule_time), time(status.last_successful_time));
            format!(" active [{}] last {last} successful {success}", active.join(" "))
        }
        _ => String::new(),
    }
}

/// The counts and conditions of a Job.
pub fn job_status(status: &JobStatus) -> String {
    let mut text = String::new();
    let numbers = [
        ("active", status.active),
        ("ready", status.ready),
        ("terminating", status.terminating),
        ("succeeded", status.succeeded),
        ("failed", status.failed),
    ];
    for (name, number) in numbers.into_iter().filter(|(_, number)| number.unwrap_or(0) != 0) {
        write!(text, " {name} {}", number.unwrap_or(0)).unwrap();
    }
    let noted = status.uncounted_terminated_pods.clone().unwrap_or_default();
    let texts = [
        ("completed", status.completed_indexes.clone()),
        ("failed-indexes", status.failed_indexes.clone()),
        ("uncounted-succeeded", noted.succeeded.map(|uids| uids.join(","))),
        ("uncounted-failed", noted.failed.map(|uids| uids.join(","))),
    ];
    for (name, value) in texts {
        value.into_iter().for_each(|value| write!(text, " {name} {value}").unwrap());
    }
    for condition in status.conditions.iter().flatten() {
        let told = [condition.reason.clone(), condition.message.clone()].map(Option::unwrap_or_default);
        write!(text, " {}={} {} ({})", condition.type_, condition.status, told[0], told[1]).unwrap();
    }
    text
}

/// The counts and conditions of a Deployment.
pub fn deployment_status(status: &DeploymentStatus) -> String {
    let mut text = format!(
        " replicas {} updated {} ready {} available {} unavailable {}",
        status.replicas.unwrap_or(0),
        status.updated_replicas.unwrap_or(0),
        status.ready_replicas.unwrap_or(0),
        status.available_replicas.unwrap_or(0),
        status.unavailable_replicas.unwrap_or(0),
    );
    if let Some(terminating) = status.terminating_replicas.filter(|count| *count > 0) {
        write!(text, " terminating {terminating}").unwrap();
    }
    for condition in status.conditions.iter().flatten() {
        let (reason, message) = (condition.reason.as_deref(), condition.message.as_deref());
        let message = masked_words(message.unwrap_or_default());
        write!(text, "\n  {}={} {} ({message})", condition.type_, condition.status, reason.unwrap_or_default())
            .unwrap();
    }
    text
}
