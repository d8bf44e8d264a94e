//! Ending an object: at once, or marked and kept until its grace is over and its finalizers are gone.
//!
//! Upstream: `registry/rest/delete.go: BeforeDelete`, `registry/generic/registry/store.go: Delete`,
//! `registry/core/pod/strategy.go: CheckGracefulDelete`.

use api::{Body, Kind, Object, Propagation, Refusal};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{Outcome, update::uid_differs};

/// Finalizer of an object that waits for its dependents to go.
const FOREGROUND: &str = "foregroundDeletion";
/// Finalizer of an object that waits for its dependents to be let go.
const ORPHAN: &str = "orphan";
/// Namespaces that every cluster has (upstream: `admission/plugin/namespace/lifecycle`).
const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];

/// What a client asks for when it deletes.
#[derive(Clone, Debug, Default)]
pub struct DeleteOptions {
    /// Seconds an object may take to end.
    pub grace_period_seconds: Option<i64>,
    /// Only if the object has this uid.
    pub uid: Option<String>,
    /// Only if the object is at this resource version.
    pub resource_version: Option<String>,
    /// What becomes of dependents; `None`: the kind's default.
    pub propagation: Option<Propagation>,
}

/// Decides what deleting `object` means now.
pub fn delete(object: &Object, options: &DeleteOptions, now: Timestamp) -> Result<Outcome, Refusal> {
    if object.kind() == Kind::Namespace && IMMORTAL.contains(&object.name()) {
        return Err(Refusal::forbidden(Kind::Namespace, object.name(), "this namespace may not be deleted"));
    }
    check_preconditions(object, options)?;
    let mut body = object.body.clone();
    let finalizers_changed = settle_finalizers(&mut body, options.propagation);
    let grace = grace_seconds(&body, options.grace_period_seconds);
    let meta = body.meta();
    let held = meta.finalizers.as_ref().is_some_and(|finalizers| !finalizers.is_empty()) || is_full_namespace(&body);
    if grace == 0 && !held {
        return Ok(Outcome::Remove(body));
    }
    if let (Some(_), Some(left)) = (&meta.deletion_timestamp, meta.deletion_grace_period_seconds)
        && left <= grace
    {
        return Ok(if finalizers_changed { Outcome::Write(body) } else { Outcome::Unchanged });
    }
    mark(&mut body, grace, now);
    Ok(Outcome::Write(body))
}

fn check_preconditions(object: &Object, options: &DeleteOptions) -> Result<(), Refusal> {
    if let Some(uid) = &options.uid
        && uid != object.uid()
    {
        return Err(Refusal::conflict(object.kind(), object.name(), uid_differs(uid, object.uid())));
    }
    let version = object.revision.to_string();
    if let Some(wanted) = &options.resource_version
        && *wanted != version
    {
        let why = format!(
            "Precondition failed: ResourceVersion in precondition: {wanted}, ResourceVersion in object meta: {version}"
        );
        return Err(Refusal::conflict(object.kind(), object.name(), why));
    }
    Ok(())
}

/// Puts the garbage collector's finalizers as the propagation policy says; true if that changed any.
fn settle_finalizers(body: &mut Body, propagation: Option<Propagation>) -> bool {
    let Some(propagation) = propagation else { return false };
    let finalizers = body.meta_mut().finalizers.get_or_insert_default();
    let before = finalizers.clone();
    finalizers.retain(|finalizer| finalizer != FOREGROUND && finalizer != ORPHAN);
    match propagation {
        Propagation::Background => {}
        Propagation::Foreground => finalizers.push(FOREGROUND.into()),
        Propagation::Orphan => finalizers.push(ORPHAN.into()),
    }
    let changed = *finalizers != before;
    if finalizers.is_empty() {
        body.meta_mut().finalizers = None;
    }
    changed
}

/// Only pods take time to end, and only where a node runs them.
fn grace_seconds(body: &Body, asked: Option<i64>) -> i64 {
    let Body::Pod(pod) = body else { return 0 };
    let spec = pod.spec.as_deref();
    let unassigned = spec.and_then(|spec| spec.node_name.as_deref()).unwrap_or("").is_empty();
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    if unassigned || matches!(phase, Some("Succeeded" | "Failed")) {
        return 0;
    }
    let default = spec.and_then(|spec| spec.termination_grace_period_seconds).unwrap_or(30);
    match asked.unwrap_or(default) {
        seconds if seconds < 0 => 1,
        seconds => seconds,
    }
}

fn is_full_namespace(body: &Body) -> bool {
    let Body::Namespace(namespace) = body else { return false };
    let spec = namespace.spec.as_ref();
    spec.and_then(|spec| spec.finalizers.as_ref()).is_some_and(|finalizers| !finalizers.is_empty())
}

fn mark(body: &mut Body, grace: i64, now: Timestamp) {
    let meta = body.meta_mut();
    if meta.deletion_timestamp.is_none()
        && let Some(generation) = &mut meta.generation
    {
        *generation += 1;
    }
    let end = now.checked_add(SignedDuration::from_secs(grace)).unwrap_or(now);
    let earlier = meta.deletion_timestamp.as_ref().map_or(end, |time| time.0.min(end));
    meta.deletion_timestamp = Some(Time(earlier));
    meta.deletion_grace_period_seconds = Some(grace);
    if let Body::Namespace(namespace) = body {
        namespace.status.get_or_insert_default().phase = Some("Terminating".into());
    }
}
