//! How a batch reaches the states of entities: evaluated for every view that uses its contract, routed
//! to the shards that own the entities, and applied there.

use std::hash::BuildHasher;
use std::sync::atomic::Ordering;

use hashbrown::HashMap;
use headwater_aggregate::EntityState;
use headwater_facts::PAST_RETENTION;
use headwater_features::{CompiledSource, PreparedFacts, prepare};
use headwater_schema::{
    Contract, Cursor, EntityKey, FactBatch, Micros, Position, Problem, Sequence, SequencedBatch,
    evolve,
};

use super::{Processor, lock};
use crate::cold::Reach;
use crate::in_force::{InForce, ServedView};
use crate::shard::{Remade, Shard};

/// Batches smaller than this are applied on the calling thread.
const PARALLEL_ROWS_MIN: usize = 2048;

/// Facts of one batch as one source of a view sees them.
struct Prepared<'a> {
    served: &'a ServedView,
    facts: PreparedFacts,
    /// For facts that count no longer: since when, row by row.
    removed_at: Option<Vec<Sequence>>,
}

/// Since when each of them counts no longer, by the facts' sequences.
type Ends = HashMap<Sequence, Sequence>;

impl<'a> Prepared<'a> {
    fn new(served: &'a ServedView, facts: PreparedFacts, ends: Option<&Ends>) -> Self {
        let end = |ends: &Ends| {
            let sequences = facts.rows.sequences.iter();
            sequences
                .map(|s| ends.get(s).copied().unwrap_or(*s))
                .collect()
        };
        Self {
            served,
            removed_at: ends.map(end),
            facts,
        }
    }

    /// Whether both are new facts of one view.
    fn is_beside(&self, other: &Self) -> bool {
        let new = self.removed_at.is_none() && other.removed_at.is_none();
        new && std::ptr::eq(self.served, other.served)
    }
}

impl Processor {
    /// Applies a batch to the views that haven't seen it: those that are being filled, or all others.
    pub(crate) fn apply_batch(
        &self,
        in_force: &InForce,
        filling: bool,
        batch: &SequencedBatch,
    ) -> Result<(), Problem> {
        let Some(contract) = in_force.catalog().contract(&batch.batch.contract) else {
            return Ok(());
        };
        let uses = uses(in_force, filling, batch);
        if uses.is_empty() {
            return Ok(());
        }
        let sequences: Vec<Sequence> = (batch.first_sequence..=batch.last_sequence()).collect();
        let mut changes = Vec::with_capacity(uses.len());
        if !batch.batch.is_empty() {
            let facts = (&batch.batch, sequences.as_slice());
            prepare_each(&uses, contract, facts, None, &mut changes)?;
            note(&changes, batch);
        }
        for removed in &batch.removed {
            let ends = removed.sequences.iter().zip(&removed.removed_at);
            let ends: Ends = ends.map(|(s, at)| (*s, *at)).collect();
            let facts = (&removed.facts, removed.sequences.as_slice());
            prepare_each(&uses, contract, facts, Some(&ends), &mut changes)?;
        }
        self.route(&changes, batch.last_sequence())
    }

    pub(super) fn shard_of(&self, key: &[u8]) -> usize {
        match self.shards.len() {
            1 => 0,
            n => (self.hasher.hash_one(key) >> 32) as usize % n,
        }
    }

    /// Hands prepared facts to their shards: side by side where there are many. `last` is the last
    /// sequence of the batch that they are from.
    fn route(&self, changes: &[Prepared<'_>], last: Sequence) -> Result<(), Problem> {
        let rows: usize = changes.iter().map(|change| change.facts.len()).sum();
        let owners: Vec<Vec<usize>> = changes
            .iter()
            .map(|Prepared { facts, .. }| {
                let keys = (0..facts.len()).map(|row| facts.key(row));
                keys.map(|key| self.shard_of(key)).collect()
            })
            .collect();
        let work = |shard: usize| {
            let mut guard = lock(&self.shards[shard]);
            self.apply_shard(&mut guard, changes, last, &|change, row| {
                owners[change][row] == shard
            })?;
            self.settle(&mut guard)
        };
        if rows < PARALLEL_ROWS_MIN {
            return (0..self.shards.len()).try_for_each(work);
        }
        std::thread::scope(|scope| {
            let others: Vec<_> = (1..self.shards.len())
                .map(|shard| scope.spawn(move || work(shard)))
                .collect();
            let first = work(0);
            let crashed = || Problem::internal("shard-crashed", "a shard's thread panicked");
            others
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|_| Err(crashed())))
                .fold(first, |done, next| done.and(next))
        })
    }

    /// Applies the rows that a shard owns: first the new facts, then what is removed, in the order of
    /// the removals, since a batch may remove what it adds. Facts that come to a view through several
    /// of its sources are taken in the order of their sequences; one that comes to the same entity
    /// twice counts once, as the first of the sources has it.
    fn apply_shard(
        &self,
        shard: &mut Shard,
        changes: &[Prepared<'_>],
        last: Sequence,
        owns: &dyn Fn(usize, usize) -> bool,
    ) -> Result<(), Problem> {
        let owned = |index: usize| {
            let rows = 0..changes[index].facts.len();
            rows.filter(move |row| owns(index, *row))
        };
        let (mut removals, mut first) = (Vec::new(), 0);
        for group in changes.chunk_by(Prepared::is_beside) {
            let indexes = first..first + group.len();
            first = indexes.end;
            match (group, &group[0].removed_at) {
                (_, Some(removed_at)) => {
                    let index = indexes.start;
                    removals.extend(owned(index).map(|row| (removed_at[row], index, row)));
                }
                ([change], None) => self.insert(shard, change, owned(indexes.start))?,
                (_, None) => {
                    let rows = indexes.flat_map(|index| owned(index).map(move |row| (index, row)));
                    let mut rows: Vec<(usize, usize)> = rows.collect();
                    rows.sort_by_key(|(index, row)| changes[*index].facts.rows.sequences[*row]);
                    for (index, row) in rows {
                        self.insert(shard, &changes[index], std::iter::once(row))?;
                    }
                }
            }
        }
        removals.sort_unstable();
        for (at, index, row) in removals {
            let Prepared { served, facts, .. } = &changes[index];
            let (slot, store) = (served.runtime.slot, self.store.as_ref());
            shard.retract(slot, facts, row, at, store, |key| {
                self.made_again(served, key, last, at)
            })?;
        }
        Ok(())
    }

    fn insert(
        &self,
        shard: &mut Shard,
        change: &Prepared<'_>,
        rows: impl Iterator<Item = usize>,
    ) -> Result<(), Problem> {
        let slot = change.served.runtime.slot;
        shard.apply(slot, &change.facts, rows, self.store.as_ref())
    }

    /// The state of an entity as of the sequence `last`, made from the fact store; where some of its
    /// facts are no longer kept, what those that are make as of `at`.
    fn made_again(
        &self,
        served: &ServedView,
        key: &[u8],
        last: Sequence,
        at: Sequence,
    ) -> Result<Remade, Problem> {
        let cursor = |known_at| Cursor {
            as_of: Micros::MAX,
            until: Position::MAX,
            known_at,
        };
        let key = EntityKey::from_bytes(key);
        let nothing = || EntityState::new(&served.view.layout);
        match self.made_from_facts(served, &key, &cursor(last), Reach::All) {
            Err(problem) if problem.code == PAST_RETENTION => {
                let from = self.facts.first_sequence();
                let kept = self.made_from_kept(served, &key, &cursor(at), Reach::All)?;
                Ok(Remade::Kept(kept.unwrap_or_else(nothing), from))
            }
            made => {
                let mut state = made?.unwrap_or_else(nothing);
                state.made_at(last);
                Ok(Remade::Whole(state))
            }
        }
    }
}

/// The views that take facts of the batch's contract and haven't seen it, with the source that takes
/// them.
fn uses<'a>(
    in_force: &'a InForce,
    filling: bool,
    batch: &SequencedBatch,
) -> Vec<(&'a ServedView, &'a CompiledSource)> {
    let mut uses = Vec::new();
    for served in &in_force.views {
        let reached = served.runtime.reached();
        // A chained view keeps no state.
        let kept = !served.view.is_chained();
        if kept && served.is_filling() == filling && reached < batch.last_sequence() {
            let sources = served.view.sources.iter();
            let same = sources.filter(|s| s.contract == batch.batch.contract);
            uses.extend(same.map(|source| (served.as_ref(), source)));
        }
    }
    uses
}

/// Evaluates stored facts, which have these sequences, for every use of their contract.
fn prepare_each<'a>(
    uses: &[(&'a ServedView, &CompiledSource)],
    contract: &Contract,
    (facts, sequences): (&FactBatch, &[Sequence]),
    ends: Option<&Ends>,
    changes: &mut Vec<Prepared<'a>>,
) -> Result<(), Problem> {
    let facts = FactBatch {
        columns: evolve::project(&facts.columns, contract)?,
        ..facts.clone()
    };
    for (served, source) in uses {
        let facts = prepare(source, &facts, sequences)?;
        changes.push(Prepared::new(served, facts, ends));
    }
    Ok(())
}

/// Counts new facts.
fn note(changes: &[Prepared<'_>], batch: &SequencedBatch) {
    let newest = batch.batch.event_times.iter().max().copied();
    let newest = newest.map_or(Micros::MIN, |t| t.min(batch.ingest_time));
    for Prepared { served, facts, .. } in changes {
        let runtime = &served.runtime;
        runtime.newest.fetch_max(newest, Ordering::Relaxed);
        runtime
            .null_keys
            .fetch_add(facts.null_keys, Ordering::Relaxed);
        runtime
            .non_finite
            .fetch_add(facts.non_finite, Ordering::Relaxed);
    }
}
