//! Answers in the project's own types, whatever types DataFusion worked with.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, RecordBatchOptions, StringArray};
use arrow::compute::{CastOptions, can_cast_types, cast_with_options};
use arrow::datatypes::{DataType as ArrowType, Field, Schema, SchemaRef, TimeUnit};
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use headwater_schema::DataType;

/// The project's type that stands for an Arrow type; text where none does.
fn type_of(arrow: &ArrowType) -> DataType {
    use ArrowType as A;
    match arrow {
        A::UInt64 => DataType::Int64,
        A::Decimal32(precision, scale) | A::Decimal64(precision, scale) => DataType::Decimal {
            precision: *precision,
            scale: *scale,
        },
        A::FixedSizeBinary(_) => DataType::Bytes,
        A::Timestamp(..) => DataType::Timestamp,
        A::List(item) | A::LargeList(item) | A::FixedSizeList(item, _) | A::ListView(item) => {
            DataType::List(Arc::new(type_of(item.data_type())))
        }
        A::Struct(fields) => {
            let member = |f: &Arc<Field>| {
                headwater_schema::Field::new(f.name().as_str(), type_of(f.data_type()))
            };
            DataType::Struct(fields.iter().map(member).collect())
        }
        other => DataType::from_arrow(other).unwrap_or(DataType::String),
    }
}

/// The columns of an answer.
pub fn answer_schema(schema: &Schema) -> SchemaRef {
    let fields = schema.fields().iter();
    let fields = fields.map(|f| Field::new(f.name(), type_of(f.data_type()).to_arrow(), true));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// Rows as the columns of an answer.
pub fn answer_rows(schema: &SchemaRef, rows: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let columns = schema.fields().iter().zip(rows.columns());
    let columns = columns.map(|(field, column)| read_as(column, field.data_type()));
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    RecordBatch::try_new_with_options(schema.clone(), columns.collect::<Result<_, _>>()?, &options)
}

fn read_as(column: &ArrayRef, wanted: &ArrowType) -> Result<ArrayRef, ArrowError> {
    if column.data_type() == wanted {
        return Ok(column.clone());
    }
    let exact = CastOptions {
        safe: false,
        ..CastOptions::default()
    };
    let column = match column.data_type() {
        // A time without a zone is UTC.
        ArrowType::Timestamp(unit, zone) if zone.as_deref() != Some("UTC") => {
            let utc = ArrowType::Timestamp(*unit, Some("UTC".into()));
            match zone {
                None => cast_with_options(column, &utc, &exact)?,
                Some(_) => {
                    let micros = ArrowType::Timestamp(TimeUnit::Microsecond, zone.clone());
                    cast_with_options(column, &micros, &exact)?
                }
            }
        }
        _ => column.clone(),
    };
    match wanted {
        ArrowType::Utf8 if !is_text(column.data_type()) => text(&column),
        wanted if can_cast_types(column.data_type(), wanted) => {
            cast_with_options(&column, wanted, &exact)
        }
        _ => Err(ArrowError::CastError(format!(
            "{} can't be read as {wanted}",
            column.data_type()
        ))),
    }
}

fn is_text(arrow: &ArrowType) -> bool {
    match arrow {
        ArrowType::Utf8 | ArrowType::LargeUtf8 | ArrowType::Utf8View => true,
        ArrowType::Dictionary(_, values) => is_text(values),
        _ => false,
    }
}

/// Values that no type of the project holds, as they are written.
fn text(column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    let options = FormatOptions::default();
    let formatter = ArrayFormatter::try_new(column.as_ref(), &options)?;
    let mut texts = Vec::with_capacity(column.len());
    for row in 0..column.len() {
        texts.push(
            match column.is_valid(row) && *column.data_type() != ArrowType::Null {
                true => Some(formatter.value(row).try_to_string()?),
                false => None,
            },
        );
    }
    Ok(Arc::new(StringArray::from(texts)))
}

#[cfg(test)]
mod tests {
    use arrow::array::{
        AsArray, Float32Array, Int32Array, IntervalDayTimeArray, NullArray, StringViewArray,
        TimestampNanosecondArray, UInt64Array,
    };
    use arrow::datatypes::{Int64Type, IntervalDayTime, TimestampMicrosecondType};

    use super::*;

    fn read(column: ArrayRef) -> ArrayRef {
        let fields = vec![Field::new("a", column.data_type().clone(), true)];
        let schema = Arc::new(Schema::new(fields));
        let rows = RecordBatch::try_new(schema.clone(), vec![column]).unwrap();
        answer_rows(&answer_schema(&schema), &rows)
            .unwrap()
            .column(0)
            .clone()
    }

    #[test]
    fn every_type_is_read_as_one_of_the_projects() {
        let numbers = read(Arc::new(Int32Array::from(vec![1, -2])));
        assert_eq!(numbers.as_primitive::<Int64Type>().values(), &[1, -2]);
        assert_eq!(
            *read(Arc::new(Float32Array::from(vec![0.5]))).data_type(),
            ArrowType::Float64
        );
        let text = read(Arc::new(StringViewArray::from(vec![
            "a text that is longer than twelve",
        ])));
        assert_eq!(
            text.as_string::<i32>().value(0),
            "a text that is longer than twelve"
        );
        let time = read(Arc::new(TimestampNanosecondArray::from(vec![1_500])));
        assert_eq!(time.as_primitive::<TimestampMicrosecondType>().value(0), 1);
        let nothing = read(Arc::new(NullArray::new(2)));
        assert_eq!(
            (nothing.data_type(), nothing.null_count()),
            (&ArrowType::Utf8, 2)
        );
        let days = IntervalDayTimeArray::from(vec![IntervalDayTime::new(2, 0)]);
        assert_eq!(read(Arc::new(days)).as_string::<i32>().value(0), "2 days");
    }

    #[test]
    fn a_number_that_does_not_fit_is_an_error_and_not_another_number() {
        let schema = Arc::new(Schema::new(vec![Field::new("a", ArrowType::UInt64, true)]));
        let column: ArrayRef = Arc::new(UInt64Array::from(vec![u64::MAX]));
        let rows = RecordBatch::try_new(schema.clone(), vec![column]).unwrap();
        assert!(answer_rows(&answer_schema(&schema), &rows).is_err());
    }
}
