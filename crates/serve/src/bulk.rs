//! Many rows for one version: scored in columns, as many as come, by the same encoding, binding and predictor as
//! requests. Without their queue, deadline, fallbacks, cache and log: whoever scores waits, and writes down what comes.
//!
//! [`Serving::bulk`] holds a version; rows come chunk by chunk, from wherever its caller has them.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType as ArrowType, Float64Type, Int64Type};
use headwater_features::{Catalog, FeatureSet, Place};
use headwater_models::repository::VersionRecord;
use headwater_models::{Encoded, Input};
use headwater_schema::{DataType, Problem, Value, value_to_text};

use crate::bind::Binding;
use crate::loaded::Version;
use crate::{Serving, SignatureInput};

/// About how many numbers are encoded, or answered, before they are handed on.
const NUMBERS_MAX: usize = 1 << 20;

/// A version that scores rows, under the definitions of one catalog. It stays what it is, whatever its aliases do
/// meanwhile.
pub struct BulkScorer {
    version: Arc<Version>,
    binding: Arc<Binding>,
    outputs: Vec<Arc<str>>,
}

impl Serving {
    /// The version that `asked` names, an alias or a version, `live` by default, bound to a catalog. One that no alias
    /// points at is loaded for this alone. A version that isn't served under these definitions is refused.
    pub fn bulk(
        &self,
        model: &str,
        asked: Option<&str>,
        catalog: &Arc<Catalog>,
    ) -> Result<BulkScorer, Problem> {
        catalog.model(model)?;
        let served = self.core.served(model)?;
        let version = match served.version(asked) {
            Err(problem) if problem.code == "version-not-loaded" => {
                self.loaded_alone(model, served.record.find(asked.unwrap_or_default())?)?
            }
            version => version?,
        };
        let binding = version.binding(catalog, model)?;
        if let Some(problem) = &binding.refused {
            return Err(problem.clone());
        }
        let outputs = version.predictor.contract().outputs.iter();
        let columns = outputs.flat_map(|output| match output.width {
            1 => vec![Arc::from(output.name.as_str())],
            width => (0..width)
                .map(|place| Arc::from(format!("{}.{place}", output.name)))
                .collect(),
        });
        Ok(BulkScorer {
            outputs: columns.collect(),
            version,
            binding,
        })
    }
}

impl BulkScorer {
    pub fn record(&self) -> &VersionRecord {
        &self.version.record
    }

    /// The set whose rows the model is asked with.
    pub fn set(&self) -> &FeatureSet {
        &self.binding.model.set
    }

    /// The model's inputs, in its order.
    pub fn inputs(&self) -> Vec<SignatureInput> {
        let inputs = self.version.predictor.contract().inputs.iter();
        inputs.map(SignatureInput::of).collect()
    }

    /// The columns of what it answers: the outputs' names; one with several numbers has a column for each, `NAME.0` and
    /// so on, as in the predictions' facts.
    pub fn outputs(&self) -> &[Arc<str>] {
        &self.outputs
    }

    /// What is wrong with the version though it is served.
    pub fn warnings(&self) -> &[String] {
        &self.binding.warnings
    }

    /// What each input means, by the name of its feature.
    pub fn meanings(&self) -> BTreeMap<String, String> {
        let Value::Map(entries) = &self.binding.definitions else {
            return BTreeMap::new();
        };
        let entries = entries.iter();
        entries
            .map(|(name, meaning)| (value_to_text(name), value_to_text(meaning)))
            .collect()
    }

    /// The model's inputs out of the columns of its set's rows: the values that the set answers, and the fields of its
    /// context.
    pub fn pick(
        &self,
        values: &[ArrayRef],
        context: &[ArrayRef],
    ) -> Result<Vec<ArrayRef>, Problem> {
        let column = |place: &Place| {
            let found = match place {
                Place::Value(index) => values.get(*index),
                Place::Context(index) => context.get(*index),
            };
            found.cloned().ok_or_else(|| {
                Problem::internal("model-inputs", "rows lack an input of their model")
            })
        };
        self.binding.places.iter().map(column).collect()
    }

    /// Scores rows, given as one column for each input: a column for each of [`BulkScorer::outputs`]. `first` is the
    /// number of the first of them where a value is refused.
    pub fn score(
        &self,
        inputs: &[ArrayRef],
        rows: usize,
        first: usize,
    ) -> Result<Vec<ArrayRef>, Problem> {
        let contract = self.version.predictor.contract();
        let (width, answered) = (contract.inputs.len(), contract.output_width());
        if inputs.len() != width || inputs.iter().any(|column| column.len() != rows) {
            return Err(Problem::internal(
                "model-inputs",
                "columns don't fit their model",
            ));
        }
        let widest = width.max(answered).max(contract.scores);
        let step = (NUMBERS_MAX / widest.max(1)).clamp(1, rows.max(1));
        let mut columns: Vec<Vec<f64>> = vec![Vec::with_capacity(rows); answered];
        let mut encoded = Encoded::default();
        for from in (0..rows).step_by(step) {
            let count = step.min(rows - from);
            encoded.texts.clear();
            encoded.numbers.clear();
            encoded.numbers.resize(count * width, 0.0);
            for (place, (input, column)) in contract.inputs.iter().zip(inputs).enumerate() {
                let part = column.slice(from, count);
                let cells = encoded.numbers[place..].iter_mut().step_by(width);
                encode(input, &part, cells, &mut encoded.texts).map_err(|(row, problem)| {
                    let detail = format!("row {}: {}", first + from + row, problem.detail);
                    problem.detail(detail)
                })?;
            }
            let predicted = self.version.predictor.predict(encoded.rows(width)?)?;
            for row in predicted.outputs.chunks_exact(answered) {
                for (column, number) in columns.iter_mut().zip(row) {
                    column.push(*number);
                }
            }
        }
        let array = |column: Vec<f64>| Arc::new(Float64Array::from(column)) as ArrayRef;
        Ok(columns.into_iter().map(array).collect())
    }
}

/// The numbers that stand for a column's values: those of [`Input::encode`]. Columns of numbers are read without a value
/// in between. What is refused is told with its row.
fn encode<'a>(
    input: &Input,
    column: &ArrayRef,
    cells: impl Iterator<Item = &'a mut f64>,
    texts: &mut Vec<Arc<str>>,
) -> Result<(), (usize, Problem)> {
    let failed = |e: arrow::error::ArrowError| {
        (
            0,
            Problem::internal("model-inputs", "a column can't be read").detail(e),
        )
    };
    let plain = match DataType::from_arrow(column.data_type()).map(|t| t.to_arrow()) {
        Ok(plain) if plain != *column.data_type() => cast(column, &plain).map_err(failed)?,
        _ => column.clone(),
    };
    let is_number = !input.is_text();
    let valid = |row: usize, number: f64| match plain.is_valid(row) {
        true => number,
        false => f64::NAN,
    };
    match plain.data_type() {
        ArrowType::Null => cells.for_each(|cell| *cell = f64::NAN),
        ArrowType::Float64 if is_number => {
            let values = plain.as_primitive::<Float64Type>().values();
            let cells = cells.enumerate();
            cells.for_each(|(row, cell)| *cell = valid(row, values[row]));
        }
        ArrowType::Int64 if is_number => {
            let values = plain.as_primitive::<Int64Type>().values();
            let cells = cells.enumerate();
            cells.for_each(|(row, cell)| *cell = valid(row, values[row] as f64));
        }
        _ => {
            for (row, cell) in cells.enumerate() {
                let value = Value::from_array(&plain, row);
                *cell = input
                    .encode(&value, texts)
                    .map_err(|problem| (row, problem))?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use arrow::array::{
        BooleanArray, Float32Array, Int32Array, Int64Array, NullArray, StringArray,
    };
    use headwater_models::{Categories, InputKind};
    use headwater_schema::array_from_values;

    use super::*;

    fn numbers(input: &Input, column: &ArrayRef) -> Vec<u64> {
        let mut cells = vec![0.0; column.len()];
        encode(input, column, cells.iter_mut(), &mut Vec::new()).expect("encoded");
        cells.into_iter().map(f64::to_bits).collect()
    }

    /// The same by the encoding of requests, value by value.
    fn naive(input: &Input, column: &ArrayRef, plain: &DataType) -> Vec<u64> {
        let column = cast(column, &plain.to_arrow()).expect("cast");
        let values = (0..column.len()).map(|row| Value::from_array(&column, row));
        let encoded = values.map(|v| {
            input
                .encode(&v, &mut Vec::new())
                .expect("encoded")
                .to_bits()
        });
        encoded.collect()
    }

    fn input(kind: InputKind) -> Input {
        Input {
            name: "x".into(),
            kind,
        }
    }

    #[test]
    fn columns_are_encoded_as_values_are() {
        let labels = [("a", 0), ("7", 1), ("-0.5", 2), ("true", 3)];
        let labels = labels.map(|(label, code)| (label.to_owned(), code));
        let kinds = [
            InputKind::Numeric,
            InputKind::Categorical(Categories::Codes),
            InputKind::Categorical(Categories::Labels(labels.into())),
        ];
        let wide = [i64::MAX, i64::MIN, (1 << 53) + 1, 7];
        let floats = [f64::MAX, -0.0, f64::NAN, f64::NEG_INFINITY, 5e-324, -0.5];
        let decimal = DataType::Decimal {
            precision: 10,
            scale: 3,
        };
        let unscaled = |unscaled| Value::Decimal { unscaled, scale: 3 };
        let decimals = [unscaled(1234), Value::Null, unscaled(-1)];
        let columns: Vec<(ArrayRef, DataType)> = vec![
            (
                Arc::new(Int64Array::from_iter(
                    wide.map(Some).into_iter().chain([None]),
                )),
                DataType::Int64,
            ),
            (
                Arc::new(Int32Array::from(vec![Some(-7), None, Some(7)])),
                DataType::Int64,
            ),
            (
                Arc::new(Float64Array::from_iter(
                    floats.map(Some).into_iter().chain([None]),
                )),
                DataType::Float64,
            ),
            (
                Arc::new(Float32Array::from(vec![Some(0.1), None, Some(-0.5)])),
                DataType::Float64,
            ),
            (
                Arc::new(BooleanArray::from(vec![Some(true), None, Some(false)])),
                DataType::Bool,
            ),
            (
                array_from_values(&decimal, decimals.iter()).expect("an array"),
                decimal,
            ),
        ];
        for kind in kinds {
            let input = input(kind);
            for (column, plain) in &columns {
                let wanted = naive(&input, column, plain);
                assert_eq!(numbers(&input, column), wanted, "{column:?} as {input:?}");
                let cut = column.slice(1, column.len() - 1);
                assert_eq!(
                    numbers(&input, &cut),
                    wanted[1..],
                    "{column:?} as {input:?}"
                );
            }
            let nothing: ArrayRef = Arc::new(NullArray::new(2));
            assert_eq!(numbers(&input, &nothing), [f64::NAN.to_bits(); 2]);
            let texts: ArrayRef = Arc::new(StringArray::from(vec![Some("a"), None, Some("b")]));
            if input.is_text() {
                assert_eq!(
                    numbers(&input, &texts),
                    naive(&input, &texts, &DataType::String)
                );
                continue;
            }
            let mut cells = [0.0; 3];
            let (row, problem) =
                encode(&input, &texts, cells.iter_mut(), &mut Vec::new()).expect_err("a text");
            assert_eq!((row, problem.code), (0, "model-input"));
        }
    }
}
