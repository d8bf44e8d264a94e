//! A lean client of the API: HTTPS with the administrator's certificate, HTTP/2, one connection each.
//!
//! Lean so that the machine's cores go to what is measured. Reads only the fields that a row needs.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use bytes::{Bytes, BytesMut};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};

/// Longest wait for one answer.
const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes that may be on their way unread: as much as client-go's connections allow.
const WINDOW: u32 = 4 << 20;

/// What it takes to reach a server.
#[derive(Clone)]
pub struct Access {
    authority: String,
    tls: Arc<ClientConfig>,
}

impl Access {
    /// Reads the administrator's kubeconfig.
    pub fn read(kubeconfig: &Path) -> Result<Access, String> {
        let text = std::fs::read_to_string(kubeconfig).map_err(|e| format!("{}: {e}", kubeconfig.display()))?;
        let file: Value = serde_yaml::from_str(&text).map_err(|e| format!("{}: {e}", kubeconfig.display()))?;
        let decode = |pointer: &str| {
            let text =
                file.pointer(pointer).and_then(Value::as_str).ok_or(format!("the kubeconfig lacks {pointer}"))?;
            base64::engine::general_purpose::STANDARD.decode(text).map_err(|e| e.to_string())
        };
        let authority = decode("/clusters/0/cluster/certificate-authority-data")?;
        let (chain, key) = (decode("/users/0/user/client-certificate-data")?, decode("/users/0/user/client-key-data")?);
        let server = file.pointer("/clusters/0/cluster/server").and_then(Value::as_str).unwrap_or_default();
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&authority)? {
            roots.add(certificate).map_err(|e| e.to_string())?;
        }
        let key = PrivateKeyDer::from_pem_slice(&key).map_err(|e| e.to_string())?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| e.to_string())?
            .with_root_certificates(roots)
            .with_client_auth_cert(certificates(&chain)?, key)
            .map_err(|e| e.to_string())?;
        tls.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Access { authority: server.trim_start_matches("https://").to_owned(), tls: Arc::new(tls) })
    }

    /// Opens a connection.
    pub async fn connect(&self) -> Result<Client, String> {
        let stream = TcpStream::connect(&self.authority).await.map_err(|e| format!("{}: {e}", self.authority))?;
        stream.set_nodelay(true).map_err(|e| e.to_string())?;
        let host = self.authority.rsplit_once(':').map_or("", |(host, _)| host).to_owned();
        let name = ServerName::try_from(host).map_err(|e| e.to_string())?;
        let tls = TlsConnector::from(self.tls.clone()).connect(name, stream).await.map_err(|e| e.to_string())?;
        let (sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(4 * WINDOW)
            .handshake(TokioIo::new(tls))
            .await
            .map_err(|e| e.to_string())?;
        // Its end shows in the requests.
        tokio::spawn(async move { drop(connection.await) });
        Ok(Client { sender, authority: self.authority.clone() })
    }
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|e| e.to_string())
}

/// One connection; its clones share it.
#[derive(Clone)]
pub struct Client {
    sender: SendRequest<Full<Bytes>>,
    authority: String,
}

impl Client {
    /// The answer to a GET, decoded.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, String> {
        let body = self.ask(Method::GET, path, "", Bytes::new()).await?;
        serde_json::from_slice(&body).map_err(|e| format!("GET {path}: {e}"))
    }

    /// The answer to a GET as it is.
    pub async fn get_bytes(&self, path: &str) -> Result<Bytes, String> {
        self.ask(Method::GET, path, "", Bytes::new()).await
    }

    /// Makes an object.
    pub async fn create(&self, path: &str, body: &Value) -> Result<Value, String> {
        self.decoded(Method::POST, path, "application/json", body).await
    }

    /// Changes an object by a strategic merge patch, as `kubectl set image` does.
    pub async fn patch(&self, path: &str, body: &Value) -> Result<Value, String> {
        self.decoded(Method::PATCH, path, "application/strategic-merge-patch+json", body).await
    }

    /// Deletes an object.
    pub async fn delete(&self, path: &str) -> Result<Value, String> {
        self.decoded(Method::DELETE, path, "application/json", &Value::Object(serde_json::Map::new())).await
    }

    /// Starts a watch.
    pub async fn watch(&self, path: &str) -> Result<Watch, String> {
        let response = self.send(Method::GET, path, "", Bytes::new()).await?;
        if response.status() != StatusCode::OK {
            return Err(format!("GET {path}: {}", response.status()));
        }
        Ok(Watch { body: response.into_body(), pending: BytesMut::new(), searched: 0 })
    }

    async fn decoded(&self, method: Method, path: &str, media: &str, body: &Value) -> Result<Value, String> {
        let answer = self.ask(method, path, media, Bytes::from(body.to_string())).await?;
        serde_json::from_slice(&answer).map_err(|e| format!("{path}: {e}"))
    }

    async fn ask(&self, method: Method, path: &str, media: &str, body: Bytes) -> Result<Bytes, String> {
        let whole = async {
            let response = self.send(method.clone(), path, media, body).await?;
            let status = response.status();
            let body = response.into_body().collect().await.map_err(|e| format!("{method} {path}: {e}"))?.to_bytes();
            if status.is_success() {
                return Ok(body);
            }
            Err(format!("{method} {path}: {status}: {}", String::from_utf8_lossy(&body)))
        };
        tokio::time::timeout(PATIENCE, whole)
            .await
            .map_err(|_| format!("{method} {path}: no answer in {PATIENCE:?}"))?
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        media: &str,
        body: Bytes,
    ) -> Result<http::Response<Incoming>, String> {
        let mut request = Request::builder().method(&method).uri(format!("https://{}{path}", self.authority));
        if !media.is_empty() {
            request = request.header("content-type", media);
        }
        let request = request.body(Full::new(body)).map_err(|e| e.to_string())?;
        self.sender.clone().send_request(request).await.map_err(|e| format!("{method} {path}: {e}"))
    }
}

/// An open watch.
pub struct Watch {
    body: Incoming,
    pending: BytesMut,
    searched: usize,
}

/// One event of a watch.
#[derive(Deserialize)]
pub struct Event<T> {
    /// ADDED, MODIFIED, DELETED, BOOKMARK or ERROR.
    #[serde(rename = "type")]
    pub kind: String,
    /// What it is about.
    pub object: T,
}

impl Watch {
    /// The next event; `None` when the watch is over.
    pub async fn next<T: DeserializeOwned>(&mut self) -> Option<Result<Event<T>, String>> {
        let line = self.line().await?;
        Some(serde_json::from_slice(&line).map_err(|e| format!("{e}: {}", String::from_utf8_lossy(&line))))
    }

    /// The next event's bytes.
    pub async fn line(&mut self) -> Option<Bytes> {
        loop {
            if let Some(end) = self.pending[self.searched..].iter().position(|byte| *byte == b'\n') {
                let line = self.pending.split_to(self.searched + end + 1).freeze();
                self.searched = 0;
                return Some(line);
            }
            self.searched = self.pending.len();
            let frame = self.body.frame().await?.ok()?;
            if let Ok(data) = frame.into_data() {
                self.pending.extend_from_slice(&data);
            }
        }
    }
}
