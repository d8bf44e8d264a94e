//! Certificates: an own authority made at first start, the server's certificate, the administrator's, and tokens.
//!
//! Keys are files of mode 0600 in `DIR/pki`. A server certificate that does not name an address it is to listen on is
//! made anew; the authority stays.

use std::fs;
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use base64::Engine;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use sha2::{Digest, Sha256};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use crate::ServerError;

/// Names the server answers to inside and outside the cluster.
const SERVER_NAMES: [&str; 6] = [
    "localhost",
    "kapstan",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
];
/// The address of Service `default/kubernetes`.
pub const KUBERNETES_SERVICE_ADDRESS: &str = "10.96.0.1";

/// Everything the server needs to prove who it is and to know who asks.
pub struct Pki {
    /// PEM of the authority.
    pub authority_pem: String,
    /// Chain and key of the server.
    pub server: (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>),
    /// The authority, to check clients.
    pub authority: CertificateDer<'static>,
    /// PEM certificate and key of the administrator.
    pub admin: (String, String),
    /// What further nodes join with: `fingerprint.secret`.
    pub join_token: String,
    /// The key that tokens of ServiceAccounts are signed with.
    pub token_key: KeyPair,
    /// How the server proves to the API servers that extend it that it speaks for its clients.
    pub front_proxy: FrontProxy,
}

/// An authority of its own, so that no certificate of the cluster's counts as the front proxy's.
#[derive(Clone)]
pub struct FrontProxy {
    /// PEM of the authority.
    pub authority_pem: String,
    /// PEM certificate and key of the server as a front proxy.
    pub client: (String, String),
}

/// The common name in the front proxy's certificate.
pub const FRONT_PROXY: &str = "front-proxy-client";

/// Reads what is in `dir`, and makes what is missing.
pub fn open(dir: &Path, listen: IpAddr) -> Result<Pki, ServerError> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|error| io(dir, &error))?;
    let (authority_pem, issuer) = self::authority(dir, "ca", "kapstan-ca")?;
    let server = leaf(dir, "server", &issuer, server_parameters(listen)?, &listen.to_string())?;
    let admin = leaf(dir, "admin", &issuer, admin_parameters()?, "")?;
    let authority =
        CertificateDer::from_pem_slice(authority_pem.as_bytes()).map_err(|error| certificate(dir, &error))?;
    let chain = CertificateDer::from_pem_slice(server.0.as_bytes()).map_err(|error| certificate(dir, &error))?;
    let server_key = PrivateKeyDer::from_pem_slice(server.1.as_bytes()).map_err(|error| certificate(dir, &error))?;
    let join_token = join_token(dir, &authority)?;
    let token_key = key(&dir.join("sa.key"))?;
    // Nodes that join check the fingerprint of the authority, so it is shown as well.
    let chain = vec![chain, authority.clone()];
    let front_proxy = front_proxy(dir)?;
    Ok(Pki { authority_pem, server: (chain, server_key), authority, admin, join_token, token_key, front_proxy })
}

fn front_proxy(dir: &Path) -> Result<FrontProxy, ServerError> {
    let (authority_pem, issuer) = authority(dir, "front-proxy-ca", "kapstan-front-proxy-ca")?;
    let mut parameters = parameters(FRONT_PROXY, &[], Vec::new())?;
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let client = leaf(dir, FRONT_PROXY, &issuer, parameters, "")?;
    Ok(FrontProxy { authority_pem, client })
}

/// PEM of the authority kept in `NAME.crt` and `NAME.key`, made when it is missing, and what signs in its name.
fn authority(dir: &Path, name: &str, subject: &str) -> Result<(String, Issuer<'static, KeyPair>), ServerError> {
    let key = key(&dir.join(format!("{name}.key")))?;
    let path = dir.join(format!("{name}.crt"));
    let pem = match fs::read_to_string(&path) {
        Ok(pem) => pem,
        Err(_) => write(&path, &authority_certificate(subject, &key)?)?,
    };
    let issuer = Issuer::from_ca_cert_pem(&pem, key).map_err(|error| certificate(dir, &error))?;
    Ok((pem, issuer))
}

/// A kubeconfig for `url` with the administrator's certificate.
pub fn kubeconfig(pki: &Pki, url: &str) -> String {
    let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    format!(
        "apiVersion: v1\nkind: Config\nclusters:\n- name: kapstan\n  cluster:\n    server: {url}\n    \
         certificate-authority-data: {}\nusers:\n- name: admin\n  user:\n    client-certificate-data: {}\n    \
         client-key-data: {}\ncontexts:\n- name: kapstan\n  context:\n    cluster: kapstan\n    user: admin\n\
         current-context: kapstan\n",
        encode(&pki.authority_pem),
        encode(&pki.admin.0),
        encode(&pki.admin.1)
    )
}

/// Writes a file that only its owner may read, replacing it as a whole.
pub fn write_private(path: &Path, text: &str) -> Result<(), ServerError> {
    let temporary = path.with_extension("new");
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(&temporary).map_err(|error| io(&temporary, &error))?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(|error| io(&temporary, &error))?;
    fs::rename(&temporary, path).map_err(|error| io(path, &error))
}

fn write(path: &Path, text: &str) -> Result<String, ServerError> {
    write_private(path, text)?;
    Ok(text.to_owned())
}

fn key(path: &Path) -> Result<KeyPair, ServerError> {
    if let Ok(pem) = fs::read_to_string(path) {
        return KeyPair::from_pem(&pem).map_err(|error| certificate(path, &error));
    }
    let key = KeyPair::generate().map_err(|error| certificate(path, &error))?;
    write_private(path, &key.serialize_pem())?;
    Ok(key)
}

fn authority_certificate(subject: &str, key: &KeyPair) -> Result<String, ServerError> {
    let mut parameters = parameters(subject, &[], Vec::new())?;
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    parameters.key_usages =
        vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    let made = parameters.self_signed(key).map_err(|error| certificate(Path::new(subject), &error))?;
    Ok(made.pem())
}

fn server_parameters(listen: IpAddr) -> Result<CertificateParams, ServerError> {
    let mut names: Vec<String> = SERVER_NAMES.iter().map(|name| (*name).to_owned()).collect();
    names.extend(["127.0.0.1".to_owned(), "::1".to_owned(), KUBERNETES_SERVICE_ADDRESS.to_owned()]);
    if !listen.is_unspecified() && !listen.is_loopback() {
        names.push(listen.to_string());
    }
    let mut parameters = parameters("kapstan-server", &[], names)?;
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    Ok(parameters)
}

fn admin_parameters() -> Result<CertificateParams, ServerError> {
    let mut parameters = parameters("kubernetes-admin", &["system:masters"], Vec::new())?;
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    Ok(parameters)
}

fn parameters(name: &str, organisations: &[&str], alternative: Vec<String>) -> Result<CertificateParams, ServerError> {
    let mut parameters = CertificateParams::new(alternative).map_err(|error| certificate(Path::new(name), &error))?;
    parameters.distinguished_name = DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CommonName, name);
    for organisation in organisations {
        parameters.distinguished_name.push(DnType::OrganizationName, *organisation);
    }
    parameters.use_authority_key_identifier_extension = true;
    Ok(parameters)
}

/// Certificate and key of `name`, made when they are missing or were made for another purpose.
fn leaf(
    dir: &Path,
    name: &str,
    issuer: &Issuer<'_, KeyPair>,
    parameters: CertificateParams,
    purpose: &str,
) -> Result<(String, String), ServerError> {
    let path = |ending: &str| -> PathBuf { dir.join(format!("{name}.{ending}")) };
    let same_purpose = purpose.is_empty() || fs::read_to_string(path("for")).is_ok_and(|text| text == purpose);
    if let (Ok(pem), Ok(key), true) = (fs::read_to_string(path("crt")), fs::read_to_string(path("key")), same_purpose) {
        return Ok((pem, key));
    }
    let key = KeyPair::generate().map_err(|error| certificate(dir, &error))?;
    let made = parameters.signed_by(&key, issuer).map_err(|error| certificate(dir, &error))?;
    write_private(&path("key"), &key.serialize_pem())?;
    write_private(&path("crt"), &made.pem())?;
    write_private(&path("for"), purpose)?;
    Ok((made.pem(), key.serialize_pem()))
}

/// `fingerprint of the authority.secret`: lets a joining node check the server, and the server the node.
fn join_token(dir: &Path, authority: &CertificateDer) -> Result<String, ServerError> {
    let path = dir.join("join.token");
    if let Ok(token) = fs::read_to_string(&path) {
        return Ok(token.trim().to_owned());
    }
    let secret: [u8; 24] = rand::random();
    let token = format!("{}.{}", hex::encode(Sha256::digest(authority)), hex::encode(secret));
    write(&path, &token)
}

fn io(path: &Path, error: &std::io::Error) -> ServerError {
    ServerError::File { path: path.to_owned(), error: error.to_string() }
}

fn certificate(path: &Path, error: &dyn std::fmt::Display) -> ServerError {
    ServerError::Certificate { path: path.to_owned(), error: error.to_string() }
}
