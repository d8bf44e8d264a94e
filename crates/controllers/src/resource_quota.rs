//! Shows in the status of a ResourceQuota what of it is used.
//!
//! Mirrors upstream's `pkg/controller/resourcequota/resource_quota_controller.go` (syncResourceQuota), but the status is
//! for people only: the door reads what is used off the same account and does not wait for it. Computes nothing itself.

use api::quota::Account;
use api::{Key, Plan, Snapshot, Typed, Write};
use k8s_openapi::api::core::v1::{ResourceQuota, ResourceQuotaStatus};

/// Decides about one quota.
pub fn reconcile(key: &Key, world: &Snapshot) -> Plan {
    let Some(quota) = world.get::<ResourceQuota>(&key.namespace, &key.name) else { return Plan::nothing() };
    let nothing = Account::default();
    let used = world.account(&key.namespace).unwrap_or(&nothing).used(quota);
    let status = ResourceQuotaStatus {
        hard: quota.spec.as_ref().and_then(|spec| spec.hard.clone()),
        used: Some(used.into_iter().map(|(name, amount)| (name, amount.quantity())).collect()),
    };
    if quota.status.as_ref() == Some(&status) {
        return Plan::nothing();
    }
    let next = ResourceQuota { status: Some(status), ..quota.clone() };
    Plan { writes: vec![Write::Status(next.into_body())], ..Plan::nothing() }
}
