//! Events about pods, as a kubelet on this node reports them.
//!
//! One task per process takes notes from a bounded queue and writes them; equal ones are counted up in the same object,
//! and one pod can only say so much (`tools/record/events_cache.go` of client-go: a burst of 25, then one each five
//! minutes). Events explain, they decide nothing: when the queue is full or the API refuses, they are dropped.

use std::{
    collections::{HashMap, VecDeque},
    sync::atomic::{AtomicU16, Ordering},
    time::{Duration, Instant},
};

use api::Pod;
use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{Event, EventSource, ObjectReference},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;
use tokio::sync::mpsc;

use crate::pod_on_node::{Note, all_containers};

/// Notes waiting to be written.
const QUEUE: usize = 1_024;
/// Events remembered so that equal ones are counted.
const REMEMBERED: usize = 4_096;
/// Notes one pod may make at once …
const BURST: f64 = 25.0;
/// … and how long it takes until it may make one more.
const REFILL: Duration = Duration::from_secs(300);

/// Takes notes. Cheap to clone.
#[derive(Clone)]
pub struct Recorder {
    queue: Option<mpsc::Sender<Report>>,
    node: String,
}

struct Report {
    about: ObjectReference,
    note: Note,
    node: String,
    at: Timestamp,
}

impl Recorder {
    /// Starts the task that writes; it ends when the last recorder is dropped.
    pub fn start(client: Client, node: &str) -> Recorder {
        let (queue, reports) = mpsc::channel(QUEUE);
        tokio::spawn(write_all(client, reports));
        Recorder { queue: Some(queue), node: node.to_owned() }
    }

    /// Writes nothing.
    pub fn silent() -> Recorder {
        Recorder { queue: None, node: String::new() }
    }

    /// The same, speaking for another node.
    pub fn on(&self, node: &str) -> Recorder {
        Recorder { queue: self.queue.clone(), node: node.to_owned() }
    }

    /// Reports on a pod.
    pub fn pod(&self, pod: &Pod, notes: Vec<Note>, at: Timestamp) {
        let Some(queue) = &self.queue else { return };
        for note in notes {
            let report = Report { about: reference(pod, &note), note, node: self.node.clone(), at };
            if queue.try_send(report).is_err() {
                tracing::debug!("the queue of events is full; one is dropped");
            }
        }
    }
}

fn reference(pod: &Pod, note: &Note) -> ObjectReference {
    let meta = &pod.metadata;
    ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("Pod".into()),
        namespace: meta.namespace.clone(),
        name: meta.name.clone(),
        uid: meta.uid.clone(),
        resource_version: meta.resource_version.clone(),
        field_path: note.container.as_ref().map(|name| field_path(pod, name)),
    }
}

fn field_path(pod: &Pod, container: &str) -> String {
    let init = pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten());
    debug_assert!(pod.spec.as_deref().into_iter().flat_map(all_containers).any(|one| one.name == container));
    match init.into_iter().any(|one| one.name == container) {
        true => format!("spec.initContainers{{{container}}}"),
        false => format!("spec.containers{{{container}}}"),
    }
}

/// What makes two events equal.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Sameness {
    uid: String,
    container: Option<String>,
    reason: &'static str,
    message: String,
}

struct Written {
    name: String,
    count: i32,
}

#[derive(Default)]
struct Memory {
    written: HashMap<Sameness, Written>,
    order: VecDeque<Sameness>,
    budgets: HashMap<String, (f64, Instant)>,
}

impl Memory {
    /// Whether the pod may say one more thing.
    fn allows(&mut self, uid: &str) -> bool {
        if self.budgets.len() > REMEMBERED {
            self.budgets.retain(|_, (_, since)| since.elapsed() < REFILL);
        }
        let (left, since) = self.budgets.entry(uid.to_owned()).or_insert((BURST, Instant::now()));
        *left = (*left + since.elapsed().as_secs_f64() / REFILL.as_secs_f64()).min(BURST);
        *since = Instant::now();
        let allowed = *left >= 1.0;
        if allowed {
            *left -= 1.0;
        }
        allowed
    }

    fn remember(&mut self, same: Sameness, name: String) {
        if self.order.len() >= REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.written.remove(&oldest);
        }
        self.order.push_back(same.clone());
        self.written.insert(same, Written { name, count: 1 });
    }
}

async fn write_all(client: Client, mut reports: mpsc::Receiver<Report>) {
    let mut memory = Memory::default();
    while let Some(report) = reports.recv().await {
        let uid = report.about.uid.clone().unwrap_or_default();
        if !memory.allows(&uid) {
            continue;
        }
        if let Err(error) = write(&client, &mut memory, report, uid).await {
            tracing::debug!("an event could not be written: {error}");
        }
    }
}

async fn write(client: &Client, memory: &mut Memory, report: Report, uid: String) -> kube::Result<()> {
    let namespace = report.about.namespace.clone().unwrap_or_default();
    let events: Api<Event> = Api::namespaced(client.clone(), &namespace);
    let same = Sameness {
        uid,
        container: report.note.container.clone(),
        reason: report.note.reason,
        message: report.note.message.clone(),
    };
    if let Some(written) = memory.written.get_mut(&same) {
        written.count += 1;
        let more = json!({"count": written.count, "lastTimestamp": Time(report.at)});
        let patched = events.patch(&written.name, &PatchParams::default(), &Patch::Merge(&more)).await;
        match patched {
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            other => return other.map(drop),
        }
        memory.written.remove(&same);
        memory.order.retain(|other| *other != same);
    }
    let event = event(&report, &namespace);
    let name = event.metadata.name.clone().unwrap_or_default();
    events.create(&PostParams::default(), &event).await?;
    memory.remember(same, name);
    Ok(())
}

/// Tells events of one moment apart, and their order.
fn next_number() -> u16 {
    static LAST: AtomicU16 = AtomicU16::new(0);
    LAST.fetch_add(1, Ordering::Relaxed)
}

fn event(report: &Report, namespace: &str) -> Event {
    let pod = report.about.name.as_deref().unwrap_or_default();
    Event {
        metadata: ObjectMeta {
            name: Some(format!("{pod}.{:x}{:04x}", report.at.as_nanosecond(), next_number())),
            namespace: Some(namespace.to_owned()),
            ..ObjectMeta::default()
        },
        involved_object: report.about.clone(),
        reason: Some(report.note.reason.to_owned()),
        message: Some(report.note.message.clone()),
        type_: Some(if report.note.warning { "Warning" } else { "Normal" }.to_owned()),
        source: Some(EventSource { component: Some("kubelet".into()), host: Some(report.node.clone()) }),
        reporting_component: Some("kubelet".into()),
        reporting_instance: Some(report.node.clone()),
        first_timestamp: Some(Time(report.at)),
        last_timestamp: Some(Time(report.at)),
        count: Some(1),
        ..Event::default()
    }
}
