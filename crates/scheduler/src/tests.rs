use expect_test::expect;
use jiff::Timestamp;
use serde_json::{Value, json};

use api::{Context, Heard, Kind, Object, Snapshot, Write};

use super::*;

/// A world of nodes and pods, a line each:
/// `node n1 cpu 4 memory 8Gi pods 10 [zone a] [disk ssd] [cordoned] [not-ready] [taint k=v:NoSchedule]` and
/// `pod a [on n1] [cpu 500m] [memory 1Gi] [port 80] [of rs] [app x]`.
fn world(text: &str) -> Snapshot {
    let mut world = Snapshot::default();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let value = |name: &str| words.iter().position(|word| *word == name).map(|at| words[at + 1]);
        let body = if words[0] == "node" { node(words[1], &words, &value) } else { pod(words[1], &value) };
        put(&mut world, if words[0] == "node" { Kind::Node } else { Kind::Pod }, body);
    }
    world
}

fn put(world: &mut Snapshot, kind: Kind, body: Value) {
    world.put(Object::written(kind.decode(body).unwrap(), world.revision() + 1));
}

fn node<'a>(name: &str, words: &[&str], value: &dyn Fn(&str) -> Option<&'a str>) -> Value {
    let mut labels = json!({ "kubernetes.io/hostname": name });
    for label in ["zone", "disk", "rank"] {
        if let Some(text) = value(label) {
            labels[label] = json!(text);
        }
    }
    let taints: Vec<Value> = value("taint")
        .into_iter()
        .map(|taint| {
            let (pair, effect) = taint.split_once(':').unwrap();
            let (key, value) = pair.split_once('=').unwrap();
            json!({ "key": key, "value": value, "effect": effect })
        })
        .collect();
    let allocatable = json!({ "cpu": value("cpu").unwrap_or("4"), "memory": value("memory").unwrap_or("8Gi"),
        "pods": value("pods").unwrap_or("110"), "example.com/gpu": value("gpu").unwrap_or("0") });
    let ready = if words.contains(&"not-ready") { "False" } else { "True" };
    json!({ "metadata": { "name": name, "uid": name, "labels": labels },
        "spec": { "taints": taints, "unschedulable": words.contains(&"cordoned") },
        "status": { "allocatable": allocatable, "conditions": [{ "type": "Ready", "status": ready }] } })
}

fn pod<'a>(name: &str, value: &dyn Fn(&str) -> Option<&'a str>) -> Value {
    let mut requests = json!({});
    for (word, resource) in [("cpu", "cpu"), ("memory", "memory"), ("gpu", "example.com/gpu")] {
        if let Some(amount) = value(word) {
            requests[resource] = json!(amount);
        }
    }
    let ports: Vec<Value> = value("port")
        .map(|port| json!({ "containerPort": 1, "hostPort": port.parse::<i32>().unwrap() }))
        .into_iter()
        .collect();
    let owners: Vec<Value> = value("of")
        .map(|of| json!({ "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": of, "uid": of, "controller": true }))
        .into_iter()
        .collect();
    json!({ "metadata": { "name": name, "namespace": "default", "uid": name, "ownerReferences": owners,
            "labels": { "app": value("app").unwrap_or(name) } },
        "spec": { "nodeName": value("on"), "containers": [{ "name": "c", "resources": { "requests": requests }, "ports": ports }] } })
}

/// Where the pod `x` goes, with more in its spec.
fn place_with(text: &str, more: &Value) -> String {
    let mut world = world(text);
    let mut body = world.object(Kind::Pod, "default", "x").unwrap().body.to_value();
    for (key, value) in more.as_object().unwrap() {
        body["spec"][key] = value.clone();
    }
    put(&mut world, Kind::Pod, body);
    let pod = world.get::<Pod>("default", "x").unwrap().clone();
    match place(&pod, &world) {
        Placement::Node(node) => format!("to {node}"),
        Placement::Unschedulable { message } => message,
        Placement::NotMine => "not mine".into(),
    }
}

fn place_in(text: &str) -> String {
    place_with(text, &json!({}))
}

fn table(cases: &[&str]) -> String {
    cases.iter().map(|case| format!("{}\n", place_in(case))).collect()
}

#[test]
fn resources_ports_and_nodes_that_take_none() {
    let cases = [
        "pod x",
        "node n1\npod x",
        "node n1 cpu 1\npod a on n1 cpu 600m\npod x cpu 500m",
        "node n1 cpu 1\npod a on n1 cpu 500m\npod x cpu 500m",
        "node n1 cpu 1 memory 1Gi\nnode n2 cpu 1 memory 1Gi\npod a on n2 cpu 600m\npod x cpu 500m memory 2Gi",
        "node n1 pods 1\npod a on n1\npod x",
        "node n1 cordoned\nnode n2 not-ready\nnode n3 taint a=b:NoSchedule\nnode n4 taint a=b:NoExecute\npod x",
        "node n1 taint a=b:PreferNoSchedule\nnode n2 taint c=d:PreferNoSchedule\npod x",
        "node n1\npod a on n1 port 80\npod x port 80",
        "node n1\npod a on n1 port 81\npod x port 80",
        "node n1 gpu 2\npod a on n1 gpu 1\npod x gpu 2",
        "node n1 gpu 2\npod a on n1 gpu 1\npod x gpu 1",
        "node n1\npod x on n1",
    ];
    expect![[r#"
        no nodes available to schedule pods
        to n1
        0/1 nodes are available: 1 Insufficient cpu.
        to n1
        0/2 nodes are available: 1 Insufficient cpu, 2 Insufficient memory.
        0/1 nodes are available: 1 Too many pods.
        0/4 nodes are available: 1 node(s) were not ready, 1 node(s) were unschedulable, 2 node(s) had untolerated taint(s).
        to n1
        0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports.
        to n1
        0/1 nodes are available: 1 Insufficient example.com/gpu.
        to n1
        not mine
    "#]].assert_eq(&table(&cases));
}

#[test]
fn taints_and_tolerations() {
    let text = "node n1 taint a=b:NoSchedule\npod x";
    let cases = [
        json!([{ "key": "a", "operator": "Equal", "value": "b", "effect": "NoSchedule" }]),
        json!([{ "key": "a", "value": "c", "effect": "NoSchedule" }]),
        json!([{ "key": "a", "operator": "Exists" }]),
        json!([{ "operator": "Exists" }]),
        json!([{ "key": "a", "operator": "Exists", "effect": "NoExecute" }]),
    ];
    let outcome: String =
        cases.map(|tolerations| place_with(text, &json!({ "tolerations": tolerations })) + "\n").concat();
    expect![[r#"
        to n1
        0/1 nodes are available: 1 node(s) had untolerated taint(s).
        to n1
        to n1
        0/1 nodes are available: 1 node(s) had untolerated taint(s).
    "#]]
    .assert_eq(&outcome);
    let cordoned = json!({ "tolerations": [{ "key": "node.kubernetes.io/unschedulable", "operator": "Exists" }] });
    assert_eq!(place_with("node n1 cordoned\npod x", &cordoned), "to n1");
}

#[test]
fn affinity_to_nodes() {
    let text = "node n1 disk hdd rank 1\nnode n2 disk ssd rank 5\nnode n3\npod x";
    let required = |terms: Value| {
        json!({ "affinity": { "nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": terms } } } })
    };
    let expression =
        |key: &str, operator: &str, values: Value| json!({ "key": key, "operator": operator, "values": values });
    let cases = [
        json!({ "nodeSelector": { "disk": "ssd" } }),
        json!({ "nodeSelector": { "disk": "tape" } }),
        required(json!([{ "matchExpressions": [expression("disk", "In", json!(["ssd"]))] }])),
        required(json!([{ "matchExpressions": [expression("disk", "NotIn", json!(["ssd", "hdd"]))] }])),
        required(json!([{ "matchExpressions": [expression("disk", "DoesNotExist", json!(null))] }])),
        required(json!([{ "matchExpressions": [expression("rank", "Gt", json!(["1"]))] }])),
        required(json!([{ "matchExpressions": [expression("rank", "Lt", json!(["5"]))] }])),
        required(json!([{ "matchFields": [expression("metadata.name", "In", json!(["n3"]))] }])),
        required(json!([{ "matchExpressions": [] }])),
        required(json!([{ "matchExpressions": [expression("a", "Exists", json!(null))] },
                        { "matchExpressions": [expression("disk", "In", json!(["hdd"]))] }])),
        json!({ "affinity": { "nodeAffinity": { "preferredDuringSchedulingIgnoredDuringExecution": [
            { "weight": 10, "preference": { "matchExpressions": [expression("disk", "In", json!(["ssd"]))] } }] } } }),
    ];
    let outcome: String = cases.iter().map(|case| place_with(text, case) + "\n").collect();
    expect![[r#"
        to n2
        0/3 nodes are available: 3 node(s) didn't match Pod's node affinity/selector.
        to n2
        to n3
        to n3
        to n2
        to n1
        to n3
        0/3 nodes are available: 3 node(s) didn't match Pod's node affinity/selector.
        to n1
        to n2
    "#]]
    .assert_eq(&outcome);
}

#[test]
fn affinity_to_pods() {
    let text = "node n1 zone a\nnode n2 zone a\nnode n3 zone b\npod a on n1 app db\npod b on n3 app web\npod x app web";
    let term =
        |app: &str, key: &str| json!([{ "labelSelector": { "matchLabels": { "app": app } }, "topologyKey": key }]);
    let rule = |kind: &str, terms: Value| json!({ "affinity": { kind: { "requiredDuringSchedulingIgnoredDuringExecution": terms } } });
    let host = "kubernetes.io/hostname";
    let cases = [
        rule("podAffinity", term("db", host)),
        rule("podAffinity", term("nobody", host)),
        rule("podAntiAffinity", term("db", "zone")),
        rule("podAntiAffinity", json!([term("db", "zone")[0], term("web", host)[0]])),
        json!({ "affinity": { "podAffinity": { "preferredDuringSchedulingIgnoredDuringExecution": [
            { "weight": 100, "podAffinityTerm": term("db", host)[0] }] } } }),
        json!({ "affinity": { "podAntiAffinity": { "preferredDuringSchedulingIgnoredDuringExecution": [
            { "weight": 100, "podAffinityTerm": term("db", "zone")[0] }] } } }),
    ];
    let outcome: String = cases.iter().map(|case| place_with(text, case) + "\n").collect();
    expect![[r#"
        to n1
        0/3 nodes are available: 3 node(s) didn't match pod affinity rules.
        to n3
        0/3 nodes are available: 3 node(s) didn't match pod anti-affinity rules.
        to n1
        to n3
    "#]]
    .assert_eq(&outcome);
    // The first of a group that wants to be together may go anywhere.
    let first = rule("podAffinity", term("web", host));
    assert_eq!(place_with("node n1\npod x app web", &first), "to n1");
}

#[test]
fn pods_that_are_there_keep_others_away() {
    let mut world = world("node n1 zone a\nnode n2 zone a\npod guard on n1 app guard\npod x app web");
    let mut guard = world.object(Kind::Pod, "default", "guard").unwrap().body.to_value();
    guard["spec"]["affinity"] = json!({ "podAntiAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": [
        { "labelSelector": { "matchLabels": { "app": "web" } }, "topologyKey": "zone" }] } });
    put(&mut world, Kind::Pod, guard);
    let pod = world.get::<Pod>("default", "x").unwrap();
    expect![[r#"Unschedulable { message: "0/2 nodes are available: 2 node(s) didn't satisfy existing pods anti-affinity rules." }"#]].assert_eq(&format!("{:?}", place(pod, &world)));
}

#[test]
fn even_spreading() {
    let constraint = |skew: i32, when: &str| {
        json!({ "topologySpreadConstraints": [{ "maxSkew": skew, "topologyKey": "zone",
        "whenUnsatisfiable": when, "labelSelector": { "matchLabels": { "app": "web" } } }] })
    };
    let text = "node n1 zone a\nnode n2 zone b\nnode n3\npod a on n1 app web\npod b on n1 app web\npod x app web";
    let full =
        "node n1 zone a\nnode n2 zone b pods 0\nnode n3\npod a on n1 app web\npod b on n1 app web\npod x app web";
    let outcome = [
        place_with(text, &constraint(1, "DoNotSchedule")),
        place_with(full, &constraint(1, "DoNotSchedule")),
        place_with(full, &constraint(1, "ScheduleAnyway")),
    ];
    expect![[r#"
        to n2
        0/3 nodes are available: 1 Too many pods, 1 node(s) didn't match pod topology spread constraints, 1 node(s) didn't match pod topology spread constraints (missing required label).
        to n1"#]].assert_eq(&outcome.join("\n"));
}

#[test]
fn pods_of_one_set_are_spread() {
    let mut world = world("node n1\nnode n2\nnode n3\nnode n4");
    let mut counts = std::collections::BTreeMap::new();
    for index in 0..12 {
        let name = format!("p{index}");
        put(&mut world, Kind::Pod, pod(&name, &|word| (word == "of").then_some("rs")));
        let body = world.get::<Pod>("default", &name).unwrap().clone();
        let Placement::Node(node) = place(&body, &world) else { panic!("{name} fits nowhere") };
        *counts.entry(node.clone()).or_insert(0) += 1;
        let mut bound = world.object(Kind::Pod, "default", &name).unwrap().body.to_value();
        bound["spec"]["nodeName"] = json!(node);
        put(&mut world, Kind::Pod, bound);
    }
    expect![[r#"{"n1": 3, "n2": 3, "n3": 3, "n4": 3}"#]].assert_eq(&format!("{counts:?}"));
}

#[test]
fn whose_pods_are_placed() {
    let cases = [
        json!({ "schedulerName": "mine" }),
        json!({ "schedulerName": "default-scheduler" }),
        json!({ "schedulingGates": [{ "name": "wait" }] }),
        json!({ "schedulingGates": [] }),
    ];
    let outcome: Vec<String> = cases.iter().map(|case| place_with("node n1\npod x", case)).collect();
    assert_eq!(outcome, ["not mine", "to n1", "not mine", "to n1"]);
}

fn decide_at(world: &Snapshot, kind: Kind, name: &str) -> Plan {
    let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    let namespace = if kind == Kind::Node { "" } else { "default" };
    let (usage, heard) = (api::Usage::default(), Heard::default());
    let context = Context { now, refused: None, usage: &usage, heard: &heard };
    decide(&Key::new(kind, namespace, name), world, &context)
}

fn show(plan: &Plan) -> String {
    let line = |write: &Write| match write {
        Write::Bind { pod, node, .. } => format!("bind {} to {node}\n", pod.name),
        Write::Event(note) => format!("event {:?} {} {}\n", note.kind, note.reason, note.message),
        Write::Status(body) => {
            let value = body.to_value();
            format!("status {}\n", value["status"]["conditions"])
        }
        other => panic!("{other:?}"),
    };
    plan.writes.iter().map(line).collect::<String>()
        + &plan.wake_at.map(|time| format!("wake at {time}\n")).unwrap_or_default()
}

#[test]
fn what_is_told_and_only_once() {
    let mut world = world("node n1 cpu 1\npod x cpu 2");
    let plan = decide_at(&world, Kind::Pod, "x");
    let mut text = show(&plan);
    for write in plan.writes {
        if let Write::Status(body) = write {
            put(&mut world, Kind::Pod, body.to_value());
        }
    }
    text += "-- again\n";
    text += &show(&decide_at(&world, Kind::Pod, "x"));
    put(&mut world, Kind::Node, node("n1", &[], &|word| (word == "cpu").then_some("4")));
    text += "-- with more room\n";
    text += &show(&decide_at(&world, Kind::Pod, "x"));
    text += "-- asked for the node\n";
    text += &show(&decide_at(&world, Kind::Node, "n1"));
    expect![[r#"
        status [{"lastTransitionTime":"2026-01-01T00:00:00Z","message":"0/1 nodes are available: 1 Insufficient cpu.","reason":"Unschedulable","status":"False","type":"PodScheduled"}]
        event Warning FailedScheduling 0/1 nodes are available: 1 Insufficient cpu.
        wake at 2026-01-01T00:05:00Z
        -- again
        wake at 2026-01-01T00:05:00Z
        -- with more room
        bind x to n1
        event Normal Scheduled Successfully assigned default/x to n1
        -- asked for the node
        bind x to n1
        event Normal Scheduled Successfully assigned default/x to n1
    "#]].assert_eq(&text);
}

/// Keys that a change wakes.
fn woken(world: &mut Snapshot, kind: Kind, body: Option<Value>, name: &str) -> Vec<String> {
    let change = match body {
        Some(body) => world.put(Object::written(kind.decode(body).unwrap(), world.revision() + 1)),
        None => {
            let namespace = if kind == Kind::Node { "" } else { "default" };
            let revision = world.revision() + 1;
            world.remove(&Key::new(kind, namespace, name), revision).unwrap()
        }
    };
    let mut keys = Vec::new();
    wakes(&change, world, &mut |key| keys.push(key.to_string()));
    keys
}

#[test]
fn only_what_may_help_wakes() {
    let text = "node n1\nnode n2 not-ready\npod a on n1\npod b on n1\npod waits";
    let mut world = world(text);
    let new = pod("new", &|_| None);
    let mut told = new.clone();
    told["status"]["conditions"] = json!([{ "type": "PodScheduled", "status": "False" }]);
    let mut bound = new.clone();
    bound["spec"]["nodeName"] = json!("n1");
    let mut ended = pod("a", &|word| (word == "on").then_some("n1"));
    ended["status"]["phase"] = json!("Succeeded");
    let mut reported = world.object(Kind::Node, "", "n1").unwrap().body.to_value();
    reported["status"]["conditions"][0]["lastHeartbeatTime"] = json!("2026-01-01T00:00:00Z");
    let mut ready = world.object(Kind::Node, "", "n2").unwrap().body.to_value();
    ready["status"]["conditions"][0]["status"] = json!("True");
    let cases = [
        ("a new pod", Kind::Pod, Some(new), "new"),
        ("a condition", Kind::Pod, Some(told), "new"),
        ("bound", Kind::Pod, Some(bound), "new"),
        ("ended", Kind::Pod, Some(ended), "a"),
        ("gone after it ended", Kind::Pod, None, "a"),
        ("gone", Kind::Pod, None, "b"),
        ("a heartbeat", Kind::Node, Some(reported), "n1"),
        ("ready", Kind::Node, Some(ready), "n2"),
        ("a node is gone", Kind::Node, None, "n2"),
    ];
    let text: String = cases
        .into_iter()
        .map(|(what, kind, body, name)| format!("{what}: {}\n", woken(&mut world, kind, body, name).join(", ")))
        .collect();
    expect![[r#"
        a new pod: Pod default/new
        a condition: 
        bound: 
        ended: Node n1
        gone after it ended: 
        gone: Node n1
        a heartbeat: 
        ready: Node n2
        a node is gone: 
    "#]]
    .assert_eq(&text);
}

/// When room comes back for many at once, they are spread and no node gets more than it can take.
#[test]
fn waiting_pods_share_the_room() {
    let mut world = world("node n1 cpu 2\nnode n2 cpu 2\nnode n3 cpu 2 cordoned");
    for index in 0..6 {
        let mut body = pod(&format!("p{index}"), &|word| (word == "cpu").then_some("1"));
        body["status"]["conditions"] = json!([{ "type": "PodScheduled", "status": "False" }]);
        put(&mut world, Kind::Pod, body);
    }
    expect![[r#"
        bind p0 to n2
        event Normal Scheduled Successfully assigned default/p0 to n2
        bind p1 to n1
        event Normal Scheduled Successfully assigned default/p1 to n1
        bind p2 to n1
        event Normal Scheduled Successfully assigned default/p2 to n1
    "#]]
    .assert_eq(&show(&decide_at(&world, Kind::Node, "n1")));
}

/// Placing many pods on many nodes costs no more than a look at a bounded number of nodes each.
#[test]
fn many_pods_on_many_nodes() {
    let mut world = Snapshot::default();
    for index in 0..500 {
        put(&mut world, Kind::Node, node(&format!("n{index}"), &[], &|_| None));
    }
    let mut used = std::collections::BTreeSet::new();
    for index in 0..300 {
        let name = format!("p{index}");
        let body = pod(&name, &|word| if word == "of" { Some("rs") } else { (word == "cpu").then_some("1") });
        let waiting: Pod = serde_json::from_value(body.clone()).unwrap();
        let Placement::Node(node) = place(&waiting, &world) else { panic!("{name} fits nowhere") };
        let mut bound = body;
        bound["spec"]["nodeName"] = json!(node);
        put(&mut world, Kind::Pod, bound);
        used.insert(node);
    }
    assert!(used.len() > 250, "{} nodes for 300 pods", used.len());
}

/// The pods of a DaemonSet demand their node by name.
#[test]
fn a_pod_pinned_to_a_node_looks_at_no_other() {
    let nodes = "node n1\nnode n2 cpu 1\nnode n3\npod x cpu 2";
    let pinned = |name: &str| {
        let term = json!({ "matchFields": [{ "key": "metadata.name", "operator": "In", "values": [name] }] });
        let required = json!({ "nodeSelectorTerms": [term] });
        json!({ "affinity": { "nodeAffinity": { "requiredDuringSchedulingIgnoredDuringExecution": required } } })
    };
    let table =
        ["n1", "n2", "n3", "gone"].map(|name| format!("{name}: {}\n", place_with(nodes, &pinned(name)))).concat();
    expect![[r#"
        n1: to n1
        n2: 0/3 nodes are available: 1 Insufficient cpu, 2 node(s) didn't match Pod's node affinity/selector.
        n3: to n3
        gone: 0/3 nodes are available: 3 node(s) didn't match Pod's node affinity/selector.
    "#]]
    .assert_eq(&table);
}
