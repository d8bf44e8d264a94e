//! Defaults: what an object means where it says nothing. Every value is written out when an object comes in, so that
//! what is stored, compared and hashed is complete.
//!
//! One file a group; mirrors `pkg/apis/*/v1/defaults.go` and the generated defaulters of upstream. Defaulting twice
//! changes nothing. Never judges: what is wrong stays wrong, for `validate` to say so.

pub mod apiregistration;
pub mod apps;
pub mod autoscaling;
pub mod batch;
pub mod core;
pub mod discovery;
pub mod networking;
pub mod pod;
pub mod rbac;
pub mod scheduling;
pub mod storage;

use crate::kinds::Body;

/// Fills in the defaults of an object. Exhaustive on purpose: a new kind has to say what its defaults are.
pub fn apply(body: &mut Body) {
    match body {
        Body::Namespace(namespace) => core::namespace(namespace),
        Body::Node(node) => core::node(node),
        Body::Pod(pod) => pod::pod(pod),
        Body::Service(service) => core::service(service),
        Body::Endpoints(endpoints) => core::endpoints(endpoints),
        Body::PersistentVolumeClaim(claim) => core::persistent_volume_claim(claim),
        Body::PersistentVolume(volume) => core::persistent_volume(volume),
        Body::StorageClass(class) => storage::storage_class(class),
        Body::LimitRange(range) => core::limit_range(range),
        Body::Secret(secret) => core::secret(secret),
        Body::Deployment(deployment) => apps::deployment(deployment),
        Body::ReplicaSet(replica_set) => apps::replica_set(replica_set),
        Body::ReplicationController(controller) => apps::replication_controller(controller),
        Body::DaemonSet(daemon_set) => apps::daemon_set(daemon_set),
        Body::StatefulSet(stateful_set) => apps::stateful_set(stateful_set),
        Body::Job(job) => batch::job(job),
        Body::CronJob(cron_job) => batch::cron_job(cron_job),
        Body::HorizontalPodAutoscaler(autoscaler) => autoscaling::horizontal_pod_autoscaler_v2(autoscaler),
        Body::EndpointSlice(slice) => discovery::endpoint_slice(slice),
        Body::IngressClass(class) => networking::ingress_class(class),
        Body::ClusterRoleBinding(binding) => rbac::cluster_role_binding(binding),
        Body::RoleBinding(binding) => rbac::role_binding(binding),
        Body::APIService(service) => apiregistration::api_service(service),
        Body::ConfigMap(_)
        | Body::ServiceAccount(_)
        | Body::ResourceQuota(_)
        | Body::Event(_)
        | Body::ControllerRevision(_)
        | Body::Lease(_)
        | Body::Ingress(_)
        | Body::PodDisruptionBudget(_)
        | Body::ClusterRole(_)
        | Body::Role(_) => {}
    }
}

/// Sets a text that is missing or empty: the API does not tell the two apart.
fn fill(field: &mut Option<String>, default: &str) {
    if field.as_deref().is_none_or(str::is_empty) {
        *field = Some(default.to_owned());
    }
}

/// Sets a number that is missing or zero.
fn fill_number(field: &mut Option<i32>, default: i32) {
    if field.unwrap_or(0) == 0 {
        *field = Some(default);
    }
}
