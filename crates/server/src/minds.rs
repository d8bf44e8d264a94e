//! Who decides: the controllers and the scheduler, as the turn calls them, and who says what quotas leave room for.
//!
//! The server always runs [`Minds`] as they are here. The simulator's bug zoo overrides single ones, to put a known bug
//! back and see that its invariants bite.

use api::{Body, Change, Context, Key, Plan, Refusal, Snapshot};
use controllers::Controller;
use jiff::Timestamp;

use crate::door;

/// The decisions of a cluster, and what wakes them.
pub trait Minds: Send + Sync {
    /// Decides what `who` does about the object at `key`.
    fn control(&self, who: Controller, key: &Key, world: &Snapshot, context: &Context) -> Plan {
        controllers::reconcile(who, key, world, context)
    }

    /// Decides where a pod goes, or what a node with room takes.
    fn schedule(&self, key: &Key, world: &Snapshot, context: &Context) -> Plan {
        scheduler::decide(key, world, context)
    }

    /// Refuses what would exceed a quota of its namespace.
    fn within_quota(
        &self,
        world: &Snapshot,
        before: Option<&Body>,
        after: &Body,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        door::within_quota(world, before, after, now)
    }

    /// Wakes the controllers that a change calls for.
    fn wakes(&self, change: &Change, world: &Snapshot, wake: &mut dyn FnMut(Controller, Key)) {
        controllers::wakes(change, world, wake);
    }
}

/// The decisions as they are.
pub struct Real;

impl Minds for Real {}
