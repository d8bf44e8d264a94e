//! The decisions: one file or folder per controller. Each is a pure function from a snapshot to a plan.
//!
//! A decision looks at the world as it is, never at what it did before, so that it can be run at any time, any number
//! of times, by the server, in a forecast, in the simulator or in a test. It does no IO and reads no clock.

mod claim;
mod cron_job;
mod daemon_set;
mod deployment;
mod disruption;
mod ending;
mod endpoints;
mod failed;
mod garbage_collector;
mod history;
mod horizontal_pod_autoscaler;
mod job;
mod kin;
mod namespace;
mod node_lifecycle;
mod obstacle;
mod persistent_volume;
mod pod_garbage_collector;
mod pods;
mod refusals;
mod replica_set;
mod resource_quota;
pub mod rights;
mod service_account;
mod specs;
mod stateful_set;
mod taint_eviction;
mod template;
mod wakes;

#[cfg(test)]
mod testing;

use api::{Context, Key, Plan, Snapshot};

pub use horizontal_pod_autoscaler::queries as metric_queries;
pub use wakes::{status_teller, wake_all, wakes};

/// Who decides. The order is the order in which the decisions of one round are best run: what was lost with a node is
/// known before anybody counts pods, and a Deployment that was changed sizes its ReplicaSets before they act on an
/// outdated size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Controller {
    /// Whether a node is lost, and its taints. The key is the node's; without a name it stands for all nodes, of which
    /// some may have their pods evicted.
    NodeLifecycle,
    /// Pods that do not put up with a taint of their node. The key is the node's.
    TaintEviction,
    /// A pod whose node is gone or out of service. The key is the pod's; without a name it stands for all that have ended,
    /// of which there may be too many.
    PodGarbageCollector,
    /// Replicas of what a HorizontalPodAutoscaler scales. The key is the HorizontalPodAutoscaler's.
    HorizontalPodAutoscaler,
    /// ReplicaSets of a Deployment. The key is the Deployment's.
    Deployment,
    /// Pods of a ReplicaSet or a ReplicationController. The key is the ReplicaSet's or the ReplicationController's.
    ReplicaSet,
    /// A pod on every fitting node. The key is the DaemonSet's.
    DaemonSet,
    /// Pods with stable names. The key is the StatefulSet's.
    StatefulSet,
    /// Jobs of a CronJob. The key is the CronJob's.
    CronJob,
    /// Pods of a Job. The key is the Job's, or that of a pod whose Job is gone.
    Job,
    /// Claims and volumes, bound to each other. The key is the PersistentVolumeClaim's or the PersistentVolume's.
    PersistentVolume,
    /// Endpoints and EndpointSlices of a Service. The key is the Service's.
    Endpoints,
    /// How many pods may be evicted. The key is the PodDisruptionBudget's.
    Disruption,
    /// The ServiceAccount and the certificate that every namespace has. The key is the Namespace's.
    ServiceAccount,
    /// An object with owners, or one that is being deleted with its dependents. The key is the object's.
    GarbageCollector,
    /// What is used of a ResourceQuota. The key is the ResourceQuota's.
    ResourceQuota,
    /// A namespace that is being deleted. The key is the Namespace's.
    Namespace,
}

/// Decides what `who` does about the object at `key`.
pub fn reconcile(who: Controller, key: &Key, world: &Snapshot, context: &Context) -> Plan {
    match who {
        Controller::HorizontalPodAutoscaler => horizontal_pod_autoscaler::reconcile(key, world, context),
        Controller::Deployment => deployment::reconcile(key, world, context),
        Controller::ReplicaSet => replica_set::reconcile(key, world, context),
        Controller::DaemonSet => daemon_set::reconcile(key, world, context),
        Controller::StatefulSet => stateful_set::reconcile(key, world, context),
        Controller::CronJob => cron_job::reconcile(key, world, context),
        Controller::Job => job::reconcile(key, world, context),
        Controller::PersistentVolume => persistent_volume::reconcile(key, world, context),
        Controller::Endpoints => endpoints::reconcile(key, world),
        Controller::Disruption => disruption::reconcile(key, world, context),
        Controller::NodeLifecycle => node_lifecycle::reconcile(key, world, context),
        Controller::ServiceAccount => service_account::reconcile(key, world),
        Controller::TaintEviction => taint_eviction::reconcile(key, world, context),
        Controller::PodGarbageCollector => pod_garbage_collector::reconcile(key, world, context),
        Controller::GarbageCollector => garbage_collector::reconcile(key, world),
        Controller::ResourceQuota => resource_quota::reconcile(key, world, context),
        Controller::Namespace => namespace::reconcile(key, world, context),
    }
}
