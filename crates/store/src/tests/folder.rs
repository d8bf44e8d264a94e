//! The folder: who may read it, who may open it, what is refused.

use super::*;
use std::fs;
use std::os::unix::fs::PermissionsExt;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn refusal(dir: &Path) -> String {
    let error = Store::open(dir, small()).unwrap_err();
    error.to_string().replace(&dir.display().to_string(), "DIR")
}

#[test]
fn only_its_owner_may_read_it() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("a/b");
    let (mut store, _) = open(&dir);
    store.append(&[batch(vec![put(1, "secrets/default/s", "hush")])]).unwrap();
    store.compact(1, [("secrets/default/s", 1, &b"hush"[..])].into_iter()).unwrap();
    drop(store);
    assert_eq!(mode(&dir), 0o700);
    let entries: Vec<PathBuf> = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(entries.len() >= 3);
    assert!(entries.iter().all(|path| mode(path) == 0o600));
}

#[test]
fn a_folder_made_by_hand_is_closed_to_others() {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    drop(open(dir.path()));
    assert_eq!(mode(dir.path()), 0o700);
}

#[test]
fn two_servers_never_open_one_folder() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path());
    let expected = format!(
        "DIR is in use by another kapstan server (process {}): stop it, or give this one a data folder of its own",
        std::process::id()
    );
    assert_eq!(refusal(dir.path()), expected);
    drop(first);
    open(dir.path());
}

#[test]
fn a_folder_with_other_things_in_it_is_not_taken_over() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("thesis.txt"), "x").unwrap();
    assert_eq!(
        refusal(dir.path()),
        r#"DIR is not a store: it holds "thesis.txt" and no lock file; give an empty or a new folder"#
    );
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn other_files_in_a_store_are_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    fs::write(dir.path().join("notes.log"), "x").unwrap();
    drop(open(dir.path()));
    assert!(dir.path().join("notes.log").exists());
}

#[test]
fn a_file_where_the_folder_should_be_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    fs::write(&path, "x").unwrap();
    assert_eq!(refusal(&path), "cannot create DIR: File exists (os error 17)");
}

#[test]
fn a_newer_format_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = open(dir.path());
    store.append(&[batch(vec![put(1, "a", "1")])]).unwrap();
    drop(store);
    let path = used_segments(dir.path()).remove(0);
    let mut bytes = fs::read(&path).unwrap();
    bytes[8] = 9;
    let crc = crc32fast::hash(&bytes[..56]);
    bytes[56..60].copy_from_slice(&crc.to_le_bytes());
    fs::write(&path, bytes).unwrap();
    assert_eq!(
        refusal(dir.path()),
        "DIR/00000000000000000001.log has format 9, this kapstan knows format 1: use the version of kapstan that wrote it"
    );
}
