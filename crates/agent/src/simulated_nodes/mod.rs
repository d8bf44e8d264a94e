//! Many simulated nodes in one process: real to the API, no containers anywhere.
//!
//! One watch for the pods of all nodes, one loop, no task per pod. The decisions are those of real nodes ([`crate::plan`],
//! [`crate::status`]); what a runtime would do comes from a profile and happens at once or at a due time. A pod that has
//! settled costs about a kilobyte: its object is dropped and comes again with its next event. It takes one write to
//! become Running and Ready, and one DELETE to go. Works against any Kubernetes cluster.

mod nodes;
mod pretended;
#[cfg(test)]
mod tests;

pub use nodes::MOST_NODES;

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    hash::{DefaultHasher, Hash, Hasher},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use api::Pod;
use api::pod_facts::has_ended;
use api::usage::{ContainerUsage, NodeUsage, PodUsage, Report, Used};
use futures::StreamExt;
use jiff::{SignedDuration, Timestamp};
use kube::{
    Api, Client,
    runtime::{WatchStreamExt, watcher},
};
use tokio::{sync::Semaphore, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{
    clock::Clock,
    drained::Drained,
    events::Recorder,
    folders,
    lazy_pod::LazyPod,
    plan::{Step, plan},
    pod_on_node::{Note, Outcome, PodOnNode},
    report::{self, ReportError},
    runtime::profile::Profile,
    status::{Conditions, Host, agrees, status},
    usage,
    written::Written,
};
use nodes::{SimulatedNode, blocks, heartbeat, register};
use pretended::ran_before;

/// Requests on their way at once; each takes a connection where HTTP/2 is not spoken.
const IN_FLIGHT: usize = 128;
/// Wait before a refused write is tried again; twice as long after each further one, up to `RETRY_LONGEST`.
const RETRY_FIRST: SignedDuration = SignedDuration::from_millis(200);
const RETRY_LONGEST: SignedDuration = SignedDuration::from_secs(15);
/// How often what is used is reported, where there are few pods.
const USAGE_PERIOD: Duration = Duration::from_secs(5);
/// More pods than this are reported only every third time.
const FEW_PODS: usize = 2_000;
/// What a node without pods uses.
const IDLE: Used = Used { cpu_nano: 50_000_000, memory_bytes: 512 << 20 };
/// Steps that may follow each other at once; more is a mistake in the plan.
const PLANS_IN_A_ROW: usize = 100;

/// Runs `count` nodes named `<name_prefix>-<number>` until `shutdown`.
pub async fn run(client: Client, count: usize, name_prefix: &str, profile: Profile, shutdown: CancellationToken) {
    tokio::select! {
        () = serve(client, count, name_prefix, profile) => {}
        () = shutdown.cancelled() => tracing::info!("{count} simulated nodes are going"),
    }
}

async fn serve(client: Client, count: usize, name_prefix: &str, profile: Profile) {
    let nodes = blocks(&client, count, name_prefix).await;
    let uids = register(&client, &nodes).await;
    // Ends with this function.
    let mut beside = JoinSet::new();
    let names = nodes.iter().map(|node| node.name.to_string()).collect();
    beside.spawn(heartbeat(client.clone(), uids));
    beside.spawn(folders::keep(client.clone(), names, None));
    Fleet::new(client, nodes, profile).run().await;
}

struct Fleet {
    client: Client,
    profile: Profile,
    clock: Clock,
    recorder: Recorder,
    drained: Option<Drained>,
    nodes: Vec<SimulatedNode>,
    by_name: HashMap<Arc<str>, usize>,
    pods: HashMap<Arc<str>, SimulatedPod>,
    /// When to look at which pod again.
    wakes: BTreeSet<(Timestamp, Arc<str>)>,
    /// Requests, and waits for proxies.
    tasks: JoinSet<Done>,
    slots: Arc<Semaphore>,
    listed: Option<HashSet<Arc<str>>>,
}

struct SimulatedPod {
    node: usize,
    looked_at: LookedAt,
    /// Kept until nothing is to be done for it.
    pod: Option<Arc<Pod>>,
    seen: PodOnNode,
    conditions: Conditions,
    /// What the API was told, by its hash.
    written: Written<u64>,
    /// The last status and the deletion are on their way.
    ending: bool,
    due: Vec<(Timestamp, Due)>,
    wake_at: Option<Timestamp>,
    not_before: Option<Timestamp>,
    retry_wait: SignedDuration,
}

impl SimulatedPod {
    fn is_writing(&self) -> bool {
        self.ending || self.written.is_under_way()
    }

    /// Minds what the API has: a write that was late may have come after a newer one.
    fn mind_what_is_told(&mut self, host: IpAddr, now: Timestamp) {
        let Some(pod) = &self.pod else { return };
        let host = Host { ip: host.to_string() };
        let status = status(pod, &self.seen, &host, &mut self.conditions.clone(), now);
        self.written.seen(pod.status.as_ref().is_some_and(|told| agrees(told, &status)));
    }
}

/// What the pod was when it was last decoded.
struct LookedAt {
    generation: Option<i64>,
    leaves: bool,
    /// Others decide by their conditions whether it is ready.
    gated: bool,
}

impl LookedAt {
    fn of(pod: &Pod) -> LookedAt {
        let gates = pod.spec.as_deref().and_then(|spec| spec.readiness_gates.as_ref());
        LookedAt {
            generation: pod.metadata.generation,
            leaves: pod.metadata.deletion_timestamp.is_some(),
            gated: gates.is_some_and(|gates| !gates.is_empty()),
        }
    }
}

impl SimulatedPod {
    /// Nothing that matters here has changed: above all, it is only our own write coming back. A pod that leaves may
    /// have its grace cut short without a new generation, and one that is ready may be said not to be, when its node was
    /// given up.
    fn needs_no_look(&self, lazy: &LazyPod) -> bool {
        let LookedAt { generation, leaves, gated } = self.looked_at;
        let denied = self.conditions.say_ready() && lazy.may_deny();
        generation.is_some() && generation == lazy.generation() && !leaves && !lazy.leaves() && !gated && !denied
    }
}

/// What happens to a simulated pod at a certain time.
enum Due {
    Outcome(Outcome),
    Ready { container: String, id: String },
}

/// What a task comes back with.
struct Done {
    uid: Arc<str>,
    what: What,
}

enum What {
    Written(u64, Result<(), ReportError>),
    Happened(Outcome),
}

impl Fleet {
    fn new(client: Client, nodes: Vec<SimulatedNode>, profile: Profile) -> Fleet {
        let by_name = nodes.iter().enumerate().map(|(index, node)| (node.name.clone(), index)).collect();
        Fleet {
            recorder: if profile.events { Recorder::start(client.clone(), "") } else { Recorder::silent() },
            drained: profile.drain.then(|| Drained::start(client.clone(), None)),
            clock: Clock::start(),
            slots: Arc::new(Semaphore::new(IN_FLIGHT)),
            pods: HashMap::new(),
            wakes: BTreeSet::new(),
            tasks: JoinSet::new(),
            listed: None,
            client,
            profile,
            nodes,
            by_name,
        }
    }

    /// What the profile says that the nodes and their pods use.
    fn used(&self) -> Vec<Report> {
        let at_ms = Timestamp::now().as_millisecond();
        let window_ms = u32::try_from(self.usage_period().as_millis()).unwrap_or(u32::MAX);
        let report = |node: &SimulatedNode| Report {
            node: node.name.to_string(),
            usage: NodeUsage { at_ms, window_ms, used: IDLE, pods: Vec::new() },
        };
        let mut reports: Vec<Report> = self.nodes.iter().map(report).collect();
        for (uid, pod) in &self.pods {
            let running = pod.seen.containers.iter().filter(|container| container.running.is_some());
            let containers =
                running.map(|it| ContainerUsage { name: it.name.clone(), used: self.profile.used(&it.wanted_image) });
            let containers: Vec<ContainerUsage> = containers.collect();
            let usage = &mut reports[pod.node].usage;
            for container in &containers {
                usage.used.cpu_nano += container.used.cpu_nano;
                usage.used.memory_bytes += container.used.memory_bytes;
            }
            if !containers.is_empty() {
                usage.pods.push(PodUsage { uid: uid.to_string(), window_ms: None, containers });
            }
        }
        reports
    }

    fn usage_period(&self) -> Duration {
        if self.pods.len() <= FEW_PODS { USAGE_PERIOD } else { 3 * USAGE_PERIOD }
    }

    async fn run(mut self) {
        let report = tokio::time::sleep(USAGE_PERIOD);
        tokio::pin!(report);
        let mut reporting = JoinSet::new();
        let pods: Api<LazyPod> = Api::all(self.client.clone());
        let bound = watcher::Config::default().fields("spec.nodeName!=");
        let mut events = watcher(pods, bound).default_backoff().boxed();
        loop {
            let wake_at = self.wakes.first().map(|(at, _)| Instant::now() + self.clock.until(*at));
            let sleep = wake_at.unwrap_or_else(|| Instant::now() + Duration::from_secs(3600));
            tokio::select! {
                Some(event) = events.next() => match event {
                    Ok(event) => self.watched(event),
                    Err(error) => tracing::warn!("watching the pods of the simulated nodes: {error}"),
                },
                Some(done) = self.tasks.join_next(), if !self.tasks.is_empty() => match done {
                    Ok(Done { uid, what }) => self.done(&uid, what),
                    Err(error) => tracing::error!("a task of the simulated nodes broke down: {error}"),
                },
                () = tokio::time::sleep_until(sleep.into()) => self.wake(),
                () = &mut report => {
                    report.as_mut().reset((Instant::now() + self.usage_period()).into());
                    // One that still hangs tells what is outdated.
                    reporting.abort_all();
                    reporting.spawn(usage::send_all(self.client.clone(), self.used()));
                }
                Some(_) = reporting.join_next(), if !reporting.is_empty() => {}
            }
        }
    }

    fn watched(&mut self, event: watcher::Event<LazyPod>) {
        match event {
            watcher::Event::Init => self.listed = Some(HashSet::new()),
            watcher::Event::InitApply(pod) => {
                if let Some(listed) = &mut self.listed {
                    listed.insert(pod.uid().into());
                }
                self.changed(&pod);
            }
            watcher::Event::InitDone => {
                let Some(listed) = self.listed.take() else { return };
                let gone: Vec<_> = self.pods.keys().filter(|uid| !listed.contains(*uid)).cloned().collect();
                gone.iter().for_each(|uid| self.forget(uid));
            }
            watcher::Event::Apply(pod) => self.changed(&pod),
            watcher::Event::Delete(pod) => self.forget(pod.uid()),
        }
    }

    fn changed(&mut self, lazy: &LazyPod) {
        if self.pods.get(lazy.uid()).is_some_and(|known| known.needs_no_look(lazy)) {
            return;
        }
        match lazy.decode() {
            Ok(pod) => self.decoded(pod),
            Err(error) => tracing::error!("pod {} cannot be read and is left alone: {error}", lazy.uid()),
        }
    }

    fn decoded(&mut self, pod: Pod) {
        let node = pod.spec.as_deref().and_then(|spec| spec.node_name.as_deref());
        let Some(&node) = node.and_then(|name| self.by_name.get(name)) else { return };
        let uid: Arc<str> = pod.metadata.uid.as_deref().unwrap_or_default().into();
        let pod = Arc::new(pod);
        match self.pods.get_mut(&uid) {
            Some(known) => {
                known.seen.follow(&pod);
                known.looked_at = LookedAt::of(&pod);
                known.pod = Some(pod);
                // Another may have said that it is not ready: it is told again.
                known.mind_what_is_told(self.nodes[known.node].ip.into(), self.clock.now());
            }
            None => self.admit(uid.clone(), node, pod),
        }
        self.drive(&uid);
    }

    fn admit(&mut self, uid: Arc<str>, node: usize, pod: Arc<Pod>) {
        let now = self.clock.now();
        let ran = ran_before(&pod);
        let mut seen = PodOnNode::adopt(&pod, ran.as_ref(), now);
        seen.drains = self.drained.is_some();
        if let Some(IpAddr::V4(ip)) = seen.ip {
            self.nodes[node].addresses.take_this(ip);
        }
        // One that has begun already has had its ports.
        let ports = if has_ended(&pod) { Ok(()) } else { self.nodes[node].take_ports(&uid, &pod) };
        if let Err(failure) = ports
            && pod.status.as_ref().is_none_or(|status| status.start_time.is_none())
        {
            let notes = seen.begin(&pod, &Step::Fail(failure), now);
            self.note(node, &pod, notes, now);
        }
        let conditions = Conditions::of(pod.status.as_ref());
        let mut known = SimulatedPod {
            node,
            looked_at: LookedAt::of(&pod),
            pod: Some(pod),
            seen,
            conditions,
            written: Written::default(),
            ending: false,
            due: Vec::new(),
            wake_at: None,
            not_before: None,
            retry_wait: RETRY_FIRST,
        };
        for container in ran.into_iter().flat_map(|ran| ran.containers) {
            self.live(&mut known, &container);
        }
        self.pods.insert(uid, known);
    }

    fn forget(&mut self, uid: &str) {
        let Some(known) = self.pods.remove(uid) else { return };
        if let Some(at) = known.wake_at {
            self.wakes.remove(&(at, uid.into()));
        }
        self.give_back(known.node, uid, known.seen.ip);
    }

    fn give_back(&mut self, node: usize, uid: &str, ip: Option<IpAddr>) {
        self.nodes[node].ports.retain(|(_, holder)| **holder != *uid);
        if let Some(IpAddr::V4(ip)) = ip {
            self.nodes[node].addresses.give_back(ip);
        }
    }

    fn wake(&mut self) {
        let now = self.clock.now();
        while let Some((at, uid)) = self.wakes.first().cloned().filter(|(at, _)| *at <= now) {
            self.wakes.remove(&(at, uid.clone()));
            if let Some(known) = self.pods.get_mut(&uid) {
                known.wake_at = None;
            }
            self.drive(&uid);
        }
    }

    fn done(&mut self, uid: &Arc<str>, what: What) {
        let now = self.clock.now();
        let Some(known) = self.pods.get_mut(uid) else { return };
        match what {
            What::Happened(outcome) => known.due.push((now, Due::Outcome(outcome))),
            What::Written(hash, answer) => {
                known.ending = false;
                match answer {
                    Ok(()) => {
                        known.written.taken(hash, now);
                        known.retry_wait = RETRY_FIRST;
                    }
                    // The watch says so, too.
                    Err(ReportError::Gone) => return known.written.failed(),
                    Err(error) => {
                        known.written.failed();
                        tracing::debug!("a write for pod {uid} was not taken, trying again: {error}");
                        known.not_before = Some(now + known.retry_wait);
                        known.retry_wait = (known.retry_wait * 2).min(RETRY_LONGEST);
                    }
                }
            }
        }
        self.drive(uid);
    }

    /// Lets happen what is due, plans, carries out, reports, and settles the pod if nothing is left to do.
    fn drive(&mut self, uid: &Arc<str>) {
        let Some(mut known) = self.pods.remove(uid) else { return };
        let Some(pod) = known.pod.clone() else {
            self.pods.insert(uid.clone(), known);
            return;
        };
        let now = self.clock.now();
        if known.not_before.is_some_and(|at| at <= now) {
            known.not_before = None;
            known.seen.finished = false;
        }
        if known.written.look_at().is_some_and(|at| at <= now) {
            known.mind_what_is_told(self.nodes[known.node].ip.into(), now);
        }
        let (mut wake_at, mut rests) = (None, false);
        for _ in 0..PLANS_IN_A_ROW {
            self.happen(&mut known, &pod, now);
            let planned = plan(&pod, &known.seen, now);
            wake_at = planned.wake_at;
            rests = planned.steps.is_empty();
            if rests {
                break;
            }
            for step in planned.steps {
                let notes = known.seen.begin(&pod, &step, now);
                self.note(known.node, &pod, notes, now);
                self.carry_out(uid, &mut known, &pod, step, now);
            }
        }
        if !rests {
            tracing::error!(pod = pod.metadata.name, seen = ?known.seen, "the plan of this pod does not come to rest");
        }
        self.report(uid, &mut known, &pod, now);
        let next = known.due.iter().map(|(at, _)| *at).chain(wake_at).chain(known.not_before);
        let next = next.chain(known.written.look_at()).min();
        self.set_wake(uid, &mut known, next);
        if next.is_none() && !known.is_writing() {
            known.pod = None;
        }
        self.pods.insert(uid.clone(), known);
    }

    fn set_wake(&mut self, uid: &Arc<str>, known: &mut SimulatedPod, next: Option<Timestamp>) {
        if known.wake_at == next {
            return;
        }
        if let Some(at) = known.wake_at.take() {
            self.wakes.remove(&(at, uid.clone()));
        }
        if let Some(at) = next {
            self.wakes.insert((at, uid.clone()));
            known.wake_at = Some(at);
        }
    }

    fn note(&self, node: usize, pod: &Pod, notes: Vec<Note>, now: Timestamp) {
        if self.profile.events && !notes.is_empty() {
            self.recorder.on(&self.nodes[node].name).pod(pod, notes, now);
        }
    }

    fn body(&self, known: &mut SimulatedPod, pod: &Pod, now: Timestamp) -> Vec<u8> {
        let host = Host { ip: self.nodes[known.node].ip.to_string() };
        let status = status(pod, &known.seen, &host, &mut known.conditions, now);
        report::status_patch(pod, &status, &known.conditions)
    }

    fn report(&mut self, uid: &Arc<str>, known: &mut SimulatedPod, pod: &Arc<Pod>, now: Timestamp) {
        if known.is_writing()
            || known.seen.finished
            || known.seen.leaving.is_some_and(|_| pod.metadata.deletion_timestamp.is_some())
        {
            return;
        }
        if known.not_before.is_some() {
            return;
        }
        let body = self.body(known, pod, now);
        let hash = hash(&body);
        if known.written.is(&hash) {
            return;
        }
        known.written.begin();
        let pod = pod.clone();
        self.send(uid, hash, move |client| async move { report::write_status(&client, &pod, body).await });
    }

    /// The end. What became of the containers interests only those who hold the pod back.
    fn finish(&mut self, uid: &Arc<str>, known: &mut SimulatedPod, pod: &Arc<Pod>, now: Timestamp) {
        let held = pod.metadata.finalizers.iter().flatten().next().is_some();
        let body = held.then(|| self.body(known, pod, now));
        known.ending = true;
        let pod = pod.clone();
        self.send(uid, 0, move |client| async move {
            if let Some(body) = body {
                report::write_status(&client, &pod, body).await?;
            }
            report::delete(&client, &pod).await
        });
    }

    fn send<F>(&mut self, uid: &Arc<str>, hash: u64, request: impl FnOnce(Client) -> F + Send + 'static)
    where
        F: Future<Output = Result<(), ReportError>> + Send,
    {
        let (client, slots, uid) = (self.client.clone(), self.slots.clone(), uid.clone());
        self.tasks.spawn(async move {
            // Never closed.
            let _slot = slots.acquire_owned().await;
            Done { uid, what: What::Written(hash, request(client).await) }
        });
    }
}

fn hash(body: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    body.hash(&mut hasher);
    hasher.finish()
}
