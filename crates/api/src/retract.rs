//! `POST /v1/facts/{contract}/retract`.

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::Response;
use headwater_features::key_value;
use headwater_schema::decode::join_id_parts;
use headwater_schema::{Problem, value_to_text};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::backend::RetractReply;
use crate::body::read_body;
use crate::error::{ApiError, malformed};
use crate::features::json_reply;
use crate::server::Shared;

/// Facts to take back: `[{"fact_id": …}]` or `{"fact_ids": […]}`. An id is text as facts are listed
/// with, an integer, or the list of its columns' values.
#[derive(Debug, JsonSchema)]
#[schemars(untagged)]
#[expect(dead_code, reason = "describes what `fact_ids` reads")]
pub enum RetractBody {
    Rows(Vec<RetractRow>),
    Ids(RetractIds),
}

/// One fact to take back.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RetractRow {
    fact_id: serde_json::Value,
}

/// Several facts to take back.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RetractIds {
    fact_ids: Vec<serde_json::Value>,
}

/// The reply to a retraction.
#[derive(Debug, Serialize, JsonSchema)]
pub struct RetractAnswer {
    retracted: usize,
    /// Ids that no live fact has.
    unknown: Vec<String>,
    /// A read at an earlier `known_at` still sees what was retracted.
    sequence: String,
}

/// Takes facts back.
pub async fn post_retract(
    State(shared): State<Shared>,
    Path(contract): Path<String>,
    body: Body,
) -> Result<Response<Body>, ApiError> {
    let body = read_body(body, shared.limits.body_bytes_max).await?;
    let ids = fact_ids(&body)?;
    let reply = retract(&shared, &contract, ids).await?;
    json_reply(&RetractAnswer {
        retracted: reply.retracted,
        unknown: reply.unknown,
        sequence: reply.sequence.to_string(),
    })
}

/// Takes facts back, within the limits of one request.
pub(crate) async fn retract(
    shared: &Shared,
    contract: &str,
    ids: Vec<String>,
) -> Result<RetractReply, ApiError> {
    if ids.len() > shared.limits.rows_max {
        return Err(ApiError(
            Problem::user("too-many-rows", "too many facts in one request")
                .detail(format!(
                    "{} of at most {}",
                    ids.len(),
                    shared.limits.rows_max
                ))
                .hint("retract them in parts, or raise `limits.rows_max`"),
        ));
    }
    let (answer, answered) = oneshot::channel();
    let done = Box::new(move |reply| drop(answer.send(reply)));
    shared.backend.retract(contract, ids, done);
    let reply = answered
        .await
        .map_err(|_| ApiError(Problem::internal("retract", "nobody answered")))?;
    Ok(reply?)
}

fn fact_ids(body: &[u8]) -> Result<Vec<String>, ApiError> {
    let array = body.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b'[');
    let ids: Vec<serde_json::Value> = if array {
        let rows: Vec<RetractRow> = serde_json::from_slice(body).map_err(malformed)?;
        rows.into_iter().map(|row| row.fact_id).collect()
    } else {
        let ids: RetractIds = serde_json::from_slice(body).map_err(malformed)?;
        ids.fact_ids
    };
    ids.iter().map(id_text).collect()
}

/// An id as facts are listed with it; the values of several columns are joined as the decoder does.
fn id_text(id: &serde_json::Value) -> Result<String, ApiError> {
    let part = |json: &serde_json::Value| {
        let value = key_value(json).filter(|value| !value.is_null());
        value.map(|value| value_to_text(&value)).ok_or_else(|| {
            malformed(format!(
                "the fact id {json} is neither text, an integer, a bool, nor a list of them"
            ))
        })
    };
    match id {
        serde_json::Value::Array(parts) => {
            let parts = parts.iter().map(part).collect::<Result<Vec<_>, _>>()?;
            Ok(join_id_parts(&parts))
        }
        id => part(id),
    }
}
