//! A runtime that pretends: containers that take their time, become ready, crash and stop as a profile says.
//!
//! Never starts a process. It is driven by the very same pod worker as real containers, which is what its tests are
//! for; thousands of simulated pods in one process are driven by [`crate::simulated_nodes`] instead, from the same
//! profile.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use api::Pod;
use jiff::Timestamp;
use tokio::sync::mpsc;

use crate::shim::cgroup::Spent;

use super::{
    ContainerSeen, ContainerSpec, ContainerSpent, ExecResult, Exit, Exited, ImageSeen, PodSeen, PullPolicy,
    RuntimeError, Sandbox, SandboxSpec, outdated,
    profile::{Behaviour, Profile},
};

/// Bytes that a simulated image is said to have.
pub const IMAGE_BYTES: u64 = 50_000_000;

/// The simulated runtime of one node.
pub struct Simulated {
    profile: Profile,
    exits: mpsc::Sender<Exited>,
    node: Mutex<Node>,
}

struct Node {
    addresses: Addresses,
    images: HashMap<String, ImageSeen>,
    pods: HashMap<String, SimulatedPod>,
}

struct SimulatedPod {
    seen: PodSeen,
    finishes: bool,
}

impl Simulated {
    /// A node without pods; exits are told through `exits`.
    pub fn new(profile: Profile, addresses: Addresses, exits: mpsc::Sender<Exited>) -> Arc<Simulated> {
        let node = Node { addresses, images: HashMap::new(), pods: HashMap::new() };
        Arc::new(Simulated { profile, exits, node: Mutex::new(node) })
    }

    fn node(&self) -> MutexGuard<'_, Node> {
        self.node.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the pod is for: one that is meant to end does so at once, unless the profile says otherwise.
    pub fn introduce(&self, pod: &Pod) {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let finishes = meant_to_end(pod);
        self.node().pods.entry(uid.clone()).or_insert_with(|| SimulatedPod {
            seen: PodSeen {
                uid,
                namespace: pod.metadata.namespace.clone().unwrap_or_default(),
                name: pod.metadata.name.clone().unwrap_or_default(),
                ip: None,
                containers: Vec::new(),
            },
            finishes,
        });
    }

    /// As on every runtime.
    pub async fn ensure_image(&self, image: &str, policy: PullPolicy) -> Result<ImageSeen, RuntimeError> {
        let behaviour = self.profile.behaviour(image, false);
        if let Some(seen) = self.node().images.get(image).filter(|_| policy != PullPolicy::Always) {
            return Ok(seen.clone());
        }
        if policy == PullPolicy::Never {
            return Err(RuntimeError::ImageNeverPull(format!("image {image:?} is not on this node")));
        }
        sleep(behaviour.pull).await;
        if behaviour.unpullable {
            return Err(RuntimeError::ImagePull(unpullable(image)));
        }
        let seen = ImageSeen { id: image_id(image), size_bytes: IMAGE_BYTES };
        self.node().images.insert(image.to_owned(), seen.clone());
        Ok(seen)
    }

    /// As on every runtime.
    pub async fn start_sandbox(&self, spec: &SandboxSpec) -> Result<Sandbox, RuntimeError> {
        let node = &mut *self.node();
        let pod = node.pods.get_mut(&spec.uid).ok_or_else(|| RuntimeError::NotFound(format!("pod {}", spec.uid)))?;
        let ip = match pod.seen.ip {
            Some(ip) => ip,
            None => IpAddr::V4(node.addresses.take().map_err(RuntimeError::Sandbox)?),
        };
        pod.seen.ip = Some(ip);
        Ok(Sandbox { ip })
    }

    fn behaviour(&self, uid: &str, image: &str) -> Option<Behaviour> {
        let finishes = self.node().pods.get(uid)?.finishes;
        Some(self.profile.behaviour(image, finishes))
    }

    /// As on every runtime.
    pub async fn start_container(self: &Arc<Self>, spec: &ContainerSpec) -> Result<ContainerSeen, RuntimeError> {
        let missing = || RuntimeError::NotFound(format!("sandbox of pod {}", spec.pod_uid));
        let behaviour = self.behaviour(&spec.pod_uid, &spec.image).ok_or_else(missing)?;
        sleep(behaviour.start).await;
        let seen = ContainerSeen {
            name: spec.name.clone(),
            id: container_id(&spec.pod_uid, &spec.name, spec.attempt),
            attempt: spec.attempt,
            image: spec.image.clone(),
            image_id: image_id(&spec.image),
            started_at_ms: Timestamp::now().as_millisecond(),
            exit: None,
        };
        let mut node = self.node();
        let containers = &mut node.pods.get_mut(&spec.pod_uid).ok_or_else(missing)?.seen.containers;
        let outdated = outdated(containers, &spec.name);
        containers.retain(|container| !outdated.contains(&container.id));
        containers.push(seen.clone());
        drop(node);
        if let Some((after, code)) = behaviour.life {
            let (runtime, uid, id) = (self.clone(), spec.pod_uid.clone(), seen.id.clone());
            tokio::spawn(async move {
                sleep(after).await;
                runtime.end(&uid, &id, code, 0).await;
            });
        }
        Ok(seen)
    }

    /// As on every runtime: as if it had used the profile's share all the time.
    pub fn spent(&self) -> Vec<ContainerSpent> {
        let now = Timestamp::now().as_millisecond();
        let of = |uid: &str, container: &ContainerSeen| {
            let used = self.profile.used(&container.image);
            let lived = u64::try_from(now - container.started_at_ms).unwrap_or(0);
            let spent = Spent { cpu_nanos: used.cpu_nano / 1000 * lived, memory_bytes: used.memory_bytes };
            ContainerSpent { pod_uid: uid.to_owned(), name: container.name.clone(), id: container.id.clone(), spent }
        };
        let node = self.node();
        let pods = node.pods.iter();
        pods.flat_map(|(uid, pod)| {
            pod.seen.containers.iter().filter(|it| it.exit.is_none()).map(|it| of(uid, it)).collect::<Vec<_>>()
        })
        .collect()
    }

    /// Marks a container as ended and tells; does nothing when it has ended before.
    async fn end(&self, uid: &str, id: &str, code: i32, signal: i32) -> Option<Exit> {
        let exit = {
            let mut node = self.node();
            let container = node.pods.get_mut(uid)?.seen.containers.iter_mut().find(|one| one.id == id)?;
            if let Some(exit) = &container.exit {
                return Some(exit.clone());
            }
            let finished_at_ms = Timestamp::now().as_millisecond();
            let exit = Exit { code, signal, oom_killed: false, finished_at_ms };
            container.exit = Some(exit.clone());
            exit
        };
        let told = Exited { pod_uid: uid.to_owned(), container_id: id.to_owned(), exit: exit.clone() };
        // A closed channel means that the agent is going; nobody is left to be told.
        let _ = self.exits.send(told).await;
        Some(exit)
    }

    /// As on every runtime.
    pub async fn stop_container(&self, uid: &str, id: &str, grace: Duration) -> Result<Exit, RuntimeError> {
        let missing = || RuntimeError::NotFound(format!("container {id}"));
        let image = {
            let node = self.node();
            let containers = &node.pods.get(uid).ok_or_else(missing)?.seen.containers;
            containers.iter().find(|one| one.id == id).ok_or_else(missing)?.image.clone()
        };
        let behaviour = self.behaviour(uid, &image).ok_or_else(missing)?;
        let takes = std_duration(behaviour.stop);
        tokio::time::sleep(takes.min(grace)).await;
        let (code, signal) = match behaviour.stopped {
            _ if takes > grace => (137, 9),
            0 => (0, 0),
            code => (code, code - 128),
        };
        self.end(uid, id, code, signal).await.ok_or_else(missing)
    }

    /// As on every runtime.
    pub async fn stop_sandbox(&self, uid: &str) -> Result<(), RuntimeError> {
        let mut node = self.node();
        if let Some(pod) = node.pods.remove(uid)
            && let Some(IpAddr::V4(ip)) = pod.seen.ip
        {
            node.addresses.give_back(ip);
        }
        Ok(())
    }

    /// As on every runtime: every command succeeds and says nothing.
    pub async fn exec(&self, uid: &str, id: &str) -> Result<ExecResult, RuntimeError> {
        self.running_since(uid, id)?;
        Ok(ExecResult { code: 0, output: String::new() })
    }

    fn running_since(&self, uid: &str, id: &str) -> Result<(i64, String), RuntimeError> {
        let node = self.node();
        let found = node.pods.get(uid).and_then(|pod| pod.seen.containers.iter().find(|one| one.id == id));
        let found = found.filter(|one| one.exit.is_none());
        let found = found.ok_or_else(|| RuntimeError::NotFound(format!("container {id}")))?;
        Ok((found.started_at_ms, found.image.clone()))
    }

    /// Whether a probe of the container passes now; otherwise why not.
    pub fn probe(&self, uid: &str, id: &str) -> Result<(), String> {
        let (since, image) = self.running_since(uid, id).map_err(|error| error.to_string())?;
        let behaviour = self.profile.behaviour(&image, false);
        let Some(ready) = behaviour.ready else { return Err("the profile says that it is never ready".into()) };
        let passed = Timestamp::now().as_millisecond() - since;
        if i128::from(passed) >= ready.as_millis() {
            Ok(())
        } else {
            Err("the profile says that it is not yet ready".into())
        }
    }

    /// As on every runtime.
    pub async fn list(&self) -> Result<Vec<PodSeen>, RuntimeError> {
        Ok(self.node().pods.values().map(|pod| pod.seen.clone()).collect())
    }
}

async fn sleep(duration: jiff::SignedDuration) {
    if duration.is_positive() {
        tokio::time::sleep(std_duration(duration)).await;
    }
}

fn std_duration(duration: jiff::SignedDuration) -> Duration {
    Duration::try_from(duration).unwrap_or_default()
}

/// A pod of a Job, or one that is not restarted for ever.
pub fn meant_to_end(pod: &Pod) -> bool {
    let policy = pod.spec.as_deref().and_then(|spec| spec.restart_policy.as_deref()).unwrap_or("Always");
    policy != "Always" || pod.metadata.owner_references.iter().flatten().any(|owner| owner.kind == "Job")
}

/// What a registry says to an image that is not there.
pub fn unpullable(image: &str) -> String {
    format!("rpc error: code = NotFound desc = failed to pull and unpack image \"{image}\": not found")
}

/// The id that a simulated image has: the same for the same name.
pub fn image_id(image: &str) -> String {
    format!("sha256:{}", digest(&[image]))
}

/// The id of a simulated container: the same for the same pod, name and attempt.
pub fn container_id(uid: &str, name: &str, attempt: u32) -> String {
    digest(&[uid, name, &attempt.to_string()])
}

fn digest(parts: &[&str]) -> String {
    use sha2::{Digest, Sha256};
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part);
        hash.update([0]);
    }
    hex::encode(hash.finalize())
}

/// The addresses of one node: a block of the pod network, handed out once each until given back.
#[derive(Clone, Debug)]
pub struct Addresses {
    base: u32,
    prefix: u8,
    /// Turned so that an address just given back is used again as late as possible.
    next: u32,
    taken: Vec<u64>,
}

impl Addresses {
    /// The block `base/prefix`.
    pub fn new(base: Ipv4Addr, prefix: u8) -> Addresses {
        let size = 1_usize << (32 - u32::from(prefix.clamp(16, 30)));
        Addresses { base: base.to_bits(), prefix: prefix.clamp(16, 30), next: 2, taken: vec![0; size.div_ceil(64)] }
    }

    fn size(&self) -> u32 {
        1 << (32 - u32::from(self.prefix))
    }

    /// How many pods can have an address: network, gateway and broadcast aside.
    pub fn pods(&self) -> u32 {
        self.size() - 3
    }

    /// `10.244.7.0/24`.
    pub fn cidr(&self) -> String {
        format!("{}/{}", Ipv4Addr::from_bits(self.base), self.prefix)
    }

    /// A free address.
    pub fn take(&mut self) -> Result<Ipv4Addr, String> {
        for turn in 0..self.pods() {
            let host = 2 + (self.next - 2 + turn) % self.pods();
            let (word, bit) = ((host / 64) as usize, 1 << (host % 64));
            if self.taken[word] & bit == 0 {
                self.taken[word] |= bit;
                self.next = 2 + (host - 1) % self.pods();
                return Ok(Ipv4Addr::from_bits(self.base + host));
            }
        }
        Err(format!("no address is left in {}", self.cidr()))
    }

    /// Takes a given address, as a pod that is found running has it already.
    pub fn take_this(&mut self, ip: Ipv4Addr) {
        if let Some(host) = self.host(ip) {
            self.taken[(host / 64) as usize] |= 1 << (host % 64);
        }
    }

    /// Frees an address.
    pub fn give_back(&mut self, ip: Ipv4Addr) {
        if let Some(host) = self.host(ip) {
            self.taken[(host / 64) as usize] &= !(1 << (host % 64));
        }
    }

    fn host(&self, ip: Ipv4Addr) -> Option<u32> {
        ip.to_bits().checked_sub(self.base).filter(|host| *host < self.size())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_handed_out_once() {
        let mut addresses = Addresses::new(Ipv4Addr::new(10, 244, 3, 0), 29);
        let first: Vec<_> = (0..5).map(|_| addresses.take().unwrap().to_string()).collect();
        assert_eq!(first, ["10.244.3.2", "10.244.3.3", "10.244.3.4", "10.244.3.5", "10.244.3.6"]);
        assert!(addresses.take().unwrap_err().contains("10.244.3.0/29"));
        addresses.give_back(Ipv4Addr::new(10, 244, 3, 4));
        assert_eq!(addresses.take().unwrap().to_string(), "10.244.3.4");
    }
}
