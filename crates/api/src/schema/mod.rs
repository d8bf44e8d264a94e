//! What Kubernetes' built-in types look like, and what follows from it: strict decoding, OpenAPI documents, protobuf bodies.
//!
//! Everything is driven by one table ([`table::Table`]) that `xtask/schema` writes from Kubernetes' Go types. Nothing here knows a
//! kind by name, and nothing here validates meaning.

pub mod check;
mod leaf;
pub mod openapi;
pub mod parse;
pub mod protobuf;
pub mod table;
mod wire;

#[cfg(test)]
mod tests;

pub use check::{FieldProblem, Mode, Wording, ZERO_TIME, check, check_worded};
pub use parse::{ParseError, in_order, parse_json};
pub use protobuf::protobuf_to_json;
pub use table::{TypeId, table};

use serde_json::Value;

use crate::kinds::{Kind, KindInfo};
use crate::limits;
use crate::status::Refusal;

/// The type behind a served kind.
pub fn type_of(kind: Kind) -> TypeId {
    type_of_row(kind.info())
}

/// The type behind a kind in one of its versions.
pub fn type_of_row(info: &KindInfo) -> TypeId {
    table().kind(&info.api_version(), info.kind).expect("the table has every served kind")
}

/// Reads the body of a POST or PUT: JSON to a checked, normalised value of `kind`, with the warnings to send.
///
/// Mirrors `endpoints/handlers/create.go` and `rest.go` (`transformDecodeError`).
pub fn read(kind: Kind, body: &[u8], mode: Mode) -> Result<(Value, Vec<String>), Refusal> {
    read_as(kind.info(), body, mode)
}

/// As [`read`], in a version of the kind that need not be the stored one.
pub fn read_as(info: &KindInfo, body: &[u8], mode: Mode) -> Result<(Value, Vec<String>), Refusal> {
    let (id, name, version) = (type_of_row(info), info.kind, info.version);
    let unreadable = |error| unrecognized(name, &error, body);
    let (mut value, mut problems) = parse_json(body, limits::JSON_DEPTH).map_err(unreadable)?;
    let cannot = |what: String| {
        Refusal::bad_request(format!("{name} in version \"{version}\" cannot be handled as a {name}: {what}"))
    };
    let unknown = check(id, &mut value).map_err(cannot)?;
    if !unknown.is_empty() {
        problems = in_order(body, limits::JSON_DEPTH, &unknown).map_err(unreadable)?;
    }
    let problems = problems.iter().map(ToString::to_string).collect();
    Ok((value, strict(problems, mode).map_err(cannot)?))
}

fn unrecognized(name: &str, error: &ParseError, body: &[u8]) -> Refusal {
    const SHOWN_BYTES: usize = 30;
    let shown: String = body.iter().take(SHOWN_BYTES).map(|byte| format!("{byte:02x}")).collect();
    let more = if body.len() > SHOWN_BYTES { " ..." } else { "" };
    Refusal::bad_request(format!(
        "the object provided is unrecognized (must be of type {name}): couldn't get version/kind; json parse error: {error} ({shown}{more})"
    ))
}

/// What is odd about fields as warnings, or as the text of the error.
pub(crate) fn strict(problems: Vec<String>, mode: Mode) -> Result<Vec<String>, String> {
    match mode {
        Mode::Ignore => Ok(Vec::new()),
        Mode::Strict if !problems.is_empty() => Err(format!("strict decoding error: {}", problems.join(", "))),
        Mode::Warn | Mode::Strict => Ok(problems),
    }
}
