//! Arrow arrays from single values: the way back from [`Value::from_array`](crate::Value::from_array).

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float64Array, Int64Array,
    ListArray, MapArray, StringArray, StructArray, TimestampMicrosecondArray,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType as ArrowType, FieldRef};

use crate::{DataType, Problem, Value};

/// An array of the Arrow type of `data_type`. A value of another type becomes null.
pub fn array_from_values<'a>(
    data_type: &DataType,
    values: impl Iterator<Item = &'a Value>,
) -> Result<ArrayRef, Problem> {
    let values: Vec<&Value> = values.collect();
    build(data_type, &values)
        .map_err(|e| Problem::internal("array-from-values", "values don't fit an array").detail(e))
}

/// Builds one array type from the values that match, with null for those that don't.
macro_rules! collect {
    ($array:ty, $values:expr, $pattern:pat => $value:expr) => {
        Arc::new(
            $values
                .iter()
                .map(|v| match v {
                    $pattern => Some($value),
                    _ => None,
                })
                .collect::<$array>(),
        ) as ArrayRef
    };
}

fn build(data_type: &DataType, values: &[&Value]) -> Result<ArrayRef, arrow::error::ArrowError> {
    Ok(match data_type {
        DataType::Bool => collect!(BooleanArray, values, Value::Bool(v) => *v),
        DataType::Int64 => collect!(Int64Array, values, Value::Int(v) => *v),
        DataType::Float64 => collect!(Float64Array, values, Value::Float(v) => *v),
        DataType::Date => collect!(Date32Array, values, Value::Date(v) => *v),
        DataType::String => collect!(StringArray, values, Value::String(v) => v.as_ref()),
        DataType::Bytes => collect!(BinaryArray, values, Value::Bytes(v) => v.as_ref()),
        DataType::Timestamp => {
            let array: TimestampMicrosecondArray = values
                .iter()
                .map(|v| match v {
                    Value::Timestamp(v) => Some(*v),
                    _ => None,
                })
                .collect();
            Arc::new(array.with_timezone("UTC"))
        }
        DataType::Decimal { precision, scale } => {
            let array: Decimal128Array = values
                .iter()
                .map(|v| match v {
                    Value::Decimal { unscaled, .. } => Some(*unscaled),
                    _ => None,
                })
                .collect();
            Arc::new(array.with_precision_and_scale(*precision, *scale)?)
        }
        DataType::List(item) => build_list(data_type, item, values)?,
        DataType::Struct(_) => build_struct(data_type, values)?,
        DataType::Map(value) => build_map(data_type, value, values)?,
    })
}

fn validity(values: &[&Value], valid: fn(&Value) -> bool) -> NullBuffer {
    values.iter().map(|v| valid(v)).collect()
}

fn child_field(data_type: &DataType) -> Option<FieldRef> {
    match data_type.to_arrow() {
        ArrowType::List(field) | ArrowType::Map(field, _) => Some(field),
        _ => None,
    }
}

fn not_nested() -> arrow::error::ArrowError {
    arrow::error::ArrowError::SchemaError("the type isn't nested".into())
}

fn build_list(
    data_type: &DataType,
    item: &DataType,
    values: &[&Value],
) -> Result<ArrayRef, arrow::error::ArrowError> {
    let items = |v: &&Value| match v {
        Value::List(items) => items.clone(),
        _ => Arc::from([]),
    };
    let lists: Vec<Arc<[Value]>> = values.iter().map(items).collect();
    let flat: Vec<&Value> = lists.iter().flat_map(|l| l.iter()).collect();
    Ok(Arc::new(ListArray::try_new(
        child_field(data_type).ok_or_else(not_nested)?,
        OffsetBuffer::from_lengths(lists.iter().map(|l| l.len())),
        build(item, &flat)?,
        Some(validity(values, |v| matches!(v, Value::List(_)))),
    )?))
}

fn build_struct(
    data_type: &DataType,
    values: &[&Value],
) -> Result<ArrayRef, arrow::error::ArrowError> {
    let DataType::Struct(fields) = data_type else {
        return Err(not_nested());
    };
    let member = |value: &Value, name: &str| match value {
        Value::Struct(members) => members
            .iter()
            .find(|(n, _)| n.as_ref() == name)
            .map_or(Value::Null, |(_, v)| v.clone()),
        _ => Value::Null,
    };
    let mut columns = Vec::with_capacity(fields.len());
    for field in fields.iter() {
        let members: Vec<Value> = values.iter().map(|v| member(v, &field.name)).collect();
        columns.push(build(
            &field.data_type,
            &members.iter().collect::<Vec<_>>(),
        )?);
    }
    let nulls = validity(values, |v| matches!(v, Value::Struct(_)));
    let ArrowType::Struct(arrow_fields) = data_type.to_arrow() else {
        return Err(not_nested());
    };
    Ok(Arc::new(StructArray::try_new(
        arrow_fields,
        columns,
        Some(nulls),
    )?))
}

fn build_map(
    data_type: &DataType,
    value_type: &DataType,
    values: &[&Value],
) -> Result<ArrayRef, arrow::error::ArrowError> {
    let entries = |v: &&Value| match v {
        Value::Map(entries) => entries.clone(),
        _ => Arc::from([]),
    };
    let maps: Vec<Arc<[(Value, Value)]>> = values.iter().map(entries).collect();
    let keys: Vec<&Value> = maps.iter().flat_map(|m| m.iter().map(|e| &e.0)).collect();
    let map_values: Vec<&Value> = maps.iter().flat_map(|m| m.iter().map(|e| &e.1)).collect();
    let field = child_field(data_type).ok_or_else(not_nested)?;
    let ArrowType::Struct(entry_fields) = field.data_type().clone() else {
        return Err(not_nested());
    };
    let columns = vec![
        build(&DataType::String, &keys)?,
        build(value_type, &map_values)?,
    ];
    Ok(Arc::new(MapArray::try_new(
        field,
        OffsetBuffer::from_lengths(maps.iter().map(|m| m.len())),
        StructArray::try_new(entry_fields, columns, None)?,
        Some(validity(values, |v| matches!(v, Value::Map(_)))),
        false,
    )?))
}
