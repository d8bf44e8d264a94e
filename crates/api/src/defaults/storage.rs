//! Defaults of storage.k8s.io.
//!
//! Mirrors `pkg/apis/storage/v1/defaults.go`.

use k8s_openapi::api::storage::v1::StorageClass;

use super::fill;

/// A StorageClass.
pub fn storage_class(class: &mut StorageClass) {
    fill(&mut class.reclaim_policy, "Delete");
    fill(&mut class.volume_binding_mode, "Immediate");
}
