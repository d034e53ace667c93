//! The limits of requests, by the names they have in a project's settings.

use headwater_schema::Problem;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::ApiError;

/// Limits of requests; `limits` in `headwater.yaml`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Bytes of a request's body.
    pub body_bytes_max: usize,
    /// Bytes of a model file that is sent as it is.
    pub model_bytes_max: usize,
    /// Facts of one request.
    pub rows_max: usize,
    /// Bytes of one fact's text.
    pub row_bytes_max: usize,
    /// Entities of one feature read.
    pub entities_max: usize,
    /// Features named in one read.
    pub features_max: usize,
    /// Facts in one listing.
    pub listed_max: usize,
    /// Requests that are worked on at once; more are refused as busy.
    pub requests_in_flight_max: usize,
    /// Requests of one API key that are worked on at once; more are refused.
    pub requests_per_key_max: usize,
    /// Milliseconds until a request is given up.
    pub request_ms_max: u64,
    /// The same for a training set, until its first rows are ready, and for a version of a model that is added.
    pub training_set_ms_max: u64,
    /// Connections open at once; more are refused as busy.
    pub connections_max: usize,
    /// HTTP/2 streams open at once on one connection.
    pub streams_max: usize,
    /// Bytes of a URL.
    pub url_bytes_max: usize,
    /// Bytes of all headers of a request.
    pub header_bytes_max: usize,
    /// Milliseconds until a connection is closed that sends no whole head of a request; also how long
    /// one may idle between requests.
    pub header_ms_max: u64,
    /// Milliseconds that a body may pause.
    pub body_ms_max: u64,
    /// Milliseconds that a client may leave a reply unread.
    pub write_ms_max: u64,
    /// Milliseconds that a stopping server still takes connections and requests while `/health/ready`
    /// says 503, so that whoever balances the load can turn away.
    pub drain_notice_ms: u64,
    /// Milliseconds that a stopping server waits for requests under way.
    pub drain_ms_max: u64,
    /// Feeds of facts open at once; more are refused as busy.
    pub feeds_max: usize,
    /// Facts of a feed that are written together.
    pub feed_batch_rows_max: usize,
    /// Bytes of a feed that are written together.
    pub feed_batch_bytes_max: usize,
    /// Batches of one feed on their way at once; it isn't read on while there are more.
    pub feed_batches_in_flight_max: usize,
    /// Rejected rows that one acknowledgement of a feed lists; more are only counted.
    pub feed_rejected_max: usize,
    /// Milliseconds until a feed is ended that sends nothing.
    pub feed_idle_ms_max: u64,
    /// Streams of predictions open at once; more are refused as busy.
    pub prediction_streams_max: usize,
    /// Predictions that wait for one subscriber to such a stream.
    pub prediction_buffer_events_max: usize,
    /// Milliseconds that they may wait without room for more, until the subscriber is cut off.
    pub prediction_stall_ms_max: u64,
    /// Milliseconds between signs of life where there are no predictions.
    pub prediction_heartbeat_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes_max: 64 << 20,
            model_bytes_max: 256 << 20,
            rows_max: 100_000,
            row_bytes_max: 1 << 20,
            entities_max: 10_000,
            features_max: 10_000,
            listed_max: 10_000,
            requests_in_flight_max: 4096,
            requests_per_key_max: 1024,
            request_ms_max: 30_000,
            training_set_ms_max: 600_000,
            connections_max: 4096,
            streams_max: 128,
            url_bytes_max: 8192,
            header_bytes_max: 32 << 10,
            header_ms_max: 30_000,
            body_ms_max: 10_000,
            write_ms_max: 30_000,
            drain_notice_ms: 0,
            drain_ms_max: 20_000,
            feeds_max: 256,
            feed_batch_rows_max: 8192,
            feed_batch_bytes_max: 4 << 20,
            feed_batches_in_flight_max: 4,
            feed_rejected_max: 1000,
            feed_idle_ms_max: 600_000,
            prediction_streams_max: 256,
            prediction_buffer_events_max: 1024,
            prediction_stall_ms_max: 10_000,
            prediction_heartbeat_ms: 15_000,
        }
    }
}

impl Limits {
    /// Refuses more features than one read may name.
    pub(crate) fn check_features(&self, count: usize) -> Result<(), ApiError> {
        check("features", count, self.features_max, "limits.features_max")
    }

    /// Refuses more entities than one request may name. `what` is entities, or what comes as often as they do: context,
    /// candidates, vectors.
    pub(crate) fn check_entities(&self, what: &str, count: usize) -> Result<(), ApiError> {
        check(what, count, self.entities_max, "limits.entities_max")
    }

    /// Refuses more facts than one request may bring in its field `what`.
    pub(crate) fn check_rows(&self, what: &str, count: usize) -> Result<(), ApiError> {
        check(what, count, self.rows_max, "limits.rows_max")
    }
}

fn check(what: &str, count: usize, max: usize, setting: &str) -> Result<(), ApiError> {
    if count <= max {
        return Ok(());
    }
    Err(ApiError(
        Problem::user("limit", format!("too many {what} in one request"))
            .field(what)
            .detail(format!("{count} of at most {max}"))
            .hint(format!("ask in parts, or raise `{setting}`")),
    ))
}
