//! `kapstan server`: the control plane, with a node on this machine and simulated ones as asked.

use std::path::PathBuf;
use std::time::Instant;

use agent::simulated_nodes::MOST_NODES;
use tokio::signal::unix::{SignalKind, signal};

use crate::args::ServerOptions;
use crate::memory;
use crate::node::{self, Node};

/// Runs until SIGTERM or SIGINT.
pub fn run(options: ServerOptions) -> Result<(), String> {
    let started = Instant::now();
    memory::keep_heaps_small();
    start_logging();
    refuse_other_stores(&options.store)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("the runtime does not start: {error}"))?;
    runtime.block_on(serve(options, started))
}

async fn serve(options: ServerOptions, started: Instant) -> Result<(), String> {
    if MOST_NODES < options.simulated_nodes {
        return Err(format!(
            "--simulated-nodes {}: the network of the pods has room for {MOST_NODES} nodes",
            options.simulated_nodes
        ));
    }
    let data_dir = options.data_dir.clone().unwrap_or_else(default_data_dir);
    let server_options = server::Options { data_dir: data_dir.clone(), listen: options.listen };
    let server = server::Server::start(&server_options).await.map_err(|error| error.to_string())?;
    let kubeconfig = options.write_kubeconfig.clone().unwrap_or_else(|| server::default_kubeconfig(&data_dir));
    server::write_private(&kubeconfig, &server.kubeconfig)
        .map_err(|error| format!("the kubeconfig cannot be written to {}: {error}", kubeconfig.display()))?;
    let client = kube::Client::new(server.router.clone(), "default");
    if 0 < options.simulated_nodes {
        let profile = node::profile(options.simulated_profile.as_deref())?;
        node::start_simulated(client, options.simulated_nodes, "simulated", profile);
    }
    let node = own_node(&options, data_dir, &server).await?;
    println!(
        "ready https://{} kubeconfig {} started in {} ms",
        server.address,
        kubeconfig.display(),
        started.elapsed().as_millis()
    );
    tokio::spawn(memory::give_start_back());
    wait_for_signal().await?;
    if let Some(node) = node {
        node.stop().await;
    }
    server.stop().await;
    Ok(())
}

/// The node on this machine, where one is wanted and possible.
async fn own_node(options: &ServerOptions, data_dir: PathBuf, server: &server::Server) -> Result<Option<Node>, String> {
    if options.no_agent {
        return Ok(None);
    }
    if !rustix::process::geteuid().is_root() {
        eprintln!("no node on this machine: containers need root; use --no-agent to leave this message out");
        return Ok(None);
    }
    let mirrors = options.registry_mirror.clone();
    // Containers are made in other mount namespaces, where the working directory is another one.
    let data_dir = std::path::absolute(&data_dir).map_err(|error| format!("{}: {error}", data_dir.display()))?;
    let container_pids = options.container_max_pids;
    let options = node::Options { data_dir, name: hostname(), cgroups: None, mirrors, container_pids };
    Node::start(&options, server).await.map(Some)
}

/// This machine's name as a node's: lower case, without what a DNS name cannot hold.
fn hostname() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().to_lowercase();
    let name: String =
        name.chars().map(|letter| if letter.is_ascii_alphanumeric() || letter == '.' { letter } else { '-' }).collect();
    let name = name.trim_matches(['-', '.']).to_owned();
    if name.is_empty() { "node".into() } else { name }
}

/// Logs to standard error as `KAPSTAN_LOG` says; warnings by default.
pub fn start_logging() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("KAPSTAN_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    let is_coloured = std::io::IsTerminal::is_terminal(&std::io::stderr());
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(is_coloured).with_writer(std::io::stderr).init();
}

fn refuse_other_stores(store: &str) -> Result<(), String> {
    match store {
        "embedded" => Ok(()),
        other => Err(format!("--store {other}: only the embedded store is supported; leave the option out")),
    }
}

/// `/var/lib/kapstan` for root, the XDG data folder for everybody else.
pub fn default_data_dir() -> PathBuf {
    if rustix::process::geteuid().is_root() {
        return PathBuf::from("/var/lib/kapstan");
    }
    let home = std::env::var_os("HOME").map_or_else(|| PathBuf::from("."), PathBuf::from);
    let data = std::env::var_os("XDG_DATA_HOME").map_or_else(|| home.join(".local/share"), PathBuf::from);
    data.join("kapstan")
}

/// Returns at SIGTERM or SIGINT.
pub async fn wait_for_signal() -> Result<(), String> {
    let cannot = |error: std::io::Error| format!("signals cannot be caught: {error}");
    let mut terminate = signal(SignalKind::terminate()).map_err(cannot)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(cannot)?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
