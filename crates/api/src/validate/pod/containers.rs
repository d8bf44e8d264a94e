//! Containers and init containers: names, images, ports, and what must be unique among them.
//!
//! Mirrors validateContainers, validateInitContainers, validateContainerCommon and validateContainerPorts.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Container, ContainerPort, PodSpec};

use super::{environment, probes, resources, security, volumes};
use crate::names;
use crate::pod_resources::is_sidecar;
use crate::validate::field::{Errors, Path};

const RESTART_RULES: usize = 20;
const RESTART_EXIT_CODES: usize = 255;

/// All containers of a pod.
pub(super) fn all(errors: &mut Errors, path: &Path<'_>, spec: &PodSpec) {
    let regular = path.child("containers");
    if spec.containers.is_empty() {
        errors.required(&regular, "");
    }
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    for (i, container) in spec.containers.iter().enumerate() {
        let at = regular.index(i);
        common(errors, &at, container, spec);
        unique_name(errors, &at, container, &mut seen);
        probes::of_container(errors, &at, container, spec);
    }
    let mut ports = BTreeSet::new();
    host_ports(errors, &regular, &spec.containers, &mut ports);
    let initial = path.child("initContainers");
    for (i, container) in spec.init_containers.iter().flatten().enumerate() {
        let at = initial.index(i);
        common(errors, &at, container, spec);
        unique_name(errors, &at, container, &mut seen);
        host_ports(errors, &initial, std::slice::from_ref(container), &mut BTreeSet::new());
        if is_sidecar(container) {
            probes::of_container(errors, &at, container, spec);
        } else {
            no_probes(errors, &at, container);
        }
    }
}

fn common(errors: &mut Errors, path: &Path<'_>, container: &Container, spec: &PodSpec) {
    if container.name.is_empty() {
        errors.required(&path.child("name"), "");
    } else {
        errors.each(&path.child("name"), &container.name, names::dns_label(&container.name));
    }
    if container.image.as_deref().is_none_or(str::is_empty) {
        errors.required(&path.child("image"), "");
    }
    let message_policy = container.termination_message_policy.as_deref();
    errors.one_of(&path.child("terminationMessagePolicy"), message_policy, &["File", "FallbackToLogsOnError"]);
    ports(errors, &path.child("ports"), container.ports.as_deref().unwrap_or_default());
    environment::variables(errors, path, container);
    volumes::mounts(errors, &path.child("volumeMounts"), container, spec);
    let pull_policy = container.image_pull_policy.as_deref();
    errors.one_of(&path.child("imagePullPolicy"), pull_policy, &["Always", "IfNotPresent", "Never"]);
    if let Some(requirements) = container.resources.as_ref() {
        resources::requirements(errors, &path.child("resources"), requirements, resources::container_name);
    }
    resize_policy(errors, &path.child("resizePolicy"), container, spec);
    restart_policy(errors, path, container);
    if let Some(context) = container.security_context.as_ref() {
        security::container(errors, &path.child("securityContext"), context, spec);
    }
}

fn unique_name<'a>(errors: &mut Errors, path: &Path<'_>, container: &'a Container, seen: &mut BTreeSet<&'a str>) {
    if !seen.insert(&container.name) {
        errors.duplicate(&path.child("name"), container.name.as_str());
    }
}

fn ports(errors: &mut Errors, path: &Path<'_>, ports: &[ContainerPort]) {
    let mut seen = BTreeSet::new();
    for (i, port) in ports.iter().enumerate() {
        let at = path.index(i);
        if let Some(name) = port.name.as_deref().filter(|name| !name.is_empty()) {
            let problems = names::port_name(name);
            if problems.is_empty() && !seen.insert(name) {
                errors.duplicate(&at.child("name"), name);
            }
            errors.each(&at.child("name"), name, problems);
        }
        if port.container_port == 0 {
            errors.required(&at.child("containerPort"), "");
        } else {
            number(errors, &at.child("containerPort"), port.container_port);
        }
        if let Some(host) = port.host_port.filter(|host| *host != 0) {
            number(errors, &at.child("hostPort"), host);
        }
        errors.one_of(&at.child("protocol"), port.protocol.as_deref(), &["SCTP", "TCP", "UDP"]);
    }
}

fn number(errors: &mut Errors, path: &Path<'_>, port: i32) {
    errors.each_number(path, i64::from(port), names::port_number(port));
}

fn host_ports(errors: &mut Errors, path: &Path<'_>, containers: &[Container], seen: &mut BTreeSet<String>) {
    for (i, container) in containers.iter().enumerate() {
        let container_path = path.index(i);
        let ports = container_path.child("ports");
        for (j, port) in container.ports.iter().flatten().enumerate() {
            let Some(host) = port.host_port.filter(|host| *host != 0) else { continue };
            let text = |field: &Option<String>| field.clone().unwrap_or_default();
            let key = format!("{}/{}/{host}", text(&port.protocol), text(&port.host_ip));
            if !seen.insert(key.clone()) {
                let at = ports.index(j);
                errors.duplicate(&at.child("hostPort"), key);
            }
        }
    }
}

fn no_probes(errors: &mut Errors, path: &Path<'_>, container: &Container) {
    let given = [
        ("lifecycle", container.lifecycle.is_some()),
        ("livenessProbe", container.liveness_probe.is_some()),
        ("readinessProbe", container.readiness_probe.is_some()),
        ("startupProbe", container.startup_probe.is_some()),
    ];
    for (field, _) in given.iter().filter(|(_, given)| *given) {
        errors.forbidden(&path.child(field), "may not be set for init containers without restartPolicy=Always");
    }
}

fn resize_policy(errors: &mut Errors, path: &Path<'_>, container: &Container, spec: &PodSpec) {
    let policies = container.resize_policy.as_deref().unwrap_or_default();
    for (i, policy) in policies.iter().enumerate() {
        if policies[..i].iter().any(|other| other.resource_name == policy.resource_name) {
            errors.duplicate(&path.index(i), policy.resource_name.as_str());
        }
        errors.one_of(path, Some(policy.resource_name.as_str()), &["cpu", "memory"]);
        errors.one_of(path, Some(policy.restart_policy.as_str()), &["NotRequired", "RestartContainer"]);
        if spec.restart_policy.as_deref() == Some("Never") && policy.restart_policy != "NotRequired" {
            let detail = "must be 'NotRequired' when pod `restartPolicy` is 'Never'";
            errors.invalid(path, policy.restart_policy.as_str(), detail);
        }
    }
}

fn restart_policy(errors: &mut Errors, path: &Path<'_>, container: &Container) {
    let rules = container.restart_policy_rules.as_deref().unwrap_or_default();
    let policy = container.restart_policy.as_deref();
    if policy.is_none() && !rules.is_empty() {
        errors.required(&path.child("restartPolicy"), "must specify restartPolicy when restart rules are used");
    }
    errors.optional_one_of(&path.child("restartPolicy"), policy, &["Always", "Never", "OnFailure"]);
    let path = path.child("restartPolicyRules");
    if rules.len() > RESTART_RULES {
        errors.too_many(&path, rules.len(), RESTART_RULES);
    }
    for (i, rule) in rules.iter().enumerate() {
        let at = path.index(i);
        errors.optional_one_of(&at.child("action"), Some(rule.action.as_str()), &["Restart", "RestartAllContainers"]);
        let Some(codes) = rule.exit_codes.as_ref() else {
            errors.required(&at.child("exitCodes"), "must be specified");
            continue;
        };
        errors.optional_one_of(&at.child("exitCodes.operator"), Some(codes.operator.as_str()), &["In", "NotIn"]);
        let values = codes.values.as_ref().map_or(0, Vec::len);
        if values > RESTART_EXIT_CODES {
            errors.too_many(&at.child("exitCodes.values"), values, RESTART_EXIT_CODES);
        }
    }
}
