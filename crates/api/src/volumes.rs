//! What a claim asks for, what a volume has, and whether the two fit: asked by the controller that binds them, by the
//! scheduler, by the agent that mounts them and by the door.
//!
//! Mirrors `staging/src/k8s.io/component-helpers/storage/volume` (pv_helpers.go: FindMatchingVolume,
//! IsVolumeBoundToClaim). Decides nothing: it only says what is so.

use k8s_openapi::api::core::v1::{
    Node, ObjectReference, PersistentVolume, PersistentVolumeClaim, PersistentVolumeSpec, TopologySelectorTerm,
};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::Pod;
use crate::node_fit::any_term_fits;
use crate::quantity::Amount;
use crate::selector::Selector;
use crate::snapshot::Snapshot;

/// Who makes folders on the nodes: the provisioner's name in a StorageClass.
pub const LOCAL_PROVISIONER: &str = "kapstan.dev/local";
/// The driver of the volumes that are such folders.
pub const LOCAL_DRIVER: &str = "local.kapstan.dev";
/// Holds a deleted volume until its node has done away with the folder.
pub const FOLDER_FINALIZER: &str = "local.kapstan.dev/folder";
/// Holds a deleted claim as long as a pod uses it.
pub const CLAIM_PROTECTION: &str = "kubernetes.io/pvc-protection";
/// Holds a deleted volume as long as it is bound.
pub const VOLUME_PROTECTION: &str = "kubernetes.io/pv-protection";
/// On a claim whose binding is settled.
pub const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
/// On whichever of claim and volume was given its other half by the controller, not by its author.
pub const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
/// On a claim: the node that the scheduler chose for its first pod.
pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// On a claim: who is to make its volume.
pub const STORAGE_PROVISIONER: &str = "volume.kubernetes.io/storage-provisioner";
/// On a volume: who made it.
pub const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
/// On a StorageClass: claims that name none get this one.
pub const IS_DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";
/// The class of a claim or a volume before there was a field for it.
pub const BETA_CLASS: &str = "volume.beta.kubernetes.io/storage-class";
/// The label that tells nodes apart.
pub const HOSTNAME: &str = "kubernetes.io/hostname";

/// The value of an annotation.
pub fn annotation<'a>(meta: &'a ObjectMeta, name: &str) -> Option<&'a str> {
    meta.annotations.as_ref()?.get(name).map(String::as_str)
}

/// True if the object has this finalizer.
pub fn has_finalizer(meta: &ObjectMeta, name: &str) -> bool {
    meta.finalizers.iter().flatten().any(|finalizer| finalizer == name)
}

/// Names of the claims that a pod uses.
pub fn claims_of(pod: &Pod) -> impl Iterator<Item = &str> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes.filter_map(|volume| volume.persistent_volume_claim.as_ref()).map(|source| source.claim_name.as_str())
}

/// What a volume calls its claim. The version of the claim is left out: it would only make the volume outdated.
pub fn reference(claim: &PersistentVolumeClaim) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".into()),
        kind: Some("PersistentVolumeClaim".into()),
        namespace: claim.metadata.namespace.clone(),
        name: claim.metadata.name.clone(),
        uid: claim.metadata.uid.clone(),
        ..Default::default()
    }
}

/// A volume as it is bound to, or kept for, a claim (upstream: GetBindVolumeToClaim).
pub fn tied(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> PersistentVolume {
    let mut bound = volume.clone();
    let by_hand = claim_ref(volume).is_some();
    if claim_ref(volume).is_none_or(|reference| reference.uid != claim.metadata.uid) {
        bound.spec.get_or_insert_default().claim_ref = Some(reference(claim));
    }
    if !by_hand {
        bound.metadata.annotations.get_or_insert_default().insert(BOUND_BY_CONTROLLER.into(), "yes".into());
    }
    bound
}

/// True once nothing of a pod is left but what waits for its end (upstream: pvcprotection podIsShutDown).
pub fn is_shut_down(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some() && pod.metadata.deletion_grace_period_seconds == Some(0)
}

/// Pods on a node that use a claim: as long as there is one the claim stays, whatever the pod's phase. A pod that waits
/// for a node does not hold it, nor does one that is over and owns it: it waits for the claim itself, if it goes in the
/// foreground (upstream: pvcprotection podUsesPVC, which knows that of ephemeral volumes only).
pub fn users<'a>(claim: &ObjectMeta, world: &'a Snapshot) -> impl Iterator<Item = &'a Pod> {
    let name = claim.name.clone().unwrap_or_default();
    let owners: Vec<String> = claim.owner_references.iter().flatten().map(|owner| owner.uid.clone()).collect();
    let owns = move |pod: &Pod| owners.iter().any(|owner| pod.metadata.uid.as_ref() == Some(owner));
    world
        .list::<Pod>(Some(claim.namespace.as_deref().unwrap_or("")))
        .filter(move |pod| !(is_shut_down(pod) && owns(pod)))
        .filter(|pod| {
            pod.spec.as_deref().and_then(|spec| spec.node_name.as_deref()).is_some_and(|node| !node.is_empty())
        })
        .filter(move |pod| claims_of(pod).any(|used| used == name))
}

/// The class that a claim asks for: none if it does not say, empty if it wants none.
pub fn class_of_claim(claim: &PersistentVolumeClaim) -> Option<&str> {
    let field = || claim.spec.as_ref()?.storage_class_name.as_deref();
    annotation(&claim.metadata, BETA_CLASS).or_else(field)
}

/// The class of a volume, empty if it has none.
pub fn class_of_volume(volume: &PersistentVolume) -> &str {
    let field = || volume.spec.as_ref()?.storage_class_name.as_deref();
    annotation(&volume.metadata, BETA_CLASS).or_else(field).unwrap_or("")
}

/// The class that claims get which name none: of several the newest, then the first by name
/// (upstream: `pkg/volume/util/storageclass.go` GetDefaultClass).
pub fn default_class(world: &Snapshot) -> Option<&StorageClass> {
    let is_default = |class: &&StorageClass| annotation(&class.metadata, IS_DEFAULT_CLASS) == Some("true");
    let made = |class: &StorageClass| class.metadata.creation_timestamp.as_ref().map(|time| time.0);
    world
        .list::<StorageClass>(None)
        .filter(is_default)
        .reduce(|best, next| if made(next) > made(best) { next } else { best })
}

/// True if volumes of a class are chosen or made only once it is known where the pod goes.
pub fn waits_for_consumer(class: &StorageClass) -> bool {
    class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer")
}

/// The name of the volume that a claim is or is to be bound to, empty if none.
pub fn volume_name(claim: &PersistentVolumeClaim) -> &str {
    claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref()).unwrap_or("")
}

/// True if a claim's binding is settled, on its side.
pub fn is_bound(claim: &PersistentVolumeClaim) -> bool {
    !volume_name(claim).is_empty() && annotation(&claim.metadata, BIND_COMPLETED).is_some()
}

/// The claim that a volume is bound to or kept for.
pub fn claim_ref(volume: &PersistentVolume) -> Option<&ObjectReference> {
    volume.spec.as_ref()?.claim_ref.as_ref()
}

/// True if a volume is kept for this claim: by name if it was written by hand, else by uid.
pub fn is_for(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    claim_ref(volume).is_some_and(|reference| {
        let uid = reference.uid.as_deref().unwrap_or("");
        reference.name == claim.metadata.name
            && reference.namespace == claim.metadata.namespace
            && (uid.is_empty() || claim.metadata.uid.as_deref() == Some(uid))
    })
}

/// Phase of a volume.
pub fn phase(volume: &PersistentVolume) -> &str {
    volume.status.as_ref().and_then(|status| status.phase.as_deref()).unwrap_or("")
}

/// Bytes that a claim asks for.
pub fn requested(claim: &PersistentVolumeClaim) -> Amount {
    let requests = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref()?.requests.as_ref());
    requests.and_then(|requests| requests.get("storage")).map(Amount::of).unwrap_or_default()
}

/// Bytes that a volume has.
pub fn capacity(volume: &PersistentVolume) -> Amount {
    let capacity = volume.spec.as_ref().and_then(|spec| spec.capacity.as_ref());
    capacity.and_then(|capacity| capacity.get("storage")).map(Amount::of).unwrap_or_default()
}

/// The access modes that a claim asks for.
pub fn access_modes(claim: &PersistentVolumeClaim) -> &[String] {
    claim.spec.as_ref().and_then(|spec| spec.access_modes.as_deref()).unwrap_or_default()
}

/// Why a volume is not what a claim asks for, size, class and modes taken together; none if it is
/// (upstream: checkVolumeSatisfyClaim, and the conditions of FindMatchingVolume).
pub fn mismatch(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> Option<&'static str> {
    if capacity(volume) < requested(claim) {
        return Some("requested PV is too small");
    }
    if class_of_claim(claim).unwrap_or("") != class_of_volume(volume) {
        return Some("storageClassName does not match");
    }
    if !has_mode_of(claim, volume) {
        return Some("incompatible volumeMode");
    }
    let offered = volume.spec.as_ref().and_then(|spec| spec.access_modes.as_deref()).unwrap_or_default();
    if !access_modes(claim).iter().all(|mode| offered.contains(mode)) {
        return Some("incompatible accessMode");
    }
    None
}

/// True if the labels of a volume are those that a claim selects.
pub fn is_selected(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> bool {
    let selector = claim.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    selector.is_none_or(|selector| {
        Selector::from_label_selector(Some(selector))
            .is_ok_and(|selector| selector.matches(volume.metadata.labels.as_ref()))
    })
}

/// Volumes that a claim can be bound to, the best first: those that are kept for it, or else the smallest that fit. Where
/// a claim still waits for its first pod (`only_kept`) nothing but what is kept for it will do.
pub fn candidates<'a>(
    claim: &PersistentVolumeClaim,
    world: &'a Snapshot,
    only_kept: bool,
) -> Vec<&'a PersistentVolume> {
    if let Some(made) = world.get::<PersistentVolume>("", &made_name(claim)).filter(|volume| is_for(volume, claim)) {
        return vec![made];
    }
    let mut found: Vec<(bool, &PersistentVolume)> = Vec::new();
    for volume in world.list::<PersistentVolume>(None).filter(|volume| volume.metadata.deletion_timestamp.is_none()) {
        if is_for(volume, claim) {
            if capacity(volume) >= requested(claim) && has_mode_of(claim, volume) {
                found.push((false, volume));
            }
            continue;
        }
        let free = claim_ref(volume).is_none() && phase(volume) == "Available";
        if !only_kept && free && mismatch(claim, volume).is_none() && is_selected(claim, volume) {
            found.push((true, volume));
        }
    }
    found.sort_by_key(|(free, volume)| (*free, capacity(volume)));
    if found.iter().any(|(free, _)| !free) {
        found.retain(|(free, _)| !free);
    }
    found.into_iter().map(|(_, volume)| volume).collect()
}

fn has_mode_of(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> bool {
    let mode = |mode: Option<&String>| mode.cloned().unwrap_or_else(|| "Filesystem".into());
    let wanted = mode(claim.spec.as_ref().and_then(|spec| spec.volume_mode.as_ref()));
    wanted == mode(volume.spec.as_ref().and_then(|spec| spec.volume_mode.as_ref()))
}

/// True if a volume can be used on a node (upstream: CheckNodeAffinity).
pub fn fits_node(volume: &PersistentVolume, node: &Node) -> bool {
    let affinity = volume.spec.as_ref().and_then(|spec| spec.node_affinity.as_ref()?.required.as_ref());
    affinity.is_none_or(|selector| any_term_fits(selector, node))
}

/// True if volumes of a class may be made for a node (upstream: MatchTopologySelectorTerms).
pub fn may_be_made_on(class: &StorageClass, node: &Node) -> bool {
    let label = |key: &str| node.metadata.labels.as_ref().and_then(|labels| labels.get(key));
    let fits = |term: &TopologySelectorTerm| {
        let demands = term.match_label_expressions.as_deref().unwrap_or_default();
        !demands.is_empty()
            && demands.iter().all(|demand| label(&demand.key).is_some_and(|value| demand.values.contains(value)))
    };
    let terms = class.allowed_topologies.as_deref().unwrap_or_default();
    terms.is_empty() || terms.iter().any(fits)
}

/// The name of the volume that is made for a claim.
pub fn made_name(claim: &PersistentVolumeClaim) -> String {
    format!("pvc-{}", claim.metadata.uid.as_deref().unwrap_or(""))
}

/// Whether a folder on a node is what a claim asks for; if not, why.
pub fn suits_folder(claim: &PersistentVolumeClaim) -> Result<(), String> {
    let spec = claim.spec.as_ref();
    if let Some(mode) =
        access_modes(claim).iter().find(|mode| !matches!(mode.as_str(), "ReadWriteOnce" | "ReadWriteOncePod"))
    {
        return Err(format!("{LOCAL_PROVISIONER} provides ReadWriteOnce and ReadWriteOncePod, not {mode}"));
    }
    if spec.and_then(|spec| spec.volume_mode.as_deref()) == Some("Block") {
        return Err(format!("{LOCAL_PROVISIONER} provides folders, not block devices"));
    }
    if spec.is_some_and(|spec| spec.selector.is_some()) {
        return Err("claim.spec.selector is not supported for volumes that are made for their claim".into());
    }
    Ok(())
}

/// The folder behind a volume that is one: the handle of our own driver.
pub fn folder(spec: &PersistentVolumeSpec) -> Option<&str> {
    spec.csi.as_ref().filter(|csi| csi.driver == LOCAL_DRIVER).map(|csi| csi.volume_handle.as_str())
}

/// The nodes that a folder is on: one, by its host name.
pub fn home(spec: &PersistentVolumeSpec) -> Option<&str> {
    let affinity = spec.node_affinity.as_ref()?.required.as_ref()?;
    let [term] = affinity.node_selector_terms.as_slice() else { return None };
    let demand =
        term.match_expressions.iter().flatten().find(|demand| demand.key == HOSTNAME && demand.operator == "In")?;
    match demand.values.as_deref() {
        Some([name]) => Some(name),
        _ => None,
    }
}
