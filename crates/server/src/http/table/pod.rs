//! The row of a pod: its status in one word, as upstream's `printPod` finds it.

use api::{Body, Object, Pod};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, PodSpec, PodStatus};
use serde_json::{Value, json};

use super::columns::{age, or_none};

/// Reason and message for a pod that has ended: kubectl greys such rows.
pub fn finished_phase(object: &Object) -> Option<(&'static str, &'static str)> {
    let Body::Pod(pod) = &object.body else { return None };
    match pod.status.as_ref()?.phase.as_deref()? {
        "Succeeded" => Some(("Succeeded", "The pod has completed successfully.")),
        "Failed" => Some(("Failed", "The pod failed.")),
        _ => None,
    }
}

/// What the containers' statuses add up to.
struct Summary {
    reason: String,
    ready: usize,
    total: usize,
    restarts: i32,
    last_restart: Option<Timestamp>,
}

/// The cells of a pod.
pub fn cells(pod: &Pod, name: Value, age_cell: Value, now: Timestamp) -> Vec<Value> {
    let spec = pod.spec.clone().unwrap_or_default();
    let status = pod.status.clone().unwrap_or_default();
    let summary = summarize(pod, &spec, &status);
    let restarts = match summary.last_restart {
        Some(time) if summary.restarts > 0 => {
            let ago = age(Some(&k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(time)), now);
            format!("{} ({ago} ago)", summary.restarts)
        }
        _ => summary.restarts.to_string(),
    };
    let gates: Vec<_> = spec.readiness_gates.iter().flatten().collect();
    let open = gates.iter().filter(|gate| {
        let condition = status.conditions.iter().flatten().find(|condition| condition.type_ == gate.condition_type);
        condition.is_some_and(|condition| condition.status == "True")
    });
    let gate_cell = if gates.is_empty() { "<none>".to_owned() } else { format!("{}/{}", open.count(), gates.len()) };
    vec![
        name,
        json!(format!("{}/{}", summary.ready, summary.total)),
        json!(summary.reason),
        json!(restarts),
        age_cell,
        json!(or_none(status.pod_ip.unwrap_or_default())),
        json!(or_none(spec.node_name.clone().unwrap_or_default())),
        json!(or_none(status.nominated_node_name.unwrap_or_default())),
        json!(gate_cell),
    ]
}

fn summarize(pod: &Pod, spec: &PodSpec, status: &PodStatus) -> Summary {
    let phase = status.phase.clone().unwrap_or_default();
    let mut summary = Summary {
        reason: status.reason.clone().filter(|reason| !reason.is_empty()).unwrap_or(phase.clone()),
        ready: 0,
        total: spec.containers.len(),
        restarts: 0,
        last_restart: None,
    };
    let scheduling_gated =
        status.conditions.iter().flatten().any(|condition| {
            condition.type_ == "PodScheduled" && condition.reason.as_deref() == Some("SchedulingGated")
        });
    if scheduling_gated {
        summary.reason = "SchedulingGated".into();
    }
    let initializing = init_containers(spec, status, &mut summary);
    if !initializing {
        main_containers(status, &mut summary);
    }
    if pod.metadata.deletion_timestamp.is_some() && status.reason.as_deref() == Some("NodeLost") {
        summary.reason = "Unknown".into();
    } else if pod.metadata.deletion_timestamp.is_some() && !matches!(phase.as_str(), "Succeeded" | "Failed") {
        summary.reason = "Terminating".into();
    }
    summary
}

/// True while init containers hold the pod back; the reason then says which.
fn init_containers(spec: &PodSpec, status: &PodStatus, summary: &mut Summary) -> bool {
    let restartable = |name: &str| {
        let found = spec.init_containers.iter().flatten().find(|container| container.name == name);
        found.is_some_and(|container| container.restart_policy.as_deref() == Some("Always"))
    };
    let statuses = status.init_container_statuses.as_deref().unwrap_or_default();
    summary.total += statuses.iter().filter(|status| restartable(&status.name)).count();
    let total = spec.init_containers.as_ref().map_or(0, Vec::len);
    let mut held = false;
    for (index, container) in statuses.iter().enumerate() {
        count_restarts(container, summary);
        let sidecar = restartable(&container.name);
        if sidecar && container.ready {
            summary.ready += 1;
        }
        if held || (sidecar && container.started == Some(true)) {
            continue;
        }
        let state = container.state.clone().unwrap_or_default();
        match (&state.terminated, &state.waiting) {
            (Some(end), _) if end.exit_code == 0 => {}
            (Some(_), _) => {
                summary.reason = format!("Init:{}", ended(&state));
                held = true;
            }
            (None, Some(waiting))
                if waiting
                    .reason
                    .as_deref()
                    .is_some_and(|reason| !reason.is_empty() && reason != "PodInitializing") =>
            {
                summary.reason = format!("Init:{}", waiting.reason.clone().unwrap_or_default());
                held = true;
            }
            _ => {
                summary.reason = format!("Init:{index}/{total}");
                held = true;
            }
        }
    }
    held
}

fn main_containers(status: &PodStatus, summary: &mut Summary) {
    let statuses = status.container_statuses.as_deref().unwrap_or_default();
    let mut running = false;
    for container in statuses.iter().rev() {
        count_restarts(container, summary);
        let state = container.state.clone().unwrap_or_default();
        let waiting = state.waiting.as_ref().and_then(|waiting| waiting.reason.clone()).unwrap_or_default();
        if !waiting.is_empty() {
            summary.reason = waiting;
        } else if state.terminated.is_some() {
            summary.reason = ended(&state);
        } else if container.ready && state.running.is_some() {
            running = true;
            summary.ready += 1;
        }
    }
    if summary.reason == "Completed" && running {
        let ready = status
            .conditions
            .iter()
            .flatten()
            .any(|condition| condition.type_ == "Ready" && condition.status == "True");
        summary.reason = if ready { "Running".into() } else { "NotReady".into() };
    }
}

fn count_restarts(container: &ContainerStatus, summary: &mut Summary) {
    summary.restarts += container.restart_count;
    let last = container.last_state.as_ref().and_then(|state| state.terminated.as_ref());
    if let Some(finished) = last.and_then(|end| end.finished_at.as_ref()) {
        summary.last_restart = summary.last_restart.max(Some(finished.0));
    }
}

fn ended(state: &ContainerState) -> String {
    let Some(end) = &state.terminated else { return String::new() };
    match (end.reason.as_deref(), end.signal) {
        (Some(reason), _) if !reason.is_empty() => reason.to_owned(),
        (_, Some(signal)) if signal != 0 => format!("Signal:{signal}"),
        _ => format!("ExitCode:{}", end.exit_code),
    }
}
