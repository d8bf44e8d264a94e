use expect_test::expect;
use serde_json::{Value, json};

use api::{Kind, Pod, Propagation, Refusal};
use k8s_openapi::api::apps::v1::ReplicaSet;

use crate::testing::{World, show};
use crate::{Controller, pods};

fn plan(text: &str) -> String {
    show(&World::read(text).plan(Controller::ReplicaSet, Kind::ReplicaSet, "web-a"))
}

#[test]
fn makes_ends_and_counts() {
    let cases = ["rs web-a 3 pods 1", "rs web-a 1 pods 3 ready 2", "rs web-a 2 terminating 1", "rs web-a 0 pods 0"];
    expect![[r#"
        rs web-a 3 pods 1
        create Pod web-a-? of web-a
        event SuccessfulCreate Created pod: {created}
        create Pod web-a-? of web-a
        event SuccessfulCreate Created pod: {created}

        rs web-a 1 pods 3 ready 2
        delete Pod web-a-2
        event SuccessfulDelete Deleted pod: web-a-2
        delete Pod web-a-0
        event SuccessfulDelete Deleted pod: web-a-0

        rs web-a 2 terminating 1

        rs web-a 0 pods 0
    "#]]
    .assert_eq(&cases.map(|case| format!("{case}\n{}", plan(case))).join("\n"));
}

#[test]
fn a_decision_is_bounded() {
    let plan = World::read("rs web-a 1200 pods 0").plan(Controller::ReplicaSet, Kind::ReplicaSet, "web-a");
    let creates = plan.writes.iter().filter(|write| matches!(write, api::Write::Create(_))).count();
    assert_eq!(creates, api::limits::BURST_REPLICAS);
}

#[test]
fn the_rest_follows() {
    let mut world = World::read("rs web-a 1200 pods 0 orphan");
    world.wake_all();
    world.settle();
    assert_eq!(world.pods().len(), 1200);
    assert_eq!(world.snapshot.get::<ReplicaSet>("default", "web-a").unwrap().status.as_ref().unwrap().replicas, 1200);
}

/// A quota of two pods: one refused request a try, the condition and the event tell of it, and it goes away again.
#[test]
fn a_refused_pod_is_told() {
    let mut world = World::read("rs web-a 5 pods 0 orphan");
    world.door = |world, write| {
        let full = world.count(Kind::Pod) >= 2 && matches!(write, api::Write::Create(api::Body::Pod(_)));
        full.then(|| {
            Refusal::forbidden(Kind::Pod, "", "exceeded quota: few, requested: pods=1, used: pods=2, limited: pods=2")
        })
    };
    world.wake_all();
    world.settle();
    let status = |world: &World| {
        let set = world.snapshot.get::<ReplicaSet>("default", "web-a").unwrap().status.clone().unwrap();
        let conditions: Vec<String> = set
            .conditions
            .into_iter()
            .flatten()
            .map(|it| format!("{} {}", it.reason.unwrap(), it.message.unwrap()))
            .collect();
        format!("{} pods {conditions:?}\n", set.replicas)
    };
    let mut text = status(&world);
    for _ in 0..3 {
        world.advance(1);
        text += &format!("{} writes\n", world.settle());
    }
    text += &world.events.join("\n");
    world.door = |_, _| None;
    world.advance(1);
    world.settle();
    text += &format!("\n{}", status(&world));
    expect![[r#"
        2 pods ["FailedCreate pods is forbidden: exceeded quota: few, requested: pods=1, used: pods=2, limited: pods=2"]
        0 writes
        0 writes
        0 writes
        SuccessfulCreate Created pod: web-a-00001
        SuccessfulCreate Created pod: web-a-00002
        FailedCreate Error creating: pods is forbidden: exceeded quota: few, requested: pods=1, used: pods=2, limited: pods=2
        FailedCreate Error creating: pods is forbidden: exceeded quota: few, requested: pods=1, used: pods=2, limited: pods=2
        FailedCreate Error creating: pods is forbidden: exceeded quota: few, requested: pods=1, used: pods=2, limited: pods=2
        FailedCreate Error creating: pods is forbidden: exceeded quota: few, requested: pods=1, used: pods=2, limited: pods=2
        5 pods []
    "#]].assert_eq(&text);
}

#[test]
fn nothing_is_made_in_a_namespace_that_is_going() {
    let mut world = World::read("rs web-a 3 pods 1");
    let mut refusal = Refusal::forbidden(Kind::Pod, "", "it is being terminated");
    refusal.causes.push(api::Cause {
        reason: "NamespaceTerminating".into(),
        message: String::new(),
        field: String::new(),
    });
    world.refuse(Controller::ReplicaSet, Kind::ReplicaSet, "web-a", refusal);
    expect![[r#""#]].assert_eq(&show(&world.plan(Controller::ReplicaSet, Kind::ReplicaSet, "web-a")));
}

#[test]
fn finished_pods_do_not_count() {
    let mut world = World::read("rs web-a 2");
    world.change_pod("web-a-0", |pod| pod.status.as_mut().unwrap().phase = Some("Failed".into()));
    world.change_pod("web-a-1", |pod| pod.status.as_mut().unwrap().phase = Some("Succeeded".into()));
    expect![[r#"
        create Pod web-a-? of web-a
        event SuccessfulCreate Created pod: {created}
        create Pod web-a-? of web-a
        event SuccessfulCreate Created pod: {created}
    "#]]
    .assert_eq(&show(&world.plan(Controller::ReplicaSet, Kind::ReplicaSet, "web-a")));
}

#[test]
fn adopts_and_releases_pods() {
    let mut world = World::read("rs web-a 2");
    world.change_pod("web-a-0", |pod| pod.metadata.labels = None);
    world.change_pod("web-a-1", |pod| pod.metadata.owner_references = None);
    let mut text = show(&world.plan(Controller::ReplicaSet, Kind::ReplicaSet, "web-a"));
    world.wake_all();
    world.settle();
    for pod in world.snapshot.list::<Pod>(None) {
        let owner = api::object::controller_of(&pod.metadata).map(|owner| owner.name.clone());
        text += &format!("{} of {owner:?}\n", pods::name(pod));
    }
    expect![[r#"
        update Pod web-a-0
        update Pod web-a-1 of web-a
        web-a-0 of None
        web-a-1 of Some("web-a")
    "#]]
    .assert_eq(&text);
}

/// Its set counts it by the uid, the collector does not find the name and ends it: the set has to hear of that.
#[test]
fn a_pod_that_names_its_set_wrongly_is_made_up_for() {
    let mut world = World::read("rs web-a 2 orphan");
    world.wake_all();
    world.settle();
    world.user_edits::<Pod>("web-a-0", |pod| {
        pod.metadata.owner_references.as_mut().unwrap()[0].name = "another".into();
    });
    world.settle();
    world.pod_gone("web-a-0");
    world.settle();
    assert_eq!(world.pods().len(), 2);
}

#[test]
fn availability_takes_its_time() {
    let mut world = World::read("rs web-a 1 pods 0 min-ready 10 orphan");
    let mut text = String::new();
    world.wake_all();
    world.settle();
    world.run_nodes();
    world.run_nodes();
    for seconds in [0, 9, 1] {
        world.advance(seconds);
        world.settle();
        let status = world.snapshot.get::<ReplicaSet>("default", "web-a").unwrap().status.clone().unwrap();
        text += &format!(
            "+{seconds} s: {} ready, {:?} available\n",
            status.ready_replicas.unwrap(),
            status.available_replicas
        );
    }
    expect![[r#"
        +0 s: 1 ready, None available
        +9 s: 1 ready, None available
        +1 s: 1 ready, Some(1) available
    "#]]
    .assert_eq(&text);
}

#[test]
fn a_set_that_is_going_makes_nothing() {
    let mut world = World::read("rs web-a 3 pods 1 orphan");
    world.user_deletes(Kind::ReplicaSet, "web-a", Propagation::Foreground);
    expect![[r#""#]].assert_eq(&show(&world.plan(Controller::ReplicaSet, Kind::ReplicaSet, "web-a")));
}

/// Upstream: TestSortingActivePodsWithRanks. Every pod is to go before all that stand after it.
#[test]
fn order_of_going() {
    let ready = |since: &str| json!({ "type": "Ready", "status": "True", "lastTransitionTime": since });
    let pod = |name: &str, node: &str, phase: &str, conditions: Value, more: Value| {
        let mut pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": name, "namespace": "default", "uid": format!("uid-{name}"), "creationTimestamp": "2026-01-01T00:00:00Z",
                "labels": { "app": "web", "pod-template-hash": "a" },
                "ownerReferences": [{ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-a", "uid": "uid-web-a", "controller": true }] },
            "spec": { "nodeName": node, "containers": [] },
            "status": { "phase": phase, "conditions": conditions },
        });
        for (path, value) in more.as_object().unwrap() {
            *pod.pointer_mut(&path[..path.rfind('/').unwrap()]).unwrap() = {
                let mut parent = pod.pointer(&path[..path.rfind('/').unwrap()]).unwrap().clone();
                parent[&path[path.rfind('/').unwrap() + 1..]] = value.clone();
                parent
            };
        }
        pod
    };
    let none = json!({});
    let cost = |cost: &str| json!({ "/metadata/annotations": { "controller.kubernetes.io/pod-deletion-cost": cost } });
    let restarts = |count: i32| json!({ "/status/containerStatuses": [{ "name": "c", "image": "i", "imageID": "", "ready": true, "restartCount": count }] });
    let long = "2026-01-01T01:00:00Z";
    let pods = [
        pod("unbound", "", "Pending", json!([]), none.clone()),
        pod("pending", "n1", "Pending", json!([]), none.clone()),
        pod("unknown", "n1", "Unknown", json!([]), none.clone()),
        pod("running-not-ready-restarted", "n1", "Running", json!([]), restarts(3)),
        pod("running-not-ready", "n1", "Running", json!([]), none.clone()),
        pod("not-yet-available", "n1", "Running", json!([ready("2026-01-01T11:59:55Z")]), none.clone()),
        pod("cheap", "n1", "Running", json!([ready(long)]), cost("-5")),
        pod("crowded", "n2", "Running", json!([ready(long)]), cost("+5")),
        pod("crowded-too", "n2", "Running", json!([ready(long)]), cost("00")),
        pod("ready-since-short", "n3", "Running", json!([ready("2026-01-01T11:58:00Z")]), none.clone()),
        pod("ready-since-long-restarted", "n4", "Running", json!([ready(long)]), restarts(1)),
        pod(
            "young",
            "n5",
            "Running",
            json!([ready(long)]),
            json!({ "/metadata/creationTimestamp": "2026-01-01T11:00:00Z" }),
        ),
        pod("old", "n6", "Running", json!([ready(long)]), none),
        pod("dear", "n7", "Running", json!([ready("2026-01-01T11:59:00Z")]), cost("7")),
    ];
    let mut order = Vec::new();
    for count in 1..=pods.len() {
        let mut world = World::read(&format!("rs web-a {} pods 0 min-ready 10 orphan", pods.len() - count));
        pods.iter().rev().for_each(|pod| world.store(Kind::Pod, pod.clone()));
        let plan = world.plan(Controller::ReplicaSet, Kind::ReplicaSet, "web-a");
        let gone = plan.writes.iter().filter_map(|write| match write {
            api::Write::Delete { key, .. } => Some(key.name.clone()),
            _ => None,
        });
        let gone: Vec<String> = gone.collect();
        assert_eq!(gone.len(), count);
        order.extend(gone.into_iter().filter(|name| !order.contains(name)).collect::<Vec<_>>());
    }
    expect![[r#"
        unbound
        pending
        unknown
        running-not-ready-restarted
        running-not-ready
        not-yet-available
        cheap
        crowded
        crowded-too
        ready-since-short
        ready-since-long-restarted
        young
        old
        dear
    "#]]
    .assert_eq(&(order.join("\n") + "\n"));
}

mod replication_controllers {
    use super::*;
    use k8s_openapi::api::core::v1::ReplicationController;

    fn world() -> World {
        let mut world = World::new();
        let template = json!({ "metadata": { "labels": { "app": "old" } }, "spec": { "containers": [] } });
        let spec = json!({ "replicas": 2, "selector": { "app": "old" }, "template": template });
        let body = json!({ "apiVersion": "v1", "kind": "ReplicationController", "metadata": { "name": "old", "namespace": "default" }, "spec": spec });
        world.user_creates(Kind::ReplicationController, body);
        world
    }

    fn status(world: &World) -> String {
        let status = world.snapshot.get::<ReplicationController>("default", "old").unwrap().status.clone().unwrap();
        let conditions = status.conditions.into_iter().flatten().map(|it| format!(" {}={}", it.type_, it.status));
        let numbers =
            [Some(status.replicas), status.ready_replicas, status.available_replicas].map(|it| it.unwrap_or(0));
        format!("{numbers:?}{}\n", conditions.collect::<String>())
    }

    #[test]
    fn are_kept_as_replica_sets_are() {
        let mut world = world();
        expect![[r#"
            create Pod old-? of old
            event SuccessfulCreate Created pod: {created}
            create Pod old-? of old
            event SuccessfulCreate Created pod: {created}
        "#]]
        .assert_eq(&show(&world.plan(Controller::ReplicaSet, Kind::ReplicationController, "old")));
        world.settle();
        let mut text = status(&world);
        for _ in 0..3 {
            world.run_nodes();
            world.settle();
        }
        text += &status(&world);
        world.user_edits::<ReplicationController>("old", |it| it.spec.as_mut().unwrap().replicas = Some(1));
        world.settle();
        world.run_nodes();
        world.settle();
        text += &status(&world);
        expect![[r#"
            [2, 0, 0]
            [2, 2, 2]
            [1, 1, 1]
        "#]]
        .assert_eq(&text);
        world.wake_all();
        assert_eq!(world.settle(), 0);
    }

    #[test]
    fn adopt_release_and_leave_orphans() {
        let mut world = world();
        let pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "a", "namespace": "default", "labels": { "app": "old" } }, "spec": { "containers": [] } });
        world.user_creates(Kind::Pod, pod);
        world.settle();
        let owned = |world: &World| {
            world.snapshot.list::<Pod>(None).filter(|pod| pod.metadata.owner_references.is_some()).count()
        };
        assert_eq!((world.pods().len(), owned(&world)), (2, 2));
        world.user_edits::<Pod>("a", |pod| pod.metadata.labels = None);
        world.settle();
        assert_eq!((world.pods().len(), owned(&world)), (3, 2));
        world.user_deletes(Kind::ReplicationController, "old", Propagation::Orphan);
        world.settle();
        assert_eq!((world.pods().len(), owned(&world)), (3, 0));
    }

    #[test]
    fn tell_of_a_full_quota() {
        let mut world = world();
        world.door = |_, write| {
            matches!(write, api::Write::Create(api::Body::Pod(_)))
                .then(|| Refusal::forbidden(Kind::Pod, "", "exceeded quota"))
        };
        world.settle();
        let mut text = status(&world);
        world.door = |_, _| None;
        world.advance(1);
        world.settle();
        text += &status(&world);
        expect![[r#"
            [0, 0, 0] ReplicaFailure=True
            [2, 0, 0]
        "#]]
        .assert_eq(&text);
    }
}
