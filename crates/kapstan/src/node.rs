//! A node in this process: the agent, its containers, its proxy, its logs and the streams into its pods, put together.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};

use agent::images::Store;
use agent::network::Cidr;
use agent::node::{Beside, LedPorts, NodeConfig};
use agent::registration::Capacity;
use agent::resolv_conf::{self, Dns};
use agent::runtime::Runtime;
use agent::runtime::native::{self, Native};
use agent::runtime::profile::Profile;
use api::pod_resources::HostPort;
use bytes::Bytes;
use dns::{answer::Zone, follow::follow, records::Records, server::Knowledge};
use futures::{FutureExt, StreamExt};
use kube::Client;
use proxy::rules::{Frontend, Protocol};
use server::{DNS_SERVICE_ADDRESS, LogRequest, NodeRequest, Server};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::streams;

/// Addresses of all pods, of the pods of the node on the server's machine, and of all services.
const POD_NETWORK: &str = "10.244.0.0/16";
const OWN_PODS: &str = "10.244.0.0/24";
const SERVICE_NETWORK: &str = "10.96.0.0/16";
/// What all names of the cluster end with.
const DOMAIN: &str = "cluster.local";
/// Where name servers are asked.
const DNS_PORT: u16 = 53;
/// Questions to a node that wait.
const QUESTIONS: usize = 64;
/// Pieces of a log on their way.
const LOG_CHUNKS: usize = 16;

/// What the node on this machine is made from.
pub struct Options {
    /// Where images, pods and sockets are kept.
    pub data_dir: PathBuf,
    /// Its name.
    pub name: String,
    /// Name of the control group above its pods; `None`: the usual one.
    pub cgroups: Option<String>,
    /// Mirrors of registries, written `HOST=URL`.
    pub mirrors: Vec<String>,
    /// Processes that a container may have at once.
    pub container_pids: Option<u64>,
}

/// The node on this machine.
pub struct Node {
    images: Store,
    shutdown: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl Node {
    /// Takes over what runs and begins to serve.
    pub async fn start(options: &Options, server: &Server) -> Result<Node, String> {
        let client = Client::new(server.router.clone(), "default");
        let mut native = native::Options::new(&options.data_dir);
        native.pod_cidr = OWN_PODS.into();
        native.mirrors.clone_from(&options.mirrors);
        native.container_pids = options.container_pids;
        if let Some(name) = &options.cgroups {
            native.cgroup = Path::new("/").join(name);
        }
        let (native, exits) = Native::open(native).await.map_err(|error| error.to_string())?;
        let (images, containers) = (native.images().clone(), native.clone());
        let shutdown = CancellationToken::new();
        let (applied, acknowledged) = watch::channel(0);
        let gateway = OWN_PODS.parse::<Cidr>()?.gateway();
        server.let_pods_in(gateway).await.map_err(|error| format!("pods cannot reach the API: {error}"))?;
        let (names, answered_here) = name_server(client.clone(), gateway, &shutdown).await?;
        let rules = open_proxy(&options.name, answered_here)?;
        let (lead, led) = watch::channel(BTreeMap::new());
        let proxy = part("service proxy", &shutdown, proxy(client.clone(), rules, led, applied, shutdown.clone()));
        let config = NodeConfig {
            name: options.name.clone(),
            labels: BTreeMap::new(),
            taints: Vec::new(),
            addresses: vec![own_address(server.address.ip())],
            pod_cidr: OWN_PODS.into(),
            capacity: Capacity::of_this_machine(&options.data_dir),
            data_dir: options.data_dir.clone(),
            dns: Dns { server: Some(DNS_SERVICE_ADDRESS.into()), domain: DOMAIN.into() },
        };
        let runtime = Runtime::Native(Arc::new(native));
        let lead = Box::new(move |ports: &LedPorts| drop(lead.send_replace(frontends(ports))));
        let beside = Beside { applied: acknowledged, lead };
        let agent = agent::node::run(config, client, runtime, exits, Some(beside), shutdown.clone());
        let agent = part("agent", &shutdown, agent);
        let (mailbox, questions) = mpsc::channel(QUESTIONS);
        server.nodes.register(&options.name, mailbox);
        let answers = part("log reader", &shutdown, answer(options.data_dir.clone(), containers, questions));
        Ok(Node { images, shutdown, tasks: vec![proxy, names, agent, answers] })
    }

    /// The node's images.
    pub fn images(&self) -> &Store {
        &self.images
    }

    /// Lets go of the node: its containers and its rules stay.
    pub async fn stop(self) {
        self.shutdown.cancel();
        for task in self.tasks {
            task.abort();
            // It was told to end; how it did is of no further interest.
            drop(task.await);
        }
    }
}

/// Runs a part of the node. One that ends although nobody asked for that ends the process: a node that went on without it would
/// look well and serve nobody. Its containers run on, and are taken over at the next start.
fn part(
    name: &'static str,
    shutdown: &CancellationToken,
    work: impl Future<Output = ()> + Send + 'static,
) -> JoinHandle<()> {
    let shutdown = shutdown.clone();
    tokio::spawn(async move {
        drop(AssertUnwindSafe(work).catch_unwind().await);
        if !shutdown.is_cancelled() {
            tracing::error!("the {name} of this node has ended; stopping");
            eprintln!("kapstan: the {name} of this node has ended (see above) and the server stops; containers run on");
            std::process::exit(1);
        }
    })
}

/// A profile of simulated nodes from its file; without one, everything goes well at once.
pub fn profile(path: Option<&Path>) -> Result<Profile, String> {
    let Some(path) = path else { return Ok(Profile::default()) };
    let told = |error: &dyn std::fmt::Display| format!("--simulated-profile {}: {error}", path.display());
    let text = std::fs::read_to_string(path).map_err(|error| told(&error))?;
    Profile::parse(&text).map_err(|error| told(&error))
}

/// Starts `count` simulated nodes in this process.
pub fn start_simulated(client: Client, count: usize, prefix: &str, profile: Profile) -> JoinHandle<()> {
    let prefix = prefix.to_owned();
    tokio::spawn(async move {
        agent::simulated_nodes::run(client, count, &prefix, profile, CancellationToken::new()).await;
    })
}

/// Starts the node's own name server, at the end of the pods' network that is the node's; and what the proxy has to lead
/// there.
async fn name_server(
    client: Client,
    gateway: Ipv4Addr,
    shutdown: &CancellationToken,
) -> Result<(JoinHandle<()>, BTreeMap<Frontend, SocketAddrV4>), String> {
    let told = |error: &dyn std::fmt::Display| format!("the name server of this node: {error}");
    let server = dns::server::Server::bind(gateway.into()).await.map_err(|error| told(&error))?;
    let mut answered_here = BTreeMap::new();
    for (protocol, address) in [(Protocol::Udp, server.udp_address()), (Protocol::Tcp, server.tcp_address())] {
        let port = address.map_err(|error| told(&error))?.port();
        let frontend = Frontend { address: Some(DNS_SERVICE_ADDRESS), protocol, port: DNS_PORT };
        answered_here.insert(frontend, SocketAddrV4::new(gateway, port));
    }
    let records = Arc::new(RwLock::new(Records::default()));
    let knowledge = Knowledge {
        zone: Zone::new(DOMAIN).map_err(|error| told(&error))?,
        records: records.clone(),
        name_servers: Box::new(name_servers_of_this_node),
    };
    let task = part("name server", shutdown, async move {
        tokio::join!(follow(client, records), server.run(knowledge));
    });
    Ok((task, answered_here))
}

/// Others than this one, which would ask itself.
fn name_servers_of_this_node() -> Vec<SocketAddr> {
    let servers = resolv_conf::of_node().servers;
    let addresses = servers.iter().filter_map(|server| server.parse().ok());
    addresses
        .filter(|address: &IpAddr| *address != DNS_SERVICE_ADDRESS)
        .map(|address| (address, DNS_PORT).into())
        .collect()
}

fn open_proxy(node_name: &str, answered_here: BTreeMap<Frontend, SocketAddrV4>) -> Result<proxy::Proxy, String> {
    let network = |text: &str| text.parse().map_err(|error| format!("{text}: {error}"));
    let options = proxy::Options {
        node_name: node_name.to_owned(),
        pod_cidr: network(POD_NETWORK)?,
        service_cidr: network(SERVICE_NETWORK)?,
        answered_here,
    };
    proxy::Proxy::open(options).map_err(|error| error.to_string())
}

/// Ports of the node as the proxy names them.
fn frontends(ports: &LedPorts) -> BTreeMap<Frontend, SocketAddrV4> {
    let frontend = |(protocol, address, port): &HostPort| Frontend::of_node(protocol, address, *port);
    ports.iter().filter_map(|(port, to)| Some((frontend(port)?, *to))).collect()
}

async fn proxy(
    client: Client,
    proxy: proxy::Proxy,
    led: watch::Receiver<BTreeMap<Frontend, SocketAddrV4>>,
    applied: watch::Sender<u64>,
    shutdown: CancellationToken,
) {
    let on_applied = |_: &proxy::Applied, revision: u64| {
        applied.send_replace(revision);
    };
    if let Err(error) = proxy::follow::run(client, proxy, led, shutdown.cancelled_owned(), on_applied).await {
        eprintln!("kapstan: {error}");
    }
}

/// An address by which others can name this node.
fn own_address(listening: IpAddr) -> IpAddr {
    if listening.is_unspecified() { IpAddr::from([127, 0, 0, 1]) } else { listening }
}

/// Answers what only the node knows. Who asked may have gone away.
async fn answer(data_dir: PathBuf, containers: Native, mut questions: mpsc::Receiver<NodeRequest>) {
    while let Some(question) = questions.recv().await {
        let (data_dir, containers) = (data_dir.clone(), containers.clone());
        tokio::spawn(async move {
            match question {
                NodeRequest::Logs(request, reply) => drop(reply.send(logs(&data_dir, request).await)),
                NodeRequest::Exec(request, reply) => drop(reply.send(streams::exec(&containers, request).await)),
                NodeRequest::Attach(request, reply) => drop(reply.send(streams::attach(&containers, request).await)),
                NodeRequest::Connect(request, reply) => drop(reply.send(streams::connect(&containers, request).await)),
            }
        });
    }
}

async fn logs(data_dir: &Path, request: LogRequest) -> Result<mpsc::Receiver<Bytes>, String> {
    let whose = agent::logs::Whose { uid: request.pod_uid, pod: request.pod, container: request.container };
    let since = request.since_ms.and_then(|since| jiff::Timestamp::from_millisecond(since).ok());
    let options = agent::logs::Options {
        follow: request.follow,
        tail_lines: request.tail_lines,
        since,
        timestamps: request.timestamps,
        limit_bytes: request.limit_bytes,
        previous: request.previous,
    };
    let folder = data_dir.join("pods").join(&whose.uid);
    let running = move || folder.exists();
    let mut stream =
        Box::pin(agent::logs::read(data_dir, whose, options, running).await.map_err(|error| error.to_string())?);
    let (chunks, receiver) = mpsc::channel(LOG_CHUNKS);
    tokio::spawn(async move {
        while let Some(Ok(chunk)) = stream.next().await {
            if chunks.send(chunk).await.is_err() {
                return;
            }
        }
    });
    Ok(receiver)
}
