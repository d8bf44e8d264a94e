//! Snapshots kept for lists that are read page by page: every page shows the same revision.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use api::Snapshot;

/// Snapshots kept; a list whose snapshot is gone is told to start again (410).
const KEPT: usize = 32;

/// The most recently paged snapshots.
#[derive(Default)]
pub struct Pages {
    kept: Mutex<VecDeque<Arc<Snapshot>>>,
}

impl Pages {
    /// Keeps a snapshot whose list goes on.
    pub fn keep(&self, snapshot: Arc<Snapshot>) {
        let mut kept = self.kept.lock().expect("no holder of this lock panics");
        kept.retain(|other| other.revision() != snapshot.revision());
        kept.push_back(snapshot);
        if kept.len() > KEPT {
            kept.pop_front();
        }
    }

    /// The snapshot of a revision, if it is still kept.
    pub fn find(&self, revision: u64) -> Option<Arc<Snapshot>> {
        let kept = self.kept.lock().expect("no holder of this lock panics");
        kept.iter().find(|snapshot| snapshot.revision() == revision).cloned()
    }
}
