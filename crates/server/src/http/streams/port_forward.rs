//! Connections to ports of a pod.
//!
//! Over SPDY, alone or within a WebSocket, the client opens a pair of streams for each connection: data and errors. Over a
//! WebSocket alone it names the ports at once, and has two channels for each. Mirrors the kubelet's
//! `k8s.io/kubelet/pkg/cri/streaming/portforward/{httpstream,websocket}.go`.

use std::collections::HashMap;

use api::Refusal;
use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{Receiver, Sender};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::pieces::Outgoing;
use super::spdy::connection::{Connection, Stream};
use super::upgrade::Carrier;
use super::websocket::{Channels, tunnel};
use super::{PORTS_PROTOCOLS, Query};
use crate::nodes::{ConnectRequest, NodeRequest};

/// Ports that one WebSocket may name: each has two channels.
const PORTS_MAX: usize = 100;
/// Half-opened pairs of streams of one connection.
const PAIRS_MAX: usize = 1_024;
/// Bytes read from a pod at once.
const CHUNK: usize = 32 << 10;

/// The ports of a pod.
#[derive(Clone)]
pub struct Ports {
    /// Uid of the pod.
    pub uid: String,
    /// Its name, for errors.
    pub name: String,
    /// The way to its node.
    pub mailbox: Sender<NodeRequest>,
}

/// The ports that a request names.
pub fn listed(query: &Query) -> Result<Vec<u16>, Refusal> {
    let texts = query.all("ports");
    let texts = texts.iter().flat_map(|text| text.split(',')).filter(|text| !text.is_empty());
    let parsed = texts.map(|text| match text.parse() {
        Ok(port @ 1..) => Ok(port),
        _ => Err(Refusal::bad_request(format!("unable to parse \"{text}\" as a port"))),
    });
    let ports: Vec<u16> = parsed.collect::<Result<_, _>>()?;
    if PORTS_MAX < ports.len() {
        return Err(Refusal::bad_request(format!("{} ports are too many: {PORTS_MAX} at most", ports.len())));
    }
    Ok(ports)
}

impl Ports {
    /// Carries connections until the client leaves.
    pub async fn carry(self, carrier: Carrier, listed: &[u16]) {
        match carrier {
            Carrier::Spdy(io) => self.over_spdy(Connection::serve(*io)).await,
            Carrier::WebSocket(socket, protocol) if protocol == PORTS_PROTOCOLS[0] => {
                self.over_spdy(Connection::serve(tunnel(*socket))).await;
            }
            Carrier::WebSocket(socket, _) => {
                let channels = u8::try_from(2 * listed.len()).expect("the number of ports was checked");
                self.over_channels(Channels::serve(*socket, channels), listed).await;
            }
        }
    }

    async fn over_spdy(self, mut connection: Connection) {
        let mut halves: HashMap<String, Stream> = HashMap::new();
        let mut running = JoinSet::new();
        while let Some(stream) = connection.opened.recv().await {
            while running.try_join_next().is_some() {}
            let id = stream.header("requestid").to_owned();
            let Some(first) = halves.remove(&id) else {
                if halves.len() < PAIRS_MAX {
                    halves.insert(id, stream);
                }
                continue;
            };
            let (data, error) = if first.header("streamtype") == "data" { (first, stream) } else { (stream, first) };
            let Ok(port @ 1..) = data.header("port").parse::<u16>() else { continue };
            running.spawn(self.clone().forward(port, data.incoming, data.outgoing, error.outgoing));
        }
        // The client has left: every one notices by itself.
        while running.join_next().await.is_some() {}
    }

    async fn over_channels(self, mut channels: Channels, ports: &[u16]) {
        let mut running = JoinSet::new();
        for (number, port) in (0..).zip(ports) {
            let (data, error) = (channels.outgoing(2 * number), channels.outgoing(2 * number + 1));
            // The first message on each channel says which port it is for.
            for channel in [&data, &error] {
                if channel.write(Bytes::copy_from_slice(&port.to_le_bytes())).await.is_err() {
                    return;
                }
            }
            if let Some(incoming) = channels.incoming(2 * number) {
                running.spawn(self.clone().forward(*port, incoming, data, error));
            }
        }
        drop(channels);
        while running.join_next().await.is_some() {}
    }

    /// One connection.
    async fn forward(self, port: u16, incoming: Receiver<Bytes>, data: Outgoing, error: Outgoing) {
        let connected = tokio::select! {
            connected = self.connect(port) => connected,
            () = data.left() => return,
        };
        match connected {
            Ok(connection) => {
                tokio::select! {
                    () = exchange(connection, incoming, &data) => {}
                    () = data.left() => return,
                }
            }
            Err(why) => {
                let Ports { name, uid, .. } = &self;
                let why = format!("error forwarding port {port} to pod {name}, uid {uid}: {why}");
                drop(error.write(why.into()).await);
            }
        }
        drop(error.finish().await);
        drop(data.finish().await);
    }

    async fn connect(&self, port: u16) -> Result<TcpStream, String> {
        let (reply, answer) = oneshot::channel();
        let request = ConnectRequest { pod_uid: self.uid.clone(), port };
        let gone = || "its node is not connected any more".to_owned();
        self.mailbox.send(NodeRequest::Connect(request, reply)).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

/// Bytes in both directions, until the pod has sent its last.
async fn exchange(connection: TcpStream, mut incoming: Receiver<Bytes>, data: &Outgoing) {
    let (mut from, mut to) = connection.into_split();
    let inward = async {
        while let Some(bytes) = incoming.recv().await {
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
        drop(to.shutdown().await);
    };
    let outward = async {
        let mut buffer = BytesMut::with_capacity(CHUNK);
        while let Ok(1..) = from.read_buf(&mut buffer).await {
            if data.write(buffer.split().freeze()).await.is_err() {
                return;
            }
            buffer.reserve(CHUNK);
        }
        drop(data.finish().await);
    };
    tokio::pin!(inward);
    tokio::pin!(outward);
    tokio::select! {
        () = &mut inward => outward.await,
        // Nothing more comes: what a client would still send is of no use, and some clients close only when they are told.
        () = &mut outward => {}
    }
}
