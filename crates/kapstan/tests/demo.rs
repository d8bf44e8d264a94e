//! `kapstan demo`, as a new user runs it: every promise kept, nothing left behind, also when it is interrupted.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cluster::skipped;

fn demo(scratch: &std::path::Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kapstan"));
    command.arg("demo").env("TMPDIR", scratch).stdout(Stdio::piped());
    command
}

/// Folders and mounts that the demo made in `scratch`.
fn left_behind(scratch: &std::path::Path) -> Vec<PathBuf> {
    std::fs::read_dir(scratch).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn every_promise_is_kept_and_nothing_stays() {
    let scratch = tempfile::tempdir().unwrap();
    let output = demo(scratch.path()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("Every promise was kept."), "{text}");
    if text.contains("No containers here") {
        skipped("no namespaces: the demo told its story on simulated nodes");
    } else {
        let told = |reason: &&str| text.contains(*reason);
        assert!(["ErrImagePull", "ImagePullBackOff"].iter().any(told), "{text}");
        assert!(text.contains("failed 0;"), "{text}");
    }
    assert_eq!(left_behind(scratch.path()), Vec::<PathBuf>::new());
}

#[test]
fn the_story_is_told_on_simulated_nodes_too() {
    let scratch = tempfile::tempdir().unwrap();
    let output = demo(scratch.path()).arg("--simulated").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("Every promise was kept."), "{text}");
    assert_eq!(left_behind(scratch.path()), Vec::<PathBuf>::new());
}

#[test]
fn interrupted_it_leaves_nothing() {
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let scratch = tempfile::tempdir().unwrap();
        let mut command = demo(scratch.path());
        // A group of its own: Ctrl-C reaches all of the demo's processes, and not this test.
        let mut child = std::os::unix::process::CommandExt::process_group(&mut command, 0).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let begun = lines.find(|line| line.as_ref().is_ok_and(|line| line.starts_with("2. ")));
        assert!(begun.is_some(), "the demo did not begin");
        let group = Pid::from_raw(child.id() as i32);
        let to = if signal == Signal::SIGINT { Pid::from_raw(-group.as_raw()) } else { group };
        kill(to, signal).unwrap();
        let rest: Vec<String> = lines.map_while(Result::ok).collect();
        let status = child.wait().unwrap();
        assert_eq!(status.code(), Some(130), "{signal}: {rest:?}");
        assert_eq!(left_behind(scratch.path()), Vec::<PathBuf>::new(), "{signal}");
    }
}
