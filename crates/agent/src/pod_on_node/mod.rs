//! What the node knows of one pod, and how that knowledge grows: a step begins, an outcome arrives.
//!
//! Pure values. [`crate::plan`] reads them to say what to do next, [`crate::status`] to say what the API is told; the
//! pod worker and the simulated nodes carry steps out and hand outcomes to [`PodOnNode::apply`]. Events are
//! worded as the kubelet words them (`pkg/kubelet/kuberuntime`, `pkg/kubelet/images/image_manager.go`, `events/event.go`).

mod adopted;
mod outcome;

pub use outcome::{Note, Outcome};

use std::net::IpAddr;

use api::Pod;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, PodSpec};

use crate::{plan::Why, probes::Probes};

/// First wait after a failed pull or a second crash, in seconds; doubled each time.
pub const BACK_OFF_FIRST_SECONDS: i64 = 10;
/// Longest wait, in seconds.
pub const BACK_OFF_LONGEST_SECONDS: i64 = 300;
/// How long an error itself is shown before the status says that we back off.
pub const ERROR_SHOWN_SECONDS: i64 = 2;

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

    /// True while a container is being started.
    pub fn is_starting(&self) -> bool {
        self.containers.iter().any(|container| container.doing == Doing::Starting)
    }
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

fn from_milliseconds(milliseconds: i64) -> Timestamp {
    Timestamp::from_millisecond(milliseconds).unwrap_or(Timestamp::UNIX_EPOCH)
}
