//! Gets images from registries.
//!
//! Mirrors the kubelet's decision (`pkg/kubelet/images/image_manager.go`, `EnsureImageExists`) and containerd's order and
//! wording (`core/remotes/docker/resolver.go`): every mirror, then the registry itself. Blobs are checked against the
//! manifest by `oci-client`, layers against the configuration when they are unpacked. One pull of a name runs at a time;
//! who asks meanwhile gets its outcome.
//!
//! Time-outs: [`LOOKUP_TIMEOUT`] for the host's address, [`CONNECT_TIMEOUT`] for the connection, [`RESOLVE_TIMEOUT`] for
//! the manifest, [`STALL_TIMEOUT`] without a byte. A machine without a route or a name server fails at once, since the
//! kernel says so; one whose packets are swallowed fails after the look-up's time-out.

use std::{
    collections::HashMap,
    io::{self, Read},
    net::{SocketAddr, ToSocketAddrs},
    path::{Path, PathBuf},
    pin::Pin,
    sync::{Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use futures::{
    FutureExt, StreamExt, TryStreamExt,
    future::{BoxFuture, Shared},
};
use oci_client::{
    Client, Reference,
    client::{ClientConfig, ClientProtocol},
    errors::{OciDistributionError, OciErrorCode},
    manifest::{OciDescriptor, OciImageManifest},
    secrets::RegistryAuth,
};
use tokio::io::AsyncWrite;

use super::{
    Error, Image, MAX_DOCUMENT_BYTES, Name, Store, parse_config,
    registries::{Endpoint, is_loopback},
    unpack::MAX_LAYER_BYTES,
};
use crate::runtime::{ImageSeen, PullPolicy, RuntimeError};

/// Longest wait for the address of a registry.
pub const LOOKUP_TIMEOUT: Duration = Duration::from_secs(3);
/// Longest wait for a connection to a registry.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait for an image's manifest, authorisation included.
pub const RESOLVE_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest silence of a registry in the middle of an answer.
pub const STALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Layers of one image fetched at the same time, as containerd and Docker do.
const PARALLEL_LAYERS: usize = 3;

type Pull = Shared<BoxFuture<'static, Result<Image, Error>>>;

/// The pulls that run now, by complete name.
#[derive(Default)]
pub(super) struct Pulls(Mutex<HashMap<String, Pull>>);

impl std::fmt::Debug for Pulls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pulls")
    }
}

impl Store {
    /// Makes sure that the image is here, as a pod's pull policy wants it; says which one it is.
    ///
    /// `Always` asks the registry, but for an image that was imported or built here when nobody configured where its
    /// registry is asked: then it cannot have meant a registry.
    pub async fn ensure(&self, name: &str, policy: PullPolicy) -> Result<ImageSeen, RuntimeError> {
        let here = self.find(name)?;
        let image = match (here, policy) {
            (Some(image), PullPolicy::IfNotPresent | PullPolicy::Never) => image,
            (Some(image), PullPolicy::Always) if !self.comes_from_a_registry(name)? => image,
            (None, PullPolicy::Never) => return Err(Error::NeverPull(name.to_owned()).into()),
            (_, PullPolicy::Always | PullPolicy::IfNotPresent) => self.pull(name).await?,
        };
        Ok(ImageSeen { id: image.id, size_bytes: image.size_bytes })
    }

    /// Gets the image from its registry, or from one of the registry's mirrors, even when it is here.
    pub async fn pull(&self, name: &str) -> Result<Image, Error> {
        let name = Name::parse(name)?;
        let pull = {
            let mut pulls = self.inner.pulls.0.lock().unwrap_or_else(PoisonError::into_inner);
            pulls.entry(name.to_string()).or_insert_with(|| self.start_pull(name)).clone()
        };
        pull.await
    }

    /// A task of its own: it goes on when the pod that asked first is deleted.
    fn start_pull(&self, name: Name) -> Pull {
        let store = self.clone();
        let task = tokio::spawn(async move {
            let outcome = store.pull_from_anywhere(&name).await;
            store.inner.pulls.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&name.to_string());
            outcome
        });
        task.map(|joined| joined.unwrap_or_else(|e| Err(Error::Pull(format!("the pull was cut off: {e}")))))
            .boxed()
            .shared()
    }

    fn comes_from_a_registry(&self, name: &str) -> Result<bool, Error> {
        let pulled = self.target(name)?.is_some_and(|target| target.pulled);
        Ok(pulled || (!name.starts_with("sha256:") && self.inner.registries.configured(&Name::parse(name)?.registry)))
    }

    async fn pull_from_anywhere(&self, name: &Name) -> Result<Image, Error> {
        let mut worst: Option<Failure> = None;
        for endpoint in self.inner.registries.endpoints(&name.registry)? {
            match self.pull_from(&endpoint, name).await {
                Ok(image) => return Ok(image),
                Err(failure) => {
                    tracing::debug!(%name, ?endpoint, ?failure, "pull failed");
                    worst = Some(failure.or_worse(worst));
                }
            }
        }
        let problem = match worst {
            Some(Failure::NotFound) => format!("failed to resolve reference \"{name}\": {name}: not found"),
            Some(Failure::Unresolved(problem)) => format!("failed to resolve reference \"{name}\": {problem}"),
            Some(Failure::Broken(problem)) => problem,
            None => "no place to ask is configured".to_owned(),
        };
        Err(Error::Pull(format!("failed to pull and unpack image \"{name}\": {problem}")))
    }

    async fn pull_from(&self, endpoint: &Endpoint, name: &Name) -> Result<Image, Failure> {
        let remote = Remote::connect(endpoint, name).await?;
        let (manifest, digest) = remote.manifest().await?;
        let store = self.clone();
        let _adding = blocking(move || store.adding()).await?;
        let scratch = self.scratch()?;
        let config = remote.document(&manifest.config).await?;
        let blobs = self.fetch_layers(&remote, &manifest, &config, scratch.path()).await?;
        let (store, mut names) = (self.clone(), vec![name.clone()]);
        if name.tag.is_some() && name.digest.is_some() {
            // `nginx:1@sha256:…` does not say what `nginx:1` is.
            names = vec![Name { tag: None, ..name.clone() }];
        }
        let mut layers = move |index: usize| open_blob(&blobs, index);
        Ok(blocking(move || store.install(&config, &mut layers, &names, Some(&digest), true)).await?)
    }

    /// Fetches the layers that are not here, several at a time; by place in the image.
    async fn fetch_layers(
        &self,
        remote: &Remote,
        manifest: &OciImageManifest,
        config: &[u8],
        scratch: &Path,
    ) -> Result<HashMap<usize, PathBuf>, Failure> {
        let config = parse_config(config)?;
        let diff_ids = config.rootfs().diff_ids();
        if diff_ids.len() != manifest.layers.len() {
            return Err(Failure::Broken(format!(
                "the manifest has {} layers, the configuration {}",
                manifest.layers.len(),
                diff_ids.len()
            )));
        }
        let mut missing = Vec::new();
        for (index, (diff_id, layer)) in diff_ids.iter().zip(&manifest.layers).enumerate() {
            if !self.layer(diff_id)?.exists() {
                missing.push((index, layer.clone(), scratch.join(format!("blob-{index}"))));
            }
        }
        let fetches = missing.into_iter().map(|(index, layer, path)| async move {
            remote.layer(&layer, &path).await?;
            Ok::<_, Failure>((index, path))
        });
        futures::stream::iter(fetches).buffer_unordered(PARALLEL_LAYERS).try_collect().await
    }
}

fn open_blob(blobs: &HashMap<usize, PathBuf>, index: usize) -> Result<Box<dyn Read>, Error> {
    let path = blobs
        .get(&index)
        .ok_or_else(|| Error::Io("a layer was deleted while the image was pulled; try again".to_owned()))?;
    let file = std::fs::File::open(path).map_err(|e| Error::io("cannot open", path, e))?;
    Ok(Box::new(file))
}

/// Runs what blocks on the disk away from the threads that serve.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|e| Err(Error::Io(format!("unpacking was cut off: {e}"))))
}

/// Why one place did not give the image, mildest first.
#[derive(Debug)]
enum Failure {
    /// It has no such image.
    NotFound,
    /// It did not say what it has.
    Unresolved(String),
    /// It has the image, but getting it failed.
    Broken(String),
}

impl Failure {
    /// "Not found" in one place says less than what went wrong in another; otherwise the first counts, as in containerd.
    fn or_worse(self, earlier: Option<Failure>) -> Failure {
        match (earlier, self) {
            (None | Some(Failure::NotFound), now) => now,
            (Some(Failure::Unresolved(_)), broken @ Failure::Broken(_)) => broken,
            (Some(earlier), _) => earlier,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Broken(error.to_string())
    }
}

/// One repository in one place.
struct Remote {
    client: Client,
    reference: Reference,
    auth: RegistryAuth,
    manifest_url: String,
}

impl Remote {
    async fn connect(endpoint: &Endpoint, name: &Name) -> Result<Remote, Failure> {
        let wanted = name.digest.as_ref().or(name.tag.as_ref()).map_or("latest", String::as_str);
        let manifest_url = format!("{}/v2/{}/manifests/{wanted}", endpoint.url(), name.repository);
        let unresolved =
            |problem: String| Failure::Unresolved(format!("failed to do request: Head \"{manifest_url}\": {problem}"));
        reach(endpoint).await.map_err(unresolved)?;
        let client = client(endpoint).map_err(unresolved)?;
        let (host, repository) = (endpoint.host.clone(), name.repository.clone());
        let reference = match (&name.digest, &name.tag) {
            (Some(digest), _) => Reference::with_digest(host, repository, digest.clone()),
            (None, tag) => Reference::with_tag(host, repository, tag.clone().unwrap_or_else(|| "latest".to_owned())),
        };
        let auth = match &endpoint.login {
            Some((user, password)) => RegistryAuth::Basic(user.clone(), password.clone()),
            None => RegistryAuth::Anonymous,
        };
        Ok(Remote { client, reference, auth, manifest_url })
    }

    /// The manifest for this machine, and the digest that the image's name stands for (that of the index, if it is one).
    async fn manifest(&self) -> Result<(OciImageManifest, String), Failure> {
        let pull = self.client.pull_image_manifest_and_list_digest(&self.reference, &self.auth);
        let (manifest, digest, index) = match tokio::time::timeout(RESOLVE_TIMEOUT, pull).await {
            Ok(pulled) => pulled.map_err(|error| self.unresolved(&error))?,
            Err(_) => {
                return Err(Failure::Unresolved(format!(
                    "failed to do request: Head \"{}\": no answer within {RESOLVE_TIMEOUT:?}",
                    self.manifest_url
                )));
            }
        };
        Ok((manifest, index.unwrap_or(digest)))
    }

    fn unresolved(&self, error: &OciDistributionError) -> Failure {
        let denied = || {
            Failure::Unresolved("pull access denied, repository does not exist or may require authorization: server message: insufficient_scope: authorization failed".to_owned())
        };
        match error {
            OciDistributionError::RegistryError { envelope, .. } => match envelope.errors.first().map(|e| &e.code) {
                Some(OciErrorCode::ManifestUnknown | OciErrorCode::NameUnknown | OciErrorCode::NotFound) => {
                    Failure::NotFound
                }
                Some(OciErrorCode::Denied | OciErrorCode::Unauthorized) => denied(),
                _ => Failure::Unresolved(format!(
                    "unexpected answer from HEAD request to {}: {envelope}",
                    self.manifest_url
                )),
            },
            OciDistributionError::ServerError { code: 404, .. } => Failure::NotFound,
            OciDistributionError::ServerError { code, .. } => {
                Failure::Unresolved(format!("unexpected status from HEAD request to {}: {code}", self.manifest_url))
            }
            OciDistributionError::UnauthorizedError { .. } | OciDistributionError::AuthenticationFailure(_) => denied(),
            OciDistributionError::ImageManifestNotFoundError(_) => Failure::Broken(format!(
                "no match for platform in manifest: not found (this node is linux/{})",
                oci_spec::image::Arch::default()
            )),
            OciDistributionError::RequestError(error) => Failure::Unresolved(format!(
                "failed to do request: Head \"{}\": {}",
                self.manifest_url,
                root_cause(error)
            )),
            other => Failure::Unresolved(other.to_string()),
        }
    }

    /// A small blob.
    async fn document(&self, blob: &OciDescriptor) -> Result<Vec<u8>, Failure> {
        let mut text = Vec::new();
        self.fetch(blob, MAX_DOCUMENT_BYTES, &mut text).await?;
        Ok(text)
    }

    async fn layer(&self, blob: &OciDescriptor, path: &Path) -> Result<(), Failure> {
        if blob.urls.as_ref().is_some_and(|urls| !urls.is_empty()) {
            return Err(Failure::Broken(format!(
                "layer {} is to be fetched from elsewhere (a foreign layer), which is not supported",
                blob.digest
            )));
        }
        let file = tokio::fs::File::create(path).await.map_err(|e| Error::io("cannot make", path, e))?;
        self.fetch(blob, MAX_LAYER_BYTES, file).await
    }

    async fn fetch(&self, blob: &OciDescriptor, most: u64, out: impl AsyncWrite + Unpin) -> Result<(), Failure> {
        let size = u64::try_from(blob.size).unwrap_or(u64::MAX);
        if size > most {
            return Err(Failure::Broken(format!("blob {} has {size} bytes, at most {most} are taken", blob.digest)));
        }
        let bounded = Bounded { out, left: size };
        self.client.pull_blob(&self.reference, blob, bounded).await.map_err(|error| {
            let cause = match &error {
                OciDistributionError::RequestError(error) => root_cause(error),
                other => other.to_string(),
            };
            Failure::Broken(format!("failed to copy blob {}: {cause}", blob.digest))
        })
    }
}

fn client(endpoint: &Endpoint) -> Result<Client, String> {
    // A second installation is refused and harmless: whoever was first took the same provider.
    let _ = tokio_rustls::rustls::crypto::ring::default_provider().install_default();
    let config = ClientConfig {
        protocol: if endpoint.plain { ClientProtocol::Http } else { ClientProtocol::Https },
        connect_timeout: Some(CONNECT_TIMEOUT),
        read_timeout: Some(STALL_TIMEOUT),
        user_agent: concat!("kapstan/", env!("CARGO_PKG_VERSION")),
        ..ClientConfig::default()
    };
    Client::try_from(config).map_err(|error| root_cause(&error))
}

/// Finds out within bounds whether anybody listens there, worded as Go's dialer does. With a web proxy between, only the
/// proxy knows.
async fn reach(endpoint: &Endpoint) -> Result<(), String> {
    let (host, port) = endpoint.address();
    if !is_loopback(&endpoint.host) && proxy_is_set() {
        return Ok(());
    }
    let found = look_up(host.clone(), port).await?;
    let mut problem = format!("dial tcp: lookup {host}: no such host");
    for address in found {
        match tokio::time::timeout(CONNECT_TIMEOUT, tokio::net::TcpStream::connect(address)).await {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(error)) => problem = format!("dial tcp {address}: connect: {}", plain_words(&error)),
            Err(_) => return Err(format!("dial tcp {address}: i/o timeout")),
        }
    }
    Err(problem)
}

fn proxy_is_set() -> bool {
    ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"]
        .iter()
        .any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()))
}

/// On a thread of its own, not the runtime's: a name server that does not answer would hold up the agent's exit.
async fn look_up(host: String, port: u16) -> Result<Vec<SocketAddr>, String> {
    let (send, receive) = tokio::sync::oneshot::channel();
    let asked = host.clone();
    let resolver = move || {
        let found = (asked.as_str(), port).to_socket_addrs().map(Iterator::collect::<Vec<_>>);
        // Nobody waits any more after the time-out.
        let _ = send.send(found);
    };
    std::thread::Builder::new()
        .name("registry-lookup".to_owned())
        .spawn(resolver)
        .map_err(|e| format!("dial tcp: lookup {host}: {e}"))?;
    match tokio::time::timeout(LOOKUP_TIMEOUT, receive).await {
        Ok(Ok(Ok(found))) => Ok(found),
        Ok(Ok(Err(error))) => {
            let error = error.to_string();
            let cause = error.strip_prefix("failed to lookup address information: ").unwrap_or(&error);
            Err(format!("dial tcp: lookup {host}: {cause}"))
        }
        Ok(Err(_)) => Err(format!("dial tcp: lookup {host}: the resolver failed")),
        Err(_) => Err(format!("dial tcp: lookup {host}: i/o timeout")),
    }
}

/// The system's words without Rust's: `connection refused`.
fn plain_words(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_ascii_lowercase()
}

/// The innermost error says what happened; the layers above only say that something did.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// Refuses more bytes than were announced.
struct Bounded<W> {
    out: W,
    left: u64,
}

impl<W: AsyncWrite + Unpin> AsyncWrite for Bounded<W> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if bytes.len() as u64 > self.left {
            return Poll::Ready(Err(io::Error::other("the registry sent more bytes than the manifest says")));
        }
        let poll = Pin::new(&mut self.out).poll_write(context, bytes);
        if let Poll::Ready(Ok(written)) = &poll {
            self.left -= *written as u64;
        }
        poll
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.out).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.out).poll_shutdown(context)
    }
}
