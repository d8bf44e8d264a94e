//! Ways to nodes: what only a node can answer, such as a container's log, is asked here.
//!
//! A node's agent registers a mailbox under the node's name; the server never depends on the agent.

use std::collections::HashMap;
use std::sync::Mutex;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

/// A question to a node.
pub enum NodeRequest {
    /// The log of a container.
    Logs(LogRequest, oneshot::Sender<Result<mpsc::Receiver<Bytes>, String>>),
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
