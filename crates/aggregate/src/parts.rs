//! Aggregates of many parts: one per category or key of maps, one per place of lists.

use std::collections::BTreeMap;

use headwater_schema::Value;

use crate::layout::{Contribution, Slot};
use crate::partial::Partial;

/// The most places of lists that are aggregated place by place.
pub const PLACES_MAX: usize = 10_000;

/// A partial aggregate per category. A category is there if one of its facts counted.
#[derive(Debug, Clone, Default)]
pub struct Groups {
    pub partials: BTreeMap<Value, Partial>,
    /// More categories than the bound were seen; the partials are then dropped.
    pub overflowed: bool,
}

impl Groups {
    /// Adds what a contribution says; what it counted, in all.
    pub fn add(&mut self, slot: &Slot, fact: &Contribution) -> u64 {
        let inner = slot.inner();
        let mut add = |key: &Value, value: Value| {
            let mut one = Partial::empty(&inner);
            one.add(&inner, &fact.with(value));
            self.merge_key(&inner, key, &one);
            one.count
        };
        if slot.by.is_some() {
            return add(&fact.category, fact.value.clone());
        }
        match &fact.value {
            Value::Map(entries) => entries.iter().map(|(k, v)| add(k, v.clone())).sum(),
            _ => 0,
        }
    }

    fn merge_key(&mut self, inner: &Slot, key: &Value, other: &Partial) {
        if self.overflowed || other.count == 0 {
            return;
        }
        if let Some(known) = self.partials.get_mut(key) {
            known.merge(inner, other);
            return;
        }
        self.partials.insert(key.clone(), other.clone());
        if self.partials.len() > inner.categories_max {
            self.overflow();
        }
    }

    fn overflow(&mut self) {
        self.overflowed = true;
        self.partials.clear();
    }

    pub fn merge(&mut self, slot: &Slot, other: &Self) {
        if other.overflowed {
            self.overflow();
        }
        let inner = slot.inner();
        for (key, partial) in &other.partials {
            self.merge_key(&inner, key, partial);
        }
    }
}

/// A partial aggregate per place of lists that are equally long.
#[derive(Debug, Clone, Default)]
pub struct Places {
    pub partials: Vec<Partial>,
    pub trouble: Option<Trouble>,
}

/// Why lists can't be aggregated place by place; the later one wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trouble {
    /// Their lengths differ.
    Unequal,
    /// One has more than [`PLACES_MAX`] places.
    TooLong,
}

impl Places {
    /// Adds one list; `first` says whether it is the first.
    pub fn add(&mut self, slot: &Slot, fact: &Contribution, items: &[Value], first: bool) {
        let inner = slot.inner();
        if items.len() > PLACES_MAX {
            self.give_up(Trouble::TooLong);
        }
        if first && self.trouble.is_none() {
            self.partials = items.iter().map(|_| Partial::empty(&inner)).collect();
        }
        if self.trouble.is_none() && items.len() != self.partials.len() {
            self.give_up(Trouble::Unequal);
        }
        for (partial, item) in self.partials.iter_mut().zip(items) {
            partial.add(&inner, &fact.with(item.clone()));
        }
    }

    /// Merges what some lists said; `first` says whether there were none before.
    pub fn merge(&mut self, slot: &Slot, other: &Self, first: bool) {
        if let Some(trouble) = other.trouble {
            self.give_up(trouble);
        }
        if self.trouble.is_some() {
            return;
        }
        if first {
            self.partials.clone_from(&other.partials);
            return;
        }
        if self.partials.len() != other.partials.len() {
            self.give_up(Trouble::Unequal);
        }
        let inner = slot.inner();
        for (partial, other) in self.partials.iter_mut().zip(&other.partials) {
            partial.merge(&inner, other);
        }
    }

    fn give_up(&mut self, trouble: Trouble) {
        self.trouble = self.trouble.max(Some(trouble));
        self.partials.clear();
    }
}

/// Adds the elements of a list as if each were a fact of its own, in their order.
pub fn add_elements(partial: &mut Partial, slot: &Slot, fact: &Contribution) {
    let inner = slot.inner();
    let Value::List(items) = &fact.value else {
        return;
    };
    for item in items.iter() {
        partial.add(&inner, &fact.with(item.clone()));
    }
}
