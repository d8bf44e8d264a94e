//! Commands run inside containers (`exec`): for probes, hooks and people.
//!
//! A command joins the namespaces and the group of the container and has its rights. Its output is kept up to
//! [`OUTPUT_MAX`] bytes (the kubelet's bound for probes, `pkg/probe/exec`), the rest is read and dropped. It is killed when
//! its time is over.

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
/// Commands at the same time.
const RUNNING_MAX: usize = 128;

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
        let first = container
            .first_process()
            .ok_or_else(|| Failure::NotFound(format!("running container {}", container.seen.id)))?;
        if self.running.len() >= RUNNING_MAX {
            return Err(Failure::Start(format!("{RUNNING_MAX} commands already run in this pod")));
        }
        let broken = |e: std::io::Error| Failure::Start(format!("cannot make a command's output: {e}"));
        let (write, read) = output_pipe().map_err(broken)?;
        let input = File::open("/dev/null").map_err(broken)?.into();
        let stdio = Stdio { input, output: write.try_clone().map_err(broken)?, error: write, terminal: None };
        let mut process = container.plan.process.clone();
        process.argv = argv;
        let pid = spawn(own_pids, &process, Place::Inside(first), container.cgroup.as_ref(), stdio)?;
        let deadline = Instant::now().checked_add(Duration::from_millis(timeout_ms));
        self.running.push(Command { pid, output: Some(read), text: Vec::new(), deadline, late: false, asker });
        Ok(())
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
