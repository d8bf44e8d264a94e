//! What is wrong with a field, said as Kubernetes says it.
//!
//! Mirrors apimachinery `pkg/util/validation/field`. A [`Path`] lives on the stack and becomes text only when something
//! is wrong, so that checking a good object allocates nothing.

use std::fmt;

use serde::Serialize;
use serde_json::Value;

use crate::status::Cause;

/// The place of a field: `spec.containers[0].ports[1].name`.
#[derive(Clone, Copy, Debug)]
pub struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    part: Part<'a>,
}

#[derive(Clone, Copy, Debug)]
enum Part<'a> {
    Name(&'a str),
    Index(usize),
    Key(&'a str),
}

impl<'a> Path<'a> {
    /// A path that starts at the object: `metadata`, `spec.template`.
    pub const fn root(name: &'a str) -> Self {
        Path { parent: None, part: Part::Name(name) }
    }

    /// A field below; may name several levels at once.
    pub const fn child(&'a self, name: &'a str) -> Self {
        Path { parent: Some(self), part: Part::Name(name) }
    }

    /// An element of a list.
    pub const fn index(&'a self, index: usize) -> Self {
        Path { parent: Some(self), part: Part::Index(index) }
    }

    /// An element of a map.
    pub const fn key(&'a self, key: &'a str) -> Self {
        Path { parent: Some(self), part: Part::Key(key) }
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            write!(f, "{parent}")?;
        }
        match self.part {
            Part::Name(name) if self.parent.is_some() => write!(f, ".{name}"),
            Part::Name(name) => f.write_str(name),
            Part::Index(index) => write!(f, "[{index}]"),
            Part::Key(key) => write!(f, "[{key}]"),
        }
    }
}

/// The sorts of faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Something refers to what is not there.
    NotFound,
    /// A value has to be given.
    Required,
    /// The value has to be unique.
    Duplicate,
    /// The value is malformed or out of bounds.
    Invalid,
    /// Like [`Fault::Invalid`], for a whole that is not shown.
    Malformed,
    /// The value is none of those known.
    NotSupported,
    /// The value may not be given here.
    Forbidden,
    /// The text is too long.
    TooLong,
    /// The list is too long.
    TooMany,
}

impl Fault {
    fn reason(self) -> &'static str {
        match self {
            Self::NotFound => "FieldValueNotFound",
            Self::Required => "FieldValueRequired",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Invalid | Self::Malformed => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Forbidden => "FieldValueForbidden",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::NotFound => "Not found",
            Self::Required => "Required value",
            Self::Duplicate => "Duplicate value",
            Self::Invalid | Self::Malformed => "Invalid value",
            Self::NotSupported => "Unsupported value",
            Self::Forbidden => "Forbidden",
            Self::TooLong => "Too long",
            Self::TooMany => "Too many",
        }
    }

    fn shows_value(self) -> bool {
        !matches!(self, Self::Required | Self::Forbidden | Self::TooLong | Self::Malformed)
    }
}

/// One fault of one field.
#[derive(Debug, Clone, PartialEq)]
pub struct FieldError {
    /// The field's path.
    pub field: String,
    /// The sort of fault.
    pub fault: Fault,
    /// The value found there.
    pub value: Value,
    /// What is wrong with it; may be empty.
    pub detail: String,
}

impl FieldError {
    /// The text without the path.
    pub fn body(&self) -> String {
        let mut text = self.fault.text().to_owned();
        if self.fault.shows_value() {
            text.push_str(": ");
            text.push_str(&shown(&self.value));
        }
        if !self.detail.is_empty() {
            text.push_str(": ");
            text.push_str(&self.detail);
        }
        text
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.body())
    }
}

impl From<FieldError> for Cause {
    fn from(error: FieldError) -> Self {
        let message = error.body();
        Cause { reason: error.fault.reason().to_owned(), message, field: error.field }
    }
}

/// Texts are quoted as Go quotes them, everything else is JSON as Go writes it.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => quote(text),
        other => other.to_string().replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026"),
    }
}

/// Go's `%q`.
pub(crate) fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{b}' => out.push_str("\\v"),
            '\u{c}' => out.push_str("\\f"),
            c if c < ' ' || c == '\u{7f}' => out.push_str(&format!("\\x{:02x}", u32::from(c))),
            c if c.is_control() => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// The faults found so far.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Errors(pub Vec<FieldError>);

impl Errors {
    /// Notes a fault.
    pub fn add(&mut self, path: &Path<'_>, fault: Fault, value: impl Into<Value>, detail: impl Into<String>) {
        let (value, detail) = (value.into(), detail.into());
        self.0.push(FieldError { field: path.to_string(), fault, value, detail });
    }

    /// A value has to be given.
    pub fn required(&mut self, path: &Path<'_>, detail: impl Into<String>) {
        self.add(path, Fault::Required, "", detail);
    }

    /// The value is malformed or out of bounds.
    pub fn invalid(&mut self, path: &Path<'_>, value: impl Into<Value>, detail: impl Into<String>) {
        self.add(path, Fault::Invalid, value, detail);
    }

    /// Like [`Errors::invalid`] for a value that is shown as JSON.
    pub fn invalid_object(&mut self, path: &Path<'_>, value: &impl Serialize, detail: impl Into<String>) {
        self.invalid(path, serde_json::to_value(value).unwrap_or(Value::Null), detail);
    }

    /// The rule is malformed as a whole, so that no value is shown.
    pub fn invalid_rule(&mut self, path: &Path<'_>, detail: impl Into<String>) {
        self.add(path, Fault::Malformed, "", detail);
    }

    /// Every problem that a check of a text named.
    pub fn each(&mut self, path: &Path<'_>, value: &str, problems: Vec<String>) {
        for problem in problems {
            self.invalid(path, value, problem);
        }
    }

    /// Every problem that a check of a number named.
    pub fn each_number(&mut self, path: &Path<'_>, value: i64, problems: Vec<String>) {
        for problem in problems {
            self.invalid(path, value, problem);
        }
    }

    /// The value may not be given here.
    pub fn forbidden(&mut self, path: &Path<'_>, detail: impl Into<String>) {
        self.add(path, Fault::Forbidden, "", detail);
    }

    /// The value has to be unique.
    pub fn duplicate(&mut self, path: &Path<'_>, value: impl Into<Value>) {
        self.add(path, Fault::Duplicate, value, "");
    }

    /// Something refers to what is not there.
    pub fn not_found(&mut self, path: &Path<'_>, value: impl Into<Value>) {
        self.add(path, Fault::NotFound, value, "");
    }

    /// The text is longer than so many bytes.
    pub fn too_long(&mut self, path: &Path<'_>, limit: usize) {
        let bytes = if limit == 1 { "byte" } else { "bytes" };
        self.add(path, Fault::TooLong, "<value omitted>", format!("may not be more than {limit} {bytes}"));
    }

    /// The list is longer than allowed.
    pub fn too_many(&mut self, path: &Path<'_>, count: usize, limit: usize) {
        let items = if limit == 1 { "item" } else { "items" };
        self.add(path, Fault::TooMany, count, format!("must have at most {limit} {items}"));
    }

    /// The value is none of those known.
    pub fn not_supported(&mut self, path: &Path<'_>, value: impl Into<Value>, known: &[&str]) {
        let known = known.iter().map(|value| quote(value)).collect::<Vec<_>>().join(", ");
        self.add(path, Fault::NotSupported, value, format!("supported values: {known}"));
    }

    /// A required value that has to be one of those known.
    pub fn one_of(&mut self, path: &Path<'_>, value: Option<&str>, known: &[&str]) {
        match value {
            None | Some("") => self.required(path, ""),
            Some(value) => self.optional_one_of(path, Some(value), known),
        }
    }

    /// A value that, if given, has to be one of those known.
    pub fn optional_one_of(&mut self, path: &Path<'_>, value: Option<&str>, known: &[&str]) {
        if let Some(value) = value
            && !known.contains(&value)
        {
            self.not_supported(path, value, known);
        }
    }

    /// The number may not be negative.
    pub fn not_negative(&mut self, path: &Path<'_>, value: impl Into<i64>) {
        let value = value.into();
        if value < 0 {
            self.invalid(path, value, "must be greater than or equal to 0");
        }
    }

    /// The number has to be positive.
    pub fn positive(&mut self, path: &Path<'_>, value: impl Into<i64>) {
        let value = value.into();
        if value <= 0 {
            self.invalid(path, value, "must be greater than zero");
        }
    }

    /// The value may not change.
    pub fn immutable<T: PartialEq + Serialize>(&mut self, path: &Path<'_>, new: &T, old: &T) {
        if new != old {
            self.invalid_object(path, new, "field is immutable");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use serde_json::json;

    #[test]
    fn rendered_as_upstream() {
        let spec = Path::root("spec");
        let containers = spec.child("containers");
        let container = containers.index(0);
        let mut errors = Errors::default();
        errors.required(&container.child("image"), "");
        errors.invalid(&spec.child("replicas"), -1, "must be greater than or equal to 0");
        errors.invalid_object(&spec.child("selector"), &json!({"matchLabels": {"a": "<b>"}}), "field is immutable");
        errors.not_supported(&spec.child("dnsPolicy"), "x\n\"", &["A", "B"]);
        errors.too_long(&Path::root("metadata.annotations"), 262_144);
        errors.not_found(&container.child("volumeMounts").index(1).child("name"), "v");
        errors.duplicate(&container.child("ports").index(1).child("name"), "http");
        errors.forbidden(&spec.child("limits").key("cpu"), "no");
        errors.too_many(&spec.child("rules"), 30, 20);
        let table = errors.0.iter().map(|error| format!("{error}\n")).collect::<String>();
        expect![[r#"
            spec.containers[0].image: Required value
            spec.replicas: Invalid value: -1: must be greater than or equal to 0
            spec.selector: Invalid value: {"matchLabels":{"a":"\u003cb\u003e"}}: field is immutable
            spec.dnsPolicy: Unsupported value: "x\n\"": supported values: "A", "B"
            metadata.annotations: Too long: may not be more than 262144 bytes
            spec.containers[0].volumeMounts[1].name: Not found: "v"
            spec.containers[0].ports[1].name: Duplicate value: "http"
            spec.limits[cpu]: Forbidden: no
            spec.rules: Too many: 30: must have at most 20 items
        "#]]
        .assert_eq(&table);
    }
}
