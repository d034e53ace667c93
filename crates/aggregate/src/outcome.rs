//! From a partial aggregate to a feature's value and its status.

use headwater_schema::{DataType, Micros, Value};
use num_bigint::BigUint;

use crate::Aggregate;
use crate::exact_sum::{ExactSum, ratio_to_float, variance};
use crate::partial::{Histogram, Partial, PartialData};

/// How a value came to be what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    Present,
    NullValue,
    /// The entity has no fact in the view at the cursor.
    NotFound,
    /// The latest value is older than its `ttl`.
    OutsideMaxAge,
    /// The arithmetic has no result.
    Undefined,
    /// The result doesn't fit its type.
    Overflow,
    /// The view is still being filled.
    Backfilling,
}

impl Status {
    /// The name used in every interface.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Present => "PRESENT",
            Self::NullValue => "NULL_VALUE",
            Self::NotFound => "NOT_FOUND",
            Self::OutsideMaxAge => "OUTSIDE_MAX_AGE",
            Self::Undefined => "UNDEFINED",
            Self::Overflow => "OVERFLOW",
            Self::Backfilling => "BACKFILLING",
        }
    }
}

/// A feature's value at a cursor.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    pub value: Value,
    pub status: Status,
    /// The event time of the newest fact that counted.
    pub event_time: Option<Micros>,
}

impl Outcome {
    pub fn present(value: Value, event_time: Option<Micros>) -> Self {
        let status = if value.is_null() {
            Status::NullValue
        } else {
            Status::Present
        };
        Self {
            value,
            status,
            event_time,
        }
    }

    fn none(status: Status, event_time: Option<Micros>) -> Self {
        Self {
            value: Value::Null,
            status,
            event_time,
        }
    }
}

/// Microseconds in a second.
const SECOND: f64 = 1e6;

impl Aggregate {
    /// The function's value over the facts of `partial`, read at `as_of`. `input` is the type of
    /// the slot's input.
    pub fn finalize(&self, partial: &Partial, input: Option<&DataType>, as_of: Micros) -> Outcome {
        let time = (partial.count > 0).then_some(partial.newest);
        let scale = match input {
            Some(DataType::Decimal { scale, .. }) => *scale,
            _ => 0,
        };
        let float = |value: Option<f64>| match value {
            Some(value) => Outcome::present(Value::Float(value), time),
            None => Outcome::none(Status::Overflow, time),
        };
        match (self, &partial.data) {
            (Self::Count, _) => Outcome::present(int(partial.count), time),
            (Self::TimeSinceLast, _) => {
                float_or_null(time.map(|t| seconds_between(t, as_of)), time)
            }
            (Self::TimeSinceFirst, PartialData::First(list)) => {
                let first = list
                    .first()
                    .map(|(p, _)| seconds_between(p.event_time, as_of));
                float_or_null(first, time)
            }
            (_, PartialData::Moments(_)) if partial.count == 0 => {
                Outcome::present(Value::Null, time)
            }
            (Self::Sum, PartialData::Moments(sums)) => sum_of(&sums[0], input, time),
            (Self::Avg, PartialData::Moments(sums)) => {
                float(divide(&sums[0], partial.count, scale))
            }
            (Self::Variance { sample } | Self::Stddev { sample }, PartialData::Moments(sums)) => {
                if *sample && partial.count < 2 {
                    return Outcome::present(Value::Null, time);
                }
                let unscaled = variance(partial.count, &sums[0], &sums[1], *sample);
                let variance = unscaled.map(|v| v / 10f64.powi(2 * i32::from(scale)));
                match self {
                    Self::Stddev { .. } => float(variance.map(f64::sqrt)),
                    _ => float(variance),
                }
            }
            (_, PartialData::Min(value) | PartialData::Max(value)) => {
                Outcome::present(value.clone().unwrap_or(Value::Null), time)
            }
            (
                Self::FirstN { .. } | Self::LastN { .. },
                PartialData::First(list) | PartialData::Last(list),
            ) => {
                let values = list.iter().map(|(_, v)| v.clone()).collect();
                Outcome::present(Value::List(values), time)
            }
            (_, PartialData::First(list) | PartialData::Last(list)) => match list.first() {
                Some((position, value)) => {
                    Outcome::present(value.clone(), Some(position.event_time))
                }
                None => Outcome::present(Value::Null, None),
            },
            (Self::DistinctCount { exact_up_to }, PartialData::Distinct(sketch)) => {
                Outcome::present(int(sketch.count(*exact_up_to)), time)
            }
            (Self::Histogram { n, .. }, PartialData::Histogram(histogram)) => {
                histogram_of(histogram, *n, time)
            }
            _ => Outcome::none(Status::Undefined, time),
        }
    }
}

fn int(count: u64) -> Value {
    Value::Int(i64::try_from(count).unwrap_or(i64::MAX))
}

fn float_or_null(value: Option<f64>, time: Option<Micros>) -> Outcome {
    Outcome::present(value.map_or(Value::Null, Value::Float), time)
}

fn seconds_between(from: Micros, to: Micros) -> f64 {
    (i128::from(to) - i128::from(from)) as f64 / SECOND
}

fn sum_of(sum: &ExactSum, input: Option<&DataType>, time: Option<Micros>) -> Outcome {
    let value = match input {
        Some(DataType::Int64) => sum
            .to_int()
            .and_then(|v| i64::try_from(v).ok())
            .map(Value::Int),
        Some(DataType::Decimal { scale, .. }) => sum
            .to_int()
            .filter(|v| v.unsigned_abs() < 10u128.pow(38))
            .map(|unscaled| Value::Decimal {
                unscaled,
                scale: *scale,
            }),
        _ => sum.to_float().map(Value::Float),
    };
    match value {
        Some(value) => Outcome::present(value, time),
        None => Outcome::none(Status::Overflow, time),
    }
}

fn divide(sum: &ExactSum, count: u64, scale: i8) -> Option<f64> {
    if scale == 0 {
        return sum.divided_by(count);
    }
    let (mantissa, exponent) = sum.to_big();
    let power = BigUint::from(10u8).pow(u32::from(scale.unsigned_abs()));
    if scale > 0 {
        ratio_to_float(&mantissa, &(BigUint::from(count) * power), exponent)
    } else {
        ratio_to_float(
            &(mantissa * num_bigint::BigInt::from(power)),
            &BigUint::from(count),
            exponent,
        )
    }
}

fn histogram_of(histogram: &Histogram, n: Option<usize>, time: Option<Micros>) -> Outcome {
    if histogram.overflowed {
        return Outcome::none(Status::Overflow, time);
    }
    let mut entries: Vec<(&Value, u64)> = histogram.counts.iter().map(|(v, c)| (v, *c)).collect();
    if let Some(n) = n {
        // Ties by smaller value: the map is in ascending order and the sort is stable.
        entries.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        entries.truncate(n);
    }
    let mut named: Vec<(Value, Value)> = entries
        .into_iter()
        .map(|(value, count)| {
            (
                Value::string(headwater_schema::value_to_text(value)),
                int(count),
            )
        })
        .collect();
    named.sort();
    Outcome::present(Value::Map(named.into()), time)
}
