//! Binds claims to volumes, makes volumes for claims, and says what becomes of a volume whose claim is gone.
//!
//! `claim` decides about a claim, `volume` about a volume, `provision` what a made one is like. Mirrors upstream's
//! `pkg/controller/volume/persistentvolume` (pv_controller.go), `pvcprotection` and `pvprotection`, and of external
//! provisioners what makes folders on nodes. Each decision looks at one object and its other half. Never takes a
//! binding apart that somebody else settled, and never deletes a volume of which a claim is left.

mod claim;
mod provision;
mod volume;

#[cfg(test)]
mod tests;

use api::volumes;
use api::{Change, Context, EventNote, EventType, Key, Kind, Object, Plan, Pod, Snapshot};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// Who says it.
const SOURCE: &str = "persistentvolume-controller";

/// Decides about one claim or one volume.
pub fn reconcile(key: &Key, world: &Snapshot, context: &Context) -> Plan {
    match key.kind {
        Kind::PersistentVolumeClaim => claim::decide(key, world, context),
        Kind::PersistentVolume => volume::decide(key, world, context),
        _ => Plan::nothing(),
    }
}

/// Wakes decisions about the claim, the volume, and those whose chances the change may have changed.
pub fn wakes(change: &Change, world: &Snapshot, wake: &mut dyn FnMut(Key)) {
    match change.kind() {
        Kind::PersistentVolumeClaim => claim_changed(change, world, wake),
        Kind::PersistentVolume => volume_changed(change, world, wake),
        Kind::StorageClass => wake_pending(world, |_| true, wake),
        Kind::Pod => pod_changed(change, world, wake),
        Kind::Node if change.after.is_none() => {
            let name = change.object().name();
            let there = world.objects(Kind::PersistentVolume, None).filter(|object| {
                let spec = object.get::<PersistentVolume>().and_then(|volume| volume.spec.as_ref());
                object.meta().deletion_timestamp.is_some() && spec.and_then(volumes::home) == Some(name)
            });
            there.for_each(|volume| wake(volume.key()));
        }
        _ => {}
    }
}

fn claim_changed(change: &Change, world: &Snapshot, wake: &mut dyn FnMut(Key)) {
    let claim = change.object();
    if change.after.is_some() {
        wake(claim.key());
    }
    let named = |object: &Object| object.get::<PersistentVolumeClaim>().map(volumes::volume_name).map(str::to_owned);
    for name in change.before.iter().chain(&change.after).filter_map(|object| named(object)).filter(|it| !it.is_empty())
    {
        wake(Key::new(Kind::PersistentVolume, "", name));
    }
    if change.after.is_none() {
        // It may have gone before it knew of the volume that was kept or made for it.
        let kept = world.objects(Kind::PersistentVolume, None).filter(|object| {
            let reference = object.get::<PersistentVolume>().and_then(volumes::claim_ref);
            reference.is_some_and(|reference| reference.uid.as_deref() == Some(claim.uid()))
        });
        kept.for_each(|volume| wake(volume.key()));
    }
}

fn volume_changed(change: &Change, world: &Snapshot, wake: &mut dyn FnMut(Key)) {
    let volume = change.object();
    if change.after.is_some() {
        wake(volume.key());
    }
    let kept_for = |object: &Object| {
        let reference = object.get::<PersistentVolume>().and_then(volumes::claim_ref)?;
        Some(Key::new(Kind::PersistentVolumeClaim, reference.namespace.clone()?, reference.name.clone()?))
    };
    change.before.iter().chain(&change.after).filter_map(|object| kept_for(object)).for_each(&mut *wake);
    // It may be what claims wait for that name it, or none.
    let open = |object: &Object| kept_for(object).is_none();
    if change.after.is_none() || change.after.as_deref().is_some_and(open) {
        let name = volume.name();
        let class = volume.get::<PersistentVolume>().map(volumes::class_of_volume).unwrap_or_default();
        let concerned = |claim: &PersistentVolumeClaim| {
            let named = volumes::volume_name(claim);
            named == name || (named.is_empty() && volumes::class_of_claim(claim).unwrap_or("") == class)
        };
        wake_pending(world, concerned, wake);
    }
}

/// Wakes claims that are not bound.
fn wake_pending(world: &Snapshot, concerned: impl Fn(&PersistentVolumeClaim) -> bool, wake: &mut dyn FnMut(Key)) {
    let pending = world.objects(Kind::PersistentVolumeClaim, None).filter(|object| {
        object.get::<PersistentVolumeClaim>().is_some_and(|claim| claim::phase(claim) != "Bound" && concerned(claim))
    });
    pending.for_each(|claim| wake(claim.key()));
}

/// A pod that comes or goes concerns the claims that wait for it: unbound ones say so, deleted ones may go.
fn pod_changed(change: &Change, world: &Snapshot, wake: &mut dyn FnMut(Key)) {
    if let (Some(before), Some(after)) = (&change.before, &change.after)
        && node_of(before) == node_of(after)
        && is_over(before) == is_over(after)
    {
        return;
    }
    let pod = change.object();
    for name in pod.get::<Pod>().into_iter().flat_map(volumes::claims_of) {
        let claim = world.get::<PersistentVolumeClaim>(pod.namespace(), name);
        let waits = |claim: &PersistentVolumeClaim| {
            claim.metadata.deletion_timestamp.is_some() || claim::phase(claim) != "Bound"
        };
        if claim.is_some_and(waits) {
            wake(Key::new(Kind::PersistentVolumeClaim, pod.namespace(), name));
        }
    }
}

fn is_over(object: &Object) -> bool {
    object.get::<Pod>().is_some_and(volumes::is_shut_down)
}

fn node_of(object: &Object) -> &str {
    object.get::<Pod>().and_then(|pod| pod.spec.as_deref()?.node_name.as_deref()).unwrap_or("")
}

/// The class that a claim asks for, if it is there.
fn class<'a>(claim: &PersistentVolumeClaim, world: &'a Snapshot) -> Option<&'a StorageClass> {
    world.get("", volumes::class_of_claim(claim)?)
}

fn note(regarding: Key, meta: &ObjectMeta, kind: EventType, reason: &'static str, message: String) -> EventNote {
    EventNote { regarding, uid: meta.uid.clone().unwrap_or_default(), kind, reason, message, source: SOURCE }
}

/// Takes a finalizer off.
fn drop_finalizer(meta: &mut ObjectMeta, name: &str) {
    if let Some(finalizers) = &mut meta.finalizers {
        finalizers.retain(|finalizer| finalizer != name);
        if finalizers.is_empty() {
            meta.finalizers = None;
        }
    }
}
