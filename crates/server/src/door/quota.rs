//! Keeps a namespace within its ResourceQuotas.
//!
//! What is used is read off the snapshot's account, at the very revision that is written on: nothing can slip by
//! between looking and writing. Mirrors `apiserver/pkg/admission/plugin/resourcequota/controller.go` (checkRequest),
//! in its words.

use std::collections::BTreeMap;

use api::pod_resources::Amounts;
use api::quantity::Amount;
use api::quota;
use api::{Body, Refusal, Snapshot};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ResourceQuota;

/// Refuses what would exceed a quota. `before`: the object that is changed.
pub fn check(world: &Snapshot, before: Option<&Body>, after: &Body, now: Timestamp) -> Result<(), Refusal> {
    let namespace = after.meta().namespace.as_deref().unwrap_or("");
    let Some(account) = world.account(namespace) else { return Ok(()) };
    let (new, old) = (quota::charge(after), before.map(quota::charge));
    let (class, was) = (new.class.clone(), old.as_ref().map(|old| old.class.clone()));
    let (takes, had) = (new.at(now), old.map(|old| old.at(now)).unwrap_or_default());
    let nothing = Amounts::new();
    for quota in world.list::<ResourceQuota>(Some(namespace)) {
        let Some(spec) = quota.spec.as_ref().filter(|spec| quota::applies(spec, class.as_ref())) else { continue };
        let name = quota.metadata.name.as_deref().unwrap_or("");
        if let Body::Pod(pod) = after {
            let unsaid = quota::unsaid(spec, pod.spec.as_deref().unwrap_or(&Default::default()));
            if !unsaid.is_empty() {
                return Err(refusal(after, format!("failed quota: {name}: must specify {}", listed(&unsaid))));
            }
        }
        // A quota that did not count it, because it was of another scope, is asked for all.
        let counted = was.as_ref().is_some_and(|was| quota::applies(spec, was.as_ref()));
        let asked = more(&takes, if counted { &had } else { &nothing });
        let used = account.used(quota, now);
        let hard: Amounts =
            spec.hard.iter().flatten().map(|(name, quantity)| (name.clone(), Amount::of(quantity))).collect();
        let exceeded = |name: &&String| {
            let (Some(more), Some(hard)) = (asked.get(*name), hard.get(*name)) else { return false };
            used.get(*name).copied().unwrap_or_default() + *more > *hard
        };
        let names: Vec<&String> = hard.keys().filter(exceeded).collect();
        if !names.is_empty() {
            let shown = |amounts: &Amounts| {
                let of = |name: &&String| format!("{name}={}", amounts.get(*name).copied().unwrap_or_default());
                names.iter().map(of).collect::<Vec<String>>().join(",")
            };
            let (asked, used, hard) = (shown(&asked), shown(&used), shown(&hard));
            return Err(refusal(
                after,
                format!("exceeded quota: {name}, requested: {asked}, used: {used}, limited: {hard}"),
            ));
        }
    }
    Ok(())
}

/// What is taken in addition; what becomes less is always fine.
fn more(new: &Amounts, old: &Amounts) -> Amounts {
    let grown = new.iter().map(|(name, amount)| {
        let had = old.get(name).copied().unwrap_or_default();
        (name.clone(), if had.is_zero() { *amount } else { *amount - had })
    });
    grown.filter(|(_, amount)| *amount > Amount::ZERO).collect()
}

fn listed(unsaid: &BTreeMap<String, Vec<String>>) -> String {
    let one = |(name, containers): (&String, &Vec<String>)| format!("{name} for: {}", containers.join(","));
    unsaid.iter().map(one).collect::<Vec<String>>().join("; ")
}

fn refusal(object: &Body, why: String) -> Refusal {
    Refusal::forbidden(object.kind(), object.meta().name.as_deref().unwrap_or(""), why)
}

#[cfg(test)]
mod tests {
    use api::{Kind, Object};
    use expect_test::expect;
    use serde_json::{Value, json};

    use super::*;

    fn pod(name: &str, deadline: Option<i64>, cpu: Option<&str>) -> Body {
        let requests = cpu.map(|cpu| json!({ "cpu": cpu }));
        let container = json!({ "name": "c", "resources": { "requests": requests } });
        let spec = json!({ "activeDeadlineSeconds": deadline, "containers": [container] });
        Kind::Pod.decode(json!({ "metadata": { "namespace": "n", "name": name }, "spec": spec })).unwrap()
    }

    fn world(quotas: Value, pods: &[Body]) -> Snapshot {
        let mut world = Snapshot::default();
        for (name, spec) in quotas.as_object().unwrap() {
            let quota = json!({ "metadata": { "namespace": "n", "name": name }, "spec": spec });
            world.put(Object::written(Kind::ResourceQuota.decode(quota).unwrap(), world.revision() + 1));
        }
        for pod in pods {
            world.put(Object::written(pod.clone(), world.revision() + 1));
        }
        world
    }

    fn answer(world: &Snapshot, before: Option<&Body>, after: &Body) -> String {
        check(world, before, after, Timestamp::UNIX_EPOCH).map_or_else(|refusal| refusal.message, |()| "fine".into())
            + "\n"
    }

    /// A pod that gets a deadline leaves one scope for another (upstream: `podEvaluator.Handles`, checkRequest).
    #[test]
    fn a_pod_that_gets_a_deadline_is_asked_for_in_the_scope_it_comes_to() {
        let quotas = |most: &str| {
            json!({
                "all": { "hard": { "pods": "2", "cpu": "2" } },
                "long": { "hard": { "pods": "0" }, "scopes": ["NotTerminating"] },
                "short": { "hard": { "pods": most, "cpu": "1" }, "scopes": ["Terminating"] },
            })
        };
        let (before, after) = (pod("a", None, Some("1")), pod("a", Some(9), Some("1")));
        let short = pod("b", Some(9), Some("1"));
        let silent = (pod("c", None, None), pod("c", Some(9), None));
        let mut table = String::new();
        table += &answer(&world(quotas("1"), std::slice::from_ref(&before)), Some(&before), &after);
        table += &answer(&world(quotas("1"), &[before.clone(), short.clone()]), Some(&before), &after);
        table += &answer(&world(quotas("2"), &[before.clone(), short.clone()]), Some(&before), &after);
        table += &answer(&world(quotas("1"), &[after.clone(), short]), Some(&after), &after);
        table += &answer(&world(quotas("1"), std::slice::from_ref(&silent.0)), Some(&silent.0), &silent.1);
        expect![[r#"
            fine
            pods "a" is forbidden: exceeded quota: short, requested: cpu=1,pods=1, used: cpu=1,pods=1, limited: cpu=1,pods=1
            pods "a" is forbidden: exceeded quota: short, requested: cpu=1, used: cpu=1, limited: cpu=1
            fine
            pods "c" is forbidden: failed quota: all: must specify cpu for: c
        "#]]
        .assert_eq(&table);
    }
}
