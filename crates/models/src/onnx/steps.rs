//! Operators of classical models, each over a block of rows: what surrounds the trees.
//!
//! Numbers are doubles that are rounded as their kind is, operation by operation, so that floats are those of
//! ONNX Runtime.

use std::collections::BTreeMap;

use headwater_schema::Problem;

use super::attributes::Kind;
use super::transform::{Transform, logistic};
use super::trees::{Labels, Trees};
use crate::Rows;

/// Columns of a value, in the numbers of one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) at: usize,
    pub(super) width: usize,
    pub(super) kind: Kind,
}

impl Slot {
    /// Its numbers, row by row, in a block of `rows`.
    pub(super) fn of(self, numbers: &[f64], rows: usize) -> &[f64] {
        &numbers[self.at * rows..(self.at + self.width) * rows]
    }
}

#[derive(Debug)]
pub(super) enum Step {
    /// `(x − offset) · scale`; one for each column, or one for all.
    Scale {
        offset: Vec<f32>,
        scale: Vec<f32>,
    },
    /// In the place of `missing`.
    Impute {
        missing: f64,
        by: Vec<f64>,
    },
    Normalize(Norm),
    /// To the output's kind; whether to truths.
    Cast {
        truths: bool,
    },
    Concat,
    /// Columns, by number.
    Pick(Vec<usize>),
    /// One column for each category, by each column.
    OneHot(BTreeMap<i64, usize>),
    /// With a constant on the right, or with the second input.
    Combine(Arithmetic, Option<Vec<f64>>),
    /// A constant on the left.
    CombineLeft(Arithmetic, Vec<f64>),
    Each(Function),
    Linear(Linear),
    Trees(Box<Trees>),
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Norm {
    Max,
    L1,
    L2,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Arithmetic {
    Add,
    Subtract,
    Multiply,
    Divide,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Function {
    Exp,
    Sigmoid,
}

/// A row's answer for each row of coefficients.
#[derive(Debug)]
pub(super) struct Linear {
    pub(super) coefficients: Vec<f32>,
    pub(super) intercepts: Vec<f32>,
    pub(super) transform: Transform,
    pub(super) labels: Option<Labels>,
}

impl Step {
    /// Numbers of a row behind the output: a label, and what trees work with.
    pub(super) fn scratch(&self) -> usize {
        match self {
            Self::Trees(trees) => 1 + trees.scratch(),
            Self::Linear(_) => 1,
            _ => 0,
        }
    }

    pub(super) fn memory_bytes(&self) -> usize {
        let numbers = match self {
            Self::Trees(trees) => return trees.memory_bytes(),
            Self::Linear(linear) => linear.coefficients.len(),
            Self::Pick(columns) => columns.len(),
            Self::OneHot(categories) => 4 * categories.len(),
            Self::Scale { offset, scale } => offset.len() + scale.len(),
            _ => 0,
        };
        numbers * size_of::<f64>()
    }

    /// Of `rows` rows: from the numbers before to `out`, which has the output, then the scratch.
    pub(super) fn run(
        &self,
        before: &[f64],
        rows: usize,
        inputs: &[Slot],
        output: Slot,
        out: &mut [f64],
    ) -> Result<(), Problem> {
        let (out, scratch) = out.split_at_mut(output.width * rows);
        let Some(slot) = inputs.first() else {
            return Ok(());
        };
        let input = slot.of(before, rows);
        let from = || input.chunks_exact(slot.width);
        match self {
            Self::Concat => concat(before, rows, inputs, output.width, out),
            Self::Pick(columns) => {
                for (to, from) in out.chunks_exact_mut(output.width).zip(from()) {
                    for (to, column) in to.iter_mut().zip(columns) {
                        *to = from[*column];
                    }
                }
            }
            Self::OneHot(categories) => {
                out.fill(0.0);
                for (to, value) in out.chunks_exact_mut(categories.len()).zip(input) {
                    // What isn't a number is no category.
                    let category = categories.get(&(*value as i64));
                    if let Some(place) = category.filter(|_| !value.is_nan()) {
                        to[*place] = 1.0;
                    }
                }
            }
            Self::Normalize(norm) => {
                for (to, from) in out.chunks_exact_mut(slot.width).zip(from()) {
                    norm.apply(from, to);
                }
            }
            Self::Combine(arithmetic, None) => {
                for (row, to) in out.chunks_exact_mut(output.width).enumerate() {
                    let side = |slot: &Slot| &slot.of(before, rows)[row * slot.width..];
                    for (column, to) in to.iter_mut().enumerate() {
                        let of = |slot: &Slot| side(slot)[column.min(slot.width - 1)];
                        *to = output
                            .kind
                            .round(arithmetic.of(of(&inputs[0]), of(&inputs[1])));
                    }
                }
            }
            Self::Linear(linear) => {
                let outs = out.chunks_exact_mut(output.width);
                for ((from, to), label) in from().zip(outs).zip(scratch) {
                    *label = linear.answer(from, to);
                }
            }
            Self::Trees(trees) => {
                let (labels, sums) = scratch.split_at_mut(rows);
                trees.run(Rows::new(input, slot.width)?, sums, out, labels);
            }
            _ => self.each(slot, output, input, out),
        }
        Ok(())
    }

    /// Operators that make a number of a number, column by column.
    fn each(&self, slot: &Slot, output: Slot, input: &[f64], out: &mut [f64]) {
        let outs = out.chunks_exact_mut(output.width);
        for (to, from) in outs.zip(input.chunks_exact(slot.width)) {
            for (column, to) in to.iter_mut().enumerate() {
                *to = self.one(
                    column,
                    slot.kind,
                    output.kind,
                    from[column.min(slot.width - 1)],
                );
            }
        }
    }

    fn one(&self, column: usize, from: Kind, to: Kind, x: f64) -> f64 {
        /// One for each column, or one for all.
        fn at<T: Copy>(list: &[T], column: usize) -> T {
            list[column.min(list.len() - 1)]
        }
        match self {
            Self::Scale { offset, scale } => {
                let (offset, scale) = (at(offset, column), at(scale, column));
                if from == Kind::Double {
                    to.round((x - f64::from(offset)) * f64::from(scale))
                } else {
                    f64::from((x as f32 - offset) * scale)
                }
            }
            Self::Impute { missing, by } => {
                let is_missing = x == *missing || (x.is_nan() && missing.is_nan());
                if is_missing { at(by, column) } else { x }
            }
            Self::Cast { truths: true } => f64::from(u8::from(x != 0.0)),
            Self::Combine(arithmetic, Some(right)) => to.round(arithmetic.of(x, at(right, column))),
            Self::CombineLeft(arithmetic, left) => to.round(arithmetic.of(at(left, column), x)),
            Self::Each(Function::Exp) if from == Kind::Double => x.exp(),
            Self::Each(Function::Exp) => f64::from((x as f32).exp()),
            Self::Each(Function::Sigmoid) if from == Kind::Double => 1.0 / (1.0 + (-x).exp()),
            Self::Each(Function::Sigmoid) => f64::from(logistic(x as f32)),
            _ => to.round(x),
        }
    }
}

/// Columns of all inputs, beside each other.
fn concat(before: &[f64], rows: usize, inputs: &[Slot], width: usize, out: &mut [f64]) {
    let mut first = 0;
    for slot in inputs {
        let from = slot.of(before, rows).chunks_exact(slot.width);
        for (to, from) in out.chunks_exact_mut(width).zip(from) {
            to[first..first + slot.width].copy_from_slice(from);
        }
        first += slot.width;
    }
}

impl Arithmetic {
    /// Rounded to a float afterwards it is the floats' own result, since a double has more than twice their digits.
    fn of(self, a: f64, b: f64) -> f64 {
        match self {
            Self::Add => a + b,
            Self::Subtract => a - b,
            Self::Multiply => a * b,
            Self::Divide => a / b,
        }
    }
}

impl Norm {
    fn apply(self, from: &[f64], to: &mut [f64]) {
        let singles = || from.iter().map(|x| *x as f32);
        let size = match self {
            Self::Max => singles().fold(-f32::MAX, f32::max),
            Self::L1 => singles().fold(0.0, |sum, x| sum + x.abs()),
            Self::L2 => singles().fold(0.0, |sum, x| sum + x * x),
        };
        for (to, x) in to.iter_mut().zip(singles()) {
            *to = f64::from(match self {
                _ if size == 0.0 => x,
                Self::L2 => (x * x / size).sqrt().copysign(x),
                Self::Max | Self::L1 => x / size,
            });
        }
    }
}

impl Linear {
    /// Writes a row's scores, and gives its label.
    fn answer(&self, row: &[f64], out: &mut [f64]) -> f64 {
        let coefficients = self.coefficients.chunks_exact(row.len());
        for ((out, coefficients), intercept) in
            out.iter_mut().zip(coefficients).zip(&self.intercepts)
        {
            let products = row.iter().zip(coefficients).map(|(x, c)| *x as f32 * c);
            *out = f64::from(products.fold(0_f32, |sum, p| sum + p) + intercept);
        }
        let labels = self.labels.as_ref();
        let label = labels.map_or(f64::NAN, |labels| labels.number(|score| out[score]));
        self.transform.apply(out);
        label
    }
}
