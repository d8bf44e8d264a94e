//! What is used, told and acted on: `top`, autoscaling, quota.

use std::fs;
use std::time::Duration;

use crate::cluster::{Cluster, Kubectl, Setup, eventually};
use crate::{containers, transcript};

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

/// What the kernel counts of real containers: one that burns cpu is told from those that wait for requests.
#[test]
fn top_of_real_containers() {
    if !containers::staged("metering::top_of_real_containers") {
        return;
    }
    let Some(tools) = containers::tools() else { return };
    let (cluster, _) = containers::nginx(&tools);
    let run = |line: &str| {
        let output = cluster.shell(&tools.kubectl, line);
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    assert!(run("kubectl run burner --image=busybox --image-pull-policy=Never -- sh -c 'while :; do :; done'").0);
    let rows = eventually(Duration::from_secs(60), || {
        let (_, printed) = run("kubectl top pods --no-headers && kubectl top nodes --no-headers");
        let rows: Vec<(String, i64, i64)> = printed.lines().filter_map(row).collect();
        let burns = rows.iter().any(|(name, cpu, _)| name == "burner" && *cpu >= 50);
        if burns && rows.len() == 6 { Ok(rows) } else { Err(printed) }
    })
    .unwrap();
    let burner = rows.iter().find(|row| row.0 == "burner").unwrap().1;
    let idle: Vec<_> = rows.iter().filter(|row| row.0.starts_with("web-")).collect();
    assert!(idle.iter().all(|(_, cpu, memory)| *cpu < burner && *memory > 0), "{rows:?}");
}

/// Name, thousandths of a core and MiB of a line of `top`.
fn row(line: &str) -> Option<(String, i64, i64)> {
    let cells: Vec<&str> = line.split_whitespace().collect();
    let memory = cells.iter().rev().find_map(|cell| cell.strip_suffix("Mi"))?;
    Some(((*cells.first()?).to_owned(), cells.get(1)?.strip_suffix('m')?.parse().ok()?, memory.parse().ok()?))
}
