//! Quantiles: exact from all values while there are few, then from counts in logarithmic buckets. Both are functions of
//! the multiset of values alone.
//!
//! A bucket is a range of floats that share sign, exponent and the first `level` bits of their mantissa, so that its middle is
//! within `1/2^(level + 1)` of any of them: 0.4% at level 7. It needs no logarithm, and no machine disagrees. Where the values
//! fill more than [`BUCKETS_MAX`] buckets the level goes down, which joins neighbours in pairs: the level is the highest at which
//! they fit, whatever the order of merging. At level 0 all floats do.
//!
//! The idea is DDSketch's (Masson, Rim and Lee, 2019), with the uniform collapse of UDDSketch (Epicoco et al., 2020).

use std::collections::BTreeMap;

use headwater_schema::Value;
use num_bigint::BigUint;

use crate::decayed::unscale;
use crate::exact_sum::{ExactSum, ratio_to_float, scaled};

/// Bits of the mantissa that a bucket fixes while the buckets fit.
pub const LEVEL_MAX: u32 = 7;
/// Buckets of one sketch. Unit tests have few, so that levels go down.
pub const BUCKETS_MAX: usize = if cfg!(test) { 4 } else { 4096 };
/// A quantile is a number of billionths.
pub const BILLION: u32 = 1_000_000_000;
/// The largest relative error of an estimated quantile while the buckets fit.
pub const QUANTILE_ERROR: f64 = 1.0 / 256.0;

/// The values of a quantile's slot.
#[derive(Debug, Clone)]
pub enum Samples {
    /// Nothing yet: the type of the values isn't known.
    None,
    /// All values, ascending.
    Ints(Vec<i64>),
    Floats(Vec<f64>),
    Decimals(i8, Vec<i128>),
    Sketch(Box<Sketch>),
}

/// Counts of values by bucket.
#[derive(Debug, Clone, PartialEq)]
pub struct Sketch {
    pub level: u32,
    pub counts: BTreeMap<i32, u64>,
    pub least: f64,
    pub greatest: f64,
}

impl Samples {
    /// About how many bytes it takes beside itself.
    pub fn heap_bytes(&self) -> usize {
        match self {
            Self::None => 0,
            Self::Ints(values) => values.capacity() * size_of::<i64>(),
            Self::Floats(values) => values.capacity() * size_of::<f64>(),
            Self::Decimals(_, values) => values.capacity() * size_of::<i128>(),
            Self::Sketch(sketch) => size_of::<Sketch>() + sketch.counts.len() * 32,
        }
    }

    pub fn add(&mut self, value: &Value, exact_up_to: usize) {
        match (&mut *self, value) {
            (Self::None, Value::Int(v)) => *self = Self::Ints(vec![*v]),
            (Self::None, Value::Float(v)) => *self = Self::Floats(vec![*v]),
            (Self::None, Value::Decimal { unscaled, scale }) => {
                *self = Self::Decimals(*scale, vec![*unscaled]);
            }
            (Self::Ints(list), Value::Int(v)) => insert(list, *v),
            (Self::Floats(list), Value::Float(v)) => insert(list, *v),
            (Self::Decimals(_, list), Value::Decimal { unscaled, .. }) => insert(list, *unscaled),
            (Self::Sketch(sketch), value) => {
                if let Some(float) = nearest_float(value) {
                    sketch.add(float, 1);
                }
            }
            _ => {}
        }
        self.collapse(exact_up_to);
    }

    pub fn merge(&mut self, other: &Self, exact_up_to: usize) {
        match (&mut *self, other) {
            (_, Self::None) => {}
            (Self::None, other) => *self = other.clone(),
            (Self::Ints(list), Self::Ints(others)) => merge_sorted(list, others),
            (Self::Floats(list), Self::Floats(others)) => merge_sorted(list, others),
            (Self::Decimals(_, list), Self::Decimals(_, others)) => merge_sorted(list, others),
            (Self::Sketch(sketch), Self::Sketch(others)) => sketch.merge(others),
            (Self::Sketch(sketch), exact) => exact.floats().for_each(|v| sketch.add(v, 1)),
            (exact, Self::Sketch(others)) => {
                let mut sketch = others.clone();
                exact.floats().for_each(|v| sketch.add(v, 1));
                *self = Self::Sketch(sketch);
            }
            _ => {}
        }
        self.collapse(exact_up_to);
    }

    /// Takes away the values of `other`, which are among these; whether what is left can be told. `many`: so many are
    /// left that they stay a sketch.
    pub fn take_away(&mut self, other: &Self, many: bool) -> bool {
        match (&mut *self, other) {
            (_, Self::None) => true,
            (Self::Ints(list), Self::Ints(others)) => remove_each(list, others),
            (Self::Floats(list), Self::Floats(others)) => remove_each(list, others),
            (Self::Decimals(_, list), Self::Decimals(_, others)) => remove_each(list, others),
            (Self::Sketch(sketch), exact) if many && exact.exact_len() > 0 => {
                exact.floats().all(|value| sketch.take_away(value))
            }
            _ => false,
        }
    }

    /// How many values are kept one by one.
    fn exact_len(&self) -> usize {
        match self {
            Self::None | Self::Sketch(_) => 0,
            Self::Ints(list) => list.len(),
            Self::Floats(list) => list.len(),
            Self::Decimals(_, list) => list.len(),
        }
    }

    fn collapse(&mut self, exact_up_to: usize) {
        if self.exact_len() > exact_up_to {
            let mut sketch = Sketch::default();
            self.floats().for_each(|v| sketch.add(v, 1));
            *self = Self::Sketch(Box::new(sketch));
        }
    }

    /// The values that are kept one by one, as floats.
    fn floats(&self) -> impl Iterator<Item = f64> {
        let len = self.exact_len();
        (0..len).filter_map(|rank| nearest_float(&self.nth(rank)))
    }

    /// The value of a rank among those kept one by one.
    fn nth(&self, rank: usize) -> Value {
        match self {
            Self::None | Self::Sketch(_) => Value::Null,
            Self::Ints(list) => list.get(rank).map_or(Value::Null, |v| Value::Int(*v)),
            Self::Floats(list) => list.get(rank).map_or(Value::Null, |v| Value::Float(*v)),
            Self::Decimals(scale, list) => list.get(rank).map_or(Value::Null, |v| Value::Decimal {
                unscaled: *v,
                scale: *scale,
            }),
        }
    }

    /// The quantile of `billionths` of `count` values: with `h = (count − 1) · q`, the values of the ranks around `h`
    /// interpolated linearly, rounded once. None where there are no values.
    pub fn quantile(&self, billionths: u32, count: u64) -> Option<f64> {
        let exact = u128::from(count.checked_sub(1)?) * u128::from(billionths);
        let rank = (exact / u128::from(BILLION)) as u64;
        let share = (exact % u128::from(BILLION)) as u64;
        let at = |rank: u64| match self {
            Self::Sketch(sketch) => Value::Float(sketch.nth(rank)),
            exact => exact.nth(rank as usize),
        };
        let scale = match self {
            Self::Decimals(scale, _) => *scale,
            _ => 0,
        };
        let mut sum = ExactSum::default();
        let (mantissa, exponent) = scaled(&at(rank))?;
        sum.add_product(mantissa, u64::from(BILLION) - share, exponent);
        if share > 0 {
            let (mantissa, exponent) = scaled(&at(rank + 1))?;
            sum.add_product(mantissa, share, exponent);
        }
        let (mantissa, exponent) = sum.to_big();
        let (numerator, denominator) = unscale(mantissa, BigUint::from(BILLION), scale);
        ratio_to_float(&numerator, &denominator, i64::from(exponent)).map(|v| v + 0.0)
    }
}

fn remove_each<T: PartialEq>(list: &mut Vec<T>, others: &[T]) -> bool {
    others.iter().all(|other| {
        let at = list.iter().position(|value| value == other);
        at.map(|at| list.remove(at)).is_some()
    })
}

impl Default for Sketch {
    fn default() -> Self {
        Self {
            level: LEVEL_MAX,
            counts: BTreeMap::new(),
            least: f64::INFINITY,
            greatest: f64::NEG_INFINITY,
        }
    }
}

impl Sketch {
    fn add(&mut self, value: f64, count: u64) {
        self.least = self.least.min(value);
        self.greatest = self.greatest.max(value);
        *self.counts.entry(bucket(value, self.level)).or_default() += count;
        self.fit();
    }

    fn merge(&mut self, other: &Self) {
        self.least = self.least.min(other.least);
        self.greatest = self.greatest.max(other.greatest);
        while self.level > other.level {
            self.coarsen();
        }
        for (number, count) in &other.counts {
            let number = number >> (other.level - self.level);
            *self.counts.entry(number).or_default() += count;
        }
        self.fit();
    }

    /// Takes one value away; whether what is left can be told.
    fn take_away(&mut self, value: f64) -> bool {
        if value == self.least || value == self.greatest {
            return false;
        }
        match self.counts.get_mut(&bucket(value, self.level)) {
            // Without a bucket finer ones might fit.
            Some(count) if *count > 1 => {
                *count -= 1;
                true
            }
            _ => false,
        }
    }

    fn fit(&mut self) {
        while self.counts.len() > BUCKETS_MAX && self.level > 0 {
            self.coarsen();
        }
    }

    fn coarsen(&mut self) {
        self.level -= 1;
        let mut joined = BTreeMap::new();
        for (number, count) in &self.counts {
            *joined.entry(number >> 1).or_default() += count;
        }
        self.counts = joined;
    }

    /// About the value of a rank: the middle of its bucket; the first and the last are known.
    fn nth(&self, rank: u64) -> f64 {
        if rank == 0 {
            return self.least;
        }
        if rank + 1 >= self.counts.values().sum() {
            return self.greatest;
        }
        let mut before = 0;
        for (number, count) in &self.counts {
            before += count;
            if rank < before {
                let middle = middle(*number, self.level);
                return middle.max(self.least).min(self.greatest);
            }
        }
        self.greatest
    }
}

/// The number of the bucket of a finite float; buckets are numbered in the order of their floats.
pub fn bucket(value: f64, level: u32) -> i32 {
    let magnitude = (value.abs().to_bits() >> (52 - level)) as i32;
    if value < 0.0 {
        -1 - magnitude
    } else {
        magnitude
    }
}

/// The middle of a bucket; the one around zero is zero.
pub fn middle(number: i32, level: u32) -> f64 {
    let magnitude = if number < 0 { -1 - number } else { number };
    if magnitude == 0 {
        return 0.0;
    }
    let shift = 52 - level;
    let bits = ((magnitude as u64) << shift) | (1 << (shift - 1));
    let float = f64::from_bits(bits);
    if number < 0 { -float } else { float }
}

/// The float nearest to a number.
pub fn nearest_float(value: &Value) -> Option<f64> {
    match value {
        Value::Int(v) => Some(*v as f64),
        Value::Float(v) => Some(*v),
        Value::Decimal { unscaled, scale } => {
            let (numerator, denominator) = unscale((*unscaled).into(), BigUint::from(1u8), *scale);
            ratio_to_float(&numerator, &denominator, 0)
        }
        _ => None,
    }
}

fn insert<T: Copy + PartialOrd>(list: &mut Vec<T>, value: T) {
    let at = list.partition_point(|v| *v <= value);
    list.insert(at, value);
}

fn merge_sorted<T: Copy + PartialOrd>(list: &mut Vec<T>, others: &[T]) {
    let mut merged = Vec::with_capacity(list.len() + others.len());
    let (mut left, mut right) = (list.as_slice(), others);
    while let (Some(a), Some(b)) = (left.first(), right.first()) {
        if a <= b {
            merged.push(*a);
            left = &left[1..];
        } else {
            merged.push(*b);
            right = &right[1..];
        }
    }
    merged.extend_from_slice(left);
    merged.extend_from_slice(right);
    *list = merged;
}
