//! What a pod asks of a node. (First cut: sums over containers; init containers and overhead are being added.)

use k8s_openapi::api::core::v1::PodSpec;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// Requests of a pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Requests {
    /// Thousandths of a core.
    pub cpu_milli: i64,
    /// Bytes of memory.
    pub memory_bytes: i64,
}

/// What the pod's containers request together.
pub fn requests(spec: &PodSpec) -> Requests {
    let mut sum = Requests::default();
    for container in &spec.containers {
        let requests = container.resources.as_ref().and_then(|resources| resources.requests.as_ref());
        for (name, quantity) in requests.into_iter().flatten() {
            match name.as_str() {
                "cpu" => sum.cpu_milli += milli(quantity),
                "memory" => sum.memory_bytes += milli(quantity) / 1000,
                _ => {}
            }
        }
    }
    sum
}

/// Host ports the pod takes: (protocol, address, port).
pub fn host_ports(spec: &PodSpec) -> Vec<(String, String, i32)> {
    let ports = spec.containers.iter().flat_map(|container| container.ports.iter().flatten());
    ports
        .filter_map(|port| {
            let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".into());
            Some((protocol, port.host_ip.clone().unwrap_or_default(), port.host_port.filter(|port| *port > 0)?))
        })
        .collect()
}

fn milli(quantity: &Quantity) -> i64 {
    let text = quantity.0.as_str();
    text.strip_suffix('m')
        .and_then(|number| number.parse().ok())
        .or_else(|| text.parse::<i64>().ok().map(|n| n * 1000))
        .unwrap_or(0)
}
