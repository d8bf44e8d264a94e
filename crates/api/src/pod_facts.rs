//! What is asked of pods most often, and [`Facts`]: the answers, small enough to be kept beside a pod.
//!
//! Mirrors upstream's `pkg/api/v1/pod/util.go` (IsPodReady, IsPodAvailable) and `pkg/controller/controller_utils.go`
//! (IsPodActive). A walk over thousands of pods that asks them themselves waits for memory ten times a pod: they do not
//! fit into a processor's cache, and every label and condition is in a place of its own.

use std::hash::{DefaultHasher, Hash, Hasher};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::PodCondition;

use crate::endpoint_fingerprint;
use crate::kinds::{Body, Typed};
use crate::object::controller_of;
use crate::pod::Pod;

/// `status.phase`, empty if it has none.
pub fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("")
}

/// True once every container has stopped for good.
pub fn has_ended(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// True while somebody has asked for the pod's end.
pub fn is_deleted(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// True if the pod counts as a replica.
pub fn is_active(pod: &Pod) -> bool {
    !has_ended(pod) && !is_deleted(pod)
}

/// The condition of this type.
pub fn condition<'a>(pod: &'a Pod, type_: &str) -> Option<&'a PodCondition> {
    pod.status.as_ref()?.conditions.iter().flatten().find(|condition| condition.type_ == type_)
}

/// True once the pod has an address.
pub fn has_address(pod: &Pod) -> bool {
    pod.status.as_ref().and_then(|status| status.pod_ip.as_deref()).is_some_and(|address| !address.is_empty())
}

/// True if the pod's first address is one of IPv6.
pub fn is_ipv6(pod: &Pod) -> bool {
    pod.status.as_ref().and_then(|status| status.pod_ip.as_deref()).is_some_and(|address| address.contains(':'))
}

/// True while the pod is ready.
pub fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|ready| ready.status == "True")
}

/// Since when the pod is ready; `None` if it is not, or if nobody noted when.
pub fn ready_since(pod: &Pod) -> Option<Timestamp> {
    let ready = condition(pod, "Ready").filter(|ready| ready.status == "True")?;
    ready.last_transition_time.as_ref().map(|time| time.0)
}

/// When a ready pod is (or was) first available: ready for `min_ready_seconds` without a break.
pub fn available_at(pod: &Pod, min_ready_seconds: i32) -> Option<Timestamp> {
    available(is_ready(pod), || ready_since(pod), min_ready_seconds)
}

/// True if the pod is available at `now`.
pub fn is_available(pod: &Pod, min_ready_seconds: i32, now: Timestamp) -> bool {
    available_at(pod, min_ready_seconds).is_some_and(|time| time <= now)
}

fn available(ready: bool, since: impl FnOnce() -> Option<Timestamp>, min_ready_seconds: i32) -> Option<Timestamp> {
    if min_ready_seconds <= 0 {
        return ready.then_some(Timestamp::MIN);
    }
    since()?.checked_add(SignedDuration::from_secs(min_ready_seconds.into())).ok()
}

/// The answers of one pod. Kept with every pod: in few bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    kin: u64,
    node: u64,
    /// Zero if there is none.
    controller: u64,
    /// Zero if there is none.
    endpoint: u64,
    /// Of the moment since when it is ready, zero if there is none.
    seconds: i64,
    nanoseconds: i32,
    /// [`ENDED`] and so on.
    bits: u8,
}

const ENDED: u8 = 1;
const DELETED: u8 = 2;
const READY: u8 = 4;
/// Somebody noted since when it is ready.
const SINCE: u8 = 8;
const ADDRESS: u8 = 16;
const IPV6: u8 = 32;

impl Facts {
    /// The facts of a pod; nothing holds of what is no pod.
    pub(crate) fn of_body(body: &Body) -> Facts {
        Pod::of(body).map(Facts::of).unwrap_or_default()
    }

    fn of(pod: &Pod) -> Facts {
        let since = ready_since(pod);
        let answers = [
            (has_ended(pod), ENDED),
            (is_deleted(pod), DELETED),
            (is_ready(pod), READY),
            (since.is_some(), SINCE),
            (has_address(pod), ADDRESS),
            (is_ipv6(pod), IPV6),
        ];
        Facts {
            kin: number(&(&pod.metadata.namespace, &pod.metadata.labels)),
            node: number(&pod.spec.as_deref().and_then(|spec| spec.node_name.as_deref())),
            controller: controller_of(&pod.metadata).map_or(0, |owner| number(&owner.uid)),
            endpoint: endpoint_fingerprint::identity(pod).unwrap_or(0),
            seconds: since.map_or(0, Timestamp::as_second),
            nanoseconds: since.map_or(0, Timestamp::subsec_nanosecond),
            bits: answers.iter().filter(|(holds, _)| *holds).map(|(_, bit)| bit).sum(),
        }
    }

    /// A number that pods of one namespace with the same labels have in common: what is true of the labels of one is
    /// true of all.
    pub fn kin(&self) -> u64 {
        self.kin
    }

    /// A number that pods on one node have in common, as those that have none do.
    pub fn node(&self) -> u64 {
        self.node
    }

    /// A number that pods of one controller have in common; `None` for a pod that has none.
    pub fn controller(&self) -> Option<u64> {
        (self.controller != 0).then_some(self.controller)
    }

    /// What an endpoint tells of the pod beside conditions and zone ([`endpoint_fingerprint`]); `None` for a pod that has no
    /// address, several, or names of its own.
    pub fn endpoint(&self) -> Option<u64> {
        (self.endpoint != 0).then_some(self.endpoint)
    }

    /// As [`has_address`].
    pub fn has_address(&self) -> bool {
        self.bits & ADDRESS != 0
    }

    /// As [`is_ipv6`].
    pub fn is_ipv6(&self) -> bool {
        self.bits & IPV6 != 0
    }

    /// As [`has_ended`].
    pub fn has_ended(&self) -> bool {
        self.bits & ENDED != 0
    }

    /// As [`is_deleted`].
    pub fn is_deleted(&self) -> bool {
        self.bits & DELETED != 0
    }

    /// As [`is_active`].
    pub fn is_active(&self) -> bool {
        !self.has_ended() && !self.is_deleted()
    }

    /// As [`is_ready`].
    pub fn is_ready(&self) -> bool {
        self.bits & READY != 0
    }

    /// As [`ready_since`].
    pub fn ready_since(&self) -> Option<Timestamp> {
        let noted = self.bits & SINCE != 0;
        noted.then(|| Timestamp::new(self.seconds, self.nanoseconds).expect("it was taken from a timestamp"))
    }

    /// As [`available_at`].
    pub fn available_at(&self, min_ready_seconds: i32) -> Option<Timestamp> {
        available(self.is_ready(), || self.ready_since(), min_ready_seconds)
    }

    /// As [`is_available`].
    pub fn is_available(&self, min_ready_seconds: i32, now: Timestamp) -> bool {
        self.available_at(min_ready_seconds).is_some_and(|time| time <= now)
    }
}

/// A number that equal parts have in common, and as good as no others: those who choose the parts gain nothing by a collision
/// but wrong answers about what is their own.
pub(crate) fn number(parts: &(impl Hash + ?Sized)) -> u64 {
    let mut hasher = DefaultHasher::new();
    parts.hash(&mut hasher);
    hasher.finish()
}
