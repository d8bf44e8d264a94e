//! Who manages what: adoption of orphans that match a selector, release of what no longer matches.
//!
//! Mirrors upstream's `pkg/controller/controller_ref_manager.go` (ClaimObject). Never takes what another controller
//! manages, and never adopts while either side is being deleted.

use api::object::controller_of;
use api::{Body, Typed, Write};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

/// What becomes of an object that a controller looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// It is managed by this controller.
    Mine,
    /// It is nobody's and fits: take it.
    Adopt,
    /// It is managed by this controller and no longer fits: let it go.
    Release,
    /// It is none of this controller's business.
    Other,
}

/// Judges an object by its metadata; `fits` says whether the selector matches.
pub fn judge(object: &ObjectMeta, owner: &ObjectMeta, fits: bool) -> Claim {
    let owner_stays = owner.deletion_timestamp.is_none();
    match controller_of(object) {
        Some(controller) if Some(&controller.uid) != owner.uid.as_ref() => Claim::Other,
        Some(_) if fits => Claim::Mine,
        Some(_) if owner_stays => Claim::Release,
        None if fits && owner_stays && object.deletion_timestamp.is_none() => Claim::Adopt,
        _ => Claim::Other,
    }
}

/// The reference that makes `owner` the controller of what carries it.
pub fn controller_reference<T: Typed>(owner: &ObjectMeta) -> OwnerReference {
    let info = T::KIND.info();
    OwnerReference {
        api_version: info.api_version(),
        kind: info.kind.to_owned(),
        name: owner.name.clone().unwrap_or_default(),
        uid: owner.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// The write that adopts `object`.
pub fn adopt<T: Typed + Clone>(object: &T, reference: OwnerReference) -> Write {
    let mut body = object.clone().into_body();
    let owners = body.meta_mut().owner_references.get_or_insert_default();
    owners.retain(|owner| owner.uid != reference.uid);
    owners.push(reference);
    Write::Update(body)
}

/// The write that releases `object` from the owner with this uid.
pub fn release<T: Typed + Clone>(object: &T, owner_uid: &str) -> Write {
    let mut body = object.clone().into_body();
    drop_owner(&mut body, owner_uid);
    Write::Update(body)
}

/// Takes an owner off a body.
pub fn drop_owner(body: &mut Body, owner_uid: &str) {
    let owners = &mut body.meta_mut().owner_references;
    if let Some(list) = owners {
        list.retain(|owner| owner.uid != owner_uid);
    }
    *owners = owners.take().filter(|list| !list.is_empty());
}
