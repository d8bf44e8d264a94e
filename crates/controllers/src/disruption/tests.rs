use api::{Kind, Propagation};
use expect_test::{Expect, expect};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use serde_json::{Value, json};

use crate::testing::World;

fn budget(world: &mut World, spec: Value) {
    let body = json!({ "metadata": { "name": "b", "namespace": "default" }, "spec": spec });
    world.user_creates(Kind::PodDisruptionBudget, body);
    world.settle();
}

/// What the budget tells: `allowed 1 of 4: 3 healthy, 2 desired [disrupted] True SufficientPods`.
fn show(world: &World) -> String {
    let budget = world.snapshot.get::<PodDisruptionBudget>("default", "b").unwrap();
    let status = budget.status.clone().unwrap_or_default();
    let disrupted: Vec<String> = status.disrupted_pods.into_iter().flatten().map(|(name, _)| name).collect();
    let condition = status.conditions.unwrap_or_default().pop().unwrap();
    format!(
        "allowed {} of {}: {} healthy, {} desired [{}] {} {} {}",
        status.disruptions_allowed.unwrap_or(0),
        status.expected_pods.unwrap_or(0),
        status.current_healthy.unwrap_or(0),
        status.desired_healthy.unwrap_or(0),
        disrupted.join(" "),
        condition.status,
        condition.reason,
        condition.message
    )
}

fn check(cases: &[(&str, Value)], expected: Expect) {
    let mut text = String::new();
    for (lines, spec) in cases {
        let mut world = World::read(lines);
        budget(&mut world, spec.clone());
        text += &format!("{}\n", show(&world).trim_end());
        world.wake_all();
        world.settle();
        assert_eq!(world.plan(crate::Controller::Disruption, Kind::PodDisruptionBudget, "b").writes.len(), 0, "rests");
    }
    expected.assert_eq(&text);
}

fn web(mut spec: Value) -> Value {
    spec["selector"] = json!({ "matchLabels": { "app": "web" } });
    spec
}

const FOUR: &str = "deploy web 4\nrs web-a 4 ready 3";

#[test]
fn healthy_pods_are_counted_against_what_is_wanted() {
    check(
        &[
            (FOUR, web(json!({ "minAvailable": 2 }))),
            (FOUR, web(json!({ "minAvailable": 3 }))),
            (FOUR, web(json!({ "minAvailable": 9 }))),
            (FOUR, web(json!({ "minAvailable": "30%" }))),
            (FOUR, web(json!({ "maxUnavailable": 1 }))),
            (FOUR, web(json!({ "maxUnavailable": 2 }))),
            (FOUR, web(json!({ "maxUnavailable": "30%" }))),
            (FOUR, web(json!({ "maxUnavailable": 9 }))),
            (FOUR, web(json!({}))),
            // Pods that end are not healthy.
            ("deploy web 4\nrs web-a 4 terminating 2", web(json!({ "minAvailable": 2 }))),
            // Two sets of one Deployment are one; its size counts.
            ("deploy web 4\nrs web-a 2\nrs web-b 3", web(json!({ "maxUnavailable": 1 }))),
            // A set of its own counts for itself.
            ("rs web-a 4 orphan pods 3", web(json!({ "maxUnavailable": 1 }))),
            // Nobody's pods, and no pods.
            ("", web(json!({ "minAvailable": 1 }))),
            (FOUR, json!({ "minAvailable": 1 })),
            (FOUR, json!({ "minAvailable": 1, "selector": {} })),
        ],
        expect![[r#"
            allowed 1 of 4: 3 healthy, 2 desired [] True SufficientPods
            allowed 0 of 4: 3 healthy, 3 desired [] False InsufficientPods
            allowed 0 of 4: 3 healthy, 9 desired [] False InsufficientPods
            allowed 1 of 4: 3 healthy, 2 desired [] True SufficientPods
            allowed 0 of 4: 3 healthy, 3 desired [] False InsufficientPods
            allowed 1 of 4: 3 healthy, 2 desired [] True SufficientPods
            allowed 1 of 4: 3 healthy, 2 desired [] True SufficientPods
            allowed 3 of 4: 3 healthy, 0 desired [] True SufficientPods
            allowed 0 of 0: 3 healthy, 0 desired [] False InsufficientPods
            allowed 2 of 6: 4 healthy, 2 desired [] True SufficientPods
            allowed 2 of 4: 5 healthy, 3 desired [] True SufficientPods
            allowed 0 of 4: 3 healthy, 3 desired [] False InsufficientPods
            allowed 0 of 0: 0 healthy, 1 desired [] False InsufficientPods
            allowed 0 of 0: 0 healthy, 1 desired [] False InsufficientPods
            allowed 2 of 4: 3 healthy, 1 desired [] True SufficientPods
        "#]],
    );
}

fn owned(kind: &str, version: &str) -> Value {
    json!({
        "metadata": { "name": "p", "namespace": "default", "uid": "p", "labels": { "app": "web" },
            "ownerReferences": [{ "apiVersion": version, "kind": kind, "name": "o", "uid": "o", "controller": true }] },
        "spec": { "nodeName": "n1", "containers": [] },
        "status": { "conditions": [{ "type": "Ready", "status": "True" }] },
    })
}

#[test]
fn owners_without_a_size_cannot_be_counted() {
    let mut text = String::new();
    for (kind, version) in
        [("Job", "batch/v1"), ("DaemonSet", "apps/v1"), ("Own", "example.com/v1"), ("ReplicaSet", "apps/v1")]
    {
        let mut world = World::new();
        world.store(Kind::Pod, owned(kind, version));
        budget(&mut world, web(json!({ "maxUnavailable": 1 })));
        text += &format!("{}\n{}\n", show(&world), world.events.join("\n"));
    }
    expect![[r#"
        allowed 0 of 0: 0 healthy, 0 desired [] False SyncFailed jobs.batch does not implement the scale subresource
        CalculateExpectedPodCountFailed Failed to calculate the number of expected pods: jobs.batch does not implement the scale subresource
        allowed 0 of 0: 0 healthy, 0 desired [] False SyncFailed daemonsets.apps does not implement the scale subresource
        CalculateExpectedPodCountFailed Failed to calculate the number of expected pods: daemonsets.apps does not implement the scale subresource
        allowed 0 of 0: 0 healthy, 0 desired [] False SyncFailed found no controllers for pod "p"
        CalculateExpectedPodCountFailed Failed to calculate the number of expected pods: found no controllers for pod "p"
        allowed 0 of 0: 0 healthy, 0 desired [] False SyncFailed found no controllers for pod "p"
        CalculateExpectedPodCountFailed Failed to calculate the number of expected pods: found no controllers for pod "p"
    "#]]
    .assert_eq(&text);
}

/// Upstream: TestNakedPod, TestStatusForUnmanagedPod, TestTotalUnmanagedPods.
#[test]
fn pods_that_nobody_keeps_are_told_of() {
    let told = |spec: Value| {
        let mut world = World::new();
        let mut pod = owned("ReplicaSet", "apps/v1");
        pod["metadata"].as_object_mut().unwrap().remove("ownerReferences");
        world.store(Kind::Pod, pod);
        budget(&mut world, web(spec));
        let words = |event: &String| event.split(' ').take(8).collect::<Vec<_>>().join(" ");
        format!("{} {:?}", show(&world), world.events.iter().map(words).collect::<Vec<_>>())
    };
    let specs = [json!({ "maxUnavailable": 1 }), json!({ "minAvailable": "50%" }), json!({ "minAvailable": 1 })];
    expect![[r#"
        allowed 0 of 0: 1 healthy, 0 desired [] False InsufficientPods  ["UnmanagedPods Pods selected by this PodDisruptionBudget (selector: app=web)"]
        allowed 0 of 0: 1 healthy, 0 desired [] False InsufficientPods  ["UnmanagedPods Pods selected by this PodDisruptionBudget (selector: app=web)"]
        allowed 0 of 1: 1 healthy, 1 desired [] False InsufficientPods  []"#]].assert_eq(&specs.map(told).join("\n"));
}

#[test]
fn what_changes_is_followed() {
    let mut world = World::read("deploy web 4\nrs web-a 4");
    budget(&mut world, web(json!({ "maxUnavailable": "25%" })));
    let mut text = format!("{}\n", show(&world));
    world.set_ready("web-a-0", false);
    world.settle();
    text += &format!("a pod is not ready: {}\n", show(&world));
    world.user_changes("web", |deployment: &mut Deployment| deployment.spec.as_mut().unwrap().replicas = Some(8));
    world.settle();
    text += &format!("more are wanted: {}\n", show(&world));
    world.user_deletes(Kind::Pod, "web-a-1", Propagation::Background);
    world.settle();
    text += &format!("a pod is deleted: {}\n", show(&world));
    expect![[r#"
        allowed 1 of 4: 4 healthy, 3 desired [] True SufficientPods 
        a pod is not ready: allowed 0 of 4: 3 healthy, 3 desired [] False InsufficientPods 
        more are wanted: allowed 0 of 8: 3 healthy, 6 desired [] False InsufficientPods 
        a pod is deleted: allowed 0 of 8: 2 healthy, 6 desired [] False InsufficientPods 
    "#]]
    .assert_eq(&text);
}

/// An eviction that was allowed has two minutes to delete its pod.
#[test]
fn what_was_promised_away_is_not_healthy() {
    let mut world = World::read("deploy web 3\nrs web-a 3");
    budget(&mut world, web(json!({ "minAvailable": 1 })));
    let promised = world.now;
    world.user_edits_status::<PodDisruptionBudget>("b", |budget| {
        let status = budget.status.get_or_insert_default();
        let pods = status.disrupted_pods.get_or_insert_default();
        for name in ["web-a-0", "gone"] {
            pods.insert(name.into(), k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(promised));
        }
    });
    world.settle();
    let mut text = format!("{}\n", show(&world));
    world.advance(119);
    assert_eq!(world.settle(), 0);
    world.advance(1);
    world.settle();
    text += &format!("{}\n{}\n", show(&world), world.events.last().unwrap());
    expect![[r#"
        allowed 1 of 3: 2 healthy, 1 desired [web-a-0] True SufficientPods 
        allowed 2 of 3: 3 healthy, 1 desired [] True SufficientPods 
        NotDeleted Pod was expected by PDB default/b to be deleted but it wasn't
    "#]]
    .assert_eq(&text);
}
