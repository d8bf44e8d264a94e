use expect_test::expect;
use serde_json::json;

use api::{Kind, Propagation};
use k8s_openapi::api::core::v1::Namespace;

use crate::Controller;
use crate::testing::{World, show};

#[test]
fn pods_go_first_then_the_rest_then_the_namespace() {
    let mut world = World::read("deploy web 2 image v1\nrs web-a 2 image v1 revision 1");
    let namespace =
        json!({ "metadata": { "name": "default", "uid": "uid-ns" }, "spec": { "finalizers": ["kubernetes"] } });
    world.store(Kind::Namespace, namespace);
    world.door = |world, write| {
        let ending = world.get::<Namespace>("", "default").is_some_and(|it| it.metadata.deletion_timestamp.is_some());
        let api::Write::Create(body) = write else { return None };
        ending.then(|| {
            let mut refusal = api::Refusal::forbidden(body.kind(), "", "the namespace is being terminated");
            let cause =
                api::Cause { reason: "NamespaceTerminating".into(), message: String::new(), field: String::new() };
            refusal.causes.push(cause);
            refusal
        })
    };
    world.user_deletes(Kind::Namespace, "default", Propagation::Background);
    let mut text = show(&world.plan(Controller::Namespace, Kind::Namespace, "default"));
    world.settle();
    let told = world.snapshot.get::<Namespace>("", "default").unwrap().status.clone().unwrap();
    for condition in told.conditions.unwrap() {
        text += &format!(
            "{}={} {}: {}\n",
            condition.type_,
            condition.status,
            condition.reason.unwrap(),
            condition.message.unwrap()
        );
    }
    text += "-- once the pods have ended\n";
    world.run_nodes();
    text += &show(&world.plan(Controller::Namespace, Kind::Namespace, "default"));
    world.settle();
    text += &format!("left: {:?}", world.snapshot.object(Kind::Namespace, "", "default").map(|object| object.key()));
    expect![[r#"
        delete Pod web-a-0
        delete Pod web-a-1
        status Namespace default
        why Some resources are remaining: pods. has 2 resource instances, deployments.apps has 1 resource instances, replicasets.apps has 1 resource instances
        NamespaceDeletionDiscoveryFailure=False ResourcesDiscovered: All resources successfully discovered
        NamespaceDeletionGroupVersionParsingFailure=False ParsedGroupVersions: All legacy kube types successfully parsed
        NamespaceDeletionContentFailure=False ContentDeleted: All content successfully deleted, may be waiting on finalization
        NamespaceContentRemaining=True SomeResourcesRemain: Some resources are remaining: pods. has 2 resource instances, deployments.apps has 1 resource instances, replicasets.apps has 1 resource instances
        NamespaceFinalizersRemaining=False ContentHasNoFinalizers: All content-preserving finalizers finished
        -- once the pods have ended
        delete Deployment web
        delete ReplicaSet web-a
        status Namespace default
        why Some resources are remaining: deployments.apps has 1 resource instances, replicasets.apps has 1 resource instances
        left: None"#]].assert_eq(&text);
    assert_eq!(world.snapshot.objects(Kind::ReplicaSet, None).count(), 0);
}

#[test]
fn a_namespace_that_stays_is_left_alone() {
    let mut world = World::read("rs web-a 2 orphan");
    world.store(
        Kind::Namespace,
        json!({ "metadata": { "name": "default", "uid": "u" }, "spec": { "finalizers": ["kubernetes"] } }),
    );
    assert_eq!(show(&world.plan(Controller::Namespace, Kind::Namespace, "default")), "");
}
