//! Sums of values and of weights that halve with age.
//!
//! At a cursor `t` a fact of time `e` weighs `2^(−(t − e)/h)`. With `k = ⌊e/h⌋` and `w(e) = 2^(e/h − k)` rounded to a
//! float, and the same of `t`, the weight is `2^(k − K) · w(e)/w(t)`: one at the cursor itself, and exactly a half each
//! half-life. Everything else is exact, and the result is rounded once. So facts contribute what doesn't depend on the cursor,
//! `v · w(e) · 2^k`, and their sum is kept in cells of 32 half-lives. A cell more than [`CELLS_BEHIND_MAX`] behind the
//! newest one counts nothing: its facts weigh less than `2^−1088` of the newest. That too is a function of the facts alone.

use headwater_schema::{Micros, Value};
use num_bigint::{BigInt, BigUint};

use crate::exact_sum::{ExactSum, ratio_to_float, scaled};
use crate::exp2::exp2_fraction;

/// Half-lives of a cell.
const CELL: i128 = 32;
/// How many cells a fact may lie behind the newest one and still count.
/// Unit tests let facts fall out at once.
pub const CELLS_BEHIND_MAX: i64 = if cfg!(test) { 0 } else { 34 };
/// Beyond this exponent every result has long become zero.
const EXPONENT_MAX: i128 = 1 << 20;
/// Binary places of the mantissa of a weight.
const WEIGHT_PLACES: i32 = 52;

/// The sums, in ascending order of cells.
#[derive(Debug, Clone, Default)]
pub struct Decayed {
    pub cells: Vec<Cell>,
}

/// The facts of 32 half-lives.
#[derive(Debug, Clone)]
pub struct Cell {
    pub number: i64,
    /// The exact sum of `v · w(e) · 2^k`, `k` counted from the cell's start.
    pub values: ExactSum,
    /// The exact sum of `w(e) · 2^k`.
    pub weights: ExactSum,
}

/// A time in half-lives: whole ones, and the mantissa of `2^` the rest.
fn in_half_lives(time: Micros, half_life: Micros) -> (i128, u64) {
    let (time, half_life) = (i128::from(time), i128::from(half_life.max(1)));
    let rest = time.rem_euclid(half_life);
    let weight = exp2_fraction(rest as u64, half_life as u64);
    (time.div_euclid(half_life), weight)
}

impl Decayed {
    pub fn add(&mut self, half_life: Micros, time: Micros, value: &Value) {
        let (whole, weight) = in_half_lives(time, half_life);
        let number = whole.div_euclid(CELL) as i64;
        let places = whole.rem_euclid(CELL) as i32 - WEIGHT_PLACES;
        let Some(cell) = self.cell(number) else {
            return;
        };
        cell.weights.add_product(1, weight, places);
        if let Some((mantissa, exponent)) = scaled(value) {
            cell.values.add_product(mantissa, weight, exponent + places);
        }
    }

    /// Takes away what facts among these brought. A cell stays, though nothing may be left in it.
    pub fn take_away(&mut self, other: &Self) {
        for theirs in &other.cells {
            let own = self.cells.iter_mut().find(|c| c.number == theirs.number);
            if let Some(cell) = own {
                cell.values.subtract(&theirs.values);
                cell.weights.subtract(&theirs.weights);
            }
        }
    }

    pub fn merge(&mut self, other: &Self) {
        for theirs in &other.cells {
            if let Some(cell) = self.cell(theirs.number) {
                cell.values.merge(&theirs.values);
                cell.weights.merge(&theirs.weights);
            }
        }
    }

    /// The cell of a number, made where it isn't there; none where it counts nothing.
    fn cell(&mut self, number: i64) -> Option<&mut Cell> {
        let newest = self.cells.last().map_or(number, |c| c.number.max(number));
        let oldest = newest.saturating_sub(CELLS_BEHIND_MAX);
        if number < oldest {
            return None;
        }
        let gone = self.cells.partition_point(|c| c.number < oldest);
        self.cells.drain(..gone);
        let at = self.cells.partition_point(|c| c.number < number);
        if self.cells.get(at).is_none_or(|c| c.number != number) {
            let empty = Cell {
                number,
                values: ExactSum::default(),
                weights: ExactSum::default(),
            };
            self.cells.insert(at, empty);
        }
        self.cells.get_mut(at)
    }

    /// The sum of one part of the cells as `mantissa × 2^exponent`, in half-lives from the newest cell's start.
    fn total(&self, part: fn(&Cell) -> &ExactSum) -> (BigInt, i32) {
        let newest = self.cells.last().map_or(0, |c| c.number);
        let mut total = ExactSum::default();
        for cell in &self.cells {
            let shift = (cell.number - newest) as i32 * CELL as i32;
            total.merge_shifted(part(cell), shift);
        }
        total.to_big()
    }

    fn at(&self, total: (BigInt, i32), scale: i8, half_life: Micros, as_of: Micros) -> Option<f64> {
        let newest = self.cells.last().map_or(0, |c| c.number);
        let (whole, weight) = in_half_lives(as_of, half_life);
        let shift = i128::from(newest) * CELL - whole + i128::from(total.1);
        let shift = (shift + i128::from(WEIGHT_PLACES)).clamp(-EXPONENT_MAX, EXPONENT_MAX);
        let (numerator, denominator) = unscale(total.0, BigUint::from(weight), scale);
        ratio_to_float(&numerator, &denominator, shift as i64)
    }

    /// The decayed sum at a cursor; none beyond the largest float. Decimals have `scale` digits after the point.
    pub fn sum(&self, scale: i8, half_life: Micros, as_of: Micros) -> Option<f64> {
        self.at(self.total(|c| &c.values), scale, half_life, as_of)
    }

    /// The sum of the weights at a cursor.
    pub fn count(&self, half_life: Micros, as_of: Micros) -> Option<f64> {
        self.at(self.total(|c| &c.weights), 0, half_life, as_of)
    }

    /// The average of the values by their weights: the same at every cursor.
    pub fn avg(&self, scale: i8) -> Option<f64> {
        let (values, value_exponent) = self.total(|c| &c.values);
        let (weights, weight_exponent) = self.total(|c| &c.weights);
        let (numerator, denominator) = unscale(values, weights.magnitude().clone(), scale);
        let exponent = i64::from(value_exponent) - i64::from(weight_exponent);
        ratio_to_float(&numerator, &denominator, exponent)
    }
}

/// `numerator / denominator` times `10^−scale`.
pub fn unscale(numerator: BigInt, denominator: BigUint, scale: i8) -> (BigInt, BigUint) {
    let power = BigUint::from(10u8).pow(u32::from(scale.unsigned_abs()));
    if scale > 0 {
        (numerator, denominator * power)
    } else {
        (numerator * BigInt::from(power), denominator)
    }
}
