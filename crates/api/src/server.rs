//! The HTTP server: routes, limits, and an orderly end.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Response, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{Html, IntoResponse};
use axum::routing::{get, post};
use axum::serve::ListenerExt;
use headwater_schema::Problem;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tower_http::catch_panic::CatchPanicLayer;

use crate::backend::Backend;
use crate::error::ApiError;
use crate::facts::{get_facts, get_quarantine, post_facts};
use crate::features::{json_reply, read_features};
use crate::limits::Limits;
use crate::metrics::{HttpMetrics, render};
use crate::openapi::openapi;
use crate::retract::post_retract;

/// What every request can reach.
#[derive(Clone)]
pub struct Shared {
    pub backend: Arc<dyn Backend>,
    pub limits: Arc<Limits>,
    metrics: Arc<HttpMetrics>,
    in_flight: Arc<Semaphore>,
}

/// A server that listens already.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    router: Router,
}

impl Server {
    /// Listens on `address` (port 0: any free one).
    pub async fn bind(
        address: SocketAddr,
        backend: Arc<dyn Backend>,
        limits: Limits,
    ) -> Result<Self, Problem> {
        let refused = |error: std::io::Error| {
            Problem::external("listen", format!("{address} can't be listened on"))
                .detail(error)
                .hint("another process may use it; choose another with `--listen`")
        };
        let listener = TcpListener::bind(address).await.map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        Ok(Self {
            listener,
            address,
            router: router(backend, limits),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop` is ready; requests begun by then are answered.
    pub async fn run(self, stop: impl Future<Output = ()> + Send + 'static) -> Result<(), Problem> {
        let listener = self.listener.tap_io(|stream| {
            // Small replies must not wait for more.
            let _ = stream.set_nodelay(true);
        });
        axum::serve(listener, self.router)
            .with_graceful_shutdown(stop)
            .await
            .map_err(|e| Problem::external("serve", "the server failed").detail(e))
    }
}

fn router(backend: Arc<dyn Backend>, limits: Limits) -> Router {
    let shared = Shared {
        backend,
        in_flight: Arc::new(Semaphore::new(limits.requests_in_flight_max)),
        limits: Arc::new(limits),
        metrics: Arc::default(),
    };
    Router::new()
        .route("/v1/facts/{contract}", post(post_facts).get(get_facts))
        .route("/v1/facts/{contract}/retract", post(post_retract))
        .route("/v1/facts/{contract}/quarantine", get(get_quarantine))
        .route("/v1/features", post(read_features))
        .route("/v1/registry", get(registry))
        .route("/v1/registry/{kind}", get(registry_kind))
        .route("/metrics", get(metrics))
        .route("/health/live", get(live))
        .route("/health/ready", get(ready))
        .route("/openapi.json", get(openapi_document))
        .route("/", get(home))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn_with_state(shared.clone(), guard))
        .with_state(shared)
}

/// Bounds how many requests are worked on and for how long, counts them, and turns the framework's
/// own refusals into problem documents.
async fn guard(State(shared): State<Shared>, request: Request, next: Next) -> Response<Body> {
    let start = tokio::time::Instant::now();
    let (method, path) = (
        request.method().to_string(),
        request.uri().path().to_owned(),
    );
    let id = request.headers().get("x-request-id").cloned();
    let mut response = match shared.in_flight.try_acquire() {
        Err(_) => ApiError(
            Problem::external("busy", "too many requests at once")
                .hint("try again a little later; the limit is `limits.requests_in_flight_max`")
                .retryable(),
        )
        .into_response(),
        Ok(_permit) => {
            let limit = Duration::from_millis(shared.limits.request_ms_max);
            match tokio::time::timeout(limit, next.run(request)).await {
                Ok(response) => as_problem(response).await,
                Err(_) => timed_out(limit).into_response(),
            }
        }
    };
    if let Some(id) = id {
        response.headers_mut().insert("x-request-id", id);
    }
    shared
        .metrics
        .count(&method, &path, response.status().as_u16(), start.elapsed());
    response
}

fn timed_out(limit: Duration) -> ApiError {
    ApiError(
        Problem::external("timeout", "the request took too long")
            .detail(format!("more than {} ms", limit.as_millis()))
            .hint("ask for less at once, or raise `limits.request_ms_max`")
            .retryable(),
    )
}

/// The framework refuses parameters it can't read with plain text.
async fn as_problem(response: Response<Body>) -> Response<Body> {
    const TEXT_BYTES_MAX: usize = 4096;
    let plain = response
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|t| t.as_bytes().starts_with(b"text/plain"));
    if !response.status().is_client_error() || !plain {
        return response;
    }
    let text = axum::body::to_bytes(response.into_body(), TEXT_BYTES_MAX).await;
    let text = String::from_utf8_lossy(&text.unwrap_or_default()).into_owned();
    crate::error::malformed(text).into_response()
}

fn panicked(_: Box<dyn std::any::Any + Send>) -> Response<Body> {
    ApiError(Problem::internal("panic", "the request failed")).into_response()
}

async fn not_found(request: Request) -> ApiError {
    ApiError(
        Problem::user(
            "not-found",
            format!("there is nothing at {}", request.uri().path()),
        )
        .hint("/openapi.json lists every call"),
    )
}

async fn method_not_allowed(request: Request) -> ApiError {
    ApiError(
        Problem::user(
            "method-not-allowed",
            format!("{} isn't answered here", request.method()),
        )
        .hint("/openapi.json lists every call"),
    )
}

async fn registry(State(shared): State<Shared>) -> Result<Response<Body>, ApiError> {
    json_reply(&shared.backend.registry())
}

async fn registry_kind(
    State(shared): State<Shared>,
    axum::extract::Path(kind): axum::extract::Path<String>,
) -> Result<Response<Body>, ApiError> {
    match shared.backend.registry().get(&kind) {
        Some(part) => json_reply(part),
        None => Err(ApiError(
            Problem::user("not-found", format!("the registry has no `{kind}`"))
                .hint("it has contracts, entities, views and feature_sets"),
        )),
    }
}

async fn metrics(State(shared): State<Shared>) -> impl IntoResponse {
    let text = render(&shared.metrics, &shared.backend.measures());
    let media_type =
        HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
    ([(header::CONTENT_TYPE, media_type)], text)
}

async fn live() -> Result<Response<Body>, ApiError> {
    json_reply(&serde_json::json!({ "status": "live" }))
}

/// The engine recovers before the server listens, so a server that answers is ready.
async fn ready() -> Result<Response<Body>, ApiError> {
    json_reply(&serde_json::json!({ "status": "ready" }))
}

async fn openapi_document() -> Result<Response<Body>, ApiError> {
    json_reply(&openapi())
}

async fn home() -> (StatusCode, Html<&'static str>) {
    (StatusCode::OK, Html(include_str!("home.html")))
}
