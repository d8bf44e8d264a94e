//! From bytes to a typed body: parsed with bounds, checked against the schema, decoded.

use api::schema::{self, Mode};
use api::{Body, Kind, Refusal, limits};
use serde_json::Value;

/// A decoded body and what should be told about it.
#[derive(Debug)]
pub struct Decoded {
    /// The object.
    pub body: Body,
    /// Sentences for `Warning` headers.
    pub warnings: Vec<String>,
}

/// The query parameter `fieldValidation`.
pub fn field_validation(text: &str) -> Result<Mode, Refusal> {
    if text.is_empty() {
        return Ok(Mode::Warn);
    }
    Mode::parse(text).ok_or_else(|| {
        Refusal::bad_request(format!(
            "fieldValidation: Unsupported value: \"{text}\": supported values: \"Ignore\", \"Strict\", \"Warn\""
        ))
    })
}

/// A YAML body as JSON.
pub fn yaml_to_json(bytes: &[u8]) -> Result<bytes::Bytes, Refusal> {
    let value: Value = serde_yaml::from_slice(bytes)
        .map_err(|error| Refusal::bad_request(format!("error parsing the YAML body: {error}")))?;
    Ok(value.to_string().into())
}

/// Parses a JSON document that is not a stored object.
pub fn document(json: &[u8]) -> Result<Value, Refusal> {
    let (value, _) = schema::parse_json(json, limits::JSON_DEPTH)
        .map_err(|error| Refusal::bad_request(format!("the request body is not valid JSON: {error}")))?;
    Ok(value)
}

/// Decodes a whole object of `kind` from a request body.
pub fn object(kind: Kind, json: &[u8], mode: Mode) -> Result<Decoded, Refusal> {
    let (value, warnings) = schema::read(kind, json, mode)?;
    check_type(kind, &value)?;
    Ok(Decoded { body: typed(kind, value)?, warnings })
}

/// A checked value as its type.
pub fn typed(kind: Kind, value: Value) -> Result<Body, Refusal> {
    kind.decode(value).map_err(|error| {
        let info = kind.info();
        Refusal::bad_request(format!(
            "{} in version \"{}\" cannot be handled as a {}: {error}",
            info.kind, info.version, info.kind
        ))
    })
}

fn check_type(kind: Kind, value: &Value) -> Result<(), Refusal> {
    let info = kind.info();
    let text = |field: &str| value.get(field).and_then(Value::as_str).unwrap_or("");
    let (api_version, name) = (text("apiVersion"), text("kind"));
    let wrong_kind = !name.is_empty() && name != info.kind;
    let wrong_version = !api_version.is_empty() && api_version != info.api_version();
    if wrong_kind || wrong_version {
        return Err(Refusal::bad_request(format!(
            "the API version in the data ({api_version}, Kind={name}) does not match the expected API version ({}, Kind={})",
            info.api_version(),
            info.kind
        )));
    }
    Ok(())
}
