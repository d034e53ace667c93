//! `POST /v1/outcomes`: what became of predictions. Each is a fact of the built-in contract; a later one for the
//! same prediction revises it.

use axum::body::Body;
use axum::extract::State;
use axum::http::Response;
use headwater_features::OUTCOME;
use headwater_schema::Problem;
use headwater_schema::decode::BodyFormat;
use schemars::{JsonSchema, SchemaGenerator};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::backend::{IngestOptions, IngestReply};
use crate::body::{instant, read_body, read_json};
use crate::error::{ApiError, malformed};
use crate::facts::{IngestAnswer, ingest, ingested};
use crate::openapi::{Paths, json_content, replies};
use crate::server::Shared;

/// An outcome.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OutcomeBody {
    pub(crate) prediction_id: String,
    /// A number, a bool, or a text.
    pub(crate) value: Value,
    /// When it happened: RFC 3339, or integer microseconds.
    pub(crate) event_time: Value,
}

/// Takes outcomes.
pub async fn post_outcomes(
    State(shared): State<Shared>,
    body: Body,
) -> Result<Response<Body>, ApiError> {
    let body = read_body(body, shared.limits.body_bytes_max).await?;
    let outcomes: Vec<OutcomeBody> = read_json(&body)?;
    ingested(take(&shared, &outcomes).await?)
}

/// Keeps outcomes as facts.
pub(crate) async fn take(
    shared: &Shared,
    outcomes: &[OutcomeBody],
) -> Result<IngestReply, ApiError> {
    let rows = outcomes.iter().enumerate();
    let rows = rows.map(|(index, outcome)| fact(index, outcome));
    let rows = Value::Array(rows.collect::<Result<_, _>>()?).to_string();
    let options = IngestOptions {
        all_or_nothing: false,
        revise: true,
    };
    ingest(shared, OUTCOME, BodyFormat::Json, rows.into(), options).await
}

fn fact(index: usize, outcome: &OutcomeBody) -> Result<Value, ApiError> {
    let field = |name: &str| format!("[{index}].{name}");
    if outcome.prediction_id.is_empty() {
        let problem = Problem::user("invalid-outcome", "an outcome names no prediction");
        return Err(ApiError(problem.field(field("prediction_id"))));
    }
    let time = instant(&field("event_time"), &outcome.event_time)?;
    let time = headwater_schema::time::format_timestamp(time);
    let mut fact = json!({"prediction_id": outcome.prediction_id, "time": time});
    match &outcome.value {
        Value::Number(number) => fact["value"] = json!(number.as_f64()),
        Value::Bool(yes) => fact["value"] = json!(f64::from(u8::from(*yes))),
        Value::String(text) => fact["label"] = json!(text),
        other => {
            return Err(malformed(format!(
                "the value of outcome {index} is `{other}`: give a number, a bool or a text"
            )));
        }
    }
    Ok(fact)
}

/// This call in the OpenAPI document.
pub fn paths(generator: &mut SchemaGenerator) -> Paths {
    let body = generator.subschema_for::<Vec<OutcomeBody>>();
    let answer = generator.subschema_for::<IngestAnswer>();
    let call = json!({"post": {
        "summary": "Tell what became of predictions; a later outcome of the same one revises it",
        "requestBody": {"required": true, "content": json_content(body)},
        "responses": replies("What became of the outcomes", answer)
    }});
    vec![("/v1/outcomes".to_owned(), call)]
}
