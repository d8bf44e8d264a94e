//! Which time of a schedule is due.
//!
//! Mirrors upstream's `pkg/controller/cronjob/utils.go` (mostRecentScheduleTime): of several missed times only the last
//! is made up for.

use api::schedule::Schedule;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::CronJob;

/// Missed times from which on the user is warned.
const MANY: i64 = 100;

/// A time that is due.
#[derive(Debug, PartialEq, Eq)]
pub struct Due {
    /// The time.
    pub time: Timestamp,
    /// True if very many before it were missed.
    pub too_many: bool,
}

/// The last time that is due at `now` and was not before `last`, the one that was seen to last.
pub fn most_recent(cron_job: &CronJob, last: Option<Timestamp>, schedule: &Schedule, now: Timestamp) -> Option<Due> {
    let mut earliest = since(cron_job, last)?;
    if let Some(seconds) = cron_job.spec.starting_deadline_seconds {
        earliest = earliest.max(now.checked_sub(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MIN));
    }
    latest(schedule, earliest, now)
}

/// When the schedule is due next, as seen at `now`. It counts from the time that it was due last, and not from `now`, so that what runs
/// every so often keeps to its times however often it is looked at (upstream: nextScheduleTimeDuration).
pub fn next(cron_job: &CronJob, last: Option<Timestamp>, schedule: &Schedule, now: Timestamp) -> Option<Timestamp> {
    let since = since(cron_job, last)?;
    schedule.after(latest(schedule, since, now).map_or(since, |due| due.time))
}

/// The time from which on the schedule counts.
fn since(cron_job: &CronJob, last: Option<Timestamp>) -> Option<Timestamp> {
    last.or(cron_job.metadata.creation_timestamp.as_ref().map(|time| time.0))
}

/// The last time of the schedule after `earliest` and up to `now`.
fn latest(schedule: &Schedule, earliest: Timestamp, now: Timestamp) -> Option<Due> {
    let first = schedule.after(earliest).filter(|first| *first <= now)?;
    let Some(second) = schedule.after(first).filter(|second| *second <= now) else {
        return Some(Due { time: first, too_many: false });
    };
    let period = second.duration_since(first).as_secs().max(1);
    let missed = now.duration_since(first).as_secs() / period + 1;
    Some(Due { time: schedule.latest(first, now)?, too_many: missed > MANY })
}

/// True once the time that a Job may be late is over.
pub fn is_too_late(cron_job: &CronJob, time: Timestamp, now: Timestamp) -> bool {
    let seconds = cron_job.spec.starting_deadline_seconds;
    seconds.is_some_and(|seconds| time.checked_add(SignedDuration::from_secs(seconds)).is_ok_and(|end| end < now))
}
