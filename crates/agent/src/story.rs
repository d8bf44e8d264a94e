//! Tests of the node's decisions as stories: a pod and what happens to it in, steps, events and status out.
//!
//! Every step is answered with success at once, unless the story says otherwise.

use std::{collections::HashMap, fmt::Write as _};

use api::Pod;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{api::core::v1::ContainerState, apimachinery::pkg::apis::meta::v1::Time};

use crate::{
    plan::{Step, plan},
    pod_on_node::{Note, Outcome, PodOnNode, TroubleKind},
    probes::{Kind, Probed},
    runtime::{ContainerSeen, Exit, ImageSeen, PodSeen},
    status::{Conditions, Host, status},
};

struct Story {
    pod: Pod,
    seen: PodOnNode,
    conditions: Conditions,
    begin: Timestamp,
    now: Timestamp,
    /// Images that cannot be pulled, containers that cannot start: why.
    refused: HashMap<String, String>,
    /// Steps of these kinds are left without an answer.
    held: Vec<String>,
    /// The sandbox has broken down, and nobody has noticed yet.
    broken: bool,
    told: String,
    wake_at: Option<Timestamp>,
    last_status: String,
}

/// Plays `script` (a command a line) with a pod.
pub fn play(pod: &str, script: &str) -> String {
    let mut pod: Pod = serde_yaml::from_str(pod).unwrap();
    let meta = &mut pod.metadata;
    meta.namespace.get_or_insert_with(|| "ns".into());
    meta.name.get_or_insert_with(|| "web".into());
    meta.uid.get_or_insert_with(|| "u".into());
    let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    let mut story = Story {
        seen: PodOnNode::new(&pod, now),
        conditions: Conditions::default(),
        begin: now,
        now,
        refused: HashMap::new(),
        held: Vec::new(),
        broken: false,
        told: String::new(),
        wake_at: None,
        last_status: String::new(),
        pod,
    };
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        writeln!(story.told, "> {line}").unwrap();
        story.command(line);
        story.go();
    }
    story.told
}

impl Story {
    fn command(&mut self, line: &str) {
        let words: Vec<_> = line.split(' ').collect();
        match words.as_slice() {
            ["go"] => {}
            ["drains"] => self.seen.drains = true,
            ["wait", seconds] => {
                let end = self.now + SignedDuration::from_secs(seconds.parse().unwrap());
                while let Some(at) = self.wake_at.filter(|at| *at <= end && *at > self.now) {
                    self.now = at;
                    self.go();
                }
                self.now = end;
            }
            ["refuse", what, why @ ..] => drop(self.refused.insert((*what).into(), why.join(" "))),
            ["accept", what] => drop(self.refused.remove(*what)),
            ["break", "sandbox"] => self.broken = true,
            ["hold", step] => self.held.push((*step).into()),
            ["exit", name, code] => {
                let id = self.seen.container(name).unwrap().running.as_ref().unwrap().id.clone();
                let exit = self.exit(code.parse().unwrap());
                self.apply(Outcome::Exited { id, exit, message: None });
            }
            ["out"] => self.apply(Outcome::Withdrawn { container: None, late: None }),
            ["out", name] => self.apply(Outcome::Withdrawn { container: Some((*name).into()), late: None }),
            ["probe", name, kind, result @ ..] => {
                let kind = match *kind {
                    "startup" => Kind::Startup,
                    "liveness" => Kind::Liveness,
                    _ => Kind::Readiness,
                };
                let id = self.seen.container(name).unwrap().running.as_ref().unwrap().id.clone();
                let failure = (result != ["ok"]).then(|| result.join(" "));
                self.apply(Outcome::Probed { container: (*name).into(), id, kind, probed: Probed { failure } });
            }
            ["image", name, image] => {
                let spec = self.pod.spec.as_mut().unwrap();
                let container = spec.containers.iter_mut().find(|one| one.name == *name).unwrap();
                container.image = Some((*image).into());
                self.seen.follow(&self.pod);
            }
            ["new", "agent"] => self.new_agent(),
            ["delete", grace] => {
                let grace = grace.parse().unwrap();
                self.pod.metadata.deletion_grace_period_seconds = Some(grace);
                self.pod.metadata.deletion_timestamp = Some(Time(self.now + SignedDuration::from_secs(grace)));
            }
            ["gone"] => {
                self.seen.gone = true;
                self.seen.finished = false;
            }
            other => panic!("no such command: {other:?}"),
        }
    }

    /// Another agent knows what the API was told, and what the runtime runs.
    fn new_agent(&mut self) {
        let host = Host { ip: "10.0.0.1".into() };
        self.pod.status = Some(status(&self.pod, &self.seen, &host, &mut self.conditions, self.now));
        let running = self.seen.containers.iter().filter_map(|container| {
            let run = container.running.as_ref()?;
            Some(ContainerSeen { id: run.id.clone(), ..self.instance(container.name.clone(), run.attempt) })
        });
        let seen = PodSeen {
            uid: "u".into(),
            namespace: "ns".into(),
            name: "web".into(),
            ip: self.seen.ip,
            containers: running.collect(),
        };
        self.seen = PodOnNode::adopt(&self.pod, Some(&seen), self.now);
    }

    fn go(&mut self) {
        for _ in 0..50 {
            let planned = plan(&self.pod, &self.seen, self.now);
            self.wake_at = planned.wake_at;
            if planned.steps.is_empty() {
                return self.tell_status();
            }
            for step in planned.steps {
                let notes = self.seen.begin(&self.pod, &step, self.now);
                self.line(&in_words(&step, self.now));
                self.tell(notes);
                self.tell_status_if(&step);
                if !self.held.iter().any(|held| in_words(&step, self.now).starts_with(held.as_str())) {
                    self.answer(step);
                }
            }
        }
        panic!("the plan does not come to rest:\n{}", self.told);
    }

    /// A replaced container is "not ready" before anybody waits for the proxies.
    fn tell_status_if(&mut self, step: &Step) {
        if matches!(step, Step::Withdraw { container: Some(_), .. }) {
            self.tell_status();
        }
    }

    fn answer(&mut self, step: Step) {
        let outcome = match step {
            Step::PrepareVolumes => Outcome::VolumesReady,
            Step::StartSandbox => {
                self.broken = false;
                Outcome::SandboxReady("10.244.0.9".parse().unwrap())
            }
            Step::Pull { container, image, .. } => match self.refused.get(&image) {
                Some(why) => {
                    Outcome::PullFailed { container, image, kind: TroubleKind::ErrImagePull, message: why.clone() }
                }
                None => {
                    let seen = ImageSeen { id: format!("sha256:{image}"), size_bytes: 1 };
                    Outcome::Pulled { container, image, seen, took: None }
                }
            },
            Step::Start { .. } if self.broken => Outcome::SandboxFailed("the pod's shim is gone".into()),
            Step::Start { container, attempt } => match self.refused.get(&container) {
                Some(why) => Outcome::StartFailed { container, message: why.clone() },
                None => Outcome::Started(self.instance(container, attempt)),
            },
            Step::PostStart { container, id } => {
                let failure = self.refused.get("postStart").cloned();
                Outcome::PostStarted { container, id, failure }
            }
            Step::Withdraw { container, .. } => Outcome::Withdrawn { container, late: None },
            Step::Stop { id, .. } => Outcome::Exited { id, exit: self.exit(0), message: None },
            Step::StopSandbox => Outcome::SandboxStopped,
            Step::Finish | Step::Forget | Step::TellBackOff { .. } | Step::Fail(_) | Step::Leave { .. } => return,
        };
        self.apply(outcome);
    }

    fn instance(&self, name: String, attempt: u32) -> ContainerSeen {
        let image = self.seen.container(&name).unwrap().wanted_image.clone();
        ContainerSeen {
            id: format!("{name}{attempt}"),
            attempt,
            image_id: format!("sha256:{image}"),
            image,
            name,
            started_at_ms: self.now.as_millisecond(),
            exit: None,
        }
    }

    fn exit(&self, code: i32) -> Exit {
        Exit { code, signal: 0, oom_killed: false, finished_at_ms: self.now.as_millisecond() }
    }

    fn apply(&mut self, outcome: Outcome) {
        let notes = self.seen.apply(&self.pod, outcome, self.now);
        self.tell(notes);
    }

    fn line(&mut self, text: &str) {
        let at = self.now.duration_since(self.begin).as_secs();
        writeln!(self.told, "{at:>4} {text}").unwrap();
    }

    fn tell(&mut self, notes: Vec<Note>) {
        for note in notes {
            let kind = if note.warning { "Warning" } else { "Normal" };
            writeln!(self.told, "       {kind} {}: {}", note.reason, note.message).unwrap();
        }
    }

    fn tell_status(&mut self) {
        let host = Host { ip: "10.0.0.1".into() };
        let told = status(&self.pod, &self.seen, &host, &mut self.conditions, self.now);
        let mut text = format!("     = {}", told.phase.as_deref().unwrap_or_default());
        if let Some(reason) = &told.reason {
            write!(text, " ({reason})").unwrap();
        }
        let ready = told.conditions.iter().flatten().find(|condition| condition.type_ == "Ready").unwrap();
        write!(text, ", Ready {}", ready.status).unwrap();
        for one in told.init_container_statuses.iter().chain(&told.container_statuses).flatten() {
            write!(text, ", {} {}", one.name, state_in_words(one.state.as_ref().unwrap())).unwrap();
            if one.restart_count > 0 {
                write!(text, " x{}", one.restart_count).unwrap();
            }
            if let Some(last) = &one.last_state {
                write!(text, " after {}", state_in_words(last)).unwrap();
            }
            if one.ready {
                text.push_str(" ready");
            }
        }
        if text != self.last_status {
            writeln!(self.told, "{text}").unwrap();
            self.last_status = text;
        }
    }
}

fn state_in_words(state: &ContainerState) -> String {
    match (&state.running, &state.terminated, &state.waiting) {
        (Some(_), _, _) => "running".into(),
        (_, Some(ended), _) => format!("{} {}", ended.reason.as_deref().unwrap_or_default(), ended.exit_code),
        (_, _, Some(waiting)) => waiting.reason.clone().unwrap_or_default(),
        _ => String::new(),
    }
}

fn in_words(step: &Step, now: Timestamp) -> String {
    let left = |until: &Timestamp| format!("{}s", until.duration_since(now).as_secs());
    match step {
        Step::PrepareVolumes => "volumes".into(),
        Step::StartSandbox => "sandbox".into(),
        Step::Pull { image, .. } => format!("pull {image}"),
        Step::Start { container, attempt } => format!("start {container} {attempt}"),
        Step::PostStart { container, .. } => format!("postStart {container}"),
        Step::Withdraw { container, until } => {
            format!("withdraw {} within {}", container.as_deref().unwrap_or("pod"), left(until))
        }
        Step::Stop { id, until, .. } => format!("stop {id} within {}", left(until)),
        Step::TellBackOff { container } => format!("back off {container}"),
        Step::Fail(failure) => format!("fail {}", failure.reason),
        Step::Leave { until } => format!("leave within {}", left(until)),
        Step::StopSandbox => "stop sandbox".into(),
        Step::Finish => "finish".into(),
        Step::Forget => "forget".into(),
    }
}
