//! Streams into pods: `pods/exec`, `pods/attach`, `pods/portforward`. Checked and agreed upon here, carried by `remote` and
//! `port_forward`; what happens in the pod is its node's business.
//!
//! Two ways lead here: a WebSocket (kubectl since 1.31) and SPDY/3.1 (before, and where a WebSocket is refused). Mirrors
//! `pkg/registry/core/pod/rest/subresources.go` and the kubelet's streaming server (`k8s.io/kubelet/pkg/cri/streaming`).

mod pieces;
mod port_forward;
mod remote;
mod spdy;
mod upgrade;
mod websocket;

use api::{Kind, Pod, Refusal};
use axum::body::Body;
use axum::extract::Request as HttpRequest;
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use k8s_openapi::api::core::v1::{Container, Node};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};

use super::query::Query;
use super::route::Target;
use super::{Gate, logs, reply};
use crate::nodes::{AttachRequest, ConnectRequest, ExecRequest, NodeRequest, Session};
use port_forward::Ports;
use remote::{Remote, Wanted};
pub use upgrade::{Carrier, Upgrade};

/// The subresource that runs a command.
pub const EXEC: &str = "exec";
/// The subresource that joins what runs.
pub const ATTACH: &str = "attach";
/// The subresource that connects to ports.
pub const PORT_FORWARD: &str = "portforward";

/// What is spoken for exec and attach over a WebSocket, the better one first. The oldest tells no exit codes.
const REMOTE_PROTOCOLS: [&str; 3] = ["v5.channel.k8s.io", "v4.channel.k8s.io", "channel.k8s.io"];
/// And over SPDY.
const REMOTE_PROTOCOL: &str = "v4.channel.k8s.io";
/// What is spoken for port-forward over SPDY.
const PORTS_PROTOCOL: &str = "portforward.k8s.io";
/// The same within a WebSocket, and a WebSocket's own way, with two channels for each port.
const PORTS_PROTOCOLS: [&str; 2] = ["SPDY/3.1+portforward.k8s.io", "v4.channel.k8s.io"];

/// Opens streams into a pod.
pub async fn open(gate: &Gate, target: &Target, query: &Query, request: HttpRequest) -> Result<Response, Refusal> {
    let (over_websocket, over_spdy): (&[&str], &[&str]) = match target.subresource.as_str() {
        PORT_FORWARD => (&PORTS_PROTOCOLS, &[PORTS_PROTOCOL]),
        _ => (&REMOTE_PROTOCOLS, &[REMOTE_PROTOCOL]),
    };
    let upgrade = Upgrade::agree(request, over_websocket, over_spdy).await?;
    let busy = |_| Refusal::too_many_requests("too many streams into pods are open; try again", 1);
    let permit = gate.streams.clone().try_acquire_owned().map_err(busy)?;
    let place = Place::find(gate, target)?;
    if target.subresource == PORT_FORWARD {
        let ports = place.ports();
        let listed = port_forward::listed(query)?;
        if upgrade.protocol() == PORTS_PROTOCOLS[1] && listed.is_empty() {
            return Err(Refusal::bad_request("query parameter \"ports\" is required"));
        }
        return Ok(upgrade.accept(async move |carrier| {
            ports.carry(carrier, &listed).await;
            drop(permit);
        }));
    }
    let wanted = wanted(query)?;
    let container = logs::container(&place.pod, query.text("container"))?;
    let opened = match target.subresource.as_str() {
        EXEC => place.exec(container, query.all("command"), wanted).await?,
        _ => place.attach(container, wanted).await?,
    };
    let session = match opened {
        Ok(session) => session,
        Err(why) => return Ok(told_by_node(why)),
    };
    Ok(upgrade.accept(async move |carrier| {
        if let Some(remote) = carrier.remote(wanted).await {
            remote.carry(session).await;
        }
        drop(permit);
    }))
}

/// What a node refuses is told as the kubelet tells it, which clients put their own words before.
fn told_by_node(why: String) -> Response {
    let media = HeaderValue::from_static("text/plain; charset=utf-8");
    reply::with_type(StatusCode::INTERNAL_SERVER_ERROR, media, Body::from(why))
}

/// Upstream: `remotecommand.NewOptions`.
fn wanted(query: &Query) -> Result<Wanted, Refusal> {
    let tty = query.flag("tty");
    let wanted = Wanted {
        stdin: query.flag("stdin"),
        stdout: query.flag("stdout"),
        // A terminal shows everything on one stream.
        stderr: query.flag("stderr") && !tty,
        tty,
    };
    if !wanted.stdin && !wanted.stdout && !wanted.stderr {
        return Err(Refusal::bad_request("you must specify at least 1 of stdin, stdout, stderr"));
    }
    Ok(wanted)
}

impl Carrier {
    /// Sends what is read, as it is, until it ends or the client leaves.
    pub async fn send(self, pieces: mpsc::Receiver<Bytes>) {
        if let Carrier::WebSocket(socket, _) = self {
            websocket::send(*socket, pieces).await;
        }
    }

    async fn remote(self, wanted: Wanted) -> Option<Remote> {
        match self {
            Carrier::WebSocket(socket, protocol) => {
                let channels = websocket::Channels::serve(*socket, Remote::channels());
                let tells_codes = protocol != REMOTE_PROTOCOLS[2];
                Remote::over_websocket(channels, wanted, tells_codes).await
            }
            Carrier::Spdy(io) => Remote::over_spdy(spdy::connection::Connection::serve(*io), wanted).await,
        }
    }
}

/// A pod on a node that can be asked.
pub struct Place {
    /// The pod.
    pub pod: Pod,
    uid: String,
    node: String,
    mailbox: mpsc::Sender<NodeRequest>,
}

impl Place {
    /// The pod, where its node can be asked.
    pub fn find(gate: &Gate, target: &Target) -> Result<Place, Refusal> {
        let snapshot = gate.snapshot();
        let pod: &Pod =
            snapshot.get(&target.namespace, &target.name).ok_or_else(|| Refusal::not_found(Kind::Pod, &target.name))?;
        let node = pod.spec.as_deref().and_then(|spec| spec.node_name.clone()).unwrap_or_default();
        if node.is_empty() {
            return Err(Refusal::bad_request(format!("pod {} does not have a host assigned", target.name)));
        }
        let Some(mailbox) = gate.nodes.find(&node) else {
            return Err(match snapshot.get::<Node>("", &node).is_some_and(simulated) {
                true => Refusal::bad_request(format!(
                    "node \"{node}\" is simulated: pod \"{}\" has no processes to open a stream to",
                    target.name
                )),
                false => unreachable(&node),
            });
        };
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        Ok(Place { pod: pod.clone(), uid, node, mailbox })
    }

    async fn exec(
        &self,
        container: String,
        command: Vec<String>,
        wanted: Wanted,
    ) -> Result<Result<Session, String>, Refusal> {
        if command.is_empty() {
            return Err(Refusal::bad_request("you must specify at least 1 command"));
        }
        let request = ExecRequest { pod_uid: self.uid.clone(), container, command, terminal: wanted.tty };
        self.ask(|reply| NodeRequest::Exec(request, reply)).await
    }

    async fn attach(&self, container: String, wanted: Wanted) -> Result<Result<Session, String>, Refusal> {
        let spec = self.container(&container);
        let is = |flag: fn(&Container) -> Option<bool>| spec.is_some_and(|spec| flag(spec) == Some(true));
        let end_input = is(|spec| spec.stdin_once) && wanted.stdin;
        let request = AttachRequest { pod_uid: self.uid.clone(), container, terminal: is(|spec| spec.tty), end_input };
        let session = self.ask(|reply| NodeRequest::Attach(request, reply)).await?;
        // A terminal that nobody is to type on has one all the same.
        let reads = is(|spec| spec.stdin);
        Ok(session.map(|session| Session { stdin: session.stdin.filter(|_| reads), ..session }))
    }

    fn container(&self, name: &str) -> Option<&Container> {
        let spec = self.pod.spec.as_deref()?;
        spec.containers.iter().chain(spec.init_containers.iter().flatten()).find(|container| container.name == name)
    }

    /// A connection to a port of the pod; its node's own error is for who asked.
    pub async fn connect(&self, port: u16) -> Result<Result<TcpStream, String>, Refusal> {
        let request = ConnectRequest { pod_uid: self.uid.clone(), port };
        self.ask(|reply| NodeRequest::Connect(request, reply)).await
    }

    fn ports(&self) -> Ports {
        let meta = &self.pod.metadata;
        let name = format!("{}_{}", meta.name.as_deref().unwrap_or(""), meta.namespace.as_deref().unwrap_or(""));
        Ports { uid: self.uid.clone(), name, mailbox: self.mailbox.clone() }
    }

    /// The node's answer; its own error is for who asked, a refusal means that it gave none.
    async fn ask<T>(
        &self,
        question: impl FnOnce(crate::nodes::Reply<T>) -> NodeRequest,
    ) -> Result<Result<T, String>, Refusal> {
        let (reply, answer) = oneshot::channel();
        self.mailbox.send(question(reply)).await.map_err(|_| unreachable(&self.node))?;
        answer.await.map_err(|_| unreachable(&self.node))
    }
}

fn unreachable(node: &str) -> Refusal {
    Refusal::unavailable(format!("node \"{node}\" takes no streams: it is not connected"))
}

fn simulated(node: &Node) -> bool {
    let info = node.status.as_ref().and_then(|status| status.node_info.as_ref());
    info.is_some_and(|info| info.container_runtime_version.starts_with("simulated://"))
}
