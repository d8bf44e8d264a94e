//! RollingUpdate: first as many new pods as the surge allows, then as few old ones as availability allows.
//!
//! Mirrors upstream's `pkg/controller/deployment/rolling.go`. Both steps happen in one decision, each within the bounds
//! whatever becomes of the other: new pods are counted against all pods that are still there, old pods are ended only
//! as far as enough others are available. Old pods that are not available go first, because they cost nothing.

use super::Rollout;
use super::sets::Set;

impl<'a> Rollout<'a> {
    /// One step of the rollout.
    pub(super) fn roll(&mut self) {
        self.ensure_new_set(|rollout, new| rollout.room_for(new));
        self.grow_new_set();
        self.shrink_old_sets();
        self.tell_rolling();
    }

    /// The size the new set may have now (upstream: NewRSNewReplicas).
    fn room_for(&self, new: &Set) -> i32 {
        let there: i32 = self.old.iter().map(Set::occupied).sum::<i32>() + new.occupied();
        let room = (self.terms.max_pods() - there).max(0);
        (new.replicas() + room).min(self.terms.replicas)
    }

    fn grow_new_set(&mut self) {
        let Some(new) = &self.new else { return };
        let size = self.room_for(new);
        let terms = self.terms;
        if let Some(new) = &mut self.new {
            new.resize(size, &terms);
        }
    }

    /// Ends old pods as far as enough others are available (upstream: reconcileOldReplicaSets).
    fn shrink_old_sets(&mut self) {
        let Some(new) = &self.new else { return };
        let new_available = new.available();
        let old_pods: i32 = self.old.iter().map(Set::replicas).sum();
        let spare = old_pods + new_available - self.terms.min_available();
        if old_pods == 0 || spare <= 0 {
            return;
        }
        self.end_unavailable(spare);
        let available: i32 = self.old.iter().map(Set::available).sum::<i32>() + new_available;
        self.end_available(available - self.terms.min_available());
    }

    /// Ends old pods that are not available, up to `spare`, oldest set first (upstream: cleanupUnhealthyReplicas).
    fn end_unavailable(&mut self, mut spare: i32) {
        let terms = self.terms;
        for set in &mut self.old {
            let ended = (set.replicas() - set.available()).clamp(0, spare);
            set.resize(set.replicas() - ended, &terms);
            spare -= ended;
        }
    }

    /// Ends up to `spare` old pods, oldest set first (upstream: scaleDownOldReplicaSetsForRollingUpdate).
    fn end_available(&mut self, mut spare: i32) {
        let terms = self.terms;
        for set in &mut self.old {
            let ended = set.replicas().min(spare).max(0);
            set.resize(set.replicas() - ended, &terms);
            spare -= ended;
        }
    }
}
