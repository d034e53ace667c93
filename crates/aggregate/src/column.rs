//! The values that a view keeps of its facts, one typed column per input.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BooleanArray, Date32Array, Float64Array, Int64Array, StringArray,
    TimestampMicrosecondArray, UInt32Array,
};
use headwater_schema::{DataType, Problem, Value};

/// Values of one input, in the order of the facts they belong to.
#[derive(Debug, Clone)]
pub enum Column {
    /// 0, 1, or 2 for null.
    Bool(Vec<u8>),
    Int(Vec<i64>, Nulls),
    Timestamp(Vec<i64>, Nulls),
    Date(Vec<i32>, Nulls),
    /// Null is NaN: NaN and infinities in input count as null.
    Float(Vec<f64>),
    String(Vec<Option<Arc<str>>>),
    Other(Vec<Value>),
}

const NULL_BOOL: u8 = 2;

/// Which rows are null; empty while none is.
#[derive(Debug, Clone, Default)]
pub struct Nulls(Vec<bool>);

impl Nulls {
    pub fn is_null(&self, row: usize) -> bool {
        self.0.get(row).copied().unwrap_or(false)
    }

    pub fn none(&self) -> bool {
        self.0.is_empty()
    }

    fn insert(&mut self, row: usize, len: usize, null: bool) {
        if self.0.is_empty() {
            if !null {
                return;
            }
            self.0 = vec![false; len];
        }
        self.0.insert(row, null);
    }

    fn clear(&mut self) {
        self.0.clear();
    }

    fn remove(&mut self, row: usize) {
        if !self.0.is_empty() {
            self.0.remove(row);
        }
    }

    fn split_off(&mut self, at: usize) -> Self {
        if self.0.is_empty() {
            return Self::default();
        }
        Self(self.0.split_off(at))
    }
}

impl Column {
    pub fn new(data_type: &DataType) -> Self {
        match data_type {
            DataType::Bool => Self::Bool(Vec::new()),
            DataType::Int64 => Self::Int(Vec::new(), Nulls::default()),
            DataType::Timestamp => Self::Timestamp(Vec::new(), Nulls::default()),
            DataType::Date => Self::Date(Vec::new(), Nulls::default()),
            DataType::Float64 => Self::Float(Vec::new()),
            DataType::String => Self::String(Vec::new()),
            _ => Self::Other(Vec::new()),
        }
    }

    pub fn len(&self) -> usize {
        match self {
            Self::Bool(v) => v.len(),
            Self::Int(v, _) | Self::Timestamp(v, _) => v.len(),
            Self::Date(v, _) => v.len(),
            Self::Float(v) => v.len(),
            Self::String(v) => v.len(),
            Self::Other(v) => v.len(),
        }
    }

    pub fn get(&self, row: usize) -> Value {
        match self {
            Self::Bool(v) if v[row] == NULL_BOOL => Value::Null,
            Self::Bool(v) => Value::Bool(v[row] == 1),
            Self::Int(_, nulls) | Self::Timestamp(_, nulls) | Self::Date(_, nulls)
                if nulls.is_null(row) =>
            {
                Value::Null
            }
            Self::Int(v, _) => Value::Int(v[row]),
            Self::Timestamp(v, _) => Value::Timestamp(v[row]),
            Self::Date(v, _) => Value::Date(v[row]),
            Self::Float(v) if v[row].is_nan() => Value::Null,
            Self::Float(v) => Value::Float(v[row]),
            Self::String(v) => v[row].clone().map_or(Value::Null, Value::String),
            Self::Other(v) => v[row].clone(),
        }
    }

    /// Inserts a value before `row`. A value of another type than the column's becomes null.
    pub fn insert(&mut self, row: usize, value: Value) {
        let len = self.len();
        match (self, value) {
            (Self::Bool(v), Value::Bool(b)) => v.insert(row, u8::from(b)),
            (Self::Bool(v), _) => v.insert(row, NULL_BOOL),
            (Self::Int(v, nulls), Value::Int(i))
            | (Self::Timestamp(v, nulls), Value::Timestamp(i)) => {
                v.insert(row, i);
                nulls.insert(row, len, false);
            }
            (Self::Int(v, nulls) | Self::Timestamp(v, nulls), _) => {
                v.insert(row, 0);
                nulls.insert(row, len, true);
            }
            (Self::Date(v, nulls), Value::Date(d)) => {
                v.insert(row, d);
                nulls.insert(row, len, false);
            }
            (Self::Date(v, nulls), _) => {
                v.insert(row, 0);
                nulls.insert(row, len, true);
            }
            (Self::Float(v), Value::Float(f)) => v.insert(row, finite_or_null(f)),
            (Self::Float(v), _) => v.insert(row, f64::NAN),
            (Self::String(v), Value::String(s)) => v.insert(row, Some(s)),
            (Self::String(v), _) => v.insert(row, None),
            (Self::Other(v), value) => v.insert(row, value),
        }
    }

    pub fn clear(&mut self) {
        match self {
            Self::Bool(v) => v.clear(),
            Self::Int(v, nulls) | Self::Timestamp(v, nulls) => {
                v.clear();
                nulls.clear();
            }
            Self::Date(v, nulls) => {
                v.clear();
                nulls.clear();
            }
            Self::Float(v) => v.clear(),
            Self::String(v) => v.clear(),
            Self::Other(v) => v.clear(),
        }
    }

    pub fn remove(&mut self, row: usize) {
        match self {
            Self::Bool(v) => drop(v.remove(row)),
            Self::Int(v, nulls) | Self::Timestamp(v, nulls) => {
                v.remove(row);
                nulls.remove(row);
            }
            Self::Date(v, nulls) => {
                v.remove(row);
                nulls.remove(row);
            }
            Self::Float(v) => drop(v.remove(row)),
            Self::String(v) => drop(v.remove(row)),
            Self::Other(v) => drop(v.remove(row)),
        }
    }

    pub fn split_off(&mut self, at: usize) -> Self {
        match self {
            Self::Bool(v) => Self::Bool(v.split_off(at)),
            Self::Int(v, nulls) => Self::Int(v.split_off(at), nulls.split_off(at)),
            Self::Timestamp(v, nulls) => Self::Timestamp(v.split_off(at), nulls.split_off(at)),
            Self::Date(v, nulls) => Self::Date(v.split_off(at), nulls.split_off(at)),
            Self::Float(v) => Self::Float(v.split_off(at)),
            Self::String(v) => Self::String(v.split_off(at)),
            Self::Other(v) => Self::Other(v.split_off(at)),
        }
    }

    /// About how many bytes of memory the values take.
    pub fn size_bytes(&self) -> usize {
        match self {
            Self::Bool(v) => v.capacity(),
            Self::Int(v, n) | Self::Timestamp(v, n) => v.capacity() * 8 + n.0.capacity(),
            Self::Date(v, n) => v.capacity() * 4 + n.0.capacity(),
            Self::Float(v) => v.capacity() * 8,
            Self::String(v) => {
                let text: usize = v.iter().flatten().map(|s| s.len() + 16).sum();
                v.capacity() * 16 + text
            }
            Self::Other(v) => v.capacity() * 48,
        }
    }
}

/// −0.0 becomes 0.0, so that equal values have equal bits; NaN and infinities become the null.
fn finite_or_null(value: f64) -> f64 {
    if value.is_finite() {
        value + 0.0
    } else {
        f64::NAN
    }
}

/// The floats within a value that aren't kept as they are.
fn floats_within(value: &Value, count: fn(f64) -> bool) -> u64 {
    let within = |v: &Value| floats_within(v, count);
    match value {
        Value::Float(v) => u64::from(count(*v)),
        Value::List(items) => items.iter().map(within).sum(),
        Value::Struct(members) => members.iter().map(|(_, v)| within(v)).sum(),
        Value::Map(entries) => entries.iter().map(|(_, v)| within(v)).sum(),
        _ => 0,
    }
}

/// [`finite_or_null`] of every float within a value.
fn clean(value: &Value) -> Value {
    match value {
        Value::Float(v) if !v.is_finite() => Value::Null,
        Value::Float(v) => Value::Float(v + 0.0),
        Value::List(items) => Value::List(items.iter().map(clean).collect()),
        Value::Struct(members) => {
            let members = members.iter();
            Value::Struct(members.map(|(n, v)| (n.clone(), clean(v))).collect())
        }
        Value::Map(entries) => {
            let entries = entries.iter();
            Value::Map(entries.map(|(k, v)| (k.clone(), clean(v))).collect())
        }
        other => other.clone(),
    }
}

/// One input of a batch of facts, ready to be read row by row without another type check.
#[derive(Clone)]
pub enum InputColumn {
    /// No source feeds the input: null in every row.
    Missing,
    Bool(BooleanArray),
    Int(Int64Array),
    Timestamp(TimestampMicrosecondArray),
    Date(Date32Array),
    Float(Float64Array),
    String(StringArray),
    Other(ArrayRef),
}

impl InputColumn {
    /// An input from an array of the Arrow type that [`DataType::to_arrow`] gives.
    pub fn new(array: &ArrayRef) -> Self {
        let any = array.as_any();
        if let Some(a) = any.downcast_ref::<Float64Array>() {
            Self::Float(a.clone())
        } else if let Some(a) = any.downcast_ref::<Int64Array>() {
            Self::Int(a.clone())
        } else if let Some(a) = any.downcast_ref::<StringArray>() {
            Self::String(a.clone())
        } else if let Some(a) = any.downcast_ref::<BooleanArray>() {
            Self::Bool(a.clone())
        } else if let Some(a) = any.downcast_ref::<TimestampMicrosecondArray>() {
            Self::Timestamp(a.clone())
        } else if let Some(a) = any.downcast_ref::<Date32Array>() {
            Self::Date(a.clone())
        } else {
            Self::Other(array.clone())
        }
    }

    fn array(&self) -> Option<&dyn Array> {
        Some(match self {
            Self::Missing => return None,
            Self::Bool(a) => a,
            Self::Int(a) => a,
            Self::Timestamp(a) => a,
            Self::Date(a) => a,
            Self::Float(a) => a,
            Self::String(a) => a,
            Self::Other(a) => a,
        })
    }

    /// A copy of some rows.
    pub(crate) fn take(&self, rows: &[u32]) -> Result<Self, Problem> {
        let Some(array) = self.array() else {
            return Ok(Self::Missing);
        };
        let rows = UInt32Array::from(rows.to_vec());
        let taken = arrow::compute::take(array, &rows, None);
        let taken =
            taken.map_err(|e| Problem::internal("take-rows", "inputs can't be picked").detail(e));
        Ok(Self::new(&taken?))
    }

    /// About how many bytes of memory it takes.
    pub(crate) fn size_bytes(&self) -> usize {
        size_of::<Self>() + self.array().map_or(0, Array::get_array_memory_size)
    }

    /// How many of the values are floats that count as null: NaN and infinities.
    pub fn non_finite(&self) -> u64 {
        match self {
            Self::Float(a) => a.iter().flatten().filter(|v| !v.is_finite()).count() as u64,
            Self::Other(a) if a.data_type().is_nested() => {
                let within = |row| floats_within(&Value::from_array(a, row), |v| !v.is_finite());
                (0..a.len()).map(within).sum()
            }
            _ => 0,
        }
    }

    /// Whether row `row` counts as null.
    pub fn is_null(&self, row: usize) -> bool {
        match self {
            Self::Missing => true,
            Self::Float(a) => a.is_null(row) || !a.value(row).is_finite(),
            Self::Other(_) => self.get(row).is_null(),
            other => other.array().is_none_or(|a| a.is_null(row)),
        }
    }

    pub fn get(&self, row: usize) -> Value {
        match self {
            Self::Missing => Value::Null,
            Self::Bool(a) if a.is_valid(row) => Value::Bool(a.value(row)),
            Self::Int(a) if a.is_valid(row) => Value::Int(a.value(row)),
            Self::Timestamp(a) if a.is_valid(row) => Value::Timestamp(a.value(row)),
            Self::Date(a) if a.is_valid(row) => Value::Date(a.value(row)),
            Self::Float(a) if a.is_valid(row) && a.value(row).is_finite() => {
                Value::Float(a.value(row) + 0.0)
            }
            Self::String(a) if a.is_valid(row) => Value::string(a.value(row)),
            Self::Other(a) => {
                let value = Value::from_array(a, row);
                let dirty = |v: f64| !v.is_finite() || (v == 0.0 && v.is_sign_negative());
                match floats_within(&value, dirty) {
                    0 => value,
                    _ => clean(&value),
                }
            }
            _ => Value::Null,
        }
    }

    /// Appends row `row` to a column of the same type.
    pub fn push_to(&self, column: &mut Column, row: usize) {
        match (self, column) {
            (Self::Float(a), Column::Float(v)) => v.push(if a.is_valid(row) {
                finite_or_null(a.value(row))
            } else {
                f64::NAN
            }),
            (Self::Int(a), Column::Int(v, nulls)) => {
                nulls.insert(v.len(), v.len(), a.is_null(row));
                v.push(a.value(row));
            }
            (Self::Bool(a), Column::Bool(v)) => v.push(if a.is_valid(row) {
                u8::from(a.value(row))
            } else {
                NULL_BOOL
            }),
            (_, column) => column.insert(column.len(), self.get(row)),
        }
    }
}
