//! The door: HTTP, authorisation, admission, and the turn that owns the state.
//!
//! The way of a write: `http` parses and asks `authorize`; the writer's [`turn`](crate) passes it through the `door`,
//! runs every woken decision through the same door, and hands the turn to `commit`, which makes it durable, publishes
//! it and answers. Readers see only what is published.

mod account_secrets;
mod aggregate;
mod authenticate;
mod authorize;
mod bootstrap;
pub mod commit;
pub mod decode;
pub mod door;
mod events;
mod forecast;
mod http;
mod listen;
mod measured;
mod metric_reader;
mod metrics;
pub mod minds;
mod nodes;
mod pages;
mod pki;
mod published;
pub mod recovered;
mod tokens;
pub mod turn;
pub mod why;
mod writer;

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use api::limits;
use store::{Store, StoreError};
use tokio::net::TcpListener;
use tokio::sync::watch;

pub use authorize::User;
pub use bootstrap::DNS_SERVICE_ADDRESS;
pub use http::table::Table;
pub use nodes::{AttachRequest, ConnectRequest, ExecRequest, LogRequest, NodeRequest, Nodes, Session};
pub use pki::write_private;

use crate::door::Ids;
use crate::http::Gate;
use crate::published::Published;
use crate::recovered::Recovered;
use crate::turn::{Action, Writer};

/// What keeps a server from starting or going on.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The store cannot be opened or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store holds what this version cannot read.
    #[error("the stored object {key} cannot be read: {error}; was it written by a newer kapstan?")]
    Unreadable {
        /// Storage key of the object.
        key: String,
        /// What is wrong with it.
        error: String,
    },
    /// What every cluster has could not be made.
    #[error("{name}, which every cluster has, could not be made or put right: {why}")]
    Unfurnished {
        /// Name of the object.
        name: String,
        /// Why it was refused.
        why: String,
    },
    /// The port is taken or not ours to use.
    #[error("cannot listen on {address}: {error}; choose another address with --listen")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The system's words.
        error: std::io::Error,
    },
    /// A file cannot be read or written.
    #[error("{}: {error}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's words.
        error: String,
    },
    /// A certificate or key is not usable.
    #[error("certificate {}: {error}; remove the pki folder to make new ones", path.display())]
    Certificate {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong with it.
        error: String,
    },
}

/// How to start.
pub struct Options {
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// Address and port; port 0 picks a free one.
    pub listen: SocketAddr,
}

/// A server that serves.
pub struct Server {
    /// Where it listens.
    pub address: SocketAddr,
    /// A kubeconfig for the administrator.
    pub kubeconfig: String,
    /// What further nodes join with.
    pub join_token: String,
    /// The API without a socket, with the system's rights: what the binary's own agent uses.
    pub router: axum::Router,
    /// Where agents register to serve logs and streams into pods.
    pub nodes: Arc<Nodes>,
    stop: watch::Sender<bool>,
    threads: Vec<JoinHandle<()>>,
    listening: tokio::task::JoinHandle<()>,
    further: Further,
}

/// What it takes to listen at further addresses.
struct Further {
    port: listen::Port,
    router: axum::Router,
    gate: Gate,
    furniture: Arc<bootstrap::Furniture>,
}

impl Server {
    /// Recovers the state, listens, and returns once requests are served.
    pub async fn start(options: &Options) -> Result<Server, ServerError> {
        let limits = store::Limits { history_bytes: limits::RECOVERED_HISTORY_BYTES, ..store::Limits::default() };
        let (store, recovered) = Store::open(&options.data_dir.join("store"), limits)?;
        if recovered.torn_bytes > 0 {
            tracing::info!(
                bytes = recovered.torn_bytes,
                "an interrupted write, which nobody was told of, was cut off the log"
            );
        }
        let recovered = Recovered::read(&recovered)?;
        let pki = pki::open(&options.data_dir.join("pki"), options.listen.ip())?;
        let listener = TcpListener::bind(options.listen)
            .await
            .map_err(|error| ServerError::Listen { address: options.listen, error })?;
        let address = listener.local_addr().map_err(|error| ServerError::Listen { address: options.listen, error })?;
        let (stop, stopping) = watch::channel(false);
        let aggregator = Arc::new(aggregate::Aggregator::new(&pki.front_proxy)?);
        let (gate, threads) = start_writer(store, recovered, &pki, aggregator, stopping.clone());
        let furniture = Arc::new(bootstrap::Furniture {
            endpoint: address,
            endpoint_for_pods: OnceLock::new(),
            authority: pki.authority_pem.clone(),
            front_proxy_authority: pki.front_proxy.authority_pem.clone(),
        });
        furnish(&gate, &furniture).await?;
        tokio::spawn(keep_furnished(gate.clone(), furniture.clone(), stopping.clone()));
        tokio::spawn(account_secrets::keep_filling(gate.clone(), stopping.clone()));
        tokio::spawn(aggregate::keep_checking(gate.clone(), stopping.clone()));
        tokio::spawn(metric_reader::keep_asking(gate.clone(), stopping.clone()));
        let router = http::router(gate.clone());
        let port = listen::Port::new(&pki, gate.authenticator.clone())?;
        let listening = tokio::spawn(port.clone().serve(listener, router.clone(), stopping));
        let url = format!("https://{}", reachable(address));
        Ok(Server {
            address,
            kubeconfig: pki::kubeconfig(&pki, &url),
            join_token: pki.join_token.clone(),
            router: listen::in_process(router.clone()),
            nodes: gate.nodes.clone(),
            stop,
            threads,
            listening,
            further: Further { port, router, gate, furniture },
        })
    }

    /// Makes the Service `kubernetes` lead here: `own` is an address of this machine that its pods reach. The API listens
    /// there too, at the same port.
    pub async fn let_pods_in(&self, own: Ipv4Addr) -> Result<(), ServerError> {
        let address = SocketAddrV4::new(own, self.address.port());
        let Further { port, router, gate, furniture } = &self.further;
        if !self.address.ip().is_unspecified() && self.address != address.into() {
            let cannot = |error| ServerError::Listen { address: address.into(), error };
            let listener = TcpListener::bind(address).await.map_err(cannot)?;
            tokio::spawn(port.clone().serve(listener, router.clone(), self.stop.subscribe()));
        }
        let _ = furniture.endpoint_for_pods.set(address);
        furnish(gate, furniture).await
    }

    /// Stops taking requests, commits what was taken, and closes the store.
    pub async fn stop(self) {
        let Server { stop, threads, listening, router, further, .. } = self;
        stop.send_replace(true);
        if let Err(error) = listening.await {
            tracing::warn!(%error, "the listener ended badly");
        }
        drop((router, further));
        let joined = tokio::task::spawn_blocking(move || threads.into_iter().for_each(|thread| drop(thread.join())));
        // Connections still open hold the writer's mailbox; what they wrote is durable, so there is nothing to wait for.
        drop(tokio::time::timeout(std::time::Duration::from_secs(2), joined).await);
    }
}

/// The address a client on this machine can use.
fn reachable(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => SocketAddr::from(([127, 0, 0, 1], v4.port())),
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => SocketAddr::from(([127, 0, 0, 1], v6.port())),
        other => other,
    }
}

fn start_writer(
    store: Store,
    recovered: Recovered,
    pki: &pki::Pki,
    aggregator: Arc<aggregate::Aggregator>,
    stopping: watch::Receiver<bool>,
) -> (Gate, Vec<JoinHandle<()>>) {
    let Recovered { world, history, compacted } = recovered;
    let published = Arc::new(Published::new(world.clone(), compacted, history));
    let metrics = Arc::new(metrics::Metrics::default());
    let why = Arc::new(why::Whys::default());
    let measured = Arc::new(measured::Measured::default());
    let (writer, requests) = sync_channel(limits::WAITING_REQUESTS);
    let (committer, turns) = sync_channel(limits::TURNS_IN_FLIGHT);
    let committing = {
        let (published, metrics) = (published.clone(), metrics.clone());
        named("committer", move || match commit::run(store, turns, published, metrics) {
            Ok(store) => drop(store),
            Err(error) => {
                // Going on would acknowledge writes that are not durable.
                tracing::error!(%error, "the store failed; stopping");
                eprintln!("kapstan: {error}");
                std::process::exit(1);
            }
        })
    };
    let deciding = {
        let (why, measured) = (why.clone(), measured.clone());
        named("writer", move || writer::run(Writer::new(world, Ids::from_os(), why), requests, committer, &measured))
    };
    let keys = tokens::TokenKeys::of(&pki.token_key);
    let gate = Gate {
        authenticator: Arc::new(authenticate::Authenticator::new(keys, &pki.join_token, published.clone())),
        published,
        writer,
        nodes: Arc::new(Nodes::default()),
        streams: Arc::new(tokio::sync::Semaphore::new(limits::STREAMS)),
        pages: Arc::new(pages::Pages::default()),
        why,
        measured,
        aggregator,
        metrics,
        stopping,
    };
    (gate, vec![deciding, committing])
}

/// Starts a thread without which nothing can be written. If it panics the process ends, as it would otherwise look well and
/// refuse every write; what was acknowledged is in the store.
fn named(name: &'static str, body: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    let body = move || {
        if catch_unwind(AssertUnwindSafe(body)).is_err() {
            tracing::error!("the {name} panicked; stopping");
            eprintln!(
                "kapstan: the {name} failed inside (see above) and the server stops; nothing acknowledged is lost"
            );
            std::process::exit(1);
        }
    };
    std::thread::Builder::new().name(name.into()).spawn(body).expect("a thread can be started")
}

/// Makes the objects that every cluster has, and puts those right that are the server's own.
async fn furnish(gate: &Gate, furniture: &bootstrap::Furniture) -> Result<(), ServerError> {
    let world = gate.published.snapshot();
    let made = bootstrap::missing(&world, furniture)
        .into_iter()
        .map(|(namespace, body)| (body.meta().name.clone(), Action::Create(namespace, body)));
    let put_right = bootstrap::outdated(&world, furniture)
        .into_iter()
        .map(|body| (body.meta().name.clone(), Action::Update(body.key(), door::Part::Main, body)));
    for (name, action) in made.chain(put_right) {
        let requester = door::Requester::new(&User::system().name, "kapstan");
        let done = gate.submit(action, requester, false).await;
        done.map_err(|refusal| ServerError::Unfurnished { name: name.unwrap_or_default(), why: refusal.message })?;
    }
    Ok(())
}

/// Makes the Service of the API again when it has been deleted (upstream: `controlplane/controller/kubernetesservice`), and
/// puts the certificate of the authority right.
async fn keep_furnished(gate: Gate, furniture: Arc<bootstrap::Furniture>, mut stopping: watch::Receiver<bool>) {
    let mut services = gate.published.follow(api::Kind::Service);
    let mut maps = gate.published.follow(api::Kind::ConfigMap);
    loop {
        tokio::select! {
            changed = services.changed() => if changed.is_err() { return },
            changed = maps.changed() => if changed.is_err() { return },
            _ = stopping.wait_for(|stopping| *stopping) => return,
        }
        if let Err(error) = furnish(&gate, &furniture).await {
            tracing::warn!(%error, "an object that every cluster has could not be made again");
        }
    }
}

/// Where a server keeps its kubeconfig unless told otherwise.
pub fn default_kubeconfig(data_dir: &Path) -> PathBuf {
    data_dir.join("admin.kubeconfig")
}
