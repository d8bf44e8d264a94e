//! A node whose agent thinks with the real agent's thoughts: `agent::plan`, `agent::pod_on_node`, `agent::status` and the
//! status patch of `agent::report` are the ones that run in production; only containers, images and the network are
//! simulated.
//!
//! A node hands back [`Effect`]s and never touches the cluster. It stands for `agent::pod_worker`, which carries the same
//! plans out with tokio. Probes are not asked by period: a probe's answer arrives when it changes, which is what the API
//! can see of it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use agent::plan::{Step, plan};
use agent::pod_on_node::{Outcome, PodOnNode, TroubleKind};
use agent::probes::{Kind as ProbeKind, Probed};
use agent::report::status_patch;
use agent::runtime::{ContainerSeen, Exit, ImageSeen, PodSeen};
use agent::status::{Conditions, Host, agrees, status};
use agent::written::Written;
use api::{Object, Pod, Snapshot};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::PodStatus;
use rand::Rng;
use rand::rngs::StdRng;

use crate::{facts, volumes};

/// Steps that may follow each other at once; more is a mistake in the plan.
const PLANS_IN_A_ROW: usize = 100;

/// What happens on a node.
#[derive(Clone, Debug)]
pub enum NodeEvent {
    /// The agent looks at what the API has and thinks.
    Look,
    /// A step came to its end. The number is the life of the agent that began it.
    Came(String, u32, Outcome),
    /// Are the proxies done with the pod?
    Withdrawing(String, u32, Timestamp),
    /// A container ends by itself or is told to: its pod, its id, its exit code, and the boot it was started in.
    Exit(String, String, i32, u32),
    /// The API answered.
    Answer(String, u32, Report, Reply),
}

/// What an agent sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// A status.
    Status(Vec<u8>),
    /// The last status of a pod that ends.
    Last(Vec<u8>),
    /// The DELETE that lets the API object go.
    Delete,
}

/// What it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Done.
    Taken,
    /// The pod of that uid is not there any more.
    Gone,
    /// It may or may not have been done.
    Again,
}

/// What a node wants done.
#[derive(Clone, Debug)]
pub enum Effect {
    /// This happens on the node after so many seconds.
    Later(i64, NodeEvent),
    /// This goes to the API.
    Send(Arc<Object>, u32, Report),
    /// A container of the pod of this name (with its namespace) started.
    Started(String),
    /// Something went wrong that must not: an invariant and what was seen.
    Breach(&'static str, String),
}

/// What surrounds a node.
pub struct Around<'a> {
    /// The last committed state.
    pub world: &'a Snapshot,
    /// Pods that each live proxy still sends requests to.
    pub proxies: &'a [&'a BTreeSet<String>],
    /// True if no proxy is ever slow.
    pub proxies_are_well: bool,
    /// Random numbers.
    pub random: &'a mut StdRng,
    /// Slow nodes take their time.
    pub slow: bool,
    /// The true time.
    pub now: Timestamp,
}

/// How an image behaves; its tag's first letter says so.
struct Behaviour {
    pull: i64,
    unpullable: bool,
    ready: Option<i64>,
    stop: i64,
    /// It ends by itself after so many seconds, with this code.
    end: Option<(i64, i32)>,
}

fn behaviour(image: &str, slow: bool, random: &mut StdRng) -> Behaviour {
    let tag = image.rsplit(':').next().unwrap_or("");
    let some = |random: &mut StdRng, most: i64| if slow { random.random_range(0..=most) } else { 0 };
    let mut it =
        Behaviour { pull: some(random, 8), unpullable: false, ready: Some(0), stop: some(random, 3), end: None };
    it.ready = Some(some(random, 10));
    match tag.chars().next() {
        Some('p') => it.unpullable = true,
        Some('c') => it.end = Some((random.random_range(0..5), 1)),
        Some('d') => it.end = Some((random.random_range(1..9), 0)),
        Some('f') => it.end = Some((random.random_range(1..9), random.random_range(0..=1))),
        Some('l') => it.end = Some((70, 0)),
        Some('n') => it.ready = None,
        Some('s') => it.pull += 20,
        Some('t') => it.stop = 10_000,
        _ => {}
    }
    it
}

/// Exit code of a container that does as it is asked: a server ends well, work that is not done is ended by the signal.
fn stopped(image: &str) -> i32 {
    let tag = image.rsplit(':').next().unwrap_or("");
    if tag.starts_with(['d', 'f', 'l']) { 128 + 15 } else { 0 }
}

/// A pod as the agent knows it.
struct PodHere {
    object: Arc<Object>,
    known: PodOnNode,
    conditions: Conditions,
    written: Written<Vec<u8>>,
    last_waits: bool,
    not_before: Timestamp,
    woken_at: Option<Timestamp>,
    /// The last status that was put into words, and those words.
    worded: Option<Worded>,
}

/// A status in words, and all that they were made of but the pod's uid.
struct Worded {
    status: PodStatus,
    conditions: Conditions,
    told_ip: Option<String>,
    body: Vec<u8>,
}

impl PodHere {
    /// The status patch, put into words only where it is another one than the last.
    fn body(&mut self, host: &Host, now: Timestamp) -> Vec<u8> {
        let pod = pod(&self.object);
        let status = status(pod, &self.known, host, &mut self.conditions, now);
        let told_ip = pod.status.as_ref().and_then(|told| told.pod_ip.as_ref());
        if let Some(last) = &self.worded
            && (last.told_ip.as_ref(), &last.conditions, &last.status) == (told_ip, &self.conditions, &status)
        {
            return last.body.clone();
        }
        let body = status_patch(pod, &status, &self.conditions);
        let (conditions, told_ip) = (self.conditions.clone(), told_ip.cloned());
        self.worded = Some(Worded { status, conditions, told_ip, body: body.clone() });
        body
    }
}

/// An object that is a pod.
fn pod(object: &Object) -> &Pod {
    object.get::<Pod>().expect("agents follow nothing but pods")
}

/// A machine.
pub struct Node {
    /// Its name.
    pub name: String,
    /// False while it is without power.
    pub up: bool,
    /// False while no packet gets through.
    pub reachable: bool,
    /// True while its watch is cut: it is told nothing, but can write.
    pub deaf: bool,
    /// True while nothing that it writes arrives: it is told all.
    pub mute: bool,
    /// Seconds its clock is off.
    pub skew: i64,
    number: u8,
    life: u32,
    boot: u32,
    addresses: u32,
    pods: BTreeMap<String, PodHere>,
    runs: BTreeMap<String, PodSeen>,
    seen: u64,
    /// While its process is stopped (SIGSTOP): what has happened since. Containers run on.
    stopped: Option<Vec<NodeEvent>>,
}

impl Node {
    /// A machine with nothing on it.
    pub fn new(number: u8) -> Node {
        Node {
            name: format!("n{number}"),
            up: true,
            reachable: true,
            deaf: false,
            mute: false,
            stopped: None,
            skew: 0,
            number,
            life: 0,
            boot: 0,
            addresses: 0,
            pods: BTreeMap::new(),
            runs: BTreeMap::new(),
            seen: 0,
        }
    }

    /// The agent ends and starts again; containers run on.
    pub fn restart_agent(&mut self) {
        self.life += 1;
        self.pods.clear();
        self.seen = 0;
    }

    /// The machine loses power; what ran is lost.
    pub fn lose_power(&mut self) {
        self.up = false;
        self.stopped = None;
        self.boot += 1;
        self.runs.clear();
        self.restart_agent();
    }

    /// Its process is stopped, and knows nothing of it.
    pub fn stop(&mut self) {
        self.stopped.get_or_insert_default();
    }

    /// Its process goes on: all that has happened meanwhile, in order.
    pub fn go_on(&mut self) -> Vec<NodeEvent> {
        self.stopped.take().unwrap_or_default()
    }

    /// True while its process is stopped.
    pub fn is_stopped(&self) -> bool {
        self.stopped.is_some()
    }

    /// True if what it says gets through.
    pub fn is_heard(&self) -> bool {
        self.up && self.reachable && !self.mute && !self.is_stopped()
    }

    /// Running containers: pod uid and container id.
    pub fn running(&self) -> Vec<(String, String)> {
        let alive = |seen: &PodSeen| {
            let containers = seen.containers.iter().filter(|container| container.exit.is_none());
            containers.map(|container| (seen.uid.clone(), container.id.clone())).collect::<Vec<_>>()
        };
        self.runs.values().flat_map(alive).collect()
    }

    /// True if a container of the pod of this name (with its namespace) runs here.
    pub fn runs_pod(&self, name: &str) -> bool {
        let alive = |seen: &PodSeen| seen.containers.iter().any(|container| container.exit.is_none());
        self.runs.values().any(|seen| alive(seen) && name == format!("{}/{}", seen.namespace, seen.name))
    }

    /// The number of this boot.
    pub fn boot(&self) -> u32 {
        self.boot
    }

    /// The number of this life of the agent.
    pub fn life(&self) -> u32 {
        self.life
    }

    /// True if the agent still cares for a pod of this uid.
    pub fn knows(&self, uid: &str) -> bool {
        self.pods.contains_key(uid)
    }

    fn clock(&self, around: &Around) -> Timestamp {
        around.now + SignedDuration::from_secs(self.skew)
    }

    /// What the agent knows, a line for each pod.
    pub fn words(&self) -> Vec<String> {
        let known = self.pods.values().map(|here| {
            let name = here.object.name();
            format!("       {} knows {name} ({}): {:?}", self.name, here.written.is_under_way(), here.known)
        });
        std::iter::once(format!("       {} up={} reachable={}", self.name, self.up, self.reachable))
            .chain(known)
            .collect()
    }

    /// Takes an event in.
    pub fn take(&mut self, event: NodeEvent, around: &mut Around) -> Vec<Effect> {
        let mut effects = Vec::new();
        if !self.up {
            return effects;
        }
        if self.is_stopped() {
            self.keep(event, around);
            return effects;
        }
        match event {
            NodeEvent::Look => self.look(around, &mut effects),
            NodeEvent::Came(uid, life, outcome) if life == self.life => self.came(&uid, outcome, around, &mut effects),
            NodeEvent::Withdrawing(uid, life, until) if life == self.life => {
                self.withdraw(&uid, until, around, &mut effects)
            }
            NodeEvent::Exit(uid, id, code, boot) if boot == self.boot => {
                self.exited(&uid, &id, code, around, &mut effects)
            }
            NodeEvent::Answer(uid, life, report, reply) if life == self.life => {
                self.answered(&uid, report, reply, around, &mut effects)
            }
            _ => {}
        }
        effects
    }

    /// Keeps what happens for later; a container that ends has ended, though nobody looks.
    fn keep(&mut self, event: NodeEvent, around: &Around) {
        if let NodeEvent::Exit(uid, id, code, boot) = &event
            && *boot == self.boot
        {
            self.note_exit(uid, id, *code, around);
        }
        // It looks once when it goes on.
        if !matches!(event, NodeEvent::Look) {
            self.stopped.get_or_insert_default().push(event);
        }
    }

    fn note_exit(&mut self, uid: &str, id: &str, code: i32, around: &Around) -> Exit {
        let mut exit = Exit { code, signal: 0, oom_killed: false, finished_at_ms: around.now.as_millisecond() };
        let containers = self.runs.get_mut(uid).into_iter().flat_map(|run| &mut run.containers);
        for container in containers.filter(|container| container.id == id) {
            exit = container.exit.get_or_insert_with(|| exit.clone()).clone();
        }
        exit
    }

    /// Follows the API, as far as it can be reached, and thinks about every pod that has to be thought about.
    fn look(&mut self, around: &mut Around, effects: &mut Vec<Effect>) {
        let now = self.clock(around);
        let mut stirred: BTreeSet<String> = self
            .pods
            .iter()
            .filter(|(_, here)| here.woken_at.is_some_and(|at| at <= now) || here.not_before > Timestamp::MIN)
            .map(|(uid, _)| uid.clone())
            .collect();
        stirred.extend(self.look_again(now));
        if self.reachable && !self.deaf && self.seen != around.world.revision() {
            self.seen = around.world.revision();
            self.follow(around, now, &mut stirred, effects);
        }
        for uid in stirred {
            self.advance(&uid, around, effects);
        }
    }

    /// Looks once more at what the API has of the pods whose last write may have been undone.
    fn look_again(&mut self, now: Timestamp) -> Vec<String> {
        let host = Host { ip: format!("10.0.0.{}", self.number) };
        let doubtful = self.pods.iter_mut().filter(|(_, here)| here.written.look_at().is_some_and(|at| at <= now));
        let looked = doubtful.map(|(uid, here)| {
            let pod = pod(&here.object);
            let status = status(pod, &here.known, &host, &mut here.conditions.clone(), now);
            here.written.seen(pod.status.as_ref().is_some_and(|told| agrees(told, &status)));
            uid.clone()
        });
        looked.collect()
    }

    fn follow(
        &mut self,
        around: &mut Around,
        now: Timestamp,
        stirred: &mut BTreeSet<String>,
        effects: &mut Vec<Effect>,
    ) {
        let mut there = BTreeSet::new();
        let host = Host { ip: format!("10.0.0.{}", self.number) };
        for object in around.world.pod_objects_on(&self.name, None) {
            let uid = object.uid().to_owned();
            there.insert(uid.clone());
            let Some(pod) = object.get::<Pod>() else { continue };
            match self.pods.get_mut(&uid) {
                Some(here) if here.object.revision == object.revision => continue,
                Some(here) => {
                    here.known.follow(pod);
                    here.object = object.clone();
                    // A write that was late may have come after a newer one: then it is written again.
                    let status = status(pod, &here.known, &host, &mut here.conditions.clone(), now);
                    here.written.seen(pod.status.as_ref().is_some_and(|told| agrees(told, &status)));
                }
                None => {
                    let mut known = PodOnNode::adopt(pod, self.runs.get(&uid), now);
                    known.drains = true;
                    for running in self.runs.get(&uid).into_iter().flat_map(|run| &run.containers) {
                        effects.extend(probe(&uid, running, self.life, around));
                    }
                    let conditions = Conditions::of(pod.status.as_ref());
                    let here = PodHere {
                        object: object.clone(),
                        known,
                        conditions,
                        written: Written::default(),
                        last_waits: false,
                        not_before: Timestamp::MIN,
                        woken_at: None,
                        worded: None,
                    };
                    self.pods.insert(uid.clone(), here);
                }
            }
            stirred.insert(uid);
        }
        // What an agent finds running and nobody knows of is nobody's: it is stopped.
        self.runs.retain(|uid, _| there.contains(uid) || self.pods.contains_key(uid));
        for (uid, here) in self.pods.iter_mut().filter(|(uid, _)| !there.contains(*uid)) {
            here.known.gone = true;
            here.known.finished = false;
            stirred.insert(uid.clone());
        }
    }

    /// Plans, begins what is to begin, and reports.
    fn advance(&mut self, uid: &str, around: &mut Around, effects: &mut Vec<Effect>) {
        let now = self.clock(around);
        for _ in 0..PLANS_IN_A_ROW {
            let Some(here) = self.pods.get_mut(uid) else { return };
            let object = here.object.clone();
            let pod = pod(&object);
            let plan = plan(pod, &here.known, now);
            here.woken_at = plan.wake_at;
            if let Some(at) = plan.wake_at {
                let seconds = at.duration_since(now).as_secs().max(1);
                effects.push(Effect::Later(seconds, NodeEvent::Look));
            }
            if plan.steps.is_empty() {
                self.report(uid, around, effects);
                return;
            }
            for step in plan.steps {
                let Some(here) = self.pods.get_mut(uid) else { return };
                drop(here.known.begin(pod, &step, now));
                self.begin(uid, pod, step, around, effects);
            }
        }
        effects.push(Effect::Breach("I28 bounded work", format!("the agent plans for pod {uid} without end")));
    }

    fn begin(&mut self, uid: &str, pod: &Pod, step: Step, around: &mut Around, effects: &mut Vec<Effect>) {
        let slow = around.slow;
        let mut later = |seconds: i64, outcome: Outcome| {
            effects.push(Effect::Later(seconds, NodeEvent::Came(uid.to_owned(), self.life, outcome)));
        };
        match step {
            Step::PrepareVolumes => {
                let waits = volumes::obstacle(pod, &self.name, around.world);
                later(0, waits.map_or(Outcome::VolumesReady, Outcome::VolumesFailed));
            }
            Step::StartSandbox => {
                self.addresses += 1;
                let [_, _, high, low] = self.addresses.to_be_bytes();
                let ip = IpAddr::V4(Ipv4Addr::new(10, 200 + self.number, high, low));
                later(0, Outcome::SandboxReady(ip));
            }
            Step::Pull { container, image, .. } => {
                let how = behaviour(&image, slow, around.random);
                let outcome = if how.unpullable {
                    let message = "not found".to_owned();
                    Outcome::PullFailed { container, image, kind: TroubleKind::ErrImagePull, message }
                } else {
                    let seen = ImageSeen { id: format!("sha256:{image}"), size_bytes: 1 };
                    Outcome::Pulled { container, image, seen, took: None }
                };
                later(how.pull, outcome);
            }
            Step::Start { container, attempt } => {
                let image = image_of(pod, &container);
                let seen = ContainerSeen {
                    name: container.clone(),
                    id: format!("{uid}-{container}-{}-{attempt}", self.boot),
                    attempt,
                    image_id: format!("sha256:{image}"),
                    image,
                    started_at_ms: 0,
                    exit: None,
                };
                later(0, Outcome::Started(seen));
            }
            Step::PostStart { container, id } => later(0, Outcome::PostStarted { container, id, failure: None }),
            Step::Withdraw { container: None, until } => {
                let event = NodeEvent::Withdrawing(uid.to_owned(), self.life, until);
                effects.push(Effect::Later(0, event));
            }
            Step::Withdraw { container, .. } => later(0, Outcome::Withdrawn { container, late: None }),
            Step::Stop { container, id, until, .. } => {
                let image = image_of(pod, &container);
                let left = until.duration_since(around.now).as_secs().max(0);
                let takes = behaviour(&image, slow, around.random).stop;
                let code = if takes > left { 137 } else { stopped(&image) };
                effects.push(Effect::Later(takes.min(left), NodeEvent::Exit(uid.to_owned(), id, code, self.boot)));
            }
            Step::StopSandbox => {
                self.runs.remove(uid);
                later(0, Outcome::SandboxStopped);
            }
            Step::Finish => self.finish(uid, around, effects),
            Step::Forget => {
                self.runs.remove(uid);
                self.pods.remove(uid);
            }
            Step::TellBackOff { .. } | Step::Fail(_) | Step::Leave { .. } => {}
        }
    }

    fn came(&mut self, uid: &str, outcome: Outcome, around: &mut Around, effects: &mut Vec<Effect>) {
        let now = self.clock(around);
        let outcome = match outcome {
            Outcome::Started(seen) => match self.start(uid, seen, around, effects) {
                Some(seen) => Outcome::Started(seen),
                None => return,
            },
            other => other,
        };
        let Some(here) = self.pods.get_mut(uid) else { return };
        if let Outcome::SandboxReady(ip) = &outcome {
            let (namespace, name) = (here.object.namespace().to_owned(), here.object.name().to_owned());
            let seen = PodSeen { uid: uid.to_owned(), namespace, name, ip: Some(*ip), containers: Vec::new() };
            self.runs.insert(uid.to_owned(), seen);
        }
        drop(here.known.apply(pod(&here.object), outcome, now));
        self.advance(uid, around, effects);
    }

    /// Starts a container: it becomes ready, crashes, or neither, as its image does.
    fn start(
        &mut self,
        uid: &str,
        mut seen: ContainerSeen,
        around: &mut Around,
        effects: &mut Vec<Effect>,
    ) -> Option<ContainerSeen> {
        let Some(run) = self.runs.get_mut(uid) else {
            effects.push(Effect::Later(0, NodeEvent::Came(uid.to_owned(), self.life, Outcome::SandboxLost)));
            return None;
        };
        if run.containers.iter().any(|container| container.name == seen.name && container.exit.is_none()) {
            effects.push(Effect::Breach("I22 one instance", format!("container {} was started twice", seen.id)));
        }
        let named = format!("{}/{}", run.namespace, run.name);
        seen.started_at_ms = around.now.as_millisecond();
        run.containers.retain(|container| container.name != seen.name);
        run.containers.push(seen.clone());
        let how = behaviour(&seen.image, around.slow, around.random);
        effects.extend(probe(uid, &seen, self.life, around));
        effects.push(Effect::Started(named));
        if let Some((seconds, code)) = how.end {
            let exit = NodeEvent::Exit(uid.to_owned(), seen.id.clone(), code, self.boot);
            effects.push(Effect::Later(seconds, exit));
        }
        Some(seen)
    }

    fn exited(&mut self, uid: &str, id: &str, code: i32, around: &mut Around, effects: &mut Vec<Effect>) {
        let exit = self.note_exit(uid, id, code, around);
        self.came(uid, Outcome::Exited { id: id.to_owned(), exit, message: None }, around, effects);
    }

    /// Every live proxy has to have let go of the pod before it is asked to stop.
    fn withdraw(&mut self, uid: &str, until: Timestamp, around: &mut Around, effects: &mut Vec<Effect>) {
        let out = around.proxies.iter().all(|proxy| !proxy.contains(uid));
        if !out && self.clock(around) < until {
            let event = NodeEvent::Withdrawing(uid.to_owned(), self.life, until);
            return effects.push(Effect::Later(1, event));
        }
        let late = (!out).then(|| "a proxy is late".to_owned());
        if late.is_some() && around.proxies_are_well {
            let message = format!("pod {uid} is stopped while proxies send to it, though none is slow");
            effects.push(Effect::Breach("I20 withdrawn first", message));
        }
        self.came(uid, Outcome::Withdrawn { container: None, late }, around, effects);
    }

    fn body(&mut self, uid: &str, now: Timestamp) -> Option<(Arc<Object>, Vec<u8>)> {
        let host = Host { ip: format!("10.0.0.{}", self.number) };
        let here = self.pods.get_mut(uid)?;
        Some((here.object.clone(), here.body(&host, now)))
    }

    /// Writes the status if it is another one.
    fn report(&mut self, uid: &str, around: &mut Around, effects: &mut Vec<Effect>) {
        let now = self.clock(around);
        let Some(here) = self.pods.get(uid) else { return };
        let leaves = here.known.leaving.is_some() && facts::is_deleted(here.object.meta());
        if here.known.gone || here.known.finished || here.written.is_under_way() || (leaves && !here.known.busy()) {
            return;
        }
        if here.not_before > now {
            let seconds = here.not_before.duration_since(now).as_secs().max(1);
            return effects.push(Effect::Later(seconds, NodeEvent::Look));
        }
        let fresh = here.written.is_empty()
            && here.known.failure.is_none()
            && here.known.since >= now
            && here
                .known
                .containers
                .iter()
                .all(|one| one.running.is_none() && one.last.is_none() && one.trouble.is_none());
        if fresh {
            // A pod that is just coming up is about to be running: one write instead of two.
            if let Some(here) = self.pods.get_mut(uid) {
                here.woken_at = Some(now + SignedDuration::from_secs(1));
            }
            return effects.push(Effect::Later(1, NodeEvent::Look));
        }
        let Some((object, body)) = self.body(uid, now) else { return };
        let Some(here) = self.pods.get_mut(uid) else { return };
        here.not_before = Timestamp::MIN;
        if !here.written.is(&body) {
            here.written.begin();
            effects.push(Effect::Send(object, self.life, Report::Status(body)));
        }
    }

    /// The last status, then the DELETE, each until it is taken or the pod is gone.
    fn finish(&mut self, uid: &str, around: &mut Around, effects: &mut Vec<Effect>) {
        let now = self.clock(around);
        let Some(here) = self.pods.get_mut(uid) else { return };
        here.last_waits = here.written.is_under_way();
        if here.last_waits {
            return;
        }
        if let Some((object, body)) = self.body(uid, now) {
            effects.push(Effect::Send(object, self.life, Report::Last(body)));
        }
    }

    fn answered(&mut self, uid: &str, report: Report, reply: Reply, around: &mut Around, effects: &mut Vec<Effect>) {
        let now = self.clock(around);
        let life = self.life;
        let Some(here) = self.pods.get_mut(uid) else { return };
        match report {
            Report::Status(body) => {
                match reply {
                    Reply::Taken => {
                        here.written.taken(body, now);
                        if let Some(at) = here.written.look_at() {
                            let seconds = at.duration_since(now).as_secs().max(1);
                            effects.push(Effect::Later(seconds, NodeEvent::Look));
                        }
                    }
                    Reply::Gone => here.not_before = now + SignedDuration::from_secs(10),
                    Reply::Again => here.not_before = now + SignedDuration::from_secs(1),
                }
                if reply != Reply::Taken {
                    here.written.failed();
                }
                if here.last_waits {
                    return self.finish(uid, around, effects);
                }
            }
            report if reply == Reply::Again => return effects.push(Effect::Send(here.object.clone(), life, report)),
            Report::Last(_) => return effects.push(Effect::Send(here.object.clone(), life, Report::Delete)),
            Report::Delete => {
                drop(here.known.apply(pod(&here.object), Outcome::Finished, now));
            }
        }
        self.advance(uid, around, effects);
    }
}

/// The first good answer of a container's readiness probe, if it will ever give one.
fn probe(uid: &str, seen: &ContainerSeen, life: u32, around: &mut Around) -> Option<Effect> {
    let seconds = behaviour(&seen.image, around.slow, around.random).ready?;
    let (container, id) = (seen.name.clone(), seen.id.clone());
    let probed = Probed { failure: None };
    let outcome = Outcome::Probed { container, id, kind: ProbeKind::Readiness, probed };
    seen.exit.is_none().then(|| Effect::Later(seconds, NodeEvent::Came(uid.to_owned(), life, outcome)))
}

fn image_of(pod: &Pod, container: &str) -> String {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let mut images = containers.filter(|it| it.name == container).filter_map(|it| it.image.clone());
    images.next().unwrap_or_default()
}
