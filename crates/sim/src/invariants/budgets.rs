//! PodDisruptionBudgets: no eviction leaves fewer healthy pods than a budget says, whatever else goes on.

use std::collections::BTreeMap;

use api::object::controller_of;
use api::{Kind, Pod, Snapshot};
use k8s_openapi::api::apps::v1::{ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::ReplicationController;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{Moment, Verdict};
use crate::facts;

/// What a budget comes to.
struct Sum {
    healthy: i32,
    desired: i32,
    expected: i32,
}

fn spec(budget: &PodDisruptionBudget) -> PodDisruptionBudgetSpec {
    budget.spec.clone().unwrap_or_default()
}

fn protects(budget: &PodDisruptionBudget, pod: &Pod) -> bool {
    let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    selector.is_some_and(|selector| facts::matches(selector, pod.metadata.labels.as_ref()))
        && budget.metadata.namespace == pod.metadata.namespace
}

fn pods<'a>(budget: &'a PodDisruptionBudget, world: &'a Snapshot) -> impl Iterator<Item = &'a Pod> {
    world.list::<Pod>(budget.metadata.namespace.as_deref()).filter(|pod| protects(budget, pod))
}

fn is_healthy(pod: &Pod) -> bool {
    !facts::is_deleted(&pod.metadata) && facts::ready_since(pod).is_some()
}

/// What a budget comes to in a world; `None` if one of its pods has a keeper that is of no size.
fn sum(budget: &PodDisruptionBudget, world: &Snapshot) -> Option<Sum> {
    let healthy = pods(budget, world).filter(|pod| is_healthy(pod)).count() as i32;
    let part = |value: &IntOrString, of: i32| facts::share(Some(value), of, true);
    let (expected, desired) = match (spec(budget).max_unavailable, spec(budget).min_available) {
        (Some(most), _) => {
            let all = kept(budget, world)?;
            (all, (all - part(&most, all)).max(0))
        }
        (None, Some(IntOrString::Int(least))) => (pods(budget, world).count() as i32, least),
        (None, Some(least)) => {
            let all = kept(budget, world)?;
            (all, part(&least, all))
        }
        (None, None) => (0, 0),
    };
    Some(Sum { healthy, desired, expected })
}

/// How many pods those who keep the pods of a budget are to have.
fn kept(budget: &PodDisruptionBudget, world: &Snapshot) -> Option<i32> {
    let mut sizes: BTreeMap<&str, i32> = BTreeMap::new();
    for pod in pods(budget, world) {
        let meta = &pod.metadata;
        let Some(owner) = controller_of(meta) else { continue };
        let sized = match owner.kind.as_str() {
            "ReplicaSet" => {
                let set = facts::keeper::<ReplicaSet>(meta, world)?;
                match facts::deployment_of(&set.metadata, world) {
                    Some(deployment) => (facts::uid(&deployment.metadata), facts::replicas(deployment)),
                    None => (facts::uid(&set.metadata), facts::size(set)),
                }
            }
            "StatefulSet" => {
                let set = facts::keeper::<StatefulSet>(meta, world)?;
                (facts::uid(&set.metadata), set.spec.as_ref()?.replicas.unwrap_or(1))
            }
            "ReplicationController" => {
                let keeper = facts::keeper::<ReplicationController>(meta, world)?;
                (facts::uid(&keeper.metadata), keeper.spec.as_ref()?.replicas.unwrap_or(1))
            }
            _ => return None,
        };
        sizes.insert(sized.0, sized.1);
    }
    Some(sizes.values().sum())
}

/// True if the uid of a pod's controller is that of an object of another name.
fn names_its_keeper_wrongly(pod: &Pod, world: &Snapshot) -> bool {
    let Some(owner) = controller_of(&pod.metadata) else { return false };
    let kind = Kind::by_name(&owner.api_version, &owner.kind);
    let mut objects = kind.into_iter().flat_map(|kind| world.objects(kind, pod.metadata.namespace.as_deref()));
    objects.any(|object| object.uid() == owner.uid && object.name() != owner.name)
}

/// A pod that an eviction ends here: it says so itself, and the request that wrote that deletes it next.
fn evicted<'a>(moment: &'a Moment) -> Option<&'a Pod> {
    if moment.change.kind() != Kind::Pod || !moment.asked {
        return None;
    }
    let before = moment.was?.get::<Pod>()?;
    let ends = moment.pod().1.is_none_or(|after| facts::is_deleted(&after.metadata));
    let conditions = before.status.as_ref()?.conditions.as_ref()?;
    let told = conditions
        .iter()
        .any(|it| it.type_ == "DisruptionTarget" && it.reason.as_deref() == Some("EvictionByEvictionAPI"));
    (ends && told && !facts::is_deleted(&before.metadata)).then_some(before)
}

/// I13: after an eviction as many pods are healthy as the budget says, counted at that very revision.
pub fn evictions_keep_budgets(moment: &Moment) -> Verdict {
    let Some(pod) = evicted(moment) else { return Ok(()) };
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    // A pod that serves nobody is no budget's matter.
    if facts::has_ended(pod) || phase == Some("Pending") {
        return Ok(());
    }
    let budgets = moment.before.list::<PodDisruptionBudget>(pod.metadata.namespace.as_deref());
    for budget in budgets.filter(|budget| protects(budget, pod)) {
        let free = spec(budget).unhealthy_pod_eviction_policy.as_deref() == Some("AlwaysAllow");
        if free && !is_healthy(pod) {
            continue;
        }
        let name = facts::name(&budget.metadata);
        let Some(before) = sum(budget, moment.before) else {
            // Nobody knows what the budget wants; who is not healthy takes nothing from it.
            let wrongly = pods(budget, moment.before).any(|pod| names_its_keeper_wrongly(pod, moment.before));
            if is_healthy(pod) && !wrongly {
                return Err(format!("was evicted though budget {name} has pods of a keeper without a size"));
            }
            continue;
        };
        let healthy = pods(budget, moment.after).filter(|pod| is_healthy(pod)).count() as i32;
        if healthy < before.desired {
            return Err(format!(
                "was evicted, which leaves {healthy} healthy pods of {} that budget {name} wants",
                before.desired
            ));
        }
    }
    Ok(())
}

/// I13: what a budget tells is so when nothing is left to decide.
pub fn are_true(world: &Snapshot) -> Verdict {
    for budget in world.list::<PodDisruptionBudget>(None) {
        let name = facts::name(&budget.metadata);
        if !facts::namespace_stays(budget.metadata.namespace.as_deref().unwrap_or(""), world) {
            continue;
        }
        // Upstream cannot count for as long as such a pod is there, which is collected at once; here its uid may do.
        if pods(budget, world).any(|pod| names_its_keeper_wrongly(pod, world)) {
            continue;
        }
        let status = budget.status.clone().unwrap_or_default();
        let allowed = status.disruptions_allowed.unwrap_or(0);
        let Some(Sum { healthy, desired, expected }) = sum(budget, world) else {
            if allowed != 0 {
                return Err(format!("budget {name} allows {allowed} though its pods have a keeper without a size"));
            }
            continue;
        };
        let really = if expected > 0 { (healthy - desired).max(0) } else { 0 };
        let told = [status.current_healthy, status.desired_healthy, status.expected_pods, Some(allowed)];
        if told != [Some(healthy), Some(desired), Some(expected), Some(really)] {
            return Err(format!(
                "budget {name} tells (healthy, wanted, expected, allowed) {told:?}: it is {healthy}, {desired}, {expected}, {really}"
            ));
        }
        if status.observed_generation != budget.metadata.generation {
            return Err(format!("budget {name} was not looked at since it was changed"));
        }
    }
    Ok(())
}
