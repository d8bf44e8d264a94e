//! Strategic merge patch: a merge patch that knows which lists are merged by a key.
//!
//! Mirrors apimachinery `pkg/util/strategicpatch` (`StrategicMergeMapPatch`, and what it calls): the directives `$patch`
//! (`replace`, `merge`, `delete`), `$retainKeys`, `$setElementOrder/FIELD`, `$deleteFromPrimitiveList/FIELD`, null that deletes, and
//! the order of merged lists. It never checks types; the result goes through `schema::check`.

use serde_json::{Map, Value};

use super::go_text::go_text;
use crate::schema::table::{Field, Leaf, TypeId, Wrap, table};

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM_LIST: &str = "$deleteFromPrimitiveList";
const ELEMENT_ORDER: &str = "$setElementOrder";

/// Why a patch cannot be applied. Worded as upstream's `util/mergepatch`.
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
    match (original, patch) {
        (Value::Object(original), Value::Object(patch)) => {
            merge_map(original, patch, Shape::Struct(kind)).map(Value::Object)
        }
        (_, patch) => Err(StrategicError::Other(format!("expected a map, but received a {}", kind_of(&patch)))),
    }
}

/// What is known of the type that a part of the document has.
#[derive(Clone, Copy)]
enum Shape {
    Struct(TypeId),
    /// A map with values like this.
    MapOf(Leaf),
    MapOfLists,
    /// Nothing that can be merged into.
    Opaque(Leaf),
}

/// How a field is merged, and what is below it.
struct Member {
    below: Shape,
    merge: bool,
    replace: bool,
    merge_key: &'static str,
}

impl Shape {
    fn member(self, key: &str) -> Result<Member> {
        let plain = |below| Member { below, merge: false, replace: false, merge_key: "" };
        match self {
            Shape::Struct(id) => match table().get(id).field(key) {
                Some(field) => Ok(Member {
                    below: Shape::below(field),
                    merge: field.merge,
                    replace: field.replace,
                    merge_key: field.merge_key,
                }),
                None => Err(no_field(table().get(id).name, key)),
            },
            Shape::MapOf(leaf) => Ok(plain(Shape::of(leaf))),
            Shape::MapOfLists => Ok(plain(Shape::Opaque(Leaf::String))),
            Shape::Opaque(Leaf::Raw) => Err(no_field("RawExtension", key)),
            Shape::Opaque(leaf) => Err(no_field(&format!("{leaf:?}"), key)),
        }
    }

    /// As [`Shape::member`] for a list; upstream cannot merge lists in maps.
    fn list(self, key: &str) -> Result<Member> {
        match self {
            Shape::MapOf(_) | Shape::MapOfLists => {
                let what = "merging an object in json but data type is not struct, instead is: map";
                Err(StrategicError::Other(what.into()))
            }
            _ => self.member(key),
        }
    }

    fn below(field: &Field) -> Shape {
        match field.wrap {
            Wrap::One | Wrap::List => Shape::of(field.leaf),
            Wrap::Map => Shape::MapOf(field.leaf),
            Wrap::MapOfLists => Shape::MapOfLists,
        }
    }

    fn of(leaf: Leaf) -> Shape {
        match leaf {
            Leaf::Struct(id) => Shape::Struct(id),
            other => Shape::Opaque(other),
        }
    }
}

fn no_field(owner: &str, key: &str) -> StrategicError {
    StrategicError::Other(format!("unable to find api field in struct {owner} for the json field {key:?}"))
}

fn merge_map(mut original: Object, mut patch: Object, shape: Shape) -> Result<Object> {
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
    retain_keys(&mut original, &mut patch)?;
    merge_ordered_lists(&mut original, &mut patch, shape)?;
    for (key, value) in patch {
        match key.strip_prefix(DELETE_FROM_LIST) {
            Some(rest) => {
                let field = rest.strip_prefix('/').ok_or(StrategicError::PrimitiveList)?;
                delete_from_list(&mut original, field, value)?;
            }
            None => merge_field(&mut original, key, value, shape)?,
        }
    }
    Ok(original)
}

fn unknown_directive(directive: &Value, patch: &Object) -> StrategicError {
    let shown = go_text(&Value::Object(patch.clone()));
    StrategicError::Other(format!("unknown patch type: {} in map: {shown}", go_text(directive)))
}

fn merge_field(original: &mut Object, key: String, patch: Value, shape: Shape) -> Result<()> {
    let before = original.remove(&key);
    let merged = match (before, patch) {
        (_, Value::Null) => return Ok(()),
        (Some(Value::Object(before)), Value::Object(patch)) => {
            let member = shape.member(&key)?;
            Value::Object(if member.replace { patch } else { merge_map(before, patch, member.below)? })
        }
        (Some(Value::Array(before)), Value::Array(patch)) => {
            let member = shape.list(&key)?;
            if member.merge { Value::Array(merge_list(before, patch, &member)?) } else { Value::Array(patch) }
        }
        (_, mut patch) => {
            discard_nulls(&mut patch);
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
            element_kind(&[list, &items])?;
            list.retain(|item| !items.contains(item));
        }
        _ => {}
    }
    Ok(())
}

/// `$retainKeys: [type, …]`: fields of the original that it does not name go.
fn retain_keys(original: &mut Object, patch: &mut Object) -> Result<()> {
    let Some(keys) = patch.remove(RETAIN_KEYS) else { return Ok(()) };
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

/// `$setElementOrder/containers: [{name: a}, …]` together with the patch of `containers`, which it consumes.
fn merge_ordered_lists(original: &mut Object, patch: &mut Object, shape: Shape) -> Result<()> {
    let directives: Vec<String> = patch.keys().filter(|key| key.starts_with(ELEMENT_ORDER)).cloned().collect();
    for directive in directives {
        let order = patch.remove(&directive).unwrap_or_default();
        let Value::Array(order) = order else {
            return Err(StrategicError::Other(format!("expected a slice, but received a {}", kind_of(&order))));
        };
        let field = directive.strip_prefix(ELEMENT_ORDER).and_then(|rest| rest.strip_prefix('/'));
        let field = field.ok_or(StrategicError::ElementOrder)?;
        let before = take_list(original, field)?;
        let changes = take_list(patch, field)?;
        let member = shape.list(field)?;
        validate_order(changes.as_deref().unwrap_or_default(), &order, member.merge_key)?;
        if let Some(merged) = merge_in_order(before, changes, &order, &member)? {
            original.insert(field.to_owned(), Value::Array(merged));
        }
    }
    Ok(())
}

fn take_list(from: &mut Object, field: &str) -> Result<Option<Vec<Value>>> {
    match from.remove(field) {
        None => Ok(None),
        Some(Value::Array(list)) => Ok(Some(list)),
        Some(other) => Err(StrategicError::Other(format!("expected a slice, but received a {}", kind_of(&other)))),
    }
}

fn merge_in_order(
    before: Option<Vec<Value>>,
    changes: Option<Vec<Value>>,
    order: &[Value],
    member: &Member,
) -> Result<Option<Vec<Value>>> {
    let live_order = live_order(before.as_deref().unwrap_or_default(), changes.as_deref().unwrap_or_default(), member);
    let merged = match (before, changes) {
        (None, None) => return Ok(None),
        (Some(before), None) => before,
        (None, Some(changes)) => remove_directives_from_list(changes),
        (Some(before), Some(changes)) if member.merge => merge_list(before, changes, member)?,
        (Some(_), Some(changes)) => changes,
    };
    arrange(merged, order, &live_order, member.merge_key).map(Some)
}

/// The order that the live list stands for: new items take the places that deleted ones leave at its end. (Upstream comes to this by
/// deleting and appending within the array that it reads the order from; clients see it as the order of containers.)
fn live_order(before: &[Value], changes: &[Value], member: &Member) -> Vec<Value> {
    let key = member.merge_key;
    if !member.merge || key.is_empty() {
        return before.to_vec();
    }
    let deleted = |item: &Value| {
        let mut deletes = changes.iter().filter(|change| change.get(DIRECTIVE).is_some_and(|value| value == "delete"));
        deletes.any(|change| same(change, item, key))
    };
    let left: Vec<&Value> = before.iter().filter(|item| !deleted(item)).collect();
    let added = changes.iter().filter(|change| change.get(DIRECTIVE).is_none());
    let added = added.filter(|change| !left.iter().any(|item| same(item, change, key)));
    left.iter().copied().chain(added).take(before.len()).cloned().collect()
}

/// Items of the patch must come in the order that `$setElementOrder` gives them, and all of them must be in it.
fn validate_order(changes: &[Value], order: &[Value], key: &str) -> Result<()> {
    if order.is_empty() || changes.is_empty() {
        return Ok(());
    }
    let mut places = order.iter();
    for change in changes.iter().filter(|change| change.get(DIRECTIVE).is_none_or(|value| value != "delete")) {
        if change.get(DIRECTIVE).is_some() && places.len() > 0 {
            continue;
        }
        let mut found = false;
        for place in places.by_ref() {
            if identity(change, key)? == identity(place, key)? {
                found = true;
                break;
            }
        }
        if !found {
            let (changes, order) = (go_text(&Value::from(changes.to_vec())), go_text(&Value::from(order.to_vec())));
            return Err(StrategicError::Other(format!(
                "The order in patch list:\n{changes}\n doesn't match {ELEMENT_ORDER} list:\n{order}\n"
            )));
        }
    }
    Ok(())
}

fn merge_list(original: Vec<Value>, patch: Vec<Value>, member: &Member) -> Result<Vec<Value>> {
    if original.is_empty() && patch.is_empty() {
        return Ok(original);
    }
    if element_kind(&[&original, &patch])? != "map" {
        let added = patch.iter().filter(|item| !original.contains(item));
        let mut merged: Vec<Value> = Vec::with_capacity(original.len() + patch.len());
        for item in original.iter().chain(added) {
            if !merged.contains(item) {
                merged.push(item.clone());
            }
        }
        return arrange(merged, &patch, &original, "");
    }
    let key = member.merge_key;
    if key.is_empty() {
        let name = match member.below {
            Shape::Struct(id) => table().get(id).name,
            _ => "",
        };
        return Err(StrategicError::Other(format!("cannot merge lists without merge key for {name}")));
    }
    let (original, patch) = apply_list_directives(original, patch, key)?;
    let order = patch.clone();
    let live_order = original.clone();
    let merged = merge_items(original, patch, key, member.below)?;
    arrange(merged, &order, &live_order, key)
}

/// Items of the patch that are directives: delete one item, or replace the list by the other items.
fn apply_list_directives(mut original: Vec<Value>, patch: Vec<Value>, key: &str) -> Result<(Vec<Value>, Vec<Value>)> {
    let mut replace = false;
    let mut plain = Vec::with_capacity(patch.len());
    for item in patch {
        let Some(directive) = item.get(DIRECTIVE) else {
            plain.push(item);
            continue;
        };
        match directive.as_str() {
            Some("delete") => {
                let gone = identity(&item, key)?.clone();
                remove_items(&mut original, key, &gone)?;
            }
            Some("replace") => replace = true,
            Some("merge") => {
                return Err(StrategicError::Other("merging lists cannot yet be specified in the patch".into()));
            }
            _ => return Err(unknown_directive(directive, item.as_object().unwrap_or(&Object::new()))),
        }
    }
    Ok(if replace { (plain, Vec::new()) } else { (original, plain) })
}

fn remove_items(list: &mut Vec<Value>, key: &str, gone: &Value) -> Result<()> {
    list.iter().try_for_each(|item| identity(item, key).map(drop))?;
    list.retain(|item| item.get(key) != Some(gone));
    Ok(())
}

fn merge_items(mut original: Vec<Value>, patch: Vec<Value>, key: &str, below: Shape) -> Result<Vec<Value>> {
    for change in patch {
        let wanted = identity(&change, key)?;
        let found = original.iter_mut().find(|item| item.get(key) == Some(wanted));
        match (found, change) {
            (Some(slot), Value::Object(change)) => {
                let Value::Object(before) = slot.take() else { continue };
                *slot = Value::Object(merge_map(before, change, below)?);
            }
            (_, change) => original.push(change),
        }
    }
    Ok(original)
}

/// Puts a merged list in order: items named by `order` in that order, the others in the order they had, interleaved as far as the live
/// order tells.
fn arrange(merged: Vec<Value>, order: &[Value], live_order: &[Value], key: &str) -> Result<Vec<Value>> {
    for list in [&merged[..], order, live_order] {
        list.iter().try_for_each(|item| identity(item, key).map(drop))?;
    }
    let place = |list: &[Value], item: &Value| list.iter().position(|other| same(other, item, key));
    let (mut named, mut others): (Vec<Value>, Vec<Value>) =
        merged.into_iter().partition(|item| place(order, item).is_some());
    named.sort_by_key(|item| place(order, item));
    others.sort_by_key(|item| place(live_order, item).unwrap_or(usize::MAX));

    let mut arranged = Vec::with_capacity(named.len() + others.len());
    let mut named = named.into_iter().peekable();
    let mut others = others.into_iter().peekable();
    loop {
        let other_first = match (others.peek(), named.peek()) {
            (None, None) => return Ok(arranged),
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (Some(other), Some(next)) => {
                matches!((place(live_order, other), place(live_order, next)), (Some(a), Some(b)) if a < b)
            }
        };
        arranged.extend(if other_first { others.next() } else { named.next() });
    }
}

fn same(left: &Value, right: &Value, key: &str) -> bool {
    if key.is_empty() { left == right } else { left.get(key) == right.get(key) }
}

/// What an item of a merged list is known by: its merge key, or itself.
fn identity<'a>(item: &'a Value, key: &str) -> Result<&'a Value> {
    if key.is_empty() {
        return Ok(item);
    }
    let Value::Object(fields) = item else {
        return Err(StrategicError::Other(format!("expected a map, but received a {}", kind_of(item))));
    };
    fields.get(key).ok_or_else(|| {
        StrategicError::Other(format!("map: {} does not contain declared merge key: {key}", go_text(item)))
    })
}

/// All items have to be of one kind.
fn element_kind(lists: &[&[Value]]) -> Result<&'static str> {
    let mut kinds = lists.iter().flat_map(|list| list.iter()).map(kind_of);
    let first = kinds.next().unwrap_or("nil");
    if first == "slice" {
        return Err(StrategicError::ListOfLists);
    }
    if kinds.any(|kind| kind != first) {
        let shown: Vec<Value> = lists.iter().map(|list| Value::from(list.to_vec())).collect();
        let shown = go_text(&Value::Array(shown));
        return Err(StrategicError::Other(format!("list element types are not identical: {shown}")));
    }
    Ok(first)
}

fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "nil",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "slice",
        Value::Object(_) => "map",
    }
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
        Value::Array(items) => Some(Value::Array(remove_directives_from_list(items))),
        other => Some(other),
    }
}

fn remove_directives_from_list(items: Vec<Value>) -> Vec<Value> {
    items.into_iter().filter_map(remove_directives).collect()
}

#[cfg(test)]
#[path = "strategic_tests.rs"]
mod tests;
