//! Why an object is as it is: what `rollout why` prints. The decisions about it are made once more over the state as it is now, and only
//! their reasons are taken; all that has to be kept for that is what was refused to them.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;

use api::{Context, Heard, Key, Kind, Refusal, Snapshot, Usage};
use controllers::Controller;
use jiff::Timestamp;

/// What was refused to decisions that back off.
#[derive(Default)]
pub struct Whys {
    refused: Mutex<HashMap<Key, Vec<(Controller, Refusal)>>>,
}

impl Whys {
    /// Keeps what was refused to `who` about `key`; `None` once nothing is any more.
    pub fn note(&self, who: Controller, key: &Key, refusal: Option<&Refusal>) {
        let mut map = self.refused.lock().expect("no holder of this lock panics");
        if let Some(refusal) = refusal {
            let list = map.entry(key.clone()).or_default();
            list.retain(|(other, _)| *other != who);
            list.push((who, refusal.clone()));
        } else if let Some(list) = map.get_mut(key) {
            list.retain(|(other, _)| *other != who);
            if list.is_empty() {
                map.remove(key);
            }
        }
    }

    /// What all decisions about `key` say.
    pub fn about(&self, key: &Key, world: &Snapshot, usage: &Usage, now: Timestamp) -> Vec<String> {
        let refused = self.refused.lock().expect("no holder of this lock panics").get(key).cloned().unwrap_or_default();
        // Only who decides about nodes asks when they were heard of.
        let heard = Heard::default();
        let reasons = deciders(key.kind).into_iter().flat_map(|who| {
            let refused = refused.iter().find(|(other, _)| *other == who).map(|(_, refusal)| refusal);
            let context = Context { now, refused, usage, heard: &heard };
            let plan = catch_unwind(AssertUnwindSafe(|| controllers::reconcile(who, key, world, &context)));
            plan.map_or_else(
                |_| vec!["a decision about it fails inside kapstan: see the server's log".into()],
                |plan| plan.why,
            )
        });
        reasons.collect()
    }
}

/// Who decides about an object of this kind.
fn deciders(kind: Kind) -> Vec<Controller> {
    let own = match kind {
        Kind::Deployment => Some(Controller::Deployment),
        Kind::ReplicaSet | Kind::ReplicationController => Some(Controller::ReplicaSet),
        Kind::DaemonSet => Some(Controller::DaemonSet),
        Kind::StatefulSet => Some(Controller::StatefulSet),
        Kind::CronJob => Some(Controller::CronJob),
        Kind::Job => Some(Controller::Job),
        Kind::HorizontalPodAutoscaler => Some(Controller::HorizontalPodAutoscaler),
        Kind::Service => Some(Controller::Endpoints),
        Kind::Pod => Some(Controller::PodGarbageCollector),
        Kind::Namespace => Some(Controller::Namespace),
        _ => None,
    };
    own.into_iter().chain([Controller::GarbageCollector]).collect()
}
