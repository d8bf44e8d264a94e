use api::{Key, Kind, Pod, Write};
use expect_test::{Expect, expect};
use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use super::{ENDED_KEPT, too_many_ended};
use crate::Controller;
use crate::testing::{World, show};

/// A cluster, a line each: `node NAME True|False|Unknown [out]`, where `out` is the taint, and
/// `pod NAME NODE|- PHASE [made SECONDS-AGO] [deleted] [held] [evicted]`, which
/// no taint evicts.
fn world(text: &str) -> World {
    let mut world = World::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[0] {
            "node" => world.store(Kind::Node, node(&words[1..])),
            _ => {
                let pod = pod(&world, &words[1..]);
                world.store(Kind::Pod, pod);
            }
        }
    }
    world
}

fn node(words: &[&str]) -> Value {
    let taint = json!({ "key": "node.kubernetes.io/out-of-service", "value": "nodeshutdown", "effect": "NoExecute" });
    let taints: Vec<Value> = words.contains(&"out").then_some(taint).into_iter().collect();
    json!({ "metadata": { "name": words[0], "uid": words[0] }, "spec": { "taints": taints },
        "status": { "conditions": [{ "type": "Ready", "status": words[1] }] } })
}

fn pod(world: &World, words: &[&str]) -> Value {
    let ago = |seconds: i64| Time(world.now - SignedDuration::from_secs(seconds));
    let made = words.iter().position(|word| *word == "made").map_or(1_000, |at| words[at + 1].parse().unwrap());
    let held: &[&str] = if words.contains(&"held") { &["example.com/hold"] } else { &[] };
    json!({
        "metadata": { "name": words[0], "namespace": "default", "uid": words[0], "creationTimestamp": ago(made), "finalizers": held,
            "deletionTimestamp": words.contains(&"deleted").then(|| ago(10)) },
        "spec": { "nodeName": if words[1] == "-" { "" } else { words[1] }, "containers": [],
            "tolerations": [{ "operator": "Exists" }] },
        "status": { "phase": words[2], "reason": words.contains(&"evicted").then_some("Evicted") },
    })
}

/// What is decided about every pod by itself.
fn check(text: &str, expected: Expect) {
    let world = world(text);
    let decided = world.snapshot.list::<Pod>(None).map(|pod| {
        let name = pod.metadata.name.clone().unwrap();
        format!("{name}:\n{}", show(&world.plan(Controller::PodGarbageCollector, Kind::Pod, &name)))
    });
    expected.assert_eq(&decided.collect::<String>());
}

/// Upstream: TestGCOrphaned.
#[test]
fn the_node_is_gone() {
    check(
        "pod stays n1 Running\npod ended gone Succeeded\npod runs gone Running\npod held gone Running held\n\
         pod told gone Failed held deleted\npod young gone Pending made 10",
        expect![[r#"
            ended:
            remove Pod ended
            why its node gone no longer exists
            held:
            status Pod held
            remove Pod held
            why its node gone no longer exists
            runs:
            remove Pod runs
            why its node gone no longer exists
            stays:
            told:
            remove Pod told
            why its node gone no longer exists
            young:
            wake at 2026-01-01T12:00:30Z
        "#]],
    );
}

/// Upstream: "quarantine not finished", "node added to informer after quarantine" of TestGCOrphaned.
#[test]
fn a_node_that_is_deleted_is_missed_for_a_while() {
    let mut world = world("node n2 True\npod stays n1 Running\npod old n2 Running\npod leaving n2 Running deleted");
    let mut told = String::new();
    let mut step = |world: &mut World, seconds: i64, what: &str| {
        world.advance(seconds);
        let now = world.now;
        world.heard.tick(now);
        match what {
            "delete" => world.cluster_removes(Kind::Node, "n2"),
            "register" => world.user_creates(Kind::Node, node(&["n2", "True"])),
            _ => {}
        }
        world.settle();
        told += &format!("+{seconds}s {what}: {}\n", world.pods().join(" "));
    };
    step(&mut world, 0, "-");
    step(&mut world, 1_000, "delete");
    step(&mut world, 39, "register");
    step(&mut world, 100, "-");
    step(&mut world, 0, "delete");
    step(&mut world, 39, "-");
    step(&mut world, 1, "-");
    expect![[r#"
        +0s -: leaving old stays
        +1000s delete: leaving old stays
        +39s register: leaving old stays
        +100s -: leaving old stays
        +0s delete: leaving old stays
        +39s -: leaving old stays
        +1s -: stays
    "#]]
    .assert_eq(&told);
}

/// Upstream: TestGCUnscheduledTerminating.
#[test]
fn no_node_had_it() {
    check(
        "pod waits - Pending\npod deleted - Pending deleted held\npod ended - Failed deleted held",
        expect![[r#"
        deleted:
        status Pod deleted
        ended:
        waits:
    "#]],
    );
}

/// Upstream: TestGCTerminating.
#[test]
fn the_node_is_out_of_service() {
    check(
        "node off Unknown out\nnode back True out\nnode silent False\n\
         pod stays off Running\npod runs off Running deleted\npod held off Running deleted held\npod ended off Succeeded deleted\n\
         pod on-back back Running deleted\npod on-silent silent Running deleted",
        expect![[r#"
            ended:
            remove Pod ended
            why its node off is out of service
            held:
            status Pod held
            remove Pod held
            why its node off is out of service
            on-back:
            on-silent:
            runs:
            remove Pod runs
            why its node off is out of service
            stays:
        "#]],
    );
}

/// Upstream: TestGCTerminated.
#[test]
fn too_many_have_ended() {
    let ended = "pod new n1 Succeeded made 10\npod old n1 Failed made 90\npod evicted n1 Failed made 50 evicted\n\
                 pod b n1 Succeeded made 70\npod a n1 Succeeded made 70\npod runs n1 Running made 99\n\
                 pod leaving n1 Failed made 95 deleted held";
    let world = world(ended);
    let gone = |kept: usize| {
        let names = too_many_ended(&world.snapshot, kept).into_iter().map(|write| match write {
            Write::Remove { key, .. } => key.name,
            other => panic!("{other:?}"),
        });
        format!("{kept} kept, gone [{}]\n", names.collect::<Vec<_>>().join(" "))
    };
    expect![[r#"
        5 kept, gone []
        4 kept, gone [evicted]
        3 kept, gone [evicted old]
        1 kept, gone [evicted old a b]
        0 kept, gone [evicted old a b new]
    "#]]
    .assert_eq(&[5, 4, 3, 1, 0].map(gone).concat());
}

/// Somebody says that a machine is off: what was deleted there goes at once, and what is deleted later as well.
#[test]
fn taints_readiness_and_deletions_wake() {
    for (first, then) in [("off Unknown", "off Unknown out"), ("off True out", "off False out")] {
        let mut world =
            world(&format!("node {first}\npod a off Running deleted\npod b off Running\npod c n1 Running deleted"));
        world.wake_all();
        world.settle();
        assert_eq!(world.pods().join(" "), "a b c");
        world.change_node("off", node(&then.split(' ').collect::<Vec<_>>()));
        world.settle();
        assert_eq!(world.pods().join(" "), "b c");
        let now = world.now;
        world.change_pod("b", |pod| pod.metadata.deletion_timestamp = Some(Time(now)));
        world.settle();
        assert_eq!(world.pods().join(" "), "c");
    }
}

/// Each pod that ends wakes one decision, which takes out one; a start with far too many comes down in steps.
#[test]
fn so_many_ended_pods_are_kept() {
    let mut world = World::new();
    for number in 0..ENDED_KEPT + 700 {
        let made = (20_000 - number).to_string();
        let phase = if number < ENDED_KEPT + 699 { "Succeeded" } else { "Running" };
        let pod = pod(&world, &[&format!("p{number}"), "n1", phase, "made", &made]);
        world.store(Kind::Pod, pod);
    }
    world.wake_all();
    assert_eq!(world.settle(), 699);
    assert_eq!(world.snapshot.ended_pods(), ENDED_KEPT);
    world.change_pod(&format!("p{}", ENDED_KEPT + 699), |pod| {
        pod.status.get_or_insert_default().phase = Some("Failed".into());
    });
    assert_eq!(world.settle(), 1);
    let there = |number: usize| world.snapshot.at(&Key::new(Kind::Pod, "default", format!("p{number}"))).is_some();
    assert_eq!([698, 699, 700].map(there), [false, false, true]);
}
