//! What a PodDisruptionBudget allows now: how many of its pods are healthy, how many have to be, and so how many may be
//! evicted.
//!
//! Mirrors trySync, getExpectedPodCount, buildDisruptedPodMap, countHealthyPods and updatePdbStatus of upstream's
//! `pkg/controller/disruption/disruption.go`. Never evicts and never judges an eviction: that is the door's, which takes
//! from what is told here.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use api::int_or_string::{Round, scaled};
use api::object::controller_of;
use api::selector::Selector;
use api::{Context, EventNote, EventType, Key, Kind, Member, Plan, Pod, Snapshot, Typed, Write};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::ReplicationController;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, OwnerReference, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::pods;

/// An eviction that was allowed has so long to delete its pod (upstream: DeletionTimeout).
const DELETION_TIMEOUT: SignedDuration = SignedDuration::from_mins(2);
/// The condition of a budget.
const ALLOWED: &str = "DisruptionAllowed";
const SOURCE: &str = "controllermanager";

/// Decides about one budget.
pub fn reconcile(key: &Key, world: &Snapshot, context: &Context) -> Plan {
    let Some(budget) = world.get::<PodDisruptionBudget>(&key.namespace, &key.name) else { return Plan::nothing() };
    let mut plan = Plan::nothing();
    let spec = budget.spec.clone().unwrap_or_default();
    let selector = selector(budget);
    let selected = Selected::of(world.labelled(&key.namespace, &selector));
    let mut new = budget.clone();
    match expected(&spec, &selected, world) {
        Err(why) => {
            let status = new.status.get_or_insert_default();
            status.disruptions_allowed = Some(0);
            set_condition(status, "False", "SyncFailed", &why, context.now);
            if new != *budget {
                let told = format!("Failed to calculate the number of expected pods: {why}");
                plan.events.push(note(budget, EventType::Warning, "CalculateExpectedPodCountFailed", told));
            }
            plan.why.push(why);
        }
        Ok((expected, desired)) => {
            if selected.all == 0 && budget.status.as_ref().is_none_or(|status| status.observed_generation.is_none()) {
                plan.events.push(note(budget, EventType::Normal, "NoPods", "No matching pods found".into()));
            }
            let disrupted = still_disrupted(budget, &selector, world, context.now, &mut plan);
            let is_ready = |name: &String| world.get::<Pod>(&key.namespace, name).is_some_and(pods::is_ready);
            let leaving = disrupted.keys().filter(|name| is_ready(name)).count();
            let healthy = count(selected.healthy.saturating_sub(leaving));
            let allowed = if expected > 0 { (healthy - desired).max(0) } else { 0 };
            let status = new.status.get_or_insert_default();
            status.current_healthy = Some(healthy);
            status.desired_healthy = Some(desired);
            status.expected_pods = Some(expected);
            status.disruptions_allowed = Some(allowed);
            status.disrupted_pods = Some(disrupted).filter(|disrupted| !disrupted.is_empty());
            status.observed_generation = budget.metadata.generation;
            let (state, reason) = if allowed > 0 { ("True", "SufficientPods") } else { ("False", "InsufficientPods") };
            set_condition(status, state, reason, "", context.now);
            if allowed == 0 {
                plan.why.push(format!("{desired} pods have to be healthy and {healthy} are: none may be evicted"));
            }
        }
    }
    if new != *budget {
        if selected.unmanaged > 0 && counts_owners(&spec) {
            plan.events.push(note(budget, EventType::Warning, "UnmanagedPods", unmanaged(&selector)));
        }
        plan.writes.push(Write::Status(new.into_body()));
    }
    plan
}

/// What is known of the pods a budget is about.
#[derive(Default)]
struct Selected<'a> {
    all: usize,
    /// Those that are ready and stay.
    healthy: usize,
    /// Those that nobody keeps.
    unmanaged: usize,
    /// One pod of each controller, by a number of it.
    kept: BTreeMap<u64, &'a Pod>,
}

impl<'a> Selected<'a> {
    fn of(pods: impl Iterator<Item = Member<'a>>) -> Selected<'a> {
        let mut selected = Selected::default();
        for pod in pods {
            selected.all += 1;
            selected.healthy += usize::from(pod.is_ready() && !pod.is_deleted());
            match pod.controller() {
                Some(controller) => {
                    selected.kept.entry(controller).or_insert_with(|| pod.pod());
                }
                None => selected.unmanaged += 1,
            }
        }
        selected
    }
}

fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

/// The pods a budget is about. One without a selector is about none.
pub fn selector(budget: &PodDisruptionBudget) -> Selector {
    let wanted = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    wanted.and_then(|it| Selector::from_label_selector(Some(it)).ok()).unwrap_or_else(Selector::nothing)
}

/// True if what keeps the pods says how many there should be; a number of healthy pods needs no such thing.
fn counts_owners(spec: &PodDisruptionBudgetSpec) -> bool {
    spec.max_unavailable.is_some() || matches!(spec.min_available, Some(IntOrString::String(_)))
}

fn unmanaged(selector: &Selector) -> String {
    format!(
        "Pods selected by this PodDisruptionBudget (selector: {selector}) were found to be unmanaged. As a result, the status of \
         the PDB cannot be calculated correctly, which may result in undefined behavior. To account for these pods please set \
         \".spec.minAvailable\" field of the PDB to an integer value."
    )
}

/// How many pods there should be, and how many of them healthy.
fn expected(spec: &PodDisruptionBudgetSpec, pods: &Selected, world: &Snapshot) -> Result<(i32, i32), String> {
    let number = |value: &IntOrString, all: i32| scaled(value, all, Round::Up).map_err(|error| error.to_string());
    match (&spec.max_unavailable, &spec.min_available) {
        (Some(most), _) => {
            let all = expected_by_owners(pods, world)?;
            Ok((all, all.saturating_sub(number(most, all)?).max(0)))
        }
        (None, Some(IntOrString::Int(least))) => Ok((count(pods.all), *least)),
        (None, Some(least)) => {
            let all = expected_by_owners(pods, world)?;
            Ok((all, number(least, all)?))
        }
        (None, None) => Ok((0, 0)),
    }
}

/// How many pods those who keep these pods are to have, each counted once. Pods that nobody keeps do not count.
fn expected_by_owners(pods: &Selected, world: &Snapshot) -> Result<i32, String> {
    let mut seen: BTreeSet<String> = BTreeSet::new();
    let mut all = 0i32;
    for pod in pods.kept.values() {
        let Some(owner) = controller_of(&pod.metadata) else { continue };
        let namespace = pod.metadata.namespace.as_deref().unwrap_or("");
        if !seen.insert(owner.uid.clone()) {
            continue;
        }
        let (uid, replicas) = scale(namespace, owner, world, pods::name(pod))?;
        // Several ReplicaSets may be one Deployment's.
        if uid == owner.uid || seen.insert(uid) {
            all = all.saturating_add(replicas);
        }
    }
    Ok(all)
}

/// Uid and size of who keeps the pods of `owner`.
fn scale(namespace: &str, owner: &OwnerReference, world: &Snapshot, pod: &str) -> Result<(String, i32), String> {
    let nobody = || format!("found no controllers for pod \"{pod}\"");
    let sized = |found: Option<(&Option<String>, Option<i32>)>| {
        let (uid, replicas) = found.filter(|(uid, _)| uid.as_deref() == Some(&owner.uid)).ok_or_else(nobody)?;
        Ok((uid.clone().unwrap_or_default(), replicas.unwrap_or(1)))
    };
    match (owner.api_version.as_str(), owner.kind.as_str()) {
        ("apps/v1", "ReplicaSet") => {
            let set = world.get::<ReplicaSet>(namespace, &owner.name);
            let set = set.filter(|set| set.metadata.uid.as_deref() == Some(&owner.uid)).ok_or_else(nobody)?;
            let by = controller_of(&set.metadata).filter(|owner| owner.kind == "Deployment");
            let deployment = by.and_then(|by| {
                let deployment = world.get::<Deployment>(namespace, &by.name)?;
                (deployment.metadata.uid.as_deref() == Some(&by.uid)).then_some(deployment)
            });
            match deployment {
                Some(deployment) => {
                    let replicas = deployment.spec.as_ref().and_then(|spec| spec.replicas);
                    Ok((deployment.metadata.uid.clone().unwrap_or_default(), replicas.unwrap_or(1)))
                }
                None => sized(Some((&set.metadata.uid, set.spec.as_ref().and_then(|spec| spec.replicas)))),
            }
        }
        ("apps/v1", "StatefulSet") => {
            let set = world.get::<StatefulSet>(namespace, &owner.name);
            sized(set.map(|set| (&set.metadata.uid, set.spec.as_ref().and_then(|spec| spec.replicas))))
        }
        ("v1", "ReplicationController") => {
            let found = world.get::<ReplicationController>(namespace, &owner.name);
            sized(found.map(|it| (&it.metadata.uid, it.spec.as_ref().and_then(|spec| spec.replicas))))
        }
        (version, kind) => match Kind::by_name(version, kind) {
            Some(kind) => Err(format!("{} does not implement the scale subresource", kind.info().resource())),
            None => Err(nobody()),
        },
    }
}

/// Pods whose eviction was allowed but who are still there, for as long as that may take.
fn still_disrupted(
    budget: &PodDisruptionBudget,
    selector: &Selector,
    world: &Snapshot,
    now: Timestamp,
    plan: &mut Plan,
) -> BTreeMap<String, Time> {
    let mut still = BTreeMap::new();
    let Some(told) = budget.status.as_ref().and_then(|status| status.disrupted_pods.as_ref()) else { return still };
    let namespace = budget.metadata.namespace.as_deref().unwrap_or("");
    for (name, since) in told {
        let pod = world.get::<Pod>(namespace, name).filter(|pod| selector.matches(pods::labels(pod)));
        let Some(pod) = pod.filter(|pod| !pods::is_deleted(pod)) else { continue };
        let until = since.0.checked_add(DELETION_TIMEOUT).unwrap_or(Timestamp::MAX);
        if until > now {
            plan.wake_by(until);
            still.insert(name.clone(), since.clone());
            continue;
        }
        let by = budget.metadata.name.as_deref().unwrap_or("");
        plan.events.push(EventNote {
            regarding: Key::new(Kind::Pod, namespace, name.clone()),
            uid: pod.metadata.uid.clone().unwrap_or_default(),
            kind: EventType::Warning,
            reason: "NotDeleted",
            message: format!("Pod was expected by PDB {namespace}/{by} to be deleted but it wasn't"),
            source: SOURCE,
        });
    }
    still
}

fn set_condition(status: &mut PodDisruptionBudgetStatus, state: &str, reason: &str, message: &str, now: Timestamp) {
    let observed_generation = status.observed_generation;
    let conditions = status.conditions.get_or_insert_default();
    let known = conditions.iter().find(|condition| condition.type_ == ALLOWED && condition.status == state);
    let since = known.map_or(Time(now), |known| known.last_transition_time.clone());
    let condition = Condition {
        type_: ALLOWED.into(),
        status: state.into(),
        reason: reason.into(),
        message: message.into(),
        last_transition_time: since,
        observed_generation,
    };
    match conditions.iter_mut().find(|condition| condition.type_ == ALLOWED) {
        Some(known) => *known = condition,
        None => conditions.push(condition),
    }
}

fn note(budget: &PodDisruptionBudget, kind: EventType, reason: &'static str, message: String) -> EventNote {
    let meta = &budget.metadata;
    EventNote {
        regarding: Key::new(
            Kind::PodDisruptionBudget,
            meta.namespace.clone().unwrap_or_default(),
            meta.name.clone().unwrap_or_default(),
        ),
        uid: meta.uid.clone().unwrap_or_default(),
        kind,
        reason,
        message,
        source: SOURCE,
    }
}
