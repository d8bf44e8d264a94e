//! The Node object and its Lease: that a node is there, what it has, and that it lives.
//!
//! Mirrors `pkg/kubelet/kubelet_node_status.go`, `nodestatus/setters.go` and `component-helpers/apimachinery/lease`. A
//! node that exists already is taken over: its labels and status become ours, everything else on it stays.

use std::{collections::BTreeMap, net::IpAddr, path::Path, time::Duration};

use api::heard::NODE_LEASES;
use futures::{StreamExt, stream::BoxStream};
use jiff::Timestamp;
use k8s_openapi::{
    api::{
        coordination::v1::{Lease, LeaseSpec},
        core::v1::{Node, NodeAddress, NodeCondition, NodeSpec, NodeStatus, NodeSystemInfo, Taint},
    },
    apimachinery::pkg::{
        api::resource::Quantity,
        apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference, Time},
    },
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
    runtime::{WatchStreamExt, watcher},
};
use serde_json::json;

/// How long a node counts as alive after its last renewal.
pub const LEASE_SECONDS: i32 = 40;
/// The Kubernetes release whose node behaviour is followed.
pub const KUBELET_VERSION: &str = "v1.36.0";

/// What a node has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Thousandths of a core.
    pub cpu_milli: i64,
    /// Bytes of memory.
    pub memory_bytes: i64,
    /// Bytes for images, logs and emptyDirs.
    pub storage_bytes: i64,
    /// Number of pods.
    pub pods: i64,
}

impl Capacity {
    /// What this machine has; `data_dir` is where images and pods are kept.
    pub fn of_this_machine(data_dir: &Path) -> Capacity {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let storage = rustix::fs::statvfs(data_dir).map(|disk| disk.f_blocks.saturating_mul(disk.f_frsize));
        Capacity {
            cpu_milli: i64::try_from(cores).unwrap_or(1).saturating_mul(1000),
            memory_bytes: memory_of_this_machine(),
            storage_bytes: storage.ok().and_then(|bytes| i64::try_from(bytes).ok()).unwrap_or(0),
            pods: 110,
        }
    }

    fn quantities(&self) -> BTreeMap<String, Quantity> {
        let cpu = match self.cpu_milli % 1000 {
            0 => (self.cpu_milli / 1000).to_string(),
            _ => format!("{}m", self.cpu_milli),
        };
        let rows = [
            ("cpu", cpu),
            ("memory", format!("{}Ki", self.memory_bytes / 1024)),
            ("ephemeral-storage", format!("{}Ki", self.storage_bytes / 1024)),
            ("pods", self.pods.to_string()),
        ];
        rows.into_iter().map(|(name, quantity)| (name.to_owned(), Quantity(quantity))).collect()
    }
}

fn memory_of_this_machine() -> i64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB"));
    total.and_then(|kilobytes| kilobytes.parse::<i64>().ok()).unwrap_or(0) * 1024
}

/// A node as it registers.
#[derive(Clone, Debug)]
pub struct Registration {
    /// Its name.
    pub name: String,
    /// Labels beside those every node has.
    pub labels: BTreeMap<String, String>,
    /// Taints it starts with.
    pub taints: Vec<Taint>,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Its pods' addresses.
    pub pod_cidr: String,
    /// What it has.
    pub capacity: Capacity,
    /// True: nothing real runs on it.
    pub simulated: bool,
}

/// The machine that a Node object describes; read once.
#[derive(Clone, Debug)]
pub struct Machine(NodeSystemInfo);

impl Machine {
    /// This machine.
    pub fn this() -> Machine {
        let system = rustix::system::uname();
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        let release = read("/etc/os-release");
        let name = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
        let machine_id = read("/etc/machine-id");
        Machine(NodeSystemInfo {
            architecture: architecture().to_owned(),
            boot_id: read("/proc/sys/kernel/random/boot_id"),
            container_runtime_version: format!("kapstan://{}", env!("CARGO_PKG_VERSION")),
            kernel_version: system.release().to_string_lossy().into_owned(),
            kube_proxy_version: String::new(),
            kubelet_version: KUBELET_VERSION.into(),
            machine_id: machine_id.clone(),
            operating_system: "linux".into(),
            os_image: name.unwrap_or("Linux").trim_matches('"').to_owned(),
            swap: None,
            system_uuid: machine_id,
        })
    }
}

/// The architecture as Go names it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// The Node object.
pub fn node(registration: &Registration, machine: &Machine, now: Timestamp) -> Node {
    let mut labels = registration.labels.clone();
    for prefix in ["kubernetes.io", "beta.kubernetes.io"] {
        labels.insert(format!("{prefix}/os"), "linux".into());
        labels.insert(format!("{prefix}/arch"), architecture().into());
    }
    labels.insert("kubernetes.io/hostname".into(), registration.name.clone());
    Node {
        metadata: ObjectMeta { name: Some(registration.name.clone()), labels: Some(labels), ..ObjectMeta::default() },
        spec: Some(NodeSpec {
            pod_cidr: Some(registration.pod_cidr.clone()),
            pod_cidrs: Some(vec![registration.pod_cidr.clone()]),
            taints: Some(registration.taints.clone()).filter(|taints| !taints.is_empty()),
            ..NodeSpec::default()
        }),
        status: Some(status(registration, machine, now)),
    }
}

fn status(registration: &Registration, machine: &Machine, now: Timestamp) -> NodeStatus {
    let address = |kind: &str, address: String| NodeAddress { type_: kind.into(), address };
    let mut addresses: Vec<_> = registration.addresses.iter().map(|ip| address("InternalIP", ip.to_string())).collect();
    addresses.push(address("Hostname", registration.name.clone()));
    let mut info = machine.0.clone();
    if registration.simulated {
        info.container_runtime_version = format!("simulated://{}", env!("CARGO_PKG_VERSION"));
    }
    NodeStatus {
        addresses: Some(addresses),
        capacity: Some(registration.capacity.quantities()),
        allocatable: Some(registration.capacity.quantities()),
        conditions: Some(conditions(now)),
        node_info: Some(info),
        ..NodeStatus::default()
    }
}

fn conditions(now: Timestamp) -> Vec<NodeCondition> {
    let rows = [
        ("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        ("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        ("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        ("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
    ];
    let condition = |(kind, status, reason, message): (&str, &str, &str, &str)| NodeCondition {
        type_: kind.into(),
        status: status.into(),
        reason: Some(reason.into()),
        message: Some(message.into()),
        last_heartbeat_time: Some(Time(now)),
        last_transition_time: Some(Time(now)),
    };
    rows.into_iter().map(condition).collect()
}

/// Makes the Node object, or takes over the one that is there. Returns its uid.
pub async fn register(client: &Client, node: &Node) -> kube::Result<String> {
    let nodes: Api<Node> = Api::all(client.clone());
    let name = node.metadata.name.as_deref().unwrap_or_default();
    let made = match nodes.create(&PostParams::default(), node).await {
        Err(kube::Error::Api(status)) if status.code == 409 => {
            let ours = json!({"metadata": {"labels": node.metadata.labels}});
            let patched = nodes.patch(name, &PatchParams::default(), &Patch::Merge(&ours)).await?;
            report(client, name, node.status.clone().unwrap_or_default(), patched.status.as_ref()).await?;
            patched
        }
        other => other?,
    };
    Ok(made.metadata.uid.unwrap_or_default())
}

/// Writes the status. Conditions that have not changed keep the time of their last change.
async fn report(client: &Client, name: &str, mut status: NodeStatus, before: Option<&NodeStatus>) -> kube::Result<()> {
    let old = before.and_then(|before| before.conditions.as_deref()).unwrap_or_default();
    for condition in status.conditions.iter_mut().flatten() {
        if let Some(same) = old.iter().find(|old| old.type_ == condition.type_ && old.status == condition.status) {
            condition.last_transition_time = same.last_transition_time.clone();
        }
    }
    let nodes: Api<Node> = Api::all(client.clone());
    let patch = json!({"status": status});
    nodes.patch_status(name, &PatchParams::default(), &Patch::Strategic(&patch)).await.map(drop)
}

/// Writes the node's status anew, as a kubelet does every five minutes.
pub async fn refresh(
    client: &Client,
    registration: &Registration,
    machine: &Machine,
    now: Timestamp,
) -> kube::Result<()> {
    let nodes: Api<Node> = Api::all(client.clone());
    let before = nodes.get(&registration.name).await?;
    report(client, &registration.name, status(registration, machine, now), before.status.as_ref()).await
}

/// Nodes of which the API says that they are not ready, as often as it says so.
pub fn given_up(client: &Client, nodes: watcher::Config) -> BoxStream<'static, String> {
    let told = watcher(Api::<Node>::all(client.clone()), nodes).default_backoff().applied_objects();
    let lost = told.filter_map(|node| async move {
        let node = node.inspect_err(|error| tracing::debug!("watching nodes: {error}")).ok()?;
        (!api::node_fit::is_ready(&node)).then_some(node.metadata.name).flatten()
    });
    lost.boxed()
}

/// Says that a node lives which was given up (its Lease had run out).
pub async fn revive(client: &Client, node: &str, now: Timestamp) -> kube::Result<()> {
    let nodes: Api<Node> = Api::all(client.clone());
    let patch = json!({"status": {"conditions": conditions(now)}});
    nodes.patch_status(node, &PatchParams::default(), &Patch::Strategic(&patch)).await.map(drop)
}

/// Renews a node's Lease, or makes it.
pub async fn renew(client: &Client, node: &str, uid: &str, seconds: i32) -> kube::Result<()> {
    let leases: Api<Lease> = Api::namespaced(client.clone(), NODE_LEASES);
    let renewed = MicroTime(Timestamp::now());
    let patch = json!({"spec": {"renewTime": renewed}});
    match leases.patch(node, &PatchParams::default(), &Patch::Merge(&patch)).await {
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        other => return other.map(drop),
    }
    let lease = Lease {
        metadata: ObjectMeta {
            name: Some(node.to_owned()),
            namespace: Some(NODE_LEASES.into()),
            owner_references: Some(vec![OwnerReference {
                api_version: "v1".into(),
                kind: "Node".into(),
                name: node.to_owned(),
                uid: uid.to_owned(),
                ..OwnerReference::default()
            }]),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(node.to_owned()),
            lease_duration_seconds: Some(seconds),
            renew_time: Some(renewed),
            ..LeaseSpec::default()
        }),
    };
    leases.create(&PostParams::default(), &lease).await.map(drop)
}

/// Tries until it works, with growing waits; says once in a while that it does not.
pub async fn until_done<T, F: Future<Output = kube::Result<T>>>(what: &str, mut attempt: impl FnMut() -> F) -> T {
    const LONGEST: Duration = Duration::from_secs(5);
    let mut wait = Duration::from_millis(50);
    loop {
        match attempt().await {
            Ok(done) => return done,
            Err(error) => {
                tracing::warn!("{what}: {error}; trying again in {wait:?}");
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(LONGEST);
            }
        }
    }
}
