//! Makes the pods that a Job lacks and ends those it has too many of.
//!
//! Mirrors manageJob of upstream's `pkg/controller/job/job_controller.go`. Never makes and ends pods in one decision.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use api::limits::BURST_REPLICAS;
use api::plan::CREATED;
use api::{EventType, Key, Kind, Member, Plan, Pod, Propagation, Typed, Write};
use k8s_openapi::api::core::v1::{EnvVar, EnvVarSource, ObjectFieldSelector, PodTemplateSpec};

use super::{State, back_off, count, event, indexed, terms, uid, verdict};
use crate::{pods, template};

/// The variable that tells a container its index.
const INDEX_VARIABLE: &str = "JOB_COMPLETION_INDEX";
/// Longest name that another five characters can be put behind (upstream: `maxGeneratedNameLength`).
const GENERATED_NAME: usize = 58;

/// Ends every active pod of a Job that ends; they are counted as they are.
pub fn end_all(state: &State, key: &Key) -> Vec<Write> {
    state.active.iter().take(BURST_REPLICAS).flat_map(|pod| end(state, key, pod.pod())).collect()
}

/// Brings the number of active pods to what is wanted. What it waits for goes into `plan`.
pub fn manage(state: &State, key: &Key, plan: &mut Plan) -> Vec<Write> {
    let active = count(state.active.len());
    let wanted = if terms::is_suspended(state.job) { 0 } else { wanted(state) };
    let going = too_many(state, usize::try_from(active - wanted).unwrap_or(0));
    if !going.is_empty() {
        return going.into_iter().take(BURST_REPLICAS).flat_map(|pod| end_uncounted(state, key, pod.pod())).collect();
    }
    let waiting = if terms::replaces_only_failed(state.job) { state.terminating } else { 0 };
    let missing = wanted - active - waiting;
    if missing <= 0 {
        plan.why.extend((waiting > 0).then(|| format!("waits until {waiting} pods have ended")));
        return Vec::new();
    }
    start(state, key, usize::try_from(missing).unwrap_or(0).min(BURST_REPLICAS), plan)
}

fn wanted(state: &State) -> i32 {
    let parallelism = terms::parallelism(state.job);
    match terms::spec(state.job).completions {
        None if state.succeeded > 0 => count(state.active.len()),
        None => parallelism,
        Some(completions) => (completions - state.succeeded).min(parallelism).max(0),
    }
}

/// Active pods to end: those whose index is taken, and so many that none is left over.
fn too_many<'a>(state: &State<'a>, surplus: usize) -> Vec<Member<'a>> {
    if surplus == 0 && (!terms::is_indexed(state.job) || indexed::is_one_an_index(state)) {
        return Vec::new();
    }
    let mut worst_first = state.active.clone();
    worst_first.sort_by_cached_key(|pod| worth(pod.pod()));
    if !terms::is_indexed(state.job) {
        worst_first.truncate(surplus);
        return worst_first;
    }
    let mut going = indexed::superfluous(state, &worst_first);
    let gone: BTreeSet<&str> = going.iter().map(|pod| uid(pod.pod())).collect();
    let left = worst_first.into_iter().filter(|pod| !gone.contains(uid(pod.pod())));
    going.extend(left.take(surplus.saturating_sub(gone.len())));
    going
}

/// Orders pods by what is lost with them (upstream: `ActivePods` in `pkg/controller/controller_utils.go`).
fn worth(pod: &Pod) -> impl Ord + use<> {
    let phase = match pods::phase(pod) {
        "Pending" | "" => 0,
        "Unknown" => 1,
        _ => 2,
    };
    let created = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
    (
        !pods::node(pod).is_empty(),
        phase,
        pods::is_ready(pod),
        Reverse(pods::ready_since(pod)),
        Reverse(verdict::restarts(pod)),
        Reverse(created),
        pods::name(pod).to_owned(),
    )
}

fn start(state: &State, key: &Key, missing: usize, plan: &mut Plan) -> Vec<Write> {
    let per_index = terms::spec(state.job).backoff_limit_per_index.is_some();
    if let Some(time) = back_off::until(state).filter(|_| !per_index) {
        plan.why.push(format!("backs off until {time} after failed pods"));
        plan.wake_by(time);
        return Vec::new();
    }
    if !terms::is_indexed(state.job) {
        return (0..missing).flat_map(|_| create(state, key, pod(state, None))).collect();
    }
    let mut writes = Vec::new();
    for index in indexed::to_start(state, missing) {
        match state.last_failed.get(&index).and_then(|last| back_off::index_until(last.pod(), state.now)) {
            Some(time) => {
                plan.why.push(format!("index {index} backs off until {time}"));
                plan.wake_by(time);
            }
            None => writes.extend(create(state, key, pod(state, Some(index)))),
        }
    }
    writes
}

fn create(state: &State, key: &Key, pod: Pod) -> [Write; 2] {
    let message = format!("Created pod: {CREATED}");
    let note = event(key, state.job, EventType::Normal, "SuccessfulCreate", message);
    [Write::Create(pod.into_body()), Write::Event(note)]
}

fn end(state: &State, key: &Key, pod: &Pod) -> [Write; 2] {
    let name = pods::name(pod);
    let note = event(key, state.job, EventType::Normal, "SuccessfulDelete", format!("Deleted pod: {name}"));
    let pod_key = Key::new(Kind::Pod, key.namespace.clone(), name);
    let delete = Write::Delete { key: pod_key, uid: uid(pod).to_owned(), propagation: Propagation::Background };
    [delete, Write::Event(note)]
}

/// A pod that is ended because it is too many is no failure: it is let go first.
fn end_uncounted(state: &State, key: &Key, pod: &Pod) -> Vec<Write> {
    let free = terms::is_tracked(pod).then(|| Write::Update(terms::untracked(pod).into_body()));
    free.into_iter().chain(end(state, key, pod)).collect()
}

/// A new pod, with its index if it has one.
fn pod(state: &State, index: Option<i32>) -> Pod {
    let mut wanted = terms::spec(state.job).template.clone();
    if let Some(index) = index {
        mark_index(state, &mut wanted, index);
    }
    let mut pod = template::pod(Kind::Job, &state.job.metadata, wanted);
    let finalizers = pod.metadata.finalizers.get_or_insert_default();
    if !finalizers.iter().any(|finalizer| finalizer == terms::TRACKING_FINALIZER) {
        finalizers.push(terms::TRACKING_FINALIZER.to_owned());
    }
    if let Some(index) = index {
        let behind = format!("-{index}-");
        let name: String = job_name(state).chars().take(GENERATED_NAME - behind.len()).collect();
        pod.metadata.generate_name = Some(name + &behind);
    }
    pod
}

fn job_name<'a>(state: &State<'a>) -> &'a str {
    state.job.metadata.name.as_deref().unwrap_or("")
}

fn mark_index(state: &State, wanted: &mut PodTemplateSpec, index: i32) {
    let meta = wanted.metadata.get_or_insert_default();
    meta.labels.get_or_insert_default().insert(terms::COMPLETION_INDEX.to_owned(), index.to_string());
    let annotations = meta.annotations.get_or_insert_default();
    annotations.insert(terms::COMPLETION_INDEX.to_owned(), index.to_string());
    if terms::spec(state.job).backoff_limit_per_index.is_some() {
        let (failures, ignored) = indexed::failures_before(state, index);
        annotations.insert(terms::INDEX_FAILURES.to_owned(), failures.to_string());
        if ignored > 0 {
            annotations.insert(terms::INDEX_IGNORED_FAILURES.to_owned(), ignored.to_string());
        }
    }
    let pod = wanted.spec.get_or_insert_default();
    pod.hostname = Some(format!("{}-{index}", job_name(state)));
    let containers = pod.init_containers.iter_mut().flatten().chain(&mut pod.containers);
    for container in containers {
        let variables = container.env.get_or_insert_default();
        if !variables.iter().any(|variable| variable.name == INDEX_VARIABLE) {
            variables.push(index_variable());
        }
    }
}

fn index_variable() -> EnvVar {
    let field_ref = ObjectFieldSelector {
        api_version: None,
        field_path: format!("metadata.labels['{}']", terms::COMPLETION_INDEX),
    };
    EnvVar {
        name: INDEX_VARIABLE.to_owned(),
        value: None,
        value_from: Some(EnvVarSource { field_ref: Some(field_ref), ..Default::default() }),
    }
}
