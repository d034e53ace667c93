//! `POST` and `GET /v1/facts/{contract}`.

use std::collections::BTreeMap;

use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, Response};
use headwater_schema::decode::BodyFormat;
use headwater_schema::time::format_timestamp;
use headwater_schema::{Problem, Value};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::arrow_stream;
use crate::backend::{
    EntityRequest, FactRow, FactsQuery, IngestOptions, IngestReply, KeyValue, RejectedFact,
};
use crate::body::{facts_format, instant, known_at, read_body};
use crate::error::{ApiError, malformed};
use crate::features::json_reply;
use crate::feed;
use crate::server::Shared;
use headwater_schema::JsonValue;

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

impl IngestParameters {
    pub(crate) fn options(&self) -> Result<IngestOptions, ApiError> {
        let all_or_nothing = match self.on_reject.as_deref() {
            None | Some("keep") => false,
            Some("fail") => true,
            Some(other) => {
                return Err(malformed(format!(
                    "`on_reject` is `{other}`; it is `keep` or `fail`"
                )));
            }
        };
        let revise = match self.revise.as_deref() {
            None | Some("false") => false,
            Some("true") => true,
            Some(other) => {
                return Err(malformed(format!(
                    "`revise` is `{other}`; it is `true` or `false`"
                )));
            }
        };
        Ok(IngestOptions {
            all_or_nothing,
            revise,
        })
    }
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

impl From<RejectedFact> for RejectedAnswer {
    fn from(rejected: RejectedFact) -> Self {
        Self {
            row: rejected.row,
            field: rejected.field,
            reason: rejected.reason,
        }
    }
}

/// Takes facts in.
pub async fn post_facts(
    State(shared): State<Shared>,
    Path(contract): Path<String>,
    Query(parameters): Query<IngestParameters>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response<Body>, ApiError> {
    let options = parameters.options()?;
    let body = read_body(body, shared.limits.body_bytes_max).await?;
    let format = facts_format(&headers, &body)?;
    let reply = ingest(&shared, &contract, format, body, options).await?;
    ingested(reply)
}

/// What became of facts, as an answer.
pub(crate) fn ingested(reply: IngestReply) -> Result<Response<Body>, ApiError> {
    let rejected = reply.rejected.into_iter().map(RejectedAnswer::from);
    json_reply(&IngestAnswer {
        accepted: reply.accepted,
        duplicates: reply.duplicates,
        rejected: rejected.collect(),
        sequence: reply.sequence.to_string(),
    })
}

/// Hands facts to the backend and waits until they are durable and visible.
pub(crate) async fn ingest(
    shared: &Shared,
    contract: &str,
    format: BodyFormat,
    body: Bytes,
    options: IngestOptions,
) -> Result<IngestReply, ApiError> {
    let answered = feed::submit(&shared.backend, contract, format, body, options).await?;
    let reply = answered
        .await
        .map_err(|_| ApiError(Problem::internal("ingest", "nobody answered")))?;
    Ok(reply?)
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
    headers: HeaderMap,
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
    let wanted = arrow_stream::is_wanted(&headers);
    let contract = wanted.then(|| shared.backend.contract(&query.contract));
    let contract = contract.transpose()?;
    let backend = shared.backend.clone();
    let rows = tokio::task::spawn_blocking(move || backend.facts(&query))
        .await
        .map_err(|e| ApiError(Problem::internal("facts", "listing panicked").detail(e)))??;
    if let Some(contract) = contract {
        return arrow_stream::facts(&contract, &rows);
    }
    let facts: Vec<FactAnswer<'_>> = rows.iter().map(fact_answer).collect();
    json_reply(&serde_json::json!({ "facts": facts }))
}

fn fact_answer(row: &FactRow) -> FactAnswer<'_> {
    let values = row.values.iter();
    FactAnswer {
        fact_id: &row.fact_id,
        event_time: format_timestamp(row.event_time),
        ingest_time: format_timestamp(row.ingest_time),
        sequence: row.sequence.to_string(),
        fact: values.map(|(n, v)| (n.as_ref(), JsonValue(v))).collect(),
    }
}

/// A fact as `GET /v1/facts/{contract}` lists it.
pub fn fact_json(row: &FactRow) -> impl Serialize + '_ {
    fact_answer(row)
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
