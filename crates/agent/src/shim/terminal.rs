//! Terminals: made by the container's process in its own `/dev/pts`, so that they have a name there, and sent to the shim,
//! which reads what is written to them.

use super::wire::Process;
use nix::{
    cmsg_space,
    errno::Errno,
    fcntl::OFlag,
    pty::{grantpt, posix_openpt, ptsname_r, unlockpt},
    sys::socket::{
        AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, sendmsg, socketpair,
    },
    unistd::{Uid, fchown},
};
use rustix::fs::{Mode, OFlags};
use std::{
    io::{self, IoSlice, IoSliceMut},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

/// Two ends over which a terminal is sent: to receive, to send.
pub fn channel() -> nix::Result<(OwnedFd, OwnedFd)> {
    socketpair(AddressFamily::Unix, SockType::Datagram, None, SockFlag::SOCK_CLOEXEC)
}

/// A terminal of the container's own `/dev/pts`, so that it has a name there.
pub fn make(process: &Process, sender: &OwnedFd) -> nix::Result<OwnedFd> {
    let master = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    let name = ptsname_r(&master)?;
    let terminal = rustix::fs::open(&name, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty());
    let terminal = terminal.map_err(|e| Errno::from_raw(e.raw_os_error()))?;
    let _ = fchown(terminal.as_raw_fd(), Some(Uid::from_raw(process.uid)), None);
    let files = [master.as_raw_fd()];
    sendmsg::<()>(
        sender.as_raw_fd(),
        &[IoSlice::new(b"t")],
        &[ControlMessage::ScmRights(&files)],
        MsgFlags::empty(),
        None,
    )?;
    Ok(terminal)
}

/// Makes standard input, a terminal, the controlling one.
#[expect(unsafe_code, reason = "TIOCSCTTY has no safe wrapper")]
pub fn take() -> nix::Result<()> {
    // SAFETY: the request takes an integer, no memory is touched.
    Errno::result(unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) }).map(drop)
}

/// Takes the terminal that a container that runs has sent.
#[expect(unsafe_code, reason = "a descriptor that was just received is owned by nobody else")]
pub fn receive(socket: &OwnedFd) -> io::Result<OwnedFd> {
    let mut text = [0; 1];
    let mut space = cmsg_space!([i32; 1]);
    let mut texts = [IoSliceMut::new(&mut text)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_DONTWAIT;
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut texts, Some(&mut space), flags)?;
    let sent = message.cmsgs()?.find_map(|part| match part {
        ControlMessageOwned::ScmRights(files) => files.first().copied(),
        _ => None,
    });
    let sent = sent.ok_or_else(|| io::Error::other("the container sent no terminal"))?;
    // SAFETY: the kernel made this descriptor for us in `recvmsg`.
    let terminal = unsafe { OwnedFd::from_raw_fd(sent) };
    Ok(terminal)
}
