//! The status of a DaemonSet: on how many nodes its pods are, and how they fare.
//!
//! Mirrors updateDaemonSetStatus (`pkg/controller/daemon/daemon_controller.go`). Pods that are being ended are neither
//! ready nor updated, and a node is updated only once no old pod is left on it, so that `rollout status` never says too
//! early that it is done. Writes nothing when nothing changed.

use api::{Typed, Write};
use k8s_openapi::api::apps::v1::{DaemonSet, DaemonSetStatus};

use super::nodes::Fit;
use super::spots::Spot;

/// The write that brings the status up to date, if it is not.
pub fn report(set: &DaemonSet, spots: &[Spot], collision_count: Option<i32>) -> Option<Write> {
    let count = |holds: &dyn Fn(&Spot) -> bool| {
        i32::try_from(spots.iter().filter(|spot| holds(spot)).count()).unwrap_or(i32::MAX)
    };
    let runs = |spot: &Spot| spot.fit == Fit::Run;
    let taken = |spot: &Spot| spot.is_taken() || !spot.ended.is_empty();
    let some = |number: i32| Some(number).filter(|number| *number > 0);
    let desired = count(&runs);
    let available = count(&|spot| runs(spot) && spot.is_available());
    let status = DaemonSetStatus {
        desired_number_scheduled: desired,
        current_number_scheduled: count(&|spot| runs(spot) && taken(spot)),
        number_misscheduled: count(&|spot| !runs(spot) && taken(spot)),
        number_ready: count(&|spot| runs(spot) && spot.alive.iter().any(|it| it.ready)),
        number_available: some(available),
        number_unavailable: some(desired - available),
        updated_number_scheduled: some(count(&|spot| {
            runs(spot) && !spot.alive.is_empty() && spot.alive.iter().all(|it| it.updated)
        })),
        observed_generation: set.metadata.generation,
        collision_count,
        conditions: set.status.as_ref().and_then(|status| status.conditions.clone()),
    };
    if set.status.as_ref() == Some(&status) {
        return None;
    }
    Some(Write::Status(DaemonSet { status: Some(status), ..set.clone() }.into_body()))
}
