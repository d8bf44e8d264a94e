//! The agents that are connected: usually one, two for a moment while one replaces the other.
//!
//! Sockets never block. An agent that does not read what it is sent is cut off when [`UNREAD_MAX`] bytes wait for it: it
//! connects again and asks for the state, so nothing is lost.

use super::{
    passing,
    wire::{Answer, Failure, Message, Request, encode, read_request, take_frame},
};
use nix::poll::PollFlags;
use std::{
    collections::BTreeMap,
    io::{ErrorKind, Write},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    os::unix::net::{UnixListener, UnixStream},
};

/// Bytes that may wait for one agent.
const UNREAD_MAX: usize = 8 << 20;

struct Connection {
    socket: UnixStream,
    incoming: Vec<u8>,
    /// Files that came along, for the requests that they came with.
    files: Vec<OwnedFd>,
    outgoing: Vec<u8>,
    broken: bool,
}

/// A request and the files that came along.
pub type Received = (Request, Vec<OwnedFd>);

/// Every connected agent.
#[derive(Default)]
pub struct Connections {
    open: BTreeMap<u64, Connection>,
    next: u64,
}

impl Connections {
    /// Lets in who knocks.
    pub fn accept(&mut self, listener: &UnixListener) {
        while let Ok((socket, _)) = listener.accept() {
            if socket.set_nonblocking(true).is_ok() {
                self.next += 1;
                let (incoming, files, outgoing) = (Vec::new(), Vec::new(), Vec::new());
                self.open.insert(self.next, Connection { socket, incoming, files, outgoing, broken: false });
            }
        }
    }

    /// What to wait for.
    pub fn waits(&self) -> impl Iterator<Item = (u64, BorrowedFd<'_>, PollFlags)> {
        self.open.iter().map(|(id, connection)| {
            let flags =
                if connection.outgoing.is_empty() { PollFlags::POLLIN } else { PollFlags::POLLIN | PollFlags::POLLOUT };
            (*id, connection.socket.as_fd(), flags)
        })
    }

    /// Reads and writes what can be; the whole requests that came. A broken connection is dropped.
    pub fn turn(&mut self, id: u64) -> Vec<Received> {
        let Some(connection) = self.open.get_mut(&id) else { return Vec::new() };
        connection.write();
        connection.read();
        let mut requests = Vec::new();
        loop {
            match take_frame(&mut connection.incoming) {
                Ok(Some(frame)) => match connection.received(&frame) {
                    Ok(received) => requests.push(received),
                    Err((number, why)) => {
                        let answer = Answer::Failed(Failure::Start(why));
                        connection.outgoing.extend(encode(&Message::Answer { number, answer }));
                    }
                },
                Ok(None) => break,
                Err(error) => {
                    eprintln!("agent cut off: {error}");
                    connection.broken = true;
                    break;
                }
            }
        }
        if connection.incoming.is_empty() {
            // They came with a request that was not understood.
            connection.files.clear();
        }
        if connection.broken {
            self.open.remove(&id);
        }
        requests
    }

    /// Sends to one agent; nothing happens when it is gone.
    pub fn send(&mut self, id: u64, message: &Message) {
        if let Some(connection) = self.open.get_mut(&id) {
            connection.outgoing.extend(encode(message));
            connection.write();
        }
        self.open.retain(|_, connection| !connection.broken);
    }

    /// Sends to all.
    pub fn send_all(&mut self, message: &Message) {
        let all: Vec<u64> = self.open.keys().copied().collect();
        all.into_iter().for_each(|id| self.send(id, message));
    }

    /// Waits until everything is sent: the last thing a shim does.
    pub fn flush(&mut self) {
        for connection in self.open.values_mut() {
            let _ = connection.socket.set_nonblocking(false);
            let _ = connection.socket.write_all(&connection.outgoing);
        }
    }
}

impl Connection {
    fn received(&mut self, frame: &[u8]) -> Result<Received, (u64, String)> {
        let request = read_request(frame)?;
        let wanted = request.ask.files();
        if self.files.len() < wanted {
            return Err((request.number, format!("{wanted} open files were to come along")));
        }
        Ok((request, self.files.drain(..wanted).collect()))
    }

    fn read(&mut self) {
        let mut chunk = [0; 16 << 10];
        loop {
            match passing::receive(self.socket.as_fd(), &mut chunk) {
                Ok((0, _)) => self.broken = true,
                Ok((n, files)) => {
                    self.incoming.extend_from_slice(&chunk[..n]);
                    self.files.extend(files);
                    continue;
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(_) => self.broken = true,
            }
            return;
        }
    }

    fn write(&mut self) {
        while !self.outgoing.is_empty() {
            match self.socket.write(&self.outgoing) {
                Ok(n) => drop(self.outgoing.drain(..n)),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(_) => self.broken = true,
            }
            if self.broken {
                return;
            }
        }
        self.broken |= self.outgoing.len() > UNREAD_MAX;
    }
}
