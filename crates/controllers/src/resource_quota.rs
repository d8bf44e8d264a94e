//! Shows in the status of a ResourceQuota what of it is used.
//!
//! Mirrors upstream's `pkg/controller/resourcequota/resource_quota_controller.go` (syncResourceQuota), but the status is
//! for people only: the door reads what is used off the same account and does not wait for it. Computes nothing itself. A
//! pod that leaves and does not go takes less once its grace is over: then it is looked at again.

use api::quota::Account;
use api::{Context, Key, Plan, Snapshot, Typed, Write};
use k8s_openapi::api::core::v1::{ResourceQuota, ResourceQuotaStatus};

/// Decides about one quota.
pub fn reconcile(key: &Key, world: &Snapshot, context: &Context) -> Plan {
    let Some(quota) = world.get::<ResourceQuota>(&key.namespace, &key.name) else { return Plan::nothing() };
    let nothing = Account::default();
    let account = world.account(&key.namespace).unwrap_or(&nothing);
    let used = account.used(quota, context.now);
    let status = ResourceQuotaStatus {
        hard: quota.spec.as_ref().and_then(|spec| spec.hard.clone()),
        used: Some(used.into_iter().map(|(name, amount)| (name, amount.quantity())).collect()),
    };
    let is_told = quota.status.as_ref() == Some(&status);
    let told = (!is_told).then(|| ResourceQuota { status: Some(status), ..quota.clone() });
    let writes = told.into_iter().map(|quota| Write::Status(quota.into_body())).collect();
    Plan { writes, wake_at: account.next_less(context.now), ..Plan::nothing() }
}

#[cfg(test)]
mod tests {
    use api::Kind;
    use expect_test::expect;
    use serde_json::json;

    use crate::testing::World;

    /// A node that is lost stops no pod: what it asked for is free once its grace is over, and the status says so.
    #[test]
    fn a_pod_that_never_goes_gives_its_room_back() {
        let mut world = World::new();
        let container = json!({ "name": "c", "resources": { "requests": { "cpu": "1" } } });
        for (name, deleted) in [("web-1", true), ("web-2", false)] {
            let mut pod = json!({
                "metadata": { "namespace": "default", "name": name, "uid": name },
                "spec": { "nodeName": "n1", "containers": [container] }, "status": { "phase": "Running" },
            });
            if deleted {
                pod["metadata"]["deletionTimestamp"] = "2026-01-01T12:00:30Z".into();
                pod["metadata"]["deletionGracePeriodSeconds"] = 30.into();
            }
            world.store(Kind::Pod, pod);
        }
        let hard = json!({ "count/pods": "9", "pods": "2", "requests.cpu": "2" });
        world.store(
            Kind::ResourceQuota,
            json!({ "metadata": { "namespace": "default", "name": "limit" }, "spec": { "hard": hard } }),
        );
        world.wake_all();
        let mut told = String::new();
        for seconds in [0, 59, 1, 3600] {
            world.advance(seconds);
            let writes = world.settle();
            let quota = world.snapshot.object(Kind::ResourceQuota, "default", "limit").unwrap().body.to_value();
            told += &format!("+{seconds}s, {writes} writes: {}\n", quota["status"]["used"]);
        }
        expect![[r#"
            +0s, 1 writes: {"count/pods":"2","pods":"2","requests.cpu":"2"}
            +59s, 0 writes: {"count/pods":"2","pods":"2","requests.cpu":"2"}
            +1s, 1 writes: {"count/pods":"2","pods":"1","requests.cpu":"1"}
            +3600s, 0 writes: {"count/pods":"2","pods":"1","requests.cpu":"1"}
        "#]]
        .assert_eq(&told);
    }
}
