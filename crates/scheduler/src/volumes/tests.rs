use expect_test::expect;
use jiff::Timestamp;
use serde_json::{Value, json};

use api::{Context, Heard, Key, Kind, Object, Snapshot, Usage, Write};

/// A world of nodes, classes, claims, volumes and pods, a line each:
///
/// ```text
/// node n1 [pods 1] [zone a]
/// class local [immediate] [by somebody.example] [zone a]
/// claim data [class local] [bound v] [chosen n1] [deleted] [lost] [modes ReadWriteMany]
/// volume v [on n1] [class local] [size 1Gi]
/// pod x uses data,more [on n1]
/// ```
fn world(text: &str) -> Snapshot {
    let mut world = Snapshot::default();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let (kind, body) = object(&words);
        world.put(Object::written(kind.decode(body).unwrap(), world.revision() + 1));
    }
    world
}

fn object(words: &[&str]) -> (Kind, Value) {
    let value = |name: &str| words.iter().position(|word| *word == name).map(|at| words[at + 1]);
    let has = |name: &str| words.contains(&name);
    let (name, zone) = (words[1], value("zone"));
    match words[0] {
        "node" => (
            Kind::Node,
            json!({
                "metadata": { "name": name, "labels": { "kubernetes.io/hostname": name, "zone": zone.unwrap_or("none") } },
                "status": { "allocatable": { "cpu": "4", "memory": "8Gi", "pods": value("pods").unwrap_or("110") },
                    "conditions": [{ "type": "Ready", "status": "True" }] },
            }),
        ),
        "class" => (
            Kind::StorageClass,
            json!({
                "metadata": { "name": name }, "provisioner": value("by").unwrap_or("kapstan.dev/local"),
                "volumeBindingMode": if has("immediate") { "Immediate" } else { "WaitForFirstConsumer" },
                "allowedTopologies": zone.map(|zone| json!([{ "matchLabelExpressions": [{ "key": "zone", "values": [zone] }] }])),
            }),
        ),
        "claim" => {
            let mut annotations = json!({});
            if value("bound").is_some() {
                annotations["pv.kubernetes.io/bind-completed"] = json!("yes");
            }
            if let Some(node) = value("chosen") {
                annotations["volume.kubernetes.io/selected-node"] = json!(node);
            }
            (
                Kind::PersistentVolumeClaim,
                json!({
                    "metadata": { "name": name, "namespace": "default", "uid": name, "annotations": annotations,
                        "deletionTimestamp": has("deleted").then_some("2026-01-01T00:00:00Z") },
                    "spec": { "storageClassName": value("class"), "volumeName": value("bound"),
                        "accessModes": [value("modes").unwrap_or("ReadWriteOnce")], "resources": { "requests": { "storage": "1Gi" } } },
                    "status": { "phase": if has("lost") { "Lost" } else { "Pending" } },
                }),
            )
        }
        "volume" => {
            let term = |node: &str| json!({ "matchExpressions": [{ "key": "kubernetes.io/hostname", "operator": "In", "values": [node] }] });
            (
                Kind::PersistentVolume,
                json!({
                    "metadata": { "name": name },
                    "spec": { "storageClassName": value("class"), "accessModes": ["ReadWriteOnce"], "capacity": { "storage": value("size").unwrap_or("1Gi") },
                        "nodeAffinity": value("on").map(|node| json!({ "required": { "nodeSelectorTerms": [term(node)] } })) },
                    "status": { "phase": "Available" },
                }),
            )
        }
        _ => {
            let claims = value("uses").unwrap_or_default().split(',').filter(|claim| !claim.is_empty());
            let volumes: Vec<Value> =
                claims.map(|claim| json!({ "name": claim, "persistentVolumeClaim": { "claimName": claim } })).collect();
            (
                Kind::Pod,
                json!({
                    "metadata": { "name": name, "namespace": "default", "uid": name },
                    "spec": { "nodeName": value("on"), "containers": [], "volumes": volumes },
                }),
            )
        }
    }
}

/// What is done about the pod `x`.
fn decide(text: &str) -> String {
    let world = world(text);
    plan_of(&world, &Key::new(Kind::Pod, "default", "x"))
}

fn plan_of(world: &Snapshot, key: &Key) -> String {
    let (usage, heard) = (Usage::default(), Heard::default());
    let context = Context { now: Timestamp::UNIX_EPOCH, refused: None, usage: &usage, heard: &heard };
    let plan = crate::decide(key, world, &context);
    let mut told: Vec<String> = Vec::new();
    for write in plan.writes {
        told.push(match write {
            Write::Bind { pod, node, .. } => format!("{} to {node}", pod.name),
            Write::Update(api::Body::PersistentVolume(volume)) => {
                let claim = volume.spec.as_ref().unwrap().claim_ref.as_ref().unwrap().name.clone().unwrap();
                format!("{} is for {claim}", volume.metadata.name.as_deref().unwrap())
            }
            Write::Update(api::Body::PersistentVolumeClaim(claim)) => {
                let node = &claim.metadata.annotations.as_ref().unwrap()["volume.kubernetes.io/selected-node"];
                format!("{} on {node}", claim.metadata.name.as_deref().unwrap())
            }
            _ => continue,
        });
    }
    told.extend(plan.why);
    told.join("; ") + "\n"
}

#[test]
fn claims_say_where_a_pod_may_go() {
    let nodes = "node n1\nnode n2\n";
    let cases = [
        "pod x uses data",
        "claim data class local deleted\nclass local\npod x uses data",
        "claim data class local lost bound v\nclass local\npod x uses data",
        "claim data class now\nclass now immediate\npod x uses data",
        "claim data\npod x uses data",
        "claim data bound v\npod x uses data",
        "claim data bound v\nvolume v on n2\npod x uses data",
        "claim data bound v\nvolume v on n3\npod x uses data",
        "claim data bound v modes ReadWriteOncePod\nvolume v\npod y uses data on n1\npod x uses data",
    ];
    let table = cases.map(|case| decide(&format!("{nodes}{case}"))).concat();
    expect![[r#"
        0/2 nodes are available: persistentvolumeclaim "data" not found.
        0/2 nodes are available: persistentvolumeclaim "data" is being deleted.
        0/2 nodes are available: persistentvolumeclaim "data" bound to non-existent persistentvolume "v".
        0/2 nodes are available: pod has unbound immediate PersistentVolumeClaims.
        0/2 nodes are available: pod has unbound immediate PersistentVolumeClaims.
        0/2 nodes are available: 2 node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s).
        x to n2
        0/2 nodes are available: 2 node(s) didn't match PersistentVolume's node affinity.
        0/2 nodes are available: 2 node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode.
    "#]].assert_eq(&table);
}

#[test]
fn what_waits_for_its_pod_is_settled_with_it() {
    let nodes = "node n1 zone a\nnode n2 zone b\n";
    let cases = [
        "class local\nclaim data class local\npod x uses data",
        "class local\nclaim data class local chosen n2\npod x uses data",
        "class local\nclaim data class local\nclaim more class local\npod x uses data,more",
        "class local zone b\nclaim data class local\npod x uses data",
        "class disks by kubernetes.io/no-provisioner\nvolume big on n1 class disks size 9Gi\nvolume fit on n1 class disks\nclaim data class disks\npod x uses data",
        "class disks by kubernetes.io/no-provisioner\nvolume one on n1 class disks\nclaim data class disks\nclaim more class disks\npod x uses data,more",
        "class far by somebody.example\nclaim data class far\npod x uses data",
        "class far by somebody.example\nclaim data class far chosen n1\npod x uses data",
        "class local\nclaim data class local modes ReadWriteMany\npod x uses data",
    ];
    let table = cases.map(|case| decide(&format!("{nodes}{case}"))).concat();
    expect![[r#"
        data on n1; x to n1
        x to n2
        data on n1; more on n1; x to n1
        data on n2; x to n2
        fit is for data; x to n1
        0/2 nodes are available: 2 node(s) didn't find available persistent volumes to bind.
        data on n1; waits until its volumes are made on node n1
        waits until its volumes are made on node n1
        data on n1; waits until its volumes are made on node n1
    "#]]
    .assert_eq(&table);
}

/// Two pods that wait for a node want the one disk that it has.
#[test]
fn a_volume_is_given_once() {
    let mut world = world(
        "node n1
         class disks by kubernetes.io/no-provisioner
         volume one on n1 class disks
         claim a class disks
         claim b class disks
         pod x uses a
         pod y uses b",
    );
    for name in ["x", "y"] {
        let mut body = world.object(Kind::Pod, "default", name).unwrap().body.to_value();
        body["status"] = json!({ "conditions": [{ "type": "PodScheduled", "status": "False" }] });
        world.put(Object::written(Kind::Pod.decode(body).unwrap(), world.revision() + 1));
    }
    expect![[r#"
        one is for a; x to n1
    "#]]
    .assert_eq(&plan_of(&world, &Key::new(Kind::Node, "", "n1")));
}
