//! `describe` of kinds that have no page of their own.

use serde_json::{Map, Value};

use super::page::Page;
use crate::json::{Json, scalar};

/// What is at the top of the page already.
const TOLD: [&str; 4] = ["name", "namespace", "labels", "annotations"];

pub(super) fn any(page: &mut Page, object: &Value) {
    page.field("Name", object.text("metadata.name"));
    page.field("Namespace", object.text("metadata.namespace"));
    page.pairs("Labels", object.at("metadata.labels"));
    page.annotations("Annotations", object.at("metadata.annotations"));
    let mut rest: Map<String, Value> = object.map("").clone();
    if let Some(Value::Object(meta)) = rest.get_mut("metadata") {
        TOLD.iter().for_each(|field| drop(meta.remove(*field)));
        meta.remove("managedFields");
    }
    members(page, &rest, 0);
}

fn members(page: &mut Page, map: &Map<String, Value>, level: usize) {
    for (key, value) in map {
        let label = smart_label(key);
        match value {
            Value::Object(inner) => {
                page.line(level, format!("{label}:"));
                members(page, inner, level + 1);
            }
            Value::Array(items) => {
                page.line(level, format!("{label}:"));
                for item in items {
                    match item {
                        Value::Object(inner) => members(page, inner, level + 1),
                        other => page.line(level + 1, scalar(other)),
                    }
                }
            }
            other => page.line(level, format!("{label}:\t{}", scalar(other))),
        }
    }
}

/// `resourceVersion` becomes `Resource Version`, `uid` `UID`.
fn smart_label(field: &str) -> String {
    if field.contains(['/', '.', '-']) {
        return field.to_owned();
    }
    let mut words: Vec<String> = Vec::new();
    let mut previous_upper = false;
    for letter in field.chars() {
        let upper = letter.is_uppercase();
        match words.last_mut() {
            Some(last) if !upper || previous_upper => last.push(letter),
            _ => words.push(letter.to_string()),
        }
        previous_upper = upper;
    }
    let titled = |word: String| match word.to_lowercase().as_str() {
        "api" | "url" | "uid" | "ttl" | "gid" | "id" | "ip" => word.to_uppercase(),
        _ => {
            let mut letters = word.chars();
            letters.next().map(|first| first.to_uppercase().collect::<String>() + letters.as_str()).unwrap_or_default()
        }
    };
    words.into_iter().map(titled).collect::<Vec<_>>().join(" ")
}
