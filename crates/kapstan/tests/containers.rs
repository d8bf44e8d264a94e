//! The main job with real containers: real nginx, real kubectl, requests that must not fail, servers that are killed.
//!
//! Each test plays inside network, mount and process namespaces of its own with no route out; with the first process in
//! there everything it started ends, however the test ends. They need root and the images of `cargo xtask images`.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::cluster::{Cluster, Kubectl, PATIENCE, Setup, eventually, kapstan, skipped};
use crate::transcript;

/// Set for the process inside the namespaces.
const STAGE: &str = "KAPSTAN_TEST_STAGE";
/// Requests that have to be sent during the ten rollouts.
const REQUESTS: u64 = 10_000;
/// Longest time an answer may take.
const ANSWER: Duration = Duration::from_secs(5);

/// True inside the namespaces. Outside, the test is run inside them and false comes back when it has passed there.
pub fn staged(test: &str) -> bool {
    if std::env::var_os(STAGE).is_some() {
        return true;
    }
    if !nix::unistd::geteuid().is_root() {
        skipped("real containers in namespaces of the test's own need root");
        return false;
    }
    // Removed from out here: inside, what a failed test leaves running keeps its mounts until the namespaces end.
    let scratch = tempfile::Builder::new().prefix("kapstan-test-").tempdir().unwrap();
    let mut inside = Command::new("unshare");
    inside.args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
    inside.arg(std::env::current_exe().unwrap()).args(["--exact", test, "--nocapture"]);
    inside.env(STAGE, "1").env("TMPDIR", scratch.path());
    let output = inside.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    print!("{text}");
    text.lines().filter_map(|line| line.strip_prefix("skipped: ")).for_each(skipped);
    eprint!("{}", String::from_utf8_lossy(&output.stderr));
    scratch.close().expect("nothing holds the test's folder once its namespaces are gone");
    assert!(output.status.success(), "{test} failed inside its namespaces");
    false
}

/// What the tests need of the machine; none of it missing.
pub struct Tools {
    /// The machine's kubectl.
    pub kubectl: Kubectl,
    /// The archive of nginx and busybox images.
    pub images: PathBuf,
}

pub fn tools() -> Option<Tools> {
    let Some(kubectl) = Kubectl::current() else {
        skipped("no current kubectl");
        return None;
    };
    let built = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target/images/nginx-v1.tar");
    let images = std::env::var_os("KAPSTAN_NGINX_IMAGES").map_or(built, PathBuf::from);
    if !images.exists() {
        skipped("no nginx images: run `cargo xtask images`");
        return None;
    }
    Some(Tools { kubectl, images })
}

const NGINX: &str = "apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 4
  strategy: {rollingUpdate: {maxSurge: 1, maxUnavailable: 1}}
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: nginx, image: \"nginx:1.7.9\", ports: [{containerPort: 80}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80}]}
";

const MANY: &str = "apiVersion: batch/v1
kind: Job
metadata: {name: many}
spec:
  completions: 16
  parallelism: 4
  template:
    spec:
      restartPolicy: Never
      containers: [{name: c, image: busybox, imagePullPolicy: Never, command: [sh, -c, echo -n bye > /dev/termination-log]}]
";

/// A node with the images of nginx.
pub fn node(tools: &Tools) -> Cluster {
    let cluster = Setup::node().start();
    let data_dir = cluster.data_dir();
    let imported =
        kapstan(&["image", "import", &tools.images.to_string_lossy(), "--data-dir", &data_dir.to_string_lossy()]);
    assert!(imported.status.success(), "{imported:?}");
    cluster
}

/// Where the service `web` is reached, once it answers.
fn service(cluster: &Cluster, tools: &Tools) -> SocketAddr {
    let address = told(cluster, tools, "kubectl get service web -o jsonpath={.spec.clusterIP}");
    let address = SocketAddr::new(address.trim().parse().unwrap(), 80);
    eventually(PATIENCE, || one_request(address)).unwrap();
    address
}

/// A node with nginx running behind a service.
pub fn nginx(tools: &Tools) -> (Cluster, SocketAddr) {
    let cluster = node(tools);
    std::fs::write(cluster.folder().join("web.yaml"), NGINX).unwrap();
    told(&cluster, tools, "kubectl apply -f web.yaml");
    told(&cluster, tools, "kubectl rollout status deployment/web --timeout=60s");
    let address = service(&cluster, tools);
    (cluster, address)
}

/// Runs a command that has to succeed; gives what it printed.
pub fn told(cluster: &Cluster, tools: &Tools, line: &str) -> String {
    let output = cluster.shell(&tools.kubectl, line);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{line}: {text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// Everything that the node started is gone once the workload is.
fn leave(cluster: Cluster, tools: &Tools) {
    told(&cluster, tools, "kubectl delete deployment web");
    told(&cluster, tools, "kubectl wait --for=delete pod --all --timeout=60s || true");
    let left = told(&cluster, tools, "kubectl get pods -o name");
    assert_eq!(left, "", "pods are left");
}

#[test]
fn ten_rollouts_of_real_nginx_lose_no_request() {
    if !staged("containers::ten_rollouts_of_real_nginx_lose_no_request") {
        return;
    }
    let Some(tools) = tools() else { return };
    let (cluster, address) = nginx(&tools);
    let load = Load::start(address);
    for round in 0..10 {
        let version = ["1.9.1", "1.16.1"][round % 2];
        told(&cluster, &tools, &format!("kubectl set image deployment/web nginx=nginx:{version}"));
        told(&cluster, &tools, "kubectl rollout status deployment/web --timeout=60s");
    }
    let seen = load.stop_after(REQUESTS);
    assert_eq!(seen.failures, Vec::<String>::new(), "{} of {} requests failed", seen.failures.len(), seen.sent);
    assert!(REQUESTS <= seen.sent, "only {} requests were sent", seen.sent);
    for version in ["1.7.9", "1.9.1", "1.16.1"] {
        assert!(seen.versions.contains_key(version), "{version} never answered: {:?}", seen.versions);
    }
    println!("{} requests, 0 failed, answered by {:?}", seen.sent, seen.versions);
    leave(cluster, &tools);
}

#[test]
fn a_killed_server_takes_its_containers_over_untouched() {
    if !staged("containers::a_killed_server_takes_its_containers_over_untouched") {
        return;
    }
    let Some(tools) = tools() else { return };
    let (mut cluster, address) = nginx(&tools);
    const CONTAINERS: &str = "kubectl get pods -o jsonpath='{range .items[*]}{.metadata.name} \
                              {.status.containerStatuses[0].containerID} {.status.containerStatuses[0].restartCount}{\"\\n\"}{end}'";
    let before = told(&cluster, &tools, CONTAINERS);
    let processes = masters();
    assert_eq!(processes.len(), 4);
    cluster.kill();
    assert_eq!(masters(), processes, "containers run on without the server");
    one_request(address).expect("services go on without the server");
    cluster.restart();
    let same = || (told(&cluster, &tools, CONTAINERS) == before).then_some(()).ok_or("changed");
    eventually(PATIENCE, same).unwrap();
    assert_eq!(masters(), processes, "containers were touched");

    // What ends while the server is away is noticed when it is back.
    cluster.kill();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(processes[0]), nix::sys::signal::Signal::SIGKILL).unwrap();
    cluster.restart();
    let restarted = || {
        let counts = told(
            &cluster,
            &tools,
            "kubectl get pods -o jsonpath='{.items[*].status.containerStatuses[0].restartCount}'",
        );
        let mut counts: Vec<&str> = counts.split_whitespace().collect();
        counts.sort_unstable();
        (counts == ["0", "0", "0", "1"]).then_some(()).ok_or(counts.join(" "))
    };
    eventually(PATIENCE, restarted).unwrap();
    leave(cluster, &tools);
}

#[test]
fn a_pod_whose_sandbox_breaks_down_comes_back() {
    if !staged("containers::a_pod_whose_sandbox_breaks_down_comes_back") {
        return;
    }
    let Some(tools) = tools() else { return };
    let (cluster, address) = nginx(&tools);
    const PODS: &str = "kubectl get pods -o jsonpath='{range .items[*]}{.metadata.uid} {.status.podIP}{\"\\n\"}{end}'";
    let before = told(&cluster, &tools, PODS);
    let uids: Vec<&str> = before.lines().filter_map(|line| line.split(' ').next()).collect();
    let shims = processes(|line| uids.iter().any(|uid| line.contains(&format!("\"pod_uid\":\"{uid}\""))));
    assert_eq!(shims.len(), 4, "{before}");
    for shim in shims {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(shim), nix::sys::signal::Signal::SIGKILL).unwrap();
    }
    const READY: &str =
        "kubectl get pods -o jsonpath='{range .items[*].status.containerStatuses[0]}{.restartCount}{.ready} {end}'";
    let back = || {
        let now = told(&cluster, &tools, READY);
        (now.trim() == "1true 1true 1true 1true").then_some(()).ok_or(now)
    };
    eventually(PATIENCE, back).unwrap();
    assert_eq!(told(&cluster, &tools, PODS), before, "they are the same pods at the same addresses");
    eventually(PATIENCE, || one_request(address)).expect("the service answers");
    let told_of = || {
        let events = told(&cluster, &tools, "kubectl get events -o jsonpath='{.items[*].reason}'");
        events.contains("SandboxChanged").then_some(()).ok_or(events)
    };
    eventually(PATIENCE, told_of).unwrap();
    leave(cluster, &tools);
}

#[test]
fn a_job_runs_a_container_to_its_end() {
    if !staged("containers::a_job_runs_a_container_to_its_end") {
        return;
    }
    let Some(tools) = tools() else { return };
    /// It is not tried again: another pod of it would carry its finalizer for good reason.
    const WRONG: &str = "kubectl create job wrong --image=nginx:1.7.9 --dry-run=client -o yaml -- nginx -c /missing | \
                         sed 's/^spec:/spec:\\n  backoffLimit: 0/' | kubectl apply -f -";
    let (cluster, _) = nginx(&tools);
    told(&cluster, &tools, "kubectl create job check --image=nginx:1.7.9 -- nginx -t");
    told(&cluster, &tools, "kubectl wait --for=condition=complete job/check --timeout=60s");
    told(&cluster, &tools, WRONG);
    const FAILED: &str = "kubectl get job wrong -o jsonpath={.status.failed}";
    let failed = || (told(&cluster, &tools, FAILED) == "1").then_some(()).ok_or("not counted yet");
    eventually(PATIENCE, failed).unwrap();
    many_that_end_at_once(&cluster, &tools);
    let text = told(
        &cluster,
        &tools,
        "kubectl get jobs,pods -o jsonpath='{range .items[*]}{.kind} {.metadata.finalizers}{\"\\n\"}{end}'",
    );
    assert!(!text.contains("job-tracking"), "a pod that was counted is held back: {text}");
    told(&cluster, &tools, "kubectl delete job check wrong many");
    leave(cluster, &tools);
}

/// That a container has ended may be heard of before that it has started: none of many may be taken for running.
fn many_that_end_at_once(cluster: &Cluster, tools: &Tools) {
    std::fs::write(cluster.folder().join("many.yaml"), MANY).unwrap();
    told(cluster, tools, "kubectl apply -f many.yaml");
    told(cluster, tools, "kubectl wait --for=condition=complete job/many --timeout=60s");
    let said = "kubectl get pods -l job-name=many -o \
                jsonpath='{range .items[*]}{.status.containerStatuses[0].state.terminated.message}{\"\\n\"}{end}'";
    let said = told(cluster, tools, said);
    assert_eq!(said.lines().filter(|line| *line == "bye").count(), 16, "{said}");
}

#[test]
fn a_changed_image_restarts_the_container_in_place() {
    if !staged("containers::a_changed_image_restarts_the_container_in_place") {
        return;
    }
    let Some(tools) = tools() else { return };
    let (cluster, _) = nginx(&tools);
    let pod = told(&cluster, &tools, "kubectl get pods -o jsonpath='{.items[0].metadata.name}'");
    let place = format!("kubectl get pod {pod} -o jsonpath='{{.metadata.uid}} {{.spec.nodeName}} {{.status.podIP}}'");
    let before = told(&cluster, &tools, &place);
    let patch = r#"[{"op": "replace", "path": "/spec/containers/0/image", "value": "nginx:1.19-alpine"}]"#;
    told(&cluster, &tools, &format!("kubectl patch pod {pod} --type=json --patch='{patch}'"));
    let state = format!(
        "kubectl get pod {pod} -o jsonpath='{{.status.containerStatuses[0].image}} {{.status.containerStatuses[0].restartCount}} {{.status.containerStatuses[0].ready}}'"
    );
    let changed = || {
        let now = told(&cluster, &tools, &state);
        (now.ends_with("nginx:1.19-alpine 1 true")).then_some(()).ok_or(now)
    };
    eventually(PATIENCE, changed).unwrap();
    assert_eq!(told(&cluster, &tools, &place), before, "the pod moved");
    let address = before.rsplit(' ').next().unwrap();
    let version = eventually(PATIENCE, || one_request(SocketAddr::new(address.parse().unwrap(), 80))).unwrap();
    assert_eq!(version, "1.19-alpine");
    leave(cluster, &tools);
}

/// Of this many requests, each on a connection of its own, the answers are counted by version.
const COUNTED: u64 = 400;
/// How far a count may be from its share: four standard deviations of a fair split.
const BESIDE: u64 = 40;

/// The guide's canary: requests are split as the ready pods are, and none is lost when it is promoted and removed.
#[test]
fn a_canary_gets_its_share_and_no_request_is_lost() {
    if !staged("containers::a_canary_gets_its_share_and_no_request_is_lost") {
        return;
    }
    let Some(tools) = tools() else { return };
    let cluster = node(&tools);
    for manifest in ["web.yaml", "web-canary.yaml"] {
        std::fs::copy(transcript::folder().join(manifest), cluster.folder().join(manifest)).unwrap();
    }
    let mut load: Option<Load> = None;
    // A pod that has just become ready is in the rules a moment later.
    let share = |of_canary: u64| {
        let address = service(&cluster, &tools);
        let counted = || {
            let answers: Vec<String> = (0..COUNTED).map(|_| one_request(address)).collect::<Result<_, _>>()?;
            let canary = answers.iter().filter(|version| *version == "1.9.1").count() as u64;
            let fits = canary.abs_diff(COUNTED * of_canary / 100) <= BESIDE;
            fits.then_some(()).ok_or(format!("{canary} of {COUNTED}, not {of_canary} of 100"))
        };
        eventually(PATIENCE, counted).unwrap();
    };
    transcript::play_and("canary.md", &cluster, &tools.kubectl, |command| match command {
        "kubectl rollout status deployment/web" if load.is_none() => {
            share(0);
            load = Some(Load::start(service(&cluster, &tools)));
        }
        "kubectl rollout status deployment/web-canary" => share(25),
        "kubectl wait --for=jsonpath={.status.readyReplicas}=3 deployment/web-canary" => share(50),
        "kubectl delete deployment web-canary" => share(100),
        _ => {}
    });
    let seen = load.unwrap().stop_after(COUNTED);
    assert_eq!(seen.failures, Vec::<String>::new(), "{} of {} requests failed", seen.failures.len(), seen.sent);
    println!("{} requests, 0 failed, answered by {:?}", seen.sent, seen.versions);
    leave(cluster, &tools);
}

#[test]
fn a_deployment_is_upgraded_in_place_by_our_command() {
    if !staged("containers::a_deployment_is_upgraded_in_place_by_our_command") {
        return;
    }
    let Some(tools) = tools() else { return };
    let (cluster, address) = nginx(&tools);
    let ours = Tools { kubectl: Kubectl::ours(), images: tools.images.clone() };
    const PLACES: &str = "kubectl get pods -o jsonpath='{range .items[*]}{.metadata.name} {.metadata.uid} {.spec.nodeName} {.status.podIP}{\"\\n\"}{end}'";
    let before = told(&cluster, &tools, PLACES);
    let printed = told(&cluster, &ours, "kubectl set image deployment/web nginx=nginx:1.9.1 --in-place --replicas 1");
    assert!(printed.ends_with("deployment.apps/web image updated in place (1 of 4 pods)\n"), "{printed}");
    let printed = told(&cluster, &ours, "kubectl set image deployment/web nginx=nginx:1.9.1 --in-place");
    assert!(printed.ends_with("deployment.apps/web image updated in place (3 of 4 pods)\n"), "{printed}");
    assert_eq!(told(&cluster, &tools, PLACES), before, "pods moved");
    let counts = "kubectl get pods -o jsonpath='{.items[*].status.containerStatuses[0].restartCount}'";
    assert_eq!(told(&cluster, &tools, counts).trim(), "1 1 1 1");
    for _ in 0..20 {
        assert_eq!(eventually(PATIENCE, || one_request(address)).unwrap(), "1.9.1");
    }
    leave(cluster, &tools);
}

/// The fifth seed's command while clients ask: twice on, then a version that is not there, and back from it.
#[test]
fn a_rolling_update_of_a_controller_loses_no_request() {
    if !staged("containers::a_rolling_update_of_a_controller_loses_no_request") {
        return;
    }
    let Some(tools) = tools() else { return };
    let cluster = node(&tools);
    std::fs::copy(transcript::folder().join("my-nginx.yaml"), cluster.folder().join("my-nginx.yaml")).unwrap();
    told(&cluster, &tools, "kubectl create -f my-nginx.yaml");
    told(&cluster, &tools, "kubectl expose rc my-nginx --name=web --port=80 --selector=app=nginx");
    let address = service(&cluster, &tools);
    let ours = Tools { kubectl: Kubectl::ours(), images: tools.images.clone() };
    let to = |version: &str| {
        format!("kubectl rolling-update my-nginx --image=nginx:{version} --update-period=10ms --poll-interval=20ms")
    };
    let load = Load::start(address);
    for version in ["1.9.1", "1.16.1"] {
        let printed = told(&cluster, &ours, &to(version));
        assert!(printed.ends_with("replicationcontroller \"my-nginx\" rolling updated\n"), "{printed}");
    }
    let output = cluster.shell(&ours.kubectl, &(to("missing") + " --timeout=1s"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.starts_with("error: timed out waiting for any update progress to be made\n"), "{said}");
    told(&cluster, &ours, &(to("missing") + " --rollback=true"));
    let seen = load.stop_after(COUNTED);
    assert_eq!(seen.failures, Vec::<String>::new(), "{} of {} requests failed", seen.failures.len(), seen.sent);
    for version in ["1.7.9", "1.9.1", "1.16.1"] {
        assert!(seen.versions.contains_key(version), "{version} never answered: {:?}", seen.versions);
    }
    println!("{} requests, 0 failed, answered by {:?}", seen.sent, seen.versions);
    told(&cluster, &tools, "kubectl delete rc my-nginx --cascade=foreground");
    assert_eq!(told(&cluster, &tools, "kubectl get rc,pods -o name"), "");
}

/// Process ids of the nginx masters in these namespaces.
fn masters() -> Vec<i32> {
    processes(|command| command.starts_with("nginx: master"))
}

/// Process ids in these namespaces of those with such a command line.
fn processes(wanted: impl Fn(&str) -> bool) -> Vec<i32> {
    let command = |process: &i32| std::fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
    let mut found: Vec<i32> = std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|process| wanted(&String::from_utf8_lossy(&command(process))))
        .collect();
    found.sort_unstable();
    found
}

/// What the clients saw.
#[derive(Default)]
struct Seen {
    sent: u64,
    failures: Vec<String>,
    versions: BTreeMap<String, u64>,
}

/// Clients that ask without a pause: half of them keep their connection, half connect anew each time.
struct Load {
    seen: Arc<Mutex<Seen>>,
    stop: Arc<AtomicBool>,
    clients: Vec<std::thread::JoinHandle<()>>,
}

impl Load {
    fn start(address: SocketAddr) -> Load {
        let (seen, stop) = (Arc::new(Mutex::new(Seen::default())), Arc::new(AtomicBool::new(false)));
        let clients = (0..8).map(|number| {
            let (seen, stop) = (seen.clone(), stop.clone());
            std::thread::spawn(move || client(address, number % 2 == 0, &seen, &stop))
        });
        let clients = clients.collect();
        Load { seen, stop, clients }
    }

    /// Stops once `least` requests are sent, and gives what was seen.
    fn stop_after(self, least: u64) -> Seen {
        let enough = || if self.seen.lock().unwrap().sent < least { Err("too few requests") } else { Ok(()) };
        eventually(4 * PATIENCE, enough).unwrap();
        self.stop.store(true, SeqCst);
        self.clients.into_iter().for_each(|client| client.join().unwrap());
        std::mem::take(&mut *self.seen.lock().unwrap())
    }
}

fn client(address: SocketAddr, keep: bool, seen: &Mutex<Seen>, stop: &AtomicBool) {
    let mut kept: Option<TcpStream> = None;
    while !stop.load(SeqCst) {
        let reused = kept.is_some();
        let begun = Instant::now();
        let outcome = request(address, keep, kept.take());
        let mut seen = seen.lock().unwrap();
        match outcome {
            // A server that drains closes idle connections; a request that met the close was never taken, and every
            // HTTP client sends it again (RFC 9112, section 9.3.1). Only without a byte of an answer, and only then.
            Err(Failure::Closed) if reused => {}
            Err(failure) => {
                seen.sent += 1;
                let connection = if reused { "kept" } else { "new" };
                seen.failures.push(format!("{failure:?} on a {connection} connection after {:?}", begun.elapsed()));
            }
            Ok((version, connection)) => {
                seen.sent += 1;
                *seen.versions.entry(version).or_default() += 1;
                kept = connection;
            }
        }
    }
}

#[derive(Debug)]
enum Failure {
    /// The connection was closed before the first byte of an answer.
    Closed,
    /// Anything else.
    Other(#[expect(dead_code, reason = "shown by Debug when a test fails")] String),
}

fn one_request(address: SocketAddr) -> Result<String, String> {
    request(address, false, None).map(|(version, _)| version).map_err(|failure| format!("{failure:?}"))
}

/// One request; gives the version that answered, and the connection if it stays open.
fn request(address: SocketAddr, keep: bool, kept: Option<TcpStream>) -> Result<(String, Option<TcpStream>), Failure> {
    let other = |error: std::io::Error| Failure::Other(error.to_string());
    let mut stream = match kept {
        Some(stream) => stream,
        None => TcpStream::connect_timeout(&address, ANSWER).map_err(other)?,
    };
    stream.set_read_timeout(Some(ANSWER)).map_err(other)?;
    let connection = if keep { "keep-alive" } else { "close" };
    let head = format!("GET / HTTP/1.1\r\nHost: web\r\nConnection: {connection}\r\n\r\n");
    stream.write_all(head.as_bytes()).map_err(|_| Failure::Closed)?;
    let mut answer = Vec::new();
    let mut buffer = [0; 16 << 10];
    loop {
        let count = match stream.read(&mut buffer) {
            Ok(0) if answer.is_empty() => return Err(Failure::Closed),
            Err(error) if answer.is_empty() && error.kind() == ErrorKind::ConnectionReset => {
                return Err(Failure::Closed);
            }
            Ok(0) => return Err(Failure::Other("the answer was cut off".into())),
            Ok(count) => count,
            Err(error) => return Err(other(error)),
        };
        answer.extend_from_slice(&buffer[..count]);
        if let Some((head, rest)) = complete(&answer) {
            if !head.starts_with("HTTP/1.1 200") {
                return Err(Failure::Other(head));
            }
            let version = head.lines().find_map(|line| line.strip_prefix("X-Image-Version: "));
            let version = version.map(str::to_owned).ok_or_else(|| Failure::Other(format!("no version: {rest}")))?;
            let stays = keep && !head.contains("Connection: close");
            return Ok((version, stays.then_some(stream)));
        }
    }
}

/// Head and body of an answer, once all of it is there.
fn complete(answer: &[u8]) -> Option<(String, String)> {
    let text = String::from_utf8_lossy(answer);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let length: usize = head.lines().find_map(|line| line.strip_prefix("Content-Length: "))?.trim().parse().ok()?;
    (length <= body.len()).then(|| (head.to_owned(), body.to_owned()))
}
