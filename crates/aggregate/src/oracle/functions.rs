//! Each function over rows in the total order.

use std::collections::{BTreeMap, BTreeSet};

use headwater_schema::{DataType, Position, Value, value_to_text};
use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::{ToPrimitive, Zero};

use super::numbers::{
    central, decayed_sum, float, mean, quantile, rational, root, total, weight_of_all,
};
use super::{Answer, Moment, failed};
use crate::bottom_k::hash_value;
use crate::{Aggregate, Outcome, Quantiles, Status};

/// A fact, or a part of one.
#[derive(Debug, Clone)]
pub struct Row {
    pub position: Position,
    pub value: Value,
    pub order: Value,
}

/// A function over rows; `input` is the type of their values, none where nothing but facts counts.
pub fn aggregate(
    function: &Aggregate,
    rows: &[Row],
    input: Option<&DataType>,
    at: &Moment,
) -> Answer {
    let keep_nulls = matches!(
        function,
        Aggregate::First { keep_nulls: true }
            | Aggregate::Last { keep_nulls: true }
            | Aggregate::FirstN {
                keep_nulls: true,
                ..
            }
            | Aggregate::LastN {
                keep_nulls: true,
                ..
            }
    );
    let counted = rows.iter();
    let counted: Vec<&Row> = counted
        .filter(|row| input.is_none() || keep_nulls || !row.value.is_null())
        .collect();
    let newest = counted.last().map(|row| row.position.event_time);
    let outcome = match function {
        Aggregate::First { .. } => single(counted.first().copied()),
        Aggregate::Last { .. } => single(counted.last().copied()),
        Aggregate::Sum
        | Aggregate::Avg
        | Aggregate::Variance { .. }
        | Aggregate::Stddev { .. }
        | Aggregate::Skew { .. }
        | Aggregate::Kurtosis { .. } => of_numbers(function, &counted, input, newest),
        Aggregate::DecayedSum { .. }
        | Aggregate::DecayedCount { .. }
        | Aggregate::DecayedAvg { .. } => decayed(function, &counted, at, newest),
        Aggregate::Histogram { categories_max, .. }
        | Aggregate::TopValues { categories_max, .. } => {
            by_frequency(function, &counted, *categories_max, newest)
        }
        _ => Outcome::present(of_rows(function, &counted, at), newest),
    };
    Answer { outcome, newest }
}

fn single(row: Option<&Row>) -> Outcome {
    Outcome::present(
        row.map_or(Value::Null, |row| row.value.clone()),
        row.map(|row| row.position.event_time),
    )
}

fn of_rows(function: &Aggregate, rows: &[&Row], at: &Moment) -> Value {
    let values: Vec<&Value> = rows.iter().map(|row| &row.value).collect();
    let seconds = |row: Option<&&Row>| {
        row.map_or(Value::Null, |row| {
            Value::Float((at.as_of - row.position.event_time) as f64 / 1e6)
        })
    };
    let list =
        |values: Vec<&Value>, n: usize| Value::List(values.into_iter().take(n).cloned().collect());
    let mut sorted = values.clone();
    sorted.sort();
    match function {
        Aggregate::Count => Value::Int(rows.len() as i64),
        Aggregate::Rate => {
            let facts = BigRational::from_integer(BigInt::from(rows.len()) * 1_000_000);
            let rate = facts / BigInt::from(at.width.unwrap_or(1));
            Value::Float(rate.to_f64().unwrap_or_default())
        }
        Aggregate::TimeSinceFirst => seconds(rows.first()),
        Aggregate::TimeSinceLast => seconds(rows.last()),
        Aggregate::Min => sorted.first().map_or(Value::Null, |v| (*v).clone()),
        Aggregate::Max => sorted.last().map_or(Value::Null, |v| (*v).clone()),
        Aggregate::BottomN { n } => list(sorted, *n),
        Aggregate::TopN { n } => list(sorted.into_iter().rev().collect(), *n),
        Aggregate::FirstN { n, .. } => list(values, *n),
        Aggregate::LastN { n, .. } => list(values.into_iter().rev().collect(), *n),
        Aggregate::DistinctN { n } => {
            let mut seen: Vec<&Value> = Vec::new();
            for value in values.into_iter().rev() {
                if !seen.contains(&value) {
                    seen.push(value);
                }
            }
            list(seen, *n)
        }
        // The first of equals: `min_by_key` keeps it, `max_by_key` of the reverse does.
        Aggregate::MinBy => chosen(rows.iter().min_by_key(|row| &row.order)),
        Aggregate::MaxBy => chosen(rows.iter().rev().max_by_key(|row| &row.order)),
        Aggregate::DistinctCount { exact_up_to } => Value::Int(distinct(&values, *exact_up_to)),
        Aggregate::Quantile { at, exact_up_to } => {
            let one = |billionths: &u32| quantile(&sorted, *billionths, *exact_up_to);
            match at {
                Quantiles::One(q) => one(q),
                Quantiles::Many(_) if rows.is_empty() => Value::List([].into()),
                Quantiles::Many(all) => Value::List(all.iter().map(one).collect()),
            }
        }
        _ => Value::Null,
    }
}

fn chosen(row: Option<&&Row>) -> Value {
    row.map_or(Value::Null, |row| row.value.clone())
}

fn of_numbers(
    function: &Aggregate,
    rows: &[&Row],
    input: Option<&DataType>,
    time: Option<i64>,
) -> Outcome {
    let values: Vec<BigRational> = rows.iter().map(|row| rational(&row.value)).collect();
    let too_few = |least: usize| values.len() < least;
    let nothing = Outcome::present(Value::Null, time);
    if values.is_empty() {
        return nothing;
    }
    match function {
        Aggregate::Sum => sum(&values, input, time),
        Aggregate::Avg => float(&mean(&values), time),
        Aggregate::Variance { sample } | Aggregate::Stddev { sample } => {
            let divisor = values.len() - usize::from(*sample);
            if divisor == 0 {
                return nothing;
            }
            let variance = central(&values, 2) * BigInt::from(values.len()) / BigInt::from(divisor);
            let mut outcome = float(&variance, time);
            if let (Aggregate::Stddev { .. }, Value::Float(v)) = (function, &outcome.value) {
                outcome.value = Value::Float(v.sqrt());
            }
            outcome
        }
        Aggregate::Skew { .. } if too_few(3) => nothing,
        Aggregate::Kurtosis { .. } if too_few(4) => nothing,
        _ if central(&values, 2).is_zero() => failed(Status::Undefined, time),
        Aggregate::Skew { sample } => {
            // g₁² = m₃² / m₂³, and G₁ = g₁ · √(n(n − 1)) / (n − 2).
            let (second, third) = (central(&values, 2), central(&values, 3));
            let mut square = &third * &third / (&second * &second * &second);
            let n = values.len() as i64;
            if *sample {
                square = square * BigInt::from(n * (n - 1)) / BigInt::from((n - 2) * (n - 2));
            }
            let root = root(&square);
            let signed = if third < BigRational::zero() {
                -root
            } else {
                root
            };
            Outcome::present(Value::Float(signed), time)
        }
        Aggregate::Kurtosis { sample } => {
            let (second, fourth) = (central(&values, 2), central(&values, 4));
            let three = BigRational::from_integer(3.into());
            let excess = fourth / (&second * &second) - three;
            let n = BigRational::from_integer(values.len().into());
            let whole = |v: i64| BigRational::from_integer(v.into());
            let sampled = (&n - whole(1)) / ((&n - whole(2)) * (&n - whole(3)))
                * ((&n + whole(1)) * &excess + whole(6));
            float(if *sample { &sampled } else { &excess }, time)
        }
        _ => failed(Status::Undefined, time),
    }
}

fn sum(values: &[BigRational], input: Option<&DataType>, time: Option<i64>) -> Outcome {
    let total = total(values);
    let value = match input {
        Some(DataType::Int64) => total.to_integer().to_i64().map(Value::Int),
        Some(DataType::Decimal { scale, .. }) => {
            let unscaled = total * BigInt::from(10).pow(scale.unsigned_abs().into());
            let unscaled = unscaled.to_integer().to_i128();
            let fits = unscaled.filter(|v| v.to_string().trim_start_matches('-').len() <= 38);
            fits.map(|unscaled| Value::Decimal {
                unscaled,
                scale: *scale,
            })
        }
        _ => return float(&total, time),
    };
    match value {
        Some(value) => Outcome::present(value, time),
        None => failed(Status::Overflow, time),
    }
}

fn decayed(function: &Aggregate, rows: &[&Row], at: &Moment, time: Option<i64>) -> Outcome {
    let facts: Vec<(i64, BigRational)> = rows
        .iter()
        .map(|row| (row.position.event_time, rational(&row.value)))
        .collect();
    match function {
        Aggregate::DecayedCount { half_life } => {
            float(&weight_of_all(&facts, *half_life, at.as_of), time)
        }
        _ if rows.is_empty() => Outcome::present(Value::Null, time),
        Aggregate::DecayedSum { half_life } => {
            float(&decayed_sum(&facts, *half_life, at.as_of), time)
        }
        Aggregate::DecayedAvg { half_life } => {
            let sum = decayed_sum(&facts, *half_life, at.as_of);
            float(&(sum / weight_of_all(&facts, *half_life, at.as_of)), time)
        }
        _ => failed(Status::Undefined, time),
    }
}

fn distinct(values: &[&Value], exact_up_to: usize) -> i64 {
    let distinct: BTreeSet<&Value> = values.iter().copied().collect();
    if distinct.len() <= exact_up_to {
        return distinct.len() as i64;
    }
    let mut hashes: Vec<u64> = distinct.iter().map(|v| hash_value(v)).collect();
    hashes.sort_unstable();
    (((exact_up_to as u128) << 64) / u128::from(hashes[exact_up_to])) as i64
}

fn by_frequency(
    function: &Aggregate,
    rows: &[&Row],
    categories_max: usize,
    time: Option<i64>,
) -> Outcome {
    let mut counts: BTreeMap<&Value, i64> = BTreeMap::new();
    for row in rows {
        *counts.entry(&row.value).or_default() += 1;
    }
    if counts.len() > categories_max {
        return failed(Status::Overflow, time);
    }
    let mut entries: Vec<_> = counts.into_iter().collect();
    entries.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
    let n = match function {
        Aggregate::TopValues { n, .. } => *n,
        Aggregate::Histogram { n: Some(n), .. } => *n,
        _ => usize::MAX,
    };
    entries.truncate(n);
    if matches!(function, Aggregate::TopValues { .. }) {
        let values = entries.into_iter().map(|(value, _)| value.clone());
        return Outcome::present(Value::List(values.collect()), time);
    }
    let mut named: Vec<(Value, Value)> = entries
        .into_iter()
        .map(|(v, c)| (Value::string(value_to_text(v)), Value::Int(c)))
        .collect();
    named.sort();
    Outcome::present(Value::Map(named.into()), time)
}
