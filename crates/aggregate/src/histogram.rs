//! Value → count, of at most a bound of values.

use std::collections::BTreeMap;

use headwater_schema::Value;

/// Value → count, of at most a bound of values.
#[derive(Debug, Clone, Default)]
pub struct Histogram {
    pub counts: BTreeMap<Value, u64>,
    /// More values than the bound were seen; the counts are then dropped.
    pub overflowed: bool,
}

impl Histogram {
    pub fn add(&mut self, value: &Value, count: u64, categories_max: usize) {
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

    /// Takes some of a value away again; a value of which none is left goes.
    pub fn take_away(&mut self, value: &Value, count: u64) {
        if let Some(known) = self.counts.get_mut(value) {
            *known = known.saturating_sub(count);
            if *known == 0 {
                self.counts.remove(value);
            }
        }
    }

    pub fn merge(&mut self, other: &Self, categories_max: usize) {
        if other.overflowed {
            self.overflowed = true;
            self.counts.clear();
        }
        for (value, count) in &other.counts {
            self.add(value, *count, categories_max);
        }
    }

    /// The values with their counts, the most frequent first; ties by smaller value.
    pub fn most_frequent(&self) -> Vec<(&Value, u64)> {
        let mut entries: Vec<(&Value, u64)> = self.counts.iter().map(|(v, c)| (v, *c)).collect();
        // The map is in ascending order and the sort is stable.
        entries.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        entries
    }
}
