//! A full disk and a read-only one, on a small tmpfs in a mount namespace of its own: nothing is left mounted, whatever
//! happens. Needs root and `unshare`; without them the test says that it did nothing.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail like the test")]

use std::fs;
use std::path::Path;
use std::process::Command;
use store::{Batch, Limits, Record, Store, StoreError, Trouble};

const CHILD: &str = "KAPSTAN_STORE_DISK_DIR";

/// Runs the named test of this binary with a tmpfs of 4 MB; false where that is not allowed.
fn on_small_disk(test: &str) -> bool {
    let dir = tempfile::tempdir().unwrap();
    let script = r#"mount -t tmpfs -o size=4m tmpfs "$1" || exit 77; exec "$2" --exact "$3" --nocapture"#;
    let status = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", script, "sh"])
        .arg(dir.path())
        .arg(std::env::current_exe().unwrap())
        .arg(test)
        .env(CHILD, dir.path())
        .status();
    match status {
        Ok(status) if status.success() => true,
        Ok(status) if status.code() == Some(101) => panic!("{test} failed on the small disk"),
        _ => {
            println!("{test} did nothing: no right to mount here");
            false
        }
    }
}

fn batch(revision: u64) -> Batch {
    let mut state = revision | 1;
    let noise = (0..8192).map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    });
    Batch { records: vec![Record { revision, key: "noise".into(), value: Some(noise.collect()) }] }
}

fn limits() -> Limits {
    Limits { segment_bytes: 512 << 10, ..Limits::default() }
}

#[test]
fn a_full_disk_is_an_error_and_loses_nothing() {
    let Some(dir) = std::env::var_os(CHILD) else {
        on_small_disk("a_full_disk_is_an_error_and_loses_nothing");
        return;
    };
    let dir = Path::new(&dir).join("store");
    let (mut store, _) = Store::open(&dir, limits()).unwrap();
    let mut revision = 0;
    let error = loop {
        match store.append(&[batch(revision + 1)]) {
            Ok(()) => revision += 1,
            Err(error) => break error,
        }
        assert!(revision < 1000, "4 MB hold no more");
    };
    let text = error.to_string();
    assert!(matches!(error, StoreError::Full { .. }), "{text}");
    assert!(text.ends_with("nothing that was acknowledged is lost: free some space, then start again"), "{text}");
    refuses_more(store, revision);
    let (_store, recovered) = Store::open(&dir, limits()).unwrap();
    assert!(recovered.revision >= revision);
    assert_eq!(
        recovered.history[..revision as usize].iter().map(|record| record.revision).collect::<Vec<_>>(),
        (1..=revision).collect::<Vec<_>>()
    );
}

/// A failed write poisons the store; a segment that could not be made does not.
fn refuses_more(mut store: Store, revision: u64) {
    if store.is_poisoned() {
        let error = store.append(&[batch(revision + 1)]).unwrap_err();
        assert!(matches!(error, StoreError::Poisoned { .. }), "{error}");
        return;
    }
    assert!(matches!(store.append(&[batch(revision + 1)]), Err(StoreError::Full { .. })));
}

#[test]
fn a_snapshot_that_does_not_fit_leaves_the_store_as_it_was() {
    let Some(dir) = std::env::var_os(CHILD) else {
        on_small_disk("a_snapshot_that_does_not_fit_leaves_the_store_as_it_was");
        return;
    };
    let dir = Path::new(&dir).join("store");
    let (mut store, _) = Store::open(&dir, limits()).unwrap();
    store.append(&[batch(1)]).unwrap();
    let large: Vec<Vec<u8>> = (0..1000).map(|n| batch(n * 7919).records[0].value.clone().unwrap().to_vec()).collect();
    let error = store.compact(1, large.iter().map(|value| ("noise", 1, &value[..]))).unwrap_err();
    assert!(matches!(error, StoreError::Full { .. }), "{error}");
    let names: Vec<_> = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!names.iter().any(|name| name.to_string_lossy().contains("snapshot")), "{names:?}");
    store.append(&[batch(2)]).unwrap();
}

#[test]
fn a_sync_that_fails_is_an_error_and_the_store_takes_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("store");
    let (mut store, _) = Store::open(&dir, limits()).unwrap();
    store.append(&[batch(1)]).unwrap();
    store.meet(Trouble::SyncFails);
    let error = store.append(&[batch(2)]).unwrap_err();
    assert!(matches!(error, StoreError::Io { action: "sync", .. }), "{error}");
    assert_eq!(store.revision(), 1);
    refuses_more(store, 1);
    // All of it was written, and the system did not end with the process: it is there.
    let (_store, recovered) = Store::open(&dir, limits()).unwrap();
    assert_eq!((recovered.revision, recovered.torn_bytes), (2, 0));
}

#[test]
fn a_disk_that_takes_a_part_is_an_error_and_the_part_is_cut_off() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("store");
    let (mut store, _) = Store::open(&dir, limits()).unwrap();
    store.append(&[batch(1)]).unwrap();
    store.meet(Trouble::Full { bytes: 100 });
    let error = store.append(&[batch(2), batch(3)]).unwrap_err();
    assert!(matches!(error, StoreError::Full { action: "write", .. }), "{error}");
    refuses_more(store, 1);
    let (_store, recovered) = Store::open(&dir, limits()).unwrap();
    assert_eq!((recovered.revision, recovered.torn_bytes > 0), (1, true));
}

#[test]
fn a_read_only_disk_is_an_error() {
    let Some(dir) = std::env::var_os(CHILD) else {
        on_small_disk("a_read_only_disk_is_an_error");
        return;
    };
    let mount = Path::new(&dir);
    let path = mount.join("store");
    let (mut store, _) = Store::open(&path, limits()).unwrap();
    store.append(&[batch(1)]).unwrap();
    drop(store);
    assert!(Command::new("mount").args(["-o", "remount,ro"]).arg(mount).status().unwrap().success());
    let error = Store::open(&path, limits()).unwrap_err();
    assert!(matches!(error, StoreError::NotWritable { .. }), "{error}");
    let text = error.to_string();
    assert!(text.ends_with("make the folder writable for this user, or choose another data folder"), "{text}");
    let error = Store::open(&mount.join("other"), limits()).unwrap_err();
    assert!(matches!(error, StoreError::NotWritable { .. }), "{error}");
}
