//! Starting: what a server needs, what it says when it does not get it, and what it finds again.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Output;

use crate::cluster::{Kubectl, Setup, kapstan};

/// Runs a server that is not to start; gives what it says on standard error.
fn refused(arguments: &[&str]) -> String {
    let output = kapstan(&[&["server", "--no-agent"], arguments].concat());
    let (said, printed) = (text(&output.stderr), text(&output.stdout));
    assert!(!output.status.success() && printed.is_empty(), "it started: {printed}{said}");
    said
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn scratch() -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data").to_str().unwrap().to_owned();
    (folder, path)
}

#[test]
fn on_a_port_in_use() {
    let (_folder, data) = scratch();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let said = refused(&["--data-dir", &data, "--listen", &address]);
    assert_eq!(
        said,
        format!(
            "error: cannot listen on {address}: Address already in use (os error 98); choose another address with \
             --listen\n"
        )
    );
}

#[test]
fn in_a_folder_that_cannot_be() {
    let (folder, _) = scratch();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let data = file.join("data");
    let said = refused(&["--data-dir", data.to_str().unwrap(), "--listen", "127.0.0.1:0"]);
    assert!(said.starts_with("error: ") && said.contains(data.to_str().unwrap()), "{said}");
    assert!(said.contains("Not a directory"), "{said}");
}

#[test]
fn with_arguments_that_mean_nothing() {
    let (folder, data) = scratch();
    let said = refused(&["--data-dir", &data, "--store", "floppy"]);
    assert_eq!(said, "error: --store floppy: only the embedded store is supported; leave the option out\n");
    let said = refused(&["--data-dir", &data, "--listen", "everywhere"]);
    assert!(said.starts_with("error: invalid value 'everywhere' for '--listen <LISTEN>'"), "{said}");
    let profile = folder.path().join("profile.yaml");
    fs::write(&profile, "images:\n- image: nginx\n  pulltime: 1s\n").unwrap();
    let profile = profile.to_str().unwrap();
    let said = refused(&[
        "--data-dir",
        &data,
        "--listen",
        "127.0.0.1:0",
        "--simulated-nodes",
        "1",
        "--simulated-profile",
        profile,
    ]);
    assert!(
        said.starts_with(&format!("error: --simulated-profile {profile}: ")) && said.contains("pulltime"),
        "{said}"
    );
}

#[test]
fn a_second_time_on_the_same_data() {
    let cluster = Setup::bare().start();
    let data = cluster.data_dir();
    let said = refused(&["--data-dir", data.to_str().unwrap(), "--listen", "127.0.0.1:0"]);
    assert!(said.starts_with("error: ") && said.contains(data.to_str().unwrap()), "{said}");
    assert!(said.contains("another"), "{said}");
}

#[test]
fn on_a_damaged_store() {
    let Some(kubectl) = Kubectl::current() else { return };
    let mut cluster = Setup::bare().start();
    let made = cluster.shell(&kubectl, "for i in 1 2 3 4 5; do kubectl create configmap c$i --from-literal=a=$i; done");
    assert!(made.status.success(), "{made:?}");
    assert!(cluster.stop());
    let segment = first_segment(&cluster.data_dir().join("store"));
    let whole = fs::read(&segment).unwrap();
    let mut damaged = whole.clone();
    // In the first records: everything after it would be lost if the damage were taken for the end.
    damaged[200] ^= 0x10;
    fs::write(&segment, &damaged).unwrap();

    let said = refused(&["--data-dir", cluster.data_dir().to_str().unwrap(), "--listen", "127.0.0.1:0"]);
    assert!(said.starts_with("error: ") && said.contains(segment.to_str().unwrap()), "{said}");
    assert!(said.contains("damaged"), "{said}");
    assert!(fs::read(&segment).unwrap() == damaged, "the damaged segment was written to");

    fs::write(&segment, &whole).unwrap();
    cluster.restart();
    let found: Output = cluster.kubectl(&kubectl, &["get", "configmaps", "-o", "name"]);
    assert_eq!(text(&found.stdout).matches("configmap/c").count(), 5, "{found:?}");
}

fn first_segment(store: &Path) -> PathBuf {
    let mut files: Vec<PathBuf> = fs::read_dir(store).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| 4096 < fs::metadata(path).unwrap().len());
    files.sort();
    files.into_iter().next().unwrap()
}

/// What a server wrote is there when it starts again, under the names it had; keys are for their owner only.
#[test]
fn again_after_a_stop() {
    use std::os::unix::fs::PermissionsExt;
    let Some(kubectl) = Kubectl::current() else { return };
    let mut cluster = Setup::simulated(1).start();
    let run = |cluster: &crate::cluster::Cluster, line: &str| {
        let output = cluster.shell(&kubectl, line);
        assert!(output.status.success(), "{line}: {output:?}");
        text(&output.stdout)
    };
    run(&cluster, "kubectl create deployment web --image=web:v1 --replicas=3 && kubectl rollout status deploy web");
    let before = run(&cluster, "kubectl get deploy,rs,pods -o name");
    assert!(cluster.stop(), "the server had to be killed");
    cluster.restart();
    assert_eq!(run(&cluster, "kubectl get deploy,rs,pods -o name"), before);
    run(&cluster, "kubectl set image deploy web web=web:v2 && kubectl rollout status deploy web");
    for secret in ["admin.kubeconfig", "pki/ca.key", "pki/admin.key", "pki/server.key", "pki/join.token"] {
        let mode = fs::metadata(cluster.data_dir().join(secret)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{secret}");
    }
}
