//! Reads of chained views: the rows of the views upstream, each as it was at its own fact.
//!
//! A chained view keeps no state: a late or corrected fact upstream changes every later row. A read
//! finds the facts by the view's own key, reads the upstream's features at each of them, and goes on
//! as a read behind a state's memory does.

use std::collections::{BTreeMap, BTreeSet};

use headwater_aggregate::{Aged, EntityState, Outcome};
use headwater_features::{KeptRows, ReadPlan, SourceRows, keep};
use headwater_schema::{Cursor, EntityKey, Micros, Position, Problem, Sequence};

use super::{Processor, lock};
use crate::cold::rebuild;
use crate::in_force::ServedView;

/// Facts that one read of a chained view goes through.
const CHAINED_FACTS_MAX: usize = 1_000_000;

impl Processor {
    /// Reads the features of a plan for one entity at several cursors; derived ones are still to be
    /// worked out by [`ReadPlan::derive`].
    pub(super) fn read_each(
        &self,
        served: &ServedView,
        plan: &ReadPlan,
        key: &EntityKey,
        cursors: &[Cursor],
    ) -> Result<Vec<Vec<Outcome>>, Problem> {
        if served.is_filling() {
            return Ok(cursors.iter().map(|_| plan.backfilling()).collect());
        }
        if !served.view.is_chained() {
            let bytes = key.as_bytes();
            let mut shard = lock(&self.shards[self.shard_of(bytes)]);
            let slot = served.runtime.slot;
            let answer = shard.read(slot, bytes, self.store.as_ref(), |state| {
                read_all(plan, state, cursors)
            })?;
            if let Err(problem) = self.settle(&mut shard) {
                // The answer is right all the same; who brings facts will hear of it.
                tracing::warn!(%problem, "states can't leave memory");
            }
            drop(shard);
            if let Some(Ok(outcomes)) = answer {
                return Ok(outcomes);
            }
        }
        served.runtime.count_cold_read();
        let Some(newest) = cursors.iter().max_by_key(|cursor| cursor.until) else {
            return Ok(Vec::new());
        };
        let oldest = cursors.iter().map(|cursor| plan.oldest(cursor));
        let oldest = oldest.collect::<Option<Vec<Micros>>>();
        let oldest = oldest.and_then(|times| times.into_iter().min());
        let state = self.made_from_facts(served, key, newest, oldest)?;
        read_all(plan, state.as_ref(), cursors).map_err(|_| {
            Problem::internal("cold-read", "a state made from all facts has folded some")
        })
    }

    /// The state of an entity made from the fact store, as far as a read at `cursor` from event time
    /// `oldest` on needs it.
    pub(super) fn made_from_facts(
        &self,
        served: &ServedView,
        key: &EntityKey,
        cursor: &Cursor,
        oldest: Option<Micros>,
    ) -> Result<Option<EntityState>, Problem> {
        let rows_of = |source: usize, rows: SourceRows| {
            let needed = served.view.sources[source].needed();
            self.chained_rows(served, source, rows, &needed, cursor.known_at)
        };
        rebuild(self.facts.as_ref(), served, &rows_of, key, cursor, oldest)
    }

    /// The rows of a view's source from facts of its contract: themselves, or what the view upstream
    /// makes of them.
    fn chained_rows(
        &self,
        served: &ServedView,
        source: usize,
        facts: SourceRows,
        needed: &BTreeSet<usize>,
        known_at: Sequence,
    ) -> Result<SourceRows, Problem> {
        let (Some(upstream), Some(above)) = (
            &served.view.sources[source].upstream,
            served.upstream(source),
        ) else {
            return Ok(facts);
        };
        if facts.sequences.len() > CHAINED_FACTS_MAX {
            return Err(Problem::user("limit", "too many facts are behind one read")
                .detail(format!(
                    "the view `{}` goes through {} facts, of at most {CHAINED_FACTS_MAX}",
                    served.view.name,
                    facts.sequences.len()
                ))
                .hint("give its windows a width"));
        }
        let needed_above = upstream.needed_above(needed);
        let rows = self.chained_rows(above, upstream.source, facts, &needed_above, known_at)?;
        let kept = keep(&above.view.sources[upstream.source], rows)?;
        let plan = ReadPlan::new(above.view.clone(), upstream.features(needed));
        let outcomes = self.outcomes_at(above, &plan, &kept, known_at)?;
        Ok(SourceRows {
            columns: upstream.rows(&kept, &outcomes, needed)?,
            event_times: kept.event_times,
            sequences: kept.sequences,
        })
    }

    /// What a view says of each row's entity at the row itself.
    fn outcomes_at(
        &self,
        served: &ServedView,
        plan: &ReadPlan,
        rows: &KeptRows,
        known_at: Sequence,
    ) -> Result<Vec<Vec<Outcome>>, Problem> {
        let mut by_key: BTreeMap<&[u8], Vec<usize>> = BTreeMap::new();
        for row in 0..rows.len() {
            by_key.entry(rows.key(row)).or_default().push(row);
        }
        let mut outcomes = vec![Vec::new(); rows.len()];
        for (key, places) in by_key {
            let cursor = |row: &usize| {
                let position = rows.position(*row);
                let after = Position::new(position.event_time, position.sequence + 1);
                Cursor::before_fact(after).known_at(known_at)
            };
            let cursors: Vec<Cursor> = places.iter().map(cursor).collect();
            let key = EntityKey::from_bytes(key);
            let read = self.read_each(served, plan, &key, &cursors)?;
            for (place, outcome) in places.into_iter().zip(read) {
                outcomes[place] = outcome;
            }
        }
        plan.derive(&mut outcomes)?;
        Ok(outcomes)
    }
}

fn read_all(
    plan: &ReadPlan,
    state: Option<&EntityState>,
    cursors: &[Cursor],
) -> Result<Vec<Vec<Outcome>>, Aged> {
    cursors
        .iter()
        .map(|cursor| plan.read(state, cursor))
        .collect()
}
