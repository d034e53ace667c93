//! `POST /v1/training-sets`: a spine in, the same rows with features out, as an Arrow stream.

use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderValue, Response, header};
use headwater_batch::Stop;
use headwater_schema::Problem;
use serde::Deserialize;
use serde_json::json;

use crate::arrow_stream::ARROW_STREAM;
use crate::backend::{Names, TrainingKnownAt, TrainingSetRequest};
use crate::body::{facts_format, instant, known_at, read_body};
use crate::error::{ApiError, malformed};
use crate::openapi::{Paths, problem_reply, query};
use crate::server::Shared;

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
    /// Names, with commas between them.
    #[serde(default)]
    labels: Option<String>,
    #[serde(default)]
    labels_as_of: Option<String>,
}

/// Stops the work when the caller is given up, or goes.
struct Waiting(Stop);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.stop();
    }
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
        names: match (parameters.feature_set, parameters.features) {
            (Some(set), None) => Names::Set(set),
            (None, Some(features)) => Names::List(list(features)),
            _ => return Err(malformed("name either `features` or a `feature_set`")),
        },
        inclusive: parameters.inclusive.unwrap_or(false),
        known_at: match parameters.known_at.as_deref() {
            Some("arrival") => Some(TrainingKnownAt::Arrival),
            Some(text) => Some(TrainingKnownAt::Until(known_at("known_at", text)?)),
            None => None,
        },
        time: parameters.time.unwrap_or_else(|| "as_of".to_owned()),
        labels: parameters.labels.map(list).unwrap_or_default(),
        labels_as_of: labels_as_of
            .map(|t| instant("labels_as_of", &json!(t)))
            .transpose()?,
    };
    let body = read_body(body, shared.limits.body_bytes_max).await?;
    let format = facts_format(&headers, &body)?;
    let backend = shared.backend.clone();
    let waiting = Waiting(Stop::default());
    let stop = waiting.0.clone();
    let make = move || backend.training_set(&request, format, &body, &stop);
    let made = tokio::task::spawn_blocking(make).await;
    let panicked = |e| ApiError(Problem::internal("training-set", "making it panicked").detail(e));
    let mut response = Response::new(Body::from(made.map_err(panicked)??));
    let media_type = HeaderValue::from_static(ARROW_STREAM);
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, media_type);
    Ok(response)
}

/// This call in the OpenAPI document.
pub fn paths() -> Paths {
    let text = json!({"type": "string"});
    let binary = json!({"schema": {"type": "string", "contentEncoding": "binary"}});
    let call = json!({"post": {
        "summary": "Make a training set: the rows of a spine, each with its features as of its own time",
        "parameters": [
            query("feature_set", text.clone(), "a feature set; or `features`"),
            query("features", text.clone(), "full names, with commas between them"),
            query("time", text.clone(), "the spine's time column; `as_of` by default"),
            query("inclusive", json!({"type": "boolean"}), "`true`: facts at a row's time itself count"),
            query("known_at", text.clone(), "a `sequence`, RFC 3339, or `arrival`: what had arrived by each row's own time"),
            query("labels", text.clone(), "labels to add, with commas between them"),
            query("labels_as_of", text.clone(), "when the labels are looked at, in RFC 3339: those whose horizon hasn't come by then are null; now by default")],
        "requestBody": {"required": true, "content": {
            "application/vnd.apache.arrow.stream": binary,
            "application/vnd.apache.parquet": binary,
            "text/csv": {"schema": text},
            "application/x-ndjson": {"schema": text}
        }},
        "responses": {
            "200": {"description": "The spine's columns, then the features, then the labels", "content": {ARROW_STREAM: binary}},
            "default": problem_reply()
        }
    }});
    vec![("/v1/training-sets".to_owned(), call)]
}
