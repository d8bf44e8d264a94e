//! Asking the node's own name servers: a message is passed on as it is, and so is what they answer.

use std::{io, net::SocketAddr, time::Duration};

use rand::random;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    time::timeout,
};

/// How long a name server may take. Those that a node has at most are all asked before a client asks again after five seconds.
const ANSWERS_WITHIN: Duration = Duration::from_millis(1500);
/// How many are asked, as many as the C libraries do.
const SERVERS: usize = 3;
const HEADER_BYTES: usize = 12;
/// In the third and fourth byte of a header.
const IS_ANSWER: u8 = 0x80;
const IS_TRUNCATED: u8 = 0x02;
const CODE: u8 = 0x0f;
const SERVER_FAILURE: u8 = 2;
const REFUSED: u8 = 5;

/// How to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Over {
    Udp,
    Tcp,
    /// Over UDP, and once more over TCP where the answer was too long for that.
    Either,
}

/// The first answer of these servers to a message; one that could not tell counts only if no other can. `None`: none answers.
pub(crate) async fn ask(servers: &[SocketAddr], message: &[u8], over: Over) -> Option<Vec<u8>> {
    let mut last = None;
    for server in servers.iter().take(SERVERS) {
        let asking = async {
            match over {
                Over::Udp => by_datagram(*server, message).await,
                Over::Tcp => by_stream(*server, message).await,
                Over::Either => match by_datagram(*server, message).await? {
                    answer if answer[2] & IS_TRUNCATED != 0 => by_stream(*server, message).await,
                    answer => Ok(answer),
                },
            }
        };
        match timeout(ANSWERS_WITHIN, asking).await {
            Ok(Ok(answer)) if ![SERVER_FAILURE, REFUSED].contains(&(answer[3] & CODE)) => return Some(answer),
            Ok(Ok(answer)) => last = Some(answer),
            Ok(Err(error)) => tracing::debug!(%server, %error, "a name server cannot be asked"),
            Err(_) => tracing::debug!(%server, "a name server does not answer"),
        }
    }
    last
}

/// From a port and with a number that nobody else can guess.
pub(crate) async fn by_datagram(server: SocketAddr, message: &[u8]) -> io::Result<Vec<u8>> {
    let any: SocketAddr = if server.is_ipv4() { ([0; 4], 0).into() } else { ([0u16; 8], 0).into() };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    let mut sent = message.to_vec();
    sent[..2].copy_from_slice(&random::<[u8; 2]>());
    socket.send(&sent).await?;
    let mut answer = vec![0; usize::from(u16::MAX)];
    loop {
        let length = socket.recv(&mut answer).await?;
        if HEADER_BYTES <= length && answer[..2] == sent[..2] && answer[2] & IS_ANSWER != 0 {
            answer.truncate(length);
            answer[..2].copy_from_slice(&message[..2]);
            return Ok(answer);
        }
    }
}

pub(crate) async fn by_stream(server: SocketAddr, message: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    write_message(&mut stream, message).await?;
    match read_message(&mut stream).await? {
        Some(answer) if HEADER_BYTES <= answer.len() && answer[..2] == message[..2] => Ok(answer),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// The next message of a connection; `None`: it ends.
pub(crate) async fn read_message(stream: &mut TcpStream) -> io::Result<Option<Vec<u8>>> {
    let length = match stream.read_u16().await {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        length => length?,
    };
    let mut message = vec![0; length.into()];
    stream.read_exact(&mut message).await?;
    Ok(Some(message))
}

/// Length and bytes, in one piece.
pub(crate) async fn write_message(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    stream.write_all(&[&length.to_be_bytes(), message].concat()).await
}
