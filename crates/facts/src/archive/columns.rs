//! The columns of an archived file: those of the contract, and five that the archive adds.
//!
//! A column of a contract that would be taken for one of those five has one more `_` before it.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Int64Array, RecordBatch, RecordBatchOptions, StringArray,
    TimestampMicrosecondArray,
};
use arrow::compute::interleave_record_batch;
use arrow::datatypes::{
    DataType, Field, Int64Type, Schema, SchemaRef, TimeUnit, TimestampMicrosecondType,
};
use headwater_schema::{Micros, Problem, SequencedBatch};

use super::entry::unreadable;

pub const EVENT_TIME: &str = "_event_time";
pub const INGEST_TIME: &str = "_ingest_time";
pub const SEQUENCE: &str = "_sequence";
pub const FACT_ID: &str = "_fact_id";
pub const UNKNOWN_FIELDS: &str = "_unknown_fields";
/// The sequence from which a fact isn't seen, in files of corrections.
pub const REMOVED_AT: &str = "_removed_at";

const ADDED: [&str; 5] = [EVENT_TIME, INGEST_TIME, SEQUENCE, FACT_ID, UNKNOWN_FIELDS];

fn instant() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

fn instants(times: Vec<Micros>) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from(times).with_timezone("UTC"))
}

/// A contract's column as the archive names it.
pub fn archived_name(name: &str) -> String {
    let bare = format!("_{}", name.trim_start_matches('_'));
    match name.starts_with('_') && ADDED.contains(&bare.as_str()) {
        true => format!("_{name}"),
        false => name.to_owned(),
    }
}

/// The contract's name of a column of the archive; none where the archive added it.
pub fn contract_name(archived: &str) -> Option<&str> {
    if ADDED.contains(&archived) {
        return None;
    }
    let bare = format!("_{}", archived.trim_start_matches('_'));
    match archived.starts_with('_') && ADDED.contains(&bare.as_str()) {
        true => archived.strip_prefix('_'),
        false => Some(archived),
    }
}

/// The columns of a file of facts that are stored with `columns`.
pub fn archived_schema(columns: &Schema) -> SchemaRef {
    let own = columns.fields().iter();
    let own = own.map(|field| {
        field
            .as_ref()
            .clone()
            .with_name(archived_name(field.name()))
    });
    let added = [
        Field::new(EVENT_TIME, instant(), false),
        Field::new(INGEST_TIME, instant(), false),
        Field::new(SEQUENCE, DataType::Int64, false),
        Field::new(FACT_ID, DataType::Utf8, true),
        Field::new(UNKNOWN_FIELDS, DataType::Utf8, true),
    ];
    Arc::new(Schema::new(own.chain(added).collect::<Vec<_>>()))
}

/// Rows of batches with the same columns, as rows of a file; `rows` are (batch, row).
pub fn to_archive(
    schema: &SchemaRef,
    batches: &[&SequencedBatch],
    rows: &[(usize, usize)],
) -> Result<RecordBatch, Problem> {
    let columns: Vec<&RecordBatch> = batches.iter().map(|b| &b.batch.columns).collect();
    let mut arrays = interleave(&columns, rows)?.columns().to_vec();
    let each = |of: &dyn Fn(&SequencedBatch, usize) -> i64| {
        let values = rows.iter().map(|(batch, row)| of(batches[*batch], *row));
        values.collect::<Vec<i64>>()
    };
    let text = |of: &dyn Fn(&SequencedBatch, usize) -> Option<String>| {
        let values = rows.iter().map(|(batch, row)| of(batches[*batch], *row));
        Arc::new(values.collect::<StringArray>()) as ArrayRef
    };
    arrays.push(instants(each(&|batch, row| batch.batch.event_times[row])));
    arrays.push(instants(each(&|batch, _| batch.ingest_time)));
    let sequences = each(&|batch, row| (batch.first_sequence + row as u64) as i64);
    arrays.push(Arc::new(Int64Array::from(sequences)));
    arrays.push(text(&|batch, row| match &batch.batch.fact_ids {
        Some(ids) => value(ids, row),
        None => Some((batch.first_sequence + row as u64).to_string()),
    }));
    arrays.push(text(&|batch, row| {
        batch
            .batch
            .unknown_fields
            .as_ref()
            .and_then(|u| value(u, row))
    }));
    RecordBatch::try_new(schema.clone(), arrays).map_err(|e| failed(&e))
}

fn value(texts: &StringArray, row: usize) -> Option<String> {
    texts.is_valid(row).then(|| texts.value(row).to_owned())
}

fn failed(error: &arrow::error::ArrowError) -> Problem {
    Problem::internal("archive-columns", "facts don't fit into the archive").detail(error)
}

/// Rows of batches with the same columns, as one batch.
pub fn interleave(
    batches: &[&RecordBatch],
    rows: &[(usize, usize)],
) -> Result<RecordBatch, Problem> {
    let first = batches.first().ok_or_else(|| unreadable("no facts"))?;
    if first.num_columns() == 0 {
        let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
        let made = RecordBatch::try_new_with_options(first.schema(), Vec::new(), &options);
        return made.map_err(|e| failed(&e));
    }
    interleave_record_batch(batches, rows).map_err(|e| failed(&e))
}

/// What the archive added to the columns of facts.
pub struct Added {
    pub event_times: Vec<Micros>,
    pub ingest_times: Vec<Micros>,
    pub fact_ids: StringArray,
    pub unknown_fields: StringArray,
}

/// Rows of a file, parted into the contract's columns and what was added.
pub fn from_archive(rows: &RecordBatch) -> Result<(RecordBatch, Added), Problem> {
    let column = |name: &str| {
        let found = rows.column_by_name(name);
        found.ok_or_else(|| unreadable(format!("a file lacks the column `{name}`")))
    };
    let times = |name: &str| {
        let array = column(name)?.as_primitive_opt::<TimestampMicrosecondType>();
        let array = array.ok_or_else(|| unreadable(format!("`{name}` holds no times")))?;
        Ok::<_, Problem>(array.values().to_vec())
    };
    let texts = |name: &str| {
        let array = column(name)?.as_string_opt::<i32>();
        let array = array.ok_or_else(|| unreadable(format!("`{name}` holds no texts")))?;
        Ok::<_, Problem>(array.clone())
    };
    let added = Added {
        event_times: times(EVENT_TIME)?,
        ingest_times: times(INGEST_TIME)?,
        fact_ids: texts(FACT_ID)?,
        unknown_fields: texts(UNKNOWN_FIELDS)?,
    };
    let (mut fields, mut arrays) = (Vec::new(), Vec::new());
    for (field, array) in rows.schema().fields().iter().zip(rows.columns()) {
        if let Some(name) = contract_name(field.name()) {
            fields.push(field.as_ref().clone().with_name(name));
            arrays.push(array.clone());
        }
    }
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    let schema = Arc::new(Schema::new(fields));
    let columns = RecordBatch::try_new_with_options(schema, arrays, &options);
    Ok((columns.map_err(|e| failed(&e))?, added))
}

/// The sequences of a file's rows.
pub fn sequences(rows: &RecordBatch) -> Result<Vec<i64>, Problem> {
    let array = rows.column_by_name(SEQUENCE);
    let array = array.and_then(|a| a.as_primitive_opt::<Int64Type>());
    let array = array.ok_or_else(|| unreadable("a file has no sequences"))?;
    Ok(array.values().to_vec())
}

/// (sequence, removed at, arrival of the removal) as rows of a file.
pub fn corrections(removals: &[(u64, u64, Micros)]) -> Result<RecordBatch, Problem> {
    let numbers = |of: &dyn Fn(&(u64, u64, Micros)) -> u64| {
        let values = removals.iter().map(|removal| of(removal) as i64);
        Arc::new(values.collect::<Int64Array>()) as ArrayRef
    };
    let schema = Schema::new(vec![
        Field::new(SEQUENCE, DataType::Int64, false),
        Field::new(REMOVED_AT, DataType::Int64, false),
        Field::new(INGEST_TIME, instant(), false),
    ]);
    let arrays = vec![
        numbers(&|removal| removal.0),
        numbers(&|removal| removal.1),
        instants(removals.iter().map(|removal| removal.2).collect()),
    ];
    RecordBatch::try_new(Arc::new(schema), arrays).map_err(|e| failed(&e))
}
