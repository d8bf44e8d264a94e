//! The claims of a StatefulSet's pods: one a template and number, made before the pod, and kept or ended as the policy
//! says, by who owns them.
//!
//! Mirrors upstream's `pkg/controller/statefulset/stateful_set_utils.go` (getPersistentVolumeClaims, updateStorage,
//! updateClaimOwnerRefForSetAndPod) and `stateful_pod_control.go` (createPersistentVolumeClaims, PodClaimIsStale). A
//! claim is never deleted here: the garbage collector ends it once its owner is gone.

use api::object::controller_of;
use api::{Kind, Pod, Snapshot};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimVolumeSource, PodSpec, Volume};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use super::identity;
use crate::{claim, pods, specs};

fn templates(set: &StatefulSet) -> &[PersistentVolumeClaim] {
    specs::of_stateful_set(set).volume_claim_templates.as_deref().unwrap_or_default()
}

/// True if pods of the set have claims.
pub fn any(set: &StatefulSet) -> bool {
    !templates(set).is_empty()
}

fn name(set: &StatefulSet, template: &PersistentVolumeClaim, ordinal: i32) -> String {
    format!("{}-{}", template.metadata.name.as_deref().unwrap_or(""), identity::name(set, ordinal))
}

/// True if the set makes claims of this name.
pub fn makes(set: &StatefulSet, claim: &str) -> bool {
    let own = set.metadata.name.as_deref().unwrap_or("");
    let number = |template: &PersistentVolumeClaim| {
        let rest = claim.strip_prefix(template.metadata.name.as_deref()?)?.strip_prefix('-')?;
        rest.strip_prefix(own)?.strip_prefix('-')?.parse::<u32>().ok()
    };
    templates(set).iter().any(|template| number(template).is_some())
}

/// The claims of the pod of this number, with what is there of each already.
pub fn of<'a>(
    set: &StatefulSet,
    ordinal: i32,
    world: &'a Snapshot,
) -> Vec<(PersistentVolumeClaim, Option<&'a PersistentVolumeClaim>)> {
    let namespace = set.metadata.namespace.as_deref().unwrap_or("");
    let with_found = |template: &PersistentVolumeClaim| {
        let made = made(set, template, ordinal);
        let found = world.get(namespace, made.metadata.name.as_deref().unwrap_or(""));
        (made, found)
    };
    templates(set).iter().map(with_found).collect()
}

/// A claim as its template says, with the labels that the set selects by.
fn made(set: &StatefulSet, template: &PersistentVolumeClaim, ordinal: i32) -> PersistentVolumeClaim {
    let mut labels = template.metadata.labels.clone().unwrap_or_default();
    labels.extend(specs::of_stateful_set(set).selector.match_labels.clone().unwrap_or_default());
    let owner = policy(set).when_deleted.then(|| claim::controller_reference(Kind::StatefulSet, &set.metadata));
    PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(name(set, template, ordinal)),
            namespace: set.metadata.namespace.clone(),
            labels: Some(labels).filter(|labels| !labels.is_empty()),
            annotations: template.metadata.annotations.clone(),
            finalizers: template.metadata.finalizers.clone(),
            owner_references: owner.map(|owner| vec![owner]),
            ..Default::default()
        },
        spec: template.spec.clone(),
        status: None,
    }
}

/// Puts the claims of this number in the place of the volumes that are called as their templates are.
pub fn mount(set: &StatefulSet, ordinal: i32, spec: &mut PodSpec) {
    if !any(set) {
        return;
    }
    let of_claims = templates(set).iter().map(|template| Volume {
        name: template.metadata.name.clone().unwrap_or_default(),
        persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
            claim_name: name(set, template, ordinal),
            read_only: None,
        }),
        ..Default::default()
    });
    let is_claim = |volume: &Volume| {
        templates(set).iter().any(|template| template.metadata.name.as_deref() == Some(volume.name.as_str()))
    };
    let others = spec.volumes.take().unwrap_or_default().into_iter().filter(|volume| !is_claim(volume));
    spec.volumes = Some(of_claims.chain(others).collect());
}

/// When claims end: with the set, and with a pod that is too many.
#[derive(Clone, Copy)]
struct Policy {
    when_deleted: bool,
    when_scaled: bool,
}

fn policy(set: &StatefulSet) -> Policy {
    let given = specs::of_stateful_set(set).persistent_volume_claim_retention_policy.as_ref();
    let deletes = |word: Option<&String>| word.is_some_and(|word| word == "Delete");
    Policy {
        when_deleted: deletes(given.and_then(|policy| policy.when_deleted.as_ref())),
        when_scaled: deletes(given.and_then(|policy| policy.when_scaled.as_ref())),
    }
}

/// The claim with the owners that the policy asks for; `None` if it has them. A claim that somebody else manages is
/// left to them.
pub fn owned(
    claim: &PersistentVolumeClaim,
    set: &StatefulSet,
    pod: &Pod,
    too_many: bool,
) -> Option<PersistentVolumeClaim> {
    let uid = |meta: &ObjectMeta| meta.uid.clone().unwrap_or_default();
    let (set_uid, pod_uid) = (uid(&set.metadata), uid(&pod.metadata));
    let before = claim.metadata.owner_references.clone().unwrap_or_default();
    let is_ours = |owner: &OwnerReference| owner.uid == set_uid || owner.uid == pod_uid;
    let mut owners: Vec<OwnerReference> = before.iter().filter(|owner| !is_ours(owner)).cloned().collect();
    let of_others = controller_of(&claim.metadata).is_some_and(|owner| !is_ours(owner));
    let policy = policy(set);
    let wanted = match () {
        () if of_others => None,
        () if policy.when_scaled && too_many => Some(claim::controller_reference(Kind::Pod, &pod.metadata)),
        () if policy.when_deleted => Some(claim::controller_reference(Kind::StatefulSet, &set.metadata)),
        () => None,
    };
    match wanted {
        Some(wanted) if before.contains(&wanted) && before.iter().filter(|owner| is_ours(owner)).count() == 1 => {
            return None;
        }
        None if owners.len() == before.len() => return None,
        wanted => owners.extend(wanted),
    }
    let mut claim = claim.clone();
    claim.metadata.owner_references = Some(owners).filter(|owners| !owners.is_empty());
    Some(claim)
}

/// Why no pod may be made with a claim that is there; none if one may.
pub fn obstacle(claim: &PersistentVolumeClaim, pod: &str) -> Option<String> {
    let name = claim.metadata.name.as_deref().unwrap_or("");
    if claim.metadata.deletion_timestamp.is_some() {
        return Some(format!("claim {name} is being deleted"));
    }
    let stale = claim.metadata.owner_references.iter().flatten().any(|owner| owner.kind == "Pod" && owner.name == pod);
    stale.then(|| format!("claim {name} goes with the pod that had it"))
}

/// True if a pod still waits for what it needs, claims among them.
pub fn waits(pod: &Pod) -> bool {
    !pods::is_deleted(pod) && matches!(pods::phase(pod), "Pending" | "")
}
