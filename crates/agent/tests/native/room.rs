//! What a test has: a node with its data folder, an image, and short words for what it does.

use agent::{
    images::{Content, FileEntry},
    runtime::{
        ContainerSeen, ContainerSpec, Exit, Exited, Limits, PodSeen, RuntimeError, Sandbox, SandboxSpec, Security,
        native::{Native, Options},
    },
};
use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::sync::mpsc::Receiver;

/// The image: a static busybox, a user, STOPSIGNAL SIGQUIT.
pub const IMAGE: &str = "busybox:test";
/// Longest wait for something that is bound to happen.
pub const SOON: Duration = Duration::from_secs(20);

pub struct Room {
    pub folder: PathBuf,
    pub native: Native,
    pub exits: Receiver<Exited>,
}

impl Room {
    pub async fn new(folder: &Path) -> Room {
        let (native, exits) = Native::open(options(folder)).await.unwrap();
        make_image(&native);
        Room { folder: folder.to_owned(), native, exits }
    }

    /// Drops the agent's side and comes again.
    pub async fn restart_agent(self) -> Room {
        let folder = self.folder.clone();
        drop(self);
        Room::come_back(&folder).await
    }

    /// Comes to a node that an agent left.
    pub async fn come_back(folder: &Path) -> Room {
        let (native, exits) = Native::open(options(folder)).await.unwrap();
        Room { folder: folder.to_owned(), native, exits }
    }

    pub fn pod(&self, name: &str) -> SandboxSpec {
        let uid = format!("{name}-{}", hex::encode(rand::random::<[u8; 8]>()));
        let mut list = File::options().create(true).append(true).open(self.folder.join("pods.txt")).unwrap();
        writeln!(list, "{uid}").unwrap();
        SandboxSpec {
            uid,
            namespace: "default".into(),
            name: name.into(),
            hostname: name.into(),
            names: vec![name.into()],
            host_network: false,
            host_pid: false,
            host_ipc: false,
            sysctls: vec![],
            resolv_conf: vec!["nameserver 10.96.0.10".into()],
            host_aliases: vec![],
        }
    }

    /// A sandbox, started.
    pub async fn start_pod(&self, name: &str) -> (SandboxSpec, Sandbox) {
        let spec = self.pod(name);
        let sandbox = self.native.start_sandbox(&spec).await.unwrap();
        (spec, sandbox)
    }

    /// A container that runs a line of shell.
    pub fn shell(&self, pod: &SandboxSpec, line: &str) -> ContainerSpec {
        ContainerSpec {
            pod_uid: pod.uid.clone(),
            name: "main".into(),
            attempt: 0,
            image: IMAGE.into(),
            command: vec!["sh".into(), "-c".into()],
            args: vec![line.into()],
            env: vec![],
            working_dir: None,
            mounts: vec![],
            limits: Limits::default(),
            security: Security { allow_privilege_escalation: true, ..Security::default() },
            log_path: self.folder.join("logs").join(&pod.uid).join("0.log"),
            stdin: false,
            tty: false,
            stop_signal: None,
        }
    }

    /// Runs a container to its end: how it ended and what it wrote.
    pub async fn run(&mut self, spec: &ContainerSpec) -> (Exit, String) {
        let _ = fs::remove_file(&spec.log_path);
        let seen = self.native.start_container(spec).await.unwrap();
        let exit = self.exit_of(&seen).await;
        self.native.remove_container(&spec.pod_uid, &seen.id).await.unwrap();
        (exit, log_of(spec))
    }

    /// Runs a line of shell in a container called `name`.
    pub async fn run_named(&mut self, pod: &SandboxSpec, name: &str, line: &str) -> (Exit, String) {
        let spec = ContainerSpec {
            name: name.into(),
            log_path: self.folder.join(format!("{name}.log")),
            ..self.shell(pod, line)
        };
        self.run(&spec).await
    }

    pub async fn exit_of(&mut self, seen: &ContainerSeen) -> Exit {
        loop {
            let exited = tokio::time::timeout(SOON, self.exits.recv()).await.expect("an exit in time").unwrap();
            if exited.container_id == seen.id {
                return exited.exit;
            }
        }
    }

    /// What the start of a container is refused with.
    pub async fn refusal(&self, spec: &ContainerSpec) -> RuntimeError {
        self.native.start_container(spec).await.unwrap_err()
    }

    pub async fn seen(&self, uid: &str) -> Option<PodSeen> {
        self.native.list().await.unwrap().into_iter().find(|pod| pod.uid == uid)
    }
}

pub fn options(folder: &Path) -> Options {
    // Longer than the address of a socket can be.
    Options::new(folder.join("a-data-folder-with-a-path-that-is-longer-than-an-address-of-a-unix-socket-can-be-which-is-one-hundred-and-eight"))
}

/// The messages of a log, without times: `stdout F text`.
pub fn log_of(spec: &ContainerSpec) -> String {
    let text = fs::read_to_string(&spec.log_path).unwrap_or_default();
    text.lines().map(|line| line.split_once(' ').unwrap().1.to_owned() + "\n").collect()
}

/// Waits until the log has `text`.
pub async fn until_logged(spec: &ContainerSpec, text: &str) {
    until(|| log_of(spec).contains(text)).await;
}

/// Waits until something is so.
pub async fn until(so: impl Fn() -> bool) {
    let look = async {
        while !so() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(SOON, look).await.expect("it is bound to happen");
}

fn make_image(native: &Native) {
    let given = std::env::var_os("KAPSTAN_BUSYBOX").map(PathBuf::from);
    let own = ["/bin/busybox", "/usr/bin/busybox"].map(PathBuf::from);
    let busybox = given.into_iter().chain(own).find(|path| path.exists());
    let busybox = busybox.expect("these tests need a static busybox: run them by cargo xtask test");
    let mut files = vec![FileEntry::new("/bin/busybox", 0o755, Content::HostFile(busybox.clone()))];
    let applets = std::process::Command::new(&busybox).arg("--list").output().unwrap();
    for applet in String::from_utf8(applets.stdout).unwrap().lines().filter(|applet| *applet != "busybox") {
        files.push(FileEntry::new(format!("/bin/{applet}"), 0o777, Content::Symlink("busybox".into())));
    }
    let text = |text: &str| Content::Bytes(text.as_bytes().to_vec());
    files.push(FileEntry::new(
        "/etc/passwd",
        0o644,
        text("root:x:0:0::/root:/bin/sh\nweb:x:101:102::/home/web:/bin/sh\n"),
    ));
    files.push(FileEntry::new("/etc/group", 0o644, text("root:x:0:\nweb:x:102:\nlog:x:7:web\n")));
    files.push(FileEntry::new("/script", 0o644, text("not executable")));
    files.push(FileEntry::new("/escape", 0o777, Content::Symlink("/../../../../etc".into())));
    let image = native.images().build(IMAGE, None, &files, |config| {
        config.set_env(Some(vec!["PATH=/bin".into(), "FROM_IMAGE=yes".into()]));
        config.set_stop_signal(Some("SIGQUIT".into()));
    });
    image.unwrap();
}
