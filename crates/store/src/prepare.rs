//! The thread that makes segments ahead of the writer: zeros, synced, under their final name. Zeroing in the writer's path
//! stalls appends for tens of milliseconds.

use crate::error::{StoreError, failed};
use crate::folder::{self, LOG};
use crate::segment::Writer;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

/// Zeros are synced in pieces of this size, so that an append's `fdatasync` never waits for a whole segment's.
const PIECE: usize = 512 << 10;
/// ... and written page by page: a larger write makes the kernel keep the file in large folios, and an append of a hundred
/// bytes then dirties all of a folio (half a megabyte was seen to be accounted for each).
const PAGE: usize = 4096;

/// Makes one segment at a time, on request.
#[derive(Debug)]
pub(crate) struct Preparer {
    orders: Option<SyncSender<u64>>,
    ready: Receiver<Result<Writer, StoreError>>,
    thread: Option<JoinHandle<()>>,
    ordered: bool,
}

impl Preparer {
    /// Starts the thread, and with it the first segment.
    pub fn start(dir: &Path, segment_bytes: u64, first: u64) -> Result<Preparer, StoreError> {
        let (orders, incoming) = sync_channel(1);
        let (done, ready) = sync_channel(1);
        let path = dir.to_owned();
        let work = move || {
            for number in incoming {
                if done.send(make(&path, number, segment_bytes)).is_err() {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("store-prepare".into()).spawn(work);
        let thread = Some(thread.map_err(failed("start a thread for", dir))?);
        let mut preparer = Preparer { orders: Some(orders), ready, thread, ordered: false };
        preparer.order(first);
        Ok(preparer)
    }

    /// The segment with this number, as soon as it is ready; the one after it is begun. After a failure the same number can
    /// be taken again.
    pub fn take(&mut self, number: u64) -> Result<Writer, StoreError> {
        self.order(number);
        self.ordered = false;
        let writer = self.ready.recv().expect("the thread answers every order and ends only with its sender")?;
        self.order(number + 1);
        Ok(writer)
    }

    fn order(&mut self, number: u64) {
        if let (false, Some(orders)) = (self.ordered, &self.orders) {
            orders.send(number).expect("the thread ends only with its sender");
            self.ordered = true;
        }
    }
}

impl Drop for Preparer {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed already; the folder is sound without this segment.
            let _ = thread.join();
        }
    }
}

fn make(dir: &Path, number: u64, bytes: u64) -> Result<Writer, StoreError> {
    let path = folder::file(dir, number, LOG);
    let unfinished = folder::unfinished(&path);
    match fill(&unfinished, bytes).and_then(|file| folder::publish(&unfinished, &path).map(|()| file)) {
        Ok(file) => Ok(Writer::new(path, number, file, bytes)),
        Err(error) => {
            clear(&unfinished);
            Err(error)
        }
    }
}

fn fill(path: &Path, bytes: u64) -> Result<File, StoreError> {
    let mut file = folder::create_file(path)?;
    let zeros = [0; PAGE];
    let mut left = bytes as usize;
    while left > 0 {
        file.write_all(&zeros[..left.min(PAGE)]).map_err(failed("write", path))?;
        left = left.saturating_sub(PAGE);
        if left.is_multiple_of(PIECE) {
            file.sync_data().map_err(failed("sync", path))?;
        }
    }
    file.sync_data().map_err(failed("sync", path))?;
    Ok(file)
}

/// What a full disk needs most is the space back; the error that led here is the one to report.
fn clear(path: &Path) {
    let _ = std::fs::remove_file(path);
}
