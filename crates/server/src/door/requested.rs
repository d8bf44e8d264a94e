//! Notes on a workload who asked for its pod template: the user, the program and the time (`api::account`).
//!
//! Upstream tells a manager of fields, which is a program's name; who the user was is only in the audit log. Clients can
//! neither forge nor lose the note: without a change of template it stays what it was.

use api::Body;
use api::account::{ENDED, REQUESTED, Requested};
use k8s_openapi::api::core::v1::PodTemplateSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::Call;

/// Characters of a program's name and version that are kept.
const PROGRAM_CHARACTERS: usize = 128;

/// Who sent a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requester {
    /// The user.
    pub user: String,
    /// The program, such as `kubectl/v1.32.3`.
    pub program: String,
}

impl Requester {
    /// Of a user agent such as `kubectl/v1.32.3 (linux/amd64) kubernetes/32cc146` only the first word is kept.
    pub fn new(user: &str, user_agent: &str) -> Requester {
        let program = user_agent.split_whitespace().next().unwrap_or("unknown");
        Requester { user: user.to_owned(), program: program.chars().take(PROGRAM_CHARACTERS).collect() }
    }
}

/// Notes who asked, if a client asks for a template; `current` is the object as it is, if there is one.
pub(super) fn note(call: &Call, current: Option<&Body>, new: &mut Body) {
    let (Some(requester), Some(wanted)) = (call.requester, template(new)) else { return };
    let asked = current.is_none_or(|current| template(current) != Some(wanted));
    let text = if asked {
        let (by, with) = (requester.user.clone(), requester.program.clone());
        Some(Requested { at: Time(call.now), by, with }.text())
    } else {
        current.and_then(|current| current.meta().annotations.as_ref()?.get(REQUESTED).cloned())
    };
    let annotations = &mut new.meta_mut().annotations;
    if let Some(list) = annotations {
        // `kubectl rollout undo` brings it along from the revision.
        list.remove(ENDED);
        list.remove(REQUESTED);
    }
    if let Some(text) = text {
        annotations.get_or_insert_default().insert(REQUESTED.to_owned(), text);
    }
}

/// The template whose changes are rollouts.
fn template(body: &Body) -> Option<&PodTemplateSpec> {
    match body {
        Body::Deployment(deployment) => Some(&deployment.spec.as_ref()?.template),
        Body::DaemonSet(set) => Some(&set.spec.as_ref()?.template),
        Body::StatefulSet(set) => Some(&set.spec.as_ref()?.template),
        _ => None,
    }
}
