//! What is counted of predictions.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use headwater_env::{Durations, Histogram};

use crate::LogStats;

/// What an operator wants to know of serving.
#[derive(Debug, Clone, Default)]
pub struct ServingStats {
    pub models: Vec<ModelStats>,
    pub waiting: u64,
    pub loaded_bytes: u64,
    pub log: LogStats,
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
}

impl Counters {
    pub fn answered(&self, version: &str) {
        count(&self.answered, version);
    }

    pub fn degraded(&self, reason: &str) {
        count(&self.degraded, reason);
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
