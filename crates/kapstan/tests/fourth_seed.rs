//! The fourth seed, command by command: create, look, update, failed update, undo, scale, pause and resume.

use std::fs;

use crate::cluster::{Cluster, Kubectl, Setup};
use crate::transcript;

/// The seed's updates show one pod becoming ready after the other, so the two nodes are not equally fast.
fn profile(time_to_ready: &str) -> String {
    format!(
        "images:\n- {{image: 'nginx:1.161', unpullable: true, pullTime: 50ms}}\n\
         - {{image: 'nginx:*', startTime: 20ms, timeToReady: {time_to_ready}, stopTime: 50ms}}\nevents: true\n"
    )
}

fn cluster() -> Cluster {
    let cluster = Setup::bare().joined("knode2", &profile("300ms")).joined("knode3", &profile("500ms")).start();
    let manifest = transcript::folder().join("nginx-deploy.yaml");
    fs::copy(manifest, cluster.folder().join("nginx-deploy.yaml")).unwrap();
    cluster
}

#[test]
fn with_current_kubectl() {
    let Some(kubectl) = Kubectl::current() else { return };
    transcript::play("fourth-seed.txt", &cluster(), &kubectl);
}

#[test]
fn with_kubectl_1_20() {
    let Some(kubectl) = Kubectl::old() else { return };
    transcript::play("fourth-seed-kubectl-1.20.txt", &cluster(), &kubectl);
}
