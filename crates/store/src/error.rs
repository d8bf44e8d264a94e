//! What can go wrong with a folder, said so that the reader knows what happened, to what, and what to do next.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// Why the store could not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another process has the folder open.
    #[error("{dir} is in use by another kapstan server{}: stop it, or give this one a data folder of its own", holder.map(|pid| format!(" (process {pid})")).unwrap_or_default())]
    Locked {
        /// The folder.
        dir: PathBuf,
        /// The process that holds it, as it says itself.
        holder: Option<u32>,
    },
    /// The folder holds something that no store put there.
    #[error("{dir} is not a store: it holds {entry:?} and no lock file; give an empty or a new folder")]
    NotAStore {
        /// The folder.
        dir: PathBuf,
        /// The first unknown entry.
        entry: String,
    },
    /// Permissions or a read-only file system forbid writing.
    #[error("cannot {action} {path}: {source}; make the folder writable for this user, or choose another data folder")]
    NotWritable {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The disk, or this user's quota, is full.
    #[error(
        "cannot {action} {path}: {source}; nothing that was acknowledged is lost: free some space, then start again"
    )]
    Full {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Any other failure of the file system.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Bytes that were durable once have changed.
    #[error(
        "{path} is damaged at byte {offset}: {what}. Nothing was changed. Check the disk, then restore the folder from a backup"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where the damaged part begins.
        offset: u64,
        /// What is wrong with it.
        what: String,
    },
    /// A file between two others is gone.
    #[error(
        "{dir} misses a file: revisions after {after} up to {upto} are not there ({next} begins at {upto}). Nothing was changed. Put the file back, or restore the folder from a backup"
    )]
    Missing {
        /// The folder.
        dir: PathBuf,
        /// The last revision that is there.
        after: u64,
        /// The revision after which the next file begins.
        upto: u64,
        /// The next file.
        next: String,
    },
    /// Written by another version of kapstan.
    #[error("{path} has format {found}, this kapstan knows format {known}: use the version of kapstan that wrote it")]
    Format {
        /// The file.
        path: PathBuf,
        /// The version in its header.
        found: u32,
        /// The version this build reads and writes.
        known: u32,
    },
    /// More bytes in one append than [`crate::Limits::append_bytes`] allows. Nothing was written; the store goes on.
    #[error("{bytes} bytes in one append, at most {limit} are allowed: hand over fewer batches at once")]
    TooLarge {
        /// Keys and values handed over.
        bytes: usize,
        /// The bound.
        limit: usize,
    },
    /// A revision that does not grow. Nothing was written; the store goes on.
    #[error("revision {revision} of {key} is not greater than {last}, the last one written")]
    Revision {
        /// The refused revision.
        revision: u64,
        /// The record's key.
        key: String,
        /// The last revision before it.
        last: u64,
    },
    /// A snapshot that is older than the newest one, or newer than the log. The store goes on.
    #[error(
        "a snapshot at revision {revision} does not lie between {oldest}, the last snapshot, and {last}, the last durable revision"
    )]
    Snapshot {
        /// The refused revision.
        revision: u64,
        /// The newest snapshot's.
        oldest: u64,
        /// The log's.
        last: u64,
    },
    /// An earlier write failed, so it is unknown what of it is on the disk. Open the folder again to find out.
    #[error("the store takes no more writes, because an earlier one failed ({because}); start again")]
    Poisoned {
        /// The earlier failure.
        because: String,
    },
}

/// Turns a failed system call into the error that says what to do next.
pub(crate) fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| match source.kind() {
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => StoreError::NotWritable { action, path, source },
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => StoreError::Full { action, path, source },
        _ => StoreError::Io { action, path, source },
    }
}

/// Bytes that were durable once and are wrong now.
pub(crate) fn damaged(path: &Path, offset: usize, what: impl Into<String>) -> StoreError {
    StoreError::Damaged { path: path.into(), offset: offset as u64, what: what.into() }
}
