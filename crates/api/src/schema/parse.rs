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
    let duplicates = RefCell::new(BTreeSet::new());
    let mut reader = serde_json::Deserializer::from_slice(text);
    let top = Node { above: None, step: Step::Top, duplicates: &duplicates, depth };
    let value = top.deserialize(&mut reader).map_err(|error| ParseError(error.to_string()))?;
    reader.end().map_err(|error| ParseError(error.to_string()))?;
    let paths = duplicates.into_inner();
    Ok((value, paths.into_iter().map(|path| format!("duplicate field \"{path}\"")).collect()))
}

/// A place in the document. The places above it are on the stack, so that a path costs nothing until it is told.
#[derive(Clone, Copy)]
struct Node<'a> {
    above: Option<&'a Node<'a>>,
    step: Step<'a>,
    duplicates: &'a RefCell<BTreeSet<String>>,
    depth: usize,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Top,
    Field(&'a str),
    Item(usize),
}

impl<'a> Node<'a> {
    /// The place below this one; an error when the document is nested too deep.
    fn below<E: serde::de::Error>(&'a self, step: Step<'a>) -> Result<Node<'a>, E> {
        let depth = self.depth.checked_sub(1).ok_or_else(|| E::custom("exceeded max depth"))?;
        Ok(Node { above: Some(self), step, duplicates: self.duplicates, depth })
    }

    fn path(&self) -> String {
        let above = self.above.map(Node::path).unwrap_or_default();
        match self.step {
            Step::Top => above,
            Step::Field(name) if above.is_empty() => name.to_owned(),
            Step::Field(name) => format!("{above}.{name}"),
            Step::Item(index) => format!("{above}[{index}]"),
        }
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
        while let Some(item) = items.next_element_seed(self.below::<A::Error>(Step::Item(list.len()))?)? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(name) = entries.next_key::<String>()? {
            let below = self.below::<A::Error>(Step::Field(&name))?;
            if map.contains_key(&name) {
                self.duplicates.borrow_mut().insert(below.path());
            }
            let value = entries.next_value_seed(below)?;
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
