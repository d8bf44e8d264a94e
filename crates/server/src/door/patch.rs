//! Patching: the current object as JSON, the patch applied, and the result treated like an update.

use std::sync::Arc;

use api::patch::PatchType;
use api::schema::Mode;
use api::{Body, Key, Object, Refusal};
use bytes::Bytes;
use serde_json::Value;

use super::{Call, Outcome, Part, scale, update};
use crate::decode;

/// A patch as the client sent it.
#[derive(Clone, Debug)]
pub struct Patch {
    /// How to apply it.
    pub kind: PatchType,
    /// The document.
    pub document: Bytes,
    /// What to do about unknown fields.
    pub mode: Mode,
}

pub(super) fn patch(call: &mut Call, key: &Key, part: Part, patch: &Patch) -> Result<(Outcome, Vec<String>), Refusal> {
    let current = call.world.at(key).ok_or_else(|| Refusal::not_found(key.kind, &key.name))?.clone();
    if part == Part::Scale {
        let view = scale::scale_of(&current.body).ok_or_else(Refusal::no_such_path)?;
        return Ok((scale::update(call, key, &patched_scale(view, patch)?)?, Vec::new()));
    }
    let original = || as_value(&current);
    let (value, warnings) = api::patch::apply(key.kind, patch.kind, &original, &patch.document, patch.mode)?;
    let new: Body = decode::typed(key.kind, value)?;
    Ok((update::update(call, &current.body, part, new)?, warnings))
}

fn as_value(object: &Arc<Object>) -> Result<Value, Refusal> {
    serde_json::from_slice(&object.json).map_err(Refusal::internal)
}

/// A `Scale` has no lists, so that strategic and plain merge are the same for it.
fn patched_scale(view: Value, patch: &Patch) -> Result<Value, Refusal> {
    let document = decode::document(&patch.document)?;
    match patch.kind {
        PatchType::Json => api::patch::json_patch(view, document),
        PatchType::Merge | PatchType::Strategic => api::patch::merge(view, &document),
    }
}
