//! `kill -9` in the middle of everything: what was acknowledged is there, and no turn is there by half.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::{Client, ResourceExt};
use rand::Rng;
use rand::distr::{Alphanumeric, SampleString};
use serde_json::{Value, json};
use tokio::sync::RwLock;

use crate::cluster::{Cluster, PATIENCE, Setup, client};
use crate::raw::{MAPS, Raw, map, refusal};

/// Times the server is killed.
const KILLS: u32 = 16;
/// Clients that write at the same time.
const WRITERS: u32 = 4;
/// Pods of the Deployment that rolls meanwhile; all new ones are made in one turn, so that turns are large.
const REPLICAS: u64 = 24;
/// Before an attempt that failed is repeated.
const PAUSE: Duration = Duration::from_millis(10);

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn kill_9_loses_nothing() {
    let profile = "images:\n- {image: '*', startTime: 10ms, timeToReady: 40ms, stopTime: 10ms}\n";
    let mut cluster = Setup::simulated(4).profile(profile).start();
    let load = Arc::new(Load::new(client(&cluster).await));
    load.create_deployment().await;
    let mut tasks = vec![tokio::spawn(load.clone().roll()), tokio::spawn(load.clone().look())];
    tasks.extend((0..WRITERS).map(|writer| tokio::spawn(load.clone().write(writer))));

    for _ in 0..KILLS {
        let alive = Duration::from_millis(rand::rng().random_range(20..400));
        tokio::time::sleep(alive).await;
        cluster.kill();
        // Attempts that were under way have failed once nobody holds the gate.
        let closed = load.gate.write().await;
        let durable = Durable::read(&cluster);
        durable.check_turns();
        load.check(&durable);
        cluster.restart();
        drop(closed);
    }
    load.stop.store(true, Ordering::Relaxed);
    for task in tasks {
        tokio::time::timeout(PATIENCE, task).await.expect("a client hangs").unwrap();
    }
    load.check_served().await;
    load.wait_for_rollout().await;
    let acknowledged = load.acknowledged.lock().unwrap().len();
    assert!(KILLS < acknowledged as u32, "only {acknowledged} objects were written: that is no load");
}

/// The log is cut when it has outgrown what is live; what was before that can no longer be watched.
#[tokio::test]
async fn the_log_is_compacted() {
    /// Incompressible bytes of a change, and changes: more than the log may hold.
    const FILL: usize = 1_040_000;
    const CHANGES: usize = 36;
    let mut cluster = Setup::bare().start();
    let raw = Raw::connect(&cluster).await;
    raw.post(MAPS, map("large", "x")).await;
    let (_, first) = raw.post(MAPS, map("small", "x")).await;
    let mut fill = Alphanumeric.sample_string(&mut rand::rng(), FILL).into_bytes();
    for _ in 0..CHANGES {
        fill.rotate_left(1);
        let fill = str::from_utf8(&fill).unwrap();
        let large = json!({ "metadata": { "name": "large" }, "data": { "fill": fill } });
        assert_eq!(raw.put(&format!("{MAPS}/large"), large).await.0, 200);
    }
    let (_, large) = raw.get(&format!("{MAPS}/large")).await;
    cluster.kill();
    let stored: u64 = fs::read_dir(cluster.data_dir().join("store"))
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum();
    assert!(stored < 36 << 20, "{stored} bytes are kept of an object of {FILL}");
    cluster.restart();
    let raw = Raw::connect(&cluster).await;
    assert_eq!(raw.get(&format!("{MAPS}/large")).await, (200, large));
    assert_eq!(raw.get(&format!("{MAPS}/small")).await, (200, first.clone()));
    let from = first["metadata"]["resourceVersion"].as_str().unwrap();
    let too_old = raw.get(&format!("{MAPS}?watch=1&resourceVersion={from}")).await;
    assert!(refusal(&too_old).starts_with(&format!("410 Expired: too old resource version: {from} (")), "{too_old:?}");
}

/// Clients, and what they were told.
struct Load {
    client: Client,
    /// Read by whoever attempts something; written to while the server is down.
    gate: RwLock<()>,
    stop: AtomicBool,
    /// ConfigMap → the number it was last known to hold; `None`: deleted.
    acknowledged: Mutex<BTreeMap<String, Option<u64>>>,
    /// ConfigMap → the revision that somebody has seen.
    seen: Mutex<BTreeMap<String, u64>>,
    /// The highest revision anybody was shown.
    revision: AtomicU64,
    /// The version last rolled out.
    version: AtomicU64,
}

impl Load {
    fn new(client: Client) -> Load {
        Load {
            client,
            gate: RwLock::default(),
            stop: AtomicBool::new(false),
            acknowledged: Mutex::default(),
            seen: Mutex::default(),
            revision: AtomicU64::new(0),
            version: AtomicU64::new(1),
        }
    }

    fn config_maps(&self) -> Api<ConfigMap> {
        Api::default_namespaced(self.client.clone())
    }

    fn deployments(&self) -> Api<Deployment> {
        Api::default_namespaced(self.client.clone())
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Tries until it works or the server refuses it with `settled`.
    async fn persist<T, F>(&self, settled: u16, mut attempt: impl FnMut() -> F) -> Option<T>
    where
        F: Future<Output = kube::Result<T>>,
    {
        loop {
            let outcome = {
                let _open = self.gate.read().await;
                attempt().await
            };
            match outcome {
                Ok(done) => return Some(done),
                Err(kube::Error::Api(status)) if status.code == settled => return None,
                Err(kube::Error::Api(status)) if status.code < 500 => panic!("refused: {status:?}"),
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    /// Creates, changes and deletes ConfigMaps, one after the other.
    async fn write(self: Arc<Self>, writer: u32) {
        let api = self.config_maps();
        for number in 0.. {
            if self.stopped() {
                return;
            }
            let name = format!("w{writer}-{number}");
            let made: ConfigMap =
                serde_json::from_value(json!({ "metadata": { "name": name }, "data": { "n": "0" } })).unwrap();
            self.persist(409, || async { api.create(&PostParams::default(), &made).await }).await;
            self.acknowledge(&name, Some(0));
            self.set(&format!("counter-{writer}"), number).await;
            if let Some(old) = u64::checked_sub(number, 10)
                && number % 2 == 0
            {
                let name = format!("w{writer}-{old}");
                // From here on it may be gone.
                self.acknowledged.lock().unwrap().remove(&name);
                self.persist(404, || async { api.delete(&name, &DeleteParams::default()).await }).await;
                self.acknowledge(&name, None);
            }
        }
    }

    async fn set(&self, name: &str, number: u64) {
        let api = self.config_maps();
        let made: ConfigMap =
            serde_json::from_value(json!({ "metadata": { "name": name }, "data": { "n": "0" } })).unwrap();
        if number == 0 {
            self.persist(409, || async { api.create(&PostParams::default(), &made).await }).await;
        }
        let change = json!({ "data": { "n": number.to_string() } });
        let change = Patch::Merge(&change);
        let changed =
            self.persist(0, || async { api.patch(name, &PatchParams::default(), &change).await }).await.unwrap();
        self.acknowledge(name, Some(number));
        self.saw(&changed);
    }

    fn acknowledge(&self, name: &str, number: Option<u64>) {
        self.acknowledged.lock().unwrap().insert(name.to_owned(), number);
    }

    fn saw(&self, object: &ConfigMap) {
        let revision = object.resource_version().unwrap().parse().unwrap();
        self.revision.fetch_max(revision, Ordering::Relaxed);
        self.seen.lock().unwrap().insert(object.name_any(), revision);
    }

    /// Watches: what was shown is as good as acknowledged.
    async fn look(self: Arc<Self>) {
        let api = self.config_maps();
        let mut too_old = false;
        while !self.stopped() {
            let from = if too_old { 0 } else { self.revision.load(Ordering::Relaxed) }.to_string();
            let watch = {
                let _open = self.gate.read().await;
                api.watch(&WatchParams::default().timeout(5), &from).await
            };
            // The history may have been compacted while the server was down; then one looks at everything anew.
            too_old = matches!(&watch, Err(kube::Error::Api(status)) if status.code == 410);
            let Ok(stream) = watch else {
                tokio::time::sleep(PAUSE).await;
                continue;
            };
            let mut stream = stream.boxed();
            while let Ok(Some(event)) = stream.try_next().await {
                match event {
                    WatchEvent::Added(object) | WatchEvent::Modified(object) => self.saw(&object),
                    WatchEvent::Deleted(object) => {
                        self.saw(&object);
                        self.seen.lock().unwrap().remove(&object.name_any());
                    }
                    WatchEvent::Bookmark(_) => {}
                    WatchEvent::Error(status) => panic!("the watch ended: {status:?}"),
                }
                if self.stopped() {
                    return;
                }
            }
        }
    }

    async fn create_deployment(&self) {
        let deployment: Deployment = serde_json::from_value(json!({
            "metadata": { "name": "web" },
            "spec": {
                "replicas": REPLICAS, "strategy": { "rollingUpdate": { "maxSurge": "100%", "maxUnavailable": "50%" } },
                "selector": { "matchLabels": { "app": "web" } },
                "template": {
                    "metadata": { "labels": { "app": "web" } },
                    "spec": { "containers": [{ "name": "web", "image": "web:v1" }] },
                },
            },
        }))
        .unwrap();
        self.deployments().create(&PostParams::default(), &deployment).await.unwrap();
        self.wait_for_rollout().await;
    }

    /// Rolls out one version after the other, often before the last one is through.
    async fn roll(self: Arc<Self>) {
        let api = self.deployments();
        while !self.stopped() {
            let version = 1 + self.version.load(Ordering::Relaxed);
            let change = json!({ "spec": { "template": { "spec": { "containers": [{ "name": "web", "image": format!("web:v{version}") }] } } } });
            let change = Patch::Strategic(&change);
            self.persist(0, || async { api.patch("web", &PatchParams::default(), &change).await }).await;
            self.version.store(version, Ordering::Relaxed);
            let pause = rand::rng().random_range(50..500);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
    }

    /// The rollout comes to its end, whatever happened on the way.
    async fn wait_for_rollout(&self) {
        let image = format!("web:v{}", self.version.load(Ordering::Relaxed));
        let api = self.deployments();
        let through = async {
            loop {
                let deployment = serde_json::to_value(api.get("web").await.unwrap()).unwrap();
                let number = |pointer: &str| deployment.pointer(pointer).and_then(Value::as_u64);
                assert_eq!(deployment.pointer("/spec/template/spec/containers/0/image").unwrap(), &image);
                let counts = ["/status/replicas", "/status/updatedReplicas", "/status/availableReplicas"].map(number);
                if counts == [Some(REPLICAS); 3]
                    && number("/status/observedGeneration") == number("/metadata/generation")
                {
                    return;
                }
                tokio::time::sleep(PAUSE).await;
            }
        };
        tokio::time::timeout(PATIENCE, through).await.expect("the rollout does not come to its end");
    }

    /// What clients know must be what is stored.
    fn check(&self, durable: &Durable) {
        let last = self.revision.load(Ordering::Relaxed);
        assert!(last <= durable.revision, "revision {last} was shown, {} is stored", durable.revision);
        for (name, revision) in &*self.seen.lock().unwrap() {
            let stored = durable.config_maps.get(name).map_or(0, |stored| stored.revision);
            let deleted = !durable.config_maps.contains_key(name);
            assert!(deleted || *revision <= stored, "{name} was shown at {revision}, it is stored at {stored}");
        }
        for (name, number) in &*self.acknowledged.lock().unwrap() {
            let stored = durable.config_maps.get(name).map(|stored| stored.number);
            // A later attempt may have been stored without its answer.
            let kept = stored == *number || stored.is_some() && number.is_some() && *number < stored;
            assert!(kept, "{name}: {number:?} was acknowledged, {stored:?} is stored");
        }
    }

    /// The restarted server serves what it stores.
    async fn check_served(&self) {
        let list = self.config_maps().list(&ListParams::default()).await.unwrap();
        let revision: u64 = list.metadata.resource_version.unwrap().parse().unwrap();
        assert!(self.revision.load(Ordering::Relaxed) <= revision);
        let number = |map: &ConfigMap| map.data.as_ref().and_then(|data| data.get("n")?.parse().ok());
        let served: BTreeMap<String, Option<u64>> =
            list.items.iter().map(|map| (map.name_any(), number(map))).collect();
        for (name, number) in &*self.acknowledged.lock().unwrap() {
            assert_eq!(served.get(name).copied().flatten(), *number, "{name}");
        }
    }
}

/// What is on the disk after a kill.
struct Durable {
    revision: u64,
    config_maps: BTreeMap<String, Stored>,
    deployments: Vec<Value>,
    sets: Vec<Value>,
    pods: Vec<Value>,
}

struct Stored {
    revision: u64,
    number: u64,
}

impl Durable {
    /// Reads a copy, so that the server itself has to cope with the torn end of the log.
    fn read(cluster: &Cluster) -> Durable {
        let copy = tempfile::tempdir().unwrap();
        copy_files(&cluster.data_dir().join("store"), copy.path());
        let (_, recovered) = store::Store::open(copy.path(), store::Limits::default()).unwrap();
        let values: Vec<(&str, u64, Value)> = recovered
            .objects
            .iter()
            .map(|record| {
                (record.key.as_str(), record.revision, serde_json::from_slice(record.value.as_ref().unwrap()).unwrap())
            })
            .collect();
        let of = |prefix: &str| -> Vec<Value> {
            values.iter().filter(|(key, ..)| key.starts_with(prefix)).map(|(.., value)| value.clone()).collect()
        };
        let config_maps =
            values.iter().filter(|(key, ..)| key.starts_with("configmaps/default/")).map(|(key, revision, value)| {
                let number = value["data"]["n"].as_str().unwrap_or("0").parse().unwrap();
                (key.rsplit('/').next().unwrap().to_owned(), Stored { revision: *revision, number })
            });
        Durable {
            revision: recovered.revision,
            config_maps: config_maps.collect(),
            deployments: of("deployments.apps/"),
            sets: of("replicasets.apps/"),
            pods: of("pods/"),
        }
    }

    /// A turn runs every decision to rest before it is committed: a Deployment's new template, its ReplicaSet, the pods
    /// of that, the nodes they are bound to and the counts in the status of each come together or not at all.
    fn check_turns(&self) {
        assert_eq!(self.deployments.len(), 1);
        assert!(!self.sets.is_empty() && REPLICAS / 2 <= self.pods.len() as u64);
        for deployment in &self.deployments {
            assert_eq!(
                deployment["status"]["observedGeneration"], deployment["metadata"]["generation"],
                "{deployment}"
            );
            let image = |object: &Value| object["spec"]["template"]["spec"]["containers"][0]["image"].clone();
            let newest: Vec<&Value> = self.sets.iter().filter(|set| image(set) == image(deployment)).collect();
            assert_eq!(newest.len(), 1, "ReplicaSets of {}", image(deployment));
            let revision =
                |object: &Value| object["metadata"]["annotations"]["deployment.kubernetes.io/revision"].clone();
            assert_eq!(revision(newest[0]), revision(deployment));
            let counted: u64 = self.sets.iter().map(|set| set["status"]["replicas"].as_u64().unwrap_or(0)).sum();
            assert_eq!(deployment["status"]["replicas"].as_u64().unwrap_or(0), counted, "{deployment}");
        }
        for set in &self.sets {
            assert_eq!(set["status"]["observedGeneration"], set["metadata"]["generation"], "{set}");
            let owned = |pod: &&Value| pod["metadata"]["ownerReferences"][0]["uid"] == set["metadata"]["uid"];
            let active =
                self.pods.iter().filter(owned).filter(|pod| pod["metadata"]["deletionTimestamp"].is_null()).count();
            assert_eq!(set["spec"]["replicas"], json!(active), "{set}");
            assert_eq!(set["status"]["replicas"].as_u64().unwrap_or(0), active as u64, "{set}");
        }
        for pod in &self.pods {
            assert!(pod["spec"]["nodeName"].is_string(), "a pod without a node: {pod}");
        }
    }
}

fn copy_files(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}
