//! What is counted of predictions.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use headwater_env::{Durations, Histogram};

use crate::LogStats;
use crate::cache::Answered;

/// What an operator wants to know of serving.
#[derive(Debug, Clone, Default)]
pub struct ServingStats {
    pub models: Vec<ModelStats>,
    pub waiting: u64,
    pub loaded_bytes: u64,
    pub log: LogStats,
    /// Answers that are remembered, and the bytes that they count for.
    pub cache_entries: u64,
    pub cache_bytes: u64,
}

/// What is counted of one model.
#[derive(Debug, Clone, Default)]
pub struct ModelStats {
    pub model: String,
    /// Requests answered by the model, by version; a version that hasn't answered for long may be left out.
    pub answered: BTreeMap<String, u64>,
    /// Requests answered by a fallback, by reason.
    pub degraded: BTreeMap<String, u64>,
    /// Requests that got a problem.
    pub failed: u64,
    /// Rows of all requests.
    pub rows: u64,
    pub took: Durations,
    pub features: Durations,
    pub scoring: Durations,
    pub cache: CacheStats,
    /// What became of asking shadows: `answered`, `failed`, `dropped`.
    pub shadows: BTreeMap<String, u64>,
}

/// What a model's cache did, in rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CacheStats {
    pub hits: u64,
    pub misses: u64,
    /// Rows that somebody else was working out already.
    pub joined: u64,
    /// What working out the hits had taken.
    pub saved_nanos: u64,
}

/// Versions and reasons that are told apart.
const LABELS_MAX: usize = 32;

/// Counts while requests are answered.
#[derive(Default)]
pub(crate) struct Counters {
    answered: Mutex<BTreeMap<String, u64>>,
    degraded: Mutex<BTreeMap<String, u64>>,
    pub failed: AtomicU64,
    pub rows: AtomicU64,
    pub took: Histogram,
    pub features: Histogram,
    pub scoring: Histogram,
    shadows: Mutex<BTreeMap<String, u64>>,
    hits: AtomicU64,
    misses: AtomicU64,
    joined: AtomicU64,
    saved_nanos: AtomicU64,
}

impl Counters {
    pub fn answered(&self, version: &str) {
        count(&self.answered, version);
    }

    pub fn degraded(&self, reason: &str) {
        count(&self.degraded, reason);
    }

    pub fn shadow(&self, became: &str) {
        count(&self.shadows, became);
    }

    pub fn cache(&self, answered: &Answered) {
        let hits = answered.cached.iter().filter(|cached| **cached).count();
        let misses = answered.cached.len() - hits;
        for (counter, count) in [
            (&self.hits, hits as u64),
            (&self.misses, misses as u64),
            (&self.joined, answered.joined),
            (&self.saved_nanos, answered.saved_nanos),
        ] {
            counter.fetch_add(count, Ordering::Relaxed);
        }
    }

    pub fn stats(&self, model: &str) -> ModelStats {
        let all = |of: &Mutex<BTreeMap<String, u64>>| {
            of.lock().unwrap_or_else(PoisonError::into_inner).clone()
        };
        ModelStats {
            model: model.to_owned(),
            answered: all(&self.answered),
            degraded: all(&self.degraded),
            failed: self.failed.load(Ordering::Relaxed),
            rows: self.rows.load(Ordering::Relaxed),
            took: self.took.read(),
            features: self.features.read(),
            scoring: self.scoring.read(),
            cache: CacheStats {
                hits: self.hits.load(Ordering::Relaxed),
                misses: self.misses.load(Ordering::Relaxed),
                joined: self.joined.load(Ordering::Relaxed),
                saved_nanos: self.saved_nanos.load(Ordering::Relaxed),
            },
            shadows: all(&self.shadows),
        }
    }
}

fn count(of: &Mutex<BTreeMap<String, u64>>, label: &str) {
    let mut counts = of.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(count) = counts.get_mut(label) {
        *count += 1;
        return;
    }
    // A version that is long gone makes room; what was counted of it stays in nobody's sum.
    if counts.len() >= LABELS_MAX {
        counts.pop_first();
    }
    counts.insert(label.to_owned(), 1);
}
