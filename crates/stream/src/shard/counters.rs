//! What a shard counts of a view. The shard's holder writes it; it is read without the shard, whose
//! holder may be waiting for the store.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters of one view in one shard, on a cache line of their own: shards count side by side.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(crate) struct ViewCounters {
    pub facts: Metric,
    pub evictions: Metric,
    pub loads: Metric,
    pub entities: Metric,
    /// About how many bytes the states take.
    pub bytes: Metric,
}

/// A number that only the holder of its shard changes and that anybody reads.
#[derive(Debug, Default)]
pub(crate) struct Metric(AtomicU64);

impl Metric {
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// Nobody else writes, so that this costs no more than adding to a plain number.
    pub(super) fn add(&self, more: u64) {
        self.set(self.get() + more);
    }
}
