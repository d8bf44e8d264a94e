//! Simulated nodes against an API in memory.

use super::{
    nodes::{POD_NETWORK, free_blocks},
    *,
};
use crate::fake_api::FakeApi;
use crate::runtime::simulated::Addresses;
use serde_json::{Value, json};
use std::net::Ipv4Addr;

struct Setup {
    api: FakeApi,
    _running: tokio_util::sync::DropGuard,
}

fn start(api: FakeApi, profile: &str) -> Setup {
    let shutdown = CancellationToken::new();
    let (client, profile) = (api.client(), Profile::parse(profile).unwrap());
    let _running = shutdown.clone().drop_guard();
    tokio::spawn(async move { run(client, 2, "sim", profile, shutdown).await });
    Setup { api, _running }
}

fn pod(name: &str, node: &str, spec: Value) -> Value {
    let mut spec = spec;
    spec["nodeName"] = json!(node);
    json!({"metadata": {"name": name, "uid": format!("uid-{name}")}, "spec": spec, "status": {"phase": "Pending"}})
}

fn web() -> Value {
    json!({"containers": [{"name": "c", "image": "web:v1"}]})
}

#[tokio::test]
async fn a_pod_takes_one_write_to_run_and_one_delete_to_go() {
    let setup = start(FakeApi::new(), "{}");
    setup.api.put(pod("a", "sim-0", web()));
    setup.api.put(pod("b", "sim-1", web()));
    setup.api.put(pod("other", "elsewhere", web()));
    setup.api.until_noted("status a: Running, Ready True").await;
    setup.api.until_noted("status b: Running, Ready True").await;
    let ip = |name: &str| setup.api.pod(name).unwrap().status.unwrap().pod_ip.unwrap();
    assert_eq!((ip("a"), ip("b")), ("10.244.1.2".into(), "10.244.2.2".into()));
    setup.api.ask_to_go("a", 30);
    setup.api.until_noted("delete a uid uid-a grace 0").await;
    assert_eq!(setup.api.noted("status").len(), 2, "{:?}", setup.api.noted(""));
    assert!(setup.api.noted("event").is_empty());
}

#[tokio::test]
async fn profiles_delay_crash_and_refuse() {
    let setup = start(
        FakeApi::new(),
        "images: [{image: '*:slow', startTime: 50ms, timeToReady: 200ms}, {image: '*:crash', crashAfter: 10ms, exitCode: 3}, {image: '*:none', unpullable: true}]",
    );
    let of = |image: &str| json!({"containers": [{"name": "c", "image": image}]});
    setup.api.put(pod("slow", "sim-0", of("web:slow")));
    setup.api.put(pod("crash", "sim-0", of("web:crash")));
    setup.api.put(pod("none", "sim-0", of("web:none")));
    setup.api.put(pod(
        "job",
        "sim-1",
        json!({"restartPolicy": "Never", "containers": [{"name": "c", "image": "job"}]}),
    ));
    for line in [
        "status slow: Pending, Ready False, c ContainerCreating",
        "status slow: Running, Ready False, c running",
        "status slow: Running, Ready True, c running",
        "status crash: Running, Ready False, c ended 3 x1",
        "status crash: Running, Ready False, c CrashLoopBackOff x1",
        "status none: Pending, Ready False, c ImagePullBackOff",
        "status job: Succeeded, Ready False, c ended 0 x0 job",
    ] {
        setup.api.until_noted(line).await;
    }
}

#[tokio::test]
async fn a_port_of_the_node_is_taken_once() {
    let setup = start(FakeApi::new(), "{}");
    let with = |port: Value| json!({"containers": [{"name": "c", "image": "web", "ports": [port]}]});
    let every = || with(json!({"containerPort": 80, "hostPort": 8080}));
    setup.api.put(pod("first", "sim-0", every()));
    setup.api.until_noted("status first: Running, Ready True").await;
    setup.api.put(pod("elsewhere", "sim-1", every()));
    setup.api.put(pod("second", "sim-0", with(json!({"containerPort": 80, "hostPort": 8080, "hostIP": "10.0.0.1"}))));
    setup.api.until_noted("status elsewhere: Running, Ready True").await;
    setup.api.until_noted("status second: Failed").await;
    assert_eq!(setup.api.pod("second").unwrap().status.unwrap().reason.as_deref(), Some("NodePorts"));
    setup.api.ask_to_go("first", 1);
    setup.api.until_noted("delete first").await;
    setup.api.put(pod("third", "sim-0", every()));
    setup.api.until_noted("status third: Running, Ready True").await;
}

#[tokio::test]
async fn an_image_changes_in_place_with_one_write() {
    let setup = start(FakeApi::new(), "{}");
    setup.api.put(pod("a", "sim-0", web()));
    setup.api.until_noted("c running x0 web:v1").await;
    setup.api.edit("a", |pod| pod["spec"]["containers"][0]["image"] = json!("web:v2"));
    setup.api.until_noted("status a: Running, Ready True, c running x1 web:v2").await;
    assert_eq!(setup.api.noted("status").len(), 2);
}

#[tokio::test]
async fn a_new_process_takes_pods_over_as_they_are() {
    let api = FakeApi::new();
    {
        let setup = start(api.clone(), "{}");
        setup.api.put(pod("a", "sim-0", web()));
        setup.api.until_noted("status a: Running, Ready True").await;
    }
    let before = api.pod("a").unwrap().status.unwrap();
    let setup = start(api, "{}");
    setup.api.put(pod("b", "sim-0", web()));
    setup.api.until_noted("status b: Running, Ready True").await;
    assert_eq!(setup.api.pod("a").unwrap().status.unwrap().container_statuses, before.container_statuses);
    assert_eq!(setup.api.pod("b").unwrap().status.unwrap().pod_ip.unwrap(), "10.244.1.3");
    setup.api.ask_to_go("a", 30);
    setup.api.until_noted("delete a").await;
}

#[tokio::test]
async fn refused_writes_are_tried_again() {
    let api = FakeApi::new();
    api.refuse("PATCH /api/v1/namespaces/ns/pods/a/status", 409);
    for _ in 0..3 {
        api.refuse("DELETE /api/v1/namespaces/ns/pods/a", 503);
    }
    let setup = start(api, "{}");
    setup.api.put(pod("a", "sim-0", web()));
    setup.api.until_noted("status a: Running, Ready True").await;
    setup.api.ask_to_go("a", 1);
    setup.api.until_noted("delete a").await;
}

#[test]
fn nodes_share_the_pod_network() {
    let taken = [(POD_NETWORK, 24), (POD_NETWORK + 512, 24)];
    let few = free_blocks(3, &taken);
    let text: Vec<_> =
        few.iter().map(|(base, prefix)| Addresses::new(Ipv4Addr::from_bits(*base), *prefix).cidr()).collect();
    assert_eq!(text, ["10.244.1.0/24", "10.244.3.0/24", "10.244.4.0/24"]);
    let many = free_blocks(1_000, &taken);
    assert_eq!((many.len(), many[0].1), (1_000, 26));
}
