//! `kill -9` for real: a child appends and reports what was acknowledged; it is killed at random moments, many times over one
//! folder, and every acknowledged batch has to be there, and no half one.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail like the test")]

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use store::{Batch, Limits, Record, Recovered, Snapshot, Store, StoreError};

const CHILD: &str = "KAPSTAN_STORE_KILL_DIR";
const KILLS: u32 = 30;
/// Records of a batch: enough that its frame spans several sectors.
const BATCH: u64 = 5;
const KEYS: u64 = 50;

fn limits() -> Limits {
    Limits { segment_bytes: 256 << 10, log_bytes: 512 << 10, history_bytes: 1 << 30, ..Limits::default() }
}

fn value(revision: u64) -> String {
    format!(r#"{{"revision":{revision},"text":"{:x}"}}"#, revision.wrapping_mul(0x9E37_79B9_7F4A_7C15)).repeat(20)
}

fn record(revision: u64) -> Record {
    let value = (!revision.is_multiple_of(11)).then(|| value(revision).into());
    Record { revision, key: format!("pods/default/{}", revision % KEYS), value }
}

/// The child: not a test of its own.
#[test]
fn child_that_is_killed() {
    if let Ok(dir) = std::env::var(CHILD) {
        append_for_ever(Path::new(&dir));
    }
}

fn append_for_ever(dir: &Path) {
    let (mut store, recovered) = Store::open(dir, limits()).unwrap();
    let mut live: std::collections::BTreeMap<String, (u64, bytes::Bytes)> =
        recovered.objects.into_iter().map(|object| (object.key, (object.revision, object.value.unwrap()))).collect();
    let mut revision = recovered.revision;
    let mut snapshot: Option<std::thread::JoinHandle<Result<Snapshot, StoreError>>> = None;
    loop {
        // Groups of one to four batches, acknowledged together.
        let batches: Vec<Batch> = (0..revision / BATCH % 4 + 1)
            .map(|group| Batch { records: (1..=BATCH).map(|n| record(revision + group * BATCH + n)).collect() })
            .collect();
        store.append(&batches).unwrap();
        for record in batches.into_iter().flat_map(|batch| batch.records) {
            revision = record.revision;
            match record.value {
                Some(value) => live.insert(record.key, (revision, value)),
                None => live.remove(&record.key),
            };
        }
        println!("acknowledged {revision}");
        std::io::stdout().flush().unwrap();
        if snapshot.as_ref().is_some_and(|thread| thread.is_finished()) {
            store.adopt(snapshot.take().unwrap().join().unwrap().unwrap()).unwrap();
        } else if snapshot.is_none() && store.should_compact() {
            let (snapshotter, live) = (store.snapshotter(), live.clone());
            let work = move || {
                snapshotter
                    .write(revision, live.iter().map(|(key, (revision, value))| (key.as_str(), *revision, &value[..])))
            };
            snapshot = Some(std::thread::spawn(work));
        }
    }
}

fn start(dir: &Path) -> (Child, BufReader<ChildStdout>) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "child_that_is_killed", "--nocapture", "--test-threads=1"]);
    let mut child = command.env(CHILD, dir).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap());
    (child, lines)
}

/// Kills the child `after` its first acknowledgement and returns the last one.
fn kill(dir: &Path, after: Duration) -> u64 {
    let (mut child, mut lines) = start(dir);
    let mut acknowledged = 0;
    let mut line = String::new();
    while acknowledged == 0 {
        line.clear();
        assert!(lines.read_line(&mut line).unwrap() > 0, "the child ended by itself");
        acknowledged = acknowledgement(&line).unwrap_or(0);
    }
    let killer = std::thread::spawn(move || {
        std::thread::sleep(after);
        child.kill().unwrap();
        child.wait().unwrap();
    });
    // The last line may be cut in the middle of a number, so only whole lines count.
    for line in lines.split(b'\n').map(|line| String::from_utf8(line.unwrap()).unwrap()) {
        acknowledged = acknowledgement(&line).filter(|&revision| revision > acknowledged).unwrap_or(acknowledged);
    }
    killer.join().unwrap();
    acknowledged
}

fn acknowledgement(line: &str) -> Option<u64> {
    line.trim().strip_prefix("acknowledged ")?.parse().ok()
}

/// Every record up to the recovered revision is there as it was written: what is live, and what the history says.
fn check(recovered: &Recovered, acknowledged: u64) {
    assert!(recovered.revision >= acknowledged, "{} was acknowledged, {} recovered", acknowledged, recovered.revision);
    assert_eq!(recovered.revision % BATCH, 0, "half a batch");
    let mut found: Vec<Record> = recovered.objects.clone();
    found.sort_by_key(|object| object.revision);
    let expected = (recovered.revision.saturating_sub(KEYS) + 1..=recovered.revision).map(record);
    assert_eq!(found, expected.filter(|record| record.value.is_some()).collect::<Vec<_>>());
    let history: Vec<Record> = (recovered.compacted + 1..=recovered.revision).map(record).collect();
    assert_eq!(recovered.history, history);
}

#[test]
fn what_was_acknowledged_survives_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let seed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos();
    let mut random = seed | 1;
    let mut most_compacted = 0;
    // On a busy machine few children live long enough to compact: more are killed until one has.
    for round in 0..10 * KILLS {
        if KILLS <= round && 0 < most_compacted {
            break;
        }
        random ^= random << 13;
        random ^= random >> 17;
        random ^= random << 5;
        let acknowledged = kill(dir.path(), Duration::from_micros(u64::from(random % 80_000)));
        let (_store, recovered) = Store::open(dir.path(), limits()).unwrap();
        check(&recovered, acknowledged);
        most_compacted = recovered.compacted;
        println!("round {round}: {acknowledged} acknowledged, {} recovered, seed {seed}", recovered.revision);
    }
    assert!(most_compacted > 0, "no snapshot was adopted in all the rounds");
}
