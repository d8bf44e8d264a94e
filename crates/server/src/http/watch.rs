//! WATCH: each watcher walks the history of its kind at its own pace and writes the stored bytes.
//!
//! Upstream: `apiserver/pkg/storage/cacher`. A selector turns a change into ADDED, MODIFIED or DELETED as the object
//! starts, goes on or stops to match; what a watcher missed for good is told with 410.

use std::sync::Arc;
use std::time::Duration;

use api::{Change, Kind, Object, Refusal, Snapshot, limits};
use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures::stream;
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};
use tokio::sync::watch::Receiver;
use tokio::time::Instant;

use super::negotiate::Form;
use super::query::Query;
use super::select::Selection;
use super::{Gate, read, reply, table};
use crate::published::Published;

/// Time between bookmarks on a quiet watch.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// Changes taken from the history at a time.
const BATCH: usize = 256;

/// Starts a watch.
pub fn watch(
    gate: &Gate,
    kind: Kind,
    selection: Selection,
    query: &Query,
    headers: &HeaderMap,
) -> Result<Response, Refusal> {
    let form = read::form(headers)?;
    let follow = gate.published.follow(kind);
    let mut watcher = Watcher {
        published: gate.published.clone(),
        follow,
        stopping: gate.stopping.clone(),
        kind,
        selection,
        form,
        include: query.text("includeObject").to_owned(),
        first_row: true,
        bookmarks: query.flag("allowWatchBookmarks"),
        seen: 0,
        ends: Instant::now() + query.watch_time()?,
        initial: None,
        ready: Vec::new(),
        over: false,
    };
    watcher.start(query)?;
    let stream = stream::unfold(watcher, |mut watcher| async move {
        let chunk = watcher.next().await?;
        Some((Ok::<_, std::convert::Infallible>(chunk), watcher))
    });
    Ok(reply::with_type(StatusCode::OK, reply::JSON, Body::from_stream(stream)))
}

struct Watcher {
    published: Arc<Published>,
    follow: Receiver<u64>,
    stopping: Receiver<bool>,
    kind: Kind,
    selection: Selection,
    form: Form,
    include: String,
    first_row: bool,
    bookmarks: bool,
    /// Everything up to this revision has been sent or does not match.
    seen: u64,
    ends: Instant,
    /// What is left of the objects that it begins with.
    initial: Option<Initial>,
    /// Bytes to send before anything else.
    ready: Vec<u8>,
    over: bool,
}

/// Objects that a watch begins with: they are written as the client takes them, however many there are.
struct Initial {
    snapshot: Arc<Snapshot>,
    /// Path of the last one that is written.
    after: Option<String>,
    /// A bookmark says that these were all.
    bookmark: bool,
}

impl Watcher {
    /// Finds the place to begin, with the initial objects where they are asked for.
    fn start(&mut self, query: &Query) -> Result<(), Refusal> {
        let version = query.text("resourceVersion");
        let initial = query.flag("sendInitialEvents");
        if initial && query.text("resourceVersionMatch") != "NotOlderThan" {
            return Err(read::forbidden_option(
                "resourceVersionMatch",
                "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
            ));
        }
        if !query.text("sendInitialEvents").is_empty() && !initial && query.text("resourceVersionMatch").is_empty() {
            return Err(read::forbidden_option(
                "resourceVersionMatch",
                "sendInitialEvents requires resourceVersionMatch",
            ));
        }
        let asked: u64 = match version {
            "" => 0,
            text => text.parse().map_err(|_| Refusal::bad_request(format!("invalid resource version \"{text}\"")))?,
        };
        let snapshot = self.published.snapshot();
        if snapshot.revision() < asked {
            return Err(read::too_new(asked, snapshot.revision()));
        }
        if !initial && asked != 0 {
            self.seen = asked;
            return self.published.changes_after(self.kind, asked, 0).map(drop).map_err(|too_old| {
                Refusal::expired(format!("too old resource version: {asked} ({})", too_old.oldest))
            });
        }
        self.seen = snapshot.revision();
        self.initial = Some(Initial { snapshot, after: None, bookmark: initial && self.bookmarks });
        Ok(())
    }

    /// Writes some of the objects that the watch begins with.
    fn take_initial(&mut self) {
        let Some(Initial { snapshot, after, bookmark }) = self.initial.take() else { return };
        for object in snapshot.objects_after(self.kind, self.selection.namespace.as_deref(), after.as_deref()) {
            if self.selection.matches(object) {
                self.put("ADDED", object);
            }
            if limits::WATCH_CHUNK_BYTES < self.ready.len() {
                let after = Some(object.key().path());
                self.initial = Some(Initial { snapshot: snapshot.clone(), after, bookmark });
                return;
            }
        }
        if bookmark {
            self.bookmark(true);
        }
    }

    /// The next bytes, or nothing when the watch is over.
    async fn next(&mut self) -> Option<Bytes> {
        let mut quiet_until = Instant::now() + BOOKMARK_EVERY;
        loop {
            if !self.ready.is_empty() {
                return Some(Bytes::from(std::mem::take(&mut self.ready)));
            }
            if self.initial.is_some() {
                self.take_initial();
                continue;
            }
            if self.over {
                return None;
            }
            let newest = *self.follow.borrow_and_update();
            self.take_changes(newest);
            if !self.ready.is_empty() {
                continue;
            }
            let bookmark_due = tokio::select! {
                changed = self.follow.changed() => {
                    self.over = changed.is_err();
                    false
                }
                () = stopped(&mut self.stopping) => {
                    self.over = true;
                    false
                }
                () = tokio::time::sleep_until(self.ends) => {
                    // The last word of a watch is where to go on from.
                    self.over = true;
                    true
                }
                () = tokio::time::sleep_until(quiet_until) => {
                    quiet_until = Instant::now() + BOOKMARK_EVERY;
                    true
                }
            };
            if bookmark_due && self.bookmarks {
                self.bookmark(false);
            }
        }
    }

    fn take_changes(&mut self, newest: u64) {
        loop {
            match self.published.changes_after(self.kind, self.seen, BATCH) {
                Ok(mut changes) => {
                    // What is newer is not yet in the snapshot that a GET would see.
                    changes.truncate(changes.partition_point(|change| change.revision <= newest));
                    let full = changes.len() == BATCH;
                    for change in changes {
                        self.seen = change.revision;
                        self.tell(&change);
                    }
                    if !full {
                        self.seen = self.seen.max(newest);
                        return;
                    }
                    if limits::WATCH_CHUNK_BYTES < self.ready.len() {
                        return;
                    }
                }
                Err(too_old) => {
                    let refusal =
                        Refusal::expired(format!("too old resource version: {} ({})", self.seen, too_old.oldest));
                    self.frame("ERROR", refusal.to_value().to_string().as_bytes());
                    self.over = true;
                    return;
                }
            }
        }
    }

    fn tell(&mut self, change: &Change) {
        let matched =
            |object: &Option<Arc<Object>>| object.as_ref().is_some_and(|object| self.selection.matches(object));
        match (matched(&change.before), matched(&change.after), &change.after) {
            (false, true, Some(after)) => self.put("ADDED", after),
            (true, true, Some(after)) => self.put("MODIFIED", after),
            (true, false, None) => {
                let last = change.before.clone();
                last.iter().for_each(|last| self.put("DELETED", last));
            }
            (true, false, Some(after)) => {
                // It goes on, but no longer for this watcher: the last matching state with the revision of the change.
                if let Some(before) = &change.before {
                    self.put("DELETED", &Object::written(before.body.clone(), after.revision));
                }
            }
            _ => {}
        }
    }

    fn put(&mut self, event: &str, object: &Arc<Object>) {
        match self.form {
            Form::Table(version) => {
                let rows = table::Table::new(self.kind, version, &self.include);
                let table = rows.watched(object, self.first_row);
                self.first_row = false;
                self.frame(event, table.to_string().as_bytes());
            }
            Form::Metadata(version) => {
                self.frame(event, read::metadata_only(object, version).to_string().as_bytes());
            }
            _ => self.frame(event, &object.json),
        }
    }

    fn bookmark(&mut self, initial_end: bool) {
        let info = self.kind.info();
        let mut metadata = json!({ "resourceVersion": self.seen.to_string(), "creationTimestamp": null });
        if initial_end {
            metadata["annotations"] = json!({ "k8s.io/initial-events-end": "true" });
        }
        let bare: Value = json!({ "kind": info.kind, "apiVersion": info.api_version(), "metadata": metadata });
        let object = match self.form {
            Form::Table(version) => json!({
                "kind": "Table", "apiVersion": format!("meta.k8s.io/{version}"),
                "metadata": { "resourceVersion": self.seen.to_string() }, "columnDefinitions": null,
                "rows": [{ "cells": [], "object": bare }],
            }),
            Form::Metadata(version) => json!({
                "kind": "PartialObjectMetadata", "apiVersion": format!("meta.k8s.io/{version}"), "metadata": metadata,
            }),
            _ => bare,
        };
        self.frame("BOOKMARK", object.to_string().as_bytes());
    }

    fn frame(&mut self, event: &str, object: &[u8]) {
        self.ready.extend_from_slice(b"{\"type\":\"");
        self.ready.extend_from_slice(event.as_bytes());
        self.ready.extend_from_slice(b"\",\"object\":");
        self.ready.extend_from_slice(object);
        self.ready.extend_from_slice(b"}\n");
    }
}

/// Returns when the server stops.
async fn stopped(stopping: &mut Receiver<bool>) {
    // An error means that the sender is gone, which is the server's end as well.
    drop(stopping.wait_for(|stopping| *stopping).await);
}
