//! ResourceQuotas: a namespace never has more than it may, and the status tells what it has.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::quantity::Amount;
use api::{Change, Kind, Object, Pod, Snapshot};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::ResourceQuota;

use super::{Moment, Verdict};
use crate::facts;

/// What an object takes, by the names that quotas use here, in thousandths. A pod that has ended takes nothing, nor one whose
/// time to leave has been over for as long again.
fn taken(object: &Object, now: Timestamp) -> Vec<(&'static str, i64)> {
    match object.get::<Pod>() {
        Some(pod) if facts::has_ended(pod) || is_overdue(pod, now) => Vec::new(),
        Some(pod) => {
            let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
            let asked = containers.filter_map(|it| it.resources.as_ref()?.requests.as_ref()?.get("cpu"));
            vec![("pods", 1_000), ("requests.cpu", asked.map(|quantity| Amount::of(quantity).milli()).sum())]
        }
        None if object.kind() == Kind::ReplicaSet => vec![("count/replicasets.apps", 1_000)],
        None => Vec::new(),
    }
}

fn is_overdue(pod: &Pod, now: Timestamp) -> bool {
    let (Some(leaves), Some(grace)) = (&pod.metadata.deletion_timestamp, pod.metadata.deletion_grace_period_seconds)
    else {
        return false;
    };
    now.duration_since(leaves.0).as_secs() >= grace
}

/// What all of a namespace takes, in thousandths.
fn used(namespace: &str, world: &Snapshot, now: Timestamp) -> BTreeMap<&'static str, i64> {
    let kinds = [Kind::Pod, Kind::ReplicaSet];
    let objects = kinds.into_iter().flat_map(|kind| world.objects(kind, Some(namespace)));
    objects.flat_map(|object| taken(object, now)).fold(BTreeMap::new(), |mut sums, (name, amount)| {
        *sums.entry(name).or_default() += amount;
        sums
    })
}

fn hard(quota: &ResourceQuota) -> BTreeMap<&str, i64> {
    let hard = quota.spec.iter().flat_map(|spec| spec.hard.iter().flatten());
    hard.map(|(name, quantity)| (name.as_str(), Amount::of(quantity).milli())).collect()
}

fn quotas<'a>(namespace: &str, world: &'a Snapshot) -> impl Iterator<Item = &'a ResourceQuota> {
    world.list::<ResourceQuota>(Some(namespace))
}

/// Nothing is made, asked for or decided, that its namespace has no room for.
pub fn nothing_beyond(moment: &Moment) -> Verdict {
    let (None, Some(made)) = (&moment.change.before, &moment.change.after) else { return Ok(()) };
    let mut bounding = quotas(made.namespace(), moment.before).peekable();
    if bounding.peek().is_none() {
        return Ok(());
    }
    let all = used(made.namespace(), moment.after, moment.now);
    for quota in bounding {
        let hard = hard(quota);
        for (name, more) in taken(made, moment.now) {
            let (there, most) = (all.get(name).copied().unwrap_or(0), hard.get(name).copied().unwrap_or(i64::MAX));
            if more > 0 && there > most {
                let quota = facts::name(&quota.metadata);
                return Err(format!("takes {name} to {there}m, where quota {quota} allows {most}m"));
            }
        }
    }
    Ok(())
}

/// What a quota tells is so when nothing is left to decide.
pub fn are_true(world: &Snapshot, now: Timestamp) -> Verdict {
    for quota in world.list::<ResourceQuota>(None) {
        let namespace = quota.metadata.namespace.as_deref().unwrap_or("");
        if !facts::namespace_stays(namespace, world) {
            continue;
        }
        let (name, all) = (facts::name(&quota.metadata), used(namespace, world, now));
        let status = quota.status.clone().unwrap_or_default();
        if status.hard != quota.spec.as_ref().and_then(|spec| spec.hard.clone()) {
            return Err(format!("quota {name} tells of other bounds than it has"));
        }
        for (resource, told) in status.used.iter().flatten() {
            let (told, really) = (Amount::of(told).milli(), all.get(resource.as_str()).copied().unwrap_or(0));
            if told != really {
                return Err(format!("quota {name} tells of {told}m of {resource}, where {really}m are taken"));
            }
        }
    }
    Ok(())
}

/// True if an object takes less than before.
pub fn is_less(change: &Change, now: Timestamp) -> bool {
    let sum = |side: &Option<Arc<Object>>| side.as_ref().map_or(0, |object| taken(object, now).len());
    sum(&change.after) < sum(&change.before)
}

/// Once a quota of a namespace is another one, nobody waits who has room now: asked when a turn that changed one has come
/// to rest.
pub fn nobody_waits(namespace: &str, world: &Snapshot, now: Timestamp) -> Verdict {
    for set in world.list::<ReplicaSet>(Some(namespace)).filter(|set| !facts::is_deleted(&set.metadata)) {
        let (there, wanted) = (facts::active(set, world), facts::size(set));
        if there >= wanted || !facts::namespace_stays(namespace, world) {
            continue;
        }
        let all = used(namespace, world, now);
        let template = facts::template(set);
        let asked = template.spec.iter().flat_map(|spec| &spec.containers);
        let asked = asked.filter_map(|it| it.resources.as_ref()?.requests.as_ref()?.get("cpu"));
        let cpu: i64 = asked.map(|quantity| Amount::of(quantity).milli()).sum();
        let more = BTreeMap::from([("pods", 1_000), ("requests.cpu", cpu)]);
        let full = quotas(namespace, world).any(|quota| {
            let exceeds = |(name, most): (&str, i64)| {
                more.get(name).is_some_and(|more| all.get(name).copied().unwrap_or(0) + more > most)
            };
            hard(quota).into_iter().any(exceeds)
        });
        if !full {
            let name = facts::name(&set.metadata);
            return Err(format!("ReplicaSet {name} has {there} pods of {wanted}, though there is room now"));
        }
    }
    Ok(())
}
