//! Steady requests through the service address: new connections and kept-alive ones. Every failure counts; nothing is
//! tried again.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{CONNECTION, HOST};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Clients that connect anew for each request, and clients that keep their connection.
const CONNECTING: usize = 4;
const KEEPING: usize = 4;
/// Pause of each client between requests.
const PAUSE: Duration = Duration::from_millis(4);
/// A request that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(5);
/// Failures kept word for word.
const KEPT_FAILURES: usize = 5;

/// What the clients saw.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Requests sent.
    pub sent: u64,
    /// Requests without a proper answer.
    pub failed: u64,
    /// Answers by the version they named.
    pub versions: BTreeMap<String, u64>,
    /// The slowest answer.
    pub slowest: Duration,
    /// The first failures, each with when it came.
    pub failures: Vec<String>,
}

/// Clients at work.
pub struct Traffic {
    tally: Arc<Mutex<Tally>>,
    stop: watch::Sender<bool>,
    clients: JoinSet<()>,
}

impl Traffic {
    /// Starts the clients.
    pub fn start(target: SocketAddr) -> Traffic {
        let tally = Arc::new(Mutex::new(Tally::default()));
        let begun = Instant::now();
        let (stop, stopping) = watch::channel(false);
        let mut clients = JoinSet::new();
        for number in 0..CONNECTING + KEEPING {
            clients.spawn(client(target, number < KEEPING, begun, tally.clone(), stopping.clone()));
        }
        Traffic { tally, stop, clients }
    }

    /// What was seen so far.
    pub fn tally(&self) -> Tally {
        self.tally.lock().expect("no client panics while it counts").clone()
    }

    /// Lets the clients finish their requests and gives the final tally.
    pub async fn stop(mut self) -> Tally {
        self.stop.send_replace(true);
        while self.clients.join_next().await.is_some() {}
        self.tally()
    }
}

async fn client(
    target: SocketAddr,
    keep: bool,
    begun: Instant,
    tally: Arc<Mutex<Tally>>,
    stopping: watch::Receiver<bool>,
) {
    let mut kept: Option<SendRequest<Empty<Bytes>>> = None;
    while !*stopping.borrow() {
        let started = Instant::now();
        let outcome = tokio::time::timeout(PATIENCE, request(target, keep, &mut kept)).await;
        let outcome = outcome.unwrap_or_else(|_| Err(format!("no answer within {PATIENCE:?}")));
        if outcome.is_err() {
            kept = None;
        }
        let outcome = outcome.map_err(|failure| format!("after {:.1} s: {failure}", begun.elapsed().as_secs_f32()));
        count(&tally, outcome, started.elapsed());
        tokio::time::sleep(PAUSE).await;
    }
}

/// One request; gives the version that answered.
async fn request(
    target: SocketAddr,
    keep: bool,
    kept: &mut Option<SendRequest<Empty<Bytes>>>,
) -> Result<String, String> {
    let mut sender = match kept.take() {
        Some(sender) => sender,
        None => connect(target).await?,
    };
    let mut builder = Request::get("/").header(HOST, "web");
    if !keep {
        builder = builder.header(CONNECTION, "close");
    }
    let request = builder.body(Empty::new()).map_err(|error| error.to_string())?;
    sender.ready().await.map_err(|error| format!("connection: {error}"))?;
    let response = sender.send_request(request).await.map_err(|error| format!("request: {error}"))?;
    let status = response.status();
    let closes = response.headers().get(CONNECTION).is_some_and(|value| value == "close");
    let body = response.into_body().collect().await.map_err(|error| format!("answer: {error}"))?;
    if status != StatusCode::OK {
        return Err(format!("status {status}"));
    }
    if keep && !closes {
        *kept = Some(sender);
    }
    Ok(String::from_utf8_lossy(&body.to_bytes()).trim().to_owned())
}

async fn connect(target: SocketAddr) -> Result<SendRequest<Empty<Bytes>>, String> {
    let stream = TcpStream::connect(target).await.map_err(|error| format!("connect: {error}"))?;
    stream.set_nodelay(true).map_err(|error| format!("connect: {error}"))?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|error| format!("connect: {error}"))?;
    tokio::spawn(async move {
        // How the connection ended is seen by the request that was on it.
        drop(connection.await);
    });
    Ok(sender)
}

fn count(tally: &Mutex<Tally>, outcome: Result<String, String>, took: Duration) {
    let mut tally = tally.lock().expect("no client panics while it counts");
    tally.sent += 1;
    match outcome {
        Ok(version) => {
            *tally.versions.entry(version).or_default() += 1;
            tally.slowest = tally.slowest.max(took);
        }
        Err(failure) => {
            tally.failed += 1;
            if tally.failures.len() < KEPT_FAILURES {
                tally.failures.push(failure);
            }
        }
    }
}
