//! What a new agent knows of a pod from before: what the API was told, and what really runs.

use api::Pod;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStateRunning, ContainerStateTerminated, ContainerStatus};

use super::{
    BACK_OFF_FIRST_SECONDS, BACK_OFF_LONGEST_SECONDS, ContainerOnNode, Ended, Failure, PodOnNode, Running, Stage,
    from_milliseconds,
};
use crate::{
    runtime::{ContainerSeen, PodSeen},
    status::bare_id,
};

/// Reason of an end that nobody saw.
const UNKNOWN: &str = "ContainerStatusUnknown";

impl PodOnNode {
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
    pub(super) fn start_over(&mut self, pod: &Pod) {
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
}

impl ContainerOnNode {
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
        id: bare_id(ended.container_id.as_deref().unwrap_or_default()).to_owned(),
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
        id: bare_id(told.container_id.as_deref().unwrap_or_default()).to_owned(),
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
