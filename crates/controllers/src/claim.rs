//! Who manages what: adoption of orphans that match a selector, release of what no longer matches.
//!
//! Mirrors upstream's `pkg/controller/controller_ref_manager.go` (ClaimObject). Never takes what another controller
//! manages, and never adopts while either side is being deleted.

use std::sync::Arc;

use api::limits::BURST_REPLICAS;
use api::object::controller_of;
use api::selector::Selector;
use api::{Body, Kind, Member, Object, Pod, Snapshot, Typed, Write};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use crate::kin::Kin;
use crate::pods;

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

/// What a workload manages, and what it has to take or let go first.
pub struct Claimed<T> {
    /// What is its own.
    pub own: Vec<T>,
    /// Adoptions and releases; at most so many at once.
    pub writes: Vec<Write>,
}

/// Sorts the objects of a namespace that `owner` manages, or might. `may` says which it may manage at all.
pub fn gather<'a, T>(
    kind: Kind,
    owner: &ObjectMeta,
    selector: &Selector,
    world: &'a Snapshot,
    may: impl Fn(&T) -> bool,
) -> Claimed<&'a T>
where
    T: Typed + Clone + k8s_openapi::Metadata<Ty = ObjectMeta> + 'a,
{
    let uid = owner.uid.as_deref().unwrap_or("");
    let namespace = owner.namespace.as_deref().unwrap_or("");
    let mut claimed = Claimed { own: Vec::new(), writes: Vec::new() };
    for object in world.controlled_by::<T>(uid).chain(world.orphans::<T>(namespace)) {
        let meta = object.metadata();
        if meta.namespace != owner.namespace {
            continue;
        }
        let going = meta.deletion_timestamp.is_some() || claimed.writes.len() >= BURST_REPLICAS;
        match judge(meta, owner, selector.matches(meta.labels.as_ref()) && may(object)) {
            Claim::Mine => claimed.own.push(object),
            _ if going => {}
            Claim::Adopt => claimed.writes.push(adopt(object, controller_reference(kind, owner))),
            Claim::Release => claimed.writes.push(release(object, uid)),
            Claim::Other => {}
        }
    }
    claimed
}

/// As [`gather`] for pods, which are known without a look at each.
pub fn members<'a>(
    kind: Kind,
    owner: &ObjectMeta,
    selector: &Selector,
    world: &'a Snapshot,
    may: impl Fn(&Member) -> bool,
) -> Claimed<Member<'a>> {
    let uid = owner.uid.as_deref().unwrap_or("");
    let own = world.members(uid).map(|member| (true, member));
    let orphans = world.orphan_members(owner.namespace.as_deref().unwrap_or("")).map(|member| (false, member));
    let mut kin = Kin::of(selector, owner.namespace.as_deref());
    let mut claimed = Claimed { own: Vec::new(), writes: Vec::new() };
    for (own, member) in own.chain(orphans) {
        match (own, kin.fits(&member) && may(&member)) {
            (true, true) => claimed.own.push(member),
            (false, false) => {}
            (_, fits) if claimed.writes.len() < BURST_REPLICAS => {
                claimed.writes.extend(settle(member.pod(), kind, owner, fits));
            }
            _ => {}
        }
    }
    claimed
}

/// The write that adopts or releases a pod of the namespace, if that is to be.
pub fn settle(pod: &Pod, kind: Kind, owner: &ObjectMeta, fits: bool) -> Option<Write> {
    if pod.metadata.namespace != owner.namespace || pods::is_deleted(pod) {
        return None;
    }
    match judge(&pod.metadata, owner, fits) {
        Claim::Adopt => Some(adopt(pod, controller_reference(kind, owner))),
        Claim::Release => Some(release(pod, owner.uid.as_deref().unwrap_or(""))),
        Claim::Mine | Claim::Other => None,
    }
}

/// The object that a reference means, in a namespace (or the cluster): dependents are counted by the uid, so by that alone
/// where somebody else or nobody has the name.
pub fn owner<'a>(
    reference: &OwnerReference,
    kind: Kind,
    namespace: &str,
    world: &'a Snapshot,
) -> Option<&'a Arc<Object>> {
    let is_meant = |object: &&Arc<Object>| object.uid() == reference.uid;
    let named = world.object(kind, namespace, &reference.name).filter(is_meant);
    named.or_else(|| world.objects(kind, Some(namespace)).find(is_meant))
}

/// The reference that makes `owner`, of this kind, the controller of what carries it.
pub fn controller_reference(kind: Kind, owner: &ObjectMeta) -> OwnerReference {
    let info = kind.info();
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
