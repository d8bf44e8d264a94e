//! What the node knows of one pod, and how that knowledge grows: a step begins, an outcome arrives.
//!
//! Pure values. [`crate::plan`] reads them to say what to do next, [`crate::status`] to say what the API is told; the
//! pod worker and the simulated nodes carry steps out and hand outcomes to [`PodOnNode::apply`]. Events are worded here,
//! as the kubelet words them (`pkg/kubelet/kuberuntime`, `pkg/kubelet/images/image_manager.go`, `events/event.go`).

use std::net::IpAddr;

use api::Pod;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{
    Container, ContainerStateRunning, ContainerStateTerminated, ContainerStatus, PodSpec,
};

use crate::{
    plan::{Step, Why},
    probes::{Kind, Probed, Probes, Verdict},
    runtime::{ContainerSeen, Exit, ImageSeen, PodSeen},
};

/// First wait after a failed pull or a second crash, in seconds; doubled each time.
pub const BACK_OFF_FIRST_SECONDS: i64 = 10;
/// Longest wait, in seconds.
pub const BACK_OFF_LONGEST_SECONDS: i64 = 300;
/// A container that ran this long starts with a clean record.
pub const BACK_OFF_RESET_SECONDS: i64 = 2 * BACK_OFF_LONGEST_SECONDS;
/// How long an error itself is shown before the status says that we back off.
pub const ERROR_SHOWN_SECONDS: i64 = 2;
/// First wait after volumes or a sandbox could not be made, in seconds; doubled each time.
const SETUP_RETRY_FIRST_SECONDS: i64 = 1;
/// Longest such wait, in seconds.
const SETUP_RETRY_LONGEST_SECONDS: i64 = 120;
/// Reason of an end that nobody saw.
const UNKNOWN: &str = "ContainerStatusUnknown";

/// Everything the node knows about one pod.
#[derive(Clone, Debug)]
pub struct PodOnNode {
    /// When the node first saw it: `status.startTime`.
    pub since: Timestamp,
    /// Why the pod as a whole has failed: refused at the door, deadline passed.
    pub failure: Option<Failure>,
    /// Its volumes.
    pub volumes: Stage,
    /// Its sandbox.
    pub sandbox: Stage,
    /// Its address, once the sandbox stands.
    pub ip: Option<IpAddr>,
    /// Init containers, then containers, in the order of the spec.
    pub containers: Vec<ContainerOnNode>,
    /// True: real traffic may reach it, so it is taken out of the service rules before it is stopped.
    pub drains: bool,
    /// Whether it was taken out of the rules because it leaves.
    pub withdrawal: Withdrawal,
    /// When its end began, and by when everything must have stopped.
    pub leaving: Option<Leaving>,
    /// The API object is gone: clean up and forget.
    pub gone: bool,
    /// The last write and the DELETE were sent.
    pub finished: bool,
}

/// Why a whole pod failed, as `status.reason` and `status.message` say it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// CamelCase.
    pub reason: String,
    /// A sentence.
    pub message: String,
}

impl Failure {
    /// A port of the node that the pod asks for is another's, in the kubelet's words.
    pub fn ports_taken() -> Failure {
        let message =
            "Pod was rejected: Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports";
        Failure { reason: "NodePorts".into(), message: message.into() }
    }
}

/// How far something that is made once per pod has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Not begun.
    Todo,
    /// Under way, after failing so often in a row.
    Doing(u32),
    /// Stands.
    Done,
    /// Failed; tried again at that time.
    Failed {
        /// Not before this.
        retry_at: Timestamp,
        /// How often in a row.
        times: u32,
    },
    /// Taken down.
    Removed,
}

/// How far taking a leaving pod out of the service rules has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Withdrawal {
    /// Not asked for.
    No,
    /// Waiting for the proxies.
    Asked,
    /// No request is sent to it any more.
    Done,
}

/// The end of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaving {
    /// When containers are killed if they have not stopped by themselves.
    pub until: Timestamp,
}

/// Everything the node knows about one container of a pod.
#[derive(Clone, Debug)]
pub struct ContainerOnNode {
    /// Name within the pod.
    pub name: String,
    /// Image the spec asks for: a change clears what was learnt about the old one.
    pub wanted_image: String,
    /// What is being done to it.
    pub doing: Doing,
    /// Its running instance is about to be replaced: it must get no more requests, until the next one is ready.
    pub withdrawn: bool,
    /// Image that was made sure of for the next start.
    pub pulled: Option<Pulled>,
    /// It was told since the last start that the image is there.
    pub pull_told: bool,
    /// Why it cannot start at the moment.
    pub trouble: Option<Trouble>,
    /// The running instance.
    pub running: Option<Running>,
    /// How the last instance ended.
    pub last: Option<Ended>,
    /// How the one before it ended.
    pub before_last: Option<Box<Ended>>,
    /// Instances so far, failed starts included.
    pub attempts: u32,
    /// Wait before the next restart, in seconds; 0: none yet.
    pub back_off_seconds: i64,
    /// The back-off was reported for the present wait.
    pub back_off_told: bool,
    /// Probe results of the running instance; none without probes.
    pub probes: Option<Box<Probes>>,
}

/// An image on the node that a container can be started from.
#[derive(Clone, Debug)]
pub struct Pulled {
    /// As the pod names it.
    pub image: String,
    /// Its id.
    pub id: String,
}

/// What is being done to a container just now; nothing else is begun meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doing {
    /// Nothing.
    Nothing,
    /// Its image is made sure of.
    Pulling,
    /// It is started.
    Starting,
    /// Its postStart hook runs.
    PostStart,
    /// The pod is taken out of the service rules, so that this container can be replaced.
    Withdrawing,
    /// That has happened.
    Withdrawn,
    /// It is stopped, by this time at the latest.
    Stopping(Timestamp),
}

/// Why a container waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// What failed.
    pub kind: TroubleKind,
    /// The error in words.
    pub message: String,
    /// Since when.
    pub since: Timestamp,
    /// Next attempt.
    pub retry_at: Timestamp,
    /// How long that wait is, in seconds.
    pub wait_seconds: i64,
    /// The back-off was reported.
    pub told: bool,
}

/// Kinds of [`Trouble`]; their names are the kubelet's waiting reasons.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TroubleKind {
    /// The image cannot be pulled.
    ErrImagePull,
    /// The image's name cannot be a reference.
    InvalidImageName,
    /// `imagePullPolicy: Never`, and it is not here.
    ErrImageNeverPull,
    /// Environment, mounts or rights cannot be made.
    CreateContainerConfigError,
}

impl TroubleKind {
    /// The waiting reason.
    pub fn reason(self) -> &'static str {
        match self {
            TroubleKind::ErrImagePull => "ErrImagePull",
            TroubleKind::InvalidImageName => "InvalidImageName",
            TroubleKind::ErrImageNeverPull => "ErrImageNeverPull",
            TroubleKind::CreateContainerConfigError => "CreateContainerConfigError",
        }
    }
}

/// A running container instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Running {
    /// Its id.
    pub id: String,
    /// Number of starts before it.
    pub attempt: u32,
    /// Image it runs, as the pod named it.
    pub image: String,
    /// Id of that image.
    pub image_id: String,
    /// Since when.
    pub since: Timestamp,
    /// Its postStart hook is over (or there is none).
    pub post_started: bool,
    /// Why it must be stopped and started again.
    pub doomed: Option<Why>,
}

/// An instance that ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Its id; empty when it never came to be.
    pub id: String,
    /// Number of starts before it.
    pub attempt: u32,
    /// Image it ran.
    pub image: String,
    /// Id of that image.
    pub image_id: String,
    /// `Completed`, `Error`, `OOMKilled`, `StartError` …
    pub reason: String,
    /// Termination message.
    pub message: Option<String>,
    /// Exit code.
    pub code: i32,
    /// Signal, 0 if none.
    pub signal: i32,
    /// From when.
    pub started_at: Timestamp,
    /// To when.
    pub finished_at: Timestamp,
}

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
    /// A pod that the node sees for the first time.
    pub fn new(pod: &Pod, now: Timestamp) -> PodOnNode {
        let spec = pod.spec.as_deref();
        PodOnNode {
            since: now,
            failure: None,
            volumes: Stage::Todo,
            sandbox: Stage::Todo,
            ip: None,
            containers: spec.into_iter().flat_map(all_containers).map(ContainerOnNode::new).collect(),
            drains: false,
            withdrawal: Withdrawal::No,
            leaving: None,
            gone: false,
            finished: false,
        }
    }

    /// A pod that was known before the agent started: what the API was told, and what really runs.
    pub fn adopt(pod: &Pod, seen: Option<&PodSeen>, now: Timestamp) -> PodOnNode {
        let mut known = PodOnNode::new(pod, now);
        let Some(status) = &pod.status else { return known };
        known.since = status.start_time.as_ref().map_or(now, |time| time.0);
        if status.phase.as_deref() == Some("Failed")
            && let Some(reason) = &status.reason
        {
            known.failure =
                Some(Failure { reason: reason.clone(), message: status.message.clone().unwrap_or_default() });
        }
        let told = status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
        for told in told {
            if let Some(container) = known.containers.iter_mut().find(|container| container.name == told.name) {
                container.remember(told, now);
            }
        }
        match seen {
            Some(seen) => known.match_runtime(seen),
            None => known.start_over(pod),
        }
        known
    }

    fn match_runtime(&mut self, seen: &PodSeen) {
        if let Some(ip) = seen.ip {
            self.ip = Some(ip);
            self.sandbox = Stage::Done;
        }
        for instance in &seen.containers {
            if let Some(container) = self.containers.iter_mut().find(|container| container.name == instance.name) {
                container.match_instance(instance);
            }
        }
    }

    /// The node was rebooted, or the sandbox is another one: init containers run again, unless the pod had come to its end.
    fn start_over(&mut self, pod: &Pod) {
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        if matches!(phase, Some("Succeeded" | "Failed")) {
            self.volumes = Stage::Removed;
            self.sandbox = Stage::Removed;
            return;
        }
        let init = pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten()).count();
        for container in self.containers.iter_mut().take(init) {
            container.last = None;
            container.before_last = None;
        }
    }

    /// Follows a change of the spec: a new image gets a clean record.
    pub fn follow(&mut self, pod: &Pod) {
        for spec in pod.spec.as_deref().into_iter().flat_map(all_containers) {
            let image = spec.image.as_deref().unwrap_or_default();
            if let Some(container) = self.containers.iter_mut().find(|container| container.name == spec.name)
                && container.wanted_image != image
            {
                container.wanted_image = image.to_owned();
                container.pulled = None;
                container.trouble = None;
                container.back_off_seconds = 0;
                container.back_off_told = false;
                container.stay_if_undone();
            }
        }
    }

    /// The container of that name.
    pub fn container(&self, name: &str) -> Option<&ContainerOnNode> {
        self.containers.iter().find(|container| container.name == name)
    }

    fn named(&mut self, name: &str) -> Option<&mut ContainerOnNode> {
        self.containers.iter_mut().find(|container| container.name == name)
    }

    /// True while anything runs or is being started.
    pub fn busy(&self) -> bool {
        self.containers.iter().any(|container| container.running.is_some() || container.doing == Doing::Starting)
    }

    /// True once a pod that had to leave has nothing left that runs.
    pub fn over(&self) -> bool {
        self.leaving.is_some() && !self.busy() && matches!(self.sandbox, Stage::Todo | Stage::Removed)
    }

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

    /// True while a container is being started.
    pub fn is_starting(&self) -> bool {
        self.containers.iter().any(|container| container.doing == Doing::Starting)
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
    fn new(spec: &Container) -> ContainerOnNode {
        ContainerOnNode {
            name: spec.name.clone(),
            wanted_image: spec.image.clone().unwrap_or_default(),
            doing: Doing::Nothing,
            withdrawn: false,
            pulled: None,
            trouble: None,
            running: None,
            last: None,
            before_last: None,
            attempts: 0,
            back_off_seconds: 0,
            pull_told: false,
            back_off_told: false,
            probes: Probes::of(spec),
        }
    }

    /// Startup probe passed, or none.
    pub fn started(&self) -> bool {
        self.running.is_some() && self.probes.as_ref().is_none_or(|probes| probes.started())
    }

    /// May get requests.
    pub fn ready(&self) -> bool {
        self.started()
            && !self.withdrawn
            && self.running.as_ref().is_some_and(|run| run.post_started)
            && self.probes.as_ref().is_none_or(|probes| probes.ready())
    }

    /// The change of its image was taken back before it was stopped.
    fn stay_if_undone(&mut self) {
        let undone = self.running.as_ref().is_some_and(|run| run.image == self.wanted_image);
        if undone && matches!(self.doing, Doing::Withdrawing | Doing::Withdrawn) {
            self.doing = Doing::Nothing;
            self.withdrawn = false;
        }
    }

    /// When it may be started again after its last end.
    pub fn restart_at(&self) -> Option<Timestamp> {
        let last = self.last.as_ref()?;
        Some(last.finished_at + SignedDuration::from_secs(self.back_off_seconds))
    }

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

    fn end(&mut self, run: Running, exit: Exit, message: Option<String>) {
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

    fn end_as(&mut self, ended: Ended) {
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

    /// Takes over what an earlier agent told the API.
    fn remember(&mut self, told: &ContainerStatus, now: Timestamp) {
        let restarts = u32::try_from(told.restart_count).unwrap_or(0);
        let state = told.state.clone().unwrap_or_default();
        let last = told.last_state.as_ref().and_then(|last| last.terminated.as_ref());
        // The state, if it is one of an instance, is of the one that was started last.
        let attempt = if state.waiting.is_some() { restarts } else { restarts.saturating_sub(1) };
        self.last = last.map(|last| remembered(told, last, attempt, now));
        if let Some(ended) = &state.terminated {
            self.end_as(remembered(told, ended, restarts, now));
        }
        if let Some(running) = &state.running {
            self.end_as(unknown(told, running, restarts, now));
        }
        if self.last.is_some() || restarts > 0 {
            self.attempts = restarts + 1;
        }
        if state.waiting.is_some_and(|waiting| waiting.reason.as_deref() == Some("CrashLoopBackOff")) {
            // The length of the wait is not in the status, but the number of waits is.
            let doubled = BACK_OFF_FIRST_SECONDS << restarts.saturating_sub(1).min(8);
            self.back_off_seconds = doubled.min(BACK_OFF_LONGEST_SECONDS);
            self.back_off_told = true;
        }
    }

    /// Takes over an instance that the runtime knows; they come oldest first.
    fn match_instance(&mut self, seen: &ContainerSeen) {
        self.attempts = self.attempts.max(seen.attempt + 1);
        let guessed = |last: &Ended| last.id == seen.id && last.reason == UNKNOWN;
        if self.last.as_ref().is_some_and(guessed) {
            self.last = self.before_last.take().map(|before| *before);
        }
        let run = Running {
            id: seen.id.clone(),
            attempt: seen.attempt,
            image: seen.image.clone(),
            image_id: seen.image_id.clone(),
            since: from_milliseconds(seen.started_at_ms),
            // A hook that was under way when the agent stopped is not run twice.
            post_started: true,
            doomed: None,
        };
        let newer = |last: &Ended| last.attempt <= seen.attempt && last.id != seen.id;
        match &seen.exit {
            None => self.running = Some(run),
            Some(exit) if self.last.as_ref().is_none_or(newer) => self.end(run, exit.clone(), None),
            Some(_) => {}
        }
    }
}

/// An end that the API was told of.
fn remembered(told: &ContainerStatus, ended: &ContainerStateTerminated, attempt: u32, now: Timestamp) -> Ended {
    Ended {
        id: crate::status::bare_id(ended.container_id.as_deref().unwrap_or_default()).to_owned(),
        attempt,
        image: told.image.clone(),
        image_id: told.image_id.clone(),
        reason: ended.reason.clone().unwrap_or_default(),
        message: ended.message.clone(),
        code: ended.exit_code,
        signal: ended.signal.unwrap_or(0),
        started_at: ended.started_at.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0),
        finished_at: ended.finished_at.as_ref().map_or(now, |time| time.0),
    }
}

/// The end of an instance that ran when the API was told last: it holds unless the runtime knows better.
fn unknown(told: &ContainerStatus, running: &ContainerStateRunning, attempt: u32, now: Timestamp) -> Ended {
    Ended {
        id: crate::status::bare_id(told.container_id.as_deref().unwrap_or_default()).to_owned(),
        attempt,
        image: told.image.clone(),
        image_id: told.image_id.clone(),
        reason: UNKNOWN.into(),
        message: Some("The container could not be located when the pod was terminated".into()),
        code: 137,
        signal: 0,
        started_at: running.started_at.as_ref().map_or(now, |time| time.0),
        finished_at: now,
    }
}

/// Init containers, then containers.
pub fn all_containers(spec: &PodSpec) -> impl Iterator<Item = &Container> {
    spec.init_containers.iter().flatten().chain(&spec.containers)
}

/// The container of that name, init containers included.
pub fn container_spec<'a>(pod: &'a Pod, name: &str) -> Option<&'a Container> {
    pod.spec.as_deref().into_iter().flat_map(all_containers).find(|container| container.name == name)
}

/// `name_namespace(uid)`, as the kubelet's messages name a pod.
pub fn pod_in_words(pod: &Pod) -> String {
    let part = |text: &Option<String>| text.clone().unwrap_or_default();
    let meta = &pod.metadata;
    format!("{}_{}({})", part(&meta.name), part(&meta.namespace), part(&meta.uid))
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

fn from_milliseconds(milliseconds: i64) -> Timestamp {
    Timestamp::from_millisecond(milliseconds).unwrap_or(Timestamp::UNIX_EPOCH)
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
