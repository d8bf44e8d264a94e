//! Defaults of Deployments, ReplicaSets, ReplicationControllers, DaemonSets and StatefulSets.
//!
//! Mirrors `pkg/apis/apps/v1/defaults.go`, and for ReplicationControllers `pkg/apis/core/v1/defaults.go`.

use k8s_openapi::api::apps::v1::{
    DaemonSet, Deployment, ReplicaSet, RollingUpdateDaemonSet, RollingUpdateDeployment,
    RollingUpdateStatefulSetStrategy, StatefulSet,
};
use k8s_openapi::api::core::v1::ReplicationController;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{core, fill, pod};

/// Old revisions kept for an undo.
const REVISION_HISTORY_LIMIT: i32 = 10;
/// Seconds without progress after which a rollout has failed.
const PROGRESS_DEADLINE_SECONDS: i32 = 600;

/// A Deployment.
pub fn deployment(deployment: &mut Deployment) {
    let spec = deployment.spec.get_or_insert_default();
    spec.replicas.get_or_insert(1);
    let strategy = spec.strategy.get_or_insert_default();
    fill(&mut strategy.type_, "RollingUpdate");
    if strategy.type_.as_deref() == Some("RollingUpdate") {
        let rolling = strategy.rolling_update.get_or_insert_with(RollingUpdateDeployment::default);
        rolling.max_unavailable.get_or_insert_with(|| IntOrString::String("25%".to_owned()));
        rolling.max_surge.get_or_insert_with(|| IntOrString::String("25%".to_owned()));
    }
    spec.revision_history_limit.get_or_insert(REVISION_HISTORY_LIMIT);
    spec.progress_deadline_seconds.get_or_insert(PROGRESS_DEADLINE_SECONDS);
    pod::pod_template(&mut spec.template);
}

/// A ReplicaSet.
pub fn replica_set(replica_set: &mut ReplicaSet) {
    let spec = replica_set.spec.get_or_insert_default();
    spec.replicas.get_or_insert(1);
    pod::pod_template(spec.template.get_or_insert_default());
}

/// A ReplicationController: what it does not say of selector and labels, its template's labels say.
pub fn replication_controller(controller: &mut ReplicationController) {
    let spec = controller.spec.get_or_insert_default();
    let labels = spec.template.as_ref().and_then(|template| template.metadata.as_ref()?.labels.clone());
    if let Some(labels) = labels.filter(|labels| !labels.is_empty()) {
        if spec.selector.as_ref().is_none_or(|selector| selector.is_empty()) {
            spec.selector = Some(labels.clone());
        }
        if controller.metadata.labels.as_ref().is_none_or(|labels| labels.is_empty()) {
            controller.metadata.labels = Some(labels);
        }
    }
    spec.replicas.get_or_insert(1);
    spec.template.iter_mut().for_each(pod::pod_template);
}

/// A DaemonSet.
pub fn daemon_set(daemon_set: &mut DaemonSet) {
    let spec = daemon_set.spec.get_or_insert_default();
    let strategy = spec.update_strategy.get_or_insert_default();
    fill(&mut strategy.type_, "RollingUpdate");
    if strategy.type_.as_deref() == Some("RollingUpdate") {
        let rolling = strategy.rolling_update.get_or_insert_with(RollingUpdateDaemonSet::default);
        rolling.max_unavailable.get_or_insert(IntOrString::Int(1));
        rolling.max_surge.get_or_insert(IntOrString::Int(0));
    }
    spec.revision_history_limit.get_or_insert(REVISION_HISTORY_LIMIT);
    pod::pod_template(&mut spec.template);
}

/// A StatefulSet.
pub fn stateful_set(stateful_set: &mut StatefulSet) {
    let spec = stateful_set.spec.get_or_insert_default();
    fill(&mut spec.pod_management_policy, "OrderedReady");
    let strategy = spec.update_strategy.get_or_insert_default();
    if strategy.type_.as_deref().is_none_or(str::is_empty) {
        strategy.type_ = Some("RollingUpdate".to_owned());
        strategy.rolling_update.get_or_insert_with(RollingUpdateStatefulSetStrategy::default);
    }
    if strategy.type_.as_deref() == Some("RollingUpdate")
        && let Some(rolling) = strategy.rolling_update.as_mut()
    {
        rolling.partition.get_or_insert(0);
    }
    let retention = spec.persistent_volume_claim_retention_policy.get_or_insert_default();
    fill(&mut retention.when_deleted, "Retain");
    fill(&mut retention.when_scaled, "Retain");
    spec.replicas.get_or_insert(1);
    spec.revision_history_limit.get_or_insert(REVISION_HISTORY_LIMIT);
    pod::pod_template(&mut spec.template);
    spec.volume_claim_templates.iter_mut().flatten().for_each(core::persistent_volume_claim);
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn without_template(mut value: Value) -> String {
        value["spec"].as_object_mut().unwrap().remove("template");
        format!("{}\n", value["spec"])
    }

    #[test]
    fn workloads_are_written_out() {
        let template = json!({"spec": {"containers": [{"name": "c", "image": "i"}]}});
        let mut rolling: Deployment =
            serde_json::from_value(json!({"spec": {"selector": {}, "template": template}})).unwrap();
        let mut recreate: Deployment = serde_json::from_value(
            json!({"spec": {"selector": {}, "template": template, "strategy": {"type": "Recreate"}}}),
        )
        .unwrap();
        let mut daemons: DaemonSet =
            serde_json::from_value(json!({"spec": {"selector": {}, "template": template}})).unwrap();
        let mut stateful: StatefulSet =
            serde_json::from_value(json!({"spec": {"selector": {}, "template": template}})).unwrap();
        let mut replicas: ReplicaSet =
            serde_json::from_value(json!({"spec": {"selector": {}, "template": template}})).unwrap();
        deployment(&mut rolling);
        deployment(&mut recreate);
        daemon_set(&mut daemons);
        stateful_set(&mut stateful);
        replica_set(&mut replicas);
        let table = [
            serde_json::to_value(rolling),
            serde_json::to_value(recreate),
            serde_json::to_value(daemons),
            serde_json::to_value(stateful),
            serde_json::to_value(replicas),
        ]
        .map(|value| without_template(value.unwrap()))
        .concat();
        expect![[r#"
            {"progressDeadlineSeconds":600,"replicas":1,"revisionHistoryLimit":10,"selector":{},"strategy":{"rollingUpdate":{"maxSurge":"25%","maxUnavailable":"25%"},"type":"RollingUpdate"}}
            {"progressDeadlineSeconds":600,"replicas":1,"revisionHistoryLimit":10,"selector":{},"strategy":{"type":"Recreate"}}
            {"revisionHistoryLimit":10,"selector":{},"updateStrategy":{"rollingUpdate":{"maxSurge":0,"maxUnavailable":1},"type":"RollingUpdate"}}
            {"persistentVolumeClaimRetentionPolicy":{"whenDeleted":"Retain","whenScaled":"Retain"},"podManagementPolicy":"OrderedReady","replicas":1,"revisionHistoryLimit":10,"selector":{},"updateStrategy":{"rollingUpdate":{"partition":0},"type":"RollingUpdate"}}
            {"replicas":1,"selector":{}}
        "#]].assert_eq(&table);
    }

    proptest! {
        #[test]
        fn defaulting_twice_changes_nothing(kind in "(RollingUpdate|Recreate|OnDelete|)", replicas in prop::option::of(0i32..3)) {
            let json = json!({"spec": {"replicas": replicas, "selector": {}, "strategy": {"type": kind}, "updateStrategy": {"type": kind},
                "template": {"spec": {"containers": [{"name": "c"}]}}}});
            let mut once: Deployment = serde_json::from_value(json.clone()).unwrap();
            deployment(&mut once);
            let mut twice = once.clone();
            deployment(&mut twice);
            prop_assert_eq!(once, twice);
            let mut once: StatefulSet = serde_json::from_value(json.clone()).unwrap();
            stateful_set(&mut once);
            let mut twice = once.clone();
            stateful_set(&mut twice);
            prop_assert_eq!(once, twice);
            let mut once: DaemonSet = serde_json::from_value(json).unwrap();
            daemon_set(&mut once);
            let mut twice = once.clone();
            daemon_set(&mut twice);
            prop_assert_eq!(once, twice);
        }
    }
}
