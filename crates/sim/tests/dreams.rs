//! Runs of the simulator that every change has to pass. More: `cargo xtask sim`.

use sim::exhaustive::{Small, search};
use sim::zoo::{Bug, hunt};
use sim::{Ending, dream};

/// Seeds of one run of the tests.
const SEEDS: u64 = 500;
/// Bugs that show within few seeds; all of them: `cargo xtask sim --zoo`.
const QUICK: [Bug; 8] = [
    Bug::StaleCache,
    Bug::RunningAvailable,
    Bug::EndpointsKeepTerminating,
    Bug::NeverQuiet,
    Bug::LostWakeDeployment,
    Bug::BindsCordoned,
    Bug::AppendedLate,
    Bug::TornServed,
];

#[test]
fn every_promise_is_kept_in_five_hundred_clusters() {
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
    let failures: Vec<String> = std::thread::scope(|scope| {
        let run =
            |core: u64| move || (1 + core..=SEEDS).step_by(cores as usize).filter_map(failure).collect::<Vec<_>>();
        let threads: Vec<_> = (0..cores).map(|core| scope.spawn(run(core))).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

fn failure(seed: u64) -> Option<String> {
    let breach = dream(seed, false).breach?;
    Some(format!("seed {seed}: {breach}; again: cargo xtask sim --seed {seed} --trace"))
}

#[test]
fn a_seed_is_a_run() {
    for seed in 1..=5 {
        let (one, other): (Ending, Ending) = (dream(seed, true), dream(seed, true));
        assert_eq!(one.trace, other.trace);
        assert_eq!(one.digest, other.digest);
    }
}

#[test]
fn invariants_bite() {
    for bug in QUICK {
        assert!(hunt(bug, 200).is_some(), "{} was not found", bug.name());
    }
}

#[test]
fn a_small_rollout_is_right_in_every_order() {
    let searched = search(Small { replicas: 2, surge: 1, unavailable: 0, recreate: false });
    assert!(searched.breach.is_none(), "{:?}", searched.breach);
    assert!(searched.states > 100);
}
