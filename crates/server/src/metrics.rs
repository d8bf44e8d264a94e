//! Counters that the benchmarks and an operator read at `/metrics`.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use store::{Batch, Stats};

/// Monotonic counters since start.
#[derive(Default)]
pub struct Metrics {
    requests: AtomicU64,
    turns: AtomicU64,
    records: AtomicU64,
    syncs: AtomicU64,
    bytes_written: AtomicU64,
}

impl Metrics {
    /// One HTTP request was answered.
    pub fn requested(&self) {
        self.requests.fetch_add(1, Relaxed);
    }

    /// Batches became durable by one sync.
    pub fn committed(&self, batches: &[Batch], stats: Stats) {
        self.turns.fetch_add(batches.len() as u64, Relaxed);
        self.records.fetch_add(batches.iter().map(|batch| batch.records.len() as u64).sum(), Relaxed);
        self.syncs.store(stats.fsyncs, Relaxed);
        self.bytes_written.store(stats.bytes_written, Relaxed);
    }

    /// The counters in Prometheus' text format.
    pub fn render(&self) -> String {
        let rows = [
            ("kapstan_requests_total", "HTTP requests answered", &self.requests),
            ("kapstan_turns_total", "Turns committed", &self.turns),
            ("kapstan_records_total", "Object writes made durable", &self.records),
            ("kapstan_store_syncs_total", "Disk syncs", &self.syncs),
            ("kapstan_store_written_bytes_total", "Bytes written to the store", &self.bytes_written),
        ];
        let row = |(name, help, value): &(&str, &str, &AtomicU64)| {
            format!("# HELP {name} {help}.\n# TYPE {name} counter\n{name} {}\n", value.load(Relaxed))
        };
        rows.iter().map(row).collect()
    }
}
