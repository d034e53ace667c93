//! The processor: routes facts to the states of the entities they are about, and answers reads.

use std::collections::BTreeMap;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use foldhash::fast::FixedState;
use headwater_aggregate::Outcome;
use headwater_facts::FactLog;
use headwater_features::{
    Catalog, CompiledSource, CompiledView, FeatureStore, PreparedFacts, ReadPlan, StoreWrite,
    StoredState, prepare,
};
use headwater_schema::{
    Cursor, EntityKey, FactBatch, Micros, Problem, Sequence, SequencedBatch, evolve,
};

use crate::cold::rebuild;
use crate::shard::Shard;

/// Batches smaller than this are applied on the calling thread.
const PARALLEL_ROWS_MIN: usize = 2048;
/// Facts read from the log at a time while recovering.
const RECOVERY_FACTS_MAX: usize = 65_536;
/// Stored states in one write of a checkpoint.
const WRITE_STATES_MAX: usize = 1024;

/// Settings of the processor.
#[derive(Debug, Clone)]
pub struct ProcessorOptions {
    /// How many shards entities are spread over; also how many threads apply a large batch.
    pub shards: usize,
    /// About how many bytes states may take in memory, over all shards.
    pub memory_bytes_max: usize,
    /// A checkpoint is written after this many facts.
    pub checkpoint_facts: u64,
}

impl Default for ProcessorOptions {
    fn default() -> Self {
        Self {
            shards: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes_max: 1 << 30,
            checkpoint_facts: 1_000_000,
        }
    }
}

/// What recovery did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RecoveryStats {
    /// Facts read again from the log.
    pub replayed: u64,
}

/// What an operator wants to know of a view.
#[derive(Debug, Clone)]
pub struct ViewStats {
    pub view: Arc<str>,
    pub facts: u64,
    pub null_keys: u64,
    pub non_finite: u64,
    pub entities_in_memory: u64,
    pub bytes_in_memory: u64,
    pub evictions: u64,
    pub loads: u64,
    pub cold_reads: u64,
    /// The newest event time of its facts, capped at their arrival; none before the first.
    pub newest: Option<Micros>,
}

/// What an operator wants to know of the processor.
#[derive(Debug, Clone)]
pub struct ProcessorStats {
    pub views: Vec<ViewStats>,
    pub applied: Sequence,
    pub checkpointed: Sequence,
    pub checkpoints: u64,
    pub store_bytes: u64,
}

/// Applies facts to views and reads features.
pub struct Processor {
    catalog: Arc<Catalog>,
    views: Vec<ViewRuntime>,
    shards: Vec<Mutex<Shard>>,
    facts: Arc<dyn FactLog>,
    store: Arc<dyn FeatureStore>,
    options: ProcessorOptions,
    hasher: FixedState,
    applied: AtomicU64,
    checkpointed: AtomicU64,
    checkpoints: AtomicU64,
    /// Held while facts are applied or a checkpoint is written, so that the two never mix.
    applying: Mutex<()>,
}

struct ViewRuntime {
    view: Arc<CompiledView>,
    /// The last sequence that the view had been brought to when it was opened.
    opened_at: Sequence,
    newest: AtomicI64,
    null_keys: AtomicU64,
    non_finite: AtomicU64,
    cold_reads: AtomicU64,
}

impl Processor {
    /// A processor of the catalog's views, each as far as the store has brought it. Call
    /// [`Processor::recover`] before the first fact.
    pub fn open(
        catalog: Arc<Catalog>,
        facts: Arc<dyn FactLog>,
        store: Arc<dyn FeatureStore>,
        options: ProcessorOptions,
    ) -> Result<Self, Problem> {
        let kept: Vec<String> = catalog.views().map(|v| v.state_id.clone()).collect();
        store.retain(&kept)?;
        let positions = store.positions()?;
        let views: Vec<Arc<CompiledView>> = catalog.views().cloned().collect();
        let shards_count = options.shards.max(1);
        let bytes_max = options.memory_bytes_max / shards_count;
        let shards = (0..shards_count).map(|_| Mutex::new(Shard::new(&views, bytes_max)));
        let runtime = |view: &Arc<CompiledView>| ViewRuntime {
            opened_at: positions.get(&view.state_id).copied().unwrap_or(0),
            view: view.clone(),
            newest: AtomicI64::new(Micros::MIN),
            null_keys: AtomicU64::new(0),
            non_finite: AtomicU64::new(0),
            cold_reads: AtomicU64::new(0),
        };
        Ok(Self {
            views: views.iter().map(runtime).collect(),
            shards: shards.collect(),
            catalog,
            facts,
            store,
            options,
            hasher: FixedState::default(),
            applied: AtomicU64::new(0),
            checkpointed: AtomicU64::new(0),
            checkpoints: AtomicU64::new(0),
            applying: Mutex::new(()),
        })
    }

    pub fn catalog(&self) -> &Arc<Catalog> {
        &self.catalog
    }

    /// The last sequence that every view has seen.
    pub fn applied(&self) -> Sequence {
        self.applied.load(Ordering::Acquire)
    }

    /// Brings every view to the end of the log. `progress` hears how many facts of how many are done.
    pub fn recover(&self, mut progress: impl FnMut(u64, u64)) -> Result<RecoveryStats, Problem> {
        let last = self.facts.last_sequence();
        let oldest = self.views.iter().map(|v| v.opened_at).min().unwrap_or(last);
        let start = oldest.max(self.facts.first_sequence().saturating_sub(1));
        self.applied.store(start, Ordering::Release);
        self.checkpointed.store(start, Ordering::Release);
        let mut next = start + 1;
        while next <= last {
            let batches = self.facts.read(next, RECOVERY_FACTS_MAX)?;
            let Some(end) = batches.last().map(|b| b.last_sequence()) else {
                break;
            };
            for batch in &batches {
                self.apply(batch)?;
            }
            progress(end - start, last - start);
            next = end + 1;
        }
        self.applied.store(last, Ordering::Release);
        Ok(RecoveryStats {
            replayed: last.saturating_sub(start),
        })
    }

    /// Applies a batch to every view that uses its contract. Batches come in the order of their
    /// sequences; what a view has seen already changes nothing.
    pub fn apply(&self, batch: &SequencedBatch) -> Result<(), Problem> {
        let guard = lock(&self.applying);
        self.apply_batch(batch)?;
        self.applied
            .fetch_max(batch.last_sequence(), Ordering::AcqRel);
        let since = self.applied() - self.checkpointed.load(Ordering::Acquire);
        if since >= self.options.checkpoint_facts {
            self.write_checkpoint(&guard)?;
        }
        Ok(())
    }

    fn apply_batch(&self, batch: &SequencedBatch) -> Result<(), Problem> {
        let Some(contract) = self.catalog.contract(&batch.batch.contract) else {
            return Ok(());
        };
        let uses = self.uses(batch);
        if uses.is_empty() {
            return Ok(());
        }
        let facts = FactBatch {
            columns: evolve::project(&batch.batch.columns, contract)?,
            ..batch.batch.clone()
        };
        let sequences: Vec<Sequence> = (batch.first_sequence..=batch.last_sequence()).collect();
        let newest = batch.batch.event_times.iter().max().copied();
        let newest = newest.map_or(Micros::MIN, |t| t.min(batch.ingest_time));
        let mut prepared = Vec::with_capacity(uses.len());
        for (view, source) in uses {
            let facts = prepare(source, &facts, &sequences)?;
            let runtime = &self.views[view];
            runtime.newest.fetch_max(newest, Ordering::Relaxed);
            runtime
                .null_keys
                .fetch_add(facts.null_keys, Ordering::Relaxed);
            runtime
                .non_finite
                .fetch_add(facts.non_finite, Ordering::Relaxed);
            prepared.push((view, facts));
        }
        self.route(&prepared)
    }

    /// The (view, source) pairs that take facts of the batch's contract and haven't seen it.
    fn uses(&self, batch: &SequencedBatch) -> Vec<(usize, &CompiledSource)> {
        let mut uses = Vec::new();
        for (index, runtime) in self.views.iter().enumerate() {
            if runtime.opened_at < batch.last_sequence() {
                let sources = runtime.view.sources.iter();
                let same = sources.filter(|s| s.contract == batch.batch.contract);
                uses.extend(same.map(|source| (index, source)));
            }
        }
        uses
    }

    fn shard_of(&self, key: &[u8]) -> usize {
        match self.shards.len() {
            1 => 0,
            n => (self.hasher.hash_one(key) >> 32) as usize % n,
        }
    }

    /// Hands prepared facts to their shards: side by side where there are many.
    fn route(&self, prepared: &[(usize, PreparedFacts)]) -> Result<(), Problem> {
        let rows: usize = prepared.iter().map(|(_, facts)| facts.len()).sum();
        if self.shards.len() == 1 {
            return self.apply_shard(0, prepared, &|facts| (0..facts.len()).collect());
        }
        let owners: Vec<Vec<usize>> = prepared
            .iter()
            .map(|(_, facts)| {
                (0..facts.len())
                    .map(|r| self.shard_of(facts.key(r)))
                    .collect()
            })
            .collect();
        let own = |shard: usize| {
            let owners = &owners;
            move |index: usize| -> Vec<usize> {
                let rows = owners[index].iter().enumerate();
                rows.filter(|(_, owner)| **owner == shard)
                    .map(|(row, _)| row)
                    .collect()
            }
        };
        let work = |shard: usize| {
            let own = own(shard);
            let mut guard = lock(&self.shards[shard]);
            for (index, (view, facts)) in prepared.iter().enumerate() {
                guard.apply(*view, facts, own(index).into_iter(), self.store.as_ref())?;
            }
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

    fn apply_shard(
        &self,
        shard: usize,
        prepared: &[(usize, PreparedFacts)],
        rows: &dyn Fn(&PreparedFacts) -> Vec<usize>,
    ) -> Result<(), Problem> {
        let mut guard = lock(&self.shards[shard]);
        for (view, facts) in prepared {
            guard.apply(*view, facts, rows(facts).into_iter(), self.store.as_ref())?;
        }
        self.settle(&mut guard)
    }

    /// Brings a shard back within its memory budget.
    fn settle(&self, shard: &mut Shard) -> Result<(), Problem> {
        if !shard.over_budget() {
            return Ok(());
        }
        shard.fold(&self.floors());
        self.store_states(shard.evict())
    }

    fn store_states(&self, states: Vec<StoredState>) -> Result<(), Problem> {
        let mut states = states;
        while !states.is_empty() {
            let rest = states.split_off(states.len().min(WRITE_STATES_MAX));
            self.store.write(&StoreWrite {
                states: std::mem::replace(&mut states, rest),
                positions: BTreeMap::new(),
            })?;
        }
        Ok(())
    }

    /// The event time before which each view needs its facts only in its base.
    fn floors(&self) -> Vec<Option<Micros>> {
        let floor = |v: &ViewRuntime| {
            let newest = v.newest.load(Ordering::Relaxed);
            (newest > Micros::MIN).then(|| newest.saturating_sub(v.view.retention))
        };
        self.views.iter().map(floor).collect()
    }

    /// Writes every changed state and the position they stand for, so that a restart replays only
    /// what comes after.
    pub fn checkpoint(&self) -> Result<(), Problem> {
        let guard = lock(&self.applying);
        self.write_checkpoint(&guard)
    }

    fn write_checkpoint(&self, _applying: &MutexGuard<'_, ()>) -> Result<(), Problem> {
        let position = self.applied();
        let floors = self.floors();
        for shard in &self.shards {
            let mut guard = lock(shard);
            guard.fold(&floors);
            let states = guard.take_dirty();
            self.store_states(states)?;
            self.store_states(guard.evict())?;
        }
        let positions = self.views.iter();
        let positions = positions
            .map(|v| (v.view.state_id.clone(), position))
            .collect();
        self.store.write(&StoreWrite {
            states: Vec::new(),
            positions,
        })?;
        self.checkpointed.store(position, Ordering::Release);
        self.checkpoints.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// A view by its index.
    pub fn view(&self, index: usize) -> &Arc<CompiledView> {
        &self.views[index].view
    }

    /// The index of a view by its name.
    pub fn view_index(&self, name: &str) -> Option<usize> {
        self.views.iter().position(|v| v.view.name.as_ref() == name)
    }

    /// Reads the features of a plan for one entity at a cursor, all features of the view in its
    /// order; derived ones are still to be worked out by [`ReadPlan::derive`].
    pub fn read(
        &self,
        view: usize,
        plan: &ReadPlan,
        key: &EntityKey,
        cursor: &Cursor,
    ) -> Result<Vec<Outcome>, Problem> {
        let bytes = key.as_bytes();
        let mut shard = lock(&self.shards[self.shard_of(bytes)]);
        let answer = shard.read(view, bytes, self.store.as_ref(), |state| {
            plan.read(state, cursor)
        })?;
        drop(shard);
        match answer {
            Ok(outcomes) => Ok(outcomes),
            Err(_) => {
                let runtime = &self.views[view];
                runtime.cold_reads.fetch_add(1, Ordering::Relaxed);
                let contract = |name: &str| self.catalog.contract(name).cloned();
                let (facts, oldest) = (self.facts.as_ref(), plan.oldest(cursor));
                let state = rebuild(facts, &runtime.view, contract, key, cursor, oldest)?;
                plan.read(state.as_ref(), cursor).map_err(|_| {
                    Problem::internal("cold-read", "a state made from all facts has folded some")
                })
            }
        }
    }

    pub fn stats(&self) -> ProcessorStats {
        let view = |(index, v): (usize, &ViewRuntime)| {
            let mut stats = ViewStats {
                view: v.view.name.clone(),
                facts: 0,
                null_keys: v.null_keys.load(Ordering::Relaxed),
                non_finite: v.non_finite.load(Ordering::Relaxed),
                entities_in_memory: 0,
                bytes_in_memory: 0,
                evictions: 0,
                loads: 0,
                cold_reads: v.cold_reads.load(Ordering::Relaxed),
                newest: Some(v.newest.load(Ordering::Relaxed)).filter(|t| *t > Micros::MIN),
            };
            for shard in &self.shards {
                let counters = lock(shard).counters(index);
                stats.facts += counters.facts;
                stats.entities_in_memory += counters.entities;
                stats.bytes_in_memory += counters.bytes;
                stats.evictions += counters.evictions;
                stats.loads += counters.loads;
            }
            stats
        };
        ProcessorStats {
            views: self.views.iter().enumerate().map(view).collect(),
            applied: self.applied(),
            checkpointed: self.checkpointed.load(Ordering::Acquire),
            checkpoints: self.checkpoints.load(Ordering::Relaxed),
            store_bytes: self.store.size_bytes(),
        }
    }
}

/// A lock whose holder panicked still guards states that are whole: each fact is applied or not.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
