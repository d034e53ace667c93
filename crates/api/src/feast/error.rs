//! Errors as Feast's feature server writes them, so that its client raises its own exceptions.

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use axum::response::IntoResponse;
use headwater_schema::{Blame, Problem};
use serde_json::{Value, json};

use crate::error::{ApiError, Unsaid, status};

/// A problem on its way to a client of Feast.
pub struct FeastError(pub Problem);

impl From<Problem> for FeastError {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

impl From<ApiError> for FeastError {
    fn from(error: ApiError) -> Self {
        Self(error.0)
    }
}

/// The exception of `feast.errors` that a problem is, and the status it comes with.
fn exception(problem: &Problem) -> Option<(&'static str, StatusCode)> {
    Some(match problem.code {
        "unknown-feature-set" => ("FeatureServiceNotFoundException", StatusCode::NOT_FOUND),
        "unknown-view" => ("FeatureViewNotFoundException", StatusCode::NOT_FOUND),
        "unknown-feature" => ("FeastObjectNotFoundException", StatusCode::NOT_FOUND),
        "missing-context" => (
            "RequestDataNotFoundInEntityRowsException",
            StatusCode::NOT_FOUND,
        ),
        "unknown-contract" => (
            "PushSourceNotFoundException",
            StatusCode::UNPROCESSABLE_ENTITY,
        ),
        "feature-name-collision" => (
            "FeatureNameCollisionError",
            StatusCode::UNPROCESSABLE_ENTITY,
        ),
        _ => return None,
    })
}

/// What a person reads: title, detail and hint in one line.
fn message(problem: &Problem) -> String {
    let mut text = problem.title.clone();
    if !problem.detail.is_empty() {
        text.push_str(": ");
        text.push_str(&problem.detail);
    }
    if !problem.hint.is_empty() {
        text.push_str(" (");
        text.push_str(&problem.hint);
        text.push(')');
    }
    text
}

/// One complaint about a request, as FastAPI words it.
pub fn complaint(code: &str, place: &[&str], message: &str) -> Value {
    let place: Vec<&str> = std::iter::once("body")
        .chain(place.iter().copied())
        .collect();
    json!({"type": code, "loc": place, "msg": message})
}

/// A reply of 422 with complaints.
pub fn unprocessable(complaints: Vec<Value>) -> Response<Body> {
    reply(
        StatusCode::UNPROCESSABLE_ENTITY,
        &json!({ "detail": complaints }),
    )
}

fn reply(status: StatusCode, body: &Value) -> Response<Body> {
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

impl IntoResponse for FeastError {
    fn into_response(self) -> Response<Body> {
        let problem = &self.0;
        if let Some((class, status)) = exception(problem) {
            // Feast sends a JSON text within a JSON string.
            let detail =
                json!({"module": "feast.errors", "class": class, "message": message(problem)});
            return reply(status, &json!(detail.to_string()));
        }
        match (problem.blame, status(problem)) {
            (Blame::User, StatusCode::BAD_REQUEST) => {
                let place: Vec<&str> = problem.field.as_deref().into_iter().collect();
                unprocessable(vec![complaint(problem.code, &place, &message(problem))])
            }
            (Blame::Internal, status) => {
                let mut response = reply(status, &json!("the server's log tells more"));
                response.extensions_mut().insert(Unsaid(self.0));
                response
            }
            (_, status) => reply(status, &json!(message(problem))),
        }
    }
}
