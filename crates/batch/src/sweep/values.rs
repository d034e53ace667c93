//! Values of features, column by column, in blocks of rows that never move; they leave as arrays, in any order.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BooleanArray, Date32Array, Float64Array, Int64Array, StringArray,
    TimestampMicrosecondArray,
};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use headwater_aggregate::InputColumn;
use headwater_schema::{DataType, Problem, Value, array_from_values};

use super::results::Taken;

/// Rows of a block. Unit tests have small ones, so that few rows make several.
const BLOCK_ROWS: usize = if cfg!(test) { 4 } else { 4096 };

/// Rows of values, one column per feature.
pub(super) struct Values {
    types: Arc<[DataType]>,
    blocks: Vec<Block>,
    /// What is added to by rows: texts and whatever else lies elsewhere.
    beside_bytes: usize,
}

struct Block {
    rows: usize,
    columns: Vec<Column>,
}

struct Column {
    nulls: Vec<bool>,
    /// Whether any fact counted.
    counted: Vec<bool>,
    data: Data,
}

enum Data {
    Bool(Vec<bool>),
    /// Integers and timestamps.
    Int(Vec<i64>),
    Date(Vec<i32>),
    Float(Vec<f64>),
    /// The bytes of all texts, and where each ends.
    Text(Vec<u8>, Vec<usize>),
    Other(Vec<Value>),
}

impl Values {
    pub(super) fn new(types: Arc<[DataType]>) -> Self {
        Self {
            types,
            blocks: Vec::new(),
            beside_bytes: 0,
        }
    }

    pub(super) fn types(&self) -> &Arc<[DataType]> {
        &self.types
    }

    /// About how many bytes of memory they take.
    pub(super) fn bytes(&self) -> usize {
        let row: usize = self.types.iter().map(|t| 2 + width(t)).sum();
        self.blocks.len() * BLOCK_ROWS * row + self.beside_bytes
    }

    /// Begins a row, which must get a value in every column.
    pub(super) fn begin_row(&mut self) {
        if self.blocks.last().is_none_or(|b| b.rows == BLOCK_ROWS) {
            self.blocks.push(Block {
                rows: 0,
                columns: self.types.iter().map(Column::new).collect(),
            });
        }
        if let Some(block) = self.blocks.last_mut() {
            block.rows += 1;
        }
    }

    /// Gives the row that was begun last its value in a column. One of another type becomes null.
    pub(super) fn push(&mut self, column: usize, value: &Value, counted: bool) {
        if let Some(block) = self.blocks.last_mut() {
            self.beside_bytes += block.columns[column].push(value);
            block.columns[column].counted.push(counted);
        }
    }

    /// The same with what an input has in a row, which counted.
    pub(super) fn push_input(&mut self, column: usize, input: &InputColumn, row: usize) {
        if let Some(block) = self.blocks.last_mut() {
            self.beside_bytes += block.columns[column].push_input(input, row);
            block.columns[column].counted.push(true);
        }
    }

    /// The value of a column at a place, and whether any fact counted.
    pub(super) fn get(&self, place: usize, column: usize) -> (Value, bool) {
        let (column_of, row) = (self.column(place, column), place % BLOCK_ROWS);
        (
            column_of.get(row, &self.types[column]),
            column_of.counted[row],
        )
    }

    fn column(&self, place: usize, column: usize) -> &Column {
        &self.blocks[place / BLOCK_ROWS].columns[column]
    }

    /// The rows at some places.
    pub(super) fn take(&self, places: &[usize]) -> Result<Taken, Problem> {
        let columns = 0..self.types.len();
        let columns = columns.map(|column| self.take_column(column, places));
        let counted = |place: &usize| self.column(*place, 0).counted[place % BLOCK_ROWS];
        Ok(Taken {
            columns: columns.collect::<Result<_, _>>()?,
            counted: match self.types.is_empty() {
                true => Vec::new(),
                false => places.iter().map(counted).collect(),
            },
        })
    }

    fn take_column(&self, column: usize, places: &[usize]) -> Result<ArrayRef, Problem> {
        let columns: Vec<&Column> = self.blocks.iter().map(|b| &b.columns[column]).collect();
        let valid = |place: &usize| !columns[place / BLOCK_ROWS].nulls[place % BLOCK_ROWS];
        let nulls: NullBuffer = places.iter().map(valid).collect();
        let nulls = (nulls.null_count() > 0).then_some(nulls);
        /// What each block of one type has, and the values at the places.
        macro_rules! pick {
            ($variant:path) => {{
                let blocks: Vec<&[_]> = columns
                    .iter()
                    .map(|column| match &column.data {
                        $variant(values) => values.as_slice(),
                        _ => &[],
                    })
                    .collect();
                let at = |place: &usize| blocks[place / BLOCK_ROWS][place % BLOCK_ROWS];
                places.iter().map(at).collect::<Vec<_>>()
            }};
        }
        Ok(match &self.types[column] {
            DataType::Bool => Arc::new(BooleanArray::new(pick!(Data::Bool).into(), nulls)),
            DataType::Int64 => Arc::new(Int64Array::new(pick!(Data::Int).into(), nulls)),
            DataType::Float64 => Arc::new(Float64Array::new(pick!(Data::Float).into(), nulls)),
            DataType::Date => Arc::new(Date32Array::new(pick!(Data::Date).into(), nulls)),
            DataType::Timestamp => {
                let times = TimestampMicrosecondArray::new(pick!(Data::Int).into(), nulls);
                Arc::new(times.with_timezone("UTC"))
            }
            DataType::String => Arc::new(take_texts(&columns, places, nulls)?),
            other => {
                let value = |place: &usize| self.get(*place, column).0;
                let values: Vec<Value> = places.iter().map(value).collect();
                array_from_values(other, values.iter())?
            }
        })
    }
}

fn take_texts(
    columns: &[&Column],
    places: &[usize],
    nulls: Option<NullBuffer>,
) -> Result<StringArray, Problem> {
    let (mut bytes, mut ends) = (Vec::new(), Vec::with_capacity(places.len() + 1));
    ends.push(0);
    let wrong = |e: &dyn std::fmt::Display| {
        Problem::internal("sweep", "texts can't be put together").detail(e)
    };
    for place in places {
        bytes.extend_from_slice(columns[place / BLOCK_ROWS].data.text(place % BLOCK_ROWS));
        ends.push(i32::try_from(bytes.len()).map_err(|e| wrong(&e))?);
    }
    let ends = OffsetBuffer::new(ScalarBuffer::from(ends));
    StringArray::try_new(ends, Buffer::from_vec(bytes), nulls).map_err(|e| wrong(&e))
}

/// Bytes of a value where it lies in its column.
fn width(data_type: &DataType) -> usize {
    match data_type {
        DataType::Bool => 1,
        DataType::Date => 4,
        DataType::Int64 | DataType::Timestamp | DataType::Float64 | DataType::String => 8,
        _ => size_of::<Value>(),
    }
}

/// About how many bytes a value has elsewhere.
fn heap_bytes(value: &Value) -> usize {
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

impl Column {
    fn new(data_type: &DataType) -> Self {
        let data = match data_type {
            DataType::Bool => Data::Bool(Vec::with_capacity(BLOCK_ROWS)),
            DataType::Int64 | DataType::Timestamp => Data::Int(Vec::with_capacity(BLOCK_ROWS)),
            DataType::Date => Data::Date(Vec::with_capacity(BLOCK_ROWS)),
            DataType::Float64 => Data::Float(Vec::with_capacity(BLOCK_ROWS)),
            DataType::String => Data::Text(Vec::new(), Vec::with_capacity(BLOCK_ROWS)),
            _ => Data::Other(Vec::with_capacity(BLOCK_ROWS)),
        };
        Self {
            nulls: Vec::with_capacity(BLOCK_ROWS),
            counted: Vec::with_capacity(BLOCK_ROWS),
            data,
        }
    }

    /// Takes a value; the bytes that it takes elsewhere.
    fn push(&mut self, value: &Value) -> usize {
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

    fn push_input(&mut self, input: &InputColumn, row: usize) -> usize {
        match (&mut self.data, input) {
            (Data::Float(values), InputColumn::Float(array)) => {
                let null = input.is_null(row);
                // −0.0 is 0.0.
                values.push(if null { 0.0 } else { array.value(row) + 0.0 });
                self.nulls.push(null);
                0
            }
            (Data::Int(values), InputColumn::Int(array)) => {
                values.push(array.value(row));
                self.nulls.push(array.is_null(row));
                0
            }
            (Data::Text(bytes, ends), InputColumn::String(array)) if array.is_valid(row) => {
                let text = array.value(row);
                bytes.extend_from_slice(text.as_bytes());
                ends.push(bytes.len());
                self.nulls.push(false);
                text.len()
            }
            _ => self.push(&input.get(row)),
        }
    }

    fn get(&self, row: usize, data_type: &DataType) -> Value {
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
