//! How long rules take to be made, in a network namespace of its own, which needs root: `cargo bench -p proxy`.
#![allow(clippy::unwrap_used, reason = "these are tests, in functions of their own")]

#[path = "../tests/node/mod.rs"]
mod node;

use std::{net::SocketAddrV4, time::Duration};

use k8s_openapi::api::{core::v1::Service, discovery::v1::EndpointSlice};
use node::{Layout, Node, apply, service, slices};

fn backend(service: usize, number: usize) -> SocketAddrV4 {
    let host = service * 3 + number;
    SocketAddrV4::new([10, 244, (host / 250) as u8, (host % 250) as u8 + 1].into(), 8080)
}

fn cluster(services: usize) -> (Vec<Service>, Vec<Vec<EndpointSlice>>) {
    let name = |n: usize| format!("web{n}");
    let address = |n: usize| [10, 96, (n / 250) as u8, (n % 250) as u8 + 1];
    let all = (0..services).map(|n| service(&name(n), address(n), "TCP", 80)).collect();
    let endpoints =
        (0..services).map(|n| slices(&name(n), "TCP", &[backend(n, 0), backend(n, 1), backend(n, 2)])).collect();
    (all, endpoints)
}

fn main() {
    let Some(node) = Node::new(Layout::Routed) else {
        eprintln!("this user may make no network namespace: nothing is measured");
        return;
    };
    println!("| services | full | add one service | swap one backend | one backend less | nothing changed |");
    println!("|---|---|---|---|---|---|");
    for count in [10, 1000, 5000] {
        let (services, endpoints) = cluster(count + 1);
        let flat = |endpoints: &[Vec<EndpointSlice>]| endpoints.iter().flatten().cloned().collect::<Vec<_>>();
        let all = flat(&endpoints[..count]);
        let mut full = Vec::new();
        for _ in 0..5 {
            let mut proxy = node.proxy();
            full.push(apply(&mut proxy, &services[..count], &all).took);
        }
        let mut proxy = node.proxy();
        apply(&mut proxy, &services[..count], &all);
        let (mut add, mut swap, mut less, mut nothing) = (vec![], vec![], vec![], vec![]);
        let more = flat(&endpoints);
        let mut swapped = endpoints[..count].to_vec();
        swapped[count / 2] = slices(
            &format!("web{}", count / 2),
            "TCP",
            &[backend(count / 2, 0), backend(9000, 0), backend(count / 2, 2)],
        );
        let mut fewer = endpoints[..count].to_vec();
        fewer[count / 2].pop();
        let (swapped, fewer) = (flat(&swapped), flat(&fewer));
        for _ in 0..15 {
            add.push(apply(&mut proxy, &services, &more).took);
            apply(&mut proxy, &services[..count], &all);
            swap.push(apply(&mut proxy, &services[..count], &swapped).took);
            apply(&mut proxy, &services[..count], &all);
            less.push(apply(&mut proxy, &services[..count], &fewer).took);
            apply(&mut proxy, &services[..count], &all);
            nothing.push(apply(&mut proxy, &services[..count], &all).took);
        }
        let show = |mut times: Vec<Duration>| {
            times.sort();
            format!(
                "{:.2} ms (max {:.2})",
                times[times.len() / 2].as_secs_f64() * 1e3,
                times[times.len() - 1].as_secs_f64() * 1e3
            )
        };
        println!("| {count} | {} | {} | {} | {} | {} |", show(full), show(add), show(swap), show(less), show(nothing));
    }
}
