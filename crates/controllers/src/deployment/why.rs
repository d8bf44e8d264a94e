//! Why the rollout is where it is: what it waits for and what it may not do, in sentences for a person.

use super::Rollout;
use super::sets::Set;
use crate::{obstacle, pods};

/// Ending pods that are named.
const PODS_NAMED: usize = 3;

impl Rollout<'_> {
    pub(super) fn tell_paused(&mut self) {
        let behind = self.new.is_none();
        self.plan.why.push(if behind {
            "is paused: the changed template is not rolled out before it is resumed".into()
        } else {
            "is paused: only a change of replicas has an effect".into()
        });
    }

    pub(super) fn tell_rolling(&mut self) {
        self.tell_waiting_for_new();
        let Some(new) = &self.new else { return };
        let old_pods: i32 = self.old.iter().map(Set::replicas).sum();
        let mut sentences = Vec::new();
        if old_pods > 0 {
            let available: i32 = self.sets().map(Set::available).sum();
            let needed = self.terms.min_available();
            sentences.push(format!(
                "may not stop another of {old_pods} old pods: {available} available, at least {needed} needed"
            ));
        }
        if new.replicas() < self.terms.replicas {
            let there: i32 = self.sets().map(Set::occupied).sum();
            let alive = self.sets().flat_map(Set::members).filter(|pod| pod.is_active()).count();
            // Some may be refused: a set that is to have them counts them.
            let are = if usize::try_from(there).is_ok_and(|there| alive < there) { "asked for" } else { "there" };
            let allowed = self.terms.max_pods();
            sentences.push(format!("may not start another new pod: {there} pods are {are}, at most {allowed} allowed"));
        }
        self.plan.why.append(&mut sentences);
    }

    /// Names the new pods that are not available, and what keeps them.
    pub(super) fn tell_waiting_for_new(&mut self) {
        let Some(new) = &self.new else { return };
        let wait = self.terms.min_ready_seconds;
        let blocked: Vec<_> =
            new.members().filter(|pod| pod.is_active() && !pod.is_available(wait, self.now)).collect();
        if blocked.is_empty() {
            return;
        }
        let state = if wait > 0 { "available" } else { "ready" };
        self.plan.why.push(format!(
            "waits for {} of {} new pods to become {state}: {}",
            blocked.len(),
            new.replicas(),
            obstacle::list(blocked.iter().map(|pod| pod.pod()), wait, self.now)
        ));
    }

    pub(super) fn tell_ending(&mut self, alive: i32) {
        let ending = self.old.iter().flat_map(Set::members).filter(|pod| !pod.has_ended());
        let named: Vec<&str> = ending.map(|pod| pods::name(pod.pod())).take(PODS_NAMED).collect();
        let more = if alive as usize > named.len() { ", …" } else { "" };
        self.plan.why.push(format!("waits for {alive} old pods to end: {}{more}", named.join(", ")));
    }
}
