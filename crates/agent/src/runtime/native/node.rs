//! How a node makes and clears away what its pods need, in the order in which a crash between two steps loses nothing: the
//! record first, the record last.

use super::{
    Options, Pod, STOP_WAIT, SandboxRecord, blocking, client::Shim, files, missing_is_fine, not_found, open, plan,
    remove_folder, unexpected,
};
use crate::{
    images::Store,
    network::{Addresses, Network},
    runtime::{ContainerSeen, ContainerSpec, Exited, RuntimeError, SandboxSpec},
    shim::{cgroup::Hierarchies, rootfs::read_only_view, wire::Answer, wire::Ask, wire::ShimConfig},
};
use std::{
    collections::BTreeMap,
    fs,
    net::IpAddr,
    os::fd::AsRawFd,
    path::PathBuf,
    process::Stdio,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::mpsc;

/// A shim serves within milliseconds, on a busy machine within seconds.
const SHIM_START_WAIT: Duration = Duration::from_secs(30);

/// A node's runtime.
pub struct Node {
    pub options: Options,
    pub images: Store,
    pub network: Network,
    pub node_address: IpAddr,
    pub addresses: Mutex<Addresses>,
    pub pods: Mutex<BTreeMap<String, Arc<Pod>>>,
    pub exited: mpsc::Sender<Exited>,
}

impl Node {
    pub fn lock_pods(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Pod>>> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn lock_addresses(&self) -> MutexGuard<'_, Addresses> {
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn pod(&self, uid: &str) -> Result<Arc<Pod>, RuntimeError> {
        self.lock_pods().get(uid).cloned().ok_or_else(|| not_found("pod", uid))
    }

    pub fn run_dir(&self) -> PathBuf {
        self.options.data_dir.join("run")
    }

    pub fn group_of(&self, pod: &Pod) -> PathBuf {
        self.options.cgroup.join(pod.uid())
    }

    /// The pod, known from before or new: with an address, and on record.
    pub fn admit(&self, spec: &SandboxSpec) -> Result<Arc<Pod>, RuntimeError> {
        if spec.uid.is_empty() || spec.uid.contains(['/', '\0']) || spec.uid.starts_with('.') {
            return Err(RuntimeError::Sandbox(format!("{:?} cannot be the uid of a pod", spec.uid)));
        }
        let mut pods = self.lock_pods();
        if let Some(pod) = pods.get(&spec.uid) {
            return Ok(pod.clone());
        }
        let address = if spec.host_network {
            self.node_address
        } else {
            let full = || {
                RuntimeError::Sandbox(format!(
                    "no free address in {}: the node runs as many pods as it can",
                    self.options.pod_cidr
                ))
            };
            self.lock_addresses().allocate().ok_or_else(full)?.into()
        };
        let folder = self.options.data_dir.join("pods").join(&spec.uid);
        let pod = Arc::new(Pod::new(folder, SandboxRecord { spec: spec.clone(), address, complete: false }));
        if let Err(error) = pod.write_record(false) {
            self.free(address);
            return Err(error);
        }
        pods.insert(spec.uid.clone(), pod.clone());
        Ok(pod)
    }

    pub async fn make_sandbox(&self, pod: &Pod) -> Result<Arc<Shim>, RuntimeError> {
        let spec = &pod.record.spec;
        pod.write_record(false)?;
        files::write(&pod.folder, spec, pod.record.address).map_err(|e| {
            RuntimeError::Sandbox(format!("cannot write the pod's files in {}: {e}", pod.folder.display()))
        })?;
        if let Ok(stray) = self.connect(pod).await {
            stray.stop(STOP_WAIT).await?; // an agent that crashed had just started it
        }
        self.kill_left_over(pod).await?;
        self.execute_shim(pod).await?;
        let shim = self.connect(pod).await?;
        if let (false, IpAddr::V4(address)) = (spec.host_network, pod.record.address)
            && let Err(error) = self.network.attach(&spec.uid, shim.pid, address).await
        {
            shim.stop(STOP_WAIT).await?;
            return Err(error);
        }
        pod.write_record(true)?;
        pod.state.send_modify(|state| state.stands = true);
        Ok(shim)
    }

    pub async fn execute_shim(&self, pod: &Pod) -> Result<(), RuntimeError> {
        let config = ShimConfig {
            agent: std::process::id(),
            pod_uid: pod.uid().to_owned(),
            hostname: pod.record.spec.hostname.clone(),
            host_network: pod.record.spec.host_network,
            host_ipc: pod.record.spec.host_ipc,
            sysctls: pod.record.spec.sysctls.clone(),
            pod_dir: pod.folder.clone(),
            run_dir: self.run_dir(),
            cgroup: self.group_of(pod),
        };
        let failed = |e: &dyn std::fmt::Display| {
            RuntimeError::Sandbox(format!("cannot start the shim of pod {}: {e}", pod.uid()))
        };
        let config = serde_json::to_string(&config).map_err(|e| failed(&e))?;
        let program = read_only_view(&self.options.program).map_err(|e| failed(&e))?;
        let started = tokio::process::Command::new(format!("/proc/self/fd/{}", program.as_raw_fd()))
            .args(["shim", &config])
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .output();
        let output =
            tokio::time::timeout(SHIM_START_WAIT, started).await.map_err(|e| failed(&e))?.map_err(|e| failed(&e))?;
        if output.status.success() { Ok(()) } else { Err(failed(&String::from_utf8_lossy(&output.stderr).trim())) }
    }

    pub async fn connect(&self, pod: &Pod) -> Result<Arc<Shim>, RuntimeError> {
        Shim::connect(&self.run_dir(), pod.uid(), pod.containers_folder(), pod.state.clone(), self.exited.clone())
            .await
            .map(Arc::new)
    }

    pub async fn make_container(
        &self,
        pod: &Pod,
        shim: &Shim,
        spec: &ContainerSpec,
        id: String,
    ) -> Result<ContainerSeen, RuntimeError> {
        let (images, image, folder) = (self.images.clone(), spec.image.clone(), pod.container_folder(&id));
        let root = blocking(move || images.mount_rootfs(&image, &folder)).await?;
        let mut plan = plan::resolve(spec, id, &root, &pod.record.spec, &pod.folder)?;
        plan.limits.pids = plan.limits.pids.or(self.options.container_pids);
        match shim.ask(Ask::Start(Box::new(plan))).await? {
            Answer::Started(seen) => Ok(seen),
            other => Err(unexpected(&other)),
        }
    }

    pub async fn drop_container_folder(&self, folder: PathBuf) -> Result<(), RuntimeError> {
        let images = self.images.clone();
        blocking(move || {
            images.unmount_rootfs(&folder).map_err(RuntimeError::from).and_then(|()| remove_folder(&folder))
        })
        .await
    }

    /// Containers die with their shim, but what they started does not where it is among the node's processes.
    async fn kill_left_over(&self, pod: &Pod) -> Result<(), RuntimeError> {
        if !pod.record.spec.host_pid {
            return Ok(());
        }
        let group = self.group_of(pod);
        blocking(move || Hierarchies::discover().kill(&group))
            .await
            .map_err(|e| RuntimeError::Sandbox(format!("processes of an earlier container stay: {e}")))
    }

    /// Removes all that is left of a pod whose shim is gone.
    pub async fn clear(&self, pod: &Pod) -> Result<(), RuntimeError> {
        self.network.detach(pod.uid()).await;
        let containers = fs::read_dir(pod.containers_folder())
            .map(|entries| entries.filter_map(Result::ok).map(|e| e.path()).collect::<Vec<_>>());
        for folder in containers.unwrap_or_default() {
            self.drop_container_folder(folder).await?;
        }
        self.kill_left_over(pod).await?;
        let group = self.group_of(pod);
        blocking(move || Hierarchies::discover().remove(&group))
            .await
            .map_err(|e| RuntimeError::Io(format!("control group stays: {e}")))?;
        let _ = fs::remove_file(self.run_dir().join(ShimConfig::socket_name(pod.uid())));
        files::remove(&pod.folder).map_err(|e| RuntimeError::Io(e.to_string()))?;
        remove_folder(&pod.containers_folder())?;
        fs::remove_file(pod.folder.join(open::SANDBOX))
            .or_else(missing_is_fine)
            .map_err(|e| RuntimeError::Io(e.to_string()))?;
        let _ = fs::remove_dir(&pod.folder); // volumes, if any, are the worker's to remove
        self.free(pod.record.address);
        Ok(())
    }

    pub fn free(&self, address: IpAddr) {
        if let IpAddr::V4(address) = address {
            self.lock_addresses().free(address);
        }
    }
}
