//! Commands run inside containers (`exec`): for probes, hooks and people.
//!
//! A command joins the namespaces and the group of the container and has its rights. Its output is kept up to
//! [`OUTPUT_MAX`] bytes (the kubelet's bound for probes, `pkg/probe/exec`), the rest is read and dropped. It is killed when
//! its time is over. A person's command has no bound: it reads and writes the files that came with the request, which end
//! when the person leaves (a terminal hangs up); whether it goes on without them is its own affair, as with containerd.

use super::{
    container::{Container, Read, output_pipe, read_some},
    kill_process,
    process::{Place, Stdio, spawn},
    wire::{Answer, Failure},
};
use nix::unistd::Pid;
use std::{
    fs::File,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::{Duration, Instant},
};

/// Bytes of output kept.
const OUTPUT_MAX: usize = 10 << 10;
/// Commands at the same time, and how many of them may be people's: probes go on whoever looks around in the pod.
const RUNNING_MAX: usize = 128;
const INTERACTIVE_MAX: usize = 64;
/// What a command finds as its terminal's kind, unless the container says another (containerd: `WithEnv("TERM=xterm")`).
const TERMINAL_KIND: &str = "xterm";

struct Command {
    pid: Pid,
    output: Option<OwnedFd>,
    text: Vec<u8>,
    /// `None`: never, or killed already.
    deadline: Option<Instant>,
    late: bool,
    asker: (u64, u64),
}

/// Every command that runs.
#[derive(Default)]
pub struct Commands {
    running: Vec<Command>,
}

impl Commands {
    /// Starts `argv` inside `container`.
    pub fn start(
        &mut self,
        container: &Container,
        argv: Vec<String>,
        timeout_ms: u64,
        own_pids: &OwnedFd,
        asker: (u64, u64),
    ) -> Result<(), Failure> {
        self.admit(RUNNING_MAX)?;
        let broken = |e: std::io::Error| Failure::Start(format!("cannot make a command's output: {e}"));
        let (write, read) = output_pipe().map_err(broken)?;
        let input = File::open("/dev/null").map_err(broken)?.into();
        let stdio = Stdio { input, output: write.try_clone().map_err(broken)?, error: write, terminal: None };
        let pid = run_inside(container, argv, stdio, own_pids)?;
        let deadline = Instant::now().checked_add(Duration::from_millis(timeout_ms));
        self.running.push(Command { pid, output: Some(read), text: Vec::new(), deadline, late: false, asker });
        Ok(())
    }

    /// Starts `argv` inside `container` with a person's files: input, output and error, or where its terminal is sent.
    pub fn start_interactive(
        &mut self,
        container: &Container,
        argv: Vec<String>,
        files: Vec<OwnedFd>,
        own_pids: &OwnedFd,
        asker: (u64, u64),
    ) -> Result<(), Failure> {
        self.admit(INTERACTIVE_MAX)?;
        let pid = run_inside(container, argv, stdio_of(files)?, own_pids)?;
        self.running.push(Command { pid, output: None, text: Vec::new(), deadline: None, late: false, asker });
        Ok(())
    }

    fn admit(&self, most: usize) -> Result<(), Failure> {
        let room = self.running.len() < most;
        room.then_some(()).ok_or_else(|| Failure::Start(format!("{most} commands already run in this pod")))
    }

    /// Outputs that are still open.
    pub fn waits(&self) -> impl Iterator<Item = (Pid, BorrowedFd<'_>)> {
        self.running.iter().filter_map(|command| Some((command.pid, command.output.as_ref()?.as_fd())))
    }

    /// When the next command's time is over.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.running.iter().filter_map(|command| command.deadline).min()
    }

    /// Reads what a command wrote.
    pub fn read(&mut self, pid: Pid) {
        if let Some(command) = self.running.iter_mut().find(|command| command.pid == pid) {
            command.read();
        }
    }

    /// Kills commands whose time is over.
    pub fn kill_late(&mut self, now: Instant) {
        for command in
            self.running.iter_mut().filter(|command| command.deadline.is_some_and(|deadline| deadline <= now))
        {
            command.deadline = None;
            command.late = true;
            // It leads a group of its own; what it started is in there.
            let group = Pid::from_raw(-command.pid.as_raw());
            if let Err(error) = kill_process(group, libc::SIGKILL) {
                eprintln!("late command {} cannot be killed: {error}", command.pid);
            }
        }
    }

    /// A process was reaped: if it was a command, who asked for it and what to answer.
    pub fn ended(&mut self, pid: Pid, code: i32) -> Option<((u64, u64), Answer)> {
        let at = self.running.iter().position(|command| command.pid == pid)?;
        let mut command = self.running.swap_remove(at);
        command.read();
        let answer = if command.late {
            Answer::Failed(Failure::TimedOut)
        } else {
            Answer::Executed { code, output: String::from_utf8_lossy(&command.text).into_owned() }
        };
        Some((command.asker, answer))
    }
}

fn run_inside(container: &Container, argv: Vec<String>, stdio: Stdio, own_pids: &OwnedFd) -> Result<Pid, Failure> {
    let first = container
        .first_process()
        .ok_or_else(|| Failure::NotFound(format!("running container {}", container.seen.id)))?;
    let mut process = container.plan.process.clone();
    process.argv = argv;
    if stdio.terminal.is_some() && !process.env.iter().any(|(name, _)| name == "TERM") {
        process.env.push(("TERM".into(), TERMINAL_KIND.into()));
    }
    spawn(own_pids, &process, Place::Inside(first), container.cgroup.as_ref(), stdio)
}

fn stdio_of(files: Vec<OwnedFd>) -> Result<Stdio, Failure> {
    let broken = |e: std::io::Error| Failure::Start(format!("/dev/null: {e}"));
    let nothing = || File::options().read(true).write(true).open("/dev/null").map(OwnedFd::from).map_err(broken);
    let mut files = files.into_iter();
    match (files.next(), files.next(), files.next()) {
        (Some(input), Some(output), Some(error)) => Ok(Stdio { input, output, error, terminal: None }),
        (Some(terminal), None, None) => {
            Ok(Stdio { input: nothing()?, output: nothing()?, error: nothing()?, terminal: Some(terminal) })
        }
        _ => Err(Failure::Start("a command needs three files, or one for its terminal".into())),
    }
}

impl Command {
    fn read(&mut self) {
        loop {
            match read_some(self.output.as_ref()) {
                Read::Bytes(bytes) => {
                    let room = OUTPUT_MAX.saturating_sub(self.text.len()).min(bytes.len());
                    self.text.extend_from_slice(&bytes[..room]);
                }
                Read::Later => return,
                Read::End => {
                    self.output = None;
                    return;
                }
            }
        }
    }
}
