//! The volumes of a pod: folders under `<data-dir>/pods/<uid>/volumes`, filled from the API, or paths of the node.
//!
//! emptyDir, hostPath, configMap, secret, downwardAPI and projected (serviceAccountToken included) are made, and links to
//! what claims stand for; every other kind is refused with a sentence that names it. Making them again is harmless: files
//! that changed are written anew, all at once ([`atomic_writer`]), an emptyDir keeps what is in it. Names come from API
//! objects, so each is checked not to leave its volume. Mirrors `pkg/volume/{configmap,secret,downwardapi,projected,emptydir,hostpath}`.

mod atomic_writer;

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::{Component, Path, PathBuf},
};

use api::Pod;
use k8s_openapi::api::{
    authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec},
    core::v1::{
        ConfigMap, Container, DownwardAPIVolumeFile, EmptyDirVolumeSource, HostPathVolumeSource, KeyToPath, Secret,
        ServiceAccount, ServiceAccountTokenProjection, Volume, VolumeProjection,
    },
};
use kube::{Api, Client, api::PostParams};

use crate::{
    claims::{self, Shelf},
    environment::{Place, expand, field_value, resource_value},
    resources,
    runtime::Mount,
};
use atomic_writer::{Access, Files};

/// Mode of files where the volume names none.
const DEFAULT_MODE: i32 = 0o644;
/// Seconds a projected token lives where the projection names none.
const TOKEN_SECONDS: i64 = 3_607;

/// Where the volumes of a pod are.
pub fn folder(pod_dir: &Path, volume: &str) -> PathBuf {
    pod_dir.join("volumes").join(volume)
}

/// Makes every volume of the pod. The error is the text of a `FailedMount` event.
pub async fn prepare(client: &Client, pod: &Pod, pod_dir: &Path, place: &Place, folders: &Path) -> Result<(), String> {
    for volume in pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()) {
        let dir = folder(pod_dir, &volume.name);
        let made = match &volume.persistent_volume_claim {
            Some(source) => {
                let shelf = Shelf { node: &place.node, folders, group: fs_group(pod) };
                claims::link(client, namespace(pod), &source.claim_name, &dir, shelf).await
            }
            None => make(client, pod, volume, &dir, place).await,
        };
        made.map_err(|why| format!("MountVolume.SetUp failed for volume \"{}\" : {why}", volume.name))?;
    }
    Ok(())
}

/// Unmounts what [`prepare`] mounted.
pub fn release(pod: &Pod, pod_dir: &Path) {
    for volume in pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()) {
        if volume.empty_dir.as_ref().is_some_and(in_memory) {
            let _ = rustix::mount::unmount(folder(pod_dir, &volume.name), rustix::mount::UnmountFlags::DETACH);
        }
    }
}

/// Whether what the volumes hold can change while the pod runs.
pub fn may_change(pod: &Pod) -> bool {
    pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten()).any(shows_objects)
}

fn shows_objects(volume: &Volume) -> bool {
    volume.config_map.is_some()
        || volume.secret.is_some()
        || volume.downward_api.is_some()
        || volume.projected.is_some()
}

async fn make(client: &Client, pod: &Pod, volume: &Volume, dir: &Path, place: &Place) -> Result<(), String> {
    if let Some(path) = &volume.host_path {
        return host_path(path);
    }
    fs::create_dir_all(dir).map_err(|error| format!("creating {}: {error}", dir.display()))?;
    let (files, mode) = if let Some(source) = &volume.empty_dir {
        return empty_dir(pod, source, dir);
    } else if let Some(source) = &volume.config_map {
        let optional = source.optional == Some(true);
        let files = config_map_files(client, pod, &source.name, optional, source.items.as_deref()).await?;
        (files, source.default_mode)
    } else if let Some(source) = &volume.secret {
        let (name, optional) = (source.secret_name.as_deref().unwrap_or_default(), source.optional == Some(true));
        (secret_files(client, pod, name, optional, source.items.as_deref()).await?, source.default_mode)
    } else if let Some(source) = &volume.downward_api {
        (downward_files(pod, source.items.as_deref().unwrap_or_default(), place)?, source.default_mode)
    } else if let Some(source) = &volume.projected {
        let mut files = Files::new();
        for projection in source.sources.iter().flatten() {
            files.extend(projected_files(client, pod, projection, dir, place).await?);
        }
        (files, source.default_mode)
    } else {
        return Err("its kind is not supported on this node: use emptyDir, hostPath, configMap, secret, downwardAPI, projected or persistentVolumeClaim".into());
    };
    atomic_writer::write(dir, &files, Access { mode: mode.unwrap_or(DEFAULT_MODE), group: fs_group(pod) })
}

fn fs_group(pod: &Pod) -> Option<u32> {
    let group = pod.spec.as_deref()?.security_context.as_ref()?.fs_group?;
    u32::try_from(group).ok()
}

// ---- folders -------------------------------------------------------------------------------------------------------

fn in_memory(source: &EmptyDirVolumeSource) -> bool {
    source.medium.as_deref() == Some("Memory")
}

fn empty_dir(pod: &Pod, source: &EmptyDirVolumeSource, dir: &Path) -> Result<(), String> {
    match source.medium.as_deref().unwrap_or_default() {
        "" => {}
        "Memory" => mount_memory(source, dir)?,
        other => return Err(format!("medium {other:?} is not supported on this node")),
    }
    let failed = |error: std::io::Error| format!("preparing {}: {error}", dir.display());
    let mode = if fs_group(pod).is_some() { 0o2777 } else { 0o777 };
    if let Some(group) = fs_group(pod) {
        chown(dir, None, Some(group)).map_err(failed)?;
    }
    fs::set_permissions(dir, fs::Permissions::from_mode(mode)).map_err(failed)
}

fn mount_memory(source: &EmptyDirVolumeSource, dir: &Path) -> Result<(), String> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    if mounts.lines().any(|line| line.split(' ').nth(1).is_some_and(|target| Path::new(target) == dir)) {
        return Ok(());
    }
    let size = source.size_limit.as_ref().and_then(resources::whole).filter(|bytes| *bytes > 0);
    let options = size.map(|bytes| format!("size={bytes}")).unwrap_or_default();
    let options = std::ffi::CString::new(options).map_err(|error| error.to_string())?;
    let flags = rustix::mount::MountFlags::NOSUID | rustix::mount::MountFlags::NODEV;
    rustix::mount::mount("tmpfs", dir, "tmpfs", flags, options.as_c_str())
        .map_err(|error| format!("mounting a tmpfs at {}: {error}", dir.display()))
}

/// Checks that a path of the node is what the source says, and makes it if that is asked for. Where nothing is said, runtimes make a
/// folder of what is not there (containerd: `WithMounts` of `internal/cri/opts/spec_linux_opts.go`).
pub fn host_path(source: &HostPathVolumeSource) -> Result<(), String> {
    use std::os::unix::fs::FileTypeExt;
    let path = Path::new(&source.path);
    let wanted = source.type_.as_deref().unwrap_or_default();
    let failed = |error: std::io::Error| format!("hostPath {}: {error}", source.path);
    match wanted {
        "DirectoryOrCreate" => fs::create_dir_all(path).map_err(failed)?,
        "" if !path.exists() => fs::create_dir_all(path).map_err(failed)?,
        "FileOrCreate" if !path.exists() => drop(fs::File::create(path).map_err(failed)?),
        _ => {}
    }
    let kind = fs::metadata(path).map_err(failed)?.file_type();
    let fits = match wanted {
        "" => true,
        "Directory" | "DirectoryOrCreate" => kind.is_dir(),
        "File" | "FileOrCreate" => kind.is_file(),
        "Socket" => kind.is_socket(),
        "CharDevice" => kind.is_char_device(),
        "BlockDevice" => kind.is_block_device(),
        other => return Err(format!("hostPath type {other:?} is not known")),
    };
    if fits { Ok(()) } else { Err(format!("hostPath type check failed: {} is not a {wanted}", source.path)) }
}

// ---- files ---------------------------------------------------------------------------------------------------------

fn namespace(pod: &Pod) -> &str {
    pod.metadata.namespace.as_deref().unwrap_or_default()
}

async fn config_map_files(
    client: &Client,
    pod: &Pod,
    name: &str,
    optional: bool,
    items: Option<&[KeyToPath]>,
) -> Result<Files, String> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace(pod));
    let Some(map) = api.get_opt(name).await.map_err(|error| error.to_string())? else {
        return if optional { Ok(Files::new()) } else { Err(format!("configmap \"{name}\" not found")) };
    };
    let text = map.data.into_iter().flatten().map(|(key, value)| (key, value.into_bytes()));
    let binary = map.binary_data.into_iter().flatten().map(|(key, value)| (key, value.0));
    chosen(text.chain(binary).collect(), items, optional, "configmap")
}

async fn secret_files(
    client: &Client,
    pod: &Pod,
    name: &str,
    optional: bool,
    items: Option<&[KeyToPath]>,
) -> Result<Files, String> {
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace(pod));
    let Some(secret) = api.get_opt(name).await.map_err(|error| error.to_string())? else {
        return if optional { Ok(Files::new()) } else { Err(format!("secret \"{name}\" not found")) };
    };
    let data = secret.data.into_iter().flatten().map(|(key, value)| (key, value.0));
    chosen(data.collect(), items, optional, "secret")
}

/// All keys, or those that `items` names, under the paths it gives.
fn chosen(
    mut data: BTreeMap<String, Vec<u8>>,
    items: Option<&[KeyToPath]>,
    optional: bool,
    kind: &str,
) -> Result<Files, String> {
    let Some(items) = items.filter(|items| !items.is_empty()) else {
        return Ok(data.into_iter().map(|(key, value)| (key, (value, None))).collect());
    };
    let mut files = Files::new();
    for item in items {
        match data.remove(&item.key) {
            Some(value) => drop(files.insert(item.path.clone(), (value, item.mode))),
            None if optional => {}
            None => return Err(format!("{kind} references non-existent {kind} key: {}", item.key)),
        }
    }
    Ok(files)
}

fn downward_files(pod: &Pod, items: &[DownwardAPIVolumeFile], place: &Place) -> Result<Files, String> {
    let mut files = Files::new();
    for item in items {
        let text = match (&item.field_ref, &item.resource_field_ref) {
            (Some(field), _) => field_value(field, pod, place)?,
            (None, Some(resource)) => resource_value(resource, pod, None, place)?,
            (None, None) => return Err(format!("item {} names neither fieldRef nor resourceFieldRef", item.path)),
        };
        files.insert(item.path.clone(), (text.into_bytes(), item.mode));
    }
    Ok(files)
}

async fn projected_files(
    client: &Client,
    pod: &Pod,
    projection: &VolumeProjection,
    dir: &Path,
    place: &Place,
) -> Result<Files, String> {
    if let Some(source) = &projection.config_map {
        let optional = source.optional == Some(true);
        return config_map_files(client, pod, &source.name, optional, source.items.as_deref()).await;
    }
    if let Some(source) = &projection.secret {
        let optional = source.optional == Some(true);
        return secret_files(client, pod, &source.name, optional, source.items.as_deref()).await;
    }
    if let Some(source) = &projection.downward_api {
        return downward_files(pod, source.items.as_deref().unwrap_or_default(), place);
    }
    if let Some(source) = &projection.service_account_token {
        let path = within(dir, &source.path)?;
        if still_good(&path, source.expiration_seconds.unwrap_or(TOKEN_SECONDS))
            && let Ok(token) = fs::read(&path)
        {
            return Ok([(source.path.clone(), (token, None))].into());
        }
        let token = token(client, pod, source).await?;
        return Ok([(source.path.clone(), (token.into_bytes(), None))].into());
    }
    Err("one of its projections is of a kind that is not supported on this node".into())
}

/// A token is fetched anew after four fifths of its life, and after a day at the latest (`pkg/kubelet/token`).
fn still_good(path: &Path, lives_seconds: i64) -> bool {
    let written = fs::metadata(path).and_then(|file| file.modified());
    let age = written.ok().and_then(|written| written.elapsed().ok());
    let longest = (lives_seconds / 5 * 4).clamp(0, 86_400).unsigned_abs();
    age.is_some_and(|age| age.as_secs() < longest)
}

async fn token(client: &Client, pod: &Pod, source: &ServiceAccountTokenProjection) -> Result<String, String> {
    let account = pod.spec.as_deref().and_then(|spec| spec.service_account_name.as_deref()).unwrap_or("default");
    let request = TokenRequest {
        spec: Some(TokenRequestSpec {
            audiences: Some(source.audience.clone().filter(|audience| !audience.is_empty()).into_iter().collect()),
            expiration_seconds: Some(source.expiration_seconds.unwrap_or(TOKEN_SECONDS)),
            bound_object_ref: Some(BoundObjectReference {
                api_version: Some("v1".into()),
                kind: Some("Pod".into()),
                name: pod.metadata.name.clone(),
                uid: pod.metadata.uid.clone(),
            }),
        }),
        ..TokenRequest::default()
    };
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace(pod));
    let answer = accounts.create_token_request(account, &PostParams::default(), &request).await;
    let answer = answer.map_err(|error| format!("failed to fetch token: {error}"))?;
    answer.status.and_then(|status| status.token).ok_or_else(|| "failed to fetch token: the answer has none".into())
}

/// `name` below `dir`; refuses names that lead out of it.
fn within(dir: &Path, name: &str) -> Result<PathBuf, String> {
    let path = Path::new(name);
    let plain = path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    if plain && !name.is_empty() { Ok(dir.join(path)) } else { Err(format!("path {name:?} leads out of the volume")) }
}

// ---- mounts --------------------------------------------------------------------------------------------------------

/// What a container's `volumeMounts` come to. `env` is its environment, for `subPathExpr`.
pub fn mounts(
    pod: &Pod,
    container: &Container,
    pod_dir: &Path,
    env: &[(String, String)],
) -> Result<Vec<Mount>, String> {
    let volumes = pod.spec.as_deref().and_then(|spec| spec.volumes.as_deref()).unwrap_or_default();
    let mut mounts = Vec::new();
    for mount in container.volume_mounts.iter().flatten() {
        let volume = volumes.iter().find(|volume| volume.name == mount.name);
        let volume = volume.ok_or_else(|| format!("volume \"{}\" is not in the pod", mount.name))?;
        if mount.mount_propagation.as_deref().is_some_and(|kind| kind != "None") {
            return Err(format!("mountPropagation of volume \"{}\" is not supported on this node", mount.name));
        }
        let root = match &volume.host_path {
            Some(path) => PathBuf::from(&path.path),
            None => folder(pod_dir, &volume.name),
        };
        let claim = volume.persistent_volume_claim.as_ref();
        let root = match claim {
            Some(_) => fs::canonicalize(&root).map_err(|error| format!("volume \"{}\": {error}", mount.name))?,
            None => root,
        };
        let value_of = |name: &str| env.iter().rev().find(|(other, _)| other == name).map(|(_, value)| value.clone());
        let sub_path = match &mount.sub_path_expr {
            Some(text) => Some(expand(text, value_of)),
            None => mount.sub_path.clone(),
        };
        let always_read_only = shows_objects(volume) || claim.is_some_and(|claim| claim.read_only == Some(true));
        let source = match sub_path.as_deref().unwrap_or_default() {
            "" => root,
            // Its links are its own, and are followed when it is mounted: where they lead now may be gone by then.
            sub_path if shows_objects(volume) => sub_folder(&root, sub_path)?,
            sub_path => inside(&root, &sub_folder(&root, sub_path)?)?,
        };
        mounts.push(Mount {
            source,
            target: PathBuf::from(&mount.mount_path),
            read_only: mount.read_only == Some(true) || always_read_only,
        });
    }
    Ok(mounts)
}

/// `subPath` below a volume, made when it is not there.
fn sub_folder(root: &Path, sub_path: &str) -> Result<PathBuf, String> {
    let path = within(root, sub_path)?;
    if !path.exists() {
        fs::create_dir_all(&path).map_err(|error| format!("failed to create subPath {}: {error}", path.display()))?;
    }
    Ok(path)
}

/// Where the links in a path below a volume lead, which must not be out of the volume: containers can make some.
fn inside(root: &Path, path: &Path) -> Result<PathBuf, String> {
    let real = |path: &Path| path.canonicalize().map_err(|error| format!("subPath {}: {error}", path.display()));
    let (real, root) = (real(path)?, real(root)?);
    if real.starts_with(root) { Ok(real) } else { Err(format!("subPath {} leads out of the volume", path.display())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_of_the_node_is_made_where_its_type_allows_it() {
        let dir = tempfile::tempdir().unwrap();
        let ask = |name: &str, type_: Option<&str>| {
            let path = dir.path().join(name).display().to_string();
            let source = HostPathVolumeSource { path, type_: type_.map(str::to_owned) };
            host_path(&source).map(|()| fs::metadata(&source.path).unwrap().is_dir())
        };
        assert_eq!(ask("unset/a", None), Ok(true));
        assert_eq!(ask("empty", Some("")), Ok(true));
        assert_eq!(ask("folder", Some("DirectoryOrCreate")), Ok(true));
        assert_eq!(ask("file", Some("FileOrCreate")), Ok(false));
        assert_eq!(ask("file", None), Ok(false));
        assert!(ask("none", Some("Directory")).unwrap_err().contains("No such file"));
        assert!(ask("folder", Some("File")).unwrap_err().contains("is not a File"));
    }

    /// Where the mounts of a container come from, in a pod of which there are two volumes: a ConfigMap and a folder.
    fn sources(pod_dir: &Path, sub_path: &str) -> Result<Vec<PathBuf>, String> {
        let pod: Pod = serde_yaml::from_str(&format!(
            "metadata: {{name: p}}
spec:
  volumes: [{{name: config, configMap: {{name: m}}}}, {{name: scratch, emptyDir: {{}}}}]
  containers:
  - name: c
    volumeMounts:
    - {{name: config, mountPath: /config, subPath: '{sub_path}'}}
    - {{name: scratch, mountPath: /scratch, subPath: '{sub_path}'}}
"
        ))
        .unwrap();
        let container = &pod.spec.as_deref().unwrap().containers[0];
        Ok(mounts(&pod, container, pod_dir, &[])?.into_iter().map(|mount| mount.source).collect())
    }

    #[test]
    fn a_sub_path_of_an_object_is_the_file_as_it_is_when_it_is_mounted() {
        let dir = tempfile::tempdir().unwrap();
        let config = folder(dir.path(), "config");
        fs::create_dir_all(&config).unwrap();
        let show = |text: &str| {
            let files = Files::from([("sub/a".to_owned(), (text.into(), None))]);
            atomic_writer::write(&config, &files, Access { mode: 0o644, group: None }).unwrap();
        };
        show("one");
        let found = sources(dir.path(), "sub/a").unwrap();
        show("two");
        assert_eq!(fs::read_to_string(&found[0]).unwrap(), "two");
        assert!(found[1].is_dir(), "made, for it was not there");
    }

    #[test]
    fn a_link_in_a_sub_path_may_not_leave_the_volume() {
        let dir = tempfile::tempdir().unwrap();
        let scratch = folder(dir.path(), "scratch");
        fs::create_dir_all(&scratch).unwrap();
        std::os::unix::fs::symlink("/etc", scratch.join("out")).unwrap();
        assert!(sources(dir.path(), "out").unwrap_err().contains("leads out"));
        assert!(sources(dir.path(), "../out").unwrap_err().contains("leads out"));
        assert!(sources(dir.path(), "fine/deep").unwrap()[1].is_dir());
    }
}
