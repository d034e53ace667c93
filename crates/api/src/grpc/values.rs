//! Values between protobufs, the engine's types and the text that facts are decoded from.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use headwater_schema::time::{format_date, format_timestamp};
use headwater_schema::{Value, value_to_text};

use super::proto::headwater::value::Kind;
use super::proto::headwater::{self as proto, List, Struct};
use crate::backend::KeyValue;

/// A value as a protobuf.
pub fn to_proto(value: &Value) -> proto::Value {
    let named = |name: &Arc<str>, value| (name.to_string(), to_proto(value));
    let kind = match value {
        Value::Null => None,
        Value::Bool(v) => Some(Kind::BoolValue(*v)),
        Value::Int(v) => Some(Kind::IntValue(*v)),
        Value::Float(v) => Some(Kind::FloatValue(*v)),
        Value::Decimal { .. } => Some(Kind::DecimalValue(value_to_text(value))),
        Value::Timestamp(v) => Some(Kind::TimestampValue(*v)),
        Value::Date(v) => Some(Kind::DateValue(*v)),
        Value::String(v) => Some(Kind::StringValue(v.to_string())),
        Value::Bytes(v) => Some(Kind::BytesValue(v.to_vec())),
        Value::List(items) => Some(Kind::ListValue(List {
            items: items.iter().map(to_proto).collect(),
        })),
        Value::Struct(members) => Some(Kind::StructValue(Struct {
            fields: members.iter().map(|(n, v)| named(n, v)).collect(),
        })),
        Value::Map(entries) => {
            let entry = |(k, v): &(Value, Value)| (value_to_text(k), to_proto(v));
            Some(Kind::StructValue(Struct {
                fields: entries.iter().map(entry).collect(),
            }))
        }
    };
    proto::Value { kind }
}

/// A key, as requests write keys; none where it is of a type that no key has.
pub fn to_key(value: &proto::Value) -> Option<KeyValue> {
    if let Some(Kind::StructValue(columns)) = &value.kind {
        let columns = columns.fields.iter();
        let columns = columns.map(|(name, value)| Some((name.clone(), to_key_column(value)?)));
        return columns.collect::<Option<_>>().map(KeyValue::Columns);
    }
    to_key_column(value).map(KeyValue::Scalar)
}

fn to_key_column(value: &proto::Value) -> Option<Value> {
    Some(match &value.kind {
        None => Value::Null,
        Some(Kind::BoolValue(v)) => Value::Bool(*v),
        Some(Kind::IntValue(v) | Kind::TimestampValue(v)) => Value::Int(*v),
        Some(Kind::StringValue(v)) => Value::string(v),
        Some(Kind::DateValue(v)) => Value::string(format_date(*v)),
        Some(_) => return None,
    })
}

/// An input of a model: a number, a bool, a text, or null; none where it is something else.
pub fn to_input(value: &proto::Value) -> Option<Value> {
    Some(match &value.kind {
        None => Value::Null,
        Some(Kind::BoolValue(v)) => Value::Bool(*v),
        Some(Kind::IntValue(v)) => Value::Int(*v),
        Some(Kind::FloatValue(v)) => Value::Float(*v),
        Some(Kind::StringValue(v)) => Value::string(v),
        Some(_) => return None,
    })
}

/// Rows as JSON, one per line: the text that contracts are held against.
pub fn to_lines(rows: &[Struct]) -> Vec<u8> {
    let mut text = String::new();
    for row in rows {
        write_struct(row, &mut text);
        text.push('\n');
    }
    text.into_bytes()
}

fn write_struct(row: &Struct, text: &mut String) {
    text.push('{');
    for (index, (name, value)) in row.fields.iter().enumerate() {
        if index > 0 {
            text.push(',');
        }
        write_text(name, text);
        text.push(':');
        write(value, text);
    }
    text.push('}');
}

fn write_text(value: &str, text: &mut String) {
    text.push_str(&serde_json::Value::from(value).to_string());
}

fn write(value: &proto::Value, text: &mut String) {
    match &value.kind {
        None => text.push_str("null"),
        Some(Kind::BoolValue(v)) => text.push_str(if *v { "true" } else { "false" }),
        Some(Kind::IntValue(v)) => text.push_str(&v.to_string()),
        // JSON has no NaN and no infinities, which count as null anyway.
        Some(Kind::FloatValue(v)) => text.push_str(&serde_json::Value::from(*v).to_string()),
        Some(Kind::StringValue(v) | Kind::DecimalValue(v)) => write_text(v, text),
        Some(Kind::BytesValue(v)) => write_text(&STANDARD.encode(v), text),
        Some(Kind::TimestampValue(v)) => write_text(&format_timestamp(*v), text),
        Some(Kind::DateValue(v)) => write_text(&format_date(*v), text),
        Some(Kind::StructValue(members)) => write_struct(members, text),
        Some(Kind::ListValue(list)) => {
            text.push('[');
            for (index, item) in list.items.iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                write(item, text);
            }
            text.push(']');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_become_the_text_that_contracts_read() {
        let value = |kind| proto::Value { kind: Some(kind) };
        let fields = [
            ("a\"b", value(Kind::StringValue("x\ny".into()))),
            ("b", value(Kind::FloatValue(4.0))),
            ("c", value(Kind::FloatValue(f64::NAN))),
            ("d", value(Kind::TimestampValue(1_500_000))),
            ("e", value(Kind::DateValue(1))),
            ("f", value(Kind::BytesValue(vec![255, 0]))),
            ("g", value(Kind::DecimalValue("1.50".into()))),
            ("h", proto::Value { kind: None }),
            (
                "i",
                value(Kind::ListValue(List {
                    items: vec![value(Kind::IntValue(1)), value(Kind::BoolValue(true))],
                })),
            ),
        ];
        let row = Struct {
            fields: fields.map(|(n, v)| (n.to_owned(), v)).into(),
        };
        let expected = concat!(
            r#"{"a\"b":"x\ny","b":4.0,"c":null,"d":"1970-01-01T00:00:01.5Z","e":"1970-01-02","#,
            r#""f":"/wA=","g":"1.50","h":null,"i":[1,true]}"#,
            "\n"
        );
        assert_eq!(String::from_utf8(to_lines(&[row])).unwrap(), expected);
    }
}
