//! One value of any type, with the order and the equality that every store agrees on.

use std::cmp::Ordering;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{
    Array, AsArray, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float64Array,
    Int64Array, ListArray, MapArray, StringArray, StructArray, TimestampMicrosecondArray,
};
use arrow::datatypes as arrow_types;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::Micros;

/// A value of one of the types of [`DataType`](crate::DataType), or null.
///
/// Equality and order are those of `min`, `max` and keys: strings by bytes, −0.0 equal to 0.0,
/// null before everything. Values of different types order by type, so that a sort never fails.
#[derive(Debug, Clone)]
pub enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    /// `unscaled × 10^−scale`.
    Decimal {
        unscaled: i128,
        scale: i8,
    },
    Timestamp(Micros),
    Date(i32),
    String(Arc<str>),
    Bytes(Arc<[u8]>),
    List(Arc<[Value]>),
    Struct(Arc<[(Arc<str>, Value)]>),
    /// Entries in ascending order of their keys.
    Map(Arc<[(Value, Value)]>),
}

impl Value {
    pub fn string(text: impl AsRef<str>) -> Self {
        Self::String(Arc::from(text.as_ref()))
    }

    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// Row `row` of an array whose type is one that [`DataType::to_arrow`](crate::DataType::to_arrow)
    /// gives; null for any other type.
    pub fn from_array(array: &dyn Array, row: usize) -> Self {
        use arrow_types::DataType as A;
        if array.is_null(row) {
            return Self::Null;
        }
        let any = array.as_any();
        match array.data_type() {
            A::Boolean => cast(any, |a: &BooleanArray| Self::Bool(a.value(row))),
            A::Int64 => cast(any, |a: &Int64Array| Self::Int(a.value(row))),
            A::Float64 => cast(any, |a: &Float64Array| Self::Float(a.value(row))),
            A::Decimal128(_, scale) => cast(any, |a: &Decimal128Array| Self::Decimal {
                unscaled: a.value(row),
                scale: *scale,
            }),
            A::Timestamp(arrow_types::TimeUnit::Microsecond, _) => {
                cast(any, |a: &TimestampMicrosecondArray| {
                    Self::Timestamp(a.value(row))
                })
            }
            A::Date32 => cast(any, |a: &Date32Array| Self::Date(a.value(row))),
            A::Utf8 => cast(any, |a: &StringArray| Self::string(a.value(row))),
            A::Binary => cast(any, |a: &BinaryArray| Self::Bytes(Arc::from(a.value(row)))),
            A::List(_) => cast(any, |a: &ListArray| {
                let items = a.value(row);
                Self::List(
                    (0..items.len())
                        .map(|i| Self::from_array(&items, i))
                        .collect(),
                )
            }),
            A::Struct(fields) => cast(any, |a: &StructArray| {
                let members = fields.iter().zip(a.columns());
                Self::Struct(
                    members
                        .map(|(f, c)| (Arc::from(f.name().as_str()), Self::from_array(c, row)))
                        .collect(),
                )
            }),
            A::Map(_, _) => cast(any, |a: &MapArray| {
                let entries = a.value(row);
                let (keys, values) = (entries.column(0), entries.column(1));
                let mut entries: Vec<_> = (0..keys.len())
                    .map(|i| (Self::from_array(keys, i), Self::from_array(values, i)))
                    .collect();
                entries.sort_by(|a, b| a.0.cmp(&b.0));
                Self::Map(entries.into())
            }),
            A::Dictionary(_, _) => {
                let dictionary = array.as_any_dictionary();
                let key = dictionary.normalized_keys()[row];
                Self::from_array(dictionary.values().as_ref(), key)
            }
            _ => Self::Null,
        }
    }

    fn rank(&self) -> u8 {
        match self {
            Self::Null => 0,
            Self::Bool(_) => 1,
            Self::Int(_) => 2,
            Self::Float(_) => 3,
            Self::Decimal { .. } => 4,
            Self::Timestamp(_) => 5,
            Self::Date(_) => 6,
            Self::String(_) => 7,
            Self::Bytes(_) => 8,
            Self::List(_) => 9,
            Self::Struct(_) => 10,
            Self::Map(_) => 11,
        }
    }
}

fn cast<A: 'static>(any: &dyn std::any::Any, read: impl FnOnce(&A) -> Value) -> Value {
    any.downcast_ref::<A>().map_or(Value::Null, read)
}

/// The order of floats as values: −0.0 equals 0.0, NaN above everything.
pub fn compare_floats(a: f64, b: f64) -> Ordering {
    (a + 0.0).total_cmp(&(b + 0.0))
}

fn compare_decimals((a, a_scale): (i128, i8), (b, b_scale): (i128, i8)) -> Ordering {
    let power = 10i128.checked_pow(u32::from(a_scale.abs_diff(b_scale)));
    let (left, right) = match (power, a_scale < b_scale) {
        (Some(p), true) => (a.checked_mul(p), Some(b)),
        (Some(p), false) => (Some(a), b.checked_mul(p)),
        (None, _) => (None, None),
    };
    match (left, right) {
        (Some(left), Some(right)) => left.cmp(&right),
        // The side that overflows is the larger in magnitude.
        (None, Some(_)) => a.cmp(&0),
        (Some(_), None) => 0.cmp(&b),
        (None, None) => (a, a_scale).cmp(&(b, b_scale)),
    }
}

impl Ord for Value {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Bool(a), Self::Bool(b)) => a.cmp(b),
            (Self::Int(a), Self::Int(b)) | (Self::Timestamp(a), Self::Timestamp(b)) => a.cmp(b),
            (Self::Float(a), Self::Float(b)) => compare_floats(*a, *b),
            (
                Self::Decimal {
                    unscaled: a,
                    scale: s,
                },
                Self::Decimal {
                    unscaled: b,
                    scale: t,
                },
            ) => compare_decimals((*a, *s), (*b, *t)),
            (Self::Date(a), Self::Date(b)) => a.cmp(b),
            (Self::String(a), Self::String(b)) => a.as_bytes().cmp(b.as_bytes()),
            (Self::Bytes(a), Self::Bytes(b)) => a.cmp(b),
            (Self::List(a), Self::List(b)) => a.cmp(b),
            (Self::Struct(a), Self::Struct(b)) => a.cmp(b),
            (Self::Map(a), Self::Map(b)) => a.cmp(b),
            _ => self.rank().cmp(&other.rank()),
        }
    }
}

impl PartialOrd for Value {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Value {}

impl Hash for Value {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u8(self.rank());
        match self {
            Self::Null => {}
            Self::Bool(v) => v.hash(state),
            Self::Int(v) | Self::Timestamp(v) => v.hash(state),
            Self::Float(v) => (v + 0.0).to_bits().hash(state),
            Self::Decimal { unscaled, scale } => {
                // Trailing zeros don't count: 1.0 and 1.00 are equal.
                let (mut unscaled, mut scale) = (*unscaled, *scale);
                while unscaled != 0 && unscaled % 10 == 0 {
                    unscaled /= 10;
                    scale -= 1;
                }
                (unscaled, if unscaled == 0 { 0 } else { scale }).hash(state);
            }
            Self::Date(v) => v.hash(state),
            Self::String(v) => v.hash(state),
            Self::Bytes(v) => v.hash(state),
            Self::List(v) => v.hash(state),
            Self::Struct(v) => v.hash(state),
            Self::Map(v) => v.hash(state),
        }
    }
}

/// A value as text, the way it is written as the key of a map: strings as they are, timestamps as
/// RFC 3339 in UTC, bytes in base64 (the standard alphabet), nested values in brackets.
pub fn value_to_text(value: &Value) -> String {
    let join = |parts: Vec<String>| parts.join(",");
    match value {
        Value::Null => "null".into(),
        Value::Bool(v) => v.to_string(),
        Value::Int(v) => v.to_string(),
        Value::Float(v) => format!("{:?}", v + 0.0),
        Value::Decimal { unscaled, scale } => decimal_to_text(*unscaled, *scale),
        Value::Timestamp(v) => crate::time::format_timestamp(*v),
        Value::Date(v) => {
            let midnight = crate::time::format_timestamp(i64::from(*v) * 86_400_000_000);
            midnight.split('T').next().unwrap_or_default().to_owned()
        }
        Value::String(v) => v.to_string(),
        Value::Bytes(v) => STANDARD.encode(v),
        Value::List(v) => format!("[{}]", join(v.iter().map(value_to_text).collect())),
        Value::Struct(v) => {
            let member = |(n, v): &(Arc<str>, Value)| format!("{n}:{}", value_to_text(v));
            format!("{{{}}}", join(v.iter().map(member).collect()))
        }
        Value::Map(v) => {
            let entry =
                |(k, v): &(Value, Value)| format!("{}:{}", value_to_text(k), value_to_text(v));
            format!("{{{}}}", join(v.iter().map(entry).collect()))
        }
    }
}

/// A decimal as plain digits with `scale` of them after the point.
pub fn decimal_to_text(unscaled: i128, scale: i8) -> String {
    let sign = if unscaled < 0 { "-" } else { "" };
    let digits = unscaled.unsigned_abs().to_string();
    let Ok(after) = usize::try_from(scale) else {
        return format!(
            "{sign}{digits}{}",
            "0".repeat(usize::from(scale.unsigned_abs()))
        );
    };
    if after == 0 {
        return format!("{sign}{digits}");
    }
    let padded = format!("{digits:0>width$}", width = after + 1);
    let (whole, fraction) = padded.split_at(padded.len() - after);
    format!("{sign}{whole}.{fraction}")
}
