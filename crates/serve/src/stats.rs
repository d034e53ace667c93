//! What is counted of predictions.

use std::collections::BTreeMap;
use std::ops::AddAssign;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use headwater_env::{Durations, Histogram};
use headwater_schema::Micros;

use crate::LogStats;
use crate::cache::Answered;
use crate::deadline::Expected;

/// What an operator wants to know of serving.
#[derive(Debug, Clone, Default)]
pub struct ServingStats {
    pub models: Vec<ModelStats>,
    pub waiting: u64,
    pub loaded_bytes: u64,
    pub log: LogStats,
    /// Models that score facts as they arrive.
    pub streams: Vec<StreamStats>,
    /// Those that are declared to and don't.
    pub streams_refused: Vec<String>,
    /// Answers that are remembered, and the bytes that they count for.
    pub cache_entries: u64,
    pub cache_bytes: u64,
}

/// What is counted of a model that scores facts as they arrive.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StreamStats {
    pub model: String,
    /// Facts of the log, of whatever contract, that it hasn't looked at yet.
    pub backlog: u64,
    /// How long ago the oldest of them arrived; 0 where there is none.
    pub lag: Micros,
    /// Predictions that are written.
    pub written: u64,
    /// Those that had been written before, by a process that ended before it could note that.
    pub repeated: u64,
    /// Of those written: answered by a fallback.
    pub degraded: u64,
    /// Facts that weren't scored, by reason.
    pub skipped: BTreeMap<String, u64>,
    /// Times that scoring or writing failed and was tried again.
    pub failures: u64,
}

/// What is counted of one model.
#[derive(Debug, Clone, Default)]
pub struct ModelStats {
    pub model: String,
    /// Requests answered by the model, by version; a version that hasn't answered for long may be left out.
    pub answered: BTreeMap<String, u64>,
    /// The same, with what they took.
    pub versions: BTreeMap<String, VersionCounts>,
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

/// What is counted of one version. Times are of whole requests, also where another version answered some of their rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct VersionCounts {
    /// Requests that it answered.
    pub requests: u64,
    pub rows: u64,
    pub took_nanos: u64,
    pub features_nanos: u64,
    pub scoring_nanos: u64,
    /// Requests for it that got a problem.
    pub failed: u64,
    pub failed_nanos: u64,
    /// When it last answered; 0 before.
    pub last: Micros,
}

impl AddAssign for VersionCounts {
    fn add_assign(&mut self, more: Self) {
        self.requests += more.requests;
        self.rows += more.rows;
        self.took_nanos += more.took_nanos;
        self.features_nanos += more.features_nanos;
        self.scoring_nanos += more.scoring_nanos;
        self.failed += more.failed;
        self.failed_nanos += more.failed_nanos;
        self.last = self.last.max(more.last);
    }
}

/// Versions and reasons that are told apart.
const LABELS_MAX: usize = 32;

/// Counts while requests are answered.
#[derive(Default)]
pub(crate) struct Counters {
    versions: Mutex<BTreeMap<String, VersionCounts>>,
    degraded: Mutex<BTreeMap<String, u64>>,
    pub failed: AtomicU64,
    pub rows: AtomicU64,
    pub took: Histogram,
    pub features: Histogram,
    pub scoring: Histogram,
    pub expected: Expected,
    shadows: Mutex<BTreeMap<String, u64>>,
    hits: AtomicU64,
    misses: AtomicU64,
    joined: AtomicU64,
    saved_nanos: AtomicU64,
}

impl Counters {
    pub fn version(&self, version: &str, more: VersionCounts) {
        add(&self.versions, version, more);
    }

    pub fn degraded(&self, reason: &str) {
        add(&self.degraded, reason, 1);
    }

    pub fn shadow(&self, became: &str) {
        add(&self.shadows, became, 1);
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
        let versions = self.versions.lock();
        let versions = versions.unwrap_or_else(PoisonError::into_inner).clone();
        let answered = versions.iter().filter(|(_, v)| v.requests > 0);
        ModelStats {
            model: model.to_owned(),
            answered: answered
                .map(|(name, v)| (name.clone(), v.requests))
                .collect(),
            versions,
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

fn add<T: AddAssign>(of: &Mutex<BTreeMap<String, T>>, label: &str, more: T) {
    let mut counts = of.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(count) = counts.get_mut(label) {
        *count += more;
        return;
    }
    // A version that is long gone makes room; what was counted of it stays in nobody's sum.
    if counts.len() >= LABELS_MAX {
        counts.pop_first();
    }
    counts.insert(label.to_owned(), more);
}
