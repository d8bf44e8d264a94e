//! `rollout` and `set`: one transcript, printed by real kubectl and by our command; what is ours; in place on real containers.

use std::fs;

use crate::cluster::{Cluster, Kubectl, Setup, skipped};
use crate::transcript;

const PROFILE: &str = "images:\n- {image: 'nginx:bad*', unpullable: true, pullTime: 20ms}\n\
                       - {image: 'nginx:*', startTime: 10ms, timeToReady: 50ms, stopTime: 20ms}\nevents: true\n";

/// Slow enough to be watched.
const SLOW: &str =
    "images:\n- {image: 'nginx:*', pullTime: 300ms, startTime: 600ms, timeToReady: 700ms, stopTime: 600ms}\n";

fn cluster() -> Cluster {
    cluster_of(3, PROFILE)
}

fn cluster_of(nodes: usize, profile: &str) -> Cluster {
    let cluster = Setup::simulated(nodes).profile(profile).start();
    let manifests = ["nginx-deploy.yaml", "nginx-ds.yaml", "web-sts.yaml", "limits.yaml"];
    for manifest in manifests.into_iter().chain(["example-pod.yaml", "example-deployment.yaml"]) {
        fs::copy(transcript::folder().join(manifest), cluster.folder().join(manifest)).unwrap();
    }
    cluster
}

#[test]
fn verbs_by_kubectl() {
    let Some(kubectl) = Kubectl::current() else { return };
    transcript::play("rollout-verbs.txt", &cluster(), &kubectl);
}

#[test]
fn verbs_by_our_command() {
    transcript::play("rollout-verbs.txt", &cluster(), &Kubectl::ours());
}

/// The server is killed while a rollout is watched, and started again.
#[test]
fn a_rollout_is_followed_through_a_restart() {
    let mut cluster = cluster_of(1, PROFILE);
    let ours = Kubectl::ours();
    let run = |cluster: &Cluster, line: &str| {
        let output = cluster.shell(&ours, line);
        assert!(output.status.success(), "{line}: {output:?}");
    };
    run(&cluster, "kubectl create deployment web --image=nginx:bad");
    let status = cluster.watch(&ours, &["rollout", "status", "deployment/web"]);
    status.until(|lines| lines.iter().any(|line| line.starts_with("Waiting for deployment \"web\" rollout")));
    cluster.kill();
    cluster.restart();
    run(&cluster, "kubectl set image deployment/web nginx=nginx:1.7.9");
    status.until(|lines| lines.iter().any(|line| line == "deployment \"web\" successfully rolled out"));
}

/// What kubectl does not have: plan, why, details.
#[test]
fn planned_explained_remembered() {
    transcript::play("rollouts.md", &cluster(), &Kubectl::ours());
}

/// Plans say what quotas, limit ranges and budgets let happen.
#[test]
fn planned_within_bounds() {
    transcript::play("plan-bounds.txt", &cluster(), &Kubectl::ours());
}

/// DaemonSets and StatefulSets are remembered as Deployments are.
#[test]
fn sets_remembered() {
    transcript::play("history-of-sets.txt", &cluster(), &Kubectl::ours());
}

/// The third seed, and its program as a command.
#[test]
fn in_place() {
    transcript::play("in-place.md", &cluster_of(1, PROFILE), &Kubectl::ours());
}

/// How many pods, and what it does not go with.
#[test]
fn in_place_within_bounds() {
    transcript::play("in-place-bounds.txt", &cluster_of(1, PROFILE), &Kubectl::ours());
}

/// Columns of the terminal that the live view is shown on.
const COLUMNS: usize = 100;

/// On a terminal `rollout status` is a picture that changes; every picture is recorded. `UPDATE_EXPECT=1` keeps the recording in the
/// guide.
#[test]
fn live_view() {
    let cluster = cluster_of(3, SLOW);
    let ours = Kubectl::ours();
    assert!(
        cluster.shell(&ours, "kubectl apply -f nginx-deploy.yaml && kubectl rollout status deploy").status.success()
    );
    assert!(cluster.shell(&ours, "kubectl set image deployment/nginx-deploy nginx=nginx:1.9.1").status.success());
    let look = format!("stty rows 40 cols {COLUMNS}; kubectl rollout status deployment/nginx-deploy --timeout=60s");
    let shown = cluster.shell(&ours, &format!("script -qec '{look}' recording"));
    if shown.status.code() == Some(127) {
        return skipped("no pseudo-terminal: `script` of util-linux is missing");
    }
    assert!(shown.status.success(), "{shown:?}");
    let frames = frames(&fs::read_to_string(cluster.folder().join("recording")).unwrap());
    let last = frames.last().unwrap();
    assert!(last.contains("deployment \"nginx-deploy\" successfully rolled out"), "{last}");
    for seen in [
        "revision 1  nginx:latest",
        "revision 2  nginx:1.9.1",
        "▒",
        "█",
        "ContainerCreating",
        "why: ",
        "to the deadline",
    ] {
        assert!(frames.iter().any(|frame| frame.contains(seen)), "{seen} is never shown:\n{}", frames.join("\n\n"));
    }
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(transcript::guide().join("live-view.txt"), frames.join("\n\n") + "\n").unwrap();
    }
}

/// The different pictures of a recording, without the sequences that move the cursor.
fn frames(recording: &str) -> Vec<String> {
    let body: String = recording.lines().filter(|line| !line.starts_with("Script ")).collect();
    let mut frames: Vec<String> = Vec::new();
    for part in body.split("\u{1b}[2K").map(plain).filter(|part| !part.trim().is_empty()) {
        let letters: Vec<char> = part.chars().collect();
        let lines = letters.chunks(COLUMNS).map(|line| line.iter().collect::<String>().trim_end().to_owned());
        let frame = lines.collect::<Vec<_>>().join("\n").trim_end().to_owned();
        if frames.last() != Some(&frame) {
            frames.push(frame);
        }
    }
    frames
}

fn plain(text: &str) -> String {
    let mut plain = String::new();
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\u{1b}' => drop(letters.by_ref().find(char::is_ascii_alphabetic)),
            letter if letter.is_control() => {}
            letter => plain.push(letter),
        }
    }
    plain
}
