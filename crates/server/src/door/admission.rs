//! What the server itself adds to, or refuses in, a request: the built-in admission of this API.
//!
//! Upstream spreads this over plugins (`plugin/pkg/admission/…`) and registries (`registry/core/service/storage`).

use std::cmp::Reverse;
use std::collections::HashSet;
use std::net::Ipv4Addr;

use api::validate::networking::CLASS_ANNOTATION;
use api::{Body, Cause, Kind, Pod, Refusal, Snapshot};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Service, ServiceSpec, Taint, Toleration};
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{Call, limit_range, service_account, storage};

/// Service addresses: 10.96.0.0/16.
pub const SERVICE_NETWORK: [u8; 2] = [10, 96];
/// Ports of the nodes that services are given (upstream: `--service-node-port-range`).
const NODE_PORTS: std::ops::RangeInclusive<i32> = 30_000..=32_767;
/// The annotation of the IngressClass that Ingresses without one get.
pub const DEFAULT_CLASS: &str = "ingressclass.kubernetes.io/is-default-class";
/// Seconds a pod stays on a node that is not ready or unreachable (upstream: `defaulttolerationseconds`).
const NOT_READY_TOLERATION_SECONDS: i64 = 300;

pub(super) fn on_create(call: &mut Call, draft: &mut Body) -> Result<(), Refusal> {
    match draft {
        Body::Pod(pod) => {
            admit_pod(pod)?;
            service_account::admit(call, pod)?;
            limit_range::fill_in(call.world, pod);
            limit_range::check(call.world, pod)?;
        }
        Body::Service(service) => admit_service(call.world, service, None)?,
        Body::Node(node) => date_taints(node, None, call.now),
        Body::PersistentVolumeClaim(claim) => {
            storage::admit_claim(call.world, claim);
            limit_range::check_claim(call.world, claim)?;
        }
        Body::PersistentVolume(volume) => storage::admit_volume(&mut volume.metadata),
        Body::Ingress(ingress) => give_class(call.world, ingress),
        _ => {}
    }
    Ok(())
}

/// What is added to a changed object before it is judged whether anything of it changed.
pub(super) fn before_update(new: &mut Body) {
    if let Body::Pod(pod) = new {
        tolerate_for_a_while(pod);
    }
}

pub(super) fn on_update(call: &Call, current: &Body, new: &mut Body) -> Result<(), Refusal> {
    match (current, &mut *new) {
        (Body::Service(old), Body::Service(service)) => admit_service(call.world, service, Some(old))?,
        (Body::Node(old), Body::Node(node)) => date_taints(node, Some(old), call.now),
        (Body::PersistentVolumeClaim(old), Body::PersistentVolumeClaim(claim)) => {
            storage::check_growth(call.world, old, claim)?;
            if claim.spec != old.spec {
                limit_range::check_claim(call.world, claim)?;
            }
        }
        _ => {}
    }
    if matches!(new, Body::Service(_) | Body::PersistentVolumeClaim(_)) {
        call.minds.within_quota(call.world, Some(current), new)?;
    }
    Ok(())
}

/// Notes when a taint was added that evicts: from then on a pod's toleration seconds count. Upstream's taint manager
/// keeps that in memory; here it outlives a restart.
fn date_taints(node: &mut Node, old: Option<&Node>, now: Timestamp) {
    let known = old.and_then(|old| old.spec.as_ref()?.taints.as_deref()).unwrap_or_default();
    let taints = node.spec.iter_mut().flat_map(|spec| spec.taints.iter_mut().flatten());
    for taint in taints.filter(|taint| taint.effect == "NoExecute" && taint.time_added.is_none()) {
        let same = |it: &&Taint| it.key == taint.key && it.effect == taint.effect && it.value == taint.value;
        let since = known.iter().find(same).and_then(|known| known.time_added.clone());
        taint.time_added = Some(since.unwrap_or(Time(now)));
    }
}

/// An Ingress that names no class is of the default one, the newest if there are several (upstream: `defaultingressclass`).
fn give_class(world: &Snapshot, ingress: &mut Ingress) {
    let annotated = ingress.metadata.annotations.as_ref().is_some_and(|all| all.contains_key(CLASS_ANNOTATION));
    let spec = ingress.spec.get_or_insert_default();
    if annotated || spec.ingress_class_name.is_some() {
        return;
    }
    let is_default = |class: &&IngressClass| {
        let annotations = class.metadata.annotations.as_ref();
        annotations.and_then(|all| all.get(DEFAULT_CLASS)).is_some_and(|value| value == "true")
    };
    let order = |class: &&IngressClass| {
        let created = class.metadata.creation_timestamp.as_ref().map(|time| time.0);
        (created, Reverse(class.metadata.name.clone()))
    };
    let class = world.list::<IngressClass>(None).filter(is_default).max_by_key(order);
    spec.ingress_class_name = class.and_then(|class| class.metadata.name.clone());
}

fn admit_pod(pod: &mut Pod) -> Result<(), Refusal> {
    refuse_overhead(pod)?;
    let priority = priority(pod)?;
    let spec = pod.spec.get_or_insert_default();
    spec.priority = Some(priority);
    spec.preemption_policy.get_or_insert_with(|| "PreemptLowerPriority".into());
    tolerate_for_a_while(pod);
    Ok(())
}

/// What a pod costs beside its containers is said by its RuntimeClass, and there are none (upstream:
/// `plugin/pkg/admission/runtimeclass`, `validateOverhead`). That a class is named validation refuses.
fn refuse_overhead(pod: &Pod) -> Result<(), Refusal> {
    if pod.spec.as_deref().and_then(|spec| spec.overhead.as_ref()).is_none_or(|overhead| overhead.is_empty()) {
        return Ok(());
    }
    let why = "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead";
    Err(Refusal::forbidden(Kind::Pod, pod.metadata.name.as_deref().unwrap_or_default(), why))
}

/// The priority by the class that is named (upstream: `plugin/pkg/admission/priority`). PriorityClasses are not served: there are
/// the two that every cluster has.
fn priority(pod: &Pod) -> Result<i32, Refusal> {
    let spec = pod.spec.as_deref();
    let class = spec.and_then(|spec| spec.priority_class_name.as_deref()).unwrap_or_default();
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let computed = match class {
        "" => 0,
        "system-cluster-critical" => 2_000_000_000,
        "system-node-critical" => 2_000_001_000,
        class => {
            let why = format!("no PriorityClass with name {class} was found");
            return Err(Refusal::forbidden(Kind::Pod, name, why));
        }
    };
    match spec.and_then(|spec| spec.priority) {
        Some(given) if given != computed => {
            let why = format!(
                "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller \
                 computed {computed} from the given PriorityClass name"
            );
            Err(Refusal::forbidden(Kind::Pod, name, why))
        }
        _ => Ok(computed),
    }
}

/// The tolerations that every pod has, at its creation and ever after (upstream: `plugin/pkg/admission/defaulttolerationseconds`).
/// A spec that has them stays shared.
fn tolerate_for_a_while(pod: &mut Pod) {
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        if pod.spec.iter().flat_map(|spec| spec.tolerations.iter().flatten()).any(|it| tolerates(it, key)) {
            continue;
        }
        pod.spec.get_or_insert_default().tolerations.get_or_insert_default().push(Toleration {
            key: Some(key.into()),
            operator: Some("Exists".into()),
            effect: Some("NoExecute".into()),
            toleration_seconds: Some(NOT_READY_TOLERATION_SECONDS),
            ..Default::default()
        });
    }
}

fn tolerates(toleration: &Toleration, key: &str) -> bool {
    let effect = toleration.effect.as_deref().unwrap_or("");
    toleration.key.as_deref().is_none_or(|own| own.is_empty() || own == key)
        && (effect.is_empty() || effect == "NoExecute")
}

/// Gives a service its address, and keeps the one it has.
fn admit_service(world: &Snapshot, service: &mut Service, old: Option<&Service>) -> Result<(), Refusal> {
    let name = service.metadata.name.clone().unwrap_or_default();
    let own_uid = service.metadata.uid.clone();
    let spec = service.spec.get_or_insert_default();
    match spec.type_.as_deref().unwrap_or("ClusterIP") {
        "ExternalName" => {
            spec.cluster_ip = None;
            spec.cluster_ips = None;
            return Ok(());
        }
        "ClusterIP" => spec.ports.iter_mut().flatten().for_each(|port| port.node_port = None),
        // Validation has refused other types.
        _ => give_node_ports(world, &name, own_uid.as_deref(), spec, old)?,
    }
    let kept = old.and_then(|old| old.spec.as_ref()).and_then(|spec| spec.cluster_ip.clone());
    if spec.cluster_ip.as_deref().unwrap_or("").is_empty() {
        spec.cluster_ip = kept.clone();
    }
    let address = match spec.cluster_ip.as_deref() {
        Some("None") => "None".to_owned(),
        Some(given) if !given.is_empty() => {
            if kept.as_deref() != Some(given) {
                check_address(world, &name, own_uid.as_deref(), given)?;
            }
            given.to_owned()
        }
        _ => free_address(world)?,
    };
    spec.cluster_ip = Some(address.clone());
    spec.cluster_ips = Some(vec![address]);
    spec.ip_families = Some(vec!["IPv4".into()]);
    spec.ip_family_policy = Some("SingleStack".into());
    Ok(())
}

/// Gives each port of a NodePort or LoadBalancer service a port of the nodes; ports that it had, it keeps.
fn give_node_ports(
    world: &Snapshot,
    name: &str,
    own_uid: Option<&str>,
    spec: &mut ServiceSpec,
    old: Option<&Service>,
) -> Result<(), Refusal> {
    let others = world.list::<Service>(None).filter(|service| service.metadata.uid.as_deref() != own_uid);
    let mut taken: HashSet<i32> = others.flat_map(node_ports).collect();
    let had = |port: i32| {
        let ports = old.and_then(|old| old.spec.as_ref()).into_iter().flat_map(|spec| spec.ports.iter().flatten());
        ports.into_iter().find(|had| had.port == port).and_then(|had| had.node_port)
    };
    for (index, port) in spec.ports.iter_mut().flatten().enumerate() {
        let asked = port.node_port.filter(|asked| *asked != 0).or_else(|| had(port.port));
        let given = match asked {
            Some(asked) if !NODE_PORTS.contains(&asked) => {
                return Err(bad_node_port(
                    name,
                    index,
                    asked,
                    "provided port is not in the valid range. The range of valid ports is 30000-32767",
                ));
            }
            Some(asked) if taken.contains(&asked) => {
                return Err(bad_node_port(name, index, asked, "provided port is already allocated"));
            }
            Some(asked) => asked,
            None => NODE_PORTS
                .clone()
                .find(|candidate| !taken.contains(candidate))
                .ok_or_else(|| Refusal::internal("failed to allocate a nodePort: range is full"))?,
        };
        taken.insert(given);
        port.node_port = Some(given);
    }
    Ok(())
}

fn node_ports(service: &Service) -> Vec<i32> {
    let ports = service.spec.iter().flat_map(|spec| spec.ports.iter().flatten());
    ports.filter_map(|port| port.node_port).collect()
}

fn bad_node_port(name: &str, index: usize, port: i32, why: &str) -> Refusal {
    let cause = Cause {
        reason: "FieldValueInvalid".into(),
        message: format!("Invalid value: {port}: {why}"),
        field: format!("spec.ports[{index}].nodePort"),
    };
    Refusal::invalid(Kind::Service, name, vec![cause])
}

fn check_address(world: &Snapshot, name: &str, uid: Option<&str>, given: &str) -> Result<(), Refusal> {
    let problem = match given.parse::<Ipv4Addr>() {
        Ok(address) if address.octets()[..2] != SERVICE_NETWORK => {
            Some("failed to allocate IP: the provided IP is not in the valid range 10.96.0.0/16".to_owned())
        }
        Ok(_) if taken(world, uid).contains(given) => {
            Some("failed to allocate IP: provided IP is already allocated".into())
        }
        Ok(_) => None,
        Err(_) => Some("must be empty, \"None\", or a valid IPv4 address".into()),
    };
    let Some(problem) = problem else { return Ok(()) };
    let message = format!("Invalid value: [\"{given}\"]: {problem}");
    let cause = Cause { reason: "FieldValueInvalid".into(), message, field: "spec.clusterIPs".into() };
    Err(Refusal::invalid(Kind::Service, name, vec![cause]))
}

fn taken<'a>(world: &'a Snapshot, except_uid: Option<&str>) -> HashSet<&'a str> {
    let others = world.list::<Service>(None).filter(|service| service.metadata.uid.as_deref() != except_uid);
    others.filter_map(|service| service.spec.as_ref()?.cluster_ip.as_deref()).collect()
}

/// The lowest free address behind those kept for the system (.1 the API, .10 DNS).
fn free_address(world: &Snapshot) -> Result<String, Refusal> {
    let taken = taken(world, None);
    let [a, b] = SERVICE_NETWORK;
    let candidates = (11u16..u16::MAX).map(|number| {
        let [c, d] = number.to_be_bytes();
        Ipv4Addr::new(a, b, c, d).to_string()
    });
    let mut free = candidates.filter(|address| !taken.contains(address.as_str()));
    free.next().ok_or_else(|| Refusal::internal("failed to allocate a serviceIP: range is full"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn overhead_needs_a_class_that_says_it() {
        let told = |overhead| {
            let pod = json!({ "metadata": { "name": "p" }, "spec": { "containers": [], "overhead": overhead } });
            refuse_overhead(&serde_json::from_value(pod).unwrap()).map_err(|refusal| (refusal.code, refusal.message))
        };
        let why = "pods \"p\" is forbidden: pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead";
        assert_eq!(told(json!({ "cpu": "1" })), Err((403, why.to_owned())));
        assert_eq!((told(json!({})), told(json!(null))), (Ok(()), Ok(())));
    }
}
