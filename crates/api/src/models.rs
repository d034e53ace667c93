//! `/v1/models`: versions added, listed, promoted and rolled back.

use std::collections::BTreeMap;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::Response;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use headwater_schema::Problem;
use schemars::{JsonSchema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::backend::{Backend, NewVersion};
use crate::body::{read_body, read_json};
use crate::error::ApiError;
use crate::features::json_reply;
use crate::openapi::{Paths, any_object, json_content, replies};
use crate::server::Shared;

/// A version to add.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewVersionBody {
    /// The model file, in base64.
    pub file: String,
    /// Its name; the beginning of the file's SHA-256 by default.
    #[serde(default)]
    pub version: Option<String>,
    /// Who wrote the file, as in `lightgbm`; told by the file by default.
    #[serde(default)]
    pub format: Option<String>,
    /// Aliases that are to point at it at once.
    #[serde(default)]
    pub aliases: Vec<String>,
    #[serde(default)]
    pub owner: Option<String>,
    #[serde(default)]
    pub description: Option<String>,
    /// Figures of its training.
    #[serde(default)]
    pub metrics: BTreeMap<String, f64>,
    /// The manifest of its training set.
    #[serde(default)]
    pub training_set: Option<Value>,
}

/// Where an alias is to point.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PromoteBody {
    /// A version, or another alias.
    pub version: String,
    /// `live` by default.
    #[serde(default = "live")]
    pub alias: String,
}

/// Which alias is to point where it pointed before.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RollbackBody {
    /// `live` by default.
    #[serde(default = "live")]
    pub alias: String,
}

fn live() -> String {
    "live".to_owned()
}

/// All models.
pub async fn get_models(State(shared): State<Shared>) -> Result<Response<Body>, ApiError> {
    json_reply(&shared.backend.models(None)?)
}

/// One model.
pub async fn get_model(
    State(shared): State<Shared>,
    Path(model): Path<String>,
) -> Result<Response<Body>, ApiError> {
    json_reply(&shared.backend.models(Some(&model))?)
}

/// Adds a version.
pub async fn post_version(
    State(shared): State<Shared>,
    Path(model): Path<String>,
    body: Body,
) -> Result<Response<Body>, ApiError> {
    let body = read_body(body, shared.limits.body_bytes_max).await?;
    let given: NewVersionBody = read_json(&body)?;
    let file = STANDARD.decode(&given.file).map_err(|e| {
        Problem::user("malformed-request", "the model file isn't base64")
            .field("file")
            .detail(e)
    })?;
    let version = NewVersion {
        version: given.version,
        format: given.format,
        aliases: given.aliases,
        owner: given.owner,
        description: given.description,
        metrics: given.metrics,
        training_set: given.training_set,
    };
    with_backend(shared, move |b| b.add_model(&model, file, &version)).await
}

/// Lets an alias point at a version.
pub async fn post_promote(
    State(shared): State<Shared>,
    Path(model): Path<String>,
    body: Body,
) -> Result<Response<Body>, ApiError> {
    let body = read_body(body, shared.limits.body_bytes_max).await?;
    let given: PromoteBody = read_json(&body)?;
    with_backend(shared, move |b| {
        b.promote(&model, &given.alias, &given.version)
    })
    .await
}

/// Lets an alias point where it pointed before.
pub async fn post_rollback(
    State(shared): State<Shared>,
    Path(model): Path<String>,
    body: Body,
) -> Result<Response<Body>, ApiError> {
    let body = read_body(body, shared.limits.body_bytes_max).await?;
    let given: RollbackBody = read_json(&body)?;
    with_backend(shared, move |b| b.rollback(&model, &given.alias)).await
}

/// Loading a model takes a while, so it has a thread of its own.
async fn with_backend(
    shared: Shared,
    act: impl FnOnce(&dyn Backend) -> Result<Value, Problem> + Send + 'static,
) -> Result<Response<Body>, ApiError> {
    let backend = shared.backend.clone();
    let acted = tokio::task::spawn_blocking(move || act(backend.as_ref())).await;
    let reply = acted.map_err(|e| Problem::internal("models", "it panicked").detail(e))??;
    json_reply(&reply)
}

/// These calls in the OpenAPI document.
pub fn paths(generator: &mut SchemaGenerator) -> Paths {
    let model =
        json!({"name": "model", "in": "path", "required": true, "schema": {"type": "string"}});
    let post = |path: &str, summary: &str, body: Value| {
        let call = json!({
            "summary": summary, "parameters": [model],
            "requestBody": {"required": true, "content": json_content(body)},
            "responses": replies("The model", any_object())
        });
        (path.to_owned(), json!({ "post": call }))
    };
    let get = |path: &str, summary: &str, parameters: Value| {
        let call = json!({"summary": summary, "parameters": parameters, "responses": replies("OK", any_object())});
        (path.to_owned(), json!({ "get": call }))
    };
    let version = generator.subschema_for::<NewVersionBody>().into();
    let promote = generator.subschema_for::<PromoteBody>().into();
    let rollback = generator.subschema_for::<RollbackBody>().into();
    vec![
        get(
            "/v1/models",
            "All models, with their versions and aliases",
            json!([]),
        ),
        get(
            "/v1/models/{model}",
            "A model, with its versions and aliases",
            json!([model]),
        ),
        post(
            "/v1/models/{model}/versions",
            "Add a version of a model",
            version,
        ),
        post(
            "/v1/models/{model}/promote",
            "Let an alias point at a version",
            promote,
        ),
        post(
            "/v1/models/{model}/rollback",
            "Let an alias point where it pointed before",
            rollback,
        ),
    ]
}
