//! The ServiceAccount of a pod, and the token by which the pod's containers reach the API.
//!
//! Mirrors upstream's `plugin/pkg/admission/serviceaccount/admission.go`. Only says what is to be mounted: the token itself
//! is made by the API when the node's agent asks for it.

use api::template_hash::safe_encode;
use api::{Kind, Pod, Refusal, Snapshot};
use k8s_openapi::api::core::v1::{
    ConfigMapProjection, Container, DownwardAPIProjection, DownwardAPIVolumeFile, KeyToPath, ObjectFieldSelector,
    PodSpec, ProjectedVolumeSource, ServiceAccount, ServiceAccountTokenProjection, Volume, VolumeMount,
    VolumeProjection,
};

use super::Call;

/// Where containers look for it.
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Volumes of this kind are named so; what follows is made of the account's uid. Upstream draws it at random, which would
/// make every pod's spec one of its own ([`api::PodSpecs`]).
const VOLUME_PREFIX: &str = "kube-api-access-";
/// Seconds a token lives; the agent fetches another one before.
const TOKEN_SECONDS: i64 = 60 * 60 + 7;
/// Mode of the files.
const FILE_MODE: i32 = 0o644;

/// Names the pod's account, which has to be there, and mounts its token.
pub fn admit(call: &Call, pod: &mut Pod) -> Result<(), Refusal> {
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    // As it was asked for: a name that is made anew at each attempt would make a new complaint of each.
    let made = pod.metadata.name.clone().unwrap_or_default();
    let asked = pod.metadata.generate_name.clone().filter(|base| !base.is_empty() && made.starts_with(base));
    let pod_name = asked.unwrap_or(made);
    let spec = pod.spec.get_or_insert_default();
    let given = spec.service_account_name.clone().or_else(|| spec.service_account.clone());
    let name = given.filter(|name| !name.is_empty()).unwrap_or_else(|| "default".into());
    spec.service_account_name = Some(name.clone());
    spec.service_account = Some(name.clone());
    let account = account(call.world, &namespace, &name, &pod_name)?;
    let mounts = spec.automount_service_account_token.or(account.automount_service_account_token);
    if mounts != Some(false) {
        mount(account, pod);
    }
    Ok(())
}

fn account<'a>(world: &'a Snapshot, namespace: &str, name: &str, pod: &str) -> Result<&'a ServiceAccount, Refusal> {
    world.get::<ServiceAccount>(namespace, name).ok_or_else(|| {
        let why = format!("error looking up service account {namespace}/{name}: serviceaccount \"{name}\" not found");
        Refusal::forbidden(Kind::Pod, pod, why)
    })
}

/// Mounts the token in every container that mounts nothing else at its place.
fn mount(account: &ServiceAccount, pod: &mut Pod) {
    let spec: &mut PodSpec = pod.spec.get_or_insert_default();
    let volumes = spec.volumes.as_deref().unwrap_or_default();
    let known = volumes.iter().find(|volume| volume.name.starts_with(VOLUME_PREFIX)).map(|volume| volume.name.clone());
    let is_new = known.is_none();
    let name = known.unwrap_or_else(|| volume_name(account));
    let mut mounted = false;
    for container in spec.init_containers.iter_mut().flatten().chain(&mut spec.containers) {
        mounted |= mount_in(container, &name);
    }
    if is_new && mounted {
        spec.volumes.get_or_insert_default().push(volume(name));
    }
}

fn volume_name(account: &ServiceAccount) -> String {
    let uid: String = account.metadata.uid.iter().flat_map(|uid| uid.chars()).take(5).collect();
    format!("{VOLUME_PREFIX}{}", safe_encode(&uid))
}

fn mount_in(container: &mut Container, name: &str) -> bool {
    let mounts = container.volume_mounts.get_or_insert_default();
    if mounts.iter().any(|mount| mount.mount_path == MOUNT_PATH) {
        return false;
    }
    mounts.push(VolumeMount {
        name: name.to_owned(),
        mount_path: MOUNT_PATH.into(),
        read_only: Some(true),
        ..VolumeMount::default()
    });
    true
}

fn volume(name: String) -> Volume {
    let token = ServiceAccountTokenProjection {
        path: "token".into(),
        expiration_seconds: Some(TOKEN_SECONDS),
        ..ServiceAccountTokenProjection::default()
    };
    let authority = ConfigMapProjection {
        name: "kube-root-ca.crt".into(),
        items: Some(vec![KeyToPath { key: "ca.crt".into(), path: "ca.crt".into(), mode: None }]),
        ..ConfigMapProjection::default()
    };
    let field = ObjectFieldSelector { api_version: Some("v1".into()), field_path: "metadata.namespace".into() };
    let namespace =
        DownwardAPIVolumeFile { path: "namespace".into(), field_ref: Some(field), ..DownwardAPIVolumeFile::default() };
    let sources = vec![
        VolumeProjection { service_account_token: Some(token), ..VolumeProjection::default() },
        VolumeProjection { config_map: Some(authority), ..VolumeProjection::default() },
        VolumeProjection {
            downward_api: Some(DownwardAPIProjection { items: Some(vec![namespace]) }),
            ..VolumeProjection::default()
        },
    ];
    let projected = ProjectedVolumeSource { default_mode: Some(FILE_MODE), sources: Some(sources) };
    Volume { name, projected: Some(projected), ..Volume::default() }
}
