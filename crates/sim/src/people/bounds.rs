//! What bounds workloads, and what people do with it: budgets for evictions, quotas, autoscalers, and nodes that are
//! drained.
//!
//! A run has a random part of the kinds. The work that there is for an app is shared by its ready pods; it changes as
//! people please, and with it what an autoscaler wants.

use std::collections::BTreeMap;

use api::{Key, Kind, Object, Pod, Snapshot};
use k8s_openapi::api::core::v1::Node;
use rand::Rng;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use server::door::DeleteOptions;

use super::{APPS, NAMESPACE, cordon, create, delete, patch_letter, pick};
use crate::facts;
use crate::letters::{Ask, Letter, Sender};

/// The one quota of a run.
const QUOTA: &str = "limit";
/// Work that there may be for an app, in thousandths of a core; each of its pods asks for a tenth of a core.
const LOADS: [i64; 7] = [20, 90, 140, 180, 260, 330, 520];

/// What people bound, and how much work there is.
#[derive(Default)]
pub struct Bounds {
    budgets: bool,
    quota: bool,
    autoscalers: bool,
    /// By app, in thousandths of a core.
    load: BTreeMap<String, i64>,
}

impl Bounds {
    /// A random part of the kinds.
    pub fn some(random: &mut StdRng) -> Bounds {
        let [budgets, quota, autoscalers] = [(); 3].map(|()| random.random_ratio(1, 4));
        let load = APPS.iter().map(|app| ((*app).to_owned(), pick(&LOADS, random).unwrap_or_default())).collect();
        Bounds { budgets, quota, autoscalers, load }
    }

    /// True if there is nothing of it.
    pub fn is_empty(&self) -> bool {
        !self.budgets && !self.quota && !self.autoscalers
    }

    /// True if it matters what pods use.
    pub fn measures(&self) -> bool {
        self.autoscalers
    }

    /// The work there is for an app, in thousandths of a core.
    pub fn load(&self, app: &str) -> i64 {
        self.load.get(app).copied().unwrap_or_default()
    }

    /// From now on there is so much work for an app, and it matters what pods use.
    pub fn set_load(&mut self, app: &str, milli: i64) {
        self.autoscalers = true;
        self.load.insert(app.to_owned(), milli);
    }

    /// What is made first for these apps.
    pub fn first(&self, apps: &[&'static str], random: &mut StdRng) -> Vec<Letter> {
        let mut letters = Vec::new();
        for app in apps {
            if self.budgets && random.random_ratio(3, 4) {
                letters.push(make(Kind::PodDisruptionBudget, app, random));
            }
            if self.autoscalers && random.random_ratio(3, 4) {
                letters.push(make(Kind::HorizontalPodAutoscaler, app, random));
            }
        }
        if self.quota {
            letters.push(make(Kind::ResourceQuota, QUOTA, random));
        }
        letters
    }

    /// What people do next.
    pub fn act(&mut self, apps: &[&'static str], world: &Snapshot, random: &mut StdRng) -> Vec<Letter> {
        let kinds = [
            (self.budgets, Kind::PodDisruptionBudget),
            (self.quota, Kind::ResourceQuota),
            (self.autoscalers, Kind::HorizontalPodAutoscaler),
        ];
        let kinds: Vec<Kind> = kinds.into_iter().filter(|(on, _)| *on).map(|(_, kind)| kind).collect();
        let (Some(kind), Some(app)) = (pick(&kinds, random), pick(apps, random)) else { return Vec::new() };
        match kind {
            Kind::PodDisruptionBudget if random.random_ratio(2, 3) => return drain(world, random),
            Kind::HorizontalPodAutoscaler if random.random_ratio(2, 3) => {
                self.change_load(app, random);
                return Vec::new();
            }
            _ => {}
        }
        let name = if kind == Kind::ResourceQuota { QUOTA } else { app };
        let Some(object) = world.object(kind, NAMESPACE, name) else { return vec![make(kind, name, random)] };
        match random.random_range(0..6) {
            0 => vec![delete(object.key(), None)],
            1 => vec![delete(object.key(), None), make(kind, name, random)],
            _ => vec![change(object, random)],
        }
    }

    /// More or less work, by much or by little.
    fn change_load(&mut self, app: &'static str, random: &mut StdRng) {
        let before = self.load(app);
        let drifted = before * random.random_range(92..=109) / 100;
        let jumped = pick(&LOADS, random).unwrap_or_default();
        self.load.insert(app.to_owned(), if random.random_bool(0.5) { drifted } else { jumped });
    }
}

fn make(kind: Kind, name: &str, random: &mut StdRng) -> Letter {
    let spec = match kind {
        Kind::PodDisruptionBudget => budget(name, random),
        Kind::ResourceQuota => json!({ "hard": hard(random) }),
        _ => autoscaler(name, random),
    };
    create(NAMESPACE, kind, json!({ "metadata": { "name": name }, "spec": spec }), "makes")
}

fn change(object: &Object, random: &mut StdRng) -> Letter {
    let spec = match object.kind() {
        Kind::PodDisruptionBudget => allowance(random),
        Kind::ResourceQuota => json!({ "hard": hard(random) }),
        _ if random.random_ratio(1, 3) => json!({ "metrics": [metric(random)] }),
        _ => json!({ "minReplicas": random.random_range(1..=3), "maxReplicas": random.random_range(3..=8) }),
    };
    patch_letter(object.key(), json!({ "spec": spec }), format!("changes {} to {spec}", object.key()))
}

fn budget(app: &str, random: &mut StdRng) -> Value {
    let mut spec = allowance(random);
    spec["selector"] = json!({ "matchLabels": { "app": app } });
    if let Some(policy) = pick(&[None, Some("AlwaysAllow"), Some("IfHealthyBudget")], random).flatten() {
        spec["unhealthyPodEvictionPolicy"] = json!(policy);
    }
    spec
}

fn allowance(random: &mut StdRng) -> Value {
    let amounts = [json!(0), json!(1), json!(2), json!("25%"), json!("50%"), json!("75%")];
    let amount = &amounts[random.random_range(0..amounts.len())];
    if random.random_bool(0.5) {
        json!({ "minAvailable": amount, "maxUnavailable": null })
    } else {
        json!({ "maxUnavailable": amount, "minAvailable": null })
    }
}

/// What a namespace may have. All names are always there, so that a patch replaces them.
fn hard(random: &mut StdRng) -> Value {
    let bounded = random.random_range(0..3);
    let mut amount = |kind: i32, few: i64, many: i64| {
        let limit = if kind == bounded { random.random_range(few..=many) } else { 1_000 };
        json!(limit.to_string())
    };
    json!({ "pods": amount(0, 3, 16), "requests.cpu": amount(1, 1, 2), "count/replicasets.apps": amount(2, 2, 8) })
}

fn autoscaler(app: &str, random: &mut StdRng) -> Value {
    let mut spec = json!({
        "scaleTargetRef": { "apiVersion": "apps/v1", "kind": "Deployment", "name": app },
        "minReplicas": random.random_range(1..=3), "maxReplicas": random.random_range(3..=8),
        "metrics": [metric(random)],
    });
    if random.random_bool(0.5) {
        spec["behavior"] = json!({ "scaleUp": rules([0, 30], random), "scaleDown": rules([60, 120], random) });
    }
    spec
}

/// How much a pod is to do: a part of what it asks for, which is a tenth of a core, or so much; all of it, or its one
/// container, which is the same.
fn metric(random: &mut StdRng) -> Value {
    let much = pick(&[20, 50, 80], random).unwrap_or(50);
    let target = if random.random_ratio(2, 3) {
        json!({ "type": "Utilization", "averageUtilization": much })
    } else {
        json!({ "type": "AverageValue", "averageValue": format!("{much}m") })
    };
    if random.random_ratio(2, 3) {
        json!({ "type": "Resource", "resource": { "name": "cpu", "target": target } })
    } else {
        json!({ "type": "ContainerResource", "containerResource": { "name": "cpu", "container": "c", "target": target } })
    }
}

/// Never down at once: a pod that has just become ready shares the work, but is not counted yet, so that the number would
/// go up and down for ever (as upstream's does).
fn rules(windows: [i32; 2], random: &mut StdRng) -> Value {
    let policies = [
        json!([{ "type": "Pods", "value": 1, "periodSeconds": 30 }]),
        json!([{ "type": "Pods", "value": 2, "periodSeconds": 60 }]),
        json!([{ "type": "Percent", "value": 50, "periodSeconds": 15 }]),
    ];
    json!({
        "stabilizationWindowSeconds": pick(&windows, random),
        "selectPolicy": pick(&["Max", "Max", "Max", "Disabled"], random),
        "policies": policies[random.random_range(0..policies.len())],
    })
}

/// Drains some node.
fn drain(world: &Snapshot, random: &mut StdRng) -> Vec<Letter> {
    let nodes: Vec<&Node> = world.list::<Node>(None).collect();
    pick(&nodes, random).map(|node| drained(node, world)).unwrap_or_default()
}

/// `kubectl drain`: closes a node and evicts what is on it, daemon pods apart, each until it is gone.
pub fn drained(node: &Node, world: &Snapshot) -> Vec<Letter> {
    let stays = |pod: &&Pod| {
        let owner = api::object::controller_of(&pod.metadata);
        owner.is_none_or(|owner| owner.kind != "DaemonSet") && !facts::is_deleted(&pod.metadata)
    };
    let pods = world.pods_on(facts::name(&node.metadata)).filter(stays).map(evict);
    std::iter::once(cordon(node, true)).chain(pods).collect()
}

fn evict(pod: &Pod) -> Letter {
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    let key = Key::new(Kind::Pod, namespace, facts::name(&pod.metadata));
    let words = format!("evicts {key}");
    let options = DeleteOptions { uid: pod.metadata.uid.clone(), ..Default::default() };
    Letter { sender: Sender::Drain, ..Letter::of_person(Ask::Evict(key, options), words) }
}

/// What is put right when the faults stop: room in the quota. The rest bounds nothing for good.
pub fn put_right(world: &Snapshot) -> Vec<Letter> {
    let quotas = world.objects(Kind::ResourceQuota, None).filter(|quota| !facts::is_deleted(quota.meta()));
    let roomy = json!({ "spec": { "hard": { "pods": "1k", "requests.cpu": "1k", "count/replicasets.apps": "1k" } } });
    quotas.map(|quota| patch_letter(quota.key(), roomy.clone(), format!("makes room in {}", quota.key()))).collect()
}
