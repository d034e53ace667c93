//! What a client of Feast asks, as the backend is asked it: names, keys, and the context of a feature set.

use headwater_schema::time::format_date;
use headwater_schema::{DataType, Field, Problem, Value};
use serde_json::Value as Json;

use super::columns::{Columns, KeyCell};
use crate::backend::{ContextRow, EntityRequest, FeaturesRequest, KeyValue, Names, ReadShape};
use crate::error::ApiError;
use crate::feature_read;
use crate::limits::Limits;

const MICROS_PER_SECOND: i64 = 1_000_000;
const SECONDS_PER_DAY: i64 = 86_400;

/// The features of a service, or those that a list of `view:feature` names.
pub fn names(service: Option<&str>, features: Option<&[String]>) -> Result<Names, Problem> {
    if let Some(service) = service.filter(|s| !s.is_empty()) {
        return Ok(Names::Set(service.to_owned()));
    }
    let features = features.unwrap_or_default();
    if features.is_empty() {
        return Err(Problem::user("malformed-request", "no feature is named")
            .field("features")
            .hint("name `features` as `view:feature`, or a `feature_service`"));
    }
    let full = features.iter().map(|f| full_name(f));
    full.collect::<Result<_, _>>().map(Names::List)
}

/// `view:feature` (or `view@latest:feature`) as `view.feature`.
fn full_name(reference: &str) -> Result<String, Problem> {
    let wrong = || {
        Problem::user(
            "malformed-request",
            format!("`{reference}` is no feature reference"),
        )
        .field("features")
        .hint("write `view:feature`")
    };
    let (view, feature) = reference.split_once(':').ok_or_else(wrong)?;
    let view = view.strip_suffix("@latest").unwrap_or(view);
    if view.contains('@') {
        return Err(
            Problem::user("unknown-view", format!("there is no view `{view}`"))
                .hint("views have no numbered versions here: leave out what follows the `@`"),
        );
    }
    Ok(format!("{view}.{feature}"))
}

/// What the backend is asked for. Fields of the context that `asked` has are columns of `own`, or of `entities` as
/// Feast's own server takes them.
pub fn features_request(
    names: Names,
    entities: &Columns<KeyCell>,
    own: &Columns<KeyCell>,
    asked: &ReadShape,
    limits: &Limits,
) -> Result<FeaturesRequest, ApiError> {
    let rows = rows(entities, own)?;
    // Fields of the context are columns of the same rows.
    feature_read::check_size(&names, rows, rows, limits)?;
    let row = |row: usize| {
        let columns = entities.0.iter();
        let columns = columns.filter(|(name, _)| asked.may_be_key(name));
        columns
            .map(|(name, cells)| (name.clone(), KeyValue::Scalar(key(&cells[row].0))))
            .collect::<EntityRequest>()
    };
    Ok(FeaturesRequest {
        names,
        entities: (0..rows).map(row).collect(),
        as_of: None,
        known_at: None,
        context: context(&asked.context, entities, own, rows)?,
        inclusive: true,
        lenient: true,
    })
}

/// How many rows all columns have.
fn rows(entities: &Columns<KeyCell>, own: &Columns<KeyCell>) -> Result<usize, Problem> {
    let columns = || {
        let entities = entities.0.iter().map(|column| ("entities", column));
        entities.chain(own.0.iter().map(|column| ("request_context", column)))
    };
    let rows = columns().next().map_or(0, |(_, (_, cells))| cells.len());
    match columns().find(|(_, (_, cells))| cells.len() != rows) {
        None => Ok(rows),
        Some((place, (name, _))) => Err(Problem::user(
            "malformed-request",
            "the columns aren't equally long",
        )
        .field(place)
        .detail(format!(
            "`{name}` has another number of values than the first"
        ))),
    }
}

/// Times as keys are microseconds.
fn key(cell: &Value) -> Value {
    match cell {
        Value::Timestamp(micros) => Value::Int(*micros),
        plain => plain.clone(),
    }
}

/// The declared fields of every row; none where none is declared.
fn context(
    declared: &[Field],
    entities: &Columns<KeyCell>,
    own: &Columns<KeyCell>,
    rows: usize,
) -> Result<Vec<ContextRow>, Problem> {
    if declared.is_empty() {
        return Ok(Vec::new());
    }
    let mut context = vec![ContextRow::new(); rows];
    for field in declared {
        let mut columns = own.0.iter().chain(&entities.0);
        let (_, cells) = columns
            .find(|(name, _)| **name == *field.name)
            .ok_or_else(|| missing(field))?;
        for (row, cell) in context.iter_mut().zip(cells) {
            row.insert(field.name.to_string(), as_json(&cell.0, &field.data_type));
        }
    }
    Ok(context)
}

fn missing(field: &Field) -> Problem {
    Problem::user(
        "missing-context",
        format!("the request has no column `{}`", field.name),
    )
    .field("entities")
    .detail("the feature set declares it as a field of its context")
    .hint(format!(
        "add it to `entities` or `request_context`, of type {}, null where there is no value",
        field.data_type
    ))
}

/// A cell as a field of context is written. Integers are seconds where times and dates are meant, as everywhere in
/// Feast; what is no scalar becomes what no field is.
fn as_json(cell: &Value, data_type: &DataType) -> Json {
    let day = |seconds: i64| {
        let days = seconds.div_euclid(SECONDS_PER_DAY);
        let whole = seconds.rem_euclid(SECONDS_PER_DAY) == 0;
        let days = i32::try_from(days).ok().filter(|_| whole);
        days.map_or(Json::from(seconds), |days| format_date(days).into())
    };
    match (cell, data_type) {
        (Value::Int(seconds), DataType::Timestamp) => {
            seconds.saturating_mul(MICROS_PER_SECOND).into()
        }
        (Value::Int(seconds), DataType::Date) => day(*seconds),
        (Value::Timestamp(micros), DataType::Date) => day(micros.div_euclid(MICROS_PER_SECOND)),
        (Value::Null, _) => Json::Null,
        (Value::Bool(v), _) => Json::from(*v),
        (Value::Int(v) | Value::Timestamp(v), _) => Json::from(*v),
        // JSON has no NaN and no infinities, which count as null anyway.
        (Value::Float(v), _) => Json::from(*v),
        (Value::String(v), _) => Json::from(&**v),
        (Value::Decimal { unscaled, .. }, DataType::Float64) => Json::from(*unscaled as f64),
        _ => Json::Array(Vec::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_become_full_names() {
        assert_eq!(full_name("a:b_1h").unwrap(), "a.b_1h");
        assert_eq!(full_name("a@latest:b").unwrap(), "a.b");
        assert_eq!(full_name("a@v2:b").unwrap_err().code, "unknown-view");
        assert_eq!(full_name("a.b").unwrap_err().code, "malformed-request");
    }

    #[test]
    fn times_of_context_are_seconds() {
        let json = |cell: Value, data_type| as_json(&cell, &data_type);
        let day = 20_000 * SECONDS_PER_DAY;
        assert_eq!(json(Value::Int(3), DataType::Timestamp), 3_000_000);
        assert_eq!(
            json(Value::Timestamp(3_000_000), DataType::Timestamp),
            3_000_000
        );
        assert_eq!(json(Value::Int(day), DataType::Date), "2024-10-04");
        assert_eq!(
            json(Value::Timestamp(day * MICROS_PER_SECOND), DataType::Date),
            "2024-10-04"
        );
        assert_eq!(
            json(Value::Int(day + 1), DataType::Date),
            day + 1,
            "no date is a part of a day"
        );
        assert_eq!(json(Value::Int(3), DataType::Int64), 3);
    }

    #[test]
    fn a_number_beyond_64_bits_is_a_number_and_a_list_is_nothing() {
        let large = || Value::Decimal {
            unscaled: i128::from(u64::MAX),
            scale: 0,
        };
        assert!(as_json(&large(), &DataType::Float64).is_number());
        assert!(as_json(&large(), &DataType::Int64).is_array());
        assert!(as_json(&Value::List([].into()), &DataType::String).is_array());
        assert!(as_json(&Value::Float(f64::NAN), &DataType::Float64).is_null());
    }
}
