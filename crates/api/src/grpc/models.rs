//! `headwater.v1.Models`: predictions, and what became of them.

use std::sync::Arc;

use headwater_schema::{Micros, Value};
use serde_json::{Value as Json, json};
use tonic::{Request, Response, Status};

use super::error::refuse;
use super::facts::appended;
use super::features::{context, entity, key};
use super::proto::headwater::models_server::Models;
use super::proto::headwater::value::Kind;
use super::proto::headwater::{self as proto, AppendReply, OutcomesRequest, PredictReply};
use super::values::to_input;
use crate::backend::{self, Candidates, InputRows, PredictRequest};
use crate::error::ApiError;
use crate::feature_read;
use crate::limits::Limits;
use crate::outcomes::{OutcomeBody, take};
use crate::predict::{ask, no_rows, no_vector, request_id, shared_out, vectors_alone};
use crate::server::Shared;

/// Asks models.
pub struct Service(pub Shared);

#[tonic::async_trait]
impl Models for Service {
    async fn predict(
        &self,
        request: Request<proto::PredictRequest>,
    ) -> Result<Response<PredictReply>, Status> {
        let Self(shared) = self;
        let request_id = request_id(request.metadata().as_ref());
        let asked = question(request.into_inner(), &shared.limits).map_err(refuse)?;
        let asked = PredictRequest {
            request_id,
            ..asked
        };
        let reply = ask(shared, asked).await.map_err(refuse)?;
        Ok(Response::new(told(&reply)))
    }

    async fn outcomes(
        &self,
        request: Request<OutcomesRequest>,
    ) -> Result<Response<AppendReply>, Status> {
        let outcomes = request.into_inner().outcomes.into_iter().map(outcome);
        let outcomes: Vec<OutcomeBody> = outcomes.collect();
        let taken = take(&self.0, &outcomes).await;
        taken.map(appended).map(Response::new).map_err(refuse)
    }
}

/// What a message asks, without the id that it is known by.
pub(super) fn question(
    request: proto::PredictRequest,
    limits: &Limits,
) -> Result<PredictRequest, ApiError> {
    let check = |what, count| limits.check_entities(what, count);
    check("entities", request.entities.len())?;
    check("context", request.context.len())?;
    check("vectors", request.vectors.len())?;
    let rows = match (request.entities.is_empty(), request.vectors.is_empty()) {
        (false, true) => InputRows::Entities {
            entities: feature_read::entities(&request.entities, entity)?,
            context: context(&request.context)?,
            candidates: match request.candidates {
                Some(given) => {
                    check("candidates", given.ids.len())?;
                    Some(candidates(given)?)
                }
                None => None,
            },
        },
        (true, false) => {
            if !request.context.is_empty() || request.candidates.is_some() {
                return Err(vectors_alone());
            }
            let vectors = request.vectors.iter().enumerate();
            let vectors = vectors.map(|(index, given)| vector(index, given));
            InputRows::Vectors(vectors.collect::<Result<_, _>>()?)
        }
        _ => return Err(no_rows()),
    };
    Ok(PredictRequest {
        model: request.model,
        rows,
        version: Some(request.version).filter(|v| !v.is_empty()),
        deadline: request.deadline_ms.map(|ms| Micros::from(ms) * 1000),
        explain: request.explain,
        ..PredictRequest::default()
    })
}

fn candidates(given: proto::Candidates) -> Result<Candidates, ApiError> {
    let ids = given.ids.iter().enumerate();
    let ids = ids.map(|(index, id)| key(|| format!("candidates.ids[{index}]"), id));
    Ok(Candidates {
        ids: ids.collect::<Result<_, _>>()?,
        entity: given.entity,
    })
}

fn vector(index: usize, given: &proto::List) -> Result<Vec<Value>, ApiError> {
    let values: Option<Vec<Value>> = given.items.iter().map(to_input).collect();
    values.ok_or_else(|| no_vector(index))
}

/// An outcome as HTTP brings it, which says what is wrong with a value that is none.
fn outcome(told: proto::Outcome) -> OutcomeBody {
    let value = match told.value.and_then(|value| value.kind) {
        Some(Kind::BoolValue(yes)) => json!(yes),
        Some(Kind::IntValue(number)) => json!(number),
        Some(Kind::FloatValue(number)) => json!(number),
        Some(Kind::StringValue(text)) => json!(text),
        None => Json::Null,
        Some(_) => json!([]),
    };
    OutcomeBody {
        prediction_id: told.prediction_id,
        value,
        event_time: json!(told.event_time),
    }
}

fn told(reply: &backend::PredictReply) -> PredictReply {
    let explained = reply.explanations.iter().map(|row| {
        let scores = row.scores.iter().map(|(inputs, base)| proto::ScoreParts {
            inputs: inputs.iter().map(|(n, v)| (n.to_string(), *v)).collect(),
            base: *base,
        });
        proto::Explanation {
            scores: scores.collect(),
        }
    });
    let answered_by = shared_out(reply).iter().map(|by| proto::AnsweredBy {
        alias: by.alias.to_string(),
        version: by.version.to_string(),
    });
    let degraded = reply.degraded.as_ref().map(|degraded| proto::Degraded {
        code: degraded.reason.clone(),
        detail: degraded.detail.clone(),
        fallback: degraded.fallback.to_owned(),
    });
    PredictReply {
        prediction_ids: reply.prediction_ids.clone(),
        model: reply.model.to_string(),
        version: reply.version.as_deref().unwrap_or_default().to_owned(),
        outputs: reply.outputs.iter().map(|row| output_row(row)).collect(),
        explanations: explained.collect(),
        degraded,
        answered_by: answered_by.collect(),
        warnings: reply.warnings.clone(),
        as_of: reply.cursor.map(|(as_of, _)| as_of),
        sequence: reply
            .cursor
            .map(|(_, sequence)| sequence.to_string())
            .unwrap_or_default(),
    }
}

fn output_row(row: &[(Arc<str>, Vec<f64>)]) -> proto::OutputRow {
    let outputs = row.iter().map(|(name, numbers)| {
        let numbers = numbers.clone();
        (name.to_string(), proto::Numbers { numbers })
    });
    proto::OutputRow {
        outputs: outputs.collect(),
    }
}
