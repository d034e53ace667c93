//! The trait of everything that scores rows, and the rows.

use std::fmt;
use std::sync::Arc;

use headwater_schema::{Problem, Value};

use crate::limits::BATCH_VALUES_MAX;
use crate::{Input, ModelContract};

/// Rows of numbers, one after another, each with the model's inputs in their order. NaN is a missing value. The number
/// of an input of text is its place among the texts that the rows come with.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a> {
    values: &'a [f64],
    columns: usize,
    texts: &'a [Arc<str>],
}

/// Rows as they are encoded, value by value: numbers, and the texts that some of them stand for.
#[derive(Debug, Clone, Default)]
pub struct Encoded {
    pub numbers: Vec<f64>,
    pub texts: Vec<Arc<str>>,
}

impl Encoded {
    /// With room for so many numbers.
    pub fn with_capacity(numbers: usize) -> Self {
        Self {
            numbers: Vec::with_capacity(numbers),
            texts: Vec::new(),
        }
    }

    /// Adds the next input's value.
    pub fn push(&mut self, input: &Input, value: &Value) -> Result<(), Problem> {
        let number = input.encode(value, &mut self.texts)?;
        self.numbers.push(number);
        Ok(())
    }

    /// Rows of `columns` numbers each.
    pub fn rows(&self, columns: usize) -> Result<Rows<'_>, Problem> {
        Ok(Rows::new(&self.numbers, columns)?.with_texts(&self.texts))
    }
}

impl<'a> Rows<'a> {
    /// Rows of `columns` numbers each; refuses a last row that is cut off, and more than a batch may hold.
    pub fn new(values: &'a [f64], columns: usize) -> Result<Self, Problem> {
        if columns == 0 || !values.len().is_multiple_of(columns) {
            return Err(
                Problem::user("model-shape", "A batch isn't made of whole rows")
                    .detail(format!("{} numbers in rows of {columns}", values.len()))
                    .hint("Give each row every input of the model"),
            );
        }
        if values.len() > BATCH_VALUES_MAX {
            return Err(Problem::user("batch-too-large", "A batch is too large")
                .detail(format!(
                    "It has {} numbers; {BATCH_VALUES_MAX} are allowed",
                    values.len()
                ))
                .hint("Send fewer rows at a time"));
        }
        Ok(Self {
            values,
            columns,
            texts: &[],
        })
    }

    /// The same rows with the texts that their inputs of text stand for.
    pub fn with_texts(self, texts: &'a [Arc<str>]) -> Self {
        Self { texts, ..self }
    }

    pub fn texts(&self) -> &'a [Arc<str>] {
        self.texts
    }

    /// The text that a number stands for; none where it is missing.
    pub fn text(&self, number: f64) -> Result<Option<&'a str>, Problem> {
        if number.is_nan() {
            return Ok(None);
        }
        let is_place = number >= 0.0 && number.fract() == 0.0;
        let text = is_place.then(|| self.texts.get(number as usize)).flatten();
        text.map(|text| Some(text.as_ref())).ok_or_else(|| {
            Problem::user("model-input", "A model's input of text was given a number")
                .hint("Give the text itself, or null where it is missing")
        })
    }

    /// One row.
    pub fn one(row: &'a [f64]) -> Result<Self, Problem> {
        Self::new(row, row.len())
    }

    pub fn len(&self) -> usize {
        self.values.len() / self.columns
    }

    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    pub fn columns(&self) -> usize {
        self.columns
    }

    pub fn values(&self) -> &'a [f64] {
        self.values
    }

    pub fn row(&self, index: usize) -> &'a [f64] {
        &self.values[index * self.columns..(index + 1) * self.columns]
    }
}

/// Scores and outputs of a batch, row by row.
#[derive(Debug, Clone, PartialEq)]
pub struct Prediction {
    pub scores: Vec<f64>,
    pub outputs: Vec<f64>,
}

/// A model that was loaded. Pure: the same row gives the same bits, alone or in any batch, on any thread.
///
/// The buffers are the caller's, so that nothing is allocated per row. Each method refuses buffers and rows that
/// don't fit the contract, with the code `model-shape`.
pub trait Predictor: Send + Sync + fmt::Debug {
    fn contract(&self) -> &ModelContract;

    /// Raw scores: `scores` numbers for each row.
    fn scores(&self, rows: Rows<'_>, out: &mut [f64]) -> Result<(), Problem>;

    /// What the link function makes of scores: `output_width` numbers for each row.
    fn outputs(&self, scores: &[f64], out: &mut [f64]) -> Result<(), Problem>;

    /// What each input adds to each score: for each row and score one number for each input, and at the end what the
    /// model says without any. They sum to the raw score but for rounding.
    fn contributions(&self, rows: Rows<'_>, out: &mut [f64]) -> Result<(), Problem>;

    /// Bytes that it holds.
    fn memory_bytes(&self) -> usize;

    /// Scores and outputs, in buffers of their own.
    fn predict(&self, rows: Rows<'_>) -> Result<Prediction, Problem> {
        let contract = self.contract();
        let widest = contract.scores.max(contract.output_width());
        check_size(rows.len().saturating_mul(widest))?;
        let mut scores = vec![0.0; rows.len() * contract.scores];
        self.scores(rows, &mut scores)?;
        let mut outputs = vec![0.0; rows.len() * contract.output_width()];
        self.outputs(&scores, &mut outputs)?;
        Ok(Prediction { scores, outputs })
    }

    /// Contributions, in a buffer of their own.
    fn explain(&self, rows: Rows<'_>) -> Result<Vec<f64>, Problem> {
        let contract = self.contract();
        let width = contract.scores.saturating_mul(contract.inputs.len() + 1);
        check_size(rows.len().saturating_mul(width))?;
        let mut out = vec![0.0; rows.len() * width];
        self.contributions(rows, &mut out)?;
        Ok(out)
    }
}

fn check_size(values: usize) -> Result<(), Problem> {
    if values <= BATCH_VALUES_MAX {
        return Ok(());
    }
    Err(Problem::user("batch-too-large", "An answer is too large")
        .detail(format!(
            "It would have {values} numbers; {BATCH_VALUES_MAX} are allowed"
        ))
        .hint("Send fewer rows at a time"))
}

/// Refuses rows that don't have the contract's columns, and a buffer that isn't `width` numbers for each of them.
pub fn check_shape(
    contract: &ModelContract,
    rows: Rows<'_>,
    out: &[f64],
    width: usize,
) -> Result<(), Problem> {
    if rows.columns() == contract.inputs.len() {
        return check_buffer(rows.len(), out, width);
    }
    Err(Problem::user("model-shape", "A row doesn't fit the model")
        .detail(format!(
            "It has {} columns; the model takes {}",
            rows.columns(),
            contract.inputs.len()
        ))
        .hint("Give the model's inputs, in their order"))
}

/// Refuses a buffer that isn't `width` numbers for each of the rows.
pub fn check_buffer(rows: usize, out: &[f64], width: usize) -> Result<(), Problem> {
    if rows.checked_mul(width) == Some(out.len()) {
        return Ok(());
    }
    Err(Problem::internal(
        "model-shape",
        "A buffer for a model's answer has the wrong size",
    )
    .detail(format!("{} numbers for {rows} rows of {width}", out.len())))
}
