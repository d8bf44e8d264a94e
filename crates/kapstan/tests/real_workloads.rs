//! The stories of the other workloads with real containers. DaemonSets and budgets need a second node, which is simulated:
//! one machine has one node with containers.

use std::fs;

use crate::cluster::Process;
use crate::containers::{node, staged, tools};
use crate::transcript;

/// The node that joins.
const FAR: &str = "images:\n- {image: 'nginx:bad*', unpullable: true, pullTime: 20ms}\n\
                   - {image: 'nginx:*', startTime: 10ms, timeToReady: 50ms, stopTime: 20ms}\n";

/// When the node `far-0` joins: once this command has run, or not at all.
type Joins = Option<&'static str>;

fn story(test: &str, transcript: &str, manifests: &[&str], joins: Joins) {
    if !staged(test) {
        return;
    }
    let Some(tools) = tools() else { return };
    let cluster = node(&tools);
    for manifest in manifests {
        fs::copy(transcript::folder().join(manifest), cluster.folder().join(manifest)).unwrap();
    }
    let mut far: Option<Process> = None;
    transcript::play_and(transcript, &cluster, &tools.kubectl, |command| {
        if joins == Some(command) {
            far = Some(cluster.join("far", FAR));
        }
    });
}

#[test]
fn daemon_set() {
    let joins = Some("kubectl exec ds/nginx-ds -- sh -c 'echo $NGINX_VERSION'");
    story("real_workloads::daemon_set", "real-daemon-set.txt", &["nginx-ds.yaml"], joins);
}

#[test]
fn replicas() {
    story("real_workloads::replicas", "real-replicas.txt", &["nginx-rc.yaml", "nginx-rs.yaml"], None);
}

#[test]
fn cron_job() {
    story("real_workloads::cron_job", "real-cron-job.txt", &[], None);
}

#[test]
fn disruption() {
    story(
        "real_workloads::disruption",
        "real-disruption.txt",
        &[],
        Some("kubectl get nodes -o name | sed s,node/,, > here; wc -l < here"),
    );
}

#[test]
fn autoscaling() {
    story("real_workloads::autoscaling", "real-autoscaling.txt", &["busy.yaml"], None);
}
