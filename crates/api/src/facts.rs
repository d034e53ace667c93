//! `POST` and `GET /v1/facts/{contract}`.

use std::collections::BTreeMap;

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, Response};
use headwater_schema::time::format_timestamp;
use headwater_schema::{Problem, Value};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::backend::{EntityRequest, FactsQuery, IngestOptions, KeyValue};
use crate::body::{facts_format, instant, known_at, read_body};
use crate::error::{ApiError, malformed};
use crate::features::json_reply;
use crate::json::JsonValue;
use crate::server::Shared;

/// Facts listed unless the request says how many.
const LISTED_DEFAULT: usize = 100;

/// Parameters of `POST /v1/facts/{contract}`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IngestParameters {
    #[serde(default)]
    on_reject: Option<String>,
    #[serde(default)]
    revise: Option<String>,
}

/// The reply to facts sent.
#[derive(Debug, Serialize, JsonSchema)]
pub struct IngestAnswer {
    accepted: usize,
    duplicates: usize,
    rejected: Vec<RejectedAnswer>,
    /// A read at this `known_at` sees what was accepted.
    sequence: String,
}

/// A row that wasn't taken.
#[derive(Debug, Serialize, JsonSchema)]
pub struct RejectedAnswer {
    row: usize,
    field: Option<String>,
    reason: String,
}

/// Takes facts in.
pub async fn post_facts(
    State(shared): State<Shared>,
    Path(contract): Path<String>,
    Query(parameters): Query<IngestParameters>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response<Body>, ApiError> {
    let all_or_nothing = match parameters.on_reject.as_deref() {
        None | Some("keep") => false,
        Some("fail") => true,
        Some(other) => {
            return Err(malformed(format!(
                "`on_reject` is `{other}`; it is `keep` or `fail`"
            )));
        }
    };
    let revise = match parameters.revise.as_deref() {
        None | Some("false") => false,
        Some("true") => true,
        Some(other) => {
            return Err(malformed(format!(
                "`revise` is `{other}`; it is `true` or `false`"
            )));
        }
    };
    let body = read_body(body, shared.limits.body_bytes_max).await?;
    let format = facts_format(&headers, &body)?;
    let (answer, answered) = oneshot::channel();
    let backend = shared.backend.clone();
    let submit = move || {
        let options = IngestOptions {
            all_or_nothing,
            revise,
        };
        let done = Box::new(move |reply| drop(answer.send(reply)));
        backend.submit(&contract, format, &body, options, done);
    };
    // Decoding a large body takes a while; small ones aren't worth another thread.
    const SMALL_BYTES: usize = 16 * 1024;
    if body_is_small(&headers, SMALL_BYTES) {
        submit();
    } else {
        let asker = tracing::Span::current();
        tokio::task::spawn_blocking(move || asker.in_scope(submit))
            .await
            .map_err(|e| ApiError(Problem::internal("decode", "decoding panicked").detail(e)))?;
    }
    let reply = answered
        .await
        .map_err(|_| ApiError(Problem::internal("ingest", "nobody answered")))??;
    let rejected = reply.rejected.into_iter().map(|r| RejectedAnswer {
        row: r.row,
        field: r.field,
        reason: r.reason,
    });
    json_reply(&IngestAnswer {
        accepted: reply.accepted,
        duplicates: reply.duplicates,
        rejected: rejected.collect(),
        sequence: reply.sequence.to_string(),
    })
}

fn body_is_small(headers: &HeaderMap, bytes: usize) -> bool {
    headers
        .get(axum::http::header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse::<usize>().ok())
        .is_some_and(|length| length <= bytes)
}

/// Parameters of `GET /v1/facts/{contract}`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListParameters {
    #[serde(default)]
    entity: Option<String>,
    #[serde(default)]
    from: Option<String>,
    #[serde(default)]
    to: Option<String>,
    #[serde(default)]
    known_at: Option<String>,
    #[serde(default)]
    limit: Option<usize>,
}

/// Lists facts, newest last.
pub async fn get_facts(
    State(shared): State<Shared>,
    Path(contract): Path<String>,
    Query(parameters): Query<ListParameters>,
) -> Result<Response<Body>, ApiError> {
    let time = |name: &str, text: &Option<String>| {
        let json = text.as_ref().map(|t| serde_json::Value::String(t.clone()));
        json.map(|t| instant(name, &t)).transpose()
    };
    let query = FactsQuery {
        contract,
        entity: parameters.entity.as_deref().map(parse_entity).transpose()?,
        from: time("from", &parameters.from)?,
        to: time("to", &parameters.to)?,
        known_at: parameters
            .known_at
            .as_deref()
            .map(|text| known_at("known_at", text))
            .transpose()?,
        limit: limit(parameters.limit, shared.limits.listed_max)?,
    };
    let backend = shared.backend.clone();
    let rows = tokio::task::spawn_blocking(move || backend.facts(&query))
        .await
        .map_err(|e| ApiError(Problem::internal("facts", "listing panicked").detail(e)))??;
    let facts: Vec<FactAnswer<'_>> = rows
        .iter()
        .map(|row| FactAnswer {
            fact_id: &row.fact_id,
            event_time: format_timestamp(row.event_time),
            ingest_time: format_timestamp(row.ingest_time),
            sequence: row.sequence.to_string(),
            fact: row
                .values
                .iter()
                .map(|(n, v)| (n.as_ref(), JsonValue(v)))
                .collect(),
        })
        .collect();
    json_reply(&serde_json::json!({ "facts": facts }))
}

#[derive(Serialize)]
struct FactAnswer<'a> {
    fact_id: &'a str,
    event_time: String,
    ingest_time: String,
    sequence: String,
    fact: BTreeMap<&'a str, JsonValue<'a>>,
}

pub fn limit(asked: Option<usize>, max: usize) -> Result<usize, ApiError> {
    let limit = asked.unwrap_or(LISTED_DEFAULT.min(max));
    if limit == 0 || limit > max {
        return Err(ApiError(
            Problem::user("limit", format!("`limit` is {limit}"))
                .field("limit")
                .hint(format!("it is between 1 and {max} (`limits.listed_max`)")),
        ));
    }
    Ok(limit)
}

/// `plane:N14228`, or `route:origin=EWR,dest=IAH` for several key columns.
fn parse_entity(text: &str) -> Result<EntityRequest, ApiError> {
    let wrong = || {
        malformed(format!(
            "`entity={text}`: write `plane:N14228`, or `route:origin=EWR,dest=IAH`"
        ))
    };
    let (name, key) = text.split_once(':').ok_or_else(wrong)?;
    let value = if key.contains('=') {
        let mut columns = BTreeMap::new();
        for part in key.split(',') {
            let (column, value) = part.split_once('=').ok_or_else(wrong)?;
            columns.insert(column.to_owned(), Value::string(value));
        }
        KeyValue::Columns(columns)
    } else {
        KeyValue::Scalar(Value::string(key))
    };
    Ok(EntityRequest::from([(name.to_owned(), value)]))
}
