//! The HTTP server: routes, limits, and an orderly end.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Response, StatusCode, header};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::{Html, IntoResponse};
use axum::routing::{delete, get, post};
use headwater_schema::Problem;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tower_http::catch_panic::CatchPanicLayer;

use crate::archive;
use crate::audit::get_audit;
use crate::auth::{Authorizer, method_not_allowed, not_found};
use crate::backend::Backend;
use crate::bundle::post_bundle;
use crate::connection::{Connections, Counters};
use crate::error::ApiError;
use crate::facts::{get_facts, post_facts};
use crate::features::{json_reply, read_features};
use crate::feed_lines::post_feed;
use crate::guard::guard;
use crate::limits::Limits;
use crate::metrics::{HttpMetrics, render};
use crate::models;
use crate::openapi::openapi;
use crate::outcomes::post_outcomes;
use crate::predict::post_predict;
use crate::predictions::get_predictions;
use crate::quarantine::{get_quarantine, post_repair, post_replay};
use crate::query::post_query;
use crate::registry;
use crate::retract::post_retract;
use crate::score::post_score;
use crate::tls::Tls;
use crate::trace::RequestIds;
use crate::training_sets::post_training_set;

/// What every request can reach.
#[derive(Clone)]
pub struct Shared {
    pub backend: Arc<dyn Backend>,
    pub limits: Arc<Limits>,
    pub(crate) auth: Arc<Authorizer>,
    pub(crate) metrics: Arc<HttpMetrics>,
    pub(crate) in_flight: Arc<Semaphore>,
    pub(crate) ids: Arc<RequestIds>,
    connections: Arc<Counters>,
    /// Room for feeds, which stay open for long.
    pub(crate) feeds: Arc<Semaphore>,
    /// Room for the file of one model that is added.
    pub(crate) adding: Arc<Semaphore>,
    /// Room for subscribers to predictions.
    pub(crate) subscribers: Arc<Semaphore>,
    /// True once the server is about to end.
    pub(crate) stopping: watch::Receiver<bool>,
}

/// How a server serves.
pub struct ServerOptions {
    pub limits: Limits,
    pub auth: Arc<Authorizer>,
    pub tls: Option<Arc<Tls>>,
    /// Any number that other processes don't have: the ids of requests begin with it.
    pub instance: u64,
}

impl ServerOptions {
    /// Limits as given, no keys, no TLS: for loopback addresses.
    pub fn open(limits: Limits) -> Self {
        Self {
            limits,
            auth: Arc::new(Authorizer::open()),
            tls: None,
            instance: 0,
        }
    }
}

/// A server that listens already.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    shared: Shared,
    tls: Option<Arc<Tls>>,
    grpc: Option<(TcpListener, SocketAddr)>,
    stopping: watch::Sender<bool>,
}

impl Server {
    /// Listens on `address` (port 0: any free one).
    pub async fn bind(
        address: SocketAddr,
        backend: Arc<dyn Backend>,
        options: ServerOptions,
    ) -> Result<Self, Problem> {
        let (listener, address) = listen(address, "--listen").await?;
        let (stopping, told) = watch::channel(false);
        let shared = Shared {
            backend,
            auth: options.auth,
            in_flight: Arc::new(Semaphore::new(options.limits.requests_in_flight_max)),
            metrics: Arc::default(),
            ids: Arc::new(RequestIds::new(options.instance)),
            connections: Arc::default(),
            feeds: Arc::new(Semaphore::new(options.limits.feeds_max)),
            adding: Arc::new(Semaphore::new(1)),
            subscribers: Arc::new(Semaphore::new(options.limits.prediction_streams_max)),
            limits: Arc::new(options.limits),
            stopping: told,
        };
        Ok(Self {
            listener,
            address,
            shared,
            tls: options.tls,
            grpc: None,
            stopping,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Listens for gRPC too.
    pub async fn listen_grpc(&mut self, address: SocketAddr) -> Result<(), Problem> {
        self.grpc = Some(listen(address, "--grpc-listen").await?);
        Ok(())
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme(), self.address)
    }

    /// The URL of its gRPC services, where it listens for them.
    pub fn grpc_url(&self) -> Option<String> {
        let (_, address) = self.grpc.as_ref()?;
        Some(format!("{}://{address}", self.scheme()))
    }

    fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }

    /// Serves until `stop` is ready; then says on `/health/ready` that it ends, for
    /// `limits.drain_notice_ms`, takes no more connections, and answers the requests under way within
    /// `limits.drain_ms_max`. Whether all of them were answered.
    pub async fn run(self, stop: impl Future<Output = ()> + Send + 'static) -> bool {
        let shared = self.shared;
        let connections = |tls| {
            let counters = shared.connections.clone();
            Connections::new(shared.limits.clone(), tls, counters)
        };
        let (http, grpc) = (connections(self.tls.clone()), connections(self.tls));
        let notice = Duration::from_millis(shared.limits.drain_notice_ms);
        let (stopping, mut told) = (self.stopping, shared.stopping.clone());
        let noticed = async move {
            stop.await;
            stopping.send_replace(true);
            tokio::time::sleep(notice).await;
        };
        let told = async move {
            let _ = told.wait_for(|stopping| *stopping).await;
            tokio::time::sleep(notice).await;
        };
        let serving_grpc = async {
            match self.grpc {
                None => true,
                Some((listener, _)) => {
                    let router = crate::grpc::router(shared.clone());
                    grpc.serve(listener, router, told).await
                }
            }
        };
        let router = router(shared.clone());
        let (http, grpc) = tokio::join!(http.serve(self.listener, router, noticed), serving_grpc);
        http && grpc
    }
}

async fn listen(address: SocketAddr, option: &str) -> Result<(TcpListener, SocketAddr), Problem> {
    let refused = |error: std::io::Error| {
        Problem::external("listen", format!("{address} can't be listened on"))
            .detail(error)
            .hint(format!(
                "another process may use it; choose another with `{option}`"
            ))
    };
    let listener = TcpListener::bind(address).await.map_err(refused)?;
    let address = listener.local_addr().map_err(refused)?;
    Ok((listener, address))
}

fn router(shared: Shared) -> Router {
    Router::new()
        .route("/v1/facts/{contract}", post(post_facts).get(get_facts))
        .route("/v1/facts/{contract}/retract", post(post_retract))
        .route("/v1/facts/{contract}/quarantine", get(get_quarantine))
        .route("/v1/facts/{contract}/quarantine/replay", post(post_replay))
        .route("/v1/facts/{contract}/quarantine/repair", post(post_repair))
        .route("/v1/facts/{contract}/stream", post(post_feed))
        .route("/v1/features", post(read_features))
        .route("/v1/training-sets", post(post_training_set))
        .route("/v1/query", post(post_query))
        .route("/v1/outcomes", post(post_outcomes))
        .route("/v1/models", get(models::get_models))
        .route("/v1/models/{model}", get(models::get_model))
        .route("/v1/models/{model}/predict", post(post_predict))
        .route("/v1/models/{model}/bundle", post(post_bundle))
        .route("/v1/models/{model}/predictions", get(get_predictions))
        .route("/v1/models/{model}/score", post(post_score))
        .route("/v1/models/{model}/versions", post(models::post_version))
        .route(
            "/v1/models/{model}/versions/{version}",
            delete(models::delete_version),
        )
        .route("/v1/models/{model}/promote", post(models::post_promote))
        .route("/v1/models/{model}/rollback", post(models::post_rollback))
        .route(
            "/v1/archive",
            get(archive::get_state).post(archive::post_run),
        )
        .route("/v1/audit", get(get_audit))
        .route("/v1/registry", get(registry::get_all))
        .route("/v1/registry/search", get(registry::get_search))
        .route("/v1/registry/lineage", get(registry::get_lineage))
        .route("/v1/registry/plan", post(registry::post_plan))
        .route("/v1/registry/apply", post(registry::post_apply))
        .route("/v1/registry/backfill", post(registry::post_backfill))
        .route("/v1/registry/{kind}", get(registry::get_kind))
        .route("/v1/registry/{kind}/{name}", get(registry::get_one))
        .route("/metrics", get(metrics))
        .route("/health/live", get(live))
        .route("/health/ready", get(ready))
        .route("/openapi.json", get(openapi_document))
        .route("/", get(home))
        .merge(crate::feast::routes())
        .merge(crate::chronon::routes())
        .merge(crate::oip::routes())
        .fallback(nothing_here)
        .method_not_allowed_fallback(other_method)
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn_with_state(shared.clone(), guard))
        .layer(from_fn(crate::oip::in_its_words))
        .with_state(shared)
}

pub(crate) fn panicked(_: Box<dyn std::any::Any + Send>) -> Response<Body> {
    ApiError(Problem::internal("panic", "the request failed")).into_response()
}

pub(crate) async fn nothing_here(request: Request) -> ApiError {
    ApiError(not_found(request.uri().path()))
}

async fn other_method(request: Request) -> ApiError {
    ApiError(method_not_allowed(request.method()))
}

async fn metrics(State(shared): State<Shared>) -> impl IntoResponse {
    let mut measures = shared.backend.measures();
    measures.extend(shared.auth.measures());
    measures.extend(shared.connections.measures());
    measures.extend(shared.metrics.measures());
    let text = render(&measures);
    let media_type =
        HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
    ([(header::CONTENT_TYPE, media_type)], text)
}

async fn live() -> Result<Response<Body>, ApiError> {
    json_reply(&serde_json::json!({ "status": "live" }))
}

/// The engine recovers before the server listens, so a server that answers is ready until it stops.
async fn ready(State(shared): State<Shared>) -> Result<Response<Body>, ApiError> {
    if *shared.stopping.borrow() {
        let problem = Problem::external("stopping", "the server is stopping");
        return Err(ApiError(problem.hint("ask the next one").retryable()));
    }
    json_reply(&serde_json::json!({ "status": "ready" }))
}

async fn openapi_document() -> Result<Response<Body>, ApiError> {
    json_reply(&openapi())
}

async fn home() -> (StatusCode, Html<&'static str>) {
    (StatusCode::OK, Html(include_str!("home.html")))
}
