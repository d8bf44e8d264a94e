//! Ways to nodes: what only a node can answer, such as a container's log, or a stream into a pod, is asked here.
//!
//! A node's agent registers a mailbox under the node's name; the server never depends on the agent.

use std::collections::HashMap;
use std::sync::Mutex;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};

/// Where a node's answer goes; an error is a sentence for who asked.
pub type Reply<T> = oneshot::Sender<Result<T, String>>;

/// A question to a node.
pub enum NodeRequest {
    /// The log of a container.
    Logs(LogRequest, Reply<mpsc::Receiver<Bytes>>),
    /// Run a command in a container.
    Exec(ExecRequest, Reply<Session>),
    /// Streams of what runs in a container already.
    Attach(AttachRequest, Reply<Session>),
    /// A connection to a port of a pod.
    Connect(ConnectRequest, Reply<TcpStream>),
}

/// Which command in which container.
#[derive(Clone, Debug)]
pub struct ExecRequest {
    /// Uid of the pod.
    pub pod_uid: String,
    /// Name of the container.
    pub container: String,
    /// Command line.
    pub command: Vec<String>,
    /// Give it a terminal.
    pub terminal: bool,
}

/// Which container.
#[derive(Clone, Debug)]
pub struct AttachRequest {
    /// Uid of the pod.
    pub pod_uid: String,
    /// Name of the container.
    pub container: String,
    /// The container has a terminal.
    pub terminal: bool,
    /// The container reads the end of its input when this client leaves (`stdinOnce`).
    pub end_input: bool,
}

/// Which port of which pod.
#[derive(Clone, Debug)]
pub struct ConnectRequest {
    /// Uid of the pod.
    pub pod_uid: String,
    /// The port, as a process in the pod would reach it on its loopback address.
    pub port: u16,
}

/// Streams into a container. Whoever drops it lets go of them.
pub struct Session {
    /// What is written here, the process reads.
    pub stdin: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    /// What the process writes.
    pub stdout: Box<dyn AsyncRead + Send + Unpin>,
    /// What it writes to standard error; `None` with a terminal.
    pub stderr: Option<Box<dyn AsyncRead + Send + Unpin>>,
    /// Tells the terminal its columns and rows.
    pub resize: Option<Box<dyn Fn(u16, u16) + Send + Sync>>,
    /// The exit code of a command; `None` for a container that was attached to.
    pub ended: Option<oneshot::Receiver<Result<i32, String>>>,
    /// Dropped when no more input comes.
    pub input_open: Option<oneshot::Sender<()>>,
}

/// Which lines of which log.
#[derive(Clone, Debug, Default)]
pub struct LogRequest {
    /// Uid of the pod.
    pub pod_uid: String,
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub pod: String,
    /// Name of the container.
    pub container: String,
    /// Go on as lines are written.
    pub follow: bool,
    /// The instance before the current one.
    pub previous: bool,
    /// Begin every line with its time.
    pub timestamps: bool,
    /// Only the last lines.
    pub tail_lines: Option<u64>,
    /// Only lines since this time, in milliseconds since the epoch.
    pub since_ms: Option<i64>,
    /// Stop after this many bytes.
    pub limit_bytes: Option<u64>,
}

/// Mailboxes by node name.
#[derive(Default)]
pub struct Nodes {
    mailboxes: Mutex<HashMap<String, mpsc::Sender<NodeRequest>>>,
}

impl Nodes {
    /// Makes a node reachable.
    pub fn register(&self, node: &str, mailbox: mpsc::Sender<NodeRequest>) {
        self.mailboxes.lock().expect("no holder of this lock panics").insert(node.to_owned(), mailbox);
    }

    /// The mailbox of a node, if it is reachable.
    pub fn find(&self, node: &str) -> Option<mpsc::Sender<NodeRequest>> {
        self.mailboxes.lock().expect("no holder of this lock panics").get(node).cloned()
    }
}
