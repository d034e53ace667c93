//! `POST /v1/models/{model}/bundle`: a model and what is known of some entities, as one file.

use std::collections::BTreeMap;

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{Response, header};
use headwater_features::{EntityRequest, entity_request};
use headwater_schema::Problem;
use schemars::{JsonSchema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::body::{read_body, read_json};
use crate::error::ApiError;
use crate::feature_read;
use crate::openapi::{Paths, json_content, replies};
use crate::server::Shared;

/// The media type of a bundle.
pub const BUNDLE: &str = "application/vnd.headwater.bundle";

/// A bundle to make.
#[derive(Debug, Clone)]
pub struct BundleRequest {
    pub model: String,
    /// An alias or a version; `live` by default.
    pub version: Option<String>,
    /// The model's feature set, to be checked.
    pub feature_set: Option<String>,
    /// A row may name some of the set's entities only.
    pub entities: Vec<EntityRequest>,
    /// All facts that are kept, not only those that the views' states hold one by one.
    pub all_history: bool,
}

/// What to take along.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BundleBody {
    /// One object per row: entity name → key, or key column → value. A row may name some of the set's entities only.
    pub entities: Vec<BTreeMap<String, Value>>,
    /// An alias or a version; `live` by default.
    #[serde(default)]
    pub version: Option<String>,
    /// The model's feature set, to be checked.
    #[serde(default)]
    pub feature_set: Option<String>,
    #[serde(default)]
    pub history: BundledHistory,
}

/// How old the facts may be that are taken along.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum BundledHistory {
    /// As old as the views' states hold them one by one.
    #[default]
    Recent,
    /// All that are kept.
    All,
}

/// Makes a bundle.
pub async fn post_bundle(
    State(shared): State<Shared>,
    Path(model): Path<String>,
    body: Body,
) -> Result<Response<Body>, ApiError> {
    let body = read_body(body, shared.limits.body_bytes_max).await?;
    let asked: BundleBody = read_json(&body)?;
    let count = asked.entities.len();
    shared.limits.check_entities("entities", count)?;
    let request = BundleRequest {
        model,
        version: asked.version,
        feature_set: asked.feature_set,
        entities: feature_read::entities(&asked.entities, entity_request)?,
        all_history: asked.history == BundledHistory::All,
    };
    let backend = shared.backend.clone();
    let made = tokio::task::spawn_blocking(move || backend.bundle(&request)).await;
    let bytes = made.map_err(|e| Problem::internal("bundle", "it panicked").detail(e))??;
    Response::builder()
        .header(header::CONTENT_TYPE, BUNDLE)
        .body(Body::from(bytes))
        .map_err(|e| ApiError(Problem::internal("reply", "a reply can't be made").detail(e)))
}

/// This call in the OpenAPI document.
pub fn paths(generator: &mut SchemaGenerator) -> Paths {
    let model =
        json!({"name": "model", "in": "path", "required": true, "schema": {"type": "string"}});
    let body = generator.subschema_for::<BundleBody>();
    let mut answers = replies("The bundle", json!({}));
    answers["200"]["content"] =
        json!({BUNDLE: {"schema": {"type": "string", "contentEncoding": "binary"}}});
    let call = json!({"post": {
        "summary": "Take a version of a model along, with what is known of some entities",
        "parameters": [model],
        "requestBody": {"required": true, "content": json_content(body)},
        "responses": answers
    }});
    vec![("/v1/models/{model}/bundle".to_owned(), call)]
}
