//! The committer: makes turns durable, in order, and only then answers clients and shows watchers what happened.
//!
//! Turns that wait while the disk syncs are made durable together, by one sync. If the store fails, the process ends:
//! what it would answer from then on could be lost.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::thread::JoinHandle;

use api::{Change, Kind, Refusal, Snapshot, limits};
use store::{Batch, Record, Snapshotter, Store, StoreError};
use tokio::sync::oneshot;

use crate::metrics::Metrics;
use crate::published::Published;
use crate::turn::Answer;

/// What a client is told.
type Answered = Result<Answer, Refusal>;

/// One turn, ready to be committed.
#[derive(Default)]
pub struct Turn {
    /// State after the turn.
    pub world: Snapshot,
    /// What changed, in order.
    pub changes: Vec<Change>,
    /// How many of them requests asked for; those that decisions made come after.
    pub asked: usize,
    /// Who waits for it.
    pub answers: Vec<(oneshot::Sender<Answered>, Answered)>,
}

impl Turn {
    /// True if there is nothing to store and nobody to answer.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.answers.is_empty()
    }

    /// Bytes of JSON that it makes durable, at most.
    fn bytes(&self) -> usize {
        self.changes.iter().filter_map(|change| change.after.as_ref()).map(|object| object.json.len()).sum()
    }

    /// The durable form: the last state of each object touched.
    pub fn batch(&self) -> Batch {
        let mut last: HashMap<String, Record> = HashMap::new();
        for change in &self.changes {
            let key = change.object().key().storage_key();
            let value = change.after.as_ref().map(|object| object.json.clone());
            last.insert(key.clone(), Record { revision: change.revision, key, value });
        }
        let mut records: Vec<Record> = last.into_values().collect();
        records.sort_by_key(|record| record.revision);
        Batch { records }
    }
}

/// Commits turns until the writer is gone, then hands the store back.
pub fn run(
    mut store: Store,
    turns: Receiver<Turn>,
    published: Arc<Published>,
    metrics: Arc<Metrics>,
) -> Result<Store, StoreError> {
    let mut compaction: Option<JoinHandle<Result<store::Snapshot, StoreError>>> = None;
    while let Ok(first) = turns.recv() {
        let waiting = with_those_behind(first, &turns);
        let batches: Vec<Batch> = waiting.iter().map(Turn::batch).filter(|batch| !batch.records.is_empty()).collect();
        if !batches.is_empty() {
            store.append(&batches)?;
            metrics.committed(&batches, store.stats());
        }
        for turn in waiting {
            publish(turn, &published);
        }
        if let Some(done) = compaction.take_if(|compaction| compaction.is_finished()) {
            adopt(&mut store, done)?;
        }
        if compaction.is_none() && store.should_compact() {
            compaction = Some(compact(&store, published.snapshot()));
        }
    }
    if let Some(done) = compaction {
        adopt(&mut store, done)?;
    }
    Ok(store)
}

/// A turn, and those that wait behind it as long as they are not too much for one write.
fn with_those_behind(first: Turn, turns: &Receiver<Turn>) -> Vec<Turn> {
    let mut bytes = first.bytes();
    let mut waiting = vec![first];
    while bytes < limits::COMMIT_BYTES
        && let Ok(turn) = turns.try_recv()
    {
        bytes += turn.bytes();
        waiting.push(turn);
    }
    waiting
}

/// Writes all that is live beside the committer, which goes on meanwhile.
fn compact(store: &Store, world: Arc<Snapshot>) -> JoinHandle<Result<store::Snapshot, StoreError>> {
    let snapshotter = store.snapshotter();
    let write = move || write_snapshot(&snapshotter, &world);
    std::thread::Builder::new().name("compaction".into()).spawn(write).expect("a thread can be started")
}

/// Writes all that is live in `world`, in the store's form.
pub fn write_snapshot(snapshotter: &Snapshotter, world: &Snapshot) -> Result<store::Snapshot, StoreError> {
    let objects = Kind::ALL.iter().flat_map(|kind| world.objects(*kind, None));
    let live: Vec<(String, u64, bytes::Bytes)> =
        objects.map(|object| (object.key().storage_key(), object.revision, object.json.clone())).collect();
    let live = live.iter().map(|(key, revision, json)| (key.as_str(), *revision, &json[..]));
    snapshotter.write(world.revision(), live)
}

fn adopt(store: &mut Store, done: JoinHandle<Result<store::Snapshot, StoreError>>) -> Result<(), StoreError> {
    match done.join() {
        Ok(snapshot) => store.adopt(snapshot?),
        Err(_) => {
            tracing::error!("compaction panicked; the log goes on growing until the next one succeeds");
            Ok(())
        }
    }
}

fn publish(turn: Turn, published: &Published) {
    if !turn.changes.is_empty() {
        published.publish(turn.world, turn.changes);
    }
    for (reply, answer) in turn.answers {
        // A client that has gone away does not need its answer.
        drop(reply.send(answer));
    }
}
