//! Recreate: every old pod has to be gone, terminating ones included, before the first new one is made.
//!
//! Mirrors upstream's `pkg/controller/deployment/recreate.go`.

use super::Rollout;
use super::sets::Set;

impl Rollout<'_> {
    /// One step of the rollout.
    pub(super) fn recreate(&mut self) {
        let terms = self.terms;
        for set in &mut self.old {
            set.resize(0, &terms);
        }
        let alive: i32 = self.old.iter().map(Set::alive).sum();
        if alive > 0 {
            self.tell_ending(alive);
            return;
        }
        self.ensure_new_set(|rollout, _| rollout.terms.replicas);
        if let Some(new) = &mut self.new {
            new.resize(terms.replicas, &terms);
        }
        self.tell_waiting_for_new();
    }
}
