//! From the shim to a running program: one fork, the namespaces, the rights, `execve`.
//!
//! The shim has one thread, so the child may do what it likes between fork and exec. The pod's network, IPC and host names
//! are the shim's own and are inherited; the process namespace is entered around the fork, the mount namespace in the
//! child. What fails before `execve` comes back through a pipe that `execve` closes, so a start is answered only when the
//! program runs. Messages are those that users of the kubelet with runc know.

use super::{cgroup::Cgroup, rights, rootfs, terminal, wire::ContainerPlan, wire::Failure, wire::Process};
use nix::{
    errno::Errno,
    fcntl::OFlag,
    sched::{CloneFlags, setns, unshare},
    sys::{
        prctl,
        resource::{Resource, getrlimit, setrlimit},
        signal::{SigHandler, SigSet, SigmaskHow, Signal, signal, sigprocmask},
        stat::{Mode, umask},
        wait::waitpid,
    },
    unistd::{ForkResult, Gid, Pid, Uid, dup2, execve, fchown, fork, pipe2, setsid},
};
use rustix::process::PidfdFlags;
use std::{
    ffi::CString,
    fs::{self, File},
    io::{Read, Write},
    os::fd::{AsFd, AsRawFd, OwnedFd},
    os::unix::fs::PermissionsExt,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

/// Where programs are looked up when the image says nothing.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// How soon the kernel ends a process when memory runs out.
pub const OOM_SCORE: &str = "/proc/self/oom_score_adj";

/// A process's three first files.
pub struct Stdio {
    /// Standard input.
    pub input: OwnedFd,
    /// Standard output.
    pub output: OwnedFd,
    /// Standard error.
    pub error: OwnedFd,
    /// When the process gets a terminal instead: where it sends the terminal's other end.
    pub terminal: Option<OwnedFd>,
}

/// Where a process goes.
pub enum Place<'a> {
    /// It is a container's first.
    New(&'a ContainerPlan),
    /// Beside a container's first process, whose pid this is.
    Inside(Pid),
}

/// Starts `process`; returns when the program runs.
pub fn spawn(
    own_pids: &OwnedFd,
    process: &Process,
    place: Place,
    cgroup: Option<&Cgroup>,
    stdio: Stdio,
) -> Result<Pid, Failure> {
    let broken = |what: &str, e: Errno| Failure::Start(format!("{what}: {e}"));
    let (report, reporter) = pipe2(OFlag::O_CLOEXEC).map_err(|e| broken("cannot make a pipe", e))?;
    let first = match place {
        Place::New(plan) if plan.host_pid => None,
        Place::New(_) => {
            unshare(CloneFlags::CLONE_NEWPID).map_err(|e| broken("cannot make a process namespace", e))?;
            None
        }
        Place::Inside(first) => {
            let first = open_process(first).map_err(|e| Failure::Start(format!("the container has ended: {e}")))?;
            setns(&first, CloneFlags::CLONE_NEWPID).map_err(|e| broken("cannot enter the process namespace", e))?;
            Some(first)
        }
    };
    match fork_process() {
        Ok(ForkResult::Child) => {
            let failure = catch_unwind(AssertUnwindSafe(|| become_program(process, &place, first, cgroup, &stdio)));
            let failure = failure
                .unwrap_or_else(|_| Failure::Start("the container's process panicked before it was executed".into()));
            let _ = File::from(reporter).write_all(&serde_json::to_vec(&failure).unwrap_or_default());
            exit_at_once();
        }
        forked => {
            setns(own_pids, CloneFlags::CLONE_NEWPID)
                .map_err(|e| broken("cannot come back from the process namespace", e))?;
            drop((reporter, stdio));
            let Ok(ForkResult::Parent { child }) = forked else {
                // The process namespace of a container that is ending takes no more processes.
                let why = "cannot fork: the container ends, or there are too many processes";
                return Err(Failure::Start(why.into()));
            };
            let mut text = Vec::new();
            let _ = File::from(report).read_to_end(&mut text);
            if text.is_empty() {
                return Ok(child);
            }
            let _ = waitpid(child, None);
            Err(serde_json::from_slice(&text)
                .unwrap_or_else(|_| Failure::Start("the container's process failed before it was executed".into())))
        }
    }
}

fn open_process(pid: Pid) -> nix::Result<OwnedFd> {
    let pid = rustix::process::Pid::from_raw(pid.as_raw()).ok_or(Errno::ESRCH)?;
    rustix::process::pidfd_open(pid, PidfdFlags::empty()).map_err(|e| Errno::from_raw(e.raw_os_error()))
}

#[expect(unsafe_code, reason = "fork(2): sound because the shim has one thread")]
fn fork_process() -> nix::Result<ForkResult> {
    // SAFETY: the shim starts no threads, so no lock can be held by one that the child lacks.
    unsafe { fork() }
}

#[expect(unsafe_code, reason = "leaves without running the shim's exit handlers in the child")]
fn exit_at_once() -> ! {
    // SAFETY: ends the process; nothing runs after it.
    unsafe { libc::_exit(127) }
}

fn become_program(
    process: &Process,
    place: &Place,
    first: Option<OwnedFd>,
    cgroup: Option<&Cgroup>,
    stdio: &Stdio,
) -> Failure {
    match prepare(process, place, first, cgroup, stdio) {
        Ok(()) => execute(process),
        Err(failure) => failure,
    }
}

fn prepare(
    process: &Process,
    place: &Place,
    first: Option<OwnedFd>,
    cgroup: Option<&Cgroup>,
    stdio: &Stdio,
) -> Result<(), Failure> {
    let start = |what: &str, e: &dyn std::fmt::Display| Failure::Start(format!("{what}: {e}"));
    let _ = fs::write(OOM_SCORE, "0"); // the shim's own is not passed on
    // While it is still the shim's program, nobody in the container may trace it or open its files.
    prctl::set_dumpable(false).map_err(|e| start("prctl", &e))?;
    setsid().map_err(|e| start("setsid", &e))?;
    if let Some(cgroup) = cgroup {
        cgroup.join().map_err(|e| start("cannot join the control group", &e))?;
    }
    umask(Mode::empty());
    match (place, first) {
        (Place::New(plan), _) => rootfs::enter(plan, cgroup).map_err(Failure::Start)?,
        (Place::Inside(_), Some(first)) => {
            let groups = if cgroup.is_some() { CloneFlags::CLONE_NEWCGROUP } else { CloneFlags::empty() };
            setns(first, CloneFlags::CLONE_NEWNS | groups).map_err(|e| start("cannot enter the container", &e))?
        }
        (Place::Inside(_), None) => return Err(Failure::Start("no container to enter".into())),
    }
    umask(Mode::from_bits_truncate(0o022));
    open_stdio(process, stdio).map_err(|e| start("standard input and output", &e))?;
    allow_open_files(process.open_files).map_err(|e| start("the bound of open files", &e))?;
    rustix::process::chdir(&process.cwd)
        .map_err(|e| start(&format!("cannot change to the working directory {}", process.cwd.display()), &e))?;
    rights::keep(process)?;
    reset_signals().map_err(|e| start("signals", &e))?;
    // The container must not outlive the process that holds its output and its exit code.
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(|e| start("prctl", &e))?;
    mark_close_on_exec().map_err(|e| start("close_range", &e))
}

/// As many as asked for, or, without the right to go beyond it, as many as the node may have itself.
fn allow_open_files(wanted: u64) -> nix::Result<()> {
    setrlimit(Resource::RLIMIT_NOFILE, wanted, wanted).or_else(|_| {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
        setrlimit(Resource::RLIMIT_NOFILE, wanted.min(hard), wanted.min(hard))
    })
}

fn open_stdio(process: &Process, stdio: &Stdio) -> nix::Result<()> {
    if let Some(sender) = &stdio.terminal {
        let terminal = terminal::make(process, sender)?;
        (0..=2).try_for_each(|number| dup2(terminal.as_raw_fd(), number).map(drop))?;
        return terminal::take();
    }
    for (file, number) in [(&stdio.input, 0), (&stdio.output, 1), (&stdio.error, 2)] {
        dup2(file.as_raw_fd(), number)?;
        // Programs open /dev/stdout by name; it must belong to whom they run as. Devices are left alone.
        let own = rustix::fs::fstat(file.as_fd()).is_ok_and(|found| found.st_mode & libc::S_IFMT == libc::S_IFIFO);
        if own && process.uid != 0 {
            let _ = fchown(number, Some(Uid::from_raw(process.uid)), Some(Gid::from_raw(process.gid)));
        }
    }
    Ok(())
}

/// All of them: what the shim ignores, and what whoever started the node ignored (a shell does with SIGQUIT, of programs
/// in the background), would else stay ignored in the container for good.
#[expect(unsafe_code, reason = "signal(2): only default handlers are set")]
fn reset_signals() -> nix::Result<()> {
    for changed in Signal::iterator().filter(|signal| !matches!(signal, Signal::SIGKILL | Signal::SIGSTOP)) {
        // SAFETY: the default action is no handler of ours.
        unsafe { signal(changed, SigHandler::SigDfl) }?;
    }
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)
}

#[expect(unsafe_code, reason = "close_range(2) has no safe wrapper")]
fn mark_close_on_exec() -> nix::Result<()> {
    // SAFETY: changes flags of file descriptors, which exec is about to close; no memory is touched.
    Errno::result(unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) })
        .map(drop)
}

fn execute(process: &Process) -> Failure {
    let name = process.argv.first().cloned().unwrap_or_default();
    let failed =
        |why: String| Failure::Start(format!("unable to start container process: exec: {name:?}: {why}: unknown"));
    let path = match look_up(&name, process) {
        Ok(path) => path,
        Err(why) => return failed(why),
    };
    let text = |s: &str| CString::new(s).map_err(|_| failed("argument or variable with a zero byte".into()));
    let run = || {
        let path = text(&path.to_string_lossy())?;
        let argv = process.argv.iter().map(|a| text(a)).collect::<Result<Vec<_>, _>>()?;
        let env = process.env.iter().map(|(k, v)| text(&format!("{k}={v}"))).collect::<Result<Vec<_>, _>>()?;
        Err(failed(execve(&path, &argv, &env).map_or_else(|e| e.desc().to_lowercase(), |never| match never {})))
    };
    run().map_or_else(|failure| failure, |never: std::convert::Infallible| match never {})
}

/// Finds the program as the shell would; wording of Go's `os/exec`.
fn look_up(name: &str, process: &Process) -> Result<PathBuf, String> {
    if name.contains('/') {
        return match fs::metadata(name) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                Err(format!("stat {name}: no such file or directory"))
            }
            Err(e) => {
                Err(format!("stat {name}: {}", Errno::from_raw(e.raw_os_error().unwrap_or(0)).desc().to_lowercase()))
            }
            Ok(found) if found.is_dir() => Err("is a directory".into()),
            Ok(found) if found.permissions().mode() & 0o111 == 0 => Err("permission denied".into()),
            Ok(_) => Ok(name.into()),
        };
    }
    let path = process.env.iter().find(|(key, _)| key == "PATH").map_or(DEFAULT_PATH, |(_, value)| value);
    let runs =
        |candidate: &PathBuf| fs::metadata(candidate).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0);
    path.split(':')
        .map(|folder| Path::new(if folder.is_empty() { "." } else { folder }).join(name))
        .find(runs)
        .ok_or_else(|| "executable file not found in $PATH".into())
}
