//! The agent's end of the line to a shim.
//!
//! One task reads and keeps the pod's state in the order in which the shim speaks, so that whoever was answered also sees
//! what the answer says. When the line breaks and no shim listens any more, it is gone, and its containers with it: they
//! are given an end.

use super::PodState;
use crate::{
    runtime::{ContainerSeen, Exit, Exited, RuntimeError},
    shim::{
        now_ms, passing,
        wire::{Answer, Ask, Failure, Message, Request, ShimConfig, encode, take_frame},
        write_record,
    },
};
use std::{
    collections::HashMap,
    fs::File,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, Interest},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, oneshot, watch},
    task::JoinHandle,
};

/// A shim that listens answers at once.
const HELLO_WAIT: Duration = Duration::from_secs(10);
/// Exit code of a container of which nobody knows how it ended; the kubelet's for the same.
const LOST_CODE: i32 = 137;

/// How often a broken line is connected anew before the shim counts as gone.
const RECONNECTS: usize = 3;
/// Number of the request that a line asks for itself.
const OWN: u64 = u64::MAX;

type Waiting = Arc<Mutex<Option<HashMap<u64, oneshot::Sender<Answer>>>>>;
type Writer = Arc<tokio::sync::Mutex<OwnedWriteHalf>>;

/// A connected shim.
pub struct Shim {
    /// Its process id: the way to the pod's namespaces.
    pub pid: i32,
    writer: Writer,
    /// `None`: the shim is gone.
    waiting: Waiting,
    next: AtomicU64,
    gone: watch::Receiver<bool>,
    reader: JoinHandle<()>,
}

impl Drop for Shim {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Shim {
    /// Connects to a pod's shim and learns its state.
    pub async fn connect(
        run_dir: &Path,
        pod_uid: &str,
        containers: PathBuf,
        state: watch::Sender<PodState>,
        exited: mpsc::Sender<Exited>,
    ) -> Result<Shim, RuntimeError> {
        let failed =
            |e: &dyn std::fmt::Display| RuntimeError::Sandbox(format!("no shim answers for pod {pod_uid}: {e}"));
        let (read, write) = open_socket(run_dir, pod_uid).await.map_err(|e| failed(&e))?.into_split();
        let waiting: Waiting = Arc::new(Mutex::new(Some(HashMap::new())));
        let writer = Arc::new(tokio::sync::Mutex::new(write));
        let (going, gone) = watch::channel(false);
        let line = Line {
            pod_uid: pod_uid.to_owned(),
            run_dir: run_dir.to_owned(),
            containers,
            state,
            exited,
            waiting: waiting.clone(),
            writer: writer.clone(),
            going,
        };
        let reader = tokio::spawn(line.listen(read));
        let mut shim = Shim { pid: 0, writer, waiting, next: AtomicU64::new(0), gone, reader };
        match tokio::time::timeout(HELLO_WAIT, shim.ask(Ask::State)).await.map_err(|e| failed(&e))?? {
            Answer::State { pid, .. } => shim.pid = pid,
            other => return Err(super::unexpected(&other)),
        }
        Ok(shim)
    }

    /// True when the shim is gone.
    pub fn is_gone(&self) -> bool {
        *self.gone.borrow()
    }

    /// Asks and waits for the answer.
    pub async fn ask(&self, ask: Ask) -> Result<Answer, RuntimeError> {
        self.ask_with(ask, Vec::new()).await
    }

    /// Asks, with open files that come along, and waits for the answer. The files are closed here once they are sent.
    pub async fn ask_with(&self, ask: Ask, files: Vec<OwnedFd>) -> Result<Answer, RuntimeError> {
        let gone = || RuntimeError::Sandbox("the pod's shim is gone".into());
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let (answered, answer) = oneshot::channel();
        lock(&self.waiting).as_mut().ok_or_else(gone)?.insert(number, answered);
        send(&self.writer, Request { number, ask }, files).await.map_err(|_| gone())?;
        match answer.await.map_err(|_| gone())? {
            Answer::Failed(failure) => Err(failure.into()),
            answer => Ok(answer),
        }
    }

    /// Ends the sandbox; returns when its last process is gone, the shim included.
    pub async fn stop(&self, wait: Duration) -> Result<(), RuntimeError> {
        let mut gone = self.gone.clone();
        let ended = async {
            // An error means that it is gone already, or on its way.
            let _ = self.ask(Ask::Stop).await;
            let _ = gone.wait_for(|gone| *gone).await;
        };
        let late = |_| RuntimeError::Sandbox(format!("the pod's processes were killed but did not go within {wait:?}"));
        tokio::time::timeout(wait, ended).await.map_err(late)
    }
}

async fn open_socket(run_dir: &Path, pod_uid: &str) -> std::io::Result<UnixStream> {
    // By way of its folder's descriptor: the path may be longer than a socket's address can be.
    let folder = File::open(run_dir)?;
    UnixStream::connect(format!("/proc/self/fd/{}/{}", folder.as_raw_fd(), ShimConfig::socket_name(pod_uid))).await
}

async fn send(writer: &Writer, request: Request, files: Vec<OwnedFd>) -> std::io::Result<()> {
    let (frame, mut writer) = (encode(&request), writer.lock().await);
    let files: Vec<_> = files.iter().map(AsFd::as_fd).collect();
    let socket: &UnixStream = (*writer).as_ref();
    let sent = socket.async_io(Interest::WRITABLE, || passing::send(socket.as_fd(), &frame, &files)).await?;
    writer.write_all(&frame[sent..]).await
}

impl From<Failure> for RuntimeError {
    fn from(failure: Failure) -> RuntimeError {
        match failure {
            Failure::NotFound(what) => RuntimeError::NotFound(what),
            Failure::Config(why) => RuntimeError::ContainerConfig(why),
            Failure::Start(why) => RuntimeError::Start(why),
            Failure::TimedOut => RuntimeError::ExecTimeout(Duration::ZERO),
        }
    }
}

struct Line {
    pod_uid: String,
    run_dir: PathBuf,
    containers: PathBuf,
    state: watch::Sender<PodState>,
    exited: mpsc::Sender<Exited>,
    waiting: Waiting,
    writer: Writer,
    going: watch::Sender<bool>,
}

impl Line {
    async fn listen(self, mut socket: OwnedReadHalf) {
        for _ in 0..RECONNECTS {
            self.read(&mut socket).await;
            self.forget_asked();
            match self.reconnect().await {
                Ok(fresh) => socket = fresh,
                Err(_) => break,
            }
        }
        self.end().await;
    }

    /// Hears everything until the line breaks.
    async fn read(&self, socket: &mut OwnedReadHalf) {
        let mut buffer = Vec::new();
        while socket.read_buf(&mut buffer).await.is_ok_and(|n| n > 0) {
            loop {
                match take_frame(&mut buffer) {
                    Ok(Some(frame)) => match serde_json::from_slice(&frame) {
                        Ok(message) => self.hear(message).await,
                        Err(error) => tracing::warn!(pod_uid = self.pod_uid, %error, "a shim of another version said"),
                    },
                    Ok(None) => break,
                    Err(error) => {
                        tracing::error!(pod_uid = self.pod_uid, %error, "shim");
                        return;
                    }
                }
            }
        }
    }

    /// A shim that lives listens; one that ended does not, and has taken its containers with it.
    async fn reconnect(&self) -> std::io::Result<OwnedReadHalf> {
        let (read, write) = open_socket(&self.run_dir, &self.pod_uid).await?.into_split();
        *self.writer.lock().await = write;
        send(&self.writer, Request { number: OWN, ask: Ask::State }, Vec::new()).await?;
        Ok(read)
    }

    async fn hear(&self, message: Message) {
        match message {
            Message::Answer { number, answer } => {
                for (container, exit) in self.learn(&answer) {
                    self.tell(container, exit).await;
                }
                let asker = lock(&self.waiting).as_mut().and_then(|waiting| waiting.remove(&number));
                if let Some(asker) = asker {
                    let _ = asker.send(answer);
                }
            }
            Message::Exited { container, exit } => {
                self.state.send_modify(|state| {
                    if let Some(seen) = state.containers.iter_mut().find(|seen| seen.id == container) {
                        seen.exit = Some(exit.clone());
                    }
                });
                self.tell(container, exit).await;
            }
        }
    }

    /// Keeps what an answer says; returns what ended unheard.
    fn learn(&self, answer: &Answer) -> Vec<(String, Exit)> {
        let mut unheard = Vec::new();
        match answer {
            Answer::State { containers, .. } => self.state.send_modify(|state| {
                for fresh in containers {
                    let ran = state.find(&fresh.id).is_some_and(|known| known.exit.is_none());
                    if let (true, Some(exit)) = (ran, &fresh.exit) {
                        unheard.push((fresh.id.clone(), exit.clone()));
                    }
                }
                // Ended containers of an earlier shim of the same pod are known from their records.
                let earlier = |known: &ContainerSeen| !containers.iter().any(|fresh| fresh.id == known.id);
                state.containers.retain(|known| known.exit.is_some() && earlier(known));
                state.containers.extend(containers.iter().cloned());
            }),
            Answer::Started(seen) => self.state.send_modify(|state| {
                if state.find(&seen.id).is_none() {
                    state.containers.push(seen.clone());
                }
            }),
            _ => {}
        }
        unheard
    }

    /// Whoever waits for an answer on a broken line is told that none comes.
    fn forget_asked(&self) {
        if let Some(waiting) = lock(&self.waiting).as_mut() {
            waiting.clear();
        }
    }

    async fn end(&self) {
        let buried = bury(&self.state, &self.containers);
        lock(&self.waiting).take();
        // First of all: whoever is told of an end may start the sandbox anew, and must not be shown this one.
        let _ = self.going.send(true);
        for (container, exit) in buried {
            self.tell(container, exit).await;
        }
    }

    async fn tell(&self, container_id: String, exit: Exit) {
        let _ = self.exited.send(Exited { pod_uid: self.pod_uid.clone(), container_id, exit }).await;
    }
}

/// Gives every container of a sandbox that is gone an end, in the state and on record; returns those that had none.
pub fn bury(state: &watch::Sender<PodState>, containers: &Path) -> Vec<(String, Exit)> {
    let mut buried = Vec::new();
    state.send_modify(|state| {
        state.stands = false;
        for seen in state.containers.iter_mut().filter(|seen| seen.exit.is_none()) {
            let exit = Exit { code: LOST_CODE, signal: libc::SIGKILL, oom_killed: false, finished_at_ms: now_ms() };
            seen.exit = Some(exit.clone());
            record(containers, seen);
            buried.push((seen.id.clone(), exit));
        }
    });
    buried
}

fn record(containers: &Path, seen: &ContainerSeen) {
    if let Err(error) = write_record(&containers.join(&seen.id), seen) {
        tracing::warn!(container = seen.id, %error, "the end of a container cannot be recorded");
    }
}

fn lock(waiting: &Waiting) -> MutexGuard<'_, Option<HashMap<u64, oneshot::Sender<Answer>>>> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}
