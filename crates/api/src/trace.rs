//! The span of a request, its id, and the trace that it belongs to (W3C Trace Context).

use std::sync::atomic::{AtomicU64, Ordering};

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue};
use opentelemetry::global::get_text_map_propagator;
use opentelemetry::propagation::Extractor;
use tracing::Span;
use tracing::field::Empty;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::access::Found;

/// Characters of a request's id.
const ID_CHARACTERS_MAX: usize = 128;

/// Gives requests ids: their own, or the next of this process.
pub(crate) struct RequestIds {
    /// Tells processes apart.
    instance: u64,
    next: AtomicU64,
}

impl RequestIds {
    pub(crate) fn new(instance: u64) -> Self {
        Self {
            instance,
            next: AtomicU64::new(0),
        }
    }

    /// The id that came with the request, where it is short and plain; else a new one.
    pub(crate) fn id(&self, headers: &HeaderMap) -> HeaderValue {
        let plain = |id: &&HeaderValue| {
            let bytes = id.as_bytes();
            !bytes.is_empty()
                && bytes.len() <= ID_CHARACTERS_MAX
                && bytes.iter().all(u8::is_ascii_graphic)
        };
        match headers.get("x-request-id").filter(plain) {
            Some(id) => id.clone(),
            None => {
                let number = self.next.fetch_add(1, Ordering::Relaxed);
                let id = format!("{:016x}-{number:x}", self.instance);
                HeaderValue::from_str(&id).unwrap_or(HeaderValue::from_static("none"))
            }
        }
    }
}

/// The span of a request, a child of the caller's where a `traceparent` came along. Costs next to
/// nothing where neither logs nor traces want it.
pub(crate) fn request_span(request: &Request, found: Found, id: &HeaderValue) -> Span {
    let rule = found.rule();
    let (method, route) = rule.map_or(("", "other"), |r| (r.method, r.path));
    let span = tracing::info_span!(
        "request",
        otel.kind = "server",
        http.request.method = method,
        http.route = route,
        http.response.status_code = Empty,
        request_id = id.to_str().unwrap_or_default(),
        key = Empty,
    );
    if !span.is_disabled() {
        let headers = Headers(request.headers());
        let parent = get_text_map_propagator(|propagator| propagator.extract(&headers));
        // Fails where nobody exports traces: then there is nothing to belong to.
        let _ = span.set_parent(parent);
    }
    span
}

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(|name| name.as_str()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_the_callers_or_a_new_one() {
        let ids = RequestIds::new(0xabc);
        let id = |given: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("x-request-id", HeaderValue::from_static(given));
            ids.id(&headers).to_str().unwrap().to_owned()
        };
        assert_eq!(id("order-17"), "order-17");
        assert_eq!(id("a b"), "0000000000000abc-0");
        assert_eq!(id(""), "0000000000000abc-1");
        let long: &'static str = Box::leak("x".repeat(ID_CHARACTERS_MAX + 1).into_boxed_str());
        assert_eq!(id(long), "0000000000000abc-2");
    }
}
