//! The fifth seed, command by command: a rolling update of a ReplicationController by our own command.

use std::fs;

use crate::cluster::{Cluster, Kubectl, Setup};
use crate::transcript;

const PROFILE: &str = "images:\n- {image: 'nginx:bad*', unpullable: true, pullTime: 20ms}\n\
                       - {image: 'nginx:*', startTime: 10ms, timeToReady: 30ms, stopTime: 20ms}\n";

fn cluster() -> Cluster {
    let cluster = Setup::simulated(3).profile(PROFILE).start();
    for manifest in ["my-nginx.yaml", "nginx-rc-v4.yaml"] {
        fs::copy(transcript::folder().join(manifest), cluster.folder().join(manifest)).unwrap();
    }
    cluster
}

/// What a file says, and back by the original command.
#[test]
fn by_file() {
    transcript::play("rolling-update-by-file.txt", &cluster(), &Kubectl::ours());
}

#[test]
fn fifth_seed() {
    transcript::play("rolling-update.md", &cluster(), &Kubectl::ours());
}
