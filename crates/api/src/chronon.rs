//! Chronon's fetch API below `/chronon`: a group-by is a view, a join a feature set.
//!
//! Each row of keys has its own outcome: one that names no key fails alone.

use std::collections::BTreeMap;
use std::rc::Rc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderValue, Response, header};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use headwater_features::entity_request;
use headwater_schema::{Blame, Problem};
use schemars::JsonSchema;
use serde::ser::{Serialize, SerializeMap, SerializeStruct, Serializer};
use serde_json::{Value as Json, json};

use crate::backend::{
    ContextRow, EntityRequest, FeatureRow, FeaturesReply, FeaturesRequest, Names, ReadShape,
};
use crate::body::{read_body, read_json};
use crate::context::asked;
use crate::error::{ApiError, Unsaid, status};
use crate::feature_read::in_row;
use crate::features::json_reply;
use crate::server::Shared;
use headwater_schema::JsonValue;

/// The routes of Chronon's fetcher service.
pub fn routes() -> Router<Shared> {
    Router::new()
        .route("/chronon/v1/features/groupby/{name}", post(group_by))
        .route("/chronon/v1/features/join/{name}", post(join))
        .route("/chronon/ping", get(ping))
}

/// The keys to fetch: one object of key columns per row, with the fields of the join's context among them.
pub type ChrononBody = Vec<BTreeMap<String, Json>>;

/// The reply: one result per row, in order.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "describes what `Answer` writes")]
pub struct ChrononAnswer {
    results: Vec<ChrononResult>,
}

/// What became of one row.
#[derive(JsonSchema)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "describes what `RowResult` writes")]
pub struct ChrononResult {
    /// `Success` or `Failure`.
    status: String,
    entity_keys: BTreeMap<String, Json>,
    /// Names and values, where it is a success.
    features: Option<BTreeMap<String, Json>>,
    /// What went wrong, where it is a failure.
    error: Option<String>,
}

struct ChrononError(Problem);

impl<E: Into<ApiError>> From<E> for ChrononError {
    fn from(error: E) -> Self {
        Self(error.into().0)
    }
}

impl IntoResponse for ChrononError {
    fn into_response(self) -> Response<Body> {
        let status = status(&self.0);
        let text = match self.0.blame {
            Blame::Internal => "the server's log tells more".to_owned(),
            _ => message(&self.0),
        };
        let mut response = Response::new(Body::from(json!({ "errors": [text] }).to_string()));
        *response.status_mut() = status;
        let json = HeaderValue::from_static("application/json");
        response.headers_mut().insert(header::CONTENT_TYPE, json);
        if self.0.blame == Blame::Internal {
            response.extensions_mut().insert(Unsaid(self.0));
        }
        response
    }
}

fn message(problem: &Problem) -> String {
    problem.to_string().replace("\n  hint: ", "; ")
}

async fn ping() -> &'static str {
    "Pong!"
}

async fn group_by(
    State(shared): State<Shared>,
    Path(name): Path<String>,
    body: Body,
) -> Result<Response<Body>, ChrononError> {
    let names = Names::List(shared.backend.view_features(&name)?);
    fetch(&shared, names, body, |name| {
        name.split_once('.').map_or(name, |(_, f)| f).to_owned()
    })
    .await
}

async fn join(
    State(shared): State<Shared>,
    Path(name): Path<String>,
    body: Body,
) -> Result<Response<Body>, ChrononError> {
    fetch(&shared, Names::Set(name), body, |name| {
        name.replacen('.', "_", 1)
    })
    .await
}

/// Reads all rows at one cursor; where one of them is wrong, each by itself, so that it fails alone.
async fn fetch(
    shared: &Shared,
    names: Names,
    body: Body,
    rename: fn(&str) -> String,
) -> Result<Response<Body>, ChrononError> {
    let body = read_body(body, shared.limits.body_bytes_max).await?;
    let keys: ChrononBody = read_json(&body)?;
    shared.limits.check_entities("entities", keys.len())?;
    let asked = asked(shared, &names)?;
    let rows = keys.iter().enumerate();
    let rows: Result<Vec<_>, ApiError> = rows.map(|(i, k)| row(i, k, &asked)).collect();
    let whole = rows.and_then(|rows| read(shared, &names, rows));
    let replies: Vec<Result<FeaturesReply, Problem>> = match whole {
        Ok(reply) => vec![Ok(reply)],
        Err(ApiError(problem)) if of_one_row(&problem) => {
            let one = |keys| read(shared, &names, vec![row(0, keys, &asked)?]);
            let each = keys.iter().map(one);
            each.map(|read| read.map_err(|e| e.0)).collect()
        }
        Err(other) => return Err(other.into()),
    };
    let mut results = Vec::with_capacity(keys.len());
    for reply in &replies {
        match reply {
            Ok(reply) => {
                let names: Vec<String> = reply.names.iter().map(|n| rename(n)).collect();
                let names = Rc::new(names);
                results.extend(reply.rows.iter().map(|row| Ok((names.clone(), row))));
            }
            Err(problem) => results.push(Err(message(problem))),
        }
    }
    let results = keys.iter().zip(results);
    let results = results.map(|(keys, read)| RowResult { keys, read });
    Ok(json_reply(&Answer {
        results: results.collect(),
    })?)
}

/// One row's keys, and its fields of the context.
fn row(
    index: usize,
    keys: &BTreeMap<String, Json>,
    asked: &ReadShape,
) -> Result<(EntityRequest, ContextRow), ApiError> {
    if asked.context.is_empty() {
        return Ok((in_row(index, entity_request(keys))?, ContextRow::new()));
    }
    let some = |of: &dyn Fn(&str) -> bool| -> BTreeMap<String, Json> {
        let some = keys.iter().filter(|(name, _)| of(name));
        some.map(|(name, value)| (name.clone(), value.clone()))
            .collect()
    };
    let named = some(&|name| asked.may_be_key(name));
    let entity = in_row(index, entity_request(&named))?;
    Ok((entity, some(&|name| asked.has_context(name))))
}

fn read(
    shared: &Shared,
    names: &Names,
    rows: Vec<(EntityRequest, ContextRow)>,
) -> Result<FeaturesReply, ApiError> {
    let (entities, context) = rows.into_iter().unzip();
    let request = FeaturesRequest {
        names: names.clone(),
        entities,
        as_of: None,
        known_at: None,
        context,
        inclusive: true,
        lenient: true,
    };
    Ok(shared.backend.features(&request)?)
}

/// Whether a problem is one of a row's keys or context rather than of the whole request.
fn of_one_row(problem: &Problem) -> bool {
    let field = problem.field.as_deref().unwrap_or_default();
    field.starts_with("entities[") || field.starts_with("context[")
}

#[derive(serde::Serialize)]
struct Answer<'a> {
    results: Vec<RowResult<'a>>,
}

struct RowResult<'a> {
    keys: &'a BTreeMap<String, Json>,
    read: Result<(Rc<Vec<String>>, &'a FeatureRow), String>,
}

impl Serialize for RowResult<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut result = serializer.serialize_struct("result", 3)?;
        match &self.read {
            Ok((names, row)) => {
                result.serialize_field("status", "Success")?;
                result.serialize_field("entityKeys", self.keys)?;
                result.serialize_field("features", &Features(names, row))?;
            }
            Err(error) => {
                result.serialize_field("status", "Failure")?;
                result.serialize_field("entityKeys", self.keys)?;
                result.serialize_field("error", error)?;
            }
        }
        result.end()
    }
}

struct Features<'a>(&'a [String], &'a FeatureRow);

impl Serialize for Features<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut features = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in self.0.iter().zip(&self.1.values) {
            features.serialize_entry(name, &JsonValue(value))?;
        }
        features.end()
    }
}
