//! The calls over HTTP.

use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use headwater_schema::Problem;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value as Json, json};

use super::answer::{outputs, parameters};
use super::body::{HEADER_LENGTH, InferAnswer, Inference, header_length, read};
use super::compression::Coding;
use super::{EXTENSIONS, SERVER, model, tensor};
use crate::backend::PredictRequest;
use crate::body::{read_body, read_json};
use crate::error::{ApiError, malformed};
use crate::features::json_reply;
use crate::predict::{ask, request_id};
use crate::server::Shared;

/// The model that a path names.
#[derive(Debug, Deserialize)]
pub(crate) struct Target {
    model: String,
    /// A version or an alias; `live`, or as the model's traffic is shared out, where none is named.
    #[serde(default)]
    version: Option<String>,
}

type Reply = Result<Response<Body>, ApiError>;

pub(crate) async fn get_server() -> Reply {
    json_reply(
        &json!({"name": SERVER, "version": env!("CARGO_PKG_VERSION"), "extensions": EXTENSIONS}),
    )
}

pub(crate) async fn get_live() -> Reply {
    json_reply(&json!({ "live": true }))
}

/// Ready until it stops; what models are loaded is told model by model.
pub(crate) async fn get_ready(State(shared): State<Shared>) -> Reply {
    let ready = !*shared.stopping.borrow();
    with_status(ready, &json!({ "ready": ready }))
}

fn with_status(ready: bool, answer: &Json) -> Reply {
    let mut reply = json_reply(answer)?;
    if !ready {
        *reply.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    Ok(reply)
}

pub(crate) async fn get_models(State(shared): State<Shared>) -> Reply {
    let mut names: Vec<String> = model::index(&shared, false)
        .into_iter()
        .map(|entry| entry.name)
        .collect();
    names.dedup();
    json_reply(&json!({ "models": names }))
}

pub(crate) async fn get_model(State(shared): State<Shared>, Path(of): Path<Target>) -> Reply {
    let signature = shared.backend.signature(&of.model, of.version.as_deref())?;
    json_reply(&model::metadata(&signature))
}

pub(crate) async fn get_config(State(shared): State<Shared>, Path(of): Path<Target>) -> Reply {
    let signature = shared.backend.signature(&of.model, of.version.as_deref())?;
    json_reply(&model::config(&signature, shared.limits.entities_max))
}

pub(crate) async fn get_model_ready(State(shared): State<Shared>, Path(of): Path<Target>) -> Reply {
    let ready = model::is_ready(&shared, &of.model, of.version.as_deref())?;
    with_status(ready, &json!({"name": of.model, "ready": ready}))
}

pub(crate) async fn get_stats(State(shared): State<Shared>, Path(of): Path<Target>) -> Reply {
    let stats = model::stats(&shared, Some(&of.model), of.version.as_deref())?;
    json_reply(&json!({ "model_stats": stats }))
}

pub(crate) async fn get_all_stats(State(shared): State<Shared>) -> Reply {
    json_reply(&json!({ "model_stats": model::stats(&shared, None, None)? }))
}

/// What the repository's index may be asked.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct IndexBody {
    /// Only what can be asked.
    #[serde(default)]
    ready: bool,
}

pub(crate) async fn post_index(State(shared): State<Shared>, body: Body) -> Reply {
    let body = read_body(body, shared.limits.body_bytes_max).await?;
    let asked = match body.trim_ascii() {
        [] => IndexBody::default(),
        given => read_json(given)?,
    };
    json_reply(&model::index(&shared, asked.ready))
}

/// What a load or an unload may say.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LoadBody {
    /// `unload_dependents` is heard and means nothing here.
    #[serde(default)]
    parameters: Option<Map<String, Json>>,
}

async fn read_load(shared: &Shared, body: Body) -> Result<(), ApiError> {
    let body = read_body(body, shared.limits.body_bytes_max).await?;
    let given = match body.trim_ascii() {
        [] => LoadBody::default(),
        given => read_json(given)?,
    };
    let parameters = given.parameters.unwrap_or_default();
    match parameters.keys().find(|name| *name != "unload_dependents") {
        Some(name) => Err(model_given(name).into()),
        None => Ok(()),
    }
}

/// A model's file or settings within a call to load it.
pub(crate) fn model_given(parameter: &str) -> Problem {
    Problem::user(
        "unsupported-parameter",
        format!("the parameter `{parameter}` isn't served here"),
    )
    .field("parameters")
    .hint("add versions with `headwater models add`, or POST /v1/models/{model}/versions")
}

pub(crate) async fn post_load(
    State(shared): State<Shared>,
    Path(of): Path<Target>,
    body: Body,
) -> Reply {
    read_load(&shared, body).await?;
    blocking(&shared, move |shared| shared.backend.load_model(&of.model)).await
}

pub(crate) async fn post_unload(
    State(shared): State<Shared>,
    Path(of): Path<Target>,
    body: Body,
) -> Reply {
    read_load(&shared, body).await?;
    blocking(&shared, move |shared| {
        shared.backend.unload_model(&of.model)
    })
    .await
}

async fn blocking(
    shared: &Shared,
    work: impl FnOnce(&Shared) -> Result<(), Problem> + Send + 'static,
) -> Reply {
    let shared = shared.clone();
    let done = tokio::task::spawn_blocking(move || work(&shared)).await;
    done.map_err(|e| Problem::internal("panic", "a call failed").detail(e))??;
    json_reply(&json!({}))
}

pub(crate) async fn post_infer(
    State(shared): State<Shared>,
    Path(of): Path<Target>,
    headers: HeaderMap,
    body: Body,
) -> Reply {
    let limits = &shared.limits;
    let body = read_body(body, limits.body_bytes_max).await?;
    let body = match Coding::of_request(&headers)? {
        None => body,
        Some(coding) => unpack(coding, body, limits.body_bytes_max).await?,
    };
    let mut inference = match header_length(&headers)? {
        Some(0) => {
            let signature = shared.backend.signature(&of.model, of.version.as_deref())?;
            Inference::of_raw(&body, signature.inputs.len(), limits)?
        }
        length => read(&body, length, limits)?,
    };
    if inference.model.as_ref().is_some_and(|m| *m != of.model) {
        return Err(malformed(
            "`model_name` isn't the model that the path names",
        ));
    }
    let tensors = std::mem::take(&mut inference.tensors);
    let asked = PredictRequest {
        model: of.model,
        version: of.version.or(inference.version.take()),
        rows: tensor::rows(tensors, limits.entities_max)?,
        deadline: inference.deadline,
        request_id: request_id(&headers),
        ..PredictRequest::default()
    };
    let reply = ask(&shared, asked).await?;
    let (answers, raw) = inference.write(&outputs(&reply, &inference.asked())?);
    let answer = InferAnswer {
        model_name: reply.model.to_string(),
        model_version: reply.version.as_ref().map(|v| v.to_string()),
        id: inference.id.clone(),
        parameters: parameters(&reply).into_iter().collect(),
        outputs: answers,
    };
    respond(&headers, &answer, raw)
}

async fn unpack(coding: Coding, body: Bytes, bytes_max: usize) -> Result<Bytes, ApiError> {
    let unpacked = tokio::task::spawn_blocking(move || coding.unpack(&body, bytes_max)).await;
    unpacked.map_err(|e| Problem::internal("panic", "a body can't be unpacked").detail(e))?
}

/// JSON, with raw tensors behind it where there are some, compressed where the caller takes that.
fn respond(headers: &HeaderMap, answer: &InferAnswer, raw: Vec<u8>) -> Reply {
    let mut body = serde_json::to_vec(answer)
        .map_err(|e| Problem::internal("reply", "a reply can't be written").detail(e))?;
    let mut reply = Response::new(Body::empty());
    let own = reply.headers_mut();
    let media_type = match raw.is_empty() {
        true => "application/json",
        false => {
            own.insert(HEADER_LENGTH, HeaderValue::from(body.len()));
            body.extend(raw);
            "application/octet-stream"
        }
    };
    own.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    if let Some(coding) = Coding::of_answer(headers, body.len()) {
        body = coding.pack(&body)?;
        let name = HeaderValue::from_static(coding.name());
        reply.headers_mut().insert(header::CONTENT_ENCODING, name);
    }
    *reply.body_mut() = Body::from(body);
    Ok(reply)
}
