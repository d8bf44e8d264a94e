//! Checks a JSON value against a type, and brings it to the form that decoding into Go's struct and encoding again gives.
//!
//! Unknown fields are found (all of them) and removed, explicit nulls and empty `omitempty` fields are dropped, quantities and times
//! become canonical; a time that is required and left out is Go's zero. Types are checked, presence and meaning are not: those are validation's.
//! Mirrors `sigs.k8s.io/json` strict decoding for request bodies, and `runtime.DefaultUnstructuredConverter` for patched objects;
//! the two word a wrong type differently ([`Wording`]).

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::leaf::{self, Unreadable};
use super::table::{Field, Leaf, Table, TypeId, Wrap, table};

/// Go's zero time. It prints `null` for that, and reads either; the typed bodies have no other word for no time where there has to be one.
pub const ZERO_TIME: &str = "0001-01-01T00:00:00Z";

/// `?fieldValidation=`: what happens to fields that the type does not have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// They are dropped.
    Ignore,
    /// They are dropped and told.
    #[default]
    Warn,
    /// They are refused.
    Strict,
}

impl Mode {
    /// From the query parameter; empty is the default, `Warn`.
    pub fn parse(text: &str) -> Option<Mode> {
        match text {
            "" | "Warn" => Some(Mode::Warn),
            "Ignore" => Some(Mode::Ignore),
            "Strict" => Some(Mode::Strict),
            _ => None,
        }
    }
}

/// How a wrong type is worded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wording {
    /// As Go's JSON decoder does: bodies of POST and PUT, JSON patch and merge patch.
    Json,
    /// As the converter behind strategic merge patch does.
    Converter,
}

/// What `?fieldValidation=` judges; a path is `spec.containers[0].foo`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum FieldProblem {
    /// The type has no such field.
    Unknown(String),
    /// The object has the field more than once.
    Duplicate(String),
}

impl std::fmt::Display for FieldProblem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            FieldProblem::Unknown(path) => write!(f, "unknown field \"{path}\""),
            FieldProblem::Duplicate(path) => write!(f, "duplicate field \"{path}\""),
        }
    }
}

/// Checks and normalises `value` as a `kind`. `Ok` are the unknown fields; `Err` is the one value of a wrong type, or that cannot be read.
pub fn check(kind: TypeId, value: &mut Value) -> Result<Vec<FieldProblem>, String> {
    check_worded(kind, value, Wording::Json)
}

/// As [`check`], with the wording of errors chosen.
pub fn check_worded(kind: TypeId, value: &mut Value, wording: Wording) -> Result<Vec<FieldProblem>, String> {
    let mut walk = Walk { table: table(), wording, path: String::new(), fields: Vec::new(), unknown: Vec::new() };
    walk.top(kind, value)?;
    Ok(walk.unknown)
}

struct Walk {
    table: &'static Table,
    wording: Wording,
    /// Where the walk is, as unknown fields are told: with indexes and map keys.
    path: String,
    /// Where the walk is, as wrong types are told: fields only.
    fields: Vec<&'static str>,
    unknown: Vec<FieldProblem>,
}

/// What the enclosing struct and field are called in an error.
#[derive(Clone, Copy)]
struct Place<'a> {
    owner: TypeId,
    field: &'a Field,
}

impl Walk {
    fn top(&mut self, kind: TypeId, value: &mut Value) -> Result<(), String> {
        let found = leaf::json_name(value);
        match value {
            Value::Object(map) => self.object(kind, map),
            _ => {
                let go_type = self.table.go_name(kind);
                Err(format!("json: cannot unmarshal {found} into Go value of type {go_type}"))
            }
        }
    }

    fn object(&mut self, id: TypeId, map: &mut Map<String, Value>) -> Result<(), String> {
        let known = self.table.get(id);
        let mut result = Ok(());
        map.retain(|name, value| {
            if result.is_err() {
                return true;
            }
            let before = self.enter_field(name);
            let keep = match known.field(name) {
                None => {
                    self.unknown.push(FieldProblem::Unknown(self.path.clone()));
                    false
                }
                Some(_) if value.is_null() => false,
                Some(field) => {
                    let depth = self.fields.len();
                    self.fields.extend([field.inlined, field.name].into_iter().filter(|name| !name.is_empty()));
                    result = self.field(Place { owner: id, field }, value);
                    self.fields.truncate(depth);
                    !(field.omit_empty && is_zero(field, value))
                }
            };
            self.path.truncate(before);
            keep
        });
        let times = known.fields().iter().filter(|field| field.required && field.leaf == Leaf::Time);
        for field in times {
            map.entry(field.name).or_insert_with(|| ZERO_TIME.into());
        }
        result
    }

    /// Goes one step down; the result is where to cut the path when coming back.
    fn enter_field(&mut self, name: &str) -> usize {
        let before = self.path.len();
        if before > 0 {
            self.path.push('.');
        }
        self.path.push_str(name);
        before
    }

    fn field(&mut self, place: Place<'_>, value: &mut Value) -> Result<(), String> {
        match place.field.wrap {
            Wrap::One => self.leaf(place, value),
            Wrap::List => self.list(place, value),
            Wrap::Map => self.map(place, value, Self::leaf, |field| zero(field.leaf)),
            Wrap::MapOfLists => self.map(place, value, Self::list, |_| Value::Array(Vec::new())),
        }
    }

    fn list(&mut self, place: Place<'_>, value: &mut Value) -> Result<(), String> {
        let Value::Array(items) = value else { return Err(self.not_a(place, value, Holder::List)) };
        for (index, item) in items.iter_mut().enumerate() {
            let before = self.path.len();
            write!(self.path, "[{index}]").expect("writing to a string");
            let result = self.item(place, item);
            self.path.truncate(before);
            result?;
        }
        Ok(())
    }

    /// Go reads a null item as the zero value.
    fn item(&mut self, place: Place<'_>, item: &mut Value) -> Result<(), String> {
        if item.is_null() {
            *item = zero(place.field.leaf);
        }
        self.leaf(place, item)
    }

    fn map(
        &mut self,
        place: Place<'_>,
        value: &mut Value,
        each: fn(&mut Self, Place<'_>, &mut Value) -> Result<(), String>,
        empty: fn(&Field) -> Value,
    ) -> Result<(), String> {
        let Value::Object(entries) = value else { return Err(self.not_a(place, value, Holder::Map)) };
        for (key, entry) in entries.iter_mut() {
            if entry.is_null() {
                *entry = empty(place.field);
            }
            let before = self.enter_field(key);
            let result = each(self, place, entry);
            self.path.truncate(before);
            result?;
        }
        Ok(())
    }

    fn leaf(&mut self, place: Place<'_>, value: &mut Value) -> Result<(), String> {
        match place.field.leaf {
            Leaf::Struct(id) => match value {
                Value::Object(map) => self.object(id, map),
                _ => Err(self.not_a(place, value, Holder::Leaf)),
            },
            Leaf::String if value.is_string() => Ok(()),
            Leaf::Bool if value.is_boolean() => Ok(()),
            Leaf::Int32 if integer(value).is_some_and(|n| i32::try_from(n).is_ok()) => Ok(()),
            Leaf::Int64 if integer(value).is_some() => Ok(()),
            Leaf::Double if value.is_number() => Ok(()),
            Leaf::String | Leaf::Bool | Leaf::Int32 | Leaf::Int64 | Leaf::Double => {
                self.scalar_from_whole_float(place, value)
            }
            Leaf::Bytes if !value.is_string() => Err(self.not_a(place, value, Holder::Leaf)),
            Leaf::Bytes => self.told(place, leaf::bytes(value)),
            Leaf::Time => self.told(place, leaf::time(value)),
            Leaf::MicroTime => self.told(place, leaf::micro_time(value)),
            Leaf::Quantity => self.told(place, leaf::quantity(value)),
            Leaf::IntOrString => self.told(place, leaf::int_or_string(value)),
            Leaf::FieldSet | Leaf::Raw | Leaf::Json => Ok(()),
            Leaf::SchemaOrBool if value.is_boolean() => Ok(()),
            Leaf::SchemaOrBool if !value.is_object() => Err("boolean or JSON schema expected".into()),
            Leaf::SchemaOrBool | Leaf::SchemaOrArray | Leaf::SchemaOrStrings => self.schema(value),
        }
    }

    /// The converter takes `3.0` for an integer, the JSON decoder does not.
    fn scalar_from_whole_float(&self, place: Place<'_>, value: &mut Value) -> Result<(), String> {
        let whole = value.as_f64().filter(|n| n.fract() == 0.0 && n.abs() <= f64::from(i32::MAX));
        match (self.wording, place.field.leaf, whole) {
            (Wording::Converter, Leaf::Int32 | Leaf::Int64, Some(number)) => {
                *value = (number as i64).into();
                Ok(())
            }
            _ => Err(self.not_a(place, value, Holder::Leaf)),
        }
    }

    /// The places of a custom resource definition that hold a schema, or something simpler.
    fn schema(&mut self, value: &mut Value) -> Result<(), String> {
        let id = self
            .table
            .definition("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps")
            .expect("the table has the schema type");
        match value {
            Value::Object(map) => self.object(id, map),
            Value::Array(items) => items.iter_mut().try_for_each(|item| self.schema(item)),
            _ => Ok(()),
        }
    }

    fn not_a(&self, place: Place<'_>, value: &Value, holder: Holder) -> String {
        match self.wording {
            Wording::Json => self.json_mismatch(place, value, holder),
            Wording::Converter => self.converter_mismatch(place, value, holder),
        }
    }

    fn json_mismatch(&self, place: Place<'_>, value: &Value, holder: Holder) -> String {
        let found = match (value, place.field.leaf, holder) {
            (Value::Number(number), Leaf::Int32 | Leaf::Int64, Holder::Leaf) => format!("number {number}"),
            _ => leaf::json_name(value).to_owned(),
        };
        self.at_field(place, &found, &self.go_type(place.field, holder))
    }

    fn at_field(&self, place: Place<'_>, found: &str, go_type: &str) -> String {
        let (owner, path) = (self.table.get(place.owner).name, self.fields.join("."));
        format!("json: cannot unmarshal {found} into Go struct field {owner}.{path} of type {go_type}")
    }

    /// The error of a type that reads itself; the JSON decoder adds where, the converter does not.
    fn told(&self, place: Place<'_>, result: Result<(), Unreadable>) -> Result<(), String> {
        result.map_err(|error| match (error, self.wording) {
            (Unreadable::Text(text), _) => text,
            (Unreadable::NotA { found, go_type }, Wording::Json) => self.at_field(place, &found, go_type),
            (Unreadable::NotA { found, go_type }, Wording::Converter) => {
                format!("json: cannot unmarshal {found} into Go value of type {go_type}")
            }
        })
    }

    fn converter_mismatch(&self, place: Place<'_>, value: &Value, holder: Holder) -> String {
        let found = go_kind(value);
        match (holder, place.field.leaf) {
            (Holder::List, _) => format!("cannot restore slice from {found}"),
            (Holder::Map, _) => format!("cannot restore map from {found}"),
            (Holder::Leaf, Leaf::Struct(_)) => format!("cannot restore struct from: {found}"),
            (Holder::Leaf, Leaf::Bytes) => format!("cannot restore slice from {found}"),
            (Holder::Leaf, wanted) => {
                let go_type = self.go_type(place.field, holder);
                let convertible = value.is_number() && !matches!(wanted, Leaf::Bool);
                let convertible = convertible && !(matches!(wanted, Leaf::String) && value.is_f64());
                if convertible {
                    return format!("cannot convert {found} to {go_type}");
                }
                format!("unrecognized type: {}", plain_go_type(wanted))
            }
        }
    }

    /// Go's name of the type of a field, or of what a list or map field holds.
    fn go_type(&self, field: &Field, holder: Holder) -> String {
        let leaf = match field.leaf {
            Leaf::Struct(id) => self.table.go_name(id),
            other => plain_go_type(other).to_owned(),
        };
        let whole = match (field.go_type, field.wrap) {
            ("", Wrap::One) => leaf,
            ("", Wrap::List) => format!("[]{leaf}"),
            ("", Wrap::Map) => format!("map[string]{leaf}"),
            ("", Wrap::MapOfLists) => format!("map[string][]{leaf}"),
            (known, _) => known.to_owned(),
        };
        match (holder, field.wrap) {
            (Holder::Leaf, Wrap::List) => whole.strip_prefix("[]").map(str::to_owned).unwrap_or(whole),
            (Holder::Leaf, Wrap::Map) | (Holder::List, Wrap::MapOfLists) => {
                whole.split_once(']').map(|(_, element)| element.to_owned()).unwrap_or(whole)
            }
            (Holder::Leaf, Wrap::MapOfLists) => plain_go_type(field.leaf).to_owned(),
            _ => whole,
        }
    }
}

/// Which part of a field was to be read when the wrong type was met.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Holder {
    Leaf,
    List,
    Map,
}

fn integer(value: &Value) -> Option<i64> {
    value.as_i64()
}

fn plain_go_type(leaf: Leaf) -> &'static str {
    match leaf {
        Leaf::String => "string",
        Leaf::Bool => "bool",
        Leaf::Int32 => "int32",
        Leaf::Int64 => "int64",
        Leaf::Double => "float64",
        Leaf::Bytes => "[]uint8",
        Leaf::Time => "v1.Time",
        Leaf::MicroTime => "v1.MicroTime",
        Leaf::Quantity => "resource.Quantity",
        Leaf::IntOrString => "intstr.IntOrString",
        Leaf::FieldSet => "v1.FieldsV1",
        Leaf::Raw => "runtime.RawExtension",
        Leaf::Json => "v1.JSON",
        Leaf::SchemaOrBool => "v1.JSONSchemaPropsOrBool",
        Leaf::SchemaOrArray => "v1.JSONSchemaPropsOrArray",
        Leaf::SchemaOrStrings => "v1.JSONSchemaPropsOrStringArray",
        Leaf::Struct(_) => "struct",
    }
}

fn go_kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "invalid",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "slice",
        Value::Object(_) => "map",
    }
}

/// What Go's zero value of a leaf looks like in JSON.
fn zero(leaf: Leaf) -> Value {
    match leaf {
        Leaf::String | Leaf::Bytes => "".into(),
        Leaf::Bool => false.into(),
        Leaf::Int32 | Leaf::Int64 | Leaf::Double | Leaf::IntOrString => 0.into(),
        Leaf::Quantity => "0".into(),
        Leaf::Struct(_) => Value::Object(Map::new()),
        _ => Value::Null,
    }
}

/// True if Go's `omitempty` leaves the value out. Structs are never empty. (Go prints an int-or-string of 0, but its defaulting takes
/// it for absent where the field is not a pointer, and pointers have no `omitempty` here.)
fn is_zero(field: &Field, value: &Value) -> bool {
    match value {
        Value::Array(items) => items.is_empty(),
        Value::Object(entries) => field.wrap != Wrap::One && entries.is_empty(),
        Value::String(text) => text.is_empty() && matches!(field.leaf, Leaf::String | Leaf::Bytes | Leaf::IntOrString),
        Value::Bool(flag) => !flag && field.leaf == Leaf::Bool,
        Value::Number(number) => {
            let number_like = matches!(field.leaf, Leaf::Int32 | Leaf::Int64 | Leaf::Double | Leaf::IntOrString);
            number_like && number.as_f64() == Some(0.0)
        }
        Value::Null => true,
    }
}
