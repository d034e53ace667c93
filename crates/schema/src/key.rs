//! Entity keys: the values of an entity's key columns, as bytes that sort like the values.

use std::fmt;
use std::sync::Arc;

use crate::Value;

/// The key of one entity. Equal keys have equal bytes; bytes order as the key values do.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EntityKey(Arc<[u8]>);

const BOOL: u8 = 1;
const INT: u8 = 2;
const TIMESTAMP: u8 = 3;
const DATE: u8 = 4;
const STRING: u8 = 5;
const SIGN: u64 = 1 << 63;

impl EntityKey {
    /// The key made of `values`, or none where one of them is null or of a type that keys can't have.
    pub fn from_values(values: &[Value]) -> Option<Self> {
        let mut bytes = Vec::with_capacity(16);
        for value in values {
            push_value(&mut bytes, value)?;
        }
        Some(Self(bytes.into()))
    }

    /// A key from bytes that [`EntityKey::as_bytes`] gave.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The key's values, or none where the bytes are no key.
    pub fn to_values(&self) -> Option<Vec<Value>> {
        let mut values = Vec::new();
        let mut rest = &self.0[..];
        while let Some((tag, tail)) = rest.split_first() {
            let (value, tail) = read_value(*tag, tail)?;
            values.push(value);
            rest = tail;
        }
        Some(values)
    }
}

/// Appends the bytes of one key value; none where it can't be part of a key.
pub fn push_value(bytes: &mut Vec<u8>, value: &Value) -> Option<()> {
    match value {
        Value::Bool(v) => bytes.extend([BOOL, u8::from(*v)]),
        Value::Int(v) => push_int(bytes, INT, *v),
        Value::Timestamp(v) => push_int(bytes, TIMESTAMP, *v),
        Value::Date(v) => push_int(bytes, DATE, i64::from(*v)),
        Value::String(v) => push_str(bytes, v),
        _ => return None,
    }
    Some(())
}

/// Appends the bytes of an integer key value.
pub fn push_int_value(bytes: &mut Vec<u8>, value: i64) {
    push_int(bytes, INT, value);
}

/// Appends the bytes of a string key value: `00` is escaped as `00 FF`, the end is `00 00`.
pub fn push_str(bytes: &mut Vec<u8>, text: &str) {
    bytes.push(STRING);
    for byte in text.as_bytes() {
        bytes.push(*byte);
        if *byte == 0 {
            bytes.push(0xFF);
        }
    }
    bytes.extend([0, 0]);
}

fn push_int(bytes: &mut Vec<u8>, tag: u8, value: i64) {
    bytes.push(tag);
    bytes.extend((value as u64 ^ SIGN).to_be_bytes());
}

fn read_value(tag: u8, tail: &[u8]) -> Option<(Value, &[u8])> {
    match tag {
        BOOL => {
            let (v, tail) = tail.split_first()?;
            (*v <= 1).then_some((Value::Bool(*v == 1), tail))
        }
        INT | TIMESTAMP | DATE => {
            let (bytes, tail) = tail.split_first_chunk::<8>()?;
            let v = (u64::from_be_bytes(*bytes) ^ SIGN) as i64;
            let value = match tag {
                INT => Value::Int(v),
                TIMESTAMP => Value::Timestamp(v),
                _ => Value::Date(i32::try_from(v).ok()?),
            };
            Some((value, tail))
        }
        STRING => {
            let mut text = Vec::new();
            let mut rest = tail;
            loop {
                match rest {
                    [0, 0xFF, tail @ ..] => {
                        text.push(0);
                        rest = tail;
                    }
                    [0, 0, tail @ ..] => {
                        return Some((Value::string(String::from_utf8(text).ok()?), tail));
                    }
                    // A zero that is neither escaped nor the end is of no key that we made.
                    [0, ..] | [] => return None,
                    [byte, tail @ ..] => {
                        text.push(*byte);
                        rest = tail;
                    }
                }
            }
        }
        _ => None,
    }
}

impl fmt::Debug for EntityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.to_values() {
            Some(values) => f.debug_tuple("EntityKey").field(&values).finish(),
            None => f.debug_tuple("EntityKey").field(&self.0).finish(),
        }
    }
}

impl std::borrow::Borrow<[u8]> for EntityKey {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}
