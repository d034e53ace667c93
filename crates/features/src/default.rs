//! Defaults: a JSON value from a definition, as a value of the feature's type.

use headwater_schema::time::{parse_date, parse_timestamp};
use headwater_schema::{DataType, Field, Problem, Value, parse_decimal};

/// The value of `json` as `data_type`, without coercion.
pub(crate) fn default_value(
    json: &serde_json::Value,
    data_type: &DataType,
) -> Result<Value, Problem> {
    use serde_json::Value as Json;
    let wrong = || {
        Problem::user(
            "wrong-type",
            "the default has another type than the feature",
        )
        .field("default")
        .detail(format!("it is `{json}`, the feature is {data_type}"))
    };
    match (data_type, json) {
        (DataType::Bool, Json::Bool(v)) => Ok(Value::Bool(*v)),
        (DataType::Int64, Json::Number(v)) => v.as_i64().map(Value::Int).ok_or_else(wrong),
        (DataType::Float64, Json::Number(v)) => v.as_f64().map(Value::Float).ok_or_else(wrong),
        (DataType::String, Json::String(v)) => Ok(Value::string(v)),
        (DataType::Timestamp, Json::String(v)) => parse_timestamp(v, None)
            .map(Value::Timestamp)
            .map_err(|_| wrong()),
        (DataType::Date, Json::String(v)) => parse_date(v).map(Value::Date).map_err(|_| wrong()),
        (DataType::List(item), Json::Array(items)) => {
            let items: Result<Vec<Value>, Problem> =
                items.iter().map(|i| default_value(i, item)).collect();
            items
                .map(|items| Value::List(items.into()))
                .map_err(|_| wrong())
        }
        (DataType::Decimal { precision, scale }, Json::Number(_) | Json::String(_)) => {
            let text = json
                .as_str()
                .map_or_else(|| json.to_string(), str::to_owned);
            let unscaled = parse_decimal(&text, *precision, *scale).ok_or_else(wrong)?;
            Ok(Value::Decimal {
                unscaled,
                scale: *scale,
            })
        }
        (DataType::Map(item), Json::Object(entries)) => {
            let entry = |(key, value): (&String, &Json)| {
                Ok((Value::string(key), default_value(value, item)?))
            };
            let entries: Result<Vec<(Value, Value)>, Problem> = entries.iter().map(entry).collect();
            let mut entries = entries.map_err(|_| wrong())?;
            entries.sort();
            Ok(Value::Map(entries.into()))
        }
        (DataType::Struct(fields), Json::Object(members)) => {
            let known = |name: &String| fields.iter().any(|f| *f.name == **name);
            if !members.keys().all(known) {
                return Err(wrong());
            }
            let member = |field: &Field| match members.get(field.name.as_ref()) {
                None | Some(Json::Null) => Ok((field.name.clone(), Value::Null)),
                Some(value) => Ok((field.name.clone(), default_value(value, &field.data_type)?)),
            };
            let members: Result<Vec<_>, Problem> = fields.iter().map(member).collect();
            members
                .map(|members| Value::Struct(members.into()))
                .map_err(|_| wrong())
        }
        _ => Err(wrong()),
    }
}
