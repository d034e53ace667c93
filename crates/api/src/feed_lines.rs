//! `POST /v1/facts/{contract}/stream`: a body of lines without an end, taken as it comes, with
//! acknowledgements coming back as lines.

use std::time::Duration;

use axum::body::{Body, BodyDataStream, Bytes};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, Response, header};
use bytes::BytesMut;
use futures_util::StreamExt;
use headwater_schema::Problem;
use headwater_schema::decode::BodyFormat;
use schemars::JsonSchema;
use serde::Serialize;
use tokio::sync::OwnedSemaphorePermit;

use crate::backend::IngestOptions;
use crate::error::{ApiError, document, malformed};
use crate::facts::{IngestParameters, RejectedAnswer};
use crate::feed::{self, Acknowledgement, Acknowledgements, Feed};
use crate::limits::Limits;
use crate::server::Shared;

/// One line of the reply.
#[derive(Debug, Serialize, JsonSchema)]
pub struct FeedAnswer {
    /// Rows answered so far, from the first on without a gap: where to go on after an error.
    rows: u64,
    accepted: u64,
    duplicates: u64,
    rejected_rows: u64,
    /// The rows rejected since the last line, counted through the whole feed.
    rejected: Vec<RejectedAnswer>,
    /// A read at this `known_at` sees what was accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    sequence: Option<String>,
    /// On the last line: whether every row was answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    done: Option<bool>,
    /// On the last line, where something went wrong: a problem document.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<serde_json::Value>,
}

impl From<Acknowledgement> for FeedAnswer {
    fn from(acknowledgement: Acknowledgement) -> Self {
        let Acknowledgement { progress, end } = acknowledgement;
        let rejected = progress.rejected.into_iter().map(RejectedAnswer::from);
        Self {
            rows: progress.rows,
            accepted: progress.accepted,
            duplicates: progress.duplicates,
            rejected_rows: progress.rejected_rows,
            rejected: rejected.collect(),
            sequence: progress.sequence.map(|s| s.to_string()),
            done: end.as_ref().map(Result::is_ok),
            error: end.and_then(Result::err).map(|p| document(&p)),
        }
    }
}

/// Takes lines as they come.
pub async fn post_feed(
    State(shared): State<Shared>,
    Path(contract): Path<String>,
    Query(parameters): Query<IngestParameters>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response<Body>, ApiError> {
    if let Some(given) = headers.get(header::CONTENT_TYPE) {
        let media_type = given.to_str().unwrap_or_default();
        if BodyFormat::from_media_type(media_type) != Some(BodyFormat::Ndjson) {
            return Err(ApiError(
                Problem::user(
                    "unsupported-media-type",
                    format!("`{media_type}` can't be fed"),
                )
                .hint("send application/x-ndjson: one fact per line"),
            ));
        }
    }
    let options = parameters.options()?;
    if options.all_or_nothing {
        return Err(ApiError(
            Problem::user("malformed-request", "a feed can't be all or nothing")
                .field("on_reject")
                .detail("its rows are taken as they come, so those before a bad one are in")
                .hint("leave `on_reject` out, or send the facts in one request"),
        ));
    }
    shared.backend.contract(&contract)?;
    let place = place(&shared)?;
    let (feed, acknowledgements) = feed::open(shared.backend.clone(), &shared.limits);
    tokio::spawn(take_lines(shared, contract, options, body, feed, place));
    Response::builder()
        .header(header::CONTENT_TYPE, "application/x-ndjson")
        // What buffers replies on their way would hold acknowledgements back.
        .header("x-accel-buffering", "no")
        .body(lines(acknowledgements))
        .map_err(|e| ApiError(Problem::internal("reply", "a reply can't be made").detail(e)))
}

/// A place among the feeds that may be open at once.
pub fn place(shared: &Shared) -> Result<OwnedSemaphorePermit, Problem> {
    shared.feeds.clone().try_acquire_owned().map_err(|_| {
        Problem::external("busy", "too many feeds are open")
            .hint("try again a little later; the limit is `limits.feeds_max`")
            .retryable()
    })
}

fn lines(acknowledgements: Acknowledgements) -> Body {
    let line = |mut acknowledgements: Acknowledgements| async move {
        let acknowledgement = acknowledgements.next().await?;
        let mut line = serde_json::to_vec(&FeedAnswer::from(acknowledgement)).ok()?;
        line.push(b'\n');
        let line: Result<Bytes, std::convert::Infallible> = Ok(line.into());
        Some((line, acknowledgements))
    };
    Body::from_stream(futures_util::stream::unfold(acknowledgements, line))
}

async fn take_lines(
    shared: Shared,
    contract: String,
    options: IngestOptions,
    body: Body,
    feed: Feed,
    _place: OwnedSemaphorePermit,
) {
    let mut stopping = shared.stopping.clone();
    let taken = tokio::select! {
        taken = take_body(&shared.limits, &contract, options, body.into_data_stream(), &feed) => taken,
        () = feed.ended() => Ok(()),
        _ = stopping.wait_for(|stopping| *stopping) => Err(stopped()),
    };
    feed.finish(taken);
}

/// What a feed is told when the server stops.
pub fn stopped() -> Problem {
    Problem::external("stopping", "the server is stopping")
        .hint("go on from `rows` on another connection")
        .retryable()
}

/// Takes a body to its end: reads while little waits, sends whole lines while there is room.
async fn take_body(
    limits: &Limits,
    contract: &str,
    options: IngestOptions,
    mut body: BodyDataStream,
    feed: &Feed,
) -> Result<(), Problem> {
    let mut lines = Lines::new(limits);
    let mut open = true;
    let idle = Duration::from_millis(limits.feed_idle_ms_max);
    while open || lines.has_whole() {
        if !lines.has_whole() {
            // Rows before one that is too large are taken first.
            lines.refuse_overlong()?;
        }
        tokio::select! {
            biased;
            ready = feed.ready(), if lines.has_whole() => {
                // Where the feed has ended by itself, it has said why.
                let Some(ready) = ready else { return Ok(()) };
                ready.take(contract, BodyFormat::Ndjson, lines.cut(), options).await?;
            }
            chunk = tokio::time::timeout(idle, body.next()), if open && lines.has_room() => {
                match chunk {
                    Ok(Some(Ok(chunk))) => lines.push(&chunk),
                    Ok(Some(Err(error))) => {
                        return Err(malformed(format!("the body can't be read: {error}")).0);
                    }
                    Ok(None) => {
                        open = false;
                        lines.finish();
                    }
                    Err(_) => return Err(idled(limits)),
                }
            }
        }
    }
    Ok(())
}

/// What a feed is told that sends nothing.
pub fn idled(limits: &Limits) -> Problem {
    Problem::user("feed-idle", "the feed was idle for too long")
        .detail(format!("no byte came for {} ms", limits.feed_idle_ms_max))
        .hint("send a blank line now and then, or raise `limits.feed_idle_ms_max`")
}

/// Bytes of lines that came in chunks, cut into batches of whole lines.
struct Lines {
    buffer: BytesMut,
    /// Bytes up to the end of the last whole line.
    whole: usize,
    batch_bytes_max: usize,
    batch_rows_max: usize,
    row_bytes_max: usize,
}

impl Lines {
    fn new(limits: &Limits) -> Self {
        Self {
            buffer: BytesMut::new(),
            whole: 0,
            batch_bytes_max: limits.feed_batch_bytes_max.max(1),
            // A batch is a request's worth at most.
            batch_rows_max: limits.feed_batch_rows_max.min(limits.rows_max).max(1),
            row_bytes_max: limits.row_bytes_max,
        }
    }

    fn has_whole(&self) -> bool {
        self.whole > 0
    }

    /// Whether more may be read before something is cut off.
    fn has_room(&self) -> bool {
        (self.buffer.len() < self.batch_bytes_max || self.whole == 0)
            && self.cut_off() <= self.row_bytes_max
    }

    /// Bytes of the last line, which hasn't ended yet.
    fn cut_off(&self) -> usize {
        self.buffer.len() - self.whole
    }

    fn push(&mut self, chunk: &[u8]) {
        let before = self.buffer.len();
        self.buffer.extend_from_slice(chunk);
        if let Some(at) = memchr::memrchr(b'\n', chunk) {
            self.whole = before + at + 1;
        }
    }

    fn refuse_overlong(&self) -> Result<(), Problem> {
        let cut_off = self.cut_off();
        if cut_off <= self.row_bytes_max {
            return Ok(());
        }
        Err(Problem::user("row-too-large", "a row is too large")
            .detail(format!("its first {cut_off} bytes hold no end of a line"))
            .hint(format!(
                "a row has at most {} bytes (`limits.row_bytes_max`); end each with a line feed",
                self.row_bytes_max
            )))
    }

    /// The last line may end without a line feed.
    fn finish(&mut self) {
        if self.buffer.len() > self.whole {
            self.buffer.extend_from_slice(b"\n");
        }
        self.whole = self.buffer.len();
    }

    /// Cuts off whole lines: as many as a batch may have, at least one.
    fn cut(&mut self) -> Bytes {
        let ends = memchr::memchr_iter(b'\n', &self.buffer[..self.whole]).map(|at| at + 1);
        let mut end = 0;
        for (row, at) in ends.enumerate() {
            if row > 0 && (row >= self.batch_rows_max || at > self.batch_bytes_max) {
                break;
            }
            end = at;
        }
        self.whole -= end;
        self.buffer.split_to(end).freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(batch_rows_max: usize, batch_bytes_max: usize, row_bytes_max: usize) -> Lines {
        Lines::new(&Limits {
            feed_batch_rows_max: batch_rows_max,
            feed_batch_bytes_max: batch_bytes_max,
            row_bytes_max,
            ..Limits::default()
        })
    }

    /// However a body is cut into chunks, the same rows come out, in batches within their limits.
    #[test]
    fn rows_cut_across_chunks_come_out_whole() {
        let text = "a\nbb\n\nccc\ndddd\neeeeeeeeeeee\nf\ng";
        for chunk_bytes in 1..=text.len() {
            for (rows_max, bytes_max) in [(1, 100), (2, 100), (100, 1), (100, 6), (100, 100)] {
                let mut lines = lines(rows_max, bytes_max, 12);
                let mut seen = Vec::new();
                let mut take = |lines: &mut Lines| {
                    while lines.has_whole() {
                        let batch = lines.cut();
                        let rows = batch.split(|b| *b == b'\n').filter(|r| !r.is_empty());
                        let rows: Vec<Vec<u8>> = rows.map(<[u8]>::to_vec).collect();
                        assert!(rows.len() <= rows_max.max(1), "{batch:?}");
                        assert!(batch.len() <= bytes_max || rows.len() <= 1, "{batch:?}");
                        seen.extend(rows);
                    }
                };
                for chunk in text.as_bytes().chunks(chunk_bytes) {
                    lines.push(chunk);
                    lines.refuse_overlong().unwrap();
                    take(&mut lines);
                }
                lines.finish();
                take(&mut lines);
                let expected: Vec<&[u8]> = text
                    .split('\n')
                    .filter(|r| !r.is_empty())
                    .map(str::as_bytes)
                    .collect();
                assert_eq!(seen, expected, "{chunk_bytes} {rows_max} {bytes_max}");
            }
        }
    }

    #[test]
    fn a_row_without_an_end_is_refused_by_the_limits_name() {
        let mut lines = lines(10, 100, 10);
        lines.push(b"short\n0123456789");
        lines.refuse_overlong().unwrap();
        lines.push(b"0");
        assert!(!lines.has_room());
        let problem = lines.refuse_overlong().unwrap_err();
        assert_eq!(problem.code, "row-too-large");
        assert!(problem.hint.contains("limits.row_bytes_max"));
    }
}
