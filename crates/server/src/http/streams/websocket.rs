//! WebSockets, the younger of the two ways in which streams are opened.
//!
//! For exec and attach a message's first byte names the channel (`v4.channel.k8s.io`; `v5.channel.k8s.io` can also end one).
//! For port-forward, kubectl sends SPDY in the messages of a WebSocket. Mirrors apimachinery's
//! `pkg/util/httpstream/wsstream/conn.go` and `pkg/util/remotecommand/constants.go`, and the API server's
//! `pkg/util/proxy/{websocket,streamtunnel}.go`.

use axum::extract::ws::{CloseFrame, Message, WebSocket, close_code};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc::{self, Receiver, Sender};

use super::pieces::{LINGER, Outgoing, Piece, WAITING};

/// A message that names a channel to end (version 5 only).
const CLOSE: u8 = 255;
/// Bytes of a tunnel on their way.
const TUNNEL: usize = 64 << 10;

/// The channels of one WebSocket: what comes on each that the client may write to, by number.
pub struct Channels {
    incoming: Vec<Option<Receiver<Bytes>>>,
    pieces: Sender<Piece>,
}

impl Channels {
    /// Serves `count` channels.
    pub fn serve(socket: WebSocket, count: u8) -> Channels {
        let (senders, incoming) = (0..count).map(|_| mpsc::channel(WAITING)).map(|(s, r)| (Some(s), Some(r))).unzip();
        let (pieces, to_client) = mpsc::channel(WAITING);
        let (to, from) = socket.split();
        tokio::spawn(async move {
            let reading = read(from, senders);
            tokio::pin!(reading);
            tokio::select! {
                () = &mut reading => {}
                () = write(to, to_client) => drop(tokio::time::timeout(LINGER, reading).await),
            }
        });
        Channels { incoming, pieces }
    }

    /// What the client sends on a channel; can be had once.
    pub fn incoming(&mut self, channel: u8) -> Option<Receiver<Bytes>> {
        self.incoming.get_mut(usize::from(channel))?.take()
    }

    /// The way to the client on a channel.
    pub fn outgoing(&self, channel: u8) -> Outgoing {
        Outgoing::new(channel.into(), self.pieces.clone())
    }
}

async fn read(mut from: SplitStream<WebSocket>, mut channels: Vec<Option<Sender<Bytes>>>) {
    while let Some(Ok(message)) = from.next().await {
        let Message::Binary(mut bytes) = message else {
            if matches!(message, Message::Close(_)) {
                return;
            }
            continue;
        };
        let Ok(channel) = bytes.try_get_u8() else { continue };
        if channel == CLOSE {
            if let Some(ended) = bytes.first().and_then(|channel| channels.get_mut(usize::from(*channel))) {
                *ended = None;
            }
            continue;
        }
        // What nobody reads is dropped.
        if let Some(Some(sender)) = channels.get(usize::from(channel))
            && !bytes.is_empty()
        {
            drop(sender.send(bytes).await);
        }
    }
}

async fn write(mut to: SplitSink<WebSocket, Message>, mut pieces: Receiver<Piece>) {
    while let Some(Piece { stream, last, bytes }) = pieces.recv().await {
        // A channel cannot be ended towards the client; the connection's end does it.
        if last {
            continue;
        }
        let mut message = BytesMut::with_capacity(1 + bytes.len());
        message.put_u8(stream as u8);
        message.extend_from_slice(&bytes);
        if to.send(Message::Binary(message.freeze())).await.is_err() {
            return;
        }
    }
    end(&mut to).await;
}

/// Without a code, clients take the end for a fault.
async fn end(to: &mut SplitSink<WebSocket, Message>) {
    let normal = CloseFrame { code: close_code::NORMAL, reason: "".into() };
    drop(to.send(Message::Close(Some(normal))).await);
    drop(to.close().await);
}

/// Sends pieces as they are, each a message, until they end or the client leaves.
pub async fn send(socket: WebSocket, mut pieces: Receiver<Bytes>) {
    let (mut to, mut from) = socket.split();
    let leaving = async { while let Some(Ok(_)) = from.next().await {} };
    tokio::pin!(leaving);
    let sending = async {
        while let Some(bytes) = pieces.recv().await {
            if to.send(Message::Binary(bytes)).await.is_err() {
                return;
            }
        }
        end(&mut to).await;
    };
    tokio::select! {
        () = &mut leaving => {}
        () = sending => drop(tokio::time::timeout(LINGER, leaving).await),
    }
}

/// The bytes that travel in the messages of a WebSocket, as a connection.
pub fn tunnel(socket: WebSocket) -> DuplexStream {
    let (ours, theirs) = tokio::io::duplex(TUNNEL);
    let (mut from, mut to) = tokio::io::split(theirs);
    let (mut sink, mut messages) = socket.split();
    tokio::spawn(async move {
        let inward = async {
            while let Some(Ok(message)) = messages.next().await {
                match message {
                    Message::Binary(bytes) if to.write_all(&bytes).await.is_err() => return,
                    Message::Close(_) => break,
                    _ => {}
                }
            }
            drop(to.shutdown().await);
        };
        let outward = async {
            let mut buffer = BytesMut::with_capacity(TUNNEL);
            while let Ok(1..) = from.read_buf(&mut buffer).await {
                if sink.send(Message::Binary(buffer.split().freeze())).await.is_err() {
                    return;
                }
                buffer.reserve(TUNNEL);
            }
            end(&mut sink).await;
        };
        tokio::join!(inward, outward);
    });
    ours
}
