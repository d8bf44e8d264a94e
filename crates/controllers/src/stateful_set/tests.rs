use expect_test::expect;
use serde_json::{Value, json};

use api::{Kind, Pod, Propagation, Refusal, Snapshot, Typed, Write};
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;

use super::members::Members;
use crate::history::REVISION_LABEL;
use crate::testing::{World, masked, show};
use crate::{Controller, pods};

fn merge(value: &mut Value, more: Value) {
    match (value, more) {
        (Value::Object(value), Value::Object(more)) => {
            more.into_iter().for_each(|(key, more)| merge(value.entry(key).or_insert(Value::Null), more));
        }
        (value, more) => *value = more,
    }
}

fn set(spec: Value) -> Value {
    let mut set = json!({
        "apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": { "name": "web", "namespace": "default" },
        "spec": {
            "replicas": 3, "serviceName": "nginx", "selector": { "matchLabels": { "app": "web" } },
            "template": { "metadata": { "labels": { "app": "web" } }, "spec": { "containers": [{ "name": "c", "image": "v1" }] } },
        },
    });
    merge(&mut set["spec"], spec);
    set
}

/// A cluster with a set that was just made.
fn world(spec: Value) -> World {
    let mut world = World::new();
    world.user_creates(Kind::StatefulSet, set(spec));
    world.settle();
    world
}

fn edit(world: &mut World, spec: Value) {
    world.user_edits::<StatefulSet>("web", |set| {
        let mut value = serde_json::to_value(&*set).unwrap();
        merge(&mut value["spec"], spec);
        *set = serde_json::from_value(value).unwrap();
    });
    world.settle();
}

fn set_image(world: &mut World, image: &str) {
    edit(world, json!({ "template": { "spec": { "containers": [{ "name": "c", "image": image }] } } }));
}

fn image(pod: &Pod) -> &str {
    pod.spec.as_deref().unwrap().containers[0].image.as_deref().unwrap()
}

/// The pods in a line: `web-0 v1 ready, web-1 v1`.
fn line(world: &World) -> String {
    let pods = world.snapshot.list::<Pod>(None).map(|pod| {
        let state = match () {
            () if pods::is_deleted(pod) => " ending",
            () if pods::has_ended(pod) => " ended",
            () if pods::is_ready(pod) => " ready",
            () => "",
        };
        format!("{} {}{state}", pods::name(pod), image(pod))
    });
    pods.collect::<Vec<_>>().join(", ") + "\n"
}

fn status(world: &World) -> String {
    let status = world.snapshot.get::<StatefulSet>("default", "web").unwrap().status.clone().unwrap_or_default();
    let same = status.current_revision == status.update_revision;
    format!(
        "replicas {} ready {} available {} current {} updated {} {}\n",
        status.replicas,
        status.ready_replicas.unwrap_or(0),
        status.available_replicas.unwrap_or(0),
        status.current_replicas.unwrap_or(0),
        status.updated_replicas.unwrap_or(0),
        if same { "complete" } else { "updating" }
    )
}

/// A node runs for a while: pods with the image `bad` never get ready. The text has a line for every change.
fn run(world: &mut World, rounds: usize) -> String {
    let mut text = line(world);
    for _ in 0..rounds {
        for name in world.pods() {
            let pod = world.snapshot.get::<Pod>("default", &name).unwrap();
            let bad = image(pod).starts_with("bad");
            let (bound, deleted, ready) = (!pods::node(pod).is_empty(), pods::is_deleted(pod), pods::is_ready(pod));
            match () {
                () if deleted => world.pod_gone(&name),
                () if pods::has_ended(pod) => {}
                () if !bound => world.change_pod(&name, |pod| pod.spec.as_mut().unwrap().node_name = Some("n1".into())),
                () if !ready && !bad => world.set_ready(&name, true),
                () => {}
            }
        }
        world.settle();
        let now = line(world);
        if !text.ends_with(&now) {
            text += &now;
        }
    }
    text
}

fn is_at_rest(world: &mut World) {
    world.wake_all();
    assert_eq!(world.settle(), 0, "something is written though all is as it should be");
}

#[test]
fn in_order_up_and_down() {
    let mut world = world(json!({}));
    world.check = bounds;
    let mut text = run(&mut world, 10) + &status(&world);
    edit(&mut world, json!({ "replicas": 1 }));
    text += &(run(&mut world, 6) + &status(&world));
    expect![[r#"
        web-0 v1
        web-0 v1 ready, web-1 v1
        web-0 v1 ready, web-1 v1 ready, web-2 v1
        web-0 v1 ready, web-1 v1 ready, web-2 v1 ready
        replicas 3 ready 3 available 3 current 3 updated 3 complete
        web-0 v1 ready, web-1 v1 ready, web-2 v1 ending
        web-0 v1 ready, web-1 v1 ending
        web-0 v1 ready
        replicas 1 ready 1 available 1 current 1 updated 1 complete
    "#]]
    .assert_eq(&text);
    is_at_rest(&mut world);
}

#[test]
fn all_at_once_when_parallel() {
    let mut world = world(json!({ "podManagementPolicy": "Parallel", "ordinals": { "start": 5 } }));
    let mut text = run(&mut world, 4);
    edit(&mut world, json!({ "replicas": 1 }));
    text += &run(&mut world, 4);
    expect![[r#"
        web-5 v1, web-6 v1, web-7 v1
        web-5 v1 ready, web-6 v1 ready, web-7 v1 ready
        web-5 v1 ready, web-6 v1 ending, web-7 v1 ending
        web-5 v1 ready
    "#]]
    .assert_eq(&text);
    is_at_rest(&mut world);
}

#[test]
fn who_a_pod_is() {
    let world = world(json!({}));
    let pod = world.snapshot.get::<Pod>("default", "web-0").unwrap();
    let labels: Vec<String> =
        pods::labels(pod).unwrap().iter().map(|(key, value)| format!("{key}={}", masked(value))).collect();
    let spec = pod.spec.as_deref().unwrap();
    expect![[r#"
        app=web
        apps.kubernetes.io/pod-index=0
        controller-revision-hash=web-<hash>
        statefulset.kubernetes.io/pod-name=web-0
        Some("web-0") Some("nginx")
    "#]]
    .assert_eq(&format!("{}\n{:?} {:?}\n", labels.join("\n"), spec.hostname, spec.subdomain));
}

/// The number that a pod has among those of a set.
fn numbered(set: &StatefulSet, pod: &Pod) -> Option<i32> {
    let (stem, number) = api::pod_facts::numbered(pod)?;
    (Some(stem) == set.metadata.name.as_deref()).then_some(number)
}

/// Upstream: TestGetParentNameAndOrdinal; but a number with a zero before it is none of ours.
#[test]
fn numbers_of_names() {
    let set: StatefulSet = serde_json::from_value(set(json!({}))).unwrap();
    let ordinal = |name: &str| {
        let pod: Pod = serde_json::from_value(json!({ "metadata": { "name": name } })).unwrap();
        format!("{name}: {:?}", numbered(&set, &pod))
    };
    let names = [
        "web-0",
        "web-12",
        "web-01",
        "web--1",
        "web-",
        "web",
        "web-a",
        "other-0",
        "web-0-1",
        "web-99999999999",
        "web-+1",
    ];
    expect![[r#"
        web-0: Some(0)
        web-12: Some(12)
        web-01: None
        web--1: None
        web-: None
        web: None
        web-a: None
        other-0: None
        web-0-1: None
        web-99999999999: None
        web-+1: None
    "#]]
    .assert_eq(&(names.map(ordinal).join("\n") + "\n"));
}

#[test]
fn an_update_goes_from_the_last_to_the_first() {
    let mut world = world(json!({}));
    run(&mut world, 10);
    world.check = bounds;
    set_image(&mut world, "v2");
    let mut text = status(&world) + &run(&mut world, 15) + &status(&world);
    set_image(&mut world, "v1");
    run(&mut world, 15);
    let revisions = world.snapshot.list::<ControllerRevision>(None).map(|it| it.revision).collect::<Vec<_>>();
    text += &format!("undone: {revisions:?} {}", line(&world));
    expect![[r#"
        replicas 3 ready 2 available 2 current 2 updated 0 updating
        web-0 v1 ready, web-1 v1 ready, web-2 v1 ending
        web-0 v1 ready, web-1 v1 ready, web-2 v2
        web-0 v1 ready, web-1 v1 ending, web-2 v2 ready
        web-0 v1 ready, web-1 v2, web-2 v2 ready
        web-0 v1 ending, web-1 v2 ready, web-2 v2 ready
        web-0 v2, web-1 v2 ready, web-2 v2 ready
        web-0 v2 ready, web-1 v2 ready, web-2 v2 ready
        replicas 3 ready 3 available 3 current 3 updated 3 complete
        undone: [3, 2] web-0 v1 ready, web-1 v1 ready, web-2 v1 ready
    "#]]
    .assert_eq(&text);
    is_at_rest(&mut world);
}

#[test]
fn a_partition_holds_the_first_back() {
    let mut world =
        world(json!({ "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": { "partition": 2 } } }));
    run(&mut world, 10);
    world.check = bounds;
    set_image(&mut world, "v2");
    let mut text = run(&mut world, 8) + &status(&world);
    world.user_deletes(Kind::Pod, "web-0", Propagation::Background);
    world.settle();
    text += &format!("web-0 was deleted\n{}", run(&mut world, 4));
    edit(&mut world, json!({ "updateStrategy": { "rollingUpdate": { "partition": 0 } } }));
    text += &format!("no partition any more\n{}{}", run(&mut world, 12), status(&world));
    expect![[r#"
        web-0 v1 ready, web-1 v1 ready, web-2 v1 ending
        web-0 v1 ready, web-1 v1 ready, web-2 v2
        web-0 v1 ready, web-1 v1 ready, web-2 v2 ready
        replicas 3 ready 3 available 3 current 2 updated 1 updating
        web-0 was deleted
        web-0 v1 ending, web-1 v1 ready, web-2 v2 ready
        web-0 v1, web-1 v1 ready, web-2 v2 ready
        web-0 v1 ready, web-1 v1 ready, web-2 v2 ready
        no partition any more
        web-0 v1 ready, web-1 v1 ending, web-2 v2 ready
        web-0 v1 ready, web-1 v2, web-2 v2 ready
        web-0 v1 ending, web-1 v2 ready, web-2 v2 ready
        web-0 v2, web-1 v2 ready, web-2 v2 ready
        web-0 v2 ready, web-1 v2 ready, web-2 v2 ready
        replicas 3 ready 3 available 3 current 3 updated 3 complete
    "#]]
    .assert_eq(&text);
    is_at_rest(&mut world);
}

#[test]
fn so_many_may_be_unavailable() {
    let strategy = json!({ "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": "50%" } });
    let mut world = world(json!({ "replicas": 4, "podManagementPolicy": "Parallel", "updateStrategy": strategy }));
    run(&mut world, 4);
    world.check = bounds;
    set_image(&mut world, "v2");
    expect![[r#"
        web-0 v1 ready, web-1 v1 ready, web-2 v1 ending, web-3 v1 ending
        web-0 v1 ready, web-1 v1 ready, web-2 v2, web-3 v2
        web-0 v1 ending, web-1 v1 ending, web-2 v2 ready, web-3 v2 ready
        web-0 v2, web-1 v2, web-2 v2 ready, web-3 v2 ready
        web-0 v2 ready, web-1 v2 ready, web-2 v2 ready, web-3 v2 ready
    "#]]
    .assert_eq(&run(&mut world, 10));
    is_at_rest(&mut world);
}

#[test]
fn on_delete_waits_for_somebody_to_delete() {
    let mut world = world(json!({ "replicas": 2, "updateStrategy": { "type": "OnDelete" } }));
    run(&mut world, 8);
    set_image(&mut world, "v2");
    let mut text = run(&mut world, 3);
    for name in ["web-0", "web-1"] {
        world.user_deletes(Kind::Pod, name, Propagation::Background);
        world.settle();
        text += &(run(&mut world, 5) + &status(&world));
    }
    expect![[r#"
        web-0 v1 ready, web-1 v1 ready
        web-0 v1 ending, web-1 v1 ready
        web-0 v2, web-1 v1 ready
        web-0 v2 ready, web-1 v1 ready
        replicas 2 ready 2 available 2 current 1 updated 1 updating
        web-0 v2 ready, web-1 v1 ending
        web-0 v2 ready, web-1 v2
        web-0 v2 ready, web-1 v2 ready
        replicas 2 ready 2 available 2 current 2 updated 2 complete
    "#]]
    .assert_eq(&text);
    is_at_rest(&mut world);
}

/// k/k#67250: in upstream somebody has to delete the broken pod by hand.
#[test]
fn a_set_stuck_on_a_bad_template_recovers_with_a_good_one() {
    for policy in ["OrderedReady", "Parallel"] {
        let mut world = world(json!({ "podManagementPolicy": policy }));
        run(&mut world, 10);
        world.check = bounds;
        for image in ["bad1", "bad2", "bad3"] {
            set_image(&mut world, image);
            run(&mut world, 8);
            assert_eq!(line(&world), format!("web-0 v1 ready, web-1 v1 ready, web-2 {image}\n"));
        }
        set_image(&mut world, "v1");
        run(&mut world, 8);
        assert_eq!(line(&world), "web-0 v1 ready, web-1 v1 ready, web-2 v1 ready\n");
        set_image(&mut world, "v5");
        run(&mut world, 20);
        assert_eq!(line(&world), "web-0 v5 ready, web-1 v5 ready, web-2 v5 ready\n");
        is_at_rest(&mut world);
    }
}

#[test]
fn a_set_that_never_worked_recovers() {
    let mut world = world(json!({ "template": { "spec": { "containers": [{ "name": "c", "image": "bad" }] } } }));
    let mut text = run(&mut world, 5);
    set_image(&mut world, "v1");
    text += &run(&mut world, 15);
    expect![[r#"
        web-0 bad
        web-0 bad ending
        web-0 v1
        web-0 v1 ready, web-1 v1
        web-0 v1 ready, web-1 v1 ready, web-2 v1
        web-0 v1 ready, web-1 v1 ready, web-2 v1 ready
    "#]]
    .assert_eq(&text);
}

#[test]
fn a_broken_pod_that_is_too_many_goes() {
    let mut world = world(json!({ "podManagementPolicy": "Parallel" }));
    run(&mut world, 3);
    for name in ["web-1", "web-2"] {
        world.set_ready(name, false);
    }
    edit(&mut world, json!({ "replicas": 1 }));
    run(&mut world, 5);
    assert_eq!(line(&world), "web-0 v1 ready\n");
}

/// Upstream: "Scaling should happen in predictable order and halt if any stateful pod is unhealthy" of
/// `test/e2e/apps/statefulset.go`.
#[test]
fn broken_pods_hold_scaling_down_in_order() {
    let mut world = world(json!({}));
    world.check = bounds;
    run(&mut world, 10);
    for name in ["web-0", "web-1", "web-2"] {
        world.set_ready(name, false);
    }
    edit(&mut world, json!({ "replicas": 0 }));
    world.settle();
    let mut text = line(&world);
    is_at_rest(&mut world);
    world.set_ready("web-2", true);
    world.settle();
    text += &line(&world);
    world.pod_gone("web-2");
    world.settle();
    text += &line(&world);
    world.set_ready("web-0", true);
    world.settle();
    text += &line(&world);
    expect![[r#"
        web-0 v1, web-1 v1, web-2 v1
        web-0 v1, web-1 v1, web-2 v1 ending
        web-0 v1, web-1 v1
        web-0 v1 ready, web-1 v1 ending
    "#]]
    .assert_eq(&text);
}

#[test]
fn a_broken_pod_of_an_outdated_template_holds_nothing_up() {
    let mut world = world(json!({}));
    run(&mut world, 10);
    for name in ["web-0", "web-1", "web-2"] {
        world.set_ready(name, false);
    }
    edit(&mut world, json!({ "replicas": 0 }));
    set_image(&mut world, "v2");
    run(&mut world, 8);
    assert_eq!(line(&world), "\n");
}

#[test]
fn pods_that_ended_are_made_again() {
    let mut world = world(json!({ "replicas": 1 }));
    run(&mut world, 3);
    let mut text = String::new();
    for _ in 0..3 {
        world.set_ready("web-0", false);
        world.change_pod("web-0", |pod| pod.status.as_mut().unwrap().phase = Some("Failed".into()));
        world.settle();
        text += &line(&world);
        world.advance(2);
        world.settle();
        text += &run(&mut world, 3);
    }
    text +=
        &world.events.iter().filter(|event| event.starts_with("Recreating")).cloned().collect::<Vec<_>>().join("\n");
    expect![[r#"
        web-0 v1
        web-0 v1
        web-0 v1 ready
        web-0 v1 ended
        web-0 v1
        web-0 v1 ready
        web-0 v1 ended
        web-0 v1
        web-0 v1 ready
        RecreatingFailedPod StatefulSet default/web is recreating failed Pod web-0
        RecreatingFailedPod StatefulSet default/web is recreating failed Pod web-0
        RecreatingFailedPod StatefulSet default/web is recreating failed Pod web-0"#]]
    .assert_eq(&text);
}

#[test]
fn a_deleted_set_makes_and_ends_nothing() {
    let mut world = world(json!({}));
    world.user_deletes(Kind::StatefulSet, "web", Propagation::Foreground);
    let plan = world.plan(Controller::StatefulSet, Kind::StatefulSet, "web");
    assert!(
        !plan.writes.iter().any(|write| matches!(write, Write::Create(_) | Write::Delete { .. })),
        "{}",
        show(&plan)
    );
}

#[test]
fn only_pods_of_its_name_are_adopted() {
    let mut world = world(json!({ "replicas": 1 }));
    for name in ["web-1", "other"] {
        let pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "namespace": "default", "labels": { "app": "web" } }, "spec": { "containers": [] } });
        world.user_creates(Kind::Pod, pod);
    }
    let plan = world.plan(Controller::StatefulSet, Kind::StatefulSet, "web");
    expect![[r#"
        update Pod web-1 of web
    "#]]
    .assert_eq(&show(&plan));
}

#[test]
fn a_refusal_is_told() {
    let mut world = world(json!({}));
    world.pod_gone("web-0");
    world.refuse(
        Controller::StatefulSet,
        Kind::StatefulSet,
        "web",
        Refusal::forbidden(Kind::Pod, "web-0", "exceeded quota"),
    );
    expect![[r#"
        status StatefulSet web
        create Pod web-0 of web
        event SuccessfulCreate Create Pod web-0 in StatefulSet web successful
        event FailedCreate Create Pod web-0 in StatefulSet web failed error: pods "web-0" is forbidden: exceeded quota
        why Create Pod web-0 in StatefulSet web failed error: pods "web-0" is forbidden: exceeded quota
    "#]]
    .assert_eq(&show(&world.plan(Controller::StatefulSet, Kind::StatefulSet, "web")));
}

#[test]
fn a_decision_is_bounded() {
    let mut world = World::new();
    let mut spec = set(json!({ "replicas": 2_000_000_000, "podManagementPolicy": "Parallel" }));
    merge(&mut spec["metadata"], json!({ "uid": "uid-web" }));
    world.store(Kind::StatefulSet, spec);
    for _ in 0..2 {
        let plan = world.plan(Controller::StatefulSet, Kind::StatefulSet, "web");
        let pods =
            plan.writes.iter().filter(|write| matches!(write, Write::Create(body) if body.kind() == Kind::Pod)).count();
        assert!(pods <= api::limits::BURST_REPLICAS);
        plan.writes.into_iter().for_each(|write| world.carry_out(write, &mut String::new()).unwrap());
    }
    assert_eq!(world.pods().len(), api::limits::BURST_REPLICAS);
}

/// What no write of a decision may break: pods in order, and never fewer available than `replicas - maxUnavailable` by an
/// end of a pod that is to be there.
fn bounds(before: &Snapshot, world: &Snapshot, write: &Write, now: jiff::Timestamp) {
    let Some(set) = before.get::<StatefulSet>("default", "web") else { return };
    let spec = set.spec.as_ref().unwrap();
    let members = |world| {
        let world: &Snapshot = world;
        let own = world.members(set.metadata.uid.as_deref().unwrap()).collect();
        Members::of(set, own, now)
    };
    let in_order = spec.pod_management_policy.as_deref() != Some("Parallel");
    match write {
        Write::Create(body) if body.kind() == Kind::Pod && in_order => {
            let Some(ordinal) = numbered(set, Pod::of(body).unwrap()) else { panic!("a stranger") };
            let members = members(before);
            let waits = members.kept().find(|member| member.ordinal < ordinal && !member.available);
            assert!(waits.is_none(), "{ordinal} was made before {} is available", waits.unwrap().ordinal);
        }
        Write::Delete { key, .. } if key.kind == Kind::Pod => {
            let Some(pod) = before.get::<Pod>("default", &key.name) else { return };
            let ordinal = numbered(set, pod).unwrap();
            let (was, is) = (members(before), members(world));
            if was.wanted.contains(&ordinal) {
                let most = super::Pace::of(spec).map_or(0, |pace| pace.max_unavailable);
                let ok = is.unavailable() == was.unavailable() || is.unavailable() <= most;
                assert!(ok, "{} unavailable after {}", is.unavailable(), key.name);
            } else if in_order {
                assert!(was.all.keys().all(|other| *other <= ordinal || was.wanted.contains(other)), "{}", key.name);
            }
        }
        _ => {}
    }
}

/// Found by the property below: web-1 waits to be made again until web-0 is well, and so nothing is on its way.
#[test]
fn a_pod_that_ended_holds_no_repair_up() {
    let mut world = world(json!({}));
    run(&mut world, 10);
    set_image(&mut world, "bad1");
    run(&mut world, 4);
    for name in ["web-0", "web-1"] {
        world.set_ready(name, false);
    }
    world.change_pod("web-0", |pod| {
        pod.metadata.labels.as_mut().unwrap().insert(REVISION_LABEL.into(), "web-old".into());
    });
    world.change_pod("web-0", |pod| pod.spec.as_mut().unwrap().containers[0].image = Some("bad0".into()));
    world.change_pod("web-1", |pod| pod.status.as_mut().unwrap().phase = Some("Failed".into()));
    world.check = bounds;
    set_image(&mut world, "v9");
    expect![[r#"
        web-0 bad0, web-1 v1 ended, web-2 bad1 ending
        web-0 bad0, web-1 v1 ended, web-2 bad1 ending
        web-0 bad0 ending, web-1 v1 ended
        web-0 v9, web-1 v1 ended
        web-0 v9 ready, web-1 v9
        web-0 v9 ready, web-1 v9 ready, web-2 v9
        web-0 v9 ready, web-1 v9 ready, web-2 v9 ready
    "#]]
    .assert_eq(&(line(&world) + &run(&mut world, 12)));
    is_at_rest(&mut world);
}

mod properties {
    use super::*;
    use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop, prop_assert_eq, prop_oneof, proptest};

    /// Something that happens to a StatefulSet.
    #[derive(Clone, Debug)]
    enum Act {
        Image(u8, bool),
        Replicas(i32),
        Start(i32),
        Strategy(i32, i32),
        OnDelete,
        Ready(usize, bool),
        Fail(usize),
        DeletePod(usize),
        Run,
        Pass(i64),
    }

    fn act() -> impl Strategy<Value = Act> {
        prop_oneof![
            3 => (1u8..5, any::<bool>()).prop_map(|(image, bad)| Act::Image(image, bad)),
            2 => (0i32..6).prop_map(Act::Replicas),
            1 => (0i32..3).prop_map(Act::Start),
            1 => (0i32..4, 1i32..3).prop_map(|(partition, unavailable)| Act::Strategy(partition, unavailable)),
            1 => Just(Act::OnDelete),
            3 => (any::<usize>(), any::<bool>()).prop_map(|(pod, ready)| Act::Ready(pod, ready)),
            1 => any::<usize>().prop_map(Act::Fail),
            1 => any::<usize>().prop_map(Act::DeletePod),
            6 => Just(Act::Run),
            2 => (1i64..30).prop_map(Act::Pass),
        ]
    }

    fn rolling(partition: i32, unavailable: i32) -> Value {
        json!({ "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": { "partition": partition, "maxUnavailable": unavailable } } })
    }

    fn perform(world: &mut World, act: &Act) {
        let running = |name: &String| !pods::has_ended(world.snapshot.get("default", name).unwrap());
        let names: Vec<String> = world.pods().into_iter().filter(running).collect();
        let pod = |index: usize| (!names.is_empty()).then(|| names[index % names.len()].clone());
        let bind = |pod: &mut Pod| pod.spec.as_mut().unwrap().node_name = Some("n1".into());
        match *act {
            Act::Image(image, bad) => set_image(world, &format!("{}{image}", if bad { "bad" } else { "v" })),
            Act::Replicas(replicas) => edit(world, json!({ "replicas": replicas })),
            Act::Start(start) => edit(world, json!({ "ordinals": { "start": start } })),
            Act::Strategy(partition, unavailable) => edit(world, rolling(partition, unavailable)),
            Act::OnDelete => edit(world, json!({ "updateStrategy": { "type": "OnDelete", "rollingUpdate": null } })),
            Act::Ready(index, ready) => {
                if let Some(name) = pod(index) {
                    world.change_pod(&name, bind);
                    world.set_ready(&name, ready);
                }
            }
            Act::Fail(index) => {
                if let Some(name) = pod(index) {
                    world.set_ready(&name, false);
                    world.change_pod(&name, bind);
                    world.change_pod(&name, |pod| pod.status.as_mut().unwrap().phase = Some("Failed".into()));
                }
            }
            Act::DeletePod(index) => {
                if let Some(name) = pod(index) {
                    world.user_deletes(Kind::Pod, &name, Propagation::Background);
                }
            }
            Act::Run => drop(run(world, 1)),
            Act::Pass(seconds) => world.advance(seconds),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever happens: no bound is broken, the decisions come to rest, in the end the wanted pods and only they are
        /// there, and then nothing is written any more.
        #[test]
        fn bounds_hold_and_the_end_is_reached(
            acts in prop::collection::vec((act(), any::<bool>()), 1..25),
            policy in prop_oneof![Just("OrderedReady"), Just("Parallel")],
            min_ready in prop_oneof![Just(0), Just(5)],
        ) {
            let mut world = world(json!({ "podManagementPolicy": policy, "minReadySeconds": min_ready }));
            world.check = bounds;
            for (act, settle) in &acts {
                perform(&mut world, act);
                if *settle {
                    world.settle();
                }
            }
            edit(&mut world, rolling(0, 1));
            set_image(&mut world, "v9");
            for _ in 0..80 {
                world.settle();
                run(&mut world, 1);
                world.advance(20);
            }
            world.settle();
            let set = world.snapshot.get::<StatefulSet>("default", "web").unwrap().clone();
            let spec = set.spec.unwrap();
            let (start, replicas) = (spec.ordinals.and_then(|it| it.start).unwrap_or(0), spec.replicas.unwrap());
            let wanted: Vec<String> = (start..start + replicas).map(|number| format!("web-{number} v9 ready")).collect();
            prop_assert_eq!(line(&world), wanted.join(", ") + "\n");
            prop_assert_eq!(status(&world), format!("replicas {replicas} ready {replicas} available {replicas} current {replicas} updated {replicas} complete\n"));
            world.wake_all();
            prop_assert_eq!(world.settle(), 0, "something is written though all is as it should be");
        }
    }
}

/// Claims with who owns them: `data-web-0 of web, data-web-1`.
fn claims(world: &World) -> String {
    let claims = world.snapshot.list::<PersistentVolumeClaim>(None).map(|claim| {
        let owners = claim.metadata.owner_references.iter().flatten().map(|owner| format!(" of {}", owner.name));
        let going = if claim.metadata.deletion_timestamp.is_some() { " ending" } else { "" };
        format!("{}{}{going}", claim.metadata.name.as_deref().unwrap(), owners.collect::<String>())
    });
    claims.collect::<Vec<_>>().join(", ") + "\n"
}

fn with_claims(policy: Value, more: Value) -> Value {
    let template = json!({ "metadata": { "name": "data", "labels": { "tier": "db" } },
        "spec": { "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Gi" } } } });
    let mut spec = json!({ "volumeClaimTemplates": [template], "persistentVolumeClaimRetentionPolicy": policy });
    merge(&mut spec, more);
    spec
}

#[test]
fn each_pod_has_claims_of_its_own() {
    let mut world = world(with_claims(json!({}), json!({ "replicas": 2 })));
    run(&mut world, 6);
    let mut text = line(&world) + &claims(&world);
    let claim = world.snapshot.get::<PersistentVolumeClaim>("default", "data-web-0").unwrap();
    let pod = world.snapshot.get::<Pod>("default", "web-1").unwrap();
    text += &format!("{}\n", json!([claim.metadata.labels, claim.spec, pod.spec.as_ref().unwrap().volumes]));
    text += &world.events.iter().filter(|event| event.contains("Claim")).cloned().collect::<Vec<_>>().join("\n");
    expect![[r#"
        web-0 v1 ready, web-1 v1 ready
        data-web-0, data-web-1
        [{"app":"web","tier":"db"},{"accessModes":["ReadWriteOnce"],"resources":{"requests":{"storage":"1Gi"}},"volumeMode":"Filesystem"},[{"name":"data","persistentVolumeClaim":{"claimName":"data-web-1"}}]]
        SuccessfulCreate create Claim data-web-0 Pod web-0 in StatefulSet web success
        SuccessfulCreate create Claim data-web-1 Pod web-1 in StatefulSet web success"#]].assert_eq(&text);
    is_at_rest(&mut world);
}

/// Upstream: TestUpdateClaimOwnerRefForSetAndPod.
#[test]
fn the_policy_says_what_becomes_of_claims() {
    let mut table = String::new();
    for policy in [
        json!({ "whenDeleted": "Retain", "whenScaled": "Retain" }),
        json!({ "whenDeleted": "Delete", "whenScaled": "Retain" }),
        json!({ "whenDeleted": "Retain", "whenScaled": "Delete" }),
        json!({ "whenDeleted": "Delete", "whenScaled": "Delete" }),
    ] {
        let mut world = world(with_claims(policy.clone(), json!({ "replicas": 2 })));
        run(&mut world, 6);
        table += &format!("{policy}\n  {}", claims(&world));
        edit(&mut world, json!({ "replicas": 1 }));
        table += &format!("  one too many: {}", claims(&world));
        run(&mut world, 3);
        table += &format!("  it ended: {}", claims(&world));
        edit(&mut world, json!({ "replicas": 2 }));
        run(&mut world, 4);
        table += &format!("  back: {}", claims(&world));
        is_at_rest(&mut world);
        world.user_deletes(Kind::StatefulSet, "web", Propagation::Background);
        run(&mut world, 4);
        table += &format!("  the set is gone: {}", claims(&world));
    }
    expect![[r#"
        {"whenDeleted":"Retain","whenScaled":"Retain"}
          data-web-0, data-web-1
          one too many: data-web-0, data-web-1
          it ended: data-web-0, data-web-1
          back: data-web-0, data-web-1
          the set is gone: data-web-0, data-web-1
        {"whenDeleted":"Delete","whenScaled":"Retain"}
          data-web-0 of web, data-web-1 of web
          one too many: data-web-0 of web, data-web-1 of web
          it ended: data-web-0 of web, data-web-1 of web
          back: data-web-0 of web, data-web-1 of web
          the set is gone: 
        {"whenDeleted":"Retain","whenScaled":"Delete"}
          data-web-0, data-web-1
          one too many: data-web-0, data-web-1 of web-1
          it ended: data-web-0
          back: data-web-0, data-web-1
          the set is gone: data-web-0, data-web-1
        {"whenDeleted":"Delete","whenScaled":"Delete"}
          data-web-0 of web, data-web-1 of web
          one too many: data-web-0 of web, data-web-1 of web-1
          it ended: data-web-0 of web
          back: data-web-0 of web, data-web-1 of web
          the set is gone: 
    "#]]
    .assert_eq(&table);
}

/// A pod that is to stay after all keeps its claim.
#[test]
fn scaled_down_and_up_again_before_the_pod_ended() {
    let mut world = world(with_claims(json!({ "whenScaled": "Delete" }), json!({ "replicas": 2 })));
    run(&mut world, 6);
    edit(&mut world, json!({ "replicas": 1 }));
    let mut text = line(&world) + &claims(&world);
    edit(&mut world, json!({ "replicas": 2 }));
    text += &(line(&world) + &claims(&world));
    run(&mut world, 6);
    text += &(line(&world) + &claims(&world));
    expect![[r#"
        web-0 v1 ready, web-1 v1 ending
        data-web-0, data-web-1 of web-1
        web-0 v1 ready, web-1 v1 ending
        data-web-0, data-web-1
        web-0 v1 ready, web-1 v1 ready
        data-web-0, data-web-1
    "#]]
    .assert_eq(&text);
    is_at_rest(&mut world);
}

#[test]
fn a_policy_that_changes_changes_who_owns() {
    let mut world = world(with_claims(json!({}), json!({ "replicas": 1 })));
    run(&mut world, 3);
    edit(&mut world, json!({ "persistentVolumeClaimRetentionPolicy": { "whenDeleted": "Delete" } }));
    let mut text = claims(&world);
    edit(&mut world, json!({ "persistentVolumeClaimRetentionPolicy": { "whenDeleted": "Retain" } }));
    text += &claims(&world);
    expect![[r#"
        data-web-0 of web
        data-web-0
    "#]]
    .assert_eq(&text);
    is_at_rest(&mut world);
}

#[test]
fn a_pod_waits_until_its_old_claim_is_gone() {
    let mut world = world(with_claims(json!({}), json!({ "replicas": 1 })));
    run(&mut world, 3);
    let hold =
        |claim: &mut PersistentVolumeClaim| claim.metadata.finalizers = Some(vec!["somebody.example/holds".into()]);
    world.user_edits::<PersistentVolumeClaim>("data-web-0", hold);
    world.user_deletes(Kind::PersistentVolumeClaim, "data-web-0", Propagation::Background);
    world.settle();
    world.pod_gone("web-0");
    world.settle();
    let mut text = line(&world) + &claims(&world);
    text += &format!("{:?}\n", world.plan(Controller::StatefulSet, Kind::StatefulSet, "web").why);
    world.user_edits::<PersistentVolumeClaim>("data-web-0", |claim| claim.metadata.finalizers = None);
    world.settle();
    text += &(line(&world) + &claims(&world));
    expect![[r#"

        data-web-0 ending
        ["web-0 waits: claim data-web-0 is being deleted"]
        web-0 v1
        data-web-0
    "#]]
    .assert_eq(&text);
}

#[test]
fn a_refused_claim_is_told() {
    let mut world = World::new();
    world.door = |_, write| match write {
        Write::Create(body) if body.kind() == Kind::PersistentVolumeClaim => {
            Some(Refusal::forbidden(Kind::PersistentVolumeClaim, "data-web-0", "exceeded quota"))
        }
        _ => None,
    };
    world.user_creates(Kind::StatefulSet, set(with_claims(json!({}), json!({}))));
    world.settle();
    let told: Vec<String> = world.events.iter().filter(|event| event.starts_with("Failed")).cloned().collect();
    expect![[r#"FailedCreate Create Claim data-web-0 for Pod web-0 in StatefulSet web failed error: persistentvolumeclaims "data-web-0" is forbidden: exceeded quota"#]].assert_eq(&told.join("\n"));
    assert!(world.pods().is_empty());
}

/// How each rollout ended is noted on its revision; behind a partition it has not.
#[test]
fn each_rollout_has_an_account() {
    let ask = |world: &mut World, image: &str, partition: i32| {
        let request = world.request();
        world.user_edits::<StatefulSet>("web", |set| {
            set.metadata.annotations.get_or_insert_default().insert(api::account::REQUESTED.into(), request);
        });
        edit(
            world,
            json!({
                "updateStrategy": { "type": "RollingUpdate", "rollingUpdate": { "partition": partition } },
                "template": { "spec": { "containers": [{ "name": "c", "image": image }] } },
            }),
        );
    };
    let mut world = world(json!({}));
    run(&mut world, 8);
    let mut text = world.ends();
    world.advance(10);
    ask(&mut world, "v2", 2);
    run(&mut world, 8);
    world.advance(6000);
    world.settle();
    text += "-- v2 behind a partition\n";
    text += &world.ends();
    edit(&mut world, json!({ "updateStrategy": { "rollingUpdate": { "partition": 0 } } }));
    run(&mut world, 8);
    text += "-- and without it\n";
    text += &world.ends();
    world.advance(10);
    ask(&mut world, "bad", 0);
    run(&mut world, 4);
    world.advance(601);
    world.settle();
    text += "-- bad\n";
    text += &world.ends();
    ask(&mut world, "v1", 0);
    run(&mut world, 12);
    text += "-- back to v1\n";
    text += &world.ends();
    world.wake_all();
    assert_eq!(world.settle(), 0, "something is written though all is as it should be");
    expect![[r#"
        1 v1 -
        -- v2 behind a partition
        1 v1 -
        2 v2 -
        -- and without it
        1 v1 -
        2 v2 {"how":"completed","at":"2026-01-01T13:40:10Z"}
        -- bad
        1 v1 -
        2 v2 {"how":"completed","at":"2026-01-01T13:40:10Z"}
        3 bad {"how":"failed","at":"2026-01-01T13:50:21Z"}
        -- back to v1
        2 v2 {"how":"completed","at":"2026-01-01T13:40:10Z"}
        3 bad {"how":"failed","at":"2026-01-01T13:50:21Z","undone":true}
        4 v1 {"how":"completed","at":"2026-01-01T13:50:21Z"}
    "#]]
    .assert_eq(&text);
}
