//! Facts about objects as the invariants count them.
//!
//! Written anew and not taken from `controllers`: an oracle that shares the code it judges shares its mistakes.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::object::controller_of;
use api::{Body, Kind, Object, Pod, Snapshot, Typed};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::batch::v1::{Job, JobCondition};
use k8s_openapi::api::core::v1::{Container, Namespace, Node, PodCondition, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// Annotation with the number of a revision.
pub const REVISION: &str = "deployment.kubernetes.io/revision";
/// Annotation of a set: replicas of the Deployment when it was last sized.
pub const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
/// Label that tells templates apart.
pub const HASH: &str = api::template_hash::POD_TEMPLATE_HASH_LABEL;

/// Uid, empty if it has none.
pub fn uid(meta: &ObjectMeta) -> &str {
    meta.uid.as_deref().unwrap_or("")
}

/// Name, empty if it has none.
pub fn name(meta: &ObjectMeta) -> &str {
    meta.name.as_deref().unwrap_or("")
}

/// True once somebody has asked for its end.
pub fn is_deleted(meta: &ObjectMeta) -> bool {
    meta.deletion_timestamp.is_some()
}

/// True once all containers have ended for good.
pub fn has_ended(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// True if the pod counts as a replica.
pub fn is_active(pod: &Pod) -> bool {
    !has_ended(pod) && !is_deleted(&pod.metadata)
}

/// Since when the pod is ready, if it is.
pub fn ready_since(pod: &Pod) -> Option<Timestamp> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let ready = conditions.iter().find(|condition| condition.type_ == "Ready" && condition.status == "True")?;
    Some(ready.last_transition_time.as_ref().map_or(Timestamp::MIN, |time| time.0))
}

/// True if the pod is active and has been ready for long enough.
pub fn is_available(pod: &Pod, min_ready_seconds: i32, now: Timestamp) -> bool {
    is_active(pod)
        && ready_since(pod).is_some_and(|since| {
            min_ready_seconds <= 0 || since + SignedDuration::from_secs(min_ready_seconds.into()) <= now
        })
}

/// Of these pods: all that are active, those that are ready, those that are available.
pub fn counts<'a>(pods: impl Iterator<Item = &'a Pod>, min_ready_seconds: i32, now: Timestamp) -> (i32, i32, i32) {
    pods.filter(|pod| is_active(pod)).fold((0, 0, 0), |(all, ready, available), pod| {
        let (is_ready, lasts) = (ready_since(pod).is_some(), is_available(pod, min_ready_seconds, now));
        (all + 1, ready + i32::from(is_ready), available + i32::from(lasts))
    })
}

/// Containers without the token that the door mounts in all of them.
pub fn without_token(mut containers: Vec<Container>) -> Vec<Container> {
    for container in &mut containers {
        let mounts = container.volume_mounts.take().unwrap_or_default();
        let own = mounts.into_iter().filter(|mount| !mount.name.starts_with("kube-api-access-")).collect::<Vec<_>>();
        container.volume_mounts = Some(own).filter(|own| !own.is_empty());
    }
    containers
}

/// The node a pod is bound to, empty if none.
pub fn node(pod: &Pod) -> &str {
    pod.spec.as_deref().and_then(|spec| spec.node_name.as_deref()).unwrap_or("")
}

/// The app a pod is of by its label, empty if none.
pub fn app(pod: &Pod) -> &str {
    pod.metadata.labels.as_ref().and_then(|labels| labels.get("app")).map_or("", String::as_str)
}

/// Pods a set is to have.
pub fn size(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

/// Seconds a set's pods have to be ready.
pub fn wait(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or(0)
}

/// Pods a Deployment is to have.
pub fn replicas(deployment: &Deployment) -> i32 {
    deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

/// True while its templates are not to be replaced.
pub fn is_paused(deployment: &Deployment) -> bool {
    deployment.spec.as_ref().and_then(|spec| spec.paused).unwrap_or(false)
}

/// True if old pods end before new ones start.
pub fn recreates(deployment: &Deployment) -> bool {
    let strategy = deployment.spec.as_ref().and_then(|spec| spec.strategy.as_ref());
    strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("Recreate")
}

/// A number or a percentage of a number of pods; a quarter where nothing is said.
pub fn share(value: Option<&IntOrString>, of: i32, up: bool) -> i32 {
    match value {
        Some(IntOrString::Int(number)) => *number,
        Some(IntOrString::String(text)) => {
            let percent: i32 = text.trim_end_matches('%').parse().unwrap_or(0);
            (percent * of + if up { 99 } else { 0 }) / 100
        }
        None => (25 * of + if up { 99 } else { 0 }) / 100,
    }
}

/// `maxSurge` and `maxUnavailable` in pods.
pub fn bounds(deployment: &Deployment) -> (i32, i32) {
    let replicas = replicas(deployment);
    if recreates(deployment) {
        return (0, replicas);
    }
    let rolling = deployment.spec.as_ref().and_then(|spec| spec.strategy.as_ref()?.rolling_update.as_ref());
    let surge = share(rolling.and_then(|rolling| rolling.max_surge.as_ref()), replicas, true);
    let unavailable = share(rolling.and_then(|rolling| rolling.max_unavailable.as_ref()), replicas, false);
    if surge == 0 && unavailable == 0 { (0, 1.min(replicas)) } else { (surge, unavailable.min(replicas)) }
}

/// Most pods a Deployment may have.
pub fn most(deployment: &Deployment) -> i32 {
    replicas(deployment) + bounds(deployment).0
}

/// Fewest available pods a Deployment is to have.
pub fn fewest(deployment: &Deployment) -> i32 {
    replicas(deployment) - bounds(deployment).1
}

/// What controls an object, if it is of this kind and both agree on its uid.
pub fn keeper<'a, T: Typed>(meta: &ObjectMeta, world: &'a Snapshot) -> Option<&'a T> {
    let owner = controller_of(meta).filter(|owner| owner.kind == T::KIND.info().kind)?;
    let object = world.object(T::KIND, meta.namespace.as_deref()?, &owner.name)?;
    object.get::<T>().filter(|_| object.uid() == owner.uid)
}

/// The set that controls a pod, if both agree on its uid.
pub fn set_of<'a>(meta: &ObjectMeta, world: &'a Snapshot) -> Option<&'a ReplicaSet> {
    keeper(meta, world)
}

/// The Deployment that controls a set, if both agree on its uid.
pub fn deployment_of<'a>(meta: &ObjectMeta, world: &'a Snapshot) -> Option<&'a Deployment> {
    keeper(meta, world)
}

/// The object that is named as the controller, if it is there.
pub fn controller<'a>(meta: &ObjectMeta, world: &'a Snapshot) -> Option<&'a Arc<Object>> {
    let owner = controller_of(meta)?;
    let kind = Kind::by_name(&owner.api_version, &owner.kind)?;
    world.object(kind, meta.namespace.as_deref()?, &owner.name).filter(|object| object.uid() == owner.uid)
}

/// What a workload selects.
pub fn selector_of(object: &Object) -> Option<LabelSelector> {
    match &object.body {
        Body::ReplicaSet(set) => Some(set.spec.as_ref()?.selector.clone()),
        Body::Deployment(deployment) => Some(deployment.spec.as_ref()?.selector.clone()),
        Body::DaemonSet(set) => Some(set.spec.as_ref()?.selector.clone()),
        Body::StatefulSet(set) => Some(set.spec.as_ref()?.selector.clone()),
        Body::Job(job) => job.spec.as_ref()?.selector.clone(),
        Body::ReplicationController(it) => {
            Some(LabelSelector { match_labels: it.spec.as_ref()?.selector.clone(), match_expressions: None })
        }
        _ => None,
    }
}

/// The template of a workload that rolls.
pub fn template_of(object: &Object) -> Option<PodTemplateSpec> {
    match &object.body {
        Body::Deployment(deployment) => Some(wanted(deployment)),
        Body::DaemonSet(set) => Some(set.spec.as_ref()?.template.clone()),
        Body::StatefulSet(set) => Some(set.spec.as_ref()?.template.clone()),
        _ => None,
    }
}

/// True if a pod is made of a template, as far as templates differ here.
pub fn is_of(pod: &Pod, template: &PodTemplateSpec) -> bool {
    let (Some(pod), Some(template)) = (&pod.spec, &template.spec) else { return false };
    without_token(pod.containers.clone()) == template.containers
        && pod.termination_grace_period_seconds == template.termination_grace_period_seconds
}

/// The condition that ended a Job.
pub fn job_end(job: &Job) -> Option<&JobCondition> {
    let conditions = job.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|it| matches!(it.type_.as_str(), "Complete" | "Failed") && it.status == "True")
}

/// True once a Job has ended.
pub fn is_finished(job: &Job) -> bool {
    job_end(job).is_some()
}

/// The node that a daemon pod is on or is pinned to.
pub fn place(pod: &Pod) -> Option<String> {
    if !node(pod).is_empty() {
        return Some(node(pod).to_owned());
    }
    let affinity = pod.spec.as_deref()?.affinity.as_ref()?.node_affinity.as_ref()?;
    let terms = &affinity.required_during_scheduling_ignored_during_execution.as_ref()?.node_selector_terms;
    terms.first()?.match_fields.as_ref()?.first()?.values.as_ref()?.first().cloned()
}

/// Sets of a Deployment.
pub fn sets<'a>(deployment: &Deployment, world: &'a Snapshot) -> Vec<&'a ReplicaSet> {
    world.controlled_by::<ReplicaSet>(uid(&deployment.metadata)).collect()
}

/// Pods of a set.
pub fn pods<'a>(set: &ReplicaSet, world: &'a Snapshot) -> Vec<&'a Pod> {
    world.controlled_by::<Pod>(uid(&set.metadata)).collect()
}

/// Number of pods of a set that count as replicas.
pub fn active(set: &ReplicaSet, world: &Snapshot) -> i32 {
    pods(set, world).iter().filter(|pod| is_active(pod)).count() as i32
}

/// Number of available pods of a set.
pub fn available(set: &ReplicaSet, world: &Snapshot, now: Timestamp) -> i32 {
    pods(set, world).iter().filter(|pod| is_available(pod, wait(set), now)).count() as i32
}

/// The template of a set.
pub fn template(set: &ReplicaSet) -> PodTemplateSpec {
    set.spec.as_ref().and_then(|spec| spec.template.clone()).unwrap_or_default()
}

/// The template of a Deployment.
pub fn wanted(deployment: &Deployment) -> PodTemplateSpec {
    deployment.spec.as_ref().map(|spec| spec.template.clone()).unwrap_or_default()
}

/// True if two templates are the same but for their hash.
pub fn same_template(one: &PodTemplateSpec, other: &PodTemplateSpec) -> bool {
    let bare = |template: &PodTemplateSpec| {
        let mut labels: BTreeMap<String, String> =
            template.metadata.as_ref().and_then(|meta| meta.labels.clone()).unwrap_or_default();
        labels.remove(HASH);
        labels
    };
    let notes = |template: &PodTemplateSpec| {
        template.metadata.as_ref().and_then(|meta| meta.annotations.clone()).unwrap_or_default()
    };
    one.spec == other.spec && bare(one) == bare(other) && notes(one) == notes(other)
}

/// The number of a set's revision.
pub fn revision(set: &ReplicaSet) -> i64 {
    number(&set.metadata, REVISION).unwrap_or(0)
}

/// An annotation that is a number.
pub fn number(meta: &ObjectMeta, annotation: &str) -> Option<i64> {
    meta.annotations.as_ref()?.get(annotation)?.parse().ok()
}

/// True if a selector of equalities matches these labels; the simulator uses no others.
pub fn matches(selector: &LabelSelector, labels: Option<&BTreeMap<String, String>>) -> bool {
    let wanted = selector.match_labels.iter().flatten();
    let mut wanted = wanted.peekable();
    wanted.peek().is_some() && wanted.all(|(name, value)| labels.is_some_and(|labels| labels.get(name) == Some(value)))
}

/// True if the namespace is there and stays.
pub fn namespace_stays(namespace: &str, world: &Snapshot) -> bool {
    world.get::<Namespace>("", namespace).is_some_and(|namespace| !is_deleted(&namespace.metadata))
}

/// True if the pod is on a node that is not there any more.
pub fn lost_its_node(pod: &Pod, world: &Snapshot) -> bool {
    !node(pod).is_empty() && world.object(Kind::Node, "", node(pod)).is_none()
}

/// The owners of an object that are there, by name and uid.
pub fn owners<'a>(object: &'a Object, world: &'a Snapshot) -> impl Iterator<Item = &'a Arc<Object>> {
    object.meta().owner_references.iter().flatten().filter_map(|owner| {
        let kind = Kind::by_name(&owner.api_version, &owner.kind)?;
        let namespace = if kind.namespaced() { object.namespace() } else { "" };
        world.object(kind, namespace, &owner.name).filter(|there| there.uid() == owner.uid)
    })
}

/// True if an owner of exactly this uid is there.
pub fn owner_is_there(object: &Object, world: &Snapshot) -> bool {
    object.meta().owner_references.iter().flatten().any(|owner| {
        let Some(kind) = Kind::by_name(&owner.api_version, &owner.kind) else { return true };
        let namespace = if kind.namespaced() { object.namespace() } else { "" };
        world.object(kind, namespace, &owner.name).is_some_and(|there| there.uid() == owner.uid)
    })
}

/// True for a pod that a taint of its node evicts, and that is told so.
pub fn is_evicted(pod: &Pod, world: &Snapshot) -> bool {
    let taints = world.get::<Node>("", node(pod)).and_then(|node| node.spec.as_ref()?.taints.as_deref());
    let evicts = taints.unwrap_or_default().iter().any(|taint| taint.effect == "NoExecute");
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let told =
        |it: &PodCondition| it.type_ == "DisruptionTarget" && it.reason.as_deref() == Some("DeletionByTaintManager");
    evicts && conditions.iter().any(told)
}
