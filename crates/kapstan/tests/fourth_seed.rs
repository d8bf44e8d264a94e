//! The fourth seed, command by command: create, look, update, failed update, undo, scale, pause and resume.

use std::fs;

use crate::cluster::{Cluster, Kubectl, Setup};
use crate::transcript;

/// The seed's updates show one pod becoming ready after the other, so the two nodes are not equally fast; and slow enough
/// for `rollout status` to see the first update from its beginning.
fn profile(time_to_ready: &str, first_update: &str) -> String {
    format!(
        "images:\n- {{image: 'nginx:1.161', unpullable: true, pullTime: 50ms}}\n\
         - {{image: 'nginx:1.16.1', startTime: 20ms, timeToReady: {first_update}, stopTime: 50ms}}\n\
         - {{image: 'nginx:*', startTime: 20ms, timeToReady: {time_to_ready}, stopTime: 50ms}}\nevents: true\n"
    )
}

fn cluster() -> Cluster {
    let cluster =
        Setup::bare().joined("knode2", &profile("200ms", "3s")).joined("knode3", &profile("300ms", "4s")).start();
    let manifest = transcript::folder().join("nginx-deploy.yaml");
    fs::copy(manifest, cluster.folder().join("nginx-deploy.yaml")).unwrap();
    cluster
}

#[test]
fn with_current_kubectl() {
    let Some(kubectl) = Kubectl::current() else { return };
    transcript::play("deployment.md", &cluster(), &kubectl);
}

#[test]
fn with_our_command() {
    transcript::play("deployment.md", &cluster(), &Kubectl::ours());
}

#[test]
fn with_kubectl_1_20() {
    let Some(kubectl) = Kubectl::old() else { return };
    transcript::play("fourth-seed-kubectl-1.20.txt", &cluster(), &kubectl);
}

/// `get -w` prints a line for every step, and only new lines after the first look.
#[test]
fn watching_an_update_that_fails() {
    let Some(kubectl) = Kubectl::current() else { return };
    let cluster = cluster();
    assert!(
        cluster.shell(&kubectl, "kubectl apply -f nginx-deploy.yaml && kubectl rollout status deploy").status.success()
    );
    let pods = cluster.watch(&kubectl, &["get", "pods", "-w"]);
    let sets = cluster.watch(&kubectl, &["get", "rs", "-w", "--no-headers"]);
    assert_eq!(pods.until(|lines| lines.len() == 5).iter().filter(|line| line.contains(" 1/1 ")).count(), 4);
    assert_eq!(sets.until(|lines| lines.len() == 1).len(), 1);
    assert!(cluster.shell(&kubectl, "kubectl set image deploy nginx-deploy nginx=nginx:1.161").status.success());

    let backing_off = |lines: &[String]| lines.iter().filter(|line| line.contains("ImagePullBackOff")).count();
    let seen = pods.until(|lines| 2 <= backing_off(lines));
    let name = seen.iter().find(|line| line.contains("ImagePullBackOff")).unwrap().split_whitespace().next().unwrap();
    let mut told: Vec<&str> =
        seen.iter().filter(|line| line.starts_with(name)).map(|line| line.split_whitespace().nth(2).unwrap()).collect();
    told.dedup();
    assert_eq!(told, ["Pending", "ContainerCreating", "ErrImagePull", "ImagePullBackOff"]);

    // The new set goes to two pods, the old one down to three; neither says anything twice.
    let counts =
        |line: &String| line.split_whitespace().skip(1).take(3).map(str::to_owned).collect::<Vec<_>>().join(" ");
    let seen = sets.until(|lines| {
        lines.iter().any(|line| counts(line) == "2 2 0") && lines.iter().any(|line| counts(line) == "3 3 3")
    });
    assert!(
        seen.iter().all(
            |line| ["1 0 0", "2 0 0", "2 1 0", "2 2 0", "1 1 0", "3 4 4", "3 3 3"].contains(&counts(line).as_str())
        ),
        "{seen:#?}"
    );
}
