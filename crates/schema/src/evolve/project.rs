//! Columns of any older version, read as the present contract's.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, ListArray, MapArray, RecordBatch, RecordBatchOptions, StructArray,
    new_null_array,
};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::DataType as ArrowType;
use arrow::error::ArrowError;

use crate::{Contract, DataType, Field, Problem};

/// The contract's columns, in its order and of its types. Columns that the facts don't have are
/// null; widened types are cast; a value that is none of the present type is null; columns that the
/// contract has no more are left out. Columns that fit already are shared, not copied.
pub fn project(columns: &RecordBatch, contract: &Contract) -> Result<RecordBatch, Problem> {
    let schema = contract.arrow_schema();
    if columns.schema_ref().fields() == schema.fields() {
        return Ok(columns.clone());
    }
    let rows = columns.num_rows();
    let mut projected = Vec::with_capacity(contract.fields.len());
    for field in &contract.fields {
        projected.push(match columns.column_by_name(&field.name) {
            Some(column) => {
                read_as(column, &field.data_type).map_err(|e| internal(&field.name, e))?
            }
            None => new_null_array(&field.data_type.to_arrow(), rows),
        });
    }
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(schema, projected, &options)
        .map_err(|e| internal(&contract.name, e))
}

fn internal(name: &str, error: ArrowError) -> Problem {
    Problem::internal(
        "project",
        format!("Stored columns of `{name}` can't be read under the contract"),
    )
    .detail(error)
}

/// A column as one of the type `wanted`: what [`project`] makes of each.
pub fn read_as(column: &ArrayRef, wanted: &DataType) -> Result<ArrayRef, ArrowError> {
    let target = wanted.to_arrow();
    if *column.data_type() == target {
        return Ok(Arc::clone(column));
    }
    let nothing = || Ok(new_null_array(&target, column.len()));
    let Ok(stored) = DataType::from_arrow(column.data_type()) else {
        return nothing();
    };
    match (&stored, wanted) {
        (DataType::Struct(_), DataType::Struct(fields)) => read_struct(column, fields),
        (DataType::List(_), DataType::List(item)) => read_list(column, item, &stored),
        (DataType::Map(_), DataType::Map(value)) => read_map(column, value, &stored, &target),
        (DataType::Int64, DataType::Float64 | DataType::Decimal { .. })
        | (DataType::Decimal { .. }, DataType::Decimal { .. }) => {
            // Safe: what doesn't fit is null.
            cast_with_options(
                column,
                &target,
                &CastOptions {
                    safe: true,
                    ..Default::default()
                },
            )
        }
        (stored, wanted) if stored == wanted => cast_with_options(
            column,
            &target,
            &CastOptions {
                safe: true,
                ..Default::default()
            },
        ),
        _ => nothing(),
    }
}

fn read_struct(column: &ArrayRef, fields: &[Field]) -> Result<ArrayRef, ArrowError> {
    let stored = column.as_struct();
    let mut members = Vec::with_capacity(fields.len());
    for field in fields {
        members.push(match stored.column_by_name(&field.name) {
            Some(member) => read_as(member, &field.data_type)?,
            None => new_null_array(&field.data_type.to_arrow(), column.len()),
        });
    }
    let nulls = stored.nulls().cloned();
    if members.is_empty() {
        return Ok(Arc::new(StructArray::new_empty_fields(column.len(), nulls)));
    }
    let fields = fields.iter().map(Field::to_arrow).collect();
    Ok(Arc::new(StructArray::try_new(fields, members, nulls)?))
}

fn read_list(
    column: &ArrayRef,
    item: &DataType,
    stored: &DataType,
) -> Result<ArrayRef, ArrowError> {
    let plain = arrow::compute::cast(column, &stored.to_arrow())?;
    let list = plain.as_list::<i32>();
    let items = read_as(list.values(), item)?;
    let field = arrow::datatypes::Field::new("item", item.to_arrow(), true);
    let list = ListArray::try_new(
        Arc::new(field),
        list.offsets().clone(),
        items,
        list.nulls().cloned(),
    );
    Ok(Arc::new(list?))
}

fn read_map(
    column: &ArrayRef,
    value: &DataType,
    stored: &DataType,
    target: &ArrowType,
) -> Result<ArrayRef, ArrowError> {
    let plain = arrow::compute::cast(column, &stored.to_arrow())?;
    let map = plain.as_map();
    let values = read_as(map.values(), value)?;
    let ArrowType::Map(entries_field, sorted) = target else {
        return Ok(plain);
    };
    let ArrowType::Struct(members) = entries_field.data_type() else {
        return Ok(plain);
    };
    let entries =
        StructArray::try_new(members.clone(), vec![Arc::clone(map.keys()), values], None)?;
    let map = MapArray::try_new(
        Arc::clone(entries_field),
        map.offsets().clone(),
        entries,
        map.nulls().cloned(),
        *sorted,
    );
    Ok(Arc::new(map?))
}
