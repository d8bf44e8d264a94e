//! One container as its shim holds it: the first process, its output, its group, its record on disk.
//!
//! The record (`<pod folder>/containers/<id>/container.json`) is on disk before anybody is told of a start or an end, so
//! that an exit code is never lost, whoever crashes.

use super::{
    cgroup::{Cgroup, Hierarchies},
    followers::Followers,
    kill_process,
    log::{Lines, LogFile, Stream, time_stamp},
    passing,
    process::{Place, Stdio, spawn},
    wire::{ContainerPlan, Failure, ShimConfig},
};
use crate::runtime::{ContainerSeen, Exit};
use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    unistd::{Pid, pipe2},
};
use std::{
    fs::{self, File},
    io::{self, Write},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::Path,
};

/// Name of the record within a container's folder.
pub const RECORD: &str = "container.json";
/// Output copied in one go; more waits for the next turn, so that a chatty container cannot starve the others.
const CHUNKS_A_TURN: usize = 16;

struct Output {
    stream: Stream,
    file: Option<OwnedFd>,
    lines: Lines,
}

/// A container, running or ended.
pub struct Container {
    /// What it was made from.
    pub plan: ContainerPlan,
    /// What is known of it.
    pub seen: ContainerSeen,
    /// The group it runs in.
    pub cgroup: Option<Cgroup>,
    /// Containers were started in this order.
    pub order: u64,
    first: Pid,
    outputs: Vec<Output>,
    log: LogFile,
    /// Who else reads what it writes.
    pub followers: Followers,
    /// The other end of standard input; a process that reads it waits as long as this is open.
    input: Option<OwnedFd>,
}

impl Container {
    /// Makes and starts it.
    pub fn start(
        plan: ContainerPlan,
        shim: &ShimConfig,
        own_pids: &OwnedFd,
        hierarchies: &Hierarchies,
        order: u64,
    ) -> Result<Container, Failure> {
        let broken = |what: &str, e: &dyn std::fmt::Display| Failure::Start(format!("{what}: {e}"));
        let log = LogFile::open(&plan.log_path)
            .map_err(|e| broken(&format!("cannot open the log {}", plan.log_path.display()), &e))?;
        let (stdio, mut ends) = make_stdio(&plan).map_err(|e| broken("cannot make standard input and output", &e))?;
        let cgroup = Cgroup::create(hierarchies, &shim.cgroup.join(&plan.id), &plan.limits)?;
        if plan.host_pid && cgroup.is_none() {
            let why = "hostPID needs control groups, which cannot be written here: run the node as root";
            return Err(Failure::Config(why.into()));
        }
        let first = match spawn(own_pids, &plan.process, Place::New(&plan), cgroup.as_ref(), stdio) {
            Ok(first) => first,
            Err(failure) => {
                remove_group(cgroup.as_ref());
                return Err(failure);
            }
        };
        let seen = ContainerSeen {
            name: plan.name.clone(),
            id: plan.id.clone(),
            attempt: plan.attempt,
            image: plan.image.clone(),
            image_id: plan.image_id.clone(),
            started_at_ms: now_ms(),
            exit: None,
        };
        if let Some(socket) = &ends.terminal {
            match passing::receive_one(socket.as_fd()).and_then(|terminal| unblock(&terminal).map(|()| terminal)) {
                Ok(terminal) => ends.outputs.push((Stream::Stdout, terminal)),
                Err(error) => eprintln!("the output of container {} is lost: {error}", plan.id),
            }
        }
        let output = |(stream, file)| Output { stream, file: Some(file), lines: Lines::new(stream) };
        let outputs = ends.outputs.into_iter().map(output).collect();
        let followers = Followers::default();
        let container = Container { plan, seen, cgroup, order, first, outputs, log, followers, input: ends.input };
        if let Err(error) = container.record(shim) {
            container.kill(); // reaped, and forgotten, in a later turn
            return Err(broken("cannot record the container", &error));
        }
        Ok(container)
    }

    /// True when its first process is gone.
    pub fn has_ended(&self) -> bool {
        self.seen.exit.is_some()
    }

    /// True when `pid` is its first process.
    pub fn is(&self, pid: Pid) -> bool {
        !self.has_ended() && self.first == pid
    }

    /// Its first process, while that runs.
    pub fn first_process(&self) -> Option<Pid> {
        (!self.has_ended()).then_some(self.first)
    }

    /// Sends a signal to its first process; `None`: the one that asks it to stop. Too late is fine.
    pub fn signal(&self, number: Option<i32>) -> nix::Result<()> {
        self.first_process().map_or(Ok(()), |first| kill_process(first, number.unwrap_or(self.plan.stop_signal)))
    }

    /// Kills it: when the first process of a namespace is killed, all others in it are. Where it has none of its own, the
    /// others follow once the first is reaped.
    pub fn kill(&self) {
        if let Err(error) = self.signal(Some(libc::SIGKILL)) {
            eprintln!("container {} cannot be killed: {error}", self.seen.id);
        }
    }

    /// The ends of its output that are still open.
    pub fn outputs(&self) -> impl Iterator<Item = (usize, BorrowedFd<'_>)> {
        self.outputs.iter().enumerate().filter_map(|(n, output)| Some((n, output.file.as_ref()?.as_fd())))
    }

    /// Copies what can be read of an output to the log.
    pub fn copy_output(&mut self, n: usize) {
        self.copy(n, CHUNKS_A_TURN);
    }

    fn copy(&mut self, n: usize, chunks: usize) {
        let output = &mut self.outputs[n];
        let now = time_stamp();
        let mut text = Vec::new();
        for _ in 0..chunks {
            match read_some(output.file.as_ref()) {
                Read::Bytes(bytes) => {
                    output.lines.push(&bytes, &now, &mut text);
                    self.followers.write(output.stream, &bytes);
                }
                Read::Later => break,
                Read::End => {
                    output.lines.finish(&now, &mut text);
                    output.file = None;
                    break;
                }
            }
        }
        self.log.write(&text);
    }

    /// Sends its standard input, or its terminal, over `socket`, where it has one, and lets `output` and `error` have what it
    /// writes from now on.
    pub fn attach(&mut self, socket: &OwnedFd, output: OwnedFd, error: OwnedFd) -> io::Result<()> {
        if self.has_ended() {
            return Err(io::Error::other("the container has ended"));
        }
        let terminal = self.outputs.first().filter(|_| self.plan.tty).and_then(|output| output.file.as_ref());
        if let Some(input) = self.input.as_ref().or(terminal) {
            passing::send_one(socket.as_fd(), input.as_fd())?;
        }
        self.followers.add(Stream::Stdout, output)?;
        if !self.plan.tty {
            self.followers.add(Stream::Stderr, error)?;
        }
        Ok(())
    }

    /// Who reads its standard input reads its end, once others who hold it have let go of it too.
    pub fn end_input(&mut self) {
        self.input = None;
    }

    /// Its first process was reaped: takes what is left of the output, records the end, removes the group.
    pub fn ended(&mut self, code: i32, signal: i32, shim: &ShimConfig) -> Exit {
        if let Some(cgroup) = self.cgroup.as_ref().filter(|_| self.plan.host_pid)
            && let Err(error) = cgroup.kill()
        {
            eprintln!("processes of container {} stay: {error}", self.seen.id);
        }
        for n in 0..self.outputs.len() {
            // Every process of the container is dead, so this ends; the pipe's size bounds it.
            self.copy(n, usize::MAX);
            self.outputs[n].file = None;
        }
        self.followers.end();
        let oom_killed = self.cgroup.as_ref().is_some_and(Cgroup::oom_killed);
        let exit = Exit { code, signal, oom_killed, finished_at_ms: now_ms() };
        self.seen.exit = Some(exit.clone());
        if let Err(error) = self.record(shim) {
            eprintln!("the end of container {} cannot be recorded: {error}", self.seen.id);
        }
        remove_group(self.cgroup.as_ref());
        exit
    }

    fn record(&self, shim: &ShimConfig) -> io::Result<()> {
        write_record(&shim.pod_dir.join("containers").join(&self.seen.id), &self.seen)
    }
}

/// Writes a container's record, durably.
pub fn write_record(folder: &Path, seen: &ContainerSeen) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    replace_file(&folder.join(RECORD), &serde_json::to_vec(seen)?)
}

/// Replaces a file as a whole: after a crash it is the old one or the new one.
pub fn replace_file(path: &Path, contents: &[u8]) -> io::Result<()> {
    let fresh = path.with_extension("new");
    let mut file = File::create(&fresh)?;
    file.write_all(contents)?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    path.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

fn remove_group(cgroup: Option<&Cgroup>) {
    if let Some(Err(error)) = cgroup.map(Cgroup::remove) {
        eprintln!("a control group stays: {error}");
    }
}

/// The shim's ends of a container's standard input and output.
struct Ends {
    outputs: Vec<(Stream, OwnedFd)>,
    /// Kept so that a process that reads its input waits.
    input: Option<OwnedFd>,
    /// Where the container's terminal comes from, once it runs.
    terminal: Option<OwnedFd>,
}

fn make_stdio(plan: &ContainerPlan) -> io::Result<(Stdio, Ends)> {
    let nothing = || File::options().read(true).write(true).open("/dev/null").map(OwnedFd::from);
    if plan.tty {
        let (receiver, sender) = passing::channel()?;
        let stdio = Stdio { input: nothing()?, output: nothing()?, error: nothing()?, terminal: Some(sender) };
        return Ok((stdio, Ends { outputs: Vec::new(), input: None, terminal: Some(receiver) }));
    }
    let (output, stdout) = output_pipe()?;
    let (error, stderr) = output_pipe()?;
    let (input, kept) = if plan.stdin {
        let (input, kept) = pipe2(OFlag::O_CLOEXEC)?;
        (input, Some(kept))
    } else {
        (nothing()?, None)
    };
    let outputs = vec![(Stream::Stdout, stdout), (Stream::Stderr, stderr)];
    Ok((Stdio { input, output, error, terminal: None }, Ends { outputs, input: kept, terminal: None }))
}

/// A pipe: the end to write for a process, the end to read (which never blocks) for the shim.
pub fn output_pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
    unblock(&read)?;
    Ok((write, read))
}

/// Reading and writing never waits.
pub fn unblock(file: &OwnedFd) -> io::Result<()> {
    fcntl(file.as_raw_fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok(())
}

/// What one read gave.
pub enum Read {
    /// Bytes.
    Bytes(Vec<u8>),
    /// Nothing yet.
    Later,
    /// No more.
    End,
}

/// Reads what is there.
pub fn read_some(file: Option<&OwnedFd>) -> Read {
    let Some(file) = file else { return Read::Later };
    let mut chunk = vec![0; 32 << 10];
    match nix::unistd::read(file.as_raw_fd(), &mut chunk) {
        Ok(0) => Read::End,
        Ok(n) => {
            chunk.truncate(n);
            Read::Bytes(chunk)
        }
        Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EINTR) => Read::Later,
        Err(_) => Read::End, // a terminal whose other end is closed says EIO
    }
}

/// The time, as records have it.
pub fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}
