//! The stories of the other workloads: create, scale, update, look at history, undo, delete with and without the pods.

use std::fs;

use crate::cluster::{Cluster, Kubectl, Setup};
use crate::transcript;

const PROFILE: &str = "images:\n- {image: 'nginx:bad*', unpullable: true, pullTime: 20ms}\n\
                       - {image: 'nginx:*', startTime: 10ms, timeToReady: 50ms, stopTime: 20ms}\n";

fn cluster(manifest: &str) -> Cluster {
    let cluster = Setup::simulated(3).profile(PROFILE).start();
    fs::copy(transcript::folder().join(manifest), cluster.folder().join(manifest)).unwrap();
    cluster
}

#[test]
fn daemon_set() {
    let Some(kubectl) = Kubectl::current() else { return };
    transcript::play("daemon-set.md", &cluster("nginx-ds.yaml"), &kubectl);
}

#[test]
fn stateful_set() {
    let Some(kubectl) = Kubectl::current() else { return };
    transcript::play("stateful-set.txt", &cluster("web-sts.yaml"), &kubectl);
}

#[test]
fn replication_controller() {
    let Some(kubectl) = Kubectl::current() else { return };
    transcript::play("replication-controller.txt", &cluster("nginx-rc.yaml"), &kubectl);
}

#[test]
fn nodes() {
    let Some(kubectl) = Kubectl::current() else { return };
    transcript::play("nodes.txt", &Setup::simulated(2).profile(PROFILE).start(), &kubectl);
}

#[test]
fn disruption() {
    let Some(kubectl) = Kubectl::current() else { return };
    transcript::play("disruption.txt", &Setup::simulated(2).profile(PROFILE).start(), &kubectl);
}

#[test]
fn accounts() {
    let Some(kubectl) = Kubectl::current() else { return };
    let cluster = Setup::simulated(1).profile(PROFILE).start();
    let flags = "--kubeconfig=/dev/null --insecure-skip-tls-verify";
    let script = format!("exec kubectl {flags} --server={} --token=\"$(cat token)\" \"$@\"\n", cluster.url());
    fs::write(cluster.folder().join("by-token"), script).unwrap();
    transcript::play("accounts.txt", &cluster, &kubectl);
}
