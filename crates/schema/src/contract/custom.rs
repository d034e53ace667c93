//! Headwater's own words in a contract: `customProperties` of the schema object.

use serde_json::Value;

use super::read::{Reading, is_time};
use super::{FieldSpec, nearest};
use crate::time::{Duration, TimeUnit, TimeZone};
use crate::{DataType, Problem};

const WORDS: [&str; 7] = [
    "headwater.eventTime",
    "headwater.factId",
    "headwater.timeUnit",
    "headwater.timeZone",
    "headwater.dedupWindow",
    "headwater.retention",
    "headwater.freshness",
];

pub(super) struct HeadwaterProperties {
    pub event_time: usize,
    pub fact_id: Vec<usize>,
    pub time_unit: Option<TimeUnit>,
    pub time_zone: Option<TimeZone>,
    pub dedup_window: Option<Duration>,
    pub retention: Option<Duration>,
    pub freshness: Option<Duration>,
}

/// Reads them all; none where the event time is missing, which nothing can do without.
pub(super) fn read_custom(
    object: &Value,
    fields: &[FieldSpec],
    pointer: &str,
    reading: &mut Reading<'_>,
) -> Option<HeadwaterProperties> {
    let words = collect(object, pointer, reading);
    let find = |word: &str| {
        let found = words.iter().find(|(name, _, _)| *name == word);
        found.map(|(_, value, pointer)| (*value, pointer.as_str()))
    };
    let time_unit = find("headwater.timeUnit").and_then(|(value, at)| parsed(value, at, reading));
    let time_zone = find("headwater.timeZone").and_then(|(value, at)| parsed(value, at, reading));
    let dedup_window =
        find("headwater.dedupWindow").and_then(|(value, at)| duration(value, at, reading));
    let retention =
        find("headwater.retention").and_then(|(value, at)| duration(value, at, reading));
    let freshness =
        find("headwater.freshness").and_then(|(value, at)| duration(value, at, reading));
    let fact_id = match find("headwater.factId") {
        Some((value, at)) => fact_id(value, at, fields, reading),
        None => Vec::new(),
    };
    if let (Some((_, at)), None) = (find("headwater.dedupWindow"), find("headwater.factId")) {
        let problem = Problem::user("dedup-without-id", "A dedup window needs a fact id").hint(
            "Name the identifying columns in `headwater.factId`, or remove `headwater.dedupWindow`",
        );
        reading.report(at, problem);
    }
    let Some((value, at)) = find("headwater.eventTime") else {
        let times = fields.iter().filter(|f| f.data_type == DataType::Timestamp);
        let guess = times.map(|f| f.name.as_ref()).next().unwrap_or("COLUMN");
        let problem = Problem::user("missing-event-time", "The contract does not say when its facts happened")
            .hint(format!(
                "Add `customProperties: [{{property: headwater.eventTime, value: {guess}}}]` to the schema object"
            ));
        reading.report(pointer, problem);
        return None;
    };
    let event_time = column(value, at, fields, reading)?;
    check_event_time(
        &fields[event_time],
        at,
        time_unit,
        time_zone.as_ref(),
        reading,
    );
    Some(HeadwaterProperties {
        event_time,
        fact_id,
        time_unit,
        time_zone,
        dedup_window,
        retention,
        freshness,
    })
}

/// Name, value and the value's pointer of every word that is known and stands once.
fn collect<'a>(
    object: &'a Value,
    pointer: &str,
    reading: &mut Reading<'_>,
) -> Vec<(&'a str, &'a Value, String)> {
    let mut words: Vec<(&str, &Value, String)> = Vec::new();
    let custom = object.get("customProperties").and_then(Value::as_array);
    for (index, property) in custom.into_iter().flatten().enumerate() {
        let at = format!("{pointer}/customProperties/{index}");
        let name = property
            .get("property")
            .and_then(Value::as_str)
            .unwrap_or_default();
        if !name.to_lowercase().starts_with("headwater") {
            continue;
        }
        if !WORDS.contains(&name) {
            let hint = match nearest(name, WORDS) {
                Some(near) => format!("Did you mean `{near}`?"),
                None => format!("Known are {}", WORDS.join(", ")),
            };
            let problem = Problem::user(
                "unknown-property",
                format!("`{name}` is no property that Headwater knows"),
            );
            reading.report(&format!("{at}/property"), problem.hint(hint));
        } else if words.iter().any(|(other, _, _)| *other == name) {
            let problem = Problem::user("duplicate-property", format!("`{name}` occurs twice"));
            reading.report(
                &format!("{at}/property"),
                problem.hint("Remove one of them"),
            );
        } else {
            words.push((name, &property["value"], format!("{at}/value")));
        }
    }
    words
}

fn parsed<T: std::str::FromStr<Err = String>>(
    value: &Value,
    at: &str,
    reading: &mut Reading<'_>,
) -> Option<T> {
    match value.as_str().unwrap_or(&value.to_string()).parse() {
        Ok(parsed) => Some(parsed),
        Err(error) => {
            let (title, hint) = error.split_once("; ").unwrap_or((&error, ""));
            reading.report(at, Problem::user("bad-value", title).hint(hint));
            None
        }
    }
}

fn duration(value: &Value, at: &str, reading: &mut Reading<'_>) -> Option<Duration> {
    let duration: Duration = parsed(value, at, reading)?;
    if duration.0 > 0 {
        return Some(duration);
    }
    let problem = Problem::user("bad-value", "A duration of nothing keeps nothing");
    reading.report(
        at,
        problem.hint("Give a longer one, or remove the property: without it nothing is forgotten"),
    );
    None
}

fn column(
    value: &Value,
    at: &str,
    fields: &[FieldSpec],
    reading: &mut Reading<'_>,
) -> Option<usize> {
    let Some(name) = value.as_str() else {
        let problem = Problem::user("bad-value", format!("{value} is no column's name"));
        reading.report(
            at,
            problem.hint("Name one of the schema object's properties"),
        );
        return None;
    };
    let index = fields.iter().position(|f| f.name.as_ref() == name);
    if index.is_none() {
        let names: Vec<&str> = fields.iter().map(|f| f.name.as_ref()).collect();
        let hint = match nearest(name, names.iter().copied()) {
            Some(near) => format!("Did you mean `{near}`?"),
            None => format!(
                "The contract has {}",
                crate::time::shorten(&names.join(", "))
            ),
        };
        let problem = Problem::user(
            "unknown-column",
            format!("The contract has no column `{name}`"),
        );
        reading.report(at, problem.hint(hint));
    }
    index
}

fn fact_id(value: &Value, at: &str, fields: &[FieldSpec], reading: &mut Reading<'_>) -> Vec<usize> {
    let names: Vec<(&Value, String)> = match value.as_array() {
        Some(items) => items
            .iter()
            .enumerate()
            .map(|(i, v)| (v, format!("{at}/{i}")))
            .collect(),
        None => vec![(value, at.to_owned())],
    };
    if names.is_empty() {
        let problem = Problem::user("bad-value", "The fact id names no column");
        reading.report(
            at,
            problem.hint("Name a column or a list of them, or remove `headwater.factId`"),
        );
    }
    let mut columns = Vec::new();
    for (name, at) in names {
        let Some(index) = column(name, &at, fields, reading) else {
            continue;
        };
        let field = &fields[index];
        if !field.data_type.is_key() {
            let title = format!(
                "`{}` is of type {}, which can't identify a fact",
                field.name, field.data_type
            );
            let problem = Problem::user("wrong-type", title);
            reading.report(
                &at,
                problem.hint("Use strings, integers, booleans, dates or timestamps"),
            );
        } else if columns.contains(&index) {
            let problem = Problem::user(
                "duplicate-column",
                format!("`{}` is named twice", field.name),
            );
            reading.report(&at, problem.hint("Remove one of them"));
        } else {
            columns.push(index);
        }
    }
    columns
}

fn check_event_time(
    field: &FieldSpec,
    at: &str,
    unit: Option<TimeUnit>,
    zone: Option<&TimeZone>,
    reading: &mut Reading<'_>,
) {
    let (name, data_type) = (&field.name, &field.data_type);
    let problem = if !is_time(data_type) {
        Problem::user(
            "wrong-type",
            format!("`{name}` is of type {data_type}, which is no time"),
        )
        .hint("Give it `logicalType: timestamp`, or `integer` with `headwater.timeUnit`")
    } else if *data_type == DataType::Int64 && unit.is_none() {
        Problem::user(
            "missing-time-unit",
            format!("`{name}` is an integer without a unit"),
        )
        .hint("Add `- {property: headwater.timeUnit, value: ms}` (s, ms, us or ns)")
    } else if *data_type == DataType::Date && zone.is_none() && field.time_zone.is_none() {
        Problem::user(
            "missing-time-zone",
            format!("`{name}` is a date, and no zone says when its day begins"),
        )
        .hint("Add `- {property: headwater.timeZone, value: Europe/Berlin}`, or use a timestamp")
    } else {
        return;
    };
    reading.report(at, problem);
}
