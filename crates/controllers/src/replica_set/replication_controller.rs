//! A ReplicationController seen as the ReplicaSet that it is but for its name.
//!
//! Mirrors upstream's `pkg/controller/replication/conversion.go`. Nothing but shapes: what is to be done about it is
//! decided by the same code as for a ReplicaSet.

use api::{Typed, Write};
use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetSpec, ReplicaSetStatus};
use k8s_openapi::api::core::v1::{
    ReplicationController, ReplicationControllerCondition, ReplicationControllerSpec, ReplicationControllerStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

/// The controller as a set.
pub fn as_set(controller: &ReplicationController) -> ReplicaSet {
    ReplicaSet {
        metadata: controller.metadata.clone(),
        spec: controller.spec.as_ref().map(spec),
        status: controller.status.as_ref().map(status),
    }
}

/// The write of a new status. It has no place for the number of pods that are going.
pub fn write_status(controller: &ReplicationController, status: &ReplicaSetStatus) -> Write {
    let conditions = status.conditions.iter().flatten().map(|it| ReplicationControllerCondition {
        type_: it.type_.clone(),
        status: it.status.clone(),
        reason: it.reason.clone(),
        message: it.message.clone(),
        last_transition_time: it.last_transition_time.clone(),
    });
    let conditions: Vec<_> = conditions.collect();
    let status = ReplicationControllerStatus {
        replicas: status.replicas,
        fully_labeled_replicas: status.fully_labeled_replicas,
        ready_replicas: status.ready_replicas,
        available_replicas: status.available_replicas,
        observed_generation: status.observed_generation,
        conditions: Some(conditions).filter(|list| !list.is_empty()),
    };
    Write::Status(ReplicationController { status: Some(status), ..controller.clone() }.into_body())
}

fn spec(spec: &ReplicationControllerSpec) -> ReplicaSetSpec {
    ReplicaSetSpec {
        replicas: spec.replicas,
        min_ready_seconds: spec.min_ready_seconds,
        selector: LabelSelector { match_labels: spec.selector.clone(), match_expressions: None },
        template: spec.template.clone(),
    }
}

fn status(status: &ReplicationControllerStatus) -> ReplicaSetStatus {
    let conditions = status.conditions.as_ref().map(|list| {
        let same = |it: &ReplicationControllerCondition| ReplicaSetCondition {
            type_: it.type_.clone(),
            status: it.status.clone(),
            reason: it.reason.clone(),
            message: it.message.clone(),
            last_transition_time: it.last_transition_time.clone(),
        };
        list.iter().map(same).collect()
    });
    ReplicaSetStatus {
        replicas: status.replicas,
        fully_labeled_replicas: status.fully_labeled_replicas,
        ready_replicas: status.ready_replicas,
        available_replicas: status.available_replicas,
        observed_generation: status.observed_generation,
        conditions,
        terminating_replicas: None,
    }
}
