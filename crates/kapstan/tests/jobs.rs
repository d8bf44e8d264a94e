//! The stories of Job and CronJob: run to completion, by index, fail, suspend, go away in time; start by a schedule.

use std::fs;

use crate::cluster::{Cluster, Kubectl, Setup};
use crate::transcript;

/// Some work takes its time, some fails.
const PROFILE: &str = "images:\n- {image: 'sleeper:*', runTime: 1h, startTime: 10ms, stopTime: 20ms}\n\
                       - {image: '*:broken', runTime: 20ms, exitCode: 42}\n- {image: '*', startTime: 10ms}\n";

fn cluster(manifests: &[&str]) -> Cluster {
    let cluster = Setup::simulated(3).profile(PROFILE).start();
    for manifest in manifests {
        fs::copy(transcript::folder().join(manifest), cluster.folder().join(manifest)).unwrap();
    }
    cluster
}

#[test]
fn job() {
    let Some(kubectl) = Kubectl::current() else { return };
    transcript::play("job.txt", &cluster(&["indexed-job.yaml", "failing-job.yaml", "evicted-job.yaml"]), &kubectl);
}

#[test]
fn cron_job() {
    let Some(kubectl) = Kubectl::current() else { return };
    transcript::play("cron-job.txt", &cluster(&[]), &kubectl);
}
