//! `POST /v1/query`: SQL in, rows out as they come, in the format that the caller accepts.
//!
//! The beginning of an answer is held back until it is whole or as long as [`HELD_BACK_BYTES`], so that most of what
//! goes wrong is told as a problem document. What goes wrong later breaks the transfer off: half an answer never looks
//! like a whole one.

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Response, header};
use futures_util::stream::{self, StreamExt};
use headwater_batch::OutputFormat;
use headwater_batch::sql::{Answer, Encoder, Format};
use headwater_schema::Problem;
use schemars::{JsonSchema, SchemaGenerator};
use serde::Deserialize;
use serde_json::json;

use crate::accept;
use crate::arrow_stream::ARROW_STREAM;
use crate::backend::QueryRequest;
use crate::body::{instant, known_at, read_body, read_json};
use crate::error::{ApiError, document};
use crate::openapi::{Paths, problem_reply};
use crate::server::Shared;

/// Bytes of an answer that are made before the first is sent.
pub(crate) const HELD_BACK_BYTES: usize = 256 * 1024;
/// Bytes that are put together before they are sent.
pub(crate) const PIECE_BYTES: usize = 64 * 1024;
const PARQUET: &str = "application/vnd.apache.parquet";
const NDJSON: &str = "application/x-ndjson";

/// A query.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct QueryBody {
    /// One statement that reads: SELECT, EXPLAIN, SHOW TABLES, DESCRIBE.
    sql: String,
    /// RFC 3339 or microseconds: facts of later event times aren't seen.
    #[serde(default)]
    as_of: Option<serde_json::Value>,
    /// A `sequence` or RFC 3339: facts as they were known then.
    #[serde(default)]
    known_at: Option<String>,
    /// Rows after which the answer ends.
    #[serde(default)]
    limit: Option<usize>,
}

/// Answers a query.
pub async fn post_query(
    State(shared): State<Shared>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response<Body>, ApiError> {
    let (format, media_type) = accepted(&headers)?;
    let body = read_body(body, shared.limits.body_bytes_max).await?;
    let body: QueryBody = read_json(&body)?;
    let as_of = body.as_of.as_ref().filter(|json| !json.is_null());
    let request = QueryRequest {
        as_of: as_of.map(|json| instant("as_of", json)).transpose()?,
        known_at: match &body.known_at {
            Some(text) => Some(known_at("known_at", text)?),
            None => None,
        },
        limit: body.limit,
        sql: body.sql,
    };
    let backend = shared.backend.clone();
    let begun = tokio::task::spawn_blocking(move || backend.query(&request)).await;
    let panicked = |e| ApiError(Problem::internal("query", "a query panicked").detail(e));
    let answer = begun.map_err(panicked)??;
    let mut sending = Sending {
        encoder: Encoder::new(format, answer.schema(), answer.sequence)?,
        answer,
        next: Next::Rows,
    };
    let beginning = sending.fill(HELD_BACK_BYTES).await?;
    let rest = stream::unfold(sending, |mut sending| async move {
        sending.piece().await.map(|piece| (piece, sending))
    });
    let begun = stream::once(async { Ok(Bytes::from(beginning)) });
    let mut response = Response::new(Body::from_stream(begun.chain(rest)));
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    Ok(response)
}

/// The format of the answer, and its media type: the first known one that is accepted; JSON where anything is, or
/// nothing is said.
fn accepted(headers: &HeaderMap) -> Result<(Format, &'static str), Problem> {
    const KNOWN: [(&str, Format); 5] = [
        ("application/json", Format::Json),
        (NDJSON, Format::Ndjson),
        ("text/csv", Format::Table(OutputFormat::Csv)),
        (ARROW_STREAM, Format::Table(OutputFormat::ArrowStream)),
        (PARQUET, Format::Table(OutputFormat::Parquet)),
    ];
    let media_type = accept::media_type(headers, &KNOWN.map(|(name, _)| name))?;
    let found = KNOWN.iter().find(|(name, _)| *name == media_type);
    Ok(found.map_or((Format::Json, media_type), |(_, f)| (*f, media_type)))
}

/// An answer that is being sent.
struct Sending {
    answer: Answer,
    encoder: Encoder,
    next: Next,
}

/// What comes next of an answer.
enum Next {
    Rows,
    /// Nothing: it is whole.
    Nothing,
    /// The transfer is broken off.
    Stop,
}

/// Why a transfer is broken off.
#[derive(Debug)]
pub(crate) struct Stopped;

impl std::fmt::Display for Stopped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("making the answer went wrong while it was sent")
    }
}

impl std::error::Error for Stopped {}

impl Sending {
    /// At least so many bytes, or all that are left.
    async fn fill(&mut self, bytes_min: usize) -> Result<Vec<u8>, Problem> {
        let mut bytes = self.encoder.take();
        while matches!(self.next, Next::Rows) && bytes.len() < bytes_min {
            match self.answer.next().await? {
                Some(rows) => self.encoder.write(&rows)?,
                None => {
                    self.encoder.finish()?;
                    self.next = Next::Nothing;
                }
            }
            bytes.append(&mut self.encoder.take());
        }
        Ok(bytes)
    }

    /// The next bytes; none at the end.
    async fn piece(&mut self) -> Option<Result<Bytes, Stopped>> {
        match self.next {
            Next::Nothing => None,
            Next::Stop => {
                self.next = Next::Nothing;
                // What was said is written before the transfer ends.
                tokio::task::yield_now().await;
                Some(Err(Stopped))
            }
            Next::Rows => match self.fill(PIECE_BYTES).await {
                Ok(bytes) => Some(Ok(bytes.into())),
                Err(problem) => {
                    tracing::warn!(
                        code = problem.code,
                        detail = problem.detail,
                        "a query went wrong while its answer was sent"
                    );
                    self.encoder.break_off(&document(&problem));
                    self.next = Next::Stop;
                    Some(Ok(self.encoder.take().into()))
                }
            },
        }
    }
}

/// This call in the OpenAPI document.
pub fn paths(generator: &mut SchemaGenerator) -> Paths {
    let text = json!({"schema": {"type": "string"}});
    let binary = json!({"schema": {"type": "string", "contentEncoding": "binary"}});
    let answer = json!({"schema": {
        "type": "object",
        "required": ["columns", "rows", "row_count", "sequence"],
        "properties": {
            "columns": {"type": "array", "items": {
                "type": "object", "required": ["name", "type"],
                "properties": {"name": {"type": "string"}, "type": {"type": "string"}}
            }},
            "rows": {"type": "array", "items": {"type": "array"}},
            "row_count": {"type": "integer"},
            "sequence": {"type": "string"}
        }
    }});
    let body = generator.subschema_for::<QueryBody>();
    let call = json!({"post": {
        "summary": "Ask in SQL, read-only, for what is stored",
        "requestBody": {"required": true, "content": crate::openapi::json_content(body)},
        "responses": {
            "200": {"description": "The rows; a transfer that breaks off is no whole answer", "content": {
                "application/json": answer,
                NDJSON: text,
                "text/csv": text,
                ARROW_STREAM: binary,
                PARQUET: binary
            }},
            "default": problem_reply()
        }
    }});
    vec![("/v1/query".to_owned(), call)]
}
