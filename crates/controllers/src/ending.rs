//! How the rollout of a DaemonSet or a StatefulSet ended, noted on its revision: completed, failed, superseded, and whether it
//! was undone.
//!
//! Only of rollouts that somebody is known to have asked for (`api::account`). Upstream remembers nothing of it, and knows no
//! deadline for these kinds: theirs is the one that Deployments have where nothing is said.

use api::account::{ENDED, Ended, How, Requested};
use api::{Typed, Write};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::ControllerRevision;

/// Without a pod more that is available for so long, a rollout has failed (upstream: a Deployment's `progressDeadlineSeconds`).
const DEADLINE: SignedDuration = SignedDuration::from_mins(10);

/// How far the rollout of the newest revision is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Course {
    /// All pods have the template and are available.
    Complete,
    /// It waits for somebody: pods have to be deleted, or a partition has to be lowered.
    Held,
    /// It goes on by itself; the last pod became available then, if one did.
    Moving(Option<Timestamp>),
}

/// What is to be noted of a rollout, and when to look again.
#[derive(Default)]
pub struct Note {
    /// Notes the end on the revision.
    pub write: Option<Write>,
    /// When the deadline passes.
    pub wake_at: Option<Timestamp>,
}

/// Another revision is the newest from now on: the one before it has ended.
pub fn superseded(previous: &ControllerRevision, undone: bool, now: Timestamp) -> Option<Write> {
    Requested::of(&previous.metadata)?;
    let mut ended = Ended::of(&previous.metadata).unwrap_or_else(|| Ended::at(now, How::Superseded));
    ended.undone |= undone;
    noted(previous, &ended)
}

/// Notes that the newest revision's rollout is complete, or that it failed. What failed may still complete.
pub fn note(newest: &ControllerRevision, course: Course, now: Timestamp) -> Note {
    let Some(requested) = Requested::of(&newest.metadata) else { return Note::default() };
    let before = Ended::of(&newest.metadata).map(|ended| ended.how);
    match (course, before) {
        (Course::Complete, None | Some(How::Failed)) => {
            Note { write: noted(newest, &Ended::at(now, How::Completed)), wake_at: None }
        }
        (Course::Moving(progress), None) => {
            let last = progress.map_or(requested.at.0, |progress| progress.max(requested.at.0));
            match last.checked_add(DEADLINE) {
                Ok(deadline) if now < deadline => Note { write: None, wake_at: Some(deadline) },
                _ => Note { write: noted(newest, &Ended::at(now, How::Failed)), wake_at: None },
            }
        }
        _ => Note::default(),
    }
}

fn noted(revision: &ControllerRevision, ended: &Ended) -> Option<Write> {
    let text = ended.text();
    let annotations = revision.metadata.annotations.as_ref();
    if annotations.and_then(|all| all.get(ENDED)) == Some(&text) {
        return None;
    }
    let mut body = revision.clone();
    body.metadata.annotations.get_or_insert_default().insert(ENDED.to_owned(), text);
    Some(Write::Update(body.into_body()))
}
