//! Terminals: made by the container's process in its own `/dev/pts`, so that they have a name there; the other end is sent
//! to who reads what is written to them: the shim for a container, the agent for a command that a person runs.

use super::{passing, wire::Process};
use nix::{
    errno::Errno,
    fcntl::OFlag,
    pty::{grantpt, posix_openpt, ptsname_r, unlockpt},
    unistd::{Uid, fchown},
};
use rustix::fs::{Mode, OFlags};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

/// A terminal of the container's own `/dev/pts`, so that it has a name there.
pub fn make(process: &Process, sender: &OwnedFd) -> nix::Result<OwnedFd> {
    let master = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    let name = ptsname_r(&master)?;
    let terminal = rustix::fs::open(&name, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty());
    let terminal = terminal.map_err(|e| Errno::from_raw(e.raw_os_error()))?;
    let _ = fchown(terminal.as_raw_fd(), Some(Uid::from_raw(process.uid)), None);
    let sent = passing::send_one(sender.as_fd(), master.as_fd());
    sent.map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or(libc::EIO)))?;
    Ok(terminal)
}

/// Makes standard input, a terminal, the controlling one.
#[expect(unsafe_code, reason = "TIOCSCTTY has no safe wrapper")]
pub fn take() -> nix::Result<()> {
    // SAFETY: the request takes an integer, no memory is touched.
    Errno::result(unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) }).map(drop)
}
