//! Who a pod of a StatefulSet is: its number, its name, what it is known by.
//!
//! Mirrors upstream's `pkg/controller/statefulset/stateful_set_utils.go` (getParentNameAndOrdinal, updateIdentity,
//! newVersionedStatefulSetPod).

use api::Kind;
use api::Pod;
use k8s_openapi::api::apps::v1::{ControllerRevision, StatefulSet};

use super::claims;
use crate::history::{self, REVISION_LABEL};
use crate::{pods, specs, template};

/// The label with the pod's name.
pub const POD_NAME_LABEL: &str = "statefulset.kubernetes.io/pod-name";
/// The label with the pod's number.
pub const POD_INDEX_LABEL: &str = "apps.kubernetes.io/pod-index";

/// The number of a pod, if its name is one that the set gives.
pub fn ordinal(set: &StatefulSet, pod: &Pod) -> Option<i32> {
    let number = pods::name(pod).strip_prefix(set.metadata.name.as_deref()?)?.strip_prefix('-')?;
    let plain = number == "0" || !number.starts_with('0') && number.bytes().all(|byte| byte.is_ascii_digit());
    number.parse().ok().filter(|_| plain)
}

/// `<set>-<number>`.
pub fn name(set: &StatefulSet, ordinal: i32) -> String {
    format!("{}-{ordinal}", set.metadata.name.as_deref().unwrap_or(""))
}

/// The name of the revision that the pod was made of.
pub fn revision(pod: &Pod) -> &str {
    pods::labels(pod).and_then(|labels| labels.get(REVISION_LABEL)).map_or("", String::as_str)
}

/// The pod of this number, made of this revision.
pub fn pod(set: &StatefulSet, ordinal: i32, revision: &ControllerRevision) -> Pod {
    let recorded = history::template_of(revision);
    let template = recorded.unwrap_or_else(|| specs::of_stateful_set(set).template.clone());
    let mut pod = template::pod(Kind::StatefulSet, &set.metadata, template);
    let name = name(set, ordinal);
    pod.metadata.generate_name = None;
    pod.metadata.name = Some(name.clone());
    label(&mut pod, ordinal);
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(REVISION_LABEL.into(), history::name(revision).to_owned());
    let spec = pod.spec.get_or_insert_default();
    claims::mount(set, ordinal, spec);
    spec.hostname = Some(name);
    spec.subdomain = specs::of_stateful_set(set).service_name.clone().filter(|service| !service.is_empty());
    pod
}

/// True if the pod carries its name and number (an adopted one may not).
pub fn is_labelled(pod: &Pod, ordinal: i32) -> bool {
    let label = |key: &str| pods::labels(pod).and_then(|labels| labels.get(key)).map(String::as_str);
    label(POD_NAME_LABEL) == Some(pods::name(pod)) && label(POD_INDEX_LABEL) == Some(&ordinal.to_string())
}

/// Gives the pod the labels with its name and number.
pub fn label(pod: &mut Pod, ordinal: i32) {
    let name = pods::name(pod).to_owned();
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(POD_NAME_LABEL.into(), name);
    labels.insert(POD_INDEX_LABEL.into(), ordinal.to_string());
}
