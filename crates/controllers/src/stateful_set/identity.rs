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

pub use api::pod_facts::{POD_INDEX_LABEL, POD_NAME_LABEL};

/// `<set>-<number>`.
pub fn name(set: &StatefulSet, ordinal: i32) -> String {
    format!("{}-{ordinal}", set.metadata.name.as_deref().unwrap_or(""))
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

/// Gives the pod the labels with its name and number.
pub fn label(pod: &mut Pod, ordinal: i32) {
    let name = pods::name(pod).to_owned();
    let labels = pod.metadata.labels.get_or_insert_default();
    labels.insert(POD_NAME_LABEL.into(), name);
    labels.insert(POD_INDEX_LABEL.into(), ordinal.to_string());
}
