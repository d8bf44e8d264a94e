//! The environment variables of a container.
//!
//! Pure: the ConfigMaps, Secrets and Services are handed in. Mirrors `makeEnvironmentVariables`
//! (`pkg/kubelet/kubelet_pods.go`), `pkg/kubelet/envvars` (one block of variables per Service) and the `$(NAME)` syntax
//! of `third_party/forked/golang/expansion`. A reference that cannot be followed is an error with the kubelet's words,
//! never an empty variable.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use api::Pod;
use k8s_openapi::api::core::v1::{
    ConfigMap, Container, EnvVarSource, ObjectFieldSelector, ResourceFieldSelector, Secret, Service, ServicePort,
};

use crate::resources;

/// What variables may be taken from.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// ConfigMaps of the pod's namespace by name; a missing one is not in here.
    pub config_maps: BTreeMap<String, ConfigMap>,
    /// Secrets likewise.
    pub secrets: BTreeMap<String, Secret>,
    /// Services of the pod's namespace, and `default/kubernetes`.
    pub services: Vec<Service>,
}

/// What the API does not know about the pod (yet).
#[derive(Clone, Debug)]
pub struct Place {
    /// Name of the node.
    pub node: String,
    /// Address of the node.
    pub host_ip: IpAddr,
    /// Address of the pod.
    pub pod_ip: Option<IpAddr>,
    /// Thousandths of a core that the node has.
    pub cpu_milli: i64,
    /// Bytes of memory that the node has.
    pub memory_bytes: i64,
}

/// Names of the objects a container's variables are taken from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// ConfigMaps.
    pub config_maps: BTreeSet<String>,
    /// Secrets.
    pub secrets: BTreeSet<String>,
}

/// What must be read before [`build`] can be called.
pub fn needs(container: &Container) -> Needs {
    let mut needs = Needs::default();
    for from in container.env_from.iter().flatten() {
        needs.config_maps.extend(from.config_map_ref.iter().map(|one| one.name.clone()));
        needs.secrets.extend(from.secret_ref.iter().map(|one| one.name.clone()));
    }
    for source in container.env.iter().flatten().filter_map(|variable| variable.value_from.as_ref()) {
        needs.config_maps.extend(source.config_map_key_ref.iter().map(|one| one.name.clone()));
        needs.secrets.extend(source.secret_key_ref.iter().map(|one| one.name.clone()));
    }
    needs
}

/// The variables, in order; of two with one name the later counts.
pub fn build(
    pod: &Pod,
    container: &Container,
    sources: &Sources,
    place: &Place,
) -> Result<Vec<(String, String)>, String> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let links = pod.spec.as_deref().is_none_or(|spec| spec.enable_service_links != Some(false));
    let services = service_variables(&sources.services, namespace, links);
    let mut variables = Variables::default();
    from_objects(&mut variables, container, sources, namespace)?;
    for variable in container.env.iter().flatten() {
        let value = match (&variable.value, &variable.value_from) {
            (None, Some(source)) => match from_source(source, pod, container, sources, place)? {
                Some(value) => value,
                None => continue,
            },
            (value, _) => expand(value.as_deref().unwrap_or_default(), |name| {
                variables.get(name).or_else(|| services.get(name).map(String::as_str)).map(str::to_owned)
            }),
        };
        variables.set(&variable.name, value);
    }
    let own: BTreeSet<String> = variables.0.iter().map(|(name, _)| name.clone()).collect();
    let mut all: Vec<_> = services.into_iter().filter(|(name, _)| !own.contains(name)).collect();
    all.append(&mut variables.0);
    Ok(all)
}

#[derive(Default)]
struct Variables(Vec<(String, String)>);

impl Variables {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().rev().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    fn set(&mut self, name: &str, value: String) {
        match self.0.iter_mut().find(|(other, _)| other == name) {
            Some((_, old)) => *old = value,
            None => self.0.push((name.to_owned(), value)),
        }
    }
}

fn from_objects(
    variables: &mut Variables,
    container: &Container,
    sources: &Sources,
    namespace: &str,
) -> Result<(), String> {
    for from in container.env_from.iter().flatten() {
        let prefix = from.prefix.as_deref().unwrap_or_default();
        if let Some(one) = &from.config_map_ref {
            match sources.config_maps.get(&one.name) {
                Some(map) => {
                    for (key, value) in map.data.iter().flatten() {
                        variables.set(&format!("{prefix}{key}"), value.clone());
                    }
                }
                None if one.optional == Some(true) => {}
                None => return Err(format!("configmap \"{}\" not found", one.name)),
            }
        }
        if let Some(one) = &from.secret_ref {
            match sources.secrets.get(&one.name) {
                Some(secret) => {
                    for (key, value) in secret.data.iter().flatten() {
                        let value = text(&value.0, &format!("key {key} of Secret {namespace}/{}", one.name))?;
                        variables.set(&format!("{prefix}{key}"), value);
                    }
                }
                None if one.optional == Some(true) => {}
                None => return Err(format!("secret \"{}\" not found", one.name)),
            }
        }
    }
    Ok(())
}

fn text(bytes: &[u8], what: &str) -> Result<String, String> {
    String::from_utf8(bytes.to_vec()).map_err(|_| format!("{what} is not text and cannot be a variable"))
}

/// The value of `valueFrom`; `None`: optional and not there.
fn from_source(
    source: &EnvVarSource,
    pod: &Pod,
    container: &Container,
    sources: &Sources,
    place: &Place,
) -> Result<Option<String>, String> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    if let Some(field) = &source.field_ref {
        return field_value(field, pod, place).map(Some);
    }
    if let Some(resource) = &source.resource_field_ref {
        return resource_value(resource, pod, Some(container), place).map(Some);
    }
    if let Some(key) = &source.config_map_key_ref {
        let optional = key.optional == Some(true);
        let Some(map) = sources.config_maps.get(&key.name) else {
            return if optional { Ok(None) } else { Err(format!("configmap \"{}\" not found", key.name)) };
        };
        return match map.data.as_ref().and_then(|data| data.get(&key.key)) {
            Some(value) => Ok(Some(value.clone())),
            None if optional => Ok(None),
            None => Err(format!("couldn't find key {} in ConfigMap {namespace}/{}", key.key, key.name)),
        };
    }
    if let Some(key) = &source.secret_key_ref {
        let optional = key.optional == Some(true);
        let Some(secret) = sources.secrets.get(&key.name) else {
            return if optional { Ok(None) } else { Err(format!("secret \"{}\" not found", key.name)) };
        };
        return match secret.data.as_ref().and_then(|data| data.get(&key.key)) {
            Some(value) => text(&value.0, &format!("key {} of Secret {namespace}/{}", key.key, key.name)).map(Some),
            None if optional => Ok(None),
            None => Err(format!("couldn't find key {} in Secret {namespace}/{}", key.key, key.name)),
        };
    }
    Err("valueFrom names a source that this node does not support".into())
}

/// The value a `fieldRef` points at (`pkg/fieldpath`, `podFieldSelectorRuntimeValue`).
pub fn field_value(field: &ObjectFieldSelector, pod: &Pod, place: &Place) -> Result<String, String> {
    let path = field.field_path.as_str();
    let meta = &pod.metadata;
    let spec = pod.spec.as_deref();
    let account = || spec.and_then(|spec| spec.service_account_name.clone()).unwrap_or_default();
    if let Some((map, key)) = subscript(path) {
        let map = match map {
            "metadata.labels" => &meta.labels,
            "metadata.annotations" => &meta.annotations,
            _ => return Err(format!("unsupported fieldPath: {path}")),
        };
        return Ok(map.as_ref().and_then(|map| map.get(key)).cloned().unwrap_or_default());
    }
    Ok(match path {
        "metadata.name" => meta.name.clone().unwrap_or_default(),
        "metadata.namespace" => meta.namespace.clone().unwrap_or_default(),
        "metadata.uid" => meta.uid.clone().unwrap_or_default(),
        "metadata.labels" => map_in_lines(&meta.labels),
        "metadata.annotations" => map_in_lines(&meta.annotations),
        "spec.nodeName" => place.node.clone(),
        "spec.serviceAccountName" => account(),
        "status.hostIP" | "status.hostIPs" => place.host_ip.to_string(),
        "status.podIP" | "status.podIPs" => place.pod_ip.map(|ip| ip.to_string()).unwrap_or_default(),
        _ => return Err(format!("unsupported fieldPath: {path}")),
    })
}

/// `metadata.labels['app']` → (`metadata.labels`, `app`).
fn subscript(path: &str) -> Option<(&str, &str)> {
    let (map, rest) = path.split_once("['")?;
    Some((map, rest.strip_suffix("']")?))
}

fn map_in_lines(map: &Option<BTreeMap<String, String>>) -> String {
    let lines = map.iter().flatten().map(|(key, value)| format!("{key}={value:?}"));
    lines.collect::<Vec<_>>().join("\n")
}

/// The value a `resourceFieldRef` points at; a missing limit is what the node has.
pub fn resource_value(
    field: &ResourceFieldSelector,
    pod: &Pod,
    container: Option<&Container>,
    place: &Place,
) -> Result<String, String> {
    let named = |name: &String| crate::pod_on_node::container_spec(pod, name);
    let container = field.container_name.as_ref().filter(|name| !name.is_empty()).and_then(named).or(container);
    let container = container.ok_or_else(|| "resourceFieldRef names no container of the pod".to_owned())?;
    let cpu = |quantity: Option<_>, missing: i64| quantity.and_then(resources::milli).unwrap_or(missing);
    let bytes = |quantity: Option<_>, missing: i64| quantity.and_then(resources::whole).unwrap_or(missing);
    // In thousandths, so that a divisor such as `1m` divides exactly.
    let (value, unit) = match field.resource.as_str() {
        "limits.cpu" => (cpu(resources::limit(container, "cpu"), place.cpu_milli), 1),
        "requests.cpu" => (cpu(resources::request(container, "cpu"), 0), 1),
        "limits.memory" => (bytes(resources::limit(container, "memory"), place.memory_bytes), 1000),
        "requests.memory" => (bytes(resources::request(container, "memory"), 0), 1000),
        "limits.ephemeral-storage" => (bytes(resources::limit(container, "ephemeral-storage"), 0), 1000),
        "requests.ephemeral-storage" => (bytes(resources::request(container, "ephemeral-storage"), 0), 1000),
        other => return Err(format!("unsupported container resource : {other}")),
    };
    let divisor = field.divisor.as_ref().and_then(resources::milli).filter(|divisor| *divisor > 0).unwrap_or(1000);
    let value = i128::from(value) * unit;
    let divisor = i128::from(divisor);
    Ok(((value + divisor - 1) / divisor).to_string())
}

/// `$(NAME)` becomes the variable's value, `$$` a dollar; what is not known stays as it is written.
pub fn expand(text: &str, value_of: impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|inner| inner.split_once(')')) {
            out.push_str(&value_of(name).unwrap_or_else(|| format!("$({name})")));
            rest = after;
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    out
}

fn service_variables(services: &[Service], namespace: &str, links: bool) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::new();
    for service in services {
        let (name, home) = (service.metadata.name.as_deref(), service.metadata.namespace.as_deref());
        let (Some(name), Some(spec)) = (name, &service.spec) else { continue };
        let master = name == "kubernetes" && home == Some("default");
        let address = spec.cluster_ip.as_deref().filter(|ip| !ip.is_empty() && *ip != "None");
        if let Some(address) = address
            && (master || (links && home == Some(namespace)))
        {
            one_service(&mut variables, name, address, spec.ports.as_deref().unwrap_or_default());
        }
    }
    variables
}

fn one_service(variables: &mut BTreeMap<String, String>, name: &str, address: &str, ports: &[ServicePort]) {
    let prefix = in_capitals(name);
    let Some(first) = ports.first() else { return };
    let host = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
    let url = |port: &ServicePort| format!("{}://{host}:{}", protocol(port).to_lowercase(), port.port);
    variables.insert(format!("{prefix}_SERVICE_HOST"), address.to_owned());
    variables.insert(format!("{prefix}_SERVICE_PORT"), first.port.to_string());
    variables.insert(format!("{prefix}_PORT"), url(first));
    for port in ports {
        if let Some(name) = &port.name {
            variables.insert(format!("{prefix}_SERVICE_PORT_{}", in_capitals(name)), port.port.to_string());
        }
        let base = format!("{prefix}_PORT_{}_{}", port.port, protocol(port));
        variables.insert(format!("{base}_PROTO"), protocol(port).to_lowercase());
        variables.insert(format!("{base}_PORT"), port.port.to_string());
        variables.insert(format!("{base}_ADDR"), address.to_owned());
        variables.insert(base, url(port));
    }
}

fn protocol(port: &ServicePort) -> &str {
    port.protocol.as_deref().unwrap_or("TCP")
}

fn in_capitals(name: &str) -> String {
    name.to_uppercase().replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn check(pod: &str, sources: &[&str], expected: Expect) {
        let pod: Pod = serde_yaml::from_str(pod).unwrap();
        let mut known = Sources::default();
        for source in sources {
            let value: serde_json::Value = serde_yaml::from_str(source).unwrap();
            let name = value["metadata"]["name"].as_str().unwrap().to_owned();
            match value["kind"].as_str().unwrap() {
                "ConfigMap" => drop(known.config_maps.insert(name, serde_json::from_value(value).unwrap())),
                "Secret" => drop(known.secrets.insert(name, serde_json::from_value(value).unwrap())),
                _ => known.services.push(serde_json::from_value(value).unwrap()),
            }
        }
        let place = Place {
            node: "n1".into(),
            host_ip: "10.0.0.1".parse().unwrap(),
            pod_ip: "10.244.0.9".parse().ok(),
            cpu_milli: 2000,
            memory_bytes: 1 << 30,
        };
        let container = &pod.spec.as_deref().unwrap().containers[0];
        let told = match build(&pod, container, &known, &place) {
            Ok(variables) => variables.iter().map(|(name, value)| format!("{name}={value}\n")).collect(),
            Err(error) => format!("error: {error}\n"),
        };
        expected.assert_eq(&told);
    }

    #[test]
    fn variables_come_from_everywhere_and_expand() {
        check(
            "
metadata: {name: p, namespace: ns, uid: u, labels: {app: web}}
spec:
  containers:
  - name: c
    resources: {limits: {cpu: 1500m, memory: 64Mi}}
    envFrom:
    - {prefix: C_, configMapRef: {name: settings}}
    env:
    - {name: A, value: one}
    - {name: B, value: '$(A) and $(WEB_SERVICE_HOST) $$(A) $(MISSING) $5'}
    - {name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
    - {name: IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
    - {name: APP, valueFrom: {fieldRef: {fieldPath: 'metadata.labels[''app'']'}}}
    - {name: CPU, valueFrom: {resourceFieldRef: {resource: limits.cpu}}}
    - {name: MILLI, valueFrom: {resourceFieldRef: {resource: limits.cpu, divisor: 1m}}}
    - {name: MEMORY, valueFrom: {resourceFieldRef: {resource: limits.memory, divisor: 1Mi}}}
    - {name: PASSWORD, valueFrom: {secretKeyRef: {name: s, key: password}}}
    - {name: MAYBE, valueFrom: {secretKeyRef: {name: none, key: password, optional: true}}}
    - {name: A, value: two}
",
            &[
                "{kind: ConfigMap, metadata: {name: settings}, data: {color: blue}}",
                "{kind: Secret, metadata: {name: s}, data: {password: aGlkZGVu}}",
                "{kind: Service, metadata: {name: web, namespace: ns}, spec: {clusterIP: 10.96.0.7, ports: [{port: 80}]}}",
                "{kind: Service, metadata: {name: else, namespace: other}, spec: {clusterIP: 10.96.0.8, ports: [{port: 80}]}}",
            ],
            expect![[r#"
                WEB_PORT=tcp://10.96.0.7:80
                WEB_PORT_80_TCP=tcp://10.96.0.7:80
                WEB_PORT_80_TCP_ADDR=10.96.0.7
                WEB_PORT_80_TCP_PORT=80
                WEB_PORT_80_TCP_PROTO=tcp
                WEB_SERVICE_HOST=10.96.0.7
                WEB_SERVICE_PORT=80
                C_color=blue
                A=two
                B=one and 10.96.0.7 $(A) $(MISSING) $5
                NODE=n1
                IP=10.244.0.9
                APP=web
                CPU=2
                MILLI=1500
                MEMORY=64
                PASSWORD=hidden
            "#]],
        );
    }

    #[test]
    fn a_missing_source_is_an_error() {
        check(
            "{metadata: {name: p, namespace: ns}, spec: {containers: [{name: c, env: [{name: A, valueFrom: {configMapKeyRef: {name: m, key: k}}}]}]}}",
            &["{kind: ConfigMap, metadata: {name: m}, data: {}}"],
            expect![[r#"
                error: couldn't find key k in ConfigMap ns/m
            "#]],
        );
        check(
            "{metadata: {name: p, namespace: ns}, spec: {containers: [{name: c, envFrom: [{secretRef: {name: m}}]}]}}",
            &[],
            expect![[r#"
                error: secret "m" not found
            "#]],
        );
    }
}
