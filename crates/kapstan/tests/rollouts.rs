//! `rollout` and `set`: one transcript, printed by real kubectl and by our command; what is ours; in place on real containers.

use std::fs;

use crate::cluster::{Cluster, Kubectl, Setup};
use crate::transcript;

const PROFILE: &str = "images:\n- {image: 'nginx:bad*', unpullable: true, pullTime: 20ms}\n\
                       - {image: 'nginx:*', startTime: 10ms, timeToReady: 50ms, stopTime: 20ms}\nevents: true\n";

fn cluster() -> Cluster {
    let cluster = Setup::simulated(3).profile(PROFILE).start();
    for manifest in ["nginx-deploy.yaml", "nginx-ds.yaml"] {
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

/// What kubectl does not have: in place, why, details.
#[test]
fn what_is_ours() {
    transcript::play("rollout-ours.txt", &cluster(), &Kubectl::ours());
}
