//! `POST /v1/models/{model}/score`: rows in, the same rows with what a model says of each out, as an Arrow stream.

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, Response};
use headwater_schema::{Micros, Problem};
use serde::Deserialize;
use serde_json::json;

use crate::backend::TrainingKnownAt;
use crate::body::instant;
use crate::error::{ApiError, malformed};
use crate::openapi::{Paths, query};
use crate::server::Shared;
use crate::table_stream::made_of_rows;
use crate::training_sets::{rows_body, rows_known_at, table_replies};

/// Rows to score by a model.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ScoreRequest {
    pub model: String,
    /// An alias or a version; `live` by default.
    pub version: Option<String>,
    /// Whether rows bring the model's own inputs, by its names for them; else they name entities.
    pub vectors: bool,
    /// The column of the rows' moments. By default it is `as_of`, and where there is none all rows are read as of now.
    pub time: Option<String>,
    /// The moment of all rows.
    pub as_of: Option<Micros>,
    /// Whether facts at a row's moment itself count; by default where all rows have one moment.
    pub inclusive: Option<bool>,
    /// Everything, or what the rows' column `known_at` says, by default.
    pub known_at: Option<TrainingKnownAt>,
    /// Whether the features are written down too.
    pub with_features: bool,
}

impl ScoreRequest {
    /// Refuses what doesn't go together.
    pub fn check(&self) -> Result<(), Problem> {
        let together = |what: &str, with: &str| {
            Problem::user(
                "malformed-request",
                format!("`{what}` doesn't go with `{with}`"),
            )
            .field(what)
            .hint("leave one of them out")
        };
        if self.as_of.is_some() && self.time.is_some() {
            return Err(together("as_of", "time"));
        }
        let of_features = [
            ("time", self.time.is_some()),
            ("as_of", self.as_of.is_some()),
            ("inclusive", self.inclusive.is_some()),
            ("known_at", self.known_at.is_some()),
            ("with_features", self.with_features),
        ];
        match of_features.iter().find(|(_, given)| self.vectors && *given) {
            Some((name, _)) => Err(together(name, "vectors")),
            None => Ok(()),
        }
    }
}

/// Parameters of scores.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScoreParameters {
    #[serde(default)]
    version: Option<String>,
    #[serde(default)]
    vectors: bool,
    #[serde(default)]
    time: Option<String>,
    #[serde(default)]
    as_of: Option<String>,
    #[serde(default)]
    inclusive: Option<bool>,
    #[serde(default)]
    known_at: Option<String>,
    #[serde(default)]
    with_features: bool,
}

/// Scores rows.
pub async fn post_score(
    State(shared): State<Shared>,
    Path(model): Path<String>,
    parameters: Result<Query<ScoreParameters>, QueryRejection>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response<Body>, ApiError> {
    let Query(parameters) = parameters.map_err(|e| malformed(e.body_text()))?;
    let as_of = parameters.as_of.map(|at| instant("as_of", &json!(at)));
    let request = ScoreRequest {
        model,
        version: parameters.version,
        vectors: parameters.vectors,
        time: parameters.time,
        as_of: as_of.transpose()?,
        inclusive: parameters.inclusive,
        known_at: rows_known_at(parameters.known_at.as_deref())?,
        with_features: parameters.with_features,
    };
    request.check()?;
    made_of_rows(&shared, &headers, body, move |backend, rows, out| {
        backend.score(&request, rows.format, rows.pieces, rows.stop, out)
    })
    .await
}

/// This call in the OpenAPI document.
pub fn paths() -> Paths {
    let (text, flag) = (json!({"type": "string"}), json!({"type": "boolean"}));
    let model =
        json!({"name": "model", "in": "path", "required": true, "schema": {"type": "string"}});
    let call = json!({"post": {
        "summary": "Score rows by a model, each with its features as of its own time, or with its own inputs",
        "parameters": [
            model,
            query("version", text.clone(), "an alias or a version; `live` by default"),
            query("vectors", flag.clone(), "`true`: the rows' columns are the model's own inputs, by its names"),
            query("time", text.clone(), "the column of the rows' times; `as_of` by default, and without one all rows are read as of now"),
            query("as_of", text.clone(), "the time that all rows are read at, RFC 3339"),
            query("inclusive", flag.clone(), "whether facts at a row's time itself count; by default where all rows are read at one time"),
            query("known_at", text, "a `sequence`, RFC 3339, or `arrival`: what had arrived by each row's own time"),
            query("with_features", flag, "`true`: the features follow the rows' columns")],
        "requestBody": rows_body(),
        "responses": table_replies("The rows' columns, then features where they are asked for, then the model's outputs")
    }});
    vec![("/v1/models/{model}/score".to_owned(), call)]
}
