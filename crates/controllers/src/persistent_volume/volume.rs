//! What becomes of a volume (upstream: syncVolume, reclaimVolume; pvprotection processPV).

use api::volumes::{self, FOLDER_FINALIZER, PROVISIONED_BY, VOLUME_PROTECTION};
use api::{Context, EventType, Key, Plan, Propagation, Snapshot, Typed, Write};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{drop_finalizer, note};

/// Decides about one volume: first its phase, and what follows from it when that is written.
pub(super) fn decide(key: &Key, world: &Snapshot, context: &Context) -> Plan {
    let Some(volume) = world.get::<PersistentVolume>("", &key.name) else { return Plan::nothing() };
    let mut plan = Plan::nothing();
    let standing = Standing::of(volume, world);
    if let Standing::Unwanted = standing {
        return unbind(volume);
    }
    // What could not be reclaimed stays so until somebody looks after it.
    let failed = matches!(standing, Standing::Released) && volumes::phase(volume) == "Failed";
    let phase = if failed { "Failed" } else { standing.phase() };
    if volumes::phase(volume) != phase {
        plan.writes.push(status(volume, phase, None, context.now));
        return plan;
    }
    if volume.metadata.deletion_timestamp.is_some() {
        end(volume, phase, world, &mut plan);
    } else if !volumes::has_finalizer(&volume.metadata, VOLUME_PROTECTION) {
        let mut volume = volume.clone();
        volume.metadata.finalizers.get_or_insert_default().push(VOLUME_PROTECTION.into());
        plan.writes.push(Write::Update(volume.into_body()));
    } else if let Standing::Released = standing {
        reclaim(key, volume, failed, context.now, &mut plan);
    }
    plan
}

/// How a volume stands to its claim.
enum Standing {
    /// It has none, or one that is named by hand and is not bound to it yet.
    Available,
    /// They are bound to each other.
    Bound,
    /// Its claim is gone.
    Released,
    /// Its claim is bound to another volume.
    Unwanted,
}

impl Standing {
    fn of(volume: &PersistentVolume, world: &Snapshot) -> Standing {
        let Some(reference) = volumes::claim_ref(volume) else { return Standing::Available };
        let Some(uid) = reference.uid.as_deref().filter(|uid| !uid.is_empty()) else { return Standing::Available };
        let namespace = reference.namespace.as_deref().unwrap_or("");
        let claim = world.get::<PersistentVolumeClaim>(namespace, reference.name.as_deref().unwrap_or(""));
        match claim.filter(|claim| claim.metadata.uid.as_deref() == Some(uid)) {
            None => Standing::Released,
            Some(claim) if Some(volumes::volume_name(claim)) == volume.metadata.name.as_deref() => Standing::Bound,
            // The claim's own decision binds it.
            Some(claim) if volumes::volume_name(claim).is_empty() => match volumes::phase(volume) {
                "Bound" => Standing::Bound,
                _ => Standing::Available,
            },
            Some(_) => Standing::Unwanted,
        }
    }

    fn phase(&self) -> &'static str {
        match self {
            Standing::Available | Standing::Unwanted => "Available",
            Standing::Bound => "Bound",
            Standing::Released => "Released",
        }
    }
}

/// A claim that was bound elsewhere meanwhile leaves the volume to others (upstream: unbindVolume); one that was made
/// for it is nobody's.
fn unbind(volume: &PersistentVolume) -> Plan {
    let made = volumes::annotation(&volume.metadata, PROVISIONED_BY).is_some();
    if made && policy(volume) == "Delete" {
        let deleted = volume.metadata.deletion_timestamp.is_some();
        let writes = if deleted { Vec::new() } else { vec![delete(volume)] };
        return Plan { writes, ..Plan::nothing() };
    }
    let mut free = volume.clone();
    let spec = free.spec.get_or_insert_default();
    let by_controller = volumes::annotation(&volume.metadata, volumes::BOUND_BY_CONTROLLER).is_some();
    if by_controller {
        spec.claim_ref = None;
        free.metadata.annotations.iter_mut().for_each(|all| drop(all.remove(volumes::BOUND_BY_CONTROLLER)));
    } else if let Some(reference) = &mut spec.claim_ref {
        reference.uid = None;
    }
    Plan { writes: vec![Write::Update(free.into_body())], ..Plan::nothing() }
}

/// A deleted volume goes when it is not bound, and its folder is done away with or was lost with its node.
fn end(volume: &PersistentVolume, phase: &str, world: &Snapshot, plan: &mut Plan) {
    let meta = &volume.metadata;
    if phase == "Bound" {
        return plan.why.push("is deleted once its claim is gone".into());
    }
    if volumes::has_finalizer(meta, VOLUME_PROTECTION) {
        let mut volume = volume.clone();
        drop_finalizer(&mut volume.metadata, VOLUME_PROTECTION);
        return plan.writes.push(Write::Update(volume.into_body()));
    }
    if !volumes::has_finalizer(meta, FOLDER_FINALIZER) {
        return;
    }
    let home = volume.spec.as_ref().and_then(volumes::home).unwrap_or("");
    if is_there(home, world) {
        return plan.why.push(format!("is deleted once node {home} has done away with its folder"));
    }
    let mut volume = volume.clone();
    drop_finalizer(&mut volume.metadata, FOLDER_FINALIZER);
    plan.writes.push(Write::Update(volume.into_body()));
}

/// True if there is a node of this host name.
fn is_there(host: &str, world: &Snapshot) -> bool {
    let label = |node: &Node| node.metadata.labels.as_ref().and_then(|labels| labels.get(volumes::HOSTNAME)).cloned();
    world.get::<Node>("", host).is_some() || world.list::<Node>(None).any(|node| label(node).as_deref() == Some(host))
}

fn reclaim(key: &Key, volume: &PersistentVolume, failed: bool, now: Timestamp, plan: &mut Plan) {
    if policy(volume) != "Delete" {
        return plan.why.push("its claim is gone; what is in it is kept until somebody looks after it".into());
    }
    let spec = volume.spec.as_ref();
    if spec.is_some_and(|spec| volumes::folder(spec).is_some()) {
        return plan.writes.push(delete(volume));
    }
    // What another provisioner made, that deletes.
    if volumes::annotation(&volume.metadata, PROVISIONED_BY).is_some() || failed {
        return plan.why.push("its claim is gone; whoever made it has to delete it".into());
    }
    let message =
        format!("error getting deleter volume plugin for volume \"{}\": no deletable volume plugin matched", key.name);
    plan.writes.push(status(volume, "Failed", Some(message.clone()), now));
    let note = note(key.clone(), &volume.metadata, EventType::Warning, "VolumeFailedDelete", message);
    plan.writes.push(Write::Event(note));
}

fn policy(volume: &PersistentVolume) -> &str {
    volume.spec.as_ref().and_then(|spec| spec.persistent_volume_reclaim_policy.as_deref()).unwrap_or("Retain")
}

fn delete(volume: &PersistentVolume) -> Write {
    Write::Delete {
        key: Key::new(api::Kind::PersistentVolume, "", volume.metadata.name.clone().unwrap_or_default()),
        uid: volume.metadata.uid.clone().unwrap_or_default(),
        propagation: Propagation::Background,
    }
}

fn status(volume: &PersistentVolume, phase: &str, message: Option<String>, now: Timestamp) -> Write {
    let mut volume = volume.clone();
    let status = volume.status.get_or_insert_default();
    status.phase = Some(phase.to_owned());
    status.message = message;
    status.last_phase_transition_time = Some(Time(now));
    Write::Status(volume.into_body())
}
