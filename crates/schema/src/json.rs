//! Values as JSON.

use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};

use crate::time::{format_date, format_timestamp};
use crate::{Value, value_to_text};

/// A value that is written as JSON: times as RFC 3339 in UTC, bytes in base64, decimals as
/// strings (JSON's numbers are floats to many readers), floats that JSON can't hold as null.
pub struct JsonValue<'a>(pub &'a Value);

impl Serialize for JsonValue<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Null => serializer.serialize_unit(),
            Value::Bool(v) => serializer.serialize_bool(*v),
            Value::Int(v) => serializer.serialize_i64(*v),
            Value::Float(v) => serializer.serialize_f64(*v),
            Value::Timestamp(v) => serializer.serialize_str(&format_timestamp(*v)),
            Value::Date(v) => serializer.serialize_str(&format_date(*v)),
            Value::String(v) => serializer.serialize_str(v),
            Value::Decimal { .. } | Value::Bytes(_) => {
                serializer.serialize_str(&value_to_text(self.0))
            }
            Value::List(items) => {
                let mut list = serializer.serialize_seq(Some(items.len()))?;
                for item in items.iter() {
                    list.serialize_element(&JsonValue(item))?;
                }
                list.end()
            }
            Value::Struct(members) => {
                let mut map = serializer.serialize_map(Some(members.len()))?;
                for (name, value) in members.iter() {
                    map.serialize_entry(name.as_ref(), &JsonValue(value))?;
                }
                map.end()
            }
            Value::Map(entries) => {
                let mut map = serializer.serialize_map(Some(entries.len()))?;
                for (key, value) in entries.iter() {
                    map.serialize_entry(&value_to_text(key), &JsonValue(value))?;
                }
                map.end()
            }
        }
    }
}

/// A value as JSON.
pub fn value_to_json(value: &Value) -> serde_json::Value {
    serde_json::to_value(JsonValue(value)).unwrap_or_default()
}

/// The same as text. A float is written so that it reads back to the same bits.
pub fn json_text(value: &Value) -> String {
    serde_json::to_string(&JsonValue(value)).unwrap_or_default()
}
