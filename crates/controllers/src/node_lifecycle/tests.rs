use api::{Context, Heard, Key, Kind, Pod, Usage};
use expect_test::{Expect, expect};
use jiff::SignedDuration;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use super::{reconcile, zones};
use crate::pods;
use crate::testing::World;

/// A cluster, a line each; numbers are seconds ago:
/// `node n1 True [since 100] [zone a] [taint not-ready:NoExecute 10] [pressure Memory] [cordoned]` and
/// `pod p n1 [ready 100] [came 100] [tolerates unreachable 300|forever]`.
fn world(text: &str) -> World {
    let mut world = World::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let ago = |seconds: i64| Time(world.now - SignedDuration::from_secs(seconds));
        let after = |name: &str, by: usize| words.get(words.iter().position(|word| *word == name)? + by).copied();
        let seconds = |name: &str, by: usize| after(name, by).and_then(|text| text.parse().ok()).unwrap_or(1_000);
        let (kind, body) = match words[0] {
            "node" => {
                let mut conditions = vec![];
                if words[2] != "-" {
                    conditions.push(
                        json!({ "type": "Ready", "status": words[2], "lastTransitionTime": ago(seconds("since", 1)) }),
                    );
                }
                if let Some(what) = after("pressure", 1) {
                    conditions.push(json!({ "type": format!("{what}Pressure"), "status": "True" }));
                }
                let taints = words.iter().enumerate().filter(|(_, word)| **word == "taint").map(|(at, _)| {
                    let (key, effect) = words[at + 1].split_once(':').unwrap();
                    let key = if key.contains('/') { key.to_owned() } else { format!("node.kubernetes.io/{key}") };
                    json!({ "key": key, "effect": effect, "timeAdded": ago(words[at + 2].parse().unwrap()) })
                });
                let taints: Vec<Value> = taints.collect();
                let labels = json!({ "topology.kubernetes.io/zone": after("zone", 1).unwrap_or("") });
                let node = json!({
                    "metadata": { "name": words[1], "uid": words[1], "labels": labels, "creationTimestamp": ago(5_000) },
                    "spec": { "taints": taints, "unschedulable": words.contains(&"cordoned") },
                    "status": { "conditions": conditions },
                });
                (Kind::Node, node)
            }
            _ => {
                let tolerations: Vec<Value> = words
                    .iter()
                    .enumerate()
                    .filter(|(_, word)| **word == "tolerates")
                    .map(|(at, _)| {
                        let seconds = words[at + 2].parse::<i64>().ok();
                        json!({ "key": format!("node.kubernetes.io/{}", words[at + 1]), "operator": "Exists", "effect": "NoExecute",
                            "tolerationSeconds": seconds })
                    })
                    .collect();
                let ready = if words.contains(&"ready") { "True" } else { "False" };
                let pod = json!({
                    "metadata": { "name": words[1], "namespace": "default", "uid": words[1], "creationTimestamp": ago(5_000) },
                    "spec": { "nodeName": words[2], "containers": [], "tolerations": tolerations },
                    "status": { "phase": "Running", "conditions": [
                        { "type": "PodScheduled", "status": "True", "lastTransitionTime": ago(seconds("came", 1)) },
                        { "type": "Ready", "status": ready, "lastTransitionTime": ago(seconds("ready", 1)) },
                    ] },
                });
                (Kind::Pod, pod)
            }
        };
        world.store(kind, body);
    }
    let n1 = world.snapshot.object(Kind::Node, "", "n1").unwrap();
    assert!(n1.uid() != "uid-n1", "n1 is always there and has to be told of");
    world
}

/// Nodes and pods, a line each.
fn show(world: &World) -> String {
    let mut text = String::new();
    for node in world.snapshot.list::<Node>(None) {
        text += &node.metadata.name.clone().unwrap();
        for condition in node.status.iter().flat_map(|status| status.conditions.iter().flatten()) {
            if condition.type_ == "Ready" || condition.status != "Unknown" {
                text += &format!(" {}={}", condition.type_, condition.status);
            }
        }
        for taint in node.spec.iter().flat_map(|spec| spec.taints.iter().flatten()) {
            let added = taint.time_added.as_ref().map(|time| world.now.duration_since(time.0).as_secs());
            let key = taint.key.trim_start_matches("node.kubernetes.io/");
            text += &format!(" {key}:{} {}", taint.effect, added.map_or("-".to_owned(), |seconds| seconds.to_string()));
        }
        text += "\n";
    }
    for pod in world.snapshot.list::<Pod>(None) {
        let state = match () {
            () if pods::is_deleted(pod) => "ending",
            () if pods::is_ready(pod) => "ready",
            () => "not ready",
        };
        let disrupted = pods::condition(pod, "DisruptionTarget").and_then(|condition| condition.reason.as_deref());
        text += &format!("{} {state} {}\n", pods::name(pod), disrupted.unwrap_or(""));
    }
    text.lines().map(|line| line.trim_end().to_owned() + "\n").collect()
}

fn check(text: &str, expected: Expect) {
    let mut world = world(text);
    world.wake_all();
    world.settle();
    expected.assert_eq(&show(&world));
}

#[test]
fn a_silent_node_is_lost_after_its_grace_and_its_pods_are_not_ready() {
    let mut world = world("node n1 True\nnode n2 True\npod a n1 ready 50 tolerates unreachable 300\npod b n2 ready 50");
    world.heard.tick(world.now);
    world.wake_all();
    assert_eq!(world.settle(), 0);
    world.advance(39);
    assert_eq!(world.settle(), 0);
    // n2 says that it lives.
    world.heard.tick(world.now);
    let lease = json!({ "metadata": { "name": "n2", "namespace": "kube-node-lease" }, "spec": { "renewTime": "2026-01-01T00:00:00.000000Z" } });
    world.user_creates(Kind::Lease, lease);
    assert_eq!(world.settle(), 0, "a Lease wakes nothing");
    world.advance(1);
    world.settle();
    expect![[r#"
        n1 Ready=Unknown unreachable:NoSchedule 0 unreachable:NoExecute 0
        n2 Ready=True
        a not ready
        b ready
    "#]]
    .assert_eq(&show(&world));
    expect![[r#"
        NodeNotReady Node n1 status is now: NodeNotReady
        NodeNotReady Node is not ready
    "#]]
    .assert_eq(&(world.events.join("\n") + "\n"));
    world.advance(60);
    world.settle();
    let lost = world.snapshot.get::<Node>("", "n2").unwrap().status.as_ref().unwrap().conditions.clone().unwrap();
    let lines = lost.iter().map(|it| {
        let (reason, message) = (it.reason.as_deref(), it.message.as_deref());
        format!("{}={} {} ({})\n", it.type_, it.status, reason.unwrap(), message.unwrap())
    });
    expect![[r#"
        Ready=Unknown NodeStatusUnknown (Kubelet stopped posting node status.)
        MemoryPressure=Unknown NodeStatusNeverUpdated (Kubelet never posted node status.)
        DiskPressure=Unknown NodeStatusNeverUpdated (Kubelet never posted node status.)
        PIDPressure=Unknown NodeStatusNeverUpdated (Kubelet never posted node status.)
    "#]]
    .assert_eq(&lines.collect::<String>());
    // Now all are lost: nobody is evicted.
    expect![[r#"
        n1 Ready=Unknown unreachable:NoSchedule 60
        n2 Ready=Unknown unreachable:NoSchedule 0
        a not ready
        b not ready
    "#]]
    .assert_eq(&show(&world));
}

#[test]
fn a_node_that_never_told_how_it_is_has_longer() {
    let mut world = world("node n1 -\nnode n2 True");
    let mut heard = Heard::default();
    heard.tick(world.now);
    let key = Key::new(Kind::Node, "", "n1");
    let plan = reconcile(
        &key,
        &world.snapshot,
        &Context { now: world.now, refused: None, usage: &Usage::default(), heard: &heard },
    );
    assert_eq!(plan.wake_at, Some(world.now + SignedDuration::from_secs(60)));
    world.heard = heard;
    world.wake_all();
    world.advance(60);
    world.settle();
    expect![[r#"
        n1 Ready=Unknown unreachable:NoSchedule 0
        n2 Ready=Unknown unreachable:NoSchedule 0
    "#]]
    .assert_eq(&show(&world));
}

#[test]
fn conditions_are_told_by_taints() {
    check(
        "node n1 True pressure Memory\n node n2 True cordoned taint mine/x:NoExecute 5\n node n3 False pressure Disk\n
         node n4 True taint not-ready:NoSchedule 9 taint unreachable:NoExecute 9 taint mine/x:NoSchedule 9",
        expect![[r#"
            n1 Ready=True MemoryPressure=True memory-pressure:NoSchedule 0
            n2 Ready=True mine/x:NoExecute 5 unschedulable:NoSchedule 0
            n3 Ready=False DiskPressure=True not-ready:NoSchedule 0 disk-pressure:NoSchedule 0 not-ready:NoExecute 0
            n4 Ready=True mine/x:NoSchedule 9
        "#]],
    );
}

#[test]
fn what_evicts_is_exchanged_at_once_and_its_clock_runs_on() {
    check(
        "node n1 Unknown taint not-ready:NoExecute 100 taint not-ready:NoSchedule 100\n
         node n2 False taint unreachable:NoExecute 100 taint unreachable:NoSchedule 100\n node n3 True",
        expect![[r#"
            n1 Ready=Unknown unreachable:NoExecute 100 unreachable:NoSchedule 0
            n2 Ready=False not-ready:NoExecute 100 not-ready:NoSchedule 0
            n3 Ready=True
        "#]],
    );
}

#[test]
fn pods_go_after_the_time_they_put_up_with() {
    let text = "node n1 False taint not-ready:NoSchedule 100 taint not-ready:NoExecute 100\n node n2 True\n
        pod none n1\n pod long n1 tolerates not-ready 300\n pod short n1 tolerates not-ready 60\n
        pod ever n1 tolerates not-ready forever\n pod late n1 came 10 tolerates not-ready 60\n
        pod zero n1 tolerates not-ready 0\n pod other n1 tolerates unreachable 300\n pod elsewhere n2";
    let mut world = world(text);
    world.wake_all();
    world.settle();
    expect![[r#"
        n1 Ready=False not-ready:NoSchedule 100 not-ready:NoExecute 100
        n2 Ready=True
        elsewhere not ready
        ever not ready
        late not ready
        long not ready
        none ending DeletionByTaintManager
        other ending DeletionByTaintManager
        short ending DeletionByTaintManager
        zero ending DeletionByTaintManager
    "#]]
    .assert_eq(&show(&world));
    let told: Vec<&str> = world.events.iter().map(String::as_str).filter(|event| event.starts_with("Taint")).collect();
    assert_eq!(told[0], "TaintManagerEviction Marking for deletion Pod default/none");
    world.advance(49);
    assert_eq!(world.settle(), 0);
    world.advance(1);
    world.settle();
    assert!(show(&world).contains("late ending DeletionByTaintManager"));
    world.advance(150);
    world.settle();
    assert!(show(&world).contains("long ending") && show(&world).contains("ever not ready"));
}

/// The state of zones as upstream's tests of ComputeZoneState have them, by who is evicted after a long time.
#[test]
fn zones_evict_one_node_after_the_other() {
    let evicted = |world: &World| {
        let nodes = world.snapshot.list::<Node>(None);
        let evicted = nodes.filter(|node| super::taints::evicting_since(node).is_some());
        evicted.filter_map(|node| node.metadata.name.clone()).collect::<Vec<_>>().join(" ")
    };
    let run = |text: &str, seconds: i64| {
        let mut world = world(text);
        world.wake_all();
        world.settle();
        let mut lines = vec![evicted(&world)];
        for _ in 0..seconds / 5 {
            world.advance(5);
            world.settle();
            if Some(&evicted(&world)) != lines.last() {
                lines.push(evicted(&world));
            }
        }
        lines.join(" | ")
    };
    let cases = [
        // Few are lost: each ten seconds one, the one first that is lost longest.
        ("node n1 False since 10\n node n2 Unknown since 20\n node n3 True\n node n4 True", 30),
        // Most of a small zone are lost: none.
        ("node n1 False\n node n2 False\n node n3 False\n node n4 True\n node n5 True", 300),
        // All of one zone are lost, but not of the other.
        ("node n1 False zone a\n node n2 False zone a\n node n3 True zone b", 30),
        // All are lost, and what was begun is taken back.
        ("node n1 False taint not-ready:NoExecute 9\n node n2 Unknown", 300),
        // All were lost, then one came back: the others have a grace to come back, too.
        ("node n1 True since 10\n node n2 False since 60\n node n3 True since 5", 60),
        // A node that says nothing about its zone.
        ("node n1 True", 10),
    ];
    let told: Vec<String> = cases.iter().map(|(text, seconds)| run(text, *seconds)).collect();
    expect![[r#"
        n2 | n1 n2

        n1 | n1 n2

         | n2
    "#]]
    .assert_eq(&told.join("\n"));
}

#[test]
fn most_of_a_large_zone_are_evicted_slowly() {
    let mut text = String::new();
    for number in 1..=60 {
        text += &format!("node n{number} {}\n", if number <= 40 { "False" } else { "True" });
    }
    let mut world = world(&text);
    world.wake_all();
    world.settle();
    let (usage, heard) = (Usage::default(), Heard::default());
    let context = Context { now: world.now, refused: None, usage: &usage, heard: &heard };
    let plan = zones::reconcile(&world.snapshot, &context);
    assert!(plan.writes.is_empty());
    assert_eq!(plan.wake_at, Some(world.now + SignedDuration::from_secs(100)));
}
