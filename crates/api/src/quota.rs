//! What the objects of a namespace take of its quotas, kept up to date with every write.
//!
//! A namespace has an [`Account`] as long as it has a ResourceQuota; it adds up what each object takes, pods by what
//! the scopes of quotas ask about them. So the door knows what is used at the very revision it decides on, and what is
//! used is never computed by walking a namespace. Mirrors `pkg/quota/v1/evaluator/core` (pods.go, services.go) and
//! `apiserver/pkg/quota/v1/generic` (what is counted, and which scopes match). Judges nothing: that is the door's.

use std::collections::BTreeMap;
use std::ops::Bound;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PodAffinityTerm, PodSpec, ResourceQuota, ResourceQuotaSpec, ResourceRequirements,
    ScopedResourceSelectorRequirement, Service,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::kinds::{Body, Kind};
use crate::pod_facts::has_ended;
use crate::pod_resources::{self, Amounts, QosClass};
use crate::quantity::Amount;
use crate::volumes;

/// What the scopes of quotas ask about a pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Class {
    terminating: bool,
    best_effort: bool,
    cross_namespace: bool,
    priority_class: String,
}

/// What one object takes.
#[derive(Clone, Debug, PartialEq)]
pub struct Charge {
    /// `None` for what is no pod: scoped quotas do not count it.
    pub class: Option<Class>,
    /// By the names that quotas use.
    pub amounts: Amounts,
    /// What a pod that leaves takes in addition, until that time: a node that is lost does not stop it, and who makes
    /// another in its place needs the room.
    pub leaving: Option<(Timestamp, Amounts)>,
}

impl Charge {
    /// What is taken at a time.
    pub fn at(self, now: Timestamp) -> Amounts {
        let leaving = self.leaving.filter(|(until, _)| now < *until);
        self.amounts.into_iter().chain(leaving.into_iter().flat_map(|(_, amounts)| amounts)).collect()
    }
}

/// What all objects of a namespace take.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Account {
    pods: BTreeMap<Class, Amounts>,
    /// As [`Charge::leaving`].
    leaving: BTreeMap<Timestamp, BTreeMap<Class, Amounts>>,
    others: Amounts,
}

impl Account {
    /// Adds an object.
    pub fn add(&mut self, body: &Body) {
        self.book(body, |entry, amount| *entry += amount);
    }

    /// Takes away what [`Account::add`] added.
    pub fn subtract(&mut self, body: &Body) {
        self.book(body, |entry, amount| *entry -= amount);
    }

    fn book(&mut self, body: &Body, change: fn(&mut Amount, Amount)) {
        let Charge { class, amounts, leaving } = charge(body);
        let Some(class) = class else { return book(&mut self.others, amounts, change) };
        book_pod(&mut self.pods, &class, amounts, change);
        let Some((until, amounts)) = leaving else { return };
        let then = self.leaving.entry(until).or_default();
        book_pod(then, &class, amounts, change);
        if then.is_empty() {
            self.leaving.remove(&until);
        }
    }

    /// True once the last quota is gone.
    pub fn has_no_quota(&self) -> bool {
        !self.others.contains_key("resourcequotas")
    }

    /// When a pod that leaves takes less than it does now.
    pub fn next_less(&self, now: Timestamp) -> Option<Timestamp> {
        self.leaving_after(now).next().map(|(until, _)| *until)
    }

    fn leaving_after(&self, now: Timestamp) -> impl Iterator<Item = (&Timestamp, &BTreeMap<Class, Amounts>)> {
        self.leaving.range((Bound::Excluded(now), Bound::Unbounded))
    }

    /// What of a quota is used, for each name that it bounds.
    pub fn used(&self, quota: &ResourceQuota, now: Timestamp) -> Amounts {
        let Some(spec) = quota.spec.as_ref() else { return Amounts::new() };
        let pods = self.pods.iter().chain(self.leaving_after(now).flat_map(|(_, classes)| classes));
        let pods = pods.filter(|(class, _)| applies(spec, Some(class))).map(|(_, sums)| sums);
        let others = applies(spec, None).then_some(&self.others);
        let sums: Vec<&Amounts> = pods.chain(others).collect();
        let of = |name: &String| sums.iter().filter_map(|sums| sums.get(name)).copied().sum::<Amount>();
        spec.hard.iter().flatten().map(|(name, _)| (name.clone(), of(name))).collect()
    }
}

fn book_pod(pods: &mut BTreeMap<Class, Amounts>, class: &Class, amounts: Amounts, change: fn(&mut Amount, Amount)) {
    let sums = pods.entry(class.clone()).or_default();
    book(sums, amounts, change);
    if sums.is_empty() {
        pods.remove(class);
    }
}

fn book(sums: &mut Amounts, amounts: Amounts, change: fn(&mut Amount, Amount)) {
    for (name, amount) in amounts {
        let entry = sums.entry(name.clone()).or_default();
        change(entry, amount);
        if entry.is_zero() {
            sums.remove(&name);
        }
    }
}

/// What an object takes.
pub fn charge(body: &Body) -> Charge {
    let one = Amount::whole(1);
    let mut amounts = Amounts::from([(format!("count/{}", body.kind().info().resource()), one)]);
    match body {
        Body::Pod(pod) => {
            let spec = pod.spec.clone().unwrap_or_default();
            let mut leaving = None;
            match end_of_grace(&pod.metadata) {
                _ if has_ended(pod) => {}
                Some(until) => leaving = Some((until, what_runs(&spec))),
                None => amounts.extend(what_runs(&spec)),
            }
            return Charge { class: Some(class_of(&spec)), amounts, leaving };
        }
        Body::Service(service) => add_service(&mut amounts, service),
        Body::PersistentVolumeClaim(claim) => add_claim(&mut amounts, claim),
        _ => {}
    }
    if body.kind().info().group.is_empty() && LISTED.contains(&body.kind()) {
        amounts.insert(body.kind().info().plural.to_owned(), one);
    }
    Charge { class: None, amounts, leaving: None }
}

/// When a pod that leaves counts as gone, whether it is or not (upstream: QuotaV1Pod).
fn end_of_grace(meta: &ObjectMeta) -> Option<Timestamp> {
    let (deleted, grace) = (meta.deletion_timestamp.as_ref()?, meta.deletion_grace_period_seconds?);
    deleted.0.checked_add(SignedDuration::from_secs(grace)).ok()
}

/// Kinds that quotas may also call by their plain name.
const LISTED: [Kind; 6] = [
    Kind::Service,
    Kind::ReplicationController,
    Kind::ResourceQuota,
    Kind::Secret,
    Kind::ConfigMap,
    Kind::PersistentVolumeClaim,
];

/// What a pod takes until it has ended.
fn what_runs(spec: &PodSpec) -> Amounts {
    let mut amounts = Amounts::from([("pods".into(), Amount::whole(1))]);
    add_resources(&mut amounts, pod_resources::requested(spec), pod_resources::limited(spec));
    amounts
}

/// Requests and limits by the names that quotas use (upstream: podComputeUsageHelper).
fn add_resources(amounts: &mut Amounts, requested: Amounts, limited: Amounts) {
    for (name, amount) in requested {
        let plain = is_computed(&name) || name.starts_with("hugepages-");
        if plain || name.contains('/') {
            amounts.insert(format!("requests.{name}"), amount);
        }
        if plain {
            amounts.insert(name, amount);
        }
    }
    for (name, amount) in limited.into_iter().filter(|(name, _)| is_computed(name)) {
        amounts.insert(format!("limits.{name}"), amount);
    }
}

fn is_computed(name: &str) -> bool {
    matches!(name, "cpu" | "memory" | "ephemeral-storage")
}

fn add_service(amounts: &mut Amounts, service: &Service) {
    let Some(spec) = service.spec.as_ref() else { return };
    let ports = || spec.ports.iter().flatten();
    let taken = match spec.type_.as_deref() {
        Some("NodePort") => ports().count(),
        Some("LoadBalancer") => {
            amounts.insert("services.loadbalancers".into(), Amount::whole(1));
            ports().filter(|port| port.node_port.is_some_and(|port| port != 0)).count()
        }
        _ => 0,
    };
    if taken > 0 {
        amounts.insert("services.nodeports".into(), Amount::whole(i64::try_from(taken).unwrap_or(i64::MAX)));
    }
}

/// What a claim asks for, as a whole and by its class (upstream: persistent_volume_claims.go).
fn add_claim(amounts: &mut Amounts, claim: &PersistentVolumeClaim) {
    let (one, storage) = (Amount::whole(1), volumes::requested(claim));
    amounts.insert("requests.storage".into(), storage);
    if let Some(class) = volumes::class_of_claim(claim).filter(|class| !class.is_empty()) {
        amounts.insert(format!("{class}.storageclass.storage.k8s.io/requests.storage"), storage);
        amounts.insert(format!("{class}.storageclass.storage.k8s.io/persistentvolumeclaims"), one);
    }
}

fn class_of(spec: &PodSpec) -> Class {
    Class {
        terminating: is_terminating(spec),
        best_effort: pod_resources::qos_class(spec) == QosClass::BestEffort,
        cross_namespace: reaches_out(spec),
        priority_class: spec.priority_class_name.clone().unwrap_or_default(),
    }
}

/// True for a pod that may run for so long only: the scope Terminating (upstream: IsTerminating).
pub fn is_terminating(spec: &PodSpec) -> bool {
    spec.active_deadline_seconds.is_some_and(|seconds| seconds >= 0)
}

/// True if some (anti-)affinity to pods looks into other namespaces.
fn reaches_out(spec: &PodSpec) -> bool {
    let affinity = spec.affinity.clone().unwrap_or_default();
    let (with, against) = (affinity.pod_affinity.unwrap_or_default(), affinity.pod_anti_affinity.unwrap_or_default());
    let required = [
        with.required_during_scheduling_ignored_during_execution,
        against.required_during_scheduling_ignored_during_execution,
    ];
    let preferred = [
        with.preferred_during_scheduling_ignored_during_execution,
        against.preferred_during_scheduling_ignored_during_execution,
    ];
    let preferred = preferred.into_iter().flatten().flatten().map(|term| term.pod_affinity_term);
    let elsewhere = |term: &PodAffinityTerm| {
        term.namespaces.as_ref().is_some_and(|names| !names.is_empty()) || term.namespace_selector.is_some()
    };
    required.into_iter().flatten().flatten().chain(preferred).any(|term| elsewhere(&term))
}

/// Whether a quota counts objects of this class.
pub fn applies(spec: &ResourceQuotaSpec, class: Option<&Class>) -> bool {
    let scopes = spec.scopes.iter().flatten();
    let selected = spec.scope_selector.iter().flat_map(|selector| selector.match_expressions.iter().flatten());
    let holds = |scope: &str| class.is_some_and(|class| in_scope(class, scope, "Exists", &[]));
    let fits = |one: &ScopedResourceSelectorRequirement| {
        let values = one.values.as_deref().unwrap_or_default();
        class.is_some_and(|class| in_scope(class, &one.scope_name, &one.operator, values))
    };
    scopes.into_iter().all(|scope| holds(scope)) && selected.into_iter().all(fits)
}

fn in_scope(class: &Class, scope: &str, operator: &str, values: &[String]) -> bool {
    match scope {
        "Terminating" => class.terminating,
        "NotTerminating" => !class.terminating,
        "BestEffort" => class.best_effort,
        "NotBestEffort" => !class.best_effort,
        "CrossNamespacePodAffinity" => class.cross_namespace,
        "PriorityClass" => {
            let named = !class.priority_class.is_empty();
            match operator {
                "In" => named && values.contains(&class.priority_class),
                "NotIn" => !named || !values.contains(&class.priority_class),
                "DoesNotExist" => !named,
                _ => named,
            }
        }
        _ => false,
    }
}

/// What each container of a pod must say because a quota bounds it: names of resources with the containers that do
/// not say (upstream: `podEvaluator.Constraints`). A pod that says something as a whole need not say more.
pub fn unsaid(quota: &ResourceQuotaSpec, spec: &PodSpec) -> BTreeMap<String, Vec<String>> {
    const ENFORCED: [&str; 6] = ["cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory"];
    let mut missing: BTreeMap<String, Vec<String>> = BTreeMap::new();
    if spec.resources.as_ref().is_some_and(is_whole) {
        return missing;
    }
    let list = |list: &Option<BTreeMap<String, k8s_openapi::apimachinery::pkg::api::resource::Quantity>>| -> Amounts {
        list.iter().flatten().map(|(name, quantity)| (name.clone(), Amount::of(quantity))).collect()
    };
    for container in spec.containers.iter().chain(spec.init_containers.iter().flatten()) {
        let resources = container.resources.clone().unwrap_or_default();
        let mut said = Amounts::new();
        add_resources(&mut said, list(&resources.requests), list(&resources.limits));
        for name in quota.hard.iter().flatten().map(|(name, _)| name) {
            if ENFORCED.contains(&name.as_str()) && !said.contains_key(name) {
                missing.entry(name.clone()).or_default().push(container.name.clone());
            }
        }
    }
    missing.values_mut().for_each(|names| names.sort());
    missing
}

/// True if resources of a whole pod are told (upstream: IsPodLevelResourcesSet).
fn is_whole(resources: &ResourceRequirements) -> bool {
    let lists = [&resources.requests, &resources.limits].into_iter().flatten();
    lists.flat_map(|list| list.keys()).any(|name| pod_resources::is_pod_level(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Key, Object, Snapshot};
    use expect_test::expect;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn pod(spec: Value, phase: &str) -> Body {
        Kind::Pod.decode(json!({ "metadata": { "name": "p" }, "spec": spec, "status": { "phase": phase } })).unwrap()
    }

    fn web(extra: Value) -> Value {
        let resources = json!({ "requests": { "cpu": "100m", "memory": "64Mi", "a.b/gpu": "1" }, "limits": { "cpu": "1", "a.b/gpu": "1" } });
        let mut spec = json!({ "containers": [{ "name": "c", "resources": resources }] });
        for (name, value) in extra.as_object().unwrap() {
            spec[name] = value.clone();
        }
        spec
    }

    fn used(account: &Account, spec: Value) -> String {
        used_at(account, spec, Timestamp::UNIX_EPOCH)
    }

    fn used_at(account: &Account, spec: Value, now: Timestamp) -> String {
        let quota = json!({ "metadata": { "name": "q" }, "spec": spec });
        let Body::ResourceQuota(quota) = Kind::ResourceQuota.decode(quota).unwrap() else { unreachable!() };
        account.used(&quota, now).iter().map(|(name, amount)| format!("{name}={amount}")).collect::<Vec<_>>().join(" ")
            + "\n"
    }

    #[test]
    fn what_is_counted_for_whom() {
        let mut account = Account::default();
        let ended = pod(web(json!({})), "Succeeded");
        for body in [
            pod(web(json!({})), "Running"),
            pod(web(json!({ "activeDeadlineSeconds": 5, "priorityClassName": "high" })), "Running"),
            pod(json!({ "containers": [{ "name": "c" }] }), "Pending"),
        ] {
            account.add(&body);
        }
        account.add(&ended);
        let service = json!({ "metadata": { "name": "s" }, "spec": { "type": "NodePort", "ports": [{ "port": 1 }, { "port": 2 }] } });
        account.add(&Kind::Service.decode(service).unwrap());
        account.add(
            &Kind::Deployment
                .decode(json!({ "metadata": { "name": "d" }, "spec": { "selector": {}, "template": {} } }))
                .unwrap(),
        );
        let hard = json!({ "pods": "9", "count/pods": "9", "requests.cpu": "9", "cpu": "1", "limits.cpu": "1", "memory": "1Gi", "requests.a.b/gpu": "1" });
        let mut table = used(&account, json!({ "hard": hard }));
        for scope in ["Terminating", "NotTerminating", "BestEffort", "NotBestEffort"] {
            table += &format!(
                "{scope}: {}",
                used(&account, json!({ "hard": { "pods": "1", "services": "1" }, "scopes": [scope] }))
            );
        }
        for (operator, values) in
            [("In", json!(["high"])), ("NotIn", json!(["high"])), ("Exists", json!([])), ("DoesNotExist", json!([]))]
        {
            let one = json!({ "scopeName": "PriorityClass", "operator": operator, "values": values });
            let spec = json!({ "hard": { "pods": "1" }, "scopeSelector": { "matchExpressions": [one] } });
            table += &format!("{operator}: {}", used(&account, spec));
        }
        table += &used(
            &account,
            json!({ "hard": { "services": "1", "services.nodeports": "1", "count/deployments.apps": "1", "configmaps": "1" } }),
        );
        expect![[r#"
            count/pods=4 cpu=200m limits.cpu=2 memory=128Mi pods=3 requests.a.b/gpu=2 requests.cpu=200m
            Terminating: pods=1 services=0
            NotTerminating: pods=2 services=0
            BestEffort: pods=1 services=0
            NotBestEffort: pods=2 services=0
            In: pods=1
            NotIn: pods=2
            Exists: pods=1
            DoesNotExist: pods=2
            configmaps=0 count/deployments.apps=1 services=1 services.nodeports=2
        "#]]
        .assert_eq(&table);
        account.subtract(&ended);
        assert_eq!(used(&account, json!({ "hard": { "count/pods": "9" } })), "count/pods=3\n");
    }

    /// Upstream's "pod deletion timestamp exceeded" and "not exceeded" of TestPodEvaluatorUsage.
    #[test]
    fn a_pod_that_leaves_counts_until_its_grace_is_over() {
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        let leaving = |name: &str, deleted: i64, phase: &str| {
            let mut pod = pod(web(json!({ "activeDeadlineSeconds": 900 })), phase);
            let meta = pod.meta_mut();
            meta.name = Some(name.into());
            meta.deletion_timestamp = Some(Time(at(deleted)));
            meta.deletion_grace_period_seconds = Some(30);
            pod
        };
        let mut account = Account::default();
        let bodies = [
            leaving("a", 100, "Running"),
            leaving("b", 100, "Running"),
            leaving("c", 110, "Running"),
            leaving("d", 100, "Failed"),
        ];
        bodies.iter().for_each(|body| account.add(body));
        let hard =
            json!({ "hard": { "count/pods": "9", "pods": "9", "requests.cpu": "9" }, "scopes": ["Terminating"] });
        let table: String = [100, 129, 130, 139, 140]
            .map(|second| {
                let next = account.next_less(at(second)).map(Timestamp::as_second);
                format!("{second}: next {next:?} {}", used_at(&account, hard.clone(), at(second)))
            })
            .concat();
        expect![[r#"
            100: next Some(130) count/pods=4 pods=3 requests.cpu=300m
            129: next Some(130) count/pods=4 pods=3 requests.cpu=300m
            130: next Some(140) count/pods=4 pods=1 requests.cpu=100m
            139: next Some(140) count/pods=4 pods=1 requests.cpu=100m
            140: next None count/pods=4 pods=0 requests.cpu=0
        "#]]
        .assert_eq(&table);
        assert_eq!(charge(&bodies[0]).at(at(130)), charge(&bodies[3]).at(at(0)));
        bodies.iter().for_each(|body| account.subtract(body));
        assert_eq!(account, Account::default());
    }

    #[test]
    fn all_is_given_back() {
        let mut account = Account::default();
        let bodies = [pod(web(json!({})), "Running"), pod(json!({ "containers": [{ "name": "c" }] }), "Running")];
        bodies.iter().for_each(|body| account.add(body));
        bodies.iter().for_each(|body| account.subtract(body));
        assert_eq!(account, Account::default());
    }

    proptest! {
        /// A write: which of six pods, and its phase, deadline, cpu and how it leaves; or its removal. Number 6 is the quota.
        #[test]
        fn the_account_says_what_a_walk_says(
            steps in prop::collection::vec((0..7usize, prop::option::weighted(0.8, (0..3usize, any::<bool>(), 0..3i64, 0..3i64))), 0..50),
        ) {
            let mut world = Snapshot::default();
            for (revision, (number, what)) in (1u64..).zip(steps as Vec<(usize, Option<(usize, bool, i64, i64)>)>) {
                let kind = if number == 6 { Kind::ResourceQuota } else { Kind::Pod };
                let key = Key::new(kind, "ns", format!("o{number}"));
                match what {
                    None => drop(world.remove(&key, revision)),
                    Some((phase, limited, cpu, leaving)) => {
                        let mut body = if number == 6 {
                            Kind::ResourceQuota.decode(json!({ "metadata": {}, "spec": { "hard": { "pods": "1" } } })).unwrap()
                        } else {
                            let requests = json!({ "requests": { "cpu": cpu.to_string() } });
                            let mut spec = json!({ "containers": [{ "name": "c", "resources": requests }] });
                            if limited {
                                spec["activeDeadlineSeconds"] = 1.into();
                            }
                            pod(spec, ["Pending", "Running", "Failed"][phase])
                        };
                        let meta = body.meta_mut();
                        (meta.namespace, meta.name) = (Some("ns".into()), Some(key.name.clone()));
                        if leaving > 0 {
                            meta.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
                            meta.deletion_grace_period_seconds = Some(leaving);
                        }
                        world.put(Object::written(body, revision));
                    }
                }
                let mut walked = Account::default();
                let all = world.objects(Kind::Pod, None).chain(world.objects(Kind::ResourceQuota, None));
                all.for_each(|object| walked.add(&object.body));
                let bounded = world.count(Kind::ResourceQuota) > 0;
                prop_assert_eq!(world.account("ns"), bounded.then_some(&walked));
            }
        }
    }

    #[test]
    fn what_has_to_be_said() {
        let spec: PodSpec = serde_json::from_value(json!({
            "containers": [{ "name": "b" }, { "name": "a", "resources": { "requests": { "cpu": "1" }, "limits": { "memory": "1Gi" } } }],
        })).unwrap();
        let quota: ResourceQuotaSpec = serde_json::from_value(
            json!({ "hard": { "cpu": "1", "limits.memory": "1Gi", "pods": "1", "limits.cpu": "2" } }),
        )
        .unwrap();
        assert_eq!(
            format!("{:?}", unsaid(&quota, &spec)),
            r#"{"cpu": ["b"], "limits.cpu": ["a", "b"], "limits.memory": ["b"]}"#
        );
        // Upstream's "pod-level resource set, container-level required resources missing".
        let whole = serde_json::from_value(json!({ "requests": { "cpu": "1m" } })).unwrap();
        assert_eq!(unsaid(&quota, &PodSpec { resources: Some(whole), ..spec }), BTreeMap::new());
    }
}
