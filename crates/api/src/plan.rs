//! What a decision returns: writes, events, reasons, and when to ask again. Plain values, carried out by others.

use jiff::Timestamp;

use crate::heard::Heard;
use crate::object::{Body, Key};
use crate::status::Refusal;
use crate::usage::Usage;

/// The outcome of one decision.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Carried out in order; at the first refused write the rest is dropped and the key is decided again later,
    /// with the refusal in [`Context::refused`].
    pub writes: Vec<Write>,
    /// Told to the user as `Event` objects, whatever becomes of the writes. What tells of a write is a
    /// [`Write::Event`] behind it.
    pub events: Vec<EventNote>,
    /// Why the plan is as it is, above all what it waits for: `rollout why` prints these.
    pub why: Vec<String>,
    /// Decide again at this time even if nothing changes.
    pub wake_at: Option<Timestamp>,
}

impl Plan {
    /// A plan that does nothing.
    pub fn nothing() -> Plan {
        Plan::default()
    }

    /// Asks to be decided again at `time` or earlier.
    pub fn wake_by(&mut self, time: Timestamp) {
        self.wake_at = Some(self.wake_at.map_or(time, |at| at.min(time)));
    }
}

/// What a decision may know beside the snapshot.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The time of the turn.
    pub now: Timestamp,
    /// The write of this key's last plan that was refused, if one was.
    pub refused: Option<&'a Refusal>,
    /// What nodes and pods use.
    pub usage: &'a Usage,
    /// When the nodes were last heard of.
    pub heard: &'a Heard,
}

/// In the message of a [`Write::Event`]: the name of the object last created by the same plan.
pub const CREATED: &str = "{created}";

/// One write. A plan writes an object at most once, because the second write would be based on an outdated version.
/// All pass the door: defaulted, admitted and validated like a client's request.
#[derive(Clone, Debug)]
pub enum Write {
    /// Makes an object; without a name one is made from `generateName`.
    Create(Body),
    /// Replaces metadata and spec. `metadata.resourceVersion` is what it was decided on.
    Update(Body),
    /// Replaces the status, and what little metadata passes with it (of a Deployment the annotations).
    Status(Body),
    /// Replaces `spec.finalizers` of a namespace, which no other write may touch.
    Finalize(Body),
    /// Puts a pod on a node.
    Bind {
        /// The pod.
        pod: Key,
        /// Its uid: another pod of the same name is not meant.
        uid: String,
        /// Name of the node.
        node: String,
    },
    /// Tells the user of the write before it, and only if that was carried out. [`CREATED`] in the message stands for
    /// the name of the object last created by this plan, which may be a generated one.
    Event(EventNote),
    /// Takes an object out at once, without grace: its node is gone and nobody is left to stop it.
    Remove {
        /// The object.
        key: Key,
        /// Its uid: another object of the same name is not meant.
        uid: String,
    },
    /// Asks for an object's end.
    Delete {
        /// The object.
        key: Key,
        /// Its uid: another object of the same name is not meant.
        uid: String,
        /// What becomes of its dependents.
        propagation: Propagation,
    },
}

/// What becomes of the dependents of a deleted object (`propagationPolicy`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// The object goes at once, its dependents after it.
    Background,
    /// The object goes after its dependents.
    Foreground,
    /// The dependents stay.
    Orphan,
}

/// Severity of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventType {
    /// Things go as they should.
    Normal,
    /// Somebody should look.
    Warning,
}

/// An event to be recorded; equal ones are counted rather than repeated.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EventNote {
    /// The object it is about.
    pub regarding: Key,
    /// Uid of that object.
    pub uid: String,
    /// Severity.
    pub kind: EventType,
    /// CamelCase reason, such as `ScalingReplicaSet`.
    pub reason: &'static str,
    /// The sentence.
    pub message: String,
    /// Who says it, such as `deployment-controller`.
    pub source: &'static str,
}
