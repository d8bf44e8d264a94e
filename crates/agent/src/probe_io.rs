//! Making probes and lifecycle hooks: HTTP, TCP, gRPC health and sleep.
//!
//! Never decides what a result means ([`crate::probes`] does). Mirrors `pkg/probe/{http,tcp,grpc}` and
//! `pkg/kubelet/lifecycle/handlers.go`: any HTTP status from 200 to 399 is success, certificates are not checked,
//! redirects to the same host are followed. Commands run through the runtime and are not made here.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::{TokioExecutor, TokioIo};
use k8s_openapi::{
    api::core::v1::{Container, GRPCAction, HTTPGetAction, TCPSocketAction},
    apimachinery::pkg::util::intstr::IntOrString,
};
use tokio::net::TcpStream;

/// Redirects followed by one probe.
const REDIRECTS: usize = 10;
/// Bytes of an answer that are read.
const ANSWER_BYTES: usize = 10 * 1024;

/// Asks once; `Err` is what was seen instead of success.
pub async fn http_get(
    action: &HTTPGetAction,
    container: &Container,
    pod_ip: &str,
    timeout: Duration,
) -> Result<(), String> {
    let port = port(&action.port, container)?;
    let host = action.host.as_deref().filter(|host| !host.is_empty()).unwrap_or(pod_ip);
    let tls = action.scheme.as_deref().is_some_and(|scheme| scheme.eq_ignore_ascii_case("HTTPS"));
    let path = action.path.as_deref().filter(|path| !path.is_empty()).unwrap_or("/");
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    let scheme = if tls { "https" } else { "http" };
    let url = format!("{scheme}://{}:{port}{path}", in_brackets(host));
    let asked = tokio::time::timeout(timeout, follow(action, host, port, tls, path));
    match asked.await {
        Err(_) => {
            Err(format!("Get \"{url}\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)"))
        }
        Ok(Err(error)) => Err(format!("Get \"{url}\": {error}")),
        Ok(Ok(status)) if (200..400).contains(&status) => Ok(()),
        Ok(Ok(status)) => Err(format!("HTTP probe failed with statuscode: {status}")),
    }
}

async fn follow(action: &HTTPGetAction, host: &str, port: u16, tls: bool, mut path: String) -> Result<u16, String> {
    for _ in 0..REDIRECTS {
        let (status, location) = ask(action, host, port, tls, &path).await?;
        let same_host = location.as_deref().filter(|to| (300..400).contains(&status) && to.starts_with('/'));
        match same_host {
            Some(to) => path = to.to_owned(),
            None => return Ok(status),
        }
    }
    Err(format!("stopped after {REDIRECTS} redirects"))
}

async fn ask(
    action: &HTTPGetAction,
    host: &str,
    port: u16,
    tls: bool,
    path: &str,
) -> Result<(u16, Option<String>), String> {
    let stream = connect(host, port).await?;
    let mut request = http::Request::get(path);
    let mut named = false;
    let mut agent = false;
    for header in action.http_headers.iter().flatten() {
        named |= header.name.eq_ignore_ascii_case("host");
        agent |= header.name.eq_ignore_ascii_case("user-agent");
        request = request.header(header.name.as_str(), header.value.as_str());
    }
    if !named {
        request = request.header(http::header::HOST, format!("{}:{port}", in_brackets(host)));
    }
    if !agent {
        request = request.header(http::header::USER_AGENT, "kube-probe/1.36");
    }
    let request = request
        .header(http::header::ACCEPT, "*/*")
        .header(http::header::CONNECTION, "close")
        .body(Full::<Bytes>::default())
        .map_err(|error| error.to_string())?;
    if tls { talk(over_tls(stream, host).await?, request).await } else { talk(stream, request).await }
}

async fn talk<S>(stream: S, request: http::Request<Full<Bytes>>) -> Result<(u16, Option<String>), String>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    let driver = tokio::spawn(connection);
    let answer = sender.send_request(request).await.map_err(|error| error.to_string());
    let told = match answer {
        Ok(answer) => {
            let status = answer.status().as_u16();
            let location = answer.headers().get(http::header::LOCATION);
            let location = location.and_then(|value| value.to_str().ok()).map(str::to_owned);
            // Read so that the server is not cut off in the middle of a short answer; what it says does not matter.
            let _ = Limited::new(answer.into_body(), ANSWER_BYTES).collect().await;
            Ok((status, location))
        }
        Err(error) => Err(error),
    };
    driver.abort();
    told
}

async fn connect(host: &str, port: u16) -> Result<TcpStream, String> {
    let failed = |error: std::io::Error| format!("dial tcp {}:{port}: connect: {}", in_brackets(host), plain(&error));
    TcpStream::connect((host, port)).await.map_err(failed)
}

/// The system's words without Rust's error number.
fn plain(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::ConnectionRefused => "connection refused".into(),
        std::io::ErrorKind::HostUnreachable => "no route to host".into(),
        std::io::ErrorKind::NetworkUnreachable => "network is unreachable".into(),
        std::io::ErrorKind::TimedOut => "i/o timeout".into(),
        _ => error.to_string(),
    }
}

fn in_brackets(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

/// Opens a connection and closes it.
pub async fn tcp_socket(
    action: &TCPSocketAction,
    container: &Container,
    pod_ip: &str,
    timeout: Duration,
) -> Result<(), String> {
    let port = port(&action.port, container)?;
    let host = action.host.as_deref().filter(|host| !host.is_empty()).unwrap_or(pod_ip);
    match tokio::time::timeout(timeout, connect(host, port)).await {
        Err(_) => Err(format!("dial tcp {}:{port}: i/o timeout", in_brackets(host))),
        Ok(connected) => connected.map(drop),
    }
}

/// Asks `grpc.health.v1.Health/Check`.
pub async fn grpc(action: &GRPCAction, pod_ip: &str, timeout: Duration) -> Result<(), String> {
    let address = format!("{}:{}", in_brackets(pod_ip), action.port);
    let port = u16::try_from(action.port).map_err(|_| format!("invalid port number: {}", action.port))?;
    let service = action.service.as_deref().unwrap_or_default();
    match tokio::time::timeout(timeout, health(pod_ip, port, service)).await {
        Err(_) => Err(format!(
            "timeout: failed to connect service \"{address}\" within {timeout:?}: context deadline exceeded"
        )),
        Ok(Err(error)) => Err(format!("error: {error}")),
        Ok(Ok(1)) => Ok(()),
        Ok(Ok(status)) => Err(format!(
            "service unhealthy (responded with \"{}\")",
            if status == 2 { "NOT_SERVING" } else { "UNKNOWN" }
        )),
    }
}

async fn health(host: &str, port: u16, service: &str) -> Result<u8, String> {
    let stream = connect(host, port).await?;
    let (mut sender, connection) = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    let driver = tokio::spawn(connection);
    let request = http::Request::post(format!("http://{}:{port}/grpc.health.v1.Health/Check", in_brackets(host)))
        .header(http::header::CONTENT_TYPE, "application/grpc")
        .header(http::header::TE, "trailers")
        .body(Full::new(health_request(service)?))
        .map_err(|error| error.to_string())?;
    let answer = sender.send_request(request).await.map_err(|error| error.to_string());
    let body = match answer {
        Ok(answer) => Limited::new(answer.into_body(), ANSWER_BYTES).collect().await.map_err(|error| error.to_string()),
        Err(error) => Err(error),
    };
    driver.abort();
    let bytes = body?.to_bytes();
    // Five bytes of framing, then field 1 (a number) unless it is 0, which is "unknown".
    match bytes.get(5..7) {
        Some([0x08, status]) => Ok(*status),
        _ => Ok(0),
    }
}

fn health_request(service: &str) -> Result<Bytes, String> {
    let length = u8::try_from(service.len()).ok().filter(|length| *length < 120);
    let length = length.ok_or_else(|| "the service name of the gRPC probe is too long".to_owned())?;
    let mut message = vec![0, 0, 0, 0, if length == 0 { 0 } else { length + 2 }];
    if length > 0 {
        message.extend([0x0a, length]);
        message.extend(service.as_bytes());
    }
    Ok(message.into())
}

/// A port by number, or by the name that the container gives it.
fn port(port: &IntOrString, container: &Container) -> Result<u16, String> {
    let number = match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => {
            let named = container.ports.iter().flatten().find(|port| port.name.as_deref() == Some(name));
            named.map(|port| port.container_port).or_else(|| name.parse().ok())
        }
    };
    match number.and_then(|number| u16::try_from(number).ok()).filter(|number| *number > 0) {
        Some(port) => Ok(port),
        None => Err(match port {
            IntOrString::Int(number) => format!("invalid port number: {number}"),
            IntOrString::String(name) => format!("couldn't find port: {name}"),
        }),
    }
}

// ---- TLS without checks --------------------------------------------------------------------------------------------

async fn over_tls(stream: TcpStream, host: &str) -> Result<tokio_rustls::client::TlsStream<TcpStream>, String> {
    use tokio_rustls::rustls::{ClientConfig, crypto::ring, pki_types::ServerName};
    let provider = Arc::new(ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Unchecked(provider)))
        .with_no_client_auth();
    let name = match format!("{host}:0").parse::<SocketAddr>() {
        Ok(address) => ServerName::from(address.ip()),
        Err(_) => ServerName::try_from(host.to_owned()).map_err(|error| error.to_string())?,
    };
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    connector.connect(name, stream).await.map_err(|error| error.to_string())
}

/// Accepts any certificate: a probe asks whether something answers, not who it is.
#[derive(Debug)]
struct Unchecked(Arc<tokio_rustls::rustls::crypto::CryptoProvider>);

mod unchecked {
    use super::Unchecked;
    use tokio_rustls::rustls::{
        DigitallySignedStruct, Error, SignatureScheme,
        client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        pki_types::{CertificateDer, ServerName, UnixTime},
    };

    impl ServerCertVerifier for Unchecked {
        fn verify_server_cert(
            &self,
            _: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            _: UnixTime,
        ) -> Result<ServerCertVerified, Error> {
            Ok(ServerCertVerified::assertion())
        }

        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.0.signature_verification_algorithms.supported_schemes()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn answer(text: &'static str) -> u16 {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = [0; 4096];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(text.as_bytes()).await;
            }
        });
        port
    }

    async fn get(port: u16) -> Result<(), String> {
        let action = HTTPGetAction { port: IntOrString::Int(port.into()), ..HTTPGetAction::default() };
        http_get(&action, &Container::default(), "127.0.0.1", Duration::from_secs(5)).await
    }

    #[tokio::test]
    async fn http_statuses_are_judged() {
        let good = answer("HTTP/1.1 204 No Content\r\n\r\n").await;
        assert_eq!(get(good).await, Ok(()));
        let bad = answer("HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n").await;
        assert_eq!(get(bad).await, Err("HTTP probe failed with statuscode: 503".into()));
    }

    #[tokio::test]
    async fn a_closed_port_is_told_as_go_tells_it() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let expected = format!("dial tcp 127.0.0.1:{port}: connect: connection refused");
        assert_eq!(get(port).await, Err(format!("Get \"http://127.0.0.1:{port}/\": {expected}")));
        let action = TCPSocketAction { port: IntOrString::Int(port.into()), host: None };
        let told = tcp_socket(&action, &Container::default(), "127.0.0.1", Duration::from_secs(5)).await;
        assert_eq!(told, Err(expected));
    }

    #[test]
    fn ports_have_names() {
        let container: Container =
            serde_json::from_str(r#"{"name":"c","ports":[{"name":"web","containerPort":8080}]}"#).unwrap();
        assert_eq!(port(&IntOrString::String("web".into()), &container), Ok(8080));
        assert_eq!(port(&IntOrString::String("other".into()), &container), Err("couldn't find port: other".into()));
    }
}
