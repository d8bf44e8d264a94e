//! What keeps a pod from being available, in words for a person.

use api::Pod;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, ContainerStateTerminated, ContainerStatus, HTTPGetAction, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::pods;

/// Pods that are named; of others only the number is told.
const PODS_NAMED: usize = 3;
/// Characters of a foreign message that are repeated: what it is about stands in front, the cause at the end.
const MESSAGE_START: usize = 80;
const MESSAGE_END: usize = 160;

/// What keeps each of several pods: `web-x1 cannot pull image web:v9 (ErrImagePull: not found), likewise web-x2; and 3 more`.
pub fn list<'p>(pods: impl ExactSizeIterator<Item = &'p Pod>, min_ready_seconds: i32, now: Timestamp) -> String {
    let more = pods.len().saturating_sub(PODS_NAMED);
    let mut told: Vec<(String, Vec<&str>)> = Vec::new();
    for pod in pods.take(PODS_NAMED) {
        let what = what(pod, min_ready_seconds, now);
        match told.iter_mut().find(|(known, _)| *known == what) {
            Some((_, names)) => names.push(pods::name(pod)),
            None => told.push((what, vec![pods::name(pod)])),
        }
    }
    let sentence = |(what, names): &(String, Vec<&str>)| match names.as_slice() {
        [first, others @ ..] if !others.is_empty() => format!("{first} {what}, likewise {}", others.join(" and ")),
        names => format!("{} {what}", names.concat()),
    };
    let mut sentences: Vec<String> = told.iter().map(sentence).collect();
    sentences.extend((more > 0).then(|| format!("and {more} more")));
    sentences.join("; ")
}

/// A sentence such as `web-x1 cannot pull image web:v9 (ErrImagePull: not found)`.
pub fn describe(pod: &Pod, min_ready_seconds: i32, now: Timestamp) -> String {
    format!("{} {}", pods::name(pod), what(pod, min_ready_seconds, now))
}

fn what(pod: &Pod, min_ready_seconds: i32, now: Timestamp) -> String {
    if pods::node(pod).is_empty() {
        return not_placed(pod);
    }
    if let Some(since) = pods::ready_since(pod) {
        let seconds = now.duration_since(since).as_secs().max(0);
        return format!("is ready for {seconds} of {min_ready_seconds} seconds");
    }
    let status = pod.status.as_ref();
    let of = |list: Option<&Vec<ContainerStatus>>| list.cloned().unwrap_or_default();
    let init = of(status.and_then(|status| status.init_container_statuses.as_ref()));
    let containers = of(status.and_then(|status| status.container_statuses.as_ref()));
    let obstacle = |container: &ContainerStatus| container_obstacle(container, pod);
    if let Some(obstacle) = init.iter().filter(|container| !container.ready).find_map(obstacle) {
        return obstacle;
    }
    if containers.is_empty() {
        return format!("has not been started by node {} yet", pods::node(pod));
    }
    if let Some(obstacle) = containers.iter().filter(|container| !container.ready).find_map(obstacle) {
        return obstacle;
    }
    match pods::condition(pod, "Ready").and_then(|ready| ready.message.as_deref().or(ready.reason.as_deref())) {
        Some(reason) => format!("is not ready: {}", shortened(reason)),
        None => "is not ready yet".to_owned(),
    }
}

fn not_placed(pod: &Pod) -> String {
    match pods::condition(pod, "PodScheduled").and_then(|placed| placed.message.as_deref()) {
        Some(message) => format!("fits on no node: {}", shortened(message)),
        None => "has no node yet".to_owned(),
    }
}

fn container_obstacle(container: &ContainerStatus, pod: &Pod) -> Option<String> {
    let state = container.state.as_ref()?;
    if let Some(waiting) = &state.waiting {
        let reason = waiting.reason.as_deref().unwrap_or("Waiting");
        let message = waiting.message.as_deref();
        // Which container of which pod is told already.
        let message = message.map(|it| it.split_once(" restarting failed container").map_or(it, |(wait, _)| wait));
        let detail = match message {
            Some(message) if !message.is_empty() => format!("{reason}: {}", shortened(message)),
            _ => reason.to_owned(),
        };
        return Some(match reason {
            "ErrImagePull" | "ImagePullBackOff" | "InvalidImageName" | "ErrImageNeverPull" => {
                format!("cannot pull image {} ({detail})", container.image)
            }
            "CrashLoopBackOff" => {
                let last = container.last_state.as_ref().and_then(|last| last.terminated.as_ref());
                let ended = last.map_or_else(String::new, |last| format!(" ended with {}", ending(last)));
                let restarts = container.restart_count;
                format!("keeps crashing: container {}{ended}, {restarts} restarts ({detail})", container.name)
            }
            "ContainerCreating" | "PodInitializing" => {
                format!("is starting container {} with image {} ({detail})", container.name, container.image)
            }
            _ => format!("waits for container {} ({detail})", container.name),
        });
    }
    if let Some(ended) = &state.terminated {
        return Some(format!("has container {} that ended with {}", container.name, ending(ended)));
    }
    let spec = spec_of(container, pod);
    Some(if container.started == Some(false) {
        let probe = spec.and_then(|spec| spec.startup_probe.as_ref()).and_then(check);
        format!("has container {} that runs but has not passed its startup probe{}", container.name, asked(probe))
    } else {
        match spec.and_then(|spec| spec.readiness_probe.as_ref()) {
            Some(probe) => {
                format!(
                    "has container {} that does not pass its readiness probe{}",
                    container.name,
                    asked(check(probe))
                )
            }
            None => format!("has container {} that runs but is not ready", container.name),
        }
    })
}

fn spec_of<'a>(container: &ContainerStatus, pod: &'a Pod) -> Option<&'a Container> {
    let spec = pod.spec.as_deref()?;
    let mut all = spec.init_containers.iter().flatten().chain(&spec.containers);
    all.find(|it| it.name == container.name)
}

/// `exit code 137 (OOMKilled)`, with what it said last.
fn ending(ended: &ContainerStateTerminated) -> String {
    let reason = ended.reason.as_deref().filter(|reason| !matches!(*reason, "" | "Error" | "Completed"));
    let reason = reason.map_or_else(String::new, |reason| format!(" ({reason})"));
    let message = ended.message.as_deref().map(str::trim).filter(|message| !message.is_empty());
    let message = message.map_or_else(String::new, |message| format!(": {}", shortened(message)));
    format!("exit code {}{reason}{message}", ended.exit_code)
}

fn asked(check: Option<String>) -> String {
    check.map_or_else(String::new, |check| format!(" ({check})"))
}

/// What a probe asks.
fn check(probe: &Probe) -> Option<String> {
    let port = |port: &IntOrString| match port {
        IntOrString::Int(number) => number.to_string(),
        IntOrString::String(name) => name.clone(),
    };
    if let Some(HTTPGetAction { path, port: at, .. }) = &probe.http_get {
        return Some(format!("GET {} on port {}", path.as_deref().unwrap_or("/"), port(at)));
    }
    if let Some(socket) = &probe.tcp_socket {
        return Some(format!("a connection to port {}", port(&socket.port)));
    }
    if let Some(service) = &probe.grpc {
        return Some(format!("gRPC on port {}", service.port));
    }
    let command = probe.exec.as_ref()?.command.as_ref()?;
    Some(format!("command {}", shortened(&command.join(" "))))
}

fn shortened(message: &str) -> String {
    let message = message.trim_end_matches(['.', '\n']);
    let place = |index: usize| message.char_indices().nth(index).map_or(message.len(), |(at, _)| at);
    let left_out = message.chars().count().saturating_sub(MESSAGE_START + MESSAGE_END);
    match left_out {
        0 => message.to_owned(),
        _ => format!("{}…{}", &message[..place(MESSAGE_START)], &message[place(MESSAGE_START + left_out)..]),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use serde_json::{Value, json};

    use super::*;

    /// A pod whose container has this beside its name, in this state.
    fn pod(name: &str, probes: &Value, status: &Value) -> Pod {
        let with = |mut base: Value, more: &Value| {
            let more = more.as_object().unwrap().clone();
            base.as_object_mut().unwrap().extend(more);
            base
        };
        let told = json!({ "name": "c", "image": "web:v1", "imageID": "", "ready": false, "restartCount": 4 });
        let pod = json!({
            "metadata": { "name": name },
            "spec": { "nodeName": "n1", "containers": [with(json!({ "name": "c" }), probes)] },
            "status": { "containerStatuses": [with(told, status)] },
        });
        serde_json::from_value(pod).unwrap()
    }

    fn told(probes: &Value, status: &Value) -> String {
        describe(&pod("web-1", probes, status), 0, Timestamp::UNIX_EPOCH)
    }

    fn waits(reason: &str, message: &str) -> Value {
        json!({ "waiting": { "reason": reason, "message": message } })
    }

    #[test]
    fn what_is_in_the_way_is_told_with_what_is_known_of_it() {
        let ended = |code: i32, reason: &str, message: &str| json!({ "terminated": { "exitCode": code, "reason": reason, "message": message } });
        let crash = |last: Value| json!({ "state": waits("CrashLoopBackOff", "back-off 40s restarting failed container=c pod=web-1_ns(u)"), "lastState": last });
        let runs = |started: bool| json!({ "state": { "running": {} }, "started": started });
        let cases = [
            (json!({}), json!({ "state": waits("ErrImagePull", "not found") })),
            (json!({}), json!({ "state": waits("ContainerCreating", "") })),
            (json!({}), crash(ended(137, "OOMKilled", ""))),
            (json!({}), crash(ended(1, "Error", "no database\n"))),
            (json!({}), crash(json!({}))),
            (json!({}), json!({ "state": ended(2, "Error", "") })),
            (json!({}), json!({ "state": ended(137, "OOMKilled", "") })),
            (json!({}), runs(true)),
            (json!({ "readinessProbe": { "httpGet": { "path": "/ready", "port": "web" } } }), runs(true)),
            (json!({ "readinessProbe": { "tcpSocket": { "port": 80 } } }), runs(true)),
            (json!({ "readinessProbe": { "grpc": { "port": 90 } } }), runs(true)),
            (json!({ "startupProbe": { "exec": { "command": ["test", "-f", "/up"] } } }), runs(false)),
        ];
        let table = cases.iter().map(|(probes, status)| told(probes, status) + "\n").collect::<String>();
        expect![[r#"
            web-1 cannot pull image web:v1 (ErrImagePull: not found)
            web-1 is starting container c with image web:v1 (ContainerCreating)
            web-1 keeps crashing: container c ended with exit code 137 (OOMKilled), 4 restarts (CrashLoopBackOff: back-off 40s)
            web-1 keeps crashing: container c ended with exit code 1: no database, 4 restarts (CrashLoopBackOff: back-off 40s)
            web-1 keeps crashing: container c, 4 restarts (CrashLoopBackOff: back-off 40s)
            web-1 has container c that ended with exit code 2
            web-1 has container c that ended with exit code 137 (OOMKilled)
            web-1 has container c that runs but is not ready
            web-1 has container c that does not pass its readiness probe (GET /ready on port web)
            web-1 has container c that does not pass its readiness probe (a connection to port 80)
            web-1 has container c that does not pass its readiness probe (gRPC on port 90)
            web-1 has container c that runs but has not passed its startup probe (command test -f /up)
        "#]].assert_eq(&table);
    }

    #[test]
    fn what_is_in_the_way_of_several_is_told_once() {
        let none = json!({});
        let status = |reason: &str| json!({ "state": waits(reason, "") });
        let list = |reasons: &[&str]| {
            let names = ["a", "b", "c", "d", "e"].iter();
            let pods: Vec<Pod> = names.zip(reasons).map(|(name, why)| pod(name, &none, &status(why))).collect();
            list(pods.iter(), 0, Timestamp::UNIX_EPOCH) + "\n"
        };
        let lists = [
            list(&["ErrImagePull"]),
            list(&["ErrImagePull", "ErrImagePull"]),
            list(&["ErrImagePull", "CrashLoopBackOff", "ErrImagePull"]),
            list(&["ErrImagePull"; 5]),
        ];
        expect![[r#"
            a cannot pull image web:v1 (ErrImagePull)
            a cannot pull image web:v1 (ErrImagePull), likewise b
            a cannot pull image web:v1 (ErrImagePull), likewise c; b keeps crashing: container c, 4 restarts (CrashLoopBackOff)
            a cannot pull image web:v1 (ErrImagePull), likewise b and c; and 2 more
        "#]]
        .assert_eq(&lists.concat());
    }

    #[test]
    fn of_a_long_message_both_ends_are_told() {
        let cause = "dial tcp: lookup registry.example: no such host";
        let message = format!("Back-off pulling image \"registry.example/web:v1\": {}: {cause}", "failed ".repeat(60));
        let told = told(&json!({}), &json!({ "state": waits("ErrImagePull", &message) }));
        expect![[r#"web-1 cannot pull image web:v1 (ErrImagePull: Back-off pulling image "registry.example/web:v1": failed failed failed failed fa…ailed failed failed failed failed failed failed failed failed failed failed failed failed failed failed failed : dial tcp: lookup registry.example: no such host)"#]].assert_eq(&told);
        assert_eq!(shortened(&"ö".repeat(240)), "ö".repeat(240));
        assert_eq!(shortened(&"ö".repeat(241)), format!("{}…{}", "ö".repeat(80), "ö".repeat(160)));
    }
}
