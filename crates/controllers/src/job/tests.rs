use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

use expect_test::expect;
use proptest::prelude::*;
use serde_json::{Value, json};

use api::{Kind, Object, Pod, Propagation, Refusal, Snapshot, Typed, Write};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::Job;

use super::terms;
use crate::testing::{World, job_status, show};
use crate::{Controller, pods};

/// A world with the Job `pi` of this spec and pods, oldest first. A pod is a phase and words: `deleted`, `counted`,
/// `ready`, `index N`, `failures N`, `exit N`, `restarts N`, `condition TYPE`, `ago SECONDS` (when it ended).
fn world(spec: Value, status: Value, described: &[&str]) -> World {
    let mut world = World::new();
    let mut spec = spec;
    let policy = spec.as_object_mut().unwrap().remove("restartPolicy").unwrap_or(json!("Never"));
    spec["template"] = json!({ "spec": { "restartPolicy": policy, "containers": [{ "name": "c", "image": "pi" }] } });
    let body = json!({ "metadata": { "name": "pi", "namespace": "default", "uid": "uid-pi",
        "creationTimestamp": "2026-01-01T11:00:00Z" }, "spec": spec });
    let mut body = Kind::Job.decode(body).unwrap();
    api::prepare::create(&mut body);
    let problems = api::validate::create(&body);
    problems.refuse(&body).unwrap();
    let mut value = body.to_value();
    value["status"] = status;
    world.store(Kind::Job, value);
    for (number, words) in described.iter().enumerate() {
        let pod = pod(&world, number, &words.split_whitespace().collect::<Vec<_>>());
        world.store(Kind::Pod, pod);
    }
    world
}

fn pod(world: &World, number: usize, words: &[&str]) -> Value {
    let given = |name: &str| words.iter().position(|word| *word == name).map(|at| words[at + 1]);
    let ago = given("ago").map_or(3600, |text| text.parse().unwrap());
    let ended = world.now.checked_sub(SignedDuration::from_secs(ago)).unwrap();
    let mut annotations = serde_json::Map::new();
    for (word, key) in [("index", terms::COMPLETION_INDEX), ("failures", terms::INDEX_FAILURES)] {
        given(word).into_iter().for_each(|value| drop(annotations.insert(key.into(), json!(value))));
    }
    let finalizers: &[&str] = if words.contains(&"counted") { &[] } else { &[terms::TRACKING_FINALIZER] };
    let restarts: i32 = given("restarts").map_or(0, |text| text.parse().unwrap());
    let over = matches!(words[0], "Succeeded" | "Failed");
    let state = match words[0] {
        "Succeeded" => json!({ "terminated": { "exitCode": 0, "finishedAt": ended } }),
        "Failed" => {
            let code: i32 = given("exit").map_or(1, |text| text.parse().unwrap());
            json!({ "terminated": { "exitCode": code, "finishedAt": ended } })
        }
        _ => json!({}),
    };
    let conditions: Vec<Value> = [("condition", ""), ("ready", "Ready")]
        .into_iter()
        .filter_map(|(word, type_)| {
            let at = words.iter().position(|it| *it == word)?;
            let type_ = if type_.is_empty() { words[at + 1] } else { type_ };
            Some(json!({ "type": type_, "status": "True", "lastTransitionTime": ended }))
        })
        .collect();
    let mut pod = json!({
        "metadata": { "name": format!("pi-{number}"), "namespace": "default", "uid": format!("u{number}"),
            "labels": { terms_uid_label(): "uid-pi" }, "annotations": annotations, "finalizers": finalizers,
            "creationTimestamp": "2026-01-01T11:00:00Z",
            "ownerReferences": [{ "apiVersion": "batch/v1", "kind": "Job", "name": "pi", "uid": "uid-pi", "controller": true }] },
        "spec": { "nodeName": "n1", "containers": [{ "name": "c", "image": "pi" }] },
        "status": { "phase": words[0], "conditions": conditions, "containerStatuses": [{ "name": "c", "image": "pi", "imageID": "",
            "ready": !over, "restartCount": restarts, "state": state }] },
    });
    if words.contains(&"deleted") {
        pod["metadata"]["deletionTimestamp"] = json!(world.now);
    }
    pod
}

fn terms_uid_label() -> &'static str {
    api::prepare::CONTROLLER_UID_LABEL
}

fn plan(spec: Value, status: Value, pods: &[&str]) -> String {
    let title = format!("{spec} {pods:?}\n");
    title + &show(&world(spec, status, pods).plan(Controller::Job, Kind::Job, "pi")) + "\n"
}

fn fresh(spec: Value, pods: &[&str]) -> String {
    plan(spec, json!({ "startTime": "2026-01-01T11:30:00Z" }), pods)
}

/// Upstream: TestControllerSyncJob.
#[test]
fn makes_and_ends() {
    let text = [
        fresh(json!({ "completions": 5, "parallelism": 2 }), &[]),
        fresh(json!({ "parallelism": 2 }), &[]),
        fresh(json!({ "completions": 5, "parallelism": 2 }), &["Running", "Pending"]),
        fresh(json!({ "completions": 5, "parallelism": 2 }), &["Running", "Pending", "Running ready"]),
        fresh(json!({ "completions": 2, "parallelism": 5 }), &["Succeeded", "Running"]),
        fresh(json!({ "completions": 2, "parallelism": 2 }), &["Running", "Running deleted"]),
        fresh(
            json!({ "completions": 2, "parallelism": 2, "podReplacementPolicy": "Failed" }),
            &["Running", "Running deleted"],
        ),
        // With no number of completions, one success lets the others go on and none be made.
        fresh(json!({ "parallelism": 2 }), &["Running", "Succeeded"]),
        fresh(json!({ "parallelism": 2 }), &["Succeeded", "Succeeded"]),
        fresh(json!({ "completions": 3, "parallelism": 0 }), &["Running"]),
        fresh(json!({ "completions": 0, "parallelism": 1 }), &[]),
    ]
    .concat();
    expect![[r#"
        {"completions":5,"parallelism":2} []
        create Pod pi-? of pi held by batch.kubernetes.io/job-tracking
        event SuccessfulCreate Created pod: {created}
        create Pod pi-? of pi held by batch.kubernetes.io/job-tracking
        event SuccessfulCreate Created pod: {created}

        {"parallelism":2} []
        create Pod pi-? of pi held by batch.kubernetes.io/job-tracking
        event SuccessfulCreate Created pod: {created}
        create Pod pi-? of pi held by batch.kubernetes.io/job-tracking
        event SuccessfulCreate Created pod: {created}

        {"completions":5,"parallelism":2} ["Running", "Pending"]
        status Job pi active 2

        {"completions":5,"parallelism":2} ["Running", "Pending", "Running ready"]
        update Pod pi-1 of pi
        delete Pod pi-1
        event SuccessfulDelete Deleted pod: pi-1

        {"completions":2,"parallelism":5} ["Succeeded", "Running"]
        status Job pi active 1 uncounted-succeeded u0
        update Pod pi-0 of pi

        {"completions":2,"parallelism":2} ["Running", "Running deleted"]
        status Job pi active 1 terminating 1 uncounted-failed u1
        update Pod pi-1 of pi
        why backs off until 2026-01-01T12:00:10Z after failed pods
        wake at 2026-01-01T12:00:10Z

        {"completions":2,"parallelism":2,"podReplacementPolicy":"Failed"} ["Running", "Running deleted"]
        status Job pi active 1 terminating 1
        why waits until 1 pods have ended

        {"parallelism":2} ["Running", "Succeeded"]
        status Job pi active 1 uncounted-succeeded u1
        update Pod pi-1 of pi

        {"parallelism":2} ["Succeeded", "Succeeded"]
        status Job pi uncounted-succeeded u0,u1 SuccessCriteriaMet=True CompletionsReached (Reached expected number of succeeded pods)
        update Pod pi-0 of pi
        update Pod pi-1 of pi
        why CompletionsReached: Reached expected number of succeeded pods; its pods are ended and counted

        {"completions":3,"parallelism":0} ["Running"]
        update Pod pi-0 of pi
        delete Pod pi-0
        event SuccessfulDelete Deleted pod: pi-0

        {"completions":0,"parallelism":1} []
        status Job pi SuccessCriteriaMet=True CompletionsReached (Reached expected number of succeeded pods)
        why CompletionsReached: Reached expected number of succeeded pods; its pods are ended and counted

    "#]].assert_eq(&text);
}

/// A pod that failed a moment ago holds the next one back; a success since then does not.
#[test]
fn backs_off() {
    let two = json!({ "completions": 2, "parallelism": 1 });
    let text = [
        fresh(two.clone(), &["Failed ago 4"]),
        fresh(two.clone(), &["Failed ago 30", "Failed ago 4"]),
        fresh(two.clone(), &["Failed counted ago 30", "Failed counted ago 21"]),
        fresh(two.clone(), &["Failed ago 4", "Succeeded ago 2"]),
        fresh(two, &["Failed deleted counted ago 4"]),
    ]
    .concat();
    expect![[r#"
        {"completions":2,"parallelism":1} ["Failed ago 4"]
        status Job pi uncounted-failed u0
        update Pod pi-0 of pi
        why backs off until 2026-01-01T12:00:06Z after failed pods
        wake at 2026-01-01T12:00:06Z

        {"completions":2,"parallelism":1} ["Failed ago 30", "Failed ago 4"]
        status Job pi uncounted-failed u0,u1
        update Pod pi-0 of pi
        update Pod pi-1 of pi
        why backs off until 2026-01-01T12:00:16Z after failed pods
        wake at 2026-01-01T12:00:16Z

        {"completions":2,"parallelism":1} ["Failed counted ago 30", "Failed counted ago 21"]
        create Pod pi-? of pi held by batch.kubernetes.io/job-tracking
        event SuccessfulCreate Created pod: {created}

        {"completions":2,"parallelism":1} ["Failed ago 4", "Succeeded ago 2"]
        status Job pi uncounted-succeeded u1 uncounted-failed u0
        update Pod pi-0 of pi
        update Pod pi-1 of pi
        create Pod pi-? of pi held by batch.kubernetes.io/job-tracking
        event SuccessfulCreate Created pod: {created}

        {"completions":2,"parallelism":1} ["Failed deleted counted ago 4"]
        create Pod pi-? of pi held by batch.kubernetes.io/job-tracking
        event SuccessfulCreate Created pod: {created}

    "#]]
    .assert_eq(&text);
}

/// Upstream: TestTrackJobStatusAndRemoveFinalizers, TestSyncJobPastDeadline, TestPastBackoffLimitOnFailure.
#[test]
fn ends() {
    let limit = json!({ "completions": 3, "parallelism": 2, "backoffLimit": 1 });
    let marked = |type_: &str, reason: &str| json!({ "startTime": "2026-01-01T11:30:00Z", "conditions": [{ "type": type_, "status": "True", "reason": reason, "message": "so" }] });
    let noted = |list: &str, uids: &[&str]| json!({ "startTime": "2026-01-01T11:30:00Z", "succeeded": 1, "uncountedTerminatedPods": { list: uids } });
    let text = [
        fresh(json!({ "completions": 1 }), &["Succeeded"]),
        plan(json!({ "completions": 2 }), noted("succeeded", &["u0"]), &["Succeeded"]),
        plan(json!({ "completions": 2 }), noted("succeeded", &["u0"]), &["Succeeded counted"]),
        plan(json!({ "completions": 2 }), noted("succeeded", &["gone"]), &[]),
        plan(json!({ "completions": 1 }), marked("SuccessCriteriaMet", "CompletionsReached"), &["Succeeded counted"]),
        plan(
            json!({ "completions": 1 }),
            marked("SuccessCriteriaMet", "CompletionsReached"),
            &["Running deleted counted"],
        ),
        fresh(limit.clone(), &["Failed ago 50", "Failed ago 4", "Running ready"]),
        plan(limit.clone(), marked("FailureTarget", "BackoffLimitExceeded"), &["Running deleted counted"]),
        plan(limit, marked("FailureTarget", "BackoffLimitExceeded"), &["Failed counted"]),
        fresh(json!({ "activeDeadlineSeconds": 1800 }), &["Running"]),
        fresh(json!({ "activeDeadlineSeconds": 1801 }), &["Running"]),
        fresh(json!({ "restartPolicy": "OnFailure", "backoffLimit": 3 }), &["Running restarts 3"]),
        fresh(json!({ "restartPolicy": "OnFailure", "backoffLimit": 3 }), &["Running restarts 2"]),
        plan(json!({}), marked("Complete", "CompletionsReached"), &["Succeeded"]),
        plan(json!({ "managedBy": "example.com/other" }), json!({}), &[]),
    ]
    .concat();
    expect![[r#"
        {"completions":1} ["Succeeded"]
        status Job pi uncounted-succeeded u0 SuccessCriteriaMet=True CompletionsReached (Reached expected number of succeeded pods)
        update Pod pi-0 of pi
        why CompletionsReached: Reached expected number of succeeded pods; its pods are ended and counted

        {"completions":2} ["Succeeded"]
        status Job pi succeeded 1 uncounted-succeeded u0 SuccessCriteriaMet=True CompletionsReached (Reached expected number of succeeded pods)
        update Pod pi-0 of pi
        why CompletionsReached: Reached expected number of succeeded pods; its pods are ended and counted

        {"completions":2} ["Succeeded counted"]
        status Job pi succeeded 2 SuccessCriteriaMet=True CompletionsReached (Reached expected number of succeeded pods)
        why CompletionsReached: Reached expected number of succeeded pods; its pods are ended and counted

        {"completions":2} []
        status Job pi succeeded 2 SuccessCriteriaMet=True CompletionsReached (Reached expected number of succeeded pods)
        why CompletionsReached: Reached expected number of succeeded pods; its pods are ended and counted

        {"completions":1} ["Succeeded counted"]
        status Job pi SuccessCriteriaMet=True CompletionsReached (so) Complete=True CompletionsReached (so)
        event Completed Job completed
        why CompletionsReached: so; its pods are ended and counted

        {"completions":1} ["Running deleted counted"]
        status Job pi terminating 1 SuccessCriteriaMet=True CompletionsReached (so)
        why CompletionsReached: so; its pods are ended and counted

        {"backoffLimit":1,"completions":3,"parallelism":2} ["Failed ago 50", "Failed ago 4", "Running ready"]
        status Job pi active 1 ready 1 uncounted-failed u0,u1,u2 FailureTarget=True BackoffLimitExceeded (Job has reached the specified backoff limit)
        update Pod pi-0 of pi
        update Pod pi-1 of pi
        update Pod pi-2 of pi
        delete Pod pi-2
        event SuccessfulDelete Deleted pod: pi-2
        why BackoffLimitExceeded: Job has reached the specified backoff limit; its pods are ended and counted

        {"backoffLimit":1,"completions":3,"parallelism":2} ["Running deleted counted"]
        status Job pi terminating 1 FailureTarget=True BackoffLimitExceeded (so)
        why BackoffLimitExceeded: so; its pods are ended and counted

        {"backoffLimit":1,"completions":3,"parallelism":2} ["Failed counted"]
        status Job pi FailureTarget=True BackoffLimitExceeded (so) Failed=True BackoffLimitExceeded (so)
        event BackoffLimitExceeded so
        why BackoffLimitExceeded: so; its pods are ended and counted

        {"activeDeadlineSeconds":1800} ["Running"]
        status Job pi active 1 uncounted-failed u0 FailureTarget=True DeadlineExceeded (Job was active longer than specified deadline)
        update Pod pi-0 of pi
        delete Pod pi-0
        event SuccessfulDelete Deleted pod: pi-0
        why DeadlineExceeded: Job was active longer than specified deadline; its pods are ended and counted

        {"activeDeadlineSeconds":1801} ["Running"]
        status Job pi active 1
        wake at 2026-01-01T12:00:01Z

        {"backoffLimit":3,"restartPolicy":"OnFailure"} ["Running restarts 3"]
        status Job pi active 1 uncounted-failed u0 FailureTarget=True BackoffLimitExceeded (Job has reached the specified backoff limit)
        update Pod pi-0 of pi
        delete Pod pi-0
        event SuccessfulDelete Deleted pod: pi-0
        why BackoffLimitExceeded: Job has reached the specified backoff limit; its pods are ended and counted

        {"backoffLimit":3,"restartPolicy":"OnFailure"} ["Running restarts 2"]
        status Job pi active 1

        {} ["Succeeded"]
        update Pod pi-0 of pi

        {"managedBy":"example.com/other"} []

    "#]].assert_eq(&text);
}

/// Upstream: TestSyncJobWithJobPodFailurePolicy, TestMatchPodFailurePolicy.
#[test]
fn failures_by_policy() {
    let policy = |rules: Value| json!({ "completions": 2, "parallelism": 2, "backoffLimit": 6, "podFailurePolicy": { "rules": rules } });
    let codes = |action: &str, operator: &str, values: &[i32]| json!({ "action": action, "onExitCodes": { "operator": operator, "values": values } });
    let text = [
        fresh(policy(json!([codes("FailJob", "In", &[5, 42])])), &["Failed exit 42", "Running"]),
        fresh(policy(json!([codes("FailJob", "NotIn", &[42])])), &["Failed exit 42", "Running"]),
        fresh(policy(json!([codes("Ignore", "In", &[42])])), &["Failed exit 42", "Running"]),
        fresh(
            policy(json!([{ "action": "Ignore", "onPodConditions": [{ "type": "DisruptionTarget" }] }, codes("FailJob", "In", &[1])])),
            &["Failed condition DisruptionTarget", "Running"],
        ),
        fresh(
            policy(json!([{ "action": "FailJob", "onPodConditions": [{ "type": "ConfigIssue" }] }])),
            &["Failed condition ConfigIssue", "Running"],
        ),
        // It has not ended yet, so that nobody knows how.
        fresh(policy(json!([codes("FailJob", "In", &[42])])), &["Running deleted", "Running"]),
        // The Job let it go when it was suspended: how it ended is nobody's failure.
        fresh(policy(json!([codes("FailJob", "In", &[42])])), &["Failed exit 42 deleted counted", "Running"]),
    ]
    .concat();
    expect![[r#"
        {"backoffLimit":6,"completions":2,"parallelism":2,"podFailurePolicy":{"rules":[{"action":"FailJob","onExitCodes":{"operator":"In","values":[5,42]}}]}} ["Failed exit 42", "Running"]
        status Job pi active 1 uncounted-failed u0,u1 FailureTarget=True PodFailurePolicy (Container c for pod default/pi-0 failed with exit code 42 matching FailJob rule at index 0)
        update Pod pi-0 of pi
        update Pod pi-1 of pi
        delete Pod pi-1
        event SuccessfulDelete Deleted pod: pi-1
        why PodFailurePolicy: Container c for pod default/pi-0 failed with exit code 42 matching FailJob rule at index 0; its pods are ended and counted

        {"backoffLimit":6,"completions":2,"parallelism":2,"podFailurePolicy":{"rules":[{"action":"FailJob","onExitCodes":{"operator":"NotIn","values":[42]}}]}} ["Failed exit 42", "Running"]
        status Job pi active 1 uncounted-failed u0
        update Pod pi-0 of pi
        create Pod pi-? of pi held by batch.kubernetes.io/job-tracking
        event SuccessfulCreate Created pod: {created}

        {"backoffLimit":6,"completions":2,"parallelism":2,"podFailurePolicy":{"rules":[{"action":"Ignore","onExitCodes":{"operator":"In","values":[42]}}]}} ["Failed exit 42", "Running"]
        status Job pi active 1
        update Pod pi-0 of pi
        create Pod pi-? of pi held by batch.kubernetes.io/job-tracking
        event SuccessfulCreate Created pod: {created}

        {"backoffLimit":6,"completions":2,"parallelism":2,"podFailurePolicy":{"rules":[{"action":"Ignore","onPodConditions":[{"type":"DisruptionTarget"}]},{"action":"FailJob","onExitCodes":{"operator":"In","values":[1]}}]}} ["Failed condition DisruptionTarget", "Running"]
        status Job pi active 1
        update Pod pi-0 of pi
        create Pod pi-? of pi held by batch.kubernetes.io/job-tracking
        event SuccessfulCreate Created pod: {created}

        {"backoffLimit":6,"completions":2,"parallelism":2,"podFailurePolicy":{"rules":[{"action":"FailJob","onPodConditions":[{"type":"ConfigIssue"}]}]}} ["Failed condition ConfigIssue", "Running"]
        status Job pi active 1 uncounted-failed u0,u1 FailureTarget=True PodFailurePolicy (Pod default/pi-0 has condition ConfigIssue matching FailJob rule at index 0)
        update Pod pi-0 of pi
        update Pod pi-1 of pi
        delete Pod pi-1
        event SuccessfulDelete Deleted pod: pi-1
        why PodFailurePolicy: Pod default/pi-0 has condition ConfigIssue matching FailJob rule at index 0; its pods are ended and counted

        {"backoffLimit":6,"completions":2,"parallelism":2,"podFailurePolicy":{"rules":[{"action":"FailJob","onExitCodes":{"operator":"In","values":[42]}}]}} ["Running deleted", "Running"]
        status Job pi active 1 terminating 1
        why waits until 1 pods have ended

        {"backoffLimit":6,"completions":2,"parallelism":2,"podFailurePolicy":{"rules":[{"action":"FailJob","onExitCodes":{"operator":"In","values":[42]}}]}} ["Failed exit 42 deleted counted", "Running"]
        create Pod pi-? of pi held by batch.kubernetes.io/job-tracking
        event SuccessfulCreate Created pod: {created}

    "#]].assert_eq(&text);
}

/// The pods of a namespace go before its Jobs: none may be held back for a successor that is never made.
#[test]
fn a_namespace_that_goes_lets_go_of_every_pod() {
    let spec = json!({ "completionMode": "Indexed", "completions": 2, "parallelism": 2, "backoffLimitPerIndex": 2 });
    let mut world = world(spec, json!({ "startTime": "2026-01-01T11:30:00Z" }), &["Failed index 0 failures 0 ago 3"]);
    let going =
        json!({ "metadata": { "name": "default", "uid": "uid-ns", "deletionTimestamp": "2026-01-01T12:00:00Z" } });
    world.store(Kind::Namespace, going);
    expect![[r#"
        status Job pi failed-indexes  uncounted-failed u0
        update Pod pi-0 job-completion-index=0 job-index-failure-count=0 of pi
    "#]]
    .assert_eq(&show(&world.plan(Controller::Job, Kind::Job, "pi")));
}

/// Upstream: TestSyncJobWithJobBackoffLimitPerIndex, TestSyncJobWithJobSuccessPolicy, TestFirstPendingIndexes.
#[test]
fn by_index() {
    let indexed = |more: Value| {
        let mut spec = json!({ "completionMode": "Indexed", "completions": 4, "parallelism": 3 });
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        spec
    };
    let done = |indexes: &str| json!({ "startTime": "2026-01-01T11:30:00Z", "completedIndexes": indexes });
    let text = [
        fresh(indexed(json!({})), &[]),
        plan(indexed(json!({})), done("0,2"), &["Running index 3"]),
        fresh(indexed(json!({})), &["Running index 0", "Running index 0 ready", "Running index 7", "Succeeded index 1", "Succeeded index 1"]),
        plan(indexed(json!({})), done("0-2"), &["Succeeded index 3", "Succeeded counted index 2"]),
        // One failure is allowed each: index 0 gets another pod, index 1 has had it.
        fresh(
            indexed(json!({ "backoffLimitPerIndex": 1 })),
            &["Failed index 0 failures 0", "Failed index 1 failures 1", "Running index 2"],
        ),
        fresh(indexed(json!({ "backoffLimitPerIndex": 1 })), &["Failed index 0 failures 0 ago 3", "Running index 1", "Running index 2"]),
        fresh(
            indexed(json!({ "backoffLimitPerIndex": 0, "maxFailedIndexes": 1 })),
            &["Failed index 0 failures 0", "Failed index 1 failures 0", "Running index 2"],
        ),
        plan(
            indexed(json!({ "backoffLimitPerIndex": 0 })),
            json!({ "startTime": "2026-01-01T11:30:00Z", "completedIndexes": "0-2" }),
            &["Failed index 3 failures 0"],
        ),
        fresh(
            indexed(json!({ "backoffLimitPerIndex": 1, "podFailurePolicy": { "rules": [{ "action": "FailIndex", "onExitCodes": { "operator": "In", "values": [3] } }] } })),
            &["Failed index 0 failures 0 exit 3", "Running index 1", "Running index 2"],
        ),
        fresh(
            indexed(json!({ "successPolicy": { "rules": [{ "succeededIndexes": "3" }, { "succeededIndexes": "0-2", "succeededCount": 1 }] } })),
            &["Succeeded index 1", "Running index 2"],
        ),
    ]
    .concat();
    expect![[r#"
        {"completionMode":"Indexed","completions":4,"parallelism":3} []
        create Pod pi-0-? job-completion-index=0 of pi held by batch.kubernetes.io/job-tracking
        event SuccessfulCreate Created pod: {created}
        create Pod pi-1-? job-completion-index=1 of pi held by batch.kubernetes.io/job-tracking
        event SuccessfulCreate Created pod: {created}
        create Pod pi-2-? job-completion-index=2 of pi held by batch.kubernetes.io/job-tracking
        event SuccessfulCreate Created pod: {created}

        {"completionMode":"Indexed","completions":4,"parallelism":3} ["Running index 3"]
        status Job pi active 1 succeeded 2 completed 0,2
        create Pod pi-1-? job-completion-index=1 of pi held by batch.kubernetes.io/job-tracking
        event SuccessfulCreate Created pod: {created}

        {"completionMode":"Indexed","completions":4,"parallelism":3} ["Running index 0", "Running index 0 ready", "Running index 7", "Succeeded index 1", "Succeeded index 1"]
        status Job pi active 3 ready 1 succeeded 1 completed 1
        update Pod pi-3 job-completion-index=1 of pi
        update Pod pi-4 job-completion-index=1 of pi
        update Pod pi-0 job-completion-index=0 of pi
        delete Pod pi-0
        event SuccessfulDelete Deleted pod: pi-0
        update Pod pi-2 job-completion-index=7 of pi
        delete Pod pi-2
        event SuccessfulDelete Deleted pod: pi-2

        {"completionMode":"Indexed","completions":4,"parallelism":3} ["Succeeded index 3", "Succeeded counted index 2"]
        status Job pi succeeded 4 completed 0-3 SuccessCriteriaMet=True CompletionsReached (Reached expected number of succeeded pods)
        update Pod pi-0 job-completion-index=3 of pi
        why CompletionsReached: Reached expected number of succeeded pods; its pods are ended and counted

        {"backoffLimitPerIndex":1,"completionMode":"Indexed","completions":4,"parallelism":3} ["Failed index 0 failures 0", "Failed index 1 failures 1", "Running index 2"]
        status Job pi active 1 failed-indexes 1 uncounted-failed u1
        update Pod pi-1 job-completion-index=1 job-index-failure-count=1 of pi
        create Pod pi-0-? job-completion-index=0 job-index-failure-count=1 of pi held by batch.kubernetes.io/job-tracking
        event SuccessfulCreate Created pod: {created}
        create Pod pi-3-? job-completion-index=3 job-index-failure-count=0 of pi held by batch.kubernetes.io/job-tracking
        event SuccessfulCreate Created pod: {created}

        {"backoffLimitPerIndex":1,"completionMode":"Indexed","completions":4,"parallelism":3} ["Failed index 0 failures 0 ago 3", "Running index 1", "Running index 2"]
        status Job pi active 2 failed-indexes 
        why index 0 backs off until 2026-01-01T12:00:07Z
        wake at 2026-01-01T12:00:07Z

        {"backoffLimitPerIndex":0,"completionMode":"Indexed","completions":4,"maxFailedIndexes":1,"parallelism":3} ["Failed index 0 failures 0", "Failed index 1 failures 0", "Running index 2"]
        status Job pi active 1 failed-indexes 0,1 uncounted-failed u0,u1,u2 FailureTarget=True MaxFailedIndexesExceeded (Job has exceeded the specified maximal number of failed indexes)
        update Pod pi-0 job-completion-index=0 job-index-failure-count=0 of pi
        update Pod pi-1 job-completion-index=1 job-index-failure-count=0 of pi
        update Pod pi-2 job-completion-index=2 of pi
        delete Pod pi-2
        event SuccessfulDelete Deleted pod: pi-2
        why MaxFailedIndexesExceeded: Job has exceeded the specified maximal number of failed indexes; its pods are ended and counted

        {"backoffLimitPerIndex":0,"completionMode":"Indexed","completions":4,"parallelism":3} ["Failed index 3 failures 0"]
        status Job pi succeeded 3 completed 0-2 failed-indexes 3 uncounted-failed u0 FailureTarget=True FailedIndexes (Job has failed indexes)
        update Pod pi-0 job-completion-index=3 job-index-failure-count=0 of pi
        why FailedIndexes: Job has failed indexes; its pods are ended and counted

        {"backoffLimitPerIndex":1,"completionMode":"Indexed","completions":4,"parallelism":3,"podFailurePolicy":{"rules":[{"action":"FailIndex","onExitCodes":{"operator":"In","values":[3]}}]}} ["Failed index 0 failures 0 exit 3", "Running index 1", "Running index 2"]
        status Job pi active 2 failed-indexes 0 uncounted-failed u0
        update Pod pi-0 job-completion-index=0 job-index-failure-count=0 of pi
        create Pod pi-3-? job-completion-index=3 job-index-failure-count=0 of pi held by batch.kubernetes.io/job-tracking
        event SuccessfulCreate Created pod: {created}

        {"completionMode":"Indexed","completions":4,"parallelism":3,"successPolicy":{"rules":[{"succeededIndexes":"3"},{"succeededCount":1,"succeededIndexes":"0-2"}]}} ["Succeeded index 1", "Running index 2"]
        status Job pi active 1 succeeded 1 completed 1 SuccessCriteriaMet=True SuccessPolicy (Matched rules at index 1)
        update Pod pi-0 job-completion-index=1 of pi
        update Pod pi-1 job-completion-index=2 of pi
        delete Pod pi-1
        event SuccessfulDelete Deleted pod: pi-1
        why SuccessPolicy: Matched rules at index 1; its pods are ended and counted

    "#]].assert_eq(&text);
}

#[test]
fn suspended_and_resumed() {
    let suspended = json!({ "startTime": "2026-01-01T11:30:00Z", "conditions": [{ "type": "Suspended", "status": "True", "reason": "JobSuspended", "message": "Job suspended" }] });
    let text = [
        plan(json!({ "suspend": true }), json!({}), &[]),
        fresh(json!({ "suspend": true }), &["Running"]),
        plan(json!({ "suspend": true }), suspended.clone(), &["Running deleted counted"]),
        plan(json!({ "suspend": false }), suspended, &[]),
    ]
    .concat();
    expect![[r#"
        {"suspend":true} []
        status Job pi Suspended=True JobSuspended (Job suspended)
        event Suspended Job suspended

        {"suspend":true} ["Running"]
        status Job pi active 1 Suspended=True JobSuspended (Job suspended)
        event Suspended Job suspended
        update Pod pi-0 of pi
        delete Pod pi-0
        event SuccessfulDelete Deleted pod: pi-0

        {"suspend":true} ["Running deleted counted"]
        status Job pi terminating 1 Suspended=True JobSuspended (Job suspended)

        {"suspend":false} []
        status Job pi Suspended=False JobResumed (Job resumed)
        event Resumed Job resumed
        create Pod pi-? of pi held by batch.kubernetes.io/job-tracking
        event SuccessfulCreate Created pod: {created}

    "#]]
    .assert_eq(&text);
}

/// Upstream: "startTime was not cleaned" of TestMutableSchedulingDirectivesForSuspendedJobs.
#[test]
fn a_suspended_job_is_not_at_work() {
    let started = json!({ "startTime": "2026-01-01T11:30:00Z" });
    let mut world = world(json!({ "suspend": true }), started, &[]);
    let started = |world: &World| world.snapshot.list::<Job>(None).next().unwrap().status.clone().unwrap().start_time;
    assert!(started(&world).is_some());
    world.wake_all();
    world.settle();
    assert_eq!(started(&world), None);
}

/// Whoever runs a Job, it goes in its time (upstream: needsCleanup knows no managedBy).
#[test]
fn time_to_live_of_one_that_others_run() {
    let ended = json!({ "conditions": [{ "type": "Complete", "status": "True", "lastTransitionTime": "2026-01-01T11:30:00Z" }] });
    let managed = |seconds: i32| json!({ "managedBy": "example.com/other", "ttlSecondsAfterFinished": seconds });
    let text = [plan(managed(60), ended.clone(), &["Succeeded"]), plan(managed(7200), ended, &["Succeeded"])].concat();
    expect![[r#"
        {"managedBy":"example.com/other","ttlSecondsAfterFinished":60} ["Succeeded"]
        delete Job pi Foreground

        {"managedBy":"example.com/other","ttlSecondsAfterFinished":7200} ["Succeeded"]
        why is taken away at 2026-01-01T13:30:00Z
        wake at 2026-01-01T13:30:00Z

    "#]]
    .assert_eq(&text);
}

/// The whole life of a Job, and the pods it leaves: what a pod of an indexed Job carries.
#[test]
fn a_life() {
    let mut world = world(
        json!({ "completionMode": "Indexed", "completions": 2, "parallelism": 2, "ttlSecondsAfterFinished": 60 }),
        json!({}),
        &[],
    );
    world.wake_all();
    world.settle();
    let mut text = told(&world);
    let pod = world.snapshot.list::<Pod>(None).next().unwrap();
    text += &format!(
        "{} {}\n",
        serde_json::to_string(&pod.metadata.finalizers).unwrap(),
        serde_json::to_string(&pod.metadata.annotations).unwrap()
    );
    text += &format!("{} {}\n", pods::name(pod), serde_json::to_string(&pod.spec).unwrap());
    for name in world.pods() {
        world.set_ready(&name, true);
        world.settle();
        text += &told(&world);
        end(&mut world, &name, true);
        world.settle();
        text += &told(&world);
    }
    world.advance(59);
    text += &format!("{} writes, ", world.settle());
    world.advance(1);
    world.settle();
    text += &format!("then {} jobs and {} pods\n", world.snapshot.count(Kind::Job), world.snapshot.count(Kind::Pod));
    text += &world.events.join("\n");
    expect![[r#"
         active 2
        ["batch.kubernetes.io/job-tracking"] {"batch.kubernetes.io/job-completion-index":"0"}
        pi-0-00001 {"containers":[{"env":[{"name":"JOB_COMPLETION_INDEX","valueFrom":{"fieldRef":{"fieldPath":"metadata.labels['batch.kubernetes.io/job-completion-index']"}}}],"image":"pi","imagePullPolicy":"Always","name":"c","resources":{},"terminationMessagePath":"/dev/termination-log","terminationMessagePolicy":"File"}],"dnsPolicy":"ClusterFirst","hostname":"pi-0","restartPolicy":"Never","schedulerName":"default-scheduler","securityContext":{},"terminationGracePeriodSeconds":30}
         active 2 ready 1
         active 1 succeeded 1 completed 0
         active 1 ready 1 succeeded 1 completed 0
         succeeded 2 completed 0,1 SuccessCriteriaMet=True CompletionsReached (Reached expected number of succeeded pods) Complete=True CompletionsReached (Reached expected number of succeeded pods)
        0 writes, then 0 jobs and 0 pods
        SuccessfulCreate Created pod: pi-0-00001
        SuccessfulCreate Created pod: pi-1-00002
        Completed Job completed"#]].assert_eq(&text);
}

/// Pods whose Job is deleted are not held back by what counted them.
#[test]
fn nothing_is_left_behind() {
    for propagation in [Propagation::Background, Propagation::Foreground, Propagation::Orphan] {
        let mut world = world(json!({ "completions": 3, "parallelism": 3 }), json!({}), &[]);
        world.wake_all();
        world.settle();
        let first = world.pods()[0].clone();
        end(&mut world, &first, true);
        world.settle();
        world.user_deletes(Kind::Job, "pi", propagation);
        for _ in 0..3 {
            world.settle();
            if propagation != Propagation::Orphan {
                world.run_nodes();
            }
        }
        let tracked = world.snapshot.list::<Pod>(None).filter(|pod| terms::is_tracked(pod)).count();
        let expected = if propagation == Propagation::Orphan { 3 } else { 0 };
        assert_eq!((world.snapshot.count(Kind::Job), world.pods().len(), tracked), (0, expected, 0), "{propagation:?}");
    }
}

#[test]
fn pods_are_adopted_and_released() {
    let mut world = world(json!({ "completions": 2, "parallelism": 2 }), json!({}), &["Running", "Running counted"]);
    world.change_pod("pi-0", |pod| pod.metadata.labels = None);
    world.change_pod("pi-1", |pod| pod.metadata.owner_references = None);
    expect![[r#"
        update Pod pi-0
        update Pod pi-1 of pi held by batch.kubernetes.io/job-tracking
    "#]]
    .assert_eq(&show(&world.plan(Controller::Job, Kind::Job, "pi")));
}

fn told(world: &World) -> String {
    format!("{}\n", job_status(&job(world).status.clone().unwrap_or_default()))
}

fn job(world: &World) -> &Job {
    world.snapshot.get::<Job>("default", "pi").unwrap()
}

/// The containers of a pod end.
fn end(world: &mut World, name: &str, well: bool) {
    let time = world.now;
    world.change_pod(name, |pod| {
        pod.spec.get_or_insert_default().node_name = Some("n1".into());
        let status = pod.status.get_or_insert_default();
        status.phase = Some(if well { "Succeeded" } else { "Failed" }.into());
        status.conditions = None;
        let state = json!({ "terminated": { "exitCode": i32::from(!well), "finishedAt": time } });
        let container =
            json!([{ "name": "c", "image": "pi", "imageID": "", "ready": false, "restartCount": 0, "state": state }]);
        status.container_statuses = serde_json::from_value(container).unwrap();
    });
}

thread_local! {
    /// Writes until the next crash.
    static FUSE: Cell<usize> = const { Cell::new(usize::MAX) };
}

/// Refuses one write: all that the plan had behind it is lost, as by a crash.
fn crash(_: &Snapshot, _: &Write) -> Option<Refusal> {
    FUSE.with(|fuse| {
        let left = fuse.get();
        fuse.set(if left == 0 { usize::MAX } else { left.saturating_sub(1) });
        (left == 0).then(|| Refusal::internal("crash"))
    })
}

/// No more pods at work than allowed, counters only grow, and a finished Job is let be.
fn bounds(before: &Snapshot, after: &Snapshot, write: &Write, _: Timestamp) {
    let of = |world: &Snapshot| world.get::<Job>("default", "pi").cloned();
    let (Some(old), Some(new)) = (of(before), of(after)) else { return };
    let own: Vec<api::Member> = after.members("uid-pi").collect();
    let active = own.iter().filter(|pod| pod.is_active()).count();
    if let Write::Create(_) = write {
        assert!(active <= usize::try_from(terms::parallelism(&new)).unwrap(), "{active} pods at work");
        assert!(super::finished(&old).is_none() && !terms::is_suspended(&new));
        let indexes: Vec<_> =
            own.iter().filter(|pod| pod.is_active()).filter_map(|pod| terms::index_of(pod, &new)).collect();
        assert_eq!(indexes.iter().collect::<BTreeSet<_>>().len(), indexes.len(), "two pods of an index: {indexes:?}");
    }
    let numbers = |job: &Job| {
        let status = job.status.clone().unwrap_or_default();
        (status.succeeded.unwrap_or(0), status.failed.unwrap_or(0))
    };
    assert!(numbers(&old).0 <= numbers(&new).0 && numbers(&old).1 <= numbers(&new).1);
    if super::finished(&old).is_some() {
        assert_eq!(old.status, new.status);
    }
    if super::finished(&new).is_some() {
        assert_eq!(active, 0);
    }
}

#[derive(Clone, Debug)]
enum Step {
    Crash(usize),
    Ends(usize, bool),
    Deleted(usize),
    Restarted,
    Time(i64),
    Suspend(bool),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        2 => (0..6usize).prop_map(Step::Crash),
        6 => (0..8usize, prop::bool::weighted(0.7)).prop_map(|(at, well)| Step::Ends(at, well)),
        1 => (0..8usize).prop_map(Step::Deleted),
        1 => Just(Step::Restarted),
        2 => (1..700i64).prop_map(Step::Time),
        1 => any::<bool>().prop_map(Step::Suspend),
    ];
    prop::collection::vec(step, 0..30)
}

/// Pods that ended, or were ended by a user, while the Job was to count them, by name: whether they ended well.
type Ended = BTreeMap<String, bool>;

fn play(world: &mut World, step: &Step, ended: &mut Ended) {
    let tracked = |world: &World| -> Vec<String> {
        let live = world.snapshot.list::<Pod>(None).filter(|pod| pods::is_active(pod) && terms::is_tracked(pod));
        live.map(|pod| pods::name(pod).to_owned()).collect()
    };
    match *step {
        Step::Crash(writes) => FUSE.with(|fuse| fuse.set(writes)),
        Step::Ends(at, well) => {
            let live = tracked(world);
            if let Some(name) = live.get(at % live.len().max(1)) {
                ended.insert(name.clone(), well);
                end(world, name, well);
            }
        }
        Step::Deleted(at) => {
            let live = tracked(world);
            if let Some(name) = live.get(at % live.len().max(1)) {
                ended.insert(name.clone(), false);
                world.user_deletes(Kind::Pod, name, Propagation::Background);
            }
        }
        Step::Restarted => world.wake_all(),
        Step::Time(seconds) => world.advance(seconds),
        Step::Suspend(suspend) => {
            let mut job = job(world).clone();
            if super::finished(&job).is_none() && terms::is_suspended(&job) != suspend {
                job.spec.as_mut().unwrap().suspend = Some(suspend);
                let fuse = FUSE.with(|fuse| fuse.replace(usize::MAX));
                world.carry_out(Write::Update(job.into_body()), &mut String::new()).unwrap();
                FUSE.with(|it| it.set(fuse));
            }
        }
    }
    world.settle();
}

/// Ends what is left, well, until the Job is over.
fn heal(world: &mut World, ended: &mut Ended) {
    FUSE.with(|fuse| fuse.set(usize::MAX));
    for round in 0..200 {
        play(world, &Step::Suspend(false), ended);
        play(world, &Step::Ends(round, true), ended);
        let gone: Vec<String> = world
            .snapshot
            .list::<Pod>(None)
            .filter(|pod| pods::is_deleted(pod))
            .map(|pod| pods::name(pod).to_owned())
            .collect();
        gone.iter().for_each(|name| {
            world.change_pod(name, |pod| pod.status.get_or_insert_default().phase = Some("Failed".into()))
        });
        world.settle();
        gone.iter().for_each(|name| world.pod_gone(name));
        play(world, &Step::Time(700), ended);
        if super::finished(job(world)).is_some() {
            return;
        }
    }
    panic!("the Job never ends: {}", told(world));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// However the writes are cut off, each pod is counted once, and at rest nothing is written.
    #[test]
    fn counts_each_pod_once(steps in steps(), completions in 1..7i32, parallelism in 1..5i32, policy in prop::bool::ANY, indexed in prop::bool::ANY) {
        let policy = if policy { "Failed" } else { "TerminatingOrFailed" };
        let mut spec = json!({ "completions": completions, "parallelism": parallelism, "backoffLimit": 1000, "podReplacementPolicy": policy });
        if indexed {
            spec["completionMode"] = json!("Indexed");
        }
        let mut world = world(spec, json!({}), &[]);
        (world.door, world.check) = (crash, bounds);
        world.wake_all();
        world.settle();
        let mut ended = Ended::new();
        steps.iter().for_each(|step| play(&mut world, step, &mut ended));
        heal(&mut world, &mut ended);
        let status = job(&world).status.clone().unwrap();
        let well = ended.values().filter(|well| **well).count();
        prop_assert!(status.succeeded.unwrap_or(0) >= completions);
        prop_assert_eq!(status.succeeded.unwrap_or(0) as usize, well);
        prop_assert_eq!(status.failed.unwrap_or(0) as usize, ended.len() - well);
        prop_assert!(world.snapshot.list::<Pod>(None).all(|pod| !terms::is_tracked(pod)));
        let noted = status.uncounted_terminated_pods.unwrap_or_default();
        prop_assert!(noted.succeeded.is_none() && noted.failed.is_none());
        world.wake_all();
        prop_assert_eq!(world.settle(), 0);
    }
}

#[test]
fn digests_tell_what_matters() {
    let world =
        world(json!({}), json!({}), &["Running", "Running ready", "Failed", "Running counted", "Running restarts 1"]);
    let pods: Vec<_> = world.snapshot.objects(Kind::Pod, None).cloned().collect();
    let digest = |pod: &Object| super::pod_digest(Some(pod)).is_some();
    assert!(pods.iter().all(|pod| digest(pod)));
    for other in &pods[1..] {
        assert!(super::pod_digest(Some(&pods[0])) != super::pod_digest(Some(other)), "{}", other.name());
    }
}
