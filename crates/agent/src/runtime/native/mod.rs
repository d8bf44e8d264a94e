//! Real containers on this machine: images on overlayfs, a shim per pod, a network of bridge and veth.
//!
//! This is the agent's side. It resolves what a container is to be (image defaults, user, rights), mounts its root file
//! system, and asks the pod's shim to run it. What must survive the agent is on disk: `pods/<uid>/sandbox.json`,
//! `pods/<uid>/containers/<id>/container.json`, and the shim itself. It takes no decisions about pods: restarts, back-off
//! and probes are the pod worker's. Plays the part of containerd's CRI server (`internal/cri/server`).

mod client;
mod files;
mod node;
mod open;
mod plan;
pub mod sessions;
mod users;

use crate::{
    images::Store,
    network::Cidr,
    runtime::{
        ContainerSeen, ContainerSpec, ContainerSpent, ExecResult, Exit, Exited, ImageSeen, PodSeen, PullPolicy,
        RuntimeError, Sandbox, SandboxSpec, outdated,
    },
    shim::{cgroup::Hierarchies, replace_file, wire::Answer, wire::Ask},
};
use client::Shim;
use node::Node;
use serde::{Deserialize, Serialize};
use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::sync::{mpsc, watch};

/// Exits that may wait for whoever holds the receiver.
const EXITS_WAITING: usize = 4096;
/// A killed process is gone at once, unless the kernel holds it in a system call.
const KILL_WAIT: Duration = Duration::from_secs(30);
/// How long a pod's processes may take to go when its sandbox is stopped.
const STOP_WAIT: Duration = Duration::from_secs(60);

/// How a node runs its pods.
#[derive(Clone, Debug)]
pub struct Options {
    /// Images, pods and sockets are kept here.
    pub data_dir: PathBuf,
    /// This node's addresses for pods, such as `10.244.0.0/24`.
    pub pod_cidr: String,
    /// Name of the bridge.
    pub bridge: String,
    /// Control group above those of the pods.
    pub cgroup: PathBuf,
    /// Mirrors of registries besides those of `registries.yaml`, written `HOST=URL`.
    pub mirrors: Vec<String>,
    /// Processes that a container may have at once; `None`: as many as the machine allows.
    pub container_pids: Option<u64>,
    /// Address of pods that share the node's network; `None`: the bridge's.
    pub node_address: Option<IpAddr>,
    /// The program that is executed as `PROGRAM shim …`; it must call [`crate::shim::main`] for that, first thing.
    pub program: PathBuf,
}

impl Options {
    /// The defaults for a node that keeps its things in `data_dir`.
    pub fn new(data_dir: impl Into<PathBuf>) -> Options {
        Options {
            data_dir: data_dir.into(),
            pod_cidr: "10.244.0.0/24".into(),
            bridge: "kapstan0".into(),
            cgroup: "/kapstan".into(),
            mirrors: Vec::new(),
            container_pids: None,
            node_address: None,
            program: "/proc/self/exe".into(),
        }
    }
}

/// The native runtime of a node; cheap to clone.
#[derive(Clone)]
pub struct Native {
    node: Arc<Node>,
}

/// What is remembered of a sandbox on disk.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct SandboxRecord {
    spec: SandboxSpec,
    address: IpAddr,
    /// Its network was made: a shim that is found can be taken over. Otherwise an agent crashed while it made it.
    complete: bool,
}

/// One pod of this node.
struct Pod {
    folder: PathBuf,
    record: SandboxRecord,
    state: watch::Sender<PodState>,
    /// `None`: the sandbox does not stand. Held while the sandbox is made or stopped.
    shim: tokio::sync::Mutex<Option<Arc<Shim>>>,
}

/// What is known of a pod's containers, kept by the connection to its shim.
#[derive(Clone, Debug, Default)]
struct PodState {
    /// The shim is connected.
    stands: bool,
    /// Oldest first.
    containers: Vec<ContainerSeen>,
}

impl PodState {
    fn find(&self, id: &str) -> Option<&ContainerSeen> {
        self.containers.iter().find(|container| container.id == id)
    }
}

impl Native {
    /// Opens the node. Shims that still run are found and taken over, their containers untouched; what ended meanwhile is
    /// in [`Native::list`]. Every later exit comes through the receiver.
    pub async fn open(options: Options) -> Result<(Native, mpsc::Receiver<Exited>), RuntimeError> {
        let (exited, receiver) = mpsc::channel(EXITS_WAITING);
        let node = open::open(options, exited).await?;
        Ok((Native { node: Arc::new(node) }, receiver))
    }

    /// The node's images, for import, listing and removal.
    pub fn images(&self) -> &Store {
        &self.node.images
    }

    /// Makes sure that an image is on the node.
    pub async fn ensure_image(&self, image: &str, policy: PullPolicy) -> Result<ImageSeen, RuntimeError> {
        self.node.images.ensure(image, policy).await
    }

    /// Makes a pod's sandbox, or returns the one that stands.
    pub async fn start_sandbox(&self, spec: &SandboxSpec) -> Result<Sandbox, RuntimeError> {
        let pod = self.node.admit(spec)?;
        let mut shim = pod.shim.lock().await;
        if shim.as_ref().is_none_or(|shim| shim.is_gone()) {
            match self.node.make_sandbox(&pod).await {
                Ok(fresh) => *shim = Some(fresh),
                Err(error) => {
                    *shim = None;
                    return Err(error);
                }
            }
        }
        Ok(Sandbox { ip: pod.record.address })
    }

    /// Starts a container in a sandbox that stands, and removes what is kept no longer of the instances before it.
    pub async fn start_container(&self, spec: &ContainerSpec) -> Result<ContainerSeen, RuntimeError> {
        let pod = self.node.pod(&spec.pod_uid)?;
        let shim = pod.connected().await?;
        let known = |c: &ContainerSeen| c.name == spec.name && c.attempt == spec.attempt && c.exit.is_none();
        if let Some(running) = pod.state.borrow().containers.iter().find(|c| known(c)) {
            return Ok(running.clone());
        }
        let id = hex::encode(rand::random::<[u8; 32]>());
        let folder = pod.container_folder(&id);
        let result = self.node.make_container(&pod, &shim, spec, id).await;
        if result.is_err() {
            self.node.drop_container_folder(folder).await?;
        }
        let outdated = outdated(&pod.state.borrow().containers, &spec.name);
        for id in outdated.iter().filter(|_| result.is_ok()) {
            if let Err(error) = self.remove_container(&spec.pod_uid, id).await {
                tracing::warn!("what is left of container {id}, which has ended, could not be removed: {error}");
            }
        }
        result
    }

    /// Asks a container to stop, kills it when `grace` is over, and returns when it is dead.
    pub async fn stop_container(
        &self,
        pod_uid: &str,
        container_id: &str,
        grace: Duration,
    ) -> Result<Exit, RuntimeError> {
        let pod = self.node.pod(pod_uid)?;
        let mut state = pod.state.subscribe();
        if let Some(exit) = pod.exit_of(container_id)? {
            return Ok(exit);
        }
        let shim = pod.connected().await?;
        for (signal, wait) in [(None, grace), (Some(libc::SIGKILL), KILL_WAIT)] {
            shim.ask(Ask::Signal { container: container_id.to_owned(), signal }).await?;
            let ended =
                state.wait_for(|state| state.find(container_id).is_none_or(|container| container.exit.is_some()));
            if tokio::time::timeout(wait, ended).await.is_ok() {
                return pod.exit_of(container_id)?.ok_or_else(|| not_found("container", container_id));
            }
        }
        Err(RuntimeError::Io(format!(
            "container {container_id} was killed but does not go: the kernel holds it, see /proc/*/stack"
        )))
    }

    /// Forgets a container that has ended and deletes what it wrote; its log stays.
    pub async fn remove_container(&self, pod_uid: &str, container_id: &str) -> Result<(), RuntimeError> {
        let pod = self.node.pod(pod_uid)?;
        if pod.state.borrow().find(container_id).is_none() {
            return Ok(());
        }
        if pod.exit_of(container_id)?.is_none() {
            return Err(RuntimeError::Io(format!("container {container_id} still runs: stop it first")));
        }
        if let Ok(shim) = pod.connected().await {
            match shim.ask(Ask::Remove { container: container_id.to_owned() }).await {
                Ok(_) | Err(RuntimeError::NotFound(_)) => {}
                Err(error) => return Err(error),
            }
        }
        self.node.drop_container_folder(pod.container_folder(container_id)).await?;
        pod.state.send_modify(|state| state.containers.retain(|container| container.id != container_id));
        Ok(())
    }

    /// Ends a pod on this node: kills what runs, unmounts, frees the address, removes namespaces, control groups and
    /// records. The pod is no longer listed. Does nothing when there is none.
    pub async fn stop_sandbox(&self, pod_uid: &str) -> Result<(), RuntimeError> {
        let Ok(pod) = self.node.pod(pod_uid) else { return Ok(()) };
        let mut shim = pod.shim.lock().await;
        if let Some(shim) = shim.take() {
            tokio::join!(shim.stop(STOP_WAIT), self.node.network.detach(pod_uid)).0?;
        }
        self.node.clear(&pod).await?;
        self.node.lock_pods().remove(pod_uid);
        Ok(())
    }

    /// Runs a command inside a container.
    pub async fn exec(
        &self,
        pod_uid: &str,
        container_id: &str,
        argv: &[String],
        timeout: Duration,
    ) -> Result<ExecResult, RuntimeError> {
        let pod = self.node.pod(pod_uid)?;
        let shim = pod.connected().await?;
        let timeout_ms = timeout.as_millis().try_into().unwrap_or(u64::MAX);
        match shim.ask(Ask::Exec { container: container_id.to_owned(), argv: argv.to_vec(), timeout_ms }).await {
            Ok(Answer::Executed { code, output }) => Ok(ExecResult { code, output }),
            Ok(other) => Err(unexpected(&other)),
            Err(RuntimeError::ExecTimeout(_)) => Err(RuntimeError::ExecTimeout(timeout)),
            Err(error) => Err(error),
        }
    }

    /// A process in the pod's network namespace, while its sandbox stands.
    pub async fn process_of(&self, pod_uid: &str) -> Option<i32> {
        let pod = self.node.pod(pod_uid).ok()?;
        let shim = pod.shim.lock().await;
        shim.as_ref().map(|shim| shim.pid).filter(|pid| *pid > 0)
    }

    /// What the containers that run have spent so far; those whose groups could not be made are left out.
    pub async fn spent(&self) -> Vec<ContainerSpent> {
        let pods: Vec<Arc<Pod>> = self.node.lock_pods().values().cloned().collect();
        let node = self.node.clone();
        blocking(move || {
            let hierarchies = Hierarchies::discover();
            let mut all = Vec::new();
            for pod in pods {
                let group = node.group_of(&pod);
                let running: Vec<ContainerSeen> = pod.state.borrow().containers.clone();
                for container in running.into_iter().filter(|container| container.exit.is_none()) {
                    if let Some(spent) = hierarchies.spent(&group.join(&container.id)) {
                        let (name, id) = (container.name, container.id);
                        all.push(ContainerSpent { pod_uid: pod.uid().to_owned(), name, id, spent });
                    }
                }
            }
            all
        })
        .await
    }

    /// Every pod on this node.
    pub async fn list(&self) -> Result<Vec<PodSeen>, RuntimeError> {
        let pods: Vec<Arc<Pod>> = self.node.lock_pods().values().cloned().collect();
        Ok(pods.iter().map(|pod| pod.seen()).collect())
    }
}

impl Pod {
    fn new(folder: PathBuf, record: SandboxRecord) -> Pod {
        Pod { folder, record, state: watch::Sender::default(), shim: tokio::sync::Mutex::new(None) }
    }

    fn uid(&self) -> &str {
        &self.record.spec.uid
    }

    fn write_record(&self, complete: bool) -> Result<(), RuntimeError> {
        let write = || {
            fs::create_dir_all(&self.folder)?;
            let record = SandboxRecord { complete, ..self.record.clone() };
            replace_file(&self.folder.join(open::SANDBOX), &serde_json::to_vec(&record)?)
        };
        write().map_err(|e: io::Error| {
            RuntimeError::Io(format!("cannot record the sandbox in {}: {e}", self.folder.display()))
        })
    }

    fn containers_folder(&self) -> PathBuf {
        self.folder.join("containers")
    }

    fn container_folder(&self, id: &str) -> PathBuf {
        self.containers_folder().join(id)
    }

    async fn connected(&self) -> Result<Arc<Shim>, RuntimeError> {
        let shim = self.shim.lock().await.clone();
        shim.filter(|shim| !shim.is_gone())
            .ok_or_else(|| RuntimeError::Sandbox(format!("the sandbox of pod {} does not stand", self.uid())))
    }

    fn exit_of(&self, id: &str) -> Result<Option<Exit>, RuntimeError> {
        let state = self.state.borrow();
        state.find(id).map(|container| container.exit.clone()).ok_or_else(|| not_found("container", id))
    }

    fn seen(&self) -> PodSeen {
        let state = self.state.borrow();
        let spec = &self.record.spec;
        PodSeen {
            uid: spec.uid.clone(),
            namespace: spec.namespace.clone(),
            name: spec.name.clone(),
            ip: state.stands.then_some(self.record.address),
            containers: state.containers.clone(),
        }
    }
}

fn remove_folder(folder: &Path) -> Result<(), RuntimeError> {
    fs::remove_dir_all(folder)
        .or_else(missing_is_fine)
        .map_err(|e| RuntimeError::Io(format!("cannot remove {}: {e}", folder.display())))
}

fn missing_is_fine(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

fn not_found(what: &str, name: &str) -> RuntimeError {
    RuntimeError::NotFound(format!("{what} {name:?}"))
}

fn unexpected(answer: &Answer) -> RuntimeError {
    RuntimeError::Io(format!("the shim answered what was not asked: {answer:?}"))
}

/// Mounts and deep folders are no work for the threads that wait.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

/// The bridge's address is the node's, as pods see it.
fn node_address(options: &Options, cidr: Cidr) -> IpAddr {
    options.node_address.unwrap_or(Ipv4Addr::into(cidr.gateway()))
}
