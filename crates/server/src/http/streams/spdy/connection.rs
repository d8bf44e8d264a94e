//! A SPDY connection: one task reads frames and hands their bytes to streams, and writes what streams send.
//!
//! A stream that is not read holds up the others of its connection, as it does in `moby/spdystream`: there is no flow control
//! by which to ask a client to wait.

use std::collections::HashMap;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc::{self, Receiver, Sender, WeakSender};

use super::frames::{Frame, Headers, Reader, Writer};
use crate::http::streams::pieces::{LINGER, Outgoing, Piece, WAITING};

/// Streams open at a time on one connection.
const STREAMS_MAX: usize = 1_024;
/// `RST_STREAM` of a stream that is not taken.
const REFUSED_STREAM: u32 = 3;
/// Bytes read at once.
const CHUNK: usize = 32 << 10;

/// A stream that the client opened.
pub struct Stream {
    headers: Headers,
    /// What the client sends; ends when it says so or leaves.
    pub incoming: Receiver<Bytes>,
    /// The way to the client.
    pub outgoing: Outgoing,
}

impl Stream {
    /// What a header says; empty without it.
    pub fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map_or("", |(_, value)| value)
    }
}

/// A connection. It closes when it and all its streams are dropped.
pub struct Connection {
    /// Streams as the client opens them; ends when the client leaves.
    pub opened: Receiver<Stream>,
    /// Keeps the connection open while there is no stream.
    _open: Sender<Piece>,
}

impl Connection {
    /// Serves a connection over `io`.
    pub fn serve(io: impl AsyncRead + AsyncWrite + Send + 'static) -> Connection {
        let (pieces, to_client) = mpsc::channel(WAITING);
        let (opening, opened) = mpsc::channel(WAITING);
        let (answers, answered) = mpsc::channel(WAITING);
        let streams =
            Streams { open: HashMap::new(), opening, answers, pieces: pieces.downgrade(), reader: Reader::default() };
        tokio::spawn(carry(io, streams, to_client, answered));
        Connection { opened, _open: pieces }
    }
}

async fn carry(
    io: impl AsyncRead + AsyncWrite + Send + 'static,
    streams: Streams,
    pieces: Receiver<Piece>,
    answers: Receiver<Frame>,
) {
    let (from, to) = tokio::io::split(io);
    let reading = read(from, streams);
    tokio::pin!(reading);
    tokio::select! {
        () = &mut reading => {}
        _ = write(to, pieces, answers) => drop(tokio::time::timeout(LINGER, reading).await),
    }
}

/// Writes until nobody has anything to write any more.
async fn write(
    mut to: impl AsyncWrite + Unpin,
    mut pieces: Receiver<Piece>,
    mut answers: Receiver<Frame>,
) -> std::io::Result<()> {
    let (mut writer, mut out) = (Writer::default(), BytesMut::new());
    loop {
        let frame = tokio::select! {
            // A stream is taken before anything is written on it.
            biased;
            Some(answer) = answers.recv() => answer,
            piece = pieces.recv() => match piece {
                Some(Piece { stream, last, bytes }) => Frame::Data { stream, last, bytes },
                None => break,
            },
        };
        writer.put(&frame, &mut out);
        to.write_all(&out.split()).await?;
        if pieces.is_empty() && answers.is_empty() {
            to.flush().await?;
        }
    }
    writer.put(&Frame::GoAway, &mut out);
    to.write_all(&out).await?;
    to.shutdown().await
}

async fn read(mut from: impl AsyncRead + Unpin, mut streams: Streams) {
    let mut buffer = BytesMut::with_capacity(CHUNK);
    loop {
        match streams.reader.take(&mut buffer) {
            Ok(Some(frame)) => streams.hear(frame).await,
            Ok(None) => match from.read_buf(&mut buffer).await {
                Ok(1..) => {}
                _ => return,
            },
            Err(error) => {
                tracing::debug!(error, "a client speaks no SPDY");
                return;
            }
        }
    }
}

struct Streams {
    open: HashMap<u32, Sender<Bytes>>,
    opening: Sender<Stream>,
    answers: Sender<Frame>,
    pieces: WeakSender<Piece>,
    reader: Reader,
}

impl Streams {
    async fn hear(&mut self, frame: Frame) {
        match frame {
            Frame::SynStream { stream, last, headers } => self.open(stream, last, headers).await,
            Frame::Data { stream, last, bytes } => {
                if let Some(sender) = self.open.get(&stream)
                    && !bytes.is_empty()
                    && sender.send(bytes).await.is_err()
                {
                    // Nobody reads it any more; what still comes is dropped.
                    self.open.remove(&stream);
                }
                if last {
                    self.open.remove(&stream);
                }
            }
            Frame::Reset { stream, .. } => drop(self.open.remove(&stream)),
            Frame::Ping(id) => self.answer(Frame::Ping(id)).await,
            Frame::SynReply { .. } | Frame::GoAway | Frame::Other(_) => {}
        }
    }

    async fn open(&mut self, stream: u32, last: bool, headers: Headers) {
        self.open.retain(|_, sender| !sender.is_closed());
        let Some(pieces) = self.pieces.upgrade().filter(|_| self.open.len() < STREAMS_MAX) else {
            return self.answer(Frame::Reset { stream, status: REFUSED_STREAM }).await;
        };
        // First of all: a client drops what comes on a stream that was not taken yet.
        self.answer(Frame::SynReply { stream, headers: Vec::new() }).await;
        let (sender, incoming) = mpsc::channel(WAITING);
        let opened = self.opening.send(Stream { headers, incoming, outgoing: Outgoing::new(stream, pieces) }).await;
        if opened.is_err() {
            return self.answer(Frame::Reset { stream, status: REFUSED_STREAM }).await;
        }
        if !last {
            self.open.insert(stream, sender);
        }
    }

    async fn answer(&self, frame: Frame) {
        // Without a writer the connection is about to end.
        drop(self.answers.send(frame).await);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The client's end: writes frames, and reads until the connection closes.
    async fn client(frames: Vec<Frame>, io: tokio::io::DuplexStream) -> Vec<Frame> {
        let (mut from, mut to) = tokio::io::split(io);
        let (mut writer, mut out) = (Writer::default(), BytesMut::new());
        frames.iter().for_each(|frame| writer.put(frame, &mut out));
        to.write_all(&out).await.unwrap();
        let (mut reader, mut buffer, mut seen) = (Reader::default(), BytesMut::new(), Vec::new());
        while from.read_buf(&mut buffer).await.unwrap() > 0 {
            while let Some(frame) = reader.take(&mut buffer).unwrap() {
                seen.push(frame);
            }
        }
        seen
    }

    #[tokio::test]
    async fn a_stream_is_answered_and_the_connection_ends_with_it() {
        let (ours, theirs) = tokio::io::duplex(100);
        let headers = vec![("streamtype".to_owned(), "data".to_owned())];
        let bytes = Bytes::from(vec![b'x'; 1000]);
        let asked = vec![
            Frame::SynStream { stream: 1, last: false, headers },
            Frame::Ping(9),
            Frame::Data { stream: 1, last: true, bytes: bytes.clone() },
            Frame::Data { stream: 77, last: true, bytes: bytes.clone() },
        ];
        let client = tokio::spawn(client(asked, theirs));
        let mut connection = Connection::serve(ours);
        let mut stream = connection.opened.recv().await.unwrap();
        assert_eq!((stream.header("Streamtype"), stream.header("port")), ("data", ""));
        assert_eq!(stream.incoming.recv().await.unwrap(), bytes);
        assert_eq!(stream.incoming.recv().await, None);
        stream.outgoing.write(bytes.clone()).await.unwrap();
        stream.outgoing.finish().await.unwrap();
        drop((stream, connection));
        let seen = client.await.unwrap();
        assert_eq!(seen[0], Frame::SynReply { stream: 1, headers: Vec::new() });
        assert!(seen.contains(&Frame::Ping(9)));
        let data: Vec<&Frame> = seen.iter().filter(|frame| matches!(frame, Frame::Data { .. })).collect();
        let end = Frame::Data { stream: 1, last: true, bytes: Bytes::new() };
        assert_eq!(data, [&Frame::Data { stream: 1, last: false, bytes }, &end]);
        assert_eq!(seen.last(), Some(&Frame::GoAway));
    }

    #[tokio::test]
    async fn who_leaves_is_noticed() {
        let (ours, theirs) = tokio::io::duplex(100);
        let mut connection = Connection::serve(ours);
        let (mut writer, mut out) = (Writer::default(), BytesMut::new());
        writer.put(&Frame::SynStream { stream: 1, last: false, headers: Vec::new() }, &mut out);
        let mut theirs = theirs;
        theirs.write_all(&out).await.unwrap();
        let mut stream = connection.opened.recv().await.unwrap();
        drop(theirs);
        assert_eq!(stream.incoming.recv().await, None);
        stream.outgoing.left().await;
        assert!(connection.opened.recv().await.is_none());
        assert!(stream.outgoing.write(Bytes::from_static(b"late")).await.is_err());
    }
}
