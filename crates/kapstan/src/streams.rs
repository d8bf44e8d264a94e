//! Streams into the pods of the node in this process: what the server asks for, in the agent's words.

use agent::runtime::RuntimeError;
use agent::runtime::native::{Native, sessions};
use server::{AttachRequest, ConnectRequest, ExecRequest, Session};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

/// Runs a command in a container.
pub async fn exec(containers: &Native, request: ExecRequest) -> Result<Session, String> {
    let ExecRequest { pod_uid, container, command, terminal } = request;
    let id = running(containers, &pod_uid, &container)?;
    let session = containers.interact(&pod_uid, &id, command, terminal).await;
    session.map(|session| served(session, None)).map_err(failed)
}

/// Joins what runs in a container.
pub async fn attach(containers: &Native, request: AttachRequest) -> Result<Session, String> {
    let AttachRequest { pod_uid, container, terminal, end_input } = request;
    let id = running(containers, &pod_uid, &container)?;
    let session = containers.attach(&pod_uid, &id, terminal).await.map_err(failed)?;
    let input_open = end_input.then(|| end_input_later(containers.clone(), pod_uid, id));
    Ok(served(session, input_open))
}

/// Connects to a port of a pod.
pub async fn connect(containers: &Native, request: ConnectRequest) -> Result<TcpStream, String> {
    containers.connect(&request.pod_uid, request.port).await.map_err(failed)
}

/// The kubelet's words when it does not run (`pkg/kubelet/kubelet_pods.go: GetExec`).
fn running(containers: &Native, pod_uid: &str, container: &str) -> Result<String, String> {
    let running = containers.running(pod_uid, container);
    running.map(|seen| seen.id).map_err(|_| format!("container not found (\"{container}\")"))
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err wants")]
fn failed(error: RuntimeError) -> String {
    error.to_string()
}

/// When what is returned is dropped, the container reads the end of its input.
fn end_input_later(containers: Native, pod_uid: String, id: String) -> oneshot::Sender<()> {
    let (open, closed) = oneshot::channel();
    tokio::spawn(async move {
        // Nothing is ever sent: its end is the message.
        drop(closed.await);
        if let Err(error) = containers.end_input(&pod_uid, &id).await {
            tracing::debug!(%error, "the container that was attached to has ended");
        }
    });
    open
}

fn served(session: sessions::Session, input_open: Option<oneshot::Sender<()>>) -> Session {
    let sessions::Session { input, output, error, terminal, ended } = session;
    Session {
        stdin: input.map(|input| Box::new(input) as _),
        stdout: Box::new(output),
        stderr: error.map(|error| Box::new(error) as _),
        resize: terminal.map(|terminal| Box::new(move |columns, rows| resize(&terminal, columns, rows)) as _),
        ended: ended.map(told),
        input_open,
    }
}

fn resize(terminal: &sessions::Terminal, columns: u16, rows: u16) {
    if let Err(error) = terminal.resize(columns, rows) {
        tracing::debug!(%error, "a terminal that is gone is not resized");
    }
}

/// How it ended, with an error in words.
fn told(ended: sessions::Ended) -> oneshot::Receiver<Result<i32, String>> {
    let (sender, receiver) = oneshot::channel();
    tokio::spawn(async move {
        let outcome = ended.await.unwrap_or_else(|_| Err(RuntimeError::Sandbox("the pod's shim is gone".into())));
        drop(sender.send(outcome.map_err(failed)));
    });
    receiver
}
