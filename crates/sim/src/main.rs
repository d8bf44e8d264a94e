//! `sim --seeds N [--from S]`, `sim --seed S [--trace]`: see `cargo xtask sim`.

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use sim::exhaustive;
use sim::zoo::{Bug, hunt, run_with};
use sim::{Ending, dream, dream_behind};

const USAGE: &str =
    "usage: sim --seeds N [--from S] [--all]     run N seeds on all cores; end at the first failure, or count them
       sim --seed S [--trace]      run one seed
       sim --behind --seeds N | --seed S      the same with controllers that see what was some seconds ago
       sim --exhaustive            search every interleaving of small rollouts
       sim --zoo [--seeds N]       put known bugs back, one by one, and count the seeds it takes to see them
       sim --bug NAME --seed S     run one seed with a bug put back";

/// Seeds within which every bug of the zoo has to show.
const ZOO_SEEDS: u64 = 10_000;

/// Runs one seed, with a trace or without.
type Run = fn(u64, bool) -> Ending;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |name: &str| {
        let at = args.iter().position(|arg| arg == name)?;
        args.get(at + 1)?.parse::<u64>().ok()
    };
    let flag = |name: &str| args.iter().any(|arg| arg == name);
    let text = |name: &str| args.get(args.iter().position(|arg| arg == name)? + 1).cloned();
    if flag("--exhaustive") {
        return everything();
    }
    if flag("--zoo") {
        return visit_zoo(number("--seeds").unwrap_or(ZOO_SEEDS), text("--bug"));
    }
    if let (Some(name), Some(seed)) = (text("--bug"), number("--seed")) {
        let Some(bug) = Bug::ALL.iter().find(|bug| bug.name() == name) else {
            eprintln!(
                "no such bug; there are: {}",
                Bug::ALL.iter().map(|bug| bug.name()).collect::<Vec<_>>().join(" ")
            );
            return ExitCode::FAILURE;
        };
        return tell(&run_with(*bug, seed, flag("--trace")));
    }
    let one: Run = if flag("--behind") { dream_behind } else { dream };
    if let Some(seed) = number("--seed") {
        return tell(&one(seed, flag("--trace")));
    }
    if let Some(count) = number("--seeds") {
        return many(number("--from").unwrap_or(1), count, flag("--all"), one);
    }
    eprintln!("{USAGE}");
    ExitCode::FAILURE
}

/// Searches all small rollouts, one line each.
fn everything() -> ExitCode {
    let mut states = 0;
    for small in exhaustive::all() {
        let begun = Instant::now();
        let searched = exhaustive::search(small);
        states += searched.states;
        let seconds = begun.elapsed().as_secs();
        println!("{small:?}: {} states, {} steps, {seconds}s", searched.states, searched.steps);
        if let Some((breach, path)) = searched.breach {
            println!("FAILED {breach}\n  after {}", path.join("\n        "));
            return ExitCode::FAILURE;
        }
    }
    println!("{states} states in all, every invariant held");
    ExitCode::SUCCESS
}

/// A row for every bug: how many seeds it took, and what broke.
fn visit_zoo(most: u64, only: Option<String>) -> ExitCode {
    let mut missed = 0;
    for bug in Bug::ALL.iter().filter(|bug| only.as_ref().is_none_or(|name| name == bug.name())) {
        match hunt(*bug, most) {
            Some(found) => {
                let invariant = found.breach.split(':').next().unwrap_or("");
                println!("| {} | {} | {} | {invariant} |", bug.name(), bug.story(), found.seeds);
            }
            None => {
                missed += 1;
                println!("| {} | {} | NOT FOUND in {most} | |", bug.name(), bug.story());
            }
        }
    }
    if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn tell(ending: &Ending) -> ExitCode {
    for line in &ending.trace {
        println!("{line}");
    }
    let Ending { seed, seconds, commits, changes, crashes, digest, .. } = ending;
    println!("seed {seed}: {seconds} virtual seconds, {commits} commits, {changes} changes, {crashes} crashes");
    println!("digest {digest:016x}");
    match &ending.breach {
        None => ExitCode::SUCCESS,
        Some(breach) => {
            println!("FAILED {breach}\nagain: cargo xtask sim --seed {seed} --trace");
            ExitCode::FAILURE
        }
    }
}

/// Runs seeds on all cores; ends at the first failure, or (`all`) counts them.
fn many(from: u64, count: u64, all: bool, one: Run) -> ExitCode {
    let begun = Instant::now();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicU64::new(from);
    let failures: Mutex<Vec<u64>> = Mutex::new(Vec::new());
    let changes = AtomicU64::new(0);
    let crashes = AtomicU64::new(0);
    let digest = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let failed = !failures.lock().expect("no holder panics").is_empty();
                    if seed >= from + count || (failed && !all) {
                        return;
                    }
                    let ending = one(seed, false);
                    changes.fetch_add(ending.changes, Ordering::Relaxed);
                    crashes.fetch_add(ending.crashes, Ordering::Relaxed);
                    // Added up, so that the order does not matter.
                    digest.fetch_add(ending.digest, Ordering::Relaxed);
                    if let Some(breach) = ending.breach {
                        println!("FAILED seed {seed}: {breach}\n  again: cargo xtask sim --seed {seed} --trace");
                        failures.lock().expect("no holder panics").push(seed);
                    }
                }
            });
        }
    });
    let run = next.load(Ordering::Relaxed).min(from + count) - from;
    let seconds = begun.elapsed().as_secs_f64();
    let each = run as f64 / seconds / cores as f64;
    println!(
        "{run} seeds, {} changes, {} crashes in {seconds:.1}s: {each:.0} seeds a second a core; digest {:016x}",
        changes.into_inner(),
        crashes.into_inner(),
        digest.into_inner()
    );
    let failures = failures.into_inner().expect("no holder panics");
    println!("{} failed", failures.len());
    if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
