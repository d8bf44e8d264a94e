//! Does away with the folders of volumes that are deleted, and lets the volumes go.
//!
//! A volume of the driver `local.kapstan.dev` is held by a finalizer until the node that has its folder has seen that
//! it is to go: with the policy Delete the folder is removed, with Retain it is left to whoever looks after it. Never
//! touches a folder whose volume is still bound.

use std::{
    collections::{BTreeMap, HashSet},
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    time::Duration,
};

use api::volumes::{self, FOLDER_FINALIZER, VOLUME_PROTECTION};
use futures::StreamExt;
use k8s_openapi::api::core::v1::PersistentVolume;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
    runtime::{WatchStreamExt, watcher},
};
use serde_json::json;

use crate::claims::folder_path;

/// Before what failed is tried again.
const RETRY: Duration = Duration::from_secs(10);

/// Looks after the folders of these nodes, by host name. Without `root` they are simulated: there is nothing to remove.
pub async fn keep(client: Client, nodes: HashSet<String>, root: Option<PathBuf>) {
    let api: Api<PersistentVolume> = Api::all(client.clone());
    let mut events = watcher(api.clone(), watcher::Config::default()).default_backoff().applied_objects().boxed();
    let mut late: BTreeMap<String, PersistentVolume> = BTreeMap::new();
    let mut again = tokio::time::interval(RETRY);
    loop {
        let volumes: Vec<PersistentVolume> = tokio::select! {
            Some(event) = events.next() => match event {
                Ok(volume) => vec![volume],
                Err(error) => {
                    tracing::warn!("watching volumes: {error}");
                    continue;
                }
            },
            _ = again.tick(), if !late.is_empty() => std::mem::take(&mut late).into_values().collect(),
        };
        for volume in volumes.into_iter().filter(|volume| is_to_go(volume, &nodes)) {
            let name = volume.metadata.name.clone().unwrap_or_default();
            if let Err(error) = let_go(&api, &volume, root.as_deref()).await {
                tracing::warn!("volume {name} cannot be done away with: {error}");
                late.insert(name, volume);
            }
        }
    }
}

/// True if a volume waits for one of these nodes to do away with its folder.
fn is_to_go(volume: &PersistentVolume, nodes: &HashSet<String>) -> bool {
    let meta = &volume.metadata;
    let home = volume.spec.as_ref().and_then(volumes::home);
    meta.deletion_timestamp.is_some()
        && volumes::has_finalizer(meta, FOLDER_FINALIZER)
        && !volumes::has_finalizer(meta, VOLUME_PROTECTION)
        && home.is_some_and(|home| nodes.contains(home))
}

async fn let_go(api: &Api<PersistentVolume>, volume: &PersistentVolume, root: Option<&Path>) -> Result<(), String> {
    let spec = volume.spec.clone().unwrap_or_default();
    let deleted = spec.persistent_volume_reclaim_policy.as_deref() == Some("Delete");
    if let (true, Some(root), Some(handle)) = (deleted, root, volumes::folder(&spec)) {
        let path = folder_path(root, handle)?;
        let removed = tokio::task::spawn_blocking(move || remove(&path)).await.map_err(|error| error.to_string())?;
        removed.map_err(|error| format!("removing its folder: {error}"))?;
    }
    let left: Vec<&String> =
        volume.metadata.finalizers.iter().flatten().filter(|finalizer| *finalizer != FOLDER_FINALIZER).collect();
    let patch = json!({ "metadata": { "resourceVersion": volume.metadata.resource_version, "finalizers": left } });
    let name = volume.metadata.name.as_deref().unwrap_or("");
    match api.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await {
        // It is gone, or its next event tells what it is now.
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        other => other.map(drop).map_err(|error| error.to_string()),
    }
}

fn remove(path: &Path) -> std::io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn goes(change: impl Fn(&mut Value)) -> bool {
        let term =
            json!({ "matchExpressions": [{ "key": "kubernetes.io/hostname", "operator": "In", "values": ["n1"] }] });
        let mut volume = json!({
            "metadata": { "name": "v", "deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": [FOLDER_FINALIZER] },
            "spec": { "csi": { "driver": "local.kapstan.dev", "volumeHandle": "v" },
                "nodeAffinity": { "required": { "nodeSelectorTerms": [term] } } },
        });
        change(&mut volume);
        is_to_go(&serde_json::from_value(volume).unwrap(), &HashSet::from(["n1".to_owned()]))
    }

    #[test]
    fn only_what_is_deleted_unbound_and_here() {
        assert!(goes(|_| {}));
        assert!(!goes(|volume| volume["metadata"]["deletionTimestamp"] = Value::Null));
        assert!(!goes(|volume| volume["metadata"]["finalizers"] = json!([FOLDER_FINALIZER, VOLUME_PROTECTION])));
        assert!(!goes(|volume| volume["metadata"]["finalizers"] = json!(["other"])));
        assert!(!goes(|volume| volume["spec"]["nodeAffinity"] = Value::Null));
    }
}
