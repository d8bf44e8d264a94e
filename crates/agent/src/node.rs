//! One node: registers itself, watches its pods, and has a worker for each.
//!
//! The same code serves in the server's process and in another one: all it has of the API is a client. It starts,
//! feeds and ends workers; what happens to a pod is theirs. Pods that ran before the agent started are taken over
//! untouched; what runs without a pod in the API is stopped. Mirrors `syncLoop` and `HandlePodAdditions`
//! (`pkg/kubelet/kubelet.go`) and the general predicates of `pkg/kubelet/lifecycle/predicate.go`.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::{IpAddr, SocketAddrV4},
    panic::AssertUnwindSafe,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use api::Pod;
use api::pod_resources;
use futures::{FutureExt, StreamExt};
use k8s_openapi::api::core::v1::{PodSpec, Taint};
use kube::{
    Api, Client,
    runtime::{WatchStreamExt, watcher},
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use crate::{
    clock::Clock,
    drained::Drained,
    events::Recorder,
    folders,
    pod_on_node::Failure,
    pod_worker::{self, Word, Workshop},
    registration::{self, Capacity, LEASE_SECONDS, Machine, Registration},
    resolv_conf::Dns,
    runtime::{Exited, PodSeen, Runtime},
    usage,
};

/// How often the node shows that it lives.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// How often it writes its whole status.
const REFRESH: Duration = Duration::from_secs(300);
/// Exits kept for pods whose worker is not there yet.
const EARLY_EXITS: usize = 1_024;
/// Before a pod whose worker panicked gets another one.
const REST: Duration = Duration::from_secs(10);
/// What is running without a pod is given this long to stop.
const ORPHAN_GRACE: Duration = Duration::from_secs(30);

/// What a node is made from.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// Its name.
    pub name: String,
    /// Labels beside those every node has.
    pub labels: BTreeMap<String, String>,
    /// Taints it registers with.
    pub taints: Vec<Taint>,
    /// Its addresses; the first is its pods' host address.
    pub addresses: Vec<IpAddr>,
    /// Its pods' addresses, such as `10.244.0.0/24`.
    pub pod_cidr: String,
    /// What it has.
    pub capacity: Capacity,
    /// Pods live in `<data-dir>/pods`.
    pub data_dir: PathBuf,
    /// How pods find names.
    pub dns: Dns,
}

/// Ports of the node that lead to pods, with where they lead.
pub type LedPorts = BTreeMap<pod_resources::HostPort, SocketAddrV4>;

/// What the node and its proxy tell each other, where it runs in this process.
pub struct Beside {
    /// The highest EndpointSlice revision that the proxy has in the kernel: known here before the proxy's Lease is.
    pub applied: watch::Receiver<u64>,
    /// Told whenever other ports of the node lead to pods.
    pub lead: Lead,
}

/// Takes the ports of the node that lead to pods.
pub type Lead = Box<dyn Fn(&LedPorts) + Send + Sync>;

/// Runs a node until `shutdown`; its containers run on. `exits` is the runtime's.
pub async fn run(
    config: NodeConfig,
    client: Client,
    runtime: Runtime,
    exits: mpsc::Receiver<Exited>,
    proxy: Option<Beside>,
    shutdown: CancellationToken,
) {
    let name = config.name.clone();
    tokio::select! {
        () = serve(config, client, runtime, exits, proxy) => {}
        () = shutdown.cancelled() => tracing::info!("node {name} is going; its containers run on"),
    }
}

async fn serve(
    config: NodeConfig,
    client: Client,
    runtime: Runtime,
    exits: mpsc::Receiver<Exited>,
    proxy: Option<Beside>,
) {
    // Ends with this function: nothing of the node outlives it but its containers.
    let mut beside = JoinSet::new();
    let registration = config.registration(runtime.is_simulated());
    beside.spawn(heartbeat(client.clone(), registration));
    beside.spawn(usage::report_of(client.clone(), config.name.clone(), runtime.clone()));
    let root = (!runtime.is_simulated()).then(|| config.data_dir.join("volumes"));
    beside.spawn(folders::keep(client.clone(), HashSet::from([config.name.clone()]), root));
    let (applied, lead) = proxy.map(|proxy| (proxy.applied, proxy.lead)).unzip();
    let own = applied.map(|applied| (config.name.clone(), applied));
    let shop = Arc::new(Workshop {
        drained: (!runtime.is_simulated()).then(|| Drained::start(client.clone(), own)),
        recorder: Recorder::start(client.clone(), &config.name),
        clock: Clock::start(),
        host_ip: config.addresses.first().copied().unwrap_or(IpAddr::from([127, 0, 0, 1])),
        pods_dir: config.data_dir.join("pods"),
        volumes_dir: config.data_dir.join("volumes"),
        cpu_milli: config.capacity.cpu_milli,
        memory_bytes: config.capacity.memory_bytes,
        dns: config.dns.clone(),
        node: config.name.clone(),
        client,
        runtime,
    });
    Floor::new(shop, config.capacity, lead).await.run(exits).await;
}

impl NodeConfig {
    fn registration(&self, simulated: bool) -> Registration {
        Registration {
            name: self.name.clone(),
            labels: self.labels.clone(),
            taints: self.taints.clone(),
            addresses: self.addresses.clone(),
            pod_cidr: self.pod_cidr.clone(),
            capacity: self.capacity,
            simulated,
        }
    }
}

/// Registers, then shows that the node lives.
async fn heartbeat(client: Client, registration: Registration) {
    let machine = Machine::this();
    let clock = Clock::start();
    let name = &registration.name;
    let what = format!("registering node {name}");
    let node = registration::node(&registration, &machine, clock.now());
    let uid = registration::until_done(&what, || registration::register(&client, &node)).await;
    let mut refresh = tokio::time::interval(REFRESH);
    refresh.tick().await;
    let mut beat = tokio::time::interval(HEARTBEAT);
    let own = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut given_up = registration::given_up(&client, own);
    loop {
        tokio::select! {
            Some(_) = given_up.next() => {
                if let Err(error) = registration::revive(&client, name, clock.now()).await {
                    tracing::warn!("node {name} was given up and could not say that it lives: {error}");
                }
            }
            _ = beat.tick() => {
                if let Err(error) = registration::renew(&client, name, &uid, LEASE_SECONDS).await {
                    tracing::warn!("the Lease of node {name} could not be renewed: {error}");
                }
            }
            _ = refresh.tick() => {
                if let Err(error) = registration::refresh(&client, &registration, &machine, clock.now()).await {
                    tracing::warn!("the status of node {name} could not be written: {error}");
                }
            }
        }
    }
}

/// The node's workers.
struct Floor {
    shop: Arc<Workshop>,
    capacity: Capacity,
    workers: HashMap<String, Worker>,
    tasks: JoinSet<Ended>,
    /// Found running at the start and not yet given to a worker.
    found: HashMap<String, PodSeen>,
    early: Vec<Exited>,
    listed: Option<HashSet<String>>,
    lead: Option<Lead>,
    led: LedPorts,
}

struct Worker {
    words: mpsc::Sender<Word>,
    pod: Arc<Pod>,
    /// The API object is gone.
    gone: bool,
}

/// What became of a worker, by the pod's uid.
enum Ended {
    /// Nothing is left to do.
    Over(String),
    /// It panicked.
    Broken(String),
    /// It panicked a while ago.
    Rested(String),
}

impl Floor {
    async fn new(shop: Arc<Workshop>, capacity: Capacity, lead: Option<Lead>) -> Floor {
        let found = loop {
            match shop.runtime.list().await {
                Ok(pods) => break pods,
                Err(error) => {
                    tracing::warn!("asking what runs on this node: {error}");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        };
        let found = found.into_iter().map(|pod| (pod.uid.clone(), pod)).collect();
        let (workers, tasks) = (HashMap::new(), JoinSet::new());
        let (early, led) = (Vec::new(), LedPorts::new());
        Floor { shop, capacity, workers, tasks, found, early, listed: None, lead, led }
    }

    async fn run(mut self, mut exits: mpsc::Receiver<Exited>) {
        let pods: Api<Pod> = Api::all(self.shop.client.clone());
        let mine = watcher::Config::default().fields(&format!("spec.nodeName={}", self.shop.node));
        let mut events = watcher(pods, mine).default_backoff().boxed();
        loop {
            tokio::select! {
                Some(event) = events.next() => match event {
                    Ok(event) => {
                        self.watched(event).await;
                        self.lead_ports();
                    }
                    Err(error) => tracing::warn!("watching the pods of node {}: {error}", self.shop.node),
                },
                Some(exited) = exits.recv() => self.exited(exited).await,
                Some(ended) = self.tasks.join_next(), if !self.tasks.is_empty() => match ended {
                    Ok(ended) => self.ended(ended).await,
                    Err(error) => tracing::error!("a task of node {} broke down: {error}", self.shop.node),
                },
                else => return,
            }
        }
    }

    async fn watched(&mut self, event: watcher::Event<Pod>) {
        match event {
            watcher::Event::Init => self.listed = Some(HashSet::new()),
            watcher::Event::InitApply(pod) => {
                if let (Some(listed), Some(uid)) = (&mut self.listed, &pod.metadata.uid) {
                    listed.insert(uid.clone());
                }
                self.changed(pod).await;
            }
            watcher::Event::InitDone => self.settle().await,
            watcher::Event::Apply(pod) => self.changed(pod).await,
            watcher::Event::Delete(pod) => {
                let uid = pod.metadata.uid.clone().unwrap_or_default();
                self.say(&uid, Word::Pod(Arc::new(pod))).await;
                self.gone(&uid).await;
            }
        }
    }

    /// Lets ports of the node lead to the pods that took them.
    fn lead_ports(&mut self) {
        let Some(lead) = &self.lead else { return };
        let mut led = LedPorts::new();
        for worker in self.workers.values().filter(|worker| !worker.gone) {
            let ip = worker.pod.status.as_ref().and_then(|status| status.pod_ip.as_ref()?.parse().ok());
            let Some((spec, ip)) = active(&worker.pod).zip(ip) else { continue };
            let own = pod_resources::led_ports(spec).into_iter();
            led.extend(own.map(|(port, to)| (port, SocketAddrV4::new(ip, to))));
        }
        if led != self.led && self.listed.is_none() {
            lead(&led);
            self.led = led;
        }
    }

    async fn gone(&mut self, uid: &str) {
        if let Some(worker) = self.workers.get_mut(uid) {
            worker.gone = true;
            self.say(uid, Word::Gone).await;
        }
    }

    /// One pod whose worker panics must not take the others along: it gets a new one after a rest.
    async fn ended(&mut self, ended: Ended) {
        match ended {
            Ended::Over(uid) => drop(self.workers.remove(&uid)),
            Ended::Broken(uid) => {
                tracing::error!("the worker of pod {uid} broke down; another one takes over in {REST:?}");
                self.tasks.spawn(async move {
                    tokio::time::sleep(REST).await;
                    Ended::Rested(uid)
                });
            }
            Ended::Rested(uid) => self.revive(uid).await,
        }
    }

    async fn revive(&mut self, uid: String) {
        let Some(worker) = self.workers.remove(&uid) else { return };
        match self.shop.runtime.list().await {
            Ok(pods) => self.found.extend(pods.into_iter().filter(|pod| pod.uid == uid).map(|pod| (uid.clone(), pod))),
            Err(error) => tracing::warn!("asking what runs of pod {uid}: {error}"),
        }
        self.changed(Pod::clone(&worker.pod)).await;
        if worker.gone {
            self.gone(&uid).await;
        }
    }

    async fn say(&mut self, uid: &str, word: Word) {
        if let Some(worker) = self.workers.get(uid) {
            // A worker that has just ended needs no word.
            let _ = worker.words.send(word).await;
        }
    }

    async fn changed(&mut self, pod: Pod) {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let pod = Arc::new(pod);
        if let Some(worker) = self.workers.get_mut(&uid) {
            worker.pod = pod.clone();
            return self.say(&uid, Word::Pod(pod)).await;
        }
        let seen = self.found.remove(&uid);
        let fresh = seen.is_none() && pod.status.as_ref().is_none_or(|status| status.start_time.is_none());
        let refused = if fresh && pod.metadata.deletion_timestamp.is_none() { self.refuses(&pod) } else { None };
        let (words, work) = pod_worker::start(self.shop.clone(), pod.clone(), seen);
        if let Some(failure) = refused {
            // Before its task runs, so that nothing is begun.
            let _ = words.try_send(Word::Refused(failure));
        }
        self.workers.insert(uid.clone(), Worker { words, pod, gone: false });
        let of = uid.clone();
        self.tasks.spawn(async move {
            match AssertUnwindSafe(work).catch_unwind().await {
                Ok(()) => Ended::Over(of),
                // What it knew is dropped with it; nothing else has seen it.
                Err(_panic) => Ended::Broken(of),
            }
        });
        let early = std::mem::take(&mut self.early);
        let (his, others) = early.into_iter().partition(|exited| exited.pod_uid == uid);
        self.early = others;
        for exited in his {
            self.exited(exited).await;
        }
    }

    async fn exited(&mut self, exited: Exited) {
        let Exited { pod_uid, container_id, exit } = exited;
        if self.workers.contains_key(&pod_uid) {
            self.say(&pod_uid, Word::Exited { id: container_id, exit }).await;
        } else if self.early.len() < EARLY_EXITS {
            self.early.push(Exited { pod_uid, container_id, exit });
        }
    }

    /// After a list: what is not in it is gone; what runs and is in no list is nobody's.
    async fn settle(&mut self) {
        let Some(listed) = self.listed.take() else { return };
        let gone: Vec<_> = self.workers.keys().filter(|uid| !listed.contains(*uid)).cloned().collect();
        for uid in gone {
            self.gone(&uid).await;
        }
        for (_, orphan) in self.found.drain() {
            tracing::info!("pod {}/{} runs here but is not in the API: stopping it", orphan.namespace, orphan.name);
            let shop = self.shop.clone();
            self.tasks.spawn(async move {
                stop_orphan(&shop, &orphan).await;
                Ended::Over(orphan.uid)
            });
        }
        self.early.clear();
    }

    /// Whether the pod does not fit beside those that are here, in the kubelet's words.
    fn refuses(&self, pod: &Pod) -> Option<Failure> {
        let spec = pod.spec.as_deref()?;
        let others: Vec<_> = self.workers.values().filter_map(|worker| active(&worker.pod)).collect();
        let used = |of: fn(&pod_resources::Requests) -> i64| -> i64 {
            others.iter().map(|spec| of(&pod_resources::requests(spec))).sum()
        };
        let wanted = pod_resources::requests(spec);
        let rows = [
            ("pods", 1, i64::try_from(others.len()).unwrap_or(i64::MAX), self.capacity.pods),
            ("cpu", wanted.cpu_milli, used(|one| one.cpu_milli), self.capacity.cpu_milli),
            ("memory", wanted.memory_bytes, used(|one| one.memory_bytes), self.capacity.memory_bytes),
        ];
        for (name, wanted, used, capacity) in rows {
            if wanted > 0 && used.saturating_add(wanted) > capacity {
                let message = format!(
                    "Pod was rejected: Node didn't have enough resource: {name}, requested: {wanted}, used: {used}, capacity: {capacity}"
                );
                return Some(Failure { reason: format!("OutOf{name}"), message });
            }
        }
        let taken: Vec<_> = others.iter().flat_map(|spec| pod_resources::host_ports(spec)).collect();
        let wanted = pod_resources::host_ports(spec);
        let clashes = wanted.iter().any(|port| taken.iter().any(|other| pod_resources::ports_clash(port, other)));
        clashes.then(Failure::ports_taken)
    }
}

/// The spec of a pod that takes up room.
fn active(pod: &Pod) -> Option<&PodSpec> {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    pod.spec.as_deref().filter(|_| !matches!(phase, Some("Succeeded" | "Failed")))
}

async fn stop_orphan(shop: &Workshop, orphan: &PodSeen) {
    let running = orphan.containers.iter().filter(|container| container.exit.is_none());
    let stops = running.map(|container| shop.runtime.stop_container(&orphan.uid, &container.id, ORPHAN_GRACE));
    for stopped in futures::future::join_all(stops).await {
        if let Err(error) = stopped {
            tracing::warn!("a container of the orphaned pod {} could not be stopped: {error}", orphan.uid);
        }
    }
    if let Err(error) = shop.runtime.stop_sandbox(&orphan.uid).await {
        tracing::warn!("the sandbox of the orphaned pod {} could not be taken down: {error}", orphan.uid);
    }
    pod_worker::forget(&shop.pods_dir.join(&orphan.uid)).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        fake_api::FakeApi,
        runtime::{
            Exit,
            profile::Profile,
            simulated::{Addresses, Simulated, container_id},
        },
    };
    use serde_json::{Value, json};

    fn config(data_dir: PathBuf) -> NodeConfig {
        NodeConfig {
            name: "n1".into(),
            labels: BTreeMap::new(),
            taints: Vec::new(),
            addresses: vec![IpAddr::from([10, 0, 0, 1])],
            pod_cidr: "10.244.0.0/24".into(),
            capacity: Capacity { cpu_milli: 2000, memory_bytes: 1 << 30, storage_bytes: 1 << 30, pods: 10 },
            data_dir,
            dns: Dns::default(),
        }
    }

    /// A node whose containers are simulated, on an API that is faked.
    struct Setup {
        api: FakeApi,
        runtime: Arc<Simulated>,
        shutdown: CancellationToken,
        node: tokio::task::JoinHandle<()>,
        _data: tempfile::TempDir,
    }

    fn start(api: FakeApi, profile: &str) -> Setup {
        let (sender, exits) = mpsc::channel(16);
        let addresses = Addresses::new([10, 244, 0, 0].into(), 24);
        let runtime = Simulated::new(Profile::parse(profile).unwrap(), addresses, sender);
        start_on(api, runtime, exits)
    }

    fn start_on(api: FakeApi, runtime: Arc<Simulated>, exits: mpsc::Receiver<Exited>) -> Setup {
        start_beside(None, api, runtime, exits)
    }

    fn start_beside(
        proxy: Option<Beside>,
        api: FakeApi,
        runtime: Arc<Simulated>,
        exits: mpsc::Receiver<Exited>,
    ) -> Setup {
        let data = tempfile::tempdir().unwrap();
        let shutdown = CancellationToken::new();
        let node = tokio::spawn(run(
            config(data.path().to_owned()),
            api.client(),
            Runtime::Simulated(runtime.clone()),
            exits,
            proxy,
            shutdown.clone(),
        ));
        Setup { api, runtime, shutdown, node, _data: data }
    }

    fn pod(name: &str, spec: Value) -> Value {
        let mut spec = spec;
        spec["nodeName"] = json!("n1");
        json!({"metadata": {"name": name, "uid": format!("uid-{name}")}, "spec": spec, "status": {"phase": "Pending"}})
    }

    fn web() -> Value {
        json!({"containers": [{"name": "c", "image": "web:v1"}]})
    }

    #[tokio::test]
    async fn a_pod_runs_after_one_write_and_goes_after_one_more_and_a_delete() {
        let setup = start(FakeApi::new(), "{}");
        setup.api.put(pod("web", web()));
        setup.api.until_noted("status web: Running, Ready True").await;
        assert_eq!(setup.api.pod("web").unwrap().status.unwrap().pod_ip.unwrap(), "10.244.0.2");
        setup.api.ask_to_go("web", 30);
        setup.api.until_noted("delete web uid uid-web grace 0").await;
        assert_eq!(
            setup.api.noted("status"),
            [
                "status web: Running, Ready True, c running x0 web:v1",
                "status web: Succeeded, Ready False, c ended 0 x0 web:v1"
            ]
        );
        setup.api.until_noted("event Normal Killing: Stopping container c").await;
        assert_eq!(
            setup.api.noted("event"),
            [
                "event Normal Pulling: Pulling image \"web:v1\"",
                "event Normal Pulled: Successfully pulled image \"web:v1\" in 0ms (0ms including waiting). Image size: 50000000 bytes.",
                "event Normal Created: Created container: c",
                "event Normal Started: Started container c",
                "event Normal Killing: Stopping container c",
            ]
            .map(str::to_owned)
        );
        assert!(setup.runtime.list().await.unwrap().is_empty());
        setup.api.until_noted("made nodes n1").await;
        setup.api.until_noted("made leases n1").await;
    }

    #[tokio::test]
    async fn a_changed_image_keeps_the_pod_and_its_address() {
        let setup = start(FakeApi::new(), "{}");
        setup.api.put(pod("web", web()));
        setup.api.until_noted("c running x0 web:v1").await;
        let before = setup.api.pod("web").unwrap().status.unwrap();
        setup.api.edit("web", |pod| pod["spec"]["containers"][0]["image"] = json!("web:v2"));
        setup.api.until_noted("c running x1 web:v2").await;
        let after = setup.api.pod("web").unwrap().status.unwrap();
        assert_eq!((before.pod_ip, before.start_time), (after.pod_ip, after.start_time));
        setup.api.until_noted("event Normal Killing: Container c definition changed, will be restarted").await;
    }

    #[tokio::test]
    async fn an_image_that_cannot_be_pulled_is_told() {
        let setup = start(FakeApi::new(), "images: [{image: '*:v9', unpullable: true}]");
        setup.api.put(pod("web", json!({"containers": [{"name": "c", "image": "web:v9"}]})));
        setup.api.until_noted("status web: Pending, Ready False, c ErrImagePull x0 web:v9").await;
        setup.api.until_noted("status web: Pending, Ready False, c ImagePullBackOff x0 web:v9").await;
        setup.api.until_noted("event Normal BackOff: Back-off pulling image \"web:v9\"").await;
        setup.api.ask_to_go("web", 30);
        setup.api.until_noted("delete web").await;
    }

    #[tokio::test]
    async fn a_job_ends_at_once() {
        let setup = start(FakeApi::new(), "{}");
        setup.api.put(pod("job", json!({"restartPolicy": "Never", "containers": [{"name": "c", "image": "job"}]})));
        setup.api.until_noted("status job: Succeeded, Ready False, c ended 0 x0 job").await;
    }

    /// Exits and starts come by two ways, and an exit may win.
    #[tokio::test]
    async fn an_exit_that_is_heard_of_before_its_start_counts() {
        let (sender, exits) = mpsc::channel(16);
        let profile = Profile::parse("images: [{image: '*', startTime: 300ms}]").unwrap();
        let runtime = Simulated::new(profile, Addresses::new([10, 244, 0, 0].into(), 24), sender.clone());
        let setup = start_on(FakeApi::new(), runtime, exits);
        setup.api.put(pod("web", json!({"restartPolicy": "Never", "containers": [{"name": "c", "image": "web"}]})));
        setup.api.until_noted("event Normal Pulled").await;
        let exit = Exit { code: 7, signal: 0, oom_killed: false, finished_at_ms: 0 };
        let id = container_id("uid-web", "c", 0);
        sender.send(Exited { pod_uid: "uid-web".into(), container_id: id, exit }).await.unwrap();
        setup.api.until_noted("status web: Failed, Ready False, c ended 7").await;
    }

    #[tokio::test]
    async fn readiness_takes_its_time() {
        let setup = start(FakeApi::new(), "images: [{image: '*', timeToReady: 300ms}]");
        let probe = json!({"tcpSocket": {"port": 80}});
        setup.api.put(pod("web", json!({"containers": [{"name": "c", "image": "web", "readinessProbe": probe}]})));
        setup.api.until_noted("status web: Running, Ready False, c running").await;
        setup.api.until_noted("status web: Running, Ready True, c running").await;
        setup.api.until_noted("event Warning Unhealthy: Readiness probe failed").await;
    }

    #[tokio::test]
    async fn refused_writes_are_tried_again() {
        let api = FakeApi::new();
        api.refuse("PATCH /api/v1/namespaces/ns/pods/web/status", 409);
        api.refuse("PATCH /api/v1/namespaces/ns/pods/web/status", 500);
        api.refuse("DELETE /api/v1/namespaces/ns/pods/web", 503);
        let setup = start(api, "{}");
        setup.api.put(pod("web", web()));
        setup.api.until_noted("status web: Running, Ready True").await;
        setup.api.ask_to_go("web", 1);
        setup.api.until_noted("delete web").await;
    }

    #[tokio::test]
    async fn a_restarted_agent_leaves_containers_alone_and_stops_orphans() {
        let first = start(FakeApi::new(), "{}");
        first.api.put(pod("web", web()));
        first.api.put(pod("orphan", web()));
        first.api.until_noted("status web: Running, Ready True").await;
        first.api.until_noted("status orphan: Running, Ready True").await;
        first.shutdown.cancel();
        first.node.await.unwrap();
        let before = first.runtime.list().await.unwrap();
        assert_eq!(before.len(), 2);
        // While no agent runs one pod is forced out of the API.
        let api = FakeApi::new();
        let mut kept = serde_json::to_value(first.api.pod("web").unwrap()).unwrap();
        kept["metadata"]["uid"] = json!("uid-web");
        api.put(kept);
        let second = start_on(api, first.runtime.clone(), mpsc::channel(1).1);
        // Whatever is written next comes after the takeover.
        second.api.put(pod("late", web()));
        second.api.until_noted("status late: Running, Ready True").await;
        let web = |pods: &[PodSeen]| pods.iter().find(|pod| pod.name == "web").cloned().unwrap();
        loop {
            let now = second.runtime.list().await.unwrap();
            assert_eq!(web(&now), web(&before));
            if !now.iter().any(|pod| pod.name == "orphan") {
                break;
            }
            tokio::task::yield_now().await;
        }
        assert!(second.api.noted("status web: Running, Ready False").is_empty());
        second.api.ask_to_go("web", 1);
        second.api.until_noted("delete web").await;
    }

    #[tokio::test]
    async fn a_pod_that_does_not_fit_is_refused() {
        let setup = start(FakeApi::new(), "{}");
        let wants =
            |cpu: &str| json!({"containers": [{"name": "c", "image": "web", "resources": {"requests": {"cpu": cpu}}}]});
        setup.api.put(pod("small", wants("1500m")));
        setup.api.until_noted("status small: Running, Ready True").await;
        setup.api.put(pod("big", wants("1")));
        setup.api.until_noted("status big: Failed").await;
        let status = setup.api.pod("big").unwrap().status.unwrap();
        assert_eq!(status.reason.as_deref(), Some("OutOfcpu"));
        setup.api.ask_to_go("big", 30);
        setup.api.until_noted("delete big").await;
    }

    #[tokio::test]
    async fn ports_of_the_node_lead_to_pods() {
        let (sender, exits) = mpsc::channel(16);
        let runtime = Simulated::new(Profile::default(), Addresses::new([10, 244, 0, 0].into(), 24), sender);
        let (ports, mut told) = watch::channel(LedPorts::new());
        let lead = Box::new(move |led: &LedPorts| drop(ports.send_replace(led.clone())));
        let proxy = Beside { applied: watch::channel(0).1, lead };
        let setup = start_beside(Some(proxy), FakeApi::new(), runtime, exits);
        let with = |ports: Value, more: Value| {
            let mut spec = json!({"containers": [{"name": "c", "image": "web", "ports": ports}]});
            spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            spec
        };
        setup.api.put(pod("plain", web()));
        setup
            .api
            .put(pod("node", with(json!([{"containerPort": 9090, "hostPort": 9090}]), json!({"hostNetwork": true}))));
        setup
            .api
            .put(pod("web", with(json!([{"containerPort": 80, "hostPort": 8080}, {"containerPort": 81}]), json!({}))));
        let led = told.wait_for(|led| !led.is_empty()).await.unwrap().clone();
        let ip = setup.api.pod("web").unwrap().status.unwrap().pod_ip.unwrap();
        let port = ("TCP".to_owned(), "0.0.0.0".to_owned(), 8080);
        assert_eq!(led, LedPorts::from([(port, format!("{ip}:80").parse().unwrap())]));
        setup.api.ask_to_go("web", 1);
        told.wait_for(LedPorts::is_empty).await.unwrap();
    }

    #[tokio::test]
    async fn a_pod_forced_out_is_stopped() {
        let setup = start(FakeApi::new(), "{}");
        setup.api.put(pod("web", web()));
        setup.api.until_noted("status web: Running, Ready True").await;
        setup.api.forget("web");
        while !setup.runtime.list().await.unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
        assert!(setup.api.noted("delete").is_empty());
    }
}
