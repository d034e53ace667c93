//! The limits of requests, by the names they have in a project's settings.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Limits of requests; `limits` in `headwater.yaml`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Bytes of a request's body.
    pub body_bytes_max: usize,
    /// Facts of one request.
    pub rows_max: usize,
    /// Entities of one feature read.
    pub entities_max: usize,
    /// Features named in one read.
    pub features_max: usize,
    /// Facts in one listing.
    pub listed_max: usize,
    /// Requests that are worked on at once; more are refused as busy.
    pub requests_in_flight_max: usize,
    /// Milliseconds until a request is given up.
    pub request_ms_max: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes_max: 64 << 20,
            rows_max: 100_000,
            entities_max: 10_000,
            features_max: 10_000,
            listed_max: 10_000,
            requests_in_flight_max: 4096,
            request_ms_max: 30_000,
        }
    }
}
