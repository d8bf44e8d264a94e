//! What LimitRanges give to new pods, and what they refuse.
//!
//! Mirrors `plugin/pkg/admission/limitranger/admission.go`, in its words: defaults of containers first, then the bounds
//! of containers and pods, all faults at once; and the bounds of claims for volumes.

use std::collections::BTreeMap;

use api::pod_resources::{self, Amounts};
use api::quantity::Amount;
use api::{Kind, Pod, Refusal, Snapshot};
use k8s_openapi::api::core::v1::{Container, LimitRange, LimitRangeItem, PersistentVolumeClaim};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// Tells what was added.
const ANNOTATION: &str = "kubernetes.io/limit-ranger";

type Quantities = Option<BTreeMap<String, Quantity>>;

fn items(world: &Snapshot, namespace: &str) -> impl Iterator<Item = LimitRangeItem> {
    let ranges = world.list::<LimitRange>(Some(namespace)).filter_map(|range| range.spec.clone());
    ranges.flat_map(|spec| spec.limits)
}

/// Fills in what the containers do not say.
pub(super) fn fill_in(world: &Snapshot, pod: &mut Pod) {
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    for range in world.list::<LimitRange>(Some(&namespace)).filter_map(|range| range.spec.as_ref()) {
        let (mut requests, mut limits) = (BTreeMap::new(), BTreeMap::new());
        for item in range.limits.iter().filter(|item| item.type_ == "Container") {
            requests.extend(item.default_request.clone().unwrap_or_default());
            limits.extend(item.default.clone().unwrap_or_default());
        }
        let Some(spec) = pod.spec.as_mut() else { return };
        let mut told: Vec<String> = Vec::new();
        for container in &mut spec.containers {
            tell(&mut told, "container", fill(container, &requests, &limits), &container.name);
        }
        for container in spec.init_containers.iter_mut().flatten() {
            tell(&mut told, "init container", fill(container, &requests, &limits), &container.name);
        }
        if !told.is_empty() {
            let text = format!("LimitRanger plugin set: {}", told.join("; "));
            pod.metadata.annotations.get_or_insert_default().insert(ANNOTATION.into(), text);
        }
    }
}

/// Names of the requests and of the limits that were set.
fn fill(
    container: &mut Container,
    requests: &BTreeMap<String, Quantity>,
    limits: &BTreeMap<String, Quantity>,
) -> [Vec<String>; 2] {
    if requests.is_empty() && limits.is_empty() {
        return Default::default();
    }
    let resources = container.resources.get_or_insert_default();
    [(&mut resources.requests, requests), (&mut resources.limits, limits)].map(|(given, defaults)| {
        let missing = |name: &String| given.as_ref().is_none_or(|given| !given.contains_key(name));
        let added: BTreeMap<String, Quantity> =
            defaults.iter().filter(|(name, _)| missing(name)).map(|(name, it)| (name.clone(), it.clone())).collect();
        let names = added.keys().cloned().collect();
        if !added.is_empty() {
            given.get_or_insert_default().extend(added);
        }
        names
    })
}

fn tell(told: &mut Vec<String>, what: &str, [requests, limits]: [Vec<String>; 2], name: &str) {
    for (names, of) in [(requests, "request"), (limits, "limit")] {
        if !names.is_empty() {
            told.push(format!("{} {of} for {what} {name}", names.join(", ")));
        }
    }
}

/// Refuses a pod that is out of bounds.
pub(super) fn check(world: &Snapshot, pod: &Pod) -> Result<(), Refusal> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("");
    let Some(spec) = pod.spec.as_deref() else { return Ok(()) };
    let mut faults: Vec<String> = Vec::new();
    for item in items(world, namespace) {
        match item.type_.as_str() {
            "Container" => {
                for container in spec.containers.iter().chain(spec.init_containers.iter().flatten()) {
                    let resources = container.resources.clone().unwrap_or_default();
                    judge(&mut faults, &item, &amounts(&resources.requests), &amounts(&resources.limits));
                }
            }
            "Pod" => judge(&mut faults, &item, &pod_resources::requested(spec), &pod_resources::limited(spec)),
            // Claims have bounds of their own.
            _ => {}
        }
    }
    refuse(&faults, Kind::Pod, &pod.metadata)
}

/// Refuses a claim that is out of bounds (upstream: PersistentVolumeClaimLimitFunc).
pub(super) fn check_claim(world: &Snapshot, claim: &PersistentVolumeClaim) -> Result<(), Refusal> {
    let mut faults: Vec<String> = Vec::new();
    let requests = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref()).map(|it| amounts(&it.requests));
    let requests = requests.unwrap_or_default();
    let namespace = claim.metadata.namespace.as_deref().unwrap_or("");
    for item in items(world, namespace).filter(|item| item.type_ == "PersistentVolumeClaim") {
        let bounds = [("minimum", amounts(&item.min)), ("maximum", amounts(&item.max))];
        for (word, name, bound) in
            bounds.into_iter().flat_map(|(word, all)| all.into_iter().map(move |(name, it)| (word, name, it)))
        {
            let head = format!("{word} {name} usage per PersistentVolumeClaim is {bound}");
            match requests.get(&name) {
                None => faults.push(format!("{head}.  No request is specified")),
                Some(request) if (word == "minimum" && *request < bound) || (word == "maximum" && *request > bound) => {
                    faults.push(format!("{head}, but request is {request}"));
                }
                Some(_) => {}
            }
        }
    }
    refuse(&faults, Kind::PersistentVolumeClaim, &claim.metadata)
}

fn refuse(faults: &[String], kind: Kind, meta: &ObjectMeta) -> Result<(), Refusal> {
    let why = match faults {
        [] => return Ok(()),
        [one] => one.clone(),
        all => format!("[{}]", all.join(", ")),
    };
    Err(Refusal::forbidden(kind, meta.name.as_deref().unwrap_or(""), why))
}

fn amounts(list: &Quantities) -> Amounts {
    list.iter().flatten().map(|(name, quantity)| (name.clone(), Amount::of(quantity))).collect()
}

fn judge(faults: &mut Vec<String>, item: &LimitRangeItem, requests: &Amounts, limits: &Amounts) {
    let of = &item.type_;
    for (name, least) in amounts(&item.min) {
        let head = format!("minimum {name} usage per {of} is {least}");
        match (requests.get(&name), limits.get(&name)) {
            (None, _) => faults.push(format!("{head}.  No request is specified")),
            (Some(request), _) if *request < least => faults.push(format!("{head}, but request is {request}")),
            (_, Some(limit)) if *limit < least => faults.push(format!("{head}, but limit is {limit}")),
            _ => {}
        }
    }
    for (name, most) in amounts(&item.max) {
        let head = format!("maximum {name} usage per {of} is {most}");
        match (requests.get(&name), limits.get(&name)) {
            (_, None) => faults.push(format!("{head}.  No limit is specified")),
            (_, Some(limit)) if *limit > most => faults.push(format!("{head}, but limit is {limit}")),
            (Some(request), _) if *request > most => faults.push(format!("{head}, but request is {request}")),
            _ => {}
        }
    }
    for (name, most) in amounts(&item.max_limit_request_ratio) {
        let head = format!("{name} max limit to request ratio per {of} is {most}");
        let set = |amounts: &Amounts| amounts.get(&name).copied().filter(|amount| !amount.is_zero());
        match (set(requests), set(limits)) {
            (None, _) => faults.push(format!("{head}, but no request is specified or request is 0")),
            (_, None) => faults.push(format!("{head}, but no limit is specified or limit is 0")),
            (Some(request), Some(limit)) => {
                let ratio = limit.milli() as f64 / request.milli() as f64;
                if ratio * 1000.0 > most.milli() as f64 {
                    faults.push(format!("{head}, but provided ratio is {ratio:.6}"));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::Object;
    use expect_test::expect;
    use serde_json::{Value, json};

    fn world(limits: Value) -> Snapshot {
        let mut world = Snapshot::default();
        let range = json!({ "metadata": { "name": "l", "namespace": "ns" }, "spec": { "limits": limits } });
        let mut body = Kind::LimitRange.decode(range).unwrap();
        api::defaults::apply(&mut body);
        world.put(Object::written(body, 1));
        world
    }

    fn pod(containers: Value) -> Pod {
        let pod = json!({ "metadata": { "name": "p", "namespace": "ns" }, "spec": { "containers": containers } });
        serde_json::from_value(pod).unwrap()
    }

    #[test]
    fn what_is_filled_in() {
        let world = world(
            json!([{ "type": "Container", "default": { "cpu": "500m", "memory": "1Gi" }, "defaultRequest": { "cpu": "100m" } }]),
        );
        let mut pod = pod(
            json!([{ "name": "a" }, { "name": "b", "resources": { "limits": { "cpu": "2" }, "requests": { "cpu": "2", "memory": "1Mi" } } }]),
        );
        fill_in(&world, &mut pod);
        let spec = pod.spec.unwrap();
        let shown = spec.containers.iter().map(|it| serde_json::to_string(&it.resources).unwrap() + "\n");
        let shown = shown.collect::<String>() + &pod.metadata.annotations.unwrap()[ANNOTATION];
        expect![[r#"
            {"limits":{"cpu":"500m","memory":"1Gi"},"requests":{"cpu":"100m","memory":"1Gi"}}
            {"limits":{"cpu":"2","memory":"1Gi"},"requests":{"cpu":"2","memory":"1Mi"}}
            LimitRanger plugin set: cpu, memory request for container a; cpu, memory limit for container a; memory limit for container b"#]].assert_eq(&shown);
    }

    #[test]
    fn claims_have_bounds_too() {
        let world = world(
            json!([{ "type": "PersistentVolumeClaim", "min": { "storage": "1Gi" }, "max": { "storage": "5Gi" } }]),
        );
        let table = ["500Mi", "2Gi", "6Gi"].map(|size| {
            let claim = json!({ "metadata": { "name": "c", "namespace": "ns" }, "spec": { "resources": { "requests": { "storage": size } } } });
            let checked = check_claim(&world, &serde_json::from_value(claim).unwrap());
            checked.map_or_else(|refusal| refusal.message, |()| "fine".into()) + "\n"
        });
        expect![[r#"
            persistentvolumeclaims "c" is forbidden: minimum storage usage per PersistentVolumeClaim is 1Gi, but request is 500Mi
            fine
            persistentvolumeclaims "c" is forbidden: maximum storage usage per PersistentVolumeClaim is 5Gi, but request is 6Gi
        "#]].assert_eq(&table.concat());
    }

    #[test]
    fn what_is_refused() {
        let cases = [
            (
                json!([{ "type": "Container", "min": { "memory": "100Mi" }, "max": { "cpu": "1" } }]),
                json!({ "requests": { "memory": "50Mi" }, "limits": { "cpu": "2" } }),
            ),
            (json!([{ "type": "Container", "min": { "memory": "100Mi" } }]), json!({})),
            (json!([{ "type": "Pod", "max": { "memory": "1Gi" } }]), json!({})),
            (json!([{ "type": "Pod", "max": { "memory": "1Gi" } }]), json!({ "limits": { "memory": "2Gi" } })),
            (
                json!([{ "type": "Container", "maxLimitRequestRatio": { "cpu": "1500m" } }]),
                json!({ "requests": { "cpu": "100m" }, "limits": { "cpu": "200m" } }),
            ),
            (
                json!([{ "type": "Container", "maxLimitRequestRatio": { "cpu": "2" } }]),
                json!({ "requests": { "cpu": "100m" }, "limits": { "cpu": "200m" } }),
            ),
            (
                json!([{ "type": "Container", "maxLimitRequestRatio": { "cpu": "2" } }]),
                json!({ "limits": { "cpu": "200m" } }),
            ),
        ];
        let table = cases.map(|(limits, resources)| {
            let pod = pod(json!([{ "name": "c", "resources": resources }]));
            check(&world(limits), &pod).map_or_else(|refusal| refusal.message, |()| "fine".into()) + "\n"
        });
        expect![[r#"
            pods "p" is forbidden: [minimum memory usage per Container is 100Mi, but request is 50Mi, maximum cpu usage per Container is 1, but limit is 2]
            pods "p" is forbidden: minimum memory usage per Container is 100Mi.  No request is specified
            pods "p" is forbidden: maximum memory usage per Pod is 1Gi.  No limit is specified
            pods "p" is forbidden: maximum memory usage per Pod is 1Gi, but limit is 2Gi
            pods "p" is forbidden: cpu max limit to request ratio per Container is 1500m, but provided ratio is 2.000000
            fine
            pods "p" is forbidden: cpu max limit to request ratio per Container is 2, but no request is specified or request is 0
        "#]].assert_eq(&table.concat());
    }
}
