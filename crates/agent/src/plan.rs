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
mod tests {
    use crate::story::play;
    use expect_test::{Expect, expect};

    fn check(pod: &str, script: &str, expected: Expect) {
        expected.assert_eq(&play(pod, script));
    }

    #[test]
    fn a_pod_comes_up_and_goes() {
        check(
            "spec: {containers: [{name: c, image: web:v1}]}",
            "go\n delete 30\n gone",
            expect![[r#"
            > go
               0 volumes
               0 sandbox
               0 pull web:v1
                   Normal Pulled: Container image "web:v1" already present on machine
               0 start c 0
                   Normal Created: Created container: c
                   Normal Started: Started container c
                 = Running, Ready True, c running ready
            > delete 30
               0 leave within 30s
               0 stop c0 within 30s
                   Normal Killing: Stopping container c
               0 stop sandbox
               0 finish
                 = Succeeded, Ready False, c Completed 0
            > gone
               0 forget
        "#]],
        );
    }

    #[test]
    fn an_image_that_is_not_there_backs_off() {
        check(
            "spec: {containers: [{name: c, image: web:v9}]}",
            "refuse web:v9 manifest unknown\n wait 45\n accept web:v9\n wait 40",
            expect![[r#"
                > refuse web:v9 manifest unknown
                   0 volumes
                   0 sandbox
                   0 pull web:v9
                       Warning Failed: Failed to pull image "web:v9": manifest unknown
                       Warning Failed: Error: ErrImagePull
                     = Pending, Ready False, c ErrImagePull
                > wait 45
                   2 back off c
                       Normal BackOff: Back-off pulling image "web:v9"
                       Warning Failed: Error: ImagePullBackOff
                     = Pending, Ready False, c ImagePullBackOff
                  10 pull web:v9
                       Warning Failed: Failed to pull image "web:v9": manifest unknown
                       Warning Failed: Error: ErrImagePull
                     = Pending, Ready False, c ErrImagePull
                  12 back off c
                       Normal BackOff: Back-off pulling image "web:v9"
                       Warning Failed: Error: ImagePullBackOff
                     = Pending, Ready False, c ImagePullBackOff
                  30 pull web:v9
                       Warning Failed: Failed to pull image "web:v9": manifest unknown
                       Warning Failed: Error: ErrImagePull
                     = Pending, Ready False, c ErrImagePull
                  32 back off c
                       Normal BackOff: Back-off pulling image "web:v9"
                       Warning Failed: Error: ImagePullBackOff
                     = Pending, Ready False, c ImagePullBackOff
                > accept web:v9
                > wait 40
                  70 pull web:v9
                       Normal Pulled: Container image "web:v9" already present on machine
                  70 start c 0
                       Normal Created: Created container: c
                       Normal Started: Started container c
                     = Running, Ready True, c running ready
            "#]],
        );
    }

    #[test]
    fn a_container_that_crashes_is_restarted_ever_later() {
        check(
            "spec: {containers: [{name: c, image: web:v1}]}",
            "go\n exit c 1\n exit c 1\n wait 10\n exit c 0\n wait 20\n wait 700\n exit c 1\n exit c 1\n wait 10",
            expect![[r#"
                > go
                   0 volumes
                   0 sandbox
                   0 pull web:v1
                       Normal Pulled: Container image "web:v1" already present on machine
                   0 start c 0
                       Normal Created: Created container: c
                       Normal Started: Started container c
                     = Running, Ready True, c running ready
                > exit c 1
                   0 start c 1
                       Normal Pulled: Container image "web:v1" already present on machine
                       Normal Created: Created container: c
                       Normal Started: Started container c
                     = Running, Ready True, c running x1 after Error 1 ready
                > exit c 1
                     = Running, Ready False, c Error 1 x1 after Error 1
                > wait 10
                   2 back off c
                       Warning BackOff: Back-off restarting failed container c in pod web_ns(u)
                     = Running, Ready False, c CrashLoopBackOff x1 after Error 1
                  10 start c 2
                       Normal Pulled: Container image "web:v1" already present on machine
                       Normal Created: Created container: c
                       Normal Started: Started container c
                     = Running, Ready True, c running x2 after Error 1 ready
                > exit c 0
                     = Running, Ready False, c Completed 0 x2 after Error 1
                > wait 20
                  12 back off c
                       Warning BackOff: Back-off restarting failed container c in pod web_ns(u)
                     = Running, Ready False, c CrashLoopBackOff x2 after Completed 0
                  30 start c 3
                       Normal Pulled: Container image "web:v1" already present on machine
                       Normal Created: Created container: c
                       Normal Started: Started container c
                     = Running, Ready True, c running x3 after Completed 0 ready
                > wait 700
                > exit c 1
                 730 start c 4
                       Normal Pulled: Container image "web:v1" already present on machine
                       Normal Created: Created container: c
                       Normal Started: Started container c
                     = Running, Ready True, c running x4 after Error 1 ready
                > exit c 1
                     = Running, Ready False, c Error 1 x4 after Error 1
                > wait 10
                 732 back off c
                       Warning BackOff: Back-off restarting failed container c in pod web_ns(u)
                     = Running, Ready False, c CrashLoopBackOff x4 after Error 1
                 740 start c 5
                       Normal Pulled: Container image "web:v1" already present on machine
                       Normal Created: Created container: c
                       Normal Started: Started container c
                     = Running, Ready True, c running x5 after Error 1 ready
            "#]],
        );
    }

    #[test]
    fn between_two_lives_a_container_shows_how_the_last_one_ended() {
        check(
            "spec: {containers: [{name: c, image: web:v1, imagePullPolicy: Always}]}",
            "go\n hold pull\n exit c 1",
            expect![[r#"
                > go
                   0 volumes
                   0 sandbox
                   0 pull web:v1
                       Normal Pulled: Container image "web:v1" already present on machine
                   0 start c 0
                       Normal Created: Created container: c
                       Normal Started: Started container c
                     = Running, Ready True, c running ready
                > hold pull
                > exit c 1
                   0 pull web:v1
                     = Running, Ready False, c Error 1
            "#]],
        );
        check(
            "spec: {containers: [{name: c, image: web:v1}]}",
            "go\n hold start\n exit c 0",
            expect![[r#"
            > go
               0 volumes
               0 sandbox
               0 pull web:v1
                   Normal Pulled: Container image "web:v1" already present on machine
               0 start c 0
                   Normal Created: Created container: c
                   Normal Started: Started container c
                 = Running, Ready True, c running ready
            > hold start
            > exit c 0
               0 start c 1
                   Normal Pulled: Container image "web:v1" already present on machine
                 = Running, Ready False, c Completed 0
        "#]],
        );
    }

    #[test]
    fn a_new_agent_remembers_how_containers_ended() {
        check(
            "spec: {containers: [{name: c, image: web:v1}, {name: d, image: web:v1}]}",
            "go\n exit c 1\n new agent\n exit c 2\n new agent\n wait 2\n new agent\n wait 20\n exit d 0\n new agent",
            expect![[r#"
                > go
                   0 volumes
                   0 sandbox
                   0 pull web:v1
                       Normal Pulled: Container image "web:v1" already present on machine
                   0 pull web:v1
                       Normal Pulled: Container image "web:v1" already present on machine
                   0 start c 0
                       Normal Created: Created container: c
                       Normal Started: Started container c
                   0 start d 0
                       Normal Created: Created container: d
                       Normal Started: Started container d
                     = Running, Ready True, c running ready, d running ready
                > exit c 1
                   0 start c 1
                       Normal Pulled: Container image "web:v1" already present on machine
                       Normal Created: Created container: c
                       Normal Started: Started container c
                     = Running, Ready True, c running x1 after Error 1 ready, d running ready
                > new agent
                   0 volumes
                > exit c 2
                     = Running, Ready False, c Error 2 x1 after Error 1, d running ready
                > new agent
                   0 volumes
                   0 pull web:v1
                       Normal Pulled: Container image "web:v1" already present on machine
                   0 start c 2
                       Normal Created: Created container: c
                       Normal Started: Started container c
                     = Running, Ready True, c running x2 after Error 2 ready, d running ready
                > wait 2
                > new agent
                   2 volumes
                > wait 20
                > exit d 0
                  22 pull web:v1
                       Normal Pulled: Container image "web:v1" already present on machine
                  22 start d 1
                       Normal Created: Created container: d
                       Normal Started: Started container d
                     = Running, Ready True, c running x2 after Error 2 ready, d running x1 after Completed 0 ready
                > new agent
                  22 volumes
            "#]],
        );
    }

    #[test]
    fn a_sandbox_that_breaks_down_is_made_again_and_all_begins_anew() {
        check(
            "spec: {initContainers: [{name: i, image: web:v1}], containers: [{name: c, image: web:v1}, {name: d, image: web:v1}]}",
            "go\n exit i 0\n break sandbox\n exit c 137\n exit d 137\n wait 1\n exit i 0",
            expect![[r#"
                > go
                   0 volumes
                   0 sandbox
                   0 pull web:v1
                       Normal Pulled: Container image "web:v1" already present on machine
                   0 start i 0
                       Normal Created: Created container: i
                       Normal Started: Started container i
                     = Pending, Ready False, i running, c PodInitializing, d PodInitializing
                > exit i 0
                   0 pull web:v1
                       Normal Pulled: Container image "web:v1" already present on machine
                   0 pull web:v1
                       Normal Pulled: Container image "web:v1" already present on machine
                   0 start c 0
                       Normal Created: Created container: c
                       Normal Started: Started container c
                   0 start d 0
                       Normal Created: Created container: d
                       Normal Started: Started container d
                     = Running, Ready True, i Completed 0 ready, c running ready, d running ready
                > break sandbox
                > exit c 137
                   0 start c 1
                       Normal Pulled: Container image "web:v1" already present on machine
                       Normal SandboxChanged: Pod sandbox changed, it will be killed and re-created.
                     = Running, Ready False, i PodInitializing, c Error 137, d running ready
                > exit d 137
                     = Running, Ready False, i PodInitializing, c Error 137, d Error 137
                > wait 1
                   1 sandbox
                   1 start i 1
                       Normal Pulled: Container image "web:v1" already present on machine
                       Normal Created: Created container: i
                       Normal Started: Started container i
                     = Running, Ready False, i running x1, c Error 137, d Error 137
                > exit i 0
                   1 start c 1
                       Normal Pulled: Container image "web:v1" already present on machine
                       Normal Created: Created container: c
                       Normal Started: Started container c
                   1 start d 1
                       Normal Pulled: Container image "web:v1" already present on machine
                       Normal Created: Created container: d
                       Normal Started: Started container d
                     = Running, Ready True, i Completed 0 x1 ready, c running x1 after Error 137 ready, d running x1 after Error 137 ready
            "#]],
        );
    }

    #[test]
    fn a_changed_image_replaces_the_container_in_place() {
        check(
            "spec: {containers: [{name: c, image: web:v1}, {name: d, image: other:v1}]}",
            "drains\n image c web:v2\n image c web:v3\n image c web:v1",
            expect![[r#"
                > drains
                   0 volumes
                   0 sandbox
                   0 pull web:v1
                       Normal Pulled: Container image "web:v1" already present on machine
                   0 pull other:v1
                       Normal Pulled: Container image "other:v1" already present on machine
                   0 start c 0
                       Normal Created: Created container: c
                       Normal Started: Started container c
                   0 start d 0
                       Normal Created: Created container: d
                       Normal Started: Started container d
                     = Running, Ready True, c running ready, d running ready
                > image c web:v2
                   0 pull web:v2
                       Normal Pulled: Container image "web:v2" already present on machine
                   0 withdraw c within 10s
                     = Running, Ready False, c running, d running ready
                   0 stop c0 within 30s
                       Normal Killing: Container c definition changed, will be restarted
                   0 start c 1
                       Normal Created: Created container: c
                       Normal Started: Started container c
                     = Running, Ready True, c running x1 after Completed 0 ready, d running ready
                > image c web:v3
                   0 pull web:v3
                       Normal Pulled: Container image "web:v3" already present on machine
                   0 withdraw c within 10s
                     = Running, Ready False, c running x1 after Completed 0, d running ready
                   0 stop c1 within 30s
                       Normal Killing: Container c definition changed, will be restarted
                   0 start c 2
                       Normal Created: Created container: c
                       Normal Started: Started container c
                     = Running, Ready True, c running x2 after Completed 0 ready, d running ready
                > image c web:v1
                   0 pull web:v1
                       Normal Pulled: Container image "web:v1" already present on machine
                   0 withdraw c within 10s
                     = Running, Ready False, c running x2 after Completed 0, d running ready
                   0 stop c2 within 30s
                       Normal Killing: Container c definition changed, will be restarted
                   0 start c 3
                       Normal Created: Created container: c
                       Normal Started: Started container c
                     = Running, Ready True, c running x3 after Completed 0 ready, d running ready
            "#]],
        );
    }

    #[test]
    fn a_container_that_is_replaced_is_not_ready_until_the_next_one_is() {
        check(
            "spec: {containers: [{name: c, image: web:v1, readinessProbe: {tcpSocket: {port: 80}}}]}",
            "drains\n probe c readiness ok\n hold withdraw\n hold stop\n image c web:v2\n probe c readiness ok\n out c\n probe c readiness ok\n exit c 0\n probe c readiness ok",
            expect![[r#"
                > drains
                   0 volumes
                   0 sandbox
                   0 pull web:v1
                       Normal Pulled: Container image "web:v1" already present on machine
                   0 start c 0
                       Normal Created: Created container: c
                       Normal Started: Started container c
                     = Running, Ready False, c running
                > probe c readiness ok
                     = Running, Ready True, c running ready
                > hold withdraw
                > hold stop
                > image c web:v2
                   0 pull web:v2
                       Normal Pulled: Container image "web:v2" already present on machine
                   0 withdraw c within 10s
                     = Running, Ready False, c running
                > probe c readiness ok
                > out c
                   0 stop c0 within 30s
                       Normal Killing: Container c definition changed, will be restarted
                > probe c readiness ok
                > exit c 0
                   0 start c 1
                       Normal Created: Created container: c
                       Normal Started: Started container c
                     = Running, Ready False, c running x1 after Completed 0
                > probe c readiness ok
                     = Running, Ready True, c running x1 after Completed 0 ready
            "#]],
        );
    }

    #[test]
    fn a_change_that_is_taken_back_in_time_stops_nothing() {
        check(
            "spec: {containers: [{name: c, image: web:v1}]}",
            "drains\n hold withdraw\n image c web:v2\n image c web:v1\n out c",
            expect![[r#"
                > drains
                   0 volumes
                   0 sandbox
                   0 pull web:v1
                       Normal Pulled: Container image "web:v1" already present on machine
                   0 start c 0
                       Normal Created: Created container: c
                       Normal Started: Started container c
                     = Running, Ready True, c running ready
                > hold withdraw
                > image c web:v2
                   0 pull web:v2
                       Normal Pulled: Container image "web:v2" already present on machine
                   0 withdraw c within 10s
                     = Running, Ready False, c running
                > image c web:v1
                     = Running, Ready True, c running ready
                > out c
            "#]],
        );
    }

    #[test]
    fn the_old_container_runs_on_while_the_new_image_cannot_be_had() {
        check(
            "spec: {containers: [{name: c, image: web:v1}]}",
            "drains\n refuse web:v9 manifest unknown\n image c web:v9\n wait 5\n image c web:v1",
            expect![[r#"
                > drains
                   0 volumes
                   0 sandbox
                   0 pull web:v1
                       Normal Pulled: Container image "web:v1" already present on machine
                   0 start c 0
                       Normal Created: Created container: c
                       Normal Started: Started container c
                     = Running, Ready True, c running ready
                > refuse web:v9 manifest unknown
                > image c web:v9
                   0 pull web:v9
                       Warning Failed: Failed to pull image "web:v9": manifest unknown
                       Warning Failed: Error: ErrImagePull
                > wait 5
                   2 back off c
                       Normal BackOff: Back-off pulling image "web:v9"
                       Warning Failed: Error: ImagePullBackOff
                > image c web:v1
            "#]],
        );
    }

    #[test]
    fn nothing_is_stopped_before_it_is_out_of_the_rules() {
        check(
            "spec: {containers: [{name: c, image: web:v1}], terminationGracePeriodSeconds: 60}",
            "drains\n hold withdraw\n delete 60\n wait 3\n out",
            expect![[r#"
                > drains
                   0 volumes
                   0 sandbox
                   0 pull web:v1
                       Normal Pulled: Container image "web:v1" already present on machine
                   0 start c 0
                       Normal Created: Created container: c
                       Normal Started: Started container c
                     = Running, Ready True, c running ready
                > hold withdraw
                > delete 60
                   0 leave within 60s
                   0 withdraw pod within 10s
                > wait 3
                > out
                   3 stop c0 within 57s
                       Normal Killing: Stopping container c
                   3 stop sandbox
                   3 finish
                     = Succeeded, Ready False, c Completed 0
            "#]],
        );
    }

    #[test]
    fn a_second_deletion_shortens_the_grace() {
        check(
            "spec: {containers: [{name: c, image: web:v1}]}",
            "go\n hold stop\n delete 30\n wait 5\n delete 2\n delete 20",
            expect![[r#"
                > go
                   0 volumes
                   0 sandbox
                   0 pull web:v1
                       Normal Pulled: Container image "web:v1" already present on machine
                   0 start c 0
                       Normal Created: Created container: c
                       Normal Started: Started container c
                     = Running, Ready True, c running ready
                > hold stop
                > delete 30
                   0 leave within 30s
                   0 stop c0 within 30s
                       Normal Killing: Stopping container c
                > wait 5
                > delete 2
                   5 leave within 2s
                   5 stop c0 within 2s
                > delete 20
            "#]],
        );
    }

    #[test]
    fn init_containers_run_one_after_the_other_and_sidecars_stay() {
        check(
            "spec: {initContainers: [{name: a, image: i}, {name: s, image: s, restartPolicy: Always}, {name: b, image: i}], containers: [{name: c, image: web:v1}]}",
            "go\n exit a 1\n exit a 0\n exit b 0\n delete 30",
            expect![[r#"
                > go
                   0 volumes
                   0 sandbox
                   0 pull i
                       Normal Pulled: Container image "i" already present on machine
                   0 start a 0
                       Normal Created: Created container: a
                       Normal Started: Started container a
                     = Pending, Ready False, a running, s ContainerCreating, b PodInitializing, c PodInitializing
                > exit a 1
                   0 start a 1
                       Normal Pulled: Container image "i" already present on machine
                       Normal Created: Created container: a
                       Normal Started: Started container a
                     = Pending, Ready False, a running x1 after Error 1, s ContainerCreating, b PodInitializing, c PodInitializing
                > exit a 0
                   0 pull s
                       Normal Pulled: Container image "s" already present on machine
                   0 start s 0
                       Normal Created: Created container: s
                       Normal Started: Started container s
                   0 pull i
                       Normal Pulled: Container image "i" already present on machine
                   0 start b 0
                       Normal Created: Created container: b
                       Normal Started: Started container b
                     = Pending, Ready False, a Completed 0 x1 after Error 1 ready, s running ready, b running, c PodInitializing
                > exit b 0
                   0 pull web:v1
                       Normal Pulled: Container image "web:v1" already present on machine
                   0 start c 0
                       Normal Created: Created container: c
                       Normal Started: Started container c
                     = Running, Ready True, a Completed 0 x1 after Error 1 ready, s running ready, b Completed 0 ready, c running ready
                > delete 30
                   0 leave within 30s
                   0 stop c0 within 30s
                       Normal Killing: Stopping container c
                   0 stop s0 within 30s
                       Normal Killing: Stopping container s
                   0 stop sandbox
                   0 finish
                     = Succeeded, Ready False, a Completed 0 x1 after Error 1 ready, s Completed 0, b Completed 0 ready, c Completed 0
            "#]],
        );
    }

    #[test]
    fn a_failed_init_container_fails_a_pod_that_never_restarts() {
        check(
            "spec: {restartPolicy: Never, initContainers: [{name: a, image: i}], containers: [{name: c, image: web:v1}]}",
            "go\n exit a 3",
            expect![[r#"
                > go
                   0 volumes
                   0 sandbox
                   0 pull i
                       Normal Pulled: Container image "i" already present on machine
                   0 start a 0
                       Normal Created: Created container: a
                       Normal Started: Started container a
                     = Pending, Ready False, a running, c PodInitializing
                > exit a 3
                   0 leave within 30s
                   0 stop sandbox
                     = Failed, Ready False, a Error 3, c PodInitializing
            "#]],
        );
    }

    #[test]
    fn a_pod_comes_to_its_end_by_itself() {
        check(
            "spec: {restartPolicy: OnFailure, containers: [{name: c, image: job:v1}, {name: d, image: job:v1}]}",
            "go\n exit c 0\n exit d 1\n exit d 0\n delete 30\n gone",
            expect![[r#"
                > go
                   0 volumes
                   0 sandbox
                   0 pull job:v1
                       Normal Pulled: Container image "job:v1" already present on machine
                   0 pull job:v1
                       Normal Pulled: Container image "job:v1" already present on machine
                   0 start c 0
                       Normal Created: Created container: c
                       Normal Started: Started container c
                   0 start d 0
                       Normal Created: Created container: d
                       Normal Started: Started container d
                     = Running, Ready True, c running ready, d running ready
                > exit c 0
                     = Running, Ready False, c Completed 0, d running ready
                > exit d 1
                   0 start d 1
                       Normal Pulled: Container image "job:v1" already present on machine
                       Normal Created: Created container: d
                       Normal Started: Started container d
                     = Running, Ready False, c Completed 0, d running x1 after Error 1 ready
                > exit d 0
                   0 leave within 30s
                   0 stop sandbox
                     = Succeeded, Ready False, c Completed 0, d Completed 0 x1 after Error 1
                > delete 30
                   0 finish
                > gone
                   0 forget
            "#]],
        );
    }

    #[test]
    fn a_sidecar_does_not_keep_a_job_alive() {
        check(
            "spec: {restartPolicy: Never, initContainers: [{name: s, image: s, restartPolicy: Always}], containers: [{name: c, image: job:v1}]}",
            "go\n exit c 0",
            expect![[r#"
                > go
                   0 volumes
                   0 sandbox
                   0 pull s
                       Normal Pulled: Container image "s" already present on machine
                   0 start s 0
                       Normal Created: Created container: s
                       Normal Started: Started container s
                   0 pull job:v1
                       Normal Pulled: Container image "job:v1" already present on machine
                   0 start c 0
                       Normal Created: Created container: c
                       Normal Started: Started container c
                     = Running, Ready True, s running ready, c running ready
                > exit c 0
                   0 leave within 30s
                   0 stop s0 within 30s
                       Normal Killing: Stopping container s
                   0 stop sandbox
                     = Succeeded, Ready False, s Completed 0, c Completed 0
            "#]],
        );
    }

    #[test]
    fn a_deadline_ends_a_pod() {
        check(
            "spec: {activeDeadlineSeconds: 60, terminationGracePeriodSeconds: 5, containers: [{name: c, image: web:v1}]}",
            "go\n wait 61",
            expect![[r#"
                > go
                   0 volumes
                   0 sandbox
                   0 pull web:v1
                       Normal Pulled: Container image "web:v1" already present on machine
                   0 start c 0
                       Normal Created: Created container: c
                       Normal Started: Started container c
                     = Running, Ready True, c running ready
                > wait 61
                  60 fail DeadlineExceeded
                       Warning DeadlineExceeded: Pod was active on the node longer than the specified deadline
                  60 leave within 5s
                  60 stop c0 within 5s
                       Normal Killing: Stopping container c
                  60 stop sandbox
                     = Failed (DeadlineExceeded), Ready False, c Completed 0
            "#]],
        );
    }

    #[test]
    fn probes_condemn_and_restart() {
        check(
            "spec:
  containers:
  - name: c
    image: web:v1
    startupProbe: {tcpSocket: {port: 80}, failureThreshold: 2}
    livenessProbe: {tcpSocket: {port: 80}, failureThreshold: 1, terminationGracePeriodSeconds: 3}
    readinessProbe: {tcpSocket: {port: 80}}
",
            "go\n probe c startup ok\n probe c readiness ok\n probe c liveness connection refused\n probe c startup refused\n probe c startup refused",
            expect![[r#"
                > go
                   0 volumes
                   0 sandbox
                   0 pull web:v1
                       Normal Pulled: Container image "web:v1" already present on machine
                   0 start c 0
                       Normal Created: Created container: c
                       Normal Started: Started container c
                     = Running, Ready False, c running
                > probe c startup ok
                > probe c readiness ok
                     = Running, Ready True, c running ready
                > probe c liveness connection refused
                       Warning Unhealthy: Liveness probe failed: connection refused
                   0 stop c0 within 3s
                       Normal Killing: Container c failed liveness probe, will be restarted
                   0 start c 1
                       Normal Pulled: Container image "web:v1" already present on machine
                       Normal Created: Created container: c
                       Normal Started: Started container c
                     = Running, Ready False, c running x1 after Completed 0
                > probe c startup refused
                       Warning Unhealthy: Startup probe failed: refused
                > probe c startup refused
                       Warning Unhealthy: Startup probe failed: refused
                   0 stop c1 within 30s
                       Normal Killing: Container c failed startup probe, will be restarted
                     = Running, Ready False, c Completed 0 x1 after Completed 0
            "#]],
        );
    }

    #[test]
    fn a_hook_after_the_start_counts() {
        check(
            "spec: {containers: [{name: c, image: web:v1, lifecycle: {postStart: {exec: {command: [x]}}}}]}",
            "hold postStart\n go\n delete 1",
            expect![[r#"
                > hold postStart
                   0 volumes
                   0 sandbox
                   0 pull web:v1
                       Normal Pulled: Container image "web:v1" already present on machine
                   0 start c 0
                       Normal Created: Created container: c
                       Normal Started: Started container c
                   0 postStart c
                     = Running, Ready False, c running
                > go
                > delete 1
                   0 leave within 1s
                   0 stop c0 within 1s
                       Normal Killing: Stopping container c
                   0 stop sandbox
                   0 finish
                     = Succeeded, Ready False, c Completed 0
            "#]],
        );
        check(
            "spec: {containers: [{name: c, image: web:v1, lifecycle: {postStart: {exec: {command: [x]}}}}]}",
            "refuse postStart it broke\n hold start",
            expect![[r#"
                > refuse postStart it broke
                   0 volumes
                   0 sandbox
                   0 pull web:v1
                       Normal Pulled: Container image "web:v1" already present on machine
                   0 start c 0
                       Normal Created: Created container: c
                       Normal Started: Started container c
                   0 postStart c
                       Warning FailedPostStartHook: it broke
                   0 stop c0 within 30s
                       Normal Killing: FailedPostStartHook: container c will be restarted
                   0 start c 1
                       Normal Pulled: Container image "web:v1" already present on machine
                       Normal Created: Created container: c
                       Normal Started: Started container c
                   0 postStart c
                       Warning FailedPostStartHook: it broke
                   0 stop c1 within 30s
                       Normal Killing: FailedPostStartHook: container c will be restarted
                     = Running, Ready False, c Completed 0 x1 after Completed 0
                > hold start
            "#]],
        );
    }

    #[test]
    fn a_container_that_cannot_start_backs_off() {
        check(
            "spec: {containers: [{name: c, image: web:v1}]}",
            "refuse c no such file\n wait 15\n accept c\n wait 20",
            expect![[r#"
                > refuse c no such file
                   0 volumes
                   0 sandbox
                   0 pull web:v1
                       Normal Pulled: Container image "web:v1" already present on machine
                   0 start c 0
                       Warning Failed: Error: no such file
                   0 start c 1
                       Normal Pulled: Container image "web:v1" already present on machine
                       Warning Failed: Error: no such file
                     = Running, Ready False, c RunContainerError x1 after StartError 128
                > wait 15
                   2 back off c
                       Warning BackOff: Back-off restarting failed container c in pod web_ns(u)
                     = Running, Ready False, c CrashLoopBackOff x1 after StartError 128
                  10 start c 2
                       Normal Pulled: Container image "web:v1" already present on machine
                       Warning Failed: Error: no such file
                     = Running, Ready False, c RunContainerError x2 after StartError 128
                  12 back off c
                       Warning BackOff: Back-off restarting failed container c in pod web_ns(u)
                     = Running, Ready False, c CrashLoopBackOff x2 after StartError 128
                > accept c
                > wait 20
                  30 start c 3
                       Normal Pulled: Container image "web:v1" already present on machine
                       Normal Created: Created container: c
                       Normal Started: Started container c
                     = Running, Ready True, c running x3 after StartError 128 ready
            "#]],
        );
    }
}
