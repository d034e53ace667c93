//! `POST /v1/models/{model}/predict`.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Response};
use headwater_features::{entity_request, key_value};
use headwater_schema::time::format_timestamp;
use headwater_schema::{Micros, Problem, Value};
use schemars::{JsonSchema, SchemaGenerator};
use serde::ser::{SerializeMap, Serializer};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::oneshot;

use crate::backend::{AnsweredBy, Candidates, InputRows, PredictReply, PredictRequest};
use crate::body::{read_body, read_json};
use crate::error::{ApiError, malformed};
use crate::feature_read;
use crate::features::json_reply;
use crate::openapi::{Paths, json_content, replies};
use crate::server::Shared;

/// The body of a prediction: rows of entities, or the model's own inputs.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PredictBody {
    /// One object per row: entity name → key, or key column → value.
    #[serde(default)]
    entities: Option<Vec<BTreeMap<String, serde_json::Value>>>,
    /// The request's own fields, one object per row, as the feature set declares them. With candidates one
    /// object may stand for all of them.
    #[serde(default)]
    context: Vec<BTreeMap<String, serde_json::Value>>,
    /// Things to score, each with the entities of the only row, which doesn't name the candidates' own.
    #[serde(default)]
    candidates: Option<CandidatesBody>,
    /// The model's own inputs in its order, one list per row; null where one is missing.
    #[serde(default)]
    vectors: Option<Vec<Vec<serde_json::Value>>>,
    /// An alias or a version; `live` by default.
    #[serde(default)]
    version: Option<String>,
    /// How long it may take; as the model declares by default.
    #[serde(default)]
    deadline_ms: Option<u32>,
    /// Whether to tell what each input added.
    #[serde(default)]
    explain: bool,
}

/// Things to score.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CandidatesBody {
    /// The entity that each of them is.
    entity: String,
    ids: Vec<serde_json::Value>,
}

/// The answer.
#[derive(Serialize, JsonSchema)]
pub struct PredictAnswer<'a> {
    /// One per row; outcomes name them.
    prediction_ids: &'a [String],
    model: &'a str,
    /// The version that answered; null where a fallback without one did, or several versions.
    version: Option<&'a str>,
    /// Who answered each row; left out where rows aren't shared out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default)]
    answered_by: Vec<AnsweredByAnswer<'a>>,
    /// One object per row: a number for each output, or a list where it has several.
    #[schemars(with = "Vec<BTreeMap<String, serde_json::Value>>")]
    outputs: Vec<Outputs<'a>>,
    /// One list per row, of what each score of it is made of; left out unless asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default)]
    explanations: Vec<Vec<ScoreAnswer<'a>>>,
    /// Whether a fallback was answered.
    degraded: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(default)]
    reason: Option<ReasonAnswer<'a>>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    #[schemars(default)]
    warnings: &'a [String],
    /// The cursor that features were read at; left out where none were.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(default)]
    as_of: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(default)]
    sequence: Option<String>,
}

/// Who answered a row.
#[derive(Serialize, JsonSchema)]
pub struct AnsweredByAnswer<'a> {
    alias: &'a str,
    version: &'a str,
}

/// What one raw score is made of: they sum to it.
#[derive(Serialize, JsonSchema)]
pub struct ScoreAnswer<'a> {
    /// What each input added.
    #[schemars(with = "BTreeMap<String, f64>")]
    inputs: &'a BTreeMap<Arc<str>, f64>,
    /// What the model says without any.
    base: f64,
}

/// Why a fallback was answered.
#[derive(Serialize, JsonSchema)]
pub struct ReasonAnswer<'a> {
    /// `deadline`, `busy`, or the code of what went wrong.
    code: &'a str,
    detail: &'a str,
    /// `last_good`, `alias` or `constant`.
    fallback: &'a str,
}

/// The outputs of a row.
pub struct Outputs<'a>(&'a [(Arc<str>, Vec<f64>)]);

impl Serialize for Outputs<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, numbers) in self.0 {
            match numbers.as_slice() {
                [number] => map.serialize_entry(name.as_ref(), number)?,
                several => map.serialize_entry(name.as_ref(), several)?,
            }
        }
        map.end()
    }
}

/// Asks a model.
pub async fn post_predict(
    State(shared): State<Shared>,
    Path(model): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response<Body>, ApiError> {
    let body = read_body(body, shared.limits.body_bytes_max).await?;
    let mut asked = request(read_json(&body)?, &shared)?;
    asked.model = model;
    asked.request_id = request_id(&headers);
    let reply = ask(&shared, asked).await?;
    json_reply(&told(&reply))
}

/// The id that a request is known by.
pub(crate) fn request_id(headers: &HeaderMap) -> String {
    let id = headers.get("x-request-id").and_then(|id| id.to_str().ok());
    id.unwrap_or_default().to_owned()
}

/// Asks a model, and gives up at the deadline.
pub(crate) async fn ask(
    shared: &Shared,
    asked: PredictRequest,
) -> Result<Arc<PredictReply>, ApiError> {
    let (answer, answered) = oneshot::channel();
    let done = Box::new(move |result| drop(answer.send(result)));
    let pending = shared.backend.predict(asked, done)?;
    let mut answered = answered;
    let gone = |_| ApiError(Problem::internal("predict", "nobody answered"));
    let reply = match tokio::time::timeout(pending.wait(), &mut answered).await {
        Ok(reply) => reply.map_err(gone)?,
        Err(_) => {
            pending.give_up();
            answered.await.map_err(gone)?
        }
    };
    Ok(reply?)
}

fn request(body: PredictBody, shared: &Shared) -> Result<PredictRequest, ApiError> {
    let check = |what, count| shared.limits.check_entities(what, count);
    let rows = match (body.entities, body.vectors) {
        (Some(entities), None) => {
            check("entities", entities.len())?;
            check("context", body.context.len())?;
            InputRows::Entities {
                entities: feature_read::entities(&entities, entity_request)?,
                context: body.context,
                candidates: match body.candidates {
                    Some(given) => {
                        check("candidates", given.ids.len())?;
                        Some(candidates(given)?)
                    }
                    None => None,
                },
            }
        }
        (None, Some(vectors)) => {
            if !body.context.is_empty() || body.candidates.is_some() {
                return Err(vectors_alone());
            }
            check("vectors", vectors.len())?;
            let vectors = vectors
                .iter()
                .enumerate()
                .map(|(index, v)| vector(index, v));
            InputRows::Vectors(vectors.collect::<Result<_, _>>()?)
        }
        _ => return Err(no_rows()),
    };
    Ok(PredictRequest {
        rows,
        version: body.version,
        deadline: body.deadline_ms.map(|ms| Micros::from(ms) * 1000),
        explain: body.explain,
        ..PredictRequest::default()
    })
}

pub(crate) fn vectors_alone() -> ApiError {
    malformed("`vectors` have neither `context` nor `candidates`")
}

pub(crate) fn no_rows() -> ApiError {
    malformed("name either `entities` or `vectors`")
}

fn candidates(given: CandidatesBody) -> Result<Candidates, ApiError> {
    let ids = given.ids.into_iter().enumerate().map(|(index, id)| {
        let row = BTreeMap::from([(given.entity.clone(), id)]);
        let mut read = entity_request(&row)
            .map_err(|p| ApiError(p.field(format!("candidates.ids[{index}]"))))?;
        read.remove(&given.entity)
            .ok_or_else(|| malformed("a candidate has no id"))
    });
    Ok(Candidates {
        ids: ids.collect::<Result<_, _>>()?,
        entity: given.entity,
    })
}

/// Numbers, bools, and texts that stand for categories.
fn vector(index: usize, given: &[serde_json::Value]) -> Result<Vec<Value>, ApiError> {
    let read = |json: &serde_json::Value| match json {
        serde_json::Value::Number(number) if !number.is_i64() => number.as_f64().map(Value::Float),
        json => key_value(json),
    };
    let values: Option<Vec<Value>> = given.iter().map(read).collect();
    values.ok_or_else(|| no_vector(index))
}

pub(crate) fn no_vector(index: usize) -> ApiError {
    ApiError(
        Problem::user("model-input", "a vector holds something that is no value")
            .field(format!("vectors[{index}]"))
            .hint("give numbers, bools or texts; null where one is missing"),
    )
}

/// Who answered each row, where rows are shared out.
pub(crate) fn shared_out(reply: &PredictReply) -> &[Arc<AnsweredBy>] {
    let by = &reply.answered_by;
    match by.iter().any(|by| by.experiment.is_some()) {
        true => by,
        false => &[],
    }
}

fn told(reply: &PredictReply) -> PredictAnswer<'_> {
    let explained = reply.explanations.iter().map(|row| {
        let scores = row.scores.iter();
        scores
            .map(|(inputs, base)| ScoreAnswer {
                inputs,
                base: *base,
            })
            .collect()
    });
    let answered_by = shared_out(reply).iter().map(|by| AnsweredByAnswer {
        alias: &by.alias,
        version: &by.version,
    });
    PredictAnswer {
        answered_by: answered_by.collect(),
        prediction_ids: &reply.prediction_ids,
        model: &reply.model,
        version: reply.version.as_deref(),
        outputs: reply.outputs.iter().map(|row| Outputs(row)).collect(),
        explanations: explained.collect(),
        degraded: reply.degraded.is_some(),
        reason: reply.degraded.as_ref().map(|degraded| ReasonAnswer {
            code: &degraded.reason,
            detail: &degraded.detail,
            fallback: degraded.fallback,
        }),
        warnings: &reply.warnings,
        as_of: reply.cursor.map(|(as_of, _)| format_timestamp(as_of)),
        sequence: reply.cursor.map(|(_, sequence)| sequence.to_string()),
    }
}

/// This call in the OpenAPI document.
pub fn paths(generator: &mut SchemaGenerator) -> Paths {
    let model =
        json!({"name": "model", "in": "path", "required": true, "schema": {"type": "string"}});
    let body = generator.subschema_for::<PredictBody>();
    let answer = generator.subschema_for::<PredictAnswer<'_>>();
    let call = json!({"post": {
        "summary": "Ask a model, by entities or with its own inputs",
        "parameters": [model],
        "requestBody": {"required": true, "content": json_content(body)},
        "responses": replies("What it answers", answer)
    }});
    vec![("/v1/models/{model}/predict".to_owned(), call)]
}
