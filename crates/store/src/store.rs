//! The open store: appends, compaction, figures. One owner, one writer; recovery lies in `recovery.rs`, formats in
//! `segment.rs`, `frame.rs` and `record.rs`.

use crate::error::StoreError;
use crate::folder::{self, Folder, LOG, SNAPSHOT};
use crate::prepare::Preparer;
use crate::record::{self, Borrowed};
use crate::recovery::{self, Closed, State};
use crate::segment::{Trouble, Writer};
use crate::snapshot::{Size, Snapshot, Snapshotter};
use crate::{Batch, Limits, Recovered, Stats};
use std::collections::VecDeque;
use std::ops::Range;
use std::path::Path;

/// Buffers that one huge append has blown up are given back down to this.
const KEPT_BUFFER: usize = 4 << 20;

/// An open folder. Dropping it releases the lock; nothing needs to be flushed.
#[derive(Debug)]
pub struct Store {
    // Dropped first, so that no segment is made after the lock is gone.
    preparer: Preparer,
    folder: Folder,
    limits: Limits,
    closed: VecDeque<Closed>,
    current: Option<Writer>,
    next_segment: u64,
    revision: u64,
    snapshot: Option<(u64, Size)>,
    /// Bytes of frames since the last snapshot was adopted.
    grown: u64,
    poisoned: Option<String>,
    /// What the next append meets.
    trouble: Option<Trouble>,
    counted: Stats,
    raw: Vec<u8>,
    frame: Vec<u8>,
}

impl Store {
    /// Opens the folder, creating it if it is not there, and reads it. The folder is the store's alone.
    pub fn open(dir: &Path, limits: Limits) -> Result<(Store, Recovered), StoreError> {
        let folder = Folder::open(dir)?;
        let (state, recovered) = recovery::recover(&folder, limits.history_bytes)?;
        let State { segments, next_segment, snapshot } = state;
        let store = Store {
            preparer: Preparer::start(&folder.path, limits.segment_bytes, next_segment)?,
            folder,
            limits,
            grown: segments.iter().map(|segment| segment.bytes).sum(),
            closed: segments,
            current: None,
            next_segment,
            revision: recovered.revision,
            snapshot,
            poisoned: None,
            trouble: None,
            counted: Stats::default(),
            raw: Vec::new(),
            frame: Vec::new(),
        };
        Ok((store, recovered))
    }

    /// Makes the batches durable, all together with one `fdatasync`, and returns when they are. After a failed write or sync
    /// the store is poisoned: it is unknown what the disk holds, so it takes nothing more until it is opened again. An error
    /// before anything was written (`TooLarge`, `Revision`, or no room for a new segment) leaves it usable.
    pub fn append(&mut self, batches: &[Batch]) -> Result<(), StoreError> {
        self.refuse_poisoned()?;
        let last = self.encode(batches)?;
        if self.raw.is_empty() {
            return Ok(());
        }
        self.make_room()?;
        let writer = self.current.as_mut().expect("make_room leaves a segment with room");
        let before = writer.position;
        writer.trouble = self.trouble.take();
        if let Err(error) = writer.append(self.revision, last, &self.raw, &mut self.frame) {
            self.poisoned = Some(error.to_string());
            return Err(error);
        }
        let written = (writer.position - before) as u64;
        self.count_append(written);
        self.revision = last;
        Ok(())
    }

    /// Lets the next append fail as a disk would make it fail, and everything after that be as it is after such a failure:
    /// what a disk does is hard to bring about. Only the simulator and tests call this.
    pub fn meet(&mut self, trouble: Trouble) {
        self.trouble = Some(trouble);
    }

    /// Whether a failed write has made the store refuse appends.
    pub fn is_poisoned(&self) -> bool {
        self.poisoned.is_some()
    }

    /// Whether the log has outgrown the live data, so that a snapshot is due.
    pub fn should_compact(&self) -> bool {
        let snapshot = self.snapshot.map_or(0, |(_, size)| size.file);
        let bound = self.limits.log_bytes.max(self.limits.log_per_snapshot * snapshot);
        self.grown > bound || self.closed.len() > self.limits.segments
    }

    /// A handle that writes a snapshot while appends go on; give its result to [`Store::adopt`].
    pub fn snapshotter(&self) -> Snapshotter {
        Snapshotter { dir: self.folder.path.clone() }
    }

    /// Puts a snapshot in place of the log before it. A crash between any two steps leaves a folder that opens: until the
    /// rename the old files count, after it the new one, and what it covers may be there or not.
    pub fn adopt(&mut self, snapshot: Snapshot) -> Result<(), StoreError> {
        self.refuse_poisoned()?;
        let (revision, size) = (snapshot.revision, snapshot.size);
        let oldest = self.snapshot.map_or(0, |(revision, _)| revision);
        if revision < oldest || revision > self.revision {
            return Err(StoreError::Snapshot { revision, oldest, last: self.revision });
        }
        snapshot.publish(&self.folder.path)?;
        let replaced = self.snapshot.replace((revision, size));
        self.counted.bytes_written += size.file;
        self.grown = 0;
        if let Some((older, _)) = replaced.filter(|(older, _)| *older != revision) {
            folder::remove(&folder::file(&self.folder.path, older, SNAPSHOT))?;
        }
        self.drop_segments(revision)
    }

    /// Writes a snapshot at `revision` and drops the log before it, on this thread. `live` gives every object that is live at
    /// `revision`: key, revision of its last write, value. History after a restart reaches back to `revision`, so a server
    /// that wants its watches to resume compacts at a revision some time ago.
    pub fn compact<'a>(
        &mut self,
        revision: u64,
        live: impl Iterator<Item = (&'a str, u64, &'a [u8])>,
    ) -> Result<(), StoreError> {
        let snapshot = self.snapshotter().write(revision, live)?;
        self.adopt(snapshot)
    }

    /// The last durable revision.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The file and the bytes of the newest append since the folder was opened: what a crash in its midst leaves torn.
    pub fn newest_append(&self) -> Option<(&Path, Range<usize>)> {
        let writer = self.current.as_ref()?;
        Some((&writer.path, writer.newest..writer.position))
    }

    /// What was done since the folder was opened, and what it holds.
    pub fn stats(&self) -> Stats {
        let current = self.current.as_ref().map_or(0, |writer| writer.position as u64);
        Stats {
            segments: self.closed.len() + usize::from(current > 0),
            log_bytes: self.closed.iter().map(|segment| segment.bytes).sum::<u64>() + current,
            snapshot_bytes: self.snapshot.map_or(0, |(_, size)| size.file),
            live_bytes: self.snapshot.map_or(0, |(_, size)| size.live),
            ..self.counted
        }
    }

    fn refuse_poisoned(&self) -> Result<(), StoreError> {
        match &self.poisoned {
            Some(because) => Err(StoreError::Poisoned { because: because.clone() }),
            None => Ok(()),
        }
    }

    /// Encodes the batches to `self.raw`, and says the revision of the last record.
    fn encode(&mut self, batches: &[Batch]) -> Result<u64, StoreError> {
        self.raw.clear();
        let mut last = self.revision;
        let records = || batches.iter().flat_map(|batch| &batch.records);
        let bytes: usize = records().map(|record| Borrowed::from(record).size()).sum();
        if bytes > self.limits.append_bytes {
            return Err(StoreError::TooLarge { bytes, limit: self.limits.append_bytes });
        }
        // Known beforehand: growing by doubling would hold twice as much.
        self.raw.reserve_exact(bytes + records().count() * record::OVERHEAD);
        for record in records() {
            if record.revision <= last {
                return Err(StoreError::Revision { revision: record.revision, key: record.key.clone(), last });
            }
            last = record.revision;
            record::encode(record.into(), &mut self.raw);
        }
        Ok(last)
    }

    /// Leaves a segment in `current` that is not full.
    fn make_room(&mut self) -> Result<(), StoreError> {
        if self.current.as_ref().is_some_and(|writer| !writer.is_full()) {
            return Ok(());
        }
        let fresh = self.preparer.take(self.next_segment)?;
        self.next_segment += 1;
        self.counted.bytes_written += self.limits.segment_bytes;
        if let Some(full) = self.current.replace(fresh) {
            self.closed.push_back(Closed { number: full.number, last: self.revision, bytes: full.position as u64 });
        }
        Ok(())
    }

    fn count_append(&mut self, written: u64) {
        self.grown += written;
        self.counted.bytes_written += written;
        self.counted.appended_bytes += self.raw.len() as u64;
        self.counted.appends += 1;
        self.counted.fsyncs += 1;
        self.raw.clear();
        self.raw.shrink_to(KEPT_BUFFER);
        self.frame.clear();
        self.frame.shrink_to(KEPT_BUFFER);
    }

    /// Removes closed segments that hold nothing after `revision`, oldest first.
    fn drop_segments(&mut self, revision: u64) -> Result<(), StoreError> {
        while let Some(oldest) = self.closed.front().filter(|segment| segment.last <= revision) {
            folder::remove(&folder::file(&self.folder.path, oldest.number, LOG))?;
            self.closed.pop_front();
        }
        Ok(())
    }
}
