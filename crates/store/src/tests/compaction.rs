//! Compaction: bounded disk, and a folder that opens after a crash between any two of its steps.

use super::*;
use std::fs;

/// Appends one record to the store and to the model.
fn write(store: &mut Store, model: &mut BTreeMap<String, (u64, Bytes)>, revision: u64) {
    let key = format!("pods/default/web-{}", revision % 7);
    let record =
        if revision.is_multiple_of(5) { delete(revision, &key) } else { put(revision, &key, object(revision, 1200)) };
    store.append(&[batch(vec![record.clone()])]).unwrap();
    apply(model, &record);
}

#[test]
fn after_a_compaction_only_what_came_later_is_history() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = open(dir.path());
    let (mut model, mut then) = (BTreeMap::new(), BTreeMap::new());
    for revision in 1..=40 {
        write(&mut store, &mut model, revision);
        if revision == 30 {
            then = model.clone();
        }
    }
    store.compact(30, live(&then)).unwrap();
    let stats = store.stats();
    assert!(stats.snapshot_bytes > 0 && stats.live_bytes > 0);
    drop(store);
    let (_, recovered) = open(dir.path());
    assert_eq!(objects(&recovered), model);
    assert_eq!((recovered.revision, recovered.compacted, recovered.history.len()), (40, 30, 10));
    let previous = recovered.history.iter().zip(&recovered.previous).filter(|(_, previous)| previous.is_some());
    assert!(previous.count() > 0, "values from the snapshot are known to the history");
}

#[test]
fn a_compaction_at_the_newest_revision_leaves_only_the_snapshot_to_read() {
    let dir = tempfile::tempdir().unwrap();
    let mut model = BTreeMap::new();
    let (mut store, _) = open(dir.path());
    (1..=20).for_each(|revision| write(&mut store, &mut model, revision));
    store.compact(20, live(&model)).unwrap();
    store.compact(20, live(&model)).unwrap();
    drop(store);
    let (mut store, recovered) = open(dir.path());
    assert_eq!((recovered.revision, recovered.compacted), (20, 20));
    assert_eq!(objects(&recovered), model);
    write(&mut store, &mut model, 21);
    drop(store);
    assert_eq!(objects(&open(dir.path()).1), model);
}

#[test]
fn a_crash_between_any_two_steps_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = open(dir.path());
    let (mut model, mut then) = (BTreeMap::new(), BTreeMap::new());
    for revision in 1..=30 {
        write(&mut store, &mut model, revision);
        if revision == 10 {
            store.compact(10, live(&model)).unwrap();
        }
        if revision == 25 {
            then = model.clone();
        }
    }
    let states = crash::states_during(dir.path(), || store.compact(25, live(&then)).unwrap());
    assert!(states.len() >= 6, "create, rename, sync, remove the old snapshot, remove segments: {}", states.len());
    for (step, state) in states.iter().enumerate() {
        check(state.path(), &model, step);
    }
}

/// Opens the folder (which tidies it: a crash may come there too), goes on writing, and opens it again.
fn check(dir: &Path, model: &BTreeMap<String, (u64, Bytes)>, step: usize) {
    let mut model = model.clone();
    let again = crash::states_during(dir, || {
        let (mut store, recovered) = open(dir);
        assert_eq!(objects(&recovered), model, "after step {step}");
        assert_eq!(recovered.revision, 30);
        write(&mut store, &mut model, 31);
    });
    assert_eq!(objects(&open(dir).1), model);
    for state in again {
        let revision = open(state.path()).1.revision;
        assert!(revision == 30 || revision == 31, "after step {step}");
    }
}

/// A disk may make removals durable in any order.
#[test]
fn segments_that_a_snapshot_covers_may_be_there_or_not() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = open(dir.path());
    let mut model = BTreeMap::new();
    (1..=30).for_each(|revision| write(&mut store, &mut model, revision));
    let before = copy(dir.path());
    store.compact(30, live(&model)).unwrap();
    drop(store);
    let snapshot = files(dir.path(), "snapshot").remove(0);
    fs::copy(&snapshot, before.path().join(snapshot.file_name().unwrap())).unwrap();
    let segments = used_segments(before.path());
    let covered = segments.len() - 1;
    assert!(covered >= 3);
    for subset in 0..1u32 << covered {
        let state = copy(before.path());
        for (bit, segment) in segments[..covered].iter().enumerate().filter(|(bit, _)| subset >> bit & 1 == 1) {
            let _ = bit;
            fs::remove_file(state.path().join(segment.file_name().unwrap())).unwrap();
        }
        assert_eq!(objects(&open(state.path()).1), model, "without {subset:b}");
        assert!(used_segments(state.path()).len() <= 1, "the rest is tidied away");
    }
}

#[test]
fn a_snapshot_is_written_beside_appends() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = open(dir.path());
    let mut model = BTreeMap::new();
    (1..=50).for_each(|revision| write(&mut store, &mut model, revision));
    let (snapshotter, then) = (store.snapshotter(), model.clone());
    let writer = std::thread::spawn(move || snapshotter.write(50, live(&then)));
    (51..=90).for_each(|revision| write(&mut store, &mut model, revision));
    let snapshot = writer.join().unwrap().unwrap();
    assert_eq!(snapshot.revision(), 50);
    store.adopt(snapshot).unwrap();
    (91..=95).for_each(|revision| write(&mut store, &mut model, revision));
    drop(store);
    let (_, recovered) = open(dir.path());
    assert_eq!(objects(&recovered), model);
    assert_eq!((recovered.compacted, recovered.history.len()), (50, 45));
}

#[test]
fn an_abandoned_snapshot_leaves_no_file_and_a_wrong_one_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = open(dir.path());
    let mut model = BTreeMap::new();
    (1..=20).for_each(|revision| write(&mut store, &mut model, revision));
    drop(store.snapshotter().write(20, live(&model)).unwrap());
    let ahead = store.compact(21, live(&model)).unwrap_err();
    assert_eq!(
        ahead.to_string(),
        "a snapshot at revision 21 does not lie between 0, the last snapshot, and 20, the last durable revision"
    );
    assert_eq!(files(dir.path(), "new").iter().filter(|path| path.to_string_lossy().contains("snapshot")).count(), 0);
    store.compact(20, live(&model)).unwrap();
    assert!(matches!(store.compact(19, live(&model)), Err(StoreError::Snapshot { .. })));
    assert_eq!(files(dir.path(), "snapshot").len(), 1);
}

/// What a server does: it compacts, when the log is too long, at the revision where it compacted last.
#[test]
fn the_disk_stays_bounded_under_a_long_run_of_overwrites() {
    let dir = tempfile::tempdir().unwrap();
    let limits = Limits { segment_bytes: 64 << 10, log_bytes: 256 << 10, ..Limits::default() };
    let (mut store, _) = Store::open(dir.path(), limits).unwrap();
    let mut model = BTreeMap::new();
    let mut then = (0, BTreeMap::new());
    let (mut largest, mut compactions, mut revision) = (0, 0, 0);
    for _ in 0..3000 {
        let records: Vec<Record> = (0..20)
            .map(|_| {
                revision += 1;
                put(revision, &format!("pods/default/web-{}", revision % 100), object(revision, 800))
            })
            .collect();
        records.iter().for_each(|record| apply(&mut model, record));
        store.append(&[batch(records)]).unwrap();
        if store.should_compact() {
            store.compact(then.0, live(&then.1)).unwrap();
            then = (revision, model.clone());
            compactions += 1;
        }
        if revision % 2000 == 0 {
            largest = largest.max(disk_use(dir.path()));
        }
    }
    let stats = store.stats();
    assert!(compactions > 10, "{compactions}");
    assert_eq!((stats.fsyncs, stats.appends), (3000, 3000));
    assert!(stats.bytes_written > 10 << 20, "{stats:?}");
    assert!(largest < 1 << 20, "{largest} bytes on disk, {stats:?}");
    drop(store);
    assert_eq!(objects(&Store::open(dir.path(), limits).unwrap().1), model);
}

fn disk_use(dir: &Path) -> u64 {
    fs::read_dir(dir).unwrap().filter_map(|entry| entry.unwrap().metadata().ok()).map(|meta| meta.len()).sum()
}
