//! The volumes that claims stand for, on this node: a folder of the node's own, a path, or a local disk.
//!
//! A pod's volume is a link to where the data is, so that nothing of it goes when the pod's folder is tidied up. Folders
//! of the driver `local.kapstan.dev` are made when a pod first needs them. Mirrors the kubelet's
//! `desired_state_of_world_populator.go` (getPVCExtractPV), `pkg/volume/{hostpath,local}`.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown, symlink},
    path::{Path, PathBuf},
};

use api::volumes;
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, PersistentVolumeSpec};
use kube::{Api, Client};

/// Where a node keeps what is behind its claims.
#[derive(Clone, Copy, Debug)]
pub struct Shelf<'a> {
    /// Name of the node.
    pub node: &'a str,
    /// `<data-dir>/volumes`.
    pub folders: &'a Path,
    /// The group that pods read and write with, if they have one.
    pub group: Option<u32>,
}

/// Makes `link` point to the data behind a claim. The error says what is waited for.
pub async fn link(client: &Client, namespace: &str, claim: &str, link: &Path, shelf: Shelf<'_>) -> Result<(), String> {
    let volume = volume_of(client, namespace, claim).await?;
    let name = volume.metadata.name.clone().unwrap_or_default();
    let nodes: Api<Node> = Api::all(client.clone());
    let node = nodes.get(shelf.node).await.map_err(|error| error.to_string())?;
    if !volumes::fits_node(&volume, &node) {
        return Err(format!("volume {name} cannot be used on node {}: its node affinity names others", shelf.node));
    }
    let data = data(&volume.spec.unwrap_or_default(), shelf)?;
    point(link, &data).map_err(|error| format!("linking {}: {error}", link.display()))
}

async fn volume_of(client: &Client, namespace: &str, name: &str) -> Result<PersistentVolume, String> {
    let failed = |why: &str| format!("error processing PVC {namespace}/{name}: {why}");
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), namespace);
    let claim = claims.get_opt(name).await.map_err(|error| failed(&error.to_string()))?;
    let claim = claim.ok_or_else(|| failed(&format!("persistentvolumeclaim \"{name}\" not found")))?;
    if claim.metadata.deletion_timestamp.is_some() {
        return Err(failed("PVC is being deleted"));
    }
    let bound = claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound");
    let volume = volumes::volume_name(&claim);
    if !bound || volume.is_empty() {
        return Err(failed("PVC is not bound"));
    }
    let all: Api<PersistentVolume> = Api::all(client.clone());
    let found = all.get_opt(volume).await.map_err(|error| failed(&error.to_string()))?;
    let found = found.ok_or_else(|| failed(&format!("PV {volume} not found")))?;
    if !volumes::is_for(&found, &claim) {
        return Err(failed(&format!("PV {volume} is bound to another claim")));
    }
    Ok(found)
}

/// The path of the data; a folder of our own is made if it is not there.
fn data(spec: &PersistentVolumeSpec, shelf: Shelf) -> Result<PathBuf, String> {
    if let Some(handle) = volumes::folder(spec) {
        return folder(handle, shelf);
    }
    if let Some(source) = &spec.host_path {
        super::volumes::host_path(source)?;
        return Ok(PathBuf::from(&source.path));
    }
    let local = spec.local.as_ref().ok_or("its volume is of a kind that is not supported on this node")?;
    let path = PathBuf::from(&local.path);
    match fs::metadata(&path) {
        Ok(file) if file.is_dir() => Ok(path),
        Ok(_) => Err(format!("local volume {} is not a directory", local.path)),
        Err(error) => Err(format!("local volume {}: {error}", local.path)),
    }
}

/// The path of one of the node's own folders; refuses what is no plain name.
pub fn folder_path(folders: &Path, handle: &str) -> Result<PathBuf, String> {
    let plain = !matches!(handle, "" | "." | "..") && !handle.contains('/');
    if plain { Ok(folders.join(handle)) } else { Err(format!("{handle:?} is no name of a folder")) }
}

fn folder(handle: &str, shelf: Shelf) -> Result<PathBuf, String> {
    let path = folder_path(shelf.folders, handle)?;
    let failed = |error: std::io::Error| format!("making {}: {error}", path.display());
    if !path.is_dir() {
        fs::create_dir_all(&path).map_err(failed)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).map_err(failed)?;
    }
    if let Some(group) = shelf.group {
        chown(&path, None, Some(group)).map_err(failed)?;
        let mode = fs::metadata(&path).map_err(failed)?.permissions().mode() | 0o2070;
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).map_err(failed)?;
    }
    Ok(path)
}

fn point(link: &Path, data: &Path) -> std::io::Result<()> {
    if fs::read_link(link).is_ok_and(|old| old == data) {
        return Ok(());
    }
    if let Some(parent) = link.parent() {
        fs::create_dir_all(parent)?;
    }
    match fs::remove_file(link) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    symlink(data, link)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn data_of(spec: Value, folders: &Path) -> Result<PathBuf, String> {
        let spec: PersistentVolumeSpec = serde_json::from_value(spec).unwrap();
        data(&spec, Shelf { node: "n1", folders, group: None })
    }

    fn own(handle: &str) -> Value {
        json!({ "csi": { "driver": "local.kapstan.dev", "volumeHandle": handle } })
    }

    #[test]
    fn a_folder_is_made_once_and_left_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = data_of(own("pvc-1"), dir.path()).unwrap();
        fs::write(path.join("file"), "kept").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        assert_eq!(data_of(own("pvc-1"), dir.path()).unwrap(), path);
        assert_eq!(fs::read_to_string(path.join("file")).unwrap(), "kept");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn what_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let refused = [
            own("../x"),
            own(""),
            json!({ "local": { "path": "/no/such/disk" } }),
            json!({ "nfs": { "server": "s", "path": "/" } }),
        ];
        let refused = refused.map(|spec| data_of(spec, dir.path()).unwrap_err());
        expect_test::expect![[r#"
            "../x" is no name of a folder
            "" is no name of a folder
            local volume /no/such/disk: No such file or directory (os error 2)
            its volume is of a kind that is not supported on this node"#]]
        .assert_eq(&refused.join("\n"));
    }

    #[test]
    fn a_link_follows_its_volume() {
        let dir = tempfile::tempdir().unwrap();
        let (link, one, two) = (dir.path().join("pod/volumes/data"), dir.path().join("1"), dir.path().join("2"));
        for data in [&one, &one, &two] {
            point(&link, data).unwrap();
            assert_eq!(&fs::read_link(&link).unwrap(), data);
        }
    }
}
