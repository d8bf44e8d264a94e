//! What Kubernetes knows and kapstan does not do: refused at the door with a clear word, never silently ignored.
//!
//! This is kapstan's own list; upstream has no counterpart. To support a feature is to delete its line here.

use crate::Pod;
use k8s_openapi::api::core::v1::{
    CSIPersistentVolumeSource, Container, PersistentVolume, PersistentVolumeClaim, PodSpec, PodTemplateSpec,
    ServiceAccount,
};
use k8s_openapi::api::storage::v1::StorageClass;

use super::field::{Errors, Path};
use super::pod::source_names;
use super::storage;
use crate::names;
use crate::volumes::{LOCAL_DRIVER, LOCAL_PROVISIONER};

/// Sources of volumes that the agent can mount.
const VOLUMES: [&str; 7] =
    ["emptyDir", "hostPath", "secret", "configMap", "downwardAPI", "projected", "persistentVolumeClaim"];
/// The same of PersistentVolumes.
const PERSISTENT: [&str; 3] = ["hostPath", "local", "csi"];

/// What stands in for logins to registries.
const LOGINS: &str = "logins for registries are in the node's registries.yaml";

/// Notes everything in a pod that kapstan does not do.
pub fn pod(errors: &mut Errors, pod: &Pod) {
    if let Some(spec) = pod.spec.as_deref() {
        pod_spec(errors, &Path::root("spec"), spec);
    }
}

/// Notes everything in a template that kapstan does not do.
pub fn template(errors: &mut Errors, path: &Path<'_>, template: &PodTemplateSpec) {
    if let Some(spec) = template.spec.as_ref() {
        pod_spec(errors, &path.child("spec"), spec);
    }
}

/// Notes everything in a claim that kapstan does not do.
pub fn claim(errors: &mut Errors, claim: &PersistentVolumeClaim) {
    let Some(spec) = claim.spec.as_ref() else { return };
    let path = Path::root("spec");
    let given = [
        ("dataSource", spec.data_source.is_some(), "volumes filled from others"),
        ("dataSourceRef", spec.data_source_ref.is_some(), "volumes filled from others"),
        ("volumeAttributesClassName", spec.volume_attributes_class_name.is_some(), "volume attributes classes"),
        ("volumeMode", spec.volume_mode.as_deref() == Some("Block"), "block devices"),
    ];
    for (field, _, why) in given.iter().filter(|(_, given, _)| *given) {
        refuse(errors, &path.child(field), why);
    }
}

/// Notes everything in a volume that kapstan does not do.
pub fn volume(errors: &mut Errors, volume: &PersistentVolume) {
    let Some(spec) = volume.spec.as_ref() else { return };
    let path = Path::root("spec");
    for source in storage::source_names(spec).iter().filter(|name| !PERSISTENT.contains(&name.as_str())) {
        refuse(errors, &path.child(source), "this source of volumes (it has hostPath, local and folders of its own)");
    }
    let policy = spec.persistent_volume_reclaim_policy.as_deref();
    let foreign = spec.csi.as_ref().is_some_and(|csi| csi.driver != LOCAL_DRIVER);
    let given = [
        ("csi.driver", foreign, "drivers other than local.kapstan.dev"),
        ("mountOptions", is_given(&spec.mount_options), "folders are not mounted with options"),
        ("persistentVolumeReclaimPolicy", policy == Some("Recycle"), "Recycle (use Retain or Delete)"),
        ("volumeAttributesClassName", spec.volume_attributes_class_name.is_some(), "volume attributes classes"),
        ("volumeMode", spec.volume_mode.as_deref() == Some("Block"), "block devices"),
    ];
    for (field, _, why) in given.iter().filter(|(_, given, _)| *given) {
        refuse(errors, &path.child(field), why);
    }
    if let Some(csi) = spec.csi.as_ref().filter(|csi| csi.driver == LOCAL_DRIVER) {
        let path = path.child("csi.volumeHandle");
        let plain = CSIPersistentVolumeSource {
            driver: csi.driver.clone(),
            volume_handle: csi.volume_handle.clone(),
            ..Default::default()
        };
        if *csi != plain {
            refuse(errors, &Path::root("spec.csi"), "a folder has nothing but its name (volumeHandle)");
        }
        if !names::path_segment(&csi.volume_handle).is_empty() {
            errors.invalid(&path, csi.volume_handle.as_str(), "is the name of a folder");
        }
    }
}

/// Notes everything in a StorageClass of kapstan's own that it does not do. Others' provisioners know what they do.
pub fn storage_class(errors: &mut Errors, class: &StorageClass) {
    if class.provisioner != LOCAL_PROVISIONER {
        return;
    }
    let waits = class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer");
    let given = [
        ("allowVolumeExpansion", class.allow_volume_expansion == Some(true), "a folder has no size of its own"),
        ("mountOptions", is_given(&class.mount_options), "folders are not mounted with options"),
        ("parameters", class.parameters.as_ref().is_some_and(|all| !all.is_empty()), "folders have no parameters"),
        ("volumeBindingMode", !waits, "a folder is on a node, so it has to be WaitForFirstConsumer"),
    ];
    for (field, _, why) in given.iter().filter(|(_, given, _)| *given) {
        refuse(errors, &Path::root(field), why);
    }
}

/// Notes everything in a ServiceAccount that kapstan does not do.
pub fn service_account(errors: &mut Errors, account: &ServiceAccount) {
    if is_given(&account.image_pull_secrets) {
        refuse(errors, &Path::root("imagePullSecrets"), LOGINS);
    }
}

fn pod_spec(errors: &mut Errors, path: &Path<'_>, spec: &PodSpec) {
    if spec.os.as_ref().is_some_and(|os| os.name == "windows") {
        refuse(errors, &path.child("os.name"), "nodes run Linux");
    }
    let given = [
        ("resourceClaims", is_given(&spec.resource_claims), "dynamic resource allocation"),
        ("runtimeClassName", spec.runtime_class_name.is_some(), "there is one container runtime"),
        ("schedulingGroup", spec.scheduling_group.is_some(), "scheduling in groups"),
        ("imagePullSecrets", is_given(&spec.image_pull_secrets), LOGINS),
        ("hostUsers", spec.host_users == Some(false), "user namespaces for pods"),
        ("setHostnameAsFQDN", spec.set_hostname_as_fqdn == Some(true), "the host name is the pod's name"),
    ];
    for (field, _, why) in given.iter().filter(|(_, given, _)| *given) {
        refuse(errors, &path.child(field), why);
    }
    if let Some(context) = spec.security_context.as_ref() {
        let path = path.child("securityContext");
        security(
            errors,
            &path,
            context.windows_options.is_some(),
            context.app_armor_profile.as_ref().is_some_and(|profile| profile.type_ == "Localhost"),
        );
    }
    let volumes = path.child("volumes");
    for (i, volume) in spec.volumes.iter().flatten().enumerate() {
        let at = volumes.index(i);
        for source in source_names(volume).iter().filter(|name| !VOLUMES.contains(&name.as_str())) {
            refuse(errors, &at.child(source), "this source of volumes");
        }
        for source in volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten()) {
            if source.cluster_trust_bundle.is_some() || source.pod_certificate.is_some() {
                refuse(errors, &at.child("projected.sources"), "trust bundles and pod certificates");
            }
        }
    }
    let containers = path.child("containers");
    for (i, given) in spec.containers.iter().enumerate() {
        let at = containers.index(i);
        container(errors, &at, given);
        if given.restart_policy.is_some() {
            refuse(errors, &at.child("restartPolicy"), "containers restart as their pod says");
        }
    }
    let containers = path.child("initContainers");
    for (i, given) in spec.init_containers.iter().flatten().enumerate() {
        container(errors, &containers.index(i), given);
    }
}

fn container(errors: &mut Errors, path: &Path<'_>, container: &Container) {
    let claims = container.resources.as_ref().is_some_and(|resources| is_given(&resources.claims));
    let given = [
        ("volumeDevices", is_given(&container.volume_devices), "block devices"),
        ("resources.claims", claims, "dynamic resource allocation"),
        ("restartPolicyRules", is_given(&container.restart_policy_rules), "restart rules of containers"),
        ("resizePolicy", is_given(&container.resize_policy), "resizing of running containers"),
    ];
    for (field, _, why) in given.iter().filter(|(_, given, _)| *given) {
        refuse(errors, &path.child(field), why);
    }
    let variables = path.child("env");
    for (i, variable) in container.env.iter().flatten().enumerate() {
        if variable.value_from.as_ref().is_some_and(|source| source.file_key_ref.is_some()) {
            let at = variables.index(i);
            refuse(errors, &at.child("valueFrom.fileKeyRef"), "variables from files");
        }
    }
    let lifecycle = container.lifecycle.as_ref();
    if lifecycle.is_some_and(|lifecycle| lifecycle.stop_signal.is_some()) {
        refuse(errors, &path.child("lifecycle.stopSignal"), "the image's STOPSIGNAL is sent");
    }
    if let Some(context) = container.security_context.as_ref() {
        security(
            errors,
            &path.child("securityContext"),
            context.windows_options.is_some(),
            context.app_armor_profile.as_ref().is_some_and(|profile| profile.type_ == "Localhost"),
        );
    }
}

/// Labels of SELinux are a node's matter: where the kernel has none there is nothing to label, as with container runtimes.
fn security(errors: &mut Errors, path: &Path<'_>, windows: bool, app_armor: bool) {
    let given = [("windowsOptions", windows, "nodes run Linux"), ("appArmorProfile", app_armor, "AppArmor")];
    for (field, _, why) in given.iter().filter(|(_, given, _)| *given) {
        refuse(errors, &path.child(field), why);
    }
}

fn is_given<T>(list: &Option<Vec<T>>) -> bool {
    list.as_ref().is_some_and(|list| !list.is_empty())
}

fn refuse(errors: &mut Errors, path: &Path<'_>, why: &str) {
    errors.forbidden(path, format!("not supported by kapstan: {why}"));
}
