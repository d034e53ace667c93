//! Columns that grow value by value and can be cut back to an earlier row, which Arrow's own
//! builders can't: a row that breaks its contract halfway leaves nothing behind.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Date32Array, Decimal128Array,
    Float64Array, Int64Array, ListArray, MapArray, StringArray, StructArray,
    TimestampMicrosecondArray,
};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{
    DataType as ArrowType, Date32Type, Decimal128Type, Fields, Float64Type, Int64Type,
    TimestampMicrosecondType,
};

use crate::contract::Cell;
use crate::{DataType, Field, Problem};

/// A growing column.
pub struct Column {
    pub values: Values,
    valid: Vec<bool>,
}

pub enum Values {
    Bool(Vec<bool>),
    Int(Vec<i64>),
    Float(Vec<f64>),
    Decimal {
        unscaled: Vec<i128>,
        precision: u8,
        scale: i8,
    },
    Timestamp(Vec<i64>),
    Date(Vec<i32>),
    String(Blobs),
    Bytes(Blobs),
    List {
        ends: Vec<usize>,
        items: Box<Column>,
    },
    Struct(Vec<(Arc<str>, Column)>),
    Map {
        ends: Vec<usize>,
        keys: Blobs,
        values: Box<Column>,
    },
}

/// Byte strings, end to end.
#[derive(Default)]
pub struct Blobs {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Blobs {
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.ends.push(self.bytes.len());
    }

    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn get(&self, index: usize) -> &[u8] {
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        &self.bytes[start..self.ends[index]]
    }

    fn truncate(&mut self, len: usize) {
        self.ends.truncate(len);
        self.bytes.truncate(self.ends.last().copied().unwrap_or(0));
    }

    fn finish(self) -> Result<(OffsetBuffer<i32>, Buffer), Problem> {
        Ok((offsets(&self.ends)?, Buffer::from_vec(self.bytes)))
    }
}

fn offsets(ends: &[usize]) -> Result<OffsetBuffer<i32>, Problem> {
    let ends = ends.iter().map(|end| i32::try_from(*end));
    let offsets: Result<Vec<i32>, _> = std::iter::once(Ok(0)).chain(ends).collect();
    let offsets = offsets.map_err(|_| {
        Problem::user(
            "batch-too-large",
            "A column of one batch has more than 2 GiB",
        )
        .hint("Send fewer rows at once")
    })?;
    Ok(OffsetBuffer::new(ScalarBuffer::from(offsets)))
}

fn start(ends: &[usize], index: usize) -> usize {
    if index == 0 { 0 } else { ends[index - 1] }
}

impl Column {
    pub fn new(data_type: &DataType) -> Self {
        let values = match data_type {
            DataType::Bool => Values::Bool(Vec::new()),
            DataType::Int64 => Values::Int(Vec::new()),
            DataType::Float64 => Values::Float(Vec::new()),
            DataType::Decimal { precision, scale } => Values::Decimal {
                unscaled: Vec::new(),
                precision: *precision,
                scale: *scale,
            },
            DataType::String => Values::String(Blobs::default()),
            DataType::Bytes => Values::Bytes(Blobs::default()),
            DataType::Timestamp => Values::Timestamp(Vec::new()),
            DataType::Date => Values::Date(Vec::new()),
            DataType::List(item) => Values::List {
                ends: Vec::new(),
                items: Box::new(Self::new(item)),
            },
            DataType::Struct(fields) => {
                let member = |f: &Field| (Arc::clone(&f.name), Self::new(&f.data_type));
                Values::Struct(fields.iter().map(member).collect())
            }
            DataType::Map(value) => Values::Map {
                ends: Vec::new(),
                keys: Blobs::default(),
                values: Box::new(Self::new(value)),
            },
        };
        Self {
            values,
            valid: Vec::new(),
        }
    }

    pub fn len(&self) -> usize {
        self.valid.len()
    }

    pub fn is_valid(&self, index: usize) -> bool {
        self.valid[index]
    }

    /// Marks the value that was just pushed onto `values` as one more row.
    pub fn pushed(&mut self) {
        self.valid.push(true);
    }

    pub fn push_null(&mut self) {
        self.valid.push(false);
        match &mut self.values {
            Values::Bool(v) => v.push(false),
            Values::Int(v) | Values::Timestamp(v) => v.push(0),
            Values::Float(v) => v.push(0.0),
            Values::Decimal { unscaled, .. } => unscaled.push(0),
            Values::Date(v) => v.push(0),
            Values::String(v) | Values::Bytes(v) => v.push(&[]),
            Values::List { ends, items } => ends.push(items.len()),
            Values::Struct(members) => members.iter_mut().for_each(|(_, m)| m.push_null()),
            Values::Map { ends, keys, .. } => ends.push(keys.len()),
        }
    }

    /// Cuts the column back to `len` rows, whole ones or not.
    pub fn truncate(&mut self, len: usize) {
        self.valid.truncate(len);
        match &mut self.values {
            Values::Bool(v) => v.truncate(len),
            Values::Int(v) | Values::Timestamp(v) => v.truncate(len),
            Values::Float(v) => v.truncate(len),
            Values::Decimal { unscaled, .. } => unscaled.truncate(len),
            Values::Date(v) => v.truncate(len),
            Values::String(v) | Values::Bytes(v) => v.truncate(len),
            Values::List { ends, items } => {
                ends.truncate(len);
                items.truncate(ends.last().copied().unwrap_or(0));
            }
            Values::Struct(members) => members.iter_mut().for_each(|(_, m)| m.truncate(len)),
            Values::Map { ends, keys, values } => {
                ends.truncate(len);
                let entries = ends.last().copied().unwrap_or(0);
                keys.truncate(entries);
                values.truncate(entries);
            }
        }
    }

    pub fn cell(&self, index: usize) -> Cell<'_> {
        if !self.valid[index] {
            return Cell::Null;
        }
        match &self.values {
            Values::Bool(v) => Cell::Bool(v[index]),
            Values::Int(v) => Cell::Int(v[index]),
            Values::Float(v) => Cell::Float(v[index]),
            Values::Decimal {
                unscaled, scale, ..
            } => Cell::Decimal {
                unscaled: unscaled[index],
                scale: *scale,
            },
            Values::Timestamp(v) => Cell::Timestamp(v[index]),
            Values::Date(v) => Cell::Date(v[index]),
            // Only whole texts are ever pushed.
            Values::String(v) => {
                Cell::String(std::str::from_utf8(v.get(index)).unwrap_or_default())
            }
            Values::Bytes(v) => Cell::Bytes(v.get(index)),
            Values::List { ends, .. } | Values::Map { ends, .. } => {
                Cell::Nested(ends[index] - start(ends, index))
            }
            Values::Struct(members) => {
                Cell::Nested(members.iter().filter(|(_, m)| m.is_valid(index)).count())
            }
        }
    }

    /// The places of a list's items.
    pub fn items(&self, index: usize) -> std::ops::Range<usize> {
        match &self.values {
            Values::List { ends, .. } | Values::Map { ends, .. } => start(ends, index)..ends[index],
            _ => 0..0,
        }
    }

    /// Appends a value of an array that has the column's own layout.
    #[cfg_attr(not(feature = "tables"), allow(dead_code))]
    pub fn push_from(&mut self, array: &dyn Array, row: usize) {
        if array.is_null(row) {
            return self.push_null();
        }
        match &mut self.values {
            Values::Bool(v) => v.push(array.as_boolean().value(row)),
            Values::Int(v) => v.push(array.as_primitive::<Int64Type>().value(row)),
            Values::Float(v) => v.push(array.as_primitive::<Float64Type>().value(row)),
            Values::Decimal { unscaled, .. } => {
                unscaled.push(array.as_primitive::<Decimal128Type>().value(row));
            }
            Values::Timestamp(v) => {
                v.push(array.as_primitive::<TimestampMicrosecondType>().value(row));
            }
            Values::Date(v) => v.push(array.as_primitive::<Date32Type>().value(row)),
            Values::String(v) => v.push(array.as_string::<i32>().value(row).as_bytes()),
            Values::Bytes(v) => v.push(array.as_binary::<i32>().value(row)),
            Values::List { ends, items } => {
                let list = array.as_list::<i32>().value(row);
                (0..list.len()).for_each(|i| items.push_from(list.as_ref(), i));
                ends.push(items.len());
            }
            Values::Struct(members) => {
                let columns = array.as_struct().columns();
                for ((_, member), column) in members.iter_mut().zip(columns) {
                    member.push_from(column.as_ref(), row);
                }
            }
            Values::Map { ends, keys, values } => {
                let entries = array.as_map().value(row);
                let names = entries.column(0).as_string::<i32>();
                for entry in 0..entries.len() {
                    keys.push(names.value(entry).as_bytes());
                    values.push_from(entries.column(1).as_ref(), entry);
                }
                ends.push(keys.len());
            }
        }
        self.pushed();
    }

    /// The column as an array of the layout that its type has in Arrow.
    pub fn finish(self) -> Result<ArrayRef, Problem> {
        let rows = self.valid.len();
        let nulls = Some(NullBuffer::from(self.valid)).filter(|n| n.null_count() > 0);
        let wrong = |e: arrow::error::ArrowError| {
            Problem::internal("decode", "Decoded columns don't fit together").detail(e)
        };
        Ok(match self.values {
            Values::Bool(v) => Arc::new(BooleanArray::new(v.into(), nulls)),
            Values::Int(v) => Arc::new(Int64Array::new(v.into(), nulls)),
            Values::Float(v) => Arc::new(Float64Array::new(v.into(), nulls)),
            Values::Decimal {
                unscaled,
                precision,
                scale,
            } => {
                let array = Decimal128Array::new(unscaled.into(), nulls);
                Arc::new(
                    array
                        .with_precision_and_scale(precision, scale)
                        .map_err(wrong)?,
                )
            }
            Values::Timestamp(v) => {
                Arc::new(TimestampMicrosecondArray::new(v.into(), nulls).with_timezone("UTC"))
            }
            Values::Date(v) => Arc::new(Date32Array::new(v.into(), nulls)),
            Values::String(v) => {
                let (offsets, bytes) = v.finish()?;
                Arc::new(StringArray::try_new(offsets, bytes, nulls).map_err(wrong)?)
            }
            Values::Bytes(v) => {
                let (offsets, bytes) = v.finish()?;
                Arc::new(BinaryArray::try_new(offsets, bytes, nulls).map_err(wrong)?)
            }
            Values::List { ends, items } => {
                let items = items.finish()?;
                let field = arrow::datatypes::Field::new("item", items.data_type().clone(), true);
                let list = ListArray::try_new(Arc::new(field), offsets(&ends)?, items, nulls);
                Arc::new(list.map_err(wrong)?)
            }
            Values::Struct(members) => {
                let (mut fields, mut columns) = (Vec::new(), Vec::new());
                for (name, member) in members {
                    let column = member.finish()?;
                    fields.push(arrow::datatypes::Field::new(
                        name.as_ref(),
                        column.data_type().clone(),
                        true,
                    ));
                    columns.push(column);
                }
                if columns.is_empty() {
                    return Ok(Arc::new(StructArray::new_empty_fields(rows, nulls)));
                }
                Arc::new(StructArray::try_new(Fields::from(fields), columns, nulls).map_err(wrong)?)
            }
            Values::Map { ends, keys, values } => {
                let (key_offsets, key_bytes) = keys.finish()?;
                let keys = StringArray::try_new(key_offsets, key_bytes, None).map_err(wrong)?;
                finish_map(&ends, keys, values.finish()?, nulls)?
            }
        })
    }
}

fn finish_map(
    ends: &[usize],
    keys: StringArray,
    values: ArrayRef,
    nulls: Option<NullBuffer>,
) -> Result<ArrayRef, Problem> {
    let wrong = |e: arrow::error::ArrowError| {
        Problem::internal("decode", "Decoded columns don't fit together").detail(e)
    };
    let members = Fields::from(vec![
        arrow::datatypes::Field::new("keys", ArrowType::Utf8, false),
        arrow::datatypes::Field::new("values", values.data_type().clone(), true),
    ]);
    let entries =
        StructArray::try_new(members.clone(), vec![Arc::new(keys), values], None).map_err(wrong)?;
    let field = arrow::datatypes::Field::new("entries", ArrowType::Struct(members), false);
    let map = MapArray::try_new(Arc::new(field), offsets(ends)?, entries, nulls, false);
    Ok(Arc::new(map.map_err(wrong)?))
}
