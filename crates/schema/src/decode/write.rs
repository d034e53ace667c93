//! Values as JSON, the way the decoder reads them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Number, Value as Json};

use crate::Value;
use crate::contract::format_decimal;
use crate::time::{format_date, format_timestamp};

/// A value as JSON: times as RFC 3339 in UTC, decimals as text with all digits, bytes as base64.
/// NaN and the infinities, which JSON can't write, are the texts `NaN`, `Infinity` and `-Infinity`.
pub fn value_to_json(value: &Value) -> Json {
    match value {
        Value::Null => Json::Null,
        Value::Bool(v) => Json::Bool(*v),
        Value::Int(v) => Json::from(*v),
        Value::Float(v) => match Number::from_f64(*v) {
            Some(number) => Json::Number(number),
            None if v.is_nan() => Json::from("NaN"),
            None if *v > 0.0 => Json::from("Infinity"),
            None => Json::from("-Infinity"),
        },
        Value::Decimal { unscaled, scale } => Json::from(format_decimal(*unscaled, *scale)),
        Value::Timestamp(v) => Json::from(format_timestamp(*v)),
        Value::Date(v) => Json::from(format_date(*v)),
        Value::String(v) => Json::from(v.as_ref()),
        Value::Bytes(v) => Json::from(STANDARD.encode(v)),
        Value::List(items) => items.iter().map(value_to_json).collect(),
        Value::Struct(members) => Json::Object(
            members
                .iter()
                .map(|(name, member)| (name.to_string(), value_to_json(member)))
                .collect(),
        ),
        Value::Map(entries) => {
            let mut object = Map::new();
            for (key, entry) in entries.iter() {
                let key = match value_to_json(key) {
                    Json::String(text) => text,
                    other => other.to_string(),
                };
                object.insert(key, value_to_json(entry));
            }
            Json::Object(object)
        }
    }
}
