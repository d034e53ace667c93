//! What every request passes on its way in and out: limits, the door, the deadline, the counters.

use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::{Request, State};
use axum::http::{Response, header};
use axum::middleware::Next;
use axum::response::IntoResponse;
use headwater_schema::Problem;
use tower_http::timeout::TimeoutBody;
use tracing::{Instrument, Span};

use crate::access::{Access, Found, Role, find};
use crate::audit::AuditEvent;
use crate::error::{ApiError, Unsaid, malformed};
use crate::limits::Limits;
use crate::server::Shared;
use crate::trace::request_span;

/// Bounds how many requests are worked on and for how long, lets in who may come in, counts them, and
/// turns the framework's own refusals into problem documents.
pub async fn guard(
    State(shared): State<Shared>,
    mut request: Request,
    next: Next,
) -> Response<Body> {
    let start = tokio::time::Instant::now();
    let found = find(&request);
    let id = shared.ids.id(request.headers());
    let span = request_span(&request, found, &id);
    // For whoever writes it down with what was answered.
    request.headers_mut().insert("x-request-id", id.clone());
    let answered = admit(&shared, found, request, next).instrument(span.clone());
    let mut response = match answered.await {
        Ok(response) => response,
        Err(problem) => ApiError(problem).into_response(),
    };
    let (status, took) = (response.status().as_u16(), start.elapsed());
    shared.metrics.count(found, status, took);
    span.record("http.response.status_code", status);
    let _within = span.enter();
    if let Some(Unsaid(problem)) = response.extensions_mut().remove() {
        let id = id.to_str().unwrap_or_default();
        tracing::error!(
            request_id = id,
            code = problem.code,
            detail = problem.detail,
            "internal error"
        );
    }
    tracing::info!(status, took_us = took.as_micros(), "answered");
    response.headers_mut().insert("x-request-id", id);
    response
}

async fn admit(
    shared: &Shared,
    found: Found,
    mut request: Request,
    next: Next,
) -> Result<Response<Body>, Problem> {
    let limits = &shared.limits;
    // A busy server lives: probes are answered whatever there is to do.
    let _place = match found.access() {
        Some(Access::Open) => None,
        _ => Some(shared.in_flight.try_acquire().map_err(|_| busy())?),
    };
    check_head(&request, limits)?;
    let caller = shared.auth.authorize(&mut request)?;
    Span::current().record("key", caller.id());
    check_parameters(found, &request)?;
    let action = audited(found).map(|rule| format!("{rule} {}", request.uri().path()));
    let feed = found.rule().is_some_and(|rule| rule.feed);
    let request = match feed {
        true => request,
        false => bound_pauses(request, Duration::from_millis(limits.body_ms_max)),
    };
    let (limit, setting) = match found.rule().is_some_and(|rule| rule.long) {
        true => (limits.training_set_ms_max, "limits.training_set_ms_max"),
        false => (limits.request_ms_max, "limits.request_ms_max"),
    };
    let limit = Duration::from_millis(limit);
    let response = match tokio::time::timeout(limit, next.run(request)).await {
        Ok(response) => as_problem(response).await,
        Err(_) => ApiError(timed_out(limit, setting)).into_response(),
    };
    if let Some(action) = action {
        let status = response.status().as_u16().to_string();
        let event = AuditEvent::new(caller.id(), "admin.call", &action, &status);
        shared.auth.audit().record(&event);
    }
    Ok(response)
}

/// The method of a call that is written down: one that only an administrator may make.
fn audited(found: Found) -> Option<&'static str> {
    let rule = found.rule()?;
    (rule.access == Access::Role(Role::Admin)).then_some(rule.method)
}

/// A call of ours that reads no parameters has none: what is misspelled or misplaced mustn't pass for heard.
fn check_parameters(found: Found, request: &Request) -> Result<(), Problem> {
    let ours = |path: &str| path.starts_with("/v1/");
    let (Some(rule), Some(query)) = (found.rule(), request.uri().query()) else {
        return Ok(());
    };
    if rule.parameters || query.is_empty() || !ours(rule.path) {
        return Ok(());
    }
    let first = query.split(['=', '&']).next().unwrap_or_default();
    Err(Problem::user(
        "malformed-request",
        "this call takes no parameters in its URL",
    )
    .field(first)
    .hint("leave them out; /openapi.json says what belongs into its body"))
}

fn check_head(request: &Request, limits: &Limits) -> Result<(), Problem> {
    let too_large = |code, what: &str, bytes: usize, max: usize, setting: &str| {
        if bytes <= max {
            return Ok(());
        }
        Err(Problem::user(code, format!("the {what} too large"))
            .detail(format!("{bytes} bytes of at most {max}"))
            .hint(format!("send less there, or raise `{setting}`")))
    };
    let query = request.uri().query().map_or(0, |q| q.len() + 1);
    let url = request.uri().path().len() + query;
    too_large(
        "url-too-large",
        "URL is",
        url,
        limits.url_bytes_max,
        "limits.url_bytes_max",
    )?;
    let bytes = |(name, value): (&header::HeaderName, &header::HeaderValue)| {
        name.as_str().len() + value.len() + 4
    };
    let headers = request.headers().iter().map(bytes).sum();
    let (max, setting) = (limits.header_bytes_max, "limits.header_bytes_max");
    too_large("headers-too-large", "headers are", headers, max, setting)
}

/// Bounds how long a body may pause; whoever reads it hears of it as an error.
fn bound_pauses(request: Request, pause_max: Duration) -> Request {
    if request.body().is_end_stream() {
        return request;
    }
    request.map(|body| Body::new(TimeoutBody::new(pause_max, body)))
}

fn busy() -> Problem {
    Problem::external("busy", "too many requests at once")
        .hint("try again a little later; the limit is `limits.requests_in_flight_max`")
        .retryable()
}

fn timed_out(limit: Duration, setting: &str) -> Problem {
    Problem::external("timeout", "the request took too long")
        .detail(format!("more than {} ms", limit.as_millis()))
        .hint(format!("ask for less at once, or raise `{setting}`"))
        .retryable()
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
    malformed(text).into_response()
}
