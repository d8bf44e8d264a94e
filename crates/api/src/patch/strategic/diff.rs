//! Making strategic merge patches: from two versions of an object, or, as `apply` does, from what was applied last, what is wanted now
//! and what is live.
//!
//! Mirrors `CreateTwoWayMergeMapPatchUsingLookupPatchMeta` and `CreateThreeWayMergePatch` (with `overwrite`, as kubectl calls it) of
//! upstream's `strategicpatch`.

use serde_json::{Value, json};

use super::shape::{Context, Member, Target};
use super::{DELETE_FROM_LIST, DIRECTIVE, ELEMENT_ORDER, Object, RETAIN_KEYS, Result, lists, merge_map, object};
use crate::patch::go_text::go_text;
use crate::schema::TypeId;

/// The patch that turns `from` into `to`; `{}` if they are equal.
pub fn two_way(kind: TypeId, from: Value, to: Value) -> Result<Value> {
    let context = Context::top(kind, Target::Patch);
    maps(object(from)?, object(to)?, context, Options { changes: true, deletions: true, retain_keys: false })
        .map(Value::Object)
}

/// The patch for `live` that brings what `wanted` says and drops what `last_applied` said and `wanted` does not.
pub fn three_way(kind: TypeId, last_applied: Value, wanted: Value, live: Value) -> Result<Value> {
    let context = Context::top(kind, Target::Patch);
    let (last_applied, wanted, live) = (object(last_applied)?, object(wanted)?, object(live)?);
    let changes = Options { changes: true, deletions: false, retain_keys: false };
    let delta = maps(live, wanted.clone(), context, changes)?;
    let deletions = Options { changes: false, deletions: true, retain_keys: false };
    let deletions = maps(last_applied, wanted, context, deletions)?;
    merge_map(deletions, delta, context).map(Value::Object)
}

/// Which differences are looked for.
#[derive(Clone, Copy)]
struct Options {
    /// What `to` changes or adds.
    changes: bool,
    /// What `to` does not have.
    deletions: bool,
    /// Whether the map gets a `$retainKeys`.
    retain_keys: bool,
}

fn maps(from: Object, mut to: Object, context: Context, options: Options) -> Result<Object> {
    let mut patch = Object::new();
    let mut retained: Vec<String> =
        to.iter().filter(|(_, value)| !value.is_null()).map(|(key, _)| key.clone()).collect();
    let has_additional = from.iter().any(|(key, value)| !value.is_null() && !to.contains_key(key));
    for (key, before) in from {
        match to.remove(&key) {
            Some(after) => field(&key, before, after, &mut patch, context, options)?,
            None if options.deletions => {
                patch.insert(key, Value::Null);
            }
            None => {}
        }
    }
    if options.changes {
        patch.extend(to);
    }
    if options.retain_keys && !retained.is_empty() && (!patch.is_empty() || has_additional) {
        retained.sort();
        patch.insert(RETAIN_KEYS.into(), retained.into());
    }
    Ok(patch)
}

/// The difference of a field that both have.
fn field(key: &str, before: Value, after: Value, patch: &mut Object, context: Context, options: Options) -> Result<()> {
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => {
            let member = match context.member(key) {
                Ok(member) => member,
                Err(_) if before == after => return Ok(()),
                Err(error) => return Err(error),
            };
            if member.replace {
                if options.changes {
                    patch.insert(key.to_owned(), after.into());
                }
                return Ok(());
            }
            let inner = maps(before, after, member.below, Options { retain_keys: member.retain_keys, ..options })?;
            if !inner.is_empty() {
                patch.insert(key.to_owned(), inner.into());
            }
        }
        (Value::Array(before), Value::Array(after)) => {
            let member = match context.list(key) {
                Ok(member) => member,
                Err(_) if before == after => return Ok(()),
                Err(error) => return Err(error),
            };
            if member.merge {
                return merged_lists(key, before, after, patch, &member, options);
            }
            if options.changes && before != after {
                patch.insert(key.to_owned(), after.into());
            }
        }
        (before, after) => {
            if options.changes && before != after {
                patch.insert(key.to_owned(), after);
            }
        }
    }
    Ok(())
}

/// What a merged list's patch consists of.
#[derive(Default)]
struct ListPatch {
    items: Vec<Value>,
    deletions: Vec<Value>,
    order: Vec<Value>,
}

fn merged_lists(
    key: &str,
    before: Vec<Value>,
    after: Vec<Value>,
    patch: &mut Object,
    member: &Member,
    options: Options,
) -> Result<()> {
    let found = if before.is_empty() {
        ListPatch { items: if options.changes { after } else { Vec::new() }, ..ListPatch::default() }
    } else if lists::element_kind(&[&before, &after])? == "map" {
        lists_of_maps(before, after, member, options)?
    } else {
        lists_of_scalars(before, after, options)
    };
    let named = [
        (key.to_owned(), found.items),
        (format!("{DELETE_FROM_LIST}/{key}"), found.deletions),
        (format!("{ELEMENT_ORDER}/{key}"), found.order),
    ];
    patch.extend(named.into_iter().filter(|(_, list)| !list.is_empty()).map(|(key, list)| (key, list.into())));
    Ok(())
}

fn lists_of_maps(before: Vec<Value>, after: Vec<Value>, member: &Member, options: Options) -> Result<ListPatch> {
    let key = member.merge_key;
    for item in before.iter().chain(&after) {
        lists::identity(item, key)?;
    }
    let same_order = before.len() == after.len() && before.iter().zip(&after).all(|(b, a)| b.get(key) == a.get(key));
    let order: Vec<Value> = after.iter().map(|item| json!({ key: item[key] })).collect();
    let places = lists::places(&after, key);

    let (mut items, mut deletes) = (Vec::new(), Vec::new());
    let inner = Options { retain_keys: member.retain_keys, ..options };
    let sorted = (sorted(before, |item| go_text(&item[key])), sorted(after.clone(), |item| go_text(&item[key])));
    for pair in pair_up(sorted.0, sorted.1, |item| go_text(&item[key])) {
        match pair {
            (Some(Value::Object(before)), Some(Value::Object(after))) => {
                let identity = after.get(key).cloned().unwrap_or_default();
                let mut change = maps(before, after, member.below, inner)?;
                if !change.is_empty() {
                    change.insert(key.to_owned(), identity);
                    items.push(change.into());
                }
            }
            (None, Some(added)) if options.changes => items.push(added),
            (Some(gone), None) if options.deletions => deletes.push(json!({ key: gone[key], DIRECTIVE: "delete" })),
            _ => {}
        }
    }
    items.sort_by_key(|item: &Value| places.get(&item[key]).copied().unwrap_or(usize::MAX));
    items.extend(deletes);
    let ordered = !items.is_empty() || (options.changes && !same_order);
    Ok(ListPatch { items, deletions: Vec::new(), order: if ordered { order } else { Vec::new() } })
}

fn lists_of_scalars(before: Vec<Value>, after: Vec<Value>, options: Options) -> ListPatch {
    let places = lists::places(&after, "");
    // Upstream compares with the sorted list, so that a list that is not sorted always gets its order set.
    let before = sorted(before, go_text);
    let differs = before != after;
    let (mut items, mut deletions) = (Vec::new(), Vec::new());
    for pair in pair_up(before, sorted(after.clone(), go_text), go_text) {
        match pair {
            (None, Some(added)) if options.changes => items.push(added),
            (Some(gone), None) if options.deletions && !deletions.contains(&gone) => deletions.push(gone),
            _ => {}
        }
    }
    items.sort_by_key(|item| places.get(item).copied().unwrap_or(usize::MAX));
    let ordered = !deletions.is_empty() || (options.changes && differs);
    ListPatch { items, deletions, order: if ordered { after.clone() } else { Vec::new() } }
}

fn sorted(mut list: Vec<Value>, text: impl Fn(&Value) -> String) -> Vec<Value> {
    list.sort_by_cached_key(text);
    list
}

/// Walks two sorted lists: items of the same text together, the others alone.
fn pair_up(
    before: Vec<Value>,
    after: Vec<Value>,
    text: impl Fn(&Value) -> String,
) -> Vec<(Option<Value>, Option<Value>)> {
    let mut pairs = Vec::with_capacity(before.len().max(after.len()));
    let (mut before, mut after) = (before.into_iter().peekable(), after.into_iter().peekable());
    loop {
        let order = match (before.peek(), after.peek()) {
            (None, None) => return pairs,
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some(before), Some(after)) => text(before).cmp(&text(after)),
        };
        pairs.push(match order {
            std::cmp::Ordering::Less => (before.next(), None),
            std::cmp::Ordering::Greater => (None, after.next()),
            std::cmp::Ordering::Equal => (before.next(), after.next()),
        });
    }
}
