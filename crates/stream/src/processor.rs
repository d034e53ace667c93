//! The processor: routes facts to the states of the entities they are about, and answers reads.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use foldhash::fast::FixedState;
use headwater_aggregate::Outcome;
use headwater_facts::FactLog;
use headwater_features::{Catalog, CompiledView, FeatureStore, ReadPlan, StoreWrite};
use headwater_schema::{Cursor, EntityKey, Micros, Problem, Sequence, SequencedBatch};

use crate::in_force::{Filled, InForce, ServedView, ViewRuntime};
use crate::shard::Shard;

mod apply;
mod behind;
mod chained;

pub use behind::{Behind, Extent, Wanted};

/// Facts read from the log at a time while recovering.
const RECOVERY_FACTS_MAX: usize = 65_536;
/// States that a checkpoint stores before it lets reads and facts have the shard again.
const CHECKPOINT_STATES: usize = 32;

/// Settings of the processor.
#[derive(Debug, Clone)]
pub struct ProcessorOptions {
    /// How many shards entities are spread over; also how many threads apply a large batch.
    pub shards: usize,
    /// About how many bytes states may take in memory, over all shards.
    pub memory_bytes_max: usize,
    /// A checkpoint is written after this many facts.
    pub checkpoint_facts: u64,
    /// Facts read from the log at a time while a view is filled: few, so that live facts and reads
    /// hardly wait for the shards.
    pub fill_facts_max: usize,
    /// A view at most this many facts behind is brought to the present while live facts wait.
    pub catch_up_facts_max: u64,
}

impl Default for ProcessorOptions {
    fn default() -> Self {
        Self {
            shards: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes_max: 1 << 30,
            checkpoint_facts: 1_000_000,
            fill_facts_max: 8192,
            catch_up_facts_max: 16_384,
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
    /// How far it has been filled, while it is being filled.
    pub filled: Option<Filled>,
}

/// What an operator wants to know of a shard.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ShardStats {
    pub entities_in_memory: u64,
    pub bytes_in_memory: u64,
}

/// What an operator wants to know of the processor.
#[derive(Debug, Clone)]
pub struct ProcessorStats {
    pub views: Vec<ViewStats>,
    /// What each shard holds in memory.
    pub shards: Vec<ShardStats>,
    pub applied: Sequence,
    pub checkpointed: Sequence,
    pub checkpoints: u64,
    /// As of when it was last measured: at the start, at a checkpoint, and by the pipeline every now and then.
    pub store_bytes: u64,
}

/// Applies facts to views and reads features.
pub struct Processor {
    /// Replaced under `applying` only.
    in_force: RwLock<Arc<InForce>>,
    pub(crate) shards: Vec<Mutex<Shard>>,
    pub(crate) facts: Arc<dyn FactLog>,
    pub(crate) store: Arc<dyn FeatureStore>,
    pub(crate) options: ProcessorOptions,
    hasher: FixedState,
    applied: AtomicU64,
    checkpointed: AtomicU64,
    checkpoints: AtomicU64,
    store_bytes: AtomicU64,
    /// Held while a checkpoint is written or definitions are replaced, so that they never mix. Taken
    /// before `applying`.
    pub(crate) checkpointing: Mutex<()>,
    /// Held while facts are applied or definitions are replaced, so that they never mix.
    pub(crate) applying: Mutex<Applying>,
}

/// What only its holder may touch.
#[derive(Default)]
pub(crate) struct Applying {
    /// What ran views that have been dropped, as long as somebody may still read them.
    pub retired: Vec<Arc<ViewRuntime>>,
}

impl Processor {
    /// The position, in a store, of what had been applied to all views but those that were being filled. State ids have
    /// an `@` in them.
    pub const APPLIED: &str = "applied";

    /// A processor of the catalog's views, each as far as the store has brought it. Call
    /// [`Processor::recover`] before the first fact.
    pub fn open(
        catalog: Arc<Catalog>,
        facts: Arc<dyn FactLog>,
        store: Arc<dyn FeatureStore>,
        options: ProcessorOptions,
    ) -> Result<Self, Problem> {
        store.retain(&usable(&catalog, facts.as_ref(), store.as_ref())?)?;
        let positions = store.positions()?;
        let front = positions.get(Self::APPLIED).copied().unwrap_or(0);
        let shards_count = options.shards.max(1);
        let bytes_max = options.memory_bytes_max / shards_count;
        let views = ServedView::all(&catalog, |view| {
            let mut slots = catalog.views();
            let slot = slots.position(|v| v.name == view.name).unwrap_or(0);
            let stored = positions.get(&view.state_id).copied().unwrap_or(0);
            if view.is_chained() {
                // It keeps nothing that could be behind.
                let runtime = ViewRuntime::new(slot, Sequence::MAX, false, shards_count);
                return Arc::new(runtime);
            }
            // One that was being filled goes on being filled beside live facts.
            let filling = stored < front && positions.contains_key(&view.state_id);
            Arc::new(ViewRuntime::new(slot, stored, filling, shards_count))
        })?;
        let shards = (0..shards_count).map(|index| {
            let mut shard = Shard::new(bytes_max);
            for served in &views {
                let runtime = &served.runtime;
                shard.put(runtime.slot, &served.view, &runtime.counters[index]);
            }
            Mutex::new(shard)
        });
        let shards = shards.collect();
        let store_bytes = AtomicU64::new(store.size_bytes());
        Ok(Self {
            in_force: RwLock::new(Arc::new(InForce::new(catalog, views))),
            shards,
            facts,
            store,
            options,
            hasher: FixedState::default(),
            applied: AtomicU64::new(0),
            checkpointed: AtomicU64::new(0),
            checkpoints: AtomicU64::new(0),
            store_bytes,
            checkpointing: Mutex::default(),
            applying: Mutex::default(),
        })
    }

    /// The definitions in force and what runs them.
    pub fn in_force(&self) -> Arc<InForce> {
        let in_force = self.in_force.read();
        in_force.unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn put_in_force(&self, new: Arc<InForce>) {
        *self
            .in_force
            .write()
            .unwrap_or_else(PoisonError::into_inner) = new;
    }

    /// The newest event time of a contract's facts, each capped at its arrival; none before the first.
    pub fn newest(&self, contract: &str) -> Option<Micros> {
        self.facts.newest(contract)
    }

    /// The last sequence that every view has seen.
    pub fn applied(&self) -> Sequence {
        self.applied.load(Ordering::Acquire)
    }

    /// Brings every view to the end of the log, save those that were being filled when the last process
    /// ended: [`Processor::fill`] goes on with them. `progress` hears how many facts of how many are done.
    pub fn recover(&self, mut progress: impl FnMut(u64, u64)) -> Result<RecoveryStats, Problem> {
        let last = self.facts.last_sequence();
        let in_force = self.in_force();
        let live = in_force.views.iter().map(|v| &v.runtime);
        let live = live.filter(|r| !r.filling.load(Ordering::Acquire));
        let oldest = live.map(|r| r.reached()).min().unwrap_or(last);
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
            if self.checkpoint_due() {
                self.checkpoint()?;
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
        let _applying = lock(&self.applying);
        let in_force = self.in_force();
        self.apply_batch(&in_force, false, batch)?;
        self.applied
            .fetch_max(batch.last_sequence(), Ordering::AcqRel);
        Ok(())
    }

    /// Brings a shard back within its memory budget; where the store fails, not at once. Here and in
    /// checkpoints the log is synced first: what a power cut leaves of the store must be made of facts
    /// that it leaves in the log.
    fn settle(&self, shard: &mut Shard) -> Result<(), Problem> {
        if !shard.over_budget() {
            return Ok(());
        }
        let evicted = self
            .facts
            .sync()
            .and_then(|()| shard.evict(&self.floors(), self.store.as_ref()));
        match evicted {
            Err(problem) if !shard.overflows() => {
                tracing::error!(%problem, "states can't leave memory");
                Ok(())
            }
            done => done,
        }
    }

    /// The event time before which each view needs its facts only in its base, by slot.
    fn floors(&self) -> Vec<Option<Micros>> {
        let in_force = self.in_force();
        let slots = in_force.views.iter().map(|v| v.runtime.slot + 1).max();
        let mut floors = vec![None; slots.unwrap_or(0)];
        for served in &in_force.views {
            let newest = served.runtime.newest.load(Ordering::Relaxed);
            floors[served.runtime.slot] =
                (newest > Micros::MIN).then(|| newest.saturating_sub(served.view.retention));
        }
        floors
    }

    /// Whether so many facts have been applied since the last checkpoint that another should be
    /// written.
    pub fn checkpoint_due(&self) -> bool {
        let since = self.applied() - self.checkpointed.load(Ordering::Acquire);
        since >= self.options.checkpoint_facts
    }

    /// Writes every changed state and then the position they stand for, so that a restart replays
    /// only what comes after. Facts go on being applied and read meanwhile: a state may be stored
    /// with more than the position says, and a replay skips what it has. When it returns the
    /// checkpoint survives a power cut.
    pub fn checkpoint(&self) -> Result<(), Problem> {
        let _checkpointing = lock(&self.checkpointing);
        let position = self.applied();
        // A view that is being filled stands where it has been filled to, its states there or further.
        let in_force = self.in_force();
        let positions = in_force.views.iter().map(|v| {
            let reached = v.filled_to().unwrap_or(position);
            (v.view.state_id.clone(), reached)
        });
        let positions = positions.chain([(Self::APPLIED.to_owned(), position)]);
        let positions = positions.collect();
        for shard in &self.shards {
            self.store_changed(shard)?;
        }
        self.store.write(&StoreWrite {
            states: Vec::new(),
            positions,
        })?;
        self.store.sync()?;
        self.checkpointed.store(position, Ordering::Release);
        self.checkpoints.fetch_add(1, Ordering::Relaxed);
        self.measure_store();
        Ok(())
    }

    /// Asks the store how large it is; waits as long as the store does.
    pub(crate) fn measure_store(&self) {
        let bytes = self.store.size_bytes();
        self.store_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Stores the changed states of a shard, letting go of it every now and then.
    fn store_changed(&self, shard: &Mutex<Shard>) -> Result<(), Problem> {
        let floors = self.floors();
        let mut changed = lock(shard).take_changed();
        while !changed.is_empty() {
            let some = changed.split_off(changed.len().saturating_sub(CHECKPOINT_STATES));
            let mut guard = lock(shard);
            let synced = self.facts.sync();
            let stored =
                synced.and_then(|()| guard.store_changed(&some, &floors, self.store.as_ref()));
            if let Err(problem) = stored {
                guard.put_back_changed(some);
                guard.put_back_changed(changed);
                return Err(problem);
            }
        }
        Ok(())
    }

    /// Reads the features of a plan for one entity at a cursor, all features of the view in its
    /// order; derived ones are still to be worked out by [`ReadPlan::derive`]. `served` may have
    /// been replaced since the caller looked it up: the answer is the same.
    pub fn read(
        &self,
        served: &ServedView,
        plan: &ReadPlan,
        key: &EntityKey,
        cursor: &Cursor,
    ) -> Result<Vec<Outcome>, Problem> {
        let read = self.read_each(served, plan, key, std::slice::from_ref(cursor))?;
        let outcomes = read.into_iter().next();
        outcomes.ok_or_else(|| Problem::internal("read", "a read gave no outcomes"))
    }

    /// Figures as of now. It takes no shard and asks no store: whoever holds a shard may be waiting for a
    /// store that stands still, and that is when somebody wants to know.
    pub fn stats(&self) -> ProcessorStats {
        let mut shards = vec![ShardStats::default(); self.shards.len()];
        let view = |v: &Arc<ServedView>| {
            let runtime = &v.runtime;
            let mut stats = ViewStats {
                view: v.view.name.clone(),
                facts: 0,
                null_keys: runtime.null_keys.load(Ordering::Relaxed),
                non_finite: runtime.non_finite.load(Ordering::Relaxed),
                entities_in_memory: 0,
                bytes_in_memory: 0,
                evictions: 0,
                loads: 0,
                cold_reads: runtime.cold_reads.load(Ordering::Relaxed),
                newest: Some(runtime.newest.load(Ordering::Relaxed)).filter(|t| *t > Micros::MIN),
                filled: v.filled(),
            };
            for (counters, held) in runtime.counters.iter().zip(&mut shards) {
                let (entities, bytes) = (counters.entities.get(), counters.bytes.get());
                held.entities_in_memory += entities;
                held.bytes_in_memory += bytes;
                stats.facts += counters.facts.get();
                stats.entities_in_memory += entities;
                stats.bytes_in_memory += bytes;
                stats.evictions += counters.evictions.get();
                stats.loads += counters.loads.get();
            }
            stats
        };
        ProcessorStats {
            views: self.in_force().views.iter().map(view).collect(),
            shards,
            applied: self.applied(),
            checkpointed: self.checkpointed.load(Ordering::Acquire),
            checkpoints: self.checkpoints.load(Ordering::Relaxed),
            store_bytes: self.store_bytes.load(Ordering::Relaxed),
        }
    }
}

/// What of the store can be gone on from. States that end after the log does, or before the oldest fact that it
/// keeps, were put back or are all that was left when it was: they are made again.
fn usable(
    catalog: &Catalog,
    facts: &dyn FactLog,
    store: &dyn FeatureStore,
) -> Result<Vec<String>, Problem> {
    let (first, last) = facts.sequences();
    let positions = store.positions()?;
    if positions.values().max() > Some(&last) {
        tracing::warn!(
            "the feature store is ahead of the log, which was put back: it is made again"
        );
        return Ok(Vec::new());
    }
    let mut kept = kept_positions(catalog.views());
    kept.retain(|state_id| {
        let position = positions.get(state_id).copied();
        let behind = state_id != Processor::APPLIED && position.unwrap_or(0) + 1 < first;
        if let (true, Some(position)) = (behind, position) {
            tracing::warn!(
                state_id,
                position,
                first,
                "the states of a view are older than the facts that are kept: they are made again"
            );
        }
        !behind
    });
    Ok(kept)
}

/// What the store is to keep for views: their states and positions, and how far the log had been applied.
pub(crate) fn kept_positions<'a>(
    views: impl Iterator<Item = &'a Arc<CompiledView>>,
) -> Vec<String> {
    let kept = views.map(|view| view.state_id.clone());
    kept.chain([Processor::APPLIED.to_owned()]).collect()
}

/// A lock whose holder panicked still guards states that are whole: each fact is applied or not.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[allow(clippy::expect_used, clippy::panic, reason = "tests stop loudly")]
mod tests;
