//! The entities of one row, as whoever asks names them.

use std::collections::BTreeMap;

use headwater_schema::{Problem, Value};
use serde_json::Value as Json;

/// The entities of one row, by entity name or by key column.
pub type EntityRequest = BTreeMap<String, KeyValue>;

/// A key: one value, or several columns by name.
#[derive(Debug, Clone, PartialEq)]
pub enum KeyValue {
    Scalar(Value),
    Columns(BTreeMap<String, Value>),
}

/// The entities of one row from JSON: names with their keys.
pub fn entity_request(entity: &BTreeMap<String, Json>) -> Result<EntityRequest, Problem> {
    let wrong = |name: &str| {
        Problem::user("wrong-key-type", "an entity's key is neither text, integer nor bool")
            .field(name)
            .hint("write {\"plane\": \"N14228\"}, or several columns as {\"route\": {\"origin\": \"EWR\", \"dest\": \"IAH\"}}")
    };
    let mut keys = EntityRequest::new();
    for (name, json) in entity {
        let value = match json {
            Json::Object(columns) => {
                let mut values = BTreeMap::new();
                for (column, json) in columns {
                    let value = key_value(json).ok_or_else(|| wrong(name))?;
                    values.insert(column.clone(), value);
                }
                KeyValue::Columns(values)
            }
            json => KeyValue::Scalar(key_value(json).ok_or_else(|| wrong(name))?),
        };
        keys.insert(name.clone(), value);
    }
    Ok(keys)
}

/// A key's value from JSON; none where it is of no type that keys have.
pub fn key_value(json: &Json) -> Option<Value> {
    match json {
        Json::String(v) => Some(Value::string(v)),
        Json::Bool(v) => Some(Value::Bool(*v)),
        Json::Number(v) => v.as_i64().map(Value::Int),
        Json::Null => Some(Value::Null),
        _ => None,
    }
}
