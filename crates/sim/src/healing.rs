//! What must be so once the faults have stopped for long enough: the cluster is as it was asked to be.

use std::sync::Arc;

use api::{Kind, Object, Pod, Snapshot, Usage};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};

use crate::invariants::{
    Breach, Verdict, WorldCheck, autoscalers, daemon_sets, histories, jobs, replication_controllers, stateful_sets,
};
use crate::{facts, people};

/// Judges the world at the end, with what pods use then.
pub fn judge(world: &Snapshot, usage: &Usage, now: Timestamp) -> Result<(), Breach> {
    let checks: [(&str, WorldCheck); 11] = [
        ("I24 Deployments arrive", deployments_arrive),
        ("I25 stuck rollouts tell", stuck_rollouts_tell),
        ("I24 sets are full", sets_are_full),
        ("I24 ReplicationControllers arrive", replication_controllers::arrive),
        ("I24 DaemonSets arrive", daemon_sets::arrive),
        ("I24 StatefulSets arrive", stateful_sets::arrive),
        ("I24 Jobs end", jobs::arrive),
        ("I6 nothing is left behind", nothing_dangles),
        ("I26 nothing hangs", nothing_hangs),
        ("I10 history limit", history_is_cut),
        ("I10 revisions are cut", histories::are_cut),
    ];
    for (name, check) in checks {
        check(world).map_err(|message| Breach::new(name, message))?;
    }
    autoscalers::arrive(world, usage, now).map_err(|message| Breach::new("I24 autoscalers arrive", message))
}

/// Every Deployment has what it asks for, and says so.
fn deployments_arrive(world: &Snapshot) -> Verdict {
    for deployment in world.list::<Deployment>(None) {
        let name = facts::name(&deployment.metadata);
        if facts::is_deleted(&deployment.metadata) {
            return Err(format!("Deployment {name} is still being deleted"));
        }
        if people::is_stuck(deployment) {
            continue;
        }
        let status = deployment.status.clone().unwrap_or_default();
        let wanted = facts::replicas(deployment);
        if status.observed_generation != deployment.metadata.generation {
            return Err(format!("Deployment {name}: its last generation was never observed"));
        }
        let counts = [status.replicas, status.updated_replicas, status.ready_replicas, status.available_replicas];
        if counts.iter().any(|count| count.unwrap_or(0) != wanted) || status.unavailable_replicas.unwrap_or(0) != 0 {
            return Err(format!("Deployment {name} of {wanted} tells (pods, new, ready, available) {counts:?}"));
        }
        let sets = facts::sets(deployment, world);
        let template = facts::wanted(deployment);
        let pods: Vec<&Pod> = sets.iter().flat_map(|set| facts::pods(set, world)).collect();
        let new = sets.iter().find(|set| facts::same_template(&facts::template(set), &template));
        let Some(new) = new else { return Err(format!("Deployment {name} has no set of its template")) };
        let active = facts::active(new, world);
        if active != wanted || pods.iter().filter(|pod| facts::is_active(pod)).count() as i32 != wanted {
            return Err(format!("Deployment {name} of {wanted} has {active} new pods and {} in all", pods.len()));
        }
        let conditions = status.conditions.unwrap_or_default();
        let reason = conditions.iter().find(|it| it.type_ == "Progressing").and_then(|it| it.reason.clone());
        if reason.as_deref().is_some_and(|reason| reason != "NewReplicaSetAvailable") {
            return Err(format!("Deployment {name} is done but says {reason:?}"));
        }
    }
    Ok(())
}

/// I25: rollouts that were left stuck tell so.
fn stuck_rollouts_tell(world: &Snapshot) -> Verdict {
    world.list::<Deployment>(None).filter(|it| people::is_stuck(it)).try_for_each(tells_that_it_is_stuck)
}

/// A rollout that is stuck has been seen, and said so once its deadline had passed.
fn tells_that_it_is_stuck(deployment: &Deployment) -> Verdict {
    let name = facts::name(&deployment.metadata);
    let status = deployment.status.clone().unwrap_or_default();
    if status.observed_generation != deployment.metadata.generation {
        return Err(format!("Deployment {name}: its last generation was never observed"));
    }
    let conditions = status.conditions.unwrap_or_default();
    let told = conditions.iter().find(|it| it.type_ == "Progressing");
    let told = told.map(|it| (it.status.as_str(), it.reason.as_deref().unwrap_or_default()));
    let deadline = deployment.spec.as_ref().and_then(|spec| spec.progress_deadline_seconds);
    // One that was complete, and was scaled since or went back to a set that is there, may still count as complete, as upstream's
    // (syncRolloutStatus).
    let was_complete = told == Some(("True", "NewReplicaSetAvailable"));
    if deadline.is_some() && !was_complete && told != Some(("False", "ProgressDeadlineExceeded")) {
        return Err(format!("Deployment {name} is stuck for longer than {deadline:?} s and tells {told:?}"));
    }
    Ok(())
}

/// Every set, those that were orphaned included, has its pods, and tells their number.
fn sets_are_full(world: &Snapshot) -> Verdict {
    for set in world.list::<ReplicaSet>(None) {
        let name = facts::name(&set.metadata);
        if facts::is_deleted(&set.metadata) {
            return Err(format!("ReplicaSet {name} is still being deleted"));
        }
        let (there, wanted) = (facts::active(set, world), facts::size(set));
        let told = set.status.as_ref().map_or(0, |status| status.replicas);
        if there != wanted || told != wanted {
            return Err(format!("ReplicaSet {name} of {wanted} has {there} pods and tells {told}"));
        }
    }
    Ok(())
}

/// Nothing names owners of which none is there.
fn nothing_dangles(world: &Snapshot) -> Verdict {
    for kind in Kind::ALL {
        for object in world.objects(*kind, None) {
            let has_owner = object.meta().owner_references.iter().flatten().next().is_some();
            if has_owner && !facts::owner_is_there(object, world) {
                return Err(format!("{} is left though its owners are gone", object.key()));
            }
        }
    }
    Ok(())
}

/// Nothing is still on its way out, but for claims that somebody deleted while a pod uses them: they wait for the pod.
fn nothing_hangs(world: &Snapshot) -> Verdict {
    for kind in Kind::ALL {
        let hangs = |object: &&Arc<Object>| facts::is_deleted(object.meta()) && !is_used_claim(object, world);
        if let Some(object) = world.objects(*kind, None).find(hangs) {
            return Err(format!("{} is still being deleted", object.key()));
        }
    }
    Ok(())
}

fn is_used_claim(object: &Object, world: &Snapshot) -> bool {
    let uses = |pod: &Pod| {
        let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
        let mut claims = volumes.filter_map(|volume| volume.persistent_volume_claim.as_ref());
        facts::is_active(pod) && claims.any(|claim| claim.claim_name == object.name())
    };
    object.kind() == Kind::PersistentVolumeClaim && world.list::<Pod>(Some(object.namespace())).any(uses)
}

/// No more old sets are kept than the history limit says, once a rollout is done.
fn history_is_cut(world: &Snapshot) -> Verdict {
    for deployment in world.list::<Deployment>(None).filter(|it| !people::is_stuck(it)) {
        let limit = deployment.spec.as_ref().and_then(|spec| spec.revision_history_limit).unwrap_or(10);
        let old = facts::sets(deployment, world).len() as i32 - 1;
        if old > limit {
            return Err(format!("Deployment {} keeps {old} old sets, not {limit}", facts::name(&deployment.metadata)));
        }
    }
    Ok(())
}
