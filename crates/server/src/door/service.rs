//! What a cluster gives its Services: families of addresses, an address, and ports of the nodes.
//!
//! Mirrors `pkg/registry/core/service/storage/alloc.go`. There is no allocator that could forget or leak: what is taken is what the
//! Services of the snapshot have, so what one of them gives up is free at once.

use std::collections::{BTreeMap, HashSet};
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;

use api::validate::service::{cluster_addresses, needs_health_check};
use api::validate::{Errors, Path};
use api::{Cause, Kind, Refusal, Snapshot};
use k8s_openapi::api::core::v1::{Service, ServiceSpec};

/// Service addresses: 10.96.0.0/16.
const NETWORK: [u8; 2] = [10, 96];
/// The family of these addresses; this cluster has no other.
const FAMILY: &str = "IPv4";
/// Ports of the nodes that services are given (upstream: `--service-node-port-range`).
const NODE_PORTS: RangeInclusive<i32> = 30_000..=32_767;

const SPEC: Path<'static> = Path::root("spec");
const SINGLE: &str = "SingleStack";
const DUAL: &str = "RequireDualStack";

/// Gives a Service what it has to have, and keeps what it has.
pub(super) fn admit(world: &Snapshot, service: &mut Service, old: Option<&Service>) -> Result<(), Refusal> {
    let (name, uid) = (service.metadata.name.clone().unwrap_or_default(), service.metadata.uid.clone());
    let others: Vec<&ServiceSpec> = world
        .list::<Service>(None)
        .filter(|other| other.metadata.uid != uid)
        .filter_map(|other| other.spec.as_ref())
        .collect();
    let old = old.and_then(|old| old.spec.as_ref());
    let spec = service.spec.get_or_insert_default();
    if spec.type_.as_deref() == Some("ExternalName") {
        spec.cluster_ip = None;
        spec.cluster_ips = None;
        return Ok(());
    }
    if spec.cluster_ips.as_ref().is_none_or(Vec::is_empty) {
        spec.cluster_ips = spec.cluster_ip.clone().filter(|address| !address.is_empty()).map(|address| vec![address]);
    }
    refuse(settle_families(spec, old), &name)?;
    give_address(&others, &name, spec, old)?;
    let mut taken: HashSet<i32> = others.iter().flat_map(|other| node_ports(other)).collect();
    let is_checked = needs_health_check(spec) && old.is_some_and(needs_health_check);
    taken.extend(spec.health_check_node_port.filter(|_| is_checked));
    if matches!(spec.type_.as_deref(), Some("NodePort" | "LoadBalancer")) {
        give_node_ports(&mut taken, &name, spec, old)?;
    }
    if needs_health_check(spec) && !is_checked {
        give_health_check_port(&taken, spec)?;
    }
    Ok(())
}

fn refuse(errors: Errors, name: &str) -> Result<(), Refusal> {
    let causes: Vec<Cause> = errors.0.into_iter().map(Cause::from).collect();
    if causes.is_empty() { Ok(()) } else { Err(Refusal::invalid(Kind::Service, name, causes)) }
}

/// Says which families of addresses the Service has (upstream: `initIPFamilyFields`).
fn settle_families(spec: &mut ServiceSpec, old: Option<&ServiceSpec>) -> Errors {
    let mut errors = Errors::default();
    let of_others = is_headless(spec) && spec.selector.as_ref().is_none_or(BTreeMap::is_empty);
    let policy = spec.ip_family_policy.get_or_insert_with(|| if of_others { DUAL } else { SINGLE }.into()).clone();
    cluster_addresses(&mut errors, spec);
    if errors.0.is_empty() {
        fit_together(&mut errors, spec, &policy, old);
    }
    if errors.0.is_empty() {
        match of_others {
            true => take_both(spec, &policy),
            false => own_family_only(&mut errors, spec, &policy),
        }
    }
    errors
}

fn is_headless(spec: &ServiceSpec) -> bool {
    spec.cluster_ip.as_deref() == Some("None")
}

/// The policy has to allow for as many addresses and families as there are. Families that are not named are those of the addresses.
fn fit_together(errors: &mut Errors, spec: &mut ServiceSpec, policy: &str, old: Option<&ServiceSpec>) {
    let headless = is_headless(spec);
    let addresses = spec.cluster_ips.as_deref().unwrap_or_default();
    let families = spec.ip_families.get_or_insert_default();
    if policy == SINGLE {
        // Who asks for one family and says nothing of the families that there were means the first.
        if old.is_some_and(|old| old.ip_families.as_ref() == Some(families)) {
            families.truncate(1);
        }
        let counts = [(addresses.len(), "cluster IPs"), (families.len(), "IP families")];
        for (_, what) in counts.iter().filter(|(count, _)| *count == 2) {
            let why = format!("must be 'RequireDualStack' or 'PreferDualStack' when multiple {what} are specified");
            errors.invalid(&SPEC.child("ipFamilyPolicy"), SINGLE, why);
        }
    }
    let unnamed = addresses.iter().enumerate().skip(families.len()).filter(|_| !headless);
    for (i, _) in unnamed.filter(|(_, address)| address.contains(':')) {
        let why = "IPv6 is not configured on this cluster";
        errors.invalid_object(&SPEC.child("clusterIPs").index(i), &addresses, why);
    }
    if families.is_empty() {
        families.push(FAMILY.into());
    }
}

/// Endpoints that somebody else looks after, of a Service without an address, may be of both families in any cluster.
fn take_both(spec: &mut ServiceSpec, policy: &str) {
    let families = spec.ip_families.get_or_insert_default();
    if families.len() == 1 && policy != SINGLE {
        families.push(if families[0] == FAMILY { "IPv6" } else { FAMILY }.into());
    }
}

fn own_family_only(errors: &mut Errors, spec: &ServiceSpec, policy: &str) {
    if policy == DUAL {
        let why = "this cluster is not configured for dual-stack services";
        errors.invalid(&SPEC.child("ipFamilyPolicy"), DUAL, why);
    }
    let families = spec.ip_families.iter().flatten().enumerate();
    for (i, family) in families.filter(|(_, family)| *family != FAMILY) {
        errors.invalid(&SPEC.child("ipFamilies").index(i), family.as_str(), "not configured on this cluster");
    }
}

fn give_address(
    others: &[&ServiceSpec],
    name: &str,
    spec: &mut ServiceSpec,
    old: Option<&ServiceSpec>,
) -> Result<(), Refusal> {
    let taken: HashSet<&str> = others.iter().filter_map(|other| other.cluster_ip.as_deref()).collect();
    let kept = old.and_then(|old| old.cluster_ip.clone()).filter(|address| !address.is_empty());
    let given = spec.cluster_ip.clone().filter(|address| !address.is_empty());
    let address = match given.or_else(|| kept.clone()) {
        None => free_address(&taken)?,
        Some(address) if address == "None" || kept.as_ref() == Some(&address) => address,
        Some(address) => {
            refuse(unusable(&taken, &address), name)?;
            address
        }
    };
    spec.cluster_ips = Some(vec![address.clone()]);
    spec.cluster_ip = Some(address);
    Ok(())
}

fn unusable(taken: &HashSet<&str>, address: &str) -> Errors {
    let mut errors = Errors::default();
    let [a, b] = NETWORK;
    let inside = address.parse::<Ipv4Addr>().is_ok_and(|address| address.octets()[..2] == NETWORK);
    let why = match () {
        () if !inside => {
            format!("the provided IP ({address}) is not in the valid range. The range of valid IPs is {a}.{b}.0.0/16")
        }
        () if taken.contains(address) => "provided IP is already allocated".into(),
        () => return errors,
    };
    let why = format!("failed to allocate IP {address}: {why}");
    errors.invalid_object(&SPEC.child("clusterIPs"), &[address], why);
    errors
}

/// The lowest free address behind those kept for the system (.1 the API, .10 DNS).
fn free_address(taken: &HashSet<&str>) -> Result<String, Refusal> {
    let [a, b] = NETWORK;
    let candidates = (11u16..u16::MAX).map(|number| {
        let [c, d] = number.to_be_bytes();
        Ipv4Addr::new(a, b, c, d).to_string()
    });
    let mut free = candidates.filter(|address| !taken.contains(address.as_str()));
    free.next().ok_or_else(|| Refusal::internal("failed to allocate a serviceIP: range is full"))
}

/// All ports of the nodes that a Service has.
fn node_ports(spec: &ServiceSpec) -> impl Iterator<Item = i32> {
    let ports = spec.ports.iter().flatten().map(|port| port.node_port);
    ports.chain([spec.health_check_node_port]).flatten().filter(|port| *port != 0)
}

/// Gives each port of a NodePort or LoadBalancer service a port of the nodes; ports that it had, it keeps. What has one number has one
/// node port, whatever the protocols (upstream: `initNodePorts`).
fn give_node_ports(
    taken: &mut HashSet<i32>,
    name: &str,
    spec: &mut ServiceSpec,
    old: Option<&ServiceSpec>,
) -> Result<(), Refusal> {
    let asked_only =
        spec.type_.as_deref() == Some("LoadBalancer") && spec.allocate_load_balancer_node_ports == Some(false);
    let had = old.and_then(|old| old.ports.clone()).unwrap_or_default();
    let mut given: BTreeMap<i32, i32> = BTreeMap::new();
    for i in 0..spec.ports.as_ref().map_or(0, Vec::len) {
        let ports = spec.ports.as_deref().unwrap_or_default();
        let number = ports[i].port;
        let kept = had.iter().filter(|had| !asked_only && node_ports(spec).all(|own| Some(own) != had.node_port));
        let of_number = ports.iter().chain(kept).filter(|port| port.port == number);
        let asked = [ports[i].node_port].into_iter().chain(of_number.map(|port| port.node_port)).flatten();
        let port = match asked.into_iter().find(|port| *port != 0) {
            None if asked_only => continue,
            None => free_port(taken, spec)
                .ok_or_else(|| Refusal::internal("failed to allocate a nodePort: range is full"))?,
            Some(port) if given.get(&number) == Some(&port) => port,
            Some(port) => {
                let mut errors = Errors::default();
                if let Some(why) = unusable_port(taken, port) {
                    errors.invalid(&SPEC.child("ports").index(i).child("nodePort"), port, why);
                }
                refuse(errors, name)?;
                port
            }
        };
        taken.insert(port);
        given.insert(number, port);
        spec.ports.get_or_insert_default()[i].node_port = Some(port);
    }
    Ok(())
}

/// Gives the port at which nodes say whether they have pods of the Service (upstream: `allocHealthCheckNodePort`).
fn give_health_check_port(taken: &HashSet<i32>, spec: &mut ServiceSpec) -> Result<(), Refusal> {
    let port = match spec.health_check_node_port.filter(|port| *port != 0) {
        None => free_port(taken, spec)
            .ok_or_else(|| Refusal::internal("failed to allocate a HealthCheck NodePort 0: range is full"))?,
        Some(port) => match unusable_port(taken, port) {
            None => port,
            Some(why) => {
                let what = format!("failed to allocate requested HealthCheck NodePort {port}: {why}");
                return Err(Refusal::internal(what));
            }
        },
    };
    spec.health_check_node_port = Some(port);
    Ok(())
}

/// The lowest port that nobody has, and that the Service itself does not ask for either.
fn free_port(taken: &HashSet<i32>, spec: &ServiceSpec) -> Option<i32> {
    NODE_PORTS.clone().find(|candidate| !taken.contains(candidate) && !node_ports(spec).any(|own| own == *candidate))
}

fn unusable_port(taken: &HashSet<i32>, port: i32) -> Option<String> {
    if !NODE_PORTS.contains(&port) {
        let (first, last) = (NODE_PORTS.start(), NODE_PORTS.end());
        return Some(format!("provided port is not in the valid range. The range of valid ports is {first}-{last}"));
    }
    taken.contains(&port).then(|| "provided port is already allocated".into())
}

#[cfg(test)]
mod tests {
    use api::Object;
    use expect_test::{Expect, expect};
    use serde_json::{Value, json};

    use super::*;

    fn service(spec: &Value) -> Service {
        let object = json!({ "metadata": { "name": "s", "namespace": "d", "uid": "u" }, "spec": spec });
        let mut body = Kind::Service.decode(object).unwrap();
        api::defaults::apply(&mut body);
        api::Typed::take(body).unwrap()
    }

    /// What a Service is given in a cluster with one of the address 10.96.0.11 and the node ports 30000 and 30001.
    fn admitted(spec: &Value, old: Option<&Service>) -> Result<Service, Refusal> {
        let mut world = Snapshot::default();
        let other = json!({ "metadata": { "name": "other", "namespace": "d", "uid": "o" }, "spec": {
            "type": "LoadBalancer", "clusterIP": "10.96.0.11", "healthCheckNodePort": 30_001,
            "ports": [{ "port": 80, "nodePort": 30_000 }] } });
        world.put(Object::written(Kind::Service.decode(other).unwrap(), 1));
        let mut body = api::Typed::into_body(service(spec));
        if let Some(old) = old {
            api::prepare::update(&mut body, &api::Typed::into_body(old.clone()));
        }
        let mut service: Service = api::Typed::take(body).unwrap();
        admit(&world, &mut service, old).map(|()| service)
    }

    fn told(answer: Result<Service, Refusal>) -> String {
        let service = match answer {
            Err(refusal) => return format!("{} {}\n", refusal.code, refusal.message),
            Ok(service) => service,
        };
        let spec = service.spec.unwrap();
        let ports: Vec<String> = spec
            .ports
            .iter()
            .flatten()
            .map(|port| format!("{}/{}>{}", port.port, port.protocol.as_deref().unwrap(), port.node_port.unwrap_or(0)))
            .collect();
        format!(
            "{} {} {} ports {} health {}\n",
            spec.cluster_ips.unwrap_or_default().join(","),
            spec.ip_family_policy.unwrap_or_default(),
            spec.ip_families.unwrap_or_default().join(","),
            ports.join(","),
            spec.health_check_node_port.unwrap_or(0),
        )
    }

    fn created(specs: &[Value], expected: &Expect) {
        let table = specs.iter().map(|spec| format!("{spec}\n    {}", told(admitted(spec, None))));
        expected.assert_eq(&table.collect::<String>());
    }

    #[test]
    fn families_of_addresses() {
        created(
            &[
                json!({}),
                json!({ "ipFamilyPolicy": "PreferDualStack" }),
                json!({ "ipFamilyPolicy": "RequireDualStack" }),
                json!({ "ipFamilyPolicy": "PreferDualStack", "ipFamilies": ["IPv4", "IPv6"] }),
                json!({ "ipFamilies": ["IPv4", "IPv6"] }),
                json!({ "ipFamilies": ["IPv6"] }),
                json!({ "clusterIP": "fd00::1" }),
                json!({ "clusterIP": "10.96.0.20", "clusterIPs": ["10.96.0.20", "fd00::1"] }),
                json!({ "clusterIP": "10.96.0.20", "clusterIPs": ["10.96.0.20", "fd00::1"], "ipFamilyPolicy": "PreferDualStack" }),
                json!({ "clusterIP": "10.96.0.20", "clusterIPs": ["10.96.0.20", "10.96.0.21"] }),
                json!({ "clusterIPs": ["10.96.0.20"] }),
                json!({ "clusterIP": "None", "selector": { "a": "b" } }),
                json!({ "clusterIP": "None", "selector": { "a": "b" }, "ipFamilyPolicy": "RequireDualStack" }),
                json!({ "clusterIP": "None" }),
                json!({ "clusterIP": "None", "ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv6"] }),
            ],
            &expect![[r#"
                {}
                    10.96.0.12 SingleStack IPv4 ports  health 0
                {"ipFamilyPolicy":"PreferDualStack"}
                    10.96.0.12 PreferDualStack IPv4 ports  health 0
                {"ipFamilyPolicy":"RequireDualStack"}
                    422 Service "s" is invalid: spec.ipFamilyPolicy: Invalid value: "RequireDualStack": this cluster is not configured for dual-stack services
                {"ipFamilies":["IPv4","IPv6"],"ipFamilyPolicy":"PreferDualStack"}
                    422 Service "s" is invalid: spec.ipFamilies[1]: Invalid value: "IPv6": not configured on this cluster
                {"ipFamilies":["IPv4","IPv6"]}
                    422 Service "s" is invalid: spec.ipFamilyPolicy: Invalid value: "SingleStack": must be 'RequireDualStack' or 'PreferDualStack' when multiple IP families are specified
                {"ipFamilies":["IPv6"]}
                    422 Service "s" is invalid: spec.ipFamilies[0]: Invalid value: "IPv6": not configured on this cluster
                {"clusterIP":"fd00::1"}
                    422 Service "s" is invalid: spec.clusterIPs[0]: Invalid value: ["fd00::1"]: IPv6 is not configured on this cluster
                {"clusterIP":"10.96.0.20","clusterIPs":["10.96.0.20","fd00::1"]}
                    422 Service "s" is invalid: [spec.ipFamilyPolicy: Invalid value: "SingleStack": must be 'RequireDualStack' or 'PreferDualStack' when multiple cluster IPs are specified, spec.clusterIPs[1]: Invalid value: ["10.96.0.20","fd00::1"]: IPv6 is not configured on this cluster]
                {"clusterIP":"10.96.0.20","clusterIPs":["10.96.0.20","fd00::1"],"ipFamilyPolicy":"PreferDualStack"}
                    422 Service "s" is invalid: spec.clusterIPs[1]: Invalid value: ["10.96.0.20","fd00::1"]: IPv6 is not configured on this cluster
                {"clusterIP":"10.96.0.20","clusterIPs":["10.96.0.20","10.96.0.21"]}
                    422 Service "s" is invalid: spec.clusterIPs: Invalid value: ["10.96.0.20","10.96.0.21"]: may specify no more than one IP for each IP family
                {"clusterIPs":["10.96.0.20"]}
                    422 Service "s" is invalid: spec.clusterIPs: Invalid value: ["10.96.0.20"]: must be empty when `clusterIP` is not specified
                {"clusterIP":"None","selector":{"a":"b"}}
                    None SingleStack IPv4 ports  health 0
                {"clusterIP":"None","ipFamilyPolicy":"RequireDualStack","selector":{"a":"b"}}
                    422 Service "s" is invalid: spec.ipFamilyPolicy: Invalid value: "RequireDualStack": this cluster is not configured for dual-stack services
                {"clusterIP":"None"}
                    None RequireDualStack IPv4,IPv6 ports  health 0
                {"clusterIP":"None","ipFamilies":["IPv6"],"ipFamilyPolicy":"SingleStack"}
                    None SingleStack IPv6 ports  health 0
            "#]],
        );
    }

    #[test]
    fn addresses() {
        created(
            &[
                json!({ "clusterIP": "10.96.0.20" }),
                json!({ "clusterIP": "10.96.0.11" }),
                json!({ "clusterIP": "10.97.0.1" }),
            ],
            &expect![[r#"
                {"clusterIP":"10.96.0.20"}
                    10.96.0.20 SingleStack IPv4 ports  health 0
                {"clusterIP":"10.96.0.11"}
                    422 Service "s" is invalid: spec.clusterIPs: Invalid value: ["10.96.0.11"]: failed to allocate IP 10.96.0.11: provided IP is already allocated
                {"clusterIP":"10.97.0.1"}
                    422 Service "s" is invalid: spec.clusterIPs: Invalid value: ["10.97.0.1"]: failed to allocate IP 10.97.0.1: the provided IP (10.97.0.1) is not in the valid range. The range of valid IPs is 10.96.0.0/16
            "#]],
        );
    }

    #[test]
    fn ports_of_the_nodes() {
        let local = |more: Value| {
            let mut spec =
                json!({ "type": "LoadBalancer", "externalTrafficPolicy": "Local", "ports": [{ "port": 80 }] });
            spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            spec
        };
        created(
            &[
                json!({ "type": "NodePort", "ports": [{ "name": "u", "port": 53, "protocol": "UDP" }, { "name": "t", "port": 53 }] }),
                json!({ "type": "NodePort", "ports": [{ "port": 53 }, { "port": 53, "protocol": "UDP", "nodePort": 30_053 }] }),
                json!({ "type": "NodePort", "ports": [{ "port": 80, "nodePort": 30_000 }] }),
                json!({ "type": "NodePort", "ports": [{ "port": 80, "nodePort": 30_001 }] }),
                json!({ "type": "NodePort", "ports": [{ "port": 80, "nodePort": 80 }] }),
                local(json!({})),
                local(json!({ "healthCheckNodePort": 30_080 })),
                local(json!({ "healthCheckNodePort": 30_002 })),
                local(json!({ "healthCheckNodePort": 30_000 })),
                local(json!({ "healthCheckNodePort": 80 })),
                local(json!({ "allocateLoadBalancerNodePorts": false })),
            ],
            &expect![[r#"
                {"ports":[{"name":"u","port":53,"protocol":"UDP"},{"name":"t","port":53}],"type":"NodePort"}
                    10.96.0.12 SingleStack IPv4 ports 53/UDP>30002,53/TCP>30002 health 0
                {"ports":[{"port":53},{"nodePort":30053,"port":53,"protocol":"UDP"}],"type":"NodePort"}
                    10.96.0.12 SingleStack IPv4 ports 53/TCP>30053,53/UDP>30053 health 0
                {"ports":[{"nodePort":30000,"port":80}],"type":"NodePort"}
                    422 Service "s" is invalid: spec.ports[0].nodePort: Invalid value: 30000: provided port is already allocated
                {"ports":[{"nodePort":30001,"port":80}],"type":"NodePort"}
                    422 Service "s" is invalid: spec.ports[0].nodePort: Invalid value: 30001: provided port is already allocated
                {"ports":[{"nodePort":80,"port":80}],"type":"NodePort"}
                    422 Service "s" is invalid: spec.ports[0].nodePort: Invalid value: 80: provided port is not in the valid range. The range of valid ports is 30000-32767
                {"externalTrafficPolicy":"Local","ports":[{"port":80}],"type":"LoadBalancer"}
                    10.96.0.12 SingleStack IPv4 ports 80/TCP>30002 health 30003
                {"externalTrafficPolicy":"Local","healthCheckNodePort":30080,"ports":[{"port":80}],"type":"LoadBalancer"}
                    10.96.0.12 SingleStack IPv4 ports 80/TCP>30002 health 30080
                {"externalTrafficPolicy":"Local","healthCheckNodePort":30002,"ports":[{"port":80}],"type":"LoadBalancer"}
                    10.96.0.12 SingleStack IPv4 ports 80/TCP>30003 health 30002
                {"externalTrafficPolicy":"Local","healthCheckNodePort":30000,"ports":[{"port":80}],"type":"LoadBalancer"}
                    500 Internal error occurred: failed to allocate requested HealthCheck NodePort 30000: provided port is already allocated
                {"externalTrafficPolicy":"Local","healthCheckNodePort":80,"ports":[{"port":80}],"type":"LoadBalancer"}
                    500 Internal error occurred: failed to allocate requested HealthCheck NodePort 80: provided port is not in the valid range. The range of valid ports is 30000-32767
                {"allocateLoadBalancerNodePorts":false,"externalTrafficPolicy":"Local","ports":[{"port":80}],"type":"LoadBalancer"}
                    10.96.0.12 SingleStack IPv4 ports 80/TCP>0 health 30002
            "#]],
        );
    }

    #[test]
    fn what_a_changed_service_keeps() {
        let mut spec = json!({ "type": "LoadBalancer", "externalTrafficPolicy": "Local", "ports": [{ "port": 80 }] });
        let old = admitted(&spec, None).unwrap();
        let mut table = String::new();
        let mut change = |field: &str, value: Value| {
            spec[field] = value;
            let answer = admitted(&spec, Some(&old));
            let refused = answer.as_ref().map(|new| api::validate::service::update(new, &old).0);
            table += &match refused {
                Ok(errors) if !errors.is_empty() => format!("{}\n", errors[0]),
                _ => told(answer),
            };
        };
        change("ports", json!([{ "name": "a", "port": 80 }, { "name": "b", "port": 81 }]));
        change("healthCheckNodePort", json!(30_005));
        change("healthCheckNodePort", json!(null));
        change("type", json!("ClusterIP"));
        change("type", json!("LoadBalancer"));
        change("externalTrafficPolicy", json!("Cluster"));
        change("ipFamilyPolicy", json!("RequireDualStack"));
        expect![[r#"
            10.96.0.12 SingleStack IPv4 ports 80/TCP>30002,81/TCP>30004 health 30003
            spec.healthCheckNodePort: Forbidden: field is immutable
            10.96.0.12 SingleStack IPv4 ports 80/TCP>30002,81/TCP>30004 health 30003
            10.96.0.12 SingleStack IPv4 ports 80/TCP>0,81/TCP>0 health 0
            10.96.0.12 SingleStack IPv4 ports 80/TCP>30002,81/TCP>30004 health 30003
            10.96.0.12 SingleStack IPv4 ports 80/TCP>30002,81/TCP>30003 health 0
            422 Service "s" is invalid: spec.ipFamilyPolicy: Invalid value: "RequireDualStack": this cluster is not configured for dual-stack services
        "#]].assert_eq(&table);
    }
}
