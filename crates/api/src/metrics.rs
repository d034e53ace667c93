//! `GET /metrics`: OpenMetrics text of what the engine measures and of the edge's own requests.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use headwater_env::{BOUNDS_SECONDS, Histogram};

use crate::access::{Found, RULES};
use crate::backend::{Amount, Measure};

/// How calls are named that the table of calls doesn't know.
const OTHER: &str = "other";

/// What the edge counts of its own requests, by call: those of the table, in its order, and one for
/// all others.
pub struct HttpMetrics {
    calls: Vec<Call>,
}

impl Default for HttpMetrics {
    fn default() -> Self {
        let calls = (0..=RULES.len()).map(|_| Call::default());
        Self {
            calls: calls.collect(),
        }
    }
}

#[derive(Default)]
struct Call {
    ok: AtomicU64,
    user_errors: AtomicU64,
    server_errors: AtomicU64,
    took: Histogram,
}

impl HttpMetrics {
    /// Counts one answered request.
    pub(crate) fn count(&self, found: Found, status: u16, took: Duration) {
        let index = match found {
            Found::Rule(index) => index,
            Found::OtherMethod | Found::Nothing => RULES.len(),
        };
        let Some(call) = self.calls.get(index) else {
            return;
        };
        let counter = match status {
            0..=399 => &call.ok,
            400..=499 => &call.user_errors,
            _ => &call.server_errors,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        call.took
            .observe_nanos(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    }

    /// What there is to measure.
    pub(crate) fn measures(&self) -> Vec<Measure> {
        const REQUESTS: &str = "HTTP requests answered, by call and outcome.";
        const SECONDS: &str = "Time to answer an HTTP request.";
        let mut measures = Vec::new();
        let names = RULES.iter().map(|rule| rule.name).chain([OTHER]);
        for (name, call) in names.zip(&self.calls) {
            let outcomes = [
                ("ok", &call.ok),
                ("user_error", &call.user_errors),
                ("server_error", &call.server_errors),
            ];
            for (outcome, count) in outcomes {
                let count = count.load(Ordering::Relaxed);
                let requests = Measure::counter("http_requests", REQUESTS, count);
                measures.push(requests.of("call", name).of("outcome", outcome));
            }
            let seconds = Measure::durations("http_request_seconds", SECONDS, call.took.read());
            measures.push(seconds.of("call", name));
        }
        measures
    }
}

/// Everything as OpenMetrics text.
pub fn render(measures: &[Measure]) -> String {
    let mut out = String::new();
    let mut names: Vec<&str> = measures.iter().map(|m| m.name).collect();
    names.sort_unstable();
    names.dedup();
    for name in names {
        let mut family = measures.iter().filter(|m| m.name == name).peekable();
        if let Some(first) = family.peek() {
            describe(&mut out, first);
        }
        for measure in family {
            write_samples(&mut out, measure);
        }
    }
    out.push_str("# EOF\n");
    out
}

fn describe(out: &mut String, measure: &Measure) {
    let Measure { name, help, .. } = measure;
    let kind = match measure.amount {
        Amount::Gauge(_) => "gauge",
        Amount::Counter(_) => "counter",
        Amount::Durations(_) => "histogram",
    };
    let _ = writeln!(out, "# HELP headwater_{name} {help}");
    let _ = writeln!(out, "# TYPE headwater_{name} {kind}");
    for unit in ["seconds", "bytes"] {
        if name.ends_with(unit) {
            let _ = writeln!(out, "# UNIT headwater_{name} {unit}");
        }
    }
}

fn write_samples(out: &mut String, measure: &Measure) {
    let name = measure.name;
    let mut pairs = String::new();
    for (label, value) in &measure.labels {
        let comma = if pairs.is_empty() { "" } else { "," };
        let _ = write!(pairs, "{comma}{label}=\"{}\"", escape(value));
    }
    let labels = match pairs.as_str() {
        "" => String::new(),
        pairs => format!("{{{pairs}}}"),
    };
    let durations = match &measure.amount {
        Amount::Gauge(value) => {
            let _ = writeln!(out, "headwater_{name}{labels} {value}");
            return;
        }
        Amount::Counter(value) => {
            let _ = writeln!(out, "headwater_{name}_total{labels} {value}");
            return;
        }
        Amount::Durations(durations) => durations,
    };
    let comma = if pairs.is_empty() { "" } else { "," };
    let mut below = 0;
    for (bound, count) in BOUNDS_SECONDS.iter().zip(&durations.buckets) {
        below += count;
        let bound = match bound.fract() {
            0.0 => format!("{bound:.1}"),
            _ => bound.to_string(),
        };
        let _ = writeln!(
            out,
            "headwater_{name}_bucket{{{pairs}{comma}le=\"{bound}\"}} {below}"
        );
    }
    let (count, seconds) = (durations.count, durations.nanos as f64 / 1e9);
    let _ = writeln!(
        out,
        "headwater_{name}_bucket{{{pairs}{comma}le=\"+Inf\"}} {count}"
    );
    let _ = writeln!(out, "headwater_{name}_count{labels} {count}");
    let _ = writeln!(out, "headwater_{name}_sum{labels} {seconds}");
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}
