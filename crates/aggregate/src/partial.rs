//! Partial aggregates: what a slot knows of some facts, mergeable in any order and grouping.

use std::collections::BTreeMap;

use headwater_schema::{Micros, Position, Value};
use smallvec::SmallVec;

use crate::bottom_k::{BottomK, hash_value};
use crate::exact_sum::ExactSum;
use crate::{Slot, SlotKind};

/// The aggregate of one slot over some facts.
#[derive(Debug, Clone)]
pub struct Partial {
    /// How many facts counted: for a slot with an input, those with a value.
    pub count: u64,
    /// The event time of the newest fact that counted; [`Micros::MIN`] where none did.
    pub newest: Micros,
    pub data: PartialData,
}

/// What a slot keeps besides how many facts counted.
#[derive(Debug, Clone)]
pub enum PartialData {
    Count,
    /// Exact sums of the powers 1, 2, …
    Moments(SmallVec<[ExactSum; 1]>),
    Min(Option<Value>),
    Max(Option<Value>),
    /// At most `n` values, oldest first.
    First(Vec<(Position, Value)>),
    /// At most `n` values, newest first.
    Last(Vec<(Position, Value)>),
    Distinct(BottomK),
    Histogram(Histogram),
}

/// Value → count, of at most a bound of values.
#[derive(Debug, Clone, Default)]
pub struct Histogram {
    pub counts: BTreeMap<Value, u64>,
    /// More values than the bound were seen; the counts are then dropped.
    pub overflowed: bool,
}

impl Histogram {
    fn add(&mut self, value: &Value, count: u64, categories_max: usize) {
        if self.overflowed {
            return;
        }
        if let Some(known) = self.counts.get_mut(value) {
            *known += count;
            return;
        }
        self.counts.insert(value.clone(), count);
        if self.counts.len() > categories_max {
            self.overflowed = true;
            self.counts.clear();
        }
    }

    fn merge(&mut self, other: &Self, categories_max: usize) {
        if other.overflowed {
            self.overflowed = true;
            self.counts.clear();
        }
        for (value, count) in &other.counts {
            self.add(value, *count, categories_max);
        }
    }
}

impl Partial {
    /// The aggregate of no facts.
    pub fn empty(kind: SlotKind) -> Self {
        let data = match kind {
            SlotKind::Count => PartialData::Count,
            SlotKind::Moments { order } => {
                PartialData::Moments((0..order).map(|_| ExactSum::default()).collect())
            }
            SlotKind::Min => PartialData::Min(None),
            SlotKind::Max => PartialData::Max(None),
            SlotKind::First { .. } => PartialData::First(Vec::new()),
            SlotKind::Last { .. } => PartialData::Last(Vec::new()),
            SlotKind::Distinct { .. } => PartialData::Distinct(BottomK::default()),
            SlotKind::Histogram { .. } => PartialData::Histogram(Histogram::default()),
        };
        Self {
            count: 0,
            newest: Micros::MIN,
            data,
        }
    }

    /// Counts one fact that passed the slot's filter. `value` is null for a slot without an input.
    pub fn update(&mut self, slot: &Slot, position: Position, value: &Value) {
        let kept_null = matches!(
            slot.kind,
            SlotKind::First {
                keep_nulls: true,
                ..
            } | SlotKind::Last {
                keep_nulls: true,
                ..
            }
        );
        if slot.input.is_some() && value.is_null() && !kept_null {
            return;
        }
        self.note(position);
        match (&mut self.data, slot.kind) {
            (PartialData::Count, _) => {}
            (PartialData::Moments(sums), _) => add_powers(sums, value),
            (PartialData::Min(least), _) => keep(least, value, |new, old| new < old),
            (PartialData::Max(greatest), _) => keep(greatest, value, |new, old| new > old),
            (PartialData::First(list), SlotKind::First { n, .. }) => {
                insert_oldest(list, n, position, value);
            }
            (PartialData::Last(list), SlotKind::Last { n, .. }) => {
                insert_newest(list, n, position, value);
            }
            (PartialData::Distinct(sketch), SlotKind::Distinct { exact_up_to }) => {
                sketch.insert(hash_value(value), exact_up_to);
            }
            (PartialData::Histogram(map), SlotKind::Histogram { categories_max }) => {
                map.add(value, 1, categories_max);
            }
            _ => debug_assert!(false, "the partial is of another slot"),
        }
    }

    /// Counts a fact without its value.
    pub(crate) fn note(&mut self, position: Position) {
        self.count += 1;
        self.newest = self.newest.max(position.event_time);
    }

    /// Joins the aggregate of other facts into this one.
    pub fn merge(&mut self, slot: &Slot, other: &Self) {
        if other.count == 0 {
            return;
        }
        self.count += other.count;
        self.newest = self.newest.max(other.newest);
        match (&mut self.data, &other.data, slot.kind) {
            (PartialData::Moments(sums), PartialData::Moments(others), _) => {
                for (sum, other) in sums.iter_mut().zip(others) {
                    sum.merge(other);
                }
            }
            (PartialData::Min(least), PartialData::Min(Some(value)), _) => {
                keep(least, value, |new, old| new < old);
            }
            (PartialData::Max(greatest), PartialData::Max(Some(value)), _) => {
                keep(greatest, value, |new, old| new > old);
            }
            (PartialData::First(list), PartialData::First(others), SlotKind::First { n, .. }) => {
                for (position, value) in others {
                    insert_oldest(list, n, *position, value);
                }
            }
            (PartialData::Last(list), PartialData::Last(others), SlotKind::Last { n, .. }) => {
                for (position, value) in others {
                    insert_newest(list, n, *position, value);
                }
            }
            (
                PartialData::Distinct(sketch),
                PartialData::Distinct(other),
                SlotKind::Distinct { exact_up_to },
            ) => sketch.merge(other, exact_up_to),
            (
                PartialData::Histogram(map),
                PartialData::Histogram(other),
                SlotKind::Histogram { categories_max },
            ) => map.merge(other, categories_max),
            _ => {}
        }
    }
}

/// Keeps `value` where it is better than what is kept.
pub(crate) fn keep(kept: &mut Option<Value>, value: &Value, better: fn(&Value, &Value) -> bool) {
    if kept.as_ref().is_none_or(|old| better(value, old)) {
        *kept = Some(value.clone());
    }
}

fn add_powers(sums: &mut [ExactSum], value: &Value) {
    for (i, sum) in sums.iter_mut().enumerate() {
        let power = i as u32 + 1;
        match (value, power) {
            (Value::Int(v), 1) => sum.add_int(i128::from(*v)),
            (Value::Int(v), _) => sum.add_int_power(i128::from(*v), power),
            (Value::Float(v), 1) => sum.add_float(*v),
            (Value::Float(v), _) => sum.add_float_power(*v, power),
            (Value::Decimal { unscaled, .. }, _) => sum.add_int_power(*unscaled, power),
            _ => {}
        }
    }
}

/// Inserts into a list of the `n` oldest values, oldest first.
pub(crate) fn insert_oldest(
    list: &mut Vec<(Position, Value)>,
    n: usize,
    position: Position,
    value: &Value,
) {
    let at = list.partition_point(|(p, _)| *p < position);
    insert_within(list, n, at, position, value);
}

/// Inserts into a list of the `n` newest values, newest first.
pub(crate) fn insert_newest(
    list: &mut Vec<(Position, Value)>,
    n: usize,
    position: Position,
    value: &Value,
) {
    let at = list.partition_point(|(p, _)| *p > position);
    insert_within(list, n, at, position, value);
}

fn insert_within(
    list: &mut Vec<(Position, Value)>,
    n: usize,
    at: usize,
    position: Position,
    value: &Value,
) {
    if at < n {
        list.truncate(n - 1);
        list.insert(at, (position, value.clone()));
    }
}
