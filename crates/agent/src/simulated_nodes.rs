//! Many simulated nodes in one process: real to the API, no containers anywhere.
//!
//! One watch for the pods of all nodes, one loop, no task per pod. The decisions are those of real nodes ([`crate::plan`],
//! [`crate::status`]); what a runtime would do comes from a profile and happens at once or at a due time. A pod that has
//! settled costs about a kilobyte: its object is dropped and comes again with its next event. It takes one write to
//! become Running and Ready, and one DELETE to go. Works against any Kubernetes cluster.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    hash::{DefaultHasher, Hash, Hasher},
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::{Duration, Instant},
};

use api::Pod;
use api::pod_facts::has_ended;
use api::pod_resources::{HostPort, host_ports, ports_clash};
use api::usage::{ContainerUsage, NodeUsage, PodUsage, Report, Used};
use futures::{StreamExt, stream};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{LifecycleHandler, Node};
use kube::{
    Api, Client,
    api::ListParams,
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
    pod_on_node::{Doing, Failure, Note, Outcome, PodOnNode, TroubleKind, container_spec},
    probes::Probes,
    registration::{self, Capacity, LEASE_SECONDS, Machine, Registration},
    report::{self, ReportError},
    runtime::{
        ContainerSeen, Exit, ImageSeen, PodSeen,
        profile::{Behaviour, Profile},
        simulated::{Addresses, IMAGE_BYTES, container_id, image_id, meant_to_end, unpullable},
    },
    status::{Conditions, Host, agrees, bare_id, status},
    usage,
};

/// Requests on their way at once; each takes a connection where HTTP/2 is not spoken.
const IN_FLIGHT: usize = 128;
/// How often the nodes show that they live: all at once, so that the server is woken once.
const HEARTBEAT: Duration = Duration::from_secs(20);
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
/// The pods' network: 10.244.0.0/16.
const POD_NETWORK: u32 = u32::from_be_bytes([10, 244, 0, 0]);
/// The nodes' own addresses: 100.64.0.0/10, which is used for nothing else.
const NODE_NETWORK: u32 = u32::from_be_bytes([100, 64, 0, 0]);
/// What each node has, beside room for pods.
const CAPACITY: Capacity = Capacity { cpu_milli: 32_000, memory_bytes: 256 << 30, storage_bytes: 1 << 40, pods: 110 };

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

// ---- nodes ---------------------------------------------------------------------------------------------------------

struct SimulatedNode {
    name: Arc<str>,
    ip: Ipv4Addr,
    addresses: Addresses,
    /// Images pulled before: the next start does not wait for them.
    images: HashSet<String>,
    /// Ports of the node itself, each with the uid of the pod that took it.
    ports: Vec<(HostPort, Arc<str>)>,
}

impl SimulatedNode {
    /// Takes the ports of the node that a pod asks for: all, or none because one is taken.
    fn take_ports(&mut self, uid: &Arc<str>, pod: &Pod) -> Result<(), Failure> {
        let wanted = pod.spec.as_deref().map(host_ports).unwrap_or_default();
        if wanted.iter().any(|port| self.ports.iter().any(|(taken, _)| ports_clash(port, taken))) {
            return Err(Failure::ports_taken());
        }
        self.ports.extend(wanted.into_iter().map(|port| (port, uid.clone())));
        Ok(())
    }
}

/// The nodes with their blocks of addresses: those they had before, or ones that no other node has.
async fn blocks(client: &Client, count: usize, name_prefix: &str) -> Vec<SimulatedNode> {
    let api: Api<Node> = Api::all(client.clone());
    let all = ListParams::default();
    let listed = registration::until_done("listing nodes", || api.list(&all)).await;
    let cidr = |node: &Node| node.spec.as_ref().and_then(|spec| parse_cidr(spec.pod_cidr.as_deref()?));
    let had: HashMap<String, (u32, u8)> =
        listed.iter().filter_map(|node| Some((node.metadata.name.clone()?, cidr(node)?))).collect();
    let names: Vec<String> = (0..count).map(|number| format!("{name_prefix}-{number}")).collect();
    let taken: Vec<(u32, u8)> = had.values().copied().collect();
    let missing = names.iter().filter(|name| !had.contains_key(*name)).count();
    let mut free = free_blocks(missing, &taken).into_iter();
    let node = |(number, name): (usize, String)| {
        let (base, prefix) = had.get(&name).copied().or_else(|| free.next()).unwrap_or((POD_NETWORK, 30));
        SimulatedNode {
            name: name.into(),
            ip: Ipv4Addr::from_bits(NODE_NETWORK + 1 + u32::try_from(number).unwrap_or(0)),
            addresses: Addresses::new(Ipv4Addr::from_bits(base), prefix),
            images: HashSet::new(),
            ports: Vec::new(),
        }
    };
    names.into_iter().enumerate().map(node).collect()
}

fn parse_cidr(text: &str) -> Option<(u32, u8)> {
    let (base, prefix) = text.split_once('/')?;
    Some((base.parse::<Ipv4Addr>().ok()?.to_bits(), prefix.parse().ok()?))
}

/// As many nodes as the pod network has blocks for.
pub const MOST_NODES: usize = (65_536 - 256) / 8;

/// Blocks of the pod network that overlap none of `taken`: as large as `count` of them can be, /24 at most. The first
/// /24 is left to a real node on this machine.
fn free_blocks(count: usize, taken: &[(u32, u8)]) -> Vec<(u32, u8)> {
    let overlaps = |base: u32, size: u32| {
        taken.iter().any(|(other, prefix)| {
            let other_size = 1_u64 << (32 - u32::from(*prefix).min(32));
            u64::from(base) < u64::from(*other) + other_size && u64::from(*other) < u64::from(base) + u64::from(size)
        })
    };
    for prefix in 24_u8..=29 {
        let size = 1_u32 << (32 - prefix);
        let bases = (POD_NETWORK + 256..POD_NETWORK + 65_536).step_by(size as usize);
        let free: Vec<_> = bases.filter(|base| !overlaps(*base, size)).map(|base| (base, prefix)).take(count).collect();
        if free.len() == count {
            return free;
        }
    }
    tracing::error!("10.244.0.0/16 has no room for {count} more nodes: some get no addresses for pods");
    Vec::new()
}

async fn register(client: &Client, nodes: &[SimulatedNode]) -> Vec<(Arc<str>, String)> {
    let machine = &Machine::this();
    let now = Clock::start().now();
    let one = |node: &SimulatedNode| {
        let registration = Registration {
            name: node.name.to_string(),
            labels: [("type".to_owned(), "simulated".to_owned())].into(),
            taints: Vec::new(),
            addresses: vec![IpAddr::V4(node.ip)],
            pod_cidr: node.addresses.cidr(),
            capacity: Capacity { pods: CAPACITY.pods.min(node.addresses.pods().into()), ..CAPACITY },
            simulated: true,
        };
        let object = registration::node(&registration, machine, now);
        let name = node.name.clone();
        async move {
            let what = format!("registering node {name}");
            let uid = registration::until_done(&what, || registration::register(client, &object)).await;
            (name, uid)
        }
    };
    let futures: Vec<_> = nodes.iter().map(one).collect();
    stream::iter(futures).buffer_unordered(IN_FLIGHT).collect().await
}

async fn heartbeat(client: Client, nodes: Vec<(Arc<str>, String)>) {
    let mut beat = tokio::time::interval(HEARTBEAT);
    let clock = Clock::start();
    let ours: HashSet<&str> = nodes.iter().map(|(name, _)| &**name).collect();
    let mut given_up = registration::given_up(&client, watcher::Config::default().labels("type=simulated"));
    loop {
        let lost = tokio::select! {
            _ = beat.tick() => None,
            Some(name) = given_up.next() => Some(name),
        };
        let client = &client;
        if let Some(name) = lost {
            if ours.contains(name.as_str())
                && let Err(error) = registration::revive(client, &name, clock.now()).await
            {
                tracing::warn!("node {name} was given up and could not say that it lives: {error}");
            }
            continue;
        }
        let renewals = nodes.iter().map(|(name, uid)| async move {
            if let Err(error) = registration::renew(client, name, uid, LEASE_SECONDS).await {
                tracing::warn!("the Lease of node {name} could not be renewed: {error}");
            }
        });
        let renewals: Vec<_> = renewals.collect();
        stream::iter(renewals).buffer_unordered(IN_FLIGHT).collect::<()>().await;
    }
}

// ---- pods ----------------------------------------------------------------------------------------------------------

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
    /// Hash of the last status that the API took.
    written: u64,
    writing: bool,
    due: Vec<(Timestamp, Due)>,
    wake_at: Option<Timestamp>,
    not_before: Option<Timestamp>,
    retry_wait: SignedDuration,
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
                // Another said that it is not ready: it is told again.
                let host = Host { ip: self.nodes[known.node].ip.to_string() };
                let status = status(&pod, &known.seen, &host, &mut known.conditions.clone(), self.clock.now());
                if !known.writing && !pod.status.as_ref().is_some_and(|told| agrees(told, &status)) {
                    known.written = 0;
                }
                known.pod = Some(pod);
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
            written: 0,
            writing: false,
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
                known.writing = false;
                match answer {
                    Ok(()) => {
                        known.written = hash;
                        known.retry_wait = RETRY_FIRST;
                    }
                    // The watch says so, too.
                    Err(ReportError::Gone) => return,
                    Err(error) => {
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
        let mut wake_at = None;
        for _ in 0..PLANS_IN_A_ROW {
            self.happen(&mut known, &pod, now);
            let planned = plan(&pod, &known.seen, now);
            wake_at = planned.wake_at;
            if planned.steps.is_empty() {
                break;
            }
            for step in planned.steps {
                let notes = known.seen.begin(&pod, &step, now);
                self.note(known.node, &pod, notes, now);
                self.carry_out(uid, &mut known, &pod, step, now);
            }
        }
        self.report(uid, &mut known, &pod, now);
        let next = known.due.iter().map(|(at, _)| *at).chain(wake_at).chain(known.not_before).min();
        self.set_wake(uid, &mut known, next);
        if next.is_none() && !known.writing {
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

    fn happen(&self, known: &mut SimulatedPod, pod: &Pod, now: Timestamp) {
        while let Some(index) = known.due.iter().position(|(at, _)| *at <= now) {
            match known.due.swap_remove(index).1 {
                Due::Ready { container, id } => pass_probes(&mut known.seen, &container, &id),
                Due::Outcome(outcome) => {
                    let started = match &outcome {
                        Outcome::Started(seen) => Some(seen.clone()),
                        _ => None,
                    };
                    let notes = known.seen.apply(pod, outcome, now);
                    self.note(known.node, pod, notes, now);
                    if let Some(seen) = started {
                        self.live(known, &seen);
                    }
                }
            }
        }
    }

    fn behaviour(&self, pod: &Pod, image: &str) -> Behaviour {
        self.profile.behaviour(image, meant_to_end(pod))
    }

    /// What a container does from its start on: it becomes ready and, perhaps, ends by itself.
    fn live(&self, known: &mut SimulatedPod, seen: &ContainerSeen) {
        let Some(pod) = known.pod.clone() else { return };
        let behaviour = self.behaviour(&pod, &seen.image);
        let since = Timestamp::from_millisecond(seen.started_at_ms).unwrap_or(Timestamp::UNIX_EPOCH);
        if let Some(container) = known.seen.containers.iter_mut().find(|one| one.name == seen.name) {
            match behaviour.ready {
                Some(SignedDuration::ZERO) => {
                    if let Some(probes) = &mut container.probes {
                        probes.pass();
                    }
                }
                ready => {
                    container.probes = Some(Probes::withheld());
                    let due = Due::Ready { container: seen.name.clone(), id: seen.id.clone() };
                    known.due.extend(ready.map(|after| (since + after, due)));
                }
            }
        }
        if let Some((after, code)) = behaviour.life {
            let exit = exit(code, 0, since + after);
            known.due.push((since + after, Due::Outcome(Outcome::Exited { id: seen.id.clone(), exit, message: None })));
        }
    }

    /// What a runtime would do: an outcome, now or later.
    fn carry_out(&mut self, uid: &Arc<str>, known: &mut SimulatedPod, pod: &Arc<Pod>, step: Step, now: Timestamp) {
        let (at, outcome) = match step {
            Step::PrepareVolumes => (now, Outcome::VolumesReady),
            Step::StartSandbox => (now, self.sandbox(known.node, pod)),
            Step::Pull { container, image, .. } => self.pull(known.node, pod, container, image, now),
            Step::Start { container, attempt } => {
                let image = known.seen.container(&container).map(|one| one.wanted_image.clone()).unwrap_or_default();
                let at = now + self.behaviour(pod, &image).start;
                let id = container_id(uid, &container, attempt);
                let (image_id, started_at_ms) = (image_id(&image), at.as_millisecond());
                let seen = ContainerSeen { name: container, id, attempt, image, image_id, started_at_ms, exit: None };
                (at, Outcome::Started(seen))
            }
            Step::PostStart { container, id } => {
                let at = now + sleeps(pod, &container, |lifecycle| lifecycle.post_start.as_ref());
                (at, Outcome::PostStarted { container, id, failure: None })
            }
            Step::Withdraw { container, until } => return self.withdraw(uid, pod, container, until),
            Step::Stop { container, id, until, .. } => {
                let image = known.seen.container(&container).map(|one| one.wanted_image.clone()).unwrap_or_default();
                let hook = sleeps(pod, &container, |lifecycle| lifecycle.pre_stop.as_ref());
                let behaviour = self.behaviour(pod, &image);
                let stopped = now + hook + behaviour.stop;
                let (at, code) = if stopped <= until { (stopped, behaviour.stopped) } else { (until, 137) };
                let at = at.max(now);
                (at, Outcome::Exited { id, exit: exit(code, 0, at), message: None })
            }
            Step::StopSandbox => {
                self.give_back(known.node, uid, known.seen.ip);
                (now, Outcome::SandboxStopped)
            }
            Step::Finish => return self.finish(uid, known, pod, now),
            Step::Forget | Step::TellBackOff { .. } | Step::Fail(_) | Step::Leave { .. } => return,
        };
        known.due.push((at, Due::Outcome(outcome)));
    }

    fn sandbox(&mut self, node: usize, pod: &Pod) -> Outcome {
        let node = &mut self.nodes[node];
        if pod.spec.as_deref().is_some_and(|spec| spec.host_network == Some(true)) {
            return Outcome::SandboxReady(IpAddr::V4(node.ip));
        }
        match node.addresses.take() {
            Ok(ip) => Outcome::SandboxReady(IpAddr::V4(ip)),
            Err(error) => Outcome::SandboxFailed(error),
        }
    }

    fn pull(
        &mut self,
        node: usize,
        pod: &Pod,
        container: String,
        image: String,
        now: Timestamp,
    ) -> (Timestamp, Outcome) {
        let behaviour = self.behaviour(pod, &image);
        let id = image_id(&image);
        if behaviour.unpullable {
            let message = unpullable(&image);
            let kind = TroubleKind::ErrImagePull;
            return (now + behaviour.pull, Outcome::PullFailed { container, image, kind, message });
        }
        let images = &mut self.nodes[node].images;
        let here = behaviour.pull.is_zero() || !images.insert(image.clone());
        let took = if here { None } else { Some(behaviour.pull) };
        let at = now + took.unwrap_or(SignedDuration::ZERO);
        let seen = ImageSeen { id, size_bytes: IMAGE_BYTES };
        (at, Outcome::Pulled { container, image, seen, took })
    }

    fn withdraw(&mut self, uid: &Arc<str>, pod: &Arc<Pod>, container: Option<String>, until: Timestamp) {
        let Some(drained) = self.drained.clone() else { return };
        let deadline = self.clock.until(until);
        let (uid, pod) = (uid.clone(), pod.clone());
        self.tasks.spawn(async move {
            let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
            let late = drained.wait_out_of_rules(namespace, &uid, deadline).await;
            Done { uid, what: What::Happened(Outcome::Withdrawn { container, late }) }
        });
    }

    // ---- writes ----------------------------------------------------------------------------------------------------

    fn body(&self, known: &mut SimulatedPod, pod: &Pod, now: Timestamp) -> Vec<u8> {
        let host = Host { ip: self.nodes[known.node].ip.to_string() };
        let status = status(pod, &known.seen, &host, &mut known.conditions, now);
        report::status_patch(pod, &status, &known.conditions)
    }

    fn report(&mut self, uid: &Arc<str>, known: &mut SimulatedPod, pod: &Arc<Pod>, now: Timestamp) {
        if known.writing
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
        if hash == known.written {
            return;
        }
        known.writing = true;
        let pod = pod.clone();
        self.send(uid, hash, move |client| async move { report::write_status(&client, &pod, body).await });
    }

    /// The end. What became of the containers interests only those who hold the pod back.
    fn finish(&mut self, uid: &Arc<str>, known: &mut SimulatedPod, pod: &Arc<Pod>, now: Timestamp) {
        let held = pod.metadata.finalizers.iter().flatten().next().is_some();
        let body = held.then(|| self.body(known, pod, now));
        known.writing = true;
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
    // 0 stands for "nothing written yet".
    hasher.finish().max(1)
}

fn exit(code: i32, signal: i32, at: Timestamp) -> Exit {
    Exit { code, signal, oom_killed: false, finished_at_ms: at.as_millisecond() }
}

fn pass_probes(seen: &mut PodOnNode, name: &str, id: &str) {
    let Some(container) = seen.containers.iter_mut().find(|one| one.name == name) else { return };
    if let (Some(run), Some(probes)) = (&container.running, &mut container.probes)
        && run.id == id
        && !matches!(container.doing, Doing::Stopping(_))
    {
        probes.pass();
    }
}

/// How long a hook of a container sleeps; other hooks take no time here.
fn sleeps(
    pod: &Pod,
    container: &str,
    hook: fn(&k8s_openapi::api::core::v1::Lifecycle) -> Option<&LifecycleHandler>,
) -> SignedDuration {
    let lifecycle = container_spec(pod, container).and_then(|spec| spec.lifecycle.as_ref());
    let sleep = lifecycle.and_then(hook).and_then(|hook| hook.sleep.as_ref());
    SignedDuration::from_secs(sleep.map_or(0, |sleep| sleep.seconds.max(0)))
}

/// What ran of the pod before this process began: simulated containers live on as long as the API remembers them.
fn ran_before(pod: &Pod) -> Option<PodSeen> {
    let status = pod.status.as_ref()?;
    let ip = status.pod_ip.as_ref()?.parse().ok();
    let told = status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
    let running = told.filter_map(|told| {
        let since = told.state.as_ref()?.running.as_ref()?.started_at.as_ref()?.0;
        Some(ContainerSeen {
            name: told.name.clone(),
            id: bare_id(told.container_id.as_deref()?).to_owned(),
            attempt: told.restart_count.try_into().ok()?,
            image: told.image.clone(),
            image_id: told.image_id.clone(),
            started_at_ms: since.as_millisecond(),
            exit: None,
        })
    });
    let meta = &pod.metadata;
    Some(PodSeen {
        uid: meta.uid.clone().unwrap_or_default(),
        namespace: meta.namespace.clone().unwrap_or_default(),
        name: meta.name.clone().unwrap_or_default(),
        ip,
        containers: running.collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake_api::FakeApi;
    use serde_json::{Value, json};

    struct Setup {
        api: FakeApi,
        _running: tokio_util::sync::DropGuard,
    }

    fn start(api: FakeApi, profile: &str) -> Setup {
        let shutdown = CancellationToken::new();
        let (client, profile) = (api.client(), Profile::parse(profile).unwrap());
        let _running = shutdown.clone().drop_guard();
        tokio::spawn(async move { run(client, 2, "sim", profile, shutdown).await });
        Setup { api, _running }
    }

    fn pod(name: &str, node: &str, spec: Value) -> Value {
        let mut spec = spec;
        spec["nodeName"] = json!(node);
        json!({"metadata": {"name": name, "uid": format!("uid-{name}")}, "spec": spec, "status": {"phase": "Pending"}})
    }

    fn web() -> Value {
        json!({"containers": [{"name": "c", "image": "web:v1"}]})
    }

    #[tokio::test]
    async fn a_pod_takes_one_write_to_run_and_one_delete_to_go() {
        let setup = start(FakeApi::new(), "{}");
        setup.api.put(pod("a", "sim-0", web()));
        setup.api.put(pod("b", "sim-1", web()));
        setup.api.put(pod("other", "elsewhere", web()));
        setup.api.until_noted("status a: Running, Ready True").await;
        setup.api.until_noted("status b: Running, Ready True").await;
        let ip = |name: &str| setup.api.pod(name).unwrap().status.unwrap().pod_ip.unwrap();
        assert_eq!((ip("a"), ip("b")), ("10.244.1.2".into(), "10.244.2.2".into()));
        setup.api.ask_to_go("a", 30);
        setup.api.until_noted("delete a uid uid-a grace 0").await;
        assert_eq!(setup.api.noted("status").len(), 2, "{:?}", setup.api.noted(""));
        assert!(setup.api.noted("event").is_empty());
    }

    #[tokio::test]
    async fn profiles_delay_crash_and_refuse() {
        let setup = start(
            FakeApi::new(),
            "images: [{image: '*:slow', startTime: 50ms, timeToReady: 200ms}, {image: '*:crash', crashAfter: 10ms, exitCode: 3}, {image: '*:none', unpullable: true}]",
        );
        let of = |image: &str| json!({"containers": [{"name": "c", "image": image}]});
        setup.api.put(pod("slow", "sim-0", of("web:slow")));
        setup.api.put(pod("crash", "sim-0", of("web:crash")));
        setup.api.put(pod("none", "sim-0", of("web:none")));
        setup.api.put(pod(
            "job",
            "sim-1",
            json!({"restartPolicy": "Never", "containers": [{"name": "c", "image": "job"}]}),
        ));
        for line in [
            "status slow: Pending, Ready False, c ContainerCreating",
            "status slow: Running, Ready False, c running",
            "status slow: Running, Ready True, c running",
            "status crash: Running, Ready False, c ended 3 x1",
            "status crash: Running, Ready False, c CrashLoopBackOff x1",
            "status none: Pending, Ready False, c ImagePullBackOff",
            "status job: Succeeded, Ready False, c ended 0 x0 job",
        ] {
            setup.api.until_noted(line).await;
        }
    }

    #[tokio::test]
    async fn a_port_of_the_node_is_taken_once() {
        let setup = start(FakeApi::new(), "{}");
        let with = |port: Value| json!({"containers": [{"name": "c", "image": "web", "ports": [port]}]});
        let every = || with(json!({"containerPort": 80, "hostPort": 8080}));
        setup.api.put(pod("first", "sim-0", every()));
        setup.api.until_noted("status first: Running, Ready True").await;
        setup.api.put(pod("elsewhere", "sim-1", every()));
        setup.api.put(pod(
            "second",
            "sim-0",
            with(json!({"containerPort": 80, "hostPort": 8080, "hostIP": "10.0.0.1"})),
        ));
        setup.api.until_noted("status elsewhere: Running, Ready True").await;
        setup.api.until_noted("status second: Failed").await;
        assert_eq!(setup.api.pod("second").unwrap().status.unwrap().reason.as_deref(), Some("NodePorts"));
        setup.api.ask_to_go("first", 1);
        setup.api.until_noted("delete first").await;
        setup.api.put(pod("third", "sim-0", every()));
        setup.api.until_noted("status third: Running, Ready True").await;
    }

    #[tokio::test]
    async fn an_image_changes_in_place_with_one_write() {
        let setup = start(FakeApi::new(), "{}");
        setup.api.put(pod("a", "sim-0", web()));
        setup.api.until_noted("c running x0 web:v1").await;
        setup.api.edit("a", |pod| pod["spec"]["containers"][0]["image"] = json!("web:v2"));
        setup.api.until_noted("status a: Running, Ready True, c running x1 web:v2").await;
        assert_eq!(setup.api.noted("status").len(), 2);
    }

    #[tokio::test]
    async fn a_new_process_takes_pods_over_as_they_are() {
        let api = FakeApi::new();
        {
            let setup = start(api.clone(), "{}");
            setup.api.put(pod("a", "sim-0", web()));
            setup.api.until_noted("status a: Running, Ready True").await;
        }
        let before = api.pod("a").unwrap().status.unwrap();
        let setup = start(api, "{}");
        setup.api.put(pod("b", "sim-0", web()));
        setup.api.until_noted("status b: Running, Ready True").await;
        assert_eq!(setup.api.pod("a").unwrap().status.unwrap().container_statuses, before.container_statuses);
        assert_eq!(setup.api.pod("b").unwrap().status.unwrap().pod_ip.unwrap(), "10.244.1.3");
        setup.api.ask_to_go("a", 30);
        setup.api.until_noted("delete a").await;
    }

    #[tokio::test]
    async fn refused_writes_are_tried_again() {
        let api = FakeApi::new();
        api.refuse("PATCH /api/v1/namespaces/ns/pods/a/status", 409);
        for _ in 0..3 {
            api.refuse("DELETE /api/v1/namespaces/ns/pods/a", 503);
        }
        let setup = start(api, "{}");
        setup.api.put(pod("a", "sim-0", web()));
        setup.api.until_noted("status a: Running, Ready True").await;
        setup.api.ask_to_go("a", 1);
        setup.api.until_noted("delete a").await;
    }

    #[test]
    fn nodes_share_the_pod_network() {
        let taken = [(POD_NETWORK, 24), (POD_NETWORK + 512, 24)];
        let few = free_blocks(3, &taken);
        let text: Vec<_> =
            few.iter().map(|(base, prefix)| Addresses::new(Ipv4Addr::from_bits(*base), *prefix).cidr()).collect();
        assert_eq!(text, ["10.244.1.0/24", "10.244.3.0/24", "10.244.4.0/24"]);
        let many = free_blocks(1_000, &taken);
        assert_eq!((many.len(), many[0].1), (1_000, 26));
    }
}
