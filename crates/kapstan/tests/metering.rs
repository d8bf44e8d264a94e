//! What is used, told and acted on: `top`, autoscaling, quota.

use std::fs;

use crate::cluster::{Cluster, Kubectl, Setup};
use crate::transcript;

/// Some containers are busy.
const PROFILE: &str = "images:\n- {image: 'busy:*', cpu: 250m, memory: 64Mi}\n";

fn cluster() -> Cluster {
    Setup::simulated(1).profile(PROFILE).joined("far", PROFILE).start()
}

/// On nodes of the server's process and on one that joined by HTTPS.
#[test]
fn top() {
    let Some(kubectl) = Kubectl::current() else { return };
    transcript::play("top.txt", &cluster(), &kubectl);
}

#[test]
fn top_by_our_own_verb() {
    transcript::play("top.txt", &cluster(), &Kubectl::ours());
}

#[test]
fn autoscaling() {
    let Some(kubectl) = Kubectl::current() else { return };
    transcript::play("autoscaling.txt", &cluster(), &kubectl);
}

#[test]
fn quota() {
    let Some(kubectl) = Kubectl::current() else { return };
    let cluster = cluster();
    fs::copy(transcript::folder().join("limits.yaml"), cluster.folder().join("limits.yaml")).unwrap();
    transcript::play("quota.txt", &cluster, &kubectl);
}
