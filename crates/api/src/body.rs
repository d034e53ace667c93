//! Bodies and parameters of requests: read whole, within their limit, strictly.

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, header};
use headwater_schema::decode::BodyFormat;
use headwater_schema::time::parse_timestamp;
use headwater_schema::{Micros, Problem};
use serde::de::DeserializeOwned;
use tower_http::timeout::TimeoutError;

use crate::backend::KnownAt;
use crate::error::{ApiError, malformed};

/// Reads a body of at most `bytes_max`.
pub async fn read_body(body: Body, bytes_max: usize) -> Result<Bytes, ApiError> {
    let read = axum::body::to_bytes(body, bytes_max).await;
    read.map_err(|error| {
        if causes(&error).any(|cause| cause.to_string().contains("length limit exceeded")) {
            return ApiError(
                Problem::user("body-too-large", "the body is too large")
                    .detail(format!("more than {bytes_max} bytes"))
                    .hint("send it in parts, or raise `limits.body_bytes_max`"),
            );
        }
        unreadable(&error)
    })
}

/// Why a body can't be read.
pub fn unreadable(error: &axum::Error) -> ApiError {
    if causes(error).any(|cause| cause.is::<TimeoutError>()) {
        return ApiError(
            Problem::user("slow-body", "the body stopped coming")
                .hint("send it without long pauses; the limit is `limits.body_ms_max`"),
        );
    }
    malformed(format!("the body can't be read: {error}"))
}

fn causes(error: &axum::Error) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error as &dyn std::error::Error), |e| e.source())
}

/// The format of facts in a body: as its media type says, else as it begins.
pub fn facts_format(headers: &HeaderMap, body: &[u8]) -> Result<BodyFormat, ApiError> {
    let Some(given) = headers.get(header::CONTENT_TYPE) else {
        return Ok(guess(body));
    };
    let media_type = given.to_str().unwrap_or_default();
    let essence = media_type.split(';').next().unwrap_or_default().trim();
    if essence == "application/x-www-form-urlencoded" {
        // What curl says of `--data` unless it is told otherwise.
        return Ok(guess(body));
    }
    BodyFormat::from_media_type(essence).ok_or_else(|| {
        ApiError(
            Problem::user("unsupported-media-type", format!("`{essence}` isn't read here"))
                .hint("send application/json, application/x-ndjson, text/csv or application/vnd.apache.arrow.stream"),
        )
    })
}

/// A JSON array is JSON; objects, one or many, are lines.
fn guess(body: &[u8]) -> BodyFormat {
    match body.iter().find(|b| !b.is_ascii_whitespace()) {
        Some(b'[') => BodyFormat::Json,
        _ => BodyFormat::Ndjson,
    }
}

/// Reads a JSON body; an unknown field is an error that names it.
pub fn read_json<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(body).map_err(malformed)
}

/// An instant: RFC 3339, or integer microseconds.
pub fn instant(name: &str, json: &serde_json::Value) -> Result<Micros, ApiError> {
    let wrong = |detail: String| {
        ApiError(
            Problem::user("invalid-time", format!("`{name}` is no time"))
                .field(name)
                .detail(detail)
                .hint("write RFC 3339 with an offset (2013-07-04T12:00:00Z), or microseconds since 1970 as an integer"),
        )
    };
    match json {
        serde_json::Value::Number(number) => number
            .as_i64()
            .ok_or_else(|| wrong(format!("{number} is no integer"))),
        serde_json::Value::String(text) => match text.parse::<i64>() {
            Ok(micros) => Ok(micros),
            Err(_) => parse_timestamp(text, None).map_err(wrong),
        },
        other => Err(wrong(other.to_string())),
    }
}

/// A sequence token, as a reply gave it, or an instant.
pub fn known_at(name: &str, text: &str) -> Result<KnownAt, ApiError> {
    if let Ok(sequence) = text.parse() {
        return Ok(KnownAt::Sequence(sequence));
    }
    parse_timestamp(text, None)
        .map(KnownAt::Instant)
        .map_err(|e| {
            ApiError(
                Problem::user(
                    "invalid-sequence",
                    format!("`{name}` is neither a sequence nor an instant"),
                )
                .field(name)
                .detail(e)
                .hint("use a `sequence` that a reply gave, or RFC 3339 with an offset"),
            )
        })
}

/// A sequence that a reply gave.
pub fn sequence(name: &str, text: &str) -> Result<headwater_schema::Sequence, ApiError> {
    text.parse().map_err(|_| {
        ApiError(
            Problem::user("invalid-sequence", format!("`{name}` is no sequence"))
                .field(name)
                .detail(format!("it is `{text}`"))
                .hint("use the id of an event, or a `sequence` that a reply gave"),
        )
    })
}
