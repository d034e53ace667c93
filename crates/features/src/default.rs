//! Values from JSON: the defaults of definitions, a request's own fields.

use headwater_schema::time::{parse_date, parse_timestamp};
use headwater_schema::{DataType, Field, Problem, Value, parse_decimal};

/// The default that `json` is, for a feature of type `data_type`.
pub(crate) fn default_value(
    json: &serde_json::Value,
    data_type: &DataType,
) -> Result<Value, Problem> {
    typed_value(json, data_type).ok_or_else(|| {
        Problem::user(
            "wrong-type",
            "the default has another type than the feature",
        )
        .field("default")
        .detail(format!("it is `{json}`, the feature is {data_type}"))
    })
}

/// The value of `json` as `data_type`, without coercion; times as RFC 3339 or integer microseconds.
pub(crate) fn typed_value(json: &serde_json::Value, data_type: &DataType) -> Option<Value> {
    use serde_json::Value as Json;
    match (data_type, json) {
        (DataType::Bool, Json::Bool(v)) => Some(Value::Bool(*v)),
        (DataType::Int64, Json::Number(v)) => v.as_i64().map(Value::Int),
        (DataType::Float64, Json::Number(v)) => v.as_f64().map(Value::Float),
        (DataType::String, Json::String(v)) => Some(Value::string(v)),
        (DataType::Timestamp, Json::Number(v)) => v.as_i64().map(Value::Timestamp),
        (DataType::Timestamp, Json::String(v)) => {
            parse_timestamp(v, None).ok().map(Value::Timestamp)
        }
        (DataType::Date, Json::String(v)) => parse_date(v).ok().map(Value::Date),
        (DataType::List(item), Json::Array(items)) => {
            let items = items.iter().map(|i| typed_value(i, item));
            let items: Option<Vec<Value>> = items.collect();
            items.map(|items| Value::List(items.into()))
        }
        (DataType::Decimal { precision, scale }, Json::Number(_) | Json::String(_)) => {
            let text = json
                .as_str()
                .map_or_else(|| json.to_string(), str::to_owned);
            let unscaled = parse_decimal(&text, *precision, *scale)?;
            Some(Value::Decimal {
                unscaled,
                scale: *scale,
            })
        }
        (DataType::Map(item), Json::Object(entries)) => {
            let entries = entries
                .iter()
                .map(|(key, value)| Some((Value::string(key), typed_value(value, item)?)));
            let mut entries = entries.collect::<Option<Vec<(Value, Value)>>>()?;
            entries.sort();
            Some(Value::Map(entries.into()))
        }
        (DataType::Struct(fields), Json::Object(members)) => {
            let known = |name: &String| fields.iter().any(|f| *f.name == **name);
            if !members.keys().all(known) {
                return None;
            }
            let member = |field: &Field| match members.get(field.name.as_ref()) {
                None | Some(Json::Null) => Some((field.name.clone(), Value::Null)),
                Some(value) => Some((field.name.clone(), typed_value(value, &field.data_type)?)),
            };
            let members = fields.iter().map(member).collect::<Option<Vec<_>>>()?;
            Some(Value::Struct(members.into()))
        }
        _ => None,
    }
}
