//! Values that Go's types read and print in their own way: quantities, times, base64, int-or-string.
//!
//! Each function brings a value to the form Kubernetes stores. Error texts are those of the types' own `UnmarshalJSON`.

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use jiff::Timestamp;
use serde_json::Value;

use crate::quantity::Amount;

/// Go's `base64.StdEncoding`: padding needed, trailing bits ignored.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::RequireCanonical),
);

/// What a JSON value is called in Go's decoding errors.
pub(super) fn json_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Why a value cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// It is another JSON type; the decoder adds where.
    NotA {
        /// What it is.
        found: String,
        /// What Go reads.
        go_type: &'static str,
    },
    /// It is of the right JSON type, but says nothing sensible.
    Text(String),
}

fn not_a(value: &Value, go_type: &'static str) -> Unreadable {
    Unreadable::NotA { found: json_name(value).to_owned(), go_type }
}

/// A quantity becomes canonical text; plain numbers are quantities too.
pub(super) fn quantity(value: &mut Value) -> Result<(), Unreadable> {
    let text = match &*value {
        Value::String(text) => text.trim().to_owned(),
        Value::Number(number) => number.to_string(),
        other => other.to_string(),
    };
    let amount = Amount::parse(&text).map_err(|error| Unreadable::Text(error.to_string()))?;
    *value = amount.to_string().into();
    Ok(())
}

/// A time becomes whole seconds in UTC.
pub(super) fn time(value: &mut Value) -> Result<(), Unreadable> {
    let time = timestamp(value, "2006-01-02T15:04:05Z07:00")?;
    *value = format_seconds(time).into();
    Ok(())
}

/// A time becomes microseconds in UTC.
pub(super) fn micro_time(value: &mut Value) -> Result<(), Unreadable> {
    let time = timestamp(value, "2006-01-02T15:04:05.000000Z07:00")?;
    *value = format_micros(time).into();
    Ok(())
}

/// `2026-01-02T03:04:05Z`.
pub(super) fn format_seconds(time: Timestamp) -> String {
    let whole = Timestamp::from_second(time.as_second()).unwrap_or(time);
    whole.to_string()
}

/// `2026-01-02T03:04:05.000006Z`.
pub(super) fn format_micros(time: Timestamp) -> String {
    format!("{time:.6}")
}

fn timestamp(value: &Value, layout: &str) -> Result<Timestamp, Unreadable> {
    let Value::String(text) = value else { return Err(not_a(value, "string")) };
    let strict = strict_rfc3339(text).then(|| text.parse::<Timestamp>().ok()).flatten();
    strict.ok_or_else(|| {
        Unreadable::Text(format!("parsing time {text:?} as {layout:?}: cannot parse {text:?} as \"2006\""))
    })
}

/// Go wants `T` and `Z` in capitals and a two-digit hour; the library also takes looser forms.
fn strict_rfc3339(text: &str) -> bool {
    let shape = b"0000-00-00T00:00:00";
    let bytes = text.as_bytes();
    let fits = |(found, wanted): (&u8, &u8)| if *wanted == b'0' { found.is_ascii_digit() } else { found == wanted };
    bytes.len() > shape.len()
        && bytes.iter().zip(shape).all(fits)
        && (text.ends_with('Z') || matches!(bytes[bytes.len() - 6], b'+' | b'-'))
}

/// Checks base64 text.
pub(super) fn bytes(value: &mut Value) -> Result<(), Unreadable> {
    let Value::String(text) = value else { return Err(not_a(value, "[]uint8")) };
    text.retain(|c| c != '\n' && c != '\r');
    match BASE64.decode(text.as_bytes()) {
        Ok(_) => Ok(()),
        Err(base64::DecodeError::InvalidByte(offset, _) | base64::DecodeError::InvalidLastSymbol(offset, _)) => {
            Err(Unreadable::Text(format!("illegal base64 data at input byte {offset}")))
        }
        Err(_) => Err(Unreadable::Text(format!("illegal base64 data at input byte {}", text.len() - text.len() % 4))),
    }
}

/// Bytes as base64 text.
pub(super) fn encode_bytes(bytes: &[u8]) -> String {
    BASE64.encode(bytes)
}

/// A port number or text such as `25%`.
pub(super) fn int_or_string(value: &Value) -> Result<(), Unreadable> {
    match value {
        Value::String(_) => Ok(()),
        Value::Number(number) if number.as_i64().is_some_and(|n| i32::try_from(n).is_ok()) => Ok(()),
        Value::Number(number) => Err(Unreadable::NotA { found: format!("number {number}"), go_type: "int32" }),
        other => Err(not_a(other, "int32")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    type Convert = fn(&mut Value) -> Result<(), Unreadable>;

    fn after(convert: Convert, mut value: Value) -> String {
        match convert(&mut value) {
            Ok(()) => value.to_string(),
            Err(Unreadable::Text(error)) => error,
            Err(Unreadable::NotA { found, go_type }) => format!("{found} is no {go_type}"),
        }
    }

    #[test]
    fn values_come_out_as_kubernetes_stores_them() {
        let cases: [(Convert, Value, &str); 13] = [
            (quantity, json!(1), r#""1""#),
            (quantity, json!(0.5), r#""500m""#),
            (quantity, json!("1024Mi"), r#""1Gi""#),
            (quantity, json!(" 100m "), r#""100m""#),
            (
                quantity,
                json!("1x"),
                "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
            ),
            (time, json!("2026-01-02T03:04:05.678+02:00"), r#""2026-01-02T01:04:05Z""#),
            (
                time,
                json!("yesterday"),
                r#"parsing time "yesterday" as "2006-01-02T15:04:05Z07:00": cannot parse "yesterday" as "2006""#,
            ),
            (
                time,
                json!("2026-01-02 03:04:05Z"),
                r#"parsing time "2026-01-02 03:04:05Z" as "2006-01-02T15:04:05Z07:00": cannot parse "2026-01-02 03:04:05Z" as "2006""#,
            ),
            (time, json!(7), "number is no string"),
            (micro_time, json!("2026-01-02T03:04:05.678Z"), r#""2026-01-02T03:04:05.678000Z""#),
            (bytes, json!("aGVs\nbG8="), r#""aGVsbG8=""#),
            (bytes, json!("a*b="), "illegal base64 data at input byte 1"),
            (bytes, json!("aGVsbG8"), "illegal base64 data at input byte 4"),
        ];
        for (convert, value, wanted) in cases {
            assert_eq!(after(convert, value), wanted);
        }
        let int_or_string: Convert = |value| int_or_string(value);
        for (value, wanted) in [
            (json!("25%"), r#""25%""#),
            (json!(3_000_000_000_i64), "number 3000000000 is no int32"),
            (json!(true), "bool is no int32"),
        ] {
            assert_eq!(after(int_or_string, value), wanted);
        }
    }
}
