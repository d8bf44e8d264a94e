//! A Swagger 2.0 document as the protobuf message that old clients read (gnostic's `openapi.v2.Document`).
//!
//! Field numbers are those of gnostic's `OpenAPIv2.proto`; only what the documents built here hold is written. Clients need the names,
//! types, references, required fields and extensions; extensions travel as YAML, of which JSON is a part.

use serde_json::{Map, Value};

use crate::schema::wire::Message;

type Object = Map<String, Value>;

/// Encodes a document made by `openapi::v2`.
pub(super) fn encode(document: &Value) -> Vec<u8> {
    let mut message = Message::default();
    text(&mut message, 1, &document["swagger"]);
    let mut info = Message::default();
    text(&mut info, 1, &document["info"]["title"]);
    text(&mut info, 2, &document["info"]["version"]);
    message.message(2, &info);
    message.message(8, &named(2, &document["paths"], path_item));
    message.message(9, &named(1, &document["definitions"], schema));
    message.0
}

/// A map of names to messages: each entry a message of name (1) and value (2) at `number`.
fn named(number: u32, map: &Value, encode: fn(&Value) -> Message) -> Message {
    let mut message = Message::default();
    for (name, value) in map.as_object().into_iter().flatten() {
        let mut entry = Message::default();
        entry.bytes(1, name.as_bytes());
        entry.message(2, &encode(value));
        message.message(number, &entry);
    }
    message
}

fn text(message: &mut Message, number: u32, value: &Value) {
    if let Some(text) = value.as_str() {
        message.bytes(number, text.as_bytes());
    }
}

fn texts(message: &mut Message, number: u32, values: &Value) {
    values.as_array().into_iter().flatten().for_each(|value| text(message, number, value));
}

fn flag(message: &mut Message, number: u32, value: &Value) {
    if value.as_bool() == Some(true) {
        message.varint(number, 1);
    }
}

/// Any value, as YAML text.
fn any(value: &Value) -> Message {
    let mut message = Message::default();
    message.bytes(2, value.to_string().as_bytes());
    message
}

fn extensions(message: &mut Message, number: u32, of: &Value) {
    let extensions: Object = of
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(name, _)| name.starts_with("x-"))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    message.0.extend(named(number, &extensions.into(), any).0);
}

fn path_item(value: &Value) -> Message {
    let mut message = Message::default();
    for (number, method) in [(2, "get"), (3, "put"), (4, "post"), (5, "delete"), (8, "patch")] {
        if value[method].is_object() {
            message.message(number, &operation(&value[method]));
        }
    }
    parameters(&mut message, 9, &value["parameters"]);
    message
}

fn operation(value: &Value) -> Message {
    let mut message = Message::default();
    text(&mut message, 5, &value["operationId"]);
    texts(&mut message, 6, &value["produces"]);
    texts(&mut message, 7, &value["consumes"]);
    parameters(&mut message, 8, &value["parameters"]);
    message.message(9, &named(1, &value["responses"], response));
    extensions(&mut message, 13, value);
    message
}

/// `ParametersItem { parameter: Parameter { body | non_body { query | path } } }`.
fn parameters(message: &mut Message, number: u32, values: &Value) {
    for value in values.as_array().into_iter().flatten() {
        let mut parameter = Message::default();
        match value["in"].as_str() {
            Some("body") => parameter.message(1, &body_parameter(value)),
            Some("query") => parameter.message(2, &one_of(3, &plain_parameter(value, 6, 20))),
            _ => parameter.message(2, &one_of(4, &plain_parameter(value, 5, 19))),
        }
        message.message(number, &one_of(1, &parameter));
    }
}

fn one_of(number: u32, inner: &Message) -> Message {
    let mut message = Message::default();
    message.message(number, inner);
    message
}

fn body_parameter(value: &Value) -> Message {
    let mut message = Message::default();
    text(&mut message, 2, &value["name"]);
    text(&mut message, 3, &value["in"]);
    flag(&mut message, 4, &value["required"]);
    message.message(5, &schema(&value["schema"]));
    message
}

fn plain_parameter(value: &Value, type_number: u32, unique_number: u32) -> Message {
    let mut message = Message::default();
    flag(&mut message, 1, &value["required"]);
    text(&mut message, 2, &value["in"]);
    text(&mut message, 4, &value["name"]);
    text(&mut message, type_number, &value["type"]);
    flag(&mut message, unique_number, &value["uniqueItems"]);
    message
}

/// `ResponseValue { response: Response { description, schema: SchemaItem { schema } } }`.
fn response(value: &Value) -> Message {
    let mut message = Message::default();
    text(&mut message, 1, &value["description"]);
    message.message(2, &one_of(1, &schema(&value["schema"])));
    one_of(1, &message)
}

fn schema(value: &Value) -> Message {
    let mut message = Message::default();
    text(&mut message, 1, &value["$ref"]);
    text(&mut message, 2, &value["format"]);
    text(&mut message, 4, &value["description"]);
    if let Some(default) = value.get("default") {
        message.message(5, &any(default));
    }
    texts(&mut message, 19, &value["required"]);
    value["enum"].as_array().into_iter().flatten().for_each(|allowed| message.message(20, &any(allowed)));
    if let Some(each) = value.get("additionalProperties") {
        message.message(21, &one_of(1, &schema(each)));
    }
    if value["type"].is_string() {
        let mut kind = Message::default();
        text(&mut kind, 1, &value["type"]);
        message.message(22, &kind);
    }
    if let Some(each) = value.get("items") {
        message.message(23, &one_of(1, &schema(each)));
    }
    if let Some(properties) = value.get("properties") {
        message.message(25, &named(1, properties, schema));
    }
    extensions(&mut message, 31, value);
    message
}
