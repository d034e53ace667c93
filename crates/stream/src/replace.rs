//! Other definitions for a running processor: views whose state stays the same keep it, new ones are
//! filled from the log beside the stream of facts, dropped ones vanish.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use headwater_features::{Catalog, CompiledView, StoreWrite};
use headwater_schema::{Problem, Sequence};

use crate::in_force::{InForce, ServedView, ViewRuntime};
use crate::processor::{Processor, kept_positions, lock};

/// Rounds in which a view may fall back before live facts have to wait for it.
const LOST_ROUNDS_MAX: u32 = 8;

/// What filling did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FillStats {
    /// Facts read again from the log.
    pub replayed: u64,
}

impl Processor {
    /// Puts another catalog in force. `commit` makes the change durable; where it fails, nothing has
    /// changed. Reads under way go on with what was in force when they began. Call
    /// [`Processor::fill`] afterwards.
    pub fn replace(
        &self,
        catalog: Arc<Catalog>,
        commit: impl FnOnce() -> Result<(), Problem>,
    ) -> Result<Arc<InForce>, Problem> {
        self.put(&catalog, &BTreeSet::new(), commit)
    }

    /// Fills views again from the log, named by their state ids: their states are forgotten. Reads answer
    /// `BACKFILLING` from now on. Call [`Processor::fill`] afterwards.
    pub fn refill(&self, state_ids: &BTreeSet<String>) -> Result<Arc<InForce>, Problem> {
        let catalog = self.in_force().catalog().clone();
        self.put(&catalog, state_ids, || Ok(()))
    }

    /// Puts a catalog in force; every view that `again` names, and every one that is new, is to be filled.
    fn put(
        &self,
        catalog: &Arc<Catalog>,
        again: &BTreeSet<String>,
        commit: impl FnOnce() -> Result<(), Problem>,
    ) -> Result<Arc<InForce>, Problem> {
        let _checkpointing = lock(&self.checkpointing);
        let mut applying = lock(&self.applying);
        let old = self.in_force();
        if !again.is_empty() {
            // Whatever goes wrong from here on, a start finds none of their states.
            let kept = old.views.iter().map(|v| &v.view);
            let kept = kept.filter(|view| !again.contains(&view.state_id));
            self.store.retain(&kept_positions(kept))?;
        }
        let positions = self.store.positions()?;
        let mut taken: BTreeSet<usize> = old.views.iter().map(|v| v.runtime.slot).collect();
        // A dropped view that somebody still reads keeps its place, so that nobody takes another's state for its.
        applying.retired.retain(|r| Arc::strong_count(r) > 1);
        taken.extend(applying.retired.iter().map(|r| r.slot));
        let views = ServedView::all(catalog, |view| {
            let kept = old.views.iter().find(|v| v.view.state_id == view.state_id);
            let kept = kept.filter(|v| !again.contains(&v.view.state_id));
            kept.map(|v| v.runtime.clone()).unwrap_or_else(|| {
                let slot = (0..).find(|slot| !taken.contains(slot)).unwrap_or(0);
                taken.insert(slot);
                let stored = positions.get(&view.state_id).copied().unwrap_or(0);
                Arc::new(self.new_runtime(view, slot, stored))
            })
        })?;
        commit()?;
        let new = Arc::new(InForce::new(catalog.clone(), views));
        let used: BTreeSet<usize> = new.views.iter().map(|v| v.runtime.slot).collect();
        for (index, shard) in self.shards.iter().enumerate() {
            let mut shard = lock(shard);
            for dropped in old.views.iter().filter(|v| !used.contains(&v.runtime.slot)) {
                shard.remove(dropped.runtime.slot);
            }
            for view in &new.views {
                let runtime = &view.runtime;
                shard.put(runtime.slot, &view.view, &runtime.counters[index]);
            }
        }
        let gone = old.views.iter().map(|v| &v.runtime);
        let gone = gone.filter(|r| !used.contains(&r.slot)).cloned();
        applying.retired.extend(gone);
        self.put_in_force(new.clone());
        let kept = kept_positions(new.views.iter().map(|v| &v.view));
        if let Err(problem) = self.store.retain(&kept) {
            // They only take room until the next start drops them.
            tracing::warn!(%problem, "the states of dropped views can't be removed");
        }
        self.note_begun(&new);
        Ok(new)
    }

    /// Notes which views have begun to be filled, so that a start goes on with them beside live facts.
    fn note_begun(&self, in_force: &InForce) {
        let begun = in_force.views.iter().filter(|v| !v.view.is_chained());
        let begun = begun.filter_map(|v| Some((v.view.state_id.clone(), v.filled_to()?)));
        let positions = begun.collect();
        let noted = self.store.write(&StoreWrite {
            states: Vec::new(),
            positions,
        });
        if let Err(problem) = noted.and_then(|()| self.store.sync()) {
            // Then a start fills them before it serves.
            tracing::warn!(%problem, "that views are being filled can't be noted");
        }
    }

    /// What runs a view that is new, or whose state is. It needs no filling where there is nothing
    /// behind it.
    fn new_runtime(&self, view: &CompiledView, slot: usize, stored: Sequence) -> ViewRuntime {
        let shards = self.shards.len();
        if view.is_chained() {
            return ViewRuntime::new(slot, Sequence::MAX, false, shards);
        }
        let applied = self.applied();
        let first = self.facts.first_sequence().saturating_sub(1);
        let mut sources = view.sources.iter();
        let no_facts = sources.all(|s| self.facts.newest(&s.contract).is_none());
        if no_facts || stored.max(first) >= applied {
            return ViewRuntime::new(slot, applied, false, shards);
        }
        ViewRuntime::new(slot, stored.max(first), true, shards)
    }

    /// Brings the views that are being filled to the present, while live facts go on coming in;
    /// returns once there is none left, or `stop` is set. `progress` hears how many facts have been read.
    pub fn fill(
        &self,
        stop: &AtomicBool,
        mut progress: impl FnMut(u64),
    ) -> Result<FillStats, Problem> {
        let mut stats = FillStats::default();
        let (mut behind, mut lost, mut unsaved) = (u64::MAX, 0, 0);
        while !stop.load(Ordering::Acquire) {
            let in_force = self.in_force();
            let views = in_force.views.iter().filter(|v| v.is_filling());
            let views: Vec<Arc<ServedView>> = views.cloned().collect();
            let Some(from) = views.iter().map(|v| v.runtime.reached()).min() else {
                break;
            };
            let left = self.applied().saturating_sub(from);
            lost = if left < behind { 0 } else { lost + 1 };
            behind = left;
            let caught_up = left <= self.options.catch_up_facts_max || lost > LOST_ROUNDS_MAX;
            let replayed = if caught_up {
                self.catch_up(&in_force, &views, from)?
            } else {
                self.fill_some(&in_force, &views, from, self.applied())?
            };
            stats.replayed += replayed;
            progress(stats.replayed);
            unsaved += replayed;
            if unsaved >= self.options.checkpoint_facts {
                self.checkpoint()?;
                unsaved = 0;
            }
        }
        if unsaved > 0 {
            self.checkpoint()?;
        }
        Ok(stats)
    }

    /// Reads the rest while live facts wait; from then on the views take live facts themselves.
    fn catch_up(
        &self,
        in_force: &Arc<InForce>,
        views: &[Arc<ServedView>],
        from: Sequence,
    ) -> Result<u64, Problem> {
        let _applying = lock(&self.applying);
        if !Arc::ptr_eq(in_force, &self.in_force()) {
            return Ok(0);
        }
        let (applied, mut at) = (self.applied(), from);
        while at < applied {
            at += self.fill_some(in_force, views, at, applied)?;
        }
        for view in views {
            view.runtime.reach(applied);
            view.runtime.filling.store(false, Ordering::Release);
        }
        Ok(at - from)
    }

    /// Applies some of the facts after `from` and up to `until` to views that haven't seen them; how
    /// many sequences that was, at least one.
    fn fill_some(
        &self,
        in_force: &InForce,
        views: &[Arc<ServedView>],
        from: Sequence,
        until: Sequence,
    ) -> Result<u64, Problem> {
        let mut at = from;
        for batch in self.facts.read(from + 1, self.options.fill_facts_max)? {
            // Facts that are durable and not applied yet come to the views as live ones.
            if batch.last_sequence() > until {
                break;
            }
            self.apply_batch(in_force, true, &batch)?;
            at = batch.last_sequence();
            for view in views.iter().filter(|v| v.runtime.reached() < at) {
                view.runtime.reach(at);
            }
        }
        if at == from {
            return Err(
                Problem::internal("fill", "the log has no facts where some were applied")
                    .detail(format!("after sequence {from}, up to {until}")),
            );
        }
        Ok(at - from)
    }
}
