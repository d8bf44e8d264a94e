use expect_test::expect;
use serde_json::{Value, json};

use api::{Kind, Pod, Propagation, Refusal, Snapshot, Write};
use k8s_openapi::api::apps::v1::{ControllerRevision, DaemonSet};
use k8s_openapi::api::core::v1::{Node, PodSpec};

use super::nodes::{Fit, Wants, target};
use crate::history::REVISION_LABEL;
use crate::testing::{World, masked, show};
use crate::{Controller, pods};

fn node(name: &str, more: Value) -> Value {
    let mut node = json!({
        "apiVersion": "v1", "kind": "Node", "metadata": { "name": name, "uid": format!("uid-{name}"), "labels": { "name": name } },
        "status": { "conditions": [{ "type": "Ready", "status": "True" }] },
    });
    merge(&mut node, more);
    node
}

fn merge(value: &mut Value, more: Value) {
    match (value, more) {
        (Value::Object(value), Value::Object(more)) => {
            more.into_iter().for_each(|(key, more)| merge(value.entry(key).or_insert(Value::Null), more));
        }
        (value, more) => *value = more,
    }
}

fn set(image: &str, strategy: Value) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": { "name": "agent", "namespace": "default" },
        "spec": {
            "selector": { "matchLabels": { "app": "agent" } }, "updateStrategy": strategy, "revisionHistoryLimit": 3,
            "template": { "metadata": { "labels": { "app": "agent" } }, "spec": { "containers": [{ "name": "c", "image": image }] } },
        },
    })
}

fn rolling(unavailable: Value) -> Value {
    json!({ "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": unavailable, "maxSurge": 0 } })
}

fn surging(surge: Value) -> Value {
    json!({ "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": 0, "maxSurge": surge } })
}

/// A cluster with so many nodes that work, and the set as it stands.
fn world(nodes: usize, strategy: Value) -> World {
    let mut world = World::new();
    for number in 1..=nodes {
        world.store(Kind::Node, node(&format!("n{number}"), json!({})));
    }
    world.user_creates(Kind::DaemonSet, set("v1", strategy));
    world.settle();
    world
}

fn set_image(world: &mut World, image: &str) {
    world.user_edits::<DaemonSet>("agent", |set| {
        set.spec.as_mut().unwrap().template.spec.as_mut().unwrap().containers[0].image = Some(image.into());
    });
}

fn image(pod: &Pod) -> &str {
    pod.spec.as_deref().unwrap().containers[0].image.as_deref().unwrap()
}

/// What is on each node, a line each: `n1: v1 ready`.
fn on_nodes(world: &World) -> String {
    let mut lines: Vec<String> = Vec::new();
    for pod in world.snapshot.list::<Pod>(None) {
        let state = match () {
            () if pods::is_deleted(pod) => " ending",
            () if pods::has_ended(pod) => " ended",
            () if pods::is_ready(pod) => " ready",
            () => "",
        };
        lines.push(format!("{}: {}{state}", target(pod).unwrap_or("?"), image(pod)));
    }
    lines.sort();
    lines.join("\n") + "\n"
}

fn status(world: &World) -> String {
    let set = world.snapshot.get::<DaemonSet>("default", "agent").unwrap();
    let status = set.status.clone().unwrap_or_default();
    format!(
        "desired {} current {} ready {} updated {} available {} misscheduled {}\n",
        status.desired_number_scheduled,
        status.current_number_scheduled,
        status.number_ready,
        status.updated_number_scheduled.unwrap_or(0),
        status.number_available.unwrap_or(0),
        status.number_misscheduled
    )
}

/// Nodes run for a while: pods with the image `bad` never get ready.
fn run(world: &mut World, rounds: usize) {
    for _ in 0..rounds {
        for name in world.pods() {
            let pod = world.snapshot.get::<Pod>("default", &name).unwrap();
            let bad = image(pod).starts_with("bad");
            let (bound, deleted, ready) = (!pods::node(pod).is_empty(), pods::is_deleted(pod), pods::is_ready(pod));
            match () {
                () if deleted => world.pod_gone(&name),
                () if pods::has_ended(pod) => {}
                () if !bound => {
                    let node = target(pod).unwrap().to_owned();
                    world.change_pod(&name, |pod| pod.spec.as_mut().unwrap().node_name = Some(node));
                }
                () if !ready && !bad => world.set_ready(&name, true),
                () => {}
            }
        }
        world.settle();
    }
}

/// Upstream: TestNodeShouldRunDaemonPod, and the tolerations that every daemon pod gets.
#[test]
fn nodes_that_fit() {
    let taint = |key: &str, effect: &str| json!({ "spec": { "taints": [{ "key": key, "effect": effect }] } });
    let nodes = [
        ("plain", json!({})),
        (
            "cordoned",
            json!({ "spec": { "unschedulable": true, "taints": [{ "key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule" }] } }),
        ),
        ("not ready", json!({ "status": { "conditions": [{ "type": "Ready", "status": "False" }] } })),
        ("not ready, evicting", taint("node.kubernetes.io/not-ready", "NoExecute")),
        ("unreachable", taint("node.kubernetes.io/unreachable", "NoExecute")),
        ("disk pressure", taint("node.kubernetes.io/disk-pressure", "NoSchedule")),
        ("no network", taint("node.kubernetes.io/network-unavailable", "NoSchedule")),
        ("dedicated", taint("dedicated", "NoSchedule")),
        ("dedicated, evicting", taint("dedicated", "NoExecute")),
        ("dedicated, preferably", taint("dedicated", "PreferNoSchedule")),
        ("labelled", json!({ "metadata": { "labels": { "disk": "ssd" } } })),
    ];
    let in_ssd = json!([{ "matchExpressions": [{ "key": "disk", "operator": "In", "values": ["ssd"] }] }]);
    let specs = [
        ("anything", json!({})),
        ("host network", json!({ "hostNetwork": true })),
        ("tolerates all", json!({ "tolerations": [{ "operator": "Exists" }] })),
        ("by label", json!({ "nodeSelector": { "disk": "ssd" } })),
        (
            "by affinity",
            json!({ "affinity": { "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": in_ssd } } } }),
        ),
        ("by name", json!({ "nodeName": "n" })),
        ("by another name", json!({ "nodeName": "other" })),
    ];
    let mut text = String::new();
    for (what, spec) in specs {
        let mut value = json!({ "containers": [] });
        merge(&mut value, spec);
        let spec: PodSpec = serde_json::from_value(value).unwrap();
        let wants = Wants::of(&spec);
        let names = |fit: Fit| {
            let fitting = nodes.iter().filter(|(_, more)| {
                let node: Node = serde_json::from_value(node("n", more.clone())).unwrap();
                wants.judge(&node) == fit
            });
            fitting.map(|(name, _)| *name).collect::<Vec<_>>().join("; ")
        };
        let [run, run_out, stay] = [Fit::Run, Fit::RunOut, Fit::Stay].map(names);
        text += &format!("{what}\n  run: {run}\n  run out: {run_out}\n  stay: {stay}\n");
    }
    expect![[r#"
        anything
          run: plain; cordoned; not ready, evicting; unreachable; disk pressure; dedicated, preferably; labelled
          run out: no network; dedicated
          stay: not ready
        host network
          run: plain; cordoned; not ready, evicting; unreachable; disk pressure; no network; dedicated, preferably; labelled
          run out: dedicated
          stay: not ready
        tolerates all
          run: plain; cordoned; not ready; not ready, evicting; unreachable; disk pressure; no network; dedicated; dedicated, evicting; dedicated, preferably; labelled
          run out: 
          stay: 
        by label
          run: labelled
          run out: 
          stay: 
        by affinity
          run: labelled
          run out: 
          stay: 
        by name
          run: plain; cordoned; not ready, evicting; unreachable; disk pressure; dedicated, preferably; labelled
          run out: no network; dedicated
          stay: not ready
        by another name
          run: 
          run out: 
          stay: 
    "#]].assert_eq(&text);
}

#[test]
fn a_pod_for_every_node_at_once_and_gone_when_it_leaves() {
    let mut world = world(2, rolling(json!(1)));
    let mut text = status(&world);
    run(&mut world, 3);
    text += &on_nodes(&world);
    text += &status(&world);
    world.user_creates(Kind::Node, node("n3", json!({})));
    world.settle();
    text += &format!("n3 joins\n{}{}", on_nodes(&world), status(&world));
    run(&mut world, 3);
    world.user_deletes(Kind::Node, "n1", Propagation::Background);
    world.settle();
    text += &format!("n1 leaves\n{}{}", on_nodes(&world), status(&world));
    expect![[r#"
        desired 2 current 2 ready 0 updated 2 available 0 misscheduled 0
        n1: v1 ready
        n2: v1 ready
        desired 2 current 2 ready 2 updated 2 available 2 misscheduled 0
        n3 joins
        n1: v1 ready
        n2: v1 ready
        n3: v1
        desired 3 current 3 ready 2 updated 3 available 2 misscheduled 0
        n1 leaves
        n1: v1 ready
        n2: v1 ready
        n3: v1 ready
        desired 2 current 2 ready 2 updated 2 available 2 misscheduled 0
    "#]]
    .assert_eq(&text);
    world.wake_all();
    assert_eq!(world.settle(), 0);
}

#[test]
fn a_pod_says_where_it_belongs() {
    let world = world(1, rolling(json!(1)));
    let name = &world.pods()[0];
    let pod = world.snapshot.get::<Pod>("default", name).unwrap();
    let labels: Vec<String> =
        pod.metadata.labels.iter().flatten().map(|(key, value)| format!("{key}={}", masked(value))).collect();
    let spec = pod.spec.as_deref().unwrap();
    let tolerations: Vec<String> = spec
        .tolerations
        .iter()
        .flatten()
        .map(|it| format!("{}:{}", it.key.as_deref().unwrap(), it.effect.as_deref().unwrap()))
        .collect();
    let affinity = serde_json::to_string(&spec.affinity).unwrap();
    expect![[r#"
        app=agent controller-revision-hash=<hash>
        {"nodeAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":{"nodeSelectorTerms":[{"matchFields":[{"key":"metadata.name","operator":"In","values":["n1"]}]}]}}}
        node.kubernetes.io/not-ready:NoExecute
        node.kubernetes.io/unreachable:NoExecute
        node.kubernetes.io/disk-pressure:NoSchedule
        node.kubernetes.io/memory-pressure:NoSchedule
        node.kubernetes.io/pid-pressure:NoSchedule
        node.kubernetes.io/unschedulable:NoSchedule
    "#]].assert_eq(&format!("{}\n{affinity}\n{}\n", labels.join(" "), tolerations.join("\n")));
}

#[test]
fn an_update_goes_node_by_node() {
    let mut world = world(3, rolling(json!(1)));
    run(&mut world, 3);
    world.check = bounds;
    set_image(&mut world, "v2");
    world.settle();
    let mut text = String::new();
    for _ in 0..10 {
        text += &format!("{}{}\n", on_nodes(&world), status(&world));
        run(&mut world, 1);
    }
    expect![[r#"
        n1: v1 ending
        n2: v1 ready
        n3: v1 ready
        desired 3 current 3 ready 2 updated 0 available 2 misscheduled 0

        n1: v2
        n2: v1 ready
        n3: v1 ready
        desired 3 current 3 ready 2 updated 1 available 2 misscheduled 0

        n1: v2
        n2: v1 ready
        n3: v1 ready
        desired 3 current 3 ready 2 updated 1 available 2 misscheduled 0

        n1: v2 ready
        n2: v1 ending
        n3: v1 ready
        desired 3 current 3 ready 2 updated 1 available 2 misscheduled 0

        n1: v2 ready
        n2: v2
        n3: v1 ready
        desired 3 current 3 ready 2 updated 2 available 2 misscheduled 0

        n1: v2 ready
        n2: v2
        n3: v1 ready
        desired 3 current 3 ready 2 updated 2 available 2 misscheduled 0

        n1: v2 ready
        n2: v2 ready
        n3: v1 ending
        desired 3 current 3 ready 2 updated 2 available 2 misscheduled 0

        n1: v2 ready
        n2: v2 ready
        n3: v2
        desired 3 current 3 ready 2 updated 3 available 2 misscheduled 0

        n1: v2 ready
        n2: v2 ready
        n3: v2
        desired 3 current 3 ready 2 updated 3 available 2 misscheduled 0

        n1: v2 ready
        n2: v2 ready
        n3: v2 ready
        desired 3 current 3 ready 3 updated 3 available 3 misscheduled 0

    "#]]
    .assert_eq(&text);
}

#[test]
fn surging_starts_before_it_ends() {
    let mut world = world(2, surging(json!("50%")));
    run(&mut world, 3);
    world.check = bounds;
    set_image(&mut world, "v2");
    world.settle();
    let mut text = String::new();
    for _ in 0..7 {
        text += &format!("{}{}\n", on_nodes(&world), status(&world));
        run(&mut world, 1);
    }
    expect![[r#"
        n1: v1 ready
        n1: v2
        n2: v1 ready
        desired 2 current 2 ready 2 updated 0 available 2 misscheduled 0

        n1: v1 ready
        n1: v2
        n2: v1 ready
        desired 2 current 2 ready 2 updated 0 available 2 misscheduled 0

        n1: v1 ending
        n1: v2 ready
        n2: v1 ready
        n2: v2
        desired 2 current 2 ready 2 updated 1 available 2 misscheduled 0

        n1: v2 ready
        n2: v1 ready
        n2: v2
        desired 2 current 2 ready 2 updated 1 available 2 misscheduled 0

        n1: v2 ready
        n2: v1 ending
        n2: v2 ready
        desired 2 current 2 ready 2 updated 2 available 2 misscheduled 0

        n1: v2 ready
        n2: v2 ready
        desired 2 current 2 ready 2 updated 2 available 2 misscheduled 0

        n1: v2 ready
        n2: v2 ready
        desired 2 current 2 ready 2 updated 2 available 2 misscheduled 0

    "#]]
    .assert_eq(&text);
}

/// k/k#123232: in upstream each bad update takes one more healthy pod.
#[test]
fn bad_updates_in_a_row_take_one_pod_in_all() {
    for strategy in [rolling(json!(1)), surging(json!(1))] {
        let mut world = world(3, strategy);
        run(&mut world, 3);
        world.check = bounds;
        for image in ["bad1", "bad2", "bad3"] {
            set_image(&mut world, image);
            world.settle();
            run(&mut world, 6);
        }
        let healthy = on_nodes(&world).matches("v1 ready").count();
        assert!(healthy >= 2, "{}", on_nodes(&world));
        set_image(&mut world, "v4");
        world.settle();
        run(&mut world, 12);
        assert_eq!(on_nodes(&world), "n1: v4 ready\nn2: v4 ready\nn3: v4 ready\n");
    }
}

#[test]
fn on_delete_waits_for_somebody_to_delete() {
    let mut world = world(2, json!({ "type": "OnDelete" }));
    run(&mut world, 3);
    set_image(&mut world, "v2");
    world.settle();
    run(&mut world, 3);
    let mut text = on_nodes(&world);
    let name = world.pods()[0].clone();
    world.user_deletes(Kind::Pod, &name, Propagation::Background);
    world.settle();
    run(&mut world, 4);
    text += &format!("one was deleted\n{}{}", on_nodes(&world), status(&world));
    expect![[r#"
        n1: v1 ready
        n2: v1 ready
        one was deleted
        n1: v2 ready
        n2: v1 ready
        desired 2 current 2 ready 2 updated 1 available 2 misscheduled 0
    "#]]
    .assert_eq(&text);
}

/// A dead node neither holds an update up nor lends its share to it.
#[test]
fn a_dead_node_does_not_count() {
    let mut world = world(3, rolling(json!(1)));
    run(&mut world, 3);
    let dead = world
        .pods()
        .into_iter()
        .find(|name| target(world.snapshot.get("default", name).unwrap()) == Some("n2"))
        .unwrap();
    world.set_ready(&dead, false);
    world.change_node("n2", json!({ "status": { "conditions": [{ "type": "Ready", "status": "Unknown" }] } }));
    world.settle();
    world.check = bounds;
    set_image(&mut world, "v2");
    world.settle();
    let mut text = format!("{}{}", on_nodes(&world), status(&world));
    for _ in 0..6 {
        for name in world.pods().into_iter().filter(|name| *name != dead) {
            let pod = world.snapshot.get::<Pod>("default", &name).unwrap();
            let node = target(pod).unwrap().to_owned();
            match () {
                () if pods::is_deleted(pod) => world.pod_gone(&name),
                () if pods::node(pod).is_empty() => {
                    world.change_pod(&name, |pod| pod.spec.as_mut().unwrap().node_name = Some(node))
                }
                () => world.set_ready(&name, true),
            }
        }
        world.settle();
    }
    text += &format!("after a while\n{}{}", on_nodes(&world), status(&world));
    expect![[r#"
        n1: v1 ending
        n2: v1
        n3: v1 ready
        desired 2 current 2 ready 1 updated 0 available 1 misscheduled 1
        after a while
        n1: v2 ready
        n2: v1
        n3: v2 ready
        desired 2 current 2 ready 2 updated 2 available 2 misscheduled 1
    "#]]
    .assert_eq(&text);
}

/// Upstream: TestDaemonSetUpdatesPodsNotMatchTainstWithMaxSurge, and the same without surge.
#[test]
fn an_update_takes_pods_off_nodes_that_are_tainted_for_it() {
    let mut text = String::new();
    for strategy in [surging(json!(1)), rolling(json!(1)), json!({ "type": "OnDelete" })] {
        let mut world = World::new();
        world.store(Kind::Node, node("n1", json!({ "spec": { "taints": [{ "key": "k", "effect": "NoSchedule" }] } })));
        (2..=4).for_each(|number| world.store(Kind::Node, node(&format!("n{number}"), json!({}))));
        let mut set = set("v1", strategy);
        set["spec"]["template"]["spec"]["tolerations"] = json!([{ "key": "k", "operator": "Exists" }]);
        world.user_creates(Kind::DaemonSet, set);
        world.settle();
        run(&mut world, 3);
        world.check = bounds;
        world.user_edits::<DaemonSet>("agent", |set| {
            let template = set.spec.as_mut().unwrap().template.spec.as_mut().unwrap();
            template.tolerations = None;
            template.containers[0].image = Some("v2".into());
        });
        world.settle();
        text += &format!("at once\n{}{}", on_nodes(&world), status(&world));
        run(&mut world, 15);
        text += &format!("after a while\n{}{}", on_nodes(&world), status(&world));
    }
    expect![[r#"
        at once
        n1: v1 ending
        n2: v1 ready
        n2: v2
        n3: v1 ready
        n4: v1 ready
        desired 3 current 3 ready 3 updated 0 available 3 misscheduled 1
        after a while
        n2: v2 ready
        n3: v2 ready
        n4: v2 ready
        desired 3 current 3 ready 3 updated 3 available 3 misscheduled 0
        at once
        n1: v1 ending
        n2: v1 ready
        n3: v1 ready
        n4: v1 ready
        desired 3 current 3 ready 3 updated 0 available 3 misscheduled 1
        after a while
        n2: v2 ready
        n3: v2 ready
        n4: v2 ready
        desired 3 current 3 ready 3 updated 3 available 3 misscheduled 0
        at once
        n1: v1 ready
        n2: v1 ready
        n3: v1 ready
        n4: v1 ready
        desired 3 current 3 ready 3 updated 0 available 3 misscheduled 1
        after a while
        n1: v1 ready
        n2: v1 ready
        n3: v1 ready
        n4: v1 ready
        desired 3 current 3 ready 3 updated 0 available 3 misscheduled 1
    "#]]
    .assert_eq(&text);
}

#[test]
fn failed_pods_are_made_again_with_growing_pauses() {
    let mut world = world(1, rolling(json!(1)));
    let mut waits = Vec::new();
    for _ in 0..13 {
        let name = world.pods()[0].clone();
        let now = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(world.now);
        world.change_pod(&name, |pod| {
            pod.spec.as_mut().unwrap().node_name = Some("n1".into());
            let status = pod.status.as_mut().unwrap();
            status.phase = Some("Failed".into());
            status.conditions =
                serde_json::from_value(json!([{ "type": "Ready", "status": "False", "lastTransitionTime": now }]))
                    .unwrap();
        });
        world.settle();
        let mut waited = 0;
        while world.pods() == [name.clone()] {
            world.advance(1);
            world.settle();
            waited += 1;
        }
        assert_eq!(world.pods().len(), 1);
        waits.push(waited.to_string());
    }
    expect!["0 1 2 4 8 16 32 64 128 256 512 900 900"].assert_eq(&waits.join(" "));
    expect![[r#"
        FailedDaemonPod Found failed daemon pod default/agent-00003 on node n1, will try to kill it
        SuccessfulDelete Deleted pod: agent-00003
        SuccessfulCreate Created pod: agent-00004"#]]
    .assert_eq(&format!("{}\n{}\n{}", masked(&world.events[1]), masked(&world.events[2]), masked(&world.events[3])));
}

#[test]
fn history_is_kept_and_undone() {
    let mut world = world(1, rolling(json!(1)));
    let history = |world: &World| {
        let mut list: Vec<(i64, String)> = world
            .snapshot
            .list::<ControllerRevision>(None)
            .map(|it| {
                (
                    it.revision,
                    it.data
                        .as_ref()
                        .unwrap()
                        .0
                        .pointer("/spec/template/spec/containers/0/image")
                        .unwrap()
                        .as_str()
                        .unwrap()
                        .to_owned(),
                )
            })
            .collect();
        list.sort();
        format!("{list:?}\n")
    };
    let mut text = history(&world);
    for image in ["v2", "v3"] {
        set_image(&mut world, image);
        world.settle();
        run(&mut world, 5);
        text += &history(&world);
    }
    let hash =
        |world: &World| pods::labels(world.snapshot.list::<Pod>(None).next().unwrap()).unwrap()[REVISION_LABEL].clone();
    let third = hash(&world);
    set_image(&mut world, "v1");
    world.settle();
    run(&mut world, 5);
    text += &format!("undo\n{}", history(&world));
    for image in ["v4", "v5", "v3"] {
        set_image(&mut world, image);
        world.settle();
        run(&mut world, 5);
        text += &history(&world);
    }
    assert_eq!(hash(&world), third, "equal templates share a revision");
    expect![[r#"
        [(1, "v1")]
        [(1, "v1"), (2, "v2")]
        [(1, "v1"), (2, "v2"), (3, "v3")]
        undo
        [(2, "v2"), (3, "v3"), (4, "v1")]
        [(2, "v2"), (3, "v3"), (4, "v1"), (5, "v4")]
        [(3, "v3"), (4, "v1"), (5, "v4"), (6, "v5")]
        [(4, "v1"), (5, "v4"), (6, "v5"), (7, "v3")]
    "#]]
    .assert_eq(&text);
}

#[test]
fn orphans_are_adopted_with_their_history() {
    let mut world = world(2, rolling(json!(1)));
    run(&mut world, 3);
    let before = (world.pods(), world.snapshot.count(Kind::ControllerRevision));
    world.user_deletes(Kind::DaemonSet, "agent", Propagation::Orphan);
    world.settle();
    assert!(world.snapshot.get::<DaemonSet>("default", "agent").is_none());
    let orphan = |world: &World| world.snapshot.list::<Pod>(None).all(|pod| pod.metadata.owner_references.is_none());
    assert!(orphan(&world));
    world.user_creates(Kind::DaemonSet, set("v1", rolling(json!(1))));
    world.settle();
    run(&mut world, 3);
    assert_eq!((world.pods(), world.snapshot.count(Kind::ControllerRevision)), before);
    assert!(!orphan(&world));
    assert_eq!(status(&world), "desired 2 current 2 ready 2 updated 2 available 2 misscheduled 0\n");
}

#[test]
fn a_revision_that_somebody_gave_away_is_no_reason_to_roll() {
    let mut world = world(2, rolling(json!(1)));
    run(&mut world, 3);
    let before = (world.pods(), status(&world));
    let name = world.snapshot.list::<ControllerRevision>(None).next().unwrap().metadata.name.clone().unwrap();
    world.user_edits::<ControllerRevision>(&name, |revision| {
        revision.metadata.owner_references.as_mut().unwrap()[0].uid = "another".into();
    });
    world.settle();
    run(&mut world, 3);
    assert_eq!((world.pods(), status(&world)), before);
    let revisions: Vec<&ControllerRevision> = world.snapshot.list(None).collect();
    assert_eq!(revisions.iter().map(|it| it.metadata.name.clone().unwrap()).collect::<Vec<_>>(), [name]);
    assert_ne!(revisions[0].metadata.owner_references.as_ref().unwrap()[0].uid, "another");
}

#[test]
fn duplicates_go_and_the_available_one_stays() {
    let mut world = world(1, rolling(json!(1)));
    run(&mut world, 3);
    let first = world.pods()[0].clone();
    let mut double = serde_json::to_value(world.snapshot.get::<Pod>("default", &first).unwrap()).unwrap();
    double["metadata"]["name"] = "another".into();
    double["metadata"]["uid"] = "uid-another".into();
    double["status"] = json!({ "phase": "Pending" });
    double["metadata"]["creationTimestamp"] = "2020-01-01T00:00:00Z".into();
    world.store(Kind::Pod, double);
    expect![[r#"
        delete Pod another
        event SuccessfulDelete Deleted pod: another
    "#]]
    .assert_eq(&show(&world.plan(Controller::DaemonSet, Kind::DaemonSet, "agent")));
}

#[test]
fn a_refusal_is_told_and_holds_nothing_up() {
    let mut world = world(2, rolling(json!(1)));
    world.refuse(Controller::DaemonSet, Kind::DaemonSet, "agent", Refusal::forbidden(Kind::Pod, "", "exceeded quota"));
    for name in world.pods() {
        world.pod_gone(&name);
    }
    expect![[r#"
        status DaemonSet agent
        create Pod agent-? of agent
        event SuccessfulCreate Created pod: {created}
        create Pod agent-? of agent
        event SuccessfulCreate Created pod: {created}
        event FailedCreate Error creating: pods is forbidden: exceeded quota
        why creating pods of agent is refused: pods is forbidden: exceeded quota
    "#]]
    .assert_eq(&show(&world.plan(Controller::DaemonSet, Kind::DaemonSet, "agent")));
}

/// What no write of a decision may break: no second pod on a node but while surging, and never fewer available than
/// `desired - maxUnavailable` by an end of a pod.
fn bounds(before: &Snapshot, world: &Snapshot, write: &Write, now: jiff::Timestamp) {
    let Some(set) = world.get::<DaemonSet>("default", "agent") else { return };
    let spec = set.spec.as_ref().unwrap();
    let wait = spec.min_ready_seconds.unwrap_or(0);
    let is_tainted = |node: &Node| node.spec.as_ref().is_some_and(|spec| spec.taints.is_some());
    let serves = |node: &&Node| api::node_fit::is_ready(node) && !is_tainted(node);
    let nodes: Vec<&Node> = world.list::<Node>(None).filter(serves).collect();
    let alive = |world: &Snapshot, node: &str, available: bool| {
        let here = world.list::<Pod>(None).filter(|pod| target(pod) == Some(node) && pods::is_active(pod));
        here.filter(|pod| !available || pods::is_available(pod, wait, now)).count()
    };
    let name = |node: &Node| node.metadata.name.clone().unwrap();
    match (write, super::Pace::of(spec, nodes.len())) {
        (Write::Create(body), pace) if body.kind() == Kind::Pod => {
            for node in &nodes {
                let most = if pace.surges() { 2 } else { 1 };
                let (was, is) = (alive(before, &name(node), false), alive(world, &name(node), false));
                assert!(is <= most.max(was), "{is} pods on {}", name(node));
            }
        }
        (Write::Delete { key, .. }, super::Pace::Unavailable(most)) if key.kind == Kind::Pod => {
            let available = |world: &Snapshot| nodes.iter().filter(|node| alive(world, &name(node), true) > 0).count();
            let (was, is) = (available(before), available(world));
            assert!(is == was || is + most >= nodes.len(), "{is} of {} available after {}", nodes.len(), key.name);
        }
        (Write::Delete { key, .. }, super::Pace::Surge(_)) if key.kind == Kind::Pod => {
            let available = |world: &Snapshot| nodes.iter().filter(|node| alive(world, &name(node), true) > 0).count();
            assert_eq!(available(before), available(world), "after {}", key.name);
        }
        _ => {}
    }
}

/// A decision walks nodes and pods once: a thousand nodes are updated in a moment.
#[test]
fn many_nodes() {
    let mut world = world(1000, rolling(json!("10%")));
    run(&mut world, 3);
    set_image(&mut world, "v2");
    world.settle();
    run(&mut world, 45);
    let count = 1000;
    let told =
        format!("desired {count} current {count} ready {count} updated {count} available {count} misscheduled 0\n");
    assert_eq!(status(&world), told);
}

mod properties {
    use super::*;
    use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop, prop_assert_eq, prop_oneof, proptest};

    /// Something that happens to a DaemonSet.
    #[derive(Clone, Debug)]
    enum Act {
        Image(u8, bool),
        Pace(u8, bool),
        Ready(usize, bool),
        Fail(usize),
        DeletePod(usize),
        Join(u8),
        Leave(usize),
        NodeReady(usize, bool),
        Run,
        Pass(i64),
    }

    fn act() -> impl Strategy<Value = Act> {
        prop_oneof![
            3 => (1u8..5, any::<bool>()).prop_map(|(image, bad)| Act::Image(image, bad)),
            1 => (1u8..4, any::<bool>()).prop_map(|(most, surge)| Act::Pace(most, surge)),
            3 => (any::<usize>(), any::<bool>()).prop_map(|(pod, ready)| Act::Ready(pod, ready)),
            1 => any::<usize>().prop_map(Act::Fail),
            1 => any::<usize>().prop_map(Act::DeletePod),
            1 => (1u8..8).prop_map(Act::Join),
            1 => any::<usize>().prop_map(Act::Leave),
            1 => (any::<usize>(), any::<bool>()).prop_map(|(node, ready)| Act::NodeReady(node, ready)),
            5 => Just(Act::Run),
            2 => (1i64..30).prop_map(Act::Pass),
        ]
    }

    fn perform(world: &mut World, act: &Act) {
        let nodes: Vec<String> =
            world.snapshot.list::<Node>(None).map(|node| node.metadata.name.clone().unwrap()).collect();
        let running = |name: &String| !pods::has_ended(world.snapshot.get("default", name).unwrap());
        let names: Vec<String> = world.pods().into_iter().filter(running).collect();
        let pod = |index: usize| (!names.is_empty()).then(|| names[index % names.len()].clone());
        let bound = |pod: &mut Pod| {
            let node = target(pod).unwrap().to_owned();
            pod.spec.as_mut().unwrap().node_name = Some(node);
        };
        match *act {
            Act::Image(image, bad) => set_image(world, &format!("{}{image}", if bad { "bad" } else { "v" })),
            Act::Pace(most, surge) => world.user_edits::<DaemonSet>("agent", |set| {
                let strategy = if surge { surging(json!(most)) } else { rolling(json!(most)) };
                set.spec.as_mut().unwrap().update_strategy = serde_json::from_value(strategy).unwrap();
            }),
            Act::Ready(index, ready) => {
                if let Some(name) = pod(index) {
                    world.change_pod(&name, bound);
                    world.set_ready(&name, ready);
                }
            }
            Act::Fail(index) => {
                if let Some(name) = pod(index) {
                    world.set_ready(&name, false);
                    world.change_pod(&name, bound);
                    world.change_pod(&name, |pod| pod.status.as_mut().unwrap().phase = Some("Failed".into()));
                }
            }
            Act::DeletePod(index) => {
                if let Some(name) = pod(index) {
                    world.user_deletes(Kind::Pod, &name, Propagation::Background);
                }
            }
            Act::Join(number) if world.snapshot.object(Kind::Node, "", &format!("n{number}")).is_none() => {
                world.user_creates(Kind::Node, node(&format!("n{number}"), json!({})));
            }
            Act::Leave(index) if nodes.len() > 1 => {
                world.user_deletes(Kind::Node, &nodes[index % nodes.len()], Propagation::Background);
            }
            Act::NodeReady(index, ready) => {
                let state = if ready { "True" } else { "Unknown" };
                world.change_node(
                    &nodes[index % nodes.len()],
                    json!({ "status": { "conditions": [{ "type": "Ready", "status": state }] } }),
                );
            }
            Act::Run => run(world, 1),
            Act::Pass(seconds) => world.advance(seconds),
            _ => {}
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever happens: no bound is broken, the decisions come to rest, in the end every node has its pod and no
        /// other, and then nothing is written any more.
        #[test]
        fn bounds_hold_and_the_end_is_reached(
            acts in prop::collection::vec((act(), any::<bool>()), 1..25),
            min_ready in prop_oneof![Just(0), Just(5)],
        ) {
            let mut world = world(4, rolling(json!(1)));
            world.user_edits::<DaemonSet>("agent", |set| set.spec.as_mut().unwrap().min_ready_seconds = Some(min_ready));
            world.settle();
            world.check = bounds;
            for (act, settle) in &acts {
                perform(&mut world, act);
                if *settle {
                    world.settle();
                }
            }
            set_image(&mut world, "v9");
            let nodes: Vec<String> = world.snapshot.list::<Node>(None).map(|node| node.metadata.name.clone().unwrap()).collect();
            for name in &nodes {
                world.change_node(name, json!({ "status": { "conditions": [{ "type": "Ready", "status": "True" }] } }));
            }
            for _ in 0..60 {
                world.settle();
                run(&mut world, 1);
                world.advance(20);
            }
            world.settle();
            let wanted: String = nodes.iter().map(|name| format!("{name}: v9 ready\n")).collect();
            prop_assert_eq!(on_nodes(&world), wanted);
            let count = nodes.len();
            let told = format!("desired {count} current {count} ready {count} updated {count} available {count} misscheduled 0\n");
            prop_assert_eq!(status(&world), told);
            world.wake_all();
            prop_assert_eq!(world.settle(), 0, "something is written though all is as it should be");
        }
    }
}

/// How each rollout ended is noted on its revision, if it is known who asked for it.
#[test]
fn each_rollout_has_an_account() {
    let ask = |world: &mut World, image: &str| {
        let request = world.request();
        world.user_edits::<DaemonSet>("agent", |set| {
            set.metadata.annotations.get_or_insert_default().insert(api::account::REQUESTED.into(), request);
            set.spec.as_mut().unwrap().template.spec.as_mut().unwrap().containers[0].image = Some(image.into());
        });
        world.settle();
    };
    let mut world = world(3, rolling(json!(1)));
    run(&mut world, 4);
    let mut text = world.ends();
    world.advance(10);
    ask(&mut world, "v2");
    run(&mut world, 10);
    text += "-- v2 completes\n";
    text += &world.ends();
    world.advance(10);
    ask(&mut world, "bad");
    run(&mut world, 4);
    world.advance(599);
    world.settle();
    text += "-- bad makes no progress\n";
    text += &world.ends();
    world.advance(1);
    world.settle();
    text += "-- its time is over\n";
    text += &world.ends();
    ask(&mut world, "v2");
    run(&mut world, 10);
    text += "-- it is undone\n";
    text += &world.ends();
    world.wake_all();
    assert_eq!(world.settle(), 0, "something is written though all is as it should be");
    world.advance(10);
    ask(&mut world, "v4");
    world.advance(5);
    ask(&mut world, "v5");
    text += "-- v4 is superseded\n";
    text += &world.ends();
    expect![[r#"
        1 v1 -
        -- v2 completes
        1 v1 -
        2 v2 {"how":"completed","at":"2026-01-01T12:00:10Z"}
        -- bad makes no progress
        1 v1 -
        2 v2 {"how":"completed","at":"2026-01-01T12:00:10Z"}
        3 bad -
        -- its time is over
        1 v1 -
        2 v2 {"how":"completed","at":"2026-01-01T12:00:10Z"}
        3 bad {"how":"failed","at":"2026-01-01T12:10:20Z"}
        -- it is undone
        1 v1 -
        3 bad {"how":"failed","at":"2026-01-01T12:10:20Z","undone":true}
        4 v2 {"how":"completed","at":"2026-01-01T12:10:20Z"}
        -- v4 is superseded
        1 v1 -
        3 bad {"how":"failed","at":"2026-01-01T12:10:20Z","undone":true}
        4 v2 {"how":"completed","at":"2026-01-01T12:10:20Z"}
        5 v4 {"how":"superseded","at":"2026-01-01T12:10:35Z"}
        6 v5 -
    "#]]
    .assert_eq(&text);
}

/// Pods that wait for somebody to delete them have not failed.
#[test]
fn what_waits_for_somebody_does_not_fail() {
    let mut world = world(2, json!({ "type": "OnDelete" }));
    run(&mut world, 4);
    let request = world.request();
    world.user_edits::<DaemonSet>("agent", |set| {
        set.metadata.annotations.get_or_insert_default().insert(api::account::REQUESTED.into(), request);
    });
    set_image(&mut world, "v2");
    world.settle();
    world.advance(6000);
    world.settle();
    let mut text = world.ends();
    for name in world.pods() {
        world.user_deletes(Kind::Pod, &name, Propagation::Background);
    }
    run(&mut world, 6);
    text += "-- deleted\n";
    text += &world.ends();
    expect![[r#"
        1 v1 -
        2 v2 -
        -- deleted
        1 v1 -
        2 v2 {"how":"completed","at":"2026-01-01T13:40:00Z"}
    "#]]
    .assert_eq(&text);
}
