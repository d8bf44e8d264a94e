//! A client's streams and a container's, put together: `exec` and `attach`, whichever way they came.
//!
//! Mirrors the kubelet's `k8s.io/kubelet/pkg/cri/streaming/remotecommand/{exec,attach,httpstream}.go`: what the process
//! writes is sent until it ends, then the outcome on the error stream. When the client leaves, the process loses its
//! streams and is otherwise left alone.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc::Receiver;

use super::pieces::{Left, Outgoing};
use super::spdy::connection::{Connection, Stream};
use super::websocket::Channels;
use crate::nodes::Session;

/// How long a client may take to open its streams (upstream: `DefaultStreamCreationTimeout`).
const CREATION: Duration = Duration::from_secs(30);
/// How long a client over a WebSocket has to make its streams. Those of kubectl 1.32 begin to read before they have them,
/// and lose what comes first (mended since: `readDemuxLoop` of client-go's `tools/remotecommand/websocket.go`). Upstream's
/// API server gives them about as long, while it asks the kubelet.
const STREAMS_MADE: Duration = Duration::from_millis(25);
/// Bytes read from a process at once.
const CHUNK: usize = 32 << 10;

/// Numbers of the channels of a WebSocket.
const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
const CHANNELS: u8 = 5;

/// Which streams the client wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// It has input.
    pub stdin: bool,
    /// It shows output.
    pub stdout: bool,
    /// It shows errors apart; never with a terminal.
    pub stderr: bool,
    /// It is a terminal.
    pub tty: bool,
}

/// The client's end.
pub struct Remote {
    stdin: Option<Receiver<Bytes>>,
    stdout: Option<Outgoing>,
    stderr: Option<Outgoing>,
    resize: Option<Receiver<Bytes>>,
    error: Outgoing,
    /// The outcome is told as a Status, not in words.
    tells_codes: bool,
}

impl Remote {
    /// Over a WebSocket.
    pub async fn over_websocket(mut channels: Channels, wanted: Wanted, tells_codes: bool) -> Option<Remote> {
        let out = |wanted: bool, channel: u8| wanted.then(|| channels.outgoing(channel));
        let (stdout, stderr, error) =
            (out(wanted.stdout, STDOUT), out(wanted.stderr, STDERR), channels.outgoing(ERROR));
        tokio::time::sleep(STREAMS_MADE).await;
        // The first message tells the client that it may begin.
        let first = stdout.as_ref().or(stderr.as_ref()).unwrap_or(&error);
        first.write(Bytes::new()).await.ok()?;
        let stdin = channels.incoming(STDIN).filter(|_| wanted.stdin);
        let resize = channels.incoming(RESIZE).filter(|_| wanted.tty);
        Some(Remote { stdin, stdout, stderr, resize, error, tells_codes })
    }

    /// How many channels a WebSocket has.
    pub const fn channels() -> u8 {
        CHANNELS
    }

    /// Over SPDY: the client opens a stream for each purpose.
    pub async fn over_spdy(mut connection: Connection, wanted: Wanted) -> Option<Remote> {
        let count = 1 + [wanted.stdin, wanted.stdout, wanted.stderr, wanted.tty].iter().filter(|one| **one).count();
        let (mut stdin, mut stdout, mut stderr, mut error, mut resize) = (None, None, None, None, None);
        let all = async {
            for _ in 0..count {
                let stream = connection.opened.recv().await?;
                let place = match stream.header("streamtype") {
                    "stdin" => &mut stdin,
                    "stdout" => &mut stdout,
                    "stderr" => &mut stderr,
                    "error" => &mut error,
                    "resize" => &mut resize,
                    _ => return None,
                };
                *place = Some(stream);
            }
            Some(())
        };
        tokio::time::timeout(CREATION, all).await.ok()??;
        let incoming = |stream: Option<Stream>| stream.map(|stream| stream.incoming);
        let outgoing = |stream: Option<Stream>| stream.map(|stream| stream.outgoing);
        Some(Remote {
            stdin: incoming(stdin),
            stdout: outgoing(stdout),
            stderr: outgoing(stderr),
            resize: incoming(resize),
            error: outgoing(error)?,
            tells_codes: true,
        })
    }

    /// Carries what both sides say until the process has ended or the client has left.
    pub async fn carry(self, session: Session) {
        let error = self.error.clone();
        tokio::select! {
            () = error.left() => {}
            () = self.carry_to_the_end(session) => {}
        }
    }

    async fn carry_to_the_end(self, session: Session) {
        let Remote { stdin, stdout, stderr, resize, error, tells_codes } = self;
        let Session { stdin: to, stdout: from, stderr: from_error, resize: terminal, ended, input_open } = session;
        let input = async {
            if let (Some(stdin), Some(to)) = (stdin, to) {
                feed(stdin, to).await;
            }
            drop(input_open);
        };
        let sizes = async {
            if let (Some(resize), Some(terminal)) = (resize, terminal) {
                follow_sizes(resize, terminal).await;
            }
        };
        let output = async {
            tokio::join!(show(Some(from), stdout), show(from_error, stderr));
            match ended {
                None => success(),
                Some(ended) => match ended.await {
                    Ok(Ok(0)) => success(),
                    Ok(Ok(code)) => exited(code),
                    Ok(Err(why)) => failed(&why),
                    Err(_) => failed("the node lost the command"),
                },
            }
        };
        let input_and_sizes = async {
            tokio::join!(input, sizes);
            std::future::pending::<()>().await
        };
        let outcome = tokio::select! {
            outcome = output => outcome,
            () = input_and_sizes => return,
        };
        let outcome = if tells_codes { outcome.to_string() } else { in_words(&outcome) };
        if outcome.is_empty() || error.write(outcome.into()).await == Ok(()) {
            drop(error.finish().await);
        }
    }
}

/// What the client types, until it ends or the process reads no more; the process then reads the end.
async fn feed(mut stdin: Receiver<Bytes>, mut to: Box<dyn AsyncWrite + Send + Unpin>) {
    while let Some(bytes) = stdin.recv().await {
        if to.write_all(&bytes).await.is_err() {
            break;
        }
    }
    drop(to);
    // What is still typed is read over: the client does not wait in vain.
    while stdin.recv().await.is_some() {}
}

/// What the process writes, to its end; also when the client does not want it. A terminal that hangs up ends with an error.
async fn show(from: Option<Box<dyn AsyncRead + Send + Unpin>>, to: Option<Outgoing>) {
    if let Some(mut from) = from {
        let mut buffer = BytesMut::with_capacity(CHUNK);
        while let Ok(1..) = from.read_buf(&mut buffer).await {
            let bytes = buffer.split().freeze();
            if let Some(to) = &to
                && to.write(bytes).await == Err(Left)
            {
                return;
            }
            buffer.reserve(CHUNK);
        }
    }
    if let Some(to) = to {
        drop(to.finish().await);
    }
}

/// Columns and rows of a terminal, as clients write them.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Size {
    width: u16,
    height: u16,
}

/// Sizes come as JSON texts one after the other, cut anywhere.
async fn follow_sizes(mut resize: Receiver<Bytes>, terminal: Box<dyn Fn(u16, u16) + Send + Sync>) {
    /// No size is longer.
    const SIZE_MAX: usize = 1 << 10;
    let mut text = Vec::new();
    while let Some(bytes) = resize.recv().await {
        text.extend_from_slice(&bytes);
        let mut sizes = serde_json::Deserializer::from_slice(&text).into_iter::<Size>();
        while let Some(Ok(Size { width, height })) = sizes.next() {
            terminal(width, height);
        }
        let read = sizes.byte_offset();
        text.drain(..read);
        if SIZE_MAX < text.len() {
            return;
        }
    }
}

/// An outcome as the oldest clients are told: nothing if all went well (upstream: `v1WriteStatusFunc`).
fn in_words(outcome: &Value) -> String {
    outcome["message"].as_str().unwrap_or_default().to_owned()
}

fn success() -> Value {
    json!({ "metadata": {}, "status": "Success" })
}

/// Upstream: `remotecommand.ServeExec`.
fn exited(code: i32) -> Value {
    json!({
        "metadata": {}, "status": "Failure", "reason": "NonZeroExitCode",
        "message": format!("command terminated with non-zero exit code: exit status {code}"),
        "details": { "causes": [{ "reason": "ExitCode", "message": code.to_string() }] },
    })
}

fn failed(why: &str) -> Value {
    let why = format!("error executing command in container: {why}");
    json!({
        "metadata": {}, "status": "Failure", "reason": "InternalError", "code": 500,
        "message": format!("Internal error occurred: {why}"), "details": { "causes": [{ "message": why }] },
    })
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tokio::sync::mpsc;

    use super::*;

    #[test]
    fn old_clients_are_told_of_failures_only() {
        let told = [success(), exited(3)].map(|outcome| in_words(&outcome));
        assert_eq!(told, ["", "command terminated with non-zero exit code: exit status 3"]);
    }

    #[tokio::test]
    async fn sizes_are_heard_however_they_are_cut() {
        let (sender, receiver) = mpsc::channel(9);
        for part in ["{\"Width\":80,", "\"Height\":24}{\"Width\":100,\"Height\":30}\n", "nonsense"] {
            sender.send(Bytes::from(part)).await.unwrap();
        }
        drop(sender);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let sink = seen.clone();
        follow_sizes(receiver, Box::new(move |width, height| sink.lock().unwrap().push((width, height)))).await;
        assert_eq!(*seen.lock().unwrap(), [(80, 24), (100, 30)]);
    }
}
