//! From a partial aggregate to a feature's value and its status.

use headwater_schema::{DataType, Micros, Value, value_to_text};
use num_bigint::{BigInt, BigUint};

use crate::decayed::{Decayed, unscale};
use crate::exact_sum::{ExactSum, ratio_to_float};
use crate::histogram::Histogram;
use crate::moments::{Shape, kurtosis, skew, stddev, variance};
use crate::partial::{Partial, PartialData};
use crate::parts::{Groups, Places, Trouble};
use crate::quantile::Samples;
use crate::{Aggregate, Outcome, Quantiles, Slot, Status};

/// Microseconds in a second.
const SECOND: f64 = 1e6;

/// What a function has to know to be read from its slot's partial aggregate.
#[derive(Debug, Clone, Copy)]
pub struct Reading<'a> {
    pub slot: &'a Slot,
    /// The type of the slot's input.
    pub input: Option<&'a DataType>,
    /// The cursor's event time, moved back by the window's offset.
    pub as_of: Micros,
    /// The window's width, where it has one.
    pub width: Option<Micros>,
    /// How many of the categories with the largest results are kept.
    pub largest: Option<usize>,
}

impl Aggregate {
    /// The function's value over the facts of `partial`, which belongs to the reading's slot.
    pub fn finalize(&self, partial: &Partial, reading: &Reading<'_>) -> Outcome {
        let time = (partial.count > 0).then_some(partial.newest);
        let inner = |partial: &Partial| {
            let slot = reading.slot.inner();
            let reading = Reading {
                slot: &slot,
                input: match reading.slot.by {
                    Some(_) => reading.input,
                    None => reading.slot.value_type(reading.input),
                },
                largest: None,
                ..*reading
            };
            self.finalize(partial, &reading).value
        };
        match &partial.data {
            PartialData::Groups(groups) => by_category(groups, inner, reading.largest, time),
            PartialData::Places(places) => by_place(places, inner, time),
            _ => self.read(partial, reading, time),
        }
    }

    fn read(&self, partial: &Partial, reading: &Reading<'_>, time: Option<Micros>) -> Outcome {
        let input = reading.slot.value_type(reading.input);
        let as_of = reading.as_of;
        let list = |values: Vec<Value>| Outcome::present(Value::List(values.into()), time);
        match (self, &partial.data) {
            (Self::Count, _) => Outcome::present(int(partial.count), time),
            (Self::Rate, _) => rate(partial.count, reading.width, time),
            (Self::TimeSinceLast, _) => nullable(time.map(|t| seconds_between(t, as_of)), time),
            (Self::TimeSinceFirst, PartialData::First(list)) => {
                let first = list.first();
                nullable(first.map(|f| seconds_between(f.0.event_time, as_of)), time)
            }
            (_, PartialData::Moments(sums)) => self.of_moments(partial.count, sums, input, time),
            (_, PartialData::Min(value) | PartialData::Max(value)) => {
                Outcome::present(value.clone().unwrap_or(Value::Null), time)
            }
            (
                Self::FirstN { .. } | Self::LastN { .. } | Self::DistinctN { .. },
                PartialData::First(placed)
                | PartialData::Last(placed)
                | PartialData::LastDistinct(placed),
            ) => list(placed.iter().map(|(_, v)| v.clone()).collect()),
            (_, PartialData::First(list) | PartialData::Last(list)) => match list.first() {
                Some((position, value)) => {
                    Outcome::present(value.clone(), Some(position.event_time))
                }
                None => Outcome::present(Value::Null, None),
            },
            (_, PartialData::Ranked(values)) => {
                Outcome::present(Value::List(values.as_slice().into()), time)
            }
            (_, PartialData::Chosen(chosen)) => {
                let value = chosen.as_ref().map_or(Value::Null, |c| c.value.clone());
                Outcome::present(value, time)
            }
            (Self::DistinctCount { exact_up_to }, PartialData::Distinct(sketch)) => {
                Outcome::present(int(sketch.count(*exact_up_to)), time)
            }
            (_, PartialData::Histogram(histogram)) => self.of_histogram(histogram, time),
            (Self::Quantile { at, .. }, PartialData::Quantile(samples)) => {
                quantiles(samples, at, partial.count, time)
            }
            (_, PartialData::Decayed(sums)) => self.of_decayed(partial.count, sums, reading, time),
            _ => Outcome::none(Status::Undefined, time),
        }
    }

    fn of_moments(
        &self,
        count: u64,
        sums: &[ExactSum],
        input: Option<&DataType>,
        time: Option<Micros>,
    ) -> Outcome {
        if count == 0 {
            return Outcome::present(Value::Null, time);
        }
        let scale = scale_of(input);
        let shape = match self {
            Self::Sum => return sum_of(&sums[0], input, time),
            Self::Avg => divide(&sums[0], count, scale).into(),
            Self::Variance { sample } => variance(count, sums, *sample, scale),
            Self::Stddev { sample } => stddev(count, sums, *sample, scale),
            Self::Skew { sample } => skew(count, sums, *sample),
            Self::Kurtosis { sample } => kurtosis(count, sums, *sample),
            _ => Shape::Undefined,
        };
        match shape {
            Shape::Is(value) => Outcome::present(Value::Float(value + 0.0), time),
            Shape::TooFew => Outcome::present(Value::Null, time),
            Shape::Undefined => Outcome::none(Status::Undefined, time),
            Shape::Overflow => Outcome::none(Status::Overflow, time),
        }
    }

    fn of_histogram(&self, histogram: &Histogram, time: Option<Micros>) -> Outcome {
        if histogram.overflowed {
            return Outcome::none(Status::Overflow, time);
        }
        let mut entries = histogram.most_frequent();
        match self {
            Self::TopValues { n, .. } => {
                let values = entries.iter().take(*n).map(|(value, _)| (*value).clone());
                Outcome::present(Value::List(values.collect()), time)
            }
            Self::Histogram { n, .. } => {
                entries.truncate(n.unwrap_or(usize::MAX));
                let entries = entries.into_iter();
                map_of(entries.map(|(value, count)| (value, int(count))), time)
            }
            _ => Outcome::none(Status::Undefined, time),
        }
    }

    fn of_decayed(
        &self,
        count: u64,
        sums: &Decayed,
        reading: &Reading<'_>,
        time: Option<Micros>,
    ) -> Outcome {
        let scale = scale_of(reading.slot.value_type(reading.input));
        let value = match self {
            Self::DecayedCount { half_life } => sums.count(*half_life, reading.as_of),
            _ if count == 0 => return Outcome::present(Value::Null, time),
            Self::DecayedSum { half_life } => sums.sum(scale, *half_life, reading.as_of),
            Self::DecayedAvg { .. } => sums.avg(scale),
            _ => None,
        };
        float(value, time)
    }
}

fn scale_of(input: Option<&DataType>) -> i8 {
    match input {
        Some(DataType::Decimal { scale, .. }) => *scale,
        _ => 0,
    }
}

fn int(count: u64) -> Value {
    Value::Int(i64::try_from(count).unwrap_or(i64::MAX))
}

/// A float that there is, or one too large to be.
fn float(value: Option<f64>, time: Option<Micros>) -> Outcome {
    match value {
        // No result is −0.0.
        Some(value) => Outcome::present(Value::Float(value + 0.0), time),
        None => Outcome::none(Status::Overflow, time),
    }
}

fn nullable(value: Option<f64>, time: Option<Micros>) -> Outcome {
    Outcome::present(value.map_or(Value::Null, Value::Float), time)
}

fn seconds_between(from: Micros, to: Micros) -> f64 {
    (i128::from(to) - i128::from(from)) as f64 / SECOND
}

/// Facts per second of a width, rounded once.
fn rate(count: u64, width: Option<Micros>, time: Option<Micros>) -> Outcome {
    let width = width.and_then(|w| u64::try_from(w).ok()).filter(|w| *w > 0);
    let Some(width) = width else {
        return Outcome::none(Status::Undefined, time);
    };
    let facts = BigInt::from(count) * 1_000_000;
    float(ratio_to_float(&facts, &BigUint::from(width), 0), time)
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
        _ => return float(sum.to_float(), time),
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
    let (numerator, denominator) = unscale(mantissa, BigUint::from(count), scale);
    ratio_to_float(&numerator, &denominator, i64::from(exponent))
}

fn quantiles(samples: &Samples, at: &Quantiles, count: u64, time: Option<Micros>) -> Outcome {
    let one = |billionths: &u32| {
        let value = samples.quantile(*billionths, count);
        value.map_or(Value::Null, Value::Float)
    };
    match at {
        Quantiles::One(billionths) => Outcome::present(one(billionths), time),
        Quantiles::Many(_) if count == 0 => Outcome::present(Value::List([].into()), time),
        Quantiles::Many(all) => Outcome::present(Value::List(all.iter().map(one).collect()), time),
    }
}

/// A map from values, as text, to what belongs to them.
fn map_of<'a>(entries: impl Iterator<Item = (&'a Value, Value)>, time: Option<Micros>) -> Outcome {
    let mut named: Vec<(Value, Value)> = entries
        .map(|(key, value)| (Value::string(value_to_text(key)), value))
        .collect();
    named.sort();
    Outcome::present(Value::Map(named.into()), time)
}

fn by_category(
    groups: &Groups,
    read: impl Fn(&Partial) -> Value,
    largest: Option<usize>,
    time: Option<Micros>,
) -> Outcome {
    if groups.overflowed {
        return Outcome::none(Status::Overflow, time);
    }
    let results = groups.partials.iter();
    let mut results: Vec<(&Value, Value)> = results.map(|(k, p)| (k, read(p))).collect();
    if let Some(n) = largest {
        // Ties by smaller category: they come in ascending order and the sort is stable.
        results.sort_by(|a, b| b.1.cmp(&a.1));
        results.truncate(n);
    }
    map_of(results.into_iter(), time)
}

fn by_place(places: &Places, read: impl Fn(&Partial) -> Value, time: Option<Micros>) -> Outcome {
    match places.trouble {
        Some(Trouble::Unequal) => Outcome::none(Status::Undefined, time),
        Some(Trouble::TooLong) => Outcome::none(Status::Overflow, time),
        None => {
            let values = places.partials.iter().map(read);
            Outcome::present(Value::List(values.collect()), time)
        }
    }
}
