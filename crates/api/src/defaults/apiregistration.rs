//! Defaults of APIServices.
//!
//! Mirrors `kube-aggregator/pkg/apis/apiregistration/v1/defaults.go`.

use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;

/// The port of an APIService's Service.
pub const SERVICE_PORT: i32 = 443;

/// An APIService.
pub fn api_service(service: &mut APIService) {
    if let Some(reference) = service.spec.as_mut().and_then(|spec| spec.service.as_mut()) {
        reference.port.get_or_insert(SERVICE_PORT);
    }
}
