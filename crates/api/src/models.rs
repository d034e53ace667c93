//! `/v1/models`: versions added, listed, promoted, rolled back and removed.

use std::collections::BTreeMap;

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, Response, header};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::StreamExt;
use headwater_schema::Problem;
use schemars::{JsonSchema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::backend::{Backend, NewVersion};
use crate::body::{read_body, read_json, unreadable};
use crate::error::{ApiError, malformed};
use crate::features::json_reply;
use crate::limits::Limits;
use crate::openapi::{Paths, any_object, json_content, query, replies};
use crate::server::Shared;

/// What a file is sent as that isn't within JSON.
const FILE: &str = "application/octet-stream";

/// A version to add.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewVersionBody {
    /// The model file, in base64; left out where it follows as it is.
    #[serde(default)]
    pub file: Option<String>,
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

/// Parameters of a version that is added.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VersionParameters {
    /// Bytes of JSON in front of a file that is sent as it is.
    details_bytes: Option<usize>,
}

/// Adds a version.
pub async fn post_version(
    State(shared): State<Shared>,
    Path(model): Path<String>,
    parameters: Result<Query<VersionParameters>, QueryRejection>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response<Body>, ApiError> {
    let Query(VersionParameters { details_bytes }) =
        parameters.map_err(|e| malformed(e.body_text()))?;
    // A file is held whole, so they come one after another.
    let adding = shared.adding.clone().acquire_owned().await;
    let _adding = adding.map_err(|e| Problem::internal("models", "no place to add").detail(e))?;
    let (given, file) = match sends_file(&headers) {
        true => read_file(body, details_bytes.unwrap_or(0), &shared.limits).await?,
        false if details_bytes.is_some() => {
            let problem = Problem::user("malformed-request", "no file follows JSON");
            let problem = problem.field("details_bytes");
            return Err(ApiError(
                problem.hint("leave it out, or send application/octet-stream"),
            ));
        }
        false => read_encoded(body, &shared.limits).await?,
    };
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

fn sends_file(headers: &HeaderMap) -> bool {
    let given = headers.get(header::CONTENT_TYPE);
    let given = given
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let essence = given.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case(FILE)
}

/// A file within JSON.
async fn read_encoded(body: Body, limits: &Limits) -> Result<(NewVersionBody, Vec<u8>), ApiError> {
    let body = read_body(body, limits.body_bytes_max).await;
    let body = body.map_err(|ApiError(problem)| match problem.code {
        "body-too-large" => ApiError(problem.hint(
            "send the file as it is, as application/octet-stream, or raise `limits.body_bytes_max`",
        )),
        _ => ApiError(problem),
    })?;
    let mut given: NewVersionBody = read_json(&body)?;
    let encoded = given.file.take().ok_or_else(|| {
        Problem::user("malformed-request", "there is no model file")
            .field("file")
            .hint("give it in base64, or send it as it is, as application/octet-stream")
    })?;
    let file = STANDARD.decode(&encoded).map_err(|e| {
        Problem::user("malformed-request", "the model file isn't base64")
            .field("file")
            .detail(e)
    })?;
    Ok((given, file))
}

/// A file as it is, behind so many bytes of JSON.
async fn read_file(
    body: Body,
    details_bytes: usize,
    limits: &Limits,
) -> Result<(NewVersionBody, Vec<u8>), ApiError> {
    let too_large = |what: &str, max: usize, setting: &str| {
        Problem::user("body-too-large", format!("{what} is too large"))
            .detail(format!("more than {max} bytes"))
            .hint(format!("send less there, or raise `{setting}`"))
    };
    let (max, setting) = (limits.body_bytes_max, "limits.body_bytes_max");
    if details_bytes > max {
        return Err(ApiError(too_large(
            "what is told of the file",
            max,
            setting,
        )));
    }
    let (max, setting) = (limits.model_bytes_max, "limits.model_bytes_max");
    let (mut details, mut file) = (Vec::<u8>::new(), Vec::<u8>::new());
    let mut chunks = body.into_data_stream();
    while let Some(chunk) = chunks.next().await {
        let mut chunk = chunk.map_err(|e| unreadable(&e))?;
        let missing = (details_bytes - details.len()).min(chunk.len());
        details.extend_from_slice(&chunk.split_to(missing));
        file.extend_from_slice(&chunk);
        if file.len() > max {
            return Err(ApiError(too_large("the model file", max, setting)));
        }
    }
    if details.len() < details_bytes {
        let problem = Problem::user("malformed-request", "the body is shorter than is said");
        let seen = format!("it has {} bytes", details.len());
        return Err(ApiError(problem.field("details_bytes").detail(seen)));
    }
    let given: NewVersionBody = match details_bytes {
        0 => NewVersionBody::default(),
        _ => read_json(&details)?,
    };
    if given.file.is_some() {
        let problem = Problem::user("malformed-request", "the file is there twice");
        return Err(ApiError(
            problem.field("file").hint("leave it out of the JSON"),
        ));
    }
    Ok((given, file))
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

/// Lets go of a version.
pub async fn delete_version(
    State(shared): State<Shared>,
    Path((model, version)): Path<(String, String)>,
) -> Result<Response<Body>, ApiError> {
    with_backend(shared, move |b| b.remove_version(&model, &version)).await
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
    let version_parameter =
        json!({"name": "version", "in": "path", "required": true, "schema": {"type": "string"}});
    let remove = json!({"delete": {
        "summary": "Let go of a version that no alias points at, and of its file unless another version has the same",
        "parameters": [model, version_parameter],
        "responses": replies("The model", any_object())
    }});
    let version = generator.subschema_for::<NewVersionBody>();
    let mut content = json_content(json!({"allOf": [version, {"required": ["file"]}]}));
    content[FILE] = json!({"schema": {"type": "string", "contentEncoding": "binary"}});
    let details = query(
        "details_bytes",
        json!({"type": "integer", "minimum": 0}),
        "of application/octet-stream: so many bytes in front of the file are the JSON, without `file`",
    );
    let add = json!({"post": {
        "summary": "Add a version of a model: its file within JSON, or as it is",
        "parameters": [model, details],
        "requestBody": {"required": true, "content": content},
        "responses": replies("The model", any_object())
    }});
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
        ("/v1/models/{model}/versions".to_owned(), add),
        ("/v1/models/{model}/versions/{version}".to_owned(), remove),
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
