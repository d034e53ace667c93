//! `/v1/facts/{contract}/quarantine`: listing rows that broke their contract, and trying them again.

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::Response;
use headwater_schema::Problem;
use headwater_schema::time::format_timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::backend::Mending;
use crate::body::{read_body, read_json};
use crate::error::{ApiError, malformed};
use crate::facts::limit;
use crate::features::json_reply;
use crate::server::Shared;

/// Parameters of a listing.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuarantineParameters {
    #[serde(default)]
    limit: Option<usize>,
    #[serde(default)]
    resolved: bool,
}

/// Lists rows that broke their contract, newest first.
pub async fn get_quarantine(
    State(shared): State<Shared>,
    Path(contract): Path<String>,
    Query(parameters): Query<QuarantineParameters>,
) -> Result<Response<Body>, ApiError> {
    let limit = limit(parameters.limit, shared.limits.listed_max)?;
    let backend = shared.backend.clone();
    let listed = move || backend.quarantine(&contract, parameters.resolved, limit);
    let rows = tokio::task::spawn_blocking(listed)
        .await
        .map_err(|e| ApiError(Problem::internal("quarantine", "listing panicked").detail(e)))??;
    let rows: Vec<serde_json::Value> = rows
        .into_iter()
        .map(|row| {
            serde_json::json!({
                "id": row.id.to_string(),
                "ingest_time": format_timestamp(row.ingest_time),
                "row": row.row,
                "field": row.field,
                "rule": row.rule,
                "reason": row.reason,
                "raw": row.raw,
                "resolved": row.resolved.map(format_timestamp),
            })
        })
        .collect();
    json_reply(&serde_json::json!({ "rows": rows }))
}

/// Parameters of trying rows again.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MendParameters {
    #[serde(default)]
    revise: bool,
}

/// The rows to try again as they came; without `ids` all that wait.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReplayBody {
    #[serde(default)]
    ids: Option<Vec<String>>,
}

/// A mended row.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RepairedRow {
    /// The `id` that the row is listed with.
    id: String,
    /// The whole row, as it should have come.
    #[schemars(with = "std::collections::BTreeMap<String, serde_json::Value>")]
    row: Box<RawValue>,
}

/// What became of rows that were tried again.
#[derive(Debug, Serialize, JsonSchema)]
pub struct MendAnswer {
    accepted: usize,
    /// Rows whose facts were known already; they count as resolved.
    duplicates: usize,
    /// Rows that still wait.
    waiting: usize,
    /// Why, of the first of them.
    rejected: Vec<StillRejectedAnswer>,
    sequence: String,
}

/// A row that still waits.
#[derive(Debug, Serialize, JsonSchema)]
pub struct StillRejectedAnswer {
    id: String,
    field: Option<String>,
    reason: String,
}

/// Tries rows again as they came.
pub async fn post_replay(
    State(shared): State<Shared>,
    Path(contract): Path<String>,
    Query(parameters): Query<MendParameters>,
    body: Body,
) -> Result<Response<Body>, ApiError> {
    let body = read_body(body, shared.limits.body_bytes_max).await?;
    let asked: ReplayBody = match body.iter().all(u8::is_ascii_whitespace) {
        true => ReplayBody::default(),
        false => read_json(&body)?,
    };
    let mending = match asked.ids {
        None => Mending::All,
        Some(ids) => {
            let ids = ids.iter().map(|id| row_id(id)).collect::<Result<_, _>>()?;
            Mending::Rows(ids)
        }
    };
    mend(shared, contract, mending, parameters.revise).await
}

/// Takes mended rows in the place of those in quarantine.
pub async fn post_repair(
    State(shared): State<Shared>,
    Path(contract): Path<String>,
    Query(parameters): Query<MendParameters>,
    body: Body,
) -> Result<Response<Body>, ApiError> {
    let body = read_body(body, shared.limits.body_bytes_max).await?;
    let rows: Vec<RepairedRow> = read_json(&body)?;
    let rows = rows.into_iter();
    let rows = rows.map(|row| Ok((row_id(&row.id)?, row.row.get().to_owned())));
    let rows = rows.collect::<Result<Vec<_>, ApiError>>()?;
    mend(shared, contract, Mending::Repaired(rows), parameters.revise).await
}

fn row_id(text: &str) -> Result<u64, ApiError> {
    text.parse()
        .map_err(|_| malformed(format!("`{text}` is no id of a row in quarantine")))
}

async fn mend(
    shared: Shared,
    contract: String,
    mending: Mending,
    revise: bool,
) -> Result<Response<Body>, ApiError> {
    let asked = match &mending {
        Mending::All => 0,
        Mending::Rows(rows) => rows.len(),
        Mending::Repaired(rows) => rows.len(),
    };
    if asked > shared.limits.rows_max {
        return Err(ApiError(
            Problem::user("too-many-rows", "too many rows in one request")
                .detail(format!("{asked} of at most {}", shared.limits.rows_max))
                .hint("send them in parts, or raise `limits.rows_max`"),
        ));
    }
    let backend = shared.backend.clone();
    let mended = move || backend.mend(&contract, mending, revise);
    let reply = tokio::task::spawn_blocking(mended)
        .await
        .map_err(|e| ApiError(Problem::internal("quarantine", "mending panicked").detail(e)))??;
    let rejected = reply.rejected.into_iter().map(|r| StillRejectedAnswer {
        id: r.id.to_string(),
        field: r.field,
        reason: r.reason,
    });
    json_reply(&MendAnswer {
        accepted: reply.accepted,
        duplicates: reply.duplicates,
        waiting: reply.waiting,
        rejected: rejected.collect(),
        sequence: reply.sequence.to_string(),
    })
}
