//! PATCH: JSON patch, JSON merge patch and strategic merge patch, from the request's body to a checked object.
//!
//! Mirrors apiserver `endpoints/handlers/patch.go`: the same content types, bounds, status codes and words. Server-side apply is
//! another verb and not here. Metadata rules (uid, resourceVersion, immutable fields) are the door's.

mod go_text;
mod strategic;

pub use strategic::{StrategicError, strategic, three_way, two_way};

use serde_json::Value;

use crate::kinds::Kind;
use crate::limits;
use crate::schema::{self, Mode, TypeId, Wording, check_worded, parse_json, type_of};
use crate::status::{Cause, Refusal};

/// The media types of patches, as PATCH requests name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchType {
    /// RFC 6902.
    Json,
    /// RFC 7386.
    Merge,
    /// Kubernetes' own.
    Strategic,
}

impl PatchType {
    /// Every type.
    pub const ALL: [PatchType; 3] = [PatchType::Json, PatchType::Merge, PatchType::Strategic];

    /// `application/…-patch+json`.
    pub fn media_type(self) -> &'static str {
        match self {
            PatchType::Json => "application/json-patch+json",
            PatchType::Merge => "application/merge-patch+json",
            PatchType::Strategic => "application/strategic-merge-patch+json",
        }
    }

    /// From a `Content-Type`, parameters ignored.
    pub fn from_media_type(text: &str) -> Option<PatchType> {
        let text = text.split(';').next().unwrap_or_default().trim();
        PatchType::ALL.into_iter().find(|patch| patch.media_type().eq_ignore_ascii_case(text))
    }
}

/// Applies the patch in `body` to what `original` gives, an object of `kind`. The result is checked and normalised; with it
/// come the warnings. The original is asked for once more only to word a refusal.
pub fn apply(
    kind: Kind,
    patch_type: PatchType,
    original: &dyn Fn() -> Result<Value, Refusal>,
    body: &[u8],
    mode: Mode,
) -> Result<(Value, Vec<String>), Refusal> {
    apply_as(type_of(kind), patch_type, original, body, mode)
}

/// As [`apply`], to an object of a type that need not be the stored one.
pub fn apply_as(
    kind: TypeId,
    patch_type: PatchType,
    original: &dyn Fn() -> Result<Value, Refusal>,
    body: &[u8],
    mode: Mode,
) -> Result<(Value, Vec<String>), Refusal> {
    let (mut patched, mut problems) = patched(kind, patch_type, original()?, body)?;
    let wording = if patch_type == PatchType::Strategic { Wording::Converter } else { Wording::Json };
    // What a patch made has to be an object of the kind still.
    let checked = check_worded(kind, &mut patched, wording).and_then(|unknown| {
        problems.extend(unknown.iter().map(ToString::to_string));
        schema::strict(problems, mode)
    });
    match checked {
        Ok(warnings) => Ok((patched, warnings)),
        Err(what) => {
            let shown = shown(kind, patch_type, original, body)?;
            let message = format!("Invalid value: {shown:?}: {what}");
            let cause = Cause { reason: "FieldValueInvalid".into(), message, field: "patch".into() };
            let mut refusal = Refusal::new(422, "Invalid", format!(" \"\" is invalid: patch: {}", cause.message));
            refusal.causes.push(cause);
            Err(refusal)
        }
    }
}

/// The patched object, not checked yet, and what is odd about the patch.
fn patched(kind: TypeId, patch_type: PatchType, original: Value, body: &[u8]) -> Result<(Value, Vec<String>), Refusal> {
    let (patch, repeated) = parse_json(body, limits::JSON_DEPTH)
        .map_err(|error| Refusal::bad_request(format!("error decoding patch: {error}")))?;
    let mut problems: Vec<String> = repeated.iter().map(ToString::to_string).collect();
    let patched = match patch_type {
        PatchType::Json => {
            problems.extend(unknown_operation_fields(&patch));
            problems = problems.iter().map(|problem| format!("json patch {problem}")).collect();
            json_patch(original, patch)?
        }
        PatchType::Merge => merge(original, &patch)?,
        PatchType::Strategic => {
            if !patch.is_object() {
                let found = if patch.is_array() { "array" } else { "value" };
                let message = format!("json: cannot unmarshal {found} into Go value of type map[string]interface {{}}");
                return Err(Refusal::bad_request(message));
            }
            strategic(kind, original, patch).map_err(refused_strategic)?
        }
    };
    Ok((patched, problems))
}

/// What a refusal shows: the patch itself where it is a strategic one, else what came of it.
fn shown(
    kind: TypeId,
    patch_type: PatchType,
    original: &dyn Fn() -> Result<Value, Refusal>,
    body: &[u8],
) -> Result<String, Refusal> {
    if patch_type == PatchType::Strategic {
        let patch = parse_json(body, limits::JSON_DEPTH).map_err(Refusal::internal)?.0;
        return Ok(go_text::go_text(&patch));
    }
    Ok(patched(kind, patch_type, original()?, body)?.0.to_string())
}

/// Applies an RFC 6902 patch.
pub fn json_patch(mut original: Value, patch: Value) -> Result<Value, Refusal> {
    let Value::Array(operations) = patch else {
        let what = "json: cannot unmarshal object into Go value of type jsonpatch.Patch";
        return Err(Refusal::bad_request(format!("error decoding patch: {what}")));
    };
    let (count, most) = (operations.len(), limits::JSON_PATCH_OPERATIONS);
    if count > most {
        let message = format!("The allowed maximum operations in a JSON patch is {most}, got {count}");
        return Err(Refusal::new(413, "RequestEntityTooLarge", format!("Request entity too large: {message}")));
    }
    for operation in &operations {
        let known = operation.get("op").and_then(Value::as_str).unwrap_or("unknown");
        if !["add", "remove", "replace", "move", "copy", "test"].contains(&known) {
            return Err(unprocessable(format!("Unexpected kind: {known}")));
        }
    }
    let patch: json_patch::Patch = serde_json::from_value(Value::Array(operations))
        .map_err(|error| unprocessable(format!("error decoding patch: {error}")))?;
    json_patch::patch_unsafe(&mut original, &patch).map_err(|error| unprocessable(failed_operation(&patch, &error)))?;
    Ok(original)
}

/// The words of the library that upstream uses, where a client may know them.
fn failed_operation(patch: &json_patch::Patch, error: &json_patch::PatchError) -> String {
    use json_patch::{PatchErrorKind as Failure, PatchOperation as Operation};
    let path = &error.path;
    match (&error.kind, patch.0.get(error.operation)) {
        (Failure::TestFailed, _) => format!("testing value {path} failed: test failed"),
        (Failure::CannotMoveInsideItself, _) => format!("cannot move {path} inside itself"),
        (_, Some(Operation::Test(_))) => format!("testing value {path} failed: test failed"),
        (_, Some(Operation::Add(_))) => {
            format!("add operation does not apply: doc is missing path: \"{path}\": missing value")
        }
        (_, Some(Operation::Remove(_))) => {
            format!("remove operation does not apply: doc is missing path: \"{path}\": missing value")
        }
        (_, Some(Operation::Replace(_))) => {
            format!("replace operation does not apply: doc is missing key: {path}: missing value")
        }
        (_, Some(Operation::Move(operation))) => {
            format!("move operation does not apply: doc is missing from path: {}: missing value", operation.from)
        }
        (_, Some(Operation::Copy(operation))) => {
            format!("copy operation does not apply: doc is missing from path: {}: missing value", operation.from)
        }
        (_, None) => error.to_string(),
    }
}

/// 422 as upstream's `NewGenericServerResponse`. Upstream keeps the reason to itself; here it is the cause, which kubectl prints.
fn unprocessable(why: String) -> Refusal {
    let mut refusal = Refusal::new(422, "Invalid", "the server rejected our request due to an error in our request");
    refusal.causes.push(Cause { reason: "UnexpectedServerResponse".into(), message: why, field: "patch".into() });
    refusal
}

fn unknown_operation_fields(patch: &Value) -> Vec<String> {
    let mut unknown = Vec::new();
    for (index, operation) in patch.as_array().into_iter().flatten().enumerate() {
        let fields = operation.as_object().into_iter().flatten().map(|(name, _)| name);
        for name in fields.filter(|name| !["op", "path", "from", "value"].contains(&name.as_str())) {
            unknown.push(format!("unknown field \"[{index}].{name}\""));
        }
    }
    unknown
}

/// Applies an RFC 7386 patch.
pub fn merge(mut original: Value, patch: &Value) -> Result<Value, Refusal> {
    if !patch.is_object() {
        return Err(Refusal::bad_request("Invalid JSON Patch"));
    }
    json_patch::merge(&mut original, patch);
    Ok(original)
}

/// Upstream answers what is not listed here with 500; a bad patch is the client's error, so 400.
fn refused_strategic(error: StrategicError) -> Refusal {
    match error {
        StrategicError::ListOfLists => unprocessable(error.to_string()),
        other => Refusal::bad_request(other.to_string()),
    }
}

#[cfg(test)]
#[path = "patch_tests.rs"]
mod tests;
