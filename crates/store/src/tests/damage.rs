//! A torn tail is cut off, anything else is refused: every cut, every torn sector, every flipped bit.

use super::*;
use proptest::prelude::*;
use std::fs;

/// A log in one segment, and what its file looked like after each append.
struct Written {
    dir: tempfile::TempDir,
    path: PathBuf,
    images: Vec<Vec<u8>>,
    records: Vec<Vec<Record>>,
}

/// One append for each list of value sizes.
fn write(appends: &[Vec<usize>]) -> Written {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = Store::open(dir.path(), Limits { segment_bytes: 16 << 10, ..small() }).unwrap();
    let path = dir.path().join("00000000000000000001.log");
    let (mut images, mut written, mut revision) = (Vec::new(), Vec::new(), 0);
    for sizes in appends {
        let records: Vec<Record> = sizes
            .iter()
            .map(|&size| {
                revision += 1;
                put(revision, &format!("pods/default/{}", revision % 3), object(revision, size))
            })
            .collect();
        let batches: Vec<Batch> = records.chunks(2).map(|records| batch(records.to_vec())).collect();
        store.append(&batches).unwrap();
        images.push(fs::read(&path).unwrap());
        written.push(records);
    }
    drop(store);
    Written { dir, path, images, records: written }
}

impl Written {
    /// Opens a folder with this file as its only segment.
    fn open_with(&self, bytes: &[u8]) -> Result<Recovered, StoreError> {
        for file in files(self.dir.path(), "log") {
            fs::remove_file(file).unwrap();
        }
        fs::write(&self.path, bytes).unwrap();
        // One page for the next segment: most of the time here would go into zeroing it.
        Store::open(self.dir.path(), Limits { segment_bytes: 512, ..small() }).map(|(_, recovered)| recovered)
    }

    /// The records of the first `count` appends.
    fn first(&self, count: usize) -> Vec<Record> {
        self.records[..count].concat()
    }

    /// Where each append's last byte that is not padding ends.
    fn ends(&self) -> Vec<usize> {
        self.images.iter().map(|image| end(image)).collect()
    }

    fn last(&self) -> &[u8] {
        self.images.last().unwrap()
    }
}

fn end(image: &[u8]) -> usize {
    image.iter().rposition(|&byte| byte != 0).map_or(0, |at| at + 1)
}

#[test]
fn after_every_cut_exactly_the_complete_appends_survive() {
    let written = write(&[vec![40], vec![100, 3, 50], vec![], vec![700], vec![20, 20]]);
    let (image, ends) = (written.last(), written.ends());
    for cut in 0..=end(image) {
        let complete = ends.iter().filter(|&&end| end <= cut).count();
        let mut zeroed = image.to_vec();
        zeroed[cut..].fill(0);
        for bytes in [&image[..cut], &zeroed] {
            let recovered = written.open_with(bytes).unwrap();
            assert_eq!(recovered.history, written.first(complete), "cut at {cut}, file of {} bytes", bytes.len());
        }
    }
}

#[test]
fn after_a_cut_the_log_goes_on() {
    let written = write(&[vec![40], vec![100], vec![700]]);
    let cut = written.ends()[2] - 300;
    let recovered = written.open_with(&written.last()[..cut]).unwrap();
    assert_eq!(recovered.revision, 2);
    assert!(recovered.torn_bytes > 0);
    let (mut store, again) = open(written.dir.path());
    assert_eq!((again.revision, again.torn_bytes), (2, 0));
    store.append(&[batch(vec![put(3, "other", "x")])]).unwrap();
    drop(store);
    assert_eq!(open(written.dir.path()).1.history[2], put(3, "other", "x"));
}

#[test]
fn a_torn_first_append_of_a_segment_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = open(dir.path());
    store.append(&[batch(vec![put(1, "k", object(1, 40))])]).unwrap();
    drop(store);
    let (mut store, _) = open(dir.path());
    store.append(&[batch(vec![put(2, "k", object(2, 900))])]).unwrap();
    let (path, bytes) = store.newest_append().map(|(path, bytes)| (path.to_owned(), bytes)).unwrap();
    assert_eq!(bytes.start, 0);
    drop(store);
    let mut file = fs::read(&path).unwrap();
    file[..512].fill(0);
    fs::write(&path, file).unwrap();
    let recovered = open(dir.path()).1;
    assert_eq!((recovered.revision, recovered.objects), (1, vec![put(1, "k", object(1, 40))]));
    assert!(recovered.torn_bytes > 512);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Power loss in the middle of the last append: any of its sectors may be there, in any order.
    #[test]
    fn a_torn_append_is_cut_off(
        sizes in prop::collection::vec(prop::collection::vec(1..1500usize, 1..4), 2..5),
        landed in prop::collection::vec(any::<bool>(), 64),
    ) {
        let written = write(&sizes);
        let count = sizes.len();
        let (old, new) = (&written.images[count - 2], written.last());
        let mut torn = old.clone();
        torn.resize(new.len(), 0);
        for ((torn, new), landed) in torn.chunks_mut(512).zip(new.chunks(512)).zip(landed.iter().cycle()) {
            if *landed {
                torn.copy_from_slice(new);
            }
        }
        let expected = written.first(if torn == *new { count } else { count - 1 });
        prop_assert_eq!(written.open_with(&torn).unwrap().history, expected);
    }

    /// A folder full of nonsense, behind a header that is right.
    #[test]
    fn no_file_makes_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..3000), headers in any::<bool>()) {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("lock"), "").unwrap();
        for (name, magic) in [("log", *b"kapsLOG\n"), ("snapshot", *b"kapsSNP\n")] {
            let header = crate::segment::FileHeader { magic, number: 1, base: 0 }.write();
            let file = [if headers { &header[..] } else { &[] }, &bytes].concat();
            fs::write(crate::folder::file(dir.path(), 1, name), file).unwrap();
            if let Err(error) = Store::open(dir.path(), small()) {
                prop_assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
            }
            let _ = fs::remove_file(crate::folder::file(dir.path(), 1, name));
        }
    }

    /// Every cut of random logs, as above, but few points of each.
    #[test]
    fn a_random_cut_keeps_the_complete_appends(
        sizes in prop::collection::vec(prop::collection::vec(0..900usize, 1..5), 1..8),
        at in 0.0..1.0f64,
    ) {
        let written = write(&sizes);
        let cut = (end(written.last()) as f64 * at) as usize;
        let complete = written.ends().iter().filter(|&&end| end <= cut).count();
        prop_assert_eq!(written.open_with(&written.last()[..cut]).unwrap().history, written.first(complete));
    }
}

#[test]
fn a_flipped_bit_is_refused_wherever_it_is() {
    let written = write(&[vec![40], vec![100, 3], vec![700], vec![20]]);
    let image = written.last();
    let everything = written.first(4);
    let mut refused = 0;
    for at in 0..end(image) {
        let mut bytes = image.to_vec();
        bytes[at] ^= 1 << (at % 8);
        match written.open_with(&bytes) {
            Ok(recovered) => assert_eq!(recovered.history, everything, "byte {at} changed what is read"),
            Err(StoreError::Damaged { .. }) => refused += 1,
            Err(error) => panic!("byte {at}: {error}"),
        }
    }
    // What is not refused is padding.
    assert!(refused > end(image) - 4 * 31, "{refused} of {}", end(image));
}

#[test]
fn a_refusal_names_the_file_the_place_and_what_to_do() {
    let written = write(&[vec![40], vec![100], vec![50]]);
    let mut bytes = written.last().to_vec();
    let middle = written.ends()[1] - 10;
    bytes[middle] ^= 4;
    let text = written.open_with(&bytes).unwrap_err().to_string();
    assert_eq!(
        text.replace(&written.dir.path().display().to_string(), "DIR"),
        format!(
            "DIR/00000000000000000001.log is damaged at byte {}: a frame's body fails its checksum. Nothing was changed. Check the disk, then restore the folder from a backup",
            written.ends()[0].next_multiple_of(32)
        )
    );
    assert_eq!(fs::read(&written.path).unwrap(), bytes);
}

#[test]
fn a_hole_before_later_frames_is_damage() {
    let written = write(&[vec![40], vec![2000, 2000], vec![50]]);
    let (from, to) = (written.ends()[0].next_multiple_of(32), written.ends()[1]);
    for hole in [from..to, from..from + 32, from + 512..from + 1024] {
        let mut bytes = written.last().to_vec();
        bytes[hole.clone()].fill(0);
        let refused = written.open_with(&bytes);
        assert!(
            matches!(refused, Err(StoreError::Damaged { offset, .. }) if offset == from as u64),
            "{hole:?}: {refused:?}"
        );
    }
}

/// A misdirected write: revisions still grow, and every checksum of the contents alone is right.
#[test]
fn a_frame_in_the_wrong_place_is_not_believed() {
    let written = write(&[vec![40], vec![40], vec![40]]);
    let ends = written.ends();
    let (second, third) = (ends[0].next_multiple_of(32), ends[1].next_multiple_of(32));
    let mut bytes = written.last().to_vec();
    bytes.copy_within(third..third + (third - second), second);
    bytes[third..].fill(0);
    assert!(matches!(written.open_with(&bytes), Err(StoreError::Damaged { .. })));
}

/// Three segments and more.
fn three_segments() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = open(dir.path());
    for revision in 1..=12 {
        store.append(&[batch(vec![put(revision, "k", object(revision, 3000))])]).unwrap();
    }
    drop(store);
    assert!(used_segments(dir.path()).len() > 2);
    dir
}

fn refusal(dir: &Path) -> StoreError {
    Store::open(dir, small()).unwrap_err()
}

#[test]
fn a_missing_segment_is_refused() {
    let dir = three_segments();
    let first = used_segments(dir.path()).remove(0);
    fs::remove_file(first).unwrap();
    let text = refusal(dir.path()).to_string();
    assert!(text.contains("revisions after 0 up to "), "{text}");
    let dir = three_segments();
    fs::remove_file(used_segments(dir.path()).remove(1)).unwrap();
    assert!(matches!(refusal(dir.path()), StoreError::Missing { .. }));
}

#[test]
fn a_torn_tail_before_a_later_segment_is_damage() {
    let dir = three_segments();
    let second = used_segments(dir.path()).remove(1);
    let mut bytes = fs::read(&second).unwrap();
    let end = end(&bytes);
    bytes[end - 1..].fill(0);
    fs::write(&second, bytes).unwrap();
    assert!(matches!(refusal(dir.path()), StoreError::Damaged { .. }));
}

#[test]
fn swapped_segments_are_refused() {
    let dir = three_segments();
    let segments = used_segments(dir.path());
    fs::copy(&segments[0], &segments[1]).unwrap();
    let text = refusal(dir.path()).to_string();
    assert!(text.contains("it was written as number 1 and has been renamed"), "{text}");
}

#[test]
fn a_snapshot_with_a_flipped_bit_or_a_lost_end_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = open(dir.path());
    store.append(&[batch(vec![put(1, "a", object(1, 300)), put(2, "b", object(2, 300))])]).unwrap();
    let (a, b) = (object(1, 300), object(2, 300));
    store.compact(2, [("a", 1, &a[..]), ("b", 2, &b[..])].into_iter()).unwrap();
    drop(store);
    let path = files(dir.path(), "snapshot").remove(0);
    let sound = fs::read(&path).unwrap();
    let end = end(&sound);
    let mut refused = 0;
    for at in 0..end {
        let mut bytes = sound.clone();
        bytes[at] ^= 1 << (at % 8);
        fs::write(&path, &bytes).unwrap();
        match Store::open(dir.path(), small()) {
            Ok((_, recovered)) => assert_eq!(recovered.objects.len(), 2, "byte {at}"),
            Err(StoreError::Damaged { .. }) => refused += 1,
            Err(error) => panic!("byte {at}: {error}"),
        }
        fs::write(&path, &sound[..at]).unwrap();
        assert!(matches!(refusal(dir.path()), StoreError::Damaged { .. }), "cut at {at}");
    }
    assert!(refused > end - 3 * 31, "{refused} of {end}");
}
