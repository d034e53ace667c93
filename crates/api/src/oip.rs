//! The Open Inference Protocol (v2): models asked with tensors, as Triton's and KServe's clients do.
//!
//! The routes lie here, the gRPC service in `grpc::inference`; both read tensors by `tensor` and answer by `answer`.
//! A model is one of `/v1/models`: the same versions, deadline, fallbacks and prediction facts.

pub(crate) mod answer;
pub(crate) mod body;
mod calls;
mod compression;
mod error;
pub(crate) mod model;
mod openapi;
pub(crate) mod tensor;

use axum::Router;
use axum::routing::{get, post};

use crate::server::Shared;

pub(crate) use body::{is_unserved, unserved_parameter};
pub(crate) use calls::model_given;
pub(crate) use error::in_its_words;
pub(crate) use openapi::paths;

/// What is spoken besides the protocol itself.
pub(crate) const EXTENSIONS: [&str; 4] = [
    "binary_tensor_data",
    "model_configuration",
    "model_repository",
    "statistics",
];
/// How the server calls itself.
pub(crate) const SERVER: &str = "headwater";

/// The routes below `/v2`.
pub(crate) fn routes() -> Router<Shared> {
    let version = "/v2/models/{model}/versions/{version}";
    Router::new()
        .route("/v2", get(calls::get_server))
        .route("/v2/health/live", get(calls::get_live))
        .route("/v2/health/ready", get(calls::get_ready))
        .route("/v2/models", get(calls::get_models))
        .route("/v2/models/stats", get(calls::get_all_stats))
        .route("/v2/models/{model}", get(calls::get_model))
        .route("/v2/models/{model}/ready", get(calls::get_model_ready))
        .route("/v2/models/{model}/config", get(calls::get_config))
        .route("/v2/models/{model}/stats", get(calls::get_stats))
        .route("/v2/models/{model}/infer", post(calls::post_infer))
        .route(version, get(calls::get_model))
        .route(&format!("{version}/ready"), get(calls::get_model_ready))
        .route(&format!("{version}/config"), get(calls::get_config))
        .route(&format!("{version}/stats"), get(calls::get_stats))
        .route(&format!("{version}/infer"), post(calls::post_infer))
        .route("/v2/repository/index", post(calls::post_index))
        .route("/v2/repository/models/{model}/load", post(calls::post_load))
        .route(
            "/v2/repository/models/{model}/unload",
            post(calls::post_unload),
        )
}
