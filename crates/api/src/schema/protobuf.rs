//! Request bodies in protobuf, which current kubectl sends for the objects it makes itself (`kubectl create deployment`).
//!
//! Mirrors apimachinery `pkg/runtime/serializer/protobuf`: four magic bytes, then `runtime.Unknown` around the object. Driven by the
//! field numbers of the table; the result is JSON as a client would have sent it, still to be checked. Answers are never protobuf.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::leaf;
use super::table::{Field, Leaf, TypeId, Wrap, table};
use super::wire::{Fields, Wire, WireError};
use crate::limits;

/// The media type of such bodies.
pub const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";

const MAGIC: &[u8] = b"k8s\0";

/// Why a protobuf body is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtobufError {
    /// It does not start with the magic bytes.
    #[error("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")]
    NotProtobuf,
    /// It breaks off, or is malformed.
    #[error("{0}")]
    Malformed(&'static str),
    /// A field has another type than the schema says.
    #[error("proto: wrong wireType for field {0}")]
    WrongType(&'static str),
    /// A text field is no UTF-8, or an embedded JSON document is broken.
    #[error("proto: invalid content of field {0}")]
    WrongContent(&'static str),
    /// Messages are nested too deep.
    #[error("proto: exceeded max depth")]
    TooDeep,
    /// The kind is not known here.
    #[error("no kind \"{kind}\" is registered for version \"{api_version}\"")]
    UnknownKind {
        /// As the body says.
        api_version: String,
        /// As the body says.
        kind: String,
    },
}

impl From<WireError> for ProtobufError {
    fn from(error: WireError) -> Self {
        ProtobufError::Malformed(match error {
            WireError::End => "unexpected EOF",
            WireError::Overflow => "proto: integer overflow",
            WireError::Tag => "proto: illegal tag or wireType",
        })
    }
}

type Result<T> = std::result::Result<T, ProtobufError>;
type Object = Map<String, Value>;

/// Decodes a body; `apiVersion` and `kind` come from the envelope.
pub fn protobuf_to_json(body: &[u8]) -> Result<Value> {
    let mut envelope = Fields(body.strip_prefix(MAGIC).ok_or(ProtobufError::NotProtobuf)?);
    let (mut api_version, mut kind, mut raw) = (String::new(), String::new(), &[][..]);
    while let Some(field) = envelope.next()? {
        match field {
            (1, Wire::Bytes(type_meta)) => {
                let mut fields = Fields(type_meta);
                while let Some(field) = fields.next()? {
                    match field {
                        (1, Wire::Bytes(text)) => api_version = utf8("apiVersion", text)?,
                        (2, Wire::Bytes(text)) => kind = utf8("kind", text)?,
                        _ => {}
                    }
                }
            }
            (2, Wire::Bytes(bytes)) => raw = bytes,
            _ => {}
        }
    }
    let Some(id) = type_named(&api_version, &kind) else {
        return Err(ProtobufError::UnknownKind { api_version, kind });
    };
    let mut object = Object::new();
    message(id, raw, &mut object, limits::JSON_DEPTH)?;
    object.insert("apiVersion".into(), api_version.into());
    object.insert("kind".into(), kind.into());
    Ok(object.into())
}

/// `DeleteOptions` is a kind of every group.
fn type_named(api_version: &str, kind: &str) -> Option<TypeId> {
    let everywhere = if kind == "DeleteOptions" { "v1" } else { api_version };
    table().kind(everywhere, kind)
}

fn utf8(name: &'static str, bytes: &[u8]) -> Result<String> {
    String::from_utf8(bytes.to_vec()).map_err(|_| ProtobufError::WrongContent(name))
}

fn message(id: TypeId, bytes: &[u8], object: &mut Object, depth: usize) -> Result<()> {
    let depth = depth.checked_sub(1).ok_or(ProtobufError::TooDeep)?;
    let known = table().get(id);
    let mut fields = Fields(bytes);
    while let Some((number, wire)) = fields.next()? {
        if let Some(inlined) = known.inline(number) {
            message(inlined, content(known.name, wire)?, object, depth)?;
        } else if let Some(field) = known.numbered(number) {
            add(field, wire, object, depth)?;
        }
    }
    Ok(())
}

fn add(field: &'static Field, wire: Wire<'_>, object: &mut Object, depth: usize) -> Result<()> {
    let name = field.name;
    match field.wrap {
        Wrap::One => {
            object.insert(name.to_owned(), value(field, wire, depth)?);
        }
        Wrap::List => {
            let items = items(field, wire, depth)?;
            if let Value::Array(list) = object.entry(name).or_insert_with(|| json!([])) {
                list.extend(items);
            }
        }
        Wrap::Map | Wrap::MapOfLists => {
            let (key, entry) = map_entry(field, content(name, wire)?, depth)?;
            if let Value::Object(map) = object.entry(name).or_insert_with(|| json!({})) {
                map.insert(key, entry);
            }
        }
    }
    Ok(())
}

/// One item of a list, or several numbers packed into one field.
fn items(field: &'static Field, wire: Wire<'_>, depth: usize) -> Result<Vec<Value>> {
    match (field.leaf, wire) {
        (Leaf::Int32 | Leaf::Int64, Wire::Bytes(packed)) => {
            let mut numbers = Fields(packed);
            let mut items = Vec::new();
            while !numbers.0.is_empty() {
                items.push((numbers.varint()? as i64).into());
            }
            Ok(items)
        }
        _ => Ok(vec![value(field, wire, depth)?]),
    }
}

/// A map is a list of entries: key (1), value (2).
fn map_entry(field: &'static Field, entry: &[u8], depth: usize) -> Result<(String, Value)> {
    let (mut key, mut found) = (String::new(), None);
    let mut fields = Fields(entry);
    while let Some(part) = fields.next()? {
        match part {
            (1, wire) => key = utf8(field.name, content(field.name, wire)?)?,
            (2, wire) if field.wrap == Wrap::MapOfLists => {
                found = Some(texts(field.name, content(field.name, wire)?, 1)?)
            }
            (2, wire) => found = Some(value(field, wire, depth)?),
            _ => {}
        }
    }
    let empty = if field.wrap == Wrap::MapOfLists { json!([]) } else { Value::Null };
    Ok((key, found.unwrap_or(empty)))
}

fn content<'a>(name: &'static str, wire: Wire<'a>) -> Result<&'a [u8]> {
    match wire {
        Wire::Bytes(bytes) => Ok(bytes),
        _ => Err(ProtobufError::WrongType(name)),
    }
}

fn value(field: &'static Field, wire: Wire<'_>, depth: usize) -> Result<Value> {
    let name = field.name;
    Ok(match (field.leaf, wire) {
        (Leaf::Bool, Wire::Varint(number)) => (number != 0).into(),
        (Leaf::Int32, Wire::Varint(number)) => i64::from(number as i32).into(),
        (Leaf::Int64, Wire::Varint(number)) => (number as i64).into(),
        (Leaf::Double, Wire::Fixed64(bits)) => f64::from_bits(bits).into(),
        (Leaf::Bool | Leaf::Int32 | Leaf::Int64 | Leaf::Double, _) => return Err(ProtobufError::WrongType(name)),
        (leaf, wire) => encoded(leaf, name, content(name, wire)?, depth)?,
    })
}

/// A length-delimited value.
fn encoded(leaf: Leaf, name: &'static str, bytes: &[u8], depth: usize) -> Result<Value> {
    Ok(match leaf {
        Leaf::String => utf8(name, bytes)?.into(),
        Leaf::Bytes => leaf::encode_bytes(bytes).into(),
        Leaf::Struct(id) => {
            let mut object = Object::new();
            message(id, bytes, &mut object, depth)?;
            object.into()
        }
        Leaf::Time => time(name, bytes)?.map_or(Value::Null, |time| leaf::format_seconds(time).into()),
        Leaf::MicroTime => time(name, bytes)?.map_or(Value::Null, |time| leaf::format_micros(time).into()),
        Leaf::Quantity => {
            field_of(bytes, 1)?.map_or(Ok("0".into()), |text| utf8(name, content(name, text)?).map(Value::from))?
        }
        Leaf::IntOrString => int_or_string(name, bytes)?,
        Leaf::Raw | Leaf::Json | Leaf::FieldSet => embedded(name, bytes)?,
        Leaf::SchemaOrBool => match field_of(bytes, 2)? {
            Some(wire) => schema(name, content(name, wire)?, depth)?,
            None => matches!(field_of(bytes, 1)?, Some(Wire::Varint(1..))).into(),
        },
        Leaf::SchemaOrArray | Leaf::SchemaOrStrings => schema_or_list(leaf, name, bytes, depth)?,
        Leaf::Bool | Leaf::Int32 | Leaf::Int64 | Leaf::Double => return Err(ProtobufError::WrongType(name)),
    })
}

/// The last field with this number.
fn field_of(bytes: &[u8], wanted: u32) -> Result<Option<Wire<'_>>> {
    let mut fields = Fields(bytes);
    let mut found = None;
    while let Some((number, wire)) = fields.next()? {
        if number == wanted {
            found = Some(wire);
        }
    }
    Ok(found)
}

fn texts(name: &'static str, bytes: &[u8], wanted: u32) -> Result<Value> {
    let mut fields = Fields(bytes);
    let mut texts = Vec::new();
    while let Some((number, wire)) = fields.next()? {
        if number == wanted {
            texts.push(Value::from(utf8(name, content(name, wire)?)?));
        }
    }
    Ok(texts.into())
}

/// Seconds (1) and nanoseconds (2) since 1970; both 0 is no time.
fn time(name: &'static str, bytes: &[u8]) -> Result<Option<Timestamp>> {
    let number = |wire: Option<Wire<'_>>| match wire {
        Some(Wire::Varint(number)) => number as i64,
        _ => 0,
    };
    let (seconds, nanos) = (number(field_of(bytes, 1)?), number(field_of(bytes, 2)?));
    if (seconds, nanos) == (0, 0) {
        return Ok(None);
    }
    let wrong = ProtobufError::WrongContent(name);
    let nanos = i32::try_from(nanos).map_err(|_| wrong.clone())?;
    Timestamp::new(seconds, nanos).map(Some).map_err(|_| wrong)
}

/// Type (1: 0 is a number), number (2), text (3).
fn int_or_string(name: &'static str, bytes: &[u8]) -> Result<Value> {
    if matches!(field_of(bytes, 1)?, Some(Wire::Varint(1))) {
        let text = field_of(bytes, 3)?.map_or(Ok(&[][..]), |wire| content(name, wire))?;
        return Ok(utf8(name, text)?.into());
    }
    Ok(match field_of(bytes, 2)? {
        Some(Wire::Varint(number)) => i64::from(number as i32).into(),
        _ => 0.into(),
    })
}

/// A JSON document in field 1.
fn embedded(name: &'static str, bytes: &[u8]) -> Result<Value> {
    let Some(wire) = field_of(bytes, 1)? else { return Ok(Value::Null) };
    let parsed = super::parse_json(content(name, wire)?, limits::JSON_DEPTH);
    parsed.map(|(value, _)| value).map_err(|_| ProtobufError::WrongContent(name))
}

fn schema(name: &'static str, bytes: &[u8], depth: usize) -> Result<Value> {
    let id = table().definition("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps");
    let mut object = Object::new();
    message(id.ok_or(ProtobufError::WrongType(name))?, bytes, &mut object, depth)?;
    Ok(object.into())
}

/// A schema (1), or a list (2) of schemas or of texts.
fn schema_or_list(leaf: Leaf, name: &'static str, bytes: &[u8], depth: usize) -> Result<Value> {
    if let Some(wire) = field_of(bytes, 1)? {
        return schema(name, content(name, wire)?, depth);
    }
    if leaf == Leaf::SchemaOrStrings {
        return texts(name, bytes, 2);
    }
    let mut fields = Fields(bytes);
    let mut schemas = Vec::new();
    while let Some((number, wire)) = fields.next()? {
        if number == 2 {
            schemas.push(schema(name, content(name, wire)?, depth)?);
        }
    }
    Ok(schemas.into())
}

#[cfg(test)]
#[path = "protobuf_tests.rs"]
mod tests;
