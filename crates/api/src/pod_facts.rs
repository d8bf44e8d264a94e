//! What is asked of pods most often, and [`Facts`]: the answers, small enough to be kept beside a pod.
//!
//! Mirrors upstream's `pkg/api/v1/pod/util.go` (IsPodReady, IsPodAvailable) and `pkg/controller/controller_utils.go`
//! (IsPodActive). A walk over thousands of pods that asks them themselves waits for memory ten times a pod: they do not
//! fit into a processor's cache, and every label and condition is in a place of its own. Of nodes, which a DaemonSet
//! walks as well, the same is kept.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Node, PodCondition};

use crate::endpoint_fingerprint;
use crate::kinds::Body;
use crate::node_fit;
use crate::object::controller_of;
use crate::pod::Pod;
use crate::pod_resources;

/// The label with the name of a StatefulSet's pod.
pub const POD_NAME_LABEL: &str = "statefulset.kubernetes.io/pod-name";
/// The label with its number.
pub const POD_INDEX_LABEL: &str = "apps.kubernetes.io/pod-index";
/// Label and annotation with the index of a Job's pod.
pub const COMPLETION_INDEX: &str = "batch.kubernetes.io/job-completion-index";
/// Holds a pod back until its Job has counted it.
pub const JOB_TRACKING_FINALIZER: &str = "batch.kubernetes.io/job-tracking";
/// The label with the template that a pod of a StatefulSet or DaemonSet was made of.
pub const REVISION_LABEL: &str = "controller-revision-hash";
/// The label with the name of a node.
pub const HOSTNAME_LABEL: &str = "kubernetes.io/hostname";
/// Labels by which one pod of a set differs from the others: [`Facts::kin`] leaves them out.
pub const OWN_LABELS: [&str; 3] = [POD_INDEX_LABEL, COMPLETION_INDEX, POD_NAME_LABEL];

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

/// The answers of one pod, or of one node. Kept with every object: in few bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    kin: u64,
    node: u64,
    uid: u64,
    requests: u64,
    /// Zero if there is none.
    controller: u64,
    /// Zero if there is none.
    endpoint: u64,
    /// Zero if there is none.
    revision: u64,
    /// Of what is in front of its number; without meaning if it has none.
    stem: u64,
    /// Negative if there is none.
    ordinal: i32,
    /// Negative if there is none.
    completion_index: i32,
    /// Of the moment since when it is ready, zero if there is none.
    seconds: i64,
    nanoseconds: i32,
    /// [`ENDED`] and so on.
    bits: u16,
}

const ENDED: u16 = 1;
const DELETED: u16 = 2;
const READY: u16 = 4;
/// Somebody noted since when it is ready.
const SINCE: u16 = 8;
const ADDRESS: u16 = 16;
const IPV6: u16 = 32;
const RUNNING: u16 = 64;
const SUCCEEDED: u16 = 128;
const TRACKED: u16 = 256;
const NAMED: u16 = 512;
const PENDING: u16 = 1024;
/// Its node noted when it took the pod in.
const STARTED: u16 = 2048;

impl Facts {
    /// The facts of a pod or node; nothing holds of what is neither.
    pub(crate) fn of_body(body: &Body) -> Facts {
        match body {
            Body::Pod(pod) => Facts::of(pod),
            Body::Node(node) => Facts::of_node(node),
            _ => Facts::default(),
        }
    }

    fn of_node(node: &Node) -> Facts {
        let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
        let taints: Vec<_> = taints.iter().map(|taint| (&taint.key, &taint.value, &taint.effect)).collect();
        let labels = common(node.metadata.labels.as_ref(), &[HOSTNAME_LABEL]);
        Facts {
            kin: number(&(labels, taints, node_fit::is_ready(node))),
            node: node.metadata.name.as_deref().map_or(0, number_of),
            ..Facts::default()
        }
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
            (phase(pod) == "Running", RUNNING),
            (phase(pod) == "Succeeded", SUCCEEDED),
            (is_tracked(pod), TRACKED),
            (is_named(pod), NAMED),
            (phase(pod) == "Pending", PENDING),
            (pod.status.as_ref().is_some_and(|status| status.start_time.is_some()), STARTED),
        ];
        let text = |text: Option<&str>| text.filter(|text| !text.is_empty()).map_or(0, number_of);
        let (stem, ordinal) = numbered(pod).unwrap_or(("", -1));
        Facts {
            kin: number(&(&pod.metadata.namespace, common(pod.metadata.labels.as_ref(), &OWN_LABELS))),
            node: text(pod.spec.as_deref().and_then(|spec| spec.node_name.as_deref())),
            uid: text(pod.metadata.uid.as_deref()),
            requests: pod.spec.as_deref().map_or(0, pod_resources::fingerprint),
            controller: controller_of(&pod.metadata).map_or(0, |owner| number(&owner.uid)),
            endpoint: endpoint_fingerprint::identity(pod).unwrap_or(0),
            revision: text(label(pod, REVISION_LABEL)),
            stem: number_of(stem),
            ordinal,
            completion_index: completion_index(pod).unwrap_or(-1),
            seconds: since.map_or(0, Timestamp::as_second),
            nanoseconds: since.map_or(0, Timestamp::subsec_nanosecond),
            bits: answers.iter().filter(|(holds, _)| *holds).map(|(_, bit)| bit).sum(),
        }
    }

    /// A number that pods of one namespace with the same labels have in common, but for [`OWN_LABELS`]: what is true of
    /// the others of one is true of all. Of nodes: what those with the same labels (but the name), taints and readiness
    /// have in common.
    pub fn kin(&self) -> u64 {
        self.kin
    }

    /// [`number_of`] the name of the node it is on, or of the node itself; zero if it is on none.
    pub fn node(&self) -> u64 {
        self.node
    }

    /// [`number_of`] the pod's uid.
    pub fn uid(&self) -> u64 {
        self.uid
    }

    /// What its containers request, as a number ([`pod_resources::fingerprint`]).
    pub fn requests(&self) -> u64 {
        self.requests
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

    /// [`number_of`] the label [`REVISION_LABEL`]; zero if it has none.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The number in its name, if it is called as pods of a StatefulSet of this name are. `set`: [`number_of`] that.
    pub fn ordinal_in(&self, set: u64) -> Option<i32> {
        (self.ordinal >= 0 && self.stem == set).then_some(self.ordinal)
    }

    /// As [`completion_index`].
    pub fn completion_index(&self) -> Option<i32> {
        (self.completion_index >= 0).then_some(self.completion_index)
    }

    /// As [`is_tracked`].
    pub fn is_tracked(&self) -> bool {
        self.bits & TRACKED != 0
    }

    /// As [`is_named`].
    pub fn is_named(&self) -> bool {
        self.bits & NAMED != 0
    }

    /// True while its containers run or are restarted.
    pub fn is_running(&self) -> bool {
        self.bits & RUNNING != 0
    }

    /// True until its first container has been started.
    pub fn is_pending(&self) -> bool {
        self.bits & PENDING != 0
    }

    /// True once its node noted when it took the pod in (`status.startTime`).
    pub fn has_started(&self) -> bool {
        self.bits & STARTED != 0
    }

    /// True if it ended well.
    pub fn has_succeeded(&self) -> bool {
        self.bits & SUCCEEDED != 0
    }

    /// True if it ended badly.
    pub fn has_failed(&self) -> bool {
        self.has_ended() && !self.has_succeeded()
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

    /// Since when an available pod is available, as far as that is known.
    pub fn available_since(&self, min_ready_seconds: i32) -> Option<Timestamp> {
        self.ready_since()?.checked_add(SignedDuration::from_secs(min_ready_seconds.max(0).into())).ok()
    }

    /// As [`is_available`].
    pub fn is_available(&self, min_ready_seconds: i32, now: Timestamp) -> bool {
        self.available_at(min_ready_seconds).is_some_and(|time| time <= now)
    }
}

fn label<'a>(pod: &'a Pod, key: &str) -> Option<&'a str> {
    pod.metadata.labels.as_ref()?.get(key).map(String::as_str)
}

/// Those labels that are not left out.
fn common<'a>(
    labels: Option<&'a BTreeMap<String, String>>,
    left_out: &[&str],
) -> Option<Vec<(&'a String, &'a String)>> {
    Some(labels?.iter().filter(|(key, _)| !left_out.contains(&key.as_str())).collect())
}

/// The name of a pod as a StatefulSet gives it (upstream: getParentNameAndOrdinal in
/// `pkg/controller/statefulset/stateful_set_utils.go`): what is in front of the last dash, and the number behind it.
pub fn numbered(pod: &Pod) -> Option<(&str, i32)> {
    let (stem, number) = pod.metadata.name.as_deref()?.rsplit_once('-')?;
    let plain = number == "0" || !number.starts_with('0') && number.bytes().all(|byte| byte.is_ascii_digit());
    Some((stem, number.parse().ok().filter(|_| plain)?))
}

/// True if the pod's labels tell its name and the number in it.
pub fn is_named(pod: &Pod) -> bool {
    let told = label(pod, POD_INDEX_LABEL);
    let number = numbered(pod).filter(|(_, number)| told.is_some_and(|told| told == number.to_string()));
    number.is_some() && label(pod, POD_NAME_LABEL) == pod.metadata.name.as_deref()
}

/// The index of a Job's pod, if it has one that is not negative.
pub fn completion_index(pod: &Pod) -> Option<i32> {
    pod.metadata.annotations.as_ref()?.get(COMPLETION_INDEX)?.parse().ok().filter(|index| *index >= 0)
}

/// True until the pod's Job has counted it.
pub fn is_tracked(pod: &Pod) -> bool {
    pod.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == JOB_TRACKING_FINALIZER)
}

/// [`Facts`] hold this number in place of a text.
pub fn number_of(text: &str) -> u64 {
    number(text)
}

/// A number that equal parts have in common, and as good as no others: those who choose the parts gain nothing by a collision
/// but wrong answers about what is their own.
pub(crate) fn number(parts: &(impl Hash + ?Sized)) -> u64 {
    let mut hasher = DefaultHasher::new();
    parts.hash(&mut hasher);
    hasher.finish()
}
