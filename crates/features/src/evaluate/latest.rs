//! Latest values at moments of one entity that follow each other: of each, the fact that it is read from.
//!
//! A latest value needs no aggregate: it is its column in the newest fact that counts. What it says is what [`ReadPlan::read`] says; a test of the
//! sweep holds the two together.

use headwater_aggregate::{Aggregate, InputBatch, InputColumn, Slot, Spread};
use headwater_schema::{Cursor, Micros, Position, Value};

use super::{LIFETIME, ReadPlan};
use crate::{CompiledView, FeatureKind};

/// A fact: its place in the order, and where it lies.
pub type PlacedFact<'f> = (Position, &'f InputBatch, usize);

/// The features of a plan that are latest values.
pub(super) struct Latest {
    picks: Vec<Pick>,
    /// How many facts the picks have gone over.
    passed: usize,
}

/// Features that are read from the same fact.
struct Pick {
    /// A bool input that says which facts count.
    filter: Option<usize>,
    /// The input that must not be null.
    present: Option<usize>,
    /// (feature, its input, for how long it holds)
    features: Vec<(usize, usize, Option<Micros>)>,
    newest: Option<usize>,
}

impl Latest {
    pub(super) fn new(plan: &ReadPlan) -> Self {
        let mut picks: Vec<Pick> = Vec::new();
        for index in plan.windowed() {
            let Some(slot) = latest_slot(plan.view(), index) else {
                continue;
            };
            let Some(input) = slot.input else { continue };
            let nulls_count = slot.kind.keeps_nulls();
            let (filter, present) = (slot.filter, (!nulls_count).then_some(input));
            let feature = &plan.view().features[index];
            let ttl = feature.ttl.filter(|_| !feature.stale_keep);
            let of = (index, input, ttl);
            let same = |pick: &&mut Pick| pick.filter == filter && pick.present == present;
            match picks.iter_mut().find(same) {
                Some(pick) => pick.features.push(of),
                None => picks.push(Pick {
                    filter,
                    present,
                    features: vec![of],
                    newest: None,
                }),
            }
        }
        Self { picks, passed: 0 }
    }

    /// Goes over to another entity.
    pub(super) fn begin(&mut self) {
        self.passed = 0;
        self.picks.iter_mut().for_each(|pick| pick.newest = None);
    }

    /// The fact, and the input, that each feature is read from at a cursor; none where it is null. And whether any fact counted.
    pub(super) fn read<'f>(
        &mut self,
        facts: &[PlacedFact<'f>],
        cursor: &Cursor,
        mut say: impl FnMut(usize, Option<(&'f InputColumn, usize)>, bool),
    ) {
        if self.picks.is_empty() {
            return;
        }
        let ahead = self.passed.checked_sub(1).map(|last| facts[last].0);
        if ahead.is_some_and(|last| last >= cursor.until) {
            self.begin();
        }
        while let Some((_, batch, row)) = facts.get(self.passed).filter(|f| f.0 < cursor.until) {
            for pick in &mut self.picks {
                if pick.counts(batch, *row) {
                    pick.newest = Some(self.passed);
                }
            }
            self.passed += 1;
        }
        for pick in &self.picks {
            let newest = pick.newest.map(|newest| facts[newest]);
            for (feature, input, ttl) in &pick.features {
                let holds = |position: Position| {
                    ttl.is_none_or(|ttl| position.event_time >= cursor.as_of.saturating_sub(ttl))
                };
                let found = newest.filter(|(position, ..)| holds(*position));
                let found = found.map(|(_, batch, row)| (&batch.columns[*input], row));
                say(*feature, found, newest.is_some());
            }
        }
    }
}

impl Pick {
    fn counts(&self, batch: &InputBatch, row: usize) -> bool {
        let passes = |filter: usize| batch.columns[filter].get(row) == Value::Bool(true);
        let present = |input: usize| !batch.columns[input].is_null(row);
        self.filter.is_none_or(passes) && self.present.is_none_or(present)
    }
}

/// The slot of a feature that is its column in the newest fact of all time, or the newest with a value; none for others.
pub(super) fn latest_slot(view: &CompiledView, feature: usize) -> Option<&Slot> {
    let slot = match &view.features[feature].kind {
        FeatureKind::Latest { slot } => *slot,
        FeatureKind::Aggregate {
            function: Aggregate::Last { .. },
            slot,
            window,
            among: None,
            ..
        } if *window == LIFETIME => *slot,
        _ => return None,
    };
    let slot = &view.layout.slots[slot];
    let plain = slot.by.is_none() && slot.order_by.is_none() && slot.spread == Spread::Whole;
    (plain && slot.input.is_some()).then_some(slot)
}
