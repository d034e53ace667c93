//! What settings may not say: each alone is of the right type, and yet the program would be of no use.

use headwater_schema::Problem;
use serde_json::Value as Json;
use tracing_subscriber::EnvFilter;

use crate::{Config, Settings, TelemetrySettings};

/// Limits that may be 0: what they bound is then off, or goes another way.
const MAY_BE_ZERO: [&str; 21] = [
    "archive.cache_bytes_max",
    "ingest.sync_interval_ms",
    "limits.drain_ms_max",
    "limits.drain_notice_ms",
    "limits.feed_rejected_max",
    "limits.feeds_max",
    "limits.prediction_streams_max",
    "query.concurrent_max",
    "query.spill_bytes_max",
    "serving.cache_bytes_max",
    "serving.cache_entries_max",
    "serving.last_good_max",
    "serving.log_gather_ms",
    "serving.log_queue_predictions_max",
    "serving.shadow_queue_requests_max",
    "serving.stream_models_max",
    "state.catch_up_facts_max",
    "state.memory_bytes_max",
    "training_sets.memory_bytes_max",
    "training_sets.running_max",
    "webhooks.models_max",
];
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// A limit that a project sets otherwise than it is by default.
#[derive(Debug, Clone, PartialEq)]
pub struct SetLimit {
    /// As in `limits.rows_max`.
    pub name: String,
    pub value: u64,
    /// None where it is by default without a limit of this name.
    pub default: Option<u64>,
}

/// The first setting that the program would be of no use with; its field is its path in the document.
pub(crate) fn check(config: &Config) -> Result<(), Problem> {
    for limit in set_limits(&config.spec) {
        if limit.value == 0 && !MAY_BE_ZERO.contains(&limit.name.as_str()) {
            let default = limit.default.unwrap_or(1);
            return Err(wrong(&limit.name, "0")
                .detail("nothing at all would pass it")
                .hint(format!("leave it out: it is {default} by default")));
        }
    }
    telemetry(&config.spec.telemetry)
}

fn wrong(name: &str, seen: impl std::fmt::Display) -> Problem {
    Problem::user("invalid-project", format!("`{name}` is `{seen}`")).field(format!("spec.{name}"))
}

fn telemetry(settings: &TelemetrySettings) -> Result<(), Problem> {
    let level = &settings.logs.level;
    if let Err(why) = read_level(level) {
        return Err(wrong("telemetry.logs.level", level).detail(why).hint(
            "write error, warn, info, debug or trace, or directives as in `warn,headwater=debug`",
        ));
    }
    let Some(traces) = &settings.traces else {
        return Ok(());
    };
    let endpoint = &traces.endpoint;
    let uri: Option<ureq::http::Uri> = endpoint.parse().ok();
    let reached = uri.is_some_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.host().is_some_and(|host| !host.is_empty())
    });
    if !reached {
        return Err(wrong("telemetry.traces.endpoint", endpoint)
            .detail("traces are sent over HTTP")
            .hint("write a URL, as in http://127.0.0.1:4318/v1/traces"));
    }
    if !(0.0..=1.0).contains(&traces.sample_ratio) {
        return Err(wrong("telemetry.traces.sample_ratio", traces.sample_ratio)
            .detail("it is the share of requests that are traced")
            .hint("write a number from 0 to 1"));
    }
    Ok(())
}

/// Reads a level of logs. A lone word that is no level would be taken for the name of a module.
fn read_level(text: &str) -> Result<(), String> {
    let mut words = text.split(',').map(str::trim);
    let is_level = |word: &str| LEVELS.iter().any(|level| word.eq_ignore_ascii_case(level));
    let stray = words.find(|word| !text.contains('[') && !word.contains('=') && !is_level(word));
    match stray {
        Some(word) => Err(format!("`{word}` is no level")),
        None => EnvFilter::try_new(text)
            .map(drop)
            .map_err(|e| e.to_string()),
    }
}

/// The limits that are set otherwise than they are by default.
pub fn set_limits(settings: &Settings) -> Vec<SetLimit> {
    let read = |settings: &Settings| serde_json::to_value(settings).unwrap_or_default();
    let (own, usual) = (read(settings), read(&Settings::default()));
    let mut found = Vec::new();
    for (section, fields) in own.as_object().into_iter().flatten() {
        for (field, value) in fields.as_object().into_iter().flatten() {
            let default = usual[section][field].as_u64();
            if let Some(value) = limit(field, value)
                && Some(value) != default
            {
                let name = format!("{section}.{field}");
                found.push(SetLimit {
                    name,
                    value,
                    default,
                });
            }
        }
    }
    found
}

/// How much a setting allows, where it is a limit.
fn limit(field: &str, value: &Json) -> Option<u64> {
    let named = field.ends_with("_max") || field.ends_with("_ms") || field == "checkpoint_facts";
    value.as_u64().filter(|_| named)
}

/// Limits that contradict each other, each in a sentence.
pub fn contradictions(settings: &Settings) -> Vec<String> {
    let (limits, ingest) = (&settings.limits, &settings.ingest);
    let pairs = [
        (
            "limits.row_bytes_max",
            limits.row_bytes_max,
            "limits.body_bytes_max",
            limits.body_bytes_max,
        ),
        (
            "limits.row_bytes_max",
            limits.row_bytes_max,
            "limits.feed_batch_bytes_max",
            limits.feed_batch_bytes_max,
        ),
        (
            "limits.feed_batch_rows_max",
            limits.feed_batch_rows_max,
            "limits.rows_max",
            limits.rows_max,
        ),
        (
            "limits.url_bytes_max",
            limits.url_bytes_max,
            "limits.header_bytes_max",
            limits.header_bytes_max,
        ),
        (
            "limits.requests_per_key_max",
            limits.requests_per_key_max,
            "limits.requests_in_flight_max",
            limits.requests_in_flight_max,
        ),
        (
            "ingest.group_requests_max",
            ingest.group_requests_max,
            "ingest.queue_requests_max",
            ingest.queue_requests_max,
        ),
    ];
    let mut found = Vec::new();
    for (inner, small, outer, large) in pairs {
        if small > large {
            found.push(format!(
                "`{inner}` is {small}, and `{outer}` lets only {large} through"
            ));
        }
    }
    let timeout = settings.query.timeout_ms;
    if timeout > limits.request_ms_max {
        let most = limits.request_ms_max;
        found.push(format!(
            "`query.timeout_ms` is {timeout}, and `limits.request_ms_max` gives a request up after {most}"
        ));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(spec: &str) -> Result<(), Problem> {
        let config: Config =
            serde_json::from_value(serde_json::json!({"name": "p", "spec": read(spec)})).unwrap();
        check(&config)
    }

    fn read(spec: &str) -> Json {
        serde_json::from_str(spec).unwrap()
    }

    #[test]
    fn what_the_program_would_be_of_no_use_with_is_refused() {
        for (spec, field) in [
            (r#"{"limits": {"rows_max": 0}}"#, "spec.limits.rows_max"),
            (
                r#"{"limits": {"request_ms_max": 0}}"#,
                "spec.limits.request_ms_max",
            ),
            (
                r#"{"ingest": {"segment_bytes_max": 0}}"#,
                "spec.ingest.segment_bytes_max",
            ),
            (
                r#"{"state": {"checkpoint_facts": 0}}"#,
                "spec.state.checkpoint_facts",
            ),
            (
                r#"{"telemetry": {"logs": {"level": "loud"}}}"#,
                "spec.telemetry.logs.level",
            ),
            (
                r#"{"telemetry": {"logs": {"level": "info,headwater=loud"}}}"#,
                "spec.telemetry.logs.level",
            ),
            (
                r#"{"telemetry": {"traces": {"endpoint": "ftp://x"}}}"#,
                "spec.telemetry.traces.endpoint",
            ),
            (
                r#"{"telemetry": {"traces": {"endpoint": "localhost"}}}"#,
                "spec.telemetry.traces.endpoint",
            ),
            (
                r#"{"telemetry": {"traces": {"endpoint": "http://x/v1", "sample_ratio": 7}}}"#,
                "spec.telemetry.traces.sample_ratio",
            ),
        ] {
            let problem = checked(spec).expect_err(spec);
            assert_eq!(problem.field.as_deref(), Some(field), "{spec}");
            assert!(!problem.hint.is_empty(), "{spec}");
        }
        for spec in [
            "{}",
            r#"{"limits": {"drain_ms_max": 0, "feeds_max": 0}, "training_sets": {"memory_bytes_max": 0}}"#,
            r#"{"telemetry": {"logs": {"level": "WARN,headwater=debug"}}}"#,
            r#"{"telemetry": {"traces": {"endpoint": "https://x:4318/v1/traces", "sample_ratio": 0}}}"#,
        ] {
            assert!(checked(spec).is_ok(), "{spec}");
        }
    }

    #[test]
    fn defaults_are_usual_and_contradict_nothing() {
        let mut settings = Settings::default();
        assert_eq!(
            (set_limits(&settings), contradictions(&settings)),
            (vec![], vec![])
        );
        settings.limits.body_bytes_max = 1000;
        let set = SetLimit {
            name: "limits.body_bytes_max".into(),
            value: 1000,
            default: Some(64 << 20),
        };
        assert_eq!(set_limits(&settings), [set]);
        let found = contradictions(&settings);
        assert!(
            found.len() == 1 && found[0].contains("`limits.row_bytes_max` is 1048576"),
            "{found:?}"
        );
    }
}
