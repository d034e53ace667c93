//! How fresh the facts of a contract should be: `property: freshness` among a document's
//! `slaProperties`, with `value` and `unit`, for the schema objects that `element` names, or all.
//!
//! ODCS leaves the names of service levels open. `latency` isn't read here: it is the time between an
//! event and its arrival, not the age of the newest fact.

use serde_json::Value;

use super::read::Reading;
use crate::Problem;
use crate::time::Duration;

/// What a document promises of freshness.
pub(super) struct Freshness(Vec<Level>);

struct Level {
    within: Duration,
    /// The schema objects it holds for; all where none is named.
    objects: Vec<String>,
}

impl Freshness {
    /// What is promised of a schema object; the shortest where there are several.
    pub fn of(&self, object: &str) -> Option<Duration> {
        let holds = |l: &&Level| l.objects.is_empty() || l.objects.iter().any(|o| o == object);
        let levels = self.0.iter().filter(holds);
        levels.map(|l| l.within).min_by_key(|d| d.0)
    }
}

/// Reads a document's service levels; all others are kept for readers.
pub(super) fn read_freshness(document: &Value, reading: &mut Reading<'_>) -> Freshness {
    let levels = document.get("slaProperties").and_then(Value::as_array);
    let objects: Vec<&str> = document["schema"]
        .as_array()
        .map(|objects| objects.iter().filter_map(|o| o["name"].as_str()).collect())
        .unwrap_or_default();
    let mut found = Vec::new();
    for (index, level) in levels.into_iter().flatten().enumerate() {
        let at = format!("/slaProperties/{index}");
        let property = level["property"].as_str().unwrap_or_default();
        if !property.eq_ignore_ascii_case("freshness") {
            reading.skip(
                &at,
                format!("the service level `{property}` is kept for readers"),
            );
            continue;
        }
        match within(level) {
            Ok(within) => {
                if let Some(objects) = elements(level, &objects, &at, reading) {
                    found.push(Level { within, objects });
                }
            }
            Err(problem) => reading.report(&format!("{at}/value"), problem),
        }
    }
    Freshness(found)
}

/// `value: 15` with `unit: minutes`, or `value: 15m`.
fn within(level: &Value) -> Result<Duration, Problem> {
    let wrong = |title: String| {
        Problem::user("bad-value", title)
            .hint("Write `value: 15` with `unit: m` (s, m, h, d or w), or `value: 15m`")
    };
    let value = match &level["value"] {
        Value::String(text) => text.clone(),
        value => value.to_string(),
    };
    let text = match level["unit"].as_str() {
        None => value,
        Some(unit) => format!("{value}{}", short_unit(unit)),
    };
    let within: Duration = text
        .parse()
        .map_err(|_| wrong(format!("`{text}` is no duration")))?;
    if within.0 <= 0 {
        return Err(wrong("Nothing can be as fresh as that".into()));
    }
    Ok(within)
}

/// A unit as durations have it; what isn't known stays, and is no duration.
fn short_unit(unit: &str) -> &str {
    match unit {
        "second" | "seconds" | "sec" => "s",
        "minute" | "minutes" | "min" => "m",
        "hour" | "hours" | "hr" => "h",
        "day" | "days" => "d",
        "week" | "weeks" => "w",
        other => other,
    }
}

/// The schema objects of `element`, written as `object` or `object.property`.
fn elements(
    level: &Value,
    objects: &[&str],
    at: &str,
    reading: &mut Reading<'_>,
) -> Option<Vec<String>> {
    let named = level["element"].as_str().unwrap_or_default();
    let mut found = Vec::new();
    for element in named.split(',').map(str::trim).filter(|e| !e.is_empty()) {
        let object = element.split('.').next().unwrap_or_default();
        if !objects.contains(&object) {
            let problem = Problem::user(
                "unknown-element",
                format!("The contract has no schema object `{object}`"),
            )
            .hint(format!("It has {}", objects.join(", ")));
            reading.report(&format!("{at}/element"), problem);
            return None;
        }
        found.push(object.to_owned());
    }
    Some(found)
}
