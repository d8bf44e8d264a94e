//! Goes to another API server: TCP, TLS with the front proxy's certificate, one request on one connection.
//!
//! Mirrors `kube-aggregator/pkg/controllers/status/remote: BuildTransportConfig` and client-go
//! `transport: SetAuthProxyHeaders`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use futures::StreamExt;
use http::header::{HOST, HeaderMap, HeaderName, HeaderValue};
use http::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject};
use tokio_rustls::rustls::{
    self, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme, crypto::CryptoProvider,
};

use super::Backend;
use crate::ServerError;
use crate::authorize::User;
use crate::pki::FrontProxy;

/// Longest time until a connection stands.
const CONNECT: Duration = Duration::from_secs(5);
/// Headers by which the front proxy says for whom it speaks.
const REMOTE: &str = "x-remote-";

/// Goes to other servers.
pub struct Dialer {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    provider: Arc<CryptoProvider>,
}

impl Dialer {
    /// Proves itself with this certificate.
    pub fn new(proxy: &FrontProxy) -> Result<Dialer, ServerError> {
        let broken = |error: rustls::pki_types::pem::Error| ServerError::Certificate {
            path: "front-proxy-client".into(),
            error: error.to_string(),
        };
        let chain = CertificateDer::from_pem_slice(proxy.client.0.as_bytes()).map_err(broken)?;
        let key = PrivateKeyDer::from_pem_slice(proxy.client.1.as_bytes()).map_err(broken)?;
        Ok(Dialer { chain: vec![chain], key, provider: Arc::new(rustls::crypto::ring::default_provider()) })
    }

    /// Sends a request to one of a backend's addresses. The body of the answer goes on coming; whoever drops it ends the
    /// connection. An error is a sentence.
    pub async fn send(&self, backend: &Backend, request: Request<Body>) -> Result<Response<Body>, String> {
        let address = backend.addresses[rand::random_range(0..backend.addresses.len())];
        let failed = |error: &dyn std::fmt::Display| format!("https://{address}: {error}");
        let connected = tokio::time::timeout(CONNECT, self.connect(address, backend)).await;
        let stream = connected.map_err(|_| failed(&"no connection came about in time"))?.map_err(|it| failed(&it))?;
        exchange(stream, &address.to_string(), request).await.map_err(|error| failed(&error))
    }

    async fn connect(
        &self,
        address: SocketAddr,
        backend: &Backend,
    ) -> Result<tokio_rustls::client::TlsStream<TcpStream>, String> {
        let config = self.config(backend.authorities.as_deref())?;
        let name = ServerName::try_from(backend.server_name.clone()).map_err(|error| error.to_string())?;
        let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(|error| error.to_string())
    }

    fn config(&self, authorities: Option<&[u8]>) -> Result<ClientConfig, String> {
        let builder = ClientConfig::builder_with_provider(self.provider.clone()).with_safe_default_protocol_versions();
        let builder = builder.map_err(|error| error.to_string())?;
        let builder = match authorities {
            None => builder.dangerous().with_custom_certificate_verifier(Arc::new(Unchecked(self.provider.clone()))),
            Some(pem) => builder.with_root_certificates(roots(pem)?),
        };
        builder.with_client_auth_cert(self.chain.clone(), self.key.clone_key()).map_err(|error| error.to_string())
    }
}

fn roots(pem: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| format!("caBundle: {error}"))?;
        roots.add(certificate).map_err(|error| format!("caBundle: {error}"))?;
    }
    if roots.is_empty() { Err("caBundle: it holds no certificate".into()) } else { Ok(roots) }
}

/// TLS over a connection to a pod, whose certificate is of its own making and not checked.
pub async fn unchecked_tls<S>(stream: S) -> Result<tokio_rustls::client::TlsStream<S>, String>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| error.to_string())?.dangerous();
    let config = builder.with_custom_certificate_verifier(Arc::new(Unchecked(provider))).with_no_client_auth();
    let name = ServerName::try_from("localhost").map_err(|error| error.to_string())?;
    let connected = TlsConnector::from(Arc::new(config)).connect(name, stream);
    let connected = tokio::time::timeout(CONNECT, connected).await.map_err(|_| "no TLS came about in time")?;
    connected.map_err(|error| error.to_string())
}

/// Sends a request to `host` over a connection of its own. The body of the answer goes on coming; whoever drops it ends the
/// connection.
pub async fn exchange<S>(stream: S, host: &str, request: Request<Body>) -> Result<Response<Body>, hyper::Error>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let carried = Carried(tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection that a request was passed on over ended with an error");
        }
    }));
    let (mut parts, body) = request.into_parts();
    if let Ok(host) = HeaderValue::from_str(host) {
        parts.headers.insert(HOST, host);
    }
    parts.version = http::Version::HTTP_11;
    let answer = sender.send_request(Request::from_parts(parts, body)).await?;
    let (parts, body) = answer.into_parts();
    let stream = Body::new(body).into_data_stream().map(move |chunk| {
        let _open = &carried;
        chunk
    });
    Ok(Response::from_parts(parts, Body::from_stream(stream)))
}

/// A connection that ends with the answer that came over it.
struct Carried(tokio::task::JoinHandle<()>);

impl Drop for Carried {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Says for whom a request is made; what a client said of that itself does not count.
pub fn identify(headers: &mut HeaderMap, user: &User) {
    let said: Vec<HeaderName> = headers.keys().filter(|name| name.as_str().starts_with(REMOTE)).cloned().collect();
    said.iter().for_each(|name| drop(headers.remove(name)));
    let mut add = |name: String, value: &str| {
        let name = HeaderName::from_bytes(format!("{REMOTE}{name}").as_bytes());
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_str(value)) {
            headers.append(name, value);
        }
    };
    add("user".into(), &user.name);
    if !user.uid.is_empty() {
        add("uid".into(), &user.uid);
    }
    user.groups.iter().for_each(|group| add("group".into(), group));
    for (key, values) in &user.extra {
        values.iter().for_each(|value| add(format!("extra-{}", escaped(key)), value));
    }
}

/// A key as the name of a header (upstream: `transport: headerKeyEscape`).
fn escaped(key: &str) -> String {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$&'*+-.^_`|~".contains(&byte);
    key.bytes().map(|byte| if legal(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// Takes any certificate, as `insecureSkipTLSVerify` says; that the server has its key is checked all the same.
#[derive(Debug)]
struct Unchecked(Arc<CryptoProvider>);

impl ServerCertVerifier for Unchecked {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_spoken_for() {
        let mut headers = HeaderMap::new();
        headers.insert("x-remote-user", HeaderValue::from_static("root"));
        headers.insert("x-remote-extra-scopes", HeaderValue::from_static("all"));
        headers.insert("accept", HeaderValue::from_static("application/json"));
        let extra = [("example.com/pod".to_owned(), vec!["a".to_owned(), "b".to_owned()])].into();
        let groups = vec!["dev".to_owned(), "system:authenticated".to_owned()];
        identify(&mut headers, &User { name: "jane".into(), uid: "7".into(), groups, extra });
        let mut lines: Vec<String> =
            headers.iter().map(|(name, value)| format!("{name}: {}\n", value.to_str().unwrap())).collect();
        lines.sort();
        expect_test::expect![[r#"
            accept: application/json
            x-remote-extra-example.com%2fpod: a
            x-remote-extra-example.com%2fpod: b
            x-remote-group: dev
            x-remote-group: system:authenticated
            x-remote-uid: 7
            x-remote-user: jane
        "#]]
        .assert_eq(&lines.concat());
    }
}
