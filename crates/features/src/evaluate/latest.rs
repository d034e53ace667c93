//! Latest values at moments of one entity that follow each other: of each, the fact that it is read from.
//!
//! A latest value needs no aggregate: it is its column in the newest fact that counts. What it says is what [`ReadPlan::read`] says; a test of the
//! sweep holds the two together.

use headwater_aggregate::{Aggregate, InputBatch, Slot, Spread};
use headwater_schema::{Cursor, Micros, Position, Value};

use super::{LIFETIME, ReadPlan};
use crate::{CompiledView, FeatureKind};

/// A fact: its place in the order, and where it lies.
#[derive(Debug, Clone, Copy)]
pub struct PlacedFact {
    pub position: Position,
    /// The batch, among those that a [`super::ForwardPlan`] was given.
    pub batch: u32,
    pub row: u32,
}

/// Where latest values are read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Picked {
    /// No fact counts: they are null.
    Nothing,
    /// They have outlived their `ttl`: they are null.
    Old,
    Fact {
        batch: u32,
        row: u32,
    },
}

/// A feature that is a latest value: its input in the fact that its group is read from.
#[derive(Debug, Clone, Copy)]
pub struct LatestFeature {
    pub feature: usize,
    pub group: usize,
    pub input: usize,
}

/// The latest values of a plan, grouped by what fact they are read from.
#[derive(Default)]
pub(super) struct Groups {
    picks: Vec<Pick>,
    /// (pick, for how long it holds)
    groups: Vec<(usize, Option<Micros>)>,
    pub features: Vec<LatestFeature>,
}

/// Features that are read from the same fact, whatever its age.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Pick {
    /// A bool input that says which facts count.
    filter: Option<usize>,
    /// The input that must not be null.
    present: Option<usize>,
}

impl Groups {
    pub fn of(plan: &ReadPlan) -> Self {
        let mut groups = Self::default();
        for feature in plan.windowed() {
            let Some(slot) = latest_slot(plan.view(), feature) else {
                continue;
            };
            let Some(input) = slot.input else { continue };
            let pick = Pick {
                filter: slot.filter,
                present: (!slot.kind.keeps_nulls()).then_some(input),
            };
            let about = &plan.view().features[feature];
            let ttl = about.ttl.filter(|_| !about.stale_keep);
            let pick = place_of(&mut groups.picks, pick);
            let group = place_of(&mut groups.groups, (pick, ttl));
            groups.features.push(LatestFeature {
                feature,
                group,
                input,
            });
        }
        groups
    }
}

/// Where an item is in a list, to whose end it is added where it isn't there.
fn place_of<T: PartialEq>(list: &mut Vec<T>, item: T) -> usize {
    list.iter().position(|i| *i == item).unwrap_or_else(|| {
        list.push(item);
        list.len() - 1
    })
}

/// Goes over the facts of one entity after another.
pub(super) struct Latest {
    groups: Groups,
    /// The newest fact of each pick that was gone over and counts.
    newest: Vec<Option<usize>>,
    /// How many facts were gone over.
    passed: usize,
}

impl Latest {
    pub(super) fn new(plan: &ReadPlan) -> Self {
        let groups = Groups::of(plan);
        Self {
            newest: vec![None; groups.picks.len()],
            groups,
            passed: 0,
        }
    }

    /// Goes over to another entity.
    pub(super) fn begin(&mut self) {
        self.passed = 0;
        self.newest.fill(None);
    }

    /// What each group is read from at a cursor.
    pub(super) fn read(
        &mut self,
        batches: &[InputBatch],
        facts: &[PlacedFact],
        cursor: &Cursor,
        mut say: impl FnMut(usize, Picked),
    ) {
        if self.newest.is_empty() {
            return;
        }
        let ahead = self.passed.checked_sub(1).map(|last| facts[last].position);
        if ahead.is_some_and(|last| last >= cursor.until) {
            self.begin();
        }
        while let Some(fact) = facts.get(self.passed).filter(|f| f.position < cursor.until) {
            for (pick, newest) in self.groups.picks.iter().zip(&mut self.newest) {
                if pick.counts(batches, fact) {
                    *newest = Some(self.passed);
                }
            }
            self.passed += 1;
        }
        for (group, (pick, ttl)) in self.groups.groups.iter().enumerate() {
            let oldest = ttl.map(|ttl| cursor.as_of.saturating_sub(ttl));
            let picked = match self.newest[*pick].map(|newest| &facts[newest]) {
                None => Picked::Nothing,
                Some(fact) if oldest.is_some_and(|o| fact.position.event_time < o) => Picked::Old,
                Some(fact) => Picked::Fact {
                    batch: fact.batch,
                    row: fact.row,
                },
            };
            say(group, picked);
        }
    }
}

impl Pick {
    fn counts(self, batches: &[InputBatch], fact: &PlacedFact) -> bool {
        if self.filter.is_none() && self.present.is_none() {
            return true;
        }
        let (columns, row) = (&batches[fact.batch as usize].columns, fact.row as usize);
        let passes = |filter: usize| columns[filter].get(row) == Value::Bool(true);
        let present = |input: usize| !columns[input].is_null(row);
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
