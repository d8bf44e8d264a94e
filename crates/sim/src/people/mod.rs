//! People: they make Deployments, edit, scale, pause, undo, delete and make again, at any moment and often foolishly.

mod bounds;
mod workloads;

use std::sync::Arc;

use api::heard::NODE_LEASES;
use api::patch::PatchType;
use api::template_hash::template_hash;
use api::{Body, Key, Kind, Object, Pod, Propagation, Snapshot, Typed};
use bytes::Bytes;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, PodTemplateSpec, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};
use rand::Rng;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use server::door::{DeleteOptions, Part};

use crate::facts;
use crate::faults::Faults;
use crate::letters::{Ask, Letter, Sender};
use bounds::Bounds;
pub use bounds::drained;
use workloads::Workloads;

/// Where people work.
pub const NAMESPACE: &str = "default";
/// A namespace that may be deleted with all that is in it.
pub const SHORT_LIVED: &str = "trial";
/// The taint of a node that somebody empties at once.
const MAINTENANCE: &str = "maintenance";
const APPS: [&str; 3] = ["web", "api", "job"];
/// Most pods a Deployment is scaled to.
const MOST_REPLICAS: i32 = 7;

/// The pick of a list, if it has any.
pub fn pick<T: Copy>(list: &[T], random: &mut StdRng) -> Option<T> {
    if list.is_empty() { None } else { Some(list[random.random_range(0..list.len())]) }
}

/// What `rollout undo` makes of the template of an old set; the bug zoo gets it wrong.
pub type Undo = fn(PodTemplateSpec) -> PodTemplateSpec;

/// All that people know.
pub struct People {
    /// Number of Deployments they care for.
    pub apps: usize,
    edits: u32,
    workloads: Workloads,
    bounds: Bounds,
    /// An object as it was some time ago: the second writer works from it.
    remembered: Option<(Key, Body)>,
}

impl People {
    /// People who care for `apps` Deployments, and for some other workloads.
    pub fn new(apps: usize, random: &mut StdRng) -> People {
        let workloads = Workloads::some(random);
        People { apps: apps.min(APPS.len()), edits: 0, workloads, bounds: Bounds::default(), remembered: None }
    }

    /// Lets them bound what they make, and drain nodes.
    pub fn bound(&mut self, random: &mut StdRng) {
        self.bounds = Bounds::some(random);
    }

    /// True if it matters what pods use.
    pub fn measure(&self) -> bool {
        self.bounds.measures()
    }

    /// The work there is for an app, in thousandths of a core.
    pub fn load(&self, app: &str) -> i64 {
        self.bounds.load(app)
    }

    /// From now on there is so much work for an app.
    pub fn set_load(&mut self, app: &str, milli: i64) {
        self.bounds.set_load(app, milli);
    }

    /// True if something is to happen every minute.
    pub fn have_schedule(&self) -> bool {
        self.workloads.has_schedule()
    }

    /// What they make first: nodes come from the cluster, Services and Deployments from them.
    pub fn first(&mut self, random: &mut StdRng) -> Vec<Letter> {
        let mut letters = Vec::new();
        for app in &APPS[..self.apps] {
            letters.push(service(NAMESPACE, app));
            letters.push(self.deployment(NAMESPACE, app, random));
        }
        if random.random_ratio(1, 4) {
            letters.push(create(
                "",
                Kind::Namespace,
                json!({ "metadata": { "name": SHORT_LIVED } }),
                "makes a namespace",
            ));
            letters.push(self.deployment(SHORT_LIVED, "web", random));
            for (kind, name) in [(Kind::StatefulSet, "db"), (Kind::Job, "sum")] {
                letters.push(workloads::make(kind, SHORT_LIVED, name, random));
            }
        }
        letters.extend(self.workloads.first(random));
        letters.extend(self.bounds.first(&APPS[..self.apps], random));
        letters
    }

    fn deployment(&mut self, namespace: &str, app: &str, random: &mut StdRng) -> Letter {
        let body = json!({
            "metadata": { "name": app },
            "spec": {
                "replicas": random.random_range(0..=MOST_REPLICAS),
                "minReadySeconds": pick(&[0, 0, 0, 5], random),
                "progressDeadlineSeconds": pick(&[30, 60, 600], random),
                "revisionHistoryLimit": pick(&[0, 1, 2, 10], random),
                "strategy": strategy(random),
                "selector": { "matchLabels": { "app": app } },
                "template": {
                    "metadata": { "labels": { "app": app } },
                    "spec": {
                        "terminationGracePeriodSeconds": pick(&[0, 3, 20], random),
                        "containers": [{
                            "name": "c", "image": format!("{app}:g0"),
                            "resources": { "requests": { "cpu": "100m" } },
                            "readinessProbe": { "tcpSocket": { "port": 80 }, "failureThreshold": 1, "periodSeconds": 5 },
                        }],
                    },
                },
            },
        });
        create(namespace, Kind::Deployment, body, "makes")
    }

    fn image(&mut self, app: &str, faults: &Faults, random: &mut StdRng) -> String {
        self.edits += 1;
        format!("{app}:{}", image_tag(self.edits, faults, random))
    }

    /// What they do next: often one thing, sometimes several in one breath.
    pub fn act(&mut self, world: &Snapshot, faults: &Faults, undo: Undo, random: &mut StdRng) -> Vec<Letter> {
        if !self.workloads.is_empty() && random.random_ratio(2, 5) {
            return self.workloads.act(world, faults, random);
        }
        if !self.bounds.is_empty() && random.random_ratio(1, 4) {
            return self.bounds.act(&APPS[..self.apps], world, random);
        }
        if faults.relations && random.random_ratio(1, 10) {
            return corrupt(world, random).into_iter().collect();
        }
        let deployments: Vec<&Deployment> = world.list::<Deployment>(None).collect();
        if random.random_ratio(1, 8) || deployments.is_empty() {
            let missing = |app: &&str| world.object(Kind::Deployment, NAMESPACE, app).is_none();
            if let Some(app) = pick(&APPS[..self.apps], random).filter(missing) {
                return vec![self.deployment(NAMESPACE, app, random)];
            }
        }
        let Some(deployment) = pick(&deployments, random) else { return Vec::new() };
        match random.random_range(0..20) {
            16 | 17 if faults.collisions => self.collide(deployment, faults, random),
            18 | 19 if faults.deletes => self.replace(deployment, random),
            _ => self.act_on(deployment, world, faults, undo, random).into_iter().collect(),
        }
    }

    fn act_on(
        &mut self,
        deployment: &Deployment,
        world: &Snapshot,
        faults: &Faults,
        undo: Undo,
        random: &mut StdRng,
    ) -> Option<Letter> {
        match random.random_range(0..16) {
            0..=2 => {
                let replicas = random.random_range(0..=MOST_REPLICAS);
                Some(merge(deployment, json!({ "spec": { "replicas": replicas } }), format!("scales to {replicas}")))
            }
            3..=6 => Some(self.edit(deployment, faults, random)),
            7 => {
                let paused = !facts::is_paused(deployment);
                let words = if paused { "pauses" } else { "resumes" };
                Some(merge(deployment, json!({ "spec": { "paused": paused } }), words.into()))
            }
            8 | 9 => undo_to(deployment, world, undo, random),
            10 if faults.terms => {
                let terms = json!({ "spec": {
                    "strategy": strategy(random), "minReadySeconds": pick(&[0, 5], random),
                    "revisionHistoryLimit": pick(&[0, 1, 3], random),
                    "progressDeadlineSeconds": pick(&[30, 90], random),
                } });
                Some(merge(deployment, terms, "changes its terms".into()))
            }
            11 | 12 if faults.deletes => delete_something(deployment, world, random),
            13 if faults.labels => edit_labels(world, random),
            14 | 15 if faults.second_writer => self.write_outdated(deployment),
            _ => None,
        }
    }

    fn edit(&mut self, deployment: &Deployment, faults: &Faults, random: &mut StdRng) -> Letter {
        let image = self.image(facts::name(&deployment.metadata), faults, random);
        set_image(deployment, &image)
    }

    /// Somebody makes a ReplicaSet whose name is the one that the next template hashes to; then that is asked for.
    fn collide(&mut self, deployment: &Deployment, faults: &Faults, random: &mut StdRng) -> Vec<Letter> {
        let image = self.image(facts::name(&deployment.metadata), faults, random);
        let squatter = squatter(deployment, &image);
        squatter.into_iter().chain([set_image(deployment, &image)]).collect()
    }

    /// Deletes a Deployment in one of the ways and makes another of its name at once.
    fn replace(&mut self, deployment: &Deployment, random: &mut StdRng) -> Vec<Letter> {
        let how = pick(&[None, None, Some(Propagation::Orphan), Some(Propagation::Foreground)], random).flatten();
        let namespace = deployment.metadata.namespace.clone().unwrap_or_default();
        let again = self.deployment(&namespace, facts::name(&deployment.metadata), random);
        vec![delete(key_of(deployment), how), again]
    }

    /// First remembers an object, later writes it back with a change, resource version and all.
    fn write_outdated(&mut self, deployment: &Deployment) -> Option<Letter> {
        let key = key_of(deployment);
        match self.remembered.take() {
            Some((key, body)) => {
                let words = format!("writes an outdated {key}");
                Some(Letter::of_person(Ask::Update(key, Part::Main, body), words))
            }
            None => {
                let mut body = deployment.clone();
                body.spec.as_mut()?.replicas = Some(1);
                self.remembered = Some((key, body.into_body()));
                None
            }
        }
    }
}

/// A ReplicaSet of somebody else under the name that a Deployment's next set would have.
fn squatter(deployment: &Deployment, next: &str) -> Option<Letter> {
    let app = facts::name(&deployment.metadata);
    let mut template = facts::wanted(deployment);
    template.spec.as_mut()?.containers.first_mut()?.image = Some(next.to_owned());
    let name = format!("{app}-{}", template_hash(&template, None));
    let labels = json!({ "squatter": app });
    let body = json!({
        "metadata": { "name": name },
        "spec": {
            "replicas": 0, "selector": { "matchLabels": labels },
            "template": { "metadata": { "labels": labels }, "spec": { "containers": [{ "name": "c", "image": "x:g0" }] } },
        },
    });
    let namespace = deployment.metadata.namespace.clone().unwrap_or_default();
    Some(create(&namespace, Kind::ReplicaSet, body, "takes the name"))
}

/// What is put right when the faults stop: nothing paused, good images, no pods that nobody manages, nodes open.
pub fn put_right(world: &Snapshot) -> Vec<Letter> {
    let mut letters = Vec::new();
    for deployment in world.list::<Deployment>(None).filter(|it| !facts::is_deleted(&it.metadata)) {
        if facts::is_paused(deployment) {
            letters.push(merge(deployment, json!({ "spec": { "paused": false } }), "resumes".into()));
        }
        if !workloads::serves(&image_of(deployment)) && !is_left_stuck(deployment, world) {
            let app = facts::name(&deployment.metadata);
            letters.push(set_image(deployment, &format!("{app}:g9")));
        }
    }
    for pod in world.list::<Pod>(None).filter(|pod| api::object::controller_of(&pod.metadata).is_none()) {
        let namespace = pod.metadata.namespace.clone().unwrap_or_default();
        letters.push(delete(Key::new(Kind::Pod, namespace, facts::name(&pod.metadata)), None));
    }
    // Pods whose claim somebody deleted, and whose set does not make it: another set did, which is gone.
    for pod in world.list::<Pod>(None).filter(|pod| facts::node(pod).is_empty()) {
        let namespace = pod.metadata.namespace.clone().unwrap_or_default();
        let is_gone = |claim: &str| world.object(Kind::PersistentVolumeClaim, &namespace, claim).is_none();
        if api::volumes::claims_of(pod).any(is_gone) {
            letters.push(delete(Key::new(Kind::Pod, namespace.clone(), facts::name(&pod.metadata)), None));
        }
    }
    // Sets that were let go: nobody is left to mend them.
    for set in world.list::<ReplicaSet>(None).filter(|set| api::object::controller_of(&set.metadata).is_none()) {
        let containers = facts::template(set).spec.map(|spec| spec.containers).unwrap_or_default();
        let namespace = set.metadata.namespace.clone().unwrap_or_default();
        if !containers.iter().all(|container| container.image.as_deref().is_some_and(workloads::serves)) {
            letters.push(delete(Key::new(Kind::ReplicaSet, namespace, facts::name(&set.metadata)), None));
        }
    }
    letters.extend(workloads::put_right(world));
    letters.extend(bounds::put_right(world));
    for node in world.list::<Node>(None) {
        if node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true) {
            letters.push(cordon(node, false));
        }
        letters.extend(is_tainted(node).then(|| taint(node)));
    }
    letters
}

/// What is put right when all else has come to rest: rollouts that were left stuck.
pub fn mend(world: &Snapshot) -> Vec<Letter> {
    let stuck = world.list::<Deployment>(None).filter(|deployment| is_stuck(deployment));
    stuck.map(|deployment| set_image(deployment, &format!("{}:g9", facts::name(&deployment.metadata)))).collect()
}

/// True for a rollout to pods that never become ready.
pub fn is_stuck(deployment: &Deployment) -> bool {
    facts::replicas(deployment) > 0 && !workloads::serves(&image_of(deployment))
}

/// True for a rollout that nobody puts right: its new pods never become ready, all others are well, and nobody scales it.
fn is_left_stuck(deployment: &Deployment, world: &Snapshot) -> bool {
    let namespace = deployment.metadata.namespace.as_deref().unwrap_or("");
    let scaled = world.object(Kind::HorizontalPodAutoscaler, namespace, facts::name(&deployment.metadata)).is_some();
    let is_well = |set: &ReplicaSet| {
        let template = facts::template(set);
        let containers = template.spec.iter().flat_map(|spec| &spec.containers);
        facts::same_template(&template, &facts::wanted(deployment))
            || facts::size(set) == 0
            || containers.filter_map(|container| container.image.as_deref()).all(workloads::serves)
    };
    let stuck = image_of(deployment).contains(":n");
    stuck && !scaled && facts::sets(deployment, world).into_iter().all(is_well)
}

/// How the next image behaves. Few versions, so that people come back to old templates by hand too.
fn image_tag(edits: u32, faults: &Faults, random: &mut StdRng) -> String {
    let bad = faults.bad_images && random.random_ratio(2, 5);
    let kind = if bad { pick(&['p', 'c', 'n', 's', 't'], random) } else { Some('g') };
    format!("{}{}", kind.unwrap_or('g'), edits % 6)
}

/// The image a Deployment asks for.
pub fn image_of(deployment: &Deployment) -> String {
    let template = facts::wanted(deployment);
    let containers = template.spec.iter().flat_map(|spec| &spec.containers);
    containers.filter_map(|container| container.image.clone()).next().unwrap_or_default()
}

/// Opens or closes a node to new pods.
pub fn cordon(node: &Node, closed: bool) -> Letter {
    let name = facts::name(&node.metadata);
    let patch = json!({ "spec": { "unschedulable": closed } });
    let words = format!("{} node {name}", if closed { "cordons" } else { "uncordons" });
    patch_letter(Key::new(Kind::Node, "", name), patch, words)
}

/// Lets a node evict whatever does not put up with its maintenance, or no longer.
pub fn taint(node: &Node) -> Letter {
    let mut taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten()).cloned().collect::<Vec<_>>();
    let before = taints.len();
    taints.retain(|taint| taint.key != MAINTENANCE);
    let on = taints.len() == before;
    if on {
        taints.push(Taint { key: MAINTENANCE.into(), effect: "NoExecute".into(), ..Default::default() });
    }
    let name = facts::name(&node.metadata);
    let words = format!("{} node {name} for maintenance", if on { "empties" } else { "lets in again" });
    patch_letter(Key::new(Kind::Node, "", name), json!({ "spec": { "taints": taints } }), words)
}

/// True while a node is emptied.
pub fn is_tainted(node: &Node) -> bool {
    node.spec.iter().flat_map(|spec| spec.taints.iter().flatten()).any(|taint| taint.key == MAINTENANCE)
}

/// A node as its agent registers it.
pub fn node(name: &str) -> Letter {
    // The last thousandths take only small pods: those that are bound to a node by their volumes find room there.
    let amounts = json!({ "cpu": "1590m", "memory": "8Gi", "pods": "110" });
    let body = json!({
        "metadata": { "name": name, "labels": { "kubernetes.io/hostname": name } },
        "status": {
            "capacity": amounts, "allocatable": amounts,
            "conditions": [{ "type": "Ready", "status": "True" }],
        },
    });
    create("", Kind::Node, body, "registers")
}

/// A node's Lease, made or renewed.
pub fn renewal(node: &str, world: &Snapshot, now: Timestamp) -> Letter {
    let ask = match world.get::<Lease>(NODE_LEASES, node) {
        Some(lease) => {
            let mut renewed = lease.clone();
            (renewed.metadata.resource_version, renewed.metadata.uid) = (None, None);
            renewed.spec.get_or_insert_default().renew_time = Some(MicroTime(now));
            Ask::Update(Key::new(Kind::Lease, NODE_LEASES, node), Part::Main, renewed.into_body())
        }
        None => {
            let spec = json!({ "holderIdentity": node, "renewTime": MicroTime(now) });
            create(NODE_LEASES, Kind::Lease, json!({ "metadata": { "name": node }, "spec": spec }), "makes").ask
        }
    };
    Letter { sender: Sender::Beat, ..Letter::of_person(ask, String::new()) }
}

/// A node that was given up says that it lives.
pub fn revival(node: &str, now: Timestamp) -> Letter {
    let time = Time(now);
    let ready = json!({ "type": "Ready", "status": "True", "lastHeartbeatTime": time, "lastTransitionTime": time });
    let document = json!({ "status": { "conditions": [ready] } }).to_string();
    let key = Key::new(Kind::Node, "", node);
    let ask = Ask::Patch(key, Part::Status, PatchType::Strategic, Bytes::from(document));
    Letter { sender: Sender::Beat, ..Letter::of_person(ask, String::new()) }
}

fn service(namespace: &str, app: &str) -> Letter {
    let spec = json!({ "selector": { "app": app }, "ports": [{ "port": 80 }] });
    create(namespace, Kind::Service, json!({ "metadata": { "name": app }, "spec": spec }), "makes")
}

fn strategy(random: &mut StdRng) -> Value {
    if random.random_ratio(1, 6) {
        return json!({ "type": "Recreate", "rollingUpdate": null });
    }
    let amounts = [json!(0), json!(1), json!(2), json!("25%"), json!("50%"), json!("30%")];
    let mut one = || amounts[random.random_range(0..amounts.len())].clone();
    let (surge, mut unavailable) = (one(), one());
    if surge == json!(0) && unavailable == json!(0) {
        unavailable = json!(1);
    }
    json!({ "type": "RollingUpdate", "rollingUpdate": { "maxSurge": surge, "maxUnavailable": unavailable } })
}

/// Back to a template that some set still has, sometimes the present one.
fn undo_to(deployment: &Deployment, world: &Snapshot, undo: Undo, random: &mut StdRng) -> Option<Letter> {
    let mut sets = facts::sets(deployment, world);
    sets.sort_by_key(|set| facts::revision(set));
    let set = pick(&sets, random)?;
    let template = undo(facts::template(set));
    let patch = json!([{ "op": "replace", "path": "/spec/template", "value": template }]);
    let words = format!("undoes {} to revision {}", facts::name(&deployment.metadata), facts::revision(set));
    let document = Bytes::from(patch.to_string());
    let ask = Ask::Patch(key_of(deployment), Part::Main, PatchType::Json, document);
    Some(Letter { expects: Some(facts::template(set)), ..Letter::of_person(ask, words) })
}

fn delete_something(deployment: &Deployment, world: &Snapshot, random: &mut StdRng) -> Option<Letter> {
    let how = pick(&[None, Some(Propagation::Foreground), Some(Propagation::Orphan)], random)?;
    let namespace = deployment.metadata.namespace.clone().unwrap_or_default();
    match random.random_range(0..9) {
        0 | 1 => Some(delete(key_of(deployment), how)),
        2 => {
            let sets = facts::sets(deployment, world);
            let set = pick(&sets, random)?;
            Some(delete(Key::new(Kind::ReplicaSet, namespace, facts::name(&set.metadata)), how))
        }
        3 if world.object(Kind::Namespace, "", SHORT_LIVED).is_some() => {
            Some(delete(Key::new(Kind::Namespace, "", SHORT_LIVED), None))
        }
        _ => {
            let pods: Vec<&Pod> = world.list::<Pod>(None).collect();
            let pod = pick(&pods, random)?;
            let namespace = pod.metadata.namespace.clone().unwrap_or_default();
            let mut letter = delete(Key::new(Kind::Pod, namespace, facts::name(&pod.metadata)), None);
            // By force, but for pods with a name of their own: that may run twice then, and people are told so.
            let owner = api::object::controller_of(&pod.metadata);
            let forced = owner.is_none_or(|owner| owner.kind != "StatefulSet") && random.random_ratio(1, 4);
            if let (Ask::Delete(_, options), true) = (&mut letter.ask, forced) {
                options.grace_period_seconds = Some(0);
            }
            Some(letter)
        }
    }
}

/// Takes a pod out of its set, puts one in, or makes one that nobody manages but somebody's selector matches.
fn edit_labels(world: &Snapshot, random: &mut StdRng) -> Option<Letter> {
    let pods: Vec<&Pod> = world.list::<Pod>(Some(NAMESPACE)).collect();
    let pod = pick(&pods, random)?;
    let key = Key::new(Kind::Pod, NAMESPACE, facts::name(&pod.metadata));
    match random.random_range(0..4) {
        0 => {
            let patch = json!({ "metadata": { "labels": { "app": "taken-out" } } });
            Some(patch_letter(key.clone(), patch, format!("takes {key} out of its set")))
        }
        1 => {
            let owner = api::object::controller_of(&pod.metadata);
            let app = owner.map_or("web", |owner| owner.name.split('-').next().unwrap_or("web"));
            let patch = json!({ "metadata": { "labels": { "app": app } } });
            Some(patch_letter(key.clone(), patch, format!("labels {key} app={app}")))
        }
        2 => {
            let patch = json!({ "metadata": { "labels": { facts::HASH: null } } });
            Some(patch_letter(key.clone(), patch, format!("takes the hash off {key}")))
        }
        _ => {
            let mut copy = pod.clone();
            copy.metadata = k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
                name: Some(format!("stray-{}", random.random_range(0..1000))),
                labels: pod.metadata.labels.clone(),
                ..Default::default()
            };
            copy.status = None;
            if let Some(spec) = &mut copy.spec {
                spec.node_name = None;
            }
            let ask = Ask::Create(NAMESPACE.into(), copy.into_body());
            Some(Letter::of_person(ask.clone(), format!("makes {}", ask.key())))
        }
    }
}

/// What ties an object to its owner is another thing: nothing, somebody who is not there, somebody who does not control it.
fn corrupt(world: &Snapshot, random: &mut StdRng) -> Option<Letter> {
    let kind = pick(&[Kind::Pod, Kind::Pod, Kind::Pod, Kind::ReplicaSet, Kind::ControllerRevision], random)?;
    // Jobs count what they made, and it is theirs for good.
    let is_kept = |object: &&Arc<Object>| {
        let owner = api::object::controller_of(object.meta());
        owner.is_some_and(|owner| owner.kind != "Job") && !facts::is_deleted(object.meta())
    };
    let objects: Vec<&Arc<Object>> = world.objects(kind, Some(NAMESPACE)).filter(is_kept).collect();
    let object = pick(&objects, random)?;
    let mut owners = object.meta().owner_references.clone()?;
    let owner = owners.first_mut()?;
    let words = match random.random_range(0..4) {
        0 => {
            owners.clear();
            "nobody"
        }
        1 => {
            owner.uid = "another".into();
            "another uid"
        }
        2 => {
            owner.name = "another".into();
            "another name"
        }
        _ => {
            owner.controller = None;
            "an owner that does not control it"
        }
    };
    let patch = json!({ "metadata": { "ownerReferences": owners } });
    Some(patch_letter(object.key(), patch, format!("gives {} to {words}", object.key())))
}

fn set_image(deployment: &Deployment, image: &str) -> Letter {
    let patch = json!([{ "op": "replace", "path": "/spec/template/spec/containers/0/image", "value": image }]);
    let words = format!("sets image of {} to {image}", facts::name(&deployment.metadata));
    let ask = Ask::Patch(key_of(deployment), Part::Main, PatchType::Json, Bytes::from(patch.to_string()));
    Letter::of_person(ask, words)
}

fn merge(deployment: &Deployment, patch: Value, words: String) -> Letter {
    let words = format!("{words}: {}", facts::name(&deployment.metadata));
    patch_letter(key_of(deployment), patch, words)
}

fn patch_letter(key: Key, patch: Value, words: String) -> Letter {
    let ask = Ask::Patch(key, Part::Main, PatchType::Merge, Bytes::from(patch.to_string()));
    Letter::of_person(ask, words)
}

/// Ends an object.
pub fn delete(key: Key, propagation: Option<Propagation>) -> Letter {
    let how = propagation.map_or(String::new(), |how| format!(" ({how:?})"));
    let words = format!("deletes {key}{how}");
    let ask = Ask::Delete(key, DeleteOptions { propagation, ..Default::default() });
    Letter::of_person(ask, words)
}

fn create(namespace: &str, kind: Kind, body: Value, verb: &str) -> Letter {
    let body = kind.decode(body).expect("what people write here is well formed");
    let ask = Ask::Create(namespace.to_owned(), body);
    Letter::of_person(ask.clone(), format!("{verb} {}", ask.key()))
}

fn key_of(deployment: &Deployment) -> Key {
    let namespace = deployment.metadata.namespace.clone().unwrap_or_default();
    Key::new(Kind::Deployment, namespace, facts::name(&deployment.metadata))
}
