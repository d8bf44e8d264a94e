//! Lists that are merged: items known by a key (or by themselves), directives among them, and the order they end up in.
//!
//! Mirrors `mergeSlice`, `mergePatchIntoOriginal` and `normalizeElementOrder` of upstream's `strategicpatch`, in time that grows with
//! the lists and not with their square.

use std::collections::HashMap;

use serde_json::Value;

use super::shape::{Context, Member, Target};
use super::{
    DIRECTIVE, ELEMENT_ORDER, Object, Result, StrategicError, go_text, merge_map, remove_directives, unknown_directive,
};

/// `$setElementOrder/containers: [{name: a}, …]` together with the patch of `containers`, which it consumes.
pub(super) fn merge_ordered(original: &mut Object, patch: &mut Object, context: Context) -> Result<()> {
    let directives: Vec<String> = patch.keys().filter(|key| key.starts_with(ELEMENT_ORDER)).cloned().collect();
    for directive in directives {
        let order = take_list(patch, &directive)?.unwrap_or_default();
        if context.target == Target::Patch {
            original.insert(directive.clone(), order.clone().into());
        }
        let field = directive.strip_prefix(ELEMENT_ORDER).and_then(|rest| rest.strip_prefix('/'));
        let field = field.ok_or(StrategicError::ElementOrder)?;
        let before = take_list(original, field)?;
        let changes = take_list(patch, field)?;
        let member = context.list(field)?;
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
        (None, Some(changes)) => changes.into_iter().filter_map(remove_directives).collect(),
        (Some(before), Some(changes)) if member.merge => merge(before, changes, member)?,
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
    let deletes: Vec<Value> = changes.iter().filter(|change| is_delete(change)).cloned().collect();
    let deleted = places(&deletes, key);
    let deleted = |item: &Value| item.get(key).is_some_and(|known| deleted.contains_key(known));
    let there = places(before, key);
    let there = |item: &Value| item.get(key).is_some_and(|known| there.contains_key(known));
    let left = before.iter().filter(|item| !deleted(item));
    let added = changes.iter().filter(|change| change.get(DIRECTIVE).is_none() && (!there(change) || deleted(change)));
    left.chain(added).take(before.len()).cloned().collect()
}

fn is_delete(item: &Value) -> bool {
    item.get(DIRECTIVE).is_some_and(|directive| directive == "delete")
}

/// Items of the patch must come in the order that `$setElementOrder` gives them, and all of them must be in it.
fn validate_order(changes: &[Value], order: &[Value], key: &str) -> Result<()> {
    if order.is_empty() || changes.is_empty() {
        return Ok(());
    }
    let mut places = order.iter();
    for change in changes.iter().filter(|change| !is_delete(change)) {
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

/// Merges two lists of a field whose strategy is `merge`.
pub(super) fn merge(original: Vec<Value>, patch: Vec<Value>, member: &Member) -> Result<Vec<Value>> {
    if original.is_empty() && patch.is_empty() {
        return Ok(original);
    }
    if element_kind(&[&original, &patch])? != "map" {
        let mut merged: Vec<Value> = original.iter().chain(&patch).cloned().collect();
        let first_places: HashMap<Value, usize> =
            places(&merged, "").into_iter().map(|(item, place)| (item.clone(), place)).collect();
        let mut place = 0;
        merged.retain(|item| {
            place += 1;
            first_places.get(item) == Some(&(place - 1))
        });
        return arrange(merged, &patch, &original, "");
    }
    let key = member.merge_key;
    if key.is_empty() {
        let name = member.below.name();
        return Err(StrategicError::Other(format!("cannot merge lists without merge key for {name}")));
    }
    let (original, patch) = apply_directives(original, patch, key)?;
    let (order, live_order) = (patch.clone(), original.clone());
    let merged = merge_items(original, patch, key, member.below)?;
    arrange(merged, &order, &live_order, key)
}

/// Items of the patch that are directives: delete one item, or replace the list by the other items.
fn apply_directives(mut original: Vec<Value>, patch: Vec<Value>, key: &str) -> Result<(Vec<Value>, Vec<Value>)> {
    let mut replace = false;
    let (mut plain, mut deletes) = (Vec::with_capacity(patch.len()), Vec::new());
    for item in patch {
        match item.get(DIRECTIVE) {
            None => plain.push(item),
            Some(directive) => match directive.as_str() {
                Some("delete") => {
                    identity(&item, key)?;
                    deletes.push(item);
                }
                Some("replace") => replace = true,
                Some("merge") => {
                    return Err(StrategicError::Other("merging lists cannot yet be specified in the patch".into()));
                }
                _ => return Err(unknown_directive(directive, item.as_object().unwrap_or(&Object::new()))),
            },
        }
    }
    if replace {
        return Ok((plain, Vec::new()));
    }
    let gone = places(&deletes, key);
    original.retain(|item| !item.get(key).is_some_and(|known| gone.contains_key(known)));
    Ok((original, plain))
}

fn merge_items(mut original: Vec<Value>, patch: Vec<Value>, key: &str, below: Context) -> Result<Vec<Value>> {
    let mut known: HashMap<Value, usize> =
        places(&original, key).into_iter().map(|(identity, place)| (identity.clone(), place)).collect();
    for change in patch {
        let wanted = identity(&change, key)?;
        match (known.get(wanted), change) {
            (Some(place), Value::Object(change)) => {
                let before = std::mem::take(&mut original[*place]);
                let Value::Object(before) = before else { continue };
                original[*place] = merge_map(before, change, below)?.into();
            }
            (_, change) => {
                known.insert(identity(&change, key)?.clone(), original.len());
                original.push(change);
            }
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
    let (order, live_order) = (places(order, key), places(live_order, key));
    let place = |list: &HashMap<&Value, usize>, item: &Value| list.get(named(item, key)?).copied();
    let (mut named, mut others): (Vec<Value>, Vec<Value>) =
        merged.into_iter().partition(|item| place(&order, item).is_some());
    named.sort_by_key(|item| place(&order, item));
    others.sort_by_key(|item| place(&live_order, item).unwrap_or(usize::MAX));

    let mut arranged = Vec::with_capacity(named.len() + others.len());
    let mut named = named.into_iter().peekable();
    let mut others = others.into_iter().peekable();
    loop {
        let other_first = match (others.peek(), named.peek()) {
            (None, None) => return Ok(arranged),
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (Some(other), Some(next)) => {
                matches!((place(&live_order, other), place(&live_order, next)), (Some(a), Some(b)) if a < b)
            }
        };
        arranged.extend(if other_first { others.next() } else { named.next() });
    }
}

/// Where each item is first found. Items without the key are nowhere.
pub(super) fn places<'a>(list: &'a [Value], key: &str) -> HashMap<&'a Value, usize> {
    let mut places = HashMap::with_capacity(list.len());
    for (place, item) in list.iter().enumerate() {
        if let Some(identity) = named(item, key) {
            places.entry(identity).or_insert(place);
        }
    }
    places
}

fn named<'a>(item: &'a Value, key: &str) -> Option<&'a Value> {
    if key.is_empty() { Some(item) } else { item.get(key) }
}

/// What an item of a merged list is known by: its merge key, or itself.
pub(super) fn identity<'a>(item: &'a Value, key: &str) -> Result<&'a Value> {
    if !key.is_empty() && !item.is_object() {
        return Err(StrategicError::Other(format!("expected a map, but received a {}", kind_of(item))));
    }
    named(item, key).ok_or_else(|| {
        StrategicError::Other(format!("map: {} does not contain declared merge key: {key}", go_text(item)))
    })
}

/// All items have to be of one kind.
pub(super) fn element_kind(lists: &[&[Value]]) -> Result<&'static str> {
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

pub(super) fn kind_of(value: &Value) -> &'static str {
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
