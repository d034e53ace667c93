//! Reads one column of any type; `write_column.rs` says how it is laid out.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int64Array,
    ListArray, MapArray, StringArray, StructArray, TimestampMicrosecondArray, UInt32Array,
};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::DataType as ArrowType;

use super::bytes::Reader;
use super::{Corrupt, integers};
use crate::{DataType, Field};

/// Types within types.
const TYPE_DEPTH_MAX: usize = 64;

pub fn read_type(reader: &mut Reader<'_>, depth: usize) -> Result<DataType, Corrupt> {
    if depth > TYPE_DEPTH_MAX {
        return Err(Corrupt("types are nested too deep".to_owned()));
    }
    Ok(match reader.byte()? {
        1 => DataType::Bool,
        2 => DataType::Int64,
        3 => DataType::Float64,
        4 => {
            let (precision, scale) = (reader.byte()?, reader.byte()? as i8);
            if !(1..=38).contains(&precision) || scale.unsigned_abs() > precision {
                return Err(Corrupt(format!("no type decimal({precision},{scale})")));
            }
            DataType::Decimal { precision, scale }
        }
        5 => DataType::String,
        6 => DataType::Bytes,
        7 => DataType::Timestamp,
        8 => DataType::Date,
        9 => DataType::List(Arc::new(read_type(reader, depth + 1)?)),
        10 => {
            let count = reader.count(2)?;
            reader.charge(count, 64)?;
            let mut fields = Vec::with_capacity(count);
            for _ in 0..count {
                let name = reader.text()?;
                fields.push(Field::new(name, read_type(reader, depth + 1)?));
            }
            DataType::Struct(fields.into())
        }
        11 => DataType::Map(Arc::new(read_type(reader, depth + 1)?)),
        other => return Err(Corrupt(format!("no type {other}"))),
    })
}

/// Reads a column of `rows` values.
pub fn read_column(
    reader: &mut Reader<'_>,
    data_type: &DataType,
    rows: usize,
    depth: usize,
) -> Result<ArrayRef, Corrupt> {
    if depth > TYPE_DEPTH_MAX {
        return Err(Corrupt("values are nested too deep".to_owned()));
    }
    reader.charge(rows, null_cost(data_type))?;
    let nulls = match reader.byte()? {
        0 => None,
        1 => return Ok(arrow::array::new_null_array(&data_type.to_arrow(), rows)),
        2 => {
            let bits = reader.packed(rows, 1)?;
            Some(NullBuffer::from(
                bits.iter().map(|b| *b == 1).collect::<Vec<_>>(),
            ))
        }
        other => return Err(Corrupt(format!("no form {other} of validity"))),
    };
    let present = nulls.as_ref().map_or(rows, |n| rows - n.null_count());
    Spread {
        nulls,
        rows,
        present,
    }
    .read(reader, data_type, depth)
}

/// Bytes that one null of the type takes in memory, at most.
fn null_cost(data_type: &DataType) -> usize {
    match data_type {
        DataType::Struct(fields) => {
            let members = fields.iter().map(|f| null_cost(&f.data_type));
            members.fold(1, usize::saturating_add)
        }
        DataType::Decimal { .. } => 17,
        _ => 9,
    }
}

/// Puts values that are present back between the nulls.
struct Spread {
    nulls: Option<NullBuffer>,
    rows: usize,
    present: usize,
}

impl Spread {
    fn read(
        self,
        reader: &mut Reader<'_>,
        data_type: &DataType,
        depth: usize,
    ) -> Result<ArrayRef, Corrupt> {
        Ok(match data_type {
            DataType::Bool => {
                let bits = reader.packed(self.present, 1)?;
                let bits: Vec<bool> = bits.iter().map(|b| *b == 1).collect();
                let values = BooleanBuffer::from(self.values(bits));
                Arc::new(BooleanArray::new(values, self.nulls))
            }
            DataType::Int64 => {
                let values = self.values(integers::read(reader, self.present)?);
                Arc::new(Int64Array::new(values.into(), self.nulls))
            }
            DataType::Timestamp => {
                let values = self.values(integers::read(reader, self.present)?);
                let array = TimestampMicrosecondArray::new(values.into(), self.nulls);
                Arc::new(array.with_timezone("UTC"))
            }
            DataType::Date => {
                let days = integers::read(reader, self.present)?;
                let days: Vec<i32> = days
                    .into_iter()
                    .map(|d| i32::try_from(d).map_err(|_| Corrupt(format!("no date {d}"))))
                    .collect::<Result<_, _>>()?;
                Arc::new(Date32Array::new(self.values(days).into(), self.nulls))
            }
            DataType::Float64 => {
                let values = self.values(read_floats(reader, self.present)?);
                Arc::new(Float64Array::new(values.into(), self.nulls))
            }
            DataType::Decimal { precision, scale } => {
                let values = self.values(read_decimals(reader, self.present)?);
                let array = Decimal128Array::new(values.into(), self.nulls);
                let array = array.with_precision_and_scale(*precision, *scale);
                Arc::new(array.map_err(|e| Corrupt(e.to_string()))?)
            }
            DataType::String | DataType::Bytes => self.read_blobs(reader, data_type)?,
            DataType::List(item) => {
                let (offsets, items) = self.read_offsets(reader)?;
                let values = read_column(reader, item, items, depth + 1)?;
                let field = arrow::datatypes::Field::new("item", item.to_arrow(), true);
                let list = ListArray::try_new(Arc::new(field), offsets, values, self.nulls);
                Arc::new(list.map_err(|e| Corrupt(e.to_string()))?)
            }
            DataType::Map(value) => self.read_map(reader, data_type, value, depth)?,
            DataType::Struct(fields) => self.read_struct(reader, fields, depth)?,
        })
    }

    /// One value per row; nulls get the default.
    fn values<T: Copy + Default>(&self, present: Vec<T>) -> Vec<T> {
        let Some(nulls) = &self.nulls else {
            return present;
        };
        let mut values = vec![T::default(); self.rows];
        for (row, value) in nulls.valid_indices().zip(present) {
            values[row] = value;
        }
        values
    }

    /// Offsets of lists from their lengths; nulls are empty.
    fn offsets(&self, lengths: &[i64]) -> Result<OffsetBuffer<i32>, Corrupt> {
        let bad = || Corrupt("lengths are out of bounds".to_owned());
        let mut offsets = Vec::with_capacity(self.rows + 1);
        let (mut end, mut next) = (0i32, lengths.iter());
        offsets.push(0);
        for row in 0..self.rows {
            if self.nulls.as_ref().is_none_or(|n| n.is_valid(row)) {
                let length = i32::try_from(*next.next().ok_or_else(bad)?).map_err(|_| bad())?;
                if length < 0 {
                    return Err(bad());
                }
                end = end.checked_add(length).ok_or_else(bad)?;
            }
            offsets.push(end);
        }
        Ok(OffsetBuffer::new(ScalarBuffer::from(offsets)))
    }

    fn read_offsets(&self, reader: &mut Reader<'_>) -> Result<(OffsetBuffer<i32>, usize), Corrupt> {
        let lengths = integers::read(reader, self.present)?;
        let offsets = self.offsets(&lengths)?;
        let items = reader.size()?;
        if offsets.last().copied() != i32::try_from(items).ok() {
            return Err(Corrupt("the lengths of lists don't add up".to_owned()));
        }
        Ok((offsets, items))
    }

    fn read_map(
        self,
        reader: &mut Reader<'_>,
        data_type: &DataType,
        value: &DataType,
        depth: usize,
    ) -> Result<ArrayRef, Corrupt> {
        let (offsets, entries) = self.read_offsets(reader)?;
        let keys = read_column(reader, &DataType::String, entries, depth + 1)?;
        let values = read_column(reader, value, entries, depth + 1)?;
        let bad = |e: arrow::error::ArrowError| Corrupt(e.to_string());
        let ArrowType::Map(field, sorted) = data_type.to_arrow() else {
            return Err(Corrupt("a map is none".to_owned()));
        };
        let ArrowType::Struct(members) = field.data_type() else {
            return Err(Corrupt("a map is none".to_owned()));
        };
        let entries =
            StructArray::try_new(members.clone(), vec![keys, values], None).map_err(bad)?;
        let map = MapArray::try_new(field, offsets, entries, self.nulls, sorted);
        Ok(Arc::new(map.map_err(bad)?))
    }

    fn read_struct(
        self,
        reader: &mut Reader<'_>,
        fields: &[Field],
        depth: usize,
    ) -> Result<ArrayRef, Corrupt> {
        let bad = |e: arrow::error::ArrowError| Corrupt(e.to_string());
        let places = self.nulls.as_ref().map(|nulls| {
            let mut next = 0;
            let place = |valid: bool| {
                valid.then(|| {
                    next += 1;
                    next - 1
                })
            };
            nulls.iter().map(place).collect::<UInt32Array>()
        });
        let mut columns = Vec::with_capacity(fields.len());
        for field in fields {
            reader.charge(self.rows, null_cost(&field.data_type))?;
            let column = read_column(reader, &field.data_type, self.present, depth + 1)?;
            columns.push(match &places {
                None => column,
                Some(places) => arrow::compute::take(&column, places, None).map_err(bad)?,
            });
        }
        let members: arrow::datatypes::Fields = fields.iter().map(Field::to_arrow).collect();
        let array = if columns.is_empty() {
            StructArray::new_empty_fields(self.rows, self.nulls)
        } else {
            StructArray::try_new(members, columns, self.nulls).map_err(bad)?
        };
        Ok(Arc::new(array))
    }

    fn read_blobs(
        self,
        reader: &mut Reader<'_>,
        data_type: &DataType,
    ) -> Result<ArrayRef, Corrupt> {
        let (lengths, bytes) = match reader.byte()? {
            0 => read_plain_blobs(reader, self.present)?,
            1 => read_dictionary(reader, self.present)?,
            other => return Err(Corrupt(format!("no form {other} of strings"))),
        };
        let offsets = self.offsets(&lengths)?;
        let bytes = Buffer::from_vec(bytes);
        let bad = |e: arrow::error::ArrowError| Corrupt(e.to_string());
        Ok(match data_type {
            DataType::String => {
                Arc::new(StringArray::try_new(offsets, bytes, self.nulls).map_err(bad)?)
            }
            _ => Arc::new(BinaryArray::try_new(offsets, bytes, self.nulls).map_err(bad)?),
        })
    }
}

fn read_plain_blobs(reader: &mut Reader<'_>, count: usize) -> Result<(Vec<i64>, Vec<u8>), Corrupt> {
    let lengths = integers::read(reader, count)?;
    let total = lengths.iter().try_fold(0usize, |sum, length| {
        let length = usize::try_from(*length).ok()?;
        sum.checked_add(length)
    });
    let total = total.ok_or_else(|| Corrupt("lengths are out of bounds".to_owned()))?;
    Ok((lengths, reader.take(total)?.to_vec()))
}

fn read_dictionary(reader: &mut Reader<'_>, count: usize) -> Result<(Vec<i64>, Vec<u8>), Corrupt> {
    let entry_count = reader.size()?;
    let (entry_lengths, entry_bytes) = read_plain_blobs(reader, entry_count)?;
    let mut entries = Vec::with_capacity(entry_count);
    let mut rest = &entry_bytes[..];
    for length in &entry_lengths {
        let (entry, tail) = rest.split_at(*length as usize);
        entries.push(entry);
        rest = tail;
    }
    let indexes = integers::read(reader, count)?;
    let mut lengths = Vec::with_capacity(count);
    let mut total = 0usize;
    for index in &indexes {
        let entry = usize::try_from(*index).ok().and_then(|i| entries.get(i));
        let entry = entry.ok_or_else(|| Corrupt("a dictionary lacks an entry".to_owned()))?;
        total = total.saturating_add(entry.len());
        lengths.push(entry.len() as i64);
    }
    reader.charge(total, 1)?;
    let mut bytes = Vec::with_capacity(total);
    for index in indexes {
        bytes.extend_from_slice(entries[index as usize]);
    }
    Ok((lengths, bytes))
}

fn read_floats(reader: &mut Reader<'_>, count: usize) -> Result<Vec<f64>, Corrupt> {
    match reader.byte()? {
        0 => {
            let bytes = reader.take(count.saturating_mul(8))?;
            let float = |b: &[u8]| f64::from_le_bytes(b.try_into().unwrap_or_default());
            Ok(bytes.chunks_exact(8).map(float).collect())
        }
        1 => Ok(integers::read(reader, count)?
            .into_iter()
            .map(|v| v as f64)
            .collect()),
        other => Err(Corrupt(format!("no form {other} of floats"))),
    }
}

fn read_decimals(reader: &mut Reader<'_>, count: usize) -> Result<Vec<i128>, Corrupt> {
    match reader.byte()? {
        0 => Ok(integers::read(reader, count)?
            .into_iter()
            .map(i128::from)
            .collect()),
        1 => {
            let mut values = Vec::with_capacity(count.min(reader.rest().len()));
            for _ in 0..count {
                values.push(reader.wide()?);
            }
            Ok(values)
        }
        other => Err(Corrupt(format!("no form {other} of decimals"))),
    }
}
