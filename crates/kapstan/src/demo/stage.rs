//! The demo's stage: namespaces of its own, with no route out, that vanish with it.
//!
//! Three processes, each the same program: the outer one makes the namespaces and cleans up behind them; the first
//! process inside (pid 1) mounts what is needed and reaps; the story plays below it. However the story ends, the kernel
//! ends everything inside with pid 1.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigHandler, SigSet, Signal, signal};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, getegid, geteuid};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};

/// Names the part a process plays; unset: the outer one.
pub const ROLE: &str = "KAPSTAN_DEMO_ROLE";
/// Names the demo's folder to the processes inside.
pub const FOLDER: &str = "KAPSTAN_DEMO_FOLDER";
/// Size of the file system that holds the demo's images, containers and store.
const SCRATCH: &str = "size=512m,mode=0755";

/// Why the demo has no containers on this machine.
pub struct NoStage(pub String);

/// Makes the namespaces and runs the story inside; returns its exit code.
pub fn play(arguments: &[String]) -> Result<ExitCode, NoStage> {
    let folder =
        tempfile::Builder::new().prefix("kapstan-demo-").tempdir().map_err(|error| NoStage(error.to_string()))?;
    let ordinary = !geteuid().is_root();
    let (user, group) = (geteuid(), getegid());
    let mut flags =
        CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWIPC;
    if ordinary {
        flags |= CloneFlags::CLONE_NEWUSER;
    }
    unshare(flags).map_err(|error| NoStage(format!("namespaces cannot be made here: {error}")))?;
    if ordinary {
        map_to_root(user.as_raw(), group.as_raw()).map_err(|error| NoStage(format!("user namespace: {error}")))?;
    }
    // The terminal's Ctrl-C reaches the story itself; this process only cleans up behind it.
    ignore(Signal::SIGINT);
    let inside = start(arguments, "init", folder.path()).map_err(NoStage)?;
    let status = watch_over(inside).map_err(NoStage)?;
    clean_up(folder);
    Ok(code(status))
}

/// Pid 1 of the stage: furnishes it, starts the story, and reaps until that has ended.
pub fn init(arguments: &[String]) -> Result<ExitCode, String> {
    ignore(Signal::SIGINT);
    furnish().map_err(|error| format!("the demo's stage: {error}"))?;
    let story = start(arguments, "story", &folder())?;
    watch_over(story).map(code)
}

fn start(arguments: &[String], role: &str, folder: &Path) -> Result<Pid, String> {
    let mut command = Command::new("/proc/self/exe");
    command.args(arguments).env(ROLE, role).env(FOLDER, folder);
    let child = command.spawn().map_err(|error| format!("the program cannot start itself: {error}"))?;
    Ok(Pid::from_raw(child.id() as i32))
}

/// Passes requests to stop on to `child`, and reaps until it has ended. No thread: none can be made in a process whose
/// children live in another pid namespace.
fn watch_over(child: Pid) -> Result<i32, String> {
    let lost = |error: nix::errno::Errno| format!("the demo lost sight of its own process: {error}");
    let mut awaited = SigSet::empty();
    [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGCHLD].into_iter().for_each(|signal| awaited.add(signal));
    awaited.thread_block().map_err(lost)?;
    loop {
        while let Some(ended) = reap().map_err(lost)? {
            if ended.0 == child {
                return Ok(ended.1);
            }
        }
        let signal = awaited.wait().map_err(lost)?;
        if signal != Signal::SIGCHLD {
            // If the child has ended already, the next round of reaping finds it.
            nix::sys::signal::kill(child, signal).ok();
        }
    }
}

/// One child that has ended, with its exit code.
fn reap() -> Result<Option<(Pid, i32)>, nix::errno::Errno> {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, status)) => return Ok(Some((pid, status))),
            Ok(WaitStatus::Signaled(pid, signal, _)) => return Ok(Some((pid, 128 + signal as i32))),
            Ok(WaitStatus::StillAlive) => return Ok(None),
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error),
        }
    }
}

/// The folder that this process's demo uses.
pub fn folder() -> PathBuf {
    std::env::var_os(FOLDER).map_or_else(std::env::temp_dir, PathBuf::from)
}

fn furnish() -> rustix::io::Result<()> {
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    mount("proc", "/proc", "proc", MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC, None)?;
    let options = std::ffi::CString::new(SCRATCH).map_err(|_| rustix::io::Errno::INVAL)?;
    mount("tmpfs", folder(), "tmpfs", MountFlags::NOSUID, options.as_c_str())
}

fn map_to_root(user: u32, group: u32) -> std::io::Result<()> {
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("0 {user} 1"))?;
    fs::write("/proc/self/gid_map", format!("0 {group} 1"))
}

/// The scratch file system and the control groups outlive the processes inside.
fn clean_up(folder: tempfile::TempDir) {
    // Where the stage was never furnished there is nothing to unmount.
    rustix::mount::unmount(folder.path(), rustix::mount::UnmountFlags::DETACH).ok();
    let name = folder.path().file_name().map(std::ffi::OsStr::to_owned);
    if let Err(error) = folder.close() {
        eprintln!("the demo's folder could not be removed: {error}");
    }
    let hierarchies = fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
    for (hierarchy, name) in hierarchies.zip(name.iter().cycle()) {
        remove_groups(&hierarchy.path().join(name));
    }
}

fn remove_groups(group: &Path) {
    for below in fs::read_dir(group).into_iter().flatten().flatten() {
        if below.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_groups(&below.path());
        }
    }
    // A group that was never made, or is not empty yet, is the kernel's to say.
    fs::remove_dir(group).ok();
}

#[expect(unsafe_code, reason = "ignoring a signal installs no handler that could run code")]
fn ignore(which: Signal) {
    // SAFETY: SIG_IGN runs no code of ours.
    if let Err(error) = unsafe { signal(which, SigHandler::SigIgn) } {
        eprintln!("{which} cannot be ignored: {error}");
    }
}

fn code(status: i32) -> ExitCode {
    u8::try_from(status).map_or(ExitCode::FAILURE, ExitCode::from)
}
