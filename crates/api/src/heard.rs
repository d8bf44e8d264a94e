//! When each node was last heard of, and when it went, as the owner of the state saw it.
//!
//! It is no part of the snapshot: after a restart every node has its full grace again, and whatever a node's own clock
//! says does not matter. Mirrors nodeHealthMap of upstream's `pkg/controller/nodelifecycle/node_lifecycle_controller.go`.

use std::collections::HashMap;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;

use crate::object::{Change, Kind, Object};

/// Namespace of the Leases by which nodes show that they live.
pub const NODE_LEASES: &str = "kube-node-lease";

/// When each node was last heard of. The empty one knows of no time at all: by it no node is ever silent.
#[derive(Clone, Debug, Default)]
pub struct Heard {
    began: Option<Timestamp>,
    now: Timestamp,
    nodes: HashMap<String, Timestamp>,
    /// When nodes were deleted, for as long as somebody may ask.
    gone: HashMap<String, Timestamp>,
}

/// Seconds for which it is known that a node was deleted.
const GONE_KEPT: i64 = 3_600;

impl Heard {
    /// Tells the time. All that was there when it is told first counts as heard of then.
    pub fn tick(&mut self, now: Timestamp) {
        self.began.get_or_insert(now);
        self.now = now;
    }

    /// Takes note of a renewed Lease, or of a node's status that its agent wrote anew.
    pub fn note(&mut self, change: &Change) {
        let sign = match change.kind() {
            Kind::Lease => change.object().namespace() == NODE_LEASES && renewed(change),
            Kind::Node => beat(change),
            _ => return,
        };
        let name = change.object().name();
        if self.began.is_none() {
            return;
        }
        if change.kind() == Kind::Node && change.before.is_none() {
            self.gone.remove(name);
        }
        if change.kind() == Kind::Node && change.after.is_none() {
            self.nodes.remove(name);
            let now = self.now;
            self.gone.retain(|_, since| now.duration_since(*since).as_secs() < GONE_KEPT);
            self.gone.insert(name.to_owned(), now);
        } else if let Some(last) = self.nodes.get_mut(name).filter(|_| sign) {
            *last = self.now;
        } else if sign {
            self.nodes.insert(name.to_owned(), self.now);
        }
    }

    /// When this node was last heard of; `None` if no time was ever told.
    pub fn last(&self, node: &str) -> Option<Timestamp> {
        self.nodes.get(node).copied().or(self.began)
    }

    /// Since when a node that is not there is missing, at the latest; `None` if no time was ever told.
    pub fn missing_since(&self, node: &str) -> Option<Timestamp> {
        self.gone.get(node).copied().or(self.began)
    }
}

fn renewed(change: &Change) -> bool {
    let time = |object: &Object| object.get::<Lease>()?.spec.as_ref()?.renew_time.clone();
    let after = change.after.as_deref().and_then(time);
    after.is_some() && after != change.before.as_deref().and_then(time)
}

/// A new node is heard of, and one whose agent says anew how it is.
fn beat(change: &Change) -> bool {
    let time = |object: &Object| {
        let conditions = object.get::<Node>()?.status.as_ref()?.conditions.as_ref()?;
        conditions.iter().filter_map(|condition| condition.last_heartbeat_time.clone()).max()
    };
    match (&change.before, &change.after) {
        (Some(before), Some(after)) => time(before) != time(after),
        (before, _) => before.is_none(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{Key, Snapshot};

    #[test]
    fn leases_and_statuses_are_signs_of_life() {
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        let (mut world, mut heard) = (Snapshot::default(), Heard::default());
        let mut put = |heard: &mut Heard, kind: Kind, body: serde_json::Value| {
            let change = world.put(Object::written(kind.decode(body).unwrap(), world.revision() + 1));
            heard.note(&change);
        };
        assert_eq!(heard.last("n1"), None);
        heard.tick(at(10));
        assert_eq!(heard.last("n1"), Some(at(10)));
        heard.tick(at(20));
        let lease = |time: &str| json!({ "metadata": { "name": "n1", "namespace": NODE_LEASES }, "spec": { "renewTime": time } });
        put(&mut heard, Kind::Lease, lease("2020-01-01T00:00:00.000000Z"));
        assert_eq!(heard.last("n1"), Some(at(20)));
        heard.tick(at(30));
        put(&mut heard, Kind::Lease, lease("2020-01-01T00:00:00.000000Z"));
        assert_eq!(heard.last("n1"), Some(at(20)), "nothing new");
        put(&mut heard, Kind::Lease, lease("2020-01-01T00:00:10.000000Z"));
        assert_eq!(heard.last("n1"), Some(at(30)));
        heard.tick(at(40));
        let node = |beat: &str, status: &str| {
            let ready = json!({ "type": "Ready", "status": status, "lastHeartbeatTime": beat });
            json!({ "metadata": { "name": "n1" }, "status": { "conditions": [ready] } })
        };
        put(&mut heard, Kind::Node, node("2020-01-01T00:00:00Z", "True"));
        heard.tick(at(50));
        put(&mut heard, Kind::Node, node("2020-01-01T00:00:00Z", "Unknown"));
        assert_eq!(heard.last("n1"), Some(at(40)), "that was not its agent");
        put(&mut heard, Kind::Node, node("2020-01-01T00:05:00Z", "True"));
        assert_eq!(heard.last("n1"), Some(at(50)));
        let gone = world.remove(&Key::new(Kind::Node, "", "n1"), world.revision() + 1).unwrap();
        heard.note(&gone);
        assert_eq!(heard.last("n1"), Some(at(10)));
        assert_eq!(heard.missing_since("n1"), Some(at(50)));
        assert_eq!(heard.missing_since("never"), Some(at(10)));
    }
}
