//! Our commands against Kubernetes itself: a real kube-apiserver with its controllers and scheduler, on our simulated nodes.
//!
//! `cargo xtask upstream` builds the programs once and runs these tests, which are no part of `cargo xtask test`; `KAPSTAN_UPSTREAM` names
//! the folder of the programs if it is another one.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};
use tempfile::TempDir;

use crate::cli_equal::{self, PROFILE};
use crate::cluster::{Cluster, Kubectl, Process, eventually};
use crate::transcript;

/// How long the API server may take to be ready.
const START: Duration = Duration::from_secs(90);
/// The programs that a cluster is made of.
const PROGRAMS: [&str; 4] = ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"];
/// A cluster at a time: each is large.
static ONE: Mutex<()> = Mutex::new(());

/// The folder with the programs.
fn programs() -> PathBuf {
    let target = Path::new(env!("CARGO_BIN_EXE_kapstan")).ancestors().nth(2).unwrap();
    let folder = std::env::var_os("KAPSTAN_UPSTREAM").map_or_else(|| target.join("upstream"), PathBuf::from);
    let there = PROGRAMS.iter().all(|program| folder.join(program).is_file());
    assert!(there, "no Kubernetes in {}: `cargo xtask upstream` builds one and runs these tests", folder.display());
    folder
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Keys and certificates, and the administrator's kubeconfig for the API server at `address`.
fn pki(folder: &Path, address: &str) {
    let write = |name: &str, text: &str| fs::write(folder.join(name), text).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut authority = CertificateParams::default();
    authority.distinguished_name.push(DnType::CommonName, "upstream");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    write("ca.crt", &authority.self_signed(&key).unwrap().pem());
    let issuer = Issuer::new(authority, key);
    for (name, organization) in [("server", None), ("admin", Some("system:masters"))] {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        if let Some(organization) = organization {
            params.distinguished_name.push(DnType::OrganizationName, organization);
        }
        params.subject_alt_names = vec![SanType::IpAddress([127, 0, 0, 1].into())];
        write(&format!("{name}.crt"), &params.signed_by(&key, &issuer).unwrap().pem());
        write(&format!("{name}.key"), &key.serialize_pem());
    }
    let accounts = KeyPair::generate().unwrap();
    write("accounts.key", &accounts.serialize_pem());
    write("accounts.pub", &accounts.public_key_pem());
    let at = |name: &str| folder.join(name).display().to_string();
    fs::create_dir(folder.join("data")).unwrap();
    write(
        "data/admin.kubeconfig",
        &format!(
            "{{apiVersion: v1, kind: Config, current-context: upstream,\n\
             contexts: [{{name: upstream, context: {{cluster: upstream, user: admin}}}}],\n\
             clusters: [{{name: upstream, cluster: {{server: 'https://{address}', certificate-authority: '{}'}}}}],\n\
             users: [{{name: admin, user: {{client-certificate: '{}', client-key: '{}'}}}}]}}\n",
            at("ca.crt"),
            at("admin.crt"),
            at("admin.key"),
        ),
    );
}

/// A Kubernetes cluster with so many simulated nodes that behave as `profile` says.
fn start(programs: &Path, nodes: usize, profile: &str) -> Cluster {
    let folder: TempDir = tempfile::Builder::new().prefix("kapstan-upstream-").tempdir().unwrap();
    let home = folder.path().to_owned();
    let at = |name: &str| home.join(name).display().to_string();
    let (client, peer, port) = (free_port(), free_port(), free_port());
    let address = format!("127.0.0.1:{port}");
    pki(&home, &address);
    let run = |program: &str, arguments: &[String]| {
        let mut command = Command::new(programs.join(program));
        command.args(arguments).current_dir(&home);
        Process::spawn(command, &home.join(format!("{program}.log")))
    };
    let etcd = run(
        "etcd",
        &[
            format!("--data-dir={}", at("etcd")),
            format!("--listen-client-urls=http://127.0.0.1:{client}"),
            format!("--advertise-client-urls=http://127.0.0.1:{client}"),
            format!("--listen-peer-urls=http://127.0.0.1:{peer}"),
            "--unsafe-no-fsync".into(),
        ],
    );
    let server = run(
        "kube-apiserver",
        &[
            format!("--etcd-servers=http://127.0.0.1:{client}"),
            "--bind-address=127.0.0.1".into(),
            "--advertise-address=127.0.0.1".into(),
            format!("--secure-port={port}"),
            format!("--tls-cert-file={}", at("server.crt")),
            format!("--tls-private-key-file={}", at("server.key")),
            format!("--client-ca-file={}", at("ca.crt")),
            "--service-account-issuer=https://kubernetes.default.svc".into(),
            format!("--service-account-key-file={}", at("accounts.pub")),
            format!("--service-account-signing-key-file={}", at("accounts.key")),
            "--service-cluster-ip-range=10.96.0.0/16".into(),
            "--authorization-mode=Node,RBAC".into(),
            "--endpoint-reconciler-type=none".into(),
        ],
    );
    let mut cluster = Cluster::of(folder, server, address, vec![etcd]);
    let ours = Kubectl::ours();
    until(&cluster, &ours, "kubectl get --raw /readyz");
    let kubeconfig = cluster.kubeconfig().display().to_string();
    let common = [
        format!("--kubeconfig={kubeconfig}"),
        "--leader-elect=false".into(),
        "--bind-address=127.0.0.1".into(),
        // Nobody asks them for their health.
        "--secure-port=0".into(),
    ];
    let controllers = [
        format!("--service-account-private-key-file={}", at("accounts.key")),
        format!("--root-ca-file={}", at("ca.crt")),
    ];
    cluster.add(run("kube-controller-manager", &[&common[..], &controllers[..]].concat()));
    cluster.add(run("kube-scheduler", &common));
    fs::write(home.join("profile.yaml"), profile).unwrap();
    let mut agent = Command::new(env!("CARGO_BIN_EXE_kapstan"));
    agent.args(["agent", "--simulated", &nodes.to_string(), "--kubeconfig", &kubeconfig, "--simulated-profile"]);
    agent.arg(home.join("profile.yaml"));
    cluster.add(Process::start(agent, &home.join("agent.log")).unwrap().0);
    until(&cluster, &ours, &format!("test $(kubectl get nodes | grep -c ' Ready ') = {nodes}"));
    // Pods need the account that the controllers make.
    until(&cluster, &ours, "kubectl get serviceaccount default");
    cluster
}

/// Repeats a command until it succeeds.
fn until(cluster: &Cluster, kubectl: &Kubectl, line: &str) {
    let attempt = || {
        let output = cluster.shell(kubectl, line);
        if output.status.success() { Ok(()) } else { Err(output) }
    };
    eventually(START, attempt).unwrap_or_else(|output| panic!("{line}: {output:?}"));
}

/// Plays transcripts and pages of the guide by our command.
fn plays(names: &[&str], nodes: usize) {
    let programs = programs();
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let profile = "images:\n- {image: 'nginx:bad*', unpullable: true, pullTime: 20ms}\n\
                   - {image: 'nginx:*', startTime: 10ms, timeToReady: 50ms, stopTime: 20ms}\nevents: true\n";
    let cluster = start(&programs, nodes, profile);
    for manifest in fs::read_dir(transcript::folder()).unwrap() {
        let path = manifest.unwrap().path();
        if path.extension().is_some_and(|ending| ending == "yaml") {
            fs::copy(&path, cluster.folder().join(path.file_name().unwrap())).unwrap();
        }
    }
    for name in names {
        transcript::play(name, &cluster, &Kubectl::ours());
    }
}

/// The fifth seed: images, files, names, `--rollback`, a timeout, the same command again.
#[test]
fn rolling_update() {
    plays(&["rolling-update.md"], 3);
}

/// The third seed, and its program as a command.
#[test]
fn in_place() {
    plays(&["in-place.md"], 1);
}

/// `rollout`, `get` in its forms, `wait`, cascades.
#[test]
fn rollouts() {
    plays(&["upstream.txt"], 3);
}

/// What is the same by kubectl and by our command on our server is the same on this one.
#[test]
fn our_verbs_print_what_kubectl_prints() {
    let (programs, kubectl) =
        (programs(), cli_equal::real_kubectl().expect("a kubectl to compare with; set KAPSTAN_KUBECTL"));
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    cli_equal::compare(&start(&programs, 2, PROFILE), &kubectl);
}
