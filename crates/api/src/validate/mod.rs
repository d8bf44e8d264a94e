//! Validation: what is wrong with an object, said with upstream's words, every fault at once.
//!
//! Judges objects after defaulting (`defaults`) and preparation (`prepare`). One file a group; mirrors
//! `pkg/apis/*/validation`. Never changes an object, and never looks at others: whether a name is taken or a namespace
//! exists is the door's business.
//!
//! Compared with the real API server (1.36) over hundreds of objects. What differs, on purpose: what `unsupported`
//! refuses; a value shown as JSON has its API names in alphabetical order, where upstream shows its internal ones; and a
//! refused pod update comes without upstream's dump of both specs.

mod apiregistration;
pub mod apps;
mod autoscaling;
pub mod batch;
pub mod core;
pub mod discovery;
pub mod field;
pub mod meta;
pub mod networking;
pub mod pod;
pub mod policy;
mod quota;
pub mod rbac;
pub mod service;
pub mod storage;
pub mod unsupported;

pub use field::{Errors, Fault, FieldError, Path};

use crate::kinds::Body;
use crate::names;
use crate::status::{Cause, Refusal};

impl Errors {
    /// Fine if there are none; else the 422 that tells all of them.
    pub fn refuse(self, body: &Body) -> Result<(), Refusal> {
        if self.0.is_empty() {
            return Ok(());
        }
        let causes: Vec<Cause> = self.0.into_iter().map(Cause::from).collect();
        let name = body.meta().name.as_deref().unwrap_or_default();
        Err(Refusal::invalid(body.kind(), name, causes))
    }
}

/// Judges a new object.
pub fn create(body: &Body) -> Errors {
    let mut errors = match body {
        Body::Namespace(namespace) => core::create_namespace(namespace),
        Body::Node(node) => core::create_node(node),
        Body::Pod(new) => pod::create(new),
        Body::Service(new) => service::create(new),
        Body::Endpoints(new) => core::endpoints(new, None),
        Body::ConfigMap(new) => core::config_map(new, None),
        Body::Secret(new) => core::secret(new, None),
        Body::ResourceQuota(new) => quota::resource_quota(new, None),
        Body::LimitRange(new) => quota::limit_range(new, None),
        Body::Event(new) => core::event(new, None),
        Body::PersistentVolumeClaim(new) => storage::claim(new, None),
        Body::PersistentVolume(new) => storage::volume(new, None),
        Body::StorageClass(new) => storage::storage_class(new, None),
        Body::Deployment(new) => apps::create_deployment(new),
        Body::ReplicaSet(new) => apps::create_replica_set(new),
        Body::ReplicationController(new) => apps::create_replication_controller(new),
        Body::DaemonSet(new) => apps::create_daemon_set(new),
        Body::StatefulSet(new) => apps::create_stateful_set(new),
        Body::ControllerRevision(new) => apps::create_controller_revision(new),
        Body::Job(new) => batch::create_job(new),
        Body::CronJob(new) => batch::create_cron_job(new),
        Body::HorizontalPodAutoscaler(new) => policy::horizontal_pod_autoscaler_v2(new, None),
        Body::EndpointSlice(new) => discovery::endpoint_slice(new, None),
        Body::Ingress(new) => networking::ingress(new, None),
        Body::IngressClass(new) => networking::ingress_class(new, None),
        Body::PodDisruptionBudget(new) => policy::pod_disruption_budget(new, None),
        Body::ClusterRole(new) => rbac::cluster_role(new, None),
        Body::ClusterRoleBinding(new) => rbac::cluster_role_binding(new, None),
        Body::Role(new) => rbac::role(new, None),
        Body::RoleBinding(new) => rbac::role_binding(new, None),
        Body::APIService(new) => apiregistration::api_service(new, None),
        Body::ServiceAccount(_) | Body::Lease(_) => create_metadata(body),
    };
    refuse_unsupported(&mut errors, body);
    errors
}

/// Judges a changed object. Both have to be of one kind.
pub fn update(new: &Body, old: &Body) -> Errors {
    let mut errors = match (new, old) {
        (Body::Node(new), Body::Node(old)) => core::update_node(new, old),
        (Body::Pod(new), Body::Pod(old)) => return pod::update(new, old),
        (Body::Service(new), Body::Service(old)) => service::update(new, old),
        (Body::Endpoints(new), Body::Endpoints(old)) => core::endpoints(new, Some(old)),
        (Body::ConfigMap(new), Body::ConfigMap(old)) => core::config_map(new, Some(old)),
        (Body::Secret(new), Body::Secret(old)) => core::secret(new, Some(old)),
        (Body::ResourceQuota(new), Body::ResourceQuota(old)) => quota::resource_quota(new, Some(old)),
        (Body::LimitRange(new), Body::LimitRange(old)) => quota::limit_range(new, Some(old)),
        (Body::Event(new), Body::Event(old)) => core::event(new, Some(old)),
        (Body::PersistentVolumeClaim(new), Body::PersistentVolumeClaim(old)) => storage::claim(new, Some(old)),
        (Body::PersistentVolume(new), Body::PersistentVolume(old)) => storage::volume(new, Some(old)),
        (Body::StorageClass(new), Body::StorageClass(old)) => storage::storage_class(new, Some(old)),
        (Body::Deployment(new), Body::Deployment(old)) => apps::update_deployment(new, old),
        (Body::ReplicaSet(new), Body::ReplicaSet(old)) => apps::update_replica_set(new, old),
        (Body::ReplicationController(new), Body::ReplicationController(old)) => {
            apps::update_replication_controller(new, old)
        }
        (Body::DaemonSet(new), Body::DaemonSet(old)) => apps::update_daemon_set(new, old),
        (Body::StatefulSet(new), Body::StatefulSet(old)) => apps::update_stateful_set(new, old),
        (Body::ControllerRevision(new), Body::ControllerRevision(old)) => apps::update_controller_revision(new, old),
        (Body::Job(new), Body::Job(old)) => batch::update_job(new, old),
        (Body::CronJob(new), Body::CronJob(old)) => batch::update_cron_job(new, old),
        (Body::HorizontalPodAutoscaler(new), Body::HorizontalPodAutoscaler(old)) => {
            policy::horizontal_pod_autoscaler_v2(new, Some(old))
        }
        (Body::EndpointSlice(new), Body::EndpointSlice(old)) => discovery::endpoint_slice(new, Some(old)),
        (Body::Ingress(new), Body::Ingress(old)) => networking::ingress(new, Some(old)),
        (Body::IngressClass(new), Body::IngressClass(old)) => networking::ingress_class(new, Some(old)),
        (Body::PodDisruptionBudget(new), Body::PodDisruptionBudget(old)) => {
            policy::pod_disruption_budget(new, Some(old))
        }
        (Body::ClusterRole(new), Body::ClusterRole(old)) => rbac::cluster_role(new, Some(old)),
        (Body::ClusterRoleBinding(new), Body::ClusterRoleBinding(old)) => rbac::cluster_role_binding(new, Some(old)),
        (Body::Role(new), Body::Role(old)) => rbac::role(new, Some(old)),
        (Body::RoleBinding(new), Body::RoleBinding(old)) => rbac::role_binding(new, Some(old)),
        (Body::APIService(new), Body::APIService(old)) => apiregistration::api_service(new, Some(old)),
        _ => update_metadata(new, old),
    };
    refuse_unsupported(&mut errors, new);
    errors
}

/// Judges an object whose status was changed. Both have to be of one kind.
pub fn update_status(new: &Body, old: &Body) -> Errors {
    match (new, old) {
        (Body::Namespace(new), Body::Namespace(old)) => core::update_namespace_status(new, old),
        (Body::Node(new), Body::Node(old)) => core::update_node(new, old),
        (Body::Pod(new), Body::Pod(old)) => pod::update_status(new, old),
        (Body::Deployment(new), Body::Deployment(old)) => apps::update_deployment_status(new, old),
        (Body::ReplicaSet(new), Body::ReplicaSet(old)) => apps::update_replica_set_status(new, old),
        (Body::ReplicationController(new), Body::ReplicationController(old)) => {
            apps::update_replication_controller_status(new, old)
        }
        (Body::DaemonSet(new), Body::DaemonSet(old)) => apps::update_daemon_set_status(new, old),
        (Body::StatefulSet(new), Body::StatefulSet(old)) => apps::update_stateful_set_status(new, old),
        (Body::PodDisruptionBudget(new), Body::PodDisruptionBudget(old)) => policy::update_budget_status(new, old),
        (Body::APIService(new), Body::APIService(old)) => apiregistration::update_api_service_status(new, old),
        (Body::Ingress(new), Body::Ingress(old)) => networking::update_ingress_status(new, old),
        _ => update_metadata(new, old),
    }
}

fn create_metadata(body: &Body) -> Errors {
    let mut errors = Errors::default();
    meta::create(&mut errors, body.meta(), body.kind().namespaced(), names::dns_subdomain);
    errors
}

fn update_metadata(new: &Body, old: &Body) -> Errors {
    let mut errors = Errors::default();
    meta::update(&mut errors, new.meta(), old.meta());
    errors
}

fn refuse_unsupported(errors: &mut Errors, body: &Body) {
    const TEMPLATE: Path<'static> = Path::root("spec.template");
    match body {
        Body::Pod(pod) => unsupported::pod(errors, pod),
        Body::ServiceAccount(account) => unsupported::service_account(errors, account),
        Body::PersistentVolumeClaim(claim) => unsupported::claim(errors, claim),
        Body::PersistentVolume(volume) => unsupported::volume(errors, volume),
        Body::StorageClass(class) => unsupported::storage_class(errors, class),
        Body::Deployment(deployment) => {
            let template = deployment.spec.as_ref().map(|spec| &spec.template);
            template.into_iter().for_each(|template| unsupported::template(errors, &TEMPLATE, template));
        }
        Body::ReplicaSet(replica_set) => {
            let template = replica_set.spec.as_ref().and_then(|spec| spec.template.as_ref());
            template.into_iter().for_each(|template| unsupported::template(errors, &TEMPLATE, template));
        }
        Body::ReplicationController(controller) => {
            let template = controller.spec.as_ref().and_then(|spec| spec.template.as_ref());
            template.into_iter().for_each(|template| unsupported::template(errors, &TEMPLATE, template));
        }
        Body::DaemonSet(daemon_set) => {
            let template = daemon_set.spec.as_ref().map(|spec| &spec.template);
            template.into_iter().for_each(|template| unsupported::template(errors, &TEMPLATE, template));
        }
        Body::Job(job) => {
            let template = job.spec.as_ref().map(|spec| &spec.template);
            template.into_iter().for_each(|template| unsupported::template(errors, &TEMPLATE, template));
        }
        Body::CronJob(cron_job) => {
            let job = cron_job.spec.job_template.spec.as_ref();
            let path = Path::root("spec.jobTemplate.spec.template");
            job.into_iter().for_each(|job| unsupported::template(errors, &path, &job.template));
        }
        Body::StatefulSet(stateful_set) => {
            let template = stateful_set.spec.as_ref().map(|spec| &spec.template);
            template.into_iter().for_each(|template| unsupported::template(errors, &TEMPLATE, template));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests;
