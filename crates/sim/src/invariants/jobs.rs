//! Jobs count each pod once and run no more than they may; CronJobs start one Job a time.

use std::collections::BTreeSet;
use std::sync::Arc;

use api::object::controller_of;
use api::{Kind, Object, Pod, Snapshot};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{CronJob, Job, JobCondition, JobSpec};
use k8s_openapi::api::core::v1::{Container, EnvVar};

use super::tally::{SCHEDULED, is_tracked};
use super::{Moment, Rest, Verdict};
use crate::facts;

fn spec(job: &Job) -> JobSpec {
    job.spec.clone().unwrap_or_default()
}

fn is_indexed(job: &Job) -> bool {
    spec(job).completion_mode.as_deref() == Some("Indexed")
}

fn pods<'a>(job: &Job, world: &'a Snapshot) -> Vec<&'a Pod> {
    world.controlled_by::<Pod>(facts::uid(&job.metadata)).collect()
}

/// The index of a pod.
pub fn index(pod: &Pod) -> Option<i64> {
    facts::number(&pod.metadata, "batch.kubernetes.io/job-completion-index")
}

/// The numbers of a list such as `0-2,5`.
fn indexes(text: &str) -> BTreeSet<i64> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.trim().parse().ok()?..=last.trim().parse().ok()?)
    };
    text.split(',').filter_map(range).flatten().collect()
}

fn job(object: Option<&Arc<Object>>) -> Option<&Job> {
    object.and_then(|object| object.get())
}

/// Told of a Job that has what its success policy asks for, while its pods are ended.
const SUCCEEDS: &str = "SuccessCriteriaMet";
/// Told of a Job that fails by a policy or a limit, while its pods are ended.
const FAILS: &str = "FailureTarget";

fn told<'a>(job: &'a Job, type_: &str) -> Option<&'a JobCondition> {
    let conditions = job.status.as_ref()?.conditions.as_deref()?;
    conditions.iter().find(|it| it.type_ == type_ && it.status == "True")
}

/// The actions of the failure policy's rules.
fn failure_actions(job: &Job) -> Vec<String> {
    let rules = spec(job).pod_failure_policy.map(|policy| policy.rules).unwrap_or_default();
    rules.into_iter().map(|rule| rule.action).collect()
}

fn ignores_failures(job: &Job) -> bool {
    failure_actions(job).iter().any(|action| action == "Ignore")
}

/// No Job runs more pods at once than it may, nor pods that nobody needs any more.
pub fn runs_no_more_than_it_may(moment: &Moment) -> Verdict {
    let (None, Some(pod)) = moment.pod() else { return Ok(()) };
    let Some(job) = facts::keeper::<Job>(&pod.metadata, moment.before).filter(|_| !moment.asked) else { return Ok(()) };
    let spec = spec(job);
    if facts::is_finished(job) || facts::is_deleted(&job.metadata) || spec.suspend == Some(true) {
        return Err("was made for a Job that has ended, is going or is suspended".into());
    }
    if let Some(end) = [SUCCEEDS, FAILS].into_iter().find(|type_| told(job, type_).is_some()) {
        return Err(format!("was made for a Job of which {end} is told"));
    }
    let there = pods(job, moment.after);
    let active = there.iter().filter(|pod| facts::is_active(pod)).count() as i32;
    let ending = there.iter().filter(|pod| !facts::is_active(pod) && !facts::has_ended(pod)).count() as i32;
    let parallelism = spec.parallelism.unwrap_or(1);
    let waits = spec.pod_replacement_policy.as_deref() == Some("Failed");
    if active + if waits { ending } else { 0 } > parallelism {
        return Err(format!("is one of {active} pods, and {ending} are ending, where {parallelism} may run"));
    }
    let seen = moment.tally.of(facts::uid(&job.metadata));
    if !ignores_failures(job) && seen.failed.len() as i64 > i64::from(spec.backoff_limit.unwrap_or(i32::MAX)) {
        return Err(format!("was made after {} failures", seen.failed.len()));
    }
    if is_indexed(job) {
        let mine = index(pod);
        let twin = there.iter().filter(|other| facts::is_active(other) && index(other) == mine).count() > 1;
        let over = mine.is_some_and(|mine| seen.succeeded_indexes.contains(&mine));
        return if twin || over { Err(format!("is of index {mine:?}, which runs or has succeeded")) } else { Ok(()) };
    }
    let left = spec.completions.map_or(i64::MAX, i64::from) - seen.succeeded.len() as i64;
    if i64::from(active) <= left { Ok(()) } else { Err(format!("is one of {active} pods where {left} are needed")) }
}

/// I8: a pod is made as its Job's template says, but for the index that its containers are told.
pub fn pods_are_as_their_template(moment: &Moment) -> Verdict {
    let (None, Some(pod)) = moment.pod() else { return Ok(()) };
    let Some(job) = facts::keeper::<Job>(&pod.metadata, moment.before).filter(|_| !moment.asked) else { return Ok(()) };
    let template = spec(job).template;
    let own = |mut container: Container| {
        let told = container.env.take().unwrap_or_default();
        let own: Vec<EnvVar> = told.into_iter().filter(|it| it.name != "JOB_COMPLETION_INDEX").collect();
        container.env = Some(own).filter(|own| !own.is_empty());
        container
    };
    let containers = pod.spec.as_deref().map(|spec| spec.containers.clone()).unwrap_or_default();
    let made: Vec<Container> = facts::without_token(containers).into_iter().map(own).collect();
    let labels = template.metadata.and_then(|meta| meta.labels).unwrap_or_default();
    let has = pod.metadata.labels.clone().unwrap_or_default();
    let labelled = labels.iter().all(|(name, value)| has.get(name) == Some(value));
    let same = template.spec.is_some_and(|spec| spec.containers == made);
    if same && labelled {
        Ok(())
    } else {
        Err(format!("is not as the template of {} says", facts::name(&job.metadata)))
    }
}

/// No Job counts a pod twice, or one that did not end so; and no count goes back.
pub fn counts_each_pod_once(moment: &Moment) -> Verdict {
    let (Some(before), Some(after)) = (job(moment.change.before.as_ref()), job(moment.change.after.as_ref())) else {
        return Ok(());
    };
    if before.status == after.status || moment.asked {
        return Ok(());
    }
    let counts = |job: &Job| {
        let status = job.status.clone().unwrap_or_default();
        let noted = status.uncounted_terminated_pods.unwrap_or_default();
        let succeeded = status.succeeded.unwrap_or(0) as usize + noted.succeeded.map_or(0, |uids| uids.len());
        (succeeded, status.failed.unwrap_or(0) as usize + noted.failed.map_or(0, |uids| uids.len()))
    };
    let (old, (succeeded, failed)) = (counts(before), counts(after));
    if (succeeded < old.0 && !is_indexed(after)) || failed < old.1 {
        return Err(format!("goes back from {old:?} to {:?}", (succeeded, failed)));
    }
    let seen = moment.tally.of(facts::uid(&after.metadata));
    let completed = after.status.as_ref().and_then(|status| status.completed_indexes.clone()).unwrap_or_default();
    let wrong: Vec<i64> = indexes(&completed).difference(&seen.succeeded_indexes).copied().collect();
    if !wrong.is_empty() {
        return Err(format!("tells that indexes {wrong:?} succeeded"));
    }
    if succeeded > seen.succeeded.len() || succeeded + failed > seen.made.len() {
        let (real, made) = (seen.succeeded.len(), seen.made.len());
        return Err(format!("counts {succeeded} good and {failed} bad ends of {made} pods, {real} of them good"));
    }
    Ok(())
}

/// A Job that says it is complete has what it asked for, and nothing of it runs.
pub fn complete_is_true(moment: &Moment) -> Verdict {
    let (Some(before), Some(after)) = (job(moment.change.before.as_ref()), job(moment.change.after.as_ref())) else {
        return Ok(());
    };
    let Some(end) = facts::job_end(after).filter(|_| !facts::is_finished(before) && !moment.asked) else {
        return Ok(());
    };
    let alive = pods(after, moment.before).into_iter().filter(|pod| !facts::has_ended(pod)).count();
    if alive > 0 {
        return Err(format!("is over while {alive} of its pods are there"));
    }
    if let Some(pod) = pods(after, moment.before).into_iter().find(|pod| is_tracked(pod)) {
        return Err(format!("is over though {} is not counted", facts::name(&pod.metadata)));
    }
    let (spec, status) = (spec(after), after.status.clone().unwrap_or_default());
    let succeeded = status.succeeded.unwrap_or(0);
    if end.type_ == "Complete" && told(after, SUCCEEDS).is_some_and(|it| it.reason.as_deref() == Some("SuccessPolicy"))
    {
        return success_is_as_the_policy_says(after, moment);
    }
    if end.type_ == "Complete" && spec.completions.is_some_and(|wanted| succeeded < wanted) {
        return Err(format!("is complete with {succeeded} of {:?}", spec.completions));
    }
    let limit = spec.backoff_limit.unwrap_or(i32::MAX);
    let failed = status.failed.unwrap_or(0);
    // Where containers are started again, their restarts count (upstream: pastBackoffLimitOnFailure).
    let restarts = spec.template.spec.is_some_and(|pod| pod.restart_policy.as_deref() == Some("OnFailure"));
    if end.reason.as_deref() == Some("BackoffLimitExceeded") && failed <= limit && !restarts {
        return Err(format!("gives up after {failed} failures where {limit} are allowed"));
    }
    Ok(())
}

/// A Job that is complete by its success policy has what a rule of it asks for.
fn success_is_as_the_policy_says(job: &Job, moment: &Moment) -> Verdict {
    let there = &moment.tally.of(facts::uid(&job.metadata)).succeeded_indexes;
    let rules = spec(job).success_policy.map(|policy| policy.rules).unwrap_or_default();
    let met = rules.iter().any(|rule| {
        let wanted = rule.succeeded_indexes.as_deref().map(indexes);
        let done = wanted.as_ref().map_or(there.len(), |wanted| wanted.intersection(there).count());
        let enough =
            rule.succeeded_count.map_or(wanted.map_or(usize::MAX, |wanted| wanted.len()), |count| count as usize);
        done >= enough
    });
    if met { Ok(()) } else { Err(format!("is complete by its policy, but only {there:?} succeeded")) }
}

/// A Job never succeeds and fails, takes neither back, and fails by a policy only for what the policy speaks of.
pub fn ends_one_way(moment: &Moment) -> Verdict {
    let (Some(before), Some(after)) = (job(moment.change.before.as_ref()), job(moment.change.after.as_ref())) else {
        return Ok(());
    };
    if before.status == after.status || moment.asked {
        return Ok(());
    }
    let good = told(after, SUCCEEDS).or(told(after, "Complete"));
    let bad = told(after, FAILS).or(told(after, "Failed"));
    if let (Some(good), Some(bad)) = (good, bad) {
        return Err(format!("tells {} and {}", good.type_, bad.type_));
    }
    let taken_back = [SUCCEEDS, FAILS].into_iter().find(|it| told(before, it).is_some() && told(after, it).is_none());
    if let Some(type_) = taken_back {
        return Err(format!("takes {type_} back"));
    }
    let Some(bad) = bad.filter(|it| told(before, FAILS).or(told(before, &it.type_)).is_none()) else { return Ok(()) };
    let failed = moment.tally.of(facts::uid(&after.metadata)).failed.len();
    match bad.reason.as_deref().unwrap_or_default() {
        "PodFailurePolicy" if failed == 0 || !failure_actions(after).iter().any(|it| it == "FailJob") => {
            Err(format!("fails by its policy after {failed} failures: {}", bad.message.as_deref().unwrap_or_default()))
        }
        "MaxFailedIndexesExceeded" => {
            let lost = after.status.as_ref().and_then(|status| status.failed_indexes.as_deref()).map(indexes);
            let (lost, most) = (lost.unwrap_or_default().len(), spec(after).max_failed_indexes);
            let beyond = most.is_some_and(|most| lost as i64 > i64::from(most));
            if beyond { Ok(()) } else { Err(format!("fails for {lost} failed indexes where {most:?} are allowed")) }
        }
        _ => Ok(()),
    }
}

/// A Job of a CronJob is made once for its time, not too late, and where that is forbidden not beside another.
pub fn starts_when_due(moment: &Moment) -> Verdict {
    let (None, Some(made)) = (&moment.change.before, job(moment.change.after.as_ref())) else { return Ok(()) };
    let keeper = facts::keeper::<CronJob>(&made.metadata, moment.before);
    let Some(cron_job) = keeper.filter(|_| !moment.asked) else { return Ok(()) };
    if cron_job.spec.suspend == Some(true) || facts::is_deleted(&cron_job.metadata) {
        return Err("was made though its CronJob is suspended or going".into());
    }
    let time: Option<Timestamp> =
        made.metadata.annotations.as_ref().and_then(|notes| notes.get(SCHEDULED)).and_then(|time| time.parse().ok());
    let time = time.ok_or("tells no time for which it was made")?;
    if moment.tally.was_started(&cron_job.metadata, time) {
        return Err(format!("was made for {time}, for which there was a Job already"));
    }
    let deadline = cron_job.spec.starting_deadline_seconds.map(|seconds| time + SignedDuration::from_secs(seconds));
    if time > moment.now || deadline.is_some_and(|deadline| deadline < moment.now) {
        return Err(format!("was made at {} for {time}", moment.now));
    }
    let running = unfinished(cron_job, moment.before);
    match cron_job.spec.concurrency_policy.as_deref() {
        Some("Forbid" | "Replace") if running > 0 => Err(format!("was made beside {running} others")),
        _ => Ok(()),
    }
}

fn unfinished(cron_job: &CronJob, world: &Snapshot) -> usize {
    let jobs = world.controlled_by::<Job>(facts::uid(&cron_job.metadata));
    jobs.filter(|job| !facts::is_finished(job) && !facts::is_deleted(&job.metadata)).count()
}

/// When nothing is left to decide, no CronJob is late: one that may run, and that no other Job stands in the way of, has
/// made the Job of the last time that its schedule names. Where a Job may be late for so long only, times may be left out.
pub fn are_on_time(world: &Snapshot, rest: &Rest) -> Verdict {
    let now = rest.now;
    for object in world.objects(Kind::CronJob, None) {
        let Some(cron_job) = object.get::<CronJob>().filter(|_| !facts::is_deleted(object.meta())) else { continue };
        let spec = &cron_job.spec;
        let may_run = spec.suspend != Some(true) && facts::namespace_stays(object.namespace(), world);
        let last = cron_job.status.as_ref().and_then(|status| status.last_schedule_time.as_ref());
        let last = last.or(cron_job.metadata.creation_timestamp.as_ref()).map(|time| time.0);
        let due = last.and_then(|last| next(&spec.schedule, last));
        let Some(due) = due.filter(|_| may_run && spec.starting_deadline_seconds.is_none()) else { continue };
        let mut mine = world.controlled_by::<Job>(object.uid());
        let waits = spec.concurrency_policy.as_deref() == Some("Forbid") && mine.any(|job| !facts::is_finished(job));
        // Jobs are named by the minute: another Job of that name stands in the way.
        let mut minutes = due.as_second() / 60..=now.as_second() / 60;
        let taken = minutes.any(|minute| {
            world.object(Kind::Job, object.namespace(), &format!("{}-{minute}", object.name())).is_some()
        });
        if due < now && !waits && !taken {
            return Err(format!("{} of {} has made no Job for {due}", object.key(), spec.schedule));
        }
    }
    Ok(())
}

/// The first time after `last` that a schedule names; the simulator uses no others than these.
fn next(schedule: &str, last: Timestamp) -> Option<Timestamp> {
    let second = match schedule.strip_prefix("@every ") {
        Some(period) => last.as_second() + period.strip_suffix('s')?.parse::<i64>().ok()?,
        None => {
            let minutes = if schedule == "* * * * *" { 1 } else { 2 };
            (last.as_second() / (60 * minutes) + 1) * 60 * minutes
        }
    };
    Timestamp::from_second(second).ok()
}

/// A CronJob ends only Jobs that are over, unless it replaces them.
pub fn ends_only_finished_jobs(moment: &Moment) -> Verdict {
    let (Some(before), after) = (job(moment.change.before.as_ref()), job(moment.change.after.as_ref())) else {
        return Ok(());
    };
    let ends = after.is_none_or(|after| facts::is_deleted(&after.metadata));
    if !ends || moment.asked || facts::is_deleted(&before.metadata) || facts::is_finished(before) {
        return Ok(());
    }
    let there = moment.was.is_some_and(|it| !facts::is_deleted(it.meta()));
    let namespace = before.metadata.namespace.as_deref().unwrap_or("");
    let keeper =
        facts::keeper::<CronJob>(&before.metadata, moment.before).filter(|it| !facts::is_deleted(&it.metadata));
    let Some(cron_job) = keeper.filter(|_| there && facts::namespace_stays(namespace, moment.before)) else {
        let owned = controller_of(&before.metadata).is_some();
        let stays = there && facts::namespace_stays(namespace, moment.before);
        return if owned || !stays { Ok(()) } else { Err("was ended though it is not over".into()) };
    };
    match cron_job.spec.concurrency_policy.as_deref() {
        Some("Replace") => Ok(()),
        _ => Err("was ended though it is not over".into()),
    }
}

/// When all is healed: every Job is over and every CronJob has no more history than it may.
pub fn arrive(world: &Snapshot) -> Verdict {
    for job in world.list::<Job>(None) {
        let name = facts::name(&job.metadata);
        if !facts::is_finished(job) {
            return Err(format!("Job {name} does not come to an end: {:?}", job.status));
        }
        let held = pods(job, world).into_iter().find(|pod| is_tracked(pod) || facts::is_active(pod));
        if let Some(pod) = held {
            return Err(format!("Job {name} is over, but {} runs or is held", facts::name(&pod.metadata)));
        }
    }
    for cron_job in world.list::<CronJob>(None) {
        let name = facts::name(&cron_job.metadata);
        let jobs: Vec<&Job> = world.controlled_by::<Job>(facts::uid(&cron_job.metadata)).collect();
        let kept =
            |type_: &str| jobs.iter().filter(|job| facts::job_end(job).is_some_and(|it| it.type_ == type_)).count();
        let (good, bad) = (kept("Complete") as i32, kept("Failed") as i32);
        let spec = &cron_job.spec;
        if good > spec.successful_jobs_history_limit.unwrap_or(3) || bad > spec.failed_jobs_history_limit.unwrap_or(1) {
            return Err(format!("CronJob {name} keeps {good} good and {bad} bad Jobs"));
        }
        if cron_job.status.as_ref().is_some_and(|status| status.active.iter().flatten().next().is_some()) {
            return Err(format!("CronJob {name} tells of active Jobs where none runs"));
        }
    }
    Ok(())
}
