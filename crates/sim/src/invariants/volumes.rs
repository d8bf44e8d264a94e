//! Claims and volumes.

use api::Pod;
use api::object::controller_of;
use api::volumes;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim};

use super::{Moment, Verdict};
use crate::facts;

/// A claim has one volume and a volume one claim.
pub fn one_to_one(moment: &Moment) -> Verdict {
    let Some(claim) = moment.change.after.as_ref().and_then(|object| object.get::<PersistentVolumeClaim>()) else {
        return Ok(());
    };
    let volume = volumes::volume_name(claim);
    if !is_bound(claim) {
        return Ok(());
    }
    let name = facts::name(&claim.metadata);
    let Some(bound) = moment.after.get::<PersistentVolume>("", volume) else {
        return Err(format!("claim {name} is bound to {volume}, which is not there"));
    };
    if !volumes::is_for(bound, claim) {
        return Err(format!("claim {name} is bound to {volume}, which is another's"));
    }
    let others = moment.after.list::<PersistentVolumeClaim>(None).filter(|other| volumes::volume_name(other) == volume);
    if others.count() > 1 { Err(format!("volume {volume} has several claims")) } else { Ok(()) }
}

fn is_bound(claim: &PersistentVolumeClaim) -> bool {
    claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound")
}

/// A pod is put only where its volumes can be used, and is ready only with all of them.
pub fn pods_are_where_their_volumes_are(moment: &Moment) -> Verdict {
    let (before, Some(after)) = moment.pod() else { return Ok(()) };
    let put = before.is_some_and(|before| facts::node(before).is_empty()) && !facts::node(after).is_empty();
    let starts = facts::ready_since(after).is_some() && before.is_none_or(|it| facts::ready_since(it).is_none());
    if !put && !starts {
        return Ok(());
    }
    let (node, namespace) = (facts::node(after), after.metadata.namespace.as_deref().unwrap_or(""));
    let Some(there) = moment.after.get::<Node>("", node) else { return Ok(()) };
    for name in volumes::claims_of(after) {
        let Some(claim) = moment.after.get::<PersistentVolumeClaim>(namespace, name) else {
            return Err(format!("runs on {node} without its claim {name}"));
        };
        match moment.after.get::<PersistentVolume>("", volumes::volume_name(claim)) {
            Some(volume) if volumes::fits_node(volume, there) => {}
            Some(_) => return Err(format!("is on {node}, where the volume of claim {name} cannot be used")),
            None if put => {
                let chosen = volumes::annotation(&claim.metadata, volumes::SELECTED_NODE);
                if chosen != Some(node) {
                    return Err(format!("is put on {node}, but claim {name} is to be made on {chosen:?}"));
                }
            }
            None => return Err(format!("is ready on {node} while claim {name} is not bound")),
        }
    }
    Ok(())
}

/// A claim in use is not removed.
pub fn used_claims_stay(moment: &Moment) -> Verdict {
    let gone = moment.change.before.as_ref().filter(|_| moment.change.after.is_none());
    let Some(claim) = gone.and_then(|object| object.get::<PersistentVolumeClaim>()) else { return Ok(()) };
    match volumes::users(&claim.metadata, moment.after).next() {
        Some(pod) => Err(format!("is removed while {} uses it", facts::name(&pod.metadata))),
        None => Ok(()),
    }
}

/// No decision ends a claim that the policy keeps: only one whose owner is gone, or whose namespace is.
pub fn kept_claims_stay(moment: &Moment) -> Verdict {
    let (Some(before), after) = (&moment.change.before, &moment.change.after) else { return Ok(()) };
    let Some(claim) = before.get::<PersistentVolumeClaim>().filter(|_| !moment.asked) else { return Ok(()) };
    let ends = after.as_ref().is_none_or(|after| facts::is_deleted(after.meta()));
    // What is taken out is shown as it last was, marked; whether it was before is in the world.
    let was_ending = moment.before.at(&before.key()).is_none_or(|there| facts::is_deleted(there.meta()));
    if !ends || was_ending || !facts::namespace_stays(before.namespace(), moment.before) {
        return Ok(());
    }
    let owners = claim.metadata.owner_references.as_deref().unwrap_or_default();
    if owners.is_empty() {
        return Err("is ended though nobody owns it".into());
    }
    // A pod that goes in the foreground takes its claims with it before it is gone itself.
    let goes_with_it = facts::controller(&claim.metadata, moment.before).is_some_and(|owner| {
        owner.meta().finalizers.iter().flatten().any(|finalizer| finalizer == "foregroundDeletion")
    });
    if facts::owner_is_there(before, moment.before)
        && !goes_with_it
        && controller_of(&claim.metadata).is_some_and(|it| it.kind != "StatefulSet")
    {
        return Err("is ended while its owner is there".into());
    }
    Ok(())
}

/// A claim is owned only as the policy of its set says: by the set if it goes with it, by a pod that is too many if it
/// goes with that.
pub fn owners_follow_the_policy(moment: &Moment) -> Verdict {
    let (Some(before), Some(after)) = (&moment.change.before, &moment.change.after) else { return Ok(()) };
    if moment.asked || before.meta().owner_references == after.meta().owner_references {
        return Ok(());
    }
    if before.get::<PersistentVolumeClaim>().is_none() {
        return Ok(());
    }
    let Some(owner) = controller_of(after.meta()).filter(|owner| Some(*owner) != controller_of(before.meta())) else {
        return Ok(());
    };
    let namespace = after.namespace();
    let set = match owner.kind.as_str() {
        "Pod" => {
            let pod = moment.after.get::<Pod>(namespace, &owner.name);
            pod.and_then(|pod| facts::keeper::<StatefulSet>(&pod.metadata, moment.after))
        }
        _ => moment.after.get::<StatefulSet>(namespace, &owner.name),
    };
    let Some(set) = set else { return Ok(()) };
    let policy = set.spec.as_ref().and_then(|spec| spec.persistent_volume_claim_retention_policy.clone());
    let policy = policy.unwrap_or_default();
    let word = if owner.kind == "Pod" { policy.when_scaled } else { policy.when_deleted };
    match word.as_deref() {
        Some("Delete") => Ok(()),
        _ => Err(format!("now goes with {} {}, though the policy keeps it", owner.kind, owner.name)),
    }
}
