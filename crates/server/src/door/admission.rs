//! What the server itself adds to, or refuses in, a request: the built-in admission of this API.
//!
//! Upstream spreads this over plugins (`plugin/pkg/admission/…`).

use std::cmp::Reverse;

use api::validate::networking::CLASS_ANNOTATION;
use api::{Body, Kind, Pod, Refusal, Snapshot};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Taint, Toleration};
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{Call, limit_range, service, service_account, storage};

/// The annotation of the IngressClass that Ingresses without one get.
pub const DEFAULT_CLASS: &str = "ingressclass.kubernetes.io/is-default-class";
/// Seconds a pod stays on a node that is not ready or unreachable (upstream: `defaulttolerationseconds`).
const NOT_READY_TOLERATION_SECONDS: i64 = 300;

pub(super) fn on_create(call: &mut Call, draft: &mut Body) -> Result<(), Refusal> {
    match draft {
        Body::Pod(pod) => {
            admit_pod(pod)?;
            service_account::admit(call, pod)?;
            limit_range::fill_in(call.world, pod);
            limit_range::check(call.world, pod)?;
        }
        Body::Service(given) => service::admit(call.world, given, None)?,
        Body::Node(node) => date_taints(node, None, call.now),
        Body::PersistentVolumeClaim(claim) => {
            storage::admit_claim(call.world, claim);
            limit_range::check_claim(call.world, claim)?;
        }
        Body::PersistentVolume(volume) => storage::admit_volume(&mut volume.metadata),
        Body::Ingress(ingress) => give_class(call.world, ingress),
        _ => {}
    }
    Ok(())
}

/// What is added to a changed object before it is judged whether anything of it changed.
pub(super) fn before_update(new: &mut Body) {
    if let Body::Pod(pod) = new {
        tolerate_for_a_while(pod);
    }
}

pub(super) fn on_update(call: &Call, current: &Body, new: &mut Body) -> Result<(), Refusal> {
    match (current, &mut *new) {
        (Body::Service(old), Body::Service(given)) => service::admit(call.world, given, Some(old))?,
        (Body::Node(old), Body::Node(node)) => date_taints(node, Some(old), call.now),
        (Body::PersistentVolumeClaim(old), Body::PersistentVolumeClaim(claim)) => {
            storage::check_growth(call.world, old, claim)?;
            if claim.spec != old.spec {
                limit_range::check_claim(call.world, claim)?;
            }
        }
        _ => {}
    }
    let may_take_more = match (current, &*new) {
        (Body::Pod(old), Body::Pod(pod)) => is_terminating(old) != is_terminating(pod),
        _ => matches!(new, Body::Service(_) | Body::PersistentVolumeClaim(_)),
    };
    if may_take_more {
        call.minds.within_quota(call.world, Some(current), new, call.now)?;
    }
    Ok(())
}

fn is_terminating(pod: &Pod) -> bool {
    pod.spec.as_deref().is_some_and(api::quota::is_terminating)
}

/// Notes when a taint was added that evicts: from then on a pod's toleration seconds count. Upstream's taint manager
/// keeps that in memory; here it outlives a restart.
fn date_taints(node: &mut Node, old: Option<&Node>, now: Timestamp) {
    let known = old.and_then(|old| old.spec.as_ref()?.taints.as_deref()).unwrap_or_default();
    let taints = node.spec.iter_mut().flat_map(|spec| spec.taints.iter_mut().flatten());
    for taint in taints.filter(|taint| taint.effect == "NoExecute" && taint.time_added.is_none()) {
        let same = |it: &&Taint| it.key == taint.key && it.effect == taint.effect && it.value == taint.value;
        let since = known.iter().find(same).and_then(|known| known.time_added.clone());
        taint.time_added = Some(since.unwrap_or(Time(now)));
    }
}

/// An Ingress that names no class is of the default one, the newest if there are several (upstream: `defaultingressclass`).
fn give_class(world: &Snapshot, ingress: &mut Ingress) {
    let annotated = ingress.metadata.annotations.as_ref().is_some_and(|all| all.contains_key(CLASS_ANNOTATION));
    let spec = ingress.spec.get_or_insert_default();
    if annotated || spec.ingress_class_name.is_some() {
        return;
    }
    let is_default = |class: &&IngressClass| {
        let annotations = class.metadata.annotations.as_ref();
        annotations.and_then(|all| all.get(DEFAULT_CLASS)).is_some_and(|value| value == "true")
    };
    let order = |class: &&IngressClass| {
        let created = class.metadata.creation_timestamp.as_ref().map(|time| time.0);
        (created, Reverse(class.metadata.name.clone()))
    };
    let class = world.list::<IngressClass>(None).filter(is_default).max_by_key(order);
    spec.ingress_class_name = class.and_then(|class| class.metadata.name.clone());
}

fn admit_pod(pod: &mut Pod) -> Result<(), Refusal> {
    refuse_overhead(pod)?;
    let priority = priority(pod)?;
    let spec = pod.spec.get_or_insert_default();
    spec.priority = Some(priority);
    spec.preemption_policy.get_or_insert_with(|| "PreemptLowerPriority".into());
    tolerate_for_a_while(pod);
    Ok(())
}

/// What a pod costs beside its containers is said by its RuntimeClass, and there are none (upstream:
/// `plugin/pkg/admission/runtimeclass`, `validateOverhead`). That a class is named validation refuses.
fn refuse_overhead(pod: &Pod) -> Result<(), Refusal> {
    if pod.spec.as_deref().and_then(|spec| spec.overhead.as_ref()).is_none_or(|overhead| overhead.is_empty()) {
        return Ok(());
    }
    let why = "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead";
    Err(Refusal::forbidden(Kind::Pod, pod.metadata.name.as_deref().unwrap_or_default(), why))
}

/// The priority by the class that is named (upstream: `plugin/pkg/admission/priority`). PriorityClasses are not served: there are
/// the two that every cluster has.
fn priority(pod: &Pod) -> Result<i32, Refusal> {
    let spec = pod.spec.as_deref();
    let class = spec.and_then(|spec| spec.priority_class_name.as_deref()).unwrap_or_default();
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let computed = match class {
        "" => 0,
        "system-cluster-critical" => 2_000_000_000,
        "system-node-critical" => 2_000_001_000,
        class => {
            let why = format!("no PriorityClass with name {class} was found");
            return Err(Refusal::forbidden(Kind::Pod, name, why));
        }
    };
    match spec.and_then(|spec| spec.priority) {
        Some(given) if given != computed => {
            let why = format!(
                "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller \
                 computed {computed} from the given PriorityClass name"
            );
            Err(Refusal::forbidden(Kind::Pod, name, why))
        }
        _ => Ok(computed),
    }
}

/// The tolerations that every pod has, at its creation and ever after (upstream: `plugin/pkg/admission/defaulttolerationseconds`).
/// A spec that has them stays shared.
fn tolerate_for_a_while(pod: &mut Pod) {
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        if pod.spec.iter().flat_map(|spec| spec.tolerations.iter().flatten()).any(|it| tolerates(it, key)) {
            continue;
        }
        pod.spec.get_or_insert_default().tolerations.get_or_insert_default().push(Toleration {
            key: Some(key.into()),
            operator: Some("Exists".into()),
            effect: Some("NoExecute".into()),
            toleration_seconds: Some(NOT_READY_TOLERATION_SECONDS),
            ..Default::default()
        });
    }
}

fn tolerates(toleration: &Toleration, key: &str) -> bool {
    let effect = toleration.effect.as_deref().unwrap_or("");
    toleration.key.as_deref().is_none_or(|own| own.is_empty() || own == key)
        && (effect.is_empty() || effect == "NoExecute")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn overhead_needs_a_class_that_says_it() {
        let told = |overhead| {
            let pod = json!({ "metadata": { "name": "p" }, "spec": { "containers": [], "overhead": overhead } });
            refuse_overhead(&serde_json::from_value(pod).unwrap()).map_err(|refusal| (refusal.code, refusal.message))
        };
        let why = "pods \"p\" is forbidden: pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead";
        assert_eq!(told(json!({ "cpu": "1" })), Err((403, why.to_owned())));
        assert_eq!((told(json!({})), told(json!(null))), (Ok(()), Ok(())));
    }
}
