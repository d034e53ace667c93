//! Rules: a model whose outputs are SQL expressions over its inputs, evaluated by the engine that features are
//! evaluated by, so that a condition means in a model what it means in a view.
//!
//! A row comes as numbers, as for any model: they become typed columns here, and outputs become numbers again.

mod file;

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array};
use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::{cast, take};
use arrow::datatypes::{DataType as ArrowType, Float64Type, SchemaRef};
use headwater_features::Expression;
use headwater_models::{ModelContract, Predictor, Rows, check_buffer, check_shape};
use headwater_schema::{DataType, Problem};

pub(crate) use file::looks_like;

/// Rows that are evaluated together, so that a batch takes no more memory than one of these.
const BLOCK_ROWS: usize = 4096;
/// Whole numbers up to here are themselves as doubles, and the next one isn't.
const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;

/// Reads rules (`docs/models.md`); what is wrong with an expression is refused here, with its place.
pub fn load_rules(bytes: &[u8]) -> Result<Box<dyn Predictor>, Problem> {
    file::read(bytes).map(|rules| Box::new(rules) as Box<dyn Predictor>)
}

/// How numbers of rows become a column.
#[derive(Debug)]
enum Column {
    Number,
    Integer,
    Bool,
    /// Numbers are places in this list.
    Text(ArrayRef),
}

/// One output.
#[derive(Debug)]
struct Rule {
    expression: Expression,
    /// The inputs, and the outputs before this one.
    columns: SchemaRef,
}

#[derive(Debug)]
struct Rules {
    contract: ModelContract,
    inputs: Vec<Column>,
    outputs: Vec<Rule>,
}

impl Predictor for Rules {
    fn contract(&self) -> &ModelContract {
        &self.contract
    }

    fn scores(&self, rows: Rows<'_>, out: &mut [f64]) -> Result<(), Problem> {
        let width = self.outputs.len();
        check_shape(&self.contract, rows, out, width)?;
        let starts = (0..rows.len()).step_by(BLOCK_ROWS);
        for (start, out) in starts.zip(out.chunks_mut(BLOCK_ROWS * width)) {
            let end = rows.len().min(start + BLOCK_ROWS);
            self.evaluate(rows, start..end, out)?;
        }
        Ok(())
    }

    fn outputs(&self, scores: &[f64], out: &mut [f64]) -> Result<(), Problem> {
        let width = self.outputs.len();
        check_buffer(scores.len() / width, scores, width)?;
        check_buffer(scores.len() / width, out, width)?;
        out.copy_from_slice(scores);
        Ok(())
    }

    fn contributions(&self, _: Rows<'_>, _: &mut [f64]) -> Result<(), Problem> {
        let why = self.contract.contributions.clone();
        Err(
            Problem::user("model-explain", "A model's predictions can't be explained")
                .detail(why.err().unwrap_or_default())
                .hint("Ask without `explain`; parts of a sum may be outputs of their own"),
        )
    }

    /// An estimate: what an expression compiles to isn't told.
    fn memory_bytes(&self) -> usize {
        /// Bytes that a character of an expression becomes, about.
        const PER_CHARACTER: usize = 32;
        let texts = self.inputs.iter().map(|input| match input {
            Column::Text(texts) => 4 * texts.get_array_memory_size(),
            _ => 0,
        });
        let rules = self.outputs.iter();
        let rules = rules.map(|rule| rule.expression.canonical().len() * PER_CHARACTER);
        texts.sum::<usize>() + rules.sum::<usize>()
    }
}

impl Rules {
    /// The outputs of a run of rows.
    fn evaluate(&self, rows: Rows<'_>, run: Range<usize>, out: &mut [f64]) -> Result<(), Problem> {
        let mut columns = Vec::with_capacity(self.inputs.len() + self.outputs.len());
        for (place, input) in self.inputs.iter().enumerate() {
            let values = run.clone().map(|row| rows.row(row)[place]);
            let column = input.column(values);
            columns.push(column.map_err(|p| p.field(&self.contract.inputs[place].name))?);
        }
        let width = self.outputs.len();
        for (place, rule) in self.outputs.iter().enumerate() {
            let batch = RecordBatch::try_new(rule.columns.clone(), columns.clone());
            let values = rule.expression.evaluate(&batch.map_err(misfit)?)?;
            let numbers = cast(&values, &ArrowType::Float64).map_err(misfit)?;
            let numbers = numbers.as_primitive::<Float64Type>();
            for (number, row) in numbers.iter().zip(out.chunks_exact_mut(width)) {
                row[place] = number.unwrap_or(f64::NAN);
            }
            columns.push(values);
        }
        Ok(())
    }
}

fn misfit(error: arrow::error::ArrowError) -> Problem {
    Problem::internal("rules", "A rule's columns don't fit").detail(error)
}

impl Column {
    fn data_type(&self) -> DataType {
        match self {
            Self::Number => DataType::Float64,
            Self::Integer => DataType::Int64,
            Self::Bool => DataType::Bool,
            Self::Text(_) => DataType::String,
        }
    }

    /// Values of rows; NaN, which stands for what is missing, is null.
    fn column(&self, values: impl Iterator<Item = f64>) -> Result<ArrayRef, Problem> {
        let values = values.map(|value| (!value.is_nan()).then_some(value));
        Ok(match self {
            Self::Number => Arc::new(values.collect::<Float64Array>()),
            Self::Integer => {
                let values = values.map(|value| value.map(whole).transpose());
                Arc::new(values.collect::<Result<Int64Array, Problem>>()?)
            }
            Self::Bool => {
                let values = values.map(|value| value.map(truth).transpose());
                Arc::new(values.collect::<Result<BooleanArray, Problem>>()?)
            }
            Self::Text(texts) => {
                let places = values.map(|value| value.and_then(|v| place(v, texts.len())));
                take(texts, &places.collect::<UInt32Array>(), None).map_err(misfit)?
            }
        })
    }
}

fn whole(value: f64) -> Result<i64, Problem> {
    if value.fract() == 0.0 && value.abs() <= WHOLE_MAX {
        return Ok(value as i64);
    }
    Err(refused("an integer of at most 53 bits", value))
}

fn truth(value: f64) -> Result<bool, Problem> {
    if value == 0.0 || value == 1.0 {
        return Ok(value == 1.0);
    }
    Err(refused("a bool, 0 or 1", value))
}

/// Where in a list of texts; like a category that training didn't see, what isn't there is missing.
fn place(value: f64, texts: usize) -> Option<u32> {
    let listed = value.fract() == 0.0 && value >= 0.0 && value < texts as f64;
    listed.then_some(value as u32)
}

fn refused(wanted: &str, value: f64) -> Problem {
    Problem::user("model-input", "A model's input has the wrong type")
        .detail(format!("It is {wanted}; the row has {value}"))
        .hint("Give the input the type `number` in the rules, or bind it to a feature of its type")
}
