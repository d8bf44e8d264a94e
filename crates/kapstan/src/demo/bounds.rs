//! Watches, as a client, that a rollout keeps its bounds: counts the pods after every single change the API shows.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use futures::{StreamExt, pin_mut};
use k8s_openapi::api::core::v1::Pod;
use kube::runtime::watcher;
use kube::{Api, Client};
use tokio::task::JoinHandle;

/// What one pod counts for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted {
    /// Value of `pod-template-hash`: its revision.
    pub revision: String,
    /// First container's image.
    pub image: String,
    /// Ready, and not asked to stop.
    pub available: bool,
    /// Asked to stop.
    pub terminating: bool,
    /// Why it does not run, such as `ErrImagePull`.
    pub waiting: Option<String>,
}

/// The least and the most seen since the last reset.
#[derive(Clone, Copy, Debug)]
pub struct Extremes {
    /// Fewest available pods.
    pub fewest_available: usize,
    /// Most available pods.
    pub most_available: usize,
    /// Most pods that were not asked to stop.
    pub most_pods: usize,
}

#[derive(Default)]
struct Seen {
    pods: HashMap<String, Counted>,
    extremes: Option<Extremes>,
}

/// A watch that counts.
pub struct Bounds {
    seen: Arc<Mutex<Seen>>,
    watching: JoinHandle<()>,
}

impl Bounds {
    /// Counts the pods that `selector` selects.
    pub fn watch(client: Client, namespace: &str, selector: &str) -> Bounds {
        let pods: Api<Pod> = Api::namespaced(client, namespace);
        let config = watcher::Config::default().labels(selector);
        let seen = Arc::new(Mutex::new(Seen::default()));
        let counting = seen.clone();
        let watching = tokio::spawn(async move {
            let events = watcher(pods, config);
            pin_mut!(events);
            while let Some(event) = events.next().await {
                let mut seen = counting.lock().expect("nobody panics while counting");
                match event {
                    Ok(watcher::Event::Apply(pod) | watcher::Event::InitApply(pod)) => {
                        seen.pods.insert(uid(&pod), counted(&pod));
                    }
                    Ok(watcher::Event::Delete(pod)) => {
                        seen.pods.remove(&uid(&pod));
                    }
                    Ok(watcher::Event::Init) => seen.pods.clear(),
                    Ok(watcher::Event::InitDone) => {}
                    Err(error) => tracing::warn!(%error, "the watch of the demo's pods was interrupted"),
                }
                seen.count();
            }
        });
        Bounds { seen, watching }
    }

    /// The pods as they are now.
    pub fn pods(&self) -> Vec<Counted> {
        self.seen.lock().expect("nobody panics while counting").pods.values().cloned().collect()
    }

    /// Forgets the extremes and begins anew with what is.
    pub fn reset(&self) {
        let mut seen = self.seen.lock().expect("nobody panics while counting");
        seen.extremes = None;
        seen.count();
    }

    /// The extremes since the last reset.
    pub fn extremes(&self) -> Option<Extremes> {
        self.seen.lock().expect("nobody panics while counting").extremes
    }
}

impl Drop for Bounds {
    fn drop(&mut self) {
        self.watching.abort();
    }
}

impl Seen {
    fn count(&mut self) {
        let available = self.pods.values().filter(|pod| pod.available).count();
        let alive = self.pods.values().filter(|pod| !pod.terminating).count();
        let before = self.extremes.unwrap_or(Extremes {
            fewest_available: available,
            most_available: available,
            most_pods: alive,
        });
        self.extremes = Some(Extremes {
            fewest_available: before.fewest_available.min(available),
            most_available: before.most_available.max(available),
            most_pods: before.most_pods.max(alive),
        });
    }
}

fn uid(pod: &Pod) -> String {
    pod.metadata.uid.clone().unwrap_or_default()
}

fn counted(pod: &Pod) -> Counted {
    let status = pod.status.clone().unwrap_or_default();
    let ready =
        status.conditions.iter().flatten().any(|condition| condition.type_ == "Ready" && condition.status == "True");
    let terminating = pod.metadata.deletion_timestamp.is_some();
    let waiting = status
        .container_statuses
        .iter()
        .flatten()
        .find_map(|container| container.state.as_ref()?.waiting.as_ref()?.reason.clone());
    let containers = pod.spec.as_ref().map(|spec| spec.containers.as_slice()).unwrap_or_default();
    let labels = pod.metadata.labels.clone().unwrap_or_default();
    Counted {
        revision: labels.get("pod-template-hash").cloned().unwrap_or_default(),
        image: containers.first().and_then(|container| container.image.clone()).unwrap_or_default(),
        available: ready && !terminating,
        terminating,
        waiting,
    }
}
