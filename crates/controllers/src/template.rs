//! A pod as a template says.
//!
//! Mirrors upstream's `pkg/controller/controller_utils.go` (GetPodFromTemplate).

use api::{Kind, Pod, SharedSpec};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::claim;

/// A pod of `owner`, which is of this kind; the door makes up its name.
pub fn pod(kind: Kind, owner: &ObjectMeta, template: PodTemplateSpec) -> Pod {
    let meta = template.metadata.unwrap_or_default();
    Pod {
        metadata: ObjectMeta {
            generate_name: owner.name.as_ref().map(|name| format!("{name}-")),
            namespace: owner.namespace.clone(),
            labels: meta.labels,
            annotations: meta.annotations,
            finalizers: meta.finalizers,
            owner_references: Some(vec![claim::controller_reference(kind, owner)]),
            ..Default::default()
        },
        spec: template.spec.map(SharedSpec::from),
        status: None,
    }
}
