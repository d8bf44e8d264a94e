//! What a stream carries, whichever way it came: pieces to the client and pieces from it.

use bytes::Bytes;
use tokio::sync::mpsc;

/// Pieces that wait on each stream, and on the whole way to the client.
pub const WAITING: usize = 16;
/// How long a client that was sent everything may take to close: what it still sends is read over, since a connection closed
/// with unread bytes loses what was sent last.
pub const LINGER: std::time::Duration = std::time::Duration::from_secs(5);

/// Bytes of one stream to the client.
pub struct Piece {
    /// The stream's number.
    pub stream: u32,
    /// Nothing follows.
    pub last: bool,
    /// The bytes.
    pub bytes: Bytes,
}

/// The client left.
#[derive(Debug, PartialEq, Eq)]
pub struct Left;

/// The way to the client on one stream. When every one of a connection is dropped, the connection closes.
#[derive(Clone)]
pub struct Outgoing {
    stream: u32,
    pieces: mpsc::Sender<Piece>,
}

impl Outgoing {
    /// The way on the stream of this number.
    pub fn new(stream: u32, pieces: mpsc::Sender<Piece>) -> Outgoing {
        Outgoing { stream, pieces }
    }

    /// Sends bytes; waits while many wait.
    pub async fn write(&self, bytes: Bytes) -> Result<(), Left> {
        self.send(bytes, false).await
    }

    /// Says that nothing follows.
    pub async fn finish(&self) -> Result<(), Left> {
        self.send(Bytes::new(), true).await
    }

    async fn send(&self, bytes: Bytes, last: bool) -> Result<(), Left> {
        self.pieces.send(Piece { stream: self.stream, last, bytes }).await.map_err(|_| Left)
    }

    /// Returns when the client has left.
    pub async fn left(&self) {
        self.pieces.closed().await;
    }
}
