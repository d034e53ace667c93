//! Problems as HTTP replies: RFC 9457 problem documents.

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use axum::response::IntoResponse;
use headwater_schema::{Blame, Problem};
use serde_json::{Map, Value, json};

/// A problem on its way out.
pub struct ApiError(pub Problem);

impl From<Problem> for ApiError {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

/// A problem whose detail is for the log, not for the caller; rides with the response to whoever logs it.
#[derive(Clone)]
pub(crate) struct Unsaid(pub Problem);
/// Several problems on their way out, as one document that lists them all.
pub struct Problems(pub Vec<Problem>);

impl From<ApiError> for Problems {
    fn from(error: ApiError) -> Self {
        Self(vec![error.0])
    }
}

/// The status that a problem's code stands for.
pub(crate) fn status(problem: &Problem) -> StatusCode {
    match problem.code {
        "unknown-contract"
        | "unknown-feature-set"
        | "unknown-feature"
        | "unknown-label"
        | "unknown-model"
        | "unknown-version"
        | "unknown-alias"
        | "unknown-entity"
        | "unknown-view"
        | "unknown-table"
        | "not-found" => StatusCode::NOT_FOUND,
        "definitions-changed"
        | "version-too-low"
        | "version-exists"
        | "version-in-use"
        | "version-not-loaded"
        | "other-project"
        | "no-earlier-version" => StatusCode::CONFLICT,
        "features-changed" if problem.blame == Blame::User => StatusCode::CONFLICT,
        "unauthenticated" => StatusCode::UNAUTHORIZED,
        "forbidden" => StatusCode::FORBIDDEN,
        "too-many-requests" => StatusCode::TOO_MANY_REQUESTS,
        "method-not-allowed" => StatusCode::METHOD_NOT_ALLOWED,
        "url-too-large" => StatusCode::URI_TOO_LONG,
        "headers-too-large" => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        "slow-body" => StatusCode::REQUEST_TIMEOUT,
        "body-too-large" | "too-many-rows" | "query-too-large" | "spill-too-large" => {
            StatusCode::PAYLOAD_TOO_LARGE
        }
        "not-acceptable" => StatusCode::NOT_ACCEPTABLE,
        "unsupported-media-type" | "unsupported-encoding" => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "past-retention" => StatusCode::GONE,
        "disk-full" => StatusCode::INSUFFICIENT_STORAGE,
        "busy" | "stopping" => StatusCode::SERVICE_UNAVAILABLE,
        "timeout" | "deadline" => StatusCode::GATEWAY_TIMEOUT,
        _ => match problem.blame {
            Blame::User => StatusCode::BAD_REQUEST,
            Blame::External => StatusCode::SERVICE_UNAVAILABLE,
            Blame::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        },
    }
}

/// The problem document of a problem.
pub(crate) fn document(problem: &Problem) -> Value {
    let mut document = Map::new();
    document.insert(
        "type".into(),
        json!(format!("urn:headwater:problem:{}", problem.code)),
    );
    document.insert("title".into(), json!(problem.title));
    document.insert("status".into(), json!(status(problem).as_u16()));
    if problem.blame == Blame::Internal {
        document.insert("detail".into(), json!("the server's log tells more"));
        document.insert("hint".into(), json!("this is a bug: please report it"));
        return Value::Object(document);
    }
    // Nothing is said where the title says it all.
    for (name, text) in [("detail", &problem.detail), ("hint", &problem.hint)] {
        if !text.is_empty() {
            document.insert(name.into(), json!(text));
        }
    }
    if let Some(field) = &problem.field {
        document.insert("field".into(), json!(field));
    }
    if let Some(at) = &problem.location {
        let at = json!({"file": at.file, "line": at.line, "column": at.column});
        document.insert("location".into(), at);
    }
    Value::Object(document)
}

impl ApiError {
    /// The status, and the document as JSON.
    pub(crate) fn document(&self) -> (StatusCode, String) {
        (status(&self.0), document(&self.0).to_string())
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response<Body> {
        let (status, document) = self.document();
        let mut response = Response::new(Body::from(document));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        let problem_json = HeaderValue::from_static("application/problem+json");
        headers.insert(header::CONTENT_TYPE, problem_json);
        if self.0.retry {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if self.0.blame == Blame::Internal {
            response.extensions_mut().insert(Unsaid(self.0));
            return response;
        }
        if status == StatusCode::UNAUTHORIZED {
            let scheme = HeaderValue::from_static("Bearer realm=\"headwater\"");
            headers.insert(header::WWW_AUTHENTICATE, scheme);
        }
        response
    }
}

impl IntoResponse for Problems {
    /// The first problem as the document, and all of them in its `problems`.
    fn into_response(self) -> Response<Body> {
        let errors: Vec<ApiError> = self.0.into_iter().map(ApiError).collect();
        let members: Vec<Value> = errors.iter().map(|e| document(&e.0)).collect();
        let none = || {
            ApiError(Problem::internal(
                "no-problem",
                "a request failed without a problem",
            ))
        };
        let first = errors.into_iter().next().unwrap_or_else(none);
        let mut document = document(&first.0);
        document["problems"] = Value::Array(members);
        let mut response = first.into_response();
        *response.body_mut() = Body::from(document.to_string());
        response
    }
}

/// A request that can't be understood.
pub fn malformed(detail: impl std::fmt::Display) -> ApiError {
    ApiError(
        Problem::user("malformed-request", "the request can't be understood")
            .detail(detail)
            .hint("/openapi.json describes every call"),
    )
}
