//! Which name stands for which image: one small file, replaced as a whole.
//!
//! Readers take no lock (the file changes by rename); writers hold `refs.lock`. It never touches layers.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Write},
    path::{Path, PathBuf},
};

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};

use super::{Error, Name};

/// Version of the file's form; another one is refused.
const VERSION: u32 = 1;
/// Most names a node keeps.
const MAX_NAMES: usize = 20_000;

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// `sha256:…` of the image's configuration: the image's id.
    pub config: String,
    /// Digest of the manifest (or index) it came with, if it came with one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub manifest: Option<String>,
    /// It came from a registry, so the registry is asked again under `imagePullPolicy: Always`.
    #[serde(default)]
    pub pulled: bool,
}

/// All names of a node.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Refs {
    version: u32,
    /// By complete name, `docker.io/library/nginx:1.7.9`.
    pub images: BTreeMap<String, Target>,
}

impl Refs {
    /// What is known under `name`; a digest is looked for among all images of the same repository.
    pub fn find(&self, name: &Name) -> Option<&Target> {
        let Some(digest) = &name.digest else {
            return self.images.get(&name.to_string());
        };
        let same_family =
            |known: &str| known.strip_prefix(&name.family()).is_some_and(|rest| rest.starts_with([':', '@']));
        self.images
            .iter()
            .find(|(known, target)| target.manifest.as_ref() == Some(digest) && same_family(known))
            .map(|(_, target)| target)
    }
}

/// The file.
#[derive(Clone, Debug)]
pub struct RefsFile {
    path: PathBuf,
    lock: PathBuf,
}

impl RefsFile {
    /// The file in the folder `root`; it need not be there yet.
    pub fn new(root: &Path) -> RefsFile {
        RefsFile { path: root.join("refs.json"), lock: root.join("refs.lock") }
    }

    /// All names as of now.
    pub fn read(&self) -> Result<Refs, Error> {
        let text = match std::fs::read(&self.path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Refs { version: VERSION, ..Refs::default() }),
            Err(e) => return Err(Error::io("cannot read", &self.path, e)),
        };
        let refs: Refs = serde_json::from_slice(&text).map_err(|e| {
            Error::Io(format!("{} is damaged ({e}); remove it and import the images again", self.path.display()))
        })?;
        if refs.version != VERSION {
            return Err(Error::Io(format!(
                "{} has version {}, this kapstan knows {VERSION}",
                self.path.display(),
                refs.version
            )));
        }
        Ok(refs)
    }

    /// Changes the names; what `change` returns decides whether anything is written at all.
    pub fn change<T>(&self, change: impl FnOnce(&mut Refs) -> Result<T, Error>) -> Result<T, Error> {
        let _lock = lock(&self.lock, FlockOperation::LockExclusive)?;
        let mut refs = self.read()?;
        let before = refs.images.clone();
        let result = change(&mut refs)?;
        if refs.images.len() > MAX_NAMES {
            return Err(Error::Io(format!(
                "a node keeps at most {MAX_NAMES} image names; remove some with `kapstan image rm`"
            )));
        }
        if refs.images != before {
            let text = serde_json::to_vec_pretty(&refs).map_err(|e| Error::Io(e.to_string()))?;
            write_durably(&self.path, &text)?;
        }
        Ok(result)
    }
}

/// Holds a lock file until dropped; other processes and threads see it.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

pub(super) fn lock(path: &Path, operation: FlockOperation) -> Result<Lock, Error> {
    try_lock(path, operation).map_err(|e| Error::io("cannot lock", path, e))
}

pub(super) fn try_lock(path: &Path, operation: FlockOperation) -> io::Result<Lock> {
    let file = File::options().create(true).truncate(false).write(true).open(path)?;
    loop {
        match rustix::fs::flock(&file, operation) {
            Err(rustix::io::Errno::INTR) => {}
            other => break other?,
        }
    }
    Ok(Lock { _file: file })
}

/// Replaces a file so that after a crash it is either the old or the new one.
pub(super) fn write_durably(path: &Path, content: &[u8]) -> Result<(), Error> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let write = || -> io::Result<()> {
        let mut file = tempfile::NamedTempFile::with_prefix_in(".new-", folder)?;
        file.write_all(content)?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        File::open(folder)?.sync_all()
    };
    write().map_err(|e| Error::io("cannot write", path, e))
}
