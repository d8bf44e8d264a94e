//! What a refusal means for the decision whose write was refused.

use api::Refusal;

/// True if the namespace is going, so that nothing can be made in it: no failure, and no reason to try again.
pub fn namespace_is_ending(refusal: &Refusal) -> bool {
    refusal.causes.iter().any(|cause| cause.reason == "NamespaceTerminating")
}

/// True if the decision was only based on an outdated version, which says nothing about the object.
pub fn is_outdated(refusal: &Refusal) -> bool {
    refusal.reason == "Conflict"
}
