//! The spec of a workload. The door lets none in without one; what got in anyway asks for nothing.

use std::sync::LazyLock;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, ReplicaSet, ReplicaSetSpec};

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
