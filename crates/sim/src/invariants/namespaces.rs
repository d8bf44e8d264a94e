//! Namespaces: emptied pods first, and gone only when nothing is left in them.

use api::Kind;
use api::Pod;
use k8s_openapi::api::batch::v1::Job;

use super::{Moment, Verdict};
use crate::facts;

/// I6: nothing of a namespace is left when it goes.
pub fn goes_empty(moment: &Moment) -> Verdict {
    let change = moment.change;
    if change.kind() != Kind::Namespace || change.after.is_some() {
        return Ok(());
    }
    let name = change.object().name();
    let kinds = Kind::ALL.iter().filter(|kind| kind.namespaced());
    match kinds.flat_map(|kind| moment.after.objects(*kind, Some(name))).next() {
        Some(left) => Err(format!("goes while {} is still in it", left.key())),
        None => Ok(()),
    }
}

/// I6: pods go first, so that what they use outlives them. What belongs to something that was deleted before may go.
pub fn pods_go_first(moment: &Moment) -> Verdict {
    let change = moment.change;
    let Some(before) = moment.was.filter(|_| !moment.asked) else { return Ok(()) };
    let ends = change.after.as_ref().is_none_or(|after| facts::is_deleted(after.meta()));
    // A Job that is over is taken away when its time to live is up, whatever becomes of its namespace.
    let has_had_its_time = before.get::<Job>().is_some_and(|job| {
        facts::is_finished(job) && job.spec.as_ref().is_some_and(|spec| spec.ttl_seconds_after_finished.is_some())
    });
    if !ends || has_had_its_time || facts::is_deleted(before.meta()) || matches!(before.kind(), Kind::Pod | Kind::Event)
    {
        return Ok(());
    }
    let namespace = before.namespace();
    let owned = before.meta().owner_references.iter().flatten().next().is_some();
    if namespace.is_empty() || owned || facts::namespace_stays(namespace, moment.before) {
        return Ok(());
    }
    match moment.before.list::<Pod>(Some(namespace)).next() {
        Some(pod) => Err(format!("goes before pod {}", facts::name(&pod.metadata))),
        None => Ok(()),
    }
}
