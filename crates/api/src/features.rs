//! `POST /v1/features`.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Response, header};
use headwater_features::entity_request;
use headwater_schema::time::format_timestamp;
use headwater_schema::{Micros, Problem};
use schemars::JsonSchema;
use serde::ser::{SerializeSeq, Serializer};
use serde::{Deserialize, Serialize};

use crate::arrow_stream;
use crate::backend::{FeatureRow, FeaturesReply, FeaturesRequest};
use crate::body::{instant, known_at, read_body, read_json};
use crate::error::ApiError;
use crate::feature_read;
use crate::limits::Limits;
use crate::server::Shared;
use headwater_schema::JsonValue;

/// The body of a feature read.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FeaturesBody {
    /// Full names of features (`view.feature`).
    #[serde(default)]
    pub features: Option<Vec<String>>,
    /// A feature set, instead of `features`.
    #[serde(default)]
    pub feature_set: Option<String>,
    /// One object per row: entity name → key, or key column → value.
    pub entities: Vec<BTreeMap<String, serde_json::Value>>,
    /// The request's own fields, one object per row of entities, as the feature set declares them.
    #[serde(default)]
    pub context: Vec<BTreeMap<String, serde_json::Value>>,
    /// The event time to read at; now by default.
    #[serde(default)]
    pub as_of: Option<serde_json::Value>,
    /// A `sequence` of a reply, or an instant (RFC 3339): read what was known then.
    #[serde(default)]
    pub known_at: Option<String>,
    /// Whether facts at `as_of` itself count.
    #[serde(default = "yes")]
    pub inclusive: bool,
}

fn yes() -> bool {
    true
}

/// The reply to a feature read.
#[derive(Serialize, JsonSchema)]
pub struct FeaturesAnswer {
    /// Full names, in the order of every row.
    #[schemars(with = "Vec<String>")]
    names: Vec<Arc<str>>,
    /// The largest relative error of each feature that is estimated beyond a bound; left out where none is.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(with = "BTreeMap<String, f64>")]
    error_bounds: Arc<BTreeMap<Arc<str>, f64>>,
    #[schemars(with = "Vec<RowAnswer>")]
    rows: Vec<Row>,
    as_of: String,
    /// Give it back as `known_at` to read the same again.
    sequence: String,
    /// Sources whose newest fact is older than their contracts allow; only where there are any, and only
    /// in reads of now.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default)]
    stale_sources: Vec<StaleAnswer>,
}

/// A source that should be fresher.
#[derive(Serialize, JsonSchema)]
pub struct StaleAnswer {
    contract: Arc<str>,
    /// The event time of the newest fact; null before the first.
    newest: Option<String>,
    /// As the contract says, in the form `15m`.
    expected_within: String,
}

/// One row of the reply.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "describes what `Row` writes")]
pub struct RowAnswer {
    values: Vec<serde_json::Value>,
    /// `PRESENT`, `NULL_VALUE`, `NOT_FOUND`, `OUTSIDE_MAX_AGE`, `UNDEFINED`, `OVERFLOW` or `BACKFILLING`.
    statuses: Vec<String>,
    /// The event time of the newest fact that counted.
    event_times: Vec<Option<String>>,
}

struct Row(FeatureRow);

impl Serialize for Row {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeStruct;
        let mut row = serializer.serialize_struct("row", 3)?;
        row.serialize_field("values", &Values(&self.0))?;
        let statuses: Vec<&str> = self.0.statuses.iter().map(|s| s.as_str()).collect();
        row.serialize_field("statuses", &statuses)?;
        row.serialize_field("event_times", &Times(&self.0.event_times))?;
        row.end()
    }
}

struct Values<'a>(&'a FeatureRow);

impl Serialize for Values<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.values.iter().map(JsonValue))
    }
}

struct Times<'a>(&'a [Option<Micros>]);

impl Serialize for Times<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(self.0.len()))?;
        for time in self.0 {
            list.serialize_element(&time.map(format_timestamp))?;
        }
        list.end()
    }
}

/// Reads features.
pub async fn read_features(
    State(shared): State<Shared>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response<Body>, ApiError> {
    let body = read_body(body, shared.limits.body_bytes_max).await?;
    let request = request(read_json(&body)?, &shared.limits)?;
    let reply = shared.backend.features(&request)?;
    if arrow_stream::is_wanted(&headers) {
        return arrow_stream::features(&reply);
    }
    answer(reply)
}

fn request(body: FeaturesBody, limits: &Limits) -> Result<FeaturesRequest, ApiError> {
    let names = feature_read::list_or_set(body.features, body.feature_set)?;
    let (entities, context) = (body.entities.len(), body.context.len());
    feature_read::check_size(&names, entities, context, limits)?;
    Ok(FeaturesRequest {
        names,
        entities: feature_read::entities(&body.entities, entity_request)?,
        as_of: body.as_of.map(|t| instant("as_of", &t)).transpose()?,
        known_at: body
            .known_at
            .map(|t| known_at("known_at", &t))
            .transpose()?,
        context: body.context,
        inclusive: body.inclusive,
        lenient: false,
    })
}

fn answer(reply: FeaturesReply) -> Result<Response<Body>, ApiError> {
    let stale = reply.stale_sources.into_iter().map(|source| StaleAnswer {
        contract: source.contract,
        newest: source.newest.map(format_timestamp),
        expected_within: source.expected_within.to_string(),
    });
    let answer = FeaturesAnswer {
        stale_sources: stale.collect(),
        names: reply.names.to_vec(),
        error_bounds: reply.error_bounds,
        rows: reply.rows.into_iter().map(Row).collect(),
        as_of: format_timestamp(reply.as_of),
        sequence: reply.sequence.to_string(),
    };
    json_reply(&answer)
}

/// A reply in JSON.
pub fn json_reply(answer: &impl Serialize) -> Result<Response<Body>, ApiError> {
    let bytes = serde_json::to_vec(answer)
        .map_err(|e| ApiError(Problem::internal("reply", "a reply can't be written").detail(e)))?;
    Response::builder()
        .header(header::CONTENT_TYPE, "application/json")
        .body(Body::from(bytes))
        .map_err(|e| ApiError(Problem::internal("reply", "a reply can't be made").detail(e)))
}
