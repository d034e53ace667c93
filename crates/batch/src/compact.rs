//! How many bytes the rows of a batch are, and batches that hold no more than their rows. A slice of a batch shares
//! the memory of all of it: written out, or held alone, texts by view and dictionaries would come along whole.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, GenericListArray, MapArray, OffsetSizeTrait, RecordBatch,
    RecordBatchOptions, StructArray,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, FieldRef};
use arrow::error::ArrowError;
use arrow_select::dictionary::garbage_collect_any_dictionary;
use headwater_schema::Problem;

/// About how many bytes the rows of a batch are, without what lies beside them where it is a slice. Dictionaries
/// count whole.
pub fn batch_bytes(batch: &RecordBatch) -> usize {
    batch.columns().iter().map(array_bytes).sum()
}

fn array_bytes(array: &ArrayRef) -> usize {
    let views = |views: usize, beside: usize| views * size_of::<u128>() + beside;
    let nulls = array.nulls().map_or(0, |nulls| nulls.len().div_ceil(8));
    let own = match array.data_type() {
        DataType::Utf8View => {
            let texts = array.as_string_view();
            views(texts.len(), texts.total_buffer_bytes_used())
        }
        DataType::BinaryView => {
            let texts = array.as_binary_view();
            views(texts.len(), texts.total_buffer_bytes_used())
        }
        DataType::List(_) => list_bytes(array.as_list::<i32>()),
        DataType::LargeList(_) => list_bytes(array.as_list::<i64>()),
        DataType::Map(..) => {
            let map = array.as_map();
            let entries: ArrayRef = Arc::new(map.entries().clone());
            size_of_val::<[i32]>(map.offsets()) + array_bytes(&within(&entries, map.offsets()))
        }
        DataType::Struct(_) => array.as_struct().columns().iter().map(array_bytes).sum(),
        DataType::Dictionary(..) => {
            let dictionary = array.as_any_dictionary();
            let keys = dictionary.keys().to_data();
            keys.get_slice_memory_size().unwrap_or_default() + array_bytes(dictionary.values())
        }
        _ => {
            let whole = array.get_array_memory_size();
            return array.to_data().get_slice_memory_size().unwrap_or(whole);
        }
    };
    own + nulls
}

fn list_bytes<O: OffsetSizeTrait>(list: &GenericListArray<O>) -> usize {
    size_of_val::<[O]>(list.offsets()) + array_bytes(&within(list.values(), list.offsets()))
}

/// The values that offsets speak of.
fn within<O: OffsetSizeTrait>(values: &ArrayRef, offsets: &OffsetBuffer<O>) -> ArrayRef {
    let first = offsets[0].as_usize();
    values.slice(first, offsets[offsets.len() - 1].as_usize() - first)
}

/// The batch, without what its texts by view and its dictionaries share with rows that aren't in it.
pub fn compact(batch: &RecordBatch) -> Result<RecordBatch, Problem> {
    let columns: Result<Vec<_>, _> = batch.columns().iter().map(compacted).collect();
    let rows = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    columns
        .and_then(|columns| RecordBatch::try_new_with_options(batch.schema(), columns, &rows))
        .map_err(|e| Problem::internal("columns", "rows can't be taken by themselves").detail(e))
}

fn compacted(array: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    Ok(match array.data_type() {
        DataType::Utf8View => Arc::new(array.as_string_view().gc()),
        DataType::BinaryView => Arc::new(array.as_binary_view().gc()),
        DataType::Dictionary(..) => garbage_collect_any_dictionary(array.as_any_dictionary())?,
        DataType::List(field) => Arc::new(compacted_list(array.as_list::<i32>(), field)?),
        DataType::LargeList(field) => Arc::new(compacted_list(array.as_list::<i64>(), field)?),
        DataType::Map(field, sorted) => {
            let map = array.as_map();
            let entries: ArrayRef = Arc::new(map.entries().clone());
            let entries = compacted(&within(&entries, map.offsets()))?;
            let offsets = OffsetBuffer::from_lengths(map.offsets().lengths());
            let (entries, nulls) = (entries.as_struct().clone(), map.nulls().cloned());
            Arc::new(MapArray::try_new(
                field.clone(),
                offsets,
                entries,
                nulls,
                *sorted,
            )?)
        }
        DataType::Struct(fields) => {
            let columns = array.as_struct().columns().iter().map(compacted);
            let (columns, nulls) = (columns.collect::<Result<_, _>>()?, array.nulls().cloned());
            let length = array.len();
            Arc::new(StructArray::try_new_with_length(
                fields.clone(),
                columns,
                nulls,
                length,
            )?)
        }
        _ => array.clone(),
    })
}

fn compacted_list<O: OffsetSizeTrait>(
    list: &GenericListArray<O>,
    field: &FieldRef,
) -> Result<GenericListArray<O>, ArrowError> {
    let values = compacted(&within(list.values(), list.offsets()))?;
    let offsets = OffsetBuffer::from_lengths(list.offsets().lengths());
    GenericListArray::try_new(field.clone(), offsets, values, list.nulls().cloned())
}

#[cfg(test)]
mod tests {
    use arrow::array::{DictionaryArray, Int64Array, ListArray, StringArray, StringViewArray};
    use arrow::datatypes::{Field, Int32Type, Schema};

    use super::*;

    /// A thousand rows of every nesting, each about as large as the others.
    fn rows() -> RecordBatch {
        let texts = || (0..1000).map(|i| Some(format!("{i:>100}")));
        let views: ArrayRef = Arc::new(texts().collect::<StringViewArray>());
        let text: StringArray = texts().collect();
        let named: DictionaryArray<Int32Type> = text.iter().collect();
        let field = Arc::new(Field::new_list_field(DataType::Utf8View, true));
        let ones = OffsetBuffer::from_lengths(std::iter::repeat_n(1, 1000));
        let list = ListArray::new(field.clone(), ones, views.clone(), None);
        let pair = [
            (
                Arc::new(Field::new("views", DataType::Utf8View, true)),
                views.clone(),
            ),
            (
                Arc::new(Field::new("named", named.data_type().clone(), true)),
                Arc::new(named.clone()) as ArrayRef,
            ),
        ];
        let columns: Vec<ArrayRef> = vec![
            Arc::new((0..1000).collect::<Int64Array>()),
            Arc::new(text),
            views,
            Arc::new(named),
            Arc::new(list),
            Arc::new(StructArray::from(pair.to_vec())),
        ];
        let field = |(index, column): (usize, &ArrayRef)| {
            Field::new(index.to_string(), column.data_type().clone(), true)
        };
        let fields: Vec<Field> = columns.iter().enumerate().map(field).collect();
        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).expect("columns")
    }

    #[test]
    fn a_part_is_as_large_as_its_rows_and_has_what_they_had() {
        let whole = rows();
        let part = compact(&whole.slice(300, 10)).expect("compact");
        assert_eq!(part, whole.slice(300, 10));
        let share = batch_bytes(&whole) as f64 / batch_bytes(&part) as f64;
        assert!((80.0..120.0).contains(&share), "{share}");
        // The first two columns share what they are slices of: written out, it stays behind.
        let held: usize = part.columns()[2..]
            .iter()
            .map(|c| c.get_buffer_memory_size())
            .sum();
        assert!(held < batch_bytes(&whole) / 20, "{held}");
    }
}
