//! Arrow streams and files, and Parquet files. A column of a type that doesn't fit the contract is wrong in
//! every row, and so a problem of the whole body; single values are checked row by row.

use std::borrow::Cow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, TimestampMicrosecondArray,
};
use arrow::buffer::Buffer;
use arrow::datatypes::{
    DataType as ArrowType, Int64Type, TimeUnit as ArrowUnit, TimestampMicrosecondType, UInt64Type,
};
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamDecoder;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::reader::ChunkReader;
use serde_json::{Map, Value as Json};

use super::arrow_file::{file_batches, is_arrow_file};
use super::json::Times;
use super::rows::{Reject, Rows};
use super::{BodyFormat, value_to_json};
use crate::time::{
    MICROS_PER_DAY, MICROS_PER_SECOND, format_date, format_timestamp, parse_timestamp,
};
use crate::{DataType, Problem, Value};

/// Rows of a Parquet file that are unpacked at a time.
const BATCH_ROWS: usize = 8192;

/// Batches of a body, one after the other.
pub type Batches<'a> = Box<dyn Iterator<Item = Result<RecordBatch, Problem>> + 'a>;

/// The record batches of an Arrow stream or file, or of a Parquet file.
pub fn read_record_batches(format: BodyFormat, body: &[u8]) -> Result<Batches<'_>, Problem> {
    if format == BodyFormat::Parquet {
        // The reader wants an owner of the bytes.
        return Ok(parquet_batches(bytes::Bytes::copy_from_slice(body))?.1);
    }
    let (length, read) = (body.len() as u64, move |at: u64, into: &mut [u8]| {
        let at = at as usize;
        into.copy_from_slice(&body[at..at + into.len()]);
        Ok(())
    });
    if is_arrow_file(length, read)? {
        return file_batches(length, usize::MAX, read);
    }
    // Decoding from a buffer takes slices of it: lengths that lie allocate nothing.
    let mut whole = Some(Buffer::from(body));
    Ok(stream_batches(usize::MAX, move || Ok(whole.take())))
}

/// The record batches of an Arrow stream that comes in pieces. The bytes of one are held together, with those of
/// dictionaries before it: `batch_bytes_max` at most.
pub fn stream_batches<'a>(
    batch_bytes_max: usize,
    mut next: impl FnMut() -> Result<Option<Buffer>, Problem> + 'a,
) -> Batches<'a> {
    let mut decoder = StreamDecoder::new();
    let mut rest = Buffer::from(&[]);
    let mut bytes = 0usize;
    let mut advance = move || {
        loop {
            if let Some(batch) = guarded(|| decoder.decode(&mut rest))? {
                bytes = rest.len();
                return Ok(Some(batch));
            }
            match next()? {
                Some(piece) => rest = piece,
                None => break,
            }
            bytes = bytes.saturating_add(rest.len());
            if bytes > batch_bytes_max {
                return Err(batch_too_large(batch_bytes_max));
            }
        }
        // A stream that stops before its end was cut off.
        match decoder.finish() {
            Ok(()) if decoder.schema().is_some() => Ok(None),
            Ok(()) => Err(unreadable("It is empty")),
            Err(error) => Err(unreadable(error)),
        }
    };
    let mut ended = false;
    Box::new(std::iter::from_fn(move || {
        if ended {
            return None;
        }
        let batch = advance().transpose();
        ended = !matches!(batch, Some(Ok(_)));
        batch
    }))
}

/// How many rows a Parquet file says it has, and its record batches, of which no more is read at a time than a page of each column.
pub fn parquet_batches<R: ChunkReader + 'static>(
    file: R,
) -> Result<(u64, Batches<'static>), Problem> {
    let builder = guarded(|| ParquetRecordBatchReaderBuilder::try_new(file))?;
    let rows = u64::try_from(builder.metadata().file_metadata().num_rows()).unwrap_or(0);
    let mut reader = guarded(|| builder.with_batch_size(BATCH_ROWS).build())?;
    let batches = std::iter::from_fn(move || guarded(|| reader.next().transpose()).transpose());
    Ok((rows, Box::new(batches)))
}

/// Runs a library's reader over bytes from outside. Both readers panic on some metadata that lies
/// (a field without a type, a decimal without a precision), which is the sender's fault, not ours.
pub(super) fn guarded<T, E: std::fmt::Display>(
    read: impl FnOnce() -> Result<T, E>,
) -> Result<T, Problem> {
    match catch_unwind(AssertUnwindSafe(read)) {
        Ok(read) => read.map_err(unreadable),
        Err(_) => Err(unreadable("Its metadata contradicts itself")),
    }
}

pub(super) fn batch_too_large(batch_bytes_max: usize) -> Problem {
    Problem::user("batch-too-large", "A record batch is too large")
        .detail(format!("It has more than {batch_bytes_max} bytes"))
        .hint("Write it in smaller batches")
}

pub(super) fn unreadable(error: impl std::fmt::Display) -> Problem {
    Problem::user("bad-columns", "The columns cannot be read")
        .detail(error)
        .hint("Send an Arrow IPC stream or file, or a Parquet file with the ending .parquet")
}

/// A column in the contract's layout, and the rows whose values don't fit it.
struct Fitted {
    array: ArrayRef,
    faults: Vec<(usize, String)>,
}

/// Reads the rows of a body.
pub fn read_body(format: BodyFormat, body: &[u8], rows: &mut Rows<'_>) -> Result<(), Problem> {
    for batch in read_record_batches(format, body)? {
        read_batch(&batch?, rows)?;
    }
    Ok(())
}

fn read_batch(batch: &RecordBatch, rows: &mut Rows<'_>) -> Result<(), Problem> {
    let contract = rows.contract;
    let schema = batch.schema();
    let mut fitted = Vec::new();
    let mut unknown = Vec::new();
    for (field, array) in schema.fields().iter().zip(batch.columns()) {
        let Some(index) = contract.field_index(field.name()) else {
            unknown.push((field.name().as_str(), plain_layout(array)));
            continue;
        };
        if fitted.iter().any(|(other, _)| *other == index) {
            return Err(Problem::user(
                "bad-columns",
                format!("The column `{}` occurs twice", field.name()),
            )
            .hint("Rename one of them"));
        }
        let spec = &contract.fields[index];
        let times = Times {
            zone: contract.zone_of(spec),
            unit: contract.time_unit,
        };
        let column = fit(array, &spec.data_type, times).map_err(|reason| {
            Problem::user(
                "wrong-type",
                format!("The column `{}` has the wrong type", spec.name),
            )
            .detail(reason)
            .hint(format!(
                "The contract `{}` wants {}; cast it before sending",
                contract.name, spec.data_type
            ))
            .field(spec.name.as_ref())
        })?;
        fitted.push((index, column));
    }
    for row in 0..batch.num_rows() {
        let read = push_row(row, &fitted, &unknown, rows);
        rows.end_row(read, || Cow::Owned(row_json(batch, row)))?;
    }
    Ok(())
}

fn push_row(
    row: usize,
    fitted: &[(usize, Fitted)],
    unknown: &[(&str, ArrayRef)],
    rows: &mut Rows<'_>,
) -> Result<(), Reject> {
    for (index, column) in fitted {
        if let Ok(fault) = column.faults.binary_search_by_key(&row, |(row, _)| *row) {
            let name = &rows.contract.fields[*index].name;
            return Err(Reject::new("type", column.faults[fault].1.clone()).within(name));
        }
        rows.columns[*index].push_from(column.array.as_ref(), row);
    }
    for (name, array) in unknown {
        if !array.is_null(row) {
            let value = value_to_json(&Value::from_array(array.as_ref(), row));
            rows.unknown.push(((*name).to_owned(), value.to_string()));
        }
    }
    Ok(())
}

fn row_json(batch: &RecordBatch, row: usize) -> String {
    let schema = batch.schema();
    let members = schema
        .fields()
        .iter()
        .zip(batch.columns())
        .map(|(field, array)| {
            let one = plain_layout(&array.slice(row, 1));
            (
                field.name().clone(),
                value_to_json(&Value::from_array(one.as_ref(), 0)),
            )
        });
    Json::Object(members.collect::<Map<_, _>>()).to_string()
}

/// The array in the layout that our values are read from; itself where there is none.
fn plain_layout(array: &ArrayRef) -> ArrayRef {
    DataType::from_arrow(array.data_type())
        .ok()
        .and_then(|t| arrow::compute::cast(array, &t.to_arrow()).ok())
        .unwrap_or_else(|| Arc::clone(array))
}

fn fit(array: &ArrayRef, wanted: &DataType, times: Times<'_>) -> Result<Fitted, String> {
    let found = array.data_type();
    let given = || format!("It is {found}");
    if let ArrowType::Dictionary(_, values) = found {
        let plain = arrow::compute::cast(array, values).map_err(|e| e.to_string())?;
        return fit(&plain, wanted, times);
    }
    if *found == ArrowType::Null {
        return Ok(whole(arrow::array::new_null_array(
            &wanted.to_arrow(),
            array.len(),
        )));
    }
    match (wanted, found) {
        (DataType::Timestamp, _) => return fit_times(array, times),
        (DataType::Int64, ArrowType::UInt64) => return Ok(fit_unsigned(array)),
        (DataType::Float64, found) if found.is_integer() => return fit_floats(array),
        (DataType::Decimal { precision, scale }, ArrowType::Decimal128(p, s))
            if scale >= s
                && i16::from(*precision) - i16::from(*scale) >= i16::from(*p) - i16::from(*s) => {}
        _ => {
            let read_as = DataType::from_arrow(found).map_err(|e| e.to_string())?;
            if !same_shape(&read_as, wanted) {
                return Err(given());
            }
        }
    }
    let strict = arrow::compute::CastOptions {
        safe: false,
        ..Default::default()
    };
    arrow::compute::cast_with_options(array, &wanted.to_arrow(), &strict)
        .map(whole)
        .map_err(|e| e.to_string())
}

fn whole(array: ArrayRef) -> Fitted {
    Fitted {
        array,
        faults: Vec::new(),
    }
}

/// Whether a cast changes the layout only. Members of structs must come in the contract's order.
fn same_shape(given: &DataType, wanted: &DataType) -> bool {
    given == wanted
}

fn faults(
    array: &ArrayRef,
    lost: &dyn Array,
    reason: impl Fn(usize) -> String,
) -> Vec<(usize, String)> {
    let rows = (0..array.len()).filter(|row| lost.is_null(*row) && !array.is_null(*row));
    rows.map(|row| (row, reason(row))).collect()
}

fn fit_unsigned(array: &ArrayRef) -> Fitted {
    let values = array.as_primitive::<UInt64Type>();
    let fitted: Int64Array = values
        .iter()
        .map(|v| v.and_then(|v| i64::try_from(v).ok()))
        .collect();
    let faults = faults(array, &fitted, |row| {
        format!(
            "{} does not fit into 64 bits with a sign",
            values.value(row)
        )
    });
    Fitted {
        array: Arc::new(fitted),
        faults,
    }
}

fn fit_floats(array: &ArrayRef) -> Result<Fitted, String> {
    /// Up to here every integer is a float of its own.
    const EXACT_MAX: i64 = 1 << 53;
    let integers = arrow::compute::cast(array, &ArrowType::Int64).map_err(|e| e.to_string())?;
    let values = integers.as_primitive::<Int64Type>();
    let exact = |v: i64| (-EXACT_MAX..=EXACT_MAX).contains(&v).then_some(v as f64);
    let fitted: Float64Array = values.iter().map(|v| v.and_then(exact)).collect();
    let faults = faults(array, &fitted, |_| {
        "The integer is no float64 without loss".to_owned()
    });
    Ok(Fitted {
        array: Arc::new(fitted),
        faults,
    })
}

fn fit_times(array: &ArrayRef, times: Times<'_>) -> Result<Fitted, String> {
    let (values, local) = match array.data_type() {
        found if found.is_integer() => {
            let unit = times
                .unit
                .ok_or("It holds integers, and the contract names no `headwater.timeUnit`")?;
            let integers =
                arrow::compute::cast(array, &ArrowType::Int64).map_err(|e| e.to_string())?;
            let values = integers.as_primitive::<Int64Type>();
            let fitted: TimestampMicrosecondArray = values
                .iter()
                .map(|v| v.and_then(|v| unit.to_micros(v)))
                .collect();
            (fitted, false)
        }
        ArrowType::Timestamp(unit, zone) => (micros(array, *unit)?, zone.is_none()),
        other => return Err(format!("It is {other}")),
    };
    let faults = faults(array, &values, |_| {
        "The time is beyond what times can be".to_owned()
    });
    if !local {
        return Ok(Fitted {
            array: Arc::new(values.with_timezone("UTC")),
            faults,
        });
    }
    let zone = times.zone.ok_or(
        "Its times have no zone, and the contract names none; add one, or `headwater.timeZone` to the contract",
    )?;
    let place = |t: i64| {
        let days = i32::try_from(t.div_euclid(MICROS_PER_DAY)).ok()?;
        let clock = format_timestamp(t.rem_euclid(MICROS_PER_DAY));
        let text = format!(
            "{}{}",
            format_date(days),
            clock.get(10..)?.trim_end_matches('Z')
        );
        parse_timestamp(&text, Some(zone)).ok()
    };
    let placed: TimestampMicrosecondArray = values.iter().map(|v| v.and_then(place)).collect();
    let faults = self::faults(array, &placed, |_| {
        "The local time is beyond what times can be".to_owned()
    });
    Ok(Fitted {
        array: Arc::new(placed.with_timezone("UTC")),
        faults,
    })
}

/// Timestamps of any unit in microseconds, floored; null where they don't fit.
fn micros(array: &ArrayRef, unit: ArrowUnit) -> Result<TimestampMicrosecondArray, String> {
    let integers =
        arrow::compute::cast(array, &ArrowType::Int64).map_err(|e: ArrowError| e.to_string())?;
    let values = integers.as_primitive::<Int64Type>();
    let scale = |v: i64| match unit {
        ArrowUnit::Second => v.checked_mul(MICROS_PER_SECOND),
        ArrowUnit::Millisecond => v.checked_mul(1000),
        ArrowUnit::Microsecond => Some(v),
        ArrowUnit::Nanosecond => Some(v.div_euclid(1000)),
    };
    let scaled = values.iter().map(|v| v.and_then(scale));
    Ok(scaled.collect::<arrow::array::PrimitiveArray<TimestampMicrosecondType>>())
}
