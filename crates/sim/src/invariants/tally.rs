//! What the invariants remember of objects that are gone: which pods of a Job there were and how they ended, and for
//! which times a CronJob has made Jobs, how large a ReplicaSet was, what an autoscaler did, and what a rollout cost.

use std::collections::{BTreeMap, BTreeSet};

use api::object::controller_of;
use api::{Change, Pod};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::autoscalers::Scaling;
use super::jobs::index;
use super::rollouts::{Effort, Of, Rollout, Step};
use crate::facts;

/// Carries the time that a Job was made for.
pub const SCHEDULED: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";
/// Holds a pod back until its Job has counted it.
const TRACKING: &str = "batch.kubernetes.io/job-tracking";

/// True until its Job has counted the pod.
pub fn is_tracked(pod: &Pod) -> bool {
    pod.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == TRACKING)
}

/// Uids of the pods of one Job.
#[derive(Clone, Default)]
pub struct JobTally {
    /// All there ever were.
    pub made: BTreeSet<String>,
    /// Those that ended well before they were counted.
    pub succeeded: BTreeSet<String>,
    /// Those that ended badly before they were counted.
    pub failed: BTreeSet<String>,
    /// Indexes of those that ended well, as far as there have been such indexes since.
    pub succeeded_indexes: BTreeSet<i64>,
    /// Indexes are smaller, where they are counted.
    end: Option<i64>,
}

/// What is remembered.
#[derive(Clone, Default)]
pub struct Tally {
    jobs: BTreeMap<String, JobTally>,
    started: BTreeSet<(String, Timestamp)>,
    /// By uid of a ReplicaSet: how many pods it was to have, from when on.
    sizes: BTreeMap<String, Vec<(Timestamp, i32)>>,
    /// By uid of an autoscaler: what it did, in order.
    scalings: BTreeMap<String, Vec<Scaling>>,
    /// What was done for each rollout.
    rollouts: BTreeMap<Of, Rollout>,
    /// By uid of a Deployment: what was written for it.
    efforts: BTreeMap<String, Effort>,
    /// The latest time of any turn; the server's clock may step back.
    latest: Timestamp,
    none: JobTally,
}

impl Tally {
    /// What is remembered of the Job of this uid.
    pub fn of(&self, job: &str) -> &JobTally {
        self.jobs.get(job).unwrap_or(&self.none)
    }

    /// True if this CronJob made a Job for this time.
    pub fn was_started(&self, cron_job: &ObjectMeta, time: Timestamp) -> bool {
        self.started.contains(&(facts::uid(cron_job).to_owned(), time))
    }

    /// The latest time of any turn so far.
    pub fn latest(&self) -> Timestamp {
        self.latest
    }

    /// What an autoscaler of this uid did, in order.
    pub fn scalings(&self, autoscaler: &str) -> &[Scaling] {
        self.scalings.get(autoscaler).map(Vec::as_slice).unwrap_or_default()
    }

    /// Takes a change in, and what it means to an autoscaler.
    pub fn note(&mut self, change: &Change, now: Timestamp, scaled: Option<(String, Scaling)>) {
        self.latest = self.latest.max(now);
        if let Some((by, scaling)) = scaled {
            self.scalings.entry(by).or_default().push(scaling);
        }
        let object = change.object();
        if let Some(pod) = object.get::<Pod>() {
            self.note_pod(pod);
        } else if let Some(set) = object.get::<ReplicaSet>() {
            self.note_size(set, now);
        } else if let Some(job) = object.get::<Job>() {
            self.note_job(job, change.before.is_none());
        }
    }

    /// What was done for a rollout.
    pub fn rollout(&self, of: &Of) -> Rollout {
        self.rollouts.get(of).copied().unwrap_or_default()
    }

    /// What was written for the Deployment of this uid.
    pub fn effort(&self, deployment: &str) -> Effort {
        self.efforts.get(deployment).copied().unwrap_or_default()
    }

    /// Takes in what a change adds to the effort for a Deployment.
    pub fn note_effort(&mut self, effort: Option<(String, Effort)>) {
        let Some((of, Effort { writes, made, asked, edits })) = effort else { return };
        let sum = self.efforts.entry(of).or_default();
        sum.writes += writes;
        sum.made += made;
        sum.asked += asked;
        sum.edits += edits;
    }

    /// Takes in what a change means to a rollout, and how many pods its set was to have.
    pub fn note_step(&mut self, step: Option<(Of, Step, i32)>) {
        let Some((of, step, size)) = step else { return };
        let rollout = self.rollouts.entry(of).or_default();
        rollout.largest = rollout.largest.max(size);
        match step {
            Step::Made => rollout.made += 1,
            Step::Lost => rollout.lost += 1,
        }
    }

    fn note_pod(&mut self, pod: &Pod) {
        let Some(owner) = controller_of(&pod.metadata).filter(|owner| owner.kind == "Job") else { return };
        let tally = self.jobs.entry(owner.uid.clone()).or_default();
        let uid = facts::uid(&pod.metadata).to_owned();
        tally.made.insert(uid.clone());
        let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        match phase.filter(|_| is_tracked(pod)) {
            Some("Succeeded") => {
                let end = tally.end.unwrap_or(i64::MAX);
                tally.succeeded_indexes.extend(index(pod).filter(|index| *index < end));
                tally.succeeded.insert(uid);
            }
            Some("Failed") => {
                // An agent that was started anew lost what the one before it says a moment earlier: the last word counts.
                if tally.succeeded.remove(&uid) {
                    index(pod).map(|index| tally.succeeded_indexes.remove(&index));
                }
                tally.failed.insert(uid);
            }
            _ => {}
        }
    }

    fn note_size(&mut self, set: &ReplicaSet, now: Timestamp) {
        let sizes = self.sizes.entry(facts::uid(&set.metadata).to_owned()).or_default();
        if sizes.last().is_none_or(|(_, size)| *size != facts::size(set)) {
            sizes.push((now, facts::size(set)));
        }
    }

    /// The largest size of a ReplicaSet from `since` on.
    pub fn largest(&self, set: &str, since: Timestamp) -> i32 {
        let sizes = self.sizes.get(set).map(Vec::as_slice).unwrap_or_default();
        // What was said last before that time still held then.
        let first = sizes.iter().rposition(|(at, _)| *at <= since).unwrap_or(0);
        sizes[first..].iter().map(|(_, size)| *size).max().unwrap_or(0)
    }

    fn note_job(&mut self, job: &Job, is_new: bool) {
        // What has succeeded under an index that was taken away is done again if there is to be one once more.
        let tally = self.jobs.entry(facts::uid(&job.metadata).to_owned()).or_default();
        tally.end = job.spec.as_ref().and_then(|spec| spec.completions).map(i64::from);
        let end = tally.end.unwrap_or(i64::MAX);
        tally.succeeded_indexes.retain(|index| *index < end);
        let owner = controller_of(&job.metadata).filter(|owner| owner.kind == "CronJob" && is_new);
        let time = job.metadata.annotations.as_ref().and_then(|notes| notes.get(SCHEDULED)?.parse().ok());
        if let (Some(owner), Some(time)) = (owner, time) {
            self.started.insert((owner.uid.clone(), time));
        }
    }
}
