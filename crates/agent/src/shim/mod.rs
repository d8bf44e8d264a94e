//! The shim: one small process per pod that owns its containers, so that the agent may stop, crash and be replaced.
//!
//! The same binary, executed again with the hidden verb `shim`. It *is* the sandbox: it lives in the pod's network, IPC
//! and host name namespaces, which last as long as it does. It makes the containers, is their parent, copies their output
//! to log files, and records how each ended before it tells anybody. It has one thread and waits in one `poll`; it never
//! talks to a server or registry and decides nothing: what runs and when is the agent's business. Does the work of
//! containerd's `containerd-shim-runc-v2`, without a runtime binary (why: `docs/decisions/0003-containers.md`).

pub mod cgroup;
mod commands;
mod connection;
mod container;
mod followers;
mod log;
pub mod passing;
mod process;
mod rights;
pub mod rootfs;
mod seccomp;
mod terminal;
pub mod wire;

pub use container::{RECORD, now_ms, replace_file, write_record};
pub use log::{FILES_KEPT, rotated};
pub use process::DEFAULT_PATH;

use cgroup::Hierarchies;
use commands::Commands;
use connection::Connections;
use container::Container;
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sched::{CloneFlags, unshare},
    sys::{
        prctl,
        signal::{SigHandler, SigSet, SigmaskHow, Signal, kill, signal, sigprocmask},
        signalfd::{SfdFlags, SignalFd},
        stat::{Mode, umask},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{ForkResult, Pid, dup2, fork, getppid, pipe2, sethostname, setsid},
};
use rustix::fs::FlockOperation;
use std::{
    collections::BTreeMap,
    fs::File,
    io::{Read, Write},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    os::unix::net::UnixListener,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    time::Instant,
};
use wire::{Answer, Ask, Failure, Message, Request, ShimConfig};

/// The shim's `main`, to be called before any thread is started. `args` are what follows the verb: a [`ShimConfig`].
///
/// Returns 0 when the shim serves, in a process of its own that outlives this one; otherwise says why not.
pub fn main(args: &[String]) -> i32 {
    let config: ShimConfig = match args.first().map(|text| serde_json::from_str(text)) {
        Some(Ok(config)) => config,
        _ => {
            eprintln!("this verb is for kapstan itself: an agent starts a shim for each pod");
            return 2;
        }
    };
    if let Err(error) = die_with(config.agent) {
        eprintln!("{error}");
        return 1;
    }
    match detach() {
        Err(error) => {
            eprintln!("cannot fork: {error}");
            1
        }
        Ok(Detached::Parent(report)) => await_ready(report),
        Ok(Detached::Child(reporter)) => serve(config, reporter),
    }
}

/// An agent that dies now never learns of the shim. This process dies with it, and the shim, which is told nothing of
/// that by the kernel, then cannot say that it is ready, and ends.
fn die_with(agent: u32) -> Result<(), String> {
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(|error| format!("prctl: {error}"))?;
    // It may have died before the kernel knew.
    if getppid().as_raw().unsigned_abs() == agent {
        Ok(())
    } else {
        Err("the agent that started this shim is gone".into())
    }
}

enum Detached {
    Parent(OwnedFd),
    Child(OwnedFd),
}

#[expect(unsafe_code, reason = "fork(2): sound because the process has one thread")]
fn detach() -> nix::Result<Detached> {
    let (report, reporter) = pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    // SAFETY: called first thing in `main`, before any thread exists.
    Ok(match unsafe { fork() }? {
        ForkResult::Parent { .. } => Detached::Parent(report),
        ForkResult::Child => Detached::Child(reporter),
    })
}

/// What containerd gives its shims.
const SPARED: &str = "-998";

/// Word with which a shim says that it serves.
const READY: &str = "ready";

fn await_ready(report: OwnedFd) -> i32 {
    let mut text = String::new();
    let _ = File::from(report).read_to_string(&mut text);
    if text == READY {
        return 0;
    }
    eprintln!(
        "{}",
        if text.is_empty() { "the shim ended while it started: see shim.log in the pod's folder" } else { &text }
    );
    1
}

fn serve(config: ShimConfig, reporter: OwnedFd) -> i32 {
    let mut reporter = File::from(reporter);
    match Shim::open(config) {
        Err(error) => {
            let _ = reporter.write_all(error.as_bytes());
            1
        }
        Ok(shim) => {
            if reporter.write_all(READY.as_bytes()).is_err() {
                return 1;
            }
            drop(reporter);
            shim.run()
        }
    }
}

/// What was heard in one turn.
enum Heard {
    Knock,
    Child,
    Agent(u64),
    Output(String, usize),
    Follower(String, u64),
    Command(Pid),
}

struct Shim {
    config: ShimConfig,
    own_pids: OwnedFd,
    hierarchies: Hierarchies,
    listener: UnixListener,
    children: SignalFd,
    agents: Connections,
    containers: BTreeMap<String, Container>,
    commands: Commands,
    /// Number of containers started: keeps them in order.
    started: u64,
    /// Who asked it to stop.
    stopping: Option<(u64, u64)>,
}

impl Shim {
    fn open(config: ShimConfig) -> Result<Shim, String> {
        let step = |what: &str, e: &dyn std::fmt::Display| format!("shim of pod {}: {what}: {e}", config.pod_uid);
        detach_from_agent(&config).map_err(|e| step("cannot detach from the agent", &e))?;
        let own_pids = File::open("/proc/self/ns/pid").map_err(|e| step("/proc/self/ns/pid", &e))?.into();
        enter_sandbox(&config).map_err(|e| step("cannot make the pod's namespaces", &e))?;
        for (name, value) in &config.sysctls {
            std::fs::write(parameter(name), value).map_err(|e| step(&format!("sysctl {name}"), &e))?;
        }
        let children = watch_children().map_err(|e| step("signals", &e))?;
        let listener = listen(&config).map_err(|e| step("cannot listen on its socket", &e))?;
        let hierarchies = Hierarchies::discover();
        if let Err(error) = hierarchies.leave_unit(&config.cgroup.join("shim")) {
            eprintln!("the shim stays in its agent's control group, and ends with it: {error}");
        }
        Ok(Shim {
            own_pids,
            hierarchies,
            listener,
            children,
            agents: Connections::default(),
            containers: BTreeMap::new(),
            commands: Commands::default(),
            started: 0,
            stopping: None,
            config,
        })
    }

    fn run(mut self) -> i32 {
        loop {
            for heard in self.listen() {
                // A fault in one request must not take the pod with it; the panic is in shim.log.
                let _ = catch_unwind(AssertUnwindSafe(|| self.hear(heard)));
            }
            self.commands.kill_late(Instant::now());
            if self.stopping.is_some() && self.containers.values().all(Container::has_ended) {
                return self.end();
            }
        }
    }

    fn listen(&self) -> Vec<Heard> {
        let mut waits: Vec<(BorrowedFd, PollFlags, Heard)> = vec![
            (self.listener.as_fd(), PollFlags::POLLIN, Heard::Knock),
            (self.children.as_fd(), PollFlags::POLLIN, Heard::Child),
        ];
        waits.extend(self.agents.waits().map(|(id, file, flags)| (file, flags, Heard::Agent(id))));
        for (id, container) in &self.containers {
            waits.extend(container.outputs().map(|(n, file)| (file, PollFlags::POLLIN, Heard::Output(id.clone(), n))));
            let followers = container.followers.waits();
            waits.extend(followers.map(|(n, file, flags)| (file, flags, Heard::Follower(id.clone(), n))));
        }
        waits.extend(self.commands.waits().map(|(pid, file)| (file, PollFlags::POLLIN, Heard::Command(pid))));
        let timeout = self.commands.next_deadline().map_or(PollTimeout::NONE, |deadline| {
            let left = deadline.saturating_duration_since(Instant::now());
            PollTimeout::try_from(left.as_millis() + 1).unwrap_or(PollTimeout::MAX)
        });
        let mut polled: Vec<PollFd> = waits.iter().map(|(file, flags, _)| PollFd::new(*file, *flags)).collect();
        if poll(&mut polled, timeout).is_err() {
            return Vec::new(); // interrupted
        }
        let ready: Vec<bool> = polled.iter().map(|p| p.any().unwrap_or(true)).collect();
        waits.into_iter().zip(ready).filter(|(_, ready)| *ready).map(|((_, _, heard), _)| heard).collect()
    }

    fn hear(&mut self, heard: Heard) {
        match heard {
            Heard::Knock => self.agents.accept(&self.listener),
            Heard::Child => self.reap(),
            Heard::Agent(id) => {
                for (request, files) in self.agents.turn(id) {
                    self.answer(id, request, files);
                }
            }
            Heard::Output(id, n) => {
                if let Some(container) = self.containers.get_mut(&id) {
                    container.copy_output(n);
                }
            }
            Heard::Follower(id, n) => {
                if let Some(container) = self.containers.get_mut(&id) {
                    container.followers.turn(n);
                }
            }
            Heard::Command(pid) => self.commands.read(pid),
        }
    }

    fn answer(&mut self, agent: u64, request: Request, files: Vec<OwnedFd>) {
        let answer = match request.ask {
            // Who comes anew finds no sandbox that is on its way out: it makes another, which waits until this one is gone.
            Ask::State if self.stopping.is_some() => Err(Failure::NotFound(format!("pod {}", self.config.pod_uid))),
            Ask::State => Ok(self.state()),
            Ask::Start(plan) => self.start(*plan),
            Ask::Signal { container, signal } => self.signal(&container, signal),
            Ask::Exec { container, argv, timeout_ms } => {
                match self.execute(&container, argv, timeout_ms, (agent, request.number)) {
                    Ok(()) => return, // answered when it ends
                    Err(failure) => Err(failure),
                }
            }
            Ask::Interact { container, argv, .. } => {
                match self.interact(&container, argv, files, (agent, request.number)) {
                    Ok(()) => return, // answered when it ends
                    Err(failure) => Err(failure),
                }
            }
            Ask::Attach { container } => self.attach(&container, files),
            Ask::EndInput { container } => self.end_input(&container),
            Ask::Remove { container } => self.remove(&container),
            Ask::Stop => {
                self.stopping = Some((agent, request.number));
                self.containers.values().for_each(Container::kill);
                return;
            }
        };
        self.send(agent, request.number, answer.unwrap_or_else(Answer::Failed));
    }

    fn send(&mut self, agent: u64, number: u64, answer: Answer) {
        self.agents.send(agent, &Message::Answer { number, answer });
    }

    fn state(&self) -> Answer {
        let mut containers: Vec<&Container> = self.containers.values().collect();
        containers.sort_by_key(|container| container.order);
        Answer::State { pid: Pid::this().as_raw(), containers: containers.iter().map(|c| c.seen.clone()).collect() }
    }

    fn start(&mut self, plan: wire::ContainerPlan) -> Result<Answer, Failure> {
        if self.stopping.is_some() {
            return Err(Failure::Start("the pod is being stopped".into()));
        }
        if let Some(known) = self.containers.get(&plan.id) {
            return Ok(Answer::Started(known.seen.clone()));
        }
        self.started += 1;
        let container = Container::start(plan, &self.config, &self.own_pids, &self.hierarchies, self.started)?;
        let seen = container.seen.clone();
        self.containers.insert(seen.id.clone(), container);
        Ok(Answer::Started(seen))
    }

    fn signal(&self, id: &str, number: Option<i32>) -> Result<Answer, Failure> {
        let container = self.find(id)?;
        container.signal(number).map_err(|e| Failure::Start(format!("cannot signal container {id}: {e}")))?;
        Ok(Answer::Done)
    }

    fn execute(&mut self, id: &str, argv: Vec<String>, timeout_ms: u64, asker: (u64, u64)) -> Result<(), Failure> {
        let container = self.containers.get(id).ok_or_else(|| Failure::NotFound(format!("container {id}")))?;
        self.commands.start(container, argv, timeout_ms, &self.own_pids, asker)
    }

    fn interact(&mut self, id: &str, argv: Vec<String>, files: Vec<OwnedFd>, asker: (u64, u64)) -> Result<(), Failure> {
        let container = self.containers.get(id).ok_or_else(|| Failure::NotFound(format!("container {id}")))?;
        self.commands.start_interactive(container, argv, files, &self.own_pids, asker)
    }

    fn attach(&mut self, id: &str, files: Vec<OwnedFd>) -> Result<Answer, Failure> {
        let container = self.containers.get_mut(id).ok_or_else(|| Failure::NotFound(format!("container {id}")))?;
        let Ok([socket, output, error]) = <[OwnedFd; 3]>::try_from(files) else {
            return Err(Failure::Start("three files were to come along".into()));
        };
        let attached = container.attach(&socket, output, error);
        attached.map(|()| Answer::Done).map_err(|e| Failure::Start(format!("cannot attach to container {id}: {e}")))
    }

    fn end_input(&mut self, id: &str) -> Result<Answer, Failure> {
        let container = self.containers.get_mut(id).ok_or_else(|| Failure::NotFound(format!("container {id}")))?;
        container.end_input();
        Ok(Answer::Done)
    }

    fn remove(&mut self, id: &str) -> Result<Answer, Failure> {
        let container = self.find(id)?;
        if !container.has_ended() {
            return Err(Failure::Start(format!("container {id} still runs: stop it first")));
        }
        self.containers.remove(id);
        Ok(Answer::Done)
    }

    fn find(&self, id: &str) -> Result<&Container, Failure> {
        self.containers.get(id).ok_or_else(|| Failure::NotFound(format!("container {id}")))
    }

    fn reap(&mut self) {
        while let Ok(Some(_)) = self.children.read_signal() {}
        loop {
            let (pid, code, signal) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => (pid, code, 0),
                Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, 128 + signal as i32, signal as i32),
                Ok(WaitStatus::StillAlive) | Err(_) => return,
                Ok(_) => continue,
            };
            self.ended(pid, code, signal);
        }
    }

    fn ended(&mut self, pid: Pid, code: i32, signal: i32) {
        if let Some(((agent, number), answer)) = self.commands.ended(pid, code) {
            self.send(agent, number, answer);
        } else if let Some(container) = self.containers.values_mut().find(|container| container.is(pid)) {
            let exit = container.ended(code, signal, &self.config);
            let message = Message::Exited { container: container.seen.id.clone(), exit };
            self.agents.send_all(&message);
        }
        // Anything else was orphaned in a container's namespace and is now laid to rest.
    }

    fn end(mut self) -> i32 {
        let _ = std::fs::remove_file(ShimConfig::socket_name(&self.config.pod_uid));
        if let Some((agent, number)) = self.stopping {
            self.send(agent, number, Answer::Done);
            self.agents.flush();
        }
        0
    }
}

/// A session of its own, no files of the agent, panics and errors to a file.
fn detach_from_agent(config: &ShimConfig) -> std::io::Result<()> {
    setsid()?;
    umask(Mode::from_bits_truncate(0o077));
    std::fs::create_dir_all(&config.pod_dir)?;
    let nothing = File::options().read(true).write(true).open("/dev/null")?;
    let errors = File::options().create(true).append(true).open(config.pod_dir.join("shim.log"))?;
    // Held as long as the shim lives: a pod has one. Another may just be on its way out.
    rustix::fs::flock(&errors, FlockOperation::LockExclusive)?;
    dup2(nothing.as_raw_fd(), 0)?;
    dup2(nothing.as_raw_fd(), 1)?;
    dup2(errors.as_raw_fd(), 2)?;
    prctl::set_child_subreaper(true)?;
    // When the node runs out of memory, a container goes, not what holds them all. An ordinary user may not ask for it.
    let _ = std::fs::write(process::OOM_SCORE, SPARED);
    Ok(())
}

fn enter_sandbox(config: &ShimConfig) -> nix::Result<()> {
    if !config.host_ipc {
        unshare(CloneFlags::CLONE_NEWIPC)?;
    }
    if config.host_network {
        return Ok(());
    }
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWUTS)?;
    sethostname(&config.hostname)
}

/// Where the kernel has a parameter, as this process's namespaces have it.
fn parameter(name: &str) -> PathBuf {
    Path::new("/proc/sys").join(name.replace('.', "/"))
}

#[expect(unsafe_code, reason = "signal(2): signals are only ignored")]
fn watch_children() -> nix::Result<SignalFd> {
    for ignored in [Signal::SIGPIPE, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        // SAFETY: ignoring installs no handler.
        unsafe { signal(ignored, SigHandler::SigIgn) }?;
    }
    let mut watched = SigSet::empty();
    watched.add(Signal::SIGCHLD);
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&watched), None)?;
    SignalFd::with_flags(&watched, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
}

/// The socket is bound by its short name: the folder's path may be longer than an address can be.
fn listen(config: &ShimConfig) -> std::io::Result<UnixListener> {
    std::env::set_current_dir(&config.run_dir)?;
    let name = ShimConfig::socket_name(&config.pod_uid);
    let _ = std::fs::remove_file(&name);
    let listener = UnixListener::bind(&name)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn kill_process(pid: Pid, signal: i32) -> nix::Result<()> {
    kill(pid, Signal::try_from(signal)?)
}
