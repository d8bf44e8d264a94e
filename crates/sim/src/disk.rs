//! The disk of a simulated cluster: the real store, in a folder that lies in memory.
//!
//! Turns that commit are appended as they are by the server, those that wait together, and a server that starts gets what
//! the store gives back. Beside it stands all that was acknowledged, record by record. I15: a folder that is opened holds
//! exactly that, says that it cut off what a crash left torn, and serves nothing of it; a store that failed takes no more,
//! and what it failed to take is there as a whole or not at all. I19: a copy of the folder in which one bit of an
//! acknowledged append is another is refused.
//!
//! The disk draws from a generator of its own, so that what a crash does to the files changes nobody's story.

use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use api::{Kind, Object, Snapshot};
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use server::commit::{Turn, write_snapshot};
use server::recovered::Recovered;
use store::{Batch, Limits, Record, Store, StoreError};
use tempfile::TempDir;

use crate::invariants::Breach;

/// Small, so that segments fill and the log is compacted within a run of some hundred turns.
const LIMITS: Limits = Limits {
    segment_bytes: 4 << 10,
    log_bytes: 32 << 10,
    log_per_snapshot: 1,
    segments: 12,
    history_bytes: 32 << 10,
    append_bytes: 256 << 20,
};
/// What is in memory on most machines.
const MEMORY: &str = "/dev/shm";
/// A disk writes so many bytes at once.
const SECTOR: usize = 512;
/// The first append of a segment begins with the segment's header.
const HEADER: usize = 64;
/// Names of the invariants.
const DURABLE: &str = "I15 durable";
const DAMAGE: &str = "I19 damage";

/// What is wrong with a disk of the zoo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Records of a torn append are taken for written.
    ServesTorn,
    /// A turn is appended when the next one is acknowledged.
    AppendsLate,
    /// A store that failed is taken for one that did not.
    IgnoresFailure,
}

/// What became of turns that were to be committed.
pub enum Stored {
    /// They are durable.
    Acknowledged,
    /// They are, and then the store failed: the server ends once it has answered.
    ThenFailed,
    /// The store failed, and the server ends: nobody is answered.
    Unanswered {
        /// They will be there when the store is opened again.
        durable: bool,
    },
}

/// What the disk refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    /// An append: it is full, or a sync fails.
    Append(store::Trouble),
    /// A segment: it is full.
    Segment,
    /// A snapshot: it is full.
    Snapshot,
}

/// One append: its file and its bytes.
struct Append {
    path: PathBuf,
    bytes: Range<usize>,
}

/// What a crash left of an append.
struct Torn {
    records: Vec<Record>,
    /// Anything at all.
    something: bool,
    /// More than of the segment's header.
    beyond_header: bool,
}

/// A folder with a store in it, opened while the server is up.
pub struct Disk {
    /// Removed when it is dropped, also by a seed that fails.
    folder: TempDir,
    store: Option<Store>,
    /// Written beside the appends, not in place yet.
    snapshot: Option<store::Snapshot>,
    /// Everything that was acknowledged, in order.
    acknowledged: Vec<Record>,
    appends: Vec<Append>,
    torn: Option<Torn>,
    fault: Option<Fault>,
    late: Option<Vec<Batch>>,
    /// What is to be refused next.
    trouble: Option<Trouble>,
    random: StdRng,
}

impl Disk {
    /// An empty folder; the seed says what will happen to it.
    pub fn new(seed: u64, fault: Option<Fault>) -> Disk {
        let name = tempfile::Builder::new().prefix("kapstan-sim-").to_owned();
        let folder = if Path::new(MEMORY).is_dir() { name.tempdir_in(MEMORY) } else { name.tempdir() };
        Disk {
            folder: folder.expect("a folder for a simulated disk can be made"),
            store: None,
            snapshot: None,
            acknowledged: Vec::new(),
            appends: Vec::new(),
            torn: None,
            fault,
            late: None,
            trouble: None,
            random: StdRng::seed_from_u64(seed ^ 0xD15C_0000_0000_0000),
        }
    }

    /// Makes turns durable together, and now and then compacts the log, as `server::commit` does. With `trouble` the disk
    /// refuses something soon.
    pub fn commit(&mut self, turns: &[&Turn], trouble: bool) -> Result<Stored, Breach> {
        let batches = batches(turns);
        let (false, Some(last)) = (batches.is_empty(), turns.last()) else { return Ok(Stored::Acknowledged) };
        if trouble && self.trouble.is_none() {
            self.bring_trouble();
        }
        if self.fault == Some(Fault::IgnoresFailure) && self.store().is_poisoned() {
            return Ok(self.acknowledge(&batches));
        }
        let late = self.fault == Some(Fault::AppendsLate);
        let due = if late { self.late.replace(batches.clone()).unwrap_or_default() } else { batches.clone() };
        if let Err(error) = self.append(&due) {
            return self.failed(&batches, &error);
        }
        self.acknowledge(&batches);
        match self.compact(&last.world) {
            Ok(()) => Ok(Stored::Acknowledged),
            Err(StoreError::Full { .. }) if self.trouble == Some(Trouble::Snapshot) => {
                self.close();
                Ok(Stored::ThenFailed)
            }
            Err(error) => Err(Breach::new(DURABLE, error.to_string())),
        }
    }

    fn store(&mut self) -> &mut Store {
        self.store.as_mut().expect("a server that commits has opened its store")
    }

    fn acknowledge(&mut self, batches: &[Batch]) -> Stored {
        self.acknowledged.extend(batches.iter().flat_map(|batch| &batch.records).cloned());
        Stored::Acknowledged
    }

    fn append(&mut self, batches: &[Batch]) -> Result<(), StoreError> {
        let store = self.store();
        if batches.is_empty() {
            return Ok(());
        }
        store.append(batches)?;
        let (path, bytes) = store.newest_append().expect("there was one just now");
        let append = Append { path: path.to_owned(), bytes };
        self.appends.push(append);
        Ok(())
    }

    /// A snapshot that was written is put in place some turns later: appends go on meanwhile.
    fn compact(&mut self, world: &Snapshot) -> Result<(), StoreError> {
        if let Some(written) = self.snapshot.take_if(|_| self.random.random_ratio(1, 4)) {
            self.store().adopt(written)?;
        }
        if self.snapshot.is_none() && self.late.is_none() && self.store().should_compact() {
            if self.trouble == Some(Trouble::Snapshot) {
                self.fill(&format!("{:020}.snapshot", world.revision()));
            }
            self.snapshot = Some(write_snapshot(&self.store().snapshotter(), world)?);
        }
        Ok(())
    }

    /// The disk will refuse an append, the segment after the next one, or a snapshot.
    fn bring_trouble(&mut self) {
        let trouble = match self.random.random_range(0..4) {
            0 => Trouble::Append(store::Trouble::SyncFails),
            1 => Trouble::Append(store::Trouble::Full { bytes: self.random.random_range(0..2_000) }),
            2 => Trouble::Segment,
            _ => Trouble::Snapshot,
        };
        self.trouble = Some(trouble);
        match trouble {
            Trouble::Append(trouble) => self.store().meet(trouble),
            // The next one is being made already.
            Trouble::Segment => match self.store().newest_append().and_then(|(path, _)| number(path)) {
                Some(number) => self.fill(&format!("{:020}.log", number + 2)),
                None => self.trouble = None,
            },
            Trouble::Snapshot => {}
        }
    }

    /// Whoever makes a file of this name finds that the disk is full.
    fn fill(&self, name: &str) {
        symlink("/dev/full", self.store_folder().join(format!("{name}.new"))).expect("a simulated disk can be written");
    }

    /// I15: a store that failed takes no more. What it was to take is there as a whole when it is opened again, or not at
    /// all, and who ends the server may take the power as well.
    fn failed(&mut self, batches: &[Batch], error: &StoreError) -> Result<Stored, Breach> {
        let breach = |message: String| Err(Breach::new(DURABLE, message));
        match (self.trouble, error) {
            (Some(Trouble::Append(store::Trouble::SyncFails)), StoreError::Io { .. })
            | (Some(Trouble::Append(store::Trouble::Full { .. }) | Trouble::Segment), StoreError::Full { .. }) => {}
            _ => return breach(error.to_string()),
        }
        if self.fault == Some(Fault::IgnoresFailure) {
            return Ok(self.acknowledge(batches));
        }
        if self.trouble != Some(Trouble::Segment) {
            let more = Record { revision: u64::MAX, key: "more".into(), value: None };
            if !matches!(self.store().append(&[Batch { records: vec![more] }]), Err(StoreError::Poisoned { .. })) {
                return breach(format!("the store takes more, though it failed ({error})"));
            }
        }
        let place = self.store().newest_append().map(|(path, bytes)| (path.to_owned(), bytes.end));
        self.close();
        let records: Vec<Record> = batches.iter().flat_map(|batch| batch.records.clone()).collect();
        let append = place.and_then(|(path, start)| {
            let end = read(&path).iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            (end > start).then_some(Append { path, bytes: start..end })
        });
        let Some(append) = append else { return Ok(Stored::Unanswered { durable: false }) };
        if self.random.random_bool(0.5) {
            self.torn = Some(self.tear(&append, records));
            return Ok(Stored::Unanswered { durable: false });
        }
        let last = records.last().map_or(0, |record| record.revision);
        let (opened, _) = self.open_damaged(&append.path, |_| {})?;
        let durable = opened.map_err(|error| Breach::new(DURABLE, error.to_string()))?.revision == last;
        if durable {
            self.appends.push(append);
            self.acknowledge(batches);
        } else {
            self.torn = Some(left(&append, records));
        }
        Ok(Stored::Unanswered { durable })
    }

    /// The process is gone, in the midst of the append of some of the turns that are lost perhaps.
    pub fn crash(&mut self, lost: &[&Turn]) -> Result<(), Breach> {
        self.late = None;
        let Some(fails) = self.store.as_ref().map(Store::is_poisoned) else { return Ok(()) };
        let mut under_way = batches(lost);
        if !under_way.is_empty() {
            under_way.truncate(self.random.random_range(1..=lost.len()));
        }
        if !self.random.random_ratio(2, 3) || fails {
            under_way.clear();
        }
        match self.append(&under_way) {
            // The disk was full before anything was written.
            Err(StoreError::Full { .. }) if self.trouble == Some(Trouble::Segment) => under_way.clear(),
            other => other.map_err(|error| Breach::new(DURABLE, error.to_string()))?,
        }
        self.close();
        if let Some(append) = self.appends.pop_if(|_| !under_way.is_empty()) {
            self.garble(&append)?;
            let records = under_way.into_iter().flat_map(|batch| batch.records).collect();
            self.torn = Some(self.tear(&append, records));
        }
        Ok(())
    }

    /// Who is killed tidies nothing: an unfinished snapshot stays. The disk has room again then.
    fn close(&mut self) {
        self.snapshot.take().into_iter().for_each(std::mem::forget);
        self.store = None;
        if self.trouble.take() == Some(Trouble::Segment) {
            for entry in fs::read_dir(self.store_folder()).expect("a simulated disk can be read") {
                let path = entry.expect("a simulated disk can be read").path();
                if path.is_symlink() {
                    fs::remove_file(path).expect("a simulated disk can be written");
                }
            }
        }
    }

    /// Leaves of an append what an interrupted write may leave: its beginning, in a file that is short or goes on with
    /// zeros, or some of its sectors. At least one byte that is not zero is missing.
    fn tear(&mut self, append: &Append, records: Vec<Record>) -> Torn {
        let mut file = read(&append.path);
        let Range { start, end } = written(&file, &append.bytes);
        let at = self.random.random_range(start..end);
        match self.random.random_range(0..3) {
            0 => file.truncate(at),
            1 => file[at..end].fill(0),
            _ => {
                for sector in start / SECTOR..end.div_ceil(SECTOR) {
                    if sector == at / SECTOR || self.random.random_bool(0.5) {
                        file[start.max(sector * SECTOR)..end.min((sector + 1) * SECTOR)].fill(0);
                    }
                }
            }
        }
        write(&append.path, &file);
        left(append, records)
    }

    /// I19: bytes of an append that no interrupted write leaves are refused, or nothing of it is served.
    fn garble(&mut self, append: &Append) -> Result<(), Breach> {
        if !self.random.random_ratio(1, 4) {
            return Ok(());
        }
        let file = read(&append.path);
        let range = written(&file, &append.bytes);
        let at = self.random.random_range(range.clone());
        let mut noise: Vec<u8> = (at..range.end).map(|_| self.random.random()).collect();
        // Few bytes may by chance be what was there.
        if noise == file[at..range.end] {
            noise[0] ^= 1;
        }
        let (opened, _) = self.open_damaged(&append.path, |file| file[at..range.end].copy_from_slice(&noise))?;
        match opened {
            Ok(recovered) => self.compare(&recovered).map_err(|message| Breach::new(DAMAGE, message)),
            Err(_) => Ok(()),
        }
    }

    /// I19: one bit of an acknowledged append, not of the last one, is another.
    fn flip(&mut self) -> Result<(), Breach> {
        let before = self.appends.len().saturating_sub(1);
        let there: Vec<&Append> = self.appends[..before].iter().filter(|append| append.path.exists()).collect();
        if there.is_empty() || !self.random.random_ratio(1, 4) {
            return Ok(());
        }
        let append = there[self.random.random_range(0..there.len())];
        let (path, range) = (append.path.clone(), written(&read(&append.path), &append.bytes));
        let at = self.random.random_range(range.start.max(HEADER)..range.end);
        let bit = self.random.random_range(0..8);
        let (opened, still_there) = self.open_damaged(&path, |file| file[at] ^= 1 << bit)?;
        match opened {
            Err(_) => Ok(()),
            // What a snapshot covers is removed unread.
            Ok(recovered) if !still_there => self.compare(&recovered).map_err(|message| Breach::new(DAMAGE, message)),
            Ok(_) => Err(Breach::new(DAMAGE, format!("bit {bit} of byte {at} is another, and nobody noticed"))),
        }
    }

    /// What comes of opening a copy of the folder in which a file was damaged, and whether the file is still there then.
    fn open_damaged(
        &self,
        path: &Path,
        damage: impl FnOnce(&mut [u8]),
    ) -> Result<(Result<store::Recovered, StoreError>, bool), Breach> {
        let copy = self.folder.path().join("copy");
        fs::create_dir(&copy).expect("a simulated disk can be copied");
        for entry in fs::read_dir(self.store_folder()).expect("a simulated disk can be read") {
            let entry = entry.expect("a simulated disk can be read");
            fs::copy(entry.path(), copy.join(entry.file_name())).expect("a simulated disk can be copied");
        }
        let damaged = copy.join(path.file_name().unwrap_or_default());
        let mut file = read(&damaged);
        damage(&mut file);
        write(&damaged, &file);
        let opened = Store::open(&copy, LIMITS).map(|(_, recovered)| recovered);
        let still_there = damaged.exists();
        fs::remove_dir_all(&copy).expect("a simulated disk can be removed");
        match opened {
            Err(error) if !matches!(error, StoreError::Damaged { .. }) => {
                Err(Breach::new(DAMAGE, format!("damage is refused as another thing: {error}")))
            }
            opened => Ok((opened, still_there)),
        }
    }

    /// Opens the store as a server does that starts, and asks whether it holds what it has to: I15. Objects up to the
    /// revision `read_back` are what came of their bytes the last time.
    pub fn open(&mut self, durable: &Snapshot, read_back: u64) -> Result<Snapshot, Breach> {
        self.flip()?;
        let (store, mut stored) = Store::open(&self.store_folder(), LIMITS)
            .map_err(|error| Breach::new(DURABLE, format!("the store does not open: {error}")))?;
        self.store = Some(store);
        let torn = self.torn.take();
        if let (Some(torn), Some(Fault::ServesTorn)) = (&torn, self.fault) {
            serve(torn, &mut stored);
        }
        self.compare(&stored).and_then(|()| told(torn.as_ref(), &stored)).map_err(|it| Breach::new(DURABLE, it))?;
        let read = Recovered::read(&stored).map_err(|error| Breach::new(DURABLE, error.to_string()))?;
        same(&read, durable, read_back).map_err(|message| Breach::new(DURABLE, message))?;
        Ok(read.world)
    }

    /// What the store gives back is exactly what was acknowledged: what is live, and the history up to the end of it.
    fn compare(&self, stored: &store::Recovered) -> Result<(), String> {
        let mut live: BTreeMap<&str, &Record> = BTreeMap::new();
        let mut history: Vec<(&Record, Option<&Bytes>)> = Vec::new();
        for record in &self.acknowledged {
            let previous = match &record.value {
                Some(_) => live.insert(&record.key, record),
                None => live.remove(record.key.as_str()),
            };
            if record.revision > stored.compacted {
                history.push((record, previous.and_then(|it| it.value.as_ref())));
            }
        }
        let last = self.acknowledged.last().map_or(0, |record| record.revision);
        if stored.revision != last {
            return Err(format!("the store ends at revision {}, and {last} was acknowledged", stored.revision));
        }
        let found: BTreeMap<&str, &Record> = stored.objects.iter().map(|it| (it.key.as_str(), it)).collect();
        if let Some(key) = live.keys().chain(found.keys()).find(|key| live.get(*key) != found.get(*key)) {
            return Err(format!("{key} is not as it was acknowledged"));
        }
        let found = stored.history.iter().zip(stored.previous.iter().map(Option::as_ref));
        if stored.objects.len() != live.len() || !history.into_iter().eq(found) {
            return Err(format!("the history after revision {} is another one", stored.compacted));
        }
        Ok(())
    }

    fn store_folder(&self) -> PathBuf {
        self.folder.path().join("store")
    }
}

/// What is durable of turns.
fn batches(turns: &[&Turn]) -> Vec<Batch> {
    turns.iter().map(|turn| turn.batch()).filter(|batch| !batch.records.is_empty()).collect()
}

/// The number in a file's name.
fn number(path: &Path) -> Option<u64> {
    path.file_stem()?.to_str()?.parse().ok()
}

/// What is left of an append.
fn left(append: &Append, records: Vec<Record>) -> Torn {
    let file = read(&append.path);
    let left = |from: usize| file.get(from..).is_some_and(|rest| rest.iter().any(|byte| *byte != 0));
    let start = append.bytes.start;
    Torn { records, something: left(start), beyond_header: left(start.max(HEADER)) }
}

/// What was cut off is told, and nothing is told where nothing was.
fn told(torn: Option<&Torn>, stored: &store::Recovered) -> Result<(), String> {
    let told = stored.torn_bytes > 0;
    if !told && torn.is_some_and(|torn| torn.beyond_header) {
        return Err("what was left of a torn append is not told".into());
    }
    if told && !torn.is_some_and(|torn| torn.something) {
        return Err(format!("{} bytes are told to be torn, and nothing was left", stored.torn_bytes));
    }
    Ok(())
}

/// A bug: what is left of an append is believed.
fn serve(torn: &Torn, stored: &mut store::Recovered) {
    for record in torn.records.iter().filter(|_| torn.beyond_header).take(1) {
        stored.objects.retain(|object| object.key != record.key);
        stored.objects.extend(record.value.is_some().then(|| record.clone()));
        stored.revision = record.revision;
    }
}

/// The server reads of its store what was durable: every object says all that it was, and the history goes on to the end.
fn same(read: &Recovered, durable: &Snapshot, read_back: u64) -> Result<(), String> {
    let all = |world: &Snapshot| -> Vec<_> {
        Kind::ALL.iter().flat_map(|kind| world.objects(*kind, None)).cloned().collect()
    };
    let (found, wanted) = (all(&read.world), all(durable));
    let equal = |found: &Object, wanted: &Object| {
        found.revision == wanted.revision
            && found.json == wanted.json
            && (wanted.revision <= read_back || found.body == wanted.body)
    };
    if let Some((_, wanted)) = found.iter().zip(&wanted).find(|(found, wanted)| !equal(found, wanted)) {
        return Err(format!("{} is another one when read back", wanted.key()));
    }
    if found.len() != wanted.len() || read.world.revision() != durable.revision() {
        return Err("what is read back is not all, or more".into());
    }
    let revisions: Vec<u64> = read.history.iter().map(|change| change.revision).collect();
    let within = |revision: &u64| (read.compacted + 1..=durable.revision()).contains(revision);
    if !revisions.is_sorted_by(|one, next| one < next) || !revisions.iter().all(within) {
        return Err("the history that watches resume from is out of order".into());
    }
    Ok(())
}

/// The part of an append up to its last byte that is not zero.
fn written(file: &[u8], append: &Range<usize>) -> Range<usize> {
    let bytes = &file[append.clone()];
    append.start..append.start + bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
}

fn read(path: &Path) -> Vec<u8> {
    fs::read(path).expect("a simulated disk can be read")
}

fn write(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).expect("a simulated disk can be written");
}
