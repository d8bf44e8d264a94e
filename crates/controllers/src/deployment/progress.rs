//! The status of a Deployment: counts, whether enough pods are available, and whether the rollout gets on.
//!
//! Mirrors upstream's `pkg/controller/deployment/progress.go`, calculateStatus and checkPausedConditions (`sync.go`),
//! DeploymentComplete, DeploymentProgressing and DeploymentTimedOut (`util/deployment_util.go`). Counts are what the
//! ReplicaSets report. As long as one of them has not looked at its latest size, the report waits for it, because its
//! status brings the Deployment back here; so a step of a rollout costs one status write and not three.

use api::{Typed, Write};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{DeploymentCondition, DeploymentStatus};

use super::conditions::{self, AVAILABLE, PROGRESSING, REPLICA_FAILURE};
use super::sets::Set;
use super::{Judge, Rollout};

/// Why a rollout counts as failed.
pub const TIMED_OUT: &str = "ProgressDeadlineExceeded";
const DONE: &str = "NewReplicaSetAvailable";
const PAUSED: &str = "DeploymentPaused";

impl Rollout<'_> {
    /// Notes that a pause began or ended, so that the time it took does not count against the deadline.
    pub(super) fn note_pause(&mut self) {
        let judged = self.terms.progress_deadline_seconds.is_some();
        if !judged || conditions::has_reason(&self.conditions, PROGRESSING, TIMED_OUT) {
            return;
        }
        let told = conditions::has_reason(&self.conditions, PROGRESSING, PAUSED);
        let condition = match (self.terms.paused, told) {
            (true, false) => conditions::new(PROGRESSING, "Unknown", PAUSED, "Deployment is paused"),
            (false, true) => conditions::new(PROGRESSING, "Unknown", "DeploymentResumed", "Deployment is resumed"),
            _ => return,
        };
        conditions::set(&mut self.conditions, condition, self.now);
    }

    /// True once every wanted pod has the wanted template and is available, and no other is there.
    pub(super) fn is_complete(&self) -> bool {
        is_complete(&self.counts(), self.terms.replicas)
    }

    /// The write that brings status and revision up to date, if they are not.
    pub(super) fn report(&mut self, judge: Judge) -> Option<Write> {
        let old = self.deployment.status.clone().unwrap_or_default();
        let unchanged = |list: &Vec<DeploymentCondition>| *list == old.conditions.clone().unwrap_or_default();
        let mut body = self.renumbered();
        let waits = self.refused.is_none() && !self.sets().all(Set::is_observed);
        if waits && unchanged(&self.conditions) && body == *self.deployment {
            self.set_alarm(judge, &old);
            return None;
        }
        let mut status = self.counts();
        if self.sets().any(Set::tells_too_much) {
            // Its pods may be back before it tells of their loss: then it tells nothing new, and nobody is woken.
            self.plan.wake_by(self.now.checked_add(SignedDuration::from_secs(1)).unwrap_or(self.now));
        }
        self.judge_availability(&status);
        if judge == Judge::Progress {
            self.judge_progress(&old, &status);
            self.hand_on_failure();
        }
        self.set_alarm(judge, &status);
        status.conditions = Some(self.conditions.clone()).filter(|list| !list.is_empty());
        body.status = Some(status);
        (body != *self.deployment).then(|| Write::Status(body.into_body()))
    }

    fn counts(&self) -> DeploymentStatus {
        let some = |number: i32| Some(number).filter(|number| *number > 0);
        let (mut replicas, mut ready, mut available, mut wanted) = (0, 0, 0, 0);
        let mut terminating = Some(0);
        for set in self.sets() {
            let status = set.status();
            replicas += status.replicas;
            ready += status.ready_replicas.unwrap_or(0);
            // The set may tell of pods that were lost a moment ago.
            available += status.available_replicas.unwrap_or(0).min(set.available_pods());
            wanted += set.replicas();
            let unseen = status.observed_generation.unwrap_or(0) == 0;
            let ending = status.terminating_replicas.or(unseen.then_some(0));
            terminating = terminating.zip(ending).map(|(sum, more)| sum + more);
        }
        DeploymentStatus {
            observed_generation: self.deployment.metadata.generation,
            replicas: some(replicas),
            updated_replicas: some(self.new.as_ref().map_or(0, |new| new.status().replicas)),
            ready_replicas: some(ready),
            available_replicas: some(available),
            unavailable_replicas: some(wanted - available),
            terminating_replicas: terminating,
            collision_count: self.collision_count,
            conditions: None,
        }
    }

    fn judge_availability(&mut self, status: &DeploymentStatus) {
        let enough = status.available_replicas.unwrap_or(0) >= self.terms.min_available();
        let condition = if enough {
            let message = "Deployment has minimum availability.";
            conditions::new(AVAILABLE, "True", "MinimumReplicasAvailable", message)
        } else {
            let message = "Deployment does not have minimum availability.";
            conditions::new(AVAILABLE, "False", "MinimumReplicasUnavailable", message)
        };
        conditions::set(&mut self.conditions, condition, self.now);
    }

    /// Upstream: syncRolloutStatus.
    fn judge_progress(&mut self, old: &DeploymentStatus, status: &DeploymentStatus) {
        let Some(deadline) = self.terms.progress_deadline_seconds else {
            conditions::remove(&mut self.conditions, PROGRESSING);
            return;
        };
        let was_done = conditions::has_reason(&self.conditions, PROGRESSING, DONE);
        if was_done && status.replicas == status.updated_replicas {
            return;
        }
        let subject = match &self.new {
            Some(new) => format!("ReplicaSet {:?}", new.name()),
            None => format!("Deployment {:?}", self.key.name),
        };
        if is_complete(status, self.terms.replicas) {
            let done = conditions::progressing(DONE, format!("{subject} has successfully progressed."));
            conditions::set(&mut self.conditions, done, self.now);
        } else if made_progress(old, status) {
            let moving = conditions::progressing("ReplicaSetUpdated", format!("{subject} is progressing."));
            conditions::renew(&mut self.conditions, moving, self.now);
        } else if self.has_timed_out(deadline) {
            let message = format!("{subject} has timed out progressing.");
            let late = conditions::new(PROGRESSING, "False", TIMED_OUT, message);
            conditions::set(&mut self.conditions, late, self.now);
        }
    }

    fn has_timed_out(&self, deadline_seconds: i32) -> bool {
        match conditions::find(&self.conditions, PROGRESSING) {
            None => false,
            Some(told) if told.reason.as_deref() == Some(DONE) => false,
            Some(told) if told.reason.as_deref() == Some(TIMED_OUT) => true,
            Some(told) => deadline(told, deadline_seconds).is_some_and(|time| time < self.now),
        }
    }

    /// Asks to be woken when the deadline has passed (upstream: requeueStuckDeployment).
    fn set_alarm(&mut self, judge: Judge, status: &DeploymentStatus) {
        let Some(seconds) = self.terms.progress_deadline_seconds else { return };
        if judge == Judge::CountsOnly || is_complete(status, self.terms.replicas) {
            return;
        }
        let told = conditions::find(&self.conditions, PROGRESSING);
        let open = told.filter(|told| !matches!(told.reason.as_deref(), Some(TIMED_OUT | DONE)));
        let Some(time) = open.and_then(|told| deadline(told, seconds)) else { return };
        // Timestamps have whole seconds: one more, and the deadline has certainly passed.
        self.plan.wake_by(time.checked_add(SignedDuration::from_secs(1)).unwrap_or(time));
    }

    /// Shows the failure of a set, the new one's first.
    fn hand_on_failure(&mut self) {
        let failure = self.sets().find_map(|set| {
            set.status().conditions.into_iter().flatten().find(|condition| condition.type_ == REPLICA_FAILURE)
        });
        let Some(failure) = failure else {
            conditions::remove(&mut self.conditions, REPLICA_FAILURE);
            return;
        };
        let condition = DeploymentCondition {
            type_: failure.type_,
            status: failure.status,
            reason: failure.reason,
            message: failure.message,
            last_update_time: failure.last_transition_time.clone(),
            last_transition_time: failure.last_transition_time,
        };
        conditions::set(&mut self.conditions, condition, self.now);
    }
}

fn deadline(condition: &DeploymentCondition, seconds: i32) -> Option<Timestamp> {
    let since = condition.last_update_time.as_ref()?.0;
    since.checked_add(SignedDuration::from_secs(seconds.into())).ok()
}

fn is_complete(status: &DeploymentStatus, replicas: i32) -> bool {
    [status.updated_replicas, status.replicas, status.available_replicas]
        .iter()
        .all(|count| count.unwrap_or(0) == replicas)
}

/// True if new pods were made, old ones ended, or pods became ready or available since the last report.
fn made_progress(old: &DeploymentStatus, new: &DeploymentStatus) -> bool {
    let outdated = |status: &DeploymentStatus| status.replicas.unwrap_or(0) - status.updated_replicas.unwrap_or(0);
    new.updated_replicas > old.updated_replicas
        || outdated(new) < outdated(old)
        || new.ready_replicas > old.ready_replicas
        || new.available_replicas > old.available_replicas
}
