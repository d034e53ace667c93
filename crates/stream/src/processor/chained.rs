//! Reads of chained views: the rows of the views upstream, each as it was at its own fact.
//!
//! A chained view keeps no state: a late or corrected fact upstream changes every later row. A read
//! finds the facts by the view's own key, reads the upstream's features at each of them, and goes on
//! as a read behind a state's memory does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use headwater_aggregate::{EntityState, Outcome};
use headwater_facts::PAST_RETENTION;
use headwater_features::{CompiledView, KeptRows, Read, ReadPlan, SourceRows, keep};
use headwater_schema::{Cursor, EntityKey, Micros, Position, Problem, Sequence};

use super::{Processor, lock};
use crate::cold::{Reach, rebuild, refuse_gone};
use crate::in_force::ServedView;

/// A cursor, and whether the entity had any fact at it, where that is known.
type Asked = (Cursor, Option<bool>);

/// Facts that one read of a chained view goes through.
const CHAINED_FACTS_MAX: usize = 1_000_000;

/// Features that are read together: a latest value and a window need few facts each, but both together would
/// need all. Where one needs all anyway, or several cursors may each have another newest fact, nothing is won.
fn apart(view: &Arc<CompiledView>, features: BTreeSet<usize>, asked: &[Asked]) -> Vec<Vec<usize>> {
    let alone = |feature: &usize| ReadPlan::new(view.clone(), vec![*feature]);
    let all: Vec<usize> = features.into_iter().collect();
    let (newest, others): (Vec<usize>, Vec<usize>) = all
        .iter()
        .partition(|feature| alone(feature).is_of_newest());
    let bounded = |feature: &usize| {
        asked
            .iter()
            .all(|(at, _)| alone(feature).oldest(at).is_some())
    };
    let parts = match asked.len() == 1 && others.iter().all(bounded) {
        true => vec![newest, others],
        false => vec![all],
    };
    parts.into_iter().filter(|part| !part.is_empty()).collect()
}

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
                let cursors = cursors.iter();
                cursors
                    .map(|cursor| plan.read(state, cursor, None))
                    .collect()
            })?;
            if let Err(problem) = self.settle(&mut shard) {
                // The answer is right all the same; who brings facts will hear of it.
                tracing::warn!(%problem, "states can't leave memory");
            }
            drop(shard);
            if let Some(reads) = answer {
                return self.with_aged(served, plan, key, cursors, reads);
            }
        }
        let cursors: Vec<Asked> = cursors.iter().map(|cursor| (*cursor, None)).collect();
        self.read_cold(served, plan, key, &cursors)
    }

    /// Adds what a state couldn't tell, from the facts.
    fn with_aged(
        &self,
        served: &ServedView,
        plan: &ReadPlan,
        key: &EntityKey,
        cursors: &[Cursor],
        mut reads: Vec<Read>,
    ) -> Result<Vec<Vec<Outcome>>, Problem> {
        let aged: BTreeSet<usize> = reads.iter().flat_map(|r| r.aged.iter().copied()).collect();
        let places = (0..reads.len()).filter(|place| !reads[*place].aged.is_empty());
        let places: Vec<usize> = places.collect();
        let asked = places.iter().map(|p| (cursors[*p], reads[*p].found));
        let asked: Vec<Asked> = asked.collect();
        for features in apart(plan.view(), aged, &asked) {
            let plan = ReadPlan::new(plan.view().clone(), features.clone());
            let cold = self.read_cold(served, &plan, key, &asked)?;
            for (place, cold) in places.iter().zip(cold) {
                let Read { outcomes, aged, .. } = &mut reads[*place];
                for feature in aged.iter().filter(|f| features.contains(f)) {
                    outcomes[*feature] = cold[*feature].clone();
                }
            }
        }
        Ok(reads.into_iter().map(|read| read.outcomes).collect())
    }

    fn read_cold(
        &self,
        served: &ServedView,
        plan: &ReadPlan,
        key: &EntityKey,
        cursors: &[Asked],
    ) -> Result<Vec<Vec<Outcome>>, Problem> {
        served.runtime.count_cold_read();
        let newest = cursors.iter().map(|(cursor, _)| cursor);
        let Some(newest) = newest.max_by_key(|cursor| cursor.until) else {
            return Ok(Vec::new());
        };
        let oldest = cursors.iter().map(|(cursor, _)| plan.oldest(cursor));
        let oldest = oldest.collect::<Option<Vec<Micros>>>();
        let oldest = oldest.and_then(|times| times.into_iter().min());
        let reach = match oldest {
            Some(oldest) => Reach::From(oldest),
            // An earlier cursor may have another newest fact.
            None if cursors.len() == 1 && plan.is_of_newest() => Reach::Newest,
            None => Reach::All,
        };
        let state = self.made_from_facts(served, key, newest, reach);
        let state = state.map_err(|problem| name_features(problem, plan))?;
        let read = |(cursor, found): &Asked| plan.read(state.as_ref(), cursor, *found).whole();
        let read: Option<Vec<_>> = cursors.iter().map(read).collect();
        read.ok_or_else(|| {
            Problem::internal("cold-read", "a state made from all facts has folded some")
        })
    }

    /// The state of an entity made from the fact store, as far as a read at `cursor` needs it. Refused where
    /// some of its facts are no longer kept.
    pub(super) fn made_from_facts(
        &self,
        served: &ServedView,
        key: &EntityKey,
        cursor: &Cursor,
        reach: Reach,
    ) -> Result<Option<EntityState>, Problem> {
        refuse_gone(self.facts.as_ref(), served, reach.oldest())?;
        self.made_from_kept(served, key, cursor, reach)
    }

    /// The same of the facts that are kept, whatever else there was.
    pub(super) fn made_from_kept(
        &self,
        served: &ServedView,
        key: &EntityKey,
        cursor: &Cursor,
        reach: Reach,
    ) -> Result<Option<EntityState>, Problem> {
        let rows_of = |source: usize, rows: SourceRows| {
            let needed = served.view.sources[source].needed();
            self.chained_rows(served, source, rows, &needed, cursor.known_at)
        };
        rebuild(self.facts.as_ref(), served, &rows_of, key, cursor, reach)
    }

    /// The rows of a view's source from facts of its contract: themselves, or what the view upstream
    /// makes of them.
    pub(super) fn chained_rows(
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

/// Says which features can't be told, and what can be done.
fn name_features(mut problem: Problem, plan: &ReadPlan) -> Problem {
    if problem.code == PAST_RETENTION {
        let names: Vec<&str> = plan.features().map(|f| f.full_name.as_ref()).collect();
        problem.detail = format!("{}; asked for: {}", problem.detail, names.join(", "));
        problem.hint = "read a later moment, or without these features; `headwater backfill --view` makes a view again from the facts that are kept; \
            raise `headwater.retention` of the contract before facts expire"
            .into();
    }
    problem
}
