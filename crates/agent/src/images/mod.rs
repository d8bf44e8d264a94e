//! The node's images: names, configurations and unpacked layers under `<data-dir>/images`.
//!
//! ```text
//! images/refs.json            name -> digest of configuration (changed under refs.lock, replaced by rename)
//! images/configs/<hex>        an image's configuration, by its own digest
//! images/layers/<hex>/fs      a layer in overlayfs form, by the digest of its uncompressed archive
//! images/layers/<hex>/layer.json   its size; written before the layer gets its name
//! images/uses/<hex>-<hex>     which container folder is mounted from which image
//! images/tmp                  work in progress
//! images/lock                 held shared while adding, exclusively while sweeping
//! ```
//!
//! Several processes may use one store. Whatever has its final name is complete: everything is written aside, synced,
//! then renamed. What no name and no mounted container refers to is swept. The roles are those of containerd's content
//! store, metadata store and overlayfs snapshotter in one; layers are kept only unpacked, so an image cannot be pushed.
//! This room starts no process and knows no pod.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

use oci_spec::image::ImageConfiguration;
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub mod build;
mod containerfile;
mod error;
mod import;
mod merged;
mod name;
mod pull;
mod refs;
mod registries;
mod rootfs;
#[cfg(test)]
mod tests;
pub mod unpack;

pub use build::{Content, FileEntry};
pub use error::Error;
pub use import::Imported;
pub use name::Name;
pub use pull::{CONNECT_TIMEOUT, LOOKUP_TIMEOUT, RESOLVE_TIMEOUT, STALL_TIMEOUT};
pub use rootfs::RootFs;

use pull::Pulls;
use refs::{Lock, RefsFile, Target, lock, try_lock, write_durably};
use registries::Registries;
use unpack::Owners;

/// Most layers one image may have; overlayfs takes 500.
pub const MAX_LAYERS: usize = 256;
/// Most bytes of a configuration, manifest or index.
pub const MAX_DOCUMENT_BYTES: u64 = 8 << 20;

/// An image on this node.
#[derive(Clone, Debug)]
pub struct Image {
    /// `sha256:…` of the configuration.
    pub id: String,
    /// Bytes of its unpacked layers.
    pub size_bytes: u64,
    /// What it runs, as whom, with which environment.
    pub config: ImageConfiguration,
}

/// One line of `kapstan image ls`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The name, short form: `nginx:1.7.9`.
    pub name: String,
    /// `sha256:…` of the configuration.
    pub id: String,
    /// Bytes of its unpacked layers.
    pub size_bytes: u64,
    /// When the image says it was made, RFC 3339.
    pub created: Option<String>,
}

/// What `kapstan image rm` did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removed {
    /// The name that is gone.
    pub name: String,
    /// Container folders that still run from the image: its layers go when they end.
    pub used_by: Vec<PathBuf>,
    /// Layers deleted from disk.
    pub layers_deleted: usize,
}

/// The image store of one node. Cheap to clone; all clones share it.
#[derive(Clone, Debug)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    refs: RefsFile,
    owners: Owners,
    registries: Registries,
    pulls: Pulls,
}

/// Gives the bytes of the layer with this place in the image, compressed or not.
type LayerSource<'a> = dyn FnMut(usize) -> Result<Box<dyn Read>, Error> + 'a;

/// `layer.json`.
#[derive(Debug, Serialize, Deserialize)]
struct LayerRecord {
    size_bytes: u64,
    #[serde(default)]
    opaque_root: bool,
}

/// A container folder that runs from an image.
#[derive(Debug)]
struct Use {
    record: PathBuf,
    folder: PathBuf,
    config: String,
}

impl Store {
    /// Opens the store under `data_dir`, making it when it is not there, and removes what a crash left half done.
    pub fn open(data_dir: &Path) -> Result<Store, Error> {
        Store::open_with_mirrors(data_dir, &[])
    }

    /// As [`Store::open`], with mirrors written `HOST=URL` besides those of `registries.yaml`.
    pub fn open_with_mirrors(data_dir: &Path, mirrors: &[String]) -> Result<Store, Error> {
        let mut registries = Registries::read(&data_dir.join("registries.yaml"))?;
        mirrors.iter().try_for_each(|mirror| registries.add_mirror(mirror))?;
        let root = data_dir.join("images");
        for folder in ["configs", "layers", "uses", "tmp", "empty"] {
            let folder = root.join(folder);
            fs::create_dir_all(&folder).map_err(|e| Error::io("cannot make", &folder, e))?;
        }
        let root = root.canonicalize().map_err(|e| Error::io("cannot open", &root, e))?;
        let store = Store {
            inner: Arc::new(Inner {
                refs: RefsFile::new(&root),
                root,
                owners: owners(),
                registries,
                pulls: Pulls::default(),
            }),
        };
        store.sweep()?;
        Ok(store)
    }

    /// The image that a pod's `image` names, if it is here. A damaged store is logged and counts as "not here".
    pub fn get(&self, name: &str) -> Option<Image> {
        self.find(name).unwrap_or_else(|error| {
            tracing::warn!(name, %error, "image store");
            None
        })
    }

    /// As [`Store::get`], with the reason when the name or the store is wrong.
    pub fn find(&self, name: &str) -> Result<Option<Image>, Error> {
        match self.target(name)? {
            Some(target) => self.load(&target.config).map(Some),
            None => Ok(None),
        }
    }

    /// All images, by name.
    pub fn list(&self) -> Result<Vec<Listed>, Error> {
        let refs = self.inner.refs.read()?;
        let line = |(name, target): (&String, &Target)| {
            let image = self.load(&target.config)?;
            let name = Name::parse(name).map_or_else(|_| name.clone(), |name| name.familiar());
            Ok(Listed { name, id: image.id, size_bytes: image.size_bytes, created: image.config.created().clone() })
        };
        refs.images.iter().map(line).collect()
    }

    /// The image's configuration, byte for byte as its author wrote it.
    pub fn inspect(&self, name: &str) -> Result<Vec<u8>, Error> {
        let target = self.target(name)?.ok_or_else(|| Error::NotFound(name.to_owned()))?;
        self.config_bytes(&target.config)
    }

    /// Takes a name away and deletes what nothing refers to any more. Containers that run from the image keep its layers.
    pub fn remove(&self, name: &str) -> Result<Removed, Error> {
        let parsed = Name::parse(name)?;
        let target = self
            .inner
            .refs
            .change(|refs| refs.images.remove(&parsed.to_string()).ok_or_else(|| Error::NotFound(name.to_owned())))?;
        let used_by =
            self.uses()?.into_iter().filter(|used| used.config == target.config).map(|used| used.folder).collect();
        Ok(Removed { name: parsed.familiar(), used_by, layers_deleted: self.sweep()? })
    }

    /// Deletes layers and configurations that neither a name nor a mounted container needs, and work that was cut off.
    /// Does nothing while another image is being added (by anyone): the next sweep finds it all. Returns deleted layers.
    pub fn sweep(&self) -> Result<usize, Error> {
        let Ok(_lock) = try_lock(&self.path("lock"), FlockOperation::NonBlockingLockExclusive) else { return Ok(0) };
        let mut configs: BTreeSet<String> =
            self.inner.refs.read()?.images.into_values().map(|target| target.config).collect();
        for used in self.uses()? {
            if used.folder.exists() {
                configs.insert(used.config);
            } else {
                fs::remove_file(&used.record).map_err(|e| Error::io("cannot remove", &used.record, e))?;
            }
        }
        let mut layers = BTreeSet::new();
        for config in &configs {
            // A configuration that cannot be read keeps its file, for whoever looks into it; its layers cannot be known.
            if let Ok(config) = self.config(config) {
                layers.extend(config.rootfs().diff_ids().iter().filter_map(|id| hex_of(id).ok()));
            }
        }
        let configs = configs.iter().filter_map(|id| hex_of(id).ok()).collect();
        self.discard_all_but("configs", &configs)?;
        let deleted = self.discard_all_but("layers", &layers)?;
        self.empty_tmp()?;
        Ok(deleted)
    }

    /// Adds an image: unpacks the layers that are not here yet, checks each against the configuration, then gives it `names`.
    fn install(
        &self,
        config: &[u8],
        layers: &mut LayerSource<'_>,
        names: &[Name],
        manifest: Option<&str>,
        pulled: bool,
    ) -> Result<Image, Error> {
        let parsed = parse_config(config)?;
        let id = digest_of(config);
        let _adding = self.adding()?;
        self.install_layers(&parsed, layers)?;
        let path = self.path("configs").join(hex_of(&id)?);
        write_durably(&path, config)?;
        self.inner.refs.change(|refs| {
            for name in names {
                let target = Target { config: id.clone(), manifest: manifest.map(str::to_owned), pulled };
                refs.images.insert(name.to_string(), target);
            }
            Ok(())
        })?;
        self.load(&id)
    }

    fn install_layers(&self, config: &ImageConfiguration, layers: &mut LayerSource<'_>) -> Result<(), Error> {
        let mut unpacked = Vec::new();
        for (index, diff_id) in config.rootfs().diff_ids().iter().enumerate() {
            let place = self.layer(diff_id)?;
            if !place.exists() && !unpacked.iter().any(|(_, known): &(_, PathBuf)| *known == place) {
                unpacked.push((self.unpack_layer(diff_id, layers(index)?)?, place));
            }
        }
        if unpacked.is_empty() {
            return Ok(());
        }
        let all = self.path("layers");
        let folder = File::open(&all).map_err(|e| Error::io("cannot open", &all, e))?;
        rustix::fs::syncfs(&folder).map_err(|e| Error::io("cannot sync", &all, e))?;
        for (scratch, place) in unpacked {
            match fs::rename(scratch.path(), &place) {
                // Another process was first; both hold the same content.
                Err(_) if place.join("layer.json").exists() => {}
                Err(e) => return Err(Error::io("cannot make", &place, e)),
                Ok(()) => drop(scratch.keep()),
            }
        }
        folder.sync_all().map_err(|e| Error::io("cannot sync", &all, e))
    }

    fn unpack_layer(&self, diff_id: &str, bytes: Box<dyn Read>) -> Result<tempfile::TempDir, Error> {
        let scratch = self.scratch()?;
        let content = scratch.path().join("fs");
        make_open_folder(&content)?;
        let wrong = |problem| Error::Layer { layer: diff_id.to_owned(), problem };
        let unpacked = unpack::unpack(bytes, &content, self.inner.owners).map_err(wrong)?;
        if unpacked.diff_id != diff_id {
            return Err(wrong(format!(
                "its content has the digest {}; it was damaged on the way or is not the layer of this image",
                unpacked.diff_id
            )));
        }
        let record = LayerRecord { size_bytes: unpacked.size_bytes, opaque_root: unpacked.opaque_root };
        let text = serde_json::to_vec(&record).map_err(|e| Error::Io(e.to_string()))?;
        write_durably(&scratch.path().join("layer.json"), &text)?;
        Ok(scratch)
    }

    /// While this is held nothing is swept.
    fn adding(&self) -> Result<Lock, Error> {
        lock(&self.path("lock"), FlockOperation::LockShared)
    }

    /// A folder for work in progress; take [`Store::adding`] first, or a sweep may remove it.
    fn scratch(&self) -> Result<tempfile::TempDir, Error> {
        let tmp = self.path("tmp");
        tempfile::TempDir::with_prefix_in("work-", &tmp).map_err(|e| Error::io("cannot make a folder in", &tmp, e))
    }

    fn path(&self, part: &str) -> PathBuf {
        self.inner.root.join(part)
    }

    fn layer(&self, diff_id: &str) -> Result<PathBuf, Error> {
        Ok(self.path("layers").join(hex_of(diff_id)?))
    }

    /// What `name` stands for: a name, a name with digest, or an image id.
    fn target(&self, name: &str) -> Result<Option<Target>, Error> {
        let refs = self.inner.refs.read()?;
        if name.starts_with("sha256:") && name::is_digest(name) {
            return Ok(refs.images.into_values().find(|target| target.config == name));
        }
        Ok(refs.find(&Name::parse(name)?).cloned())
    }

    fn load(&self, id: &str) -> Result<Image, Error> {
        let config = self.config(id)?;
        let mut size_bytes = 0;
        for diff_id in config.rootfs().diff_ids() {
            size_bytes += self.layer_record(diff_id)?.size_bytes;
        }
        Ok(Image { id: id.to_owned(), size_bytes, config })
    }

    fn config(&self, id: &str) -> Result<ImageConfiguration, Error> {
        parse_config(&self.config_bytes(id)?)
    }

    fn config_bytes(&self, id: &str) -> Result<Vec<u8>, Error> {
        let path = self.path("configs").join(hex_of(id)?);
        fs::read(&path).map_err(|e| Error::io("cannot read", &path, e))
    }

    fn layer_record(&self, diff_id: &str) -> Result<LayerRecord, Error> {
        let path = self.layer(diff_id)?.join("layer.json");
        let text = fs::read(&path).map_err(|e| Error::io("cannot read", &path, e))?;
        serde_json::from_slice(&text).map_err(|e| Error::io("cannot understand", &path, io::Error::other(e)))
    }

    /// Every container folder that is mounted. A record is a symbolic link to the folder, named after the folder and the
    /// image: made by one step of the file system, it is never half written and needs no sync.
    fn uses(&self) -> Result<Vec<Use>, Error> {
        let all = self.path("uses");
        let mut uses = Vec::new();
        for name in names_in(&all)? {
            let record = all.join(&name);
            match (name.split_once('-'), fs::read_link(&record)) {
                (Some((_, hex)), Ok(folder)) => uses.push(Use { record, folder, config: format!("sha256:{hex}") }),
                (_, Err(e)) if e.kind() == io::ErrorKind::NotFound => {} // the container has just ended
                (None, _) | (_, Err(_)) => {
                    return Err(Error::Io(format!("{} is no record of kapstan's; remove it", record.display())));
                }
            }
        }
        Ok(uses)
    }

    /// Moves all but `keep` out of a folder of the store; they are deleted with the rest of `tmp`.
    fn discard_all_but(&self, part: &str, keep: &BTreeSet<String>) -> Result<usize, Error> {
        let folder = self.path(part);
        let mut discarded = 0;
        for name in names_in(&folder)? {
            if !keep.contains(&name) {
                let from = folder.join(&name);
                fs::rename(&from, self.path("tmp").join(format!("{part}-{name}")))
                    .map_err(|e| Error::io("cannot remove", &from, e))?;
                discarded += 1;
            }
        }
        Ok(discarded)
    }

    fn empty_tmp(&self) -> Result<(), Error> {
        let tmp = self.path("tmp");
        for name in names_in(&tmp)? {
            let path = tmp.join(name);
            let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed.map_err(|e| Error::io("cannot remove", &path, e))?;
        }
        Ok(())
    }
}

/// The ids that files of images can have here: all of them for real root, else only our own.
fn owners() -> Owners {
    let whole_range = |line: &str| line.split_whitespace().collect::<Vec<_>>() == ["0", "0", "4294967295"];
    let all_ids = fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| map.lines().any(whole_range));
    if rustix::process::geteuid().is_root() && all_ids { Owners::Keep } else { Owners::Mine }
}

/// A name to give to an image: a tag, no digest (that is for the content to say).
fn tagged(name: &str) -> Result<Name, Error> {
    let parsed = Name::parse(name)?;
    match parsed.digest {
        Some(_) => Err(Error::InvalidName(format!("\"{name}\" has a digest; give the image a name with a tag"))),
        None => Ok(parsed),
    }
}

fn parse_config(bytes: &[u8]) -> Result<ImageConfiguration, Error> {
    let config: ImageConfiguration = serde_json::from_slice(bytes)
        .map_err(|e| Error::Format(format!("the image's configuration is not valid: {e}")))?;
    let (os, architecture) = (config.os().to_string(), config.architecture().to_string());
    let ours = oci_spec::image::Arch::default().to_string();
    if os != "linux" || architecture != ours {
        return Err(Error::Format(format!("the image is made for {os}/{architecture}; this node is linux/{ours}")));
    }
    let layers = config.rootfs().diff_ids().len();
    if layers > MAX_LAYERS {
        return Err(Error::Format(format!("the image has {layers} layers, at most {MAX_LAYERS} are allowed")));
    }
    Ok(config)
}

/// `sha256:…` of these bytes.
fn digest_of(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

/// The part of a digest that names a file; only SHA-256 is taken, so it can be nothing but 64 hexadecimal digits.
fn hex_of(digest: &str) -> Result<String, Error> {
    match digest.strip_prefix("sha256:") {
        Some(hex) if name::is_digest(digest) => Ok(hex.to_owned()),
        _ => Err(Error::Format(format!("{digest:?} is not a SHA-256 digest"))),
    }
}

fn names_in(folder: &Path) -> Result<Vec<String>, Error> {
    let list = || -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(folder)? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        Ok(names)
    };
    list().map_err(|e| Error::io("cannot list", folder, e))
}

/// A folder that everybody may enter, whatever the umask: the root of a container must be such.
fn make_open_folder(path: &Path) -> Result<(), Error> {
    use std::os::unix::fs::PermissionsExt;
    fs::create_dir_all(path)
        .and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(0o755)))
        .map_err(|e| Error::io("cannot make", path, e))
}
