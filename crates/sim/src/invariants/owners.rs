//! Who owns what, who may end it, and what becomes of it when its owner goes.

use api::object::controller_of;
use api::{Kind, Object, Pod, Snapshot};
use k8s_openapi::api::core::v1::Node;

use super::{Moment, Verdict};
use crate::facts;

/// I5: nothing has two controllers.
pub fn one_controller(moment: &Moment) -> Verdict {
    let Some(after) = &moment.change.after else { return Ok(()) };
    let owners = after.meta().owner_references.iter().flatten();
    let controllers = owners.filter(|owner| owner.controller == Some(true)).count();
    if controllers > 1 { Err(format!("has {controllers} controllers")) } else { Ok(()) }
}

/// I5: only what fits is adopted, by an owner that is there and stays. People may give things away to anybody.
pub fn adopts_only_what_fits(moment: &Moment) -> Verdict {
    if moment.asked {
        return Ok(());
    }
    let (Some(before), Some(after)) = (&moment.change.before, &moment.change.after) else { return Ok(()) };
    let (None, Some(owner)) = (controller_of(before.meta()), controller_of(after.meta())) else { return Ok(()) };
    if !matches!(after.kind(), Kind::Pod | Kind::ReplicaSet | Kind::ControllerRevision) {
        return Ok(());
    }
    let keeper = facts::controller(after.meta(), moment.before).filter(|keeper| !facts::is_deleted(keeper.meta()));
    let Some(keeper) = keeper.filter(|_| !facts::is_deleted(before.meta())) else {
        return Err(format!("was adopted by {} {}, which is not there or not to stay", owner.kind, owner.name));
    };
    let labels = after.meta().labels.as_ref();
    if facts::selector_of(keeper).is_some_and(|selector| facts::matches(&selector, labels)) {
        Ok(())
    } else {
        Err(format!("was adopted by {} {}, whose selector does not match it", owner.kind, owner.name))
    }
}

/// I5: a decision ends a pod only if its ReplicaSet has too many, or nobody is left to want it.
pub fn ends_only_what_is_too_much(moment: &Moment) -> Verdict {
    let (Some(before), after) = moment.pod() else { return Ok(()) };
    let ends = after.is_none_or(|after| facts::is_deleted(&after.metadata));
    if !facts::is_active(before) || !ends || moment.asked {
        return Ok(());
    }
    let namespace = before.metadata.namespace.as_deref().unwrap_or("");
    let node = facts::node(before);
    let node_is_gone = !node.is_empty() && moment.before.get::<Node>("", node).is_none();
    if node_is_gone || !facts::namespace_stays(namespace, moment.before) || facts::is_evicted(before, moment.before) {
        return Ok(());
    }
    match facts::set_of(&before.metadata, moment.before) {
        Some(set) if !facts::is_deleted(&set.metadata) => {
            let (there, wanted) = (facts::active(set, moment.before), facts::size(set));
            let name = facts::name(&set.metadata);
            if there > wanted { Ok(()) } else { Err(format!("was ended though {name} has {there} pods of {wanted}")) }
        }
        Some(_) => Ok(()),
        None if facts::controller(&before.metadata, moment.before).is_some() => Ok(()),
        None if before.metadata.owner_references.iter().flatten().next().is_none() => {
            Err("was ended though nobody controls it".into())
        }
        None => Ok(()),
    }
}

/// I6: what has an owner is not collected while the owner is there, and what has none not at all.
pub fn collects_only_garbage(moment: &Moment) -> Verdict {
    let Some(before) = moment.change.before.as_ref().filter(|_| !moment.asked) else { return Ok(()) };
    let Some(there) = moment.was else { return Ok(()) };
    let ends = moment.change.after.as_ref().is_none_or(|after| facts::is_deleted(after.meta()));
    let collected = matches!(before.kind(), Kind::ReplicaSet | Kind::Deployment | Kind::Service | Kind::ConfigMap);
    if !ends
        || facts::is_deleted(there.meta())
        || !collected
        || !facts::namespace_stays(before.namespace(), moment.before)
    {
        return Ok(());
    }
    let has_owner = there.meta().owner_references.iter().flatten().next().is_some();
    if !has_owner {
        return Err("was ended though it has no owner and nobody asked".into());
    }
    let stays = facts::deployment_of(there.meta(), moment.before).is_some_and(|it| !facts::is_deleted(&it.metadata));
    // Sets of a Deployment that stays are forgotten beyond its history limit; that has an invariant of its own.
    if facts::owner_is_there(there, moment.before) && !stays {
        let leaving = moment.before.dependents(there.uid()).next().is_none();
        // Whoever goes in the foreground takes all that names it, be it the controller or not.
        let mut owners = facts::owners(there, moment.before);
        if !owners.any(|owner| has_finalizer(owner.meta(), "foregroundDeletion")) {
            return Err(format!("was ended while its owner is there (leaving: {leaving})"));
        }
    }
    Ok(())
}

fn has_finalizer(meta: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta, wanted: &str) -> bool {
    meta.finalizers.iter().flatten().any(|finalizer| finalizer == wanted)
}

/// True if the change takes `finalizer` off an object, or the object away with it.
fn loses(moment: &Moment, finalizer: &str) -> bool {
    // A removal shows the object's last state; what it was before is in the snapshot.
    let Some(before) = moment.was else { return false };
    has_finalizer(before.meta(), finalizer)
        && moment.change.after.as_ref().is_none_or(|after| !has_finalizer(after.meta(), finalizer))
}

/// I6: an object that was deleted with `--cascade=orphan` goes only when all its dependents were let go. What was made
/// after that, by who did not know of it yet, goes with what it was made for.
pub fn lets_orphans_go(moment: &Moment) -> Verdict {
    if !loses(moment, "orphan") || moment.asked {
        return Ok(());
    }
    let object = moment.change.object();
    let asked_at = object.meta().deletion_timestamp.as_ref().map(|time| time.0);
    let made_at = |dependent: &Object| dependent.meta().creation_timestamp.as_ref().map(|time| time.0);
    match moment.after.dependents(object.uid()).find(|dependent| made_at(dependent) <= asked_at) {
        Some(left) => Err(format!("goes while {} is still its dependent", left.key())),
        None => Ok(()),
    }
}

/// I6: an object that was deleted in the foreground goes only after the dependents that block it.
pub fn waits_for_dependents(moment: &Moment) -> Verdict {
    if !loses(moment, "foregroundDeletion") || moment.asked {
        return Ok(());
    }
    let object = moment.change.object();
    let blocking = moment.after.dependents(object.uid()).find(|dependent| {
        let owners = dependent.meta().owner_references.iter().flatten();
        owners.filter(|owner| owner.uid == object.uid()).any(|owner| owner.block_owner_deletion == Some(true))
    });
    match blocking {
        Some(left) => Err(format!("goes before {}", left.key())),
        None => Ok(()),
    }
}

/// I5: when nothing is left to decide, nobody keeps a pod that somebody took out by its labels.
pub fn taken_out_are_let_go(world: &Snapshot) -> Verdict {
    for pod in world.list::<Pod>(None).filter(|pod| facts::is_active(pod)) {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or("");
        let keeper = facts::controller(&pod.metadata, world).filter(|keeper| !facts::is_deleted(keeper.meta()));
        // Jobs keep what they once made.
        let Some(keeper) = keeper.filter(|keeper| keeper.kind() != Kind::Job) else { continue };
        let fits = facts::selector_of(keeper).is_some_and(|it| facts::matches(&it, pod.metadata.labels.as_ref()));
        if !fits && facts::namespace_stays(namespace, world) {
            return Err(format!("{} keeps {}, which it does not select", keeper.key(), facts::name(&pod.metadata)));
        }
    }
    Ok(())
}
