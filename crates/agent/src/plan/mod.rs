//! What to do next for one pod: the node's decision.
//!
//! Pure: [`plan`] looks at the pod as the API has it and at the pod as the node knows it, and names the steps to begin
//! now and the time to ask again. It never does anything; steps that are under way are marked in [`PodOnNode`], so that
//! asking twice is harmless. Mirrors `computePodActions` (`pkg/kubelet/kuberuntime/kuberuntime_manager.go`) and the
//! termination order of `pod_workers.go`, with two promises of our own: a container is replaced only once its new
//! image is on the node, and nothing that may get requests is asked to stop before it was taken out of the rules.

use api::Pod;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, PodSpec};

use crate::{
    pod_on_node::{ContainerOnNode, Doing, ERROR_SHOWN_SECONDS, Ended, Failure, Leaving, PodOnNode, Stage, Withdrawal},
    runtime::PullPolicy,
};

/// Longest wait for the proxies before a pod is stopped all the same.
pub const WITHDRAW_LONGEST_SECONDS: i64 = 10;
/// `terminationGracePeriodSeconds` where neither pod nor deletion names one.
pub const DEFAULT_GRACE_SECONDS: i64 = 30;

/// What to do now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodPlan {
    /// Steps to begin, all at once.
    pub steps: Vec<Step>,
    /// Ask again at this time even if nothing happens.
    pub wake_at: Option<Timestamp>,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Make the pod's volumes.
    PrepareVolumes,
    /// Make its sandbox.
    StartSandbox,
    /// Make sure of an image.
    Pull {
        /// For this container.
        container: String,
        /// The reference.
        image: String,
        /// Whether to ask a registry.
        policy: PullPolicy,
    },
    /// Start a container.
    Start {
        /// The container.
        container: String,
        /// Number of starts before.
        attempt: u32,
    },
    /// Run its postStart hook.
    PostStart {
        /// The container.
        container: String,
        /// The instance.
        id: String,
    },
    /// Wait until no proxy sends requests to the pod.
    Withdraw {
        /// The container that is to be replaced; `None`: the pod leaves.
        container: Option<String>,
        /// Give up at this time.
        until: Timestamp,
    },
    /// Run the preStop hook, ask the container to stop, kill it when the time is over.
    Stop {
        /// The container.
        container: String,
        /// The instance.
        id: String,
        /// Why.
        why: Why,
        /// When it is killed.
        until: Timestamp,
    },
    /// Say that a pull or a restart is backed off.
    TellBackOff {
        /// The container.
        container: String,
    },
    /// The pod as a whole has failed.
    Fail(Failure),
    /// The pod's end begins; everything must have stopped by then.
    Leave {
        /// When containers are killed.
        until: Timestamp,
    },
    /// Take down the sandbox and the volumes.
    StopSandbox,
    /// Write the last status and let the API object go.
    Finish,
    /// The API object is gone: keep nothing.
    Forget,
}

/// Why a container is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The pod leaves, or has come to its end.
    PodEnds,
    /// Its image was changed.
    DefinitionChanged,
    /// Its liveness probe failed.
    LivenessFailed,
    /// Its startup probe failed.
    StartupFailed,
    /// Its postStart hook failed.
    PostStartFailed,
}

impl Why {
    /// The text of the `Killing` event.
    pub fn sentence(self, container: &str) -> String {
        match self {
            Why::PodEnds => format!("Stopping container {container}"),
            Why::DefinitionChanged => format!("Container {container} definition changed, will be restarted"),
            Why::LivenessFailed => format!("Container {container} failed liveness probe, will be restarted"),
            Why::StartupFailed => format!("Container {container} failed startup probe, will be restarted"),
            Why::PostStartFailed => format!("FailedPostStartHook: container {container} will be restarted"),
        }
    }
}

/// What a container is to its pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Runs to its end before the next one.
    Init,
    /// An init container that stays (`restartPolicy: Always`).
    Sidecar,
    /// One of `spec.containers`.
    App,
}

/// Containers with what they are to the pod, in the order they start.
pub fn roles(spec: &PodSpec) -> impl DoubleEndedIterator<Item = (Role, &Container)> {
    let init = spec.init_containers.iter().flatten().map(|container| {
        let stays = container.restart_policy.as_deref() == Some("Always");
        (if stays { Role::Sidecar } else { Role::Init }, container)
    });
    init.chain(spec.containers.iter().map(|container| (Role::App, container)))
}

/// What to do now for `pod`, of which the node knows `seen`.
pub fn plan(pod: &Pod, seen: &PodOnNode, now: Timestamp) -> PodPlan {
    let mut plan = PodPlan::default();
    let Some(spec) = &pod.spec else { return plan };
    if seen.finished {
        return plan;
    }
    if seen.gone || pod.metadata.deletion_timestamp.is_some() {
        leave(&mut plan, pod, spec, seen, now);
        return plan;
    }
    if seen.failure.is_some() || ended(spec, seen) {
        wind_down(&mut plan, spec, seen, now);
        return plan;
    }
    if let Some(at) = deadline(spec, seen) {
        if at <= now {
            plan.steps.push(Step::Fail(Failure {
                reason: "DeadlineExceeded".into(),
                message: "Pod was active on the node longer than the specified deadline".into(),
            }));
            return plan;
        }
        plan.wake_by(at);
    }
    come_up(&mut plan, spec, seen, now);
    plan
}

impl PodPlan {
    /// Asks to be planned again at `time` or earlier.
    pub fn wake_by(&mut self, time: Timestamp) {
        self.wake_at = Some(self.wake_at.map_or(time, |at| at.min(time)));
    }

    fn stage(&mut self, stage: &Stage, step: Step, now: Timestamp) -> bool {
        match stage {
            Stage::Todo => self.steps.push(step),
            Stage::Failed { retry_at, .. } if *retry_at <= now => self.steps.push(step),
            Stage::Failed { retry_at, .. } => self.wake_by(*retry_at),
            _ => {}
        }
        *stage == Stage::Done
    }
}

fn deadline(spec: &PodSpec, seen: &PodOnNode) -> Option<Timestamp> {
    let seconds = spec.active_deadline_seconds?;
    seen.since.checked_add(SignedDuration::from_secs(seconds)).ok()
}

// ---- coming up -----------------------------------------------------------------------------------------------------

fn come_up(plan: &mut PodPlan, spec: &PodSpec, seen: &PodOnNode, now: Timestamp) {
    let volumes = plan.stage(&seen.volumes, Step::PrepareVolumes, now);
    let sandbox = plan.stage(&seen.sandbox, Step::StartSandbox, now);
    let may_start = volumes && sandbox;
    for (role, container) in roles(spec) {
        let Some(known) = seen.container(&container.name) else { continue };
        if role == Role::Init && done_well(known) {
            continue;
        }
        keep(plan, Ask { spec, role, container, known, may_start, drains: seen.drains, now });
        let passed = role == Role::App || (role == Role::Sidecar && known.started() && hooked(known));
        if !passed {
            break;
        }
    }
}

fn done_well(known: &ContainerOnNode) -> bool {
    known.running.is_none() && known.last.as_ref().is_some_and(|last| last.code == 0)
}

fn hooked(known: &ContainerOnNode) -> bool {
    known.running.as_ref().is_some_and(|run| run.post_started)
}

/// All that the decision about one container looks at.
struct Ask<'a> {
    spec: &'a PodSpec,
    role: Role,
    container: &'a Container,
    known: &'a ContainerOnNode,
    may_start: bool,
    drains: bool,
    now: Timestamp,
}

/// Brings one container up and keeps it up.
fn keep(plan: &mut PodPlan, ask: Ask) {
    let known = ask.known;
    match (known.doing, &known.running) {
        (Doing::Withdrawn, Some(run)) => stop(plan, &ask, &run.id, Why::DefinitionChanged),
        (Doing::Nothing, Some(run)) => {
            if let Some(why) = run.doomed {
                stop(plan, &ask, &run.id, why);
            } else if run.image != known.wanted_image && ask.role != Role::Init {
                replace(plan, &ask, &run.id);
            } else if !run.post_started {
                plan.steps.push(Step::PostStart { container: known.name.clone(), id: run.id.clone() });
            }
        }
        (Doing::Nothing, None) => start(plan, &ask),
        _ => {}
    }
}

/// A changed image: the new one comes first, then the old container goes.
fn replace(plan: &mut PodPlan, ask: &Ask, id: &str) {
    if !image_at_hand(plan, ask) {
        return;
    }
    if ask.drains && ask.known.ready() {
        let until = ask.now + SignedDuration::from_secs(grace(ask).min(WITHDRAW_LONGEST_SECONDS));
        plan.steps.push(Step::Withdraw { container: Some(ask.known.name.clone()), until });
    } else {
        stop(plan, ask, id, Why::DefinitionChanged);
    }
}

fn stop(plan: &mut PodPlan, ask: &Ask, id: &str, why: Why) {
    let probe = match why {
        Why::LivenessFailed => ask.container.liveness_probe.as_ref(),
        Why::StartupFailed => ask.container.startup_probe.as_ref(),
        _ => None,
    };
    let own = probe.and_then(|probe| probe.termination_grace_period_seconds);
    let until = ask.now + SignedDuration::from_secs(own.unwrap_or_else(|| grace(ask)).max(0));
    plan.steps.push(Step::Stop { container: ask.known.name.clone(), id: id.to_owned(), why, until });
}

fn grace(ask: &Ask) -> i64 {
    ask.spec.termination_grace_period_seconds.unwrap_or(DEFAULT_GRACE_SECONDS).max(0)
}

fn start(plan: &mut PodPlan, ask: &Ask) {
    let known = ask.known;
    if known.last.as_ref().is_some_and(|last| !restarts(ask.spec, ask.role, ask.container, last)) {
        return;
    }
    if let Some(at) = known.restart_at()
        && at > ask.now
    {
        plan.wake_by(at);
        return tell_back_off(plan, ask, known.back_off_told, known.last.as_ref().map(|last| last.finished_at));
    }
    if image_at_hand(plan, ask) && ask.may_start {
        plan.steps.push(Step::Start { container: known.name.clone(), attempt: known.attempts });
    }
}

/// True when the image the container wants is on the node; otherwise it is asked for.
fn image_at_hand(plan: &mut PodPlan, ask: &Ask) -> bool {
    let known = ask.known;
    if let Some(trouble) = &known.trouble
        && trouble.retry_at > ask.now
    {
        plan.wake_by(trouble.retry_at);
        if trouble.kind == crate::pod_on_node::TroubleKind::ErrImagePull {
            tell_back_off(plan, ask, trouble.told, Some(trouble.since));
        }
        return false;
    }
    if known.pulled.as_ref().is_some_and(|pulled| pulled.image == known.wanted_image) {
        return true;
    }
    plan.steps.push(Step::Pull {
        container: known.name.clone(),
        image: known.wanted_image.clone(),
        policy: pull_policy(ask.container),
    });
    false
}

/// The error itself is shown for a moment; then the status speaks of back-off, with an event once per wait.
fn tell_back_off(plan: &mut PodPlan, ask: &Ask, told: bool, since: Option<Timestamp>) {
    let Some(since) = since.filter(|_| !told) else { return };
    let at = since + SignedDuration::from_secs(ERROR_SHOWN_SECONDS);
    if at <= ask.now {
        plan.steps.push(Step::TellBackOff { container: ask.known.name.clone() });
    } else {
        plan.wake_by(at);
    }
}

/// `imagePullPolicy`, with the API's default where it is missing.
pub fn pull_policy(container: &Container) -> PullPolicy {
    match container.image_pull_policy.as_deref() {
        Some("Always") => PullPolicy::Always,
        Some("Never") => PullPolicy::Never,
        _ => PullPolicy::IfNotPresent,
    }
}

/// Whether a container that ended so is started again (`ShouldContainerBeRestarted`).
pub fn restarts(spec: &PodSpec, role: Role, container: &Container, last: &Ended) -> bool {
    if role == Role::Sidecar {
        return true;
    }
    for rule in container.restart_policy_rules.iter().flatten() {
        if let Some(codes) = &rule.exit_codes {
            let listed = codes.values.iter().flatten().any(|code| *code == last.code);
            if listed == (codes.operator == "In") && rule.action == "Restart" {
                return true;
            }
        }
    }
    let of_pod = spec.restart_policy.as_deref().unwrap_or("Always");
    match container.restart_policy.as_deref().unwrap_or(of_pod) {
        "Never" => false,
        "OnFailure" => last.code != 0,
        _ => role == Role::App || last.code != 0,
    }
}

// ---- coming to its end by itself -----------------------------------------------------------------------------------

/// Every container has run for the last time, sidecars aside; or an init container failed for good.
pub fn ended(spec: &PodSpec, seen: &PodOnNode) -> bool {
    let for_good = |role: Role, container: &Container| {
        seen.container(&container.name).is_some_and(|known| {
            let last = known.last.as_ref().filter(|_| known.running.is_none() && known.doing != Doing::Starting);
            last.is_some_and(|last| !restarts(spec, role, container, last))
        })
    };
    let failed_init = roles(spec).any(|(role, container)| {
        role == Role::Init
            && for_good(role, container)
            && seen.container(&container.name).is_some_and(|known| !done_well(known))
    });
    failed_init || spec.containers.iter().all(|container| for_good(Role::App, container))
}

fn wind_down(plan: &mut PodPlan, spec: &PodSpec, seen: &PodOnNode, now: Timestamp) {
    let Some(Leaving { until }) = seen.leaving else {
        if seen.busy() || seen.sandbox != Stage::Removed {
            let seconds = spec.termination_grace_period_seconds.unwrap_or(DEFAULT_GRACE_SECONDS).max(0);
            plan.steps.push(Step::Leave { until: now + SignedDuration::from_secs(seconds) });
        }
        return;
    };
    if stop_all(plan, spec, seen, until) {
        take_down(plan, seen);
    }
}

// ---- leaving -------------------------------------------------------------------------------------------------------

fn leave(plan: &mut PodPlan, pod: &Pod, spec: &PodSpec, seen: &PodOnNode, now: Timestamp) {
    let until = now + SignedDuration::from_secs(leaving_grace(pod, spec));
    let until = match seen.leaving {
        // A second deletion may shorten what the first one granted, never lengthen it.
        Some(Leaving { until: granted }) if granted <= until => granted,
        _ => {
            plan.steps.push(Step::Leave { until });
            return;
        }
    };
    if seen.drains && !seen.gone && anything_ready(seen) && seen.withdrawal != Withdrawal::Done {
        if seen.withdrawal == Withdrawal::No {
            let give_up = until.min(now + SignedDuration::from_secs(WITHDRAW_LONGEST_SECONDS));
            plan.steps.push(Step::Withdraw { container: None, until: give_up });
            return;
        }
        if until > now {
            return;
        }
    }
    if stop_all(plan, spec, seen, until) && take_down(plan, seen) {
        plan.steps.push(if seen.gone { Step::Forget } else { Step::Finish });
    }
}

fn leaving_grace(pod: &Pod, spec: &PodSpec) -> i64 {
    let granted = pod.metadata.deletion_grace_period_seconds.or(spec.termination_grace_period_seconds);
    granted.unwrap_or(DEFAULT_GRACE_SECONDS).max(0)
}

fn anything_ready(seen: &PodOnNode) -> bool {
    seen.containers.iter().any(|container| container.running.is_some())
}

/// Stops containers together, then sidecars one by one, last started first. True when nothing runs.
fn stop_all(plan: &mut PodPlan, spec: &PodSpec, seen: &PodOnNode, until: Timestamp) -> bool {
    if seen.containers.iter().any(|container| container.doing == Doing::Starting) {
        return false;
    }
    let running = |container: &Container| {
        seen.container(&container.name).and_then(|known| known.running.as_ref().map(|run| (known, run)))
    };
    let mut first: Vec<_> = roles(spec)
        .filter(|(role, _)| *role != Role::Sidecar)
        .filter_map(|(_, container)| running(container))
        .collect();
    if first.is_empty() {
        let sidecars = roles(spec).rev().filter(|(role, _)| *role == Role::Sidecar);
        first.extend(sidecars.filter_map(|(_, container)| running(container)).next());
    }
    for (known, run) in &first {
        let already = matches!(known.doing, Doing::Stopping(by) if by <= until);
        if !already {
            let (container, id) = (known.name.clone(), run.id.clone());
            plan.steps.push(Step::Stop { container, id, why: Why::PodEnds, until });
        }
    }
    first.is_empty()
}

/// True when nothing is left of the sandbox.
fn take_down(plan: &mut PodPlan, seen: &PodOnNode) -> bool {
    match (&seen.sandbox, &seen.volumes) {
        (Stage::Removed, _) => true,
        (Stage::Todo, Stage::Todo) => true,
        (Stage::Doing(_), _) | (_, Stage::Doing(_)) => false,
        _ => {
            plan.steps.push(Step::StopSandbox);
            false
        }
    }
}

#[cfg(test)]
mod tests;
