//! Partial aggregates: what a slot knows of some facts, mergeable in any order and grouping.

use std::cmp::Ordering;

use headwater_schema::{Micros, Position, Value};
use smallvec::SmallVec;

use crate::bottom_k::{BottomK, hash_value};
use crate::decayed::Decayed;
use crate::exact_sum::{ExactSum, scaled};
use crate::histogram::Histogram;
use crate::layout::{Contribution, Slot, SlotKind, Spread};
use crate::ordered::{
    Chosen, Placed, insert_newest, insert_newest_distinct, insert_oldest, insert_ranked,
    merge_ranked,
};
use crate::parts::{Groups, Places, add_elements};
use crate::quantile::Samples;

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
    First(Vec<Placed>),
    /// At most `n` values, newest first.
    Last(Vec<Placed>),
    Distinct(BottomK),
    Histogram(Histogram),
    /// At most `n` distinct values, newest first.
    LastDistinct(Vec<Placed>),
    /// At most `n` values, the greatest or the least first.
    Ranked(Vec<Value>),
    Chosen(Option<Box<Chosen>>),
    Quantile(Samples),
    Decayed(Decayed),
    /// One per category, or per key of maps.
    Groups(Box<Groups>),
    /// One per place of lists.
    Places(Box<Places>),
}

impl Partial {
    /// The aggregate of no facts.
    pub fn empty(slot: &Slot) -> Self {
        let data = if slot.is_grouped() {
            PartialData::Groups(Box::default())
        } else if slot.spread == Spread::Positions {
            PartialData::Places(Box::default())
        } else {
            PartialData::empty(slot.kind)
        };
        Self {
            count: 0,
            newest: Micros::MIN,
            data,
        }
    }

    /// About how many bytes of memory some partials take.
    pub fn sizes_bytes(partials: &[Self]) -> usize {
        let beyond: usize = partials.iter().map(|p| p.data.heap_bytes()).sum();
        size_of_val(partials) + beyond
    }

    /// Counts what one fact brings.
    pub fn add(&mut self, slot: &Slot, fact: &Contribution) {
        if slot.is_grouped() {
            if let PartialData::Groups(groups) = &mut self.data {
                let counted = groups.add(slot, fact);
                self.count(counted, fact.position);
            }
            return;
        }
        match slot.spread {
            Spread::Elements => add_elements(self, slot, fact),
            Spread::Positions => self.add_places(slot, fact),
            Spread::Whole | Spread::Entries => self.add_value(slot, fact),
        }
    }

    fn add_places(&mut self, slot: &Slot, fact: &Contribution) {
        if let (PartialData::Places(places), Value::List(items)) = (&mut self.data, &fact.value) {
            places.add(slot, fact, items, self.count == 0);
            self.count(1, fact.position);
        }
    }

    fn add_value(&mut self, slot: &Slot, fact: &Contribution) {
        let Contribution {
            position, value, ..
        } = fact;
        if slot.input.is_some() && value.is_null() && !slot.kind.keeps_nulls() {
            return;
        }
        self.count(1, *position);
        match (&mut self.data, slot.kind) {
            (PartialData::Count, _) => {}
            (PartialData::Moments(sums), _) => add_powers(sums, value),
            (PartialData::Min(least), _) => keep(least, value, |new, old| new < old),
            (PartialData::Max(greatest), _) => keep(greatest, value, |new, old| new > old),
            (PartialData::First(list), SlotKind::First { n, .. }) => {
                insert_oldest(list, n, *position, value);
            }
            (PartialData::Last(list), SlotKind::Last { n, .. }) => {
                insert_newest(list, n, *position, value);
            }
            (PartialData::Distinct(sketch), SlotKind::Distinct { exact_up_to }) => {
                sketch.insert(hash_value(value), exact_up_to);
            }
            (PartialData::Histogram(map), SlotKind::Histogram { categories_max }) => {
                map.add(value, 1, categories_max);
            }
            (PartialData::LastDistinct(list), SlotKind::LastDistinct { n }) => {
                insert_newest_distinct(list, n, *position, value);
            }
            (PartialData::Ranked(list), kind) => rank(list, kind, value),
            (PartialData::Chosen(kept), kind) => {
                let new = Chosen {
                    order: fact.order.clone(),
                    position: *position,
                    value: value.clone(),
                };
                Chosen::keep(kept, &new, kind == SlotKind::MaxBy);
            }
            (PartialData::Quantile(samples), SlotKind::Quantile { exact_up_to }) => {
                samples.add(value, exact_up_to);
            }
            (PartialData::Decayed(sums), SlotKind::Decayed { half_life }) => {
                sums.add(half_life, position.event_time, value);
            }
            _ => debug_assert!(false, "the partial is of another slot"),
        }
    }

    /// Takes a value out of its sums again.
    pub(crate) fn subtract(&mut self, value: &Value) {
        if let (PartialData::Moments(sums), Some((mantissa, exponent))) =
            (&mut self.data, scaled(value))
        {
            for (sum, power) in sums.iter_mut().zip(1..) {
                sum.subtract_power(mantissa, exponent, power);
            }
        }
    }

    /// Counts facts, of which the newest stands at `position`.
    pub(crate) fn count(&mut self, facts: u64, position: Position) {
        if facts > 0 {
            self.count += facts;
            self.newest = self.newest.max(position.event_time);
        }
    }

    /// Joins the aggregate of other facts into this one.
    pub fn merge(&mut self, slot: &Slot, other: &Self) {
        if other.count == 0 {
            return;
        }
        let first = self.count == 0;
        self.count += other.count;
        self.newest = self.newest.max(other.newest);
        match (&mut self.data, &other.data) {
            (PartialData::Groups(groups), PartialData::Groups(others)) => {
                groups.merge(slot, others);
            }
            (PartialData::Places(places), PartialData::Places(others)) => {
                places.merge(slot, others, first);
            }
            (data, other) => data.merge(slot.kind, other),
        }
    }
}

impl PartialData {
    /// Whether two choices are the same: of values, or of the facts that have them.
    pub(crate) fn chooses_as(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Min(a), Self::Min(b)) | (Self::Max(a), Self::Max(b)) => a == b,
            (Self::Ranked(a), Self::Ranked(b)) => a == b,
            _ => false,
        }
    }

    /// About how many bytes it takes beside itself.
    fn heap_bytes(&self) -> usize {
        /// A node of a tree holds more than its entry.
        const ENTRY_BYTES: usize = 64;
        match self {
            Self::Count | Self::Min(_) | Self::Max(_) | Self::Chosen(None) => 0,
            Self::Moments(sums) if sums.spilled() => sums.capacity() * size_of::<ExactSum>(),
            Self::Moments(_) => 0,
            Self::First(list) | Self::Last(list) | Self::LastDistinct(list) => {
                list.capacity() * size_of::<Placed>()
            }
            Self::Distinct(sketch) => size_of_val(sketch.hashes()),
            Self::Histogram(histogram) => histogram.counts.len() * ENTRY_BYTES,
            Self::Ranked(values) => values.capacity() * size_of::<Value>(),
            Self::Chosen(Some(_)) => size_of::<Chosen>(),
            Self::Quantile(samples) => samples.heap_bytes(),
            Self::Decayed(decayed) => size_of_val(decayed.cells.as_slice()),
            Self::Groups(groups) => {
                let partials = groups.partials.values();
                let sizes = partials.map(|p| Partial::sizes_bytes(std::slice::from_ref(p)));
                sizes.sum::<usize>() + groups.partials.len() * ENTRY_BYTES
            }
            Self::Places(places) => Partial::sizes_bytes(&places.partials),
        }
    }

    fn empty(kind: SlotKind) -> Self {
        match kind {
            SlotKind::Count => Self::Count,
            SlotKind::Moments { order } => {
                Self::Moments((0..order).map(|_| ExactSum::default()).collect())
            }
            SlotKind::Min => Self::Min(None),
            SlotKind::Max => Self::Max(None),
            SlotKind::First { .. } => Self::First(Vec::new()),
            SlotKind::Last { .. } => Self::Last(Vec::new()),
            SlotKind::Distinct { .. } => Self::Distinct(BottomK::default()),
            SlotKind::Histogram { .. } => Self::Histogram(Histogram::default()),
            SlotKind::LastDistinct { .. } => Self::LastDistinct(Vec::new()),
            SlotKind::Top { .. } | SlotKind::Bottom { .. } => Self::Ranked(Vec::new()),
            SlotKind::MinBy | SlotKind::MaxBy => Self::Chosen(None),
            SlotKind::Quantile { .. } => Self::Quantile(Samples::None),
            SlotKind::Decayed { .. } => Self::Decayed(Decayed::default()),
        }
    }

    pub(crate) fn merge(&mut self, kind: SlotKind, other: &Self) {
        match (self, other, kind) {
            (Self::Moments(sums), Self::Moments(others), _) => {
                for (sum, other) in sums.iter_mut().zip(others) {
                    sum.merge(other);
                }
            }
            (Self::Min(least), Self::Min(Some(value)), _) => {
                keep(least, value, |new, old| new < old);
            }
            (Self::Max(greatest), Self::Max(Some(value)), _) => {
                keep(greatest, value, |new, old| new > old);
            }
            (Self::First(list), Self::First(others), SlotKind::First { n, .. }) => {
                for (position, value) in others {
                    insert_oldest(list, n, *position, value);
                }
            }
            (Self::Last(list), Self::Last(others), SlotKind::Last { n, .. }) => {
                for (position, value) in others.iter().rev() {
                    insert_newest(list, n, *position, value);
                }
            }
            (Self::Distinct(sketch), Self::Distinct(other), SlotKind::Distinct { exact_up_to }) => {
                sketch.merge(other, exact_up_to);
            }
            (
                Self::Histogram(map),
                Self::Histogram(other),
                SlotKind::Histogram { categories_max },
            ) => map.merge(other, categories_max),
            (
                Self::LastDistinct(list),
                Self::LastDistinct(others),
                SlotKind::LastDistinct { n },
            ) => {
                for (position, value) in others.iter().rev() {
                    insert_newest_distinct(list, n, *position, value);
                }
            }
            (Self::Ranked(list), Self::Ranked(others), kind) => {
                if let Some((n, order)) = ranking(kind) {
                    merge_ranked(list, n, others, order);
                }
            }
            (Self::Chosen(kept), Self::Chosen(Some(other)), kind) => {
                Chosen::keep(kept, other, kind == SlotKind::MaxBy);
            }
            (
                Self::Quantile(samples),
                Self::Quantile(others),
                SlotKind::Quantile { exact_up_to },
            ) => {
                samples.merge(others, exact_up_to);
            }
            (Self::Decayed(sums), Self::Decayed(others), _) => sums.merge(others),
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

fn rank(list: &mut Vec<Value>, kind: SlotKind, value: &Value) {
    if let Some((n, order)) = ranking(kind) {
        insert_ranked(list, n, value, order);
    }
}

pub(crate) type ValueOrder = fn(&Value, &Value) -> Ordering;

/// How many values a ranked slot keeps, and the order in which they come first.
pub(crate) fn ranking(kind: SlotKind) -> Option<(usize, ValueOrder)> {
    match kind {
        SlotKind::Top { n } => Some((n, |a, b| b.cmp(a))),
        SlotKind::Bottom { n } => Some((n, Ord::cmp)),
        _ => None,
    }
}

fn add_powers(sums: &mut [ExactSum], value: &Value) {
    let Some((mantissa, exponent)) = scaled(value) else {
        return;
    };
    for (sum, power) in sums.iter_mut().zip(1..) {
        sum.add_power(mantissa, exponent, power);
    }
}
