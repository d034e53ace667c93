//! Facts and moments, entity by entity.

use std::collections::BTreeMap;

use headwater_aggregate::{EntityState, Outcome};
use headwater_facts::refuse_expired;
use headwater_features::{PreparedFacts, ReadPlan};
use headwater_schema::{Micros, Position, Problem, Sequence};

use super::rows::{Rows, rows_of};
use super::{Moment, Sweep};

/// Everything known of the entities that moments ask for.
pub(super) struct Entities<'m> {
    plan: &'m ReadPlan,
    moments: &'m [(usize, Moment)],
    prepared: Vec<PreparedFacts>,
    entities: BTreeMap<&'m [u8], Entity>,
    /// Moments without an entity.
    nobody: Vec<usize>,
}

#[derive(Default)]
struct Entity {
    moments: Vec<usize>,
    /// (sequence, source, batch, row)
    facts: Vec<(Sequence, usize, usize, usize)>,
    removed: BTreeMap<Position, Sequence>,
}

impl<'m> Entities<'m> {
    pub(super) fn new(
        sweep: &Sweep<'_>,
        plan: &'m ReadPlan,
        moments: &'m [(usize, Moment)],
        end: Sequence,
    ) -> Result<Self, Problem> {
        let mut all = Self {
            plan,
            moments,
            prepared: Vec::new(),
            entities: BTreeMap::new(),
            nobody: Vec::new(),
        };
        let oldest = moments
            .iter()
            .map(|(_, moment)| plan.oldest(&moment.cursor));
        let oldest = oldest.collect::<Option<Vec<Micros>>>();
        let oldest = oldest.and_then(|times| times.into_iter().min());
        for (index, (_, moment)) in moments.iter().enumerate() {
            match &moment.key {
                Some(key) => all
                    .entities
                    .entry(key.as_bytes())
                    .or_default()
                    .moments
                    .push(index),
                None => all.nobody.push(index),
            }
        }
        let view = plan.view();
        for (index, source) in view.sources.iter().enumerate() {
            let contract = sweep.contract(&source.contract)?;
            refuse_expired(sweep.facts, &contract, &view.name, oldest)?;
            for rows in rows_of(sweep, view, index, end)? {
                all.take(index, rows?);
            }
        }
        Ok(all)
    }

    fn take(&mut self, source: usize, rows: Rows) {
        match rows {
            Rows::Facts(facts) => {
                let batch = self.prepared.len();
                for row in 0..facts.len() {
                    if let Some(entity) = self.entities.get_mut(facts.key(row)) {
                        let sequence = facts.rows.sequences[row];
                        entity.facts.push((sequence, source, batch, row));
                    }
                }
                self.prepared.push(facts);
            }
            Rows::Removed(kept, removed_at) => {
                for (row, at) in removed_at.into_iter().enumerate() {
                    if let Some(entity) = self.entities.get_mut(kept.key(row)) {
                        entity.removed.insert(kept.position(row), at);
                    }
                }
            }
        }
    }

    pub(super) fn read_into(&mut self, rows: &mut [Vec<Outcome>]) -> Result<(), Problem> {
        for moment in &self.nobody {
            rows[self.moments[*moment].0] = self.read(None, *moment)?;
        }
        let mut entities = std::mem::take(&mut self.entities);
        for entity in entities.values_mut() {
            entity.facts.sort_unstable();
            let mut moments: Vec<(Sequence, usize)> = entity
                .moments
                .iter()
                .map(|moment| (self.moments[*moment].1.cursor.known_at, *moment))
                .collect();
            moments.sort_unstable();
            for known in moments.chunk_by(|a, b| a.0 == b.0) {
                let state = self.state(entity, known[0].0);
                for (_, moment) in known {
                    rows[self.moments[*moment].0] = self.read(Some(&state), *moment)?;
                }
            }
        }
        Ok(())
    }

    fn read(&self, state: Option<&EntityState>, moment: usize) -> Result<Vec<Outcome>, Problem> {
        let cursor = &self.moments[moment].1.cursor;
        self.plan
            .read(state, cursor)
            .map_err(|_| Problem::internal("sweep", "a state made from all facts has folded some"))
    }

    /// The state made of what was known by `known_at`.
    fn state(&self, entity: &Entity, known_at: Sequence) -> EntityState {
        let layout = &self.plan.view().layout;
        let mut state = EntityState::new(layout);
        for (sequence, _, batch, row) in &entity.facts {
            let facts = &self.prepared[*batch].rows;
            let removed = entity.removed.get(&facts.position(*row));
            if *sequence <= known_at && removed.is_none_or(|at| known_at < *at) {
                state.insert(layout, facts, *row);
            }
        }
        state
    }
}
