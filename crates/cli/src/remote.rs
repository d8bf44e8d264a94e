//! Streams into a container: `exec`, `attach` and `cp` open them, here bytes go both ways until the other side has ended.
//!
//! Mirrors client-go `tools/remotecommand/websocket.go`: a message's first byte names the channel; the outcome is a `Status`
//! on a channel of its own.

use std::io::Read;

use bytes::{BufMut, Bytes, BytesMut};
use futures::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio_tungstenite::tungstenite::Message;

use crate::client::{Client, WebSocket};
use crate::errors::{Error, Result};
use crate::json::Json;
use crate::session::Session;
use crate::terminal::Raw;

/// Protocols, the best first. The older one cannot tell that input has ended.
const PROTOCOLS: [&str; 2] = ["v5.channel.k8s.io", "v4.channel.k8s.io"];
/// Numbers of the channels.
const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
const CLOSE: u8 = 255;
/// Bytes of input read at once, and pieces that wait.
const CHUNK: usize = 32 << 10;
const WAITING: usize = 16;

/// What is asked for.
#[derive(Clone, Debug, Default)]
pub struct Ask {
    /// Path of the subresource.
    pub path: String,
    /// The container.
    pub container: String,
    /// The command; empty to attach.
    pub command: Vec<String>,
    /// It gets input.
    pub stdin: bool,
    /// It gets a terminal.
    pub tty: bool,
}

/// What came from the container.
pub enum Said {
    /// On standard output, or the terminal.
    Output(Bytes),
    /// On standard error.
    Error(Bytes),
}

/// Streams that are open.
pub struct Remote {
    socket: WebSocket,
    /// The protocol can tell that input has ended.
    ends_input: bool,
}

impl Remote {
    /// Opens streams.
    pub async fn open(client: &Client, ask: &Ask) -> Result<Remote> {
        let mut query: Vec<(&str, String)> = ask.command.iter().map(|word| ("command", word.clone())).collect();
        query.push(("container", ask.container.clone()));
        let flags = [("stdin", ask.stdin), ("stdout", true), ("stderr", !ask.tty), ("tty", ask.tty)];
        query.extend(flags.iter().filter(|(_, set)| *set).map(|(name, _)| (*name, "true".to_owned())));
        let (socket, protocol) = client.websocket(&ask.path, &query, &PROTOCOLS).await?;
        Ok(Remote { socket, ends_input: protocol == PROTOCOLS[0] })
    }

    /// Sends what `input` gives and passes on what is said, until the other side has ended: an error is how.
    pub async fn carry(
        self,
        input: Option<Receiver<Bytes>>,
        terminal: Option<&mut Raw>,
        said: Sender<Said>,
    ) -> Result<()> {
        let (mut to, mut from) = self.socket.split();
        let (messages, mut outgoing) = mpsc::channel(WAITING);
        let typed = pass_on(input, self.ends_input, messages.clone());
        let sizes = pass_on_sizes(terminal, messages);
        let send = async {
            while let Some(message) = outgoing.recv().await {
                if to.send(message).await.is_err() {
                    break;
                }
            }
        };
        let outward = async {
            tokio::join!(typed, sizes, send);
            std::future::pending::<()>().await
        };
        let inward = async {
            while let Some(message) = from.next().await {
                let message = message.map_err(|error| Error::told(format!("the stream broke off: {error}")))?;
                let Message::Binary(mut bytes) = message else { continue };
                if bytes.is_empty() {
                    continue;
                }
                let channel = bytes.split_to(1)[0];
                let piece = match channel {
                    ERROR if !bytes.is_empty() => return outcome(&bytes),
                    STDOUT => Said::Output(bytes),
                    STDERR => Said::Error(bytes),
                    _ => continue,
                };
                if said.send(piece).await.is_err() {
                    return Err(Error::silent(1));
                }
            }
            Err(Error::told("the stream ended without an outcome: the server or its node went away"))
        };
        let ended = tokio::select! {
            ended = inward => ended,
            () = outward => Ok(()),
        };
        drop(said);
        ended
    }
}

async fn pass_on(input: Option<Receiver<Bytes>>, ends: bool, messages: Sender<Message>) {
    let Some(mut input) = input else { return };
    while let Some(bytes) = input.recv().await {
        if messages.send(on_channel(STDIN, &bytes)).await.is_err() {
            return;
        }
    }
    if ends {
        drop(messages.send(on_channel(CLOSE, &[STDIN])).await);
    }
}

async fn pass_on_sizes(terminal: Option<&mut Raw>, messages: Sender<Message>) {
    let Some(terminal) = terminal else { return };
    loop {
        if let Some((width, height)) = terminal.size() {
            let size = serde_json::json!({ "Width": width, "Height": height }).to_string();
            if messages.send(on_channel(RESIZE, size.as_bytes())).await.is_err() {
                return;
            }
        }
        terminal.resized().await;
    }
}

fn on_channel(channel: u8, bytes: &[u8]) -> Message {
    let mut message = BytesMut::with_capacity(1 + bytes.len());
    message.put_u8(channel);
    message.extend_from_slice(bytes);
    Message::Binary(message.freeze())
}

/// Mirrors `errorDecoderV4` of client-go's `tools/remotecommand/v4.go`, and what kubectl makes of an exit code.
fn outcome(bytes: &[u8]) -> Result<()> {
    let status: Value = serde_json::from_slice(bytes)?;
    if status.text("status") == "Success" {
        return Ok(());
    }
    let causes = status.list("details.causes");
    let code = causes.iter().find(|cause| cause.text("reason") == "ExitCode").map(|cause| cause.text("message"));
    match code.and_then(|code| code.parse::<i32>().ok()).filter(|_| status.text("reason") == "NonZeroExitCode") {
        Some(code) => Err(Error::bare(format!("command terminated with exit code {code}")).exiting(code as u8)),
        None => Err(Error::told(status.text("message"))),
    }
}

/// Runs streams with the user's own input and output.
pub async fn interact(session: &mut Session, ask: &Ask) -> Result<()> {
    let remote = Remote::open(&session.client()?, ask).await?;
    let mut terminal = ask.tty.then(Raw::start).transpose()?;
    let input = ask.stdin.then(|| typed(std::mem::replace(&mut session.io.stdin, Box::new(std::io::empty()))));
    let (said, mut heard) = mpsc::channel(WAITING);
    let show = async {
        while let Some(piece) = heard.recv().await {
            let (stream, bytes) = match &piece {
                Said::Output(bytes) => (&mut session.io.stdout, bytes),
                Said::Error(bytes) => (&mut session.io.stderr, bytes),
            };
            stream.write_all(bytes)?;
            stream.flush()?;
        }
        Ok(())
    };
    let carry = async {
        let ended = remote.carry(input, terminal.as_mut(), said).await;
        Ok::<_, Error>(ended)
    };
    // A reader of our output that has seen enough ends all.
    let (ended, ()) = tokio::try_join!(carry, show)?;
    ended
}

/// What is read from `input`, by a thread of its own: reading a terminal cannot be given up.
fn typed(mut input: Box<dyn Read + Send>) -> Receiver<Bytes> {
    let (sender, receiver) = mpsc::channel(WAITING);
    std::thread::spawn(move || {
        let mut chunk = vec![0; CHUNK];
        while let Ok(length @ 1..) = input.read(&mut chunk) {
            if sender.blocking_send(Bytes::copy_from_slice(&chunk[..length])).is_err() {
                return;
            }
        }
    });
    receiver
}

#[cfg(test)]
mod tests {
    use super::outcome;

    #[test]
    fn outcomes() {
        assert!(outcome(br#"{"metadata":{},"status":"Success"}"#).is_ok());
        let failed = br#"{"status":"Failure","reason":"NonZeroExitCode","message":"m","details":{"causes":[{"reason":"ExitCode","message":"3"}]}}"#;
        let error = outcome(failed).unwrap_err();
        assert_eq!((error.message().as_str(), error.exit_code()), ("command terminated with exit code 3", 3));
        let error = outcome(br#"{"status":"Failure","reason":"InternalError","message":"no such thing"}"#).unwrap_err();
        assert_eq!((error.message().as_str(), error.exit_code()), ("error: no such thing", 1));
    }
}
