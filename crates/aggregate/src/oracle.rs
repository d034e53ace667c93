//! The naive oracle: every aggregate over a plain list of facts, one fact at a time, with rational
//! arithmetic. Slow and obviously right; tests hold the engine to it bit for bit.

use std::collections::{BTreeMap, BTreeSet};

use headwater_schema::{Cursor, DataType, Position, Sequence, Value};
use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::{ToPrimitive, Zero};

use crate::bottom_k::hash_value;
use crate::{Aggregate, Outcome, Status, Window, WindowKind};

/// One fact of one entity, as the oracle sees it.
#[derive(Debug, Clone)]
pub struct OracleFact {
    pub position: Position,
    /// The sequence from which it is retracted.
    pub removed_at: Option<Sequence>,
    /// The input's value.
    pub value: Value,
    /// Whether the feature's `where` holds.
    pub counts: bool,
}

/// The facts in a window at a cursor, in the total order.
pub fn in_window<'a>(
    facts: &'a [OracleFact],
    window: &Window,
    cursor: &Cursor,
) -> Vec<&'a OracleFact> {
    let as_of = cursor.as_of - window.offset;
    let until = Position::new(
        cursor.until.event_time - window.offset,
        cursor.until.sequence,
    );
    let mut seen: Vec<&OracleFact> = facts
        .iter()
        .filter(|f| f.position < until && f.position.sequence <= cursor.known_at)
        .filter(|f| f.removed_at.is_none_or(|at| cursor.known_at < at))
        .filter(|f| match window.kind {
            WindowKind::Exact { width } => f.position.event_time > as_of - width,
            WindowKind::Range { width } => f.position.event_time >= as_of - width,
            WindowKind::Rows { .. } | WindowKind::Lifetime => true,
        })
        .collect();
    seen.sort_by_key(|f| f.position);
    for newest in [window.limit, rows_of(window)].into_iter().flatten() {
        let surplus = seen.len().saturating_sub(newest);
        seen.drain(..surplus);
    }
    seen
}

fn rows_of(window: &Window) -> Option<usize> {
    match window.kind {
        WindowKind::Rows { rows } => Some(rows),
        _ => None,
    }
}

/// The function's value over a window at a cursor. `with_input` is whether the feature has an `of`.
pub fn evaluate(
    facts: &[OracleFact],
    function: &Aggregate,
    with_input: bool,
    input: &DataType,
    window: &Window,
    cursor: &Cursor,
) -> Outcome {
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
    let counted: Vec<&OracleFact> = in_window(facts, window, cursor)
        .into_iter()
        .filter(|f| f.counts && (!with_input || keep_nulls || !f.value.is_null()))
        .collect();
    let time = counted.last().map(|f| f.position.event_time);
    let values: Vec<&Value> = counted.iter().map(|f| &f.value).collect();
    let seconds = |f: &OracleFact| {
        let as_of = cursor.as_of - window.offset;
        Value::Float((as_of - f.position.event_time) as f64 / 1e6)
    };
    let value = match function {
        Aggregate::Count => Value::Int(counted.len() as i64),
        Aggregate::TimeSinceFirst => counted.first().map_or(Value::Null, |f| seconds(f)),
        Aggregate::TimeSinceLast => counted.last().map_or(Value::Null, |f| seconds(f)),
        Aggregate::Min => values.iter().min().map_or(Value::Null, |v| (*v).clone()),
        Aggregate::Max => values.iter().max().map_or(Value::Null, |v| (*v).clone()),
        Aggregate::First { .. } => {
            return single(counted.first().copied());
        }
        Aggregate::Last { .. } => {
            return single(counted.last().copied());
        }
        Aggregate::FirstN { n, .. } => {
            Value::List(values.iter().take(*n).map(|v| (*v).clone()).collect())
        }
        Aggregate::LastN { n, .. } => {
            Value::List(values.iter().rev().take(*n).map(|v| (*v).clone()).collect())
        }
        Aggregate::DistinctCount { exact_up_to } => Value::Int(distinct(&values, *exact_up_to)),
        Aggregate::Histogram { n, categories_max } => {
            return histogram(&values, *n, *categories_max, time);
        }
        Aggregate::Sum => return sum(&values, input, time),
        Aggregate::Avg => return float(mean(&values), time, !values.is_empty()),
        Aggregate::Variance { sample } => {
            let variance = variance(&values, *sample);
            return float(variance.clone(), time, variance.is_some());
        }
        Aggregate::Stddev { sample } => {
            let variance = variance(&values, *sample);
            let mut outcome = float(variance.clone(), time, variance.is_some());
            if let Value::Float(v) = outcome.value {
                outcome.value = Value::Float(v.sqrt());
            }
            return outcome;
        }
    };
    Outcome::present(value, time)
}

fn single(fact: Option<&OracleFact>) -> Outcome {
    Outcome::present(
        fact.map_or(Value::Null, |f| f.value.clone()),
        fact.map(|f| f.position.event_time),
    )
}

fn rational(value: &Value) -> BigRational {
    match value {
        Value::Int(v) => BigRational::from_integer(BigInt::from(*v)),
        Value::Float(v) => BigRational::from_float(*v).unwrap_or_else(BigRational::zero),
        Value::Decimal { unscaled, scale } => {
            let power = BigInt::from(10).pow(u32::from(scale.unsigned_abs()));
            BigRational::new(BigInt::from(*unscaled), power)
        }
        _ => BigRational::zero(),
    }
}

fn total(values: &[&Value]) -> BigRational {
    values.iter().map(|v| rational(v)).sum()
}

fn mean(values: &[&Value]) -> Option<BigRational> {
    (!values.is_empty()).then(|| total(values) / BigInt::from(values.len()))
}

fn variance(values: &[&Value], sample: bool) -> Option<BigRational> {
    let divisor = values.len().checked_sub(usize::from(sample))?;
    if divisor == 0 {
        return None;
    }
    let mean = mean(values)?;
    let squares: BigRational = values
        .iter()
        .map(|v| (rational(v) - &mean) * (rational(v) - &mean))
        .sum();
    Some(squares / BigInt::from(divisor))
}

fn float(value: Option<BigRational>, time: Option<i64>, defined: bool) -> Outcome {
    if !defined {
        return Outcome::present(Value::Null, time);
    }
    match value.and_then(|v| v.to_f64()).filter(|v| v.is_finite()) {
        Some(v) => Outcome::present(Value::Float(v), time),
        None => overflow(time),
    }
}

fn overflow(time: Option<i64>) -> Outcome {
    Outcome {
        value: Value::Null,
        status: Status::Overflow,
        event_time: time,
    }
}

fn sum(values: &[&Value], input: &DataType, time: Option<i64>) -> Outcome {
    if values.is_empty() {
        return Outcome::present(Value::Null, time);
    }
    let total = total(values);
    match input {
        DataType::Int64 => match total.to_integer().to_i64() {
            Some(v) => Outcome::present(Value::Int(v), time),
            None => overflow(time),
        },
        _ => float(Some(total), time, true),
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

fn histogram(
    values: &[&Value],
    n: Option<usize>,
    categories_max: usize,
    time: Option<i64>,
) -> Outcome {
    let mut counts: BTreeMap<&Value, i64> = BTreeMap::new();
    for value in values {
        *counts.entry(value).or_default() += 1;
    }
    if counts.len() > categories_max {
        return overflow(time);
    }
    let mut entries: Vec<_> = counts.into_iter().collect();
    entries.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
    entries.truncate(n.unwrap_or(usize::MAX));
    let mut named: Vec<(Value, Value)> = entries
        .into_iter()
        .map(|(v, c)| {
            (
                Value::string(headwater_schema::value_to_text(v)),
                Value::Int(c),
            )
        })
        .collect();
    named.sort();
    Outcome::present(Value::Map(named.into()), time)
}
