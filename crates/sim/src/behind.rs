//! Controllers that are behind: what they see is some seconds old, and pods are older or younger than all the rest, as it
//! would be against an existing cluster, whose state comes over watches.
//!
//! What keeps them safe there is asked here: a key is not decided again before its view holds what its last plan wrote
//! (Kubernetes' expectations), and a write that was decided on an outdated object is a conflict. Invariants that speak
//! of the very moment cannot hold from behind; those of `HOLD_FROM_BEHIND` do.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use api::{Change, Context, Key, Kind, Plan, Snapshot};
use controllers::Controller;
use jiff::{SignedDuration, Timestamp};
use server::minds::Minds;

/// Most seconds that a view is behind.
pub const MOST_BEHIND: i64 = 4;
/// States kept; more than a view can need.
const STATES: usize = 4_000;

/// Invariants that hold although decisions look at the past. Once faults have stopped, all has to be as ever.
pub const HOLD_FROM_BEHIND: &[&str] = &[
    "I5 one controller",
    "I6 namespace goes empty",
    "I14 placement",
    "I14 bind is final",
    "I16 revisions",
    "I17 order",
    "I24 no empty write",
    "Job: counts once",
    "I9 from behind",
];

/// Decisions on what was.
pub struct Behind {
    /// Seconds that pods, and all the rest, are behind.
    lags: (i64, i64),
    /// False is a bug: nothing waits for its own writes.
    waits: bool,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    states: VecDeque<(Timestamp, Snapshot)>,
    /// The last revision that a decision wrote.
    wrote: BTreeMap<(Controller, Key), u64>,
    last: Option<(Controller, Key)>,
}

impl Behind {
    /// As far behind as the seed says.
    pub fn new(seed: u64, waits: bool) -> Behind {
        let lag = |number: u64| (number % (MOST_BEHIND as u64 + 1)) as i64;
        Behind { lags: (lag(seed), lag(seed / 5)), waits, seen: Mutex::default() }
    }

    /// The world as it is seen, and the revision up to which all of it is.
    fn view(&self, world: &Snapshot, now: Timestamp) -> (Snapshot, u64) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.states.back().is_none_or(|(_, last)| last.revision() != world.revision()) {
            seen.states.push_back((now, world.clone()));
            if seen.states.len() > STATES {
                seen.states.pop_front();
            }
        }
        let at = |lag: i64| {
            let time = now - SignedDuration::from_secs(lag);
            let known = seen.states.iter().rev().find(|(at, _)| *at <= time).or(seen.states.front());
            known.map_or_else(|| world.clone(), |(_, state)| state.clone())
        };
        let (pods, mut view) = (at(self.lags.0), at(self.lags.1));
        let whole = pods.revision().min(view.revision());
        if pods.revision() != view.revision() {
            let latest = pods.revision().max(view.revision());
            let outdated: Vec<Key> = view.objects(Kind::Pod, None).map(|pod| pod.key()).collect();
            outdated.iter().for_each(|key| drop(view.remove(key, latest)));
            pods.objects(Kind::Pod, None).for_each(|pod| drop(view.put(Arc::clone(pod))));
        }
        (view, whole)
    }

    fn wrote(&self, decision: &(Controller, Key)) -> u64 {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.wrote.get(decision).copied().unwrap_or(0)
    }
}

impl Minds for Behind {
    fn control(&self, who: Controller, key: &Key, world: &Snapshot, context: &Context) -> Plan {
        let (view, whole) = self.view(world, context.now);
        let decision = (who, key.clone());
        let soon = context.now + SignedDuration::from_secs(1);
        if self.waits && whole < self.wrote(&decision) {
            return Plan { wake_at: Some(soon), ..Plan::nothing() };
        }
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).last = Some(decision);
        let mut plan = controllers::reconcile(who, key, &view, context);
        if whole < world.revision() {
            // What has happened meanwhile is news when it is seen.
            plan.wake_by(soon);
        }
        plan
    }

    fn wakes(&self, change: &Change, world: &Snapshot, wake: &mut dyn FnMut(Controller, Key)) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(last) = seen.last.clone() {
            seen.wrote.insert(last, change.revision);
        }
        drop(seen);
        controllers::wakes(change, world, wake);
    }
}
