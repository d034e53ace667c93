//! `POST /push` and `POST /write-to-online-store`: columns in, facts out.
//!
//! One log holds what Feast calls online and offline, so `to` chooses nothing. A frame is taken whole
//! or not at all, since Feast's clients expect an exception rather than a list of bad rows.

use axum::body::Body;
use axum::extract::State;
use axum::http::Response;
use headwater_schema::decode::BodyFormat;
use headwater_schema::time::{TimeZone, format_timestamp, parse_date, parse_timestamp};
use headwater_schema::{Contract, DataType, Problem};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::columns::Columns;
use super::error::{FeastError, complaint, unprocessable};
use crate::backend::{IngestOptions, IngestReply, WriteTarget};
use crate::body::{read_body, read_json};
use crate::facts::ingest;
use crate::features::json_reply;
use crate::server::Shared;

/// Feast's own name of the column that says when a row happened.
const EVENT_TIMESTAMP: &str = "event_timestamp";
/// Feast's own name of the column that says when a row was made.
const CREATED: &str = "created";
/// Rows that are complained of one by one.
const COMPLAINTS_MAX: usize = 100;

/// Facts for a push source.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct PushBody {
    /// A contract.
    push_source_name: String,
    /// The contract's columns: a list of cells each, all equally long.
    #[schemars(with = "std::collections::BTreeMap<String, Vec<serde_json::Value>>")]
    df: Columns<Box<RawValue>>,
    /// `online`, `offline` or `online_and_offline`: all the same here.
    #[serde(default)]
    to: Option<String>,
}

/// Facts for a feature view.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct WriteBody {
    /// A view with one source, or a contract.
    feature_view_name: String,
    /// Keys, latest values (or the contract's columns), and `event_timestamp`.
    #[schemars(with = "std::collections::BTreeMap<String, Vec<serde_json::Value>>")]
    df: Columns<Box<RawValue>>,
}

/// How integers in a column of times are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Integers {
    /// As the contract says.
    Contract,
    /// As seconds since 1970, which is how Feast sends its own.
    Seconds,
}

/// Takes facts of a contract.
pub async fn push(State(shared): State<Shared>, body: Body) -> Result<Response<Body>, FeastError> {
    let body = read_body(body, shared.limits.body_bytes_max).await?;
    let body: PushBody = read_json(&body)?;
    if let Some(to) = &body.to
        && !["online", "offline", "online_and_offline"].contains(&to.as_str())
    {
        return Err(
            Problem::user("malformed-request", format!("`{to}` is no push mode"))
                .field("to")
                .hint("it is `online`, `offline` or `online_and_offline`")
                .into(),
        );
    }
    let target = WriteTarget {
        contract: shared.backend.contract(&body.push_source_name)?,
        aliases: Default::default(),
    };
    let reply = write(&shared, &target, &body.df, Integers::Contract).await?;
    Ok(refusal(&reply).unwrap_or_default())
}

/// Takes facts of the contract behind a view.
pub async fn write_to_online_store(
    State(shared): State<Shared>,
    body: Body,
) -> Result<Response<Body>, FeastError> {
    let body = read_body(body, shared.limits.body_bytes_max).await?;
    let body: WriteBody = read_json(&body)?;
    let target = match shared.backend.write_target(&body.feature_view_name) {
        Err(unknown) if unknown.code == "unknown-view" => {
            let contract = shared.backend.contract(&body.feature_view_name);
            WriteTarget {
                contract: contract.map_err(|_| unknown)?,
                aliases: Default::default(),
            }
        }
        found => found?,
    };
    let reply = write(&shared, &target, &body.df, Integers::Seconds).await?;
    match refusal(&reply) {
        Some(refused) => Ok(refused),
        None => Ok(json_reply(&())?),
    }
}

async fn write(
    shared: &Shared,
    target: &WriteTarget,
    df: &Columns<Box<RawValue>>,
    integers: Integers,
) -> Result<IngestReply, FeastError> {
    let rows = df.rows().map_err(|column| {
        Problem::user("malformed-request", "columns aren't equally long")
            .field("df")
            .detail(format!(
                "`{column}` has another number of cells than the first"
            ))
    })?;
    shared.limits.check_rows("df", rows)?;
    let body = to_json(target, df, rows, integers);
    let options = IngestOptions {
        all_or_nothing: true,
        // Feast lets a later row of the same key and time win.
        revise: true,
    };
    let contract = &target.contract.name;
    Ok(ingest(shared, contract, BodyFormat::Json, body.into(), options).await?)
}

/// What to answer where rows were refused.
fn refusal(reply: &IngestReply) -> Option<Response<Body>> {
    if reply.rejected.is_empty() {
        return None;
    }
    let complaints = reply.rejected.iter().take(COMPLAINTS_MAX).map(|rejected| {
        let row = rejected.row.to_string();
        let place = ["df", rejected.field.as_deref().unwrap_or_default(), &row];
        complaint("contract", &place, &rejected.reason)
    });
    Some(unprocessable(complaints.collect()))
}

/// The rows of columns as a JSON array of facts.
fn to_json(
    target: &WriteTarget,
    df: &Columns<Box<RawValue>>,
    rows: usize,
    integers: Integers,
) -> String {
    let contract = &target.contract;
    let given = |name: &str| df.0.iter().any(|(n, _)| n == name);
    let columns: Vec<Column<'_>> =
        df.0.iter()
            .filter_map(|(name, cells)| {
                let name = column_name(target, name, &given)?;
                let field = contract.field(&name);
                let time = field.is_some_and(|f| f.data_type == DataType::Timestamp);
                Some(Column {
                    name: serde_json::to_string(&name).ok()?,
                    cells,
                    time,
                })
            })
            .collect();
    let utc = TimeZone::utc();
    let mut text = String::from("[");
    for row in 0..rows {
        text.push_str(if row == 0 { "{" } else { ",{" });
        for (index, column) in columns.iter().enumerate() {
            if index > 0 {
                text.push(',');
            }
            text.push_str(&column.name);
            text.push(':');
            let cell = column.cells[row].get();
            match column.time.then(|| time(cell, &utc, integers)).flatten() {
                Some(time) => text.push_str(&time),
                None => text.push_str(cell),
            }
        }
        text.push('}');
    }
    text.push(']');
    text
}

struct Column<'a> {
    /// As a JSON string.
    name: String,
    cells: &'a [Box<RawValue>],
    time: bool,
}

/// The contract's column that a column of the frame is; none where it is Feast's alone.
fn column_name(target: &WriteTarget, name: &str, given: &dyn Fn(&str) -> bool) -> Option<String> {
    let Contract {
        fields, event_time, ..
    } = target.contract.as_ref();
    if let Some(alias) = target.aliases.get(name) {
        return Some(alias.to_string());
    }
    if target.contract.field(name).is_some() {
        return Some(name.to_owned());
    }
    let event_time = &fields[*event_time].name;
    match name {
        EVENT_TIMESTAMP if !given(event_time) => Some(event_time.to_string()),
        CREATED => None,
        // The contract decides what becomes of it.
        _ => Some(name.to_owned()),
    }
}

/// A time as the contract reads it, where it is written as only Feast reads it: without an offset it
/// is UTC, a date alone is its midnight.
fn time(cell: &str, utc: &TimeZone, integers: Integers) -> Option<String> {
    let quoted = |micros| Some(format!("\"{}\"", format_timestamp(micros)));
    if let Ok(seconds) = cell.parse::<i64>() {
        let micros = seconds.checked_mul(1_000_000)?;
        return (integers == Integers::Seconds).then(|| quoted(micros))?;
    }
    let text: std::borrow::Cow<'_, str> = serde_json::from_str(cell).ok()?;
    if parse_timestamp(&text, None).is_ok() {
        return None;
    }
    if let Ok(micros) = parse_timestamp(&text, Some(utc)) {
        return quoted(micros);
    }
    quoted(i64::from(parse_date(&text).ok()?) * 86_400_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_without_an_offset_are_utc_and_others_are_left_alone() {
        let utc = TimeZone::utc();
        let read = |cell| time(cell, &utc, Integers::Seconds);
        let stamp = Some("\"2024-01-02T03:04:05Z\"".to_owned());
        assert_eq!(read("\"2024-01-02T03:04:05\""), stamp);
        assert_eq!(read("\"2024-01-02 03:04:05\""), stamp);
        assert_eq!(read("1704164645"), stamp);
        assert_eq!(read("\"2024-01-02T03:04:05+01:00\""), None);
        assert_eq!(
            read("\"2024-01-02\""),
            Some("\"2024-01-02T00:00:00Z\"".to_owned())
        );
        assert_eq!(read("null"), None);
        assert_eq!(read("\"soon\""), None);
        assert_eq!(time("1704164645", &utc, Integers::Contract), None);
    }
}
