//! One slot's aggregate over rows of a block that enter it at the end and leave it at the start.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

use headwater_schema::{Micros, Value};

use crate::block::Block;
use crate::bottom_k::{BottomK, hash_value};
use crate::histogram::Histogram;
use crate::partial::{Partial, PartialData};
use crate::{Slot, SlotKind};

/// What is kept of the rows beside their partial aggregate, so that some can leave.
pub(crate) enum Slide {
    /// Nothing: none can leave.
    Grow,
    /// Nothing: what they brought is subtracted.
    Subtract,
    /// The rows whose value no later one betters, and their values.
    Best(VecDeque<(usize, Value)>),
    /// The rows that count.
    Rows(VecDeque<usize>),
    /// How many rows have each value.
    Values(BTreeMap<Value, u64>),
    /// How many rows have each hash of a value.
    Hashes(BTreeMap<u64, u64>),
}

impl Slide {
    /// `grows`: rows never leave.
    pub(crate) fn new(slot: &Slot, grows: bool) -> Self {
        if grows || !slot.is_plain() {
            return Self::Grow;
        }
        match slot.kind {
            SlotKind::Count | SlotKind::Moments { .. } => Self::Subtract,
            SlotKind::Min | SlotKind::Max => Self::Best(VecDeque::new()),
            SlotKind::First { .. } | SlotKind::Last { .. } => Self::Rows(VecDeque::new()),
            SlotKind::Top { .. } | SlotKind::Bottom { .. } | SlotKind::Histogram { .. } => {
                Self::Values(BTreeMap::new())
            }
            SlotKind::Distinct { .. } => Self::Hashes(BTreeMap::new()),
            SlotKind::LastDistinct { .. }
            | SlotKind::MinBy
            | SlotKind::MaxBy
            | SlotKind::Quantile { .. }
            | SlotKind::Decayed { .. } => Self::Grow,
        }
    }

    /// Whether rows can leave.
    pub(crate) fn lets_leave(&self) -> bool {
        !matches!(self, Self::Grow)
    }

    /// Forgets all rows.
    pub(crate) fn clear(&mut self) {
        match self {
            Self::Grow | Self::Subtract => {}
            Self::Best(best) => best.clear(),
            Self::Rows(rows) => rows.clear(),
            Self::Values(values) => values.clear(),
            Self::Hashes(hashes) => hashes.clear(),
        }
    }

    /// Takes the next rows.
    pub(crate) fn enter(
        &mut self,
        block: &Block,
        slot: &Slot,
        rows: Range<usize>,
        partial: &mut Partial,
    ) {
        if matches!(self, Self::Grow | Self::Subtract) {
            return block.add_rows(slot, rows, partial);
        }
        for row in rows {
            let Some(value) = block.counted(slot, row) else {
                continue;
            };
            partial.count(1, block.position(row));
            match self {
                Self::Grow | Self::Subtract => {}
                Self::Best(best) => {
                    let stays = |old: &Value| match slot.kind {
                        SlotKind::Min => *old < value,
                        _ => *old > value,
                    };
                    while best.back().is_some_and(|(_, old)| !stays(old)) {
                        best.pop_back();
                    }
                    best.push_back((row, value));
                }
                Self::Rows(rows) => rows.push_back(row),
                Self::Values(values) => *values.entry(value).or_default() += 1,
                Self::Hashes(hashes) => *hashes.entry(hash_value(&value)).or_default() += 1,
            }
        }
    }

    /// Lets the first rows go.
    pub(crate) fn leave(
        &mut self,
        block: &Block,
        slot: &Slot,
        rows: Range<usize>,
        partial: &mut Partial,
    ) {
        if let Self::Subtract = self {
            return block.take_rows(slot, rows, partial);
        }
        for row in rows {
            let Some(value) = block.counted(slot, row) else {
                continue;
            };
            partial.uncount(1);
            match self {
                Self::Grow | Self::Subtract => {}
                Self::Best(best) => drop(best.pop_front_if(|(first, _)| *first == row)),
                Self::Rows(rows) => drop(rows.pop_front()),
                Self::Values(values) => take_one(values, &value),
                Self::Hashes(hashes) => take_one(hashes, &hash_value(&value)),
            }
        }
    }

    /// Makes the partial aggregate say what the rows say.
    pub(crate) fn show(&self, block: &Block, slot: &Slot, partial: &mut Partial) {
        partial.data = match (self, slot.kind) {
            (Self::Best(best), kind) => {
                let value = best.front().map(|(_, value)| value.clone());
                match kind {
                    SlotKind::Min => PartialData::Min(value),
                    _ => PartialData::Max(value),
                }
            }
            (Self::Rows(rows), SlotKind::First { n, .. }) => {
                let first = rows.iter().take(n).map(|row| block.placed(slot, *row));
                PartialData::First(first.collect())
            }
            (Self::Rows(rows), SlotKind::Last { n, .. }) => {
                let last = rows
                    .iter()
                    .rev()
                    .take(n)
                    .map(|row| block.placed(slot, *row));
                PartialData::Last(last.collect())
            }
            (Self::Values(values), SlotKind::Top { n }) => {
                PartialData::Ranked(each(values.iter().rev(), n))
            }
            (Self::Values(values), SlotKind::Bottom { n }) => {
                PartialData::Ranked(each(values.iter(), n))
            }
            (Self::Values(values), SlotKind::Histogram { categories_max }) => {
                let overflowed = values.len() > categories_max;
                PartialData::Histogram(Histogram {
                    counts: match overflowed {
                        true => BTreeMap::new(),
                        false => values.clone(),
                    },
                    overflowed,
                })
            }
            (Self::Hashes(hashes), SlotKind::Distinct { exact_up_to }) => {
                let least = hashes.keys().copied().take(exact_up_to.saturating_add(1));
                PartialData::Distinct(BottomK::from_hashes(least.collect()))
            }
            _ => return,
        };
    }
}

/// The first `n` values, each as often as it is there.
fn each<'v>(values: impl Iterator<Item = (&'v Value, &'v u64)>, n: usize) -> Vec<Value> {
    let mut list = Vec::with_capacity(n.min(1024));
    for (value, count) in values {
        let count = usize::try_from(*count).unwrap_or(usize::MAX);
        list.extend(std::iter::repeat_n(value, count.min(n - list.len())).cloned());
        if list.len() == n {
            break;
        }
    }
    list
}

fn take_one<K: Ord>(counts: &mut BTreeMap<K, u64>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

impl Partial {
    /// Takes facts out of the count. The newest stays: the oldest leave first.
    pub(crate) fn uncount(&mut self, facts: u64) {
        self.count = self.count.saturating_sub(facts);
        if self.count == 0 {
            self.newest = Micros::MIN;
        }
    }
}
