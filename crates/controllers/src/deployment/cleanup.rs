//! Forgetting the oldest sets, beyond `revisionHistoryLimit`.
//!
//! Mirrors cleanupDeployment (`pkg/controller/deployment/sync.go`). Never deletes a set that has or is to have pods, nor
//! one that its controller has not looked at yet.

use api::{Key, Kind, Propagation, Write};

use super::Rollout;
use super::revision::revision;
use super::sets::Set;

impl Rollout<'_> {
    /// Deletes sets that are too old to be kept.
    pub(super) fn clean_up(&mut self) {
        let Some(limit) = self.terms.revision_history_limit else { return };
        let mut kept: Vec<&Set> =
            self.old.iter().filter(|set| set.body().metadata.deletion_timestamp.is_none()).collect();
        let surplus = kept.len().saturating_sub(limit);
        kept.sort_by_key(|set| (revision(set).unwrap_or(0), set.age_order()));
        let deletions: Vec<Write> =
            kept.into_iter().take(surplus).filter(|set| is_empty(set)).map(|set| delete(set)).collect();
        self.plan.writes.extend(deletions);
    }
}

fn is_empty(set: &Set) -> bool {
    !set.is_active() && set.status().replicas == 0 && set.is_observed()
}

fn delete(set: &Set) -> Write {
    let meta = &set.body().metadata;
    Write::Delete {
        key: Key::new(Kind::ReplicaSet, meta.namespace.clone().unwrap_or_default(), set.name()),
        uid: meta.uid.clone().unwrap_or_default(),
        propagation: Propagation::Background,
    }
}
