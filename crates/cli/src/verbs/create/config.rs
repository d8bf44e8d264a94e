//! `create configmap|secret`. Mirrors kubectl `create_configmap.go`, `create_secret*.go` and `pkg/generate/versioned/env_file.go`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio_rustls::rustls;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::sign::CertifiedKey;

use super::{Making, make, metadata};
use crate::errors::{Error, Result};
use crate::print::{html_escaped, in_go};
use crate::session::Session;

/// Create a config map from literals, files and folders.
#[derive(clap::Args)]
pub struct ConfigMapOptions {
    /// Its name.
    name: String,
    #[command(flatten)]
    sources: Sources,
    /// End the name with a hash of what is in it.
    #[arg(long)]
    append_hash: bool,
    #[command(flatten)]
    making: Making,
}

/// Where values come from.
#[derive(clap::Args)]
pub struct Sources {
    /// KEY=VALUE; may be repeated.
    #[arg(long)]
    from_literal: Vec<String>,
    /// [KEY=]FILE or a folder; may be repeated.
    #[arg(long)]
    from_file: Vec<String>,
    /// A file of KEY=VALUE lines; may be repeated.
    #[arg(long)]
    from_env_file: Vec<String>,
}

/// Create a secret.
#[derive(clap::Args)]
pub struct SecretOptions {
    #[command(subcommand)]
    what: Secret,
}

#[derive(clap::Subcommand)]
enum Secret {
    /// From literals, files and folders.
    Generic {
        /// Its name.
        name: String,
        /// Its type.
        #[arg(long = "type")]
        secret_type: Option<String>,
        #[command(flatten)]
        sources: Sources,
        /// End the name with a hash of what is in it.
        #[arg(long)]
        append_hash: bool,
        #[command(flatten)]
        making: Making,
    },
    /// A certificate and its key.
    Tls {
        /// Its name.
        name: String,
        /// File with the certificate.
        #[arg(long, default_value = "", hide_default_value = true, value_name = "FILE")]
        cert: String,
        /// File with the private key.
        #[arg(long, default_value = "", hide_default_value = true, value_name = "FILE")]
        key: String,
        /// End the name with a hash of what is in it.
        #[arg(long)]
        append_hash: bool,
        #[command(flatten)]
        making: Making,
    },
    /// Name and password for an image registry.
    DockerRegistry {
        /// Its name.
        name: String,
        /// Address of the registry.
        #[arg(long, default_value = "https://index.docker.io/v1/")]
        docker_server: String,
        /// User name.
        #[arg(long, default_value = "")]
        docker_username: String,
        /// Password.
        #[arg(long, default_value = "")]
        docker_password: String,
        /// E-mail address.
        #[arg(long, default_value = "")]
        docker_email: String,
        #[command(flatten)]
        sources: Sources,
        /// End the name with a hash of what is in it.
        #[arg(long)]
        append_hash: bool,
        #[command(flatten)]
        making: Making,
    },
}

impl Sources {
    fn values(&self, session: &Session) -> Result<BTreeMap<String, Vec<u8>>> {
        if !(self.from_env_file.is_empty() || self.from_file.is_empty() && self.from_literal.is_empty()) {
            return Err(Error::told("from-env-file cannot be combined with from-file or from-literal"));
        }
        let mut values = BTreeMap::new();
        let mut add = |key: &str, value: Vec<u8>| {
            let problems = api::names::config_map_key(key);
            if !problems.is_empty() {
                return Err(Error::told(format!(
                    "{key:?} is not a valid key name for a ConfigMap: {}",
                    problems.join(";")
                )));
            }
            match values.insert(key.to_owned(), value) {
                None => Ok(()),
                Some(_) => Err(Error::told(format!(
                    "cannot add key {key:?}, another key by that name already exists in Data for ConfigMap"
                ))),
            }
        };
        for literal in &self.from_literal {
            let (key, value) = literal
                .split_once('=')
                .filter(|(key, _)| !key.is_empty())
                .ok_or_else(|| Error::told(format!("invalid literal source {literal}, expected key=value")))?;
            add(key, unquoted(value).as_bytes().to_vec())?;
        }
        for source in &self.from_file {
            for (key, path) in files(source)? {
                let bytes = fs::read(&path).map_err(|_| missing(&path))?;
                add(&key, bytes)?;
            }
        }
        for path in &self.from_env_file {
            let text = fs::read_to_string(path).map_err(|_| missing(path))?;
            for line in text.lines().map(str::trim_start).filter(|line| !line.is_empty() && !line.starts_with('#')) {
                let (key, value) = match line.split_once('=') {
                    Some((key, value)) => (key, value.to_owned()),
                    None => (line, session.io.environment.get(line).cloned().unwrap_or_default()),
                };
                add(key, value.into_bytes())?;
            }
        }
        Ok(values)
    }
}

fn missing(path: &str) -> Error {
    Error::told(format!("error reading {path}: no such file or directory"))
}

fn unquoted(value: &str) -> &str {
    let quoted = |quote: char| value.len() >= 2 && value.starts_with(quote) && value.ends_with(quote);
    if quoted('"') || quoted('\'') { &value[1..value.len() - 1] } else { value }
}

fn files(source: &str) -> Result<Vec<(String, String)>> {
    let (key, path) = match source.split_once('=') {
        Some((key, path)) => (Some(key), path),
        None => (None, source),
    };
    let place = Path::new(path);
    if !place.exists() {
        return Err(missing(path));
    }
    let name = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    if !place.is_dir() {
        return Ok(vec![(key.map_or_else(|| name(place), str::to_owned), path.to_owned())]);
    }
    if key.is_some() {
        return Err(Error::told("cannot give a key name for a directory path"));
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(place)? {
        let entry = entry?.path();
        let key = name(&entry);
        if entry.is_file() && api::names::config_map_key(&key).is_empty() {
            found.push((key, entry.display().to_string()));
        }
    }
    found.sort();
    Ok(found)
}

pub(super) async fn config_map(session: &mut Session, options: ConfigMapOptions) -> Result<()> {
    let mut object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata(&options.name)});
    for (key, bytes) in options.sources.values(session)? {
        match String::from_utf8(bytes) {
            Ok(text) => object["data"][key] = text.into(),
            Err(error) => object["binaryData"][key] = STANDARD.encode(error.as_bytes()).into(),
        }
    }
    if options.append_hash {
        append_hash(&mut object, &["data", "binaryData"]);
    }
    make(session, &options.making, object, true).await
}

/// A name that changes with the content (kubectl: `pkg/util/hash/hash.go`): ten characters that spell no words.
fn append_hash(object: &mut Value, fields: &[&str]) {
    let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let mut content = json!({"kind": object["kind"], "name": name});
    for field in fields {
        // Only `data` and the type of a secret are there when they are empty.
        if !object[field].is_null() || *field != "binaryData" {
            content[field] = object[field].clone();
        }
    }
    if object["kind"] == "Secret" && content["type"].is_null() {
        content["type"] = "".into();
    }
    let digest = hex::encode(Sha256::digest(html_escaped(&content.to_string())));
    let spelled = digest.chars().take(10).map(|digit| match digit {
        '0' => 'g',
        '1' => 'h',
        '3' => 'k',
        'a' => 'm',
        'e' => 't',
        other => other,
    });
    object["metadata"]["name"] = format!("{name}-{}", spelled.collect::<String>()).into();
}

fn secret_object(name: &str, secret_type: Option<&str>, values: BTreeMap<String, Vec<u8>>) -> Value {
    let mut object = json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata(name)});
    if let Some(secret_type) = secret_type {
        object["type"] = secret_type.into();
    }
    for (key, bytes) in values {
        object["data"][key] = STANDARD.encode(bytes).into();
    }
    object
}

pub(super) async fn secret(session: &mut Session, options: SecretOptions) -> Result<()> {
    match options.what {
        Secret::Generic { name, secret_type, sources, append_hash, making } => {
            let object = secret_object(&name, secret_type.as_deref(), sources.values(session)?);
            make_secret(session, &making, object, append_hash).await
        }
        Secret::Tls { name, cert, key, append_hash, making } => {
            if cert.is_empty() || key.is_empty() {
                return Err(Error::told("key and cert must be specified"));
            }
            let (cert, key) = (pem(&cert)?, pem(&key)?);
            check_pair(&cert, &key)?;
            let values = BTreeMap::from([("tls.crt".to_owned(), cert), ("tls.key".to_owned(), key)]);
            let object = secret_object(&name, Some("kubernetes.io/tls"), values);
            make_secret(session, &making, object, append_hash).await
        }
        Secret::DockerRegistry {
            name,
            docker_server,
            docker_username,
            docker_password,
            docker_email,
            sources,
            append_hash,
            making,
        } => {
            let mut values = sources.values(session)?;
            if values.is_empty() {
                if docker_username.is_empty() || docker_password.is_empty() {
                    return Err(Error::told(
                        "either --from-file or the combination of --docker-username, --docker-password and --docker-server is required",
                    ));
                }
                let mut login = json!({
                    "username": docker_username,
                    "password": docker_password,
                    "auth": STANDARD.encode(format!("{docker_username}:{docker_password}")),
                });
                if !docker_email.is_empty() {
                    login["email"] = docker_email.into();
                }
                // Members in upstream's order, so that the same command gives the same bytes.
                let email = login.get("email").map(|email| format!(",\"email\":{email}")).unwrap_or_default();
                let text = format!(
                    "{{\"auths\":{{{}:{{\"username\":{},\"password\":{}{email},\"auth\":{}}}}}}}",
                    Value::from(docker_server),
                    login["username"],
                    login["password"],
                    login["auth"]
                );
                values.insert(".dockerconfigjson".into(), text.into_bytes());
            }
            let object = secret_object(&name, Some("kubernetes.io/dockerconfigjson"), values);
            make_secret(session, &making, object, append_hash).await
        }
    }
}

fn pem(path: &str) -> Result<Vec<u8>> {
    fs::read(path).map_err(|error| {
        let doing = if error.kind() == std::io::ErrorKind::IsADirectory { "read" } else { "open" };
        Error::told(format!("Cannot read file {path}, {doing} {path}: {}", in_go(&error)))
    })
}

/// A certificate and its key belong together, in the words of Go's `tls.X509KeyPair`.
fn check_pair(cert: &[u8], key: &[u8]) -> Result<()> {
    let wrong = |why: String| Error::told(format!("tls: {why}"));
    blocks_fit(cert, key).map_err(wrong)?;
    let certificates = CertificateDer::pem_slice_iter(cert).collect::<Result<Vec<_>, _>>();
    let certificates = certificates.map_err(|error| wrong(error.to_string()))?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| wrong(error.to_string()))?;
    match CertifiedKey::from_der(certificates, key, &ring::default_provider()) {
        Ok(_) => Ok(()),
        Err(rustls::Error::InconsistentKeys(_)) => Err(wrong("private key does not match public key".into())),
        Err(error) => Err(wrong(error.to_string())),
    }
}

/// What is in the files, by the names of their blocks.
fn blocks_fit(cert: &[u8], key: &[u8]) -> Result<(), String> {
    let names = |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes).into_owned();
        let named = |line: &str| Some(line.trim_end().strip_prefix("-----BEGIN ")?.strip_suffix("-----")?.to_owned());
        text.lines().filter_map(named).collect::<Vec<String>>()
    };
    let (certs, keys) = (names(cert), names(key));
    if !certs.iter().any(|name| name == "CERTIFICATE") {
        return Err(match certs.as_slice() {
            [] => "failed to find any PEM data in certificate input".into(),
            [one] if one.ends_with("PRIVATE KEY") => "failed to find certificate PEM data in certificate input, but did find a private key; PEM inputs may have been switched".into(),
            _ => format!("failed to find \"CERTIFICATE\" PEM block in certificate input after skipping PEM blocks of the following types: [{}]", certs.join(" ")),
        });
    }
    if !keys.iter().any(|name| name.ends_with("PRIVATE KEY")) {
        return Err(match keys.as_slice() {
            [] => "failed to find any PEM data in key input".into(),
            [one] if one == "CERTIFICATE" => {
                "found a certificate rather than a key in the PEM for the private key".into()
            }
            _ => format!(
                "failed to find PEM block with type ending in \"PRIVATE KEY\" in key input after skipping PEM blocks of the following types: [{}]",
                keys.join(" ")
            ),
        });
    }
    Ok(())
}

async fn make_secret(session: &mut Session, making: &Making, mut object: Value, hash: bool) -> Result<()> {
    if hash {
        append_hash(&mut object, &["data", "type"]);
    }
    make(session, making, object, true).await
}
