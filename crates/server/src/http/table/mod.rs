//! `Table`: what `kubectl get` prints. The columns are upstream's (`pkg/printers/internalversion/printers.go`).

mod autoscaler;
mod columns;
mod ingress;
mod pod;
mod storage;

use std::sync::Arc;

use api::{Kind, Object};
use jiff::Timestamp;
use serde_json::{Value, json};

use columns::Column;

/// A table of one kind.
pub struct Table {
    kind: Kind,
    version: &'static str,
    include: String,
    now: Timestamp,
}

impl Table {
    /// `include` is the parameter `includeObject`: `None`, `Metadata` (the default) or `Object`.
    pub fn new(kind: Kind, version: &'static str, include: &str) -> Table {
        Table { kind, version, include: include.to_owned(), now: Timestamp::now() }
    }

    /// The same, as if it were `now`: ages count from there.
    pub fn at(self, now: Timestamp) -> Table {
        Table { now, ..self }
    }

    /// The whole table.
    pub fn render(
        &self,
        objects: &[Arc<Object>],
        revision: u64,
        next: Option<String>,
        remaining: Option<usize>,
    ) -> Value {
        let mut metadata = json!({ "resourceVersion": revision.to_string() });
        if let Some(next) = next {
            metadata["continue"] = next.into();
        }
        if let Some(remaining) = remaining {
            metadata["remainingItemCount"] = remaining.into();
        }
        let rows: Vec<Value> = objects.iter().map(|object| self.row(object)).collect();
        json!({
            "kind": "Table", "apiVersion": format!("meta.k8s.io/{}", self.version), "metadata": metadata,
            "columnDefinitions": self.columns(), "rows": rows,
        })
    }

    /// The table of one watch event; only the first needs the columns.
    pub fn watched(&self, object: &Arc<Object>, first: bool) -> Value {
        let columns = if first { self.columns() } else { Value::Null };
        json!({
            "kind": "Table", "apiVersion": format!("meta.k8s.io/{}", self.version),
            "metadata": { "resourceVersion": object.revision.to_string() },
            "columnDefinitions": columns, "rows": [self.row(object)],
        })
    }

    fn columns(&self) -> Value {
        let column = |column: &Column| {
            json!({
                "name": column.name, "type": column.kind, "format": if column.name == "Name" { "name" } else { "" },
                "description": column.description, "priority": column.priority,
            })
        };
        columns::of(self.kind).iter().map(column).collect()
    }

    fn row(&self, object: &Arc<Object>) -> Value {
        let included = match self.include.as_str() {
            "None" => Value::Null,
            "Object" => object.body.to_value(),
            _ => json!({
                "kind": "PartialObjectMetadata", "apiVersion": format!("meta.k8s.io/{}", self.version), "metadata": object.meta(),
            }),
        };
        let mut row = json!({ "cells": columns::cells(object, self.now), "object": included });
        if let Some(phase) = pod::finished_phase(object) {
            row["conditions"] =
                json!([{ "type": "Completed", "status": "True", "reason": phase.0, "message": phase.1 }]);
        }
        row
    }
}
