//! What the log counts of the requests it takes, since it was opened.

use std::sync::atomic::{AtomicU64, Ordering};

use headwater_env::Histogram;

use crate::Appended;
use crate::unknown::UnknownCounts;

#[derive(Default)]
pub(super) struct Counters {
    pub duplicates: AtomicU64,
    pub conflicts: AtomicU64,
    pub unknown: UnknownCounts,
    pub append: Histogram,
    pub append_nanos_max: AtomicU64,
}

impl Counters {
    /// Counts what became of a request.
    pub fn count(&self, answer: &Appended) {
        let (known, conflicts) = (&answer.duplicates, &answer.conflicts);
        self.duplicates
            .fetch_add(known.len() as u64, Ordering::Relaxed);
        self.conflicts
            .fetch_add(conflicts.len() as u64, Ordering::Relaxed);
        if let Some(taken) = &answer.batch {
            self.unknown.add(&taken.batch);
        }
    }
}
