//! Probes and life cycle hooks.
//!
//! Mirrors validateProbe, validateHandler, validateLifecycle.

use k8s_openapi::api::core::v1::{
    Container, ExecAction, GRPCAction, HTTPGetAction, PodSpec, Probe, SleepAction, TCPSocketAction,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::names;
use crate::validate::field::{Errors, Path};

/// What a probe or a hook does.
#[derive(Default)]
struct Handler<'a> {
    exec: Option<&'a ExecAction>,
    http_get: Option<&'a HTTPGetAction>,
    tcp_socket: Option<&'a TCPSocketAction>,
    grpc: Option<&'a GRPCAction>,
    sleep: Option<&'a SleepAction>,
}

/// The probes and hooks of a container that keeps running.
pub(super) fn of_container(errors: &mut Errors, path: &Path<'_>, container: &Container, spec: &PodSpec) {
    let grace = spec.termination_grace_period_seconds;
    if let Some(lifecycle) = container.lifecycle.as_ref() {
        let path = path.child("lifecycle");
        let hooks = [("postStart", &lifecycle.post_start), ("preStop", &lifecycle.pre_stop)];
        for (name, hook) in hooks {
            let Some(hook) = hook.as_ref() else { continue };
            let handler = Handler {
                exec: hook.exec.as_ref(),
                http_get: hook.http_get.as_ref(),
                tcp_socket: hook.tcp_socket.as_ref(),
                sleep: hook.sleep.as_ref(),
                grpc: None,
            };
            check(errors, &path.child(name), &handler, grace);
        }
        if lifecycle.stop_signal.is_some() && spec.os.is_none() {
            let detail = "may not be set for containers with empty `spec.os.name`";
            errors.forbidden(&path.child("stopSignal"), detail);
        }
    }
    once_is_enough(errors, &path.child("livenessProbe"), container.liveness_probe.as_ref(), grace);
    if let Some(readiness) = container.readiness_probe.as_ref() {
        let path = path.child("readinessProbe");
        probe(errors, &path, readiness, grace);
        if let Some(seconds) = readiness.termination_grace_period_seconds {
            let detail = "must not be set for readinessProbes";
            errors.invalid(&path.child("terminationGracePeriodSeconds"), seconds, detail);
        }
    }
    once_is_enough(errors, &path.child("startupProbe"), container.startup_probe.as_ref(), grace);
}

fn once_is_enough(errors: &mut Errors, path: &Path<'_>, given: Option<&Probe>, grace: Option<i64>) {
    let Some(given) = given else { return };
    probe(errors, path, given, grace);
    if given.success_threshold != Some(1) {
        errors.invalid(&path.child("successThreshold"), given.success_threshold.unwrap_or(0), "must be 1");
    }
}

fn probe(errors: &mut Errors, path: &Path<'_>, probe: &Probe, grace: Option<i64>) {
    let handler = Handler {
        exec: probe.exec.as_ref(),
        http_get: probe.http_get.as_ref(),
        tcp_socket: probe.tcp_socket.as_ref(),
        grpc: probe.grpc.as_ref(),
        sleep: None,
    };
    check(errors, path, &handler, grace);
    let numbers = [
        ("initialDelaySeconds", probe.initial_delay_seconds),
        ("timeoutSeconds", probe.timeout_seconds),
        ("periodSeconds", probe.period_seconds),
        ("successThreshold", probe.success_threshold),
        ("failureThreshold", probe.failure_threshold),
    ];
    for (field, number) in numbers {
        errors.not_negative(&path.child(field), number.unwrap_or(0));
    }
    if let Some(seconds) = probe.termination_grace_period_seconds.filter(|seconds| *seconds <= 0) {
        errors.invalid(&path.child("terminationGracePeriodSeconds"), seconds, "must be greater than 0");
    }
}

fn check(errors: &mut Errors, path: &Path<'_>, handler: &Handler<'_>, grace: Option<i64>) {
    let given = [
        ("exec", handler.exec.is_some()),
        ("httpGet", handler.http_get.is_some()),
        ("tcpSocket", handler.tcp_socket.is_some()),
        ("grpc", handler.grpc.is_some()),
        ("sleep", handler.sleep.is_some()),
    ];
    let mut given = given.into_iter().filter(|(_, given)| *given).map(|(name, _)| name);
    let Some(first) = given.next() else {
        return errors.required(path, "must specify a handler type");
    };
    one(errors, &path.child(first), first, handler, grace);
    for more in given {
        errors.forbidden(&path.child(more), "may not specify more than 1 handler type");
    }
}

fn one(errors: &mut Errors, path: &Path<'_>, name: &str, handler: &Handler<'_>, grace: Option<i64>) {
    match (name, handler) {
        ("exec", Handler { exec: Some(exec), .. }) if exec.command.as_ref().is_none_or(Vec::is_empty) => {
            errors.required(&path.child("command"), "");
        }
        ("httpGet", Handler { http_get: Some(action), .. }) => http_get(errors, path, action),
        ("tcpSocket", Handler { tcp_socket: Some(action), .. }) => port(errors, &path.child("port"), &action.port),
        ("grpc", Handler { grpc: Some(action), .. }) => {
            port(errors, &path.child("port"), &IntOrString::Int(action.port));
        }
        ("sleep", Handler { sleep: Some(action), .. }) => {
            if let Some(grace) = grace.filter(|grace| !(0..=*grace).contains(&action.seconds)) {
                let detail = format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
                errors.invalid(path, action.seconds, detail);
            }
        }
        _ => {}
    }
}

fn http_get(errors: &mut Errors, path: &Path<'_>, action: &HTTPGetAction) {
    if action.path.as_deref().is_none_or(str::is_empty) {
        errors.required(&path.child("path"), "");
    }
    port(errors, &path.child("port"), &action.port);
    let scheme = action.scheme.as_deref().unwrap_or_default();
    errors.optional_one_of(&path.child("scheme"), Some(scheme), &["HTTP", "HTTPS"]);
    for header in action.http_headers.iter().flatten() {
        errors.each(&path.child("httpHeaders"), &header.name, names::http_header(&header.name));
    }
}

/// The number or the name of a port.
pub(in crate::validate) fn port(errors: &mut Errors, path: &Path<'_>, port: &IntOrString) {
    match port {
        IntOrString::Int(number) => errors.each_number(path, i64::from(*number), names::port_number(*number)),
        IntOrString::String(name) => errors.each(path, name, names::port_name(name)),
    }
}
