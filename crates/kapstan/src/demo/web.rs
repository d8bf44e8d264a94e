//! The demo's web server: says its version, and drains when it is asked to stop.
//!
//! It runs inside the demo's containers as `kapstan web`. On SIGTERM it closes each kept-alive connection behind the
//! next answer, and ends when none is left or the drain time is over. New connections no longer reach it then, because
//! SIGTERM comes only after the proxy has taken the pod out.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONNECTION, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;

/// Port the server listens on.
pub const PORT: u16 = 8080;
/// Longest time an idle connection is waited for after SIGTERM.
const DRAIN: Duration = Duration::from_secs(3);

#[derive(Default)]
struct State {
    draining: AtomicBool,
    open: AtomicUsize,
    idle: Notify,
}

/// Serves until SIGTERM and drained.
pub fn run(version: &str) -> Result<(), String> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|error| error.to_string())?;
    runtime.block_on(serve(version)).map_err(|error| format!("web server: {error}"))
}

async fn serve(version: &str) -> std::io::Result<()> {
    let listener = TcpListener::bind(("0.0.0.0", PORT)).await?;
    let mut terminate = signal(SignalKind::terminate())?;
    let state = Arc::new(State::default());
    let answer = Bytes::from(format!("{version}\n"));
    println!("version {version} serves on port {PORT}");
    let deadline = loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (stream, _) = accepted?;
                state.open.fetch_add(1, SeqCst);
                tokio::spawn(connection(stream, answer.clone(), state.clone()));
            }
            _ = terminate.recv() => break tokio::time::Instant::now() + DRAIN,
        }
    };
    state.draining.store(true, SeqCst);
    while state.open.load(SeqCst) > 0 {
        let left = tokio::time::timeout_at(deadline, state.idle.notified());
        if left.await.is_err() {
            break;
        }
    }
    println!("drained");
    Ok(())
}

async fn connection(stream: TcpStream, answer: Bytes, state: Arc<State>) {
    let service = service_fn(|_: Request<hyper::body::Incoming>| {
        let mut response = Response::new(Full::new(answer.clone()));
        if state.draining.load(SeqCst) {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        async move { Ok::<_, Infallible>(response) }
    });
    let served = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
    if let Err(error) = served {
        eprintln!("connection: {error}");
    }
    state.open.fetch_sub(1, SeqCst);
    state.idle.notify_one();
}
