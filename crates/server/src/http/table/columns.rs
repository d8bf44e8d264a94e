//! The columns of each kind and the cells of each object.

use std::collections::BTreeMap;

use api::selector::Selector;
use api::{Body, Kind, Object};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{Container, Endpoints, Event, Node, ReplicationController, ResourceQuota, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::rbac::v1::{RoleRef, Subject};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use serde_json::{Value, json};

use super::{autoscaler, ingress, pod, storage};

/// One column.
pub struct Column {
    /// Heading.
    pub name: &'static str,
    /// `string`, `integer` or `date`.
    pub kind: &'static str,
    /// 0: always shown, 1: only with `-o wide`.
    pub priority: u8,
    /// For `explain`-like uses.
    pub description: &'static str,
}

const fn column(name: &'static str) -> Column {
    Column { name, kind: "string", priority: 0, description: "" }
}

const fn number(name: &'static str) -> Column {
    Column { name, kind: "integer", priority: 0, description: "" }
}

const fn wide(name: &'static str) -> Column {
    Column { name, kind: "string", priority: 1, description: "" }
}

const NAME: Column =
    Column { name: "Name", kind: "string", priority: 0, description: "Name must be unique within a namespace." };
const AGE: Column = column("Age");
const WORKLOAD: [Column; 3] = [wide("Containers"), wide("Images"), wide("Selector")];

/// The columns of a kind.
pub fn of(kind: Kind) -> Vec<Column> {
    let [containers, images, selector] = WORKLOAD;
    match kind {
        Kind::Namespace => vec![NAME, column("Status"), AGE],
        Kind::Node => vec![
            NAME,
            column("Status"),
            column("Roles"),
            AGE,
            column("Version"),
            wide("Internal-IP"),
            wide("External-IP"),
            wide("OS-Image"),
            wide("Kernel-Version"),
            wide("Container-Runtime"),
        ],
        Kind::Pod => vec![
            NAME,
            column("Ready"),
            column("Status"),
            column("Restarts"),
            AGE,
            wide("IP"),
            wide("Node"),
            wide("Nominated Node"),
            wide("Readiness Gates"),
        ],
        Kind::Service => vec![
            NAME,
            column("Type"),
            column("Cluster-IP"),
            column("External-IP"),
            column("Port(s)"),
            AGE,
            wide("Selector"),
        ],
        Kind::Endpoints => vec![NAME, column("Endpoints"), AGE],
        Kind::ConfigMap => vec![NAME, number("Data"), AGE],
        Kind::Secret => vec![NAME, column("Type"), number("Data"), AGE],
        Kind::ResourceQuota => vec![NAME, column("Request"), column("Limit"), AGE],
        Kind::LimitRange => vec![NAME, column("Created At")],
        Kind::ServiceAccount => vec![NAME, number("Secrets"), AGE],
        Kind::PersistentVolumeClaim => vec![
            NAME,
            column("Status"),
            column("Volume"),
            column("Capacity"),
            column("Access Modes"),
            column("StorageClass"),
            column("VolumeAttributesClass"),
            AGE,
            wide("VolumeMode"),
        ],
        Kind::PersistentVolume => vec![
            NAME,
            column("Capacity"),
            column("Access Modes"),
            column("Reclaim Policy"),
            column("Status"),
            column("Claim"),
            column("StorageClass"),
            column("VolumeAttributesClass"),
            column("Reason"),
            AGE,
            wide("VolumeMode"),
        ],
        Kind::StorageClass => vec![
            NAME,
            column("Provisioner"),
            column("ReclaimPolicy"),
            column("VolumeBindingMode"),
            column("AllowVolumeExpansion"),
            AGE,
        ],
        Kind::Event => vec![
            column("Last Seen"),
            column("Type"),
            column("Reason"),
            column("Object"),
            wide("Subobject"),
            wide("Source"),
            column("Message"),
            wide("First Seen"),
            wide("Count"),
            Column { priority: 1, ..NAME },
        ],
        Kind::Deployment => {
            vec![NAME, column("Ready"), number("Up-to-date"), number("Available"), AGE, containers, images, selector]
        }
        Kind::ReplicaSet => {
            vec![NAME, number("Desired"), number("Current"), number("Ready"), AGE, containers, images, selector]
        }
        Kind::ReplicationController => {
            vec![NAME, number("Desired"), number("Current"), number("Ready"), AGE, containers, images, selector]
        }
        Kind::DaemonSet => vec![
            NAME,
            number("Desired"),
            number("Current"),
            number("Ready"),
            number("Up-to-date"),
            number("Available"),
            column("Node Selector"),
            AGE,
            containers,
            images,
            selector,
        ],
        Kind::StatefulSet => vec![NAME, column("Ready"), AGE, containers, images],
        Kind::Job => {
            vec![NAME, column("Status"), column("Completions"), column("Duration"), AGE, containers, images, selector]
        }
        Kind::CronJob => vec![
            NAME,
            column("Schedule"),
            column("Timezone"),
            column("Suspend"),
            number("Active"),
            column("Last Schedule"),
            AGE,
            containers,
            images,
            selector,
        ],
        Kind::HorizontalPodAutoscaler => vec![
            NAME,
            column("Reference"),
            column("Targets"),
            column("MinPods"),
            column("MaxPods"),
            number("Replicas"),
            AGE,
        ],
        Kind::ControllerRevision => vec![NAME, column("Controller"), number("Revision"), AGE],
        Kind::EndpointSlice => vec![NAME, column("AddressType"), column("Ports"), column("Endpoints"), AGE],
        Kind::Lease => vec![NAME, column("Holder"), AGE],
        Kind::Ingress => {
            vec![NAME, column("Class"), column("Hosts"), column("Address"), column("Ports"), AGE]
        }
        Kind::IngressClass => vec![NAME, column("Controller"), column("Parameters"), AGE],
        Kind::PodDisruptionBudget => {
            vec![NAME, column("Min Available"), column("Max Unavailable"), number("Allowed Disruptions"), AGE]
        }
        Kind::ClusterRole | Kind::Role => vec![NAME, column("Created At")],
        Kind::ClusterRoleBinding | Kind::RoleBinding => {
            vec![NAME, column("Role"), AGE, wide("Users"), wide("Groups"), wide("ServiceAccounts")]
        }
        Kind::APIService => vec![NAME, column("Service"), column("Available"), AGE],
    }
}

/// The cells of an object, in the order of its kind's columns.
pub fn cells(object: &Object, now: Timestamp) -> Vec<Value> {
    let meta = object.meta();
    let name = json!(object.name());
    let age = json!(age(meta.creation_timestamp.as_ref(), now));
    match &object.body {
        Body::Namespace(namespace) => {
            let phase = namespace.status.as_ref().and_then(|status| status.phase.clone());
            vec![name, json!(phase.unwrap_or_else(|| "Active".into())), age]
        }
        Body::Node(node) => self::node(node, name, age),
        Body::Pod(pod) => pod::cells(pod, name, age, now),
        Body::Service(service) => self::service(service, name, age),
        Body::Endpoints(endpoints) => vec![name, json!(endpoint_list(endpoints)), age],
        Body::ConfigMap(map) => {
            let count = map.data.as_ref().map_or(0, BTreeMap::len) + map.binary_data.as_ref().map_or(0, BTreeMap::len);
            vec![name, json!(count), age]
        }
        Body::Secret(secret) => {
            vec![
                name,
                json!(secret.type_.as_deref().unwrap_or("Opaque")),
                json!(secret.data.as_ref().map_or(0, BTreeMap::len)),
                age,
            ]
        }
        Body::ResourceQuota(quota) => resource_quota(quota, name, age),
        Body::LimitRange(_) => vec![name, json!(meta.creation_timestamp)],
        Body::ServiceAccount(account) => vec![name, json!(account.secrets.as_ref().map_or(0, Vec::len)), age],
        Body::PersistentVolumeClaim(claim) => storage::claim(claim, name, age),
        Body::PersistentVolume(volume) => storage::volume(volume, name, age),
        Body::StorageClass(class) => storage::class(class, age),
        Body::Event(event) => self::event(event, name, now),
        Body::Deployment(deployment) => self::deployment(deployment, name, age),
        Body::ReplicaSet(set) => replica_set(set, name, age),
        Body::ReplicationController(controller) => replication_controller(controller, name, age),
        Body::DaemonSet(set) => daemon_set(set, name, age),
        Body::StatefulSet(set) => stateful_set(set, name, age),
        Body::Job(job) => self::job(job, name, age, now),
        Body::CronJob(cron_job) => self::cron_job(cron_job, name, age, now),
        Body::HorizontalPodAutoscaler(autoscaler) => autoscaler::cells(autoscaler, name, age),
        Body::ControllerRevision(revision) => {
            let owner = api::object::controller_of(meta).map(|owner| {
                let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
                let resource = owner.kind.to_lowercase();
                let resource = if group.is_empty() { resource } else { format!("{resource}.{group}") };
                format!("{resource}/{}", owner.name)
            });
            vec![name, json!(owner.unwrap_or_else(|| "<none>".into())), json!(revision.revision), age]
        }
        Body::EndpointSlice(slice) => endpoint_slice(slice, name, age),
        Body::Lease(lease) => {
            vec![
                name,
                json!(lease.spec.as_ref().and_then(|spec| spec.holder_identity.clone()).unwrap_or_default()),
                age,
            ]
        }
        Body::Ingress(ingress) => ingress::ingress(ingress, name, age),
        Body::IngressClass(class) => ingress::class(class, age),
        Body::PodDisruptionBudget(budget) => {
            let spec = budget.spec.clone().unwrap_or_default();
            let bound = |bound: Option<IntOrString>| bound.map_or(json!("N/A"), |bound| json!(int_or_string(&bound)));
            let allowed = budget.status.as_ref().and_then(|status| status.disruptions_allowed).unwrap_or(0);
            vec![name, bound(spec.min_available), bound(spec.max_unavailable), json!(allowed), age]
        }
        Body::ClusterRole(_) | Body::Role(_) => vec![name, json!(meta.creation_timestamp)],
        Body::ClusterRoleBinding(binding) => role_binding(&binding.role_ref, binding.subjects.as_deref(), name, age),
        Body::RoleBinding(binding) => role_binding(&binding.role_ref, binding.subjects.as_deref(), name, age),
        Body::APIService(service) => api_service(service, name, age),
    }
}

/// Upstream: `kube-aggregator/pkg/registry/apiservice/etcd/etcd.go: ConvertToTable`.
fn api_service(service: &APIService, name: Value, age: Value) -> Vec<Value> {
    let by = service.spec.as_ref().and_then(|spec| spec.service.as_ref());
    let by = by.map_or_else(
        || "Local".to_owned(),
        |it| format!("{}/{}", it.namespace.as_deref().unwrap_or(""), it.name.as_deref().unwrap_or("")),
    );
    let conditions = service.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let available = conditions.into_iter().find(|condition| condition.type_ == "Available");
    let available = available.map_or_else(
        || "Unknown".to_owned(),
        |it| match it.reason.as_deref() {
            Some(reason) if it.status != "True" && !reason.is_empty() => format!("{} ({reason})", it.status),
            _ => it.status.clone(),
        },
    );
    vec![name, json!(by), json!(available), age]
}

/// Requests and limits apart: `pods: 2/3, requests.cpu: 1/2`.
fn resource_quota(quota: &ResourceQuota, name: Value, age: Value) -> Vec<Value> {
    let status = quota.status.clone().unwrap_or_default();
    let used = status.used.unwrap_or_default();
    let hard = status.hard.unwrap_or_default();
    let shown = |limits: bool| {
        let of = |(name, hard): (&String, &Quantity)| {
            format!("{name}: {}/{}", used.get(name).map_or("0", |quantity| &quantity.0), hard.0)
        };
        let some = hard.iter().filter(|(name, _)| name.starts_with("limits") == limits);
        some.map(of).collect::<Vec<String>>().join(", ")
    };
    vec![name, json!(shown(false)), json!(shown(true)), age]
}

fn node(node: &Node, name: Value, age: Value) -> Vec<Value> {
    let status = node.status.clone().unwrap_or_default();
    let ready = status.conditions.iter().flatten().find(|condition| condition.type_ == "Ready");
    let mut state = match ready.map(|condition| condition.status.as_str()) {
        Some("True") => "Ready".to_owned(),
        Some(_) => "NotReady".to_owned(),
        None => "Unknown".to_owned(),
    };
    if node.spec.as_ref().and_then(|spec| spec.unschedulable).unwrap_or(false) {
        state.push_str(",SchedulingDisabled");
    }
    let roles: Vec<&str> = node
        .metadata
        .labels
        .iter()
        .flatten()
        .filter_map(|(key, value)| {
            let role = key.strip_prefix("node-role.kubernetes.io/");
            role.or_else(|| (key == "kubernetes.io/role").then_some(value.as_str())).filter(|role| !role.is_empty())
        })
        .collect();
    let address = |kind: &str| {
        let found = status.addresses.iter().flatten().find(|address| address.type_ == kind);
        json!(found.map_or("<none>", |address| address.address.as_str()))
    };
    let info = status.node_info.clone().unwrap_or_default();
    let or_unknown = |text: &str| json!(if text.is_empty() { "<unknown>" } else { text });
    vec![
        name,
        json!(state),
        json!(or_none(roles.join(","))),
        age,
        json!(info.kubelet_version),
        address("InternalIP"),
        address("ExternalIP"),
        or_unknown(&info.os_image),
        or_unknown(&info.kernel_version),
        or_unknown(&info.container_runtime_version),
    ]
}

fn int_or_string(value: &IntOrString) -> String {
    match value {
        IntOrString::Int(number) => number.to_string(),
        IntOrString::String(text) => text.clone(),
    }
}

fn service(service: &Service, name: Value, age: Value) -> Vec<Value> {
    let spec = service.spec.clone().unwrap_or_default();
    let kind = spec.type_.unwrap_or_else(|| "ClusterIP".into());
    let ports: Vec<String> = spec
        .ports
        .iter()
        .flatten()
        .map(|port| {
            let protocol = port.protocol.as_deref().unwrap_or("TCP");
            match port.node_port {
                Some(node_port) if node_port > 0 => format!("{}:{node_port}/{protocol}", port.port),
                _ => format!("{}/{protocol}", port.port),
            }
        })
        .collect();
    let external = match kind.as_str() {
        "ExternalName" => spec.external_name.unwrap_or_default(),
        _ => spec.external_ips.unwrap_or_default().join(","),
    };
    vec![
        name,
        json!(kind),
        json!(or_none(spec.cluster_ip.unwrap_or_default())),
        json!(or_none(external)),
        json!(or_none(ports.join(","))),
        age,
        json!(or_none(labels(spec.selector.as_ref()))),
    ]
}

/// Endpoints shown in a cell before `+ N more...`.
const SHOWN: usize = 3;

fn shortened(all: &[String]) -> String {
    let mut text = all.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(",");
    if SHOWN < all.len() {
        text.push_str(&format!(" + {} more...", all.len() - SHOWN));
    }
    text
}

fn endpoint_list(endpoints: &Endpoints) -> String {
    let mut all = Vec::new();
    for subset in endpoints.subsets.iter().flatten() {
        let addresses = || subset.addresses.iter().flatten();
        match subset.ports.as_deref() {
            None | Some([]) => all.extend(addresses().map(|address| address.ip.clone())),
            Some(ports) => {
                for port in ports {
                    all.extend(addresses().map(|address| format!("{}:{}", address.ip, port.port)));
                }
            }
        }
    }
    or_none(shortened(&all))
}

fn endpoint_slice(slice: &EndpointSlice, name: Value, age: Value) -> Vec<Value> {
    let ports: Vec<String> = slice.ports.iter().flatten().filter_map(|port| Some(port.port?.to_string())).collect();
    let addresses: Vec<String> =
        slice.endpoints.iter().flatten().flat_map(|endpoint| endpoint.addresses.clone()).collect();
    let unset = |text: String| if text.is_empty() { "<unset>".to_owned() } else { text };
    vec![name, json!(slice.address_type), json!(unset(shortened(&ports))), json!(unset(shortened(&addresses))), age]
}

fn event(event: &Event, name: Value, now: Timestamp) -> Vec<Value> {
    let about = &event.involved_object;
    let kind = about.kind.as_deref().unwrap_or("").to_lowercase();
    let object = format!("{kind}/{}", about.name.as_deref().unwrap_or(""));
    let source = event.source.clone().unwrap_or_default();
    let from = [source.component, source.host].into_iter().flatten().collect::<Vec<_>>().join(", ");
    let created = event.metadata.creation_timestamp.as_ref();
    let first = age(event.first_timestamp.as_ref().or(created), now);
    let last = event.last_timestamp.as_ref().map_or_else(|| first.clone(), |time| age(Some(time), now));
    vec![
        json!(last),
        json!(event.type_),
        json!(event.reason),
        json!(object),
        json!(about.field_path.as_deref().unwrap_or("")),
        json!(from),
        json!(event.message.as_deref().unwrap_or("").trim()),
        json!(first),
        json!(event.count.unwrap_or(1).to_string()),
        name,
    ]
}

fn deployment(deployment: &Deployment, name: Value, age: Value) -> Vec<Value> {
    let spec = deployment.spec.clone().unwrap_or_default();
    let status = deployment.status.clone().unwrap_or_default();
    let ready = format!("{}/{}", status.ready_replicas.unwrap_or(0), spec.replicas.unwrap_or(0));
    let (containers, images) = containers(spec.template.spec.as_ref().map(|spec| spec.containers.as_slice()));
    vec![
        name,
        json!(ready),
        json!(status.updated_replicas.unwrap_or(0)),
        json!(status.available_replicas.unwrap_or(0)),
        age,
        json!(containers),
        json!(images),
        json!(selector(&spec.selector)),
    ]
}

fn replica_set(set: &ReplicaSet, name: Value, age: Value) -> Vec<Value> {
    let spec = set.spec.clone().unwrap_or_default();
    let status = set.status.clone().unwrap_or_default();
    let template = spec.template.and_then(|template| template.spec);
    let (containers, images) = containers(template.as_ref().map(|spec| spec.containers.as_slice()));
    vec![
        name,
        json!(spec.replicas.unwrap_or(0)),
        json!(status.replicas),
        json!(status.ready_replicas.unwrap_or(0)),
        age,
        json!(containers),
        json!(images),
        json!(selector(&spec.selector)),
    ]
}

fn replication_controller(controller: &ReplicationController, name: Value, age: Value) -> Vec<Value> {
    let spec = controller.spec.clone().unwrap_or_default();
    let status = controller.status.clone().unwrap_or_default();
    let template = spec.template.and_then(|template| template.spec);
    let (containers, images) = containers(template.as_ref().map(|spec| spec.containers.as_slice()));
    vec![
        name,
        json!(spec.replicas.unwrap_or(0)),
        json!(status.replicas),
        json!(status.ready_replicas.unwrap_or(0)),
        age,
        json!(containers),
        json!(images),
        json!(or_none(labels(spec.selector.as_ref()))),
    ]
}

fn daemon_set(set: &DaemonSet, name: Value, age: Value) -> Vec<Value> {
    let spec = set.spec.clone().unwrap_or_default();
    let status = set.status.clone().unwrap_or_default();
    let template = spec.template.spec.unwrap_or_default();
    let (containers, images) = containers(Some(&template.containers));
    vec![
        name,
        json!(status.desired_number_scheduled),
        json!(status.current_number_scheduled),
        json!(status.number_ready),
        json!(status.updated_number_scheduled.unwrap_or(0)),
        json!(status.number_available.unwrap_or(0)),
        json!(or_none(labels(template.node_selector.as_ref()))),
        age,
        json!(containers),
        json!(images),
        json!(selector(&spec.selector)),
    ]
}

fn stateful_set(set: &StatefulSet, name: Value, age: Value) -> Vec<Value> {
    let spec = set.spec.clone().unwrap_or_default();
    let ready = set.status.as_ref().and_then(|status| status.ready_replicas).unwrap_or(0);
    let template = spec.template.spec.unwrap_or_default();
    let (containers, images) = containers(Some(&template.containers));
    vec![name, json!(format!("{ready}/{}", spec.replicas.unwrap_or(0))), age, json!(containers), json!(images)]
}

fn job(job: &Job, name: Value, age: Value, now: Timestamp) -> Vec<Value> {
    let spec = job.spec.clone().unwrap_or_default();
    let status = job.status.clone().unwrap_or_default();
    let succeeded = status.succeeded.unwrap_or(0);
    let completions = match (spec.completions, spec.parallelism.unwrap_or(0)) {
        (Some(completions), _) => format!("{succeeded}/{completions}"),
        (None, parallelism) if parallelism > 1 => format!("{succeeded}/1 of {parallelism}"),
        (None, _) => format!("{succeeded}/1"),
    };
    let duration = status.start_time.as_ref().map(|start| {
        let end = status.completion_time.as_ref().map_or(now, |end| end.0);
        human_duration(end.duration_since(start.0).as_secs())
    });
    let template = spec.template.spec.unwrap_or_default();
    let (containers, images) = containers(Some(&template.containers));
    vec![
        name,
        json!(job_state(job)),
        json!(completions),
        json!(duration.unwrap_or_default()),
        age,
        json!(containers),
        json!(images),
        json!(spec.selector.as_ref().map_or_else(|| "<none>".to_owned(), selector)),
    ]
}

/// How a Job is, in a word (upstream: `printJob`).
fn job_state(job: &Job) -> &'static str {
    let conditions = job.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let told = |type_: &str| conditions.iter().any(|condition| condition.type_ == type_ && condition.status == "True");
    match () {
        () if told("Complete") => "Complete",
        () if told("Failed") => "Failed",
        () if job.metadata.deletion_timestamp.is_some() => "Terminating",
        () if told("Suspended") => "Suspended",
        () if told("FailureTarget") => "FailureTarget",
        () if told("SuccessCriteriaMet") => "SuccessCriteriaMet",
        () => "Running",
    }
}

fn cron_job(cron_job: &CronJob, name: Value, age: Value, now: Timestamp) -> Vec<Value> {
    let (spec, status) = (&cron_job.spec, cron_job.status.clone().unwrap_or_default());
    let suspended = match spec.suspend {
        Some(true) => "True",
        Some(false) => "False",
        None => "<unset>",
    };
    let last =
        status.last_schedule_time.as_ref().map_or_else(|| "<none>".to_owned(), |time| self::age(Some(time), now));
    let job = spec.job_template.spec.clone().unwrap_or_default();
    let template = job.template.spec.unwrap_or_default();
    let (containers, images) = containers(Some(&template.containers));
    vec![
        name,
        json!(spec.schedule),
        json!(spec.time_zone.as_deref().unwrap_or("<none>")),
        json!(suspended),
        json!(status.active.map_or(0, |active| active.len())),
        json!(last),
        age,
        json!(containers),
        json!(images),
        json!(job.selector.as_ref().map_or_else(|| "<none>".to_owned(), selector)),
    ]
}

fn role_binding(role: &RoleRef, subjects: Option<&[Subject]>, name: Value, age: Value) -> Vec<Value> {
    let of = |kind: &str| {
        let names = subjects.into_iter().flatten().filter(|subject| subject.kind == kind).map(|subject| {
            match (&subject.namespace, kind) {
                (Some(namespace), "ServiceAccount") => format!("{namespace}/{}", subject.name),
                _ => subject.name.clone(),
            }
        });
        json!(names.collect::<Vec<_>>().join(", "))
    };
    vec![name, json!(format!("{}/{}", role.kind, role.name)), age, of("User"), of("Group"), of("ServiceAccount")]
}

fn containers(containers: Option<&[Container]>) -> (String, String) {
    let all = containers.unwrap_or_default();
    let names: Vec<&str> = all.iter().map(|container| container.name.as_str()).collect();
    let images: Vec<&str> = all.iter().filter_map(|container| container.image.as_deref()).collect();
    (names.join(","), images.join(","))
}

fn selector(selector: &LabelSelector) -> String {
    Selector::from_label_selector(Some(selector))
        .map_or_else(|_| "<error>".into(), |selector| or_none(selector.to_string()))
}

fn labels(labels: Option<&BTreeMap<String, String>>) -> String {
    let pairs: Vec<String> = labels.into_iter().flatten().map(|(key, value)| format!("{key}={value}")).collect();
    pairs.join(",")
}

pub(super) fn or_none(text: String) -> String {
    if text.is_empty() { "<none>".into() } else { text }
}

pub(super) fn age(time: Option<&Time>, now: Timestamp) -> String {
    time.map_or_else(|| "<unknown>".into(), |time| human_duration(now.duration_since(time.0).as_secs()))
}

/// A duration as kubectl shows it (upstream: `apimachinery/pkg/util/duration: HumanDuration`).
pub(super) fn human_duration(seconds: i64) -> String {
    const MINUTE: i64 = 60;
    const HOUR: i64 = 60 * MINUTE;
    const DAY: i64 = 24 * HOUR;
    const YEAR: i64 = 365 * DAY;
    let two = |big: i64, unit: char, small: i64, small_unit: char| {
        if small == 0 { format!("{big}{unit}") } else { format!("{big}{unit}{small}{small_unit}") }
    };
    match seconds {
        s if s < -1 => "<invalid>".into(),
        s if s < 0 => "0s".into(),
        s if s < 2 * MINUTE => format!("{s}s"),
        s if s < 10 * MINUTE => two(s / MINUTE, 'm', s % MINUTE, 's'),
        s if s < 3 * HOUR => format!("{}m", s / MINUTE),
        s if s < 8 * HOUR => two(s / HOUR, 'h', s % HOUR / MINUTE, 'm'),
        s if s < 2 * DAY => format!("{}h", s / HOUR),
        s if s < 8 * DAY => two(s / DAY, 'd', s % DAY / HOUR, 'h'),
        s if s < 2 * YEAR => format!("{}d", s / DAY),
        s if s < 8 * YEAR => two(s / YEAR, 'y', s % YEAR / DAY, 'd'),
        s => format!("{}y", s / YEAR),
    }
}

#[cfg(test)]
mod tests {
    use super::human_duration;

    #[test]
    fn durations() {
        let shown: Vec<String> = [0, 64, 119, 120, 136, 599, 600, 10_799, 10_800, 29_000, 90_000, 270_000, 900_000]
            .map(human_duration)
            .into();
        assert_eq!(shown.join(" "), "0s 64s 119s 2m 2m16s 9m59s 10m 179m 3h 8h 25h 3d3h 10d");
    }
}
