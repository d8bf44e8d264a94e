use std::collections::BTreeMap;

use expect_test::expect;
use proptest::prelude::*;
use serde_json::{Value, json};

use api::endpoint_fingerprint::Near;
use api::{Kind, Pod, Propagation};
use k8s_openapi::api::core::v1::{Endpoints, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;

use crate::testing::{World, show};
use crate::{Controller, pods};

fn world(text: &str, spec: Value) -> World {
    let mut world = World::read(text);
    let mut service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": "web", "namespace": "default", "uid": "uid-service", "labels": { "team": "a" } },
        "spec": { "clusterIP": "10.96.0.7", "ipFamilies": ["IPv4"], "selector": { "app": "web" },
            "ports": [{ "name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP" }] },
    });
    for (key, value) in spec.as_object().unwrap() {
        service["spec"][key] = value.clone();
    }
    world.store(Kind::Service, service);
    world.store(
        Kind::Node,
        json!({ "metadata": { "name": "n1", "uid": "uid-n1", "labels": { "topology.kubernetes.io/zone": "z1" } } }),
    );
    world
}

fn slices(world: &World) -> String {
    let mut text = String::new();
    for slice in world.snapshot.list::<EndpointSlice>(None) {
        let ports: Vec<String> = slice
            .ports
            .iter()
            .flatten()
            .map(|port| format!("{}:{}", port.name.clone().unwrap_or_default(), port.port.unwrap_or_default()))
            .collect();
        text += &format!("{} {} [{}]\n", slice.metadata.name.as_deref().unwrap(), slice.address_type, ports.join(" "));
        for endpoint in slice.endpoints.iter().flatten() {
            let conditions = endpoint.conditions.clone().unwrap();
            let flag =
                |name: &str, value: Option<bool>| if value == Some(true) { format!(" {name}") } else { String::new() };
            text += &format!(
                "  {} {}{}{}{} on {} in {}\n",
                endpoint.addresses.join(","),
                endpoint.target_ref.as_ref().and_then(|target| target.name.as_deref()).unwrap_or("?"),
                flag("ready", conditions.ready),
                flag("serving", conditions.serving),
                flag("terminating", conditions.terminating),
                endpoint.node_name.as_deref().unwrap_or("?"),
                endpoint.zone.as_deref().unwrap_or("?"),
            );
        }
    }
    text
}

fn endpoints(world: &World) -> String {
    let Some(endpoints) = world.snapshot.get::<Endpoints>("default", "web") else { return "no endpoints\n".into() };
    let mut text = String::new();
    for subset in endpoints.subsets.iter().flatten() {
        let list = |list: &Option<Vec<k8s_openapi::api::core::v1::EndpointAddress>>| {
            list.iter().flatten().map(|address| address.ip.clone()).collect::<Vec<_>>().join(" ")
        };
        let ports: Vec<i32> = subset.ports.iter().flatten().map(|port| port.port).collect();
        text += &format!(
            "  ready {}; not ready {}; ports {ports:?}\n",
            list(&subset.addresses),
            list(&subset.not_ready_addresses)
        );
    }
    format!("endpoints {:?}\n{text}", endpoints.metadata.labels.clone().unwrap_or_default())
}

fn settled(mut world: World) -> World {
    world.wake_all();
    world.settle();
    world
}

#[test]
fn ready_and_not_ready_and_going() {
    let world = settled(world("rs web-a 2 ready 1 terminating 1 orphan", json!({})));
    expect![[r#"
        web-00001 IPv4 [http:8080]
          10.0.0.0 web-a-0 ready serving on n1 in z1
          10.0.0.1 web-a-1 on n1 in z1
          10.0.0.2 web-a-2 terminating on n1 in z1
        endpoints {"endpoints.kubernetes.io/managed-by": "endpoint-controller", "team": "a"}
          ready 10.0.0.0; not ready 10.0.0.1; ports [8080]
    "#]]
    .assert_eq(&(slices(&world) + &endpoints(&world)));
}

#[test]
fn pods_that_are_not_ready_can_be_published() {
    let world = settled(world(
        "rs web-a 2 ready 1 terminating 1 orphan",
        json!({ "publishNotReadyAddresses": true, "clusterIP": "None" }),
    ));
    expect![[r#"
        web-00001 IPv4 [http:8080]
          10.0.0.0 web-a-0 ready serving on n1 in z1
          10.0.0.1 web-a-1 ready on n1 in z1
          10.0.0.2 web-a-2 ready terminating on n1 in z1
        endpoints {"endpoints.kubernetes.io/managed-by": "endpoint-controller", "service.kubernetes.io/headless": "", "team": "a"}
          ready 10.0.0.0 10.0.0.1 10.0.0.2; not ready ; ports [8080]
    "#]].assert_eq(&(slices(&world) + &endpoints(&world)));
}

/// Endpoints that somebody wrote for a Service without a selector, and what is done to them then.
#[test]
fn endpoints_written_by_hand_are_repeated_as_slices() {
    let mut world = world("", json!({ "selector": null }));
    let by_hand = json!({
        "metadata": { "name": "web", "namespace": "default", "uid": "uid-endpoints", "labels": { "team": "b" } },
        "subsets": [
            {
                "addresses": [{ "ip": "192.0.2.1", "nodeName": "n1" }, { "ip": "2001:db8::1" }],
                "notReadyAddresses": [{ "ip": "192.0.2.2" }],
                "ports": [{ "name": "http", "port": 8080, "protocol": "TCP" }],
            },
            { "addresses": [{ "ip": "192.0.2.3" }], "ports": [{ "port": 9090, "protocol": "TCP" }] },
        ],
    });
    world.store(Kind::Endpoints, by_hand);
    let mut told = String::new();
    let mut world = settled(world);
    let slice = world.snapshot.list::<EndpointSlice>(None).next().unwrap();
    told += &format!("{:?}\n", slice.metadata.labels.as_ref().unwrap());
    let owner = &slice.metadata.owner_references.as_ref().unwrap()[0];
    told += &format!("owned by {} {}\n{}", owner.kind, owner.name, slices(&world));
    world.user_edits::<Endpoints>("web", |endpoints| {
        let subsets = endpoints.subsets.as_mut().unwrap();
        subsets.truncate(1);
        subsets[0].addresses.as_mut().unwrap().pop();
        subsets[0].not_ready_addresses = None;
    });
    world.settle();
    told += &format!("> one is left\n{}", slices(&world));
    world.user_edits::<Endpoints>("web", |endpoints| {
        let labels = endpoints.metadata.labels.get_or_insert_default();
        labels.insert("endpointslice.kubernetes.io/skip-mirror".into(), "true".into());
    });
    world.settle();
    told += &format!("> not to be repeated\n{}", slices(&world));
    world.user_edits::<Endpoints>("web", |endpoints| {
        endpoints.metadata.labels.as_mut().unwrap().remove("endpointslice.kubernetes.io/skip-mirror");
    });
    world.settle();
    told += &format!("> to be repeated\n{}", slices(&world));
    world.user_deletes(Kind::Endpoints, "web", Propagation::Background);
    world.settle();
    told += &format!("> deleted\n{}", slices(&world));
    expect![[r#"
        {"endpointslice.kubernetes.io/managed-by": "endpointslicemirroring-controller.k8s.io", "kubernetes.io/service-name": "web", "team": "b"}
        owned by Endpoints web
        web-00001 IPv4 [http:8080]
          192.0.2.1 ? ready on n1 in ?
          192.0.2.2 ? on ? in ?
        web-00002 IPv6 [http:8080]
          2001:db8::1 ? ready on ? in ?
        web-00003 IPv4 [:9090]
          192.0.2.3 ? ready on ? in ?
        > one is left
        web-00001 IPv4 [http:8080]
          192.0.2.1 ? ready on n1 in ?
        > not to be repeated
        > to be repeated
        web-00004 IPv4 [http:8080]
          192.0.2.1 ? ready on n1 in ?
        > deleted
    "#]].assert_eq(&told);
}

/// A Service that begins to select pods tells of those alone; one that is gone leaves no slice.
#[test]
fn what_was_repeated_goes_with_its_reason() {
    let repeated = || {
        let mut world = world("rs web-a 1 orphan", json!({ "selector": null }));
        let subset = json!({ "addresses": [{ "ip": "192.0.2.1" }], "ports": [{ "name": "http", "port": 8080, "protocol": "TCP" }] });
        let meta = json!({ "name": "web", "namespace": "default", "uid": "uid-endpoints" });
        world.store(Kind::Endpoints, json!({ "metadata": meta, "subsets": [subset] }));
        settled(world)
    };
    let mut world = repeated();
    let mut told = slices(&world);
    world.user_edits::<Service>("web", |service| {
        let selector = serde_json::from_value(json!({ "app": "web" })).unwrap();
        service.spec.as_mut().unwrap().selector = selector;
    });
    world.settle();
    told += &format!("> selects\n{}", slices(&world));
    let mut world = repeated();
    world.user_deletes(Kind::Service, "web", Propagation::Background);
    world.settle();
    told += &format!("> gone\n{}", slices(&world));
    expect![[r#"
        web-00001 IPv4 [http:8080]
          192.0.2.1 ? ready on ? in ?
        > selects
        web-00002 IPv4 [http:8080]
          10.0.0.0 web-a-0 ready serving on n1 in z1
        > gone
    "#]]
    .assert_eq(&told);
}

#[test]
fn named_ports_are_each_pods_own() {
    let mut world =
        world("rs web-a 3 orphan", json!({ "ports": [{ "name": "http", "port": 80, "targetPort": "web" }] }));
    for (pod, port) in [("web-a-0", 8080), ("web-a-1", 9090)] {
        world.change_pod(pod, |pod| {
            let ports = json!([{ "name": "web", "containerPort": port, "protocol": "TCP" }]);
            pod.spec.as_mut().unwrap().containers[0].ports = serde_json::from_value(ports).unwrap();
        });
    }
    let world = settled(world);
    expect![[r#"
        web-00001 IPv4 []
          10.0.0.2 web-a-2 ready serving on n1 in z1
        web-00002 IPv4 [http:8080]
          10.0.0.0 web-a-0 ready serving on n1 in z1
        web-00003 IPv4 [http:9090]
          10.0.0.1 web-a-1 ready serving on n1 in z1
        endpoints {"endpoints.kubernetes.io/managed-by": "endpoint-controller", "team": "a"}
          ready 10.0.0.0; not ready ; ports [8080]
          ready 10.0.0.1; not ready ; ports [9090]
    "#]]
    .assert_eq(&(slices(&world) + &endpoints(&world)));
}

#[test]
fn without_pods_an_empty_slice_remains() {
    let mut world = settled(world("rs web-a 1 orphan", json!({})));
    world.pod_gone("web-a-0");
    let mut text = show(&world.plan(Controller::Endpoints, Kind::Service, "web"));
    world.settle();
    world.pod_gone(&world.pods()[0].clone());
    text += &slices(&world);
    expect![[r#"
        delete EndpointSlice web-00001
        create EndpointSlice web-?
        update Endpoints web
        web-00004 IPv4 []
    "#]]
    .assert_eq(&text);
}

/// 250 pods fill three slices; one that leaves costs one write, one that comes fills the gap.
#[test]
fn few_writes() {
    let mut world = settled(world("rs web-a 250 orphan", json!({})));
    let count = |world: &World| {
        let sizes: Vec<usize> =
            world.snapshot.list::<EndpointSlice>(None).map(|slice| slice.endpoints.iter().flatten().count()).collect();
        format!("{sizes:?}")
    };
    let mut text = count(&world);
    world.set_ready("web-a-7", false);
    text += &format!("\n{}", show(&world.plan(Controller::Endpoints, Kind::Service, "web")));
    world.user_deletes(Kind::Pod, "web-a-7", Propagation::Background);
    world.pod_gone("web-a-7");
    world.settle();
    text += &count(&world);
    let new = world.snapshot.list::<Pod>(None).find(|pod| pods::node(pod).is_empty()).unwrap();
    let name = pods::name(new).to_owned();
    world.change_pod(&name, |pod| {
        pod.spec.as_mut().unwrap().node_name = Some("n1".into());
        pod.status.as_mut().unwrap().pod_ip = Some("10.0.1.1".into());
    });
    let writes = world.settle();
    text += &format!("\n{} after {writes} writes", count(&world));
    expect![[r#"
        [100, 100, 50]
        update EndpointSlice web-00003
        update Endpoints web
        [100, 100, 49]
        [100, 100, 50] after 2 writes"#]]
    .assert_eq(&text);
}

/// What takes a pod out of the proxies' rules: the moment it is asked to go it is no longer ready.
#[test]
fn a_pod_that_goes_is_not_ready_at_once() {
    let mut world = settled(world("rs web-a 1 orphan", json!({})));
    world.user_deletes(Kind::Pod, "web-a-0", Propagation::Background);
    world.settle();
    expect![[r#"
        web-00001 IPv4 [http:8080]
          10.0.0.0 web-a-0 serving terminating on n1 in z1
        endpoints {"endpoints.kubernetes.io/managed-by": "endpoint-controller", "team": "a"}
    "#]]
    .assert_eq(&(slices(&world) + &endpoints(&world)));
}

#[test]
fn all_goes_with_the_service() {
    let mut world = settled(world("rs web-a 1 orphan", json!({})));
    world.user_deletes(Kind::Service, "web", Propagation::Background);
    world.settle();
    assert_eq!(slices(&world) + &endpoints(&world), "no endpoints\n");
}

#[test]
fn what_others_wrote_is_left_alone() {
    let mut world = world("rs web-a 1 orphan", json!({ "selector": null }));
    world.store(Kind::Endpoints, json!({ "metadata": { "name": "web", "namespace": "default", "uid": "e" } }));
    world.store(Kind::Endpoints, json!({ "metadata": { "name": "stray", "namespace": "default", "uid": "s" } }));
    world.wake_all();
    assert_eq!(world.settle(), 0);
    assert_eq!(world.snapshot.count(Kind::Endpoints), 2);
}

/// Upstream: TestReconcile_TrafficDistribution, and the service changed afterwards.
#[test]
fn ready_endpoints_say_who_is_to_prefer_them() {
    let mut world = world("rs web-a 3 ready 2 orphan", json!({}));
    world.change_pod("web-a-1", |pod| pod.spec.as_mut().unwrap().node_name = Some("n2".into()));
    world.store(Kind::Node, json!({ "metadata": { "name": "n2", "uid": "uid-n2" } }));
    let mut world = settled(world);
    let mut table = String::new();
    let topology = |mode: Option<&str>| {
        mode.map(|mode: &str| BTreeMap::from([("service.kubernetes.io/topology-mode".to_owned(), mode.to_owned())]))
    };
    for (distribution, mode) in [
        (None, None),
        (Some("PreferClose"), None),
        (Some("PreferSameZone"), Some("Disabled")),
        (Some("PreferSameNode"), None),
        (Some("PreferSameNode"), Some("Auto")),
        (None, None),
    ] {
        world.user_edits::<Service>("web", |service| {
            service.metadata.annotations = topology(mode);
            service.spec.as_mut().unwrap().traffic_distribution = distribution.map(str::to_owned);
        });
        let writes = world.settle();
        table += &format!("{distribution:?}, {mode:?}: {writes} writes\n");
        for endpoint in told(&world, "IPv4") {
            table += &format!("  {} {}\n", endpoint["targetRef"]["name"], endpoint["hints"]);
        }
    }
    expect![[r#"
        None, None: 0 writes
          "web-a-0" null
          "web-a-1" null
          "web-a-2" null
        Some("PreferClose"), None: 1 writes
          "web-a-0" {"forZones":[{"name":"z1"}]}
          "web-a-1" null
          "web-a-2" null
        Some("PreferSameZone"), Some("Disabled"): 0 writes
          "web-a-0" {"forZones":[{"name":"z1"}]}
          "web-a-1" null
          "web-a-2" null
        Some("PreferSameNode"), None: 1 writes
          "web-a-0" {"forNodes":[{"name":"n1"}],"forZones":[{"name":"z1"}]}
          "web-a-1" {"forNodes":[{"name":"n2"}]}
          "web-a-2" null
        Some("PreferSameNode"), Some("Auto"): 1 writes
          "web-a-0" null
          "web-a-1" null
          "web-a-2" null
        None, None: 0 writes
          "web-a-0" null
          "web-a-1" null
          "web-a-2" null
    "#]]
    .assert_eq(&table);
}

/// A node that is deleted takes what is on it out of the slices, until it is there again (upstream: reconcileByAddressType,
/// "node not found").
#[test]
fn pods_of_a_node_that_was_deleted_get_no_requests() {
    for publishes in [false, true] {
        let mut world = settled(world("rs web-a 2 orphan", json!({ "publishNotReadyAddresses": publishes })));
        let count = |world: &World| told(world, "IPv4").len();
        assert_eq!(count(&world), 2);
        world.cluster_removes(Kind::Node, "n1");
        let now = world.now;
        world.heard.tick(now);
        world.settle();
        assert_eq!((world.pods().len(), count(&world)), (2, if publishes { 2 } else { 0 }));
        world.user_creates(Kind::Node, json!({ "metadata": { "name": "n1" } }));
        world.settle();
        assert_eq!(count(&world), 2);
    }
}

#[test]
fn nothing_is_written_twice() {
    let mut world = settled(world("rs web-a 120 ready 100 orphan", json!({})));
    world.wake_all();
    assert_eq!(world.settle(), 0);
}

/// What a pod may be: its addresses, its node, its names, whether it is ready and whether it is asked to go.
type Made = (usize, usize, usize, bool, bool);

const ADDRESSES: [(&str, &[&str]); 6] = [
    ("", &[]),
    ("10.0.0.1", &[]),
    ("10.0.0.2", &["10.0.0.2"]),
    ("10.0.0.3", &["10.0.0.3", "fd00::3"]),
    ("fd00::4", &["fd00::4"]),
    ("10.0.0.5", &["10.0.0.6"]),
];
/// What each pod is at first.
const FIRST: Made = (1, 1, 0, true, false);
const PLACES: [&str; 3] = ["", "n1", "n2"];
const NAMES: [(Option<&str>, Option<&str>); 4] =
    [(None, None), (Some("h"), None), (Some("h"), Some("web")), (Some("h"), Some("other"))];

fn make(pod: &mut Pod, (addresses, node, names, ready, going): Made) {
    let (first, all) = ADDRESSES[addresses];
    let status = pod.status.as_mut().unwrap();
    status.pod_ip = Some(first.to_owned()).filter(|first| !first.is_empty());
    let all: Vec<Value> = all.iter().map(|ip| json!({ "ip": ip })).collect();
    status.pod_ips = Some(serde_json::from_value(Value::from(all)).unwrap());
    let condition = json!([{ "type": "Ready", "status": if ready { "True" } else { "False" } }]);
    status.conditions = serde_json::from_value(condition).unwrap();
    let mut spec = (**pod.spec.as_ref().unwrap()).clone();
    spec.node_name = Some(PLACES[node].to_owned()).filter(|node| !node.is_empty());
    (spec.hostname, spec.subdomain) = (NAMES[names].0.map(str::to_owned), NAMES[names].1.map(str::to_owned));
    pod.spec = Some(spec.into());
    let time = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(jiff::Timestamp::UNIX_EPOCH);
    pod.metadata.deletion_timestamp = going.then_some(time);
}

/// What has to be told of a pod, as one reads it in the words of the API.
fn expected(
    pod: &Pod,
    (addresses, node, names, ready, going): Made,
    family: &str,
    distribution: Option<&str>,
) -> Option<Value> {
    let (first, all) = ADDRESSES[addresses];
    let all = if all.is_empty() { vec![first] } else { all.to_vec() };
    let ours: Vec<&str> =
        all.into_iter().filter(|ip| !ip.is_empty() && ip.contains(':') == (family == "IPv6")).collect();
    let mut endpoint = json!({
        "addresses": ours,
        "conditions": { "ready": ready && !going, "serving": ready, "terminating": going },
        "targetRef": { "kind": "Pod", "namespace": "default", "name": pod.metadata.name, "uid": pod.metadata.uid },
    });
    if !PLACES[node].is_empty() {
        endpoint["nodeName"] = PLACES[node].into();
    }
    if PLACES[node] == "n1" {
        endpoint["zone"] = "z1".into();
    }
    if distribution.is_some() && ready && !going {
        if PLACES[node] == "n1" {
            endpoint["hints"]["forZones"] = json!([{ "name": "z1" }]);
        }
        if distribution == Some("PreferSameNode") && !PLACES[node].is_empty() {
            endpoint["hints"]["forNodes"] = json!([{ "name": PLACES[node] }]);
        }
    }
    if let (Some(name), Some("web")) = NAMES[names] {
        endpoint["hostname"] = name.into();
    }
    (!ours.is_empty() && !first.is_empty()).then_some(endpoint)
}

proptest! {
    /// Whatever pods become, and whatever others write into the slices: each pod is told once, as it is.
    #[test]
    fn slices_tell_what_is(
        steps in prop::collection::vec((0..4usize, (0..6usize, 0..3usize, 0..4usize, any::<bool>(), any::<bool>()), any::<bool>()), 1..12),
        distribution in prop::sample::select(vec![None, Some("PreferClose"), Some("PreferSameZone"), Some("PreferSameNode")]),
    ) {
        let spec = json!({ "ipFamilies": ["IPv4", "IPv6"], "trafficDistribution": distribution });
        let mut world = world("rs web-a 4 orphan", spec);
        world.store(Kind::Node, json!({ "metadata": { "name": "n2", "uid": "uid-n2" } }));
        let mut made = [FIRST; 4];
        (0..4).for_each(|number| world.change_pod(&format!("web-a-{number}"), |pod| make(pod, FIRST)));
        for (number, step, meddled) in steps {
            made[number] = step;
            world.change_pod(&format!("web-a-{number}"), |pod| make(pod, step));
            if meddled {
                meddle(&mut world);
            }
            tell(&mut world);
            for family in ["IPv4", "IPv6"] {
                let pod = |number: usize| world.snapshot.get::<Pod>("default", &format!("web-a-{number}")).unwrap();
                let wanted: Vec<Value> =
                    (0..4).filter_map(|number| expected(pod(number), made[number], family, distribution)).collect();
                prop_assert_eq!(told(&world, family), wanted);
            }
            prop_assert_eq!(world.plan(Controller::Endpoints, Kind::Service, "web").writes.len(), 0);
        }
    }
}

/// Carries out one decision about the Service.
fn tell(world: &mut World) {
    let plan = world.plan(Controller::Endpoints, Kind::Service, "web");
    plan.writes.into_iter().for_each(|write| world.carry_out(write, &mut String::new()).unwrap());
}

/// All endpoints of a family, by the names of their pods.
fn told(world: &World, family: &str) -> Vec<Value> {
    let slices = world.snapshot.list::<EndpointSlice>(None).filter(|slice| slice.address_type == family);
    let mut all: Vec<Value> =
        slices.flat_map(|slice| slice.endpoints.iter().flatten()).map(|it| serde_json::to_value(it).unwrap()).collect();
    all.sort_by_key(|endpoint| endpoint["targetRef"]["name"].as_str().unwrap().to_owned());
    all
}

/// Somebody writes hints and another zone into every slice.
fn meddle(world: &mut World) {
    let slices: Vec<EndpointSlice> = world.snapshot.list::<EndpointSlice>(None).cloned().collect();
    for mut slice in slices {
        for (number, endpoint) in slice.endpoints.iter_mut().flatten().enumerate() {
            match number % 3 {
                0 => endpoint.zone = Some("z9".into()),
                1 if number % 2 == 0 => endpoint.hints = Some(Default::default()),
                1 => endpoint.hints = api::endpoint_fingerprint::hints(Near::Node, Some("z1"), Some("n1")),
                _ => endpoint.addresses.push("10.9.9.9".into()),
            }
        }
        world.store(Kind::EndpointSlice, serde_json::to_value(slice).unwrap());
    }
}
