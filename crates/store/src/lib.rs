//! The memory: durable batches, recovery, compaction.
