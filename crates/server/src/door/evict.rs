//! Evicting a pod: a deletion that asks the pod's PodDisruptionBudget first, and takes from it.
//!
//! Mirrors Create, canIgnorePDB and checkAndDecrement of upstream's `pkg/registry/core/pod/storage/eviction.go`. Only says
//! what has to be written before the pod is deleted; the deletion itself is the turn's.

use api::selector::Selector;
use api::{Body, Cause, Key, Kind, Pod, Refusal, Snapshot};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::PodCondition;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// Evictions of one budget that may be under way at once (upstream: MaxDisruptedPodSize).
const MAX_UNDER_WAY: usize = 2_000;
/// Seconds after which to ask again while a budget was not yet looked at.
const RETRY_SECONDS: u32 = 10;

/// The statuses to be written before the pod at `key` is deleted: its own, and that of the budget it is taken from.
pub fn evict(world: &Snapshot, key: &Key, now: Timestamp) -> Result<Vec<Body>, Refusal> {
    let pod = world.get::<Pod>(&key.namespace, &key.name).ok_or_else(|| Refusal::not_found(Kind::Pod, &key.name))?;
    let mut statuses = Vec::new();
    if !is_beyond_budgets(pod) {
        let budgets = budgets_of(pod, world);
        match budgets.as_slice() {
            [] => {}
            [budget] if is_unhealthy_and_free(pod, budget) => {}
            [budget] => statuses.push(Body::PodDisruptionBudget(Box::new(take_from(budget, &key.name, now)?))),
            _ => {
                let why = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not \
                           support.";
                return Err(Refusal::new(500, "", why));
            }
        }
    }
    if pod.metadata.deletion_timestamp.is_none() {
        statuses.push(Body::Pod(Box::new(evicting(pod, now))));
    }
    Ok(statuses)
}

/// A pod that serves nobody, or ends anyhow, is no budget's matter.
fn is_beyond_budgets(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed" | "Pending")) || pod.metadata.deletion_timestamp.is_some()
}

fn budgets_of<'a>(pod: &Pod, world: &'a Snapshot) -> Vec<&'a PodDisruptionBudget> {
    let labels = pod.metadata.labels.as_ref();
    let protects = |budget: &&PodDisruptionBudget| {
        let selector = budget.spec.as_ref().and_then(|spec| spec.selector.as_ref());
        selector.is_some_and(|it| Selector::from_label_selector(Some(it)).is_ok_and(|it| it.matches(labels)))
    };
    world.list::<PodDisruptionBudget>(pod.metadata.namespace.as_deref()).filter(protects).collect()
}

/// A pod that is not ready may go without being counted: always, or while enough others are healthy.
fn is_unhealthy_and_free(pod: &Pod, budget: &PodDisruptionBudget) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let ready = conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True");
    let policy = budget.spec.as_ref().and_then(|spec| spec.unhealthy_pod_eviction_policy.as_deref());
    let status = budget.status.clone().unwrap_or_default();
    let (healthy, desired) = (status.current_healthy.unwrap_or(0), status.desired_healthy.unwrap_or(0));
    let enough = healthy >= desired && desired > 0;
    !ready && (policy == Some("AlwaysAllow") || enough)
}

/// The budget with one disruption less to give.
fn take_from(budget: &PodDisruptionBudget, pod: &str, now: Timestamp) -> Result<PodDisruptionBudget, Refusal> {
    let name = budget.metadata.name.as_deref().unwrap_or("");
    let mut taken = budget.clone();
    let status = taken.status.get_or_insert_default();
    if status.observed_generation.unwrap_or(0) < budget.metadata.generation.unwrap_or(0) {
        let why = format!("The disruption budget {name} is still being processed by the server.");
        return Err(violates(why, Some(RETRY_SECONDS)));
    }
    let allowed = status.disruptions_allowed.unwrap_or(0);
    if allowed < 0 {
        return Err(Refusal::forbidden(Kind::PodDisruptionBudget, name, "pdb disruptions allowed is negative"));
    }
    if status.disrupted_pods.as_ref().is_some_and(|pods| pods.len() > MAX_UNDER_WAY) {
        let why = "DisruptedPods map too big - too many evictions not confirmed by PDB controller";
        return Err(Refusal::forbidden(Kind::PodDisruptionBudget, name, why));
    }
    if allowed == 0 {
        return Err(violates(why_none(name, status), None));
    }
    status.disruptions_allowed = Some(allowed - 1);
    status.disrupted_pods.get_or_insert_default().insert(pod.to_owned(), Time(now));
    Ok(taken)
}

/// Why a budget allows no eviction. What it counts is not to be trusted while it cannot be worked out.
fn why_none(name: &str, status: &PodDisruptionBudgetStatus) -> String {
    let (healthy, desired) = (status.current_healthy.unwrap_or(0), status.desired_healthy.unwrap_or(0));
    let conditions = status.conditions.iter().flatten();
    let mut told =
        conditions.filter(|it| it.type_ == "DisruptionAllowed" && it.status == "False" && !it.message.is_empty());
    let no = format!("The disruption budget {name} does not allow evicting pods currently");
    match told.next() {
        Some(told) if told.reason == "SyncFailed" => format!("{no} because it failed sync: {}", told.message),
        _ if healthy <= desired => {
            format!("The disruption budget {name} needs {desired} healthy pods and has {healthy} currently")
        }
        Some(told) => format!("{no} ({}): {}", told.reason, told.message),
        None => no,
    }
}

fn violates(why: String, retry_after_seconds: Option<u32>) -> Refusal {
    let message = "Cannot evict pod as it would violate the pod's disruption budget.";
    let mut refusal = Refusal::new(429, "TooManyRequests", message);
    refusal.retry_after_seconds = retry_after_seconds;
    refusal.causes = vec![Cause { reason: "DisruptionBudget".into(), message: why, field: String::new() }];
    refusal
}

fn evicting(pod: &Pod, now: Timestamp) -> Pod {
    let mut pod = pod.clone();
    let observed_generation = pod.metadata.generation;
    let conditions = pod.status.get_or_insert_default().conditions.get_or_insert_default();
    conditions.retain(|condition| condition.type_ != "DisruptionTarget");
    conditions.push(PodCondition {
        type_: "DisruptionTarget".into(),
        status: "True".into(),
        reason: Some("EvictionByEvictionAPI".into()),
        message: Some("Eviction API: evicting".into()),
        last_transition_time: Some(Time(now)),
        observed_generation,
        ..Default::default()
    });
    pod
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use api::{Object, Typed};
    use expect_test::expect;
    use serde_json::{Value, json};

    use super::*;

    fn pod(phase: &str, ready: &str) -> Value {
        json!({ "metadata": { "name": "web-1", "namespace": "d", "labels": { "app": "web" }, "generation": 3 },
            "spec": { "containers": [{ "name": "c", "image": "web:v1" }] },
            "status": { "phase": phase, "conditions": [{ "type": "Ready", "status": ready }] } })
    }

    fn budget(name: &str, spec: &Value, status: &Value) -> Value {
        let mut spec = spec.clone();
        spec["selector"] = json!({ "matchLabels": { "app": "web" } });
        json!({ "metadata": { "name": name, "namespace": "d", "generation": 2 }, "spec": spec, "status": status })
    }

    /// What is written before the pod is deleted, or why it stays.
    fn told(pod: &Value, budgets: &[Value]) -> String {
        let mut world = Snapshot::default();
        let pods = [(Kind::Pod, pod.clone())].into_iter();
        for (kind, value) in pods.chain(budgets.iter().map(|value| (Kind::PodDisruptionBudget, value.clone()))) {
            world.put(Object::written(kind.decode(value).unwrap(), world.revision() + 1));
        }
        let now = Timestamp::from_second(100).unwrap();
        match evict(&world, &Key::new(Kind::Pod, "d", "web-1"), now) {
            Err(refusal) => {
                let cause = refusal.causes.first().map(|cause| format!(" ({})", cause.message)).unwrap_or_default();
                format!("{} {}{cause} retry {:?}", refusal.code, refusal.message, refusal.retry_after_seconds)
            }
            Ok(statuses) => statuses.iter().map(written).collect::<Vec<_>>().join("; "),
        }
    }

    fn written(status: &Body) -> String {
        if let Some(budget) = PodDisruptionBudget::of(status) {
            let status = budget.status.clone().unwrap_or_default();
            let pods: Vec<String> = status.disrupted_pods.into_iter().flatten().map(|(pod, _)| pod).collect();
            return format!("budget allows {} more, disrupted {}", status.disruptions_allowed.unwrap(), pods.join(" "));
        }
        let conditions = Pod::of(status).unwrap().status.clone().unwrap().conditions.unwrap();
        let last = conditions.last().unwrap();
        format!("pod {} {} of generation {:?}", last.type_, last.reason.clone().unwrap(), last.observed_generation)
    }

    #[test]
    fn whether_a_pod_may_go() {
        let (running, starting) = (pod("Running", "True"), pod("Running", "False"));
        let status = |allowed: i32, healthy: i32| json!({ "observedGeneration": 2, "disruptionsAllowed": allowed, "currentHealthy": healthy, "desiredHealthy": 2, "expectedPods": 3 });
        let plain = json!({ "minAvailable": 2 });
        let always = json!({ "minAvailable": 2, "unhealthyPodEvictionPolicy": "AlwaysAllow" });
        let mut outdated = status(1, 3);
        outdated["observedGeneration"] = json!(1);
        let mut many = status(1, 3);
        let under_way: serde_json::Map<String, Value> =
            (0..=MAX_UNDER_WAY).map(|number| (format!("p{number}"), json!("2026-01-01T00:00:00Z"))).collect();
        many["disruptedPods"] = Value::Object(under_way);
        let told_why = |reason: &str, message: &str, healthy: i32| {
            let mut status = status(0, healthy);
            status["conditions"] = json!([{ "type": "DisruptionAllowed", "status": "False", "reason": reason,
                "message": message, "lastTransitionTime": "2026-01-01T00:00:00Z" }]);
            [budget("b", &plain, &status)]
        };
        let mut leaving = running.clone();
        leaving["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        let mut other = running.clone();
        other["metadata"]["labels"]["app"] = json!("db");
        let none_left = [budget("b", &plain, &status(0, 2))];
        let cases = [
            ("no budget", told(&running, &[])),
            ("a budget of others", told(&other, &none_left)),
            ("one may go", told(&running, &[budget("b", &plain, &status(1, 3))])),
            ("none may go", told(&running, &none_left)),
            ("it cannot be worked out", told(&running, &told_why("SyncFailed", "found no controllers", 3))),
            ("enough, and yet none", told(&running, &told_why("Odd", "no reason", 3))),
            ("enough, and nobody knows why", told(&running, &told_why("", "", 3))),
            ("fewer than none", told(&running, &[budget("b", &plain, &status(-1, 1))])),
            ("not looked at yet", told(&running, &[budget("b", &plain, &outdated)])),
            ("too many are under way", told(&running, &[budget("b", &plain, &many)])),
            ("two budgets", told(&running, &[none_left[0].clone(), budget("c", &plain, &status(1, 3))])),
            ("not ready, enough others", told(&starting, &none_left)),
            ("not ready, too few others", told(&starting, &[budget("b", &plain, &status(0, 1))])),
            ("not ready, always allowed", told(&starting, &[budget("b", &always, &status(0, 1))])),
            ("not started yet", told(&pod("Pending", "False"), &none_left)),
            ("ended", told(&pod("Failed", "False"), &none_left)),
            ("leaving already", told(&leaving, &none_left)),
        ];
        let mut table = String::new();
        for (name, told) in cases {
            writeln!(table, "{name}: {told}").unwrap();
        }
        expect![[r#"
            no budget: pod DisruptionTarget EvictionByEvictionAPI of generation Some(3)
            a budget of others: pod DisruptionTarget EvictionByEvictionAPI of generation Some(3)
            one may go: budget allows 0 more, disrupted web-1; pod DisruptionTarget EvictionByEvictionAPI of generation Some(3)
            none may go: 429 Cannot evict pod as it would violate the pod's disruption budget. (The disruption budget b needs 2 healthy pods and has 2 currently) retry None
            it cannot be worked out: 429 Cannot evict pod as it would violate the pod's disruption budget. (The disruption budget b does not allow evicting pods currently because it failed sync: found no controllers) retry None
            enough, and yet none: 429 Cannot evict pod as it would violate the pod's disruption budget. (The disruption budget b does not allow evicting pods currently (Odd): no reason) retry None
            enough, and nobody knows why: 429 Cannot evict pod as it would violate the pod's disruption budget. (The disruption budget b does not allow evicting pods currently) retry None
            fewer than none: 403 poddisruptionbudgets.policy "b" is forbidden: pdb disruptions allowed is negative retry None
            not looked at yet: 429 Cannot evict pod as it would violate the pod's disruption budget. (The disruption budget b is still being processed by the server.) retry Some(10)
            too many are under way: 403 poddisruptionbudgets.policy "b" is forbidden: DisruptedPods map too big - too many evictions not confirmed by PDB controller retry None
            two budgets: 500 This pod has more than one PodDisruptionBudget, which the eviction subresource does not support. retry None
            not ready, enough others: pod DisruptionTarget EvictionByEvictionAPI of generation Some(3)
            not ready, too few others: 429 Cannot evict pod as it would violate the pod's disruption budget. (The disruption budget b needs 2 healthy pods and has 1 currently) retry None
            not ready, always allowed: pod DisruptionTarget EvictionByEvictionAPI of generation Some(3)
            not started yet: pod DisruptionTarget EvictionByEvictionAPI of generation Some(3)
            ended: pod DisruptionTarget EvictionByEvictionAPI of generation Some(3)
            leaving already: 
        "#]].assert_eq(&table);
    }
}
