//! The status of a StatefulSet: how many pods it has, of which template, and how good they are.
//!
//! Mirrors updateStatus and completeRollingUpdate (`pkg/controller/statefulset/stateful_set_control.go` and
//! `stateful_set_utils.go`). Two differences: pods that are being ended are not ready, and an update by OnDelete, too, is
//! complete once every pod has the new template. Writes nothing when nothing changed.

use api::{Typed, Write};
use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetStatus};

use super::members::{Member, Members};
use super::update::{Revision, Revisions};

/// The write that brings the status up to date, if it is not.
pub fn report(
    set: &StatefulSet,
    members: &Members,
    revisions: Revisions,
    collision_count: Option<i32>,
) -> Option<Write> {
    let count = |holds: &dyn Fn(&Member) -> bool| {
        i32::try_from(members.all.values().filter(|member| holds(member)).count()).unwrap_or(i32::MAX)
    };
    let of = |revision: Revision| count(&|member| !member.going && revision.made(member));
    let some = |number: i32| Some(number).filter(|number| *number > 0);
    let (all, ready) = (count(&|_| true), count(&|member| member.ready));
    let updated = of(revisions.update);
    let complete = [updated, ready, all].iter().all(|number| *number == members.replicas());
    let current = if complete { revisions.update } else { revisions.current };
    let status = StatefulSetStatus {
        replicas: all,
        ready_replicas: some(ready),
        available_replicas: Some(count(&|member| member.available)),
        current_replicas: some(of(current)),
        updated_replicas: some(updated),
        current_revision: Some(current.name.to_owned()),
        update_revision: Some(revisions.update.name.to_owned()),
        observed_generation: set.metadata.generation,
        collision_count,
        conditions: set.status.as_ref().and_then(|status| status.conditions.clone()),
    };
    if set.status.as_ref() == Some(&status) {
        return None;
    }
    Some(Write::Status(StatefulSet { status: Some(status), ..set.clone() }.into_body()))
}
