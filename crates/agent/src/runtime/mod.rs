//! What a node can do with containers: one vocabulary, two implementations.
//!
//! `native` runs real containers in a shim process per pod; `simulated` pretends, after delays and faults from a
//! profile. The pod worker above speaks only these words, so both are driven by the very same code.

use serde::{Deserialize, Serialize};
use std::{net::IpAddr, path::PathBuf, sync::Arc, time::Duration};

use api::Pod;

use crate::shim::cgroup::Spent;

pub mod native;
pub mod profile;
pub mod simulated;

/// What a pod's sandbox (network namespace, cgroup, shim) is made from.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SandboxSpec {
    /// The pod's uid: names the sandbox.
    pub uid: String,
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub name: String,
    /// Hostname seen inside.
    pub hostname: String,
    /// Names of its address in its `/etc/hosts`, the fullest first.
    #[serde(default)]
    pub names: Vec<String>,
    /// True: share the node's network instead of having an own one.
    pub host_network: bool,
    /// True: its processes are among the node's instead of in a namespace for each container.
    #[serde(default)]
    pub host_pid: bool,
    /// True: share the node's memory and queues of processes (SysV, POSIX).
    #[serde(default)]
    pub host_ipc: bool,
    /// Parameters of the kernel in its own namespaces, such as `net.ipv4.ip_unprivileged_port_start`, and their values.
    #[serde(default)]
    pub sysctls: Vec<(String, String)>,
    /// Lines of the sandbox's `resolv.conf`.
    pub resolv_conf: Vec<String>,
    /// Further `/etc/hosts` entries: address and names.
    pub host_aliases: Vec<(String, Vec<String>)>,
}

/// A sandbox that stands.
#[derive(Clone, Debug)]
pub struct Sandbox {
    /// The pod's address.
    pub ip: IpAddr,
}

/// A folder or file of the node shown inside a container.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Mount {
    /// Path on the node; exists when the container is started.
    pub source: PathBuf,
    /// Path inside the container.
    pub target: PathBuf,
    /// True: writes are refused.
    pub read_only: bool,
}

/// Bounds of one container; `None`: unbounded.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Limits {
    /// Relative weight, from the cpu request (1 core = 1024).
    pub cpu_shares: Option<u64>,
    /// Thousandths of a core.
    pub cpu_milli: Option<u64>,
    /// Bytes of memory.
    pub memory_bytes: Option<u64>,
    /// Number of processes.
    pub pids: Option<u64>,
}

/// Who a container runs as and what it may do.
#[derive(Clone, Debug, Default)]
pub struct Security {
    /// User id; `None`: the image's user.
    pub run_as_user: Option<i64>,
    /// Group id; `None`: the image's group.
    pub run_as_group: Option<i64>,
    /// True: refuse to start as uid 0.
    pub run_as_non_root: bool,
    /// Supplementary groups (fsGroup included).
    pub supplemental_groups: Vec<i64>,
    /// Root file system mounted read-only.
    pub read_only_root: bool,
    /// All capabilities, no seccomp, devices.
    pub privileged: bool,
    /// False: `no_new_privs` is set.
    pub allow_privilege_escalation: bool,
    /// Capabilities added to the default set, without `CAP_`; `ALL` is known.
    pub add_capabilities: Vec<String>,
    /// Capabilities dropped from it.
    pub drop_capabilities: Vec<String>,
    /// `true`: the runtime's default seccomp profile, `false`: unconfined.
    pub seccomp_default: bool,
}

/// What a container is made from. Variables are already expanded; image defaults are filled in by the runtime.
#[derive(Clone, Debug)]
pub struct ContainerSpec {
    /// Pod the container belongs to.
    pub pod_uid: String,
    /// Name within the pod.
    pub name: String,
    /// How often it was started before: names the instance and its log file.
    pub attempt: u32,
    /// Image reference as the pod has it; present on the node.
    pub image: String,
    /// Replaces the image's entrypoint when not empty.
    pub command: Vec<String>,
    /// Replaces the image's command when not empty.
    pub args: Vec<String>,
    /// Added to the image's environment; later wins.
    pub env: Vec<(String, String)>,
    /// Replaces the image's working directory.
    pub working_dir: Option<String>,
    /// Volumes.
    pub mounts: Vec<Mount>,
    /// Bounds.
    pub limits: Limits,
    /// Identity and rights.
    pub security: Security,
    /// Where standard output and error go, in CRI log format.
    pub log_path: PathBuf,
    /// Keep standard input open.
    pub stdin: bool,
    /// Give it a terminal.
    pub tty: bool,
    /// Signal that asks it to stop instead of the image's STOPSIGNAL.
    pub stop_signal: Option<String>,
}

/// How a container ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Exit code; 128 + signal when killed by one.
    pub code: i32,
    /// Signal that ended it, 0 if none.
    pub signal: i32,
    /// The memory limit was hit.
    pub oom_killed: bool,
    /// When, in milliseconds since the epoch.
    pub finished_at_ms: i64,
}

/// One container instance as the runtime knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerSeen {
    /// Name within the pod.
    pub name: String,
    /// Unique id (64 hex digits).
    pub id: String,
    /// As in [`ContainerSpec::attempt`].
    pub attempt: u32,
    /// Image reference it was started from.
    pub image: String,
    /// Digest of that image's configuration.
    pub image_id: String,
    /// When it was started, in milliseconds since the epoch.
    pub started_at_ms: i64,
    /// `None` while it runs.
    pub exit: Option<Exit>,
}

/// One pod as the runtime knows it: what survives a restart of the agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodSeen {
    /// Uid of the pod.
    pub uid: String,
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub name: String,
    /// Its address.
    pub ip: Option<IpAddr>,
    /// Every instance not yet removed, oldest first.
    pub containers: Vec<ContainerSeen>,
}

/// Instances of a container that are kept no longer: of those that have ended all but the last, which tells how the life before
/// this one ended (upstream: MaxPerPodContainer of `pkg/kubelet/kuberuntime/kuberuntime_gc.go`, one by default).
fn outdated(containers: &[ContainerSeen], name: &str) -> Vec<String> {
    let ended = |container: &&ContainerSeen| container.name == name && container.exit.is_some();
    let mut ended: Vec<&ContainerSeen> = containers.iter().filter(ended).collect();
    ended.sort_by_key(|container| container.attempt);
    ended.pop();
    ended.into_iter().map(|container| container.id.clone()).collect()
}

/// Something ended without being asked, or after it was asked.
#[derive(Clone, Debug)]
pub struct Exited {
    /// The pod.
    pub pod_uid: String,
    /// The container's id.
    pub container_id: String,
    /// How.
    pub exit: Exit,
}

/// What a command run inside a container gave.
#[derive(Clone, Debug)]
pub struct ExecResult {
    /// Exit code.
    pub code: i32,
    /// Standard output and error together, cut at 10 KiB.
    pub output: String,
}

/// What a running container has spent so far.
#[derive(Clone, Debug)]
pub struct ContainerSpent {
    /// The pod.
    pub pod_uid: String,
    /// Name within the pod.
    pub name: String,
    /// The instance's id: another instance begins to count anew.
    pub id: String,
    /// How much.
    pub spent: Spent,
}

/// An image on the node.
#[derive(Clone, Debug)]
pub struct ImageSeen {
    /// `sha256:…` of the configuration.
    pub id: String,
    /// Bytes on disk.
    pub size_bytes: u64,
}

/// Why a runtime refused or failed. The reasons are the kubelet's, so that they can be shown as they are.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The registry or the local store does not give the image.
    #[error("{0}")]
    ImagePull(String),
    /// The name cannot be an image reference.
    #[error("{0}")]
    InvalidImageName(String),
    /// `imagePullPolicy: Never` and the image is not here.
    #[error("{0}")]
    ImageNeverPull(String),
    /// The sandbox could not be made, or stands no more.
    #[error("{0}")]
    Sandbox(String),
    /// The container's configuration asks for what cannot be (missing user, refused right …).
    #[error("{0}")]
    ContainerConfig(String),
    /// The container could not be made or started.
    #[error("{0}")]
    Start(String),
    /// A command inside the container did not end in time.
    #[error("command timed out after {0:?}")]
    ExecTimeout(Duration),
    /// The pod or container is not there.
    #[error("{0} not found")]
    NotFound(String),
    /// Input or output of the runtime itself failed.
    #[error("{0}")]
    Io(String),
}

/// `imagePullPolicy`, parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullPolicy {
    /// Ask the registry each time; what is on the node serves when no registry is configured for it.
    Always,
    /// Ask only when it is not on the node.
    IfNotPresent,
    /// Never ask.
    Never,
}

/// Where a node's containers live. Every method does the same on both, as far as pods can tell.
#[derive(Clone)]
pub enum Runtime {
    /// Real containers.
    Native(Arc<native::Native>),
    /// Pretended ones.
    Simulated(Arc<simulated::Simulated>),
}

impl Runtime {
    /// True: nothing real happens; volumes and environments need not be made.
    pub fn is_simulated(&self) -> bool {
        matches!(self, Runtime::Simulated(_))
    }

    /// Tells about a pod before anything is asked for it.
    pub fn introduce(&self, pod: &Pod) {
        if let Runtime::Simulated(simulated) = self {
            simulated.introduce(pod);
        }
    }

    /// Makes sure of an image.
    pub async fn ensure_image(&self, image: &str, policy: PullPolicy) -> Result<ImageSeen, RuntimeError> {
        match self {
            Runtime::Native(native) => native.ensure_image(image, policy).await,
            Runtime::Simulated(simulated) => simulated.ensure_image(image, policy).await,
        }
    }

    /// Makes a pod's sandbox, or finds the one that stands.
    pub async fn start_sandbox(&self, spec: &SandboxSpec) -> Result<Sandbox, RuntimeError> {
        match self {
            Runtime::Native(native) => native.start_sandbox(spec).await,
            Runtime::Simulated(simulated) => simulated.start_sandbox(spec).await,
        }
    }

    /// Starts a container in its pod's sandbox. Of its instances that have ended the last one stays.
    pub async fn start_container(&self, spec: &ContainerSpec) -> Result<ContainerSeen, RuntimeError> {
        match self {
            Runtime::Native(native) => native.start_container(spec).await,
            Runtime::Simulated(simulated) => simulated.start_container(spec).await,
        }
    }

    /// Asks a container to stop and kills it after `grace`. A second call may shorten the first one's grace.
    pub async fn stop_container(&self, uid: &str, id: &str, grace: Duration) -> Result<Exit, RuntimeError> {
        match self {
            Runtime::Native(native) => native.stop_container(uid, id, grace).await,
            Runtime::Simulated(simulated) => simulated.stop_container(uid, id, grace).await,
        }
    }

    /// Takes a sandbox down with all that is in it; its pod's logs stay.
    pub async fn stop_sandbox(&self, uid: &str) -> Result<(), RuntimeError> {
        match self {
            Runtime::Native(native) => native.stop_sandbox(uid).await,
            Runtime::Simulated(simulated) => simulated.stop_sandbox(uid).await,
        }
    }

    /// Runs a command inside a container.
    pub async fn exec(
        &self,
        uid: &str,
        id: &str,
        argv: &[String],
        timeout: Duration,
    ) -> Result<ExecResult, RuntimeError> {
        match self {
            Runtime::Native(native) => native.exec(uid, id, argv, timeout).await,
            Runtime::Simulated(simulated) => simulated.exec(uid, id).await,
        }
    }

    /// Whether the pod listens on all of these TCP ports; simulated pods do.
    pub async fn listens(&self, uid: &str, ports: &[u16]) -> bool {
        match self {
            Runtime::Native(native) => match native.process_of(uid).await {
                Some(pid) => crate::sockets::listens(pid, ports),
                None => false,
            },
            Runtime::Simulated(_) => true,
        }
    }

    /// Waits until the pod's servers have accepted every connection that was made to them.
    pub async fn wait_accepted(&self, uid: &str, deadline: Duration) {
        if let Runtime::Native(native) = self
            && let Some(pid) = native.process_of(uid).await
        {
            crate::sockets::wait_accepted(pid, deadline).await;
        }
    }

    /// Waits until what the pod's ended processes have sent has arrived.
    pub async fn wait_delivered(&self, uid: &str) {
        if let Runtime::Native(native) = self
            && let Some(pid) = native.process_of(uid).await
        {
            crate::sockets::wait_delivered(pid).await;
        }
    }

    /// What the containers that run have spent so far.
    pub async fn spent(&self) -> Vec<ContainerSpent> {
        match self {
            Runtime::Native(native) => native.spent().await,
            Runtime::Simulated(simulated) => simulated.spent(),
        }
    }

    /// Everything that runs, also from before the agent started.
    pub async fn list(&self) -> Result<Vec<PodSeen>, RuntimeError> {
        match self {
            Runtime::Native(native) => native.list().await,
            Runtime::Simulated(simulated) => simulated.list().await,
        }
    }
}
