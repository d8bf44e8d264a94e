//! `kapstan agent`: simulated nodes for a cluster somewhere else.
//!
//! A kapstan server is joined with its token, whose first part is the fingerprint of the server's authority: a server
//! that cannot show it is not trusted. Any other Kubernetes cluster is joined with a kubeconfig.

use std::path::Path;
use std::sync::Arc;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use sha2::{Digest, Sha256};
use tokio::net::TcpStream;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{self, ClientConfig, DigitallySignedStruct, SignatureScheme};

use crate::args::AgentOptions;
use crate::{node, serve};

/// Runs until SIGTERM or SIGINT.
pub fn run(options: AgentOptions) -> Result<(), String> {
    serve::start_logging();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|error| error.to_string())?;
    runtime.block_on(join(options))
}

async fn join(options: AgentOptions) -> Result<(), String> {
    if options.simulated == 0 {
        return Err("--simulated 0: there is nothing to join; give a number of nodes".into());
    }
    let config = match (&options.server, &options.token) {
        (Some(server), Some(token)) => by_token(server, token).await?,
        _ => by_kubeconfig(options.kubeconfig.as_deref()).await?,
    };
    let url = config.cluster_url.to_string();
    let client = Client::try_from(config).map_err(|error| format!("{url}: {error}"))?;
    let profile = node::profile(options.simulated_profile.as_deref())?;
    let nodes = node::start_simulated(client, options.simulated, &options.name_prefix, profile);
    println!("ready {} simulated nodes at {url}", options.simulated);
    serve::wait_for_signal().await?;
    nodes.abort();
    Ok(())
}

async fn by_kubeconfig(path: Option<&Path>) -> Result<Config, String> {
    let options = KubeConfigOptions::default();
    let config = match path {
        Some(path) => {
            let file = Kubeconfig::read_from(path).map_err(|error| format!("{}: {error}", path.display()))?;
            Config::from_custom_kubeconfig(file, &options).await
        }
        None => Config::from_kubeconfig(&options).await,
    };
    config.map_err(|error| format!("kubeconfig: {error}; name one with --kubeconfig, or give --server and --token"))
}

/// Fetches the server's authority, checks its fingerprint, and trusts it from then on.
async fn by_token(server: &str, token: &str) -> Result<Config, String> {
    let (fingerprint, secret) =
        token.split_once('.').ok_or("--token: it must be FINGERPRINT.SECRET, as in pki/join.token")?;
    let url: http::Uri = server.parse().map_err(|error| format!("--server {server}: {error}"))?;
    let authority = authority(&url, fingerprint).await?;
    let mut config = Config::new(url);
    config.root_cert = Some(vec![authority]);
    config.auth_info.token = Some(secret.to_owned().into());
    Ok(config)
}

/// The last certificate that the server shows: its authority.
async fn authority(url: &http::Uri, fingerprint: &str) -> Result<Vec<u8>, String> {
    let host =
        url.host().ok_or_else(|| format!("--server {url}: it names no host"))?.trim_matches(['[', ']']).to_owned();
    let address = (host.as_str(), url.port_u16().unwrap_or(443));
    let unreachable = |error: std::io::Error| format!("{url}: {error}");
    let stream = TcpStream::connect(address).await.map_err(unreachable)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(FingerprintOnly))
        .with_no_client_auth();
    let name = ServerName::try_from(host).map_err(|error| error.to_string())?;
    let tls = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(unreachable)?;
    let shown =
        tls.get_ref().1.peer_certificates().and_then(|chain| chain.last()).ok_or("the server showed no certificate")?;
    if hex::encode(Sha256::digest(shown)) != fingerprint {
        return Err(format!("{url} is not the server that the token is for: its authority has another fingerprint"));
    }
    Ok(shown.to_vec())
}

/// Accepts any certificate for the one connection that fetches the authority; its fingerprint is checked afterwards, and
/// nothing is said on that connection.
#[derive(Debug)]
struct FingerprintOnly;

impl ServerCertVerifier for FingerprintOnly {
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
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
