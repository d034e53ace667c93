//! Writes one column of any type: validity, then the values that are present.
//!
//! ```text
//! bool              packed bits
//! int64, timestamp, date   integers
//! float64           0 raw, little-endian | 1 integers (all are whole and small)
//! decimal           0 integers | 1 128-bit varints
//! string, bytes     0 lengths as integers, all bytes | 1 v entries, the entries as form 0, indexes as integers
//! list              lengths as integers, v items, a column of the items
//! map               lengths as integers, v entries, a column of keys, a column of values
//! struct            a column per member, nulls in the rows where the struct is null
//! ```

use std::collections::HashMap;

use arrow::array::{Array, ArrayRef, AsArray, UInt32Array};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{
    Date32Type, Decimal128Type, Float64Type, Int64Type, TimestampMicrosecondType,
};

use super::bytes::{Writer, bit_width};
use super::integers;
use crate::DataType;

/// From so many strings on a dictionary is tried.
const DICTIONARY_ROWS_MIN: usize = 8;

pub fn write_type(out: &mut Writer, data_type: &DataType) {
    match data_type {
        DataType::Bool => out.byte(1),
        DataType::Int64 => out.byte(2),
        DataType::Float64 => out.byte(3),
        DataType::Decimal { precision, scale } => out.raw(&[4, *precision, *scale as u8]),
        DataType::String => out.byte(5),
        DataType::Bytes => out.byte(6),
        DataType::Timestamp => out.byte(7),
        DataType::Date => out.byte(8),
        DataType::List(item) => {
            out.byte(9);
            write_type(out, item);
        }
        DataType::Struct(fields) => {
            out.byte(10);
            out.size(fields.len());
            for field in fields.iter() {
                out.text(&field.name);
                write_type(out, &field.data_type);
            }
        }
        DataType::Map(value) => {
            out.byte(11);
            write_type(out, value);
        }
    }
}

/// Writes an array of the layout that `data_type.to_arrow()` names.
pub fn write_column(out: &mut Writer, array: &dyn Array, data_type: &DataType) {
    let rows = array.len();
    let nulls = array.nulls().filter(|n| n.null_count() > 0);
    match nulls {
        None => out.byte(0),
        Some(nulls) if nulls.null_count() == rows => {
            out.byte(1);
            return;
        }
        Some(nulls) => {
            out.byte(2);
            out.packed(nulls.iter().map(u64::from), 1);
        }
    }
    let present: Vec<usize> = match nulls {
        None => (0..rows).collect(),
        Some(nulls) => nulls.valid_indices().collect(),
    };
    write_present(out, array, data_type, &present);
}

fn write_present(out: &mut Writer, array: &dyn Array, data_type: &DataType, present: &[usize]) {
    match data_type {
        DataType::Bool => {
            let values = array.as_boolean();
            out.packed(present.iter().map(|i| u64::from(values.value(*i))), 1);
        }
        DataType::Int64 => {
            let values = array.as_primitive::<Int64Type>();
            write_integers(out, present, |i| values.value(i));
        }
        DataType::Timestamp => {
            let values = array.as_primitive::<TimestampMicrosecondType>();
            write_integers(out, present, |i| values.value(i));
        }
        DataType::Date => {
            let values = array.as_primitive::<Date32Type>();
            write_integers(out, present, |i| i64::from(values.value(i)));
        }
        DataType::Float64 => {
            let values = array.as_primitive::<Float64Type>();
            let values: Vec<f64> = present.iter().map(|i| values.value(*i)).collect();
            write_floats(out, &values);
        }
        DataType::Decimal { .. } => {
            let values = array.as_primitive::<Decimal128Type>();
            let values: Vec<i128> = present.iter().map(|i| values.value(*i)).collect();
            write_decimals(out, &values);
        }
        DataType::String => {
            let values = array.as_string::<i32>();
            let values: Vec<&[u8]> = present
                .iter()
                .map(|i| values.value(*i).as_bytes())
                .collect();
            write_blobs(out, &values);
        }
        DataType::Bytes => {
            let values = array.as_binary::<i32>();
            let values: Vec<&[u8]> = present.iter().map(|i| values.value(*i)).collect();
            write_blobs(out, &values);
        }
        DataType::List(item) => {
            let list = array.as_list::<i32>();
            let taken = write_lengths(out, list.offsets(), present);
            write_column(out, gathered(list.values(), &taken).as_ref(), item);
        }
        DataType::Map(value) => {
            let map = array.as_map();
            let taken = write_lengths(out, map.offsets(), present);
            write_column(
                out,
                gathered(map.keys(), &taken).as_ref(),
                &DataType::String,
            );
            write_column(out, gathered(map.values(), &taken).as_ref(), value);
        }
        DataType::Struct(fields) => {
            for (field, column) in fields.iter().zip(array.as_struct().columns()) {
                let rows: Vec<u32> = present.iter().map(|i| *i as u32).collect();
                write_column(out, gathered(column, &rows).as_ref(), &field.data_type);
            }
        }
    }
}

fn write_integers(out: &mut Writer, present: &[usize], value: impl Fn(usize) -> i64) {
    let values: Vec<i64> = present.iter().map(|i| value(*i)).collect();
    integers::write(out, &values);
}

/// Writes the lengths of the lists that are present and the number of their items; gives the
/// places of the items.
fn write_lengths(out: &mut Writer, offsets: &OffsetBuffer<i32>, present: &[usize]) -> Vec<u32> {
    let range = |i: usize| offsets[i] as u32..offsets[i + 1] as u32;
    let lengths: Vec<i64> = present.iter().map(|i| range(*i).len() as i64).collect();
    integers::write(out, &lengths);
    let taken: Vec<u32> = present.iter().flat_map(|i| range(*i)).collect();
    out.size(taken.len());
    taken
}

fn gathered(values: &ArrayRef, rows: &[u32]) -> ArrayRef {
    let contiguous = rows.windows(2).all(|pair| pair[0] + 1 == pair[1]);
    match rows.first() {
        None => values.slice(0, 0),
        Some(first) if contiguous => values.slice(*first as usize, rows.len()),
        Some(_) => {
            let rows = UInt32Array::from(rows.to_vec());
            // The rows are places of `values` itself, so taking them cannot fail.
            arrow::compute::take(values, &rows, None).unwrap_or_else(|_| values.slice(0, 0))
        }
    }
}

fn write_floats(out: &mut Writer, values: &[f64]) {
    // 2^53: below it every whole float has exactly one integer.
    const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;
    let whole =
        |v: f64| v.abs() < WHOLE_MAX && v.fract() == 0.0 && (v != 0.0 || v.is_sign_positive());
    if values.iter().all(|v| whole(*v)) {
        out.byte(1);
        let values: Vec<i64> = values.iter().map(|v| *v as i64).collect();
        integers::write(out, &values);
    } else {
        out.byte(0);
        values.iter().for_each(|v| out.raw(&v.to_le_bytes()));
    }
}

fn write_decimals(out: &mut Writer, values: &[i128]) {
    let narrow: Option<Vec<i64>> = values.iter().map(|v| i64::try_from(*v).ok()).collect();
    match narrow {
        Some(values) => {
            out.byte(0);
            integers::write(out, &values);
        }
        None => {
            out.byte(1);
            values.iter().for_each(|v| out.wide(*v));
        }
    }
}

fn write_blobs(out: &mut Writer, values: &[&[u8]]) {
    if let Some((entries, indexes)) = dictionary(values) {
        out.byte(1);
        out.size(entries.len());
        write_plain_blobs(out, &entries);
        integers::write(out, &indexes);
    } else {
        out.byte(0);
        write_plain_blobs(out, values);
    }
}

fn write_plain_blobs(out: &mut Writer, values: &[&[u8]]) {
    let lengths: Vec<i64> = values.iter().map(|v| v.len() as i64).collect();
    integers::write(out, &lengths);
    values.iter().for_each(|v| out.raw(v));
}

/// The distinct values and each value's place among them, where that saves space.
fn dictionary<'a>(values: &[&'a [u8]]) -> Option<(Vec<&'a [u8]>, Vec<i64>)> {
    if values.len() < DICTIONARY_ROWS_MIN {
        return None;
    }
    let distinct_max = values.len() / 2;
    let (mut places, mut entries) = (HashMap::new(), Vec::new());
    let mut indexes = Vec::with_capacity(values.len());
    for value in values {
        let place = *places.entry(*value).or_insert_with(|| {
            entries.push(*value);
            entries.len() as i64 - 1
        });
        if entries.len() > distinct_max {
            return None;
        }
        indexes.push(place);
    }
    let plain: usize = values.iter().map(|v| v.len()).sum();
    let kept: usize = entries.iter().map(|v| v.len() + 1).sum();
    let width = bit_width(entries.len() as u64 - 1) as usize;
    (kept + values.len() * width / 8 < plain).then_some((entries, indexes))
}
