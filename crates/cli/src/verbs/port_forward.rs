//! `port-forward`. Mirrors kubectl `pkg/cmd/portforward/portforward.go` and client-go `tools/portforward/portforward.go`.
//!
//! Each connection that is made here has a WebSocket of its own, with a channel for data and one for errors: what every
//! server understands (the kubelet's `portforward/websocket.go`), and what one connection does holds up no other.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures::future::LocalBoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, SinkExt, StreamExt};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;

use crate::client::Client;
use crate::errors::{Error, Result};
use crate::json::Json;
use crate::objects::{Files, Found};
use crate::session::Session;
use crate::time::flag;
use crate::verbs::exec;

/// One channel for data and one for errors.
const PROTOCOL: &str = "v4.channel.k8s.io";
/// Streams of SPDY within a WebSocket, which kubectl speaks.
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";
const DATA: u8 = 0;
const ERROR: u8 = 1;
/// Bytes of the message with which each channel begins: its number and its port.
const GREETING: usize = 3;
/// Bytes read at once.
const CHUNK: usize = 32 << 10;

/// Forward ports of this machine to a pod.
#[derive(clap::Args)]
pub struct Options {
    /// POD or TYPE/NAME, then [LOCAL:]REMOTE…
    words: Vec<String>,
    /// Addresses to listen on: IP addresses or localhost.
    #[arg(long, default_value = "localhost", value_delimiter = ',', value_name = "ADDRESS")]
    address: Vec<String>,
    /// How long to wait until there is a pod.
    #[arg(long, default_value = exec::POD_RUNNING_TIMEOUT, value_parser = flag, value_name = "DURATION")]
    pod_running_timeout: Duration,
}

/// A port here and one in the pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pair {
    local: u16,
    remote: u16,
}

/// Forwards until the user ends it.
pub async fn run(session: &mut Session, options: Options) -> Result<()> {
    let Some((word, ports)) = options.words.split_first().filter(|(_, ports)| !ports.is_empty()) else {
        return Err(session.usage("port-forward", "TYPE/NAME and list of ports are required for port-forward"));
    };
    let patience = exec::patience(session, "port-forward", options.pod_running_timeout)?;
    let (item, pod) = exec::pod(session, Some(word), Files::default(), patience).await?;
    let pairs = ports.iter().map(|text| pair(text, &item, &pod)).collect::<Result<Vec<Pair>>>()?;
    let phase = pod.text("status.phase");
    if phase != "Running" {
        return Err(Error::told(format!("unable to forward port because pod is not running. Current status={phase}")));
    }
    let addresses = addresses(&options.address)?;
    let path = exec::path(&pod, "portforward");
    knock(&session.client()?, &path, &pairs).await?;
    let mut listeners = Vec::new();
    for pair in &pairs {
        listeners.extend(listen(session, *pair, &addresses).await?);
    }
    if listeners.is_empty() {
        let pairs: Vec<String> = pairs.iter().map(|pair| format!("{{{} {}}}", pair.local, pair.remote)).collect();
        return Err(Error::told(format!("unable to listen on any of the requested ports: [{}]", pairs.join(" "))));
    }
    forward(session, &path, listeners).await
}

/// Whether the pod's node takes connections, asked before anything is promised. A server that speaks the tunnel opens it
/// without connecting to a port; an older one connects to the first.
async fn knock(client: &Client, path: &str, pairs: &[Pair]) -> Result<()> {
    let ports: Vec<(&str, String)> = pairs.iter().take(1).map(|pair| ("ports", pair.remote.to_string())).collect();
    match client.websocket(path, &ports, &[TUNNEL, PROTOCOL]).await {
        Ok(_) => Ok(()),
        Err(error) => Err(Error::told(format!("error upgrading connection: {}", error.inner_message()))),
    }
}

/// Addresses to listen on. `localhost` is both kinds, of which one is enough.
fn addresses(words: &[String]) -> Result<Vec<Vec<IpAddr>>> {
    words
        .iter()
        .map(|word| match word.as_str() {
            "localhost" => Ok(vec![IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)]),
            word => match word.parse() {
                Ok(address) => Ok(vec![address]),
                Err(_) => Err(Error::told(format!("{word} is not a valid IP"))),
            },
        })
        .collect()
}

/// `LOCAL:REMOTE`, `:REMOTE` or `PORT`, the remote one by number or, for services and pods, by name.
fn pair(text: &str, item: &Found, pod: &Value) -> Result<Pair> {
    let (local, remote) = text.split_once(':').unwrap_or((text, text));
    let asked = port_number(remote, item)?;
    let number = match item.resource.kind.as_str() {
        "Service" => target_port(asked, item, pod)?,
        _ => asked,
    };
    let wrong = |text: &str| Error::told(format!("invalid port: {text:?}"));
    let local = match local {
        "" => 0,
        local if !text.contains(':') => local.parse().unwrap_or(asked),
        local => local.parse().map_err(|_| wrong(local))?,
    };
    if number == 0 {
        return Err(Error::told("remote port must be > 0"));
    }
    Ok(Pair { local, remote: number })
}

fn port_number(text: &str, item: &Found) -> Result<u16> {
    if let Ok(number) = text.parse() {
        return Ok(number);
    }
    let named = match item.resource.kind.as_str() {
        "Service" => named_port(item.object.list("spec.ports"), text, "port"),
        "Pod" => container_port(&item.object, text),
        _ => {
            let template = item.object.list("spec.template.spec.containers");
            template.iter().find_map(|container| named_port(container.list("ports"), text, "containerPort"))
        }
    };
    named.ok_or_else(|| {
        Error::told(format!("{} '{}' does not have a named port '{text}'", item.resource.kind, item.name))
    })
}

fn named_port(ports: &[Value], name: &str, field: &str) -> Option<u16> {
    let port = ports.iter().find(|port| port.text("name") == name)?;
    u16::try_from(port.number(field)).ok()
}

fn container_port(pod: &Value, name: &str) -> Option<u16> {
    pod.list("spec.containers").iter().find_map(|container| named_port(container.list("ports"), name, "containerPort"))
}

/// Where a service's port leads in a pod (kubectl: `pkg/util/service_port.go`).
fn target_port(port: u16, item: &Found, pod: &Value) -> Result<u16> {
    let ports = item.object.list("spec.ports");
    let found = ports.iter().find(|one| one.number("port") == i64::from(port));
    let found =
        found.ok_or_else(|| Error::told(format!("Service {} does not have a service port {port}", item.name)))?;
    if item.object.text("spec.clusterIP") == "None" {
        return Ok(port);
    }
    match &found["targetPort"] {
        Value::Number(number) => Ok(number.as_u64().and_then(|number| u16::try_from(number).ok()).unwrap_or(port)),
        Value::String(name) => container_port(pod, name).ok_or_else(|| {
            let pod = pod.text("metadata.name");
            Error::told(format!("Pod '{pod}' does not have a named port '{name}'"))
        }),
        _ => Ok(port),
    }
}

async fn listen(session: &mut Session, pair: Pair, addresses: &[Vec<IpAddr>]) -> Result<Vec<(TcpListener, Pair)>> {
    let mut listeners = Vec::new();
    let mut pair = pair;
    for kinds in addresses {
        let mut failures = Vec::new();
        for address in kinds {
            let address = SocketAddr::new(*address, pair.local);
            match TcpListener::bind(address).await {
                Ok(listener) => {
                    // A free port that was found serves every address.
                    pair.local = listener.local_addr()?.port();
                    session.say(format!("Forwarding from {} -> {}", listener.local_addr()?, pair.remote))?;
                    listeners.push((listener, pair));
                }
                Err(error) => {
                    let family = if address.is_ipv4() { "tcp4" } else { "tcp6" };
                    let why = plain(&error);
                    failures.push(format!("unable to create listener: Error listen {family} {address}: bind: {why}"));
                }
            }
        }
        if failures.len() == kinds.len() {
            session.warn(format!(
                "Unable to listen on port {}: Listeners failed to create with the following errors: [{}]",
                pair.local,
                failures.join(" ")
            ))?;
        }
    }
    Ok(listeners)
}

/// The system's words without Rust's error number.
fn plain(error: &std::io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_lowercase()
}

async fn forward(session: &mut Session, path: &str, listeners: Vec<(TcpListener, Pair)>) -> Result<()> {
    let client = session.client()?;
    let mut knocking: FuturesUnordered<_> = listeners.iter().map(accept).collect();
    let mut open: FuturesUnordered<LocalBoxFuture<'_, Result<Option<String>>>> = FuturesUnordered::new();
    let interrupted = tokio::signal::ctrl_c();
    tokio::pin!(interrupted);
    loop {
        tokio::select! {
            // As with kubectl, the user's end is a good one.
            _ = &mut interrupted => return Ok(()),
            Some((accepted, listening)) = knocking.next() => {
                knocking.push(accept(listening));
                let (stream, pair) = (accepted?, listening.1);
                session.say(format!("Handling connection for {}", pair.local))?;
                open.push(connection(&client, path, pair, stream).boxed_local());
            }
            Some(ended) = open.next(), if !open.is_empty() => {
                if let Some(error) = ended? {
                    session.warn(error)?;
                }
            }
        }
    }
}

async fn accept(listening: &(TcpListener, Pair)) -> (std::io::Result<TcpStream>, &(TcpListener, Pair)) {
    (listening.0.accept().await.map(|(stream, _)| stream), listening)
}

/// One connection, to its end; what the pod's side said was wrong with it.
async fn connection(client: &Client, path: &str, pair: Pair, stream: TcpStream) -> Result<Option<String>> {
    let (socket, _) = client.websocket(path, &[("ports", pair.remote.to_string())], &[PROTOCOL]).await?;
    let (mut to_pod, mut from_pod) = socket.split();
    let (mut from_here, mut to_here) = stream.into_split();
    let outward = async {
        let mut buffer = BytesMut::with_capacity(CHUNK);
        loop {
            buffer.reserve(CHUNK);
            match from_here.read_buf(&mut buffer).await {
                Ok(1..) => {
                    let mut message = BytesMut::with_capacity(1 + buffer.len());
                    message.put_u8(DATA);
                    message.extend_from_slice(&buffer.split());
                    if to_pod.send(Message::Binary(message.freeze())).await.is_err() {
                        return;
                    }
                }
                // The protocol knows no half-closed connections: the pod's answer is still awaited.
                Ok(0) => return std::future::pending().await,
                Err(_) => return,
            }
        }
    };
    let inward = async {
        let mut greeted = [false; 2];
        let mut error = None;
        while let Some(Ok(message)) = from_pod.next().await {
            let mut bytes = match message {
                Message::Binary(bytes) => bytes,
                Message::Close(_) => break,
                _ => continue,
            };
            let Some(channel @ (DATA | ERROR)) = bytes.first().copied() else { continue };
            let greeting = !std::mem::replace(&mut greeted[usize::from(channel)], true);
            if greeting && bytes.len() == GREETING {
                continue;
            }
            let bytes: Bytes = bytes.split_off(1);
            match channel {
                DATA if to_here.write_all(&bytes).await.is_err() => return error,
                ERROR if !bytes.is_empty() => {
                    let Pair { local, remote } = pair;
                    let why = String::from_utf8_lossy(&bytes).into_owned();
                    error = Some(format!("an error occurred forwarding {local} -> {remote}: {why}"));
                }
                _ => {}
            }
        }
        error
    };
    Ok(tokio::select! {
        () = outward => None,
        error = inward => error,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::discovery::Resource;

    fn found(kind: &str, object: Value) -> Found {
        let resource = Resource { kind: kind.into(), ..Resource::default() };
        Found { resource, namespace: None, name: "web".into(), source: String::new(), object }
    }

    #[test]
    fn ports_by_number_and_by_name() {
        let pod = json!({"metadata": {"name": "web-1"}, "spec": {"containers": [{"ports": [{"name": "http", "containerPort": 8080}]}]}});
        let item = found("Pod", pod.clone());
        let of = |text: &str, item: &Found| match pair(text, item, &pod) {
            Ok(pair) => format!("{}:{}", pair.local, pair.remote),
            Err(error) => error.message(),
        };
        assert_eq!(of("80", &item), "80:80");
        assert_eq!(of("9000:80", &item), "9000:80");
        assert_eq!(of(":80", &item), "0:80");
        assert_eq!(of("http", &item), "8080:8080");
        assert_eq!(of("1:none", &item), "error: Pod 'web' does not have a named port 'none'");
        assert_eq!(of("80:0", &item), "error: remote port must be > 0");
        let service = json!({"spec": {"clusterIP": "10.96.0.9", "ports": [
            {"name": "web", "port": 80, "targetPort": "http"}, {"name": "raw", "port": 81, "targetPort": 9}]}});
        let item = found("Service", service);
        assert_eq!(of("80", &item), "80:8080");
        assert_eq!(of("web", &item), "80:8080");
        assert_eq!(of("5:81", &item), "5:9");
        assert_eq!(of("82", &item), "error: Service web does not have a service port 82");
    }
}
