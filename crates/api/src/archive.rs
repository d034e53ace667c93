//! `/v1/archive`: what the archive holds, and a run of it.

use axum::body::Body;
use axum::extract::State;
use axum::http::Response;
use headwater_schema::Problem;
use serde_json::{Value, json};

use crate::backend::Backend;
use crate::error::ApiError;
use crate::features::json_reply;
use crate::openapi::{Paths, any_object, replies};
use crate::server::Shared;

/// What the archive holds.
pub async fn get_state(State(shared): State<Shared>) -> Result<Response<Body>, ApiError> {
    on_a_thread(shared, |backend| backend.archive()).await
}

/// Takes facts to the archive for a while.
pub async fn post_run(State(shared): State<Shared>) -> Result<Response<Body>, ApiError> {
    on_a_thread(shared, |backend| backend.run_archive()).await
}

/// The archive may be far away, so it has a thread of its own.
async fn on_a_thread(
    shared: Shared,
    act: impl FnOnce(&dyn Backend) -> Result<Value, Problem> + Send + 'static,
) -> Result<Response<Body>, ApiError> {
    let backend = shared.backend.clone();
    let acted = tokio::task::spawn_blocking(move || act(backend.as_ref())).await;
    let panicked = |e| ApiError(Problem::internal("archive", "archiving panicked").detail(e));
    json_reply(&acted.map_err(panicked)??)
}

/// These calls in the OpenAPI document.
pub fn paths() -> Paths {
    let call = |summary: &str| json!({"summary": summary, "responses": replies("The archive", any_object())});
    vec![(
        "/v1/archive".to_owned(),
        json!({
            "get": call("What the archive holds"),
            "post": call("Take facts to the archive now"),
        }),
    )]
}
