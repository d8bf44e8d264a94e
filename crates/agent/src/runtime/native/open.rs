//! Coming to a node that may already run pods: everything is learnt from the pods' records and from their shims.
//!
//! A shim that answers is taken over as it is. Where none answers, what it ran is dead too (containers die with their
//! shim); containers without a recorded end get one, as the kubelet does for containers that vanished.

use super::{Node, Options, Pod, PodState, STOP_WAIT, SandboxRecord, client, node_address};
use crate::{
    images::Store,
    network::{Addresses, Cidr, Network},
    runtime::{ContainerSeen, Exited, RuntimeError},
    shim::RECORD,
};
use std::{
    collections::BTreeMap,
    fs,
    net::IpAddr,
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::{Arc, Mutex},
};
use tokio::sync::mpsc;

const OLDEST_KERNEL: (u32, u32) = (5, 12);
/// Name of the sandbox's record within a pod's folder.
pub const SANDBOX: &str = "sandbox.json";

/// Opens the node's runtime.
pub async fn open(mut options: Options, exited: mpsc::Sender<Exited>) -> Result<Node, RuntimeError> {
    for folder in ["pods", "run"] {
        let folder = options.data_dir.join(folder);
        make_private(&folder).map_err(|e| RuntimeError::Io(format!("cannot make {}: {e}", folder.display())))?;
    }
    options.data_dir = fs::canonicalize(&options.data_dir)
        .map_err(|e| RuntimeError::Io(format!("{}: {e}", options.data_dir.display())))?;
    check_kernel(&fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default())?;
    let cidr: Cidr = options.pod_cidr.parse().map_err(RuntimeError::Sandbox)?;
    let node = Node {
        images: Store::open_with_mirrors(&options.data_dir, &options.mirrors)?,
        network: Network::open(&options.bridge, cidr).await?,
        node_address: node_address(&options, cidr),
        addresses: Mutex::new(Addresses::new(cidr)),
        pods: Mutex::new(BTreeMap::new()),
        exited,
        options,
    };
    sweep(&node.options.data_dir);
    let pods = read_pods(&node.options.data_dir.join("pods"))?;
    futures::future::join_all(pods.into_iter().map(|pod| take_over(&node, pod))).await;
    Ok(node)
}

async fn take_over(node: &Node, pod: Pod) {
    if let IpAddr::V4(address) = pod.record.address {
        node.lock_addresses().take(address);
    }
    match node.connect(&pod).await {
        Ok(shim) if !pod.record.complete => {
            if let Err(error) = shim.stop(STOP_WAIT).await {
                tracing::warn!(pod_uid = pod.uid(), %error, "half-made sandbox");
            }
        }
        Ok(shim) => {
            pod.state.send_modify(|state| state.stands = true);
            *pod.shim.lock().await = Some(shim);
        }
        Err(error) => {
            tracing::info!(pod_uid = pod.uid(), %error, "the pod's sandbox is gone");
            client::bury(&pod.state, &pod.containers_folder());
        }
    }
    node.lock_pods().insert(pod.uid().to_owned(), Arc::new(pod));
}

/// A program with the set-user-id bit that a container made must not be in reach of the machine's other users.
fn make_private(folder: &Path) -> std::io::Result<()> {
    fs::create_dir_all(folder)?;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700))
}

/// Real containers need mounts that are put together before they are seen (`mount_setattr`).
fn check_kernel(release: &str) -> Result<(), RuntimeError> {
    let mut numbers = release.split(['.', '-', '+']).map_while(|part| part.parse::<u32>().ok());
    match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) if (major, minor) < OLDEST_KERNEL => Err(RuntimeError::Sandbox(format!(
            "real containers need Linux {}.{} or newer, this is {}",
            OLDEST_KERNEL.0,
            OLDEST_KERNEL.1,
            release.trim()
        ))),
        _ => Ok(()), // what cannot be read is given a try
    }
}

/// Removes what a crash between two steps left of pods that are not on record: nothing of theirs can run.
fn sweep(data_dir: &Path) {
    let entries = |folder: &str| fs::read_dir(data_dir.join(folder)).into_iter().flatten().filter_map(Result::ok);
    for folder in entries("pods").map(|entry| entry.path()).filter(|path| !path.join(SANDBOX).exists()) {
        let _ = fs::remove_file(folder.join(SANDBOX).with_extension("new"));
        let _ = fs::remove_dir(&folder); // where volumes are left, the worker removes them
    }
    for socket in entries("run") {
        let name = socket.file_name();
        let uid = name.to_str().and_then(|name| name.strip_suffix(".sock"));
        if uid.is_some_and(|uid| !data_dir.join("pods").join(uid).exists()) {
            let _ = fs::remove_file(socket.path());
        }
    }
}

fn read_pods(folder: &Path) -> Result<Vec<Pod>, RuntimeError> {
    let entries = fs::read_dir(folder).map_err(|e| RuntimeError::Io(format!("{}: {e}", folder.display())))?;
    let folders = entries.filter_map(Result::ok).map(|entry| entry.path()).filter(|path| path.join(SANDBOX).exists());
    folders
        .map(|folder| {
            let path = folder.join(SANDBOX);
            let broken =
                |e: &dyn std::fmt::Display| RuntimeError::Io(format!("{} cannot be read: {e}", path.display()));
            let text = fs::read(&path).map_err(|e| broken(&e))?;
            let record: SandboxRecord = serde_json::from_slice(&text).map_err(|e| broken(&e))?;
            let pod = Pod::new(folder, record);
            let containers = read_containers(&pod.containers_folder());
            pod.state.send_modify(|state| *state = PodState { stands: false, containers });
            Ok(pod)
        })
        .collect()
}

fn read_containers(folder: &Path) -> Vec<ContainerSeen> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let read = |path: &Path| serde_json::from_slice(&fs::read(path.join(RECORD)).ok()?).ok();
    // A folder without a record is of a container that was never started.
    let mut containers: Vec<ContainerSeen> =
        entries.filter_map(Result::ok).filter_map(|entry| read(&entry.path())).collect();
    containers.sort_by_key(|container| container.started_at_ms);
    containers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_kernels_are_refused() {
        let refused = |release: &str| check_kernel(release).is_err();
        assert!(refused("5.10.0-28-amd64\n") && refused("4.19.0"));
        assert!(!refused("5.12.0") && !refused("6.1.0-rc1") && !refused("6.18.44-fc") && !refused("strange"));
    }
}
