//! Creating, changing and ending objects as the wire shows it.

use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use crate::cluster::Setup;
use crate::raw::{DEPLOYMENTS, MAPS, PODS, Raw, SETS, deployment, map, names, pod, refusal};

/// A dry run answers as if, and stores nothing.
#[tokio::test]
async fn a_dry_run() {
    let cluster = Setup::bare().start();
    let raw = Raw::connect(&cluster).await;
    raw.post(MAPS, map("a", "x")).await;
    let (_, before) = raw.get(MAPS).await;
    let (code, made) = raw.post(&format!("{MAPS}?dryRun=All"), map("b", "x")).await;
    assert_eq!((code, made["metadata"]["uid"].is_string()), (201, true));
    let (_, changed) = raw.merge(&format!("{MAPS}/a?dryRun=All"), json!({ "data": { "a": "c" } })).await;
    assert_eq!(changed["data"]["a"], "c");
    assert_eq!(raw.delete(&format!("{MAPS}/a?dryRun=All"), Value::Null).await.0, 200);
    assert_eq!(raw.delete(&format!("{MAPS}/a"), json!({ "dryRun": ["All"] })).await.0, 200);
    assert_eq!(raw.delete(&format!("{MAPS}?dryRun=All"), Value::Null).await.0, 200);
    assert_eq!(raw.get(MAPS).await.1, before);
}

/// The status is written apart from the rest, and only a changed spec is a new generation.
#[tokio::test]
async fn spec_and_status() {
    let cluster = Setup::bare().start();
    let raw = Raw::connect(&cluster).await;
    raw.post(DEPLOYMENTS, deployment("web", 0)).await;
    let path = format!("{DEPLOYMENTS}/web");
    let settled = raw.until(&path, |(_, web)| web["status"]["observedGeneration"] == 1).await;

    let mut new = settled.clone();
    new["status"]["collisionCount"] = 7.into();
    new["spec"]["minReadySeconds"] = 5.into();
    let (code, changed) = raw.put(&format!("{path}/status"), new).await;
    assert_eq!((code, &changed["status"]["collisionCount"]), (200, &json!(7)));
    assert_eq!((&changed["spec"], &changed["metadata"]["generation"]), (&settled["spec"], &json!(1)));

    let mut new = changed.clone();
    new["status"]["collisionCount"] = 9.into();
    new["spec"]["minReadySeconds"] = 5.into();
    let (_, changed) = raw.put(&path, new).await;
    assert_eq!((&changed["status"]["collisionCount"], &changed["spec"]["minReadySeconds"]), (&json!(7), &json!(5)));
    assert_eq!(changed["metadata"]["generation"], 2);

    let labelled = raw.merge(&path, json!({ "metadata": { "labels": { "a": "b" } } })).await.1;
    assert_eq!(labelled["metadata"]["generation"], 2);
    let same = raw.merge(&path, json!({ "metadata": { "labels": { "a": "b" } } })).await.1;
    assert_eq!(same["metadata"]["resourceVersion"], labelled["metadata"]["resourceVersion"]);
}

/// A status that somebody else wrote is put right, with one more event (upstream: "should test the lifecycle of a
/// ReplicationController" of `test/e2e/apps/rc.go`).
#[tokio::test]
async fn a_status_of_somebody_else() {
    let cluster = Setup::bare().start();
    let raw = Raw::connect(&cluster).await;
    raw.post(DEPLOYMENTS, deployment("web", 2)).await;
    let path = format!("{DEPLOYMENTS}/web");
    raw.until(&path, |(_, web)| web["status"]["replicas"] == 2).await;
    let (code, written) = raw.merge(&format!("{path}/status"), json!({ "status": { "replicas": 7 } })).await;
    assert_eq!((code, &written["status"]["replicas"]), (200, &json!(7)));
    raw.until(&path, |(_, web)| web["status"]["replicas"] == 2).await;
}

/// What the system sets cannot be chosen; what was read may be out of date.
#[tokio::test]
async fn identity_and_conflicts() {
    let cluster = Setup::bare().start();
    let raw = Raw::connect(&cluster).await;
    let (_, made) = raw.post(MAPS, json!({ "metadata": { "generateName": "map-", "uid": "mine", "creationTimestamp": "2001-01-01T00:00:00Z" } })).await;
    let meta = &made["metadata"];
    let name = meta["name"].as_str().unwrap();
    assert_eq!((name.len(), &name[..4]), (9, "map-"));
    assert_ne!(meta["uid"], "mine");
    assert!(!meta["creationTimestamp"].as_str().unwrap().starts_with("2001"));
    let path = format!("{MAPS}/{name}");

    let (_, newer) = raw.merge(&path, json!({ "data": { "a": "b" } })).await;
    assert_ne!(newer["metadata"]["resourceVersion"], meta["resourceVersion"]);
    let stale = raw.put(&path, made.clone()).await;
    assert_eq!(
        refusal(&stale),
        format!(
            "409 Conflict: Operation cannot be fulfilled on configmaps \"{name}\": the object has been modified; please \
             apply your changes to the latest version and try again"
        )
    );
    let mut unconditional = made.clone();
    unconditional["metadata"]["resourceVersion"] = Value::Null;
    assert_eq!(raw.put(&path, unconditional).await.0, 200);

    let with_revision = raw.post(MAPS, json!({ "metadata": { "name": "b", "resourceVersion": "5" } })).await;
    assert_eq!(refusal(&with_revision), "400 BadRequest: resourceVersion should not be set on objects to be created");
    let at = |revision: &Value| json!({ "preconditions": { "resourceVersion": revision } });
    assert!(refusal(&raw.delete(&path, at(&meta["resourceVersion"])).await).starts_with("409 Conflict: "));
    let (_, current) = raw.get(&path).await;
    let (code, gone) = raw.delete(&path, at(&current["metadata"]["resourceVersion"])).await;
    assert_eq!((code, &gone["status"], &gone["details"]["name"]), (200, &json!("Success"), &json!(name)));
    assert_eq!(
        refusal(&raw.delete(&path, Value::Null).await),
        format!("404 NotFound: configmaps \"{name}\" not found")
    );
}

/// An object with a finalizer goes when the last one is taken away.
#[tokio::test]
async fn finalizers() {
    let cluster = Setup::bare().start();
    let raw = Raw::connect(&cluster).await;
    let path = format!("{MAPS}/a");
    raw.post(MAPS, json!({ "metadata": { "name": "a", "finalizers": ["example.com/hold"] } })).await;
    let (code, marked) = raw.delete(&path, Value::Null).await;
    assert_eq!((code, marked["metadata"]["deletionTimestamp"].is_string()), (200, true));
    let added =
        raw.merge(&path, json!({ "metadata": { "finalizers": ["example.com/hold", "example.com/more"] } })).await;
    assert!(
        refusal(&added)
            .contains("metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted"),
        "{added:?}"
    );
    assert_eq!(raw.delete(&path, Value::Null).await.0, 200);
    assert_eq!(raw.get(&path).await.0, 200);
    let (code, last) = raw.merge(&path, json!({ "metadata": { "finalizers": null } })).await;
    assert_eq!((code, &last["metadata"]["name"]), (200, &json!("a")));
    assert_eq!(raw.get(&path).await.0, 404);
}

/// A pod gets its grace on the node that runs it, and none where nothing runs.
#[tokio::test]
async fn grace() {
    let profile = "images:\n- {image: 'web:*', stopTime: 3s}\n";
    let cluster = Setup::simulated(1).profile(profile).start();
    let raw = Raw::connect(&cluster).await;
    for name in ["a", "b"] {
        raw.post(PODS, pod(name)).await;
        raw.until(&format!("{PODS}/{name}"), |(_, pod)| pod["status"]["phase"] == "Running").await;
    }
    let mut events = raw.watch(&format!("{PODS}?watch=1&fieldSelector=metadata.name%3Da")).await;
    assert_eq!(events.told().await, "ADDED a");
    let (code, going) = raw.delete(&format!("{PODS}/a"), Value::Null).await;
    assert_eq!((code, &going["metadata"]["deletionGracePeriodSeconds"]), (200, &json!(30)));
    assert_eq!(raw.get(&format!("{PODS}/a")).await.0, 200);
    let shorter = raw.delete(&format!("{PODS}/a"), json!({ "gracePeriodSeconds": 5 })).await.1;
    assert_eq!(shorter["metadata"]["deletionGracePeriodSeconds"], 5);
    let told = loop {
        let told = events.told().await;
        if told != "MODIFIED a" {
            break told;
        }
    };
    assert_eq!(told, "DELETED a");
    raw.delete(&format!("{PODS}/b"), json!({ "gracePeriodSeconds": 0 })).await;
    assert_eq!(raw.get(&format!("{PODS}/b")).await.0, 404);

    // A pod that no node has goes at once.
    let mut nowhere = pod("c");
    nowhere["spec"]["nodeSelector"] = json!({ "disk": "none" });
    raw.post(PODS, nowhere).await;
    raw.delete(&format!("{PODS}/c"), Value::Null).await;
    assert_eq!(raw.get(&format!("{PODS}/c")).await.0, 404);
}

/// What becomes of the ReplicaSet and the pods of a Deployment that is deleted.
#[tokio::test]
async fn propagation() {
    let profile = "images:\n- {image: 'web:*', stopTime: 1s}\n";
    let cluster = Setup::simulated(1).profile(profile).start();
    let raw = Raw::connect(&cluster).await;
    let start = async |name: &str| {
        raw.post(DEPLOYMENTS, deployment(name, 2)).await;
        let path = format!("{DEPLOYMENTS}/{name}");
        raw.until(&path, |(_, web)| web["status"]["availableReplicas"] == 2).await;
        path
    };
    let of = |path: &str, name: &str| format!("{path}?labelSelector=app%3D{name}");
    let empty = |(_, list): &(u16, Value)| names(list).is_empty();

    let path = start("background").await;
    let (code, gone) = raw.delete(&path, json!({ "propagationPolicy": "Background" })).await;
    assert_eq!((code, &gone["status"], raw.get(&path).await.0), (200, &json!("Success"), 404));
    raw.until(&of(SETS, "background"), empty).await;
    raw.until(&of(PODS, "background"), empty).await;

    let path = start("foreground").await;
    let (_, marked) = raw.delete(&path, json!({ "propagationPolicy": "Foreground" })).await;
    assert_eq!(marked["metadata"]["finalizers"], json!(["foregroundDeletion"]));
    assert_eq!(raw.get(&path).await.0, 200);
    raw.until(&path, |(code, _)| *code == 404).await;
    assert!(empty(&raw.get(&of(SETS, "foreground")).await) && empty(&raw.get(&of(PODS, "foreground")).await));

    let path = start("orphan").await;
    raw.delete(&path, json!({ "orphanDependents": true })).await;
    raw.until(&path, |(code, _)| *code == 404).await;
    let (_, sets) = raw.get(&of(SETS, "orphan")).await;
    assert_eq!(sets["items"].as_array().unwrap().len(), 1);
    assert!(sets["items"][0]["metadata"]["ownerReferences"].is_null());
    assert_eq!(names(&raw.get(&of(PODS, "orphan")).await.1).len(), 2);

    // The same Deployment again takes them back.
    start("orphan").await;
    let (_, again) = raw.get(&of(SETS, "orphan")).await;
    assert_eq!(again["items"][0]["metadata"]["uid"], sets["items"][0]["metadata"]["uid"]);
    assert_eq!(again["items"][0]["metadata"]["ownerReferences"][0]["kind"], "Deployment");
}

/// A collection is deleted as far as it is selected.
#[tokio::test]
async fn deleting_a_collection() {
    let cluster = Setup::bare().start();
    let raw = Raw::connect(&cluster).await;
    for (name, app) in [("a", "web"), ("b", "api"), ("c", "web")] {
        raw.post(MAPS, map(name, app)).await;
    }
    let (code, _) = raw.delete(&format!("{MAPS}?labelSelector=app%3Dweb"), Value::Null).await;
    assert_eq!((code, names(&raw.get(MAPS).await.1)), (200, vec!["b"]));
}

/// A namespace goes when all that is in it has gone.
#[tokio::test]
async fn a_namespace_with_everything_in_it() {
    let profile = "images:\n- {image: 'web:*', stopTime: 2s}\n";
    let cluster = Setup::simulated(1).profile(profile).start();
    let raw = Raw::connect(&cluster).await;
    raw.post("/api/v1/namespaces", json!({ "metadata": { "name": "shop" } })).await;
    let deployments = "/apis/apps/v1/namespaces/shop/deployments";
    raw.post(deployments, deployment("web", 2)).await;
    raw.post("/api/v1/namespaces/shop/configmaps", map("a", "x")).await;
    raw.until(&format!("{deployments}/web"), |(_, web)| web["status"]["availableReplicas"] == 2).await;
    let (code, going) = raw.delete("/api/v1/namespaces/shop", Value::Null).await;
    assert_eq!((code, &going["status"]["phase"]), (200, &json!("Terminating")));
    let late = raw.post("/api/v1/namespaces/shop/configmaps", map("b", "x")).await;
    assert!(
        refusal(&late).contains("unable to create new content in namespace shop because it is being terminated"),
        "{late:?}"
    );
    raw.until("/api/v1/namespaces/shop", |(code, _)| *code == 404).await;
    let (_, pods) = raw.get("/api/v1/pods").await;
    assert_eq!(names(&pods), Vec::<&str>::new());
}

/// `scale` is a view of its own.
#[tokio::test]
async fn the_scale_of_a_deployment() {
    let cluster = Setup::simulated(1).start();
    let raw = Raw::connect(&cluster).await;
    raw.post(DEPLOYMENTS, deployment("web", 1)).await;
    let path = format!("{DEPLOYMENTS}/web");
    raw.until(&path, |(_, web)| web["status"]["availableReplicas"] == 1).await;
    let (_, scale) = raw.get(&format!("{path}/scale")).await;
    assert_eq!(
        (&scale["kind"], &scale["spec"]["replicas"], &scale["status"]),
        (&json!("Scale"), &json!(1), &json!({ "replicas": 1, "selector": "app=web" }))
    );
    let mut wanted = scale.clone();
    wanted["spec"]["replicas"] = 3.into();
    let (code, scaled) = raw.put(&format!("{path}/scale"), wanted.clone()).await;
    assert_eq!((code, &scaled["spec"]["replicas"]), (200, &json!(3)));
    assert!(refusal(&raw.put(&format!("{path}/scale"), wanted).await).starts_with("409 Conflict: "));
    assert_eq!(
        raw.merge(&format!("{path}/scale"), json!({ "spec": { "replicas": 2 } })).await.1["spec"]["replicas"],
        2
    );
    raw.until(&path, |(_, web)| web["status"]["availableReplicas"] == 2).await;
    let negative = raw.merge(&format!("{path}/scale"), json!({ "spec": { "replicas": -1 } })).await;
    assert!(refusal(&negative).starts_with("422 Invalid: "), "{negative:?}");
}

/// A pod is bound once.
#[tokio::test]
async fn binding_a_pod() {
    let cluster = Setup::bare().start();
    let raw = Raw::connect(&cluster).await;
    raw.post(PODS, pod("a")).await;
    let target = |node: &str| json!({ "metadata": { "name": "a" }, "target": { "kind": "Node", "name": node } });
    let binding = format!("{PODS}/a/binding");
    assert_eq!(raw.post(&binding, target("n1")).await.0, 201);
    let (_, bound) = raw.get(&format!("{PODS}/a")).await;
    assert_eq!(bound["spec"]["nodeName"], "n1");
    assert_eq!(bound["status"]["conditions"][0]["type"], "PodScheduled");
    assert_eq!(
        refusal(&raw.post(&binding, target("n2")).await),
        "409 Conflict: Operation cannot be fulfilled on pods \"a\": pod a is already assigned to node \"n1\""
    );
}

/// What every cluster has cannot be deleted, or comes back.
#[tokio::test]
async fn what_every_cluster_has() {
    let cluster = Setup::bare().start();
    let raw = Raw::connect(&cluster).await;
    for namespace in ["default", "kube-system", "kube-public"] {
        let refused = raw.delete(&format!("/api/v1/namespaces/{namespace}"), Value::Null).await;
        assert_eq!(
            refusal(&refused),
            format!("403 Forbidden: namespaces \"{namespace}\" is forbidden: this namespace may not be deleted")
        );
    }
    let service = "/api/v1/namespaces/default/services/kubernetes";
    let (_, before) = raw.get(service).await;
    assert_eq!(raw.delete(service, Value::Null).await.0, 200);
    let after = raw.until(service, |(code, _)| *code == 200).await;
    assert_ne!(before["metadata"]["uid"], after["metadata"]["uid"]);
    assert_eq!(after["spec"]["clusterIP"], "10.96.0.1");
}

/// YAML and protobuf bodies mean the same as JSON.
#[tokio::test]
async fn other_media_types() {
    let cluster = Setup::bare().start();
    let raw = Raw::connect(&cluster).await;
    let yaml = "metadata:\n  name: a\ndata:\n  b: c\n";
    let (code, made) = raw.send(Method::POST, MAPS, &[("content-type", "application/yaml")], yaml.into()).await;
    assert_eq!((code, &made["data"]["b"]), (201, &json!("c")));
    // DeleteOptions { apiVersion v1, kind DeleteOptions, propagationPolicy (field 4) Background } as client-go writes it.
    let options = [b"\x0a\x0aBackground".as_slice()].concat();
    let options = [&[0x22, 10], &options[2..]].concat();
    let type_meta = b"\x0a\x02v1\x12\x0dDeleteOptions";
    let mut body = b"k8s\x00".to_vec();
    body.extend([0x0a, type_meta.len() as u8]);
    body.extend(type_meta);
    body.extend([0x12, options.len() as u8]);
    body.extend(&options);
    let media = [("content-type", "application/vnd.kubernetes.protobuf")];
    let (code, gone) = raw.send(Method::DELETE, &format!("{MAPS}/a"), &media, body).await;
    assert_eq!((code, &gone["status"]), (200, &json!("Success")), "{gone}");
}

/// Nothing but its clients keeps a server from stopping: it does not wait for watches.
#[tokio::test]
async fn a_stop_ends_watches() {
    let mut cluster = Setup::bare().start();
    let raw = Raw::connect(&cluster).await;
    let mut events = raw.watch(&format!("{MAPS}?watch=1&labelSelector=app%3Dnone")).await;
    let began = std::time::Instant::now();
    let stopping = std::thread::spawn(move || (cluster.stop(), cluster));
    assert!(events.next().await.is_none());
    let (stopped, _cluster) = stopping.join().unwrap();
    assert!(stopped && began.elapsed() < Duration::from_secs(5), "it took {:?}", began.elapsed());
}
