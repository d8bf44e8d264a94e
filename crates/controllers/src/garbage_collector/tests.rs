use expect_test::expect;
use serde_json::{Value, json};

use api::{Kind, Propagation};
use k8s_openapi::api::core::v1::ConfigMap;

use crate::Controller;
use crate::testing::{World, show};

/// `config b of a c` is a ConfigMap `b` owned by `a` (which blocks) and `c`.
fn world(lines: &[&str]) -> World {
    let mut world = World::new();
    for line in lines {
        let words: Vec<&str> = line.split_whitespace().collect();
        let owners: Vec<Value> = words.iter().skip(2).map(|owner| reference(owner)).collect();
        world.store(
            Kind::ConfigMap,
            json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": {
                "name": words[0], "namespace": "default", "uid": format!("uid-{}", words[0]), "ownerReferences": owners } }),
        );
    }
    world
}

/// `owner` blocks, `owner?` does not, `owner!` names another uid.
fn reference(owner: &str) -> Value {
    let name = owner.trim_end_matches(['?', '!']);
    let uid = if owner.ends_with('!') { "other".to_owned() } else { format!("uid-{name}") };
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "name": name, "uid": uid, "blockOwnerDeletion": !owner.ends_with('?') })
}

fn names(world: &World) -> String {
    let names: Vec<&str> = world.snapshot.objects(Kind::ConfigMap, None).map(|object| object.name()).collect();
    names.join(" ")
}

fn end(lines: &[&str], propagation: Propagation) -> String {
    let mut world = world(lines);
    world.user_deletes(Kind::ConfigMap, "a", propagation);
    let first = names(&world);
    world.settle();
    format!("{propagation:?}: {first} -> {}\n", names(&world))
}

#[test]
fn what_becomes_of_dependents() {
    let chain = ["a", "b of a", "c of b", "d of a?", "e of a x!", "f of a g", "g"];
    let mut text = String::new();
    for propagation in [Propagation::Background, Propagation::Foreground, Propagation::Orphan] {
        text += &end(&chain, propagation);
    }
    expect![[r#"
        Background: b c d e f g -> f g
        Foreground: a b c d e f g -> f g
        Orphan: a b c d e f g -> b c d f g
    "#]]
    .assert_eq(&text);
}

/// Upstream: the owner is looked for by kind, name and uid, in the namespace of the dependent.
#[test]
fn what_is_collected() {
    let mut world = world(&["a", "b of a", "c of a!", "d of gone", "e of gone a", "f of a gone"]);
    let cluster = json!({ "apiVersion": "v1", "kind": "ConfigMap", "name": "a", "uid": "uid-a" });
    let unknown = json!({ "apiVersion": "example.com/v1", "kind": "Thing", "name": "t", "uid": "t" });
    let node = json!({ "apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "uid-n1" });
    let object = |name: &str, owner: &Value| json!({ "metadata": { "name": name, "namespace": "default", "uid": name, "ownerReferences": [owner] } });
    world.store(Kind::ConfigMap, object("of-unknown-kind", &unknown));
    world.store(Kind::ConfigMap, object("of-node", &node));
    world.store(
        Kind::Node,
        json!({ "metadata": { "name": "of-namespaced", "uid": "of-namespaced", "ownerReferences": [cluster] } }),
    );
    let mut elsewhere = object("elsewhere", &cluster);
    elsewhere["metadata"]["namespace"] = json!("other");
    world.store(Kind::ConfigMap, elsewhere);
    world.wake_all();
    world.settle();
    let mut text = names(&world);
    for name in ["e", "f"] {
        let owners = world.snapshot.object(Kind::ConfigMap, "default", name).unwrap().meta().owner_references.clone();
        text += &format!(
            "\n{name} of {}",
            owners.unwrap().iter().map(|owner| owner.name.clone()).collect::<Vec<_>>().join(" ")
        );
    }
    expect![[r#"
        a b e f of-node of-unknown-kind
        e of a
        f of a"#]]
    .assert_eq(&text);
}

/// In the foreground an owner stays until the last dependent that blocks it is gone, whoever holds that one.
#[test]
fn foreground_waits() {
    let mut world = world(&["a", "b of a", "c of b"]);
    let mut held = world.snapshot.object(Kind::ConfigMap, "default", "c").unwrap().body.to_value();
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    world.store(Kind::ConfigMap, held);
    world.user_deletes(Kind::ConfigMap, "a", Propagation::Foreground);
    world.settle();
    let mut text = names(&world) + "\n";
    text += &show(&world.plan(Controller::GarbageCollector, Kind::ConfigMap, "a"));
    let mut free = world.snapshot.object(Kind::ConfigMap, "default", "c").unwrap().body.clone();
    free.meta_mut().finalizers = None;
    world.carry_out(api::Write::Update(free), &mut String::new()).unwrap();
    world.settle();
    text += &format!("after: {}", names(&world));
    expect![[r#"
        a b c
        why is deleted once its 1 dependents are gone
        after: "#]]
    .assert_eq(&text);
}

/// A circle of owners that all wait for each other is broken.
#[test]
fn circles_end() {
    let mut world = world(&["a of c", "b of a", "c of b"]);
    world.user_deletes(Kind::ConfigMap, "a", Propagation::Foreground);
    world.settle();
    assert_eq!(names(&world), "");
}

/// What is waited for is known by its uid, whatever name it gives its owner.
#[test]
fn an_owner_is_waited_for_under_another_name() {
    for propagation in [Propagation::Orphan, Propagation::Foreground] {
        let mut world = world(&["a", "b of a"]);
        world.user_deletes(Kind::ConfigMap, "a", propagation);
        world.user_edits::<ConfigMap>("b", |map| {
            map.metadata.owner_references.as_mut().unwrap()[0].name = "another".into();
        });
        world.settle();
        assert_eq!(names(&world), if propagation == Propagation::Orphan { "b" } else { "" });
    }
}

/// Deleting a Deployment takes sets and pods along; orphaned sets go on.
#[test]
fn a_deployment_and_what_is_its() {
    let mut text = String::new();
    for propagation in [Propagation::Background, Propagation::Foreground, Propagation::Orphan] {
        let mut world = World::read("deploy web 2 image v1\nrs web-a 2 image v1 revision 1");
        world.user_deletes(Kind::Deployment, "web", propagation);
        world.settle();
        let count = |world: &World| {
            let counts = [Kind::Deployment, Kind::ReplicaSet, Kind::Pod].map(|kind| world.snapshot.count(kind));
            format!("{counts:?}")
        };
        text += &format!("{propagation:?}: {}", count(&world));
        world.run_nodes();
        world.settle();
        text += &format!(" -> {}\n", count(&world));
    }
    expect![[r#"
        Background: [0, 0, 2] -> [0, 0, 0]
        Foreground: [1, 1, 2] -> [0, 0, 0]
        Orphan: [0, 1, 2] -> [0, 1, 2]
    "#]]
    .assert_eq(&text);
}
