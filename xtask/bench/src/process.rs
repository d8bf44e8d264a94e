//! The processes that are measured: a server on a fresh data folder, and simulated nodes beside it.
//!
//! They listen on loopback only, and end with the value that started them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde::Deserialize;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::client::{Access, Client};

/// Longest wait for a process to say that it is ready.
const START: Duration = Duration::from_secs(60);
/// Longest wait for all nodes to be there.
const NODES: Duration = Duration::from_secs(120);
/// Longest wait for a killed process to be gone.
const END: Duration = Duration::from_secs(5);
/// `utime` and `stime` are counted in these (USER_HZ, the same on every Linux).
const TICKS_PER_SECOND: f64 = 100.0;

/// Where the simulated nodes live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nodes {
    /// There are none.
    None,
    /// In the server's process.
    Inside(usize),
    /// In a process of their own that speaks HTTPS.
    Outside(usize),
}

impl Nodes {
    fn count(self) -> usize {
        match self {
            Nodes::None => 0,
            Nodes::Inside(count) | Nodes::Outside(count) => count,
        }
    }
}

/// A server and its nodes.
pub struct Cluster {
    binary: PathBuf,
    nodes: Nodes,
    folder: TempDir,
    server: Running,
    agent: Option<Running>,
    /// Where the server listens.
    pub address: SocketAddr,
}

struct Running {
    child: Child,
    /// Kept, so that the process does not lose its standard output.
    _output: tokio::io::Lines<BufReader<tokio::process::ChildStdout>>,
    first_line: String,
}

impl Drop for Cluster {
    /// The processes end before their folder goes, or they would write into it again.
    fn drop(&mut self) {
        for running in self.agent.iter_mut().chain([&mut self.server]) {
            // It may have ended by itself.
            drop(running.child.start_kill());
            let begun = Instant::now();
            while matches!(running.child.try_wait(), Ok(None)) && begun.elapsed() < END {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }
}

impl Cluster {
    /// Starts the processes and waits until all nodes are ready.
    pub async fn start(binary: &Path, nodes: Nodes) -> Result<Cluster, String> {
        // Beside the program, because the folder for temporary files may be in memory, where durable costs nothing.
        let beside = binary.parent().unwrap_or(Path::new("."));
        let folder = TempDir::with_prefix_in("bench-", beside).map_err(|e| format!("{}: {e}", beside.display()))?;
        let server = server(binary, folder.path(), nodes, "127.0.0.1:0").await?;
        let address = address(&server.first_line)?;
        let mut cluster = Cluster { binary: binary.to_owned(), nodes, agent: None, server, address, folder };
        if let Nodes::Outside(count) = nodes {
            cluster.agent = Some(cluster.agent(count).await?);
        }
        cluster.wait_for_nodes().await?;
        Ok(cluster)
    }

    /// Reads the kubeconfig that the server wrote.
    pub fn access(&self) -> Result<Access, String> {
        Access::read(&self.folder.path().join("data/admin.kubeconfig"))
    }

    /// A new connection.
    pub async fn connect(&self) -> Result<Client, String> {
        self.access()?.connect().await
    }

    /// What the server's process has used so far.
    pub fn usage(&self) -> Result<Usage, String> {
        Usage::of(self.server.child.id().ok_or("the server has ended")?)
    }

    /// What the process of the nodes has used so far.
    pub fn agent_usage(&self) -> Result<Usage, String> {
        match &self.agent {
            Some(agent) => Usage::of(agent.child.id().ok_or("the agent has ended")?),
            None => Ok(Usage::default()),
        }
    }

    /// Kills the server with SIGKILL, starts it again on the same data and port, and says how long it took until the API
    /// answered a request for data.
    pub async fn kill_and_restart(&mut self, probe: &str) -> Result<Duration, String> {
        self.server.child.kill().await.map_err(|e| e.to_string())?;
        let killed = Instant::now();
        let again = server(&self.binary, self.folder.path(), self.nodes, &self.address.to_string()).await?;
        self.server = again;
        let client = self.connect().await?;
        client.get_bytes(probe).await?;
        Ok(killed.elapsed())
    }

    async fn agent(&self, count: usize) -> Result<Running, String> {
        let token = self.folder.path().join("data/pki/join.token");
        let token = std::fs::read_to_string(&token).map_err(|e| format!("{}: {e}", token.display()))?;
        let mut command = Command::new(&self.binary);
        command.args(["agent", "--simulated", &count.to_string(), "--server", &format!("https://{}", self.address)]);
        command.args(["--token", token.trim()]);
        ready(command, &self.folder.path().join("agent.log")).await
    }

    async fn wait_for_nodes(&self) -> Result<(), String> {
        let client = self.connect().await?;
        let begun = Instant::now();
        while begun.elapsed() < NODES {
            let nodes: List = client.get("/api/v1/nodes").await?;
            if nodes.items.iter().filter(|node| node.status.is_ready()).count() >= self.nodes.count() {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Err(format!("{} nodes are not ready after {NODES:?}", self.nodes.count()))
    }
}

/// Starts a server and waits for its line that begins with `ready`.
async fn server(binary: &Path, folder: &Path, nodes: Nodes, listen: &str) -> Result<Running, String> {
    let mut command = Command::new(binary);
    command.args(["server", "--no-agent", "--listen", listen, "--data-dir"]).arg(folder.join("data"));
    if let Nodes::Inside(count) = nodes {
        command.args(["--simulated-nodes", &count.to_string()]);
    }
    ready(command, &folder.join("server.log")).await
}

async fn ready(mut command: Command, log: &Path) -> Result<Running, String> {
    let shown = format!("{command:?}");
    let file = std::fs::File::options().create(true).append(true).open(log).map_err(|e| e.to_string())?;
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(file).kill_on_drop(true);
    let mut child = command.spawn().map_err(|e| format!("{shown}: {e}"))?;
    let output = child.stdout.take().ok_or("no standard output")?;
    let mut lines = BufReader::new(output).lines();
    let first = tokio::time::timeout(START, lines.next_line()).await;
    match first {
        Ok(Ok(Some(line))) if line.starts_with("ready ") => Ok(Running { child, _output: lines, first_line: line }),
        other => {
            let log = std::fs::read_to_string(log).unwrap_or_default();
            Err(format!("{shown}: not ready ({other:?}): {log}"))
        }
    }
}

fn address(line: &str) -> Result<SocketAddr, String> {
    let url = line.split_whitespace().nth(1).unwrap_or_default();
    url.trim_start_matches("https://").parse().map_err(|e| format!("{line}: {e}"))
}

/// Resources a process has used since it began.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// Seconds of processor time, of all its threads.
    pub cpu_seconds: f64,
    /// Most memory it ever held, in bytes.
    pub peak_bytes: u64,
    /// Memory it holds.
    pub resident_bytes: u64,
    /// Bytes it had written to disk.
    pub disk_bytes: u64,
}

impl Usage {
    /// Of a process by its number.
    pub fn of(process: u32) -> Result<Usage, String> {
        let read = |file: &str| {
            let path = format!("/proc/{process}/{file}");
            std::fs::read_to_string(&path).map_err(|e| format!("{path}: {e}"))
        };
        let (stat, status, io) = (read("stat")?, read("status")?, read("io")?);
        let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let ticks: f64 =
            after_name.split_whitespace().skip(11).take(2).filter_map(|text| text.parse::<f64>().ok()).sum();
        let kilobytes = |name: &str| number_after(&status, name) * 1024;
        Ok(Usage {
            cpu_seconds: ticks / TICKS_PER_SECOND,
            peak_bytes: kilobytes("VmHWM:"),
            resident_bytes: kilobytes("VmRSS:"),
            disk_bytes: number_after(&io, "write_bytes:"),
        })
    }
}

fn number_after(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// Seconds that all processors of the machine have been busy since it booted.
pub fn busy_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let line = text.lines().next().unwrap_or_default();
    let ticks: Vec<f64> = line.split_whitespace().skip(1).filter_map(|text| text.parse().ok()).collect();
    // user, nice, system, (idle, iowait,) irq, softirq, steal
    [0, 1, 2, 5, 6, 7].iter().filter_map(|index| ticks.get(*index)).sum::<f64>() / TICKS_PER_SECOND
}

#[derive(Deserialize)]
struct List {
    items: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    #[serde(default)]
    status: Conditions,
}

/// The conditions of an object.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Conditions {
    #[serde(default)]
    conditions: Vec<Condition>,
}

#[derive(Clone, Debug, Deserialize)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
}

impl Conditions {
    /// True if the object says that it is ready.
    pub fn is_ready(&self) -> bool {
        self.conditions.iter().any(|condition| condition.kind == "Ready" && condition.status == "True")
    }
}

/// The server's own counters.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counters {
    /// Requests answered.
    pub requests: f64,
    /// Turns committed.
    pub turns: f64,
    /// Objects written.
    pub records: f64,
    /// Disk syncs.
    pub syncs: f64,
}

impl Counters {
    /// Reads `/metrics`.
    pub async fn read(client: &Client) -> Result<Counters, String> {
        let text = client.get_bytes("/metrics").await?;
        let text = String::from_utf8_lossy(&text);
        let value = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.and_then(|number| number.parse().ok()).ok_or(format!("/metrics lacks {name}"))
        };
        Ok(Counters {
            requests: value("kapstan_requests_total")?,
            turns: value("kapstan_turns_total")?,
            records: value("kapstan_records_total")?,
            syncs: value("kapstan_store_syncs_total")?,
        })
    }
}
