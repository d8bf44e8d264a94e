//! The port: TLS with optional client certificates, HTTP/1.1 and HTTP/2, and who asks.
//!
//! A peer that says nothing is let go after a while: it may not keep others from connecting.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use rustix::net::sockopt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{self, RootCertStore, ServerConfig, pki_types::CertificateDer};
use tower::ServiceBuilder;

use crate::ServerError;
use crate::authenticate::Authenticator;
use crate::authorize::User;
use crate::http::Identity;
use crate::pki::Pki;

/// Connections open at a time; more wait in the kernel's queue.
const CONNECTIONS: usize = 8_192;
/// HTTP/2 streams on one connection (upstream: 100 and more).
const STREAMS_PER_CONNECTION: u32 = 1_000;
/// Longest time a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Longest time a connection may be idle, or a request's head take to come (upstream: `IdleTimeout`, 90 s or more).
const IDLE: Duration = Duration::from_secs(120);
/// How often an HTTP/2 peer is asked for a sign of life (watches may be silent for long), and how long it may take.
const PING_EVERY: Duration = Duration::from_secs(30);
const PONG_WITHIN: Duration = Duration::from_secs(20);
/// How long the kernel waits before it asks a silent peer whether it is there.
const SILENT: Duration = Duration::from_secs(60);

/// How the port proves itself and knows its clients.
#[derive(Clone)]
pub struct Port {
    acceptor: TlsAcceptor,
    authenticator: Arc<Authenticator>,
}

impl Port {
    /// TLS as the certificates say.
    pub fn new(pki: &Pki, authenticator: Arc<Authenticator>) -> Result<Port, ServerError> {
        let broken =
            |error: &dyn std::fmt::Display| ServerError::Certificate { path: "pki".into(), error: error.to_string() };
        let mut roots = RootCertStore::empty();
        roots.add(pki.authority.clone()).map_err(|error| broken(&error))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
            .allow_unauthenticated()
            .build()
            .map_err(|error| broken(&error))?;
        let (chain, key) = (pki.server.0.clone(), pki.server.1.clone_key());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_client_cert_verifier(verifier).with_single_cert(chain, key))
            .map_err(|error| broken(&error))?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Port { acceptor: TlsAcceptor::from(Arc::new(config)), authenticator })
    }

    /// Serves `router` until `stopping` becomes true.
    pub async fn serve(
        self,
        listener: TcpListener,
        router: axum::Router,
        mut stopping: tokio::sync::watch::Receiver<bool>,
    ) {
        let room = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            let Ok(permit) = room.clone().acquire_owned().await else { return };
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = stopping.wait_for(|stopping| *stopping) => return,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                    continue;
                }
            };
            let (acceptor, router) = (self.acceptor.clone(), router.clone());
            let authenticator = self.authenticator.clone();
            tokio::spawn(async move {
                connection(acceptor, stream, router, authenticator).await;
                drop(permit);
            });
        }
    }
}

async fn connection(acceptor: TlsAcceptor, stream: TcpStream, router: axum::Router, authenticator: Arc<Authenticator>) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY not set");
    }
    if let Err(error) = look_for_life(&stream) {
        tracing::debug!(%error, "TCP keepalive not set");
    }
    let Ok(Ok(tls)) = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await else { return };
    let speaks_http2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");
    let certified = tls.get_ref().1.peer_certificates().and_then(|chain| user_of(chain.first()?));
    let service = ServiceBuilder::new()
        .map_request(move |mut request: http::Request<hyper::body::Incoming>| {
            let identity: Identity = certified.clone().or_else(|| authenticator.bearer(request.headers()));
            request.extensions_mut().insert(identity);
            request
        })
        .service(router);
    let builder = Builder::new(TokioExecutor::new());
    let mut builder = if speaks_http2 { builder.http2_only() } else { builder.http1_only() };
    builder.http1().timer(TokioTimer::new()).header_read_timeout(IDLE);
    let mut http2 = builder.http2();
    http2.max_concurrent_streams(STREAMS_PER_CONNECTION).timer(TokioTimer::new());
    http2.keep_alive_interval(PING_EVERY).keep_alive_timeout(PONG_WITHIN);
    let served = builder.serve_connection_with_upgrades(TokioIo::new(tls), TowerToHyperService::new(service)).await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection ended with an error");
    }
}

/// A stream into a pod may be silent for hours; a peer that vanished without a word is noticed all the same.
fn look_for_life(stream: &TcpStream) -> rustix::io::Result<()> {
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, SILENT)?;
    sockopt::set_tcp_keepintvl(stream, PING_EVERY)
}

/// The user a client certificate names: common name and organisations, as upstream reads them.
fn user_of(certificate: &CertificateDer) -> Option<User> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let subject = parsed.subject();
    let name = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
    let organisations = subject.iter_organization().filter_map(|entry| entry.as_str().ok());
    let groups = organisations.map(str::to_owned).chain(["system:authenticated".to_owned()]).collect();
    Some(User { name, groups, ..User::default() })
}

/// The router as the binary itself uses it, without a socket: every request is the system's.
pub fn in_process(router: axum::Router) -> axum::Router {
    router.layer(Extension::<Identity>(Some(User::system())))
}
