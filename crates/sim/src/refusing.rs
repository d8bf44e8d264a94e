//! A door that lets no new pods in for a while, as quota that has run out or an admission policy does.
//!
//! Stands between the turn and the decisions: the pods of a plan lose their containers, which validation refuses. So the
//! refusal takes the way that any other takes, and what a plan wrote before it stays written.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use api::{Body, Change, Context, Key, Plan, Refusal, Snapshot, Write};
use controllers::Controller;
use jiff::Timestamp;
use server::minds::Minds;

/// Decisions whose pods are refused while the switch is on.
pub struct Refusing {
    minds: Arc<dyn Minds>,
    on: Arc<AtomicBool>,
}

impl Refusing {
    /// Wraps decisions; gives the switch, which is off.
    pub fn wrap(minds: Arc<dyn Minds>) -> (Arc<dyn Minds>, Arc<AtomicBool>) {
        let on = Arc::new(AtomicBool::new(false));
        (Arc::new(Refusing { minds, on: on.clone() }), on)
    }
}

impl Minds for Refusing {
    fn control(&self, who: Controller, key: &Key, world: &Snapshot, context: &Context) -> Plan {
        let mut plan = self.minds.control(who, key, world, context);
        if self.on.load(Ordering::Relaxed) {
            for write in &mut plan.writes {
                if let Write::Create(Body::Pod(pod)) = write
                    && let Some(spec) = &mut pod.spec
                {
                    spec.containers.clear();
                }
            }
        }
        plan
    }

    fn schedule(&self, key: &Key, world: &Snapshot, context: &Context) -> Plan {
        self.minds.schedule(key, world, context)
    }

    fn within_quota(
        &self,
        world: &Snapshot,
        before: Option<&Body>,
        after: &Body,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        self.minds.within_quota(world, before, after, now)
    }

    fn wakes(&self, change: &Change, world: &Snapshot, wake: &mut dyn FnMut(Controller, Key)) {
        self.minds.wakes(change, world, wake);
    }
}
