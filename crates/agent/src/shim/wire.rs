//! What the agent and a pod's shim say to each other: length-delimited JSON over a unix socket.
//!
//! The agent asks, numbered; the shim answers with the same number, in any order, and tells every agent that is
//! connected when a container ends. Nothing here touches a socket: bytes in, messages out, so that the shim (blocking,
//! one thread) and the agent (tokio) share it.

use super::passing::FILES_MAX;
use crate::runtime::{ContainerSeen, Exit, Limits, Mount};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// No message is longer; a peer that announces more is cut off.
pub const FRAME_MAX: usize = 4 << 20;

/// How a shim is told what to be: its one argument, as JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ShimConfig {
    /// Process id of the agent that starts it.
    pub agent: u32,
    /// The pod's uid.
    pub pod_uid: String,
    /// Hostname of the pod.
    pub hostname: String,
    /// True: stay in the node's network and hostname.
    pub host_network: bool,
    /// True: stay in the node's IPC namespace.
    #[serde(default)]
    pub host_ipc: bool,
    /// Parameters of the kernel to set in the pod's namespaces.
    pub sysctls: Vec<(String, String)>,
    /// Where records of containers are kept: `<data-dir>/pods/<uid>`.
    pub pod_dir: PathBuf,
    /// Where the socket is made: `<data-dir>/run`.
    pub run_dir: PathBuf,
    /// Group under which the containers' cgroups are made: `/kapstan/<uid>`.
    pub cgroup: PathBuf,
}

impl ShimConfig {
    /// Name of the socket within [`ShimConfig::run_dir`].
    pub fn socket_name(pod_uid: &str) -> String {
        format!("{pod_uid}.sock")
    }
}

/// A process as it has to be: image, user and rights are resolved, nothing is left to decide.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Process {
    /// Command line; the first is looked up in the environment's `PATH`.
    pub argv: Vec<String>,
    /// Environment, complete.
    pub env: Vec<(String, String)>,
    /// Working directory inside the container; made when missing.
    pub cwd: PathBuf,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// Capabilities as a bit mask: bounding set, and for uid 0 the permitted and effective sets.
    pub capabilities: u64,
    /// Set `no_new_privs`.
    pub no_new_privileges: bool,
    /// Apply the default seccomp profile.
    pub seccomp: bool,
    /// Bound of open files.
    pub open_files: u64,
}

/// A container as it has to be.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ContainerPlan {
    /// Name within the pod.
    pub name: String,
    /// Unique id.
    pub id: String,
    /// How often it was started before.
    pub attempt: u32,
    /// Image reference.
    pub image: String,
    /// Digest of the image's configuration.
    pub image_id: String,
    /// The mounted root file system.
    pub rootfs: PathBuf,
    /// What runs.
    pub process: Process,
    /// Volumes and the pod's own files.
    pub mounts: Vec<Mount>,
    /// Bounds.
    pub limits: Limits,
    /// Root file system read-only.
    pub read_only_root: bool,
    /// The node's devices, nothing masked.
    pub privileged: bool,
    /// Its processes are among the node's.
    #[serde(default)]
    pub host_pid: bool,
    /// Where output goes.
    pub log_path: PathBuf,
    /// Keep standard input open.
    pub stdin: bool,
    /// Give it a terminal.
    pub tty: bool,
    /// Signal that asks it to stop.
    pub stop_signal: i32,
}

/// What the agent asks.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Ask {
    /// Who are you and what runs?
    State,
    /// Start a container; answered when its process has been executed.
    Start(Box<ContainerPlan>),
    /// Send a signal to a container's first process; `None`: its stop signal.
    Signal {
        /// The container's id.
        container: String,
        /// Number of the signal.
        signal: Option<i32>,
    },
    /// Run a command in a container; answered when it has ended.
    Exec {
        /// The container's id.
        container: String,
        /// Command line.
        argv: Vec<String>,
        /// It is killed after this time.
        timeout_ms: u64,
    },
    /// Run a command in a container for a person; answered when it has ended. Along come its standard input, output and
    /// error, or, with a terminal, where that is to be sent.
    Interact {
        /// The container's id.
        container: String,
        /// Command line.
        argv: Vec<String>,
        /// Give it a terminal.
        terminal: bool,
    },
    /// Follow what a container writes. Along come where its input (or terminal) is to be sent, if it has one, and where
    /// its output and its errors are to be written.
    Attach {
        /// The container's id.
        container: String,
    },
    /// Let a container read the end of its standard input.
    EndInput {
        /// The container's id.
        container: String,
    },
    /// Forget a container that has ended.
    Remove {
        /// The container's id.
        container: String,
    },
    /// Kill what runs, answer, end.
    Stop,
}

impl Ask {
    /// How many open files come along.
    pub fn files(&self) -> usize {
        match self {
            Ask::Interact { terminal: true, .. } => 1,
            Ask::Interact { terminal: false, .. } | Ask::Attach { .. } => FILES_MAX,
            _ => 0,
        }
    }
}

/// Why something could not be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Failure {
    /// The container is not there.
    NotFound(String),
    /// It asks for what this node cannot give.
    Config(String),
    /// The process could not be made.
    Start(String),
    /// The command did not end in time.
    TimedOut,
}

/// What the shim answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Answer {
    /// To [`Ask::State`].
    State {
        /// The shim's process id: the way to the pod's namespaces.
        pid: i32,
        /// Every container not yet removed, oldest first.
        containers: Vec<ContainerSeen>,
    },
    /// To [`Ask::Start`].
    Started(ContainerSeen),
    /// To [`Ask::Exec`] and [`Ask::Interact`].
    Executed {
        /// Exit code; 128 + signal when killed.
        code: i32,
        /// Standard output and error together; what a person's command wrote is not kept.
        output: String,
    },
    /// Done as asked.
    Done,
    /// Not done.
    Failed(Failure),
}

/// From the agent.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Request {
    /// Returned with the answer.
    pub number: u64,
    /// What is asked.
    pub ask: Ask,
}

/// From the shim.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Message {
    /// The answer to a request.
    Answer {
        /// The request's number.
        number: u64,
        /// The answer.
        answer: Answer,
    },
    /// A container ended.
    Exited {
        /// Its id.
        container: String,
        /// How.
        exit: Exit,
    },
}

/// One message as bytes: four bytes of length, big-endian, then JSON.
pub fn encode(message: &impl Serialize) -> Vec<u8> {
    let mut frame = vec![0; 4];
    serde_json::to_writer(&mut frame, message)
        .expect("messages are plain data: no map with odd keys, nothing that fails");
    let length = (frame.len() - 4) as u32;
    frame[..4].copy_from_slice(&length.to_be_bytes());
    frame
}

/// Takes the first whole frame off `buffer`; `None` when more bytes are needed.
pub fn take_frame(buffer: &mut Vec<u8>) -> Result<Option<Vec<u8>>, String> {
    let Some(head) = buffer.first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_be_bytes(*head) as usize;
    if length > FRAME_MAX {
        return Err(format!("a message of {length} bytes, more than {FRAME_MAX}"));
    }
    if buffer.len() < 4 + length {
        return Ok(None);
    }
    let frame = buffer[4..4 + length].to_vec();
    buffer.drain(..4 + length);
    Ok(Some(frame))
}

/// Reads a request. The two ends may be of different versions: what is not understood is no reason to part, so it comes
/// back as the request's number and why.
pub fn read_request(frame: &[u8]) -> Result<Request, (u64, String)> {
    #[derive(Deserialize)]
    struct Numbered {
        number: u64,
    }
    serde_json::from_slice(frame).map_err(|error| {
        let number = serde_json::from_slice(frame).map_or(0, |Numbered { number }| number);
        (number, format!("the pod's shim, of another version, does not understand: {error}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_survives_being_cut_anywhere() {
        let frame = encode(&Request { number: 7, ask: Ask::Remove { container: "c".into() } });
        for cut in 0..frame.len() {
            let mut buffer = frame[..cut].to_vec();
            assert!(take_frame(&mut buffer).unwrap().is_none());
            buffer.extend(&frame[cut..]);
            assert_eq!(read_request(&take_frame(&mut buffer).unwrap().unwrap()).unwrap().number, 7);
            assert!(buffer.is_empty());
        }
    }

    #[test]
    fn an_endless_message_is_refused() {
        let mut buffer = u32::MAX.to_be_bytes().to_vec();
        assert!(take_frame(&mut buffer).is_err());
    }

    #[test]
    fn what_another_version_asks_is_answered() {
        let (number, why) = read_request(br#"{"number":9,"ask":{"Fly":{"height":3}}}"#).unwrap_err();
        assert_eq!(number, 9);
        assert!(why.contains("unknown variant `Fly`"), "{why}");
    }
}
