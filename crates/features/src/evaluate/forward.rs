//! Reads of many moments of one entity after another: the values that [`ReadPlan::read`] gives of a state that has all facts, by windows that slide
//! from one moment to the next. Latest values aren't aggregated at all.

use headwater_aggregate::{ForwardReads, ForwardWindow, InputBatch, Outcome, WindowKind};
use headwater_schema::{Cursor, Value};

use super::latest::{Groups, Latest, LatestFeature, Picked, PlacedFact, latest_slot};
use super::{ReadPlan, WindowReads, absent};
use crate::{CompiledFeature, FeatureKind};

/// What is said of an entity at a cursor.
pub enum Said<'v> {
    /// What a group of latest values is read from.
    Latest(usize, Picked),
    /// What a feature is that isn't one of them, and whether any fact counted.
    Value(usize, &'v Value, bool),
}

/// Reads of one entity after another.
pub struct ForwardPlan<'f> {
    plan: &'f ReadPlan,
    batches: &'f [InputBatch],
    latest: Latest,
    windows: Vec<WindowReads>,
    reads: ForwardReads<'f>,
    facts: Vec<PlacedFact>,
    /// What each feature said when its window last changed, whatever its age.
    said: Vec<Outcome>,
}

impl ReadPlan {
    /// The features that are latest values, group by group read from the same fact.
    pub fn latest(&self) -> Vec<LatestFeature> {
        Groups::of(self).features
    }

    /// Reads the plan's features at moments that follow each other, of entities whose facts lie in some batches.
    pub fn forward<'f>(&'f self, batches: &'f [InputBatch]) -> ForwardPlan<'f> {
        let windows: Vec<WindowReads> = self.windows.iter().filter_map(|w| self.slid(w)).collect();
        let window = |reads: &WindowReads| ForwardWindow {
            slots: reads.slots.clone(),
            grows: reads.window.kind == WindowKind::Lifetime && reads.window.limit.is_none(),
            among: reads.among,
        };
        let slid: Vec<ForwardWindow> = windows.iter().map(window).collect();
        ForwardPlan {
            plan: self,
            batches,
            latest: Latest::new(self),
            windows,
            reads: ForwardReads::new(&self.view.layout, &slid),
            facts: Vec::new(),
            said: vec![absent(); self.view.features.len()],
        }
    }

    /// A window without the latest values among its features; none where nothing is left.
    fn slid(&self, reads: &WindowReads) -> Option<WindowReads> {
        let mut slid = WindowReads {
            slots: Vec::new(),
            features: Vec::new(),
            ..reads.clone()
        };
        for (feature, place) in &reads.features {
            if latest_slot(&self.view, *feature).is_some() {
                continue;
            }
            let slot = reads.slots[*place];
            let place = slid.slots.iter().position(|s| *s == slot);
            let place = place.unwrap_or_else(|| {
                slid.slots.push(slot);
                slid.slots.len() - 1
            });
            slid.features.push((*feature, place));
        }
        (!slid.features.is_empty()).then_some(slid)
    }
}

impl<'f> ForwardPlan<'f> {
    /// Goes over to another entity, whose facts come in the order of their positions, each once.
    pub fn begin(&mut self, facts: impl Iterator<Item = PlacedFact>) {
        self.facts.clear();
        self.facts.extend(facts);
        self.latest.begin();
        if !self.windows.is_empty() {
            let rows = self.facts.iter();
            let rows = rows.map(|f| (&self.batches[f.batch as usize], f.row as usize));
            self.reads.begin(rows);
        }
    }

    /// What each feature of [`ReadPlan::windowed`] is at a cursor at which all facts of the entity are known: the value that
    /// [`ReadPlan::read`] gives. Cursors may come in any order; those whose times grow cost least.
    pub fn read(&mut self, cursor: &Cursor, mut say: impl FnMut(Said<'_>)) {
        let features = &self.plan.view.features;
        self.latest
            .read(self.batches, &self.facts, cursor, |group, picked| {
                say(Said::Latest(group, picked));
            });
        for (window, reads) in self.windows.iter().enumerate() {
            let (partials, changed) = self.reads.read(window, &reads.range(cursor));
            for (index, slot) in &reads.features {
                let feature = &features[*index];
                let fades = match &feature.kind {
                    FeatureKind::Aggregate { function, .. } => function.fades(),
                    _ => false,
                };
                if changed || fades {
                    let partial = &partials[*slot];
                    self.said[*index] = self.plan.outcome(reads, *index, *slot, partial, cursor);
                }
                let outcome = &self.said[*index];
                let value = value_at(feature, outcome, cursor);
                say(Said::Value(*index, value, outcome.event_time.is_some()));
            }
        }
    }
}

/// The value of an outcome at a cursor: as [`super::apply_ttl`] and [`super::finish`] leave it.
fn value_at<'v>(feature: &'v CompiledFeature, outcome: &'v Outcome, cursor: &Cursor) -> &'v Value {
    let old = match (feature.ttl, outcome.event_time) {
        (Some(ttl), Some(time)) => time < cursor.as_of.saturating_sub(ttl),
        _ => false,
    };
    let value = match old && !feature.stale_keep {
        true => &Value::Null,
        false => &outcome.value,
    };
    match (value, &feature.default) {
        (Value::Null, Some(default)) => default,
        _ => value,
    }
}
