//! A run on paper: one aligned line for every commit, crash, fault and act of a person.

use api::{Change, Kind, Object, Pod, Snapshot};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};

use crate::facts;

/// Collects lines, if anybody wants them.
#[derive(Default)]
pub struct Trace {
    /// The lines so far.
    pub lines: Vec<String>,
    /// False: nothing is kept.
    pub on: bool,
}

impl Trace {
    /// A line that is no commit.
    pub fn tell(&mut self, seconds: i64, what: &str, words: impl FnOnce() -> String) {
        if self.on {
            self.lines.push(format!("{seconds:>5}s {what:<8} {}", words()));
        }
    }

    /// What there is: a line for every set and every pod.
    pub fn remains(&mut self, world: &Snapshot) {
        for deployment in world.list::<Deployment>(None).filter(|_| self.on) {
            let (name, wanted) = (facts::name(&deployment.metadata), facts::replicas(deployment));
            let status = deployment.status.clone().unwrap_or_default();
            let told = serde_json::to_string(&status).unwrap_or_default();
            self.lines.push(format!("       deploy {name} of {wanted}: {told}"));
        }
        for set in world.list::<ReplicaSet>(None).filter(|_| self.on) {
            let (there, wanted) = (facts::active(set, world), facts::size(set));
            let owner = api::object::controller_of(&set.metadata).map_or("nobody", |owner| &owner.name);
            self.lines.push(format!("       rs  {} of {owner}: {there} of {wanted}", facts::name(&set.metadata)));
        }
        for pod in world.list::<Pod>(None).filter(|_| self.on) {
            let ready = if facts::ready_since(pod).is_some() { "ready" } else { "not ready" };
            let deleted = if facts::is_deleted(&pod.metadata) { ", deleted" } else { "" };
            let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("");
            let owner = api::object::controller_of(&pod.metadata).map_or("nobody", |owner| &owner.name);
            let (name, node) = (facts::name(&pod.metadata), facts::node(pod));
            self.lines.push(format!("       pod {name} of {owner} on {node:?}: {phase}, {ready}{deleted}"));
        }
    }

    /// The line of a commit.
    pub fn commit(&mut self, seconds: i64, changes: &[Change]) {
        if !self.on || changes.is_empty() {
            return;
        }
        let revision = changes.last().map_or(0, |change| change.revision);
        let words: Vec<String> = changes.iter().filter_map(words).collect();
        if !words.is_empty() {
            self.lines.push(format!("{seconds:>5}s r{revision:<7} {}", words.join(", ")));
        }
    }
}

fn words(change: &Change) -> Option<String> {
    let object = change.object();
    let name = object.name();
    let kind = match object.kind() {
        Kind::Event | Kind::Lease | Kind::Endpoints => return None,
        Kind::Pod => "",
        Kind::ReplicaSet => "rs ",
        Kind::Deployment => "deploy ",
        Kind::EndpointSlice => "slice ",
        Kind::Node => "node ",
        Kind::Namespace => "ns ",
        Kind::Service => "svc ",
        Kind::DaemonSet => "ds ",
        Kind::StatefulSet => "sts ",
        Kind::ReplicationController => "rc ",
        Kind::Job => "job ",
        Kind::CronJob => "cronjob ",
        Kind::ControllerRevision => "revision ",
        Kind::PersistentVolumeClaim => "pvc ",
        Kind::PersistentVolume => "pv ",
        Kind::StorageClass => "sc ",
        Kind::PodDisruptionBudget => "budget ",
        Kind::ResourceQuota => "quota ",
        Kind::HorizontalPodAutoscaler => "autoscaler ",
        _ => "? ",
    };
    match (&change.before, &change.after) {
        (None, Some(_)) => return Some(format!("+{kind}{name}")),
        (_, None) => return Some(format!("-{kind}{name}")),
        (Some(before), Some(after)) if !facts::is_deleted(before.meta()) && facts::is_deleted(after.meta()) => {
            return Some(format!("†{kind}{name}"));
        }
        _ => {}
    }
    let (before, after) = (change.before.as_ref()?, change.after.as_ref()?);
    match object.kind() {
        Kind::Pod => pod_words(before.get()?, after.get()?),
        Kind::ReplicaSet => set_words(before.get()?, after.get()?),
        Kind::Deployment => deployment_words(before.get()?, after.get()?),
        Kind::EndpointSlice => Some(format!("slice {name}")),
        Kind::Job => job_words(before.get()?, after.get()?),
        Kind::PersistentVolumeClaim | Kind::PersistentVolume => phase_words(kind, before, after),
        Kind::DaemonSet | Kind::StatefulSet | Kind::ReplicationController | Kind::CronJob => {
            let generation = after.meta().generation;
            (before.meta().generation != generation)
                .then(|| format!("{kind}{name} generation {}", generation.unwrap_or(0)))
        }
        _ => None,
    }
}

fn phase_words(kind: &str, before: &Object, after: &Object) -> Option<String> {
    let phase = |object: &Object| match (object.get::<PersistentVolumeClaim>(), object.get::<PersistentVolume>()) {
        (Some(claim), _) => claim.status.as_ref().and_then(|status| status.phase.clone()),
        (_, Some(volume)) => volume.status.as_ref().and_then(|status| status.phase.clone()),
        _ => None,
    };
    let now = phase(after);
    (phase(before) != now).then(|| format!("{kind}{} {}", after.name(), now.unwrap_or_default()))
}

fn pod_words(before: &Pod, after: &Pod) -> Option<String> {
    let name = facts::name(&after.metadata);
    if facts::node(before) != facts::node(after) {
        return Some(format!("{name}→{}", facts::node(after)));
    }
    match (facts::ready_since(before), facts::ready_since(after)) {
        (None, Some(_)) => Some(format!("{name} ready")),
        (Some(_), None) => Some(format!("{name} unready")),
        _ if before.metadata.owner_references != after.metadata.owner_references => Some(format!("{name} owner")),
        _ => None,
    }
}

fn job_words(before: &Job, after: &Job) -> Option<String> {
    let name = facts::name(&after.metadata);
    let counts = |job: &Job| job.status.as_ref().map(|status| (status.active, status.succeeded, status.failed));
    let told = (counts(before), facts::job_end(before).map(|end| end.type_.clone()));
    let ended = facts::job_end(after).map(|end| end.type_.clone());
    if told == (counts(after), ended.clone()) {
        return None;
    }
    let (active, succeeded, failed) = counts(after).unwrap_or_default();
    let [active, succeeded, failed] = [active, succeeded, failed].map(|number| number.unwrap_or(0));
    let ended = ended.map_or(String::new(), |ended| format!(" {ended}"));
    Some(format!("job {name} {active} active {succeeded} good {failed} bad{ended}"))
}

fn set_words(before: &ReplicaSet, after: &ReplicaSet) -> Option<String> {
    let name = facts::name(&after.metadata);
    if before.metadata.owner_references != after.metadata.owner_references {
        return Some(format!("rs {name} owner"));
    }
    let (old, new) = (facts::size(before), facts::size(after));
    (old != new).then(|| format!("rs {name} {old}→{new}"))
}

fn deployment_words(before: &Deployment, after: &Deployment) -> Option<String> {
    let name = facts::name(&after.metadata);
    if before.metadata.generation != after.metadata.generation {
        return Some(format!("deploy {name} generation {}", after.metadata.generation.unwrap_or(0)));
    }
    let reason = |deployment: &Deployment| {
        let conditions = deployment.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
        conditions.into_iter().find(|it| it.type_ == "Progressing").and_then(|it| it.reason)
    };
    (reason(before) != reason(after)).then(|| format!("deploy {name} {}", reason(after).unwrap_or_default()))
}
