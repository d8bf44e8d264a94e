//! What people and agents do about volumes: claims in StatefulSets, claims that somebody deletes, folders that are done
//! away with.

use std::collections::BTreeSet;

use api::patch::PatchType;
use api::volumes::{self, FOLDER_FINALIZER, IS_DEFAULT_CLASS, LOCAL_PROVISIONER, VOLUME_PROTECTION};
use api::{Key, Kind, Pod, Snapshot};
use bytes::Bytes;
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim};
use rand::Rng;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use server::door::Part;

use crate::letters::{Ask, Letter, Sender};
use crate::people::{NAMESPACE, delete, pick};

/// The class that every cluster has.
pub fn class() -> Letter {
    let body = json!({
        "metadata": { "name": "local", "annotations": { IS_DEFAULT_CLASS: "true" } },
        "provisioner": LOCAL_PROVISIONER, "volumeBindingMode": "WaitForFirstConsumer",
    });
    let body = Kind::StorageClass.decode(body).expect("the class is well formed");
    Letter::of_person(Ask::Create(String::new(), body), "makes StorageClass local".to_owned())
}

/// Puts claims into the spec of some StatefulSets.
pub fn add_claims(spec: &mut Value, random: &mut StdRng) {
    if random.random_ratio(1, 2) {
        return;
    }
    let template = json!({ "metadata": { "name": "data" },
        "spec": { "accessModes": ["ReadWriteOnce"], "resources": { "requests": { "storage": "1Gi" } } } });
    spec["volumeClaimTemplates"] = json!([template]);
    spec["persistentVolumeClaimRetentionPolicy"] = json!({
        "whenDeleted": pick(&["Retain", "Delete"], random), "whenScaled": pick(&["Retain", "Delete"], random),
    });
}

/// Somebody deletes a claim, used or not.
pub fn delete_a_claim(world: &Snapshot, random: &mut StdRng) -> Option<Letter> {
    let claims: Vec<&PersistentVolumeClaim> = world.list(Some(NAMESPACE)).collect();
    let claim = pick(&claims, random)?;
    Some(delete(Key::new(Kind::PersistentVolumeClaim, NAMESPACE, claim.metadata.name.clone()?), None))
}

/// Claims whose data was lost with a machine are deleted, so that others are made elsewhere.
pub fn put_right(world: &Snapshot, left: &BTreeSet<String>) -> Vec<Letter> {
    let is_lost = |claim: &&PersistentVolumeClaim| {
        let volume = world.get::<PersistentVolume>("", volumes::volume_name(claim));
        let home = volume.and_then(|volume| volume.spec.as_ref()).and_then(volumes::home);
        home.is_some_and(|home| left.contains(home) || world.get::<Node>("", home).is_none())
    };
    let lost = world.list::<PersistentVolumeClaim>(None).filter(is_lost);
    let key = |claim: &PersistentVolumeClaim| {
        let meta = &claim.metadata;
        let namespace = meta.namespace.clone().unwrap_or_default();
        Key::new(Kind::PersistentVolumeClaim, namespace, meta.name.clone().unwrap_or_default())
    };
    lost.map(|claim| delete(key(claim), None)).collect()
}

/// What the agent of a node writes once it has done away with folders: as `agent::folders` does.
pub fn let_go(node: &str, world: &Snapshot) -> Vec<Letter> {
    let is_to_go = |volume: &&PersistentVolume| {
        let meta = &volume.metadata;
        meta.deletion_timestamp.is_some()
            && volumes::has_finalizer(meta, FOLDER_FINALIZER)
            && !volumes::has_finalizer(meta, VOLUME_PROTECTION)
            && volume.spec.as_ref().and_then(volumes::home) == Some(node)
    };
    let letter = |volume: &PersistentVolume| {
        let meta = &volume.metadata;
        let left: Vec<&String> = meta.finalizers.iter().flatten().filter(|it| *it != FOLDER_FINALIZER).collect();
        let patch = json!({ "metadata": { "resourceVersion": meta.resource_version, "finalizers": left } });
        let key = Key::new(Kind::PersistentVolume, "", meta.name.clone().unwrap_or_default());
        let ask = Ask::Patch(key, Part::Main, PatchType::Merge, Bytes::from(patch.to_string()));
        Letter { sender: Sender::Beat, ..Letter::of_person(ask, String::new()) }
    };
    world.list::<PersistentVolume>(None).filter(is_to_go).map(letter).collect()
}

/// What a pod's volumes wait for on a node; none if they can be mounted.
pub fn obstacle(pod: &Pod, node: &str, world: &Snapshot) -> Option<String> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("");
    volumes::claims_of(pod).find_map(|name| {
        let claim = world.get::<PersistentVolumeClaim>(namespace, name);
        let Some(claim) = claim else { return Some(format!("claim {name} is not there")) };
        let bound = claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound");
        let volume = world.get::<PersistentVolume>("", volumes::volume_name(claim)).filter(|_| bound);
        let Some(volume) = volume else { return Some(format!("claim {name} is not bound")) };
        if !volumes::is_for(volume, claim) {
            return Some(format!("the volume of claim {name} is another's"));
        }
        let fits = world.get::<Node>("", node).is_some_and(|node| volumes::fits_node(volume, node));
        (!fits).then(|| format!("the volume of claim {name} cannot be used on {node}"))
    })
}
