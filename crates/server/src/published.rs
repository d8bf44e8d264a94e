//! What readers see: the last committed snapshot and the recent changes, published by the committer alone.
//!
//! Readers never wait for the writer or the disk. A watcher keeps its own place in the history of its kind, so a slow
//! one costs nobody else anything; one that falls out of the history is told so (410) and lists again.

use std::collections::VecDeque;
use std::sync::{Arc, RwLock};

use api::{Change, Kind, Snapshot, limits};
use tokio::sync::watch;

/// The readers' side of the state.
pub struct Published {
    snapshot: RwLock<Arc<Snapshot>>,
    kinds: Vec<History>,
}

struct History {
    changes: RwLock<Changes>,
    newest: watch::Sender<u64>,
}

struct Changes {
    /// In order of revision.
    list: VecDeque<Change>,
    /// Changes up to and including this revision may be missing.
    compacted: u64,
}

/// The history does not reach back to the revision asked for.
#[derive(Debug, PartialEq, Eq)]
pub struct TooOld {
    /// The oldest revision one can resume from.
    pub oldest: u64,
}

impl Published {
    /// State as recovered, with the changes since `compacted` for watchers that resume across a restart.
    pub fn new(snapshot: Snapshot, compacted: u64, history: Vec<Change>) -> Published {
        let revision = snapshot.revision();
        let log = || History {
            changes: RwLock::new(Changes { list: VecDeque::new(), compacted }),
            newest: watch::Sender::new(revision),
        };
        let published =
            Published { snapshot: RwLock::new(Arc::new(snapshot)), kinds: Kind::ALL.iter().map(|_| log()).collect() };
        history.into_iter().for_each(|change| published.kinds[change.kind() as usize].push(change));
        published
    }

    /// The last committed snapshot.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.read().expect("no reader panics while it holds the lock").clone()
    }

    /// Publishes a committed turn: the changes first, so that no reader of the snapshot misses one.
    pub fn publish(&self, snapshot: Snapshot, changes: Vec<Change>) {
        let mut touched = [false; Kind::COUNT];
        for change in changes {
            let kind = change.kind() as usize;
            touched[kind] = true;
            self.kinds[kind].push(change);
        }
        let revision = snapshot.revision();
        *self.snapshot.write().expect("no reader panics while it holds the lock") = Arc::new(snapshot);
        for (kind, _) in touched.iter().enumerate().filter(|(_, touched)| **touched) {
            self.kinds[kind].newest.send_replace(revision);
        }
    }

    /// Changes of `kind` later than `revision`, at most `limit` of them.
    pub fn changes_after(&self, kind: Kind, revision: u64, limit: usize) -> Result<Vec<Change>, TooOld> {
        let changes = self.kinds[kind as usize].changes.read().expect("no writer panics while it holds the lock");
        if revision < changes.compacted {
            return Err(TooOld { oldest: changes.compacted });
        }
        let start = changes.list.partition_point(|change| change.revision <= revision);
        Ok(changes.list.iter().skip(start).take(limit).cloned().collect())
    }

    /// Tells when `kind` has changed; the value is a revision at which everything up to it is published.
    pub fn follow(&self, kind: Kind) -> watch::Receiver<u64> {
        self.kinds[kind as usize].newest.subscribe()
    }
}

impl History {
    fn push(&self, change: Change) {
        let mut changes = self.changes.write().expect("no reader panics while it holds the lock");
        changes.list.push_back(change);
        if changes.list.len() > limits::WATCH_HISTORY_CHANGES
            && let Some(oldest) = changes.list.pop_front()
        {
            changes.compacted = oldest.revision;
        }
    }
}
