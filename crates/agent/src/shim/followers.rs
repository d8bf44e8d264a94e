//! Who reads what a container writes, beside its log: people who attached to it.
//!
//! A follower is a pipe. It never blocks a container: what cannot be written waits, and a follower for whom more than
//! [`WAITING_MAX`] bytes wait is let go (containerd closes slow ones too, `pkg/ioutil/writer_group.go`).

use super::{container::unblock, log::Stream};
use nix::{errno::Errno, poll::PollFlags, unistd::write};
use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

/// Bytes that may wait for one follower.
const WAITING_MAX: usize = 4 << 20;
/// Followers of one container's streams.
const FOLLOWERS_MAX: usize = 64;

struct Follower {
    number: u64,
    stream: Stream,
    file: OwnedFd,
    waiting: Vec<u8>,
}

/// The followers of one container.
#[derive(Default)]
pub struct Followers {
    all: Vec<Follower>,
    next: u64,
    /// Nothing more comes: who has everything is let go.
    ended: bool,
}

impl Followers {
    /// Lets `file` have what `stream` gives from now on.
    pub fn add(&mut self, stream: Stream, file: OwnedFd) -> io::Result<()> {
        if self.all.len() >= FOLLOWERS_MAX {
            return Err(io::Error::other("too many are attached already"));
        }
        unblock(&file)?;
        self.next += 1;
        self.all.push(Follower { number: self.next, stream, file, waiting: Vec::new() });
        Ok(())
    }

    /// What to wait for: room for what waits, and, for all, that they are gone.
    pub fn waits(&self) -> impl Iterator<Item = (u64, BorrowedFd<'_>, PollFlags)> {
        self.all.iter().map(|follower| {
            let flags = if follower.waiting.is_empty() { PollFlags::empty() } else { PollFlags::POLLOUT };
            (follower.number, follower.file.as_fd(), flags)
        })
    }

    /// Gives the followers of `stream` what it gave.
    pub fn write(&mut self, stream: Stream, bytes: &[u8]) {
        self.all.retain_mut(|follower| {
            if follower.stream != stream {
                return true;
            }
            follower.waiting.extend_from_slice(bytes);
            follower.flush() && follower.waiting.len() <= WAITING_MAX
        });
    }

    /// One of them has room, or is gone.
    pub fn turn(&mut self, number: u64) {
        let ended = self.ended;
        self.all.retain_mut(|follower| {
            // Without anything to write, only its end is waited for.
            follower.number != number
                || (!follower.waiting.is_empty() && follower.flush() && !(ended && follower.waiting.is_empty()))
        });
    }

    /// The container has ended: followers read an end after the last byte.
    pub fn end(&mut self) {
        self.ended = true;
        self.all.retain(|follower| !follower.waiting.is_empty());
    }
}

impl Follower {
    /// Writes what waits, as far as there is room; false when nobody reads it any more.
    fn flush(&mut self) -> bool {
        while !self.waiting.is_empty() {
            match write(&self.file, &self.waiting) {
                Ok(n) => drop(self.waiting.drain(..n)),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return true,
                Err(_) => return false,
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shim::container::{Read, output_pipe, read_some};

    fn read(file: &OwnedFd) -> usize {
        let mut length = 0;
        while let Read::Bytes(bytes) = read_some(Some(file)) {
            length += bytes.len();
        }
        length
    }

    #[test]
    fn a_follower_that_does_not_read_is_let_go_and_others_have_everything() {
        let mut followers = Followers::default();
        let ((fast, fast_end), (slow, _slow_end)) = (output_pipe().unwrap(), output_pipe().unwrap());
        followers.add(Stream::Stdout, fast).unwrap();
        followers.add(Stream::Stdout, slow).unwrap();
        let chunk = [b'x'; 32 << 10];
        let mut length = 0;
        for _ in 0..=WAITING_MAX / chunk.len() + 2 {
            followers.write(Stream::Stdout, &chunk);
            followers.write(Stream::Stderr, b"of no interest");
            length += read(&fast_end);
        }
        assert_eq!(length, (WAITING_MAX / chunk.len() + 3) * chunk.len());
        assert_eq!(followers.all.len(), 1, "the slow one is gone");
        followers.end();
        assert!(matches!(read_some(Some(&fast_end)), Read::End));
    }

    #[test]
    fn what_waits_at_the_end_is_still_read() {
        let mut followers = Followers::default();
        let (file, end) = output_pipe().unwrap();
        followers.add(Stream::Stdout, file).unwrap();
        followers.write(Stream::Stdout, &[b'x'; 200 << 10]);
        followers.end();
        let mut length = read(&end);
        while let Some(first) = followers.all.first() {
            let number = first.number;
            followers.turn(number);
            length += read(&end);
        }
        assert_eq!(length, 200 << 10);
    }
}
