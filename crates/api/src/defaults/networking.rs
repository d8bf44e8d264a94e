//! Defaults of IngressClasses; an Ingress has none.
//!
//! Mirrors `pkg/apis/networking/v1/defaults.go`.

use k8s_openapi::api::networking::v1::IngressClass;

/// An IngressClass: its parameters are cluster-wide.
pub fn ingress_class(class: &mut IngressClass) {
    if let Some(parameters) = class.spec.as_mut().and_then(|spec| spec.parameters.as_mut()) {
        parameters.scope.get_or_insert_with(|| "Cluster".to_owned());
    }
}
