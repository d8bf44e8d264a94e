//! Reading the fields of an object by path: `object.text("metadata.name")`.
//!
//! What is missing reads as empty; the server has checked the types. Keys with dots (labels) are read with [`Json::map`].

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde_json::{Map, Value};

static EMPTY: LazyLock<Map<String, Value>> = LazyLock::new(Map::new);
static NULL: Value = Value::Null;

/// Fields by path.
pub trait Json {
    /// The value at a dotted path, or null.
    fn at(&self, path: &str) -> &Value;
    /// The text there, or an empty one.
    fn text(&self, path: &str) -> &str;
    /// The number there, or 0.
    fn number(&self, path: &str) -> i64;
    /// Whether `true` is there.
    fn flag(&self, path: &str) -> bool;
    /// The list there, or an empty one.
    fn list(&self, path: &str) -> &[Value];
    /// The map there, or an empty one.
    fn map(&self, path: &str) -> &Map<String, Value>;
    /// Whether something is there.
    fn has(&self, path: &str) -> bool;
    /// The text values of the map there.
    fn labels(&self, path: &str) -> BTreeMap<String, String>;
}

impl Json for Value {
    fn at(&self, path: &str) -> &Value {
        path.split('.').filter(|part| !part.is_empty()).try_fold(self, |value, part| value.get(part)).unwrap_or(&NULL)
    }

    fn text(&self, path: &str) -> &str {
        self.at(path).as_str().unwrap_or_default()
    }

    fn number(&self, path: &str) -> i64 {
        self.at(path).as_i64().unwrap_or_default()
    }

    fn flag(&self, path: &str) -> bool {
        self.at(path).as_bool().unwrap_or_default()
    }

    fn list(&self, path: &str) -> &[Value] {
        self.at(path).as_array().map_or(&[], Vec::as_slice)
    }

    fn map(&self, path: &str) -> &Map<String, Value> {
        self.at(path).as_object().unwrap_or(&EMPTY)
    }

    fn has(&self, path: &str) -> bool {
        !self.at(path).is_null()
    }

    fn labels(&self, path: &str) -> BTreeMap<String, String> {
        self.map(path).iter().filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
    }
}

/// Text of a scalar as it appears in messages.
pub fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}
