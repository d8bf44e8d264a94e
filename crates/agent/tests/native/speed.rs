//! How long the steps take, printed: `cargo test -p agent --test native speed`.

use crate::{room::Room, runner::shims_of};
use std::{pin::Pin, time::Duration, time::Instant};

/// Rounds measured.
const ROUNDS: usize = 30;
/// Pods started together.
const PODS: usize = 60;
/// A pod must start faster than this, here, on a busy machine, in a debug build.
const BOUND: Duration = Duration::from_millis(500);

pub fn speed(room: Room) -> Pin<Box<dyn Future<Output = ()>>> {
    Box::pin(async {
        let room = one_by_one(room).await;
        all_at_once(room).await;
    })
}

async fn one_by_one(room: Room) -> Room {
    let mut steps: [Vec<Duration>; 5] = Default::default();
    let mut memory = 0;
    for round in 0..ROUNDS {
        let pod = room.pod(&format!("speed-{round}"));
        let container = room.shell(&pod, "trap 'exit 0' QUIT; echo up; while :; do sleep 0.01; done");
        let start = Instant::now();
        room.native.start_sandbox(&pod).await.unwrap();
        let sandbox = start.elapsed();
        let seen = room.native.start_container(&container).await.unwrap();
        let both = start.elapsed();
        crate::room::until_logged(&container, "up").await;
        let before_exec = Instant::now();
        room.native.exec(&pod.uid, &seen.id, &["true".into()], crate::room::SOON).await.unwrap();
        let exec = before_exec.elapsed();
        memory = shims_of(&pod).into_iter().map(private_kib).next().unwrap();
        let before_stop = Instant::now();
        room.native.stop_container(&pod.uid, &seen.id, crate::room::SOON).await.unwrap();
        room.native.stop_sandbox(&pod.uid).await.unwrap();
        for (times, time) in steps.iter_mut().zip([sandbox, both - sandbox, both, exec, before_stop.elapsed()]) {
            times.push(time);
        }
    }
    for (what, times) in
        ["sandbox", "container", "sandbox + container", "exec true", "stop both"].iter().zip(&mut steps)
    {
        times.sort();
        println!(
            "  {what:20} p50 {:6.1?}  p90 {:6.1?}  max {:6.1?}",
            times[ROUNDS / 2],
            times[ROUNDS * 9 / 10],
            times[ROUNDS - 1]
        );
    }
    println!("  memory that a shim has for itself: {memory} KiB");
    assert!(steps[2][ROUNDS / 2] < BOUND);
    room
}

async fn all_at_once(room: Room) {
    let pods: Vec<_> = (0..PODS).map(|n| room.pod(&format!("crowd-{n}"))).collect();
    let start = Instant::now();
    let started = async |pod| {
        room.native.start_sandbox(pod).await.unwrap();
        room.native.start_container(&room.shell(pod, "sleep 1000")).await.unwrap();
    };
    futures::future::join_all(pods.iter().map(started)).await;
    let up = start.elapsed();
    let start = Instant::now();
    futures::future::join_all(pods.iter().map(async |pod| room.native.stop_sandbox(&pod.uid).await.unwrap())).await;
    println!("  {PODS} pods at once: started in {up:.0?}, stopped in {:.0?}", start.elapsed());
}

/// Memory that only this process has.
fn private_kib(pid: i32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let lines = text.lines().filter(|line| line.starts_with("Private_"));
    lines.filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).sum()
}
