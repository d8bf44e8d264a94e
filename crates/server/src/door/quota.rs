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
    let charge = quota::charge(after);
    let class = charge.class.clone();
    let had = before.map(|before| quota::charge(before).at(now)).unwrap_or_default();
    let asked = more(&charge.at(now), &had);
    for quota in world.list::<ResourceQuota>(Some(namespace)) {
        let Some(spec) = quota.spec.as_ref().filter(|spec| quota::applies(spec, class.as_ref())) else { continue };
        let name = quota.metadata.name.as_deref().unwrap_or("");
        if let (Body::Pod(pod), None) = (after, before) {
            let unsaid = quota::unsaid(spec, pod.spec.as_deref().unwrap_or(&Default::default()));
            if !unsaid.is_empty() {
                return Err(refusal(after, format!("failed quota: {name}: must specify {}", listed(&unsaid))));
            }
        }
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
