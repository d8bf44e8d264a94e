//! What readers see: the last committed snapshot and the recent changes, published by the committer alone.
//!
//! Readers never wait for the writer or the disk. A watcher keeps its own place in the history of its kind, so a slow
//! one costs nobody else anything; one that falls out of the history is told so (410) and lists again.
//!
//! The history is bounded by bytes. Its newest part is kept as it was committed, for the watchers that follow; of what is
//! older only the JSON stays, a quarter of the memory, and is decoded for the few that resume from there.

use std::collections::VecDeque;
use std::sync::{Arc, RwLock};

use api::{Change, Kind, Object, PodSpecs, Snapshot, limits};
use bytes::Bytes;
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

/// In order of revision, the older ones first.
struct Changes {
    old: VecDeque<Encoded>,
    recent: VecDeque<Change>,
    /// Bytes of JSON in each.
    old_bytes: usize,
    recent_bytes: usize,
    /// Changes up to and including this revision may be missing.
    compacted: u64,
}

/// A change of which only the JSON is left; each side with the revision of its object.
#[derive(Clone)]
struct Encoded {
    revision: u64,
    before: Option<(Bytes, u64)>,
    after: Option<(Bytes, u64)>,
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
        let log = |_: &Kind| History {
            changes: RwLock::new(Changes::none_since(compacted)),
            newest: watch::Sender::new(revision),
        };
        let published =
            Published { snapshot: RwLock::new(Arc::new(snapshot)), kinds: Kind::ALL.iter().map(log).collect() };
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
        let (old, recent) = self.kinds[kind as usize].after(revision, limit)?;
        Ok(old.iter().map(|change| change.decode(kind)).chain(recent).collect())
    }

    /// Tells when `kind` has changed; the value is a revision at which everything up to it is published.
    pub fn follow(&self, kind: Kind) -> watch::Receiver<u64> {
        self.kinds[kind as usize].newest.subscribe()
    }
}

impl History {
    /// Changes later than `revision`, at most `limit`: the older ones still encoded, as the committer waits for the lock.
    fn after(&self, revision: u64, limit: usize) -> Result<(Vec<Encoded>, Vec<Change>), TooOld> {
        let changes = self.changes.read().expect("no writer panics while it holds the lock");
        if revision < changes.compacted {
            return Err(TooOld { oldest: changes.compacted });
        }
        let first = changes.old.partition_point(|change| change.revision <= revision);
        let old: Vec<Encoded> = changes.old.iter().skip(first).take(limit).cloned().collect();
        let first = changes.recent.partition_point(|change| change.revision <= revision);
        let recent = changes.recent.iter().skip(first).take(limit - old.len()).cloned().collect();
        Ok((old, recent))
    }

    fn push(&self, change: Change) {
        self.changes.write().expect("no reader panics while it holds the lock").push(change);
    }
}

impl Changes {
    fn none_since(compacted: u64) -> Changes {
        Changes { old: VecDeque::new(), recent: VecDeque::new(), old_bytes: 0, recent_bytes: 0, compacted }
    }

    fn push(&mut self, change: Change) {
        self.recent_bytes += change.object().json.len();
        self.recent.push_back(change);
        while limits::WATCH_RECENT_BYTES < self.recent_bytes
            && let Some(oldest) = self.recent.pop_front()
        {
            let bytes = oldest.object().json.len();
            self.recent_bytes -= bytes;
            self.old_bytes += bytes;
            self.old.push_back(Encoded::of(&oldest));
        }
        while limits::WATCH_HISTORY_BYTES < self.old_bytes
            && let Some(oldest) = self.old.pop_front()
        {
            self.old_bytes -= oldest.bytes();
            self.compacted = oldest.revision;
        }
    }
}

impl Encoded {
    fn of(change: &Change) -> Encoded {
        let side = |object: &Option<Arc<Object>>| object.as_ref().map(|object| (object.json.clone(), object.revision));
        Encoded { revision: change.revision, before: side(&change.before), after: side(&change.after) }
    }

    /// As [`Change::object`] counts it: what comes after, or what was before.
    fn bytes(&self) -> usize {
        self.after.as_ref().or(self.before.as_ref()).map_or(0, |(json, _)| json.len())
    }

    fn decode(&self, kind: Kind) -> Change {
        let side = |object: &Option<(Bytes, u64)>| {
            let (json, revision) = object.as_ref()?;
            let object = Object::recovered(kind, json.clone(), *revision, &mut PodSpecs::default());
            Some(object.expect("it was encoded from an object"))
        };
        Change { revision: self.revision, before: side(&self.before), after: side(&self.after) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::ConfigMap;

    fn change(revision: u64, bytes: usize, before: Option<&Change>) -> Change {
        let mut object = ConfigMap::default();
        object.metadata.name = Some("one".into());
        object.metadata.namespace = Some("default".into());
        object.data = Some([("value".to_owned(), "x".repeat(bytes))].into());
        let after = Object::written(api::Body::ConfigMap(Box::new(object)), revision);
        Change { revision, before: before.and_then(|before| before.after.clone()), after: Some(after) }
    }

    fn sides(change: &Change) -> [Option<(u64, Bytes)>; 2] {
        [&change.before, &change.after].map(|side| side.as_ref().map(|object| (object.revision, object.json.clone())))
    }

    #[test]
    fn old_changes_are_decoded_and_the_oldest_go() {
        let bytes = limits::WATCH_RECENT_BYTES / 4;
        let count = 2 * (limits::WATCH_RECENT_BYTES + limits::WATCH_HISTORY_BYTES) / bytes;
        let mut all: Vec<Change> = Vec::new();
        for index in 0..count {
            all.push(change(index as u64 + 1, bytes, all.last()));
        }
        let published = Published::new(Snapshot::default(), 0, all.clone());
        let too_old = published.changes_after(Kind::ConfigMap, 0, usize::MAX).unwrap_err();
        assert!(too_old.oldest as usize > count / 3, "{too_old:?} of {count}");
        let kept = published.changes_after(Kind::ConfigMap, too_old.oldest, usize::MAX).unwrap();
        let expected = &all[too_old.oldest as usize..];
        assert_eq!(kept.len(), expected.len());
        assert!(kept.iter().zip(expected).all(|(kept, expected)| sides(kept) == sides(expected)));
        let some = published.changes_after(Kind::ConfigMap, too_old.oldest + 1, 3).unwrap();
        assert_eq!(
            some.iter().map(|change| change.revision).collect::<Vec<_>>(),
            (0..3).map(|n| too_old.oldest + 2 + n).collect::<Vec<_>>()
        );
        assert!(published.changes_after(Kind::ConfigMap, count as u64, usize::MAX).unwrap().is_empty());
        let changes = published.kinds[Kind::ConfigMap as usize].changes.read().unwrap();
        assert!(changes.recent_bytes <= limits::WATCH_RECENT_BYTES && changes.old_bytes <= limits::WATCH_HISTORY_BYTES);
    }
}
