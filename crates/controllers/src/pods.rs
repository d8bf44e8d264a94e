//! Facts about one pod that several controllers ask for; those that are asked most often are [`api::pod_facts`].

use std::collections::BTreeMap;

use api::Pod;
#[cfg(test)]
pub use api::pod_facts::is_active;
pub use api::pod_facts::{condition, has_ended, is_available, is_deleted, is_ready, phase, ready_since};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::PodCondition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// The condition of a pod that ends for what happens around it.
const DISRUPTION_TARGET: &str = "DisruptionTarget";

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
