//! Derived values of many rows at once, from what an expression reads: outcomes row by row, or values column by column.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Float64Type, Schema};
use headwater_aggregate::{Outcome, Status};
use headwater_schema::{DataType, Field, Problem, Value, array_from_values};

use crate::Expression;

/// An expression over outcomes, by their places in a row.
pub(crate) struct Derivation<'a> {
    pub expression: &'a Expression,
    pub inputs: &'a [usize],
    /// One per input.
    pub types: Vec<&'a DataType>,
    /// The inputs that say something of the entity: where it is in none, the result is `NOT_FOUND`.
    pub about: Vec<usize>,
    pub default: Option<&'a Value>,
}

/// The outcome of an expression for each row.
pub(crate) fn work_out(
    derivation: &Derivation<'_>,
    rows: &[Vec<Outcome>],
) -> Result<Vec<Outcome>, Problem> {
    let columns = columns(derivation, rows)?;
    let (values, failed) = derivation.expression.evaluate_counting(&columns)?;
    let outcome = |(index, row): (usize, &Vec<Outcome>)| {
        let value = match Value::from_array(&values, index) {
            Value::Float(f) if !f.is_finite() => None,
            value => Some(value),
        };
        let undefined = value.is_none() || failed.contains(&index);
        let inputs = || derivation.inputs.iter().map(|i| &row[*i]);
        let event_time = inputs().filter_map(|input| input.event_time).max();
        let mut outcome = Outcome::present(value.unwrap_or(Value::Null), event_time);
        let mut about = derivation.about.iter().map(|i| row[*i].status);
        if inputs().any(|input| input.status == Status::Backfilling) {
            outcome.value = Value::Null;
            outcome.status = Status::Backfilling;
        } else if !derivation.about.is_empty() && about.all(|s| s == Status::NotFound) {
            outcome.status = Status::NotFound;
        } else if undefined {
            outcome.status = Status::Undefined;
        }
        if let (Value::Null, Some(default)) = (&outcome.value, derivation.default) {
            outcome.value = default.clone();
        }
        outcome
    };
    Ok(rows.iter().enumerate().map(outcome).collect())
}

fn columns(derivation: &Derivation<'_>, rows: &[Vec<Outcome>]) -> Result<RecordBatch, Problem> {
    let inputs = derivation.inputs.iter().zip(&derivation.types);
    let arrays: Vec<ArrayRef> = inputs
        .map(|(input, data_type)| {
            let values = rows.iter().map(|row| &row[*input].value);
            array_from_values(data_type, values)
        })
        .collect::<Result<_, _>>()?;
    batch(derivation, arrays, rows.len())
}

/// The values of an expression over columns, by their places: those of the outcomes that [`work_out`] gives of such rows, where
/// none is being filled.
pub(crate) fn work_out_column(
    derivation: &Derivation<'_>,
    columns: &[Option<ArrayRef>],
    rows: usize,
) -> Result<ArrayRef, Problem> {
    let arrays = derivation.inputs.iter().map(|i| columns[*i].clone());
    let arrays = arrays.collect::<Option<Vec<_>>>().ok_or_else(|| {
        Problem::internal("derived-features", "a column that is read isn't there")
    })?;
    let batch = batch(derivation, arrays, rows)?;
    let (values, failed) = derivation.expression.evaluate_counting(&batch)?;
    let finite = values
        .as_primitive_opt::<Float64Type>()
        .is_none_or(|floats| floats.iter().flatten().all(f64::is_finite));
    let filled = derivation.default.is_none() || values.null_count() == 0;
    if failed.is_empty() && finite && filled {
        return Ok(values);
    }
    let value = |row: usize| {
        let value = match Value::from_array(&values, row) {
            Value::Float(f) if !f.is_finite() => Value::Null,
            value => value,
        };
        match (&value, derivation.default) {
            (Value::Null, Some(default)) => default.clone(),
            _ => value,
        }
    };
    let mended: Vec<Value> = (0..rows).map(value).collect();
    array_from_values(derivation.expression.data_type(), mended.iter())
}

fn batch(
    derivation: &Derivation<'_>,
    arrays: Vec<ArrayRef>,
    rows: usize,
) -> Result<RecordBatch, Problem> {
    // Expressions find their columns by place; the names are only for people.
    let fields = derivation.types.iter().enumerate();
    let fields = fields.map(|(i, t)| Field::new(format!("input_{i}"), (*t).clone()).to_arrow());
    let schema = Schema::new(fields.collect::<Vec<_>>());
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(Arc::new(schema), arrays, &options)
        .map_err(|e| Problem::internal("derived-features", "columns don't fit").detail(e))
}
