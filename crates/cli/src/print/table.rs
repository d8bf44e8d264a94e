//! Tables that the server made (`meta.k8s.io/v1 Table`), as `get` prints them.
//!
//! Mirrors cli-runtime `pkg/printers/tableprinter.go`. Widths are remembered, so that the lines of a watch stay in their columns.

use serde_json::{Value, json};

use crate::json::{Json, scalar};
use crate::print::tabwriter::Columns;
use crate::time;

/// What is shown beside the server's columns.
#[derive(Clone, Debug, Default)]
pub struct Style {
    /// Columns that matter less, too.
    pub wide: bool,
    /// No line with the names of the columns.
    pub no_headers: bool,
    /// A column with all labels.
    pub show_labels: bool,
    /// A column for each of these labels.
    pub label_columns: Vec<String>,
    /// A column with the namespace.
    pub namespace: bool,
    /// `pod/` before names.
    pub kind: Option<String>,
    /// A column with the kind of a watch's event.
    pub event: bool,
}

/// Prints tables of one type.
#[derive(Debug, Default)]
pub struct Printer {
    widths: Columns,
    columns: Vec<Value>,
    headed: bool,
}

impl Printer {
    /// The lines of a table; headers only before the first.
    pub fn print(&mut self, table: &Value, style: &Style) -> String {
        self.print_event(table, style, "")
    }

    /// The lines of a table of a watch's event.
    pub fn print_event(&mut self, table: &Value, style: &Style, event: &str) -> String {
        // The tables of a watch after the first carry no columns.
        if !table.list("columnDefinitions").is_empty() {
            self.columns = table.list("columnDefinitions").to_vec();
        }
        let shown: Vec<usize> = (0..self.columns.len())
            .filter(|index| style.wide || self.columns[*index].number("priority") == 0)
            .collect();
        let mut rows = Vec::new();
        if !style.no_headers && !self.headed {
            rows.push(self.headers(&shown, style));
        }
        self.headed = true;
        rows.extend(table.list("rows").iter().map(|row| self.cells(row, &shown, style, event)));
        self.widths.lines(&rows)
    }

    fn headers(&self, shown: &[usize], style: &Style) -> Vec<String> {
        let mut cells = Vec::new();
        if style.event {
            cells.push("EVENT".to_owned());
        }
        if style.namespace {
            cells.push("NAMESPACE".into());
        }
        cells.extend(shown.iter().map(|index| self.columns[*index].text("name").to_uppercase()));
        let last = |label: &String| label.rsplit('/').next().unwrap_or_default().to_uppercase();
        cells.extend(style.label_columns.iter().map(last));
        if style.show_labels {
            cells.push("LABELS".into());
        }
        cells
    }

    fn cells(&self, row: &Value, shown: &[usize], style: &Style, event: &str) -> Vec<String> {
        let mut cells = Vec::new();
        if style.event {
            cells.push(event.to_owned());
        }
        if style.namespace {
            cells.push(row.text("object.metadata.namespace").to_owned());
        }
        for (position, index) in shown.iter().enumerate() {
            let text = row.list("cells").get(*index).map(cell).unwrap_or_default();
            cells.push(match &style.kind {
                Some(kind) if position == 0 => format!("{kind}/{text}"),
                _ => text,
            });
        }
        let labels = row.labels("object.metadata.labels");
        cells.extend(style.label_columns.iter().map(|label| labels.get(label).cloned().unwrap_or_default()));
        if style.show_labels {
            cells.push(label_text(row.at("object.metadata.labels")));
        }
        cells
    }
}

/// `a=b,c=d`, or `<none>`.
pub fn label_text(labels: &Value) -> String {
    let pairs: Vec<String> = labels.map("").iter().map(|(key, value)| format!("{key}={}", scalar(value))).collect();
    if pairs.is_empty() { "<none>".into() } else { pairs.join(",") }
}

fn cell(value: &Value) -> String {
    let text = match value {
        Value::Null => return "<none>".into(),
        Value::String(text) => text,
        Value::Array(values) => return format!("[{}]", values.iter().map(scalar).collect::<Vec<_>>().join(" ")),
        other => return other.to_string(),
    };
    match text.find(['\n', '\r', '\u{c}']) {
        Some(end) => format!("{}...", &text[..end]),
        None => text.clone(),
    }
}

/// A table of NAME and AGE, for servers and objects without one.
pub fn plain(objects: &[Value]) -> Value {
    let rows: Vec<Value> = objects
        .iter()
        .map(|object| {
            json!({
                "cells": [object.text("metadata.name"), time::age(object.text("metadata.creationTimestamp"))],
                "object": object,
            })
        })
        .collect();
    json!({"columnDefinitions": [{"name": "Name"}, {"name": "Age"}], "rows": rows})
}
