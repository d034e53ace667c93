//! Values of one feature in some rows, by type.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Date32Array, Float64Array, Int64Array, StringArray,
    TimestampMicrosecondArray,
};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use headwater_schema::{DataType, Problem, Value, array_from_values};

use super::values::BLOCK_ROWS;

pub(super) struct Column {
    pub nulls: Vec<bool>,
    pub data: Data,
}

pub(super) enum Data {
    Bool(Vec<bool>),
    /// Integers and timestamps.
    Int(Vec<i64>),
    Date(Vec<i32>),
    Float(Vec<f64>),
    /// The bytes of all texts, and where each ends.
    Text(Vec<u8>, Vec<usize>),
    Other(Vec<Value>),
}

/// Bytes of a value where it lies in its column.
pub(super) fn width(data_type: &DataType) -> usize {
    match data_type {
        DataType::Bool => 1,
        DataType::Date => 4,
        DataType::Int64 | DataType::Timestamp | DataType::Float64 | DataType::String => 8,
        _ => size_of::<Value>(),
    }
}

/// About how many bytes a value has elsewhere.
pub(super) fn heap_bytes(value: &Value) -> usize {
    let inner = |value: &Value| size_of::<Value>() + heap_bytes(value);
    match value {
        Value::String(text) => 16 + text.len(),
        Value::Bytes(bytes) => 16 + bytes.len(),
        Value::List(items) => 16 + items.iter().map(inner).sum::<usize>(),
        Value::Struct(members) => members.iter().map(|(_, v)| 32 + inner(v)).sum(),
        Value::Map(entries) => entries.iter().map(|(k, v)| inner(k) + inner(v)).sum(),
        _ => 0,
    }
}

fn texts(
    bytes: Vec<u8>,
    ends: &[usize],
    nulls: Option<NullBuffer>,
) -> Result<StringArray, Problem> {
    let wrong = |e: &dyn std::fmt::Display| {
        Problem::internal("sweep", "texts can't be put together").detail(e)
    };
    i32::try_from(bytes.len()).map_err(|e| wrong(&e))?;
    let offsets = std::iter::once(0).chain(ends.iter().map(|end| *end as i32));
    let offsets = OffsetBuffer::new(ScalarBuffer::from(offsets.collect::<Vec<i32>>()));
    StringArray::try_new(offsets, Buffer::from_vec(bytes), nulls).map_err(|e| wrong(&e))
}

impl Column {
    pub(super) fn new(data_type: &DataType, rows: usize) -> Self {
        let data = match data_type {
            DataType::Bool => Data::Bool(Vec::with_capacity(rows)),
            DataType::Int64 | DataType::Timestamp => Data::Int(Vec::with_capacity(rows)),
            DataType::Date => Data::Date(Vec::with_capacity(rows)),
            DataType::Float64 => Data::Float(Vec::with_capacity(rows)),
            DataType::String => Data::Text(Vec::new(), Vec::with_capacity(rows)),
            _ => Data::Other(Vec::with_capacity(rows)),
        };
        Self {
            nulls: Vec::with_capacity(rows),
            data,
        }
    }

    /// What some columns, each of a block, have at some places.
    pub(super) fn picked(data_type: &DataType, columns: &[&Self], places: &[usize]) -> Self {
        let of = |place: &usize| (columns[place / BLOCK_ROWS], place % BLOCK_ROWS);
        let nulls = places.iter().map(of).map(|(column, row)| column.nulls[row]);
        /// What each block of one type has, and the values at the places.
        macro_rules! pick {
            ($variant:path) => {{
                let blocks = columns.iter().map(|column| match &column.data {
                    $variant(values) => values.as_slice(),
                    _ => &[],
                });
                let blocks: Vec<&[_]> = blocks.collect();
                let at = |place: &usize| blocks[place / BLOCK_ROWS][place % BLOCK_ROWS].clone();
                $variant(places.iter().map(at).collect())
            }};
        }
        let data = match data_type {
            DataType::Bool => pick!(Data::Bool),
            DataType::Int64 | DataType::Timestamp => pick!(Data::Int),
            DataType::Date => pick!(Data::Date),
            DataType::Float64 => pick!(Data::Float),
            DataType::String => {
                let (mut bytes, mut ends) = (Vec::new(), Vec::with_capacity(places.len()));
                for (column, row) in places.iter().map(of) {
                    bytes.extend_from_slice(column.data.text(row));
                    ends.push(bytes.len());
                }
                Data::Text(bytes, ends)
            }
            _ => pick!(Data::Other),
        };
        Self {
            nulls: nulls.collect(),
            data,
        }
    }

    /// Takes a value; the bytes that it takes elsewhere.
    pub(super) fn push(&mut self, value: &Value) -> usize {
        let mut beside = 0;
        match (&mut self.data, value) {
            (Data::Bool(values), Value::Bool(v)) => values.push(*v),
            (Data::Int(values), Value::Int(v) | Value::Timestamp(v)) => values.push(*v),
            (Data::Date(values), Value::Date(v)) => values.push(*v),
            (Data::Float(values), Value::Float(v)) => values.push(*v),
            (Data::Text(bytes, ends), Value::String(text)) => {
                bytes.extend_from_slice(text.as_bytes());
                ends.push(bytes.len());
                beside = text.len();
            }
            (Data::Other(values), value) => {
                values.push(value.clone());
                beside = heap_bytes(value);
                self.nulls.push(value.is_null());
                return beside;
            }
            _ => {
                self.data.push_default();
                self.nulls.push(true);
                return 0;
            }
        }
        self.nulls.push(false);
        beside
    }

    /// Takes a float, unless it counts as null; whether it did.
    pub(super) fn push_float(&mut self, value: f64) -> bool {
        match &mut self.data {
            Data::Float(values) if value.is_finite() => {
                // −0.0 is 0.0.
                values.push(value + 0.0);
                self.nulls.push(false);
                true
            }
            _ => false,
        }
    }

    /// Takes an integer or a timestamp; whether it did.
    pub(super) fn push_int(&mut self, value: i64) -> bool {
        match &mut self.data {
            Data::Int(values) => {
                values.push(value);
                self.nulls.push(false);
                true
            }
            _ => false,
        }
    }

    /// Takes a text; whether it did.
    pub(super) fn push_text(&mut self, text: &str) -> bool {
        match &mut self.data {
            Data::Text(bytes, ends) => {
                bytes.extend_from_slice(text.as_bytes());
                ends.push(bytes.len());
                self.nulls.push(false);
                true
            }
            _ => false,
        }
    }

    /// The bytes that all values take elsewhere.
    pub(super) fn beside_bytes(&self) -> usize {
        match &self.data {
            Data::Text(bytes, _) => bytes.len(),
            Data::Other(values) => values.iter().map(heap_bytes).sum(),
            _ => 0,
        }
    }

    /// The values as an array.
    pub(super) fn finish(self, data_type: &DataType) -> Result<ArrayRef, Problem> {
        let valid = |row: usize| !self.nulls[row];
        let nulls = self
            .nulls
            .contains(&true)
            .then(|| NullBuffer::new(BooleanBuffer::collect_bool(self.nulls.len(), valid)));
        Ok(match (self.data, data_type) {
            (Data::Bool(values), _) => Arc::new(BooleanArray::new(values.into(), nulls)),
            (Data::Int(values), DataType::Timestamp) => {
                let times = TimestampMicrosecondArray::new(values.into(), nulls);
                Arc::new(times.with_timezone("UTC"))
            }
            (Data::Int(values), _) => Arc::new(Int64Array::new(values.into(), nulls)),
            (Data::Date(values), _) => Arc::new(Date32Array::new(values.into(), nulls)),
            (Data::Float(values), _) => Arc::new(Float64Array::new(values.into(), nulls)),
            (Data::Text(bytes, ends), _) => Arc::new(texts(bytes, &ends, nulls)?),
            (Data::Other(values), other) => array_from_values(other, values.iter())?,
        })
    }

    pub(super) fn get(&self, row: usize, data_type: &DataType) -> Value {
        if self.nulls[row] {
            return Value::Null;
        }
        match &self.data {
            Data::Bool(values) => Value::Bool(values[row]),
            Data::Int(values) if *data_type == DataType::Timestamp => Value::Timestamp(values[row]),
            Data::Int(values) => Value::Int(values[row]),
            Data::Date(values) => Value::Date(values[row]),
            Data::Float(values) => Value::Float(values[row]),
            Data::Text(..) => Value::string(String::from_utf8_lossy(self.data.text(row))),
            Data::Other(values) => values[row].clone(),
        }
    }
}

impl Data {
    fn push_default(&mut self) {
        match self {
            Self::Bool(values) => values.push(false),
            Self::Int(values) => values.push(0),
            Self::Date(values) => values.push(0),
            Self::Float(values) => values.push(0.0),
            Self::Text(bytes, ends) => ends.push(bytes.len()),
            Self::Other(values) => values.push(Value::Null),
        }
    }

    fn text(&self, row: usize) -> &[u8] {
        match self {
            Self::Text(bytes, ends) => {
                let start = row.checked_sub(1).map_or(0, |before| ends[before]);
                &bytes[start..ends[row]]
            }
            _ => &[],
        }
    }
}
