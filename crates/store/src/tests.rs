//! The store against a model: what was appended is found again, whatever happened to the files in between.

mod compaction;
pub(crate) mod crash;
mod damage;
mod folder;
mod model;

use crate::{Batch, Limits, Record, Recovered, Store, StoreError};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Small segments, so that tests roll over often.
pub(crate) fn small() -> Limits {
    Limits { segment_bytes: 4096, log_bytes: 64 << 10, ..Limits::default() }
}

pub(crate) fn put(revision: u64, key: &str, value: impl Into<Bytes>) -> Record {
    Record { revision, key: key.into(), value: Some(value.into()) }
}

pub(crate) fn delete(revision: u64, key: &str) -> Record {
    Record { revision, key: key.into(), value: None }
}

pub(crate) fn batch(records: Vec<Record>) -> Batch {
    Batch { records }
}

/// Something like an object: mostly alike, a few digits of its own, not compressible to nothing.
pub(crate) fn object(seed: u64, bytes: usize) -> Bytes {
    let mut text = String::new();
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    while text.len() < bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        text.push_str(&format!(r#"{{"name":"web","uid":"{state:016x}"}},"#));
    }
    text.truncate(bytes);
    text.into()
}

pub(crate) fn open(dir: &Path) -> (Store, Recovered) {
    Store::open(dir, small()).unwrap()
}

/// Live objects by key.
pub(crate) fn objects(recovered: &Recovered) -> BTreeMap<String, (u64, Bytes)> {
    let live = recovered
        .objects
        .iter()
        .map(|record| (record.key.clone(), (record.revision, record.value.clone().expect("live objects have values"))));
    live.collect()
}

pub(crate) fn apply(live: &mut BTreeMap<String, (u64, Bytes)>, record: &Record) {
    match &record.value {
        Some(value) => live.insert(record.key.clone(), (record.revision, value.clone())),
        None => live.remove(&record.key),
    };
}

pub(crate) fn live(objects: &BTreeMap<String, (u64, Bytes)>) -> impl Iterator<Item = (&str, u64, &[u8])> {
    objects.iter().map(|(key, (revision, value))| (key.as_str(), *revision, value.as_ref()))
}

pub(crate) fn copy(from: &Path) -> tempfile::TempDir {
    let to = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        // The background thread renames files at any moment.
        let _ = std::fs::copy(&path, to.path().join(path.file_name().unwrap()));
    }
    to
}

/// Files that end in `.log` or `.snapshot`, ascending.
pub(crate) fn files(dir: &Path, end: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == end));
    files.sort();
    files
}

/// Only those with something in them.
pub(crate) fn used_segments(dir: &Path) -> Vec<PathBuf> {
    let mut files = files(dir, "log");
    files.retain(|path| std::fs::read(path).unwrap().iter().any(|&byte| byte != 0));
    files
}

#[test]
fn an_empty_folder_holds_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (store, recovered) = open(dir.path());
    assert_eq!((recovered.revision, recovered.compacted, recovered.objects.len()), (0, 0, 0));
    assert_eq!(store.stats().fsyncs, 0);
    assert!(!store.should_compact());
}

#[test]
fn what_was_appended_is_found_again() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = open(dir.path());
    store.append(&[batch(vec![put(1, "pods/default/a", "1"), put(2, "pods/default/b", "2")])]).unwrap();
    store.append(&[batch(vec![put(5, "pods/default/a", "3")]), batch(vec![delete(6, "pods/default/b")])]).unwrap();
    store.append(&[]).unwrap();
    store.append(&[batch(vec![])]).unwrap();
    assert_eq!(store.stats().fsyncs, 2);
    drop(store);
    let (store, recovered) = open(dir.path());
    assert_eq!(store.revision(), 6);
    assert_eq!(recovered.revision, 6);
    assert_eq!(recovered.compacted, 0);
    assert_eq!(recovered.torn_bytes, 0);
    assert_eq!(recovered.objects, [put(5, "pods/default/a", "3")]);
    let (a, b) = ("pods/default/a", "pods/default/b");
    assert_eq!(recovered.history, [put(1, a, "1"), put(2, b, "2"), put(5, a, "3"), delete(6, b)]);
    assert_eq!(recovered.previous, [None, None, Some("1".into()), Some("2".into())]);
}

#[test]
fn an_empty_value_is_not_a_deletion() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = open(dir.path());
    store.append(&[batch(vec![put(1, "a", "")])]).unwrap();
    drop(store);
    assert_eq!(open(dir.path()).1.objects, [put(1, "a", "")]);
}

#[test]
fn a_batch_larger_than_a_segment_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = open(dir.path());
    let large: Vec<Record> = (1..=200).map(|n| put(n, &format!("k{n}"), object(n, 3000))).collect();
    store.append(&[batch(large.clone())]).unwrap();
    store.append(&[batch(vec![put(201, "after", "x")])]).unwrap();
    assert_eq!(store.stats().segments, 2);
    drop(store);
    let recovered = open(dir.path()).1;
    assert_eq!(recovered.history[..200], large[..]);
    assert_eq!(recovered.revision, 201);
}

#[test]
fn revisions_must_grow_and_appends_are_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = Store::open(dir.path(), Limits { append_bytes: 100, ..small() }).unwrap();
    store.append(&[batch(vec![put(3, "a", "1")])]).unwrap();
    let again = store.append(&[batch(vec![put(4, "b", "1")]), batch(vec![put(4, "c", "1")])]);
    assert_eq!(again.unwrap_err().to_string(), "revision 4 of c is not greater than 4, the last one written");
    let large = store.append(&[batch(vec![put(4, "a", vec![0; 100])])]);
    assert!(matches!(large, Err(StoreError::TooLarge { bytes: 101, limit: 100 })));
    store.append(&[batch(vec![put(4, "b", "1")])]).unwrap();
    assert!(!store.is_poisoned());
    drop(store);
    assert_eq!(open(dir.path()).1.history.len(), 2);
}

#[test]
fn history_is_bounded_and_says_how_far_it_reaches() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = open(dir.path());
    for revision in 1..=100 {
        store.append(&[batch(vec![put(revision, "k", vec![7; 99])])]).unwrap();
    }
    drop(store);
    let (_store, recovered) = Store::open(dir.path(), Limits { history_bytes: 1050, ..small() }).unwrap();
    assert_eq!(recovered.history.len(), 10);
    assert_eq!(recovered.compacted, 90);
    assert_eq!(recovered.history[0].revision, 91);
    assert_eq!(recovered.objects.len(), 1);
}

#[test]
fn many_starts_leave_few_files() {
    let dir = tempfile::tempdir().unwrap();
    for start in 1..=20 {
        let (mut store, recovered) = open(dir.path());
        assert_eq!(recovered.revision, (start - 1) / 2);
        if start % 2 == 0 {
            store.append(&[batch(vec![put(start / 2, "k", "v")])]).unwrap();
        }
    }
    let (store, _) = open(dir.path());
    assert_eq!(store.stats().segments, 10);
    drop(store);
    assert_eq!(used_segments(dir.path()).len(), 10);
    assert!(files(dir.path(), "log").len() <= 11);
}
