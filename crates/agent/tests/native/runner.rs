//! Runs each test in a process and namespaces of its own, and looks for what it left.

use crate::{room::Room, speed, tests, user_namespace};
use agent::runtime::SandboxSpec;
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    sys::{
        prctl,
        signal::{Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    pin::Pin,
    process::Command,
    time::{Duration, Instant},
};

pub type Test = fn(Room) -> Pin<Box<dyn Future<Output = ()>>>;

/// A test that takes longer hangs.
const TEST_MAX: Duration = Duration::from_secs(120);

/// Name of the test that has to fail: it shows that what a test leaves behind is found and removed.
const PANICS: &str = "a_panic_leaves_nothing";

fn all() -> Vec<(&'static str, Test)> {
    let mut all = tests::all();
    all.push(("speed", speed::speed));
    all.push((PANICS, |room| Box::pin(tests::panics(room))));
    all
}

/// The tests whose names contain one of `filters`; all, without a filter.
pub fn run_all(filters: &[String]) -> i32 {
    let filters: Vec<&String> = filters.iter().filter(|filter| !filter.starts_with('-')).collect();
    let wanted = |name: &str| filters.is_empty() || filters.iter().any(|filter| name.contains(filter.as_str()));
    prctl::set_child_subreaper(true).unwrap();
    let in_rooms = all().into_iter().map(|(name, _)| (name, "--in-room"));
    let in_user_namespaces = user_namespace::all().into_iter().map(|(name, _)| (name, "--in-user-namespace"));
    let (mut passed, mut skipped, mut failed) = (0, 0, Vec::new());
    for (name, verb) in in_rooms.chain(in_user_namespaces).filter(|(name, _)| wanted(name)) {
        if verb == "--in-room" && !nix::unistd::geteuid().is_root() {
            println!("test {name} ... skipped: needs root");
            skipped += 1;
            continue;
        }
        let start = Instant::now();
        match run_one(name, verb) {
            Ok(()) => {
                passed += 1;
                println!("test {name} ... ok ({} ms)", start.elapsed().as_millis());
            }
            Err(why) => {
                println!("test {name} ... FAILED: {why}");
                failed.push(name);
            }
        }
    }
    let verdict = if failed.is_empty() { "ok" } else { "FAILED" };
    println!("\nfailed: {failed:?}");
    println!("test result: {verdict}. {passed} passed; {} failed; {skipped} ignored", failed.len());
    i32::from(!failed.is_empty())
}

fn run_one(name: &str, verb: &str) -> Result<(), String> {
    let folder = tempfile::Builder::new().prefix(&format!("kapstan-{name}-")).tempdir().unwrap();
    let mut child = Command::new("/proc/self/exe").args([verb, name]).arg(folder.path()).spawn().unwrap();
    let deadline = Instant::now() + TEST_MAX;
    let status = loop {
        match child.try_wait().unwrap() {
            Some(status) => break status.success().then_some(()).ok_or_else(|| status.to_string()),
            None if Instant::now() > deadline => {
                child.kill().unwrap();
                child.wait().unwrap();
                break Err(format!("hangs: killed after {TEST_MAX:?}"));
            }
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    let pods = pods_of(folder.path());
    let left = clean_up(folder.path());
    if name == PANICS {
        let groups: Vec<PathBuf> = pods.iter().flat_map(|uid| groups_of(uid)).collect();
        assert!(status.is_err() && left.len() > 1 && groups.is_empty() && processes_of(folder.path()).is_empty());
        return Ok(());
    }
    status.and(if left.is_empty() { Ok(()) } else { Err(format!("left behind: {left:?}")) })
}

/// Removes what a test left and says what that was.
fn clean_up(folder: &Path) -> Vec<String> {
    let mut left = Vec::new();
    for pid in processes_of(folder) {
        left.push(format!("process {pid}"));
        let _ = kill(pid, Signal::SIGKILL);
    }
    // Its orphans are ours.
    while matches!(waitpid(None, Some(WaitPidFlag::WNOHANG)), Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..))) {}
    for uid in pods_of(folder) {
        for group in groups_of(&uid) {
            left.push(format!("control group {}", group.display()));
            remove_group(&group);
        }
    }
    left
}

/// Shims have their pod's folder in their command line, and containers die with them.
fn processes_of(folder: &Path) -> Vec<Pid> {
    let text = folder.to_string_lossy();
    let of_test = |pid: &i32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        *pid != std::process::id() as i32 && String::from_utf8_lossy(&line).contains(text.as_ref())
    };
    pids().filter(of_test).map(Pid::from_raw).collect()
}

/// The pod's shim, found by its command line.
pub fn shims_of(pod: &SandboxSpec) -> Vec<i32> {
    let of_pod = |pid: &i32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(&format!("\"pod_uid\":\"{}\"", pod.uid))
    };
    pids().filter(of_pod).collect()
}

/// Processes in the pod's control groups: those of its containers.
pub fn processes_of_pod(pod: &SandboxSpec) -> Vec<i32> {
    let mut groups = groups_of(&pod.uid);
    let inner: Vec<PathBuf> =
        groups.iter().flat_map(|group| fs::read_dir(group).unwrap().filter_map(|e| Some(e.ok()?.path()))).collect();
    groups.extend(inner);
    let lists = groups.iter().filter_map(|group| fs::read_to_string(group.join("cgroup.procs")).ok());
    let all: BTreeSet<i32> =
        lists.flat_map(|list| list.lines().filter_map(|pid| pid.parse().ok()).collect::<Vec<i32>>()).collect();
    all.into_iter().collect()
}

fn pids() -> impl Iterator<Item = i32> {
    fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

fn pods_of(folder: &Path) -> Vec<String> {
    let text = fs::read_to_string(folder.join("pods.txt")).unwrap_or_default();
    text.lines().map(String::from).collect()
}

/// Control groups of a pod, in whatever hierarchy.
pub fn groups_of(uid: &str) -> Vec<PathBuf> {
    let mut places = vec![PathBuf::from("/sys/fs/cgroup")];
    places.extend(fs::read_dir("/sys/fs/cgroup").unwrap().filter_map(|entry| Some(entry.ok()?.path())));
    places.into_iter().map(|place| place.join("kapstan").join(uid)).filter(|group| group.exists()).collect()
}

/// What was killed takes a moment to leave its group.
fn remove_group(group: &Path) {
    let deadline = Instant::now() + TEST_MAX;
    for entry in fs::read_dir(group).into_iter().flatten().filter_map(Result::ok).filter(|entry| entry.path().is_dir())
    {
        remove_group(&entry.path());
    }
    while fs::remove_dir(group).is_err() && group.exists() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
        while matches!(waitpid(None, Some(WaitPidFlag::WNOHANG)), Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..)))
        {
        }
    }
}

/// Runs one test in this process, in namespaces of its own.
pub fn run_here(name: &str, folder: &Path) -> i32 {
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).unwrap();
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_PRIVATE | MsFlags::MS_REC, None::<&str>).unwrap();
    let (_, test) = all().into_iter().find(|(known, _)| *known == name).unwrap();
    run_test(test, folder)
}

/// Runs a test on a runtime of its own.
pub fn run_test(test: Test, folder: &Path) -> i32 {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async { test(Room::new(folder).await).await });
    0
}
