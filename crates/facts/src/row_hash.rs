//! Hashes of facts: their ids, and their payloads, to tell a duplicate from a conflict.

use arrow::array::{Array, AsArray, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Float64Type, Int64Type, TimestampMicrosecondType};
use headwater_schema::Value;
use headwater_schema::codec::encode_value;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// The hash under which a fact's id is remembered.
#[cfg(feature = "disk")]
pub fn id_hash(contract: &str, id: &str) -> u128 {
    xxhash_rust::xxh3::xxh3_128_with_seed(id.as_bytes(), xxh3_64(contract.as_bytes()))
}

/// The hash of each row's values.
///
/// Columns add up under their names and nulls add nothing, so that a contract that has grown an
/// optional field still knows its old facts.
pub fn payload_hashes(columns: &RecordBatch, unknown_fields: Option<&StringArray>) -> Vec<u64> {
    let mut hashes = vec![0u64; columns.num_rows()];
    for (field, array) in columns.schema().fields().iter().zip(columns.columns()) {
        add_column(
            &mut hashes,
            xxh3_64(field.name().as_bytes()),
            array.as_ref(),
        );
    }
    if let Some(unknown) = unknown_fields {
        add_column(&mut hashes, 1, unknown);
    }
    hashes
}

fn add_column(hashes: &mut [u64], seed: u64, array: &dyn Array) {
    let mut add = |row: usize, bytes: &[u8]| {
        hashes[row] = hashes[row].wrapping_add(xxh3_64_with_seed(bytes, seed));
    };
    let valid = (0..array.len()).filter(|row| array.is_valid(*row));
    match array.data_type() {
        DataType::Int64 => {
            let values = array.as_primitive::<Int64Type>();
            valid.for_each(|row| add(row, &values.value(row).to_le_bytes()));
        }
        DataType::Float64 => {
            let values = array.as_primitive::<Float64Type>();
            valid.for_each(|row| add(row, &(values.value(row) + 0.0).to_bits().to_le_bytes()));
        }
        DataType::Timestamp(_, _) => {
            let values = array.as_primitive::<TimestampMicrosecondType>();
            valid.for_each(|row| add(row, &values.value(row).to_le_bytes()));
        }
        DataType::Utf8 => {
            let values = array.as_string::<i32>();
            valid.for_each(|row| add(row, values.value(row).as_bytes()));
        }
        _ => {
            let mut bytes = Vec::new();
            for row in valid {
                bytes.clear();
                encode_value(&mut bytes, &Value::from_array(array, row));
                add(row, &bytes);
            }
        }
    }
}
