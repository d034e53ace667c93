//! Problems in the protocol's words: `{"error": "…"}`, whoever refused the request.

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderValue, Response, header};
use axum::middleware::Next;
use serde_json::{Value as Json, json};

/// Turns problem documents of calls below `/v2` into what clients of the protocol read.
pub(crate) async fn in_its_words(request: Request, next: Next) -> Response<Body> {
    const DOCUMENT_BYTES_MAX: usize = 64 << 10;
    let path = request.uri().path();
    let is_own = path == "/v2" || path.starts_with("/v2/");
    let response = next.run(request).await;
    let is_problem = response
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|t| t.as_bytes() == b"application/problem+json");
    if !is_own || !is_problem {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let body = axum::body::to_bytes(body, DOCUMENT_BYTES_MAX).await;
    let document: Json = serde_json::from_slice(&body.unwrap_or_default()).unwrap_or_default();
    let text = |name: &str| document[name].as_str().unwrap_or_default();
    let mut error = text("title").to_owned();
    for (name, before, after) in [("detail", ": ", ""), ("hint", " (", ")")] {
        if !text(name).is_empty() {
            error = format!("{error}{before}{}{after}", text(name));
        }
    }
    let json = HeaderValue::from_static("application/json");
    parts.headers.insert(header::CONTENT_TYPE, json);
    parts.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(parts, Body::from(json!({ "error": error }).to_string()))
}
