//! GET, LIST and WATCH as the wire shows them.

use serde_json::{Value, json};

use crate::cluster::Setup;
use crate::raw::{MAPS, PODS, Raw, deployment, map, names, pod, refusal};

const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
const METADATA: &str = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io,application/json";
const METADATA_LIST: &str = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io,application/json";

/// Pages show one revision, whatever is written between them.
#[tokio::test]
async fn pages_of_a_list() {
    let cluster = Setup::bare().start();
    let raw = Raw::connect(&cluster).await;
    let all = ["a", "b", "c", "d", "e", "f", "g"];
    for name in all {
        assert_eq!(raw.post(MAPS, map(name, "x")).await.0, 201);
    }
    let (_, first) = raw.get(&format!("{MAPS}?limit=3")).await;
    assert_eq!(names(&first), all[..3]);
    // The last of all is the authority's certificate, which every namespace has.
    assert_eq!(first["metadata"]["remainingItemCount"], 5);
    raw.delete(&format!("{MAPS}/e"), Value::Null).await;
    raw.post(MAPS, map("dd", "x")).await;
    let next = first["metadata"]["continue"].as_str().unwrap();
    let (_, second) = raw.get(&format!("{MAPS}?limit=3&continue={next}")).await;
    assert_eq!(names(&second), all[3..6]);
    assert_eq!(second["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    let next = second["metadata"]["continue"].as_str().unwrap();
    let (_, last) = raw.get(&format!("{MAPS}?limit=3&continue={next}")).await;
    assert_eq!(names(&last), all[6..]);
    assert!(last["metadata"]["continue"].is_null() && last["metadata"]["remainingItemCount"].is_null());

    // With a selector nobody can say how many are left.
    let (_, selected) = raw.get(&format!("{MAPS}?limit=3&labelSelector=app%3Dx")).await;
    assert!(selected["metadata"]["continue"].is_string() && selected["metadata"]["remainingItemCount"].is_null());
}

/// A list that was left lying is told so, with a token that goes on without the promise.
#[tokio::test]
async fn a_page_that_is_too_old() {
    let cluster = Setup::bare().start();
    let raw = Raw::connect(&cluster).await;
    for name in ["a", "b", "c"] {
        raw.post(MAPS, map(name, "x")).await;
    }
    let (_, first) = raw.get(&format!("{MAPS}?limit=1")).await;
    for number in 0..64 {
        raw.merge(&format!("{MAPS}/c"), json!({ "data": { "n": number.to_string() } })).await;
        raw.get(&format!("{MAPS}?limit=1")).await;
    }
    let next = first["metadata"]["continue"].as_str().unwrap();
    let expired = raw.get(&format!("{MAPS}?limit=1&continue={next}")).await;
    assert!(refusal(&expired).starts_with("410 Expired: The provided continue parameter is too old"), "{expired:?}");
    let next = expired.1["metadata"]["continue"].as_str().unwrap();
    let (code, rest) = raw.get(&format!("{MAPS}?continue={next}")).await;
    assert_eq!((code, names(&rest)), (200, vec!["b", "c"]));
}

/// An object that starts or stops to match a selector is added or deleted for its watcher.
#[tokio::test]
async fn watching_a_selection() {
    let cluster = Setup::bare().start();
    let raw = Raw::connect(&cluster).await;
    raw.post(MAPS, map("there", "web")).await;
    let (_, list) = raw.get(MAPS).await;
    let from = list["metadata"]["resourceVersion"].as_str().unwrap();
    let mut web = raw.watch(&format!("{MAPS}?watch=1&labelSelector=app%3Dweb")).await;
    let mut since = raw.watch(&format!("{MAPS}?watch=1&resourceVersion={from}&labelSelector=app%3Dweb")).await;
    let mut named = raw.watch(&format!("{MAPS}?watch=1&fieldSelector=metadata.name%3Da")).await;
    assert_eq!(web.told().await, "ADDED there");

    raw.post(MAPS, map("a", "api")).await;
    assert_eq!(named.told().await, "ADDED a");
    let path = format!("{MAPS}/a");
    for label in ["web", "web", "api", "web"] {
        raw.merge(&path, json!({ "metadata": { "labels": { "app": label } }, "data": { "label": label } })).await;
    }
    raw.merge(&path, json!({ "data": { "last": "yes" } })).await;
    raw.delete(&path, Value::Null).await;
    for events in [&mut web, &mut since] {
        assert_eq!(events.told().await, "ADDED a");
        let gone = events.next().await.unwrap();
        // The last state that matched, at the revision at which it ceased to.
        assert_eq!((&gone["type"], &gone["object"]["metadata"]["labels"]["app"]), (&json!("DELETED"), &json!("web")));
        let added = events.next().await.unwrap();
        let revision =
            |event: &Value| event["object"]["metadata"]["resourceVersion"].as_str().unwrap().parse::<u64>().unwrap();
        assert!(revision(&gone) < revision(&added));
        assert_eq!(events.told().await, "MODIFIED a");
        assert_eq!(events.told().await, "DELETED a");
    }
    for told in ["MODIFIED a", "MODIFIED a", "MODIFIED a", "MODIFIED a", "DELETED a"] {
        assert_eq!(named.told().await, told);
    }
}

/// A watch may begin with everything there is, and says where that ends.
#[tokio::test]
async fn watching_from_the_start() {
    let cluster = Setup::bare().start();
    let raw = Raw::connect(&cluster).await;
    raw.post(MAPS, map("a", "x")).await;
    raw.post(MAPS, map("b", "x")).await;
    let options = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&timeoutSeconds=3";
    let mut events = raw.watch(&format!("{MAPS}?watch=1&{options}")).await;
    assert_eq!(events.told().await, "ADDED a");
    assert_eq!(events.told().await, "ADDED b");
    assert_eq!(events.told().await, "ADDED kube-root-ca.crt");
    let bookmark = events.next().await.unwrap();
    assert_eq!(bookmark["type"], "BOOKMARK");
    assert_eq!(bookmark["object"]["kind"], "ConfigMap");
    assert_eq!(bookmark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    let revision = bookmark["object"]["metadata"]["resourceVersion"].as_str().unwrap().to_owned();

    // The watch ends when its time is over, with a last bookmark; another one goes on from there.
    let (_, made) = raw.post(MAPS, map("c", "x")).await;
    assert_eq!(events.told().await, "ADDED c");
    let last = events.next().await.unwrap();
    assert_eq!(
        (&last["type"], &last["object"]["metadata"]["resourceVersion"]),
        (&json!("BOOKMARK"), &made["metadata"]["resourceVersion"])
    );
    assert!(events.next().await.is_none());
    let mut resumed = raw.watch(&format!("{MAPS}?watch=1&resourceVersion={revision}&timeoutSeconds=1")).await;
    assert_eq!(resumed.told().await, "ADDED c");
    assert!(resumed.next().await.is_none());
}

/// `kubectl get` asks for a table, garbage collectors and controllers for the metadata alone.
#[tokio::test]
async fn tables_and_metadata() {
    let cluster = Setup::bare().start();
    let raw = Raw::connect(&cluster).await;
    raw.post(PODS, pod("a")).await;
    let (_, table) = raw.get_as(PODS, TABLE).await;
    assert_eq!((&table["kind"], &table["apiVersion"]), (&json!("Table"), &json!("meta.k8s.io/v1")));
    let columns: Vec<&str> =
        table["columnDefinitions"].as_array().unwrap().iter().map(|column| column["name"].as_str().unwrap()).collect();
    assert_eq!(
        columns,
        ["Name", "Ready", "Status", "Restarts", "Age", "IP", "Node", "Nominated Node", "Readiness Gates"]
    );
    assert_eq!(table["rows"][0]["cells"].as_array().unwrap()[..3], [json!("a"), json!("0/1"), json!("Pending")]);
    assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    assert!(table["rows"][0]["object"]["spec"].is_null());
    let (_, whole) = raw.get_as(&format!("{PODS}?includeObject=Object"), TABLE).await;
    assert_eq!(whole["rows"][0]["object"]["spec"]["containers"][0]["name"], "c");
    let (_, bare) = raw.get_as(&format!("{PODS}/a?includeObject=None"), TABLE).await;
    assert!(bare["rows"][0]["object"].is_null(), "{bare}");

    let (_, metadata) = raw.get_as(&format!("{PODS}/a"), METADATA).await;
    assert_eq!(
        (&metadata["kind"], &metadata["metadata"]["labels"]["app"]),
        (&json!("PartialObjectMetadata"), &json!("a"))
    );
    assert!(metadata["spec"].is_null());
    let (_, list) = raw.get_as(PODS, METADATA_LIST).await;
    assert_eq!(
        (&list["kind"], &list["items"][0]["kind"]),
        (&json!("PartialObjectMetadataList"), &json!("PartialObjectMetadata"))
    );
    let mut events = raw.watch_as(&format!("{PODS}?watch=1"), METADATA).await;
    assert_eq!(events.next().await.unwrap()["object"]["kind"], "PartialObjectMetadata");
    let mut events = raw.watch_as(&format!("{PODS}?watch=1"), TABLE).await;
    raw.post(PODS, pod("b")).await;
    let (first, second) = (events.next().await.unwrap(), events.next().await.unwrap());
    assert!(first["object"]["columnDefinitions"].is_array() && second["object"]["columnDefinitions"].is_null());
    assert_eq!(refusal(&raw.get_as(PODS, "text/html").await).split(':').next(), Some("406 NotAcceptable"));
}

/// Field selectors of pods, which agents and `kubectl drain` use.
#[tokio::test]
async fn selecting_pods_by_field() {
    let cluster = Setup::simulated(2).start();
    let raw = Raw::connect(&cluster).await;
    raw.until("/api/v1/nodes", |(_, list)| names(list).len() == 2).await;
    raw.post("/apis/apps/v1/namespaces/default/deployments", deployment("web", 4)).await;
    raw.until(&format!("{PODS}?fieldSelector=status.phase%3DRunning"), |(_, list)| names(list).len() == 4).await;
    let count = async |selector: &str| {
        let (_, list) = raw.get(&format!("/api/v1/pods?fieldSelector={selector}")).await;
        names(&list).len()
    };
    assert_eq!(count("spec.nodeName%3Dsimulated-0").await, 2);
    assert_eq!(count("spec.nodeName!%3Dsimulated-0").await, 2);
    assert_eq!(count("spec.nodeName%3Dsimulated-0,status.phase%3DPending").await, 0);
    assert_eq!(count("metadata.namespace%3Dkube-system").await, 0);
}

/// The events of both groups are the same ones, each in its own words.
#[tokio::test]
async fn events_of_both_groups() {
    const CORE: &str = "/api/v1/namespaces/default/events";
    const EVENTS: &str = "/apis/events.k8s.io/v1/namespaces/default/events";
    let cluster = Setup::bare().start();
    let raw = Raw::connect(&cluster).await;
    let event = json!({
        "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": { "name": "e" }, "eventTime": "2026-01-01T00:00:00.000001Z",
        "reportingController": "c.io/c", "reportingInstance": "c-1", "action": "Starting", "reason": "Started", "type": "Normal",
        "regarding": { "apiVersion": "v1", "kind": "Pod", "name": "p", "namespace": "default" }, "note": "Started p",
    });
    let (_, list) = raw.get(EVENTS).await;
    assert_eq!((&list["kind"], &list["apiVersion"]), (&json!("EventList"), &json!("events.k8s.io/v1")));
    let revision = list["metadata"]["resourceVersion"].as_str().unwrap();
    let selected = "fieldSelector=regarding.name%3Dp";
    let mut watch = raw.watch(&format!("{EVENTS}?watch=1&resourceVersion={revision}&{selected}")).await;

    let (code, made) = raw.post(EVENTS, event.clone()).await;
    assert_eq!((code, &made["note"], &made["apiVersion"]), (201, &json!("Started p"), &json!("events.k8s.io/v1")));
    let told = watch.next().await.unwrap();
    assert_eq!((&told["type"], &told["object"]["regarding"]["name"]), (&json!("ADDED"), &json!("p")));
    let (_, core) = raw.get(&format!("{CORE}/e")).await;
    let words = [&core["apiVersion"], &core["message"], &core["involvedObject"]["name"], &core["reportingComponent"]];
    assert_eq!(words, ["v1", "Started p", "p", "c.io/c"]);

    // As client-go's recorder tells that it happened again.
    let again = json!({ "series": { "count": 2, "lastObservedTime": "2026-01-01T00:00:01.000000Z" } }).to_string();
    let media = [("content-type", "application/strategic-merge-patch+json")];
    let (code, patched) = raw.send(http::Method::PATCH, &format!("{EVENTS}/e"), &media, again.into()).await;
    assert_eq!((code, &patched["series"]["count"], &patched["note"]), (200, &json!(2), &json!("Started p")));
    assert_eq!(watch.next().await.unwrap()["object"]["series"]["count"], 2);

    let other = raw.merge(&format!("{EVENTS}/e"), json!({ "note": "other" })).await;
    assert!(refusal(&other).ends_with("message: Invalid value: \"other\": field is immutable"), "{other:?}");
    let mut odd = event;
    odd["metadata"]["name"] = "odd".into();
    odd["eventTime"] = Value::Null;
    let odd = raw.post(EVENTS, odd).await;
    assert!(refusal(&odd).ends_with("eventTime: Required value"), "{odd:?}");
    let unknown = raw.get(&format!("{EVENTS}?fieldSelector=involvedObject.name%3Dp")).await;
    assert_eq!(refusal(&unknown), "400 BadRequest: field label not supported: involvedObject.name");

    let (_, resources) = raw.get("/apis/events.k8s.io/v1").await;
    assert_eq!(resources["resources"][0]["name"], "events");
    assert_eq!(raw.delete(&format!("{EVENTS}/e"), Value::Null).await.0, 200);
    assert_eq!(raw.get(&format!("{CORE}/e")).await.0, 404);
    let (_, paths) = raw.get("/").await;
    assert!(paths["paths"].as_array().unwrap().contains(&json!("/apis/events.k8s.io/v1")), "{paths}");
}
