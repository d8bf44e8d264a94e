use expect_test::expect;
use proptest::prelude::*;
use serde_json::{Value, json};

use api::{Kind, Snapshot, Typed, Write};
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{CronJob, Job};

use crate::testing::{World, show};
use crate::{Controller, job};

/// A world at 12:00 with the CronJob `hello`, made at 10:30, and its Jobs: `NAME TIME [complete TIME|failed]`.
fn world(spec: Value, status: Value, jobs: &[&str]) -> World {
    let mut world = World::new();
    let mut spec = spec;
    let template = json!({ "spec": { "restartPolicy": "Never", "containers": [{ "name": "c", "image": "hi" }] } });
    spec["jobTemplate"] = json!({ "metadata": { "labels": { "a": "b" } }, "spec": { "template": template } });
    let body = json!({ "metadata": { "name": "hello", "namespace": "default", "uid": "uid-hello", "generation": 1,
        "creationTimestamp": "2026-01-01T10:30:00Z" }, "spec": spec });
    let mut body = Kind::CronJob.decode(body).unwrap();
    api::defaults::apply(&mut body);
    let mut value = body.to_value();
    value["status"] = status;
    world.store(Kind::CronJob, value);
    jobs.iter().for_each(|words| store_job(&mut world, &words.split_whitespace().collect::<Vec<_>>()));
    world
}

fn store_job(world: &mut World, words: &[&str]) {
    let (name, time) = (words[0], words[1]);
    let end = |type_: &str| json!([{ "type": type_, "status": "True" }]);
    let status = match words.get(2).copied() {
        Some("complete") => json!({ "startTime": time, "completionTime": words[3], "conditions": end("Complete") }),
        Some("failed") => json!({ "startTime": time, "conditions": end("Failed") }),
        _ => json!({ "startTime": time, "active": 1 }),
    };
    let annotations = if name.starts_with("hello-") { json!({ super::SCHEDULED: time }) } else { json!({}) };
    let body = json!({
        "metadata": { "name": name, "namespace": "default", "uid": format!("uid-{name}"), "annotations": annotations, "creationTimestamp": time,
            "ownerReferences": [{ "apiVersion": "batch/v1", "kind": "CronJob", "name": "hello", "uid": "uid-hello", "controller": true }] },
        "spec": { "template": {}, "selector": { "matchLabels": { "x": name } }, "suspend": true }, "status": status,
    });
    world.store(Kind::Job, body);
}

fn plan(spec: Value, status: Value, jobs: &[&str]) -> String {
    let title = format!("{spec} {jobs:?}\n");
    title + &show(&world(spec, status, jobs).plan(Controller::CronJob, Kind::CronJob, "hello")) + "\n"
}

fn last(time: &str) -> Value {
    json!({ "lastScheduleTime": time })
}

fn active(name: &str, time: &str) -> Value {
    json!({ "lastScheduleTime": time, "active": [{ "name": name, "uid": format!("uid-{name}"), "kind": "Job" }] })
}

/// Upstream: TestControllerV2SyncCronJob.
#[test]
fn is_due_or_not() {
    let hourly = |more: Value| {
        let mut spec = json!({ "schedule": "0 * * * *" });
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        spec
    };
    let now = "2026-01-01T12:00:00Z";
    let text = [
        plan(hourly(json!({})), json!({}), &[]),
        plan(hourly(json!({})), last(now), &[]),
        plan(json!({ "schedule": "30 * * * *" }), last("2026-01-01T11:30:00Z"), &[]),
        plan(hourly(json!({ "suspend": true })), json!({}), &[]),
        plan(hourly(json!({ "timeZone": "Asia/Shanghai" })), last("2026-01-01T11:00:00Z"), &[]),
        plan(json!({ "schedule": "0 0 1 1 *" }), last("2025-01-01T00:00:00Z"), &[]),
        plan(json!({ "schedule": "30 11 * * *", "startingDeadlineSeconds": 60 }), last("2025-12-31T11:30:00Z"), &[]),
        plan(json!({ "schedule": "* * * * *" }), json!({ "lastScheduleTime": "2026-01-01T10:00:00Z" }), &[]),
        plan(
            json!({ "schedule": "* * * * *", "startingDeadlineSeconds": 90 }),
            json!({ "lastScheduleTime": "2026-01-01T10:00:00Z" }),
            &[],
        ),
        plan(
            hourly(json!({ "concurrencyPolicy": "Forbid" })),
            active("hello-29454420", "2026-01-01T11:00:00Z"),
            &["hello-29454420 2026-01-01T11:00:00Z"],
        ),
        plan(
            hourly(json!({ "concurrencyPolicy": "Replace" })),
            active("hello-29454420", "2026-01-01T11:00:00Z"),
            &["hello-29454420 2026-01-01T11:00:00Z"],
        ),
        plan(
            hourly(json!({})),
            active("hello-29454420", "2026-01-01T11:00:00Z"),
            &["hello-29454420 2026-01-01T11:00:00Z"],
        ),
        plan(json!({ "schedule": "nonsense" }), json!({}), &[]),
        // What runs every so often keeps to its times, however late it is looked at (upstream: "with @every schedule, prev
        // ran but done, not time").
        plan(json!({ "schedule": "@every 1h" }), last("2026-01-01T11:59:00Z"), &[]),
        plan(
            json!({ "schedule": "@every 1h", "concurrencyPolicy": "Forbid" }),
            active("hello-29454415", "2026-01-01T10:55:00Z"),
            &["hello-29454415 2026-01-01T10:55:00Z"],
        ),
        plan(json!({ "schedule": "59 23 31 2 *" }), json!({}), &[]),
        plan(hourly(json!({ "timeZone": "Europe/London" })), last("2026-01-01T11:00:00Z"), &[]),
    ]
    .concat();
    expect![[r#"
        {"schedule":"0 * * * *"} []
        create Job hello-29454480 cronjob-scheduled-timestamp=2026-01-01T12:00:00Z
        event SuccessfulCreate Created job hello-29454480
        why is next due at 2026-01-01T13:00:00Z
        wake at 2026-01-01T13:00:00Z

        {"schedule":"0 * * * *"} []
        why is next due at 2026-01-01T13:00:00Z
        wake at 2026-01-01T13:00:00Z

        {"schedule":"30 * * * *"} []
        why is next due at 2026-01-01T12:30:00Z
        wake at 2026-01-01T12:30:00Z

        {"schedule":"0 * * * *","suspend":true} []
        why it is suspended

        {"schedule":"0 * * * *","timeZone":"Asia/Shanghai"} []
        create Job hello-29454480 cronjob-scheduled-timestamp=2026-01-01T20:00:00+08:00
        event SuccessfulCreate Created job hello-29454480
        why is next due at 2026-01-01T13:00:00Z
        wake at 2026-01-01T13:00:00Z

        {"schedule":"0 0 1 1 *"} []
        create Job hello-29453760 cronjob-scheduled-timestamp=2026-01-01T00:00:00Z
        event SuccessfulCreate Created job hello-29453760
        why is next due at 2027-01-01T00:00:00Z
        wake at 2027-01-01T00:00:00Z

        {"schedule":"30 11 * * *","startingDeadlineSeconds":60} []
        why is next due at 2026-01-02T11:30:00Z
        wake at 2026-01-02T11:30:00Z

        {"schedule":"* * * * *"} []
        create Job hello-29454480 cronjob-scheduled-timestamp=2026-01-01T12:00:00Z
        event SuccessfulCreate Created job hello-29454480
        event TooManyMissedTimes too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew
        why is next due at 2026-01-01T12:01:00Z
        why too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew
        wake at 2026-01-01T12:01:00Z

        {"schedule":"* * * * *","startingDeadlineSeconds":90} []
        create Job hello-29454480 cronjob-scheduled-timestamp=2026-01-01T12:00:00Z
        event SuccessfulCreate Created job hello-29454480
        why is next due at 2026-01-01T12:01:00Z
        wake at 2026-01-01T12:01:00Z

        {"concurrencyPolicy":"Forbid","schedule":"0 * * * *"} ["hello-29454420 2026-01-01T11:00:00Z"]
        event JobAlreadyActive Not starting job because prior execution is running and concurrency policy is Forbid
        why is next due at 2026-01-01T13:00:00Z
        wake at 2026-01-01T13:00:00Z

        {"concurrencyPolicy":"Replace","schedule":"0 * * * *"} ["hello-29454420 2026-01-01T11:00:00Z"]
        status CronJob hello active [] last 2026-01-01T11:00:00Z successful never
        delete Job hello-29454420
        event SuccessfulDelete Deleted job hello-29454420
        create Job hello-29454480 cronjob-scheduled-timestamp=2026-01-01T12:00:00Z
        event SuccessfulCreate Created job hello-29454480
        why is next due at 2026-01-01T13:00:00Z
        wake at 2026-01-01T13:00:00Z

        {"schedule":"0 * * * *"} ["hello-29454420 2026-01-01T11:00:00Z"]
        create Job hello-29454480 cronjob-scheduled-timestamp=2026-01-01T12:00:00Z
        event SuccessfulCreate Created job hello-29454480
        why is next due at 2026-01-01T13:00:00Z
        wake at 2026-01-01T13:00:00Z

        {"schedule":"nonsense"} []
        event UnparseableSchedule unparseable schedule: "nonsense" : expected exactly 5 fields, found 1: [nonsense]
        why unparseable schedule: "nonsense" : expected exactly 5 fields, found 1: [nonsense]

        {"schedule":"@every 1h"} []
        why is next due at 2026-01-01T12:59:00Z
        wake at 2026-01-01T12:59:00Z

        {"concurrencyPolicy":"Forbid","schedule":"@every 1h"} ["hello-29454415 2026-01-01T10:55:00Z"]
        event JobAlreadyActive Not starting job because prior execution is running and concurrency policy is Forbid
        why is next due at 2026-01-01T12:55:00Z
        wake at 2026-01-01T12:55:00Z

        {"schedule":"59 23 31 2 *"} []
        event InvalidSchedule invalid schedule: 59 23 31 2 * : it is never due
        why invalid schedule: 59 23 31 2 * : it is never due

        {"schedule":"0 * * * *","timeZone":"Europe/London"} []
        create Job hello-29454480 cronjob-scheduled-timestamp=2026-01-01T12:00:00Z
        event SuccessfulCreate Created job hello-29454480
        why is next due at 2026-01-01T13:00:00Z
        wake at 2026-01-01T13:00:00Z

    "#]].assert_eq(&text);
}

/// Upstream: TestControllerV2CleanupFinishedJobs, and the status of TestControllerV2SyncCronJob.
#[test]
fn looks_at_its_jobs() {
    let yearly = |more: Value| {
        let mut spec = json!({ "schedule": "0 0 1 6 *" });
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        spec
    };
    let done = [
        "hello-29454360 2026-01-01T10:00:00Z complete 2026-01-01T10:00:09Z",
        "hello-29454420 2026-01-01T11:00:00Z complete 2026-01-01T11:00:07Z",
    ];
    let text = [
        // Made, but not noted down: a crash came in between.
        plan(yearly(json!({})), last("2026-01-01T10:00:00Z"), &["hello-29454420 2026-01-01T11:00:00Z"]),
        plan(yearly(json!({})), active("hello-29454420", "2026-01-01T11:00:00Z"), &[done[1]]),
        plan(
            yearly(json!({})),
            active("hello-29454420", "2026-01-01T11:00:00Z"),
            &["hello-29454420 2026-01-01T11:00:00Z failed"],
        ),
        plan(yearly(json!({})), active("hello-29454420", "2026-01-01T11:00:00Z"), &[]),
        plan(yearly(json!({})), json!({}), &["by-hand 2026-01-01T11:00:00Z"]),
        plan(
            yearly(json!({ "successfulJobsHistoryLimit": 1, "failedJobsHistoryLimit": 0 })),
            last("2026-01-01T11:00:00Z"),
            &[done[0], done[1], "hello-29454300 2026-01-01T09:00:00Z failed"],
        ),
    ]
    .concat();
    expect![[r#"
        {"schedule":"0 0 1 6 *"} ["hello-29454420 2026-01-01T11:00:00Z"]
        status CronJob hello active [hello-29454420] last 2026-01-01T11:00:00Z successful never
        why is next due at 2026-06-01T00:00:00Z
        wake at 2026-06-01T00:00:00Z

        {"schedule":"0 0 1 6 *"} ["hello-29454420 2026-01-01T11:00:00Z complete 2026-01-01T11:00:07Z"]
        status CronJob hello active [] last 2026-01-01T11:00:00Z successful 2026-01-01T11:00:07Z
        event SawCompletedJob Saw completed job: hello-29454420, condition: Complete
        why is next due at 2026-06-01T00:00:00Z
        wake at 2026-06-01T00:00:00Z

        {"schedule":"0 0 1 6 *"} ["hello-29454420 2026-01-01T11:00:00Z failed"]
        status CronJob hello active [] last 2026-01-01T11:00:00Z successful never
        event SawCompletedJob Saw completed job: hello-29454420, condition: Failed
        why is next due at 2026-06-01T00:00:00Z
        wake at 2026-06-01T00:00:00Z

        {"schedule":"0 0 1 6 *"} []
        status CronJob hello active [] last 2026-01-01T11:00:00Z successful never
        event MissingJob Active job went missing: hello-29454420
        why is next due at 2026-06-01T00:00:00Z
        wake at 2026-06-01T00:00:00Z

        {"schedule":"0 0 1 6 *"} ["by-hand 2026-01-01T11:00:00Z"]
        event UnexpectedJob Saw a job that the controller did not create or forgot: by-hand
        why is next due at 2026-06-01T00:00:00Z
        wake at 2026-06-01T00:00:00Z

        {"failedJobsHistoryLimit":0,"schedule":"0 0 1 6 *","successfulJobsHistoryLimit":1} ["hello-29454360 2026-01-01T10:00:00Z complete 2026-01-01T10:00:09Z", "hello-29454420 2026-01-01T11:00:00Z complete 2026-01-01T11:00:07Z", "hello-29454300 2026-01-01T09:00:00Z failed"]
        status CronJob hello active [] last 2026-01-01T11:00:00Z successful 2026-01-01T11:00:07Z
        delete Job hello-29454360
        event SuccessfulDelete Deleted job hello-29454360
        delete Job hello-29454300
        event SuccessfulDelete Deleted job hello-29454300
        why is next due at 2026-06-01T00:00:00Z
        wake at 2026-06-01T00:00:00Z

    "#]].assert_eq(&text);
}

/// One that forbids concurrency has one Job, whatever happens and whenever the decisions are cut off.
fn one_at_a_time(_: &Snapshot, after: &Snapshot, write: &Write, _: Timestamp) {
    if let Write::Create(_) = write {
        let running = after.list::<Job>(None).filter(|job| job::finished(job).is_none()).count();
        assert!(running <= 1, "{running} jobs at once");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn forbids_concurrency(steps in prop::collection::vec((0..400i64, any::<bool>(), any::<bool>()), 1..40)) {
        let mut world = world(json!({ "schedule": "* * * * *", "concurrencyPolicy": "Forbid" }), json!({}), &[]);
        world.check = one_at_a_time;
        world.wake_all();
        for (seconds, ends, restarts) in steps {
            world.settle();
            if restarts {
                world.wake_all();
                world.settle();
            }
            if ends {
                finish_all(&mut world);
            }
            world.advance(seconds);
        }
        world.settle();
        let made: Vec<&Job> = world.snapshot.list::<Job>(None).collect();
        prop_assert!(made.len() <= 4 + 1);
        finish_all(&mut world);
        world.settle();
        finish_all(&mut world);
        world.settle();
        world.wake_all();
        prop_assert_eq!(world.settle(), 0);
        let status = world.snapshot.get::<CronJob>("default", "hello").unwrap().status.clone().unwrap();
        prop_assert!(status.active.is_none() && status.last_schedule_time.is_some());
    }
}

fn finish_all(world: &mut World) {
    let running: Vec<Job> =
        world.snapshot.list::<Job>(None).filter(|job| job::finished(job).is_none()).cloned().collect();
    for mut job in running {
        let end = json!([{ "type": "Complete", "status": "True", "lastTransitionTime": world.now }]);
        let status = job.status.get_or_insert_default();
        status.conditions = serde_json::from_value(end).unwrap();
        status.completion_time = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(world.now));
        world.carry_out(Write::Status(job.into_body()), &mut String::new()).unwrap();
    }
}
