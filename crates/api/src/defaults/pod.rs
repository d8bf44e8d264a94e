//! Defaults of pods and pod templates. Some (host ports, requests from limits, service links) are for pods only, so that
//! templates stay as they were written.
//!
//! Mirrors `pkg/apis/core/v1/defaults.go` (SetDefaults_Pod, SetDefaults_PodSpec and what they call).

use std::collections::BTreeMap;

use crate::Pod;
use k8s_openapi::api::core::v1::{
    Container, DownwardAPIVolumeFile, EmptyDirVolumeSource, HTTPGetAction, LifecycleHandler, PodSpec, PodTemplateSpec,
    Probe, ResourceFieldSelector, ResourceRequirements, Volume,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::{core, fill, fill_number};
use crate::pod_resources;
use crate::quantity::Amount;

/// File mode of projected files, 0644.
const FILE_MODE: i32 = 0o644;
/// Seconds a projected token is valid.
const TOKEN_SECONDS: i64 = 3600;
/// Seconds between SIGTERM and SIGKILL.
const GRACE_PERIOD_SECONDS: i64 = 30;

/// A pod.
pub fn pod(pod: &mut Pod) {
    let spec = pod.spec.get_or_insert_default();
    for container in containers(spec) {
        if let Some(resources) = container.resources.as_mut() {
            requests_from_limits(resources);
        }
    }
    spec.enable_service_links.get_or_insert(true);
    if spec.host_network == Some(true) {
        for port in containers(spec).flat_map(|container| container.ports.iter_mut().flatten()) {
            fill_number(&mut port.host_port, port.container_port);
        }
    }
    pod_spec(spec);
    pod_level_resources(spec);
}

/// The template of a workload.
pub fn pod_template(template: &mut PodTemplateSpec) {
    pod_spec(template.spec.get_or_insert_default());
}

fn containers(spec: &mut PodSpec) -> impl Iterator<Item = &mut Container> {
    spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten())
}

fn pod_spec(spec: &mut PodSpec) {
    fill(&mut spec.dns_policy, "ClusterFirst");
    fill(&mut spec.restart_policy, "Always");
    fill(&mut spec.scheduler_name, "default-scheduler");
    spec.security_context.get_or_insert_default();
    let grace = spec.termination_grace_period_seconds.get_or_insert(GRACE_PERIOD_SECONDS);
    if *grace < 0 {
        *grace = 1;
    }
    service_account(spec);
    spec.volumes.iter_mut().flatten().for_each(volume);
    containers(spec).for_each(container);
    core::resource_list(&mut spec.overhead);
    spec.resources.iter_mut().for_each(canonical);
}

/// The old and the new name of the field always say the same.
fn service_account(spec: &mut PodSpec) {
    let given = |name: &Option<String>| name.clone().filter(|name| !name.is_empty());
    let name = given(&spec.service_account_name).or_else(|| given(&spec.service_account));
    spec.service_account.clone_from(&name);
    spec.service_account_name = name;
}

fn requests_from_limits(resources: &mut ResourceRequirements) {
    let Some(limits) = resources.limits.as_ref().filter(|limits| !limits.is_empty()) else { return };
    let requests = resources.requests.get_or_insert_default();
    for (name, limit) in limits {
        requests.entry(name.clone()).or_insert_with(|| limit.clone());
    }
}

/// Pod-level requests and limits follow the containers' and each other (upstream: defaultPodRequests,
/// defaultHugePagePodLimits).
fn pod_level_resources(spec: &mut PodSpec) {
    let Some(mut pod_level) = spec.resources.take() else { return };
    let without = PodSpec { overhead: None, ..spec.clone() };
    let has = |list: &Option<BTreeMap<String, Quantity>>| list.as_ref().is_some_and(|list| !list.is_empty());
    if has(&pod_level.limits) || has(&pod_level.requests) {
        for (name, limit) in pod_resources::limited(&without) {
            let requested = pod_level.requests.as_ref().is_some_and(|requests| requests.contains_key(&name));
            if name.starts_with("hugepages-") && !requested {
                pod_level.limits.get_or_insert_default().entry(name).or_insert_with(|| limit.quantity());
            }
        }
    }
    if let Some(limits) = pod_level.limits.clone().filter(|limits| !limits.is_empty()) {
        let requests = pod_level.requests.get_or_insert_default();
        for (name, request) in pod_resources::requested(&without) {
            if name == "cpu" || name == "memory" {
                requests.entry(name).or_insert_with(|| request.quantity());
            }
        }
        for (name, limit) in limits {
            if pod_resources::is_pod_level(&name) {
                requests.entry(name).or_insert(limit);
            }
        }
    }
    spec.resources = Some(pod_level);
}

fn container(container: &mut Container) {
    let image = container.image.as_deref().unwrap_or_default();
    let pull = pull_policy(image);
    fill(&mut container.image_pull_policy, pull);
    fill(&mut container.termination_message_path, "/dev/termination-log");
    fill(&mut container.termination_message_policy, "File");
    for port in container.ports.iter_mut().flatten() {
        fill(&mut port.protocol, "TCP");
    }
    for source in container.env.iter_mut().flatten().filter_map(|variable| variable.value_from.as_mut()) {
        if let Some(field) = source.field_ref.as_mut() {
            fill(&mut field.api_version, "v1");
        }
        source.resource_field_ref.iter_mut().for_each(divisor);
        if let Some(file) = source.file_key_ref.as_mut() {
            file.optional.get_or_insert(false);
        }
    }
    canonical(container.resources.get_or_insert_default());
    for probe_of in [&mut container.liveness_probe, &mut container.readiness_probe, &mut container.startup_probe] {
        probe_of.iter_mut().for_each(probe);
    }
    if let Some(lifecycle) = container.lifecycle.as_mut() {
        lifecycle.post_start.iter_mut().chain(lifecycle.pre_stop.iter_mut()).for_each(handler);
    }
}

/// `Always` for `latest`, which may have moved; `IfNotPresent` for everything else, also for what is no image's name.
fn pull_policy(image: &str) -> &'static str {
    let (name, digest) = image.split_once('@').map_or((image, None), |(name, digest)| (name, Some(digest)));
    let (domain, last) = name.rsplit_once('/').unwrap_or(("", name));
    let unreadable = |c: char| c.is_ascii_uppercase() || c.is_whitespace();
    let repository = last.split_once(':').map_or(last, |(repository, _)| repository);
    if repository.contains(unreadable) || domain.contains(char::is_whitespace) {
        return "IfNotPresent";
    }
    match last.split_once(':') {
        Some((_, "latest")) => "Always",
        None if digest.is_none() && !name.is_empty() => "Always",
        _ => "IfNotPresent",
    }
}

fn probe(probe: &mut Probe) {
    fill_number(&mut probe.timeout_seconds, 1);
    fill_number(&mut probe.period_seconds, 10);
    fill_number(&mut probe.success_threshold, 1);
    fill_number(&mut probe.failure_threshold, 3);
    probe.http_get.iter_mut().for_each(http_get);
    if let Some(grpc) = probe.grpc.as_mut() {
        grpc.service.get_or_insert_default();
    }
}

fn handler(handler: &mut LifecycleHandler) {
    handler.http_get.iter_mut().for_each(http_get);
}

fn http_get(action: &mut HTTPGetAction) {
    fill(&mut action.path, "/");
    fill(&mut action.scheme, "HTTP");
}

fn volume(volume: &mut Volume) {
    if has_no_source(volume) {
        volume.empty_dir = Some(EmptyDirVolumeSource::default());
    }
    if let Some(limit) = volume.empty_dir.as_mut().and_then(|source| source.size_limit.as_mut()) {
        core::canonical_quantity(limit);
    }
    if let Some(host_path) = volume.host_path.as_mut() {
        host_path.type_.get_or_insert_default();
    }
    if let Some(secret) = volume.secret.as_mut() {
        secret.default_mode.get_or_insert(FILE_MODE);
    }
    if let Some(config_map) = volume.config_map.as_mut() {
        config_map.default_mode.get_or_insert(FILE_MODE);
    }
    if let Some(downward) = volume.downward_api.as_mut() {
        downward.default_mode.get_or_insert(FILE_MODE);
        downward.items.iter_mut().flatten().for_each(downward_file);
    }
    if let Some(projected) = volume.projected.as_mut() {
        projected.default_mode.get_or_insert(FILE_MODE);
        for source in projected.sources.iter_mut().flatten() {
            source.downward_api.iter_mut().flat_map(|api| api.items.iter_mut().flatten()).for_each(downward_file);
            if let Some(token) = source.service_account_token.as_mut() {
                token.expiration_seconds.get_or_insert(TOKEN_SECONDS);
            }
        }
    }
    if let Some(image) = volume.image.as_mut() {
        let policy = pull_policy(image.reference.as_deref().unwrap_or_default());
        fill(&mut image.pull_policy, policy);
    }
    if let Some(claim) = volume.ephemeral.as_mut().and_then(|source| source.volume_claim_template.as_mut()) {
        core::claim_spec(&mut claim.spec);
    }
}

/// True when only the name is given: such a volume is an empty directory.
fn has_no_source(volume: &Volume) -> bool {
    *volume == Volume { name: volume.name.clone(), ..Volume::default() }
}

fn downward_file(file: &mut DownwardAPIVolumeFile) {
    if let Some(field) = file.field_ref.as_mut() {
        fill(&mut field.api_version, "v1");
    }
    file.resource_field_ref.iter_mut().for_each(divisor);
}

/// A divisor is always written out; zero stands for one.
fn divisor(source: &mut ResourceFieldSelector) {
    core::canonical_quantity(source.divisor.get_or_insert_with(|| Quantity("0".to_owned())));
}

fn canonical(resources: &mut ResourceRequirements) {
    core::resource_list(&mut resources.limits);
    core::resource_list(&mut resources.requests);
}

/// Rounds up to thousandths and prints canonically. A text that is no quantity stays for validation to refuse.
pub(super) fn canonical_rounded(quantity: &mut Quantity) {
    if let Ok(amount) = Amount::parse(&quantity.0) {
        *quantity = amount.round_up_to_milli().quantity();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn defaulted(spec: Value) -> Pod {
        let mut made: Pod = serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec})).unwrap();
        pod(&mut made);
        made
    }

    #[test]
    fn a_pod_is_written_out() {
        let pod = defaulted(json!({
            "hostNetwork": true,
            "serviceAccount": "old",
            "containers": [{
                "name": "c", "image": "nginx",
                "ports": [{"containerPort": 80}],
                "env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
                "resources": {"limits": {"cpu": "1000m", "memory": "1024Mi"}, "requests": {"cpu": "0.1"}},
                "livenessProbe": {"httpGet": {"port": 80}},
                "lifecycle": {"preStop": {"httpGet": {"port": "x"}}},
            }],
            "volumes": [{"name": "e"}, {"name": "s", "secret": {"secretName": "s"}}, {"name": "h", "hostPath": {"path": "/"}}],
        }));
        expect![[r#"
            {
              "containers": [
                {
                  "env": [
                    {
                      "name": "A",
                      "valueFrom": {
                        "fieldRef": {
                          "apiVersion": "v1",
                          "fieldPath": "metadata.name"
                        }
                      }
                    }
                  ],
                  "image": "nginx",
                  "imagePullPolicy": "Always",
                  "lifecycle": {
                    "preStop": {
                      "httpGet": {
                        "path": "/",
                        "port": "x",
                        "scheme": "HTTP"
                      }
                    }
                  },
                  "livenessProbe": {
                    "failureThreshold": 3,
                    "httpGet": {
                      "path": "/",
                      "port": 80,
                      "scheme": "HTTP"
                    },
                    "periodSeconds": 10,
                    "successThreshold": 1,
                    "timeoutSeconds": 1
                  },
                  "name": "c",
                  "ports": [
                    {
                      "containerPort": 80,
                      "hostPort": 80,
                      "protocol": "TCP"
                    }
                  ],
                  "resources": {
                    "limits": {
                      "cpu": "1",
                      "memory": "1Gi"
                    },
                    "requests": {
                      "cpu": "100m",
                      "memory": "1Gi"
                    }
                  },
                  "terminationMessagePath": "/dev/termination-log",
                  "terminationMessagePolicy": "File"
                }
              ],
              "dnsPolicy": "ClusterFirst",
              "enableServiceLinks": true,
              "hostNetwork": true,
              "restartPolicy": "Always",
              "schedulerName": "default-scheduler",
              "securityContext": {},
              "serviceAccount": "old",
              "serviceAccountName": "old",
              "terminationGracePeriodSeconds": 30,
              "volumes": [
                {
                  "emptyDir": {},
                  "name": "e"
                },
                {
                  "name": "s",
                  "secret": {
                    "defaultMode": 420,
                    "secretName": "s"
                  }
                },
                {
                  "hostPath": {
                    "path": "/",
                    "type": ""
                  },
                  "name": "h"
                }
              ]
            }"#]]
        .assert_eq(&serde_json::to_string_pretty(&pod.spec).unwrap());
    }

    #[test]
    fn a_template_stays_small() {
        let mut template: PodTemplateSpec = serde_json::from_value(json!({"spec": {
            "hostNetwork": true,
            "containers": [{"name": "c", "image": "nginx:1", "ports": [{"containerPort": 80}], "resources": {"limits": {"cpu": "1"}}}],
        }}))
        .unwrap();
        pod_template(&mut template);
        expect![[r#"
            {
              "containers": [
                {
                  "image": "nginx:1",
                  "imagePullPolicy": "IfNotPresent",
                  "name": "c",
                  "ports": [
                    {
                      "containerPort": 80,
                      "protocol": "TCP"
                    }
                  ],
                  "resources": {
                    "limits": {
                      "cpu": "1"
                    }
                  },
                  "terminationMessagePath": "/dev/termination-log",
                  "terminationMessagePolicy": "File"
                }
              ],
              "dnsPolicy": "ClusterFirst",
              "hostNetwork": true,
              "restartPolicy": "Always",
              "schedulerName": "default-scheduler",
              "securityContext": {},
              "terminationGracePeriodSeconds": 30
            }"#]]
        .assert_eq(&serde_json::to_string_pretty(&template.spec).unwrap());
    }

    #[test]
    fn pull_policies() {
        let images = [
            "nginx",
            "nginx:latest",
            "nginx:1.16.1",
            "localhost:5000/nginx",
            "localhost:5000/nginx:1",
            "n@sha256:00",
            "n:latest@sha256:00",
            "",
        ];
        let table = images.map(|image| format!("{image}: {}\n", pull_policy(image))).concat();
        expect![[r#"
            nginx: Always
            nginx:latest: Always
            nginx:1.16.1: IfNotPresent
            localhost:5000/nginx: Always
            localhost:5000/nginx:1: IfNotPresent
            n@sha256:00: IfNotPresent
            n:latest@sha256:00: Always
            : IfNotPresent
        "#]]
        .assert_eq(&table);
    }

    proptest! {
        #[test]
        fn defaulting_twice_changes_nothing(
            image in "[a-z]{1,3}(:latest|:1)?",
            cpu in "([0-9]{1,4}m?|0\\.[0-9]{1,5})",
            host_network: bool,
            pod_level: bool,
            port in 0i32..3,
        ) {
            let mut spec = json!({
                "hostNetwork": host_network,
                "containers": [{"name": "c", "image": image, "ports": [{"containerPort": port}],
                    "resources": {"limits": {"cpu": cpu, "hugepages-2Mi": "4Mi"}}, "startupProbe": {"grpc": {"port": 1}}}],
                "volumes": [{"name": "v"}],
            });
            if pod_level {
                spec["resources"] = json!({"limits": {"cpu": cpu}});
            }
            let once = defaulted(spec);
            let mut twice = once.clone();
            pod(&mut twice);
            prop_assert_eq!(once, twice);
        }
    }
}
