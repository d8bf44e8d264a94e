//! The one trigger table: which decisions a change calls for.
//!
//! A decision that is woken for nothing costs little, one that is not woken is a bug; but the most frequent changes
//! (a pod that is bound, a node that reports) must not wake what they cannot concern. Work per change is bounded by
//! the workloads and services of its namespace, or by the dependents of an object that goes.

use std::collections::BTreeMap;

use api::object::controller_of;
use api::selector::Selector;
use api::{Change, Key, Kind, Object, Pod, Snapshot};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Namespace, Node, ReplicationController, ResourceQuota, Service};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, OwnerReference};

use crate::{
    Controller, claim, daemon_set, disruption, endpoints, garbage_collector, job, node_lifecycle, persistent_volume,
    pod_garbage_collector, pods, service_account, stateful_set, taint_eviction,
};

/// What is called for every decision to be woken.
type Wake<'a> = dyn FnMut(Controller, Key) + 'a;

/// Wakes the decisions that `change` calls for. `world` is the world after it.
pub fn wakes(change: &Change, world: &Snapshot, wake: &mut dyn FnMut(Controller, Key)) {
    match change.kind() {
        Kind::Pod => pod_changed(change, world, wake),
        Kind::ReplicaSet => replica_set_changed(change, world, wake),
        Kind::ReplicationController | Kind::DaemonSet | Kind::StatefulSet => keeper_changed(change, wake),
        Kind::Job => job_changed(change, world, wake),
        Kind::CronJob => cron_job_changed(change, wake),
        Kind::ControllerRevision => revision_changed(change, world, wake),
        Kind::Deployment => deployment_changed(change, wake),
        Kind::HorizontalPodAutoscaler => autoscaler_changed(change, wake),
        Kind::Service => wake(Controller::Endpoints, change.object().key()),
        Kind::Endpoints | Kind::EndpointSlice => endpoints_changed(change, wake),
        Kind::Node => node_changed(change, world, wake),
        Kind::PodDisruptionBudget => wake(Controller::Disruption, change.object().key()),
        Kind::Namespace => {
            wake(Controller::Namespace, change.object().key());
            wake(Controller::ServiceAccount, change.object().key());
        }
        Kind::PersistentVolumeClaim => claim_changed(change, world, wake),
        Kind::ServiceAccount | Kind::ConfigMap => furniture_changed(change, world, wake),
        _ => {}
    }
    persistent_volume::wakes(change, world, &mut |key| wake(Controller::PersistentVolume, key));
    quotas_changed(change, world, wake);
    budgets_concerned(change, world, wake);
    garbage_collector::wakes(change, world, &mut |key| wake(Controller::GarbageCollector, key));
    namespace_emptied(change, world, wake);
}

/// Wakes every decision, as at start.
pub fn wake_all(world: &Snapshot, wake: &mut dyn FnMut(Controller, Key)) {
    let mut all = |kind: Kind, who: Controller| {
        world.objects(kind, None).for_each(|object| wake(who, object.key()));
    };
    all(Kind::HorizontalPodAutoscaler, Controller::HorizontalPodAutoscaler);
    all(Kind::ReplicaSet, Controller::ReplicaSet);
    all(Kind::Deployment, Controller::Deployment);
    all(Kind::ReplicationController, Controller::ReplicaSet);
    all(Kind::DaemonSet, Controller::DaemonSet);
    all(Kind::StatefulSet, Controller::StatefulSet);
    all(Kind::CronJob, Controller::CronJob);
    all(Kind::Job, Controller::Job);
    all(Kind::PersistentVolumeClaim, Controller::PersistentVolume);
    all(Kind::PersistentVolume, Controller::PersistentVolume);
    all(Kind::Service, Controller::Endpoints);
    all(Kind::Namespace, Controller::Namespace);
    all(Kind::ResourceQuota, Controller::ResourceQuota);
    all(Kind::Namespace, Controller::ServiceAccount);
    all(Kind::PodDisruptionBudget, Controller::Disruption);
    all(Kind::Node, Controller::NodeLifecycle);
    all(Kind::Node, Controller::TaintEviction);
    wake(Controller::NodeLifecycle, node_lifecycle::all_nodes());
    let nobodys = world.objects(Kind::Pod, None).filter(|pod| pod_garbage_collector::concerns(pod, world));
    nobodys.for_each(|pod| wake(Controller::PodGarbageCollector, pod.key()));
    wake(Controller::PodGarbageCollector, pod_garbage_collector::all_ended());
    let orphans = world.objects(Kind::Pod, None).filter(|object| job::is_held_in_vain(object, world));
    orphans.for_each(|object| wake(Controller::Job, object.key()));
    for endpoints in world.objects(Kind::Endpoints, None).chain(world.objects(Kind::EndpointSlice, None)) {
        if let Some(service) = endpoints::service_of(endpoints) {
            wake(Controller::Endpoints, service);
        }
    }
    for kind in Kind::ALL {
        for object in world.objects(*kind, None) {
            garbage_collector::wake_one(object, world, &mut |key| wake(Controller::GarbageCollector, key));
        }
    }
}

/// Who tells the status of objects of a kind. He is woken when another has written it, to put it right, as in Kubernetes,
/// where a controller looks at every update of its objects; what he wrote himself needs no second look.
pub fn status_teller(kind: Kind) -> Option<Controller> {
    Some(match kind {
        Kind::ReplicaSet | Kind::ReplicationController => Controller::ReplicaSet,
        Kind::Deployment => Controller::Deployment,
        Kind::DaemonSet => Controller::DaemonSet,
        Kind::StatefulSet => Controller::StatefulSet,
        Kind::Job => Controller::Job,
        Kind::CronJob => Controller::CronJob,
        Kind::ResourceQuota => Controller::ResourceQuota,
        _ => return None,
    })
}

/// What a client may change of an object, its status aside.
fn same_but_status(change: &Change) -> bool {
    let (Some(before), Some(after)) = (&change.before, &change.after) else { return false };
    let (before, after) = (before.meta(), after.meta());
    before.generation == after.generation
        && before.uid == after.uid
        && before.deletion_timestamp == after.deletion_timestamp
        && before.labels == after.labels
        && before.annotations == after.annotations
        && before.owner_references == after.owner_references
}

fn pod_changed(change: &Change, world: &Snapshot, wake: &mut Wake) {
    if replica_digest(change.before.as_deref()) != replica_digest(change.after.as_deref()) {
        for pod in change.sides() {
            match controller_of(pod.meta()) {
                Some(owner) => {
                    if let Some((who, kind)) = keeper(&owner.kind) {
                        wake_owner(owner, kind, pod.namespace(), world, &mut |key| wake(who, key));
                    }
                }
                None => wake_adopters(pod, world, wake),
            }
        }
    }
    job_pod_changed(change, world, wake);
    pod_ended(change, world, wake);
    if endpoints::digest(change.before.as_deref()) != endpoints::digest(change.after.as_deref()) {
        wake_services(change, world, wake);
    }
    if pod_garbage_collector::too_many_end(change, world) {
        wake(Controller::PodGarbageCollector, pod_garbage_collector::all_ended());
    }
    let Some(pod) = change.after.as_ref() else { return };
    let node = |object: &Object| object.get::<Pod>().map(|pod| pods::node(pod).to_owned()).unwrap_or_default();
    let bound = node(pod);
    let moved = change.before.as_ref().is_none_or(|before| node(before) != bound);
    let leaves = |object: &Object| object.facts().is_deleted();
    let let_go = leaves(pod) && change.before.as_ref().is_some_and(|before| !leaves(before));
    if (moved || let_go) && pod_garbage_collector::concerns(pod, world) {
        wake(Controller::PodGarbageCollector, pod.key());
    }
    let Some(on) = world.get::<Node>("", &bound) else { return };
    if taint_eviction::evicts(on) && (moved || tolerations_changed(change)) {
        wake(Controller::TaintEviction, Key::new(Kind::Node, "", bound));
    }
}

/// A Deployment that recreates waits for every old pod, and its sets do not tell of those that they select no more
/// (upstream: deletePod of `pkg/controller/deployment/deployment_controller.go`).
fn pod_ended(change: &Change, world: &Snapshot, wake: &mut Wake) {
    let runs = |object: &Object| object.get::<Pod>().is_some_and(|pod| !pods::has_ended(pod));
    let Some(before) = change.before.as_deref() else { return };
    if change.after.as_deref().is_some_and(runs) {
        return;
    }
    let Some(owner) = controller_of(before.meta()).filter(|owner| owner.kind == "ReplicaSet") else { return };
    let Some(set) = world.get::<ReplicaSet>(before.namespace(), &owner.name) else { return };
    let Some(owner) = controller_of(&set.metadata).filter(|owner| owner.kind == "Deployment") else { return };
    let deployment = world.get::<Deployment>(before.namespace(), &owner.name);
    let strategy = deployment.and_then(|deployment| deployment.spec.as_ref()?.strategy.as_ref());
    if strategy.and_then(|strategy| strategy.type_.as_deref()) == Some("Recreate") {
        wake(Controller::Deployment, Key::new(Kind::Deployment, before.namespace(), owner.name.clone()));
    }
}

/// A pod concerns the budgets that select it, the size of a workload all budgets of its namespace.
fn budgets_concerned(change: &Change, world: &Snapshot, wake: &mut Wake) {
    let is_workload =
        matches!(change.kind(), Kind::Deployment | Kind::ReplicaSet | Kind::StatefulSet | Kind::ReplicationController);
    let is_pod = change.kind() == Kind::Pod
        && replica_digest(change.before.as_deref()) != replica_digest(change.after.as_deref());
    if !is_pod && (!is_workload || same_but_status(change)) {
        return;
    }
    for budget in world.objects(Kind::PodDisruptionBudget, Some(change.object().namespace())) {
        let selects = |pod: &Object| {
            let selector = budget.get::<PodDisruptionBudget>().map(disruption::selector);
            selector.is_some_and(|selector| selector.matches(pod.meta().labels.as_ref()))
        };
        if is_workload || change.sides().any(selects) {
            wake(Controller::Disruption, budget.key());
        }
    }
}

fn tolerations_changed(change: &Change) -> bool {
    let of = |object: &Object| object.get::<Pod>()?.spec.as_ref()?.tolerations.clone();
    change.before.as_deref().and_then(of) != change.after.as_deref().and_then(of)
}

/// Who keeps the pods of an owner of this kind.
fn keeper(kind: &str) -> Option<(Controller, Kind)> {
    Some(match kind {
        "ReplicaSet" => (Controller::ReplicaSet, Kind::ReplicaSet),
        "ReplicationController" => (Controller::ReplicaSet, Kind::ReplicationController),
        "DaemonSet" => (Controller::DaemonSet, Kind::DaemonSet),
        "StatefulSet" => (Controller::StatefulSet, Kind::StatefulSet),
        _ => return None,
    })
}

/// Wakes an owner by its name, and by its uid, where somebody else or nobody has that name.
fn wake_owner(owner: &OwnerReference, kind: Kind, namespace: &str, world: &Snapshot, wake: &mut dyn FnMut(Key)) {
    wake(Key::new(kind, namespace, owner.name.clone()));
    if let Some(other) = claim::owner(owner, kind, namespace, world).filter(|it| it.name() != owner.name) {
        wake(other.key());
    }
}

/// Wakes those who might adopt a pod that nobody manages.
fn wake_adopters(pod: &Object, world: &Snapshot, wake: &mut Wake) {
    wake_selecting::<ReplicaSet>(pod, world, Controller::ReplicaSet, wake);
    wake_selecting::<ReplicationController>(pod, world, Controller::ReplicaSet, wake);
    wake_selecting::<DaemonSet>(pod, world, Controller::DaemonSet, wake);
    wake_selecting::<StatefulSet>(pod, world, Controller::StatefulSet, wake);
}

/// All that a ReplicaSet and its like count a pod by.
#[derive(PartialEq)]
struct ReplicaDigest<'a> {
    meta: (&'a Option<BTreeMap<String, String>>, Option<&'a str>, bool),
    ended: bool,
    ready: bool,
    ready_since: Option<jiff::Timestamp>,
}

fn replica_digest(object: Option<&Object>) -> Option<ReplicaDigest<'_>> {
    let pod = object?.get::<Pod>()?;
    let owner = controller_of(&pod.metadata).map(|owner| owner.uid.as_str());
    Some(ReplicaDigest {
        meta: (&pod.metadata.labels, owner, pods::is_deleted(pod)),
        ended: pods::has_ended(pod),
        ready: pods::is_ready(pod),
        ready_since: pods::ready_since(pod),
    })
}

/// A workload that selects what it manages.
trait Selecting: api::Typed {
    fn selector(&self) -> Selector;
}

fn understood(selector: Option<&LabelSelector>) -> Selector {
    selector.and_then(|it| Selector::from_label_selector(Some(it)).ok()).unwrap_or_else(Selector::nothing)
}

impl Selecting for ReplicaSet {
    fn selector(&self) -> Selector {
        understood(self.spec.as_ref().map(|spec| &spec.selector))
    }
}

impl Selecting for Deployment {
    fn selector(&self) -> Selector {
        understood(self.spec.as_ref().map(|spec| &spec.selector))
    }
}

impl Selecting for DaemonSet {
    fn selector(&self) -> Selector {
        understood(self.spec.as_ref().map(|spec| &spec.selector))
    }
}

impl Selecting for Job {
    fn selector(&self) -> Selector {
        understood(self.spec.as_ref().and_then(|spec| spec.selector.as_ref()))
    }
}

impl Selecting for StatefulSet {
    fn selector(&self) -> Selector {
        understood(self.spec.as_ref().map(|spec| &spec.selector))
    }
}

impl Selecting for ReplicationController {
    fn selector(&self) -> Selector {
        let labels = self.spec.as_ref().and_then(|spec| spec.selector.as_ref()).filter(|labels| !labels.is_empty());
        labels.map_or_else(Selector::nothing, Selector::from_labels)
    }
}

/// Wakes the workloads that might adopt an object which nobody manages.
fn wake_selecting<T: Selecting>(orphan: &Object, world: &Snapshot, who: Controller, wake: &mut Wake) {
    for workload in world.objects(T::KIND, Some(orphan.namespace())) {
        let selector = workload.get::<T>().map(Selecting::selector);
        if selector.is_some_and(|selector| selector.matches(orphan.meta().labels.as_ref())) {
            wake(who, workload.key());
        }
    }
}

fn wake_services(change: &Change, world: &Snapshot, wake: &mut Wake) {
    for service in world.list::<Service>(Some(change.object().namespace())) {
        if change.sides().any(|pod| endpoints::selects(service, pod)) {
            let name = service.metadata.name.clone().unwrap_or_default();
            wake(Controller::Endpoints, Key::new(Kind::Service, change.object().namespace(), name));
        }
    }
}

/// A node that comes or goes decides whether its pods get requests.
fn services_of(node: &str, world: &Snapshot, wake: &mut Wake) {
    let mut pods: BTreeMap<&str, Vec<&Object>> = BTreeMap::new();
    for pod in world.pod_objects_on(node, None) {
        pods.entry(pod.namespace()).or_default().push(pod);
    }
    for (namespace, pods) in pods {
        for service in world.objects(Kind::Service, Some(namespace)) {
            let selects = |it: &Service| pods.iter().any(|pod| endpoints::selects(it, pod));
            if service.get::<Service>().is_some_and(selects) {
                wake(Controller::Endpoints, service.key());
            }
        }
    }
}

fn replica_set_changed(change: &Change, world: &Snapshot, wake: &mut Wake) {
    if !same_but_status(change) {
        wake(Controller::ReplicaSet, change.object().key());
    }
    for set in change.sides() {
        match controller_of(set.meta()) {
            Some(owner) if owner.kind == "Deployment" => {
                let mut wake = |key| wake(Controller::Deployment, key);
                wake_owner(owner, Kind::Deployment, set.namespace(), world, &mut wake);
            }
            Some(_) => {}
            None if same_but_status(change) => {}
            None => wake_selecting::<Deployment>(set, world, Controller::Deployment, wake),
        }
    }
}

fn deployment_changed(change: &Change, wake: &mut Wake) {
    if !same_but_status(change) {
        wake(Controller::Deployment, change.object().key());
    }
}

fn keeper_changed(change: &Change, wake: &mut Wake) {
    if same_but_status(change) {
        return;
    }
    if let Some((who, _)) = keeper(change.kind().info().kind) {
        wake(who, change.object().key());
    }
}

/// A pod of a Job, or one that a Job might adopt. A pod whose Job is gone is looked at by itself.
fn job_pod_changed(change: &Change, world: &Snapshot, wake: &mut Wake) {
    if job::pod_digest(change.before.as_deref()) == job::pod_digest(change.after.as_deref()) {
        return;
    }
    for pod in change.sides() {
        match controller_of(pod.meta()) {
            Some(owner) if owner.kind == "Job" => {
                wake(Controller::Job, Key::new(Kind::Job, pod.namespace(), owner.name.clone()));
            }
            Some(_) => {}
            None => wake_selecting::<Job>(pod, world, Controller::Job, wake),
        }
    }
    if let Some(pod) = change.after.as_deref().filter(|pod| job::is_held_in_vain(pod, world)) {
        wake(Controller::Job, pod.key());
    }
}

/// The marks in a Job's status bring it back here: what comes after them is decided anew.
fn job_changed(change: &Change, world: &Snapshot, wake: &mut Wake) {
    let (before, after) = (change.before.as_deref(), change.after.as_deref());
    let marked = job::status_digest(before) != job::status_digest(after);
    if after.is_none() {
        let pods = world.dependents(change.object().uid()).filter(|pod| job::is_held_in_vain(pod, world));
        pods.for_each(|pod| wake(Controller::Job, pod.key()));
    } else if marked || !same_but_status(change) {
        wake(Controller::Job, change.object().key());
    }
    if marked || !same_but_status(change) {
        for owner in change.sides().filter_map(|job| Some((job, controller_of(job.meta())?))) {
            if owner.1.kind == "CronJob" {
                wake(Controller::CronJob, Key::new(Kind::CronJob, owner.0.namespace(), owner.1.name.clone()));
            }
        }
    }
}

fn cron_job_changed(change: &Change, wake: &mut Wake) {
    if !same_but_status(change) {
        wake(Controller::CronJob, change.object().key());
    }
}

/// An autoscaler is woken by time; only what it is told to do is followed at once.
fn autoscaler_changed(change: &Change, wake: &mut Wake) {
    let spec = |side: &Option<std::sync::Arc<Object>>| {
        side.as_ref()
            .and_then(|object| object.get::<HorizontalPodAutoscaler>())
            .map(|autoscaler| autoscaler.spec.clone())
    };
    if change.after.is_some() && spec(&change.before) != spec(&change.after) {
        wake(Controller::HorizontalPodAutoscaler, change.object().key());
    }
}

/// What is used of the namespace's quotas, where it has any. Who was refused for one that has changed is woken by the turn.
fn quotas_changed(change: &Change, world: &Snapshot, wake: &mut Wake) {
    let namespace = change.object().namespace();
    if change.kind() == Kind::ResourceQuota {
        let spec = |side: &Option<std::sync::Arc<Object>>| {
            side.as_ref().and_then(|object| object.get::<ResourceQuota>()).map(|quota| quota.spec.clone())
        };
        if spec(&change.before) != spec(&change.after) {
            wake(Controller::ResourceQuota, change.object().key());
        }
    }
    if world.account(namespace).is_none() {
        return;
    }
    let taken = |side: &Option<std::sync::Arc<Object>>| side.as_ref().map(|object| api::quota::charge(&object.body));
    if taken(&change.before) != taken(&change.after) {
        let quotas = world.objects(Kind::ResourceQuota, Some(namespace));
        quotas.for_each(|quota| wake(Controller::ResourceQuota, quota.key()));
    }
}

/// A claim that is gone, or that others own now, concerns the set whose pod it was made for: it says how long it stays.
fn claim_changed(change: &Change, world: &Snapshot, wake: &mut Wake) {
    let object = change.object();
    let owners = |side: &Option<std::sync::Arc<Object>>| side.as_ref().map(|it| it.meta().owner_references.clone());
    let ending = |side: &Option<std::sync::Arc<Object>>| side.as_ref().map(|it| it.meta().deletion_timestamp.is_some());
    if owners(&change.before) == owners(&change.after) && ending(&change.before) == ending(&change.after) {
        return;
    }
    for set in world.list::<StatefulSet>(Some(object.namespace())) {
        if stateful_set::makes_claim(set, object.name()) {
            let name = set.metadata.name.clone().unwrap_or_default();
            wake(Controller::StatefulSet, Key::new(Kind::StatefulSet, object.namespace(), name));
        }
    }
}

/// A recorded template concerns whose template it is; one that nobody owns may be adopted.
fn revision_changed(change: &Change, world: &Snapshot, wake: &mut Wake) {
    for revision in change.sides() {
        match controller_of(revision.meta()) {
            Some(owner) => {
                if let Some((who, kind)) = keeper(&owner.kind) {
                    wake_owner(owner, kind, revision.namespace(), world, &mut |key| wake(who, key));
                }
            }
            None => {
                wake_selecting::<DaemonSet>(revision, world, Controller::DaemonSet, wake);
                wake_selecting::<StatefulSet>(revision, world, Controller::StatefulSet, wake);
            }
        }
    }
}

/// Somebody else may have changed or deleted what a Service's endpoints are told by.
fn endpoints_changed(change: &Change, wake: &mut Wake) {
    for service in change.sides().filter_map(endpoints::service_of) {
        wake(Controller::Endpoints, service);
    }
}

fn node_changed(change: &Change, world: &Snapshot, wake: &mut Wake) {
    if daemon_set::node_digest(change.before.as_deref()) != daemon_set::node_digest(change.after.as_deref()) {
        world.objects(Kind::DaemonSet, None).for_each(|set| wake(Controller::DaemonSet, set.key()));
    }
    let (before, after) = (change.before.as_deref(), change.after.as_deref());
    if node_lifecycle::digest(before) != node_lifecycle::digest(after) {
        wake(Controller::NodeLifecycle, change.object().key());
        wake(Controller::NodeLifecycle, node_lifecycle::all_nodes());
    }
    if taint_eviction::digest(before) != taint_eviction::digest(after) {
        wake(Controller::TaintEviction, change.object().key());
    }
    if before.is_none() || after.is_none() {
        services_of(change.object().name(), world, wake);
    }
    let out = |side: Option<&Object>| side.and_then(Object::get).is_some_and(pod_garbage_collector::is_out_of_service);
    if after.is_some() && (out(before) || !out(after)) {
        return;
    }
    for pod in world.pod_objects_on(change.object().name(), None) {
        if pod_garbage_collector::concerns(pod, world) {
            wake(Controller::PodGarbageCollector, pod.key());
        }
    }
}

/// What every namespace has may have been deleted or changed; the certificate of all is copied from one place.
fn furniture_changed(change: &Change, world: &Snapshot, wake: &mut Wake) {
    let (kind, object) = (change.kind(), change.object());
    if service_account::is_source(kind, object.namespace(), object.name()) {
        world.objects(Kind::Namespace, None).for_each(|namespace| wake(Controller::ServiceAccount, namespace.key()));
    } else if service_account::is_kept(kind, object.name()) {
        wake(Controller::ServiceAccount, Key::new(Kind::Namespace, "", object.namespace()));
    }
}

/// A namespace that is being deleted waits for its last object, and has to delete what still comes in.
fn namespace_emptied(change: &Change, world: &Snapshot, wake: &mut Wake) {
    let namespace = change.object().namespace();
    if namespace.is_empty() || (change.before.is_some() && change.after.is_some()) {
        return;
    }
    let ending = world.get::<Namespace>("", namespace).is_some_and(|it| it.metadata.deletion_timestamp.is_some());
    if ending {
        wake(Controller::Namespace, Key::new(Kind::Namespace, "", namespace));
    }
}
