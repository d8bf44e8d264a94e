//! Takes a finished Job away after `ttlSecondsAfterFinished`, and its pods with it.
//!
//! Mirrors upstream's `pkg/controller/ttlafterfinished/ttlafterfinished_controller.go`.

use api::{Key, Plan, Propagation, Write};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::Job;

use super::terms;

/// Decides about a Job that is over since `ended`.
pub fn reconcile(key: &Key, job: &Job, ended: Option<Timestamp>, now: Timestamp) -> Plan {
    let seconds = terms::spec(job).ttl_seconds_after_finished.filter(|_| job.metadata.deletion_timestamp.is_none());
    let Some((seconds, ended)) = seconds.zip(ended) else { return Plan::nothing() };
    let Ok(end) = ended.checked_add(SignedDuration::from_secs(seconds.into())) else { return Plan::nothing() };
    if end > now {
        return Plan { wake_at: Some(end), why: vec![format!("is taken away at {end}")], ..Plan::nothing() };
    }
    let uid = job.metadata.uid.clone().unwrap_or_default();
    let writes = vec![Write::Delete { key: key.clone(), uid, propagation: Propagation::Foreground }];
    Plan { writes, ..Plan::nothing() }
}
