//! What the server itself sets on an object before it is judged: which part of a write counts, the generation, the
//! first status.
//!
//! Mirrors upstream's registry strategies (`pkg/registry/*/*/strategy.go`: PrepareForCreate, PrepareForUpdate) and
//! apiserver `pkg/registry/rest/update.go`. Fills in the defaults first, because what counts as a change is judged on
//! complete objects; `validate` comes after. Never refuses. Uids, names and times are the caller's: set before.

use crate::Pod;
use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetSpec};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{
    Namespace, NamespaceStatus, PersistentVolumeClaimStatus, PersistentVolumeStatus, PodCondition, PodStatus, Service,
    ServiceSpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;

use crate::defaults;
use crate::defaults::core::NAMESPACE_FINALIZER;
use crate::kinds::Body;
use crate::pod_resources;
use crate::validate::service::needs_health_check;

/// The annotation that holds the generation of a DaemonSet's template.
pub const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";
/// The label that tells a Job's pods from others'.
pub const CONTROLLER_UID_LABEL: &str = "batch.kubernetes.io/controller-uid";
/// The label that names a Job's pods' Job.
pub const JOB_NAME_LABEL: &str = "batch.kubernetes.io/job-name";

/// Prepares a new object: a status that a client sent does not count.
pub fn create(body: &mut Body) {
    defaults::apply(body);
    if has_generation(body) {
        body.meta_mut().generation = Some(1);
    }
    match body {
        Body::Namespace(namespace) => create_namespace(namespace),
        Body::Pod(pod) => create_pod(pod),
        Body::Service(service) => create_service(service),
        Body::Deployment(deployment) => deployment.status = Some(Default::default()),
        Body::ReplicaSet(replica_set) => replica_set.status = Some(Default::default()),
        Body::ReplicationController(controller) => controller.status = Some(Default::default()),
        Body::DaemonSet(daemon_set) => create_daemon_set(daemon_set),
        Body::StatefulSet(stateful_set) => stateful_set.status = Some(Default::default()),
        Body::Job(job) => {
            create_job(job);
            // A Job without labels has those of its pods, the made ones included.
            defaults::batch::job(job);
        }
        Body::CronJob(cron_job) => cron_job.status = Some(Default::default()),
        Body::ResourceQuota(quota) => quota.status = Some(Default::default()),
        Body::HorizontalPodAutoscaler(autoscaler) => autoscaler.status = Some(Default::default()),
        Body::PodDisruptionBudget(budget) => budget.status = Some(Default::default()),
        Body::APIService(service) => service.status = Some(Default::default()),
        Body::PersistentVolumeClaim(claim) => {
            let pending = Some("Pending".to_owned());
            claim.status = Some(PersistentVolumeClaimStatus { phase: pending, ..Default::default() });
        }
        // A volume is Pending until it was looked at, and Available from then on.
        Body::PersistentVolume(volume) => {
            let pending = Some("Pending".to_owned());
            volume.status = Some(PersistentVolumeStatus { phase: pending, ..Default::default() });
        }
        Body::Ingress(ingress) => ingress.status.insert(Default::default()).load_balancer = Some(Default::default()),
        // A node reports about itself when it joins.
        Body::Node(_) => {}
        Body::Endpoints(_)
        | Body::ConfigMap(_)
        | Body::Secret(_)
        | Body::ServiceAccount(_)
        | Body::LimitRange(_)
        | Body::Event(_)
        | Body::ControllerRevision(_)
        | Body::EndpointSlice(_)
        | Body::IngressClass(_)
        | Body::Lease(_)
        | Body::StorageClass(_)
        | Body::ClusterRole(_)
        | Body::ClusterRoleBinding(_)
        | Body::Role(_)
        | Body::RoleBinding(_) => {}
    }
}

/// Prepares a changed object: the status stays as it was. Both have to be of one kind.
pub fn update(new: &mut Body, old: &Body) {
    defaults::apply(new);
    keep_server_fields(new.meta_mut(), old.meta());
    match (&mut *new, old) {
        (Body::Namespace(new), Body::Namespace(old)) => {
            new.status.clone_from(&old.status);
            new.spec.clone_from(&old.spec);
        }
        (Body::Node(new), Body::Node(old)) => new.status.clone_from(&old.status),
        (Body::Pod(new), Body::Pod(old)) => new.status.clone_from(&old.status),
        (Body::Service(new), Body::Service(old)) => update_service(new, old),
        (Body::Deployment(new), Body::Deployment(old)) => new.status.clone_from(&old.status),
        (Body::ReplicaSet(new), Body::ReplicaSet(old)) => new.status.clone_from(&old.status),
        (Body::ReplicationController(new), Body::ReplicationController(old)) => new.status.clone_from(&old.status),
        (Body::DaemonSet(new), Body::DaemonSet(old)) => update_daemon_set(new, old),
        (Body::StatefulSet(new), Body::StatefulSet(old)) => new.status.clone_from(&old.status),
        (Body::Job(new), Body::Job(old)) => new.status.clone_from(&old.status),
        (Body::CronJob(new), Body::CronJob(old)) => new.status.clone_from(&old.status),
        (Body::ResourceQuota(new), Body::ResourceQuota(old)) => new.status.clone_from(&old.status),
        (Body::HorizontalPodAutoscaler(new), Body::HorizontalPodAutoscaler(old)) => new.status.clone_from(&old.status),
        (Body::PodDisruptionBudget(new), Body::PodDisruptionBudget(old)) => new.status.clone_from(&old.status),
        (Body::APIService(new), Body::APIService(old)) => new.status.clone_from(&old.status),
        (Body::PersistentVolumeClaim(new), Body::PersistentVolumeClaim(old)) => new.status.clone_from(&old.status),
        (Body::PersistentVolume(new), Body::PersistentVolume(old)) => new.status.clone_from(&old.status),
        (Body::Ingress(new), Body::Ingress(old)) => new.status.clone_from(&old.status),
        _ => {}
    }
    if has_generation(old) && wants_more(new, old) {
        new.meta_mut().generation = Some(old.meta().generation.unwrap_or(0) + 1);
    }
}

/// Prepares an object whose status was changed: everything else stays, but for the metadata that upstream lets pass.
/// Both have to be of one kind.
pub fn update_status(new: &mut Body, old: &Body) {
    keep_server_fields(new.meta_mut(), old.meta());
    match (new, old) {
        (Body::Namespace(new), Body::Namespace(old)) => new.spec.clone_from(&old.spec),
        (Body::Node(new), Body::Node(old)) => new.spec.clone_from(&old.spec),
        (Body::Pod(new), Body::Pod(old)) => update_pod_status(new, old),
        (Body::Service(new), Body::Service(old)) => new.spec.clone_from(&old.spec),
        (Body::Deployment(new), Body::Deployment(old)) => {
            new.spec.clone_from(&old.spec);
            new.metadata.labels.clone_from(&old.metadata.labels);
        }
        (Body::ReplicaSet(new), Body::ReplicaSet(old)) => new.spec.clone_from(&old.spec),
        (Body::ReplicationController(new), Body::ReplicationController(old)) => new.spec.clone_from(&old.spec),
        (Body::DaemonSet(new), Body::DaemonSet(old)) => new.spec.clone_from(&old.spec),
        (Body::StatefulSet(new), Body::StatefulSet(old)) => new.spec.clone_from(&old.spec),
        (Body::Job(new), Body::Job(old)) => new.spec.clone_from(&old.spec),
        (Body::CronJob(new), Body::CronJob(old)) => new.spec.clone_from(&old.spec),
        (Body::ResourceQuota(new), Body::ResourceQuota(old)) => new.spec.clone_from(&old.spec),
        (Body::HorizontalPodAutoscaler(new), Body::HorizontalPodAutoscaler(old)) => new.spec.clone_from(&old.spec),
        (Body::PodDisruptionBudget(new), Body::PodDisruptionBudget(old)) => new.spec.clone_from(&old.spec),
        (Body::APIService(new), Body::APIService(old)) => update_api_service_status(new, old),
        (Body::PersistentVolumeClaim(new), Body::PersistentVolumeClaim(old)) => new.spec.clone_from(&old.spec),
        (Body::PersistentVolume(new), Body::PersistentVolume(old)) => new.spec.clone_from(&old.spec),
        (Body::Ingress(new), Body::Ingress(old)) => new.spec.clone_from(&old.spec),
        _ => {}
    }
}

/// Of an APIService only the status counts (upstream: `kube-aggregator/pkg/registry/apiservice/strategy.go`).
fn update_api_service_status(new: &mut APIService, old: &APIService) {
    new.spec.clone_from(&old.spec);
    let (new, old) = (&mut new.metadata, &old.metadata);
    new.labels.clone_from(&old.labels);
    new.annotations.clone_from(&old.annotations);
    new.finalizers.clone_from(&old.finalizers);
    new.owner_references.clone_from(&old.owner_references);
}

/// What no write may change.
fn keep_server_fields(new: &mut ObjectMeta, old: &ObjectMeta) {
    new.generation = old.generation;
    new.creation_timestamp.clone_from(&old.creation_timestamp);
    if new.uid.as_deref().is_none_or(str::is_empty) {
        new.uid.clone_from(&old.uid);
    }
    new.deletion_timestamp.clone_from(&old.deletion_timestamp);
    new.deletion_grace_period_seconds = old.deletion_grace_period_seconds;
}

/// Kinds whose `metadata.generation` counts the changes of what is wanted.
fn has_generation(body: &Body) -> bool {
    matches!(
        body,
        Body::Pod(_)
            | Body::Deployment(_)
            | Body::ReplicaSet(_)
            | Body::ReplicationController(_)
            | Body::DaemonSet(_)
            | Body::StatefulSet(_)
            | Body::Job(_)
            | Body::CronJob(_)
            | Body::PodDisruptionBudget(_)
            | Body::EndpointSlice(_)
            | Body::Ingress(_)
            | Body::IngressClass(_)
    )
}

/// Whether what is wanted changed.
fn wants_more(new: &Body, old: &Body) -> bool {
    match (new, old) {
        (Body::Pod(new), Body::Pod(old)) => new.spec != old.spec,
        // A Deployment's annotations are copied to its ReplicaSets.
        (Body::Deployment(new), Body::Deployment(old)) => {
            new.spec != old.spec || new.metadata.annotations != old.metadata.annotations
        }
        (Body::ReplicaSet(new), Body::ReplicaSet(old)) => new.spec != old.spec,
        (Body::ReplicationController(new), Body::ReplicationController(old)) => new.spec != old.spec,
        (Body::DaemonSet(new), Body::DaemonSet(old)) => new.spec != old.spec,
        (Body::StatefulSet(new), Body::StatefulSet(old)) => new.spec != old.spec,
        (Body::Job(new), Body::Job(old)) => new.spec != old.spec,
        (Body::CronJob(new), Body::CronJob(old)) => new.spec != old.spec,
        (Body::PodDisruptionBudget(new), Body::PodDisruptionBudget(old)) => new.spec != old.spec,
        (Body::Ingress(new), Body::Ingress(old)) => new.spec != old.spec,
        (Body::IngressClass(new), Body::IngressClass(old)) => new.spec != old.spec,
        (Body::EndpointSlice(new), Body::EndpointSlice(old)) => {
            (&new.address_type, &new.endpoints, &new.ports, &new.metadata.labels)
                != (&old.address_type, &old.endpoints, &old.ports, &old.metadata.labels)
        }
        _ => false,
    }
}

fn create_namespace(namespace: &mut Namespace) {
    namespace.status = Some(NamespaceStatus { phase: Some("Active".to_owned()), conditions: None });
    let finalizers = namespace.spec.get_or_insert_default().finalizers.get_or_insert_default();
    if !finalizers.iter().any(|name| name == NAMESPACE_FINALIZER) {
        finalizers.push(NAMESPACE_FINALIZER.to_owned());
    }
}

fn create_pod(pod: &mut Pod) {
    let spec = pod.spec.get_or_insert_default();
    let mut status = PodStatus {
        phase: Some("Pending".to_owned()),
        qos_class: Some(pod_resources::qos_class(spec).as_str().to_owned()),
        ..PodStatus::default()
    };
    if spec.scheduling_gates.as_ref().is_some_and(|gates| !gates.is_empty()) {
        status.conditions = Some(vec![PodCondition {
            type_: "PodScheduled".to_owned(),
            status: "False".to_owned(),
            reason: Some("SchedulingGated".to_owned()),
            message: Some("Scheduling is blocked due to non-empty scheduling gates".to_owned()),
            ..PodCondition::default()
        }]);
    }
    pod.status = Some(status);
}

fn update_pod_status(new: &mut Pod, old: &Pod) {
    new.spec.clone_from(&old.spec);
    new.metadata.owner_references.clone_from(&old.metadata.owner_references);
    let (Some(status), Some(before)) = (new.status.as_mut(), old.status.as_ref()) else { return };
    if status.qos_class.as_deref().is_none_or(str::is_empty) {
        status.qos_class.clone_from(&before.qos_class);
    }
    if status.observed_generation.unwrap_or(0) == 0 {
        status.observed_generation = before.observed_generation;
    }
}

fn create_service(service: &mut Service) {
    let status = service.status.insert(Default::default());
    status.load_balancer = Some(Default::default());
    if let Some(spec) = service.spec.as_mut() {
        let address = spec.cluster_ip.clone().filter(|address| !address.is_empty());
        if let Some(address) = address.filter(|_| spec.cluster_ips.as_ref().is_none_or(Vec::is_empty)) {
            spec.cluster_ips = Some(vec![address]);
        }
    }
}

/// Clients that only know the old fields, or that leave out what was given to the Service, mean to keep it.
fn update_service(new: &mut Service, old: &Service) {
    new.status.clone_from(&old.status);
    let (Some(spec), Some(before)) = (new.spec.as_mut(), old.spec.as_ref()) else { return };
    keep_addresses(spec, before);
    keep_node_ports(spec, before);
    let checked = needs_health_check(spec) && needs_health_check(before);
    if checked && spec.health_check_node_port.unwrap_or(0) == 0 {
        spec.health_check_node_port = before.health_check_node_port;
    }
    drop_what_the_type_has_not(spec, before);
}

fn is_external_name(spec: &ServiceSpec) -> bool {
    spec.type_.as_deref() == Some("ExternalName")
}

fn has_node_ports(spec: &ServiceSpec) -> bool {
    match spec.type_.as_deref() {
        Some("NodePort") => true,
        Some("LoadBalancer") => spec.allocate_load_balancer_node_ports != Some(false),
        _ => false,
    }
}

fn keep_addresses(spec: &mut ServiceSpec, before: &ServiceSpec) {
    if is_external_name(spec) || is_external_name(before) {
        return;
    }
    let empty = |address: &Option<String>| address.as_deref().is_none_or(str::is_empty);
    if empty(&spec.cluster_ip) {
        spec.cluster_ip.clone_from(&before.cluster_ip);
    }
    // The singular field follows the plural one and the other way round, whichever the client changed.
    if spec.cluster_ip != before.cluster_ip && spec.cluster_ips == before.cluster_ips {
        spec.cluster_ips = spec.cluster_ip.clone().filter(|address| !address.is_empty()).map(|address| vec![address]);
    } else if spec.cluster_ip == before.cluster_ip && spec.cluster_ips.as_ref().is_none_or(Vec::is_empty) {
        spec.cluster_ips.clone_from(&before.cluster_ips);
    }
    if spec.ip_families.as_ref().is_none_or(Vec::is_empty) {
        spec.ip_families.clone_from(&before.ip_families);
    }
    if spec.ip_family_policy.is_none() {
        spec.ip_family_policy.clone_from(&before.ip_family_policy);
    }
}

fn keep_node_ports(spec: &mut ServiceSpec, before: &ServiceSpec) {
    if !has_node_ports(spec) || !has_node_ports(before) {
        return;
    }
    let taken: Vec<i32> = spec.ports.iter().flatten().filter_map(|port| port.node_port).collect();
    for port in spec.ports.iter_mut().flatten().filter(|port| port.node_port.unwrap_or(0) == 0) {
        let same = before.ports.iter().flatten().find(|other| other.name == port.name);
        port.node_port = same.and_then(|other| other.node_port).filter(|number| !taken.contains(number));
    }
}

/// A field that the new type has no use for goes, unless the client changed it: then validation says so.
fn drop_what_the_type_has_not(spec: &mut ServiceSpec, before: &ServiceSpec) {
    if is_external_name(spec) && !is_external_name(before) {
        if spec.cluster_ip == before.cluster_ip && spec.cluster_ips == before.cluster_ips {
            spec.cluster_ip = None;
            spec.cluster_ips = None;
        }
        if spec.ip_families == before.ip_families {
            spec.ip_families = None;
        }
        if spec.ip_family_policy == before.ip_family_policy {
            spec.ip_family_policy = None;
        }
    }
    let node_ports =
        |spec: &ServiceSpec| -> Vec<Option<i32>> { spec.ports.iter().flatten().map(|port| port.node_port).collect() };
    if has_node_ports(before) && !has_node_ports(spec) && node_ports(spec) == node_ports(before) {
        spec.ports.iter_mut().flatten().for_each(|port| port.node_port = None);
    }
    let balanced = |spec: &ServiceSpec| spec.type_.as_deref() == Some("LoadBalancer");
    if balanced(before) && !balanced(spec) {
        if spec.allocate_load_balancer_node_ports == before.allocate_load_balancer_node_ports {
            spec.allocate_load_balancer_node_ports = None;
        }
        if spec.load_balancer_class == before.load_balancer_class {
            spec.load_balancer_class = None;
        }
    }
    let unchecked = needs_health_check(before) && !needs_health_check(spec);
    if unchecked && spec.health_check_node_port == before.health_check_node_port {
        spec.health_check_node_port = None;
    }
    let external = |spec: &ServiceSpec| {
        matches!(spec.type_.as_deref(), Some("NodePort" | "LoadBalancer"))
            || spec.external_ips.as_ref().is_some_and(|addresses| !addresses.is_empty())
    };
    if external(before) && !external(spec) && spec.external_traffic_policy == before.external_traffic_policy {
        spec.external_traffic_policy = None;
    }
}

/// A new Job: labels and a selector that no other Job has, unless the client brings its own. Needs name and uid.
pub fn create_job(job: &mut Job) {
    job.metadata.generation = Some(1);
    job.status = Some(Default::default());
    let spec = job.spec.get_or_insert_default();
    if spec.manual_selector == Some(true) {
        return;
    }
    let name = job.metadata.name.clone().unwrap_or_default();
    let uid = job.metadata.uid.clone().unwrap_or_default();
    let labels = spec.template.metadata.get_or_insert_default().labels.get_or_insert_default();
    for key in ["job-name", JOB_NAME_LABEL] {
        labels.entry(key.to_owned()).or_insert_with(|| name.clone());
    }
    for key in ["controller-uid", CONTROLLER_UID_LABEL] {
        labels.entry(key.to_owned()).or_insert_with(|| uid.clone());
    }
    let selected = spec.selector.get_or_insert_default().match_labels.get_or_insert_default();
    selected.entry(CONTROLLER_UID_LABEL.to_owned()).or_insert(uid);
}

/// A new DaemonSet: its template is the first.
pub fn create_daemon_set(daemon_set: &mut DaemonSet) {
    daemon_set.metadata.generation = Some(1);
    daemon_set.status = Some(Default::default());
    if template_generation(daemon_set) < 1 {
        set_template_generation(daemon_set, 1);
    }
}

/// A changed DaemonSet: the generation of its template counts the templates.
pub fn update_daemon_set(new: &mut DaemonSet, old: &DaemonSet) {
    keep_server_fields(&mut new.metadata, &old.metadata);
    new.status.clone_from(&old.status);
    let template = |spec: &Option<DaemonSetSpec>| spec.as_ref().map(|spec| spec.template.clone());
    let changed = template(&new.spec) != template(&old.spec);
    set_template_generation(new, template_generation(old) + i64::from(changed));
    if new.spec != old.spec {
        new.metadata.generation = Some(old.metadata.generation.unwrap_or(0) + 1);
    }
}

fn template_generation(daemon_set: &DaemonSet) -> i64 {
    let annotations = daemon_set.metadata.annotations.as_ref();
    annotations.and_then(|annotations| annotations.get(TEMPLATE_GENERATION)?.parse().ok()).unwrap_or(0)
}

fn set_template_generation(daemon_set: &mut DaemonSet, generation: i64) {
    let annotations = daemon_set.metadata.annotations.get_or_insert_default();
    annotations.insert(TEMPLATE_GENERATION.to_owned(), generation.to_string());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::Kind;
    use expect_test::expect;
    use serde_json::{Value, json};

    fn body(kind: Kind, json: Value) -> Body {
        kind.decode(json).unwrap()
    }

    fn deployment(replicas: i32, annotation: &str) -> Body {
        body(
            Kind::Deployment,
            json!({
                "metadata": {"name": "web", "generation": 3, "uid": "u", "annotations": {"a": annotation}},
                "spec": {"replicas": replicas, "selector": {}, "template": {}},
                "status": {"replicas": replicas},
            }),
        )
    }

    fn shown(body: &Body) -> String {
        format!("{}\n", body.to_value())
    }

    #[test]
    fn new_objects() {
        let sent = [
            (Kind::Deployment, json!({"status": {"replicas": 9}, "metadata": {"generation": 7}})),
            (
                Kind::Pod,
                json!({"spec": {"containers": [], "schedulingGates": [{"name": "g"}]}, "status": {"phase": "Running"}}),
            ),
            (Kind::Namespace, json!({"metadata": {"name": "n"}, "spec": {}, "status": {"phase": "Terminating"}})),
            (Kind::Service, json!({"spec": {"clusterIP": "None"}})),
            (Kind::ConfigMap, json!({"data": {"a": "b"}})),
        ];
        let table = sent
            .map(|(kind, json)| {
                let mut new = body(kind, json);
                create(&mut new);
                shown(&new)
            })
            .concat();
        expect![[r#"
            {"apiVersion":"apps/v1","kind":"Deployment","metadata":{"generation":1},"spec":{"progressDeadlineSeconds":600,"replicas":1,"revisionHistoryLimit":10,"selector":{},"strategy":{"rollingUpdate":{"maxSurge":"25%","maxUnavailable":"25%"},"type":"RollingUpdate"},"template":{"spec":{"containers":[],"dnsPolicy":"ClusterFirst","restartPolicy":"Always","schedulerName":"default-scheduler","securityContext":{},"terminationGracePeriodSeconds":30}}},"status":{}}
            {"apiVersion":"v1","kind":"Pod","metadata":{"generation":1},"spec":{"containers":[],"dnsPolicy":"ClusterFirst","enableServiceLinks":true,"restartPolicy":"Always","schedulerName":"default-scheduler","schedulingGates":[{"name":"g"}],"securityContext":{},"terminationGracePeriodSeconds":30},"status":{"conditions":[{"message":"Scheduling is blocked due to non-empty scheduling gates","reason":"SchedulingGated","status":"False","type":"PodScheduled"}],"phase":"Pending","qosClass":"BestEffort"}}
            {"apiVersion":"v1","kind":"Namespace","metadata":{"labels":{"kubernetes.io/metadata.name":"n"},"name":"n"},"spec":{"finalizers":["kubernetes"]},"status":{"phase":"Active"}}
            {"apiVersion":"v1","kind":"Service","metadata":{},"spec":{"clusterIP":"None","clusterIPs":["None"],"internalTrafficPolicy":"Cluster","sessionAffinity":"None","type":"ClusterIP"},"status":{"loadBalancer":{}}}
            {"apiVersion":"v1","data":{"a":"b"},"kind":"ConfigMap","metadata":{}}
        "#]].assert_eq(&table);
    }

    #[test]
    fn the_generation_counts_what_is_wanted() {
        let generation = |mut new: Body, old: &Body| {
            update(&mut new, old);
            new.meta().generation
        };
        let mut old = deployment(1, "x");
        defaults::apply(&mut old);
        assert_eq!(generation(deployment(1, "x"), &old), Some(3));
        assert_eq!(generation(deployment(2, "x"), &old), Some(4));
        assert_eq!(generation(deployment(1, "y"), &old), Some(4));
    }

    #[test]
    fn a_manifest_put_again_changes_nothing() {
        let manifest = || {
            body(
                Kind::Deployment,
                json!({"metadata": {"name": "web"}, "spec": {"selector": {}, "template": {"spec": {"containers": [{"name": "c", "image": "i"}]}}}}),
            )
        };
        let mut old = manifest();
        create(&mut old);
        let mut new = manifest();
        update(&mut new, &old);
        assert_eq!(new, old);
    }

    #[test]
    fn limits_alone_make_a_pod_guaranteed() {
        let limits = json!({"limits": {"cpu": "1", "memory": "1Gi"}});
        let mut pod = body(Kind::Pod, json!({"spec": {"containers": [{"name": "c", "resources": limits}]}}));
        create(&mut pod);
        assert_eq!(pod.to_value()["status"]["qosClass"], "Guaranteed");
    }

    #[test]
    fn main_resource_and_status_do_not_touch_each_other() {
        let old = deployment(1, "x");
        let (mut main, mut status) = (deployment(5, "x"), deployment(5, "x"));
        update(&mut main, &old);
        update_status(&mut status, &old);
        assert_eq!(main.to_value()["status"]["replicas"], 1);
        assert_eq!(main.to_value()["spec"]["replicas"], 5);
        assert_eq!(status.to_value()["status"]["replicas"], 5);
        assert_eq!(status.to_value()["spec"]["replicas"], 1);
        assert_eq!(status.meta().generation, Some(3));
    }

    #[test]
    fn services_keep_what_they_were_given() {
        let old = body(
            Kind::Service,
            json!({"spec": {"type": "NodePort", "clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9"], "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack",
                "externalTrafficPolicy": "Cluster", "ports": [{"name": "http", "port": 80, "nodePort": 30080}]}}),
        );
        let changes = [
            json!({"type": "NodePort", "ports": [{"name": "http", "port": 81}]}),
            json!({"type": "ClusterIP", "clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9"], "externalTrafficPolicy": "Cluster",
                "ports": [{"name": "http", "port": 80, "nodePort": 30080}]}),
            json!({"type": "ExternalName", "externalName": "a.b", "clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9"], "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack"}),
            json!({"type": "NodePort", "clusterIP": "10.96.0.8", "ports": [{"name": "http", "port": 80, "nodePort": 30081}]}),
        ];
        let table = changes
            .map(|spec| {
                let mut new = body(Kind::Service, json!({ "spec": spec }));
                update(&mut new, &old);
                format!("{}\n", new.to_value()["spec"])
            })
            .concat();
        expect![[r#"
            {"clusterIP":"10.96.0.9","clusterIPs":["10.96.0.9"],"externalTrafficPolicy":"Cluster","internalTrafficPolicy":"Cluster","ipFamilies":["IPv4"],"ipFamilyPolicy":"SingleStack","ports":[{"name":"http","nodePort":30080,"port":81,"protocol":"TCP","targetPort":81}],"sessionAffinity":"None","type":"NodePort"}
            {"clusterIP":"10.96.0.9","clusterIPs":["10.96.0.9"],"internalTrafficPolicy":"Cluster","ipFamilies":["IPv4"],"ipFamilyPolicy":"SingleStack","ports":[{"name":"http","port":80,"protocol":"TCP","targetPort":80}],"sessionAffinity":"None","type":"ClusterIP"}
            {"externalName":"a.b","sessionAffinity":"None","type":"ExternalName"}
            {"clusterIP":"10.96.0.8","externalTrafficPolicy":"Cluster","internalTrafficPolicy":"Cluster","ipFamilies":["IPv4"],"ipFamilyPolicy":"SingleStack","ports":[{"name":"http","nodePort":30081,"port":80,"protocol":"TCP","targetPort":80}],"sessionAffinity":"None","type":"NodePort"}
        "#]].assert_eq(&table);
    }

    #[test]
    fn jobs_get_labels_of_their_own() {
        let mut job: Job =
            serde_json::from_value(json!({"metadata": {"name": "j", "uid": "u"}, "spec": {"template": {}}})).unwrap();
        create_job(&mut job);
        expect![[r#"{"apiVersion":"batch/v1","kind":"Job","metadata":{"generation":1,"name":"j","uid":"u"},"spec":{"selector":{"matchLabels":{"batch.kubernetes.io/controller-uid":"u"}},"template":{"metadata":{"labels":{"batch.kubernetes.io/controller-uid":"u","batch.kubernetes.io/job-name":"j","controller-uid":"u","job-name":"j"}}}},"status":{}}"#]].assert_eq(&serde_json::to_string(&job).unwrap());
    }

    #[test]
    fn daemon_sets_count_their_templates() {
        let daemon_set = |image: &str, unready: i32| -> DaemonSet {
            serde_json::from_value(json!({"metadata": {"generation": 1, "annotations": {TEMPLATE_GENERATION: "1"}},
                "spec": {"selector": {}, "minReadySeconds": unready, "template": {"spec": {"containers": [{"name": "c", "image": image}]}}}}))
            .unwrap()
        };
        let after = |mut new: DaemonSet| {
            update_daemon_set(&mut new, &daemon_set("a", 0));
            (new.metadata.generation, template_generation(&new))
        };
        assert_eq!(after(daemon_set("a", 0)), (Some(1), 1));
        assert_eq!(after(daemon_set("b", 0)), (Some(2), 2));
        assert_eq!(after(daemon_set("a", 5)), (Some(2), 1));
    }
}
