//! What keeps a pod from being available, in words for a person.

use api::Pod;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ContainerStatus;

use crate::pods;

/// Characters of a foreign message that are repeated.
const MESSAGE_CHARACTERS: usize = 200;

/// A sentence such as `web-x1 cannot pull image web:v9 (ErrImagePull: not found)`.
pub fn describe(pod: &Pod, min_ready_seconds: i32, now: Timestamp) -> String {
    let name = pods::name(pod);
    if pods::node(pod).is_empty() {
        return not_placed(pod, name);
    }
    if let Some(since) = pods::ready_since(pod) {
        let seconds = now.duration_since(since).as_secs().max(0);
        return format!("{name} is ready for {seconds} of {min_ready_seconds} seconds");
    }
    let status = pod.status.as_ref();
    let of = |list: Option<&Vec<ContainerStatus>>| list.cloned().unwrap_or_default();
    let init = of(status.and_then(|status| status.init_container_statuses.as_ref()));
    let containers = of(status.and_then(|status| status.container_statuses.as_ref()));
    if let Some(obstacle) = init.iter().filter(|container| !container.ready).find_map(container_obstacle) {
        return format!("{name} {obstacle}");
    }
    if containers.is_empty() {
        return format!("{name} has not been started by node {} yet", pods::node(pod));
    }
    if let Some(obstacle) = containers.iter().filter(|container| !container.ready).find_map(container_obstacle) {
        return format!("{name} {obstacle}");
    }
    match pods::condition(pod, "Ready").and_then(|ready| ready.message.as_deref().or(ready.reason.as_deref())) {
        Some(reason) => format!("{name} is not ready: {}", shortened(reason)),
        None => format!("{name} is not ready yet"),
    }
}

fn not_placed(pod: &Pod, name: &str) -> String {
    match pods::condition(pod, "PodScheduled").and_then(|placed| placed.message.as_deref()) {
        Some(message) => format!("{name} fits on no node: {}", shortened(message)),
        None => format!("{name} has no node yet"),
    }
}

fn container_obstacle(container: &ContainerStatus) -> Option<String> {
    let state = container.state.as_ref()?;
    if let Some(waiting) = &state.waiting {
        let reason = waiting.reason.as_deref().unwrap_or("Waiting");
        let detail = match waiting.message.as_deref() {
            Some(message) if !message.is_empty() => format!("{reason}: {}", shortened(message)),
            _ => reason.to_owned(),
        };
        return Some(match reason {
            "ErrImagePull" | "ImagePullBackOff" | "InvalidImageName" | "ErrImageNeverPull" => {
                format!("cannot pull image {} ({detail})", container.image)
            }
            "CrashLoopBackOff" => {
                format!("keeps crashing: container {}, {} restarts ({detail})", container.name, container.restart_count)
            }
            "ContainerCreating" | "PodInitializing" => {
                format!("is starting container {} with image {} ({detail})", container.name, container.image)
            }
            _ => format!("waits for container {} ({detail})", container.name),
        });
    }
    if let Some(ended) = &state.terminated {
        return Some(format!("has container {} that ended with exit code {}", container.name, ended.exit_code));
    }
    Some(if container.started == Some(false) {
        format!("has container {} that runs but has not passed its startup probe", container.name)
    } else {
        format!("has container {} that runs but is not ready", container.name)
    })
}

fn shortened(message: &str) -> String {
    match message.char_indices().nth(MESSAGE_CHARACTERS) {
        Some((end, _)) => format!("{}…", &message[..end]),
        None => message.to_owned(),
    }
}
