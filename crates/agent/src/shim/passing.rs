//! Open files passed from process to process over unix sockets (`SCM_RIGHTS`).
//!
//! A person's streams into a container are the agent's pipes: they come along with the request, so that what is written
//! does not pass the shim, and end with who holds them.

use nix::{
    cmsg_space,
    sys::socket::{
        AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, sendmsg, socketpair,
    },
};
use std::{
    io::{self, IoSlice, IoSliceMut},
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

/// Files that come along with one request.
pub const FILES_MAX: usize = 3;

/// Two ends over which a file is sent: to receive, to send.
pub fn channel() -> nix::Result<(OwnedFd, OwnedFd)> {
    socketpair(AddressFamily::Unix, SockType::Datagram, None, SockFlag::SOCK_CLOEXEC)
}

/// Sends `bytes`, or the first of them, and with them the files; how many bytes were sent.
pub fn send(socket: BorrowedFd, bytes: &[u8], files: &[BorrowedFd]) -> io::Result<usize> {
    let numbers: Vec<i32> = files.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&numbers)];
    let along = if numbers.is_empty() { &rights[..0] } else { &rights };
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    Ok(sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(bytes)], along, flags, None)?)
}

/// Receives what is there without waiting: how many bytes, and the files that came with them.
#[expect(unsafe_code, reason = "descriptors that were just received are owned by nobody else")]
pub fn receive(socket: BorrowedFd, bytes: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = cmsg_space!([i32; FILES_MAX]);
    let mut texts = [IoSliceMut::new(bytes)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_DONTWAIT;
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut texts, Some(&mut space), flags)?;
    let mut files = Vec::new();
    for part in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(numbers) = part {
            // SAFETY: the kernel made these descriptors for us in `recvmsg`.
            files.extend(numbers.into_iter().map(|number| unsafe { OwnedFd::from_raw_fd(number) }));
        }
    }
    Ok((message.bytes, files))
}

/// Sends one file over a [`channel`].
pub fn send_one(socket: BorrowedFd, file: BorrowedFd) -> io::Result<()> {
    send(socket, b"f", &[file]).map(drop)
}

/// Takes the file that was sent over a [`channel`].
pub fn receive_one(socket: BorrowedFd) -> io::Result<OwnedFd> {
    let (_, files) = receive(socket, &mut [0; 1])?;
    files.into_iter().next().ok_or_else(|| io::Error::other("no file was sent"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::unistd::{pipe2, write};
    use std::{fs::File, io::Read, os::fd::AsFd};

    #[test]
    fn a_file_arrives_with_its_bytes() {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let (read, end) = pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
        assert_eq!(send(ours.as_fd(), b"before", &[]).unwrap(), 6);
        assert_eq!(send(ours.as_fd(), b"with", &[end.as_fd()]).unwrap(), 4);
        assert_eq!(send(ours.as_fd(), b"after", &[]).unwrap(), 5);
        drop(end);
        let (mut text, mut files) = (Vec::new(), Vec::new());
        while text.len() < 15 {
            let mut chunk = [0; 64];
            let (length, came) = receive(theirs.as_fd(), &mut chunk).unwrap();
            text.extend_from_slice(&chunk[..length]);
            files.extend(came);
            if files.is_empty() { assert!(text.len() < 10) } else { assert!(text.len() >= 10) }
        }
        assert_eq!(text, b"beforewithafter");
        write(files.remove(0), b"through the pipe").unwrap();
        let mut said = String::new();
        File::from(read).read_to_string(&mut said).unwrap();
        assert_eq!(said, "through the pipe");
    }
}
