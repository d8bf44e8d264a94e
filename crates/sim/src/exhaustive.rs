//! Every interleaving of a small rollout: at most four pods, two changes of the template, one crash of the server, one
//! node that is lost.
//!
//! Where the random runs go far, this goes everywhere: from each state each thing that can happen next is tried, and
//! every invariant is asked after every change. A state is known again by what matters of it (templates, sizes, pods
//! and how far they are), not by names, times and revisions. The node is coarse here: a pod becomes ready, or goes.

use std::collections::HashSet;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use api::patch::PatchType;
use api::{Key, Kind, Pod, Snapshot, Usage};
use bytes::Bytes;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::json;
use server::door::{DeleteOptions, Ids, Part, Requester};
use server::minds::{Minds, Real};
use server::turn::{Request, Writer};
use server::why::Whys;
use tokio::sync::oneshot;

use crate::facts;
use crate::invariants::{Breach, Taken, Witness};
use crate::letters::Ask;

/// States after which the search is ended: more means that states are not known again.
const STATES: usize = 2_000_000;
/// Turns without rest; more is a loop.
const TURNS: usize = 64;

/// One rollout to search.
#[derive(Clone, Copy, Debug)]
pub struct Small {
    /// Pods wanted.
    pub replicas: i32,
    /// `maxSurge`.
    pub surge: i32,
    /// `maxUnavailable`.
    pub unavailable: i32,
    /// Recreate instead of RollingUpdate.
    pub recreate: bool,
}

/// What was searched.
pub struct Searched {
    /// Different states.
    pub states: usize,
    /// Steps taken.
    pub steps: usize,
    /// What broke, and the steps that led there.
    pub breach: Option<(Breach, Vec<String>)>,
}

/// One thing that can happen.
#[derive(Clone, Debug)]
enum Step {
    /// The next template is asked for.
    Edit,
    /// A pod's readiness becomes this.
    Ready(String),
    /// A node lets a pod go that is being deleted.
    Gone(String, String),
    /// The server crashes and starts again.
    Crash,
    /// A node is lost with all that is on it.
    LoseNode(String),
}

#[derive(Clone)]
struct State {
    writer: Writer,
    witness: Witness,
    edits: u8,
    crashes: u8,
    losses: u8,
    path: Vec<String>,
}

/// The rollouts that `--exhaustive` searches.
pub fn all() -> Vec<Small> {
    let mut all = Vec::new();
    for replicas in 1..=3 {
        for (surge, unavailable) in [(1, 0), (0, 1), (1, 1), (2, 0)] {
            if replicas + surge <= 4 {
                all.push(Small { replicas, surge, unavailable, recreate: false });
            }
        }
        all.push(Small { replicas, surge: 0, unavailable: 0, recreate: true });
    }
    all
}

/// Searches one rollout to its end.
pub fn search(small: Small) -> Searched {
    search_with(small, Arc::new(Real))
}

/// As [`search`], with other decisions.
pub fn search_with(small: Small, minds: Arc<dyn Minds>) -> Searched {
    let mut searched = Searched { states: 0, steps: 0, breach: None };
    let mut known: HashSet<u64> = HashSet::new();
    let first = match begin(small, &minds) {
        Ok(first) => first,
        Err(breach) => return Searched { breach: Some((breach, Vec::new())), ..searched },
    };
    known.insert(fingerprint(&first));
    let mut open = vec![first];
    while let Some(state) = open.pop() {
        let steps = steps(&state);
        let settled = !steps.iter().any(|step| matches!(step, Step::Ready(_) | Step::Gone(..)));
        if settled && let Err(message) = arrived(state.writer.world()) {
            searched.breach = Some((Breach::new("I24 arrives", message), state.path));
            return searched;
        }
        for step in steps {
            searched.steps += 1;
            let mut next = state.clone();
            next.path.push(format!("{step:?}"));
            if let Err(breach) = take(&mut next, &step, &minds) {
                searched.breach = Some((breach, next.path));
                return searched;
            }
            if known.insert(fingerprint(&next)) {
                open.push(next);
            }
        }
        searched.states = known.len();
        if known.len() > STATES {
            let message = format!("more than {STATES} states");
            searched.breach = Some((Breach::new("the search", message), Vec::new()));
            return searched;
        }
    }
    searched
}

fn now() -> Timestamp {
    Timestamp::from_second(1_767_225_600).expect("a time in this century")
}

fn writer(world: Snapshot, minds: &Arc<dyn Minds>, seed: u64) -> Writer {
    Writer::with_minds(world, Ids::from_seed(seed), Arc::new(Whys::default()), minds.clone())
}

/// Two nodes and a Deployment whose pods are ready.
fn begin(small: Small, minds: &Arc<dyn Minds>) -> Result<State, Breach> {
    let world = Snapshot::default();
    let witness = Witness::new(world.clone(), &[]);
    let writer = writer(world, minds, 1);
    let mut state = State { writer, witness, edits: 0, crashes: 0, losses: 0, path: Vec::new() };
    ask(&mut state, create("", Kind::Namespace, json!({ "metadata": { "name": "default" } })))?;
    for name in ["n1", "n2"] {
        let amounts = json!({ "cpu": "8", "memory": "8Gi", "pods": "110" });
        let ready = json!([{ "type": "Ready", "status": "True" }]);
        let status = json!({ "capacity": amounts, "allocatable": amounts, "conditions": ready });
        ask(&mut state, create("", Kind::Node, json!({ "metadata": { "name": name }, "status": status })))?;
    }
    let strategy = if small.recreate {
        json!({ "type": "Recreate" })
    } else {
        let bounds = json!({ "maxSurge": small.surge, "maxUnavailable": small.unavailable });
        json!({ "type": "RollingUpdate", "rollingUpdate": bounds })
    };
    let body = json!({ "metadata": { "name": "web" }, "spec": {
        "replicas": small.replicas, "strategy": strategy, "progressDeadlineSeconds": 600,
        "selector": { "matchLabels": { "app": "web" } },
        "template": {
            "metadata": { "labels": { "app": "web" } },
            "spec": { "containers": [{ "name": "c", "image": "web:0" }] },
        },
    } });
    ask(&mut state, create("default", Kind::Deployment, body))?;
    while let Some(step) = steps(&state).into_iter().find(|step| matches!(step, Step::Ready(_))) {
        take(&mut state, &step, minds)?;
    }
    Ok(state)
}

fn create(namespace: &str, kind: Kind, body: serde_json::Value) -> Ask {
    Ask::Create(namespace.into(), kind.decode(body).expect("what is written here is well formed"))
}

/// All that can happen next.
fn steps(state: &State) -> Vec<Step> {
    let world = state.writer.world();
    let mut steps = Vec::new();
    if state.edits < 2 {
        steps.push(Step::Edit);
    }
    if state.crashes < 1 {
        steps.push(Step::Crash);
    }
    if state.losses < 1 {
        steps.extend(world.list::<Node>(None).map(|node| Step::LoseNode(facts::name(&node.metadata).into())));
    }
    for pod in world.list::<Pod>(None).filter(|pod| !facts::node(pod).is_empty()) {
        let name = facts::name(&pod.metadata).to_owned();
        if facts::is_deleted(&pod.metadata) {
            steps.push(Step::Gone(name, facts::uid(&pod.metadata).to_owned()));
        } else if facts::ready_since(pod).is_none() {
            steps.push(Step::Ready(name));
        }
    }
    steps
}

fn take(state: &mut State, step: &Step, minds: &Arc<dyn Minds>) -> Result<(), Breach> {
    let pod = |name: &str| Key::new(Kind::Pod, "default", name);
    match step {
        Step::Edit => {
            state.edits += 1;
            // There and back: the second change undoes the first, or goes on to a third template.
            let image = format!("web:{}", state.edits);
            let patch = json!([{ "op": "replace", "path": "/spec/template/spec/containers/0/image", "value": image }]);
            let key = Key::new(Kind::Deployment, "default", "web");
            ask(state, Ask::Patch(key, Part::Main, PatchType::Json, Bytes::from(patch.to_string())))
        }
        Step::Ready(name) => {
            let patch = json!({ "status": { "phase": "Running", "podIP": "10.0.0.1", "conditions": [
                { "type": "Ready", "status": "True", "lastTransitionTime": now().to_string() }
            ] } });
            ask(state, Ask::Patch(pod(name), Part::Status, PatchType::Strategic, Bytes::from(patch.to_string())))
        }
        Step::Gone(name, uid) => {
            let uid = Some(uid.clone());
            let options = DeleteOptions { grace_period_seconds: Some(0), uid, ..Default::default() };
            ask(state, Ask::Delete(pod(name), options))
        }
        Step::LoseNode(name) => {
            state.losses += 1;
            ask(state, Ask::Delete(Key::new(Kind::Node, "", name.clone()), DeleteOptions::default()))
        }
        Step::Crash => {
            state.crashes += 1;
            state.writer = writer(state.writer.world().clone(), minds, 1_000 + u64::from(state.edits));
            settle(state, None)
        }
    }
}

fn ask(state: &mut State, ask: Ask) -> Result<(), Breach> {
    settle(state, Some(ask))
}

/// Turns until nothing is left to decide, pods of lost nodes included, which are taken out a little later.
fn settle(state: &mut State, ask: Option<Ask>) -> Result<(), Breach> {
    let request = |ask: Ask| Request {
        action: ask.action(),
        requester: Requester::new("user", "sim"),
        dry_run: false,
        reply: oneshot::channel().0,
    };
    let mut requests: Vec<Request> = ask.map(request).into_iter().collect();
    let later = now() + jiff::SignedDuration::from_secs(60);
    for turn in 0..TURNS {
        let time = if turn == 0 { now() } else { later };
        if turn == 1 {
            requests.extend(beats(state, later).into_iter().map(request));
        }
        let done = state.writer.take_turn(&mut || requests.pop(), time);
        let rests = !state.writer.has_decisions();
        let taken = Taken { now: time, rests, refuses: false, usage: Usage::default() };
        state.witness.see(&done, &taken)?;
        if rests && done.changes.is_empty() && turn > 0 {
            return Ok(());
        }
    }
    Err(Breach::new("I28 bounded work", "turn after turn, and no rest"))
}

/// The nodes that are there live on: none of them is given up in the meantime.
fn beats(state: &State, time: Timestamp) -> Vec<Ask> {
    let beat = Time(time + jiff::SignedDuration::from_secs(state.path.len() as i64));
    let patch = json!({ "status": { "conditions": [{ "type": "Ready", "lastHeartbeatTime": beat }] } }).to_string();
    let nodes = state.writer.world().objects(Kind::Node, None);
    nodes.map(|node| Ask::Patch(node.key(), Part::Status, PatchType::Strategic, Bytes::from(patch.clone()))).collect()
}

/// When no pod can get on any more, the Deployment has what it asks for.
fn arrived(world: &Snapshot) -> Result<(), String> {
    let Some(deployment) = world.get::<Deployment>("default", "web") else { return Err("no Deployment".into()) };
    let wanted = facts::wanted(deployment);
    let new: i32 = facts::sets(deployment, world)
        .iter()
        .filter(|set| facts::same_template(&facts::template(set), &wanted))
        .map(|set| facts::available(set, world, now()))
        .sum();
    let all = world.list::<Pod>(None).count() as i32;
    let replicas = facts::replicas(deployment);
    if new == replicas && all == replicas { Ok(()) } else { Err(format!("{new} new pods of {replicas}, {all} in all")) }
}

/// What matters of a state, the same for states that differ only in names, times and revisions. The nodes are alike: of
/// the two ways to name them the lesser counts.
fn fingerprint(state: &State) -> u64 {
    fingerprint_as(state, ["n1", "n2"]).min(fingerprint_as(state, ["n2", "n1"]))
}

fn fingerprint_as(state: &State, nodes: [&str; 2]) -> u64 {
    let number = |name: &str| nodes.iter().position(|node| *node == name);
    let world = state.writer.world();
    let mut sets: Vec<String> = Vec::new();
    for set in world.list::<ReplicaSet>(None) {
        let mut pods: Vec<String> = facts::pods(set, world)
            .iter()
            .map(|pod| {
                let ready = facts::ready_since(pod).is_some();
                format!("{:?}{}{ready}", number(facts::node(pod)), facts::is_deleted(&pod.metadata))
            })
            .collect();
        pods.sort();
        let containers = facts::template(set).spec.map(|spec| spec.containers).unwrap_or_default();
        let image = containers.first().and_then(|container| container.image.clone());
        let status = set.status.as_ref().map(|status| {
            (status.replicas, status.ready_replicas, status.available_replicas, status.terminating_replicas)
        });
        let seen = set.status.as_ref().and_then(|status| status.observed_generation) == set.metadata.generation;
        let notes = (facts::revision(set), facts::number(&set.metadata, facts::DESIRED));
        sets.push(format!("{image:?}{:?}{pods:?}{status:?}{seen}{notes:?}", facts::size(set)));
    }
    sets.sort();
    let deployment = world.get::<Deployment>("default", "web");
    let mut status = deployment.and_then(|deployment| deployment.status.clone()).unwrap_or_default();
    for condition in status.conditions.iter_mut().flatten() {
        (condition.last_update_time, condition.last_transition_time, condition.message) = (None, None, None);
    }
    status.observed_generation = None;
    let mut there: Vec<Option<usize>> =
        world.list::<Node>(None).map(|node| number(facts::name(&node.metadata))).collect();
    there.sort_unstable();
    let mut hasher = DefaultHasher::new();
    (state.edits, state.crashes, state.losses, sets, there, format!("{status:?}")).hash(&mut hasher);
    hasher.finish()
}
