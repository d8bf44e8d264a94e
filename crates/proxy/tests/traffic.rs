//! Real connections through real rules, between pods that are network namespaces.
#![allow(clippy::unwrap_used, reason = "these are tests, in functions of their own")]

mod node;

use std::{
    collections::BTreeMap,
    io::{ErrorKind, Read, Write},
    net::{SocketAddrV4, TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use expect_test::expect;
use k8s_openapi::api::core::v1::Service;
use node::{GATEWAY, Layout, Node, PATIENCE, Pod, apply, call, echo, service, slices};
use proxy::{Options, Proxy};

const WEB: SocketAddrV4 = SocketAddrV4::new(std::net::Ipv4Addr::new(10, 96, 0, 10), 80);

fn web() -> Service {
    service("web", [10, 96, 0, 10], "TCP", 80)
}

/// How often each server answers `n` calls.
fn spread(from: &Pod, to: SocketAddrV4, n: usize) -> BTreeMap<u8, usize> {
    from.space.run(move || {
        let mut seen = BTreeMap::new();
        for _ in 0..n {
            let (_, name) = call(to).unwrap_or_else(|error| panic!("call {to}: {error}"));
            *seen.entry(name).or_insert(0) += 1;
        }
        seen
    })
}

fn everything_is_reachable(layout: Layout) {
    let Some(node) = Node::new(layout) else { return };
    let pods = [node.pod(2), node.pod(3), node.pod(4)];
    let client = node.pod(5);
    let servers: Vec<_> = pods.iter().zip(b'a'..).map(|(pod, name)| pod.serve(8080, name)).collect();
    let backends: Vec<_> = servers.iter().map(|server| server.address).collect();
    let mut proxy = node.proxy();
    apply(&mut proxy, &[web()], &slices("web", "TCP", &backends));

    let seen = spread(&client, WEB, 300);
    assert_eq!(seen.len(), 3, "{seen:?}");
    assert!(seen.values().all(|count| *count > 60), "an even spread: {seen:?}");

    // The client keeps its address.
    let (connection, _) = client.space.run(|| call(WEB)).unwrap();
    assert_eq!(connection.local_addr().unwrap().ip(), client.address);

    // From the node itself, which has no default route.
    let (mut connection, _) = node.space.run(|| call(WEB)).unwrap();
    echo(&mut connection).unwrap();
    assert_eq!(connection.local_addr().unwrap().ip(), GATEWAY);

    // A pod that is itself the only backend.
    apply(&mut proxy, &[web()], &slices("web", "TCP", &backends[..1]));
    let (mut connection, name) = pods[0].space.run(|| call(WEB)).unwrap();
    echo(&mut connection).unwrap();
    assert_eq!(name, b'a');
    proxy.remove().unwrap();
}

#[test]
fn pods_with_the_node_as_gateway() {
    everything_is_reachable(Layout::Routed);
}

#[test]
fn pods_with_the_node_as_gateway_and_a_filtering_bridge() {
    everything_is_reachable(Layout::RoutedWithBridgeFilter);
}

#[test]
fn pods_on_one_link_with_a_filtering_bridge() {
    everything_is_reachable(Layout::OnLinkWithBridgeFilter);
}

#[test]
fn a_removed_backend_finishes_what_it_has_and_gets_nothing_new() {
    let Some(node) = Node::new(Layout::Routed) else { return };
    let (pods, client) = ([node.pod(2), node.pod(3)], node.pod(5));
    let servers: Vec<_> = pods.iter().zip(b'a'..).map(|(pod, name)| pod.serve(8080, name)).collect();
    let backends: Vec<_> = servers.iter().map(|server| server.address).collect();
    let mut proxy = node.proxy();
    apply(&mut proxy, &[web()], &slices("web", "TCP", &backends));
    let mut old = loop {
        let (connection, name) = client.space.run(|| call(WEB)).unwrap();
        if name == b'a' {
            break connection;
        }
    };
    let done = apply(&mut proxy, &[web()], &slices("web", "TCP", &backends[1..]));
    assert_eq!(done.changed, 1);
    assert_eq!(spread(&client, WEB, 100), BTreeMap::from([(b'b', 100)]));
    echo(&mut old).expect("the established connection goes on");
    assert_eq!(apply(&mut proxy, &[web()], &slices("web", "TCP", &backends[1..])).changed, 0);
    // A new process that knows nothing replaces all of it; connections still go on.
    let mut next = node.proxy();
    apply(&mut next, &[web()], &slices("web", "TCP", &backends[1..]));
    echo(&mut old).expect("the established connection survives a new proxy");
    drop(proxy);
}

#[test]
fn what_nobody_serves_is_refused_at_once() {
    let Some(node) = Node::new(Layout::Routed) else { return };
    let (pod, client) = (node.pod(2), node.pod(5));
    let mut proxy = node.proxy();
    let dns = service("dns", [10, 96, 0, 53], "UDP", 53);
    apply(&mut proxy, &[web(), dns], &[]);
    for space in [&client.space, &node.space] {
        for address in [[10, 96, 0, 10], [10, 96, 7, 7]] {
            let start = Instant::now();
            let to = SocketAddrV4::new(address.into(), 80);
            let error = space.run(|| call(to)).expect_err("nobody is there");
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{to}");
            assert!(start.elapsed() < Duration::from_secs(1), "refused, not timed out");
        }
        let socket = space.run(|| UdpSocket::bind("0.0.0.0:0")).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.connect("10.96.0.53:53").unwrap();
        let error = socket.send(b"x").and_then(|_| socket.recv(&mut [0; 8])).expect_err("nobody is there");
        // A process on the node itself hears it from `send`, whose packet is dropped under its hands.
        let expected = if Arc::ptr_eq(&space.0, &node.space.0) {
            ErrorKind::PermissionDenied
        } else {
            ErrorKind::ConnectionRefused
        };
        assert_eq!(error.kind(), expected);
    }
    // And is served as soon as somebody is there.
    let server = pod.serve(8080, b'a');
    apply(&mut proxy, &[web()], &slices("web", "TCP", &[server.address]));
    assert_eq!(spread(&client, WEB, 10), BTreeMap::from([(b'a', 10)]));
}

/// A UDP server that answers with its name.
fn udp_server(pod: &Pod, name: u8) -> SocketAddrV4 {
    let address = SocketAddrV4::new(pod.address, 5353);
    let socket = pod.space.run(|| UdpSocket::bind(address)).unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 16];
        while let Ok((_, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(&[name], from);
        }
    });
    address
}

#[test]
fn a_udp_client_that_keeps_its_port_moves_on() {
    let Some(node) = Node::new(Layout::Routed) else { return };
    let (pods, client) = ([node.pod(2), node.pod(3)], node.pod(5));
    let backends = [udp_server(&pods[0], b'a'), udp_server(&pods[1], b'b')];
    let dns = || service("dns", [10, 96, 0, 53], "UDP", 53);
    let mut proxy = node.proxy();
    apply(&mut proxy, &[dns()], &slices("dns", "UDP", &backends));
    let socket = client.space.run(|| UdpSocket::bind("0.0.0.0:0")).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.connect("10.96.0.53:53").unwrap();
    let ask = || {
        let mut answer = [0; 8];
        socket.send(b"?").unwrap();
        socket.recv(&mut answer).unwrap();
        answer[0]
    };
    let first = ask();
    assert_eq!([ask(), ask(), ask()], [first; 3], "a flow keeps its backend");
    let rest: Vec<_> = backends.iter().copied().filter(|b| *b != backends[usize::from(first - b'a')]).collect();
    let done = apply(&mut proxy, &[dns()], &slices("dns", "UDP", &rest));
    assert_eq!(done.forgotten_flows, 1);
    assert_ne!(ask(), first);
}

#[test]
fn a_client_stays_with_its_backend_while_it_is_there() {
    let Some(node) = Node::new(Layout::Routed) else { return };
    let (pods, client) = ([node.pod(2), node.pod(3), node.pod(4)], node.pod(5));
    let servers: Vec<_> = pods.iter().zip(b'a'..).map(|(pod, name)| pod.serve(8080, name)).collect();
    let backends: Vec<_> = servers.iter().map(|server| server.address).collect();
    let mut sticky = web();
    sticky.spec.as_mut().unwrap().session_affinity = Some("ClientIP".into());
    let sticky = [sticky];
    let mut proxy = node.proxy();
    apply(&mut proxy, &sticky, &slices("web", "TCP", &backends));
    let seen = spread(&client, WEB, 30);
    assert_eq!(seen.len(), 1, "{seen:?}");
    let name = *seen.keys().next().unwrap();

    let without_another: Vec<_> =
        backends.iter().copied().filter(|b| *b != backends[usize::from((name - b'a' + 1) % 3)]).collect();
    apply(&mut proxy, &sticky, &slices("web", "TCP", &without_another));
    assert_eq!(spread(&client, WEB, 30), BTreeMap::from([(name, 30)]), "others may go");

    let without_it: Vec<_> = backends.iter().copied().filter(|b| *b != backends[usize::from(name - b'a')]).collect();
    apply(&mut proxy, &sticky, &slices("web", "TCP", &without_it));
    let seen = spread(&client, WEB, 30);
    assert_eq!(seen.len(), 1, "one other, and that one again: {seen:?}");
    assert!(!seen.contains_key(&name));
}

#[test]
fn a_node_port_is_open_on_the_nodes_addresses() {
    let Some(node) = Node::new(Layout::Routed) else { return };
    let (pod, client) = (node.pod(2), node.pod(5));
    let server = pod.serve(8080, b'a');
    let mut open = web();
    let spec = open.spec.as_mut().unwrap();
    spec.type_ = Some("NodePort".into());
    spec.ports.as_mut().unwrap()[0].node_port = Some(30080);
    let mut proxy = node.proxy();
    apply(&mut proxy, &[open], &slices("web", "TCP", &[server.address]));
    let port = SocketAddrV4::new(GATEWAY, 30080);
    assert_eq!(spread(&client, port, 20), BTreeMap::from([(b'a', 20)]));
    node.space.run(|| call(port)).expect("from the node itself");
    assert_eq!(spread(&client, WEB, 20), BTreeMap::from([(b'a', 20)]));
}

#[test]
fn rules_that_somebody_flushed_come_back() {
    let Some(node) = Node::new(Layout::Routed) else { return };
    let (pod, client) = (node.pod(2), node.pod(5));
    let server = pod.serve(8080, b'a');
    let mut proxy = node.proxy();
    apply(&mut proxy, &[web()], &slices("web", "TCP", &[server.address]));
    assert!(proxy.verify().unwrap());
    node.proxy().remove().unwrap();
    assert!(!proxy.verify().unwrap());
    apply(&mut proxy, &[web()], &slices("web", "TCP", &[server.address]));
    assert!(proxy.verify().unwrap());
    node.proxy().remove().unwrap();
    // Without asking first: the kernel refuses the difference, so everything is written.
    apply(&mut proxy, &[web()], &slices("web", "TCP", &[server.address, SocketAddrV4::new(pod.address, 9)]));
    apply(&mut proxy, &[web()], &slices("web", "TCP", &[server.address]));
    // The route went with the table.
    drop(node.proxy());
    assert_eq!(spread(&client, WEB, 20), BTreeMap::from([(b'a', 20)]));
}

#[test]
fn the_world_outside_sees_the_nodes_address() {
    let Some(node) = Node::new(Layout::Routed) else { return };
    let (pod, outside) = (node.pod(2), node.neighbour());
    let server = pod.serve(8080, b'a');
    let mut open = web();
    let spec = open.spec.as_mut().unwrap();
    spec.ports.as_mut().unwrap()[0].node_port = Some(30080);
    let mut proxy = node.proxy();
    apply(&mut proxy, &[open], &slices("web", "TCP", &[server.address]));

    let listener = outside.space.run(|| TcpListener::bind((outside.address, 80))).unwrap();
    let _connection = pod.space.run(|| TcpStream::connect((outside.address, 80))).unwrap();
    let (_, seen) = listener.accept().unwrap();
    assert_eq!(seen.ip(), std::net::Ipv4Addr::new(192, 0, 2, 1));

    let (mut connection, _) = outside.space.run(|| call("192.0.2.1:30080".parse().unwrap())).unwrap();
    echo(&mut connection).unwrap();
}

/// A user namespace's root cannot raise the socket's bound, so a large change goes in several batches: in between, every
/// service is whole.
#[test]
fn a_change_too_large_for_one_batch_is_split() {
    let Some(node) = Node::new(Layout::Routed) else { return };
    const SERVICES: u8 = 200;
    let (pod, client) = (node.pod(2), node.pod(5));
    let servers: Vec<_> = (9001..9010).map(|port| pod.serve(port, b'a')).collect();
    let addresses: Vec<_> = servers.iter().map(|server| server.address).collect();
    let with = |from: usize, to: usize| {
        let services: Vec<_> = (0..SERVICES).map(|n| service(&format!("web{n}"), [10, 96, 1, n], "TCP", 80)).collect();
        let slices: Vec<_> =
            (0..SERVICES).flat_map(|n| slices(&format!("web{n}"), "TCP", &addresses[from..to])).collect();
        (services, slices)
    };
    let mut proxy = node.proxy();
    proxy.limit_batches(20_000);
    let (services, slices) = with(0, 3);
    apply(&mut proxy, &services, &slices);
    let (done, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let calling = client.space.spawn({
        let (done, calls) = (done.clone(), calls.clone());
        move || {
            while !done.load(Ordering::Relaxed) {
                let made = calls.load(Ordering::Relaxed);
                let n = (made * 7 % usize::from(SERVICES)) as u8;
                call(SocketAddrV4::new([10, 96, 1, n].into(), 80))
                    .unwrap_or_else(|error| panic!("call {made}: {error}"));
                calls.store(made + 1, Ordering::Relaxed);
            }
        }
    });
    // On a busy machine the caller may hardly get a turn: the changes go on until it had its calls.
    let rounds = [(0, 5), (0, 1), (1, 9), (4, 7), (3, 4), (0, 9), (0, 2)].into_iter().cycle();
    for (round, (from, to)) in rounds.enumerate().take(2_000) {
        let (services, slices) = with(from, to);
        assert_eq!(apply(&mut proxy, &services, &slices).changed, usize::from(SERVICES));
        if 70 <= round && 100 < calls.load(Ordering::Relaxed) {
            break;
        }
    }
    done.store(true, Ordering::Relaxed);
    calling.join().expect("no call failed");
    assert!(100 < calls.load(Ordering::Relaxed), "only {calls:?} calls");
}

#[test]
fn a_handshake_under_way_is_waited_for_but_not_for_ever() {
    let Some(node) = Node::new(Layout::Routed) else { return };
    let (pod, client) = (node.pod(2), node.pod(5));
    let server = pod.serve(8080, b'a');
    let nobody = SocketAddrV4::new([10, 244, 0, 77].into(), 8080);
    let mut proxy = node.proxy();
    apply(&mut proxy, &[web()], &slices("web", "TCP", &[nobody]));
    let _trying = client.space.spawn(|| drop(call(WEB)));
    // Its first packet has been sent when the kernel has drawn a backend for it.
    let sent = || {
        let flows = node.space.run(|| std::fs::read_to_string("/proc/thread-self/net/nf_conntrack"));
        flows.map_or(true, |flows| flows.contains("10.244.0.77"))
    };
    while !sent() {
        std::thread::yield_now();
    }
    let took = apply(&mut proxy, &[web()], &slices("web", "TCP", &[server.address])).took;
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert_eq!(spread(&client, WEB, 10), BTreeMap::from([(b'a', 10)]));
    let took = apply(&mut proxy, &[web()], &slices("web", "TCP", &[server.address, nobody])).took;
    assert!(took < Duration::from_millis(500), "nothing left, nothing to wait for: {took:?}");
}

#[test]
fn without_rights_it_says_what_is_missing() {
    let Some(node) = Node::new(Layout::Routed) else { return };
    let error = node.space.run(|| {
        let none = rustix::thread::CapabilitySet::empty();
        let sets = rustix::thread::CapabilitySets { effective: none, permitted: none, inheritable: none };
        rustix::thread::set_capabilities(None, sets).unwrap();
        Proxy::open(Options {
            node_name: "here".into(),
            pod_cidr: "10.244.0.0/16".parse().unwrap(),
            service_cidr: "10.96.0.0/16".parse().unwrap(),
            answered_here: BTreeMap::new(),
        })
        .err()
    });
    expect![[r#"
        the kernel refused the loopback device: Operation not permitted (os error 1); run as root, or in a network namespace of your own user namespace (CAP_NET_ADMIN)"#]]
    .assert_eq(&error.expect("no rights").to_string());
}

/// Backends are swapped as fast as it goes; each stops as soon as the proxy says that nothing new goes there.
#[test]
fn no_connection_fails_while_backends_are_swapped() {
    let Some(node) = Node::new(Layout::Routed) else { return };
    const CALLS: usize = 8000;
    const SWAPS: usize = 100;
    let pods = [node.pod(2), node.pod(3), node.pod(4)];
    let client = node.pod(5);
    let mut proxy = node.proxy();
    let mut port = 10_000;
    let mut serve = |pod: &Pod, name| {
        port += 1;
        pod.serve(port, name)
    };
    let mut servers: Vec<_> = pods.iter().map(|pod| serve(pod, b'a')).collect();
    let addresses = |servers: &[node::Server]| servers.iter().map(|server| server.address).collect::<Vec<_>>();
    apply(&mut proxy, &[web()], &slices("web", "TCP", &addresses(&servers)));

    let (calls, failures) = (Arc::new(AtomicUsize::new(0)), Arc::new(std::sync::Mutex::new(Vec::new())));
    let done = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..4)
        .map(|number| {
            let (calls, failures, done) = (calls.clone(), failures.clone(), done.clone());
            client.space.spawn(move || {
                // The first keeps each connection for many questions, over several swaps.
                let questions = if number == 0 { 200 } else { 1 };
                while !done.load(Ordering::Relaxed) {
                    let attempt = call(WEB)
                        .and_then(|(mut connection, _)| (0..questions).try_for_each(|_| echo(&mut connection)));
                    if let Err(error) = attempt {
                        failures.lock().unwrap().push(error.to_string());
                    }
                    calls.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let mut swaps = 0;
    let mut took = Vec::new();
    while calls.load(Ordering::Relaxed) < CALLS || swaps < SWAPS {
        let at = swaps % servers.len();
        let old = std::mem::replace(&mut servers[at], serve(&pods[at], b'a'));
        took.push(apply(&mut proxy, &[web()], &slices("web", "TCP", &addresses(&servers))).took);
        old.stop();
        swaps += 1;
    }
    done.store(true, Ordering::Relaxed);
    clients.into_iter().for_each(|client| client.join().unwrap());
    took.sort();
    let calls = calls.load(Ordering::Relaxed);
    eprintln!("{calls} calls, {swaps} swaps, apply p50 {:?}, longest {:?}", took[took.len() / 2], took[took.len() - 1]);
    assert_eq!(*failures.lock().unwrap(), Vec::<String>::new());
}

#[test]
fn a_client_in_the_service_sees_no_half_written_bytes() {
    let Some(node) = Node::new(Layout::Routed) else { return };
    let (pod, client) = (node.pod(2), node.pod(5));
    let server = pod.serve(8080, b'a');
    let mut proxy = node.proxy();
    apply(&mut proxy, &[web()], &slices("web", "TCP", &[server.address]));
    let (mut connection, _) = client.space.run(|| call(WEB)).unwrap();
    let sent = vec![7; 4 << 20];
    let mut writer = connection.try_clone().unwrap();
    let writing = std::thread::spawn({
        let sent = sent.clone();
        move || writer.write_all(&sent).unwrap()
    });
    let mut received = vec![0; sent.len()];
    connection.read_exact(&mut received).unwrap();
    writing.join().unwrap();
    assert_eq!(received, sent);
}
