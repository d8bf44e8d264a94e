//! The last reasons of every decision: what `rollout why` prints.

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;

use api::Key;
use controllers::Controller;

/// Reasons by object and controller; only decisions that gave some are kept.
#[derive(Default)]
pub struct Whys {
    reasons: Mutex<HashMap<Key, BTreeMap<Controller, Vec<String>>>>,
}

impl Whys {
    /// Keeps the reasons of the last decision of `who` about `key`.
    pub fn set(&self, who: Controller, key: &Key, reasons: Vec<String>) {
        let mut map = self.reasons.lock().expect("no holder of this lock panics");
        if !reasons.is_empty() {
            map.entry(key.clone()).or_default().insert(who, reasons);
        } else if let Some(of_key) = map.get_mut(key) {
            of_key.remove(&who);
            if of_key.is_empty() {
                map.remove(key);
            }
        }
    }

    /// What all decisions about `key` said last.
    pub fn about(&self, key: &Key) -> Vec<String> {
        let map = self.reasons.lock().expect("no holder of this lock panics");
        map.get(key).into_iter().flat_map(|of_key| of_key.values()).flatten().cloned().collect()
    }
}
