//! How the rollout of each revision ended, noted on its ReplicaSet: completed, failed, superseded, and whether it was undone.
//!
//! Only of rollouts that somebody is known to have asked for (`api::account`): sets made elsewhere are left as they are. Upstream
//! remembers nothing of it.

use api::account::{ENDED, Ended, How, REQUESTED, Requested};
use jiff::Timestamp;

use super::Rollout;
use super::conditions::{self, PROGRESSING};
use super::progress::TIMED_OUT;
use super::revision::revision;
use super::sets::Set;

impl Rollout<'_> {
    /// A set with another template is the newest from now on: what was the newest before has ended.
    pub(super) fn end_previous(&mut self, undone: bool) {
        let now = self.now;
        let Some(previous) = self.old.iter_mut().max_by_key(|set| revision(set)) else { return };
        if Requested::of(&previous.body().metadata).is_none() {
            return;
        }
        let mut ended = Ended::of(&previous.body().metadata).unwrap_or_else(|| Ended::at(now, How::Superseded));
        ended.undone |= undone;
        previous.annotate(ENDED, ended.text());
    }

    /// Notes that the newest set's rollout is complete, or that it failed. What failed may still complete.
    pub(super) fn note_end(&mut self) {
        let how = if self.is_complete() { How::Completed } else { How::Failed };
        let now = self.now;
        let Some(meta) = self.new.as_ref().map(|new| &new.body().metadata) else { return };
        let Some(requested) = Requested::of(meta) else { return };
        let noted = match Ended::of(meta) {
            None => false,
            Some(ended) => ended.how != How::Failed || how == How::Failed,
        };
        if noted || how == How::Failed && !self.failed_since(requested.at.0) {
            return;
        }
        if let Some(new) = &mut self.new {
            new.annotate(ENDED, Ended::at(now, how).text());
        }
    }

    /// True if the deadline has passed in this rollout, not in the one before it.
    fn failed_since(&self, time: Timestamp) -> bool {
        let told = conditions::find(&self.conditions, PROGRESSING);
        let late = told.filter(|told| told.reason.as_deref() == Some(TIMED_OUT));
        late.and_then(|late| late.last_update_time.as_ref()).is_some_and(|late| time < late.0)
    }
}

/// Hands an annotation on; what is asked for anew has not ended.
pub(super) fn hand_on(set: &mut Set, name: &str, value: &str) {
    if set.annotate(name, value) && name == REQUESTED {
        set.forget(ENDED);
    }
}
