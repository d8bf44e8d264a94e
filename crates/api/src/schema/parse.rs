//! JSON text to a value, with what `serde_json` alone does not tell: fields that occur twice.
//!
//! Mirrors `sigs.k8s.io/json` (`UnmarshalStrict`): the last of several values wins, each repeated field is reported once by its path.
//! Never recurses deeper than the limit it is given.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// Why a text is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ParseError(String);

/// Reads JSON nested at most `depth` levels; the second result is one `duplicate field "a.b"` a repeated field.
pub fn parse_json(text: &[u8], depth: usize) -> Result<(Value, Vec<String>), ParseError> {
    let state = RefCell::new(State::default());
    let mut reader = serde_json::Deserializer::from_slice(text);
    let value =
        Node { state: &state, depth }.deserialize(&mut reader).map_err(|error| ParseError(error.to_string()))?;
    reader.end().map_err(|error| ParseError(error.to_string()))?;
    let paths = state.into_inner().duplicates;
    Ok((value, paths.into_iter().map(|path| format!("duplicate field \"{path}\"")).collect()))
}

#[derive(Default)]
struct State {
    path: String,
    duplicates: BTreeSet<String>,
}

struct Node<'a> {
    state: &'a RefCell<State>,
    depth: usize,
}

impl Node<'_> {
    /// The node below this one at `step`; `None` when the document is nested too deep.
    fn below<E: serde::de::Error>(&self, step: fmt::Arguments<'_>) -> Result<(Self, usize), E> {
        let depth = self.depth.checked_sub(1).ok_or_else(|| E::custom("exceeded max depth"))?;
        let mut state = self.state.borrow_mut();
        let before = state.path.len();
        fmt::Write::write_fmt(&mut state.path, step).expect("writing to a string");
        Ok((Node { state: self.state, depth }, before))
    }

    fn back(&self, length: usize) {
        self.state.borrow_mut().path.truncate(length);
    }
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        loop {
            let (below, before) = self.below::<A::Error>(format_args!("[{}]", list.len()))?;
            let item = items.next_element_seed(below)?;
            self.back(before);
            match item {
                Some(item) => list.push(item),
                None => return Ok(Value::Array(list)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(name) = entries.next_key::<String>()? {
            let dot = if self.state.borrow().path.is_empty() { "" } else { "." };
            let (below, before) = self.below::<A::Error>(format_args!("{dot}{name}"))?;
            if map.contains_key(&name) {
                let mut state = self.state.borrow_mut();
                let path = state.path.clone();
                state.duplicates.insert(path);
            }
            let value = entries.next_value_seed(below)?;
            self.back(before);
            map.insert(name, value);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_value_wins_and_duplicates_are_told() {
        let text = br#"{"spec":{"replicas":1,"replicas":2,"l":[{"a":1},{"a":1,"a":2}]},"spec2":null}"#;
        let (value, duplicates) = parse_json(text, 10).unwrap();
        assert_eq!(value, serde_json::json!({"spec":{"replicas":2,"l":[{"a":1},{"a":2}]},"spec2":null}));
        assert_eq!(duplicates, [r#"duplicate field "spec.l[1].a""#, r#"duplicate field "spec.replicas""#]);
    }

    #[test]
    fn depth_is_bounded() {
        assert!(parse_json(b"[[[1]]]", 3).is_ok());
        assert!(parse_json(b"[[[1]]]", 2).unwrap_err().to_string().contains("exceeded max depth"));
        let deep = "[".repeat(100_000);
        assert!(parse_json(deep.as_bytes(), usize::MAX).is_err());
        assert!(parse_json(b"{} x", 3).is_err());
    }
}
