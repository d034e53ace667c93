//! The versioned codec of stored facts: columns that describe themselves, compactly.
//!
//! Layout of a batch, version 1. Numbers are LEB128 varints (`v`), signed ones zigzag first (`z`),
//! texts are their length as `v` and their bytes:
//!
//! ```text
//! u8 version | text contract | v rows | v columns | (text name, type)*
//! event times: 0 integers | 1 v column | 2 v column, v factor
//! fact ids:    0 none | 1 column of strings | 2 v count, v column* (the ids are those columns' text)
//! unknown:     0 none | 1 column of strings
//! columns*
//! ```
//!
//! A column is its validity (0 all present, 1 all null, 2 bitmap) and the values that are present;
//! `write_column.rs` and `integers.rs` say how. Integers, strings and floats take the smallest of a few
//! forms, so that a single small fact costs little more than its data and names.
//!
//! Reading trusts nothing: every length is checked against what is left of the input, and all that
//! is allocated is charged to a budget. Corrupt input is an error, never a panic.

mod bytes;
mod integers;
mod read_column;
mod value;
mod write_column;

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions, StringArray};
use arrow::datatypes::{Int64Type, Schema, TimestampMicrosecondType};

use self::bytes::{Reader, Writer};
use self::read_column::{read_column, read_type};
use self::write_column::{write_column, write_type};
use crate::decode::{id_text, join_id_parts, split_id};
use crate::{DataType, FactBatch, Field, Micros, Problem};

pub use self::value::{decode_value, encode_value};

/// The first byte of every batch.
pub const CODEC_VERSION: u8 = 1;
/// Columns of one batch.
pub const COLUMNS_MAX: usize = 10_000;
/// Bytes that reading one batch may allocate, besides [`BUDGET_FACTOR`] per byte of input.
pub const BUDGET_BASE: usize = 1 << 30;
pub const BUDGET_FACTOR: usize = 64;

/// The batch as bytes that [`decode_batch`] reads.
pub fn encode_batch(batch: &FactBatch) -> Vec<u8> {
    let mut out = Writer::default();
    out.byte(CODEC_VERSION);
    out.text(&batch.contract);
    out.size(batch.len());
    let columns = stored_columns(&batch.columns);
    out.size(columns.len());
    for (name, data_type, _) in &columns {
        out.text(name);
        write_type(&mut out, data_type);
    }
    write_event_times(&mut out, &batch.event_times, &columns);
    write_fact_ids(&mut out, batch.fact_ids.as_ref(), &columns);
    match &batch.unknown_fields {
        Some(unknown) if unknown.null_count() < unknown.len() => {
            out.byte(1);
            write_column(&mut out, unknown, &DataType::String);
        }
        _ => out.byte(0),
    }
    for (_, data_type, array) in &columns {
        write_column(&mut out, array.as_ref(), data_type);
    }
    out.into_bytes()
}

/// Reads what [`encode_batch`] wrote; anything else is a `corrupt-batch` problem.
pub fn decode_batch(bytes: &[u8]) -> Result<FactBatch, Problem> {
    let budget = BUDGET_BASE.saturating_add(bytes.len().saturating_mul(BUDGET_FACTOR));
    decode_within(bytes, budget)
}

fn decode_within(bytes: &[u8], budget: usize) -> Result<FactBatch, Problem> {
    let mut reader = Reader::new(bytes, budget);
    read_batch(&mut reader).map_err(|corrupt| {
        Problem::external("corrupt-batch", "Stored facts cannot be read")
            .detail(corrupt.0)
            .hint("The file was damaged or written by a newer version; restore it from a copy")
    })
}

type StoredColumn = (Arc<str>, DataType, ArrayRef);

/// The columns in the layouts the codec knows; a column of a type that none stands for is left out,
/// which no decoder of ours produces.
fn stored_columns(columns: &RecordBatch) -> Vec<StoredColumn> {
    let schema = columns.schema();
    let fields = schema.fields().iter().zip(columns.columns());
    fields
        .filter_map(|(field, array)| {
            let data_type = DataType::from_arrow(field.data_type()).ok()?;
            let target = data_type.to_arrow();
            let array = if *array.data_type() == target {
                Arc::clone(array)
            } else {
                arrow::compute::cast(array, &target).ok()?
            };
            Some((Arc::from(field.name().as_str()), data_type, array))
        })
        .collect()
}

fn write_event_times(out: &mut Writer, times: &[Micros], columns: &[StoredColumn]) {
    for (index, (_, data_type, array)) in columns.iter().enumerate() {
        if array.null_count() > 0 || array.len() != times.len() || times.is_empty() {
            continue;
        }
        match data_type {
            DataType::Timestamp => {
                let values = array.as_primitive::<TimestampMicrosecondType>().values();
                if values[..] == *times {
                    out.byte(1);
                    out.size(index);
                    return;
                }
            }
            DataType::Int64 => {
                let values = array.as_primitive::<Int64Type>().values();
                for factor in [1i64, 1000, 1_000_000] {
                    let mut pairs = values.iter().zip(times);
                    if pairs.all(|(v, t)| v.checked_mul(factor) == Some(*t)) {
                        out.byte(2);
                        out.size(index);
                        out.unsigned(factor as u64);
                        return;
                    }
                }
            }
            _ => {}
        }
    }
    out.byte(0);
    integers::write(out, times);
}

fn read_event_times(reader: &mut Reader<'_>, rows: usize) -> Result<EventTimes, Corrupt> {
    Ok(match reader.byte()? {
        0 => EventTimes::Own(integers::read(reader, rows)?),
        1 => EventTimes::Column(reader.size()?, 1),
        2 => EventTimes::Column(reader.size()?, reader.unsigned()? as i64),
        other => return Err(Corrupt(format!("no form {other} of event times"))),
    })
}

enum EventTimes {
    Own(Vec<Micros>),
    Column(usize, i64),
}

impl EventTimes {
    fn resolve(self, columns: &[ArrayRef]) -> Result<Vec<Micros>, Corrupt> {
        let (index, factor) = match self {
            Self::Own(times) => return Ok(times),
            Self::Column(index, factor) => (index, factor),
        };
        let bad = || Corrupt(format!("column {index} holds no event times"));
        let column = columns.get(index).ok_or_else(bad)?;
        if column.null_count() > 0 {
            return Err(bad());
        }
        if let Some(times) = column.as_primitive_opt::<TimestampMicrosecondType>() {
            return Ok(times.values().to_vec());
        }
        let units = column.as_primitive_opt::<Int64Type>().ok_or_else(bad)?;
        let times = units.values().iter().map(|v| v.checked_mul(factor));
        times.collect::<Option<_>>().ok_or_else(bad)
    }
}

fn write_fact_ids(out: &mut Writer, ids: Option<&StringArray>, columns: &[StoredColumn]) {
    let Some(ids) = ids else {
        out.byte(0);
        return;
    };
    match id_columns(ids, columns) {
        Some(indexes) => {
            out.byte(2);
            out.size(indexes.len());
            for index in indexes {
                out.size(index);
            }
        }
        None => {
            out.byte(1);
            write_column(out, ids, &DataType::String);
        }
    }
}

/// The columns whose text makes every id, if there are such.
fn id_columns(ids: &StringArray, columns: &[StoredColumn]) -> Option<Vec<usize>> {
    if ids.is_empty() || ids.null_count() > 0 {
        return None;
    }
    if let Some(index) = column_of_part(ids, columns, 1, 0) {
        return Some(vec![index]);
    }
    let parts = split_id(ids.value(0)).len();
    if parts < 2 {
        return None;
    }
    (0..parts)
        .map(|part| column_of_part(ids, columns, parts, part))
        .collect()
}

fn column_of_part(
    ids: &StringArray,
    columns: &[StoredColumn],
    parts: usize,
    part: usize,
) -> Option<usize> {
    let matches = |array: &dyn Array, row: usize| {
        let Some(text) = id_text(array, row) else {
            return false;
        };
        if parts == 1 {
            return text == ids.value(row);
        }
        let split = split_id(ids.value(row));
        split.len() == parts && split[part] == text
    };
    columns.iter().position(|(_, data_type, array)| {
        data_type.is_key()
            && array.null_count() == 0
            && (0..ids.len()).all(|row| matches(array.as_ref(), row))
    })
}

enum FactIds {
    None,
    Own(ArrayRef),
    Columns(Vec<usize>),
}

fn read_fact_ids(reader: &mut Reader<'_>, rows: usize) -> Result<FactIds, Corrupt> {
    Ok(match reader.byte()? {
        0 => FactIds::None,
        1 => FactIds::Own(read_column(reader, &DataType::String, rows, 0)?),
        2 => {
            let count = reader.count(1)?;
            FactIds::Columns(
                (0..count)
                    .map(|_| reader.size())
                    .collect::<Result<_, _>>()?,
            )
        }
        other => return Err(Corrupt(format!("no form {other} of fact ids"))),
    })
}

impl FactIds {
    fn resolve(self, columns: &[ArrayRef], rows: usize) -> Result<Option<StringArray>, Corrupt> {
        let indexes = match self {
            Self::None => return Ok(None),
            Self::Own(ids) => return Ok(Some(ids.as_string::<i32>().clone())),
            Self::Columns(indexes) => indexes,
        };
        let bad = || Corrupt("fact ids name a column that holds none".to_owned());
        let columns: Vec<_> = indexes
            .iter()
            .map(|index| columns.get(*index).ok_or_else(bad))
            .collect::<Result<_, _>>()?;
        let ids = (0..rows).map(|row| {
            let parts = columns.iter().map(|c| id_text(c.as_ref(), row));
            let parts: Vec<_> = parts.collect::<Option<_>>().ok_or_else(bad)?;
            Ok(join_id_parts(&parts))
        });
        let ids: Vec<String> = ids.collect::<Result<_, Corrupt>>()?;
        Ok(Some(StringArray::from(ids)))
    }
}

fn read_batch(reader: &mut Reader<'_>) -> Result<FactBatch, Corrupt> {
    let version = reader.byte()?;
    if version != CODEC_VERSION {
        return Err(Corrupt(format!(
            "format version {version} is not known; this program reads {CODEC_VERSION}"
        )));
    }
    let contract = Arc::from(reader.text()?);
    let rows = reader.size()?;
    let count = reader.count(2)?;
    if count > COLUMNS_MAX {
        return Err(Corrupt(format!(
            "{count} columns are more than {COLUMNS_MAX}"
        )));
    }
    let mut fields = Vec::with_capacity(count);
    for _ in 0..count {
        let name = reader.text()?;
        fields.push(Field::new(name, read_type(reader, 0)?));
    }
    let event_times = read_event_times(reader, rows)?;
    let fact_ids = read_fact_ids(reader, rows)?;
    let unknown_fields = match reader.byte()? {
        0 => None,
        1 => Some(read_column(reader, &DataType::String, rows, 0)?),
        other => return Err(Corrupt(format!("no form {other} of unknown fields"))),
    };
    let columns: Vec<ArrayRef> = fields
        .iter()
        .map(|field| read_column(reader, &field.data_type, rows, 0))
        .collect::<Result<_, _>>()?;
    reader.finish()?;
    reader.charge(rows, 8 + columns.len())?;
    let event_times = event_times.resolve(&columns)?;
    let fact_ids = fact_ids.resolve(&columns, rows)?;
    let schema = Schema::new(fields.iter().map(Field::to_arrow).collect::<Vec<_>>());
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    let columns = RecordBatch::try_new_with_options(Arc::new(schema), columns, &options)
        .map_err(|e| Corrupt(e.to_string()))?;
    Ok(FactBatch {
        contract,
        columns,
        event_times,
        fact_ids,
        unknown_fields: unknown_fields.map(|a| a.as_string::<i32>().clone()),
    })
}

/// Why bytes are no batch.
#[derive(Debug)]
struct Corrupt(String);

#[cfg(test)]
mod tests;
