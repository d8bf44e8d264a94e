//! The folder: created with mode 0700, locked while open, its files named by number and made with mode 0600.
//!
//! Every step that changes the file system and that a crash may separate from the next one goes through here, so that tests
//! can look at the folder between any two of them.

use crate::error::{StoreError, failed};
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

pub(crate) const LOG: &str = "log";
pub(crate) const SNAPSHOT: &str = "snapshot";
/// What a file is called until it is complete; a leftover of a crash that `open` removes.
const UNFINISHED: &str = "new";
const LOCK: &str = "lock";
/// Digits of a file's number: every u64 fits, and names sort like numbers.
const DIGITS: usize = 20;

/// An open folder; the lock is released when it is dropped, and by the kernel when the process dies.
#[derive(Debug)]
pub(crate) struct Folder {
    pub path: PathBuf,
    _lock: File,
}

/// The files of a folder, by number, ascending.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Listing {
    pub logs: Vec<u64>,
    pub snapshots: Vec<u64>,
    /// What a crash left half made.
    pub unfinished: Vec<PathBuf>,
}

impl Folder {
    /// Creates the folder if need be, and takes its lock.
    pub fn open(path: &Path) -> Result<Folder, StoreError> {
        create(path)?;
        refuse_foreign(path)?;
        let lock = lock(path)?;
        fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(failed("set the permissions of", path))?;
        sync(path)?;
        Ok(Folder { path: path.to_owned(), _lock: lock })
    }

    /// The store's files; any other file is left alone.
    pub fn list(&self) -> Result<Listing, StoreError> {
        let mut listing = Listing::default();
        for name in names(&self.path)? {
            let path = self.path.join(&name);
            if path.extension().is_some_and(|end| end == UNFINISHED) {
                listing.unfinished.push(path);
            } else if let Some(number) = number(&name, LOG) {
                listing.logs.push(number);
            } else if let Some(number) = number(&name, SNAPSHOT) {
                listing.snapshots.push(number);
            }
        }
        listing.logs.sort_unstable();
        listing.snapshots.sort_unstable();
        Ok(listing)
    }
}

/// Where the file with this number lies.
pub(crate) fn file(dir: &Path, number: u64, kind: &str) -> PathBuf {
    dir.join(format!("{number:0DIGITS$}.{kind}"))
}

/// The name of a file that is not complete yet.
pub(crate) fn unfinished(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(UNFINISHED);
    PathBuf::from(name)
}

/// A new, empty file for this user only; a leftover of the same name is replaced.
pub(crate) fn create_file(path: &Path) -> Result<File, StoreError> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(path);
    let file = file.map_err(failed("create", path))?;
    step(path);
    Ok(file)
}

/// Gives a complete, synced file its name, durably.
pub(crate) fn publish(unfinished: &Path, path: &Path) -> Result<(), StoreError> {
    fs::rename(unfinished, path).map_err(failed("rename", unfinished))?;
    step(path);
    sync(path.parent().unwrap_or(Path::new("/")))
}

/// Removes a file; one that is not there is as good as removed.
pub(crate) fn remove(path: &Path) -> Result<(), StoreError> {
    let result = match fs::remove_file(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        result => result.map_err(failed("remove", path)),
    };
    step(path);
    result
}

/// Shortens a file to what is in use.
pub(crate) fn cut(path: &Path, length: u64) -> Result<(), StoreError> {
    let shorten = || -> std::io::Result<()> {
        let file = OpenOptions::new().write(true).open(path)?;
        if file.metadata()?.len() > length {
            file.set_len(length)?;
            file.sync_all()?;
        }
        Ok(())
    };
    shorten().map_err(failed("shorten", path))?;
    step(path);
    Ok(())
}

/// Makes names in a folder durable.
pub(crate) fn sync(dir: &Path) -> Result<(), StoreError> {
    let result = File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed("sync", dir));
    step(dir);
    result
}

fn create(path: &Path) -> Result<(), StoreError> {
    if path.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed("create", path))?;
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => sync(parent),
        _ => Ok(()),
    }
}

/// A folder without a lock file becomes a store only if it is empty: a mistyped path must not be taken over.
fn refuse_foreign(dir: &Path) -> Result<(), StoreError> {
    let names = names(dir)?;
    if names.iter().any(|name| name == LOCK) {
        return Ok(());
    }
    match names.into_iter().find(|name| name != "lost+found") {
        Some(entry) => Err(StoreError::NotAStore { dir: dir.into(), entry }),
        None => Ok(()),
    }
}

fn lock(dir: &Path) -> Result<File, StoreError> {
    let path = dir.join(LOCK);
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
    let mut file = file.map_err(failed("open", &path))?;
    match file.try_lock() {
        Ok(()) => write_holder(&mut file).map_err(failed("write", &path)).map(|()| file),
        Err(TryLockError::WouldBlock) => Err(StoreError::Locked { dir: dir.into(), holder: read_holder(&mut file) }),
        Err(TryLockError::Error(error)) => Err(failed("lock", &path)(error)),
    }
}

fn write_holder(file: &mut File) -> std::io::Result<()> {
    file.set_len(0)?;
    writeln!(file, "{}", std::process::id())
}

fn read_holder(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

fn names(dir: &Path) -> Result<Vec<String>, StoreError> {
    let read = || -> std::io::Result<Vec<String>> {
        fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    };
    read().map_err(failed("list", dir))
}

fn number(name: &str, kind: &str) -> Option<u64> {
    let digits = name.strip_suffix(kind)?.strip_suffix('.')?;
    if digits.len() == DIGITS { digits.parse().ok() } else { None }
}

/// Called after every step; tests take a copy of the folder here, which is what a crash at this moment would leave.
#[cfg(not(test))]
fn step(_path: &Path) {}

#[cfg(test)]
fn step(path: &Path) {
    crate::tests::crash::step(path);
}
