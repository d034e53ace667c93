//! `/v1/registry`: what is defined, its history and lineage; and other definitions, planned and applied.

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::Response;
use headwater_features::{DefinitionKind, Direction, FOUND_MAX};
use headwater_schema::Problem;
use schemars::SchemaGenerator;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::audit::AuditEvent;
use crate::auth::Caller;
use crate::backend::{Backend, BackfillRequest, DefinitionsRequest, RegistryQuery};
use crate::body::{read_body, read_json};
use crate::error::{ApiError, Problems, malformed};
use crate::features::json_reply;
use crate::openapi::{Paths, any_object, json_content, query, replies};
use crate::server::Shared;

/// Files in one request.
pub const FILES_MAX: usize = 10_000;
/// Things found unless the request says how many.
const FOUND_DEFAULT: usize = 20;

/// Everything that is defined.
pub async fn get_all(State(shared): State<Shared>) -> Result<Response<Body>, ApiError> {
    json_reply(&shared.backend.registry(&RegistryQuery::All)?)
}

/// The definitions of a kind.
pub async fn get_kind(
    State(shared): State<Shared>,
    Path(kind): Path<String>,
) -> Result<Response<Body>, ApiError> {
    let kind = DefinitionKind::parse(&kind)?;
    json_reply(&shared.backend.registry(&RegistryQuery::Kind(kind))?)
}

/// Parameters of `GET /v1/registry/{kind}/{name}`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OneParameters {
    #[serde(default)]
    version: Option<u64>,
}

/// One definition with its history.
pub async fn get_one(
    State(shared): State<Shared>,
    Path((kind, name)): Path<(String, String)>,
    Query(parameters): Query<OneParameters>,
) -> Result<Response<Body>, ApiError> {
    let query = RegistryQuery::One {
        kind: DefinitionKind::parse(&kind)?,
        name,
        version: parameters.version,
    };
    json_reply(&shared.backend.registry(&query)?)
}

/// Parameters of `GET /v1/registry/search`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SearchParameters {
    q: String,
    #[serde(default)]
    limit: Option<usize>,
}

/// What is called or described so.
pub async fn get_search(
    State(shared): State<Shared>,
    Query(parameters): Query<SearchParameters>,
) -> Result<Response<Body>, ApiError> {
    let query = RegistryQuery::Search {
        text: parameters.q,
        limit: parameters.limit.unwrap_or(FOUND_DEFAULT).min(FOUND_MAX),
    };
    json_reply(&shared.backend.registry(&query)?)
}

/// Parameters of `GET /v1/registry/lineage`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LineageParameters {
    of: String,
    #[serde(default)]
    direction: Option<String>,
}

/// What a thing feeds, or what feeds it.
pub async fn get_lineage(
    State(shared): State<Shared>,
    Query(parameters): Query<LineageParameters>,
) -> Result<Response<Body>, ApiError> {
    let direction = match parameters.direction.as_deref() {
        None | Some("downstream") => Direction::Downstream,
        Some("upstream") => Direction::Upstream,
        Some(other) => {
            return Err(malformed(format!(
                "`direction` is `{other}`; it is `downstream` or `upstream`"
            )));
        }
    };
    let query = RegistryQuery::Lineage {
        of: parameters.of,
        direction,
    };
    json_reply(&shared.backend.registry(&query)?)
}

/// These calls in the OpenAPI document.
pub fn paths(generator: &mut SchemaGenerator) -> Paths {
    let definitions = generator.subschema_for::<DefinitionsRequest>();
    let (text, number) = (json!({"type": "string"}), json!({"type": "integer"}));
    let in_path = |name: &str, description: &str| json!({"name": name, "in": "path", "required": true, "schema": text, "description": description});
    let kind = in_path(
        "kind",
        "contracts, entities, views, feature_sets, labels or models",
    );
    let name = in_path("name", "the definition's name");
    let version = query("version", number.clone(), "the document of this version");
    let q = query("q", text.clone(), "words");
    let limit = query("limit", number, "how many");
    let of = query(
        "of",
        text.clone(),
        "as in departure.dep_delay or feature_set:plane_context",
    );
    let direction = query("direction", text.clone(), "downstream or upstream");
    let get_as = |path: &str, summary: &str, parameters: &[&Value], reply: Value| {
        let call = json!({"summary": summary, "parameters": parameters, "responses": replies("OK", reply)});
        (path.to_owned(), json!({ "get": call }))
    };
    let get = |path: &str, summary: &str, parameters: &[&Value]| {
        get_as(path, summary, parameters, any_object())
    };
    let post = |path: &str, summary: &str| {
        let body = json!({"required": true, "content": json_content(definitions.clone())});
        let call = json!({"summary": summary, "requestBody": body, "responses": replies("The plan", any_object())});
        (path.to_owned(), json!({ "post": call }))
    };
    let views = generator.subschema_for::<BackfillRequest>();
    let body = json!({"required": true, "content": json_content(views)});
    let call = json!({"summary": "Make views again from the facts", "requestBody": body, "responses": replies("What is being filled", any_object())});
    let backfill = ("/v1/registry/backfill".to_owned(), json!({ "post": call }));
    vec![
        get("/v1/registry", "Everything that is defined", &[]),
        get_as(
            "/v1/registry/{kind}",
            "The definitions of a kind",
            &[&kind],
            json!({"type": "array", "items": any_object()}),
        ),
        get(
            "/v1/registry/{kind}/{name}",
            "One definition with its versions",
            &[&kind, &name, &version],
        ),
        get(
            "/v1/registry/search",
            "Find definitions, features and columns",
            &[&q, &limit],
        ),
        get(
            "/v1/registry/lineage",
            "What a thing feeds, or what feeds it",
            &[&of, &direction],
        ),
        post(
            "/v1/registry/plan",
            "What applying definitions would change",
        ),
        post("/v1/registry/apply", "Put definitions in force"),
        backfill,
    ]
}

/// What putting definitions in force would change.
pub async fn post_plan(
    State(shared): State<Shared>,
    body: Body,
) -> Result<Response<Body>, Problems> {
    with_definitions(shared, body, |backend, request| backend.plan(request)).await
}

/// Puts definitions in force.
pub async fn post_apply(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    body: Body,
) -> Result<Response<Body>, Problems> {
    let auth = shared.auth.clone();
    with_definitions(shared, body, move |backend, request| {
        let applied = backend.apply(request);
        let project = backend.project();
        let told = applied.as_ref().map_err(Vec::as_slice);
        let event = AuditEvent::applied(caller.id(), project, told);
        auth.audit().record(&event);
        applied
    })
    .await
}

/// Makes views again from the facts.
pub async fn post_backfill(
    State(shared): State<Shared>,
    body: Body,
) -> Result<Response<Body>, ApiError> {
    let body = read_body(body, shared.limits.body_bytes_max).await?;
    let request: BackfillRequest = read_json(&body)?;
    let backend = shared.backend.clone();
    let begun = tokio::task::spawn_blocking(move || backend.backfill(&request.views)).await;
    let reply = begun.map_err(|e| Problem::internal("backfill", "it panicked").detail(e))??;
    json_reply(&reply)
}

/// Compiling definitions takes a while, so it has a thread of its own.
async fn with_definitions(
    shared: Shared,
    body: Body,
    act: impl FnOnce(&dyn Backend, &DefinitionsRequest) -> Result<Value, Vec<Problem>> + Send + 'static,
) -> Result<Response<Body>, Problems> {
    let body = read_body(body, shared.limits.body_bytes_max).await?;
    let request: DefinitionsRequest = read_json(&body)?;
    if request.files.len() > FILES_MAX {
        let detail = format!("{} of at most {FILES_MAX}", request.files.len());
        let problem = Problem::user("limit", "too many files in one request");
        return Err(ApiError(problem.field("files").detail(detail)).into());
    }
    let backend = shared.backend.clone();
    let acted = tokio::task::spawn_blocking(move || act(backend.as_ref(), &request)).await;
    let reply = acted
        .map_err(|e| ApiError(Problem::internal("definitions", "compiling panicked").detail(e)))?
        .map_err(Problems)?;
    Ok(json_reply(&reply)?)
}
