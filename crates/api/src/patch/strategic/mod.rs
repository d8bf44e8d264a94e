//! Strategic merge patch: a merge patch that knows which lists are merged by a key.
//!
//! Mirrors apimachinery `pkg/util/strategicpatch` (`StrategicMergeMapPatch`, and what it calls): the directives `$patch`
//! (`replace`, `merge`, `delete`), `$retainKeys`, `$setElementOrder/FIELD`, `$deleteFromPrimitiveList/FIELD`, null that deletes, and
//! the order of merged lists. It never checks types; the result goes through `schema::check`.

mod diff;
mod lists;
mod shape;

pub use diff::{three_way, two_way};

use serde_json::{Map, Value};

use super::go_text::go_text;
use crate::schema::TypeId;
use shape::{Context, Target};

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM_LIST: &str = "$deleteFromPrimitiveList";
const ELEMENT_ORDER: &str = "$setElementOrder";

/// Why a patch cannot be applied or made. Worded as upstream's `util/mergepatch`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StrategicError {
    /// `$deleteFromPrimitiveList` without a field.
    #[error("invalid patch format of primitive list")]
    PrimitiveList,
    /// `$retainKeys` that is no list, or misses a key of the patch.
    #[error("invalid patch format of retainKeys")]
    RetainKeys,
    /// `$setElementOrder` that is no list, or has no field.
    #[error("invalid patch format of setElementOrder list")]
    ElementOrder,
    /// A list in a list.
    #[error("lists of lists are not supported")]
    ListOfLists,
    /// Anything else, in words.
    #[error("{0}")]
    Other(String),
}

type Result<T> = std::result::Result<T, StrategicError>;
type Object = Map<String, Value>;

/// Applies `patch` to `original`, an object of `kind`.
pub fn strategic(kind: TypeId, original: Value, patch: Value) -> Result<Value> {
    let (original, patch) = (object(original)?, object(patch)?);
    merge_map(original, patch, Context::top(kind, Target::Object)).map(Value::Object)
}

fn object(value: Value) -> Result<Object> {
    match value {
        Value::Object(fields) => Ok(fields),
        other => Err(StrategicError::Other(format!("expected a map, but received a {}", lists::kind_of(&other)))),
    }
}

fn merge_map(mut original: Object, mut patch: Object, context: Context) -> Result<Object> {
    if let Some(directive) = patch.get(DIRECTIVE) {
        return match directive.as_str() {
            Some("replace") => {
                patch.remove(DIRECTIVE);
                Ok(patch)
            }
            Some("delete") => Ok(Object::new()),
            _ => Err(unknown_directive(directive, &patch)),
        };
    }
    retain_keys(&mut original, &mut patch, context.target)?;
    lists::merge_ordered(&mut original, &mut patch, context)?;
    for (key, value) in patch {
        match key.strip_prefix(DELETE_FROM_LIST) {
            Some(_) if context.target == Target::Patch => {
                original.insert(key, value);
            }
            Some(rest) => {
                let field = rest.strip_prefix('/').ok_or(StrategicError::PrimitiveList)?;
                delete_from_list(&mut original, field, value)?;
            }
            None => merge_field(&mut original, key, value, context)?,
        }
    }
    Ok(original)
}

fn unknown_directive(directive: &Value, patch: &Object) -> StrategicError {
    let shown = go_text(&Value::Object(patch.clone()));
    StrategicError::Other(format!("unknown patch type: {} in map: {shown}", go_text(directive)))
}

fn merge_field(original: &mut Object, key: String, patch: Value, context: Context) -> Result<()> {
    let before = original.remove(&key);
    let merged = match (before, patch) {
        (_, Value::Null) if context.target == Target::Object => return Ok(()),
        (Some(Value::Object(before)), Value::Object(patch)) => {
            let member = context.member(&key)?;
            Value::Object(if member.replace { patch } else { merge_map(before, patch, member.below)? })
        }
        (Some(Value::Array(before)), Value::Array(patch)) => {
            let member = context.list(&key)?;
            Value::Array(if member.merge { lists::merge(before, patch, &member)? } else { patch })
        }
        (_, mut patch) => {
            if context.target == Target::Object {
                discard_nulls(&mut patch);
            }
            match remove_directives(patch) {
                Some(value) => value,
                None => return Ok(()),
            }
        }
    };
    original.insert(key, merged);
    Ok(())
}

/// `$deleteFromPrimitiveList/finalizers: [a]`, whatever the field's strategy is.
fn delete_from_list(original: &mut Object, field: &str, items: Value) -> Result<()> {
    match (original.get_mut(field), items) {
        (_, Value::Null) => {
            original.remove(field);
        }
        (Some(Value::Array(list)), Value::Array(items)) => {
            lists::element_kind(&[list, &items])?;
            let gone = lists::places(&items, "");
            list.retain(|item| !gone.contains_key(item));
        }
        _ => {}
    }
    Ok(())
}

/// `$retainKeys: [type, …]`: fields of the original that it does not name go.
fn retain_keys(original: &mut Object, patch: &mut Object, target: Target) -> Result<()> {
    let Some(keys) = patch.remove(RETAIN_KEYS) else { return Ok(()) };
    if target == Target::Patch {
        original.insert(RETAIN_KEYS.into(), keys);
        return Ok(());
    }
    let Value::Array(keys) = keys else { return Err(StrategicError::RetainKeys) };
    let retained = |key: &str| keys.iter().any(|kept| kept.as_str() == Some(key));
    for (key, value) in patch.iter() {
        let directive = key.starts_with(DELETE_FROM_LIST) || key.starts_with(ELEMENT_ORDER);
        if !value.is_null() && !directive && !retained(key) {
            return Err(StrategicError::RetainKeys);
        }
    }
    original.retain(|key, _| retained(key));
    Ok(())
}

fn discard_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            fields.values_mut().for_each(discard_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(discard_nulls),
        _ => {}
    }
}

/// A value that is new to the object, without directives; `None` if it is one.
fn remove_directives(value: Value) -> Option<Value> {
    match value {
        Value::Object(fields) if fields.contains_key(DIRECTIVE) => None,
        Value::Object(fields) => {
            let kept = fields.into_iter().filter_map(|(key, value)| Some((key, remove_directives(value)?)));
            Some(Value::Object(kept.collect()))
        }
        Value::Array(items) => Some(items.into_iter().filter_map(remove_directives).collect()),
        other => Some(other),
    }
}

#[cfg(test)]
mod tests;
