//! The status of a pod as the kubelet writes it, from what the node knows.
//!
//! Pure. Mirrors `getPhase`, `generateAPIPodStatus`, `convertToAPIContainerStatuses` (`pkg/kubelet/kubelet_pods.go`) and `pkg/kubelet/status/generate.go`.
//! Conditions that others own (readiness gates, `PodScheduled`, `DisruptionTarget`) are left to them; `qosClass` is the
//! API's. A transition time moves only when its condition does.

use api::Pod;
use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{
        Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
        ContainerStatus, HostIP, PodCondition, PodIP, PodSpec, PodStatus,
    },
    apimachinery::pkg::apis::meta::v1::Time,
};

use crate::{
    plan::{Role, restarts, roles},
    pod_on_node::{ContainerOnNode, ERROR_SHOWN_SECONDS, Ended, PodOnNode, Running, Stage, TroubleKind, pod_in_words},
};

/// Scheme of container ids in a status.
pub const ID_SCHEME: &str = "kapstan://";

/// A container id without its scheme.
pub fn bare_id(id: &str) -> &str {
    id.split_once("://").map_or(id, |(_, bare)| bare)
}

/// The conditions the node owns: what they say and since when, and whether a reason was given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conditions([Option<Settled>; 4]);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Settled {
    value: bool,
    since: Timestamp,
    /// A reason was given at some time, so that it has to be cleared where there is none now.
    reasoned: bool,
}

const OWNED: [&str; 4] = ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady"];

impl Conditions {
    /// What an earlier agent told the API.
    pub fn of(status: Option<&PodStatus>) -> Conditions {
        let told = |name: &str| {
            let conditions = status?.conditions.as_ref()?;
            let condition = conditions.iter().find(|condition| condition.type_ == name)?;
            let since = condition.last_transition_time.as_ref()?.0;
            Some(Settled { value: condition.status == "True", since, reasoned: condition.reason.is_some() })
        };
        Conditions(OWNED.map(told))
    }

    /// Whether the node says that the pod is ready.
    pub fn say_ready(&self) -> bool {
        let index = OWNED.iter().position(|name| *name == "Ready");
        index.and_then(|index| self.0[index]).is_some_and(|settled| settled.value)
    }

    /// Whether the API may hold a reason for the condition.
    pub fn had_reason(&self, name: &str) -> bool {
        let index = OWNED.iter().position(|other| *other == name);
        index.and_then(|index| self.0[index]).is_some_and(|settled| settled.reasoned)
    }

    fn settle(&mut self, index: usize, value: bool, reasoned: bool, now: Timestamp) -> Timestamp {
        let before = self.0[index];
        let since = before.filter(|before| before.value == value).map_or(now, |before| before.since);
        let reasoned = reasoned || before.is_some_and(|before| before.reasoned);
        self.0[index] = Some(Settled { value, since, reasoned });
        since
    }
}

/// Where the pod runs, for its status.
#[derive(Clone, Debug)]
pub struct Host {
    /// The node's address.
    pub ip: String,
}

/// The status of `pod`. `conditions` remembers transition times from one call to the next.
pub fn status(pod: &Pod, seen: &PodOnNode, host: &Host, conditions: &mut Conditions, now: Timestamp) -> PodStatus {
    let Some(spec) = &pod.spec else { return PodStatus::default() };
    let view = View { pod, spec, seen, now, initialized: initialized(spec, seen) };
    let init: Vec<_> = spec.init_containers.iter().flatten().collect();
    let statuses = |wanted: fn(Role) -> bool| -> Vec<ContainerStatus> {
        roles(spec).filter(|(role, _)| wanted(*role)).filter_map(|(role, one)| view.container(role, one)).collect()
    };
    let phase = phase(spec, seen);
    PodStatus {
        phase: Some(phase.to_owned()),
        conditions: Some(view.conditions(phase, conditions)),
        reason: seen.failure.as_ref().map(|failure| failure.reason.clone()),
        message: seen.failure.as_ref().map(|failure| failure.message.clone()),
        host_ip: Some(host.ip.clone()),
        host_ips: Some(vec![HostIP { ip: host.ip.clone() }]),
        pod_ip: seen.ip.map(|ip| ip.to_string()),
        pod_ips: seen.ip.map(|ip| vec![PodIP { ip: ip.to_string() }]),
        start_time: Some(Time(seen.since)),
        init_container_statuses: (!init.is_empty()).then(|| statuses(|role| role != Role::App)),
        container_statuses: let_in(seen).then(|| statuses(|role| role == Role::App)),
        observed_generation: pod.metadata.generation,
        ..PodStatus::default()
    }
}

/// A pod that was refused at the door has no container statuses at all.
fn let_in(seen: &PodOnNode) -> bool {
    seen.failure.is_none() || seen.containers.iter().any(|container| container.attempts > 0)
}

/// True if what the API was `told` of a pod is what `status` says. It is not when another wrote it, or when a write that
/// was late came after a newer one.
pub fn agrees(told: &PodStatus, status: &PodStatus) -> bool {
    let condition = |of: &PodStatus, name: &str| {
        let conditions = of.conditions.iter().flatten();
        conditions.into_iter().find(|it| it.type_ == name).map(|it| it.status.clone())
    };
    // Times are not compared: the API keeps whole seconds.
    let state = |it: &ContainerState| {
        let waits = it.waiting.as_ref().and_then(|waiting| waiting.reason.clone());
        (it.running.is_some(), it.terminated.is_some(), waits)
    };
    let container = |it: &ContainerStatus| {
        (it.name.clone(), it.ready, it.restart_count, it.container_id.clone(), it.state.as_ref().map(state))
    };
    let containers = |of: &PodStatus| {
        let all = of.init_container_statuses.iter().chain(&of.container_statuses).flatten();
        all.map(container).collect::<Vec<_>>()
    };
    told.phase == status.phase
        && told.pod_ip == status.pod_ip
        && OWNED.iter().all(|name| condition(told, name) == condition(status, name))
        && containers(told) == containers(status)
}

/// Every init container is through.
pub fn initialized(spec: &PodSpec, seen: &PodOnNode) -> bool {
    let app_ran = spec.containers.iter().any(|one| seen.container(&one.name).is_some_and(|known| known.attempts > 0));
    app_ran
        || roles(spec).filter(|(role, _)| *role != Role::App).all(|(role, one)| {
            seen.container(&one.name).is_some_and(|known| match role {
                Role::Sidecar => known.started(),
                _ => known.running.is_none() && known.last.as_ref().is_some_and(|last| last.code == 0),
            })
        })
}

/// `Pending`, `Running`, `Succeeded` or `Failed`.
pub fn phase(spec: &PodSpec, seen: &PodOnNode) -> &'static str {
    if seen.failure.is_some() {
        return "Failed";
    }
    let mut counts = Counts::default();
    for (role, container) in roles(spec) {
        if let Some(known) = seen.container(&container.name) {
            counts.add(spec, role, container, known);
        }
    }
    if counts.failed_init {
        return "Failed";
    }
    if seen.over() {
        // It leaves and nothing runs any more: how its containers ended is how it ended.
        return if counts.ended_well() { "Succeeded" } else { "Failed" };
    }
    if !initialized(spec, seen) || counts.waiting > 0 {
        return "Pending";
    }
    // What keeps running after the last container ended is only a sidecar on its way out.
    let (running, stopped) = (counts.running, counts.stopped);
    match () {
        () if running > 0 || counts.restarting > 0 || counts.sidecars > 0 => "Running",
        () if stopped > 0 && counts.ended_well() => "Succeeded",
        () if stopped > 0 => "Failed",
        () => "Pending",
    }
}

#[derive(Default)]
struct Counts {
    waiting: usize,
    running: usize,
    restarting: usize,
    stopped: usize,
    succeeded: usize,
    sidecars: usize,
    failed_init: bool,
}

impl Counts {
    fn add(&mut self, spec: &PodSpec, role: Role, container: &Container, known: &ContainerOnNode) {
        let ended = known.last.as_ref().filter(|_| known.running.is_none());
        match (role, ended) {
            (Role::Init, Some(last)) => self.failed_init |= last.code != 0 && !restarts(spec, role, container, last),
            (Role::Init, None) => {}
            (Role::Sidecar, _) => self.sidecars += usize::from(known.running.is_some()),
            (Role::App, None) if known.running.is_some() => self.running += 1,
            (Role::App, None) => self.waiting += 1,
            (Role::App, Some(last)) => {
                self.restarting += usize::from(restarts(spec, role, container, last));
                self.stopped += 1;
                self.succeeded += usize::from(last.code == 0);
            }
        }
    }

    fn ended_well(&self) -> bool {
        self.waiting == 0 && self.succeeded == self.stopped
    }
}

struct View<'a> {
    pod: &'a Pod,
    spec: &'a PodSpec,
    seen: &'a PodOnNode,
    now: Timestamp,
    initialized: bool,
}

impl View<'_> {
    fn container(&self, role: Role, spec: &Container) -> Option<ContainerStatus> {
        let known = self.seen.container(&spec.name)?;
        let image = || (known.wanted_image.clone(), String::new());
        let mut status = ContainerStatus {
            name: spec.name.clone(),
            started: Some(known.started()),
            ready: match role {
                Role::Init => known.running.is_none() && known.last.as_ref().is_some_and(|last| last.code == 0),
                _ => known.ready() && self.seen.failure.is_none(),
            },
            restart_count: known.attempts.saturating_sub(1).try_into().unwrap_or(i32::MAX),
            ..ContainerStatus::default()
        };
        let (last, before) = (known.last.as_ref(), known.before_last.as_deref());
        (status.image, status.image_id) = match (&known.running, last) {
            (Some(run), _) => (run.image.clone(), run.image_id.clone()),
            (None, Some(last)) => (last.image.clone(), last.image_id.clone()),
            (None, None) => image(),
        };
        let id = known.running.as_ref().map(|run| &run.id).or(last.map(|last| &last.id));
        status.container_id = id.filter(|id| !id.is_empty()).map(|id| format!("{ID_SCHEME}{id}"));
        match (&known.running, last) {
            (Some(run), _) => {
                status.state = Some(running(run));
                status.last_state = last.map(terminated);
            }
            (None, Some(last)) => match self.waits_to_restart(role, spec, known, last) {
                Some(waiting) => {
                    status.state = Some(waiting);
                    status.last_state = Some(terminated(last));
                }
                None => {
                    status.state = Some(terminated(last));
                    status.last_state = before.map(terminated);
                }
            },
            (None, None) => status.state = Some(self.waits_first(role, known)),
        }
        Some(status)
    }

    fn waits_first(&self, role: Role, known: &ContainerOnNode) -> ContainerState {
        match self.trouble(known) {
            Some(waiting) => waiting,
            None if role == Role::App && !self.initialized => waiting("PodInitializing", None),
            None if role == Role::Init => waiting("PodInitializing", None),
            None => waiting("ContainerCreating", None),
        }
    }

    fn trouble(&self, known: &ContainerOnNode) -> Option<ContainerState> {
        let trouble = known.trouble.as_ref()?;
        let shown = trouble.since + jiff::SignedDuration::from_secs(ERROR_SHOWN_SECONDS);
        let backs_off = trouble.kind == TroubleKind::ErrImagePull && (trouble.told || shown <= self.now);
        if backs_off {
            let message =
                format!("Back-off pulling image \"{}\": ErrImagePull: {}", known.wanted_image, trouble.message);
            return Some(waiting("ImagePullBackOff", Some(message)));
        }
        Some(waiting(trouble.kind.reason(), Some(trouble.message.clone())))
    }

    /// The waiting state of a container between two lives. `None` shows how the last one ended: that tells more than that
    /// the next one is being made (`convertToAPIContainerStatuses`: a reason to wait is one that was told).
    fn waits_to_restart(
        &self,
        role: Role,
        spec: &Container,
        known: &ContainerOnNode,
        last: &Ended,
    ) -> Option<ContainerState> {
        if self.pod.metadata.deletion_timestamp.is_some() || !restarts(self.spec, role, spec, last) {
            return None;
        }
        if let Some(trouble) = self.trouble(known) {
            return Some(trouble);
        }
        if known.back_off_told {
            let name = &spec.name;
            let wait = back_off_in_words(known.back_off_seconds);
            let message = format!("back-off {wait} restarting failed container={name} pod={}", pod_in_words(self.pod));
            return Some(waiting("CrashLoopBackOff", Some(message)));
        }
        (last.reason == "StartError").then(|| waiting("RunContainerError", last.message.clone()))
    }

    fn conditions(&self, phase: &str, known: &mut Conditions) -> Vec<PodCondition> {
        let completed = phase == "Succeeded" || phase == "Failed";
        let unready = self.unready();
        let containers_ready = match (completed, unready.is_empty()) {
            (true, _) => Says::no("PodCompleted", None),
            (false, true) => Says::yes(),
            (false, false) => {
                Says::no("ContainersNotReady", Some(format!("containers with unready status: [{}]", unready.join(" "))))
            }
        };
        let ready = if containers_ready.yes { self.gates() } else { containers_ready.clone() };
        let initialized = match (phase == "Succeeded", self.initialized) {
            (true, _) => Says { yes: true, reason: Some("PodCompleted"), message: None },
            (false, true) => Says::yes(),
            (false, false) => Says::no(
                "ContainersNotInitialized",
                Some(format!("containers with incomplete status: [{}]", self.incomplete().join(" "))),
            ),
        };
        let sandbox =
            Says { yes: self.seen.sandbox == Stage::Done && self.seen.ip.is_some(), reason: None, message: None };
        let all = [sandbox, initialized, ready, containers_ready];
        let mut index = 0;
        all.map(|says| {
            let since = known.settle(index, says.yes, says.reason.is_some(), self.now);
            index += 1;
            says.condition(OWNED[index - 1], since, self.pod.metadata.generation)
        })
        .into()
    }

    fn unready(&self) -> Vec<&str> {
        let counted = roles(self.spec).filter(|(role, _)| *role != Role::Init);
        let unready = counted.filter(|(_, one)| !self.seen.container(&one.name).is_some_and(ContainerOnNode::ready));
        unready.map(|(_, one)| one.name.as_str()).collect()
    }

    fn incomplete(&self) -> Vec<&str> {
        let init = roles(self.spec).filter(|(role, _)| *role != Role::App);
        let open = init.filter(|(role, one)| {
            !self.seen.container(&one.name).is_some_and(|known| match role {
                Role::Sidecar => known.started(),
                _ => known.last.as_ref().is_some_and(|last| last.code == 0),
            })
        });
        open.map(|(_, one)| one.name.as_str()).collect()
    }

    fn gates(&self) -> Says {
        let conditions = self.pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
        let mut messages = Vec::new();
        for gate in self.spec.readiness_gates.iter().flatten() {
            let name = &gate.condition_type;
            match conditions.iter().find(|condition| condition.type_ == *name) {
                None => {
                    messages.push(format!("corresponding condition of pod readiness gate \"{name}\" does not exist."))
                }
                Some(found) if found.status != "True" => messages
                    .push(format!("the status of pod readiness gate \"{name}\" is not \"True\", but {}", found.status)),
                Some(_) => {}
            }
        }
        if messages.is_empty() { Says::yes() } else { Says::no("ReadinessGatesNotReady", Some(messages.join(", "))) }
    }
}

#[derive(Clone)]
struct Says {
    yes: bool,
    reason: Option<&'static str>,
    message: Option<String>,
}

impl Says {
    fn yes() -> Says {
        Says { yes: true, reason: None, message: None }
    }

    fn no(reason: &'static str, message: Option<String>) -> Says {
        Says { yes: false, reason: Some(reason), message }
    }

    fn condition(self, name: &str, since: Timestamp, generation: Option<i64>) -> PodCondition {
        PodCondition {
            type_: name.to_owned(),
            status: if self.yes { "True" } else { "False" }.to_owned(),
            reason: self.reason.map(str::to_owned),
            message: self.message,
            last_transition_time: Some(Time(since)),
            observed_generation: generation,
            ..PodCondition::default()
        }
    }
}

fn waiting(reason: &str, message: Option<String>) -> ContainerState {
    let waiting = ContainerStateWaiting { reason: Some(reason.to_owned()), message };
    ContainerState { waiting: Some(waiting), ..ContainerState::default() }
}

fn running(run: &Running) -> ContainerState {
    let running = ContainerStateRunning { started_at: Some(Time(run.since)) };
    ContainerState { running: Some(running), ..ContainerState::default() }
}

fn terminated(last: &Ended) -> ContainerState {
    let terminated = ContainerStateTerminated {
        container_id: (!last.id.is_empty()).then(|| format!("{ID_SCHEME}{}", last.id)),
        exit_code: last.code,
        finished_at: Some(Time(last.finished_at)),
        message: last.message.clone(),
        reason: Some(last.reason.clone()),
        signal: (last.signal != 0).then_some(last.signal),
        started_at: Some(Time(last.started_at)),
    };
    ContainerState { terminated: Some(terminated), ..ContainerState::default() }
}

/// As Go prints whole seconds: `10s`, `1m20s`, `5m0s`.
fn back_off_in_words(seconds: i64) -> String {
    let (minutes, seconds) = (seconds / 60, seconds % 60);
    if minutes > 0 { format!("{minutes}m{seconds}s") } else { format!("{seconds}s") }
}
