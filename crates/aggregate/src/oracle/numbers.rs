//! Rational arithmetic, and the one rounding at its end.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use headwater_schema::Value;
use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::{One, ToPrimitive, Zero};

use super::failed;
use crate::decayed::CELLS_BEHIND_MAX;
use crate::quantile::{BUCKETS_MAX, LEVEL_MAX};
use crate::{Outcome, Status, exp2};

/// A number as a fraction.
pub fn rational(value: &Value) -> BigRational {
    match value {
        Value::Int(v) => BigRational::from_integer(BigInt::from(*v)),
        Value::Float(v) => BigRational::from_float(*v).unwrap_or_else(BigRational::zero),
        Value::Decimal { unscaled, scale } => {
            let power = BigInt::from(10).pow(u32::from(scale.unsigned_abs()));
            match *scale >= 0 {
                true => BigRational::new(BigInt::from(*unscaled), power),
                false => BigRational::from_integer(BigInt::from(*unscaled) * power),
            }
        }
        _ => BigRational::zero(),
    }
}

/// The nearest float; `OVERFLOW` beyond the largest.
pub fn float(value: &BigRational, time: Option<i64>) -> Outcome {
    match value.to_f64().filter(|v| v.is_finite()) {
        Some(v) => Outcome::present(Value::Float(v + 0.0), time),
        None => failed(Status::Overflow, time),
    }
}

pub fn total(values: &[BigRational]) -> BigRational {
    values.iter().sum()
}

pub fn mean(values: &[BigRational]) -> BigRational {
    total(values) / BigInt::from(values.len())
}

/// The central moment of a power.
pub fn central(values: &[BigRational], power: i32) -> BigRational {
    let mean = mean(values);
    let powers = values.iter().map(|v| (v - &mean).pow(power));
    powers.sum::<BigRational>() / BigInt::from(values.len())
}

/// The float nearest to the square root of a number that isn't negative.
pub fn root(square: &BigRational) -> f64 {
    let squared = |v: f64| {
        let v = BigRational::from_float(v).unwrap_or_else(BigRational::zero);
        &v * &v
    };
    // Start somewhere near, and step to the last float that isn't above.
    let mut below = square.to_f64().unwrap_or_default().sqrt();
    while squared(below) > *square {
        below = below.next_down();
    }
    while squared(below.next_up()) <= *square {
        below = below.next_up();
    }
    let (a, b) = (
        BigRational::from_float(below),
        BigRational::from_float(below.next_up()),
    );
    let (Some(a), Some(b)) = (a, b) else {
        return below;
    };
    let middle = (a + b) / BigInt::from(2);
    if &middle * &middle < *square {
        below.next_up()
    } else {
        below
    }
}

/// Two to a whole power.
fn two_to(exponent: i64) -> BigRational {
    let power = BigRational::from_integer(BigInt::one() << exponent.unsigned_abs());
    if exponent < 0 { power.recip() } else { power }
}

thread_local! {
    /// Weights that were worked out before: it takes long.
    static WEIGHTS: RefCell<BTreeMap<(i64, i64), BigRational>> = const { RefCell::new(BTreeMap::new()) };
}

/// `2^(rest/half_life)`, rounded to the nearest float.
fn fraction_weight(rest: i64, half_life: i64) -> BigRational {
    WEIGHTS.with_borrow_mut(|known| {
        let weight = known.entry((rest, half_life));
        weight
            .or_insert_with(|| work_out_weight(rest, half_life))
            .clone()
    })
}

fn work_out_weight(rest: i64, half_life: i64) -> BigRational {
    let power = exp2::slow(rest as u64, half_life as u64, 200);
    // 52 binary places are kept.
    let rounded = (power + (num_bigint::BigUint::one() << 147u32)) >> 148u32;
    BigRational::new(rounded.into(), BigInt::one() << 52)
}

/// The weight of a fact at a cursor: `2^(k − K) · w(e)/w(t)`.
fn weight(time: i64, half_life: i64, as_of: i64) -> BigRational {
    let whole = |t: i64| t.div_euclid(half_life);
    let rest = |t: i64| fraction_weight(t.rem_euclid(half_life), half_life);
    two_to(whole(time) - whole(as_of)) * rest(time) / rest(as_of)
}

/// The facts that aren't too old to weigh anything, with their weights.
fn weighted(
    facts: &[(i64, BigRational)],
    half_life: i64,
    as_of: i64,
) -> Vec<(BigRational, BigRational)> {
    let cell = |time: i64| time.div_euclid(half_life).div_euclid(32);
    let newest = facts.iter().map(|f| cell(f.0)).max().unwrap_or_default();
    let near = facts
        .iter()
        .filter(|f| cell(f.0) >= newest - CELLS_BEHIND_MAX);
    near.map(|f| (weight(f.0, half_life, as_of), f.1.clone()))
        .collect()
}

/// `Σ weight · value`.
pub fn decayed_sum(facts: &[(i64, BigRational)], half_life: i64, as_of: i64) -> BigRational {
    let weighted = weighted(facts, half_life, as_of).into_iter();
    weighted.map(|(weight, value)| weight * value).sum()
}

/// `Σ weight`.
pub fn weight_of_all(facts: &[(i64, BigRational)], half_life: i64, as_of: i64) -> BigRational {
    let weighted = weighted(facts, half_life, as_of).into_iter();
    weighted.map(|(weight, _)| weight).sum()
}

/// A quantile of values in ascending order.
pub fn quantile(sorted: &[&Value], billionths: u32, exact_up_to: usize) -> Value {
    if sorted.is_empty() {
        return Value::Null;
    }
    let exact = sorted.len() <= exact_up_to;
    let values: Vec<BigRational> = match exact {
        true => sorted.iter().map(|v| rational(v)).collect(),
        false => estimates(sorted),
    };
    let share = BigRational::new(BigInt::from(billionths), BigInt::from(1_000_000_000));
    let rank = share * BigInt::from(values.len() - 1);
    let below = rank.floor().to_integer().to_usize().unwrap_or_default();
    let above = (below + 1).min(values.len() - 1);
    let rest = rank.fract();
    let value = &values[below] + (&values[above] - &values[below]) * rest;
    Value::Float(value.to_f64().unwrap_or_default() + 0.0)
}

/// The middles of the buckets that values fall in, at the finest level at which they fit.
fn estimates(sorted: &[&Value]) -> Vec<BigRational> {
    let floats: Vec<f64> = sorted
        .iter()
        .map(|v| rational(v).to_f64().unwrap_or_default())
        .collect();
    // A bucket by its least and greatest magnitude.
    let bucket = |v: f64, level: u32| {
        let bits = v.abs().to_bits() >> (52 - level);
        (v < 0.0, bits)
    };
    let level = (0..=LEVEL_MAX)
        .rev()
        .find(|level| {
            let filled: BTreeSet<_> = floats.iter().map(|v| bucket(*v, *level)).collect();
            *level == 0 || filled.len() <= BUCKETS_MAX
        })
        .unwrap_or(0);
    let (least, greatest) = (floats[0], floats[floats.len() - 1]);
    let middle = |v: &f64| {
        let (negative, bits) = bucket(*v, level);
        let from = f64::from_bits(bits << (52 - level));
        let exact = |v: f64| rational(&Value::Float(v));
        let step = exact(from.next_up()) - exact(from);
        let width = step * BigInt::from(1u64 << (52 - level));
        let middle = exact(from) + width / BigInt::from(2);
        let middle = match (bits, negative) {
            (0, _) => BigRational::zero(),
            (_, true) => -middle,
            _ => middle,
        };
        let float = middle.to_f64().unwrap_or_default();
        rational(&Value::Float(float.max(least).min(greatest)))
    };
    let mut values: Vec<BigRational> = floats.iter().map(middle).collect();
    let last = values.len() - 1;
    values[0] = rational(&Value::Float(least));
    values[last] = rational(&Value::Float(greatest));
    values
}
