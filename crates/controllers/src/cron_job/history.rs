//! Finished Jobs beyond the limits of the history.
//!
//! Mirrors cleanupFinishedJobs of upstream's `pkg/controller/cronjob/cronjob_controllerv2.go`.

use k8s_openapi::api::batch::v1::{CronJob, Job};

use crate::job;

/// The Jobs to delete, oldest first.
pub fn outdated<'a>(cron_job: &CronJob, jobs: &[&'a Job]) -> Vec<&'a Job> {
    let spec = &cron_job.spec;
    let limits = [(true, spec.successful_jobs_history_limit), (false, spec.failed_jobs_history_limit)];
    limits.into_iter().flat_map(|(success, limit)| beyond(jobs, success, limit)).collect()
}

fn beyond<'a>(jobs: &[&'a Job], success: bool, limit: Option<i32>) -> Vec<&'a Job> {
    let Some(limit) = limit.and_then(|limit| usize::try_from(limit).ok()) else { return Vec::new() };
    let ended = |job: &&Job| job::finished(job).is_some_and(|end| (end.type_ == job::COMPLETE) == success);
    let stays = |job: &&Job| job.metadata.deletion_timestamp.is_none();
    let mut finished: Vec<&Job> = jobs.iter().copied().filter(|job| ended(job) && stays(job)).collect();
    finished.sort_by_key(|job| {
        let started = job.status.as_ref().and_then(|status| status.start_time.as_ref());
        let since = started.or(job.metadata.creation_timestamp.as_ref()).map(|time| time.0);
        (since, job.metadata.name.clone())
    });
    finished.truncate(finished.len().saturating_sub(limit));
    finished
}
