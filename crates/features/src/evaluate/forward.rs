//! Reads of many moments of one entity after another: what [`ReadPlan::read`] says of a state that has all facts, by windows that slide
//! from one moment to the next.

use headwater_aggregate::{ForwardReads, ForwardWindow, InputBatch, Outcome, WindowKind};
use headwater_schema::Cursor;

use super::{ReadPlan, WindowReads, absent, apply_ttl, finish};
use crate::FeatureKind;

/// Reads of one entity after another.
pub struct ForwardPlan<'f> {
    plan: &'f ReadPlan,
    reads: ForwardReads<'f>,
    /// What each feature said when its window last changed, whatever its age.
    said: Vec<Outcome>,
    outcomes: Vec<Outcome>,
    /// Whether the entity had any fact at the last read.
    found: bool,
}

impl ReadPlan {
    /// Reads the plan's features at moments that follow each other.
    pub fn forward(&self) -> ForwardPlan<'_> {
        let window = |reads: &WindowReads| ForwardWindow {
            slots: reads.slots.clone(),
            grows: reads.window.kind == WindowKind::Lifetime && reads.window.limit.is_none(),
            among: reads.among,
        };
        let windows: Vec<ForwardWindow> = self.windows.iter().map(window).collect();
        let features = self.view.features.len();
        ForwardPlan {
            plan: self,
            reads: ForwardReads::new(&self.view.layout, &windows),
            said: vec![absent(); features],
            outcomes: vec![absent(); features],
            found: false,
        }
    }
}

impl<'f> ForwardPlan<'f> {
    /// Goes over to another entity, whose facts come in the order of their positions, each once.
    pub fn begin(&mut self, facts: impl Iterator<Item = (&'f InputBatch, usize)>) {
        self.reads.begin(facts);
    }

    /// What the entity's facts say at a cursor at which all of them are known, as [`ReadPlan::read`] gives it. Cursors may come
    /// in any order; those whose times grow cost least.
    pub fn read(&mut self, cursor: &Cursor) -> &[Outcome] {
        let found = self.reads.any_before(cursor.until);
        let other = std::mem::replace(&mut self.found, found) != found;
        for (window, reads) in self.plan.windows.iter().enumerate() {
            let (partials, changed) = self.reads.read(window, &reads.range(cursor));
            for (index, slot) in &reads.features {
                let feature = &self.plan.view.features[*index];
                let fades = match &feature.kind {
                    FeatureKind::Aggregate { function, .. } => function.fades(),
                    _ => false,
                };
                if changed || fades {
                    let partial = &partials[*slot];
                    self.said[*index] = self.plan.outcome(reads, *index, *slot, partial, cursor);
                } else if !other && feature.ttl.is_none() {
                    continue;
                }
                let outcome = apply_ttl(feature, self.said[*index].clone(), cursor);
                self.outcomes[*index] = finish(feature, outcome, found);
            }
        }
        &self.outcomes
    }
}
