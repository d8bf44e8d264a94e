//! What a pod asks of its node: resources, host ports, and the quality of service that follows from it.
//!
//! Mirrors component-helpers `resource/helpers.go` (PodRequests, PodLimits) and
//! `pkg/apis/core/v1/helper/qos/qos.go`. Only reads the spec: what a running pod was granted in place is the agent's.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::pod_facts::number;
use crate::quantity::Amount;

/// Amounts by the name of the resource.
pub type Amounts = BTreeMap<String, Amount>;

type Quantities = Option<BTreeMap<String, Quantity>>;

/// The two resources that every node has and every pod shares, in the units that scheduling counts in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Requests {
    /// Thousandths of a core.
    pub cpu_milli: i64,
    /// Bytes of memory.
    pub memory_bytes: i64,
}

/// The cpu and memory that the pod asks for. All its resources: [`requested`].
pub fn requests(spec: &PodSpec) -> Requests {
    let all = requested(spec);
    let of = |name: &str| all.get(name).copied().unwrap_or_default();
    Requests { cpu_milli: of("cpu").milli(), memory_bytes: of("memory").value() }
}

/// What the pod asks for while it starts and runs, whichever is more.
pub fn requested(spec: &PodSpec) -> Amounts {
    let mut total = aggregate(spec, |resources| &resources.requests);
    if let Some(pod_level) = spec.resources.as_ref() {
        replace_pod_level(&mut total, &pod_level.requests);
    }
    for (name, quantity) in spec.overhead.iter().flatten() {
        *total.entry(name.clone()).or_default() += Amount::of(quantity);
    }
    total
}

/// A number that specs have in common whose containers have the same names and request the same, and as good as no others.
pub fn fingerprint(spec: &PodSpec) -> u64 {
    fn list(quantities: Option<&BTreeMap<String, Quantity>>) -> Vec<(&str, &str)> {
        quantities.into_iter().flatten().map(|(name, quantity)| (name.as_str(), quantity.0.as_str())).collect()
    }
    fn requests(resources: Option<&ResourceRequirements>) -> Vec<(&str, &str)> {
        list(resources.and_then(|it| it.requests.as_ref()))
    }
    fn container(it: &Container) -> (&str, bool, Vec<(&str, &str)>) {
        (&it.name, is_sidecar(it), requests(it.resources.as_ref()))
    }
    let containers: Vec<_> = spec.containers.iter().map(container).collect();
    let initial: Vec<_> = spec.init_containers.iter().flatten().map(container).collect();
    number(&(containers, initial, requests(spec.resources.as_ref()), list(spec.overhead.as_ref())))
}

/// What the pod may use at most, of the resources that all its containers have limits for.
pub fn limited(spec: &PodSpec) -> Amounts {
    let mut total = aggregate(spec, |resources| &resources.limits);
    if let Some(pod_level) = spec.resources.as_ref() {
        replace_pod_level(&mut total, &pod_level.limits);
    }
    for (name, quantity) in spec.overhead.iter().flatten() {
        if let Some(limit) = total.get_mut(name).filter(|limit| !limit.is_zero()) {
            *limit += Amount::of(quantity);
        }
    }
    total
}

/// True for a resource that can be given to a pod as a whole.
pub fn is_pod_level(name: &str) -> bool {
    name == "cpu" || name == "memory" || name.starts_with("hugepages-")
}

/// True for an init container that goes on running beside the others.
pub fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// Containers run together and add up. An init container runs with the sidecars started before it, and only the
/// largest such moment counts.
fn aggregate(spec: &PodSpec, list: fn(&ResourceRequirements) -> &Quantities) -> Amounts {
    let of = |container: &Container| amounts(container.resources.as_ref().and_then(|r| list(r).as_ref()));
    let mut total = Amounts::new();
    for container in &spec.containers {
        add(&mut total, &of(container));
    }
    let (mut sidecars, mut starting) = (Amounts::new(), Amounts::new());
    for container in spec.init_containers.iter().flatten() {
        let own = of(container);
        if is_sidecar(container) {
            add(&mut total, &own);
            add(&mut sidecars, &own);
            maximum(&mut starting, &sidecars);
        } else {
            let mut moment = sidecars.clone();
            add(&mut moment, &own);
            maximum(&mut starting, &moment);
        }
    }
    maximum(&mut total, &starting);
    total
}

fn replace_pod_level(total: &mut Amounts, pod_level: &Quantities) {
    for (name, quantity) in pod_level.iter().flatten() {
        if is_pod_level(name) {
            total.insert(name.clone(), Amount::of(quantity));
        }
    }
}

fn amounts(list: Option<&BTreeMap<String, Quantity>>) -> Amounts {
    list.into_iter().flatten().map(|(name, quantity)| (name.clone(), Amount::of(quantity))).collect()
}

fn add(total: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        *total.entry(name.clone()).or_default() += *amount;
    }
}

fn maximum(total: &mut Amounts, other: &Amounts) {
    for (name, amount) in other {
        let entry = total.entry(name.clone()).or_insert(*amount);
        *entry = (*entry).max(*amount);
    }
}

/// A pod's quality of service: who is killed first when a node runs out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QosClass {
    /// Requests equal limits for cpu and memory in every container.
    Guaranteed,
    /// Something is asked for.
    Burstable,
    /// Nothing is asked for.
    BestEffort,
}

impl QosClass {
    /// As it stands in `status.qosClass`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Guaranteed => "Guaranteed",
            Self::Burstable => "Burstable",
            Self::BestEffort => "BestEffort",
        }
    }
}

/// The quality of service that the spec earns.
pub fn qos_class(spec: &PodSpec) -> QosClass {
    let containers = || spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let parts: Vec<Option<&ResourceRequirements>> = match spec.resources.as_ref() {
        Some(pod_level) => vec![Some(pod_level)],
        None => containers().map(|container| container.resources.as_ref()).collect(),
    };
    let (mut requests, mut limits) = (Amounts::new(), Amounts::new());
    let mut all_limited = true;
    for part in parts {
        add(&mut requests, &computing(part.and_then(|part| part.requests.as_ref())));
        let limited = computing(part.and_then(|part| part.limits.as_ref()));
        all_limited &= limited.len() == 2;
        add(&mut limits, &limited);
    }
    if requests.is_empty() && limits.is_empty() {
        QosClass::BestEffort
    } else if all_limited && requests == limits {
        QosClass::Guaranteed
    } else {
        QosClass::Burstable
    }
}

/// The part of a list that counts for quality of service: some cpu, some memory.
fn computing(list: Option<&BTreeMap<String, Quantity>>) -> Amounts {
    let mut amounts = amounts(list);
    amounts.retain(|name, amount| (name == "cpu" || name == "memory") && *amount > Amount::ZERO);
    amounts
}

/// A port of the node that a pod takes: protocol, address (`0.0.0.0` for every one), port.
pub type HostPort = (String, String, i32);

/// Whether two pods on one node cannot have both ports.
pub fn ports_clash(one: &HostPort, other: &HostPort) -> bool {
    let any = |port: &HostPort| port.1 == "0.0.0.0";
    one.2 == other.2 && one.0 == other.0 && (one.1 == other.1 || any(one) || any(other))
}

/// The ports of the node that the pod takes, those of its sidecars included.
pub fn host_ports(spec: &PodSpec) -> Vec<HostPort> {
    ports_of_node(spec).map(|(port, _)| port).collect()
}

/// Where the ports of the node lead that the pod takes: to these ports of its own. A pod in the node's network has them itself.
pub fn led_ports(spec: &PodSpec) -> Vec<(HostPort, u16)> {
    if spec.host_network == Some(true) {
        return Vec::new();
    }
    ports_of_node(spec).filter_map(|(port, to)| Some((port, u16::try_from(to).ok()?))).collect()
}

fn ports_of_node(spec: &PodSpec) -> impl Iterator<Item = (HostPort, i32)> {
    let sidecars = spec.init_containers.iter().flatten().filter(|container| is_sidecar(container));
    let given = |text: &Option<String>, default: &str| match text.as_deref() {
        None | Some("") => default.to_owned(),
        Some(text) => text.to_owned(),
    };
    spec.containers.iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten()).filter_map(
        move |port| {
            let number = port.host_port.filter(|port| *port > 0)?;
            let taken = (given(&port.protocol, "TCP"), given(&port.host_ip, "0.0.0.0"), number);
            Some((taken, port.container_port))
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use serde_json::{Value, json};

    fn spec(json: Value) -> PodSpec {
        serde_json::from_value(json).unwrap()
    }

    fn container(requests: Value, limits: Value) -> Value {
        json!({"name": "c", "image": "i", "resources": {"requests": requests, "limits": limits}})
    }

    fn show(amounts: &Amounts) -> String {
        amounts.iter().map(|(name, amount)| format!("{name}={amount}")).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn totals() {
        let sidecar =
            |cpu: &str| json!({"name": "s", "restartPolicy": "Always", "resources": {"requests": {"cpu": cpu}}});
        let cases = [
            json!({"containers": [container(json!({"cpu": "100m", "memory": "1Gi"}), json!({})), container(json!({"cpu": "1"}), json!({}))]}),
            json!({"containers": [container(json!({"cpu": "1"}), json!({}))], "initContainers": [container(json!({"cpu": "3", "memory": "1Mi"}), json!({}))]}),
            // KEP-753: a sidecar counts with every init container after it.
            json!({"containers": [container(json!({"cpu": "1"}), json!({}))], "initContainers": [sidecar("2"), container(json!({"cpu": "2"}), json!({})), sidecar("1")]}),
            json!({"containers": [container(json!({"cpu": "1"}), json!({}))], "overhead": {"cpu": "50m"}}),
            json!({"containers": [container(json!({"cpu": "1", "memory": "1Gi"}), json!({}))], "resources": {"requests": {"cpu": "4"}}}),
        ];
        let table = cases.map(|case| show(&requested(&spec(case))) + "\n").concat();
        expect![[r#"
            cpu=1100m memory=1Gi
            cpu=3 memory=1Mi
            cpu=4
            cpu=1050m
            cpu=4 memory=1Gi
        "#]]
        .assert_eq(&table);
        let bounded = spec(
            json!({"containers": [container(json!({}), json!({"cpu": "1"}))], "overhead": {"cpu": "50m", "memory": "1Mi"}}),
        );
        assert_eq!(show(&limited(&bounded)), "cpu=1050m");
    }

    #[test]
    fn a_fingerprint_tells_what_is_requested_and_nothing_else() {
        let one = |requests: Value| json!({ "containers": [container(requests, json!({}))] });
        let base = fingerprint(&spec(one(json!({ "cpu": "1" }))));
        let mut elsewhere = one(json!({ "cpu": "1" }));
        elsewhere["nodeName"] = "n1".into();
        elsewhere["containers"][0]["image"] = "other".into();
        elsewhere["containers"][0]["resources"]["limits"] = json!({ "cpu": "2" });
        assert_eq!(fingerprint(&spec(elsewhere)), base);
        let others = [
            one(json!({ "cpu": "2" })),
            one(json!({ "memory": "1" })),
            one(json!({})),
            json!({ "containers": [{ "name": "d", "resources": { "requests": { "cpu": "1" } } }] }),
            json!({ "containers": [container(json!({ "cpu": "1" }), json!({}))], "resources": { "requests": { "cpu": "1" } } }),
            json!({ "containers": [container(json!({ "cpu": "1" }), json!({}))], "overhead": { "cpu": "1" } }),
            json!({ "containers": [container(json!({ "cpu": "1" }), json!({}))], "initContainers": [{ "name": "i" }] }),
            json!({ "containers": [container(json!({ "cpu": "1" }), json!({}))], "initContainers": [{ "name": "i", "restartPolicy": "Always" }] }),
        ];
        let mut numbers: Vec<u64> = others.map(|other| fingerprint(&spec(other))).into();
        numbers.push(base);
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), 9);
    }

    #[test]
    fn quality_of_service() {
        let both = json!({"cpu": "1", "memory": "1Gi"});
        let cases = [
            json!({"containers": [container(json!({}), json!({}))]}),
            json!({"containers": [container(both.clone(), both.clone())]}),
            json!({"containers": [container(both.clone(), both.clone()), container(json!({}), json!({}))]}),
            json!({"containers": [container(json!({"cpu": "1"}), json!({}))]}),
            json!({"containers": [container(json!({"cpu": "1"}), json!({"cpu": "1"}))]}),
            json!({"containers": [container(json!({"cpu": "500m", "memory": "1Gi"}), both.clone())]}),
            json!({"containers": [container(json!({"cpu": "0"}), json!({"cpu": "0"}))]}),
            json!({"containers": [container(json!({"nvidia.com/gpu": "1"}), json!({}))]}),
            json!({"containers": [container(json!({}), json!({}))], "resources": {"requests": both, "limits": {"cpu": "1", "memory": "1Gi"}}}),
        ];
        let table = cases.map(|case| format!("{:?}\n", qos_class(&spec(case)))).concat();
        expect![[r#"
            BestEffort
            Guaranteed
            Burstable
            Burstable
            Burstable
            Burstable
            BestEffort
            BestEffort
            Guaranteed
        "#]]
        .assert_eq(&table);
    }

    #[test]
    fn ports_of_the_node() {
        let spec = spec(json!({
            "containers": [{"name": "c", "ports": [{"containerPort": 80, "hostPort": 8080}, {"containerPort": 81}]}],
            "initContainers": [
                {"name": "i", "ports": [{"containerPort": 1, "hostPort": 1}]},
                {"name": "s", "restartPolicy": "Always", "ports": [{"containerPort": 2, "hostPort": 2, "hostIP": "10.0.0.1", "protocol": "UDP"}]},
            ],
        }));
        let ports = host_ports(&spec);
        let shown: Vec<String> =
            ports.iter().map(|(protocol, address, port)| format!("{protocol}/{address}:{port}")).collect();
        assert_eq!(shown, ["TCP/0.0.0.0:8080", "UDP/10.0.0.1:2"]);
        assert!(ports_clash(&ports[0], &("TCP".to_owned(), "10.0.0.1".to_owned(), 8080)));
        assert!(!ports_clash(&ports[0], &ports[1]));
    }
}
