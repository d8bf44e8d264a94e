use expect_test::{Expect, expect};
use k8s_openapi::serde::de::DeserializeOwned;

use super::*;

/// Services and slices as YAML documents in, the rules of node `here` out.
fn check(services: &str, slices: &str, expected: Expect) {
    let services: Vec<Service> = parse(services);
    let slices: Vec<EndpointSlice> = parse(slices);
    let forward = rules(&services.iter().collect::<Vec<_>>(), &slices.iter().collect::<Vec<_>>(), "here");
    let backward = rules(&services.iter().rev().collect::<Vec<_>>(), &slices.iter().rev().collect::<Vec<_>>(), "here");
    assert_eq!(forward, backward, "the order of the input must not matter");
    expected.assert_eq(&forward.to_string());
}

fn parse<T: DeserializeOwned>(documents: &str) -> Vec<T> {
    let documents = documents.split("---\n").filter(|document| !document.trim().is_empty());
    documents.map(|document| serde_yaml::from_str(document).expect(document)).collect()
}

const WEB: &str = "
metadata: {name: web, namespace: default}
spec: {clusterIP: 10.96.0.10, ports: [{port: 80, targetPort: http}]}
";

/// A slice of `web` with these endpoints.
fn slice(endpoints: &str) -> String {
    format!(
        "
metadata: {{name: web-1, namespace: default, labels: {{kubernetes.io/service-name: web}}}}
addressType: IPv4
ports: [{{port: 8080, protocol: TCP}}]
endpoints: {endpoints}
"
    )
}

#[test]
fn ready_endpoints_of_all_slices_are_used_once() {
    let second = "
metadata: {name: web-2, namespace: default, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{port: 8080}]
endpoints:
- {addresses: [10.244.0.4]}
- {addresses: [10.244.0.2], conditions: {ready: true}}
---
metadata: {name: web-6, namespace: default, labels: {kubernetes.io/service-name: web}}
addressType: IPv6
ports: [{port: 8080}]
endpoints: [{addresses: ['fd00::1']}]
---
metadata: {name: web-other, namespace: other, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{port: 8080}]
endpoints: [{addresses: [10.244.0.9]}]
";
    let first = slice(
        "[{addresses: [10.244.0.2], conditions: {ready: true}}, {addresses: [10.244.0.3], conditions: {ready: false}}]",
    );
    check(
        WEB,
        &format!("{first}---\n{second}"),
        expect![[r#"
        tcp 10.96.0.10:80 default/web -> 10.244.0.2:8080 10.244.0.4:8080
    "#]],
    );
}

#[test]
fn endpoints_that_serve_while_they_terminate_are_the_last_resort() {
    let draining = "{addresses: [10.244.0.2], conditions: {ready: false, serving: true, terminating: true}}";
    let dead = "{addresses: [10.244.0.3], conditions: {ready: false, serving: false, terminating: true}}";
    let ready = "{addresses: [10.244.0.4], conditions: {ready: true, serving: true, terminating: false}}";
    check(
        WEB,
        &slice(&format!("[{draining}, {dead}]")),
        expect![[r#"
        tcp 10.96.0.10:80 default/web -> 10.244.0.2:8080
    "#]],
    );
    check(
        WEB,
        &slice(&format!("[{draining}, {dead}, {ready}]")),
        expect![[r#"
        tcp 10.96.0.10:80 default/web -> 10.244.0.4:8080
    "#]],
    );
}

#[test]
fn a_service_without_endpoints_refuses() {
    check(
        WEB,
        "",
        expect![[r#"
        tcp 10.96.0.10:80 default/web -> refuse
    "#]],
    );
}

#[test]
fn several_ports_and_protocols_are_matched_by_name() {
    let dns = "
metadata: {name: dns, namespace: kube-system}
spec:
  clusterIP: 10.96.0.53
  clusterIPs: [10.96.0.53]
  ports:
  - {name: dns, port: 53, protocol: UDP}
  - {name: dns-tcp, port: 53, protocol: TCP}
  - {name: metrics, port: 9153}
";
    let slices = "
metadata: {name: dns-1, namespace: kube-system, labels: {kubernetes.io/service-name: dns}}
addressType: IPv4
ports: [{name: dns, port: 1053, protocol: UDP}, {name: dns-tcp, port: 1053, protocol: TCP}]
endpoints: [{addresses: [10.244.0.5]}]
";
    check(
        dns,
        slices,
        expect![[r#"
        tcp 10.96.0.53:53 kube-system/dns:dns-tcp -> 10.244.0.5:1053
        tcp 10.96.0.53:9153 kube-system/dns:metrics -> refuse
        udp 10.96.0.53:53 kube-system/dns:dns -> 10.244.0.5:1053
    "#]],
    );
}

#[test]
fn services_without_an_address_have_no_rules() {
    let services = "
metadata: {name: headless, namespace: default}
spec: {clusterIP: None, clusterIPs: [None], ports: [{port: 80}]}
---
metadata: {name: elsewhere, namespace: default}
spec: {type: ExternalName, externalName: example.org, ports: [{port: 80}]}
---
metadata: {name: too-early, namespace: default}
spec: {ports: [{port: 80}]}
---
metadata: {name: six, namespace: default}
spec: {clusterIP: 'fd00::1', clusterIPs: ['fd00::1'], ports: [{port: 80}]}
---
metadata: {name: dual, namespace: default}
spec: {clusterIP: 'fd00::2', clusterIPs: ['fd00::2', 10.96.0.20], ports: [{port: 80}]}
";
    check(
        services,
        "",
        expect![[r#"
        tcp 10.96.0.20:80 default/dual -> refuse
        not programmed: default/six: cluster address fd00::1 is not an IPv4 address
    "#]],
    );
}

#[test]
fn node_ports_affinity_and_policies() {
    let services = "
metadata: {name: web, namespace: default}
spec: {type: NodePort, clusterIP: 10.96.0.10, sessionAffinity: ClientIP, ports: [{port: 80, nodePort: 30080}]}
---
metadata: {name: edge, namespace: default}
spec:
  type: LoadBalancer
  clusterIP: 10.96.0.11
  externalTrafficPolicy: Local
  sessionAffinity: ClientIP
  sessionAffinityConfig: {clientIP: {timeoutSeconds: 60}}
  ports: [{port: 80, nodePort: 30081}]
---
metadata: {name: inside, namespace: default}
spec: {clusterIP: 10.96.0.12, internalTrafficPolicy: Local, ports: [{port: 80}]}
";
    let endpoints = "[{addresses: [10.244.0.2], nodeName: here}, {addresses: [10.244.1.2], nodeName: there}]";
    let slices = ["web", "edge", "inside"]
        .map(|name| slice(endpoints).replace("service-name: web", &format!("service-name: {name}")));
    check(
        services,
        &slices.join("---\n"),
        expect![[r#"
        tcp node:30080 default/web -> 10.244.0.2:8080 10.244.1.2:8080 affinity 10800s masquerade
        tcp node:30081 default/edge -> 10.244.0.2:8080 affinity 60s
        tcp 10.96.0.10:80 default/web -> 10.244.0.2:8080 10.244.1.2:8080 affinity 10800s
        tcp 10.96.0.11:80 default/edge -> 10.244.0.2:8080 10.244.1.2:8080 affinity 60s
        tcp 10.96.0.12:80 default/inside -> 10.244.0.2:8080
    "#]],
    );
}

#[test]
fn what_cannot_be_programmed_is_said() {
    let services = "
metadata: {name: a, namespace: default}
spec: {clusterIP: 10.96.0.10, externalIPs: [192.0.2.1], ports: [{port: 80}, {name: odd, port: 81, protocol: DCCP}]}
---
metadata: {name: b, namespace: default}
spec: {clusterIP: 10.96.0.10, ports: [{port: 80}, {name: none, port: 0}]}
---
metadata: {name: web, namespace: default}
spec: {clusterIP: 10.96.0.13, ports: [{port: 443}]}
";
    check(
        services,
        &slice("[{addresses: [127.0.0.1]}]"),
        expect![[r#"
        tcp 10.96.0.10:80 default/a -> refuse
        tcp 10.96.0.13:443 default/web -> refuse
        not programmed: default/a: spec.externalIPs are not routed by this proxy; use the cluster address or a node port
        not programmed: default/a:odd: protocol DCCP is not known
        not programmed: default/b: tcp 10.96.0.10:80 is already taken by default/a
        not programmed: default/b:none: 0 is not a port number
        not programmed: default/web: endpoint 127.0.0.1:8080 cannot be reached from other pods and is left out
    "#]],
    );
}

#[test]
fn ports_of_the_node_lead_to_pods() {
    let services: Vec<Service> = parse(
        "
metadata: {namespace: default, name: web}
spec: {clusterIP: 10.96.0.10, type: NodePort, ports: [{port: 80, nodePort: 30080}]}
",
    );
    let mut set = rules(&services.iter().collect::<Vec<_>>(), &[], "here");
    let asked = [
        ("TCP", "0.0.0.0", 8080),
        ("UDP", "10.0.0.1", 8080),
        ("TCP", "0.0.0.0", 30080),
        ("TCP", "::1", 80),
        ("TCP", "0.0.0.0", 0),
    ];
    let ports = asked.iter().filter_map(|(protocol, address, port)| Frontend::of_node(protocol, address, *port));
    set.lead(&ports.map(|port| (port, "10.244.0.7:80".parse().unwrap())).collect());
    expect![[r#"
        tcp node:8080 hostPort of 10.244.0.7:80 -> 10.244.0.7:80
        tcp node:30080 default/web -> refuse masquerade
        udp 10.0.0.1:8080 hostPort of 10.244.0.7:80 -> 10.244.0.7:80
        tcp 10.96.0.10:80 default/web -> refuse
        not programmed: hostPort of 10.244.0.7:80: tcp node:30080 is already taken by default/web
    "#]]
    .assert_eq(&set.to_string());
}

#[test]
fn a_node_answers_what_no_pod_does() {
    let address: Ipv4Addr = "10.96.0.10".parse().unwrap();
    let frontend = |protocol, port| Frontend { address: Some(address), protocol, port };
    let here = BTreeMap::from([
        (frontend(Protocol::Udp, 53), "10.244.0.1:4000".parse().unwrap()),
        (frontend(Protocol::Tcp, 53), "10.244.0.1:5000".parse().unwrap()),
    ]);
    let shown = |services: &str, slices: &str| {
        let services: Vec<Service> = parse(services);
        let slices: Vec<EndpointSlice> = parse(slices);
        let mut set = rules(&services.iter().collect::<Vec<_>>(), &slices.iter().collect::<Vec<_>>(), "here");
        set.answer_here(&here);
        set.to_string()
    };
    expect![[r#"
        tcp 10.96.0.10:53 this node -> 10.244.0.1:5000
        udp 10.96.0.10:53 this node -> 10.244.0.1:4000
    "#]]
    .assert_eq(&shown("", ""));
    let service = "
metadata: {name: kube-dns, namespace: kube-system}
spec: {clusterIP: 10.96.0.10, ports: [{name: dns, port: 53, protocol: UDP}, {name: dns-tcp, port: 53}, {name: metrics, port: 9153}]}
";
    expect![[r#"
        tcp 10.96.0.10:53 kube-system/kube-dns:dns-tcp -> 10.244.0.1:5000
        tcp 10.96.0.10:9153 kube-system/kube-dns:metrics -> refuse
        udp 10.96.0.10:53 kube-system/kube-dns:dns -> 10.244.0.1:4000
    "#]]
    .assert_eq(&shown(service, ""));
    let slice = "
metadata: {name: kube-dns-1, namespace: kube-system, labels: {kubernetes.io/service-name: kube-dns}}
addressType: IPv4
ports: [{name: dns, port: 53, protocol: UDP}, {name: dns-tcp, port: 53}]
endpoints: [{addresses: [10.244.0.7]}]
";
    expect![[r#"
        tcp 10.96.0.10:53 kube-system/kube-dns:dns-tcp -> 10.244.0.7:53
        tcp 10.96.0.10:9153 kube-system/kube-dns:metrics -> refuse
        udp 10.96.0.10:53 kube-system/kube-dns:dns -> 10.244.0.7:53
    "#]]
    .assert_eq(&shown(service, slice));
}
