//! What the invariants remember of objects that are gone: which pods of a Job there were and how they ended, and for
//! which times a CronJob has made Jobs.

use std::collections::{BTreeMap, BTreeSet};

use api::object::controller_of;
use api::{Change, Object};
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

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

    /// Takes a change in.
    pub fn note(&mut self, change: &Change) {
        let object = change.object();
        if let Some(pod) = object.get::<Pod>() {
            self.note_pod(pod);
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
            Some("Failed") => drop(tally.failed.insert(uid)),
            _ => {}
        }
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
