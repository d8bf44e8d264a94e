//! A crash between any two steps: after every step that changes the folder a copy of it is kept.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

thread_local! {
    static RECORDER: RefCell<Option<(PathBuf, Vec<TempDir>)>> = const { RefCell::new(None) };
}

/// Called by `folder.rs` after each of its steps.
pub(crate) fn step(path: &Path) {
    RECORDER.with_borrow_mut(|recorder| {
        if let Some((dir, copies)) = recorder.as_mut().filter(|(dir, _)| path.starts_with(dir)) {
            copies.push(super::copy(dir));
        }
    });
}

/// The folder as it was after each step that `work` took on this thread.
pub(crate) fn states_during(dir: &Path, work: impl FnOnce()) -> Vec<TempDir> {
    RECORDER.set(Some((dir.to_owned(), Vec::new())));
    work();
    RECORDER.take().expect("set above").1
}
