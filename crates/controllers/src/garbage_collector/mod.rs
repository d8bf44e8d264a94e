//! Ends objects whose owners are all gone, and takes care of what becomes of the dependents of an object that is being
//! deleted: in the foreground they go first, orphaned they stay.
//!
//! Mirrors upstream's `pkg/controller/garbagecollector/garbagecollector.go` (attemptToDeleteItem,
//! processDeletingDependentsItem, attemptToOrphan). An owner is looked for by kind, name and uid in the dependent's own
//! namespace (or the cluster). What names an owner of a kind that is not known here, or of a namespace from outside any
//! namespace, is never deleted.

#[cfg(test)]
mod tests;

use api::{Change, Key, Kind, Object, Plan, Propagation, Snapshot, Write};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use crate::claim::{self, drop_owner};

/// Finalizer of an object that goes after its dependents.
const FOREGROUND: &str = "foregroundDeletion";
/// Finalizer of an object whose dependents stay.
const ORPHAN: &str = "orphan";
/// Dependents that are orphaned by one decision; the next decision goes on.
const DEPENDENTS_AT_ONCE: usize = 500;

/// Wakes decisions about the changed object, its dependents and its owners.
pub fn wakes(change: &Change, world: &Snapshot, wake: &mut dyn FnMut(Key)) {
    let before = change.before.as_deref();
    let Some(after) = change.after.as_deref() else {
        world.dependents(change.object().uid()).filter(|_| !change.object().uid().is_empty()).for_each(|dependent| {
            wake(dependent.key());
        });
        return wake_leaving_owners(change.object(), world, wake);
    };
    let leaves = |object: &Object| has_gone_foreground(object.meta()) || is_orphaning(object.meta());
    if leaves(after) && !before.is_some_and(leaves) {
        wake(after.key());
    }
    // Also when it was to leave its dependents behind at first, and somebody thought better of it.
    if has_gone_foreground(after.meta()) && !before.is_some_and(|before| has_gone_foreground(before.meta())) {
        wake(after.key());
        world.dependents(after.uid()).for_each(|dependent| wake(dependent.key()));
    }
    let owners_before = before.and_then(|before| before.meta().owner_references.as_ref());
    if owners_before != after.meta().owner_references.as_ref() {
        if let Some(before) = before {
            wake_leaving_owners(before, world, wake);
        }
        if has_leaving_owner(after, world) {
            wake(after.key());
        }
    }
}

/// Wakes a decision about one object if there is something to decide.
pub fn wake_one(object: &Object, world: &Snapshot, wake: &mut dyn FnMut(Key)) {
    if has_gone_foreground(object.meta()) || is_orphaning(object.meta()) || has_leaving_owner(object, world) {
        wake(object.key());
    }
}

/// Decides about one object.
pub fn reconcile(key: &Key, world: &Snapshot) -> Plan {
    let Some(object) = world.at(key) else { return Plan::nothing() };
    let meta = object.meta();
    if is_orphaning(meta) {
        return orphan_dependents(object, world);
    }
    if has_gone_foreground(meta) {
        return await_dependents(object, world);
    }
    if meta.deletion_timestamp.is_some() {
        return Plan::nothing();
    }
    judge_owners(object, world)
}

/// What is known of an owner that an object names.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Owner {
    /// It is there and stays, or nothing is known of it.
    Solid,
    /// It is not there.
    Absent,
    /// It goes as soon as its dependents are gone.
    Waiting,
}

fn judge_owners(object: &Object, world: &Snapshot) -> Plan {
    let owners = object.meta().owner_references.as_deref().unwrap_or_default();
    let judged: Vec<(Owner, &OwnerReference)> =
        owners.iter().map(|reference| (owner(reference, object, world), reference)).collect();
    let has = |kind: Owner| judged.iter().any(|(judgement, _)| *judgement == kind);
    if judged.is_empty() || !(has(Owner::Absent) || has(Owner::Waiting)) {
        return Plan::nothing();
    }
    if has(Owner::Solid) {
        let mut body = object.body.clone();
        for (_, reference) in judged.iter().filter(|(judgement, _)| *judgement != Owner::Solid) {
            drop_owner(&mut body, &reference.uid);
        }
        return writes(vec![Write::Update(body)]);
    }
    let mut dependents = world.dependents(object.uid());
    if has(Owner::Waiting) && dependents.next().is_some() {
        if world.dependents(object.uid()).any(|dependent| has_gone_foreground(dependent.meta())) && blocks(object) {
            // A circle of owners that all wait for each other is broken here; this change brings the object back.
            let mut body = object.body.clone();
            for reference in body.meta_mut().owner_references.iter_mut().flatten() {
                reference.block_owner_deletion = Some(false);
            }
            return writes(vec![Write::Update(body)]);
        }
        return writes(vec![delete(object, Propagation::Foreground)]);
    }
    let finalizers = |name: &str| has_finalizer(object.meta(), name);
    let propagation = match () {
        () if finalizers(ORPHAN) => Propagation::Orphan,
        () if finalizers(FOREGROUND) => Propagation::Foreground,
        () => Propagation::Background,
    };
    writes(vec![delete(object, propagation)])
}

fn await_dependents(object: &Object, world: &Snapshot) -> Plan {
    let blocks = |dependent: &&std::sync::Arc<Object>| {
        let references = dependent.meta().owner_references.iter().flatten();
        references.filter(|owner| owner.uid == object.uid()).any(|owner| owner.block_owner_deletion == Some(true))
    };
    let waiting = world.dependents(object.uid()).filter(blocks).count();
    if waiting > 0 {
        return Plan { why: vec![format!("is deleted once its {waiting} dependents are gone")], ..Plan::nothing() };
    }
    writes(vec![without_finalizer(object, FOREGROUND)])
}

fn orphan_dependents(object: &Object, world: &Snapshot) -> Plan {
    let released: Vec<Write> = world
        .dependents(object.uid())
        .take(DEPENDENTS_AT_ONCE)
        .map(|dependent| {
            let mut body = dependent.body.clone();
            drop_owner(&mut body, object.uid());
            Write::Update(body)
        })
        .collect();
    if released.is_empty() {
        return writes(vec![without_finalizer(object, ORPHAN)]);
    }
    writes(released)
}

fn owner(reference: &OwnerReference, object: &Object, world: &Snapshot) -> Owner {
    let Some(kind) = Kind::by_name(&reference.api_version, &reference.kind) else { return Owner::Solid };
    let namespace = if kind.namespaced() { object.namespace() } else { "" };
    if kind.namespaced() && namespace.is_empty() {
        return Owner::Solid;
    }
    match world.object(kind, namespace, &reference.name).filter(|owner| owner.uid() == reference.uid) {
        None => Owner::Absent,
        Some(owner) if has_gone_foreground(owner.meta()) => Owner::Waiting,
        Some(_) => Owner::Solid,
    }
}

fn has_leaving_owner(object: &Object, world: &Snapshot) -> bool {
    let mut owners = object.meta().owner_references.iter().flatten();
    owners.any(|reference| owner(reference, object, world) != Owner::Solid)
}

/// Wakes the owners that wait for this object, which is gone or no longer theirs.
fn wake_leaving_owners(object: &Object, world: &Snapshot, wake: &mut dyn FnMut(Key)) {
    for reference in object.meta().owner_references.iter().flatten() {
        let Some(kind) = Kind::by_name(&reference.api_version, &reference.kind) else { continue };
        let namespace = if kind.namespaced() { object.namespace() } else { "" };
        let owner = claim::owner(reference, kind, namespace, world);
        if let Some(owner) = owner.filter(|it| has_gone_foreground(it.meta()) || is_orphaning(it.meta())) {
            wake(owner.key());
        }
    }
}

fn blocks(object: &Object) -> bool {
    object.meta().owner_references.iter().flatten().any(|owner| owner.block_owner_deletion == Some(true))
}

fn has_gone_foreground(meta: &ObjectMeta) -> bool {
    meta.deletion_timestamp.is_some() && has_finalizer(meta, FOREGROUND)
}

fn is_orphaning(meta: &ObjectMeta) -> bool {
    meta.deletion_timestamp.is_some() && has_finalizer(meta, ORPHAN)
}

fn has_finalizer(meta: &ObjectMeta, name: &str) -> bool {
    meta.finalizers.iter().flatten().any(|finalizer| finalizer == name)
}

fn without_finalizer(object: &Object, name: &str) -> Write {
    let mut body = object.body.clone();
    let finalizers = &mut body.meta_mut().finalizers;
    if let Some(list) = finalizers {
        list.retain(|finalizer| finalizer != name);
    }
    *finalizers = finalizers.take().filter(|list| !list.is_empty());
    Write::Update(body)
}

fn delete(object: &Object, propagation: Propagation) -> Write {
    Write::Delete { key: object.key(), uid: object.uid().to_owned(), propagation }
}

fn writes(writes: Vec<Write>) -> Plan {
    Plan { writes, ..Plan::nothing() }
}
