//! The status of a CronJob, read off its Jobs.
//!
//! Mirrors syncCronJob of upstream's `pkg/controller/cronjob/cronjob_controllerv2.go`.

use api::{EventType, Kind};
use k8s_openapi::api::batch::v1::{CronJob, CronJobStatus, Job};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::scheduled_time;
use crate::job;

/// What was seen.
pub struct Seen {
    /// The status as it should be.
    pub status: CronJobStatus,
    /// What the user is told with it.
    pub told: Vec<(EventType, &'static str, String)>,
}

impl Seen {
    /// The Jobs of the schedule that are at work.
    pub fn active(&self) -> &[ObjectReference] {
        self.status.active.as_deref().unwrap_or_default()
    }

    /// True if this Job is one of them.
    pub fn is_active(&self, job: &Job) -> bool {
        self.active().iter().any(|active| active.uid == job.metadata.uid)
    }
}

/// Looks at the Jobs of a CronJob.
pub fn look(cron_job: &CronJob, jobs: &[&Job]) -> Seen {
    let mut seen = Seen { status: cron_job.status.clone().unwrap_or_default(), told: Vec::new() };
    seen.drop_ended(jobs);
    for job in jobs.iter().filter(|job| job::finished(job).is_none() && job.metadata.deletion_timestamp.is_none()) {
        seen.note_running(cron_job, job);
    }
    let times = jobs.iter().filter_map(|job| scheduled_time(cron_job, job));
    let last = times.max().max(seen.status.last_schedule_time.take().map(|time| time.0));
    seen.status.last_schedule_time = last.map(Time);
    let succeeded = jobs.iter().filter(|job| job::finished(job).is_some_and(|end| end.type_ == job::COMPLETE));
    let ends = succeeded.filter_map(|job| job.status.as_ref()?.completion_time.as_ref().map(|time| time.0));
    let last = ends.max().max(seen.status.last_successful_time.take().map(|time| time.0));
    seen.status.last_successful_time = last.map(Time);
    seen
}

impl Seen {
    fn drop_ended(&mut self, jobs: &[&Job]) {
        let told = &mut self.told;
        let Some(active) = &mut self.status.active else { return };
        active.retain(|reference| {
            let name = reference.name.as_deref().unwrap_or("");
            let Some(job) = jobs.iter().find(|job| job.metadata.uid == reference.uid) else {
                told.push((EventType::Normal, "MissingJob", format!("Active job went missing: {name}")));
                return false;
            };
            let Some(end) = job::finished(job) else { return true };
            let message = format!("Saw completed job: {name}, condition: {}", end.type_);
            told.push((EventType::Normal, "SawCompletedJob", message));
            false
        });
        if active.is_empty() {
            self.status.active = None;
        }
    }

    /// Takes up a Job that the schedule made. One that somebody else made in its name is only told of.
    fn note_running(&mut self, cron_job: &CronJob, job: &Job) {
        if self.is_active(job) {
            return;
        }
        let name = job.metadata.name.clone().unwrap_or_default();
        if scheduled_time(cron_job, job).is_none() {
            let message = format!("Saw a job that the controller did not create or forgot: {name}");
            return self.told.push((EventType::Warning, "UnexpectedJob", message));
        }
        let info = Kind::Job.info();
        self.status.active.get_or_insert_default().push(ObjectReference {
            api_version: Some(info.api_version()),
            kind: Some(info.kind.to_owned()),
            namespace: job.metadata.namespace.clone(),
            name: Some(name),
            uid: job.metadata.uid.clone(),
            resource_version: job.metadata.resource_version.clone(),
            field_path: None,
        });
    }
}
