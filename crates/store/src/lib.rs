//! The memory: what the server has acknowledged survives `kill -9` and power loss.
//!
//! One writer appends *batches* (a batch is one turn of the server) to a segmented log, one `fdatasync` for all batches
//! that are handed over together. All state lives in the server's memory; the disk is read only once, when the folder is
//! opened. Now and then the server writes a *snapshot* of its live objects, and the log before it is dropped.
//!
//! ```text
//! 00000000000000001200.snapshot   every live object as of revision 1200
//! 00000000000000000007.log        segments: what was written since, in order; zeros after the last frame
//! 00000000000000000008.log        the next segment, prepared ahead (zeros only)
//! lock                            held while a server has the folder open
//! ```
//!
//! How a server compacts without stopping: when [`Store::should_compact`] says so, it hands [`Store::snapshotter`] and a
//! cheap copy of its state as of *some time ago* (the state it had when it compacted last, say) to another thread, goes on
//! appending, and gives the finished [`Snapshot`] to [`Store::adopt`]. History after a restart reaches back to the snapshot's
//! revision: a snapshot of the newest state leaves watches nothing to resume from.
//!
//! The store never interprets keys or values, never reads a clock, and never repairs silently: a torn tail (the trace of a
//! write that a crash interrupted, which nobody was told about) is cut off, any other damage is refused with the file and
//! the offset. It does for kapstan what etcd's `server/storage/wal` and `server/storage/mvcc` do for Kubernetes.

mod error;
mod folder;
mod frame;
mod prepare;
mod record;
mod recovery;
mod segment;
mod snapshot;
mod store;
#[cfg(test)]
mod tests;

pub use error::StoreError;
pub use segment::Trouble;
pub use snapshot::{Snapshot, Snapshotter};
pub use store::Store;

use bytes::Bytes;

/// One write: an object's new value, or its deletion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The revision of this write; every record of the log has a higher one than the record before it.
    pub revision: u64,
    /// `<plural>[.<group>]/<namespace or empty>/<name>`; any other text is kept just as well.
    pub key: String,
    /// The object's new value; `None` when it was deleted.
    pub value: Option<Bytes>,
}

/// One turn: durable as a whole or not at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// The turn's writes, revisions strictly growing.
    pub records: Vec<Record>,
}

/// What an opened folder holds.
#[derive(Debug, Default)]
pub struct Recovered {
    /// The last revision that was written; the next one must be higher.
    pub revision: u64,
    /// Live objects in no particular order, each with the revision of its last write.
    pub objects: Vec<Record>,
    /// What was written after `compacted`, in order, so that watches resume across a restart. Bounded by
    /// [`Limits::history_bytes`].
    pub history: Vec<Record>,
    /// `previous[i]` is the value that `history[i]` replaced or deleted (`None`: it created the object): what a watch with a
    /// selector, or a DELETED event, needs.
    pub previous: Vec<Option<Bytes>>,
    /// History reaches back to revisions greater than this.
    pub compacted: u64,
    /// Bytes of an interrupted, never acknowledged write that were cut off the end of the log (0 after a clean stop).
    pub torn_bytes: u64,
}

/// Bounds of a store; the defaults suit a cluster of some thousand pods.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// A segment is prepared with this many zero bytes, ahead and in the background.
    pub segment_bytes: u64,
    /// The log may grow this far past the last snapshot before [`Store::should_compact`], however small the snapshot is.
    pub log_bytes: u64,
    /// ... or to this many times the size of the last snapshot, whichever is more.
    pub log_per_snapshot: u64,
    /// Segments past which [`Store::should_compact`] says yes, however small they are (each start begins a new one).
    pub segments: usize,
    /// Keys and values that [`Recovered::history`] may hold.
    pub history_bytes: usize,
    /// Uncompressed bytes of the batches handed to one [`Store::append`].
    pub append_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            segment_bytes: 1 << 20,
            log_bytes: 32 << 20,
            log_per_snapshot: 2,
            segments: 1024,
            history_bytes: 64 << 20,
            append_bytes: 256 << 20,
        }
    }
}

/// What a store has done since it was opened, and what it holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Bytes given to the disk: frames, zeros of prepared segments, snapshots.
    pub bytes_written: u64,
    /// `fdatasync` calls on the path of an append.
    pub fsyncs: u64,
    /// Appends that were made durable.
    pub appends: u64,
    /// Keys and values handed to `append`, uncompressed.
    pub appended_bytes: u64,
    /// Segments that hold records.
    pub segments: usize,
    /// Bytes of those segments that are in use.
    pub log_bytes: u64,
    /// Size of the newest snapshot file.
    pub snapshot_bytes: u64,
    /// Keys and values of the live objects, as of the newest snapshot.
    pub live_bytes: u64,
}
