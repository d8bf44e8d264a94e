//! JSON text to a value, with what `serde_json` alone does not tell: fields that occur twice.
//!
//! Mirrors `sigs.k8s.io/json` (`UnmarshalStrict`): the last of several values wins, each repeated field is reported once by its path.
//! Never recurses deeper than the limit it is given.

use std::cell::RefCell;
use std::collections::HashSet;
use std::{fmt, iter};

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::check::FieldProblem;

/// Fields that are told at most (upstream: `saveStrictError`).
const MOST_TOLD: usize = 100;

/// Why a text is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ParseError(String);

/// Reads JSON nested at most `depth` levels; the second result are the repeated fields, each once, as they stand in the document.
pub fn parse_json(text: &[u8], depth: usize) -> Result<(Value, Vec<FieldProblem>), ParseError> {
    let told = RefCell::new(Vec::new());
    let value = read(text, depth, &|field, again| {
        if again {
            tell(&told, FieldProblem::Duplicate(field.path()));
        }
    })?;
    Ok((value, told.into_inner()))
}

/// The unknown and the repeated fields of a document as they stand in it, given the unknown ones. What is below an unknown field
/// is nothing to Kubernetes.
pub fn in_order(text: &[u8], depth: usize, unknown: &[FieldProblem]) -> Result<Vec<FieldProblem>, ParseError> {
    let told = RefCell::new(Vec::new());
    let unknown: HashSet<&FieldProblem> = unknown.iter().collect();
    let is_unknown = |field: &Node<'_>| unknown.contains(&FieldProblem::Unknown(field.path()));
    read(text, depth, &|field, again| {
        if is_unknown(field) {
            tell(&told, FieldProblem::Unknown(field.path()));
        } else if again && !iter::successors(field.above, |above| above.above).any(is_unknown) {
            tell(&told, FieldProblem::Duplicate(field.path()));
        }
    })?;
    Ok(told.into_inner())
}

fn tell(told: &RefCell<Vec<FieldProblem>>, problem: FieldProblem) {
    let mut told = told.borrow_mut();
    if told.len() < MOST_TOLD && !told.contains(&problem) {
        told.push(problem);
    }
}

/// Hears of each field of a document as it is met, and whether its object had it already.
type Listener<'a> = &'a dyn Fn(&Node<'_>, bool);

fn read(text: &[u8], depth: usize, listener: Listener<'_>) -> Result<Value, ParseError> {
    let mut reader = serde_json::Deserializer::from_slice(text);
    let top = Node { above: None, step: Step::Top, listener, depth };
    let value = top.deserialize(&mut reader).map_err(|error| ParseError(error.to_string()))?;
    reader.end().map_err(|error| ParseError(error.to_string()))?;
    Ok(value)
}

/// A place in the document. The places above it are on the stack, so that a path costs nothing until it is told.
#[derive(Clone, Copy)]
struct Node<'a> {
    above: Option<&'a Node<'a>>,
    step: Step<'a>,
    listener: Listener<'a>,
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
        Ok(Node { above: Some(self), step, listener: self.listener, depth })
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
            (self.listener)(&below, map.contains_key(&name));
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
        let duplicate = |path: &str| FieldProblem::Duplicate(path.into());
        assert_eq!(duplicates, [duplicate("spec.replicas"), duplicate("spec.l[1].a")]);
    }

    #[test]
    fn fields_are_told_as_they_stand_in_the_document() {
        let text = br#"{"b":{"x":1,"x":2},"spec":{"replicas":1,"a":0,"replicas":2,"replicas":3},"b":0,"a":[{"c":1}]}"#;
        let unknown = ["a[0].c", "b", "spec.a"].map(|path| FieldProblem::Unknown(path.into()));
        let told: Vec<String> = in_order(text, 10, &unknown).unwrap().iter().map(ToString::to_string).collect();
        let expected = [
            "unknown field \"b\"",
            "unknown field \"spec.a\"",
            "duplicate field \"spec.replicas\"",
            "unknown field \"a[0].c\"",
        ];
        assert_eq!(told, expected);
    }

    #[test]
    fn not_all_are_told() {
        let fields: Vec<String> = (0..200).map(|number| format!("\"f{number}\":0,\"f{number}\":1")).collect();
        assert_eq!(parse_json(format!("{{{}}}", fields.join(",")).as_bytes(), 3).unwrap().1.len(), MOST_TOLD);
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
