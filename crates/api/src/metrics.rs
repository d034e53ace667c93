//! `GET /metrics`: OpenMetrics text of what the engine measures and of the edge's own requests.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::backend::Measure;

/// Upper bounds of the latency histogram, in seconds.
const BOUNDS: [f64; 12] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.0, 10.0,
];

/// Calls that are told apart.
const CALLS: [&str; 4] = ["facts_post", "facts_get", "features", "other"];

/// What the edge counts of its own requests.
#[derive(Default)]
pub struct HttpMetrics {
    calls: [Call; CALLS.len()],
}

#[derive(Default)]
struct Call {
    ok: AtomicU64,
    user_errors: AtomicU64,
    server_errors: AtomicU64,
    nanos: AtomicU64,
    buckets: [AtomicU64; BOUNDS.len()],
}

impl HttpMetrics {
    /// Counts one answered request.
    pub fn count(&self, method: &str, path: &str, status: u16, took: Duration) {
        let index = match (method, path) {
            ("POST", p) if p.starts_with("/v1/facts/") => 0,
            ("GET", p) if p.starts_with("/v1/facts/") => 1,
            (_, "/v1/features") => 2,
            _ => 3,
        };
        let call = &self.calls[index];
        let counter = match status {
            0..=399 => &call.ok,
            400..=499 => &call.user_errors,
            _ => &call.server_errors,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        call.nanos.fetch_add(nanos, Ordering::Relaxed);
        let seconds = took.as_secs_f64();
        if let Some(bucket) = BOUNDS.iter().position(|bound| seconds <= *bound) {
            call.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        }
    }

    fn write(&self, out: &mut String) {
        out.push_str(
            "# HELP headwater_http_requests HTTP requests answered, by call and outcome.\n",
        );
        out.push_str("# TYPE headwater_http_requests counter\n");
        for (name, call) in CALLS.iter().zip(&self.calls) {
            let outcomes = [
                ("ok", &call.ok),
                ("user_error", &call.user_errors),
                ("server_error", &call.server_errors),
            ];
            for (outcome, count) in outcomes {
                let count = count.load(Ordering::Relaxed);
                let _ = writeln!(
                    out,
                    "headwater_http_requests_total{{call=\"{name}\",outcome=\"{outcome}\"}} {count}"
                );
            }
        }
        out.push_str("# HELP headwater_http_request_seconds Time to answer an HTTP request.\n");
        out.push_str("# TYPE headwater_http_request_seconds histogram\n");
        out.push_str("# UNIT headwater_http_request_seconds seconds\n");
        for (name, call) in CALLS.iter().zip(&self.calls) {
            let mut below = 0;
            for (bound, bucket) in BOUNDS.iter().zip(&call.buckets) {
                below += bucket.load(Ordering::Relaxed);
                let _ = writeln!(
                    out,
                    "headwater_http_request_seconds_bucket{{call=\"{name}\",le=\"{bound}\"}} {below}"
                );
            }
            let outcomes = [&call.ok, &call.user_errors, &call.server_errors];
            let count: u64 = outcomes.iter().map(|c| c.load(Ordering::Relaxed)).sum();
            let seconds = call.nanos.load(Ordering::Relaxed) as f64 / 1e9;
            let _ = writeln!(
                out,
                "headwater_http_request_seconds_bucket{{call=\"{name}\",le=\"+Inf\"}} {count}"
            );
            let _ = writeln!(
                out,
                "headwater_http_request_seconds_count{{call=\"{name}\"}} {count}"
            );
            let _ = writeln!(
                out,
                "headwater_http_request_seconds_sum{{call=\"{name}\"}} {seconds}"
            );
        }
    }
}

/// Everything as OpenMetrics text.
pub fn render(http: &HttpMetrics, measures: &[Measure]) -> String {
    let mut out = String::new();
    let mut names: Vec<&str> = measures.iter().map(|m| m.name).collect();
    names.sort_unstable();
    names.dedup();
    for name in names {
        let mut family = measures.iter().filter(|m| m.name == name).peekable();
        if let Some(first) = family.peek() {
            let kind = if first.counter { "counter" } else { "gauge" };
            let _ = writeln!(out, "# HELP headwater_{name} {}", first.help);
            let _ = writeln!(out, "# TYPE headwater_{name} {kind}");
        }
        for measure in family {
            let suffix = if measure.counter { "_total" } else { "" };
            let labels: Vec<String> = measure
                .labels
                .iter()
                .map(|(label, value)| format!("{label}=\"{}\"", escape(value)))
                .collect();
            let labels = match labels.as_slice() {
                [] => String::new(),
                labels => format!("{{{}}}", labels.join(",")),
            };
            let _ = writeln!(out, "headwater_{name}{suffix}{labels} {}", measure.value);
        }
    }
    http.write(&mut out);
    out.push_str("# EOF\n");
    out
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}
