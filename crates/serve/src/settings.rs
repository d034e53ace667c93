//! The limits of serving, by the names they have in a project's settings.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How models are served; `serving` in `headwater.yaml`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ServingSettings {
    /// Threads that predict; 0 is one per core.
    pub threads: usize,
    /// Requests that may wait for a thread; more get the fallback, or are refused as busy.
    pub queue_requests_max: usize,
    /// Rows of one request: of entities, candidates or vectors.
    pub rows_max: usize,
    /// Answers of one model that its fallback `last_good` remembers.
    pub last_good_max: usize,
    /// Predictions that may wait to be written as facts; more are counted and let go.
    pub log_queue_predictions_max: usize,
    /// Predictions that are written together.
    pub log_batch_predictions_max: usize,
    /// Milliseconds that the first of them waits for others: a write costs about the same for one and for many.
    /// A killed process loses the predictions that wait.
    pub log_gather_ms: u64,
    /// Bytes of all versions that are loaded; one that would pass them isn't.
    pub loaded_bytes_max: usize,
    /// Answers that are remembered, of all models that declare a `cache`.
    pub cache_entries_max: usize,
    /// Bytes that they take.
    pub cache_bytes_max: usize,
    /// Answered requests that may wait for the shadows of their models; more are counted and let go.
    pub shadow_queue_requests_max: usize,
    /// Models that score facts as they arrive, each with a thread; more are refused when definitions are applied.
    pub stream_models_max: usize,
    /// Facts that one of them reads from the log at once.
    pub stream_batch_facts_max: usize,
}

impl Default for ServingSettings {
    fn default() -> Self {
        Self {
            threads: 0,
            queue_requests_max: 256,
            rows_max: 1000,
            last_good_max: 10_000,
            log_queue_predictions_max: 8192,
            log_batch_predictions_max: 512,
            log_gather_ms: 10,
            loaded_bytes_max: 1 << 30,
            cache_entries_max: 100_000,
            cache_bytes_max: 64 << 20,
            shadow_queue_requests_max: 64,
            stream_models_max: 16,
            stream_batch_facts_max: 4096,
        }
    }
}
