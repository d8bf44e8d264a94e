//! Facts about one pod that several controllers ask for.
//!
//! Mirrors upstream's `pkg/api/v1/pod/util.go` (IsPodReady, IsPodAvailable) and `pkg/controller/controller_utils.go`
//! (IsPodActive).

use std::collections::BTreeMap;

use api::Pod;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::PodCondition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// The condition of a pod that ends for what happens around it.
const DISRUPTION_TARGET: &str = "DisruptionTarget";

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

/// The node the pod is bound to, empty if it is bound to none.
pub fn node(pod: &Pod) -> &str {
    pod.spec.as_deref().and_then(|spec| spec.node_name.as_deref()).unwrap_or("")
}

/// Name, empty if it has none.
pub fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or("")
}

/// The pod's address, empty as long as it has none.
pub fn address(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|status| status.pod_ip.as_deref()).unwrap_or("")
}

/// Labels of the pod.
pub fn labels(pod: &Pod) -> Option<&BTreeMap<String, String>> {
    pod.metadata.labels.as_ref()
}

/// The condition of this type.
pub fn condition<'a>(pod: &'a Pod, type_: &str) -> Option<&'a PodCondition> {
    pod.status.as_ref()?.conditions.iter().flatten().find(|condition| condition.type_ == type_)
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
    if min_ready_seconds <= 0 {
        return is_ready(pod).then_some(Timestamp::MIN);
    }
    ready_since(pod)?.checked_add(SignedDuration::from_secs(min_ready_seconds.into())).ok()
}

/// Since when an available pod is available, as far as that is known.
pub fn available_since(pod: &Pod, min_ready_seconds: i32) -> Option<Timestamp> {
    ready_since(pod)?.checked_add(SignedDuration::from_secs(min_ready_seconds.max(0).into())).ok()
}

/// True if the pod is available at `now`.
pub fn is_available(pod: &Pod, min_ready_seconds: i32, now: Timestamp) -> bool {
    available_at(pod, min_ready_seconds).is_some_and(|time| time <= now)
}

/// The pod, which ends for what happens around it.
pub fn disrupted(pod: &Pod, reason: &str, message: &str, now: Timestamp) -> Pod {
    let mut pod = pod.clone();
    let observed_generation = pod.metadata.generation;
    let conditions = pod.status.get_or_insert_default().conditions.get_or_insert_default();
    conditions.retain(|condition| condition.type_ != DISRUPTION_TARGET);
    conditions.push(PodCondition {
        type_: DISRUPTION_TARGET.to_owned(),
        status: "True".to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message.to_owned()),
        last_transition_time: Some(Time(now)),
        observed_generation,
        ..Default::default()
    });
    pod
}
