//! Opening a folder: the newest snapshot, then the log after it. A torn tail is cut off here; everything that cannot be what
//! a crash leaves is refused before any file is changed.

use crate::error::StoreError;
use crate::folder::{self, Folder, LOG, Listing, SNAPSHOT};
use crate::record::Borrowed;
use crate::segment::{self, Start};
use crate::snapshot::{self, Size};
use crate::{Record, Recovered};
use bytes::Bytes;
use std::collections::{HashMap, VecDeque};
use std::path::Path;

/// A segment that gets no more appends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Closed {
    pub number: u64,
    /// Revision of its last record.
    pub last: u64,
    pub bytes: u64,
}

/// What the store goes on with.
#[derive(Debug)]
pub(crate) struct State {
    pub segments: VecDeque<Closed>,
    pub next_segment: u64,
    pub snapshot: Option<(u64, Size)>,
}

/// Reads the folder, then tidies it.
pub(crate) fn recover(folder: &Folder, history_bytes: usize) -> Result<(State, Recovered), StoreError> {
    let listing = folder.list()?;
    let mut replay = Replay::new(history_bytes);
    let snapshot = match listing.snapshots.last() {
        Some(&revision) => Some((revision, replay.snapshot(folder, revision)?)),
        None => None,
    };
    let chain = chain(folder, &listing.logs, replay.recovered.revision)?;
    let segments = replay.segments(folder, &chain.links)?;
    replay.recovered.torn_bytes += chain.torn as u64;
    tidy(folder, &listing, &chain, segments.back())?;
    let next_segment = listing.logs.last().map_or(1, |last| last + 1);
    Ok((State { segments, next_segment, snapshot }, replay.finish()))
}

/// A segment to be read.
#[derive(Debug)]
struct Link {
    number: u64,
    base: u64,
    /// No later segment was ever written to, so this one may end in a torn frame.
    tail: bool,
}

/// The log's segments, those that matter apart from those that do not.
#[derive(Debug, Default)]
struct Chain {
    links: Vec<Link>,
    /// Covered by the snapshot, or never used.
    surplus: Vec<u64>,
    /// Bytes of first appends that were interrupted.
    torn: usize,
}

/// Finds the segments that hold revisions after `from`. Those before it may be there or not: a crash in the middle of a
/// compaction leaves any of them.
fn chain(folder: &Folder, numbers: &[u64], from: u64) -> Result<Chain, StoreError> {
    let mut chain = Chain::default();
    for &number in numbers {
        let start = segment::start(&folder.path, number)?;
        if let (true, Some(before)) = (start != Start::Blank, chain.links.last_mut()) {
            before.tail = false;
        }
        match start {
            Start::Base(base) => chain.links.push(Link { number, base, tail: true }),
            Start::Blank => chain.surplus.push(number),
            Start::Torn(bytes) => {
                chain.surplus.push(number);
                chain.torn += bytes;
            }
        }
    }
    let covered = chain.links.iter().rposition(|link| link.base <= from).unwrap_or(0);
    chain.surplus.extend(chain.links.drain(..covered).map(|link| link.number));
    match chain.links.first() {
        Some(first) if first.base > from => Err(missing(folder, from, first)),
        _ => Ok(chain),
    }
}

fn missing(folder: &Folder, after: u64, next: &Link) -> StoreError {
    let name = folder::file(Path::new(""), next.number, LOG).display().to_string();
    StoreError::Missing { dir: folder.path.as_path().into(), after, upto: next.base, next: name }
}

/// Applies what is read, in order.
#[derive(Debug)]
struct Replay {
    recovered: Recovered,
    live: HashMap<String, (u64, Bytes)>,
    history: VecDeque<(Record, Option<Bytes>)>,
    history_bytes: usize,
    limit: usize,
}

impl Replay {
    fn new(limit: usize) -> Replay {
        let (recovered, live, history) = Default::default();
        Replay { recovered, live, history, history_bytes: 0, limit }
    }

    fn snapshot(&mut self, folder: &Folder, revision: u64) -> Result<Size, StoreError> {
        self.recovered.revision = revision;
        self.recovered.compacted = revision;
        snapshot::read(&folder.path, revision, |record| {
            let value = Bytes::copy_from_slice(record.value.unwrap_or_default());
            self.live.insert(record.key.to_owned(), (record.revision, value));
        })
    }

    fn segments(&mut self, folder: &Folder, links: &[Link]) -> Result<VecDeque<Closed>, StoreError> {
        let mut segments: VecDeque<Closed> = VecDeque::new();
        for link in links {
            if let Some(before) = segments.back().filter(|before| before.last != link.base) {
                return Err(missing(folder, before.last, link));
            }
            let extent = segment::read(&folder.path, link.number, link.base, link.tail, |record| self.record(record))?;
            self.recovered.torn_bytes += extent.torn as u64;
            segments.push_back(Closed { number: link.number, last: extent.last, bytes: extent.used as u64 });
        }
        Ok(segments)
    }

    fn record(&mut self, record: Borrowed<'_>) {
        if record.revision <= self.recovered.revision {
            return; // The snapshot has it.
        }
        self.recovered.revision = record.revision;
        let record = record.to_owned();
        let previous = match &record.value {
            Some(value) => self.live.insert(record.key.clone(), (record.revision, value.clone())),
            None => self.live.remove(&record.key),
        };
        self.remember(record, previous.map(|(_, value)| value));
    }

    /// Adds to the history and forgets what is beyond its bound.
    fn remember(&mut self, record: Record, previous: Option<Bytes>) {
        self.history_bytes += Borrowed::from(&record).size();
        self.history.push_back((record, previous));
        while self.history_bytes > self.limit {
            let Some((oldest, _)) = self.history.pop_front() else { return };
            self.history_bytes -= Borrowed::from(&oldest).size();
            self.recovered.compacted = oldest.revision;
        }
    }

    fn finish(self) -> Recovered {
        let objects =
            self.live.into_iter().map(|(key, (revision, value))| Record { revision, key, value: Some(value) });
        let (history, previous) = self.history.into_iter().unzip();
        Recovered { objects: objects.collect(), history, previous, ..self.recovered }
    }
}

/// Removes what is not needed and cuts the last segment where its last sound frame ends: the next append goes to a new one.
fn tidy(folder: &Folder, listing: &Listing, chain: &Chain, last: Option<&Closed>) -> Result<(), StoreError> {
    if let Some(last) = last {
        folder::cut(&folder::file(&folder.path, last.number, LOG), last.bytes)?;
    }
    for path in &listing.unfinished {
        folder::remove(path)?;
    }
    for &number in &chain.surplus {
        folder::remove(&folder::file(&folder.path, number, LOG))?;
    }
    let older = listing.snapshots.split_last().map_or(&[][..], |(_, older)| older);
    for &revision in older {
        folder::remove(&folder::file(&folder.path, revision, SNAPSHOT))?;
    }
    folder::sync(&folder.path)
}
