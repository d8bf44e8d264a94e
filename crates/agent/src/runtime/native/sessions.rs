//! Streams into containers: a command that a person runs, a container that a person attaches to, a port of a pod.
//!
//! A command's streams are pipes that this process makes and passes to the pod's shim; a terminal is made in the container
//! and comes back. When a [`Session`] is dropped its streams end: a process that reads sees the end, one that writes gets
//! SIGPIPE, a terminal hangs up. What the process makes of that is its own affair: it is not killed, as with the kubelet and
//! containerd (`internal/cri/server/container_execsync.go`).

use super::{Native, not_found, unexpected};
use crate::{
    runtime::{ContainerSeen, RuntimeError},
    shim::{
        passing,
        wire::{Answer, Ask},
    },
};
use rustix::{
    fs::OFlags,
    net::{AddressFamily, SocketType},
    termios::Winsize,
    thread::{LinkNameSpaceType, move_into_link_name_space},
};
use std::{
    fs::File,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::{AsFd, OwnedFd},
};
use tokio::{
    net::{TcpSocket, TcpStream, UnixDatagram, unix::pipe},
    sync::oneshot,
};

/// How a command ended: its exit code.
pub type Ended = oneshot::Receiver<Result<i32, RuntimeError>>;

/// Streams into a container.
pub struct Session {
    /// What is written here, it reads.
    pub input: Option<pipe::Sender>,
    /// What it writes to standard output, or to its terminal.
    pub output: pipe::Receiver,
    /// What it writes to standard error; `None` with a terminal.
    pub error: Option<pipe::Receiver>,
    /// Its terminal.
    pub terminal: Option<Terminal>,
    /// How a command ended; `None` for a container that was attached to.
    pub ended: Option<Ended>,
}

/// A container's terminal.
pub struct Terminal(OwnedFd);

impl Terminal {
    /// Tells what runs on it how large it is shown.
    pub fn resize(&self, columns: u16, rows: u16) -> io::Result<()> {
        let size = Winsize { ws_col: columns, ws_row: rows, ws_xpixel: 0, ws_ypixel: 0 };
        Ok(rustix::termios::tcsetwinsize(&self.0, size)?)
    }
}

impl Native {
    /// The instance of a container that runs now.
    pub fn running(&self, pod_uid: &str, container: &str) -> Result<ContainerSeen, RuntimeError> {
        let pod = self.node.pod(pod_uid)?;
        let state = pod.state.borrow();
        let running = state.containers.iter().rev().find(|seen| seen.name == container && seen.exit.is_none());
        running.cloned().ok_or_else(|| not_found("container", container))
    }

    /// Runs a command in a container with streams of its own; without a terminal it has all three.
    pub async fn interact(
        &self,
        pod_uid: &str,
        container_id: &str,
        argv: Vec<String>,
        terminal: bool,
    ) -> Result<Session, RuntimeError> {
        let container = container_id.to_owned();
        let ask = Ask::Interact { container, argv, terminal };
        if terminal {
            return self.interact_on_terminal(pod_uid, ask).await;
        }
        let (input, stdin) = pipe_to_container()?;
        let (stdout, output) = pipe_from_container()?;
        let (stderr, error) = pipe_from_container()?;
        let ended = self.ask_in_background(pod_uid, ask, vec![stdin, stdout, stderr]).await?;
        Ok(Session { input: Some(input), output, error: Some(error), terminal: None, ended: Some(ended) })
    }

    async fn interact_on_terminal(&self, pod_uid: &str, ask: Ask) -> Result<Session, RuntimeError> {
        let (receiver, sender) = passing::channel().map_err(io)?;
        let mut ended = self.ask_in_background(pod_uid, ask, vec![sender]).await?;
        let receiver = std::os::unix::net::UnixDatagram::from(receiver);
        receiver.set_nonblocking(true).map_err(io)?;
        let receiver = UnixDatagram::from_std(receiver).map_err(io)?;
        let early = tokio::select! {
            _ = receiver.readable() => None,
            early = &mut ended => Some(early),
        };
        // A short command may have ended before its terminal was looked for.
        let terminal = match (passing::receive_one(receiver.as_fd()), early) {
            (Ok(terminal), None) => terminal,
            (Ok(terminal), Some(Ok(early))) => {
                let (sender, receiver) = oneshot::channel();
                let _ = sender.send(early);
                ended = receiver;
                terminal
            }
            (_, Some(Ok(Err(error)))) => return Err(error),
            (Err(error), _) => return Err(io(error)),
            (Ok(_), Some(Err(_))) => return Err(RuntimeError::Sandbox("the pod's shim is gone".into())),
        };
        let (input, output, terminal) = ends_of(terminal)?;
        Ok(Session { input: Some(input), output, error: None, terminal: Some(terminal), ended: Some(ended) })
    }

    /// Streams of what runs already: what it writes from now on and, where it has one, its standard input.
    pub async fn attach(&self, pod_uid: &str, container_id: &str, terminal: bool) -> Result<Session, RuntimeError> {
        let (receiver, sender) = passing::channel().map_err(io)?;
        let (stdout, output) = pipe_from_container()?;
        let (stderr, error) = pipe_from_container()?;
        let shim = self.node.pod(pod_uid)?.connected().await?;
        match shim.ask_with(Ask::Attach { container: container_id.to_owned() }, vec![sender, stdout, stderr]).await? {
            Answer::Done => {}
            other => return Err(unexpected(&other)),
        }
        // Sent before the answer, if at all.
        let input = passing::receive_one(receiver.as_fd()).ok();
        let (input, resized) = match input {
            Some(file) if terminal => (file.try_clone().ok(), Some(Terminal(file))),
            input => (input, None),
        };
        let input = input.map(to_container).transpose()?;
        Ok(Session { input, output, error: (!terminal).then_some(error), terminal: resized, ended: None })
    }

    /// Lets a container read the end of its standard input.
    pub async fn end_input(&self, pod_uid: &str, container_id: &str) -> Result<(), RuntimeError> {
        let shim = self.node.pod(pod_uid)?.connected().await?;
        shim.ask(Ask::EndInput { container: container_id.to_owned() }).await.map(drop)
    }

    /// Connects to a port of the pod as a process in it would: by its loopback address.
    pub async fn connect(&self, pod_uid: &str, port: u16) -> Result<TcpStream, RuntimeError> {
        let pid = self.process_of(pod_uid).await.ok_or_else(|| not_found("sandbox of pod", pod_uid))?;
        let failed = |family: &str, host: &str, error: &io::Error| format!("{family}: dial {host}:{port}: {error}");
        let by_ipv4 = dial(pid, SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await;
        let Err(first) = by_ipv4 else { return by_ipv4.map_err(io) };
        let by_ipv6 = dial(pid, SocketAddr::from((Ipv6Addr::LOCALHOST, port))).await;
        by_ipv6.map_err(|second| {
            let (first, second) = (failed("IPv4", "127.0.0.1", &first), failed("IPv6", "[::1]", &second));
            RuntimeError::Io(format!("failed to connect to localhost:{port} inside the pod: {first}, {second}"))
        })
    }

    /// Asks the shim for what takes as long as a person likes.
    async fn ask_in_background(&self, pod_uid: &str, ask: Ask, files: Vec<OwnedFd>) -> Result<Ended, RuntimeError> {
        let shim = self.node.pod(pod_uid)?.connected().await?;
        let (ended, receiver) = oneshot::channel();
        tokio::spawn(async move {
            let outcome = match shim.ask_with(ask, files).await {
                Ok(Answer::Executed { code, .. }) => Ok(code),
                Ok(other) => Err(unexpected(&other)),
                Err(error) => Err(error),
            };
            // Who asked may have left.
            let _ = ended.send(outcome);
        });
        Ok(receiver)
    }
}

fn io(error: impl Into<io::Error>) -> RuntimeError {
    RuntimeError::Io(error.into().to_string())
}

/// A pipe into a container: our end, its end.
fn pipe_to_container() -> Result<(pipe::Sender, OwnedFd), RuntimeError> {
    let (sender, receiver) = pipe::pipe().map_err(io)?;
    Ok((sender, receiver.into_blocking_fd().map_err(io)?))
}

/// A pipe out of a container: its end, our end.
fn pipe_from_container() -> Result<(OwnedFd, pipe::Receiver), RuntimeError> {
    let (sender, receiver) = pipe::pipe().map_err(io)?;
    Ok((sender.into_blocking_fd().map_err(io)?, receiver))
}

/// A terminal's three uses: to write, to read, to resize. It is read and written as a pipe is.
fn ends_of(terminal: OwnedFd) -> Result<(pipe::Sender, pipe::Receiver, Terminal), RuntimeError> {
    let input = to_container(terminal.try_clone().map_err(io)?)?;
    let output = terminal.try_clone().map_err(io)?;
    Ok((input, pipe::Receiver::from_owned_fd_unchecked(output).map_err(io)?, Terminal(terminal)))
}

fn to_container(file: OwnedFd) -> Result<pipe::Sender, RuntimeError> {
    let flags = rustix::fs::fcntl_getfl(&file).map_err(io)?;
    rustix::fs::fcntl_setfl(&file, flags | OFlags::NONBLOCK).map_err(io)?;
    pipe::Sender::from_owned_fd_unchecked(file).map_err(io)
}

/// A connection from inside the network namespace of process `pid`.
async fn dial(pid: i32, address: SocketAddr) -> io::Result<TcpStream> {
    let socket = super::blocking(move || socket_inside(pid, address)).await?;
    let stream = std::net::TcpStream::from(socket);
    stream.set_nonblocking(true)?;
    TcpSocket::from_std_stream(stream).connect(address).await
}

/// A socket belongs to the namespace in which it was made, whoever uses it then: a thread of its own goes there.
fn socket_inside(pid: i32, address: SocketAddr) -> io::Result<OwnedFd> {
    let namespace = File::open(format!("/proc/{pid}/ns/net"))?;
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let inside = std::thread::Builder::new().name("into-pod".into()).spawn(move || -> io::Result<OwnedFd> {
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
        Ok(rustix::net::socket_with(family, SocketType::STREAM, rustix::net::SocketFlags::CLOEXEC, None)?)
    })?;
    inside.join().map_err(|_| io::Error::other("the thread that enters a pod panicked"))?
}
