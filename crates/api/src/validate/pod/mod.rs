//! Pods and pod templates.
//!
//! Mirrors `pkg/apis/core/validation/validation.go`: ValidatePodCreate, ValidatePodUpdate, ValidatePodSpec,
//! ValidatePodTemplateSpec. What kapstan cannot do is refused by `unsupported`, not here.

mod containers;
mod environment;
mod probes;
pub(super) mod resources;
mod scheduling;
mod security;
mod volumes;

use crate::Pod;
use k8s_openapi::api::core::v1::{Container, ContainerStatus, PodDNSConfig, PodSpec, PodTemplateSpec, Toleration};

pub(super) use probes::port;
pub(super) use resources::amount_of;
pub(super) use scheduling::node_selector;
pub(super) use volumes::{host_path, source_names};

use super::field::{Errors, Path};
use super::meta;
use crate::names;
use crate::pod_resources::is_sidecar;

/// The annotation that says what deleting a pod costs.
pub const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

const NAME_SERVERS: usize = 3;
const SEARCH_PATHS: usize = 32;
const SEARCH_CHARACTERS: usize = 2048;
const HOST_NAME_BYTES: usize = 64;

/// A new pod.
pub fn create(pod: &Pod) -> Errors {
    let mut errors = Errors::default();
    meta::create(&mut errors, &pod.metadata, true, names::dns_subdomain);
    pod_annotations(&mut errors, &Path::root("metadata.annotations"), pod.metadata.annotations.as_ref());
    let path = Path::root("spec");
    let Some(spec) = pod.spec.as_deref() else {
        errors.required(&path, "");
        return errors;
    };
    pod_spec(&mut errors, &path, spec, true);
    volumes::tokens_need_an_account(&mut errors, &path.child("volumes"), spec);
    image_whitespace(&mut errors, &path.child("containers"), &spec.containers);
    image_whitespace(&mut errors, &path.child("initContainers"), spec.init_containers.as_deref().unwrap_or_default());
    if spec.ephemeral_containers.as_ref().is_some_and(|containers| !containers.is_empty()) {
        errors.forbidden(&path.child("ephemeralContainers"), "cannot be set on create");
    }
    let gated = spec.scheduling_gates.as_ref().is_some_and(|gates| !gates.is_empty());
    if gated && spec.node_name.as_deref().is_some_and(|name| !name.is_empty()) {
        errors.forbidden(&path.child("nodeName"), "cannot be set until all schedulingGates have been cleared");
    }
    errors
}

/// A changed pod: only a few fields may change.
pub fn update(new: &Pod, old: &Pod) -> Errors {
    let mut errors = Errors::default();
    meta::update(&mut errors, &new.metadata, &old.metadata);
    pod_annotations(&mut errors, &Path::root("metadata.annotations"), new.metadata.annotations.as_ref());
    let path = Path::root("spec");
    let (Some(new), Some(old)) = (new.spec.as_ref(), old.spec.as_ref()) else {
        errors.required(&path, "");
        return errors;
    };
    let init = |spec: &PodSpec| spec.init_containers.clone().unwrap_or_default();
    let same_containers = container_update(&mut errors, &path.child("containers"), &new.containers, &old.containers)
        && container_update(&mut errors, &path.child("initContainers"), &init(new), &init(old));
    if !same_containers || !deadline_update(&mut errors, &path.child("activeDeadlineSeconds"), new, old) {
        return errors;
    }
    toleration_update(&mut errors, &path.child("tolerations"), new, old);
    gate_update(&mut errors, &path.child("schedulingGates"), new, old);
    if new != old && with_changeable_fields_of(new, old) != **old {
        errors.forbidden(
            &path,
            "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,\
             `spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),\
             `spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)",
        );
    }
    errors
}

/// A changed status of a pod.
pub fn update_status(new: &Pod, old: &Pod) -> Errors {
    let mut errors = Errors::default();
    meta::update(&mut errors, &new.metadata, &old.metadata);
    let path = Path::root("status");
    let quality = |pod: &Pod| pod.status.as_ref().and_then(|status| status.qos_class.clone());
    errors.immutable(&path.child("qosClass"), &quality(new), &quality(old));
    let Some(status) = new.status.as_ref() else { return errors };
    let conditions = path.child("conditions");
    for (i, condition) in status.conditions.iter().flatten().enumerate() {
        if !matches!(condition.type_.as_str(), "PodScheduled" | "Ready" | "Initialized") {
            let at = conditions.index(i);
            errors.each(&at.child("Type"), &condition.type_, names::qualified_name(&condition.type_));
        }
    }
    let addresses = path.child("podIPs");
    for (i, address) in status.pod_ips.iter().flatten().enumerate() {
        errors.each(&addresses.index(i), &address.ip, names::ip_address(&address.ip));
    }
    if let Some(first) = status.host_ips.as_ref().and_then(|list| list.first())
        && status.host_ip.as_deref() != Some(first.ip.as_str())
    {
        errors.invalid(&path.child("hostIPs[0].ip"), first.ip.as_str(), "must be equal to `hostIP`");
    }
    if let (Some(spec), Some(before)) = (new.spec.as_deref(), old.status.as_ref()) {
        let at = path.child("containerStatuses");
        stays_ended(&mut errors, &at, spec, &status.container_statuses, &before.container_statuses);
        let at = path.child("initContainerStatuses");
        stays_ended(&mut errors, &at, spec, &status.init_container_statuses, &before.init_container_statuses);
    }
    errors
}

/// A container that has stopped and is not to be started again stays so: a report that comes late does not bring it back
/// (upstream: ValidateContainerStateTransition, ValidateInitContainerStateTransition).
fn stays_ended(
    errors: &mut Errors,
    path: &Path<'_>,
    spec: &PodSpec,
    new: &Option<Vec<ContainerStatus>>,
    old: &Option<Vec<ContainerStatus>>,
) {
    let ended = |status: &ContainerStatus| status.state.as_ref().and_then(|state| state.terminated.clone());
    let sidecar = |name: &str| spec.init_containers.iter().flatten().any(|it| it.name == name && is_sidecar(it));
    let restarts = |name: &str, code: i32| match spec.restart_policy.as_deref() {
        Some("Never") => sidecar(name),
        Some("OnFailure") => code != 0 || sidecar(name),
        _ => true,
    };
    for (i, before) in old.iter().flatten().enumerate() {
        if ended(before).is_none_or(|end| restarts(&before.name, end.exit_code)) {
            continue;
        }
        let runs = |after: &&ContainerStatus| after.name == before.name && ended(after).is_none();
        if new.iter().flatten().any(|after| runs(&after)) {
            errors.forbidden(&path.index(i).child("state"), "may not be transitioned to non-terminated state");
        }
    }
}

/// The template of a workload.
pub fn template(errors: &mut Errors, path: &Path<'_>, template: &PodTemplateSpec) {
    let meta = template.metadata.as_ref();
    meta::labels(errors, &path.child("labels"), meta.and_then(|meta| meta.labels.as_ref()));
    let annotations = meta.and_then(|meta| meta.annotations.as_ref());
    meta::annotations(errors, &path.child("annotations"), annotations);
    pod_annotations(errors, &path.child("annotations"), annotations);
    let path = path.child("spec");
    let Some(spec) = template.spec.as_ref() else {
        errors.required(&path.child("containers"), "");
        return;
    };
    pod_spec(errors, &path, spec, false);
    if spec.ephemeral_containers.as_ref().is_some_and(|containers| !containers.is_empty()) {
        errors.forbidden(&path.child("ephemeralContainers"), "ephemeral containers not allowed in pod template");
    }
}

fn pod_spec(errors: &mut Errors, path: &Path<'_>, spec: &PodSpec, is_pod: bool) {
    volumes::all(errors, &path.child("volumes"), spec.volumes.as_deref().unwrap_or_default());
    containers::all(errors, path, spec);
    resources::pod_level(errors, path, spec);
    if spec.host_network == Some(true) {
        host_network_ports(errors, &path.child("containers"), &spec.containers, is_pod);
    }
    errors.one_of(&path.child("restartPolicy"), spec.restart_policy.as_deref(), &["Always", "OnFailure", "Never"]);
    let dns_policies = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
    errors.one_of(&path.child("dnsPolicy"), spec.dns_policy.as_deref(), &dns_policies);
    meta::labels(errors, &path.child("nodeSelector"), spec.node_selector.as_ref());
    security::pod(errors, &path.child("securityContext"), spec);
    scheduling::affinity(errors, &path.child("affinity"), spec.affinity.as_ref());
    dns_config(errors, &path.child("dnsConfig"), spec);
    gates(errors, path, spec);
    let constraints = spec.topology_spread_constraints.as_deref().unwrap_or_default();
    scheduling::spread(errors, &path.child("topologySpreadConstraints"), constraints);
    host_names(errors, path, spec);
    references(errors, path, spec);
    if let Some(seconds) = spec.active_deadline_seconds {
        let problems = names::in_range(seconds, 1, i64::from(i32::MAX));
        errors.each_number(&path.child("activeDeadlineSeconds"), seconds, problems);
    }
    scheduling::tolerations(errors, &path.child("tolerations"), spec.tolerations.as_deref().unwrap_or_default());
    let preemption = spec.preemption_policy.as_deref();
    errors.optional_one_of(&path.child("preemptionPolicy"), preemption, &["PreemptLowerPriority", "Never"]);
    if let Some(overhead) = spec.overhead.as_ref() {
        resources::list(errors, &path.child("overhead"), overhead);
    }
    if let Some(os) = spec.os.as_ref() {
        if os.name.is_empty() {
            errors.required(&path.child("os.name"), "");
        }
        errors.optional_one_of(
            &path.child("os"),
            Some(os.name.as_str()).filter(|name| !name.is_empty()),
            &["linux", "windows"],
        );
    }
}

/// Names of other objects.
fn references(errors: &mut Errors, path: &Path<'_>, spec: &PodSpec) {
    let names = [
        ("serviceAccountName", &spec.service_account_name),
        ("nodeName", &spec.node_name),
        ("priorityClassName", &spec.priority_class_name),
        ("runtimeClassName", &spec.runtime_class_name),
    ];
    for (field, name) in names {
        if let Some(name) = name.as_deref().filter(|name| !name.is_empty()) {
            errors.each(&path.child(field), name, names::dns_subdomain(name));
        }
    }
}

fn host_names(errors: &mut Errors, path: &Path<'_>, spec: &PodSpec) {
    for (field, name) in [("hostname", &spec.hostname), ("subdomain", &spec.subdomain)] {
        if let Some(name) = name.as_deref().filter(|name| !name.is_empty()) {
            errors.each(&path.child(field), name, names::dns_label(name));
        }
    }
    let aliases = path.child("hostAliases");
    for (i, alias) in spec.host_aliases.iter().flatten().enumerate() {
        let at = aliases.index(i);
        errors.each(&at.child("ip"), &alias.ip, names::ip_address(&alias.ip));
        let hosts = at.child("hostnames");
        for (j, host) in alias.hostnames.iter().flatten().enumerate() {
            errors.each(&hosts.index(j), host, names::dns_subdomain(host));
        }
    }
    let Some(name) = spec.hostname_override.as_deref() else { return };
    let path = path.child("hostnameOverride");
    if spec.set_hostname_as_fqdn == Some(true) {
        errors.forbidden(&path, "may not be specified when setHostnameAsFQDN is true");
    }
    if spec.host_network == Some(true) {
        errors.forbidden(&path, "may not be specified when hostNetwork is true");
    }
    if name.len() > HOST_NAME_BYTES {
        errors.too_long(&path, HOST_NAME_BYTES);
    }
    errors.each(&path, name, names::dns_subdomain(name));
}

fn gates(errors: &mut Errors, path: &Path<'_>, spec: &PodSpec) {
    let readiness = path.child("readinessGates");
    for (i, gate) in spec.readiness_gates.iter().flatten().enumerate() {
        let at = readiness.index(i);
        errors.each(&at.child("conditionType"), &gate.condition_type, names::qualified_name(&gate.condition_type));
    }
    let scheduling = path.child("schedulingGates");
    let gates = spec.scheduling_gates.as_deref().unwrap_or_default();
    for (i, gate) in gates.iter().enumerate() {
        errors.each(&scheduling.index(i), &gate.name, names::qualified_name(&gate.name));
        if gates[..i].iter().any(|other| other.name == gate.name) {
            errors.duplicate(&scheduling.index(i), gate.name.as_str());
        }
    }
}

fn dns_config(errors: &mut Errors, path: &Path<'_>, spec: &PodSpec) {
    let servers = |config: &PodDNSConfig| config.nameservers.clone().unwrap_or_default();
    if spec.dns_policy.as_deref() == Some("None") {
        match spec.dns_config.as_ref() {
            None => return errors.required(path, "must provide `dnsConfig` when `dnsPolicy` is None"),
            Some(config) if servers(config).is_empty() => {
                let detail = "must provide at least one DNS nameserver when `dnsPolicy` is None";
                return errors.required(&path.child("nameservers"), detail);
            }
            Some(_) => {}
        }
    }
    let Some(config) = spec.dns_config.as_ref() else { return };
    let at = path.child("nameservers");
    let servers = servers(config);
    if servers.len() > NAME_SERVERS {
        errors.invalid_object(&at, &servers, format!("must not have more than {NAME_SERVERS} nameservers"));
    }
    for (i, server) in servers.iter().enumerate() {
        errors.each(&at.index(i), server, names::ip_address(server));
    }
    let at = path.child("searches");
    let searches = config.searches.clone().unwrap_or_default();
    if searches.len() > SEARCH_PATHS {
        errors.invalid_object(&at, &searches, format!("must not have more than {SEARCH_PATHS} search paths"));
    }
    if searches.join(" ").len() > SEARCH_CHARACTERS {
        let detail =
            format!("must not have more than {SEARCH_CHARACTERS} characters (including spaces) in the search list");
        errors.invalid_object(&at, &searches, detail);
    }
    for (i, search) in searches.iter().enumerate().filter(|(_, search)| *search != ".") {
        let search = search.strip_suffix('.').unwrap_or(search);
        errors.each(&at.index(i), search, names::dns_subdomain_with_underscore(search));
    }
    let at = path.child("options");
    for (i, option) in config.options.iter().flatten().enumerate() {
        if option.name.as_deref().is_none_or(str::is_empty) {
            errors.required(&at.index(i), "must not be empty");
        }
    }
}

fn host_network_ports(errors: &mut Errors, path: &Path<'_>, containers: &[Container], is_pod: bool) {
    for (i, container) in containers.iter().enumerate() {
        let container_path = path.index(i);
        let ports = container_path.child("ports");
        for (j, port) in container.ports.iter().flatten().enumerate() {
            let host = port.host_port.unwrap_or(0);
            if (is_pod || host != 0) && host != port.container_port {
                let at = ports.index(j);
                errors.invalid(&at.child("hostPort"), host, "must match `containerPort` when `hostNetwork` is true");
            }
        }
    }
}

fn pod_annotations(
    errors: &mut Errors,
    path: &Path<'_>,
    annotations: Option<&std::collections::BTreeMap<String, String>>,
) {
    if let Some(cost) = annotations.and_then(|annotations| annotations.get(DELETION_COST)) {
        // Go's ParseInt, but with neither a plus sign nor leading zeros.
        let odd = cost.starts_with('+') || (cost.len() > 1 && cost.starts_with('0'));
        if odd || cost.parse::<i32>().is_err() {
            errors.invalid(&path.key(DELETION_COST), cost.as_str(), "must be a 32bit integer");
        }
    }
}

fn image_whitespace(errors: &mut Errors, path: &Path<'_>, containers: &[Container]) {
    for (i, container) in containers.iter().enumerate() {
        let image = container.image.as_deref().unwrap_or_default();
        if image.trim() != image {
            let at = path.index(i);
            errors.invalid(&at.child("image"), image, "must not have leading or trailing whitespace");
        }
    }
}

/// False when the containers are not the same ones any more, so that nothing else is worth saying.
fn container_update(errors: &mut Errors, path: &Path<'_>, new: &[Container], old: &[Container]) -> bool {
    if new.len() != old.len() {
        errors.forbidden(path, "pod updates may not add or remove containers");
        return false;
    }
    for (i, container) in new.iter().enumerate() {
        if container.image.as_deref().is_none_or(str::is_empty) {
            let at = path.index(i);
            errors.required(&at.child("image"), "");
        }
    }
    image_whitespace(errors, path, new);
    true
}

/// A deadline may be set, or moved closer; false when nothing else is worth saying.
fn deadline_update(errors: &mut Errors, path: &Path<'_>, new: &PodSpec, old: &PodSpec) -> bool {
    match (new.active_deadline_seconds, old.active_deadline_seconds) {
        (Some(seconds), _) if !(0..=i64::from(i32::MAX)).contains(&seconds) => {
            errors.each_number(path, seconds, names::in_range(seconds, 0, i64::from(i32::MAX)));
            false
        }
        (Some(seconds), Some(before)) if before < seconds => {
            errors.invalid(path, seconds, "must be less than or equal to previous value");
            false
        }
        (None, Some(_)) => {
            errors.invalid_object(path, &(), "must not update from a positive integer to nil value");
            true
        }
        _ => true,
    }
}

fn toleration_update(errors: &mut Errors, path: &Path<'_>, new: &PodSpec, old: &PodSpec) {
    let all = new.tolerations.as_deref().unwrap_or_default();
    let kept = |old: &Toleration| {
        all.iter().any(|new| *new == Toleration { toleration_seconds: new.toleration_seconds, ..old.clone() })
    };
    if !old.tolerations.iter().flatten().all(kept) {
        errors.forbidden(path, "existing toleration can not be modified except its tolerationSeconds");
        return;
    }
    scheduling::tolerations(errors, path, all);
}

fn gate_update(errors: &mut Errors, path: &Path<'_>, new: &PodSpec, old: &PodSpec) {
    let known: Vec<&str> = old.scheduling_gates.iter().flatten().map(|gate| gate.name.as_str()).collect();
    for (i, gate) in new.scheduling_gates.iter().flatten().enumerate() {
        if !known.contains(&gate.name.as_str()) {
            let at = path.index(i);
            let detail = format!("only deletion is allowed, but found new scheduling gate '{}'", gate.name);
            errors.forbidden(&at.child("name"), detail);
        }
    }
}

/// The new spec with everything that may change set back, so that what is left over shows what may not.
fn with_changeable_fields_of(new: &PodSpec, old: &PodSpec) -> PodSpec {
    let mut spec = new.clone();
    let images = |new: &mut [Container], old: &[Container]| {
        for (new, old) in new.iter_mut().zip(old) {
            new.image.clone_from(&old.image);
        }
    };
    images(&mut spec.containers, &old.containers);
    if let (Some(new), Some(old)) = (spec.init_containers.as_mut(), old.init_containers.as_ref()) {
        images(new, old);
    }
    spec.active_deadline_seconds = old.active_deadline_seconds;
    spec.scheduling_gates.clone_from(&old.scheduling_gates);
    spec.tolerations.clone_from(&old.tolerations);
    if old.termination_grace_period_seconds.is_some_and(|seconds| seconds < 0)
        && spec.termination_grace_period_seconds == Some(1)
    {
        spec.termination_grace_period_seconds = old.termination_grace_period_seconds;
    }
    if old.scheduling_gates.as_ref().is_some_and(|gates| !gates.is_empty()) && adds_only(&spec, old) {
        spec.node_selector.clone_from(&old.node_selector);
    }
    spec
}

/// While a pod is held back, its node selector may be narrowed.
fn adds_only(new: &PodSpec, old: &PodSpec) -> bool {
    let new = new.node_selector.as_ref();
    old.node_selector.iter().flatten().all(|(key, value)| new.and_then(|labels| labels.get(key)) == Some(value))
}
