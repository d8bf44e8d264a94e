//! A cluster for a test: the real binary on a free port, its data in a scratch folder, ended with the test.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

/// How long a server may take to say that it is ready, and to end.
const START: Duration = Duration::from_secs(30);
const END: Duration = Duration::from_secs(10);
/// How long something may take to come about before a test gives up on it.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// What a cluster is made of.
pub struct Setup {
    arguments: Vec<String>,
    simulated: usize,
    joined: Vec<(String, String)>,
    profile: Option<String>,
}

impl Setup {
    /// A control plane without nodes.
    pub fn bare() -> Setup {
        Setup { arguments: vec!["--no-agent".into()], simulated: 0, joined: Vec::new(), profile: None }
    }

    /// A node on this machine, with real containers.
    pub fn node() -> Setup {
        Setup { arguments: Vec::new(), simulated: 0, joined: Vec::new(), profile: None }
    }

    /// `count` simulated nodes inside the server.
    pub fn simulated(count: usize) -> Setup {
        let mut setup = Setup::bare();
        setup.arguments.extend(["--simulated-nodes".into(), count.to_string()]);
        setup.simulated = count;
        setup
    }

    /// How the simulated nodes behave.
    pub fn profile(mut self, yaml: &str) -> Setup {
        self.profile = Some(yaml.to_owned());
        self
    }

    /// A simulated node in a process of its own, which joins over the network and behaves as `profile` says.
    pub fn joined(mut self, name: &str, profile: &str) -> Setup {
        self.joined.push((name.to_owned(), profile.to_owned()));
        self
    }

    /// Starts it.
    pub fn start(self) -> Cluster {
        let folder = tempfile::Builder::new().prefix("kapstan-test-").tempdir().unwrap();
        let mut arguments = self.arguments;
        if let Some(profile) = &self.profile {
            fs::write(folder.path().join("profile.yaml"), profile).unwrap();
            arguments.extend(["--simulated-profile".into(), path_text(&folder.path().join("profile.yaml"))]);
        }
        let server = start_server(folder.path(), &arguments, "127.0.0.1:0");
        let mut cluster = Cluster { folder, arguments, server, nodes: Vec::new() };
        for (name, profile) in &self.joined {
            let node = cluster.join(name, profile);
            cluster.nodes.push(node);
        }
        cluster.wait_for_nodes(self.simulated + self.joined.len());
        cluster
    }
}

/// A running cluster. Dropping it ends its processes and removes its folder.
pub struct Cluster {
    arguments: Vec<String>,
    server: Server,
    nodes: Vec<Process>,
    /// Goes last: what the processes wrote is shown when a test fails.
    folder: TempDir,
}

impl Cluster {
    /// A server is ready before its simulated nodes are: what is asked at once would find none on a busy machine.
    fn wait_for_nodes(&self, count: usize) {
        let ours = Kubectl::ours();
        let ready = || {
            let listed = self.kubectl(&ours, &["get", "nodes"]);
            let text = String::from_utf8_lossy(&listed.stdout).into_owned();
            let ready = text.lines().filter(|line| line.contains(" Ready ")).count();
            if count <= ready { Ok(()) } else { Err(text) }
        };
        if 0 < count {
            eventually(Duration::from_secs(60), ready).expect("the simulated nodes become ready");
        }
    }

    /// Scratch folder of the test, where kubectl runs.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The server's data folder.
    pub fn data_dir(&self) -> PathBuf {
        self.folder().join("data")
    }

    /// `https://HOST:PORT`.
    pub fn url(&self) -> String {
        format!("https://{}", self.server.address)
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.data_dir().join("admin.kubeconfig")
    }

    /// A shell command in the cluster's folder; `kubectl` in it is this one.
    pub fn shell(&self, kubectl: &Kubectl, line: &str) -> Output {
        let mut shell = Command::new("sh");
        shell.arg("-c").arg(line);
        self.environment(&mut shell, kubectl);
        shell.output().unwrap()
    }

    /// Runs kubectl.
    pub fn kubectl(&self, kubectl: &Kubectl, arguments: &[&str]) -> Output {
        self.kubectl_command(kubectl, arguments).output().unwrap()
    }

    /// A kubectl to be started by the test.
    pub fn kubectl_command(&self, kubectl: &Kubectl, arguments: &[&str]) -> Command {
        let mut command = Command::new(&kubectl.path);
        command.args(arguments);
        self.environment(&mut command, kubectl);
        command
    }

    /// Starts kubectl on something that does not end by itself, and gives what it prints line by line.
    pub fn watch(&self, kubectl: &Kubectl, arguments: &[&str]) -> Watch {
        let mut command = self.kubectl_command(kubectl, arguments);
        let mut child = end_with_parent(&mut command).stdout(Stdio::piped()).spawn().unwrap();
        let lines = lines(BufReader::new(child.stdout.take().unwrap()));
        Watch { child, lines }
    }

    fn environment(&self, command: &mut Command, kubectl: &Kubectl) {
        let folder = kubectl.folder(self.folder());
        let path = std::env::var("PATH").unwrap_or_default();
        // kubectl keeps what it discovered below its home: another cluster may have had this port before.
        command.current_dir(self.folder()).env("HOME", self.folder());
        command.env("KUBECONFIG", self.kubeconfig()).env("PATH", format!("{}:{path}", folder.display()));
        command.stdin(Stdio::null());
    }

    #[cfg(feature = "upstream")]
    /// A cluster that something else than our server is: `server` listens at `address`, the others end with it.
    pub fn of(folder: TempDir, server: Process, address: String, others: Vec<Process>) -> Cluster {
        Cluster { folder, arguments: Vec::new(), server: Server { process: server, address }, nodes: others }
    }

    #[cfg(feature = "upstream")]
    /// A process that is part of it.
    pub fn add(&mut self, process: Process) {
        self.nodes.push(process);
    }

    /// A simulated node in a process of its own joins over the network.
    pub fn join(&self, name: &str, profile: &str) -> Process {
        let path = self.folder().join(format!("{name}.yaml"));
        fs::write(&path, profile).unwrap();
        let token = fs::read_to_string(self.data_dir().join("pki/join.token")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_kapstan"));
        command.args(["agent", "--simulated", "1", "--name-prefix", name, "--server", &self.url()]);
        command.arg("--simulated-profile").arg(path).arg("--token").arg(token);
        Process::start(command, &self.folder().join(format!("{name}.log"))).unwrap().0
    }

    /// Kills the server without a word, as a power cut would.
    pub fn kill(&mut self) {
        self.server.process.end(Signal::SIGKILL);
    }

    /// Starts the server again, on the port it had.
    pub fn restart(&mut self) {
        let address = self.server.address.clone();
        self.server = start_server(self.folder.path(), &self.arguments, &address);
    }

    /// Stops the server as an administrator does; false when it had to be killed.
    pub fn stop(&mut self) -> bool {
        self.server.process.end(Signal::SIGTERM)
    }
}

/// A running `kubectl … --watch`, ended when it is dropped.
pub struct Watch {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Watch {
    /// Collects lines until `enough` of them are there; fails when that takes too long.
    pub fn until(&self, enough: impl Fn(&[String]) -> bool) -> Vec<String> {
        let until = Instant::now() + PATIENCE;
        let mut seen = Vec::new();
        while !enough(&seen) {
            let line = self.lines.recv_timeout(until.saturating_duration_since(Instant::now()));
            seen.push(line.unwrap_or_else(|_| panic!("nothing more was printed after\n{}", seen.join("\n"))));
        }
        seen
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// Reads to the end, so that a full pipe never stops who writes.
fn lines(output: BufReader<ChildStdout>) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || output.lines().map_while(Result::ok).for_each(|line| drop(sender.send(line))));
    receiver
}

/// The server's process and where it listens.
struct Server {
    process: Process,
    address: String,
}

fn start_server(folder: &Path, arguments: &[String], listen: &str) -> Server {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kapstan"));
    command.args(["server", "--listen", listen, "--data-dir"]).arg(folder.join("data")).args(arguments);
    let (process, ready) = Process::start(command, &folder.join("server.log")).unwrap();
    let address = ready.split_whitespace().find_map(|word| word.strip_prefix("https://")).unwrap().to_owned();
    Server { process, address }
}

/// A child process that ends with its owner.
pub struct Process {
    child: Child,
    log: PathBuf,
    /// What it is ended by.
    signal: Signal,
}

impl Process {
    #[cfg(feature = "upstream")]
    /// Starts a command that nobody waits for and that loses nothing when it is killed.
    pub fn spawn(mut command: Command, log: &Path) -> Process {
        let file = fs::OpenOptions::new().create(true).append(true).open(log).unwrap();
        command.stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file);
        let child = end_with_parent(&mut command).spawn().unwrap();
        Process { child, log: log.to_owned(), signal: Signal::SIGKILL }
    }

    /// Starts a command and waits for its line that begins with `ready `; an error is what it said instead.
    pub fn start(mut command: Command, log: &Path) -> Result<(Process, String), String> {
        let file = fs::OpenOptions::new().create(true).append(true).open(log).unwrap();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(file);
        let mut child = end_with_parent(&mut command).spawn().unwrap();
        let ready = lines(BufReader::new(child.stdout.take().unwrap()));
        let process = Process { child, log: log.to_owned(), signal: Signal::SIGTERM };
        let until = Instant::now() + START;
        loop {
            match ready.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(line) if line.starts_with("ready ") => return Ok((process, line)),
                Ok(_) => {}
                Err(_) => return Err(format!("{command:?} did not get ready: {}", process.said())),
            }
        }
    }

    /// What it wrote so far.
    pub fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Sends a signal and waits; false when it had to be killed after all.
    fn end(&mut self, signal: Signal) -> bool {
        if self.child.try_wait().unwrap().is_some() {
            return true;
        }
        let id = i32::try_from(self.child.id()).unwrap();
        kill(Pid::from_raw(id), signal).unwrap();
        let ended = eventually(END, || self.child.try_wait().unwrap().map(|_| ()).ok_or(())).is_ok();
        if !ended {
            self.child.kill().unwrap();
            self.child.wait().unwrap();
        }
        ended
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end(self.signal);
        if std::thread::panicking() {
            eprintln!("--- {}\n{}", self.log.display(), self.said());
        }
    }
}

/// A test that is killed takes its servers with it.
#[expect(unsafe_code, reason = "prctl between fork and exec is the one way to say it; it is safe to call there")]
fn end_with_parent(command: &mut Command) -> &mut Command {
    unsafe { command.pre_exec(|| Ok(nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?)) }
}

/// A client with the administrator's rights.
pub async fn client(cluster: &Cluster) -> kube::Client {
    let file = kube::config::Kubeconfig::read_from(cluster.kubeconfig()).unwrap();
    let config = kube::Config::from_custom_kubeconfig(file, &kube::config::KubeConfigOptions::default()).await.unwrap();
    kube::Client::try_from(config).unwrap()
}

/// Runs `kapstan ARGUMENTS` to its end.
pub fn kapstan(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kapstan"));
    command.args(arguments).stdin(Stdio::null()).output().unwrap()
}

/// A kubectl of some version.
pub struct Kubectl {
    path: PathBuf,
    /// `current` or `1.20`.
    pub version: &'static str,
}

impl Kubectl {
    /// The machine's, or the one that `KAPSTAN_KUBECTL` names; says so when there is none.
    pub fn current() -> Option<Kubectl> {
        let named = std::env::var_os("KAPSTAN_KUBECTL").map(PathBuf::from);
        let folders = std::env::var_os("PATH").unwrap_or_default();
        let found = named.or_else(|| {
            std::env::split_paths(&folders).map(|folder| folder.join("kubectl")).find(|path| path.exists())
        });
        Kubectl::or_skip(found, "current", "no kubectl; set KAPSTAN_KUBECTL")
    }

    /// Debian's 1.20, which `KAPSTAN_KUBECTL_OLD` names or `cargo xtask test` fetched; says so when there is none.
    pub fn old() -> Option<Kubectl> {
        let target = Path::new(env!("CARGO_BIN_EXE_kapstan")).ancestors().nth(2).unwrap();
        let fetched = target.join("tools/kubernetes-client/usr/bin/kubectl");
        let named = std::env::var_os("KAPSTAN_KUBECTL_OLD").map(PathBuf::from);
        let found = named.or_else(|| fetched.exists().then_some(fetched));
        Kubectl::or_skip(
            found,
            "1.20",
            "no kubectl 1.20; `cargo xtask test` fetches one, KAPSTAN_KUBECTL_OLD names one",
        )
    }

    /// Our own command, called as kubectl.
    pub fn ours() -> Kubectl {
        Kubectl { path: env!("CARGO_BIN_EXE_kapstan").into(), version: "ours" }
    }

    fn or_skip(found: Option<PathBuf>, version: &'static str, why: &str) -> Option<Kubectl> {
        if found.is_none() {
            skipped(why);
        }
        found.map(|path| Kubectl { path, version })
    }

    /// A folder in which this kubectl is called `kubectl`, made below `scratch`.
    fn folder(&self, scratch: &Path) -> PathBuf {
        let folder = scratch.join(format!("bin-{}", self.version));
        if !folder.exists() {
            fs::create_dir(&folder).unwrap();
            std::os::unix::fs::symlink(&self.path, folder.join("kubectl")).unwrap();
        }
        folder
    }
}

/// Says that a test does not run here, also when what tests print is not shown: `cargo xtask test` counts these lines.
pub fn skipped(why: &str) {
    std::io::Write::write_all(&mut std::io::stdout(), format!("\nskipped: {why}\n").as_bytes()).unwrap();
}

/// Tries until it works or `patience` is over; gives the last failure then.
pub fn eventually<T, E>(patience: Duration, mut attempt: impl FnMut() -> Result<T, E>) -> Result<T, E> {
    /// Between two looks at something that cannot be watched.
    const PAUSE: Duration = Duration::from_millis(20);
    let until = Instant::now() + patience;
    loop {
        match attempt() {
            Err(_) if Instant::now() < until => std::thread::sleep(PAUSE),
            outcome => return outcome,
        }
    }
}

fn path_text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}
