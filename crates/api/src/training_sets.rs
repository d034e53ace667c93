//! `POST /v1/training-sets`: a spine in, the same rows with features out, as an Arrow stream.

use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, Response};
use headwater_schema::{Micros, Sequence};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::arrow_stream::ARROW_STREAM;
use crate::backend::{KnownAt, Names};
use crate::body::{instant, known_at};
use crate::error::{ApiError, malformed};
use crate::feature_read::list_or_set;
use crate::openapi::{Paths, problem_reply, query};
use crate::server::Shared;
use crate::table_stream::made_of_rows;

/// How much every row of a training set may know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrainingKnownAt {
    /// What had arrived by the row's own time.
    Arrival,
    /// The same for all rows.
    Until(KnownAt),
}

/// A training set to make of a spine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrainingSetRequest {
    pub names: Names,
    /// Whether facts at a row's time itself count.
    pub inclusive: bool,
    /// Everything, or what the spine's column `known_at` says, by default.
    pub known_at: Option<TrainingKnownAt>,
    /// Facts from this sequence on don't count, whatever rows may know; so a manifest's training set is made again.
    pub facts_until: Option<Sequence>,
    /// The spine's time column.
    pub time: String,
    /// Labels to add, by name.
    pub labels: Vec<String>,
    /// When somebody looks at them: those whose horizon hasn't come by then are unknown. Now by default.
    pub labels_as_of: Option<Micros>,
}

/// Parameters of a training set.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainingSetParameters {
    #[serde(default)]
    feature_set: Option<String>,
    /// Full names, with commas between them.
    #[serde(default)]
    features: Option<String>,
    #[serde(default)]
    time: Option<String>,
    #[serde(default)]
    inclusive: Option<bool>,
    #[serde(default)]
    known_at: Option<String>,
    #[serde(default)]
    facts_until: Option<Sequence>,
    /// Names, with commas between them.
    #[serde(default)]
    labels: Option<String>,
    #[serde(default)]
    labels_as_of: Option<String>,
}

/// How much rows may know, as the parameter `known_at` says.
pub(crate) fn rows_known_at(given: Option<&str>) -> Result<Option<TrainingKnownAt>, ApiError> {
    Ok(match given {
        Some("arrival") => Some(TrainingKnownAt::Arrival),
        Some(text) => Some(TrainingKnownAt::Until(known_at("known_at", text)?)),
        None => None,
    })
}

/// Makes a training set.
pub async fn post_training_set(
    State(shared): State<Shared>,
    parameters: Result<Query<TrainingSetParameters>, axum::extract::rejection::QueryRejection>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response<Body>, ApiError> {
    let Query(parameters) = parameters.map_err(|e| malformed(e.body_text()))?;
    let list = |names: String| names.split(',').map(str::to_owned).collect::<Vec<_>>();
    let labels_as_of = parameters.labels_as_of.as_deref();
    let request = TrainingSetRequest {
        names: list_or_set(parameters.features.map(list), parameters.feature_set)?,
        inclusive: parameters.inclusive.unwrap_or(false),
        known_at: rows_known_at(parameters.known_at.as_deref())?,
        facts_until: parameters.facts_until,
        time: parameters.time.unwrap_or_else(|| "as_of".to_owned()),
        labels: parameters.labels.map(list).unwrap_or_default(),
        labels_as_of: labels_as_of
            .map(|t| instant("labels_as_of", &json!(t)))
            .transpose()?,
    };
    made_of_rows(&shared, &headers, body, move |backend, rows, out| {
        backend.training_set(&request, rows.format, rows.pieces, rows.stop, out)
    })
    .await
}

fn binary() -> Value {
    json!({"schema": {"type": "string", "contentEncoding": "binary"}})
}

/// A body of rows in the OpenAPI document.
pub(crate) fn rows_body() -> Value {
    let text = json!({"schema": {"type": "string"}});
    json!({"required": true, "content": {
        "application/vnd.apache.arrow.stream": binary(),
        "application/vnd.apache.parquet": binary(),
        "text/csv": text,
        "application/x-ndjson": text
    }})
}

/// Answers of a table of such columns in the OpenAPI document.
pub(crate) fn table_replies(columns: &str) -> Value {
    let description = format!("{columns}; a transfer that breaks off is no whole answer");
    json!({
        "200": {"description": description, "content": {ARROW_STREAM: binary()}},
        "default": problem_reply()
    })
}

/// This call in the OpenAPI document.
pub fn paths() -> Paths {
    let text = json!({"type": "string"});
    let call = json!({"post": {
        "summary": "Make a training set: the rows of a spine, each with its features as of its own time",
        "parameters": [
            query("feature_set", text.clone(), "a feature set; or `features`"),
            query("features", text.clone(), "full names, with commas between them"),
            query("time", text.clone(), "the spine's time column; `as_of` by default"),
            query("inclusive", json!({"type": "boolean"}), "`true`: facts at a row's time itself count"),
            query("known_at", text.clone(), "a `sequence`, RFC 3339, or `arrival`: what had arrived by each row's own time"),
            query("facts_until", json!({"type": "integer", "minimum": 0}), "a sequence: facts from it on don't count, whatever rows may know; the end of a manifest's `facts` makes its training set again"),
            query("labels", text.clone(), "labels to add, with commas between them"),
            query("labels_as_of", text.clone(), "when the labels are looked at, in RFC 3339: those whose horizon hasn't come by then are null; now by default")],
        "requestBody": rows_body(),
        "responses": table_replies("The spine's columns, then the features, then the labels")
    }});
    vec![("/v1/training-sets".to_owned(), call)]
}
