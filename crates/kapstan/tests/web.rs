//! Manifests from the web, events as they come, and scripts for shells: what runs beside a transcript, by kubectl and by our command.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::{fs, thread};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned, crypto};

use crate::cluster::{Cluster, Kubectl, Setup, skipped};

/// What is served.
const MANIFEST: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: from-the-web}\ndata: {a: b}\n---\napiVersion: v1\nkind: Service\n\
     metadata: {name: web}\nspec: {selector: {app: web}, ports: [{port: 80}]}\n";

/// Answers on a free port of loopback for as long as the test's process runs.
fn serve(tls: Option<Arc<ServerConfig>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let scheme = if tls.is_some() { "https" } else { "http" };
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let tls = tls.clone();
            thread::spawn(move || match tls {
                Some(config) => answer(StreamOwned::new(ServerConnection::new(config).unwrap(), stream)),
                None => answer(stream),
            });
        }
    });
    format!("{scheme}://{address}")
}

fn answer(mut stream: impl Read + Write) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        // A client that does not trust the certificate leaves.
        let Ok(1) = stream.read(&mut byte) else { return };
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let length = MANIFEST.len();
    let answer = match head.split(' ').nth(1) {
        Some("/all.yaml") => format!("200 OK\r\nContent-Length: {length}\r\n\r\n{MANIFEST}"),
        Some("/moved.yaml") => "302 Found\r\nLocation: /all.yaml\r\nContent-Length: 0\r\n\r\n".to_owned(),
        _ => "404 Not Found\r\nContent-Length: 0\r\n\r\n".to_owned(),
    };
    let answer = format!("HTTP/1.1 {}", answer.replacen("\r\n", "\r\nConnection: close\r\n", 1));
    if stream.write_all(answer.as_bytes()).and_then(|()| stream.flush()).is_err() {
        // Gone as well.
    }
}

/// An authority, and a server's certificate by it.
fn certified() -> (String, Arc<ServerConfig>) {
    let key = KeyPair::generate().unwrap();
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_pem = authority.self_signed(&key).unwrap().pem();
    let issuer = Issuer::new(authority, key);
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::IpAddress([127, 0, 0, 1].into())];
    let certificate = params.signed_by(&key, &issuer).unwrap().pem();
    let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    (authority_pem, Arc::new(config))
}

/// What a line printed, and its exit code.
fn printed(cluster: &Cluster, kubectl: &Kubectl, line: &str) -> String {
    let output = cluster.shell(kubectl, line);
    let [out, err] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    format!("{out}{err}[exit {}]", output.status.code().unwrap_or(-1))
}

/// Over http and over https, where the authority is trusted and where it is not.
#[test]
fn manifests_by_url() {
    let Some(kubectl) = Kubectl::current() else { return };
    let (cluster, ours) = (Setup::bare().start(), Kubectl::ours());
    let (authority, config) = certified();
    fs::write(cluster.folder().join("web.crt"), authority).unwrap();
    let (plain, secure) = (serve(None), serve(Some(config)));
    let trusting = "SSL_CERT_FILE=web.crt SSL_CERT_DIR=/nonexistent";
    assert!(cluster.shell(&ours, "kubectl create ns of-moon && kubectl create ns of-mars").status.success());
    let lines = [
        format!("kubectl apply -f {plain}/all.yaml"),
        format!("kubectl apply -f {plain}/moved.yaml"),
        format!("kubectl apply -f {plain}/nosuch.yaml"),
        format!("{trusting} kubectl diff -f {secure}/all.yaml"),
        format!("{trusting} kubectl delete -f {secure}/all.yaml"),
        format!("{trusting} kubectl apply -f {secure}/moved.yaml -o name"),
        format!("{trusting} kubectl apply -f {secure}/nosuch.yaml"),
        format!("{trusting} kubectl delete -f {secure}/all.yaml -o name"),
    ];
    for line in &lines {
        // In namespaces of their own, so that each finds what the other one found.
        let [own, theirs] = [(&ours, "of-moon"), (&kubectl, "of-mars")].map(|(kubectl, namespace)| {
            let line = line.replace(" -f", &format!(" -n {namespace} -f"));
            printed(&cluster, kubectl, &line).replace(namespace, "NS")
        });
        assert_eq!(own, theirs, "{line}");
    }
    let untrusted = printed(&cluster, &ours, &format!("kubectl apply -f {secure}/all.yaml"));
    assert!(untrusted.contains("certificate") && untrusted.ends_with("[exit 1]"), "{untrusted}");
    assert!(printed(&cluster, &ours, "kubectl get cm from-the-web -n of-moon").contains("NotFound"));
}

/// Headers once, and every line in the columns of those before.
#[test]
fn events_as_they_come() {
    let Some(kubectl) = Kubectl::current() else { return };
    let (cluster, ours) = (Setup::simulated(1).start(), Kubectl::ours());
    let run = |name: &str| {
        let made = cluster.shell(
            &ours,
            &format!("kubectl run {name} --image=nginx && kubectl wait --for=condition=Ready pod/{name}"),
        );
        assert!(made.status.success());
    };
    run("first");
    let arguments = ["events", "--watch", "--for", "pod/first"];
    let (theirs, own) = (cluster.watch(&kubectl, &arguments), cluster.watch(&ours, &arguments));
    let both = |enough: usize| [&theirs, &own].map(|watch| watch.until(|lines| lines.len() >= enough));
    let aged = |line: &String| {
        let (age, rest) = line.split_at(line.find(' ').unwrap());
        (age == "LAST", rest.trim_start().to_owned())
    };
    let [expected, told] = both(2);
    assert_eq!(told.iter().map(aged).collect::<Vec<_>>(), expected.iter().map(aged).collect::<Vec<_>>());
    // The same name again is told of to who follows it.
    assert!(cluster.shell(&ours, "kubectl delete pod first").status.success());
    run("first");
    let [expected, told] = both(1);
    assert_eq!(told.iter().map(aged).collect::<Vec<_>>(), expected.iter().map(aged).collect::<Vec<_>>());
}

/// Nothing is forwarded to a simulated pod, and that is said at once.
#[test]
fn no_ports_of_simulated_pods() {
    let Some(kubectl) = Kubectl::current() else { return };
    let (cluster, ours) = (Setup::simulated(1).start(), Kubectl::ours());
    let ready = "kubectl run web --image=nginx && kubectl wait --for=condition=Ready pod/web";
    assert!(cluster.shell(&ours, ready).status.success());
    let told = [&kubectl, &ours].map(|kubectl| {
        let all = printed(&cluster, kubectl, "kubectl port-forward web :80 :81");
        // kubectl logs its attempts, too.
        all.lines().filter(|line| line.starts_with(['e', '[', 'F'])).collect::<Vec<_>>().join("\n")
    });
    assert_eq!(told[1], told[0]);
    assert!(told[1].starts_with("error: error upgrading connection: ") && told[1].ends_with("[exit 1]"), "{}", told[1]);
}

/// bash completes types, names and namespaces by asking the command.
#[test]
fn completion_in_bash() {
    if Command::new("bash").arg("-c").arg("complete -p >/dev/null").stderr(Stdio::null()).status().is_err() {
        return skipped("no bash");
    }
    let (cluster, ours) = (Setup::bare().start(), Kubectl::ours());
    assert!(cluster.shell(&ours, "kubectl create cm settings && kubectl create ns elsewhere").status.success());
    let complete = |line: &str| {
        let script = format!(
            "source <(kubectl completion bash); COMP_LINE='{line}'; COMP_POINT=${{#COMP_LINE}}; \
             compopt() {{ :; }}; __kubectl_complete; echo ${{COMPREPLY[@]}}"
        );
        let output = cluster.shell(&ours, &format!("bash -c {}", quoted(&script)));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    let told = [
        "kubectl get confi",
        "kubectl get cm se",
        "kubectl get cm/se",
        "kubectl -n else",
        "kubectl --namespace=kube-s",
        "kubectl rollout st",
        "kubectl rollout status dep",
        "kubectl get pods --no-h",
        "kubectl get nosuch x",
        "kubectl server --no",
    ]
    .map(|line| format!("{line}: {}", complete(line)));
    let expected = "
        kubectl get confi: configmaps
        kubectl get cm se: settings
        kubectl get cm/se: cm/settings
        kubectl -n else: elsewhere
        kubectl --namespace=kube-s: kube-system
        kubectl rollout st: status
        kubectl rollout status dep: deployment
        kubectl get pods --no-h: --no-headers
        kubectl get nosuch x:
        kubectl server --no:";
    let expected: Vec<&str> = expected.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    assert_eq!(told.each_ref().map(|line| line.trim_end()).to_vec(), expected);
}

/// As one word of a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Manual pages and completions know the program's own commands, each flag with its help.
#[test]
fn own_commands_are_documented() {
    let folder = tempfile::tempdir().unwrap();
    let kapstan = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_kapstan")).args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    kapstan(&["man", folder.path().to_str().unwrap()]);
    for (command, flag) in
        [("server", "simulated\\-nodes"), ("agent", "token"), ("demo", "simulated"), ("image-build", "tag")]
    {
        let page = fs::read_to_string(folder.path().join(format!("kapstan-{command}.1"))).unwrap();
        assert!(page.contains(&format!("\\-\\-{flag}")), "{command}: {page}");
        assert!(!page.contains("request\\-timeout"), "{command} knows none of the flags of kubectl's");
    }
    let top = fs::read_to_string(folder.path().join("kapstan.1")).unwrap();
    for command in ["server", "agent", "demo", "image", "get", "rolling\\-update"] {
        assert!(top.contains(&format!("kapstan\\-{command}(1)")), "{command}: {top}");
    }
    assert!(kapstan(&["__complete", "ser"]).starts_with("server\t"));
    assert!(kapstan(&["__complete", "image", "bu"]).starts_with("build\t"));
    assert!(kapstan(&["__complete", "server", "--simulated-n"]).starts_with("--simulated-nodes\t"));
    for shell in ["elvish", "powershell"] {
        assert!(kapstan(&["completion", shell]).contains("simulated-nodes"), "{shell}");
    }
}
