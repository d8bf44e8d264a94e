//! What the invariants remember of objects that are gone: which pods of a Job there were and how they ended, and for
//! which times a CronJob has made Jobs, how large a ReplicaSet was, and what an autoscaler did.

use std::collections::{BTreeMap, BTreeSet};

use api::object::controller_of;
use api::{Change, Object, Pod};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::autoscalers::Scaling;
use super::jobs::index;
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
    /// Indexes of those that ended well.
    pub succeeded_indexes: BTreeSet<i64>,
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
        } else if change.before.is_none() {
            self.note_job(object);
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
                tally.succeeded_indexes.extend(index(pod));
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

    fn note_job(&mut self, object: &Object) {
        let Some(job) = object.get::<Job>() else { return };
        let owner = controller_of(&job.metadata).filter(|owner| owner.kind == "CronJob");
        let time = job.metadata.annotations.as_ref().and_then(|notes| notes.get(SCHEDULED)?.parse().ok());
        if let (Some(owner), Some(time)) = (owner, time) {
            self.started.insert((owner.uid.clone(), time));
        }
    }
}
