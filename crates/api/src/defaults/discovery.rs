//! Defaults of EndpointSlices.
//!
//! Mirrors `pkg/apis/discovery/v1/defaults.go`.

use k8s_openapi::api::discovery::v1::EndpointSlice;

/// An EndpointSlice: its ports have a name, empty if need be, and a protocol; its endpoints have conditions.
pub fn endpoint_slice(slice: &mut EndpointSlice) {
    for endpoint in slice.endpoints.iter_mut().flatten() {
        endpoint.conditions.get_or_insert_default();
    }
    for port in slice.ports.iter_mut().flatten() {
        port.name.get_or_insert_default();
        port.protocol.get_or_insert_with(|| "TCP".to_owned());
    }
}
