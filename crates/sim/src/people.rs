//! People: they make Deployments, edit, scale, pause, undo, delete and make again, at any moment and often foolishly.

use api::patch::PatchType;
use api::template_hash::template_hash;
use api::{Body, Key, Kind, Propagation, Snapshot, Typed};
use bytes::Bytes;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Node, Pod, PodTemplateSpec};
use rand::Rng;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use server::door::{DeleteOptions, Part};

use crate::facts;
use crate::faults::Faults;
use crate::letters::{Ask, Letter};

/// Where people work.
pub const NAMESPACE: &str = "default";
/// A namespace that may be deleted with all that is in it.
pub const SHORT_LIVED: &str = "trial";
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
    /// An object as it was some time ago: the second writer works from it.
    remembered: Option<(Key, Body)>,
}

impl People {
    /// People who care for `apps` Deployments.
    pub fn new(apps: usize) -> People {
        People { apps: apps.min(APPS.len()), edits: 0, remembered: None }
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
        }
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
        let bad = faults.bad_images && random.random_ratio(2, 5);
        let kind = if bad { pick(&['p', 'c', 'n', 's', 't'], random) } else { Some('g') };
        // Few versions, so that people come back to old templates by hand too.
        format!("{app}:{}{}", kind.unwrap_or('g'), self.edits % 6)
    }

    /// What they do next.
    pub fn act(&mut self, world: &Snapshot, faults: &Faults, undo: Undo, random: &mut StdRng) -> Option<Letter> {
        let deployments: Vec<&Deployment> = world.list::<Deployment>(None).collect();
        if random.random_ratio(1, 8) || deployments.is_empty() {
            let app = pick(&APPS[..self.apps], random)?;
            if world.object(Kind::Deployment, NAMESPACE, app).is_none() {
                return Some(self.deployment(NAMESPACE, app, random));
            }
        }
        let deployment = pick(&deployments, random)?;
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
            14 if faults.collisions => self.take_next_name(deployment, random),
            15 if faults.second_writer => self.write_outdated(deployment),
            _ => None,
        }
    }

    fn edit(&mut self, deployment: &Deployment, faults: &Faults, random: &mut StdRng) -> Letter {
        let image = self.image(facts::name(&deployment.metadata), faults, random);
        set_image(deployment, &image)
    }

    /// Somebody makes a ReplicaSet whose name is the one that the next template will hash to.
    fn take_next_name(&mut self, deployment: &Deployment, random: &mut StdRng) -> Option<Letter> {
        let app = facts::name(&deployment.metadata).to_owned();
        // The next edit, or the one that puts a bad image right in the end.
        let tag = if random.random_bool(0.5) { (self.edits + 1) % 6 } else { 9 };
        let next = format!("{app}:g{tag}");
        let mut template = facts::wanted(deployment);
        template.spec.as_mut()?.containers.first_mut()?.image = Some(next);
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

/// What is put right when the faults stop: nothing paused, good images, no pods that nobody manages, nodes open.
pub fn put_right(world: &Snapshot) -> Vec<Letter> {
    let mut letters = Vec::new();
    for deployment in world.list::<Deployment>(None).filter(|it| !facts::is_deleted(&it.metadata)) {
        if facts::is_paused(deployment) {
            letters.push(merge(deployment, json!({ "spec": { "paused": false } }), "resumes".into()));
        }
        let image = image_of(deployment);
        if !image.contains(":g") && !image.contains(":t") && !image.contains(":s") {
            let app = facts::name(&deployment.metadata);
            letters.push(set_image(deployment, &format!("{app}:g9")));
        }
    }
    for pod in world.list::<Pod>(None).filter(|pod| api::object::controller_of(&pod.metadata).is_none()) {
        let namespace = pod.metadata.namespace.clone().unwrap_or_default();
        letters.push(delete(Key::new(Kind::Pod, namespace, facts::name(&pod.metadata)), None));
    }
    for node in world.list::<Node>(None) {
        if node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true) {
            letters.push(cordon(node, false));
        }
    }
    letters
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

/// A node as its agent registers it.
pub fn node(name: &str) -> Letter {
    let amounts = json!({ "cpu": "800m", "memory": "8Gi", "pods": "110" });
    let body = json!({
        "metadata": { "name": name },
        "status": {
            "capacity": amounts, "allocatable": amounts,
            "conditions": [{ "type": "Ready", "status": "True" }],
        },
    });
    create("", Kind::Node, body, "registers")
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
            if let (Ask::Delete(_, options), true) = (&mut letter.ask, random.random_ratio(1, 4)) {
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
    match random.random_range(0..3) {
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
