//! Makes a Job each time a schedule is due.
//!
//! Mirrors upstream's `pkg/controller/cronjob/cronjob_controllerv2.go`. The status is read off the Jobs that are there:
//! a Job that was made before a crash, and not noted down, is found again by its name and the time it carries. Never
//! makes a second Job for one time, and none beside one that still runs where that is forbidden.

mod due;
mod history;
mod status;

#[cfg(test)]
mod tests;

use api::schedule::Schedule;
use api::{Body, Context, EventNote, EventType, Key, Kind, Plan, Propagation, Snapshot, Typed, Write};
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::claim;
use crate::refusals::{is_outdated, namespace_is_ending};
use due::Due;
use status::Seen;

/// Carries the time that a Job was made for.
const SCHEDULED: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";

/// Decides about one CronJob.
pub fn reconcile(key: &Key, world: &Snapshot, context: &Context) -> Plan {
    let Some(cron_job) = world.get::<CronJob>(&key.namespace, &key.name) else { return Plan::nothing() };
    let jobs: Vec<&Job> = world.controlled_by::<Job>(cron_job.metadata.uid.as_deref().unwrap_or("")).collect();
    let mut turn =
        Turn { key, cron_job, world, now: context.now, seen: status::look(cron_job, &jobs), plan: Plan::nothing() };
    if cron_job.metadata.deletion_timestamp.is_none() {
        turn.end_old_jobs(&jobs);
        turn.start_if_due(&jobs);
    }
    turn.tell_refusal(context);
    turn.finish()
}

/// One decision in the making.
struct Turn<'a> {
    key: &'a Key,
    cron_job: &'a CronJob,
    world: &'a Snapshot,
    now: Timestamp,
    seen: Seen,
    plan: Plan,
}

impl Turn<'_> {
    fn start_if_due(&mut self, jobs: &[&Job]) {
        let spec = &self.cron_job.spec;
        if spec.suspend == Some(true) {
            return self.plan.why.push("it is suspended".to_owned());
        }
        let schedule = match Schedule::parse(&spec.schedule, spec.time_zone.as_deref()) {
            Ok(schedule) => schedule,
            Err(error) => {
                let message = format!("unparseable schedule: {:?} : {error}", spec.schedule);
                return self.warn("UnparseableSchedule", message);
            }
        };
        let last = self.seen.status.last_schedule_time.as_ref().map(|time| time.0);
        let Some(next) = due::next(self.cron_job, last, &schedule, self.now) else {
            let message = format!("invalid schedule: {} : it is never due", spec.schedule);
            return self.warn("InvalidSchedule", message);
        };
        self.plan.wake_by(next);
        self.plan.why.push(format!("is next due at {next}"));
        let Some(Due { time, too_many }) = due::most_recent(self.cron_job, last, &schedule, self.now) else { return };
        if too_many {
            let message =
                "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew";
            self.warn("TooManyMissedTimes", message.to_owned());
        }
        if due::is_too_late(self.cron_job, time, self.now) {
            let when = time.strftime("%a, %d %b %Y %H:%M:%S +0000");
            return self.warn("MissSchedule", format!("Missed scheduled time to start a job: {when}"));
        }
        self.start(jobs, &schedule, time);
    }

    /// Starts the Job of this time, unless another stands in its way.
    fn start(&mut self, jobs: &[&Job], schedule: &Schedule, time: Timestamp) {
        let job = job(self.cron_job, schedule, time);
        let name = job.metadata.name.clone().unwrap_or_default();
        if self.world.object(Kind::Job, &self.key.namespace, &name).is_some() {
            return self.plan.why.push(format!("job {name} is there already"));
        }
        match self.cron_job.spec.concurrency_policy.as_deref() {
            Some("Forbid") if !self.seen.active().is_empty() => {
                let message = "Not starting job because prior execution is running and concurrency policy is Forbid";
                self.plan.events.push(self.event(EventType::Normal, "JobAlreadyActive", message.to_owned()));
                return;
            }
            Some("Replace") => {
                let running: Vec<&Job> = jobs.iter().copied().filter(|job| self.seen.is_active(job)).collect();
                running.into_iter().for_each(|job| self.delete(job));
                self.seen.status.active = None;
            }
            _ => {}
        }
        self.plan.writes.push(Write::Create(Body::Job(Box::new(job))));
        let note = self.event(EventType::Normal, "SuccessfulCreate", format!("Created job {name}"));
        self.plan.writes.push(Write::Event(note));
    }

    fn end_old_jobs(&mut self, jobs: &[&Job]) {
        history::outdated(self.cron_job, jobs).into_iter().for_each(|job| self.delete(job));
    }

    fn delete(&mut self, job: &Job) {
        let name = job.metadata.name.clone().unwrap_or_default();
        let uid = job.metadata.uid.clone().unwrap_or_default();
        let key = Key::new(Kind::Job, self.key.namespace.clone(), name.clone());
        self.plan.writes.push(Write::Delete { key, uid, propagation: Propagation::Background });
        let note = self.event(EventType::Normal, "SuccessfulDelete", format!("Deleted job {name}"));
        self.plan.writes.push(Write::Event(note));
    }

    fn tell_refusal(&mut self, context: &Context) {
        let counts = context.refused.filter(|refusal| !is_outdated(refusal) && !namespace_is_ending(refusal));
        if let Some(refusal) = counts {
            self.warn("FailedCreate", format!("Error creating job: {}", refusal.message));
        }
    }

    /// The plan, with the status in front if it is not what it should be.
    fn finish(self) -> Plan {
        let mut front = Vec::new();
        if self.cron_job.status.as_ref() != Some(&self.seen.status) {
            let renewed = CronJob { status: Some(self.seen.status.clone()), ..self.cron_job.clone() };
            front.push(Write::Status(renewed.into_body()));
        }
        let told = self.seen.told.iter();
        front.extend(told.map(|(kind, reason, message)| Write::Event(self.event(*kind, reason, message.clone()))));
        let Turn { mut plan, .. } = self;
        front.append(&mut plan.writes);
        plan.writes = front;
        plan
    }

    fn warn(&mut self, reason: &'static str, message: String) {
        self.plan.why.push(message.clone());
        self.plan.events.push(self.event(EventType::Warning, reason, message));
    }

    fn event(&self, kind: EventType, reason: &'static str, message: String) -> EventNote {
        let uid = self.cron_job.metadata.uid.clone().unwrap_or_default();
        EventNote { regarding: self.key.clone(), uid, kind, reason, message, source: "cronjob-controller" }
    }
}

/// The Job of this time.
fn job(cron_job: &CronJob, schedule: &Schedule, time: Timestamp) -> Job {
    let template = &cron_job.spec.job_template;
    let meta = template.metadata.clone().unwrap_or_default();
    let mut annotations = meta.annotations.unwrap_or_default();
    let local = time.to_zoned(schedule.zone().clone());
    let text =
        if local.offset().is_zero() { time.to_string() } else { local.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string() };
    annotations.insert(SCHEDULED.to_owned(), text);
    Job {
        metadata: ObjectMeta {
            name: Some(job_name(cron_job, time)),
            namespace: cron_job.metadata.namespace.clone(),
            labels: meta.labels,
            annotations: Some(annotations),
            owner_references: Some(vec![claim::controller_reference(Kind::CronJob, &cron_job.metadata)]),
            ..Default::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}

/// `NAME-MINUTES`: one name for one time.
fn job_name(cron_job: &CronJob, time: Timestamp) -> String {
    format!("{}-{}", cron_job.metadata.name.as_deref().unwrap_or(""), time.as_second() / 60)
}

/// The time that a Job was made for; `None` if it is not one that the schedule made.
fn scheduled_time(cron_job: &CronJob, job: &Job) -> Option<Timestamp> {
    let time: Timestamp = job.metadata.annotations.as_ref()?.get(SCHEDULED)?.parse().ok()?;
    (job.metadata.name.as_deref() == Some(job_name(cron_job, time).as_str())).then_some(time)
}
