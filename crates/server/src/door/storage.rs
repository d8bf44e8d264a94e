//! Claims and volumes: the class of a claim that names none, what holds both while they are used, and who may grow.
//!
//! Mirrors upstream's admission plugins DefaultStorageClass, StorageObjectInUseProtection and
//! PersistentVolumeClaimResize (`plugin/pkg/admission/storage`).

use api::volumes::{self, CLAIM_PROTECTION, VOLUME_PROTECTION};
use api::{Kind, Refusal, Snapshot};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// A new claim.
pub(super) fn admit_claim(world: &Snapshot, claim: &mut PersistentVolumeClaim) {
    protect(&mut claim.metadata, CLAIM_PROTECTION);
    if volumes::class_of_claim(claim).is_none()
        && let Some(class) = volumes::default_class(world)
    {
        claim.spec.get_or_insert_default().storage_class_name.clone_from(&class.metadata.name);
    }
}

/// A new volume.
pub(super) fn admit_volume(meta: &mut ObjectMeta) {
    protect(meta, VOLUME_PROTECTION);
}

fn protect(meta: &mut ObjectMeta, finalizer: &str) {
    if !volumes::has_finalizer(meta, finalizer) {
        meta.finalizers.get_or_insert_default().push(finalizer.to_owned());
    }
}

/// A claim may grow where its class says so.
pub(super) fn check_growth(
    world: &Snapshot,
    old: &PersistentVolumeClaim,
    new: &PersistentVolumeClaim,
) -> Result<(), Refusal> {
    if volumes::requested(new) <= volumes::requested(old) || !volumes::is_bound(old) {
        return Ok(());
    }
    let class = volumes::class_of_claim(old).and_then(|name| world.get::<StorageClass>("", name));
    if class.is_some_and(|class| class.allow_volume_expansion == Some(true)) {
        return Ok(());
    }
    let why = "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize";
    Err(Refusal::forbidden(Kind::PersistentVolumeClaim, new.metadata.name.as_deref().unwrap_or(""), why))
}
