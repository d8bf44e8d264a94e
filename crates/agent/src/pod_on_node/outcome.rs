//! How what is known of a pod grows: a step begins, an outcome arrives, and events are worded.

use std::net::IpAddr;

use api::Pod;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Container;

use super::{
    BACK_OFF_FIRST_SECONDS, BACK_OFF_LONGEST_SECONDS, ContainerOnNode, Doing, Ended, Leaving, PodOnNode, Pulled,
    Running, Stage, Trouble, TroubleKind, Withdrawal, container_spec, from_milliseconds, pod_in_words,
};
use crate::{
    plan::{Step, Why},
    probes::{Kind, Probed, Probes, Verdict},
    runtime::{ContainerSeen, Exit, ImageSeen},
};

/// A container that ran this long starts with a clean record.
const BACK_OFF_RESET_SECONDS: i64 = 2 * BACK_OFF_LONGEST_SECONDS;
/// First wait after volumes or a sandbox could not be made, in seconds; doubled each time.
const SETUP_RETRY_FIRST_SECONDS: i64 = 1;
/// Longest such wait, in seconds.
const SETUP_RETRY_LONGEST_SECONDS: i64 = 120;

/// What came of a step, or happened by itself.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Volumes stand.
    VolumesReady,
    /// A volume could not be made: its name and why.
    VolumesFailed(String),
    /// The sandbox stands.
    SandboxReady(IpAddr),
    /// It could not be made, or what was to happen in it found that it has broken down.
    SandboxFailed(String),
    /// The image was not on the node; a registry is asked.
    PullBegan {
        /// Container it is for.
        container: String,
        /// Its reference.
        image: String,
    },
    /// The image is on the node.
    Pulled {
        /// Container it is for.
        container: String,
        /// Its reference.
        image: String,
        /// What is there.
        seen: ImageSeen,
        /// How long the pull took; `None`: it was there already.
        took: Option<SignedDuration>,
    },
    /// It cannot be had.
    PullFailed {
        /// Container it is for.
        container: String,
        /// Its reference.
        image: String,
        /// Which failure.
        kind: TroubleKind,
        /// Why.
        message: String,
    },
    /// A container runs.
    Started(ContainerSeen),
    /// It could not be configured; the attempt does not count.
    ConfigFailed {
        /// The container.
        container: String,
        /// Why.
        message: String,
    },
    /// It could not be started; the attempt counts.
    StartFailed {
        /// The container.
        container: String,
        /// Why.
        message: String,
    },
    /// The sandbox it was to start in is no longer there.
    SandboxLost,
    /// A postStart hook is over.
    PostStarted {
        /// The container.
        container: String,
        /// The instance.
        id: String,
        /// Why it failed, if it did.
        failure: Option<String>,
    },
    /// A preStop hook failed; stopping goes on.
    PreStopFailed {
        /// The container.
        container: String,
        /// Why.
        message: String,
    },
    /// No proxy sends to the pod any more; a late one is named by the message.
    Withdrawn {
        /// The container to be replaced; `None`: the pod leaves.
        container: Option<String>,
        /// Why waiting was given up.
        late: Option<String>,
    },
    /// An instance ended.
    Exited {
        /// Its id.
        id: String,
        /// How.
        exit: Exit,
        /// What it left as its last words.
        message: Option<String>,
    },
    /// A probe was made.
    Probed {
        /// The container.
        container: String,
        /// The instance.
        id: String,
        /// Which probe.
        kind: Kind,
        /// What it said.
        probed: Probed,
    },
    /// Nothing of the pod is left but its logs.
    SandboxStopped,
    /// The last status was written and the DELETE sent.
    Finished,
}

/// An event in the making.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// True: `Warning`, false: `Normal`.
    pub warning: bool,
    /// CamelCase.
    pub reason: &'static str,
    /// The sentence.
    pub message: String,
    /// The container it is about; `None`: the pod.
    pub container: Option<String>,
}

fn normal(container: &str, reason: &'static str, message: String) -> Note {
    Note { warning: false, reason, message, container: Some(container.to_owned()) }
}

fn warning(container: Option<&str>, reason: &'static str, message: String) -> Note {
    Note { warning: true, reason, message, container: container.map(str::to_owned) }
}

impl PodOnNode {
    /// Marks a step as begun and words its events.
    pub fn begin(&mut self, pod: &Pod, step: &Step, now: Timestamp) -> Vec<Note> {
        match step {
            Step::PrepareVolumes => self.volumes = doing(&self.volumes),
            Step::StartSandbox => self.sandbox = doing(&self.sandbox),
            Step::StopSandbox => self.sandbox = Stage::Doing(0),
            Step::Fail(failure) => {
                self.failure = Some(failure.clone());
                return vec![warning(None, failure_event(&failure.reason), failure.message.clone())];
            }
            Step::Leave { until } => self.leaving = Some(Leaving { until: *until }),
            Step::Withdraw { container: None, .. } => self.withdrawal = Withdrawal::Asked,
            Step::Withdraw { container: Some(name), .. } => {
                if let Some(container) = self.named(name) {
                    container.doing = Doing::Withdrawing;
                    container.withdrawn = true;
                }
            }
            Step::Pull { container, .. } => self.set_doing(container, Doing::Pulling),
            Step::Start { container, .. } => return self.begin_start(container),
            Step::PostStart { container, .. } => self.set_doing(container, Doing::PostStart),
            Step::Stop { container, why, until, .. } => return self.begin_stop(container, *why, *until),
            Step::TellBackOff { container } => return self.tell_back_off(pod, container, now),
            Step::Finish | Step::Forget => self.finished = true,
        }
        Vec::new()
    }

    fn set_doing(&mut self, name: &str, doing: Doing) {
        if let Some(container) = self.named(name) {
            container.doing = doing;
        }
    }

    /// Each start is told of the image that it is from, though it was on the node already.
    fn begin_start(&mut self, name: &str) -> Vec<Note> {
        let Some(container) = self.named(name) else { return Vec::new() };
        container.doing = Doing::Starting;
        let told = std::mem::take(&mut container.pull_told);
        let image = container.pulled.as_ref().filter(|_| !told).map(|pulled| &pulled.image);
        image.map(|image| normal(name, "Pulled", already_present(image))).into_iter().collect()
    }

    fn begin_stop(&mut self, name: &str, why: Why, until: Timestamp) -> Vec<Note> {
        let Some(container) = self.named(name) else { return Vec::new() };
        let again = matches!(container.doing, Doing::Stopping(_));
        container.doing = Doing::Stopping(until);
        if again { Vec::new() } else { vec![normal(name, "Killing", why.sentence(name))] }
    }

    fn tell_back_off(&mut self, pod: &Pod, name: &str, now: Timestamp) -> Vec<Note> {
        let whole = pod_in_words(pod);
        let Some(container) = self.named(name) else { return Vec::new() };
        let image = container.wanted_image.clone();
        if let Some(trouble) = &mut container.trouble
            && trouble.retry_at > now
        {
            trouble.told = true;
            return vec![
                normal(name, "BackOff", format!("Back-off pulling image \"{image}\"")),
                warning(Some(name), "Failed", "Error: ImagePullBackOff".into()),
            ];
        }
        container.back_off_told = true;
        vec![warning(Some(name), "BackOff", format!("Back-off restarting failed container {name} in pod {whole}"))]
    }

    /// Takes in what came of a step, and words its events.
    pub fn apply(&mut self, pod: &Pod, outcome: Outcome, now: Timestamp) -> Vec<Note> {
        match outcome {
            Outcome::VolumesReady => self.volumes = Stage::Done,
            Outcome::VolumesFailed(message) => {
                self.volumes = failed(&self.volumes, now);
                return vec![warning(None, "FailedMount", message)];
            }
            Outcome::SandboxReady(ip) => {
                self.ip = Some(ip);
                self.sandbox = Stage::Done;
            }
            Outcome::SandboxFailed(message) => return self.sandbox_failed(pod, &message, now),
            Outcome::SandboxLost => self.lose_sandbox(),
            Outcome::SandboxStopped => {
                self.sandbox = Stage::Removed;
                self.volumes = Stage::Removed;
            }
            Outcome::Withdrawn { container, late } => return self.withdrawn(container, late),
            Outcome::Finished => self.finished = true,
            Outcome::Exited { id, exit, message } => self.exited(pod, &id, exit, message, now),
            outcome => return self.apply_to_container(pod, outcome, now),
        }
        Vec::new()
    }

    /// It could not be made; or it stood and does not any more: then all begins again in another one.
    fn sandbox_failed(&mut self, pod: &Pod, message: &str, now: Timestamp) -> Vec<Note> {
        match self.sandbox {
            Stage::Done => {
                self.lose_sandbox();
                self.start_over(pod);
                self.sandbox = failed(&self.sandbox, now);
                let message = "Pod sandbox changed, it will be killed and re-created.";
                vec![Note { warning: false, reason: "SandboxChanged", message: message.into(), container: None }]
            }
            Stage::Doing(_) => {
                self.sandbox = failed(&self.sandbox, now);
                let message = format!("Failed to create pod sandbox: {message}");
                vec![warning(None, "FailedCreatePodSandBox", message)]
            }
            // Several were to start in it, and each tells.
            _ => Vec::new(),
        }
    }

    /// Containers that were to start in it start in the next one.
    fn lose_sandbox(&mut self) {
        self.sandbox = Stage::Todo;
        self.ip = None;
        for container in &mut self.containers {
            if container.doing == Doing::Starting {
                container.doing = Doing::Nothing;
            }
        }
    }

    fn withdrawn(&mut self, container: Option<String>, late: Option<String>) -> Vec<Note> {
        match &container {
            None => self.withdrawal = Withdrawal::Done,
            Some(name) => {
                if let Some(container) = self.named(name)
                    && container.doing == Doing::Withdrawing
                {
                    container.doing = Doing::Withdrawn;
                }
            }
        }
        late.map(|late| warning(None, "ProxyLate", late)).into_iter().collect()
    }

    fn exited(&mut self, pod: &Pod, id: &str, exit: Exit, message: Option<String>, now: Timestamp) {
        for container in &mut self.containers {
            if container.running.as_ref().is_some_and(|run| run.id == id) {
                let Some(run) = container.running.take() else { continue };
                let ran = now.duration_since(run.since).as_secs();
                let replaced = run.image != container.wanted_image;
                container.end(run, exit, message);
                if !replaced {
                    container.note_crash(ran, always_pulls(pod, &container.name));
                }
                return;
            }
        }
    }

    fn apply_to_container(&mut self, pod: &Pod, outcome: Outcome, now: Timestamp) -> Vec<Note> {
        match outcome {
            Outcome::PullBegan { container, image } => {
                vec![normal(&container, "Pulling", format!("Pulling image \"{image}\""))]
            }
            Outcome::Pulled { container, image, seen, took } => self.pulled(&container, image, seen, took),
            Outcome::PullFailed { container, image, kind, message } => {
                self.pull_failed(&container, &image, kind, message, now)
            }
            Outcome::Started(seen) => self.started(pod, seen),
            Outcome::ConfigFailed { container, message } => self.config_failed(&container, message, now),
            Outcome::StartFailed { container, message } => self.start_failed(&container, message, now),
            Outcome::PostStarted { container, id, failure } => self.post_started(&container, &id, failure),
            Outcome::PreStopFailed { container, message } => {
                vec![warning(Some(&container), "FailedPreStopHook", message)]
            }
            Outcome::Probed { container, id, kind, probed } => self.probed(pod, &container, &id, kind, probed, now),
            _ => Vec::new(),
        }
    }

    fn pulled(&mut self, name: &str, image: String, seen: ImageSeen, took: Option<SignedDuration>) -> Vec<Note> {
        let Some(container) = self.named(name) else { return Vec::new() };
        container.end_of(Doing::Pulling);
        container.pull_told = true;
        let message = match took {
            None => already_present(&image),
            Some(took) => {
                let took = seconds_in_words(took);
                let size = seen.size_bytes;
                format!(
                    "Successfully pulled image \"{image}\" in {took} ({took} including waiting). Image size: {size} bytes."
                )
            }
        };
        if container.wanted_image == image {
            container.trouble = None;
            container.pulled = Some(Pulled { image, id: seen.id });
        }
        vec![normal(name, "Pulled", message)]
    }

    fn pull_failed(
        &mut self,
        name: &str,
        image: &str,
        kind: TroubleKind,
        message: String,
        now: Timestamp,
    ) -> Vec<Note> {
        let Some(container) = self.named(name) else { return Vec::new() };
        container.end_of(Doing::Pulling);
        if container.wanted_image != image {
            return Vec::new();
        }
        let (first, message) = match kind {
            TroubleKind::InvalidImageName => {
                let sentence = format!("Failed to apply default image tag \"{image}\": {message}");
                (warning(Some(name), "InspectFailed", sentence.clone()), sentence)
            }
            TroubleKind::ErrImageNeverPull => {
                let sentence = format!("Container image \"{image}\" is not present with pull policy of Never");
                (warning(Some(name), "ErrImageNeverPull", sentence.clone()), sentence)
            }
            _ => (warning(Some(name), "Failed", format!("Failed to pull image \"{image}\": {message}")), message),
        };
        container.fail(kind, message, now);
        vec![first, warning(Some(name), "Failed", format!("Error: {}", kind.reason()))]
    }

    fn started(&mut self, pod: &Pod, seen: ContainerSeen) -> Vec<Note> {
        let Some(spec) = container_spec(pod, &seen.name) else { return Vec::new() };
        let Some(container) = self.containers.iter_mut().find(|container| container.name == seen.name) else {
            return Vec::new();
        };
        container.end_of(Doing::Starting);
        let name = seen.name.clone();
        container.run(spec, seen);
        vec![
            normal(&name, "Created", format!("Created container: {name}")),
            normal(&name, "Started", format!("Started container {name}")),
        ]
    }

    fn config_failed(&mut self, name: &str, message: String, now: Timestamp) -> Vec<Note> {
        let Some(container) = self.named(name) else { return Vec::new() };
        container.end_of(Doing::Starting);
        container.fail(TroubleKind::CreateContainerConfigError, message.clone(), now);
        // The kubelet tries again at each sync, every ten seconds, without backing off.
        if let Some(trouble) = &mut container.trouble {
            trouble.wait_seconds = BACK_OFF_FIRST_SECONDS;
            trouble.retry_at = now + SignedDuration::from_secs(BACK_OFF_FIRST_SECONDS);
        }
        vec![warning(Some(name), "Failed", format!("Error: {message}"))]
    }

    fn start_failed(&mut self, name: &str, message: String, now: Timestamp) -> Vec<Note> {
        let Some(container) = self.named(name) else { return Vec::new() };
        container.end_of(Doing::Starting);
        container.end_as(Ended {
            id: String::new(),
            attempt: container.attempts,
            image: container.wanted_image.clone(),
            image_id: container.pulled.as_ref().map(|pulled| pulled.id.clone()).unwrap_or_default(),
            reason: "StartError".into(),
            message: Some(message.clone()),
            code: 128,
            signal: 0,
            started_at: Timestamp::UNIX_EPOCH,
            finished_at: now,
        });
        container.attempts += 1;
        container.note_crash(0, false);
        vec![warning(Some(name), "Failed", format!("Error: {message}"))]
    }

    fn post_started(&mut self, name: &str, id: &str, failure: Option<String>) -> Vec<Note> {
        let Some(container) = self.named(name) else { return Vec::new() };
        container.end_of(Doing::PostStart);
        let Some(run) = container.running.as_mut().filter(|run| run.id == id) else { return Vec::new() };
        let Some(failure) = failure else {
            run.post_started = true;
            return Vec::new();
        };
        run.doomed = Some(Why::PostStartFailed);
        vec![warning(Some(name), "FailedPostStartHook", failure)]
    }

    fn probed(&mut self, pod: &Pod, name: &str, id: &str, kind: Kind, probed: Probed, now: Timestamp) -> Vec<Note> {
        let Some(spec) = container_spec(pod, name) else { return Vec::new() };
        let Some(container) = self.named(name) else { return Vec::new() };
        let Some(run) = container.running.as_mut().filter(|run| run.id == id) else { return Vec::new() };
        let Some(probes) = &mut container.probes else { return Vec::new() };
        // That a container does not listen yet is no news.
        let news = probed.failure.as_ref().filter(|_| kind != Kind::Listening);
        let note =
            news.map(|failure| warning(Some(name), "Unhealthy", format!("{} probe failed: {failure}", kind.word())));
        match probes.observe(spec, kind, probed.failure.is_none(), now) {
            Some(Verdict::Kill) => {
                run.doomed.get_or_insert(match kind {
                    Kind::Startup => Why::StartupFailed,
                    _ => Why::LivenessFailed,
                });
            }
            Some(Verdict::Changed) | None => {}
        }
        note.into_iter().collect()
    }
}

fn already_present(image: &str) -> String {
    format!("Container image \"{image}\" already present on machine")
}

impl ContainerOnNode {
    fn end_of(&mut self, doing: Doing) {
        if self.doing == doing {
            self.doing = Doing::Nothing;
        }
    }

    fn fail(&mut self, kind: TroubleKind, message: String, now: Timestamp) {
        let before = self.trouble.as_ref().map_or(0, |trouble| trouble.wait_seconds);
        let wait_seconds = next_back_off(before);
        let retry_at = now + SignedDuration::from_secs(wait_seconds);
        self.trouble = Some(Trouble { kind, message, since: now, retry_at, wait_seconds, told: false });
    }

    fn run(&mut self, spec: &Container, seen: ContainerSeen) {
        self.trouble = None;
        self.withdrawn = false;
        self.back_off_told = false;
        self.attempts = self.attempts.max(seen.attempt + 1);
        self.probes = Probes::of(spec);
        self.running = Some(Running {
            id: seen.id,
            attempt: seen.attempt,
            image: seen.image,
            image_id: seen.image_id,
            since: from_milliseconds(seen.started_at_ms),
            post_started: spec.lifecycle.as_ref().is_none_or(|lifecycle| lifecycle.post_start.is_none()),
            doomed: None,
        });
        if let Some(exit) = seen.exit
            && let Some(run) = self.running.take()
        {
            self.end(run, exit, None);
        }
    }

    pub(super) fn end(&mut self, run: Running, exit: Exit, message: Option<String>) {
        self.doing = Doing::Nothing;
        let reason = match exit {
            Exit { oom_killed: true, .. } => "OOMKilled",
            Exit { code: 0, .. } => "Completed",
            _ => "Error",
        };
        self.end_as(Ended {
            id: run.id,
            attempt: run.attempt,
            image: run.image,
            image_id: run.image_id,
            reason: reason.into(),
            message,
            code: exit.code,
            signal: exit.signal,
            started_at: run.since,
            finished_at: from_milliseconds(exit.finished_at_ms),
        });
    }

    pub(super) fn end_as(&mut self, ended: Ended) {
        self.before_last = self.last.replace(ended).map(Box::new);
    }

    /// Back-off as `flowcontrol.Backoff` keeps it for the kubelet: the first restart is at once, the second waits
    /// ten seconds, and so on; a good long run clears the record.
    fn note_crash(&mut self, ran_seconds: i64, forget_image: bool) {
        let second = self.attempts > 1;
        self.back_off_seconds = match ran_seconds >= BACK_OFF_RESET_SECONDS {
            true => 0,
            false if second => next_back_off(self.back_off_seconds),
            false => 0,
        };
        self.back_off_told = false;
        if forget_image {
            self.pulled = None;
        }
    }
}

/// Whether its image is asked for again before each start.
fn always_pulls(pod: &Pod, name: &str) -> bool {
    container_spec(pod, name).is_some_and(|spec| spec.image_pull_policy.as_deref() == Some("Always"))
}

fn next_back_off(seconds: i64) -> i64 {
    (seconds * 2).clamp(BACK_OFF_FIRST_SECONDS, BACK_OFF_LONGEST_SECONDS)
}

fn doing(stage: &Stage) -> Stage {
    match stage {
        Stage::Failed { times, .. } => Stage::Doing(*times),
        _ => Stage::Doing(0),
    }
}

fn failed(stage: &Stage, now: Timestamp) -> Stage {
    let times = match stage {
        Stage::Doing(times) => times + 1,
        _ => 1,
    };
    let doubled = SETUP_RETRY_FIRST_SECONDS << (times - 1).min(10);
    let wait = doubled.min(SETUP_RETRY_LONGEST_SECONDS);
    Stage::Failed { retry_at: now + SignedDuration::from_secs(wait), times }
}

fn failure_event(reason: &str) -> &'static str {
    match reason {
        "DeadlineExceeded" => "DeadlineExceeded",
        "NodePorts" => "NodePorts",
        "OutOfcpu" => "OutOfcpu",
        "OutOfmemory" => "OutOfmemory",
        "OutOfpods" => "OutOfpods",
        _ => "Failed",
    }
}

/// As Go prints a duration rounded to milliseconds: `85ms`, `1.204s`, `1m2.5s`.
fn seconds_in_words(duration: SignedDuration) -> String {
    let milliseconds = duration.as_millis();
    if milliseconds < 1000 {
        return format!("{milliseconds}ms");
    }
    let minutes = milliseconds / 60_000;
    let seconds = format!("{:.3}", (milliseconds % 60_000) as f64 / 1000.0);
    let seconds = seconds.trim_end_matches('0').trim_end_matches('.');
    if minutes > 0 { format!("{minutes}m{seconds}s") } else { format!("{seconds}s") }
}
