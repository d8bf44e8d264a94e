//! The spec of a workload. The door lets none in without one; what got in anyway asks for nothing.

use std::sync::LazyLock;

use k8s_openapi::api::apps::v1::{
    DaemonSet, DaemonSetSpec, Deployment, DeploymentSpec, ReplicaSet, ReplicaSetSpec, StatefulSet, StatefulSetSpec,
};

/// Spec of a Deployment.
pub fn of_deployment(deployment: &Deployment) -> &DeploymentSpec {
    static NONE: LazyLock<DeploymentSpec> = LazyLock::new(DeploymentSpec::default);
    deployment.spec.as_ref().unwrap_or(&NONE)
}

/// Spec of a ReplicaSet.
pub fn of_set(set: &ReplicaSet) -> &ReplicaSetSpec {
    static NONE: LazyLock<ReplicaSetSpec> = LazyLock::new(ReplicaSetSpec::default);
    set.spec.as_ref().unwrap_or(&NONE)
}

/// Spec of a DaemonSet.
pub fn of_daemon_set(set: &DaemonSet) -> &DaemonSetSpec {
    static NONE: LazyLock<DaemonSetSpec> = LazyLock::new(DaemonSetSpec::default);
    set.spec.as_ref().unwrap_or(&NONE)
}

/// Spec of a StatefulSet.
pub fn of_stateful_set(set: &StatefulSet) -> &StatefulSetSpec {
    static NONE: LazyLock<StatefulSetSpec> = LazyLock::new(StatefulSetSpec::default);
    set.spec.as_ref().unwrap_or(&NONE)
}
