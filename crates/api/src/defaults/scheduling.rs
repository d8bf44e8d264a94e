//! Defaults of PriorityClasses and StorageClasses.
//!
//! Mirrors `pkg/apis/scheduling/v1/defaults.go` and `pkg/apis/storage/v1/defaults.go`.

use k8s_openapi::api::scheduling::v1::PriorityClass;
use k8s_openapi::api::storage::v1::StorageClass;

/// A PriorityClass: its pods may push out others.
pub fn priority_class(class: &mut PriorityClass) {
    class.preemption_policy.get_or_insert_with(|| "PreemptLowerPriority".to_owned());
}

/// A StorageClass.
pub fn storage_class(class: &mut StorageClass) {
    class.reclaim_policy.get_or_insert_with(|| "Delete".to_owned());
    class.volume_binding_mode.get_or_insert_with(|| "Immediate".to_owned());
}
